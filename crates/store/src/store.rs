//! The door to everything kept about builds: facts, the rows projected from them, operations and keyed caches.
//!
//! A store is blocking and may be shared between threads. It reads no clock: times come in as arguments. Blobs and
//! logs have doors of their own; here they are only named. Three implementations pass one contract
//! (`tests/contract/`): [`crate::MemoryStore`], [`crate::SqliteStore`] and, with its feature, `PostgresStore`.
//! [`crate::FaultyStore`] is one of them with faults on purpose, and passes it too.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use engine::Fact;
use engine::operation::Manifest;
use graph::{AttemptNumber, AttemptReport, BuildId, Digest, EventKind, Graph, JobName, Timestamp, Trust};
use serde::{Deserialize, Serialize};

use crate::audit::{AuditEntry, AuditFilter, AuditRow};
use crate::cache::{CacheRead, CacheRow, CacheTotals, CacheUser, CacheWanted, Saved};
use crate::claim::{Claim, Claimant};
use crate::leadership::{Leadership, Looked};
use crate::record::{Expect, NewRecord, Record, Version};
use crate::rows::{
    ArtifactRow, AttemptRow, BuildRow, GateRow, JobRow, JobState, OperationRow, OperationTotals, TestRow, VerdictWord,
};

/// The most rows that one call returns of a list without end; a larger limit is cut to it.
pub const PAGE_ROWS_MAX: u32 = 1000;
/// The most tombstones kept of evicted operations; the oldest go first.
pub const TOMBSTONES_MAX: u32 = 10_000;
/// The most operations without a result whose making is kept; the oldest go first.
pub const TRIED_MAX: u32 = 500;
/// The largest number of a build, so that a build and the place of a fact in it fit one 64-bit key.
pub const BUILD_ID_MAX: u64 = (1 << 31) - 1;
/// A page of the journal is full when it holds this many facts; the append that fills it is whole.
pub const JOURNAL_FACTS_MAX: usize = 10_000;

/// The place of an append among all appends of a store, from 1. Later appends have larger numbers; some may be skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(pub u64);

/// Whether a store keeps the order of appends over all builds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Journal {
    /// It does not: a row less for every append. Right for a laptop, where each build is followed by its own process.
    #[default]
    Off,
    /// It does, until it is pruned. Right for a server, whose followers resume where they were. All appends then come
    /// from stores that keep it.
    Kept,
}

/// What is kept about builds. All lists are sorted as said and hold no duplicates.
pub trait Store: Send + Sync {
    // Builds and their facts.

    /// The next build's number: from 1, never the same twice, not even after a build was deleted or between
    /// processes. A number that is never used leaves a gap.
    ///
    /// # Errors
    /// As the medium refuses; `Full` also when [`BUILD_ID_MAX`] is reached.
    fn reserve_build(&self) -> Result<BuildId, StoreError>;

    /// Stores `facts` in this order and projects the rows, all in one transaction: after an error nothing of it
    /// is there, unless the error is `Lost`, which leaves it unknown. Facts of several builds may be mixed.
    ///
    /// What to do after `Lost`: append the very same facts to the same store again. If they were stored the first time,
    /// this is recognised (by their places in their builds) and they are not stored twice. Whoever does something else
    /// first has to read the facts that there are.
    ///
    /// # Errors
    /// `NoBuild` if a fact is about a build that was not created or has been deleted; `NotEmpty` if one creates a build that
    /// is there, so that no build takes the place of another; `NotLeading` if this store has led
    /// ([`Store::lead`]) and does so no more; else as the medium refuses.
    fn append(&self, facts: &[Fact]) -> Result<(), StoreError>;

    /// All facts of `build` in the order in which they were appended; none if there is no such build.
    ///
    /// # Errors
    /// As the medium refuses.
    fn facts(&self, build: BuildId) -> Result<Vec<Fact>, StoreError>;

    /// The builds without [`engine::fact::What::BuildEnded`], in order of number.
    ///
    /// # Errors
    /// As the medium refuses.
    fn unfinished(&self) -> Result<Vec<BuildId>, StoreError>;

