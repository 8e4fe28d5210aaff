//! A store in memory. It ships: simulations and tests of other crates run on it, and it passes the same contract
//! as the others. It is gone with the process.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::Fact;
use engine::fact::What;
use engine::operation::Manifest;
use graph::{AttemptNumber, AttemptReport, BuildId, Digest, Graph, JobName, Timestamp, Trust};

use crate::audit::{self, AuditEntry, AuditFilter, AuditRow};
use crate::cache::{CacheRead, CacheRow, CacheTotals, CacheUser, CacheWanted, Saved};
use crate::chunk::{self, LogChunk, LogChunks};
use crate::claim::{Claim, Claimant, Marks};
use crate::graphs;
use crate::leadership::{Fence, Leadership, Looked, MarkLock};
use crate::record::{self, Expect, NewRecord, Record, SOURCE_KIND, Version};
use crate::rows::projection::{HistoryKey, Nowhere, Work, Working, sorted_artifacts};
use crate::rows::{
    ArtifactRow, AttemptRow, BuildRow, Eviction, GateRow, JobRow, OperationRow, OperationTotals, Replaced, TestRow,
};
use crate::store::{
    BuildFilter, Commits, Deleted, JOURNAL_FACTS_MAX, Journal, PAGE_ROWS_MAX, Sequence, Store, StoreError,
    TOMBSTONES_MAX, TRIED_MAX,
};

/// Everything in one process's memory, behind one lock.
#[derive(Default)]
pub struct MemoryStore {
    kept: Mutex<Kept>,
    marks: Marks,
    journal: Journal,
    is_led: Arc<AtomicBool>,
    fence: Arc<Fence>,
}

#[derive(Default)]
struct Kept {
    last_build: u64,
    /// The last number of each project.
    last_numbers: BTreeMap<String, u64>,
    epoch: u64,
    /// The appends, with the build and the place in it of each fact.
    journal: BTreeMap<u64, Vec<(BuildId, usize)>>,
    last_version: u64,
    /// By kind and key.
    records: BTreeMap<(String, String), Record>,
    audit: BTreeMap<u64, AuditEntry>,
    chunks: BTreeMap<(BuildId, u64), Vec<u8>>,
    facts: BTreeMap<BuildId, Vec<Fact>>,
    rows: Working,
    graphs: HashMap<BuildId, Arc<Graph>>,
    artifacts: BTreeMap<BuildId, Vec<ArtifactRow>>,
    /// By digest and the trust's word.
    operations: BTreeMap<(Digest, &'static str), OperationRow>,
    manifests: BTreeMap<Digest, Manifest>,
    /// Operations without a result, and when they were tried.
    tried: BTreeMap<Digest, Timestamp>,
    /// By scope and key.
    caches: BTreeMap<(String, String), CacheRow>,
    reads: BTreeMap<(String, String, CacheUser), Timestamp>,
}

impl MemoryStore {
    /// An empty store without a journal.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store with or without a journal.
    #[must_use]
    pub fn with_journal(journal: Journal) -> Self {
        Self { journal, ..Self::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_build<T>(&self, build: BuildId, rows: impl FnOnce(&Work) -> Vec<T>) -> Vec<T> {
        self.kept().rows.builds.get(&build).map(rows).unwrap_or_default()
    }
}

/// The trust's word in rows.
pub(crate) fn trust_word(trust: Trust) -> &'static str {
    match trust {
        Trust::Trusted => "trusted",
        Trust::Untrusted => "untrusted",
    }
}

/// Whose operations a build of this trust may reuse, the best first.
pub(crate) fn trusts_seen(trust: Trust) -> &'static [Trust] {
    match trust {
        Trust::Trusted => &[Trust::Trusted],
        Trust::Untrusted => &[Trust::Untrusted, Trust::Trusted],
    }
}

fn page<T>(mut rows: Vec<T>, limit: u32) -> Vec<T> {
    rows.truncate(limit.min(PAGE_ROWS_MAX) as usize);
    rows
}

impl Kept {
    fn evict_where(&mut self, is_meant: impl Fn(&OperationRow) -> bool, reason: &str, at: Timestamp) -> u64 {
        let mut evicted = 0;
        for row in self.operations.values_mut().filter(|row| row.evicted.is_none() && is_meant(row)) {
            row.evicted = Some(Eviction { at, reason: reason.to_owned() });
            evicted += 1;
        }
        let mut tombstones: Vec<_> = self
            .operations
            .iter()
            .filter_map(|(&key, row)| row.evicted.as_ref().map(|tombstone| (tombstone.at, key)))
            .collect();
        tombstones.sort_unstable();
        let too_many = tombstones.len().saturating_sub(TOMBSTONES_MAX as usize);
        for (_, key) in &tombstones[..too_many] {
            self.operations.remove(key);
        }
        if too_many > 0 {
            self.forget_manifests();
        }
        evicted
    }

