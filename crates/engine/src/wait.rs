//! Why a job waits, as data, and what stands in the queues. Nothing here changes anything.
//!
//! Costs, so that a page may ask for many jobs: a place in a queue costs a look at each line of the pool and each client in
//! it, a search (no job is counted), and a look at what runs, until enough of the pool is found; a job that no worker takes costs a look at each worker; a place in a concurrency group
//! costs a look at those before it.

use std::collections::{BTreeMap, BTreeSet};

use graph::{AttemptNumber, BuildId, JobName, Partial, Resources, Timestamp, WaitedFor, WorkerId};
use serde::{Deserialize, Serialize};

use crate::build::{Build, COMING, GateState, OperationState, Place, Slot, SlotIndex};
use crate::child::asks_for_build;
use crate::engine::Engine;
use crate::input::{Intake, Presence};
use crate::line::JobRef;

/// The most names that one reason lists; further ones are only counted.
pub const NAMES_MAX: usize = 20;
/// How many times shorter or longer than the estimate a wait may well be.
pub const ESTIMATE_SPREAD: u64 = 2;
/// The most different demands (pool, labels, resources) of one build that [`Engine::unmatched_of`] compares with the workers.
pub const DEMANDS_MAX: usize = 50;

/// What a job waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "wait", rename_all = "snake_case")]
pub enum Wait {
    /// For jobs that it needs.
    Needs {
        /// Those that have not ended, the first [`NAMES_MAX`] in the order of its needs.
        jobs: Vec<JobName>,
        /// How many there are.
        count: u64,
    },
    /// For a person.
    Gate,
    /// For its operation to be worked out, or for the next decision.
    Resolving,
    /// For an equal operation that is under way.
    Same {
        /// The build that runs it, or is to.
        build: BuildId,
        /// Its job.
        job: JobName,
        /// The attempt, if it runs.
        attempt: Option<AttemptNumber>,
    },
    /// For its concurrency group.
    Group {
        /// The group's name.
        group: String,
        /// Who holds it, or stands in the queue for it.
        holders: Vec<(BuildId, JobName)>,
        /// Its place among those that wait, from 1.
        position: u64,
    },
    /// For a worker, in a queue.
    Queue {
        /// The pool.
        pool: String,
        /// Its place, from 1, if nothing else came and all took as long as was estimated.
        position: u64,
        /// How many are before it.
        ahead: u64,
        /// Who runs there, and so has the slots: the first [`NAMES_MAX`], those that began first before others.
        #[serde(default)]
        holders: Vec<(BuildId, JobName)>,
        /// How long it will wait; `None` if no slot is there to reckon with.
        estimate: Option<Estimate>,
    },
    /// For a busy worker on which it has run before, because it is expected to be done sooner so.
    Affinity {
        /// The worker.
        worker: WorkerId,
        /// When it takes any worker instead.
        until: Timestamp,
    },
    /// For its pool to be released.
    Held {
        /// The pool.
        pool: String,
        /// Why it is held.
        reason: String,
    },
    /// For a worker that is not there.
    Worker {
        /// The pool that it asks for.
        pool: String,
        /// The labels that it asks for.
        labels: BTreeSet<String>,
        /// What it asks for of cores and memory.
        resources: Resources,
        /// What there is instead.
        instead: Instead,
    },
    /// For the end of a build that it asked for.
    Child {
        /// That build.
        build: BuildId,
        /// A job of it, or of a build that it waits for in turn, that needs somebody's help, and why it waits: for a person, or for a
        /// worker that is not there.
        #[serde(default)]
        stuck: Option<(BuildId, JobName, Box<Wait>)>,
    },
    /// For the time of its next try.
    Backoff {
        /// When that may begin.
        until: Timestamp,
    },
}

/// What there is instead of a worker that takes a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "there_is", rename_all = "snake_case")]
pub enum Instead {
    /// No worker of the pool.
    Nobody,
    /// Workers of the pool that lack something; this one lacks least.
    Nearest {
        /// The worker.
        worker: WorkerId,
        /// The labels that it lacks.
        labels: BTreeSet<String>,
        /// How many thousandths of a core it lacks.
        cpu_milli: u64,
        /// How many bytes of memory it lacks.
        memory_bytes: u64,
    },
    /// Workers that could run it but take nothing new: the first [`NAMES_MAX`] with their reasons.
    Closed {
        /// Worker and reason.
        workers: Vec<(WorkerId, String)>,
    },
}

/// How long something may take, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Hardly less.
    pub low_ms: u64,
    /// Hardly more.
    pub high_ms: u64,
}

