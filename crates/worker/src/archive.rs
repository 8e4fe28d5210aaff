//! Archives of files: plain tar, written so that equal files give equal bytes, read as if an enemy had written them.
//!
//! Storage compresses what it keeps, so an archive's digest does not depend on a compressor's version. Reading goes
//! down from the root one directory at a time without following links, so neither an entry's name nor what stands in
//! the workspace already can lead out of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use graph::Digest;
use rustix::fs::{AtFlags, Mode, OFlags};
use tempfile::NamedTempFile;

use crate::depot::{Depot, DepotError};
use crate::files::Found;

/// Archives up to this size are made in memory, larger ones in a file.
const MEMORY_BYTES_MAX: usize = 4 << 20;

/// The longest name of a file or directory, and the longest path. Source: Linux, `NAME_MAX`, `PATH_MAX`.
const COMPONENT_BYTES_MAX: usize = 255;
const PATH_BYTES_MAX: usize = 4095;

/// Bounds of one archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Files, links and directories.
    pub files_max: u64,
    /// Bytes of all files together.
    pub bytes_max: u64,
}

/// What becomes of times of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// They are not kept, so that equal files give equal archives.
    Dropped,
    /// They are kept to the second, for tools that go by them.
    Kept,
}

/// Whether links may lead out of the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// An absolute link, or one that leads out of the root, is refused.
    Inside,
    /// Any link is kept as it is, and never followed.
    Any,
}

/// What becomes of files that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// They are replaced.
    Replaced,
    /// They stay.
    Kept,
}

/// What an archive holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Files and links.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// Why an archive was not made or not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveFault {
    /// A link leads out of the workspace.
    #[error("the link `{}` leads out of the workspace (to `{}`)", path.display(), target.display())]
    LinkOutside {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// An entry's name leads out of the root.
    #[error("the archive is hostile: it names `{}`", path.display())]
    NameOutside {
        /// The name.
        path: PathBuf,
    },
    /// An entry's name is longer than any system takes.
    #[error("the archive is hostile: it holds a name of {0} bytes")]
    NameTooLong(usize),
    /// The way to an entry leads over a link or file.
    #[error("`{}` cannot be restored: `{}` is in the way and is no directory", path.display(), obstacle.display())]
    InTheWay {
        /// The entry.
        path: PathBuf,
        /// What is in the way.
        obstacle: PathBuf,
    },
    /// An entry is a device, a hard link or something else that is never archived.
    #[error("the archive is hostile: `{}` is neither file, link nor directory", path.display())]
    Kind {
        /// The entry.
        path: PathBuf,
    },
    /// There are more files than the bound allows.
    #[error("more than {0} files")]
    TooMany(u64),
    /// The files are larger than the bound allows.
    #[error("more than {0} bytes")]
    TooLarge(u64),
    /// The bytes are no archive.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    /// A file changed while it was archived.
    #[error("`{}` changed while it was archived", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// No room on the disk.
    #[error("no space is left on the disk of {}", path.display())]
    Full {
        /// What was written.
        path: PathBuf,
    },
    /// Anything else the system refused.
    #[error("{}: {source}", path.display())]
    Refused {
        /// What was read or written.
        path: PathBuf,
        /// Its words.
        source: io::Error,
    },
    /// The depot refused.
    #[error(transparent)]
    Depot(#[from] DepotError),
}

impl ArchiveFault {
    /// Whether what was kept is damaged or gone, so that it is of no use to anybody.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Depot(DepotError::Absent(_) | DepotError::Damaged(_)))
    }
}

pub(crate) fn refused(path: &Path) -> impl Fn(io::Error) -> ArchiveFault + '_ {
    |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ArchiveFault::Full { path: path.to_owned() },
        _ => ArchiveFault::Refused { path: path.to_owned(), source },
    }
}

/// An archive being made: first in memory, then in a file of the scratch directory.
pub struct ArchiveWriter {
    tar: tar::Builder<Spool>,
    times: Times,
    links: Links,
    bounds: Bounds,
    extent: Extent,
}

