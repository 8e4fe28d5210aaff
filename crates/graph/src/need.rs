//! Edges: what a job waits for, and which endings of it are acceptable.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name::JobName;
use crate::outcome::{Failure, Outcome};

/// One edge of the graph. `success`, `failure` and `finished` are names for common values of it; other tools'
/// semantics lower onto it without loss (GitLab: `needs`, stages; Buildkite: `wait`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Need {
    /// The job waited for.
    pub job: JobName,
    /// The endings that satisfy the need.
    pub accepts: Accepts,
    /// Whether one unacceptable ending skips the dependent at once, while its other needs still run.
    #[serde(default, skip_serializing_if = "is_false")]
    pub eager_skip: bool,
    /// Whether the need vanishes when no job has that name.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
    /// What comes along the edge.
    #[serde(default, skip_serializing_if = "Carries::is_order")]
    pub carries: Carries,
}

impl Need {
    /// `on: success`: the job must have passed; its outputs and artifacts come along.
    #[must_use]
    pub fn success(job: impl Into<JobName>) -> Self {
        Self::new(job, Accepts::SUCCESS, Carries::Artifacts)
    }

    /// `on: failure`: ready if and only if the job failed by a step or a time-out.
    #[must_use]
    pub fn failure(job: impl Into<JobName>) -> Self {
        Self::new(job, Accepts::FAILURE, Carries::Artifacts)
    }

    /// `on: finished`: ready when the job has ended, whatever its outcome.
    #[must_use]
    pub fn finished(job: impl Into<JobName>) -> Self {
        Self::new(job, Accepts::FINISHED, Carries::Artifacts)
    }

    /// A barrier (`wait`, a stage): order only; a skipped job satisfies it.
    #[must_use]
    pub fn barrier(job: impl Into<JobName>) -> Self {
        Self::new(job, Accepts::BARRIER, Carries::Order)
    }

    /// A need that accepts `accepts` and carries `carries`.
    #[must_use]
    pub fn new(job: impl Into<JobName>, accepts: Accepts, carries: Carries) -> Self {
        Self { job: job.into(), accepts, eager_skip: false, optional: false, carries }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// What comes along an edge, each kind with what stands before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carries {
    /// Nothing but order.
    #[default]
    Order,
    /// Output values.
    Outputs,
    /// Output values and the files of the artifacts.
    Artifacts,
}

impl Carries {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
    fn is_order(&self) -> bool {
        *self == Self::Order
    }
}

/// How a job ended, as an edge sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Ending {
    /// It passed.
    Passed = 1,
    /// It failed, and `allow_failure` covers that.
    PassedWithWarnings = 2,
    /// A step failed or time ran out.
    Failed = 4,
    /// The infrastructure failed it, or its worker was lost, and no retry was left.
    Errored = 8,
    /// Somebody canceled it.
    Canceled = 16,
    /// It did not run.
    Skipped = 32,
}

impl Ending {
    /// All endings, best first.
    pub const ALL: [Self; 6] =
        [Self::Passed, Self::PassedWithWarnings, Self::Failed, Self::Errored, Self::Canceled, Self::Skipped];

    /// The ending's name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::PassedWithWarnings => "passed_with_warnings",
            Self::Failed => "failed",
            Self::Errored => "errored",
            Self::Canceled => "canceled",
            Self::Skipped => "skipped",
        }
    }

    /// How `outcome` looks to an edge. `None` while the job has not ended.
    #[must_use]
    pub fn of(outcome: &Outcome, toleration: crate::job::Toleration) -> Self {
        match outcome {
            Outcome::Passed { .. } => Self::Passed,
            Outcome::Skipped(_) => Self::Skipped,
            Outcome::Failed(failure) if toleration.covers(failure) => Self::PassedWithWarnings,
            Outcome::Failed(Failure::Step { .. } | Failure::Timeout { .. }) => Self::Failed,
            Outcome::Failed(Failure::Infra { .. } | Failure::Setup { .. } | Failure::Lost) => Self::Errored,
            Outcome::Failed(Failure::Canceled { .. }) => Self::Canceled,
        }
    }
}

/// A set of [`Ending`]s. On the wire a list of their names, best first.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Accepts(u8);

impl Accepts {
    /// Passed, with or without warnings.
    pub const SUCCESS: Self = Self(Ending::Passed as u8 | Ending::PassedWithWarnings as u8);
    /// Failed by a step or a time-out.
    pub const FAILURE: Self = Self(Ending::Failed as u8);
    /// Any ending.
    pub const FINISHED: Self = Self(63);
    /// What satisfies pure order: passed or skipped.
    pub const BARRIER: Self = Self(Self::SUCCESS.0 | Ending::Skipped as u8);

    /// The set of these endings.
    #[must_use]
    pub fn of(endings: &[Ending]) -> Self {
        Self(endings.iter().fold(0, |set, &ending| set | ending as u8))
    }

    /// Whether the set holds `ending`.
    #[must_use]
    pub fn holds(self, ending: Ending) -> bool {
        self.0 & ending as u8 != 0
    }

    /// The endings in the set, best first.
    pub fn endings(self) -> impl Iterator<Item = Ending> {
        Ending::ALL.into_iter().filter(move |&ending| self.holds(ending))
    }
}

impl fmt::Debug for Accepts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.endings()).finish()
    }
}

impl Serialize for Accepts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.endings().map(Ending::name))
    }
}

impl<'de> Deserialize<'de> for Accepts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names.iter().try_fold(Self(0), |set, name| {
            Ending::ALL
                .into_iter()
                .find(|ending| ending.name() == name)
                .map(|ending| Self(set.0 | ending as u8))
                .ok_or_else(|| serde::de::Error::custom(format!("`{name}` is no ending of a job")))
        })
    }
}
