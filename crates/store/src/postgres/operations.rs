//! Operations and keyed caches in PostgreSQL.

use std::collections::BTreeMap;

use engine::operation::Manifest;
use graph::{AttemptNumber, BuildId, Digest, JobName, Timestamp, Trust};
use tokio_postgres::Row;

use super::column::{
    Twin, all_bytes, arrays, bytes, digest, from_json, get, insert, json, maybe_time, number, short, text, time,
    unsigned, word,
};
use super::session::{Call, Session, Value};
use crate::cache::{CacheRead, CacheRow, CacheTotals, CacheUser, CacheWanted, Saved};
use crate::graphs;
use crate::memory::{trust_word, trusts_seen};
use crate::rows::{Eviction, OperationRow, OperationTotals, Replaced};
use crate::store::{PAGE_ROWS_MAX, StoreError, TOMBSTONES_MAX, TRIED_MAX};
use crate::table::{CACHE_BLOBS, Cell, MANIFESTS, OPERATION_BLOBS, OPERATIONS, TRIED, Table};

/// A manifest whose JSON is longer is packed.
const PLAIN_BYTES_MAX: usize = 1024;
const TRUSTS: [Trust; 2] = [Trust::Trusted, Trust::Untrusted];

fn operation_row(row: &Row) -> Result<OperationRow, StoreError> {
    Ok(OperationRow {
        digest: digest(row, 0)?,
        trust: word(row, 1, &TRUSTS, trust_word)?,
        build: BuildId(unsigned(row, 2)?),
        attempt: AttemptNumber(short(row, 3)?),
        job: get::<String>(row, 4)?.into(),
        outcome: from_json(row, 6)?,
        artifacts: from_json(row, 7)?,
        at: time(row, 9)?,
        used_at: time(row, 10)?,
        evicted: eviction(row, 11)?,
        replaced: match maybe_time(row, 14)? {
            Some(at) => {
                let eviction = Eviction { at, reason: get(row, 15)? };
                Some(Replaced { build: BuildId(unsigned(row, 13)?), eviction })
            }
            None => None,
        },
    })
}

/// A tombstone from the two columns that begin at `column`.
fn eviction(row: &Row, column: usize) -> Result<Option<Eviction>, StoreError> {
    let Some(at) = maybe_time(row, column)? else { return Ok(None) };
    Ok(Some(Eviction { at, reason: get(row, column + 1)? }))
}

fn operation_cells(row: &OperationRow) -> Vec<Cell> {
    vec![
        row.digest.into(),
        trust_word(row.trust).into(),
        row.build.0.into(),
        row.attempt.0.into(),
        row.job.as_str().into(),
        row.job.id().into(),
        json(&row.outcome).into(),
        json(&row.artifacts).into(),
        row.artifacts.values().map(|artifact| artifact.bytes).sum::<u64>().into(),
        row.at.into(),
        row.used_at.into(),
        row.evicted.as_ref().map(|tombstone| tombstone.at).into(),
        row.evicted.as_ref().map(|tombstone| tombstone.reason.as_str()).into(),
        Cell::Null,
        Cell::Null,
        Cell::Null,
    ]
}

fn many(table: &Table, twin: Twin, rows: Vec<Vec<Cell>>) -> Call {
    Call::new(insert(table, twin), arrays(table, rows))
}

