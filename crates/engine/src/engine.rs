//! The engine: judges inputs into facts, folds facts into its state, and decides what follows.
//!
//! A step settles first (a rebuilt engine finds its lines again), then judges each input, settles again until
//! nothing follows, and at last hands out work. Queues and lines are indexes over the builds; presence of workers is
//! hearsay; all else is changed by [`Engine::apply`] alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use graph::{
    AskedTests, AttemptNumber, AttemptReport, BuildId, Digest, Failure, JobName, LeaseId, Outcome, Resources,
    Timestamp, WorkerId,
};

use crate::affinity::warmth_key;
use crate::build::{Build, End, GateState, Halt, Lease, OperationState, Place, Slot, SlotIndex, Source};
use crate::contexts::JobContexts;
use crate::effect::Effect;
use crate::fact::{Ended, Fact, What};
use crate::input::{FailurePolicy, Input};
use crate::lease::Workers;
use crate::line::{Group, GroupKey, JobRef, Operation, OperationKey};
use crate::request::Requests;
use crate::schedule::{Schedule, Urgency};
use crate::standing::Charging;
use crate::warmth::{Start, Warmth};

/// What one step says: store the facts, then perform the effects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// In the order in which they became true. To be stored as a whole or not at all.
    pub facts: Vec<Fact>,
    /// To be performed once the facts are stored.
    pub effects: Vec<Effect>,
}

/// Decides what runs, for many builds at once. Holds no clock, no socket, no thread.
#[derive(Debug, Default)]
pub struct Engine {
    pub(crate) now: Timestamp,
    pub(crate) builds: BTreeMap<BuildId, Build>,
    /// Builds that ended and were forgotten; their numbers are not used again.
    pub(crate) forgotten: BTreeSet<BuildId>,
    pub(crate) last_lease: LeaseId,
    /// The leases that count.
    pub(crate) leases: BTreeMap<LeaseId, JobRef>,
    /// Leases given up by us while their workers still run them.
    pub(crate) lingering: BTreeMap<LeaseId, WorkerId>,
    pub(crate) workers: Workers,
    pub(crate) schedule: Schedule,
    pub(crate) warmth: Warmth,
    /// Whether facts that are applied charge clients. Not kept.
    pub(crate) charging: Charging,
    pub(crate) requests: Requests,
    pub(crate) groups: HashMap<GroupKey, Group>,
    pub(crate) operations: HashMap<OperationKey, Operation>,
    /// Jobs that wait for the time of their next try.
    pub(crate) timers: BTreeSet<(Timestamp, BuildId, SlotIndex)>,
    /// Jobs to look at.
    pub(crate) agenda: VecDeque<JobRef>,
    /// Builds to look at.
    pub(crate) builds_agenda: BTreeSet<BuildId>,
    /// Groups to look at.
    pub(crate) groups_agenda: Vec<GroupKey>,
    /// How often a build was asked for that jobs want. Not kept.
    pub(crate) n_askings: u64,
    pub(crate) let_go: LetGo,
}

/// Whose ends left room in the step that is decided: on workers, and in concurrency groups. Not kept: what it tells stands in facts.
#[derive(Debug, Default)]
pub(crate) struct LetGo {
    pub workers: HashMap<WorkerId, JobRef>,
    pub groups: HashMap<GroupKey, JobRef>,
}

/// Who may take a job's outcome for their own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// Jobs of the same operation.
    Equals,
    /// Nobody: it is not the job's own, or was made of more than its operation holds.
    Nobody,
}

impl Engine {
    /// An engine without builds and workers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An engine whose leases are numbered after `last`, the largest ever given: for a restart that does not fold
    /// the facts of builds that have ended.
    #[must_use]
    pub fn after_lease(last: LeaseId) -> Self {
        Self { last_lease: last, ..Self::default() }
    }

