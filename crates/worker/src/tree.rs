//! The files of a checkout: which there are, and the digests of their contents.
//!
//! A file whose stat (times, size, inode, mode) is as it was when it was hashed is not read again. As in git's index, a
//! stat is not trusted if the file changed so shortly before it was hashed that a later change could have the same
//! time ("racy"). Paths are bytes, names that are not UTF-8 included.

use std::cell::LazyCell;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use graph::Digest;
use ignore::gitignore::gitconfig_excludes_path;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

pub(crate) use self::outer::Outer;
use crate::git::{self, GitError};
use crate::patterns::{Patterns, by_bytes};
use crate::repository::{self, checkout_root};

mod outer;

/// The most files of a tree.
pub const FILES_MAX: usize = 5_000_000;

/// How deep repositories may lie within repositories.
const NESTING_MAX: usize = 16;

/// From this many files on two threads look at them.
const PARALLEL_FILES_MIN: usize = 2_000;

/// A change later than this before the hashing could be followed by another one with the same time: file systems take
/// the time of the kernel's last tick.
const RACY_NS: i128 = 20_000_000;

/// The same for file systems that keep whole seconds only.
const RACY_SECONDS_NS: i128 = 2_000_000_000;

/// The first line of the file of a [`StatCache`]. A file with another one is passed over and written anew.
const MAGIC: &[u8] = b"ropewalk stat cache 1\n";

/// Which files a tree has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    root: PathBuf,
    /// Sorted by bytes, no duplicates.
    paths: Vec<PathBuf>,
    source: Source,
}

/// Who said which files there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// git: tracked files, and untracked ones that are not ignored.
    Git,
    /// A walk that follows `.gitignore` files, where there is no repository.
    Walk,
}

/// Why the files of a tree cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// git refused.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There are more than [`FILES_MAX`].
    #[error("there are more than {FILES_MAX} files")]
    TooMany,
    /// A file changes faster than it can be read.
    #[error("{path} keeps changing while it is read")]
    Changing {
        /// Which.
        path: PathBuf,
    },
}

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A file.
    File = 0,
    /// A file that its owner may execute.
    Executable = 1,
    /// A symbolic link; its content is the target's name.
    Link = 2,
}

/// What a path held when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Content {
    /// What it is.
    pub kind: Kind,
    /// BLAKE3 of its bytes, or of the link's target.
    pub digest: Digest,
}

impl Tree {
    /// The files below `root`, without what is ignored and without `.git`. Files that git tracks but that are not there
    /// are listed; nested repositories are listed file by file, without what the repository around them ignores and they do not track. A
    /// folder that is ignored as a whole is listed by its own rules and those around it, but for the ones that name it.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn list(root: &Path) -> Result<Self, TreeError> {
        Self::list_within(root, Extent::Folder)
    }

    /// As [`Tree::list`], with the files of the whole checkout that `root` lies in: those above `root` have paths that
    /// begin with `..`, and no glob means them.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn list_checkout(root: &Path) -> Result<Self, TreeError> {
        Self::list_within(root, Extent::Checkout)
    }

    fn list_within(root: &Path, extent: Extent) -> Result<Self, TreeError> {
        let mut paths = Vec::new();
        let is_in_git = || root.join(".git").exists() || matches!(repository::standing(root), Ok(Some(_)));
        let source = match list_git(root, Path::new(""), extent, 0, &mut paths) {
            // Of a folder that is ignored, git lists nothing.
            Ok(()) if paths.iter().any(|path| !path.starts_with("..")) || is_in_git() => Source::Git,
            Ok(()) | Err(TreeError::Git(GitError::NoProgram | GitError::NoRepository)) => {
                paths.clear();
                list_walk(root, Some(around(root)), &mut paths)?;
                Source::Walk
            }
            Err(error) => return Err(error),
        };
        paths.sort_unstable_by(|left, right| by_bytes(left, right));
        paths.dedup();
        Ok(Self { root: root.to_owned(), paths, source })
    }

    /// The directory that paths are relative to.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The paths, relative to the root: sorted by bytes, no duplicates.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Who said so.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// What every path holds now, in the order of [`Tree::paths`]; `None` for what is not there or is neither file nor
    /// link. Reads only what changed since `cache` was filled, and fills it.
    ///
    /// # Errors
    /// [`TreeError::Read`], [`TreeError::Changing`].
    pub fn contents(&self, cache: &mut StatCache) -> Result<Vec<Option<Content>>, TreeError> {
        let known = std::mem::take(&mut cache.entries);
        let work = |paths: &[PathBuf]| contents_of(&self.root, paths, &known);
        let (first, second) = if self.paths.len() < PARALLEL_FILES_MIN {
            (work(&self.paths)?, Looked::default())
        } else {
            let (left, right) = self.paths.split_at(self.paths.len() / 2);
            std::thread::scope(|scope| {
                let second = scope.spawn(|| work(right));
                let first = work(left);
                let second = second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                Ok::<_, TreeError>((first?, second?))
            })?
        };
        cache.hashed = first.hashed + second.hashed;
        cache.is_changed |= cache.hashed > 0 || first.entries.len() + second.entries.len() != known.len();
        cache.entries = first.entries;
        cache.entries.extend(second.entries);
        let mut contents = first.contents;
        contents.extend(second.contents);
        Ok(contents)
    }
}

