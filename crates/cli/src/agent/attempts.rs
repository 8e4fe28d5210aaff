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
use tokio::sync::{Notify, watch};
use worker::keeper::Processes;
use worker::workspace::{Files, Snapshot, Spare, Workspace, WorkspaceError, collect_layers};

use super::behind::behind;
use super::checkout::{self, Checkout};
use super::departure::Departure;
use super::depot::RemoteDepot;
use super::health::{Health, Room};
use super::holding::{Held, Holds};
use super::layers::{Sending, Sends};
use super::link::{Link, LinkError};
use super::outbox::{LeaseLog, Outbox};
use super::session::{say, warn};
use super::spares::{Promise, Spares, Wish};
use crate::keeping::{LocalMask, unmasked};
use crate::local::clock::now;

/// How many builds are kept open for their next attempt.
const BUILDS_OPEN_MAX: usize = 16;

/// How long the builds that are open for no good reason any more wait behind the end of an attempt.
const BEFORE_CLOSING: Duration = Duration::from_millis(1);

/// How many of the newest builds keep the workspaces of their jobs.
const BUILDS_WITH_WORKSPACES: usize = 20;

/// How many attempts end between two times of tidying, if the worker is never idle.
const ATTEMPTS_UNTIDIED_MAX: u32 = 64;

/// How long a worker is idle before it tidies: what comes at once after an attempt is more urgent.
const IDLE_BEFORE_TIDYING: Duration = Duration::from_secs(1);

/// Of how many leases it is remembered that they are to stop though they have not begun here; of the smallest it is forgotten first.
const EARLY_STOPS_MAX: usize = 1024;

/// What all attempts share.
pub struct Attempts {
    data: PathBuf,
    processes: Processes,
    grace: Duration,
    link: Arc<Link>,
    outbox: Arc<Outbox>,
    departure: Departure,
    running: RefCell<BTreeMap<LeaseId, Running>>,
    /// Leases that are to stop and have not begun here, and who says so: the start waits for its secrets, and may come later.
    early_stops: RefCell<BTreeMap<LeaseId, String>>,
    /// The most recently used last.
    builds: RefCell<Vec<Rc<OpenBuild>>>,
    /// Builds that are being opened, each by one attempt; others wait for it.
    opening: tokio::sync::Mutex<()>,
    /// Builds whose workspaces are in use.
    holds: Holds<BuildId>,
    untidied: Cell<u32>,
    tidying: Cell<Tidying>,
    /// Whether old workspaces are being removed.
    is_removing: Cell<bool>,
    /// What ended builds leave to later ones.
    scratches: Arc<worker::Scratches>,
    /// The workspace that is made ahead.
    spares: Rc<Spares>,
    /// What it is to be made of, once the server has been told of the attempt that had it.
    next: RefCell<Option<(BuildId, Wish)>>,
    /// What ended attempts left, on its way to the server.
    sends: Sends,
    /// Whether the worker may take something new; whoever looks at it holds it.
    health: tokio::sync::Mutex<Health>,
    /// How much room the disk must have.
    room: Room,
    /// Why nothing new is taken, if so.
    closed: watch::Sender<Option<String>>,
    /// Woken when nothing runs any more.
    pub idle: Notify,
}

/// Whether somebody waits for an idle moment to tidy up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tidying {
    Nobody,
    Planned,
}

/// An attempt that runs.
struct Running {
    cancel: worker::Cancel,
    /// Its workspace stays.
    _held: Held<BuildId>,
}

