//! What the world tells the engine. Inputs may be late, repeated or wrong; none is trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use graph::quarantine::QuarantinedTest;
use graph::{
    Answer, AskedTests, AttemptNumber, AttemptReport, BuildId, Digest, Evaluation, Event, Failure, JobName, LeaseId,
    Origin, Outcome, Question, Resources, Timestamp, WorkerId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fact::Reused;

/// One thing that the world says.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Somebody wants a build. Its number was drawn by the store; the same number twice is one build.
    BuildRequested {
        /// The build's number.
        build: BuildId,
        /// What is wanted.
        request: Box<BuildRequest>,
    },
    /// The pipeline was evaluated with what was known.
    Evaluated {
        /// The build.
        build: BuildId,
        /// How many answers were known; an evaluation of older knowledge is ignored.
        answers_known: usize,
        /// What it said.
        evaluation: Box<Evaluation>,
    },
    /// A question was answered.
    Answered {
        /// The build.
        build: BuildId,
        /// The question.
        question: Question,
        /// Its answer.
        answer: Answer,
    },
    /// A job's operation was worked out and looked up.
    OperationResolved {
        /// The build.
        build: BuildId,
        /// The job.
        job: JobName,
        /// The operation's digest, or why there is none (the job then runs without reuse).
        operation: Result<Digest, String>,
        /// An earlier result and its outcome, if there is one that may be reused.
        hit: Option<(Reused, Outcome)>,
        /// When results of the operation were evicted last, if none that came after may be reused: those that the engine still holds
        /// from before count no more.
        evicted: Option<Timestamp>,
    },
    /// The build that a job asks for can be made, or why not.
    ChildPrepared {
        /// The build whose job asks.
        build: BuildId,
        /// The job.
        job: JobName,
        /// Of which asking it is the answer; that of an earlier one is ignored.
        asking: u64,
        /// The child's number, drawn by the store, and what is wanted of it.
        child: Result<(BuildId, Box<BuildRequest>), Failure>,
    },
    /// A person answered a gate.
    GateAnswered {
        /// The build.
        build: BuildId,
        /// The gate's job.
        job: JobName,
        /// What was filled in, complete and of the right types; `None` is a no.
        answer: Option<BTreeMap<String, Value>>,
        /// Who.
        by: String,
        /// Why; may be empty.
        reason: String,
    },
    /// A worker shows that it is there.
    WorkerPresent {
        /// The worker.
        worker: WorkerId,
        /// What it offers and runs.
        presence: Presence,
    },
    /// A worker took its leave.
    WorkerLeft {
        /// The worker.
        worker: WorkerId,
    },
    /// An attempt ended.
    AttemptFinished {
        /// The build.
        build: BuildId,
        /// The attempt.
        attempt: AttemptNumber,
        /// The lease under which it ran.
        lease: LeaseId,
        /// How it ended.
        report: Box<AttemptReport>,
    },
    /// Somebody wants a job that failed, or that its own condition or gate kept from running, to run after all.
    JobRetried {
        /// The build; it may have ended, as long as the engine still holds it.
        build: BuildId,
        /// The job.
        job: JobName,
        /// Who.
        by: String,
        /// The tests to which it is narrowed; `None` asks for the whole job. Of a job without reports, and beyond the
        /// bounds of [`AskedTests`], nothing comes of it.
        tests: Option<Arc<AskedTests>>,
        /// Names the request, if it may be repeated; it is kept with the fact.
        key: Option<Digest>,
    },
    /// Somebody wants one job canceled. One that waits ends at once; one that runs is stopped.
    JobCanceled {
        /// The build.
        build: BuildId,
        /// The job.
        job: JobName,
        /// Who or what.
        by: String,
    },
    /// A job that the engine of another process runs has entered a concurrency group, in a mode that cancels what waits before it. What
    /// waits here for the group and has no lease ends as canceled; of those that have one, whoever begins attempts knows which wait.
    GroupEntered {
        /// A build of the same project and trust.
        build: BuildId,
        /// The group, by name.
        group: String,
        /// Which job.
        by: String,
    },
    /// A pool is held, or no longer. Hearsay, not kept: to be said again after a start.
    PoolHeld {
        /// The pool.
        pool: String,
        /// Why, for people; `None` releases it.
        reason: Option<String>,
    },
    /// Somebody wants the build to go before those that are not urgent. Of one that has ended or is urgent nothing comes.
    MadeUrgent {
        /// The build.
        build: BuildId,
        /// Who.
        by: String,
    },
    /// Somebody wants the build canceled.
    CancelRequested {
        /// The build.
        build: BuildId,
        /// Who or what.
        by: String,
    },
}

