//! Whether a worker may take something new: room on the disk, and a command of its owner's.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How long a check may take.
const CHECK_MAX: Duration = Duration::from_secs(30);

/// How often the command is run at most.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// The most that is quoted of what a failed check said.
const SAID_BYTES_MAX: u64 = 500;

/// How much room must be free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// So many hundredths of the disk, or [`Room::LEAST_BYTES`], whichever is less.
    Usual,
    /// So many bytes.
    Bytes(u64),
}

impl Room {
    /// What is enough on any disk.
    pub const LEAST_BYTES: u64 = 1 << 30;
    const PERCENT: u64 = 5;

    fn is_enough(self, free: u64, all: u64) -> bool {
        match self {
            Self::Usual => free >= (all / 100 * Self::PERCENT).min(Self::LEAST_BYTES),
            Self::Bytes(bytes) => free >= bytes,
        }
    }
}

impl std::str::FromStr for Room {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()));
        let factor = match unit {
            "" => 1,
            "KiB" | "K" => 1 << 10,
            "MiB" | "M" => 1 << 20,
            "GiB" | "G" => 1_u64 << 30,
            "TiB" | "T" => 1_u64 << 40,
            _ => return Err(format!("`{text}` is no size: give bytes, or such as `500MiB` or `2GiB`")),
        };
        let number: u64 = number.parse().map_err(|_| format!("`{text}` is no size"))?;
        number.checked_mul(factor).map(Self::Bytes).ok_or_else(|| format!("`{text}` is too large"))
    }
}

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Health {
    /// The data folder.
    pub data: PathBuf,
    /// How much room its disk must have.
    pub room: Room,
    /// A command that says by its exit code whether all is well.
    pub check: Option<String>,
    /// What the command said last, and when.
    pub last: Option<(Instant, Option<String>)>,
}

impl Health {
    /// Why nothing new is taken, if so. May take as long as the command; runs it at most every half a minute.
    pub fn closed(&mut self) -> Option<String> {
        if let Some(reason) = self.low_room() {
            return Some(reason);
        }
        let command = self.check.as_ref()?;
        let is_due = self.last.as_ref().is_none_or(|(then, _)| then.elapsed() >= CHECK_EVERY);
        if is_due {
            self.last = Some((Instant::now(), failed_check(command, CHECK_MAX)));
        }
        self.last.as_ref().and_then(|(_, reason)| reason.clone())
    }

    fn low_room(&self) -> Option<String> {
        let disk = rustix::fs::statvfs(&self.data).ok()?;
        let (free, all) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
        (!self.room.is_enough(free, all)).then(|| low(&self.data, free))
    }
}

fn low(data: &Path, free: u64) -> String {
    format!("the disk of {} has only {} MiB left", data.display(), free >> 20)
}

/// Why a check did not pass; `None` if it did.
fn failed_check(command: &str, limit: Duration) -> Option<String> {
    let mut child = Command::new("sh");
    child.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = match child.spawn() {
        Ok(child) => child,
        Err(error) => return Some(format!("the health check could not be started: {error}")),
    };
    if !ends_within(&child, limit) {
        let _ = child.kill();
        let _ = child.wait();
        return Some(format!("the health check did not end within {} s", limit.as_secs()));
    }
    let status = child.wait().ok()?;
    if status.success() {
        return None;
    }
    let mut said = Vec::new();
    let stderr = child.stderr.take();
    if let Some(stderr) = stderr
        && rustix::io::ioctl_fionbio(&stderr, true).is_ok()
    {
        // What a process that it left behind holds open is not waited for.
        let _ = stderr.take(SAID_BYTES_MAX).read_to_end(&mut said);
    }
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    Some(format!("the health check failed ({status}){said}"))
}

fn ends_within(child: &Child, limit: Duration) -> bool {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(Ok(handle)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return true };
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        let mut wait = [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)];
        match poll(&mut wait, Some(&left)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(text.parse().ok(), expected.map(Room::Bytes), "{text}");
        };
        check("0", Some(0));
        check("500MiB", Some(500 << 20));
        check("2G", Some(2 << 30));
        check("2X", None);
        check("", None);
        check("99999999999T", None);
    }

    #[test]
    fn a_small_part_of_the_disk_is_enough_or_a_gibibyte() {
        let gibibyte = 1 << 30;
        assert!(Room::Usual.is_enough(gibibyte, 1000 * gibibyte));
        assert!(!Room::Usual.is_enough(gibibyte - 1, 1000 * gibibyte));
        assert!(Room::Usual.is_enough(gibibyte / 2, 10 * gibibyte));
        assert!(!Room::Usual.is_enough(gibibyte / 2 - gibibyte / 100, 10 * gibibyte));
    }

    #[test]
    fn a_command_says_why() {
        let check = |command: &str, expected: Option<&str>| {
            assert_eq!(failed_check(command, CHECK_MAX).as_deref(), expected, "{command}");
        };
        check("true", None);
        check("echo no card >&2; exit 3", Some("the health check failed (exit status: 3): no card"));
        let slow = failed_check("exec sleep 60", Duration::ZERO);
        assert_eq!(slow.as_deref(), Some("the health check did not end within 0 s"));
    }
}
