//! Judges inputs: what is late, repeated or wrong becomes nothing, the rest becomes facts.

use std::collections::BTreeMap;
use std::sync::Arc;

use graph::outcome::{Scope, is_reusable};
use graph::{
    Answer, AskedTests, AttemptNumber, AttemptReport, BuildId, Diagnostic, Digest, Evaluation, Failure, JobName,
    LeaseId, Moved, Outcome, Question, Severity, SkipReason, Timestamp, Verdict, WorkerId,
};
use serde_json::Value;

use crate::build::{Build, GateState, Halt, Place, Slot, as_read, can_be_asked, is_there};
use crate::effect::Effect;
use crate::engine::{Engine, Step};
use crate::fact::{Ended, Reused, What};
use crate::input::{Input, Presence};
use crate::lease::LEASE_UNCLAIMED_MS;
use crate::line::JobRef;

/// The most questions of one evaluation.
pub const QUESTIONS_MAX: usize = 50_000;
/// The most evaluations of one build.
pub const EVALUATIONS_MAX: u32 = 20_000;

/// The exit code that stands for an attempt whose steps passed, and whose reports do not tell that the tests passed for which it was
/// asked.
pub const EXIT_UNCONFIRMED: i32 = 1;

/// Who cancels a job that runs, if another takes its concurrency group from it.
pub const NEWER_IN_GROUP: &str = "a newer job of its concurrency group";

impl Engine {
    pub(crate) fn judge(&mut self, step: &mut Step, input: Input) {
        match input {
            Input::BuildRequested { build, request } => self.judge_request(step, build, request),
            Input::Evaluated { build, answers_known, evaluation } => {
                self.judge_evaluation(step, build, answers_known, *evaluation);
            }
            Input::Answered { build, question, answer } => self.judge_answer(step, build, question, answer),
            Input::OperationResolved { build, job, operation, hit, evicted } => {
                let operation = operation.map(|operation| (operation, evicted));
                self.judge_operation(step, build, job, operation, hit);
            }
            Input::ChildPrepared { build, job, asking, child } => self.judge_child(step, build, job, asking, child),
            Input::GateAnswered { build, job, answer, by, reason } => {
                self.judge_gate(step, (build, job), answer, (by, reason))
            }
            Input::WorkerPresent { worker, presence } => self.judge_presence(step, &worker, presence),
            Input::WorkerLeft { worker } => self.lose_worker(step, &worker),
            Input::AttemptFinished { build, attempt, lease, report } => {
                self.judge_report(step, build, attempt, lease, report);
            }
            Input::JobRetried { build, job, by, tests, key } => {
                self.judge_retry(step, (build, job), by, tests, key);
            }
            Input::JobCanceled { build, job, by } => self.judge_cancel(step, build, job, by),
            Input::GroupEntered { build, group, by } => self.judge_entered(step, build, &group, &by),
            Input::PoolHeld { pool, reason } => self.schedule.hold(pool, reason),
            Input::MadeUrgent { build, by } => self.urge(step, build, &by),
            Input::CancelRequested { build, by } => {
                let is_running = |build: &Build| build.verdict.is_none() && !is_canceled(build);
                if self.builds.get(&build).is_some_and(is_running) {
                    self.record(step, build, What::CancelRequested { by });
                }
            }
        }
    }

    fn judge_evaluation(&mut self, step: &mut Step, id: BuildId, answers_known: usize, evaluation: Evaluation) {
        let Some(build) = self.builds.get(&id) else { return };
        let is_wanted = build.verdict.is_none() && build.halt.is_none();
        if !is_wanted || !build.is_evaluation_due() || answers_known != build.known.answers.len() {
            return;
        }
        let Evaluation { graph, questions, mut diagnostics, moved, program } = evaluation;
        let mut verdict = Verdict::Failed { because: None };
        if diagnostics.iter().all(|diagnostic| diagnostic.severity != Severity::Error) {
            diagnostics.extend(graph::validate::faults(&graph, |_, _| None));
            diagnostics.extend(bound_passed(build, questions.len()));
            if !graph.holes.is_empty() && questions.iter().all(|question| build.known.answers.contains_key(question)) {
                diagnostics.push(never_filled(&graph));
            }
            diagnostics.extend(never_there(build, &graph));
            if let Some((job, diagnostic)) = divergence(build, &graph, &moved) {
                diagnostics.push(diagnostic);
                verdict = Verdict::Diverged { job };
            }
        }
        let is_wrong = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
        let (graph, questions) =
            if is_wrong { (build.graph(), Vec::new()) } else { (Arc::new(graph), questions.into_iter().collect()) };
        self.record(step, id, What::Evaluated { graph, questions, diagnostics, program });
        if is_wrong {
            self.abort(step, id, verdict);
        }
    }

