//! Several servers on one database: one of them leads, the others stand by.
//!
//! The leader holds the database's lock ([`store::Leadership`]), runs the shell, and answers everything. The others wait
//! for the lock and hand requests on (`http/relay.rs`). Whoever gets it writes where it is found into one record, **before
//! it stores anything else**, then goes on as after a restart. A server that leads no more ends its shell, stands by again
//! and asks for the lock anew.
//!
//! Facts are fenced by the store itself. What else speaks for all facts up to now, the saved standing, is written only
//! while the record still names this server's term ([`Term::is_current`]).

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use graph::{Timestamp, with_causes};
use serde::{Deserialize, Serialize};
use store::{Leadership, Looked, StoreError};
use thiserror::Error;
use tokio::sync::watch;

use crate::http::{App, router};
use crate::lock::lock;
use crate::notices;
use crate::records::{Document, RecordError, Records};
use crate::request::ShellHandle;
use crate::secrets::Secrets;
use crate::server::{Parts, Running, Server, StartError};
use crate::settings::Settings;
use crate::shell::ShellError;

/// How long one question for the database's lock waits; another follows at once. Between them a standby looks whether its
/// keys are the leader's.
const LOCK_WAIT: Duration = Duration::from_secs(20);
/// The wait before a database that cannot be reached is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often a leader looks whether its lock is still held. It asks nobody; what it overlooks its next append learns.
const HELD_LOOK: Duration = Duration::from_millis(500);
/// How often a leader says that it is alive, and how often those who stand by look.
const RENEWED_EVERY: Duration = Duration::from_secs(2);
const LEADER_SEEN_EVERY: Duration = Duration::from_secs(1);
/// A leader that has not said so for this long is deposed: its process stands still, and its connection keeps the lock.
const LEADER_SILENT_MAX: Duration = Duration::from_secs(6);
/// A leader whose shell has not answered for this long says no more that it is alive. Longer than a slow append takes.
const SHELL_SILENT_MAX: Duration = Duration::from_secs(60);
/// How often the record is read again while a request waits for a leader.
const LEADER_LOOK: Duration = Duration::from_millis(100);
/// After so long a leader that could not be reached is tried again.
const UNREACHED_FOR: Duration = Duration::from_secs(1);

/// The key of the one record.
const KEY: &str = "present";

/// Who leads, as all servers of a database may read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Leader {
    /// The number of its leadership, larger than all before it.
    pub epoch: u64,
    /// Where it is found.
    pub url: String,
    /// The fingerprint of its keys: those of all servers are the same.
    pub keys: String,
    /// Since when it leads.
    pub since: Timestamp,
}

impl Document for Leader {
    const KIND: &'static str = "leader";
}

/// For how long a server may speak for its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// Always: no other has it.
    Alone,
    /// As long as no later leader has written its record.
    Of(u64),
}

impl Term {
    /// Whether no later leader had stored anything when this was asked. Blocks.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn is_current(self, records: &Records) -> Result<bool, RecordError> {
        match self {
            Self::Alone => Ok(true),
            Self::Of(epoch) => Ok(records.read::<Leader>(KEY)?.is_some_and(|(leader, _)| leader.epoch == epoch)),
        }
    }
}

/// Why one of several servers cannot go on.
#[derive(Debug, Error)]
pub enum LeadError {
    /// Tokens that it makes would be worth nothing at the others, and secrets could not be opened.
    #[error(
        "the keys in this data folder are not those of {url}, which leads: copy root.key and secrets.key from its data \
         folder, then start again"
    )]
    Keys {
        /// The leader.
        url: String,
    },
    /// The shell ended, for another reason than that another server leads.
    #[error("the server cannot keep what happens")]
    Shell(#[from] ShellError),
    /// What was under way cannot be read.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A task broke.
    #[error("leading was interrupted")]
    Interrupted,
}

/// What a server does at present.
#[derive(Clone)]
pub enum Role {
    /// It has not been answered yet whether it leads.
    Starting,
    /// Another leads, or nobody.
    Standby,
    /// It leads.
    Leading(Arc<Leading>),
    /// It ends, and hands nothing on any more.
    Ended,
}

/// A server that leads.
pub struct Leading {
    /// It.
    pub server: Arc<Server>,
    /// Answers its requests.
    pub router: Router,
}

