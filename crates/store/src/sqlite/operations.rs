//! Operations in SQLite.

use std::collections::BTreeMap;

use engine::operation::Manifest;
use graph::{AttemptNumber, BuildId, Digest, JobName, Timestamp, Trust};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::column::{DigestColumn, TRUSTS, TimeColumn, from_json, json, maybe_time, signed, time, unsigned, word};
use crate::graphs;
use crate::memory::{trust_word, trusts_seen};
use crate::rows::{Eviction, OperationRow, OperationTotals, Replaced};
use crate::store::{PAGE_ROWS_MAX, StoreError, TOMBSTONES_MAX, TRIED_MAX};

/// A manifest whose JSON is longer is packed.
const PLAIN_BYTES_MAX: usize = 1024;

macro_rules! select {
    () => {
        "select digest, trust, build, attempt, job, outcome, artifacts, at, used_at, evicted_at, evicted_reason, \
         replaced_build, replaced_at, replaced_reason from operations "
    };
}

fn operation_row(row: &Row<'_>) -> rusqlite::Result<OperationRow> {
    Ok(OperationRow {
        digest: row.get::<_, DigestColumn>(0)?.0,
        trust: word(row, 1, &TRUSTS, trust_word)?,
        build: BuildId(unsigned(row, 2)?),
        attempt: AttemptNumber(row.get(3)?),
        job: row.get::<_, String>(4)?.into(),
        outcome: from_json(row, 5)?,
        artifacts: from_json(row, 6)?,
        at: time(row, 7)?,
        used_at: time(row, 8)?,
        evicted: eviction(row, 9)?,
        replaced: match eviction(row, 12)? {
            Some(eviction) => Some(Replaced { build: BuildId(unsigned(row, 11)?), eviction }),
            None => None,
        },
    })
}

