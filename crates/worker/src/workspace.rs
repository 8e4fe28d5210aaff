//! The files of one job: the user's tree as it was when the build began, at the same path, with the job's changes apart.
//! The tree is the whole checkout; the project may be a folder of it, and is where steps begin.
//!
//! [`Snapshot`] holds the state of the start for all jobs of a build; [`Workspace`] is one job's place above it, kept after
//! the job's end until somebody takes it away, and opened again by [`Workspace::reopen`]. On Linux it is an overlay in a
//! mount namespace of its own; where that is refused it is a copy at another path, and [`OpenWorkspace::note`] says so.
//! Nothing here writes to the user's tree.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use graph::Environment;
use rustix::fs::{Mode, OFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::git::GitError;
use crate::keeper::{KeeperError, Processes, View, ViewError, ViewId};
use crate::path_text;
use crate::repository;
use crate::tree::TreeError;

mod checkout;
mod git_layer;
mod layer;
mod look;
mod snapshot;
mod spare;
mod steps;
mod watch;

pub use layer::remove_tree;
pub(crate) use layer::{Made, assume, is_moved, is_opaque, is_whiteout, make_parents};
#[cfg(test)]
pub(crate) use layer::{entries, make_opaque};
pub use look::{Beginning, Blind, Look, Seen};
pub use snapshot::{Layers, Snapshot};
pub use spare::{Spare, remove_spares};
pub use steps::{
    BUILD_BYTES_MAX, BUILD_FILES_MAX, Budget, Layer, STEP_BYTES_MAX, STEP_FILES_MAX, StepBounds, StepLayers, TEMPORARY,
    UPPER, Unkept, collect_layers, has_layers, layer_directory, note_layers,
};
pub use watch::{DIRECTORIES_MAX, Moment, Vigil};

/// How folders are held: for their paths only, and never through a link.
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A workspace or snapshot could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// git did not answer.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The system refused something about a file.
    #[error("prepare the workspace at `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Its words.
        #[source]
        source: io::Error,
    },
    /// A file of the tree that differs from the commit cannot be copied.
    #[error(
        "jobs are given a copy of `{}`, which is not as in the commit, and it cannot be read: make it readable, or, if git does not track it, \
         name it in a .gitignore",
        path.display()
    )]
    Unreadable {
        /// Which, relative to the repository.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// A file of the tree that differs from the commit could not be copied.
    #[error(
        "jobs are given a copy of `{}` ({bytes} bytes), which is not as in the commit, and it could not be made: if git does not track it and \
         jobs do not need it, name it in a .gitignore",
        path.display()
    )]
    Uncopied {
        /// Which, relative to the repository; a folder, if that is a repository of its own.
        path: PathBuf,
        /// How long it is; of a folder, all its files.
        bytes: u64,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// The files of the tree cannot be listed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The layers would lie in the tree they hide; the kernel refuses that.
    #[error("the workspace's directory `{}` lies inside the repository `{}`: set ROPEWALK_DATA to a folder outside it", directory.display(), repository.display())]
    Inside {
        /// Where the layers were to go.
        directory: PathBuf,
        /// The tree.
        repository: PathBuf,
    },
    /// What is kept of an earlier workspace cannot be read.
    #[error("read `{}`", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The keeper is gone.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The tree is not that of the build's start any more, which is not kept.
    #[error(transparent)]
    Moved(#[from] Moved),
}

/// What the state of a build's start is not, and is not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Moved {
    /// Another commit is checked out.
    #[error(
        "the build began at commit {}, and commit {} is checked out now: `ropewalk run` begins a build of what is there",
        short(was),
        short(now)
    )]
    Commit {
        /// That of the start; empty before the first one.
        was: String,
        /// That of now.
        now: String,
    },
    /// The files were not those of the commit, then or now.
    #[error(
        "the files that the build began with are not kept, and were not those of its commit, or are not any more: `ropewalk run` begins a build of what is there"
    )]
    Files,
}

fn short(commit: &str) -> &str {
    match commit.get(..12) {
        Some(short) => short,
        None if commit.is_empty() => "(none)",
        None => commit,
    }
}

