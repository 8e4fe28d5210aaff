//! Performs the effects of all builds and answers through the inbox. Nothing here decides what runs.
//!
//! [`World::perform`] and [`World::told`] run on the shell's thread and never wait: what blocks goes to the blocking pool
//! or to one of two threads, "resolve" (operations are looked up many at a time) and "keep" (results are written many at
//! a time). Their queues have no bound of their own: they hold at most one entry for each job that the engine holds.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use api::worker::Evaluate;
use engine::fact::What;
use engine::operation::{Manifest, Work, operation};
use engine::{BuildRequest, Effect, Fact, Input, Reused};
use graph::{
    Answer, AttemptNumber, AttemptReport, AttemptSpec, BuildId, Diagnostic, Digest, Evaluation, Failure, Job, JobName,
    Known, NeedResult, Outcome, Question, Timestamp, Trust, with_causes,
};
use store::Store;
use store::blob::Blobs;
use store::log::Logs;
use store::rows::{FILES_GONE, OperationRow};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::dispatch::{Askers, Dispatch, Fault, Given, Wanted};
use crate::figures::Figures;
use crate::live::Live;
use crate::lock::lock;
use crate::lowering::Lowering;
use crate::notices;
use crate::records::{Records, StoredProgram};
use crate::server::Drawn;
use crate::shell::{Doneness, Inbox, World};
use crate::source::{Sources, read_patiently};
use crate::worker_time::WorkerTime;

/// The most operations that are looked up, and the most results that are written, at a time.
pub const TOGETHER_MAX: usize = 256;
/// How many pipelines are lowered at a time.
pub const EVALUATIONS_MAX: usize = 4;
/// How many workers in a row may fail to answer for a pipeline's program.
pub const EVALUATION_TRIES: u32 = 3;
/// How long a worker may take to build and ask a pipeline's program.
pub const EVALUATION_SILENCE: Duration = Duration::from_secs(20 * 60);
/// How long the engine holds a build that has ended, for a retry of its jobs without reading it again.
pub const ENDED_HELD_MS: u64 = 60_000;
/// The most builds that have ended and are held.
pub const ENDED_HELD_MAX: usize = 200;
/// How often the facts of a build that was called back are read again if the store refuses, each time after twice the wait.
pub const FACTS_AGAIN_MAX: u32 = 5;
/// The most requests whose answer is another build and that nobody has asked for yet.
pub const DUPLICATES_MAX: usize = 10_000;

/// Where values of secrets come from. Blocks.
pub trait SecretSource: Send + Sync {
    /// The values of these secrets for a build of `project` of this trust.
    ///
    /// # Errors
    /// [`NoValue`].
    fn values(
        &self,
        project: &str,
        trust: Trust,
        names: &std::collections::BTreeSet<String>,
    ) -> Result<BTreeMap<String, String>, NoValue>;
}

/// Why a secret's value cannot be had: a sentence for people that names what is missing and what sets it; it holds no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoValue {
    /// It is not set, or not for such a build: only a person can help.
    Unset(String),
    /// It cannot be read now.
    Unread(String),
}

/// A server without secrets: who asks for one is told that there is none.
pub struct NoSecrets;

impl SecretSource for NoSecrets {
    fn values(
        &self,
        _: &str,
        _: Trust,
        names: &std::collections::BTreeSet<String>,
    ) -> Result<BTreeMap<String, String>, NoValue> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let names = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        Err(NoValue::Unset(format!("no value for the secrets {names}")))
    }
}

