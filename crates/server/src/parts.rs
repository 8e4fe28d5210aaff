//! What a server is made of on this machine: where each part stands in the data folder, and how it is opened by the
//! settings.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use store::blob::{
    self, BlobError, Blobs, DirectoryBlobs, ReadCache, S3Blobs, S3Credentials, S3Settings, UrlForm, Verify,
};
use store::chunk::LogChunks;
use store::log::{LogError, Logs, LogsSettings, SharedLogs, Sharing};
use store::{Journal, Opening, Portable, PostgresStore, SqliteStore, Store, StoreError};

use crate::random::random_digits;
use crate::records::Records;
use crate::settings::{Durability, OnOff, Settings};

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
    /// The place of contents refused.
    #[error("cannot open the place of blobs")]
    Blobs(#[from] BlobError),
    /// The logs cannot be opened.
    #[error("cannot open the logs")]
    Logs(#[from] LogError),
}

impl PartError {
    /// What to do about it, if its text does not say that.
    #[must_use]
    pub fn next(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => Some(next_of(error)),
            Self::Blobs(_) => Some(NEXT_OF_BLOBS),
            Self::Folder { .. } | Self::Logs(_) => Some("see permissions and room of the data folder"),
            Self::Setting(_) => None,
        }
    }
}

/// What to do about a database that refuses.
#[must_use]
pub fn next_of(error: &StoreError) -> &'static str {
    match error {
        StoreError::Newer { .. } => "update Ropewalk, or put a backup of this version back",
        StoreError::Corrupt(_) => {
            "put a backup back with `ropewalk restore`; keep the damaged file until it has been looked at"
        }
        StoreError::Busy(_) => "find who holds it, such as another program that has the file open",
        StoreError::Full(_) => "make room on its disk",
        StoreError::Denied(_) => {
            "see that this user may open it: permissions of the files, or user and password in `store.url` and the user's rights (at the first start also \
             to make tables: `grant create on schema public to USER`)"
        }
        StoreError::Lost(_) => "see that the database runs and that `store.url` names its address",
        _ => "look at the reason given",
    }
}

/// What to do about blobs that cannot be opened.
pub const NEXT_OF_BLOBS: &str = "see `blobs.url`, `blobs.endpoint`, the key of the bucket, and the network";

/// Everything that a server keeps, opened.
pub struct Storage {
    /// Facts, rows, records.
    pub store: Arc<dyn Store>,
    /// Contents of files.
    pub blobs: Arc<dyn Blobs>,
    /// Logs of builds.
    pub logs: Logs,
}

/// A database that keeps builds and, if several servers share it, logs that are being written; it can be copied whole.
pub trait Database: Store + LogChunks + Portable {}

impl<T: Store + LogChunks + Portable> Database for T {}

/// What is kept of all projects is for the server alone.
fn make_private(folder: &Path) -> Result<(), PartError> {
    store::make_private_folder(folder).map_err(|source| PartError::Folder { path: folder.to_owned(), source })
}

/// Opens the records of builds, as the settings say.
///
/// # Errors
/// [`PartError`].
pub fn open_store(settings: &Settings, data: &Path) -> Result<Arc<dyn Store>, PartError> {
    Ok(open_database(settings, data)?)
}

/// Opens records, contents and logs, as the settings say.
///
/// # Errors
/// [`PartError`].
pub fn open_storage(settings: &Settings, data: &Path) -> Result<Storage, PartError> {
    let database = open_database(settings, data)?;
    let blobs = open_blobs(settings, data)?;
    let records = Records::new(Arc::clone(&database) as Arc<dyn Store>);
    let places = SharedLogs {
        chunks: Arc::clone(&database) as Arc<dyn LogChunks>,
        blobs: Arc::clone(&blobs),
        recorded: Arc::new(move |build| records.stored_log(build)),
    };
    // Whatever the setting was before, no log is out of sight.
    let sharing = match settings.logs_shared {
        OnOff::Off => Sharing::Before(places),
        OnOff::On => Sharing::Now(places),
    };
    let root = Places::of(data).logs();
    make_private(&root)?;
    let logs = Logs::open(LogsSettings { root, durability: durability(settings.logs_durability), sharing })?;
    Ok(Storage { store: database, blobs, logs })
}