/// What paths hold now, all of them read; as [`Tree::contents`].
///
/// # Errors
/// As there.
pub(crate) fn contents(root: &Path, paths: &[PathBuf]) -> Result<Vec<Option<Content>>, TreeError> {
    contents_of(root, paths, &[]).map(|looked| looked.contents)
}

/// The digest of some files of a tree: of their names, kinds and contents, and of nothing else. `contents` is what
/// [`Tree::contents`] gave; files that are not there are passed over.
#[must_use]
pub fn digest_of(tree: &Tree, contents: &[Option<Content>], places: &[usize]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for &place in places {
        if let Some(content) = contents[place] {
            let path = tree.paths[place].as_os_str().as_bytes();
            hasher.update(&(path.len() as u64).to_le_bytes());
            hasher.update(path);
            hasher.update(&[content.kind as u8]);
            hasher.update(&content.digest.0);
        }
    }
    Digest(*hasher.finalize().as_bytes())
}

/// The digest of the files that `hash_files` or `inputs` mean; `None` if they mean none.
#[must_use]
pub fn digest_matching(tree: &Tree, contents: &[Option<Content>], patterns: &Patterns) -> Option<Digest> {
    let places = patterns.select(&tree.paths);
    let is_there = places.iter().any(|place| contents[*place].is_some());
    is_there.then(|| digest_of(tree, contents, &places))
}

/// Which part of a checkout is listed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// What is below the folder.
    Folder,
    /// All of it.
    Checkout,
}

fn list_git(
    root: &Path,
    below: &Path,
    extent: Extent,
    nesting: usize,
    paths: &mut Vec<PathBuf>,
) -> Result<(), TreeError> {
    let mut arguments = vec!["ls-files", "-z", "--cached", "--stage", "--others", "--exclude-standard"];
    if extent == Extent::Checkout {
        arguments.extend(["--", ":/"]);
    }
    // git knows nothing of what lies around the repository that it is asked about.
    let folder = without_parents(&root.join(below));
    let outer = LazyCell::new(|| Outer::between(checkout_root(root).unwrap_or(root), &folder));
    let answer = git::ask(&root.join(below), &arguments)?;
    for line in answer.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
        if paths.len() == FILES_MAX {
            return Err(TreeError::TooMany);
        }
        // An untracked directory is named, with a slash at its end, only if it is a repository of its own.
        let (mode, name) = tracked(line).unwrap_or((UNTRACKED, line));
        let is_nested = mode == GITLINK_MODE || name.ends_with(b"/");
        let name = OsString::from_vec(name.strip_suffix(b"/").unwrap_or(name).to_vec());
        if nesting > 0 && mode == UNTRACKED && outer.hides(&folder.join(&name), is_nested) {
            continue;
        }
        let path = below.join(name);
        if !is_nested {
            paths.push(path);
        } else if nesting < NESTING_MAX && root.join(&path).join(".git").symlink_metadata().is_ok() {
            list_git(root, &path, Extent::Folder, nesting + 1, paths)?;
        } else if mode == GITLINK_MODE && root.join(&path).is_dir() {
            // In a checkout on a worker a submodule has its files and no repository of its own.
            let first = paths.len();
            // What it tracks is not known, and all of that belongs here.
            list_walk(&root.join(&path), None, paths)?;
            paths[first..].iter_mut().for_each(|below| *below = path.join(&*below));
        }
    }
    Ok(())
}

