//! Which files of the user's tree changed since a build began, told by the kernel, so that the start of a job costs one read.
//!
//! Nothing runs in the background: events wait in the kernel until a job starts. Where they cannot be had, or too many
//! were waiting, the answer is [`Changes::Unknown`], and git is asked.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

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

/// Watches on every directory of a tree.
#[derive(Debug)]
pub struct Watch {
    /// `None` if the tree is not watched.
    notifier: Option<OwnedFd>,
    directories: HashMap<i32, PathBuf>,
}

impl Watch {
    /// Watches a tree but for `.git` and what `is_skipped` says of relative paths.
    pub fn place(root: &Path, is_skipped: impl Fn(&Path) -> bool) -> Self {
        let mut watch = Self { notifier: None, directories: HashMap::new() };
        let Ok(notifier) = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) else { return watch };
        let mut waiting = vec![PathBuf::new()];
        while let Some(directory) = waiting.pop() {
            let path = root.join(&directory);
            let Ok(number) = inotify::add_watch(&notifier, &path, interest()) else { return watch };
            // Watched first and listed then, so that no new directory falls between.
            for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
                let relative = directory.join(entry.file_name());
                let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_directory && entry.file_name() != ".git" && !is_skipped(&relative) {
                    waiting.push(relative);
                }
            }
            watch.directories.insert(number, directory);
            if watch.directories.len() + waiting.len() > DIRECTORIES_MAX {
                return watch;
            }
        }
        watch.notifier = Some(notifier);
        watch
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
