//! What steps print, from their pipes into the log.
//!
//! Both pipes of a step are read without blocking into one buffer per thread; each read is handed on at once with its
//! time, so the order between stdout and stderr is the order of reading. A step that prints faster than the thread of
//! all attempts should bear is read by a thread of its own until it falls quiet: a log that waits for its disk then
//! holds up that step and no other.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use crate::depot::{AttemptLog, LogEnd, LogError, LogSink, Stream};
use crate::keeper::socket::output_pipe;
use crate::keeper::{SpawnFailure, enlarge_pipe};

/// How much is read at once. A frame of the log has this size too.
const BUFFER_BYTES: usize = 256 << 10;

/// A read of at least this much means that the pipe was full, so it is made larger.
const FULL_PIPE_BYTES: usize = 64 << 10;

/// So many reads without a pause, and a step gets a thread of its own.
const READS_HEAVY: usize = 8;

/// A heavy step that printed nothing for so long goes back to the common thread.
const QUIET: Duration = Duration::from_millis(500);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The log of one step, opened at its first byte.
pub struct Recorder {
    log: Arc<dyn AttemptLog>,
    step: u16,
    sink: Option<Box<dyn LogSink>>,
    failure: Option<LogError>,
    unflushed: bool,
    bytes: u64,
}

/// A recorder that its step's readers share. Nothing waits while it holds the lock but the log itself.
pub type SharedRecorder = Arc<Mutex<Recorder>>;

/// Locks a recorder; a panic of another thread does not make its state wrong.
pub fn lock(recorder: &SharedRecorder) -> MutexGuard<'_, Recorder> {
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// For the step of this index.
    #[must_use]
    pub fn new(log: Arc<dyn AttemptLog>, step: u16) -> SharedRecorder {
        Arc::new(Mutex::new(Self { log, step, sink: None, failure: None, unflushed: false, bytes: 0 }))
    }

    /// Takes bytes of a stream. A failure of the log is kept for [`Recorder::close`].
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let sink = self.sink.get_or_insert_with(|| self.log.open_step(self.step));
        self.unflushed = true;
        self.bytes += bytes.len() as u64;
        if let Err(error) = sink.write(stream, bytes, now_us()) {
            self.failure.get_or_insert(error);
        }
    }

    /// Writes a remark of our own as one line.
    pub fn note(&mut self, text: &str) {
        self.write(Stream::Note, format!("{text}\n").as_bytes());
    }

    /// Makes what was written readable for others.
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.unflushed)
            && let Some(Err(error)) = self.sink.as_mut().map(|sink| sink.flush())
        {
            self.failure.get_or_insert(error);
        }
    }

    /// How much was written.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the step's log.
    pub fn close(&mut self) -> LogEnd {
        let mut end = self.sink.take().map(LogSink::close).unwrap_or_default();
        end.failure = self.failure.take().or(end.failure);
        end
    }
}

/// Microseconds since 1970.
#[must_use]
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Has the runtime watch a pipe.
pub(crate) fn register(pipe: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the value handed over owns its descriptor, which therefore stays open and its own while it is registered.
    Ok(unsafe { AsyncFd::register_with_interest(pipe, Interest::READABLE) }?)
}

/// What one turn of a [`Pump`] brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Something was read.
    Data,
    /// Both pipes are closed by all who held them.
    End,
}

/// A step's two pipes. They serve one step after another: making them, and having the runtime watch them, costs more than
/// all else that a silent step asks of this process.
pub struct Channels {
    reading: [AsyncFd<OwnedFd>; 2],
    /// What steps are given. Held here too, so that the pipes do not end with a step.
    writing: [OwnedFd; 2],
}

impl Channels {
    fn new() -> Result<Self, ChannelFault> {
        let [out, err] = [output_pipe(), output_pipe()];
        let (out, err) = (out.map_err(ChannelFault::None)?, err.map_err(ChannelFault::None)?);
        let reading = [register(out.read), register(err.read)];
        let [out_read, err_read] = reading.map(|pipe| pipe.map_err(ChannelFault::Unreadable));
        Ok(Self { reading: [out_read?, err_read?], writing: [out.write, err.write] })
    }

    /// Pipes that somebody else has made: stdout, stderr. The reading ends do not block.
    pub(crate) fn of(reading: [OwnedFd; 2], writing: [OwnedFd; 2]) -> io::Result<Self> {
        let [out, err] = reading.map(register);
        Ok(Self { reading: [out?, err?], writing })
    }

    /// The ends for a step: stdout, stderr.
    pub fn writing(&self) -> [&OwnedFd; 2] {
        self.writing.each_ref()
    }
}

/// Why a step can have no pipes.
pub enum ChannelFault {
    /// There are none.
    None(SpawnFailure),
    /// They cannot be registered with the runtime.
    Unreadable(io::Error),
}

/// Pipes that no step has: as many as steps ever ran at once.
#[derive(Default)]
pub struct FreeChannels(Mutex<Vec<Channels>>);

