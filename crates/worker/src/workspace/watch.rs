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
    #[must_use]
    pub fn now() -> Self {
        Self::of(ClockId::RealtimeCoarse)
    }

    /// The end of this moment: what has changed already has no later time.
    #[must_use]
    pub fn end_of_now() -> Self {
        Self::of(ClockId::Realtime)
    }

    fn of(clock: ClockId) -> Self {
        let now = clock_gettime(clock);
        Self { seconds: now.tv_sec, nanos: now.tv_nsec }
    }

    /// Whether a file or directory may have changed at this moment or later.
    fn may_precede_change(self, there: &fs::Metadata) -> bool {
        let changed = Self { seconds: there.ctime(), nanos: there.ctime_nsec() };
        // Some file systems keep whole seconds.
        changed >= self || changed.nanos == 0 && changed.seconds >= self.seconds
    }

    /// Whether a file or directory was changed last before this moment.
    pub(super) fn is_after_changes(self, there: &fs::Metadata) -> bool {
        !self.may_precede_change(there)
    }

    /// Whether a file or directory was changed last between this moment and another, both included.
    pub(super) fn spans_change(self, until: Self, there: &fs::Metadata) -> bool {
        let changed = Self { seconds: there.ctime(), nanos: there.ctime_nsec() };
        self.may_precede_change(there) && changed <= until
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

    /// Whether it is watched.
    pub fn is_placed(&self) -> bool {
        self.notifier.is_some()
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

/// Tells whether anything in a directory has been touched, at any depth but for what is in a `.git`.
#[derive(Debug)]
pub struct Vigil(Watch);

impl Vigil {
    /// Begins to watch; `None` for a tree that cannot be watched.
    #[must_use]
    pub fn begin(root: &Path) -> Option<Self> {
        // Times are not asked for: everything has changed since then.
        let (watch, _) = Watch::place(root, Moment { seconds: i64::MIN, nanos: 0 }, |_| false);
        watch.is_placed().then_some(Self(watch))
    }

    /// Whether nothing has been touched since this was begun. Once something was, nobody knows: a new directory is not watched.
    pub fn is_untouched(&mut self) -> bool {
        let is_untouched = self.0.changes() == Changes::Paths(BTreeSet::new());
        if !is_untouched {
            self.0 = Watch::none();
        }
        is_untouched
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Waits until this moment is later than every change so far: a clock's last tick may have come late.
    pub(in crate::workspace) fn pass() -> Moment {
        for _ in 0..3 {
            let now = Moment::now();
            while Moment::now() == now {
                std::thread::yield_now();
            }
        }
        Moment::now()
    }

    #[test]
    fn whatever_is_touched_ends_a_vigil() {
        let touches: [fn(&Path); 4] = [
            |root| fs::write(root.join("deep/a"), "2").unwrap(),
            |root| fs::remove_file(root.join("deep/a")).unwrap(),
            |root| fs::create_dir(root.join("new")).unwrap(),
            |root| fs::rename(root.join("deep"), root.join("other")).unwrap(),
        ];
        for touch in touches {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("deep")).unwrap();
            fs::write(root.path().join("deep/a"), "1").unwrap();
            let mut vigil = Vigil::begin(root.path()).unwrap();
            assert!(vigil.is_untouched() && vigil.is_untouched());
            touch(root.path());
            assert!(!vigil.is_untouched() && !vigil.is_untouched());
        }
        assert!(Vigil::begin(Path::new("/nowhere")).is_none());
    }
}
