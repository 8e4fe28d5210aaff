//! Which fact changes which row.
//!
//! A [`Working`] holds the rows of the builds at hand; rows it does not hold yet come from a [`Source`]. A store
//! applies the facts of one append, takes the rows that changed and writes each of them once. Facts that
//! contradict one another (the same job ended twice) give some row, the same one however they are split over
//! appends, never an error.

use std::collections::{BTreeMap, HashMap};

use engine::Fact;
use engine::fact::What;
use graph::{
    Artifact, AttemptNumber, AttemptReport, BuildId, Digest, JobName, Outcome, Severity, TestOutcome, Timestamp,
    Verdict,
};

use super::{
    ArtifactRow, AttemptEnd, AttemptRow, BuildRow, Counts, GateAnswer, GateRow, JobRow, JobState, ReusedFrom, count_of,
    reused_of,
};
use crate::store::StoreError;

/// How many running times of a job are kept.
pub(crate) const HISTORY_MAX: usize = 10;

/// Where rows come from that are not at hand.
pub(crate) trait Source {
    /// The build's row and how many of its facts are projected.
    fn build(&mut self, build: BuildId) -> Result<Option<(BuildRow, u64)>, StoreError>;
    fn job(&mut self, build: BuildId, name: &JobName) -> Result<Option<JobRow>, StoreError>;
    fn attempt(&mut self, build: BuildId, attempt: AttemptNumber) -> Result<Option<AttemptRow>, StoreError>;
    fn gate(&mut self, build: BuildId, job: &JobName) -> Result<Option<GateRow>, StoreError>;
    fn history(&mut self, key: &HistoryKey) -> Result<Option<History>, StoreError>;
}

/// A source without rows.
pub(crate) struct Nowhere;

impl Source for Nowhere {
    fn build(&mut self, _: BuildId) -> Result<Option<(BuildRow, u64)>, StoreError> {
        Ok(None)
    }
    fn job(&mut self, _: BuildId, _: &JobName) -> Result<Option<JobRow>, StoreError> {
        Ok(None)
    }
    fn attempt(&mut self, _: BuildId, _: AttemptNumber) -> Result<Option<AttemptRow>, StoreError> {
        Ok(None)
    }
    fn gate(&mut self, _: BuildId, _: &JobName) -> Result<Option<GateRow>, StoreError> {
        Ok(None)
    }
    fn history(&mut self, _: &HistoryKey) -> Result<Option<History>, StoreError> {
        Ok(None)
    }
}

/// Whose running times: jobs of different projects have nothing in common but their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HistoryKey {
    pub project: String,
    pub job: JobName,
}

/// The running times of the last attempts at a job that passed, in milliseconds, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History(pub Vec<u64>);

impl History {
    fn push(&mut self, duration_ms: u64) {
        if self.0.len() == HISTORY_MAX {
            self.0.remove(0);
        }
        self.0.push(duration_ms);
    }

    /// The median; the lower one of two.
    pub fn usual_ms(&self) -> Option<u64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len().checked_sub(1)? / 2).copied()
    }
}

/// A row, and whether it is among the changes already.
#[derive(Clone, Debug)]
pub(crate) struct Slot<T> {
    pub row: T,
    is_changed: bool,
}

impl<T> Slot<T> {
    fn clean(row: T) -> Self {
        Self { row, is_changed: false }
    }
}

/// Whether all rows of a build are at hand, so that one that is not does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Whole,
    Part,
}

/// When a build's row came to hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakenUp {
    /// Earlier, or with its creation: all its facts are projected.
    Before,
    /// It was read just now; facts may be waiting to be projected.
    JustNow,
}

/// The rows of one build that are at hand.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub build: Slot<BuildRow>,
    /// How many facts are projected; the place of the next one.
    pub facts: u64,
    pub jobs: BTreeMap<JobName, Slot<JobRow>>,
    pub attempts: BTreeMap<AttemptNumber, Slot<AttemptRow>>,
    pub gates: BTreeMap<JobName, Slot<GateRow>>,
    extent: Extent,
}

