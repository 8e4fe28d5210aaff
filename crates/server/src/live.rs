//! What followers hear of builds: facts, steps and lines of logs, in an order that can be taken up again.
//!
//! Nothing is queued for anybody. A follower is woken and reads at its own pace: facts from memory while somebody follows
//! their build (read once from the store), lines from the log's pack. An event's id says how much was told; given
//! again, the stream goes on after it, also on a server that was restarted. What differs then is at most the order in which
//! attempts at the same time are told.

mod cursor;
mod reader;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use api::event::Moment;
use engine::Fact;
use engine::fact::What;
use graph::{AttemptSpec, BuildId, StepReport, Timestamp};
use store::log::{LogError, Logs};
use store::{Store, StoreError};
use thiserror::Error;
use tokio::sync::watch;

pub use self::cursor::ID_BYTES_MAX;
use self::cursor::{AttemptKey, Cursor};
pub use self::reader::{EVENTS_MAX, Follower};
use crate::lock::lock;
use crate::records::{RecordError, Records};

/// The most steps of one attempt that are remembered while it runs.
pub const STEPS_MAX: usize = graph::Job::STEPS_MAX + graph::Job::SECTIONS_MAX;
/// Why a build cannot be followed.
#[derive(Debug, Error)]
pub enum LiveError {
    /// There is none of this number.
    #[error("there is no build {0}")]
    NoBuild(BuildId),
    /// The id of the last event is none.
    #[error("`{0}` is not the id of an event of this stream")]
    BadId(String),
    /// The facts cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A task broke.
    #[error("reading was interrupted")]
    Interrupted,
}

/// One event and the id that stands for all up to it; only the last of a batch has one.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveEvent {
    /// Given again, the stream goes on behind this event.
    pub id: Option<String>,
    /// What happened.
    pub moment: Moment,
}

/// Whether a follower is told what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// It is: all of it, before the end of its step.
    Told,
    /// It is not, and no log is read for it: it does not wait for what it would not be told.
    Left,
}

/// A step of an attempt that runs, by its worker's word.
#[derive(Clone, Debug, Default)]
struct StepLive {
    started: Option<(String, Timestamp)>,
    report: Option<Arc<StepReport>>,
}

/// The facts of a build that is followed.
enum Facts {
    /// They are being read; these were told meanwhile.
    Coming(Vec<Arc<Fact>>),
    /// All of them.
    There {
        facts: Vec<Arc<Fact>>,
        /// What is told next may have been read already: it was stored before the reading.
        may_be_known: bool,
    },
}

impl Facts {
    /// One more was stored.
    fn told(&mut self, fact: &Fact) {
        match self {
            Self::Coming(facts) => facts.push(Arc::new(fact.clone())),
            Self::There { facts, may_be_known } => {
                *may_be_known = *may_be_known && is_among(facts, fact);
                if !*may_be_known {
                    facts.push(Arc::new(fact.clone()));
                }
            }
        }
    }

    /// Those that were `read`, and then those that were `told` meanwhile and stored too late for the reading.
    fn all(read: Vec<Fact>, told: Vec<Arc<Fact>>) -> Self {
        let mut facts: Vec<Arc<Fact>> = read.into_iter().map(Arc::new).collect();
        let first_new = told.iter().position(|fact| !is_among(&facts, fact));
        facts.extend(told.into_iter().skip(first_new.unwrap_or(usize::MAX)));
        Self::There { facts, may_be_known: first_new.is_none() }
    }
}

/// Whether a fact stands there, most likely near the end. No two facts of a build are equal: each says what was not so before it.
fn is_among(facts: &[Arc<Fact>], fact: &Fact) -> bool {
    facts.iter().rev().any(|known| **known == *fact)
}

struct Followed {
    changed: watch::Sender<u64>,
    followers: usize,
    facts: Facts,
}

