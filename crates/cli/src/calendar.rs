//! The moment at which a command looks, and times as people read them. The machine's clock itself is read in `local/clock.rs`.

use std::sync::OnceLock;

use graph::Timestamp;
use jiff::tz::TimeZone;

/// Now, and the zone in which times are told.
#[derive(Clone, Debug)]
pub struct Calendar {
    /// Now.
    pub now: Timestamp,
    /// The reader's zone; the machine's, found when the first time is told.
    zone: OnceLock<TimeZone>,
}

impl Calendar {
    /// The present time and the machine's zone.
    pub fn system() -> Self {
        Self { now: crate::local::clock::now(), zone: OnceLock::new() }
    }

    /// `2026-11-21 04:33:12`; empty for a time that no calendar has.
    pub fn time(&self, at: Timestamp) -> String {
        self.format(at, "%Y-%m-%d %H:%M:%S")
    }

    /// `04:33:12.042`, to put before a line of a log.
    pub fn moment(&self, at: Timestamp) -> String {
        self.format(at, "%H:%M:%S%.3f")
    }

    fn format(&self, at: Timestamp, pattern: &str) -> String {
        jiff::Timestamp::from_microsecond(at.0)
            .map(|time| time.to_zoned(self.zone.get_or_init(system_zone).clone()).strftime(pattern).to_string())
            .unwrap_or_default()
    }

    /// `just now`, `5 min ago`, `3 h ago`, `12 d ago`.
    pub fn age(&self, at: Timestamp) -> String {
        api::words::ago(self.now.ms_since(at))
    }
}

/// The machine's zone. Its file is read directly where `TZ` does not name another: the zone's name, for which jiff
/// would look through the whole database (some milliseconds), is never told.
fn system_zone() -> TimeZone {
    if std::env::var_os("TZ").is_none()
        && let Ok(file) = std::fs::read("/etc/localtime")
        && let Ok(zone) = TimeZone::tzif("local", &file)
    {
        return zone;
    }
    TimeZone::system()
}

#[cfg(test)]
impl Calendar {
    /// A calendar of Greenwich at this moment.
    pub fn utc(now: Timestamp) -> Self {
        Self { now, zone: OnceLock::from(TimeZone::UTC) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ages() {
        let calendar = Calendar::utc(Timestamp(1_795_235_592_042_000));
        assert_eq!(calendar.time(calendar.now), "2026-11-21 04:33:12");
        assert_eq!(calendar.moment(calendar.now), "04:33:12.042");
        let age = |seconds: i64| calendar.age(Timestamp(calendar.now.0 - seconds * 1_000_000));
        assert_eq!([-7, 4, 59, 172_800].map(age), ["just now", "just now", "59 s ago", "2 d ago"]);
        assert_eq!(calendar.time(Timestamp(i64::MAX)), "", "no calendar has it");
    }
}
