//! A container engine for the page about containers: Docker's daemon with folders of its own, ended with the page, and the two images
//! that the page names.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long the engine may take to start: machines differ.
const START_MAX: Duration = Duration::from_secs(120);

/// Where the engine of the page at hand listens.
static HOST: Mutex<String> = Mutex::new(String::new());

/// What a page has of an engine.
pub enum Started {
    /// It needs none.
    NotNeeded,
    /// There is none to be had.
    Missing,
    /// One that runs until this is dropped.
    Running(#[expect(dead_code, reason = "held for its end")] Engine),
}

/// The daemon and its folder.
pub struct Engine {
    daemon: Child,
    folder: tempfile::TempDir,
}

/// What `DOCKER_HOST` is for the page at hand: where nothing listens, unless an engine was started.
pub fn host() -> String {
    let host = HOST.lock().expect("nobody panics with it");
    if host.is_empty() { "unix:///nowhere/socket".to_owned() } else { host.clone() }
}

/// Starts one and makes the images; where that cannot be, says so.
pub fn start() -> Started {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let find = |name: &str| std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    let is_root = rustix::process::getuid().is_root();
    let (Some(_), Some(busybox), true) = (find("dockerd"), find("busybox"), is_root) else {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "no dockerd or busybox, or no rights of root");
        eprintln!("skipped: the page about containers, since there is no dockerd or busybox, or no rights of root");
        return Started::Missing;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let socket = at("socket");
    let host = format!("unix://{}", socket.display());
    let log = fs::File::create(at("log")).expect("a file");
    let daemon = Command::new("dockerd")
        .arg("--data-root")
        .arg(at("data"))
        .arg("--exec-root")
        .arg(at("exec"))
        .args(["-H", &host, "--pidfile"])
        .arg(at("pid"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file"))
        .stderr(log)
        .spawn()
        .expect("dockerd starts");
    let mut engine = Engine { daemon, folder };
    engine.until_started(&socket);
    make_image(&socket, &busybox, "busybox", "");
    make_image(&socket, &busybox, "pages", r#"CMD ["/bin/httpd","-f","-p","80","-h","/www"]"#);
    *HOST.lock().expect("nobody panics with it") = host;
    Started::Running(engine)
}

impl Engine {
    fn until_started(&mut self, socket: &Path) {
        let began = Instant::now();
        while UnixStream::connect(socket).is_err() {
            let ended = self.daemon.try_wait().expect("a child");
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && began.elapsed() < START_MAX, "dockerd did not start:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        HOST.lock().expect("nobody panics with it").clear();
        if let Some(pid) = rustix::process::Pid::from_raw(self.daemon.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.daemon.wait();
        // Its storage driver keeps its folder mounted.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let of_engine = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let mut of_engine: Vec<PathBuf> =
            of_engine.map(PathBuf::from).filter(|path| path.starts_with(self.folder.path())).collect();
        of_engine.sort_unstable_by(|left, right| right.cmp(left));
        for path in of_engine {
            let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Imports an image of busybox and two files.
fn make_image(socket: &Path, busybox: &Path, name: &str, change: &str) {
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_path_with_name(busybox, "bin/busybox").expect("busybox is read");
    for applet in ["cat", "echo", "false", "httpd", "id", "ls", "sh", "wget"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("memory");
    }
    for (path, text) in [("etc/motd", "a box of busybox\n"), ("www/index.html", "<p>a page</p>\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, text.as_bytes()).expect("memory");
    }
    let body = archive.into_inner().expect("memory");
    // An empty change is refused.
    let change = match change {
        "" => String::new(),
        change => format!("&changes={}", change.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>()),
    };
    let mut stream = UnixStream::connect(socket).expect("the engine listens");
    let head = format!(
        "POST /images/create?fromSrc=-&repo={name}&tag=latest{change} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\
         Content-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("\"error\""), "{answer}");
}