/// What effects are performed with.
pub struct Means {
    /// Facts and rows.
    pub store: Arc<dyn Store>,
    /// Contents.
    pub blobs: Arc<dyn Blobs>,
    /// Logs of builds.
    pub logs: Arc<Logs>,
    /// Documents beside builds.
    pub records: Records,
    /// Files of builds.
    pub sources: Arc<Sources>,
    /// Pipelines lowered before.
    pub lowering: Arc<Lowering>,
    /// Workers.
    pub dispatch: Arc<Dispatch>,
    /// Followers.
    pub live: Arc<Live>,
    /// What is counted.
    pub figures: Arc<Figures>,
    /// How long workers were busy for each project.
    pub worker_time: Arc<WorkerTime>,
    /// Values of secrets.
    pub secrets: Arc<dyn SecretSource>,
    /// Requests that are answered by another build.
    pub duplicates: Arc<Duplicates>,
    /// Numbers drawn for builds to come.
    pub(crate) drawn: Mutex<Drawn>,
    /// Where traces of builds go, if anywhere.
    pub otlp: Option<String>,
    /// The present time.
    pub clock: fn() -> Timestamp,
    /// Where answers go.
    pub inbox: Inbox,
    /// Where tasks run.
    pub tasks: Handle,
}

/// Requests that are answered by a build there is already, until whoever asked has heard of it.
#[derive(Default)]
pub struct Duplicates(Mutex<VecDeque<(BuildId, BuildId)>>);

impl Duplicates {
    /// The build that stands for a request; told once.
    pub fn take(&self, requested: BuildId) -> Option<BuildId> {
        let mut list = lock(&self.0);
        let place = list.iter().position(|(number, _)| *number == requested)?;
        list.remove(place).map(|(_, of)| of)
    }

    fn put(&self, requested: BuildId, of: BuildId) {
        let mut list = lock(&self.0);
        if list.len() == DUPLICATES_MAX {
            list.pop_front();
        }
        list.push_back((requested, of));
    }
}

/// A job and what came along its edges.
type MadeOf = (Arc<Job>, BTreeMap<JobName, NeedResult>);

/// What is asked for a job's operation.
struct ToResolve {
    request: Arc<BuildRequest>,
    build: BuildId,
    job: JobName,
    spec: Arc<Job>,
    needs: BTreeMap<JobName, NeedResult>,
}

/// A result that is to be kept for reuse, or what was tried without one.
struct ToKeep {
    made_of: ToResolve,
    attempt: AttemptNumber,
    outcome: Outcome,
    artifacts: BTreeMap<String, graph::Artifact>,
    at: Timestamp,
}

/// The world of all builds of a server.
pub struct ServerWorld {
    means: Arc<Means>,
    builds: HashMap<BuildId, Arc<BuildRequest>>,
    /// Jobs whose operation was asked for and that have not ended: what it is made of can be worked out again.
    resolving: HashMap<(BuildId, JobName), MadeOf>,
    /// When the attempts that run began, by this server's clock.
    begun: HashMap<BuildId, BTreeMap<AttemptNumber, Timestamp>>,
    /// Builds that have ended, in that order.
    ended: VecDeque<(BuildId, Timestamp)>,
    /// Evaluations under way: the build and how many answers were known.
    evaluating: Arc<Mutex<HashSet<(BuildId, usize)>>>,
    evaluations: Arc<Semaphore>,
    queues: Option<Queues>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Where the world's threads find their work.
struct Queues {
    resolve: mpsc::Sender<ToResolve>,
    keep: mpsc::Sender<ToKeep>,
}

impl Drop for ServerWorld {
    /// Waits until the results that were to be kept are.
    fn drop(&mut self) {
        drop(self.queues.take());
        for thread in self.threads.drain(..) {
            // What it broke on was said by itself.
            let _ = thread.join();
        }
    }
}

impl ServerWorld {
    /// A world with these means. Its two threads end with it.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn new(means: Arc<Means>) -> std::io::Result<Self> {
        let (resolve, to_resolve) = mpsc::channel();
        let (keep, to_keep) = mpsc::channel();
        let resolver = Arc::clone(&means);
        let resolving = std::thread::Builder::new().name("resolve".to_owned());
        let resolving = resolving.spawn(move || resolve_all(&resolver, &to_resolve))?;
        let keeper = Arc::clone(&means);
        let keeping = std::thread::Builder::new().name("keep".to_owned());
        let keeping = keeping.spawn(move || keep_all(&keeper, &to_keep))?;
        Ok(Self {
            means,
            builds: HashMap::new(),
            resolving: HashMap::new(),
            begun: HashMap::new(),
            ended: VecDeque::new(),
            evaluating: Arc::default(),
            evaluations: Arc::new(Semaphore::new(EVALUATIONS_MAX)),
            queues: Some(Queues { resolve, keep }),
            threads: vec![resolving, keeping],
        })
    }