/// What [`Tree::list`] has of a repository within `root`; relative to `root`, in no order.
///
/// # Errors
/// [`TreeError`].
pub(crate) fn list_nested(root: &Path, place: &Path) -> Result<Vec<PathBuf>, TreeError> {
    let mut paths = Vec::new();
    list_git(root, place, Extent::Folder, 1, &mut paths)?;
    Ok(paths)
}

/// The same path without `..`, as of a checkout's files in which no link leads elsewhere.
fn without_parents(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            component => plain.push(component),
        }
    }
    plain
}

/// Stands for the mode of a file that git's index does not have.
const UNTRACKED: &[u8] = b"";

/// The mode that git's index has for a repository within a repository.
pub(crate) const GITLINK_MODE: &[u8] = b"160000";

/// The mode and name of a line about a tracked file: `MODE ID STAGE<TAB>NAME`. `None` for an untracked one, which is
/// its name alone.
pub(crate) fn tracked(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let tab = memchr::memchr(b'\t', line)?;
    let (about, name) = (&line[..tab], &line[tab + 1..]);
    let mut fields = about.split(|byte| *byte == b' ');
    let (mode, id, stage) = (fields.next()?, fields.next()?, fields.next()?);
    let is_tracked = mode.len() == 6
        && matches!(id.len(), 40 | 64)
        && id.iter().all(u8::is_ascii_hexdigit)
        && stage.len() == 1
        && fields.next().is_none();
    is_tracked.then_some((mode, name))
}

/// The rules around a folder that git says nothing of: those of the checkout that ignores it, if one does, and the user's own.
pub(crate) fn around(folder: &Path) -> Outer {
    let outer = Outer::between(checkout_root(folder).unwrap_or(folder), folder);
    match gitconfig_excludes_path() {
        Some(file) => outer.with_rules_for_all(&file),
        None => outer,
    }
}

/// A walk through a folder without git, by its own ignore files and those around it.
fn walk_of(root: &Path, outer: Option<Outer>) -> ignore::WalkBuilder {
    let mut walk = ignore::WalkBuilder::new(root);
    walk.hidden(false).require_git(false).parents(false).git_global(false).follow_links(false);
    walk.filter_entry(move |entry| {
        let is_directory = entry.file_type().is_some_and(|kind| kind.is_dir());
        let is_hidden = || outer.as_ref().is_some_and(|outer| outer.hides(entry.path(), is_directory));
        entry.file_name() != ".git" && (entry.depth() == 0 || !is_hidden())
    });
    walk
}

fn list_walk(root: &Path, outer: Option<Outer>, paths: &mut Vec<PathBuf>) -> Result<(), TreeError> {
    let walk = walk_of(root, outer);
    for entry in walk.build() {
        let entry = entry.map_err(|error| {
            let source = error.into_io_error().unwrap_or_else(|| io::Error::other("the walk failed"));
            TreeError::Read { path: root.to_owned(), source }
        })?;
        if paths.len() == FILES_MAX {
            return Err(TreeError::TooMany);
        }
        if entry.file_type().is_some_and(|kind| !kind.is_dir())
            && let Ok(path) = entry.path().strip_prefix(root)
        {
            paths.push(path.to_owned());
        }
    }
    Ok(())
}

/// What is known of files that were hashed before. Kept in a file between runs; losing it costs time only.
#[derive(Clone, Debug, Default)]
pub struct StatCache {
    /// Sorted by path.
    entries: Vec<Entry>,
    is_changed: bool,
    hashed: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    stat: Known,
    content: Content,
}

/// What of a stat tells that a file has not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    mtime_ns: i128,
    ctime_ns: i128,
    size: u64,
    inode: u64,
    mode: u32,
}

/// What one thread found.
#[derive(Default)]
struct Looked {
    contents: Vec<Option<Content>>,
    entries: Vec<Entry>,
    hashed: usize,
}