    /// Takes in what the world says at `now` and decides what follows. A `now` before an earlier one counts as
    /// that one. Works also without inputs, as [`Effect::Wake`] asks.
    pub fn step(&mut self, now: Timestamp, inputs: Vec<Input>) -> Step {
        self.now = self.now.max(now);
        let mut step = Step::default();
        self.let_go = LetGo::default();
        self.workers.await_known(self.now);
        self.settle(&mut step);
        for input in inputs {
            self.judge(&mut step, input);
        }
        self.lose_silent(&mut step);
        self.wake_sleepers();
        self.settle(&mut step);
        self.hand_out(&mut step);
        if let Some(at) = self.next_time() {
            step.effects.push(Effect::Wake { at });
        }
        step
    }

    /// Folds one fact into the state. The only function that changes what an engine knows; all facts of all builds
    /// in the order in which they were stored rebuild it. Facts that make no sense here change nothing.
    pub fn apply(&mut self, fact: &Fact) {
        self.now = self.now.max(fact.at);
        if let What::BuildCreated(request) = &fact.what {
            let requests = &mut self.requests;
            self.builds.entry(fact.build).or_insert_with(|| {
                requests.note_created(fact.build, request);
                Build::new(fact.build, (**request).clone())
            });
        }
        self.builds_agenda.insert(fact.build);
        match &fact.what {
            What::BuildCreated(_) => {}
            What::Answered { question, answer } => {
                if let Some(build) = self.builds.get_mut(&fact.build) {
                    build.answer(question.clone(), answer.clone());
                }
            }
            What::Evaluated { graph, questions, program, .. } => self.apply_evaluated(fact, graph, questions, *program),
            What::MadeUrgent { .. } => self.apply_urgent(fact.build),
            What::CancelRequested { by } => {
                if let Some(build) = self.builds.get_mut(&fact.build) {
                    build.set_halt(Some(Halt::Canceled { by: by.clone() }));
                    self.requests.note_begun(fact.build, &build.request);
                }
            }
            What::BuildEnded { verdict } => {
                if let Some(build) = self.builds.get_mut(&fact.build) {
                    build.verdict = Some(verdict.clone());
                    self.requests.note_ended(fact.build, &build.request);
                    self.wake_parent(fact.build);
                }
            }
            What::GateOpened { job, .. }
            | What::GateAnswered { job, .. }
            | What::OperationKnown { job, .. }
            | What::OperationUnknown { job, .. }
            | What::AttemptLeased { job, .. }
            | What::AttemptAdopted { job, .. }
            | What::JobCancelRequested { job, .. }
            | What::ChildMade { job, .. }
            | What::ChildFailed { job, .. }
            | What::AttemptFinished { job, .. }
            | What::JobEnded { job, .. }
            | What::JobRetried { job, .. } => {
                if let Some(index) = self.index_of(fact.build, job) {
                    self.apply_to_job(fact, (fact.build, index));
                }
            }
        }
    }

