//! Members: people who sign in to look at pages and work with builds, by a role on the server or on single projects.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// What a member may do, on what the role is held on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look: `read`.
    Reader,
    /// Also build, cancel, retry, answer gates, open shells: `submit`, `control`, `shell`.
    Developer,
    /// Everything, members among it: `admin`.
    Administrator,
}

impl Role {
    /// All, the least first.
    pub const ALL: [Self; 3] = [Self::Reader, Self::Developer, Self::Administrator];

    /// Its name, as it travels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Developer => "developer",
            Self::Administrator => "administrator",
        }
    }
}

/// A member, as far as whoever asks administers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// The person's name: who stands in the audit, at gates and with builds.
    pub name: String,
    /// The role on the server as a whole, and so on every project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The roles on single projects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub projects: BTreeMap<String, Role>,
    /// When the member was added.
    pub created: Time,
    /// Who added them.
    pub by: String,
    /// By how many sessions they have signed in; one that has ended by itself counts until it is replaced.
    pub sessions: u32,
    /// Until when an unused link is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_until: Option<Time>,
}

/// Adds a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMember {
    /// The person's name: a letter or digit first, no control character.
    #[schemars(length(min = 1, max = 100))]
    pub name: String,
    /// The role.
    pub role: Role,
    /// The project on which; absent for the server as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub project: Option<String>,
}

/// Gives a member another role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRole {
    /// The role.
    pub role: Role,
    /// The project on which; absent for the server as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub project: Option<String>,
}

/// Which roles are taken from a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken<'a> {
    /// All, and so the member.
    All,
    /// The one on every project; those on single projects stay.
    Everywhere,
    /// The one on this project.
    Project(&'a str),
}

/// The way to sign in, shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Invitation {
    /// The member.
    pub member: Member,
    /// A path of this server: whoever opens it first is signed in as the member.
    pub link: String,
    /// Until when.
    pub expires: Time,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation")
            .field("member", &self.member)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Signs in by a link.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// What the link holds.
    #[schemars(length(min = 1, max = 1000))]
    pub link: String,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Join(hidden)")
    }
}