impl StatCache {
    /// Reads the cache from its file. A file that is not there, is damaged or is of another format gives an empty one.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let entries = fs::read(path).ok().and_then(|bytes| read_entries(&bytes));
        Self { entries: entries.unwrap_or_default(), is_changed: false, hashed: 0 }
    }

    /// How many files the last [`Tree::contents`] had to read.
    #[must_use]
    pub fn hashed(&self) -> usize {
        self.hashed
    }

    /// The lengths of the files that the last [`Tree::contents`] saw and that had not just changed, by path; sorted.
    pub fn lengths(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.entries.iter().map(|entry| (entry.path.as_path(), entry.stat.size))
    }

    /// Writes the cache if it changed since it was read: at once or not at all.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&mut self, path: &Path) -> io::Result<()> {
        if !self.is_changed {
            return Ok(());
        }
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&write_entries(&self.entries))?;
        file.persist(path).map_err(|error| error.error)?;
        self.is_changed = false;
        Ok(())
    }
}

fn write_entries(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for entry in entries {
        let path = entry.path.as_os_str().as_bytes();
        bytes.extend_from_slice(&(path.len() as u32).to_le_bytes());
        bytes.extend_from_slice(path);
        bytes.extend_from_slice(&entry.stat.mtime_ns.to_le_bytes());
        bytes.extend_from_slice(&entry.stat.ctime_ns.to_le_bytes());
        bytes.extend_from_slice(&entry.stat.size.to_le_bytes());
        bytes.extend_from_slice(&entry.stat.inode.to_le_bytes());
        bytes.extend_from_slice(&entry.stat.mode.to_le_bytes());
        bytes.push(entry.content.kind as u8);
        bytes.extend_from_slice(&entry.content.digest.0);
    }
    let sum = blake3::hash(&bytes);
    bytes.extend_from_slice(sum.as_bytes());
    bytes
}

fn read_entries(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (content, sum) = bytes.split_last_chunk::<32>()?;
    if blake3::hash(content).as_bytes() != sum {
        return None;
    }
    let mut rest = content.strip_prefix(MAGIC)?;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(take(&mut rest)?) as usize;
        let (path, after) = rest.split_at_checked(length)?;
        rest = after;
        let stat = Known {
            mtime_ns: i128::from_le_bytes(take(&mut rest)?),
            ctime_ns: i128::from_le_bytes(take(&mut rest)?),
            size: u64::from_le_bytes(take(&mut rest)?),
            inode: u64::from_le_bytes(take(&mut rest)?),
            mode: u32::from_le_bytes(take(&mut rest)?),
        };
        let kind = match take::<1>(&mut rest)? {
            [0] => Kind::File,
            [1] => Kind::Executable,
            [2] => Kind::Link,
            _ => return None,
        };
        let content = Content { kind, digest: Digest(take(&mut rest)?) };
        entries.push(Entry { path: OsString::from_vec(path.to_vec()).into(), stat, content });
    }
    Some(entries)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

/// Looks at sorted paths; `known` is sorted too, so both are walked together.
fn contents_of(root: &Path, paths: &[PathBuf], known: &[Entry]) -> Result<Looked, TreeError> {
    let read = |path: &Path, error: rustix::io::Errno| TreeError::Read { path: root.join(path), source: error.into() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(root, flags, Mode::empty()).map_err(|error| read(Path::new(""), error))?;
    let mut looked =
        Looked { contents: Vec::with_capacity(paths.len()), entries: Vec::with_capacity(paths.len()), hashed: 0 };
    let Some(first) = paths.first() else { return Ok(looked) };
    let mut next = known.partition_point(|entry| by_bytes(&entry.path, first).is_lt());
    for path in paths {
        while known.get(next).is_some_and(|entry| by_bytes(&entry.path, path).is_lt()) {
            next += 1;
        }
        let before = known.get(next).filter(|entry| entry.path == *path);
        let stat = match rustix::fs::statat(&directory, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                looked.contents.push(None);
                continue;
            }
            Err(error) => return Err(read(path, error)),
        };
        match before {
            Some(entry) if entry.stat == Known::of(&stat) => {
                looked.contents.push(Some(entry.content));
                looked.entries.push(entry.clone());
            }
            _ => look_into(root, &directory, path, stat, &mut looked)?,
        }
    }
    Ok(looked)
}