#[derive(Debug)]
struct Spool {
    scratch: PathBuf,
    memory: Vec<u8>,
    file: Option<NamedTempFile>,
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.file.is_none() && self.memory.len() + bytes.len() > MEMORY_BYTES_MAX {
            let mut file = NamedTempFile::new_in(&self.scratch)?;
            file.write_all(&self.memory)?;
            self.memory = Vec::new();
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write(bytes),
            None => self.memory.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ArchiveWriter {
    /// An empty archive. What does not fit into memory goes to a file in `scratch`.
    #[must_use]
    pub fn new(scratch: &Path, times: Times, links: Links, bounds: Bounds) -> Self {
        let spool = Spool { scratch: scratch.to_owned(), memory: Vec::new(), file: None };
        Self { tar: tar::Builder::new(spool), times, links, bounds, extent: Extent::default() }
    }

    /// Adds a file, link or directory under `name`. Callers add in a fixed order. Sockets, pipes and devices are passed
    /// over: `Ok(false)`.
    ///
    /// # Errors
    /// [`ArchiveFault`].
    pub fn add(&mut self, name: &Path, found: &Found) -> Result<bool, ArchiveFault> {
        let kind = found.metadata.file_type();
        if kind.is_socket() || kind.is_fifo() || kind.is_char_device() || kind.is_block_device() {
            return Ok(false);
        }
        if self.extent.files == self.bounds.files_max {
            return Err(ArchiveFault::TooMany(self.bounds.files_max));
        }
        let mut header = tar::Header::new_gnu();
        header.set_mtime(match self.times {
            Times::Dropped => 0,
            Times::Kept => u64::try_from(found.metadata.mtime()).unwrap_or(0),
        });
        self.extent.files += 1;
        if kind.is_symlink() {
            self.add_link(name, found, &mut header)?;
        } else if kind.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(found.metadata.mode() & 0o777);
            header.set_size(0);
            let mut name = name.as_os_str().to_owned();
            name.push("/");
            let scratch = self.tar.get_ref().scratch.clone();
            self.tar.append_data(&mut header, name, io::empty()).map_err(refused(&scratch))?;
        } else {
            self.add_file(name, found, &mut header)?;
        }
        Ok(true)
    }

    fn add_link(&mut self, name: &Path, found: &Found, header: &mut tar::Header) -> Result<(), ArchiveFault> {
        let target = std::fs::read_link(&found.place).map_err(refused(&found.place))?;
        if self.links == Links::Inside && !stays_inside(&found.path, &target) {
            return Err(ArchiveFault::LinkOutside { path: found.path.clone(), target });
        }
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        let scratch = self.tar.get_ref().scratch.clone();
        self.tar.append_link(header, name, target).map_err(refused(&scratch))
    }

    fn add_file(&mut self, name: &Path, found: &Found, header: &mut tar::Header) -> Result<(), ArchiveFault> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(&found.place).map_err(refused(&found.place))?;
        let metadata = file.metadata().map_err(refused(&found.place))?;
        if !metadata.is_file() {
            return Err(ArchiveFault::Changed { path: found.path.clone() });
        }
        self.extent.bytes = self.extent.bytes.saturating_add(metadata.len());
        if self.extent.bytes > self.bounds.bytes_max {
            return Err(ArchiveFault::TooLarge(self.bounds.bytes_max));
        }
        header.set_mode(metadata.mode() & 0o777);
        header.set_size(metadata.len());
        let mut content = Exactly { inner: file.take(metadata.len()), left: metadata.len() };
        let scratch = self.tar.get_ref().scratch.clone();
        self.tar.append_data(header, name, &mut content).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveFault::Changed { path: found.path.clone() },
            _ => refused(&scratch)(error),
        })
    }

    /// Hands the archive to the depot: its digest, its length, and what is in it.
    ///
    /// # Errors
    /// [`ArchiveFault`].
    pub fn put(self, depot: &dyn Depot) -> Result<(Digest, u64, Extent), ArchiveFault> {
        let scratch = self.tar.get_ref().scratch.clone();
        let spool = self.tar.into_inner().map_err(refused(&scratch))?;
        match spool.file {
            None => Ok((depot.put(&spool.memory)?, spool.memory.len() as u64, self.extent)),
            Some(file) => {
                let length = file.as_file().metadata().map_err(refused(file.path()))?.len();
                Ok((depot.put_file(file.path())?, length, self.extent))
            }
        }
    }
}

/// Gives as many bytes as were announced, or an error.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        if length == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= length as u64;
        Ok(length)
    }
}

