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
    /// Who holds it, by the facts.
    pub holder: Option<JobRef>,
    /// Who waits for it.
    pub waiting: BTreeSet<Arrival>,
    /// The one of them that stands in the queue for a worker.
    pub offered: Option<Arrival>,
}

/// An operation that some jobs want.
#[derive(Debug, Default)]
pub(crate) struct Operation {
    /// The one job that runs it.
    pub leader: Option<JobRef>,
    /// Those that wait for its result.
    pub followers: BTreeSet<Arrival>,
    /// A job that ran it to an end others may share.
    pub result: Option<JobRef>,
}

impl Group {
    pub fn is_idle(&self) -> bool {
        self.holder.is_none() && self.waiting.is_empty()
    }
}

impl Operation {
    pub fn is_idle(&self) -> bool {
        self.leader.is_none() && self.followers.is_empty() && self.result.is_none()
    }
}
