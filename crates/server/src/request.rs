//! What a server asks of its shell, and the handle by which it asks. A local run has no requests.
//!
//! Requests are taken together with inputs, in the order in which they came, and answered after the facts of their step are stored
//! and its effects begun: what was acknowledged is durable. Nothing here decides.

use engine::{Engine, Fact, Input};
use graph::{BuildId, Verdict, with_causes};
use store::{Store, StoreError};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::notices;
use crate::shell::{BATCH_MAX, Doneness};

/// The most requests that wait for the shell; further callers wait for room.
pub const REQUESTS_MAX: usize = 4096;
/// The most inputs of one request.
pub const INPUTS_MAX: usize = 4096;

/// One request to the shell.
pub enum Request {
    /// Inputs, and who waits until what follows from them is stored.
    Put {
        /// At most [`INPUTS_MAX`].
        inputs: Vec<Input>,
        /// Of which build the facts of the step are to be told.
        about: Option<BuildId>,
        /// Hears of these facts.
        done: Option<oneshot::Sender<Vec<Fact>>>,
    },
    /// A question to the engine as it stands after the step.
    Ask(Question),
    /// A build that ended and was forgotten is to be held again, so that its jobs can be retried.
    Recall {
        /// The build.
        build: BuildId,
        /// Hears whether it is held now.
        done: oneshot::Sender<bool>,
    },
    /// The shell shall end after this step.
    End,
}

/// A question to the engine; whoever asks it sees to the way of its answer.
pub type Question = Box<dyn FnOnce(&Engine) + Send>;

/// The shell has ended, and the server with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the server is shutting down")]
pub struct Stopped;

/// Puts requests to a shell. Cheap to clone.
#[derive(Clone)]
pub struct ShellHandle {
    requests: mpsc::Sender<Request>,
}

/// A handle, and the end that [`crate::Shell::with_requests`] takes.
#[must_use]
pub fn requests() -> (ShellHandle, mpsc::Receiver<Request>) {
    let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
    (ShellHandle { requests }, receiver)
}

impl ShellHandle {
    async fn send(&self, request: Request) -> Result<(), Stopped> {
        self.requests.send(request).await.map_err(|_| Stopped)
    }

    /// Puts an input and does not wait for what becomes of it.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn put(&self, input: Input) -> Result<(), Stopped> {
        self.send(Request::Put { inputs: vec![input], about: None, done: None }).await
    }

    /// Puts inputs, in order, and waits until all that followed from them at once is stored.
    ///
    /// # Errors
    /// [`Stopped`]: whether they were taken is unknown.
    pub async fn put_and_wait(&self, inputs: Vec<Input>) -> Result<(), Stopped> {
        self.put_about(inputs, None).await.map(drop)
    }

    /// As [`ShellHandle::put_and_wait`]; gives the facts of `about` that were stored in the same step, and those of builds whose place
    /// it takes.
    ///
    /// # Errors
    /// [`Stopped`]: whether they were taken is unknown.
    pub async fn put_about(&self, mut inputs: Vec<Input>, about: Option<BuildId>) -> Result<Vec<Fact>, Stopped> {
        let mut facts = Vec::new();
        loop {
            let rest = inputs.split_off(inputs.len().min(INPUTS_MAX));
            let (done, answer) = oneshot::channel();
            self.send(Request::Put { inputs, about, done: Some(done) }).await?;
            facts.extend(answer.await.map_err(|_| Stopped)?);
            if rest.is_empty() {
                return Ok(facts);
            }
            inputs = rest;
        }
    }

    /// The answer of the engine, as it stands when the question comes to it. The shell waits while it is computed.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (done, answer) = oneshot::channel();
        let ask = move |engine: &Engine| {
            // Nobody hears it if the caller has gone.
            let _ = done.send(question(engine));
        };
        self.send(Request::Ask(Box::new(ask))).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Sees to it that the engine holds a build that has ended. Gives whether there is such a build.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn recall(&self, build: BuildId) -> Result<bool, Stopped> {
        let (done, answer) = oneshot::channel();
        self.send(Request::Recall { build, done }).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Ends the shell after what was asked before. No harm if it has ended.
    pub async fn end(&self) {
        let _ = self.send(Request::End).await;
    }
}

