//! Who descends from whom, read from /proc. Every answer is a picture of a moment: callers that kill look again.

use std::fs::File;
use std::io;

/// The most processes that one look collects. A tree beyond it is handled by looking again: each look signals what it saw.
pub const PROCESSES_MAX: usize = 65_536;

/// How many threads this process has.
pub fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// The direct children of a process, of all its threads. Empty if it is gone.
pub fn children(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return found };
    for task in tasks.flatten() {
        if let Ok(text) = std::fs::read_to_string(task.path().join("children")) {
            found.extend(text.split_ascii_whitespace().filter_map(|word| word.parse::<i32>().ok()));
        }
    }
    found
}

/// The direct children of this process, which has one thread. Its list stays open, for it is read often.
#[derive(Debug)]
pub struct OwnChildren(Option<File>);

impl OwnChildren {
    /// Of the process with this id, which must be the calling one.
    pub fn of(pid: i32) -> Self {
        Self(File::open(format!("/proc/self/task/{pid}/children")).ok())
    }

    /// Their process ids.
    pub fn list(&self) -> Vec<i32> {
        let Some(file) = &self.0 else { return Vec::new() };
        let mut text = Vec::new();
        let mut part = [0; 4096];
        // The system makes the list anew whenever it is read from its start.
        while let Ok(read @ 1..) = rustix::io::pread(file, &mut part, text.len() as u64) {
            text.extend_from_slice(&part[..read]);
        }
        String::from_utf8_lossy(&text).split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
    }
}

/// `roots` and everything below them, parents first, at most [`PROCESSES_MAX`].
pub fn with_descendants(roots: Vec<i32>) -> Vec<i32> {
    let mut all = roots;
    let mut next = 0;
    while next < all.len() && all.len() < PROCESSES_MAX {
        let below = children(all[next]);
        all.extend(below);
        next += 1;
    }
    all.truncate(PROCESSES_MAX);
    all
}

/// The short name of a process, as `ps` shows it; empty if it is gone.
pub fn name(pid: i32) -> String {
    let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end().to_owned()
}

/// Whether a process has ended and only waits to be reaped.
pub fn is_zombie(pid: i32) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may hold anything.
    let after_name = memchr::memrchr(b')', &stat).map_or(&[][..], |at| &stat[at + 1..]);
    after_name.iter().find(|byte| **byte != b' ').is_none_or(|state| matches!(state, b'Z' | b'X'))
}

/// The value of a variable in the environment that a process was started with; `None` if it is not there or may not be read.
pub fn variable(pid: i32, name: &str) -> Option<Vec<u8>> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec))
}
