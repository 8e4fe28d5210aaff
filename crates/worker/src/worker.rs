//! A worker: what all attempts of one process share.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use graph::{AttemptNumber, BuildId, Checkout, Digest, JobName, StepReport, Timestamp};

use crate::cache::Passed;
use crate::container::image::Pins;
use crate::container::{Engine, EngineError};
use crate::file_commands::{CommandFiles, is_reserved};
use crate::keeper::{KeeperError, Processes};
use crate::output::FreeChannels;
use crate::place::{make_workspaces, snapshot_directory};
use crate::sandbox::Sandbox;
use crate::variables::Variables;
use crate::workspace::{
    Beginning, Budget, Moment, Moved, OpenWorkspace, Seen, Snapshot, StepBounds, Workspace, WorkspaceError,
};

/// How many workers this process has had.
static WORKERS: AtomicU64 = AtomicU64::new(0);

/// Where a step finds the binary that runs it.
pub const BINARY_VARIABLE: &str = "ROPEWALK_BINARY";

/// Where a `ropewalk` that a step starts in its workspace finds what is kept of the project.
pub const PROJECT_DATA_VARIABLE: &str = "ROPEWALK_PROJECT_DATA";

/// How many seconds the step has, once it is asked to end, before it is killed.
pub const GRACE_VARIABLE: &str = "ROPEWALK_GRACE";

/// What a worker is told once.
#[derive(Clone)]
pub struct Settings {
    /// The directory that workspaces are made of: the root of the checkout.
    pub root: PathBuf,
    /// Where the worker may write: on the file system on which workspaces shall be. Not inside `root`'s tracked files.
    pub data: PathBuf,
    /// Directories that jobs in a sandbox find empty, as they do `data`: where others keep theirs. Those that do not exist are left out.
    pub walled_off: Vec<PathBuf>,
    /// The build whose attempts it runs.
    pub build: BuildId,
    /// How long a canceled or timed-out step has between TERM and KILL.
    pub grace: Duration,
    /// Told of each step's begin and end.
    pub observer: Option<Arc<dyn Observer>>,
    /// The tree and where jobs that work in place see it, if not at its own place. Both are there.
    pub shown: Option<Shown>,
    /// What the log of every attempt begins with, for people.
    pub notes: Vec<String>,
    /// How much may be kept of the files that steps leave. If no byte may, nothing is, and nothing is said of it.
    pub steps: StepBounds,
    /// Tells of a tree whose states are laid one after the other whether a later one has been.
    pub passed: Passed,
}

/// A tree that jobs see elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its root; the project's folder is there or below.
    pub tree: PathBuf,
    /// Where its root is seen.
    pub at: PathBuf,
}

/// Watches steps. Called on the thread of all attempts: it must not wait.
pub trait Observer {
    /// A step begins; the name shows no secret.
    fn step_started(&self, job: &JobName, step: u16, name: &str, at: Timestamp);

    /// A step has ended or was skipped. `lines` is not counted yet.
    fn step_finished(&self, job: &JobName, step: u16, report: &StepReport);
}

