//! A server's installation and a repository beside it, in tests: every part a real process of the binary.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::process::{Process, Reader};

/// An installation and a repository.
pub struct Site {
    pub folder: tempfile::TempDir,
    pub address: String,
}

/// A worker that runs, and what it says.
pub struct Worker {
    pub process: Process,
    pub said: Reader,
}

impl Site {
    /// With this pipeline, and tokens for workers and for submitting.
    pub fn new(pipeline: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let site = Self { folder, address };
        fs::create_dir_all(site.root().join(".ropewalk")).expect("a folder");
        fs::write(site.root().join(".ropewalk/pipeline.yaml"), pipeline).expect("a file");
        site.git(&["init", "-q", "-b", "main"]);
        site.git(&["add", "-A"]);
        site.git(&["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "first"]);
        fs::create_dir_all(site.path("data")).expect("a folder");
        for (name, flags) in [
            ("worker.token", &["--worker", "--name", "w"][..]),
            ("client.token", &["--submit", "--client", "t"]),
            ("admin.token", &["--admin", "--name", "a"]),
        ] {
            let data = site.path("data");
            let mut command = site.command(&["token", "create", "--data"]);
            let output = command.arg(&data).args(flags).output().expect("ropewalk starts");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            fs::write(site.path(name), output.stdout).expect("a file");
        }
        fs::write(site.path("data/settings.toml"), "worker.heartbeat = \"1s\"\n").expect("a file");
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("repository")
    }

    pub fn git(&self, arguments: &[&str]) {
        let status = Command::new("git").args(arguments).current_dir(self.root()).status().expect("git");
        assert!(status.success(), "git {arguments:?}");
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command_of(Path::new(env!("CARGO_BIN_EXE_ropewalk")));
        command.args(arguments);
        command
    }

    pub fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.root()).stdin(Stdio::null());
        command.env("ROPEWALK_DATA", self.path("home")).env("NO_COLOR", "1");
        // As in `program.rs`: only the first test compiles the SDK.
        command.env("ROPEWALK_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("program-cache"));
        for variable in ["ROPEWALK_SERVER", "ROPEWALK_TOKEN_FILE"] {
            command.env_remove(variable);
        }
        command
    }

    /// Starts the server, without a worker beside it.
    pub fn serve(&self) -> Process {
        self.serve_with(&["--local-worker", "off"])
    }

    pub fn serve_with(&self, flags: &[&str]) -> Process {
        let mut command = self.command(&["serve", "--listen", &self.address, "--data"]);
        command.arg(self.path("data")).args(flags).stdout(Stdio::piped());
        let mut process = Process(command.spawn().expect("ropewalk starts"));
        Reader::new(process.0.stdout.take().expect("a pipe")).until("serving http://");
        process
    }

    /// Waits for something that comes by itself.
    #[track_caller]
    pub fn eventually(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let began = std::time::Instant::now();
        while !is_so() {
            assert!(began.elapsed() < crate::process::PATIENCE, "not within {:?}: {what}", crate::process::PATIENCE);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn work(&self, name: &str, flags: &[&str]) -> Worker {
        self.work_as(Path::new(env!("CARGO_BIN_EXE_ropewalk")), name, flags)
    }

    /// A worker whose program is this file.
    pub fn work_as(&self, program: &Path, name: &str, flags: &[&str]) -> Worker {
        let mut command = self.command_of(program);
        command.args(["work", "--server", &self.url(), "--capacity", "2", "--grace", "1", "--name", name]);
        command.arg("--token").arg(self.path("worker.token")).arg("--data").arg(self.path(name)).args(flags);
        let mut process = Process(command.stderr(Stdio::piped()).spawn().expect("ropewalk starts"));
        let mut said = Reader::new(process.0.stderr.take().expect("a pipe"));
        said.until("joined http://");
        Worker { process, said }
    }

    pub fn submit_command(&self, flags: &[&str]) -> Command {
        let mut command = self.command(&["submit", "--server", &self.url(), "--token"]);
        command.arg(self.path("client.token")).args(flags);
        command
    }

    /// Submits and waits; asserts the exit code. Both streams.
    #[track_caller]
    pub fn submit(&self, flags: &[&str], code: i32) -> String {
        let Output { status, stdout, stderr } = self.submit_command(flags).output().expect("ropewalk starts");
        let text = format!("{}{}", String::from_utf8_lossy(&stderr), String::from_utf8_lossy(&stdout));
        assert_eq!(status.code(), Some(code), "ropewalk submit {flags:?} printed:\n{text}");
        text
    }

    /// Submits and reads what is shown, both streams.
    pub fn watch(&self, flags: &[&str]) -> (Process, Reader) {
        let mut command = self.submit_command(flags);
        let mut process =
            Process(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ropewalk starts"));
        let stdout = Box::new(process.0.stdout.take().expect("a pipe"));
        let reader = Reader::of(vec![stdout, Box::new(process.0.stderr.take().expect("a pipe"))]);
        (process, reader)
    }
}