/// What changed since [`Working::taken`], each once. Artifacts only ever come to be.
#[derive(Default)]
pub(crate) struct Changes {
    pub created: Vec<BuildId>,
    pub builds: Vec<BuildId>,
    pub jobs: Vec<(BuildId, JobName)>,
    pub attempts: Vec<(BuildId, AttemptNumber)>,
    pub gates: Vec<(BuildId, JobName)>,
    pub artifacts: Vec<ArtifactRow>,
    pub histories: Vec<HistoryKey>,
}

/// The rows at hand.
#[derive(Default)]
pub(crate) struct Working {
    pub builds: HashMap<BuildId, Work>,
    pub histories: HashMap<HistoryKey, Slot<History>>,
    changes: Changes,
    rows: usize,
    pending: usize,
}

/// How the store names the graph of a `What::Evaluated`; asked only for those.
pub(crate) type GraphDigest = Option<Digest>;

impl Working {
    /// Forgets everything, changes too.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Brings builds to hand with all that they have: how many facts each row shows stands beside it.
    #[cfg(feature = "postgres")]
    pub fn adopt(
        &mut self,
        builds: Vec<(BuildRow, u64)>,
        jobs: Vec<JobRow>,
        attempts: Vec<AttemptRow>,
        gates: Vec<GateRow>,
    ) {
        self.rows += builds.len() + jobs.len() + attempts.len() + gates.len();
        for (row, facts) in builds {
            let id = row.build;
            let (jobs, attempts, gates) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
            let work = Work { build: Slot::clean(row), facts, jobs, attempts, gates, extent: Extent::Whole };
            self.builds.insert(id, work);
        }
        for row in jobs {
            if let Some(work) = self.builds.get_mut(&row.build) {
                work.jobs.insert(row.name.clone(), Slot::clean(row));
            }
        }
        for row in attempts {
            if let Some(work) = self.builds.get_mut(&row.build) {
                work.attempts.insert(row.attempt, Slot::clean(row));
            }
        }
        for row in gates {
            if let Some(work) = self.builds.get_mut(&row.build) {
                work.gates.insert(row.job.clone(), Slot::clean(row));
            }
        }
    }

    /// Forgets one build, whose changes have been taken.
    pub fn forget(&mut self, build: BuildId) {
        if let Some(work) = self.builds.remove(&build) {
            self.rows -= 1 + work.jobs.len() + work.attempts.len() + work.gates.len();
        }
    }

    /// How many facts were projected since the changes were last taken.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// How many rows are at hand.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Takes the changes; the rows count as unchanged from now on.
    pub fn taken(&mut self) -> Changes {
        let changes = std::mem::take(&mut self.changes);
        self.pending = 0;
        for id in &changes.builds {
            if let Some(work) = self.builds.get_mut(id) {
                work.build.is_changed = false;
            }
        }
        for (id, name) in &changes.jobs {
            if let Some(slot) = self.builds.get_mut(id).and_then(|work| work.jobs.get_mut(name)) {
                slot.is_changed = false;
            }
        }
        for (id, attempt) in &changes.attempts {
            if let Some(slot) = self.builds.get_mut(id).and_then(|work| work.attempts.get_mut(attempt)) {
                slot.is_changed = false;
            }
        }
        for (id, job) in &changes.gates {
            if let Some(slot) = self.builds.get_mut(id).and_then(|work| work.gates.get_mut(job)) {
                slot.is_changed = false;
            }
        }
        for key in &changes.histories {
            if let Some(slot) = self.histories.get_mut(key) {
                slot.is_changed = false;
            }
        }
        changes
    }

    /// Makes sure that a build is at hand, if need be created by `fact`; says whether its row was read just now.
    pub fn take_up(
        &mut self,
        source: &mut impl Source,
        build: BuildId,
        fact: Option<&Fact>,
    ) -> Result<TakenUp, StoreError> {
        if self.builds.contains_key(&build) {
            return Ok(TakenUp::Before);
        }
        let (row, facts, extent) = match (source.build(build)?, fact) {
            (Some((row, facts)), _) => (row, facts, Extent::Part),
            (None, Some(Fact { at, what: What::BuildCreated(request), .. })) => {
                self.changes.created.push(build);
                (new_build(build, *at, request), 0, Extent::Whole)
            }
            (None, _) => return Err(StoreError::NoBuild(build)),
        };
        let work = Work {
            build: Slot::clean(row),
            facts,
            jobs: BTreeMap::new(),
            attempts: BTreeMap::new(),
            gates: BTreeMap::new(),
            extent,
        };
        self.builds.insert(build, work);
        self.rows += 1;
        Ok(match extent {
            Extent::Whole => TakenUp::Before,
            Extent::Part => TakenUp::JustNow,
        })
    }

