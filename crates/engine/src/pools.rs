//! The pools in which would run what somebody is about to set going: known before it is, so that whoever may not use one of them can
//! be refused. It follows from the state, and nothing here changes that.

use std::collections::BTreeSet;

use graph::{BuildId, JobName, Outcome};

use crate::build::{Build, Slot, SlotIndex};
use crate::child::asks_for_build;
use crate::engine::Engine;
use crate::input::PoolReach;

/// What somebody is about to set going in a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetGoing {
    /// All that has not ended, before others.
    Everything,
    /// These jobs again, and what was skipped because of them.
    Again(BTreeSet<JobName>),
    /// What this gate holds back, and the gate itself.
    BehindGate(JobName),
}

/// In which pools something would run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolsUsed {
    /// Those of jobs that are known, as jobs name them: the default pool may have either of its names.
    pub named: BTreeSet<String>,
    /// Whether jobs that nobody knows yet may be of every pool: those of builds that jobs ask for, and those that the pipeline adds.
    pub unknown: PoolReach,
}

impl Engine {
    /// The pools in which would run what somebody is about to set going in a build; none of a build that is not held. Looks at all jobs
    /// of the build.
    #[must_use]
    pub fn pools_used(&self, id: BuildId, what: &SetGoing) -> PoolsUsed {
        let mut used = PoolsUsed { named: BTreeSet::new(), unknown: PoolReach::Own };
        let Some(build) = self.builds.get(&id) else { return used };
        let set_going = build.set_going(what);
        let runs = |slot: &&Slot| !slot.job.steps.is_empty() && !asks_for_build(build, slot);
        used.named =
            set_going.iter().map(|&index| build.slot(index)).filter(runs).map(|it| it.job.pool.clone()).collect();
        let is_growing = *what == SetGoing::Everything && build.is_pipeline_open();
        if is_growing || set_going.iter().any(|&index| build.brings_unknown(index)) {
            // What a build may name, those may that its jobs ask for.
            used.named.insert(build.request.options.pool.clone());
            used.unknown = build.request.options.pools;
        }
        used
    }
}

impl Build {
    /// The jobs that would run.
    fn set_going(&self, what: &SetGoing) -> BTreeSet<SlotIndex> {
        let all = 0..self.slots.len() as SlotIndex;
        let mut open: Vec<SlotIndex> = match what {
            SetGoing::Everything => return all.filter(|&index| self.is_to_begin(index)).collect(),
            SetGoing::BehindGate(gate) => self.index_of.get(gate).copied().into_iter().collect(),
            SetGoing::Again(jobs) => {
                let named = jobs.iter().filter_map(|job| self.index_of.get(job).copied());
                // A build that had stopped goes on with what it left out.
                let left_out = all.filter(|&index| self.halt.is_some() && self.slot(index).is_left_out());
                named.chain(left_out).filter(|&index| !self.has_passed(index)).collect()
            }
        };
        let is_skipped = |index| matches!(self.outcome(index), Some(Outcome::Skipped(_)));
        let is_again = matches!(what, SetGoing::Again(_));
        let mut found = BTreeSet::new();
        while let Some(index) = open.pop() {
            if found.insert(index) {
                let dependents = self.slot(index).dependents.iter().map(|&(dependent, _)| dependent);
                open.extend(dependents.filter(|&it| self.is_to_begin(it) || is_again && is_skipped(it)));
            }
        }
        found
    }

    fn outcome(&self, index: SlotIndex) -> Option<&Outcome> {
        self.slot(index).end.as_ref().map(|end| &end.outcome)
    }

    fn has_passed(&self, index: SlotIndex) -> bool {
        matches!(self.outcome(index), Some(Outcome::Passed { .. }))
    }

    /// Whether a job has not ended, and its build asked for it as far as is known.
    fn is_to_begin(&self, index: SlotIndex) -> bool {
        let Slot { flags, end, .. } = self.slot(index);
        let is_wanted = !flags.is_unwanted || flags.is_undecided;
        is_wanted && !flags.is_dropped && end.is_none()
    }

    /// Whether a job, or how it ends, sets going what nobody knows yet.
    fn brings_unknown(&self, index: SlotIndex) -> bool {
        let slot = self.slot(index);
        asks_for_build(self, slot) || slot.flags.is_asked && !self.is_outcome_answered(index)
    }

    /// Whether the pipeline may still say more.
    fn is_pipeline_open(&self) -> bool {
        self.verdict.is_none() && (self.is_evaluation_due() || self.open_questions().next().is_some())
    }
}
