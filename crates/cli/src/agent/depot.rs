//! Artifacts and caches of one attempt, on the server, with what this machine has in front.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::worker::{FindCache, SaveCache};
use graph::{Digest, LeaseId};
use worker::depot::{CacheEntry, CacheSaved, CacheScope, Depot, DepotError};

use super::link::{Link, LinkError};

/// The depot of an attempt.
pub struct RemoteDepot {
    link: Arc<Link>,
    /// `None` of blobs alone.
    lease: Option<LeaseId>,
}

impl RemoteDepot {
    /// For the attempt under this lease.
    pub fn new(link: Arc<Link>, lease: LeaseId) -> Self {
        Self { link, lease: Some(lease) }
    }

    /// For blobs alone: no cache is found or saved.
    pub fn of_blobs(link: Arc<Link>) -> Self {
        Self { link, lease: None }
    }

    fn lease(&self) -> Result<LeaseId, DepotError> {
        self.lease.ok_or_else(no_caches)
    }
}

impl Depot for RemoteDepot {
    fn doubt(&self, digest: Digest) {
        // What the server sends was compared when it came.
        self.link.contents().remove_damaged(digest);
    }

    fn put(&self, bytes: &[u8]) -> Result<Digest, DepotError> {
        let digest = self.link.contents().put(bytes).map_err(LinkError::from)?;
        self.link.send(&[digest])?;
        Ok(digest)
    }

    fn put_file(&self, path: &Path) -> Result<Digest, DepotError> {
        let (digest, _) = self.link.contents().put_file(path).map_err(LinkError::from)?;
        self.link.send(&[digest])?;
        Ok(digest)
    }

    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send>, DepotError> {
        self.link.fetch_now(digest)?;
        let file = self.link.contents().file(digest).ok_or(DepotError::Absent(digest))?;
        Ok(Box::new(file))
    }

    fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, DepotError> {
        Ok(self.link.missing(digests)?)
    }

    fn find_cache(&self, scope: &CacheScope, key: &str, restore: &[String]) -> Result<Option<CacheEntry>, DepotError> {
        // How far the build is trusted the server knows by the lease.
        let (key, restore) = (key.to_owned(), restore.to_vec());
        let found = self.link.find_cache(&FindCache { lease: self.lease()?, paths: scope.paths, key, restore })?;
        Ok(found.entry.map(|entry| CacheEntry {
            key: entry.key,
            digest: entry.digest,
            bytes: entry.bytes,
            packs: Vec::new(),
        }))
    }

    fn save_cache(
        &self,
        scope: &CacheScope,
        entry: &CacheEntry,
        refused: Option<Digest>,
    ) -> Result<CacheSaved, DepotError> {
        let packs = entry.packs.iter().map(|pack| api::worker::CachePack { digest: pack.digest, bytes: pack.bytes });
        let packs = packs.collect();
        let (key, digest, bytes) = (entry.key.clone(), entry.digest, entry.bytes);
        let entry = api::worker::CacheEntry { key, digest, bytes, packs };
        let saved = self.link.save_cache(&SaveCache { lease: self.lease()?, paths: scope.paths, entry, refused })?;
        Ok(match saved.saved {
            api::worker::CacheSaved::Written => CacheSaved::Saved,
            api::worker::CacheSaved::Kept => CacheSaved::Existed,
        })
    }
}

/// Takes blobs of this machine that are to go to the server later.
pub struct GatheringDepot<'l> {
    link: &'l Arc<Link>,
    gathered: Mutex<BTreeSet<Digest>>,
}

impl<'l> GatheringDepot<'l> {
    /// Nothing has gathered.
    pub fn new(link: &'l Arc<Link>) -> Self {
        Self { link, gathered: Mutex::default() }
    }

    fn gathered(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that has gathered.
    pub fn into_gathered(self) -> BTreeSet<Digest> {
        self.gathered.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Depot for GatheringDepot<'_> {
    fn put(&self, bytes: &[u8]) -> Result<Digest, DepotError> {
        let digest = self.link.contents().put(bytes).map_err(LinkError::from)?;
        self.gathered().insert(digest);
        Ok(digest)
    }

    fn put_file(&self, path: &Path) -> Result<Digest, DepotError> {
        let (digest, _) = self.link.contents().put_file(path).map_err(LinkError::from)?;
        self.gathered().insert(digest);
        Ok(digest)
    }

    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send>, DepotError> {
        RemoteDepot::of_blobs(Arc::clone(self.link)).open(digest)
    }

    fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, DepotError> {
        let unknown: Vec<Digest> = digests.iter().filter(|digest| !self.gathered().contains(digest)).copied().collect();
        Ok(self.link.missing(&unknown)?)
    }

    fn find_cache(&self, _: &CacheScope, _: &str, _: &[String]) -> Result<Option<CacheEntry>, DepotError> {
        Err(no_caches())
    }

    fn save_cache(&self, _: &CacheScope, _: &CacheEntry, _: Option<Digest>) -> Result<CacheSaved, DepotError> {
        Err(no_caches())
    }
}

fn no_caches() -> DepotError {
    DepotError::Refused("no job asks for a cache".to_owned())
}

impl From<LinkError> for DepotError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Absent(digest) => Self::Absent(digest),
            LinkError::Damaged(digest) => Self::Damaged(digest),
            LinkError::Full(text) => Self::Full(text),
            LinkError::Refused(text) => Self::Refused(text),
        }
    }
}