    /// Takes in a build whose facts were folded before this process began.
    pub fn remember(&mut self, build: BuildId, request: Arc<BuildRequest>) {
        self.builds.insert(build, request);
    }

    /// Takes in when attempts began that run since before this process did.
    pub fn remember_begun(&mut self, begun: BTreeMap<(BuildId, AttemptNumber), Timestamp>) {
        for ((build, attempt), at) in begun {
            self.begun.entry(build).or_default().insert(attempt, at);
        }
    }

    /// Takes in which builds have ended that the engine holds; their logs are finished if that was still to do.
    pub fn remember_ended(&mut self, mut ended: Vec<(BuildId, Timestamp)>) {
        ended.sort_by_key(|(_, at)| *at);
        for (build, _) in &ended {
            self.end_log(*build);
        }
        self.ended.extend(ended);
    }

    /// What was asked for; read again of a build that was called back.
    fn request(&mut self, build: BuildId) -> Option<Arc<BuildRequest>> {
        if let Some(request) = self.builds.get(&build) {
            return Some(Arc::clone(request));
        }
        let facts = self.facts(build)?;
        let request = facts.into_iter().find_map(|fact| match fact.what {
            What::BuildCreated(request) => Some(Arc::new(*request)),
            _ => None,
        })?;
        self.builds.insert(build, Arc::clone(&request));
        Some(request)
    }