    /// Projects `fact`, whose build is at hand, onto the rows.
    pub fn apply(
        &mut self,
        source: &mut impl Source,
        fact: &Fact,
        graph_digest: GraphDigest,
    ) -> Result<(), StoreError> {
        let Some(work) = self.builds.get_mut(&fact.build) else {
            return Err(StoreError::NoBuild(fact.build));
        };
        let place = work.facts;
        if place > 0 && matches!(fact.what, What::BuildCreated(_)) {
            return Err(StoreError::NotEmpty);
        }
        work.facts += 1;
        self.pending += 1;
        let mut at_hand = AtHand {
            id: fact.build,
            work,
            source,
            changes: &mut self.changes,
            histories: &mut self.histories,
            rows: &mut self.rows,
        };
        // Also to note how many facts are projected.
        at_hand.build();
        at_hand.apply(fact, place, graph_digest)
    }
}

fn new_build(build: BuildId, at: Timestamp, request: &engine::BuildRequest) -> BuildRow {
    BuildRow {
        build,
        pipeline: request.pipeline.clone(),
        name: String::new(),
        event: request.event.clone(),
        client: request.client.clone(),
        retry_of: request.options.retry_of,
        origin: request.origin.clone(),
        created: at,
        started: None,
        finished: None,
        verdict: Verdict::Running,
        canceled_by: None,
        graph: None,
        jobs: 0,
        errors: 0,
        warnings: 0,
        counts: Counts::default(),
        open_gates: 0,
    }
}

/// One build while a fact is projected.
struct AtHand<'a, S> {
    id: BuildId,
    work: &'a mut Work,
    source: &'a mut S,
    changes: &'a mut Changes,
    histories: &'a mut HashMap<HistoryKey, Slot<History>>,
    rows: &'a mut usize,
}

