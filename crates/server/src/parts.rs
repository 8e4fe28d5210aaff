//! What a server is made of on this machine: where each part stands in the data folder, and how it is opened by the
//! settings.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};
use store::{Journal, Opening, SqliteStore, Store, StoreError};

use crate::settings::{Durability, Settings};

/// Where things stand in a data folder.
#[derive(Clone, Debug)]
pub struct Places {
    /// The folder itself, which also holds the keys.
    pub data: PathBuf,
}

impl Places {
    /// The places of a data folder.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        Self { data: data.to_owned() }
    }

    /// The folder of the database, if that is SQLite.
    #[must_use]
    pub fn records(&self) -> PathBuf {
        self.data.join("records")
    }

    /// Contents of files, or what is kept of a bucket's.
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.data.join("blobs")
    }

    /// Logs of builds.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    /// The data of the worker that the server starts itself.
    #[must_use]
    pub fn local_worker(&self) -> PathBuf {
        self.data.join("worker")
    }
}

/// Whether a folder holds a server's data.
#[must_use]
pub fn is_installation(data: &Path) -> bool {
    data.join("root.key").exists()
}

/// Why a part cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// The folder cannot be made.
    #[error("cannot make {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A setting asks for what this binary has not.
    #[error("{0}")]
    Setting(String),
    /// The store refused.
    #[error("cannot open the records")]
    Store(#[from] StoreError),
}

/// Opens the records of builds, as the settings say.
///
/// # Errors
/// [`PartError`].
pub fn open_store(settings: &Settings, data: &Path) -> Result<Arc<dyn Store>, PartError> {
    let url = settings.store_url.0.as_str();
    if url == "sqlite" {
        let folder = Places::of(data).records();
        fs::create_dir_all(&folder).map_err(|source| PartError::Folder { path: folder.clone(), source })?;
        let durability = match settings.store_durability {
            Durability::Disk => store::Durability::Power,
            Durability::Process => store::Durability::Process,
        };
        let opening = Opening { durability, journal: Journal::Kept };
        return Ok(Arc::new(SqliteStore::open_with(&folder, opening)?));
    }
    Err(PartError::Setting(
        "`store.url` is neither `sqlite` nor the address of a PostgreSQL database (postgres://USER:PASSWORD@HOST/DATABASE)"
            .to_owned(),
    ))
}

/// The number of random bytes in an id.
const ID_BYTES: usize = 9;

/// A short id that nobody can guess and that was never used: 18 hexadecimal digits.
///
/// # Panics
/// If the system gives no random numbers.
#[must_use]
pub fn fresh_id() -> String {
    let mut bytes = [0; ID_BYTES];
    SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
