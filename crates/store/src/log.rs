//! What steps print: one append-only pack of compressed frames per build.
//!
//! A pack holds the frames of all attempts of a build, in the order in which they were finished. A file per job
//! would cost an inode and several system calls for each of 10,000 jobs; a pack costs one write per frame. The
//! way of a line:
//!
//! 1. The worker hands the bytes of one read to [`StreamWriter::write`]. Secrets are masked ([`Masker`]), the
//!    bytes are copied into the frame of that step: raw bytes one after the other, and beside them a table of
//!    runs (who wrote, when, how many bytes). Nothing is done per line but finding its end.
//! 2. A full frame (256 KiB) is compressed and appended by one thread behind a bounded queue; the little frame
//!    of a step that printed little is written by the caller at [`StreamWriter::close`].
//! 3. [`LogReader`] knows every frame's first line, offset and time from the side file or from the frame
//!    headers, so that any range of lines costs the decompression of the frames it touches.
//!
//! What is kept: each stream byte for byte (line ends, carriage returns, NUL, bytes that are not UTF-8), the
//! order between streams, and a time for each line, which the lines of one read share.
//!
//! **Rows.** A *row* is a stretch of one stream up to and including its line feed. A line is split over several
//! rows only if another stream wrote in the middle of it after a flush, or if it is longer than what is held
//! back ([`PARTIAL_BYTES_MAX`]). Pieces of a line that follow one another without another stream between them
//! keep one number, also over frames, so that a line of 100 MiB counts as one; [`LineStart::Continued`] and
//! [`LineEnd::Open`] tell the pieces. Numbers begin at 0 in each step and never go back.
//!
//! **Losses are visible.** A frame that is torn (the machine died while it was written) or whose checksum is
//! wrong is read as a [`Gap`], never as an error and never in silence.
//!
//! No file here waits for a disk unless [`LogWriter::sync`] is called.

mod batch;
mod compress;
mod escapes;
mod frame;
mod group;
mod index;
mod journal;
mod logs;
mod mask;
mod merge;
mod opened;
mod pack;
mod reader;
mod search;
mod shared;
mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::blob::BlobError;

pub use batch::{BATCH_BYTES_MAX, BATCH_RUNS_MAX, BATCHES_MAX, Batch, BatchError, BatchRun, StepEnd};
pub use escapes::{ESCAPE, Escapes};
pub use frame::{FRAME_BYTES, RUNS_MAX};
pub use journal::JOURNAL_BYTES_MAX;
pub use logs::{
    BatchEnd, EndedLog, LogPlace, Logs, LogsSettings, PACKS_OPEN_MAX, Receipt, WATCHERS_MAX, Watch, pack_path,
};
pub use mask::{
    CACHED_BYTES_MIN, MASK, MASKED_BYTES_MIN, MaskedStream, Masker, MaskerError, PATTERN_BYTES_MAX, is_too_short,
};
pub use pack::FRAMES_QUEUED_MAX;
pub use reader::{Batches, Gap, GapCause, Item, Line, LineBytes, LineEnd, LineStart, Lines, LogReader, Raw, RawPart};
pub use reader::{Selection, StreamState, StreamSummary, Writing};
pub use search::{BUDGET_OVERRUN, HIT_BYTES_MAX, Hit, SEARCH_LINE_BYTES_MAX, SearchBudget, SearchEnd, SearchResult};
pub use shared::{Recorded, SharedLogs, Sharing};
pub use writer::{LogWriter, PARTIAL_BYTES_MAX, StreamWriter, Summary};

/// Names what one step of one attempt printed. Sorted by attempt, then step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// The number of the attempt in its build.
    pub attempt: u32,
    /// The index of the step in its job, from 0.
    pub step: u16,
}

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// The standard output of the step.
    Stdout,
    /// The standard error of the step.
    Stderr,
    /// Ropewalk itself: what it did around the step.
    Note,
}

impl Stream {
    /// All streams, in the order of [`Stream::index`].
    pub const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Note];

    /// A dense index, also the number that stands in packs.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
            Self::Note => 2,
        }
    }
}

/// What the file system, or another process, refused. Cheap to clone, since one failure is told to several jobs.
#[derive(Clone, Debug)]
pub enum LogError {
    /// The disk or the user's quota is full. Making room helps.
    Full(Arc<io::Error>),
    /// Another process is writing this pack.
    Busy(PathBuf),
    /// The file is no pack.
    NotALog(PathBuf),
    /// A newer Ropewalk wrote this pack, in a format of this version.
    Newer(u32),
    /// So many wait for this log that no more can.
    Watched,
    /// The storage that servers share refused. Trying again may help.
    Shared(Arc<dyn std::error::Error + Send + Sync>),
    /// Anything else the file system said.
    Io(Arc<io::Error>),
}

impl LogError {
    fn shared(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Shared(Arc::new(source))
    }
}

impl From<BlobError> for LogError {
    fn from(error: BlobError) -> Self {
        Self::shared(error)
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("no space is left for the log"),
            Self::Busy(path) => write!(f, "another process is writing the log {}", path.display()),
            Self::NotALog(path) => write!(f, "{} is not a log", path.display()),
            Self::Newer(version) => write!(f, "the log has format {version}, which is newer than this program"),
            Self::Watched => write!(f, "{WATCHERS_MAX} readers wait for this log, and no more can"),
            Self::Shared(_) => f.write_str("the shared storage of logs refused"),
            Self::Io(_) => f.write_str("reading or writing the log was refused"),
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Full(source) | Self::Io(source) => Some(&**source),
            Self::Shared(source) => Some(&**source),
            Self::Busy(_) | Self::NotALog(_) | Self::Newer(_) | Self::Watched => None,
        }
    }
}

impl From<io::Error> for LogError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full(Arc::new(error))
            }
            _ => Self::Io(Arc::new(error)),
        }
    }
}

#[cfg(test)]
mod tests;