impl WorkspaceError {
    /// What cannot be read at or below a path of the repository; `None` if all of it can.
    fn unreadable(repository: &Path, path: &Path) -> Option<Self> {
        let (path, source) = layer::unreadable(&repository.join(path))?;
        Some(Self::Unreadable { path: path.strip_prefix(repository).unwrap_or(&path).to_owned(), source })
    }

    /// What could not be copied at a path of the repository.
    fn uncopied(repository: &Path, path: &Path, source: io::Error) -> Self {
        Self::Uncopied { path: path.to_owned(), bytes: layer::length(&repository.join(path)), source }
    }

    fn at(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path: path.clone(), source }
    }
}

/// A layer could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// The system refused.
    #[error("the system refused to {0}")]
    View(#[from] ViewError),
    /// Anything else.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
}

/// The layers of a repository that lies outside of its checkout.
const GIT_UPPER: &str = "git-upper";
const GIT_WORK: &str = "git-work";

/// Which files of the snapshot a job sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Files {
    /// All, `.git` too.
    All,
    /// These, relative to the repository, and nothing else.
    Only(#[serde(with = "path_text::list")] Vec<PathBuf>),
}

/// How a workspace shows the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    /// An overlay at the repository's own path.
    Overlay,
    /// A copy in the workspace's directory.
    Copy,
}

/// What is kept of a workspace so that it can be opened again. Old fields stay; new ones have defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    #[serde(with = "path_text")]
    snapshot: PathBuf,
    #[serde(with = "path_text")]
    repository: PathBuf,
    /// The project's folder, relative to the repository.
    #[serde(default, with = "path_text")]
    prefix: PathBuf,
    files: Files,
    form: Form,
    /// Where an overlay is mounted; over the repository itself if it says nothing.
    #[serde(default, with = "path_text::option")]
    shown: Option<PathBuf>,
    /// Layers that stand above those of the snapshot, the topmost first: restored caches.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "path_text::list")]
    above: Vec<PathBuf>,
    /// Where git keeps what belongs to the checkout, if that is outside of it: shown to the job apart from the user's, too.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "path_text::option")]
    git: Option<PathBuf>,
    /// Where the job's steps run. Unknown of one that no job has yet, and in what was kept before it was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    environment: Option<Environment>,
}

impl Manifest {
    /// Of a fresh workspace.
    fn new(snapshot: &Snapshot, files: Files) -> Self {
        Self {
            snapshot: snapshot.directory().to_owned(),
            repository: snapshot.repository().to_owned(),
            prefix: snapshot.prefix().to_owned(),
            files,
            form: Form::Overlay,
            shown: snapshot.shown().map(Path::to_owned),
            above: Vec::new(),
            git: repository::directory_outside(snapshot.repository()),
            environment: None,
        }
    }
}

/// One job's files: a directory with its changes, made from a snapshot.
#[derive(Debug)]
pub struct Workspace {
    directory: PathBuf,
    manifest: Manifest,
    /// The layers below the job's own.
    lower: Vec<PathBuf>,
}

/// What a kept workspace is besides its own layers.
#[derive(Clone, Debug)]
pub struct Outline {
    /// Which files of the snapshot it shows.
    pub files: Files,
    /// Layers that stand above those of the snapshot, the topmost first: restored caches.
    pub above: Vec<PathBuf>,
    /// The root of the tree as the job saw it.
    pub tree: PathBuf,
}

/// A workspace that steps can run in.
#[derive(Debug)]
pub struct OpenWorkspace {
    /// For [`crate::keeper::Command::view`]; `None` for a copy.
    pub view: Option<ViewId>,
    /// The tree's root as steps see it: all that is the job's own.
    pub tree: PathBuf,
    /// The project's folder as steps see it, which is the root of all paths and globs.
    pub root: PathBuf,
    /// The same directory for this process: `/proc/self/fd/N` into the overlay, or the copy. It was opened before any step
    /// ran, so that no step can put a link in its place.
    pub files: PathBuf,
    /// What people should know: why this is a copy.
    pub note: Option<String>,
    /// Keeps `files` meaningful.
    held: OwnedFd,
}

