//! Copies of objects on a disk of this machine: `<root>/<two digits>/<all 64 digits>`, whole and verified.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use graph::Digest;

use super::ReadCache;
use crate::blob::directory::replace_file;
use crate::blob::{BlobError, Mode, read_error, timestamp};

/// An object that takes more than one such part of the cache is not copied.
pub const READ_CACHE_SHARE: u64 = 4;

const CHUNK_BYTES: usize = 256 * 1024;

pub(super) struct Cache {
    settings: ReadCache,
    copies: Mutex<Copies>,
}

/// What is there. A file that is deleted while somebody reads it can be read to its end.
#[derive(Default)]
struct Copies {
    by_digest: BTreeMap<Digest, (u64, i64)>,
    bytes: u64,
    /// Larger than the time of any use.
    clock: i64,
}

impl Cache {
    /// Takes over what an earlier process left.
    pub fn open(settings: ReadCache) -> Result<Self, BlobError> {
        fs::create_dir_all(&settings.root)?;
        let mut copies = Copies { clock: timestamp(SystemTime::now()).0, ..Copies::default() };
        for folder in fs::read_dir(&settings.root)? {
            let folder = folder?.path();
            if !folder.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder)? {
                let file = file?;
                let metadata = file.metadata()?;
                match file.file_name().to_str().unwrap_or_default().parse() {
                    Ok(digest) => {
                        copies.by_digest.insert(digest, (metadata.len(), timestamp(metadata.modified()?).0));
                        copies.bytes += metadata.len();
                    }
                    // Half a copy of a process that died.
                    Err(_) => fs::remove_file(file.path())?,
                }
            }
        }
        let cache = Self { settings, copies: Mutex::new(copies) };
        cache.make_room(&mut cache.copies())?;
        Ok(cache)
    }

    pub fn bytes_max(&self) -> u64 {
        self.settings.bytes_max
    }

    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: Digest) -> PathBuf {
        let hex = digest.to_hex();
        self.settings.root.join(&hex[..2]).join(hex)
    }

    pub fn open_copy(&self, digest: Digest) -> Result<Option<File>, BlobError> {
        let mut copies = self.copies();
        copies.clock += 1;
        let now = copies.clock;
        let Some(copy) = copies.by_digest.get_mut(&digest) else { return Ok(None) };
        copy.1 = now;
        match File::open(self.path(digest)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.drop_copy(&mut copies, digest);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a copy, verified, and opens it.
    pub fn keep(&self, digest: Digest, length: u64, mut content: impl Read) -> Result<File, BlobError> {
        let path = self.path(digest);
        fs::create_dir_all(path.parent().expect("a copy is in a folder"))?;
        let content = std::cell::RefCell::new(&mut content);
        replace_file(&path, Mode(0o600), |file| copy_verified(&mut **content.borrow_mut(), file, digest))
            .map_err(|error| read_error(error, digest))?;
        let file = File::open(&path)?;
        let mut copies = self.copies();
        copies.clock += 1;
        let now = copies.clock;
        if copies.by_digest.insert(digest, (length, now)).is_none() {
            copies.bytes += length;
        }
        self.make_room(&mut copies)?;
        Ok(file)
    }

    pub fn forget(&self, digest: Digest) -> Result<(), BlobError> {
        let mut copies = self.copies();
        self.drop_copy(&mut copies, digest);
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn drop_copy(&self, copies: &mut Copies, digest: Digest) {
        if let Some((length, _)) = copies.by_digest.remove(&digest) {
            copies.bytes -= length;
        }
    }

    fn make_room(&self, copies: &mut Copies) -> Result<(), BlobError> {
        while copies.bytes > self.settings.bytes_max {
            let oldest = copies.by_digest.iter().min_by_key(|(_, (_, used))| *used).map(|(digest, _)| *digest);
            let Some(oldest) = oldest else { break };
            self.drop_copy(copies, oldest);
            match fs::remove_file(self.path(oldest)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

fn copy_verified(content: &mut impl Read, mut file: &File, digest: Digest) -> io::Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match content.read(&mut chunk)? {
            0 => break,
            length => {
                hasher.update(&chunk[..length]);
                file.write_all(&chunk[..length])?;
            }
        }
    }
    if *hasher.finalize().as_bytes() != digest.0 {
        return Err(io::Error::new(ErrorKind::InvalidData, "the content is not what its digest says"));
    }
    Ok(())
}
