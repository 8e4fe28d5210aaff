//! Keyed caches: which blobs stand under which key. The bytes themselves are blobs.
//!
//! An entry belongs to a scope (who may read it) and never changes while it lives: what a key means is decided
//! once. Nothing here knows what a scope stands for.

use graph::{BuildId, Digest, JobName, Timestamp};
use serde::Serialize;

use crate::rows::Eviction;

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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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

/// What became of [`crate::Store::save_cache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// The entry was written.
    Written,
    /// There was one of that key; it stays as it was.
    Kept,
}
