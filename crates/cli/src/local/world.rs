//! Performs the effects of one build on this machine and answers through the inbox. Nothing here decides what runs.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use engine::fact::{Ended, What};
use engine::operation::{Manifest, Work, operation};
use engine::{Effect, Fact, Input, Presence, ReusePolicy, Reused};
use futures_util::future::{Either, FutureExt, LocalBoxFuture, Shared, select};
use graph::outcome::{JobEnd, failures};
use graph::{
    Answer, AttemptReport, AttemptSpec, BuildId, Digest, Failure, Job, JobName, Known, LeaseId, NeedResult, Outcome,
    Question, Resources, Reuse, Timestamp, Trust, Verdict, WorkerId, WorkspaceKind,
};
use server::shell::Doneness;
use server::{Inbox, World};
use store::Store;
use store::blob::Blobs;
use store::log::{LogWriter, Masker};
use store::rows::{FILES_GONE, OperationRow};
use worker::repository;

use super::clock::now;
use super::inputs::{self, Inputs, State};
use super::secrets::SecretSource;
use super::slots::{Slot, Slots};
use super::turns::{Asked, Turns};
use crate::commands::Stop;
use crate::given_up;
use crate::keeping::{LocalDepot, LocalLog, LocalMask, SharedView, unmasked};
use crate::machine;
use crate::pipeline::Pipeline;
use crate::room;
use crate::view::{Awaited, Moment};

/// The name of this machine's worker.
pub const WORKER: &str = "local";

/// Whether the process goes on while nothing is left but gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatePolicy {
    /// A person watches: wait for an answer from another terminal. Once asked to end, leave.
    Wait,
    /// A job waits for the build, which so has a process anyway: wait for an answer. Once asked to end, the gates end too: nobody
    /// would be there any more for what they let through.
    WaitedFor,
    /// Nobody watches: end, and go on when the gate is answered.
    Leave,
}

/// What a world is made of.
pub struct Parts {
    /// The build.
    pub build: BuildId,
    /// What happened.
    pub event: graph::Event,
    /// Its pipeline's files.
    pub pipeline: Pipeline,
    /// Facts and rows.
    pub store: Arc<dyn Store>,
    /// Artifacts and caches.
    pub blobs: Arc<dyn Blobs + Send + Sync>,
    /// The build's log.
    pub log: LogWriter,
    /// Who watches.
    pub view: SharedView,
    /// The repository's root.
    pub root: std::path::PathBuf,
    /// The folder of the project's data.
    pub data: std::path::PathBuf,
    /// What the tree holds.
    pub inputs: Inputs,
    /// Runs attempts.
    pub worker: Rc<worker::Worker>,
    /// Where values of secrets come from.
    pub secrets: SecretSource,
    /// Whether earlier results count.
    pub reuse: ReusePolicy,
    /// What to do when only gates are left.
    pub gates: Cell<GatePolicy>,
    /// How many attempts are begun at once.
    pub parallel: u32,
    /// In which of them they run.
    pub slots: Slots,
    /// In which order with the jobs of other processes.
    pub turns: Rc<Turns>,
    /// Where answers go.
    pub inbox: Inbox,
}

/// What this machine was offered as to the engine, and is offered as from now on.
struct Offer {
    parts: Rc<Parts>,
    running: Running,
    /// What the engine was told last; `None` before there is a graph.
    told: RefCell<Option<Presence>>,
}

/// Done once the state of a build's start is kept; an error says why no job may run on it.
type Held = Shared<LocalBoxFuture<'static, Result<(), String>>>;

/// The jobs for which earlier results stand, with their manifests.
type TakenOver = Rc<RefCell<Vec<(JobName, Arc<Job>, Manifest)>>>;

/// How attempts are told to stop, by lease.
type Running = Rc<RefCell<HashMap<LeaseId, worker::Cancel>>>;

