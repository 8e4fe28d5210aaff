//! Contents that are known to be among the blobs, so that a build whose files were all sent a moment ago is not looked at file by file again.
//!
//! Whoever sends a source asks for each of its contents whether it is there, and sends what is not; both are noted here. What is noted was put
//! or renewed within [`KNOWN_MS`], and no collector takes it for longer than that. Nothing here reads a clock.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use graph::{Digest, Timestamp};
use store::blob::{BlobError, Blobs};

use crate::lock::lock;

/// How long it is known of a content that it is there, in milliseconds. The collector's grace is longer.
pub const KNOWN_MS: u64 = 3_600_000;
/// The most contents of which it is known, twice: so many newer ones, so many older ones, which are forgotten first. 17 MB together.
pub const KNOWN_MAX: usize = 250_000;
/// How many are looked for at a time: a place of contents far away takes its time for each.
const LOOKED_FOR_TOGETHER_MAX: usize = 16;
/// So few are looked for one after another.
const ONE_BY_ONE_MAX: usize = 32;

/// The contents that are known to be there.
pub struct Present {
    blobs: Arc<dyn Blobs>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    newer: HashSet<Digest>,
    older: HashSet<Digest>,
    /// Since when the newer are noted.
    newer_since: Timestamp,
    /// Since when the older were.
    older_since: Timestamp,
}

impl Known {
    /// Forgets what was noted too long ago.
    fn age(&mut self, now: Timestamp) {
        if now.ms_since(self.newer_since) >= KNOWN_MS / 2 || self.newer.len() >= KNOWN_MAX {
            self.older = std::mem::take(&mut self.newer);
            (self.older_since, self.newer_since) = (self.newer_since, now);
        }
        if now.ms_since(self.older_since) >= KNOWN_MS {
            self.older.clear();
        }
    }

    fn has(&self, digest: &Digest) -> bool {
        self.newer.contains(digest) || self.older.contains(digest)
    }
}

impl Present {
    /// Nothing is known of these blobs.
    #[must_use]
    pub fn new(blobs: Arc<dyn Blobs>) -> Self {
        Self { blobs, known: Mutex::default() }
    }

    /// Notes a content that was put or renewed just now.
    pub fn note(&self, digest: Digest, now: Timestamp) {
        let mut known = lock(&self.known);
        known.age(now);
        known.newer.insert(digest);
    }

    /// Whether a content is there and stays for the collector's grace. Blocks.
    ///
    /// # Errors
    /// As the blobs cannot be asked.
    pub fn renew(&self, digest: Digest, now: Timestamp) -> Result<bool, BlobError> {
        let is_there = self.blobs.renew(digest)?;
        if is_there {
            self.note(digest, now);
        }
        Ok(is_there)
    }

    /// The place of one among these contents that is not there; `None` if all are. Those of which it is not known are looked for and made to
    /// stay for the collector's grace, several at a time; no more once one is found absent. Blocks.
    ///
    /// # Errors
    /// As the blobs cannot be asked.
    pub fn first_absent(&self, digests: &[Digest], now: Timestamp) -> Result<Option<usize>, BlobError> {
        let unknown: Vec<usize> = {
            let mut known = lock(&self.known);
            known.age(now);
            let mut seen = HashSet::new();
            let is_unknown = |place: &usize| !known.has(&digests[*place]) && seen.insert(digests[*place]);
            (0..digests.len()).filter(is_unknown).collect()
        };
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Ok(None));
        let look = || {
            while let Some(&place) = unknown.get(next.fetch_add(1, Ordering::Relaxed)) {
                // A place that can make nothing younger has it nonetheless: a build that is there names it, or its sender put it just now.
                let renewed = match self.renew(digests[place], now) {
                    Ok(false) => self.blobs.contains(digests[place]),
                    renewed => renewed,
                };
                if !matches!(renewed, Ok(true)) {
                    // Nobody looks further.
                    next.store(unknown.len(), Ordering::Relaxed);
                    *lock(&found) = renewed.map(|_| Some(place));
                }
            }
        };
        let lookers = if unknown.len() <= ONE_BY_ONE_MAX { 1 } else { LOOKED_FOR_TOGETHER_MAX };
        std::thread::scope(|scope| {
            for _ in 1..lookers {
                // Without another thread this one looks for all.
                let _ = std::thread::Builder::new().spawn_scoped(scope, look);
            }
            look();
        });
        found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use store::blob::MemoryBlobs;

    use super::*;

    fn digest(number: usize) -> Digest {
        store::blob::digest(&number.to_le_bytes())
    }

    /// So many contents, all there.
    fn present(count: usize) -> (Present, Vec<Digest>) {
        let blobs = MemoryBlobs::default();
        let digests = (0..count).map(|number| blobs.put(&number.to_le_bytes()).expect("it is kept")).collect();
        (Present::new(Arc::new(blobs)), digests)
    }

    #[test]
    fn the_one_that_is_absent_is_found_among_few_and_many() {
        for count in [0, 1, 10, 1000] {
            let (present, mut digests) = present(count);
            assert_eq!(present.first_absent(&digests, Timestamp(0)).expect("it is asked"), None);
            for place in [0, count / 2, count] {
                digests.insert(place, digest(count + 1));
                assert_eq!(present.first_absent(&digests, Timestamp(0)).expect("it is asked"), Some(place));
                digests.remove(place);
            }
        }
    }

    #[test]
    fn what_is_known_is_not_looked_for_until_it_was_noted_too_long_ago() {
        let (present, digests) = present(1);
        present.note(digests[0], Timestamp(0));
        present.blobs.delete(digests[0]).expect("it is deleted");
        let absent = |ms| present.first_absent(&digests, Timestamp(0).plus_ms(ms)).expect("it is asked");
        assert_eq!([absent(0), absent(KNOWN_MS / 2), absent(KNOWN_MS - 1)], [None; 3]);
        assert_eq!(absent(KNOWN_MS), Some(0));
        // What is absent is asked again.
        assert_eq!(absent(KNOWN_MS), Some(0));
    }

    #[test]
    fn of_too_many_the_older_are_forgotten() {
        let (present, digests) = present(1);
        let known = |digest| lock(&present.known).has(&digest);
        present.note(digests[0], Timestamp(0));
        for number in 0..KNOWN_MAX {
            present.note(digest(number + 1), Timestamp(0));
        }
        assert!(known(digests[0]));
        for number in 0..KNOWN_MAX {
            present.note(digest(KNOWN_MAX + number + 1), Timestamp(0));
        }
        assert!(!known(digests[0]));
        let known = lock(&present.known);
        assert!(known.newer.len() <= KNOWN_MAX && known.older.len() <= KNOWN_MAX);
    }
}
