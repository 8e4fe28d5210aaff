//! The contract of [`Store`] and [`LogChunks`], run for every implementation.

mod builds;
#[path = "../sample/mod.rs"]
mod sample;
mod server;

use ropewalk_store::chunk::LogChunks;
use ropewalk_store::{FaultyStore, Journal, MemoryStore, Opening, SqliteStore, Store};

/// All doors of an implementation.
trait Kept: Store + LogChunks {}
impl<T: Store + LogChunks> Kept for T {}

/// Runs one test of the contract on an empty store of each kind.
fn check(test: impl Fn(&dyn Kept)) {
    test(&MemoryStore::with_journal(Journal::Kept));
    test(&FaultyStore::new(MemoryStore::with_journal(Journal::Kept), 1, 0));
    let folder = tempfile::tempdir().expect("a scratch folder");
    let laptop = Opening { journal: Journal::Kept, ..Opening::default() };
    test(&SqliteStore::open_with(&folder.path().join("laptop"), laptop).expect("a new store opens"));
    test(&SqliteStore::open_with(&folder.path().join("server"), Opening::SERVER).expect("a new store opens"));
}
