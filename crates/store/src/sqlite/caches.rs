//! Keyed caches in SQLite.

use graph::{BuildId, Digest, Timestamp};
use rusqlite::{Connection, Row, params};

use super::column::{DigestColumn, TimeColumn, from_json, json, signed, time, unsigned};
use super::operations::eviction;
use crate::cache::{CacheRead, CacheRow, CacheTotals, CacheUser, CacheWanted, Saved};
use crate::store::{PAGE_ROWS_MAX, StoreError};

macro_rules! select {
    () => {
        "select scope, key, blobs, bytes, build, job, at, used_at, evicted_at, evicted_reason from caches "
    };
}

fn cache_row(row: &Row<'_>) -> rusqlite::Result<CacheRow> {
    Ok(CacheRow {
        scope: row.get(0)?,
        key: row.get(1)?,
        blobs: from_json::<Vec<Digest>>(row, 2)?,
        bytes: unsigned(row, 3)?,
        written_by: CacheUser { build: BuildId(unsigned(row, 4)?), job: row.get::<_, String>(5)?.into() },
        at: time(row, 6)?,
        used_at: time(row, 7)?,
        evicted: eviction(row, 8)?,
    })
}

pub(super) fn save(connection: &Connection, entry: &CacheRow) -> Result<Saved, StoreError> {
    let sql = "insert into caches (scope, key, blobs, bytes, build, job, at, used_at, evicted_at, evicted_reason) \
               values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) on conflict (scope, key) do update set \
               blobs = excluded.blobs, bytes = excluded.bytes, build = excluded.build, job = excluded.job, \
               at = excluded.at, used_at = excluded.used_at, evicted_at = excluded.evicted_at, \
               evicted_reason = excluded.evicted_reason where caches.evicted_at is not null";
    let written = connection.prepare_cached(sql)?.execute(params![
        entry.scope,
        entry.key,
        json(&entry.blobs),
        signed(entry.bytes),
        signed(entry.written_by.build.0),
        entry.written_by.job.as_str(),
        TimeColumn(entry.at),
        TimeColumn(entry.used_at),
        entry.evicted.as_ref().map(|tombstone| TimeColumn(tombstone.at)),
        entry.evicted.as_ref().map(|tombstone| &tombstone.reason),
    ])?;
    if written == 0 {
        return Ok(Saved::Kept);
    }
    let key = (&entry.scope, &entry.key);
    connection.prepare_cached("delete from cache_reads where scope = ?1 and key = ?2")?.execute(key)?;
    let sql = "insert into cache_blobs (scope, key, blob) values (?1, ?2, ?3) on conflict do nothing";
    let mut insert = connection.prepare_cached(sql)?;
    for &blob in entry.blobs.iter().filter(|_| entry.evicted.is_none()) {
        insert.execute((key.0, key.1, DigestColumn(blob)))?;
    }
    Ok(Saved::Written)
}

pub(super) fn restore(
    connection: &Connection,
    wanted: &CacheWanted<'_>,
    reader: &CacheUser,
    at: Timestamp,
) -> Result<Option<CacheRow>, StoreError> {
    let Some(mut row) = find(connection, wanted)? else { return Ok(None) };
    row.used_at = row.used_at.max(at);
    let key = (&row.scope, &row.key);
    let sql = "update caches set used_at = ?3 where scope = ?1 and key = ?2";
    connection.prepare_cached(sql)?.execute((key.0, key.1, TimeColumn(row.used_at)))?;
    let sql = "insert into cache_reads (scope, key, build, job, at) values (?1, ?2, ?3, ?4, ?5) \
               on conflict (scope, key, build, job) do update set at = excluded.at";
    let (build, job) = (signed(reader.build.0), reader.job.as_str());
    connection.prepare_cached(sql)?.execute((key.0, key.1, build, job, TimeColumn(at)))?;
    Ok(Some(row))
}

fn find(connection: &Connection, wanted: &CacheWanted<'_>) -> Result<Option<CacheRow>, StoreError> {
    for scope in wanted.scopes {
        let sql = concat!(select!(), "where scope = ?1 and key = ?2 and evicted_at is null");
        let mut exact = connection.prepare_cached(sql)?;
        if let Some(row) = exact.query_map((scope, wanted.key), cache_row)?.next() {
            return Ok(Some(row?));
        }
        for prefix in wanted.prefixes {
            // Keys that begin with the prefix are among those not below it.
            let sql =
                concat!(select!(), "where scope = ?1 and key >= ?2 and evicted_at is null order by at desc, key desc");
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query((scope, prefix))?;
            while let Some(row) = rows.next()? {
                if row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?.starts_with(prefix) {
                    return Ok(Some(cache_row(row)?));
                }
            }
        }
    }
    Ok(None)
}

pub(super) fn reads(connection: &Connection, scope: &str, key: &str, limit: u32) -> Result<Vec<CacheRead>, StoreError> {
    let sql = "select build, job, at from cache_reads where scope = ?1 and key = ?2 \
               order by at desc, build, job limit ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map((scope, key, limit.min(PAGE_ROWS_MAX)), |row| {
        let reader = CacheUser { build: BuildId(unsigned(row, 0)?), job: row.get::<_, String>(1)?.into() };
        Ok(CacheRead { reader, at: time(row, 2)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn list(connection: &Connection, limit: u32) -> Result<Vec<CacheRow>, StoreError> {
    let mut statement = connection.prepare_cached(concat!(select!(), "order by at desc, scope, key limit ?1"))?;
    let rows = statement.query_map([limit.min(PAGE_ROWS_MAX)], cache_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn unused(connection: &Connection, before: Timestamp, limit: u32) -> Result<Vec<CacheRow>, StoreError> {
    let sql = concat!(select!(), "where used_at < ?1 and evicted_at is null order by used_at, scope, key limit ?2");
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map((TimeColumn(before), limit.min(PAGE_ROWS_MAX)), cache_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn totals(connection: &Connection, scope_prefix: &str) -> Result<CacheTotals, StoreError> {
    let sql = "select count(*), coalesce(sum(bytes), 0) from caches \
               where evicted_at is null and substr(scope, 1, length(?1)) = ?1";
    Ok(connection
        .query_row(sql, [scope_prefix], |row| Ok(CacheTotals { live: unsigned(row, 0)?, bytes: unsigned(row, 1)? }))?)
}

pub(super) fn evict(
    connection: &Connection,
    scope: &str,
    key: &str,
    reason: &str,
    at: Timestamp,
) -> Result<(), StoreError> {
    let sql = "update caches set evicted_at = ?3, evicted_reason = ?4 \
               where scope = ?1 and key = ?2 and evicted_at is null";
    connection.prepare_cached(sql)?.execute((scope, key, TimeColumn(at), reason))?;
    connection.prepare_cached("delete from cache_blobs where scope = ?1 and key = ?2")?.execute((scope, key))?;
    Ok(())
}

pub(super) fn clear(connection: &Connection, reason: &str, at: Timestamp) -> Result<u64, StoreError> {
    let sql = "update caches set evicted_at = ?1, evicted_reason = ?2 where evicted_at is null";
    let evicted = connection.prepare_cached(sql)?.execute((TimeColumn(at), reason))?;
    connection.execute("delete from cache_blobs", [])?;
    Ok(evicted as u64)
}
