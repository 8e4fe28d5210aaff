//! What attempts left goes to the server, so that any worker can open it: those that wait together, and none before its report is said.
//!
//! Nothing waits for it but a worker that leaves, and it gives way to jobs: it waits a moment in which none begins or ends, and then goes on a
//! thread that gives way. What was not sent when a worker died is sent by its next life, unless the attempt had
//! secrets: which files hold one is not known any more then.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::worker::{
    AttemptLayers, AttemptName, LAYERS_ATTEMPTS_MAX, LAYERS_BLOBS_MAX, LAYERS_TEXT_BYTES_MAX, Layers, LayersDocument,
    SaveLayers,
};
use graph::{AttemptNumber, BuildId};
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep_until};
use worker::depot::Mask;
use worker::travel::{self, TravelFault};

use super::behind::behind;
use super::depot::GatheringDepot;
use super::holding::Held;
use super::link::Link;
use super::session::say;
use crate::commands::Stop;
use crate::words;

/// The most attempts that wait; what further ones left stays on this worker.
const WAITING_MAX: usize = 256;

/// For so long no attempt has begun or ended before something is sent; but nothing gives way for longer than that.
const QUIET: Duration = Duration::from_millis(50);
const GIVES_WAY_MAX: Duration = Duration::from_secs(1);

/// From so many bytes on, what attempts left goes in several pieces.
const TOGETHER_BYTES: u64 = 16 << 20;

const _: () = assert!(travel::TEXT_BYTES_MAX <= LAYERS_TEXT_BYTES_MAX, "a server takes what a worker makes");

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
    /// In the order in which they came, with the number of each.
    waiting: RefCell<VecDeque<(u64, Sending)>>,
    /// How many ever waited.
    numbers: Cell<u64>,
    /// How many are being sent.
    going: Cell<usize>,
    turn: Mutex<()>,
    /// When an attempt began or ended last.
    stirred: Cell<Instant>,
    /// Woken when nothing waits any more.
    pub idle: Notify,
}

impl Sends {
    /// Nothing yet.
    pub fn new(data: &Path, link: Arc<Link>) -> Self {
        let (waiting, numbers, going) = (RefCell::default(), Cell::new(0), Cell::new(0));
        let (turn, stirred) = (Mutex::default(), Cell::new(Instant::now()));
        Self { data: data.to_owned(), link, waiting, numbers, going, turn, stirred, idle: Notify::new() }
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
        self.waiting.borrow().len() + self.going.get()
    }

    /// Sends what an attempt left, when its turn comes, together with what waits behind it.
    pub async fn send(&self, sending: Sending) {
        let bytes_max = crate::retention::sent_bytes_max();
        if bytes_max == 0 {
            return;
        }
        if self.count() == WAITING_MAX {
            say(&format!("the files of {WAITING_MAX} attempts wait to be sent: those of a further one stay here"));
            return;
        }
        let number = self.numbers.get();
        self.numbers.set(number + 1);
        self.waiting.borrow_mut().push_back((number, sending));
        let since = Instant::now();
        let turn = self.turn.lock().await;
        // It may have gone with one that came before.
        let is_first = || self.waiting.borrow().front().is_some_and(|(first, _)| *first <= number);
        if !is_first() {
            return;
        }
        self.quiet(since).await;
        let together: Vec<Sending> = {
            let mut waiting = self.waiting.borrow_mut();
            let count = waiting.len().min(LAYERS_ATTEMPTS_MAX);
            waiting.drain(..count).map(|(_, sending)| sending).collect()
        };
        self.going.set(together.len());
        let (data, link) = (self.data.clone(), Arc::clone(&self.link));
        let sent = behind("layers", move || send_now(&data, &link, &together, bytes_max)).await;
        self.going.set(0);
        drop(turn);
        for fault in sent.unwrap_or_else(|fault| vec![fault]) {
            say(&fault);
        }
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

/// Sends what attempts left. Gives what did not go, in words.
fn send_now(data: &Path, link: &Arc<Link>, sendings: &[Sending], bytes_max: u64) -> Vec<String> {
    let mut faults = Vec::new();
    let mut parcel = Parcel::new(data, link);
    for sending in sendings {
        let name = AttemptName { build: sending.build, attempt: sending.attempt };
        let fault = match parcel.layers_of(sending, bytes_max) {
            Ok(None) => None,
            Ok(Some(layers)) => parcel.add(name, layers),
            Err(why) => Some(unsent(&[name], &why)),
        };
        faults.extend(fault);
    }
    faults.extend(parcel.send());
    faults
}

fn unsent(attempts: &[AttemptName], why: &str) -> String {
    let (first, others) = match attempts {
        [AttemptName { build, attempt }, others @ ..] => (format!("attempt {attempt} of build {build}"), others.len()),
        [] => return format!("what attempts left was not sent: {why}"),
    };
    let others = if others > 0 { format!(" and {} more", words::count(others, "attempt")) } else { String::new() };
    format!("what {first}{others} left was not sent: {why}")
}

/// What goes in one piece.
struct Parcel<'l> {
    data: &'l Path,
    link: &'l Arc<Link>,
    depot: GatheringDepot<'l>,
    attempts: Vec<AttemptLayers>,
    blobs: usize,
    bytes: u64,
}

impl<'l> Parcel<'l> {
    fn new(data: &'l Path, link: &'l Arc<Link>) -> Self {
        Self { data, link, depot: GatheringDepot::new(link), attempts: Vec::new(), blobs: 0, bytes: 0 }
    }

