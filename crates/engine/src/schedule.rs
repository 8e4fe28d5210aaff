//! The order of the queue: urgent first (bounded per client), then start-time fair queuing by client, then the
//! build's age, then the job's place in its pipeline.
//!
//! A client is charged the estimate when an attempt is leased and corrected by the measured duration when it ends.
//! Both come from facts, so a rebuilt engine charges alike. Jobs that ask the same of a worker share a line.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use graph::{BuildId, Job, Resources};

use crate::build::SlotIndex;
use crate::input::Presence;

/// The most attempts of one client that run at once because they are urgent; further ones queue as usual.
pub const URGENT_ATTEMPTS_MAX: u32 = 16;
/// The most job ids whose durations are remembered; jobs beyond count as [`ESTIMATE_DEFAULT_MS`].
pub const ESTIMATES_MAX: usize = 50_000;
/// The most pools that are held at once; further ones are not held.
pub const HELD_POOLS_MAX: usize = 10_000;
/// What a job is charged before any of its kind has ended, in milliseconds.
pub const ESTIMATE_DEFAULT_MS: u64 = 10_000;

/// A job in a line: age of its build, place in its pipeline, slot.
pub(crate) type Key = (BuildId, u32, SlotIndex);

/// Whether a build goes before others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    Urgent,
    Usual,
}

/// All lines, and what clients were charged.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    lines: BTreeMap<Demand, BTreeMap<Arc<str>, ClientLine>>,
    n_queued: usize,
    /// Pools of which nothing is handed out, and why. Not kept.
    held: BTreeMap<String, String>,
    clients: BTreeMap<Arc<str>, Client>,
    /// The start of the attempt leased last, in the clients' shared time.
    virtual_ms: u64,
    estimates: HashMap<String, u64>,
}

/// What jobs ask of a worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Demand {
    pool: String,
    labels: BTreeSet<String>,
    cpu_milli: u64,
    memory_bytes: u64,
}

#[derive(Debug, Default)]
struct ClientLine {
    urgent: BTreeSet<Key>,
    usual: BTreeSet<Key>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Client {
    charged_ms: u64,
    n_urgent: u32,
}

impl Demand {
    fn of(job: &Job) -> Self {
        let Resources { cpu_milli, memory_bytes } = job.resources;
        Self { pool: job.pool.clone(), labels: job.labels.clone(), cpu_milli, memory_bytes }
    }

    fn is_met_by(&self, presence: &Presence, used: Resources) -> bool {
        let fits = |asked: u64, offered: u64, used: u64| offered == 0 || used.saturating_add(asked) <= offered;
        presence.pools.contains(&self.pool)
            && self.labels.is_subset(&presence.labels)
            && fits(self.cpu_milli, presence.resources.cpu_milli, used.cpu_milli)
            && fits(self.memory_bytes, presence.resources.memory_bytes, used.memory_bytes)
    }
}

impl Schedule {
    pub fn insert(&mut self, client: &str, urgency: Urgency, key: Key, job: &Job) {
        let client = match self.clients.get_key_value(client) {
            Some((client, _)) => Arc::clone(client),
            None => Arc::from(client),
        };
        let line = self.lines.entry(Demand::of(job)).or_default().entry(client).or_default();
        self.n_queued += usize::from(line.of(urgency).insert(key));
    }

    pub fn remove(&mut self, client: &str, urgency: Urgency, key: Key, job: &Job) {
        let demand = Demand::of(job);
        let Some(clients) = self.lines.get_mut(&demand) else { return };
        let Some(line) = clients.get_mut(client) else { return };
        self.n_queued -= usize::from(line.of(urgency).remove(&key));
        if line.urgent.is_empty() && line.usual.is_empty() {
            clients.remove(client);
        }
        if clients.is_empty() {
            self.lines.remove(&demand);
        }
    }