/// How often a file that changes while it is read is read again.
const READINGS_MAX: usize = 5;

/// Hashes one path and remembers it, if a later change is sure to show in its stat.
fn look_into(
    root: &Path,
    directory: &impl std::os::fd::AsFd,
    path: &Path,
    mut stat: Stat,
    looked: &mut Looked,
) -> Result<(), TreeError> {
    let read = |source: io::Error| TreeError::Read { path: root.join(path), source };
    for _ in 0..READINGS_MAX {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_mode & 0o100 != 0 => Kind::Executable,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Link,
            _ => {
                looked.contents.push(None);
                return Ok(());
            }
        };
        let now = now_ns();
        let digest = match kind {
            Kind::Link => rustix::fs::readlinkat(directory, path, Vec::new())
                .map(|target| blake3::hash(target.as_bytes()))
                .map_err(io::Error::from),
            Kind::File | Kind::Executable => hash_file(directory, path),
        };
        let after = rustix::fs::statat(directory, path, AtFlags::SYMLINK_NOFOLLOW);
        match (digest, after) {
            (_, Err(rustix::io::Errno::NOENT)) => {
                looked.contents.push(None);
                return Ok(());
            }
            (_, Err(error)) => return Err(read(error.into())),
            (Ok(digest), Ok(after)) if Known::of(&after) == Known::of(&stat) => {
                let content = Content { kind, digest: Digest(*digest.as_bytes()) };
                looked.hashed += 1;
                looked.contents.push(Some(content));
                let stat = Known::of(&stat);
                if !stat.is_racy(now) {
                    looked.entries.push(Entry { path: path.to_owned(), stat, content });
                }
                return Ok(());
            }
            (Err(error), Ok(after)) if Known::of(&after) == Known::of(&stat) => return Err(read(error)),
            (_, Ok(after)) => stat = after,
        }
    }
    Err(TreeError::Changing { path: root.join(path) })
}

fn hash_file(directory: &impl std::os::fd::AsFd, path: &Path) -> io::Result<blake3::Hash> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = fs::File::from(rustix::fs::openat(directory, path, flags, Mode::empty())?);
    let mut hasher = blake3::Hasher::new();
    let mut buffer = [0; 64 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize()),
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
    }
}

impl Known {
    #[expect(clippy::unnecessary_cast, reason = "the fields' types differ between systems")]
    fn of(stat: &Stat) -> Self {
        let nanoseconds = |seconds: i128, rest: i128| seconds * 1_000_000_000 + rest;
        Self {
            mtime_ns: nanoseconds(stat.st_mtime as i128, stat.st_mtime_nsec as i128),
            ctime_ns: nanoseconds(stat.st_ctime as i128, stat.st_ctime_nsec as i128),
            size: stat.st_size as u64,
            inode: stat.st_ino as u64,
            mode: stat.st_mode as u32,
        }
    }

    fn is_racy(&self, now_ns: i128) -> bool {
        let changed = self.mtime_ns.max(self.ctime_ns);
        let window = if changed % 1_000_000_000 == 0 { RACY_SECONDS_NS } else { RACY_NS };
        changed + window > now_ns
    }
}