/// One of several servers on one database.
pub struct Seat {
    /// Answers what the store alone can answer.
    pub standby: Arc<Server>,
    /// The way to it.
    pub reads: Router,
    parts: Parts,
    secrets: Arc<Secrets>,
    keys: String,
    url: String,
    role: watch::Sender<Role>,
    unreached: Mutex<Option<(u64, Instant)>>,
    /// Who leads, as the record said when it was read last; never an earlier one after a later one.
    seen: watch::Sender<Option<Leader>>,
}

/// Why a server stopped leading.
enum Stopped {
    Told,
    Failed,
    LockLost,
}

impl Seat {
    /// A server that may lead or stand by; `keys` is the fingerprint of the keys of its data folder. It does neither before
    /// [`Seat::take`]. To be called within a runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn new(settings: Settings, parts: Parts, secrets: Arc<Secrets>, keys: String) -> Result<Arc<Self>, StartError> {
        let url = settings.public_url();
        let standby = Server::without_engine(settings, parts.clone())?;
        let reads = router(Arc::new(App::new(Arc::clone(&standby), Arc::clone(&secrets))));
        let role = watch::Sender::new(Role::Starting);
        let (unreached, seen) = (Mutex::default(), watch::Sender::new(None));
        Ok(Arc::new(Self { standby, reads, parts, secrets, keys, url, role, unreached, seen }))
    }

    /// What all servers sign by.
    pub(crate) fn address_key(&self) -> &ring::hmac::Key {
        self.secrets.address_key()
    }

    /// What it does, and when that changes.
    #[must_use]
    pub fn role(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    /// Takes over settings that a running server takes over.
    pub fn reload(&self, settings: &Settings) {
        self.standby.reload(settings.clone());
        if let Role::Leading(leading) = &*self.role.borrow() {
            leading.server.reload(settings.clone());
        }
    }

    /// As [`Server::announce_end`], whether it leads or stands by.
    pub fn announce_end(&self) {
        self.standby.announce_end();
        if let Role::Leading(leading) = &*self.role.borrow() {
            leading.server.announce_end();
        }
    }

    /// Leads whenever it can, until it is told to end.
    ///
    /// # Errors
    /// [`LeadError`].
    pub async fn take(self: Arc<Self>, ends: watch::Receiver<bool>) -> Result<(), LeadError> {
        let over = self.take_turns(ends).await;
        self.role.send_replace(Role::Ended);
        over
    }

    async fn take_turns(&self, mut ends: watch::Receiver<bool>) -> Result<(), LeadError> {
        let mut wait = Duration::ZERO;
        loop {
            let asked = tokio::select! {
                asked = self.ask(wait) => asked,
                never = self.depose_silent() => match never {},
                never = self.look_who_leads() => match never {},
                () = told(&mut ends) => return Ok(()),
            };
            let leadership = match asked {
                Ok(Some(leadership)) => Arc::new(leadership),
                Ok(None) => {
                    self.check_keys().await?;
                    self.role.send_replace(Role::Standby);
                    wait = LOCK_WAIT;
                    continue;
                }
                Err(error) => {
                    self.pause("cannot ask the database for leadership", &error).await;
                    continue;
                }
            };
            wait = LOCK_WAIT;
            // What was under way may take long to read.
            let begun = tokio::select! {
                begun = self.begin(&leadership) => begun,
                never = renewing(&leadership, None) => match never {},
            };
            let running = match begun {
                Ok(running) => running,
                Err(LeadError::Start(StartError::Store(error) | StartError::Record(RecordError::Store(error))))
                    if is_passing(&error) =>
                {
                    self.pause("cannot read what was under way", &error).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if self.lead(running, &leadership, &mut ends).await? == Next::End {
                return Ok(());
            }
        }
    }

    async fn ask(&self, wait: Duration) -> Result<Option<Leadership>, StoreError> {
        let store = Arc::clone(&self.parts.store);
        // A wait that is given up here ends by itself; what it gets then is dropped, which gives it back.
        let asked = tokio::task::spawn_blocking(move || store.lead(wait)).await;
        asked.unwrap_or_else(|error| Err(StoreError::Lost(error.into())))
    }

    /// Looks at who leads, for as long as this is asked for, and takes the lock from one that stands still.
    async fn depose_silent(&self) -> Infallible {
        let mut has_warned = false;
        loop {
            tokio::time::sleep(LEADER_SEEN_EVERY).await;
            let store = Arc::clone(&self.parts.store);
            match tokio::task::spawn_blocking(move || store.depose(LEADER_SILENT_MAX)).await {
                Ok(Ok(Looked::Deposed)) => {
                    let silent = LEADER_SILENT_MAX.as_secs();
                    notices::warning(&format!(
                        "the leader has said nothing for {silent} seconds; its lock was taken from it"
                    ));
                }
                Ok(Err(error)) if !is_passing(&error) && !has_warned => {
                    notices::warning(&format!("a leader that stands still cannot be deposed: {}", with_causes(&error)));
                    has_warned = true;
                }
                _ => {}
            }
        }
    }

    /// Reads the record now and then, for as long as this is asked for: who hangs on a leader learns that another leads, whatever that one does.
    async fn look_who_leads(&self) -> Infallible {
        loop {
            self.read_leader().await;
            tokio::time::sleep(LEADER_SEEN_EVERY).await;
        }
    }

    async fn pause(&self, what: &str, error: &StoreError) {
        notices::warning(&format!("{what}: {}; trying again", with_causes(error)));
        self.role.send_replace(Role::Standby);
        tokio::time::sleep(AGAIN).await;
    }

    async fn check_keys(&self) -> Result<(), LeadError> {
        match self.read_leader().await {
            Some(leader) if leader.keys != self.keys => Err(LeadError::Keys { url: leader.url }),
            _ => Ok(()),
        }
    }

    /// Writes who leads, then goes on with what was under way.
    async fn begin(&self, leadership: &Leadership) -> Result<Running, LeadError> {
        let (parts, settings) = (self.parts.clone(), (*self.standby.settings()).clone());
        let since = self.standby.now();
        let ours = Leader { epoch: leadership.epoch(), url: self.url.clone(), keys: self.keys.clone(), since };
        let begun = tokio::task::spawn_blocking(move || {
            let records = Records::new(Arc::clone(&parts.store));
            let written = records.change(KEY, since, |before: Option<Leader>| match before {
                Some(later) if later.epoch > ours.epoch => later,
                _ => ours.clone(),
            })?;
            if written.epoch != ours.epoch {
                return Err(StartError::Store(StoreError::NotLeading));
            }
            Server::start_for(settings, parts, Term::Of(ours.epoch))
        });
        Ok(begun.await.map_err(|_| LeadError::Interrupted)??)
    }

    /// Leads until that is over, then stands by.
    async fn lead(
        &self,
        running: Running,
        leadership: &Arc<Leadership>,
        ends: &mut watch::Receiver<bool>,
    ) -> Result<Next, LeadError> {
        let server = Arc::clone(&running.server);
        let router = router(Arc::new(App::new(Arc::clone(&server), Arc::clone(&self.secrets))));
        let shell = server.shell.clone();
        self.role.send_replace(Role::Leading(Arc::new(Leading { server, router })));
        notices::info(&format!("leading, as number {}", leadership.epoch()));
        let stopped = tokio::select! {
            () = told(ends) => Stopped::Told,
            () = running.failed() => Stopped::Failed,
            () = lost(leadership) => Stopped::LockLost,
            never = renewing(leadership, Some(&shell)) => match never {},
        };
        self.role.send_replace(Role::Standby);
        let ended = running.end().await;
        match (stopped, ended) {
            (Stopped::Told, ended) => ended.map(|()| Next::End).map_err(LeadError::Shell),
            (_, Err(ShellError::Store(error))) if !is_passing(&error) => Err(ShellError::Store(error).into()),
            (Stopped::Failed | Stopped::LockLost, _) => {
                notices::warning("leading no more: the database, or another server, has taken the lock; standing by");
                Ok(Next::StandBy)
            }
        }
    }

    // Who leads, for requests.

    /// Who leads, if it is another; waits for one at most so long. `None` if there is none, or it is this one.
    pub async fn leader(&self, wait: Duration) -> Option<Leader> {
        let deadline = Instant::now() + wait;
        let is_of_use = |leader: &Leader| leader.url != self.url && self.may_reach(leader);
        let known = self.seen.borrow().clone();
        if let Some(leader) = known.filter(is_of_use) {
            return Some(leader);
        }
        let mut role = self.role();
        loop {
            if matches!(*role.borrow_and_update(), Role::Leading(_)) {
                return None;
            }
            if let Some(leader) = self.read_leader().await.filter(is_of_use) {
                return Some(leader);
            }
            if Instant::now() >= deadline {
                return None;
            }
            let _ = tokio::time::timeout(LEADER_LOOK, role.changed()).await;
        }
    }

    /// Notes that a leader did not answer, or leads no more.
    pub fn unreached(&self, leader: &Leader) {
        *lock(&self.unreached) = Some((leader.epoch, Instant::now()));
    }

    /// When something that was handed on to this leader is over, whether it answers or not.
    pub(crate) fn reign(&self, leader: &Leader) -> Reign {
        Reign { role: self.role(), seen: self.seen.subscribe(), epoch: leader.epoch }
    }

    fn may_reach(&self, leader: &Leader) -> bool {
        let unreached = *lock(&self.unreached);
        unreached.is_none_or(|(epoch, at)| leader.epoch > epoch || at.elapsed() >= UNREACHED_FOR)
    }

    /// What the record says; `None` as well if it cannot be read now.
    async fn read_leader(&self) -> Option<Leader> {
        let records = Records::new(Arc::clone(&self.parts.store));
        let read = tokio::task::spawn_blocking(move || records.read::<Leader>(KEY)).await;
        let (leader, _) = read.ok()?.ok()??;
        self.seen.send_if_modified(|seen| {
            let is_later = seen.as_ref().is_none_or(|seen| seen.epoch < leader.epoch);
            if is_later {
                *seen = Some(leader.clone());
            }
            is_later
        });
        Some(leader)
    }
}

/// The time of one leader, as a server sees it that hands requests on to it.
pub(crate) struct Reign {
    role: watch::Receiver<Role>,
    seen: watch::Receiver<Option<Leader>>,
    epoch: u64,
}

impl Reign {
    /// Waits until another leads, this server among them, or this one ends.
    pub async fn is_over(&mut self) {
        let Self { role, seen, epoch } = self;
        // A sender that is gone is an end, too.
        let ours = std::pin::pin!(role.wait_for(|role| matches!(role, Role::Leading(_) | Role::Ended)));
        let later = std::pin::pin!(seen.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.epoch > *epoch)));
        drop(futures_util::future::select(ours, later).await);
    }
}

