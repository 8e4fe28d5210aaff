//! What happened, and so why a build exists; and what happens, as streams tell it.
//!
//! A stream's objects are those of `ropewalk run --output json`, one object each, told apart by `kind`.

use std::collections::BTreeMap;

use graph::{BuildId, EventKind, Trust};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::build::{Diagnostic, VerdictWord};
use crate::job::{Cause, Field, OutcomeWord, StepResult, Usage};
use crate::log::LogStream;
use crate::time::Time;

/// The most parameters of one event.
pub const PARAMS_MAX: usize = 1000;
/// The longest text of one field of an event, in bytes.
pub const FIELD_BYTES_MAX: usize = 64 * 1024;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventWord {
    /// Commits arrived on a branch.
    Push,
    /// A tag arrived.
    Tag,
    /// A pull request was opened or changed.
    PullRequest,
    /// A schedule came due.
    Schedule,
    /// A person started it.
    Manual,
    /// A program started it.
    Api,
    /// Another build started it.
    Build,
    /// A person asked for one of the pipeline's commands by name.
    Command,
}

impl From<EventKind> for EventWord {
    fn from(kind: EventKind) -> Self {
        match kind {
            EventKind::Push => Self::Push,
            EventKind::Tag => Self::Tag,
            EventKind::PullRequest => Self::PullRequest,
            EventKind::Schedule => Self::Schedule,
            EventKind::Manual => Self::Manual,
            EventKind::Api => Self::Api,
            EventKind::Build => Self::Build,
            EventKind::Command => Self::Command,
        }
    }
}

impl From<EventWord> for EventKind {
    fn from(word: EventWord) -> Self {
        match word {
            EventWord::Push => Self::Push,
            EventWord::Tag => Self::Tag,
            EventWord::PullRequest => Self::PullRequest,
            EventWord::Schedule => Self::Schedule,
            EventWord::Manual => Self::Manual,
            EventWord::Api => Self::Api,
            EventWord::Build => Self::Build,
            EventWord::Command => Self::Command,
        }
    }
}

/// How far the author of an event is trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrustWord {
    /// A fork's pull request, for instance: no secrets, no shared caches.
    Untrusted,
    /// Somebody who may push to the repository.
    #[default]
    Trusted,
}

impl From<Trust> for TrustWord {
    fn from(trust: Trust) -> Self {
        match trust {
            Trust::Untrusted => Self::Untrusted,
            Trust::Trusted => Self::Trusted,
        }
    }
}

impl From<TrustWord> for Trust {
    fn from(word: TrustWord) -> Self {
        match word {
            TrustWord::Untrusted => Self::Untrusted,
            TrustWord::Trusted => Self::Trusted,
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// The kind of happening.
    pub kind: EventWord,
    /// The commit, as a full object id; absent outside a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The branch's short name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The tag's short name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// What changed files are compared with: a branch or a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The command that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The number of the pull request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<u64>,
    /// Who caused it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub actor: String,
    /// The commit's message or the pull request's title. Text from outside.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it happened.
    pub time: Time,
    /// What was filled in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Value>,
    /// How far its author is trusted.
    pub trust: TrustWord,
    /// Whether the files differ from those of the commit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local_changes: bool,
    /// The build whose job asked for this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
}

/// The job that asked for a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Parent {
    /// Its build.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// Its name.
    pub job: String,
}

impl From<&graph::Event> for Event {
    fn from(event: &graph::Event) -> Self {
        Self {
            kind: event.kind.into(),
            commit: Some(event.commit.clone()).filter(|commit| !commit.is_empty()),
            branch: event.branch.clone(),
            tag: event.tag.clone(),
            base: event.base.clone(),
            command: event.command.clone(),
            pull_request: event.pull_request,
            actor: event.actor.clone(),
            message: event.message.clone(),
            time: event.time.into(),
            params: event.params.clone(),
            trust: event.trust.into(),
            local_changes: event.checkout == graph::Checkout::Changed,
            parent: event.parent.as_ref().map(|parent| Parent { build: parent.build, job: parent.job.to_string() }),
        }
    }
}

/// What a program says happened when it asks for a build. Who says it is known by the token, and when by the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EventWanted {
    /// The kind of happening; `api` if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<EventWord>,
    /// The commit, as a full object id (40 or 64 hexadecimal digits).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9a-f]{40}|[0-9a-f]{64})$"))]
    pub commit: Option<String>,
    /// The branch's short name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub branch: Option<String>,
    /// The tag's short name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub tag: Option<String>,
    /// What changed files are compared with: a branch or a commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub base: Option<String>,
    /// The pipeline's command.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub command: Option<String>,
    /// The number of the pull request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<u64>,
    /// The commit's message.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 65536))]
    pub message: String,
    /// What is filled in of the pipeline's parameters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Value>,
    /// Whether the files differ from those of the commit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub local_changes: bool,
    /// Less than the token's own trust, if the sender wants so; never more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustWord>,
}

