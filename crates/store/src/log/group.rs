//! Group commit: what several callers want done is done by one of them, in one go, while the others wait.

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use super::LogError;
use super::pack::lock;

/// The most items done in one go. Further ones wait for the next.
const GROUP_MAX: usize = 256;

type Answer<R> = Arc<OnceLock<Result<R, LogError>>>;

struct State<T, R> {
    waiting: Vec<(T, Answer<R>)>,
    has_leader: bool,
}

/// Items of type `T`, each answered with an `R`.
pub(super) struct Group<T, R> {
    state: Mutex<State<T, R>>,
    changed: Condvar,
}

impl<T, R> Default for Group<T, R> {
    fn default() -> Self {
        Self { state: Mutex::new(State { waiting: Vec::new(), has_leader: false }), changed: Condvar::new() }
    }
}

impl<T, R: Clone> Group<T, R> {
    /// Returns when the item has been done, with others, in the order of the calls. `work` returns an answer for each
    /// item, or one error for all.
    pub fn commit(&self, item: T, work: impl Fn(&mut [T]) -> Result<Vec<R>, LogError>) -> Result<R, LogError> {
        let answer: Answer<R> = Arc::default();
        let mut state = lock(&self.state);
        state.waiting.push((item, Arc::clone(&answer)));
        loop {
            if let Some(answer) = answer.get() {
                return answer.clone();
            }
            if state.has_leader {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.has_leader = true;
            let count = state.waiting.len().min(GROUP_MAX);
            let group: Vec<(T, Answer<R>)> = state.waiting.drain(..count).collect();
            drop(state);
            let leader = Leader { group: self, answers: group.iter().map(|(_, answer)| Arc::clone(answer)).collect() };
            let mut items: Vec<T> = group.into_iter().map(|(item, _)| item).collect();
            leader.answer(work(&mut items));
            state = lock(&self.state);
        }
    }
}

/// Whoever is waiting gets an answer, also if the work panics.
struct Leader<'a, T, R> {
    group: &'a Group<T, R>,
    answers: Vec<Answer<R>>,
}

impl<T, R> Leader<'_, T, R> {
    fn answer(mut self, done: Result<Vec<R>, LogError>) {
        let answers = std::mem::take(&mut self.answers);
        match done {
            Ok(done) => {
                assert_eq!(done.len(), answers.len(), "each item has an answer");
                for (answer, done) in answers.iter().zip(done) {
                    let _ = answer.set(Ok(done));
                }
            }
            Err(error) => answers.iter().for_each(|answer| drop(answer.set(Err(error.clone())))),
        }
    }
}

impl<T, R> Drop for Leader<'_, T, R> {
    fn drop(&mut self) {
        for answer in &self.answers {
            let _ = answer.set(Err(std::io::Error::other("another thread failed while it wrote for this one").into()));
        }
        lock(&self.group.state).has_leader = false;
        self.group.changed.notify_all();
    }
}
