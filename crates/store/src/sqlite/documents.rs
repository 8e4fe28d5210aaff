//! Records, the audit and pieces of logs in SQLite.

use graph::{BuildId, Digest, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::column::{TimeColumn, signed, time, unsigned};
use crate::audit::{AuditEntry, AuditFilter, AuditRow};
use crate::chunk::{self, LogChunk};
use crate::record::{Expect, Record, SOURCE_KIND, Version, cut_page};
use crate::store::{PAGE_ROWS_MAX, StoreError};

fn record_row(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        kind: row.get(0)?,
        key: row.get(1)?,
        version: Version(unsigned(row, 2)?),
        body: row.get(3)?,
        at: time(row, 4)?,
    })
}

pub(super) fn record(connection: &Connection, kind: &str, key: &str) -> Result<Option<Record>, StoreError> {
    let sql = "select kind, key, version, body, at from records where kind = ?1 and key = ?2";
    Ok(connection.prepare_cached(sql)?.query_row((kind, key), record_row).optional()?)
}

fn version(connection: &Connection, kind: &str, key: &str) -> Result<Option<Version>, StoreError> {
    let sql = "select version from records where kind = ?1 and key = ?2";
    let found = connection.prepare_cached(sql)?.query_row((kind, key), |row| unsigned(row, 0)).optional()?;
    Ok(found.map(Version))
}

pub(super) fn put_record(
    connection: &Connection,
    kind: &str,
    key: &str,
    body: &[u8],
    expect: Expect,
    at: Timestamp,
) -> Result<Version, StoreError> {
    expect.check(version(connection, kind, key)?)?;
    let version = super::count_up(connection, "record")?;
    let sql = "insert into records (kind, key, version, body, at) values (?1, ?2, ?3, ?4, ?5) \
               on conflict (kind, key) do update set version = excluded.version, body = excluded.body, \
               at = excluded.at";
    connection.prepare_cached(sql)?.execute(params![kind, key, signed(version), body, TimeColumn(at)])?;
    Ok(Version(version))
}

pub(super) fn delete_record(
    connection: &Connection,
    kind: &str,
    key: &str,
    expect: Expect,
) -> Result<bool, StoreError> {
    expect.check(version(connection, kind, key)?)?;
    let sql = "delete from records where kind = ?1 and key = ?2";
    Ok(connection.prepare_cached(sql)?.execute((kind, key))? > 0)
}

pub(super) fn records(
    connection: &Connection,
    kind: &str,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<Record>, StoreError> {
    let sql = match after {
        Some(_) => {
            "select kind, key, version, body, at from records where kind = ?1 and key > ?3 order by key limit ?2"
        }
        None => "select kind, key, version, body, at from records where kind = ?1 order by key limit ?2",
    };
    let mut values = vec![Value::from(kind.to_owned()), Value::from(limit.min(PAGE_ROWS_MAX))];
    values.extend(after.map(|after| Value::from(after.to_owned())));
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params_from_iter(values), record_row)?;
    let mut records = rows.collect::<Result<Vec<_>, _>>()?;
    cut_page(&mut records);
    Ok(records)
}

/// The keys of records that are sources.
pub(super) fn sources(connection: &Connection) -> Result<Vec<Digest>, StoreError> {
    let mut statement = connection.prepare_cached("select key from records where kind = ?1")?;
    let keys = statement.query_map([SOURCE_KIND], |row| row.get::<_, String>(0))?;
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    Ok(keys.iter().filter_map(|key| key.parse().ok()).collect())
}

pub(super) fn append_audit(connection: &Connection, entry: &AuditEntry) -> Result<u64, StoreError> {
    let sql = "insert into audit (number, at, who, verb, target, project, origin, detail) \
               values ((select coalesce(max(number), 0) + 1 from audit), ?1, ?2, ?3, ?4, ?5, ?6, ?7) returning number";
    let AuditEntry { at, who, verb, target, project, from, detail } = entry;
    let values = params![TimeColumn(*at), who, verb, target, project, from, detail];
    Ok(connection.prepare_cached(sql)?.query_row(values, |row| unsigned(row, 0))?)
}

pub(super) fn audit(
    connection: &Connection,
    filter: &AuditFilter,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<AuditRow>, StoreError> {
    let mut sql =
        "select number, at, who, verb, target, project, origin, detail from audit where number < ?".to_owned();
    let mut values = vec![Value::from(before.map_or(i64::MAX, signed))];
    for (condition, value) in [(" and project = ?", &filter.project), (" and who = ?", &filter.who)] {
        if let Some(value) = value {
            sql.push_str(condition);
            values.push(Value::from(value.clone()));
        }
    }
    sql.push_str(" order by number desc limit ?");
    values.push(Value::from(limit.min(PAGE_ROWS_MAX)));
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), |row| {
        let entry = AuditEntry {
            at: time(row, 1)?,
            who: row.get(2)?,
            verb: row.get(3)?,
            target: row.get(4)?,
            project: row.get(5)?,
            from: row.get(6)?,
            detail: row.get(7)?,
        };
        Ok(AuditRow { number: unsigned(row, 0)?, entry })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn prune_audit(connection: &Connection, before: Timestamp) -> Result<u64, StoreError> {
    let sql = "delete from audit where at < ?1 and number < (select max(number) from audit)";
    Ok(connection.prepare_cached(sql)?.execute([TimeColumn(before)])? as u64)
}

pub(super) fn append_chunks(connection: &Connection, chunks: &[(BuildId, Vec<u8>)]) -> Result<Vec<u64>, StoreError> {
    let sql = "insert into log_chunks (build, number, body) \
               values (?1, (select coalesce(max(number), 0) + 1 from log_chunks where build = ?1), ?2) returning number";
    let mut statement = connection.prepare_cached(sql)?;
    let mut numbers = Vec::with_capacity(chunks.len());
    for (build, body) in chunks {
        numbers.push(statement.query_row((signed(build.0), body), |row| unsigned(row, 0))?);
    }
    Ok(numbers)
}

pub(super) fn chunks(
    connection: &Connection,
    build: BuildId,
    after: u64,
    limit: u32,
) -> Result<Vec<LogChunk>, StoreError> {
    let sql = "select number, body from log_chunks where build = ?1 and number > ?2 order by number limit ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query((signed(build.0), signed(after), limit.min(PAGE_ROWS_MAX)))?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let chunk = LogChunk { number: unsigned(row, 0)?, body: row.get(1)? };
        bytes += chunk.body.len();
        page.push(chunk);
        if bytes >= chunk::PAGE_BYTES_MAX {
            break;
        }
    }
    Ok(page)
}

pub(super) fn delete_chunks(connection: &Connection, build: BuildId) -> Result<u64, StoreError> {
    let sql = "delete from log_chunks where build = ?1";
    Ok(connection.prepare_cached(sql)?.execute([signed(build.0)])? as u64)
}
