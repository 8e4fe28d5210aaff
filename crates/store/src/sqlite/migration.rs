//! The schema's versions. A file once released is never edited: its checksum is kept in every database.

use rusqlite::{Connection, TransactionBehavior};

use super::column::corrupt;
use crate::store::StoreError;

/// One step from a version of the schema to the next.
pub(crate) struct Migration {
    /// For people; the number is the place in [`MIGRATIONS`], from 1.
    name: &'static str,
    sql: &'static str,
}

/// All steps, in order.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { name: "facts_and_rows", sql: include_str!("migrations/0001_facts_and_rows.sql") },
    Migration { name: "earlier_runs", sql: include_str!("migrations/0002_earlier_runs.sql") },
];

/// The version that this program writes.
pub(crate) const VERSION: u32 = MIGRATIONS.len() as u32;

/// Marks a file as ours (`pragma application_id`): "rope".
const APPLICATION_ID: i64 = 0x726f_7065;

/// Brings the schema to `target`, which is [`VERSION`] but in tests. Does nothing but one read if it is there.
pub(crate) fn migrate(connection: &mut Connection, target: u32) -> Result<(), StoreError> {
    if version(connection)? == target {
        return Ok(());
    }
    // Two processes may find it old at once: the second one waits and looks again.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
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
        transaction.execute_batch(migration.sql)?;
        transaction.execute(
            "insert into migrations (number, name, checksum) values (?1, ?2, ?3)",
            (number, migration.name, migration.checksum()),
        )?;
    }
    transaction.pragma_update(None, "user_version", target)?;
    transaction.commit()?;
    Ok(())
}

impl Migration {
    fn checksum(&self) -> String {
        blake3::hash(self.sql.as_bytes()).to_hex().to_string()
    }
}

fn version(connection: &Connection) -> Result<u32, StoreError> {
    let found: u32 = connection.query_row("pragma user_version", [], |row| row.get(0))?;
    if found > VERSION {
        return Err(StoreError::Newer { found, known: VERSION });
    }
    Ok(found)
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
