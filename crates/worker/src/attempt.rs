//! One attempt at a job, from its workspace to its report.
//!
//! The order is fixed: workspace, artifacts of needs, caches, steps, processes left behind, outputs, artifacts, reports,
//! caches. The first thing that goes wrong decides the outcome; what comes after it only adds to the report. Nothing
//! here reads or writes files on the thread of all attempts but the few that steps leave for us.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use graph::{
    Artifact, AttemptReport, AttemptSpec, Failure, Outcome, Reuse, Shell, Step, StepReport, TestCase, Text, Timestamp,
    Usage, WorkspaceKind,
};
use serde_json::Value;
use tokio::time::Instant;

use crate::artifacts;
use crate::cache::{Cache, Owner, Places, Restored};
use crate::cancel::{Asked, Cancel};
use crate::contexts::{Contexts, Status};
use crate::depot::{AttemptLog, CacheSaved, Depot, LogEnd, LogError, Secrets};
use crate::file_commands::{self, CommandFault, CommandFile, CommandFiles};
use crate::files::{self, Directories};
use crate::inputs::{self, Looked};
use crate::keeper::{Command, Ending, SpawnFailure};
use crate::output::{Held, Recorder, SharedRecorder, lock, now_us};
use crate::patterns::Patterns;
use crate::place::{Place, PlaceFault, program_file};
use crate::reports::{self, Tests};
use crate::step::{Heeds, NoEnd, Stopped, Watch, Went};
use crate::variables::Variables;
use crate::worker::Worker;

/// The note that says so begins with this: the result of the job must not be reused.
pub const INPUT_CHANGED: &str = "an input changed while the job ran";

/// The most bytes of summaries of one attempt; what is longer is cut.
pub const SUMMARY_BYTES_MAX: usize = 1 << 20;

/// The most notes of one attempt.
pub const NOTES_MAX: usize = 100;

/// The most bytes of one note.
pub const NOTE_BYTES_MAX: usize = 4 << 10;

/// The most reports of one attempt that are read.
pub const REPORTS_MAX: usize = 10_000;

/// How long steps that run after a gentle cancel (`if: always()`) may take altogether.
pub const CLEANUP_MAX: Duration = Duration::from_secs(5 * 60);

/// A log of at least this size is closed by a thread that may wait for its disk.
const LARGE_LOG_BYTES: u64 = 256 << 10;

/// The exit code that stands for a step which broke its word although its script passed: a file of values that cannot be
/// read, a missing output or artifact.
pub const EXIT_BROKEN: i32 = 1;

/// The exit code of a step that could not be started by its own fault. Source: POSIX, "Exit Status for Commands".
pub const EXIT_CANNOT_START: i32 = 126;

/// Where a step that is a function of the pipeline's program finds which one, and with what types.
pub const STEP_VARIABLE: &str = "ROPEWALK_STEP";

/// Where it finds the event, its needs and the answer at its gate, as one JSON object.
pub const CONTEXT_VARIABLE: &str = "ROPEWALK_CONTEXT";

/// Runs one attempt. Many may run at once in one thread; dropping the future leaves processes to the keeper.
///
/// `log` and `depot` were made for this attempt, and mask and know its secrets.
pub async fn run_attempt(
    worker: &Worker,
    spec: AttemptSpec,
    secrets: Secrets,
    log: Arc<dyn AttemptLog>,
    depot: Arc<dyn Depot>,
    cancel: Cancel,
) -> AttemptReport {
    let started = now();
    let slot = match worker.take_slot() {
        Ok(slot) => slot,
        Err((path, error)) => {
            let message = infrastructure(&format!("cannot make `{}`", path.display()), &error);
            return AttemptReport::of(Outcome::Failed(Failure::Infra { message }), started);
        }
    };
    let mut attempt = Attempt::new(worker, spec, secrets, log, depot, cancel, slot, started);
    attempt.run().await;
    attempt.report()
}

fn now() -> Timestamp {
    Timestamp(i64::try_from(now_us()).unwrap_or(i64::MAX))
}

/// Words for what the system refused; a full disk is called by its name.
fn infrastructure(what: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            format!("{what}: no space is left on the disk")
        }
        _ => format!("{what}: {error}"),
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What the last step of an attempt found around it; kept for a person's shell. Holds no secret.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct LeftBehind {
    /// Its environment.
    pub variables: BTreeMap<String, String>,
    /// Its directory, as seen inside the workspace.
    pub directory: PathBuf,
}

/// One attempt under way.
struct Attempt<'w> {
    worker: &'w Worker,
    spec: AttemptSpec,
    secrets: Secrets,
    log: Arc<dyn AttemptLog>,
    depot: Arc<dyn Depot>,
    cancel: Cancel,
    slot: Option<CommandFiles>,
    started: Timestamp,
    deadline: Option<Instant>,
    marker: String,
    /// Environment of the next step, without the step's own.
    environment: Variables,
    /// What steps have put before PATH, the latest first.
    path: Vec<String>,
    /// The environment and directory of the last step that was to start: what a person finds who opens the workspace.
    left: Option<(Variables, PathBuf)>,
    contexts: Option<Contexts>,
    caches: Vec<(Cache, Restored)>,
    steps: Vec<StepReport>,
    /// Logs that background processes may still add to, by step.
    held: Vec<(usize, SharedRecorder, Held)>,
    /// The variables that `${{ env }}` shows.
    visible: BTreeSet<OsString>,
    outputs: BTreeMap<String, Value>,
    artifacts: BTreeMap<String, Artifact>,
    tests: Vec<TestCase>,
    summary: String,
    notes: Vec<String>,
    failure: Option<Failure>,
    status: Status,
    is_timed_out: bool,
    /// By when steps that run after a cancel must have ended.
    cleanup_deadline: Option<Instant>,
}

