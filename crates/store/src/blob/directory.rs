//! Blobs in a folder: `<root>/<two digits>/<all 64 digits>`, with `.zst` if compressed, and `<root>/incoming` for what
//! is being written; `<root>/installation` says whose it is. A blob comes into sight by a rename, whole. Names are made from [`Digest`]s only.
//!
//! A blob was renewed when its file was changed last. Who renews or brings in holds the lock of `<root>/renewal` with
//! others, a collector that looks and deletes holds it alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use graph::{Digest, Timestamp};

use super::{
    BLOBS_PAGE_MAX, BlobError, Blobs, MARK, MARK_BYTES_MAX, Mode, PutFile, StoredBlob, mark_of, read_error, timestamp,
};

/// How much is read, hashed and written at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Below this, compressing saves no block of a disk.
const COMPRESSED_BYTES_MIN: usize = 4096;

/// zstd's level for blobs, as for logs.
const LEVEL: i32 = 1;

const COMPRESSED_SUFFIX: &str = ".zst";
const INCOMING: &str = "incoming";
const RENEWAL: &str = "renewal";

/// No header of a zstd frame is longer.
const FRAME_HEADER_BYTES: usize = 18;

/// How many names are tried for a file that is being written before giving up.
const NAMES_TRIED_MAX: usize = 100;

/// What must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of this process. The system writes to the disk when it likes.
    Process,
    /// The end of the machine: every put waits for the disk.
    Power,
}

/// Whether content is hashed while it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// The disk is trusted.
    Never,
    /// Content that is not what its name says ends in [`BlobError::Damaged`]. Costs 0.2 ms for each MB.
    Always,
}

/// Blobs in a folder. Several processes may use it at once.
#[derive(Debug)]
pub struct DirectoryBlobs {
    root: PathBuf,
    durability: Durability,
    verify: Verify,
}

/// How a blob is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Zstd,
}

impl DirectoryBlobs {
    /// Opens the folder, making it if need be, and removes what puts left behind that did not end.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(root: &Path, durability: Durability, verify: Verify) -> Result<Self, BlobError> {
        let incoming = root.join(INCOMING);
        fs::create_dir_all(&incoming)?;
        for entry in fs::read_dir(&incoming)? {
            let path = entry?.path();
            // Who writes a file holds its lock; a lock that can be had is that of a process that is gone.
            if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(Self { root: root.to_owned(), durability, verify })
    }

    fn folder(&self, digest: Digest) -> PathBuf {
        self.root.join(&digest.to_hex()[..2])
    }

    fn path(&self, digest: Digest, form: Form) -> PathBuf {
        let mut name = digest.to_hex();
        if form == Form::Zstd {
            name.push_str(COMPRESSED_SUFFIX);
        }
        self.folder(digest).join(name)
    }

