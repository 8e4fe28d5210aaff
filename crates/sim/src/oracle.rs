//! What must hold of every storm. Reads facts as they come and keeps a model of its own; knows nothing of the
//! engine's inside, and takes the graphs from the pipelines themselves rather than from what the engine was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::warmth::SAVING_MS_MAX;
use engine::{BuildRequest, Ended, Fact, Wait, What};
use graph::{
    Accepts, AttemptNumber, AttemptReport, BuildId, Diagnostic, Digest, Ending, Failure, Graph, Job, JobName, Known,
    LeaseId, Outcome, Question, SkipReason, TestName, TestOutcome, Timestamp, Trust, Verdict, WorkerId,
};

use crate::pipeline::Pipeline;

/// A law that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The law's name.
    pub law: &'static str,
    /// What happened.
    pub text: String,
}

/// The model.
#[derive(Default)]
pub struct Oracle {
    builds: BTreeMap<BuildId, Modeled>,
    last_lease: LeaseId,
    slots: BTreeMap<WorkerId, u32>,
    /// What workers really reported, by lease.
    reported: BTreeMap<LeaseId, Outcome>,
    /// The true operations of jobs, whatever the engine was told.
    operations: BTreeMap<(BuildId, JobName), Digest>,
    /// The tests that ran in attempts of whole jobs that passed.
    whole: BTreeMap<(BuildId, JobName), BTreeSet<TestName>>,
    /// Operations that passed, by a job not retried.
    passed: BTreeSet<Digest>,
    /// How much has happened; tells what was before what.
    n_happened: u64,
    /// When each attempt passed, when results of operations were evicted last, and when jobs' operations were first worked out.
    passed_at: BTreeMap<(BuildId, AttemptNumber), u64>,
    evicted_at: BTreeMap<Digest, u64>,
    asked_at: BTreeMap<(BuildId, JobName), u64>,
    /// Requests that were other builds.
    duplicates: BTreeMap<BuildId, BuildId>,
    /// Workers that take nothing new, and pools of which nothing is handed out, by what the engine was told last.
    closed: BTreeSet<WorkerId>,
    held_pools: BTreeSet<String>,
    /// Jobs that wait for a worker that has them warm, since when, and until when.
    waits: BTreeMap<(BuildId, JobName), (Timestamp, Timestamp)>,
}

struct Modeled {
    pipeline: Pipeline,
    known: Known,
    graph: Graph,
    jobs: BTreeMap<JobName, Track>,
    /// What an evaluation changed that had begun.
    melted: Option<JobName>,
    /// What makes it the same as another, and what lets a later one take its place.
    identity: Option<Digest>,
    supersedes: Option<String>,
    trust: Trust,
    client: String,
    is_created: bool,
    is_canceled: bool,
    is_over: bool,
    /// Somebody retried a job of it after its end.
    is_revived: bool,
}

/// What facts said of one job.
#[derive(Default)]
struct Track {
    outcome: Option<Outcome>,
    active: Option<(AttemptNumber, LeaseId, WorkerId)>,
    is_cancel_wanted: bool,
    has_begun: bool,
    /// A person was asked, and has not rejected it.
    is_gate_seen: bool,
    is_approved: bool,
    is_retried: bool,
    operation: Option<Digest>,
    /// How each of its tests ended last, and those that ever ran.
    tests: BTreeMap<TestName, TestOutcome>,
    ran: BTreeSet<TestName>,
    /// The build with which whoever retried some of its tests compared them.
    compared: Option<BuildId>,
}

impl Modeled {
    /// Equal for requests that may be one build: who could end the one could end the other.
    fn sameness(&self) -> (Option<Digest>, Option<(&str, Trust, &str)>) {
        let rivals = self.supersedes.as_deref().map(|supersedes| (supersedes, self.trust, self.client.as_str()));
        (self.identity, rivals)
    }
}

type Checked = Result<(), Violation>;

fn demand(law: &'static str, holds: bool, text: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { law, text: text() }) }
}

