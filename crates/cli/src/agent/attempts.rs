//! The attempts in this worker's hands: started when the server says so, run to their ends whether it is there or not.
//!
//! One [`worker::Worker`] serves the attempts of a build that share a checkout; an attempt that works in place has one of its
//! own, over a copy of the checkout. Nothing here speaks to the server but through the outbox and the link.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::worker::{FromWorker, Start};
use graph::{
    AttemptReport, AttemptSpec, BuildId, Digest, Failure, JobName, LeaseId, Outcome, Shell, StepReport, Timestamp,
    WorkspaceKind,
};
use store::log::Masker;
use tokio::sync::Notify;
use worker::keeper::Processes;
use worker::workspace::Snapshot;

use super::checkout::{self, Checkout};
use super::depot::RemoteDepot;
use super::link::Link;
use super::outbox::{LeaseLog, Outbox};
use crate::keeping::LocalMask;
use crate::local::clock::now;

/// How many builds are kept open for their next attempt.
const BUILDS_OPEN_MAX: usize = 16;

/// How many of the newest builds keep the workspaces of their jobs.
const BUILDS_WITH_WORKSPACES: usize = 20;

/// How many attempts end between two times of tidying, if the worker is never idle.
const ATTEMPTS_UNTIDIED_MAX: u32 = 64;

/// What all attempts share.
pub struct Attempts {
    data: PathBuf,
    processes: Processes,
    grace: Duration,
    link: Arc<Link>,
    outbox: Arc<Outbox>,
    running: RefCell<BTreeMap<LeaseId, Running>>,
    /// The most recently used last.
    builds: RefCell<Vec<Rc<OpenBuild>>>,
    untidied: Cell<u32>,
    /// Builds that are being opened, or whose workspaces are being removed: one at a time has the folder of a build.
    busy: RefCell<BTreeSet<BuildId>>,
    /// Woken when one of them is free again.
    freed: Notify,
    /// Woken when nothing runs any more.
    pub idle: Notify,
}

/// An attempt that runs.
struct Running {
    build: BuildId,
    source: Option<Digest>,
    cancel: worker::Cancel,
}

/// A build whose attempts run over one checkout.
struct OpenBuild {
    build: BuildId,
    source: Option<Digest>,
    worker: worker::Worker,
    observer: Arc<StepObserver>,
}

/// Tells the server of steps.
struct StepObserver {
    outbox: Arc<Outbox>,
    /// The leases of the jobs that run, by name: a job has one attempt at a time.
    leases: Mutex<BTreeMap<JobName, LeaseId>>,
}

impl StepObserver {
    fn say(&self, job: &JobName, word: impl FnOnce(LeaseId) -> FromWorker) {
        let lease = self.leases.lock().unwrap_or_else(PoisonError::into_inner).get(job).copied();
        if let Some(lease) = lease {
            self.outbox.say_of(lease, &word(lease));
        }
    }

    fn begin(&self, job: &JobName, lease: LeaseId) {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).insert(job.clone(), lease);
    }

    /// The next attempt at the job may have begun already, if this one was forgotten.
    fn end(&self, job: &JobName, lease: LeaseId) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        if leases.get(job) == Some(&lease) {
            leases.remove(job);
        }
    }
}

impl worker::Observer for StepObserver {
    fn step_started(&self, job: &JobName, step: u16, name: &str, at: Timestamp) {
        self.say(job, |lease| FromWorker::StepStarted { lease, step, name: name.to_owned(), at });
    }

    fn step_finished(&self, job: &JobName, step: u16, report: &StepReport) {
        self.say(job, |lease| FromWorker::StepFinished { lease, step, report: Box::new(report.clone()) });
    }
}

impl Attempts {
    /// No attempts yet. What attempts of an earlier life left running is ended, and those are told as lost.
    pub fn new(
        data: &Path,
        processes: Processes,
        grace: Duration,
        link: Arc<Link>,
        outbox: Arc<Outbox>,
        lost: &[LeaseId],
    ) -> Self {
        for lease in lost {
            let report = AttemptReport::of(Outcome::Failed(Failure::Lost), now());
            outbox.say_of(*lease, &FromWorker::Finished { lease: *lease, report: Box::new(report) });
        }
        Self {
            data: data.to_owned(),
            processes,
            grace,
            link,
            outbox,
            running: RefCell::default(),
            builds: RefCell::default(),
            untidied: Cell::new(0),
            busy: RefCell::default(),
            freed: Notify::new(),
            idle: Notify::new(),
        }
    }

    /// How many run.
    pub fn count(&self) -> usize {
        self.running.borrow().len()
    }

