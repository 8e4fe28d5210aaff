//! Two builds side by side: what differs between them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::build::Build;
use crate::job::{JobState, OutcomeWord, TestOutcome};
use crate::quarantine::QuarantineNote;

/// The most jobs, and the most tests, that a comparison names.
pub const DIFFERENCES_MAX: usize = 1000;

/// What differs between two builds. What is the same in both is only counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// The build that is compared.
    pub build: Build,
    /// The build that it is compared with.
    pub with: Build,
    /// The jobs that differ, by name, at most 1000.
    pub jobs: Vec<JobDifference>,
    /// How many more differ.
    pub jobs_left_off: u64,
    /// How many jobs are the same.
    pub jobs_same: u64,
    /// The tests that differ, by job, suite and name, at most 1000.
    pub tests: Vec<TestDifference>,
    /// How many more differ.
    pub tests_left_off: u64,
    /// How many tests are the same.
    pub tests_same: u64,
}

/// A job that one of the builds does not have, that ended otherwise, came from the cache in one of them only, or took
/// longer or less long by a quarter and a second at least.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobDifference {
    /// Its full name.
    pub job: String,
    /// How it stands in the build; absent if it is not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub here: Option<JobSide>,
    /// How it stands in the other; absent if it is not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub there: Option<JobSide>,
}

/// A job in one of the builds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobSide {
    /// Where it stands.
    pub state: JobState,
    /// How it ended, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeWord>,
    /// Why it failed, was skipped or canceled, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Whether it took an earlier result.
    pub reused: bool,
    /// How long its last attempt took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
}

/// A test that one of the builds does not have, that ended otherwise, or took longer or less long by a quarter and a
/// second at least.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TestDifference {
    /// The job that reported it.
    pub job: String,
    /// The suite or class that it belongs to.
    pub suite: String,
    /// Its name within the suite.
    pub name: String,
    /// How it ended in the build; absent if it was not reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub here: Option<TestSide>,
    /// How it ended in the other; absent if it was not reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub there: Option<TestSide>,
    /// What is said of it if it is in quarantine now, in the project of the first build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<QuarantineNote>,
}

/// A test in one of the builds, as its last attempt reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TestSide {
    /// How it ended.
    pub outcome: TestOutcome,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}
