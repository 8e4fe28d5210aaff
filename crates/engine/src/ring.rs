//! Waits that would go in a ring: a job waits for its concurrency group or for an equal operation, and who has it waits, over
//! builds that jobs asked for, for that very job. Nobody of them would ever end.
//!
//! It is looked for where a wait begins: the last wait of a ring to begin closes it. Who waits for an equal operation can do
//! without, so it runs its own; who waits for a group cannot, so it is refused. All of it follows from the state.

use std::collections::BTreeSet;

use graph::{BuildId, ConcurrencyMode, JobName};

use crate::build::{OperationState, Place};
use crate::engine::Engine;
use crate::line::{GroupKey, JobRef};

/// The most jobs of which it is asked for whom they wait before a wait begins. A ring that is not found by then waits until somebody
/// cancels one of its builds.
pub const LOOKED_AT_MAX: usize = 100_000;

/// Which waits count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counting {
    /// All.
    All,
    /// Those that nobody can do without.
    WithoutFollowing,
}

/// What a look at waits has found.
struct Found {
    /// Whether one of them is a wait for the job.
    leads_back: bool,
    /// Who waits for an equal operation, of those looked at.
    following: Vec<JobRef>,
}

/// How a job that holds a group waits for one that wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// It asked for the build of that job, or for one above it.
    Above,
    /// What it waits for waits in turn for that job.
    InRing,
}

/// Why a job may not wait for the group of this name, which this job holds.
#[must_use]
pub fn why_refused(group: &str, (build, job): (BuildId, &JobName), holding: Holding) -> String {
    let (waits, advice) = match holding {
        Holding::Above => ("waits for this build", "name the group in one of them"),
        Holding::InRing => {
            ("waits in turn, for other groups, for this build", "let all builds enter the groups in one order")
        }
    };
    format!("the group `{group}` is held by job `{job}` of build {build}, which {waits}: {advice}")
}

impl Engine {
    /// Who holds a group and waits, itself or by others, for a job that wants it. A job that cancels who holds its group waits for
    /// nobody but those above it, who would be canceled with it.
    pub(crate) fn holder_behind(&self, job: JobRef, group: &GroupKey, mode: ConcurrencyMode) -> Option<JobRef> {
        if let Some(holder) = self.holder_above(job.0, group) {
            return Some(holder);
        }
        let holders = &self.groups.get(group).filter(|_| mode != ConcurrencyMode::CancelRunning)?.holders;
        let is_behind = |holder: &JobRef| self.look_behind(*holder, job, Counting::WithoutFollowing).leads_back;
        holders.iter().copied().find(is_behind)
    }

    /// Why a job may not wait for its group, which this job holds.
    pub(crate) fn why_refused(&self, job: JobRef, group: &GroupKey, holder: JobRef) -> String {
        let holding = match self.holder_above(job.0, group) == Some(holder) {
            true => Holding::Above,
            false => Holding::InRing,
        };
        why_refused(&group.name, (holder.0, &self.slot(holder).name), holding)
    }

    /// Whether a job may wait for another that runs an equal operation: that one does not wait for it.
    pub(crate) fn may_follow(&self, job: JobRef, leader: JobRef) -> bool {
        !self.look_behind(leader, job, Counting::All).leads_back
    }

    /// A job has begun to wait for its group. If that closes a ring, who waits in it for an equal operation decides anew.
    pub(crate) fn break_ring(&mut self, job: JobRef) {
        let Found { leads_back, following } = self.look_behind(job, job, Counting::All);
        for follower in following.into_iter().filter(|_| leads_back) {
            self.leave_lines(follower);
            self.consider(follower);
        }
    }

    /// Who runs the operation of a job, or is to.
    pub(crate) fn leader_of(&self, job: JobRef) -> Option<JobRef> {
        let OperationState::Known(digest) = self.slot(job).operation else { return None };
        self.operations.get(&self.operation_key(job.0, digest))?.leader
    }

    /// For whom `from` waits, for whom those wait, and so on: whether it comes to `job`.
    fn look_behind(&self, from: JobRef, job: JobRef, counting: Counting) -> Found {
        let mut found = Found { leads_back: false, following: Vec::new() };
        let mut seen = BTreeSet::from([from]);
        let mut open = vec![from];
        let mut n_looked_at = 0;
        while let Some(waiting) = open.pop() {
            let slot = self.slot(waiting);
            if let Some(child) = &slot.child {
                // Its job waits for all of the child's.
                found.leads_back |= child.build == job.0;
                let Some(build) = self.builds.get(&child.build).filter(|build| build.verdict.is_none()) else {
                    continue;
                };
                n_looked_at += build.slots.len();
                let waiting = (0..).zip(&build.slots).filter(|(_, slot)| {
                    let is_waiting = slot.child.is_some() || matches!(slot.place, Place::Following | Place::Grouped);
                    is_waiting && slot.end.is_none()
                });
                open.extend(waiting.map(|(index, _)| (child.build, index)).filter(|&waiting| seen.insert(waiting)));
            } else if slot.place == Place::Following && counting == Counting::All {
                found.following.push(waiting);
                let leader = self.leader_of(waiting);
                found.leads_back |= leader == Some(job);
                open.extend(leader.filter(|&leader| seen.insert(leader)));
            } else if slot.place == Place::Grouped {
                let holders = slot.group.as_ref().and_then(|group| self.groups.get(group)).map(|group| &group.holders);
                let holders = holders.into_iter().flatten().copied();
                found.leads_back |= holders.clone().any(|holder| holder == job);
                open.extend(holders.filter(|&holder| seen.insert(holder)));
            }
            n_looked_at += 1;
            if n_looked_at > LOOKED_AT_MAX {
                break;
            }
        }
        found
    }
}
