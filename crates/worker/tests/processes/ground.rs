//! What every test here stands on: a keeper, a runtime, shells, repositories.

use std::future::Future;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ropewalk_worker::keeper::{Command, Keeper, Processes, Running, StepEnd, StepError};

/// The marker of the only attempt in most tests.
pub fn marker() -> String {
    format!("test-{}/1/1", std::process::id())
}

/// Runs a test with a keeper that was forked before any thread, and ends it.
pub fn with_keeper<F: Future<Output = ()>>(test: impl FnOnce(Processes) -> F) {
    let keeper = Keeper::start().expect("a keeper");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let processes = Processes::attach(keeper).expect("attached");
        test(processes.clone()).await;
        processes.close().await;
    });
}

/// A shell script as the attempt runner asks for it.
pub fn script(text: &str) -> Command {
    let mut command = Command::shell("sh", &["-e"], text.as_bytes()).expect("a script");
    command.marker = marker();
    command.environment.insert("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// What a step printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub out: String,
    pub err: String,
    pub end: StepEnd,
}

/// Runs a command to its end and reads what it printed, to the end of its pipes.
pub async fn run(processes: &Processes, command: Command) -> Result<Ran, StepError> {
    let mut running = processes.spawn(command).await?;
    let end = running.ended().await?;
    let (out, err) = (read_to_end(running.stdout).await, read_to_end(running.stderr).await);
    Ok(Ran { out, err, end })
}

/// Runs a script on the machine as it is.
pub async fn sh(processes: &Processes, text: &str) -> Ran {
    run(processes, script(text)).await.expect("a shell")
}

/// Everything until every holder has closed the pipe.
pub async fn read_to_end(pipe: OwnedFd) -> String {
    let read = tokio::task::spawn_blocking(move || {
        let flags = rustix::fs::fcntl_getfl(&pipe).expect("flags");
        rustix::fs::fcntl_setfl(&pipe, flags - rustix::fs::OFlags::NONBLOCK).expect("blocking");
        let mut text = Vec::new();
        std::fs::File::from(pipe).read_to_end(&mut text).expect("a pipe is readable");
        String::from_utf8_lossy(&text).into_owned()
    });
    read.await.expect("a reader")
}

/// Waits for the first line of a step's stdout.
pub async fn first_line(running: &Running) -> String {
    let pipe = running.stdout.try_clone().expect("a descriptor");
    let read = tokio::task::spawn_blocking(move || {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            let mut wait = [rustix::event::PollFd::new(&pipe, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut wait, None).expect("a pipe can be waited for");
            match rustix::io::read(&pipe, &mut byte) {
                Ok(1) if byte[0] != b'\n' => line.push(byte[0]),
                Err(rustix::io::Errno::AGAIN) => {}
                Ok(_) => return String::from_utf8_lossy(&line).into_owned(),
                Err(error) => panic!("{error}"),
            }
        }
    });
    read.await.expect("a reader")
}

/// Whether a process is there and not only waiting to be reaped.
pub fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next()).is_some_and(|state| state != 'Z')
}

/// Comes back when a process has ended.
pub fn wait_for_death(pid: &str) {
    let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) else {
        panic!("`{pid}` is no process id")
    };
    if let Ok(handle) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        let mut wait = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut wait, None).expect("a process can be waited for");
    }
}

/// Whether a program is missing, said aloud; in CI a missing program is a failure.
pub fn is_missing(program: &str) -> bool {
    let found = std::process::Command::new(program).arg("--version").output().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "`{program}` is not installed");
        println!("skipped: `{program}` is not installed");
    }
    !found
}

/// A git repository with a commit, and a directory beside it for data.
pub struct Repository {
    pub root: PathBuf,
    pub data: PathBuf,
    _holder: tempfile::TempDir,
}

/// A file system that shares bytes between copies, mounted for this process and what it starts.
pub struct SharingGround {
    /// Where it is mounted.
    pub place: PathBuf,
    _holder: tempfile::TempDir,
}

