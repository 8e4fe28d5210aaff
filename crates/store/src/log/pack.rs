//! The file end of a writer: the pack, the thread that compresses, the queue before it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::compress::{Encoder, FrameBuffer, Gauge, SealedFrame};
use super::frame::{self, Ends, HEADER_BYTES, Header, PACK_HEADER_BYTES, Position};
use super::index::{self, Entry, SideFile};
use super::{FRAME_BYTES, LogError, StreamKey};

/// Full frames that may wait for the compressor. At the bound the one who writes waits, and so, through its pipe,
/// does the step that prints.
pub const FRAMES_QUEUED_MAX: usize = 8;

/// Frames with at most this much content are compressed by the caller rather than handed to the thread.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Empty buffers that are kept for the next frame.
const BUFFERS_KEPT_MAX: usize = FRAMES_QUEUED_MAX + 2;

/// Compression contexts that are kept for the next caller; each takes about 1 MiB once used.
const ENCODERS_KEPT_MAX: usize = 2;

/// A frame with less content is worth being joined with its neighbour.
pub(super) const SMALL_FRAME_BYTES: u64 = FRAME_BYTES as u64 / 4;

/// Where a step's stream goes on when it is opened again.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamEnd {
    pub next_line: u64,
    pub next_byte: u64,
    /// The latest time in it.
    pub time_us: u64,
    pub ends: Ends,
    /// Whether it has been closed.
    pub position: Position,
    /// Where its last frame begins, in bytes of the step.
    pub frame_byte: u64,
}

impl Default for StreamEnd {
    fn default() -> Self {
        let position = Position::Inner;
        Self { next_line: 0, next_byte: 0, time_us: 0, ends: Ends::default(), position, frame_byte: 0 }
    }
}

impl StreamEnd {
    /// Behind the frame with this header.
    pub fn after(header: &Header) -> Self {
        Self {
            next_line: header.end_line(),
            next_byte: header.end_byte(),
            time_us: header.last_time_us,
            ends: header.ends,
            position: header.position,
            frame_byte: header.first_byte,
        }
    }
}

/// Who compresses large frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compressing {
    /// A thread of the pack, behind a queue.
    Thread,
    /// Whoever writes.
    Caller,
}

/// Buffers and compression contexts for the next frame, of whichever pack shares them.
#[derive(Default)]
pub(super) struct Pool {
    gauge: Arc<Gauge>,
    buffers: Mutex<Vec<FrameBuffer>>,
    encoders: Mutex<Vec<Encoder>>,
}

impl Pool {
    pub fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// An empty buffer, used before if possible.
    pub fn buffer(&self) -> FrameBuffer {
        lock(&self.buffers).pop().unwrap_or_else(|| self.empty())
    }

    /// A buffer without room.
    pub fn empty(&self) -> FrameBuffer {
        FrameBuffer::new(Arc::clone(&self.gauge))
    }

    fn keep_buffer(&self, mut buffer: FrameBuffer) {
        buffer.clear();
        let mut buffers = lock(&self.buffers);
        if buffers.len() < BUFFERS_KEPT_MAX {
            buffers.push(buffer);
        }
    }

    fn encoder(&self) -> Encoder {
        lock(&self.encoders).pop().unwrap_or_else(Encoder::new)
    }

    fn keep_encoder(&self, encoder: Encoder) {
        let mut encoders = lock(&self.encoders);
        if encoders.len() < ENCODERS_KEPT_MAX {
            encoders.push(encoder);
        }
    }
}

enum StreamUse {
    Open,
    Ended(StreamEnd),
}

/// What is in the air for one step: frames that the thread has not written yet, and the first failure.
#[derive(Debug, Default)]
pub(super) struct Flight {
    pending: Mutex<usize>,
    landed: Condvar,
    has_failed: AtomicBool,
    failure: Mutex<Option<LogError>>,
}

