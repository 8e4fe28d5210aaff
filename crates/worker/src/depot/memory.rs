//! A depot in memory, for tests of what is kept by content.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Mutex;

use graph::Digest;

use super::{CacheEntry, CacheSaved, CacheScope, Depot, DepotError};

/// Blobs and entries, and what was put and opened since [`Kept::clear`].
#[derive(Default)]
pub(crate) struct Kept {
    pub blobs: Mutex<BTreeMap<Digest, Vec<u8>>>,
    pub entries: Mutex<Vec<(CacheScope, CacheEntry)>>,
    pub put_bytes: Mutex<usize>,
    pub opened: Mutex<usize>,
}

impl Kept {
    pub fn clear(&self) {
        *self.put_bytes.lock().unwrap() = 0;
        *self.opened.lock().unwrap() = 0;
    }
}

impl Depot for Kept {
    fn put(&self, bytes: &[u8]) -> Result<Digest, DepotError> {
        let digest = Digest(*blake3::hash(bytes).as_bytes());
        *self.put_bytes.lock().unwrap() += bytes.len();
        self.blobs.lock().unwrap().insert(digest, bytes.to_vec());
        Ok(digest)
    }

    fn put_file(&self, path: &Path) -> Result<Digest, DepotError> {
        self.put(&fs::read(path).unwrap())
    }

    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send>, DepotError> {
        *self.opened.lock().unwrap() += 1;
        let bytes = self.blobs.lock().unwrap().get(&digest).ok_or(DepotError::Absent(digest))?.clone();
        Ok(Box::new(io::Cursor::new(bytes)))
    }

    fn doubt(&self, digest: Digest) {
        let mut blobs = self.blobs.lock().unwrap();
        blobs.retain(|of, bytes| *of != digest || *blake3::hash(bytes).as_bytes() == digest.0);
    }

    fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, DepotError> {
        let blobs = self.blobs.lock().unwrap();
        Ok(digests.iter().filter(|digest| !blobs.contains_key(digest)).copied().collect())
    }

    fn find_cache(&self, scope: &CacheScope, key: &str, restore: &[String]) -> Result<Option<CacheEntry>, DepotError> {
        let entries = self.entries.lock().unwrap();
        let mine = || entries.iter().rev().filter(|(of, _)| of == scope).map(|(_, entry)| entry);
        let by_prefix = || restore.iter().find_map(|prefix| mine().find(|entry| entry.key.starts_with(prefix)));
        Ok(mine().find(|entry| entry.key == key).or_else(by_prefix).cloned())
    }

    fn save_cache(
        &self,
        scope: &CacheScope,
        entry: &CacheEntry,
        refused: Option<Digest>,
    ) -> Result<CacheSaved, DepotError> {
        let mut entries = self.entries.lock().unwrap();
        entries.retain(|(of, known)| of != scope || known.key != entry.key || Some(known.digest) != refused);
        entries.push((*scope, entry.clone()));
        Ok(CacheSaved::Saved)
    }
}
