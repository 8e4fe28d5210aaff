//! A store that refuses by schedule: what simulations put between the engine's owner and a real store.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::Fact;
use engine::operation::Manifest;
use graph::{AttemptNumber, AttemptReport, BuildId, Digest, Graph, JobName, Timestamp, Trust};

use crate::audit::{AuditEntry, AuditFilter, AuditRow};
use crate::cache::{CacheRead, CacheRow, CacheTotals, CacheUser, CacheWanted, Saved};
use crate::chunk::{LogChunk, LogChunks};
use crate::claim::{Claim, Claimant};
use crate::leadership::{Leadership, Looked};
use crate::record::{Expect, NewRecord, Record, Version};
use crate::rows::{ArtifactRow, AttemptRow, BuildRow, GateRow, JobRow, OperationRow, OperationTotals, TestRow};
use crate::store::{BuildFilter, Deleted, Sequence, Store, StoreError};
use crate::table::{Cell, Table};
use crate::transfer::{Backup, Portable, Snapshot};
use crate::unanswered::Unanswered;

/// A way in which a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Another process holds the database: nothing is done.
    Busy,
    /// No space is left: nothing is done.
    Full,
    /// The disk refuses: nothing is done.
    Io,
    /// The connection breaks before the call reaches the database: nothing is done, which the error does not say.
    Lost,
    /// The connection breaks before the answer arrives: the call is done. Of reads and claims as [`Fault::Lost`].
    Unanswered,
    /// The call is done, after the wait that the schedule gives.
    Slow,
}

impl Fault {
    /// Those that leave no doubt about what was done.
    pub const CERTAIN: [Self; 3] = [Self::Busy, Self::Full, Self::Io];
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Busy, Self::Full, Self::Io, Self::Lost, Self::Unanswered, Self::Slow];

    fn error(self) -> StoreError {
        let cause = |kind: io::ErrorKind| Box::new(io::Error::new(kind, "a fault by schedule"));
        match self {
            Self::Busy => StoreError::Busy(cause(io::ErrorKind::ResourceBusy)),
            Self::Full => StoreError::Full(cause(io::ErrorKind::StorageFull)),
            Self::Io | Self::Slow => StoreError::Io(cause(io::ErrorKind::Other)),
            Self::Lost | Self::Unanswered => StoreError::Lost(cause(io::ErrorKind::ConnectionReset)),
        }
    }
}

/// Says what becomes of the next call, whose name it gets.
type Plan = Box<dyn Fn(&'static str) -> Option<Fault> + Send + Sync>;

/// Every call goes wrong or is handed on, as a plan says. Most plans draw from a sequence that a seed decides: the same
/// calls in the same order meet the same faults.
pub struct FaultyStore<S> {
    inner: S,
    plan: Plan,
    wait: Box<dyn Fn() + Send + Sync>,
    faults: AtomicU64,
    unanswered: Mutex<Option<Unanswered>>,
}

impl<S> FaultyStore<S> {
    /// Refuses about one of `one_in` calls in one of the ways [`Fault::CERTAIN`]; none if it is zero.
    #[must_use]
    pub fn new(inner: S, seed: u64, one_in: u64) -> Self {
        Self::with_faults(inner, seed, one_in, &Fault::CERTAIN, || {})
    }

    /// About one of `one_in` calls, none if it is zero, goes wrong in one of the ways `kinds`, of which there must be
    /// one; `wait` is called for each that is [`Fault::Slow`].
    #[must_use]
    pub fn with_faults(
        inner: S,
        seed: u64,
        one_in: u64,
        kinds: &[Fault],
        wait: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        assert!(!kinds.is_empty(), "a call goes wrong in some way");
        let (kinds, calls) = (kinds.to_vec(), AtomicU64::new(0));
        let plan = move |_: &'static str| {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            let drawn = mixed(seed.wrapping_add(call.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            if one_in == 0 || !drawn.is_multiple_of(one_in) {
                return None;
            }
            let kind = (drawn / one_in) % kinds.len() as u64;
            Some(kinds[usize::try_from(kind).expect("there are few kinds")])
        };
        Self::with_plan(inner, plan, wait)
    }

    /// Calls go wrong as `plan` says, which gets the name of each; `wait` is called for each that is [`Fault::Slow`].
    #[must_use]
    pub fn with_plan(
        inner: S,
        plan: impl Fn(&'static str) -> Option<Fault> + Send + Sync + 'static,
        wait: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let (plan, wait) = (Box::new(plan), Box::new(wait));
        Self { inner, plan, wait, faults: AtomicU64::new(0), unanswered: Mutex::default() }
    }

    /// The store behind it, which refuses nothing by schedule.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// How many calls went wrong so far.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// What becomes of a call.
    fn draw(&self, name: &'static str) -> Option<Fault> {
        let fault = (self.plan)(name)?;
        self.faults.fetch_add(1, Ordering::Relaxed);
        Some(fault)
    }

    /// Makes a call, unless it is to be refused.
    fn pass<T>(
        &self,
        name: &'static str,
        call: impl FnOnce(&S) -> Result<T, StoreError>,
        gives: Gives,
    ) -> Result<T, StoreError> {
        match self.draw(name) {
            None => call(&self.inner),
            Some(Fault::Slow) => {
                (self.wait)();
                call(&self.inner)
            }
            Some(Fault::Unanswered) if gives == Gives::Nothing => {
                call(&self.inner)?;
                Err(Fault::Unanswered.error())
            }
            Some(fault) => Err(fault.error()),
        }
    }
}