/// Whether a link at `path` with this target stays below the root, by its text alone. A `..` behind a name is refused: the name may be a link,
/// and what is above where that leads may be outside.
fn stays_inside(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    let mut goes_down = false;
    for component in target.components() {
        match component {
            Component::Normal(_) => goes_down = true,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 && !goes_down => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

/// Refuses a name that leads out of the root, or that no system takes.
fn check_name(name: &Path) -> Result<(), ArchiveFault> {
    let bytes = name.as_os_str().as_bytes();
    let is_inside = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    if !name.components().all(is_inside) || bytes.contains(&0) {
        return Err(ArchiveFault::NameOutside { path: name.to_owned() });
    }
    let longest = name.components().map(|component| component.as_os_str().len()).max().unwrap_or(0);
    if longest > COMPONENT_BYTES_MAX || bytes.len() > PATH_BYTES_MAX {
        return Err(ArchiveFault::NameTooLong(bytes.len()));
    }
    Ok(())
}

/// Hands an archive on, and ends it where a header asks for more memory than a name needs, or says that an entry is longer than it looks. Our
/// own archives have no such headers.
struct Guarded<R> {
    inner: R,
    header: [u8; BLOCK_BYTES],
    /// The next byte of the header that is to be handed on.
    at: usize,
    /// What is left of the entry's content, with what fills its last block.
    left: u64,
}

/// The unit of an archive. Source: POSIX, `pax`, "ustar Interchange Format".
const BLOCK_BYTES: usize = 512;

/// The longest content of an entry that is a name of the next one.
const NAME_ENTRY_BYTES_MAX: u64 = 16 << 10;

impl<R: Read> Guarded<R> {
    fn new(inner: R) -> Self {
        Self { inner, header: [0; BLOCK_BYTES], at: BLOCK_BYTES, left: 0 }
    }

    /// Reads the next header; whether there is one.
    fn next_header(&mut self) -> io::Result<bool> {
        let read = self.inner.by_ref().take(BLOCK_BYTES as u64).read(&mut self.header)?;
        if read == 0 {
            return Ok(false);
        }
        self.inner.read_exact(&mut self.header[read..])?;
        self.at = 0;
        if self.header.iter().all(|byte| *byte == 0) {
            return Ok(true);
        }
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text);
        let header = tar::Header::from_byte_slice(&self.header);
        let (kind, size) = (header.entry_type(), header.entry_size()?);
        if kind.is_pax_local_extensions() || kind.is_pax_global_extensions() || kind.is_gnu_sparse() {
            return Err(invalid("it holds an entry of a kind that is never written"));
        }
        if (kind.is_gnu_longname() || kind.is_gnu_longlink()) && size > NAME_ENTRY_BYTES_MAX {
            return Err(invalid("it holds a name that is too long"));
        }
        let filled = size.checked_next_multiple_of(BLOCK_BYTES as u64);
        self.left = filled.ok_or_else(|| invalid("it holds an entry that is too long"))?;
        Ok(true)
    }
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || (self.at == BLOCK_BYTES && self.left == 0 && !self.next_header()?) {
            return Ok(0);
        }
        if self.at < BLOCK_BYTES {
            let length = buffer.len().min(BLOCK_BYTES - self.at);
            buffer[..length].copy_from_slice(&self.header[self.at..self.at + length]);
            self.at += length;
            return Ok(length);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.inner.read(&mut buffer[..most])?;
        self.left -= length as u64;
        Ok(length)
    }
}

/// How an archive is unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacking {
    /// Bounds; reading stops there.
    pub bounds: Bounds,
    /// Times of files.
    pub times: Times,
    /// Links.
    pub links: Links,
    /// Files that are there.
    pub existing: Existing,
}

/// Unpacks an archive. `place_of` says for an entry's name the root it goes to and its path below that root; `None`
/// passes it over, though it counts. Roots exist. On a fault, what came before it stays.
///
/// # Errors
/// [`ArchiveFault`].
pub fn unpack<'r>(
    archive: impl Read,
    unpacking: Unpacking,
    place_of: &dyn Fn(&Path) -> Option<(&'r Path, PathBuf)>,
) -> Result<Extent, ArchiveFault> {
    let damaged = |error: io::Error| ArchiveFault::Damaged(error.to_string());
    let mut archive = tar::Archive::new(Guarded::new(archive));
    let mut extent = Extent::default();
    let mut folder = Folder::default();
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = entry.path().map_err(damaged)?.into_owned();
        check_name(&name)?;
        extent.files += 1;
        if extent.files > unpacking.bounds.files_max {
            return Err(ArchiveFault::TooMany(unpacking.bounds.files_max));
        }
        if entry.header().entry_type().is_file() {
            extent.bytes = extent.bytes.saturating_add(entry.size());
            if extent.bytes > unpacking.bounds.bytes_max {
                return Err(ArchiveFault::TooLarge(unpacking.bounds.bytes_max));
            }
        }
        let Some((root, path)) = place_of(&name) else { continue };
        place(&mut entry, root, &path, unpacking, &mut folder)?;
    }
    Ok(extent)
}

