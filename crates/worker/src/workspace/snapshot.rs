//! The state of the user's tree at the start of a build, kept without copying what git has.
//!
//! Three layers above the live tree make it stand still: the *delta* holds what differs from the commit, as it was at the
//! start, and whiteouts over what is ignored; a *fix* holds, for files that changed since, what they were, and whiteouts
//! over what is new. A fix is never changed once a job has it: the next change makes the next fix. Between two looks at
//! the tree a running job may still see an edit of a file that it has not written itself.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use super::checkout::{self, Checkout, Tracked};
use super::layer::{self, Made, Whiteouts};
use super::look::Seen;
use super::watch::{Changes, Moment, Touched, Watch};
use super::{WorkspaceError, read_json, write_json};
use crate::git::GitError;
use crate::keeper::Right;
use crate::repository::{self, Standing};

/// How many entries of a tree's top are looked at for a foreign owner.
const FOREIGN_LOOKED_AT_MAX: usize = 10_000;

/// What a snapshot needs to be opened again.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Manifest {
    repository: PathBuf,
    /// The project's folder, relative to the repository; empty if it is the whole.
    #[serde(default)]
    prefix: PathBuf,
    /// Empty where there is no git.
    checkouts: Vec<Checkout>,
    #[serde(default)]
    tree: TreeKind,
    /// Where jobs see the tree; at its own place if it says nothing.
    #[serde(default)]
    shown: Option<PathBuf>,
}

/// Whether anybody may change the tree while jobs run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TreeKind {
    /// A person's.
    #[default]
    Live,
    /// A checkout that is never written to once it is there.
    Immutable,
}

/// The state of a tree at one moment. Shared by the jobs of a build.
#[derive(Debug)]
pub struct Snapshot {
    directory: PathBuf,
    manifest: Manifest,
    /// The paths in the delta: whatever becomes of them in the live tree, jobs do not see it.
    shadowed: HashSet<PathBuf>,
    /// Those of them that the commit has and the tree had not. The other whiteouts stand over what is ignored.
    gone: HashSet<PathBuf>,
    /// Looked for once, when the first job asks.
    foreign: OnceLock<Option<PathBuf>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    watch: Watch,
    /// What changed since the start and is not shadowed.
    changed: BTreeSet<PathBuf>,
    /// What changed since the start and is shadowed, but for what is ignored.
    edited: BTreeSet<PathBuf>,
    /// The latest fix; `None` while nothing has changed.
    fix: Option<PathBuf>,
    fixes: u32,
}

/// The layers from which a workspace is made, the topmost first, the live tree last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers(pub Vec<PathBuf>);

impl Snapshot {
    /// Takes the state of the whole checkout that `project` is a folder of, or of the plain directory that it is, with its
    /// layers in `directory`, which is made and must lie outside.
    ///
    /// # Errors
    /// git's words, or the system's about a file.
    pub fn take(project: &Path, directory: &Path) -> Result<Self, WorkspaceError> {
        Self::take_seen(project, directory, None)
    }

    /// As [`Snapshot::take`], by what was seen before, if that was this checkout and nothing in it was touched since.
    ///
    /// # Errors
    /// As there.
    pub fn take_seen(project: &Path, directory: &Path, seen: Option<&Seen>) -> Result<Self, WorkspaceError> {
        let project = fs::canonicalize(project).map_err(WorkspaceError::at(project))?;
        fs::create_dir_all(directory).map_err(WorkspaceError::at(directory))?;
        let directory = fs::canonicalize(directory).map_err(WorkspaceError::at(directory))?;
        if directory.starts_with(&project) {
            return Err(WorkspaceError::Inside { directory, repository: project });
        }
        // Who keeps the home directory in git has the layers in there too; then the folder is taken by itself.
        let standing = repository::standing(&project)?.filter(|standing| !directory.starts_with(&standing.root));
        let is_checkout = standing.is_some();
        let Standing { root: repository, prefix } =
            standing.unwrap_or_else(|| Standing { root: project, prefix: PathBuf::new() });
        let delta = directory.join("delta");
        layer::make_like(&delta, &repository).map_err(WorkspaceError::at(&delta))?;
        let make = |checkouts| {
            let manifest =
                Manifest { repository: repository.clone(), prefix, checkouts, tree: TreeKind::Live, shown: None };
            write_json(&directory.join("snapshot.json"), &manifest)?;
            Ok::<_, WorkspaceError>(manifest)
        };
        if !is_checkout {
            let ignored = ignored_without_git(&repository);
            write_whiteouts(&repository, &delta, &ignored).map_err(WorkspaceError::at(&delta))?;
            let manifest = make(Vec::new())?;
            return Self::with(directory, manifest, Watch::none());
        }
        let (status, watch) = stand_still(&repository, seen)?;
        write_delta(&repository, &delta, &status).map_err(WorkspaceError::at(&delta))?;
        write_gone(&directory, &status.gone)?;
        let manifest = make(status.checkouts)?;
        // What was edited while the delta was written is told by the watch, to whoever asks for the layers.
        Self::with(directory, manifest, watch)
    }