    fn apply_to_job(&mut self, fact: &Fact, job: JobRef) {
        match &fact.what {
            What::GateOpened { .. } => self.slot_mut(job).gate = GateState::Open,
            What::GateAnswered { answer, by, .. } => {
                let slot = self.slot_mut(job);
                slot.ready_at = fact.at;
                slot.gate = match answer {
                    Some(answer) => GateState::Answered(Arc::new(answer.clone())),
                    None => GateState::Rejected(by.as_str().into()),
                };
            }
            &What::OperationKnown { operation: digest, evicted, .. } => {
                self.leave_lines(job);
                self.slot_mut(job).operation = OperationState::Known(digest);
                self.slot_mut(job).evicted = evicted;
                let key = self.operation_key(job.0, digest);
                if let Some(operation) = self.operations.get_mut(&key) {
                    operation.evicted = operation.evicted.max(evicted);
                }
            }
            What::OperationUnknown { .. } => {
                self.leave_lines(job);
                self.slot_mut(job).operation = OperationState::Unknown;
            }
            &What::AttemptLeased { attempt, try_number, lease: id, ref worker, ref waited_for, .. } => {
                let lease = Lease::new(id, attempt, worker.clone(), fact.at);
                self.apply_leased(job, try_number, Lease { waited_for: waited_for.clone(), ..lease });
            }
            &What::AttemptAdopted { attempt, try_number, lease: id, ref worker, ref from, handed, .. } => {
                let lease = Lease::new(id, attempt, worker.clone(), fact.at);
                self.apply_leased(job, try_number, Lease { from: Some(Box::new(from.clone())), handed, ..lease });
            }
            &What::ChildMade { try_number, child, .. } => self.apply_child(job, try_number, child, fact.at),
            What::ChildFailed { retry_at, .. } => {
                self.leave_lines(job);
                let slot = self.slot_mut(job);
                slot.child = None;
                slot.retry_at = Some(*retry_at);
            }
            What::JobCancelRequested { by, .. } => self.slot_mut(job).canceled_by = Some(by.as_str().into()),
            What::AttemptFinished { attempt, report, retry_at, .. } => {
                self.apply_finished(fact.at, job, *attempt, report, *retry_at);
            }
            What::JobEnded { outcome, how, .. } => {
                let (artifacts, source) = match how {
                    Ended::Decided | Ended::Child { .. } => (BTreeMap::new(), Source::Decided),
                    Ended::Reused(reused) => {
                        let job = reused.job.clone();
                        let source = Source::Reused { build: reused.build, attempt: reused.attempt, job };
                        (reused.artifacts.clone(), source)
                    }
                };
                let end = End { outcome: outcome.clone(), artifacts, source, at: fact.at };
                self.apply_end(job, end, Sharing::Nobody);
            }
            What::JobRetried { tests, .. } => self.apply_retried(job, tests.clone(), fact.at),
            What::BuildCreated(_)
            | What::Answered { .. }
            | What::Evaluated { .. }
            | What::MadeUrgent { .. }
            | What::CancelRequested { .. }
            | What::BuildEnded { .. } => {}
        }
        self.consider(job);
    }

    fn apply_evaluated(
        &mut self,
        fact: &Fact,
        graph: &Arc<graph::Graph>,
        questions: &[graph::Question],
        program: Option<graph::Digest>,
    ) {
        let Some(build) = self.builds.get(&fact.build) else { return };
        // Jobs that stand in a line under an old version leave it first.
        let moved: Vec<SlotIndex> = (0..build.slots.len() as SlotIndex)
            .filter(|&index| {
                let slot = build.slot(index);
                let is_same =
                    graph.jobs.get(&slot.name).is_some_and(|job| Arc::ptr_eq(job, &slot.job) || *job == slot.job);
                slot.place != Place::Nowhere && !is_same
            })
            .collect();
        for index in moved {
            self.step_back((fact.build, index));
        }
        let build = self.builds.get_mut(&fact.build).expect("it was there a moment ago");
        build.program = build.program.or(program);
        build.take_over(Arc::clone(graph), questions.to_vec(), fact.at);
        let is_open = |slot: &Slot| slot.end.is_none() || slot.flags.is_asked;
        let open: Vec<SlotIndex> =
            (0..build.slots.len() as SlotIndex).filter(|&index| is_open(build.slot(index))).collect();
        for index in open {
            self.consider((fact.build, index));
        }
    }

    /// What waits of the build takes its place anew, and what runs counts as urgent from now on.
    fn apply_urgent(&mut self, id: BuildId) {
        let Some(build) = self.builds.get(&id).filter(|build| !build.request.options.urgent) else { return };
        let all = 0..build.slots.len() as SlotIndex;
        let queued: Vec<SlotIndex> = all.filter(|&index| build.slot(index).place == Place::Queued).collect();
        for &index in &queued {
            self.unqueue((id, index));
        }
        let build = self.builds.get_mut(&id).expect("it was there a moment ago");
        build.request.options.urgent = true;
        for _ in build.slots.iter().filter(|slot| slot.lease.is_some()) {
            self.schedule.note_urgent(&build.request.client, Urgency::Urgent, true);
        }
        for index in queued {
            self.enqueue((id, index));
        }
    }