impl<S: Source> AtHand<'_, S> {
    fn apply(&mut self, fact: &Fact, place: u64, graph_digest: GraphDigest) -> Result<(), StoreError> {
        let at = fact.at;
        match &fact.what {
            // The row came to be when the build was looked up. Answers are for the engine only.
            What::BuildCreated(_) | What::Answered { .. } => {}
            What::Evaluated { graph, diagnostics, .. } => {
                let count = |severity| diagnostics.iter().filter(|found| found.severity == severity).count() as u64;
                let build = self.build();
                build.name.clone_from(&graph.name);
                build.graph = graph_digest;
                build.jobs = graph.jobs.keys().filter(|name| !name.is_barrier()).count() as u64;
                build.errors = count(Severity::Error);
                build.warnings = count(Severity::Warning);
            }
            What::GateOpened { job, prompt } => self.open_gate(job, prompt, at)?,
            What::GateAnswered { job, answer, by, reason } => {
                let (answer, by, reason) = (answer.clone(), by.clone(), reason.clone());
                self.answer_gate(job, GateAnswer { answer, by, reason, at })?;
            }
            What::OperationKnown { job, operation, .. } => self.job(job)?.operation = Some(*operation),
            What::OperationUnknown { job, .. } => self.job(job)?.operation = None,
            What::AttemptLeased { job, attempt, try_number, lease, worker, .. }
            | What::AttemptAdopted { job, attempt, try_number, lease, worker, .. } => {
                let row = AttemptRow {
                    build: self.id,
                    attempt: *attempt,
                    job: job.clone(),
                    try_number: *try_number,
                    lease: *lease,
                    worker: worker.clone(),
                    leased: at,
                    ended: None,
                };
                self.lease(row)?;
            }
            What::ChildMade { job, child, .. } => self.begin_child(job, *child, at)?,
            What::ChildFailed { job, retry_at, .. } => {
                self.reopen_job(job)?;
                self.job(job)?.retry_at = Some(*retry_at);
            }
            What::AttemptFinished { job, attempt, report, retry_at, .. } => {
                self.finish_attempt(*attempt, report, place)?;
                self.add_artifacts(job, *attempt, &report.artifacts);
                match retry_at {
                    Some(_) => self.reopen_job(job)?,
                    None => self.end_job(job, &report.outcome, report.finished, None)?,
                }
                let row = self.job(job)?;
                row.started = Some(report.started);
                row.retry_at = *retry_at;
                if matches!(report.outcome, Outcome::Passed { .. }) {
                    self.add_duration(job, report.finished.ms_since(report.started))?;
                }
            }
            What::JobEnded { job, outcome, how } => {
                let reused = reused_of(how);
                if let Some(reused) = reused {
                    self.add_artifacts(job, reused.attempt, &reused.artifacts);
                }
                self.end_job(job, outcome, at, reused.map(ReusedFrom::from))?;
            }
            What::JobRetried { job, .. } => {
                // Jobs that were skipped because of it show that until a fact says more of them.
                self.reopen_job(job)?;
                let build = self.build();
                build.verdict = Verdict::Running;
                build.finished = None;
            }
            What::JobCancelRequested { .. } | What::MadeUrgent { .. } => {}
            What::CancelRequested { by } => {
                self.build().canceled_by.get_or_insert_with(|| by.clone());
            }
            What::BuildEnded { verdict } => {
                let build = self.build();
                build.verdict = verdict.clone();
                build.finished = Some(at);
            }
        }
        Ok(())
    }

    fn build(&mut self) -> &mut BuildRow {
        let slot = &mut self.work.build;
        if !slot.is_changed {
            slot.is_changed = true;
            self.changes.builds.push(self.id);
        }
        &mut slot.row
    }

    /// The job's row, which will change.
    fn job(&mut self, name: &JobName) -> Result<&mut JobRow, StoreError> {
        if !self.work.jobs.contains_key(name) {
            let found = match self.work.extent {
                Extent::Whole => None,
                Extent::Part => self.source.job(self.id, name)?,
            };
            let row = found.unwrap_or_else(|| JobRow {
                build: self.id,
                name: name.clone(),
                state: JobState::Waiting,
                outcome: None,
                reused: None,
                attempts: 0,
                attempt: None,
                operation: None,
                started: None,
                finished: None,
                retry_at: None,
                child: None,
            });
            self.work.jobs.insert(name.clone(), Slot::clean(row));
            *self.rows += 1;
        }
        let slot = self.work.jobs.get_mut(name).expect("the job is at hand now");
        if !slot.is_changed {
            slot.is_changed = true;
            self.changes.jobs.push((self.id, name.clone()));
        }
        Ok(&mut slot.row)
    }

    fn lease(&mut self, row: AttemptRow) -> Result<(), StoreError> {
        let (at, attempt) = (row.leased, row.attempt);
        self.reopen_job(&row.job)?;
        let job = self.job(&row.job)?;
        job.attempts = job.attempts.saturating_add(1);
        job.attempt = Some(attempt);
        job.state = JobState::Running;
        job.started = Some(at);
        job.retry_at = None;
        if self.work.build.row.started.is_none() {
            self.build().started = Some(at);
        }
        let slot = Slot { row, is_changed: true };
        let is_known = self.work.attempts.insert(attempt, slot).is_some_and(|before| before.is_changed);
        if !is_known {
            self.changes.attempts.push((self.id, attempt));
            *self.rows += 1;
        }
        Ok(())
    }

    fn begin_child(&mut self, job: &JobName, child: BuildId, at: Timestamp) -> Result<(), StoreError> {
        self.reopen_job(job)?;
        let job = self.job(job)?;
        job.state = JobState::Running;
        job.started = Some(at);
        job.retry_at = None;
        job.child = Some(child);
        if self.work.build.row.started.is_none() {
            self.build().started = Some(at);
        }
        Ok(())
    }

    fn finish_attempt(&mut self, attempt: AttemptNumber, report: &AttemptReport, fact: u64) -> Result<(), StoreError> {
        if !self.work.attempts.contains_key(&attempt) {
            let found = match self.work.extent {
                Extent::Whole => None,
                Extent::Part => self.source.attempt(self.id, attempt)?,
            };
            // An attempt that nobody leased has no row.
            let Some(row) = found else { return Ok(()) };
            self.work.attempts.insert(attempt, Slot::clean(row));
            *self.rows += 1;
        }
        let slot = self.work.attempts.get_mut(&attempt).expect("the attempt is at hand now");
        if !slot.is_changed {
            slot.is_changed = true;
            self.changes.attempts.push((self.id, attempt));
        }
        let is_failed = |outcome| matches!(outcome, TestOutcome::Failed | TestOutcome::Errored);
        slot.row.ended = Some(AttemptEnd {
            outcome: match &report.outcome {
                Outcome::Passed { .. } => Outcome::passed(),
                other => other.clone(),
            },
            started: report.started,
            finished: report.finished,
            tests: report.tests.len() as u64,
            tests_failed: report.tests.iter().filter(|test| is_failed(test.outcome)).count() as u64,
            fact,
        });
        Ok(())
    }

    /// Takes back that the job has ended, if it has.
    fn reopen_job(&mut self, name: &JobName) -> Result<(), StoreError> {
        let row = self.job(name)?;
        row.state = JobState::Waiting;
        row.finished = None;
        row.retry_at = None;
        let was_reused = row.reused.take().is_some();
        if let Some(before) = row.outcome.take() {
            if !name.is_barrier() {
                let counts = &mut self.build().counts;
                *count_of(counts, &before) -= 1;
                counts.reused -= u64::from(was_reused);
            }
            if self.is_unanswered(name)? {
                self.build().open_gates += 1;
            }
        }
        Ok(())
    }

    fn end_job(
        &mut self,
        name: &JobName,
        outcome: &Outcome,
        at: Timestamp,
        reused: Option<ReusedFrom>,
    ) -> Result<(), StoreError> {
        self.reopen_job(name)?;
        let row = self.job(name)?;
        row.state = JobState::Ended;
        row.outcome = Some(outcome.clone());
        row.finished = Some(at);
        let is_reused = reused.is_some();
        row.reused = reused;
        if !name.is_barrier() {
            let counts = &mut self.build().counts;
            *count_of(counts, outcome) += 1;
            counts.reused += u64::from(is_reused);
        }
        // A build without open gates, as most are, asks for no row of one.
        if self.work.build.row.open_gates > 0 && self.is_unanswered(name)? {
            self.build().open_gates -= 1;
        }
        Ok(())
    }

    fn add_artifacts(&mut self, job: &JobName, attempt: AttemptNumber, artifacts: &BTreeMap<String, Artifact>) {
        for (name, artifact) in artifacts {
            self.changes.artifacts.push(ArtifactRow {
                build: self.id,
                job: job.clone(),
                attempt,
                name: name.clone(),
                artifact: artifact.clone(),
            });
        }
    }

    fn add_duration(&mut self, job: &JobName, duration_ms: u64) -> Result<(), StoreError> {
        let key = HistoryKey { project: self.work.build.row.origin.project.clone(), job: job.clone() };
        if !self.histories.contains_key(&key) {
            let history = self.source.history(&key)?.unwrap_or_default();
            self.histories.insert(key.clone(), Slot::clean(history));
            *self.rows += 1;
        }
        let slot = self.histories.get_mut(&key).expect("the history is at hand now");
        if !slot.is_changed {
            slot.is_changed = true;
            self.changes.histories.push(key);
        }
        slot.row.push(duration_ms);
        Ok(())
    }

    /// Whether the job's row says that it has ended.
    fn has_ended(&mut self, name: &JobName) -> Result<bool, StoreError> {
        if !self.work.jobs.contains_key(name)
            && self.work.extent == Extent::Part
            && let Some(row) = self.source.job(self.id, name)?
        {
            self.work.jobs.insert(name.clone(), Slot::clean(row));
            *self.rows += 1;
        }
        Ok(self.work.jobs.get(name).is_some_and(|slot| slot.row.outcome.is_some()))
    }

    /// Brings a gate's row to hand, if there is one.
    fn take_up_gate(&mut self, job: &JobName) -> Result<(), StoreError> {
        if !self.work.gates.contains_key(job)
            && self.work.extent == Extent::Part
            && let Some(row) = self.source.gate(self.id, job)?
        {
            self.work.gates.insert(job.clone(), Slot::clean(row));
            *self.rows += 1;
        }
        Ok(())
    }

    /// Whether a job's gate opened and nobody answered. It counts as open as long as its job has not ended.
    fn is_unanswered(&mut self, job: &JobName) -> Result<bool, StoreError> {
        self.take_up_gate(job)?;
        Ok(self.work.gates.get(job).is_some_and(|slot| slot.row.answered.is_none()))
    }

    /// The gate's row, which will change.
    fn gate(&mut self, job: &JobName) -> Result<Option<&mut GateRow>, StoreError> {
        self.take_up_gate(job)?;
        let Some(slot) = self.work.gates.get_mut(job) else { return Ok(None) };
        if !slot.is_changed {
            slot.is_changed = true;
            self.changes.gates.push((self.id, job.clone()));
        }
        Ok(Some(&mut slot.row))
    }

    fn open_gate(&mut self, job: &JobName, prompt: &str, at: Timestamp) -> Result<(), StoreError> {
        if self.has_ended(job)? {
            // It was skipped because of one that is tried again; see `JobRetried`.
            self.reopen_job(job)?;
        }
        if let Some(gate) = self.gate(job)? {
            // A job that is tried again asks again; opened twice, it stays as it was.
            if gate.answered.take().is_some() {
                gate.prompt = prompt.to_owned();
                gate.opened = at;
                self.build().open_gates += 1;
            }
            return Ok(());
        }
        let row = GateRow { build: self.id, job: job.clone(), prompt: prompt.to_owned(), opened: at, answered: None };
        self.work.gates.insert(job.clone(), Slot { row, is_changed: true });
        self.changes.gates.push((self.id, job.clone()));
        *self.rows += 1;
        self.build().open_gates += 1;
        Ok(())
    }

    fn answer_gate(&mut self, job: &JobName, answer: GateAnswer) -> Result<(), StoreError> {
        let Some(gate) = self.gate(job)? else { return Ok(()) };
        // The first answer counts.
        if gate.answered.is_some() {
            return Ok(());
        }
        gate.answered = Some(answer);
        if !self.has_ended(job)? {
            self.build().open_gates -= 1;
        }
        Ok(())
    }
}

