//! The server as one value: what handlers of requests call, and how it starts and ends.
//!
//! Every function here that people's requests come to takes who asks; none of them checks whether they may. What they
//! answer is stored before it is answered.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;

use api::worker::{Join, Offer, Then, ToWorker};
use dialects::native::Triggered;
use engine::fact::What;
use engine::pools::{PoolsUsed, SetGoing};
use engine::wait::Wait;
use engine::{BuildOptions, BuildRequest, Engine, Fact, Input, Presence};
use graph::{
    AttemptReport, BuildId, Digest, Event, EventKind, Failure, JobName, Known, Origin, Outcome, Resources, Timestamp,
    Verdict, WorkerId,
};
use serde_json::Value;
use store::blob::Blobs;
use store::log::Logs;
use store::{Sequence, Store, StoreError};
use thiserror::Error;
use tokio::sync::watch;

use crate::absences;
use crate::access::{Access, Denied, Pass};
use crate::dispatch::{Dispatch, Given, JoinRefusal, Joined, SessionPass, with_both_names};
use crate::figures::Figures;
use crate::lead::Term;
use crate::live::Live;
use crate::lock::lock;
use crate::lowering::{First, Lowering};
use crate::notices;
use crate::pool_history::{self, PoolHistory};
use crate::records::{
    Intake, PoolRecord, Project, RecordError, Records, Said, Sharing, Superseding, WorkerRecord, is_name,
};
use crate::recovery::{self, recover, save_standings};
use crate::request::{ShellHandle, Stopped, requests};
use crate::retention::{self, Removal, SweepError};
use crate::settings::{OnOff, Settings};
use crate::shell::{Inbox, Shell, ShellError, inbox};
use crate::source::{SourceError, Sources};
use crate::visits::Visits;
use crate::worker_time::WorkerTime;
use crate::world::{Duplicates, Means, SecretSource, ServerWorld, send_start};

/// The most jobs that no worker could run that a request's answer names.
pub const UNMATCHED_TOLD_MAX: usize = 20;

/// For how many projects the number of the next build is drawn ahead.
const PROJECTS_DRAWN_MAX: usize = 1000;

/// What a server is made of. Clones are the same parts.
#[derive(Clone)]
pub struct Parts {
    /// Facts and rows.
    pub store: Arc<dyn Store>,
    /// Contents.
    pub blobs: Arc<dyn Blobs>,
    /// Logs of builds.
    pub logs: Arc<Logs>,
    /// Tokens.
    pub access: Arc<Access>,
    /// Values of secrets.
    pub secrets: Arc<dyn SecretSource>,
    /// Where what comes in is put down for a moment: a folder on the disk of the blobs.
    pub scratch: PathBuf,
    /// The present time.
    pub clock: fn() -> Timestamp,
}

/// A server, as handlers of requests see it. All of its parts may be called from any thread.
pub struct Server {
    /// Facts and rows. Blocks.
    pub store: Arc<dyn Store>,
    /// Contents. Blocks.
    pub blobs: Arc<dyn Blobs>,
    /// Logs of builds. Blocks.
    pub logs: Arc<Logs>,
    /// Tokens. Blocks.
    pub access: Arc<Access>,
    /// Documents beside builds. Blocks.
    pub records: Records,
    /// Files of builds. Blocks.
    pub sources: Arc<Sources>,
    /// Who is joined.
    pub dispatch: Arc<Dispatch>,
    /// The shells that people have open.
    pub visits: Arc<Visits>,
    /// Followers of builds.
    pub live: Arc<Live>,
    /// What is counted.
    pub figures: Arc<Figures>,
    /// How long workers were busy for each project.
    pub worker_time: Arc<WorkerTime>,
    /// The engine.
    pub shell: ShellHandle,
    settings: RwLock<Arc<Settings>>,
    /// Held by all who take up a build that has ended, and alone by who removes one.
    removals: tokio::sync::RwLock<()>,
    /// How pools stood over the last hour.
    pub(crate) pool_history: PoolHistory,
    /// How many sweeps there were; held by who sweeps.
    pub(crate) sweeps: tokio::sync::Mutex<u64>,
    means: Arc<Means>,
    scratch: PathBuf,
    term: Term,
    ending: watch::Sender<Ending>,
}

/// Numbers drawn for builds to come. Those left over when the server ends are gaps.
#[derive(Default)]
pub(crate) struct Drawn {
    build: Option<BuildId>,
    numbers: HashMap<String, u64>,
}

impl Drawn {
    /// Takes out what was drawn for a build of a project.
    pub(crate) fn take(&mut self, project: &str) -> (Option<BuildId>, Option<u64>) {
        (self.build.take(), self.numbers.remove(project))
    }
}

