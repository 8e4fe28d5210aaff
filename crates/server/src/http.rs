//! The HTTP API: the table of routes of [`api::routes`], mounted.
//!
//! Every request takes one road: [`router`] finds its line of the table, [`admission`] lets it in or not, then the handler
//! of its operation runs, and what it answers is counted. There is no other way to a handler, so there is none without
//! admission. Handlers are thin: they read the store, ask the shell, and put what they get into the public types.
//! Whatever blocks runs on the blocking pool, at most [`BLOCKING_MAX`] at a time.
//!
//! **Adding a route:** its line in `api/src/routes/table.rs`, a handler in the file of its resource, the two joined in
//! [`router`]; a test there fails until it is.

mod admission;
mod answer;
mod blobs;
mod build;
mod cache;
mod call;
mod comparison;
mod control;
mod convert;
mod encoding;
mod environment;
mod groups;
mod guarded;
mod idempotency;
mod isolated;
mod job;
mod known_builds;
mod known_failures;
mod known_tests;
mod likeness;
mod log;
mod member;
pub mod metrics;
mod overview;
mod pages;
mod pool;
mod problem;
mod project;
mod quarantine;
mod ran_whole;
mod relay;
mod router;
mod site;
mod stream;
mod test_history;
mod token;
mod troubles;
mod visit;
mod wait;
pub mod worker;
mod worker_view;

use std::sync::Arc;
use std::time::Duration;

use api::problem::{Problem, ProblemKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::aside;
use crate::notices;
use crate::secrets::Secrets;
use crate::server::Server;

pub use log::SearchBounds;
pub use relay::front;
pub use router::router;
pub(crate) use wait::pool_name;

/// The most requests that read or write what blocks at one time; more wait.
pub const BLOCKING_MAX: usize = 64;
/// The most uploads of contents that write to the disk at one time; more wait.
const UPLOADS_MAX: usize = 64;
/// The most streams and long answers that are open at one time; further ones are refused.
pub const STREAMS_MAX: usize = 10_000;
/// How many of those who follow logs and events read at once.
const TURNS_MAX: usize = 8;

/// What handlers work with.
pub struct App {
    server: Arc<Server>,
    secrets: Arc<Secrets>,
    metrics: metrics::Metrics,
    troubles: troubles::Troubles,
    under_way: idempotency::UnderWay,
    blocking: Semaphore,
    uploads: Semaphore,
    streams: Arc<Semaphore>,
    /// Turns of those who follow to read what is new: all of them wake at once, and each thread that reads costs memory.
    turns: Arc<Semaphore>,
    search: SearchBounds,
    /// How often streams ask for their readers' tokens.
    asked_every: Duration,
    found: log::FoundBefore,
    known_parts: likeness::KnownParts,
    known_builds: known_builds::KnownBuilds,
    known_failures: known_failures::KnownFailures,
    known_tests: known_tests::KnownTests,
}

impl App {
    /// Handlers over a server.
    #[must_use]
    pub fn new(server: Arc<Server>, secrets: Arc<Secrets>) -> Self {
        Self {
            server,
            secrets,
            metrics: metrics::Metrics::default(),
            troubles: troubles::Troubles::default(),
            under_way: idempotency::UnderWay::default(),
            blocking: Semaphore::new(BLOCKING_MAX),
            uploads: Semaphore::new(UPLOADS_MAX),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            turns: Arc::new(Semaphore::new(TURNS_MAX)),
            search: SearchBounds::DEFAULT,
            asked_every: guarded::ASKED_EVERY,
            found: log::FoundBefore::default(),
            known_parts: likeness::KnownParts::default(),
            known_builds: known_builds::KnownBuilds::default(),
            known_failures: known_failures::KnownFailures::default(),
            known_tests: known_tests::KnownTests::default(),
        }
    }

    /// The same, where one search of a log may cost this much.
    #[must_use]
    pub fn with_search_bounds(self, search: SearchBounds) -> Self {
        Self { search, ..self }
    }

    /// The same, where streams ask so often whether their readers may go on.
    #[must_use]
    pub fn with_readers_asked(self, asked_every: Duration) -> Self {
        Self { asked_every, ..self }
    }

    /// Does what blocks where it may.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        // Nobody closes it.
        let permit = self.blocking.acquire().await;
        let app = Arc::clone(self);
        let is_alone = self.blocking.available_permits() + 1 == BLOCKING_MAX;
        let work = move || work(&app);
        let done = if is_alone { aside::briefly(work).await } else { aside::run(work).await };
        drop(permit);
        done.unwrap_or_else(|broken_off| {
            notices::error(&format!("a request broke off: {broken_off}"));
            Err(Problem::new(ProblemKind::Internal, "").help("tell whoever runs this server; its log says more"))
        })
    }

    /// Room for one more stream, as long as the permit lives.
    fn stream_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            Problem::new(ProblemKind::Busy, format!("{STREAMS_MAX} streams are open, the most there may be"))
                .help("close some, or try again later")
        })
    }

    fn now(&self) -> graph::Timestamp {
        self.server.now()
    }
}
