//! Which workers have run which jobs, and how long attempts took where the job was warm and where it was cold.
//!
//! Learnt from facts alone and kept in the standing, so a restart knows it again. Bounded: the key that was noted longest
//! ago goes first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use graph::WorkerId;
use serde::{Deserialize, Serialize};

/// The most jobs of which it is known where they are warm; the one noted longest ago is forgotten first.
pub const WARM_KEYS_MAX: usize = 20_000;
/// The most workers on which a job counts as warm; the one that ran it longest ago is forgotten first.
pub const WARM_WORKERS_MAX: usize = 8;
/// About how many bytes of it a standing keeps, as JSON; what was noted longest ago is left out. A standing must fit into
/// a record.
pub const WARMTH_KEPT_BYTES_MAX: usize = 256 << 10;
/// The most that warmth is taken to save, in milliseconds, and so the longest that a job waits for a warm worker.
pub const SAVING_MS_MAX: u64 = 300_000;
/// What warmth is taken to save, in milliseconds, until the job has been measured both warm and cold.
pub const SAVING_DEFAULT_MS: u64 = 2000;

/// What finds the same things on a worker's disk: a job of a project, all legs of its matrix together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WarmthKey {
    /// The project, as [`graph::Origin::project`] has it.
    pub project: String,
    /// The job's id, without its leg.
    pub job: String,
}

/// How an attempt found its worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Start {
    /// The job had never run there, or so long ago that it is forgotten.
    #[default]
    Cold,
    /// The job had run there before.
    Warm,
}

/// What is kept of one job. A stored shape: fields are only ever added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Warm {
    /// The project.
    pub project: String,
    /// The job's id, without its leg.
    pub job: String,
    /// Where it is warm, the latest last, at most [`WARM_WORKERS_MAX`].
    pub workers: Vec<WorkerId>,
    /// How long attempts took that found their worker cold, in milliseconds.
    pub cold_ms: Option<u64>,
    /// How long attempts took that found it warm, in milliseconds.
    pub warm_ms: Option<u64>,
}

