//! The keys of a data folder, held against those with which its records were made: tokens that were signed and secrets that were sealed
//! with others are worth nothing. Keys are made only for records that hold nothing yet, or by somebody's word.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use graph::Timestamp;
use serde::{Deserialize, Serialize};
use store::{BuildFilter, Store, StoreError};

use super::keys::{KeyError, ROOT_KEY_FILE, RootKey, remove_unfinished_keys};
use super::seal::{SEALING_KEY_FILE, SealingKey};
use crate::doctor::ADDRESS;
use crate::records::{Document, RecordError, Records};

/// The key of the one record.
const KEY: &str = "keys";

/// What records say of the keys with which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct KeyRecord {
    /// The fingerprint of the root key.
    root: String,
    /// That of the key of secrets.
    sealing: String,
}

impl Document for KeyRecord {
    const KIND: &'static str = "keys";
}

/// What to do if records were made with other keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewKeys {
    /// It is an error.
    Refused,
    /// They go on with the keys of the folder; those that are missing are made.
    Wanted,
}

/// The keys of a data folder.
#[derive(Debug)]
pub struct Keys {
    /// Signs tokens.
    pub root: RootKey,
    /// Seals secrets.
    pub sealing: SealingKey,
}

/// Why a folder's keys are not those of its records.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It is not there, and the records are.
    #[error("{} is missing, and without it {}: {NEXT}", path.display(), lost(path))]
    Missing {
        /// Where it was.
        path: PathBuf,
    },
    /// It is not the one with which the records were made.
    #[error("{} is not the key with which these records were made, and with this one {}: {NEXT}", path.display(), lost(path))]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The records hold nothing, and a server ran with this folder.
    #[error(
        "a server has run with {}, and there are no records of it: its builds, members and tokens are in another database. Put them back from a backup with \
         `ropewalk restore`, or let `store.url` name the database that holds them; to begin anew, give an empty folder by --data DIR",
        data.display()
    )]
    NoRecords {
        /// The data folder.
        data: PathBuf,
    },
    /// What the records say cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What to do about keys that are not those of the records.
pub const NEXT: &str = "put the key back from a backup (its folder `keys`), or, beside other servers of this database, copy root.key and \
                        secrets.key from the data folder of one; if it is lost for good, `ropewalk serve --new-keys` goes on with new ones, and \
                        tokens and secrets have to be made anew";

/// What is lost without this key.
#[must_use]
pub fn lost(path: &Path) -> &'static str {
    match path.ends_with(ROOT_KEY_FILE) {
        true => "every token that was made is refused",
        false => "no secret that was put can be opened",
    }
}

impl Keys {
    /// The keys of a data folder, which are those of its records; made if the records hold nothing yet and no server ran with the folder.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn open(data: &Path, store: &Arc<dyn Store>, new: NewKeys, at: Timestamp) -> Result<Self, KeysError> {
        let records = Records::new(Arc::clone(store));
        let noted = records.read::<KeyRecord>(KEY)?.map(|(record, _)| record);
        let is_filled = noted.is_some() || !store.builds(&BuildFilter::default(), None, 1)?.is_empty();
        // It is written by every server that has started, after the records.
        if !is_filled && data.join(ROOT_KEY_FILE).exists() && data.join(ADDRESS).exists() {
            return Err(KeysError::NoRecords { data: data.to_owned() });
        }
        if is_filled && new == NewKeys::Refused {
            let mut paths = [ROOT_KEY_FILE, SEALING_KEY_FILE].into_iter().map(|file| data.join(file));
            if let Some(path) = paths.find(|path| !path.exists()) {
                return Err(KeysError::Missing { path });
            }
        }
        let keys = Self { root: RootKey::of(data)?, sealing: SealingKey::of(data)? };
        remove_unfinished_keys(data);
        let noted = match new {
            NewKeys::Wanted => {
                records.write(KEY, &keys.record(), at)?;
                keys.record()
            }
            NewKeys::Refused => match noted {
                Some(noted) => noted,
                None => records.change(KEY, at, |noted: Option<KeyRecord>| noted.unwrap_or_else(|| keys.record()))?,
            },
        };
        keys.foreign(data, &noted).map_or(Ok(keys), |path| Err(KeysError::Foreign { path }))
    }

    /// Tells these keys from others, without giving them away.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let KeyRecord { root, sealing } = self.record();
        format!("{root} {sealing}")
    }

    fn record(&self) -> KeyRecord {
        KeyRecord { root: self.root.fingerprint(), sealing: self.sealing.fingerprint().to_owned() }
    }

    /// The file of the first of these keys that is not the one that was noted.
    fn foreign(&self, data: &Path, noted: &KeyRecord) -> Option<PathBuf> {
        let KeyRecord { root, sealing } = self.record();
        let file = if root != noted.root { Some(ROOT_KEY_FILE) } else { None };
        file.or((sealing != noted.sealing).then_some(SEALING_KEY_FILE)).map(|file| data.join(file))
    }
}

/// The file of a key of this folder with which its records were not made; `None` if nothing is said of it, or a key is not there.
/// Changes nothing.
#[must_use]
pub fn foreign_key(data: &Path, records: &Records) -> Option<PathBuf> {
    let (noted, _) = records.read::<KeyRecord>(KEY).ok().flatten()?;
    if ![ROOT_KEY_FILE, SEALING_KEY_FILE].iter().all(|file| data.join(file).exists()) {
        return None;
    }
    Keys { root: RootKey::of(data).ok()?, sealing: SealingKey::of(data).ok()? }.foreign(data, &noted)
}