    /// Ends a build whose pipeline is wrong: what runs is told to stop and not waited for.
    pub(crate) fn abort(&mut self, step: &mut Step, id: BuildId, verdict: Verdict) {
        let by = "the pipeline".to_owned();
        for index in 0..self.builds[&id].slots.len() {
            let job = (id, index as u32);
            let slot = self.slot(job);
            if slot.end.is_some() || slot.flags.is_dropped {
                continue;
            }
            let outcome = Outcome::Failed(Failure::Canceled { by: by.clone() });
            let name = slot.name.clone();
            if slot.lease.is_some()
                && let Some(adopter) = self.adopter_of(job)
            {
                self.hand_over(step, job, adopter);
                continue;
            }
            match slot.lease.clone() {
                None => {
                    self.cancel_child_of(step, job, &by);
                    self.record(step, id, What::JobEnded { job: name, outcome, how: Ended::Decided });
                }
                Some(lease) => {
                    let report = Box::new(AttemptReport::of(outcome, self.now));
                    let resources = slot.job.resources;
                    let (attempt, retry_at) = (lease.attempt, None);
                    self.record(
                        step,
                        id,
                        What::AttemptFinished { job: name, attempt, lease: lease.id, report, retry_at },
                    );
                    // The worker still runs it, so its slot is not free yet.
                    self.workers.give(&lease.worker, lease.id, resources);
                    self.lingering.insert(lease.id, lease.worker.clone());
                    step.effects.push(Effect::Stop { worker: lease.worker, lease: lease.id, by: by.clone() });
                }
            }
        }
        self.record(step, id, What::BuildEnded { verdict });
    }

    fn judge_answer(&mut self, step: &mut Step, id: BuildId, question: Question, answer: Answer) {
        let Some(build) = self.builds.get(&id).filter(|build| build.verdict.is_none()) else { return };
        // Outcomes are answered from here alone.
        let is_ours = matches!(question, Question::Outcome(_));
        let is_asked = build.evaluated.as_ref().is_some_and(|evaluated| evaluated.questions.contains(&question));
        if !is_ours && is_asked && !build.known.answers.contains_key(&question) {
            self.record(step, id, What::Answered { question, answer });
        }
    }

    fn judge_operation(
        &mut self,
        step: &mut Step,
        id: BuildId,
        job: JobName,
        operation: Result<(Digest, Option<Timestamp>), String>,
        hit: Option<(Reused, Outcome)>,
    ) {
        let Some(index) = self.index_of(id, &job) else { return };
        if self.slot((id, index)).place != Place::Resolving {
            return;
        }
        let (operation, evicted) = match operation {
            Ok(operation) => operation,
            Err(reason) => return self.record(step, id, What::OperationUnknown { job, reason }),
        };
        self.record(step, id, What::OperationKnown { job: job.clone(), operation, evicted });
        let is_fresh_wanted = self.slot((id, index)).flags.is_retried;
        if let Some((reused, outcome)) = hit
            && !is_fresh_wanted
            && is_reusable(&outcome, if reused.build == id { Scope::SameBuild } else { Scope::OtherBuild })
        {
            self.record(step, id, What::JobEnded { job, outcome, how: Ended::Reused(reused) });
        }
    }

    fn judge_gate(
        &mut self,
        step: &mut Step,
        (id, job): (BuildId, JobName),
        answer: Option<BTreeMap<String, Value>>,
        (by, reason): (String, String),
    ) {
        let Some(index) = self.index_of(id, &job) else { return };
        let slot = self.slot((id, index));
        let is_open = slot.gate == GateState::Open && slot.end.is_none() && !slot.flags.is_dropped;
        let answer = answer.map(|answer| complete(slot, answer));
        match answer {
            _ if !is_open => {}
            None => self.record(step, id, What::GateAnswered { job, answer: None, by, reason }),
            Some(Some(answer)) => self.record(step, id, What::GateAnswered { job, answer: Some(answer), by, reason }),
            // Fields of wrong types: whoever asked has not looked at the form.
            Some(None) => {}
        }
    }

