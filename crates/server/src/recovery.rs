//! How a server finds its engine again: the standing that was saved last, the facts of the builds that had not ended then, and
//! all facts since. Without a standing: the facts of the builds that have not ended.
//!
//! A standing is saved beside the number of the last append that it knows ([`store::Sequence`]), taken between two steps,
//! so that both speak of the same moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engine::fact::What;
use engine::{BuildRequest, Engine, Fact, Standing};
use graph::{AttemptNumber, BuildId, LeaseId, Timestamp, with_causes};
use serde::{Deserialize, Serialize};
use store::record::BODY_BYTES_MAX;
use store::{PAGE_ROWS_MAX, Sequence, Store, StoreError};

use crate::lead::Term;
use crate::notices;
use crate::records::{Document, RecordError, Records};
use crate::request::{ShellHandle, Stopped};

/// How often the standing is saved.
pub const SAVED_EVERY: Duration = Duration::from_secs(60);
/// After how many facts that a start had to fold since the last standing one is saved at once: a server that dies again and again
/// before [`SAVED_EVERY`] would fold more each time.
pub const FOLDED_MAX: usize = 1000;
/// How many appends are kept in the journal before the saved standing, for followers of all builds that were away.
pub const APPENDS_KEPT: u64 = 100_000;

/// The key of the one record.
const KEY: &str = "last";

/// A standing and how far it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The last append that it knows.
    pub sequence: Sequence,
    /// The standing.
    pub standing: Standing,
}

impl Document for Saved {
    const KIND: &'static str = "standing";
}

/// What was found.
pub struct Recovered {
    /// The engine, as it was after the last fact.
    pub engine: Engine,
    /// What was asked for of each build that it holds.
    pub requests: BTreeMap<BuildId, Arc<BuildRequest>>,
    /// Those of them that have ended, and when.
    pub ended: Vec<(BuildId, Timestamp)>,
    /// When the attempts began that had not ended.
    pub begun: BTreeMap<(BuildId, AttemptNumber), Timestamp>,
    /// When a standing is to be saved first.
    pub first_save: FirstSave,
}

/// When a server saves a standing for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstSave {
    /// At once: much has happened since the last one.
    Now,
    /// After [`SAVED_EVERY`].
    Later,
}

/// Finds the engine. Blocks.
///
/// # Errors
/// As the store or the record refuses.
pub fn recover(store: &dyn Store, records: &Records, now: Timestamp) -> Result<Recovered, RecordError> {
    let unfinished: BTreeSet<BuildId> = store.unfinished()?.into_iter().collect();
    let saved = records.read::<Saved>(KEY)?.map(|(saved, _)| saved);
    let after = match &saved {
        Some(saved) => facts_after(store, saved.sequence)?,
        None => Vec::new(),
    };
    let mut later: BTreeMap<BuildId, usize> = BTreeMap::new();
    for fact in &after {
        *later.entry(fact.build).or_default() += 1;
    }
    let mut before: Vec<Fact> = Vec::new();
    for build in unfinished.iter().copied().chain(later.keys().copied().filter(|build| !unfinished.contains(build))) {
        let mut facts = store.facts(build)?;
        facts.truncate(facts.len().saturating_sub(later.get(&build).copied().unwrap_or(0)));
        before.extend(facts);
    }
    let (mut requests, mut ended, mut begun) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for fact in before.iter().chain(&after) {
        match &fact.what {
            What::BuildCreated(request) => {
                requests.insert(fact.build, Arc::new((**request).clone()));
            }
            What::AttemptLeased { attempt, .. } | What::AttemptAdopted { attempt, .. } => {
                begun.insert((fact.build, *attempt), fact.at);
            }
            What::AttemptFinished { attempt, .. } => {
                begun.remove(&(fact.build, *attempt));
            }
            What::BuildEnded { .. } => {
                ended.insert(fact.build, fact.at);
            }
            What::JobRetried { .. } => {
                ended.remove(&fact.build);
            }
            _ => {}
        }
    }
    let engine = match saved {
        Some(saved) => Engine::recover(saved.standing, &before, &after),
        None => {
            // Numbered after the clock, leases are larger than all that were given before.
            let mut engine = Engine::after_lease(LeaseId(now.0.unsigned_abs()));
            before.iter().for_each(|fact| engine.apply(fact));
            engine
        }
    };
    let first_save = if after.len() >= FOLDED_MAX { FirstSave::Now } else { FirstSave::Later };
    begun.retain(|(build, _), _| !ended.contains_key(build));
    Ok(Recovered { engine, requests, ended: ended.into_iter().collect(), begun, first_save })
}

