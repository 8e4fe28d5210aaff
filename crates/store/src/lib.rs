//! Facts, the rows projected from them, logs and blobs.

mod above;
pub mod audit;
pub mod blob;
pub mod cache;
pub mod chunk;
mod claim;
mod faulty;
mod graphs;
mod leadership;
pub mod log;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod private;
pub mod record;
pub mod rows;
mod span;
mod sqlite;
mod store;
mod table;
mod transfer;
mod unanswered;
mod whole;

pub use above::builds_above;
pub use claim::{Claim, Claimant};
pub use faulty::{Fault, FaultyStore};
pub use leadership::{Leadership, Looked};
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
pub use private::make_private_folder;
pub use sqlite::{
    BUSY_WAIT, BackupFile, DATABASE_FILE, Durability, Opening, SqliteStore, restore_backup, verify_backup,
};
pub use store::{
    BUILD_ID_MAX, BuildFilter, Cause, Deleted, JOURNAL_FACTS_MAX, Journal, PAGE_ROWS_MAX, Sequence, Store, StoreError,
    TOMBSTONES_MAX, TRIED_MAX,
};
pub use transfer::{Backup, Portable, Transferred, transfer};
pub use whole::ran_whole;
