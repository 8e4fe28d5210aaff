//! The order of the queue: urgent first (bounded per client), then start-time fair queuing by client, then the
//! build's age, then the job's place in its pipeline.
//!
//! A client is charged the estimate when an attempt is leased and corrected by the measured duration when it ends.
//! Both come from facts, so a rebuilt engine charges alike. Jobs that ask the same of a worker share a line.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use graph::{BuildId, Job, Resources, Timestamp, WorkerId};

use crate::build::SlotIndex;
use crate::input::Presence;
use crate::ranked::Ranked;
use crate::standing::Took;
use crate::wait::PoolState;

/// The most attempts of one client that run at once because they are urgent; further ones queue as usual.
pub const URGENT_ATTEMPTS_MAX: u32 = 16;
/// The most job ids whose durations are remembered; jobs beyond count as [`ESTIMATE_DEFAULT_MS`].
pub const ESTIMATES_MAX: usize = 50_000;
/// The most pools that are held at once; further ones are not held.
pub const HELD_POOLS_MAX: usize = 10_000;
/// From how many kinds of demand on those are forgotten of which no job is queued.
pub const LINES_IDLE_MAX: usize = 256;
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
    lines: BTreeMap<Demand, Line>,
    /// Lines that have not learnt which workers are ready.
    fresh: Vec<Demand>,
    /// How much each worker runs that takes more, as lines know it.
    loads: HashMap<WorkerId, usize>,
    n_queued: usize,
    /// What runs, by pool.
    running: BTreeMap<String, Running>,
    /// Pools of which nothing is handed out, and why. Not kept.
    held: BTreeMap<String, String>,
    /// Jobs that stand in a line but wait for one worker, which has them warm.
    aside: Aside,
    clients: BTreeMap<Arc<str>, Client>,
    /// The start of the attempt leased last, in the clients' shared time.
    virtual_ms: u64,
    /// How long jobs took before, in milliseconds, by project and id: of other projects' jobs a name says nothing.
    estimates: HashMap<String, HashMap<String, u64>>,
    n_estimates: usize,
}

/// What jobs ask of a worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Demand {
    pool: String,
    labels: BTreeSet<String>,
    cpu_milli: u64,
    memory_bytes: u64,
}

/// Jobs that ask the same.
#[derive(Debug, Default)]
struct Line {
    clients: BTreeMap<Arc<str>, ClientLine>,
    n_queued: usize,
    /// The workers that could take one of them now, those that run least first.
    ready: BTreeSet<(usize, WorkerId)>,
}

/// Jobs passed over for the sake of a worker that has them warm. Not kept.
#[derive(Debug, Default)]
struct Aside {
    jobs: BTreeMap<Key, Waiting>,
    by_worker: HashMap<WorkerId, BTreeSet<Key>>,
    ends: BTreeSet<(Timestamp, Key)>,
    /// When the wait of each queued job ends or ended that was ever set aside.
    patience: BTreeMap<Key, Timestamp>,
}

#[derive(Debug)]
struct Waiting {
    demand: Demand,
    client: Arc<str>,
    urgency: Urgency,
    worker: WorkerId,
    until: Timestamp,
}

/// What runs in a pool.
#[derive(Clone, Copy, Debug, Default)]
struct Running {
    count: u64,
    /// The sum of the times at which attempts are to end, in milliseconds.
    ends_ms: u64,
}

#[derive(Debug, Default)]
struct ClientLine {
    urgent: Ranked,
    usual: Ranked,
    /// How many are set aside.
    n_aside: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Client {
    charged_ms: u64,
    n_urgent: u32,
}

impl Demand {
    fn of(job: &Job) -> Self {
        let Resources { cpu_milli, memory_bytes } = job.resources;
        Self { pool: job.pool.clone(), labels: job.wanted_labels(), cpu_milli, memory_bytes }
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
        let demand = Demand::of(job);
        if !self.lines.contains_key(&demand) {
            self.drop_idle_lines();
            self.fresh.push(demand.clone());
        }
        let line = self.lines.entry(demand).or_default();
        let is_new = line.clients.entry(client).or_default().of(urgency).insert(key);
        line.n_queued += usize::from(is_new);
        self.n_queued += usize::from(is_new);
    }

