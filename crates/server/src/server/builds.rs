//! What people ask of builds: to be made, canceled, urged, retried, answered, removed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, MutexGuard};

use dialects::native::Triggered;
use engine::fact::What;
use engine::pools::{PoolsUsed, SetGoing};
use engine::wait::Wait;
use engine::{BuildOptions, BuildRequest, Engine, Fact, Input};
use graph::{BuildId, Digest, Event, EventKind, JobName, Known, Origin, Outcome, Timestamp, Verdict};
use serde_json::Value;

use super::{RequestError, Server, blocking};
use crate::dispatch::Askers;
use crate::lock::lock;
use crate::lowering::First;
use crate::records::{Project, Sharing, Superseding, is_name};
use crate::request::Stopped;
use crate::retention::{self, Removal, SweepError};
use crate::settings::OnOff;

/// The most jobs that no worker could run that a request's answer names.
pub const UNMATCHED_TOLD_MAX: usize = 20;

/// For how many projects the number of the next build is drawn ahead.
const PROJECTS_DRAWN_MAX: usize = 1000;

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
    /// Why no worker can ask its pipeline's program for now, for people.
    pub unasked: Option<String>,
}

/// Whether a build was made for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It was.
    New,
    /// It waited already.
    Joined,
}

/// The jobs that were put back, each with the tests that were asked for; `None` for all of them.
pub type Retried = BTreeMap<JobName, Option<Arc<graph::AskedTests>>>;

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

impl Server {
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
        // Of files all is known by now.
        let askers = Askers { pool: request.options.pool.clone(), reach: request.options.pools };
        let unasked = if evaluated.is_none() { self.dispatch.nobody(&askers) } else { None };
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
            return Ok(Submitted { build, number, made: Made::New, superseded, unmatched: unmatched?, unasked });
        };
        let unmatched = self.unmatched(of).await?;
        let store = Arc::clone(&self.store);
        let row = blocking(move || store.build(of)).await??;
        let number = row.map_or(0, |row| row.origin.number);
        Ok(Submitted { build: of, number, made: Made::Joined, superseded, unmatched, unasked })
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
        self.sources.check_whole(&files, event.time)?;
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
            if let Some(wrong) = lowered.wrong_params() {
                return Err(RequestError::Params(wrong));
            }
            // Of a pipeline that is wrong they would be filled in by guess: the build fails with what is known of it.
            let is_changed = !lowered.is_wrong() && request.event.params != lowered.filled;
            if is_changed {
                request.event.params.clone_from(&lowered.filled);
            } else {
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

    /// Those of these jobs that cannot run again within their build, since the pipeline has grown by how they ended.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn told_of(
        &self,
        build: BuildId,
        mut jobs: BTreeSet<JobName>,
    ) -> Result<BTreeSet<JobName>, RequestError> {
        let told = move |engine: &Engine| {
            jobs.retain(|job| engine.is_told(build, job));
            jobs
        };
        Ok(self.shell.ask(told).await?)
    }

    /// What a request of this name put back in a build: the jobs, each with the tests that were asked for; none if it never came so far.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn retried_by(&self, build: BuildId, key: Digest) -> Result<Retried, RequestError> {
        let store = Arc::clone(&self.store);
        let facts = blocking(move || store.facts(build)).await??;
        let retried = facts.into_iter().filter_map(|fact| match fact.what {
            What::JobRetried { job, tests, key: Some(by), .. } if by == key => Some((job, tests)),
            _ => None,
        });
        Ok(retried.collect())
    }

    /// Puts jobs of a build back, as far as they can be; those of which tests are asked for are narrowed to them. With who asks, and what
    /// names the request if it may be repeated. Gives the jobs that run again.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn retry(
        &self,
        build: BuildId,
        jobs: BTreeSet<JobName>,
        tests: BTreeMap<JobName, Arc<graph::AskedTests>>,
        (by, key): (&str, Option<Digest>),
    ) -> Result<Retried, RequestError> {
        let _stays = self.removals.read().await;
        self.check_build(build).await?;
        if !self.shell.recall(build).await? {
            return Err(RequestError::NoBuild(build));
        }
        let input = |job: JobName| {
            let tests = tests.get(&job).cloned();
            Input::JobRetried { build, job, by: by.to_owned(), tests, key }
        };
        let facts = self.shell.put_about(jobs.into_iter().map(input).collect(), Some(build)).await?;
        Ok(facts
            .into_iter()
            .filter_map(|fact| match fact.what {
                What::JobRetried { job, tests, .. } => Some((job, tests)),
                _ => None,
            })
            .collect())
    }

    /// Answers a gate; `None` is a no. With who it is and why. Gives whether it was open and the answer fits its form.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn answer_gate(
        &self,
        build: BuildId,
        job: JobName,
        answer: Option<BTreeMap<String, Value>>,
        (by, reason): (&str, &str),
    ) -> Result<Effected, RequestError> {
        self.check_job(build, &job).await?;
        let (by, reason) = (by.to_owned(), reason.to_owned());
        let input = Input::GateAnswered { build, job: job.clone(), answer, by, reason };
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
        EventKind::PullRequest => match event.pull_request {
            Some(number) => format!("pull request {number}"),
            // Who submits one from a checkout knows no number.
            None => format!("pull request of {}", event.branch.as_ref()?),
        },
        EventKind::Push => format!("branch {}", event.branch.as_ref()?),
        _ => return None,
    };
    Some(format!("{}\n{what}", request.pipeline))
}

/// Which jobs are to be put back, or why one of them cannot be.
fn retried(engine: &Engine, build: BuildId, wanted: &BTreeSet<JobName>) -> Result<BTreeSet<JobName>, String> {
    // Also what was canceled did not pass.
    let has_failed = |state: &engine::JobState<'_>| matches!(state, engine::JobState::Ended(Outcome::Failed(_)));
    if wanted.is_empty() {
        return Ok(engine.jobs(build).filter(|(_, state)| has_failed(state)).map(|(job, _)| job.clone()).collect());
    }
    match wanted.iter().find(|job| engine.job(build, job).is_none()) {
        Some(unknown) => Err(format!("build {build} has no job `{unknown}`")),
        None => Ok(wanted.clone()),
    }
}
