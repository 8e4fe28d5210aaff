//! Everything that this worker says: logs, step events and reports by lease, each in its spool, and a few words of the worker
//! itself. One post is under way at a time and takes all that waits.
//!
//! Output is masked first of all. It gathers in one open batch a step, which is cut when a post is made: a single line leaves at
//! once, a flood in large pieces. While nobody takes posts, and when a batch has grown, it goes to the spool at once, so
//! that memory stays small and nothing of it dies with the worker.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::worker::{FromWorker, Resend, Taken};
use graph::{AttemptNumber, BuildId, LeaseId};
use store::log::{Batch, MaskedStream, Masker, StepEnd, StreamKey};
use tokio::sync::Notify;
use worker::depot::{AttemptLog, LogEnd, LogError, LogSink, Stream};

use super::spool::{Found, Kind, Part, Portion, Spool, put_section, text_of};

/// How large a post is made, if more waits.
const POST_BYTES: usize = 1 << 20;

/// A batch that has this many bytes goes to the spool.
const BATCH_BYTES: usize = 256 << 10;

/// The most folders of spools that are kept for leases to come.
const SPARE_MAX: usize = 16;

/// The most words of the worker itself that wait; the oldest goes first, since each stands for the newest state.
const WORDS_MAX: usize = 256;

/// What this worker says. Shared by the threads that move output.
pub struct Outbox {
    spools: PathBuf,
    state: Mutex<State>,
    /// Wakes who posts.
    pub wake: Notify,
    /// Tells who posts of something that may wait a moment for more.
    pub wake_soon: Notify,
    /// Whether posts are taken now.
    is_away: AtomicBool,
}

#[derive(Default)]
struct State {
    leases: BTreeMap<LeaseId, Arc<Mutex<Held>>>,
    words: VecDeque<Vec<u8>>,
    /// The lease that was first in the last post.
    first: Option<LeaseId>,
    /// Folders of spools that nothing is in, for leases to come.
    spare: Vec<PathBuf>,
}

/// What one lease has to say.
struct Held {
    spool: Spool,
    /// Steps whose log is open, with what of it is not cut yet.
    open: BTreeMap<u16, Batch>,
    /// Why output was lost, once.
    failure: Option<LogError>,
    /// What was said of steps, to be said again to a server that began anew.
    steps: Vec<FromWorker>,
    /// Its report is in the spool.
    has_ended: bool,
}

/// A post, and what it holds.
pub struct Post {
    /// Its body.
    pub body: Vec<u8>,
    words: usize,
    portions: Vec<(LeaseId, Portion)>,
}

impl Post {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbox {
    /// An outbox over the spools of a data folder, with what an earlier life left in them. The leases that had not ended
    /// are returned: they are lost.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(spools: PathBuf) -> io::Result<(Self, Vec<LeaseId>)> {
        let mut state = State::default();
        let mut lost = Vec::new();
        for (lease, spool, found) in Spool::reopen_all(&spools)? {
            let has_ended = found == Found::Finished;
            if !has_ended {
                lost.push(lease);
            }
            let held = Held { spool, open: BTreeMap::new(), failure: None, steps: Vec::new(), has_ended };
            state.leases.insert(lease, Arc::new(Mutex::new(held)));
        }
        let outbox = Self {
            spools,
            state: Mutex::new(state),
            wake: Notify::new(),
            wake_soon: Notify::new(),
            is_away: AtomicBool::new(true),
        };
        Ok((outbox, lost))
    }

    /// Begins what a lease has to say.
    ///
    /// # Errors
    /// What the file system says.
    pub fn begin(&self, lease: LeaseId) -> io::Result<()> {
        let spare = lock(&self.state).spare.pop();
        let spool = match spare.map(|spare| Spool::take_over(&spare, &self.spools, lease)) {
            Some(Ok(spool)) => spool,
            Some(Err(_)) | None => Spool::create(&self.spools, lease)?,
        };
        let held = Held { spool, open: BTreeMap::new(), failure: None, steps: Vec::new(), has_ended: false };
        lock(&self.state).leases.insert(lease, Arc::new(Mutex::new(held)));
        Ok(())
    }

    /// Whether something of the lease is here: it runs, or its report waits.
    pub fn holds(&self, lease: LeaseId) -> bool {
        lock(&self.state).leases.contains_key(&lease)
    }

    /// All leases of which something is here.
    pub fn leases(&self) -> std::collections::BTreeSet<LeaseId> {
        lock(&self.state).leases.keys().copied().collect()
    }

