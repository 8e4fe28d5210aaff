//! The state of the user's tree at the start of a build, kept without copying what git has.
//!
//! Three layers above the live tree make it stand still: the *delta* holds what differs from the commit, as it was at the
//! start, and whiteouts over what is ignored; a *fix* holds, for files that changed since, what they were, and whiteouts
//! over what is new. A fix is never changed once a job has it: the next change makes the next fix. Between two looks at
//! the tree a running job may still see an edit of a file that it has not written itself ([`Snapshot::edited_under`]).

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
use super::git_layer::{self, Told};
use super::layer::{self, Made, Whiteouts};
use super::look::Seen;
use super::watch::{Changes, Moment, Touched, Watch};
use super::{WorkspaceError, read_json, write_json};
use crate::files::is_of_git;
use crate::git::GitError;
use crate::keeper::Right;
use crate::path_text;
use crate::patterns::by_bytes;
use crate::repository::{self, Standing};
use crate::tree::Tree;

/// How many entries of a tree's top are looked at for a foreign owner.
const FOREIGN_LOOKED_AT_MAX: usize = 10_000;

/// What a snapshot needs to be opened again.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Manifest {
    #[serde(with = "path_text")]
    repository: PathBuf,
    /// The project's folder, relative to the repository; empty if it is the whole.
    #[serde(default, with = "path_text")]
    prefix: PathBuf,
    /// Empty where there is no git.
    checkouts: Vec<Checkout>,
    #[serde(default)]
    tree: TreeKind,
    /// Where jobs see the tree; at its own place if it says nothing.
    #[serde(default, with = "path_text::option")]
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
    /// Looked for once, when the first job asks.
    oldest_ns: OnceLock<Option<i64>>,
    /// Since when the tree is known to have stood still until it was taken; `None` if it was taken by another process, or nobody can say.
    still_since: Option<Moment>,
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
        Self::take_seen(project, directory, None, Moment::now())
    }

    /// As [`Snapshot::take`], by what was seen before, if that was this checkout and nothing in it was touched since. Somebody has read files of
    /// it since `since`: see [`Snapshot::changed_since`].
    ///
    /// # Errors
    /// As there.
    pub fn take_seen(
        project: &Path,
        directory: &Path,
        seen: Option<&Seen>,
        since: Moment,
    ) -> Result<Self, WorkspaceError> {
        let project = fs::canonicalize(project).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => GitError::NoFolder(project.to_owned()).into(),
            _ => WorkspaceError::at(project)(error),
        })?;
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
        let made = Made::layer(&delta, &repository).map_err(WorkspaceError::at(&delta))?;
        let make = |checkouts| {
            let manifest =
                Manifest { repository: repository.clone(), prefix, checkouts, tree: TreeKind::Live, shown: None };
            write_json(&directory.join("snapshot.json"), &manifest)?;
            Ok::<_, WorkspaceError>(manifest)
        };
        if !is_checkout {
            let ignored = ignored_without_git(&repository);
            write_whiteouts(&repository, &delta, &ignored, made).map_err(WorkspaceError::at(&delta))?;
            let manifest = make(Vec::new())?;
            return Self::with(directory, manifest, Watch::none());
        }
        let Still { status, watch, since } = stand_still(&repository, &directory, seen, since)?;
        write_delta(&repository, &delta, &status, made)?;
        write_gone(&directory, &status.gone)?;
        let manifest = make(status.checkouts)?;
        // What was edited while the delta was written is told by the watch, to whoever asks for the layers.
        let taken = Self::with(directory, manifest, watch)?;
        Ok(Self { still_since: Some(since.unwrap_or_else(Moment::now)), ..taken })
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
        let (foreign, oldest_ns, state) = (OnceLock::new(), OnceLock::new(), Mutex::new(state));
        Ok(Self { directory, manifest, shadowed, gone, foreign, oldest_ns, still_since: None, state })
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

    /// Whether the tree is never written to.
    pub(super) fn is_immutable(&self) -> bool {
        self.manifest.tree == TreeKind::Immutable
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
        layers.extend(git_layer::inside(&self.directory));
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

    /// Whether the kernel tells what changes in the live tree, so that asking costs next to nothing.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.lock().watch.is_placed()
    }

    /// What has changed since the start and shows through these layers, of which the live tree is the last; relative, sorted. Nothing if it is
    /// not. What was made and taken away again is left out.
    ///
    /// # Errors
    /// git's words, or the system's about a file.
    pub fn edited_under(&self, layers: &[PathBuf]) -> Result<Vec<PathBuf>, WorkspaceError> {
        let Some((live, above)) = layers.split_last().filter(|(live, _)| **live == self.manifest.repository) else {
            return Ok(Vec::new());
        };
        let state = self.up_to_date()?;
        let Some(fix) = &state.fix else { return Ok(Vec::new()) };
        let is_known = |path: &Path| {
            let is_of_commit = fs::symlink_metadata(fix.join(path)).is_ok_and(|there| !layer::is_whiteout(&there));
            is_of_commit || fs::symlink_metadata(live.join(path)).is_ok()
        };
        let shows = |path: &&PathBuf| !above.iter().any(|layer| layer::covers(layer, path)) && is_known(path);
        Ok(state.changed.iter().filter(shows).cloned().collect())
    }

    /// What of the tree may not be as jobs see it, for one who has read files since a moment: of all else he has read what they read. Relative,
    /// sorted. `None` if the tree may have changed before it was taken, or nobody can tell.
    #[must_use]
    pub fn changed_since(&self, since: Moment) -> Option<Vec<PathBuf>> {
        let is_known = self.still_since.is_some_and(|still| still <= since);
        is_known.then(|| self.changed_since_start().ok())?
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
        // Of a repository that the commit does not know the delta has `.git` too, in which git itself writes.
        paths.retain(|path| !is_of_git(path) && !known(path) && !self.is_ignored(path));
        Ok(paths)
    }

    /// Whether the delta hides the path or a directory above it because it is ignored.
    fn is_ignored(&self, path: &Path) -> bool {
        let is_hidden = |above: &Path| !self.gone.contains(above) && self.is_whited_out(above);
        path.ancestors().any(|above| self.shadowed.contains(above) && is_hidden(above))
    }

    fn is_whited_out(&self, path: &Path) -> bool {
        self.in_delta(path).is_some_and(|there| layer::is_whiteout(&there))
    }

    /// Whether the delta holds something at a path, which it does not hide.
    fn is_in_delta(&self, path: &Path) -> bool {
        self.in_delta(path).is_some_and(|there| !layer::is_whiteout(&there))
    }

    fn in_delta(&self, path: &Path) -> Option<fs::Metadata> {
        fs::symlink_metadata(self.directory.join("delta").join(path)).ok()
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
        let mut made = Made::layer(fix, repository).map_err(&at_fix)?;
        let restored = self.restore(fix, changed, &mut made)?;
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
        made.end().map_err(at_fix)
    }

    /// Restores from git what the commits have at or below the changed paths and the delta does not.
    fn restore(
        &self,
        fix: &Path,
        changed: &BTreeSet<PathBuf>,
        made: &mut Made,
    ) -> Result<BTreeSet<PathBuf>, WorkspaceError> {
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
            // git would make directories with modes of its own.
            let paths = files.iter().map(|file| checkout.place.join(&file.path));
            for path in paths.chain([checkout.place.join("any")]) {
                layer::make_parents(fix, repository, &path, made).map_err(WorkspaceError::at(fix))?;
            }
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
        // First: what the delta has may be a directory that nobody may write.
        layer::make_opaque(&fix.join(path))?;
        let delta = self.directory.join("delta").join(path);
        if delta.is_dir() {
            layer::copy_tree(&delta, &fix.join(path), Whiteouts::Leave, &|_| false)?;
        }
        Ok(())
    }

    /// Makes a copy of what jobs see in `target`, which does not exist; `.git` too.
    ///
    /// # Errors
    /// git's words, or the system's about a file.
    pub fn copy_to(&self, target: &Path) -> Result<(), WorkspaceError> {
        let Layers(layers) = self.layers()?;
        let repository = &self.manifest.repository;
        let at_target = WorkspaceError::at(target);
        let mut made = Made::layer(target, repository).map_err(&at_target)?;
        if self.manifest.checkouts.is_empty() {
            let is_skipped = |path: &Path| path.strip_prefix(repository).is_ok_and(|path| self.is_shadowed(path));
            layer::copy_tree(repository, target, Whiteouts::Leave, &is_skipped).map_err(&at_target)?;
        }
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
        made.end().map_err(&at_target)?;
        git_layer::clear(repository, &self.manifest.checkouts, &self.directory, target).map_err(&at_target)?;
        for above in layers.iter().rev().skip(1) {
            layer::copy_tree(above, target, Whiteouts::Apply, &|_| false).map_err(&at_target)?;
        }
        Ok(())
    }

    /// The project's files as they were at the start, relative to its folder, sorted by bytes; where there is no git, those that are there now.
    ///
    /// # Errors
    /// git's words.
    pub fn files(&self) -> Result<Vec<PathBuf>, WorkspaceError> {
        let Manifest { repository, prefix, checkouts, .. } = &self.manifest;
        let files = self.known_files()?;
        let mut files: Vec<PathBuf> =
            files.iter().filter_map(|path| path.strip_prefix(prefix).ok()).map(Path::to_owned).collect();
        if checkouts.is_empty() {
            files.extend_from_slice(Tree::list(&repository.join(prefix))?.paths());
        }
        files.sort_unstable_by(|left, right| by_bytes(left, right));
        files.dedup();
        Ok(files)
    }

    /// The files of all checkouts as they were at the start, relative to the repository; none where there is no git.
    fn known_files(&self) -> Result<Vec<PathBuf>, WorkspaceError> {
        let Manifest { repository, checkouts, .. } = &self.manifest;
        let mut files = Vec::new();
        for checkout in checkouts {
            let tracked = checkout::tracked(repository, checkout, None)?;
            files.extend(tracked.into_iter().map(|file| checkout.place.join(file.path)));
        }
        files.retain(|path| !self.is_shadowed(path));
        let own = self.shadowed.iter().filter(|path| !is_of_git(path) && self.is_in_delta(path));
        files.extend(own.cloned());
        Ok(files)
    }

    /// When that file was modified, in nanoseconds since the Unix epoch, of which that is longest ago of all that jobs see, but for git's own;
    /// or an earlier moment. `None` if there is no file, or nobody can say. Looked for once.
    #[must_use]
    pub fn oldest_ns(&self) -> Option<i64> {
        let look = || {
            let repository = &self.manifest.repository;
            let files = match self.manifest.checkouts.is_empty() {
                true => layer::entries_beside(repository, &|name| name == ".git").ok()?,
                false => self.known_files().ok()?.into_iter().collect(),
            };
            let delta = self.directory.join("delta");
            let places = files.iter().flat_map(|path| [repository.join(path), delta.join(path)]);
            let modified = places.filter_map(|place| fs::symlink_metadata(place).ok());
            modified.map(|there| there.mtime().saturating_mul(1_000_000_000).saturating_add(there.mtime_nsec())).min()
        };
        *self.oldest_ns.get_or_init(look)
    }

    /// What files, relative to the project's folder, held at the start, in this order; `None` of one that was not there, or is no file.
    ///
    /// # Errors
    /// git's words, or the system's about a file.
    pub fn contents(&self, files: &[PathBuf]) -> Result<Vec<Option<Vec<u8>>>, WorkspaceError> {
        let Layers(layers) = self.layers()?;
        let content = |file: &PathBuf| {
            let file = self.manifest.prefix.join(file);
            let there = |layer: &PathBuf| Some((layer.join(&file), fs::symlink_metadata(layer.join(&file)).ok()?));
            match layers.iter().find_map(there) {
                Some((path, metadata)) if metadata.is_file() && !self.is_hidden(&layers, &file) => {
                    fs::read(&path).map(Some).map_err(WorkspaceError::at(&path))
                }
                Some(_) | None => Ok(None),
            }
        };
        files.iter().map(content).collect()
    }

    /// Copies single files, relative to the repository, as they were at the start into `target`, of which these directories are made; those that
    /// were not there are left out.
    ///
    /// # Errors
    /// As [`Snapshot::copy_to`].
    pub(super) fn copy_files(&self, files: &[PathBuf], target: &Path, mut made: Made) -> Result<(), WorkspaceError> {
        let Layers(layers) = self.layers()?;
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
        made.end().map_err(WorkspaceError::at(target))
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

/// A tree that stands still, or is watched.
struct Still {
    /// What git says of it.
    status: checkout::Status,
    watch: Watch,
    /// Nothing was touched from then until the watch; `None` if there is none.
    since: Option<Moment>,
}

/// What git says of a tree, and a watch under which nothing has been touched since `since`, nor since git looked: if something was, git is
/// asked again, under the watch. How git's own state stood then is kept in `directory`.
fn stand_still(
    repository: &Path,
    directory: &Path,
    seen: Option<&Seen>,
    since: Moment,
) -> Result<Still, WorkspaceError> {
    let (looked, status) = seen.and_then(|seen| seen.status(repository)).unwrap_or_else(|| look(repository));
    let (mut since, mut status) = (since.min(looked), status?);
    let mut looks = 0;
    loop {
        let ignored: HashSet<&Path> = status.ignored.iter().map(PathBuf::as_path).collect();
        let (told, (watch, touched)) = std::thread::scope(|scope| {
            let git = scope.spawn(|| git_layer::write(repository, &status.checkouts, directory));
            let placed = Watch::place(repository, since, |path| ignored.contains(path));
            (git.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), placed)
        });
        if (told?, touched) == (Told::Same, Touched::No) {
            let since = Some(since).filter(|_| watch.is_placed());
            return Ok(Still { status, watch, since });
        }
        if looks == LOOKS_MAX {
            // git tells what differs.
            return Ok(Still { status, watch: Watch::none(), since: None });
        }
        let (now, again) = look(repository);
        let again = again?;
        // Then the watch is where it should be.
        if again.ignored == status.ignored && git_layer::write(repository, &again.checkouts, directory)? != Told::Other
        {
            return Ok(Still { status: again, watch, since: Some(now) });
        }
        (since, status) = (now, again);
        looks += 1;
    }
}

