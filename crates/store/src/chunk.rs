//! Pieces of the logs of running builds, for installations whose logs must outlive the machine of a server. What a piece
//! holds is its writer's; once a build has ended its log is a blob and the pieces go.

use graph::BuildId;

use crate::store::StoreError;

/// The most bytes of one piece.
pub const CHUNK_BYTES_MAX: usize = 4 << 20;
/// A page of pieces is full when they hold this many bytes; the piece that fills it is whole.
pub const PAGE_BYTES_MAX: usize = 8 << 20;

/// One piece and its number in its build, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChunk {
    /// Later ones are larger; some may be skipped.
    pub number: u64,
    /// What was written, at most [`CHUNK_BYTES_MAX`].
    pub body: Vec<u8>,
}

/// Where pieces of logs are kept. Builds need not be known here.
pub trait LogChunks: Send + Sync {
    /// Adds pieces, in this order, in one transaction. Returns the number of each. After `Lost` it is unknown whether
    /// they were added; whoever adds them again must recognise twins.
    ///
    /// # Errors
    /// `TooLarge` beyond [`CHUNK_BYTES_MAX`]; else as the medium refuses.
    fn append_log_chunks(&self, chunks: &[(BuildId, Vec<u8>)]) -> Result<Vec<u64>, StoreError>;

    /// The pieces of a build with numbers above `after`, in order, at most `limit` ([`crate::PAGE_ROWS_MAX`]) and no
    /// more once they hold [`PAGE_BYTES_MAX`].
    ///
    /// # Errors
    /// As the medium refuses.
    fn log_chunks(&self, build: BuildId, after: u64, limit: u32) -> Result<Vec<LogChunk>, StoreError>;

    /// Removes the pieces of a build. Returns how many.
    ///
    /// # Errors
    /// As the medium refuses.
    fn delete_log_chunks(&self, build: BuildId) -> Result<u64, StoreError>;
}

/// Whether the pieces may be stored.
pub(crate) fn check_size(chunks: &[(BuildId, Vec<u8>)]) -> Result<(), StoreError> {
    match chunks.iter().find(|chunk| chunk.1.len() > CHUNK_BYTES_MAX) {
        Some((_, body)) => {
            Err(StoreError::TooLarge { what: "a piece of a log", bytes: body.len(), most: CHUNK_BYTES_MAX })
        }
        None => Ok(()),
    }
}