/// The shell's side: requests that came, and answers that are owed.
pub(crate) struct Requests {
    receiver: mpsc::Receiver<Request>,
    received: Vec<Request>,
    owed: Vec<(Option<BuildId>, oneshot::Sender<Vec<Fact>>)>,
    asked: Vec<Question>,
    recalled: Vec<BuildId>,
    ending: Doneness,
}

impl Requests {
    pub(crate) fn new(receiver: mpsc::Receiver<Request>) -> Self {
        let (received, owed, asked, recalled) = Default::default();
        Self { receiver, received, owed, asked, recalled, ending: Doneness::GoOn }
    }

    /// The ended builds that somebody has asked to be held, since this was asked last.
    pub(crate) fn take_recalled(&mut self) -> Vec<BuildId> {
        std::mem::take(&mut self.recalled)
    }

    /// Waits for the first input or request, then takes all that wait. Gives how many came; 0 if no more can come.
    pub(crate) async fn receive(
        &mut self,
        inputs: &mut mpsc::Receiver<Input>,
        batch: &mut Vec<Input>,
        engine: &mut Engine,
        store: &dyn Store,
    ) -> usize {
        let n_received = tokio::select! {
            biased;
            n_inputs = inputs.recv_many(batch, BATCH_MAX) => n_inputs,
            n_requests = self.receiver.recv_many(&mut self.received, BATCH_MAX) => n_requests,
        };
        while self.received.len() + batch.len() < BATCH_MAX
            && let Ok(request) = self.receiver.try_recv()
        {
            self.received.push(request);
        }
        while batch.len() < BATCH_MAX
            && let Ok(input) = inputs.try_recv()
        {
            batch.push(input);
        }
        for request in std::mem::take(&mut self.received) {
            match request {
                Request::Put { inputs, about, done } => {
                    batch.extend(inputs);
                    self.owed.extend(done.map(|done| (about, done)));
                }
                Request::Ask(ask) => self.asked.push(ask),
                Request::Recall { build, done } => match recall(build, engine, store) {
                    Ok(verdict) => {
                        self.recalled.extend(verdict.iter().filter(|it| **it != Verdict::Running).map(|_| build));
                        let _ = done.send(verdict.is_some());
                    }
                    // Nothing was changed: whoever asked is told to ask again, and all others go on.
                    Err(error) => {
                        notices::warning(&format!("build {build} was not called back: {}", with_causes(&error)))
                    }
                },
                Request::End => self.ending = Doneness::Done,
            }
        }
        n_received
    }

    /// Answers all who wait, now that `facts` are stored. Says whether the shell is to end.
    pub(crate) fn answer(&mut self, engine: &Engine, facts: &[Fact]) -> Doneness {
        for (about, done) in self.owed.drain(..) {
            let told = about.map(|build| facts.iter().filter(|fact| is_about(fact, build)).cloned().collect());
            let _ = done.send(told.unwrap_or_default());
        }
        for ask in self.asked.drain(..) {
            ask(engine);
        }
        self.ending
    }
}

fn is_about(fact: &Fact, build: BuildId) -> bool {
    fact.build == build || engine::is_superseded_by(fact, build)
}

/// Folds a build again if it is forgotten, and gives how it stands. It happens between two steps, so that no fact of it can come
/// between.
fn recall(build: BuildId, engine: &mut Engine, store: &dyn Store) -> Result<Option<Verdict>, StoreError> {
    if engine.verdict(build).is_none() {
        engine.recall(&store.facts(build)?);
    }
    Ok(engine.verdict(build))
}