pub(super) fn record(session: &Session, operations: &[(OperationRow, &Manifest)]) -> Result<(), StoreError> {
    // The last of twins stays; one statement may not write a row twice.
    let last: BTreeMap<_, _> =
        operations.iter().map(|(row, manifest)| ((row.digest, trust_word(row.trust)), (row, *manifest))).collect();
    let blobs = last.values().filter(|(row, _)| row.evicted.is_none()).flat_map(|(row, _)| {
        row.artifacts
            .values()
            .map(|artifact| vec![row.digest.into(), trust_word(row.trust).into(), artifact.digest.into()])
    });
    let upsert = format!(
        "{} on conflict (digest, trust) do update set \
         replaced_build = case when operations.evicted_at is null then operations.replaced_build else operations.build end, \
         replaced_reason = case when operations.evicted_at is null then operations.replaced_reason \
         else operations.evicted_reason end, \
         replaced_at = coalesce(operations.evicted_at, operations.replaced_at), build = excluded.build, \
         attempt = excluded.attempt, job = excluded.job, job_id = excluded.job_id, outcome = excluded.outcome, \
         artifacts = excluded.artifacts, artifact_bytes = excluded.artifact_bytes, at = excluded.at, \
         used_at = excluded.used_at, evicted_at = excluded.evicted_at, evicted_reason = excluded.evicted_reason",
        insert(&OPERATIONS, Twin::Refused)
    );
    let rows = last.values().map(|(row, _)| operation_cells(row)).collect();
    let keys = last.keys();
    let trusts = Value::Texts(keys.clone().map(|(_, trust)| Some((*trust).to_owned())).collect());
    let delete = "delete from operation_blobs using unnest($1::bytea[], $2::text[]) as key (operation, trust) \
                  where operation_blobs.operation = key.operation and operation_blobs.trust = key.trust";
    let calls = [
        Call::new(upsert, arrays(&OPERATIONS, rows)),
        many(&MANIFESTS, Twin::Kept, manifests(last.values().map(|(row, manifest)| (row.digest, *manifest)))?),
        Call::new(delete, [all_bytes(keys.map(|(digest, _)| *digest)), trusts]),
        many(&OPERATION_BLOBS, Twin::Kept, blobs.collect()),
    ];
    session.transact(&calls).map_err(|(_, error)| error)?;
    Ok(())
}

fn manifests<'a>(manifests: impl Iterator<Item = (Digest, &'a Manifest)>) -> Result<Vec<Vec<Cell>>, StoreError> {
    let row = |(digest, manifest): (Digest, &Manifest)| {
        let plain = json(manifest).into_bytes();
        let body = if plain.len() > PLAIN_BYTES_MAX { graphs::pack(&plain)? } else { plain };
        Ok(vec![digest.into(), Cell::Bytes(body)])
    };
    manifests.map(row).collect()
}

pub(super) fn record_tried(session: &Session, tried: &[(Digest, &Manifest)], at: Timestamp) -> Result<(), StoreError> {
    let last: BTreeMap<_, _> = tried.iter().map(|(digest, manifest)| (*digest, *manifest)).collect();
    let rows = last.keys().map(|digest| vec![(*digest).into(), at.into()]).collect();
    let oldest = format!(
        "(select digest from tried order by at, digest \
         limit greatest(0, (select count(*) from tried) - {TRIED_MAX}))"
    );
    let calls = [
        many(&TRIED, Twin::Replaced, rows),
        many(&MANIFESTS, Twin::Kept, manifests(last.iter().map(|(digest, manifest)| (*digest, *manifest)))?),
        Call::new(
            format!(
                "delete from manifests where digest in {oldest} \
                 and not exists (select 1 from operations where operations.digest = manifests.digest)"
            ),
            [],
        ),
        Call::new(format!("delete from tried where digest in {oldest}"), []),
    ];
    session.transact(&calls).map_err(|(_, error)| error)?;
    Ok(())
}

fn select(rest: &str) -> String {
    format!("select {} from operations {rest}", OPERATIONS.names())
}

fn limit_of(limit: u32) -> Value {
    number(limit.min(PAGE_ROWS_MAX).into())
}

pub(super) fn find(
    session: &Session,
    digests: &[Digest],
    trust: Trust,
) -> Result<BTreeMap<Digest, OperationRow>, StoreError> {
    let sql = select("where digest = any($1) and evicted_at is null");
    let answer = session.call(Call::new(sql, [all_bytes(digests.iter().copied())]))?;
    let rows = answer.rows.iter().map(operation_row).collect::<Result<Vec<_>, _>>()?;
    let mut found = BTreeMap::new();
    for &seen in trusts_seen(trust) {
        for row in rows.iter().filter(|row| row.trust == seen) {
            found.entry(row.digest).or_insert_with(|| row.clone());
        }
    }
    Ok(found)
}

pub(super) fn evictions(session: &Session, digests: &[Digest]) -> Result<BTreeMap<Digest, Timestamp>, StoreError> {
    let sql = select("where digest = any($1) and evicted_at is not null");
    let answer = session.call(Call::new(sql, [all_bytes(digests.iter().copied())]))?;
    let mut found: BTreeMap<Digest, Timestamp> = BTreeMap::new();
    for row in &answer.rows {
        let row = operation_row(row)?;
        let Some(tombstone) = row.evicted else { continue };
        let last = found.entry(row.digest).or_insert(tombstone.at);
        *last = tombstone.at.max(*last);
    }
    Ok(found)
}