impl Oracle {
    /// A build with this pipeline may appear.
    pub fn expect(&mut self, build: BuildId, pipeline: Pipeline, known: Known, request: &BuildRequest) {
        let graph = Graph::default();
        let jobs = BTreeMap::new();
        let (identity, supersedes) = (request.identity, request.supersedes.clone());
        let (melted, is_created, is_canceled, is_over, is_revived) = Default::default();
        let modeled = Modeled {
            pipeline,
            known,
            graph,
            jobs,
            melted,
            identity,
            supersedes,
            trust: request.event.trust,
            client: request.client.clone(),
            is_created,
            is_canceled,
            is_over,
            is_revived,
        };
        self.builds.insert(build, modeled);
    }

    /// How far the author of a build is trusted.
    pub fn trust_of(&self, build: BuildId) -> Trust {
        self.builds[&build].trust
    }

    /// A worker's word about whether it takes new attempts reached the engine.
    pub fn hear_intake(&mut self, worker: &WorkerId, is_closed: bool) {
        if is_closed {
            self.closed.insert(worker.clone());
        } else {
            self.closed.remove(worker);
        }
    }

    /// A pool was held or released.
    pub fn hear_hold(&mut self, pool: &str, is_held: bool) {
        if is_held {
            self.held_pools.insert(pool.to_owned());
        } else {
            self.held_pools.remove(pool);
        }
    }

    /// The server died: what is hearsay it has to be told again.
    pub fn forget_hearsay(&mut self) {
        self.closed.clear();
        self.held_pools.clear();
        self.waits.clear();
        // A request that is made again may then be a build of its own.
        self.duplicates.clear();
    }

    /// Checks that a request is the build that the engine says it is. To be called before the facts of the same step.
    ///
    /// # Errors
    /// The law that it breaks.
    pub fn see_duplicate(&mut self, requested: BuildId, of: BuildId) -> Checked {
        let law = "a request is only a build of its identity that waits";
        let at = || format!("{requested} is said to be {of}");
        if let Some(before) = self.duplicates.insert(requested, of) {
            return demand(law, before == of, at);
        }
        let request = &self.builds[&requested];
        let is_same = request.identity.is_some()
            && self.builds.get(&of).is_some_and(|build| build.sameness() == request.sameness());
        let is_new = self.builds.get(&of).is_some_and(|build| !build.is_created);
        demand(law, is_same && (is_new || self.is_waiting(of)) && !self.builds[&requested].is_created, at)
    }

    /// Whether nothing of a build has begun, and nobody canceled it.
    fn is_waiting(&self, id: BuildId) -> bool {
        let build = &self.builds[&id];
        let has_begun = build.jobs.values().any(|track| track.has_begun);
        build.is_created && !build.is_over && !build.is_canceled && !has_begun
    }

    /// Checks what must hold after every step.
    ///
    /// # Errors
    /// The law that is broken.
    pub fn check_rest(&self) -> Checked {
        let mut leases = BTreeSet::new();
        for (id, name, track) in self.tracks() {
            let Some((_, lease, _)) = &track.active else { continue };
            demand("no lease is held twice", leases.insert(*lease), || format!("lease {lease} of {id}.{name}"))?;
        }
        let mut rivals = BTreeMap::new();
        for (id, build) in &self.builds {
            let is_past_gate = build.jobs.values().any(|track| track.is_approved);
            let is_live =
                build.is_created && !build.is_over && !build.is_canceled && !build.is_revived && !is_past_gate;
            let Some(branch) = build.supersedes.as_ref().filter(|_| is_live) else { continue };
            let other = rivals.insert((branch, build.trust, &build.client), id);
            demand("a later build supersedes earlier ones", other.is_none(), || format!("{id} beside {other:?}"))?;
        }
        Ok(())
    }

    /// Since when jobs wait for a worker that has them warm, if one does.
    #[must_use]
    pub fn first_wait(&self) -> Option<Timestamp> {
        self.waits.values().map(|&(since, _)| since).min()
    }

