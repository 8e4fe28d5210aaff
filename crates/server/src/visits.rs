//! The shells that people have open in what steps left: the two ends of each, until they are joined.
//!
//! Nothing here reads what travels. What waits is bounded by [`PIECES_MAX`] pieces either way: who is quicker waits. A visit ends when the
//! one who asked for it goes: what is typed ends then, and the worker ends the shell.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use graph::{BuildId, WorkerId};
use tokio::sync::mpsc;

use crate::lock::lock;

/// The most shells that are open at once.
pub const VISITS_MAX: usize = 256;
/// The most pieces that wait for one reader.
pub const PIECES_MAX: usize = 16;

/// Why something cannot be done with a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VisitError {
    /// There are too many.
    #[error("{VISITS_MAX} shells are open, the most there may be")]
    Full,
    /// There is none of this name, or it is somebody else's.
    #[error("there is no such shell, or it has ended")]
    None,
    /// What is typed came out of order.
    #[error("the post of number {0} was expected")]
    OutOfOrder(u64),
}

/// One shell.
struct Visit {
    worker: WorkerId,
    build: BuildId,
    typed: mpsc::Sender<Bytes>,
    /// Until the worker takes it.
    to_worker: Option<mpsc::Receiver<Bytes>>,
    /// Until the worker takes it.
    printed: Option<mpsc::Sender<Bytes>>,
    /// The number of the next post of what is typed; held while one is handed on.
    next: Arc<tokio::sync::Mutex<u64>>,
}

/// All of them.
#[derive(Default)]
pub struct Visits(Mutex<HashMap<String, Visit>>);

/// The end of the one who asked: dropped, the visit is over.
pub struct Seat {
    visits: Arc<Visits>,
    /// Names the shell.
    pub shell: String,
    /// What it prints.
    pub printed: mpsc::Receiver<Bytes>,
}

impl Seat {
    /// Whether the visit goes on, by the server's word.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.visits.state().contains_key(&self.shell)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.visits.state().remove(&self.shell);
    }
}

impl Visits {
    fn state(&self) -> MutexGuard<'_, HashMap<String, Visit>> {
        lock(&self.0)
    }

    /// Prepares a visit to what a worker holds, under a name that nobody knows.
    ///
    /// # Errors
    /// [`VisitError::Full`].
    pub fn open(self: &Arc<Self>, shell: String, worker: WorkerId, build: BuildId) -> Result<Seat, VisitError> {
        let mut state = self.state();
        if state.len() >= VISITS_MAX {
            return Err(VisitError::Full);
        }
        let (typed, to_worker) = mpsc::channel(PIECES_MAX);
        let (sender, printed) = mpsc::channel(PIECES_MAX);
        let (to_worker, next) = (Some(to_worker), Arc::default());
        state.insert(shell.clone(), Visit { worker, build, typed, to_worker, printed: Some(sender), next });
        Ok(Seat { visits: Arc::clone(self), shell, printed })
    }

    /// Ends the visits to what a worker holds: nothing more is typed there, and what it prints has no reader.
    pub fn end_of(&self, worker: &WorkerId) {
        self.state().retain(|_, visit| visit.worker != *worker);
    }

    /// Hands on what was typed, waiting until there is room. A post that was taken before is taken for done.
    ///
    /// # Errors
    /// [`VisitError::None`], [`VisitError::OutOfOrder`].
    pub async fn type_in(&self, shell: &str, build: BuildId, sequence: u64, bytes: Bytes) -> Result<(), VisitError> {
        let (typed, next) = {
            let state = self.state();
            let visit = state.get(shell).filter(|visit| visit.build == build).ok_or(VisitError::None)?;
            (visit.typed.clone(), Arc::clone(&visit.next))
        };
        let mut next = next.lock().await;
        match sequence.cmp(&next) {
            std::cmp::Ordering::Less => return Ok(()),
            std::cmp::Ordering::Greater => return Err(VisitError::OutOfOrder(*next)),
            std::cmp::Ordering::Equal => {}
        }
        typed.send(bytes).await.map_err(|_| VisitError::None)?;
        *next += 1;
        Ok(())
    }

    /// What is typed, for the worker; once.
    ///
    /// # Errors
    /// [`VisitError::None`].
    pub fn typed(&self, shell: &str, worker: &WorkerId) -> Result<mpsc::Receiver<Bytes>, VisitError> {
        self.of(shell, worker, |visit| visit.to_worker.take())
    }

    /// Where the worker puts what is printed; once.
    ///
    /// # Errors
    /// [`VisitError::None`].
    pub fn printed(&self, shell: &str, worker: &WorkerId) -> Result<mpsc::Sender<Bytes>, VisitError> {
        self.of(shell, worker, |visit| visit.printed.take())
    }

    fn of<T>(
        &self,
        shell: &str,
        worker: &WorkerId,
        take: impl FnOnce(&mut Visit) -> Option<T>,
    ) -> Result<T, VisitError> {
        let mut state = self.state();
        let visit = state.get_mut(shell).filter(|visit| visit.worker == *worker);
        visit.and_then(take).ok_or(VisitError::None)
    }
}
