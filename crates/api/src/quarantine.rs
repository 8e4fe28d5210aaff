//! Tests in quarantine: people say of a test that it comes and goes, who looks after it, why, and until when. It is told apart
//! wherever tests are told, and named to the steps of later builds. No outcome changes by it.

use graph::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// The most tests of a project that are in quarantine, those that expired among them.
pub const TESTS_MAX: usize = graph::quarantine::TESTS_MAX;
/// For how many days at most.
pub const DAYS_MAX: u64 = 90;
/// Within how many days a quarantine that ends is told to end soon.
pub const SOON_DAYS: u64 = 7;
/// How many of the newest builds are looked at for how a test did of late.
pub const RUNS: usize = 20;
/// The longest owner and the longest reason, in characters.
pub const OWNER_CHARS_MAX: usize = 100;
/// See [`OWNER_CHARS_MAX`].
pub const REASON_CHARS_MAX: usize = 300;
/// A day in milliseconds.
pub const DAY_MS: u64 = 24 * 3600 * 1000;

/// A test in quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quarantined {
    /// The test's suite; empty if it has none.
    pub suite: String,
    /// Its name within the suite.
    pub name: String,
    /// As the job of this full name reports it; absent: as any does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Who looks after it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// Until when.
    pub until: Time,
    /// Who put it there.
    pub by: String,
    /// When.
    pub at: Time,
    /// Whether it counts.
    pub state: QuarantineState,
    /// In how many builds it passed, one after the other up to the newest, among the newest 20 that ended. Only if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_last: Option<u32>,
}

/// Whether a quarantine counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuarantineState {
    /// Not any more; it is told until somebody removes it.
    Expired,
    /// It does, and ends within seven days.
    EndsSoon,
    /// It does.
    InForce,
}

impl QuarantineState {
    /// How one that ends at `until` stands.
    #[must_use]
    pub fn at(until: Timestamp, now: Timestamp) -> Self {
        match until {
            until if until <= now => Self::Expired,
            until if until <= now.plus_ms(SOON_DAYS * DAY_MS) => Self::EndsSoon,
            _ => Self::InForce,
        }
    }
}

/// Whether it is told how tests in quarantine did of late, which costs a look at the newest builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// It is.
    Told,
    /// It is not.
    LeftOut,
}

/// Puts a test into quarantine, or changes what was said of one that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewQuarantine {
    /// The test's suite, as its report names it; absent if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub suite: String,
    /// Its name within the suite.
    #[schemars(length(min = 1))]
    pub name: String,
    /// As the job of this full name reports it; absent: as any does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub job: Option<String>,
    /// Who looks after it.
    #[schemars(length(min = 1, max = 100))]
    pub owner: String,
    /// Why.
    #[schemars(length(min = 1, max = 300))]
    pub reason: String,
    /// Until when: at most 90 days ahead.
    pub until: Time,
}

/// What is said of a test that is in quarantine, where tests are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QuarantineNote {
    /// Who looks after it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// Until when.
    pub until: Time,
}

/// What people write for an end: of a day its last second in UTC, any other text as it is.
#[must_use]
pub fn end_of(text: &str) -> String {
    let is_day = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if is_day { format!("{text}T23:59:59Z") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_with_its_last_second_and_a_quarantine_at_its_end() {
        assert_eq!(end_of("2026-12-01"), "2026-12-01T23:59:59Z");
        assert_eq!(end_of("2026-12-01T10:00:00Z"), "2026-12-01T10:00:00Z");
        let now = Timestamp(0).plus_ms(100 * DAY_MS);
        let at = |ms: u64| QuarantineState::at(Timestamp(0).plus_ms(ms), now);
        assert_eq!(at(100 * DAY_MS), QuarantineState::Expired);
        assert_eq!([at(100 * DAY_MS + 1), at(107 * DAY_MS)], [QuarantineState::EndsSoon; 2]);
        assert_eq!(at(107 * DAY_MS + 1), QuarantineState::InForce);
    }
}