/// The world of one local build.
pub struct LocalWorld {
    parts: Rc<Parts>,
    /// Effects asked for and not yet answered.
    in_flight: Rc<Cell<usize>>,
    running: Running,
    /// What this machine offers to the jobs of the graph.
    offer: Rc<Offer>,
    /// The manifests of operations that are known, by job.
    manifests: Rc<RefCell<HashMap<JobName, (Digest, Manifest)>>>,
    taken_over: TakenOver,
    /// Whether what was taken over before the first job ran fits the state of the start, once that is known.
    fits: Rc<OnceCell<Result<(), String>>>,
    trust: Trust,
    /// The jobs that were asked for; all if empty.
    only: BTreeSet<String>,
    /// The jobs whose gates wait for an answer.
    open_gates: HashSet<JobName>,
    /// The jobs that were begun here or have ended.
    settled: HashSet<JobName>,
    /// The state of the start being kept for the jobs of this graph; `None` until one of them runs or waits for a person.
    held: Option<Held>,
    /// How the build ended, once it has.
    pub verdict: Option<Verdict>,
    /// When jobs worked in the tree itself.
    worked: Rc<RefCell<Vec<(worker::workspace::Moment, worker::workspace::Moment)>>>,
    /// How each job ended that did not pass.
    pub failed: BTreeMap<JobName, (Outcome, Timestamp)>,
    /// The graph as last evaluated.
    pub graph: Option<Arc<graph::Graph>>,
    /// Whether the pipeline asked something of the repository; then the state of its jobs' inputs does not tell whether
    /// it would say the same again.
    pub has_asked: bool,
    /// Whether a job was made of more than its operation holds, so that its result was not kept.
    has_unkept: bool,
    /// What was wrong with the pipeline when it was evaluated last and was not at first, which has been told.
    pub faults: Vec<graph::Diagnostic>,
    first_faults: Vec<graph::Diagnostic>,
}

impl LocalWorld {
    /// A world of these parts.
    pub fn new(parts: Parts) -> Self {
        let (parts, running) = (Rc::new(parts), Running::default());
        Self {
            offer: Rc::new(Offer { parts: Rc::clone(&parts), running: Rc::clone(&running), told: RefCell::default() }),
            parts,
            in_flight: Rc::default(),
            running,
            manifests: Rc::default(),
            taken_over: TakenOver::default(),
            fits: Rc::default(),
            trust: Trust::default(),
            only: BTreeSet::new(),
            open_gates: HashSet::new(),
            settled: HashSet::new(),
            held: None,
            verdict: None,
            worked: Rc::default(),
            failed: BTreeMap::new(),
            graph: None,
            has_asked: false,
            has_unkept: false,
            faults: Vec::new(),
            first_faults: Vec::new(),
        }
    }

    /// The pipeline as it was lowered last.
    pub fn last_lowering(&self) -> Option<Rc<dialects::native::Lowered>> {
        self.parts.pipeline.last_lowering()
    }

    /// What the tree held, if anybody looked and it decides what comes of the same event again: then every job may be reused.
    pub fn seen(&self) -> Option<Rc<super::inputs::Seen>> {
        let may_recur = self.manifests.borrow().values().all(|(_, manifest)| manifest.may_recur());
        self.parts.inputs.looked().filter(|_| may_recur && !self.has_unkept)
    }