/// Opens the database of the records, as the settings say.
///
/// # Errors
/// [`PartError`].
pub fn open_database(settings: &Settings, data: &Path) -> Result<Arc<dyn Database>, PartError> {
    let opening = Opening { durability: durability(settings.store_durability), journal: Journal::Kept };
    match settings.store_url.0.as_str() {
        "sqlite" => {
            let folder = Places::of(data).records();
            make_private(&folder)?;
            Ok(database(SqliteStore::open_with(&folder, opening)?))
        }
        url if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            Ok(database(PostgresStore::open(url, opening)?))
        }
        _ => Err(PartError::Setting(
            "`store.url` is neither `sqlite` nor the address of a PostgreSQL database \
             (postgres://USER:PASSWORD@HOST/DATABASE)"
                .to_owned(),
        )),
    }
}

/// Opens the place of contents, as the settings say.
///
/// # Errors
/// [`PartError`].
pub fn open_blobs(settings: &Settings, data: &Path) -> Result<Arc<dyn Blobs>, PartError> {
    let cache = ReadCache { root: Places::of(data).blobs(), bytes_max: settings.blobs_cache.0 };
    open_blobs_with(settings, data, Some(cache))
}

/// As [`open_blobs`], beside a server that may run: without what it alone may use.
///
/// # Errors
/// [`PartError`].
pub fn open_blobs_beside(settings: &Settings, data: &Path) -> Result<Arc<dyn Blobs>, PartError> {
    open_blobs_with(settings, data, None)
}

fn open_blobs_with(settings: &Settings, data: &Path, cache: Option<ReadCache>) -> Result<Arc<dyn Blobs>, PartError> {
    let folder = Places::of(data).blobs();
    if settings.blobs_url.0 == "directory" || cache.is_some() {
        make_private(&folder)?;
    }
    if settings.blobs_url.0 == "directory" {
        return Ok(contents(DirectoryBlobs::open(&folder, blob::Durability::Process, Verify::Always)?));
    }
    if let Some(shared) = settings.blobs_url.0.strip_prefix("directory:").filter(|path| path.starts_with('/')) {
        return Ok(contents(DirectoryBlobs::open(Path::new(shared), blob::Durability::Process, Verify::Always)?));
    }
    let wrong = |why: &str| Err(PartError::Setting(why.to_owned()));
    let Some(place) = settings.blobs_url.0.strip_prefix("s3://") else {
        return wrong("`blobs.url` is none of `directory`, `directory:/PATH` and `s3://BUCKET/PREFIX`");
    };
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let Some(key) = settings.blobs_access_key_id.clone().filter(|_| !settings.blobs_secret_access_key.0.is_empty())
    else {
        return wrong(
            "`blobs.access_key_id` and `blobs.secret_access_key` are needed for a bucket; give the second by the variable \
             ROPEWALK_BLOBS_SECRET_ACCESS_KEY",
        );
    };
    let amazon = || format!("https://s3.{}.amazonaws.com", settings.blobs_region);
    let settings = S3Settings {
        endpoint: settings.blobs_endpoint.clone().map_or_else(amazon, |address| address.0),
        bucket: bucket.to_owned(),
        region: settings.blobs_region.clone(),
        prefix: if prefix.is_empty() || prefix.ends_with('/') { prefix.to_owned() } else { format!("{prefix}/") },
        url_form: if settings.blobs_endpoint.is_some() { UrlForm::Path } else { UrlForm::VirtualHost },
        credentials: S3Credentials { key, secret: settings.blobs_secret_access_key.0.clone(), session: None },
        cache,
    };
    Ok(contents(S3Blobs::open(settings)?))
}

#[cfg(feature = "faults")]
use crate::faults::{contents, database};

#[cfg(not(feature = "faults"))]
fn database(database: impl Database + 'static) -> Arc<dyn Database> {
    Arc::new(database)
}

#[cfg(not(feature = "faults"))]
fn contents(blobs: impl Blobs + 'static) -> Arc<dyn Blobs> {
    Arc::new(blobs)
}

fn durability(setting: Durability) -> store::Durability {
    match setting {
        Durability::Disk => store::Durability::Power,
        Durability::Process => store::Durability::Process,
    }
}

/// The number of random bytes in an id.
const ID_BYTES: usize = 9;

/// A short id that nobody can guess and that was never used: 18 hexadecimal digits.
///
/// # Panics
/// If the system gives no random numbers.
#[must_use]
pub fn fresh_id() -> String {
    random_digits::<ID_BYTES>()
}