/// The directory that was entered last: entries of one directory follow one another.
#[derive(Default)]
pub(crate) struct Folder {
    root: PathBuf,
    path: PathBuf,
    descriptor: Option<OwnedFd>,
}

fn place<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    root: &Path,
    path: &Path,
    unpacking: Unpacking,
    folder: &mut Folder,
) -> Result<(), ArchiveFault> {
    let full = root.join(path);
    let kind = entry.header().entry_type();
    if kind.is_dir() {
        folder.enter(root, path)?;
        return Ok(());
    }
    let Some(name) = path.file_name() else { return Err(ArchiveFault::NameOutside { path: path.to_owned() }) };
    if !kind.is_file() && !kind.is_symlink() {
        return Err(ArchiveFault::Kind { path: path.to_owned() });
    }
    let directory = folder.enter(root, path.parent().unwrap_or(Path::new("")))?;
    let there = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    if there && unpacking.existing == Existing::Kept {
        return Ok(());
    }
    if there {
        rustix::fs::unlinkat(directory, name, AtFlags::empty()).map_err(|error| match error {
            rustix::io::Errno::ISDIR => ArchiveFault::InTheWay { path: path.to_owned(), obstacle: path.to_owned() },
            error => refused(&full)(error.into()),
        })?;
    }
    if kind.is_symlink() {
        let target = entry.link_name().map_err(|error| ArchiveFault::Damaged(error.to_string()))?;
        let target = target.ok_or_else(|| ArchiveFault::Damaged("a link without target".to_owned()))?;
        if unpacking.links == Links::Inside && !stays_inside(path, &target) {
            return Err(ArchiveFault::LinkOutside { path: path.to_owned(), target: target.into_owned() });
        }
        return rustix::fs::symlinkat(target.as_os_str().as_bytes(), directory, name)
            .map_err(|error| refused(&full)(error.into()));
    }
    let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))
        .map_err(|error| refused(&full)(error.into()))?;
    let mut file = File::from(file);
    copy(entry, &mut file).map_err(|fault| match fault {
        CopyFault::Read(error) => ArchiveFault::Damaged(error.to_string()),
        CopyFault::Write(error) => refused(&full)(error),
    })?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(|error| refused(&full)(error.into()))?;
    if let (Times::Kept, Ok(seconds)) = (unpacking.times, entry.header().mtime()) {
        // A time that the file system cannot keep is no reason to fail.
        let _ = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).map(|time| file.set_modified(time));
    }
    Ok(())
}

enum CopyFault {
    Read(io::Error),
    Write(io::Error),
}

/// Says which side failed: a full disk is the machine's fault, a short archive is not.
fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<(), CopyFault> {
    let mut buffer = [0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&buffer[..length]).map_err(CopyFault::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyFault::Read(error)),
        }
    }
}

impl Folder {
    /// Opens a directory below the root, making what is missing, without following any link.
    pub(crate) fn enter(&mut self, root: &Path, path: &Path) -> Result<&OwnedFd, ArchiveFault> {
        if self.descriptor.is_none() || self.root != root || self.path != path {
            self.descriptor = Some(enter(root, path)?);
            self.root = root.to_owned();
            self.path = path.to_owned();
        }
        // Set just above if it was not before.
        self.descriptor.as_ref().ok_or_else(|| ArchiveFault::NameOutside { path: path.to_owned() })
    }
}

fn enter(root: &Path, path: &Path) -> Result<OwnedFd, ArchiveFault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = rustix::fs::open(root, flags, Mode::empty()).map_err(|error| refused(root)(error.into()))?;
    let mut so_far = PathBuf::new();
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        so_far.push(name);
        match rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(refused(&root.join(&so_far))(error.into())),
        }
        directory = match rustix::fs::openat(&directory, name, flags | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(directory) => directory,
            Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                return Err(ArchiveFault::InTheWay { path: path.to_owned(), obstacle: so_far });
            }
            Err(error) => return Err(refused(&root.join(&so_far))(error.into())),
        };
    }
    Ok(directory)
}
