//! Jobs of a build, their attempts, tests, artifacts and gates, and why a job waits.

use std::collections::BTreeMap;

use graph::{AttemptReport, BuildId, Digest, Failure, Outcome, SkipReason};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::build::DigestText;
use crate::quarantine::QuarantineNote;
use crate::time::Time;
use crate::words;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It has not begun, or waits for its next try.
    Waiting,
    /// A worker holds an attempt at it, or it waits for the build that it asked for.
    Running,
    /// It has ended.
    Ended,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeWord {
    /// Every step that had to pass has passed.
    Passed,
    /// It did not pass.
    Failed,
    /// It did not run.
    Skipped,
    /// Somebody or something canceled it.
    Canceled,
}

impl From<&Outcome> for OutcomeWord {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Passed { .. } => Self::Passed,
            Outcome::Failed(Failure::Canceled { .. }) => Self::Canceled,
            Outcome::Failed(_) => Self::Failed,
            Outcome::Skipped(_) => Self::Skipped,
        }
    }
}

/// Why a job did not pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cause {
    /// Of a failure: `step`, `timeout`, `infra`, `setup`, `lost`, `canceled`; of a skipped job: `condition`, `need`, `not_wanted`,
    /// `dropped`, `rejected`.
    pub kind: String,
    /// The same for people.
    pub text: String,
    /// The index of the step that failed or ran too long, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u16>,
    /// The exit code of the step that failed, or 128 and the signal's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// The time that it might have taken, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_ms: Option<u64>,
    /// Who canceled or rejected it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The job because of which it was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

impl Cause {
    /// Why a job with this outcome did not pass; `None` if it did.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Passed { .. } => None,
            Outcome::Failed(failure) => Some(Self::of_failure(failure)),
            Outcome::Skipped(reason) => Some(Self::of_skip(reason)),
        }
    }

    fn new(kind: &str, text: String) -> Self {
        Self { kind: kind.to_owned(), text, step: None, exit: None, limit_ms: None, by: None, because: None }
    }

    fn of_failure(failure: &Failure) -> Self {
        let cause = Self::new(failure.kind(), words::failure(failure));
        match failure {
            Failure::Step { step, exit, .. } => Self { step: Some(*step), exit: Some(*exit), ..cause },
            Failure::Timeout { step, limit_ms } => Self { step: *step, limit_ms: Some(*limit_ms), ..cause },
            Failure::Canceled { by } => Self { by: Some(by.clone()), ..cause },
            Failure::Infra { .. } | Failure::Setup { .. } | Failure::Lost => cause,
        }
    }

    fn of_skip(reason: &SkipReason) -> Self {
        let cause = Self::new(reason.kind(), words::skip_reason(reason));
        match reason {
            SkipReason::Need { because } => Self { because: Some(because.to_string()), ..cause },
            SkipReason::Rejected { by } => Self { by: Some(by.clone()), ..cause },
            SkipReason::Condition { .. } | SkipReason::NotWanted { .. } | SkipReason::Dropped => cause,
        }
    }
}

/// The values that a job with this outcome hands on.
#[must_use]
pub fn outputs_of(outcome: &Outcome) -> BTreeMap<String, Value> {
    match outcome {
        Outcome::Passed { outputs } => outputs.clone(),
        Outcome::Failed(_) | Outcome::Skipped(_) => BTreeMap::new(),
    }
}

/// One job of a build's graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// Its build.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// Its full name: its id, or `id/value/…` for a leg of a matrix.
    pub name: String,
    /// Shown to people; empty means the name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// Its place in the pipeline's text.
    pub order: u32,
    /// Where it stands.
    pub state: JobState,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeWord>,
    /// Why it did not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The values that it handed on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, Value>,
    /// The earlier result that it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused: Option<ReusedFrom>,
    /// The jobs that it waits for.
    pub needs: Vec<String>,
    /// The pool whose workers may run it; empty is the default pool.
    pub pool: String,
    /// Whether it waits for a person before it begins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gate: bool,
    /// Whether its gate is open: a person is asked now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asking: bool,
    /// Whether the verdict ignores its failure.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_failure: bool,
    /// How many attempts it had.
    pub attempts: u32,
    /// The number of the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Its operation, if it may be reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DigestText>")]
    pub operation: Option<Digest>,
    /// When the last attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    /// When its next try may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,
    /// The id of the build that it asked for last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub child: Option<BuildId>,
    /// How long it usually runs, in milliseconds: the median of its last ten passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual_ms: Option<u64>,
    /// What its steps are called, in order, as the pipeline says; told of one job. Text from outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
}