impl OpenWorkspace {
    /// Lets go of the mount. The changes stay in the workspace's directory.
    ///
    /// # Errors
    /// The keeper is gone.
    pub async fn close(self, processes: &Processes) -> Result<(), KeeperError> {
        drop(self.held);
        match self.view {
            Some(view) => processes.close_view(view).await,
            None => Ok(()),
        }
    }
}

impl Workspace {
    /// Makes a job's place in `directory`, which is made, from the state of the build's start. Its steps will run in `environment`.
    ///
    /// # Errors
    /// git's words, or the system's about a file.
    pub fn create(
        snapshot: &Snapshot,
        directory: &Path,
        files: Files,
        environment: &Environment,
    ) -> Result<Self, WorkspaceError> {
        let mut workspace = Self::lay(snapshot, directory, files)?;
        workspace.manifest.environment = Some(environment.clone());
        workspace.save()?;
        Ok(workspace)
    }

    /// As [`Workspace::create`], but nobody finds it by its directory yet.
    fn lay(snapshot: &Snapshot, directory: &Path, files: Files) -> Result<Self, WorkspaceError> {
        std::fs::create_dir_all(directory).map_err(WorkspaceError::at(directory))?;
        let directory = std::fs::canonicalize(directory).map_err(WorkspaceError::at(directory))?;
        let repository = snapshot.repository();
        let manifest = Manifest::new(snapshot, files.clone());
        let of_git = manifest.git.as_deref().map(|git| [(GIT_UPPER, git), (GIT_WORK, git)]);
        for (part, model) in
            [("upper", repository), ("work", repository)].into_iter().chain(of_git.into_iter().flatten())
        {
            let part = directory.join(part);
            layer::make_like(&part, model).map_err(WorkspaceError::at(&part))?;
        }
        let lower = match &files {
            Files::All => snapshot.layers()?.0,
            Files::Only(paths) => {
                let stage = directory.join("stage");
                let mut made = Made::layer(&stage, repository).map_err(WorkspaceError::at(&stage))?;
                layer::make_parents(&stage, repository, &snapshot.prefix().join("any"), &mut made)
                    .map_err(WorkspaceError::at(&stage))?;
                snapshot.copy_files(paths, &stage, made)?;
                vec![stage]
            }
        };
        Ok(Self { directory, manifest, lower })
    }

    /// Finds the place of a job that ended, with what it had changed; its build's snapshot must still be there. The user's tree
    /// may have changed since: what the job saw of it is restored from git.
    ///
    /// # Errors
    /// It is not there or cannot be read.
    pub fn reopen(directory: &Path) -> Result<Self, WorkspaceError> {
        let directory = std::fs::canonicalize(directory).map_err(WorkspaceError::at(directory))?;
        let manifest: Manifest = read_json(&directory.join("workspace.json"))?;
        let lower = match (manifest.form, &manifest.files) {
            (Form::Copy, _) => Vec::new(),
            (Form::Overlay, Files::Only(_)) => vec![directory.join("stage")],
            (Form::Overlay, Files::All) => Snapshot::reopen(&manifest.snapshot)?.layers()?.0,
        };
        let lower = manifest.above.iter().cloned().chain(lower).collect();
        let workspace = Self { directory, manifest, lower };
        workspace.renew()?;
        Ok(workspace)
    }

    /// Makes an overlay ready to be mounted again, by whomever: the kernel refuses a work directory that was in use when the machine or
    /// the namespace went away. To be called while nobody has it mounted.
    ///
    /// # Errors
    /// The system's words about a file.
    pub fn renew(&self) -> Result<(), WorkspaceError> {
        let of_git = self.manifest.git.as_ref().map(|git| (GIT_WORK, git));
        for (part, model) in [("work", &self.manifest.repository)].into_iter().chain(of_git) {
            let work = self.directory.join(part);
            match layer::remove_tree(&work) {
                // Root's, where a process that was killed left it with an engine of root's: it may not be emptied, but put aside.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => set_aside(&work, &self.directory),
                other => other,
            }
            .map_err(WorkspaceError::at(&work))?;
            layer::make_like(&work, model).map_err(WorkspaceError::at(&work))?;
        }
        Ok(())
    }