    /// Whether anything waits to be sent.
    pub fn is_waiting(&self) -> bool {
        let state = lock(&self.state);
        !state.words.is_empty() || state.leases.values().any(|held| lock(held).is_waiting())
    }

    fn held(&self, lease: LeaseId) -> Option<Arc<Mutex<Held>>> {
        lock(&self.state).leases.get(&lease).cloned()
    }

    /// Says something about an attempt, after all that was said of it before. Nothing happens if the lease was forgotten.
    pub fn say_of(&self, lease: LeaseId, word: &FromWorker) {
        if let Some(held) = self.held(lease) {
            let mut held = lock(&held);
            match word {
                FromWorker::Finished { .. } => {
                    held.cut();
                    held.has_ended = true;
                    held.steps.clear();
                }
                FromWorker::StepStarted { .. } | FromWorker::StepFinished { .. } => {
                    // What is shown of a step must not come before what was printed until then.
                    held.cut();
                    held.steps.push(word.clone());
                }
                _ => {}
            }
            held.spool.say(word);
        }
        match word {
            // What it prints is told at once, and this with it.
            FromWorker::StepStarted { .. } => self.wake_soon.notify_one(),
            _ => self.wake.notify_one(),
        }
    }

    /// Says again what was said of the steps of attempts that run: a server that began anew does not know it.
    pub fn say_steps_again(&self) {
        for held in lock(&self.state).leases.values() {
            let held = &mut *lock(held);
            for word in &held.steps {
                held.spool.say(word);
            }
        }
        self.wake.notify_one();
    }

    /// Says something of the worker itself.
    pub fn say(&self, word: &FromWorker) {
        let mut state = lock(&self.state);
        if state.words.len() == WORDS_MAX {
            state.words.pop_front();
        }
        state.words.push_back(text_of(word));
        drop(state);
        self.wake.notify_one();
    }

    /// Nothing of the lease is wanted any more.
    pub fn forget(&self, lease: LeaseId) {
        if let Some(held) = lock(&self.state).leases.remove(&lease) {
            lock(&held).spool.remove();
        }
    }

    /// Says whether posts are taken: if not, output goes to the disk as it comes.
    pub fn set_presence(&self, presence: Presence) {
        self.is_away.store(presence == Presence::Away, Ordering::Relaxed);
        if presence == Presence::Away {
            let held: Vec<_> = lock(&self.state).leases.values().cloned().collect();
            held.iter().for_each(|held| lock(held).cut());
        } else {
            self.wake.notify_one();
        }
    }

    /// All that waits, up to a bound; every lease has its share of it.
    pub fn post(&self) -> Post {
        let mut state = lock(&self.state);
        let mut post = Post { body: Vec::new(), words: 0, portions: Vec::new() };
        for word in &state.words {
            put_section(Kind::Word, word, &mut post.body);
            post.words += 1;
        }
        let after = state.first.unwrap_or_default();
        let later = state.leases.range(after..).skip_while(|(lease, _)| **lease == after && state.first.is_some());
        let order: Vec<_> = later.chain(state.leases.range(..=after)).map(|(lease, held)| (*lease, held)).collect();
        let mut seen = std::collections::BTreeSet::new();
        let mut first = None;
        for (lease, held) in order {
            if post.body.len() >= POST_BYTES || !seen.insert(lease) {
                continue;
            }
            let mut held = lock(held);
            held.cut();
            if !held.spool.is_waiting() {
                continue;
            }
            let before = post.body.len();
            match held.spool.read(POST_BYTES.max(before), &mut post.body) {
                Ok(portion) if portion.is_empty() => {}
                Ok(portion) => {
                    first.get_or_insert(lease);
                    post.portions.push((lease, portion));
                }
                Err(error) => {
                    // What cannot be read back is said once, as what it is.
                    post.body.truncate(before);
                    held.failure.get_or_insert(LogError::Refused(error.to_string()));
                }
            }
        }
        state.first = first.or(state.first);
        post
    }