/// What is wanted of a build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildRequest {
    /// What happened.
    pub event: Event,
    /// Which pipeline, as the one who evaluates it knows it (paths of the files).
    pub pipeline: String,
    /// How it is to run.
    #[serde(default)]
    pub options: BuildOptions,
    /// Whom the queue charges.
    #[serde(default)]
    pub client: String,
    /// Jobs whose outcome is taken from an earlier build (`retry --failed`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub given: BTreeMap<JobName, (Reused, Outcome)>,
    /// Jobs that are asked for some of their tests only, those of an earlier build (`retry --tests`). They take no earlier
    /// result, and nobody takes theirs. What stands here of a job without reports counts for nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub asked: BTreeMap<JobName, Arc<AskedTests>>,
    /// The tests that are in quarantine, for jobs with reports to heed by their own script. It stays what it was when the build was
    /// asked for, but that what expires counts no more: so nothing that has failed passes because of what was said afterwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<QuarantinedTest>,
    /// Where it belongs, on a server.
    #[serde(default, skip_serializing_if = "Origin::is_empty")]
    pub origin: Origin,
    /// What makes two requests the same: while a build of the same identity waits for its first attempt, another request
    /// is that build, unless others could take its place than could take the request's. `None`: every request is a build of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Digest>,
    /// Names the request itself: a repetition of it is the build that it made, whatever has become of that, as long as it
    /// is held here. `None`: it is not repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// What makes a later build take the place of earlier ones that have not ended (a branch, a pull request): they are
    /// canceled. `None`: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<String>,
}

impl BuildRequest {
    /// A request for `event` with everything else empty.
    #[must_use]
    pub fn new(event: Event, pipeline: impl Into<String>) -> Self {
        Self {
            event,
            pipeline: pipeline.into(),
            options: BuildOptions::default(),
            client: String::new(),
            given: BTreeMap::new(),
            asked: BTreeMap::new(),
            quarantine: Vec::new(),
            origin: Origin::default(),
            identity: None,
            key: None,
            supersedes: None,
        }
    }
}

/// How a build is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildOptions {
    /// The ids or full names of the jobs wanted, with all they need; empty means all.
    pub only: BTreeSet<String>,
    /// What the first failure does to the rest.
    pub on_failure: FailurePolicy,
    /// Whether it goes before builds that are not urgent.
    pub urgent: bool,
    /// The build that this one tries again.
    pub retry_of: Option<BuildId>,
    /// The build since which nothing has changed, so that none of its jobs was looked at: its records stand for theirs. Whoever runs a build
    /// without the engine fills it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unchanged_since: Option<BuildId>,
    /// The pool of its jobs that name none; empty is the default pool. Whoever evaluates the pipeline fills it in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pool: String,
    /// Whether its jobs may name other pools. Whoever evaluates the pipeline sees to it.
    #[serde(skip_serializing_if = "PoolReach::is_every")]
    pub pools: PoolReach,
    /// Whether earlier results are looked for. Whoever works out operations sees to it; old readers pass over it.
    #[serde(skip_serializing_if = "ReusePolicy::is_as_declared")]
    pub reuse: ReusePolicy,
}

/// Whether results of earlier builds are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReusePolicy {
    /// For jobs that may be reused.
    #[default]
    AsDeclared,
    /// For no job: all run. What they give is kept for later builds all the same.
    RunAll,
}

impl ReusePolicy {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
    fn is_as_declared(&self) -> bool {
        *self == Self::AsDeclared
    }
}

/// Which pools the jobs of a build may name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolReach {
    /// Every one.
    #[default]
    Every,
    /// Only that of their build: whoever asked for it may use no other.
    Own,
}

impl PoolReach {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
    fn is_every(&self) -> bool {
        *self == Self::Every
    }
}

/// What the first failure of a required job does to the rest of a build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// Jobs that do not depend on it go on.
    #[default]
    KeepGoing,
    /// Nothing more starts, except cleanup; what runs is canceled.
    FailFast,
}

/// What a worker offers. Sent again and again: silence means that it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The pools whose jobs it takes; the default pool is the empty name.
    pub pools: BTreeSet<String>,
    /// Its labels.
    pub labels: BTreeSet<String>,
    /// How many attempts it runs at once.
    pub slots: u32,
    /// What it has of cores and memory; zero is without limit.
    pub resources: Resources,
    /// The leases it holds; one that the engine gave it long ago and that is not among them is lost.
    pub leases: BTreeSet<LeaseId>,
    /// How long its word holds, in milliseconds; 0 means until it leaves.
    pub holds_ms: u64,
    /// Whether it takes new attempts.
    pub intake: Intake,
}

/// Whether a worker takes new attempts. What it runs goes on either way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "intake", rename_all = "snake_case")]
pub enum Intake {
    /// It does.
    #[default]
    Open,
    /// It does not.
    Closed {
        /// Why, for people: it is paused, drained, unhealthy, short of disk.
        reason: String,
    },
}
