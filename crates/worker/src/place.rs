//! Where an attempt's steps run: which files they see, under which path, and what encloses them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use graph::{AttemptNumber, AttemptSpec, BuildId, Environment, Network, Reuse, Shell, WorkspaceKind};

use crate::cache::{Home, LAYERS, Layers, Owner, SAVED_HERE, Sources};
use crate::container::Engine;
use crate::keeper::{Command, KeeperError, View, ViewId};
use crate::patterns::{PatternFault, Patterns};
use crate::sandbox::{Sandbox, Walls};
use crate::variables::Variables;
use crate::worker::{Inheritance, Listed, Made, Shown, Worker};
use crate::workspace::{self, Files, OpenWorkspace, ShowError, Snapshot, Workspace, WorkspaceError};

/// An open place.
pub(crate) struct Place {
    /// All that steps in a sandbox may write.
    tree: PathBuf,
    root: PathBuf,
    files: PathBuf,
    own: Option<Own>,
    moved: Option<Moved>,
    walls: Option<Enclosure>,
    contained: Option<Contained>,
    notes: Vec<String>,
}

/// What encloses the steps of a container job, besides its container.
struct Contained {
    engine: Engine,
    /// What becomes `/tmp`.
    temporary: PathBuf,
}

/// Where steps in a sandbox or a container find a folder of the job's own.
const TEMPORARY_INSIDE: &str = "/tmp";

/// Why a container has no home that can be cached.
const IN_A_CONTAINER: &str = "the home directory of a container goes with it: set HOME to /tmp by the job's `env`";

/// Why a sandbox has none.
const IN_A_SANDBOX: &str = "a job in a sandbox cannot write to the home directory of the machine: set HOME to a folder in /tmp, such as \
                            /tmp/home, or in the workspace by the job's `env`";

/// What encloses the steps.
struct Enclosure {
    sandbox: Sandbox,
    network: Network,
    temporary: PathBuf,
    hidden: Vec<PathBuf>,
    writable: [PathBuf; 1],
    readable: Vec<PathBuf>,
}

/// A workspace of the job's own.
struct Own {
    workspace: Workspace,
    /// `None` while a container has it.
    open: Option<OpenWorkspace>,
    snapshot: Arc<Snapshot>,
}

/// A tree that is seen at another place, although it is worked in itself.
struct Moved {
    view: ViewId,
    from: PathBuf,
    /// Keeps `files` meaningful.
    _held: OwnedFd,
}

