//! Lines of jobs over all builds: concurrency groups, and operations that are under way.

use std::collections::BTreeSet;
use std::sync::Arc;

use graph::{BuildId, Digest, Timestamp, Trust};

use crate::build::SlotIndex;

/// A job of some build.
pub(crate) type JobRef = (BuildId, SlotIndex);

/// A job's place among those that wait: when it was ready, its build's age, its slot.
pub(crate) type Arrival = (Timestamp, BuildId, SlotIndex);

/// What names a concurrency group: builds of one project and one trust share it. So nobody without a right on a project holds or
/// cancels its jobs, neither from another project nor from a fork.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupKey {
    pub project: Arc<str>,
    pub trust: Trust,
    /// As the pipeline says it.
    pub name: Arc<str>,
}

/// What names an operation that is under way or has ended here: builds of one project and one trust share it. A trusted build neither
/// waits for nor takes what an untrusted one runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OperationKey {
    /// The digest tells it too, but for those that an earlier version worked out.
    pub project: Arc<str>,
    pub trust: Trust,
    pub digest: Digest,
}

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
    /// When its results were evicted last: what had ended by then is shared no more.
    pub evicted: Option<Timestamp>,
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
