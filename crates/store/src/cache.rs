//! Keyed caches: which blobs stand under which key. The bytes themselves are blobs.
//!
//! An entry belongs to a scope (who may read it) and never changes while it lives: what a key means is decided
//! once. Nothing here knows what a scope stands for.

use graph::{BuildId, Digest, JobName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::rows::{Eviction, FILES_GONE};
use crate::{Store, StoreError};

/// One entry of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CacheRow {
    /// Who may read it; texts are compared byte by byte.
    pub scope: String,
    /// Its key within the scope.
    pub key: String,
    /// The blobs that hold the files, in the order of the job's paths.
    pub blobs: Vec<Digest>,
    /// The bytes of these blobs.
    pub bytes: u64,
    /// Who wrote it.
    pub written_by: CacheUser,
    /// When it was written.
    pub at: Timestamp,
    /// When it was last read; `at` before that.
    pub used_at: Timestamp,
    /// Set once it was evicted.
    pub evicted: Option<Eviction>,
}

/// How many entries there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheTotals {
    /// Those that may be read.
    pub live: u64,
    /// Their bytes; what several hold is counted each time.
    pub bytes: u64,
}

/// A job that reads or writes a cache.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CacheUser {
    /// Its build.
    pub build: BuildId,
    /// Its name.
    pub job: JobName,
}

/// One reading of an entry; the last one of each job of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CacheRead {
    /// Who.
    pub reader: CacheUser,
    /// When.
    pub at: Timestamp,
}

/// What a job would like to restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheWanted<'a> {
    /// The scopes that it may read, the best first.
    pub scopes: &'a [&'a str],
    /// The key itself.
    pub key: &'a str,
    /// Prefixes of keys that do as well, the best first.
    pub prefixes: &'a [&'a str],
}

/// What a job did with a cache, or found that it could not: every reading and writing, those too that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheUse {
    /// The scope of the entry, or the reader's own one if there was none.
    pub scope: String,
    /// The key that was asked for, or under which it was written.
    pub key: String,
    /// What it did.
    pub act: CacheAct,
    /// Who.
    pub by: CacheUser,
    /// When.
    pub at: Timestamp,
}

/// What a job did with a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum CacheAct {
    /// It read the entry of this key.
    Read {
        /// The key that was asked for, or one that begins with a prefix that does as well.
        found: String,
    },
    /// There was no entry that does.
    Missed,
    /// It wrote an entry.
    Written {
        /// Which holds so many bytes.
        bytes: u64,
    },
    /// It would have written one, and there was one already.
    Kept,
}

/// What jobs did with caches, by project, newest first: records, of which the newest are kept.
pub mod cache_uses {
    use graph::Timestamp;

    use super::CacheUse;
    use crate::record::Expect;
    use crate::{PAGE_ROWS_MAX, Store, StoreError};

    /// The kind of these records.
    pub const KIND: &str = "cache-use";
    /// How many are kept of a project by those who prune.
    pub const KEPT_MAX: usize = 2_000;

    /// Notes one. The project's name holds no `/`.
    ///
    /// # Errors
    /// As the store refuses.
    pub fn note(store: &dyn Store, project: &str, used: &CacheUse) -> Result<(), StoreError> {
        // Our own types serialize to JSON whatever they hold.
        let body = serde_json::to_vec(used).expect("a use of a cache always serializes");
        // What a job does at one moment differs by what it is.
        let name = blake3::hash(&body).to_hex();
        let key = format!("{project}/{}/{}", newest_first(used.at), &name[..16]);
        store.put_record(KIND, &key, &body, Expect::Any, used.at).map(drop)
    }

    /// A number whose texts are in the opposite order of time.
    fn newest_first(at: Timestamp) -> String {
        format!("{:020}", i64::MAX.abs_diff(at.0.max(0)))
    }

    /// Those of a project, newest first, each with its place; after a place, at most `limit`.
    ///
    /// # Errors
    /// As the store refuses.
    pub fn list(
        store: &dyn Store,
        project: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(String, CacheUse)>, StoreError> {
        let prefix = format!("{project}/");
        let after = after.map_or_else(|| prefix.clone(), |place| format!("{prefix}{place}"));
        let records = store.records(KIND, Some(&after), limit)?;
        let uses = records.into_iter().map_while(|record| {
            let place = record.key.strip_prefix(&prefix)?.to_owned();
            Some((place, record))
        });
        uses.map(|(place, record)| {
            let used = serde_json::from_slice(&record.body)
                .map_err(|error| StoreError::Corrupt(format!("the record {} of {KIND}: {error}", record.key).into()))?;
            Ok((place, used))
        })
        .collect()
    }

    /// Lets go all but the newest of each project, so many of each. How many went.
    ///
    /// # Errors
    /// As the store refuses; what went until then is gone.
    pub fn prune(store: &dyn Store, kept_max: usize) -> Result<u64, StoreError> {
        let (mut project, mut kept, mut gone, mut after) = (String::new(), 0, 0, None::<String>);
        loop {
            let records = store.records(KIND, after.as_deref(), PAGE_ROWS_MAX)?;
            let Some(last) = records.last() else { return Ok(gone) };
            after = Some(last.key.clone());
            for record in &records {
                let of = record.key.split('/').next().unwrap_or_default();
                if of != project {
                    (project, kept) = (of.to_owned(), 0);
                }
                kept += 1;
                if kept > kept_max && store.delete_record(KIND, &record.key, Expect::Any)? {
                    gone += 1;
                }
            }
        }
    }
}

/// Keeps an entry as [`Store::save_cache`] does, also in the place of `refused`: an entry of the same key, by its first blob, that its writer has
/// read and could not restore.
///
/// # Errors
/// As the store refuses.
pub fn save(store: &dyn Store, row: &CacheRow, refused: Option<Digest>) -> Result<Saved, StoreError> {
    let saved = store.save_cache(row)?;
    let (Saved::Kept, Some(refused)) = (saved, refused) else { return Ok(saved) };
    let wanted = CacheWanted { scopes: &[&row.scope], key: &row.key, prefixes: &[] };
    let there = store.restore_cache(&wanted, &row.written_by, row.at)?;
    if there.is_some_and(|there| there.blobs.first() != Some(&refused)) {
        // Somebody else has replaced it.
        return Ok(saved);
    }
    store.evict_cache(&row.scope, &row.key, FILES_GONE, row.at)?;
    store.save_cache(row)
}

/// What became of [`crate::Store::save_cache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// The entry was written.
    Written,
    /// There was one of that key; it stays as it was.
    Kept,
}