/// All facts stored after an append, in their order.
fn facts_after(store: &dyn Store, mut after: Sequence) -> Result<Vec<Fact>, StoreError> {
    let mut facts = Vec::new();
    loop {
        let page = store.journal(after, PAGE_ROWS_MAX)?;
        let Some((last, _)) = page.last() else { return Ok(facts) };
        after = *last;
        facts.extend(page.into_iter().flat_map(|(_, facts)| facts));
    }
}

/// Saves the standing now and then, until the shell has ended.
pub async fn save_standings(
    shell: ShellHandle,
    store: Arc<dyn Store>,
    records: Records,
    clock: fn() -> Timestamp,
    term: Term,
    first: FirstSave,
) {
    let mut last = Sequence::default();
    let mut wait = if first == FirstSave::Now { Duration::ZERO } else { SAVED_EVERY };
    loop {
        tokio::time::sleep(wait).await;
        wait = SAVED_EVERY;
        match save(&shell, &store, &records, clock, term, last).await {
            Ok(sequence) => last = sequence,
            Err(Stopped) => return,
        }
    }
}

/// Saves the standing, unless nothing was appended since `last`, or the server leads no more: the last append may be
/// another's then. Gives how far the saved one knows.
///
/// # Errors
/// [`Stopped`].
pub async fn save(
    shell: &ShellHandle,
    store: &Arc<dyn Store>,
    records: &Records,
    clock: fn() -> Timestamp,
    term: Term,
    last: Sequence,
) -> Result<Sequence, Stopped> {
    let asked = Arc::clone(store);
    // Asked on the shell's own thread, which alone appends: both are of one moment.
    let taken = shell.ask(move |engine| {
        let sequence = asked.last_sequence().ok().filter(|sequence| *sequence > last)?;
        Some(Saved { sequence, standing: engine.standing() })
    });
    let Some(mut saved) = taken.await? else { return Ok(last) };
    let (sequence, store, records) = (saved.sequence, Arc::clone(store), records.clone());
    let written = tokio::task::spawn_blocking(move || {
        // Asked after the standing was taken: a new leader writes its record before its first append.
        if !term.is_current(&records)? {
            return Ok(last);
        }
        fit(&mut saved, BODY_BYTES_MAX);
        records.write(KEY, &saved, clock())?;
        store.prune_journal(Sequence(sequence.0.saturating_sub(APPENDS_KEPT)))?;
        Ok::<_, RecordError>(sequence)
    });
    match written.await {
        Ok(Ok(saved)) => Ok(saved),
        Ok(Err(error)) => {
            notices::warning(&format!("the standing of clients was not saved: {}", with_causes(&error)));
            Ok(last)
        }
        Err(_) => Ok(last),
    }
}

/// Leaves out of a standing what matters least, until it fits into a record. In this order: how long jobs take, of which the
/// short ones go first, since they are learnt again soonest; where jobs are warm, noted longest ago; what clients were charged,
/// the least charged first, who begin anew at the shared time, where most of them stood already; corrections of what runs, the
/// smallest first.
fn fit(saved: &mut Saved, bytes_max: usize) {
    // Our own types serialize to JSON whatever they hold.
    let length = |saved: &Saved| serde_json::to_vec(saved).expect("a standing always serializes").len();
    let steps: [fn(&mut Standing, usize); 4] = [
        |standing, excess| {
            standing.took.sort_unstable_by_key(|took| took.took_ms);
            leave_out_first(&mut standing.took, excess);
        },
        |standing, excess| leave_out_first(&mut standing.warmth, excess),
        |standing, excess| leave_out(&mut standing.charges, excess),
        |standing, excess| leave_out(&mut standing.running, excess),
    ];
    for step in steps {
        let excess = length(saved).saturating_sub(bytes_max);
        if excess == 0 {
            return;
        }
        step(&mut saved.standing, excess);
    }
    if length(saved) > bytes_max {
        saved.standing.warm.clear();
    }
}

