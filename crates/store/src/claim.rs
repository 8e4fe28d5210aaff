//! Who runs a build: a lock on a file, which the kernel frees when its process ends, however it ends.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use graph::BuildId;
use rustix::fs::{FlockOperation, flock};

/// How often a claim is tried: somebody who only looks holds the lock for some microseconds.
const TRIES: u32 = 4;
/// The wait between two tries.
const TRY_WAIT: Duration = Duration::from_millis(1);

/// A build in the hands of this process until the claim is dropped.
#[derive(Debug)]
pub struct Claim {
    held: Held,
    /// What is done before it is free.
    undo: Undo,
}

#[derive(Debug)]
enum Held {
    /// The locked file and its path. Closing it frees the lock.
    File { _file: File, path: PathBuf },
    /// A mark in memory.
    Memory { build: BuildId, marks: Marks },
}

/// What is done when a claim is dropped.
#[derive(Default)]
struct Undo(Option<Box<dyn FnOnce() + Send + Sync>>);

impl std::fmt::Debug for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Undo")
    }
}

/// The builds claimed in a [`crate::MemoryStore`].
pub(crate) type Marks = Arc<Mutex<BTreeSet<BuildId>>>;

/// Who holds a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The process, as it sees itself; `None` if it has not said so yet.
    pub process: Option<u32>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(undo) = self.undo.0.take() {
            undo();
        }
        match &mut self.held {
            // Removed while the lock is held, so that nobody's later claim is taken away. A file left behind is
            // harmless: only its lock counts.
            Held::File { path, .. } => drop(fs::remove_file(path)),
            Held::Memory { build, marks } => {
                marks.lock().unwrap_or_else(PoisonError::into_inner).remove(build);
            }
        }
    }
}

impl Claim {
    pub(crate) fn in_memory(build: BuildId, marks: &Marks) -> Option<Self> {
        let is_new = marks.lock().unwrap_or_else(PoisonError::into_inner).insert(build);
        is_new.then(|| Self { held: Held::Memory { build, marks: Arc::clone(marks) }, undo: Undo::default() })
    }

    /// Has something done before the claim is free.
    pub(crate) fn and_then(mut self, undo: impl FnOnce() + Send + Sync + 'static) -> Self {
        self.undo.0 = Some(Box::new(undo));
        self
    }

    /// Locks the file of `build` in `folder`, which must exist.
    pub(crate) fn on_file(folder: &Path, build: BuildId) -> io::Result<Option<Self>> {
        let path = folder.join(build.to_string());
        for attempt in 0..TRIES {
            if attempt > 0 {
                thread::sleep(TRY_WAIT);
            }
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) => continue,
                Err(error) => return Err(error.into()),
                Ok(()) => {}
            }
            if !is_at(&file, &path)? {
                // Its holder removed it between our opening and our locking it.
                continue;
            }
            file.set_len(0)?;
            match file.write_all(std::process::id().to_string().as_bytes()) {
                // On a full disk nobody learns which process holds it; it is held all the same.
                Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {}
                written => written?,
            }
            return Ok(Some(Self { held: Held::File { _file: file, path }, undo: Undo::default() }));
        }
        Ok(None)
    }
}

/// Who holds the lock of `build` in `folder`.
pub(crate) fn claimant_on_file(folder: &Path, build: BuildId) -> io::Result<Option<Claimant>> {
    let mut file = match File::open(folder.join(build.to_string())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        // Closing the file frees our lock.
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // A number has at most ten digits; what else stands there is not ours.
            let read = (&mut file).take(16).read_to_string(&mut text);
            Ok(Some(Claimant { process: read.ok().and_then(|_| text.parse().ok()) }))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether this open file is the one at `path`.
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(named) => {
            let opened = file.metadata()?;
            Ok((named.dev(), named.ino()) == (opened.dev(), opened.ino()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
