//! How git stood when the build began: layers that show jobs the HEAD, index and references of then, whatever is committed, checked out or tagged
//! while they run.
//!
//! One lies over the tree and has what its `.git` holds of this; another one lies over the folder in which a linked worktree or a submodule keeps
//! it ([`repository::directory_outside`]). Each folder of git in them has the files of [`STATE`], closed `refs` and `reftable`, and whiteouts over
//! [`LOCKS`] and what was not there. All else is live: objects, which only grow, reflogs, hooks, `info`, other worktrees, and the folder of a rebase
//! that was under way.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::WorkspaceError;
use super::checkout::Checkout;
use super::layer::{self, Made, Whiteouts};
use crate::repository;

/// The layer over the tree, beside the snapshot's others.
const INSIDE: &str = "git";
/// The layer over the repository that lies elsewhere.
const OUTSIDE: &str = "git-outside";

/// The longest file of git that is kept; a longer one is live. The index, its parts and packed references may be of any length.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// How the name of a file begins that an index shares with others, and the most of them that are kept.
const SHARED_INDEX: &[u8] = b"sharedindex.";
const SHARED_INDEXES_MAX: usize = 16;

/// A file of git that is replaced and never written in place need not be copied from this length on: another name for it will do.
const LINK_BYTES_MIN: u64 = 1 << 20;

/// The most references in files of their own that are kept; of more, none is.
const LOOSE_MAX: usize = 50_000;

/// The most references in files of their own in the layer; more become lines of its `packed-refs`.
const LOOSE_KEPT_MAX: usize = 32;

/// The most bytes of a reference's file. Source: as of HEAD, `SMALL_BYTES_MAX` of [`crate::repository`].
const REFERENCE_BYTES_MAX: u64 = 64 << 10;

/// The most tables of a reftable, of which git keeps a few, and how often they are looked for anew because git replaces them.
const TABLES_MAX: usize = 1_024;
const TABLES_LOOKS_MAX: usize = 3;

/// What is at the top of a folder of git and decides what git says, or was written by something that git is in the middle of: kept if it is there
/// and hidden otherwise, but for folders that are there. `HEAD` is last: it may lead to a reference that was made meanwhile, which is told, too.
/// Source: gitrepository-layout(5), git's `path.h` and `wt-status.c`.
const STATE: [&str; 14] = [
    "CHERRY_PICK_HEAD",
    "FETCH_HEAD",
    "MERGE_HEAD",
    "MERGE_MSG",
    "ORIG_HEAD",
    "REVERT_HEAD",
    "config",
    "config.worktree",
    "index",
    "packed-refs",
    "rebase-apply",
    "rebase-merge",
    "shallow",
    "HEAD",
];

/// What git takes no notice of once it is hidden: somebody else's are none of a job's, whenever they were taken.
const LOCKS: [&str; 5] = ["HEAD.lock", "config.lock", "index.lock", "packed-refs.lock", "shallow.lock"];

/// Whether the layers and what git said are of the same commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// They are, as far as files tell.
    Same,
    /// Something was committed or checked out meanwhile.
    Other,
}

/// A folder in which git keeps what belongs to a checkout, or to all of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Folder {
    live: PathBuf,
    /// [`INSIDE`] or [`OUTSIDE`], and what that one lies over.
    layer: &'static str,
    below: PathBuf,
    /// Relative to both.
    place: PathBuf,
}

/// Keeps how git stands in the checkouts of the tree at `root` (canonical) in layers in `directory`, in place of what is kept there.
///
/// # Errors
/// The system's words about a file of the layers. What cannot be read of git's is live.
pub fn write(root: &Path, checkouts: &[Checkout], directory: &Path) -> Result<Told, WorkspaceError> {
    for layer in [INSIDE, OUTSIDE].map(|name| directory.join(name)) {
        layer::remove_tree(&layer).map_err(WorkspaceError::at(&layer))?;
    }
    let mut told = Told::Same;
    let mut written: BTreeSet<PathBuf> = BTreeSet::new();
    for checkout in checkouts {
        let found = folders(root, &checkout.place);
        for folder in &found {
            if written.insert(folder.live.clone()) {
                let layer = directory.join(folder.layer);
                write_folder(folder, &layer).map_err(WorkspaceError::at(&layer.join(&folder.place)))?;
            }
        }
        let in_layer = |folder: &Folder| directory.join(folder.layer).join(&folder.place);
        if let (Some(own), Some(shared)) = (found.first(), found.last())
            && let Some(head) = repository::head_in(&in_layer(own), &in_layer(shared))
            && head.commit != checkout.commit
        {
            told = Told::Other;
        }
    }
    Ok(told)
}