    /// Shows more layers, the topmost first, below the job's own and above all others, in a workspace that no process is in. The descriptor that
    /// the workspace is known by stays the same. Where the system refuses, it is as before.
    ///
    /// # Errors
    /// The layers cannot be shown, or the keeper is gone. [`OpenWorkspace::view`] is `None` if the workspace itself could not be
    /// shown again.
    pub async fn show_above(
        &mut self,
        layers: &[PathBuf],
        open: &mut OpenWorkspace,
        processes: &Processes,
    ) -> Result<(), ShowError> {
        self.manifest.above.splice(0..0, layers.iter().cloned());
        self.lower.splice(0..0, layers.iter().cloned());
        self.save()?;
        let shown = self.mount_again(open, processes).await;
        if shown.is_err() {
            self.manifest.above.drain(..layers.len());
            self.lower.drain(..layers.len());
            self.save()?;
            self.mount_again(open, processes).await?;
        }
        shown
    }

    async fn mount_again(&self, open: &mut OpenWorkspace, processes: &Processes) -> Result<(), ShowError> {
        // The number of the descriptor stays taken while nothing is mounted.
        let nothing = rustix::fs::open(&self.directory, FOLDER, Mode::empty());
        let nothing = nothing.map_err(|error| WorkspaceError::at(&self.directory)(error.into()))?;
        let replace = |open: &mut OpenWorkspace, with: &OwnedFd| {
            rustix::io::dup3(with, &mut open.held, rustix::io::DupFlags::CLOEXEC)
                .map_err(|error| WorkspaceError::at(&self.directory)(error.into()))
        };
        replace(open, &nothing)?;
        if let Some(view) = open.view.take() {
            processes.close_view(view).await.map_err(WorkspaceError::from)?;
        }
        self.renew()?;
        let Some(view) = self.view() else { return Ok(()) };
        let (view, held) = processes.open_view(&view).await?;
        let opened = self.opened(Some(view), self.shown().to_owned(), held, None)?;
        replace(open, &opened.held)?;
        open.view = opened.view;
        Ok(())
    }

    /// The layer of the job's own changes and the tree that the workspace shows, with the project's folder in it; `None` of a copy.
    #[must_use]
    pub fn layers(&self) -> Option<(PathBuf, &Path, &Path)> {
        let manifest = &self.manifest;
        let is_overlay = manifest.form == Form::Overlay;
        is_overlay.then(|| (self.directory.join("upper"), manifest.repository.as_path(), manifest.prefix.as_path()))
    }

    /// The layers below the job's own, the topmost first.
    #[must_use]
    pub fn lower(&self) -> &[PathBuf] {
        &self.lower
    }

    fn save(&self) -> Result<(), WorkspaceError> {
        write_json(&self.directory.join("workspace.json"), &self.manifest)
    }

    /// Where it keeps the job's changes.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the job's steps run or ran; `None` if it was made by a version of ropewalk that did not note it.
    #[must_use]
    pub fn environment(&self) -> Option<&Environment> {
        self.manifest.environment.as_ref()
    }