    /// What the server has taken of a post. The leases that are not this worker's any more are returned.
    pub fn taken(&self, post: Post, taken: &Taken) -> Vec<LeaseId> {
        let mut state = lock(&self.state);
        let words = taken.sections.min(post.words);
        let words = words.min(state.words.len());
        state.words.drain(..words);
        let mut left = taken.sections.saturating_sub(post.words);
        for (lease, portion) in post.portions {
            let count = left.min(portion.len());
            left -= count;
            let Some(held) = state.leases.get(&lease).cloned() else { continue };
            // Whoever else has it might write into what is another lease's by then: the table has one, and this is one.
            let is_nobodys = Arc::strong_count(&held) == 2;
            let mut held = lock(&held);
            // Whose log has to be taken up again sends all of it again: what is there already is known by its bytes' numbers.
            if taken.resend.iter().any(|resend| resend.lease == lease) {
                continue;
            }
            held.spool.taken(&portion[..count]);
            if held.has_ended && !held.is_waiting() {
                let has_room = state.spare.len() < SPARE_MAX;
                let spare = if is_nobodys && has_room { held.spool.leave_spare() } else { None };
                if spare.is_none() {
                    held.spool.remove();
                }
                drop(held);
                state.spare.extend(spare);
                state.leases.remove(&lease);
            }
        }
        for Resend { lease, step, from_byte } in &taken.resend {
            if let Some(held) = state.leases.get(lease) {
                lock(held).spool.resend(*step, *from_byte);
            }
        }
        drop(state);
        taken.stale.iter().for_each(|lease| self.forget(*lease));
        taken.stale.iter().copied().collect()
    }
}

/// Whether a server takes posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It does.
    Here,
    /// It does not.
    Away,
}

impl Held {
    fn is_waiting(&self) -> bool {
        self.spool.is_waiting() || self.open.values().any(|batch| !batch.content().is_empty())
    }

    /// Moves the open batches to the spool.
    fn cut(&mut self) {
        let steps: Vec<u16> =
            self.open.iter().filter(|(_, batch)| !batch.content().is_empty()).map(|(step, _)| *step).collect();
        for step in steps {
            let _ = self.cut_step(step, None);
        }
    }

    /// Moves what a step has printed to the spool. What the disk has no room for is lost; the log shows that.
    fn cut_step(&mut self, step: u16, end: Option<StepEnd>) -> Result<(), LogError> {
        let Some(mut batch) = self.open.remove(&step) else { return Ok(()) };
        batch.end = end;
        let mut next = Batch::new(batch.build, batch.key, batch.next_byte());
        if !batch.content().is_empty() || end.is_some() {
            let mut bytes = Vec::new();
            batch.encode(&mut bytes);
            if let Err(error) = self.spool.append(Kind::Batch, &bytes) {
                let lines = batch.content().iter().filter(|byte| **byte == b'\n').count() as u64;
                next.lost_lines = Some(batch.lost_lines.unwrap_or(0) + lines);
                self.failure.get_or_insert_with(|| log_error(&error));
            }
        } else {
            next.lost_lines = batch.lost_lines;
        }
        if end.is_none() {
            self.open.insert(step, next);
        }
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn push(&mut self, step: u16, stream: store::log::Stream, time_us: u64, mut bytes: &[u8]) -> Result<(), LogError> {
        while !bytes.is_empty() {
            let Some(batch) = self.open.get_mut(&step) else { return Ok(()) };
            let (now, later) = bytes.split_at(bytes.len().min(BATCH_BYTES - batch.content().len().min(BATCH_BYTES)));
            let rest = batch.push(stream, time_us, now).len();
            bytes = &bytes[now.len() - rest..];
            if rest > 0 || !later.is_empty() || batch.content().len() >= BATCH_BYTES {
                self.cut_step(step, None)?;
            }
        }
        Ok(())
    }
}

fn log_error(error: &io::Error) -> LogError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            LogError::Full(format!("the worker's disk has no room for what the server has not taken yet: {error}"))
        }
        _ => LogError::Refused(error.to_string()),
    }
}

/// Where the log of one attempt goes.
pub struct LeaseLog {
    /// The worker's outbox.
    pub outbox: Arc<Outbox>,
    /// Under which lease.
    pub lease: LeaseId,
    /// The build.
    pub build: BuildId,
    /// The attempt in it.
    pub attempt: AttemptNumber,
    /// Hides the attempt's secrets.
    pub masker: Masker,
}

impl AttemptLog for LeaseLog {
    fn open_step(&self, step: u16) -> Box<dyn LogSink> {
        let key = StreamKey { attempt: self.attempt.0, step };
        let held = self.outbox.held(self.lease);
        if let Some(held) = &held {
            lock(held).open.insert(step, Batch::new(self.build, key, 0));
        }
        Box::new(StepSink {
            outbox: Arc::clone(&self.outbox),
            held,
            step,
            masks: std::array::from_fn(|_| self.masker.stream()),
            lines: [Rows::default(); 3],
            time_us: 0,
        })
    }
}

