//! The one place in the binary that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use graph::Timestamp;

/// The present time.
pub fn now() -> Timestamp {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    Timestamp(i64::try_from(micros).unwrap_or(i64::MAX))
}
