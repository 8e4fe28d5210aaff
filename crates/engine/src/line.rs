//! Lines of jobs over all builds: concurrency groups, and operations that are under way.

use std::collections::BTreeSet;

use graph::{BuildId, Timestamp};

use crate::build::SlotIndex;

/// A job of some build.
pub(crate) type JobRef = (BuildId, SlotIndex);

/// A job's place among those that wait: when it was ready, its build's age, its slot.
pub(crate) type Arrival = (Timestamp, BuildId, SlotIndex);

/// A concurrency group: one job holds it from its first lease to its end, over all its tries.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Who holds it, by the facts: one job at most, except while facts are folded build by build.
    pub holders: BTreeSet<JobRef>,
    /// Who waits for it.
    pub waiting: BTreeSet<Arrival>,
    /// The one of them that stands in the queue for a worker.
    pub offered: Option<Arrival>,
}

/// An operation that some jobs want.
#[derive(Debug, Default)]
pub(crate) struct Operation {
    /// The one job that runs it, or is to.
    pub leader: Option<JobRef>,
    /// Jobs that have begun to, by the facts: one at most, except while facts are folded build by build, and after
    /// a retry by name.
    pub begun: BTreeSet<JobRef>,
    /// Those that wait for its result.
    pub followers: BTreeSet<Arrival>,
    /// A job that ran it to an end others may share.
    pub result: Option<JobRef>,
}

impl Group {
    pub fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.waiting.is_empty()
    }
}

impl Operation {
    pub fn is_idle(&self) -> bool {
        self.leader.is_none() && self.begun.is_empty() && self.followers.is_empty() && self.result.is_none()
    }
}
