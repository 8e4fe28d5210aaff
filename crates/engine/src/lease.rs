//! Workers, as far as they have shown themselves, and the leases they hold.
//!
//! Nothing here is kept: after a restart each worker shows itself again. One that holds leases by the facts but has
//! not shown itself yet is awaited for [`RECOVERY_GRACE_MS`]; then its leases are lost.

use std::collections::{BTreeMap, BTreeSet};

use graph::{LeaseId, Resources, Timestamp, WorkerId};

use crate::engine::Engine;
use crate::input::{Intake, Presence};

/// How long a rebuilt engine waits for a worker that holds leases to show itself.
pub const RECOVERY_GRACE_MS: u64 = 60_000;
/// How old a lease must be to count as lost when its worker does not list it: its start may still be on the way.
pub const LEASE_UNCLAIMED_MS: u64 = 10_000;
/// The most workers; further ones are ignored until others leave.
pub const WORKERS_MAX: usize = 20_000;

impl Engine {
    /// The workers that have attempts in their hands, with the leases.
    #[must_use]
    pub fn holders(&self) -> BTreeMap<WorkerId, BTreeSet<LeaseId>> {
        self.workers.holders().map(|(id, leases)| (id.clone(), leases)).collect()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Workers {
    workers: BTreeMap<WorkerId, Worker>,
    /// Those with a free slot that take new attempts.
    free: BTreeSet<WorkerId>,
    /// When each falls silent.
    deadlines: BTreeSet<(Timestamp, WorkerId)>,
    /// Workers known only from facts, that have no deadline yet.
    awaited: BTreeSet<WorkerId>,
    /// Those of which the lines of the schedule have not heard what changed.
    changed: BTreeSet<WorkerId>,
    /// Workers that serve a pool, and slots of those that take new attempts.
    pools: BTreeMap<String, (u64, u64)>,
}

#[derive(Debug, Default)]
struct Worker {
    /// `None` while it is only awaited.
    presence: Option<Presence>,
    deadline: Option<Timestamp>,
    /// What it runs, by its own word or ours.
    held: BTreeMap<LeaseId, Resources>,
    used: Resources,
}

impl Workers {
    /// A worker showed itself. `held` are its leases that count, with what they use.
    pub fn show(&mut self, id: &WorkerId, presence: Presence, held: BTreeMap<LeaseId, Resources>, now: Timestamp) {
        if !self.workers.contains_key(id) && self.workers.len() >= WORKERS_MAX {
            return;
        }
        self.awaited.remove(id);
        let deadline = (presence.holds_ms > 0).then(|| now.plus_ms(presence.holds_ms));
        self.set_deadline(id, deadline);
        let worker = self.workers.entry(id.clone()).or_default();
        worker.used = held.values().fold(Resources::default(), |sum, &more| plus(sum, more));
        worker.held = held;
        let before = worker.presence.replace(presence);
        if worker.presence != before {
            let after = worker.presence.clone();
            before.iter().for_each(|before| self.count(before, false));
            after.iter().for_each(|after| self.count(after, true));
        }
        self.note_free(id);
    }

    /// A worker got a lease; one that has not shown itself is awaited from now on.
    pub fn give(&mut self, id: &WorkerId, lease: LeaseId, resources: Resources) {
        let worker = self.workers.entry(id.clone()).or_default();
        let before = worker.held.insert(lease, resources).unwrap_or_default();
        worker.used = plus(minus(worker.used, before), resources);
        if worker.presence.is_none() && worker.deadline.is_none() {
            self.awaited.insert(id.clone());
        }
        self.note_free(id);
    }

    /// A worker no longer holds a lease.
    pub fn take(&mut self, id: &WorkerId, lease: LeaseId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if let Some(resources) = worker.held.remove(&lease) {
            worker.used = minus(worker.used, resources);
        }
        if worker.presence.is_none() && worker.held.is_empty() {
            self.remove(id);
        } else {
            self.note_free(id);
        }
    }

    /// A worker is gone. Gives the leases it held.
    pub fn remove(&mut self, id: &WorkerId) -> Vec<LeaseId> {
        self.set_deadline(id, None);
        self.changed.insert(id.clone());
        self.free.remove(id);
        self.awaited.remove(id);
        let Some(worker) = self.workers.remove(id) else { return Vec::new() };
        worker.presence.iter().for_each(|presence| self.count(presence, false));
        worker.held.into_keys().collect()
    }

    /// Gives every awaited worker its time to show itself.
    pub fn await_known(&mut self, now: Timestamp) {
        for id in std::mem::take(&mut self.awaited) {
            self.set_deadline(&id, Some(now.plus_ms(RECOVERY_GRACE_MS)));
        }
    }

    /// A worker whose word no longer holds, if there is one.
    pub fn silent(&self, now: Timestamp) -> Option<WorkerId> {
        self.deadlines.first().filter(|(at, _)| *at <= now).map(|(_, id)| id.clone())
    }

    /// When the next worker falls silent.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// The leases in a worker's hands.
    pub fn held(&self, id: &WorkerId) -> impl Iterator<Item = LeaseId> {
        self.workers.get(id).into_iter().flat_map(|worker| worker.held.keys().copied())
    }

    /// Who has leases, by its own word or ours.
    pub fn holders(&self) -> impl Iterator<Item = (&WorkerId, BTreeSet<LeaseId>)> {
        let holders = self.workers.iter().filter(|(_, worker)| !worker.held.is_empty());
        holders.map(|(id, worker)| (id, worker.held.keys().copied().collect()))
    }

    /// The workers whose offer may have changed since this was asked last.
    pub fn take_changed(&mut self) -> BTreeSet<WorkerId> {
        std::mem::take(&mut self.changed)
    }

    /// What a worker with a free slot offers and uses, and how many attempts it runs.
    pub fn offer(&self, id: &WorkerId) -> Option<(&Presence, Resources, usize)> {
        let worker = self.workers.get(id).filter(|_| self.free.contains(id))?;
        Some((worker.presence.as_ref()?, worker.used, worker.held.len()))
    }

    /// What a worker offers that is there and takes new attempts, if perhaps not now.
    pub fn open(&self, id: &WorkerId) -> Option<&Presence> {
        let presence = self.workers.get(id)?.presence.as_ref()?;
        (presence.intake == Intake::Open && presence.slots > 0).then_some(presence)
    }

    /// How many workers serve a pool, and how many slots those have that take new attempts.
    pub fn of_pool(&self, pool: &str) -> (u64, u64) {
        self.pools.get(pool).copied().unwrap_or_default()
    }

    /// Every pool that a worker serves, with what [`Workers::of_pool`] says of it.
    pub fn pools(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.pools.iter().map(|(pool, &(n_workers, n_slots))| (pool.as_str(), n_workers, n_slots))
    }

    fn count(&mut self, presence: &Presence, is_added: bool) {
        let n_slots = if presence.intake == Intake::Open { u64::from(presence.slots) } else { 0 };
        for pool in &presence.pools {
            let totals = self.pools.entry(pool.clone()).or_default();
            *totals = if is_added { (totals.0 + 1, totals.1 + n_slots) } else { (totals.0 - 1, totals.1 - n_slots) };
            if totals.0 == 0 {
                self.pools.remove(pool);
            }
        }
    }

    /// All workers that have shown themselves.
    pub fn present(&self) -> impl Iterator<Item = (&WorkerId, &Presence)> {
        self.workers.iter().filter_map(|(id, worker)| Some((id, worker.presence.as_ref()?)))
    }

    fn note_free(&mut self, id: &WorkerId) {
        self.changed.insert(id.clone());
        let is_free = self.workers.get(id).is_some_and(|worker| {
            worker
                .presence
                .as_ref()
                .is_some_and(|presence| presence.intake == Intake::Open && worker.held.len() < presence.slots as usize)
        });
        if is_free && !self.free.contains(id) {
            self.free.insert(id.clone());
        } else if !is_free {
            self.free.remove(id);
        }
    }

    fn set_deadline(&mut self, id: &WorkerId, deadline: Option<Timestamp>) {
        let Some(worker) = self.workers.get_mut(id) else {
            if let Some(at) = deadline {
                self.workers.insert(id.clone(), Worker { deadline, ..Worker::default() });
                self.deadlines.insert((at, id.clone()));
            }
            return;
        };
        if let Some(at) = std::mem::replace(&mut worker.deadline, deadline) {
            self.deadlines.remove(&(at, id.clone()));
        }
        if let Some(at) = deadline {
            self.deadlines.insert((at, id.clone()));
        }
    }
}

fn plus(left: Resources, right: Resources) -> Resources {
    Resources {
        cpu_milli: left.cpu_milli.saturating_add(right.cpu_milli),
        memory_bytes: left.memory_bytes.saturating_add(right.memory_bytes),
    }
}

fn minus(left: Resources, right: Resources) -> Resources {
    Resources {
        cpu_milli: left.cpu_milli.saturating_sub(right.cpu_milli),
        memory_bytes: left.memory_bytes.saturating_sub(right.memory_bytes),
    }
}
