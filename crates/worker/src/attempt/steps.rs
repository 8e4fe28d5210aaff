//! The steps of an attempt, one after the other: whether each runs, how it went, and what that means for the job.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use graph::{Environment, Failure, Shell, Step, StepReport, StepResult, Text, Timestamp, Usage};
use serde_json::Value;
use tokio::time::Instant;

use super::command::{Unstarted, largest_variable};
use super::container::Contained;
use super::{Attempt, EXIT_BROKEN, EXIT_CANCELED, blocking, infrastructure, now, number};
use crate::cancel::Asked;
use crate::contexts::Status;
use crate::depot::{LogEnd, LogError, Reach};
use crate::keeper::{Command, Ending, SpawnFailure};
use crate::output::{Held, Recorder, SharedRecorder, lock};
use crate::place::Place;
use crate::step::{Heeds, NoEnd, Runner, Stopped, Watch, Went};

/// A log of at least this size is closed by a thread that may wait for its disk.
const LARGE_LOG_BYTES: u64 = 256 << 10;

/// The exit code of a step that could not be started by its own fault. Source: POSIX, "Exit Status for Commands".
pub const EXIT_CANNOT_START: i32 = 126;

/// How long steps that run after a gentle cancel or after the job's limit (`if: always()`) may take altogether.
pub const CLEANUP_MAX: Duration = Duration::from_secs(5 * 60);

