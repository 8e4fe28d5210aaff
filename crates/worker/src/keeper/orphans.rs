//! Whose the orphans are: the processes that outlived their parent and came to the keeper.
//!
//! An orphan's owner is found out when it is first seen, and kept until it is gone: what it does to its environment or its
//! session later changes nothing. One that tells nothing of itself may belong to every attempt that had a process just then,
//! and is known as theirs until all of them but one have ended. Nothing here sends a signal.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::view::OpenView;
use super::{MARKER_VARIABLE, tree};

/// A step that runs, or that has ended and whose attempt has not: orphans may be its.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Of its attempt.
    pub marker: Vec<u8>,
    /// The direct child's process id.
    pub session: i32,
    /// Zero is none.
    pub view: u64,
}

/// The orphans that were seen, and whose they are.
#[derive(Debug, Default)]
pub struct Orphans {
    seen: BTreeMap<i32, Orphan>,
    /// Steps that ended while there were orphans, of attempts that are not told to have ended. A step that ended while there
    /// were none has left nothing.
    ended: Vec<Trace>,
}

#[derive(Clone, Debug)]
struct Orphan {
    session: i32,
    /// The attempts that it may belong to.
    owners: Vec<Vec<u8>>,
}

impl Orphans {
    /// Whether there are none, as far as was seen.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// There are none at all, so no step that has ended can have left one.
    pub fn none_left(&mut self) {
        self.seen.clear();
        self.ended.clear();
    }

    /// A step has ended while there are orphans.
    pub fn step_ended(&mut self, step: Trace) {
        self.ended.push(step);
    }

    /// An attempt has ended, and all that is surely its is dead.
    pub fn attempt_ended(&mut self, marker: &[u8]) {
        self.ended.retain(|step| step.marker != marker);
        for orphan in self.seen.values_mut() {
            orphan.owners.retain(|owner| owner != marker);
        }
    }

    /// Finds out whose those are that were not seen yet. `pids` are all that there are.
    pub fn look(&mut self, pids: &[i32], running: Vec<Trace>, views: &HashMap<u64, OpenView>) {
        let steps: Vec<&Trace> = running.iter().chain(&self.ended).collect();
        let unseen = pids.iter().filter(|pid| !self.seen.contains_key(pid));
        let found: Vec<(i32, Orphan)> = unseen
            .map(|pid| {
                let session = session_of(*pid);
                (*pid, Orphan { session, owners: self.owners(*pid, session, &steps, views) })
            })
            .collect();
        self.seen.extend(found);
        // Only now: what a dead one has left was known by it.
        let all: HashSet<i32> = pids.iter().copied().collect();
        self.seen.retain(|pid, _| all.contains(pid));
    }

    /// Those of `pids` that belong to this attempt and can belong to no other.
    pub fn of(&self, marker: &[u8], mut pids: Vec<i32>) -> Vec<i32> {
        pids.retain(|pid| self.seen.get(pid).is_some_and(|orphan| orphan.owners.iter().all(|owner| owner == marker)));
        pids
    }

    fn owners(&self, pid: i32, session: i32, steps: &[&Trace], views: &HashMap<u64, OpenView>) -> Vec<Vec<u8>> {
        if let Some(marker) = tree::variable_after_exec(pid, MARKER_VARIABLE) {
            return vec![marker];
        }
        if let Some(step) = steps.iter().find(|step| step.session == session) {
            return vec![step.marker.clone()];
        }
        let is_near = |(leader, orphan): &(&i32, &Orphan)| **leader == session || orphan.session == session;
        if let Some((_, orphan)) = self.seen.iter().find(is_near) {
            return orphan.owners.clone();
        }
        // It can leave its session and wipe its environment; the files that its attempt sees it keeps.
        let sees = tree::mounts(pid);
        let has_same = |step: &&&Trace| sees.is_some() && views.get(&step.view).and_then(OpenView::mounts) == sees;
        if let Some(step) = steps.iter().find(has_same) {
            return vec![step.marker.clone()];
        }
        let mut all: Vec<Vec<u8>> = steps.iter().map(|step| step.marker.clone()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The session a process is in; 0 if it is gone.
pub fn session_of(pid: i32) -> i32 {
    // SAFETY: a system call on a number.
    unsafe { libc::getsid(pid) }.max(0)
}