    /// What the engine tells of its queues after a step at `now`, the latest time there was, with the time for which it
    /// asks to be woken. Gives how many waits for a warm worker have begun.
    ///
    /// # Errors
    /// The law that it breaks.
    pub fn hear_waits(
        &mut self,
        told: &[(BuildId, JobName, Wait)],
        now: Timestamp,
        wake: Option<Timestamp>,
    ) -> Result<u64, Violation> {
        let mut waits = BTreeMap::new();
        let mut n_begun = 0;
        for (build, name, wait) in told {
            let Wait::Affinity { worker, until } = wait else { continue };
            let key = (*build, name.clone());
            let begun = self.waits.get(&key).copied();
            n_begun += u64::from(begun.is_none());
            let (since, promised) = begun.unwrap_or((now, *until));
            let at =
                || format!("{build}.{name} for {worker} since {since:?} until {until:?} at {now:?}, wake {wake:?}");
            let is_bounded = *until <= since.plus_ms(SAVING_MS_MAX) && *until <= promised;
            demand("a wait for a warm worker has an end that does not move", is_bounded, at)?;
            demand("a wait for a warm worker ends in time", *until > now, at)?;
            demand("a wait for a warm worker ends by itself", wake.is_some_and(|wake| wake <= *until), at)?;
            demand("nobody waits for a closed worker", !self.closed.contains(worker), at)?;
            waits.insert(key, (since, promised));
        }
        self.waits = waits;
        Ok(n_begun)
    }

