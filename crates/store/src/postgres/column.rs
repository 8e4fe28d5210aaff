//! How our types stand in columns of PostgreSQL.

use std::io;

use graph::{Digest, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::error::broken;
use super::session::Value;
use crate::store::StoreError;
pub(super) use crate::table::clean;
use crate::table::{Cell, Kind, Table};

/// A column's value.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(|error| StoreError::Corrupt(error.into()))
}

/// A number that PostgreSQL holds with a sign; ours never come near the bound.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that has no sign with us.
pub(super) fn unsigned(row: &Row, column: usize) -> Result<u64, StoreError> {
    u64::try_from(get::<i64>(row, column)?).map_err(|_| broken("a number is below zero"))
}

/// As [`unsigned`], of 32 bits.
pub(super) fn short(row: &Row, column: usize) -> Result<u32, StoreError> {
    u32::try_from(get::<i64>(row, column)?).map_err(|_| broken("a number is out of its bounds"))
}

/// As [`unsigned`], of a column that may be null.
pub(super) fn maybe_unsigned(row: &Row, column: usize) -> Result<Option<u64>, StoreError> {
    let number = get::<Option<i64>>(row, column)?;
    number.map(|number| u64::try_from(number).map_err(|_| broken("a number is below zero"))).transpose()
}

/// A time.
pub(super) fn time(row: &Row, column: usize) -> Result<Timestamp, StoreError> {
    Ok(Timestamp(get(row, column)?))
}

/// A time that may be absent.
pub(super) fn maybe_time(row: &Row, column: usize) -> Result<Option<Timestamp>, StoreError> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp))
}

/// 32 bytes.
pub(super) fn digest(row: &Row, column: usize) -> Result<Digest, StoreError> {
    maybe_digest(row, column)?.ok_or_else(|| broken("a digest is missing"))
}

/// As [`digest`], of a column that may be null.
pub(super) fn maybe_digest(row: &Row, column: usize) -> Result<Option<Digest>, StoreError> {
    let Some(bytes) = get::<Option<&[u8]>>(row, column)? else { return Ok(None) };
    bytes.try_into().map(|bytes| Some(Digest(bytes))).map_err(|_| broken("a digest has not 32 bytes"))
}

/// What a column of JSON holds.
pub(super) fn from_json<T: DeserializeOwned>(row: &Row, column: usize) -> Result<T, StoreError> {
    parse(get::<&str>(row, column)?)
}

/// As [`from_json`], of a column that may be null.
pub(super) fn maybe_from_json<T: DeserializeOwned>(row: &Row, column: usize) -> Result<Option<T>, StoreError> {
    get::<Option<&str>>(row, column)?.map(parse).transpose()
}

pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(error.into()))
}

/// Text as JSON. Our types serialize to JSON whatever they hold.
pub(super) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("a row's part always serializes")
}

/// A word of a small set.
pub(super) fn word<T: Copy>(
    row: &Row,
    column: usize,
    all: &[T],
    word_of: impl Fn(T) -> &'static str,
) -> Result<T, StoreError> {
    let text = get::<&str>(row, column)?;
    all.iter()
        .copied()
        .find(|&one| word_of(one) == text)
        .ok_or_else(|| StoreError::Corrupt(io::Error::other(format!("`{text}` is no word of this column")).into()))
}

pub(super) fn text(text: &str) -> Value {
    Value::Text(clean(text))
}

pub(super) fn number(number: u64) -> Value {
    Value::Integer(signed(number))
}

pub(super) fn bytes(digest: Digest) -> Value {
    Value::Bytes(digest.0.to_vec())
}

/// Digests for `= any($n)`.
pub(super) fn all_bytes(digests: impl IntoIterator<Item = Digest>) -> Value {
    Value::ByteStrings(digests.into_iter().map(|digest| Some(digest.0.to_vec())).collect())
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(clean(text))
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(clean(&text))
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Integer(signed(number))
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<Timestamp> for Cell {
    fn from(time: Timestamp) -> Self {
        Self::Integer(time.0)
    }
}

impl From<Digest> for Cell {
    fn from(digest: Digest) -> Self {
        Self::Bytes(digest.0.to_vec())
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The rows of a table column by column, as arrays for `unnest`.
pub(super) fn arrays(table: &Table, rows: Vec<Vec<Cell>>) -> Vec<Value> {
    let mut columns: Vec<_> = table
        .columns
        .iter()
        .map(|(_, kind)| match kind {
            Kind::Integer => Value::Integers(Vec::with_capacity(rows.len())),
            Kind::Text => Value::Texts(Vec::with_capacity(rows.len())),
            Kind::Bytes => Value::ByteStrings(Vec::with_capacity(rows.len())),
        })
        .collect();
    for row in rows {
        for (column, cell) in columns.iter_mut().zip(row) {
            match (column, cell) {
                (Value::Integers(column), Cell::Integer(value)) => column.push(Some(value)),
                (Value::Integers(column), _) => column.push(None),
                (Value::Texts(column), Cell::Text(value)) => column.push(Some(value)),
                (Value::Texts(column), _) => column.push(None),
                (Value::ByteStrings(column), Cell::Bytes(value)) => column.push(Some(value)),
                (Value::ByteStrings(column), _) => column.push(None),
                _ => {}
            }
        }
    }
    columns
}

/// What becomes of a row whose key is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Twin {
    /// The statement is refused.
    Refused,
    /// It stays.
    Kept,
    /// It is replaced.
    Replaced,
}

/// A statement that writes any number of rows of a table, given by [`arrays`].
pub(super) fn insert(table: &Table, twin: Twin) -> String {
    let arrays: Vec<_> = (1..)
        .zip(table.columns)
        .map(|(number, (_, kind))| {
            let kind = match kind {
                Kind::Integer => "bigint",
                Kind::Text => "text",
                Kind::Bytes => "bytea",
            };
            format!("${number}::{kind}[]")
        })
        .collect();
    let conflict = match twin {
        Twin::Refused => String::new(),
        Twin::Kept => " on conflict do nothing".to_owned(),
        Twin::Replaced => {
            let set: Vec<_> =
                table.columns[table.key..].iter().map(|(name, _)| format!("{name} = excluded.{name}")).collect();
            format!(" on conflict ({}) do update set {}", table.key_names(), set.join(", "))
        }
    };
    format!("insert into {} ({}) select * from unnest({}){conflict}", table.name, table.names(), arrays.join(", "))
}

/// A row of a table as it stands.
pub(super) fn cells(table: &Table, row: &Row) -> Result<Vec<Cell>, StoreError> {
    let cell = |(index, (_, kind)): (usize, &(&str, Kind))| {
        Ok(match kind {
            Kind::Integer => get::<Option<i64>>(row, index)?.map_or(Cell::Null, Cell::Integer),
            Kind::Text => get::<Option<String>>(row, index)?.map_or(Cell::Null, Cell::Text),
            Kind::Bytes => get::<Option<Vec<u8>>>(row, index)?.map_or(Cell::Null, Cell::Bytes),
        })
    };
    table.columns.iter().enumerate().map(cell).collect()
}