    fn judge_retry(
        &mut self,
        step: &mut Step,
        (id, job): (BuildId, JobName),
        by: String,
        tests: Option<Arc<AskedTests>>,
        key: Option<Digest>,
    ) {
        let Some(index) = self.index_of(id, &job) else { return };
        let build = &self.builds[&id];
        let is_over = is_canceled(build) || matches!(build.verdict, Some(Verdict::Diverged { .. }));
        let slot = build.slot(index);
        let is_eligible = slot.end.as_ref().is_some_and(|end| {
            matches!(
                end.outcome,
                Outcome::Failed(_)
                    | Outcome::Skipped(
                        SkipReason::Condition { .. } | SkipReason::Rejected { .. } | SkipReason::NotWanted { .. }
                    )
            )
        });
        let is_askable = tests
            .as_ref()
            .is_none_or(|asked| can_be_asked(&slot.job, asked) && build.last_attempt(index) == asked.after);
        // An outcome that the pipeline was told cannot change any more.
        if !is_over && is_eligible && is_askable && !slot.flags.is_dropped && !build.is_outcome_answered(index) {
            self.record(step, id, What::JobRetried { job, by, tests, key });
        }
    }

    fn judge_cancel(&mut self, step: &mut Step, id: BuildId, job: JobName, by: String) {
        let Some(index) = self.index_of(id, &job) else { return };
        let slot = self.slot((id, index));
        if self.builds[&id].verdict.is_some() || slot.end.is_some() || slot.flags.is_dropped {
            return;
        }
        if slot.lease.is_none() && slot.child.is_none() {
            self.cancel_waiting(step, (id, index), &by);
        } else if slot.canceled_by.is_none() {
            self.record(step, id, What::JobCancelRequested { job, by });
        }
    }

    fn judge_entered(&mut self, step: &mut Step, id: BuildId, group: &str, by: &str) {
        if !self.builds.contains_key(&id) {
            return;
        }
        let key = self.group_key(id, group.into());
        let waiting = self.groups.get(&key).map(|group| group.waiting.clone()).unwrap_or_default();
        for (_, build, index) in waiting {
            self.cancel_waiting(step, (build, index), by);
        }
    }

    fn judge_presence(&mut self, step: &mut Step, id: &WorkerId, presence: Presence) {
        let ours: Vec<LeaseId> = self.leases_of(id);
        for &lease in &ours {
            let job = self.leases[&lease];
            let since = self.slot(job).lease.as_ref().map_or(self.now, |lease| lease.since);
            if presence.leases.contains(&lease) {
                // What it was told may have been lost on the way.
                step.effects.extend(self.stop_effect(job));
            } else if self.now.ms_since(since) >= LEASE_UNCLAIMED_MS {
                self.lose_lease(step, lease);
            }
        }
        let ours = ours.into_iter().filter(|lease| self.leases.contains_key(lease));
        let mut held: BTreeMap<_, _> = ours.map(|lease| (lease, self.resources_of(lease))).collect();
        for &lease in &presence.leases {
            let resources = self.resources_of(lease);
            held.entry(lease).or_insert_with(|| {
                let by = "the lease is no longer wanted".to_owned();
                step.effects.push(Effect::Stop { worker: id.clone(), lease, by });
                resources
            });
        }
        self.lingering.retain(|lease, worker| worker != id || presence.leases.contains(lease));
        let now = self.now;
        self.workers.show(id, presence, held, now);
    }

    fn judge_report(
        &mut self,
        step: &mut Step,
        id: BuildId,
        attempt: AttemptNumber,
        lease: LeaseId,
        mut report: Box<AttemptReport>,
    ) {
        if let Some(worker) = self.lingering.remove(&lease) {
            self.workers.take(&worker, lease);
        }
        let Some(&job) = self.leases.get(&lease) else { return };
        let is_current = self.slot(job).lease.as_ref().is_some_and(|held| {
            // A worker knows nothing of an adoption.
            let began = held.from.as_ref().map_or((job.0, held.attempt), |from| (from.build, from.attempt));
            held.id == lease && (began == (id, attempt) || (job.0, held.attempt) == (id, attempt))
        });
        if !is_current {
            return;
        }
        if let Outcome::Skipped(_) = report.outcome {
            let message = "the worker reported that it skipped the job".to_owned();
            report.outcome = Outcome::Failed(Failure::Infra { message });
        }
        crate::report::bound(&mut report);
        if let Some(fault) = moved_image(&self.builds[&job.0], &report) {
            report.outcome = Outcome::Failed(Failure::Infra { message: fault });
            report.artifacts.clear();
        }
        if let Some(asked) = self.builds[&job.0].asked(job.1) {
            hold_to(asked, &mut report);
        }
        self.finish(step, job, report);
    }