    /// Checks that a job that waits for any of these workers, which could run it, does not while one has nothing to do.
    ///
    /// # Errors
    /// The law that it breaks.
    pub fn check_idle<'a>(
        &self,
        build: BuildId,
        job: &JobName,
        mut workers: impl Iterator<Item = &'a WorkerId>,
    ) -> Checked {
        let is_busy = |id: &WorkerId| {
            self.tracks().any(|(_, _, track)| track.active.as_ref().is_some_and(|(_, _, worker)| worker == id))
        };
        let idle = workers.find(|id| !is_busy(id));
        demand("no worker idles while a job waits for it", idle.is_none(), || format!("{build}.{job}: {idle:?}"))
    }

    /// Checks that nobody wants one of these attempts to stop; their workers have not heard so.
    ///
    /// # Errors
    /// The law that it breaks.
    pub fn check_untold(&self, leases: impl Iterator<Item = LeaseId>) -> Checked {
        let leases: BTreeSet<LeaseId> = leases.collect();
        for (id, name, track) in self.tracks() {
            let lease = track.active.as_ref().map(|(_, lease, _)| *lease).filter(|lease| leases.contains(lease));
            let Some(lease) = lease else { continue };
            let build = &self.builds[&id];
            let is_cleanup = build.graph.jobs.get(name).is_some_and(|job| job.cleanup);
            let is_unwanted = track.is_cancel_wanted || build.is_canceled && !is_cleanup;
            demand("who runs what was canceled is told to stop", !is_unwanted, || {
                format!("lease {lease} of {id}.{name}")
            })?;
        }
        Ok(())
    }

    /// A worker with so many slots exists.
    pub fn hire(&mut self, worker: WorkerId, slots: u32) {
        self.slots.insert(worker, slots);
    }

    /// A worker ended the attempt of `lease` so.
    pub fn hear_report(&mut self, lease: LeaseId, outcome: Outcome) {
        self.reported.insert(lease, outcome);
    }

    /// This is a job's operation, worked out anew from its job and needs.
    pub fn hear_operation(&mut self, build: BuildId, job: JobName, operation: Digest) {
        self.n_happened += 1;
        self.asked_at.entry((build, job.clone())).or_insert(self.n_happened);
        self.operations.insert((build, job), operation);
    }

    /// Results of an operation are kept no more: it may run again.
    pub fn hear_eviction(&mut self, operation: Digest) {
        self.n_happened += 1;
        self.evicted_at.insert(operation, self.n_happened);
        self.passed.remove(&operation);
    }

    /// Checks one fact against all that went before.
    ///
    /// # Errors
    /// The law that it breaks.
    pub fn see(&mut self, fact: &Fact) -> Checked {
        let Some(build) = self.builds.get(&fact.build) else {
            return demand("facts are of known builds", false, || format!("{fact:?}"));
        };
        let may_follow = !build.is_over || matches!(fact.what, What::JobRetried { .. });
        let is_first = matches!(fact.what, What::BuildCreated(_));
        demand("a build is created first and once", is_first != build.is_created, || format!("{fact:?}"))?;
        demand("a finished build is a fixed point", may_follow, || format!("after its end: {fact:?}"))?;
        match &fact.what {
            What::BuildCreated(_) => self.check_creation(fact.build)?,
            What::AttemptAdopted { job, lease, worker, attempt, from, .. } => {
                self.check_adoption(fact.build, job, *lease, worker, (from.build, &from.job))?;
                let track = self.track(fact.build, job);
                track.active = Some((*attempt, *lease, worker.clone()));
                track.has_begun = true;
            }
            What::AttemptLeased { job, lease, worker, attempt, try_number, .. } => {
                self.check_lease(fact.build, job, *lease, worker, *try_number)?;
                self.last_lease = *lease;
                let track = self.track(fact.build, job);
                track.active = Some((*attempt, *lease, worker.clone()));
                track.has_begun = true;
            }
            What::AttemptFinished { job, attempt, lease, report, retry_at } => {
                self.check_finish(fact.build, job, (*attempt, *lease), report)?;
                self.see_tests(fact.build, job, report)?;
                let track = self.track(fact.build, job);
                track.active = None;
                if retry_at.is_none() {
                    track.outcome = Some(report.outcome.clone());
                }
                let (operation, is_retried) = (track.operation, track.is_retried);
                self.n_happened += 1;
                self.passed_at.insert((fact.build, *attempt), self.n_happened);
                if let (Some(operation), Outcome::Passed { .. }, false) = (operation, &report.outcome, is_retried) {
                    self.passed.insert(operation);
                }
            }
            What::JobEnded { job, outcome, how } => {
                self.check_end(fact.build, job, outcome, how)?;
                self.track(fact.build, job).outcome = Some(outcome.clone());
            }
            What::Evaluated { diagnostics, .. } => self.check_evaluation(fact.build, diagnostics)?,
            What::BuildEnded { verdict } => self.check_build_end(fact.build, verdict)?,
            _ => {}
        }
        self.follow(fact);
        Ok(())
    }

    /// Takes over what needs no check.
    fn follow(&mut self, fact: &Fact) {
        let build = self.builds.get_mut(&fact.build).expect("it was checked");
        match &fact.what {
            What::Answered { question, answer } => {
                build.known.answers.insert(question.clone(), answer.clone());
            }
            What::Evaluated { diagnostics, .. } if diagnostics.is_empty() => {
                let before = std::mem::replace(&mut build.graph, build.pipeline.evaluate(&build.known).graph);
                for (name, track) in &mut build.jobs {
                    // Another version of a job is another operation, and the old one's may still be worked out.
                    if before.jobs.get(name) != build.graph.jobs.get(name) {
                        track.operation = None;
                    }
                }
            }
            What::Evaluated { .. } => build.melted = melted(build).cloned(),
            What::GateOpened { job, .. } => build.jobs.entry(job.clone()).or_default().is_gate_seen = true,
            What::GateAnswered { job, answer, .. } => {
                build.jobs.entry(job.clone()).or_default().is_approved = answer.is_some();
            }
            What::OperationKnown { job, .. } => {
                let operation = self.operations.get(&(fact.build, job.clone())).copied();
                build.jobs.entry(job.clone()).or_default().operation = operation;
            }
            What::BuildCreated(_) => build.is_created = true,
            What::JobCancelRequested { job, .. } => {
                build.jobs.entry(job.clone()).or_default().is_cancel_wanted = true;
            }
            What::MadeUrgent { .. } => {}
            What::CancelRequested { .. } => build.is_canceled = true,
            What::BuildEnded { .. } => build.is_over = true,
            What::JobRetried { job, tests, .. } => {
                let compared = tests.as_ref().and_then(|tests| tests.never_run.as_ref()).map(|never| never.passed_in);
                build.jobs.entry(job.clone()).or_default().compared = compared;
                build.is_revived |= build.is_over;
                build.is_over = false;
                put_back(build, job);
            }
            _ => {}
        }
    }

    fn track(&mut self, build: BuildId, job: &JobName) -> &mut Track {
        self.builds.get_mut(&build).expect("it was checked").jobs.entry(job.clone()).or_default()
    }

    fn check_creation(&self, id: BuildId) -> Checked {
        let is_said = self.duplicates.contains_key(&id);
        demand("a request is one build", !is_said, || format!("{id} was said to be {:?}", self.duplicates.get(&id)))?;
        let request = &self.builds[&id];
        if request.identity.is_none() {
            return Ok(());
        }
        let is_same = |other: &&BuildId| {
            // A failure, even of a job that never began, may have stopped it.
            let is_failed = |track: &Track| matches!(track.outcome, Some(Outcome::Failed(_)));
            let build = &self.builds[*other];
            let is_stopped = build.is_revived || build.jobs.values().any(is_failed);
            build.sameness() == request.sameness() && self.is_waiting(**other) && !is_stopped
        };
        let same = self.builds.keys().find(is_same);
        demand("equal requests that wait are one build", same.is_none(), || format!("{id} beside {same:?}"))
    }

    /// An attempt goes on for an equal job that is wanted, of another that is not, and in the same hands.
    fn check_adoption(
        &self,
        id: BuildId,
        name: &JobName,
        lease: LeaseId,
        worker: &WorkerId,
        from: (BuildId, &JobName),
    ) -> Checked {
        let at = || format!("{id}.{name} adopts lease {lease} of {from:?}");
        let holder = self.tracks().find(|(_, _, track)| track.active.as_ref().is_some_and(|held| held.1 == lease));
        let Some((its_build, its_name, held)) = holder else {
            return demand("only what runs is handed over", false, at);
        };
        let is_same_hand = held.active.as_ref().is_some_and(|held| held.2 == *worker);
        demand("a lease stays in the same hands", is_same_hand, at)?;
        let build = &self.builds[&id];
        let track = build.jobs.get(name);
        let Some((job, track)) = build.graph.jobs.get(name).zip(track) else {
            return demand("only jobs of the graph run", false, at);
        };
        let is_left = track.active.is_none() && track.outcome.is_none() && !track.is_cancel_wanted;
        demand("only a job that waits adopts", is_left && (!build.is_canceled || job.cleanup), at)?;
        demand("no job starts before its needs accept", needs_accept(build, job), at)?;
        demand("no job bypasses its gate", job.gate.is_none() || track.is_approved, at)?;
        demand("one job at most in a concurrency group", job.concurrency.is_none(), at)?;
        let true_operation = |build: BuildId, name: &JobName| self.operations.get(&(build, name.clone()));
        let is_equal = true_operation(id, name).is_some()
            && true_operation(id, name) == true_operation(its_build, its_name)
            && true_operation(id, name) == true_operation(from.0, from.1);
        demand("only equal work is adopted", is_equal, at)
    }

    fn check_lease(&self, id: BuildId, name: &JobName, lease: LeaseId, worker: &WorkerId, try_number: u32) -> Checked {
        let build = &self.builds[&id];
        let at = || format!("lease {lease} of {id}.{name} for {worker}");
        demand("leases only grow", lease > self.last_lease, at)?;
        let Some(job) = build.graph.jobs.get(name) else {
            return demand("only jobs of the graph run", false, at);
        };
        let track = build.jobs.get(name);
        demand("no two attempts of one job at once", track.is_none_or(|track| track.active.is_none()), at)?;
        demand("no job runs after its end", track.is_none_or(|track| track.outcome.is_none()), at)?;
        // A further try goes on even if somebody has put one of its needs back.
        demand("no job starts before its needs accept", try_number > 1 || needs_accept(build, job), at)?;
        let is_approved = job.gate.is_none() || track.is_some_and(|track| track.is_approved);
        demand("no job bypasses its gate", is_approved, at)?;
        demand("only cleanup starts after a cancel", !build.is_canceled || job.cleanup, at)?;
        self.check_group(id, name, job)?;
        demand("a closed worker gets nothing new", !self.closed.contains(worker), at)?;
        demand("nothing of a held pool is handed out", !self.held_pools.contains(&job.pool), at)?;
        demand("no canceled job is tried again", track.is_none_or(|track| !track.is_cancel_wanted), at)?;
        let n_active =
            self.tracks().filter(|(_, _, track)| track.active.as_ref().is_some_and(|held| held.2 == *worker));
        let n_slots = self.slots.get(worker).copied().unwrap_or(0) as usize;
        demand("slots are never exceeded", n_active.count() < n_slots, at)?;
        self.check_operation(id, name)
    }

    fn check_group(&self, id: BuildId, name: &JobName, job: &Job) -> Checked {
        let Some(concurrency) = &job.concurrency else { return Ok(()) };
        let other = self.tracks().find(|&(build, other, track)| {
            let other_job = self.builds[&build].graph.jobs.get(other);
            let is_in_group = other_job
                .and_then(|job| job.concurrency.as_ref())
                .is_some_and(|other| other.group == concurrency.group)
                && self.builds[&build].trust == self.builds[&id].trust;
            let is_holding = track.has_begun && track.outcome.is_none() && !track.is_retried || track.active.is_some();
            (build, other) != (id, name) && is_in_group && is_holding
        });
        demand("one job at most in a concurrency group", other.is_none(), || {
            format!("{id}.{name} beside {:?}", other.map(|(build, name, _)| (build, name.clone())))
        })
    }

    fn check_operation(&self, id: BuildId, name: &JobName) -> Checked {
        let track = self.builds[&id].jobs.get(name);
        let Some(operation) = track.filter(|track| !track.is_retried).and_then(|track| track.operation) else {
            return Ok(());
        };
        let law = "equal operations run once";
        demand(law, !self.passed.contains(&operation), || format!("{id}.{name} runs what has passed"))?;
        let beside = self.tracks().find(|&(build, other, track)| {
            (build, other) != (id, name)
                && track.active.is_some()
                && track.operation == Some(operation)
                && !track.is_retried
        });
        demand(law, beside.is_none(), || format!("{id}.{name} runs beside an equal one"))
    }

    /// An attempt at some of a job's tests passes only if none is known to have failed since it passed, and all ran that ran when the
    /// job last passed whole.
    fn see_tests(&mut self, id: BuildId, name: &JobName, report: &AttemptReport) -> Checked {
        let track = self.track(id, name);
        for case in &report.tests {
            let is_run = case.outcome != TestOutcome::Skipped;
            if is_run || report.partial.is_none() {
                track.tests.insert(TestName::from(case), case.outcome);
            }
            if is_run {
                track.ran.insert(TestName::from(case));
            }
        }
        if !matches!(report.outcome, Outcome::Passed { .. }) {
            return Ok(());
        }
        let track = &self.builds[&id].jobs[name];
        if report.partial.is_none() {
            let ran = report.tests.iter().filter(|case| case.outcome != TestOutcome::Skipped).map(TestName::from);
            self.whole.insert((id, name.clone()), ran.collect());
            return Ok(());
        }
        let failed = track.tests.iter().find(|(_, outcome)| **outcome == TestOutcome::Failed);
        demand("no job passes by some tests while another failed", failed.is_none(), || {
            format!("{id}.{name}: {failed:?}")
        })?;
        let before = track.compared.and_then(|build| self.whole.get(&(build, name.clone())));
        let left_out = before.and_then(|before| before.difference(&track.ran).next());
        demand("no job passes by some tests while another never ran", left_out.is_none(), || {
            format!("{id}.{name}: {left_out:?}")
        })
    }

    fn check_finish(
        &self,
        id: BuildId,
        name: &JobName,
        held: (AttemptNumber, LeaseId),
        report: &AttemptReport,
    ) -> Checked {
        let outcome = &report.outcome;
        let at = || format!("attempt {} of {id}.{name} under lease {}", held.0, held.1);
        let active = self.builds[&id].jobs.get(name).and_then(|track| track.active.as_ref());
        let is_active = active.is_some_and(|active| (active.0, active.1) == held);
        demand("no result is counted twice or late", is_active, at)?;
        let is_ours = matches!(outcome, Outcome::Failed(Failure::Lost | Failure::Canceled { .. }));
        // One that was asked for some tests may not count as passed though its steps did.
        let is_doubted = report.partial.is_some() && matches!(outcome, Outcome::Failed(Failure::Step { .. }));
        let is_reported = self
            .reported
            .get(&held.1)
            .is_some_and(|reported| reported == outcome || (is_doubted && matches!(reported, Outcome::Passed { .. })));
        demand("results are those of their own attempt", is_ours || is_reported, at)
    }

    fn check_end(&self, id: BuildId, name: &JobName, outcome: &Outcome, how: &Ended) -> Checked {
        let build = &self.builds[&id];
        let at = || format!("{id}.{name} ends {outcome:?} by {how:?}");
        let track = build.jobs.get(name);
        demand("a job ends once", track.is_none_or(|track| track.outcome.is_none() && track.active.is_none()), at)?;
        let Some(job) = build.graph.jobs.get(name) else {
            return demand("only jobs of the graph end", false, at);
        };
        match outcome {
            Outcome::Skipped(SkipReason::Need { because }) => {
                let need = job.needs.iter().find(|need| need.job == *because);
                let is_refused = need.is_some_and(|need| {
                    ending_of(build, because).is_some_and(|ending| !accepts(need.accepts, ending, job))
                });
                demand("only an unacceptable need skips a job", is_refused, at)
            }
            Outcome::Passed { .. } => {
                demand("no job passes before its needs accept", needs_accept(build, job), at)?;
                let true_operation = |build: BuildId, name: &JobName| self.operations.get(&(build, name.clone()));
                if let Ended::Reused(reused) = how {
                    let is_equal = true_operation(id, name) == true_operation(reused.build, &reused.job);
                    demand("only equal work is taken over", is_equal, at)?;
                    let made = self.passed_at.get(&(reused.build, reused.attempt));
                    let evicted = true_operation(id, name).and_then(|operation| self.evicted_at.get(operation));
                    let asked = self.asked_at.get(&(id, name.clone()));
                    let is_gone = made < evicted && evicted < asked;
                    return demand("nothing evicted is taken over", !is_gone, at);
                }
                demand("no job with steps passes without them", job.steps.is_empty(), at)
            }
            _ => Ok(()),
        }
    }

    /// What a worker or a person has seen stays as it is, or the build ends.
    fn check_evaluation(&self, id: BuildId, diagnostics: &[Diagnostic]) -> Checked {
        let build = &self.builds[&id];
        let melted = melted(build);
        let codes: Vec<_> = diagnostics.iter().map(|diagnostic| &*diagnostic.code).collect();
        if codes == ["diverged"] {
            demand("only a change to what has begun diverges", melted.is_some(), || format!("build {id}"))?;
            let is_told = melted.is_some_and(|name| diagnostics[0].message.contains(&format!("`{name}`")));
            return demand("what diverged is named", is_told, || format!("build {id}: {diagnostics:?}"));
        }
        demand("what has begun is frozen", melted.is_none(), || format!("build {id} changes {melted:?}"))?;
        demand("a right pipeline has no faults", codes.is_empty(), || format!("build {id}: {diagnostics:?}"))
    }

    fn check_build_end(&self, id: BuildId, verdict: &Verdict) -> Checked {
        let build = &self.builds[&id];
        if let Verdict::Diverged { job } = verdict {
            let is_so = build.melted.as_ref() == Some(job);
            demand("only a change to what has begun diverges", is_so, || format!("build {id}: {job}"))?;
        }
        let unended =
            build.graph.jobs.keys().find(|name| build.jobs.get(*name).is_none_or(|track| track.outcome.is_none()));
        demand("every job ends", unended.is_none(), || format!("build {id} ended before {unended:?}"))
    }

    fn tracks(&self) -> impl Iterator<Item = (BuildId, &JobName, &Track)> {
        self.builds.iter().flat_map(|(&id, build)| build.jobs.iter().map(move |(name, track)| (id, name, track)))
    }

    /// After the storm: every build has ended.
    ///
    /// # Errors
    /// The builds that have not.
    pub fn check_calm(&self, created: &BTreeSet<BuildId>) -> Checked {
        let unended: Vec<_> =
            created.iter().filter(|id| self.builds.get(id).is_none_or(|build| !build.is_over)).collect();
        demand("every job ends", unended.is_empty(), || format!("builds {unended:?} never ended"))
    }

    /// Jobs that failed and of which a test failed when it was reported last.
    #[must_use]
    pub fn with_failing_tests(&self) -> Vec<(BuildId, JobName)> {
        let failed = self.tracks().filter(|(_, _, track)| {
            let has_failed = |outcome: &TestOutcome| *outcome == TestOutcome::Failed;
            matches!(track.outcome, Some(Outcome::Failed(_))) && track.tests.values().any(has_failed)
        });
        failed.map(|(id, name, _)| (id, name.clone())).collect()
    }

    /// Jobs that could be retried by name: those that failed.
    #[must_use]
    pub fn failed_jobs(&self) -> Vec<(BuildId, JobName)> {
        let failed = self.tracks().filter(|(_, _, track)| matches!(track.outcome, Some(Outcome::Failed(_))));
        failed.map(|(id, name, _)| (id, name.clone())).collect()
    }
}