    fn find(&self, digest: Digest) -> Result<(File, Form), BlobError> {
        for form in [Form::Plain, Form::Zstd] {
            match File::open(self.path(digest, form)) {
                Ok(file) => return Ok((file, form)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(BlobError::Absent(digest))
    }

    fn reader(&self, file: File, form: Form, digest: Digest) -> io::Result<Box<dyn Read + Send>> {
        let content: Box<dyn Read + Send> = match form {
            Form::Plain => Box::new(file),
            Form::Zstd => Box::new(Decoded(zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(
                CHUNK_BYTES,
                file,
            ))?)),
        };
        Ok(match self.verify {
            Verify::Never => content,
            Verify::Always => Box::new(Verified { content, hasher: blake3::Hasher::new(), digest }),
        })
    }

    fn renewal(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(false).open(self.root.join(RENEWAL))
    }

    /// The blobs of one folder, sorted.
    fn stored_in(&self, folder: &Path) -> Result<Vec<StoredBlob>, BlobError> {
        let files = match fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            files => files?,
        };
        let mut blobs = Vec::new();
        for file in files {
            let file = file?;
            let name = file.file_name();
            let name = name.to_str().unwrap_or_default();
            let Ok(digest) = name.strip_suffix(COMPRESSED_SUFFIX).unwrap_or(name).parse() else { continue };
            match file.metadata() {
                Ok(metadata) => blobs.push(StoredBlob {
                    digest,
                    stored_bytes: metadata.len(),
                    renewed_at: timestamp(metadata.modified()?),
                }),
                // Deleted meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        blobs.sort_unstable();
        blobs.dedup_by_key(|blob| blob.digest);
        Ok(blobs)
    }

    /// Moves a written file to its name.
    fn keep(&self, incoming: Incoming, digest: Digest, form: Form) -> Result<(), BlobError> {
        if self.durability == Durability::Power {
            incoming.file.sync_data()?;
        }
        // A collector that saw nothing here must not delete what comes a moment later.
        let renewal = self.renewal()?;
        renewal.lock_shared()?;
        // Its age counts from here, however long it took to write.
        incoming.file.set_modified(SystemTime::now())?;
        let path = self.path(digest, form);
        let folder = self.folder(digest);
        let moved = fs::rename(&incoming.path, &path).or_else(|error| match error.kind() {
            ErrorKind::NotFound => {
                fs::create_dir_all(&folder)?;
                fs::rename(&incoming.path, &path)
            }
            _ => Err(error),
        });
        moved?;
        incoming.kept();
        if self.durability == Durability::Power {
            File::open(&folder)?.sync_all()?;
            File::open(&self.root)?.sync_all()?;
        }
        Ok(())
    }
}

impl Blobs for DirectoryBlobs {
    fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let digest = super::digest(bytes);
        if self.renew(digest)? {
            return Ok(digest);
        }
        let compressed = match compression_of(bytes)? {
            Form::Plain => None,
            Form::Zstd => Some(zstd::bulk::compress(bytes, LEVEL)?),
        };
        let mut incoming = Incoming::create(&self.root.join(INCOMING))?;
        incoming.file.write_all(compressed.as_deref().unwrap_or(bytes))?;
        let form = if compressed.is_some() { Form::Zstd } else { Form::Plain };
        self.keep(incoming, digest, form)?;
        Ok(digest)
    }

    fn put_file(&self, path: &Path) -> Result<PutFile, BlobError> {
        let mut source = File::open(path)?;
        let length = source.metadata()?.len();
        let mut incoming = Incoming::create(&self.root.join(INCOMING))?;
        // Where the file system can share blocks, a plain blob costs no copy; and the copy cannot change any more.
        let (put, form) = if rustix::fs::ioctl_ficlone(&incoming.file, &source).is_ok() {
            (copy(&mut incoming.file, &mut io::sink())?, Form::Plain)
        } else {
            let mut sample = Vec::with_capacity(CHUNK_BYTES);
            (&mut source).take(CHUNK_BYTES as u64).read_to_end(&mut sample)?;
            let form = compression_of(&sample)?;
            let mut content = sample.as_slice().chain(source);
            let put = match form {
                Form::Plain => copy(&mut content, &mut incoming.file)?,
                Form::Zstd => {
                    let mut encoder = zstd::stream::write::Encoder::new(&incoming.file, LEVEL)?;
                    // Told here it stands in the frame's header, where [`Blobs::length`] finds it.
                    encoder.set_pledged_src_size(Some(length))?;
                    // If the file changes meanwhile, what was there at the beginning is kept.
                    let put = copy(&mut content.take(length), &mut encoder)?;
                    encoder.finish()?;
                    put
                }
            };
            (put, form)
        };
        if !self.renew(put.digest)? {
            self.keep(incoming, put.digest, form)?;
        }
        Ok(put)
    }

    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send>, BlobError> {
        let (file, form) = self.find(digest)?;
        Ok(self.reader(file, form, digest)?)
    }

    fn open_range(&self, digest: Digest, range: Range<u64>) -> Result<Box<dyn Read + Send>, BlobError> {
        let (mut file, form) = self.find(digest)?;
        let length = range.end.saturating_sub(range.start);
        if form == Form::Plain {
            file.seek(SeekFrom::Start(range.start))?;
            return Ok(Box::new(file.take(length)));
        }
        let mut content = zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(CHUNK_BYTES, file))?;
        io::copy(&mut (&mut content).take(range.start), &mut io::sink()).map_err(|error| read_error(error, digest))?;
        Ok(Box::new(content.take(length)))
    }

    fn length(&self, digest: Digest) -> Result<u64, BlobError> {
        let (mut file, form) = self.find(digest)?;
        if form == Form::Plain {
            return Ok(file.metadata()?.len());
        }
        let mut header = Vec::with_capacity(FRAME_HEADER_BYTES);
        (&mut file).take(FRAME_HEADER_BYTES as u64).read_to_end(&mut header)?;
        if let Ok(Some(length)) = zstd::zstd_safe::get_frame_content_size(&header) {
            return Ok(length);
        }
        // Written before the length stood in the header.
        file.seek(SeekFrom::Start(0))?;
        let mut content = zstd::stream::read::Decoder::new(file)?;
        io::copy(&mut content, &mut io::sink()).map_err(|error| read_error(error, digest))
    }

    fn renew(&self, digest: Digest) -> Result<bool, BlobError> {
        let renewal = self.renewal()?;
        renewal.lock_shared()?;
        match self.find(digest) {
            Ok((file, _)) => {
                // Not the file system's own now: its clock is late by a tick, and by many on a machine without time.
                file.set_modified(SystemTime::now())?;
                Ok(true)
            }
            Err(BlobError::Absent(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn delete_stale(&self, digest: Digest, since: Timestamp) -> Result<bool, BlobError> {
        let renewal = self.renewal()?;
        renewal.lock()?;
        for form in [Form::Plain, Form::Zstd] {
            match fs::metadata(self.path(digest, form)) {
                Ok(metadata) if timestamp(metadata.modified()?) >= since => return Ok(false),
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        self.delete(digest)?;
        Ok(true)
    }

    fn contains(&self, digest: Digest) -> Result<bool, BlobError> {
        Ok(self.path(digest, Form::Plain).try_exists()? || self.path(digest, Form::Zstd).try_exists()?)
    }

    fn delete(&self, digest: Digest) -> Result<(), BlobError> {
        for form in [Form::Plain, Form::Zstd] {
            match fs::remove_file(self.path(digest, form)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn page(&self, after: Option<Digest>, limit: usize) -> Result<Vec<StoredBlob>, BlobError> {
        let limit = limit.min(BLOBS_PAGE_MAX);
        let mut blobs = Vec::new();
        for first in after.map_or(0, |after| after.0[0])..=u8::MAX {
            let mut folder = self.stored_in(&self.root.join(format!("{first:02x}")))?;
            folder.retain(|blob| after.is_none_or(|after| blob.digest > after));
            folder.truncate(limit - blobs.len());
            blobs.extend(folder);
            if blobs.len() == limit {
                break;
            }
        }
        Ok(blobs)
    }

    fn materialize(&self, digest: Digest, path: &Path, mode: Mode) -> Result<(), BlobError> {
        let (source, form) = self.find(digest)?;
        let write = |mut target: &File| {
            if form == Form::Plain && self.verify == Verify::Never {
                if rustix::fs::ioctl_ficlone(target, &source).is_ok() {
                    return Ok(());
                }
                return io::copy(&mut &source, &mut target).map(drop);
            }
            copy(&mut self.reader(source.try_clone()?, form, digest)?, &mut target).map(drop)
        };
        replace_file(path, mode, write).map_err(|error| read_error(error, digest))
    }

    fn marked(&self) -> Result<Option<String>, BlobError> {
        let file = match File::open(self.root.join(MARK)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut text = String::new();
        file.take(MARK_BYTES_MAX).read_to_string(&mut text)?;
        Ok(mark_of(&text))
    }

    fn mark(&self, owner: &str) -> Result<(), BlobError> {
        let write = |mut file: &File| {
            writeln!(file, "{owner}")?;
            file.sync_data()
        };
        Ok(replace_file(&self.root.join(MARK), Mode::FILE, write)?)
    }
}

/// Whether zstd saves at least an eighth of these bytes, or of a beginning of them.
fn compression_of(bytes: &[u8]) -> io::Result<Form> {
    if bytes.len() < COMPRESSED_BYTES_MIN {
        return Ok(Form::Plain);
    }
    let sample = &bytes[..bytes.len().min(CHUNK_BYTES)];
    let compressed = zstd::bulk::compress(sample, LEVEL)?;
    Ok(if compressed.len() <= sample.len() / 8 * 7 { Form::Zstd } else { Form::Plain })
}

/// Copies to the end, hashing on the way. A file is read from its beginning.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<PutFile> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut content_bytes = 0;
    loop {
        let length = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&chunk[..length]);
        to.write_all(&chunk[..length])?;
        content_bytes += length as u64;
    }
    Ok(PutFile { digest: Digest(*hasher.finalize().as_bytes()), content_bytes })
}

/// Tells what cannot be decoded from what cannot be read.
struct Decoded(zstd::stream::read::Decoder<'static, BufReader<File>>);

impl Read for Decoded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            ErrorKind::Other => io::Error::new(ErrorKind::InvalidData, error),
            _ => error,
        })
    }
}

/// Hashes what is read and compares at the end.
struct Verified {
    content: Box<dyn Read + Send>,
    hasher: blake3::Hasher,
    digest: Digest,
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.content.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        if length == 0 && !buffer.is_empty() && *self.hasher.finalize().as_bytes() != self.digest.0 {
            return Err(io::Error::new(ErrorKind::InvalidData, "the content is not what its digest says"));
        }
        Ok(length)
    }
}

/// A file on its way into the store; removed unless it is kept.
struct Incoming {
    file: File,
    path: PathBuf,
}

impl Incoming {
    fn create(folder: &Path) -> io::Result<Self> {
        let mut last = io::Error::from(ErrorKind::AlreadyExists);
        for _ in 0..NAMES_TRIED_MAX {
            match create_new(&folder.join(fresh_name()), Mode(0o444)) {
                Ok(incoming) => {
                    // Whoever opens the store at this moment may take the lock, and the file with it; try another.
                    if incoming.file.try_lock().is_ok() && incoming.path.try_exists()? {
                        return Ok(incoming);
                    }
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    fn kept(mut self) {
        self.path.clear();
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn create_new(path: &Path, mode: Mode) -> io::Result<Incoming> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode.0).open(path)?;
    Ok(Incoming { file, path: path.to_owned() })
}

/// A name that no other file of this process has, nor one of another process that lives.
fn fresh_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!(".blob-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Writes a file beside the path and moves it there, so that it is never seen half written and no link is followed.
pub(super) fn replace_file(path: &Path, mode: Mode, write: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for _ in 0..NAMES_TRIED_MAX {
        let incoming = match create_new(&folder.join(fresh_name()), Mode(0o600)) {
            Ok(incoming) => incoming,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        };
        write(&incoming.file)?;
        incoming.file.set_permissions(fs::Permissions::from_mode(mode.0))?;
        fs::rename(&incoming.path, path)?;
        incoming.kept();
        return Ok(());
    }
    Err(io::Error::from(ErrorKind::AlreadyExists))
}
