//! Bytes named by their content: artifacts, caches, reports.
//!
//! A blob is written once under its BLAKE3 digest and never changes. The trait's file knows no implementation; those
//! that ship, [`DirectoryBlobs`], [`MemoryBlobs`] and `S3Blobs`, pass one suite of tests (`blob/contract.rs`).
//!
//! **Who may name a blob.** A blob that nothing names is collected when it is old ([`collect`]). So whoever is about to
//! name one puts it, or asks with [`Blobs::renew`] whether it is there, and names it within the collector's grace: both
//! make it young again, and no collector takes a young one, however the two meet.

mod collect;
mod directory;
mod faulty;
mod memory;
#[cfg(feature = "s3")]
mod s3;

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use graph::{Digest, Timestamp};

pub use collect::{Collected, GRACE_MIN, collect};
pub use directory::{DirectoryBlobs, Durability, Verify};
pub use faulty::{BlobFault, FaultyBlobs};
pub use memory::MemoryBlobs;
#[cfg(feature = "s3")]
pub use s3::{
    OBJECTS_PAGE, PART_BYTES, READ_CACHE_SHARE, RENEWED_WITHIN, REQUESTS_MAX, ReadCache, S3Blobs, S3Credentials,
    S3Settings, UrlForm,
};

/// The most blobs in one answer of [`Blobs::page`].
pub const BLOBS_PAGE_MAX: usize = 1000;

/// The most bytes that are read of what a place is marked with.
pub const MARK_BYTES_MAX: u64 = 1000;
/// Under which name a mark stands beside the blobs.
pub const MARK: &str = "installation";

/// The digest under which these bytes are kept.
#[must_use]
pub fn digest(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

/// A blob that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredBlob {
    /// Its name.
    pub digest: Digest,
    /// What it takes in the store; less than its content if it is compressed.
    pub stored_bytes: u64,
    /// When it was put or renewed last, by the clock of whoever keeps it.
    pub renewed_at: Timestamp,
}

/// A file that has been put into a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutFile {
    /// The name of its content.
    pub digest: Digest,
    /// How long the content is.
    pub content_bytes: u64,
}

/// Why a blob cannot be had or kept.
#[derive(Debug)]
pub enum BlobError {
    /// There is none of this name. It may have been evicted.
    Absent(Digest),
    /// The content is not what its name says; it should be deleted and made again.
    Damaged(Digest),
    /// The content is longer than the caller is ready to take.
    TooLong {
        /// The caller's bound.
        bytes_max: u64,
    },
    /// The disk or the user's quota is full.
    Full(io::Error),
    /// Anything else the system said.
    Io(io::Error),
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(digest) => write!(f, "there is no blob {}", digest.short()),
            Self::Damaged(digest) => write!(f, "the blob {} is damaged", digest.short()),
            Self::TooLong { bytes_max } => write!(f, "the blob is longer than {bytes_max} bytes"),
            Self::Full(_) => f.write_str("no space is left for blobs"),
            Self::Io(_) => f.write_str("reading or writing a blob was refused"),
        }
    }
}

impl std::error::Error for BlobError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Full(source) | Self::Io(source) => Some(source),
            Self::Absent(_) | Self::Damaged(_) | Self::TooLong { .. } => None,
        }
    }
}

impl From<io::Error> for BlobError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(error),
            _ => Self::Io(error),
        }
    }
}

/// Permissions of a restored file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Mode {
    /// `rw-r--r--`.
    pub const FILE: Self = Self(0o644);
    /// `rwxr-xr-x`.
    pub const PROGRAM: Self = Self(0o755);
}

/// A place for blobs. Putting what is there already, and deleting what is not, succeed; all may be called from several
/// threads, and processes, at once.
pub trait Blobs: Send + Sync {
    /// Keeps these bytes. When it returns, every reader sees all of them.
    ///
    /// # Errors
    /// [`BlobError::Full`], [`BlobError::Io`].
    fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError>;

    /// Keeps the content of a file as it is read; if it changes meanwhile, the digest is that of what was kept.
    ///
    /// # Errors
    /// [`BlobError::Full`], [`BlobError::Io`], also if the file cannot be read.
    fn put_file(&self, path: &Path) -> Result<PutFile, BlobError>;

    /// The content, if it has at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`BlobError::Absent`], [`BlobError::TooLong`], and those of reading.
    fn get(&self, digest: Digest, bytes_max: u64) -> Result<Vec<u8>, BlobError> {
        let mut content = Vec::new();
        let mut reader = self.open(digest)?.take(bytes_max.saturating_add(1));
        reader.read_to_end(&mut content).map_err(|error| read_error(error, digest))?;
        if content.len() as u64 > bytes_max {
            return Err(BlobError::TooLong { bytes_max });
        }
        Ok(content)
    }

