//! Turns between the processes that run builds of one project: one job at a time in a concurrency group, and one that runs an operation.
//!
//! The engine sees to both within its builds; here the jobs that it has begun stand in line with those of other processes, by tickets
//! (`tickets.rs`). Whoever waits holds a connection to the process of the one that has the turn (`control.rs`), which answers when the
//! ticket is given back, and breaks when the process dies: then it looks again. So nobody polls, and nothing has to be cleaned up.
//!
//! Why nobody waits in a circle. Who waits for an operation is a job of a build that no job waits for, which has neither turn nor slot yet, so nobody waits for
//! it. Who waits for a group is refused if it closes a ring of such waits (`tickets::ring`). Who has a turn and no slot, while a job below
//! one that has a slot waits for that turn, begins without ([`Turns::is_hurried`]). And what waits for a turn takes no slot from
//! other jobs of its build ([`Turns::slots_beyond`]).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use engine::NEWER_IN_GROUP;
use engine::ring::{Holding, why_refused};
use futures_util::future::{Either, select};
use graph::{BuildId, ConcurrencyMode, Digest, Failure, JobName, Outcome, Trust};
use store::Store;
use tokio::sync::{oneshot, watch};

use super::tickets::{JobKey, Link, Reach, Ticket, Tickets, Waiting, before, group_key, operation_key, ring};
use crate::control::{self, Heard, Request};
use crate::view::Awaited;

/// The wait before a process is asked again that has not answered and still has its ticket: it is about to end.
const AGAIN: Duration = Duration::from_millis(5);

/// The turns that jobs of one build have or wait for.
pub struct Turns {
    tickets: Tickets,
    data: PathBuf,
    build: BuildId,
    trust: Trust,
    /// The jobs that wait for this build, the nearest first.
    above: Vec<JobKey>,
    groups: RefCell<HashMap<JobName, InGroup>>,
    operations: RefCell<Operations>,
    /// The jobs whose operations are asked for, until they are or the job has ended.
    asking: RefCell<HashMap<JobName, oneshot::Sender<()>>>,
    /// The jobs that wait for a slot.
    without_slot: Cell<u32>,
}

/// A ticket of this process.
struct Held {
    ticket: Ticket,
    /// Whether somebody needs its holder to begin without a slot. Whoever listens hears the end of it when the ticket has been given back.
    is_hurried: watch::Sender<bool>,
}

/// A job that has a group, or waits for it.
struct InGroup {
    held: Held,
    stands: Stands,
    /// Its end is told, though its attempt may not be at its end: nobody else begins before that.
    is_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// It waits.
    InLine,
    /// It has its turn, and an attempt runs.
    AtWork,
    /// It has its turn, and no attempt runs: it waits for its next try, or its end is about to be told.
    AtRest,
}

#[derive(Default)]
struct Operations {
    /// Each with the jobs that want it; the engine says which of them runs it.
    held: HashMap<Digest, (Held, HashSet<JobName>)>,
    of_jobs: HashMap<JobName, Digest>,
}

/// What came of waiting for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The job goes on: nobody else runs the operation, or the job does not wait for it. Who ran it until now may have left a result.
    GoOn,
    /// The job has ended meanwhile.
    Ended,
}

/// Hears of a ticket of this process.
pub struct Listening(watch::Receiver<bool>);

impl Listening {
    /// Waits until the ticket is given back.
    pub async fn returned(mut self) {
        while self.0.changed().await.is_ok() {}
    }