    /// The state of a tree that nobody changes, all of whose files jobs see: git is not asked and nothing is listed or
    /// watched. `prefix` is the project's folder in it, relative; `shown` is where jobs see the tree: a folder that is there, so that
    /// jobs of many trees, one after the other and at once, see theirs at the same place.
    ///
    /// # Errors
    /// The system's words about a file.
    pub fn of_immutable(tree: &Path, prefix: &Path, shown: &Path, directory: &Path) -> Result<Self, WorkspaceError> {
        let shown = Some(fs::canonicalize(shown).map_err(WorkspaceError::at(shown))?);
        let repository = fs::canonicalize(tree).map_err(WorkspaceError::at(tree))?;
        fs::create_dir_all(directory).map_err(WorkspaceError::at(directory))?;
        let directory = fs::canonicalize(directory).map_err(WorkspaceError::at(directory))?;
        let (prefix, checkouts) = (prefix.to_owned(), Vec::new());
        let manifest = Manifest { repository, prefix, checkouts, tree: TreeKind::Immutable, shown };
        write_json(&directory.join("snapshot.json"), &manifest)?;
        Self::with(directory, manifest, Watch::none())
    }

    /// Opens a snapshot that was taken into `directory` earlier, maybe by another process.
    ///
    /// # Errors
    /// It is not there or cannot be read.
    pub fn reopen(directory: &Path) -> Result<Self, WorkspaceError> {
        let directory = fs::canonicalize(directory).map_err(WorkspaceError::at(directory))?;
        let manifest: Manifest = read_json(&directory.join("snapshot.json"))?;
        Self::with(directory, manifest, Watch::none())
    }

    fn with(directory: PathBuf, manifest: Manifest, watch: Watch) -> Result<Self, WorkspaceError> {
        let shadowed = match manifest.tree {
            TreeKind::Live => {
                let delta = directory.join("delta");
                layer::entries(&delta).map_err(WorkspaceError::at(&delta))?
            }
            // It stands still by itself: nothing has to hide it.
            TreeKind::Immutable => HashSet::new(),
        };
        let gone = read_gone(&directory);
        let shadowed = shadowed.union(&gone).cloned().collect();
        let fixes = next_fix(&directory);
        let state = State { watch, changed: BTreeSet::new(), edited: BTreeSet::new(), fix: None, fixes };
        Ok(Self { directory, manifest, shadowed, gone, foreign: OnceLock::new(), state: Mutex::new(state) })
    }

    /// The tree's root.
    #[must_use]
    pub fn repository(&self) -> &Path {
        &self.manifest.repository
    }