    /// A directory for the job's `/tmp`, kept between its steps. Made when it is first asked for.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn temporary(&self) -> Result<PathBuf, WorkspaceError> {
        let temporary = self.directory.join("tmp");
        std::fs::create_dir_all(&temporary).map_err(WorkspaceError::at(&temporary))?;
        Ok(temporary)
    }

    /// Where an overlay is mounted: the same path for all checkouts of a project.
    #[must_use]
    pub fn shown(&self) -> &Path {
        self.manifest.shown.as_deref().unwrap_or(&self.manifest.repository)
    }

    /// The overlay, if it is one.
    #[must_use]
    pub fn view(&self) -> Option<View> {
        (self.manifest.form == Form::Overlay).then(|| View {
            target: self.shown().to_owned(),
            lower: self.lower.clone(),
            upper: self.directory.join("upper"),
            work: self.directory.join("work"),
            beside: self.git_view(&self.directory),
        })
    }

    /// The repository of a checkout that lies elsewhere, with a layer of the job's own at `above`; as it is shown to whoever sees all files.
    fn git_view(&self, above: &Path) -> Option<Box<View>> {
        let git = self.manifest.git.as_ref().filter(|_| self.manifest.files == Files::All)?;
        let (target, mut lower) = (git.clone(), vec![git.clone()]);
        lower.splice(0..0, git_layer::outside(&self.manifest.snapshot));
        Some(Box::new(View { target, lower, upper: above.join(GIT_UPPER), work: above.join(GIT_WORK), beside: None }))
    }

    /// Opens it for steps: mounts the overlay, or where the system refuses makes a copy, with a note that says so.
    ///
    /// # Errors
    /// The keeper is gone, or the copy failed.
    pub async fn open(&mut self, processes: &Processes, snapshot: &Snapshot) -> Result<OpenWorkspace, WorkspaceError> {
        let Some(view) = self.view() else { return self.open_copy(None) };
        if let (Files::All, Some(foreign)) = (&self.manifest.files, snapshot.foreign()) {
            let note = format!(
                "the workspace is a copy at another path, because `{}` belongs to another user or group, and an overlay of yours \
                 cannot write in it: `chown` makes it yours",
                foreign.display()
            );
            self.copy(snapshot)?;
            return self.open_copy(Some(note));
        }
        match processes.open_view(&view).await {
            Ok((view, held)) => self.opened(Some(view), self.shown().to_owned(), held, None),
            Err(error) if error.is_lost() => Err(KeeperError::Lost.into()),
            Err(error) => self.fall_back(snapshot, error),
        }
    }

    /// As [`Workspace::open`], but `None` where the system refuses an overlay.
    async fn open_overlay(&self, processes: &Processes) -> Result<Option<OpenWorkspace>, WorkspaceError> {
        let Some(view) = self.view() else { return Ok(None) };
        let (view, held) = match processes.open_view(&view).await {
            Ok(opened) => opened,
            Err(error) if error.is_lost() => return Err(KeeperError::Lost.into()),
            Err(_) => return Ok(None),
        };
        let opened = self.opened(Some(view), self.shown().to_owned(), held, None);
        if opened.is_err() {
            processes.close_view(view).await?;
        }
        opened.map(Some)
    }

    /// Opens it as a copy although an overlay may be possible.
    ///
    /// # Errors
    /// The copy failed.
    pub fn open_as_copy(&mut self, snapshot: &Snapshot) -> Result<OpenWorkspace, WorkspaceError> {
        if self.manifest.form == Form::Overlay {
            self.copy(snapshot)?;
        }
        self.open_copy(None)
    }

    fn fall_back(&mut self, snapshot: &Snapshot, error: ViewError) -> Result<OpenWorkspace, WorkspaceError> {
        self.copy(snapshot)?;
        let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        let note = format!("the workspace is a copy at another path, because the system refused to {error}{hint}");
        self.open_copy(Some(note))
    }

    fn copy(&mut self, snapshot: &Snapshot) -> Result<(), WorkspaceError> {
        let root = self.copy_root();
        match &self.manifest.files {
            Files::All => snapshot.copy_to(&root)?,
            Files::Only(_) => {
                std::fs::rename(self.directory.join("stage"), &root).map_err(WorkspaceError::at(&root))?
            }
        }
        self.manifest.form = Form::Copy;
        self.save()
    }

    fn copy_root(&self) -> PathBuf {
        self.directory.join("copy")
    }

    fn open_copy(&self, note: Option<String>) -> Result<OpenWorkspace, WorkspaceError> {
        let tree = self.copy_root();
        let held = rustix::fs::open(&tree, FOLDER, Mode::empty());
        let held = held.map_err(|error| WorkspaceError::at(&tree)(error.into()))?;
        self.opened(None, tree, held, note)
    }

    /// Opens the project's folder below the tree that `held` is.
    fn opened(
        &self,
        view: Option<ViewId>,
        tree: PathBuf,
        held: OwnedFd,
        note: Option<String>,
    ) -> Result<OpenWorkspace, WorkspaceError> {
        let prefix = &self.manifest.prefix;
        let mut folder = held;
        for name in prefix {
            let next = rustix::fs::openat(&folder, name, FOLDER, Mode::empty());
            folder = next.map_err(|error| WorkspaceError::at(&tree.join(prefix))(error.into()))?;
        }
        let files = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        Ok(OpenWorkspace { view, root: below(&tree, prefix), tree, files, note, held: folder })
    }

    /// The tree that the snapshot of a kept workspace was taken of; it must be there when the workspace is reopened.
    ///
    /// # Errors
    /// It is not kept, or cannot be read.
    pub fn tree_below(directory: &Path) -> Result<(PathBuf, PathBuf), WorkspaceError> {
        let manifest: Manifest = read_json(&directory.join("workspace.json"))?;
        let snapshot = Snapshot::reopen(&manifest.snapshot)?;
        Ok((snapshot.repository().to_owned(), manifest.snapshot))
    }

    /// What is kept in a workspace's directory besides its layers; `None` of a copy, which has none.
    ///
    /// # Errors
    /// It is not kept, or cannot be read.
    pub fn outline(directory: &Path) -> Result<Option<Outline>, WorkspaceError> {
        let Manifest { files, form, above, shown, repository, .. } = read_json(&directory.join("workspace.json"))?;
        let tree = shown.unwrap_or(repository);
        Ok((form == Form::Overlay).then_some(Outline { files, above, tree }))
    }

    /// Says which layers stand above those of the snapshot, the topmost first, before it is opened.
    ///
    /// # Errors
    /// The system's words about a file.
    pub fn set_above(&mut self, above: Vec<PathBuf>) -> Result<(), WorkspaceError> {
        self.lower.drain(..self.manifest.above.len());
        self.lower.splice(0..0, above.iter().cloned());
        self.manifest.above = above;
        self.save()
    }

    /// The project's folder as a job sees it.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        below(&self.tree(), &self.manifest.prefix)
    }

    /// The root of the whole tree as a job sees it.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        match self.manifest.form {
            Form::Overlay => self.shown().to_owned(),
            Form::Copy => self.copy_root(),
        }
    }

    /// The files as a step left them, below a fresh layer at `above`, a directory that is made. `None` for a copy, and for a step whose
    /// layer is not kept.
    ///
    /// # Errors
    /// The system refuses a directory.
    pub fn view_above(&self, layer: &Layer, above: &Path) -> Result<Option<View>, WorkspaceError> {
        let Some(view) = self.view() else { return Ok(None) };
        if let Layer::Unkept(_) = layer {
            return Ok(None);
        }
        let below = layer.part(UPPER).map(|part| self.directory.join(part));
        let lower = below.into_iter().chain(view.lower).collect();
        let fresh = Self::fresh_view(view.target, lower, above, &self.manifest.repository)?;
        let beside = self.git_view(above);
        for (git, part) in beside.iter().flat_map(|git| [(git, &git.upper), (git, &git.work)]) {
            layer::make_like(part, &git.target).map_err(WorkspaceError::at(part))?;
        }
        Ok(Some(View { beside, ..fresh }))
    }

    /// The `/tmp` of a sandbox or container as a step left it: a view that shows it at `above/shown`, or nothing if it had no file.
    ///
    /// # Errors
    /// The system refuses a directory.
    pub fn temporary_above(&self, layer: &Layer, above: &Path) -> Result<Option<View>, WorkspaceError> {
        let Some(below) = layer.part(TEMPORARY).map(|part| self.directory.join(part)) else { return Ok(None) };
        // What has no file is as good as an empty folder, and an empty folder needs no mount.
        if std::fs::read_dir(&below).map_or(true, |mut entries| entries.next().is_none()) {
            return Ok(None);
        }
        let shown = above.join("shown");
        std::fs::create_dir_all(&shown).map_err(WorkspaceError::at(&shown))?;
        let model = below.clone();
        Self::fresh_view(shown, vec![below], above, &model).map(Some)
    }

    fn fresh_view(target: PathBuf, lower: Vec<PathBuf>, above: &Path, model: &Path) -> Result<View, WorkspaceError> {
        std::fs::create_dir_all(above).map_err(WorkspaceError::at(above))?;
        let (upper, work) = (above.join("upper"), above.join("work"));
        for part in [&upper, &work] {
            layer::make_like(part, model).map_err(WorkspaceError::at(part))?;
        }
        Ok(View { target, lower, upper, work, beside: None })
    }

    /// A command of this process that runs in these views, in the project's folder, with nothing recorded: for a person. The keeper is not
    /// needed; the mounts end with the last process in them.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>, views: Vec<View>) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(program);
        let (root, tree) = (self.root(), self.tree());
        // SAFETY: the child only makes system calls and allocates; no lock of ours is held across the fork, and the C
        // library makes its allocator usable in a forked child.
        unsafe {
            command.pre_exec(move || {
                View::enter(&views).map_err(|error| io::Error::from_raw_os_error(error.number))?;
                // Steps may have removed the folder, but not the tree's root.
                rustix::process::chdir(&root).or_else(|_| rustix::process::chdir(&tree)).map_err(io::Error::from)
            });
        }
        command
    }

    /// Takes the job's changes away for good.
    ///
    /// # Errors
    /// What could not be taken away, after everything else was.
    pub fn remove(self) -> Result<(), WorkspaceError> {
        layer::remove_tree(&self.directory).map_err(WorkspaceError::at(&self.directory))
    }
}