    pub fn remove(&mut self, client: &str, urgency: Urgency, key: Key, job: &Job) {
        if self.aside.patience.remove(&key).is_some() {
            self.take_back(key);
        }
        let Some(line) = self.lines.get_mut(&Demand::of(job)) else { return };
        let Some(of_client) = line.clients.get_mut(client) else { return };
        let was_there = of_client.of(urgency).remove(key);
        line.n_queued -= usize::from(was_there);
        self.n_queued -= usize::from(was_there);
        if of_client.urgent.is_empty() && of_client.usual.is_empty() && of_client.n_aside == 0 {
            line.clients.remove(client);
        }
    }

    /// Forgets lines in which nobody stands, if they are many: to find a line's workers again costs a look at all.
    fn drop_idle_lines(&mut self) {
        if self.lines.len() >= LINES_IDLE_MAX {
            self.lines.retain(|_, line| line.n_queued > 0);
        }
    }

    /// What a worker offers has changed: it stands ready in all lines whose jobs it could take now, and in no other.
    /// `None` if it takes nothing.
    pub fn note_worker(&mut self, id: &WorkerId, offer: Option<(&Presence, Resources, usize)>) {
        let load = offer.map(|(_, _, load)| load);
        let before = match load {
            Some(load) => self.loads.insert(id.clone(), load),
            None => self.loads.remove(id),
        };
        for (demand, line) in &mut self.lines {
            if let Some(before) = before {
                line.ready.remove(&(before, id.clone()));
            }
            if let Some((presence, used, load)) = offer
                && demand.is_met_by(presence, used)
            {
                line.ready.insert((load, id.clone()));
            }
        }
        for key in self.aside.by_worker.get(id).cloned().unwrap_or_default() {
            self.take_back(key);
        }
    }

