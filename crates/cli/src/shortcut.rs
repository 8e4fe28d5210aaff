//! The shortest way through a run in which nothing changed: one file says which files a build that passed depended on
//! and how they looked. If pipeline, event and all these files are as they were, every job would be reused, so the
//! build is recorded as unchanged without looking at any job.
//!
//! It never says "unchanged" of something that changed: a file that changed so shortly before it was looked at that a later change could
//! have the same time keeps the shortcut from being written, and which files there are below globs is asked anew, of whoever said so
//! before: no stamp tells of rules that lie elsewhere, or of a file in a folder that had none.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use graph::{BuildId, Digest, Event, Graph, Reuse, Timestamp};
use rustix::fs::{AtFlags, Mode, OFlags};
use worker::tree::Tree;

use crate::local::inputs::{self, Extent, Seen};

/// The first bytes of the file; another format is passed over.
const MAGIC: &[u8; 24] = b"ropewalk shortcut 2     ";
/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A change later than this before the look could be followed by another with the same time.
const RACY_NS: i128 = 20_000_000;

/// What of a stat tells that nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    mtime_ns: i128,
    ctime_ns: i128,
    size: u64,
    inode: u64,
    mode: u32,
}

/// A stamp's length in the file.
const STAMP_BYTES: usize = 16 + 16 + 8 + 8 + 4;

impl Stamp {
    fn of(folder: &File, path: &Path) -> Option<Self> {
        let stat = rustix::fs::statat(folder, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let time = |seconds: i64, nanos: i128| i128::from(seconds) * 1_000_000_000 + nanos;
        Some(Self {
            mtime_ns: time(stat.st_mtime, i128::from(stat.st_mtime_nsec)),
            ctime_ns: time(stat.st_ctime, i128::from(stat.st_ctime_nsec)),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            inode: stat.st_ino,
            mode: stat.st_mode,
        })
    }

    /// All zero of what is not there.
    fn bytes(stamp: Option<Self>) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        let Some(Self { mtime_ns, ctime_ns, size, inode, mode }) = stamp else { return bytes };
        bytes[..16].copy_from_slice(&mtime_ns.to_le_bytes());
        bytes[16..32].copy_from_slice(&ctime_ns.to_le_bytes());
        bytes[32..40].copy_from_slice(&size.to_le_bytes());
        bytes[40..48].copy_from_slice(&inode.to_le_bytes());
        bytes[48..].copy_from_slice(&mode.to_le_bytes());
        bytes
    }

    fn is_settled(self, looked_at: Timestamp) -> bool {
        let bound = i128::from(looked_at.0) * 1000 - RACY_NS;
        self.mtime_ns < bound && self.ctime_ns < bound
    }
}

/// What a build depends on beside the files of the tree.
pub struct Key(Digest);

impl Key {
    /// The key of these pipeline files, this event (its time apart) and these options.
    pub fn new(files: &[(&str, &[u8])], event: &Event, options: &engine::BuildOptions) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(env!("CARGO_PKG_VERSION").as_bytes());
        for (name, text) in files {
            part(name.as_bytes());
            part(text);
        }
        let event = Event { time: Timestamp::default(), checkout: graph::Checkout::default(), ..event.clone() };
        part(&serde_json::to_vec(&event).unwrap_or_default());
        part(&serde_json::to_vec(options).unwrap_or_default());
        Self(Digest(*hasher.finalize().as_bytes()))
    }
}

/// An earlier build that stands for this one.
#[derive(Debug, PartialEq, Eq)]
pub struct Unchanged {
    /// That build.
    pub build: BuildId,
    /// How many jobs it has.
    pub jobs: u64,
}

/// Where the shortcut is kept. Whoever clears results removes it.
pub fn path(data: &Path) -> PathBuf {
    data.join("shortcut")
}

/// The build that stands for this one, if nothing it depended on has changed.
pub fn find(data: &Path, root: &Path, key: &Key) -> Option<Unchanged> {
    let file = File::open(path(data)).ok()?;
    if file.metadata().ok()?.len() > FILE_BYTES_MAX {
        return None;
    }
    let mut bytes = Vec::new();
    io::BufReader::new(file).read_to_end(&mut bytes).ok()?;
    let (body, sum) = bytes.split_last_chunk::<32>()?;
    let mut rest = body.strip_prefix(MAGIC)?.strip_prefix(&key.0.0)?;
    // Looked at only now: most often the key tells already.
    if blake3::hash(body).as_bytes() != sum {
        return None;
    }
    let build = BuildId(u64::from_le_bytes(*take(&mut rest)?));
    let jobs = u64::from_le_bytes(*take(&mut rest)?);
    let names: &[u8; 32] = take(&mut rest)?;
    let [extent] = *take(&mut rest)?;
    let mut folders = BTreeSet::new();
    for _ in 0..u32::from_le_bytes(*take(&mut rest)?) {
        folders.insert(PathBuf::from(take_path(&mut rest)?));
    }
    let folder = open_folder(root)?;
    while !rest.is_empty() {
        let path = take_path(&mut rest)?;
        let expected: &[u8; STAMP_BYTES] = take(&mut rest)?;
        if Stamp::bytes(Stamp::of(&folder, path)) != *expected {
            return None;
        }
    }
    if !folders.is_empty() {
        let tree = match extent == Extent::Folder as u8 {
            true => Tree::list(root),
            false => Tree::list_checkout(root),
        };
        if names_below(tree.ok()?.paths(), &folders).0 != *names {
            return None;
        }
    }
    Some(Unchanged { build, jobs })
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(taken)
}