    fn apply_leased(&mut self, job: JobRef, try_number: u32, lease: Lease) {
        let (id, attempt, worker, handed) = (lease.id, lease.attempt, lease.worker.clone(), lease.handed);
        let group = self.group_of(job);
        self.leave_lines(job);
        let urgency = self.urgency_of(job.0);
        let build = self.builds.get_mut(&job.0).expect("the caller found the job in it");
        let client = &build.request.client;
        let (charged_ms, start) = match &self.charging {
            Charging::Now => {
                let slot = build.slot(job.1);
                let start = self.warmth.start_on(&warmth_key(build, slot), &worker);
                (self.schedule.charge(client, &build.request.origin.project, slot.name.id()), start)
            }
            Charging::Before { running, warm } => {
                let start = if warm.contains(&id) { Start::Warm } else { Start::Cold };
                (running.get(&id).copied().unwrap_or_default(), start)
            }
            Charging::Recalled => (0, Start::Cold),
        };
        self.schedule.note_urgent(client, urgency, true);
        if build.attempts.is_empty() {
            self.requests.note_begun(job.0, &build.request);
        }
        build.attempts.resize(build.attempts.len().max(attempt.0 as usize), SlotIndex::MAX);
        if let Some(entry) = build.attempts.get_mut((attempt.0 as usize).wrapping_sub(1)) {
            *entry = job.1;
        }
        let slot = build.slot_mut(job.1);
        let lease = Lease { charged_ms, start, ..lease };
        self.schedule.note_running(&slot.job.pool, lease.end());
        if let Some(before) = slot.lease.replace(Box::new(lease)) {
            self.schedule.note_stopped(&slot.job.pool, before.end());
        }
        slot.n_tries = try_number;
        slot.retry_at = None;
        slot.flags.has_begun = true;
        slot.flags.is_stopping = false;
        slot.group.clone_from(&group);
        let (resources, operation) = (slot.job.resources, slot.operation);
        self.last_lease = self.last_lease.max(id);
        // Where facts are folded build by build, the one who took a lease over may come first.
        let later = |other: &Lease| other.id == id && other.handed > handed;
        let is_handed_on =
            self.leases.get(&id).is_some_and(|&other| self.slot(other).lease.as_deref().is_some_and(later));
        if !is_handed_on {
            self.leases.insert(id, job);
            self.workers.give(&worker, id, resources);
        }
        if matches!(self.charging, Charging::Recalled) {
            return;
        }
        if let Some(group) = group {
            let group = self.groups.entry(group).or_default();
            group.holders.insert(job);
            group.offered = None;
        }
        if let OperationState::Known(digest) = operation {
            let operation = self.operations.entry(self.operation_key(job.0, digest)).or_default();
            operation.leader = Some(job);
            operation.begun.insert(job);
        }
    }

    fn apply_finished(
        &mut self,
        at: Timestamp,
        job: JobRef,
        attempt: AttemptNumber,
        report: &AttemptReport,
        retry_at: Option<Timestamp>,
    ) {
        let urgency = self.urgency_of(job.0);
        let build = self.builds.get_mut(&job.0).expect("the caller found the job in it");
        let is_partial = build.asked(job.1).is_some();
        if retry_at.is_some() {
            build.ask_again(job.1, &report.tests);
        }
        let slot = &mut build.slots[job.1 as usize];
        let Some(lease) = slot.lease.take_if(|lease| lease.attempt == attempt) else { return };
        self.schedule.note_stopped(&slot.job.pool, lease.end());
        slot.flags.is_stopping = false;
        // A worker's clock may have been set meanwhile, and who took the attempt over pays for the rest.
        let took_ms = report.finished.ms_since(report.started).min(at.ms_since(lease.since));
        self.schedule.note_urgent(&build.request.client, urgency, false);
        let is_charged = matches!(self.charging, Charging::Now);
        if is_charged {
            self.schedule.settle(&build.request.client, lease.charged_ms, took_ms);
        }
        let is_passed = matches!(report.outcome, Outcome::Passed { .. });
        // Some of its tests tell nothing of how long the whole job takes, nor does the rest of an attempt.
        let is_whole = is_passed && !is_partial && lease.handed == 0;
        if is_charged && is_whole {
            self.schedule.learn(&build.request.origin.project, slot.name.id(), took_ms);
        }
        slot.retry_at = retry_at;
        for (reference, digest) in &report.images {
            build.images.entry(reference.clone()).or_insert_with(|| digest.clone());
        }
        // Of one that broke off nobody knows how far it got.
        if is_charged && (is_passed || matches!(report.outcome, Outcome::Failed(Failure::Step { .. }))) {
            // How it found its worker before it was handed over is not known here.
            let took = is_whole.then_some((lease.start, took_ms));
            let key = warmth_key(build, build.slot(job.1));
            self.warmth.note(key, &lease.worker, took);
        }
        self.release_lease(job, &lease);
        if retry_at.is_none() {
            let outcome = report.outcome.clone();
            let artifacts = report.artifacts.clone();
            let sharing = if report.may_stand_for_others() { Sharing::Equals } else { Sharing::Nobody };
            self.apply_end(job, End { outcome, artifacts, source: Source::Attempt(attempt), at }, sharing);
        }
    }

