//! Pools: named queues of interchangeable workers, and what waits in them.

use graph::BuildId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::job::Waiting;
use crate::time::Time;

/// A pool. It exists as long as a worker serves it, a job waits in it, or it is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pool {
    /// Its name; the default pool is called `default` here and has the empty name in pipelines.
    pub name: String,
    /// Whether nothing starts in it for now, who wants so and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// The jobs that wait in it.
    pub waiting: u64,
    /// The attempts that run in it.
    pub running: u64,
    /// The workers that serve it and are there.
    pub workers: u64,
    /// How many attempts these run at once.
    pub slots: u64,
    /// The jobs of builds under way that are still to come into it: they wait for other jobs, a person, a group or their next try.
    #[serde(default)]
    pub to_come: u64,
    /// Whom the queue charges of those that wait in it, who goes first first; at most [`SHARES_MAX`]. For those alone who may read
    /// the whole server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
}

/// The most clients whose share of a pool is told.
pub const SHARES_MAX: usize = 100;

/// How a client stands in a pool's queue. The queue charges it for the time of its attempts, in whatever pool; who has less goes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Share {
    /// Its name; empty for those who have none.
    pub client: String,
    /// Its jobs that wait in the pool.
    pub waiting: u64,
    /// How much it was charged beyond the share at which the queue has arrived, in milliseconds: the others catch up first.
    pub ahead_ms: u64,
}

/// What somebody stopped, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Held {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: Time,
}

/// Holds a pool: nothing starts in it until it is released.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hold {
    /// Why; shown to those who wait, kept in the audit.
    #[schemars(length(max = 1000))]
    pub reason: String,
}

/// How a pool stood over the last hour, as far back as a server has looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolHistory {
    /// Its name.
    pub pool: String,
    /// How often the server looks, in milliseconds.
    pub every_ms: u64,
    /// What it saw, oldest first; at most 240.
    pub samples: Vec<PoolSample>,
}

/// A pool as it stood at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolSample {
    /// When.
    pub at: Time,
    /// The jobs that waited in it.
    pub waiting: u64,
    /// The attempts that ran in it.
    pub running: u64,
    /// How many attempts its workers could run at once.
    pub slots: u64,
    /// The workers that served it and were there.
    pub workers: u64,
    /// How long those that waited had waited; absent if nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Waits>,
}

/// How long the jobs that wait in a pool have waited for a worker, each the nearest rank, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waits {
    /// Half of them at most so long.
    pub p50_ms: u64,
    /// 95 of a hundred at most so long.
    pub p95_ms: u64,
    /// The one that waits longest.
    pub longest_ms: u64,
}

/// What workers were busy with, by project: their time over attempts that ended within the last seven days, as far back as a server has counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerTime {
    /// Since when it was counted.
    pub since: Time,
    /// Those that may be seen, who took most first; at most [`WORKER_TIME_PROJECTS_MAX`].
    pub projects: Vec<ProjectTime>,
}

/// Of how many projects the time of workers is told.
pub const WORKER_TIME_PROJECTS_MAX: usize = 100;

/// The time that workers spent on one project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectTime {
    /// Its name; empty for builds of none.
    pub project: String,
    /// The attempts that ended.
    pub attempts: u64,
    /// How long they took from the worker's taking up to their end, together, in milliseconds.
    pub worker_ms: u64,
}

/// One job in a pool's queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Queued {
    /// The build.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// The build's project.
    pub project: String,
    /// Whom the queue charges.
    pub client: String,
    /// Whether its build goes before those that are not urgent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub urgent: bool,
    /// Its place in the pool's queue, from 1, also while the pool is held or has no worker for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Why it has not begun.
    pub waiting: Waiting,
}