impl<'w> Attempt<'w> {
    #[expect(clippy::too_many_arguments, reason = "the arguments of `run_attempt`, taken apart once")]
    fn new(
        worker: &'w Worker,
        spec: AttemptSpec,
        secrets: Secrets,
        log: Arc<dyn AttemptLog>,
        depot: Arc<dyn Depot>,
        cancel: Cancel,
        slot: CommandFiles,
        started: Timestamp,
    ) -> Self {
        let deadline = spec.job.timeout_ms.and_then(|limit| Instant::now().checked_add(Duration::from_millis(limit)));
        Self {
            worker,
            marker: worker.marker(spec.attempt),
            secrets,
            log,
            depot,
            cancel,
            slot: Some(slot),
            started,
            deadline,
            environment: Variables::default(),
            path: Vec::new(),
            left: None,
            contexts: None,
            caches: Vec::new(),
            steps: Vec::with_capacity(spec.job.steps.len()),
            held: Vec::new(),
            visible: BTreeSet::new(),
            outputs: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            tests: Vec::new(),
            summary: String::new(),
            notes: Vec::new(),
            failure: None,
            status: Status::default(),
            is_timed_out: false,
            cleanup_deadline: None,
            spec,
        }
    }

    async fn run(&mut self) {
        if self.spec.job.steps.is_empty() {
            return;
        }
        if let Asked::Gently { by } | Asked::AtOnce { by } = self.cancel.asked() {
            self.fail(Failure::Canceled { by: by.to_string() });
            return;
        }
        let slot = self.slot.as_ref().map(|slot| slot.directory().to_owned()).unwrap_or_default();
        let place = match Place::open(self.worker, &self.spec, &slot).await {
            Ok(place) => place,
            Err(fault) => return self.refuse(&fault),
        };
        for note in place.notes() {
            self.note(note.clone());
        }
        self.run_in(&place).await;
        if let Err(error) = place.close(self.worker).await {
            self.note(format!("the workspace was not let go of: {error}"));
        }
    }

    fn refuse(&mut self, fault: &PlaceFault) {
        self.fail(Failure::Infra { message: chain(fault) });
    }

    async fn run_in(&mut self, place: &Place) {
        self.environment = self.base_environment(place);
        if self.needs_contexts() {
            let mut contexts = Contexts::new(&self.spec, place.runner(), place.files().to_owned());
            contexts.set_env(&BTreeMap::new());
            self.contexts = Some(contexts);
        }
        let before = self.look_at_inputs().await;
        if self.prepare(place).await.is_ok() {
            self.run_steps(place).await;
        }
        self.end_processes().await;
        self.close_held().await;
        self.compare_inputs(place, before).await;
        self.collect(place).await;
        self.keep_environment();
    }

    /// Keeps what the last step found around it, without secrets, beside the workspace's files.
    fn keep_environment(&mut self) {
        let Some((environment, directory)) = self.left.take() else { return };
        let data = &self.worker.settings.data;
        let path = crate::place::environment_file(data, self.spec.build, self.spec.attempt);
        let text = |value: &OsStr| self.secrets.hide(value.to_string_lossy().into_owned());
        let variables = environment
            .iter()
            .filter(|(name, _)| !self.secrets.values.contains_key(&*name.to_string_lossy()))
            .map(|(name, value)| (name.to_string_lossy().into_owned(), text(value)))
            .collect();
        let left = LeftBehind { variables, directory };
        let written =
            serde_json::to_vec(&left).map_err(std::io::Error::from).and_then(|text| std::fs::write(&path, text));
        if let Err(error) = written {
            self.note(format!("a shell in this workspace will lack the job's variables: {error}"));
        }
    }

    /// Whether anything is to be evaluated at all.
    fn needs_contexts(&self) -> bool {
        let job = &self.spec.job;
        let is_template = |text: &Text| matches!(text, Text::Template(_));
        job.env.values().any(is_template)
            || job.cache.iter().any(|cache| is_template(&cache.key) || cache.restore.iter().any(is_template))
            || job.steps.iter().any(|step| {
                step.condition.is_some()
                    || is_template(&step.name)
                    || step.env.values().any(is_template)
                    || step.working_directory.as_ref().is_some_and(is_template)
            })
    }