/// What follows the end of leading.
#[derive(PartialEq, Eq)]
enum Next {
    StandBy,
    End,
}

/// Whether a store that refused so may do it later, or for another server.
fn is_passing(error: &StoreError) -> bool {
    matches!(error, StoreError::NotLeading | StoreError::Lost(_) | StoreError::Busy(_))
}

/// Says now and then that a leader is alive, as long as its shell answers; one that reads what was under way has none yet.
async fn renewing(leadership: &Arc<Leadership>, shell: Option<&ShellHandle>) -> Infallible {
    let mut heard = Instant::now();
    loop {
        let next = tokio::time::Instant::now() + RENEWED_EVERY;
        match shell {
            Some(shell) => {
                if tokio::time::timeout(RENEWED_EVERY, shell.ask(|_| ())).await.is_ok() {
                    heard = Instant::now();
                }
            }
            None => heard = Instant::now(),
        }
        if heard.elapsed() < SHELL_SILENT_MAX {
            let leadership = Arc::clone(leadership);
            // One that fails is followed by the loss of the lock, or by the next.
            let _ = tokio::task::spawn_blocking(move || leadership.renew()).await;
        }
        tokio::time::sleep_until(next).await;
    }
}

async fn lost(leadership: &Leadership) {
    while leadership.is_held() {
        tokio::time::sleep(HELD_LOOK).await;
    }
}

async fn told(ends: &mut watch::Receiver<bool>) {
    // A sender that is gone is an end, too.
    let _ = ends.wait_for(|ends| *ends).await;
}

/// Whether the settings speak of a database that several servers may share.
#[must_use]
pub fn is_shared(settings: &Settings) -> bool {
    settings.store_url.0.contains("://")
}
