//! What people look at: one row per build, job, attempt, gate and artifact, projected from the facts.
//!
//! Rows hold nothing that the facts do not hold; [`rows_of`] makes them again from nothing. [`projection`] is the
//! only place that says which fact changes which row. Operations stand here too: they outlive builds and are
//! recorded apart.

pub(crate) mod projection;

use std::collections::BTreeMap;

use engine::{Ended, Reused};
use graph::asked::Extent;
use graph::{
    Artifact, AttemptNumber, AttemptReport, BuildId, Digest, Event, JobName, LeaseId, Origin, Outcome, TestCase,
    Timestamp, Trust, Verdict, WorkerId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use projection::{BuildRows, rows_of};

/// One build, as lists show it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BuildRow {
    /// Its number.
    pub build: BuildId,
    /// The pipeline, as the request named it.
    pub pipeline: String,
    /// The pipeline's own name; empty until it is evaluated, or if it has none.
    pub name: String,
    /// What happened.
    pub event: Event,
    /// Whom the queue charges.
    pub client: String,
    /// The build that it tries again.
    pub retry_of: Option<BuildId>,
    /// Where it belongs, on a server.
    #[serde(skip_serializing_if = "Origin::is_empty")]
    pub origin: Origin,
    /// When it was created.
    pub created: Timestamp,
    /// When its first attempt was leased.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// How it ended, or that it has not.
    pub verdict: Verdict,
    /// Who asked first that it be canceled.
    pub canceled_by: Option<String>,
    /// The graph, as it was last evaluated, by the digest under which the store keeps it.
    pub graph: Option<Digest>,
    /// The jobs of that graph, mere barriers aside; builds of before 2026-11-24 count those, too.
    pub jobs: u64,
    /// How many errors the last evaluation reported.
    pub errors: u64,
    /// How many warnings the last evaluation reported.
    pub warnings: u64,
    /// How these jobs ended so far.
    pub counts: Counts,
    /// The gates that wait for an answer.
    pub open_gates: u64,
}

/// How many jobs of a build ended how. A job counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Passed, those with an earlier result among them.
    pub passed: u64,
    /// Failed, other than by being canceled.
    pub failed: u64,
    /// Canceled.
    pub canceled: u64,
    /// Skipped.
    pub skipped: u64,
    /// Of all these, those that took an earlier result.
    pub reused: u64,
}

impl Counts {
    /// The jobs that have ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.passed + self.failed + self.canceled + self.skipped
    }
}

/// One job that a fact was about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobRow {
    /// Its build.
    pub build: BuildId,
    /// Its full name.
    pub name: JobName,
    /// Where it stands.
    pub state: JobState,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The earlier result that it took.
    pub reused: Option<ReusedFrom>,
    /// How many attempts it had.
    pub attempts: u32,
    /// The last of them.
    pub attempt: Option<AttemptNumber>,
    /// Its operation, if it may be reused.
    pub operation: Option<Digest>,
    /// When the last attempt began; the time of its lease until the worker has said.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// When its next try may begin.
    pub retry_at: Option<Timestamp>,
    /// The build that it asked for last.
    pub child: Option<BuildId>,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It has not begun, or waits for its next try.
    Waiting,
    /// A worker holds an attempt at it, or it waits for the build that it asked for.
    Running,
    /// It has ended.
    Ended,
}

impl JobState {
    pub(crate) const ALL: [Self; 3] = [Self::Waiting, Self::Running, Self::Ended];

    /// The word in rows and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Ended => "ended",
        }
    }
}

/// Where a result came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReusedFrom {
    /// The build that produced it.
    pub build: BuildId,
    /// The attempt that produced it.
    pub attempt: AttemptNumber,
    /// The job under which it ran.
    pub job: JobName,
}

impl From<&Reused> for ReusedFrom {
    fn from(reused: &Reused) -> Self {
        Self { build: reused.build, attempt: reused.attempt, job: reused.job.clone() }
    }
}

/// One attempt. Its steps, tests and usage are in its report ([`crate::Store::reports`]).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptRow {
    /// Its build.
    pub build: BuildId,
    /// Its number in the build.
    pub attempt: AttemptNumber,
    /// The job.
    pub job: JobName,
    /// Which try at the job it is, from 1.
    pub try_number: u32,
    /// The lease.
    pub lease: LeaseId,
    /// Who held it.
    pub worker: WorkerId,
    /// When it was leased.
    pub leased: Timestamp,
    /// How it ended, once it has.
    pub ended: Option<AttemptEnd>,
}

/// How an attempt ended, in short.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptEnd {
    /// The outcome, without the values handed on.
    pub outcome: Outcome,
    /// When the worker took it up.
    pub started: Timestamp,
    /// When it had ended.
    pub finished: Timestamp,
    /// How many tests its report holds.
    pub tests: u64,
    /// How many of these did not pass and were not skipped.
    pub tests_failed: u64,
    /// The place of the fact with the report among the build's facts, from 0.
    pub fact: u64,
}

