//! A worker that was told to leave, or to start anew, as whoever waits for it sees it, look by look. Nothing here reads a clock.

use std::time::Duration;

use api::time::Time;
use api::worker_view::{Worker, WorkerState};

use super::said;

/// How long a worker that starts anew may be away before nobody waits for it any more.
pub const AWAY_MAX: Duration = Duration::from_secs(120);

/// What was seen of it.
#[derive(Default)]
pub struct Leaving {
    /// When it had joined, while it was still leaving.
    joined: Option<Time>,
    /// Since when it is away.
    away_since: Option<Duration>,
}

/// How it stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Stands {
    /// It finishes what runs.
    Leaving,
    /// It has left, so long ago.
    Away(Duration),
    /// It has left and joined again.
    Again,
    /// It stays: somebody said so, as these words tell.
    Stays(String),
}

impl Leaving {
    /// Looks at it; `now` counts from any beginning.
    pub fn look(&mut self, worker: &Worker, now: Duration) -> Stands {
        match worker.state {
            WorkerState::Draining => {
                // A session that was lost and is there again is no new start.
                (self.joined, self.away_since) = (worker.joined, None);
                Stands::Leaving
            }
            WorkerState::Away => Stands::Away(now.saturating_sub(*self.away_since.get_or_insert(now))),
            // A server of an earlier version tells no time: there it is taken to have been away.
            WorkerState::Ready | WorkerState::Paused if worker.joined.is_none() || worker.joined > self.joined => {
                Stands::Again
            }
            WorkerState::Ready => Stands::Stays("was resumed".to_owned()),
            WorkerState::Paused => {
                let by = worker.held.as_ref().map(|held| format!(" by {}", said(&held.by, &held.reason)));
                Stands::Stays(format!("was paused{}", by.unwrap_or_default()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::pool::Held;
    use graph::Timestamp;

    use super::*;

    fn worker(state: WorkerState, joined: Option<i64>) -> Worker {
        let held = Held { by: "ann".to_owned(), reason: "broken disk".to_owned(), at: Time::default() };
        Worker {
            id: "id".to_owned(),
            name: "w1".to_owned(),
            state,
            held: (state == WorkerState::Paused).then_some(held),
            closed: None,
            pools: Vec::new(),
            labels: Vec::new(),
            slots: 1,
            cpu_milli: 0,
            memory_bytes: 0,
            version: String::new(),
            seen: None,
            joined: joined.map(|at| Time(Timestamp(at))),
            fault: None,
            running: Vec::new(),
        }
    }

    /// What is seen second by second.
    #[track_caller]
    fn check(looks: &[(WorkerState, Option<i64>)], last: Stands) {
        let mut leaving = Leaving::default();
        let mut seen = None;
        for (second, &(state, joined)) in (0..).zip(looks) {
            seen = Some(leaving.look(&worker(state, joined), Duration::from_secs(second)));
        }
        assert_eq!(seen, Some(last), "{looks:?}");
    }

    #[test]
    fn whoever_is_resumed_or_paused_stays_and_whoever_joins_anew_has_left() {
        use WorkerState::{Away, Draining, Paused, Ready};
        let first = Some(1);
        check(&[(Draining, first)], Stands::Leaving);
        check(&[(Draining, first), (Ready, first)], Stands::Stays("was resumed".to_owned()));
        check(&[(Draining, first), (Paused, first)], Stands::Stays("was paused by ann: broken disk".to_owned()));
        check(&[(Draining, first), (Away, first), (Away, first), (Away, first)], Stands::Away(Duration::from_secs(2)));
        check(&[(Draining, first), (Away, first), (Ready, Some(2))], Stands::Again);
        check(&[(Draining, first), (Paused, Some(2))], Stands::Again);
        // Its session was lost, and it went on leaving.
        let lost = [(Draining, first), (Away, first), (Draining, Some(2))];
        check(&lost, Stands::Leaving);
        check(&[&lost[..], &[(Away, Some(2))]].concat(), Stands::Away(Duration::ZERO));
        check(&[&lost[..], &[(Ready, Some(2))]].concat(), Stands::Stays("was resumed".to_owned()));
        // An earlier server.
        check(&[(Draining, None), (Ready, None)], Stands::Again);
    }
}
