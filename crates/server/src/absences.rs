//! Which workers are away: noted once a minute by the server that leads, for whoever looks at an installation from beside it
//! (`doctor.rs`), since only the server itself knows who is joined.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use graph::Timestamp;
use serde::{Deserialize, Serialize};

use crate::records::{Document, RecordError, WorkerRecord};
use crate::server::Server;

/// How often it is noted.
pub const NOTED_EVERY: Duration = Duration::from_secs(60);
/// Of how many workers, so that it fits into a record; of more the rest is not noted.
pub const AWAY_MAX: usize = 1000;

/// The workers that were away when it was noted last. One document, written when it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absences {
    /// By id: since when, to a minute.
    pub away: BTreeMap<String, Timestamp>,
}

impl Document for Absences {
    const KIND: &'static str = "absences";
}

impl Absences {
    /// The key of the one document.
    pub const KEY: &'static str = "last";

    /// What there is to note at `now`; who was away before has been since then.
    fn now(&self, known: &[(String, WorkerRecord)], joined: &BTreeSet<String>, now: Timestamp) -> Self {
        let away = known.iter().map(|(id, _)| id).filter(|id| !joined.contains(*id)).take(AWAY_MAX);
        Self { away: away.map(|id| (id.clone(), self.away.get(id).copied().unwrap_or(now))).collect() }
    }

    /// The pools whose workers are all away: each with the one that went last, and when.
    #[must_use]
    pub fn deserted<'a>(&self, known: &'a [(String, WorkerRecord)]) -> BTreeMap<&'a str, (&'a str, Timestamp)> {
        let mut pools: BTreeMap<&str, Option<(&str, Timestamp)>> = BTreeMap::new();
        for (id, worker) in known {
            for pool in &worker.pools {
                let left = self.away.get(id).map(|since| (worker.name.as_str(), *since));
                let last = pools.entry(pool).or_insert(left);
                *last = last.zip(left).map(|(one, other)| if other.1 > one.1 { other } else { one });
            }
        }
        pools.into_iter().filter_map(|(pool, last)| Some((pool, last?))).collect()
    }
}

/// Notes it again and again, until the server has ended.
pub async fn keep(server: Weak<Server>) {
    loop {
        tokio::time::sleep(NOTED_EVERY).await;
        let Some(server) = server.upgrade() else { return };
        // A server whose shell has ended leads no more, and others know better who is joined.
        if server.shell.ask(|_| ()).await.is_err() {
            return;
        }
        let joined = server.dispatch.sessions().into_iter().map(|session| session.worker.to_string()).collect();
        // What the store refuses now is noted the next time.
        let _ = tokio::task::spawn_blocking(move || note(&server, &joined)).await;
    }
}

fn note(server: &Arc<Server>, joined: &BTreeSet<String>) -> Result<(), RecordError> {
    let before = server.records.read::<Absences>(Absences::KEY)?.map(|(before, _)| before).unwrap_or_default();
    let present = before.now(&server.records.all()?, joined, server.now());
    if present == before {
        return Ok(());
    }
    server.records.write(Absences::KEY, &present, server.now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_deserted_once_its_last_worker_is_away() {
        let known =
            [("1", "ann", "linux arm"), ("2", "bob", "linux"), ("3", "cid", "arm gpu")].map(|(id, name, pools)| {
                let pools = pools.split(' ').map(str::to_owned).collect();
                (id.to_owned(), WorkerRecord { name: name.to_owned(), pools, ..WorkerRecord::default() })
            });
        let mut absences = Absences::default();
        let mut check = |joined: &[&str], now: i64, expected: &[(&str, &str, i64)]| {
            let joined = joined.iter().map(|&id| id.to_owned()).collect();
            absences = absences.now(&known, &joined, Timestamp(now));
            let deserted = absences.deserted(&known);
            let found: Vec<_> = deserted.iter().map(|(pool, (name, since))| (*pool, *name, since.0)).collect();
            assert_eq!(found, expected);
        };
        check(&["1", "2", "3"], 1, &[]);
        check(&["2"], 2, &[("arm", "ann", 2), ("gpu", "cid", 2)]);
        check(&["2", "3"], 3, &[]);
        check(&[], 4, &[("arm", "cid", 4), ("gpu", "cid", 4), ("linux", "bob", 4)]);
        check(&[], 5, &[("arm", "cid", 4), ("gpu", "cid", 4), ("linux", "bob", 4)]);
    }
}
