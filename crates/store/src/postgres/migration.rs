//! The schema's versions. A file once released is never edited: its checksum is kept in every database. The numbers are
//! those of this list and not SQLite's.

use super::column::{get, short};
use super::error::broken;
use super::session::{Call, Session, Value};
use crate::store::StoreError;

/// One step from a version of the schema to the next.
pub(super) struct Migration {
    /// For people; the number is the place in [`MIGRATIONS`], from 1.
    name: &'static str,
    sql: &'static str,
    /// The oldest version of a program that may use a database to which this step was applied: its own number, unless it
    /// only adds what older programs need not know.
    readable_from: u32,
}

/// All steps, in order.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration { name: "everything", sql: include_str!("migrations/0001_everything.sql"), readable_from: 1 },
    Migration { name: "children", sql: include_str!("migrations/0002_children.sql"), readable_from: 1 },
    Migration { name: "open_gates", sql: include_str!("migrations/0003_open_gates.sql"), readable_from: 1 },
    Migration { name: "job_histories", sql: include_str!("migrations/0004_job_histories.sql"), readable_from: 1 },
];

/// The version that this program writes.
pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

/// What was applied: the number of each step, its checksum, and who may read it.
struct Applied {
    number: u32,
    checksum: String,
    readable_from: u32,
}

/// Brings the schema to [`VERSION`]. Does nothing but two reads if it is there, or is newer and may be used as it is.
pub(super) fn migrate(session: &Session) -> Result<(), StoreError> {
    if is_ready(&applied(session)?)? {
        return Ok(());
    }
    // Two servers may find it old at once: the second one waits and looks again. The lock goes with the connection.
    session.batch("select pg_advisory_lock(1919905893, 3)")?;
    let migrated = apply_missing(session);
    if migrated.is_err() {
        // A transaction that failed refuses everything, its own cause is what counts.
        let _ = session.batch("rollback");
    }
    let unlocked = session.batch("select pg_advisory_unlock(1919905893, 3)");
    migrated.and(unlocked)
}

fn apply_missing(session: &Session) -> Result<(), StoreError> {
    let applied = applied(session)?;
    if is_ready(&applied)? {
        return Ok(());
    }
    for (done, known) in applied.iter().zip(MIGRATIONS) {
        if done.checksum != known.checksum() {
            return Err(broken("its schema was made by migrations that this program does not know"));
        }
    }
    if applied.is_empty() {
        let tables =
            session.call(Call::new("select count(*) from pg_tables where schemaname = current_schema()", []))?;
        if tables.rows.first().map_or(Ok(0), |row| get::<i64>(row, 0))? > 0 {
            return Err(broken("the database is that of some other program"));
        }
    }
    for (number, migration) in (1..=VERSION).zip(MIGRATIONS).skip(applied.len()) {
        let Migration { name, sql, readable_from } = migration;
        // All of these texts are ours.
        session.batch(&format!(
            "begin; create table if not exists migrations (number bigint not null primary key, name text not null, \
             checksum text not null, readable_from bigint not null); {sql}; \
             insert into migrations values ({number}, '{name}', '{}', {readable_from}); commit",
            migration.checksum()
        ))?;
    }
    Ok(())
}

/// Whether nothing is to be done.
fn is_ready(applied: &[Applied]) -> Result<bool, StoreError> {
    let found = applied.last().map_or(0, |last| last.number);
    let readable_from = applied.iter().map(|step| step.readable_from).max().unwrap_or_default();
    if readable_from > VERSION {
        return Err(StoreError::Newer { found, known: VERSION });
    }
    Ok(found >= VERSION)
}

fn applied(session: &Session) -> Result<Vec<Applied>, StoreError> {
    let sql = "select 1 from pg_tables where schemaname = current_schema() and tablename = $1";
    let table = session.call(Call::new(sql, [Value::Text("migrations".to_owned())]))?;
    if table.rows.is_empty() {
        return Ok(Vec::new());
    }
    let answer =
        session.call(Call::new("select number, checksum, readable_from from migrations order by number", []))?;
    let step = |row| Ok(Applied { number: short(row, 0)?, checksum: get(row, 1)?, readable_from: short(row, 2)? });
    answer.rows.iter().map(step).collect()
}

impl Migration {
    fn checksum(&self) -> String {
        blake3::hash(self.sql.as_bytes()).to_hex().to_string()
    }
}
