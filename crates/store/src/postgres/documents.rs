//! Records, the audit and pieces of logs in PostgreSQL.

use std::collections::BTreeMap;

use graph::{BuildId, Timestamp};
use tokio_postgres::Row;

use super::column::{clean, get, number, signed, text, time, unsigned};
use super::session::{Call, Session, Value};
use crate::audit::{AuditEntry, AuditFilter, AuditRow};
use crate::chunk::{self, LogChunk};
use crate::record::{Expect, NewRecord, Record, Version, cut_page};
use crate::store::{PAGE_ROWS_MAX, StoreError};

/// The advisory locks of this folder, as the first of two numbers; the second says which of a kind. They order writers
/// whose rows have numbers; they last until the end of the transaction.
const AUDIT_LOCK: &str = "select pg_advisory_xact_lock(1919905893, 1)";
const CHUNKS_LOCK: &str = "select pg_advisory_xact_lock(1919905893, 2)";

fn record_row(row: &Row) -> Result<Record, StoreError> {
    Ok(Record {
        kind: get(row, 0)?,
        key: get(row, 1)?,
        version: Version(unsigned(row, 2)?),
        body: get(row, 3)?,
        at: time(row, 4)?,
    })
}

pub(super) fn record(session: &Session, kind: &str, key: &str) -> Result<Option<Record>, StoreError> {
    let sql = "select kind, key, version, body, at from records where kind = $1 and key = $2";
    session.call(Call::new(sql, [text(kind), text(key)]))?.rows.first().map(record_row).transpose()
}

/// Counts up in the same statement.
const NEXT_VERSION: &str = "with next as (insert into counters (name, value) values ('record', 1) \
                            on conflict (name) do update set value = counters.value + 1 returning value) ";

pub(super) fn put_record(
    session: &Session,
    kind: &str,
    key: &str,
    body: &[u8],
    expect: Expect,
    at: Timestamp,
) -> Result<Version, StoreError> {
    match session.call(put(kind, key, body, expect, at))?.rows.first() {
        Some(row) => Ok(Version(unsigned(row, 0)?)),
        None => Err(conflict(session, kind, key)?),
    }
}

