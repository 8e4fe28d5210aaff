//! Which blobs something names: artifacts of builds, results and caches kept for reuse, sources with all their files, logs
//! that moved into a blob, programs that builds ask, what attempts left. What stands nowhere here may be collected.

use std::collections::BTreeSet;

use api::source::{File, HISTORY_DOCUMENT_BYTES_MAX, History, MANIFEST_BYTES_MAX, Manifest};
use graph::Digest;
use store::blob::{BlobError, Blobs};
use store::record::Record;
use store::{BackupFile, PAGE_ROWS_MAX, Store, StoreError};

use crate::records::{Document, StoredLayers, StoredLog, StoredProgram};

/// What the records name, before sources are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    blobs: BTreeSet<Digest>,
    sources: BTreeSet<Digest>,
}

/// Everything that is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Sorted, no duplicates.
    pub blobs: Vec<Digest>,
    /// Sources whose manifest is missing, damaged or none: what they name is not among the blobs. Sorted.
    pub unreadable: Vec<Digest>,
}

impl Named {
    /// Whether the blob is named.
    #[must_use]
    pub fn has(&self, digest: Digest) -> bool {
        self.blobs.binary_search(&digest).is_ok()
    }
}

impl Mentions {
    /// What a store names now.
    ///
    /// # Errors
    /// As the store refuses.
    pub fn of_store(store: &dyn Store) -> Result<Self, StoreError> {
        let records = named_by_records(&|kind, after| store.records(kind, after, PAGE_ROWS_MAX))?;
        Ok(Self::new(store.referenced_blobs()?, store.referenced_sources()?, records))
    }

    /// What a copy in a file names.
    ///
    /// # Errors
    /// As the store refuses.
    pub fn of_backup(file: &BackupFile) -> Result<Self, StoreError> {
        let records = named_by_records(&|kind, after| file.records(kind, after, PAGE_ROWS_MAX))?;
        Ok(Self::new(file.referenced_blobs()?, file.referenced_sources()?, records))
    }

    fn new(mut blobs: BTreeSet<Digest>, sources: BTreeSet<Digest>, records: Vec<Digest>) -> Self {
        blobs.extend(records);
        Self { blobs, sources }
    }

    /// With what the sources among them name. Memory: 32 bytes for each blob, and one manifest.
    ///
    /// # Errors
    /// If a manifest cannot be read now, though it may be there: then nothing may be taken for unnamed.
    pub fn resolve(self, blobs: &dyn Blobs) -> Result<Named, BlobError> {
        let mut all: Vec<Digest> = self.blobs.into_iter().chain(self.sources.iter().copied()).collect();
        let mut unreadable = Vec::new();
        for source in self.sources {
            match blobs.get(source, MANIFEST_BYTES_MAX) {
                Ok(bytes) => match serde_json::from_slice::<Manifest>(&bytes) {
                    Ok(manifest) => {
                        all.extend(contents(&manifest));
                        if let Some(history) = manifest.history {
                            all.extend(packs(blobs, history)?);
                        }
                    }
                    Err(_) => unreadable.push(source),
                },
                Err(BlobError::Absent(_) | BlobError::Damaged(_) | BlobError::TooLong { .. }) => {
                    unreadable.push(source);
                }
                Err(error) => return Err(error),
            }
        }
        all.sort_unstable();
        all.dedup();
        Ok(Named { blobs: all, unreadable })
    }
}

/// The contents of a source's files, and the document of its history.
pub(crate) fn contents(manifest: &Manifest) -> impl Iterator<Item = Digest> + '_ {
    let files = manifest.files.values().filter_map(|file| match file {
        File::Plain { digest, .. } | File::Program { digest, .. } => Some(*digest),
        File::Link { .. } => None,
    });
    files.chain(manifest.history)
}

/// The packs that the document of a history names; none if it is missing or damaged: then a job goes without.
pub(crate) fn packs(blobs: &dyn Blobs, history: Digest) -> Result<Vec<Digest>, BlobError> {
    match blobs.get(history, HISTORY_DOCUMENT_BYTES_MAX) {
        Ok(bytes) => {
            let history = serde_json::from_slice::<History>(&bytes).unwrap_or_default();
            Ok(history.packs.into_iter().map(|pack| pack.digest).collect())
        }
        Err(BlobError::Absent(_) | BlobError::Damaged(_) | BlobError::TooLong { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Records of a kind, after a key.
type Pages<'p> = &'p dyn Fn(&str, Option<&str>) -> Result<Vec<Record>, StoreError>;

fn named_by_records(page: Pages<'_>) -> Result<Vec<Digest>, StoreError> {
    let mut named = Vec::new();
    each_record(page, |log: StoredLog| named.push(log.digest))?;
    each_record(page, |program: StoredProgram| named.push(program.digest))?;
    each_record(page, |layers: StoredLayers| named.extend(layers.blobs))?;
    Ok(named)
}

fn each_record<T: Document>(page: Pages<'_>, mut take: impl FnMut(T)) -> Result<(), StoreError> {
    let mut after = None::<String>;
    loop {
        let records = page(T::KIND, after.as_deref())?;
        let Some(last) = records.last() else { return Ok(()) };
        after = Some(last.key.clone());
        for record in &records {
            take(serde_json::from_slice(&record.body).map_err(|error| {
                StoreError::Corrupt(format!("the record {} of {}: {error}", record.key, T::KIND).into())
            })?);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use graph::Timestamp;
    use store::MemoryStore;

    use super::*;
    use crate::records::Records;

    #[test]
    fn the_program_that_a_build_asks_is_named() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let digest = Digest([7; 32]);
        Records::new(Arc::clone(&store)).write("1", &StoredProgram { digest }, Timestamp(1)).expect("it is kept");
        assert!(Mentions::of_store(&*store).expect("a store").blobs.contains(&digest));
    }
}
