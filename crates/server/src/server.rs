//! The server as one value: what handlers of requests call, and how it starts and ends.
//!
//! Every function here that people's requests come to takes who asks; none of them checks whether they may. What they
//! answer is stored before it is answered.

mod builds;
mod workers;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;

use graph::{BuildId, Timestamp};
use store::blob::Blobs;
use store::log::Logs;
use store::{Sequence, Store, StoreError};
use thiserror::Error;
use tokio::sync::watch;

pub(crate) use self::builds::Drawn;
pub use self::builds::{Effected, Made, Retried, Submitted, UNMATCHED_TOLD_MAX, Wanted};
pub use self::workers::JoinError;
use self::workers::held_pools;
use crate::absences;
use crate::access::Access;
use crate::dispatch::Dispatch;
use crate::figures::Figures;
use crate::lead::Term;
use crate::live::Live;
use crate::lowering::Lowering;
use crate::notices;
use crate::owner;
use crate::pool_history::{self, PoolHistory};
use crate::records::{RecordError, Records};
use crate::recovery::{self, recover, save_standings};
use crate::request::{ShellHandle, Stopped, requests};
use crate::retention;
use crate::settings::Settings;
use crate::shell::{Inbox, Shell, ShellError, inbox};
use crate::source::{SourceError, Sources};
use crate::unshared;
use crate::visits::Visits;
use crate::worker_time::WorkerTime;
use crate::world::{Duplicates, Means, SecretSource, ServerWorld};

/// What a server is made of. Clones are the same parts.
#[derive(Clone)]
pub struct Parts {
    /// Facts and rows.
    pub store: Arc<dyn Store>,
    /// Contents.
    pub blobs: Arc<dyn Blobs>,
    /// Logs of builds.
    pub logs: Arc<Logs>,
    /// Tokens.
    pub access: Arc<Access>,
    /// Values of secrets.
    pub secrets: Arc<dyn SecretSource>,
    /// Where what comes in is put down for a moment: a folder on the disk of the blobs.
    pub scratch: PathBuf,
    /// The present time.
    pub clock: fn() -> Timestamp,
    /// What a thread does first for which others wait: it may ask the system for early turns.
    pub early_turns: fn(),
}

/// A server, as handlers of requests see it. All of its parts may be called from any thread.
pub struct Server {
    /// Facts and rows. Blocks.
    pub store: Arc<dyn Store>,
    /// Contents. Blocks.
    pub blobs: Arc<dyn Blobs>,
    /// Logs of builds. Blocks.
    pub logs: Arc<Logs>,
    /// Tokens. Blocks.
    pub access: Arc<Access>,
    /// Documents beside builds. Blocks.
    pub records: Records,
    /// Files of builds. Blocks.
    pub sources: Arc<Sources>,
    /// Who is joined.
    pub dispatch: Arc<Dispatch>,
    /// The shells that people have open.
    pub visits: Arc<Visits>,
    /// Followers of builds.
    pub live: Arc<Live>,
    /// What is counted.
    pub figures: Arc<Figures>,
    /// How long workers were busy for each project.
    pub worker_time: Arc<WorkerTime>,
    /// The engine.
    pub shell: ShellHandle,
    settings: RwLock<Arc<Settings>>,
    /// Held by all who take up a build that has ended, and alone by who removes one.
    pub(crate) removals: tokio::sync::RwLock<()>,
    /// How pools stood over the last hour.
    pub(crate) pool_history: PoolHistory,
    /// How many sweeps there were; held by who sweeps.
    pub(crate) sweeps: tokio::sync::Mutex<u64>,
    means: Arc<Means>,
    scratch: PathBuf,
    term: Term,
    ending: watch::Sender<Ending>,
}

/// Whether a server goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It does.
    No,
    /// It will not, and answers for a moment yet: whoever hands out requests is to go elsewhere.
    Announced,
    /// It takes no new requests and ends its streams.
    Begun,
}