/// Where a result came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReusedFrom {
    /// The build that produced it.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// The attempt that produced it.
    pub attempt: u32,
    /// The job under which it ran.
    pub job: String,
}

/// One try at a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// Its build.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// Its number in the build.
    pub attempt: u32,
    /// The job.
    pub job: String,
    /// Which try at the job it is, from 1.
    #[serde(rename = "try")]
    pub try_number: u32,
    /// The id of the worker that held it.
    pub worker: String,
    /// That worker's name, if the server still knows it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub worker_name: String,
    /// When it was leased.
    pub leased: Time,
    /// Set if it is asked for some of the job's tests only. Lists of all jobs without reports tell it only of attempts that run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
    /// Whose end let it begin, if it had waited and that ended its wait. Lists without reports tell it only of attempts that run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_for: Option<WaitedFor>,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<AttemptEnd>,
}

/// The job whose end let an attempt begin that had waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitedFor {
    /// Its build.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// Its name.
    pub job: String,
    /// The concurrency group that it had held; absent if it left room on the attempt's worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

impl From<&graph::WaitedFor> for WaitedFor {
    fn from(told: &graph::WaitedFor) -> Self {
        Self { build: told.build, job: told.job.to_string(), group: told.group.clone() }
    }
}

impl From<&WaitedFor> for graph::WaitedFor {
    fn from(told: &WaitedFor) -> Self {
        Self { build: told.build, job: told.job.as_str().into(), group: told.group.clone() }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptEnd {
    /// How.
    pub outcome: OutcomeWord,
    /// Why it did not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// When the worker took it up.
    pub started: Time,
    /// When it had ended.
    pub finished: Time,
    /// How many tests its report holds.
    pub tests: u64,
    /// How many of these did not pass and were not skipped.
    pub tests_failed: u64,
    /// The worker's report. Lists of attempts leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}

/// What a worker says of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// The steps that were looked at, in order.
    pub steps: Vec<Step>,
    /// The values that it handed on.
    pub outputs: BTreeMap<String, Value>,
    /// What all its processes used.
    pub usage: Usage,
    /// Markdown that the steps wrote. Text from outside.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// Remarks for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What it read and wrote of keyed directories, in the order of the job's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<CacheReport>,
    /// What took time beside the steps, in order; nothing of what took less than 10 ms, caches aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<Phase>,
    /// What its images were, by reference: `NAME@sha256:…` as its registry knows it, else the engine's own `sha256:…`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// Set if it was asked for some of the job's tests only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
}

/// How much of a job's tests an attempt was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Partial {
    /// How many tests it was asked for.
    pub asked: u64,
    /// How many the job had reported before.
    pub of: u64,
}

impl From<graph::Partial> for Partial {
    fn from(partial: graph::Partial) -> Self {
        Self { asked: partial.asked, of: partial.of }
    }
}

impl From<Partial> for graph::Partial {
    fn from(partial: Partial) -> Self {
        Self { asked: partial.asked, of: partial.of }
    }
}

/// A stretch of an attempt's time before its first step or after its last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Phase {
    /// `workspace`, `image`, `artifacts_taken`, `cache_looked_up`, `cache_restored`, `container`, `artifacts_kept`, `reports` or
    /// `cache_saved`; others may come.
    pub what: String,
    /// The key of the cache; empty for the others.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// When it began.
    pub started: Time,
    /// When it had ended.
    pub finished: Time,
}

impl From<&graph::Phase> for Phase {
    fn from(phase: &graph::Phase) -> Self {
        Self {
            what: phase.what.clone(),
            name: phase.name.clone(),
            started: phase.started.into(),
            finished: phase.finished.into(),
        }
    }
}

