//! The parts of an overlay's layers: copies, whiteouts, opaque directories, and taking a whole tree away.
//!
//! A whiteout is a character device 0:0, which every user may make since Linux 5.8; an opaque directory has an attribute
//! whose name depends on who mounts. Source: kernel.org, filesystems/overlayfs, "whiteouts and opaque directories".

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, SeekFrom, Timespec, Timestamps, XattrFlags};

use crate::keeper::Right;

/// How deep a tree may be that we copy or take away: one beyond what a path of the longest length can name.
const DEPTH_MAX: usize = 2_048;

/// Directories of a layer that were made already, so that each is made once. One that its mode would not let us fill is open until [`Made::end`].
#[derive(Debug, Default)]
pub struct Made {
    directories: HashSet<PathBuf>,
    /// Those that are still to be given what they have in the model, the outer ones first.
    open: Vec<(PathBuf, Metadata)>,
}

impl Made {
    /// A layer, made with the mode, owner and times of `model`.
    pub fn layer(layer: &Path, model: &Path) -> io::Result<Self> {
        let mut made = Self::default();
        made.directory(layer, model)?;
        Ok(made)
    }

    /// Gives the directories their own modes, once nothing more is put into them.
    pub fn end(self) -> io::Result<()> {
        self.open.iter().rev().try_for_each(|(directory, like)| assume(directory, like))
    }

    fn directory(&mut self, directory: &Path, model: &Path) -> io::Result<()> {
        make_like(directory, model)?;
        if let Some(like) = open_for_filling(directory)? {
            self.open.push((directory.to_owned(), like));
        }
        Ok(())
    }
}

/// Lets its owner fill a directory that its mode would not let him; what it was then.
fn open_for_filling(directory: &Path) -> io::Result<Option<Metadata>> {
    let there = fs::symlink_metadata(directory)?;
    if !there.is_dir() || there.mode() & OWNERS == OWNERS {
        return Ok(None);
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(there.mode() & 0o7777 | OWNERS))?;
    Ok(Some(there))
}

/// What a directory's mode lets its owner do if he may do everything.
const OWNERS: u32 = 0o700;

/// Makes the directories that lead to `relative` in `layer`, each with the mode and owner that it has in `model` once `made` has ended.
pub fn make_parents(layer: &Path, model: &Path, relative: &Path, made: &mut Made) -> io::Result<()> {
    let Some(parent) = relative.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    if made.directories.contains(parent) {
        return Ok(());
    }
    make_parents(layer, model, parent, made)?;
    made.directory(&layer.join(parent), &model.join(parent))?;
    made.directories.insert(parent.to_owned());
    Ok(())
}

/// Makes a directory with mode, owner and times of another; as usual if the other is none.
pub fn make_like(directory: &Path, model: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other?,
    }
    if let Ok(metadata) = fs::symlink_metadata(model)
        && metadata.is_dir()
    {
        assume(directory, &metadata)?;
    }
    Ok(())
}

/// Gives a file or directory the mode, times and, for an administrator, the owner of another.
pub fn assume(path: &Path, like: &Metadata) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        given(std::os::unix::fs::lchown(path, Some(like.uid()), Some(like.gid())))?;
    }
    if !like.is_symlink() {
        fs::set_permissions(path, fs::Permissions::from_mode(like.mode() & 0o7777))?;
    }
    rustix::fs::utimensat(CWD, path, &times_of(like), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// An administrator of a namespace, or without `CAP_CHOWN`, may not give a file to just anybody: then it stays his.
fn given(chown: io::Result<()>) -> io::Result<()> {
    let is_refused =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied);
    match chown {
        Err(error) if is_refused(&error) => Ok(()),
        other => other,
    }
}

fn times_of(metadata: &Metadata) -> Timestamps {
    let time = |tv_sec, tv_nsec: i64| Timespec { tv_sec, tv_nsec };
    Timestamps {
        last_access: time(metadata.atime(), metadata.atime_nsec()),
        last_modification: time(metadata.mtime(), metadata.mtime_nsec()),
    }
}

