//! Jobs that a build leaves out, told together: `run --job` of a large pipeline leaves out hundreds.

use std::collections::BTreeMap;

use engine::Fact;
use engine::fact::{Ended, What};
use graph::{JobName, Outcome, SkipReason};

use crate::words;

/// What the engine says of a job that is none of those of `--job`.
const NOT_ASKED_FOR: &str = "the build did not ask for it";

/// Jobs left out that are not told yet, by why.
#[derive(Default)]
pub struct Unwanted {
    by_reason: BTreeMap<String, Vec<JobName>>,
}

/// The jobs that were left out for one reason.
pub struct LeftOut {
    /// The job, if it is one alone.
    pub job: Option<JobName>,
    /// How many and why, or why alone if it is one.
    pub text: String,
}

impl Unwanted {
    /// Takes in a fact; whether it only leaves out a job, and is to be told later.
    pub fn holds(&mut self, fact: &Fact) -> bool {
        let What::JobEnded { job, outcome: Outcome::Skipped(reason), how: Ended::Decided } = &fact.what else {
            return false;
        };
        let SkipReason::NotWanted { text } = reason else { return false };
        self.by_reason.entry(text.clone()).or_default().push(job.clone());
        true
    }

    /// What is held, told once.
    pub fn told(&mut self) -> Vec<LeftOut> {
        std::mem::take(&mut self.by_reason).into_iter().map(left_out).collect()
    }
}

fn left_out((reason, mut jobs): (String, Vec<JobName>)) -> LeftOut {
    let n_jobs = words::count(jobs.len(), "job");
    match (reason.as_str(), jobs.len()) {
        (_, 1) => LeftOut { job: jobs.pop(), text: reason },
        (NOT_ASKED_FOR, _) => LeftOut { job: None, text: format!("{n_jobs} not asked for") },
        _ => LeftOut { job: None, text: format!("{n_jobs} skipped: {reason}") },
    }
}