/// A folder of a tree; the tree itself, without a slash at its end, if the folder has no name.
pub(crate) fn below(tree: &Path, folder: &Path) -> PathBuf {
    if folder.as_os_str().is_empty() { tree.to_owned() } else { tree.join(folder) }
}

/// What is written down of the workspaces below a folder, for those who look for what these name.
pub(crate) fn manifests(workspaces: &Path) -> Vec<String> {
    let below = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let attempts = below(workspaces).flat_map(|build| below(&build).collect::<Vec<_>>());
    attempts.filter_map(|attempt| std::fs::read_to_string(attempt.join("workspace.json")).ok()).collect()
}

/// Shows a folder at another place, in a mount namespace of its own: the view, and the folder through it.
///
/// # Errors
/// As the system refuses it, or the keeper is gone.
pub async fn show(folder: &Path, at: &Path, processes: &Processes) -> Result<(ViewId, OwnedFd), ViewError> {
    let (upper, work) = (folder.to_owned(), folder.to_owned());
    processes.open_view(&View { target: at.to_owned(), lower: Vec::new(), upper, work, beside: None }).await
}

/// Renames a directory to a name in `parent` that nothing has.
fn set_aside(directory: &Path, parent: &Path) -> io::Result<()> {
    let free =
        (0_u32..).map(|number| parent.join(format!("left.{number}"))).find(|path| path.symlink_metadata().is_err());
    free.map_or(Ok(()), |free| std::fs::rename(directory, free))
}

/// Copies a tree that holds no layers, with modes, times and links, by reflink where the file system can; what is in `to` and not
/// in `from` stays.
///
/// # Errors
/// The system's words.
pub fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    layer::copy_tree(from, to, layer::Whiteouts::Leave, &|_| false)
}

/// Writes the file as a whole or not at all: whoever reads it finds this one or the one before.
fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), WorkspaceError> {
    let json = |source| WorkspaceError::Manifest { path: path.to_owned(), source };
    let text = serde_json::to_vec_pretty(value).map_err(json)?;
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let fresh = path.with_extension(format!("{}.{number}", std::process::id()));
    let written = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    written.map_err(WorkspaceError::at(path))
}

/// How many files this process has written with a name of their own first.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, WorkspaceError> {
    let text = std::fs::read(path).map_err(WorkspaceError::at(path))?;
    serde_json::from_slice(&text).map_err(|source| WorkspaceError::Manifest { path: path.to_owned(), source })
}
