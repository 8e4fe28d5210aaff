//! What can be done, and on what.

use std::fmt;

use graph::BuildId;
use serde::{Deserialize, Serialize};

use crate::records::DEFAULT_POOL;

/// What a token lets its holder do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Look at builds, logs, artifacts, queues.
    Read,
    /// Ask for builds.
    Submit,
    /// Cancel, retry, urge, answer gates, hold pools, put tests into quarantine.
    Control,
    /// Open shells in what steps left.
    Shell,
    /// Take jobs and report what became of them.
    Work,
    /// Everything, tokens, workers, secrets and settings among it.
    Admin,
}

impl Verb {
    /// All verbs, in the order they are listed to users.
    pub const ALL: [Self; 6] = [Self::Read, Self::Submit, Self::Control, Self::Shell, Self::Work, Self::Admin];

    /// Its name in tokens, in the API and on the command line.
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

    /// The verb of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name() == name)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a verb is used on. What a request is not about stays empty; a token that is narrowed to a project or a build is
/// refused where the request is about none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target<'a> {
    /// The project's name.
    pub project: Option<&'a str>,
    /// The pool's name.
    pub pool: Option<&'a str>,
    /// The build.
    pub build: Option<BuildId>,
}

impl<'a> Target<'a> {
    /// The server as a whole.
    pub const SERVER: Self = Self { project: None, pool: None, build: None };

    /// A project.
    #[must_use]
    pub fn project(project: &'a str) -> Self {
        Self { project: Some(project), ..Self::SERVER }
    }

    /// A build of a project.
    #[must_use]
    pub fn build(project: &'a str, build: BuildId) -> Self {
        Self { project: Some(project), build: Some(build), ..Self::SERVER }
    }

    /// A pool.
    #[must_use]
    pub fn pool(pool: &'a str) -> Self {
        Self { pool: Some(pool), ..Self::SERVER }
    }
}

/// The name by which checks know a pool: jobs and workers may leave that of the default pool out.
#[must_use]
pub fn pool_name(pool: &str) -> &str {
    if pool.is_empty() { DEFAULT_POOL } else { pool }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.project.map(|project| format!("project {project}")),
            self.pool.map(|pool| if pool.is_empty() { "the default pool".to_owned() } else { format!("pool {pool}") }),
            self.build.map(|build| format!("build {build}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { f.write_str("this server") } else { f.write_str(&parts.join(", ")) }
    }
}