    /// Waits until its holder is needed without a slot.
    pub async fn hurried(mut self) {
        if self.0.wait_for(|is_hurried| *is_hurried).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Held {
    fn new(ticket: Ticket) -> Self {
        Self { ticket, is_hurried: watch::Sender::new(false) }
    }

    fn listen(&self) -> Listening {
        Listening(self.is_hurried.subscribe())
    }
}

impl Turns {
    /// The turns of a build that this process has claimed, for which the jobs `above` wait.
    pub fn new(data: &Path, build: BuildId, trust: Trust, above: Vec<JobKey>, store: Arc<dyn Store>) -> Self {
        Self {
            tickets: Tickets::new(data, build, store),
            data: data.to_owned(),
            build,
            trust,
            above,
            groups: RefCell::default(),
            operations: RefCell::default(),
            asking: RefCell::default(),
            without_slot: Cell::new(0),
        }
    }

    /// Waits until no other process runs an operation, and then has its turn until the job has ended. A job of a build that another job waits for
    /// does not wait, and where the medium refuses nobody does: an operation that runs twice costs time only.
    pub async fn operation(&self, job: &JobName, operation: Digest, shown: impl Fn(Option<&Awaited>)) -> Asked {
        let key = operation_key(operation, self.trust);
        let (mut ended, mut before, mut is_shown) = (None, None, None);
        let asked = loop {
            if self.want(job, operation) {
                break Asked::GoOn;
            }
            let holder = match self.tickets.take_operation(&key, job) {
                Ok(Link::Ours(ticket)) => {
                    self.operations.borrow_mut().held.insert(operation, (Held::new(ticket), HashSet::new()));
                    continue;
                }
                Ok(Link::Of(holder)) if self.above.is_empty() => holder,
                Ok(Link::Of(_)) | Err(_) => break Asked::GoOn,
            };
            let ended = ended.get_or_insert_with(|| self.ask(job));
            if !matches!(ended.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                break Asked::Ended;
            }
            let awaited = Awaited::Operation { build: holder.owner.build, job: holder.owner.job.clone() };
            if is_shown.as_ref() != Some(&awaited) {
                shown(Some(&awaited));
                is_shown = Some(awaited);
            }
            if let Either::Left(_) = select(&mut *ended, pin!(self.next(&holder, &mut before))).await {
                break Asked::Ended;
            }
        };
        if asked == Asked::GoOn && ended.is_some() {
            self.asking.borrow_mut().remove(job);
        }
        if is_shown.is_some() {
            shown(None);
        }
        asked
    }

    /// Notes that a job wants an operation; `false` if this process has not its turn.
    fn want(&self, job: &JobName, operation: Digest) -> bool {
        let mut operations = self.operations.borrow_mut();
        let Some((_, jobs)) = operations.held.get_mut(&operation) else { return false };
        jobs.insert(job.clone());
        let earlier = operations.of_jobs.insert(job.clone(), operation);
        if let Some(earlier) = earlier.filter(|earlier| *earlier != operation) {
            operations.leave(job, earlier, &self.tickets);
        }
        true
    }

    /// Has the end of a job, or another asking, told.
    fn ask(&self, job: &JobName) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.asking.borrow_mut().insert(job.clone(), sender);
        receiver
    }

    /// Waits until no job of another process has the group, and then has it until the job has ended, over all its tries.
    ///
    /// # Errors
    /// How the job ends that does not get it: `canceled` tells by whom it is to end meanwhile.
    pub async fn group(
        &self,
        job: &JobName,
        (group, mode): (&str, ConcurrencyMode),
        canceled: impl Future<Output = Arc<str>>,
        shown: impl AsyncFn(Option<&Awaited>),
    ) -> Result<(), Outcome> {
        if let Some(in_group) = self.groups.borrow_mut().get_mut(job) {
            in_group.stands = Stands::AtWork;
            return Ok(());
        }
        let (ticket, others) = self.tickets.draw(&group_key(group, self.trust), job, &self.above).map_err(failed)?;
        let in_group = InGroup { held: Held::new(ticket.clone()), stands: Stands::InLine, is_over: false };
        self.groups.borrow_mut().insert(job.clone(), in_group);
        let is_first = before(&others, &ticket).next().is_none();
        let entered = if is_first {
            Ok(())
        } else {
            let waiting = pin!(self.line(&ticket, group, mode, others, &shown));
            let entered = match select(waiting, pin!(canceled)).await {
                Either::Left((entered, _)) => entered,
                Either::Right((by, _)) => Err(Outcome::Failed(Failure::Canceled { by: by.to_string() })),
            };
            shown(None).await;
            entered
        };
        let mark = &ticket.owner.mark;
        let is_there = match self.groups.borrow_mut().get_mut(job).filter(|it| it.held.ticket.owner.mark == *mark) {
            Some(in_group) if entered.is_ok() => {
                in_group.stands = Stands::AtWork;
                true
            }
            found => found.is_some(),
        };
        if entered.is_err() && is_there {
            self.leave_group(job);
        }
        match entered {
            // Its build ended over it.
            Ok(()) if !is_there => Err(Outcome::Failed(Failure::Canceled { by: "the end of its build".to_owned() })),
            entered => entered,
        }
    }

    /// Stands in line for a group behind others.
    async fn line(
        &self,
        ticket: &Ticket,
        group: &str,
        mode: ConcurrencyMode,
        mut others: Vec<Ticket>,
        shown: impl AsyncFn(Option<&Awaited>),
    ) -> Result<(), Outcome> {
        let reach = if mode == ConcurrencyMode::CancelRunning { Reach::Above } else { Reach::All };
        if let Some((holder, waiting)) = ring(&others, ticket, reach) {
            let holding = match waiting {
                Waiting::Above => Holding::Above,
                Waiting::InRing => Holding::InRing,
            };
            let message = why_refused(group, (holder.owner.build, &holder.owner.job), holding);
            return Err(Outcome::Failed(Failure::Setup { message }));
        }
        if mode != ConcurrencyMode::Queue {
            let by = format!("job `{}` of build {}", ticket.owner.job, self.build);
            for build in before(&others, ticket).map(|other| other.owner.build).collect::<BTreeSet<_>>() {
                let (group, by, trust) = (group.to_owned(), by.clone(), self.trust);
                // Who has died meanwhile has nothing to cancel.
                let _ = control::tell(&self.data, build, &Request::Entered { group, trust, mode, by }).await;
            }
        }
        let (mut last, mut is_shown) = (None, None);
        loop {
            let mut line = before(&others, ticket);
            let Some(holder) = line.next() else { return Ok(()) };
            let (build, job) = (holder.owner.build, holder.owner.job.clone());
            let awaited = Awaited::Group { group: group.to_owned(), build, job, between: line.count() };
            if is_shown.as_ref() != Some(&awaited) {
                shown(Some(&awaited)).await;
                is_shown = Some(awaited);
            }
            if !self.above.is_empty() {
                let _ = control::tell(&self.data, build, &Request::Hurry { mark: holder.owner.mark.clone() }).await;
            }
            self.next(holder, &mut last).await;
            others = self.tickets.all().map_err(failed)?;
        }
    }

    /// Waits until a ticket of another process may not count any more. `last` is the mark of the one of which nothing was heard.
    async fn next(&self, holder: &Ticket, last: &mut Option<String>) {
        let mark = &holder.owner.mark;
        if last.as_ref() == Some(mark) {
            tokio::time::sleep(AGAIN).await;
        }
        match control::returned(&self.data, holder.owner.build, mark.clone()).await {
            Heard::Returned => *last = None,
            Heard::Unknown => {
                *last = Some(mark.clone());
                // Whoever finds it next removes it.
                let _ = self.tickets.discard(holder);
            }
            Heard::Nothing => *last = Some(mark.clone()),
        }
    }

    /// Listens for what becomes of the ticket with this mark, if this process has it.
    pub fn held(&self, mark: &str) -> Option<Listening> {
        let is_it = |held: &&Held| held.ticket.owner.mark == mark;
        let (groups, operations) = (self.groups.borrow(), self.operations.borrow());
        let of_groups = groups.values().map(|in_group| &in_group.held);
        of_groups.chain(operations.held.values().map(|(held, _)| held)).find(is_it).map(Held::listen)
    }

    /// Listens for what becomes of the group that a job has; `None` if it has none.
    pub fn held_by(&self, job: &JobName) -> Option<Listening> {
        self.groups.borrow().get(job).map(|in_group| in_group.held.listen())
    }

    /// The jobs that end since a job of another process has entered their group, each with the one who cancels it.
    pub fn canceled_by_newcomer(
        &self,
        group: &str,
        trust: Trust,
        mode: ConcurrencyMode,
        by: &str,
    ) -> Vec<(JobName, String)> {
        let key = group_key(group, trust);
        let groups = self.groups.borrow();
        let meant = groups.iter().filter(|(_, in_group)| in_group.held.ticket.key == key);
        let canceled = meant.filter_map(|(job, in_group)| match (in_group.stands, mode) {
            (_, ConcurrencyMode::Queue) => None,
            (Stands::InLine, _) => Some((job.clone(), by.to_owned())),
            (Stands::AtWork | Stands::AtRest, ConcurrencyMode::CancelWaiting) => None,
            (Stands::AtWork, ConcurrencyMode::CancelRunning) => Some((job.clone(), NEWER_IN_GROUP.to_owned())),
            (Stands::AtRest, ConcurrencyMode::CancelRunning) => Some((job.clone(), by.to_owned())),
        });
        canceled.collect()
    }

    /// Has the holder of a group begin without a slot.
    pub fn hurry(&self, mark: &str) {
        let groups = self.groups.borrow();
        let held = groups.values().map(|in_group| &in_group.held).find(|held| held.ticket.owner.mark == mark);
        if let Some(held) = held {
            held.is_hurried.send_replace(true);
        }
    }

    /// Whether a job has a group for which one below a waiting job waits, who may have the slot that it lacks.
    pub fn is_hurried(&self, job: &JobName) -> bool {
        let groups = self.groups.borrow();
        let Some(InGroup { held, .. }) = groups.get(job) else { return false };
        let ticket = &held.ticket;
        let is_below =
            |other: &Ticket| other.key == ticket.key && other.number > ticket.number && !other.owner.above.is_empty();
        // Where the medium refuses it is safer to go on.
        *held.is_hurried.borrow() || self.tickets.all().is_ok_and(|all| all.iter().any(is_below))
    }

    /// Notes that a job waits for a slot until what is returned is dropped.
    pub fn note_slotless(&self) -> impl Drop + '_ {
        struct Slotless<'t>(&'t Cell<u32>);
        impl Drop for Slotless<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        self.without_slot.set(self.without_slot.get() + 1);
        Slotless(&self.without_slot)
    }

    /// How many attempts the engine may begin beyond the slots: those that wait for a turn, and as many as it takes that one comes to its
    /// next try that has its turn meanwhile. What it begins too much waits for a slot here.
    pub fn slots_beyond(&self) -> u32 {
        let groups = self.groups.borrow();
        let count = |stands| groups.values().filter(|in_group| in_group.stands == stands).count();
        let (in_line, at_rest) = (count(Stands::InLine), count(Stands::AtRest));
        let slotless = if at_rest > 0 { self.without_slot.get() } else { 0 };
        u32::try_from(in_line + at_rest).unwrap_or(u32::MAX).saturating_add(slotless)
    }

    /// The attempt at a job has ended.
    pub fn stopped(&self, job: &JobName) {
        let is_over = match self.groups.borrow_mut().get_mut(job) {
            Some(in_group) => {
                in_group.stands = Stands::AtRest;
                in_group.is_over
            }
            None => false,
        };
        if is_over {
            self.leave_group(job);
        }
    }

    /// A job has ended, and its result is stored.
    pub fn ended(&self, job: &JobName) {
        let is_at_work = match self.groups.borrow_mut().get_mut(job) {
            Some(in_group) => {
                in_group.is_over = true;
                in_group.stands == Stands::AtWork
            }
            None => false,
        };
        if !is_at_work {
            self.leave_group(job);
        }
        let mut operations = self.operations.borrow_mut();
        if let Some(operation) = operations.of_jobs.remove(job) {
            operations.leave(job, operation, &self.tickets);
        }
        // Whoever asks hears the end of it.
        self.asking.borrow_mut().remove(job);
    }

    fn leave_group(&self, job: &JobName) {
        let left = self.groups.borrow_mut().remove(job);
        if let Some(in_group) = left {
            self.tickets.give_back(&in_group.held.ticket);
        }
    }

    /// Lets go of everything: no attempt runs any more, and none is to begin.
    pub fn close(&self) {
        self.asking.borrow_mut().clear();
        for (_, in_group) in self.groups.borrow_mut().drain() {
            self.tickets.give_back(&in_group.held.ticket);
        }
        let mut operations = self.operations.borrow_mut();
        operations.of_jobs.clear();
        for (_, (held, _)) in operations.held.drain() {
            self.tickets.give_back(&held.ticket);
        }
    }

    /// Removes what dead processes have left.
    ///
    /// # Errors
    /// As the medium refuses.
    pub fn sweep(&self) -> io::Result<()> {
        self.tickets.sweep()
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.close();
    }
}

impl Operations {
    /// A job wants an operation no more; its turn is let go if no other does.
    fn leave(&mut self, job: &JobName, operation: Digest, tickets: &Tickets) {
        let Some((held, jobs)) = self.held.get_mut(&operation) else { return };
        jobs.remove(job);
        if jobs.is_empty() {
            tickets.give_back(&held.ticket);
            self.held.remove(&operation);
        }
    }
}

fn failed(error: io::Error) -> Outcome {
    let message = format!("failed to stand in line for its concurrency group: {error}");
    Outcome::Failed(Failure::Infra { message })
}