/// Whether a server goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It does.
    No,
    /// It takes no new requests and ends its streams.
    Begun,
}

/// Why a server cannot start, or had to stop.
#[derive(Debug, Error)]
pub enum StartError {
    /// The store refused.
    #[error("failed to read what was under way")]
    Store(#[from] StoreError),
    /// A record refused.
    #[error("failed to read what was under way")]
    Record(#[from] RecordError),
    /// The system gave no thread.
    #[error("failed to start a thread")]
    Thread(#[from] io::Error),
}

/// A server that runs.
pub struct Running {
    /// The server.
    pub server: Arc<Server>,
    shell: thread::JoinHandle<Result<(), ShellError>>,
    ended: watch::Receiver<bool>,
    sweeps: tokio::task::JoinHandle<()>,
    samples: tokio::task::JoinHandle<()>,
}

/// A build that somebody wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The project; made if it is not there.
    pub project: String,
    /// The manifest of its files, which are among the blobs.
    pub source: Digest,
    /// What happened. Its time is set here.
    pub event: Event,
    /// The pipeline; the project's own if not said.
    pub pipeline: Option<String>,
    /// How it is to run.
    pub options: BuildOptions,
    /// Whom the queue charges.
    pub client: String,
    /// Whether an equal build that waits may stand for it.
    pub sharing: Sharing,
    /// Whether it may take the place of earlier ones of its client, and a later one its place, where project and server let that be.
    pub superseding: Superseding,
    /// Names the request, if it may be repeated: a repetition is the same build.
    pub key: Option<Digest>,
}

/// The build that stands for a request, durably.
#[derive(Clone, Debug, PartialEq)]
pub struct Submitted {
    /// The build.
    pub build: BuildId,
    /// Its number in its project.
    pub number: u64,
    /// Whether it was made for the request.
    pub made: Made,
    /// The builds whose place it takes: they are canceled.
    pub superseded: Vec<BuildId>,
    /// The jobs that no worker which is there could run, as far as they are known, the first [`UNMATCHED_TOLD_MAX`].
    pub unmatched: Vec<(JobName, Wait)>,
}

/// Whether a build was made for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It was.
    New,
    /// It waited already.
    Joined,
}

/// Why a request about builds was refused.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The files or the pipeline are not there.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A name cannot be one.
    #[error("`{0}` is no name: letters, digits and `._-` in between, at most 100")]
    BadName(String),
    /// What was filled in does not fit the pipeline.
    #[error("{0}")]
    Params(String),
    /// There is no such build.
    #[error("there is no build {0}")]
    NoBuild(BuildId),
    /// There is no such job, or none that this can be done to.
    #[error("{0}")]
    NoJob(String),
    /// There is no such worker.
    #[error("there is no worker `{0}`")]
    NoWorker(String),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record refused.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The server is ending.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A task broke.
    #[error("the request was interrupted")]
    Interrupted,
}