/// What an attempt did with one of its job's keyed directories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheReport {
    /// The key that was asked for, and under which it was saved.
    pub key: String,
    /// What was found.
    pub found: CacheFound,
    /// The key of what was restored; empty if nothing was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub found_key: String,
    /// What the blobs of that hold.
    pub found_bytes: u64,
    /// What became of the saving.
    pub saved: CacheSaved,
    /// What the blobs of the saved one hold.
    pub saved_bytes: u64,
    /// What of these had not been kept before.
    pub put_bytes: u64,
}

/// What was found of a keyed directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CacheFound {
    /// The entry of the key.
    Key,
    /// An entry that begins with one of the prefixes.
    Prefix,
    /// Nothing.
    Nothing,
    /// Nothing that could be restored; a note says why.
    Refused,
}

/// What became of a keyed directory that was to be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CacheSaved {
    /// It was not to be: the key had its entry, or the job did not pass.
    Not,
    /// It was written.
    Written,
    /// Somebody else had written one of that key meanwhile, which stays.
    Kept,
    /// It could not be; a note says why.
    Refused,
}

impl From<&graph::CacheReport> for CacheReport {
    fn from(report: &graph::CacheReport) -> Self {
        Self {
            key: report.key.clone(),
            found: match report.found {
                graph::CacheFound::Key => CacheFound::Key,
                graph::CacheFound::Prefix => CacheFound::Prefix,
                graph::CacheFound::Nothing => CacheFound::Nothing,
                graph::CacheFound::Refused => CacheFound::Refused,
            },
            found_key: report.found_key.clone(),
            found_bytes: report.found_bytes,
            saved: match report.saved {
                graph::CacheSaved::Not => CacheSaved::Not,
                graph::CacheSaved::Written => CacheSaved::Written,
                graph::CacheSaved::Kept => CacheSaved::Kept,
                graph::CacheSaved::Refused => CacheSaved::Refused,
            },
            saved_bytes: report.saved_bytes,
            put_bytes: report.put_bytes,
        }
    }
}

impl From<&AttemptReport> for Report {
    fn from(report: &AttemptReport) -> Self {
        Self {
            steps: report.steps.iter().map(Step::from).collect(),
            outputs: outputs_of(&report.outcome),
            usage: report.usage.into(),
            summary: report.summary.clone(),
            notes: report.notes.clone(),
            caches: report.caches.iter().map(CacheReport::from).collect(),
            phases: report.phases.iter().map(Phase::from).collect(),
            partial: report.partial.map(Into::into),
            images: report.images.clone(),
        }
    }
}

/// How a step went, before `allow_failure` is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepResult {
    /// It ended with zero.
    Passed,
    /// It did not.
    Failed,
    /// It did not run.
    Skipped,
    /// It was canceled.
    Canceled,
}

impl From<graph::StepResult> for StepResult {
    fn from(result: graph::StepResult) -> Self {
        match result {
            graph::StepResult::Passed => Self::Passed,
            graph::StepResult::Failed => Self::Failed,
            graph::StepResult::Skipped => Self::Skipped,
            graph::StepResult::Canceled => Self::Canceled,
        }
    }
}

impl From<StepResult> for graph::StepResult {
    fn from(result: StepResult) -> Self {
        match result {
            StepResult::Passed => Self::Passed,
            StepResult::Failed => Self::Failed,
            StepResult::Skipped => Self::Skipped,
            StepResult::Canceled => Self::Canceled,
        }
    }
}

/// How one step went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// How.
    pub result: StepResult,
    /// Exit code, or 128 and the signal's number; absent if it did not run or was not given the time to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// When it began.
    pub started: Time,
    /// When it had ended.
    pub finished: Time,
    /// What its processes used.
    pub usage: Usage,
    /// The values that it handed on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// Lines it printed, both streams together.
    pub lines: u64,
}

impl From<&graph::StepReport> for Step {
    fn from(step: &graph::StepReport) -> Self {
        Self {
            name: step.name.clone(),
            result: step.result.into(),
            exit: step.exit,
            signal: step.signal,
            started: step.started.into(),
            finished: step.finished.into(),
            usage: step.usage.into(),
            outputs: step.outputs.clone(),
            lines: step.lines,
        }
    }
}