impl SharingGround {
    /// Makes and mounts one. `None`, said aloud, where this user may not. To be called while the process has one thread
    /// and no keeper, which would not see the mount.
    pub fn mount() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only an administrator may mount a file system");
            return None;
        }
        if is_missing("mkfs.btrfs") || is_missing("filefrag") {
            return None;
        }
        let holder = tempfile::tempdir().expect("a directory");
        let (image, place) = (holder.path().join("image"), holder.path().join("place"));
        std::fs::File::create(&image).and_then(|file| file.set_len(256 << 20)).expect("a sparse file");
        std::fs::create_dir(&place).expect("a directory");
        let refusal = told(std::process::Command::new("mkfs.btrfs").arg("-q").arg(&image))
            .or_else(own_mounts)
            .or_else(|| told(std::process::Command::new("mount").args(["-o", "loop"]).args([&image, &place])));
        match refusal {
            None => Some(Self { place, _holder: holder }),
            Some(words) => {
                println!("skipped: this machine mounts no btrfs: {words}");
                None
            }
        }
    }

    /// Whether a file shares all its bytes with another one.
    pub fn is_shared(path: &Path) -> bool {
        let output = std::process::Command::new("filefrag").args(["-s", "-v"]).arg(path).output().expect("filefrag");
        let text = String::from_utf8_lossy(&output.stdout);
        let mut extents =
            text.lines().filter(|line| line.trim_start().starts_with(|first: char| first.is_ascii_digit()));
        let first = extents.next().is_some_and(|line| line.contains("shared"));
        first && extents.all(|line| line.contains("shared"))
    }
}

impl Drop for SharingGround {
    fn drop(&mut self) {
        // Else the folder that holds it could not be taken away.
        let _ = rustix::mount::unmount(&self.place, rustix::mount::UnmountFlags::DETACH);
    }
}

/// What a program said that failed; `None` if it did not.
fn told(command: &mut std::process::Command) -> Option<String> {
    match command.output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// Takes this process into a mount namespace of its own, so that nothing stays mounted after it.
fn own_mounts() -> Option<String> {
    use rustix::mount::MountPropagationFlags;
    // SAFETY: the process has one thread, so no other one loses the file system state that both shared.
    let unshared = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) };
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    unshared.and_then(|()| rustix::mount::mount_change("/", flags)).err().map(|error| error.to_string())
}

impl Repository {
    /// With these files committed.
    pub fn with(files: &[(&str, &str)]) -> Self {
        Self::within(&std::env::temp_dir(), files)
    }

    /// As [`Repository::with`], in a directory of `place`.
    pub fn within(place: &Path, files: &[(&str, &str)]) -> Self {
        let holder = tempfile::tempdir_in(place).expect("a directory");
        let base = std::fs::canonicalize(holder.path()).expect("a path");
        let (root, data) = (base.join("repository"), base.join("data"));
        std::fs::create_dir_all(&root).expect("a directory");
        let repository = Self { root, data, _holder: holder };
        files.iter().for_each(|(path, text)| repository.write(path, text));
        repository.git(&["init", "-q", "-b", "main"]);
        repository.commit();
        repository
    }

    /// Commits everything that is not ignored.
    pub fn commit(&self) {
        self.git(&["add", "-A"]);
        self.git(&["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "state"]);
    }

    pub fn git(&self, arguments: &[&str]) {
        git_in(&self.root, arguments);
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("written");
    }

    pub fn remove(&self, path: &str) {
        ropewalk_worker::workspace::remove_tree(&self.root.join(path)).expect("removed");
    }

    pub fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }
}

pub fn git_in(directory: &Path, arguments: &[&str]) {
    let isolated = std::process::Command::new("git")
        .args(["-c", "protocol.file.allow=always"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("git");
    assert!(isolated.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&isolated.stderr));
}