fn take_path<'a>(rest: &mut &'a [u8]) -> Option<&'a Path> {
    let length = u32::from_le_bytes(*take(rest)?) as usize;
    Some(Path::new(OsStr::from_bytes(rest.split_off(..length)?)))
}

fn put_path(path: &Path, into: &mut Vec<u8>) {
    let name = path.as_os_str().as_bytes();
    into.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
    into.extend_from_slice(name);
}

/// Which files there are below these folders; `.` is all of them, also those of the checkout above.
fn names_below(paths: &[PathBuf], folders: &BTreeSet<PathBuf>) -> Digest {
    let is_all = folders.contains(Path::new("."));
    let mut hasher = blake3::Hasher::new();
    for path in paths.iter().filter(|path| is_all || folders.iter().any(|folder| path.starts_with(folder))) {
        hasher.update(path.as_os_str().as_bytes());
        hasher.update(&[0]);
    }
    Digest(*hasher.finalize().as_bytes())
}

fn open_folder(root: &Path) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(root, flags, Mode::empty()).ok().map(File::from)
}

/// Keeps a shortcut for a build in which every job passed, all may be reused and none asks a person. Nothing is kept if something it depends on
/// changed so lately that the next change might not show.
///
/// # Errors
/// If the file cannot be written; that costs time only.
pub fn keep(data: &Path, root: &Path, key: &Key, build: BuildId, graph: &Graph, seen: &Seen) -> io::Result<()> {
    let Some(Dependence { files, folders }) = dependence(root, graph, seen) else { return Ok(()) };
    let mut body = MAGIC.to_vec();
    body.extend_from_slice(&key.0.0);
    body.extend_from_slice(&build.0.to_le_bytes());
    body.extend_from_slice(&(crate::drawing::work(graph) as u64).to_le_bytes());
    body.extend_from_slice(&names_below(&seen.paths, &folders).0);
    body.push(seen.extent as u8);
    body.extend_from_slice(&u32::try_from(folders.len()).unwrap_or(u32::MAX).to_le_bytes());
    folders.iter().for_each(|folder| put_path(folder, &mut body));
    for (path, stamp) in files {
        put_path(&path, &mut body);
        body.extend_from_slice(&Stamp::bytes(stamp));
    }
    let sum = *blake3::hash(&body).as_bytes();
    body.extend_from_slice(&sum);
    let mut file = tempfile::NamedTempFile::new_in(data)?;
    file.write_all(&body)?;
    file.persist(path(data)).map_err(|error| error.error)?;
    Ok(())
}

/// What of the tree a build depends on.
struct Dependence {
    /// Each file, as it was when it was looked at; `None` of what was not there.
    files: Vec<(PathBuf, Option<Stamp>)>,
    /// The folders below which another file would count, too.
    folders: BTreeSet<PathBuf>,
}

/// What the build depended on. `None` if that cannot be told.
fn dependence(root: &Path, graph: &Graph, seen: &Seen) -> Option<Dependence> {
    if graph.jobs.values().any(|job| job.gate.is_some()) {
        return None;
    }
    let folder = open_folder(root)?;
    let mut places = BTreeSet::new();
    let mut folders = BTreeSet::new();
    let mut unlisted = BTreeSet::new();
    for job in graph.jobs.values().filter(|job| !job.steps.is_empty()) {
        let globs = match &job.reuse {
            Reuse::Never => return None,
            Reuse::Tree => {
                places.extend(0..seen.paths.len());
                folders.insert(PathBuf::from("."));
                continue;
            }
            Reuse::Inputs(globs) => globs,
        };
        // Such a job is never reused.
        inputs::refuse_only_negated(globs).ok()?;
        let patterns = worker::patterns::Patterns::new(globs).ok()?;
        let selected = patterns.select(&seen.paths);
        let names: BTreeSet<&Path> = selected.iter().map(|&place| seen.paths[place].as_path()).collect();
        // Globs that name just the files they select mean no other file.
        let is_exact =
            names.len() == globs.len() && globs.iter().all(|glob| is_literal(glob) && names.contains(Path::new(glob)));
        // What git ignores, or what is not there yet, counts for a job in the tree itself if it is named.
        let literals = globs.iter().filter(|glob| is_literal(glob)).map(Path::new);
        unlisted.extend(literals.filter(|path| !names.contains(path)).map(Path::to_owned));
        if !is_exact {
            folders.extend(
                patterns
                    .roots()
                    .into_iter()
                    .map(|root| if root == Path::new("") { PathBuf::from(".") } else { root.to_path_buf() }),
            );
        }
        places.extend(selected);
    }
    let mut files = Vec::with_capacity(places.len());
    for place in places {
        let stamp = (*seen.stamps.as_ref()?.get(place)?)?;
        let path = &seen.paths[place];
        // A job that works in the tree itself may have changed it since.
        if !stamp.is_settled(seen.looked_at) || Stamp::of(&folder, path) != Some(stamp) {
            return None;
        }
        files.push((path.clone(), Some(stamp)));
    }
    for path in unlisted {
        let stamp = Stamp::of(&folder, &path);
        if stamp.is_some_and(|stamp| !stamp.is_settled(seen.looked_at)) {
            return None;
        }
        files.push((path, stamp));
    }
    Some(Dependence { files, folders })
}