/// All rows of one build.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildRows {
    /// The build.
    pub build: BuildRow,
    /// Its jobs, in order of name.
    pub jobs: Vec<JobRow>,
    /// Its attempts, in order of number.
    pub attempts: Vec<AttemptRow>,
    /// Its gates, in order of job.
    pub gates: Vec<GateRow>,
    /// Its artifacts, in order of job, attempt and name.
    pub artifacts: Vec<ArtifactRow>,
}

/// The rows of the build that `facts` are about, folded from nothing; `None` if there are no facts.
///
/// # Errors
/// `NoBuild` if the facts do not begin with the build's creation.
pub fn rows_of(facts: &[Fact]) -> Result<Option<BuildRows>, StoreError> {
    let mut working = Working::default();
    let mut build = None;
    for fact in facts {
        working.take_up(&mut Nowhere, fact.build, Some(fact))?;
        let digest = match &fact.what {
            What::Evaluated { graph, .. } => Some(crate::graphs::digest_of(graph).0),
            _ => None,
        };
        working.apply(&mut Nowhere, fact, digest)?;
        build = Some(fact.build);
    }
    let artifacts = sorted_artifacts(std::mem::take(&mut working.changes.artifacts));
    let Some(work) = build.and_then(|build| working.builds.remove(&build)) else { return Ok(None) };
    Ok(Some(BuildRows {
        build: work.build.row,
        jobs: work.jobs.into_values().map(|slot| slot.row).collect(),
        attempts: work.attempts.into_values().map(|slot| slot.row).collect(),
        gates: work.gates.into_values().map(|slot| slot.row).collect(),
        artifacts,
    }))
}

/// In order of job, attempt and name; of several with one name the last stays.
pub(crate) fn sorted_artifacts(artifacts: Vec<ArtifactRow>) -> Vec<ArtifactRow> {
    let by_key: BTreeMap<_, _> =
        artifacts.into_iter().map(|row| ((row.job.clone(), row.attempt, row.name.clone()), row)).collect();
    by_key.into_values().collect()
}