    /// The content as a stream. Damage, if it is looked for, ends it with [`io::ErrorKind::InvalidData`].
    ///
    /// # Errors
    /// [`BlobError::Absent`], [`BlobError::Io`].
    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send>, BlobError>;

    /// A part of the content: bytes `range` of it, or fewer if it is shorter. What comes before is not read where that
    /// can be helped. Never verified.
    ///
    /// # Errors
    /// [`BlobError::Absent`], [`BlobError::Io`].
    fn open_range(&self, digest: Digest, range: Range<u64>) -> Result<Box<dyn Read + Send>, BlobError>;

    /// How many bytes the content has, without reading it.
    ///
    /// # Errors
    /// [`BlobError::Absent`], [`BlobError::Io`].
    fn length(&self, digest: Digest) -> Result<u64, BlobError>;

    /// Whether the blob is there and stays for the collector's grace. May say no of one that is there if it is not
    /// known to stay: then put it.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    fn renew(&self, digest: Digest) -> Result<bool, BlobError>;

    /// Removes the blob unless it was put or renewed at or after `since`, also at this moment by somebody else. Says
    /// whether it is gone. For collectors, of which one at a time may work.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    fn delete_stale(&self, digest: Digest, since: Timestamp) -> Result<bool, BlobError>;

    /// Whether the blob is there now.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    fn contains(&self, digest: Digest) -> Result<bool, BlobError>;

    /// Removes the blob. Who reads it already can go on.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    fn delete(&self, digest: Digest) -> Result<(), BlobError>;

    /// Blobs with a digest above `after`, sorted by digest, no duplicates, at most `limit` and [`BLOBS_PAGE_MAX`].
    /// Empty at the end only.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    fn page(&self, after: Option<Digest>, limit: usize) -> Result<Vec<StoredBlob>, BlobError>;

    /// All blobs, sorted by digest, no duplicates. For tests and small stores; others go page by page.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    fn list(&self) -> Result<Vec<StoredBlob>, BlobError> {
        let mut blobs: Vec<StoredBlob> = Vec::new();
        loop {
            let page = self.page(blobs.last().map(|blob| blob.digest), BLOBS_PAGE_MAX)?;
            if page.is_empty() {
                return Ok(blobs);
            }
            blobs.extend(page);
        }
    }

    /// Makes a file with the content, at once or not at all; what stands at the path, also a link, is replaced. The
    /// file is the caller's own: changing it does not change the blob. The folder must be there, and that its path
    /// does not lead out of where it should is the caller's to see to.
    ///
    /// # Errors
    /// [`BlobError::Absent`], [`BlobError::Damaged`], [`BlobError::Full`], [`BlobError::Io`].
    fn materialize(&self, digest: Digest, path: &Path, mode: Mode) -> Result<(), BlobError>;

    /// What [`Blobs::mark`] wrote last, without white space around it; `None` if nobody did. It is no blob, and no page has it.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    fn marked(&self) -> Result<Option<String>, BlobError>;

    /// Writes whose place this is, a line of at most [`MARK_BYTES_MAX`] bytes, over what was written before.
    ///
    /// # Errors
    /// [`BlobError::Full`], [`BlobError::Io`].
    fn mark(&self, owner: &str) -> Result<(), BlobError>;
}

/// Removes a blob whose content is not what its name says, so that whoever puts it next keeps it anew. Reads all of it, and a second time before
/// it removes anything: a connection that broke must not look like damage. Whether it was removed.
///
/// # Errors
/// [`BlobError::Io`] if it cannot be read for another reason, or not removed; then it stays.
pub fn remove_damaged(blobs: &dyn Blobs, digest: Digest) -> Result<bool, BlobError> {
    for _ in 0..2 {
        match is_whole(blobs, digest) {
            Ok(true) | Err(BlobError::Absent(_)) => return Ok(false),
            Ok(false) => {}
            Err(error) => return Err(error),
        }
    }
    blobs.delete(digest)?;
    Ok(true)
}

/// Whether a blob's content is what its name says.
fn is_whole(blobs: &dyn Blobs, digest: Digest) -> Result<bool, BlobError> {
    let mut content = blobs.open(digest)?;
    let mut hasher = blake3::Hasher::new();
    // A store that verifies tells by an error.
    match io::copy(&mut content, &mut hasher).map_err(|error| read_error(error, digest)) {
        Ok(_) => Ok(*hasher.finalize().as_bytes() == digest.0),
        Err(BlobError::Damaged(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a mark says.
fn mark_of(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn read_error(error: io::Error, digest: Digest) -> BlobError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => BlobError::Damaged(digest),
        _ => error.into(),
    }
}

/// The point of time of a file.
fn timestamp(time: SystemTime) -> Timestamp {
    let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp(micros(after)),
        Err(before) => Timestamp(-micros(before.duration())),
    }
}

#[cfg(test)]
mod contract;