    /// The facts of a build that was called back. Without them it would stand still, so the shell waits a moment for a store
    /// that refuses.
    fn facts(&self, build: BuildId) -> Option<Vec<Fact>> {
        let mut tries = 0;
        loop {
            match self.means.store.facts(build) {
                Ok(facts) => return Some(facts),
                Err(error) if tries == FACTS_AGAIN_MAX => {
                    notices::error(&format!(
                        "build {build} stands still until the next start: {}",
                        with_causes(&error)
                    ));
                    return None;
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10 << tries)),
            }
            tries += 1;
        }
    }

    fn evaluate(&mut self, build: BuildId, pipeline: String, known: &Arc<Known>, program: Option<Digest>) {
        let Some(request) = self.request(build) else { return };
        let answers_known = known.answers.len();
        if let Some(evaluation) = self.means.lowering.find(&request, &pipeline, known) {
            let input = Input::Evaluated { build, answers_known, evaluation: Box::new(evaluation) };
            return self.answer(input);
        }
        let is_new = lock(&self.evaluating).insert((build, answers_known));
        if !is_new {
            return;
        }
        let (means, known) = (Arc::clone(&self.means), Arc::clone(known));
        let wanted = means.dispatch.want(build);
        let (evaluating, permits) = (Arc::clone(&self.evaluating), Arc::clone(&self.evaluations));
        self.means.tasks.spawn(async move {
            let asked = ToEvaluate { pipeline, program, wanted: &wanted };
            let evaluation = evaluate(&means, build, request, asked, known, &permits).await;
            if let Some(found) = evaluation.program.filter(|found| Some(*found) != program) {
                keep_program(&means, build, found).await;
            }
            lock(&evaluating).remove(&(build, answers_known));
            if !wanted.is_still() {
                return;
            }
            let input = Input::Evaluated { build, answers_known, evaluation: Box::new(evaluation) };
            // The shell has ended only if nobody waits for the answer.
            let _ = means.inbox.send(input).await;
        });
    }

    /// Puts an answer that is there at once, without waiting for room.
    fn answer(&self, input: Input) {
        if let Err(tokio::sync::mpsc::error::TrySendError::Full(input)) = self.means.inbox.try_send(input) {
            let inbox = self.means.inbox.clone();
            self.means.tasks.spawn(async move {
                let _ = inbox.send(input).await;
            });
        }
    }

    fn find_answer(&mut self, build: BuildId, question: Question) {
        let Some(request) = self.request(build) else { return };
        let means = Arc::clone(&self.means);
        self.means.tasks.spawn(async move {
            let (asked, blocking) = (question.clone(), Arc::clone(&means));
            let found = tokio::task::spawn_blocking(move || answer_from_source(&blocking, &request, &asked)).await;
            let answer = found.unwrap_or_else(|error| Answer::Unknown(error.to_string()));
            let _ = means.inbox.send(Input::Answered { build, question, answer }).await;
        });
    }

    fn resolve(&mut self, build: BuildId, job: JobName, spec: Arc<Job>, needs: BTreeMap<JobName, NeedResult>) {
        let Some(request) = self.request(build) else { return };
        self.resolving.insert((build, job.clone()), (Arc::clone(&spec), needs.clone()));
        if let Some(queues) = &self.queues {
            // The thread is gone only if it broke; the job then waits for the next start.
            let _ = queues.resolve.send(ToResolve { request, build, job, spec, needs });
        }
    }

    /// Prepares the build that a job asks for.
    fn ask_child(&mut self, build: BuildId, job: JobName, asking: u64, child: Box<graph::ChildBuild>) {
        let Some(request) = self.request(build) else { return };
        let means = Arc::clone(&self.means);
        self.means.tasks.spawn(async move {
            let (blocking, asker) = (Arc::clone(&means), job.clone());
            let prepare = move || crate::children::prepare(&blocking, (build, &request), &asker, &child);
            let child = tokio::task::spawn_blocking(prepare).await;
            let child = child.unwrap_or_else(|error| Err(Failure::Infra { message: error.to_string() }));
            let _ = means.inbox.send(Input::ChildPrepared { build, job, asking, child }).await;
        });
    }

    fn start(&mut self, worker: graph::WorkerId, spec: AttemptSpec) {
        let Some(request) = self.request(spec.build) else { return };
        let spec = Arc::new(spec);
        let trust = request.event.trust;
        let now = (spec.build, spec.attempt);
        self.means.dispatch.give(Given { worker, spec: Arc::clone(&spec), now, trust });
        self.means.live.begin(&spec);
        send_start(&self.means, spec, trust);
    }

    fn record(&mut self, fact: &Fact) {
        let build = fact.build;
        match &fact.what {
            What::BuildCreated(request) => {
                self.builds.insert(build, Arc::new((**request).clone()));
            }
            What::AttemptLeased { attempt, .. } => self.begins(fact, *attempt),
            What::AttemptAdopted { attempt, lease, .. } => {
                self.begins(fact, *attempt);
                self.means.dispatch.hand_on(*lease, (build, *attempt));
            }
            What::AttemptFinished { job, attempt, lease, report, retry_at } => {
                let given = self.means.dispatch.take_of(*lease, (build, *attempt));
                self.count_time(fact, *attempt, report);
                if let Some(given) = given
                    && let Outcome::Failed(failure) = &report.outcome
                    && matches!(failure, Failure::Infra { .. } | Failure::Setup { .. } | Failure::Lost)
                {
                    let text = api::words::failure(failure);
                    let fault = Fault { at: fact.at, build, job: job.clone(), text };
                    self.means.dispatch.note_fault(&given.worker, fault);
                }
                if retry_at.is_none() {
                    self.keep(fact, job, *attempt, report);
                }
            }
            What::JobEnded { job, .. } => {
                self.resolving.remove(&(build, job.clone()));
            }
            What::JobRetried { .. } => self.ended.retain(|(ended, _)| *ended != build),
            What::BuildEnded { .. } => {
                self.means.dispatch.forget_build(build);
                lock(&self.evaluating).retain(|(evaluated, _)| *evaluated != build);
                self.begun.remove(&build);
                self.ended.push_back((build, fact.at));
                if let Some(collector) = self.means.otlp.clone() {
                    let store = Arc::clone(&self.means.store);
                    self.means.tasks.spawn(crate::telemetry::send(store, build, collector));
                }
            }
            _ => {}
        }
    }

    fn begins(&mut self, fact: &Fact, attempt: AttemptNumber) {
        self.begun.entry(fact.build).or_default().insert(attempt, fact.at);
    }

    /// Counts what a worker spent on an attempt for its project: never more than went by here. It may be less by the worker's word, since
    /// an end may be told late.
    fn count_time(&mut self, fact: &Fact, attempt: AttemptNumber, report: &AttemptReport) {
        let begun = self.begun.get_mut(&fact.build).and_then(|begun| begun.remove(&attempt));
        if let Some(request) = self.builds.get(&fact.build) {
            let went_by_ms = begun.map_or(0, |begun| fact.at.ms_since(begun));
            let spent_ms = report.finished.ms_since(report.started).min(went_by_ms);
            self.means.worker_time.ended(&request.origin.project, fact.at, spent_ms);
        }
    }

    fn keep(&mut self, fact: &Fact, job: &JobName, attempt: AttemptNumber, report: &AttemptReport) {
        let Some((spec, needs)) = self.resolving.remove(&(fact.build, job.clone())) else { return };
        let Some(request) = self.request(fact.build) else { return };
        if !report.may_stand_for_others() {
            return;
        }
        let made_of = ToResolve { request, build: fact.build, job: job.clone(), spec, needs };
        let (outcome, artifacts) = (report.outcome.clone(), report.artifacts.clone());
        if let Some(queues) = &self.queues {
            let _ = queues.keep.send(ToKeep { made_of, attempt, outcome, artifacts, at: fact.at });
        }
    }

    fn end_log(&self, build: BuildId) {
        let means = Arc::clone(&self.means);
        self.means.tasks.spawn_blocking(move || {
            if let Err(error) = means.records.end_log(&means.logs, build, (means.clock)()) {
                notices::warning(&format!("the log of build {build} could not be finished: {error}"));
            }
        });
    }
}