impl<S: Store> FaultyStore<S> {
    /// An append is what a caller repeats after its answer was lost.
    fn pass_append(&self, facts: &[Fact]) -> Result<(), StoreError> {
        let fault = self.draw("append");
        if let Some(fault) = fault {
            match fault {
                Fault::Slow => (self.wait)(),
                Fault::Unanswered => {}
                fault => return Err(fault.error()),
            }
        }
        let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = &*unanswered {
            let stored = |build, first: u64| {
                let facts = self.inner.facts(build)?;
                Ok(facts.into_iter().skip(usize::try_from(first).unwrap_or(usize::MAX)).collect())
            };
            if earlier.is_stored(facts, stored)? {
                *unanswered = None;
                return Ok(());
            }
        }
        let mut first = BTreeMap::new();
        if fault == Some(Fault::Unanswered) {
            for build in facts.iter().map(|fact| fact.build).collect::<BTreeSet<_>>() {
                first.insert(build, self.inner.facts(build)?.len() as u64);
            }
        }
        self.inner.append(facts)?;
        *unanswered = None;
        if fault == Some(Fault::Unanswered) {
            *unanswered = Some(Unanswered::new(facts, first));
            return Err(Fault::Unanswered.error());
        }
        Ok(())
    }
}

/// Whether a call gives its caller something to hold, which cannot be lost on the way: dropping it would undo the call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gives {
    /// It does.
    AHold,
    /// It gives data or nothing.
    Nothing,
}

/// Spreads a number over all 64 bits (the finalizer of SplitMix64, Steele et al. 2014).
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Hands each call on, or refuses it. A call of the trait that is missing here does not compile.
macro_rules! pass_on {
    ($trait:ident { $($special:item)* } $(fn $name:ident(&self $(, $argument:ident: $kind:ty)* $(,)?) -> $out:ty, $gives:ident;)*) => {
        impl<S: $trait> $trait for FaultyStore<S> {
            $($special)*
            $(fn $name(&self $(, $argument: $kind)*) -> Result<$out, StoreError> {
                self.pass(stringify!($name), |inner| inner.$name($($argument),*), Gives::$gives)
            })*
        }
    };
}