/// A pool as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolState {
    /// Its name; the default pool's is empty.
    pub pool: String,
    /// Jobs that wait for a worker.
    pub queued: u64,
    /// Jobs that run.
    pub running: u64,
    /// Workers that serve it.
    pub workers: u64,
    /// Slots of those that take new attempts.
    pub slots: u64,
    /// Why it is held, if it is.
    pub held: Option<String>,
    /// Whom its queue charges, of those that wait in it.
    pub clients: BTreeMap<String, ClientState>,
}

/// How a client stands in a pool's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientState {
    /// Its jobs that wait in the pool.
    pub queued: u64,
    /// What it was charged in all pools, in milliseconds. A client with less goes first.
    pub charged_ms: u64,
    /// How much of this is beyond the share at which the queue has arrived, in milliseconds.
    pub ahead_ms: u64,
}

impl Engine {
    /// Why a job has not begun, or not its next try; `None` if it runs, has ended, or is not there.
    #[must_use]
    pub fn why(&self, id: BuildId, job: &JobName) -> Option<Wait> {
        let build = self.builds.get(&id)?;
        let index = *build.index_of.get(job)?;
        let slot = build.slot(index);
        if slot.flags.is_dropped || slot.end.is_some() || slot.lease.is_some() {
            return None;
        }
        if let Some(child) = slot.child {
            return Some(Wait::Child { build: child.build, stuck: self.stuck(child.build) });
        }
        Some(match slot.place {
            Place::Nowhere if slot.n_waits_for > 0 => self.why_needs(id, slot),
            Place::Nowhere if slot.gate == GateState::Open => Wait::Gate,
            Place::Nowhere | Place::Resolving | Place::Asking(_) => Wait::Resolving,
            Place::Following => self.why_following((id, index)).unwrap_or(Wait::Resolving),
            Place::Grouped => self.why_grouped((id, index)).unwrap_or(Wait::Resolving),
            Place::Queued => self.why_queued((id, index)),
            Place::Sleeping(until) => Wait::Backoff { until },
        })
    }

    /// Whether a build under way goes before those that are not urgent.
    #[must_use]
    pub fn is_urgent(&self, id: BuildId) -> bool {
        self.builds.get(&id).is_some_and(|build| build.verdict.is_none() && build.request.options.urgent)
    }

    /// To how many of its tests the attempt at a job is narrowed that runs; `None` if none runs, or runs whole.
    #[must_use]
    pub fn partial(&self, id: BuildId, job: &JobName) -> Option<Partial> {
        let build = self.builds.get(&id)?;
        let index = *build.index_of.get(job)?;
        build.slot(index).lease.as_ref()?;
        build.asked(index).map(|asked| asked.partial())
    }

