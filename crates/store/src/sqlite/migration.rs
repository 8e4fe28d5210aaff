//! The schema's versions. A file once released is never edited: its checksum is kept in every database.
//!
//! Two numbers stand in a database: the version of its schema (the last row of `migrations`), and the oldest version of a
//! program that may use it (`pragma user_version`, which is what programs of versions 1 and 2 look at). A newer schema is
//! used as it is if it says that this program may.

use rusqlite::{Connection, TransactionBehavior};

use super::column::corrupt;
use crate::store::StoreError;

/// One step from a version of the schema to the next.
pub(crate) struct Migration {
    /// For people; the number is the place in [`MIGRATIONS`], from 1.
    name: &'static str,
    sql: &'static str,
    /// The oldest version of a program that may use a database to which this step was applied: its own number, unless it
    /// only adds what older programs need not know.
    readable_from: u32,
}

/// All steps, in order.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { name: "facts_and_rows", sql: include_str!("migrations/0001_facts_and_rows.sql"), readable_from: 1 },
    Migration { name: "earlier_runs", sql: include_str!("migrations/0002_earlier_runs.sql"), readable_from: 2 },
    Migration {
        name: "projects_and_servers",
        sql: include_str!("migrations/0003_projects_and_servers.sql"),
        readable_from: 2,
    },
    Migration { name: "children", sql: include_str!("migrations/0004_children.sql"), readable_from: 2 },
    Migration { name: "open_gates", sql: include_str!("migrations/0005_open_gates.sql"), readable_from: 2 },
    Migration { name: "job_histories", sql: include_str!("migrations/0006_job_histories.sql"), readable_from: 2 },
];

/// The version that this program writes.
pub(crate) const VERSION: u32 = MIGRATIONS.len() as u32;

/// Marks a file as ours (`pragma application_id`): "rope".
const APPLICATION_ID: i64 = 0x726f_7065;

/// The migration that brought the column in which each says who may read it.
const READABLE_FROM_SINCE: u32 = 3;

/// Brings the schema to `target`, which is [`VERSION`] but in tests. Does nothing but two reads if it is there, or is
/// newer and may be used as it is.
pub(crate) fn migrate(connection: &mut Connection, target: u32) -> Result<(), StoreError> {
    if version(connection)? >= target {
        return Ok(());
    }
    // Two processes may find it old at once: the second one waits and looks again.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    if found >= target {
        return Ok(());
    }
    if found == 0 {
        let tables: u32 = transaction.query_row("select count(*) from sqlite_schema", [], |row| row.get(0))?;
        if tables > 0 {
            return Err(corrupt("the file is a database of some other program"));
        }
        transaction.execute_batch(
            "create table migrations (number integer not null primary key, name text not null, \
             checksum text not null) strict;",
        )?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    check_applied(&transaction, found)?;
    for (number, migration) in (1..=target).zip(MIGRATIONS).skip(found as usize) {
        apply(&transaction, number, migration)?;
    }
    let readable_from = MIGRATIONS[..target as usize].iter().map(|migration| migration.readable_from).max();
    transaction.pragma_update(None, "user_version", readable_from.unwrap_or_default())?;
    transaction.commit()?;
    Ok(())
}

fn apply(connection: &Connection, number: u32, migration: &Migration) -> Result<(), StoreError> {
    connection.execute_batch(migration.sql)?;
    let sql = "insert into migrations (number, name, checksum) values (?1, ?2, ?3)";
    connection.execute(sql, (number, migration.name, migration.checksum()))?;
    if number >= READABLE_FROM_SINCE {
        let sql = "update migrations set readable_from = ?2 where number = ?1";
        connection.execute(sql, (number, migration.readable_from))?;
    }
    Ok(())
}

impl Migration {
    fn checksum(&self) -> String {
        blake3::hash(self.sql.as_bytes()).to_hex().to_string()
    }
}

/// The version of the schema; 0 of an empty file.
///
/// # Errors
/// `Newer` if this program may not use it.
pub(crate) fn version(connection: &Connection) -> Result<u32, StoreError> {
    let readable_from: u32 = connection.query_row("pragma user_version", [], |row| row.get(0))?;
    if readable_from > VERSION {
        return Err(StoreError::Newer { found: readable_from, known: VERSION });
    }
    if readable_from == 0 {
        return Ok(0);
    }
    Ok(connection.query_row("select max(number) from migrations", [], |row| row.get(0))?)
}

/// What was applied must be what we know under these numbers.
fn check_applied(connection: &Connection, found: u32) -> Result<(), StoreError> {
    let mut statement = connection.prepare("select number, checksum from migrations order by number")?;
    let applied = statement
        .query_map([], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    let known: Vec<_> = (1..=found).zip(MIGRATIONS).map(|(number, known)| (number, known.checksum())).collect();
    if applied != known {
        return Err(corrupt("its schema was made by migrations that this program does not know"));
    }
    Ok(())
}