pass_on! {
    Store {
        fn append(&self, facts: &[Fact]) -> Result<(), StoreError> {
            self.pass_append(facts)
        }
    }
    fn reserve_build(&self) -> BuildId, Nothing;
    fn reserve_number(&self, project: &str) -> u64, Nothing;
    fn build_numbered(&self, project: &str, number: u64) -> Option<BuildId>, Nothing;
    fn journal(&self, after: Sequence, limit: u32) -> Vec<(Sequence, Vec<Fact>)>, Nothing;
    fn last_sequence(&self) -> Sequence, Nothing;
    fn prune_journal(&self, before: Sequence) -> u64, Nothing;
    fn lead(&self, wait: Duration) -> Option<Leadership>, AHold;
    fn depose(&self, silence: Duration) -> Looked, Nothing;
    fn record(&self, kind: &str, key: &str) -> Option<Record>, Nothing;
    fn put_record(&self, kind: &str, key: &str, body: &[u8], expect: Expect, at: Timestamp) -> Version, Nothing;
    fn put_records(&self, records: &[NewRecord<'_>], at: Timestamp) -> (), Nothing;
    fn note_record(&self, kind: &str, key: &str, body: &[u8], at: Timestamp) -> (), Nothing;
    fn delete_record(&self, kind: &str, key: &str, expect: Expect) -> bool, Nothing;
    fn records(&self, kind: &str, after: Option<&str>, limit: u32) -> Vec<Record>, Nothing;
    fn append_audit(&self, entry: &AuditEntry) -> u64, Nothing;
    fn audit(&self, filter: &AuditFilter, before: Option<u64>, limit: u32) -> Vec<AuditRow>, Nothing;
    fn prune_audit(&self, before: Timestamp) -> u64, Nothing;
    fn facts(&self, build: BuildId) -> Vec<Fact>, Nothing;
    fn unfinished(&self) -> Vec<BuildId>, Nothing;
    fn claim(&self, build: BuildId) -> Option<Claim>, AHold;
    fn claimant(&self, build: BuildId) -> Option<Claimant>, Nothing;
    fn delete_build(&self, build: BuildId) -> Option<Deleted>, Nothing;
    fn builds(&self, filter: &BuildFilter, before: Option<BuildId>, limit: u32) -> Vec<BuildRow>, Nothing;
    fn build_versions(&self, filter: &BuildFilter, before: Option<BuildId>, limit: u32) -> Vec<(BuildId, u64)>, Nothing;
    fn build(&self, build: BuildId) -> Option<BuildRow>, Nothing;
    fn graph(&self, build: BuildId) -> Option<Arc<Graph>>, Nothing;
    fn jobs(&self, build: BuildId) -> Vec<JobRow>, Nothing;
    fn attempts(&self, build: BuildId, job: Option<&JobName>) -> Vec<AttemptRow>, Nothing;
    fn reports(&self, build: BuildId, job: Option<&JobName>) -> Vec<(AttemptNumber, AttemptReport)>, Nothing;
    fn tests(&self, build: BuildId) -> Vec<TestRow>, Nothing;
    fn artifacts(&self, build: BuildId) -> Vec<ArtifactRow>, Nothing;
    fn gates(&self, build: BuildId) -> Vec<GateRow>, Nothing;
    fn durations(&self, project: &str, names: &[JobName]) -> BTreeMap<JobName, u64>, Nothing;
    fn record_operations(&self, operations: &[(OperationRow, &Manifest)]) -> (), Nothing;
    fn record_tried(&self, tried: &[(Digest, &Manifest)], at: Timestamp) -> (), Nothing;
    fn operations(&self, digests: &[Digest], trust: Trust) -> BTreeMap<Digest, OperationRow>, Nothing;
    fn evictions(&self, digests: &[Digest]) -> BTreeMap<Digest, Timestamp>, Nothing;
    fn manifest(&self, digest: Digest) -> Option<Manifest>, Nothing;
    fn recent_operations(&self, job_id: &str, limit: u32) -> Vec<(OperationRow, Manifest)>, Nothing;
    fn list_operations(&self, limit: u32) -> Vec<OperationRow>, Nothing;
    fn operation_totals(&self) -> OperationTotals, Nothing;
    fn touch_operations(&self, digests: &[Digest], at: Timestamp) -> (), Nothing;
    fn unused_operations(&self, before: Timestamp, limit: u32) -> Vec<OperationRow>, Nothing;
    fn evict(&self, digest: Digest, reason: &str, at: Timestamp) -> (), Nothing;
    fn evict_job(&self, job: &JobName, reason: &str, at: Timestamp) -> u64, Nothing;
    fn clear_operations(&self, reason: &str, at: Timestamp) -> u64, Nothing;
    fn save_cache(&self, entry: &CacheRow) -> Saved, Nothing;
    fn restore_cache(&self, wanted: &CacheWanted<'_>, reader: &CacheUser, at: Timestamp) -> Option<CacheRow>, Nothing;
    fn cache_reads(&self, scope: &str, key: &str, limit: u32) -> Vec<CacheRead>, Nothing;
    fn list_caches(&self, limit: u32) -> Vec<CacheRow>, Nothing;
    fn unused_caches(&self, before: Timestamp, limit: u32) -> Vec<CacheRow>, Nothing;
    fn cache_totals(&self) -> CacheTotals, Nothing;
    fn cache_totals_of(&self, scope_prefix: &str) -> CacheTotals, Nothing;
    fn evict_cache(&self, scope: &str, key: &str, reason: &str, at: Timestamp) -> (), Nothing;
    fn clear_caches(&self, reason: &str, at: Timestamp) -> u64, Nothing;
    fn referenced_blobs(&self) -> BTreeSet<Digest>, Nothing;
    fn referenced_sources(&self) -> BTreeSet<Digest>, Nothing;
}

pass_on! {
    LogChunks {}
    fn append_log_chunks(&self, chunks: &[(BuildId, Vec<u8>)]) -> Vec<u64>, Nothing;
    fn log_chunks(&self, build: BuildId, after: u64, limit: u32) -> Vec<LogChunk>, Nothing;
    fn delete_log_chunks(&self, build: BuildId) -> u64, Nothing;
}

/// Copies of a whole store are not disturbed: whoever copies has their own tests.
impl<S: Portable> Portable for FaultyStore<S> {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        self.inner.snapshot()
    }

    fn write_rows(&self, table: &'static Table, rows: Vec<Vec<Cell>>) -> Result<(), StoreError> {
        self.inner.write_rows(table, rows)
    }

    fn settle(&self) -> Result<(), StoreError> {
        self.inner.settle()
    }

    fn backup(&self, file: &Path) -> Result<Backup, StoreError> {
        self.inner.backup(file)
    }
}
