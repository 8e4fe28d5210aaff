//! Blobs in memory: for one process that keeps nothing.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use graph::Digest;

use super::directory::replace_file;
use super::{BlobError, Blobs, Mode, PutFile, StoredBlob, digest};

/// Blobs that end with the process.
#[derive(Debug, Default)]
pub struct MemoryBlobs {
    blobs: Mutex<BTreeMap<Digest, Arc<[u8]>>>,
}

impl MemoryBlobs {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<Digest, Arc<[u8]>>) -> T) -> T {
        work(&mut self.blobs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn content(&self, digest: Digest) -> Result<Arc<[u8]>, BlobError> {
        self.with(|blobs| blobs.get(&digest).cloned()).ok_or(BlobError::Absent(digest))
    }
}

impl Blobs for MemoryBlobs {
    fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let digest = digest(bytes);
        self.with(|blobs| blobs.entry(digest).or_insert_with(|| bytes.into()).len());
        Ok(digest)
    }

    fn put_file(&self, path: &Path) -> Result<PutFile, BlobError> {
        let content = std::fs::read(path)?;
        Ok(PutFile { digest: self.put(&content)?, content_bytes: content.len() as u64 })
    }

    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send>, BlobError> {
        Ok(Box::new(Cursor::new(self.content(digest)?)))
    }

    fn contains(&self, digest: Digest) -> Result<bool, BlobError> {
        Ok(self.with(|blobs| blobs.contains_key(&digest)))
    }

    fn delete(&self, digest: Digest) -> Result<(), BlobError> {
        self.with(|blobs| blobs.remove(&digest));
        Ok(())
    }

    fn list(&self) -> Result<Vec<StoredBlob>, BlobError> {
        let stored = |(digest, content): (&Digest, &Arc<[u8]>)| StoredBlob {
            digest: *digest,
            stored_bytes: content.len() as u64,
        };
        Ok(self.with(|blobs| blobs.iter().map(stored).collect()))
    }

    fn materialize(&self, digest: Digest, path: &Path, mode: Mode) -> Result<(), BlobError> {
        let content = self.content(digest)?;
        Ok(replace_file(path, mode, |mut file| std::io::Write::write_all(&mut file, &content))?)
    }
}
