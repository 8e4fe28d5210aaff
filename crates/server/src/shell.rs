//! The one owner of the engine: take all waiting inputs, step, store the facts, only then perform the effects.
//!
//! Nothing else holds the engine, and nothing here decides: what to run is the engine's, how to run it the
//! [`World`]'s. Facts that could not be stored are tried again; no effect of theirs is performed before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Effect, Engine, Fact, Input};
use graph::{BuildId, Timestamp};
use store::{Store, StoreError};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::request::{Request, Requests};

/// The most inputs taken into one step. More wait in the inbox, whose own bound pushes back on their senders.
pub const BATCH_MAX: usize = 4096;
/// The most inputs that wait for the shell.
pub const INBOX_MAX: usize = 16_384;
/// How often a store that is busy is asked again before the shell gives up.
pub const APPEND_TRIES_MAX: u32 = 8;

/// Where inputs for the engine are put. Cheap to clone.
pub type Inbox = mpsc::Sender<Input>;

/// Performs effects and hears of facts. It answers through the [`Inbox`] that its maker was given.
pub trait World {
    /// The present time.
    fn now(&self) -> Timestamp;

    /// Begins to perform `effect` and returns at once. It may be asked twice for the same effect.
    fn perform(&mut self, effect: Effect);

    /// Hears of facts that are stored, in order.
    fn told(&mut self, facts: &[Fact]);

    /// Hears how long it took to store the facts of a step.
    fn stored(&mut self, _took: Duration) {}

    /// Hears that the engine holds a build that has ended, because somebody has asked for it just now.
    fn recalled(&mut self, _build: BuildId) {}

    /// Whether the shell may end: nobody waits for more. `next_wake` is when the engine wants to be asked again without
    /// an input.
    fn is_done(&self, next_wake: Option<Timestamp>) -> Doneness;

    /// The ended builds that the engine need not hold any longer. Asked after each step.
    fn forgets(&mut self) -> Vec<BuildId> {
        Vec::new()
    }
}

/// Whether a shell may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doneness {
    /// There is more to come.
    GoOn,
    /// Nobody waits for more.
    Done,
}

/// Why the shell had to stop. What was stored is whole; a later start goes on from there.
#[derive(Debug, Error)]
pub enum ShellError {
    /// Facts could not be stored.
    #[error("failed to store what happened")]
    Store(#[from] StoreError),
}

/// The loop's state.
pub struct Shell<W> {
    engine: Engine,
    store: Arc<dyn Store>,
    // Dropped before the world, whose threads may wait to put something into it.
    inputs: mpsc::Receiver<Input>,
    world: W,
    clock: Clock,
    wake_at: Option<Timestamp>,
    requests: Option<Requests>,
}

/// The time that the engine is told. If the world's clock has been set back it does not stand still until that has caught up: it goes
/// on at half its speed, so that some time it is right again.
struct Clock {
    told: Timestamp,
    at: Instant,
}

impl Clock {
    fn tell(&mut self, world: Timestamp, at: Instant) -> Timestamp {
        let passed_us = at.saturating_duration_since(self.at).as_micros();
        let alone = self.told.0.saturating_add(i64::try_from(passed_us / 2).unwrap_or(i64::MAX));
        (self.told, self.at) = (world.max(Timestamp(alone)), at);
        self.told
    }
}

/// A fresh inbox: where to put inputs, and the end that [`Shell::new`] takes.
#[must_use]
pub fn inbox() -> (Inbox, mpsc::Receiver<Input>) {
    mpsc::channel(INBOX_MAX)
}

impl<W: World> Shell<W> {
    /// A shell around `engine`, which holds the facts of every build that is to go on.
    #[must_use]
    pub fn new(engine: Engine, store: Arc<dyn Store>, world: W, inputs: mpsc::Receiver<Input>) -> Self {
        let clock = Clock { told: engine.now(), at: Instant::now() };
        Self { engine, store, inputs, world, clock, wake_at: None, requests: None }
    }

    fn now(&mut self) -> Timestamp {
        self.clock.tell(self.world.now(), Instant::now())
    }

    /// The same shell, which also takes requests: those of a server, whose callers wait for what becomes of them.
    #[must_use]
    pub fn with_requests(mut self, requests: mpsc::Receiver<Request>) -> Self {
        self.requests = Some(Requests::new(requests));
        self
    }

