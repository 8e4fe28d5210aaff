//! From a filled frame buffer to the bytes that stand in the pack, with reused contexts and buffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::frame::{self, Codec, Ends, HEADER_BYTES, Header, Position, Run};
use super::{FRAME_BYTES, StreamKey};

/// Payloads under this size are stored as they are: compressing them costs more than it saves.
const COMPRESSED_BYTES_MIN: usize = 200;

/// The fastest level that is not "negative"; 440 to 490 MB/s on one core, a quarter to a fifth of the size.
const LEVEL: i32 = 1;

/// Room beside the content for the run table of an ordinary frame, so that adding it does not double the buffer.
const TABLE_BYTES_RESERVED: usize = 16 * 1024;

/// Counts the bytes that all buffers of a pack hold now and held at most.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    held: AtomicUsize,
    peak: AtomicUsize,
}

impl Gauge {
    /// Replaces what one owner holds.
    pub fn change(&self, before: usize, after: usize) {
        if before == after {
            return;
        }
        let held = self.held.fetch_add(after, Ordering::Relaxed) + after;
        self.held.fetch_sub(before, Ordering::Relaxed);
        self.peak.fetch_max(held - before.min(held), Ordering::Relaxed);
    }

    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

/// The content and runs of one frame while it is filled, queued, and again.
#[derive(Debug)]
pub(super) struct FrameBuffer {
    pub content: Vec<u8>,
    pub runs: Vec<Run>,
    gauge: Arc<Gauge>,
    counted: usize,
}

impl FrameBuffer {
    pub fn new(gauge: Arc<Gauge>) -> Self {
        Self { content: Vec::new(), runs: Vec::new(), gauge, counted: 0 }
    }

    /// Appends content. Small frames stay small; one that grows gets its full room at once.
    pub fn extend(&mut self, bytes: &[u8]) {
        let length = self.content.len() + bytes.len();
        if length > self.content.capacity() {
            if length > FRAME_BYTES / 4 {
                self.content.reserve_exact(FRAME_BYTES + TABLE_BYTES_RESERVED - self.content.len());
            } else {
                self.content.reserve(bytes.len());
            }
            self.recount();
        }
        self.content.extend_from_slice(bytes);
    }

    pub fn clear(&mut self) {
        self.content.clear();
        self.runs.clear();
        self.recount();
    }

    fn recount(&mut self) {
        let now = self.content.capacity() + self.runs.capacity() * size_of::<Run>();
        self.gauge.change(self.counted, now);
        self.counted = now;
    }
}

impl Drop for FrameBuffer {
    fn drop(&mut self) {
        self.gauge.change(self.counted, 0);
    }
}

/// A frame that takes no more lines.
#[derive(Debug)]
pub(super) struct SealedFrame {
    pub key: StreamKey,
    pub position: Position,
    pub ends: Ends,
    pub first_line: u64,
    pub line_count: u32,
    pub first_byte: u64,
    pub first_time_us: u64,
    pub last_time_us: u64,
    pub buffer: FrameBuffer,
}

/// A compression context and its output buffer.
pub(super) struct Encoder {
    context: Option<zstd::bulk::Compressor<'static>>,
    out: Vec<u8>,
}

impl Encoder {
    /// Without memory for a context, frames are stored as they are.
    pub fn new() -> Self {
        Self { context: zstd::bulk::Compressor::new(LEVEL).ok(), out: Vec::new() }
    }

    /// Returns the header and the frame's bytes, whose first [`HEADER_BYTES`] are for the header: that can only be
    /// written when the frame's place is known.
    pub fn encode(&mut self, frame: &mut SealedFrame) -> (Header, &mut [u8]) {
        let content_length = frame.buffer.content.len();
        frame::encode_runs(&frame.buffer.runs, frame.first_time_us, &mut frame.buffer.content);
        let payload = &frame.buffer.content;
        let (codec, stored_length) = match self.compress(payload) {
            Some(length) => (Codec::Zstd, length),
            None => {
                self.out.resize(HEADER_BYTES, 0);
                self.out.extend_from_slice(payload);
                (Codec::Raw, payload.len())
            }
        };
        let stored = &mut self.out[..HEADER_BYTES + stored_length];
        let length = |bytes: usize| u32::try_from(bytes).expect("a frame is far smaller than 4 GiB");
        let header = Header {
            key: frame.key,
            codec,
            position: frame.position,
            ends: frame.ends,
            first_line: frame.first_line,
            line_count: frame.line_count,
            first_byte: frame.first_byte,
            content_length: length(content_length),
            raw_length: length(payload.len()),
            stored_length: length(stored_length),
            first_time_us: frame.first_time_us,
            last_time_us: frame.last_time_us,
            payload_sum: frame::sum(&stored[HEADER_BYTES..]),
        };
        (header, stored)
    }

    /// Compresses behind the place of the header. `None` if that does not pay.
    fn compress(&mut self, payload: &[u8]) -> Option<usize> {
        if payload.len() < COMPRESSED_BYTES_MIN {
            return None;
        }
        let room = HEADER_BYTES + zstd::zstd_safe::compress_bound(payload.len());
        if self.out.len() < room {
            self.out.resize(room, 0);
        }
        let length = self.context.as_mut()?.compress_to_buffer(payload, &mut self.out[HEADER_BYTES..]).ok()?;
        (length < payload.len()).then_some(length)
    }
}
