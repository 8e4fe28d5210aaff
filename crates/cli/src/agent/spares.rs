//! The workspace that is made ahead: while nothing runs, of the files that the last attempt had, for the attempt that begins next.
//!
//! There is at most one. It goes to the first attempt that begins after it was asked for, if that wants the same files, or to nobody: no job
//! runs beside a workspace that another is given later. One that nobody took is removed before the next is made, after a while, and at the
//! worker's end. An attempt that comes while it is being made waits for it, if it wants it: to make another would not be quicker.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use graph::{AttemptSpec, Digest, Environment, WorkspaceKind};
use tokio::sync::{Mutex, OwnedMutexGuard};
use worker::keeper::Processes;
use worker::workspace::{Snapshot, Spare, remove_spares};

use super::checkout::Checkout;

/// How long one waits at least, and at most twice as long: its mount holds on to those of the machine.
const KEPT: Duration = Duration::from_secs(60);

/// Which files an attempt wants: all of a project's source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    project: String,
    source: Digest,
}

impl Wish {
    /// What an attempt wants; `None` if it is something else.
    pub fn of(spec: &AttemptSpec) -> Option<Self> {
        let sees_all = !matches!(spec.job.environment, Environment::Sandbox { .. }) || spec.job.inputs().is_none();
        let is_all = sees_all && spec.job.workspace == WorkspaceKind::Isolated;
        let source = spec.origin.source.filter(|_| is_all)?;
        Some(Self { project: spec.origin.project.clone(), source })
    }

    /// Of which source.
    pub fn source(&self) -> Digest {
        self.source
    }
}

/// The workspace that is made ahead, if there is one.
pub struct Spares {
    data: PathBuf,
    processes: Processes,
    newest: RefCell<Option<One>>,
    /// How many were begun.
    count: Cell<u64>,
    /// Whether somebody waits until one has waited too long.
    is_watched: Cell<bool>,
    is_over: Cell<bool>,
}

/// One that is being made, waits or has been taken.
struct One {
    wish: Wish,
    is_promised: bool,
    /// Locked while it is being made; empty if it could not be, or was taken.
    spare: Arc<Mutex<Option<Spare>>>,
    /// Its files stay.
    _checkout: Checkout,
}

/// That an attempt may have it, and nobody else.
pub struct Promise(Arc<Mutex<Option<Spare>>>);

impl Promise {
    /// It, once it is made; `None` if it could not be. Who does not use it gives it to [`Spares::remove`].
    pub async fn redeem(self) -> Option<Spare> {
        self.0.lock().await.take()
    }
}

impl Spares {
    /// None yet. What a process left that was killed is removed. Blocks.
    pub fn new(data: PathBuf, processes: Processes) -> Self {
        // What is left takes little room, and is tried again in the next life.
        let _ = remove_spares(&worker::workspaces(&data));
        Self {
            data,
            processes,
            newest: RefCell::default(),
            count: Cell::new(0),
            is_watched: Cell::new(false),
            is_over: Cell::new(false),
        }
    }

    /// An attempt begins: it is promised the one that was made ahead if it is as wished, and otherwise nobody has it any more.
    pub fn promise(&self, wish: Option<&Wish>) -> Option<Promise> {
        let mut newest = self.newest.borrow_mut();
        let one = newest.as_mut()?;
        let was_promised = std::mem::replace(&mut one.is_promised, true);
        (!was_promised && wish == Some(&one.wish)).then(|| Promise(Arc::clone(&one.spare)))
    }

    /// Begins to make one. To be called when nothing runs.
    pub fn make(self: &Rc<Self>, wish: Wish, snapshot: Arc<Snapshot>, checkout: Checkout) {
        let mut newest = self.newest.borrow_mut();
        let waits = newest.as_ref().is_some_and(|one| !one.is_promised && one.wish == wish);
        if self.is_over.get() || waits {
            return;
        }
        let spare = Arc::new(Mutex::new(None));
        // Nobody else has it yet.
        let Ok(place) = Arc::clone(&spare).try_lock_owned() else { return };
        let before = newest.replace(One { wish, is_promised: false, spare, _checkout: checkout });
        drop(newest);
        let number = self.count.get() + 1;
        self.count.set(number);
        let spares = Rc::clone(self);
        tokio::task::spawn_local(async move {
            if let Some(before) = before {
                spares.remove_one(before).await;
            }
            spares.fill(place, snapshot, number).await;
        });
        self.remove_when_old();
    }

    async fn fill(&self, mut place: OwnedMutexGuard<Option<Spare>>, snapshot: Arc<Snapshot>, number: u64) {
        let (workspaces, data) = (worker::workspaces(&self.data), self.data.clone());
        let meanwhile = move || worker::set_aside(&data);
        let made = Spare::make(snapshot, &workspaces, number, &self.processes, meanwhile).await;
        // Without one the next attempt makes its own, and tells what is wrong.
        *place = made.ok().flatten();
    }

    /// Removes one that nobody uses.
    pub async fn remove(&self, spare: Spare) {
        // What is left takes little room, and is removed in the next life.
        let _ = spare.remove(&self.processes).await;
    }

    async fn remove_one(&self, one: One) {
        let spare = one.spare.lock().await.take();
        if let Some(spare) = spare {
            self.remove(spare).await;
        }
    }

    fn remove_when_old(self: &Rc<Self>) {
        if self.is_watched.replace(true) {
            return;
        }
        let spares = Rc::clone(self);
        tokio::task::spawn_local(async move {
            loop {
                let before = spares.count.get();
                tokio::time::sleep(KEPT).await;
                if spares.count.get() == before {
                    break;
                }
            }
            spares.is_watched.set(false);
            spares.remove_newest().await;
        });
    }

    async fn remove_newest(&self) {
        let newest = self.newest.take();
        if let Some(newest) = newest {
            self.remove_one(newest).await;
        }
    }

    /// Removes the one that waits, or is being made; no other is made. To be called before the keeper ends.
    pub async fn end(&self) {
        self.is_over.set(true);
        self.remove_newest().await;
    }
}