pub(super) fn put_records(session: &Session, records: &[NewRecord<'_>], at: Timestamp) -> Result<(), StoreError> {
    let calls: Vec<Call> =
        records.iter().map(|NewRecord { kind, key, body }| put(kind, key, body, Expect::Any, at)).collect();
    if calls.is_empty() {
        return Ok(());
    }
    session.transact(&calls).map(drop).map_err(|(_, error)| error)
}

/// Gives the version, or no row if something else is there than is expected.
fn put(kind: &str, key: &str, body: &[u8], expect: Expect, at: Timestamp) -> Call {
    let mut values = vec![text(kind), text(key), Value::Bytes(body.to_owned()), Value::Integer(at.0)];
    let insert = "insert into records (kind, key, version, body, at) select $1, $2, next.value, $3, $4 from next";
    let sql = match expect {
        Expect::Any => format!(
            "{NEXT_VERSION}{insert} on conflict (kind, key) do update set version = excluded.version, \
             body = excluded.body, at = excluded.at returning version"
        ),
        Expect::Absent => format!("{NEXT_VERSION}{insert} on conflict (kind, key) do nothing returning version"),
        Expect::Version(version) => {
            values.push(number(version.0));
            format!(
                "{NEXT_VERSION}update records set version = next.value, body = $3, at = $4 from next \
                 where kind = $1 and key = $2 and version = $5 returning version"
            )
        }
    };
    Call::new(sql, values)
}

fn conflict(session: &Session, kind: &str, key: &str) -> Result<StoreError, StoreError> {
    Ok(StoreError::Conflict { found: record(session, kind, key)?.map(|record| record.version) })
}

pub(super) fn delete_record(session: &Session, kind: &str, key: &str, expect: Expect) -> Result<bool, StoreError> {
    if expect == Expect::Absent {
        let found = record(session, kind, key)?;
        return expect.check(found.map(|record| record.version)).map(|()| false);
    }
    let mut values = vec![text(kind), text(key)];
    let mut sql = "delete from records where kind = $1 and key = $2".to_owned();
    if let Expect::Version(version) = expect {
        values.push(number(version.0));
        sql.push_str(" and version = $3");
    }
    let is_gone = session.call(Call::new(sql, values))?.affected > 0;
    if !is_gone && expect != Expect::Any {
        return Err(conflict(session, kind, key)?);
    }
    Ok(is_gone)
}

pub(super) fn records(
    session: &Session,
    kind: &str,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<Record>, StoreError> {
    let sql = "select kind, key, version, body, at from records where kind = $1 and ($3::text is null or key > $3) \
               order by key limit $2";
    let values = [text(kind), number(limit.min(PAGE_ROWS_MAX).into()), Value::MaybeText(after.map(clean))];
    let mut records = session.call(Call::new(sql, values))?.rows.iter().map(record_row).collect::<Result<_, _>>()?;
    cut_page(&mut records);
    Ok(records)
}

pub(super) fn append_audit(session: &Session, entry: &AuditEntry) -> Result<u64, StoreError> {
    let sql = "insert into audit (number, at, who, verb, target, project, origin, detail) \
               values ((select coalesce(max(number), 0) + 1 from audit), $1, $2, $3, $4, $5, $6, $7) returning number";
    let AuditEntry { at, who, verb, target, project, from, detail } = entry;
    let mut values = vec![Value::Integer(at.0)];
    values.extend([who, verb, target, project, from, detail].map(|part| text(part)));
    let calls = [Call::new(AUDIT_LOCK, []), Call::new(sql, values)];
    let answers = session.transact(&calls).map_err(|(_, error)| error)?;
    answers[1].rows.first().map_or(Ok(0), |row| unsigned(row, 0))
}

pub(super) fn audit(
    session: &Session,
    filter: &AuditFilter,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<AuditRow>, StoreError> {
    let mut sql =
        "select number, at, who, verb, target, project, origin, detail from audit where number < $1".to_owned();
    let mut values = vec![before.map_or(Value::Integer(i64::MAX), number)];
    for (column, value) in [("project", &filter.project), ("who", &filter.who)] {
        if let Some(value) = value {
            values.push(text(value));
            sql.push_str(&format!(" and {column} = ${}", values.len()));
        }
    }
    values.push(number(limit.min(PAGE_ROWS_MAX).into()));
    sql.push_str(&format!(" order by number desc limit ${}", values.len()));
    let row = |row: &Row| {
        let entry = AuditEntry {
            at: time(row, 1)?,
            who: get(row, 2)?,
            verb: get(row, 3)?,
            target: get(row, 4)?,
            project: get(row, 5)?,
            from: get(row, 6)?,
            detail: get(row, 7)?,
        };
        Ok(AuditRow { number: unsigned(row, 0)?, entry })
    };
    session.call(Call::new(sql, values))?.rows.iter().map(row).collect()
}

pub(super) fn prune_audit(session: &Session, before: Timestamp) -> Result<u64, StoreError> {
    let sql = "delete from audit where at < $1 and number < (select max(number) from audit)";
    Ok(session.call(Call::new(sql, [Value::Integer(before.0)]))?.affected)
}

pub(super) fn append_chunks(session: &Session, chunks: &[(BuildId, Vec<u8>)]) -> Result<Vec<u64>, StoreError> {
    if chunks.is_empty() {
        return Ok(Vec::new());
    }
    let sql = "insert into log_chunks (build, number, body) select build, \
               coalesce((select max(number) from log_chunks as kept where kept.build = new.build), 0) \
               + row_number() over (partition by build order by place), body \
               from unnest($1::bigint[], $2::bytea[]) with ordinality as new (build, body, place) \
               returning build, number";
    let builds = Value::Integers(chunks.iter().map(|(build, _)| Some(signed(build.0))).collect());
    let bodies = Value::ByteStrings(chunks.iter().map(|(_, body)| Some(body.clone())).collect());
    let calls = [Call::new(CHUNKS_LOCK, []), Call::new(sql, [builds, bodies])];
    let answers = session.transact(&calls).map_err(|(_, error)| error)?;
    let mut numbers = BTreeMap::<BuildId, Vec<u64>>::new();
    for row in &answers[1].rows {
        numbers.entry(BuildId(unsigned(row, 0)?)).or_default().push(unsigned(row, 1)?);
    }
    // Those of a build rise as its pieces follow one another.
    for of_build in numbers.values_mut() {
        of_build.sort_unstable_by(|one, two| two.cmp(one));
    }
    Ok(chunks.iter().filter_map(|(build, _)| numbers.get_mut(build)?.pop()).collect())
}

pub(super) fn chunks(session: &Session, build: BuildId, after: u64, limit: u32) -> Result<Vec<LogChunk>, StoreError> {
    // What passes the bound of bytes is not sent.
    let sql = "select number, body from (select number, body, \
               coalesce(sum(length(body)) over (order by number rows between unbounded preceding and 1 preceding), 0) \
               as before from log_chunks where build = $1 and number > $2 order by number limit $3) as page \
               where before < $4 order by number";
    let bound = chunk::PAGE_BYTES_MAX as u64;
    let values = [number(build.0), number(after), number(limit.min(PAGE_ROWS_MAX).into()), number(bound)];
    let chunk = |row: &Row| Ok(LogChunk { number: unsigned(row, 0)?, body: get(row, 1)? });
    session.call(Call::new(sql, values))?.rows.iter().map(chunk).collect()
}

pub(super) fn delete_chunks(session: &Session, build: BuildId) -> Result<u64, StoreError> {
    Ok(session.call(Call::new("delete from log_chunks where build = $1", [number(build.0)]))?.affected)
}