/// A build whose attempts run over one checkout.
struct OpenBuild {
    build: BuildId,
    source: Option<Digest>,
    worker: worker::Worker,
    observer: Arc<StepObserver>,
    /// Its files stay.
    checkout: Checkout,
    _held: Held<BuildId>,
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
        processes: Processes,
        grace: Duration,
        link: Arc<Link>,
        outbox: Arc<Outbox>,
        departure: Departure,
        health: Health,
        lost: &[LeaseId],
    ) -> Self {
        for lease in lost {
            let report = AttemptReport::of(Outcome::Failed(Failure::Lost), now());
            outbox.say_of(*lease, &FromWorker::Finished { lease: *lease, report: Box::new(report) });
        }
        // Now, since a full disk may have no room for it. What cannot be made is missed only there.
        let data = health.data.clone();
        let _ = fs::create_dir_all(worker::workspaces(&data).join(RETIRED));
        Self {
            room: health.room,
            health: tokio::sync::Mutex::new(health),
            closed: watch::Sender::new(None),
            spares: Rc::new(Spares::new(data.clone(), processes.clone())),
            next: RefCell::default(),
            sends: Sends::new(&data, Arc::clone(&link)),
            data,
            processes,
            grace,
            link,
            outbox,
            departure,
            running: RefCell::default(),
            early_stops: RefCell::default(),
            builds: RefCell::default(),
            opening: tokio::sync::Mutex::default(),
            holds: Holds::default(),
            untidied: Cell::new(0),
            tidying: Cell::new(Tidying::Nobody),
            is_removing: Cell::new(false),
            scratches: Arc::default(),
            idle: Notify::new(),
        }
    }

    /// Keeps the workspaces of a build.
    pub fn hold(&self, build: BuildId) -> Held<BuildId> {
        self.holds.hold(build)
    }

    /// How many run.
    pub fn count(&self) -> usize {
        self.running.borrow().len()
    }

    /// Whether nothing runs, and nothing of what ended attempts left is on its way.
    pub fn is_idle(&self) -> bool {
        self.count() == 0 && self.sends.count() == 0
    }

    /// Waits until nothing is on its way any more.
    pub async fn sent(&self) {
        let idle = self.sends.idle.notified();
        tokio::pin!(idle);
        idle.as_mut().enable();
        if self.sends.count() > 0 {
            idle.await;
        }
    }

    /// Closes builds once the last word of an attempt is on its way.
    fn close_builds_behind(self: &Rc<Self>) {
        let attempts = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(BEFORE_CLOSING).await;
            if let Some(attempts) = attempts.upgrade() {
                attempts.close_builds();
            }
        });
    }

    /// Closes the builds that were used longest ago, but for so many.
    fn close_builds(&self) {
        let mut builds = self.builds.borrow_mut();
        let n_closed = builds.len().saturating_sub(BUILDS_OPEN_MAX);
        builds.drain(..n_closed);
    }

    /// Sends what attempts of an earlier life left.
    pub fn send_earlier(self: &Rc<Self>) {
        for (build, attempt) in self.sends.earlier() {
            let sending = Sending { build, attempt, mask: None, _held: self.holds.hold(build) };
            let attempts = Rc::clone(self);
            tokio::task::spawn_local(async move { attempts.sends.send(sending).await });
        }
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
            let attempts = Rc::clone(self);
            tokio::task::spawn_local(async move {
                attempts.close_without_room().await;
                attempts.outbox.say(&FromWorker::Finished { lease, report: Box::new(report) });
            });
            return;
        }
        self.sends.stir();
        let cancel = worker::Cancel::new();
        if let Some(by) = self.early_stops.borrow_mut().remove(&lease) {
            cancel.gently(&by);
        }
        let running = Running { cancel: cancel.clone(), _held: self.holds.hold(spec.build) };
        self.running.borrow_mut().insert(lease, running);
        let attempts = Rc::clone(self);
        let sending = self.to_send(&spec, &secrets);
        let wish = Wish::of(&spec);
        let (build, promise) = (spec.build, self.spares.promise(wish.as_ref()));
        *self.next.borrow_mut() = None;
        tokio::task::spawn_local(async move {
            let mut report = attempts.run(spec, secrets, cancel, promise).await.unwrap_or_else(infra);
            attempts.departure.judge(&mut report).await;
            attempts.close_without_room().await;
            // Of a lease that was forgotten the outbox says nothing.
            attempts.outbox.say_of(lease, &FromWorker::Finished { lease, report: Box::new(report) });
            attempts.running.borrow_mut().remove(&lease);
            attempts.sends.stir();
            attempts.close_builds_behind();
            if let Some(sending) = sending {
                let attempts = Rc::clone(&attempts);
                tokio::task::spawn_local(async move { attempts.sends.send(sending).await });
            }
            if attempts.count() == 0 {
                attempts.idle.notify_waiters();
                *attempts.next.borrow_mut() = wish.map(|wish| (build, wish));
            }
            attempts.untidied.set(attempts.untidied.get() + 1);
            if attempts.untidied.get() >= ATTEMPTS_UNTIDIED_MAX {
                attempts.tidy().await;
            } else {
                attempts.tidy_when_idle();
            }
        });
    }

    /// The server has been told everything. If nothing runs, the workspace of the next attempt is made as that of the last one was: not
    /// before, since the end of a job is more urgent.
    pub fn told(&self) {
        let Some((build, wish)) = self.next.take() else { return };
        let builds = self.builds.borrow();
        let is_it = |open: &&Rc<OpenBuild>| open.build == build && open.source == Some(wish.source());
        if let Some(open) = builds.iter().find(is_it)
            && let Some(snapshot) = open.worker.snapshot_taken()
        {
            self.spares.make(wish, snapshot, open.checkout.clone());
        }
    }

    /// Removes the workspace that was made ahead, and makes no other.
    pub async fn end_spares(&self) {
        self.spares.end().await;
    }

    /// What will be sent of an attempt; nothing of one whose secrets cannot be told.
    fn to_send(&self, spec: &AttemptSpec, secrets: &BTreeMap<String, String>) -> Option<Sending> {
        let mask = match secrets.is_empty() {
            true => None,
            false => Some(Arc::new(LocalMask(Masker::new(secrets.values()).ok()?)) as Arc<dyn worker::depot::Mask>),
        };
        Some(Sending { build: spec.build, attempt: spec.attempt, mask, _held: self.holds.hold(spec.build) })
    }

    /// Ends an attempt gently, also one that begins later; its report says by whom. No harm if it is asked twice.
    pub fn stop(&self, lease: LeaseId, by: &str) {
        if let Some(running) = self.running.borrow().get(&lease) {
            return running.cancel.gently(by);
        }
        if !self.outbox.holds(lease) {
            let mut early_stops = self.early_stops.borrow_mut();
            early_stops.insert(lease, by.to_owned());
            if early_stops.len() > EARLY_STOPS_MAX {
                early_stops.pop_first();
            }
        }
    }

    /// Ends an attempt at once; nothing more is said of it.
    pub fn forget(&self, lease: LeaseId) {
        self.outbox.forget(lease);
        self.early_stops.borrow_mut().remove(&lease);
        if let Some(running) = self.running.borrow().get(&lease) {
            running.cancel.at_once("the server gave the job to another worker");
        }
    }

    /// Ends all attempts at once; that it was the worker's end is told of each.
    pub fn end_all(&self) {
        self.departure.cut_short();
        for running in self.running.borrow().values() {
            running.cancel.at_once("the worker is being stopped");
        }
    }

    async fn run(
        &self,
        spec: AttemptSpec,
        values: BTreeMap<String, String>,
        cancel: worker::Cancel,
        promise: Option<Promise>,
    ) -> Result<AttemptReport, String> {
        let masker = match Masker::new(values.values()) {
            Ok(masker) => masker,
            // The same values would be too much again.
            Err(error) => {
                return Ok(AttemptReport::of(Outcome::Failed(Failure::Setup { message: error.to_string() }), now()));
            }
        };
        self.fetch_programs(&spec).await?;
        let build = match spec.job.workspace {
            WorkspaceKind::Isolated => self.open_build(&spec, promise).await?,
            WorkspaceKind::InPlace => self.open_in_place(&spec).await?,
        };
        let (lease, name) = (spec.lease, spec.name.clone());
        build.observer.begin(&name, lease);
        build.worker.withhold(spec.job.all_secrets());
        let unmasked = unmasked(&values);
        let mask = (!values.is_empty()).then(|| Arc::new(LocalMask(masker.clone())) as Arc<dyn worker::depot::Mask>);
        let secrets = worker::depot::Secrets { values, mask };
        let (outbox, attempt) = (Arc::clone(&self.outbox), spec.attempt);
        let log = LeaseLog { outbox, lease, build: spec.build, attempt, masker };
        let depot = RemoteDepot::new(Arc::clone(&self.link), lease);
        let is_reusable = spec.operation.is_some();
        let log = Arc::new(log);
        let mut report = worker::run_attempt(&build.worker, spec, secrets, log, Arc::new(depot), cancel).await;
        // A keeper that is gone holds nothing.
        let _ = build.worker.close_made(attempt).await;
        report.notes.extend(unmasked);
        if is_reusable {
            let reads: Vec<String> = report.undeclared_reads().collect();
            report.notes.extend(reads);
        }
        build.observer.end(&name, lease);
        Ok(report)
    }

    /// The programs of pipelines that steps of the job are functions of.
    async fn fetch_programs(&self, spec: &AttemptSpec) -> Result<(), String> {
        let programs = spec.job.steps.iter().filter_map(|step| match step.shell {
            Shell::Program(digest) => Some(digest),
            _ => None,
        });
        for digest in programs.collect::<BTreeSet<_>>() {
            let (link, data) = (Arc::clone(&self.link), self.data.clone());
            let brought = tokio::task::spawn_blocking(move || bring_program(&link, &data, digest)).await;
            brought.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The open build of an attempt, opened if it is not: by one attempt, however many begin at once, since two that made its
    /// snapshot at once would each take away the other's.
    async fn open_build(&self, spec: &AttemptSpec, promise: Option<Promise>) -> Result<Rc<OpenBuild>, String> {
        if let Some(open) = self.opened(spec) {
            self.give_spare(&open, spec, promise).await?;
            return Ok(open);
        }
        let checkout = self.link.checkout(&spec.origin.project, spec.origin.source).await?;
        let _turn = self.opening.lock().await;
        if let Some(open) = self.opened(spec) {
            self.give_spare(&open, spec, promise).await?;
            return Ok(open);
        }
        let open = Rc::new(self.open(spec, checkout, promise).await?);
        self.builds.borrow_mut().push(Rc::clone(&open));
        Ok(open)
    }

    /// Gives an attempt of an open build the workspace that was made ahead, if it is promised it.
    async fn give_spare(&self, open: &OpenBuild, spec: &AttemptSpec, promise: Option<Promise>) -> Result<(), String> {
        let Some(promise) = promise else { return Ok(()) };
        let Some(spare) = promise.redeem().await else { return Ok(()) };
        let Some(snapshot) = open.worker.snapshot_taken() else {
            self.spares.remove(spare).await;
            return Ok(());
        };
        let directory = worker::workspace_directory(&self.data, spec.build, spec.attempt);
        // A few names on the thread of all attempts, of which none ran before this one.
        let Furnished { made, left } = furnish(&snapshot, &directory, &spec.job.environment, Some(spare));
        if let Some(left) = left {
            self.spares.remove(*left).await;
        }
        open.worker.give_made(spec.attempt, made.map_err(|error| crate::commands::Stop::of(&error).message)?);
        Ok(())
    }

    fn opened(&self, spec: &AttemptSpec) -> Option<Rc<OpenBuild>> {
        let mut builds = self.builds.borrow_mut();
        let is_it = |open: &Rc<OpenBuild>| open.build == spec.build && open.source == spec.origin.source;
        let place = builds.iter().position(is_it)?;
        let open = builds.remove(place);
        builds.push(Rc::clone(&open));
        Some(open)
    }

    /// Opens a build over a checkout that nobody changes.
    async fn open(
        &self,
        spec: &AttemptSpec,
        checkout: Checkout,
        promise: Option<Promise>,
    ) -> Result<OpenBuild, String> {
        let (data, build, attempt) = (self.data.clone(), spec.build, spec.attempt);
        let (sees_all, environment) = (Wish::of(spec).is_some(), spec.job.environment.clone());
        let Checkout { tree, folder, shown, .. } = checkout.clone();
        let spare = match promise {
            Some(promise) => promise.redeem().await,
            None => None,
        };
        let is_ready = spare.is_some();
        let make = move || {
            let data = &data;
            worker::take_aside(data, build);
            let directory = worker::snapshot_directory(data, build);
            let snapshot = match Snapshot::of_immutable(&tree, &folder, &shown, &directory) {
                Ok(snapshot) => snapshot,
                Err(error) => return (Err(error), spare.map(Box::new)),
            };
            let directory = worker::workspace_directory(data, build, attempt);
            if !sees_all {
                let _ = worker::workspace::remove_tree(&directory);
                return (Ok((snapshot, None)), None);
            }
            let furnished = furnish(&snapshot, &directory, &environment, spare);
            (furnished.made.map(|made| (snapshot, Some(made))), furnished.left)
        };
        let (tell, made) = tokio::sync::oneshot::channel();
        let data = self.data.clone();
        // The snapshot and the first workspace at once: each change of threads costs as much as a file. Where the workspace is ready these
        // are a few names, and no attempt ran before this one. The next build's folder is made while this one goes on, or with the next
        // workspace: just now a thread more would take the turn of this one.
        if is_ready {
            let _ = tell.send(make());
        } else {
            drop(tokio::task::spawn_blocking(move || {
                if tell.send(make()).is_ok() {
                    worker::set_aside(&data);
                }
            }));
        }
        let open = self.open_at(spec, checkout, None).await;
        let (made, left) = made.await.map_err(|_| "the workspace was not made to its end".to_owned())?;
        if let Some(left) = left {
            self.spares.remove(*left).await;
        }
        let (snapshot, made) = made.map_err(|error| crate::commands::Stop::of(&error).message)?;
        let open = match (open, made) {
            (Ok(open), made) => {
                if let Some(made) = made {
                    open.worker.give_made(attempt, made);
                }
                open
            }
            (Err(fault), made) => {
                if let Some(open) = made.and_then(|made| made.open) {
                    let _ = open.close(&self.processes).await;
                }
                return Err(fault);
            }
        };
        let worker = open.worker.with_snapshot(snapshot);
        Ok(OpenBuild { worker, ..open })
    }

    /// Opens a build for one attempt over a copy of the checkout.
    async fn open_in_place(&self, spec: &AttemptSpec) -> Result<Rc<OpenBuild>, String> {
        let checkout = self.link.checkout(&spec.origin.project, spec.origin.source).await?;
        let directory = worker::workspace_directory(&self.data, spec.build, spec.attempt);
        let copied = tokio::task::spawn_blocking(move || {
            fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
            checkout::copy(&checkout, &directory.join("tree"))
        });
        let copied = copied.await.map_err(|error| error.to_string())??;
        let shown = worker::Shown { tree: copied.tree.clone(), at: copied.shown.clone() };
        Ok(Rc::new(self.open_at(spec, copied, Some(shown)).await?))
    }

    async fn open_at(
        &self,
        spec: &AttemptSpec,
        checkout: Checkout,
        shown: Option<worker::Shown>,
    ) -> Result<OpenBuild, String> {
        let observer = Arc::new(StepObserver { outbox: Arc::clone(&self.outbox), leases: Mutex::default() });
        let settings = worker::Settings {
            root: checkout.root(),
            data: self.data.clone(),
            walled_off: crate::project::walled_off(&self.data),
            build: spec.build,
            grace: self.grace,
            observer: Some(Arc::clone(&observer) as Arc<dyn worker::Observer>),
            shown,
            notes: checkout.notes.clone(),
            steps: crate::retention::step_bounds(),
            passed: checkout.passed(),
        };
        let worker = worker::Worker::new_among(self.processes.clone(), settings, &self.scratches).await;
        let worker = worker.map_err(|error| crate::commands::Stop::of(&error).message)?;
        let (build, source) = (spec.build, spec.origin.source);
        Ok(OpenBuild { build, source, worker, observer, checkout, _held: self.holds.hold(build) })
    }

    /// Tidies up once nothing has run for a while.
    fn tidy_when_idle(self: &Rc<Self>) {
        if self.tidying.replace(Tidying::Planned) == Tidying::Planned {
            return;
        }
        let attempts = Rc::clone(self);
        tokio::task::spawn_local(async move {
            loop {
                let before = attempts.untidied.get();
                tokio::time::sleep(IDLE_BEFORE_TIDYING).await;
                if attempts.count() == 0 && attempts.untidied.get() == before {
                    break;
                }
            }
            attempts.tidying.set(Tidying::Nobody);
            attempts.tidy().await;
        });
    }

    /// Why nothing new is taken, if so, and each change of it.
    pub fn closed(&self) -> watch::Receiver<Option<String>> {
        self.closed.subscribe()
    }

    /// Looks whether the worker may take something new. A disk without room is tidied first; the worker closes if that was not enough.
    pub async fn look(&self) {
        let mut health = self.health.lock().await;
        if !self.has_room() {
            // What is open keeps its workspaces, for attempts that may come.
            self.builds.borrow_mut().retain(|build| Rc::strong_count(build) > 1);
        }
        let mut looked = health.clone();
        let (data, link, holds) = (self.data.clone(), Arc::clone(&self.link), self.holds.clone());
        let work = move || {
            let room = looked.room;
            let reason = looked.closed(|| make_room(&data, &link, &holds, || room.is_at(&data)));
            (reason, looked)
        };
        let Ok((reason, looked)) = tokio::task::spawn_blocking(work).await else { return };
        *health = looked;
        self.closed.send_if_modified(|present| {
            let is_new = *present != reason;
            if is_new {
                match &reason {
                    Some(reason) => warn(&format!("taking nothing new: {reason}")),
                    None => say("taking jobs again"),
                }
                *present = reason;
            }
            is_new
        });
    }

    fn has_room(&self) -> bool {
        self.room.is_at(&self.data)
    }

    /// Where there is no room makes some, and tells the server if that was not enough: what is said of an attempt after this has the
    /// server hand the next try to another worker.
    async fn close_without_room(&self) {
        if self.has_room() {
            return;
        }
        self.look().await;
        let closed = self.closed.borrow().clone();
        if closed.is_some() {
            self.outbox.say(&FromWorker::Present { leases: self.outbox.leases(), closed });
        }
    }

    /// Takes away what is old: workspaces, checkouts, contents.
    async fn tidy(&self) {
        self.untidied.set(0);
        let (data, link, holds) = (self.data.clone(), Arc::clone(&self.link), self.holds.clone());
        let tidied = tokio::task::spawn_blocking(move || {
            let workspaces = data.join("workspaces");
            let retired = retire_workspaces(&workspaces, &holds);
            // What is left is tried again later.
            let _ = collect_layers(&workspaces, crate::retention::steps_bytes_max(), &|build| {
                holds.unless_held(&BuildId(build), || ()).is_some()
            });
            link.sweep();
            retired
        });
        // What could not be taken away is tried again later.
        let Ok(retired) = tidied.await else { return };
        self.remove(retired).await;
    }

    /// Removes what was retired. Where the last time is not over yet, jobs leave more than a thread that gives way takes away: then it does not.
    async fn remove(&self, retired: PathBuf) {
        let work = move || remove_retired(&retired);
        if self.is_removing.replace(true) {
            let _ = tokio::task::spawn_blocking(work).await;
        } else {
            let _ = behind("tidy", work).await;
            self.is_removing.set(false);
        }
    }
}

/// The fresh workspace of an attempt, and the one made ahead that could not be it.
struct Furnished {
    made: Result<worker::Made, WorkspaceError>,
    left: Option<Box<Spare>>,
}

/// Makes a workspace of all files for steps in an environment: of the one that was made ahead, if that is as good as a fresh one. Blocks.
fn furnish(snapshot: &Snapshot, directory: &Path, environment: &graph::Environment, spare: Option<Spare>) -> Furnished {
    // What an earlier life of this attempt left is not the state of the start.
    let _ = worker::workspace::remove_tree(directory);
    let left = match spare.map(|spare| spare.take(snapshot, directory, environment)) {
        Some(Ok((workspace, open))) => {
            return Furnished { made: Ok(worker::Made { workspace, open: Some(open) }), left: None };
        }
        Some(Err(left)) => Some(left),
        None => None,
    };
    let made = Workspace::create(snapshot, directory, Files::All, environment);
    Furnished { made: made.map(|workspace| worker::Made { workspace, open: None }), left }
}

fn infra(message: String) -> AttemptReport {
    AttemptReport::of(Outcome::Failed(Failure::Infra { message }), now())
}

/// Sees to it that a program of a pipeline lies where steps are started from. One that does is used now: those that nothing uses go by their age. Blocks.
pub fn bring_program(link: &Link, data: &Path, program: Digest) -> Result<(), LinkError> {
    let path = worker::program_file(data, program);
    if path.is_file() {
        let _ = fs::File::open(&path).and_then(|file| file.set_modified(std::time::SystemTime::now()));
        return Ok(());
    }
    link.fetch_now(program)?;
    lay_program(link, program, &path).map_err(LinkError::Refused)
}

/// Makes the file that steps of a program are started from.
pub fn lay_program(link: &Link, digest: Digest, path: &Path) -> Result<(), String> {
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

/// The folder among the workspaces of those that are being taken away. It is one of its own, since to take something out of a folder
/// keeps whoever puts something in waiting.
const RETIRED: &str = ".retired";

fn names(folder: &Path) -> impl Iterator<Item = std::ffi::OsString> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name())
}

