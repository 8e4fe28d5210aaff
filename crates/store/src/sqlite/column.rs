//! How our types stand in columns, and what SQLite's refusals mean.

use std::io;

use graph::{Digest, Timestamp, Trust};
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{ErrorCode, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::{Cause, StoreError};

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        // In one piece: what is behind an error of SQLite says the same again, with a number.
        let cause: Cause = error.to_string().into();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(cause),
            Some(ErrorCode::DiskFull | ErrorCode::TooBig) => Self::Full(cause),
            // The memory that processes share about the log of changes is a file, too.
            _ if error.sqlite_error().is_some_and(|error| error.extended_code == SQLITE_IOERR_SHMSIZE) => {
                Self::Full(cause)
            }
            Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => Self::Denied(cause),
            Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::FileLockingProtocolFailed) => {
                Self::Io(cause)
            }
            // A value that is none of ours, a broken file, a schema that is not the one its version promises.
            _ => Self::Corrupt(cause),
        }
    }
}

/// What is stored makes no sense.
pub(crate) fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()).into())
}

/// A number that SQLite holds with a sign; ours never come near the bound.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that has no sign with us.
pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// As [`unsigned`], of a column that may be null.
pub(crate) fn maybe_unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        _ => unsigned(row, column).map(Some),
    }
}

/// A [`Digest`] as 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DigestColumn(pub Digest);

impl ToSql for DigestColumn {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(&self.0.0)))
    }
}

impl FromSql for DigestColumn {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bytes = value.as_blob()?;
        bytes
            .try_into()
            .map(|bytes| Self(Digest(bytes)))
            .map_err(|_| FromSqlError::InvalidBlobSize { expected_size: 32, blob_size: bytes.len() })
    }
}

/// A [`Timestamp`] as microseconds.
#[derive(Clone, Copy)]
pub(crate) struct TimeColumn(pub Timestamp);

impl ToSql for TimeColumn {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.0.to_sql()
    }
}

impl FromSql for TimeColumn {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(|micros| Self(Timestamp(micros)))
    }
}

/// A time that may be absent.
pub(crate) fn maybe_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<TimeColumn>>(column)?.map(|time| time.0))
}

/// A time.
pub(crate) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(row.get::<_, TimeColumn>(column)?.0)
}

/// Text as JSON. Our types serialize to JSON whatever they hold.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("a row's part always serializes")
}

/// What a column of JSON holds.
pub(crate) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    parse(column, row.get_ref(column)?.as_str()?)
}

/// As [`from_json`], of a column that may be null.
pub(crate) fn maybe_from_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    row.get_ref(column)?.as_str_or_null()?.map(|text| parse(column, text)).transpose()
}

fn parse<T: DeserializeOwned>(column: usize, text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| conversion(column, error))
}

/// A column holds what we never write.
pub(crate) fn conversion(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

/// A word of a small set.
pub(crate) fn word<T: Copy>(
    row: &Row<'_>,
    column: usize,
    all: &[T],
    word_of: impl Fn(T) -> &'static str,
) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    all.iter().copied().find(|&one| word_of(one) == text).ok_or_else(|| {
        conversion(column, io::Error::new(io::ErrorKind::InvalidData, format!("`{text}` is no word of this column")))
    })
}

/// All trusts, for [`word`].
pub(crate) const TRUSTS: [Trust; 2] = [Trust::Trusted, Trust::Untrusted];