/// Hides `relative` in the layers below `layer`.
pub fn white_out(layer: &Path, model: &Path, relative: &Path, made: &mut Made) -> io::Result<()> {
    use rustix::io::Errno;
    make_parents(layer, model, relative, made)?;
    let make = |kind| rustix::fs::mknodat(CWD, layer.join(relative), kind, Mode::empty(), 0);
    // An overlay, such as the root of most containers, takes no whiteout. The system mounts no layers that lie there either:
    // then only copies are made of them, for which a sign of our own will do.
    let hidden = make(FileType::CharacterDevice).or_else(|error| match error {
        Errno::PERM => make(FileType::Socket),
        error => Err(error),
    });
    match hidden {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether it is a whiteout: the kernel's, or a socket that nobody may open, our own.
pub fn is_whiteout(metadata: &Metadata) -> bool {
    let kind = metadata.file_type();
    kind.is_char_device() && metadata.rdev() == 0 || kind.is_socket() && metadata.mode() & 0o7777 == 0
}

/// Whether a directory of a layer hides what the layers below have in it, whoever made it so.
pub fn is_opaque(directory: &Path) -> bool {
    let mut value = [0; 2];
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| rustix::fs::lgetxattr(directory, *name, &mut value) == Ok(1) && value[0] == b'y')
}

/// Whether a directory of a layer was one of another name in the layers below, or may have been: the system does not tell.
pub fn is_moved(directory: &Path) -> bool {
    let mut value = [0; 0];
    ["trusted.overlay.redirect", "user.overlay.redirect"].iter().any(|name| {
        use rustix::io::Errno;
        !matches!(rustix::fs::lgetxattr(directory, *name, &mut value), Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM))
    })
}

/// Makes a directory of a layer hide what the layers below have in it.
pub fn make_opaque(directory: &Path) -> io::Result<()> {
    let name = Right::of_this_process().opaque_attribute();
    rustix::fs::setxattr(directory, name, b"y", XattrFlags::empty())?;
    Ok(())
}

/// Copies `relative` from one tree into another with the directories that lead to it. Whole directories too. What is
/// neither file, directory nor link is left out; so is a file that has gone meanwhile.
pub fn copy_into(from: &Path, to: &Path, relative: &Path, made: &mut Made) -> io::Result<()> {
    make_parents(to, from, relative, made)?;
    copy_tree(&from.join(relative), &to.join(relative), Whiteouts::Leave, &|_| false)
}

/// What becomes of a whiteout in a tree that is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// It is left out.
    Leave,
    /// What it hides is taken away.
    Apply,
}

/// Copies a file, link or directory with all that is in it, by reflink where the file system can. `is_skipped` is asked with
/// the source's path.
pub fn copy_tree(from: &Path, to: &Path, whiteouts: Whiteouts, is_skipped: &dyn Fn(&Path) -> bool) -> io::Result<()> {
    copy_tree_at(from, to, whiteouts, is_skipped, 0)
}

fn copy_tree_at(
    from: &Path,
    to: &Path,
    whiteouts: Whiteouts,
    is_skipped: &dyn Fn(&Path) -> bool,
    depth: usize,
) -> io::Result<()> {
    if is_skipped(from) {
        return Ok(());
    }
    let Some(metadata) = if_there(fs::symlink_metadata(from))? else { return Ok(()) };
    if is_whiteout(&metadata) {
        return match whiteouts {
            Whiteouts::Leave => Ok(()),
            Whiteouts::Apply => remove_tree(to),
        };
    }
    if metadata.is_dir() {
        if depth >= DEPTH_MAX {
            return Err(io::Error::other(format!("directories are nested deeper than {DEPTH_MAX}")));
        }
        let is_new = fs::symlink_metadata(to).map_or(true, |there| !there.is_dir());
        if is_new {
            remove_tree(to)?;
            fs::create_dir(to)?;
        } else {
            open_for_filling(to)?;
        }
        for entry in if_there(fs::read_dir(from))?.into_iter().flatten() {
            let name = entry?.file_name();
            copy_tree_at(&from.join(&name), &to.join(&name), whiteouts, is_skipped, depth + 1)?;
        }
        // Last, because a directory that may not be written could not be filled, and filling changes its times.
        return assume(to, &metadata);
    }
    if metadata.is_symlink() {
        let Some(target) = if_there(fs::read_link(from))? else { return Ok(()) };
        let _ = fs::remove_file(to);
        symlink(target, to)?;
        return assume(to, &metadata);
    }
    if metadata.is_file() { copy_file(from, to, &metadata) } else { Ok(()) }
}

/// `None` for what has gone meanwhile, or the directory above it.
fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        other => other.map(Some),
    }
}

/// The first file or directory at or below a path that cannot be read, and why.
pub fn unreadable(path: &Path) -> Option<(PathBuf, io::Error)> {
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let found = if metadata.is_dir() {
            let entries = fs::read_dir(&path);
            entries.map(|entries| waiting.extend(entries.flatten().map(|entry| entry.path())))
        } else if metadata.is_file() {
            File::open(&path).map(drop)
        } else {
            Ok(())
        };
        if let Err(error) = found
            && error.kind() != io::ErrorKind::NotFound
        {
            return Some((path, error));
        }
    }
    None
}

