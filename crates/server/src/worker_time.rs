//! How long workers were busy for each project, by hours, counted since the server started. Nothing here reads a clock.
//!
//! Nothing is made up for the time before: whoever asks is told since when it was counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use api::pool::ProjectTime;
use graph::Timestamp;

/// An hour in microseconds.
const HOUR_US: i64 = 3600 * 1_000_000;
/// How many hours are told: those of seven days.
const HOURS_KEPT: i64 = 7 * 24;
/// Of how many projects time is counted. That of further ones is not.
const PROJECTS_MAX: usize = 2_000;

/// What ended within one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hour {
    /// Which, since 1970.
    hour: i64,
    attempts: u64,
    worker_ms: u64,
}

/// The time that workers spent, by project.
#[derive(Debug)]
pub struct WorkerTime {
    began: Timestamp,
    hours: Mutex<BTreeMap<String, VecDeque<Hour>>>,
}

impl WorkerTime {
    /// Counts from now on.
    #[must_use]
    pub fn new(began: Timestamp) -> Self {
        Self { began, hours: Mutex::default() }
    }

    /// Since when what is told now was counted.
    #[must_use]
    pub fn since(&self, now: Timestamp) -> Timestamp {
        self.began.max(Timestamp(oldest(now).saturating_mul(HOUR_US)))
    }

    /// Counts an attempt that ended at `at` and took so long.
    pub fn ended(&self, project: &str, at: Timestamp, worker_ms: u64) {
        let mut projects = self.hours.lock().unwrap_or_else(PoisonError::into_inner);
        let (hour, oldest) = (at.0.div_euclid(HOUR_US), oldest(at));
        if !projects.contains_key(project) {
            if projects.len() >= PROJECTS_MAX {
                projects.retain(|_, hours| hours.back().is_some_and(|last| last.hour >= oldest));
            }
            if projects.len() >= PROJECTS_MAX {
                return;
            }
        }
        let hours = projects.entry(project.to_owned()).or_default();
        match hours.back_mut() {
            // A clock that was set back counts on in the hour at hand.
            Some(last) if last.hour >= hour => {
                last.attempts += 1;
                last.worker_ms = last.worker_ms.saturating_add(worker_ms);
            }
            _ => hours.push_back(Hour { hour, attempts: 1, worker_ms }),
        }
        while hours.front().is_some_and(|first| first.hour < oldest) {
            hours.pop_front();
        }
    }

    /// What was counted of each project over the last seven days, by name.
    #[must_use]
    pub fn projects(&self, now: Timestamp) -> Vec<ProjectTime> {
        let projects = self.hours.lock().unwrap_or_else(PoisonError::into_inner);
        let told = projects.iter().map(|(project, hours)| {
            let mut told = ProjectTime { project: project.clone(), attempts: 0, worker_ms: 0 };
            for hour in hours.iter().filter(|hour| hour.hour >= oldest(now)) {
                told.attempts += hour.attempts;
                told.worker_ms = told.worker_ms.saturating_add(hour.worker_ms);
            }
            told
        });
        told.filter(|told| told.attempts > 0).collect()
    }
}

/// The oldest hour that is told.
fn oldest(now: Timestamp) -> i64 {
    now.0.div_euclid(HOUR_US) - HOURS_KEPT + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_days_are_told_of_each_project() {
        let time = WorkerTime::new(Timestamp(0));
        let hour = |hour: i64| Timestamp(hour * HOUR_US);
        time.ended("old", hour(0), 5);
        time.ended("both", hour(0), 7);
        time.ended("both", hour(HOURS_KEPT - 1), 11);
        let told = |now: Timestamp| -> Vec<(String, u64, u64)> {
            time.projects(now).into_iter().map(|it| (it.project, it.attempts, it.worker_ms)).collect()
        };
        assert_eq!(told(hour(HOURS_KEPT - 1)), [("both".to_owned(), 2, 18), ("old".to_owned(), 1, 5)]);
        assert_eq!(told(hour(HOURS_KEPT)), [("both".to_owned(), 1, 11)]);
        assert_eq!((time.since(hour(3)), time.since(hour(HOURS_KEPT + 2))), (hour(0), hour(3)));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let time = WorkerTime::new(Timestamp(0));
        for project in 0..PROJECTS_MAX + 5 {
            time.ended(&project.to_string(), Timestamp(0), 1);
        }
        assert_eq!(time.projects(Timestamp(0)).len(), PROJECTS_MAX);
        // Those of which nothing is told any more make room.
        let later = Timestamp(HOURS_KEPT * HOUR_US);
        time.ended("new", later, 1);
        assert_eq!(time.projects(later).len(), 1);
    }
}