#[derive(Default)]
struct State {
    followed: HashMap<BuildId, Followed>,
    attempts: HashMap<AttemptKey, BTreeMap<u16, StepLive>>,
}

/// All followers, and what runs as far as they may ask.
pub struct Live {
    store: Arc<dyn Store>,
    logs: Arc<Logs>,
    records: Records,
    state: Mutex<State>,
    stored: watch::Sender<u64>,
}

impl Live {
    /// Nobody follows yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, logs: Arc<Logs>, records: Records) -> Self {
        Self { store, logs, records, state: Mutex::default(), stored: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes whenever facts of any build were stored.
    #[must_use]
    pub fn stored(&self) -> watch::Receiver<u64> {
        self.stored.subscribe()
    }

    /// Facts were stored.
    pub fn told(&self, facts: &[Fact]) {
        let mut state = self.state();
        for fact in facts {
            if let What::AttemptFinished { attempt, .. } = &fact.what {
                state.attempts.remove(&(fact.build, *attempt));
            }
            let Some(followed) = state.followed.get_mut(&fact.build) else { continue };
            followed.facts.told(fact);
            followed.changed.send_modify(|count| *count += 1);
        }
        drop(state);
        self.stored.send_modify(|count| *count += 1);
    }

    /// An attempt is in a worker's hands: its steps are remembered from now on.
    pub fn begin(&self, spec: &AttemptSpec) {
        self.state().attempts.entry((spec.build, spec.attempt)).or_default();
    }

    /// A step of an attempt begins. Said again it changes nothing.
    pub fn step_started(&self, key: AttemptKey, step: u16, name: &str, at: Timestamp) {
        if let Some(step) = self.step(&mut self.state(), key, step)
            && step.started.is_none()
        {
            step.started = Some((name.to_owned(), at));
        }
    }

    /// A step of an attempt has ended, and all of its log was kept. Said again it changes nothing.
    pub fn step_finished(&self, key: AttemptKey, step: u16, report: StepReport) {
        if let Some(step) = self.step(&mut self.state(), key, step)
            && step.report.is_none()
        {
            step.report = Some(Arc::new(report));
        }
    }

    fn step<'s>(&self, state: &'s mut State, key: AttemptKey, step: u16) -> Option<&'s mut StepLive> {
        let steps = state.attempts.get_mut(&key)?;
        (usize::from(step) < STEPS_MAX).then(|| steps.entry(step).or_default())
    }

    /// A log or a step of a build has gone on: its followers look.
    pub fn wake(&self, build: BuildId) {
        if let Some(followed) = self.state().followed.get(&build) {
            followed.changed.send_modify(|count| *count += 1);
        }
    }

    /// A build that has ended is no longer held.
    pub fn forget(&self, build: BuildId) {
        self.state().attempts.retain(|(of, _), _| *of != build);
    }

    /// How many streams are open.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.state().followed.values().map(|followed| followed.followers).sum()
    }

    /// Follows a build, from its beginning or behind the event of this id.
    ///
    /// # Errors
    /// [`LiveError`].
    pub async fn follow(
        self: &Arc<Self>,
        build: BuildId,
        from: Option<&str>,
        lines: Lines,
    ) -> Result<Follower, LiveError> {
        let cursor = from.map_or_else(|| Ok(Cursor::default()), str::parse)?;
        let live = Arc::clone(self);
        tokio::task::spawn_blocking(move || Follower::open(live, build, cursor, lines))
            .await
            .map_err(|_| LiveError::Interrupted)?
    }

    /// Registers a follower and sees to it that the build's facts are in memory. Blocks.
    fn enter(&self, build: BuildId) -> Result<watch::Receiver<u64>, LiveError> {
        {
            let mut state = self.state();
            let followed = state.followed.entry(build).or_insert_with(|| Followed {
                changed: watch::Sender::new(0),
                followers: 0,
                facts: Facts::Coming(Vec::new()),
            });
            followed.followers += 1;
            if matches!(followed.facts, Facts::There { .. }) {
                return Ok(followed.changed.subscribe());
            }
        }
        // Read without the lock: nobody waits for a reader. Twins are read twice, and the first that is done counts.
        let read = self.store.facts(build);
        let mut state = self.state();
        let followed = state.followed.get_mut(&build).expect("it has a follower");
        match (read, &mut followed.facts) {
            (_, Facts::There { .. }) => {}
            (Ok(read), Facts::Coming(told)) if !read.is_empty() => {
                followed.facts = Facts::all(read, std::mem::take(told));
            }
            (read, Facts::Coming(_)) => {
                drop(state);
                self.leave(build);
                read?;
                return Err(LiveError::NoBuild(build));
            }
        }
        Ok(followed.changed.subscribe())
    }

    fn leave(&self, build: BuildId) {
        let mut state = self.state();
        if let Some(followed) = state.followed.get_mut(&build) {
            followed.followers -= 1;
            if followed.followers == 0 {
                state.followed.remove(&build);
            }
        }
    }

    /// The facts of a followed build from `from` on, at most `limit`.
    fn facts(&self, build: BuildId, from: usize, limit: usize) -> Vec<Arc<Fact>> {
        match self.state().followed.get(&build).map(|followed| &followed.facts) {
            Some(Facts::There { facts, .. }) => facts.iter().skip(from).take(limit).cloned().collect(),
            Some(Facts::Coming(_)) | None => Vec::new(),
        }
    }

    fn step_live(&self, key: AttemptKey, step: u16) -> StepLive {
        self.state().attempts.get(&key).and_then(|steps| steps.get(&step)).cloned().unwrap_or_default()
    }

    /// Whether a step behind this one has begun, of the first `n_steps`: what comes after them (images, services) goes on beside them and says
    /// nothing of their ends.
    fn has_later_step(&self, key: AttemptKey, step: u16, n_steps: u16) -> bool {
        let later = step.saturating_add(1);
        let is_among =
            |steps: &BTreeMap<u16, StepLive>| later < n_steps && steps.range(later..n_steps).next().is_some();
        self.state().attempts.get(&key).is_some_and(is_among)
    }

    /// The numbers from this one on of what its worker said of an attempt.
    fn numbers_from(&self, key: AttemptKey, first: u16) -> BTreeSet<u16> {
        self.state()
            .attempts
            .get(&key)
            .into_iter()
            .flat_map(|steps| steps.range(first..))
            .map(|(step, _)| *step)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Facts numbered from 1: so many were read, those were told while they were read, and those after.
    fn check(read: i64, meanwhile: &[i64], after: &[i64], expected: i64) {
        let fact = |number: &i64| Fact {
            build: BuildId(1),
            at: Timestamp(*number),
            what: What::CancelRequested { by: "a test".to_owned() },
        };
        let read: Vec<Fact> = (1..=read).map(|number| fact(&number)).collect();
        let mut facts = Facts::all(read, meanwhile.iter().map(fact).map(Arc::new).collect());
        after.iter().map(fact).for_each(|fact| facts.told(&fact));
        let Facts::There { facts, .. } = facts else { panic!("they were read") };
        let numbers: Vec<i64> = facts.iter().map(|fact| fact.at.0).collect();
        assert_eq!(numbers, (1..=expected).collect::<Vec<_>>());
    }

    #[test]
    fn a_fact_is_known_once_whenever_it_is_told() {
        check(3, &[], &[], 3);
        check(3, &[], &[4, 5], 5);
        check(3, &[4], &[5], 5);
        // Stored before the reading, told while it was under way, or only after it.
        check(3, &[2, 3], &[4], 4);
        check(3, &[2], &[3, 4], 4);
        check(3, &[], &[3], 3);
        check(3, &[], &[2, 3, 4, 5], 5);
        check(3, &[2, 3, 4], &[5], 5);
    }
}