/// The layer over the tree, of a snapshot in `directory` that has one.
pub fn inside(directory: &Path) -> Option<PathBuf> {
    Some(directory.join(INSIDE)).filter(|layer| layer.is_dir())
}

/// The layer over the repository that lies elsewhere, of a snapshot in `directory` that has one.
pub fn outside(directory: &Path) -> Option<PathBuf> {
    Some(directory.join(OUTSIDE)).filter(|layer| layer.is_dir())
}

/// Takes out of a copy of the tree what the layer over it closes, before the layer is copied.
pub fn clear(root: &Path, checkouts: &[Checkout], directory: &Path, copy: &Path) -> io::Result<()> {
    for folder in checkouts.iter().flat_map(|checkout| folders(root, &checkout.place)) {
        for closed in ["refs", "reftable"].map(|name| folder.place.join(name)) {
            if folder.layer == INSIDE && directory.join(INSIDE).join(&closed).is_dir() {
                layer::remove_tree(&copy.join(&closed))?;
            }
        }
    }
    Ok(())
}

/// The folders of git of a checkout in the tree: its own, and then that which it shares with others, if that is another one. None if no layer
/// lies over one of them.
fn folders(root: &Path, place: &Path) -> Vec<Folder> {
    let outside = repository::directory_outside(root);
    let Some(own) = repository::git_directory(&root.join(place)) else { return Vec::new() };
    let shared = repository::shared_directory(&own);
    let folder = |path: PathBuf| {
        let live = fs::canonicalize(path).ok()?;
        let over = |layer, below: &Path| {
            let place = live.strip_prefix(below).ok()?.to_owned();
            Some(Folder { live: live.clone(), layer, below: below.to_owned(), place })
        };
        over(INSIDE, root).or_else(|| over(OUTSIDE, outside.as_deref()?))
    };
    let found: Option<Vec<Folder>> = [own, shared].into_iter().map(folder).collect();
    let mut found = found.unwrap_or_default();
    found.dedup();
    found
}

fn write_folder(folder: &Folder, layer: &Path) -> io::Result<()> {
    let Folder { live, below, place, .. } = folder;
    let mut made = Made::layer(layer, below)?;
    layer::make_parents(layer, below, &place.join("any"), &mut made)?;
    let kept = layer.join(place);
    // The index first: git writes it before the reference, so that one of a later commit is told from HEAD.
    keep_file(live, &kept, OsStr::new("index"))?;
    write_references(live, &kept)?;
    write_tables(live, &kept)?;
    for name in shared_indexes(live).iter().map(OsString::as_os_str).chain(STATE.map(OsStr::new)) {
        keep_file(live, &kept, name)?;
    }
    let has_references = kept.join("refs").is_dir();
    let is_absent = |name: &&str| match *name {
        // It is to be seen with the references that were packed into it.
        "packed-refs" => has_references && kept.join(name).symlink_metadata().is_err(),
        name => live.join(name).symlink_metadata().is_err(),
    };
    for name in STATE.iter().filter(|name| is_absent(name)).chain(&LOCKS) {
        if kept.join(name).symlink_metadata().is_err() {
            layer::white_out(layer, below, &place.join(name), &mut made)?;
        }
    }
    made.end()
}

/// The files that hold what several indexes have in common.
fn shared_indexes(live: &Path) -> Vec<OsString> {
    let names = fs::read_dir(live).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.as_bytes().starts_with(SHARED_INDEX)).take(SHARED_INDEXES_MAX).collect()
}