impl World for ServerWorld {
    fn now(&self) -> Timestamp {
        (self.means.clock)()
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Evaluate { build, pipeline, known, program } => self.evaluate(build, pipeline, &known, program),
            Effect::Answer { build, question } => self.find_answer(build, question),
            Effect::Resolve { build, job, spec, needs } => self.resolve(build, job, spec, needs),
            Effect::AskChild { build, job, asking, child } => self.ask_child(build, job, asking, child),
            Effect::Start { worker, spec, .. } => self.start(worker, *spec),
            Effect::Stop { worker, lease, by } => self.means.dispatch.stop(&worker, lease, by),
            Effect::Duplicate { requested, of } => self.means.duplicates.put(requested, of),
            Effect::Wake { .. } => {}
        }
    }

    fn told(&mut self, facts: &[Fact]) {
        for fact in facts {
            self.record(fact);
        }
        self.means.figures.told(facts);
        self.means.live.told(facts);
        // Whoever waits for the end of a build is told first.
        let ended = facts.iter().filter(|fact| matches!(fact.what, What::BuildEnded { .. }));
        ended.for_each(|fact| self.end_log(fact.build));
    }

    fn stored(&mut self, took: Duration) {
        self.means.figures.appends.took(took);
    }

    /// It is held as long as one that has just ended, unless a job of it is retried.
    fn recalled(&mut self, build: BuildId) {
        self.ended.retain(|(ended, _)| *ended != build);
        self.ended.push_back((build, self.now()));
    }

    fn is_done(&self, _: Option<Timestamp>) -> Doneness {
        Doneness::GoOn
    }

    fn forgets(&mut self) -> Vec<BuildId> {
        let now = self.now();
        let mut forgotten = Vec::new();
        while let Some(&(build, at)) = self.ended.front()
            && (self.ended.len() > ENDED_HELD_MAX || now.ms_since(at) >= ENDED_HELD_MS)
        {
            self.ended.pop_front();
            self.builds.remove(&build);
            self.means.live.forget(build);
            forgotten.push(build);
        }
        forgotten
    }
}