/// Whether a glob names one path.
pub fn is_literal(glob: &str) -> bool {
    !glob.contains(['*', '?', '[', '{', '!', '\\'])
}

/// The stamps of all files of a tree, in its order. To be taken before their contents are read.
pub fn stamps(tree: &Tree) -> Option<Vec<Option<Stamp>>> {
    let folder = open_folder(tree.root())?;
    Some(tree.paths().iter().map(|path| Stamp::of(&folder, path)).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use graph::{BuildId, Event, EventKind, Graph, Job, Reuse, Step};

    use super::{Key, Unchanged, find, keep};
    use crate::local::inputs::{Extent, look};

    /// A tree of two files, a build of one job with these inputs, then `change`; whether the shortcut holds after it.
    fn holds(inputs: &[&str], change: impl Fn(&std::path::Path)) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let (root, data) = (folder.path().join("root"), folder.path().join("data"));
        fs::create_dir_all(root.join("src/deep")).unwrap();
        fs::create_dir_all(root.join("src/none/deeper")).unwrap();
        fs::create_dir(&data).unwrap();
        for (name, text) in [("src/a", "a"), ("src/deep/b", "b"), ("other", "o")] {
            fs::write(root.join(name), text).unwrap();
        }
        let mut graph = Graph::default();
        let reuse = Reuse::Inputs(inputs.iter().map(|glob| (*glob).to_owned()).collect());
        let job = Job { reuse, steps: vec![Step::default()], ..Job::default() };
        graph.jobs.insert("job".into(), Arc::new(job));
        let mut seen = look(&root, &data.join("stats"), Extent::Folder).unwrap();
        // ctime cannot be set: the look is moved forward instead of the files backward.
        seen.looked_at = seen.looked_at.plus_ms(1000);
        let key = Key::new(&[], &Event::new(EventKind::Push), &engine::BuildOptions::default());
        keep(&data, &root, &key, BuildId(7), &graph, &seen).unwrap();
        assert_eq!(find(&data, &root, &key), Some(Unchanged { build: BuildId(7), jobs: 1 }), "before any change");
        let other = Key::new(&[("p", b"x")], &Event::new(EventKind::Push), &engine::BuildOptions::default());
        assert_eq!(find(&data, &root, &other), None, "another pipeline");
        change(&root);
        find(&data, &root, &key).is_some()
    }

    #[test]
    fn what_is_no_input_may_change() {
        assert!(holds(&["src/a"], |root| fs::write(root.join("other"), "x").unwrap()));
        assert!(holds(&["src/a"], |root| fs::write(root.join("src/deep/b"), "x").unwrap()));
        assert!(holds(&["src/a"], |root| fs::write(root.join("src/new"), "x").unwrap()));
    }

    #[test]
    fn what_is_an_input_may_not() {
        assert!(!holds(&["src/a"], |root| fs::write(root.join("src/a"), "longer").unwrap()));
        assert!(!holds(&["src/a"], |root| fs::remove_file(root.join("src/a")).unwrap()));
        assert!(!holds(&["src/**"], |root| fs::write(root.join("src/deep/b"), "x").unwrap()));
    }

    #[test]
    fn a_file_that_appears_where_a_glob_looks_is_a_change() {
        assert!(!holds(&["src/**"], |root| fs::write(root.join("src/deep/new"), "x").unwrap()));
        assert!(!holds(&["src/**"], |root| fs::write(root.join("src/new"), "x").unwrap()));
        assert!(!holds(&["src/**"], |root| fs::write(root.join("src/none/new"), "x").unwrap()));
        assert!(!holds(&["src/**"], |root| fs::write(root.join("src/none/deeper/new"), "x").unwrap()));
        assert!(holds(&["src/**"], |root| fs::write(root.join("elsewhere"), "x").unwrap()));
        assert!(!holds(&["missing"], |root| fs::write(root.join("missing"), "x").unwrap()));
        let make = |root: &std::path::Path, name: &str| {
            fs::create_dir(root.join("missing")).unwrap();
            fs::write(root.join("missing").join(name), "x").unwrap();
        };
        assert!(!holds(&["missing/*.c"], |root| make(root, "a.c")));
    }
}
