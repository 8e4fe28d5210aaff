//! What attempts left goes to the server, so that any worker can open it: one attempt after the other, and none before its report is said.
//!
//! Nothing waits for it but a worker that leaves, and it gives way to jobs: it waits a moment in which none begins or ends. What was not sent when a worker died is sent by its next life, unless the attempt had
//! secrets: which files hold one is not known any more then.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::worker::{Layers, SaveLayers};
use graph::{AttemptNumber, BuildId};
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep_until};
use worker::depot::Mask;
use worker::travel::{self, TravelFault};

use super::depot::RemoteDepot;
use super::holding::Held;
use super::link::Link;
use super::session::say;
use crate::commands::Stop;

/// The most attempts that wait; what further ones left stays on this worker.
const WAITING_MAX: usize = 256;

/// For so long no attempt has begun or ended before something is sent; but nothing gives way for longer than that.
const QUIET: Duration = Duration::from_millis(50);
const GIVES_WAY_MAX: Duration = Duration::from_secs(1);

/// The most attempts of an earlier life that are looked at.
const EARLIER_MAX: usize = 64;

/// An attempt whose files are to be sent.
pub struct Sending {
    /// The build.
    pub build: BuildId,
    /// The attempt.
    pub attempt: AttemptNumber,
    /// Knows its secrets; `None` only if it had none.
    pub mask: Option<Arc<dyn Mask>>,
    /// Keeps its files.
    pub _held: Held<BuildId>,
}

/// What is being sent, and what waits.
pub struct Sends {
    data: PathBuf,
    link: Arc<Link>,
    waiting: Cell<usize>,
    turn: Mutex<()>,
    /// When an attempt began or ended last.
    stirred: Cell<Instant>,
    /// Woken when nothing waits any more.
    pub idle: Notify,
}

impl Sends {
    /// Nothing yet.
    pub fn new(data: &Path, link: Arc<Link>) -> Self {
        let (waiting, turn, stirred) = (Cell::new(0), Mutex::default(), Cell::new(Instant::now()));
        Self { data: data.to_owned(), link, waiting, turn, stirred, idle: Notify::new() }
    }

    /// An attempt begins or ends.
    pub fn stir(&self) {
        self.stirred.set(Instant::now());
    }

    /// Gives way to attempts that begin and end.
    async fn quiet(&self, since: Instant) {
        loop {
            let until = (self.stirred.get() + QUIET).min(since + GIVES_WAY_MAX);
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// How many attempts wait, or are being sent.
    pub fn count(&self) -> usize {
        self.waiting.get()
    }

    /// Sends what an attempt left, when its turn comes.
    pub async fn send(&self, sending: Sending) {
        let bytes_max = crate::retention::sent_bytes_max();
        if bytes_max == 0 {
            return;
        }
        if self.waiting.get() == WAITING_MAX {
            say(&format!("the files of {WAITING_MAX} attempts wait to be sent: those of a further one stay here"));
            return;
        }
        self.waiting.set(self.waiting.get() + 1);
        let since = Instant::now();
        let turn = self.turn.lock().await;
        self.quiet(since).await;
        let (data, link) = (self.data.clone(), Arc::clone(&self.link));
        let (build, attempt) = (sending.build, sending.attempt);
        let sent = tokio::task::spawn_blocking(move || send_now(&data, &link, &sending, bytes_max)).await;
        drop(turn);
        if let Err(why) = sent.unwrap_or_else(|error| Err(error.to_string())) {
            say(&format!("what attempt {attempt} of build {build} left was not sent: {why}"));
        }
        self.waiting.set(self.waiting.get() - 1);
        if self.count() == 0 {
            self.idle.notify_waiters();
        }
    }

    /// The attempts of an earlier life that were not sent and had no secrets, the newest builds first.
    pub fn earlier(&self) -> Vec<(BuildId, AttemptNumber)> {
        let below = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
        let workspaces = self.data.join("workspaces");
        let number = |entry: &fs::DirEntry| entry.file_name().to_str()?.parse::<u64>().ok();
        let mut builds: Vec<u64> = below(&workspaces).filter_map(|entry| number(&entry)).collect();
        builds.sort_unstable_by(|left, right| right.cmp(left));
        let attempts = builds.into_iter().flat_map(|build| {
            below(&workspaces.join(build.to_string())).filter_map(move |entry| {
                let attempt: u32 = number(&entry)?.try_into().ok()?;
                Some((BuildId(build), AttemptNumber(attempt)))
            })
        });
        attempts
            .filter(|(build, attempt)| {
                let attempt = travel::Attempt { data: &self.data, build: *build, attempt: *attempt };
                attempt.is_own() && !attempt.is_sent() && attempt.had_secrets() == Some(false)
            })
            .take(EARLIER_MAX)
            .collect()
    }
}

fn send_now(data: &Path, link: &Arc<Link>, sending: &Sending, bytes_max: u64) -> Result<(), String> {
    let Sending { build, attempt, mask, .. } = sending;
    let left = travel::Attempt { data, build: *build, attempt: *attempt };
    if !left.is_own() {
        // It worked in the tree itself, or failed before it had a workspace.
        return Ok(());
    }
    let depot = RemoteDepot::of_blobs(Arc::clone(link));
    let layers = match travel::send(left, mask.as_deref(), bytes_max, &depot) {
        Ok(travel::Sent { document, blobs, bytes }) => Layers::Sent { document, blobs, bytes },
        Err(TravelFault::Nothing) => return Ok(()),
        Err(fault @ (TravelFault::Copy | TravelFault::Files | TravelFault::Bytes(_))) => {
            Layers::Unsent { reason: fault.to_string() }
        }
        Err(fault) => return Err(Stop::of(&fault).message),
    };
    let save = SaveLayers { build: *build, attempt: *attempt, layers };
    link.save_layers(&save).map_err(|error| error.to_string())?;
    left.note_sent().map_err(|error| error.to_string())
}
