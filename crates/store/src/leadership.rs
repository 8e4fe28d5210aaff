//! Who leads: at most one store of a database, among all processes. Each leader has an epoch, larger than all before it;
//! it stands in the database, and the appends of a store that has led are refused under any other.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::store::StoreError;

/// How often a lock on a file is asked for while waiting for it; the kernel's own wait could not be given up.
const FILE_LOCK_LOOK: Duration = Duration::from_millis(100);
/// The word for "has led, leads no more" in place of an epoch.
const ENDED: u64 = u64::MAX;

/// The leadership of a database, until it is dropped.
pub struct Leadership {
    epoch: u64,
    fence: Arc<Fence>,
    lock: Box<dyn LeaderLock>,
}

/// What became of a look at who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// It is alive, or may be, or nobody leads.
    LeftAlone,
    /// It had said nothing for too long; its lock was taken from it.
    Deposed,
}

/// What makes a leader the only one; dropping it lets others lead.
pub(crate) trait LeaderLock: Send + Sync {
    /// Whether it is still held, as far as is known without asking anybody.
    fn is_held(&self) -> bool;

    /// Says that its holder is alive. Where nobody looks, nothing is said.
    fn renew(&self, _epoch: u64) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Leadership {
    pub(crate) fn begin(epoch: u64, fence: &Arc<Fence>, lock: impl LeaderLock + 'static) -> Self {
        fence.0.store(epoch, Ordering::SeqCst);
        Self { epoch, fence: Arc::clone(fence), lock: Box::new(lock) }
    }

    /// Whether it still holds, as far as this process knows; it asks nobody and so costs nothing. Once false it stays so.
    /// What it does not know yet, the next append does.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.fence.epoch() == Some(self.epoch) && self.lock.is_held()
    }

    /// Says that this leader is alive, so that [`crate::Store::depose`] leaves it alone. Blocks.
    ///
    /// # Errors
    /// As the medium refuses.
    pub fn renew(&self) -> Result<(), StoreError> {
        self.lock.renew(self.epoch)
    }

    /// Its number: larger than those of all leaders before it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        // Only if this store has not led again meanwhile.
        let _ = self.fence.0.compare_exchange(self.epoch, ENDED, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// A store's own view of its leadership: the epoch, 0 if it never led, [`ENDED`] if it leads no more.
#[derive(Debug, Default)]
pub(crate) struct Fence(AtomicU64);

impl Fence {
    /// The epoch under which appends are to be made; `None` if this store never led.
    ///
    /// # Errors
    /// `NotLeading` if it leads no more.
    pub fn check(&self) -> Result<Option<u64>, StoreError> {
        match self.0.load(Ordering::SeqCst) {
            0 => Ok(None),
            ENDED => Err(StoreError::NotLeading),
            epoch => Ok(Some(epoch)),
        }
    }

    /// Notes that another epoch stands in the database.
    pub fn end(&self) {
        self.0.store(ENDED, Ordering::SeqCst);
    }

    fn epoch(&self) -> Option<u64> {
        self.check().ok().flatten()
    }
}

/// A lock on a file, which the kernel frees when its process ends, however it ends.
pub(crate) struct FileLock(#[expect(dead_code, reason = "closing it frees the lock")] File);

impl FileLock {
    /// Takes the lock of the file at `path`, which is made if it is not there.
    pub fn take(path: &Path, wait: Duration) -> io::Result<Option<Self>> {
        let begun = Instant::now();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Self(file))),
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(error.into()),
            }
            let Some(left) = wait.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) else { return Ok(None) };
            thread::sleep(left.min(FILE_LOCK_LOOK));
        }
    }
}

impl LeaderLock for FileLock {
    fn is_held(&self) -> bool {
        true
    }
}

/// A mark in memory.
pub(crate) struct MarkLock(Arc<AtomicBool>);

impl MarkLock {
    pub fn take(mark: &Arc<AtomicBool>, wait: Duration) -> Option<Self> {
        let begun = Instant::now();
        while mark.swap(true, Ordering::SeqCst) {
            let left = wait.checked_sub(begun.elapsed()).filter(|left| !left.is_zero())?;
            thread::sleep(left.min(Duration::from_millis(1)));
        }
        Some(Self(Arc::clone(mark)))
    }
}

impl LeaderLock for MarkLock {
    fn is_held(&self) -> bool {
        true
    }
}

impl Drop for MarkLock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