impl Warm {
    /// About how long it is as JSON: its names, and what stands around them and its numbers.
    fn n_bytes(&self) -> usize {
        let names: usize = self.workers.iter().map(|worker| worker.0.len() + 3).sum();
        90 + self.project.len() + self.job.len() + names
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Warmth {
    entries: HashMap<Arc<WarmthKey>, Entry>,
    /// Keys by when they were noted last.
    order: BTreeMap<u64, Arc<WarmthKey>>,
    n_notes: u64,
}

#[derive(Debug, Default)]
struct Entry {
    workers: Vec<WorkerId>,
    cold_ms: Option<u64>,
    warm_ms: Option<u64>,
    noted: u64,
}

impl Warmth {
    /// The workers on which a job is warm, the latest last.
    pub fn workers(&self, key: &WarmthKey) -> &[WorkerId] {
        self.entries.get(key).map_or(&[], |entry| &entry.workers)
    }

    /// How an attempt that begins now on this worker finds it.
    pub fn start_on(&self, key: &WarmthKey, worker: &WorkerId) -> Start {
        if self.workers(key).contains(worker) { Start::Warm } else { Start::Cold }
    }

    /// What it saves to run a job where it is warm, in milliseconds: the measured difference, at most
    /// [`SAVING_MS_MAX`]; [`SAVING_DEFAULT_MS`] if one side has not been measured.
    pub fn saving_ms(&self, key: &WarmthKey) -> u64 {
        let measured = self.entries.get(key).and_then(|entry| Some(entry.cold_ms?.saturating_sub(entry.warm_ms?)));
        measured.unwrap_or(SAVING_DEFAULT_MS).min(SAVING_MS_MAX)
    }

    /// An attempt ran on this worker. `took` tells how it found it, and for how many milliseconds it ran, if that says how
    /// long such a job takes: the mean of it and of what was known is known from now on.
    pub fn note(&mut self, key: WarmthKey, worker: &WorkerId, took: Option<(Start, u64)>) {
        self.n_notes += 1;
        let key = match self.entries.get_key_value(&key) {
            Some((key, entry)) => {
                self.order.remove(&entry.noted);
                Arc::clone(key)
            }
            None => Arc::new(key),
        };
        self.order.insert(self.n_notes, Arc::clone(&key));
        let entry = self.entries.entry(key).or_default();
        entry.noted = self.n_notes;
        entry.workers.retain(|other| other != worker);
        if entry.workers.len() >= WARM_WORKERS_MAX {
            entry.workers.remove(0);
        }
        entry.workers.push(worker.clone());
        if let Some((start, took_ms)) = took {
            let known = match start {
                Start::Cold => &mut entry.cold_ms,
                Start::Warm => &mut entry.warm_ms,
            };
            *known = Some(known.map_or(took_ms, |before| before.midpoint(took_ms)));
        }
        self.forget_oldest();
    }

    fn forget_oldest(&mut self) {
        while self.order.len() > WARM_KEYS_MAX {
            if let Some((_, key)) = self.order.pop_first() {
                self.entries.remove(&key);
            }
        }
    }

    /// What of it is to be kept, the key noted longest ago first: at most [`WARMTH_KEPT_BYTES_MAX`] of the latest.
    pub fn standing(&self) -> Vec<Warm> {
        let mut n_bytes = 0;
        let latest = self.order.values().rev().filter_map(|key| {
            let Entry { workers, cold_ms, warm_ms, .. } = self.entries.get(key)?;
            let (project, job) = (key.project.clone(), key.job.clone());
            Some(Warm { project, job, workers: workers.clone(), cold_ms: *cold_ms, warm_ms: *warm_ms })
        });
        let fitting = latest.take_while(|warm| {
            n_bytes += warm.n_bytes();
            n_bytes <= WARMTH_KEPT_BYTES_MAX
        });
        let mut kept: Vec<Warm> = fitting.collect();
        kept.reverse();
        kept
    }

    /// What was kept, taken over.
    pub fn of(standing: Vec<Warm>) -> Self {
        let mut warmth = Self::default();
        for Warm { project, job, workers, cold_ms, warm_ms } in standing {
            let key = WarmthKey { project, job };
            let n_excess = workers.len().saturating_sub(WARM_WORKERS_MAX);
            for worker in &workers[n_excess..] {
                warmth.note(key.clone(), worker, None);
            }
            if let Some(entry) = warmth.entries.get_mut(&key) {
                (entry.cold_ms, entry.warm_ms) = (cold_ms, warm_ms);
            }
        }
        warmth
    }
}

#[cfg(test)]
mod tests {
    use graph::WorkerId;

    use super::{
        SAVING_DEFAULT_MS, SAVING_MS_MAX, Start, WARM_KEYS_MAX, WARM_WORKERS_MAX, WARMTH_KEPT_BYTES_MAX, Warmth,
        WarmthKey,
    };

    fn key(job: usize) -> WarmthKey {
        WarmthKey { project: "sails".to_owned(), job: format!("j{job}") }
    }

    fn worker(number: usize) -> WorkerId {
        WorkerId(format!("w{number}").into())
    }

    #[test]
    fn the_oldest_keys_and_workers_are_forgotten() {
        let mut warmth = Warmth::default();
        for number in 0..=WARM_KEYS_MAX {
            warmth.note(key(number), &worker(0), None);
            // Noted again and again, it is never the oldest.
            warmth.note(key(0), &worker(number % 2), None);
        }
        assert_eq!(warmth.workers(&key(0)), [worker(1), worker(0)]);
        assert_eq!(warmth.workers(&key(1)), []);
        assert_eq!(warmth.workers(&key(2)), [worker(0)]);
        assert_eq!(warmth.entries.len(), WARM_KEYS_MAX);
        let kept = warmth.standing();
        let n_bytes = serde_json::to_string(&kept).expect("it serializes").len();
        assert!((WARMTH_KEPT_BYTES_MAX / 2..=WARMTH_KEPT_BYTES_MAX).contains(&n_bytes), "{n_bytes}");
        assert_eq!(kept.last().map(|warm| &*warm.job), Some("j0"));
        for number in 0..=WARM_WORKERS_MAX {
            warmth.note(key(2), &worker(number), None);
        }
        assert_eq!(warmth.workers(&key(2)).len(), WARM_WORKERS_MAX);
        assert_eq!(warmth.start_on(&key(2), &worker(0)), Start::Cold);
        assert_eq!(Warmth::of(warmth.standing()).standing(), warmth.standing());
    }

    #[test]
    fn what_warmth_saves_is_measured_and_bounded() {
        let mut warmth = Warmth::default();
        let mut saving_after = |start, took_ms| {
            warmth.note(key(0), &worker(0), Some((start, took_ms)));
            warmth.saving_ms(&key(0))
        };
        assert_eq!(saving_after(Start::Cold, 50_000), SAVING_DEFAULT_MS);
        assert_eq!(saving_after(Start::Warm, 20_000), 30_000);
        assert_eq!(saving_after(Start::Warm, 200_000), 0);
        assert_eq!(saving_after(Start::Cold, 10_000_000), SAVING_MS_MAX);
    }
}