    /// Keeps what the tree held at the start, if anybody looked, for the process that goes on with the build.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_inputs(&self, file: &std::path::Path) -> std::io::Result<()> {
        self.parts.inputs.looked().map_or(Ok(()), |seen| seen.keep(file))
    }

    /// Keeps the state of the start for the jobs to come, before anything runs or waits for a person: a copy of the files for those that
    /// have one, the digests of inputs for those that may be reused. Of a build all of whose jobs are reused nothing is kept.
    fn hold_start(&mut self) -> Held {
        if let Some(held) = &self.held {
            return held.clone();
        }
        let Some(graph) = self.graph.clone() else {
            return futures_util::future::ready(Ok(())).boxed_local().shared();
        };
        let to_come = graph.jobs.iter().filter(|(name, job)| !job.steps.is_empty() && !self.settled.contains(*name));
        let grows = !graph.holes.is_empty();
        let (mut wants_files, mut wants_inputs) = (grows, grows);
        for (_, job) in to_come {
            wants_files |= job.workspace == WorkspaceKind::Isolated;
            wants_inputs |= job.reuse != Reuse::Never;
        }
        let (parts, taken_over, fits) = (Rc::clone(&self.parts), Rc::clone(&self.taken_over), Rc::clone(&self.fits));
        let hold = async move {
            let since = parts.inputs.looked_since();
            let files = async {
                if wants_files {
                    // Each job that wants them asks again, and is told what is wrong.
                    let _ = parts.worker.hold_start(since).await;
                }
            };
            let inputs = async {
                if wants_inputs {
                    parts.inputs.hold_start().await;
                }
            };
            futures_util::future::join(files, inputs).await;
            if wants_files {
                parts.inputs.agree(async |since| parts.worker.changed_since(since).await).await;
            }
            if fits.get().is_none() {
                let found = mixed(&parts, &taken_over).await;
                let _ = fits.set(found);
            }
            parts.inputs.note_progress();
            fits.get().cloned().unwrap_or(Ok(()))
        };
        self.held.insert(hold.boxed_local().shared()).clone()
    }

    /// Keeps the state of the start before a person is waited for, which may be without a process.
    fn hold_start_for_gate(&mut self) {
        let held = self.hold_start();
        // A word without meaning, so that the shell looks again whether it may end.
        self.answer(async move {
            // Whoever is to run is told what is wrong.
            let _ = held.await;
            nothing()
        });
    }

    /// A handle for the task that waits for signals.
    pub fn interrupter(&self) -> Interrupter {
        Interrupter { parts: Rc::clone(&self.parts), running: Rc::clone(&self.running) }
    }

    /// Sends the answer to an effect once `work` has it.
    fn answer(&self, work: impl Future<Output = Input> + 'static) {
        let (inbox, in_flight) = (self.parts.inbox.clone(), Rc::clone(&self.in_flight));
        in_flight.set(in_flight.get() + 1);
        tokio::task::spawn_local(async move {
            let input = work.await;
            in_flight.set(in_flight.get() - 1);
            // The shell has ended only if nobody waits for the answer.
            let _ = inbox.send(input).await;
        });
    }

    fn evaluate(&self, build: BuildId, known: &Arc<Known>) {
        let (parts, known, only) = (Rc::clone(&self.parts), Arc::clone(known), self.only.clone());
        self.answer(async move {
            let before = parts.pipeline.last_lowering();
            let lowered = parts.pipeline.lower(&known);
            let mut evaluation = lowered.evaluation.clone();
            // The first time it was looked at before the build began.
            evaluation.diagnostics.extend(machine::lacking(&evaluation.graph, &only));
            if let Some(before) = before.filter(|before| !Rc::ptr_eq(before, &lowered)) {
                evaluation.moved = lowered.moved_since(&before);
            }
            Input::Evaluated { build, answers_known: known.answers.len(), evaluation: Box::new(evaluation) }
        });
    }

    fn find_answer(&self, build: BuildId, question: Question) {
        let root = self.parts.root.clone();
        let event = self.parts.event.clone();
        self.answer(async move {
            let asked = question.clone();
            let answer = tokio::task::spawn_blocking(move || answer_from_repository(&root, &event, &asked)).await;
            let answer = answer.unwrap_or_else(|error| Answer::Unknown(error.to_string()));
            Input::Answered { build, question, answer }
        });
    }

    fn resolve(&self, build: BuildId, job: JobName, spec: Arc<Job>, needs: BTreeMap<JobName, NeedResult>) {
        let parts = Rc::clone(&self.parts);
        let (manifests, taken_over) = (Rc::clone(&self.manifests), Rc::clone(&self.taken_over));
        let trust = self.trust;
        self.answer(async move {
            let resolved = resolve(&parts, &job, &spec, &needs, trust).await;
            let resolved = match resolved {
                Some(resolved) => resolved,
                // The engine has ended it already.
                None => return nothing(),
            };
            let (operation, hit) = match resolved {
                Ok((digest, manifest, hit)) => {
                    if hit.is_some() {
                        taken_over.borrow_mut().push((job.clone(), Arc::clone(&spec), manifest.clone()));
                    }
                    manifests.borrow_mut().insert(job.clone(), (digest, manifest));
                    (Ok(digest), hit)
                }
                Err(reason) => (Err(reason), None),
            };
            Input::OperationResolved { build, job, operation, hit, evicted: None }
        });
    }

    fn start(&mut self, spec: Box<AttemptSpec>, group: Option<Arc<str>>) {
        if self.running.borrow().contains_key(&spec.lease) {
            return;
        }
        let held = self.hold_start();
        self.settled.insert(spec.name.clone());
        if self.graph.as_ref().is_some_and(|graph| self.settled.len() >= graph.jobs.len()) {
            self.parts.worker.expect_no_more();
        }
        let cancel = worker::Cancel::new();
        self.running.borrow_mut().insert(spec.lease, cancel.clone());
        let (parts, running) = (Rc::clone(&self.parts), Rc::clone(&self.running));
        let (manifests, worked) = (Rc::clone(&self.manifests), Rc::clone(&self.worked));
        let offer = Rc::clone(&self.offer);
        self.answer(async move {
            let (build, attempt, lease) = (spec.build, spec.attempt, spec.lease);
            let (name, job) = (spec.name.clone(), Arc::clone(&spec.job));
            let held = match held.await {
                Ok(()) => turn(&offer, &name, &job, group.as_deref(), &cancel).await,
                Err(message) => Err(Outcome::Failed(Failure::Setup { message })),
            };
            let mut report = match held {
                Ok(()) => {
                    let slot = slot(&offer, &name, &cancel).await;
                    let began = worker::workspace::Moment::now();
                    let report = run(&parts, *spec, cancel).await;
                    drop(slot);
                    if job.workspace == WorkspaceKind::InPlace {
                        worked.borrow_mut().push((began, worker::workspace::Moment::end_of_now()));
                    }
                    report
                }
                Err(outcome) => AttemptReport::of(outcome, now()),
            };
            if job.workspace == WorkspaceKind::InPlace {
                parts.inputs.tree_may_have_changed();
            }
            let manifest = manifests.borrow().get(&name).map(|(_, manifest)| manifest.clone());
            report.notes.extend(remarks(&parts, &job, manifest.as_ref(), &report).await);
            if !matches!(report.outcome, Outcome::Passed { .. }) {
                let left = given_up::children_left(&*parts.store, build, Some(&name));
                let unknown = |stop: Stop| vec![format!("what became of builds that it asked for: {}", stop.message)];
                report.notes.extend(left.unwrap_or_else(unknown));
            }
            // Before anything is stored: what happened has to fit.
            report.notes.extend(room::keep_after(&parts.data, build, attempt).await);
            running.borrow_mut().remove(&lease);
            parts.turns.stopped(&name);
            Input::AttemptFinished { build, attempt, lease, report: Box::new(report) }
        });
    }

    /// Offers this machine to every job of `graph`: locally no pool and no label is foreign.
    fn offer(&self, graph: &graph::Graph) {
        // Before any job of this graph starts: its secrets are those jobs' alone that name them.
        self.parts.worker.withhold(graph.jobs.values().flat_map(|job| job.all_secrets()));
        let presence = Presence {
            pools: graph.jobs.values().map(|job| job.pool.clone()).chain([String::new()]).collect(),
            labels: graph.jobs.values().flat_map(|job| job.wanted_labels()).collect(),
            slots: 0,
            resources: Resources::default(),
            leases: BTreeSet::new(),
            holds_ms: 0,
            intake: engine::Intake::Open,
        };
        self.offer.told.replace(Some(presence));
        self.offer_again();
    }

    fn offer_again(&self) {
        if let Some(input) = self.offer.renewed() {
            self.answer(async move { input });
        }
    }

    /// Lets go of the turns of jobs that have ended. Their results are stored by then.
    fn release_turns(&self, facts: &[Fact]) {
        let turns = &self.parts.turns;
        for fact in facts {
            if let What::AttemptFinished { job, retry_at: None, .. } | What::JobEnded { job, .. } = &fact.what {
                turns.ended(job);
            }
        }
        self.offer_again();
    }

    /// The jobs that failed, the one to be looked at first in front.
    pub fn failures(&self, graph: Option<&graph::Graph>) -> Vec<JobEnd<'_>> {
        failures(graph, self.failed.iter().map(|(name, (outcome, at))| JobEnd { name, outcome, at: *at }))
    }

    /// Takes in what had happened before this process began, and offers this machine to what is left.
    pub fn remember(&mut self, history: &[Fact]) {
        for fact in history {
            match &fact.what {
                What::AttemptFinished { job, report, retry_at: None, .. } => {
                    if let outcome @ Outcome::Failed(_) = &report.outcome {
                        self.failed.insert(job.clone(), (outcome.clone(), fact.at));
                    }
                }
                What::BuildCreated(_) => {
                    self.record(fact);
                    self.parts.view.show([Moment::Fact(fact)]);
                }
                _ => self.record(fact),
            }
        }
    }

    fn record(&mut self, fact: &Fact) {
        if let What::GateAnswered { job, .. } | What::JobEnded { job, .. } = &fact.what {
            self.open_gates.remove(job);
        }
        match &fact.what {
            What::BuildCreated(request) => {
                self.trust = request.event.trust;
                self.only.clone_from(&request.options.only);
            }
            What::Evaluated { graph, questions, diagnostics, program: _ } => {
                self.has_asked |= questions.iter().any(|question| !matches!(question, Question::Outcome(_)));
                if self.graph.is_none() {
                    self.first_faults.clone_from(diagnostics);
                }
                let fresh = diagnostics.iter().filter(|diagnostic| !self.first_faults.contains(diagnostic));
                self.faults = fresh.cloned().collect();
                self.graph = Some(Arc::clone(graph));
                self.held = None;
                if !graph.holes.is_empty() || graph.jobs.values().any(|job| job.reuse == Reuse::Tree) {
                    self.parts.inputs.widen();
                }
                self.offer(graph);
            }
            What::GateOpened { job, .. } => {
                self.open_gates.insert(job.clone());
            }
            What::AttemptFinished { job, attempt, report, retry_at: None, .. } => match &report.outcome {
                Outcome::Passed { .. } => {
                    self.has_unkept |= !report.may_stand_for_others();
                    self.keep_result(fact, job, *attempt, report);
                }
                outcome => {
                    self.keep_manifest(fact, job);
                    self.failed.insert(job.clone(), (outcome.clone(), fact.at));
                }
            },
            What::JobEnded {
                job,
                outcome: outcome @ Outcome::Failed(_),
                how: Ended::Decided | Ended::Child { .. },
            } => {
                self.failed.insert(job.clone(), (outcome.clone(), fact.at));
            }
            What::BuildEnded { verdict } => self.verdict = Some(verdict.clone()),
            _ => {}
        }
        if let What::JobEnded { job, .. } = &fact.what {
            self.settled.insert(job.clone());
        }
    }

    /// Keeps which files a build ends with whose jobs work in the tree itself, so that `retry --failed` knows them.
    fn keep_end(&self) {
        if self.worked.borrow().is_empty() {
            return;
        }
        if let Err(error) = self.parts.worker.keep_end(&self.worked.borrow()) {
            let text = "what the build ended with was not kept: `ropewalk retry --failed` may run again what passed";
            eprintln!("note: {text}: {error}");
        }
    }

    /// Keeps what a job was made of that did not pass, so that it can be compared.
    fn keep_manifest(&self, fact: &Fact, job: &JobName) {
        let manifests = self.manifests.borrow();
        let Some((digest, manifest)) = manifests.get(job) else { return };
        if let Err(error) = self.parts.store.record_tried(&[(*digest, manifest)], fact.at) {
            eprintln!("note: what {job} depended on was not kept for `ropewalk explain`: {error}");
        }
    }

    /// Keeps the result of a reusable job that passed.
    fn keep_result(&self, fact: &Fact, job: &JobName, attempt: graph::AttemptNumber, report: &AttemptReport) {
        let manifests = self.manifests.borrow();
        let Some((digest, manifest)) = manifests.get(job) else { return };
        if !report.may_stand_for_others() {
            return;
        }
        let row = OperationRow {
            digest: *digest,
            build: fact.build,
            attempt,
            job: job.clone(),
            outcome: report.outcome.clone(),
            artifacts: report.artifacts.clone(),
            trust: self.trust,
            at: fact.at,
            used_at: fact.at,
            evicted: None,
            replaced: None,
        };
        // A result that could not be kept is worked out again next time.
        if let Err(error) = self.parts.store.record_operations(&[(row, manifest)]) {
            eprintln!("note: the result of {job} was not kept for reuse: {error}");
        }
    }
}

