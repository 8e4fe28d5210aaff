//! The event that a pipeline is evaluated for: data, and the only source of time and identity. It notes what is read of it.

use crate::data::{Data, DecodeError};
use crate::json::Json;
use crate::reads::{Reads, WHOLE};

/// The kind of an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// All kinds.
    pub const ALL: [Self; 8] =
        [Self::Push, Self::Tag, Self::PullRequest, Self::Schedule, Self::Manual, Self::Api, Self::Build, Self::Command];

    /// The kind's name in the native format.
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
}

/// What happened, and so why there is a build.
#[derive(Clone)]
pub struct Event {
    json: Json,
    reads: Reads,
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event").field("json", self.json()).finish()
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

impl Event {
    /// An event that notes in `reads` what is read of it.
    pub(crate) fn new(json: Json, reads: Reads) -> Self {
        Self { json, reads }
    }

    /// What is read of it.
    pub(crate) fn reads(&self) -> &Reads {
        &self.reads
    }

    fn part(&self, name: &str) -> Option<&Json> {
        self.reads.note(name);
        self.json.get(name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.part(name).and_then(Json::as_str).filter(|text| !text.is_empty())
    }

    /// The kind of happening. A kind that this SDK does not know is [`EventKind::Api`].
    #[must_use]
    pub fn kind(&self) -> EventKind {
        let name = self.text("kind").unwrap_or_default();
        EventKind::ALL.into_iter().find(|kind| kind.name() == name).unwrap_or(EventKind::Api)
    }

    /// The branch's short name (`main`); of a pull request, the branch that it comes from.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.text("branch")
    }

    /// The tag's short name (`v1.2`).
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.text("tag")
    }

    /// The commit to build, as a full object id; empty outside a repository.
    #[must_use]
    pub fn commit(&self) -> &str {
        self.text("commit").unwrap_or_default()
    }

    /// What changed files are found by comparison with: a branch or a commit.
    #[must_use]
    pub fn base(&self) -> Option<&str> {
        self.text("base")
    }

    /// The command that was asked for: `run --command NAME`.
    #[must_use]
    pub fn command(&self) -> Option<&str> {
        self.text("command")
    }

    /// The number of the pull request.
    #[must_use]
    pub fn pull_request(&self) -> Option<u64> {
        match self.part("pull_request") {
            Some(Json::Int(number)) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// Who caused it, as the code host authenticated them.
    #[must_use]
    pub fn actor(&self) -> &str {
        self.text("actor").unwrap_or_default()
    }

    /// The commit's message or the pull request's title. Text from outside.
    #[must_use]
    pub fn message(&self) -> &str {
        self.text("message").unwrap_or_default()
    }

    /// When it happened, in milliseconds since 1970. The only time there is in an evaluation.
    #[must_use]
    pub fn time_ms(&self) -> i64 {
        match self.part("time") {
            Some(Json::Int(time)) => i64::try_from(*time).unwrap_or_default(),
            _ => 0,
        }
    }

    /// The parameter of this name. One that was not given is read as `null`, so that an `Option<T>` is `None`.
    ///
    /// # Errors
    /// If the value has not the type's shape.
    pub fn param<T: Data>(&self, name: &str) -> Result<T, DecodeError> {
        self.reads.note(&format!("params.{name}"));
        let value = self.json.get("params").and_then(|params| params.get(name)).unwrap_or(&Json::Null);
        T::from_json(value).map_err(|error| error.in_field(name).in_field("params"))
    }

    /// The event as the binary gave it.
    #[must_use]
    pub fn json(&self) -> &Json {
        self.reads.note(WHOLE);
        &self.json
    }
}