/// Sends an attempt to its worker, with its secrets if it has any.
pub(crate) fn send_start(means: &Arc<Means>, spec: Arc<AttemptSpec>, trust: Trust) {
    let names = spec.job.all_secrets();
    if names.is_empty() {
        return means.dispatch.start(&spec, &BTreeMap::new());
    }
    let means = Arc::clone(means);
    let tasks = means.tasks.clone();
    tasks.spawn_blocking(move || match means.secrets.values(&spec.origin.project, trust, &names) {
        Ok(secrets) => means.dispatch.start(&spec, &secrets),
        Err(no_value) => {
            let failure = match no_value {
                NoValue::Unset(message) => Failure::Setup { message },
                NoValue::Unread(message) => Failure::Infra { message },
            };
            let report = AttemptReport::of(Outcome::Failed(failure), (means.clock)());
            let (build, attempt, lease) = (spec.build, spec.attempt, spec.lease);
            let input = Input::AttemptFinished { build, attempt, lease, report: Box::new(report) };
            let _ = means.inbox.blocking_send(input);
        }
    });
}

/// A pipeline that is to be evaluated.
struct ToEvaluate<'w> {
    /// As the request named it.
    pipeline: String,
    /// The binary that is asked, if it is a program that was asked before.
    program: Option<Digest>,
    /// That somebody waits for it.
    wanted: &'w Wanted,
}

async fn evaluate(
    means: &Arc<Means>,
    build: BuildId,
    request: Arc<BuildRequest>,
    ToEvaluate { pipeline, program, wanted }: ToEvaluate<'_>,
    known: Arc<Known>,
    permits: &Semaphore,
) -> Evaluation {
    let evaluate = async {
        let source = request.origin.source.ok_or("the build has no files")?;
        let permit = permits.acquire().await.map_err(|error| error.to_string())?;
        let lowered = {
            let (means, request) = (Arc::clone(means), Arc::clone(&request));
            let (pipeline, known) = (pipeline.clone(), Arc::clone(&known));
            tokio::task::spawn_blocking(move || means.lowering.files(&request, &pipeline, &known)).await
        };
        drop(permit);
        if let Some(evaluation) = lowered.map_err(|error| error.to_string())?.map_err(|error| with_causes(&error))? {
            return Ok(evaluation);
        }
        let question = Evaluate { id: 0, build, source, pipeline: pipeline.clone(), known: (*known).clone(), program };
        let askers = Askers { pool: request.options.pool.clone(), reach: request.options.pools };
        let by = (wanted, &askers);
        let reply = means.dispatch.evaluate(by, question, EVALUATION_TRIES, EVALUATION_SILENCE).await?;
        let permit = permits.acquire().await.map_err(|error| error.to_string())?;
        let (blocking, request) = (Arc::clone(means), Arc::clone(&request));
        let lowered =
            tokio::task::spawn_blocking(move || blocking.lowering.reply(build, &request, &pipeline, &known, &reply))
                .await;
        drop(permit);
        lowered.map_err(|error| error.to_string())?
    };
    evaluate.await.unwrap_or_else(|message: String| {
        let diagnostic = Diagnostic::error("pipeline-unread", message);
        Evaluation { diagnostics: vec![diagnostic], ..Evaluation::default() }
    })
}