/// What processes used, as the kernel counted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// The largest resident set of any of them.
    pub peak_memory_bytes: u64,
    /// Time on a CPU in user mode, in microseconds.
    pub cpu_user_us: u64,
    /// Time on a CPU in the kernel, in microseconds.
    pub cpu_system_us: u64,
}

impl From<graph::Usage> for Usage {
    fn from(usage: graph::Usage) -> Self {
        Self {
            peak_memory_bytes: usage.peak_memory_bytes,
            cpu_user_us: usage.cpu_user_us,
            cpu_system_us: usage.cpu_system_us,
        }
    }
}

/// One test of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Test {
    /// The attempt that reported it.
    pub attempt: u32,
    /// The attempt's job.
    pub job: String,
    /// The suite or class that it belongs to.
    pub suite: String,
    /// Its name within the suite.
    pub name: String,
    /// How it ended.
    pub outcome: TestOutcome,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The failure's message and details.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What it printed, if the report holds it; cut at a bound.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// What is said of it if it is in quarantine now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<QuarantineNote>,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TestOutcome {
    /// It passed.
    Passed,
    /// An assertion failed.
    Failed,
    /// It broke otherwise.
    Errored,
    /// It did not run.
    Skipped,
}

impl From<graph::TestOutcome> for TestOutcome {
    fn from(outcome: graph::TestOutcome) -> Self {
        match outcome {
            graph::TestOutcome::Passed => Self::Passed,
            graph::TestOutcome::Failed => Self::Failed,
            graph::TestOutcome::Errored => Self::Errored,
            graph::TestOutcome::Skipped => Self::Skipped,
        }
    }
}

/// Files that a job handed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    /// The job that hands them on.
    pub job: String,
    /// The attempt that made them; of another build if the job took an earlier result.
    pub attempt: u32,
    /// Their name.
    pub name: String,
    /// The digest of the archive (tar) that holds the files.
    #[schemars(with = "DigestText")]
    pub digest: Digest,
    /// How many files.
    pub files: u64,
    /// Their bytes, before compression.
    pub bytes: u64,
}

/// The files of an artifact, and where a browser may look at them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArtifactFiles {
    /// The job that hands them on.
    pub job: String,
    /// The artifact's name.
    pub name: String,
    /// The files, in the order of the archive; the first [`ARTIFACT_FILES_MAX`].
    pub files: Vec<ArtifactFile>,
    /// Whether there are more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_more: bool,
    /// A path of this server: followed by `/` and the path of a file, it gives that file to whoever asks, for
    /// [`ARTIFACT_VIEW_SECONDS`] and this artifact alone. What it gives runs in no origin.
    pub view: String,
}

/// The most files of an artifact that are listed.
pub const ARTIFACT_FILES_MAX: usize = 10_000;
/// How long files of an artifact may be looked at without a token, in seconds.
pub const ARTIFACT_VIEW_SECONDS: u64 = 3600;

/// A file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArtifactFile {
    /// Its path in the archive.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// The media type under which it is given, by its name.
    pub media: String,
}

/// A gate that opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gate {
    /// Its build.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// Its job.
    pub job: String,
    /// The question.
    pub prompt: String,
    /// What is to be filled in, by name.
    pub fields: BTreeMap<String, Field>,
    /// When it opened.
    pub opened: Time,
    /// The answer, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<GateAnswered>,
}

/// One field of a form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Field {
    /// What may be filled in.
    #[serde(rename = "type")]
    pub kind: FieldKind,
    /// What may be chosen, in the order shown; of a `choice` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Taken when nothing is filled in; without it the field must be filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Shown beside the field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
}

/// The type of a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FieldKind {
    /// Any text.
    String,
    /// A JSON number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// One of the options.
    Choice,
}

impl From<&graph::Field> for Field {
    fn from(field: &graph::Field) -> Self {
        let (kind, options) = match &field.kind {
            graph::FieldKind::String => (FieldKind::String, Vec::new()),
            graph::FieldKind::Number => (FieldKind::Number, Vec::new()),
            graph::FieldKind::Boolean => (FieldKind::Boolean, Vec::new()),
            graph::FieldKind::Choice { options } => (FieldKind::Choice, options.clone()),
        };
        Self { kind, options, default: field.default.clone(), help: field.help.clone() }
    }
}

