//! How old the files of an entry look beside a job's sources. Tools that go by times (cargo, make, ninja) take for fresh what is newer than its source, so
//! an entry has its own times only in the tree in which it was saved, where whatever has changed since is newer. In any other tree all its
//! times are put back by the same span, so that each of its files is older than every source: what was made of these is made anew.
//!
//! Which entries were saved in which tree of this machine is written down when they are; what is not known was saved elsewhere.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use graph::Digest;

use crate::chunked::Index;
use crate::workspace::Snapshot;

/// The folder in a worker's data folder in which it is written down.
pub(crate) const SAVED_HERE: &str = "cache-trees";

/// Times are put back by a multiple of this, so that files which several entries have mostly get the same time.
const STRIDE_NS: i64 = 64 * 24 * 3600 * 1_000_000_000;

/// Older than the sources of which nobody knows how old they are: 2001-09-09.
const ANCIENT_NS: i64 = 1_000_000_000 * 1_000_000_000;

/// An entry that was neither saved nor restored for so long counts as of another tree: it has gone from the store, too.
const KEPT: Duration = Duration::from_secs(60 * 24 * 3600);

/// The tree that a job's sources are in.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Where it is written down which entries were saved in which tree.
    pub saved_here: PathBuf,
    /// Where the tree is for the steps: the same for all states of it, and for no other tree.
    pub tree: PathBuf,
    /// The state in which the job sees it; `None` if the job works in the tree itself.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Whether the tree has come to another state since, or is about to, of those that are not changed in place.
    pub passed: Passed,
}

/// Tells whether another state of a job's tree has come, or may have, after the one that the job sees. Blocks.
#[derive(Clone, Default)]
pub struct Passed(pub Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl std::fmt::Debug for Passed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Passed").field(&self.0.is_some()).finish()
    }
}

impl Sources {
    /// By how much the times of an entry are to be put back here, in nanoseconds.
    pub(super) fn lag_ns(&self, digest: Digest, index: &Index) -> i64 {
        let place = self.place(digest);
        if fs::File::open(&place).and_then(|file| file.set_modified(SystemTime::now())).is_ok() {
            return 0;
        }
        let newest_ns = index.entries.iter().map(|entry| entry.modified_ns).max().unwrap_or(i64::MIN);
        let oldest_ns = self.snapshot.as_ref().and_then(|snapshot| snapshot.oldest_ns()).unwrap_or(ANCIENT_NS);
        match newest_ns.checked_sub(oldest_ns) {
            Some(ahead @ 0..) => (ahead / STRIDE_NS + 1).saturating_mul(STRIDE_NS),
            _ => 0,
        }
    }

    /// Writes down that an entry was saved here, unless a source may have changed before that: it would look older than what was made of its
    /// earlier state.
    pub(super) fn note_saved(&self, digest: Digest) {
        let stood = |snapshot: &Arc<Snapshot>| snapshot.changed_since_start().is_ok_and(|changed| changed.is_empty());
        let is_passed = self.passed.0.as_ref().is_some_and(|is_passed| is_passed());
        if is_passed || !self.snapshot.as_ref().is_none_or(stood) {
            return;
        }
        // Without it what was saved is made anew.
        let _ = self.write(&self.place(digest));
    }

    fn write(&self, place: &Path) -> io::Result<()> {
        fs::create_dir_all(&self.saved_here)?;
        fs::File::create(place)?;
        for entry in fs::read_dir(&self.saved_here)?.flatten() {
            let used = entry.metadata().and_then(|metadata| metadata.modified());
            if used.is_ok_and(|used| used.elapsed().is_ok_and(|age| age > KEPT)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn place(&self, digest: Digest) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&digest.0).update(self.tree.as_os_str().as_encoded_bytes());
        self.saved_here.join(&hasher.finalize().to_hex()[..32])
    }
}

/// An index whose files look older by this many nanoseconds.
pub(super) fn aged(mut index: Index, lag_ns: i64) -> Index {
    for entry in &mut index.entries {
        entry.modified_ns = entry.modified_ns.saturating_sub(lag_ns);
    }
    index
}