/// Why there is no place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceFault {
    /// Nothing here can run such a job.
    #[error("this worker has no executor for the environment `{0}`")]
    NoExecutor(&'static str),
    /// No sandbox can be had here.
    #[error("{0}")]
    Sandbox(String),
    /// There is no container engine.
    #[error("{0}")]
    Engine(String),
    /// The workspace could not be made.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// An input is no glob.
    #[error("inputs: {0}")]
    Pattern(#[from] PatternFault),
    /// No directory for `/tmp`.
    #[error("make a directory for the job's /tmp: {0}")]
    Temporary(#[from] std::io::Error),
}

/// The files that a sandboxed job with declared inputs sees, relative to the repository.
fn input_paths(files: &[PathBuf], prefix: &Path, globs: &[String]) -> Result<Vec<PathBuf>, PlaceFault> {
    let patterns = Patterns::new(globs)?;
    Ok(patterns.select(files).into_iter().map(|place| prefix.join(&files[place])).collect())
}

/// The files that a build began with, listed at its first job that asks.
fn listed_once(listed: &Listed, snapshot: &Snapshot) -> Result<Arc<[PathBuf]>, WorkspaceError> {
    let mut listed = listed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match &*listed {
        Some(files) => Ok(Arc::clone(files)),
        None => Ok(Arc::clone(listed.insert(snapshot.files()?.into()))),
    }
}

fn temporary_below(slot: &Path) -> Result<PathBuf, PlaceFault> {
    let temporary = slot.with_extension("tmp");
    match std::fs::remove_dir_all(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    std::fs::create_dir_all(&temporary)?;
    Ok(temporary)
}

/// Below a worker's data: the workspaces of all builds, a folder for each build.
const WORKSPACES: &str = "workspaces";

/// The folder of all workspaces that a worker keeps.
#[must_use]
pub fn workspaces(data: &Path) -> PathBuf {
    data.join(WORKSPACES)
}

/// Makes the folder of the workspaces, and has the file system lay the files of each build in a part of the disk of their own, where it can
/// (ext4: `chattr +T`, chattr(1)). A workspace is some twenty new files and folders, and ext4 passes over each that was deleted in
/// the same part within the last minutes: behind old workspaces that were taken away, a new file takes ten times as long.
pub(crate) fn make_workspaces(data: &Path) -> io::Result<()> {
    let folder = data.join(WORKSPACES);
    fs::create_dir_all(&folder)?;
    let folder = fs::File::open(folder)?;
    // Others have no such flag, and need none.
    if let Ok(flags) = ioctl_getflags(&folder)
        && !flags.contains(IFlags::TOPDIR)
    {
        let _ = ioctl_setflags(&folder, flags | IFlags::TOPDIR);
    }
    Ok(())
}

/// The folder that the next build's workspaces will be, below [`WORKSPACES`].
const ASIDE: &str = ".aside";

/// Makes the folder for the workspaces of a build to come, unless one waits: the file system looks all over the disk for a place for it,
/// which takes as long as all else of a workspace. Whoever finds none makes its own.
pub fn set_aside(data: &Path) {
    let _ = fs::create_dir(data.join(WORKSPACES).join(ASIDE));
}

/// Gives the folder that was set aside to a build that has none.
pub fn take_aside(data: &Path, build: BuildId) {
    let workspaces = data.join(WORKSPACES);
    // A folder that is there and has something in it is not replaced.
    let _ = fs::rename(workspaces.join(ASIDE), workspaces.join(build.to_string()));
}

/// Where the state of a build's start is kept.
#[must_use]
pub fn snapshot_directory(data: &Path, build: BuildId) -> PathBuf {
    data.join(WORKSPACES).join(build.to_string()).join("snapshot")
}

/// Where the files of an attempt are kept, also after its end, for [`Workspace::reopen`].
#[must_use]
pub fn workspace_directory(data: &Path, build: BuildId, attempt: AttemptNumber) -> PathBuf {
    data.join(WORKSPACES).join(build.to_string()).join(attempt.to_string())
}

/// Where a [`crate::LeftBehind`] is kept.
#[must_use]
pub fn environment_file(data: &Path, build: BuildId, attempt: AttemptNumber) -> PathBuf {
    workspace_directory(data, build, attempt).join("environment.json")
}

/// Where a worker keeps the program of a pipeline whose jobs are functions, by the digest of its bytes.
#[must_use]
pub fn program_file(data: &Path, digest: graph::Digest) -> PathBuf {
    data.join("programs").join(digest.to_string())
}

impl Place {
    pub async fn open(worker: &Worker, spec: &AttemptSpec, slot: &Path) -> Result<Self, PlaceFault> {
        let mut engine = None;
        let sandbox = match &spec.job.environment {
            Environment::Host | Environment::Nix { .. } => None,
            Environment::Image { .. } | Environment::Dockerfile { .. } => {
                let found = worker.engine().await.map_err(|error| PlaceFault::Engine(error.with_hint()))?;
                engine = Some(found);
                None
            }
            Environment::Sandbox { network } => Some((worker.sandbox().await.map_err(PlaceFault::Sandbox)?, *network)),
            other => return Err(PlaceFault::NoExecutor(other.word())),
        };
        let (mut place, temporary) = match spec.job.workspace {
            WorkspaceKind::InPlace => (Self::in_place(worker).await?, None),
            WorkspaceKind::Isolated => {
                let place = Self::isolated(worker, spec, sandbox.is_some()).await?;
                let temporary = match (&place.own, sandbox.is_some() || engine.is_some()) {
                    (Some(own), true) => Some(own.workspace.temporary()?),
                    _ => None,
                };
                (place, temporary)
            }
        };
        if let Some(engine) = engine {
            let temporary = temporary.map_or_else(|| temporary_below(slot), Ok)?;
            place.contained = Some(Contained { engine, temporary });
            return Ok(place);
        }
        if let Some((sandbox, network)) = sandbox {
            let temporary = temporary.map_or_else(|| temporary_below(slot), Ok)?;
            let hidden = worker.settings.walled_off.iter().chain([&worker.settings.data]).cloned().collect();
            let writable = [slot.to_owned()];
            let programs = spec.job.steps.iter().filter_map(|step| match step.shell {
                Shell::Program(digest) => Some(program_file(&worker.settings.data, digest)),
                _ => None,
            });
            // Each once: a place can be covered only once.
            let readable = programs.collect::<BTreeSet<_>>().into_iter().collect();
            place.walls = Some(Enclosure { sandbox, network, temporary, hidden, writable, readable });
        }
        Ok(place)
    }

    /// The tree itself, at the place where it is to be seen.
    async fn in_place(worker: &Worker) -> Result<Self, PlaceFault> {
        // Its steps write to the tree.
        drop(worker.take_seen());
        let root = worker.settings.root.clone();
        let mut notes = worker.settings.notes.clone();
        if let Some(Shown { tree, at }) = &worker.settings.shown {
            match workspace::show(tree, at, &worker.processes).await {
                Ok((view, held)) => {
                    let folder = root.strip_prefix(tree).unwrap_or(Path::new("")).to_owned();
                    let files = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd())).join(&folder);
                    let moved = Some(Moved { view, from: tree.clone(), _held: held });
                    let (tree, root) = (at.clone(), workspace::below(at, &folder));
                    return Ok(Self { tree, root, files, own: None, moved, walls: None, contained: None, notes });
                }
                Err(error) if error.is_lost() => return Err(WorkspaceError::from(KeeperError::Lost).into()),
                Err(error) => {
                    notes.push(format!("the workspace is at another path, because the system refused to {error}"))
                }
            }
        }
        let (tree, files) = (root.clone(), root.clone());
        Ok(Self { tree, root, files, own: None, moved: None, walls: None, contained: None, notes })
    }

    async fn isolated(worker: &Worker, spec: &AttemptSpec, sees_inputs_only: bool) -> Result<Self, PlaceFault> {
        let snapshot = worker.snapshot().await?;
        let globs = spec.job.inputs().filter(|_| sees_inputs_only).map(<[String]>::to_vec);
        let made = if globs.is_none() { worker.take_made(spec.attempt) } else { None };
        let (mut workspace, open) = match made {
            Some(Made { workspace, open }) => (workspace, open),
            None => (Self::made(worker, spec, &snapshot, globs).await?, None),
        };
        let open = match open {
            Some(open) => open,
            None => workspace.open(&worker.processes, &snapshot).await?,
        };
        let notes = worker.settings.notes.iter().cloned();
        let notes = notes.chain(open.note.clone()).chain(snapshot.note().map(str::to_owned)).collect();
        let (tree, root, files) = (open.tree.clone(), open.root.clone(), open.files.clone());
        let own = Some(Own { workspace, open: Some(open), snapshot });
        Ok(Self { tree, root, files, own, moved: None, walls: None, contained: None, notes })
    }

    /// A workspace with all files, or with those that the globs name.
    async fn made(
        worker: &Worker,
        spec: &AttemptSpec,
        snapshot: &Arc<Snapshot>,
        globs: Option<Vec<String>>,
    ) -> Result<Workspace, PlaceFault> {
        let directory = workspace_directory(&worker.settings.data, spec.build, spec.attempt);
        let (from, listed, environment) = (Arc::clone(snapshot), worker.listed(), spec.job.environment.clone());
        let created = tokio::task::spawn_blocking(move || {
            // What an earlier life of this attempt left is not the state of the start.
            let _ = crate::workspace::remove_tree(&directory);
            let files = match globs {
                None => Files::All,
                Some(globs) => Files::Only(input_paths(&listed_once(&listed, &from)?, from.prefix(), &globs)?),
            };
            Ok::<_, PlaceFault>(Workspace::create(&from, &directory, files, &environment)?)
        });
        created.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// The workspace's root as steps see it: the project's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The same directory as this process sees it.
    pub fn files(&self) -> &Path {
        &self.files
    }

    /// The directory of a workspace whose changes stand apart in a layer.
    pub fn layered(&self) -> Option<&Path> {
        let has_view = |own: &&Own| own.open.as_ref().is_none_or(|open| open.view.is_some());
        self.own.as_ref().filter(has_view).map(|own| own.workspace.directory())
    }

    /// How restored caches may be shown as layers here; `None` if the job has no layers of its own.
    pub fn cache_layers(&self, worker: &Worker) -> Option<Layers> {
        let own = self.own.as_ref().filter(|own| own.open.is_some())?;
        let (upper, repository, prefix) = own.workspace.layers()?;
        let data = &worker.settings.data;
        Some(Layers {
            folder: data.join(LAYERS),
            workspaces: data.join("workspaces"),
            shown: own.workspace.shown().to_owned(),
            repository: repository.to_owned(),
            prefix: prefix.to_owned(),
            upper,
            lower: own.workspace.lower().to_vec(),
        })
    }

    /// The tree that the job's sources are in.
    pub fn sources(&self, worker: &Worker) -> Sources {
        let tree = self.own.as_ref().and_then(|own| {
            let (_, _, prefix) = own.workspace.layers()?;
            Some(own.workspace.shown().join(prefix))
        });
        Sources {
            saved_here: worker.settings.data.join(SAVED_HERE),
            tree: tree.unwrap_or_else(|| self.root.clone()),
            snapshot: self.own.as_ref().map(|own| Arc::clone(&own.snapshot)),
            passed: worker.settings.passed.clone(),
        }
    }

    /// Shows layers below the job's own files, the topmost first. No process may be in the place. After an error it is as before, or
    /// [`Place::is_lost`].
    pub async fn show(&mut self, layers: &[PathBuf], worker: &Worker) -> Result<(), ShowError> {
        match &mut self.own {
            Some(Own { workspace, open: Some(open), .. }) => {
                workspace.show_above(layers, open, &worker.processes).await
            }
            _ => Ok(()),
        }
    }

    /// Whether the job's own workspace is not shown any more.
    pub fn is_lost(&self) -> bool {
        let is_hidden = |own: &Own| own.open.as_ref().is_some_and(|open| open.view.is_none());
        self.own.as_ref().is_some_and(|own| own.workspace.layers().is_some() && is_hidden(own))
    }

    /// What people should know of it.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The name of who runs it, for `${{ runner.name }}`.
    pub fn runner(&self) -> &'static str {
        "local"
    }

    /// What steps inherit of the worker's own environment.
    pub fn inherited(&self, worker: &Worker) -> Variables {
        match self.walls {
            None => worker.inherited(Inheritance::Host),
            Some(_) => worker.inherited(Inheritance::Sandbox),
        }
    }

    /// The home directory of steps with this environment, as caches may use it: none that the steps could not write themselves.
    pub fn home(&self, environment: &Variables) -> Home {
        let home = environment.get("HOME").map(Path::new);
        if let Some(contained) = &self.contained {
            // Another home is the image's, which nobody sees once the container is gone.
            return match home == Some(Path::new(TEMPORARY_INSIDE)) {
                true => Home::at(&contained.temporary, "", Owner::Job),
                false => Home::Nowhere(IN_A_CONTAINER),
            };
        }
        match (home.filter(|home| home.is_absolute()), &self.walls) {
            (None, _) => Home::Nowhere("there is no home directory: the variable HOME is not set to one"),
            (Some(home), None) => Home::at(home, "", Owner::User),
            (Some(home), Some(walls)) => self.home_within(home, walls).unwrap_or(Home::Nowhere(IN_A_SANDBOX)),
        }
    }

    /// A home of steps in a sandbox as this process sees it; `None` if the steps may not write there.
    fn home_within(&self, home: &Path, walls: &Enclosure) -> Option<Home> {
        let below = |root: &Path| {
            let names = home.strip_prefix(root).ok()?.components();
            let names = names.map(|name| matches!(name, Component::Normal(_)).then(|| name.as_os_str().to_str())?);
            names.collect::<Option<Vec<&str>>>().map(|names| names.join("/"))
        };
        // The workspace may lie in the machine's /tmp.
        if let Some(below) = below(&self.root) {
            let owner = if self.own.is_some() { Owner::Job } else { Owner::User };
            return Some(Home::at(&self.files, &below, owner));
        }
        below(Path::new(TEMPORARY_INSIDE)).map(|below| Home::at(&walls.temporary, &below, Owner::Job))
    }

    /// The engine that a container job needs.
    pub fn engine(&self) -> Option<&Engine> {
        self.contained.as_ref().map(|contained| &contained.engine)
    }

    /// What becomes the `/tmp` of a container job.
    pub fn temporary(&self) -> Option<&Path> {
        self.contained.as_ref().map(|contained| contained.temporary.as_path())
    }

    /// The layers of an overlay that a container is to mount in place of this process.
    pub fn layers(&self) -> Option<View> {
        let own = self.own.as_ref()?;
        own.open.as_ref().is_none_or(|open| open.view.is_some()).then(|| own.workspace.view()).flatten()
    }

    /// Where the files are for the machine, and where steps see them, if they are no overlay.
    pub fn directory(&self) -> (PathBuf, PathBuf) {
        let from = self.moved.as_ref().map_or(&self.tree, |moved| &moved.from);
        (from.clone(), self.tree.clone())
    }

    /// Leaves the overlay to a container: until [`Place::take_back`] this process sees nothing of the files.
    pub async fn leave_to_container(&mut self, worker: &Worker) -> Result<(), PlaceFault> {
        if let Some(own) = &mut self.own
            && let Some(open) = own.open.take_if(|open| open.view.is_some())
        {
            open.close(&worker.processes).await.map_err(WorkspaceError::from)?;
            own.workspace.renew()?;
        }
        Ok(())
    }

    /// Opens the overlay again, once no container has it.
    pub async fn take_back(&mut self, worker: &Worker) -> Result<(), PlaceFault> {
        if let Some(own) = &mut self.own
            && own.open.is_none()
        {
            own.workspace.renew()?;
            let open = own.workspace.open(&worker.processes, &own.snapshot).await?;
            self.files.clone_from(&open.files);
            own.open = Some(open);
        }
        Ok(())
    }

    /// Makes the command run here.
    pub fn enter(&self, command: &mut Command) {
        if let Some(own) = &self.own {
            command.view = own.open.as_ref().and_then(|open| open.view);
        }
        if let Some(moved) = &self.moved {
            command.view = Some(moved.view);
        }
        if let Some(walls) = &self.walls {
            let Enclosure { sandbox, network, temporary, hidden, writable, readable } = walls;
            let (root, network) = (self.tree.as_path(), *network);
            sandbox.enclose(command, &Walls { root, temporary, network, hidden, writable, readable });
        }
    }

    /// A file that changed in the user's tree since the build began and that the job depends on: it may have seen it.
    pub async fn changed(&self, reuse: &Reuse) -> Option<PathBuf> {
        let snapshot = Arc::clone(&self.own.as_ref()?.snapshot);
        let patterns = match reuse {
            Reuse::Never => return None,
            Reuse::Tree => None,
            Reuse::Inputs(globs) => Some(Patterns::new(globs).ok()?),
        };
        let prefix = snapshot.prefix().to_owned();
        let changed = tokio::task::spawn_blocking(move || snapshot.changed_since_start()).await.ok()?.ok()?;
        changed.into_iter().find(|path| {
            let is_meant = |patterns: &Patterns| path.strip_prefix(&prefix).is_ok_and(|path| patterns.matches(path));
            patterns.as_ref().is_none_or(is_meant)
        })
    }

    /// The files that changed in the user's tree since the job got its files and that it is shown from there: it may have seen either state.
    /// Nothing where the tree is not watched, since git would have to be asked.
    pub async fn edited(&self) -> Vec<PathBuf> {
        let Some(own) = &self.own else { return Vec::new() };
        let Some(view) = own.workspace.view() else { return Vec::new() };
        let snapshot = Arc::clone(&own.snapshot);
        let edited = move || if snapshot.is_watched() { snapshot.edited_under(&view.lower).ok() } else { None };
        tokio::task::spawn_blocking(edited).await.ok().flatten().unwrap_or_default()
    }

    /// Lets go of it; the job's files stay for people to look at.
    pub async fn close(self, worker: &Worker) -> Result<(), KeeperError> {
        if let Some(open) = self.own.and_then(|own| own.open) {
            open.close(&worker.processes).await?;
        }
        if let Some(Moved { view, _held: held, .. }) = self.moved {
            drop(held);
            worker.processes.close_view(view).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_set_aside_is_the_next_builds_unless_that_has_one() {
        let data = tempfile::tempdir().expect("a folder");
        make_workspaces(data.path()).expect("the folder of all");
        let folder = |name: &str| data.path().join(WORKSPACES).join(name);
        // Nothing is set aside yet.
        take_aside(data.path(), BuildId(1));
        assert!(!folder("1").exists());
        set_aside(data.path());
        set_aside(data.path());
        take_aside(data.path(), BuildId(1));
        assert!(folder("1").is_dir() && !folder(ASIDE).exists());
        set_aside(data.path());
        fs::write(folder("1").join("kept"), "").expect("a file");
        take_aside(data.path(), BuildId(1));
        assert!(folder("1/kept").is_file() && folder(ASIDE).is_dir());
    }

    #[test]
    fn workspaces_of_builds_lie_apart_where_the_file_system_can() {
        let data = tempfile::tempdir().expect("a folder");
        for _ in 0..2 {
            make_workspaces(data.path()).expect("it is made, and may be there");
            let folder = fs::File::open(data.path().join(WORKSPACES)).expect("it is there");
            // ext2, ext3 and ext4 share this number (statfs(2)).
            let is_ext = rustix::fs::fstatfs(&folder).is_ok_and(|system| system.f_type == 0xef53);
            assert!(!is_ext || ioctl_getflags(&folder).is_ok_and(|flags| flags.contains(IFlags::TOPDIR)));
        }
    }
}
