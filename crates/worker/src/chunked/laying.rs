//! Laying a tree: its files are put into directories, going down from a root without following links.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use graph::Digest;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use super::Base;
use super::index::{Entry, INDEX_BYTES_MAX, Index, Kind, MAGIC};
use super::pack::PackReader;
use crate::archive::{ArchiveFault, Bounds, Existing, Folder, refused};
use crate::depot::Depot;
use crate::keeper::Right;

/// How many threads lay files, at most; more only wait for each other at the disk.
const THREADS_MAX: usize = 4;

/// Fewer files than this are laid by one thread.
const FILES_OF_A_THREAD_MIN: usize = 500;

/// What a blob turned out to be.
pub enum Loaded {
    /// An index.
    Index(Index),
    /// Something else, from its beginning.
    Other(Box<dyn Read + Send>),
}

/// Reads an index, if the blob is one.
///
/// # Errors
/// [`ArchiveFault::Damaged`] if it begins as one and is none; what the depot refuses.
pub fn load(digest: Digest, depot: &dyn Depot) -> Result<Loaded, ArchiveFault> {
    let mut content = depot.open(digest)?;
    let damaged = |error: std::io::Error| {
        depot.doubt(digest);
        ArchiveFault::Damaged(error.to_string())
    };
    let mut bytes = Vec::new();
    (&mut content).take(MAGIC.len() as u64).read_to_end(&mut bytes).map_err(damaged)?;
    if bytes != MAGIC {
        return Ok(Loaded::Other(Box::new(std::io::Cursor::new(bytes).chain(content))));
    }
    content.take(INDEX_BYTES_MAX).read_to_end(&mut bytes).map_err(damaged)?;
    if *blake3::hash(&bytes).as_bytes() != digest.0 {
        depot.doubt(digest);
        return Err(ArchiveFault::Damaged(format!("the index {digest}")));
    }
    Index::decode(&bytes).map(Loaded::Index).map_err(|fault| ArchiveFault::Damaged(fault.to_string()))
}

/// How a tree is laid.
#[derive(Clone, Copy, Debug)]
pub struct Laying<'l> {
    /// Bounds; a larger tree is refused before anything of it is laid.
    pub bounds: Bounds,
    /// Files that are there.
    pub existing: Existing,
    /// What is known of the files that are there: those that are as they shall be stay untouched.
    pub base: Option<&'l Base>,
    /// A tree that nobody changes, laid below this root at the same paths: its files are hard-linked where they are the same.
    pub twin: Option<(&'l Path, &'l Index)>,
    /// What the index is of.
    pub content: Content,
    /// Files that are the same, with modes and times.
    pub equal: Equal,
}

/// What becomes of files that are the same, with modes and times, as hard links that were kept are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Equal {
    /// Each is a file of its own.
    Apart,
    /// They are one file of several names, where nobody will write into it.
    Linked,
}

/// What an index is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Files of people: whiteouts and opaque directories are refused, directories get their modes, but for those that were there and stay.
    Files,
    /// What changed of files of people, laid over those: whiteouts are made, too, and so are the directories that lead to what changed.
    Change,
    /// Layers of overlays: these are made, and directories get their modes and times.
    Layers,
}

/// What was laid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Laid {
    /// Files and links that were written or linked.
    pub files: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// Names of files that were there, stayed, and were not compared.
    pub kept: HashSet<PathBuf>,
}

impl Laid {
    fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.kept.extend(other.kept);
    }
}