/// One object of a stream. New kinds may come; who reads passes over those that it does not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Moment {
    /// The build exists.
    BuildStarted {
        /// The build.
        #[schemars(with = "u64")]
        build: BuildId,
        /// Its project.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        project: String,
        /// Its number in the project; absent where builds have no other number than their id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
        /// When.
        time: Time,
        /// The kind of event.
        event: EventWord,
        /// The event's branch.
        branch: Option<String>,
        /// The event's tag.
        tag: Option<String>,
        /// The event's commit; empty if there is none.
        commit: String,
        /// The pipeline, as it was asked for.
        pipeline: String,
        /// Whether the files differ from those of the commit.
        local_changes: bool,
    },
    /// The pipeline was evaluated.
    Planned {
        /// The build.
        #[schemars(with = "u64")]
        build: BuildId,
        /// When.
        time: Time,
        /// How many jobs the graph has now.
        jobs: usize,
        /// The ids under which jobs are still to come.
        holes: Vec<String>,
        /// The jobs that were not there before this evaluation.
        added: Vec<String>,
        /// The jobs whose outcomes made it grow.
        because: Vec<String>,
        /// What the pipeline says of its parts.
        statuses: Value,
        /// What is wrong with the pipeline.
        diagnostics: Vec<Diagnostic>,
    },
    /// A worker has an attempt at a job.
    JobStarted {
        /// The build.
        #[schemars(with = "u64")]
        build: BuildId,
        /// When.
        time: Time,
        /// The job.
        job: String,
        /// The attempt's number in the build.
        attempt: u32,
        /// Which try at the job it is, from 1.
        #[serde(rename = "try")]
        try_number: u32,
        /// The worker's id.
        worker: String,
        /// Set if it was asked for some of the job's tests only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        partial: Option<crate::job::Partial>,
    },
    /// A job has the build that it asked for. It has ended with that build, or at once if it does not wait for it.
    ChildMade {
        /// The build.
        #[schemars(with = "u64")]
        build: BuildId,
        /// When.
        time: Time,
        /// The job.
        job: String,
        /// Which try at the job it is, from 1.
        #[serde(rename = "try")]
        try_number: u32,
        /// The id of the build that it asked for.
        #[schemars(with = "u64")]
        child: BuildId,
    },
    /// A step begins.
    StepStarted {
        /// The build.
        #[schemars(with = "u64")]
        build: BuildId,
        /// The job.
        job: String,
        /// The attempt's number in the build.
        attempt: u32,
        /// The step's index in its job, from 0.
        step: u16,
        /// Its name.
        name: String,
        /// When.
        time: Time,
    },
    /// A line was printed.
    Log {
        /// The build.
        #[schemars(with = "u64")]
        build: BuildId,
        /// The job.
        job: String,
        /// The attempt's number in the build.
        attempt: u32,
        /// The step's index in its job, from 0.
        step: u16,
        /// Who wrote it.
        stream: LogStream,
        /// When.
        time: Time,
        /// The line's number within its step, from 0.
        number: u64,
        /// The line without its end; bytes that are not UTF-8 are replaced.
        line: String,
        /// The line goes on: what follows of this stream is its next piece.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        open: bool,
    },
    /// A part of a log is lost, and this is where.
    LogGap {
        /// The build.
        #[schemars(with = "u64")]
        build: BuildId,
        /// The job.
        job: String,
        /// The attempt's number in the build.
        attempt: u32,
        /// The step's index in its job, from 0.
        step: u16,
        /// Why, for people.
        text: String,
    },
    /// A step has ended.
    StepFinished {
        /// The build.
        #[schemars(with = "u64")]
        build: BuildId,
        /// The job.
        job: String,
        /// The attempt's number in the build.
        attempt: u32,
        /// The step's index in its job, from 0.
        step: u16,
        /// Its name.
        name: String,
        /// How, before `allow_failure` is applied.
        result: StepResult,
        /// Exit code, or 128 and the signal's number; absent if it did not run or was not given the time to end.
        exit: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// When.
        time: Time,
        /// How long it ran, in milliseconds.
        duration_ms: u64,
        /// What its processes used.
        usage: Usage,
        /// The values it handed on.
        outputs: BTreeMap<String, String>,
        /// Lines it printed, both streams together.
        lines: u64,
    },
    /// A job, or an attempt at it, has ended.
    JobFinished {
        /// The build.
        #[schemars(with = "u64")]
        build: BuildId,
        /// When.
        time: Time,
        /// The job.
        job: String,
        /// The attempt; absent if it ended without one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt: Option<u32>,
        /// How.
        outcome: OutcomeWord,
        /// Why it did not pass.
        cause: Option<Cause>,
        /// Whether an earlier result was taken.
        cached: bool,
        /// The build whose result was taken.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<u64>")]
        cached_from: Option<BuildId>,
        /// The values it hands on.
        outputs: BTreeMap<String, Value>,
        /// How long it ran, in milliseconds.
        duration_ms: u64,
        /// What its processes used.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
        /// Remarks for people.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
        /// Whether it is tried again.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        retried: bool,
    },
    /// A job that had ended is put back: it runs again.
    JobRetried {
        /// The build.
        #[schemars(with = "u64")]
        build: BuildId,
        /// When.
        time: Time,
        /// The job.
        job: String,
        /// Who wanted it.
        by: String,
    },
    /// A job waits for a person.
    GateOpened {
        /// The build.
        #[schemars(with = "u64")]
        build: BuildId,
        /// When.
        time: Time,
        /// The job.
        job: String,
        /// The question.
        prompt: String,
        /// What is to be filled in, by name. A stream of all builds that began in the midst of this one does not tell it.
        #[serde(default)]
        fields: BTreeMap<String, Field>,
    },
    /// A person has answered.
    GateAnswered {
        /// The build.
        #[schemars(with = "u64")]
        build: BuildId,
        /// When.
        time: Time,
        /// The job.
        job: String,
        /// Whether it was a yes.
        approved: bool,
        /// What was filled in.
        #[serde(default)]
        fields: BTreeMap<String, Value>,
        /// Who.
        by: String,
        /// Why, as they said it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// Somebody wants the build, or a job of it, canceled.
    CancelRequested {
        /// The build.
        #[schemars(with = "u64")]
        build: BuildId,
        /// When.
        time: Time,
        /// The job; absent if the whole build is meant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<String>,
        /// Who.
        by: String,
    },
    /// The build has ended. A stream of one build ends with it.
    BuildFinished {
        /// The build.
        #[schemars(with = "u64")]
        build: BuildId,
        /// When.
        time: Time,
        /// How.
        verdict: VerdictWord,
        /// How, for people.
        text: String,
        /// How long it took from its creation, in milliseconds.
        duration_ms: u64,
        /// What the pipeline says of its parts.
        statuses: Value,
    },
}

impl Moment {
    /// The build that it is about.
    #[must_use]
    pub fn build(&self) -> BuildId {
        match self {
            Self::BuildStarted { build, .. }
            | Self::Planned { build, .. }
            | Self::JobStarted { build, .. }
            | Self::ChildMade { build, .. }
            | Self::StepStarted { build, .. }
            | Self::Log { build, .. }
            | Self::LogGap { build, .. }
            | Self::StepFinished { build, .. }
            | Self::JobFinished { build, .. }
            | Self::JobRetried { build, .. }
            | Self::GateOpened { build, .. }
            | Self::GateAnswered { build, .. }
            | Self::CancelRequested { build, .. }
            | Self::BuildFinished { build, .. } => *build,
        }
    }
}