    fn base_environment(&self, place: &Place) -> Variables {
        let mut environment = place.inherited(self.worker);
        let event = &self.spec.event;
        let mut set = |name: &str, value: &str| environment.insert(name, value);
        set("ROPEWALK_BUILD", &self.spec.build.to_string());
        set("ROPEWALK_JOB", self.spec.name.as_str());
        set("ROPEWALK_EVENT", event.kind.name());
        let optional = [
            ("ROPEWALK_BRANCH", event.branch.as_deref()),
            ("ROPEWALK_TAG", event.tag.as_deref()),
            ("ROPEWALK_COMMIT", Some(event.commit.as_str()).filter(|commit| !commit.is_empty())),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                set(name, value);
            }
        }
        environment.insert("ROPEWALK_WORKSPACE", place.root());
        for (file, place) in self.slot.iter().flat_map(CommandFiles::places) {
            environment.insert(file.variable(), place);
        }
        environment
    }

    /// Environment, artifacts and caches before the first step.
    async fn prepare(&mut self, place: &Place) -> Result<(), ()> {
        self.add_job_environment().await?;
        self.restore_artifacts(place).await?;
        self.restore_caches(place).await
    }

    async fn add_job_environment(&mut self) -> Result<(), ()> {
        let job = Arc::clone(&self.spec.job);
        for (name, text) in &job.env {
            let value = self.evaluate(text).await.map_err(|fault| self.break_word(format!("env `{name}`: {fault}")))?;
            self.environment.insert(name, value);
        }
        for (name, value) in &self.secrets.values {
            self.environment.insert(name, value);
        }
        self.visible.extend(job.env.keys().map(OsString::from));
        self.show_environment();
        Ok(())
    }

    async fn restore_artifacts(&mut self, place: &Place) -> Result<(), ()> {
        let needed: Vec<(String, Artifact)> = self
            .spec
            .needs
            .iter()
            .flat_map(|(job, need)| {
                need.artifacts.iter().map(move |(name, artifact)| (format!("{name}` of `{job}"), artifact.clone()))
            })
            .collect();
        if needed.is_empty() {
            return Ok(());
        }
        let (root, depot) = (place.files().to_owned(), Arc::clone(&self.depot));
        let restored = blocking(move || {
            for (name, artifact) in needed {
                artifacts::restore(&artifact, &root, &*depot).map_err(|fault| (name, fault))?;
            }
            Ok(())
        });
        restored.await.map_err(|(name, fault): (String, artifacts::ArtifactFault)| {
            let message = format!("artifact `{name}` was not restored: {fault}");
            self.fail(Failure::Infra { message });
        })
    }

    async fn restore_caches(&mut self, place: &Place) -> Result<(), ()> {
        let job = Arc::clone(&self.spec.job);
        for declared in &job.cache {
            let mut restore = Vec::with_capacity(declared.restore.len());
            let key = self.evaluate(&declared.key).await;
            for prefix in &declared.restore {
                restore.push(self.evaluate(prefix).await.unwrap_or_default());
            }
            let key = key.map_err(|fault| self.break_word(format!("cache key {fault}")))?;
            restore.retain(|prefix| !prefix.is_empty());
            let cache = Cache { key, restore, paths: declared.paths.clone() };
            let (places, depot, trust) = (self.places(place), Arc::clone(&self.depot), self.spec.event.trust);
            let work = cache.clone();
            let restored = match blocking(move || work.restore(trust, &places, &*depot)).await {
                Ok(restored) => restored,
                Err(fault) => {
                    self.note(format!("cache `{}` was not restored: {fault}", cache.key));
                    Restored::Missed
                }
            };
            self.caches.push((cache, restored));
        }
        Ok(())
    }

    fn places(&self, place: &Place) -> Places {
        let owner = match self.spec.job.workspace {
            WorkspaceKind::Isolated => Owner::Job,
            WorkspaceKind::InPlace => Owner::User,
        };
        let (home, home_owner) = place.home(&self.environment);
        Places { workspace: place.files().to_owned(), workspace_owner: owner, home, home_owner }
    }

    async fn run_steps(&mut self, place: &Place) {
        let job = Arc::clone(&self.spec.job);
        for (index, step) in job.steps.iter().enumerate() {
            self.heed_cancel();
            let name = self.step_name(step).await;
            let done = match self.wants_step(step).await {
                Ok(true) => self.run_step(place, index, step, name).await,
                Ok(false) => Done { report: report(name, "skipped", now()), failure: None },
                Err(fault) => {
                    let recorder = Recorder::new(Arc::clone(&self.log), number(index));
                    let failure = self.broken(index, &recorder, EXIT_BROKEN, &format!("if: {fault}"));
                    let mut done = Done { report: report(name, "failed", now()), failure: Some(failure) };
                    self.close_log(&recorder, &mut done).await;
                    done
                }
            };
            self.take_in(index, step, done);
        }
    }

    /// Adds a step that has ended to what is known of the job.
    fn take_in(&mut self, index: usize, step: &Step, done: Done) {
        let Done { report, failure } = done;
        let tolerated = step.allow_failure
            && matches!(failure, Some(Failure::Step { .. } | Failure::Timeout { step: Some(_), .. }));
        let conclusion = if tolerated { "passed" } else { report.result.as_str() };
        if let (Some(id), Some(contexts)) = (&step.id, &mut self.contexts) {
            contexts.add_step(id, &report, conclusion);
        }
        for name in &self.spec.job.outputs {
            if let Some(value) = report.outputs.get(name) {
                self.outputs.insert(name.clone(), Value::from(value.as_str()));
            }
        }
        if let Some(failure) = failure.filter(|_| !tolerated) {
            self.fail(failure);
        }
        self.heed_cancel();
        if let Some(observer) = &self.worker.settings.observer {
            observer.step_finished(&self.spec.name, number(index), &report);
        }
        self.steps.push(report);
    }

    /// Remembers a cancel that came between steps.
    fn heed_cancel(&mut self) {
        if let Asked::Gently { by } | Asked::AtOnce { by } = self.cancel.asked() {
            self.fail(Failure::Canceled { by: by.to_string() });
        }
    }

    async fn step_name(&self, step: &Step) -> String {
        let name = match (&step.name, &self.contexts) {
            (Text::Plain(name), _) => name.to_string(),
            (text, Some(contexts)) => contexts.text(text).await.unwrap_or_else(|_| text.as_written().to_owned()),
            (text, None) => text.as_written().to_owned(),
        };
        if !name.is_empty() {
            return self.secrets.hide(name);
        }
        let first = step.run.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        first.trim().chars().take(100).collect()
    }

    async fn wants_step(&mut self, step: &Step) -> Result<bool, String> {
        if self.is_timed_out || matches!(self.cancel.asked(), Asked::AtOnce { .. }) {
            return Ok(false);
        }
        match (&step.condition, &mut self.contexts) {
            (Some(written), Some(contexts)) => {
                contexts.set_status(self.status);
                contexts.condition(written).await
            }
            _ => Ok(self.status == Status::Passing),
        }
    }

    async fn run_step(&mut self, place: &Place, index: usize, step: &Step, name: String) -> Done {
        let started = now();
        if let Some(observer) = &self.worker.settings.observer {
            observer.step_started(&self.spec.name, number(index), &name, started);
        }
        let recorder = Recorder::new(Arc::clone(&self.log), number(index));
        let mut done = Done { report: report(name, "failed", started), failure: None };
        match self.command(place, step).await {
            Ok((command, script)) => {
                let largest = largest_variable(&command.environment);
                let (deadline, limit) = self.limit(step);
                let mut cancel = self.cancel.listen();
                let watch = Watch {
                    processes: &self.worker.processes,
                    channels: &self.worker.channels,
                    recorder: Arc::clone(&recorder),
                    deadline,
                    grace: self.worker.settings.grace,
                    heeds: if self.status == Status::Canceled { Heeds::AtOnceOnly } else { Heeds::All },
                    cancel: &mut cancel,
                };
                let went = watch.run(command).await;
                drop(script);
                self.judge(index, &recorder, went, limit, largest, &mut done);
                self.take_values(index, step, &recorder, &mut done);
            }
            Err(Unstarted::Job(fault)) => {
                done.failure = Some(self.broken(index, &recorder, EXIT_CANNOT_START, &fault));
            }
            Err(Unstarted::Machine(message)) => done.failure = Some(self.infra(&recorder, message)),
        }
        self.close_log(&recorder, &mut done).await;
        done
    }

    /// The nearest limit, and whose it is.
    fn limit(&self, step: &Step) -> (Option<Instant>, Limit) {
        let own = step.timeout_ms.and_then(|limit| Instant::now().checked_add(Duration::from_millis(limit)));
        let of_step = own.map(|at| (at, Limit::Step(step.timeout_ms.unwrap_or(0))));
        let of_job = self.deadline.map(|at| (at, Limit::Job(self.spec.job.timeout_ms.unwrap_or(0))));
        let of_cleanup = self.cleanup_deadline.map(|at| (at, Limit::Cleanup));
        let nearest = [of_step, of_job, of_cleanup].into_iter().flatten().min_by_key(|(at, _)| *at);
        nearest.map_or((None, Limit::Cleanup), |(at, limit)| (Some(at), limit))
    }

    /// The command of a step, and its script if that had to become a file.
    async fn command(&mut self, place: &Place, step: &Step) -> Result<(Command, Vec<HandedFile>), Unstarted> {
        let mut environment = self.environment.clone();
        if !self.path.is_empty() {
            let old = environment.get("PATH").map(OsString::from).unwrap_or_default();
            let mut path = OsString::from(self.path.join(":"));
            path.push(":");
            path.push(old);
            environment.insert("PATH", path);
        }
        for (name, text) in &step.env {
            let value = self.evaluate(text).await.map_err(|fault| Unstarted::Job(format!("env `{name}`: {fault}")))?;
            environment.insert(name, value);
        }
        let directory = match &step.working_directory {
            None => place.root().to_owned(),
            Some(text) => {
                let directory =
                    self.evaluate(text).await.map_err(|fault| Unstarted::Job(format!("working_directory: {fault}")))?;
                below(place.root(), &directory).map_err(Unstarted::Job)?
            }
        };
        if self.spec.job.workspace == WorkspaceKind::Isolated {
            self.left = Some((environment.clone(), directory.clone()));
        }
        let (mut command, script) = self.shell(step)?;
        command.marker.clone_from(&self.marker);
        environment.extend(command.environment.iter());
        command.environment = environment;
        command.directory = directory;
        place.enter(&mut command);
        Ok((command, script))
    }

    fn shell(&self, step: &Step) -> Result<(Command, Vec<HandedFile>), Unstarted> {
        let script = step.run.as_bytes();
        let failed = |error: std::io::Error| Unstarted::Machine(infrastructure("cannot hand over a script", &error));
        match &step.shell {
            Shell::Sh => Ok((Command::shell("/bin/sh", &["-e"], script).map_err(failed)?, Vec::new())),
            Shell::Bash => {
                let arguments = ["--noprofile", "--norc", "-eo", "pipefail"];
                Ok((Command::shell("bash", &arguments, script).map_err(failed)?, Vec::new()))
            }
            Shell::Program(digest) => {
                let program = program_file(&self.worker.settings.data, *digest);
                if !program.is_file() {
                    return Err(Unstarted::Machine(format!(
                        "the pipeline's program {digest} is not on this worker; the next evaluation of the pipeline brings it"
                    )));
                }
                let payload = self.handed("script", script)?;
                let context = serde_json::json!({
                    "event": self.spec.event,
                    "needs": graph::legs::context(&self.spec.needs),
                    "gate": self.spec.gate,
                    "matrix": self.spec.job.matrix,
                    "job": { "name": self.spec.name, "attempt": self.spec.try_number },
                    "build": { "number": self.spec.build },
                });
                let context = self.handed("context", context.to_string().as_bytes())?;
                let mut command = Command::shell("", &[], b"").map_err(failed)?;
                command.program = program.into();
                command.arguments = vec!["run".into(), self.spec.name.as_str().into()];
                command.environment.insert(STEP_VARIABLE, &payload.path);
                command.environment.insert(CONTEXT_VARIABLE, &context.path);
                Ok((command, vec![payload, context]))
            }
            Shell::Custom(words) => {
                let file = self.handed("script", script)?;
                let text = file.path.to_string_lossy();
                let mut all: Vec<OsString> = words.iter().map(|word| word.replace("{0}", &text).into()).collect();
                if !words.iter().any(|word| word.contains("{0}")) {
                    all.push(file.path.clone().into());
                }
                let program = all.remove(0);
                let mut command = Command::shell("", &[], b"").map_err(failed)?;
                (command.program, command.arguments) = (program, all);
                Ok((command, vec![file]))
            }
        }
    }

    /// A file for the next step, beside those by which it hands on values.
    fn handed(&self, name: &str, content: &[u8]) -> Result<HandedFile, Unstarted> {
        let Some(slot) = &self.slot else { return Err(Unstarted::Machine("no place for a script".to_owned())) };
        let file = HandedFile { path: slot.directory().join(name) };
        std::fs::write(&file.path, content).map_err(|error| {
            Unstarted::Machine(infrastructure(&format!("cannot write `{}`", file.path.display()), &error))
        })?;
        Ok(file)
    }

    /// Turns what became of the process into the step's result.
    fn judge(
        &mut self,
        index: usize,
        recorder: &SharedRecorder,
        went: Went,
        limit: Limit,
        largest: (OsString, usize),
        done: &mut Done,
    ) {
        if let Some(held) = went.held {
            self.hold(index, recorder, held);
        }
        let report = &mut done.report;
        report.finished = now();
        let end = match went.end {
            Ok(end) => end,
            Err(no_end) => {
                done.failure = Some(self.judge_no_end(index, recorder, no_end, largest));
                return;
            }
        };
        report.started = end.started;
        report.finished = end.finished;
        report.usage = end.usage;
        report.exit = Some(end.ending.code());
        if let Ending::Signaled(signal) = end.ending {
            report.signal = Some(signal);
        }
        match went.stopped {
            // The job's failure is the cancel itself; see `heed_cancel`.
            Some(Stopped::Canceled) => report.result = "canceled".to_owned(),
            Some(Stopped::TimedOut) => done.failure = Some(self.time_out(recorder, number(index), limit)),
            None if end.ending.code() == 0 => report.result = "passed".to_owned(),
            None => done.failure = Some(Failure::Step { step: number(index), exit: end.ending.code() }),
        }
    }

    fn time_out(&mut self, recorder: &SharedRecorder, step: u16, limit: Limit) -> Failure {
        let (step, limit_ms, whose) = match limit {
            Limit::Step(limit_ms) => (Some(step), limit_ms, "the step's limit"),
            Limit::Job(limit_ms) => (None, limit_ms, "the job's limit"),
            Limit::Cleanup => {
                let limit_ms = u64::try_from(CLEANUP_MAX.as_millis()).unwrap_or(u64::MAX);
                (Some(step), limit_ms, "the limit for all steps after a cancel")
            }
        };
        self.is_timed_out |= !matches!(limit, Limit::Step(_));
        lock(recorder).note(&format!("stopped: {whose} of {limit_ms} ms is over"));
        Failure::Timeout { step, limit_ms }
    }

    fn judge_no_end(
        &mut self,
        index: usize,
        recorder: &SharedRecorder,
        no_end: NoEnd,
        (largest, bytes): (OsString, usize),
    ) -> Failure {
        let failure = match no_end {
            NoEnd::KeeperLost => {
                return self.infra(recorder, "the keeper process has ended, and the step with it".to_owned());
            }
            NoEnd::Pipes(error) => {
                return self.infra(recorder, infrastructure("cannot read what the step prints", &error));
            }
            NoEnd::NotStarted(failure) => failure,
        };
        match failure {
            SpawnFailure::NoProgram(program) => {
                let hint = match &self.spec.job.steps[index].shell {
                    Shell::Sh => "a POSIX shell has to be installed on this worker",
                    Shell::Bash => "install bash on this worker, or take `shell: sh`",
                    Shell::Custom(_) => "install it on this worker, or correct the step's `shell`",
                    Shell::Program(_) => "the pipeline's program was taken away while the job ran: run it again",
                };
                self.infra(recorder, format!("the shell `{program}` was not found: {hint}"))
            }
            SpawnFailure::TooLong { .. } => {
                let largest = largest.to_string_lossy();
                let fault = format!("{failure}; the largest variable is `{largest}` ({bytes} bytes)");
                self.broken(index, recorder, EXIT_CANNOT_START, &fault)
            }
            SpawnFailure::Directory { .. } | SpawnFailure::Unspeakable { .. } => {
                self.broken(index, recorder, EXIT_CANNOT_START, &failure.to_string())
            }
            _ => self.infra(recorder, failure.to_string()),
        }
    }

    /// A failure that is the machine's, told in the step's log too.
    fn infra(&self, recorder: &SharedRecorder, message: String) -> Failure {
        let message = self.secrets.hide(message);
        lock(recorder).note(&message);
        Failure::Infra { message }
    }

    /// A failure of the step that its script did not tell, told in the step's log and in the report.
    fn broken(&mut self, index: usize, recorder: &SharedRecorder, exit: i32, fault: &str) -> Failure {
        let fault = self.secrets.hide(fault.to_owned());
        lock(recorder).note(&fault);
        self.note(format!("step {}: {fault}", index + 1));
        Failure::Step { step: number(index), exit }
    }

    /// Leaves pipes that background processes hold to a thread of their own.
    fn hold(&mut self, index: usize, recorder: &SharedRecorder, held: Held) {
        let text = "processes that this step left behind still hold its output; it is recorded until the job ends";
        lock(recorder).note(text);
        self.note(format!("step {}: {text}", index + 1));
        self.held.push((index, Arc::clone(recorder), held));
    }

    /// Reads what the step wrote to the files that hand values on.
    fn take_values(&mut self, index: usize, step: &Step, recorder: &SharedRecorder, done: &mut Done) {
        let Some(slot) = self.slot.take() else { return };
        let taken = self.take_files(&slot, &mut done.report);
        self.slot = Some(slot);
        let fault = taken.err().or_else(|| {
            let missing = step.outputs.iter().find(|name| !done.report.outputs.contains_key(*name))?;
            let is_due = done.report.result == "passed";
            is_due.then(|| format!("the step declares the output `{missing}` and did not write it to $ROPEWALK_OUTPUT"))
        });
        if let Some(fault) = fault {
            let failure = self.broken(index, recorder, EXIT_BROKEN, &fault);
            if done.report.result == "passed" {
                done.report.result = "failed".to_owned();
                done.failure = Some(failure);
            }
        }
    }

    fn take_files(&mut self, slot: &CommandFiles, report: &mut StepReport) -> Result<(), String> {
        if slot.is_empty() {
            return Ok(());
        }
        // All four are taken away, whatever is wrong with one of them.
        let taken = CommandFile::ALL.map(|file| slot.take(file));
        let [output, env, path, summary] = taken;
        let of = |file: CommandFile| move |fault: CommandFault| format!("${}: {fault}", file.variable());
        if let Ok(Some(text)) = &summary {
            self.add_summary(text);
        }
        if let Some(text) = output.map_err(of(CommandFile::Output))? {
            for entry in file_commands::entries(&text).map_err(of(CommandFile::Output))? {
                report.outputs.insert(entry.name, self.secrets.hide(entry.value));
            }
        }
        if let Some(text) = env.map_err(of(CommandFile::Env))? {
            for entry in file_commands::variables(&text).map_err(of(CommandFile::Env))? {
                self.environment.insert(&entry.name, entry.value);
                self.visible.insert(entry.name.into());
            }
            self.show_environment();
        }
        if let Some(text) = path.map_err(of(CommandFile::Path))? {
            let directories = file_commands::directories(&text).map_err(of(CommandFile::Path))?;
            for directory in directories {
                self.path.insert(0, directory);
            }
        }
        summary.map_err(of(CommandFile::Summary))?;
        Ok(())
    }

    fn add_summary(&mut self, text: &[u8]) {
        let text = self.secrets.hide(String::from_utf8_lossy(text).into_owned());
        let room = SUMMARY_BYTES_MAX.saturating_sub(self.summary.len());
        if text.len() > room {
            self.note(format!("the summary is longer than {SUMMARY_BYTES_MAX} bytes and was cut"));
        }
        self.summary.push_str(&text[..text.floor_char_boundary(room.min(text.len()))]);
        if !self.summary.is_empty() && !self.summary.ends_with('\n') && self.summary.len() < SUMMARY_BYTES_MAX {
            self.summary.push('\n');
        }
    }

    /// Ends a step's log, unless background processes may still add to it.
    async fn close_log(&mut self, recorder: &SharedRecorder, done: &mut Done) {
        if self.held.last().is_some_and(|(_, held, _)| Arc::ptr_eq(held, recorder)) {
            lock(recorder).flush();
            return;
        }
        let end = close(recorder).await;
        done.report.lines = end.lines;
        if let Some(error) = end.failure {
            let failure = self.log_failure(&error);
            done.failure = Some(failure);
            done.report.result = "failed".to_owned();
        }
    }

    fn log_failure(&mut self, error: &LogError) -> Failure {
        let message = self.secrets.hide(format!("the step's output was not kept whole: {error}"));
        self.note(message.clone());
        Failure::Infra { message }
    }

    /// Ends what steps left running, and names it.
    async fn end_processes(&mut self) {
        match self.worker.processes.end_job(&self.marker).await {
            Ok(left) if left.is_empty() => {}
            Ok(left) => {
                let names: Vec<String> =
                    left.iter().take(10).map(|process| format!("{} ({})", process.name, process.pid)).collect();
                let more = if left.len() > names.len() { ", …" } else { "" };
                let plural = if left.len() == 1 { "process" } else { "processes" };
                self.note(format!("ended {} {plural} that steps left running: {}{more}", left.len(), names.join(", ")));
                if let Some(slot) = &self.slot {
                    slot.clear();
                }
            }
            Err(error) => self.note(format!("processes that steps left were not looked for: {error}")),
        }
    }

    /// Ends the logs that background processes could add to.
    async fn close_held(&mut self) {
        for (index, recorder, held) in std::mem::take(&mut self.held) {
            held.release().await;
            let end = close(&recorder).await;
            if let Some(report) = self.steps.get_mut(index) {
                report.lines = end.lines;
            }
            if let Some(error) = end.failure {
                let failure = self.log_failure(&error);
                self.fail(failure);
            }
        }
    }

    /// The stats of the inputs of a job that works in the user's tree, to be compared when it has ended.
    async fn look_at_inputs(&self) -> Option<Looked> {
        let globs = match &self.spec.job.reuse {
            _ if self.spec.operation.is_none() || self.spec.job.workspace != WorkspaceKind::InPlace => return None,
            Reuse::Never => return None,
            Reuse::Tree => None,
            Reuse::Inputs(globs) => Some(globs.clone()),
        };
        let root = self.worker.settings.root.clone();
        blocking(move || inputs::look(&root, globs.as_deref())).await
    }

    async fn compare_inputs(&mut self, place: &Place, before: Option<Looked>) {
        let changed = match before {
            Some(before) => self.look_at_inputs().await.and_then(|after| before.difference(&after)),
            None if self.spec.operation.is_some() => place.changed(&self.spec.job.reuse).await,
            None => None,
        };
        if let Some(path) = changed {
            self.note(format!("{INPUT_CHANGED}: {}; its result is not kept for reuse", path.display()));
        }
    }

    /// Gathers what the job hands on.
    async fn collect(&mut self, place: &Place) {
        self.heed_cancel();
        if self.failure.is_none() {
            self.check_outputs();
        }
        if self.status != Status::Canceled {
            self.collect_artifacts(place).await;
            self.read_reports(place).await;
        }
        if self.failure.is_none() {
            self.save_caches(place).await;
        }
    }

    fn check_outputs(&mut self) {
        let missing: Vec<&str> =
            self.spec.job.outputs.iter().filter(|name| !self.outputs.contains_key(*name)).map(String::as_str).collect();
        if !missing.is_empty() {
            let fault = format!(
                "the job declares the output `{}` and no step wrote it to $ROPEWALK_OUTPUT",
                missing.join("`, `")
            );
            self.break_word(fault);
        }
    }

    /// Fails the job for something that no script told.
    fn break_word(&mut self, fault: String) {
        self.note(fault);
        let step = number(self.steps.len().saturating_sub(1));
        self.fail(Failure::Step { step, exit: EXIT_BROKEN });
    }

    /// A job that failed hands on what there is, for people; one that passed, what it declared.
    async fn collect_artifacts(&mut self, place: &Place) {
        let job = Arc::clone(&self.spec.job);
        for (name, globs) in &job.artifacts {
            let (root, scratch) = (place.files().to_owned(), self.worker.scratch().to_owned());
            let (globs, depot) = (globs.clone(), Arc::clone(&self.depot));
            match blocking(move || artifacts::collect(&root, &globs, &scratch, &*depot)).await {
                Ok(collected) => {
                    for path in collected.left_out.iter().take(3) {
                        self.note(format!("artifact `{name}`: `{}` is no file and was left out", path.display()));
                    }
                    self.artifacts.insert(name.clone(), collected.artifact);
                }
                Err(_) if self.failure.is_some() => {}
                Err(fault) if fault.is_infrastructure() => {
                    self.fail(Failure::Infra { message: format!("artifact `{name}` was not kept: {fault}") });
                }
                Err(fault) => self.break_word(format!("artifact `{name}`: {fault}")),
            }
        }
    }

    async fn read_reports(&mut self, place: &Place) {
        if self.spec.job.reports.junit.is_empty() {
            return;
        }
        let (root, globs) = (place.files().to_owned(), self.spec.job.reports.junit.clone());
        let (tests, notes) = blocking(move || read_junit(&root, &globs)).await;
        for note in notes {
            self.note(note);
        }
        if tests.dropped > 0 {
            self.note(format!(
                "{} tests of reports were passed over: at most {} are kept",
                tests.dropped,
                reports::TESTS_MAX
            ));
        }
        self.tests = tests.cases;
        if self.secrets.mask.is_some() {
            for test in &mut self.tests {
                for text in [&mut test.suite, &mut test.name, &mut test.message, &mut test.output] {
                    *text = self.secrets.hide(std::mem::take(text));
                }
            }
        }
    }

    async fn save_caches(&mut self, place: &Place) {
        for (cache, restored) in std::mem::take(&mut self.caches) {
            if restored == Restored::Exact {
                continue;
            }
            let (places, depot, trust) = (self.places(place), Arc::clone(&self.depot), self.spec.event.trust);
            let scratch = self.worker.scratch().to_owned();
            let key = cache.key.clone();
            match blocking(move || cache.save(trust, &places, &scratch, &*depot)).await {
                Ok(CacheSaved::Saved | CacheSaved::Existed) => {}
                Err(fault) => self.note(format!("cache `{key}` was not saved: {fault}")),
            }
        }
    }

    async fn evaluate(&self, text: &Text) -> Result<String, String> {
        match (text, &self.contexts) {
            (Text::Plain(text), _) => Ok(text.to_string()),
            (text, Some(contexts)) => contexts.text(text).await,
            (text, None) => Ok(text.as_written().to_owned()),
        }
    }

    /// Shows the variables that the pipeline and its steps set to `${{ env }}`.
    fn show_environment(&mut self) {
        if let Some(contexts) = &mut self.contexts {
            let visible =
                self.visible.iter().filter_map(|name| Some((name.clone(), self.environment.get(name)?.into())));
            contexts.set_env(&visible.collect());
        }
    }

    /// The first failure decides; a cancel decides over what came of it.
    fn fail(&mut self, failure: Failure) {
        let is_cancel = matches!(failure, Failure::Canceled { .. });
        if is_cancel && self.status != Status::Canceled {
            self.status = Status::Canceled;
            self.cleanup_deadline = Instant::now().checked_add(CLEANUP_MAX);
        } else if self.status == Status::Passing {
            self.status = Status::Failed;
        }
        self.failure.get_or_insert(failure);
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < NOTES_MAX {
            let mut note = self.secrets.hide(note);
            note.truncate(note.floor_char_boundary(NOTE_BYTES_MAX.min(note.len())));
            self.notes.push(note);
        }
    }

    fn report(mut self) -> AttemptReport {
        if let Some(slot) = self.slot.take() {
            self.worker.give_slot(slot);
        }
        let usage = self.steps.iter().fold(Usage::default(), |usage, step| usage.with(step.usage));
        let outcome = match self.failure {
            Some(Failure::Infra { message }) => Outcome::Failed(Failure::Infra { message: self.secrets.hide(message) }),
            Some(failure) => Outcome::Failed(failure),
            None => Outcome::Passed { outputs: self.outputs },
        };
        AttemptReport {
            outcome,
            started: self.started,
            finished: now(),
            steps: self.steps,
            artifacts: self.artifacts,
            usage,
            tests: self.tests,
            summary: self.summary,
            notes: self.notes,
        }
    }
}

