//! Projects: a name, settings, and the names of secrets. Values of secrets go in and never come out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::build::{Build, BuildBrief};
use crate::time::Time;

/// The longest value of a secret in bytes.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;
/// The most secrets of a project.
pub const SECRETS_MAX: usize = 1000;

/// The most tags of a project.
pub const TAGS_MAX: usize = 20;
/// The most builds of each project that a list of projects tells.
pub const LISTED_BUILDS_MAX: u32 = 30;
/// The most projects that a page of such a list has, and that are asked for by name.
pub const LISTED_WITH_BUILDS_MAX: u32 = 50;

/// What the name of a project has to match.
pub const NAME_PATTERN: &str = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$";
/// What the name of a secret has to match: a variable of the environment.
pub const SECRET_NAME_PATTERN: &str = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$";

/// Whether this may name a project ([`NAME_PATTERN`]).
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() <= 100
        && name.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter))
}

/// Whether this may name a secret ([`SECRET_NAME_PATTERN`]).
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.len() <= 100
        && name.bytes().next().is_some_and(|first| inner(first) && !first.is_ascii_digit())
        && name.bytes().all(inner)
}

/// A project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Project {
    /// Its name.
    #[schemars(regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// When it was made.
    pub created: Time,
    /// Its settings.
    pub settings: ProjectSettings,
    /// Its newest build, if builds were asked for (`builds`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Box<Build>>,
    /// As many of its newest builds as were asked for, that one among them, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builds: Vec<BuildBrief>,
}

/// The settings of a project. What is absent is the server's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectSettings {
    /// Shown to people.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1000))]
    pub description: String,
    /// The pool of jobs that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub pool: Option<String>,
    /// Whether a later build of a branch or pull request takes the place of earlier ones that have not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_cancel: Option<bool>,
    /// For how many days builds are kept; 0 is for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_days: Option<u32>,
    /// How many builds are kept at least, however old; `quota_bytes` may remove them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_builds: Option<u32>,
    /// The most bytes that logs and artifacts of the project may take before its oldest builds go, all but the newest; 0 is without bound. Caches
    /// are bounded for all projects together, by the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// The branch that matters most: that of the badge, and the one that others are compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub default_branch: Option<String>,
    /// Whether anybody may see the badge, without a token. No if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_badge: Option<bool>,
    /// Words by which projects are found together, as a team's name; each like the name of a project.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(regex(pattern = NAME_PATTERN)))]
    pub tags: Vec<String>,
}

/// A secret: its name alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// When its value was last set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Time>,
}

/// Sets a secret's value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretValue {
    /// The value.
    #[schemars(length(min = 1, max = 65536))]
    pub value: String,
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretValue(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_the_schema_says() {
        for (name, is_good) in
            [("web", true), ("a.b-c_d", true), ("", false), (".hidden", false), ("a/b", false), ("ä", false)]
        {
            assert_eq!(is_name(name), is_good, "{name}");
        }
        assert!(!is_name(&"a".repeat(101)));
        for (name, is_good) in [("TOKEN", true), ("_x1", true), ("1x", false), ("", false), ("A-B", false)] {
            assert_eq!(is_secret_name(name), is_good, "{name}");
        }
    }
}