/// What a signal does to the build.
pub struct Interrupter {
    parts: Rc<Parts>,
    running: Running,
}

impl Interrupter {
    /// The first signal: cancel gently; if nothing but gates is left, leave a build as it is for which no job waits.
    pub async fn first(&self, by: &str) {
        let build = self.parts.build;
        if self.parts.gates.get() != GatePolicy::WaitedFor {
            self.parts.gates.set(GatePolicy::Leave);
            if self.running.borrow().is_empty() {
                // A word without meaning, so that the shell looks whether it may end.
                let _ = self.parts.inbox.send(nothing()).await;
                tokio::task::yield_now().await;
            }
        }
        let _ = self.parts.inbox.send(Input::CancelRequested { build, by: by.to_owned() }).await;
    }

    /// The second signal: what runs is killed.
    pub fn second(&self, by: &str) {
        for cancel in self.running.borrow().values() {
            cancel.at_once(by);
        }
    }
}

impl World for LocalWorld {
    fn now(&self) -> Timestamp {
        now()
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Evaluate { build, known, .. } => self.evaluate(build, &known),
            Effect::Answer { build, question } => self.find_answer(build, question),
            Effect::Resolve { build, job, spec, needs } => self.resolve(build, job, spec, needs),
            Effect::Start { spec, group, .. } => self.start(spec, group),
            Effect::Stop { lease, by, .. } => {
                if let Some(cancel) = self.running.borrow().get(&lease) {
                    cancel.gently(&by);
                }
            }
            // A laptop's requests have no identity.
            // Here a job that asks for a build is a step that runs it.
            Effect::AskChild { .. } | Effect::Duplicate { .. } | Effect::Wake { .. } => {}
        }
    }

    fn told(&mut self, facts: &[Fact]) {
        for fact in facts {
            self.record(fact);
        }
        self.release_turns(facts);
        if facts.iter().any(|fact| matches!(fact.what, What::GateOpened { .. })) {
            self.hold_start_for_gate();
        }
        self.parts.view.show(facts.iter().map(Moment::Fact));
        let has_failed = |verdict: &Verdict| !matches!(verdict, Verdict::Passed { .. });
        if facts.iter().any(|fact| matches!(&fact.what, What::BuildEnded { verdict } if has_failed(verdict))) {
            self.keep_end();
        }
    }

    fn is_done(&self, next_wake: Option<Timestamp>) -> Doneness {
        let inbox_is_empty = self.parts.inbox.capacity() == self.parts.inbox.max_capacity();
        let only_gates =
            !self.open_gates.is_empty() && self.in_flight.get() == 0 && inbox_is_empty && next_wake.is_none();
        match (&self.verdict, self.parts.gates.get()) {
            (Some(_), _) if self.running.borrow().is_empty() => Doneness::Done,
            (None, GatePolicy::Leave) if only_gates => Doneness::Done,
            _ => Doneness::GoOn,
        }
    }
}