    /// The first job of a build, or of those for which it waits, that goes on only with somebody's help.
    fn stuck(&self, id: BuildId) -> Option<(BuildId, JobName, Box<Wait>)> {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            let Some(build) = self.builds.get(&id).filter(|build| build.verdict.is_none()) else { continue };
            if let Some((job, wait)) = self.unmatched_of(id, 1).pop() {
                return Some((id, job, Box::new(wait)));
            }
            let is_asking = |slot: &&Slot| slot.gate == GateState::Open && slot.end.is_none() && !slot.flags.is_dropped;
            if let Some(slot) = build.slots.iter().find(is_asking) {
                return Some((id, slot.name.clone(), Box::new(Wait::Gate)));
            }
            open.extend(build.slots.iter().filter_map(|slot| slot.child).map(|child| child.build));
        }
        None
    }

    /// Whose end let the attempt at a job begin that runs; `None` if none runs, or it hardly waited, or something else ended its wait.
    #[must_use]
    pub fn waited_for(&self, id: BuildId, job: &JobName) -> Option<&WaitedFor> {
        let build = self.builds.get(&id)?;
        build.slot(*build.index_of.get(job)?).lease.as_ref()?.waited_for.as_deref()
    }

    fn why_needs(&self, id: BuildId, slot: &Slot) -> Wait {
        let build = &self.builds[&id];
        let needs = slot.job.needs.iter().zip(&slot.needs);
        let open = needs.filter(|&(_, &needed)| match needed {
            COMING => true,
            needed => needed < COMING && build.slot(needed).end.is_none(),
        });
        let graph = build.graph();
        // Whether the build asks for it is decided by what these bring.
        let deciding =
            graph.holes.iter().filter(|_| slot.flags.is_undecided).map(|hole| JobName::from(hole.name.as_str()));
        let jobs = open.map(|(need, _)| need.job.clone()).chain(deciding).take(NAMES_MAX).collect();
        Wait::Needs { jobs, count: u64::from(slot.n_waits_for) }
    }

    fn why_following(&self, job: JobRef) -> Option<Wait> {
        let slot = self.slot(job);
        let OperationState::Known(digest) = slot.operation else { return None };
        let leader = self.operations.get(&self.operation_key(job.0, digest))?.leader?;
        let leading = self.slot(leader);
        let attempt = leading.lease.as_ref().map(|lease| lease.attempt);
        Some(Wait::Same { build: leader.0, job: leading.name.clone(), attempt })
    }

    fn why_grouped(&self, job: JobRef) -> Option<Wait> {
        let slot = self.slot(job);
        let key = slot.group.as_ref()?;
        let group = self.groups.get(key)?;
        let offered = group.offered.map(|(_, build, index)| (build, index));
        let holders = group.holders.iter().copied().chain(offered).take(NAMES_MAX);
        let holders = holders.map(|holder| (holder.0, self.slot(holder).name.clone())).collect();
        let position = group.waiting.range(..=(slot.ready_at, job.0, job.1)).count() as u64;
        Some(Wait::Group { group: key.name.to_string(), holders, position })
    }

    fn why_queued(&self, job: JobRef) -> Wait {
        let slot = self.slot(job);
        let pool = slot.job.pool.clone();
        if let Some(reason) = self.schedule.held(&pool) {
            return Wait::Held { pool, reason: reason.to_owned() };
        }
        if let Some(instead) = self.instead_of_worker(slot) {
            let (labels, resources) = (slot.job.wanted_labels(), slot.job.resources);
            return Wait::Worker { pool, labels, resources, instead };
        }
        let key = (job.0, slot.job.order, job.1);
        if let Some((worker, until)) = self.schedule.waits_for(key) {
            return Wait::Affinity { worker: worker.clone(), until };
        }
        let (ahead, typical_ms) = self.ahead(job);
        let (_, n_slots) = self.workers.of_pool(&pool);
        let estimate = self.schedule.wait_ms(&pool, ahead, typical_ms, n_slots, self.now).map(|middle_ms| Estimate {
            low_ms: middle_ms / ESTIMATE_SPREAD,
            high_ms: middle_ms.saturating_mul(ESTIMATE_SPREAD),
        });
        let holders = self.holders_of_pool(&pool);
        Wait::Queue { pool, position: ahead + 1, ahead, holders, estimate }
    }

    /// How many queued jobs of its pool go before one, and how long it usually takes.
    fn ahead(&self, job: JobRef) -> (u64, u64) {
        let slot = self.slot(job);
        let key = (job.0, slot.job.order, job.1);
        let request = &self.builds[&job.0].request;
        let typical_ms = self.schedule.estimate_ms(&request.origin.project, slot.name.id());
        let urgency = self.urgency_of(job.0);
        (self.schedule.ahead(&request.client, urgency, key, &slot.job.pool, typical_ms), typical_ms)
    }

    /// The place of a job among those that wait for a worker of its pool, from 1, also while none takes any; `None` if it does not stand
    /// there.
    #[must_use]
    pub fn place_in_queue(&self, id: BuildId, job: &JobName) -> Option<u64> {
        let index = self.index_of(id, job)?;
        (self.slot((id, index)).place == Place::Queued).then(|| self.ahead((id, index)).0 + 1)
    }

    /// What runs in a pool, by age of lease, the first [`NAMES_MAX`].
    fn holders_of_pool(&self, pool: &str) -> Vec<(BuildId, JobName)> {
        let slots = self.leases.values().map(|&job| (job.0, self.slot(job)));
        let of_pool = slots.filter(|(_, slot)| slot.job.pool == *pool).take(NAMES_MAX);
        of_pool.map(|(build, slot)| (build, slot.name.clone())).collect()
    }

    /// The jobs of a build that no open worker could run even if it were idle, whatever else they wait for: the first `limit` in the
    /// order of the graph, each with what there is instead. Looks at all jobs of the build, and for each of the first
    /// [`DEMANDS_MAX`] different demands at each worker; jobs with further demands are passed over.
    #[must_use]
    pub fn unmatched_of(&self, id: BuildId, limit: usize) -> Vec<(JobName, Wait)> {
        let Some(build) = self.builds.get(&id) else { return Vec::new() };
        let mut known: Vec<(&Slot, Option<Instead>)> = Vec::new();
        let mut unmatched = Vec::new();
        for slot in build.slots.iter().filter(|slot| is_to_run(build, slot)) {
            if unmatched.len() == limit {
                break;
            }
            let place = match known.iter().position(|(other, _)| is_same_demand(other, slot)) {
                Some(place) => place,
                None if known.len() == DEMANDS_MAX => continue,
                None => {
                    known.push((slot, self.instead_of_worker(slot)));
                    known.len() - 1
                }
            };
            if let Some(instead) = known[place].1.clone() {
                let (pool, labels) = (slot.job.pool.clone(), slot.job.wanted_labels());
                unmatched
                    .push((slot.name.clone(), Wait::Worker { pool, labels, resources: slot.job.resources, instead }));
            }
        }
        unmatched
    }

    /// What there is if no open worker could run this job even if it were idle.
    fn instead_of_worker(&self, slot: &Slot) -> Option<Instead> {
        let mut closed = Vec::new();
        let mut nearest: Option<(Shortfall, &WorkerId)> = None;
        for (id, presence) in self.workers.present().filter(|(_, presence)| presence.pools.contains(&slot.job.pool)) {
            let shortfall = Shortfall::of(slot, presence);
            match &presence.intake {
                Intake::Open if shortfall == Shortfall::default() => return None,
                Intake::Closed { reason } if shortfall == Shortfall::default() && closed.len() < NAMES_MAX => {
                    closed.push((id.clone(), reason.clone()));
                }
                _ if nearest.as_ref().is_none_or(|(least, _)| shortfall < *least) => nearest = Some((shortfall, id)),
                _ => {}
            }
        }
        if !closed.is_empty() {
            return Some(Instead::Closed { workers: closed });
        }
        Some(nearest.map_or(Instead::Nobody, |(shortfall, id)| Instead::Nearest {
            worker: id.clone(),
            labels: shortfall.labels,
            cpu_milli: shortfall.cpu_milli,
            memory_bytes: shortfall.memory_bytes,
        }))
    }

    /// All pools that have workers, jobs or a hold, by name.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolState> {
        let mut pools: BTreeMap<String, PoolState> = BTreeMap::new();
        self.schedule.paint_pools(&mut pools);
        for (name, n_workers, n_slots) in self.workers.pools() {
            let pool = pools.entry(name.to_owned()).or_default();
            (pool.workers, pool.slots) = (n_workers, n_slots);
        }
        for (name, pool) in &mut pools {
            pool.pool.clone_from(name);
        }
        pools.into_values().collect()
    }

    /// How many jobs of builds under way are still to come into each pool, by the pool's name: they wait for other jobs, a person,
    /// a group or their next try. Looks at all jobs.
    #[must_use]
    pub fn to_come(&self) -> BTreeMap<&str, u64> {
        let mut to_come = BTreeMap::new();
        for build in self.builds.values().filter(|build| build.verdict.is_none()) {
            for slot in build.slots.iter().filter(|slot| is_to_run(build, slot) && slot.place != Place::Queued) {
                *to_come.entry(slot.job.pool.as_str()).or_default() += 1;
            }
        }
        to_come
    }

    /// The jobs that wait for a worker of a pool, oldest build first: at most `limit` of those after `after`, which is behind all of its build
    /// if there is no such job.
    /// [`Engine::why`] tells the place of each.
    #[must_use]
    pub fn queue(&self, pool: &str, after: Option<(BuildId, &JobName)>, limit: usize) -> Vec<(BuildId, JobName)> {
        let after = after.map(|(build, job)| match self.index_of(build, job) {
            Some(index) => (build, self.slot((build, index)).job.order, index),
            None => (build, u32::MAX, SlotIndex::MAX),
        });
        let keys = self.schedule.queue(pool, after, limit);
        keys.into_iter().map(|(build, _, index)| (build, self.slot((build, index)).name.clone())).collect()
    }
}