/// A step that was looked at, and what it means for the job unless its failure is tolerated.
struct Done {
    report: StepReport,
    failure: Option<Failure>,
}

/// Why a step's process was not even asked for.
enum Unstarted {
    /// The job's fault.
    Job(String),
    /// The machine's.
    Machine(String),
}

/// Whose limit it is, in milliseconds.
#[derive(Clone, Copy)]
enum Limit {
    Step(u64),
    Job(u64),
    /// [`CLEANUP_MAX`].
    Cleanup,
}

/// A script that an interpreter reads from a file; removed when the step has ended.
struct HandedFile {
    path: PathBuf,
}

impl Drop for HandedFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn number(index: usize) -> u16 {
    // A job has at most `Job::STEPS_MAX` steps.
    u16::try_from(index).unwrap_or(u16::MAX)
}

fn report(name: String, result: &str, at: Timestamp) -> StepReport {
    StepReport {
        name,
        exit: None,
        signal: None,
        result: result.to_owned(),
        started: at,
        finished: at,
        usage: Usage::default(),
        outputs: BTreeMap::new(),
        lines: 0,
    }
}

/// A directory of the workspace as steps see it.
fn below(root: &Path, directory: &str) -> Result<PathBuf, String> {
    let is_below = |component: Component<'_>| matches!(component, Component::Normal(_) | Component::CurDir);
    match Path::new(directory).components().all(is_below) {
        true => Ok(root.join(directory)),
        false => Err(format!("working_directory `{directory}` leads out of the workspace")),
    }
}

