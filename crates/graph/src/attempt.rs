//! One try at a job: what a worker is handed, and what it says when the try has ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::asked::{AskedTests, Partial, TestName};
use crate::digest::Digest;
use crate::event::{Event, Origin};
use crate::job::Job;
use crate::name::{AttemptNumber, BuildId, JobName, LeaseId};
use crate::outcome::{Failure, Outcome};
use crate::time::Timestamp;

/// Everything a worker knows of an attempt. It holds no secret: those come by a way of their own, under the lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptSpec {
    /// Under which the result is accepted.
    pub lease: LeaseId,
    /// The build's number.
    pub build: BuildId,
    /// The attempt's number within the build; names its log and its workspace.
    pub attempt: AttemptNumber,
    /// Which try at the job it is, from 1.
    pub try_number: u32,
    /// The job's full name.
    pub name: JobName,
    /// The job.
    pub job: Arc<Job>,
    /// What happened.
    pub event: Arc<Event>,
    /// What came along the edges, by job name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<JobName, NeedResult>,
    /// The answer at the job's gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<BTreeMap<String, Value>>,
    /// The operation's digest, if the result may be reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Digest>,
    /// What earlier attempts of the build found images to be, by reference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// The build's project and files, on a server.
    #[serde(default, skip_serializing_if = "Origin::is_empty")]
    pub origin: Origin,
    /// The tests to which it is narrowed; `None` asks for the whole job. A worker that does not know of this runs the whole
    /// job, which is right too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Arc<AskedTests>>,
    /// The tests of the job that are in quarantine, for its steps to heed. A worker that does not know of this names none, and
    /// everything counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<TestName>,
}

/// What one needed job hands on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeedResult {
    /// `passed`, `failed`, `skipped` or `canceled`, as `${{ needs.ID.result }}` shows it.
    pub result: String,
    /// Its output values, if the edge carries them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, Value>,
    /// Its artifacts, if the edge carries them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub artifacts: BTreeMap<String, Artifact>,
}

/// Files that a job handed on under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// The digest of the archive that holds the files.
    pub digest: Digest,
    /// How many files.
    pub files: u64,
    /// Their bytes, before compression.
    pub bytes: u64,
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptReport {
    /// The outcome, with output values.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// When the worker took it up.
    pub started: Timestamp,
    /// When it had ended.
    pub finished: Timestamp,
    /// The steps that were looked at, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepReport>,
    /// What it hands on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub artifacts: BTreeMap<String, Artifact>,
    /// What all its processes used.
    #[serde(default)]
    pub usage: Usage,
    /// Tests read from reports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<TestCase>,
    /// Whether its reports may hold tests that are not among these: there were too many, or a report could not be read to its end. Old
    /// readers pass over it; from old writers it is not known, and taken for `false`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tests_cut: bool,
    /// Markdown written to `$ROPEWALK_SUMMARY`, all steps together.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// What its images were, by reference: `NAME@sha256:…` as its registry knows it, else the engine's own `sha256:…`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// Remarks for people: processes left behind, an input changed while the job ran, a cache not saved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What it read and wrote of keyed caches, in the order of the job's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<CacheReport>,
    /// What took time beside the steps, in order. Old readers pass over it; from old writers there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<Phase>,
    /// Of how many of the job's tests it was asked, if not for the whole job. Filled in by the engine, whatever a worker says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
    /// Whose end let it begin, if it had waited. Filled in by the engine, whatever a worker says. Old readers pass over it; from old
    /// writers there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_for: Option<Box<WaitedFor>>,
}

/// The job whose end let an attempt begin that had waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitedFor {
    /// Its build.
    pub build: BuildId,
    /// Its name.
    pub job: JobName,
    /// The concurrency group that it had held; `None` if it left room on the attempt's worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// A stretch of an attempt's time before its first step or after its last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// `workspace`, `image`, `artifacts_taken`, `cache_looked_up`, `cache_restored`, `container`, `artifacts_kept`, `reports` or
    /// `cache_saved`; others may come.
    pub what: String,
    /// The key of the cache; empty for the others.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// When it began.
    pub started: Timestamp,
    /// When it had ended.
    pub finished: Timestamp,
}

/// What an attempt did with one of its job's caches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheReport {
    /// The key that was asked for, and under which it was saved.
    pub key: String,
    /// What was found.
    pub found: CacheFound,
    /// The key of the entry that was restored: [`CacheReport::key`] or one that begins with a prefix. Empty if none was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub found_key: String,
    /// What the blobs of the restored entry hold.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub found_bytes: u64,
    /// What became of the saving.
    pub saved: CacheSaved,
    /// What the blobs of the saved entry hold.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub saved_bytes: u64,
    /// What of these had not been kept before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub put_bytes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// What was found of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// What became of a cache that was to be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// The beginning of a worker's note that an input changed while the job ran. Workers of every version say it so.
pub const INPUT_CHANGED: &str = "an input changed while the job ran";