    /// The project's folder in the tree, in which steps begin; relative, empty if it is the root.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        &self.manifest.prefix
    }

    /// Where jobs see the tree.
    pub(super) fn shown(&self) -> Option<&Path> {
        self.manifest.shown.as_deref()
    }

    /// A directory at the top of a person's tree, relative, that belongs to another user or group. Who mounts overlays in a user
    /// namespace has only his own ids there, and the kernel refuses to write in what belongs to others. `None` if there is none, or
    /// this process has every right.
    pub(super) fn foreign(&self) -> Option<&Path> {
        let look = || {
            if self.manifest.tree == TreeKind::Immutable || Right::of_this_process() == Right::Administrator {
                return None;
            }
            let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            foreign_directory(&self.manifest.repository, &self.directory.join("delta"), own)
        };
        self.foreign.get_or_init(look).as_deref()
    }

    /// Where its layers are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The commit that was checked out; `None` without git or before the first one.
    #[must_use]
    pub fn commit(&self) -> Option<&str> {
        self.manifest.checkouts.first()?.commit.as_deref()
    }

    /// Whether the files were those of the commit, apart from what is ignored.
    #[must_use]
    pub fn checkout(&self) -> graph::Checkout {
        let is_copy = |path: &PathBuf| !self.is_whited_out(path);
        match self.gone.is_empty() && !self.shadowed.iter().any(is_copy) {
            true => graph::Checkout::AsCommitted,
            false => graph::Checkout::Changed,
        }
    }

    /// Something people should know about what jobs will see; `None` in an ordinary checkout.
    #[must_use]
    pub fn note(&self) -> Option<&'static str> {
        let is_loose = self.manifest.checkouts.is_empty() && self.manifest.tree == TreeKind::Live;
        is_loose.then_some(
            "this directory is in no git repository: what you edit while the build runs is seen by jobs that start later",
        )
    }

    /// The layers that show the state of the start, whatever happened to the tree since. Reads what the kernel noted; asks
    /// git only if something changed.
    ///
    /// # Errors
    /// git's words, or the system's about a file.
    pub fn layers(&self) -> Result<Layers, WorkspaceError> {
        let state = self.up_to_date()?;
        let mut layers: Vec<PathBuf> = state.fix.iter().cloned().collect();
        if self.manifest.tree == TreeKind::Live {
            layers.push(self.directory.join("delta"));
        }
        layers.push(self.manifest.repository.clone());
        Ok(Layers(layers))
    }

    /// What has changed in the live tree since the start, as far as it was looked at, but for what is ignored; relative, sorted.
    /// Jobs see none of it, but for an edit of a file while they run; whoever looks at the live tree does.
    ///
    /// # Errors
    /// git's words.
    pub fn changed_since_start(&self) -> Result<Vec<PathBuf>, WorkspaceError> {
        let state = self.up_to_date()?;
        Ok(state.changed.union(&state.edited).cloned().collect())
    }

    /// Watches the live tree no longer; whoever asks what changed has git look from now on. Blocks while the kernel lets go of its watches,
    /// which may take it 10 ms and more: at the end of a process it would be waited for.
    pub fn rest(&self) {
        // Dropped when nobody waits for the state any more.
        let watch = std::mem::replace(&mut self.lock().watch, Watch::none());
        drop(watch);
    }

    /// The state with a fix for everything that changed up to now.
    fn up_to_date(&self) -> Result<MutexGuard<'_, State>, WorkspaceError> {
        let mut state = self.lock();
        let (shadowed, fresh): (BTreeSet<_>, BTreeSet<_>) =
            self.new_changes(&mut state)?.into_iter().partition(|path| self.is_shadowed(path));
        state.edited.extend(shadowed);
        if !fresh.is_empty() {
            let all: BTreeSet<PathBuf> = state.changed.union(&fresh).cloned().collect();
            let fix = self.directory.join(format!("fix-{}", state.fixes));
            self.write_fix(&fix, &all)?;
            state.changed = all;
            state.fixes += 1;
            state.fix = Some(fix);
        }
        Ok(state)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_changes(&self, state: &mut State) -> Result<BTreeSet<PathBuf>, WorkspaceError> {
        if self.manifest.checkouts.is_empty() {
            return Ok(BTreeSet::new());
        }
        let known = |path: &PathBuf| state.changed.contains(path) || state.edited.contains(path);
        let mut paths = match state.watch.changes() {
            Changes::Paths(paths) => paths,
            Changes::Unknown => {
                let mut paths = checkout::differences(&self.manifest.repository, &self.manifest.checkouts)?;
                // Of what differed already the commit does not tell whether it is as it was.
                paths.retain(|path| !self.is_shadowed(path));
                let edited = |path: &&PathBuf| !self.is_ignored(path) && !self.is_as_in_delta(path);
                paths.extend(self.shadowed.iter().filter(edited).cloned());
                paths.into_iter().collect()
            }
        };
        paths.retain(|path| !known(path) && !self.is_ignored(path));
        Ok(paths)
    }

    /// Whether the delta hides the path or a directory above it because it is ignored.
    fn is_ignored(&self, path: &Path) -> bool {
        let is_hidden = |above: &Path| !self.gone.contains(above) && self.is_whited_out(above);
        path.ancestors().any(|above| self.shadowed.contains(above) && is_hidden(above))
    }

    fn is_whited_out(&self, path: &Path) -> bool {
        let there = fs::symlink_metadata(self.directory.join("delta").join(path));
        there.is_ok_and(|there| layer::is_whiteout(&there))
    }

    /// Whether the live tree has at a path what the delta has there.
    fn is_as_in_delta(&self, path: &Path) -> bool {
        let live = self.manifest.repository.join(path);
        if self.gone.contains(path) {
            return fs::symlink_metadata(&live).is_err();
        }
        is_same(&live, &self.directory.join("delta").join(path)).unwrap_or(false)
    }

    /// Whether the delta has the path or hides a directory above it.
    fn is_shadowed(&self, path: &Path) -> bool {
        path.ancestors().any(|above| self.shadowed.contains(above))
    }

    /// Fills a new layer so that `changed` looks as at the start.
    fn write_fix(&self, fix: &Path, changed: &BTreeSet<PathBuf>) -> Result<(), WorkspaceError> {
        let repository = &self.manifest.repository;
        let at_fix = WorkspaceError::at(fix);
        layer::remove_tree(fix).map_err(WorkspaceError::at(fix))?;
        layer::make_like(fix, repository).map_err(&at_fix)?;
        let restored = self.restore(fix, changed)?;
        let mut made = Made::default();
        // A closed directory needs no whiteouts, and would show them: the kernel looks for them in merged ones only.
        let mut closed: Vec<&PathBuf> = Vec::new();
        for path in changed {
            if closed.iter().any(|above| path.starts_with(above)) {
                continue;
            }
            // Whether the live tree has it at this moment does not matter: it may come and go while jobs run.
            let delta = self.directory.join("delta").join(path);
            if delta.is_dir() || restored.iter().any(|file| file != path && file.starts_with(path)) {
                self.close_directory(fix, path, &mut made).map_err(&at_fix)?;
                closed.push(path);
            } else if !restored.contains(path) {
                layer::white_out(fix, repository, path, &mut made).map_err(&at_fix)?;
            }
        }
        Ok(())
    }

    /// Restores from git what the commits have at or below the changed paths and the delta does not.
    fn restore(&self, fix: &Path, changed: &BTreeSet<PathBuf>) -> Result<BTreeSet<PathBuf>, WorkspaceError> {
        let repository = &self.manifest.repository;
        let mut by_checkout: BTreeMap<usize, Vec<PathBuf>> = BTreeMap::new();
        for path in changed {
            let (index, inside) = self.checkout_of(path);
            by_checkout.entry(index).or_default().push(inside);
        }
        let mut restored = BTreeSet::new();
        for (index, paths) in by_checkout {
            let checkout = &self.manifest.checkouts[index];
            let mut files = checkout::tracked(repository, checkout, Some(&paths))?;
            files.retain(|file| !self.is_shadowed(&checkout.place.join(&file.path)));
            let mut made = Made::default();
            layer::make_parents(fix, repository, &checkout.place.join("any"), &mut made)
                .map_err(WorkspaceError::at(fix))?;
            checkout::restore(repository, checkout, &files, &fix.join(&checkout.place), &fix.with_extension("index"))?;
            restored.extend(files.into_iter().map(|file| checkout.place.join(file.path)));
        }
        Ok(restored)
    }

    /// The innermost checkout that a path is in, by index, and the path within it.
    fn checkout_of(&self, path: &Path) -> (usize, PathBuf) {
        let inside = |checkout: &Checkout| {
            let inside = path.strip_prefix(&checkout.place).ok()?;
            (!inside.as_os_str().is_empty()).then(|| inside.to_owned())
        };
        let candidates = self.manifest.checkouts.iter().enumerate();
        let found = candidates.filter_map(|(index, checkout)| Some((index, checkout, inside(checkout)?)));
        let innermost = found.max_by_key(|(_, checkout, _)| checkout.place.components().count());
        innermost.map_or_else(|| (0, path.to_owned()), |(index, _, inside)| (index, inside))
    }

    /// Makes a directory that was made anew in the live tree show nothing of it: the restored files are in the fix already,
    /// the delta's are copied up, and the rest is hidden.
    fn close_directory(&self, fix: &Path, path: &Path, made: &mut Made) -> io::Result<()> {
        layer::make_parents(fix, &self.manifest.repository, &path.join("any"), made)?;
        let delta = self.directory.join("delta").join(path);
        if delta.is_dir() {
            layer::copy_tree(&delta, &fix.join(path), Whiteouts::Leave, &|_| false)?;
        }
        layer::make_opaque(&fix.join(path))
    }

    /// Makes a copy of what jobs see in `target`, which does not exist; `.git` too.
    ///
    /// # Errors
    /// git's words, or the system's about a file.
    pub fn copy_to(&self, target: &Path) -> Result<(), WorkspaceError> {
        let Layers(layers) = self.layers()?;
        let repository = &self.manifest.repository;
        let at_target = WorkspaceError::at(target);
        layer::make_like(target, repository).map_err(&at_target)?;
        if self.manifest.checkouts.is_empty() {
            let is_skipped = |path: &Path| path.strip_prefix(repository).is_ok_and(|path| self.is_shadowed(path));
            layer::copy_tree(repository, target, Whiteouts::Leave, &is_skipped).map_err(&at_target)?;
        }
        let mut made = Made::default();
        for checkout in &self.manifest.checkouts {
            let git = checkout.place.join(".git");
            layer::copy_into(repository, target, &git, &mut made).map_err(&at_target)?;
            for Tracked { path, .. } in checkout::tracked(repository, checkout, None)? {
                let path = checkout.place.join(path);
                if !self.is_shadowed(&path) {
                    layer::copy_into(repository, target, &path, &mut made).map_err(&at_target)?;
                }
            }
        }
        for above in layers.iter().rev().skip(1) {
            layer::copy_tree(above, target, Whiteouts::Apply, &|_| false).map_err(&at_target)?;
        }
        Ok(())
    }

    /// Copies single files, relative to the repository, as they were at the start into `target`; those that were not there are left out.
    ///
    /// # Errors
    /// As [`Snapshot::copy_to`].
    pub fn copy_files(&self, files: &[PathBuf], target: &Path) -> Result<(), WorkspaceError> {
        let Layers(layers) = self.layers()?;
        let mut made = Made::default();
        for file in files {
            let Some((layer, metadata)) =
                layers.iter().find_map(|layer| Some((layer, fs::symlink_metadata(layer.join(file)).ok()?)))
            else {
                continue;
            };
            if !layer::is_whiteout(&metadata) && !self.is_hidden(&layers, file) {
                layer::make_parents(target, &self.manifest.repository, file, &mut made)
                    .and_then(|()| {
                        layer::copy_tree(&layer.join(file), &target.join(file), Whiteouts::Leave, &|_| false)
                    })
                    .map_err(WorkspaceError::at(target))?;
            }
        }
        Ok(())
    }

    /// Whether a layer above the live tree has a whiteout at a directory that leads to `file`.
    fn is_hidden(&self, layers: &[PathBuf], file: &Path) -> bool {
        let is_whiteout = |path: PathBuf| fs::symlink_metadata(path).is_ok_and(|there| layer::is_whiteout(&there));
        let above = &layers[..layers.len() - 1];
        file.ancestors()
            .skip(1)
            .filter(|directory| !directory.as_os_str().is_empty())
            .any(|directory| above.iter().any(|layer| is_whiteout(layer.join(directory))))
    }
}