    /// Removes what nothing is made of any more.
    fn forget_manifests(&mut self) {
        let kept: HashSet<_> = self.operations.keys().map(|key| key.0).collect();
        self.manifests.retain(|digest, _| kept.contains(digest) || self.tried.contains_key(digest));
    }

    fn operations_by<K: Ord>(&self, key: impl Fn(&OperationRow) -> K) -> Vec<OperationRow> {
        let mut rows: Vec<_> = self.operations.values().cloned().collect();
        rows.sort_by_key(|row| (key(row), row.digest, trust_word(row.trust)));
        rows
    }

    fn evict_caches_where(&mut self, is_meant: impl Fn(&CacheRow) -> bool, reason: &str, at: Timestamp) -> u64 {
        let mut evicted = 0;
        for row in self.caches.values_mut().filter(|row| row.evicted.is_none() && is_meant(row)) {
            row.evicted = Some(Eviction { at, reason: reason.to_owned() });
            evicted += 1;
        }
        evicted
    }

    fn find_cache(&self, wanted: &CacheWanted<'_>) -> Option<(String, String)> {
        let live = || self.caches.values().filter(|row| row.evicted.is_none());
        wanted.scopes.iter().find_map(|scope| {
            let exact = live().find(|row| row.scope == *scope && row.key == wanted.key);
            let newest = |prefix: &&str| {
                live()
                    .filter(|row| row.scope == *scope && row.key.starts_with(prefix))
                    .max_by_key(|row| (row.at, &row.key))
            };
            let row = exact.or_else(|| wanted.prefixes.iter().find_map(newest))?;
            Some((row.scope.clone(), row.key.clone()))
        })
    }

