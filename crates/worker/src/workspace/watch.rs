//! Which files of the user's tree changed since a build began, told by the kernel, so that the start of a job costs one read.
//!
//! Nothing runs in the background: events wait in the kernel until a job starts. Where they cannot be had, or too many
//! were waiting, the answer is [`Changes::Unknown`], and git is asked. What changed before the tree was watched shows in the
//! times of its files.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::time::{ClockId, clock_gettime};

/// The most directories that are watched; a larger tree is asked of git instead. A watch costs the kernel about 1 KiB.
pub const DIRECTORIES_MAX: usize = 16_384;

/// What changed since the last look.
#[derive(Debug, PartialEq, Eq)]
pub enum Changes {
    /// These files and directories; relative.
    Paths(BTreeSet<PathBuf>),
    /// Nobody counted.
    Unknown,
}

/// A moment on the clock by which file systems note changes: what changes later has no earlier time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    seconds: i64,
    nanos: i64,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        Self { seconds: now.tv_sec, nanos: now.tv_nsec }
    }

    /// Whether a file or directory may have changed at this moment or later.
    fn may_precede_change(self, there: &fs::Metadata) -> bool {
        let changed = Self { seconds: there.ctime(), nanos: there.ctime_nsec() };
        // Some file systems keep whole seconds.
        changed >= self || changed.nanos == 0 && changed.seconds >= self.seconds
    }
}

/// Whether something in a tree may have changed before it was watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Nothing has.
    No,
    /// Something may have.
    Maybe,
}

/// Watches on every directory of a tree.
#[derive(Debug)]
pub struct Watch {
    /// `None` if the tree is not watched.
    notifier: Option<OwnedFd>,
    directories: HashMap<i32, PathBuf>,
}

impl Watch {
    /// Watches a tree but for `.git` and what `is_skipped` says of relative paths; and whether anything else in it has been touched
    /// from `since` until it was watched. Of a tree that cannot be watched that is not said.
    pub fn place(root: &Path, since: Moment, is_skipped: impl Fn(&Path) -> bool) -> (Self, Touched) {
        let mut watch = Self::none();
        let mut is_touched = false;
        let Ok(notifier) = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) else {
            return (watch, Touched::No);
        };
        let mut waiting = vec![PathBuf::new()];
        while let Some(directory) = waiting.pop() {
            let path = root.join(&directory);
            let Ok(number) = inotify::add_watch(&notifier, &path, interest()) else { return (watch, Touched::No) };
            // Watched first, looked at and listed then, so that nothing falls between.
            is_touched |= fs::symlink_metadata(&path).is_ok_and(|there| since.may_precede_change(&there));
            for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
                let relative = || directory.join(entry.file_name());
                let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_directory {
                    waiting.extend(Some(relative()).filter(|path| entry.file_name() != ".git" && !is_skipped(path)));
                } else if !is_touched {
                    let has_changed = entry.metadata().is_ok_and(|there| since.may_precede_change(&there));
                    is_touched = has_changed && entry.file_name() != ".git" && !is_skipped(&relative());
                }
            }
            watch.directories.insert(number, directory);
            if watch.directories.len() + waiting.len() > DIRECTORIES_MAX {
                return (watch, Touched::No);
            }
        }
        watch.notifier = Some(notifier);
        (watch, if is_touched { Touched::Maybe } else { Touched::No })
    }

    /// A watch that knows nothing.
    pub fn none() -> Self {
        Self { notifier: None, directories: HashMap::new() }
    }

    /// What changed since this was last asked.
    pub fn changes(&mut self) -> Changes {
        let Some(notifier) = &self.notifier else { return Changes::Unknown };
        let mut changed = BTreeSet::new();
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(notifier, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    self.notifier = None;
                    return Changes::Unknown;
                }
                Ok(event) => changed.extend(path_of(&self.directories, &event)),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Changes::Paths(changed),
            }
        }
    }
}

fn interest() -> WatchFlags {
    WatchFlags::MODIFY
        | WatchFlags::ATTRIB
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::ONLYDIR
        | WatchFlags::DONT_FOLLOW
        | WatchFlags::EXCL_UNLINK
}

/// What an event is about; nothing for a directory's own attributes, which do not decide what is in it.
fn path_of(directories: &HashMap<i32, PathBuf>, event: &inotify::Event) -> Option<PathBuf> {
    if event.events().contains(ReadFlags::ISDIR) && event.events().contains(ReadFlags::ATTRIB) {
        return None;
    }
    let name = std::ffi::OsStr::from_bytes(event.file_name()?.to_bytes());
    (name != ".git").then(|| directories.get(&event.wd()).map(|directory| directory.join(name)))?
}