/// Keeps a file or link at the top of a folder of git, unless it is there; anything else, and what cannot be read, stays live.
fn keep_file(live: &Path, kept: &Path, name: &OsStr) -> io::Result<()> {
    let (from, to) = (live.join(name), kept.join(name));
    let Ok(metadata) = from.symlink_metadata() else { return Ok(()) };
    let is_replaced = name == "index" || name == "packed-refs" || name.as_bytes().starts_with(SHARED_INDEX);
    let is_replaced = is_replaced || name.as_bytes().ends_with(b".ref");
    let is_kept = metadata.is_symlink() || metadata.is_file() && (is_replaced || metadata.len() <= FILE_BYTES_MAX);
    if !is_kept || to.symlink_metadata().is_ok() {
        return Ok(());
    }
    if is_replaced && metadata.is_file() && metadata.len() >= LINK_BYTES_MIN && fs::hard_link(&from, &to).is_ok() {
        return Ok(());
    }
    match layer::copy_tree(&from, &to, Whiteouts::Leave, &|_| false) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// Keeps all references: those in files of their own as such, or if they are many as lines of `packed-refs`.
fn write_references(live: &Path, kept: &Path) -> io::Result<()> {
    let refs = kept.join("refs");
    let Some(loose) = live.join("refs").is_dir().then(|| loose_references(live)).flatten() else {
        // Too many, or not to be read.
        return Ok(());
    };
    fs::create_dir(&refs)?;
    close(&refs)?;
    // Read after those in files: git packs a reference before it takes its file away.
    let mut packed = BTreeMap::new();
    if loose.len() > LOOSE_KEPT_MAX {
        let text = fs::read(live.join("packed-refs")).unwrap_or_default();
        packed.extend(text.split(|byte| *byte == b'\n').filter_map(packed_line));
        let (symbolic, plain): (Vec<_>, Vec<_>) =
            loose.into_iter().partition(|(_, value)| !is_object_id(value.trim_ascii_end()));
        packed.extend(
            plain
                .into_iter()
                .map(|(name, value)| (name.into_os_string().as_bytes().to_vec(), value.trim_ascii_end().to_vec())),
        );
        write_packed(&kept.join("packed-refs"), &packed)?;
        return write_loose(kept, symbolic);
    }
    keep_file(live, kept, OsStr::new("packed-refs"))?;
    write_loose(kept, loose)
}

fn write_loose(kept: &Path, references: Vec<(PathBuf, Vec<u8>)>) -> io::Result<()> {
    for (name, value) in references {
        let path = kept.join(name);
        fs::create_dir_all(path.parent().unwrap_or(kept))?;
        fs::write(path, value)?;
    }
    Ok(())
}

/// A reference and its object in a line of `packed-refs`; nothing of one that says what is known of the one before.
fn packed_line(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let (object, name) = (&line[..space], &line[space + 1..]);
    is_object_id(object).then(|| (name.to_vec(), object.to_vec()))
}

fn write_packed(path: &Path, references: &BTreeMap<Vec<u8>, Vec<u8>>) -> io::Result<()> {
    let mut file = io::BufWriter::new(fs::File::create(path)?);
    // Source: git's refs/packed-backend.c.
    file.write_all(b"# pack-refs with: sorted \n")?;
    for (name, object) in references {
        for part in [object, &b" "[..], name, b"\n"] {
            file.write_all(part)?;
        }
    }
    file.flush()
}

fn is_object_id(text: &[u8]) -> bool {
    matches!(text.len(), 40 | 64) && text.iter().all(u8::is_ascii_hexdigit)
}

/// The references in files of their own, by name, with what the files hold; `None` if there are more than [`LOOSE_MAX`] or one cannot be read.
fn loose_references(live: &Path) -> Option<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::from("refs")];
    while let Some(folder) = waiting.pop() {
        for entry in if_there(fs::read_dir(live.join(&folder)))?.into_iter().flatten().flatten() {
            let name = folder.join(entry.file_name());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(name);
            } else if !name.as_os_str().as_bytes().ends_with(b".lock") {
                let mut value = Vec::new();
                let read = fs::File::open(live.join(&name))
                    .and_then(|file| file.take(REFERENCE_BYTES_MAX).read_to_end(&mut value));
                found.extend(if_there(read)?.map(|_| (name, value)));
            }
        }
        if found.len() + waiting.len() > LOOSE_MAX {
            return None;
        }
    }
    Some(found)
}

/// The outer is `None` if the system refuses, the inner of what has gone meanwhile.
fn if_there<T>(found: io::Result<T>) -> Option<Option<T>> {
    match found {
        Ok(found) => Some(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(None),
        Err(_) => None,
    }
}

/// Keeps the references of a repository that has them in tables, which git never writes again.
fn write_tables(live: &Path, kept: &Path) -> io::Result<()> {
    let (from, to) = (live.join("reftable"), kept.join("reftable"));
    for _ in 0..TABLES_LOOKS_MAX {
        let Ok(list) = fs::read_to_string(from.join("tables.list")) else { return Ok(()) };
        let names: Vec<&str> = list.lines().filter(|name| !name.is_empty() && !name.contains('/')).collect();
        if names.len() > TABLES_MAX {
            return Ok(());
        }
        fs::create_dir(&to)?;
        let keep = |name: &&str| keep_file(&from, &to, OsStr::new(name)).map(|()| to.join(name).is_file());
        let is_whole = names.iter().map(keep).collect::<io::Result<Vec<_>>>()?.into_iter().all(|is_kept| is_kept);
        if is_whole {
            close(&to)?;
            return fs::write(to.join("tables.list"), &list);
        }
        layer::remove_tree(&to)?;
    }
    Ok(())
}

/// Hides what is below a directory in it. Where the system refuses the sign no layers are mounted, and copies are cleared by [`clear`].
pub fn close(directory: &Path) -> io::Result<()> {
    match layer::make_opaque(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}