/// Why a server cannot start, or had to stop.
#[derive(Debug, Error)]
pub enum StartError {
    /// The store refused.
    #[error("failed to read what was under way")]
    Store(#[from] StoreError),
    /// A record refused.
    #[error("failed to read what was under way")]
    Record(#[from] RecordError),
    /// The system gave no thread.
    #[error("failed to start a thread")]
    Thread(#[from] io::Error),
}

/// A server that runs.
pub struct Running {
    /// The server.
    pub server: Arc<Server>,
    shell: thread::JoinHandle<Result<(), ShellError>>,
    ended: watch::Receiver<bool>,
    sweeps: tokio::task::JoinHandle<()>,
    samples: tokio::task::JoinHandle<()>,
}

/// Why a request about builds was refused.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The files or the pipeline are not there.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A name cannot be one.
    #[error("`{0}` is no name: letters, digits and `._-` in between, at most 100")]
    BadName(String),
    /// What was filled in does not fit the pipeline.
    #[error("{0}")]
    Params(String),
    /// There is no such build.
    #[error("there is no build {0}")]
    NoBuild(BuildId),
    /// There is no such job, or none that this can be done to.
    #[error("{0}")]
    NoJob(String),
    /// There is no such worker.
    #[error("there is no worker `{0}`")]
    NoWorker(String),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record refused.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The server is ending.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A task broke.
    #[error("the request was interrupted")]
    Interrupted,
}

impl Server {
    /// Starts a server: what was under way goes on. To be called within a runtime, on which its tasks run.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(settings: Settings, parts: Parts) -> Result<Running, StartError> {
        Self::start_for(settings, parts, Term::Alone)
    }

    /// As [`Server::start`], for as long as it leads.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_for(settings: Settings, parts: Parts, term: Term) -> Result<Running, StartError> {
        store::make_private_folder(&parts.scratch)?;
        let early_turns = parts.early_turns;
        let (inbox, inputs) = inbox();
        let (shell, requests) = requests();
        let server = Self::assemble(settings, parts, inbox.clone(), shell, term);
        // Now, when nothing has been put into a new place yet; what cannot be told now the first sweep asks again.
        if let Err(error) = owner::settle(&server.records, &*server.blobs, None, server.now()) {
            notices::warning(&format!("cannot tell yet whose the place of blobs is: {}", graph::with_causes(&error)));
        }
        let recovered = recover(&*server.store, &server.records, server.now())?;
        for input in held_pools(&server.records)?.into_iter().chain(server.revoked_holders(&recovered.engine)?) {
            // An inbox that nobody reads yet has room for all pools, and for most workers; others are waited for.
            let _ = inbox.try_send(input);
        }
        server.take_up_charts();
        let mut world = ServerWorld::new(Arc::clone(&server.means))?;
        for (build, request) in recovered.requests {
            world.remember(build, request);
        }
        world.remember_begun(recovered.begun);
        world.remember_ended(recovered.ended);
        let (engine, first_save) = (recovered.engine, recovered.first_save);
        let (told_end, ended) = watch::channel(false);
        let shell_store = Arc::clone(&server.store);
        let run = move || {
            early_turns();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            let shell = Shell::new(engine, shell_store, world, inputs).with_requests(requests);
            let result = runtime.block_on(shell.run()).map(drop);
            let _ = told_end.send(true);
            Ok::<_, io::Error>(result)
        };
        let thread = thread::Builder::new().name("shell".to_owned()).spawn(move || match run() {
            Ok(result) => result,
            Err(error) => Err(ShellError::Store(error.into())),
        })?;
        let records = server.records.clone();
        let (shell, store, clock) = (server.shell.clone(), Arc::clone(&server.store), server.means.clock);
        let saving = save_standings(shell, store, records, clock, term, first_save);
        drop(tokio::spawn(saving));
        let server = Arc::new(server);
        drop(tokio::spawn(absences::keep(Arc::downgrade(&server))));
        let (sharing, sweeping) = (unshared::share(Arc::clone(&server)), retention::keep(Arc::clone(&server)));
        let sweeps = tokio::spawn(async {
            tokio::join!(sharing, sweeping);
        });
        let samples = tokio::spawn(pool_history::keep(Arc::clone(&server)));
        Ok(Running { server, shell: thread, ended, sweeps, samples })
    }

    /// Goes on with what charts showed before the start. What cannot be read begins anew.
    fn take_up_charts(&self) {
        let now = self.now();
        let taken = self.pool_history.take_up(&self.records, now);
        if let Err(error) = taken.and_then(|()| self.worker_time.take_up(&self.records, now)) {
            notices::warning(&format!("the charts of the queue begin anew: {error}"));
        }
    }