impl Attempt<'_> {
    pub(super) async fn run_steps(&mut self, place: &Place) {
        let job = Arc::clone(&self.spec.job);
        for (index, step) in job.steps.iter().enumerate() {
            self.heed_cancel();
            let name = self.step_name(step).await;
            let done = match self.wants_step(step).await {
                Ok(true) => {
                    self.keep_files().await;
                    let done = self.run_step(place, index, step, name).await;
                    self.leave(index, &done.report.name);
                    done
                }
                Ok(false) => Done { report: report(name, StepResult::Skipped, now()), failure: None },
                Err(fault) => {
                    let recorder = Recorder::new(Arc::clone(&self.log), number(index));
                    let failure = self.broken(index, &recorder, EXIT_BROKEN, &format!("if: {fault}"));
                    let mut done = Done { report: report(name, StepResult::Failed, now()), failure: Some(failure) };
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
        let conclusion = if tolerated { StepResult::Passed } else { report.result };
        if let (Some(id), Some(contexts)) = (&step.id, &mut self.contexts) {
            contexts.add_step(id, &report, conclusion);
        }
        for name in &self.spec.job.outputs {
            if let Some(value) = report.outputs.get(name) {
                self.outputs.insert(name.clone(), Value::from(value.as_str()));
            }
        }
        if let Some(failure) = failure.filter(|_| !tolerated) {
            self.left.note_failure(number(index));
            self.fail(failure);
        }
        self.heed_cancel();
        if let Some(observer) = &self.worker.settings.observer {
            observer.step_finished(&self.spec.name, number(index), &report);
        }
        self.steps.push(report);
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
        self.secrets.hide(step.script_title())
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
        let (recorder, heard) = self.recorder_of(index, step);
        let mut done = Done { report: report(name, StepResult::Passed, started), failure: None };
        let begins_shell = self.needs_shell();
        if begins_shell {
            self.begin_shell(place, index, step, &recorder, &mut done).await;
        }
        if done.report.result == StepResult::Passed {
            self.run_command(place, index, step, &recorder, &mut done).await;
            if let Some(heard) = &heard {
                self.take_built(heard, step, &recorder, &mut done);
            }
            self.take_values(index, step, &recorder, &mut done);
            if begins_shell {
                done.report.started = started;
            }
        }
        self.close_log(&recorder, &mut done).await;
        done
    }

    async fn run_command(
        &mut self,
        place: &Place,
        index: usize,
        step: &Step,
        recorder: &SharedRecorder,
        done: &mut Done,
    ) {
        done.report.result = StepResult::Failed;
        match self.command(place, step).await {
            Ok((command, script)) => {
                let largest = largest_variable(&command.environment);
                let (went, limit) = self.watch(step, recorder, command).await;
                drop(script);
                self.judge(index, recorder, went, limit, largest, done);
            }
            Err(unstarted) => done.failure = Some(self.unstarted(index, recorder, unstarted)),
        }
    }

    /// The failure of a step whose process was not even asked for.
    pub(super) fn unstarted(&mut self, index: usize, recorder: &SharedRecorder, why: Unstarted) -> Failure {
        match why {
            Unstarted::Job(fault) => self.broken(index, recorder, EXIT_CANNOT_START, &fault),
            Unstarted::Machine(message) => self.infra(recorder, message),
            Unstarted::Setup(message) => {
                lock(recorder).note(&message);
                Failure::Setup { message }
            }
        }
    }

    /// Runs a command for a step, to its end or the nearest limit.
    pub(super) async fn watch(&mut self, step: &Step, recorder: &SharedRecorder, command: Command) -> (Went, Limit) {
        let (deadline, limit) = self.limit(step);
        let mut cancel = self.cancel.listen();
        let watch = Watch {
            channels: &self.worker.channels,
            recorder: Arc::clone(recorder),
            deadline,
            grace: self.worker.settings.grace,
            heeds: if self.status == Status::Canceled { Heeds::AtOnceOnly } else { Heeds::All },
            cancel: &mut cancel,
        };
        let container = self.contained.as_mut().and_then(Contained::container);
        let runner = container.map_or(Runner::Keeper(&self.worker.processes), Runner::Container);
        (watch.run(runner, command).await, limit)
    }

    /// The nearest limit, and whose it is.
    fn limit(&self, step: &Step) -> (Option<Instant>, Limit) {
        let own = step.timeout_ms.and_then(|limit| Instant::now().checked_add(Duration::from_millis(limit)));
        let of_step = own.map(|at| (at, Limit::Step(step.timeout_ms.unwrap_or(0))));
        // What cleans up after the job's limit, or after a cancel, has a limit of its own.
        let of_all = match self.cleanup_deadline {
            Some(at) => Some((at, Limit::Cleanup)),
            None => self.deadline.map(|at| (at, Limit::Job(self.spec.job.timeout_ms.unwrap_or(0)))),
        };
        let nearest = [of_step, of_all].into_iter().flatten().min_by_key(|(at, _)| *at);
        nearest.map_or((None, Limit::Cleanup), |(at, limit)| (Some(at), limit))
    }

    /// Turns what became of the process into the step's result.
    pub(super) fn judge(
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
                match (no_end, went.stopped) {
                    // What stopped the step stopped its container too.
                    (NoEnd::ContainerLost(_), Some(stopped)) => self.stop(index, recorder, &stopped, limit, done),
                    (no_end, _) => done.failure = Some(self.judge_no_end(index, recorder, no_end, largest)),
                }
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
            Some(stopped) => self.stop(index, recorder, &stopped, limit, done),
            None if end.ending.code() == 0 => report.result = StepResult::Passed,
            // What was canceled has not failed: nothing mends it, and no try asks for the build again.
            None if self.spec.job.steps[index].build.is_some() && end.ending.code() == EXIT_CANCELED => {
                report.result = StepResult::Canceled;
                done.failure = Some(Failure::Canceled { by: "the end of the build that it asked for".to_owned() });
            }
            None => {
                self.tell_memory_kills(index, recorder);
                done.failure = Some(Failure::Step { step: number(index), exit: end.ending.code(), message: None });
            }
        }
    }

    /// The result of a step that was made to end.
    fn stop(&mut self, index: usize, recorder: &SharedRecorder, stopped: &Stopped, limit: Limit, done: &mut Done) {
        match stopped {
            // The job's failure is the cancel itself; see `heed_cancel`.
            Stopped::Canceled => done.report.result = StepResult::Canceled,
            Stopped::TimedOut => done.failure = Some(self.time_out(recorder, number(index), limit)),
        }
    }

    fn time_out(&mut self, recorder: &SharedRecorder, step: u16, limit: Limit) -> Failure {
        let (step, limit_ms, whose) = match limit {
            Limit::Step(limit_ms) => (Some(step), limit_ms, "the step's limit"),
            Limit::Job(limit_ms) => (None, limit_ms, "the job's limit"),
            Limit::Cleanup => {
                let limit_ms = u64::try_from(CLEANUP_MAX.as_millis()).unwrap_or(u64::MAX);
                (Some(step), limit_ms, "the limit for all steps after a cancel or after the job's limit")
            }
        };
        match limit {
            Limit::Step(_) => {}
            Limit::Job(_) => self.cleanup_deadline = Instant::now().checked_add(CLEANUP_MAX),
            Limit::Cleanup => self.is_timed_out = true,
        }
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
            NoEnd::ContainerLost(words) => return self.infra(recorder, words),
            NoEnd::Pipes(error) => {
                return self.infra(recorder, infrastructure("cannot read what the step prints", &error));
            }
            NoEnd::NotStarted(failure) => failure,
        };
        match failure {
            SpawnFailure::NoProgram(program) => {
                let hint = match &self.spec.job.steps[index].shell {
                    Shell::Sh => "a POSIX shell has to be installed where the job runs",
                    Shell::Bash => "install bash where the job runs, or take `shell: sh`",
                    Shell::Custom(_) => "install it where the job runs, or correct the step's `shell`",
                    Shell::Program(_) => "the pipeline's program was taken away while the job ran: run it again",
                };
                self.no_shell(recorder, format!("the shell `{program}` was not found: {hint}"))
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

    /// A shell that is not there. Another worker may have it; where there is no other, or the job brings its own programs, no further try
    /// finds it.
    fn no_shell(&self, recorder: &SharedRecorder, message: String) -> Failure {
        let is_of_machine = matches!(self.spec.job.environment, Environment::Host | Environment::Sandbox { .. });
        match self.infra(recorder, message) {
            Failure::Infra { message } if !is_of_machine || self.depot.reach() == Reach::ThisMachine => {
                Failure::Setup { message }
            }
            failure => failure,
        }
    }

    /// A failure of the step that its script did not tell, told in the step's log and in the report.
    pub(super) fn broken(&mut self, index: usize, recorder: &SharedRecorder, exit: i32, fault: &str) -> Failure {
        let fault = self.secrets.hide(fault.to_owned());
        lock(recorder).note(&fault);
        let message = Some(self.told(format!("step {}: {fault}", index + 1)));
        Failure::Step { step: number(index), exit, message }
    }

    /// Leaves pipes that background processes hold to a thread of their own.
    fn hold(&mut self, index: usize, recorder: &SharedRecorder, held: Held) {
        let text = "processes that this step left behind still hold its output; it is recorded until the job ends";
        lock(recorder).note(text);
        self.note(format!("step {}: {text}", index + 1));
        self.held.push((index, Arc::clone(recorder), held));
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
            done.report.result = StepResult::Failed;
        }
    }

    pub(super) fn log_failure(&mut self, error: &LogError) -> Failure {
        let message = self.secrets.hide(format!("the step's output was not kept whole: {error}"));
        self.note(message.clone());
        Failure::Infra { message }
    }

    /// Ends the logs that background processes could add to.
    pub(super) async fn close_held(&mut self) {
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
}

/// A step that was looked at, and what it means for the job unless its failure is tolerated.
pub(super) struct Done {
    pub(super) report: StepReport,
    pub(super) failure: Option<Failure>,
}

/// Whose limit it is, in milliseconds.
#[derive(Clone, Copy)]
pub(super) enum Limit {
    Step(u64),
    Job(u64),
    /// [`CLEANUP_MAX`].
    Cleanup,
}

pub(super) fn report(name: String, result: StepResult, at: Timestamp) -> StepReport {
    StepReport {
        name,
        exit: None,
        signal: None,
        result,
        started: at,
        finished: at,
        usage: Usage::default(),
        outputs: BTreeMap::new(),
        lines: 0,
    }
}

/// Closes a log; a large one where it may wait for its disk.
pub(super) async fn close(recorder: &SharedRecorder) -> LogEnd {
    if lock(recorder).bytes() < LARGE_LOG_BYTES {
        return lock(recorder).close();
    }
    let recorder = Arc::clone(recorder);
    blocking(move || lock(&recorder).close()).await
}
