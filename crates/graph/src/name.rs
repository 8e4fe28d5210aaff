//! Identities. Each has a type of its own, so that one cannot be passed for another.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A job's full name: its id, or `id/value/…` for a leg of a matrix. Cheap to clone, ordered by bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobName(Arc<str>);

impl JobName {
    /// The longest name in bytes; a longer one is refused by [`crate::validate`].
    pub const BYTES_MAX: usize = 512;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id under which the pipeline wrote the job: what stands before the first `/`.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(id, _)| id)
    }

    /// The name of the leg among those of its matrix: what stands behind the first `/`. `None` if it is no leg.
    #[must_use]
    pub fn leg(&self) -> Option<&str> {
        self.0.split_once('/').map(|(_, leg)| leg)
    }

    /// Whether a job of this name is a mere barrier that lowering put between stages or at a `wait`: it has nothing to run
    /// and nothing to ask, no count of jobs counts it, and views leave it out. No job that a user names has a colon in its name.
    #[must_use]
    pub fn is_barrier(&self) -> bool {
        self.0.starts_with("stage:") || self.0.starts_with("wait:")
    }
}

impl From<&str> for JobName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for JobName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl Borrow<str> for JobName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// A build's number in its project, from 1, never used twice.
    BuildId(u64)
}
number! {
    /// The number of an attempt at a job within its build, from 1.
    AttemptNumber(u32)
}
number! {
    /// A lease's number: it only grows, so an old lease can be told from the one that replaced it (fencing).
    LeaseId(u64)
}

/// A worker's name, unique on a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub Arc<str>);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