    fn left(&self, AttemptName { build, attempt }: AttemptName) -> travel::Attempt<'l> {
        travel::Attempt { data: self.data, build, attempt }
    }

    /// Gathers what an attempt left; `None` of one that left nothing.
    fn layers_of(&self, sending: &Sending, bytes_max: u64) -> Result<Option<Layers>, String> {
        let left = self.left(AttemptName { build: sending.build, attempt: sending.attempt });
        if !left.is_own() {
            // It worked in the tree itself, or failed before it had a workspace.
            return Ok(None);
        }
        match travel::send(left, sending.mask.as_deref(), bytes_max, &self.depot) {
            Ok(travel::Sent { document, blobs, bytes }) => {
                let document = match document {
                    travel::Told::Blob(digest) => LayersDocument::Blob(digest),
                    travel::Told::Text(text) => LayersDocument::Text { text },
                };
                Ok(Some(Layers::Sent { document, blobs, bytes }))
            }
            Err(TravelFault::Nothing) => Ok(None),
            Err(fault @ (TravelFault::Copy | TravelFault::Files | TravelFault::Bytes(_))) => {
                Ok(Some(Layers::Unsent { reason: fault.to_string() }))
            }
            Err(fault) => Err(Stop::of(&fault).message),
        }
    }

    /// Takes an attempt, and sends what there is by then before it is too much for one piece. Gives what did not go, in words.
    fn add(&mut self, AttemptName { build, attempt }: AttemptName, layers: Layers) -> Option<String> {
        let (blobs, bytes) = match &layers {
            Layers::Sent { blobs, bytes, .. } => (blobs.len(), *bytes),
            Layers::Unsent { .. } => (0, 0),
        };
        let is_full = self.blobs + blobs > LAYERS_BLOBS_MAX || self.bytes + bytes > TOGETHER_BYTES;
        let fault = if is_full && !self.attempts.is_empty() { self.send() } else { None };
        self.attempts.push(AttemptLayers { build, attempt, layers });
        self.blobs += blobs;
        self.bytes += bytes;
        fault
    }

    /// Sends all of it, and notes what was sent. Gives what did not go, in words.
    fn send(&mut self) -> Option<String> {
        let Self { data, link, .. } = *self;
        let Self { depot, attempts, .. } = std::mem::replace(self, Self::new(data, link));
        if attempts.is_empty() {
            return None;
        }
        let name = |told: &AttemptLayers| AttemptName { build: told.build, attempt: told.attempt };
        let names: Vec<AttemptName> = attempts.iter().map(name).collect();
        let saved = depot.send().and_then(|()| link.save_layers(&SaveLayers { attempts }));
        let refused = match saved {
            Ok(saved) => saved.refused,
            Err(error) => return Some(unsent(&names, &error.to_string())),
        };
        let sent = names.iter().filter(|name| !refused.contains(name));
        let unnoted = sent.filter_map(|&name| self.left(name).note_sent().err()).last();
        match unnoted {
            Some(error) => Some(format!("cannot note in `{}` what was sent: {error}", data.display())),
            None if refused.is_empty() => None,
            None => Some(unsent(&refused, "the server knows it as another worker's")),
        }
    }
}