/// A word without meaning, after which the shell looks again whether it may end.
fn nothing() -> Input {
    Input::WorkerLeft { worker: WorkerId("nobody".into()) }
}

impl Offer {
    /// What the engine is to hear if it may begin more attempts than it was told last, or fewer.
    fn renewed(&self) -> Option<Input> {
        let mut told = self.told.borrow_mut();
        let presence = told.as_mut()?;
        let slots = self.parts.parallel.saturating_add(self.parts.turns.slots_beyond());
        if presence.slots == slots {
            return None;
        }
        presence.slots = slots;
        presence.leases = self.running.borrow().keys().copied().collect();
        Some(Input::WorkerPresent { worker: WorkerId(WORKER.into()), presence: presence.clone() })
    }

    async fn renew(&self) {
        if let Some(input) = self.renewed() {
            // The shell has ended only if nobody waits for the answer.
            let _ = self.parts.inbox.send(input).await;
        }
    }

    /// Shows for what a job waits, or that it goes on.
    fn show(&self, job: &JobName, awaited: Option<&Awaited>) {
        self.parts.view.show([Moment::Waits { job, awaited, at: now() }]);
    }
}

/// Waits for a job's turn in its concurrency group.
///
/// # Errors
/// How the job ends that does not get it.
async fn turn(
    offer: &Offer,
    name: &JobName,
    job: &Job,
    group: Option<&str>,
    cancel: &worker::Cancel,
) -> Result<(), Outcome> {
    let (Some(group), Some(concurrency)) = (group, &job.concurrency) else { return Ok(()) };
    let shown = async |awaited: Option<&Awaited>| {
        offer.show(name, awaited);
        offer.renew().await;
    };
    let entered = offer.parts.turns.group(name, (group, concurrency.mode), cancel.requested(), shown).await;
    offer.renew().await;
    entered
}

