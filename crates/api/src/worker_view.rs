//! Workers as people see them: who is there, what they run, and why one takes nothing new.

use graph::BuildId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pool::Held;
use crate::time::Time;

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Worker {
    /// Derived from its key; names it for good.
    pub id: String,
    /// Its own name; shown to people, not an identity.
    pub name: String,
    /// How it stands.
    pub state: WorkerState,
    /// Who paused or drains it, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// Why it takes nothing new by its own account: low disk, a failed check of its health.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
    /// The pools that it serves.
    pub pools: Vec<String>,
    /// Its labels.
    pub labels: Vec<String>,
    /// How many attempts it runs at once.
    pub slots: u32,
    /// Its cores in thousandths; 0 is without limit.
    pub cpu_milli: u64,
    /// Its memory in bytes; 0 is without limit.
    pub memory_bytes: u64,
    /// The version of its binary.
    pub version: String,
    /// When it was last heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Time>,
    /// When it joined last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<Time>,
    /// The last attempt that failed in its hands by no fault of the job's own, since the server started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<WorkerFault>,
    /// What it runs.
    pub running: Vec<RunningAttempt>,
}

/// An attempt that failed because its worker fell silent, could not make it ready, or broke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerFault {
    /// When it ended.
    pub at: Time,
    /// The build.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// The job.
    pub job: String,
    /// Why, for people.
    pub text: String,
}

/// How a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// It is there and takes jobs.
    Ready,
    /// It is there and takes nothing new until it is resumed.
    Paused,
    /// It takes nothing new, finishes what runs and leaves.
    Draining,
    /// It is not there.
    Away,
}

/// An attempt in a worker's hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunningAttempt {
    /// The lease.
    pub lease: u64,
    /// The build.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// The job.
    pub job: String,
    /// The attempt.
    pub attempt: u32,
    /// The build's project.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub project: String,
    /// When it was leased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leased: Option<Time>,
}

/// Pauses or drains a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Stop {
    /// Why; kept with the worker and in the audit.
    #[schemars(length(max = 1000))]
    pub reason: String,
}
