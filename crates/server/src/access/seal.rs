//! Secrets at rest: each value sealed with a nonce of its own under one key of the data folder.

use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use super::keys::{KeyError, read_or_make};

/// The file's name in the data folder.
pub const SEALING_KEY_FILE: &str = "secrets.key";
/// What the fingerprint of a key is derived for.
const FINGERPRINT_CONTEXT: &str = "ropewalk 2026-11-21 fingerprint of the key of secrets";
/// What the key of addresses is derived for.
const ADDRESS_CONTEXT: &str = "ropewalk 2026-11-21 addresses of files that are a right of their own";
/// The version that stands before each sealed value.
const VERSION: u8 = 1;

/// Seals and opens. Its debug text shows nothing.
pub struct SealingKey {
    key: LessSafeKey,
    addresses: ring::hmac::Key,
    fingerprint: String,
    path: PathBuf,
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(hidden)")
    }
}

/// Why a value cannot be opened or sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom,
    /// The value was sealed under another key or for another name, or is damaged.
    #[error("the secret cannot be opened: it was sealed under another key than that of {}; put it anew, or restore the key", path.display())]
    Foreign {
        /// The key's file.
        path: PathBuf,
    },
}

impl SealingKey {
    /// The key of a data folder; made at the first call.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn of(data: &Path) -> Result<Self, KeyError> {
        let path = data.join(SEALING_KEY_FILE);
        let bytes = read_or_make(&path, || {
            let mut bytes = vec![0; 32];
            SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
            bytes
        })?;
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| KeyError::Damaged { path: path.clone() })?;
        let fingerprint = graph::hex::digits(&blake3::derive_key(FINGERPRINT_CONTEXT, &bytes)[..16]);
        let addresses = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &blake3::derive_key(ADDRESS_CONTEXT, &bytes));
        Ok(Self { key: LessSafeKey::new(key), addresses, fingerprint, path })
    }

    /// What signs addresses that are a right of their own; derived, so that a signature says nothing of the key of secrets.
    #[must_use]
    pub fn addresses(&self) -> &ring::hmac::Key {
        &self.addresses
    }

    /// Tells this key from others, without giving it away.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The value, sealed for this place (project and name): opened elsewhere it is refused.
    ///
    /// # Errors
    /// [`SealError::NoRandom`].
    pub fn seal(&self, place: &str, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::NoRandom)?;
        let mut sealed = value.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place.as_bytes()), &mut sealed)
            .map_err(|_| SealError::NoRandom)?;
        Ok([&[VERSION], nonce.as_slice(), &sealed].concat())
    }

    /// The value that was sealed for this place.
    ///
    /// # Errors
    /// [`SealError::Foreign`].
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let foreign = || SealError::Foreign { path: self.path.clone() };
        let Some((&VERSION, rest)) = sealed.split_first() else { return Err(foreign()) };
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or_else(foreign)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| foreign())?;
        let mut value = sealed.to_vec();
        let length =
            self.key.open_in_place(nonce, Aad::from(place.as_bytes()), &mut value).map_err(|_| foreign())?.len();
        value.truncate(length);
        Ok(value)
    }
}