/// A worker cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The data directory cannot be used.
    #[error("cannot use {}", path.display())]
    Data {
        /// What was to be made.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The files that a build began with, relative to the project's folder, sorted by bytes; listed once.
pub(crate) type Listed = Arc<Mutex<Option<Arc<[PathBuf]>>>>;

/// Runs attempts, many at once, in one thread.
pub struct Worker {
    pub(crate) processes: Processes,
    pub(crate) settings: Settings,
    inherited: Mutex<Inherited>,
    /// What attempts need files for; see [`Worker::scratch`].
    scratch: PathBuf,
    slots: Mutex<Slots>,
    /// Where both go at the end.
    scratches: Option<Arc<Scratches>>,
    pub(crate) channels: FreeChannels,
    listed: Listed,
    marker: String,
    /// The state of the tree at the build's start, once something wants it.
    snapshot: OnceCell<Arc<Snapshot>>,
    /// The workspaces of attempts that will ask for them.
    made: Mutex<BTreeMap<AttemptNumber, Made>>,
    /// What was seen of the tree, as long as no job could write to it.
    seen: Mutex<Option<Seen>>,
    /// How it stood then.
    beginning: Mutex<Option<Beginning>>,
    /// Of which state a snapshot must be; of any if nobody said.
    start: Mutex<Option<Start>>,
    sandbox: OnceCell<Result<Sandbox, String>>,
    /// What the layers of steps may still take.
    pub(crate) budget: Arc<Budget>,
    engine: OnceCell<Result<Engine, EngineError>>,
    /// What the build knows of images.
    pub(crate) pins: Pins,
    /// Whether something may be left with the engine.
    containers: AtomicU8,
    askers: Mutex<Askers>,
}

/// A fresh workspace that waits for its attempt.
#[derive(Debug)]
pub struct Made {
    /// Its files.
    pub workspace: Workspace,
    /// What steps run in, if it is open already.
    pub open: Option<OpenWorkspace>,
}

/// What is known of the state of a build's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The commit that was checked out; empty without one, which says nothing.
    pub commit: String,
    /// Of an earlier process of the build: whether the files were those of the commit. That they still are is all that can be told, should
    /// the state not be kept.
    pub files: Option<Checkout>,
}

impl Start {
    /// Whether a state that was taken now is that of the start, as far as it can be told.
    fn allow(&self, taken: &Snapshot) -> Result<(), Moved> {
        let now = taken.commit().unwrap_or_default();
        if !self.commit.is_empty() && now != self.commit {
            return Err(Moved::Commit { was: self.commit.clone(), now: now.to_owned() });
        }
        match self.files {
            Some(files) if [files, taken.checkout()] != [Checkout::AsCommitted; 2] => Err(Moved::Files),
            _ => Ok(()),
        }
    }
}

/// Who may still ask what has changed in the tree.
#[derive(Default)]
struct Askers {
    /// Attempts from before they have their files until their steps have ended.
    present: usize,
    /// Whether no others are expected.
    is_last: bool,
}

/// An attempt that asks what has changed in the tree, until this is dropped. Behind the last one the tree is not watched any more.
pub(crate) struct Asking<'w>(&'w Worker);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let Self(worker) = self;
        let mut askers = worker.askers();
        askers.present -= 1;
        if askers.present == 0
            && askers.is_last
            && let Some(snapshot) = worker.snapshot.get().map(Arc::clone)
        {
            // Nobody waits for it, the runtime neither. Without a thread the end of the process does it.
            let _ = std::thread::Builder::new().name("rest".to_owned()).spawn(move || snapshot.rest());
        }
    }
}

/// [`Worker::containers`]: it never had any.
const NO_CONTAINERS: u8 = 0;
/// It noted that it has some.
const CONTAINERS_NOTED: u8 = 1;
/// Some were not removed.
const CONTAINERS_LEFT: u8 = 2;

/// Directories for the files of steps: as many as attempts ever ran at once.
#[derive(Default)]
struct Slots {
    free: Vec<CommandFiles>,
    made: usize,
    /// The lock by which others know that the scratch directory is in use: see [`hold`].
    _held: Option<fs::File>,
}

impl Slots {
    /// None yet, of a directory that is in use from now on.
    fn of(scratch: &Path) -> Self {
        Self { _held: hold(scratch), ..Self::default() }
    }
}

/// Scratch directories of workers that are no more, for those to come of the same process and data: to make directories and to take them
/// away costs more than a small step. Those left over are removed at the end.
#[derive(Default)]
pub struct Scratches(Mutex<Vec<(PathBuf, Slots)>>);

/// How many of them wait.
const SCRATCHES_MAX: usize = 16;