    /// Takes `build` for this process, until the claim is dropped or the process ends, however it ends. `None`
    /// if somebody else has it, or this process has it already.
    ///
    /// # Errors
    /// As the medium refuses.
    fn claim(&self, build: BuildId) -> Result<Option<Claim>, StoreError>;

    /// Who holds the claim on `build`, if anybody does.
    ///
    /// # Errors
    /// As the medium refuses.
    fn claimant(&self, build: BuildId) -> Result<Option<Claimant>, StoreError>;

    /// Removes `build`, its facts and rows. Operations and caches that it wrote stay, since others use them.
    /// `Ok(None)` if there is no such build.
    ///
    /// # Errors
    /// `Running` if somebody holds the build's claim; else as the medium refuses.
    fn delete_build(&self, build: BuildId) -> Result<Option<Deleted>, StoreError>;

    // Builds of projects.

    /// The next number of a build in `project`: from 1, never the same twice. A number that is never used leaves a gap.
    ///
    /// # Errors
    /// As the medium refuses.
    fn reserve_number(&self, project: &str) -> Result<u64, StoreError>;

    /// The build that has this number in `project`; the oldest, should there be several.
    ///
    /// # Errors
    /// As the medium refuses.
    fn build_numbered(&self, project: &str, number: u64) -> Result<Option<BuildId>, StoreError>;

    // The order of everything.

    /// The appends after `after`, in order, at most `limit` ([`PAGE_ROWS_MAX`]) and no more once they hold
    /// [`JOURNAL_FACTS_MAX`] facts. Facts of a build that was deleted since are missing; an append may be left with none.
    /// Empty where the journal is off. What was pruned is missing too: the first number says so.
    ///
    /// # Errors
    /// As the medium refuses.
    fn journal(&self, after: Sequence, limit: u32) -> Result<Vec<(Sequence, Vec<Fact>)>, StoreError>;

    /// The number of the last append; 0 if there was none or the journal is off.
    ///
    /// # Errors
    /// As the medium refuses.
    fn last_sequence(&self) -> Result<Sequence, StoreError>;

    /// Forgets the appends before `before`, but never the last one. The facts stay. Returns how many.
    ///
    /// # Errors
    /// As the medium refuses.
    fn prune_journal(&self, before: Sequence) -> Result<u64, StoreError>;

    /// Makes this store the one that leads, if no other does, after waiting for it at most `wait` (zero: not at all).
    /// Leadership ends when it is dropped, when its process or its connection to the database dies. From then on until
    /// it leads again this store's appends are refused, and were another to lead meanwhile, this is decided in the same
    /// transaction. Appends of a store that never led are not looked at.
    ///
    /// # Errors
    /// As the medium refuses.
    fn lead(&self, wait: Duration) -> Result<Option<Leadership>, StoreError>;

    /// Takes the lock from a leader that stands still: one whose process lives, so that it keeps the lock, and that did not
    /// renew its leadership ([`Leadership::renew`]) for `silence`, counted from the first call of this store that saw its last
    /// renewal. To be called again and again by who stands by; no clocks are compared. A leader that never renewed is
    /// left alone, and where only the processes of one machine share the store, every leader is.
    ///
    /// # Errors
    /// As the medium refuses; `Denied` if the database's user may not end the leader's connection.
    fn depose(&self, silence: Duration) -> Result<Looked, StoreError>;

    // Records: small documents of the server, by kind and key.

    /// One record.
    ///
    /// # Errors
    /// As the medium refuses.
    fn record(&self, kind: &str, key: &str) -> Result<Option<Record>, StoreError>;

    /// Writes a record if what is there is as expected; says the version that it now has, which no record ever had.
    ///
    /// # Errors
    /// `Conflict` if something else is there; `TooLarge` beyond [`crate::record::BODY_BYTES_MAX`] or
    /// [`crate::record::KEY_BYTES_MAX`]; else as the medium refuses.
    fn put_record(
        &self,
        kind: &str,
        key: &str,
        body: &[u8],
        expect: Expect,
        at: Timestamp,
    ) -> Result<Version, StoreError>;

