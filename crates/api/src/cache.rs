//! What is kept to be taken again: results of operations, and keyed directories.

use graph::{BuildId, Digest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::build::DigestText;
use crate::event::TrustWord;
use crate::job::{JobKey, OutcomeWord};
use crate::time::Time;

/// A result recorded under its operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Operation {
    /// The operation.
    #[schemars(with = "DigestText")]
    pub digest: Digest,
    /// The job under which it ran.
    pub job: String,
    /// The build that recorded it.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// The attempt that produced it.
    pub attempt: u32,
    /// How far that build was trusted.
    pub trust: TrustWord,
    /// The outcome.
    pub outcome: OutcomeWord,
    /// The names of the artifacts it hands on.
    pub artifacts: Vec<String>,
    /// The bytes of these, before compression.
    pub bytes: u64,
    /// When it was recorded.
    pub at: Time,
    /// When it was last taken.
    pub used_at: Time,
    /// Set once it was evicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evicted: Option<Evicted>,
}

/// The tombstone of something evicted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evicted {
    /// When.
    pub at: Time,
    /// Why.
    pub reason: String,
}

/// What an operation is made of: change any of it, and the job runs anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explained {
    /// The operation.
    #[schemars(with = "DigestText")]
    pub digest: Digest,
    /// Its parts in order, each a name and what stood there; of files and secrets digests only.
    pub parts: Vec<Part>,
}

/// One part of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// What it is: `step 1 run`, `input src/main.rs`.
    pub name: String,
    /// Its value, or the digest of it.
    pub value: String,
}

/// A keyed directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyedCache {
    /// Who may read it.
    pub scope: String,
    /// Its key.
    pub key: String,
    /// The bytes of its blobs.
    pub bytes: u64,
    /// Who wrote it.
    pub written_by: JobKey,
    /// When it was written.
    pub at: Time,
    /// When it was last read.
    pub used_at: Time,
    /// Set once it was evicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evicted: Option<Evicted>,
}

/// What keyed directories a project has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheTotals {
    /// How many may be read.
    pub caches: u64,
    /// The bytes of their blobs; what several hold is counted each time.
    pub bytes: u64,
}

/// What a job did with a keyed directory, or found that it could not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheUse {
    /// Who may read what was read or written; of what was missed, the scope in which it was looked for first.
    pub scope: String,
    /// The key that was asked for, or under which it was written.
    pub key: String,
    /// What it did.
    pub act: CacheAct,
    /// The key of what was read, which may begin with a prefix that does as well. Empty if nothing was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub found: String,
    /// The bytes of what was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Who.
    pub by: JobKey,
    /// When.
    pub at: Time,
}

/// What a job did with a keyed directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CacheAct {
    /// It read one.
    Read,
    /// There was none.
    Missed,
    /// It wrote one.
    Written,
    /// It would have written one, and there was one of that key already.
    Kept,
}

/// Evicts one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum Evict {
    /// An operation's result.
    Operation {
        /// The operation.
        #[schemars(with = "DigestText")]
        digest: Digest,
        /// Why; kept with the tombstone and in the audit.
        #[schemars(length(min = 1, max = 1000))]
        reason: String,
    },
    /// All results of a job.
    Job {
        /// Its full name, or its id for all legs.
        #[schemars(length(min = 1, max = 512))]
        job: String,
        /// Why; kept with the tombstone and in the audit.
        #[schemars(length(min = 1, max = 1000))]
        reason: String,
    },
    /// A keyed directory.
    Keyed {
        /// Its scope.
        #[schemars(length(max = 1000))]
        scope: String,
        /// Its key.
        #[schemars(length(min = 1, max = 1000))]
        key: String,
        /// Why; kept with the tombstone and in the audit.
        #[schemars(length(min = 1, max = 1000))]
        reason: String,
    },
}