impl Scratches {
    fn take(&self) -> Option<(PathBuf, Slots)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Keeps a directory whose slots are all free; gives back a path that is to be removed. The next build may be trusted where this one was
    /// not: nothing that a step left may be in it.
    fn give(&self, scratch: PathBuf, slots: Slots) -> Option<PathBuf> {
        slots.free.iter().for_each(CommandFiles::clear);
        let has_slots_only = fs::read_dir(&scratch).is_ok_and(|entries| entries.count() == slots.made);
        let is_bare = has_slots_only && slots.free.len() == slots.made && slots.free.iter().all(CommandFiles::is_empty);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= SCRATCHES_MAX || !is_bare {
            return Some(scratch);
        }
        kept.push((scratch, slots));
        None
    }
}

impl Drop for Scratches {
    fn drop(&mut self) {
        for (scratch, _) in self.0.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = fs::remove_dir_all(scratch);
        }
    }
}

/// Below a worker's data: the scratch directories.
const SCRATCHES: &str = "scratch";

/// A fresh scratch directory.
fn make_scratch(settings: &Settings) -> Result<PathBuf, WorkerError> {
    let scratches = settings.data.join(SCRATCHES);
    // A process may have several workers of one build, each over another tree.
    let number = WORKERS.fetch_add(1, Ordering::Relaxed);
    let scratch = scratches.join(format!("{}.{number}.{}", settings.build, std::process::id()));
    let failed = |source| WorkerError::Data { path: scratch.clone(), source };
    remove_abandoned(&scratches);
    make_workspaces(&settings.data).map_err(failed)?;
    fs::create_dir_all(&scratch).map_err(failed)?;
    scratch.canonicalize().map_err(failed)
}