    /// The builds that pass `filter`, newest first, below `before`.
    fn listed<'k>(
        &'k self,
        filter: &'k BuildFilter,
        before: Option<BuildId>,
        limit: u32,
    ) -> impl Iterator<Item = &'k Work> {
        let passes = move |row: &BuildRow| {
            before.is_none_or(|before| row.build < before)
                && filter.branch.as_ref().is_none_or(|branch| row.event.branch.as_ref() == Some(branch))
                && filter.kind.is_none_or(|kind| row.event.kind == kind)
                && filter.verdict.is_none_or(|verdict| row.verdict.word() == verdict.word())
                && filter.pipeline.as_ref().is_none_or(|pipeline| row.pipeline == *pipeline)
                && filter.project.as_ref().is_none_or(|project| row.origin.project == *project)
                && match filter.commits() {
                    Some(Commits::Whole(commit)) => row.event.commit == commit,
                    Some(Commits::From(beginning, _)) => row.event.commit.starts_with(beginning),
                    None => true,
                }
        };
        let newest_first = self.facts.keys().rev().filter_map(|build| self.rows.builds.get(build));
        newest_first.filter(move |work| passes(&work.build.row)).take(limit.min(PAGE_ROWS_MAX) as usize)
    }

    fn referenced_blobs(&self) -> BTreeSet<Digest> {
        let artifacts = self.artifacts.values().flatten().map(|row| row.artifact.digest);
        let live = self.operations.values().filter(|row| row.evicted.is_none());
        let operations = live.flat_map(|row| row.artifacts.values().map(|artifact| artifact.digest));
        let caches = self.caches.values().filter(|row| row.evicted.is_none()).flat_map(|row| row.blobs.iter().copied());
        artifacts.chain(operations).chain(caches).chain(self.referenced_sources()).collect()
    }

    fn referenced_sources(&self) -> BTreeSet<Digest> {
        let builds = self.rows.builds.values().filter_map(|work| work.build.row.origin.source);
        let kept = self.records.keys().filter(|(kind, _)| kind == SOURCE_KIND);
        builds.chain(kept.filter_map(|(_, key)| key.parse().ok())).collect()
    }

    fn put_record(&mut self, kind: &str, key: &str, body: &[u8], at: Timestamp) -> Version {
        self.last_version += 1;
        let version = Version(self.last_version);
        let (kind, key) = (kind.to_owned(), key.to_owned());
        let record = Record { kind: kind.clone(), key: key.clone(), version, body: body.to_owned(), at };
        self.records.insert((kind, key), record);
        version
    }

    fn version(&self, kind: &str, key: &str) -> Option<Version> {
        self.records.get(&(kind.to_owned(), key.to_owned())).map(|record| record.version)
    }

    fn reports(&self, build: BuildId, job: Option<&JobName>) -> Vec<(&AttemptRow, &AttemptReport)> {
        let (Some(work), Some(facts)) = (self.rows.builds.get(&build), self.facts.get(&build)) else {
            return Vec::new();
        };
        let attempts = work.attempts.values().map(|slot| &slot.row);
        attempts
            .filter(|row| job.is_none_or(|job| row.job == *job))
            .filter_map(|row| {
                let place = usize::try_from(row.ended.as_ref()?.fact).ok()?;
                match &facts.get(place)?.what {
                    What::AttemptFinished { report, .. } => Some((row, &**report)),
                    _ => None,
                }
            })
            .collect()
    }
}

impl Store for MemoryStore {
    fn reserve_build(&self) -> Result<BuildId, StoreError> {
        let mut kept = self.kept();
        kept.last_build += 1;
        Ok(BuildId(kept.last_build))
    }

    fn append(&self, facts: &[Fact]) -> Result<(), StoreError> {
        if facts.is_empty() {
            return Ok(());
        }
        // There is one store, and so no other to lead.
        self.fence.check()?;
        let mut guard = self.kept();
        let kept = &mut *guard;
        // Looked at first, so that nothing of a refused append is there.
        let mut created = HashSet::new();
        for fact in facts {
            if matches!(fact.what, What::BuildCreated(_)) {
                if !created.insert(fact.build) || kept.rows.builds.contains_key(&fact.build) {
                    return Err(StoreError::NotEmpty);
                }
            } else if !created.contains(&fact.build) && !kept.rows.builds.contains_key(&fact.build) {
                return Err(StoreError::NoBuild(fact.build));
            }
        }
        let mut brought = Vec::new();
        for fact in facts {
            kept.rows.take_up(&mut Nowhere, fact.build, Some(fact))?;
            let digest = match &fact.what {
                What::Evaluated { graph, .. } => {
                    kept.graphs.insert(fact.build, Arc::clone(graph));
                    Some(graphs::digest_of(graph).0)
                }
                _ => None,
            };
            kept.rows.apply(&mut Nowhere, fact, digest)?;
            let of_build = kept.facts.entry(fact.build).or_default();
            brought.push((fact.build, of_build.len()));
            of_build.push(fact.clone());
        }
        if self.journal == Journal::Kept {
            let sequence = kept.journal.last_key_value().map_or(1, |(last, _)| last + 1);
            kept.journal.insert(sequence, brought);
        }
        for row in kept.rows.taken().artifacts {
            kept.artifacts.entry(row.build).or_default().push(row);
        }
        Ok(())
    }

    fn facts(&self, build: BuildId) -> Result<Vec<Fact>, StoreError> {
        Ok(self.kept().facts.get(&build).cloned().unwrap_or_default())
    }