fn look(repository: &Path) -> (Moment, Result<checkout::Status, WorkspaceError>) {
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

fn write_delta(
    repository: &Path,
    delta: &Path,
    status: &checkout::Status,
    mut made: Made,
) -> Result<(), WorkspaceError> {
    let at_delta = WorkspaceError::at(delta);
    for path in &status.present {
        let copied = layer::copy_into(repository, delta, path, &mut made);
        copied.map_err(|error| {
            let unreadable = WorkspaceError::unreadable(repository, path);
            unreadable.unwrap_or_else(|| WorkspaceError::uncopied(repository, path, error))
        })?;
        // The whole of a repository that the commit does not know: nothing that git does in it later shows.
        let copy = delta.join(path);
        if path.ends_with(".git") && copy.is_dir() {
            git_layer::close(&copy).map_err(&at_delta)?;
        }
    }
    // In a directory that is gone itself the kernel would show the whiteout.
    let is_hidden =
        |path: &&PathBuf| repository.join(path).parent().is_some_and(|above| above.symlink_metadata().is_ok());
    for path in status.gone.iter().filter(is_hidden).chain(&status.ignored) {
        layer::white_out(delta, repository, path, &mut made).map_err(&at_delta)?;
    }
    made.end().map_err(at_delta)
}

fn write_whiteouts(repository: &Path, delta: &Path, paths: &[PathBuf], mut made: Made) -> io::Result<()> {
    paths.iter().try_for_each(|path| layer::white_out(delta, repository, path, &mut made))?;
    made.end()
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
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::look::Look;
    use super::super::steps::tests::become_ordinary;
    use super::super::watch::tests::pass;
    use super::*;
    use crate::repository::tests::{git, repository};

    /// The layers of one snapshot after the other.
    fn take(repository: &Path) -> (tempfile::TempDir, Result<Snapshot, WorkspaceError>) {
        let data = tempfile::tempdir().unwrap();
        let taken = Snapshot::take(repository, &data.path().join("snapshot"));
        (data, taken)
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        become_ordinary();
        let repository = repository();
        let at = |path: &str| repository.path().join(path);
        let shut = |path: &str| fs::set_permissions(at(path), fs::Permissions::from_mode(0o0)).unwrap();
        let named = || match take(repository.path()).1 {
            Ok(_) => None,
            Err(WorkspaceError::Unreadable { path, .. }) => Some(path),
            Err(error) => panic!("{error}"),
        };
        let told = || Look::begin(repository.path()).end().unwrap().check_readable().map_err(|error| error.to_string());
        symlink("nowhere", at("dangling")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::empty(), 0)
            .unwrap();
        assert_eq!((named(), told()), (None, Ok(())), "neither is read");
        shut("a");
        assert_eq!((named(), told()), (None, Ok(())), "it is as in the commit");
        fs::create_dir(at("b")).unwrap();
        fs::write(at("b/secret"), "").unwrap();
        shut("b/secret");
        assert_eq!(named(), Some("b/secret".into()));
        let text = "jobs are given a copy of `b/secret`, which is not as in the commit, and it cannot be read: make it readable, or, if git \
                    does not track it, name it in a .gitignore";
        assert_eq!(told(), Err(text.to_owned()));
        fs::write(at(".gitignore"), "secret\n").unwrap();
        assert_eq!((named(), told()), (None, Ok(())));
        git(repository.path(), &["init", "-q", "inner"]);
        fs::write(at("inner/file"), "").unwrap();
        shut("inner/file");
        assert_eq!(named(), Some("inner/file".into()));
    }

    #[test]
    fn holes_of_a_file_take_no_room_in_its_copy() {
        let repository = repository();
        let path = repository.path().join("disk.img");
        let file = fs::File::create(&path).unwrap();
        file.set_len(48 << 20).unwrap();
        for place in [16 << 20, 32 << 20] {
            std::os::unix::fs::FileExt::write_all_at(&file, b"data", place).unwrap();
        }
        let (_data, taken) = take(repository.path());
        let snapshot = taken.unwrap();
        let copy = snapshot.directory().join("delta/disk.img");
        assert!(is_same(&path, &copy).unwrap());
        let bytes = fs::metadata(&copy).unwrap().blocks() * 512;
        assert!(bytes < 1 << 20, "{bytes} bytes of the disk");
    }

    #[test]
    fn a_file_that_cannot_be_copied_is_named() {
        let (root, delta) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(root.path().join("folder")).unwrap();
        fs::write(root.path().join("folder/large"), "12345").unwrap();
        // There is no place for it.
        fs::create_dir_all(delta.path().join("folder/large/taken")).unwrap();
        let status = checkout::Status { present: vec!["folder/large".into()], ..checkout::Status::default() };
        let error = write_delta(root.path(), delta.path(), &status, Made::default()).unwrap_err().to_string();
        let text = "jobs are given a copy of `folder/large` (5 bytes), which is not as in the commit, and it could not be made: if git does not \
                    track it and jobs do not need it, name it in a .gitignore";
        assert_eq!(error, text);
    }

    #[test]
    fn what_changes_and_shows_through_the_layers_is_told() {
        let repository = repository();
        let root = repository.path();
        let at = |path: &str| root.join(path);
        for path in ["b", "c", "folder/d"] {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), "1").unwrap();
        }
        git(root, &["add", "."]);
        git(root, &["commit", "-q", "-m", "two"]);
        fs::write(at("a"), "edited before").unwrap();
        let (_data, taken) = take(root);
        let snapshot = taken.unwrap();
        let Layers(first) = snapshot.layers().unwrap();
        let check = |layers: &[PathBuf], expected: &[&str]| {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(snapshot.edited_under(layers).unwrap(), expected);
        };
        check(&first, &[]);
        fs::write(at("a"), "edited again").unwrap();
        fs::write(at("b"), "2").unwrap();
        fs::remove_file(at("folder/d")).unwrap();
        fs::write(at("passing"), "").unwrap();
        fs::remove_file(at("passing")).unwrap();
        check(&first, &["b", "folder/d"]);
        let Layers(second) = snapshot.layers().unwrap();
        fs::write(at("c"), "2").unwrap();
        fs::write(at("b"), "3").unwrap();
        fs::write(at("new"), "").unwrap();
        check(&second, &["c", "new"]);
        check(&first, &["b", "c", "folder/d", "new"]);
        check(&second[..1], &[]);
    }

    #[test]
    fn what_has_gone_since_git_looked_is_left_out() {
        let (root, delta) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(root.path().join("file"), "").unwrap();
        let present = ["file", "file/below", "gone", "gone/below"].map(PathBuf::from).to_vec();
        let status = checkout::Status { present, ..checkout::Status::default() };
        write_delta(root.path(), delta.path(), &status, Made::default()).unwrap();
        assert_eq!(layer::entries(delta.path()).unwrap(), ["file".into()].into());
    }

    #[test]
    fn files_are_those_of_the_start() {
        let repository = repository();
        let root = repository.path();
        let write = |path: &str| {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), "1").unwrap();
        };
        write("tracked/b");
        git(root, &["add", "."]);
        git(root, &["commit", "-q", "-m", "two"]);
        git(root, &["rm", "-q", "a"]);
        write("new/c");
        write("out/ignored");
        fs::write(root.join(".gitignore"), "out\n").unwrap();
        let (_data, taken) = take(root);
        let snapshot = taken.unwrap();
        fs::remove_file(root.join("new/c")).unwrap();
        git(root, &["rm", "-q", "-r", "tracked"]);
        write("later");
        let expected = [".gitignore", "new/c", "tracked/b"].map(PathBuf::from);
        assert_eq!(snapshot.files().unwrap(), expected);
        git(root, &["reset", "-q", "--hard"]);
        git(root, &["init", "-q", "inner"]);
        for path in ["inner/d", "inner/out/ignored"] {
            write(path);
        }
        let (_data, taken) = take(&root.join("inner"));
        assert_eq!(taken.unwrap().files().unwrap(), ["d", "out/ignored"].map(PathBuf::from));
        let (_data, taken) = take(root);
        let listed: Vec<PathBuf> = taken.unwrap().files().unwrap();
        assert_eq!(listed, Tree::list(root).unwrap().paths(), "without what is ignored, and its .git");
        assert!(listed.contains(&"inner/d".into()));
    }

    /// The files of a tree, but for those in a `.git`; relative.
    fn files_in(root: &Path) -> BTreeSet<PathBuf> {
        layer::entries(root).unwrap().into_iter().filter(|path| !is_of_git(path)).collect()
    }

    #[test]
    fn of_repositories_within_jobs_see_what_has_a_digest() {
        let repository = repository();
        let root = repository.path();
        let write = |path: &str, text: &str| {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        };
        write(".gitignore", "*.o\n");
        for (nested, tracked) in
            [("known", "kept.o"), ("foreign", "kept.o"), ("foreign/deep", "f"), ("known/within", "f")]
        {
            for name in [tracked, "new", "a.o", "made/a.o", "own"] {
                write(&format!("{nested}/{name}"), "start");
            }
            write(&format!("{nested}/.gitignore"), "own\n");
            let within = root.join(nested);
            git(&within, &["init", "-q"]);
            git(&within, &["add", "-f", tracked, ".gitignore"]);
            git(&within, &["commit", "-q", "-m", "x"]);
        }
        git(root, &["-c", "advice.addEmbeddedRepo=false", "add", "-f", "known"]);
        fs::create_dir(root.join("foreign/empty")).unwrap();
        let seen = Look::begin(root).end().unwrap();
        let (data, taken) = take(root);
        let expected: BTreeSet<PathBuf> = Tree::list(root).unwrap().paths().iter().cloned().collect();
        for path in
            ["known/kept.o", "known/new", "foreign/kept.o", "foreign/deep/f", "foreign/deep/new", "known/within/f"]
        {
            assert!(expected.contains(Path::new(path)), "{path} in {expected:?}");
        }
        assert!(!expected.iter().any(|path| path.ends_with("a.o") || path.ends_with("own")), "{expected:?}");
        let check = |snapshot: &Snapshot, name: &str| {
            assert_eq!(snapshot.files().unwrap().into_iter().collect::<BTreeSet<_>>(), expected);
            let copy = data.path().join(name);
            snapshot.copy_to(&copy).unwrap();
            assert_eq!(files_in(&copy), expected);
            assert_eq!(fs::read_to_string(copy.join("known/kept.o")).unwrap(), "start");
            assert_eq!(fs::read_to_string(copy.join("foreign/kept.o")).unwrap(), "start");
            assert!(copy.join("foreign/.git/index").exists());
        };
        let snapshot = taken.unwrap();
        check(&snapshot, "first");
        for nested in ["foreign", "known"] {
            // git writes its index anew.
            write(&format!("{nested}/kept.o"), "start");
            git(&root.join(nested), &["status"]);
            write(&format!("{nested}/a.o"), "other");
        }
        let directory = data.path().join("snapshot");
        assert_eq!(Snapshot::reopen(&directory).unwrap().changed_since_start().unwrap(), Vec::<PathBuf>::new());
        for nested in ["foreign", "known"] {
            write(&format!("{nested}/kept.o"), "other");
            write(&format!("{nested}/later"), "other");
        }
        check(&snapshot, "second");
        check(&Snapshot::reopen(&directory).unwrap(), "third");
        let seen = Snapshot::take_seen(root, &data.path().join("seen"), Some(&seen), Moment::now()).unwrap();
        assert_eq!(seen.files().unwrap(), Tree::list(root).unwrap().paths());
    }

    #[test]
    fn who_read_files_before_they_were_taken_is_told_what_changed() {
        let repository = repository();
        let root = repository.path();
        let since = pass();
        let take = |name: &str, seen: Option<&Seen>| {
            let data = tempfile::tempdir().unwrap();
            (Snapshot::take_seen(root, &data.path().join(name), seen, since).unwrap(), data)
        };
        let (snapshot, _data) = take("still", None);
        assert_eq!(snapshot.changed_since(since), Some(Vec::new()));
        fs::write(root.join("a"), "later").unwrap();
        assert_eq!(snapshot.changed_since(since), Some(vec!["a".into()]));
        let (snapshot, _data) = take("touched", Look::begin(root).end().as_ref());
        assert_eq!(snapshot.changed_since(since), None, "he may have read what was there before");
        assert_eq!(snapshot.changed_since(Moment::now()), Some(Vec::new()));
    }

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
