//! Who descends from whom, read from /proc. Every answer is a picture of a moment: callers that kill look again.

use std::ffi::CStr;
use std::fs::File;
use std::io;

/// The most processes that one look collects. A tree beyond it is handled by looking again: each look signals what it saw.
pub const PROCESSES_MAX: usize = 65_536;

/// What keepers call themselves.
pub const KEEPER_NAME: &CStr = c"rw-keeper";

/// How often [`variable_after_exec`] looks, and how long it waits between.
const LOOKS_WHILE_EXEC_MAX: usize = 10_000;
const LOOK_WHILE_EXEC_EVERY: std::time::Duration = std::time::Duration::from_micros(100);

/// So often an environment must be empty to be believed.
const EMPTY_LOOKS: usize = 3;

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
    below(roots, |_| true)
}

/// As [`with_descendants`], without what is below another keeper: steps of a build that a step runs. That build asks them
/// to end itself, or it would take them for steps that failed.
pub fn up_to_keepers(roots: Vec<i32>) -> Vec<i32> {
    below(roots, |pid| name(pid).as_bytes() != KEEPER_NAME.to_bytes())
}

fn below(roots: Vec<i32>, enters: impl Fn(i32) -> bool) -> Vec<i32> {
    let mut all = roots;
    let mut next = 0;
    while next < all.len() && all.len() < PROCESSES_MAX {
        if enters(all[next]) {
            let below = children(all[next]);
            all.extend(below);
        }
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

/// Names the mount namespace of a process; `None` if it is gone or may not be looked into.
pub fn mounts(pid: i32) -> Option<(u64, u64)> {
    let stat = rustix::fs::stat(format!("/proc/{pid}/ns/mnt")).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// Whether a process has ended and only waits to be reaped.
pub fn is_zombie(pid: i32) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may hold anything.
    let after_name = memchr::memrchr(b')', &stat).map_or(&[][..], |at| &stat[at + 1..]);
    after_name.iter().find(|byte| **byte != b' ').is_none_or(|state| matches!(state, b'Z' | b'X'))
}

/// The value of a variable in the environment that a process was started with; `None` if it is not there or may not be read,
/// or if the process is just calling `exec`.
pub fn variable(pid: i32, name: &str) -> Option<Vec<u8>> {
    variable_in(&std::fs::read(format!("/proc/{pid}/environ")).ok()?, name)
}

/// As [`variable`], and waits a moment for a process that is just calling `exec`, which has no environment until that is
/// done. For processes of our own, which do that often; not for all of the machine.
pub fn variable_after_exec(pid: i32, name: &str) -> Option<Vec<u8>> {
    let mut empty_looks = 0;
    for _ in 0..LOOKS_WHILE_EXEC_MAX {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        if !environment.is_empty() {
            return variable_in(&environment, name);
        }
        if is_calling_exec(pid) {
            std::thread::sleep(LOOK_WHILE_EXEC_EVERY);
            continue;
        }
        // It is empty too if `exec` took the old memory away between our opening and reading.
        empty_looks += 1;
        if empty_looks == EMPTY_LOOKS {
            return None;
        }
    }
    None
}

fn variable_in(environment: &[u8], name: &str) -> Option<Vec<u8>> {
    environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec))
}

/// Whether a process has its new memory and not yet its new environment: the end of that is nowhere.
fn is_calling_exec(pid: i32) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = memchr::memrchr(b')', &stat).map_or(&[][..], |at| &stat[at + 1..]);
    let mut fields = after_name.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    // Source: proc_pid_stat(5): the state is field 3, `env_end` is field 51.
    fields.next().is_some_and(|state| !matches!(state, b"Z" | b"X")) && fields.nth(47) == Some(b"0")
}
