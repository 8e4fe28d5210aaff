//! What goes when a build goes, and which blobs are still named.

use std::collections::BTreeSet;

use graph::{BuildId, Digest};
use rusqlite::Connection;

use super::column::{DigestColumn, signed};
use super::documents;
use crate::store::{Deleted, StoreError};

pub(super) fn delete(connection: &Connection, build: BuildId) -> Result<Option<Deleted>, StoreError> {
    let id = signed(build.0);
    if connection.execute("delete from builds where id = ?1", [id])? == 0 {
        return Ok(None);
    }
    let blobs = digests(connection, "select distinct digest from artifacts where build = ?1", [id])?;
    for table in ["jobs", "attempts", "gates", "artifacts", "cache_reads"] {
        connection.execute(&format!("delete from {table} where build = ?1"), [id])?;
    }
    delete_facts(connection, build)?;
    let mut deleted = Deleted::default();
    for blob in blobs {
        if !is_named(connection, blob)? {
            deleted.blobs.insert(blob);
        }
    }
    Ok(Some(deleted))
}

fn delete_facts(connection: &Connection, build: BuildId) -> Result<(), StoreError> {
    let range = (signed(build.0 << 32), signed((build.0 + 1) << 32));
    let sql = "select distinct graph from facts where position >= ?1 and position < ?2 and graph is not null";
    let graphs = digests(connection, sql, range)?;
    connection.execute("delete from facts where position >= ?1 and position < ?2", range)?;
    let sql = "delete from graphs where digest = ?1 and not exists (select 1 from facts where graph = ?1)";
    for graph in graphs {
        connection.execute(sql, [DigestColumn(graph)])?;
    }
    Ok(())
}

fn is_named(connection: &Connection, blob: Digest) -> Result<bool, StoreError> {
    let sql = "select exists (select 1 from artifacts where digest = ?1) \
               or exists (select 1 from operation_blobs where blob = ?1) \
               or exists (select 1 from cache_blobs where blob = ?1)";
    Ok(connection.prepare_cached(sql)?.query_row([DigestColumn(blob)], |row| row.get(0))?)
}

pub(super) fn referenced_blobs(connection: &Connection) -> Result<BTreeSet<Digest>, StoreError> {
    let sql = "select digest from artifacts union select blob from operation_blobs union select blob from cache_blobs";
    let mut referenced = digests(connection, sql, [])?;
    referenced.append(&mut referenced_sources(connection)?);
    Ok(referenced)
}

pub(super) fn referenced_sources(connection: &Connection) -> Result<BTreeSet<Digest>, StoreError> {
    let mut referenced = digests(connection, "select distinct source from builds where source is not null", [])?;
    referenced.extend(documents::sources(connection)?);
    Ok(referenced)
}

fn digests(connection: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<BTreeSet<Digest>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(values, |row| Ok(row.get::<_, DigestColumn>(0)?.0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