/// A slot for a job, which the view shows as waiting meanwhile; none if it is to end before there is one, or if those who have the slots
/// wait for it.
async fn slot(offer: &Offer, job: &JobName, cancel: &worker::Cancel) -> Option<Slot> {
    let Parts { slots, turns, .. } = &*offer.parts;
    let mut taking = pin!(slots.take());
    // Most find one at once.
    if let Poll::Ready(slot) = poll_fn(|context| Poll::Ready(taking.as_mut().poll(context))).await {
        return Some(slot);
    }
    if turns.is_hurried(job) {
        return None;
    }
    let slotless = turns.note_slotless();
    offer.renew().await;
    offer.show(job, Some(&Awaited::Slot));
    let hurried = async {
        match turns.held_by(job) {
            Some(held) => held.hurried().await,
            None => std::future::pending().await,
        }
    };
    // A job that is to end needs no slot for that.
    let (requested, hurried) = (pin!(cancel.requested()), pin!(hurried));
    let slot = match select(taking, select(requested, hurried)).await {
        Either::Left((slot, _)) => Some(slot),
        Either::Right(_) => None,
    };
    drop(slotless);
    offer.show(job, None);
    offer.renew().await;
    slot
}

/// Runs one attempt with its secrets, its log and its depot.
async fn run(parts: &Parts, spec: AttemptSpec, cancel: worker::Cancel) -> AttemptReport {
    let values = match parts.secrets.values(&spec.job.all_secrets()) {
        Ok(values) => values,
        Err(missing) => {
            let names = missing.join(", ");
            let message = format!("no value for the secrets {names}: export them, or give a file by --secrets FILE");
            return AttemptReport::of(Outcome::Failed(Failure::Setup { message }), now());
        }
    };
    let masker = match Masker::new(values.values()) {
        Ok(masker) => masker,
        // The same values would be too much again.
        Err(error) => return AttemptReport::of(Outcome::Failed(Failure::Setup { message: error.to_string() }), now()),
    };
    let unmasked = unmasked(&values);
    let mask = (!values.is_empty()).then(|| Arc::new(LocalMask(masker.clone())) as Arc<dyn worker::depot::Mask>);
    let secrets = worker::depot::Secrets { values, mask };
    let log = LocalLog {
        writer: parts.log.clone(),
        view: parts.view.clone(),
        job: spec.name.clone(),
        attempt: spec.attempt.0,
        masker,
    };
    let depot = LocalDepot::new(Arc::clone(&parts.blobs), Arc::clone(&parts.store), spec.build, spec.name.clone(), now);
    let mut report = worker::run_attempt(&parts.worker, spec, secrets, Arc::new(log), Arc::new(depot), cancel).await;
    report.notes.extend(unmasked);
    report
}

