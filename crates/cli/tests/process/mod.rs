//! Real processes of the binary in tests: they end with the test, and their lines are read as they come.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long anything may take that must happen: far longer than it ever does.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What ends with the test, however that ends.
pub struct Process(pub Child);

impl Process {
    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status().expect("kill");
        assert!(status.success(), "no process {} to send {name} to", self.0.id());
    }

    /// The largest resident set that it had, in MiB.
    pub fn peak_mib(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it lives");
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).expect("a number") / 1024
    }

    /// Kills it, if it has not ended, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Waits for its end; its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        self.0.wait().expect("a child").code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Lines of a process as they come.
pub struct Reader {
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Reader {
    /// Of one stream.
    pub fn new(stream: impl Read + Send + 'static) -> Self {
        Self::of(vec![Box::new(stream)])
    }

    /// Of several streams together, in the order in which their lines come.
    pub fn of(streams: Vec<Box<dyn Read + Send>>) -> Self {
        let (sender, lines) = mpsc::channel();
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                        return;
                    }
                }
            });
        }
        Self { lines, seen: Vec::new() }
    }

    /// The next line that holds `wanted`.
    #[track_caller]
    pub fn until(&mut self, wanted: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(wanted) {
                        return line;
                    }
                }
                Err(_) => panic!("`{wanted}` did not come; so far:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// All lines to the end.
    pub fn rest(mut self) -> Vec<String> {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.seen.push(line);
        }
        self.seen
    }
}

/// Waits for a file that a job makes.
#[track_caller]
pub fn appears(path: &Path) {
    let began = Instant::now();
    while !path.exists() {
        assert!(began.elapsed() < PATIENCE, "{} did not appear", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}