/// Takes what one step prints.
struct StepSink {
    outbox: Arc<Outbox>,
    /// `None` if the lease was forgotten: then nobody wants it.
    held: Option<Arc<Mutex<Held>>>,
    step: u16,
    /// By stream; `None` if there is nothing to mask.
    masks: [Option<MaskedStream>; 3],
    lines: [Rows; 3],
    time_us: u64,
}

/// How many lines a stream has.
#[derive(Clone, Copy, Debug, Default)]
struct Rows {
    ended: u64,
    /// Whether something stands behind the last line's end.
    is_open: bool,
}

impl Rows {
    fn count(&mut self, bytes: &[u8]) {
        self.ended += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.is_open = bytes.last().map_or(self.is_open, |last| *last != b'\n');
    }
}

fn stored(stream: Stream) -> (usize, store::log::Stream) {
    match stream {
        Stream::Stdout => (0, store::log::Stream::Stdout),
        Stream::Stderr => (1, store::log::Stream::Stderr),
        Stream::Note => (2, store::log::Stream::Note),
    }
}

impl LogSink for StepSink {
    fn write(&mut self, stream: Stream, bytes: &[u8], time_us: u64) -> Result<(), LogError> {
        let (index, stream) = stored(stream);
        self.lines[index].count(bytes);
        self.time_us = time_us;
        let Some(held) = &self.held else { return Ok(()) };
        let mut held = lock(held);
        let mut result = Ok(());
        let step = self.step;
        let mut push = |bytes: &[u8]| {
            let pushed = held.push(step, stream, time_us, bytes);
            result = std::mem::replace(&mut result, Ok(())).and(pushed);
        };
        match &mut self.masks[index] {
            Some(mask) => mask.push(bytes, &mut push),
            None => push(bytes),
        }
        if self.outbox.is_away.load(Ordering::Relaxed) {
            result = result.and(held.cut_step(step, None));
        }
        drop(held);
        self.outbox.wake.notify_one();
        result
    }

    fn flush(&mut self) -> Result<(), LogError> {
        // Whatever is there is on its way already.
        Ok(())
    }

    fn close(mut self: Box<Self>) -> LogEnd {
        let lines = self.lines.iter().map(|rows| rows.ended + u64::from(rows.is_open)).sum();
        let Some(held) = self.held.take() else { return LogEnd { lines, failure: None } };
        let mut held = lock(&held);
        for (index, mask) in self.masks.iter_mut().enumerate() {
            if let Some(mask) = mask {
                let stream = store::log::Stream::ALL[index];
                mask.finish(&mut |bytes| {
                    let _ = held.push(self.step, stream, self.time_us, bytes);
                });
            }
        }
        let failure = held.cut_step(self.step, Some(StepEnd::Closed)).err();
        drop(held);
        self.outbox.wake.notify_one();
        LogEnd { lines, failure }
    }
}