/// Lays the files of an index. `place_of` says for a name the root it goes to and its path below that root; `None` passes it over. Roots
/// exist. On a fault, what came before it stays.
///
/// # Errors
/// [`ArchiveFault`].
pub fn lay<'r>(
    index: &Index,
    laying: Laying<'_>,
    depot: &dyn Depot,
    place_of: &(dyn Fn(&Path) -> Option<(&'r Path, PathBuf)> + Sync),
) -> Result<Laid, ArchiveFault> {
    lay_entries(index, index.entries.iter(), laying, depot, place_of)
}

/// As [`lay`], of these entries alone, whose chunks are the index's.
///
/// # Errors
/// As [`lay`].
pub fn lay_entries<'r, 'e>(
    index: &Index,
    entries: impl Iterator<Item = &'e Entry> + Clone,
    laying: Laying<'_>,
    depot: &dyn Depot,
    place_of: &(dyn Fn(&Path) -> Option<(&'r Path, PathBuf)> + Sync),
) -> Result<Laid, ArchiveFault> {
    if index.entries.len() as u64 > laying.bounds.files_max {
        return Err(ArchiveFault::TooMany(laying.bounds.files_max));
    }
    if index.bytes() > laying.bounds.bytes_max {
        return Err(ArchiveFault::TooLarge(laying.bounds.bytes_max));
    }
    let tree = Tree {
        index,
        laying,
        place_of,
        known: laying.base.map(|base| (base, base.places())),
        twins: laying.twin.map(|(path, twin)| Twins::new(path, twin)).transpose()?,
    };
    let directories: Vec<&Entry> = match laying.content {
        Content::Change => index.directories_above(entries.clone()),
        Content::Files | Content::Layers => entries.clone().filter(|entry| entry.kind.is_directory()).collect(),
    };
    let unfinished = tree.make_directories(&directories)?;
    let mut files: Vec<&Entry> = entries.filter(|entry| !entry.kind.is_directory()).collect();
    let again = match laying.equal {
        Equal::Apart => Vec::new(),
        Equal::Linked => {
            files.retain(|entry| place_of(&entry.path).is_some());
            take_again(index, &mut files)
        }
    };
    if tree.twins.is_none() {
        files.sort_by_key(|entry| index.first_place(entry));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let span = files.len().div_ceil(threads).max(FILES_OF_A_THREAD_MIN);
    let mut laid = Laid::default();
    std::thread::scope(|scope| {
        let spans: Vec<_> =
            files.chunks(span).map(|span| scope.spawn(|| tree.lay(span, PackReader::new(depot)))).collect();
        // All have ended before the first fault is told.
        let ended: Vec<_> = spans.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        for part in ended {
            laid.add(part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok::<_, ArchiveFault>(())
    })?;
    laid.add(tree.link_again(&again, depot)?);
    tree.finish_directories(&unfinished)?;
    Ok(laid)
}

/// Takes out those files that another one before them is the same as, each with that one. Empty files are not worth it.
fn take_again<'e>(index: &Index, files: &mut Vec<&'e Entry>) -> Vec<(&'e Entry, &'e Entry)> {
    let mut firsts: HashMap<(u16, i64, &[u32]), &Entry> = HashMap::new();
    let mut again = Vec::new();
    files.retain(|&entry| {
        let Kind::File { uses, bytes: 1.. } = &entry.kind else { return true };
        let uses = &index.uses[uses.start as usize..uses.end as usize];
        let first = *firsts.entry((entry.mode, entry.modified_ns, uses)).or_insert(entry);
        let is_first = std::ptr::eq(first, entry);
        if !is_first {
            again.push((entry, first));
        }
        is_first
    });
    again
}

impl Index {
    /// Those of these entries that are directories, and those that lead to any of them; in order, no duplicates.
    fn directories_above<'e>(&self, entries: impl Iterator<Item = &'e Entry>) -> Vec<&Entry> {
        let names: HashSet<&Path> = entries.flat_map(|entry| entry.path.ancestors()).collect();
        self.entries.iter().filter(|entry| entry.kind.is_directory() && names.contains(&*entry.path)).collect()
    }

    /// Where the first byte of a file lies.
    fn first_place(&self, entry: &Entry) -> (u32, u32) {
        match &entry.kind {
            Kind::File { uses, .. } => self.chunks_of(uses).next().map_or((0, 0), |chunk| (chunk.pack, chunk.offset)),
            _ => (0, 0),
        }
    }

    /// Whether two files hold the same bytes.
    pub(super) fn is_same_content(
        &self,
        uses: &std::ops::Range<u32>,
        other: &Index,
        others: &std::ops::Range<u32>,
    ) -> bool {
        uses.len() == others.len()
            && self.chunks_of(uses).zip(other.chunks_of(others)).all(|(one, two)| one.digest == two.digest)
    }
}

/// The files of a tree that may be linked.
struct Twins<'l> {
    root: File,
    index: &'l Index,
}

impl<'l> Twins<'l> {
    fn new(path: &Path, index: &'l Index) -> Result<Self, ArchiveFault> {
        let root = File::open(path).map_err(refused(path))?;
        Ok(Self { root, index })
    }

    /// Links the twin of an entry, if it has one. Whether it was linked.
    fn link(&self, index: &Index, entry: &Entry, place: &Place<'_>) -> bool {
        let is_same = self.index.entry(&entry.path).is_some_and(|twin| {
            twin.mode == entry.mode
                && twin.modified_ns == entry.modified_ns
                && match (&entry.kind, &twin.kind) {
                    (Kind::File { uses, .. }, Kind::File { uses: others, .. }) => {
                        index.is_same_content(uses, self.index, others)
                    }
                    _ => false,
                }
        });
        // A file system that refuses, a file with too many links: then it is written.
        is_same
            && self.is_as_it_was(entry, place.path)
            && rustix::fs::linkat(&self.root, place.path, place.directory, place.name, AtFlags::empty()).is_ok()
    }
}

impl Twins<'_> {
    /// Whether nobody has changed a twin after all.
    fn is_as_it_was(&self, entry: &Entry, path: &Path) -> bool {
        let Kind::File { bytes, .. } = entry.kind else { return false };
        rustix::fs::statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|found| {
            let modified = i128::from(found.st_mtime) * 1_000_000_000 + i128::from(found.st_mtime_nsec);
            i128::from(found.st_size) == i128::from(bytes) && modified == i128::from(entry.modified_ns)
        })
    }
}

struct Tree<'t, 'r> {
    index: &'t Index,
    laying: Laying<'t>,
    place_of: &'t (dyn Fn(&Path) -> Option<(&'r Path, PathBuf)> + Sync),
    known: Option<(&'t Base, HashMap<&'t Path, usize>)>,
    twins: Option<Twins<'t>>,
}

