//! How long workers were busy for each project, by hours, noted so that it outlives the server. Nothing here reads a clock.
//!
//! Nothing is made up for the time before: whoever asks is told since when it was counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard};

use api::pool::ProjectTime;
use graph::Timestamp;
use serde::{Deserialize, Serialize};

use crate::lock::lock;
use crate::records::{Document, RecordError, Records};

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

/// What ended within one hour, as it is noted; the key is the hour's place among those of seven days.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Noted {
    /// Which, since 1970.
    hour: i64,
    /// Since when all was counted.
    began: Timestamp,
    /// The attempts of each project, and the milliseconds that they took.
    projects: BTreeMap<String, (u64, u64)>,
}

impl Document for Noted {
    const KIND: &'static str = "worker_time";
}

/// The time that workers spent, by project.
#[derive(Debug)]
pub struct WorkerTime(Mutex<Counted>);

#[derive(Debug)]
struct Counted {
    began: Timestamp,
    projects: BTreeMap<String, VecDeque<Hour>>,
    /// The hours of which something was counted that is not noted.
    changed: BTreeSet<i64>,
}

impl WorkerTime {
    /// Counts from now on.
    #[must_use]
    pub fn new(began: Timestamp) -> Self {
        Self(Mutex::new(Counted { began, projects: BTreeMap::new(), changed: BTreeSet::new() }))
    }

    /// Since when what is told now was counted.
    #[must_use]
    pub fn since(&self, now: Timestamp) -> Timestamp {
        self.counted().began.max(Timestamp(oldest(now).saturating_mul(HOUR_US)))
    }

    /// Counts an attempt that ended at `at` and took so long.
    pub fn ended(&self, project: &str, at: Timestamp, worker_ms: u64) {
        self.counted().add(project, Hour { hour: at.0.div_euclid(HOUR_US), attempts: 1, worker_ms });
    }

    /// Takes up what an earlier server noted, as far as it is not too old. Blocks.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn take_up(&self, records: &Records, now: Timestamp) -> Result<(), RecordError> {
        let mut noted: Vec<Noted> = records.all::<Noted>()?.into_iter().map(|(_, noted)| noted).collect();
        let this = now.0.div_euclid(HOUR_US);
        noted.retain(|noted| (oldest(now)..=this).contains(&noted.hour));
        noted.sort_by_key(|noted| noted.hour);
        let mut counted = self.counted();
        for noted in noted {
            counted.began = counted.began.min(noted.began);
            for (project, (attempts, worker_ms)) in noted.projects {
                counted.add(&project, Hour { hour: noted.hour, attempts, worker_ms });
            }
        }
        counted.changed.clear();
        Ok(())
    }

    /// Notes the hours of which something was counted since the last time. Blocks.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn write(&self, records: &Records, now: Timestamp) -> Result<(), RecordError> {
        loop {
            let Some(noted) = self.counted().next_changed() else { return Ok(()) };
            let key = noted.hour.rem_euclid(HOURS_KEPT).to_string();
            if let Err(error) = records.note(&key, &noted, now) {
                self.counted().changed.insert(noted.hour);
                return Err(error);
            }
        }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        lock(&self.0)
    }

    /// What was counted of each project over the last seven days, by name.
    #[must_use]
    pub fn projects(&self, now: Timestamp) -> Vec<ProjectTime> {
        let counted = self.counted();
        let told = counted.projects.iter().map(|(project, hours)| {
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

impl Counted {
    fn add(&mut self, project: &str, ended: Hour) {
        let oldest = ended.hour - HOURS_KEPT + 1;
        let projects = &mut self.projects;
        if !projects.contains_key(project) {
            if projects.len() >= PROJECTS_MAX {
                projects.retain(|_, hours| hours.back().is_some_and(|last| last.hour >= oldest));
            }
            if projects.len() >= PROJECTS_MAX {
                return;
            }
        }
        let hours = projects.entry(project.to_owned()).or_default();
        let hour = match hours.back_mut() {
            // A clock that was set back counts on in the hour at hand.
            Some(last) if last.hour >= ended.hour => {
                last.attempts += ended.attempts;
                last.worker_ms = last.worker_ms.saturating_add(ended.worker_ms);
                last.hour
            }
            _ => {
                hours.push_back(ended);
                ended.hour
            }
        };
        while hours.front().is_some_and(|first| first.hour < oldest) {
            hours.pop_front();
        }
        self.changed.insert(hour);
    }

    /// An hour that is to be noted, which then counts as noted.
    fn next_changed(&mut self) -> Option<Noted> {
        let hour = self.changed.pop_first()?;
        let of = |hours: &VecDeque<Hour>| hours.iter().find(|it| it.hour == hour).map(|it| (it.attempts, it.worker_ms));
        let of_projects = self.projects.iter().filter_map(|(name, hours)| Some((name.clone(), of(hours)?)));
        Some(Noted { hour, began: self.began, projects: of_projects.collect() })
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
    fn what_was_counted_outlives_the_server() {
        let records = Records::new(std::sync::Arc::new(store::MemoryStore::default()));
        let hour = |hour: i64| Timestamp(hour * HOUR_US);
        let time = WorkerTime::new(hour(2));
        time.ended("a", hour(2), 5);
        time.write(&records, hour(2)).expect("a store in memory takes it");
        time.ended("a", hour(3), 7);
        time.ended("b", hour(3), 1);
        time.write(&records, hour(3)).expect("a store in memory takes it");
        let later = WorkerTime::new(hour(4));
        later.take_up(&records, hour(4)).expect("it is there");
        assert_eq!((later.projects(hour(4)), later.since(hour(4))), (time.projects(hour(4)), hour(2)));
        // Counted on, noted again, and taken up once more.
        later.ended("a", hour(4), 1);
        later.write(&records, hour(4)).expect("a store in memory takes it");
        let last = WorkerTime::new(hour(4));
        last.take_up(&records, hour(4)).expect("it is there");
        assert_eq!(last.projects(hour(4)), later.projects(hour(4)));
        // What is older than seven days is not told.
        let much_later = WorkerTime::new(hour(500));
        much_later.take_up(&records, hour(500)).expect("it is there");
        assert_eq!((much_later.projects(hour(500)), much_later.since(hour(500))), (Vec::new(), hour(500)));
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