/// What people should know of the inputs of a job that has run: among it whether the operation was made of others.
async fn remarks(parts: &Parts, job: &Job, manifest: Option<&Manifest>, report: &AttemptReport) -> Vec<String> {
    let globs = match &job.reuse {
        Reuse::Never => return Vec::new(),
        Reuse::Inputs(globs) => Some(globs.as_slice()),
        Reuse::Tree => None,
    };
    let mut remarks = parts.inputs.remarks(globs, job.workspace).await;
    let is_told = report.notes.iter().any(|note| note.starts_with(worker::INPUT_CHANGED));
    if let Some(manifest) = manifest.filter(|_| !is_told)
        && matches!(report.outcome, Outcome::Passed { .. })
    {
        // The digest was taken before the job waited for its turn; its own look at the inputs begins with it.
        let changed = parts.inputs.changed(globs, job.workspace, &manifest.0).await.unwrap_or_else(Some);
        let told = |path| {
            format!(
                "{} or before it, since the build began: {path}; its result is not kept for reuse",
                worker::INPUT_CHANGED
            )
        };
        remarks.extend(changed.map(told));
    }
    if manifest.is_some() {
        remarks.extend(report.undeclared_reads());
    }
    remarks
}

/// Whether the files that jobs are about to see are those for which earlier results were taken over.
///
/// # Errors
/// They are not: somebody has changed one meanwhile.
async fn mixed(parts: &Parts, taken_over: &TakenOver) -> Result<(), String> {
    if !parts.inputs.is_renewed() {
        return Ok(());
    }
    let judged = taken_over.borrow().clone();
    for (name, job, manifest) in judged {
        let globs = match &job.reuse {
            Reuse::Inputs(globs) => Some(globs.as_slice()),
            Reuse::Tree | Reuse::Never => None,
        };
        let changed = parts.inputs.changed(globs, job.workspace, &manifest.0).await;
        if let Some(path) = changed.unwrap_or_else(Some) {
            return Err(format!(
                "{path} was changed while the build began, and an earlier result had been taken for {name}, which depends on it: run the build \
                 again"
            ));
        }
    }
    Ok(())
}