/// Whether a job is still to be given to a worker.
fn is_to_run(build: &Build, slot: &Slot) -> bool {
    let is_over = slot.flags.is_dropped || slot.flags.is_unwanted || slot.end.is_some();
    !is_over && !asks_for_build(build, slot) && !slot.job.steps.is_empty() && slot.lease.is_none()
}

/// Whether whatever worker can run one of two jobs can run the other.
fn is_same_demand(left: &Slot, right: &Slot) -> bool {
    let demand = |slot: &Slot| (slot.job.resources, slot.job.wanted_labels());
    left.job.pool == right.job.pool && demand(left) == demand(right)
}

/// What a worker lacks to run a job, labels first.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Shortfall {
    n_labels: usize,
    cpu_milli: u64,
    memory_bytes: u64,
    labels: BTreeSet<String>,
}

impl Shortfall {
    fn of(slot: &Slot, presence: &Presence) -> Self {
        let short = |asked: u64, offered: u64| if offered == 0 { 0 } else { asked.saturating_sub(offered) };
        let mut labels = slot.job.wanted_labels();
        labels.retain(|label| !presence.labels.contains(label));
        Self {
            n_labels: labels.len(),
            cpu_milli: short(slot.job.resources.cpu_milli, presence.resources.cpu_milli),
            memory_bytes: short(slot.job.resources.memory_bytes, presence.resources.memory_bytes),
            labels,
        }
    }
}