impl Flight {
    /// Waits until every frame handed to the thread has been dealt with.
    pub fn wait(&self) {
        let mut pending = lock(&self.pending);
        while *pending > 0 {
            pending = self.landed.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn is_empty(&self) -> bool {
        *lock(&self.pending) == 0
    }

    /// The first failure, if there was one.
    pub fn failure(&self) -> Option<LogError> {
        if !self.has_failed.load(Ordering::Acquire) {
            return None;
        }
        lock(&self.failure).clone()
    }

    fn fail(&self, error: LogError) {
        lock(&self.failure).get_or_insert(error);
        self.has_failed.store(true, Ordering::Release);
    }
}

/// A frame in the queue. However it leaves the queue, also by a panic, it counts as landed, so nobody waits for ever.
struct Queued {
    frame: Option<SealedFrame>,
    flight: Arc<Flight>,
}

impl Queued {
    fn new(frame: SealedFrame, flight: &Arc<Flight>) -> Self {
        *lock(&flight.pending) += 1;
        Self { frame: Some(frame), flight: Arc::clone(flight) }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        *lock(&self.flight.pending) -= 1;
        self.flight.landed.notify_all();
    }
}

struct End {
    file: File,
    /// Where the next frame goes. What stands behind it, if anything, is the rest of a write that failed.
    offset: u64,
    side: SideFile,
}

/// What the thread and the callers share.
struct Shared {
    end: Mutex<End>,
    pool: Arc<Pool>,
}

struct Compressor {
    queue: SyncSender<Queued>,
    thread: JoinHandle<()>,
}

/// One pack that is being written.
pub(super) struct Pack {
    shared: Arc<Shared>,
    streams: Mutex<HashMap<StreamKey, StreamUse>>,
    compressing: Compressing,
    /// How many small frames follow a small one of their step.
    joinable: AtomicUsize,
    /// Started with the first large frame: most builds print little.
    compressor: Mutex<Option<Compressor>>,
}

impl Pack {
    /// Opens or creates a pack for writing; cuts off a torn end.
    pub fn open(path: &Path, pool: Arc<Pool>, compressing: Compressing) -> Result<Self, LogError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(LogError::Busy(path.to_owned())),
            Err(std::fs::TryLockError::Error(error)) => return Err(error.into()),
        }
        index::check_pack(&file, path)?;
        let length = file.metadata()?.len();
        let mut entries = Vec::new();
        if length < PACK_HEADER_BYTES as u64 {
            file.write_all_at(&frame::pack_header(), 0)?;
        }
        let (offset, _) = index::scan(&file, 0, length, &mut entries)?;
        if length > offset {
            file.set_len(offset)?;
        }
        let end = End { file, offset, side: SideFile::new(path, &entries) };
        let (streams, joinable) = stream_ends(&entries);
        Ok(Self {
            shared: Arc::new(Shared { end: Mutex::new(end), pool }),
            streams: Mutex::new(streams),
            compressing,
            joinable: AtomicUsize::new(joinable),
            compressor: Mutex::new(None),
        })
    }

    /// Where a step's stream ends, as far as it is not being written.
    pub fn stream_end(&self, key: StreamKey) -> StreamEnd {
        match lock(&self.streams).get(&key) {
            Some(StreamUse::Ended(end)) => *end,
            Some(StreamUse::Open) | None => StreamEnd::default(),
        }
    }

    /// Where the next frame goes: the length of the pack.
    pub fn length(&self) -> u64 {
        lock(&self.shared.end).offset
    }

    /// How many frames the pack would have less if small neighbours were joined, about.
    pub fn joinable(&self) -> usize {
        self.joinable.load(Ordering::Relaxed)
    }

    /// Marks a stream as being written; `None` if it is so already.
    pub fn claim(&self, key: StreamKey) -> Option<StreamEnd> {
        match lock(&self.streams).insert(key, StreamUse::Open) {
            None => Some(StreamEnd::default()),
            Some(StreamUse::Ended(end)) => Some(end),
            Some(StreamUse::Open) => None,
        }
    }

    pub fn release(&self, key: StreamKey, end: StreamEnd) {
        lock(&self.streams).insert(key, StreamUse::Ended(end));
    }

    pub fn pool(&self) -> &Arc<Pool> {
        &self.shared.pool
    }

    /// Appends a frame of another pack as it stands there.
    pub fn append_stored(&self, header: &Header, stored: &mut [u8]) -> Result<(), LogError> {
        Ok(self.shared.append(header, stored)?)
    }