type Resolved = (Digest, Manifest, Option<(Reused, Outcome)>);

/// The operation of a job, and an earlier result of it if that may stand for the job's own. If there is none, no other process runs the operation, nor
/// will until the job has ended. `None` if it has ended over the wait for that.
async fn resolve(
    parts: &Parts,
    name: &JobName,
    job: &Job,
    needs: &BTreeMap<JobName, NeedResult>,
    trust: Trust,
) -> Option<Result<Resolved, String>> {
    let inputs::Digests { files, state } = match digests(parts, job).await {
        Ok(digests) => digests,
        Err(reason) => return Some(Err(reason)),
    };
    let (event, build) = (&parts.event, parts.build);
    let work = Work { name, job, files: &files, needs, event, build, project: "", quarantine: &[] };
    let (digest, manifest) = operation(&work);
    if parts.reuse == ReusePolicy::RunAll || state == State::Other {
        return Some(Ok((digest, manifest, None)));
    }
    let mut hit = earlier(parts, digest, trust);
    // Nobody else has an operation that no other build comes to.
    if hit.is_none() && manifest.may_recur() {
        let shown = |awaited: Option<&Awaited>| parts.view.show([Moment::Waits { job: name, awaited, at: now() }]);
        if parts.turns.operation(name, digest, shown).await == Asked::Ended {
            return None;
        }
        hit = earlier(parts, digest, trust);
    }
    Some(Ok((digest, manifest, hit)))
}

/// The inputs of a job that may be reused.
async fn digests(parts: &Parts, job: &Job) -> Result<inputs::Digests, String> {
    match &job.reuse {
        Reuse::Never => Err("the job is not reusable".to_owned()),
        Reuse::Inputs(globs) => parts.inputs.digests(Some(globs), job.workspace).await,
        Reuse::Tree => parts.inputs.digests(None, job.workspace).await,
    }
}

/// An earlier result of an operation that is whole.
fn earlier(parts: &Parts, digest: Digest, trust: Trust) -> Option<(Reused, Outcome)> {
    let row = parts.store.operation(digest, trust).ok().flatten()?;
    // A result whose files are gone is no result: so are those that a job found damaged.
    let is_there = |artifact: &graph::Artifact| parts.blobs.contains(artifact.digest);
    if row.artifacts.values().any(|artifact| matches!(is_there(artifact), Ok(false))) {
        let _ = parts.store.evict(digest, FILES_GONE, now());
        return None;
    }
    let is_whole = row.artifacts.values().all(|artifact| is_there(artifact).unwrap_or(false));
    if !is_whole || !matches!(row.outcome, Outcome::Passed { .. }) {
        return None;
    }
    let _ = parts.store.touch_operations(&[digest], now());
    Some((Reused { build: row.build, attempt: row.attempt, job: row.job, artifacts: row.artifacts }, row.outcome))
}

/// What the repository says to a question of the pipeline.
pub fn answer_from_repository(root: &std::path::Path, event: &graph::Event, question: &Question) -> Answer {
    match question {
        Question::ChangedFiles => {
            let base = event.base.as_deref().unwrap_or("HEAD~1");
            repository::changed_files(root, base, repository::Until::Now)
                .map_or_else(|error| Answer::Unknown(error.to_string()), Answer::Files)
        }
        Question::BranchesHolding => repository::branches_holding(root, &event.commit)
            .map_or_else(|error| Answer::Unknown(error.to_string()), Answer::Branches),
        Question::File(path) => Answer::Unknown(format!("no pipeline of this kind asks for the file {path}")),
        Question::Outcome(job) => Answer::Unknown(format!("the outcome of {job} is the engine's to tell")),
    }
}
