//! What PostgreSQL's refusals mean.

use std::io;

use tokio_postgres::error::SqlState;

use crate::store::StoreError;

/// Sorts a refusal by what the caller can do about it. The classes are those of PostgreSQL's appendix A, "Error Codes".
pub(super) fn from_postgres(error: tokio_postgres::Error) -> StoreError {
    let Some(state) = error.code() else {
        // Not said by the database: the connection broke, or an answer was none that we can read.
        let is_ours = std::error::Error::source(&error).is_some_and(|source| !source.is::<io::Error>());
        return if is_ours && !error.is_closed() && !is_of_connection(&error) {
            StoreError::Corrupt(error.into())
        } else {
            StoreError::Lost(error.into())
        };
    };
    let (is_full, is_busy) = (state == &SqlState::DISK_FULL, is_busy(state));
    match &state.code()[..2] {
        _ if is_full => StoreError::Full(error.into()),
        _ if is_busy => StoreError::Busy(error.into()),
        // Connection exceptions, and the operator's interventions: shut down, crashed, not yet up.
        "08" | "57" => StoreError::Lost(error.into()),
        "25" if state == &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => StoreError::Lost(error.into()),
        // Who we are, which database, what we may do, and a server that only reads.
        "28" | "3D" | "42" if !is_of_schema(state) => StoreError::Denied(error.into()),
        "25" if state == &SqlState::READ_ONLY_SQL_TRANSACTION => StoreError::Denied(error.into()),
        // Out of memory and the like; limits of the program; the system.
        "53" | "54" | "58" => StoreError::Io(error.into()),
        // A schema that is not the one its version promises, values that are none of ours, damage.
        _ => StoreError::Corrupt(error.into()),
    }
}

/// As [`from_postgres`], of a connection that is to be made: nothing has been read, so nothing is damaged.
pub(super) fn of_connecting(error: tokio_postgres::Error) -> StoreError {
    match from_postgres(error) {
        StoreError::Corrupt(cause) => StoreError::Lost(cause),
        other => other,
    }
}

fn is_busy(state: &SqlState) -> bool {
    [
        &SqlState::LOCK_NOT_AVAILABLE,
        &SqlState::QUERY_CANCELED,
        &SqlState::T_R_SERIALIZATION_FAILURE,
        &SqlState::T_R_DEADLOCK_DETECTED,
        &SqlState::TOO_MANY_CONNECTIONS,
    ]
    .contains(&state)
}

/// Whether a refusal of class 42 is about something that ought to be there, and not about rights.
fn is_of_schema(state: &SqlState) -> bool {
    state.code().starts_with("42") && state != &SqlState::INSUFFICIENT_PRIVILEGE
}

fn is_of_connection(error: &tokio_postgres::Error) -> bool {
    // Errors while connecting have no code and often no cause either.
    error.to_string().starts_with("error connecting") || error.to_string().starts_with("timeout")
}

/// Whether a statement was refused because it found no row where it divides by their number: the way in which a
/// transaction that is sent whole ends itself.
pub(super) fn is_unmet(error: &StoreError) -> bool {
    has_state(error, &SqlState::DIVISION_BY_ZERO)
}

/// Whether a row with this key was there already.
pub(super) fn is_twin(error: &StoreError) -> bool {
    has_state(error, &SqlState::UNIQUE_VIOLATION)
}

/// Whether a lock was not free in time.
pub(super) fn is_locked(error: &StoreError) -> bool {
    has_state(error, &SqlState::LOCK_NOT_AVAILABLE)
}

fn has_state(error: &StoreError, state: &SqlState) -> bool {
    let source = std::error::Error::source(error);
    source.and_then(|source| source.downcast_ref::<tokio_postgres::Error>()).and_then(|error| error.code())
        == Some(state)
}

/// What we were told makes no sense.
pub(super) fn broken(what: &str) -> StoreError {
    StoreError::Corrupt(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()).into())
}
