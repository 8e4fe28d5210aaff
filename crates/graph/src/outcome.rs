//! How a job and a build end. One table (`docs/design/2026-11-23-outcomes.md`), tested as properties.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::{Graph, Job};
use crate::name::JobName;
use crate::need::Ending;
use crate::time::Timestamp;

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Every step that had to pass has passed.
    Passed {
        /// The values it hands on.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        outputs: BTreeMap<String, Value>,
    },
    /// It did not pass.
    Failed(Failure),
    /// It did not run.
    Skipped(SkipReason),
}

/// The most bytes that are kept of what a function said of its failure; what is longer is cut.
pub const FAILURE_BYTES_MAX: usize = 4096;

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Failure {
    /// A step ended with a status other than zero.
    Step {
        /// The step's index in its job, from 0.
        step: u16,
        /// The exit code, or 128 + the signal's number.
        exit: i32,
        /// What the exit code does not say: the words of a function of the pipeline's program that failed, or what the job broke
        /// though its script said nothing, such as an artifact that is not there. At most [`FAILURE_BYTES_MAX`] bytes, without
        /// secrets. Not there in what older versions wrote, which pass over it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// Time ran out: the step's if `step` is given, else the job's.
    Timeout {
        /// The step that was running.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<u16>,
        /// The limit that was reached, in milliseconds.
        limit_ms: u64,
    },
    /// Not the job's fault: disk full, no such shell, no such image.
    Infra {
        /// What happened, for people.
        message: String,
    },
    /// What the job asks for was not set up: a secret without a value. Trying again would not help.
    Setup {
        /// What is missing and what sets it, for people.
        message: String,
    },
    /// Its worker fell silent.
    Lost,
    /// Somebody canceled it.
    Canceled {
        /// Who or what canceled it.
        by: String,
    },
}

impl Failure {
    /// The name of the kind, as in `retry: { on: [...] }`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Step { .. } => "step",
            Self::Timeout { .. } => "timeout",
            Self::Infra { .. } => "infra",
            Self::Setup { .. } => "setup",
            Self::Lost => "lost",
            Self::Canceled { .. } => "canceled",
        }
    }

    /// The step that failed, from 0, if it was one.
    #[must_use]
    pub fn step(&self) -> Option<u16> {
        match self {
            Self::Step { step, .. } => Some(*step),
            Self::Timeout { step, .. } => *step,
            Self::Infra { .. } | Self::Setup { .. } | Self::Lost | Self::Canceled { .. } => None,
        }
    }
}

/// Why a job did not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum SkipReason {
    /// Its `when` or `if` does not hold.
    Condition {
        /// The condition as written.
        text: String,
    },
    /// A job it needs ended in a way the need does not accept.
    Need {
        /// That job; the smallest name if there are several.
        because: JobName,
    },
    /// The build did not ask for it (`--job`), or stopped at the first failure (`--fail-fast`).
    NotWanted {
        /// Why, for people.
        text: String,
    },
    /// An evaluation no longer holds it.
    Dropped,
    /// A person said no at its gate. Builds of before 2026-11-22 have it as `refused`.
    #[serde(alias = "refused")]
    Rejected {
        /// Who.
        by: String,
    },
}

impl SkipReason {
    /// The word for it, as in JSON.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Condition { .. } => "condition",
            Self::Need { .. } => "need",
            Self::NotWanted { .. } => "not_wanted",
            Self::Dropped => "dropped",
            Self::Rejected { .. } => "rejected",
        }
    }
}

impl Outcome {
    /// Passed with nothing to hand on.
    #[must_use]
    pub fn passed() -> Self {
        Self::Passed { outputs: BTreeMap::new() }
    }

    /// The word for people and JSON: `passed`, `failed`, `skipped` or `canceled`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed { .. } => "passed",
            Self::Failed(Failure::Canceled { .. }) => "canceled",
            Self::Failed(_) => "failed",
            Self::Skipped(_) => "skipped",
        }
    }

    /// Whether somebody or something ended it before it could.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        matches!(self, Self::Failed(Failure::Canceled { .. }))
    }
}

