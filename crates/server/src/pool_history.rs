//! How many jobs waited and ran in each pool over the last hour: samples in memory, taken since the server started.
//!
//! Nothing here is made up for times at which nobody looked: a chart of these begins where the first sample was taken.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::Engine;
use engine::wait::PoolState;
use graph::Timestamp;

use crate::server::Server;

/// How often is looked, in milliseconds.
pub const EVERY_MS: u64 = 15_000;
/// How old a sample may become, in microseconds.
const AGE_US_MAX: i64 = 3600 * 1_000_000;
/// How many samples of a pool are kept: those of an hour. The oldest goes.
pub const SAMPLES_MAX: usize = 240;
/// Of how many pools samples are kept; of further ones there are none.
pub const POOLS_MAX: usize = 200;

/// A pool as it was at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// The samples of all pools.
#[derive(Debug, Default)]
pub struct PoolHistory(Mutex<BTreeMap<String, VecDeque<Sample>>>);

impl PoolHistory {
    /// Notes how pools stand, by name. A pool that is not there any more ages out with those that are.
    pub fn note(&self, at: Timestamp, pools: BTreeMap<String, Sample>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// The samples of a pool, oldest first.
    #[must_use]
    pub fn of(&self, pool: &str) -> Vec<Sample> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(pool).map(|samples| samples.iter().copied().collect()).unwrap_or_default()
    }
}

/// Pools by the names that people know them by, all that is told of one name together.
#[must_use]
pub fn together(at: Timestamp, states: Vec<PoolState>, name: impl Fn(&str) -> String) -> BTreeMap<String, Sample> {
    let mut pools: BTreeMap<String, Sample> = BTreeMap::new();
    for state in states {
        let none = Sample { at, waiting: 0, running: 0, slots: 0, workers: 0 };
        let pool = pools.entry(name(&state.pool)).or_insert(none);
        pool.waiting += state.queued;
        pool.running += state.running;
        pool.slots = pool.slots.max(state.slots);
        pool.workers = pool.workers.max(state.workers);
    }
    pools
}

/// Looks at the pools until the server ends.
pub(crate) async fn keep(server: Arc<Server>) {
    loop {
        let Ok(states) = server.shell.ask(Engine::pools).await else { return };
        let at = server.now();
        server.pool_history.note(at, together(at, states, |name| crate::http::pool_name(name).to_owned()));
        tokio::time::sleep(Duration::from_millis(EVERY_MS)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_of_each_pool() {
        let history = PoolHistory::default();
        let sample = |at: i64| Sample { at: Timestamp(at), waiting: 1, running: 0, slots: 0, workers: 0 };
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
}