/// The output of a step by which a function of the pipeline's program names the parts of the event that it read and that its job's
/// operation does not hold, with `, ` between.
pub const EVENT_READ: &str = "event.read";

impl AttemptReport {
    /// Whether its result may stand for other jobs of the same operation: it was made of nothing else.
    #[must_use]
    pub fn may_stand_for_others(&self) -> bool {
        !self.notes.iter().any(|note| note.starts_with(INPUT_CHANGED)) && self.undeclared_reads().next().is_none()
    }

    /// What its functions read of the event though the operation does not hold it: a sentence for people for each step.
    pub fn undeclared_reads(&self) -> impl Iterator<Item = String> {
        let told = |step: &StepReport| {
            let parts = step.outputs.get(EVENT_READ)?;
            Some(format!(
                "a function read of the event while it ran: {parts}; its result is not kept for reuse. What the pipeline reads before \
                 `run_fn`, and the function takes with it, counts for reuse instead"
            ))
        };
        self.steps.iter().filter_map(told)
    }

    /// A report of nothing but an outcome at one point in time.
    #[must_use]
    pub fn of(outcome: Outcome, at: Timestamp) -> Self {
        Self {
            outcome,
            started: at,
            finished: at,
            steps: Vec::new(),
            artifacts: BTreeMap::new(),
            usage: Usage::default(),
            tests: Vec::new(),
            tests_cut: false,
            summary: String::new(),
            images: BTreeMap::new(),
            notes: Vec::new(),
            caches: Vec::new(),
            phases: Vec::new(),
            partial: None,
            waited_for: None,
        }
    }

    /// The notes, but for one that its failure says already.
    pub fn remarks(&self) -> impl Iterator<Item = &String> {
        let told = match &self.outcome {
            Outcome::Failed(Failure::Step { message, .. }) => message.as_ref(),
            _ => None,
        };
        self.notes.iter().filter(move |note| Some(*note) != told)
    }
}

/// How one step went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Shown to people.
    pub name: String,
    /// Exit code, or 128 + the signal's number; `None` if it did not run or was not given the time to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// How it ended, before `allow_failure` is applied.
    pub result: StepResult,
    /// When it began; equal to `finished` if it was skipped.
    pub started: Timestamp,
    /// When it had ended.
    pub finished: Timestamp,
    /// What its processes used.
    #[serde(default)]
    pub usage: Usage,
    /// The values it handed on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// Lines it printed, both streams together.
    #[serde(default)]
    pub lines: u64,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepResult {
    /// It ended with zero.
    Passed,
    /// It did not run.
    Skipped,
    /// It was canceled.
    Canceled,
    /// It ended otherwise; so did one of which a worker says a word that nobody knows.
    #[serde(other)]
    Failed,
}

impl StepResult {
    /// The word for people, expressions and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Skipped => "skipped",
            Self::Canceled => "canceled",
            Self::Failed => "failed",
        }
    }
}

/// What processes used, as the kernel counted it for them and for the children they waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The largest resident set of any of them.
    pub peak_memory_bytes: u64,
    /// Time on a CPU in user mode, in microseconds.
    pub cpu_user_us: u64,
    /// Time on a CPU in the kernel, in microseconds.
    pub cpu_system_us: u64,
}

impl Usage {
    /// Both together: the larger peak, the sums of times.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            peak_memory_bytes: self.peak_memory_bytes.max(other.peak_memory_bytes),
            cpu_user_us: self.cpu_user_us + other.cpu_user_us,
            cpu_system_us: self.cpu_system_us + other.cpu_system_us,
        }
    }
}

/// One test from a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestCase {
    /// The suite or class it belongs to.
    pub suite: String,
    /// Its name within the suite.
    pub name: String,
    /// How it ended.
    pub outcome: TestOutcome,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The failure's message and details; empty if it passed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What it printed, if the report holds it; cut at a bound.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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

impl TestOutcome {
    /// Whether it ran and did not pass.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Errored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_steps_are_the_words_that_they_were_kept_as() {
        let all = [StepResult::Passed, StepResult::Failed, StepResult::Skipped, StepResult::Canceled];
        for (result, word) in all.into_iter().zip(["passed", "failed", "skipped", "canceled"]) {
            let kept = format!(
                r#"{{"outcome":"passed","started":1,"finished":5,"steps":[{{"name":"make","exit":0,"result":"{word}","started":2,"finished":4,"usage":{{"peak_memory_bytes":1,"cpu_user_us":2,"cpu_system_us":3}},"lines":7}}],"usage":{{"peak_memory_bytes":1,"cpu_user_us":2,"cpu_system_us":3}}}}"#
            );
            let report: AttemptReport = serde_json::from_str(&kept).unwrap();
            assert_eq!((report.steps[0].result, result.word()), (result, word));
            assert_eq!(serde_json::to_string(&report).unwrap(), kept);
        }
        let strange: StepResult = serde_json::from_str(r#""burst""#).unwrap();
        assert_eq!(strange, StepResult::Failed);
    }
}
