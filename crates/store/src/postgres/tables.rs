//! Copies of a PostgreSQL store: its rows for another store, and a file.

use std::path::Path;

use super::PostgresStore;
use super::column::{Twin, arrays, cells, insert};
use super::session::{Call, Session, Value};
use crate::sqlite::{Opening, SqliteStore};
use crate::store::StoreError;
use crate::table::{Cell, Kind, Table};
use crate::transfer::{Backup, Portable, Snapshot, transfer};

/// A connection that stays in one transaction.
struct Reading(Session);

impl Snapshot for Reading {
    fn rows(&mut self, table: &Table, after: Option<&[Cell]>, limit: u32) -> Result<Vec<Vec<Cell>>, StoreError> {
        let (names, key) = (table.names(), table.key_names());
        let places: Vec<_> = (1..)
            .zip(&table.columns[..table.key])
            .map(|(place, (_, kind))| match kind {
                Kind::Integer => format!("${place}::bigint"),
                Kind::Text => format!("${place}::text"),
                Kind::Bytes => format!("${place}::bytea"),
            })
            .collect();
        let after_key = match after {
            Some(_) => format!("({key}) > ({})", places.join(", ")),
            None => "true".to_owned(),
        };
        let sql = format!("select {names} from {} where {after_key} order by {key} limit {limit}", table.name);
        let values: Vec<_> = after.unwrap_or_default().iter().map(value).collect();
        self.0.call(Call::new(sql, values))?.rows.iter().map(|row| cells(table, row)).collect()
    }
}

fn value(cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::MaybeInteger(None),
        Cell::Integer(number) => Value::Integer(*number),
        Cell::Text(text) => Value::Text(text.clone()),
        Cell::Bytes(bytes) => Value::Bytes(bytes.clone()),
    }
}

impl Portable for PostgresStore {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        let session = self.driver.connect()?;
        // A copy takes its time between two statements and over one.
        session.batch(
            "set idle_in_transaction_session_timeout = 0; \
             begin isolation level repeatable read read only; select count(*) from migrations",
        )?;
        Ok(Box::new(Reading(session)))
    }

    fn write_rows(&self, table: &'static Table, rows: Vec<Vec<Cell>>) -> Result<(), StoreError> {
        let sql = insert(table, Twin::Refused);
        self.write(|session| session.call(Call::new(sql.as_str(), arrays(table, rows.clone()))).map(drop))
    }

    fn settle(&self) -> Result<(), StoreError> {
        self.writer().memory.clear();
        self.with(|session| {
            session.batch(
                "update counters set value = greatest(value, (select coalesce(max(sequence), 0) from journal)) \
                 where name = 'journal'; analyze",
            )
        })
    }

    fn backup(&self, file: &Path) -> Result<Backup, StoreError> {
        let mut folder = file.as_os_str().to_owned();
        folder.push(".building");
        let folder = Path::new(&folder);
        let made = copy_through(self, folder, file);
        // What is left of it is of no use; that it cannot be removed is no worse.
        drop(std::fs::remove_dir_all(folder));
        made
    }
}

fn copy_through(store: &PostgresStore, folder: &Path, file: &Path) -> Result<Backup, StoreError> {
    let copy = SqliteStore::open_with(folder, Opening::default())?;
    transfer(store, &copy)?;
    copy.backup(file)
}
