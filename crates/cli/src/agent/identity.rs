//! Who a worker is: an Ed25519 key made at its first start, and the lock by which only one process works on a data folder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use graph::hex;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustix::process::{Pid, getppid};

const KEY: &str = "key";
const LOCK: &str = "lock";

/// The folders in a worker's that are closed to other accounts of the machine: what projects sent, and what jobs left. Where jobs see
/// their files is not among them, since a job may go on as another user there.
const CLOSED: [&str; 6] = ["checkouts", "contents", "packs", "scratch", "spool", "workspaces"];

/// What stands before the nonce in what is signed.
const SIGNED_PREFIX: &[u8] = b"ropewalk worker session\n";

/// How often a worker that waits for its folder looks whether it is free, and whether its server lives.
const TAKEN_LOOK: Duration = Duration::from_secs(1);

/// The largest file that is read as a key.
const KEY_BYTES_MAX: u64 = 4096;

/// A worker's key, and its data folder to itself.
pub struct Identity {
    pair: Ed25519KeyPair,
    /// Held for as long as the process lives.
    _lock: File,
}

/// What to do while another worker has the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfTaken {
    /// Say so and end.
    Refuse,
    /// Wait until it has ended: the worker of a server that was replaced goes on for a while. Not longer than the process lives that started this one:
    /// the next server starts a worker of its own.
    Wait,
}

impl Identity {
    /// Takes the data folder, making it and the key if need be.
    ///
    /// # Errors
    /// A sentence: another worker has the folder, or it cannot be used.
    pub fn open(data: &Path, if_taken: IfTaken) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot use the worker's folder {}: {error}", data.display());
        let parent = getppid();
        fs::create_dir_all(data).map_err(failed)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(data.join(LOCK)).map_err(failed)?;
        match if_taken {
            IfTaken::Wait => wait_for(&lock, data, parent)?,
            IfTaken::Refuse => lock.try_lock().map_err(|_| {
                format!("another worker runs with the folder {}: each needs one of its own (`--data`)", data.display())
            })?,
        }
        for folder in CLOSED {
            store::make_private_folder(&data.join(folder)).map_err(failed)?;
        }
        let path = data.join(KEY);
        if !path.exists() {
            write_key(data, &path).map_err(failed)?;
        }
        let length = fs::metadata(&path).map_err(failed)?.len();
        let bytes = if length <= KEY_BYTES_MAX { fs::read(&path).map_err(failed)? } else { Vec::new() };
        let pair = Ed25519KeyPair::from_pkcs8(&bytes)
            .map_err(|_| format!("{} is no key of a worker: remove it, and the worker is a new one", path.display()))?;
        Ok(Self { pair, _lock: lock })
    }

    /// The public key, in hexadecimal digits.
    pub fn key(&self) -> String {
        hex::digits(self.pair.public_key().as_ref())
    }

    /// The signature that proves the key to a server that sent this nonce, in hexadecimal digits.
    pub fn sign(&self, nonce: &str) -> String {
        hex::digits(self.pair.sign(&[SIGNED_PREFIX, nonce.as_bytes()].concat()).as_ref())
    }
}

/// Takes the lock once it is free, as long as the process is there that started this one.
fn wait_for(lock: &File, data: &Path, parent: Option<Pid>) -> Result<(), String> {
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => {
                return Err(format!("cannot use the worker's folder {}: {error}", data.display()));
            }
            Err(TryLockError::WouldBlock) if getppid() != parent => {
                return Err(format!(
                    "the server that started this worker has ended, and another worker goes on in {}",
                    data.display()
                ));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(TAKEN_LOOK),
        }
    }
}

fn write_key(data: &Path, path: &Path) -> io::Result<()> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| io::Error::other("the system gives no random bytes"))?;
    let fresh = data.join("key.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(pkcs8.as_ref())?;
    file.sync_all()?;
    fs::rename(fresh, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_worker_is_its_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let identity = Identity::open(folder.path(), IfTaken::Refuse).expect("a key");
        let (key, signature) = (identity.key(), identity.sign("nonce"));
        let public = UnparsedPublicKey::new(&ED25519, hex::bytes(&key).unwrap());
        assert!(public.verify(b"ropewalk worker session\nnonce", &hex::bytes(&signature).unwrap()).is_ok());
        let mode = fs::metadata(folder.path().join(KEY)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = Identity::open(folder.path(), IfTaken::Refuse).map(|_| ()).expect_err("it is taken");
        assert!(second.starts_with("another worker runs with the folder"), "{second}");
        drop(identity);
        assert_eq!(Identity::open(folder.path(), IfTaken::Refuse).expect("the same key").key(), key);
    }
}