    /// Holds a pool, or releases it.
    pub fn hold(&mut self, pool: String, reason: Option<String>) {
        match reason {
            Some(reason) if self.held.contains_key(&pool) || self.held.len() < HELD_POOLS_MAX => {
                self.held.insert(pool, reason);
            }
            Some(_) => {}
            None => drop(self.held.remove(&pool)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.n_queued == 0
    }

    /// The job that a worker with these offers and this use should run next.
    pub fn best_for(&self, presence: &Presence, used: Resources) -> Option<Key> {
        let lines = self
            .lines
            .iter()
            .filter(|(demand, _)| demand.is_met_by(presence, used) && !self.held.contains_key(&demand.pool));
        lines
            .flat_map(|(_, clients)| clients)
            .filter_map(|(client, line)| {
                let account = self.clients.get(client).cloned().unwrap_or_default();
                let start = account.charged_ms.max(self.virtual_ms);
                match line.urgent.first() {
                    Some(&key) if account.n_urgent < URGENT_ATTEMPTS_MAX => Some((0, start, key)),
                    urgent => urgent.into_iter().chain(line.usual.first()).min().map(|&key| (1, start, key)),
                }
            })
            .min()
            .map(|(_, _, key)| key)
    }

    /// The jobs that none of these workers could run even if it were idle, in order of line.
    pub fn unmatched<'a>(&'a self, workers: &[&Presence]) -> impl Iterator<Item = Key> + use<'a> {
        let idle = Resources::default();
        let unmet = |demand: &Demand| !workers.iter().any(|worker| demand.is_met_by(worker, idle));
        let lines: Vec<_> = self.lines.iter().filter(|(demand, _)| unmet(demand)).map(|(_, clients)| clients).collect();
        lines
            .into_iter()
            .flat_map(|clients| clients.values())
            .flat_map(|line| line.urgent.iter().chain(&line.usual).copied())
    }

    /// An attempt was leased: charges its client the estimate, which is given back for the correction.
    pub fn charge(&mut self, client: &str, urgency: Urgency, job_id: &str) -> u64 {
        let estimate = self.estimate_ms(job_id);
        let virtual_ms = self.virtual_ms;
        let account = self.client(client);
        let start = account.charged_ms.max(virtual_ms);
        account.charged_ms = start.saturating_add(estimate);
        account.n_urgent += u32::from(urgency == Urgency::Urgent);
        self.virtual_ms = start;
        estimate
    }

    /// An attempt ended: what was charged becomes what it took.
    pub fn settle(&mut self, client: &str, urgency: Urgency, charged_ms: u64, took_ms: u64) {
        let account = self.client(client);
        account.charged_ms = account.charged_ms.saturating_sub(charged_ms).saturating_add(took_ms);
        account.n_urgent = account.n_urgent.saturating_sub(u32::from(urgency == Urgency::Urgent));
    }

    /// Learns how long a job of this id takes: the mean of the new duration and the earlier estimate.
    pub fn learn(&mut self, job_id: &str, took_ms: u64) {
        if let Some(estimate) = self.estimates.get_mut(job_id) {
            *estimate = estimate.midpoint(took_ms);
        } else if self.estimates.len() < ESTIMATES_MAX {
            self.estimates.insert(job_id.to_owned(), took_ms);
        }
    }

    /// How long a job of this id took before, in milliseconds.
    pub fn estimate_ms(&self, job_id: &str) -> u64 {
        self.estimates.get(job_id).copied().unwrap_or(ESTIMATE_DEFAULT_MS)
    }

    /// What facts say of it, for comparison.
    pub fn portrait(&self) -> String {
        let estimates: BTreeMap<_, _> = self.estimates.iter().collect();
        format!("at {} {:?} {estimates:?}", self.virtual_ms, self.clients)
    }

    fn client(&mut self, client: &str) -> &mut Client {
        if !self.clients.contains_key(client) {
            self.clients.insert(client.into(), Client::default());
        }
        self.clients.get_mut(client).expect("it has just been put in")
    }
}

impl ClientLine {
    fn of(&mut self, urgency: Urgency) -> &mut BTreeSet<Key> {
        match urgency {
            Urgency::Urgent => &mut self.urgent,
            Urgency::Usual => &mut self.usual,
        }
    }
}