/// Notes that a build asks this program, so that it stays as long as the build does: a job behind a gate is a function of it.
async fn keep_program(means: &Arc<Means>, build: BuildId, digest: Digest) {
    let writing = Arc::clone(means);
    let write = move || writing.records.write(&build.to_string(), &StoredProgram { digest }, (writing.clock)());
    let why = match tokio::task::spawn_blocking(write).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => with_causes(&error),
        Err(error) => error.to_string(),
    };
    notices::warning(&format!("build {build}: its program may not be kept for as long as the build is: {why}"));
}

fn answer_from_source(means: &Means, request: &BuildRequest, question: &Question) -> Answer {
    let Some(digest) = request.origin.source else { return Answer::Unknown("the build has no files".to_owned()) };
    match read_patiently(|| means.sources.open(digest)) {
        Ok(source) => source.answer(question, |path| {
            read_patiently(|| means.sources.content(&source, path, crate::source::PIPELINE_BYTES_MAX))
        }),
        Err(error) => Answer::Unknown(with_causes(&error)),
    }
}

/// The operation of a job and what it is made of.
fn operation_of(means: &Means, asked: &ToResolve) -> Result<(Digest, Manifest), String> {
    let digest = asked.request.origin.source.ok_or("the build has no files")?;
    let source = read_patiently(|| means.sources.open(digest)).map_err(|error| with_causes(&error))?;
    let files = source.inputs(&asked.spec.reuse)?;
    let request = &asked.request;
    if request.event.trust == Trust::Untrusted && !asked.spec.all_secrets().is_empty() {
        return Err("a build of an untrusted event takes nothing that was made with secrets".to_owned());
    }
    // Whatever has expired since: what an attempt was told is never more than this.
    let quarantine = graph::quarantine::of_job(&asked.request.quarantine, &asked.job, &asked.spec);
    Ok(operation(&Work {
        name: &asked.job,
        job: &asked.spec,
        files: &files,
        needs: &asked.needs,
        event: &request.event,
        build: asked.build,
        project: &request.origin.project,
        quarantine: &quarantine,
    }))
}

/// Answers questions for operations, many at a time, until the world has gone.
fn resolve_all(means: &Means, queue: &mpsc::Receiver<ToResolve>) {
    while let Some(asked) = next_batch(queue) {
        let operations: Vec<Result<Digest, String>> =
            asked.iter().map(|asked| operation_of(means, asked).map(|(digest, _)| digest)).collect();
        let mut found = BTreeMap::new();
        for trust in [Trust::Trusted, Trust::Untrusted] {
            let of_trust = asked.iter().zip(&operations).filter(|(asked, _)| asked.request.event.trust == trust);
            let digests: Vec<Digest> = of_trust.filter_map(|(_, operation)| operation.clone().ok()).collect();
            // What cannot be looked up is worked out again.
            let rows = if digests.is_empty() { BTreeMap::new() } else { reusable(means, &digests, trust) };
            found.extend(rows.into_iter().map(|(digest, row)| ((trust, digest), row)));
        }
        // The engine may still hold a result that was evicted.
        let all: Vec<Digest> = operations.iter().filter_map(|operation| operation.clone().ok()).collect();
        let evictions = if all.is_empty() { BTreeMap::new() } else { evictions(means, &all) };
        let used: Vec<Digest> = found.keys().map(|(_, digest)| *digest).collect();
        if !used.is_empty() {
            let _ = means.store.touch_operations(&used, (means.clock)());
        }
        for (asked, operation) in asked.into_iter().zip(operations) {
            let row = operation.as_ref().ok().and_then(|digest| found.get(&(asked.request.event.trust, *digest)));
            let hit = row.map(|row| {
                let (job, artifacts) = (row.job.clone(), row.artifacts.clone());
                (Reused { build: row.build, attempt: row.attempt, job, artifacts }, row.outcome.clone())
            });
            let evicted = operation.as_ref().ok().and_then(|digest| evictions.get(digest)).copied();
            let evicted = evicted.filter(|_| hit.is_none());
            let input = Input::OperationResolved { build: asked.build, job: asked.job, operation, hit, evicted };
            if means.inbox.blocking_send(input).is_err() {
                return;
            }
        }
    }
}