    /// A server without an engine, which answers what the store alone can answer; whatever needs the engine is told that it
    /// has ended. To be called within a runtime.
    ///
    /// # Errors
    /// [`StartError::Thread`] if the folder for what comes in cannot be made.
    pub fn without_engine(settings: Settings, parts: Parts) -> Result<Arc<Self>, StartError> {
        store::make_private_folder(&parts.scratch)?;
        // The other ends are dropped: nobody reads what is put there.
        let ((inbox, _), (shell, _)) = (inbox(), requests());
        Ok(Arc::new(Self::assemble(settings, parts, inbox, shell, Term::Alone)))
    }

    fn assemble(settings: Settings, parts: Parts, inbox: Inbox, shell: ShellHandle, term: Term) -> Self {
        let Parts { store, blobs, logs, access, secrets, scratch, clock, early_turns: _ } = parts;
        let records = Records::new(Arc::clone(&store));
        let sources = Arc::new(Sources::new(Arc::clone(&blobs)));
        let dispatch = Arc::new(Dispatch::new(settings.heartbeat.0));
        let live = Arc::new(Live::new(Arc::clone(&store), Arc::clone(&logs), records.clone()));
        let figures = Arc::new(Figures::default());
        let worker_time = Arc::new(WorkerTime::new(clock()));
        let means = Arc::new(Means {
            store: Arc::clone(&store),
            blobs: Arc::clone(&blobs),
            logs: Arc::clone(&logs),
            records: records.clone(),
            sources: Arc::clone(&sources),
            lowering: Arc::new(Lowering::new(Arc::clone(&sources), Arc::clone(&blobs))),
            dispatch: Arc::clone(&dispatch),
            live: Arc::clone(&live),
            figures: Arc::clone(&figures),
            worker_time: Arc::clone(&worker_time),
            secrets,
            duplicates: Arc::new(Duplicates::default()),
            drawn: Mutex::default(),
            otlp: settings.otlp.clone().map(|collector| collector.0),
            clock,
            inbox,
            tasks: tokio::runtime::Handle::current(),
        });
        Self {
            store,
            blobs,
            logs,
            access,
            records,
            sources,
            dispatch,
            visits: Arc::default(),
            live,
            figures,
            worker_time,
            shell,
            settings: RwLock::new(Arc::new(settings)),
            removals: tokio::sync::RwLock::default(),
            sweeps: tokio::sync::Mutex::default(),
            pool_history: PoolHistory::default(),
            means,
            scratch,
            term,
            ending: watch::Sender::new(Ending::No),
        }
    }

    /// The present time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.means.clock)()
    }

    /// Where what comes in is put down for a moment.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The settings as they are now.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over settings that a running server takes over.
    pub fn reload(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// How many sweeps of old builds and blobs have ended since the start.
    pub async fn sweeps_ended(&self) -> u64 {
        *self.sweeps.lock().await
    }

    /// From now on the server says that it is not ready, and goes on until [`Running::end`].
    pub fn announce_end(&self) {
        self.ending.send_replace(Ending::Announced);
    }

    /// Changes once the server is to end: streams end then.
    #[must_use]
    pub fn ending(&self) -> watch::Receiver<Ending> {
        self.ending.subscribe()
    }
}

impl Running {
    /// Waits until the shell has ended by itself: facts could not be stored.
    pub async fn failed(&self) {
        let mut ended = self.ended.clone();
        // The sender is gone only with the shell.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Ends the server: streams end, what was taken is stored, what runs on workers goes on there.
    ///
    /// # Errors
    /// Why the shell had ended before.
    pub async fn end(self) -> Result<(), ShellError> {
        self.server.ending.send_replace(Ending::Begun);
        self.server.dispatch.end_all();
        // A sweep that is at work is left after its next step; the next server's begins anew.
        self.sweeps.abort();
        let _ = self.sweeps.await;
        self.samples.abort();
        let _ = self.samples.await;
        pool_history::write(&self.server).await;
        let Server { shell, store, records, term, .. } = &*self.server;
        // A start that finds none that is up to date reads more.
        let _ = recovery::save(shell, store, records, self.server.means.clock, *term, Sequence::default()).await;
        shell.end().await;
        let shell = self.shell;
        tokio::task::spawn_blocking(move || shell.join().expect("the shell's thread does not panic"))
            .await
            .expect("joining a thread does not panic")
    }
}

/// Runs what blocks for a moment.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RequestError> {
    crate::aside::briefly(work).await.map_err(|_| RequestError::Interrupted)
}