    fn unfinished(&self) -> Result<Vec<BuildId>, StoreError> {
        let kept = self.kept();
        let running = |build: &&BuildId| kept.rows.builds.get(build).is_some_and(|w| w.build.row.finished.is_none());
        Ok(kept.facts.keys().filter(running).copied().collect())
    }

    fn claim(&self, build: BuildId) -> Result<Option<Claim>, StoreError> {
        Ok(Claim::in_memory(build, &self.marks))
    }

    fn claimant(&self, build: BuildId) -> Result<Option<Claimant>, StoreError> {
        let is_claimed = self.marks.lock().unwrap_or_else(PoisonError::into_inner).contains(&build);
        Ok(is_claimed.then(|| Claimant { process: Some(std::process::id()) }))
    }

    fn delete_build(&self, build: BuildId) -> Result<Option<Deleted>, StoreError> {
        if self.claimant(build)?.is_some() {
            return Err(StoreError::Running(build));
        }
        let mut kept = self.kept();
        if kept.rows.builds.remove(&build).is_none() {
            return Ok(None);
        }
        kept.facts.remove(&build);
        kept.graphs.remove(&build);
        kept.reads.retain(|key, _| key.2.build != build);
        let artifacts = kept.artifacts.remove(&build).unwrap_or_default();
        let referenced = kept.referenced_blobs();
        let blobs = artifacts.into_iter().map(|row| row.artifact.digest);
        Ok(Some(Deleted { blobs: blobs.filter(|blob| !referenced.contains(blob)).collect() }))
    }

    fn reserve_number(&self, project: &str) -> Result<u64, StoreError> {
        let mut kept = self.kept();
        let last = kept.last_numbers.entry(project.to_owned()).or_default();
        *last += 1;
        Ok(*last)
    }

    fn build_numbered(&self, project: &str, number: u64) -> Result<Option<BuildId>, StoreError> {
        let kept = self.kept();
        if project.is_empty() {
            return Ok(None);
        }
        let rows = kept.facts.keys().filter_map(|build| kept.rows.builds.get(build)).map(|work| &work.build.row);
        let mut found = rows.filter(|row| row.origin.project == project && row.origin.number == number);
        Ok(found.next().map(|row| row.build))
    }

    fn journal(&self, after: Sequence, limit: u32) -> Result<Vec<(Sequence, Vec<Fact>)>, StoreError> {
        let kept = self.kept();
        let (mut page, mut facts) = (Vec::new(), 0);
        let rows = kept.journal.range(after.0.saturating_add(1)..).take(limit.min(PAGE_ROWS_MAX) as usize);
        for (&sequence, brought) in rows {
            let find = |&(build, place): &(BuildId, usize)| kept.facts.get(&build)?.get(place).cloned();
            let brought: Vec<_> = brought.iter().filter_map(find).collect();
            facts += brought.len();
            page.push((Sequence(sequence), brought));
            if facts >= JOURNAL_FACTS_MAX {
                break;
            }
        }
        Ok(page)
    }

    fn last_sequence(&self) -> Result<Sequence, StoreError> {
        Ok(Sequence(self.kept().journal.last_key_value().map_or(0, |(&last, _)| last)))
    }

    fn prune_journal(&self, before: Sequence) -> Result<u64, StoreError> {
        let mut kept = self.kept();
        let Some((&last, _)) = kept.journal.last_key_value() else { return Ok(0) };
        let later = kept.journal.split_off(&before.0.min(last));
        Ok(std::mem::replace(&mut kept.journal, later).len() as u64)
    }

    fn lead(&self, wait: Duration) -> Result<Option<Leadership>, StoreError> {
        let Some(lock) = MarkLock::take(&self.is_led, wait) else { return Ok(None) };
        let mut kept = self.kept();
        kept.epoch += 1;
        Ok(Some(Leadership::begin(kept.epoch, &self.fence, lock)))
    }

    fn depose(&self, _: Duration) -> Result<Looked, StoreError> {
        Ok(Looked::LeftAlone)
    }

    fn record(&self, kind: &str, key: &str) -> Result<Option<Record>, StoreError> {
        Ok(self.kept().records.get(&(kind.to_owned(), key.to_owned())).cloned())
    }

