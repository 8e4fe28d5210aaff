//! A container engine for the pages about containers: Docker's daemon with folders of its own, ended with the page, and the images
//! that the pages name.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the engine may take to start: machines differ.
const START_MAX: Duration = Duration::from_secs(120);

thread_local! {
    /// Where the engine of the page at hand listens. Each test has a thread of its own.
    static HOST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The daemon and its folder. It runs until this is dropped.
pub struct Engine {
    daemon: Child,
    folder: tempfile::TempDir,
}

/// What `DOCKER_HOST` is for the page at hand: where nothing listens, unless an engine was started.
pub fn host() -> String {
    HOST.with_borrow(|host| if host.is_empty() { "unix:///nowhere/socket".to_owned() } else { host.clone() })
}

/// Starts one and makes the images; where that cannot be, says so.
pub fn start() -> Option<Engine> {
    let is_root = rustix::process::getuid().is_root();
    let (Some(_), Some(busybox), true) = (find("dockerd"), find("busybox"), is_root) else {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "no dockerd or busybox, or no rights of root");
        eprintln!("skipped: pages about containers, since there is no dockerd or busybox, or no rights of root");
        return None;
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
    HOST.set(host);
    Some(engine)
}

/// Where a program is.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

impl Engine {
    /// Makes the image `postgres:15` of the PostgreSQL that this machine has; `false` if it has none.
    pub fn make_postgres(&self) -> bool {
        let Some(archive) = find("busybox").and_then(|busybox| super::postgres::archive(&busybox)) else {
            return false;
        };
        import(&self.folder.path().join("socket"), "postgres", "15", &super::postgres::CHANGES, archive);
        true
    }

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
        HOST.set(String::new());
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
    for applet in ["awk", "cat", "chmod", "echo", "false", "httpd", "id", "ls", "sh", "sort", "wget"] {
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
    // An empty change is refused.
    let changes: &[&str] = if change.is_empty() { &[] } else { &[change] };
    import(socket, name, "latest", changes, archive.into_inner().expect("memory"));
}

/// Has the engine make an image of an archive; `changes` are lines of a Dockerfile.
fn import(socket: &Path, name: &str, tag: &str, changes: &[&str], body: Vec<u8>) {
    let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let changes: String = changes.iter().map(|change| format!("&changes={}", escaped(change))).collect();
    let mut stream = UnixStream::connect(socket).expect("the engine listens");
    let head = format!(
        "POST /images/create?fromSrc=-&repo={name}&tag={tag}{changes} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\
         Content-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("\"error\""), "{answer}");
}