/// The name and size of the largest variable; of none if there is none.
fn largest_variable(environment: &Variables) -> (OsString, usize) {
    let sized = environment.iter().map(|(name, value)| (name, name.len() + value.len()));
    let largest = sized.max_by_key(|(_, bytes)| *bytes);
    largest.map_or_else(Default::default, |(name, bytes)| (name.into(), bytes))
}

/// Closes a log; a large one where it may wait for its disk.
async fn close(recorder: &SharedRecorder) -> LogEnd {
    if lock(recorder).bytes() < LARGE_LOG_BYTES {
        return lock(recorder).close();
    }
    let recorder = Arc::clone(recorder);
    blocking(move || lock(&recorder).close()).await
}

/// Does something that waits for a disk on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only when the runtime ends, and with it whoever waits here.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Reads all reports, and says what was wrong with which.
fn read_junit(root: &Path, globs: &[String]) -> (Tests, Vec<String>) {
    let mut tests = Tests::default();
    let patterns = match Patterns::new(globs) {
        Ok(patterns) => patterns,
        Err(fault) => return (tests, vec![format!("reports: {fault}")]),
    };
    let found = match files::find(root, &patterns, Directories::Left, REPORTS_MAX) {
        Ok(found) => found,
        Err(fault) => return (tests, vec![format!("reports: {fault}")]),
    };
    if found.is_empty() {
        return (tests, vec![format!("no report matches `{}`", globs.join("`, `"))]);
    }
    let mut notes = Vec::new();
    for found in found.iter().filter(|found| found.metadata.is_file()) {
        let read = std::fs::File::open(&found.place)
            .map_err(|error| error.to_string())
            .and_then(|file| tests.read(std::io::BufReader::new(file)).map_err(|fault| fault.to_string()));
        if let Err(fault) = read {
            notes.push(format!("report `{}`: {fault}", found.path.display()));
        }
    }
    (tests, notes)
}