    fn put_record(
        &self,
        kind: &str,
        key: &str,
        body: &[u8],
        expect: Expect,
        at: Timestamp,
    ) -> Result<Version, StoreError> {
        record::check_size(kind, key, body)?;
        let mut kept = self.kept();
        expect.check(kept.version(kind, key))?;
        Ok(kept.put_record(kind, key, body, at))
    }

    fn put_records(&self, records: &[NewRecord<'_>], at: Timestamp) -> Result<(), StoreError> {
        records.iter().try_for_each(NewRecord::check_size)?;
        let mut kept = self.kept();
        for NewRecord { kind, key, body } in records {
            kept.put_record(kind, key, body, at);
        }
        Ok(())
    }

    fn delete_record(&self, kind: &str, key: &str, expect: Expect) -> Result<bool, StoreError> {
        let mut kept = self.kept();
        expect.check(kept.version(kind, key))?;
        Ok(kept.records.remove(&(kind.to_owned(), key.to_owned())).is_some())
    }

    fn records(&self, kind: &str, after: Option<&str>, limit: u32) -> Result<Vec<Record>, StoreError> {
        let kept = self.kept();
        let of_kind = kept.records.values().filter(|record| record.kind == kind);
        let mut page =
            page(of_kind.filter(|record| after.is_none_or(|after| *record.key > *after)).cloned().collect(), limit);
        record::cut_page(&mut page);
        Ok(page)
    }

    fn append_audit(&self, entry: &AuditEntry) -> Result<u64, StoreError> {
        audit::check_size(entry)?;
        let mut kept = self.kept();
        let number = kept.audit.last_key_value().map_or(1, |(last, _)| last + 1);
        kept.audit.insert(number, entry.clone());
        Ok(number)
    }

    fn audit(&self, filter: &AuditFilter, before: Option<u64>, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let kept = self.kept();
        let passes = |entry: &AuditEntry| {
            filter.project.as_ref().is_none_or(|project| entry.project == *project)
                && filter.who.as_ref().is_none_or(|who| entry.who == *who)
        };
        let newest_first = kept.audit.iter().rev().filter(|(number, _)| before.is_none_or(|before| **number < before));
        let rows = newest_first.filter(|(_, entry)| passes(entry));
        let rows = rows.map(|(&number, entry)| AuditRow { number, entry: entry.clone() });
        Ok(rows.take(limit.min(PAGE_ROWS_MAX) as usize).collect())
    }

    fn prune_audit(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut kept = self.kept();
        let (count, last) = (kept.audit.len(), kept.audit.last_key_value().map_or(0, |(&last, _)| last));
        kept.audit.retain(|&number, entry| entry.at >= before || number == last);
        Ok((count - kept.audit.len()) as u64)
    }

    fn builds(&self, filter: &BuildFilter, before: Option<BuildId>, limit: u32) -> Result<Vec<BuildRow>, StoreError> {
        Ok(self.kept().listed(filter, before, limit).map(|work| work.build.row.clone()).collect())
    }

    fn build_versions(
        &self,
        filter: &BuildFilter,
        before: Option<BuildId>,
        limit: u32,
    ) -> Result<Vec<(BuildId, u64)>, StoreError> {
        Ok(self.kept().listed(filter, before, limit).map(|work| (work.build.row.build, work.facts)).collect())
    }

    fn build(&self, build: BuildId) -> Result<Option<BuildRow>, StoreError> {
        Ok(self.kept().rows.builds.get(&build).map(|work| work.build.row.clone()))
    }

    fn graph(&self, build: BuildId) -> Result<Option<Arc<Graph>>, StoreError> {
        Ok(self.kept().graphs.get(&build).cloned())
    }

    fn jobs(&self, build: BuildId) -> Result<Vec<JobRow>, StoreError> {
        Ok(self.of_build(build, |work| work.jobs.values().map(|slot| slot.row.clone()).collect()))
    }

    fn attempts(&self, build: BuildId, job: Option<&JobName>) -> Result<Vec<AttemptRow>, StoreError> {
        Ok(self.of_build(build, |work| {
            let rows = work.attempts.values().map(|slot| &slot.row);
            rows.filter(|row| job.is_none_or(|job| row.job == *job)).cloned().collect()
        }))
    }

    fn reports(
        &self,
        build: BuildId,
        job: Option<&JobName>,
    ) -> Result<Vec<(AttemptNumber, AttemptReport)>, StoreError> {
        let kept = self.kept();
        Ok(kept.reports(build, job).into_iter().map(|(row, report)| (row.attempt, report.clone())).collect())
    }

    fn tests(&self, build: BuildId) -> Result<Vec<TestRow>, StoreError> {
        let kept = self.kept();
        let reports = kept.reports(build, None).into_iter();
        Ok(reports.flat_map(|(row, report)| crate::rows::tests_of(row, report)).collect())
    }

    fn artifacts(&self, build: BuildId) -> Result<Vec<ArtifactRow>, StoreError> {
        Ok(sorted_artifacts(self.kept().artifacts.get(&build).cloned().unwrap_or_default()))
    }

    fn gates(&self, build: BuildId) -> Result<Vec<GateRow>, StoreError> {
        Ok(self.of_build(build, |work| work.gates.values().map(|slot| slot.row.clone()).collect()))
    }

    fn durations(&self, project: &str, names: &[JobName]) -> Result<BTreeMap<JobName, u64>, StoreError> {
        let kept = self.kept();
        let key = |job: &JobName| HistoryKey { project: project.to_owned(), job: job.clone() };
        let usual = |name: &JobName| kept.rows.histories.get(&key(name))?.row.usual_ms();
        Ok(names.iter().filter_map(|name| Some((name.clone(), usual(name)?))).collect())
    }

    fn record_operations(&self, operations: &[(OperationRow, &Manifest)]) -> Result<(), StoreError> {
        let mut kept = self.kept();
        for (row, manifest) in operations {
            let key = (row.digest, trust_word(row.trust));
            let replaced = kept.operations.remove(&key).and_then(|before| match before.evicted {
                Some(eviction) => Some(Replaced { build: before.build, eviction }),
                None => before.replaced,
            });
            kept.operations.insert(key, OperationRow { replaced, ..row.clone() });
            kept.manifests.entry(row.digest).or_insert_with(|| (*manifest).clone());
        }
        Ok(())
    }

    fn record_tried(&self, tried: &[(Digest, &Manifest)], at: Timestamp) -> Result<(), StoreError> {
        let mut kept = self.kept();
        for (digest, manifest) in tried {
            kept.tried.insert(*digest, at);
            kept.manifests.entry(*digest).or_insert_with(|| (*manifest).clone());
        }
        let mut by_age: Vec<_> = kept.tried.iter().map(|(&digest, &at)| (at, digest)).collect();
        by_age.sort_unstable();
        let too_many = by_age.len().saturating_sub(TRIED_MAX as usize);
        for (_, digest) in &by_age[..too_many] {
            kept.tried.remove(digest);
        }
        if too_many > 0 {
            kept.forget_manifests();
        }
        Ok(())
    }

    fn operations(&self, digests: &[Digest], trust: Trust) -> Result<BTreeMap<Digest, OperationRow>, StoreError> {
        let kept = self.kept();
        let find = |digest: &Digest| {
            let rows = trusts_seen(trust).iter().filter_map(|&seen| kept.operations.get(&(*digest, trust_word(seen))));
            rows.into_iter().find(|row| row.evicted.is_none()).cloned()
        };
        Ok(digests.iter().filter_map(|digest| Some((*digest, find(digest)?))).collect())
    }

    fn evictions(&self, digests: &[Digest]) -> Result<BTreeMap<Digest, Timestamp>, StoreError> {
        let kept = self.kept();
        let last = |&digest: &Digest| {
            let row = |trust| kept.operations.get(&(digest, trust_word(trust)));
            let tombstones =
                [Trust::Trusted, Trust::Untrusted].into_iter().filter_map(|trust| row(trust)?.evicted.as_ref());
            Some((digest, tombstones.map(|tombstone| tombstone.at).max()?))
        };
        Ok(digests.iter().filter_map(last).collect())
    }

    fn manifest(&self, digest: Digest) -> Result<Option<Manifest>, StoreError> {
        Ok(self.kept().manifests.get(&digest).cloned())
    }

    fn recent_operations(&self, job_id: &str, limit: u32) -> Result<Vec<(OperationRow, Manifest)>, StoreError> {
        let kept = self.kept();
        let mut rows = kept.operations_by(|row| Reverse(row.at));
        rows.retain(|row| row.job.id() == job_id);
        let with_manifest = |row: OperationRow| {
            let manifest = kept.manifests.get(&row.digest).cloned().unwrap_or_default();
            (row, manifest)
        };
        Ok(page(rows, limit).into_iter().map(with_manifest).collect())
    }

    fn list_operations(&self, limit: u32) -> Result<Vec<OperationRow>, StoreError> {
        Ok(page(self.kept().operations_by(|row| Reverse(row.at)), limit))
    }

    fn operation_totals(&self) -> Result<OperationTotals, StoreError> {
        let mut totals = OperationTotals::default();
        for row in self.kept().operations.values() {
            if row.evicted.is_some() {
                totals.evicted += 1;
            } else {
                totals.live += 1;
                totals.artifact_bytes += row.artifacts.values().map(|artifact| artifact.bytes).sum::<u64>();
            }
        }
        Ok(totals)
    }

    fn touch_operations(&self, digests: &[Digest], at: Timestamp) -> Result<(), StoreError> {
        let mut kept = self.kept();
        for digest in digests {
            for trust in [Trust::Trusted, Trust::Untrusted] {
                if let Some(row) = kept.operations.get_mut(&(*digest, trust_word(trust))) {
                    row.used_at = row.used_at.max(at);
                }
            }
        }
        Ok(())
    }

    fn unused_operations(&self, before: Timestamp, limit: u32) -> Result<Vec<OperationRow>, StoreError> {
        let mut rows = self.kept().operations_by(|row| row.used_at);
        rows.retain(|row| row.evicted.is_none() && row.used_at < before);
        Ok(page(rows, limit))
    }

    fn evict(&self, digest: Digest, reason: &str, at: Timestamp) -> Result<(), StoreError> {
        self.kept().evict_where(|row| row.digest == digest, reason, at);
        Ok(())
    }

    fn evict_job(&self, job: &JobName, reason: &str, at: Timestamp) -> Result<u64, StoreError> {
        let is_meant = |row: &OperationRow| row.job == *job || row.job.id() == job.as_str();
        Ok(self.kept().evict_where(is_meant, reason, at))
    }

    fn clear_operations(&self, reason: &str, at: Timestamp) -> Result<u64, StoreError> {
        Ok(self.kept().evict_where(|_| true, reason, at))
    }

    fn save_cache(&self, entry: &CacheRow) -> Result<Saved, StoreError> {
        let mut kept = self.kept();
        let key = (entry.scope.clone(), entry.key.clone());
        if kept.caches.get(&key).is_some_and(|row| row.evicted.is_none()) {
            return Ok(Saved::Kept);
        }
        kept.reads.retain(|read, _| (&read.0, &read.1) != (&key.0, &key.1));
        kept.caches.insert(key, entry.clone());
        Ok(Saved::Written)
    }

    fn restore_cache(
        &self,
        wanted: &CacheWanted<'_>,
        reader: &CacheUser,
        at: Timestamp,
    ) -> Result<Option<CacheRow>, StoreError> {
        let mut guard = self.kept();
        let kept = &mut *guard;
        let Some(key) = kept.find_cache(wanted) else { return Ok(None) };
        kept.reads.insert((key.0.clone(), key.1.clone(), reader.clone()), at);
        Ok(kept.caches.get_mut(&key).map(|row| {
            row.used_at = row.used_at.max(at);
            row.clone()
        }))
    }

    fn cache_reads(&self, scope: &str, key: &str, limit: u32) -> Result<Vec<CacheRead>, StoreError> {
        let kept = self.kept();
        let of_key = kept.reads.iter().filter(|(read, _)| read.0 == scope && read.1 == key);
        let mut reads: Vec<_> = of_key.map(|(read, &at)| CacheRead { reader: read.2.clone(), at }).collect();
        reads.sort_by(|left, right| right.at.cmp(&left.at).then_with(|| left.reader.cmp(&right.reader)));
        Ok(page(reads, limit))
    }

    fn list_caches(&self, limit: u32) -> Result<Vec<CacheRow>, StoreError> {
        let mut rows: Vec<_> = self.kept().caches.values().cloned().collect();
        rows.sort_by_key(|row| Reverse(row.at));
        Ok(page(rows, limit))
    }

    fn unused_caches(&self, before: Timestamp, limit: u32) -> Result<Vec<CacheRow>, StoreError> {
        let mut rows: Vec<_> = self.kept().caches.values().cloned().collect();
        rows.retain(|row| row.evicted.is_none() && row.used_at < before);
        rows.sort_by(|a, b| (a.used_at, &a.scope, &a.key).cmp(&(b.used_at, &b.scope, &b.key)));
        Ok(page(rows, limit))
    }

    fn cache_totals(&self) -> Result<CacheTotals, StoreError> {
        self.cache_totals_of("")
    }

    fn cache_totals_of(&self, scope_prefix: &str) -> Result<CacheTotals, StoreError> {
        let kept = self.kept();
        let mut totals = CacheTotals::default();
        let is_meant = |row: &&CacheRow| row.evicted.is_none() && row.scope.starts_with(scope_prefix);
        for row in kept.caches.values().filter(is_meant) {
            totals = CacheTotals { live: totals.live + 1, bytes: totals.bytes + row.bytes };
        }
        Ok(totals)
    }

    fn evict_cache(&self, scope: &str, key: &str, reason: &str, at: Timestamp) -> Result<(), StoreError> {
        self.kept().evict_caches_where(|row| row.scope == scope && row.key == key, reason, at);
        Ok(())
    }

    fn clear_caches(&self, reason: &str, at: Timestamp) -> Result<u64, StoreError> {
        Ok(self.kept().evict_caches_where(|_| true, reason, at))
    }

    fn referenced_blobs(&self) -> Result<BTreeSet<Digest>, StoreError> {
        Ok(self.kept().referenced_blobs())
    }

    fn referenced_sources(&self) -> Result<BTreeSet<Digest>, StoreError> {
        Ok(self.kept().referenced_sources())
    }
}

impl LogChunks for MemoryStore {
    fn append_log_chunks(&self, chunks: &[(BuildId, Vec<u8>)]) -> Result<Vec<u64>, StoreError> {
        chunk::check_size(chunks)?;
        let mut kept = self.kept();
        let mut numbers = Vec::with_capacity(chunks.len());
        for (build, body) in chunks {
            let last = kept.chunks.range((*build, 0)..=(*build, u64::MAX)).next_back();
            let number = last.map_or(1, |(key, _)| key.1 + 1);
            kept.chunks.insert((*build, number), body.clone());
            numbers.push(number);
        }
        Ok(numbers)
    }

    fn log_chunks(&self, build: BuildId, after: u64, limit: u32) -> Result<Vec<LogChunk>, StoreError> {
        let kept = self.kept();
        let (mut page, mut bytes) = (Vec::new(), 0);
        let rows = kept.chunks.range((build, after.saturating_add(1))..=(build, u64::MAX));
        for (key, body) in rows.take(limit.min(PAGE_ROWS_MAX) as usize) {
            bytes += body.len();
            page.push(LogChunk { number: key.1, body: body.clone() });
            if bytes >= chunk::PAGE_BYTES_MAX {
                break;
            }
        }
        Ok(page)
    }

    fn delete_log_chunks(&self, build: BuildId) -> Result<u64, StoreError> {
        let mut kept = self.kept();
        let before = kept.chunks.len();
        kept.chunks.retain(|key, _| key.0 != build);
        Ok((before - kept.chunks.len()) as u64)
    }
}
