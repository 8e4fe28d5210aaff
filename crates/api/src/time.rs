//! Points in time as people and programs read them: RFC 3339 in UTC with microseconds.
//!
//! `2026-11-21T04:33:12.000123Z`, the same as in `run --output json`: people read it, every language parses it, and texts
//! of this shape sort as times do. Inside Ropewalk times are plain numbers ([`graph::Timestamp`]); this is the wall.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use graph::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time(pub Timestamp);

impl Time {
    /// The same to the second, as people read it: `2026-11-21T04:33:12Z`.
    #[must_use]
    pub fn in_seconds(self) -> String {
        let second = self.0.0.div_euclid(1_000_000);
        let at = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX);
        format!("{at:.0}")
    }
}

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What no calendar holds shows as the calendar's end.
        let at = jiff::Timestamp::from_microsecond(self.0.0).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{at:.6}")
    }
}

/// The text is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time such as 2026-11-21T04:33:12Z")]
pub struct NotATime;

impl FromStr for Time {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let at: jiff::Timestamp = text.parse().map_err(|_| NotATime)?;
        Ok(Self(Timestamp(at.as_microsecond())))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "description": "RFC 3339, UTC, microseconds",
            "examples": ["2026-11-21T04:33:12.000123Z"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_was_written() {
        let time = Time(Timestamp(1_795_235_592_000_123));
        assert_eq!(time.to_string(), "2026-11-21T04:33:12.000123Z");
        assert_eq!(time.in_seconds(), "2026-11-21T04:33:12Z");
        assert_eq!("2026-11-21T05:33:12.000123+01:00".parse(), Ok(time));
        assert_eq!("yesterday".parse::<Time>(), Err(NotATime));
        assert_eq!(Time(Timestamp(0)).to_string(), "1970-01-01T00:00:00.000000Z");
    }
}
