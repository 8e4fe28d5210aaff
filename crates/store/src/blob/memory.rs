//! Blobs in memory: for one process that keeps nothing.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::ops::{Bound, Range};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use graph::{Digest, Timestamp};

use super::directory::replace_file;
use super::{BLOBS_PAGE_MAX, BlobError, Blobs, Mode, PutFile, StoredBlob, digest, mark_of, timestamp};

type Content = Arc<[u8]>;

/// Blobs that end with the process.
#[derive(Debug, Default)]
pub struct MemoryBlobs {
    blobs: Mutex<BTreeMap<Digest, (Content, Timestamp)>>,
    mark: Mutex<Option<String>>,
}

impl MemoryBlobs {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<Digest, (Content, Timestamp)>) -> T) -> T {
        work(&mut self.blobs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn content(&self, digest: Digest) -> Result<Content, BlobError> {
        self.with(|blobs| blobs.get(&digest).map(|blob| Arc::clone(&blob.0))).ok_or(BlobError::Absent(digest))
    }
}

impl Blobs for MemoryBlobs {
    fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let digest = digest(bytes);
        let now = timestamp(SystemTime::now());
        self.with(|blobs| blobs.entry(digest).or_insert_with(|| (bytes.into(), now)).1 = now);
        Ok(digest)
    }

    fn put_file(&self, path: &Path) -> Result<PutFile, BlobError> {
        let content = std::fs::read(path)?;
        Ok(PutFile { digest: self.put(&content)?, content_bytes: content.len() as u64 })
    }

    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send>, BlobError> {
        Ok(Box::new(Cursor::new(self.content(digest)?)))
    }

    fn open_range(&self, digest: Digest, range: Range<u64>) -> Result<Box<dyn Read + Send>, BlobError> {
        let mut content = Cursor::new(self.content(digest)?);
        content.set_position(range.start);
        Ok(Box::new(content.take(range.end.saturating_sub(range.start))))
    }

    fn length(&self, digest: Digest) -> Result<u64, BlobError> {
        Ok(self.content(digest)?.len() as u64)
    }

    fn renew(&self, digest: Digest) -> Result<bool, BlobError> {
        let now = timestamp(SystemTime::now());
        Ok(self.with(|blobs| blobs.get_mut(&digest).map(|blob| blob.1 = now)).is_some())
    }

    fn delete_stale(&self, digest: Digest, since: Timestamp) -> Result<bool, BlobError> {
        self.with(|blobs| {
            if blobs.get(&digest).is_some_and(|blob| blob.1 < since) {
                blobs.remove(&digest);
            }
            Ok(!blobs.contains_key(&digest))
        })
    }

    fn contains(&self, digest: Digest) -> Result<bool, BlobError> {
        Ok(self.with(|blobs| blobs.contains_key(&digest)))
    }

    fn delete(&self, digest: Digest) -> Result<(), BlobError> {
        self.with(|blobs| blobs.remove(&digest));
        Ok(())
    }

    fn page(&self, after: Option<Digest>, limit: usize) -> Result<Vec<StoredBlob>, BlobError> {
        let stored = |(digest, (content, renewed_at)): (&Digest, &(Content, Timestamp))| StoredBlob {
            digest: *digest,
            stored_bytes: content.len() as u64,
            renewed_at: *renewed_at,
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let limit = limit.min(BLOBS_PAGE_MAX);
        Ok(self.with(|blobs| blobs.range((from, Bound::Unbounded)).take(limit).map(stored).collect()))
    }

    fn materialize(&self, digest: Digest, path: &Path, mode: Mode) -> Result<(), BlobError> {
        let content = self.content(digest)?;
        Ok(replace_file(path, mode, |mut file| std::io::Write::write_all(&mut file, &content))?)
    }

    fn marked(&self) -> Result<Option<String>, BlobError> {
        Ok(self.mark.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn mark(&self, owner: &str) -> Result<(), BlobError> {
        *self.mark.lock().unwrap_or_else(PoisonError::into_inner) = mark_of(owner);
        Ok(())
    }
}