fn unpacked(body: &[u8]) -> Result<Manifest, StoreError> {
    let parsed = match body.first() {
        Some(b'{') => serde_json::from_slice(body),
        _ => serde_json::from_slice(&graphs::unpack(body)?),
    };
    parsed.map_err(|error| StoreError::Corrupt(error.into()))
}

pub(super) fn manifest(session: &Session, digest: Digest) -> Result<Option<Manifest>, StoreError> {
    let answer = session.call(Call::new("select body from manifests where digest = $1", [bytes(digest)]))?;
    answer.rows.first().map(|row| unpacked(get(row, 0)?)).transpose()
}

pub(super) fn recent(session: &Session, job_id: &str, limit: u32) -> Result<Vec<(OperationRow, Manifest)>, StoreError> {
    let columns: Vec<_> = OPERATIONS.columns.iter().map(|(name, _)| format!("operations.{name}")).collect();
    let sql = format!(
        "select {}, manifests.body from operations left join manifests on manifests.digest = operations.digest \
         where job_id = $1 order by operations.at desc, operations.digest, trust limit $2",
        columns.join(", ")
    );
    let answer = session.call(Call::new(sql, [text(job_id), limit_of(limit)]))?;
    let row = |row: &Row| {
        let manifest = get::<Option<&[u8]>>(row, OPERATIONS.columns.len())?.map(unpacked).transpose()?;
        Ok((operation_row(row)?, manifest.unwrap_or_default()))
    };
    answer.rows.iter().map(row).collect()
}

pub(super) fn list(session: &Session, limit: u32) -> Result<Vec<OperationRow>, StoreError> {
    let sql = select("order by at desc, digest, trust limit $1");
    session.call(Call::new(sql, [limit_of(limit)]))?.rows.iter().map(operation_row).collect()
}

pub(super) fn unused(session: &Session, before: Timestamp, limit: u32) -> Result<Vec<OperationRow>, StoreError> {
    let sql = select("where used_at < $1 and evicted_at is null order by used_at, digest, trust limit $2");
    session.call(Call::new(sql, [Value::Integer(before.0), limit_of(limit)]))?.rows.iter().map(operation_row).collect()
}

pub(super) fn totals(session: &Session) -> Result<OperationTotals, StoreError> {
    let sql = "select count(*), count(evicted_at), \
               coalesce(sum(case when evicted_at is null then artifact_bytes end), 0)::bigint from operations";
    let answer = session.call(Call::new(sql, []))?;
    let Some(row) = answer.rows.first() else { return Ok(OperationTotals::default()) };
    let (all, evicted) = (unsigned(row, 0)?, unsigned(row, 1)?);
    Ok(OperationTotals { live: all - evicted, evicted, artifact_bytes: unsigned(row, 2)? })
}

pub(super) fn touch(session: &Session, digests: &[Digest], at: Timestamp) -> Result<(), StoreError> {
    let sql = "update operations set used_at = $2 where digest = any($1) and used_at < $2";
    session.call(Call::new(sql, [all_bytes(digests.iter().copied()), Value::Integer(at.0)]))?;
    Ok(())
}

/// Evicts the operations for which `is_meant` holds, whose values are `values`, and forgets the oldest tombstones beyond
/// [`TOMBSTONES_MAX`]. Returns how many were evicted.
pub(super) fn evict(
    session: &Session,
    is_meant: &str,
    values: Vec<Value>,
    reason: &str,
    at: Timestamp,
) -> Result<u64, StoreError> {
    let (at_place, reason_place) = (values.len() + 1, values.len() + 2);
    let mut with_reason = values.clone();
    with_reason.extend([Value::Integer(at.0), text(reason)]);
    let update = format!(
        "update operations set evicted_at = ${at_place}, evicted_reason = ${reason_place} \
         where {is_meant} and evicted_at is null"
    );
    let blobs = format!(
        "delete from operation_blobs where exists (select 1 from operations where {is_meant} \
         and operations.digest = operation_blobs.operation and operations.trust = operation_blobs.trust)"
    );
    let forget = format!(
        "delete from operations where (digest, trust) in (select digest, trust from operations \
         where evicted_at is not null order by evicted_at, digest, trust \
         limit greatest(0, (select count(*) from operations where evicted_at is not null) - {TOMBSTONES_MAX})) \
         returning digest"
    );
    let manifests = "delete from manifests where not exists \
                     (select 1 from operations where operations.digest = manifests.digest) \
                     and not exists (select 1 from tried where tried.digest = manifests.digest)";
    let calls = [Call::new(blobs, values), Call::new(update, with_reason), Call::new(forget, [])];
    let answers = session.transact(&calls).map_err(|(_, error)| error)?;
    if !answers[2].rows.is_empty() {
        session.call(Call::new(manifests, []))?;
    }
    Ok(answers[1].affected)
}