    /// Writes several records in order, whatever is there: all of them, or none if it fails. The disk is waited for once.
    ///
    /// # Errors
    /// As [`Store::put_record`], without a conflict.
    fn put_records(&self, records: &[NewRecord<'_>], at: Timestamp) -> Result<(), StoreError>;

    /// Writes a record, whatever is there, that may be gone again after a loss of power: it waits for no disk where that can be had.
    /// The death of a process takes it no more than any other, and once something that was put later is acknowledged, no loss of power does.
    ///
    /// # Errors
    /// As [`Store::put_record`].
    fn note_record(&self, kind: &str, key: &str, body: &[u8], at: Timestamp) -> Result<(), StoreError> {
        self.put_record(kind, key, body, Expect::Any, at).map(drop)
    }

    /// Removes a record if what is there is as expected; says whether there was one.
    ///
    /// # Errors
    /// `Conflict` if something else is there; else as the medium refuses.
    fn delete_record(&self, kind: &str, key: &str, expect: Expect) -> Result<bool, StoreError>;

    /// The records of a kind in order of key (byte by byte), after `after`, at most `limit` ([`PAGE_ROWS_MAX`]) and no
    /// more once their bodies hold [`crate::record::PAGE_BYTES_MAX`].
    ///
    /// # Errors
    /// As the medium refuses.
    fn records(&self, kind: &str, after: Option<&str>, limit: u32) -> Result<Vec<Record>, StoreError>;

    // Who did what.

    /// Notes an action. Returns its number; later ones are larger.
    ///
    /// # Errors
    /// `TooLarge` beyond [`crate::audit::ENTRY_BYTES_MAX`]; else as the medium refuses.
    fn append_audit(&self, entry: &AuditEntry) -> Result<u64, StoreError>;

    /// The actions that pass `filter`, newest first, with numbers below `before`, at most `limit` ([`PAGE_ROWS_MAX`]).
    ///
    /// # Errors
    /// As the medium refuses.
    fn audit(&self, filter: &AuditFilter, before: Option<u64>, limit: u32) -> Result<Vec<AuditRow>, StoreError>;

    /// Forgets the actions of before `before`, but never the one noted last. Returns how many.
    ///
    /// # Errors
    /// As the medium refuses.
    fn prune_audit(&self, before: Timestamp) -> Result<u64, StoreError>;

    // Rows.

    /// The builds that pass `filter`, newest first, below `before`, at most `limit` ([`PAGE_ROWS_MAX`]).
    ///
    /// # Errors
    /// As the medium refuses.
    fn builds(&self, filter: &BuildFilter, before: Option<BuildId>, limit: u32) -> Result<Vec<BuildRow>, StoreError>;

    /// The builds that [`Store::builds`] lists, each with how many facts its rows show: whoever saw a build at the same number saw what is
    /// there now, for rows follow facts alone.
    ///
    /// # Errors
    /// As the medium refuses.
    fn build_versions(
        &self,
        filter: &BuildFilter,
        before: Option<BuildId>,
        limit: u32,
    ) -> Result<Vec<(BuildId, u64)>, StoreError>;

    /// One build.
    ///
    /// # Errors
    /// As the medium refuses.
    fn build(&self, build: BuildId) -> Result<Option<BuildRow>, StoreError>;

    /// The build's graph as it was last evaluated; `None` before that.
    ///
    /// # Errors
    /// As the medium refuses.
    fn graph(&self, build: BuildId) -> Result<Option<Arc<Graph>>, StoreError>;

    /// The jobs that a fact was about, in order of name. A job of the graph without a row waits.
    ///
    /// # Errors
    /// As the medium refuses.
    fn jobs(&self, build: BuildId) -> Result<Vec<JobRow>, StoreError>;

    /// The attempts of a build, or of one job of it, in order of number.
    ///
    /// # Errors
    /// As the medium refuses.
    fn attempts(&self, build: BuildId, job: Option<&JobName>) -> Result<Vec<AttemptRow>, StoreError>;

    /// The reports of the attempts that ended, of a build or of one job of it, in order of number.
    ///
    /// # Errors
    /// As the medium refuses.
    fn reports(&self, build: BuildId, job: Option<&JobName>)
    -> Result<Vec<(AttemptNumber, AttemptReport)>, StoreError>;

    /// The tests of all attempts of a build, in order of attempt and then as the reports name them.
    ///
    /// # Errors
    /// As the medium refuses.
    fn tests(&self, build: BuildId) -> Result<Vec<TestRow>, StoreError>;

    /// The artifacts that jobs of a build handed on, in order of job, attempt and name.
    ///
    /// # Errors
    /// As the medium refuses.
    fn artifacts(&self, build: BuildId) -> Result<Vec<ArtifactRow>, StoreError>;

    /// All gates that opened in a build, in order of job.
    ///
    /// # Errors
    /// As the medium refuses.
    fn gates(&self, build: BuildId) -> Result<Vec<GateRow>, StoreError>;

    /// The gates of a build that wait for an answer, in order of job. A gate whose job was canceled waits no longer.
    ///
    /// # Errors
    /// As the medium refuses.
    fn open_gates(&self, build: BuildId) -> Result<Vec<GateRow>, StoreError> {
        let mut open = self.gates(build)?;
        open.retain(|gate| gate.answered.is_none());
        if !open.is_empty() {
            let jobs = self.jobs(build)?.into_iter().filter(|job| job.state == JobState::Ended);
            let ended: BTreeSet<_> = jobs.map(|job| job.name).collect();
            open.retain(|gate| !ended.contains(&gate.job));
        }
        Ok(open)
    }

    /// The usual running time of each of a project's jobs that has one: the median of its last ten attempts that passed, in
    /// milliseconds.
    ///
    /// # Errors
    /// As the medium refuses.
    fn durations(&self, project: &str, names: &[JobName]) -> Result<BTreeMap<JobName, u64>, StoreError>;

    /// The usual running time of one job, as [`Store::durations`].
    ///
    /// # Errors
    /// As the medium refuses.
    fn usual_duration_ms(&self, project: &str, name: &JobName) -> Result<Option<u64>, StoreError> {
        Ok(self.durations(project, std::slice::from_ref(name))?.remove(name))
    }

    // Operations.

    /// Records results under their operations, all in one transaction. One that was there is replaced; a tombstone stays
    /// readable as [`OperationRow::replaced`].
    ///
    /// # Errors
    /// As the medium refuses.
    fn record_operations(&self, operations: &[(OperationRow, &Manifest)]) -> Result<(), StoreError>;

    /// Keeps what operations are made of that were tried at `at` and have no result to reuse: the last [`TRIED_MAX`].
    ///
    /// # Errors
    /// As the medium refuses.
    fn record_tried(&self, tried: &[(Digest, &Manifest)], at: Timestamp) -> Result<(), StoreError>;

    /// The results that a build of this trust may reuse, by operation. A trusted build sees only what trusted
    /// builds wrote; an untrusted one sees first what untrusted builds wrote. Evicted ones are not seen.
    ///
    /// # Errors
    /// As the medium refuses.
    fn operations(&self, digests: &[Digest], trust: Trust) -> Result<BTreeMap<Digest, OperationRow>, StoreError>;

    /// One operation, as [`Store::operations`].
    ///
    /// # Errors
    /// As the medium refuses.
    fn operation(&self, digest: Digest, trust: Trust) -> Result<Option<OperationRow>, StoreError> {
        Ok(self.operations(&[digest], trust)?.remove(&digest))
    }

    /// When the results of these operations were evicted last, of whatever trust; without those of which none was since the newest was
    /// recorded.
    ///
    /// # Errors
    /// As the medium refuses.
    fn evictions(&self, digests: &[Digest]) -> Result<BTreeMap<Digest, Timestamp>, StoreError>;

    /// What an operation is made of, if it was ever recorded, also after it was evicted.
    ///
    /// # Errors
    /// As the medium refuses.
    fn manifest(&self, digest: Digest) -> Result<Option<Manifest>, StoreError>;

    /// The newest operations of jobs with this id (all legs of a matrix), newest first, evicted ones with their
    /// tombstones; at most `limit` ([`PAGE_ROWS_MAX`]).
    ///
    /// # Errors
    /// As the medium refuses.
    fn recent_operations(&self, job_id: &str, limit: u32) -> Result<Vec<(OperationRow, Manifest)>, StoreError>;

    /// Operations, newest first, evicted ones too; at most `limit` ([`PAGE_ROWS_MAX`]).
    ///
    /// # Errors
    /// As the medium refuses.
    fn list_operations(&self, limit: u32) -> Result<Vec<OperationRow>, StoreError>;

    /// How many operations there are and what they hold.
    ///
    /// # Errors
    /// As the medium refuses.
    fn operation_totals(&self) -> Result<OperationTotals, StoreError>;

    /// Notes that these operations were reused at `at`.
    ///
    /// # Errors
    /// As the medium refuses.
    fn touch_operations(&self, digests: &[Digest], at: Timestamp) -> Result<(), StoreError>;

    /// The live operations last used before `before`, longest unused first; at most `limit` ([`PAGE_ROWS_MAX`]).
    ///
    /// # Errors
    /// As the medium refuses.
    fn unused_operations(&self, before: Timestamp, limit: u32) -> Result<Vec<OperationRow>, StoreError>;

    /// Evicts an operation of every trust, leaving a tombstone that says when and why. No harm if there is none.
    ///
    /// # Errors
    /// As the medium refuses.
    fn evict(&self, digest: Digest, reason: &str, at: Timestamp) -> Result<(), StoreError>;

    /// Evicts the operations of a job, by its full name or its id, of every trust. Returns how many.
    ///
    /// # Errors
    /// As the medium refuses.
    fn evict_job(&self, job: &JobName, reason: &str, at: Timestamp) -> Result<u64, StoreError>;

    /// Evicts all operations. Returns how many.
    ///
    /// # Errors
    /// As the medium refuses.
    fn clear_operations(&self, reason: &str, at: Timestamp) -> Result<u64, StoreError>;

    // Keyed caches.

    /// Writes an entry unless its scope has a live one of that key: an entry never changes.
    ///
    /// # Errors
    /// As the medium refuses.
    fn save_cache(&self, entry: &CacheRow) -> Result<Saved, StoreError>;

    /// The entry that fits best, noted as read by `reader` at `at`. For each scope in order: the key itself, then
    /// for each prefix in order the newest entry that begins with it.
    ///
    /// # Errors
    /// As the medium refuses.
    fn restore_cache(
        &self,
        wanted: &CacheWanted<'_>,
        reader: &CacheUser,
        at: Timestamp,
    ) -> Result<Option<CacheRow>, StoreError>;

    /// Who read an entry, newest first; at most `limit` ([`PAGE_ROWS_MAX`]).
    ///
    /// # Errors
    /// As the medium refuses.
    fn cache_reads(&self, scope: &str, key: &str, limit: u32) -> Result<Vec<CacheRead>, StoreError>;

    /// Entries, newest first, evicted ones too; at most `limit` ([`PAGE_ROWS_MAX`]).
    ///
    /// # Errors
    /// As the medium refuses.
    fn list_caches(&self, limit: u32) -> Result<Vec<CacheRow>, StoreError>;

    /// The live entries last used before `before`, longest unused first; at most `limit` ([`PAGE_ROWS_MAX`]).
    ///
    /// # Errors
    /// As the medium refuses.
    fn unused_caches(&self, before: Timestamp, limit: u32) -> Result<Vec<CacheRow>, StoreError>;

    /// How many live entries there are and what they hold.
    ///
    /// # Errors
    /// As the medium refuses.
    fn cache_totals(&self) -> Result<CacheTotals, StoreError>;

    /// How many entries there are whose scope begins so, byte by byte, and what they hold.
    ///
    /// # Errors
    /// As the medium refuses.
    fn cache_totals_of(&self, scope_prefix: &str) -> Result<CacheTotals, StoreError>;

    /// Evicts an entry, leaving a tombstone. No harm if there is none.
    ///
    /// # Errors
    /// As the medium refuses.
    fn evict_cache(&self, scope: &str, key: &str, reason: &str, at: Timestamp) -> Result<(), StoreError>;

    /// Evicts all entries. Returns how many.
    ///
    /// # Errors
    /// As the medium refuses.
    fn clear_caches(&self, reason: &str, at: Timestamp) -> Result<u64, StoreError>;

    // What may be removed elsewhere.

    /// Every blob that an artifact of a kept build, a live operation or a live cache entry names, and every source
    /// ([`Store::referenced_sources`]); not what sources name.
    ///
    /// # Errors
    /// As the medium refuses.
    fn referenced_blobs(&self) -> Result<BTreeSet<Digest>, StoreError>;

    /// Every source that a kept build was built from or that a record of kind [`crate::record::SOURCE_KIND`] has as its
    /// key. Each is a blob that names further blobs, so a collector of blobs reads them.
    ///
    /// # Errors
    /// As the medium refuses.
    fn referenced_sources(&self) -> Result<BTreeSet<Digest>, StoreError>;
}

/// Which builds [`Store::builds`] lists; empty fields let all pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildFilter {
    /// Of events on this branch.
    pub branch: Option<String>,
    /// Of events of this kind.
    pub kind: Option<EventKind>,
    /// That ended so, or have not.
    pub verdict: Option<VerdictWord>,
    /// Of the pipeline of this path.
    pub pipeline: Option<String>,
    /// Of this project.
    pub project: Option<String>,
    /// Of events with a commit whose id begins so: in lower case. The empty text: of events without one.
    pub commit: Option<String>,
}

impl BuildFilter {
    /// How a commit's id is asked for: by the whole id, or as a range.
    pub(crate) fn commits(&self) -> Option<Commits<'_>> {
        let wanted = self.commit.as_deref()?;
        Some(match wanted.len() {
            0 | 40 | 64 => Commits::Whole(wanted),
            // Nothing that an id is made of comes after this.
            _ => Commits::From(wanted, format!("{wanted}~")),
        })
    }
}