    /// A job no longer holds its lease. Does nothing to one that another job took over.
    fn release_lease(&mut self, job: JobRef, lease: &Lease) {
        if self.leases.get(&lease.id) == Some(&job) {
            self.leases.remove(&lease.id);
            self.workers.take(&lease.worker, lease.id);
            self.let_go.workers.insert(lease.worker.clone(), job);
        }
    }

    fn apply_end(&mut self, job: JobRef, end: End, sharing: Sharing) {
        self.leave_lines(job);
        let build = self.builds.get_mut(&job.0).expect("the caller found the job in it");
        if let Some(lease) = build.slot_mut(job.1).lease.take() {
            self.schedule.note_stopped(&build.slot(job.1).job.pool, lease.end());
            self.release_lease(job, &lease);
        }
        let build = self.builds.get_mut(&job.0).expect("it was there a moment ago");
        for dependent in build.end(job.1, end) {
            self.consider((job.0, dependent));
        }
        let build = &self.builds[&job.0];
        let slot = build.slot(job.1);
        let outcome = &slot.end.as_ref().expect("it has just ended").outcome;
        let is_failure = graph::outcome::fails_build(&slot.job, outcome);
        let is_reusable =
            sharing == Sharing::Equals && graph::outcome::is_reusable(outcome, graph::outcome::Scope::SameBuild);
        let operation = slot.operation;
        if is_failure && build.halt.is_none() && build.request.options.on_failure == FailurePolicy::FailFast {
            let halt = Halt::FirstFailure { because: slot.name.clone() };
            self.builds.get_mut(&job.0).expect("it is there").set_halt(Some(halt));
        }
        self.release_group(job);
        if let OperationState::Known(digest) = operation
            && !matches!(self.charging, Charging::Recalled)
        {
            self.release_operation(digest, job, is_reusable);
        }
    }

    fn apply_retried(&mut self, job: JobRef, tests: Option<Arc<AskedTests>>, at: Timestamp) {
        let OperationState::Known(digest) = self.slot(job).operation else {
            return self.put_back(job, tests, at);
        };
        let key = self.operation_key(job.0, digest);
        if let Some(operation) = self.operations.get_mut(&key)
            && operation.result == Some(job)
        {
            operation.result = None;
        }
        self.put_back(job, tests, at);
    }

    fn put_back(&mut self, job: JobRef, tests: Option<Arc<AskedTests>>, at: Timestamp) {
        let build = self.builds.get_mut(&job.0).expect("the caller found the job in it");
        self.requests.note(job.0, &build.request);
        let n_told = if build.halt.is_some() { build.slots.len() } else { 0 };
        let (back, touched) = build.put_back(job.1, tests, at);
        // A build that goes on also tells its pipeline how jobs ended while it stood still.
        for index in 0..n_told as SlotIndex {
            self.consider((job.0, index));
        }
        for index in touched {
            // What it had let go on waits for it again, unless it has begun.
            let slot = self.slot((job.0, index));
            if slot.n_waits_for > 0 && slot.place != Place::Nowhere && !slot.is_under_way() {
                self.step_back((job.0, index));
            }
        }
        for index in back {
            self.consider((job.0, index));
        }
    }