/// Earlier results that may stand for these operations: passed, and all their files there. Those whose files have gone, since they were damaged say, are
/// evicted, so that the engine does not take them either.
fn reusable(means: &Means, digests: &[Digest], trust: Trust) -> BTreeMap<Digest, OperationRow> {
    let mut rows = means.store.operations(digests, trust).unwrap_or_default();
    rows.retain(|digest, row| {
        let is_there = |artifact: &graph::Artifact| means.blobs.contains(artifact.digest);
        if row.artifacts.values().any(|artifact| matches!(is_there(artifact), Ok(false))) {
            if let Err(error) = means.store.evict(*digest, FILES_GONE, (means.clock)()) {
                let job = &row.job;
                notices::warning(&format!(
                    "the result of {job}, whose files are gone, was not evicted: {}",
                    with_causes(&error)
                ));
            }
            return false;
        }
        let is_whole = row.artifacts.values().all(|artifact| is_there(artifact).unwrap_or(false));
        matches!(row.outcome, Outcome::Passed { .. }) && is_whole
    });
    rows
}

/// When results of these operations were evicted last. What cannot be looked up is taken for evicted now.
fn evictions(means: &Means, digests: &[Digest]) -> BTreeMap<Digest, Timestamp> {
    let all_now = |_| digests.iter().map(|digest| (*digest, (means.clock)())).collect();
    means.store.evictions(digests).unwrap_or_else(all_now)
}

/// Writes results down, many at a time, until the world has gone.
fn keep_all(means: &Means, queue: &mpsc::Receiver<ToKeep>) {
    while let Some(batch) = next_batch(queue) {
        let mut kept: Vec<(OperationRow, Manifest)> = Vec::new();
        let mut tried: Vec<(Digest, Manifest)> = Vec::new();
        let mut at = Timestamp::default();
        for result in batch {
            let Ok((digest, manifest)) = operation_of(means, &result.made_of) else { continue };
            at = result.at;
            if !matches!(result.outcome, Outcome::Passed { .. }) {
                tried.push((digest, manifest));
                continue;
            }
            let row = OperationRow {
                digest,
                trust: result.made_of.request.event.trust,
                build: result.made_of.build,
                attempt: result.attempt,
                job: result.made_of.job,
                outcome: result.outcome,
                artifacts: result.artifacts,
                at: result.at,
                used_at: result.at,
                evicted: None,
                replaced: None,
            };
            kept.push((row, manifest));
        }
        let rows: Vec<_> = kept.iter().map(|(row, manifest)| (row.clone(), manifest)).collect();
        // A result that could not be kept is worked out again next time.
        if !rows.is_empty()
            && let Err(error) = means.store.record_operations(&rows)
        {
            notices::warning(&format!("{} results were not kept for reuse: {}", rows.len(), with_causes(&error)));
        }
        let tried: Vec<_> = tried.iter().map(|(digest, manifest)| (*digest, manifest)).collect();
        if !tried.is_empty() {
            let _ = means.store.record_tried(&tried, at);
        }
    }
}

/// What waits in a queue, at most [`TOGETHER_MAX`]; `None` once nothing more comes.
fn next_batch<T>(queue: &mpsc::Receiver<T>) -> Option<Vec<T>> {
    let mut batch = vec![queue.recv().ok()?];
    while batch.len() < TOGETHER_MAX
        && let Ok(next) = queue.try_recv()
    {
        batch.push(next);
    }
    Some(batch)
}
