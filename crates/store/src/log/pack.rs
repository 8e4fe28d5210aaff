//! The file end of a writer: the pack, the thread that compresses, the queue before it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::compress::{Encoder, FrameBuffer, Gauge, SealedFrame};
use super::frame::{self, HEADER_BYTES, PACK_HEADER_BYTES};
use super::index::{self, Entry, SideFile};
use super::{LogError, StreamKey};

/// Full frames that may wait for the compressor. At the bound the one who writes waits, and so, through its pipe,
/// does the step that prints.
pub const FRAMES_QUEUED_MAX: usize = 8;

/// Frames with at most this much content are compressed by the caller rather than handed to the thread.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Empty buffers that are kept for the next frame.
const BUFFERS_KEPT_MAX: usize = FRAMES_QUEUED_MAX + 2;

/// Where numbering goes on when a step's stream is opened again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StreamEnd {
    pub next_line: u64,
    pub next_byte: u64,
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
    buffers: Mutex<Vec<FrameBuffer>>,
}

struct Compressor {
    queue: SyncSender<Queued>,
    thread: JoinHandle<()>,
}

/// One pack that is being written.
pub(super) struct Pack {
    shared: Arc<Shared>,
    gauge: Arc<Gauge>,
    streams: Mutex<HashMap<StreamKey, StreamUse>>,
    /// The context of callers with small frames.
    inline: Mutex<Encoder>,
    /// Started with the first large frame: most builds print little.
    compressor: Mutex<Option<Compressor>>,
}

impl Pack {
    /// Opens or creates a pack for writing; cuts off a torn end.
    pub fn open(path: &Path) -> Result<Self, LogError> {
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
        let gauge = Arc::new(Gauge::default());
        let end = End { file, offset, side: SideFile::new(path, &entries) };
        Ok(Self {
            shared: Arc::new(Shared { end: Mutex::new(end), buffers: Mutex::default() }),
            gauge,
            streams: Mutex::new(stream_ends(&entries)),
            inline: Mutex::new(Encoder::new()),
            compressor: Mutex::new(None),
        })
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

    pub fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// An empty buffer, used before if possible.
    pub fn buffer(&self) -> FrameBuffer {
        lock(&self.shared.buffers).pop().unwrap_or_else(|| FrameBuffer::new(Arc::clone(&self.gauge)))
    }

    /// Has the frame appended: small ones at once, large ones, and those behind them, by the thread.
    pub fn append(&self, frame: SealedFrame, flight: &Arc<Flight>) {
        if frame.buffer.content.len() <= INLINE_BYTES_MAX && flight.is_empty() {
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
        self.shared.write(&mut lock(&self.inline), frame, flight);
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
        let mut buffer = frame.buffer;
        buffer.clear();
        let mut buffers = lock(&self.buffers);
        if buffers.len() < BUFFERS_KEPT_MAX {
            buffers.push(buffer);
        }
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

fn stream_ends(entries: &[Entry]) -> HashMap<StreamKey, StreamUse> {
    let mut ends = HashMap::new();
    for Entry { header, .. } in entries {
        let end = StreamEnd { next_line: header.end_line(), next_byte: header.end_byte() };
        ends.insert(header.key, StreamUse::Ended(end));
    }
    ends
}

/// What a panic left behind under one of our locks is whole: each is changed in one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