impl Tree<'_, '_> {
    fn lay(&self, entries: &[&Entry], mut packs: PackReader<'_>) -> Result<Laid, ArchiveFault> {
        let mut laid = Laid::default();
        let mut folder = Folder::default();
        for entry in entries {
            let Some((root, path)) = (self.place_of)(&entry.path) else { continue };
            let Some(name) = path.file_name() else { return Err(ArchiveFault::NameOutside { path }) };
            let directory = folder.enter(root, path.parent().unwrap_or(Path::new("")))?.as_fd();
            let place = Place { directory, name, full: &root.join(&path), path: &path };
            if self.twins.as_ref().is_some_and(|twins| twins.link(self.index, entry, &place)) {
                laid.files += 1;
                continue;
            }
            match self.clear(entry, &place)? {
                Cleared::Free => {}
                Cleared::Same => continue,
                Cleared::Kept => {
                    laid.kept.insert(entry.path.clone());
                    continue;
                }
            }
            laid.files += 1;
            laid.bytes += self.write(entry, &place, &mut packs)?;
        }
        Ok(laid)
    }

    /// Makes files second names of others that were laid; where that is refused, files of their own.
    fn link_again(&self, again: &[(&Entry, &Entry)], depot: &dyn Depot) -> Result<Laid, ArchiveFault> {
        let mut laid = Laid::default();
        let (mut folder, mut folder_of_first) = (Folder::default(), Folder::default());
        for (entry, first) in again {
            let (Some((root, path)), Some((root_of_first, first))) =
                ((self.place_of)(&entry.path), (self.place_of)(&first.path))
            else {
                continue;
            };
            let (Some(name), Some(name_of_first)) = (path.file_name(), first.file_name()) else {
                return Err(ArchiveFault::NameOutside { path });
            };
            let from = folder_of_first.enter(root_of_first, first.parent().unwrap_or(Path::new("")))?.as_fd();
            let to = folder.enter(root, path.parent().unwrap_or(Path::new("")))?.as_fd();
            match rustix::fs::linkat(from, name_of_first, to, name, AtFlags::empty()) {
                Ok(()) => laid.files += 1,
                // Something is in the way, or it has too many names.
                Err(_) => laid.add(self.lay(&[entry], PackReader::new(depot))?),
            }
        }
        Ok(laid)
    }

