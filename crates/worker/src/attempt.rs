//! One attempt at a job, from its workspace to its report.
//!
//! The order is fixed: workspace, artifacts of needs, caches, steps, processes left behind, outputs, artifacts, reports,
//! caches. The first thing that goes wrong decides the outcome; what comes after it only adds to the report. Nothing
//! here reads or writes files on the thread of all attempts but the few that steps leave for us.
//!
//! Reading order: here the walk; [`steps`] each step; [`command`] what a step becomes; [`environment`] its variables;
//! [`values`] what steps hand on by files; [`nix`] development shells and builds by Nix; [`container`] what is different in a container;
//! [`left`] what is kept of each step for a person; [`goods`] artifacts, caches and reports.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use graph::{
    Artifact, AttemptReport, AttemptSpec, CacheReport, FAILURE_BYTES_MAX, Failure, Outcome, Phase, Reuse, StepReport,
    TestCase, Text, Timestamp, Usage, WorkspaceKind, quarantine, with_causes,
};
use serde_json::Value;
use tokio::time::Instant;

use self::container::{Contained, Section};
use crate::cache::{Cache, Restored};
use crate::cancel::{Asked, Cancel};
use crate::contexts::{Contexts, Status};
use crate::depot::{AttemptLog, Depot, Secrets};
use crate::file_commands::CommandFiles;
use crate::git::GitError;
use crate::inputs::{self, Looked};
use crate::output::{Held, SharedRecorder, now_us};
use crate::place::{Place, PlaceFault};
use crate::variables::Variables;
use crate::worker::{Asking, Worker};
use crate::workspace::WorkspaceError;

use self::left::Left;

mod steps;

mod command;
mod environment;
mod left;
mod nix;
mod values;

mod goods;

mod container;

pub use command::{CONTEXT_VARIABLE, STEP_VARIABLE};
pub use goods::REPORTS_MAX;
pub use left::{Arrived, LeftBehind, LeftStep};
pub use steps::{CLEANUP_MAX, EXIT_CANNOT_START};
pub use values::SUMMARY_BYTES_MAX;

/// The note that says so begins with this: the result of the job must not be reused.
pub const INPUT_CHANGED: &str = "an input changed while the job ran";

/// The most notes of one attempt.
pub const NOTES_MAX: usize = 100;

/// The most bytes of one note.
pub const NOTE_BYTES_MAX: usize = 4 << 10;

/// The most stretches of time beside the steps that are told.
pub const PHASES_MAX: usize = 100;

/// The most files that a note names of those that changed while a job ran.
const EDITS_TOLD_MAX: usize = 5;

/// What takes less is not told, caches aside.
const PHASE_MS_MIN: u64 = 10;

/// The exit code that stands for a step which broke its word although its script passed: a file of values that cannot be
/// read, a missing output or artifact.
pub const EXIT_BROKEN: i32 = 1;
/// The exit code of a step that asked for a build which was canceled; commands.md has the codes.
const EXIT_CANCELED: i32 = 130;

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
    if let Err(BrokenOff(words)) = or_broken_off(attempt.run()).await {
        // Whatever it was, its processes end with it.
        let _ = worker.processes.end_job(&attempt.marker).await;
        let message =
            format!("ropewalk itself broke off ({words}): please report it with what `ropewalk show` says of this job");
        return AttemptReport::of(Outcome::Failed(Failure::Infra { message }), started);
    }
    attempt.report()
}

/// Work that panicked, with what it said.
#[derive(Debug, PartialEq, Eq)]
struct BrokenOff(String);

/// Does the work. A panic ends it alone: nobody would ever hear of an attempt that is lost with its task.
async fn or_broken_off<T>(work: impl Future<Output = T>) -> Result<T, BrokenOff> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(BrokenOff(words_of_panic(&*panic)))),
        }
    })
    .await
}

