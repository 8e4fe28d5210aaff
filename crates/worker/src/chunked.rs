//! Trees of files kept by content: an [`Index`] names the files, files are made of chunks, chunks lie in packs, and packs and indexes are
//! blobs of a [`Depot`](crate::depot::Depot). A tree that is kept again costs what has changed: files whose stamps say that they
//! are as they were are not read, and chunks that are in a pack already are not put again.
//!
//! [`keep`] makes an index of files, [`keep_changes`] of another index and what is different, [`load`] reads one, [`lay`] puts its files into a directory. What they share is a [`Base`]:
//! a tree as it was known at some moment.
//!
//! **Stamps.** A file is as the base says if its size, time of modification and mode are the base's, and it was not touched
//! since: its time of change is before [`Base::since_ns`]. Who changes a file's bytes or name changes that time, and nobody can set it. The moment comes
//! from the clock that file systems write by ([`moment_ns`]), so that what happens in the same tick counts as a change.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod cut;
mod difference;
mod index;
mod pack;

mod keeping;
mod laying;

pub use cut::{CHUNK_BYTES_MAX, CHUNK_BYTES_MEAN, CHUNK_BYTES_MIN, first_chunk};
pub use difference::difference;
pub use index::{Chunk, Entry, INDEX_BYTES_MAX, Index, IndexFault, Kind, MAGIC, PATH_BYTES_MAX, Pack};
pub(crate) use keeping::changed;
pub use keeping::{Changes, Covers, Kept, keep, keep_changes, keep_layers};
pub use laying::{Content, Equal, Laid, Laying, Loaded, lay, lay_entries, load};
pub use pack::PACK_BYTES_MAX;

/// A tree as it was known at a moment.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its files.
    pub index: Arc<Index>,
    /// When they were known to be so, by [`moment_ns`].
    pub since_ns: i64,
    /// Names whose files were not compared with the index: of them nothing is known.
    pub unknown: HashSet<PathBuf>,
}

impl Base {
    /// Where each of its files is among the entries.
    pub(crate) fn places(&self) -> HashMap<&Path, usize> {
        let known = self.index.entries.iter().enumerate().filter(|(_, entry)| !self.unknown.contains(&entry.path));
        known.map(|(place, entry)| (entry.path.as_path(), place)).collect()
    }

    /// Whether the file of these stamps is still that of the entry.
    pub(crate) fn is_same(&self, entry: &Entry, metadata: &Metadata) -> bool {
        let Kind::File { bytes, .. } = entry.kind else { return false };
        metadata.is_file()
            && metadata.len() == bytes
            && modified_ns(metadata) == entry.modified_ns
            && metadata.mode() & 0o777 == u32::from(entry.mode)
            && nanoseconds(metadata.ctime(), metadata.ctime_nsec()) < self.since_ns
    }
}

pub(crate) fn modified_ns(metadata: &Metadata) -> i64 {
    nanoseconds(metadata.mtime(), metadata.mtime_nsec())
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// Now, in nanoseconds since the Unix epoch, by the clock whose ticks file systems write: nothing that is changed after this has an
/// earlier time. What was changed shortly before may have a later one.
#[must_use]
pub fn moment_ns() -> i64 {
    clock_ns(rustix::time::ClockId::RealtimeCoarse)
}

/// A moment that is later than everything changed before the call and no later than anything changed after its return. Waits for the next tick of
/// the clock, which is some milliseconds.
#[must_use]
pub fn next_moment_ns() -> i64 {
    /// Clocks tick a hundred times in a second or more; one that does not move is not waited for.
    const WAITS_MAX: usize = 400;
    // Kernels since 6.13 write finer times than the ticks where somebody looks, but none ahead of this.
    let start = clock_ns(rustix::time::ClockId::Realtime);
    for _ in 0..WAITS_MAX {
        if moment_ns() >= start {
            return start;
        }
        std::thread::sleep(std::time::Duration::from_micros(500));
    }
    moment_ns()
}

fn clock_ns(clock: rustix::time::ClockId) -> i64 {
    let now = rustix::time::clock_gettime(clock);
    nanoseconds(now.tv_sec, now.tv_nsec)
}