/// The smallest name among the jobs that a worker or a person has seen, or on whose end others went on, and that the
/// pipeline with what is known now makes otherwise.
fn melted(build: &Modeled) -> Option<&JobName> {
    build.pipeline.betrayed(&build.known)?;
    let next = build.pipeline.evaluate(&build.known).graph;
    let is_frozen = |track: &Track| track.has_begun || track.is_gate_seen || track.outcome.is_some();
    let seen = build.jobs.iter().filter(|&(name, track)| is_frozen(track) && build.graph.jobs.contains_key(name));
    let is_hole = |name: &JobName| build.graph.holes.iter().any(|hole| hole.name == name.as_str());
    // Needs on what is still to come become needs on what comes.
    let without_needs = |job: &Arc<Job>| Job { needs: Vec::new(), ..Job::clone(job) };
    let is_kept = |name: &&JobName| match (build.graph.jobs.get(*name), next.jobs.get(*name)) {
        (Some(before), Some(after)) if before.needs.iter().any(|need| is_hole(&need.job)) => {
            without_needs(before) == without_needs(after)
        }
        (before, after) => before == after,
    };
    seen.map(|(name, _)| name).find(|name| !is_kept(name))
}

fn ending_of(build: &Modeled, name: &JobName) -> Option<Ending> {
    let job: &Arc<Job> = build.graph.jobs.get(name)?;
    Some(Ending::of(build.jobs.get(name)?.outcome.as_ref()?, job.toleration()))
}