impl Worker {
    /// A worker over the keeper's processes.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub async fn new(processes: Processes, settings: Settings) -> Result<Self, WorkerError> {
        let scratch = make_scratch(&settings)?;
        let slots = Slots::of(&scratch);
        Ok(Self::over(processes, settings, scratch, slots, None))
    }

    /// As [`Worker::new`], with the scratch directory of a worker that is no more, and leaves its own to a later one.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub async fn new_among(
        processes: Processes,
        settings: Settings,
        scratches: &Arc<Scratches>,
    ) -> Result<Self, WorkerError> {
        let (scratch, slots) = match scratches.take() {
            Some(kept) => kept,
            None => {
                let scratch = make_scratch(&settings)?;
                let slots = Slots::of(&scratch);
                (scratch, slots)
            }
        };
        Ok(Self::over(processes, settings, scratch, slots, Some(Arc::clone(scratches))))
    }

    fn over(
        processes: Processes,
        settings: Settings,
        scratch: PathBuf,
        slots: Slots,
        scratches: Option<Arc<Scratches>>,
    ) -> Self {
        let marker = marker_prefix(&settings.data, settings.build);
        let inherited = Mutex::new(Inherited::new(&settings));
        let budget = Arc::new(Budget::new(settings.steps));
        Self {
            processes,
            settings,
            inherited,
            scratch,
            slots: Mutex::new(slots),
            scratches,
            channels: FreeChannels::default(),
            listed: Listed::default(),
            marker,
            snapshot: OnceCell::new(),
            made: Mutex::default(),
            seen: Mutex::new(None),
            beginning: Mutex::new(None),
            start: Mutex::new(None),
            sandbox: OnceCell::new(),
            budget,
            engine: OnceCell::new(),
            pins: Pins::default(),
            containers: AtomicU8::new(NO_CONTAINERS),
            askers: Mutex::default(),
        }
    }

    /// With the state of a tree that was taken already.
    #[must_use]
    pub fn with_snapshot(mut self, snapshot: Snapshot) -> Self {
        self.snapshot = OnceCell::new_with(Some(Arc::new(snapshot)));
        self
    }

    /// Gives an attempt its fresh workspace, made of all files of the snapshot; another attempt does not touch it. To be followed by
    /// [`Worker::close_made`] when the attempt has ended.
    pub fn give_made(&self, attempt: AttemptNumber, made: Made) {
        self.lock_made().insert(attempt, made);
    }

    /// Lets go of the workspace of an attempt that never asked for it.
    ///
    /// # Errors
    /// The keeper is gone.
    pub async fn close_made(&self, attempt: AttemptNumber) -> Result<(), KeeperError> {
        match self.take_made(attempt) {
            Some(Made { open: Some(open), .. }) => open.close(&self.processes).await,
            _ => Ok(()),
        }
    }

    /// The workspace that was made for this attempt; once.
    pub(crate) fn take_made(&self, attempt: AttemptNumber) -> Option<Made> {
        self.lock_made().remove(&attempt)
    }

    fn lock_made(&self) -> std::sync::MutexGuard<'_, BTreeMap<AttemptNumber, Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says of which state a snapshot must be that is not there yet.
    pub fn note_start(&self, start: Start) {
        *self.start.lock().unwrap_or_else(PoisonError::into_inner) = Some(start);
    }

    /// What git has just said of the tree: whoever takes its state need not ask again.
    pub fn note_seen(&self, seen: Seen) {
        *self.beginning.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen.beginning());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }

    /// Keeps which files the build ends with, for [`files_at_end`], if only jobs that worked among them have changed any: in these spans of time.
    /// Blocks while git looks.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_end(&self, worked: &[(Moment, Moment)]) -> io::Result<()> {
        let beginning = self.beginning.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(digest) = beginning.and_then(|beginning| beginning.digest_now(worked)) else { return Ok(()) };
        let file = end_file(&self.settings.data, self.settings.build);
        fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
        fs::write(file, digest.0)
    }

    /// What was seen, for one who uses it or is about to make it untrue.
    pub(crate) fn take_seen(&self) -> Option<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A directory of this process alone, on the same file system as the data; removed at its end.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Takes the state of the tree for the jobs to come, unless it is kept. To be called before anything of the build runs or waits for a
    /// person. Who has read files of the tree since `since` asks [`Worker::changed_since`] which are those.
    ///
    /// # Errors
    /// Why it cannot be had; each job that wants it tries again.
    pub async fn hold_start(&self, since: Moment) -> Result<(), WorkspaceError> {
        self.snapshot_since(since).await.map(drop)
    }

    /// As [`Snapshot::changed_since`], relative to the project's folder: what lies outside begins with `..`. `None` if no state was taken.
    pub async fn changed_since(&self, since: Moment) -> Option<Vec<PathBuf>> {
        let snapshot = self.snapshot.get().cloned()?;
        let changed = tokio::task::spawn_blocking(move || {
            let changed = snapshot.changed_since(since)?;
            let inside = |path: PathBuf| match path.strip_prefix(snapshot.prefix()) {
                Ok(inside) => inside.to_owned(),
                Err(_) => Path::new("..").join(path),
            };
            Some(changed.into_iter().map(inside).collect())
        });
        changed.await.ok()?
    }

    /// The state of the build's start: kept by an earlier run of the same build, or taken now.
    pub(crate) async fn snapshot(&self) -> Result<Arc<Snapshot>, WorkspaceError> {
        self.snapshot_since(Moment::now()).await
    }

    /// As [`Worker::snapshot`], if it is taken already.
    #[must_use]
    pub fn snapshot_taken(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.get().cloned()
    }

    async fn snapshot_since(&self, since: Moment) -> Result<Arc<Snapshot>, WorkspaceError> {
        let taken = self.snapshot.get_or_try_init(|| async {
            let directory = snapshot_directory(&self.settings.data, self.settings.build);
            let root = self.settings.root.clone();
            let seen = self.take_seen();
            let start = self.start.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let taken = tokio::task::spawn_blocking(move || match Snapshot::reopen(&directory) {
                Ok(snapshot) => Ok(snapshot),
                Err(_) => {
                    let _ = crate::workspace::remove_tree(&directory);
                    let taken = Snapshot::take_seen(&root, &directory, seen.as_ref(), since).inspect_err(|_| {
                        // Half a state is nobody's, and may be what fills the disk.
                        let _ = crate::workspace::remove_tree(&directory);
                    })?;
                    if let Some(Err(moved)) = start.map(|start| start.allow(&taken)) {
                        // Nobody shall find it.
                        let _ = crate::workspace::remove_tree(&directory);
                        return Err(moved.into());
                    }
                    Ok(taken)
                }
            });
            taken.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())).map(Arc::new)
        });
        taken.await.cloned()
    }

    /// Tells that no attempt is expected but those that were begun. Should one come all the same, git tells it what changed in the tree.
    pub fn expect_no_more(&self) {
        self.askers().is_last = true;
    }

    fn askers(&self) -> std::sync::MutexGuard<'_, Askers> {
        self.askers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that an attempt asks what has changed in the tree: when it gets its files, and when its steps have ended.
    pub(crate) fn begin_asking(&self) -> Asking<'_> {
        self.askers().present += 1;
        Asking(self)
    }

    /// What makes sandboxes here; asked of the system when the first job wants one.
    pub(crate) async fn sandbox(&self) -> Result<Sandbox, String> {
        let probed = self.sandbox.get_or_init(|| async {
            let probed = tokio::task::spawn_blocking(Sandbox::probe).await;
            let probed = probed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            probed.map_err(|error| graph::with_causes(&error))
        });
        probed.await.clone()
    }

    /// The container engine of this machine; looked for when somebody asks first.
    ///
    /// # Errors
    /// There is none; [`EngineError::with_hint`] says what to install.
    pub async fn engine(&self) -> Result<Engine, EngineError> {
        self.engine.get_or_init(Engine::find).await.clone()
    }

    /// Notes in the data directory that containers are made, for whoever comes after us if we are killed.
    pub(crate) fn note_containers(&self, engine: &Engine) -> io::Result<()> {
        if self.containers.load(Ordering::Acquire) == NO_CONTAINERS {
            let Settings { data, build, .. } = &self.settings;
            crate::container::note(data, *build, &self.scratch_name(), engine)?;
            self.containers.store(CONTAINERS_NOTED, Ordering::Release);
        }
        Ok(())
    }

    /// Some could not be removed: the note stays.
    pub(crate) fn note_left_containers(&self) {
        self.containers.store(CONTAINERS_LEFT, Ordering::Release);
    }

    fn scratch_name(&self) -> String {
        self.scratch.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The files of the start, once somebody has listed them.
    pub(crate) fn listed(&self) -> Listed {
        Arc::clone(&self.listed)
    }

    /// Keeps variables of these names from steps that inherit this process's own environment: they are secrets, and
    /// reach only the jobs that name them. To be called before a job starts that must not see them.
    pub fn withhold(&self, names: impl IntoIterator<Item = impl Into<OsString>>) {
        let mut inherited = self.inherited.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            let name = name.into();
            // Our own are nobody's secret.
            if !is_ours(&name) {
                inherited.host.remove(&name);
                inherited.sandbox.remove(&name);
            }
        }
    }

    /// What steps inherit, without what is withheld, and what is the same for all steps.
    pub(crate) fn inherited(&self, inheritance: Inheritance) -> Variables {
        let inherited = self.inherited.lock().unwrap_or_else(PoisonError::into_inner);
        match inheritance {
            Inheritance::Host => inherited.host.clone(),
            Inheritance::Sandbox => inherited.sandbox.clone(),
        }
    }

    /// What is the same for all steps that inherit nothing of this machine.
    pub(crate) fn of_every_step(&self) -> Variables {
        let grace = self.settings.grace.as_secs().to_string();
        [("CI", "true"), ("ROPEWALK", "true"), (GRACE_VARIABLE, grace.as_str())].into_iter().collect()
    }

    /// By which processes of an attempt are known.
    pub(crate) fn marker(&self, attempt: graph::AttemptNumber) -> String {
        format!("{}{attempt}", self.marker)
    }

    pub(crate) fn take_slot(&self) -> Result<CommandFiles, (PathBuf, io::Error)> {
        let number = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(slot) = slots.free.pop() {
                return Ok(slot);
            }
            slots.made += 1;
            slots.made
        };
        let path = self.scratch.join(format!("slot-{number}"));
        CommandFiles::new(path.clone()).map_err(|error| (path, error))
    }

    pub(crate) fn give_slot(&self, slot: CommandFiles) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).free.push(slot);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let containers = self.containers.load(Ordering::Acquire);
        if containers == CONTAINERS_NOTED {
            crate::container::forget(&self.settings.data, self.settings.build, &self.scratch_name());
        }
        let slots = std::mem::take(self.slots.get_mut().unwrap_or_else(PoisonError::into_inner));
        let scratch = std::mem::take(&mut self.scratch);
        let left = match &self.scratches {
            // What containers left may be somebody else's.
            Some(scratches) if containers == NO_CONTAINERS => scratches.give(scratch, slots),
            _ => Some(scratch),
        };
        if let Some(left) = left {
            let _ = fs::remove_dir_all(left);
        }
    }
}