    /// Of these workers the one that runs least of those that could take the job now.
    pub fn readiest<'a>(&self, job: &Job, workers: &'a [WorkerId]) -> Option<&'a WorkerId> {
        let line = self.lines.get(&Demand::of(job))?;
        let is_ready = |load: usize, id: &WorkerId| line.ready.contains(&(load, id.clone()));
        let loads = workers.iter().filter_map(|id| Some((*self.loads.get(id)?, id)));
        loads.filter(|&(load, id)| is_ready(load, id)).min().map(|(_, id)| id)
    }

    /// Whether a worker could run a job if it were idle.
    pub fn could_take(&self, job: &Job, presence: &Presence) -> bool {
        Demand::of(job).is_met_by(presence, Resources::default())
    }

    /// Lets a job that stands in its line wait for `worker`, at most until `until`: others go before it.
    pub fn set_aside(
        &mut self,
        client: &str,
        urgency: Urgency,
        key: Key,
        job: &Job,
        worker: WorkerId,
        until: Timestamp,
    ) {
        let demand = Demand::of(job);
        let Some(line) = self.lines.get_mut(&demand) else { return };
        let Some(client) = line.clients.get_key_value(client).map(|(client, _)| Arc::clone(client)) else { return };
        let of_client = line.clients.entry(Arc::clone(&client)).or_default();
        if of_client.of(urgency).remove(key) {
            of_client.n_aside += 1;
            self.aside.by_worker.entry(worker.clone()).or_default().insert(key);
            self.aside.ends.insert((until, key));
            self.aside.patience.insert(key, until);
            self.aside.jobs.insert(key, Waiting { demand, client, urgency, worker, until });
        }
    }

    /// A job that was set aside stands in its line as before. Does nothing to another.
    fn take_back(&mut self, key: Key) {
        let Some(Waiting { demand, client, urgency, worker, until }) = self.aside.jobs.remove(&key) else { return };
        self.aside.ends.remove(&(until, key));
        if let Some(keys) = self.aside.by_worker.get_mut(&worker) {
            keys.remove(&key);
            if keys.is_empty() {
                self.aside.by_worker.remove(&worker);
            }
        }
        if let Some(of_client) = self.lines.get_mut(&demand).and_then(|line| line.clients.get_mut(&client)) {
            of_client.n_aside -= 1;
            of_client.of(urgency).insert(key);
        }
    }

    /// Jobs whose wait for a warm worker is over stand in their lines again.
    pub fn end_waits(&mut self, now: Timestamp) {
        while let Some(&(_, key)) = self.aside.ends.first().filter(|(until, _)| *until <= now) {
            self.take_back(key);
        }
    }

    /// When the next wait for a warm worker is over.
    pub fn next_patience_end(&self) -> Option<Timestamp> {
        self.aside.ends.first().map(|&(until, _)| until)
    }

    /// Until when a job that was set aside at some time waits at most.
    pub fn patience(&self, key: Key) -> Option<Timestamp> {
        self.aside.patience.get(&key).copied()
    }

    /// For which worker a job is set aside, and until when.
    pub fn waits_for(&self, key: Key) -> Option<(&WorkerId, Timestamp)> {
        self.aside.jobs.get(&key).map(|waiting| (&waiting.worker, waiting.until))
    }

    /// How many jobs are set aside for a worker.
    pub fn n_waiting_for(&self, worker: &WorkerId) -> usize {
        self.aside.by_worker.get(worker).map_or(0, BTreeSet::len)
    }

    /// Lines that came up since this was asked last have yet to learn which workers are ready.
    pub fn fill_fresh<'a>(&mut self, offers: impl Fn(&WorkerId) -> Option<(&'a Presence, Resources, usize)>) {
        for demand in std::mem::take(&mut self.fresh) {
            let Some(line) = self.lines.get_mut(&demand) else { continue };
            for id in self.loads.keys() {
                if let Some((presence, used, load)) = offers(id)
                    && demand.is_met_by(presence, used)
                {
                    line.ready.insert((load, id.clone()));
                }
            }
        }
    }

    /// The job that is next of all that some worker could take now, and the one of these workers that runs least.
    /// Looks at each line and each client in it, not at jobs or workers.
    pub fn next(&self) -> Option<(Key, WorkerId)> {
        let lines = self.lines.iter().filter(|(demand, line)| {
            line.n_queued > 0 && !line.ready.is_empty() && !self.held.contains_key(&demand.pool)
        });
        let best =
            lines.flat_map(|(_, line)| line.clients.iter().map(move |(client, of_client)| (line, client, of_client)));
        let (_, _, key, line) = best
            .filter_map(|(line, client, of_client)| {
                let (class, start, key) = self.head(client, of_client)?;
                Some((class, start, key, line))
            })
            .min_by_key(|&(class, start, key, _)| (class, start, key))?;
        Some((key, line.ready.first()?.1.clone()))
    }

    /// The first job of a client, with what its place depends on.
    fn head(&self, client: &str, line: &ClientLine) -> Option<(u8, u64, Key)> {
        let (start, n_urgent) = self.account(client);
        match line.urgent.first() {
            Some(key) if n_urgent < URGENT_ATTEMPTS_MAX => Some((0, start, key)),
            urgent => urgent.into_iter().chain(line.usual.first()).min().map(|key| (1, start, key)),
        }
    }

    /// When a client's next job would start in the clients' shared time, and how many urgent ones run.
    fn account(&self, client: &str) -> (u64, u32) {
        let account = self.clients.get(client);
        let charged_ms = account.map_or(0, |account| account.charged_ms);
        (charged_ms.max(self.virtual_ms), account.map_or(0, |account| account.n_urgent))
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

    /// Why a pool is held.
    pub fn held(&self, pool: &str) -> Option<&str> {
        self.held.get(pool).map(String::as_str)
    }

    /// How many queued jobs of the pool go before this one, if each took `typical_ms`. Urgent jobs count as before all
    /// others, even those beyond [`URGENT_ATTEMPTS_MAX`].
    pub fn ahead(&self, client: &str, urgency: Urgency, key: Key, pool: &str, typical_ms: u64) -> u64 {
        let typical_ms = typical_ms.max(1);
        let lines = || self.lines.iter().filter(|(demand, _)| demand.pool == pool).map(|(_, line)| line);
        let of_class = |line: &ClientLine| match urgency {
            Urgency::Urgent => line.urgent.len() as u64,
            Urgency::Usual => line.usual.len() as u64,
        };
        let (mut own, mut urgent) = (0, 0);
        let mut others: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, line) in lines().flat_map(|line| &line.clients) {
            urgent += line.urgent.len() as u64;
            if **name == *client {
                own += match urgency {
                    Urgency::Urgent => line.urgent.rank(key),
                    Urgency::Usual => line.usual.rank(key),
                } as u64;
            } else {
                *others.entry(name).or_default() += of_class(line);
            }
        }
        let start = self.account(client).0.saturating_add(own * typical_ms);
        let before = others.into_iter().map(|(name, count)| {
            let its = self.account(name).0;
            count.min(start.saturating_sub(its).div_ceil(typical_ms))
        });
        let before: u64 = before.sum();
        own + before + if urgency == Urgency::Usual { urgent } else { 0 }
    }

    /// How long a job with so many before it may wait for one of `n_slots` slots.
    pub fn wait_ms(&self, pool: &str, ahead: u64, typical_ms: u64, n_slots: u64, now: Timestamp) -> Option<u64> {
        let running = self.running.get(pool).copied().unwrap_or_default();
        let now_ms = now.ms_since(Timestamp(0));
        let left_ms = running.ends_ms.saturating_sub(running.count.saturating_mul(now_ms));
        ahead.saturating_mul(typical_ms).saturating_add(left_ms).checked_div(n_slots)
    }

    /// An attempt that is to end at `end` runs in a pool.
    pub fn note_running(&mut self, pool: &str, end: Timestamp) {
        if !self.running.contains_key(pool) {
            self.running.insert(pool.to_owned(), Running::default());
        }
        let running = self.running.get_mut(pool).expect("it has just been put in");
        running.count += 1;
        running.ends_ms += end.ms_since(Timestamp(0));
    }

    /// An attempt that was to end at `end` runs no longer.
    pub fn note_stopped(&mut self, pool: &str, end: Timestamp) {
        if let Some(running) = self.running.get_mut(pool) {
            running.count -= 1;
            running.ends_ms -= end.ms_since(Timestamp(0));
            if running.count == 0 {
                self.running.remove(pool);
            }
        }
    }

    /// What pools look like from here: queues, what runs, holds, charges.
    pub fn paint_pools(&self, pools: &mut BTreeMap<String, PoolState>) {
        for (demand, line) in self.lines.iter().filter(|(_, line)| line.n_queued > 0) {
            let pool = pools.entry(demand.pool.clone()).or_default();
            pool.queued += line.n_queued as u64;
            for (client, waiting) in &line.clients {
                let charged_ms = self.clients.get(client).map_or(0, |account| account.charged_ms);
                let state = pool.clients.entry((**client).to_owned()).or_default();
                state.queued += (waiting.urgent.len() + waiting.usual.len()) as u64;
                (state.charged_ms, state.ahead_ms) = (charged_ms, charged_ms.saturating_sub(self.virtual_ms));
            }
        }
        for (pool, running) in &self.running {
            pools.entry(pool.clone()).or_default().running = running.count;
        }
        for (pool, reason) in &self.held {
            pools.entry(pool.clone()).or_default().held = Some(reason.clone());
        }
    }

    /// The first `limit` keys of a pool after `after`, in order of age.
    pub fn queue(&self, pool: &str, after: Option<Key>, limit: usize) -> Vec<Key> {
        let lines = self.lines.iter().filter(|(demand, _)| demand.pool == pool);
        let all = lines.flat_map(|(_, line)| line.clients.values());
        let mut keys = BTreeSet::new();
        for ranked in all.flat_map(|line| [&line.urgent, &line.usual]) {
            keys.extend(ranked.after(after).take(limit));
            while keys.len() > limit {
                keys.pop_last();
            }
        }
        let aside = self.aside.jobs.iter().filter(|(_, waiting)| waiting.demand.pool == pool).map(|(&key, _)| key);
        keys.extend(aside.filter(|&key| after.is_none_or(|after| key > after)).take(limit));
        while keys.len() > limit {
            keys.pop_last();
        }
        keys.into_iter().collect()
    }

    /// The jobs that none of these workers could run even if it were idle, in order of line.
    pub fn unmatched<'a>(&'a self, workers: &[&Presence]) -> impl Iterator<Item = Key> + use<'a> {
        let idle = Resources::default();
        let unmet = |demand: &Demand| !workers.iter().any(|worker| demand.is_met_by(worker, idle));
        let is_unmet = |&(demand, line): &(&Demand, &Line)| line.n_queued > 0 && unmet(demand);
        let lines: Vec<_> = self.lines.iter().filter(is_unmet).map(|(_, line)| line).collect();
        lines
            .into_iter()
            .flat_map(|line| line.clients.values())
            .flat_map(|line| line.urgent.iter().chain(line.usual.iter()))
    }

    /// An attempt was leased: charges its client the estimate, which is given back for the correction.
    pub fn charge(&mut self, client: &str, project: &str, job_id: &str) -> u64 {
        let estimate = self.estimate_ms(project, job_id);
        let virtual_ms = self.virtual_ms;
        let account = self.client(client);
        let start = account.charged_ms.max(virtual_ms);
        account.charged_ms = start.saturating_add(estimate);
        self.virtual_ms = start;
        estimate
    }

    /// An attempt ended: what was charged becomes what it took.
    pub fn settle(&mut self, client: &str, charged_ms: u64, took_ms: u64) {
        let account = self.client(client);
        account.charged_ms = account.charged_ms.saturating_sub(charged_ms).saturating_add(took_ms);
    }

    /// An attempt of a client begins, or has ended.
    pub fn note_urgent(&mut self, client: &str, urgency: Urgency, is_begun: bool) {
        if urgency == Urgency::Urgent {
            let n_urgent = &mut self.client(client).n_urgent;
            *n_urgent = if is_begun { *n_urgent + 1 } else { n_urgent.saturating_sub(1) };
        }
    }

    /// Charges by client, the shared time, and how long jobs took, to be kept.
    pub fn standing(&self) -> (BTreeMap<String, u64>, u64, Vec<Took>) {
        let charges = self.clients.iter().map(|(name, client)| ((**name).to_owned(), client.charged_ms)).collect();
        (charges, self.virtual_ms, self.took())
    }

    /// How long jobs took, by project and id.
    fn took(&self) -> Vec<Took> {
        let of_project = |(project, jobs): (&String, &HashMap<String, u64>)| {
            let project = project.clone();
            let job =
                move |(job, &took_ms): (&String, &u64)| Took { project: project.clone(), job: job.clone(), took_ms };
            jobs.iter().map(job).collect::<Vec<_>>()
        };
        let mut took: Vec<Took> = self.estimates.iter().flat_map(of_project).collect();
        took.sort_unstable();
        took
    }

    /// Takes over what was kept.
    pub fn stand(&mut self, charges: BTreeMap<String, u64>, virtual_ms: u64, took: Vec<Took>) {
        for (name, charged_ms) in charges {
            self.clients.insert(name.into(), Client { charged_ms, n_urgent: 0 });
        }
        self.virtual_ms = virtual_ms;
        for Took { project, job, took_ms } in took {
            self.learn(&project, &job, took_ms);
        }
    }

    /// Learns how long a project's job of this id takes: the mean of the new duration and the earlier estimate.
    pub fn learn(&mut self, project: &str, job_id: &str, took_ms: u64) {
        if let Some(estimate) = self.estimates.get_mut(project).and_then(|jobs| jobs.get_mut(job_id)) {
            *estimate = estimate.midpoint(took_ms);
        } else if self.n_estimates < ESTIMATES_MAX {
            self.n_estimates += 1;
            self.estimates.entry(project.to_owned()).or_default().insert(job_id.to_owned(), took_ms);
        }
    }

    /// How long a project's job of this id took before, in milliseconds.
    pub fn estimate_ms(&self, project: &str, job_id: &str) -> u64 {
        let estimate = self.estimates.get(project).and_then(|jobs| jobs.get(job_id));
        estimate.copied().unwrap_or(ESTIMATE_DEFAULT_MS)
    }

    /// What facts say of it, for comparison.
    pub fn portrait(&self) -> String {
        format!("at {} {:?} {:?}", self.virtual_ms, self.clients, self.took())
    }

    fn client(&mut self, client: &str) -> &mut Client {
        if !self.clients.contains_key(client) {
            self.clients.insert(client.into(), Client::default());
        }
        self.clients.get_mut(client).expect("it has just been put in")
    }
}

impl ClientLine {
    fn of(&mut self, urgency: Urgency) -> &mut Ranked {
        match urgency {
            Urgency::Urgent => &mut self.urgent,
            Urgency::Usual => &mut self.usual,
        }
    }
}
