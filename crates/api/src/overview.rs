//! A project at a glance: how its branches, pull requests and tags stand, and how long its builds take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::build::Build;
use crate::event::EventWord;
use crate::project::Project;

/// Of how many of a project's newest builds an overview is made.
pub const OVERVIEW_BUILDS: u32 = 200;

/// What the newest builds of a project say together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Overview {
    /// The project.
    pub project: Project,
    /// The branch that matters most: as the settings say, else `main` or `master`, else the one that was built most;
    /// absent if no branch was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_branch: Option<String>,
    /// Of how many builds this is made, at most 200; those that the token may not see are not among them.
    pub builds: u64,
    /// Whether the project has older builds too.
    pub has_older: bool,
    /// How many of these were asked for in the last seven days.
    pub last_week: u64,
    /// How those that ended did.
    pub figures: Figures,
    /// The branches, pull requests and tags that were built, the one built last first.
    pub refs: Vec<RefState>,
}

/// How one branch, pull request or tag stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RefState {
    /// What it is.
    pub kind: RefKind,
    /// The short name of a branch or tag, the number of a pull request; empty for what is none of them.
    pub name: String,
    /// Its newest build.
    pub last: Build,
    /// How many of the builds looked at are its own.
    pub builds: u64,
    /// How those that ended did.
    pub figures: Figures,
}

/// What builds are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefKind {
    /// A pull request.
    PullRequest,
    /// A branch.
    Branch,
    /// A tag.
    Tag,
    /// None of these: files as somebody sent them.
    Other,
}

impl RefKind {
    /// What a build of this event is of, with its name: the number of a pull request, or the branch it comes from if that
    /// is not said; the short name of a tag or branch; nothing for what is none of these.
    #[must_use]
    pub fn of(kind: EventWord, pull_request: Option<u64>, tag: Option<&str>, branch: Option<&str>) -> (Self, String) {
        match (kind, pull_request, tag, branch) {
            // A build that a job of one asked for is one of it, too.
            (_, Some(number), _, _) => (Self::PullRequest, number.to_string()),
            (EventWord::PullRequest, None, _, Some(branch)) => (Self::PullRequest, branch.to_owned()),
            (EventWord::Tag, _, Some(tag), _) | (_, _, Some(tag), None) => (Self::Tag, tag.to_owned()),
            (_, _, _, Some(branch)) => (Self::Branch, branch.to_owned()),
            _ => (Self::Other, String::new()),
        }
    }

    /// The word, as it travels.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::PullRequest => "pull_request",
            Self::Branch => "branch",
            Self::Tag => "tag",
            Self::Other => "other",
        }
    }
}

/// How builds did that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Figures {
    /// How many ended.
    pub ended: u64,
    /// Of these, how many passed.
    pub passed: u64,
    /// Of these, how many failed or diverged.
    pub failed: u64,
    /// The median of how long those took that passed, from the first lease to the end, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<u64>,
    /// What 95 of 100 of these did not exceed, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95_ms: Option<u64>,
}