impl FreeChannels {
    /// Pipes with nothing in them, which nobody else holds.
    ///
    /// # Errors
    /// [`ChannelFault`] if there are none and none can be made.
    pub fn take(&self) -> Result<Channels, ChannelFault> {
        self.lock().pop().map_or_else(Channels::new, Ok)
    }

    /// For a later step.
    pub fn give(&self, channels: Channels) {
        self.lock().push(channels);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Channels>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves a step's output into its log, turn by turn.
pub struct Pump {
    state: State,
    /// Our hold on the ends that the step has. As long as it is there the pipes do not end.
    writing: Option<[OwnedFd; 2]>,
    recorder: SharedRecorder,
}

enum State {
    /// Read by the thread of all attempts.
    Light([Option<AsyncFd<OwnedFd>>; 2]),
    /// Read by a thread of its own, until that is told to stop through the descriptor.
    Heavy { thread: JoinHandle<Pipes>, stop: OwnedFd },
    /// On the way from one to the other.
    Moving,
}

#[derive(PartialEq, Eq)]
enum Emptied {
    Yes,
    No,
}

/// Stdout and stderr, as far as they are open.
type Pipes = [Option<OwnedFd>; 2];

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

impl Pump {
    /// Takes a step's pipes.
    pub fn new(channels: Channels, recorder: SharedRecorder) -> Self {
        let Channels { reading, writing } = channels;
        Self { state: State::Light(reading.map(Some)), writing: Some(writing), recorder }
    }

    /// Takes what is in the pipes and gives them back, as good as new. To be called when nobody else holds them any more.
    ///
    /// # Errors
    /// The pump, if there is much in them or they are no longer as they were.
    pub fn give_back(mut self) -> Result<Channels, Self> {
        if self.empty() == Emptied::No {
            return Err(self);
        }
        match (std::mem::replace(&mut self.state, State::Moving), self.writing.take()) {
            (State::Light([Some(out), Some(err)]), Some(writing)) => Ok(Channels { reading: [out, err], writing }),
            (state, writing) => {
                (self.state, self.writing) = (state, writing);
                Err(self)
            }
        }
    }

    /// Empties both pipes, and takes back what the step may have set on its ends.
    fn empty(&mut self) -> Emptied {
        let (State::Light([Some(out), Some(err)]), Some(writing)) = (&self.state, &self.writing) else {
            return Emptied::No;
        };
        for (index, pipe) in [out, err].into_iter().enumerate() {
            let mut reads = 0..READS_HEAVY;
            // Asked first: a step that prints nothing needs no buffer.
            while !matches!(rustix::io::ioctl_fionread(pipe.get_ref()), Ok(0)) {
                let read = reads.next().map(|_| move_once(pipe.get_ref(), index, &self.recorder));
                if !matches!(read, Some(Read::Bytes(_))) {
                    return Emptied::No;
                }
            }
            // A program that made its stdout not block would have made it so for the next one.
            if rustix::fs::fcntl_setfl(&writing[index], OFlags::empty()).is_err() {
                return Emptied::No;
            }
        }
        Emptied::Yes
    }

    /// Closes our hold on the step's ends: when all others have done so the pipes end.
    pub fn let_go(&mut self) {
        self.writing = None;
    }

    /// Waits for output and moves what is there. Cancel safe.
    pub async fn turn(&mut self) -> Turn {
        match &mut self.state {
            State::Moving => Turn::End,
            State::Heavy { thread, .. } => {
                let pipes = thread.await.unwrap_or_default();
                self.lighten(pipes);
                Turn::Data
            }
            State::Light(pipes) => {
                let heavy = match pipes {
                    [None, None] => return Turn::End,
                    [Some(one), None] => move_ready(one.readable().await, 0, &self.recorder),
                    [None, Some(one)] => move_ready(one.readable().await, 1, &self.recorder),
                    [Some(out), Some(err)] => {
                        // Of what came at once, stdout is told first: which was written first cannot be known.
                        tokio::select! {
                            biased;
                            ready = out.readable() => move_ready(ready, 0, &self.recorder),
                            ready = err.readable() => move_ready(ready, 1, &self.recorder),
                        }
                    }
                };
                match heavy {
                    Moved::Some => {}
                    Moved::All(index) => pipes[index] = None,
                    Moved::Heavy => self.burden(),
                }
                Turn::Data
            }
        }
    }

    /// Takes what is in the pipes now, without waiting.
    pub fn take_ready(&mut self) -> Turn {
        let State::Light(pipes) = &mut self.state else { return Turn::Data };
        for (index, slot) in pipes.iter_mut().enumerate() {
            for _ in 0..READS_HEAVY {
                let Some(pipe) = slot else { break };
                match move_once(pipe.get_ref(), index, &self.recorder) {
                    Read::Bytes(_) => {}
                    Read::Nothing => break,
                    Read::End => *slot = None,
                }
            }
        }
        match pipes {
            [None, None] => Turn::End,
            _ => Turn::Data,
        }
    }

    fn lighten(&mut self, pipes: Pipes) {
        self.state = State::Light(pipes.map(|pipe| pipe.and_then(|pipe| register(pipe).ok())));
    }

    /// Gives the pipes to a thread of their own.
    fn burden(&mut self) {
        let State::Light(pipes) = std::mem::replace(&mut self.state, State::Moving) else { return };
        let pipes = pipes.map(|pipe| pipe.map(AsyncFd::into_inner));
        let Some((stop, heard)) = stop_pair() else { return self.lighten(pipes) };
        let recorder = Arc::clone(&self.recorder);
        let thread = tokio::task::spawn_blocking(move || move_heavy(pipes, &recorder, &heard, Until::Quiet));
        self.state = State::Heavy { thread, stop };
    }

    /// Goes on reading in the background, for processes that outlive their step, until [`Held::release`].
    pub async fn hold(mut self) -> Option<Held> {
        self.calm().await;
        let State::Light(pipes) = std::mem::replace(&mut self.state, State::Moving) else { return None };
        let pipes = pipes.map(|pipe| pipe.map(AsyncFd::into_inner));
        let (stop, heard) = stop_pair()?;
        let recorder = Arc::clone(&self.recorder);
        let thread = tokio::task::spawn_blocking(move || move_heavy(pipes, &recorder, &heard, Until::Stopped));
        Some(Held { thread, stop })
    }

    /// Takes the pipes back from a thread of their own, and reads no more.
    pub async fn calm(&mut self) {
        if let State::Heavy { thread, stop } = &mut self.state {
            let _ = rustix::io::write(&*stop, &1_u64.to_ne_bytes());
            let pipes = thread.await.unwrap_or_default();
            self.lighten(pipes);
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        if let State::Heavy { stop, .. } = &self.state {
            let _ = rustix::io::write(stop, &1_u64.to_ne_bytes());
        }
    }
}

/// Pipes that processes of an ended step still hold, read in the background.
pub struct Held {
    thread: JoinHandle<Pipes>,
    stop: OwnedFd,
}

impl Held {
    /// Ends the reading: what is in the pipes now is still taken.
    pub async fn release(self) {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        let _ = self.thread.await;
    }
}

/// Two handles of one counter: what is written to the first wakes who polls the second.
fn stop_pair() -> Option<(OwnedFd, OwnedFd)> {
    let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
    let heard = stop.try_clone().ok()?;
    Some((stop, heard))
}

/// What reading from one pipe came to.
enum Moved {
    /// All that was there for now.
    Some,
    /// All there will ever be.
    All(usize),
    /// There is always more.
    Heavy,
}

fn move_ready(
    ready: io::Result<tokio::io::unix::AsyncFdReadyGuard<'_, OwnedFd>>,
    index: usize,
    recorder: &SharedRecorder,
) -> Moved {
    let Ok(mut ready) = ready else { return Moved::All(index) };
    for _ in 0..READS_HEAVY {
        match move_once(ready.get_inner(), index, recorder) {
            Read::Bytes(length) if length >= FULL_PIPE_BYTES => {}
            // The pipe was emptied: a further read would only say so. Readiness is kept, so nothing can be missed.
            Read::Bytes(_) => return Moved::Some,
            Read::Nothing => {
                ready.clear_ready();
                return Moved::Some;
            }
            Read::End => return Moved::All(index),
        }
    }
    Moved::Heavy
}

enum Read {
    Bytes(usize),
    Nothing,
    End,
}

fn move_once(pipe: &OwnedFd, index: usize, recorder: &SharedRecorder) -> Read {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(BUFFER_BYTES, 0);
        loop {
            match rustix::io::read(pipe, buffer.as_mut_slice()) {
                Ok(0) => return Read::End,
                Ok(length) => {
                    if length == FULL_PIPE_BYTES {
                        enlarge_pipe(pipe);
                    }
                    lock(recorder).write(STREAMS[index], &buffer[..length]);
                    return Read::Bytes(length);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Read::Nothing,
                Err(_) => return Read::End,
            }
        }
    })
}

/// When a thread of its own gives a step's pipes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Quiet,
    Stopped,
}

/// Reads until both pipes have ended, or are quiet, or the thread is told to stop.
fn move_heavy(mut pipes: Pipes, recorder: &SharedRecorder, stop: &OwnedFd, until: Until) -> Pipes {
    loop {
        let open: Vec<usize> = (0..2).filter(|index| pipes[*index].is_some()).collect();
        if open.is_empty() {
            return pipes;
        }
        let mut waiting = vec![PollFd::new(stop, PollFlags::IN)];
        waiting.extend(pipes.iter().flatten().map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)));
        let quiet = Timespec::try_from(QUIET).ok().filter(|_| until == Until::Quiet);
        let ready = match rustix::event::poll(&mut waiting, quiet.as_ref()) {
            Ok(0) => return pipes,
            Ok(_) => waiting.iter().map(|waiting| !waiting.revents().is_empty()).collect::<Vec<_>>(),
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return pipes,
        };
        for (place, index) in open.into_iter().enumerate() {
            let Some(pipe) = pipes[index].as_ref().filter(|_| ready[place + 1]) else { continue };
            if matches!(move_once(pipe, index, recorder), Read::End) {
                pipes[index] = None;
            }
        }
        if ready[0] {
            return pipes;
        }
        if until == Until::Stopped {
            lock(recorder).flush();
        }
    }
}
