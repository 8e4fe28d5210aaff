//! What attempts left goes to the server, so that any worker can open it: those that wait together, and none before its report is said.
//!
//! Nothing waits for it but a worker that leaves, and it gives way to jobs: it waits a moment in which none begins or ends. What was not sent when a worker died is sent by its next life, unless the attempt had
//! secrets: which files hold one is not known any more then.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::worker::{
    AttemptLayers, AttemptName, LAYERS_ATTEMPTS_MAX, LAYERS_BLOBS_MAX, LAYERS_TEXT_BYTES_MAX, Layers, LayersDocument,
    SaveLayers,
};
use graph::{AttemptNumber, BuildId, Digest};
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep_until};
use worker::depot::Mask;
use worker::travel::{self, TravelFault};

use super::depot::GatheringDepot;
use super::holding::Held;
use super::link::Link;
use super::session::say;
use crate::commands::Stop;

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
        let names: Vec<_> = together.iter().map(|one| AttemptName { build: one.build, attempt: one.attempt }).collect();
        let sent = tokio::task::spawn_blocking(move || send_now(&data, &link, &together, bytes_max)).await;
        self.going.set(0);
        drop(turn);
        for fault in sent.unwrap_or_else(|error| vec![unsent(&names, &error.to_string())]) {
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

/// Sends what attempts left. Gives what did not go, in words. Blocks.
fn send_now(data: &Path, link: &Arc<Link>, sendings: &[Sending], bytes_max: u64) -> Vec<String> {
    let mut faults = Vec::new();
    let mut parcel = Parcel::default();
    for sending in sendings {
        let name = AttemptName { build: sending.build, attempt: sending.attempt };
        if link.is_closed() {
            // The next life sends what it may.
            break;
        }
        match gather(data, link, sending, bytes_max) {
            Ok(None) => {}
            Ok(Some(gathered)) => {
                if parcel.is_full_with(&gathered) {
                    faults.extend(std::mem::take(&mut parcel).send(data, link));
                }
                parcel.add(name, gathered);
            }
            Err(why) => faults.push(unsent(&[name], &why)),
        }
    }
    faults.extend(parcel.send(data, link));
    faults
}

fn unsent(attempts: &[AttemptName], why: &str) -> String {
    let name = |AttemptName { build, attempt }: &AttemptName| format!("attempt {attempt} of build {build}");
    let names: Vec<String> = attempts.iter().map(name).collect();
    format!("what {} left was not sent: {why}", names.join(", "))
}

/// What one attempt left, here.
struct Gathered {
    layers: Layers,
    /// The blobs that were made of it.
    blobs: BTreeSet<Digest>,
}

impl Gathered {
    /// How many blobs are to be told, and what they hold.
    fn size(&self) -> (usize, u64) {
        match &self.layers {
            Layers::Sent { blobs, bytes, .. } => (blobs.len(), *bytes),
            Layers::Unsent { .. } => (0, 0),
        }
    }
}

/// Gathers what an attempt left; `None` of one that left nothing.
fn gather(data: &Path, link: &Arc<Link>, sending: &Sending, bytes_max: u64) -> Result<Option<Gathered>, String> {
    let left = travel::Attempt { data, build: sending.build, attempt: sending.attempt };
    if !left.is_own() {
        // It worked in the tree itself, or failed before it had a workspace.
        return Ok(None);
    }
    let depot = GatheringDepot::new(link);
    let layers = match travel::send(left, sending.mask.as_deref(), bytes_max, &depot) {
        Ok(travel::Sent { document, blobs, bytes }) => {
            let document = match document {
                travel::Told::Blob(digest) => LayersDocument::Blob(digest),
                travel::Told::Text(text) => LayersDocument::Text { text },
            };
            Layers::Sent { document, blobs, bytes }
        }
        Err(TravelFault::Nothing) => return Ok(None),
        Err(fault @ (TravelFault::Copy | TravelFault::Files | TravelFault::Bytes(_))) => {
            Layers::Unsent { reason: fault.to_string() }
        }
        Err(fault) => return Err(Stop::of(&fault).message),
    };
    Ok(Some(Gathered { layers, blobs: depot.into_gathered() }))
}

/// What goes in one piece.
#[derive(Default)]
struct Parcel {
    attempts: Vec<(AttemptName, Gathered)>,
    blobs: usize,
    bytes: u64,
}

impl Parcel {
    /// Whether it would be too much with what another attempt left.
    fn is_full_with(&self, gathered: &Gathered) -> bool {
        let (blobs, bytes) = gathered.size();
        let is_large = self.blobs + blobs > LAYERS_BLOBS_MAX || self.bytes.saturating_add(bytes) > TOGETHER_BYTES;
        is_large && !self.attempts.is_empty()
    }

    fn add(&mut self, name: AttemptName, gathered: Gathered) {
        let (blobs, bytes) = gathered.size();
        self.attempts.push((name, gathered));
        self.blobs += blobs;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Sends all of it, and notes what was sent. Gives what did not go, in words.
    fn send(self, data: &Path, link: &Arc<Link>) -> Vec<String> {
        let send = |attempts: &[(AttemptName, Gathered)]| send_together(data, link, attempts);
        let (faults, unsent_ones) = together_or_alone(&self.attempts, send, || link.is_closed());
        let why = |(attempts, why): (&[(AttemptName, Gathered)], String)| {
            let names: Vec<AttemptName> = attempts.iter().map(|(name, _)| *name).collect();
            unsent(&names, &why)
        };
        faults.into_iter().chain(unsent_ones.into_iter().map(why)).collect()
    }
}

/// Those that did not go, and why.
type Refused<'a, T> = Vec<(&'a [T], String)>;

/// Sends all at once, or, since one keeps no other here, each by itself if that fails; not if everything `is_over`. Gives what was said of those that went, and those that did not go.
fn together_or_alone<T>(
    all: &[T],
    mut send: impl FnMut(&[T]) -> Result<Vec<String>, String>,
    is_over: impl FnOnce() -> bool,
) -> (Vec<String>, Refused<'_, T>) {
    if all.is_empty() {
        return (Vec::new(), Vec::new());
    }
    match send(all) {
        Ok(said) => (said, Vec::new()),
        Err(why) if all.len() == 1 || is_over() => (Vec::new(), vec![(all, why)]),
        Err(_) => {
            let (mut said, mut refused) = (Vec::new(), Vec::new());
            for one in all.chunks(1) {
                match send(one) {
                    Ok(of_one) => said.extend(of_one),
                    Err(why) => refused.push((one, why)),
                }
            }
            (said, refused)
        }
    }
}

/// Sends what attempts left, and notes it. Gives what was refused, in words; an error if nothing went.
fn send_together(data: &Path, link: &Arc<Link>, attempts: &[(AttemptName, Gathered)]) -> Result<Vec<String>, String> {
    let blobs: BTreeSet<Digest> = attempts.iter().flat_map(|(_, gathered)| gathered.blobs.iter().copied()).collect();
    let told = attempts.iter().map(|(AttemptName { build, attempt }, gathered)| AttemptLayers {
        build: *build,
        attempt: *attempt,
        layers: gathered.layers.clone(),
    });
    let save = SaveLayers { attempts: told.collect() };
    let saved = link.send(&Vec::from_iter(blobs)).and_then(|()| link.save_layers(&save));
    let refused = saved.map_err(|error| error.to_string())?.refused;
    let mut faults = Vec::new();
    if !refused.is_empty() {
        faults.push(unsent(&refused, "the server knows it as another worker's"));
    }
    for (name, _) in attempts.iter().filter(|(name, _)| !refused.contains(name)) {
        let left = travel::Attempt { data, build: name.build, attempt: name.attempt };
        if let Err(error) = left.note_sent() {
            faults.push(format!(
                "cannot note that what attempt {} of build {} left was sent: {error}",
                name.attempt, name.build
            ));
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_cannot_go_keeps_no_other_here() {
        let mut went = Vec::new();
        let send = |some: &[u8]| {
            if some.contains(&2) {
                return Err("it cannot".to_owned());
            }
            went.extend_from_slice(some);
            Ok(vec![format!("{some:?} went")])
        };
        let (said, refused) = together_or_alone(&[1, 2, 3], send, || false);
        assert_eq!(went, [1, 3]);
        assert_eq!(said, ["[1] went", "[3] went"]);
        assert_eq!(refused, [(&[2][..], "it cannot".to_owned())]);
    }

    #[test]
    fn what_goes_together_goes_once_and_what_is_over_is_not_tried_again() {
        let mut pieces = Vec::new();
        let send = |some: &[u8]| {
            pieces.push(some.to_vec());
            Ok(Vec::new())
        };
        assert_eq!(together_or_alone(&[1, 2], send, || false), (Vec::new(), Vec::new()));
        assert_eq!(together_or_alone(&[], |_: &[u8]| panic!("nothing is sent"), || false), (Vec::new(), Vec::new()));
        assert_eq!(pieces, [[1, 2]]);
        let mut tries = 0;
        let send = |_: &[u8]| {
            tries += 1;
            Err("gone".to_owned())
        };
        assert_eq!(together_or_alone(&[1, 2], send, || true), (Vec::new(), vec![(&[1, 2][..], "gone".to_owned())]));
        assert_eq!(tries, 1);
    }
}
