//! Processes that outlived their job: named to people, and found again after both `ropewalk` and its keeper were killed.

use super::{MARKER_VARIABLE, tree};

/// A process that was left running.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leftover {
    /// Its process id.
    pub pid: i32,
    /// Its short name, at most 15 bytes, as `ps` shows it.
    pub name: String,
}

impl Leftover {
    /// Whether it is the keeper of another `ropewalk`.
    #[must_use]
    pub fn is_keeper(&self) -> bool {
        self.name.as_bytes() == tree::KEEPER_NAME.to_bytes()
    }
}

/// How often [`kill_leftovers`] looks again before it gives up on processes that keep starting others.
const LOOKS_MAX: usize = 100;

/// Every process of this machine whose environment says that it belongs to an attempt with a marker that begins with
/// `marker_prefix`, sorted by process id. Only those that this user may look into; zombies and this process are left out.
#[must_use]
pub fn leftovers(marker_prefix: &str) -> Vec<Leftover> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut found: Vec<Leftover> = pids
        .filter(|pid| *pid != own)
        .filter(|pid| {
            tree::variable(*pid, MARKER_VARIABLE).is_some_and(|marker| marker.starts_with(marker_prefix.as_bytes()))
        })
        .filter(|pid| !tree::is_zombie(*pid))
        .map(|pid| Leftover { pid, name: tree::name(pid) })
        .collect();
    found.sort();
    found
}

/// Kills what [`leftovers`] finds, with everything below it, and looks again until nothing is found. Sorted, no duplicates.
/// To be called when a `ropewalk` starts, before it starts steps.
#[must_use]
pub fn kill_leftovers(marker_prefix: &str) -> Vec<Leftover> {
    let mut killed: Vec<Leftover> = Vec::new();
    for _ in 0..LOOKS_MAX {
        let found = leftovers(marker_prefix);
        if found.is_empty() {
            break;
        }
        // A pidfd is taken before the marker is looked at again, so a number that was given to another process is spared.
        for leftover in found {
            kill_if_marked(leftover.pid, marker_prefix);
            killed.push(leftover);
        }
    }
    killed.sort();
    killed.dedup();
    killed
}

fn kill_if_marked(pid: i32, marker_prefix: &str) {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let Some(pid_checked) = Pid::from_raw(pid) else { return };
    let Ok(handle) = pidfd_open(pid_checked, PidfdFlags::empty()) else { return };
    let is_marked =
        tree::variable(pid, MARKER_VARIABLE).is_some_and(|marker| marker.starts_with(marker_prefix.as_bytes()));
    if !is_marked || pidfd_send_signal(&handle, Signal::KILL).is_err() {
        return;
    }
    // Its end, not a guess at how long that takes: a pidfd is readable once the process has ended.
    let limit = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
    let mut wait = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
    let _ = rustix::event::poll(&mut wait, Some(&limit));
}
