//! Affinity: a job goes to a worker that has it warm, and waits for one that is busy until that costs more than the warmth
//! saves. Meanwhile others go before it.
//!
//! The wait ends at a time that is set when the job is passed over first and never moves; until then each change of the
//! worker lets the job be judged anew. A further try of a job prefers nobody: what failed there may fail there again.

use graph::{Timestamp, WorkerId};

use crate::build::{Build, Slot};
use crate::engine::Engine;
use crate::schedule::Key;
use crate::warmth::WarmthKey;

/// The most attempts of a busy worker that are looked at to tell when it will have room; others count as endless.
pub const ATTEMPTS_LOOKED_AT_MAX: usize = 64;
/// The most jobs that wait for one worker because it has them warm; further ones go to any.
pub const WAITING_FOR_WORKER_MAX: usize = 8;

/// Where a job goes that some worker could take now.
pub(crate) enum Placement {
    /// To this worker, now.
    On(WorkerId),
    /// To this worker, once it has room; to any after `until`.
    Wait { worker: WorkerId, until: Timestamp },
}

/// The key under which a job's warmth is known.
pub(crate) fn warmth_key(build: &Build, slot: &Slot) -> WarmthKey {
    WarmthKey { project: build.request.origin.project.clone(), job: slot.name.id().to_owned() }
}

impl Engine {
    /// Where the job of `key` goes; `usual` could take it now. Looks at the workers that have it warm and at what these
    /// run, all bounded, not at jobs.
    pub(crate) fn placement(&self, key: Key, usual: WorkerId) -> Placement {
        let build = &self.builds[&key.0];
        let slot = build.slot(key.2);
        if slot.n_tries > 0 {
            return Placement::On(usual);
        }
        let warmth_key = warmth_key(build, slot);
        let warm = self.warmth.workers(&warmth_key);
        if warm.is_empty() || warm.contains(&usual) {
            return Placement::On(usual);
        }
        if let Some(ready) = self.schedule.readiest(&slot.job, warm) {
            return Placement::On(ready.clone());
        }
        let until = self.schedule.patience(key).unwrap_or_else(|| self.now.plus_ms(self.warmth.saving_ms(&warmth_key)));
        let waits = warm.iter().filter_map(|worker| Some((self.expected_wait_ms(worker, slot)?, worker)));
        match waits.min() {
            Some((wait_ms, worker)) if until > self.now && self.now.plus_ms(wait_ms) <= until => {
                Placement::Wait { worker: worker.clone(), until }
            }
            _ => Placement::On(usual),
        }
    }

    /// How long one more job may wait for a busy worker to have room, by the estimates of what it runs; `None` if it could
    /// not run the job, takes nothing, or so many wait for it that it cannot be told. An attempt that is late is
    /// expected to be as late again.
    fn expected_wait_ms(&self, worker: &WorkerId, slot: &Slot) -> Option<u64> {
        let presence = self.workers.open(worker)?;
        let n_before = self.schedule.n_waiting_for(worker);
        if n_before >= WAITING_FOR_WORKER_MAX || !self.schedule.could_take(&slot.job, presence) {
            return None;
        }
        let held = self.workers.held(worker).take(ATTEMPTS_LOOKED_AT_MAX);
        let leases = held.filter_map(|lease| self.slot(*self.leases.get(&lease)?).lease.as_deref());
        let left = leases.map(|lease| lease.end().ms_since(self.now).max(self.now.ms_since(lease.end())));
        let mut left: Vec<u64> = left.collect();
        left.sort_unstable();
        left.get(n_before).copied()
    }

    /// Lets a job of the queue wait for a worker while others go before it.
    pub(crate) fn set_aside(&mut self, key: Key, worker: WorkerId, until: Timestamp) {
        let urgency = self.urgency_of(key.0);
        let build = &self.builds[&key.0];
        let job = &build.slot(key.2).job;
        self.schedule.set_aside(&build.request.client, urgency, key, job, worker, until);
    }
}
