//! Whether a worker may take something new: room on the disk, and a command of its owner's.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::words::size;

/// How long a check may take.
const CHECK_MAX: Duration = Duration::from_secs(30);

/// How often the command is run at most.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// The most that is quoted of what a failed check said.
const SAID_BYTES_MAX: u64 = 500;

/// How often it is looked for what fills the disk at most, and in how many files.
const FILLED_EVERY: Duration = Duration::from_secs(600);
const COUNTED_MAX: usize = 200_000;

/// What the blocks of a file are counted in (stat(2), `st_blocks`).
const BLOCK_BYTES: u64 = 512;

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

    /// How many bytes must be free on a disk of so many.
    fn wanted(self, all: u64) -> u64 {
        match self {
            Self::Usual => (all / 100 * Self::PERCENT).min(Self::LEAST_BYTES),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// Whether the disk of a folder has it; so it is if the disk does not say.
    pub fn is_at(self, folder: &Path) -> bool {
        disk_of(folder).is_none_or(|disk| disk.free >= self.wanted(disk.all))
    }
}

impl std::str::FromStr for Room {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()));
        let factor = match unit {
            "" | "B" => 1,
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
    /// What was said last of a disk without room, and when.
    pub low: Option<(Instant, String)>,
}

impl Health {
    /// Why nothing new is taken, if so. Where there is no room, `make_room` is called first. Blocks, maybe as long as the command takes; runs it at
    /// most every half a minute.
    pub fn closed(&mut self, make_room: impl FnOnce()) -> Option<String> {
        if !self.room.is_at(&self.data) {
            make_room();
            if !self.room.is_at(&self.data) {
                return Some(self.low());
            }
        }
        self.low = None;
        let command = self.check.as_ref()?;
        let is_due = self.last.as_ref().is_none_or(|(then, _)| then.elapsed() >= CHECK_EVERY);
        if is_due {
            self.last = Some((Instant::now(), failed_check(command, CHECK_MAX)));
        }
        self.last.as_ref().and_then(|(_, reason)| reason.clone())
    }

    /// What fills the disk, and what to do. It is looked for once in a while.
    fn low(&mut self) -> String {
        if let Some((then, text)) = &self.low
            && then.elapsed() < FILLED_EVERY
        {
            return text.clone();
        }
        let disk = disk_of(&self.data).unwrap_or_default();
        let text = low(&self.data, disk.free, self.room.wanted(disk.all), &Filled::of(&self.data));
        self.low = Some((Instant::now(), text.clone()));
        text
    }
}

/// The size of a disk in bytes.
#[derive(Clone, Copy, Default)]
struct Disk {
    free: u64,
    all: u64,
}

/// `None` if it does not say.
fn disk_of(folder: &Path) -> Option<Disk> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(Disk { free: disk.f_bavail * disk.f_frsize, all: disk.f_blocks * disk.f_frsize })
}

/// What a worker's own files take on its disk, in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filled {
    workspaces: u64,
    others: u64,
    /// Whether there are more files than were counted.
    is_more: bool,
}

impl Filled {
    /// Of a data folder, up to [`COUNTED_MAX`] files; a file of several names counts once.
    fn of(data: &Path) -> Self {
        let workspaces = worker::workspaces(data);
        let (mut filled, mut n_counted, mut linked) = (Self::default(), 0, BTreeSet::new());
        let mut folders = vec![data.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let Ok(metadata) = entry.metadata() else { continue };
                if n_counted == COUNTED_MAX {
                    return Self { is_more: true, ..filled };
                }
                n_counted += 1;
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else if metadata.nlink() > 1 && !linked.insert((metadata.dev(), metadata.ino())) {
                    continue;
                }
                let is_of_workspace = folder.starts_with(&workspaces);
                let of = if is_of_workspace { &mut filled.workspaces } else { &mut filled.others };
                *of += metadata.blocks() * BLOCK_BYTES;
            }
        }
        filled
    }
}

fn low(data: &Path, free: u64, wanted: u64, filled: &Filled) -> String {
    let at_least = if filled.is_more { "at least " } else { "" };
    format!(
        "the disk of {} has only {} left, and {} are wanted; {at_least}{} of it are workspaces in use and {at_least}{} other files of this \
         worker: remove files from the disk, or let the worker have less room (`--min-free`; beside a server the setting `worker.min_free`)",
        data.display(),
        size(free),
        size(wanted),
        size(filled.workspaces),
        size(filled.others)
    )
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
        check("0B", Some(0));
        check("500MiB", Some(500 << 20));
        check("2G", Some(2 << 30));
        check("2X", None);
        check("", None);
        check("99999999999T", None);
    }

    #[test]
    fn a_small_part_of_the_disk_is_enough_or_a_gibibyte() {
        let gibibyte = 1 << 30;
        assert_eq!(Room::Usual.wanted(1000 * gibibyte), gibibyte);
        assert_eq!(Room::Usual.wanted(10 * 100), 50);
    }

    #[test]
    fn what_fills_a_disk_is_told_with_what_to_do() {
        let data = tempfile::tempdir().expect("a folder");
        let workspace = worker::workspaces(data.path()).join("1/1/upper");
        fs::create_dir_all(&workspace).expect("a folder");
        let empty = Filled::of(data.path());
        fs::write(workspace.join("big"), vec![1; 3 << 20]).expect("a file");
        fs::write(data.path().join("other"), vec![1; 1 << 20]).expect("a file");
        fs::hard_link(data.path().join("other"), data.path().join("again")).expect("a link");
        let filled = Filled::of(data.path());
        assert!(filled.workspaces - empty.workspaces >= 3 << 20, "{filled:?}");
        assert!((1 << 20..2 << 20).contains(&(filled.others - empty.others)), "{filled:?}");
        let filled = Filled { workspaces: 3 << 30, others: 0, is_more: false };
        assert_eq!(
            low(Path::new("/work"), 5 << 20, 1 << 30, &filled),
            "the disk of /work has only 5.0 MiB left, and 1.0 GiB are wanted; 3.0 GiB of it are workspaces in use and 0 B other files of this \
             worker: remove files from the disk, or let the worker have less room (`--min-free`; beside a server the setting `worker.min_free`)"
        );
    }

    #[test]
    fn a_worker_without_room_makes_some_before_it_closes() {
        let data = tempfile::tempdir().expect("a folder");
        let check = |room, is_closed, n_made| {
            let (data, made) = (data.path().to_owned(), std::cell::Cell::new(0));
            let mut health = Health { data, room, check: None, last: None, low: None };
            assert_eq!(health.closed(|| made.set(made.get() + 1)).is_some(), is_closed, "{room:?}");
            assert_eq!(made.get(), n_made, "{room:?}");
        };
        check(Room::Bytes(0), false, 0);
        check(Room::Bytes(u64::MAX), true, 1);
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
