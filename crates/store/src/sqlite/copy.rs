//! Copies of an SQLite store: its rows for another store, and itself as a file.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use graph::{BuildId, Digest};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OpenFlags, params_from_iter};

use super::column::{corrupt, signed, unsigned};
use super::{DATABASE_FILE, SqliteStore, connect, deletion, documents, facts, migration};
use crate::record::Record;
use crate::store::StoreError;
use crate::table::{Cell, Table, clean};
use crate::transfer::{Backup, Portable, Snapshot, make_whole};

/// A connection that stays in one transaction.
struct Reading(Connection);

impl Snapshot for Reading {
    fn rows(&mut self, table: &Table, after: Option<&[Cell]>, limit: u32) -> Result<Vec<Vec<Cell>>, StoreError> {
        let (names, key) = (table.names(), table.key_names());
        let places: Vec<_> = (1..=table.key).map(|place| format!("?{place}")).collect();
        let condition = match after {
            Some(_) => format!("where ({key}) > ({})", places.join(", ")),
            None => String::new(),
        };
        let sql = format!("select {names} from {} {condition} order by {key} limit {limit}", table.name);
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(after.unwrap_or_default().iter().map(value)))?;
        let mut page = Vec::new();
        while let Some(row) = rows.next()? {
            let cell = |column| {
                Ok(match row.get_ref(column)? {
                    ValueRef::Null => Cell::Null,
                    ValueRef::Integer(number) => Cell::Integer(number),
                    ValueRef::Text(_) => {
                        Cell::Text(clean(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?))
                    }
                    ValueRef::Blob(bytes) => Cell::Bytes(bytes.to_owned()),
                    ValueRef::Real(_) => return Err(corrupt("a column holds a number with a fraction")),
                })
            };
            page.push((0..table.columns.len()).map(cell).collect::<Result<_, StoreError>>()?);
        }
        Ok(page)
    }
}

fn value(cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Integer(number) => Value::Integer(*number),
        Cell::Text(text) => Value::Text(text.clone()),
        Cell::Bytes(bytes) => Value::Blob(bytes.clone()),
    }
}

impl Portable for SqliteStore {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        // Rows may follow their facts; elsewhere they do not.
        self.write(facts::catch_up)?;
        let connection = connect(&self.folder.join(DATABASE_FILE), self.durability)?;
        // The snapshot is that of the first read.
        connection.execute_batch("begin")?;
        connection.query_row("select count(*) from counters", [], |_| Ok(()))?;
        Ok(Box::new(Reading(connection)))
    }

    fn write_rows(&self, table: &'static Table, rows: Vec<Vec<Cell>>) -> Result<(), StoreError> {
        let places: Vec<_> = (1..=table.columns.len()).map(|place| format!("?{place}")).collect();
        let sql = format!("insert into {} ({}) values ({})", table.name, table.names(), places.join(", "));
        self.write(|writer| {
            let mut insert = writer.connection.prepare_cached(&sql)?;
            for row in &rows {
                insert.execute(params_from_iter(row.iter().map(value)))?;
            }
            Ok(())
        })
    }

    fn settle(&self) -> Result<(), StoreError> {
        self.writer().working.clear();
        Ok(())
    }

    fn backup(&self, file: &Path) -> Result<Backup, StoreError> {
        make_whole(file, |partial| {
            let Some(path) = partial.to_str() else { return Err(corrupt("the path of the copy is not UTF-8")) };
            self.front.drain(&mut self.writer())?;
            // Reads one state while others write; the copy has no holes.
            let connection = connect(&self.folder.join(DATABASE_FILE), self.durability)?;
            connection.execute("vacuum into ?1", [path])?;
            verify_backup(partial).map(drop)
        })?;
        verify_backup(file)
    }
}

/// Looks through a copy made by [`Portable::backup`]: whether the file is whole, is ours, and is one that this program can
/// use, and what it holds.
///
/// # Errors
/// `Corrupt` if it is not whole or not ours; `Newer`; else as the system refuses.
pub fn verify_backup(file: &Path) -> Result<Backup, StoreError> {
    let bytes = fs::metadata(file)?.len();
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let found: String = connection.query_row("pragma integrity_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(corrupt(&format!("the copy is damaged: {found}")));
    }
    let version = migration::version(&connection)?;
    if version == 0 {
        return Err(corrupt("the file is no copy of a store"));
    }
    let count = |sql: &str| connection.query_row(sql, [], |row| unsigned(row, 0));
    // Each build knows how many of its facts it shows, and those are there.
    let missing = count(
        "select count(*) from builds where facts > coalesce((select sum(facts.facts) from facts \
         where position >= builds.id * 4294967296 and position < (builds.id + 1) * 4294967296), 0)",
    )?;
    if missing > 0 {
        return Err(corrupt("facts of builds are missing in the copy"));
    }
    let builds = count("select count(*) from builds")?;
    let facts = count("select coalesce(sum(facts), 0) from facts")?;
    Ok(Backup { version, builds, facts, bytes })
}

/// A copy made by [`Portable::backup`], opened to be read; nothing beside it is touched.
pub struct BackupFile(Connection);

impl BackupFile {
    /// Opens a copy through which [`verify_backup`] has looked.
    ///
    /// # Errors
    /// As the system refuses.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        Ok(Self(Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?))
    }

    /// As [`crate::Store::referenced_blobs`].
    ///
    /// # Errors
    /// As the system refuses.
    pub fn referenced_blobs(&self) -> Result<BTreeSet<Digest>, StoreError> {
        deletion::referenced_blobs(&self.0)
    }

    /// As [`crate::Store::referenced_sources`].
    ///
    /// # Errors
    /// As the system refuses.
    pub fn referenced_sources(&self) -> Result<BTreeSet<Digest>, StoreError> {
        deletion::referenced_sources(&self.0)
    }

    /// As [`crate::Store::records`].
    ///
    /// # Errors
    /// As the system refuses.
    pub fn records(&self, kind: &str, after: Option<&str>, limit: u32) -> Result<Vec<Record>, StoreError> {
        documents::records(&self.0, kind, after, limit)
    }

    /// Whether the copy has this build.
    ///
    /// # Errors
    /// As the system refuses.
    pub fn has_build(&self, build: BuildId) -> Result<bool, StoreError> {
        let mut statement = self.0.prepare_cached("select exists (select 1 from builds where id = ?1)")?;
        Ok(statement.query_row([signed(build.0)], |row| row.get(0))?)
    }
}

/// Puts a copy made by [`Portable::backup`] into `folder` as its store, after looking through it.
///
/// # Errors
/// `NotEmpty` if there is a store in `folder`; else as [`verify_backup`].
pub fn restore_backup(file: &Path, folder: &Path) -> Result<Backup, StoreError> {
    let backup = verify_backup(file)?;
    fs::create_dir_all(folder)?;
    make_whole(&folder.join(DATABASE_FILE), |partial| Ok(fs::copy(file, partial).map(drop)?))?;
    Ok(backup)
}