    /// Waits until none runs; those that begin meanwhile count.
    pub async fn ended(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Starts an attempt, unless it is in hand already.
    pub fn start(self: &Rc<Self>, start: Start) {
        let Start { spec, secrets } = start;
        let lease = spec.lease;
        if self.outbox.holds(lease) {
            return;
        }
        if let Err(error) = self.outbox.begin(lease) {
            let report = infra(format!("the worker cannot keep what the attempt says: {error}"));
            return self.outbox.say(&FromWorker::Finished { lease, report: Box::new(report) });
        }
        let cancel = worker::Cancel::new();
        let running = Running { build: spec.build, source: spec.origin.source, cancel: cancel.clone() };
        self.running.borrow_mut().insert(lease, running);
        let attempts = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let report = attempts.run(spec, secrets, cancel).await.unwrap_or_else(infra);
            // Of a lease that was forgotten the outbox says nothing.
            attempts.outbox.say_of(lease, &FromWorker::Finished { lease, report: Box::new(report) });
            attempts.running.borrow_mut().remove(&lease);
            attempts.tidy().await;
            if attempts.count() == 0 {
                attempts.idle.notify_waiters();
            }
        });
    }

    /// Ends an attempt gently; its report says by whom.
    pub fn stop(&self, lease: LeaseId, by: &str) {
        if let Some(running) = self.running.borrow().get(&lease) {
            running.cancel.gently(by);
        }
    }

    /// Ends an attempt at once; nothing more is said of it.
    pub fn forget(&self, lease: LeaseId) {
        self.outbox.forget(lease);
        if let Some(running) = self.running.borrow().get(&lease) {
            running.cancel.at_once("the server gave the job to another worker");
        }
    }

    /// Ends all attempts at once.
    pub fn end_all(&self) {
        for running in self.running.borrow().values() {
            running.cancel.at_once("the worker is being stopped");
        }
    }

    async fn run(
        &self,
        spec: AttemptSpec,
        values: BTreeMap<String, String>,
        cancel: worker::Cancel,
    ) -> Result<AttemptReport, String> {
        let masker = Masker::new(values.values()).map_err(|error| error.to_string())?;
        let checkout = self.link.checkout(spec.origin.source).await?;
        self.fetch_programs(&spec).await?;
        let build = match spec.job.workspace {
            WorkspaceKind::Isolated => self.open_build(&spec, &checkout).await?,
            WorkspaceKind::InPlace => self.open_in_place(&spec, &checkout).await?,
        };
        let (lease, name) = (spec.lease, spec.name.clone());
        build.observer.begin(&name, lease);
        build.worker.withhold(&spec.job.secrets);
        let mask = (!values.is_empty()).then(|| Arc::new(LocalMask(masker.clone())) as Arc<dyn worker::depot::Mask>);
        let secrets = worker::depot::Secrets { values, mask };
        let (outbox, attempt) = (Arc::clone(&self.outbox), spec.attempt);
        let log = LeaseLog { outbox, lease, build: spec.build, attempt, masker };
        let depot = RemoteDepot::new(Arc::clone(&self.link), lease);
        let report = worker::run_attempt(&build.worker, spec, secrets, Arc::new(log), Arc::new(depot), cancel).await;
        build.observer.end(&name, lease);
        Ok(report)
    }

    /// Waits until nobody opens a build or removes its workspaces.
    async fn until_free(&self, build: BuildId) {
        loop {
            let freed = self.freed.notified();
            if !self.busy.borrow().contains(&build) {
                return;
            }
            freed.await;
        }
    }

    fn free(&self, builds: &[BuildId]) {
        self.busy.borrow_mut().retain(|build| !builds.contains(build));
        self.freed.notify_waiters();
    }

    /// The programs of pipelines that steps of the job are functions of.
    async fn fetch_programs(&self, spec: &AttemptSpec) -> Result<(), String> {
        let programs = spec.job.steps.iter().filter_map(|step| match step.shell {
            Shell::Program(digest) => Some(digest),
            _ => None,
        });
        for digest in programs.collect::<BTreeSet<_>>() {
            let path = worker::program_file(&self.data, digest);
            if path.is_file() {
                // Programs that nothing uses go by their age.
                let _ = fs::File::open(&path).and_then(|file| file.set_modified(std::time::SystemTime::now()));
                continue;
            }
            let link = Arc::clone(&self.link);
            link.fetch(digest).await?;
            let laid = tokio::task::spawn_blocking(move || lay_program(&link, digest, &path)).await;
            laid.map_err(|error| error.to_string())??;
        }
        Ok(())
    }

    async fn open_build(&self, spec: &AttemptSpec, checkout: &Checkout) -> Result<Rc<OpenBuild>, String> {
        let (build, source) = (spec.build, spec.origin.source);
        // Whoever opens it now does so for all.
        self.until_free(build).await;
        let is_it = |open: &Rc<OpenBuild>| open.build == build && open.source == source;
        let found = {
            let mut builds = self.builds.borrow_mut();
            let place = builds.iter().position(is_it);
            place.map(|place| {
                let open = builds.remove(place);
                builds.push(Rc::clone(&open));
                open
            })
        };
        if let Some(open) = found {
            return Ok(open);
        }
        self.busy.borrow_mut().insert(build);
        let opened = self.open(spec, checkout).await;
        self.free(&[build]);
        let open = Rc::new(opened?);
        let mut builds = self.builds.borrow_mut();
        builds.push(Rc::clone(&open));
        if builds.len() > BUILDS_OPEN_MAX {
            builds.remove(0);
        }
        Ok(open)
    }

    /// Opens a build over a checkout that nobody changes.
    async fn open(&self, spec: &AttemptSpec, checkout: &Checkout) -> Result<OpenBuild, String> {
        let directory = worker::snapshot_directory(&self.data, spec.build);
        let (tree, folder) = (checkout.tree.clone(), checkout.folder.clone());
        let taken = tokio::task::spawn_blocking(move || {
            Snapshot::of_immutable(&tree, &folder, &directory)
                .map(drop)
                .map_err(|error| crate::commands::Stop::of(&error))
        });
        taken.await.map_err(|error| error.to_string())?.map_err(|stop| stop.message)?;
        self.open_at(spec, checkout.root()).await
    }

    /// Opens a build for one attempt over a copy of the checkout.
    async fn open_in_place(&self, spec: &AttemptSpec, checkout: &Checkout) -> Result<Rc<OpenBuild>, String> {
        self.until_free(spec.build).await;
        let directory = worker::workspace_directory(&self.data, spec.build, spec.attempt);
        let from = checkout.clone();
        let copied = tokio::task::spawn_blocking(move || {
            fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
            checkout::copy(&from, &directory.join("tree"))
        });
        let copied = copied.await.map_err(|error| error.to_string())??;
        Ok(Rc::new(self.open_at(spec, copied.root()).await?))
    }

    async fn open_at(&self, spec: &AttemptSpec, root: PathBuf) -> Result<OpenBuild, String> {
        let observer = Arc::new(StepObserver { outbox: Arc::clone(&self.outbox), leases: Mutex::default() });
        let settings = worker::Settings {
            root,
            data: self.data.clone(),
            build: spec.build,
            grace: self.grace,
            observer: Some(Arc::clone(&observer) as Arc<dyn worker::Observer>),
        };
        let worker = worker::Worker::new(self.processes.clone(), settings).await;
        let worker = worker.map_err(|error| crate::commands::Stop::of(&error).message)?;
        Ok(OpenBuild { build: spec.build, source: spec.origin.source, worker, observer })
    }

    /// The builds and sources that attempts or open builds use.
    fn in_use(&self) -> (BTreeSet<BuildId>, BTreeSet<Digest>) {
        let (running, open) = (self.running.borrow(), self.builds.borrow());
        let of_open = open.iter().map(|open| open.build);
        let builds = running.values().map(|running| running.build).chain(of_open).collect();
        let of_open = open.iter().filter_map(|open| open.source);
        let sources = running.values().filter_map(|running| running.source).chain(of_open).collect();
        (builds, sources)
    }

    /// Takes away what is old: workspaces, checkouts, contents.
    async fn tidy(&self) {
        self.untidied.set(self.untidied.get() + 1);
        if self.count() > 0 && self.untidied.get() < ATTEMPTS_UNTIDIED_MAX {
            return;
        }
        self.untidied.set(0);
        let data = self.data.clone();
        let old = tokio::task::spawn_blocking(move || old_workspaces(&data)).await.unwrap_or_default();
        // Nothing comes between this look and the mark: an attempt that begins now sees the mark.
        let (builds, sources) = self.in_use();
        let gone: Vec<BuildId> = {
            let mut busy = self.busy.borrow_mut();
            // What is marked already another turn removes.
            old.into_iter().filter(|build| !builds.contains(build) && busy.insert(*build)).collect()
        };
        let (data, link, going) = (self.data.clone(), Arc::clone(&self.link), gone.clone());
        let tidied = tokio::task::spawn_blocking(move || {
            for build in going {
                let _ = worker::workspace::remove_tree(&data.join("workspaces").join(build.0.to_string()));
            }
            link.sweep(&sources);
        });
        // What could not be taken away is tried again later.
        let _ = tidied.await;
        self.free(&gone);
    }
}

fn infra(message: String) -> AttemptReport {
    AttemptReport::of(Outcome::Failed(Failure::Infra { message }), now())
}

/// Makes the file that steps of a program are started from.
fn lay_program(link: &Link, digest: Digest, path: &Path) -> Result<(), String> {
    let lay = || {
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let mut source = link.contents().file(digest).ok_or(std::io::ErrorKind::NotFound)?;
        let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
        std::io::copy(&mut source, &mut fresh)?;
        fresh.flush()?;
        fresh.as_file().set_permissions(fs::Permissions::from_mode(0o755))?;
        fresh.persist(path).map(drop).map_err(|error| error.error)
    };
    lay().map_err(|error| format!("cannot keep the pipeline's program: {error}"))
}

/// The builds with workspaces that are not among the newest.
fn old_workspaces(data: &Path) -> Vec<BuildId> {
    let Ok(entries) = fs::read_dir(data.join("workspaces")) else { return Vec::new() };
    let mut builds: Vec<u64> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    builds.sort_unstable_by(|left, right| right.cmp(left));
    builds.into_iter().skip(BUILDS_WITH_WORKSPACES).map(BuildId).collect()
}
