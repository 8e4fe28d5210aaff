//! The walls towards storage: where logs, artifacts and caches go. Only traits and their words.
//!
//! The worker knows no store. Who starts it hands it these; the binary implements them with `store`. All calls block
//! and are made off the thread that waits for processes, but for [`LogSink::write`] of a little output.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use graph::{Digest, Trust};

use crate::chunked::Pack;

/// Who wrote a piece of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// The step's standard output.
    Stdout,
    /// The step's standard error.
    Stderr,
    /// The worker itself.
    Note,
}

/// Where the log of one attempt goes.
pub trait AttemptLog: Send + Sync {
    /// Begins the log of the step of this index. Called at the step's first byte, so a silent step costs nothing; at
    /// most once for each step.
    fn open_step(&self, step: u16) -> Box<dyn LogSink>;
}

/// Takes what one step prints, in order.
///
/// **Secrets.** The sink gets bytes as the step printed them and masks them, over the cuts between reads too, before
/// anything of them is kept, shown or sent. It was made for one attempt and knows that attempt's secrets.
pub trait LogSink: Send {
    /// Takes the bytes of one read. `time_us` is microseconds since the Unix epoch. May wait while storage is behind.
    ///
    /// # Errors
    /// The first failure, told once; the sink goes on taking bytes, so that the step is not held up.
    fn write(&mut self, stream: Stream, bytes: &[u8], time_us: u64) -> Result<(), LogError>;

    /// Makes what was written readable, also the beginning of a line.
    ///
    /// # Errors
    /// As [`LogSink::write`].
    fn flush(&mut self) -> Result<(), LogError>;

    /// Ends the step's log, and says what is in it.
    fn close(self: Box<Self>) -> LogEnd;
}

/// What a closed log holds.
#[derive(Clone, Debug, Default)]
pub struct LogEnd {
    /// Lines of all streams.
    pub lines: u64,
    /// Why something is missing, if so.
    pub failure: Option<LogError>,
}

/// Why output could not be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No room on the disk; the text names the file.
    #[error("no space is left for the log: {0}")]
    Full(String),
    /// Anything else, in the system's words.
    #[error("the log was refused: {0}")]
    Refused(String),
}

/// Where other tries of an attempt's job may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On this machine alone.
    ThisMachine,
    /// On any worker.
    Workers,
}

/// Files of artifacts and caches, by content.
pub trait Depot: Send + Sync {
    /// Where other tries of the job may run.
    fn reach(&self) -> Reach {
        Reach::Workers
    }

    /// Keeps these bytes.
    ///
    /// # Errors
    /// [`DepotError::Full`], [`DepotError::Refused`].
    fn put(&self, bytes: &[u8]) -> Result<Digest, DepotError>;

    /// Keeps the content of a file.
    ///
    /// # Errors
    /// [`DepotError::Full`], [`DepotError::Refused`].
    fn put_file(&self, path: &Path) -> Result<Digest, DepotError>;

    /// The content as a stream. What is damaged may come as it is: who reads it compares it with the digest.
    ///
    /// # Errors
    /// [`DepotError::Absent`], [`DepotError::Damaged`], [`DepotError::Refused`].
    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send>, DepotError>;

    /// Says that a content was not what its digest says, or could not be read to its end. It is looked at where it is kept, and removed if it is
    /// damaged there, so that whoever makes it next makes it anew.
    fn doubt(&self, _digest: Digest) {}

    /// Which of these are not there, sorted if they were. The others stay for some hours, so that something may be kept that names them.
    ///
    /// # Errors
    /// [`DepotError::Refused`].
    fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, DepotError>;

    /// The cache entry of the key; else, for the first prefix of `restore` that has any, its newest entry.
    ///
    /// # Errors
    /// [`DepotError::Refused`].
    fn find_cache(&self, scope: &CacheScope, key: &str, restore: &[String]) -> Result<Option<CacheEntry>, DepotError>;

    /// Keeps a cache entry, unless the key has one already: an entry is written once. Only one whose digest is `refused` gives way, since it could not be
    /// restored. All its blobs have been put or were asked for by [`Depot::missing`] before.
    ///
    /// # Errors
    /// [`DepotError::Full`], [`DepotError::Refused`].
    fn save_cache(
        &self,
        scope: &CacheScope,
        entry: &CacheEntry,
        refused: Option<Digest>,
    ) -> Result<CacheSaved, DepotError>;
}

/// Which entries a job may see and write. Entries of different scopes never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheScope {
    /// How far the build's event is trusted. What an untrusted build wrote, a trusted one never reads; an untrusted one
    /// may read what a trusted one wrote.
    pub trust: Trust,
    /// The digest of the cached paths, as the job declares them: an entry fits only where it came from.
    pub paths: Digest,
}

/// One entry of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// Its key.
    pub key: String,
    /// The blob that says what is in it: an index, or one archive of all files.
    pub digest: Digest,
    /// What all its blobs hold; several entries may have some of them in common.
    pub bytes: u64,
    /// The packs that the index names. Empty in an entry that was found: its index tells.
    pub packs: Vec<Pack>,
}

/// What became of an entry that was to be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheSaved {
    /// It is kept.
    Saved,
    /// The key had an entry already, which stays.
    Existed,
}

/// Why the depot did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DepotError {
    /// There is nothing of this name, perhaps since it was evicted.
    #[error("{0} is not kept any more")]
    Absent(Digest),
    /// It is there, and not what its digest says.
    #[error("{0} is damaged where it is kept")]
    Damaged(Digest),
    /// No room; the text names the place.
    #[error("no space is left: {0}")]
    Full(String),
    /// Anything else, in the system's words.
    #[error("storage refused: {0}")]
    Refused(String),
}

/// Hides secrets in whole texts: output values, summaries, notes, names of files.
pub trait Mask: Send + Sync {
    /// The bytes with every secret replaced; the same bytes if there is none.
    fn mask<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]>;

    /// Whether a secret stands in the content of a file. Of a secret of several lines not every line counts by itself: `users:` stands in
    /// files that have nothing to do with it.
    fn is_in_content(&self, bytes: &[u8]) -> bool {
        matches!(self.mask(bytes), Cow::Owned(_))
    }

    /// Whether a secret stands in the content or the name of a file that a cache is to hold. A very short one does not count: it stands by
    /// chance in what a job fetches.
    fn is_in_cached(&self, bytes: &[u8]) -> bool {
        self.is_in_content(bytes)
    }
}

/// The secrets of one attempt. Held for as long as it runs; its debug text shows none.
#[derive(Clone, Default)]
pub struct Secrets {
    /// Values by the name of the environment variable.
    pub values: BTreeMap<String, String>,
    /// Hides them. `None` only if there are none.
    pub mask: Option<Arc<dyn Mask>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Secrets {
    /// The text without secrets.
    #[must_use]
    pub fn hide(&self, text: String) -> String {
        match &self.mask {
            None => text,
            Some(mask) => match mask.mask(text.as_bytes()) {
                Cow::Borrowed(_) => text,
                Cow::Owned(masked) => String::from_utf8_lossy(&masked).into_owned(),
            },
        }
    }
}

#[cfg(test)]
pub(crate) mod memory;