/// One test of a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TestRow {
    /// The attempt that reported it.
    pub attempt: AttemptNumber,
    /// The attempt's job.
    pub job: JobName,
    /// Whether the attempt was to run all of the job's tests.
    #[serde(skip)]
    pub extent: Extent,
    /// The test.
    #[serde(flatten)]
    pub case: TestCase,
}

/// Files that a job handed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ArtifactRow {
    /// Its build.
    pub build: BuildId,
    /// The job that hands it on.
    pub job: JobName,
    /// The attempt that made it; of another build if the job took an earlier result.
    pub attempt: AttemptNumber,
    /// Its name.
    pub name: String,
    /// The files.
    #[serde(flatten)]
    pub artifact: Artifact,
}

/// One gate that opened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GateRow {
    /// Its build.
    pub build: BuildId,
    /// Its job.
    pub job: JobName,
    /// The question.
    pub prompt: String,
    /// When it opened.
    pub opened: Timestamp,
    /// The answer, once there is one.
    pub answered: Option<GateAnswer>,
}

/// What a person said at a gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateAnswer {
    /// What was filled in; `None` is a no.
    pub answer: Option<BTreeMap<String, Value>>,
    /// Who.
    pub by: String,
    /// Why, as they said it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// How a build stands, without the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictWord {
    /// It has not ended.
    Running,
    /// As [`Verdict::Passed`].
    Passed,
    /// As [`Verdict::Failed`].
    Failed,
    /// As [`Verdict::Canceled`].
    Canceled,
    /// As [`Verdict::Diverged`].
    Diverged,
}

impl VerdictWord {
    /// All of them, in the order they are listed to users.
    pub const ALL: [Self; 5] = [Self::Running, Self::Passed, Self::Failed, Self::Canceled, Self::Diverged];

    /// The word on the command line and in rows; the same as [`Verdict::word`].
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Diverged => "diverged",
        }
    }

    /// The verdict of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.word() == word)
    }
}

/// A result recorded under its operation. What the operation is made of is kept beside it
/// ([`crate::Store::manifest`]).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperationRow {
    /// The operation.
    pub digest: Digest,
    /// How far the build that recorded it was trusted.
    pub trust: Trust,
    /// That build.
    pub build: BuildId,
    /// The attempt that produced the result.
    pub attempt: AttemptNumber,
    /// The job under which it ran.
    pub job: JobName,
    /// The outcome, with output values.
    pub outcome: Outcome,
    /// The files handed on.
    pub artifacts: BTreeMap<String, Artifact>,
    /// When it was recorded.
    pub at: Timestamp,
    /// When it was last reused; `at` before that.
    pub used_at: Timestamp,
    /// Set once it was evicted.
    pub evicted: Option<Eviction>,
    /// The result of the same operation that was evicted before this one was recorded. Kept by the store; what a caller
    /// says here is not heeded.
    pub replaced: Option<Replaced>,
}

/// An evicted result that a later one took the place of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replaced {
    /// The build that had recorded it.
    pub build: BuildId,
    /// What became of it.
    pub eviction: Eviction,
}

impl OperationRow {
    /// What another job takes over from it.
    #[must_use]
    pub fn reused(&self) -> Reused {
        Reused { build: self.build, attempt: self.attempt, job: self.job.clone(), artifacts: self.artifacts.clone() }
    }
}

/// The tombstone of something evicted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Eviction {
    /// When.
    pub at: Timestamp,
    /// Why, for people.
    pub reason: String,
}

/// Why a result is evicted whose artifacts are not there, and a cache that cannot be restored.
pub const FILES_GONE: &str = "its files were damaged, or deleted";

/// How many operations there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OperationTotals {
    /// Those that may be reused.
    pub live: u64,
    /// Tombstones.
    pub evicted: u64,
    /// The bytes of the artifacts of the live ones, before compression; shared ones are counted each time.
    pub artifact_bytes: u64,
}

/// How a job's end reads in the counts.
pub(crate) fn count_of<'a>(counts: &'a mut Counts, outcome: &Outcome) -> &'a mut u64 {
    match outcome {
        Outcome::Passed { .. } => &mut counts.passed,
        Outcome::Failed(graph::Failure::Canceled { .. }) => &mut counts.canceled,
        Outcome::Failed(_) => &mut counts.failed,
        Outcome::Skipped(_) => &mut counts.skipped,
    }
}

/// The earlier result behind a job that ended without an attempt.
pub(crate) fn reused_of(how: &Ended) -> Option<&Reused> {
    match how {
        Ended::Decided | Ended::Child { .. } => None,
        Ended::Reused(reused) => Some(reused),
    }
}

/// The tests of one attempt's report as rows.
pub(crate) fn tests_of(attempt: &AttemptRow, report: &AttemptReport) -> impl Iterator<Item = TestRow> {
    let extent = if report.partial.is_some() { Extent::Part } else { Extent::Whole };
    let row = move |case: &TestCase| TestRow {
        attempt: attempt.attempt,
        job: attempt.job.clone(),
        extent,
        case: case.clone(),
    };
    report.tests.iter().map(row)
}
