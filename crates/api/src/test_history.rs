//! Tests over builds: which failures of a build are new, which were there before, which come and go; and how one test did
//! over the last builds.

use graph::BuildId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::job::{Test, TestOutcome};
use crate::time::Time;

/// With how many earlier builds of the same branch or pull request the tests of a build are compared.
pub const COMPARED_BUILDS: usize = 10;
/// The most failures that a summary tells; the others are counted.
pub const FAILURES_MAX: usize = 500;
/// How many of the slowest tests a summary tells.
pub const SLOWEST: usize = 10;
/// How many builds are looked at for one page of a test's history, at most.
pub const HISTORY_BUILDS_MAX: u32 = 100;

/// The tests of a build, beside those of the builds before it. A test counts once, as its last attempt reported it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TestSummary {
    /// The build.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// How many passed.
    pub passed: u64,
    /// How many failed or broke.
    pub failed: u64,
    /// How many did not run.
    pub skipped: u64,
    /// The earlier builds that it was compared with, newest first; none if nothing failed.
    pub compared: Vec<BuildName>,
    /// How many of those that failed or broke are in quarantine now.
    #[serde(default)]
    pub quarantined: u64,
    /// The failures, new ones first, then those that come and go, those that were there before, and those in quarantine; at
    /// most 500.
    pub failures: Vec<TestFailure>,
    /// How many more failures there are.
    pub failures_left_off: u64,
    /// The tests that passed only on a later attempt at their job, at most 500: without what they printed.
    pub unsteady: Vec<Test>,
    /// The jobs that failed whose failing tests alone cannot make them pass, for other tests never ran; in order of name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never_run: Vec<NeverRun>,
    /// The tests that took longest, without what they printed, slowest first.
    pub slowest: Vec<Test>,
}

/// Tests that ran when a job last passed whole, and that no attempt of this build has run: a runner that stops at its first failure
/// leaves them out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NeverRun {
    /// The job.
    pub job: String,
    /// How many they are.
    pub tests: u64,
    /// The first of them, as `SUITE NAME`, at most 20.
    pub first: Vec<String>,
    /// The build in which it passed whole.
    #[schemars(with = "u64")]
    pub passed_in: BuildId,
}

/// How many tests of a job [`NeverRun`] names.
pub const NEVER_RUN_NAMED_MAX: usize = 20;

/// A build as texts name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BuildName {
    /// Its id.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// Its number in its project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Its commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// One failure, and what it is beside the builds before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TestFailure {
    /// The test.
    pub test: Test,
    /// What it is.
    pub kind: FailureKind,
    /// The oldest of the builds, up to this one, since which it has failed without a pass between.
    pub since: BuildName,
    /// The newest of the earlier builds in which it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<BuildName>,
    /// How it ended last on the default branch, if this build is not of that branch and the test was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_default_branch: Option<TestOutcome>,
}

/// What a failure is beside the builds before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// It passed, or was not there, in the build before.
    New,
    /// It passed and failed on the same commit, or in this build.
    Flaky,
    /// It failed in the build before too.
    Known,
    /// It is in quarantine now, whatever it would be otherwise.
    Quarantined,
}

/// How a test ended in one build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TestRun {
    /// The build.
    pub build: BuildName,
    /// The branch of its event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// When the build was asked for.
    pub created: Time,
    /// The job that reported it.
    pub job: String,
    /// The attempt that reported it last.
    pub attempt: u32,
    /// How it ended there.
    pub outcome: TestOutcome,
    /// Whether an earlier attempt of the build reported otherwise.
    pub unsteady: bool,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The failure's message, cut at 1000 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
