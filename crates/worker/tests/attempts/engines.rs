//! Real container engines for tests: started with folders of their own, ended with the test, and images made on the spot.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ropewalk_worker::container::Engine;
use ropewalk_worker::container::engine::Sent;

/// How long an engine may take to start: machines differ.
const START_MAX: Duration = Duration::from_secs(120);

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Docker,
    Podman,
    /// Podman as an ordinary user, who is root inside.
    Rootless,
}

/// A user and group of no name.
pub const ORDINARY: u32 = 4217;

/// An engine that runs until this is dropped.
pub struct Running {
    child: Child,
    folder: tempfile::TempDir,
}

impl Kind {
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Docker => &["dockerd", "busybox"],
            Self::Podman | Self::Rootless => &["podman", "runc", "busybox"],
        }
    }

    fn command(self, folder: &Path) -> Command {
        let at = |name: &str| folder.join(name);
        let socket = format!("unix://{}", at("socket").display());
        let mut command = Command::new(self.programs()[0]);
        match self {
            Self::Docker => {
                command.arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec"));
                command.args(["-H", &socket, "--pidfile"]).arg(at("pid"));
            }
            Self::Podman | Self::Rootless => {
                // Where a sandbox allows fewer open files than Podman asks for.
                let limits = "[containers]\ndefault_ulimits=[\"nofile=1024:1024\",\"nproc=4096:4096\"]\n";
                std::fs::write(at("containers.conf"), limits).expect("written");
                command.env("CONTAINERS_CONF", at("containers.conf")).args(["--runtime", "runc"]);
                command.arg("--root").arg(at("root")).arg("--runroot").arg(at("run")).arg("--tmpdir").arg(at("tmp"));
                if self == Self::Rootless {
                    command.uid(ORDINARY).gid(ORDINARY).env("HOME", folder).env("XDG_RUNTIME_DIR", folder);
                    // A user of one id and without a session.
                    command.args([
                        "--storage-driver",
                        "vfs",
                        "--cgroup-manager",
                        "cgroupfs",
                        "--events-backend",
                        "file",
                    ]);
                }
                command.args(["system", "service", "-t", "0", &socket]);
            }
        }
        let log = std::fs::File::create(at("log")).expect("a file");
        // Podman's conmon leaves a file where it works when a container has no memory left.
        command.current_dir(folder);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        command
    }
}

pub fn is_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Starts an engine, or says why the test is passed over. To be called before there is any thread: it sets `DOCKER_HOST`.
pub fn start(kind: Kind) -> Option<Running> {
    let missing = kind.programs().iter().find(|program| !is_program(program)).map(|program| format!("no `{program}`"));
    let missing = missing.or_else(|| (!rustix::process::getuid().is_root()).then(|| "no rights of root".to_owned()));
    if let Some(missing) = missing {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "there is {missing} for {kind:?}");
        println!("passed over: there is {missing} for {kind:?}");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("a mode");
    if kind == Kind::Rootless {
        std::os::unix::fs::chown(folder.path(), Some(ORDINARY), Some(ORDINARY)).expect("an owner");
    }
    let child = kind.command(folder.path()).spawn().expect("the engine starts");
    let mut running = Running { child, folder };
    let socket = running.socket();
    let began = Instant::now();
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        let ended = running.child.try_wait().expect("a child");
        assert!(ended.is_none() && began.elapsed() < START_MAX, "{kind:?} did not start:\n{}", running.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    // SAFETY: there is one thread.
    unsafe { std::env::set_var("DOCKER_HOST", format!("unix://{}", socket.display())) };
    Some(running)
}

impl Running {
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
        // Storage drivers keep their folder mounted.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let mut ours: Vec<&str> = ours.filter(|path| Path::new(path).starts_with(self.folder.path())).collect();
        ours.sort_unstable_by(|left, right| right.cmp(left));
        for path in ours {
            let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// The applets that tests call.
const APPLETS: [&str; 18] = [
    "cat", "chmod", "chown", "env", "false", "find", "grep", "head", "httpd", "id", "ls", "mkdir", "ps", "rm", "sh",
    "sleep", "touch", "wget",
];

/// Makes an image of busybox with a file `/which` that holds `word`; `changes` as `docker import` takes them.
pub async fn make_image(engine: &Engine, name: &str, word: &str, changes: &[&str]) {
    let mut archive = tar::Builder::new(Vec::new());
    let busybox = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("busybox"))
        .find(|path| path.is_file())
        .expect("busybox");
    archive.append_path_with_name(busybox, "bin/busybox").expect("busybox is read");
    for applet in APPLETS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("memory");
    }
    for (path, text) in [("which", word), ("etc/passwd", "root:x:0:0::/root:/bin/sh\nada:x:77:77::/home/ada:/bin/sh\n")]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, text.as_bytes()).expect("memory");
    }
    let bytes = archive.into_inner().expect("memory");
    let (sender, pieces) = tokio::sync::mpsc::channel(1);
    sender.send(Ok(bytes.into())).await.expect("it is read below");
    drop(sender);
    let changes: String = changes.iter().map(|change| format!("&changes={}", escaped(change))).collect();
    let path = format!("/images/create?fromSrc=-&repo={name}{changes}");
    let response = engine.call(hyper::Method::POST, &path, &[], Sent::Archive(pieces)).await.expect("imported");
    http_body_util::BodyExt::collect(response.into_body()).await.expect("imported");
    engine.image(name).await.expect("it is there");
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