    /// Runs until the world is done or every inbox is closed. Begins with what the world still has to do.
    ///
    /// # Errors
    /// [`ShellError::Store`] if facts cannot be stored; nothing that follows from them has been done then.
    pub async fn run(mut self) -> Result<W, ShellError> {
        let now = self.now();
        for effect in self.engine.wanted(now) {
            self.perform(effect);
        }
        let mut batch = Vec::new();
        while self.world.is_done(self.wake_at) == Doneness::GoOn {
            if self.next_batch(&mut batch).await == Inputs::Closed {
                break;
            }
            let now = self.now();
            let step = self.engine.step(now, std::mem::take(&mut batch));
            if !step.facts.is_empty() {
                let began = Instant::now();
                self.append(&step.facts).await?;
                self.world.stored(began.elapsed());
                self.world.told(&step.facts);
            }
            for effect in step.effects {
                self.perform(effect);
            }
            for build in self.world.forgets() {
                self.engine.forget(build);
            }
            if let Some(requests) = &mut self.requests
                && requests.answer(&self.engine, &step.facts) == Doneness::Done
            {
                break;
            }
        }
        Ok(self.world)
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Wake { at } => self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at))),
            effect => self.world.perform(effect),
        }
    }

    /// Fills `batch` with all inputs that wait, after waiting for the first one or for the time to wake.
    async fn next_batch(&mut self, batch: &mut Vec<Input>) -> Inputs {
        let now = self.now();
        if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
            while batch.len() < BATCH_MAX
                && let Ok(input) = self.inputs.try_recv()
            {
                batch.push(input);
            }
            return Inputs::Taken;
        }
        let received = match self.wake_at {
            None => self.receive(batch).await,
            Some(at) => {
                // A millisecond more, so that the wake is not before its time.
                let wait = Duration::from_millis(at.ms_since(now) + 1);
                match tokio::time::timeout(wait, self.receive(batch)).await {
                    Ok(received) => received,
                    Err(_) => {
                        self.wake_at = None;
                        return Inputs::Taken;
                    }
                }
            }
        };
        if received == 0 { Inputs::Closed } else { Inputs::Taken }
    }

    /// Waits for inputs and requests. Gives how many came; 0 if no more can come.
    async fn receive(&mut self, batch: &mut Vec<Input>) -> usize {
        match &mut self.requests {
            None => self.inputs.recv_many(batch, BATCH_MAX).await,
            Some(requests) => {
                let received = requests.receive(&mut self.inputs, batch, &mut self.engine, &*self.store).await;
                requests.take_recalled().into_iter().for_each(|build| self.world.recalled(build));
                received
            }
        }
    }

    /// Stores `facts` in one transaction, trying again while the store is busy or was lost: what was stored without an
    /// answer is recognised by its place.
    async fn append(&self, facts: &[Fact]) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            match self.store.append(facts) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tries += 1;
                    if tries >= APPEND_TRIES_MAX || !matches!(error, StoreError::Busy(_) | StoreError::Lost(_)) {
                        return Err(error);
                    }
                    tokio::time::sleep(Duration::from_millis(10 << tries)).await;
                }
            }
        }
    }
}

/// Whether there are inputs to come.
#[derive(PartialEq, Eq)]
enum Inputs {
    Taken,
    Closed,
}

#[cfg(test)]
mod tests {
    use engine::{BuildRequest, What};
    use graph::{Event, EventKind, Verdict};
    use store::MemoryStore;

    use super::*;
    use crate::request::requests;

    /// A world that forgets at once what it is told to have been called back.
    #[derive(Default)]
    struct Forgetful(Vec<BuildId>);

    impl World for Forgetful {
        fn now(&self) -> Timestamp {
            Timestamp(7)
        }

        fn perform(&mut self, _: Effect) {}

        fn told(&mut self, _: &[Fact]) {}

        fn recalled(&mut self, build: BuildId) {
            self.0.push(build);
        }

        fn is_done(&self, _: Option<Timestamp>) -> Doneness {
            Doneness::GoOn
        }

        fn forgets(&mut self) -> Vec<BuildId> {
            std::mem::take(&mut self.0)
        }
    }

    #[test]
    fn time_goes_on_when_the_clock_is_set_back_until_that_has_caught_up() {
        let began = Instant::now();
        let mut clock = Clock { told: Timestamp(0), at: began };
        let mut tell = |world, after_us| clock.tell(Timestamp(world), began + Duration::from_micros(after_us)).0;
        assert_eq!(tell(1_000_000, 0), 1_000_000);
        // Set back by 900 milliseconds.
        assert_eq!(tell(100_000, 0), 1_000_000);
        assert_eq!(tell(300_000, 200_000), 1_100_000);
        assert_eq!(tell(1_900_000, 1_800_000), 1_900_000);
        assert_eq!(tell(2_000_000, 1_900_000), 2_000_000);
    }

    #[tokio::test]
    async fn the_world_hears_of_a_build_that_was_called_back_so_that_it_can_be_forgotten_again() {
        let store = Arc::new(MemoryStore::new());
        let fact = |what| Fact { build: BuildId(1), at: Timestamp(1), what };
        let request = Box::new(BuildRequest::new(Event::new(EventKind::Push), "pipeline"));
        let verdict = Verdict::Failed { because: None };
        let facts = [fact(What::BuildCreated(request)), fact(What::BuildEnded { verdict })];
        store.append(&facts).expect("a store in memory takes facts");
        let (_inbox, inputs) = inbox();
        let (handle, requests) = requests();
        let shell = Shell::new(Engine::new(), store, Forgetful::default(), inputs).with_requests(requests);
        let asking = async {
            let is_held = handle.recall(BuildId(1)).await.expect("the shell runs");
            let left = handle.ask(|engine| engine.builds().count()).await.expect("the shell runs");
            handle.end().await;
            (is_held, left)
        };
        let (ended, told) = tokio::join!(shell.run(), asking);
        assert!(ended.is_ok());
        assert_eq!(told, (true, 0));
    }
}
