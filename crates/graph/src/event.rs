//! What happened, and so why a build exists.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::name::{BuildId, JobName};
use crate::time::Timestamp;

/// What happened. Immutable; the only source of time and identity for a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The kind of happening.
    pub kind: EventKind,
    /// The commit to build, as a full object id; empty outside a repository.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub commit: String,
    /// The branch's short name (`main`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The tag's short name (`v1.2`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// What to compare with for changed files: a branch or a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The command that was asked for (`run --command release`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The number of the pull request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<u64>,
    /// Who caused it, as the code host authenticated them; never a commit's author field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub actor: String,
    /// The commit's message or the pull request's title. Text from outside: never pasted into a shell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it happened.
    #[serde(default)]
    pub time: Timestamp,
    /// What the one who started a manual build filled in, complete with defaults once the pipeline is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Value>,
    /// How far the event's author is trusted.
    #[serde(default)]
    pub trust: Trust,
    /// Whether the files are those of the commit.
    #[serde(default, skip_serializing_if = "Checkout::is_as_committed")]
    pub checkout: Checkout,
    /// The build whose job asked for this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
}

/// Where a build on a server belongs, and what it builds. Empty on a laptop, whose store holds one project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// The project's name; empty on a laptop.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub project: String,
    /// The build's number within its project, from 1; 0 where builds have no other number than their id.
    #[serde(skip_serializing_if = "Origin::is_zero")]
    pub number: u64,
    /// The digest of the manifest that names every file that is built; `None` where a checkout stands at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Digest>,
}

impl Origin {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
    fn is_zero(number: &u64) -> bool {
        *number == 0
    }
}

/// A build's job that asked for another build, the child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The build, of the same project.
    pub build: BuildId,
    /// Its job.
    pub job: JobName,
    /// How many builds stand above the child: 1 for that of a build that nobody's job asked for.
    pub depth: u32,
    /// Whether the job waits for the child.
    pub waits: Waits,
}

/// Whether the job that asked for a build waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waits {
    /// It does; the child's verdict is its outcome.
    #[default]
    ForVerdict,
    /// It has passed when the child is asked for. On a server the child begins at once, on a laptop when the parent build has ended.
    No,
}

impl Parent {
    /// The most builds that may stand above a build. At the bound the child is refused, and with it the job fails.
    pub const DEPTH_MAX: u32 = 8;
}

impl Event {
    /// Whether two say the same but for when, and who asked: a build that asks for one with the same event and pipeline as its own
    /// would ask for it for ever.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        let said = |event: &Self| {
            let (time, checkout) = Default::default();
            Self { time, checkout, parent: None, ..event.clone() }
        };
        said(self) == said(other)
    }

    /// Whether the build is one of a pull request, be it that a job of such a build asked for it: its branch is somebody's
    /// own, whatever it is called.
    #[must_use]
    pub fn is_of_pull_request(&self) -> bool {
        self.kind == EventKind::PullRequest || self.pull_request.is_some() || self.trust == Trust::Untrusted
    }

    /// What `event` is in an expression, whoever evaluates it: who makes the graph, the engine, or a worker. Every property is
    /// always there, null or empty where the event has none of it; `time` is RFC 3339 in UTC. The user's manual lists them.
    #[must_use]
    pub fn context(&self) -> Value {
        json!({
            "kind": self.kind.name(),
            "commit": self.commit,
            "branch": self.branch,
            "tag": self.tag,
            "base": self.base,
            "command": self.command,
            "pull_request": self.pull_request,
            "actor": self.actor,
            "message": self.message,
            "time": self.time.rfc3339(),
            "params": self.params,
            "trust": self.trust,
        })
    }

    /// An event of `kind` with everything else empty.
    #[must_use]
    pub fn new(kind: EventKind) -> Self {
        Self {
            kind,
            commit: String::new(),
            branch: None,
            tag: None,
            base: None,
            command: None,
            pull_request: None,
            actor: String::new(),
            message: String::new(),
            time: Timestamp::default(),
            params: BTreeMap::new(),
            trust: Trust::default(),
            checkout: Checkout::default(),
            parent: None,
        }
    }
}

/// The kind of an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
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

impl EventKind {
    /// All kinds, in the order they are listed to users.
    pub const ALL: [Self; 8] =
        [Self::Push, Self::Tag, Self::PullRequest, Self::Schedule, Self::Manual, Self::Api, Self::Build, Self::Command];

    /// The kind's name in pipelines and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Tag => "tag",
            Self::PullRequest => "pull_request",
            Self::Schedule => "schedule",
            Self::Manual => "manual",
            Self::Api => "api",
            Self::Build => "build",
            Self::Command => "command",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Whether the files that are built are those of the event's commit. Told to people only: what depends on files depends
/// on their contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checkout {
    /// They are, or there is no commit, or nobody looked.
    #[default]
    AsCommitted,
    /// A local build: some are changed, deleted, or not tracked (and not ignored).
    Changed,
}

impl Checkout {
    fn is_as_committed(&self) -> bool {
        *self == Self::AsCommitted
    }
}

/// How far the author of an event is trusted. Caches and secrets are scoped by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// A fork's pull request, until someone with the right approves that exact commit.
    Untrusted,
    /// Somebody who may push to the repository.
    #[default]
    Trusted,
}
