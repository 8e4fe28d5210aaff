//! Which tests of a project are in quarantine: one record for each project. What expired counts no more and stays until it is
//! removed.
//!
//! All of it blocks.

use api::quarantine::{DAY_MS, DAYS_MAX, OWNER_CHARS_MAX, REASON_CHARS_MAX};
use graph::quarantine::{BYTES_MAX, QuarantinedTest, TESTS_MAX, bytes};
use graph::{JobName, TestName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::records::{Document, RecordError, Records};

/// The most bytes of what a project has in quarantine, as it is stored.
const DOCUMENT_BYTES_MAX: usize = 512 << 10;
/// By how much a clock may be ahead of the server's, in milliseconds, for what ends after [`DAYS_MAX`] days.
const SKEW_MS: u64 = 60 * 1000;

/// One test in quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which test, of which job, until when.
    #[serde(flatten)]
    pub what: QuarantinedTest,
    /// Who looks after it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// Who put it there.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// The tests of one project; the key is the project's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quarantine {
    /// None twice, in the order in which they came.
    pub tests: Vec<Entry>,
}

impl Document for Quarantine {
    const KIND: &'static str = "quarantine";
}

/// Why a test was not put into quarantine.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// A field is not what it has to be.
    #[error("`{field}` has to be {what}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it has to be.
        what: String,
    },
    /// There are too many, or too long ones.
    #[error("a project has at most {TESTS_MAX} tests in quarantine, with {BYTES_MAX} bytes of names")]
    Full,
    /// As the records refuse.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Quarantine {
    /// The entry of a test as this job reports it, if one counts: of several that which ends last.
    #[must_use]
    pub fn of(&self, job: &str, suite: &str, name: &str, now: Timestamp) -> Option<&Entry> {
        let is_it = |entry: &&Entry| {
            let QuarantinedTest { test, job: of, until } = &entry.what;
            test.name == name && test.suite == suite && now < *until && of.as_ref().is_none_or(|of| of.as_str() == job)
        };
        self.tests.iter().filter(is_it).max_by_key(|entry| entry.what.until)
    }
}

/// What a project has in quarantine.
///
/// # Errors
/// [`RecordError`].
pub fn of(records: &Records, project: &str) -> Result<Quarantine, RecordError> {
    Ok(records.read::<Quarantine>(project)?.map(|(quarantine, _)| quarantine).unwrap_or_default())
}

/// What counts now, for a build that is asked for.
///
/// # Errors
/// [`RecordError`].
pub fn in_force(records: &Records, project: &str, now: Timestamp) -> Result<Vec<QuarantinedTest>, RecordError> {
    let tests = of(records, project)?.tests.into_iter().map(|entry| entry.what);
    Ok(tests.filter(|test| now < test.until).collect())
}

/// Puts a test there, in place of what was said of it before.
///
/// # Errors
/// [`QuarantineError`].
pub fn put(records: &Records, project: &str, entry: &Entry) -> Result<(), QuarantineError> {
    check(entry)?;
    let written = records.try_change(project, entry.at, |before: Option<Quarantine>| {
        let mut quarantine = before.unwrap_or_default();
        match quarantine.tests.iter_mut().find(|other| is_same(&other.what, &entry.what)) {
            Some(other) => *other = entry.clone(),
            None => quarantine.tests.push(entry.clone()),
        }
        let names = bytes(quarantine.tests.iter().map(|entry| &entry.what.test));
        // Our own types serialize to JSON whatever they hold.
        let stored = serde_json::to_vec(&quarantine).expect("a document always serializes").len();
        let fits = quarantine.tests.len() <= TESTS_MAX && names <= BYTES_MAX && stored <= DOCUMENT_BYTES_MAX;
        fits.then_some(quarantine)
    })?;
    written.map(drop).ok_or(QuarantineError::Full)
}

fn is_same(one: &QuarantinedTest, other: &QuarantinedTest) -> bool {
    one.test == other.test && one.job == other.job
}

fn check(entry: &Entry) -> Result<(), QuarantineError> {
    let wrong = |field, what: String| Err(QuarantineError::Field { field, what });
    let is_text = |text: &str, most: usize| {
        !text.trim().is_empty() && text.chars().count() <= most && !text.chars().any(char::is_control)
    };
    let QuarantinedTest { test, job, until } = &entry.what;
    if !test.is_writable() {
        return wrong("name", "the name of a test, in one line and without tabs, as its suite".to_owned());
    }
    if job.as_ref().is_some_and(|job| !is_text(job.as_str(), JobName::BYTES_MAX)) {
        return wrong("job", "the full name of a job".to_owned());
    }
    if !is_text(&entry.owner, OWNER_CHARS_MAX) {
        return wrong("owner", format!("who looks after it, in 1 to {OWNER_CHARS_MAX} characters"));
    }
    if !is_text(&entry.reason, REASON_CHARS_MAX) {
        return wrong("reason", format!("why, in 1 to {REASON_CHARS_MAX} characters of one line"));
    }
    if *until <= entry.at || *until > entry.at.plus_ms(DAYS_MAX * DAY_MS + SKEW_MS) {
        return wrong("until", format!("a time to come, at most {DAYS_MAX} days ahead"));
    }
    Ok(())
}

/// Takes a test out; whether it was there.
///
/// # Errors
/// [`RecordError`].
pub fn remove(
    records: &Records,
    project: &str,
    (test, job): (&TestName, Option<&JobName>),
    at: Timestamp,
) -> Result<bool, RecordError> {
    let written = records.try_change(project, at, |before: Option<Quarantine>| {
        let mut quarantine = before?;
        let n = quarantine.tests.len();
        quarantine.tests.retain(|entry| entry.what.test != *test || entry.what.job.as_ref() != job);
        (quarantine.tests.len() < n).then_some(quarantine)
    })?;
    Ok(written.is_some())
}
