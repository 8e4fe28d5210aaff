//! The root key: whoever has it can make any token. It stands in one file of the data folder, readable by its owner alone.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use biscuit_auth::builder::Algorithm;
use biscuit_auth::{KeyPair, PrivateKey, PublicKey};
use graph::hex;

use super::seal::SEALING_KEY_FILE;

/// The file's name in the data folder.
pub const ROOT_KEY_FILE: &str = "root.key";
/// The permissions of files that hold keys.
pub(super) const KEY_MODE: u32 = 0o600;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or made.
    #[error("cannot use the key file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner may read it.
    #[error("{} may be read by others than its owner (mode {mode:o}): `chmod 600` it, and if others can have read it, \
             remove it and make new tokens", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It holds no key.
    #[error("{} holds no key: restore it from a backup, or remove it and make new tokens", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// Signs tokens. Its debug text shows nothing.
pub struct RootKey {
    pair: KeyPair,
}

impl std::fmt::Debug for RootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootKey(hidden)")
    }
}

impl RootKey {
    /// The key of a data folder; made at the first call. Two processes that make it at once end with the same.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn of(data: &Path) -> Result<Self, KeyError> {
        let bytes = read_or_make(&data.join(ROOT_KEY_FILE), || KeyPair::new().private().to_bytes().to_vec())?;
        let damaged = || KeyError::Damaged { path: data.join(ROOT_KEY_FILE) };
        let private = PrivateKey::from_bytes(&bytes, Algorithm::Ed25519).map_err(|_| damaged())?;
        Ok(Self { pair: KeyPair::from(&private) })
    }

    /// Tells this key from others, without giving it away.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex::digits(&self.public().to_bytes())
    }

    pub(super) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    pub(super) fn public(&self) -> PublicKey {
        self.pair.public()
    }
}

/// The bytes that stand, in hex, in a file of its owner alone; `make` gives them if there is none.
pub(super) fn read_or_make(path: &Path, make: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    if !path.exists() {
        let scratch = path.with_extension(format!("{}.new", std::process::id()));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(KEY_MODE).open(&scratch).map_err(failed)?;
        file.write_all(hex::digits(&make()).as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        // A link does not replace what another process made a moment ago.
        let linked = fs::hard_link(&scratch, path);
        let _ = fs::remove_file(&scratch);
        match linked {
            Err(error) if !path.exists() => return Err(failed(error)),
            _ => {}
        }
    }
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path: path.to_owned(), mode });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    hex::bytes(text.trim()).filter(|bytes| bytes.len() == 32).ok_or_else(|| KeyError::Damaged { path: path.to_owned() })
}

/// Whether a file of this name in a data folder is a key on its way: one that stays is that of a process which died.
#[must_use]
pub fn is_unfinished_key(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    [ROOT_KEY_FILE, SEALING_KEY_FILE].iter().any(|key| {
        let rest = key.strip_suffix("key").and_then(|stem| name.strip_prefix(stem));
        rest.and_then(|rest| rest.strip_suffix(".new")).is_some_and(is_number)
    })
}

/// Removes what processes left that died while they made a key. Both keys are there: whoever makes one at this moment takes that.
pub(super) fn remove_unfinished_keys(data: &Path) {
    for entry in fs::read_dir(data).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_unfinished_key) {
            // What stays is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
}
