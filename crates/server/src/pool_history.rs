//! How many jobs waited and ran in each pool over the last hour: samples in memory, noted every minute so that they outlive the server.
//!
//! Nothing here is made up for times at which nobody looked: a chart of these begins where the first sample was taken, and a time
//! without a server stays empty.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::pool::Waits;
use engine::Engine;
use engine::wait::PoolState;
use graph::Timestamp;
use serde::{Deserialize, Serialize};

use crate::lock::lock;
use crate::notices;
use crate::records::{Document, RecordError, Records};
use crate::server::Server;

/// How often is looked, in milliseconds.
pub const EVERY_MS: u64 = 15_000;
/// How old a sample may become, in microseconds.
const AGE_US_MAX: i64 = 3600 * 1_000_000;
/// How many samples of a pool are kept: those of an hour. The oldest goes.
pub const SAMPLES_MAX: usize = 240;
/// Of how many pools samples are kept; of further ones there are none.
pub const POOLS_MAX: usize = 200;

/// After how many looks what was seen is noted.
const LOOKS_NOTED: u64 = 4;
/// Notes are written in parts of so long, in microseconds: each time only the part at hand.
const PART_US: i64 = 300 * 1_000_000;
/// How many parts there are: those of an hour and the one at hand. The oldest is written over.
const PARTS: i64 = AGE_US_MAX / PART_US + 1;

/// A pool as it was at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// The jobs that waited in it.
    pub waiting: u64,
    /// The attempts that ran in it.
    pub running: u64,
    /// How many attempts its workers could run at once.
    pub slots: u64,
    /// The workers that served it and were there.
    pub workers: u64,
    /// How long those that waited had waited; `None` if nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Waits>,
}

/// What was seen within one part of the last hour; the key is the part's place, see [`PARTS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Part {
    /// Which part since 1970.
    part: i64,
    /// The samples of each pool, oldest first.
    pools: BTreeMap<String, Vec<Sample>>,
}

impl Document for Part {
    const KIND: &'static str = "pool_samples";
}

fn part_of(at: Timestamp) -> i64 {
    at.0.div_euclid(PART_US)
}

fn key(part: i64) -> String {
    part.rem_euclid(PARTS).to_string()
}

/// The samples of all pools.
#[derive(Debug, Default)]
pub struct PoolHistory(Mutex<BTreeMap<String, VecDeque<Sample>>>);

impl PoolHistory {
    /// Notes how pools stand, by name. A pool that is not there any more ages out with those that are.
    pub fn note(&self, at: Timestamp, pools: BTreeMap<String, Sample>) {
        let mut kept = lock(&self.0);
        let oldest = Timestamp(at.0 - AGE_US_MAX);
        for (name, sample) in pools {
            if kept.len() < POOLS_MAX || kept.contains_key(&name) {
                kept.entry(name).or_default().push_back(sample);
            }
        }
        for samples in kept.values_mut() {
            while samples.len() > SAMPLES_MAX || samples.front().is_some_and(|sample| sample.at < oldest) {
                samples.pop_front();
            }
        }
        kept.retain(|_, samples| !samples.is_empty());
    }

    /// Takes up what an earlier server noted, as far as it is not too old. Blocks.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn take_up(&self, records: &Records, now: Timestamp) -> Result<(), RecordError> {
        let mut parts: Vec<Part> = records.all::<Part>()?.into_iter().map(|(_, part)| part).collect();
        parts.sort_by_key(|part| part.part);
        for part in parts {
            for (name, samples) in part.pools {
                for sample in samples.into_iter().filter(|sample| sample.at <= now) {
                    self.note(now, [(name.clone(), sample)].into());
                }
            }
        }
        Ok(())
    }

    /// Notes the samples of the part at hand for a later server. Blocks.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn write(&self, records: &Records, now: Timestamp) -> Result<(), RecordError> {
        let part = part_of(now);
        // The end of the part before may not have been noted yet.
        for part in [part - 1, part] {
            let pools = self.within(part);
            if !pools.is_empty() {
                records.note(&key(part), &Part { part, pools }, now)?;
            }
        }
        Ok(())
    }

    fn within(&self, part: i64) -> BTreeMap<String, Vec<Sample>> {
        let kept = lock(&self.0);
        let of = |samples: &VecDeque<Sample>| -> Vec<Sample> {
            samples.iter().filter(|sample| part_of(sample.at) == part).copied().collect()
        };
        kept.iter()
            .map(|(name, samples)| (name.clone(), of(samples)))
            .filter(|(_, samples)| !samples.is_empty())
            .collect()
    }

    /// The samples of a pool, oldest first.
    #[must_use]
    pub fn of(&self, pool: &str) -> Vec<Sample> {
        let kept = lock(&self.0);
        kept.get(pool).map(|samples| samples.iter().copied().collect()).unwrap_or_default()
    }
}

/// What is seen when somebody looks: pools, and since when each job waits for a worker, by the name of its pool.
pub type Seen = (Vec<PoolState>, BTreeMap<String, Vec<Timestamp>>);

/// What an engine shows.
fn seen(engine: &Engine) -> Seen {
    let mut waits: BTreeMap<String, Vec<Timestamp>> = BTreeMap::new();
    for (pool, since) in engine.builds().flat_map(|build| engine.waits(build)) {
        match waits.get_mut(pool) {
            Some(waits) => waits.push(since),
            None => drop(waits.insert(pool.to_owned(), vec![since])),
        }
    }
    (engine.pools(), waits)
}

