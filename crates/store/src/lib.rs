//! Facts, the rows projected from them, logs and blobs.

pub mod blob;
pub mod cache;
mod claim;
mod faulty;
mod graphs;
pub mod log;
mod memory;
pub mod rows;
mod sqlite;
mod store;

pub use claim::{Claim, Claimant};
pub use faulty::FaultyStore;
pub use memory::MemoryStore;
pub use sqlite::{BUSY_WAIT, DATABASE_FILE, Durability, SqliteStore};
pub use store::{
    BUILD_ID_MAX, BuildFilter, Cause, Deleted, PAGE_ROWS_MAX, Store, StoreError, TOMBSTONES_MAX, TRIED_MAX,
};