/// The builds that have workspaces, the newest first.
fn builds_in(workspaces: &Path) -> Vec<u64> {
    let mut builds: Vec<u64> = names(workspaces).filter_map(|name| name.to_str()?.parse().ok()).collect();
    builds.sort_unstable_by(|left, right| right.cmp(left));
    builds
}

/// Puts the workspaces of builds that are not among the newest and that nobody holds out of sight. Gives the folder that they are in.
fn retire_workspaces(workspaces: &Path, holds: &Holds<BuildId>) -> PathBuf {
    for build in builds_in(workspaces).into_iter().skip(BUILDS_WITH_WORKSPACES) {
        retire(workspaces, build, holds);
    }
    workspaces.join(RETIRED)
}

/// Puts the workspaces of a build out of sight, while nobody can begin to use them, unless somebody does.
fn retire(workspaces: &Path, build: u64, holds: &Holds<BuildId>) {
    let retired = workspaces.join(RETIRED);
    // It may be there. What is not moved is tried again later.
    let _ = fs::create_dir(&retired);
    let (from, to) = (workspaces.join(build.to_string()), retired.join(build.to_string()));
    let _ = holds.unless_held(&BuildId(build), || fs::rename(from, to));
}

/// Removes workspaces that nobody holds, however new, those of the oldest builds first, and then contents, until there is room. Blocks.
fn make_room(data: &Path, link: &Link, holds: &Holds<BuildId>, has_room: impl Fn() -> bool) {
    remove_until(&worker::workspaces(data), holds, &has_room);
    link.sweep_until(has_room);
}