/// Commits that are meant.
pub(crate) enum Commits<'f> {
    /// The one with this id; the empty text: none.
    Whole(&'f str),
    /// Those from the first id up to the second one.
    From(&'f str, String),
}

/// What the removal of a build leaves behind elsewhere. Its log pack is always one of the things to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// The blobs that nothing names any more.
    pub blobs: BTreeSet<Digest>,
}

/// What the medium said, for people.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Why a store did not do what it was asked, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process held the database longer than we wait. Trying again helps.
    #[error("the database is held by another process")]
    Busy(#[source] Cause),
    /// No space is left. Making room helps.
    #[error("no space is left for the database")]
    Full(#[source] Cause),
    /// What is stored makes no sense. A copy from before helps.
    #[error("the database is damaged")]
    Corrupt(#[source] Cause),
    /// A newer Ropewalk wrote it. Updating helps.
    #[error("the database has version {found}, newer than this program, which knows {known}")]
    Newer {
        /// The version found.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// The files may not be opened or written by this user.
    #[error("the database may not be opened or written")]
    Denied(#[source] Cause),
    /// A fact is about a build that is not there.
    #[error("build {0} is not in the store")]
    NoBuild(BuildId),
    /// The build is running.
    #[error("build {0} is running")]
    Running(BuildId),
    /// The connection to the database broke, or could not be made. Trying again helps. What a write has done is unknown;
    /// of an append see [`Store::append`].
    #[error("the connection to the database was lost")]
    Lost(#[source] Cause),
    /// This store led and does so no more; somebody else may lead.
    #[error("another server has taken over")]
    NotLeading,
    /// A record is not as its writer expected. Reading it again helps.
    #[error("the record has changed meanwhile")]
    Conflict {
        /// The version found; `None` if there is no record.
        found: Option<Version>,
    },
    /// What is to be stored is larger than allowed.
    #[error("{what} has {bytes} bytes, more than {most}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The largest allowed.
        most: usize,
    },
    /// Something is where something new was to be made.
    #[error("there is something already")]
    NotEmpty,
    /// Anything else that the system refused.
    #[error("reading or writing the database was refused")]
    Io(#[source] Cause),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full(error.into())
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Denied(error.into()),
            _ => Self::Io(error.into()),
        }
    }
}
