//! A real PostgreSQL for one test, which goes with it however it ends.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A server in a scratch folder, reached by a socket there.
pub struct Database {
    child: Child,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    databases: AtomicU32,
    folder: tempfile::TempDir,
}

impl Database {
    /// Starts one; `None`, said aloud, where PostgreSQL is not installed, which in CI is a failure.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            let what = "PostgreSQL is not installed (Debian package `postgresql`)";
            assert!(std::env::var_os("CI").is_none_or(|value| value.is_empty()), "{what}");
            eprintln!("skipped: {what}");
            return None;
        };
        let folder = tempfile::tempdir().expect("a scratch folder");
        // PostgreSQL does not run as root.
        let user = rustix::process::geteuid().is_root().then(other_user);
        if let Some((user, group)) = user {
            chown(folder.path(), Some(user), Some(group)).expect("the folder is handed over");
        }
        let data = folder.path().join("data");
        let made = run_as(user, &programs.join("initdb"))
            .args(["--auth=trust", "--username=ropewalk", "--no-sync", "--encoding=UTF8", "--locale=C", "--pgdata"])
            .arg(&data)
            .stdout(Stdio::null())
            .status();
        assert!(made.expect("initdb runs").success(), "initdb failed");
        let child = launch(&programs, user, folder.path());
        Some(Self { child, programs, user, databases: AtomicU32::new(0), folder })
    }

    /// How to reach a new, empty database.
    pub fn create(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let made = Command::new(self.programs.join("createdb"))
            .args(["--username=ropewalk", "--host"])
            .arg(self.folder.path())
            .arg(&name)
            .status();
        assert!(made.expect("createdb runs").success(), "createdb failed");
        // The folder of the socket, as an address takes it.
        let folder = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://ropewalk@{folder}/{name}")
    }

    /// Runs SQL in a database, by a program of its own.
    pub fn run(&self, url: &str, sql: &str) -> String {
        let output = Command::new(self.programs.join("psql"))
            .args([
                "--no-psqlrc",
                "--quiet",
                "--tuples-only",
                "--no-align",
                "--set=ON_ERROR_STOP=1",
                "--command",
                sql,
                url,
            ])
            .output()
            .expect("psql runs");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("its answer is text").trim().to_owned()
    }

    /// Ends all connections, as the loss of the network would.
    pub fn cut(&self) {
        let sql = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'ropewalk'";
        let ended = Command::new(self.programs.join("psql"))
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--username=ropewalk", "--dbname=postgres", "--host"])
            .arg(self.folder.path())
            .args(["--command", sql])
            .stdout(Stdio::null())
            .status();
        assert!(ended.expect("psql runs").success(), "psql failed");
    }

    /// Ends the server as a crash of its machine would, but for its disk.
    pub fn kill(&mut self) {
        signal(&self.child, rustix::process::Signal::QUIT);
        self.child.wait().expect("the server is waited for");
    }

    /// Starts it again after [`Database::kill`].
    pub fn restart(&mut self) {
        self.child = launch(&self.programs, self.user, self.folder.path());
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        signal(&self.child, rustix::process::Signal::QUIT);
        drop(self.child.wait());
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    if let Some(id) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // It may have ended.
        let _ = rustix::process::kill_process(id, signal);
    }
}

fn launch(programs: &Path, user: Option<(u32, u32)>, folder: &Path) -> Child {
    let mut child = run_as(user, &programs.join("postgres"))
        .arg("-D")
        .arg(folder.join("data"))
        .arg("-k")
        .arg(folder)
        // What the machine's loss would take does not matter here, and the disk is slow.
        .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut said = BufReader::new(child.stderr.take().expect("its messages are ours"));
    let mut line = String::new();
    while !line.contains("ready to accept connections") {
        line.clear();
        let bytes = said.read_line(&mut line).expect("its messages are read");
        assert!(bytes > 0, "the server ended before it was ready");
    }
    // Read on, so that it never waits for us.
    std::thread::spawn(move || drop(said.read_to_end(&mut Vec::new())));
    child
}

/// A program that ends with us; as this user and group.
fn run_as(user: Option<(u32, u32)>, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=QUIT");
    if let Some((user, group)) = user {
        command.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()]);
    }
    command.arg("--").arg(program);
    command
}

/// The folder with the programs of the newest version that is installed.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).max_by_key(|path| number(path))?.join("bin");
    newest.join("initdb").is_file().then_some(newest)
}

/// The user and group `postgres`; nobody's where there are none.
fn other_user() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    found.unwrap_or((65534, 65534))
}