/// The digest of the files that a build ended with, if that was kept: see [`Worker::keep_end`]; that of [`Seen::digest`] is another one if
/// the files are others now.
#[must_use]
pub fn files_at_end(data: &Path, build: BuildId) -> Option<Digest> {
    Some(Digest(fs::read(end_file(data, build)).ok()?.try_into().ok()?))
}

fn end_file(data: &Path, build: BuildId) -> PathBuf {
    snapshot_directory(data, build).with_file_name("end")
}

/// What the markers of a build's processes begin with, for `keeper::kill_leftovers`. Two data directories have different
/// ones.
#[must_use]
pub fn marker_prefix(data: &Path, build: BuildId) -> String {
    format!("{}{build}/", data_marker_prefix(data))
}

/// What the markers of all processes begin with that were started from a data directory, whatever the build.
#[must_use]
pub fn data_marker_prefix(data: &Path) -> String {
    let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    let hash = blake3::hash(data.as_os_str().as_bytes()).to_hex();
    format!("{}/", &hash[..12])
}

/// Locks a directory until the file is closed, by this process's end too; `None` if another holds it, or the file system has no locks.
fn hold(directory: &Path) -> Option<fs::File> {
    let file = fs::File::open(directory).ok()?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

/// Removes what workers of a data directory keep for steps while they run, if they were killed.
pub fn remove_abandoned_scratches(data: &Path) {
    remove_abandoned(&data.join(SCRATCHES));
}

/// Removes what processes left that were killed. One that has no process here may have one elsewhere, in a container that shares the
/// data directory: its lock says so.
fn remove_abandoned(scratches: &Path) {
    for entry in fs::read_dir(scratches).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.rsplit_once('.')?.1.parse().ok());
        let process = process.and_then(rustix::process::Pid::from_raw);
        let is_gone =
            process.is_some_and(|process| rustix::process::test_kill_process(process) == Err(rustix::io::Errno::SRCH));
        if is_gone && let Some(_held) = hold(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Where a step runs, for what it inherits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inheritance {
    Host,
    Sandbox,
}

/// What steps inherit, with the variables that are the same for all of them.
struct Inherited {
    host: Variables,
    sandbox: Variables,
}

impl Inherited {
    fn new(settings: &Settings) -> Self {
        let mut host = host_environment(std::env::vars_os());
        let mut sandbox = sandbox_environment(&host);
        for environment in [&mut host, &mut sandbox] {
            environment.insert("CI", "true");
            environment.insert("ROPEWALK", "true");
            environment.extend(nesting(settings));
        }
        Self { host, sandbox }
    }
}

/// The variables by which a `ropewalk` that a step starts works on the same project as a child build, and where the
/// binary and what it keeps of programs are.
fn nesting(settings: &Settings) -> impl Iterator<Item = (&'static str, OsString)> {
    [
        // `None` if the system does not tell.
        (BINARY_VARIABLE, std::env::current_exe().ok().map(OsString::from)),
        (PROJECT_DATA_VARIABLE, Some(settings.data.clone().into())),
        (GRACE_VARIABLE, Some(settings.grace.as_secs().to_string().into())),
        ("ROPEWALK_CACHE", std::env::var_os("ROPEWALK_CACHE")),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}

/// What steps in a sandbox inherit: what programs need to find themselves, and the user's language. No credentials.
fn sandbox_environment(host: &Variables) -> Variables {
    const KEPT: [&str; 12] = [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TERM",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "GOPATH",
    ];
    let is_kept = |name: &OsStr| {
        name.to_str().is_some_and(|name| KEPT.contains(&name) || name.starts_with("LC_") || name.starts_with("NIX_"))
    };
    host.iter().filter(|(name, _)| is_kept(name)).collect()
}

/// What steps would inherit of this process, where it is not known what they had: for a person's shell.
pub(crate) fn inherited_now(inheritance: Inheritance) -> Variables {
    let host = host_environment(std::env::vars_os());
    match inheritance {
        Inheritance::Host => host,
        Inheritance::Sandbox => sandbox_environment(&host),
    }
}

/// What steps on the host inherit: everything but our own variables and those by which git would be led astray.
fn host_environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Variables {
    let misleads = |name: &OsString| {
        name.to_str().is_some_and(|name| {
            matches!(name, "OLDPWD" | "PWD" | "SHLVL" | "_") || crate::git::MISLEADING.contains(&name)
        })
    };
    variables.filter(|(name, _)| !is_ours(name) && !misleads(name)).collect()
}

fn is_ours(name: &OsStr) -> bool {
    name.to_str().is_some_and(is_reserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a scratch directory is kept in which `leave` has left something, and what its slot holds when it comes back.
    fn check(leave: impl FnOnce(&Path), expected: Option<usize>) {
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = folder.path().join("1.0.1");
        let slot = CommandFiles::new(scratch.join("slot-1")).expect("a slot");
        leave(&scratch);
        let scratches = Scratches::default();
        let removed = scratches.give(scratch.clone(), Slots { free: vec![slot], made: 1, _held: None });
        let back = scratches.take().map(|(path, slots)| {
            assert_eq!((path.as_path(), slots.free.len()), (scratch.as_path(), 1));
            fs::read_dir(path.join("slot-1")).expect("the slot").count()
        });
        assert_eq!((back, removed.is_none()), (expected, expected.is_some()));
    }

    #[test]
    fn what_is_in_use_elsewhere_is_not_abandoned() {
        let scratches = tempfile::tempdir().expect("a folder");
        // No process of this machine has the number.
        let scratch = scratches.path().join("1.0.2000000000");
        fs::create_dir(&scratch).expect("made");
        let slots = Slots::of(&scratch);
        remove_abandoned(scratches.path());
        assert!(scratch.is_dir());
        drop(slots);
        remove_abandoned(scratches.path());
        assert!(!scratch.exists());
    }

    #[test]
    fn a_build_finds_nothing_of_another_in_its_scratch_directory() {
        check(|_| (), Some(0));
        check(|scratch| fs::write(scratch.join("slot-1/env"), "LD_PRELOAD=x").expect("written"), Some(0));
        check(|scratch| fs::create_dir_all(scratch.join("slot-1/env/deep")).expect("made"), Some(0));
        check(|scratch| fs::create_dir(scratch.join("slot-1.tmp")).expect("made"), None);
        let replace = |scratch: &Path| {
            fs::rename(scratch.join("slot-1"), scratch.with_extension("away")).expect("moved");
            fs::create_dir(scratch.join("slot-1")).expect("made");
            fs::write(scratch.with_extension("away").join("env"), "A=1").expect("written");
        };
        check(replace, None);
    }
}