fn words_of_panic(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a word").to_owned()
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

/// Says which files of the user's tree changed where a job saw them; `None` if none did.
fn words_of_edits(edited: &[PathBuf]) -> Option<String> {
    let (first, rest) = edited.split_first()?;
    let quoted = |path: &PathBuf| format!("`{}`", path.display());
    if rest.is_empty() {
        let path = quoted(first);
        return Some(format!("{path} was changed in your tree while this job ran; it may have seen either state"));
    }
    let told: Vec<String> = edited.iter().take(EDITS_TOLD_MAX).map(quoted).collect();
    let more = match edited.len() - told.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let told = told.join(", ");
    Some(format!("{told}{more} were changed in your tree while this job ran; it may have seen either state of each"))
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
    /// The environment and directory of the last step that was to start.
    found: Option<Arc<(Variables, PathBuf)>>,
    /// What a person finds who opens the workspace.
    left: Left,
    contexts: Option<Contexts>,
    /// What was restored; the reports of the same caches, in the same order, are in `cache_reports`.
    caches: Vec<(Cache, Restored)>,
    nix: nix::OfNix,
    cache_reports: Vec<CacheReport>,
    phases: Vec<Phase>,
    steps: Vec<StepReport>,
    /// Logs that background processes may still add to, by step.
    held: Vec<(usize, SharedRecorder, Held)>,
    /// The variables that `${{ env }}` shows.
    visible: BTreeSet<OsString>,
    outputs: BTreeMap<String, Value>,
    artifacts: BTreeMap<String, Artifact>,
    tests: Vec<TestCase>,
    /// Whether there may be more tests than these.
    tests_cut: bool,
    summary: String,
    notes: Vec<String>,
    failure: Option<Failure>,
    status: Status,
    is_timed_out: bool,
    /// What a container job has of its engine.
    contained: Option<Contained>,
    /// Logs beside those of the steps.
    sections: Vec<Section>,
    /// What images were found to be.
    images: BTreeMap<String, String>,
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
            found: None,
            left: Left::default(),
            contexts: None,
            caches: Vec::new(),
            nix: nix::OfNix::default(),
            cache_reports: Vec::new(),
            phases: Vec::new(),
            steps: Vec::with_capacity(spec.job.steps.len()),
            held: Vec::new(),
            visible: BTreeSet::new(),
            outputs: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            tests: Vec::new(),
            tests_cut: false,
            summary: String::new(),
            notes: Vec::new(),
            failure: None,
            status: Status::default(),
            is_timed_out: false,
            contained: None,
            sections: Vec::new(),
            images: BTreeMap::new(),
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
        let asking = self.worker.begin_asking();
        let opened = Place::open(self.worker, &self.spec, &slot).await;
        let mut place = match opened {
            Ok(place) => place,
            Err(fault) => return self.refuse(&fault),
        };
        for note in place.notes() {
            self.note(note.clone());
        }
        self.note_phase("workspace", String::new(), self.started);
        if self.note_secrets().await.is_ok() {
            self.run_in(&mut place, asking).await;
        }
        if let Err(error) = place.close(self.worker).await {
            self.note(format!("the workspace was not let go of: {error}"));
        }
    }

    fn refuse(&mut self, fault: &PlaceFault) {
        let message = with_causes(fault);
        self.fail(match fault {
            // Another try would find none either.
            PlaceFault::Engine(_)
            | PlaceFault::Workspace(
                WorkspaceError::Moved(_)
                | WorkspaceError::Unreadable { .. }
                | WorkspaceError::Inside { .. }
                | WorkspaceError::Git(GitError::NoFolder(_)),
            ) => Failure::Setup { message },
            _ => Failure::Infra { message },
        });
    }

    async fn run_in(&mut self, place: &mut Place, asking: Asking<'_>) {
        self.begin_to_keep(place);
        if self.needs_contexts() {
            let mut contexts = Contexts::new(&self.spec, place.runner(), place.files().to_owned());
            contexts.set_env(&BTreeMap::new());
            self.contexts = Some(contexts);
        }
        let before = self.look_at_inputs().await;
        let began = now();
        if self.evaluate_variables().await.is_ok() && self.find_image(place).await.is_ok() {
            self.note_phase("image", String::new(), began);
            self.environment = self.base_environment(place);
            self.note_quarantine();
            if self.prepare(place).await.is_ok() && self.enter(place).await.is_ok() {
                self.run_steps(place).await;
            }
        }
        self.end_processes().await;
        self.leave_container(place).await;
        self.close_held().await;
        self.compare_inputs(place, before).await;
        drop(asking);
        self.collect(place).await;
        self.find_withheld().await;
        self.keep_left(place);
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
            || container::texts(job).any(is_template)
    }

    /// Environment, artifacts and caches before the first step.
    async fn prepare(&mut self, place: &mut Place) -> Result<(), ()> {
        self.add_secrets();
        let began = now();
        self.restore_artifacts(place).await?;
        self.note_phase("artifacts_taken", String::new(), began);
        self.restore_caches(place).await
    }

    async fn enter(&mut self, place: &mut Place) -> Result<(), ()> {
        let began = now();
        self.enter_container(place).await?;
        self.note_phase("container", String::new(), began);
        Ok(())
    }

    /// Remembers a cancel that came between steps.
    fn heed_cancel(&mut self) {
        if let Asked::Gently { by } | Asked::AtOnce { by } = self.cancel.asked() {
            self.fail(Failure::Canceled { by: by.to_string() });
        }
    }

    /// Ends what steps left running, and names it.
    async fn end_processes(&mut self) {
        match self.worker.processes.end_job(&self.marker).await {
            Ok(left) if left.is_empty() => {}
            Ok(left) => {
                // The keeper of a `ropewalk` that was a step ends by itself, right behind it.
                let told: Vec<_> = left.iter().filter(|process| !process.is_keeper()).collect();
                let names: Vec<String> =
                    told.iter().take(10).map(|process| format!("{} ({})", process.name, process.pid)).collect();
                let more = if told.len() > names.len() { ", …" } else { "" };
                let plural = if told.len() == 1 { "process" } else { "processes" };
                if !told.is_empty() {
                    let names = names.join(", ");
                    self.note(format!("ended {} {plural} that steps left running: {names}{more}", told.len()));
                }
                if let Some(slot) = &self.slot {
                    slot.clear();
                }
            }
            Err(error) => self.note(format!("processes that steps left were not looked for: {error}")),
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
        let (changed, when) = match before {
            Some(before) => (self.look_at_inputs().await.and_then(|after| before.difference(&after)), ""),
            None if self.spec.operation.is_some() => {
                (place.changed(&self.spec.job.reuse).await, " or before it, since the build began")
            }
            None => (None, ""),
        };
        if let Some(path) = changed {
            self.note(format!("{INPUT_CHANGED}{when}: {}; its result is not kept for reuse", path.display()));
        } else if let Some(note) = words_of_edits(&place.edited().await) {
            self.note(note);
        }
    }

    /// Gathers what the job hands on.
    async fn collect(&mut self, place: &Place) {
        self.heed_cancel();
        if self.failure.is_none() {
            self.check_outputs();
        }
        if self.status != Status::Canceled {
            let began = now();
            self.collect_artifacts(place).await;
            self.note_phase("artifacts_kept", String::new(), began);
            let began = now();
            self.read_reports(place).await;
            self.note_phase("reports", String::new(), began);
        }
        // What some tests leave is not what the job leaves.
        if self.failure.is_none() && self.spec.asked.is_none() {
            self.save_caches(place).await;
        }
    }

    /// Fails the job for something that no script told.
    fn break_word(&mut self, fault: String) {
        let message = Some(self.told(fault));
        let step = number(self.steps.len().saturating_sub(1));
        self.fail(Failure::Step { step, exit: EXIT_BROKEN, message });
    }

    /// The words for what is wrong, noted too: a failure that is tolerated, or comes second, is told by nothing else.
    fn told(&mut self, fault: String) -> String {
        let mut fault = self.secrets.hide(fault);
        fault.truncate(fault.floor_char_boundary(FAILURE_BYTES_MAX));
        self.note(fault.clone());
        fault
    }

    async fn evaluate(&self, text: &Text) -> Result<String, String> {
        match (text, &self.contexts) {
            (Text::Plain(text), _) => Ok(text.to_string()),
            (text, Some(contexts)) => contexts.text(text).await,
            (text, None) => Ok(text.as_written().to_owned()),
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

    /// Says how many tests the steps may leave out, so that whoever sees a job pass knows.
    fn note_quarantine(&mut self) {
        match self.spec.quarantine.len() {
            0 => {}
            n => {
                let (s, are) = if n == 1 { ("", "is") } else { ("s", "are") };
                self.note(format!(
                    "{n} test{s} {are} in quarantine; the steps find them in `{}`",
                    quarantine::VARIABLE
                ));
            }
        }
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < NOTES_MAX {
            let mut note = self.secrets.hide(note);
            note.truncate(note.floor_char_boundary(NOTE_BYTES_MAX.min(note.len())));
            self.notes.push(note);
        }
    }

    /// Tells how long something beside the steps took that ends now.
    fn note_phase(&mut self, what: &str, name: String, started: Timestamp) {
        self.note_span(what, name, started, now());
    }

    /// As [`Attempt::note_phase`], of what has ended before.
    fn note_span(&mut self, what: &str, name: String, started: Timestamp, finished: Timestamp) {
        let is_worth_it = !name.is_empty() || finished.ms_since(started) >= PHASE_MS_MIN;
        if is_worth_it && self.phases.len() < PHASES_MAX {
            let name = self.secrets.hide(name);
            self.phases.push(Phase { what: what.to_owned(), name, started, finished });
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
            tests_cut: self.tests_cut,
            summary: self.summary,
            images: self.images,
            notes: self.notes,
            caches: self.cache_reports,
            phases: self.phases,
            partial: None,
            waited_for: None,
        }
    }
}

fn number(index: usize) -> u16 {
    // A job has at most `Job::STEPS_MAX` steps, and `Job::SECTIONS_MAX` logs beside theirs.
    u16::try_from(index).unwrap_or(u16::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_breaks_off_and_its_task_goes_on() {
        let panics = async {
            tokio::task::yield_now().await;
            assert_eq!(1, 2, "one is not two");
        };
        let BrokenOff(words) = or_broken_off(panics).await.expect_err("it panicked");
        assert!(words.contains("one is not two"), "{words}");
        assert_eq!(or_broken_off(async { 1 }).await, Ok(1));
    }
}