    /// Has the frame appended: small ones at once, large ones, and those behind them, by the thread.
    pub fn append(&self, frame: SealedFrame, before: &StreamEnd, flight: &Arc<Flight>) {
        let is_small = |length: u64| length < SMALL_FRAME_BYTES;
        if is_small(frame.buffer.content.len() as u64) && is_small(before.next_byte - before.frame_byte) {
            self.joinable.fetch_add(usize::from(before.next_byte > 0), Ordering::Relaxed);
        }
        let inline = self.compressing == Compressing::Caller || frame.buffer.content.len() <= INLINE_BYTES_MAX;
        if inline && flight.is_empty() {
            return self.append_inline(frame, flight);
        }
        let Some(queue) = self.queue() else {
            flight.wait();
            return self.append_inline(frame, flight);
        };
        if let Err(unsent) = queue.send(Queued::new(frame, flight)) {
            let mut queued = unsent.0;
            let frame = queued.frame.take();
            drop(queued);
            flight.wait();
            if let Some(frame) = frame {
                self.append_inline(frame, flight);
            }
        }
    }

    fn append_inline(&self, frame: SealedFrame, flight: &Flight) {
        let mut encoder = self.shared.pool.encoder();
        self.shared.write(&mut encoder, frame, flight);
        self.shared.pool.keep_encoder(encoder);
    }

    /// The queue to the thread, which is started if need be; `None` if the system has no thread for us.
    fn queue(&self) -> Option<SyncSender<Queued>> {
        let mut compressor = lock(&self.compressor);
        if compressor.is_none() {
            let (queue, frames) = sync_channel(FRAMES_QUEUED_MAX);
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("log-compress".into()).spawn(move || shared.drain(&frames));
            *compressor = Some(Compressor { queue, thread: thread.ok()? });
        }
        compressor.as_ref().map(|compressor| compressor.queue.clone())
    }

    /// Waits until what has been appended is on the disk.
    pub fn sync(&self) -> Result<(), LogError> {
        let file = lock(&self.shared.end).file.try_clone()?;
        Ok(file.sync_data()?)
    }
}

impl Drop for Pack {
    fn drop(&mut self) {
        if let Some(Compressor { queue, thread }) = lock(&self.compressor).take() {
            drop(queue);
            // A panic there has been printed, and its frame shows as a gap.
            let _ = thread.join();
        }
        lock(&self.shared.end).side.finish();
    }
}

impl Shared {
    fn drain(&self, frames: &Receiver<Queued>) {
        let mut encoder = Encoder::new();
        for mut queued in frames {
            if let Some(frame) = queued.frame.take() {
                self.write(&mut encoder, frame, &queued.flight);
            }
        }
    }

    /// Encodes and appends a frame, and keeps its buffer for the next.
    fn write(&self, encoder: &mut Encoder, mut frame: SealedFrame, flight: &Flight) {
        let (header, stored) = encoder.encode(&mut frame);
        if let Err(error) = self.append(&header, stored) {
            flight.fail(error.into());
        }
        self.pool.keep_buffer(frame.buffer);
    }

    /// A frame that cannot be written is lost, and its bytes show as a gap; the next one is tried again, since
    /// somebody may have made room meanwhile.
    fn append(&self, header: &frame::Header, stored: &mut [u8]) -> io::Result<()> {
        let mut end = lock(&self.end);
        let offset = end.offset;
        let encoded = frame::encode_header(header, offset);
        stored[..HEADER_BYTES].copy_from_slice(&encoded);
        if let Err(error) = end.file.write_all_at(stored, offset) {
            // If even this fails, the next frame is written over what stands there.
            let _ = end.file.set_len(offset);
            return Err(error);
        }
        end.offset += stored.len() as u64;
        end.side.note(offset, &encoded);
        Ok(())
    }
}

/// Where each stream ends, and how many small frames follow a small one.
fn stream_ends(entries: &[Entry]) -> (HashMap<StreamKey, StreamUse>, usize) {
    let mut ends = HashMap::new();
    let mut joinable = 0;
    for Entry { header, .. } in entries {
        let before = ends.insert(header.key, StreamUse::Ended(StreamEnd::after(header)));
        if let Some(StreamUse::Ended(before)) = before {
            let small = |length: u64| length < SMALL_FRAME_BYTES;
            let length = before.next_byte.saturating_sub(before.frame_byte);
            joinable += usize::from(small(length) && small(u64::from(header.content_length)));
        }
    }
    (ends, joinable)
}

/// What a panic left behind under one of our locks is whole: each is changed in one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
