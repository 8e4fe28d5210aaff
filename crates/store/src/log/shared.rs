//! Logs of running builds where all servers see them: batches in a store ([`LogChunks`]), packs of ended builds in blobs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use graph::{BuildId, Digest};

use super::group::Group;
use super::pack::lock;
use super::{Batch, LogError};
use crate::blob::Blobs;
use crate::chunk::{CHUNK_BYTES_MAX, LogChunk, LogChunks};
use crate::store::StoreError;

/// How many chunks are asked for at once.
const CHUNKS_PAGE: u32 = 64;
/// Of how many builds it is remembered how far their chunks have been read; at the bound all is forgotten and read again.
const SEEN_MAX: usize = 100_000;

/// Where several servers share logs.
#[derive(Clone)]
pub struct SharedLogs {
    /// Of running builds.
    pub chunks: Arc<dyn LogChunks>,
    /// Of ended ones.
    pub blobs: Arc<dyn Blobs>,
    /// Which blob that is, if the end of a build was recorded.
    pub recorded: Arc<Recorded>,
}

/// What was recorded last of a build ([`Logs::end`](super::Logs::end)). Blocks.
pub type Recorded = dyn Fn(BuildId) -> Result<Option<Digest>, StoreError> + Send + Sync;

/// Whether a server keeps logs where others see them.
#[derive(Clone)]
pub enum Sharing {
    /// It does not, and nothing was ever kept there.
    Never,
    /// It does not, but may have before: what is there is read, and what is new is kept in its folder.
    Before(SharedLogs),
    /// It does.
    Now(SharedLogs),
}

/// The chunks of one append: for each build its batches, encoded.
type Chunks = Vec<(BuildId, Vec<u8>)>;

pub(super) struct Shared {
    pub places: SharedLogs,
    /// What the local pack of each build holds.
    seen: Mutex<HashMap<BuildId, Seen>>,
    group: Group<Chunks, Vec<u64>>,
}

/// What a local pack holds of what stands elsewhere.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// All chunks up to this number; `None` if they were not asked for.
    number: Option<u64>,
    /// The blob of an earlier end of the build, if it is known to hold that.
    blob: Option<Digest>,
}

impl Shared {
    pub fn new(places: SharedLogs) -> Self {
        Self { places, seen: Mutex::default(), group: Group::default() }
    }

    /// Puts batches where all servers see them: one transaction for all who call at the same time. Returns the number
    /// of each chunk.
    pub fn put(&self, batches: &[&Batch]) -> Result<Vec<(BuildId, u64)>, LogError> {
        let chunks = chunks(batches);
        let builds: Vec<BuildId> = chunks.iter().map(|(build, _)| *build).collect();
        let numbers = self.group.commit(chunks, |group| {
            let lengths: Vec<usize> = group.iter().map(Vec::len).collect();
            let all: Chunks = group.iter_mut().flat_map(std::mem::take).collect();
            let mut numbers = self.places.chunks.append_log_chunks(&all).map_err(LogError::shared)?.into_iter();
            Ok(lengths.into_iter().map(|length| numbers.by_ref().take(length).collect()).collect())
        })?;
        Ok(builds.into_iter().zip(numbers).collect())
    }

    /// The next chunks that are not in the local pack, empty if there are none, and the number of the last one that is.
    pub fn unseen(&self, build: BuildId) -> Result<(u64, Vec<LogChunk>), LogError> {
        let after = self.seen(build).number.unwrap_or(0);
        Ok((after, self.places.chunks.log_chunks(build, after, CHUNKS_PAGE).map_err(LogError::shared)?))
    }

    /// All chunks after the one and up to the other are in the local pack, as are, unless it was forgotten meanwhile, those before.
    pub fn saw(&self, build: BuildId, after: u64, last: u64) {
        self.change(build, |seen| {
            if seen.number.unwrap_or(0) == after {
                seen.number = Some(last);
            }
        });
    }

    /// As [`Shared::saw`] of a chunk of ours, if no chunk of another server came before it.
    pub fn saw_own(&self, build: BuildId, number: u64) {
        self.saw(build, number.saturating_sub(1), number);
    }

    /// The local pack holds what the blob does. The end of the build that left it deleted the chunks, and their numbers begin anew.
    pub fn saw_blob(&self, build: BuildId, digest: Digest) {
        self.change(build, |seen| *seen = Seen { number: None, blob: Some(digest) });
    }

    /// Whether [`Shared::saw`] was told of the build, be it that it has no chunks.
    pub fn knows(&self, build: BuildId) -> bool {
        self.seen(build).number.is_some()
    }

    /// Whether [`Shared::saw_blob`] was told of this one last.
    pub fn knows_blob(&self, build: BuildId, digest: Digest) -> bool {
        self.seen(build).blob == Some(digest)
    }

    fn seen(&self, build: BuildId) -> Seen {
        lock(&self.seen).get(&build).copied().unwrap_or_default()
    }

    fn change(&self, build: BuildId, change: impl FnOnce(&mut Seen)) {
        let mut seen = lock(&self.seen);
        if seen.len() >= SEEN_MAX {
            seen.clear();
        }
        change(seen.entry(build).or_default());
    }

    pub fn forget(&self, build: BuildId) {
        lock(&self.seen).remove(&build);
    }
}

/// Batches of the same build in a row share a chunk as far as there is room.
fn chunks(batches: &[&Batch]) -> Chunks {
    let mut chunks: Chunks = Vec::new();
    for batch in batches {
        let mut bytes = Vec::new();
        batch.encode(&mut bytes);
        match chunks.last_mut() {
            Some((build, body)) if *build == batch.build && body.len() + bytes.len() <= CHUNK_BYTES_MAX => {
                body.append(&mut bytes);
            }
            _ => chunks.push((batch.build, bytes)),
        }
    }
    chunks
}