/// The first directory at the top of `root` that `delta` does not hide and that is not of this user and group.
fn foreign_directory(root: &Path, delta: &Path, own: (u32, u32)) -> Option<PathBuf> {
    let entries = fs::read_dir(root).ok()?.flatten().take(FOREIGN_LOOKED_AT_MAX);
    let mut foreign = entries.filter(|entry| {
        let is_foreign = |there: &fs::Metadata| there.is_dir() && (there.uid(), there.gid()) != own;
        let is_hidden =
            || fs::symlink_metadata(delta.join(entry.file_name())).is_ok_and(|there| layer::is_whiteout(&there));
        entry.metadata().is_ok_and(|there| is_foreign(&there)) && !is_hidden()
    });
    foreign.next().map(|entry| entry.file_name().into())
}

/// How often the tree is looked at anew because somebody edits it.
const LOOKS_MAX: usize = 2;

/// What git says of a tree, and a watch under which nothing has been touched since: if something was, git is asked again, under the
/// watch.
fn stand_still(repository: &Path, seen: Option<&Seen>) -> Result<(checkout::Status, Watch), WorkspaceError> {
    let (mut since, status) = seen.and_then(|seen| seen.status(repository)).unwrap_or_else(|| look(repository));
    let mut status = status?;
    let mut looks = 0;
    loop {
        let ignored: HashSet<&Path> = status.ignored.iter().map(PathBuf::as_path).collect();
        let (watch, touched) = Watch::place(repository, since, |path| ignored.contains(path));
        if touched == Touched::No {
            return Ok((status, watch));
        }
        if looks == LOOKS_MAX {
            // git tells what differs.
            return Ok((status, Watch::none()));
        }
        let (now, again) = look(repository);
        let again = again?;
        // Then the watch is where it should be.
        if again.ignored == status.ignored {
            return Ok((again, watch));
        }
        (since, status) = (now, again);
        looks += 1;
    }
}