/// How a build ended, or that it has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// A job has not ended, or the graph still grows.
    Running,
    /// Every required job passed or was skipped.
    Passed {
        /// Set when the build had no jobs: it is never green by mistake in silence.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// A required job failed.
    Failed {
        /// That job; the first of several. `None` if the pipeline itself is wrong.
        because: Option<JobName>,
    },
    /// Somebody canceled it.
    Canceled {
        /// Who or what.
        by: String,
    },
    /// An evaluation changed or dropped a job that had begun.
    Diverged {
        /// The job.
        job: JobName,
    },
}

impl Verdict {
    /// The word for people and JSON.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Passed { .. } => "passed",
            Self::Failed { .. } => "failed",
            Self::Canceled { .. } => "canceled",
            Self::Diverged { .. } => "diverged",
        }
    }
}

/// How a job ended, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JobEnd<'a> {
    /// The job.
    pub name: &'a JobName,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// When.
    pub at: Timestamp,
}

/// The verdict over a graph's jobs by the outcome table: Failed if a required job failed (at once, while others
/// still run), because of the [first](`failures`) that did; else Running if one has not ended; else Passed. No jobs: Passed with a note.
pub fn verdict<'a>(graph: &'a Graph, end_of: impl Fn(&JobName) -> Option<(&'a Outcome, Timestamp)>) -> Verdict {
    if graph.jobs.is_empty() && graph.holes.is_empty() {
        return Verdict::Passed { note: Some("nothing to do".to_owned()) };
    }
    let mut running = !graph.holes.is_empty();
    let mut first = None;
    for (name, job) in &graph.jobs {
        let Some((outcome, at)) = end_of(name) else {
            running = true;
            continue;
        };
        if fails_build(job, outcome) {
            let rank = (outcome.is_canceled(), at, job.order, name);
            first = Some(first.map_or(rank, |earlier| rank.min(earlier)));
        }
    }
    match first {
        Some((.., name)) => Verdict::Failed { because: Some(name.clone()) },
        None if running => Verdict::Running,
        None => Verdict::Passed { note: None },
    }
}

/// The jobs that failed by themselves, in the order in which people look at them: those that make the build fail before those whose failure
/// is allowed, each by when they ended, then in the pipeline's order.
#[must_use]
pub fn failures<'a>(graph: Option<&Graph>, ends: impl IntoIterator<Item = JobEnd<'a>>) -> Vec<JobEnd<'a>> {
    let failed = |end: &JobEnd| matches!(end.outcome, Outcome::Failed(_)) && !end.outcome.is_canceled();
    let mut failures: Vec<_> = ends.into_iter().filter(failed).collect();
    failures.sort_by_key(|end| {
        let job = graph.and_then(|graph| graph.jobs.get(end.name));
        let is_allowed = job.is_some_and(|job| !fails_build(job, end.outcome));
        (is_allowed, end.at, job.map_or(u32::MAX, |job| job.order), end.name)
    });
    failures
}

/// Whether a job that ended so makes its build fail.
#[must_use]
pub fn fails_build(job: &Job, outcome: &Outcome) -> bool {
    matches!(Ending::of(outcome, job.toleration()), Ending::Failed | Ending::Errored | Ending::Canceled)
}

/// Whether the result of an operation may be handed to others: Ok always; Failed{step} within its build;
/// time-outs, infra, lost and canceled never.
#[must_use]
pub fn is_reusable(outcome: &Outcome, scope: Scope) -> bool {
    match outcome {
        Outcome::Passed { .. } => true,
        Outcome::Failed(Failure::Step { .. }) => scope == Scope::SameBuild,
        Outcome::Failed(_) | Outcome::Skipped(_) => false,
    }
}

/// Who would reuse a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A job of the same build.
    SameBuild,
    /// A job of another build.
    OtherBuild,
}