/// A tombstone from the two columns that begin at `column`.
pub(super) fn eviction(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Eviction>> {
    let Some(at) = maybe_time(row, column)? else { return Ok(None) };
    Ok(Some(Eviction { at, reason: row.get(column + 1)? }))
}

pub(super) fn record(connection: &Connection, operations: &[(OperationRow, &Manifest)]) -> Result<(), StoreError> {
    for (row, manifest) in operations {
        write_row(connection, row)?;
        write_manifest(connection, row.digest, manifest)?;
        let key = (DigestColumn(row.digest), trust_word(row.trust));
        connection.prepare_cached("delete from operation_blobs where operation = ?1 and trust = ?2")?.execute(key)?;
        if row.evicted.is_none() {
            let sql = "insert into operation_blobs (operation, trust, blob) values (?1, ?2, ?3) on conflict do nothing";
            let mut insert = connection.prepare_cached(sql)?;
            for artifact in row.artifacts.values() {
                insert.execute((key.0, key.1, DigestColumn(artifact.digest)))?;
            }
        }
    }
    Ok(())
}

fn write_row(connection: &Connection, row: &OperationRow) -> Result<(), StoreError> {
    let sql = "insert into operations (digest, trust, build, attempt, job, job_id, outcome, artifacts, \
               artifact_bytes, at, used_at, evicted_at, evicted_reason) \
               values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) \
               on conflict (digest, trust) do update set \
               replaced_build = iif(evicted_at is null, replaced_build, build), \
               replaced_reason = iif(evicted_at is null, replaced_reason, evicted_reason), \
               replaced_at = coalesce(evicted_at, replaced_at), build = excluded.build, attempt = excluded.attempt, \
               job = excluded.job, job_id = excluded.job_id, outcome = excluded.outcome, \
               artifacts = excluded.artifacts, artifact_bytes = excluded.artifact_bytes, at = excluded.at, \
               used_at = excluded.used_at, evicted_at = excluded.evicted_at, \
               evicted_reason = excluded.evicted_reason";
    let bytes: u64 = row.artifacts.values().map(|artifact| artifact.bytes).sum();
    connection.prepare_cached(sql)?.execute(params![
        DigestColumn(row.digest),
        trust_word(row.trust),
        signed(row.build.0),
        row.attempt.0,
        row.job.as_str(),
        row.job.id(),
        json(&row.outcome),
        json(&row.artifacts),
        signed(bytes),
        TimeColumn(row.at),
        TimeColumn(row.used_at),
        row.evicted.as_ref().map(|tombstone| TimeColumn(tombstone.at)),
        row.evicted.as_ref().map(|tombstone| &tombstone.reason),
    ])?;
    Ok(())
}

fn write_manifest(connection: &Connection, digest: Digest, manifest: &Manifest) -> Result<(), StoreError> {
    // The digest is the manifest's own, so one that is there is the same.
    let is_there =
        connection.prepare_cached("select 1 from manifests where digest = ?1")?.exists([DigestColumn(digest)])?;
    if is_there {
        return Ok(());
    }
    let plain = json(manifest).into_bytes();
    let body = if plain.len() > PLAIN_BYTES_MAX { graphs::pack(&plain)? } else { plain };
    let sql = "insert into manifests (digest, body) values (?1, ?2)";
    connection.prepare_cached(sql)?.execute((DigestColumn(digest), body))?;
    Ok(())
}

pub(super) fn record_tried(
    connection: &Connection,
    tried: &[(Digest, &Manifest)],
    at: Timestamp,
) -> Result<(), StoreError> {
    let sql = "insert into tried (digest, at) values (?1, ?2) on conflict (digest) do update set at = excluded.at";
    for (digest, manifest) in tried {
        connection.prepare_cached(sql)?.execute((DigestColumn(*digest), TimeColumn(at)))?;
        write_manifest(connection, *digest, manifest)?;
    }
    let count = connection.prepare_cached("select count(*) from tried")?.query_row([], |row| unsigned(row, 0))?;
    let Some(too_many) = count.checked_sub(TRIED_MAX.into()).filter(|&number| number > 0) else { return Ok(()) };
    for sql in [
        "delete from manifests where digest in (select digest from tried order by at, digest limit ?1) \
         and not exists (select 1 from operations where operations.digest = manifests.digest)",
        "delete from tried where digest in (select digest from tried order by at, digest limit ?1)",
    ] {
        connection.prepare_cached(sql)?.execute([signed(too_many)])?;
    }
    Ok(())
}

pub(super) fn find(
    connection: &Connection,
    digests: &[Digest],
    trust: Trust,
) -> Result<BTreeMap<Digest, OperationRow>, StoreError> {
    let sql = concat!(select!(), "where digest = ?1 and trust = ?2 and evicted_at is null");
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = BTreeMap::new();
    for &digest in digests {
        for &seen in trusts_seen(trust) {
            let key = (DigestColumn(digest), trust_word(seen));
            if let Some(row) = statement.query_row(key, operation_row).optional()? {
                found.insert(digest, row);
                break;
            }
        }
    }
    Ok(found)
}

pub(super) fn evictions(
    connection: &Connection,
    digests: &[Digest],
) -> Result<BTreeMap<Digest, Timestamp>, StoreError> {
    let mut statement = connection.prepare_cached("select max(evicted_at) from operations where digest = ?1")?;
    let mut found = BTreeMap::new();
    for &digest in digests {
        let last: Option<TimeColumn> = statement.query_row([DigestColumn(digest)], |row| row.get(0))?;
        found.extend(last.map(|TimeColumn(at)| (digest, at)));
    }
    Ok(found)
}

pub(super) fn manifest(connection: &Connection, digest: Digest) -> Result<Option<Manifest>, StoreError> {
    let mut statement = connection.prepare_cached("select body from manifests where digest = ?1")?;
    let mut rows = statement.query([DigestColumn(digest)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let body = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
    let parsed = match body.first() {
        Some(b'{') => serde_json::from_slice(body),
        _ => serde_json::from_slice(&graphs::unpack(body)?),
    };
    parsed.map(Some).map_err(|error| StoreError::Corrupt(error.into()))
}

pub(super) fn recent(
    connection: &Connection,
    job_id: &str,
    limit: u32,
) -> Result<Vec<(OperationRow, Manifest)>, StoreError> {
    let sql = concat!(select!(), "where job_id = ?1 order by at desc, digest, trust limit ?2");
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map((job_id, limit.min(PAGE_ROWS_MAX)), operation_row)?;
    let mut recent = Vec::new();
    for row in rows {
        let row = row?;
        let manifest = manifest(connection, row.digest)?.unwrap_or_default();
        recent.push((row, manifest));
    }
    Ok(recent)
}

pub(super) fn list(connection: &Connection, limit: u32) -> Result<Vec<OperationRow>, StoreError> {
    let mut statement = connection.prepare_cached(concat!(select!(), "order by at desc, digest, trust limit ?1"))?;
    let rows = statement.query_map([limit.min(PAGE_ROWS_MAX)], operation_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn unused(connection: &Connection, before: Timestamp, limit: u32) -> Result<Vec<OperationRow>, StoreError> {
    let sql = concat!(select!(), "where used_at < ?1 and evicted_at is null order by used_at, digest, trust limit ?2");
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map((TimeColumn(before), limit.min(PAGE_ROWS_MAX)), operation_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn totals(connection: &Connection) -> Result<OperationTotals, StoreError> {
    let sql = "select count(*), count(evicted_at), \
               coalesce(sum(case when evicted_at is null then artifact_bytes end), 0) from operations";
    Ok(connection.query_row(sql, [], |row| {
        let (all, evicted) = (unsigned(row, 0)?, unsigned(row, 1)?);
        Ok(OperationTotals { live: all - evicted, evicted, artifact_bytes: unsigned(row, 2)? })
    })?)
}

pub(super) fn touch(connection: &Connection, digests: &[Digest], at: Timestamp) -> Result<(), StoreError> {
    let sql = "update operations set used_at = ?2 where digest = ?1 and used_at < ?2";
    let mut statement = connection.prepare_cached(sql)?;
    for &digest in digests {
        statement.execute((DigestColumn(digest), TimeColumn(at)))?;
    }
    Ok(())
}

pub(super) fn evict(connection: &Connection, digest: Digest, reason: &str, at: Timestamp) -> Result<(), StoreError> {
    let sql = "update operations set evicted_at = ?2, evicted_reason = ?3 where digest = ?1 and evicted_at is null";
    connection.prepare_cached(sql)?.execute((DigestColumn(digest), TimeColumn(at), reason))?;
    connection.prepare_cached("delete from operation_blobs where operation = ?1")?.execute([DigestColumn(digest)])?;
    prune(connection)
}

pub(super) fn evict_job(
    connection: &Connection,
    job: &JobName,
    reason: &str,
    at: Timestamp,
) -> Result<u64, StoreError> {
    let is_meant = "job_id = ?1 and (job = ?2 or job_id = ?2)";
    let sql = format!(
        "delete from operation_blobs where exists (select 1 from operations where {is_meant} \
         and operations.digest = operation_blobs.operation and operations.trust = operation_blobs.trust)"
    );
    connection.prepare_cached(&sql)?.execute((job.id(), job.as_str()))?;
    let sql =
        format!("update operations set evicted_at = ?3, evicted_reason = ?4 where {is_meant} and evicted_at is null");
    let evicted = connection.prepare_cached(&sql)?.execute((job.id(), job.as_str(), TimeColumn(at), reason))?;
    prune(connection)?;
    Ok(evicted as u64)
}

pub(super) fn clear(connection: &Connection, reason: &str, at: Timestamp) -> Result<u64, StoreError> {
    let sql = "update operations set evicted_at = ?1, evicted_reason = ?2 where evicted_at is null";
    let evicted = connection.prepare_cached(sql)?.execute((TimeColumn(at), reason))?;
    connection.execute("delete from operation_blobs", [])?;
    prune(connection)?;
    Ok(evicted as u64)
}

/// Forgets the oldest tombstones beyond [`TOMBSTONES_MAX`].
fn prune(connection: &Connection) -> Result<(), StoreError> {
    let sql = "select count(*) from operations where evicted_at is not null";
    let tombstones = connection.prepare_cached(sql)?.query_row([], |row| unsigned(row, 0))?;
    let Some(too_many) = tombstones.checked_sub(TOMBSTONES_MAX.into()).filter(|&number| number > 0) else {
        return Ok(());
    };
    let sql = "delete from operations where (digest, trust) in (select digest, trust from operations \
               where evicted_at is not null order by evicted_at, digest, trust limit ?1)";
    connection.prepare_cached(sql)?.execute([signed(too_many)])?;
    let sql = "delete from manifests where \
               not exists (select 1 from operations where operations.digest = manifests.digest) \
               and not exists (select 1 from tried where tried.digest = manifests.digest)";
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}
