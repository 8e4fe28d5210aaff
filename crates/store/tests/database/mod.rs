//! A real PostgreSQL for one test, which goes with it however it ends.

mod programs;

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use programs::{Programs, USER};

/// A server in a scratch folder, reached by a socket there.
pub struct Database {
    child: Child,
    programs: Programs,
    databases: AtomicU32,
    folder: tempfile::TempDir,
}

impl Database {
    /// Starts one; `None`, said aloud, where PostgreSQL is not installed, which in CI is a failure.
    pub fn start() -> Option<Self> {
        let programs = match Programs::find(rustix::process::geteuid().is_root()) {
            Ok(programs) => programs,
            Err(what) => {
                assert!(std::env::var_os("CI").is_none_or(|value| value.is_empty()), "{what}");
                eprintln!("skipped: {what}");
                return None;
            }
        };
        let folder = tempfile::tempdir().expect("a scratch folder");
        programs.make_data(folder.path()).expect("the server's data");
        let child = programs.launch(folder.path()).expect("the server starts");
        Some(Self { child, programs, databases: AtomicU32::new(0), folder })
    }

    /// How to reach a new, empty database.
    pub fn create(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let made = self
            .programs
            .client("createdb")
            .args(["--username", USER, "--host"])
            .arg(self.folder.path())
            .arg(&name)
            .status();
        assert!(made.expect("createdb runs").success(), "createdb failed");
        programs::address(self.folder.path(), &name)
    }

    /// Runs SQL in a database, by a program of its own.
    pub fn run(&self, url: &str, sql: &str) -> String {
        let output = self
            .programs
            .client("psql")
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
        let ended = self
            .programs
            .client("psql")
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--username", USER, "--dbname=postgres", "--host"])
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
        self.child = self.programs.launch(self.folder.path()).expect("the server starts again");
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