impl Server {
    /// Starts a server: what was under way goes on. To be called within a runtime, on which its tasks run.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(settings: Settings, parts: Parts) -> Result<Running, StartError> {
        Self::start_for(settings, parts, Term::Alone)
    }

    /// As [`Server::start`], for as long as it leads.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_for(settings: Settings, parts: Parts, term: Term) -> Result<Running, StartError> {
        std::fs::create_dir_all(&parts.scratch)?;
        let (inbox, inputs) = inbox();
        let (shell, requests) = requests();
        let server = Self::assemble(settings, parts, inbox.clone(), shell, term);
        let recovered = recover(&*server.store, &server.records, server.now())?;
        for input in held_pools(&server.records)?.into_iter().chain(server.revoked_holders(&recovered.engine)?) {
            // An inbox that nobody reads yet has room for all pools, and for most workers; others are waited for.
            let _ = inbox.try_send(input);
        }
        server.take_up_charts();
        let mut world = ServerWorld::new(Arc::clone(&server.means))?;
        for (build, request) in recovered.requests {
            world.remember(build, request);
        }
        world.remember_begun(recovered.begun);
        world.remember_ended(recovered.ended);
        let (engine, first_save) = (recovered.engine, recovered.first_save);
        let (told_end, ended) = watch::channel(false);
        let shell_store = Arc::clone(&server.store);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            let shell = Shell::new(engine, shell_store, world, inputs).with_requests(requests);
            let result = runtime.block_on(shell.run()).map(drop);
            let _ = told_end.send(true);
            Ok::<_, io::Error>(result)
        };
        let thread = thread::Builder::new().name("shell".to_owned()).spawn(move || match run() {
            Ok(result) => result,
            Err(error) => Err(ShellError::Store(error.into())),
        })?;
        let records = server.records.clone();
        let (shell, store, clock) = (server.shell.clone(), Arc::clone(&server.store), server.means.clock);
        let saving = save_standings(shell, store, records, clock, term, first_save);
        drop(tokio::spawn(saving));
        let server = Arc::new(server);
        drop(tokio::spawn(absences::keep(Arc::downgrade(&server))));
        let sweeps = tokio::spawn(retention::keep(Arc::clone(&server)));
        let samples = tokio::spawn(pool_history::keep(Arc::clone(&server)));
        Ok(Running { server, shell: thread, ended, sweeps, samples })
    }

    /// What the engine is told of workers with attempts in their hands whose token has become worth nothing: as when that is found while
    /// they are joined, they have three heartbeats to join by another one.
    fn revoked_holders(&self, engine: &Engine) -> Result<Vec<Input>, RecordError> {
        let mut inputs = Vec::new();
        for (worker, leases) in engine.holders() {
            let Some((record, _)) = self.records.read::<WorkerRecord>(&worker.to_string())? else { continue };
            let Some(Err(denied)) = record.pass.map(|pass| self.access.ask_kept(&pass, self.now())) else { continue };
            let reason = no_good_token(&denied);
            notices::warning(&format!("worker {} goes on only by another token; {reason}", record.name));
            let presence = Presence {
                pools: with_both_names(record.pools),
                labels: record.labels,
                slots: 0,
                resources: Resources::default(),
                leases,
                holds_ms: self.dispatch.holds_ms(),
                intake: engine::Intake::Closed { reason },
            };
            inputs.push(Input::WorkerPresent { worker, presence });
        }
        Ok(inputs)
    }

    /// Goes on with what charts showed before the start. What cannot be read begins anew.
    fn take_up_charts(&self) {
        let now = self.now();
        let taken = self.pool_history.take_up(&self.records, now);
        if let Err(error) = taken.and_then(|()| self.worker_time.take_up(&self.records, now)) {
            notices::warning(&format!("the charts of the queue begin anew: {error}"));
        }
    }

    /// A server without an engine, which answers what the store alone can answer; whatever needs the engine is told that it
    /// has ended. To be called within a runtime.
    ///
    /// # Errors
    /// [`StartError::Thread`] if the folder for what comes in cannot be made.
    pub fn without_engine(settings: Settings, parts: Parts) -> Result<Arc<Self>, StartError> {
        std::fs::create_dir_all(&parts.scratch)?;
        // The other ends are dropped: nobody reads what is put there.
        let ((inbox, _), (shell, _)) = (inbox(), requests());
        Ok(Arc::new(Self::assemble(settings, parts, inbox, shell, Term::Alone)))
    }

    fn assemble(settings: Settings, parts: Parts, inbox: Inbox, shell: ShellHandle, term: Term) -> Self {
        let Parts { store, blobs, logs, access, secrets, scratch, clock } = parts;
        let records = Records::new(Arc::clone(&store));
        let sources = Arc::new(Sources::new(Arc::clone(&blobs)));
        let dispatch = Arc::new(Dispatch::new(settings.heartbeat.0));
        let live = Arc::new(Live::new(Arc::clone(&store), Arc::clone(&logs), records.clone()));
        let figures = Arc::new(Figures::default());
        let worker_time = Arc::new(WorkerTime::new(clock()));
        let means = Arc::new(Means {
            store: Arc::clone(&store),
            blobs: Arc::clone(&blobs),
            logs: Arc::clone(&logs),
            records: records.clone(),
            sources: Arc::clone(&sources),
            lowering: Arc::new(Lowering::new(Arc::clone(&sources), Arc::clone(&blobs))),
            dispatch: Arc::clone(&dispatch),
            live: Arc::clone(&live),
            figures: Arc::clone(&figures),
            worker_time: Arc::clone(&worker_time),
            secrets,
            duplicates: Arc::new(Duplicates::default()),
            drawn: Mutex::default(),
            otlp: settings.otlp.clone(),
            clock,
            inbox,
            tasks: tokio::runtime::Handle::current(),
        });
        Self {
            store,
            blobs,
            logs,
            access,
            records,
            sources,
            dispatch,
            visits: Arc::default(),
            live,
            figures,
            worker_time,
            shell,
            settings: RwLock::new(Arc::new(settings)),
            removals: tokio::sync::RwLock::default(),
            sweeps: tokio::sync::Mutex::default(),
            pool_history: PoolHistory::default(),
            means,
            scratch,
            term,
            ending: watch::Sender::new(Ending::No),
        }
    }

    /// The present time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.means.clock)()
    }

    /// Where what comes in is put down for a moment.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The settings as they are now.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over settings that a running server takes over.
    pub fn reload(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// How many sweeps of old builds and blobs have ended since the start.
    pub async fn sweeps_ended(&self) -> u64 {
        *self.sweeps.lock().await
    }

    /// Changes once the server is to end: streams end then.
    #[must_use]
    pub fn ending(&self) -> watch::Receiver<Ending> {
        self.ending.subscribe()
    }

    // Builds.

    /// Makes a build, or finds the one that stands for the request. Durable when it returns.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn submit(self: &Arc<Self>, wanted: Wanted) -> Result<Submitted, RequestError> {
        let (server, project) = (Arc::clone(self), wanted.project.clone());
        let (build, request) = blocking(move || server.prepare(wanted)).await??;
        let number = request.origin.number;
        let known = Known::of(request.event.clone());
        let evaluated = self.means.lowering.find(&request, &request.pipeline, &known);
        let evaluated = evaluated.map(|it| Input::Evaluated { build, answers_known: 0, evaluation: Box::new(it) });
        // What is known already is said at once: the facts from the request to the first lease are stored together.
        let inputs =
            [Input::BuildRequested { build, request: Box::new(request) }].into_iter().chain(evaluated).collect();
        let (stored, unmatched) = tokio::join!(self.shell.put_about(inputs, Some(build)), self.unmatched(build));
        let is_superseded = |fact: &&Fact| engine::is_superseded_by(fact, build);
        let superseded = stored?.iter().filter(is_superseded).map(|fact| fact.build).collect();
        let (server, project) = (Arc::clone(self), project);
        // Not awaited: the next request finds its numbers drawn.
        drop(tokio::spawn(async move {
            // What the build has set going is told first.
            tokio::task::yield_now().await;
            drop(tokio::task::spawn_blocking(move || server.draw_ahead(&project)).await);
        }));
        let Some(of) = self.means.duplicates.take(build) else {
            return Ok(Submitted { build, number, made: Made::New, superseded, unmatched: unmatched? });
        };
        let unmatched = self.unmatched(of).await?;
        let store = Arc::clone(&self.store);
        let row = blocking(move || store.build(of)).await??;
        let number = row.map_or(0, |row| row.origin.number);
        Ok(Submitted { build: of, number, made: Made::Joined, superseded, unmatched })
    }

    /// The jobs of a build that no worker could run.
    async fn unmatched(&self, build: BuildId) -> Result<Vec<(JobName, Wait)>, Stopped> {
        self.shell.ask(move |engine| engine.unmatched_of(build, UNMATCHED_TOLD_MAX)).await
    }

    /// Reads the pipeline, fills in what nobody said, and draws the numbers. Blocks.
    fn prepare(&self, wanted: Wanted) -> Result<(BuildId, BuildRequest), RequestError> {
        let Wanted { project, source, mut event, pipeline, options, client, sharing, superseding: wanted, key } =
            wanted;
        if !is_name(&project) {
            return Err(RequestError::BadName(project));
        }
        if !options.pool.is_empty() && !is_name(&options.pool) {
            return Err(RequestError::BadName(options.pool));
        }
        let settings = self.project(&project)?.settings;
        let files = self.sources.open(source)?;
        let pipeline = pipeline.map_or_else(|| files.own_pipeline(), Ok)?;
        event.time = self.now();
        let mut request = BuildRequest { options, client, key, ..BuildRequest::new(event, pipeline) };
        request.origin = Origin { project, source: Some(source), ..Origin::default() };
        request.quarantine = crate::quarantine::in_force(&self.records, &request.origin.project, request.event.time)?;
        if sharing == Sharing::OneBuild && settings.sharing == Sharing::OneBuild {
            request.identity = Some(identity(&request));
        }
        let superseding = settings.superseding.unwrap_or(match self.settings().auto_cancel {
            OnOff::On => Superseding::CancelsEarlier,
            OnOff::Off => Superseding::KeepsEarlier,
        });
        if [superseding, wanted] == [Superseding::CancelsEarlier; 2] {
            request.supersedes = supersedes(&request);
        }
        if let First::Lowered(lowered) = self.means.lowering.first(&request)? {
            if request.event.kind == EventKind::Command
                && let Triggered::No { reason } = &lowered.triggered
            {
                return Err(RequestError::Params(reason.clone()));
            }
            let is_changed = request.event.params != lowered.filled;
            request.event.params.clone_from(&lowered.filled);
            if !is_changed {
                self.means.lowering.remember(&request, request.event.clone(), lowered.evaluation);
            }
        }
        let (build, number) = self.drawn().take(&request.origin.project);
        let build = build.map_or_else(|| self.store.reserve_build(), Ok)?;
        request.origin.number = number.map_or_else(|| self.store.reserve_number(&request.origin.project), Ok)?;
        Ok((build, request))
    }

    fn drawn(&self) -> MutexGuard<'_, Drawn> {
        lock(&self.means.drawn)
    }

    /// Draws the numbers of the next build of a project: each costs a wait for the disk. Blocks.
    fn draw_ahead(&self, project: &str) {
        let (has_build, has_number) = {
            let drawn = self.drawn();
            let is_full = drawn.numbers.len() >= PROJECTS_DRAWN_MAX;
            (drawn.build.is_some(), is_full || drawn.numbers.contains_key(project))
        };
        // What fails here is tried again when it is needed.
        let build = if has_build { None } else { self.store.reserve_build().ok() };
        let number = if has_number { None } else { self.store.reserve_number(project).ok() };
        let mut drawn = self.drawn();
        drawn.build = drawn.build.or(build);
        if let Some(number) = number {
            drawn.numbers.entry(project.to_owned()).or_insert(number);
        }
    }

    /// A project; made if it is not there. Blocks.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn project(&self, name: &str) -> Result<Project, RequestError> {
        if let Some((project, _)) = self.records.read::<Project>(name)? {
            return Ok(project);
        }
        if !is_name(name) {
            return Err(RequestError::BadName(name.to_owned()));
        }
        let at = self.now();
        let fresh = || Project { name: name.to_owned(), created: at, ..Project::default() };
        Ok(self.records.change(name, at, |project: Option<Project>| project.unwrap_or_else(fresh))?)
    }

    /// Cancels a build that has not ended. Gives whether anything came of it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn cancel(&self, build: BuildId, by: &str) -> Result<Effected, RequestError> {
        self.check_build(build).await?;
        let input = Input::CancelRequested { build, by: by.to_owned() };
        let facts = self.shell.put_about(vec![input], Some(build)).await?;
        Ok(Effected::of(facts.iter().any(|fact| matches!(fact.what, What::CancelRequested { .. }))))
    }

    /// Puts a build before those that are not urgent. Gives whether anything came of it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn urge(&self, build: BuildId, by: &str) -> Result<Effected, RequestError> {
        self.check_build(build).await?;
        let input = Input::MadeUrgent { build, by: by.to_owned() };
        let facts = self.shell.put_about(vec![input], Some(build)).await?;
        Ok(Effected::of(facts.iter().any(|fact| matches!(fact.what, What::MadeUrgent { .. }))))
    }

    /// Cancels one job of a build. Gives whether anything came of it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn cancel_job(&self, build: BuildId, job: JobName, by: &str) -> Result<Effected, RequestError> {
        self.check_job(build, &job).await?;
        let input = Input::JobCanceled { build, job: job.clone(), by: by.to_owned() };
        let facts = self.shell.put_about(vec![input], Some(build)).await?;
        let is_about = |fact: &Fact| match &fact.what {
            What::JobCancelRequested { job: canceled, .. } | What::JobEnded { job: canceled, .. } => *canceled == job,
            _ => false,
        };
        Ok(Effected::of(facts.iter().any(is_about)))
    }

    /// The pools in which would run what somebody is about to set going in a build.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn pools_used(&self, build: BuildId, what: SetGoing) -> Result<PoolsUsed, RequestError> {
        Ok(self.shell.ask(move |engine| engine.pools_used(build, &what)).await?)
    }

    /// The jobs of a build that a retry is about: these, or all that failed, were canceled or were never run if none is named. With the
    /// pools in which would run what it sets going.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn to_retry(
        &self,
        build: BuildId,
        jobs: BTreeSet<JobName>,
    ) -> Result<(BTreeSet<JobName>, PoolsUsed), RequestError> {
        let _stays = self.removals.read().await;
        self.check_build(build).await?;
        if !self.shell.recall(build).await? {
            return Err(RequestError::NoBuild(build));
        }
        let found = move |engine: &Engine| {
            let jobs = retried(engine, build, &jobs)?;
            let used = engine.pools_used(build, &SetGoing::Again(jobs.clone()));
            Ok((jobs, used))
        };
        self.shell.ask(found).await?.map_err(RequestError::NoJob)
    }

    /// Puts jobs of a build back, as far as they can be; those of which tests are asked for are narrowed to them. Gives the jobs that run
    /// again.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn retry(
        &self,
        build: BuildId,
        jobs: BTreeSet<JobName>,
        tests: BTreeMap<JobName, Arc<graph::AskedTests>>,
        by: &str,
    ) -> Result<BTreeSet<JobName>, RequestError> {
        let _stays = self.removals.read().await;
        self.check_build(build).await?;
        if !self.shell.recall(build).await? {
            return Err(RequestError::NoBuild(build));
        }
        let input = |job: JobName| {
            let tests = tests.get(&job).cloned();
            Input::JobRetried { build, job, by: by.to_owned(), tests }
        };
        let facts = self.shell.put_about(jobs.into_iter().map(input).collect(), Some(build)).await?;
        Ok(facts
            .into_iter()
            .filter_map(|fact| match fact.what {
                What::JobRetried { job, .. } => Some(job),
                _ => None,
            })
            .collect())
    }

    /// Answers a gate; `None` is a no. Gives whether it was open and the answer fits its form.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn answer_gate(
        &self,
        build: BuildId,
        job: JobName,
        answer: Option<BTreeMap<String, Value>>,
        by: &str,
    ) -> Result<Effected, RequestError> {
        self.check_job(build, &job).await?;
        let input = Input::GateAnswered { build, job: job.clone(), answer, by: by.to_owned() };
        let facts = self.shell.put_about(vec![input], Some(build)).await?;
        let is_it = |fact: &Fact| matches!(&fact.what, What::GateAnswered { job: answered, .. } if *answered == job);
        Ok(Effected::of(facts.iter().any(is_it)))
    }

    /// Removes a build that has ended, with its log, unless somebody takes it up at this moment.
    ///
    /// # Errors
    /// [`SweepError`].
    pub async fn remove_build(self: &Arc<Self>, build: BuildId) -> Result<Removal, SweepError> {
        let _alone = self.removals.write().await;
        // What the engine holds it may still append to.
        if self.shell.ask(move |engine| engine.verdict(build).is_some()).await? {
            return Ok(Removal::Stays);
        }
        let server = Arc::clone(self);
        let removed = tokio::task::spawn_blocking(move || retention::remove_parts(&server, build));
        removed.await.map_err(|_| SweepError::Interrupted)?
    }

    /// Whether there is such a build, held or not.
    async fn check_build(&self, build: BuildId) -> Result<(), RequestError> {
        if self.shell.ask(move |engine| engine.verdict(build).is_some()).await? {
            return Ok(());
        }
        let store = Arc::clone(&self.store);
        blocking(move || store.build(build)).await??.map(drop).ok_or(RequestError::NoBuild(build))
    }

    async fn check_job(&self, build: BuildId, job: &JobName) -> Result<(), RequestError> {
        self.check_build(build).await?;
        let wanted = job.clone();
        let has_ended_or_has = move |engine: &Engine| {
            engine.verdict(build).is_none_or(|verdict| verdict != Verdict::Running)
                || engine.job(build, &wanted).is_some()
        };
        if self.shell.ask(has_ended_or_has).await? {
            return Ok(());
        }
        Err(RequestError::NoJob(format!("build {build} has no job `{job}`")))
    }

    // Workers and pools.

    /// A worker that has proved its key joins by a token. Blocks not; the first line of its session is there when this returns.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn join(self: &Arc<Self>, worker: WorkerId, join: Join, pass: Arc<Pass>) -> Result<Joined, JoinError> {
        let at = self.now();
        let Join { key, offer, leases, is_draining, .. } = join;
        let (records, id, joining) = (self.records.clone(), worker.clone(), offer.clone());
        let kept = pass.kept();
        let record = blocking(move || {
            records.change(&id.to_string(), at, |record: Option<WorkerRecord>| {
                let record = record.unwrap_or_else(|| WorkerRecord { first_joined: at, ..WorkerRecord::default() });
                let Offer { name, pools, labels, version, .. } = joining.clone();
                let pass = Some(kept.clone());
                WorkerRecord { key: key.clone(), name, pools, labels, version, last_joined: at, pass, ..record }
            })
        });
        let intake = record.await.map_err(|_| JoinError::Interrupted)??.intake;
        let was_drained = matches!(intake, Intake::Draining(_));
        // A worker that was drained, has left and comes again was meant to come again.
        let intake = if was_drained && !is_draining { self.resumed(&worker).await? } else { intake };
        let joined = self.dispatch.join(&worker, offer, leases, intake, (pass, at))?;
        if is_draining && !was_drained {
            // Somebody said so while it was away.
            self.dispatch.tell(&worker, &ToWorker::Resume);
        }
        if let Some(presence) = self.dispatch.present(&worker, None, at) {
            self.shell.put_and_wait(vec![Input::WorkerPresent { worker: worker.clone(), presence }]).await?;
        }
        self.say_starts_again(&worker).await?;
        Ok(joined)
    }

    /// Starts what a worker that has joined should run and has not heard of. What is to stop by now is not begun: nobody runs it.
    async fn say_starts_again(&self, worker: &WorkerId) -> Result<(), Stopped> {
        let unheard = self.dispatch.unheard(worker);
        if unheard.is_empty() {
            return Ok(());
        }
        let leases: Vec<_> = unheard.iter().map(|given| given.spec.lease).collect();
        let stopping = self.shell.ask(move |engine| engine.stopping(&leases)).await?;
        let (ended, begun): (Vec<_>, Vec<_>) =
            unheard.into_iter().partition(|given| stopping.contains(&given.spec.lease));
        for given in begun {
            send_start(&self.means, given.spec, given.trust);
        }
        let lost = |given: Given| Input::AttemptFinished {
            build: given.spec.build,
            attempt: given.spec.attempt,
            lease: given.spec.lease,
            report: Box::new(AttemptReport::of(Outcome::Failed(Failure::Lost), self.now())),
        };
        self.shell.put_and_wait(ended.into_iter().map(lost).collect()).await
    }

    /// Asks whether the token by which a worker joined is good still. If not its session ends: nothing more is handed to it, no word of it is taken, and what it
    /// runs is lost once it has been silent for long enough, unless it joins again by a token that is good.
    ///
    /// # Errors
    /// [`Denied`], once the session has ended for that.
    pub async fn ask_session(self: &Arc<Self>, session: &SessionPass) -> Result<(), Denied> {
        let (server, pass) = (Arc::clone(self), Arc::clone(&session.pass));
        let asked = tokio::task::spawn_blocking(move || pass.ask(&server.access, server.now())).await;
        // A task that broke has said nothing.
        let Ok(Err(denied)) = asked else { return Ok(()) };
        let worker = &session.worker;
        let name = self.dispatch.name_of(worker);
        let reason = no_good_token(&denied);
        if let Some(presence) = self.dispatch.expel(worker, session.number, reason.clone()) {
            self.visits.end_of(worker);
            notices::warning(&format!("the session of worker {name} was ended; {reason}"));
            // A server that is ending has told it already.
            let _ = self.shell.put(Input::WorkerPresent { worker: worker.clone(), presence }).await;
        }
        Err(denied)
    }

    async fn resumed(&self, worker: &WorkerId) -> Result<Intake, JoinError> {
        let (records, id, at) = (self.records.clone(), worker.to_string(), self.now());
        let change = move || {
            records.change(&id, at, |record: Option<WorkerRecord>| WorkerRecord {
                intake: Intake::Open,
                ..record.unwrap_or_default()
            })
        };
        Ok(blocking(change).await.map_err(|_| JoinError::Interrupted)??.intake)
    }

    /// Pauses, drains or resumes a worker; `then` is what one that is drained does at the end.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn set_intake(&self, worker: &WorkerId, intake: Intake, then: Then) -> Result<(), RequestError> {
        let (records, id, at, said) = (self.records.clone(), worker.to_string(), self.now(), intake.clone());
        let is_known = blocking(move || {
            if records.read::<WorkerRecord>(&id)?.is_none() {
                return Ok(false);
            }
            records.change(&id, at, |record: Option<WorkerRecord>| WorkerRecord {
                intake: said.clone(),
                ..record.unwrap_or_default()
            })?;
            Ok::<_, RecordError>(true)
        });
        if !is_known.await?? {
            return Err(RequestError::NoWorker(worker.to_string()));
        }
        if let Some(presence) = self.dispatch.set_intake(worker, intake, then) {
            let worker = worker.clone();
            self.shell.put_and_wait(vec![Input::WorkerPresent { worker, presence }]).await?;
        }
        Ok(())
    }

    /// Forgets a worker: its session ends, what it held is lost at once.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn forget_worker(&self, worker: &WorkerId) -> Result<(), RequestError> {
        let (records, id) = (self.records.clone(), worker.to_string());
        if !blocking(move || records.remove::<WorkerRecord>(&id)).await?? {
            return Err(RequestError::NoWorker(worker.to_string()));
        }
        self.dispatch.end(worker);
        self.shell.put_and_wait(vec![Input::WorkerLeft { worker: worker.clone() }]).await?;
        Ok(())
    }

    /// Holds a pool, or releases it with `None`.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn hold_pool(&self, pool: &str, held: Option<Said>) -> Result<(), RequestError> {
        if !is_name(pool) {
            return Err(RequestError::BadName(pool.to_owned()));
        }
        let (records, name, at) = (self.records.clone(), pool.to_owned(), self.now());
        let document = PoolRecord { held: held.clone() };
        blocking(move || records.write(&name, &document, at)).await??;
        self.shell.put_and_wait(pool_held(pool, held.as_ref())).await?;
        Ok(())
    }
}