/// Leaves out the smallest values until at least so many bytes are gone.
fn leave_out<K: Ord + Clone + Serialize>(values: &mut BTreeMap<K, u64>, mut excess: usize) {
    let mut order: Vec<(u64, K)> = values.iter().map(|(key, value)| (*value, key.clone())).collect();
    order.sort_unstable();
    for (value, key) in order {
        if excess == 0 {
            return;
        }
        values.remove(&key);
        // A key is a text or a number; at least its digits, a colon and a comma go with it.
        let key = serde_json::to_vec(&key).map_or(1, |text| text.len());
        excess = excess.saturating_sub(key + value.to_string().len() + 2);
    }
}

/// Leaves out the first values until at least so many bytes are gone.
fn leave_out_first<T: Serialize>(values: &mut Vec<T>, mut excess: usize) {
    let n_left_out = values.iter().take_while(|value| {
        let goes = excess > 0;
        excess = excess.saturating_sub(serde_json::to_vec(value).map_or(1, |text| text.len()));
        goes
    });
    let n_left_out = n_left_out.count();
    values.drain(..n_left_out);
}

#[cfg(test)]
mod tests {
    use engine::{Took, Warm};
    use store::MemoryStore;

    use super::*;

    /// A standing whose parts have so many entries each, and what is left of it in a record.
    #[track_caller]
    fn check(n_clients: usize, n_jobs: usize, n_running: u64) -> Standing {
        let named = |what: &str, count: usize| {
            (0..count).map(|number| (format!("{what}-{number:0>90}"), number as u64 * 1000)).collect()
        };
        let warm = |number: usize| Warm { project: "p".repeat(90), job: number.to_string(), ..Warm::default() };
        let took = |number: usize| {
            let job = format!("job-{number:0>90}");
            Took { project: "p".repeat(90), job, took_ms: number as u64 * 1000 }
        };
        let standing = Standing {
            charges: named("client", n_clients),
            took: (0..n_jobs).map(took).collect(),
            warmth: (0..n_jobs).map(warm).collect(),
            running: (0..n_running).map(|lease| (LeaseId(u64::MAX / 2 + lease), lease)).collect(),
            warm: (0..n_running).map(|lease| LeaseId(u64::MAX / 2 + lease)).collect(),
            last_lease: LeaseId(u64::MAX),
            ..Standing::default()
        };
        let mut saved = Saved { sequence: Sequence(7), standing };
        fit(&mut saved, BODY_BYTES_MAX);
        let records = Records::new(Arc::new(MemoryStore::default()));
        records.write(KEY, &saved, Timestamp(1)).expect("it fits into a record");
        let (read, _) = records.read::<Saved>(KEY).expect("it can be read").expect("it is there");
        assert_eq!(read, saved);
        saved.standing
    }

    #[test]
    fn what_fits_is_saved_whole() {
        let standing = check(100, 100, 100);
        assert_eq!((standing.charges.len(), standing.took.len()), (100, 100));
        assert_eq!((standing.warmth.len(), standing.running.len(), standing.warm.len()), (100, 100, 100));
    }

    #[test]
    fn charges_outlive_durations_and_the_largest_outlive_the_others() {
        let standing = check(5000, 20_000, 1000);
        assert_eq!((standing.charges.len(), standing.running.len(), standing.took.len()), (5000, 1000, 0));
        let standing = check(50_000, 10, 1000);
        assert!(standing.took.is_empty() && standing.warmth.is_empty());
        assert!((5000..50_000).contains(&standing.charges.len()), "{}", standing.charges.len());
        let least = standing.charges.values().min();
        assert_eq!(least, Some(&((50_000 - standing.charges.len() as u64) * 1000)), "the largest are kept");
        assert_eq!(standing.running.len(), 1000);
    }

    #[test]
    fn nothing_is_too_much() {
        let standing = check(50_000, 20_000, 100_000);
        assert_eq!(standing.last_lease, LeaseId(u64::MAX));
    }
}
