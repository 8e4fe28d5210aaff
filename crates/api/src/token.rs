//! Tokens: grants that their holders can narrow. A token's text is shown once, where it is made.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// What a token lets its holder do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Look: builds, jobs, logs, artifacts, pools, workers.
    Read,
    /// Ask for builds, and send the files that they are built from.
    Submit,
    /// Cancel, retry, answer gates, hold pools.
    Control,
    /// Open shells in what steps left.
    Shell,
    /// Be a worker.
    Work,
    /// Everything: projects, secrets, tokens, workers, the audit.
    Admin,
}

/// How many verbs there are.
const VERBS: usize = Verb::Admin as usize + 1;

impl Verb {
    /// The verb's name, as it travels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Control => "control",
            Self::Shell => "shell",
            Self::Work => "work",
            Self::Admin => "admin",
        }
    }
}

/// A token that was made here. Its text is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// Names it.
    pub id: String,
    /// What it grants.
    pub grant: Grant,
    /// Whether a member has signed in by it; it grants what the member's roles do, nothing once the member is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_session: bool,
    /// When it was made.
    pub created: Time,
    /// Who made it.
    pub by: String,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Time>,
    /// Who revoked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<String>,
}

/// What a token grants, to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// What its holder is.
    pub kind: HolderKind,
    /// Its holder's name: who stands in the audit, and whom the queue charges.
    #[schemars(length(min = 1, max = 100))]
    pub name: String,
    /// The verbs that it grants; at least one, but in a session of a member who is gone.
    #[schemars(length(max = VERBS))]
    pub verbs: BTreeSet<Verb>,
    /// The projects on which; absent for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub projects: Option<BTreeSet<String>>,
    /// The pools on which; absent for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub pools: Option<BTreeSet<String>>,
    /// Until when; absent for as long as it is not revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
}

/// What the holder of a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HolderKind {
    /// A person.
    Person,
    /// A program that asks for builds.
    Client,
    /// A worker.
    Worker,
}

/// A token's text, shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// Names it.
    pub id: String,
    /// What is sent as `Authorization: Bearer`.
    pub token: String,
}

impl std::fmt::Debug for Created {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Created").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Who a call comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Whoami {
    /// The token's id.
    pub token: String,
    /// What it granted before it was narrowed.
    pub grant: Grant,
}

/// What a token is narrowed to; what is empty or absent limits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Narrow {
    /// To these verbs.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub verbs: BTreeSet<Verb>,
    /// To these projects.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 100))]
    pub projects: BTreeSet<String>,
    /// To these pools, where a call is about a pool.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 100))]
    pub pools: BTreeSet<String>,
    /// To the time before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
}

/// A token's text, to be looked into.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenText {
    /// The text.
    #[schemars(length(min = 1, max = 16384))]
    pub token: String,
}

impl std::fmt::Debug for TokenText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenText(hidden)")
    }
}

/// What a token's text says, and whether it holds here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Inspected {
    /// The token's id.
    pub id: String,
    /// Whether this server takes it now; empty if it does, else why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub refused: String,
    /// What it says of itself, by name: holder, verbs, projects.
    pub grants: std::collections::BTreeMap<String, Vec<String>>,
    /// The limits that it was made with, in words.
    pub limits: Vec<String>,
    /// The limits that its holders added, one list for each narrowing, in words.
    pub narrowed: Vec<Vec<String>>,
}

/// What runs here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// The version of the server.
    pub version: String,
    /// The version of the conversation with workers that it speaks ([`crate::worker::PROTOCOL`]).
    pub worker_protocol: u32,
}

/// How a server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// How.
    pub status: HealthStatus,
    /// Why it is not well, or not ready, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// How a server is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It is well and does its work.
    Ok,
    /// It is well and does not lead: it answers reads.
    Standby,
    /// It does not do its work: it starts, ends, or has failed.
    Unavailable,
}

/// Makes the first administrator.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// What the link that the first start printed holds.
    #[schemars(length(min = 1, max = 1000))]
    pub token: String,
    /// The administrator's name.
    #[schemars(length(min = 1, max = 100))]
    pub name: String,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("name", &self.name).finish_non_exhaustive()
    }
}
