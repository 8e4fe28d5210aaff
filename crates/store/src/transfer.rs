//! A whole store copied into another, of whatever kind, and copies as files.
//!
//! What is copied is the rows of all tables as they are (`table.rs`), page by page in order of their keys, out of one
//! snapshot of the source. Afterwards both are held against each other, table by table, by count and digest.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::store::StoreError;
use crate::table::{Cell, GRAPHS, LOG_CHUNKS, RECORDS, TABLES, Table};

/// The most rows of a page.
const PAGE_ROWS: u32 = 512;
/// The most rows of a page of tables whose rows may be large.
const LARGE_PAGE_ROWS: u32 = 8;

/// A store that can be copied whole.
pub trait Portable {
    /// The state as it is now, for as long as the snapshot lives.
    #[doc(hidden)]
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError>;

    /// Adds rows in one transaction.
    #[doc(hidden)]
    fn write_rows(&self, table: &'static Table, rows: Vec<Vec<Cell>>) -> Result<(), StoreError>;

    /// Called once all rows are written.
    #[doc(hidden)]
    fn settle(&self) -> Result<(), StoreError>;

    /// Writes a copy into `file`, an SQLite database, while the store goes on; `file` is there only once it is whole and
    /// on the disk.
    ///
    /// # Errors
    /// `NotEmpty` if `file` is there; else as the medium refuses.
    fn backup(&self, file: &Path) -> Result<Backup, StoreError>;
}

/// One state of a store.
#[doc(hidden)]
pub trait Snapshot {
    /// Rows of a table in order of their keys, after a key, at most so many.
    fn rows(&mut self, table: &Table, after: Option<&[Cell]>, limit: u32) -> Result<Vec<Vec<Cell>>, StoreError>;
}

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transferred {
    /// The number of rows of each table, in the order in which they were copied.
    pub rows: Vec<(&'static str, u64)>,
}

/// What a copy in a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The version of its schema.
    pub version: u32,
    /// Its builds.
    pub builds: u64,
    /// Their facts.
    pub facts: u64,
    /// The size of the file.
    pub bytes: u64,
}

/// Copies all of `from` into `to`, which must be new. Nobody may write into `to` meanwhile; what is written into `from`
/// after the beginning is not copied. If it fails, `to` is to be thrown away.
///
/// # Errors
/// `NotEmpty` if something is in `to`; `Corrupt` if afterwards both are not the same; else as the media refuse.
pub fn transfer(from: &dyn Portable, to: &dyn Portable) -> Result<Transferred, StoreError> {
    check_empty(&mut *to.snapshot()?)?;
    let mut source = from.snapshot()?;
    let (mut rows, mut sums) = (Vec::new(), Vec::new());
    for table in TABLES {
        let sum = each_page(&mut *source, table, |page| to.write_rows(table, page))?;
        rows.push((table.name, sum.0));
        sums.push(sum);
    }
    drop(source);
    to.settle()?;
    let mut target = to.snapshot()?;
    for (table, sum) in TABLES.iter().zip(sums) {
        if each_page(&mut *target, table, |_| Ok(()))? != sum {
            let what = format!("the copy of table `{}` is not the same as the original", table.name);
            return Err(StoreError::Corrupt(what.into()));
        }
    }
    Ok(Transferred { rows })
}

/// Whether a row is a database's own: who leads it, and how often PostgreSQL's builds changed, which SQLite has from its
/// journal.
fn is_own(table: &Table, row: &[Cell]) -> bool {
    let names = ["epoch", "journal"];
    table.name == "counters" && matches!(row.first(), Some(Cell::Text(name)) if names.contains(&name.as_str()))
}

fn check_empty(snapshot: &mut dyn Snapshot) -> Result<(), StoreError> {
    for table in TABLES {
        // More than may be its own.
        let rows = snapshot.rows(table, None, 3)?;
        if rows.iter().any(|row| !is_own(table, row)) {
            return Err(StoreError::NotEmpty);
        }
    }
    Ok(())
}

/// The number of a table's rows and their digest.
type Sum = (u64, blake3::Hash);

fn each_page(
    snapshot: &mut dyn Snapshot,
    table: &'static Table,
    mut page: impl FnMut(Vec<Vec<Cell>>) -> Result<(), StoreError>,
) -> Result<Sum, StoreError> {
    let is_large = [LOG_CHUNKS.name, RECORDS.name, GRAPHS.name].contains(&table.name);
    let limit = if is_large { LARGE_PAGE_ROWS } else { PAGE_ROWS };
    let (mut count, mut digest, mut after) = (0, blake3::Hasher::new(), None::<Vec<Cell>>);
    loop {
        let mut rows = snapshot.rows(table, after.as_deref(), limit)?;
        let Some(last) = rows.last() else { return Ok((count, digest.finalize())) };
        after = Some(last[..table.key].to_vec());
        rows.retain(|row| !is_own(table, row));
        count += rows.len() as u64;
        for cell in rows.iter().flatten() {
            add_cell(&mut digest, cell);
        }
        page(rows)?;
    }
}

/// Each cell begins with its kind and length, so that no two rows look the same.
fn add_cell(digest: &mut blake3::Hasher, cell: &Cell) {
    let (kind, bytes): (u8, &[u8]) = match cell {
        Cell::Null => (0, &[]),
        Cell::Integer(number) => {
            digest.update(&[1]).update(&number.to_le_bytes());
            return;
        }
        Cell::Text(text) => (2, text.as_bytes()),
        Cell::Bytes(bytes) => (3, bytes),
    };
    digest.update(&[kind]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}

/// Has a file made by `make` under another name in the same folder, and gives it its name once it is on the disk.
pub(crate) fn make_whole(file: &Path, make: impl FnOnce(&Path) -> Result<(), StoreError>) -> Result<(), StoreError> {
    if file.try_exists()? {
        return Err(StoreError::NotEmpty);
    }
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let made = make(&partial).and_then(|()| {
        File::open(&partial)?.sync_all()?;
        fs::rename(&partial, file)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
        Ok(())
    });
    if made.is_err() {
        // What is left of it is of no use; that it cannot be removed is no worse.
        drop(fs::remove_file(&partial));
    }
    made
}