/// Copies a file's bytes, mode and times; shares the bytes where the file system can.
fn copy_file(from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
    let Some(mut source) = if_there(File::open(from))? else { return Ok(()) };
    let _ = fs::remove_file(to);
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
        copy_bytes(&mut source, &mut target, metadata)?;
    }
    drop(target);
    assume(to, metadata)
}

/// Copies the bytes of a file into an empty one. Where it has holes, which take no room on the disk, so does the copy.
fn copy_bytes(source: &mut File, target: &mut File, metadata: &Metadata) -> io::Result<()> {
    // Source: stat(2): blocks of 512 bytes, whatever the file system's own.
    if metadata.blocks().saturating_mul(512) >= metadata.len() {
        return io::copy(source, target).map(drop);
    }
    let mut place = 0;
    loop {
        let (begin, end) = match rustix::fs::seek(&*source, SeekFrom::Data(place)) {
            // No more data.
            Err(rustix::io::Errno::NXIO) => break,
            // A file system that does not tell.
            Err(_) => (place, u64::MAX),
            Ok(begin) => (begin, rustix::fs::seek(&*source, SeekFrom::Hole(begin)).unwrap_or(u64::MAX)),
        };
        source.seek(io::SeekFrom::Start(begin))?;
        target.seek(io::SeekFrom::Start(begin))?;
        let copied = io::copy(&mut Read::take(&*source, end.saturating_sub(begin)), target)?;
        if copied == 0 {
            // The end, or what is the end by now.
            break;
        }
        place = begin + copied;
    }
    target.set_len(source.metadata()?.len().max(place))
}

/// How many bytes a file holds, or all the files in a directory; what cannot be read counts nothing.
pub fn length(path: &Path) -> u64 {
    let mut bytes = 0;
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            waiting.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else {
            bytes += metadata.len();
        }
    }
    bytes
}

/// Whether what is below a layer does not show at a path, since the layer has something there, or hides it.
pub fn covers(layer: &Path, path: &Path) -> bool {
    let mut place = layer.to_owned();
    for name in path {
        place.push(name);
        let Ok(there) = fs::symlink_metadata(&place) else { return false };
        if !there.is_dir() || is_opaque(&place) {
            return true;
        }
    }
    // Of two directories both show.
    false
}

/// Whether a file system shares the bytes of copies; found out by trying.
#[derive(Debug, Default)]
pub struct Sharing(AtomicBool);

/// How long a file may be that is copied through memory: asking for anything cleverer costs more.
const MEMORY_BYTES_MAX: u64 = 256 << 10;

/// Copies a file to where nothing is, with attributes, mode, times and owner: by as few calls of the system as there can be, for layers of
/// many small files.
pub fn copy_new_file(from: &Path, to: &Path, metadata: &Metadata, sharing: &Sharing) -> io::Result<()> {
    let mut source = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(from)?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let Sharing(is_refused) = sharing;
    let is_shared = metadata.len() > 0
        && !is_refused.load(Ordering::Relaxed)
        && match rustix::fs::ioctl_ficlone(&target, &source) {
            Ok(()) => true,
            Err(_) => {
                is_refused.store(true, Ordering::Relaxed);
                false
            }
        };
    if metadata.len() > MEMORY_BYTES_MAX && !is_shared {
        copy_bytes(&mut source, &mut target, metadata)?;
    } else if metadata.len() > 0 && !is_shared {
        // Its length is as good as certain: one byte more would show that it has grown.
        let mut bytes = vec![0; usize::try_from(metadata.len()).unwrap_or(0) + 1];
        let length = source.read(&mut bytes)?;
        target.write_all(&bytes[..length])?;
        if length as u64 != metadata.len() {
            io::copy(&mut source, &mut target)?;
        }
    }
    let names_bytes = match rustix::fs::flistxattr(&source, &mut [0_u8; 0]) {
        Err(rustix::io::Errno::NOTSUP) => 0,
        other => other?,
    };
    if names_bytes > 0 {
        copy_attributes(from, to)?;
    }
    let is_own =
        metadata.uid() == rustix::process::geteuid().as_raw() && metadata.gid() == rustix::process::getegid().as_raw();
    if !is_own && rustix::process::geteuid().is_root() {
        given(std::os::unix::fs::fchown(&target, Some(metadata.uid()), Some(metadata.gid())))?;
    }
    target.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    Ok(rustix::fs::futimens(&target, &times_of(metadata))?)
}