/// How long these have waited; `None` of none.
fn percentiles(at: Timestamp, mut since: Vec<Timestamp>) -> Option<Waits> {
    // Who waits longest last.
    since.sort_unstable_by(|left, right| right.cmp(left));
    let rank = |of_hundred: usize| since.get((since.len() * of_hundred).div_ceil(100).max(1) - 1);
    let waited = |of_hundred| Some(at.ms_since(*rank(of_hundred)?));
    Some(Waits { p50_ms: waited(50)?, p95_ms: waited(95)?, longest_ms: waited(100)? })
}

/// Pools by the names that people know them by, all that is told of one name together.
#[must_use]
pub fn together(at: Timestamp, (states, waits): Seen, name: impl Fn(&str) -> String) -> BTreeMap<String, Sample> {
    let mut pools: BTreeMap<String, Sample> = BTreeMap::new();
    let mut since: BTreeMap<String, Vec<Timestamp>> = BTreeMap::new();
    for (pool, waits) in waits {
        since.entry(name(&pool)).or_default().extend(waits);
    }
    for state in states {
        let none = Sample { at, waiting: 0, running: 0, slots: 0, workers: 0, waits: None };
        let pool = pools.entry(name(&state.pool)).or_insert(none);
        pool.waiting += state.queued;
        pool.running += state.running;
        pool.slots = pool.slots.max(state.slots);
        pool.workers = pool.workers.max(state.workers);
    }
    for (name, since) in since {
        if let Some(pool) = pools.get_mut(&name) {
            pool.waits = percentiles(at, since);
        }
    }
    pools
}

/// Looks at the pools until the server ends.
pub(crate) async fn keep(server: Arc<Server>) {
    let mut looks: u64 = 0;
    loop {
        let Ok(seen) = server.shell.ask(seen).await else { return };
        let at = server.now();
        server.pool_history.note(at, together(at, seen, |name| crate::http::pool_name(name).to_owned()));
        looks += 1;
        if looks.is_multiple_of(LOOKS_NOTED) {
            write(&server).await;
        }
        tokio::time::sleep(Duration::from_millis(EVERY_MS)).await;
    }
}

/// Notes what charts show for a later server. What cannot be noted now is with the next time.
pub(crate) async fn write(server: &Arc<Server>) {
    let server = Arc::clone(server);
    let noting = tokio::task::spawn_blocking(move || {
        let at = server.now();
        let noted = server.pool_history.write(&server.records, at);
        if let Err(error) = noted.and_then(|()| server.worker_time.write(&server.records, at)) {
            notices::warning(&format!("what the charts of the queue show was not kept: {error}"));
        }
    });
    let _ = noting.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_of_each_pool() {
        let history = PoolHistory::default();
        let sample = |at: i64| Sample { at: Timestamp(at), waiting: 1, running: 0, slots: 0, workers: 0, waits: None };
        let every = i64::try_from(EVERY_MS * 1000).expect("it is short");
        let n = i64::try_from(SAMPLES_MAX).expect("there are few") + 10;
        history.note(Timestamp(0), [("gone".to_owned(), sample(0))].into());
        for step in 0..n {
            let at = step * every;
            history.note(Timestamp(at), [("default".to_owned(), sample(at))].into());
        }
        let kept = history.of("default");
        assert_eq!((kept.len(), kept[0].at.0), (SAMPLES_MAX, 10 * every));
        assert_eq!(history.of("gone"), []);
    }

    #[test]
    fn an_hour_outlives_the_server() {
        let records = Records::new(Arc::new(store::MemoryStore::default()));
        let every = i64::try_from(EVERY_MS * 1000).expect("it is short");
        let sample = |at: i64| {
            let waits = (at % 2 == 0).then_some(Waits { p50_ms: 1, p95_ms: 2, longest_ms: 3 });
            Sample { at: Timestamp(at), waiting: 1, running: 2, slots: 3, workers: 4, waits }
        };
        let history = PoolHistory::default();
        for step in 0..SAMPLES_MAX as i64 + 100 {
            let at = Timestamp(step * every);
            history.note(at, [("default".to_owned(), sample(at.0)), ("b".to_owned(), sample(at.0))].into());
            if step % 4 == 3 {
                history.write(&records, at).expect("a store in memory takes it");
            }
        }
        let now = Timestamp((SAMPLES_MAX as i64 + 99) * every);
        let later = PoolHistory::default();
        later.take_up(&records, now).expect("it is there");
        assert_eq!((later.of("default"), later.of("b")), (history.of("default"), history.of("b")));
        assert_eq!(records.all::<Part>().expect("they are there").len() as i64, PARTS);
        // After an hour nothing of it is told; nor is what a clock that was set back has not reached.
        for at in [Timestamp(now.0 + AGE_US_MAX + every), Timestamp(0)] {
            let other = PoolHistory::default();
            other.take_up(&records, at).expect("it is there");
            assert_eq!(other.of("default").into_iter().filter(|sample| sample.at > at).count(), 0);
            assert!(other.of("default").len() <= 1);
        }
    }

    #[test]
    fn waits_are_told_by_the_nearest_rank_over_all_names_of_a_pool() {
        let second = |second: i64| Timestamp(second * 1_000_000);
        let pools = ["", "default", "idle"].map(|pool| PoolState { pool: pool.to_owned(), ..PoolState::default() });
        // They came after 1 to 20 seconds, in any order.
        let waits = [("", (11..=20).collect::<Vec<i64>>()), ("default", (1..=10).rev().collect())];
        let waits = waits.map(|(pool, since)| (pool.to_owned(), since.into_iter().map(second).collect()));
        let name = |pool: &str| if pool.is_empty() { "default".to_owned() } else { pool.to_owned() };
        let told = together(second(21), (pools.to_vec(), waits.into()), name);
        let expected = Waits { p50_ms: 10_000, p95_ms: 19_000, longest_ms: 20_000 };
        assert_eq!((told["default"].waits, told["idle"].waits), (Some(expected), None));
    }
}