/// How many sections a post holds.
impl Post {
    /// All of them.
    pub fn sections(&self) -> usize {
        self.words + self.portions.iter().map(|(_, portion): &(_, Vec<Part>)| portion.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn outbox() -> (tempfile::TempDir, Arc<Outbox>) {
        let folder = tempfile::tempdir().expect("a folder");
        let (outbox, lost) = Outbox::open(folder.path().join("spool")).expect("it opens");
        assert_eq!(lost, []);
        outbox.set_presence(Presence::Here);
        (folder, Arc::new(outbox))
    }

    fn log(outbox: &Arc<Outbox>, lease: u64, secret: &str) -> LeaseLog {
        outbox.begin(LeaseId(lease)).expect("it begins");
        let masker = Masker::new([secret]).expect("a masker");
        let (outbox, lease) = (Arc::clone(outbox), LeaseId(lease));
        LeaseLog { outbox, lease, build: BuildId(1), attempt: AttemptNumber(1), masker }
    }

    /// The batches' places and texts, and the words, of a body.
    fn shown(post: &Post) -> Vec<String> {
        let mut sections = Vec::new();
        let mut rest = post.body.as_slice();
        while let Some((kind, after)) = rest.split_first() {
            let (length, after) = after.split_first_chunk::<4>().expect("a length");
            let (content, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            sections.push(match kind {
                0 => String::from_utf8_lossy(content).into_owned(),
                _ => {
                    let (batch, _) = Batch::decode(content, 0).expect("a batch");
                    format!("{}: {:?}", batch.first_byte, String::from_utf8_lossy(batch.content()))
                }
            });
            rest = after;
        }
        sections
    }

    fn all() -> Taken {
        Taken { sections: usize::MAX, ..Taken::default() }
    }

    #[test]
    fn what_gathers_meanwhile_leaves_together_and_masked() {
        let (_folder, outbox) = outbox();
        let mut sink = log(&outbox, 1, "hunter2").open_step(0);
        sink.write(Stream::Stdout, b"one\n", 1).expect("it is kept");
        let post = outbox.post();
        assert_eq!(shown(&post), ["0: \"one\\n\""]);
        sink.write(Stream::Stdout, b"say hunt", 2).expect("it is kept");
        sink.write(Stream::Stdout, b"er2\n", 3).expect("it is kept");
        outbox.taken(post, &all());
        let post = outbox.post();
        assert_eq!(shown(&post), ["4: \"say ***\\n\""]);
        assert_eq!(outbox.taken(post, &all()), []);
        assert!(!outbox.is_waiting());
        assert_eq!(sink.close().lines, 2);
        assert!(outbox.is_waiting(), "the step's end is to be told");
    }

    #[test]
    fn what_is_not_taken_comes_again() {
        let (_folder, outbox) = outbox();
        let mut sink = log(&outbox, 1, "").open_step(0);
        outbox.say(&FromWorker::Leaving);
        sink.write(Stream::Stdout, b"one\n", 1).expect("it is kept");
        let post = outbox.post();
        assert_eq!(post.sections(), 2);
        outbox.taken(post, &Taken { sections: 1, ..Taken::default() });
        assert_eq!(shown(&outbox.post()), ["0: \"one\\n\""]);
    }

    #[test]
    fn nothing_stays_in_memory_while_the_server_is_away() {
        let (folder, outbox) = outbox();
        outbox.set_presence(Presence::Away);
        let mut sink = log(&outbox, 1, "").open_step(0);
        sink.write(Stream::Stdout, b"one\n", 1).expect("it is kept");
        std::mem::forget(sink);
        let (again, lost) = Outbox::open(folder.path().join("spool")).expect("it opens");
        assert_eq!(lost, [LeaseId(1)]);
        assert_eq!(shown(&again.post()), ["0: \"one\\n\""]);
    }

    #[test]
    fn what_the_server_lacks_is_sent_again_or_told_as_lost() {
        let (_folder, outbox) = outbox();
        let mut sink = log(&outbox, 1, "").open_step(0);
        sink.write(Stream::Stdout, b"one\n", 1).expect("it is kept");
        outbox.taken(outbox.post(), &all());
        sink.write(Stream::Stdout, b"two\n", 1).expect("it is kept");
        let resend = vec![Resend { lease: LeaseId(1), step: 0, from_byte: 0 }];
        outbox.taken(outbox.post(), &Taken { sections: 0, resend, ..Taken::default() });
        let post = outbox.post();
        assert_eq!(shown(&post), ["4: \"two\\n\""]);
        let (batch, _) = Batch::decode(&post.body[5..], 0).expect("a batch");
        assert!(batch.lost_lines.is_some());
    }

    #[test]
    fn stale_leases_are_forgotten() {
        let (folder, outbox) = outbox();
        let mut sink = log(&outbox, 1, "").open_step(0);
        sink.write(Stream::Stdout, b"one\n", 1).expect("it is kept");
        let post = outbox.post();
        let stale = BTreeSet::from([LeaseId(1)]);
        assert_eq!(outbox.taken(post, &Taken { sections: 1, stale, resend: Vec::new() }), [LeaseId(1)]);
        sink.write(Stream::Stdout, b"two\n", 1).expect("it is passed over");
        assert!(!outbox.is_waiting());
        assert_eq!(std::fs::read_dir(folder.path().join("spool")).expect("a folder").count(), 0);
    }

    #[test]
    fn a_flood_of_one_lease_does_not_hold_up_another() {
        let (_folder, outbox) = outbox();
        let mut noise = vec![0; 4 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let mut flood = log(&outbox, 1, "").open_step(0);
        flood.write(Stream::Stdout, &noise, 1).expect("it is kept");
        let mut other = log(&outbox, 2, "").open_step(0);
        let first = outbox.post();
        assert!(first.body.len() <= POST_BYTES, "{}", first.body.len());
        other.write(Stream::Stdout, b"two\n", 1).expect("it is kept");
        outbox.taken(first, &all());
        assert!(shown(&outbox.post()).contains(&"0: \"two\\n\"".to_owned()));
    }
}