    /// The attempt that a job's lease stands for has ended with `report`.
    fn finish(&mut self, step: &mut Step, job: JobRef, mut report: Box<AttemptReport>) {
        let slot = self.slot(job);
        let Some(held) = &slot.lease else { return };
        let (attempt, lease) = (held.attempt, held.id);
        report.waited_for.clone_from(&held.waited_for);
        // Who lost it does not know when it began.
        if report.outcome == Outcome::Failed(Failure::Lost) {
            report.started = held.since.min(report.finished);
        }
        let is_unwanted = slot.flags.is_stopping || slot.canceled_by.is_some();
        let stopped_by = is_unwanted.then(|| self.stopped_by(job));
        let mut retry_at = None;
        if let Outcome::Failed(failure) = &report.outcome {
            match (stopped_by, failure) {
                (Some(by), Failure::Lost | Failure::Infra { .. } | Failure::Setup { .. }) => {
                    report.outcome = Outcome::Failed(Failure::Canceled { by });
                }
                (None, failure) if slot.job.retry.admits(failure, slot.n_tries) => {
                    retry_at = Some(self.now.plus_ms(slot.job.retry.wait_ms(slot.n_tries)));
                }
                _ => {}
            }
        }
        report.partial = self.builds[&job.0].asked(job.1).map(|asked| asked.partial());
        let name = slot.name.clone();
        self.record(step, job.0, What::AttemptFinished { job: name, attempt, lease, report, retry_at });
    }

    /// Gives up every lease of workers whose word no longer holds.
    pub(crate) fn lose_silent(&mut self, step: &mut Step) {
        while let Some(worker) = self.workers.silent(self.now) {
            self.lose_worker(step, &worker);
        }
    }

    fn lose_worker(&mut self, step: &mut Step, worker: &WorkerId) {
        for lease in self.leases_of(worker) {
            self.lose_lease(step, lease);
        }
        self.workers.remove(worker);
        self.lingering.retain(|_, holder| holder != worker);
    }

    fn lose_lease(&mut self, step: &mut Step, lease: LeaseId) {
        if let Some(&job) = self.leases.get(&lease) {
            self.finish(step, job, Box::new(AttemptReport::of(Outcome::Failed(Failure::Lost), self.now)));
        }
    }

    /// The leases that count and are in this worker's hands.
    fn leases_of(&self, worker: &WorkerId) -> Vec<LeaseId> {
        self.workers.held(worker).filter(|lease| self.leases.contains_key(lease)).collect()
    }

    /// Jobs whose time has come go on.
    pub(crate) fn wake_sleepers(&mut self) {
        while let Some(&(at, build, index)) = self.timers.first()
            && at <= self.now
        {
            self.leave_lines((build, index));
            self.consider((build, index));
        }
    }

    /// Who or what wants a job's attempt to stop.
    pub(crate) fn stopped_by(&self, job: JobRef) -> String {
        if let Some(by) = &self.slot(job).canceled_by {
            return (**by).to_owned();
        }
        match &self.builds[&job.0].halt {
            Some(Halt::Canceled { by }) => by.clone(),
            Some(Halt::FirstFailure { because }) => format!("the failure of `{because}`"),
            None => NEWER_IN_GROUP.to_owned(),
        }
    }
}

fn is_canceled(build: &Build) -> bool {
    matches!(build.halt, Some(Halt::Canceled { .. }))
}

/// A gate's answer with defaults filled in; `None` if a field is missing, unknown or of a wrong type.
fn complete(slot: &Slot, mut answer: BTreeMap<String, Value>) -> Option<BTreeMap<String, Value>> {
    let fields = &slot.job.gate.as_ref()?.fields;
    for (name, field) in fields {
        if !answer.contains_key(name) {
            answer.insert(name.clone(), field.default.clone()?);
        }
    }
    let is_right = answer.iter().all(|(name, value)| fields.get(name).is_some_and(|field| field.admits(value)));
    is_right.then_some(answer)
}

fn bound_passed(build: &Build, n_questions: usize) -> Option<Diagnostic> {
    if n_questions > QUESTIONS_MAX {
        let message = format!("the pipeline asks {n_questions} questions; the most is {QUESTIONS_MAX}");
        return Some(Diagnostic::error("too-many-questions", message).help("let fewer jobs decide what grows"));
    }
    if build.n_evaluations >= EVALUATIONS_MAX {
        let message = format!("the pipeline grew {EVALUATIONS_MAX} times and is not done");
        return Some(Diagnostic::error("grows-without-end", message).help("let the pipeline ask for less"));
    }
    None
}