/// Copies one entry of a layer as it stands: a file with its bytes, a link, a whiteout, a pipe, or an empty directory with what the
/// overlay knows of it, to be given its mode and times by [`assume`] once it is filled. A device that we may not make is left out.
pub fn copy_entry(from: &Path, to: &Path, metadata: &Metadata, sharing: &Sharing) -> io::Result<()> {
    if metadata.is_dir() {
        fs::create_dir(to)?;
        return copy_attributes(from, to);
    }
    if metadata.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
        return assume(to, metadata);
    }
    if metadata.is_file() {
        return copy_new_file(from, to, metadata, sharing);
    }
    let kind = FileType::from_raw_mode(metadata.mode());
    match rustix::fs::mknodat(CWD, to, kind, Mode::from_raw_mode(metadata.mode()), metadata.rdev()) {
        Err(rustix::io::Errno::PERM) => Ok(()),
        other => Ok(other?),
    }
}

/// The most bytes of the names of a file's attributes, and of the value of one. Source: Linux, `XATTR_LIST_MAX`, `XATTR_SIZE_MAX`.
const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;

/// What the overlay notes about an upper entry's origin. It is of no use in a copy, and would be wrong in one.
const ORIGIN_ATTRIBUTES: [&str; 5] = ["origin", "impure", "nlink", "upper", "uuid"];

/// Copies the attributes that the system lets us read and write: the overlay's (opaque, redirect), those of users, access lists.
fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = [0_u8; 256];
    let mut large = Vec::new();
    let names = match rustix::fs::llistxattr(from, &mut names) {
        Ok(length) => &names[..length],
        Err(rustix::io::Errno::RANGE) => {
            large.resize(ATTRIBUTE_BYTES_MAX, 0);
            let length = rustix::fs::llistxattr(from, &mut large)?;
            &large[..length]
        }
        // The file system has none.
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let text = String::from_utf8_lossy(name);
        let of_overlay = text.strip_prefix("trusted.overlay.").or_else(|| text.strip_prefix("user.overlay."));
        if of_overlay.is_some_and(|name| ORIGIN_ATTRIBUTES.contains(&name)) || text.starts_with("security.selinux") {
            continue;
        }
        let mut value = vec![0_u8; ATTRIBUTE_BYTES_MAX];
        let Ok(length) = rustix::fs::lgetxattr(from, name, &mut value) else { continue };
        match rustix::fs::lsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Err(error) if of_overlay.is_some() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Takes a tree away, whatever the modes of its directories; links are not followed. Nothing happens if it is not there.
///
/// # Errors
/// What could not be taken away, after everything else was.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !metadata.is_dir() {
        return fs::remove_file(path);
    }
    if fs::remove_dir_all(path).is_ok() {
        return Ok(());
    }
    open_up(path, 0);
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // It stopped at the first that cannot be taken away.
        Err(_) => remove_rest(path, 0),
        Ok(()) => Ok(()),
    }
}

/// Takes away what can be; the error is of the last that could not.
fn remove_rest(directory: &Path, depth: usize) -> io::Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        let _ = match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < DEPTH_MAX => remove_rest(&entry.path(), depth + 1),
            _ => fs::remove_file(entry.path()),
        };
    }
    fs::remove_dir(directory)
}

/// Makes every directory of a tree one that its owner may empty.
fn open_up(directory: &Path, depth: usize) {
    let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if depth < DEPTH_MAX && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // An empty one goes whosever it is: root's, where an engine mounted the layers for a user.
            if fs::remove_dir(entry.path()).is_err() {
                open_up(&entry.path(), depth + 1);
            }
        }
    }
}

/// The paths in a layer that stand for something: files, links, whiteouts, and directories without entries. Relative.
pub fn entries(layer: &Path) -> io::Result<HashSet<PathBuf>> {
    entries_beside(layer, &|_| false)
}

/// As [`entries`], of any tree, but for what `is_skipped` says of names at any depth.
pub fn entries_beside(layer: &Path, is_skipped: &dyn Fn(&OsStr) -> bool) -> io::Result<HashSet<PathBuf>> {
    let mut found = HashSet::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(layer.join(&directory))? {
            let entry = entry?;
            let relative = directory.join(entry.file_name());
            if is_skipped(&entry.file_name()) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                waiting.push(relative);
            } else {
                found.insert(relative);
            }
        }
    }
    Ok(found)
}
