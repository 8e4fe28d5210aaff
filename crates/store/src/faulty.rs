//! A store that refuses by schedule: what simulations put between the engine's owner and a real store.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::Fact;
use engine::operation::Manifest;
use graph::{AttemptNumber, AttemptReport, BuildId, Digest, Graph, JobName, Timestamp, Trust};

use crate::cache::{CacheRead, CacheRow, CacheUser, CacheWanted, Saved};
use crate::claim::{Claim, Claimant};
use crate::rows::{ArtifactRow, AttemptRow, BuildRow, GateRow, JobRow, OperationRow, OperationTotals, TestRow};
use crate::store::{BuildFilter, Deleted, Store, StoreError};

/// Every call draws from a sequence that the seed decides, and is refused or handed on. A refused call has done
/// nothing, as the contract of [`Store`] says. The same calls in the same order meet the same faults.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    seed: u64,
    one_in: u64,
    calls: AtomicU64,
    faults: AtomicU64,
}

impl<S> FaultyStore<S> {
    /// Refuses about one of `one_in` calls; none if it is zero.
    #[must_use]
    pub fn new(inner: S, seed: u64, one_in: u64) -> Self {
        Self { inner, seed, one_in, calls: AtomicU64::new(0), faults: AtomicU64::new(0) }
    }

    /// The store behind it, which refuses nothing by schedule.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// How many calls were refused so far.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Hands the store behind it out, unless this call is to be refused.
    fn pass(&self) -> Result<&S, StoreError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let drawn = mixed(self.seed.wrapping_add(call.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        if self.one_in == 0 || !drawn.is_multiple_of(self.one_in) {
            return Ok(&self.inner);
        }
        self.faults.fetch_add(1, Ordering::Relaxed);
        let cause = |kind: io::ErrorKind| Box::new(io::Error::new(kind, "a fault by schedule"));
        Err(match (drawn / self.one_in) % 3 {
            0 => StoreError::Busy(cause(io::ErrorKind::ResourceBusy)),
            1 => StoreError::Full(cause(io::ErrorKind::StorageFull)),
            _ => StoreError::Io(cause(io::ErrorKind::Other)),
        })
    }
}

/// Spreads a number over all 64 bits (the finalizer of SplitMix64, Steele et al. 2014).
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Hands each call on, or refuses it.
macro_rules! pass_on {
    ($(fn $name:ident(&self $(, $argument:ident: $kind:ty)* $(,)?) -> $out:ty;)*) => {
        impl<S: Store> Store for FaultyStore<S> {
            $(fn $name(&self $(, $argument: $kind)*) -> Result<$out, StoreError> {
                self.pass()?.$name($($argument),*)
            })*
        }
    };
}

pass_on! {
    fn reserve_build(&self) -> BuildId;
    fn append(&self, facts: &[Fact]) -> ();
    fn facts(&self, build: BuildId) -> Vec<Fact>;
    fn unfinished(&self) -> Vec<BuildId>;
    fn claim(&self, build: BuildId) -> Option<Claim>;
    fn claimant(&self, build: BuildId) -> Option<Claimant>;
    fn delete_build(&self, build: BuildId) -> Option<Deleted>;
    fn builds(&self, filter: &BuildFilter, before: Option<BuildId>, limit: u32) -> Vec<BuildRow>;
    fn build(&self, build: BuildId) -> Option<BuildRow>;
    fn graph(&self, build: BuildId) -> Option<Arc<Graph>>;
    fn jobs(&self, build: BuildId) -> Vec<JobRow>;
    fn attempts(&self, build: BuildId, job: Option<&JobName>) -> Vec<AttemptRow>;
    fn reports(&self, build: BuildId, job: Option<&JobName>) -> Vec<(AttemptNumber, AttemptReport)>;
    fn tests(&self, build: BuildId) -> Vec<TestRow>;
    fn artifacts(&self, build: BuildId) -> Vec<ArtifactRow>;
    fn gates(&self, build: BuildId) -> Vec<GateRow>;
    fn durations(&self, names: &[JobName]) -> BTreeMap<JobName, u64>;
    fn record_operations(&self, operations: &[(OperationRow, &Manifest)]) -> ();
    fn record_tried(&self, tried: &[(Digest, &Manifest)], at: Timestamp) -> ();
    fn operations(&self, digests: &[Digest], trust: Trust) -> BTreeMap<Digest, OperationRow>;
    fn manifest(&self, digest: Digest) -> Option<Manifest>;
    fn recent_operations(&self, job_id: &str, limit: u32) -> Vec<(OperationRow, Manifest)>;
    fn list_operations(&self, limit: u32) -> Vec<OperationRow>;
    fn operation_totals(&self) -> OperationTotals;
    fn touch_operations(&self, digests: &[Digest], at: Timestamp) -> ();
    fn unused_operations(&self, before: Timestamp, limit: u32) -> Vec<OperationRow>;
    fn evict(&self, digest: Digest, reason: &str, at: Timestamp) -> ();
    fn evict_job(&self, job: &JobName, reason: &str, at: Timestamp) -> u64;
    fn clear_operations(&self, reason: &str, at: Timestamp) -> u64;
    fn save_cache(&self, entry: &CacheRow) -> Saved;
    fn restore_cache(&self, wanted: &CacheWanted<'_>, reader: &CacheUser, at: Timestamp) -> Option<CacheRow>;
    fn cache_reads(&self, scope: &str, key: &str, limit: u32) -> Vec<CacheRead>;
    fn list_caches(&self, limit: u32) -> Vec<CacheRow>;
    fn evict_cache(&self, scope: &str, key: &str, reason: &str, at: Timestamp) -> ();
    fn clear_caches(&self, reason: &str, at: Timestamp) -> u64;
    fn referenced_blobs(&self) -> BTreeSet<Digest>;
}
