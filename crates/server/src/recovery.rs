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
use graph::{BuildId, LeaseId, Timestamp};
use serde::{Deserialize, Serialize};
use store::{PAGE_ROWS_MAX, Sequence, Store, StoreError};

use crate::lead::Term;
use crate::records::{Document, RecordError, Records};
use crate::request::{ShellHandle, Stopped};
use crate::world::full;

/// How often the standing is saved.
pub const SAVED_EVERY: Duration = Duration::from_secs(60);
/// How many appends are kept in the journal before the saved standing, for followers of all builds that were away.
pub const APPENDS_KEPT: u64 = 100_000;
/// The most jobs whose usual durations are saved; the others are learnt again.
pub const ESTIMATES_SAVED_MAX: usize = 10_000;
/// The most clients whose charges are saved; the others begin anew.
pub const CHARGES_SAVED_MAX: usize = 5000;

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
    let (mut requests, mut ended) = (BTreeMap::new(), BTreeMap::new());
    for fact in before.iter().chain(&after) {
        match &fact.what {
            What::BuildCreated(request) => {
                requests.insert(fact.build, Arc::new((**request).clone()));
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
    Ok(Recovered { engine, requests, ended: ended.into_iter().collect() })
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
) {
    let mut last = Sequence::default();
    loop {
        tokio::time::sleep(SAVED_EVERY).await;
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
        cut(&mut saved.standing.estimates, ESTIMATES_SAVED_MAX);
        cut(&mut saved.standing.charges, CHARGES_SAVED_MAX);
        records.write(KEY, &saved, clock())?;
        store.prune_journal(Sequence(sequence.0.saturating_sub(APPENDS_KEPT)))?;
        Ok::<_, RecordError>(sequence)
    });
    match written.await {
        Ok(Ok(saved)) => Ok(saved),
        Ok(Err(error)) => {
            eprintln!("warning: the standing of clients was not saved: {}", full(&error));
            Ok(last)
        }
        Err(_) => Ok(last),
    }
}

fn cut(values: &mut BTreeMap<String, u64>, most: usize) {
    while values.len() > most {
        values.pop_last();
    }
}