/// The row of the outcome table: a canceled job satisfies `finished` only for cleanup.
fn accepts(accepts: Accepts, ending: Ending, dependent: &Job) -> bool {
    match ending {
        Ending::Canceled if accepts == Accepts::FINISHED => dependent.cleanup,
        ending => accepts.endings().any(|accepted| accepted == ending),
    }
}

fn needs_accept(build: &Modeled, job: &Job) -> bool {
    // After a cancel nothing more grows, and cleanup no longer waits for what would have.
    let is_coming = |name: &JobName| build.graph.holes.iter().any(|hole| hole.name == name.as_str());
    job.needs.iter().all(|need| match ending_of(build, &need.job) {
        Some(ending) => accepts(need.accepts, ending, job),
        None => is_coming(&need.job) && job.cleanup,
    })
}

/// A job waits again, and so does everything that was skipped because of it.
fn put_back(build: &mut Modeled, name: &JobName) {
    // Nothing is left out in storms but by builds that stop at their first failure; these now go on.
    let is_left_out = |(name, track): &(&JobName, &Track)| {
        let is_told = build.known.answers.contains_key(&Question::Outcome((*name).clone()));
        matches!(track.outcome, Some(Outcome::Skipped(SkipReason::NotWanted { .. }))) && !is_told
    };
    let mut back: BTreeSet<JobName> = build.jobs.iter().filter(is_left_out).map(|(name, _)| name.clone()).collect();
    back.insert(name.clone());
    loop {
        let next = build.graph.jobs.iter().find(|(other, job)| {
            let is_skipped = build.jobs.get(*other).is_some_and(|track| {
                matches!(track.outcome, Some(Outcome::Skipped(SkipReason::Need { .. } | SkipReason::Condition { .. })))
            });
            let is_told = build.known.answers.contains_key(&Question::Outcome((*other).clone()));
            is_skipped && !is_told && !back.contains(*other) && job.needs.iter().any(|need| back.contains(&need.job))
        });
        let Some((next, _)) = next else { break };
        back.insert(next.clone());
    }
    for other in &back {
        let track = build.jobs.entry(other.clone()).or_default();
        if other == name && matches!(track.outcome, Some(Outcome::Skipped(SkipReason::Rejected { .. }))) {
            track.is_gate_seen = false;
        }
        track.outcome = None;
        track.is_cancel_wanted = false;
        track.is_retried |= other == name;
        if !track.is_retried {
            // It is asked for anew.
            track.operation = None;
        }
    }
}