fn remove_until(workspaces: &Path, holds: &Holds<BuildId>, has_room: impl Fn() -> bool) {
    remove_retired(&workspaces.join(RETIRED));
    for build in builds_in(workspaces).into_iter().rev() {
        if has_room() {
            return;
        }
        retire(workspaces, build, holds);
        remove_retired(&workspaces.join(RETIRED));
    }
}

/// Removes what is in a folder; what cannot be removed is tried again later.
fn remove_retired(retired: &Path) {
    for name in names(retired) {
        let _ = worker::workspace::remove_tree(&retired.join(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspaces_that_somebody_holds_stay() {
        let scratch = tempfile::tempdir().expect("a folder");
        let count = BUILDS_WITH_WORKSPACES as u64 + 3;
        for build in 1..=count {
            fs::create_dir_all(scratch.path().join(build.to_string()).join("snapshot")).expect("a folder");
        }
        let holds = Holds::default();
        let _held = holds.hold(BuildId(2));
        remove_retired(&retire_workspaces(scratch.path(), &holds));
        let left = |build: u64| scratch.path().join(build.to_string()).exists();
        assert_eq!([1, 2, 3, 4].map(left), [false, true, false, true]);
        assert_eq!((1..=count).filter(|build| left(*build)).count(), BUILDS_WITH_WORKSPACES + 1);
        assert_eq!(fs::read_dir(scratch.path().join(RETIRED)).expect("a folder").count(), 0);
    }

    #[test]
    fn without_room_the_workspaces_of_the_oldest_builds_go_however_few_there_are() {
        let scratch = tempfile::tempdir().expect("a folder");
        for build in 1..=5 {
            fs::create_dir_all(scratch.path().join(build.to_string()).join("snapshot")).expect("a folder");
        }
        let holds = Holds::default();
        let _held = holds.hold(BuildId(2));
        let left = || {
            let mut left = builds_in(scratch.path());
            left.reverse();
            left
        };
        remove_until(scratch.path(), &holds, || left().len() <= 3);
        assert_eq!(left(), [2, 4, 5]);
        remove_until(scratch.path(), &holds, || false);
        assert_eq!(left(), [2]);
        assert_eq!(fs::read_dir(scratch.path().join(RETIRED)).expect("a folder").count(), 0);
    }
}
