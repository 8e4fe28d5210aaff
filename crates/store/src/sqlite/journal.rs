//! The order of appends over all builds: for each append a row that says which facts it brought.

use std::collections::BTreeMap;

use engine::Fact;
use graph::BuildId;
use rusqlite::Connection;

use super::column::{json, signed, unsigned};
use super::facts;
use crate::span::{self, Span, spans_of};
use crate::store::{JOURNAL_FACTS_MAX, PAGE_ROWS_MAX, Sequence, StoreError};

/// Notes an append whose facts begin, for each build, at these places.
pub(super) fn note(connection: &Connection, first: &BTreeMap<BuildId, u64>, facts: &[Fact]) -> Result<(), StoreError> {
    let sql = "insert into journal (sequence, spans) values ((select coalesce(max(sequence), 0) + 1 from journal), ?1)";
    connection.prepare_cached(sql)?.execute([json(&spans_of(first, facts))])?;
    Ok(())
}

pub(super) fn read(
    connection: &Connection,
    after: Sequence,
    limit: u32,
) -> Result<Vec<(Sequence, Vec<Fact>)>, StoreError> {
    let sql = "select sequence, spans from journal where sequence > ?1 order by sequence limit ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query((signed(after.0), limit.min(PAGE_ROWS_MAX)))?;
    let (mut page, mut facts) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let text = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        let spans: Vec<Span> = serde_json::from_str(text).map_err(|error| StoreError::Corrupt(error.into()))?;
        let brought = span::load(&spans, |build, first, end| {
            let facts = facts::load_range(connection, build, first, end)?;
            Ok(facts.into_iter().map(|(fact, _)| fact).collect())
        })?;
        facts += brought.len();
        page.push((Sequence(unsigned(row, 0)?), brought));
        if facts >= JOURNAL_FACTS_MAX {
            break;
        }
    }
    Ok(page)
}

pub(super) fn last(connection: &Connection) -> Result<Sequence, StoreError> {
    let mut statement = connection.prepare_cached("select coalesce(max(sequence), 0) from journal")?;
    Ok(Sequence(statement.query_row([], |row| unsigned(row, 0))?))
}

pub(super) fn prune(connection: &Connection, before: Sequence) -> Result<u64, StoreError> {
    // The last one stays, so that its number is not given again.
    let sql = "delete from journal where sequence < ?1 and sequence < (select max(sequence) from journal)";
    Ok(connection.prepare_cached(sql)?.execute([signed(before.0)])? as u64)
}