fn now_ns() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use proptest::prelude::*;

    use super::{Kind, Known, Source, StatCache, Tree, digest_matching, read_entries, write_entries};
    use crate::patterns::Patterns;

    fn git(directory: &Path, arguments: &[&str]) {
        let mut all = vec!["-c", "user.name=a", "-c", "user.email=a@b"];
        all.extend(arguments);
        crate::git::ask(directory, &all).unwrap();
    }

    fn scratch(files: &[(&str, &str)]) -> tempfile::TempDir {
        let scratch = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = scratch.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        scratch
    }

    fn check(root: &Path, source: Source, expected: &str) {
        let tree = Tree::list(root).unwrap();
        let paths: Vec<_> = tree.paths().iter().map(|path| path.to_string_lossy()).collect();
        assert_eq!((tree.source(), paths.join(" ").as_str()), (source, expected));
    }

    /// As if every file had changed long ago: only times of the future are racy then.
    fn aged(root: &Path, path: &str) {
        let file = fs::File::options().append(true).open(root.join(path)).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1500)).unwrap();
    }

    #[test]
    fn what_git_tracks_and_what_it_does_not_ignore() {
        let scratch = scratch(&[
            ("a", ""),
            ("a\tb", ""),
            ("gone", ""),
            (".gitignore", "out\n"),
            ("out/x", ""),
            ("new/b", ""),
            ("sub/c", ""),
            ("free/d", ""),
        ]);
        let root = scratch.path();
        for nested in ["sub", "free"] {
            git(&root.join(nested), &["init", "-q"]);
            git(&root.join(nested), &["add", "."]);
            git(&root.join(nested), &["commit", "-q", "-m", "x"]);
        }
        git(root, &["init", "-q"]);
        git(root, &["add", "a", "a\tb", "gone", "sub"]);
        fs::remove_file(root.join("gone")).unwrap();
        check(root, Source::Git, ".gitignore a a\tb free/d gone new/b sub/c");
        check(&root.join("new"), Source::Git, "b");
    }

    #[test]
    fn of_nested_repositories_what_they_track_and_what_no_rule_around_them_names() {
        let scratch = scratch(&[
            (".gitignore", ".env\n/sub/nested/secret\ntracked\n/sub/module\n"),
            ("sub/nested/.env", ""),
            ("sub/nested/secret", ""),
            ("sub/nested/tracked", ""),
            ("sub/nested/untracked", ""),
            ("sub/module/.env", ""),
            ("sub/module/.gitignore", "!deep/.env"),
            ("sub/module/deep/.env", ""),
            ("sub/module/untracked", ""),
        ]);
        let root = scratch.path();
        for (nested, tracked) in [("sub/nested", "tracked"), ("sub/module", ".gitignore")] {
            git(&root.join(nested), &["init", "-q"]);
            git(&root.join(nested), &["add", "-f", tracked]);
            git(&root.join(nested), &["commit", "-q", "-m", "x"]);
        }
        git(root, &["init", "-q"]);
        git(root, &["add", "-f", "sub/module"]);
        let module = "sub/module/.gitignore sub/module/deep/.env sub/module/untracked";
        check(root, Source::Git, &format!(".gitignore {module} sub/nested/tracked sub/nested/untracked"));
        check(&root.join("sub/nested"), Source::Git, ".env secret tracked untracked");
        fs::create_dir(root.join("app")).unwrap();
        fs::write(root.join("app/.gitignore"), "untracked\n").unwrap();
        let whole = Tree::list_checkout(&root.join("app")).unwrap();
        let nested: Vec<_> = whole.paths().iter().filter(|path| path.starts_with("../sub/nested")).collect();
        assert_eq!(nested, [Path::new("../sub/nested/tracked"), Path::new("../sub/nested/untracked")]);
    }

    #[test]
    fn of_an_ignored_folder_what_no_rule_names_but_those_for_itself() {
        let scratch = scratch(&[
            (".gitignore", ".env\nignored/\n"),
            ("ignored/app/.env", ""),
            ("ignored/app/a", ""),
            ("ignored/app/kept/.env", ""),
            ("ignored/app/kept/.gitignore", "!.env"),
        ]);
        let root = scratch.path();
        git(root, &["init", "-q"]);
        check(&root.join("ignored/app"), Source::Walk, "a kept/.env kept/.gitignore");
        check(&root.join("ignored"), Source::Walk, "app/a app/kept/.env app/kept/.gitignore");
        check(root, Source::Git, ".gitignore");
    }

    #[test]
    fn without_a_repository() {
        let scratch =
            scratch(&[("a", ""), (".gitignore", "out\n"), ("out/x", ""), (".hidden/b", ""), (".git-not/c", "")]);
        check(scratch.path(), Source::Walk, ".git-not/c .gitignore .hidden/b a");
    }

    #[test]
    fn digests_follow_content_kind_and_name() {
        let scratch = scratch(&[("a", "1"), ("b", "1"), ("d/c", "2")]);
        let root = scratch.path();
        let name = OsStr::from_bytes(b"not-\xff-utf8");
        fs::write(root.join(name), "3").unwrap();
        std::os::unix::fs::symlink("/nowhere", root.join("link")).unwrap();
        let digest = |globs: &[&str]| {
            let tree = Tree::list(root).unwrap();
            let contents = tree.contents(&mut StatCache::default()).unwrap();
            digest_matching(&tree, &contents, &Patterns::new(globs).unwrap())
        };
        assert_eq!(digest(&["nothing"]), None);
        assert_ne!(digest(&["a"]), digest(&["b"]), "the name counts");
        let before = [digest(&["a"]), digest(&["link"]), digest(&["not-*"])];
        fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(root.join("link")).unwrap();
        std::os::unix::fs::symlink("/elsewhere", root.join("link")).unwrap();
        fs::write(root.join(name), "4").unwrap();
        for (before, after) in before.into_iter().zip([digest(&["a"]), digest(&["link"]), digest(&["not-*"])]) {
            assert!(before.is_some() && before != after);
        }
    }

    #[test]
    fn unchanged_files_are_not_read() {
        let scratch = scratch(&[("a", "1"), ("b", "2")]);
        let root = scratch.path();
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("stat");
        // However long the test takes: they were written after it looked.
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
        for name in ["a", "b"] {
            fs::File::options().write(true).open(root.join(name)).unwrap().set_modified(later).unwrap();
        }
        let tree = Tree::list(root).unwrap();
        let mut cache = StatCache::open(&file);
        let first = tree.contents(&mut cache).unwrap();
        assert_eq!(cache.hashed(), 2);
        assert!(cache.entries.is_empty(), "files written just now are racy");
        // What is kept of them may be trusted once it is old enough: pretend that it is.
        cache.entries = super::contents_of(root, tree.paths(), &[]).map(|_| entries_now(root, &tree, &first)).unwrap();
        cache.is_changed = true;
        cache.save(&file).unwrap();
        let mut cache = StatCache::open(&file);
        assert_eq!(tree.contents(&mut cache).unwrap(), first);
        assert_eq!(cache.hashed(), 0);
        fs::write(root.join("b"), "3").unwrap();
        aged(root, "b");
        let changed = tree.contents(&mut cache).unwrap();
        assert_eq!((cache.hashed(), changed[0] == first[0], changed[1] == first[1]), (1, true, false));
    }

    fn entries_now(root: &Path, tree: &Tree, contents: &[Option<super::Content>]) -> Vec<super::Entry> {
        let entry = |(path, content): (&std::path::PathBuf, &Option<super::Content>)| {
            let stat = rustix::fs::lstat(root.join(path)).unwrap();
            super::Entry { path: path.clone(), stat: Known::of(&stat), content: content.unwrap() }
        };
        tree.paths().iter().zip(contents).map(entry).collect()
    }

    #[test]
    fn what_changed_just_now_is_not_trusted() {
        let stat = Known { mtime_ns: 5_000_000_001, ctime_ns: 0, size: 0, inode: 0, mode: 0 };
        assert!(stat.is_racy(5_020_000_000) && !stat.is_racy(5_020_000_001));
        let whole = Known { mtime_ns: 5_000_000_000, ..stat };
        assert!(whole.is_racy(6_999_999_999) && !whole.is_racy(7_000_000_000));
    }

    #[test]
    fn many_files_on_two_threads() {
        let scratch = tempfile::tempdir().unwrap();
        for number in 0..super::PARALLEL_FILES_MIN {
            fs::write(scratch.path().join(format!("{number:04}")), number.to_string()).unwrap();
        }
        let tree = Tree::list(scratch.path()).unwrap();
        let contents = tree.contents(&mut StatCache::default()).unwrap();
        let last = contents.last().unwrap().unwrap();
        assert_eq!((contents.len(), last.kind), (super::PARALLEL_FILES_MIN, Kind::File));
        assert_eq!(last.digest.0, *blake3::hash(b"1999").as_bytes());
    }

    #[test]
    fn a_damaged_cache_is_empty() {
        let bytes = write_entries(&[]);
        assert_eq!(read_entries(&bytes), Some(Vec::new()));
        assert_eq!(read_entries(&bytes[1..]), None);
        assert_eq!(read_entries(b""), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut framed = super::MAGIC.to_vec();
            framed.extend(bytes);
            let sum = blake3::hash(&framed);
            framed.extend_from_slice(sum.as_bytes());
            let _ = read_entries(&framed);
        }
    }
}