pub(super) fn evict_job(session: &Session, job: &JobName, reason: &str, at: Timestamp) -> Result<u64, StoreError> {
    let is_meant = "job_id = $1 and (job = $2 or job_id = $2)";
    evict(session, is_meant, vec![text(job.id()), text(job.as_str())], reason, at)
}

// Keyed caches.

const CACHE_COLUMNS: &str = "scope, key, blobs, bytes, build, job, at, used_at, evicted_at, evicted_reason";

fn cache_row(row: &Row) -> Result<CacheRow, StoreError> {
    Ok(CacheRow {
        scope: get(row, 0)?,
        key: get(row, 1)?,
        blobs: from_json::<Vec<Digest>>(row, 2)?,
        bytes: unsigned(row, 3)?,
        written_by: CacheUser { build: BuildId(unsigned(row, 4)?), job: get::<String>(row, 5)?.into() },
        at: time(row, 6)?,
        used_at: time(row, 7)?,
        evicted: eviction(row, 8)?,
    })
}

pub(super) fn save(session: &Session, entry: &CacheRow) -> Result<Saved, StoreError> {
    // The parts follow only where the entry was written; all in one statement, since nothing may come between.
    let sql = format!(
        "with written as (insert into caches ({CACHE_COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         on conflict (scope, key) do update set blobs = excluded.blobs, bytes = excluded.bytes, build = excluded.build, \
         job = excluded.job, at = excluded.at, used_at = excluded.used_at, evicted_at = excluded.evicted_at, \
         evicted_reason = excluded.evicted_reason where caches.evicted_at is not null returning scope, key), \
         unread as (delete from cache_reads using written \
         where cache_reads.scope = written.scope and cache_reads.key = written.key) \
         select count(*) from written"
    );
    let values = vec![
        text(&entry.scope),
        text(&entry.key),
        Value::Text(json(&entry.blobs)),
        number(entry.bytes),
        number(entry.written_by.build.0),
        text(entry.written_by.job.as_str()),
        Value::Integer(entry.at.0),
        Value::Integer(entry.used_at.0),
        Value::MaybeInteger(entry.evicted.as_ref().map(|tombstone| tombstone.at.0)),
        Value::MaybeText(entry.evicted.as_ref().map(|tombstone| super::column::clean(&tombstone.reason))),
    ];
    let live = entry.blobs.iter().filter(|_| entry.evicted.is_none());
    let blobs = live.map(|&blob| vec![entry.scope.as_str().into(), entry.key.as_str().into(), blob.into()]).collect();
    // Blobs of an entry that stays are those of the entry, so naming more is undone below.
    let calls = [Call::new(sql, values), many(&CACHE_BLOBS, Twin::Kept, blobs), stray_blobs(entry)];
    let answers = session.transact(&calls).map_err(|(_, error)| error)?;
    let written = answers[0].rows.first().map_or(Ok(0), |row| unsigned(row, 0))?;
    Ok(if written == 0 { Saved::Kept } else { Saved::Written })
}

/// Removes blobs that an entry does not have.
fn stray_blobs(entry: &CacheRow) -> Call {
    let sql = "delete from cache_blobs where scope = $1 and key = $2 and not exists (select 1 from caches \
               where caches.scope = $1 and caches.key = $2 and evicted_at is null \
               and position(encode(cache_blobs.blob, 'hex') in caches.blobs) > 0)";
    Call::new(sql, [text(&entry.scope), text(&entry.key)])
}

pub(super) fn restore(
    session: &Session,
    wanted: &CacheWanted<'_>,
    reader: &CacheUser,
    at: Timestamp,
) -> Result<Option<CacheRow>, StoreError> {
    let Some(mut row) = find_cache(session, wanted)? else { return Ok(None) };
    row.used_at = row.used_at.max(at);
    let key = || [text(&row.scope), text(&row.key)];
    let mut values = Vec::from(key());
    values.push(Value::Integer(at.0));
    let mut read = Vec::from(key());
    read.extend([number(reader.build.0), text(reader.job.as_str()), Value::Integer(at.0)]);
    let sql = "insert into cache_reads (scope, key, build, job, at) values ($1, $2, $3, $4, $5) \
               on conflict (scope, key, build, job) do update set at = excluded.at";
    let calls = [
        Call::new("update caches set used_at = greatest(used_at, $3) where scope = $1 and key = $2", values),
        Call::new(sql, read),
    ];
    session.transact(&calls).map_err(|(_, error)| error)?;
    Ok(Some(row))
}