/// Why the report cannot count: one of its images is not what it was in an earlier attempt of the build, which began at the same
/// time. The next try is told what the image is.
fn moved_image(build: &Build, report: &AttemptReport) -> Option<String> {
    let moved =
        |(reference, digest): &(&String, &String)| build.images.get(*reference).is_some_and(|known| known != *digest);
    let (reference, digest) = report.images.iter().find(moved)?;
    let known = &build.images[reference];
    Some(format!("the image `{reference}` is {known} in this build, and came to be {digest} while the job began"))
}

/// An attempt that was asked for some tests passes only if its reports say that they passed. The worker may be of a version that
/// does not know of it.
fn hold_to(asked: &AskedTests, report: &mut AttemptReport) {
    if !matches!(report.outcome, Outcome::Passed { .. }) {
        return;
    }
    match asked.confirm(&report.tests) {
        Ok(()) if asked.never_run.is_none() => report.notes.push(AskedTests::UNCOMPARED.to_owned()),
        Ok(()) => {}
        Err(reason) => {
            report.notes.push(reason);
            // As of a step that passed and broke its word: an artifact that it did not make.
            let step = u16::try_from(report.steps.len().saturating_sub(1)).unwrap_or(u16::MAX);
            report.outcome = Outcome::Failed(Failure::Step { step, exit: EXIT_UNCONFIRMED, message: None });
        }
    }
}

/// A job that the build was asked for alone, of a graph that is complete and has none of this name: all others would be skipped, and
/// the build pass. What was to grow and came to nothing is no fault.
fn never_there(build: &Build, graph: &graph::Graph) -> Option<Diagnostic> {
    let only = &build.request.options.only;
    if only.is_empty() || !graph.holes.is_empty() {
        return None;
    }
    let is_missing = |name: &JobName| !is_there(graph, name) && !build.came_to_nothing(name, graph);
    let name = only.iter().map(|name| JobName::from(name.as_str())).find(is_missing)?;
    if graph.jobs.is_empty() {
        let kind = build.event.kind.name();
        let message =
            format!("the pipeline has no jobs for the event `{kind}`, and the build was asked for job `{name}`");
        let help = "ask for the job by an event that the pipeline's `on` names";
        return Some(Diagnostic::error("no-jobs-for-event", message).help(help));
    }
    let message = format!("the pipeline has no job `{name}`, which the build was asked for");
    Some(Diagnostic::error("unknown-job", message).help("`ropewalk plan` shows the jobs that there are"))
}

/// Holes for which no question is open.
pub(crate) fn never_filled(graph: &graph::Graph) -> Diagnostic {
    let names: Vec<_> = graph.holes.iter().map(|hole| format!("`{}`", hole.name)).collect();
    let message = format!("nothing is left to ask, and what {} waits for is not known", names.join(", "));
    Diagnostic::error("never-filled", message).help("let no job wait for what grows out of its own outcome")
}

/// The smallest name among jobs that have begun and that `graph` changes or no longer holds, with both versions and the places
/// of both.
fn divergence(build: &Build, graph: &graph::Graph, moved: &BTreeMap<JobName, Moved>) -> Option<(JobName, Diagnostic)> {
    let frozen = build.slots.iter().filter(|slot| !slot.flags.is_dropped && slot.is_frozen());
    let is_kept = |slot: &&Slot| graph.jobs.get(&slot.name).is_some_and(|job| slot.admits(job));
    let slot = frozen.filter(|slot| !is_kept(slot)).min_by(|left, right| left.name.cmp(&right.name))?;
    let shown = |job: &graph::Job| {
        // Our types serialize to JSON whatever they hold.
        graph::canonical::to_text(&serde_json::to_value(job).expect("a job always serializes"))
    };
    let after = graph.jobs.get(&slot.name).map(|job| as_read(graph::Job::clone(job), &slot.job));
    let after = after.map_or_else(|| "no such job".to_owned(), |job| shown(&job));
    let name = &slot.name;
    let message = format!("job `{name}` had begun, and a later evaluation changes it");
    let mut diagnostic = Diagnostic::error("diverged", message);
    diagnostic.label = format!("before: {}; after: {after}", shown(&slot.job));
    // The label holds both versions as data, so the places are told by remarks.
    let Moved { before, after } = moved.get(name).cloned().unwrap_or_default();
    diagnostic.location = after.clone().or_else(|| before.clone());
    diagnostic.related = match (before, after) {
        (Some(before), Some(after)) if before != after => {
            vec![(before, "the version that began was added here".to_owned())]
        }
        _ => Vec::new(),
    };
    let diagnostic = diagnostic.help("let what is not known yet add jobs only, never change those that are there");
    Some((slot.name.clone(), diagnostic))
}