/// Whether a request changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effected {
    /// It did.
    Yes,
    /// What it was about had ended, or was so already.
    No,
}

impl Effected {
    fn of(changed: bool) -> Self {
        if changed { Self::Yes } else { Self::No }
    }
}

/// Why a worker cannot join.
#[derive(Debug, Error)]
pub enum JoinError {
    /// It may not.
    #[error(transparent)]
    Refused(#[from] JoinRefusal),
    /// A record refused.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The server is ending.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A task broke.
    #[error("joining was interrupted")]
    Interrupted,
}

impl Running {
    /// Waits until the shell has ended by itself: facts could not be stored.
    pub async fn failed(&self) {
        let mut ended = self.ended.clone();
        // The sender is gone only with the shell.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Ends the server: streams end, what was taken is stored, what runs on workers goes on there.
    ///
    /// # Errors
    /// Why the shell had ended before.
    pub async fn end(self) -> Result<(), ShellError> {
        self.server.ending.send_replace(Ending::Begun);
        self.server.dispatch.end_all();
        // A sweep that is at work is left after its next step; the next server's begins anew.
        self.sweeps.abort();
        let _ = self.sweeps.await;
        self.samples.abort();
        let _ = self.samples.await;
        pool_history::write(&self.server).await;
        let Server { shell, store, records, term, .. } = &*self.server;
        // A start that finds none that is up to date reads more.
        let _ = recovery::save(shell, store, records, self.server.means.clock, *term, Sequence::default()).await;
        shell.end().await;
        let shell = self.shell;
        tokio::task::spawn_blocking(move || shell.join().expect("the shell's thread does not panic"))
            .await
            .expect("joining a thread does not panic")
    }
}

fn no_good_token(denied: &Denied) -> String {
    format!("its token is not good any more: {denied}")
}

/// Runs what blocks on the pool of blocking threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RequestError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| RequestError::Interrupted)
}

fn held_pools(records: &Records) -> Result<Vec<Input>, RecordError> {
    let pools = records.all::<PoolRecord>()?;
    Ok(pools
        .into_iter()
        .filter(|(_, pool)| pool.held.is_some())
        .flat_map(|(name, pool)| pool_held(&name, pool.held.as_ref()))
        .collect())
}

/// The default pool has two names: its own, and the empty one of jobs that name none.
fn pool_held(pool: &str, held: Option<&Said>) -> Vec<Input> {
    let reason = held.map(|said| format!("held {}", said.in_words()));
    let mut names = vec![pool.to_owned()];
    if pool == crate::records::DEFAULT_POOL {
        names.push(String::new());
    }
    names.into_iter().map(|pool| Input::PoolHeld { pool, reason: reason.clone() }).collect()
}

/// What makes two requests the same: all that a build depends on but who asks and when.
fn identity(request: &BuildRequest) -> Digest {
    let event = Event { time: Timestamp::default(), actor: String::new(), ..request.event.clone() };
    let parts = (
        &request.origin.project,
        request.origin.source,
        &request.pipeline,
        &event,
        &request.options,
        &request.quarantine,
    );
    // Our own types serialize to JSON whatever they hold.
    let text = serde_json::to_vec(&parts).expect("parts of a request always serialize");
    store::blob::digest(&text)
}

/// What a later build takes the place of: earlier ones of the same pipeline for the same branch or pull request.
fn supersedes(request: &BuildRequest) -> Option<String> {
    let event = &request.event;
    let what = match event.kind {
        EventKind::PullRequest => format!("pull request {}", event.pull_request?),
        EventKind::Push => format!("branch {}", event.branch.as_ref()?),
        _ => return None,
    };
    Some(format!("{}\n{what}", request.pipeline))
}

/// Which jobs are to be put back, or why one of them cannot be.
fn retried(engine: &Engine, build: BuildId, wanted: &BTreeSet<JobName>) -> Result<BTreeSet<JobName>, String> {
    let has_failed = |state: &engine::JobState<'_>| {
        matches!(state, engine::JobState::Ended(Outcome::Failed(failure)) if !matches!(failure, Failure::Canceled { .. }))
            || matches!(state, engine::JobState::Ended(Outcome::Failed(Failure::Canceled { .. })))
    };
    if wanted.is_empty() {
        return Ok(engine.jobs(build).filter(|(_, state)| has_failed(state)).map(|(job, _)| job.clone()).collect());
    }
    match wanted.iter().find(|job| engine.job(build, job).is_none()) {
        Some(unknown) => Err(format!("build {build} has no job `{unknown}`")),
        None => Ok(wanted.clone()),
    }
}