    /// Forgets a build that has ended, to free its memory. Its number stays used; its facts stay in the store, and
    /// folding them again brings it back. Gives whether there was such a build.
    pub fn forget(&mut self, id: BuildId) -> bool {
        if self.builds.get(&id).is_none_or(|build| build.verdict.is_none()) {
            return false;
        }
        let digests = self.builds[&id].slots.iter().map(|slot| slot.operation);
        for (index, operation) in digests.collect::<Vec<_>>().into_iter().enumerate() {
            let OperationState::Known(digest) = operation else { continue };
            let key = self.operation_key(id, digest);
            let Some(operation) = self.operations.get_mut(&key) else { continue };
            if operation.result == Some((id, index as SlotIndex)) {
                operation.result = None;
            }
            if operation.is_idle() {
                self.operations.remove(&key);
            }
        }
        let build = self.builds.remove(&id).expect("it was found just now");
        self.requests.note_forgotten(id, &build.request);
        self.forgotten.insert(id);
        true
    }

    /// Puts a job on the agenda, once.
    pub(crate) fn consider(&mut self, job: JobRef) {
        if let Some(build) = self.builds.get_mut(&job.0) {
            let flags = &mut build.slot_mut(job.1).flags;
            if !std::mem::replace(&mut flags.is_on_agenda, true) {
                self.agenda.push_back(job);
            }
        }
    }

    /// Makes a fact true: applies it and keeps it for the store.
    pub(crate) fn record(&mut self, step: &mut Step, build: BuildId, what: What) {
        let fact = Fact { build, at: self.now, what };
        self.apply(&fact);
        step.facts.push(fact);
    }

    pub(crate) fn index_of(&self, build: BuildId, job: &JobName) -> Option<SlotIndex> {
        self.builds.get(&build)?.index_of.get(job).copied()
    }

    /// The slot of a job that is known to be there.
    pub(crate) fn slot(&self, job: JobRef) -> &Slot {
        self.builds[&job.0].slot(job.1)
    }

    pub(crate) fn slot_mut(&mut self, job: JobRef) -> &mut Slot {
        self.builds.get_mut(&job.0).expect("a job's build is there as long as the job").slot_mut(job.1)
    }

    pub(crate) fn urgency_of(&self, build: BuildId) -> Urgency {
        match self.builds.get(&build) {
            Some(build) if build.request.options.urgent => Urgency::Urgent,
            _ => Urgency::Usual,
        }
    }

    /// The concurrency group of a job, if it is in one whose name can be evaluated.
    pub(crate) fn group_of(&self, job: JobRef) -> Option<GroupKey> {
        let slot = self.slot(job);
        let concurrency = slot.job.concurrency.as_ref()?;
        if let Some(group) = &slot.group {
            return Some(group.clone());
        }
        let name = JobContexts::new(&self.builds[&job.0], job.1).text(&concurrency.group).ok()?;
        Some(self.group_key(job.0, name))
    }

    /// The key of the group that jobs of a build call by this name.
    pub(crate) fn group_key(&self, build: BuildId, name: Arc<str>) -> GroupKey {
        let request = &self.builds[&build].request;
        GroupKey { project: request.origin.project.as_str().into(), trust: request.event.trust, name }
    }

    /// The key of an operation that a build wants.
    pub(crate) fn operation_key(&self, build: BuildId, digest: Digest) -> OperationKey {
        let request = &self.builds[&build].request;
        OperationKey { project: request.origin.project.as_str().into(), trust: request.event.trust, digest }
    }

    /// When something happens by itself next.
    fn next_time(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|&(at, _, _)| at);
        [timer, self.workers.next_deadline(), self.schedule.next_patience_end()].into_iter().flatten().min()
    }

    /// What a worker's lease uses of it.
    pub(crate) fn resources_of(&self, lease: LeaseId) -> Resources {
        self.leases.get(&lease).map_or_else(Resources::default, |&job| self.slot(job).job.resources)
    }
}