    /// Makes directories, each after the one that it is in. Gives those that are not yet what they shall be.
    fn make_directories<'e>(&self, directories: &[&'e Entry]) -> Result<Vec<&'e Entry>, ArchiveFault> {
        let mut folder = Folder::default();
        let mut unfinished = Vec::new();
        for entry in directories {
            let Some((root, path)) = (self.place_of)(&entry.path) else { continue };
            if entry.kind == Kind::Opaque && self.laying.content != Content::Layers {
                return Err(ArchiveFault::Kind { path });
            }
            // Somebody else's keeps its mode.
            let stays = self.laying.existing == Existing::Kept && root.join(&path).symlink_metadata().is_ok();
            let directory = folder.enter(root, &path)?;
            let is_finished = match self.laying.content {
                Content::Layers => false,
                Content::Files | Content::Change => {
                    let made =
                        rustix::fs::fstat(directory).map_err(|error| refused(&root.join(&path))(error.into()))?;
                    stays || made.st_mode & 0o777 == u32::from(entry.mode)
                }
            };
            if !is_finished {
                unfinished.push(*entry);
            }
        }
        Ok(unfinished)
    }

    /// Makes directories what they are: last, because one that may not be written could not be filled, and filling changes times; and what is in
    /// a directory before it. Those of people have times of their own.
    fn finish_directories(&self, directories: &[&Entry]) -> Result<(), ArchiveFault> {
        let opaque = Right::of_this_process().opaque_attribute();
        for entry in directories.iter().rev() {
            let Some((root, path)) = (self.place_of)(&entry.path) else { continue };
            let full = root.join(&path);
            let mut folder = Folder::default();
            let directory = folder.enter(root, &path)?;
            let refuse = |error: Errno| refused(&full)(error.into());
            if entry.kind == Kind::Opaque {
                rustix::fs::fsetxattr(directory, opaque, b"y", XattrFlags::empty()).map_err(refuse)?;
            }
            // That new files get its group a directory has of the one that it is in.
            let inherited = rustix::fs::fstat(directory).map_err(refuse)?.st_mode & 0o7000;
            rustix::fs::fchmod(directory, Mode::from_raw_mode(inherited | u32::from(entry.mode))).map_err(refuse)?;
            if self.laying.content == Content::Layers {
                let _ = rustix::fs::futimens(directory, &modified_at(entry.modified_ns));
            }
        }
        Ok(())
    }

    /// Looks at what is in the way of an entry, and takes it away if it may.
    fn clear(&self, entry: &Entry, place: &Place<'_>) -> Result<Cleared, ArchiveFault> {
        match rustix::fs::statat(place.directory, place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Cleared::Free),
            Err(error) => return Err(refused(place.full)(error.into())),
            Ok(_) => {}
        }
        if self.is_there(entry, place) {
            return Ok(Cleared::Same);
        }
        if self.laying.existing == Existing::Kept {
            return Ok(Cleared::Kept);
        }
        match rustix::fs::unlinkat(place.directory, place.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(Cleared::Free),
            Err(Errno::ISDIR) => {
                Err(ArchiveFault::InTheWay { path: place.path.to_owned(), obstacle: place.path.to_owned() })
            }
            Err(error) => Err(refused(place.full)(error.into())),
        }
    }

    /// Whether the file that is there is known to be the entry's.
    fn is_there(&self, entry: &Entry, place: &Place<'_>) -> bool {
        let Some((base, places)) = &self.known else { return false };
        let Some(known) = places.get(entry.path.as_path()).map(|&place| &base.index.entries[place]) else {
            return false;
        };
        let (Kind::File { uses, .. }, Kind::File { uses: others, .. }) = (&entry.kind, &known.kind) else {
            return false;
        };
        let is_same = known.mode == entry.mode && known.modified_ns == entry.modified_ns;
        is_same
            && self.index.is_same_content(uses, &base.index, others)
            && std::fs::symlink_metadata(place.full).is_ok_and(|metadata| base.is_same(known, &metadata))
    }

    /// Makes an entry where nothing is. How many bytes were written.
    fn write(&self, entry: &Entry, place: &Place<'_>, packs: &mut PackReader<'_>) -> Result<u64, ArchiveFault> {
        let full = place.full;
        match &entry.kind {
            Kind::Directory | Kind::Opaque => Ok(0),
            Kind::Whiteout if self.laying.content == Content::Files => {
                Err(ArchiveFault::Kind { path: place.path.to_owned() })
            }
            Kind::Whiteout => {
                let kind = FileType::CharacterDevice;
                rustix::fs::mknodat(place.directory, place.name, kind, Mode::empty(), 0)
                    .map_err(|error| refused(full)(error.into()))?;
                Ok(0)
            }
            Kind::Link { target } => {
                rustix::fs::symlinkat(target.as_os_str().as_bytes(), place.directory, place.name)
                    .map_err(|error| refused(full)(error.into()))?;
                Ok(0)
            }
            Kind::File { bytes, uses } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(place.directory, place.name, flags, Mode::from_raw_mode(0o600));
                let mut file = File::from(file.map_err(|error| refused(full)(error.into()))?);
                for chunk in self.index.chunks_of(uses) {
                    packs.read(self.index, chunk, |bytes| file.write_all(bytes))?.map_err(refused(full))?;
                }
                let mode = Mode::from_raw_mode(u32::from(entry.mode));
                rustix::fs::fchmod(&file, mode).map_err(|error| refused(full)(error.into()))?;
                // A time that the file system cannot keep is no reason to fail.
                let _ = rustix::fs::futimens(&file, &modified_at(entry.modified_ns));
                Ok(*bytes)
            }
        }
    }
}

fn modified_at(nanoseconds: i64) -> Timestamps {
    let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    Timestamps { last_access: omitted, last_modification: time(nanoseconds) }
}

fn time(nanoseconds: i64) -> Timespec {
    const SECOND: i64 = 1_000_000_000;
    Timespec { tv_sec: nanoseconds.div_euclid(SECOND), tv_nsec: nanoseconds.rem_euclid(SECOND) }
}

/// Where one entry goes.
struct Place<'p> {
    directory: BorrowedFd<'p>,
    name: &'p std::ffi::OsStr,
    /// For words, and for stamps.
    full: &'p Path,
    /// Below its root.
    path: &'p Path,
}

/// What is at the place of an entry.
enum Cleared {
    /// Nothing, any more.
    Free,
    /// The entry itself.
    Same,
    /// Something that stays.
    Kept,
}