fn find_cache(session: &Session, wanted: &CacheWanted<'_>) -> Result<Option<CacheRow>, StoreError> {
    let exact = format!("select {CACHE_COLUMNS} from caches where scope = $1 and key = $2 and evicted_at is null");
    let newest = format!(
        "select {CACHE_COLUMNS} from caches where scope = $1 and key >= $2 and starts_with(key, $2) \
         and evicted_at is null order by at desc, key desc limit 1"
    );
    for scope in wanted.scopes {
        let mut calls = vec![Call::new(exact.as_str(), [text(scope), text(wanted.key)])];
        calls.extend(wanted.prefixes.iter().map(|prefix| Call::new(newest.as_str(), [text(scope), text(prefix)])));
        let answers = session.read(&calls)?;
        if let Some(row) = answers.iter().find_map(|answer| answer.rows.first()) {
            return cache_row(row).map(Some);
        }
    }
    Ok(None)
}

pub(super) fn cache_reads(session: &Session, scope: &str, key: &str, limit: u32) -> Result<Vec<CacheRead>, StoreError> {
    let sql = "select build, job, at from cache_reads where scope = $1 and key = $2 \
               order by at desc, build, job limit $3";
    let answer = session.call(Call::new(sql, [text(scope), text(key), limit_of(limit)]))?;
    let read = |row: &Row| {
        let reader = CacheUser { build: BuildId(unsigned(row, 0)?), job: get::<String>(row, 1)?.into() };
        Ok(CacheRead { reader, at: time(row, 2)? })
    };
    answer.rows.iter().map(read).collect()
}

pub(super) fn list_caches(session: &Session, limit: u32) -> Result<Vec<CacheRow>, StoreError> {
    let sql = format!("select {CACHE_COLUMNS} from caches order by at desc, scope, key limit $1");
    session.call(Call::new(sql, [limit_of(limit)]))?.rows.iter().map(cache_row).collect()
}

pub(super) fn unused_caches(session: &Session, before: Timestamp, limit: u32) -> Result<Vec<CacheRow>, StoreError> {
    let sql = format!(
        "select {CACHE_COLUMNS} from caches where used_at < $1 and evicted_at is null order by used_at, scope, key limit $2"
    );
    session.call(Call::new(sql, [Value::Integer(before.0), limit_of(limit)]))?.rows.iter().map(cache_row).collect()
}

pub(super) fn cache_totals(session: &Session, scope_prefix: &str) -> Result<CacheTotals, StoreError> {
    let sql = "select count(*), coalesce(sum(bytes), 0)::bigint from caches \
               where evicted_at is null and starts_with(scope, $1)";
    let answer = session.call(Call::new(sql, [text(scope_prefix)]))?;
    let Some(row) = answer.rows.first() else { return Ok(CacheTotals::default()) };
    Ok(CacheTotals { live: unsigned(row, 0)?, bytes: unsigned(row, 1)? })
}

pub(super) fn evict_cache(
    session: &Session,
    scope: &str,
    key: &str,
    reason: &str,
    at: Timestamp,
) -> Result<(), StoreError> {
    let sql = "update caches set evicted_at = $3, evicted_reason = $4 \
               where scope = $1 and key = $2 and evicted_at is null";
    let calls = [
        Call::new(sql, [text(scope), text(key), Value::Integer(at.0), text(reason)]),
        Call::new("delete from cache_blobs where scope = $1 and key = $2", [text(scope), text(key)]),
    ];
    session.transact(&calls).map_err(|(_, error)| error)?;
    Ok(())
}

pub(super) fn clear_caches(session: &Session, reason: &str, at: Timestamp) -> Result<u64, StoreError> {
    let sql = "update caches set evicted_at = $1, evicted_reason = $2 where evicted_at is null";
    let calls = [Call::new(sql, [Value::Integer(at.0), text(reason)]), Call::new("delete from cache_blobs", [])];
    let answers = session.transact(&calls).map_err(|(_, error)| error)?;
    Ok(answers[0].affected)
}