fn look(repository: &Path) -> (Moment, Result<checkout::Status, GitError>) {
    let now = Moment::now();
    (now, checkout::status(repository))
}

/// Keeps which files of the commit were not there; their names need not be UTF-8.
fn write_gone(directory: &Path, gone: &[PathBuf]) -> Result<(), WorkspaceError> {
    let path = directory.join(GONE);
    let names: Vec<&[u8]> = gone.iter().map(|path| path.as_os_str().as_bytes()).collect();
    match names.is_empty() {
        true => Ok(()),
        false => fs::write(&path, names.join(&0)).map_err(WorkspaceError::at(&path)),
    }
}

/// What [`write_gone`] kept.
fn read_gone(directory: &Path) -> HashSet<PathBuf> {
    let names = fs::read(directory.join(GONE)).unwrap_or_default();
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect()
}

/// The file of [`write_gone`], beside the snapshot's layers.
const GONE: &str = "gone";

/// Whether two files, links or directories hold the same.
fn is_same(left: &Path, right: &Path) -> io::Result<bool> {
    let (first, second) = (fs::symlink_metadata(left)?, fs::symlink_metadata(right)?);
    if first.file_type() != second.file_type() {
        return Ok(false);
    }
    if first.is_symlink() {
        return Ok(fs::read_link(left)? == fs::read_link(right)?);
    }
    if first.is_dir() {
        let names = |directory: &Path| -> io::Result<BTreeSet<_>> {
            fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
        };
        let names_left = names(left)?;
        if names_left != names(right)? {
            return Ok(false);
        }
        for name in names_left {
            if !is_same(&left.join(&name), &right.join(&name))? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let is_alike = first.len() == second.len() && first.mode() & 0o111 == second.mode() & 0o111;
    Ok(is_alike && fs::read(left)? == fs::read(right)?)
}

/// The number after the last fix in a directory.
fn next_fix(directory: &Path) -> u32 {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    let numbers = names.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("fix-")?.parse::<u32>().ok());
    numbers.max().map_or(0, |last| last + 1)
}

fn write_delta(repository: &Path, delta: &Path, status: &checkout::Status) -> io::Result<()> {
    let mut made = Made::default();
    for path in &status.present {
        layer::copy_into(repository, delta, path, &mut made)?;
    }
    // In a directory that is gone itself the kernel would show the whiteout.
    let is_hidden =
        |path: &&PathBuf| repository.join(path).parent().is_some_and(|above| above.symlink_metadata().is_ok());
    for path in status.gone.iter().filter(is_hidden).chain(&status.ignored) {
        layer::white_out(delta, repository, path, &mut made)?;
    }
    Ok(())
}

fn write_whiteouts(repository: &Path, delta: &Path, paths: &[PathBuf]) -> io::Result<()> {
    let mut made = Made::default();
    paths.iter().try_for_each(|path| layer::white_out(delta, repository, path, &mut made))
}

/// What the ignore files of a plain directory hide; relative, no path below another.
fn ignored_without_git(root: &Path) -> Vec<PathBuf> {
    let mut walk = ignore::WalkBuilder::new(root);
    walk.hidden(false).git_global(false).git_exclude(false).require_git(false).parents(false).follow_links(false);
    // As the listing has it: what a server would not be sent is not shown here either.
    let outer = crate::tree::around(root);
    walk.filter_entry(move |entry| {
        let is_directory = entry.file_type().is_some_and(|kind| kind.is_dir());
        entry.depth() == 0 || !outer.hides(entry.path(), is_directory)
    });
    let seen: HashSet<PathBuf> = walk.build().flatten().map(ignore::DirEntry::into_path).collect();
    let mut ignored = Vec::new();
    for directory in seen.iter().filter(|path| path.is_dir() && !path.is_symlink()) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if !seen.contains(&path) {
                ignored.extend(path.strip_prefix(root).map(Path::to_owned));
            }
        }
    }
    ignored.sort();
    ignored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_somebody_else_is_found_unless_it_is_hidden() {
        let (root, delta) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        fs::write(root.path().join("file"), "").unwrap();
        let found = |own| foreign_directory(root.path(), delta.path(), own);
        assert_eq!((found(own), found((own.0, own.1 + 1))), (None, None), "a file can be replaced");
        fs::create_dir(root.path().join("src")).unwrap();
        assert_eq!((found(own), found((own.0, own.1 + 1))), (None, Some("src".into())));
        layer::white_out(delta.path(), root.path(), Path::new("src"), &mut Made::default()).unwrap();
        assert_eq!(found((own.0 + 1, own.1)), None);
    }
}