impl From<&Field> for graph::Field {
    fn from(field: &Field) -> Self {
        let kind = match field.kind {
            FieldKind::String => graph::FieldKind::String,
            FieldKind::Number => graph::FieldKind::Number,
            FieldKind::Boolean => graph::FieldKind::Boolean,
            FieldKind::Choice => graph::FieldKind::Choice { options: field.options.clone() },
        };
        Self { kind, default: field.default.clone(), help: field.help.clone() }
    }
}

/// What a person said at a gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateAnswered {
    /// Whether it was a yes.
    pub approved: bool,
    /// What was filled in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Value>,
    /// Who.
    pub by: String,
    /// Why, as they said it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When.
    pub at: Time,
}

/// Answers a gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "answer", rename_all = "snake_case", deny_unknown_fields)]
pub enum GateAnswer {
    /// Yes.
    Approve {
        /// What is filled in; a field with a default may be left out.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        fields: BTreeMap<String, Value>,
        /// Why; told with the answer, and kept in the audit.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        #[schemars(length(max = 1000))]
        reason: String,
    },
    /// No: the job is skipped.
    Reject {
        /// Why; told with the answer, and kept in the audit.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        #[schemars(length(max = 1000))]
        reason: String,
    },
}

/// Why a job has not begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// Its build.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// The job.
    pub job: String,
    /// What it waits for.
    pub reason: WaitReason,
    /// The same for people, as a sentence.
    pub text: String,
    /// How long it will wait for a worker, if that can be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
}

/// How long something may take, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Estimate {
    /// Hardly less.
    pub low_ms: u64,
    /// Hardly more.
    pub high_ms: u64,
}

/// What a job waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WaitReason {
    /// Nothing: it runs or has ended.
    Nothing,
    /// Jobs that it needs have not ended.
    Needs {
        /// Their names, the first 20.
        jobs: Vec<String>,
        /// How many there are.
        count: u64,
    },
    /// A person has to answer its gate.
    Gate {
        /// The question.
        prompt: String,
    },
    /// It is worked out whether an earlier result may be taken, or the next decision is due.
    Resolving,
    /// An equal operation is under way, whose result it will take.
    Same {
        /// Who runs it, or is to.
        #[serde(flatten)]
        job: JobKey,
        /// The attempt, if it runs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt: Option<u32>,
    },
    /// The next try has its time.
    Retry {
        /// When.
        at: Time,
    },
    /// Another job of its concurrency group runs or goes before it.
    Concurrency {
        /// The group.
        group: String,
        /// Who holds it, or goes first, at most 20.
        holders: Vec<JobKey>,
        /// Its place among those that wait, from 1.
        position: u64,
    },
    /// A build that it asked for has not ended.
    Build {
        /// The id of that build.
        #[schemars(with = "u64")]
        build: BuildId,
        /// A job of it, or of a build that it waits for in turn, that waits for a person, or for a worker that is not there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stuck: Option<JobKey>,
    },
    /// Its pool is held.
    Held {
        /// The pool.
        pool: String,
        /// Who holds it, and why.
        reason: String,
    },
    /// No worker that is there and open can run it.
    NoWorker {
        /// The pool.
        pool: String,
        /// What is missing, for people.
        missing: String,
        /// The workers that could run it and take nothing new, at most 20, with their reasons.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        closed: BTreeMap<String, String>,
    },
    /// It waits for a worker of its pool to have room.
    Queue {
        /// The pool.
        pool: String,
        /// Its place, from 1, if nothing else came and all took as long as is usual.
        position: u64,
        /// How many are before it.
        ahead: u64,
        /// Who runs in the pool and so has its slots, at most 20, those that began first before others.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        holders: Vec<JobKey>,
    },
    /// It waits for a busy worker on which it has run before, because it is expected to be done sooner so.
    Affinity {
        /// The worker.
        worker: String,
        /// When it takes any worker instead.
        until: Time,
    },
}

/// Names a job over all builds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct JobKey {
    /// Its build.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// Its name.
    pub job: String,
}
