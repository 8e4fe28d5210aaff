//! The bytes of a pack: its file header, frame headers, run tables. Nothing here does I/O.
//!
//! ```text
//! pack    = "RWLOGPAK" version:u32 zero:u32 frame*
//! frame   = header (88 bytes, little-endian) payload (stored_length bytes)
//! payload = content run*            stored as it is, or as one zstd frame
//! run     = tag:u8 time_delta:varint byte_length:varint
//! ```
//!
//! The content of all runs stands together before the table, so that a writer copies each byte once and a reader
//! can search it in one piece. The number of rows of a run is not stored: it follows from the content.

use super::{Stream, StreamKey};

/// A frame is finished when it holds this many bytes of content.
pub const FRAME_BYTES: usize = 256 * 1024;

/// A frame is finished when it has this many runs (reads that brought something), however few bytes they hold.
pub const RUNS_MAX: usize = 16 * 1024;

/// Upper bound of a payload before and after compression, for what a foreign file may make us allocate.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

pub(super) const PACK_MAGIC: [u8; 8] = *b"RWLOGPAK";
pub(super) const FORMAT_VERSION: u32 = 1;
/// Length of the header of a pack.
pub(super) const PACK_HEADER_BYTES: usize = 16;
pub(super) const FRAME_MAGIC: [u8; 4] = *b"RWLf";
/// Length of the header of a frame.
pub(super) const HEADER_BYTES: usize = 88;

const FLAG_ZSTD: u16 = 1;
const FLAG_LAST: u16 = 2;
/// From here on one bit for each stream: its last line has no end yet.
const FLAG_OPEN_SHIFT: u16 = 2;
/// Two bits: the stream of the last row of the frame, counted from 1, if that row has no end yet.
const FLAG_ROW_SHIFT: u16 = 5;

/// How a payload is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Raw,
    Zstd,
}

/// Whether more frames of the same step follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    Inner,
    /// The stream was closed in good order after this frame.
    Last,
}

/// How the last stored byte of a stream ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LastEnd {
    #[default]
    LineFeed,
    Open,
}

/// What stands unfinished in the streams of a step, so that whoever goes on after a restart joins rows as if there had
/// been none. Packs of before this was written have zeros, which read as "nothing".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    pub last: [LastEnd; 3],
    /// The stream of the last row, if that has no end yet.
    pub open_row: Option<Stream>,
}

impl Ends {
    fn flags(self) -> u16 {
        let open = Stream::ALL.iter().filter(|stream| self.last[stream.index()] == LastEnd::Open);
        let open = open.fold(0, |flags, stream| flags | 1 << (FLAG_OPEN_SHIFT + stream.index() as u16));
        open | self.open_row.map_or(0, |stream| (stream.index() as u16 + 1) << FLAG_ROW_SHIFT)
    }

    fn of_flags(flags: u16) -> Self {
        let last = Stream::ALL.map(|stream| match flags >> (FLAG_OPEN_SHIFT + stream.index() as u16) & 1 {
            0 => LastEnd::LineFeed,
            _ => LastEnd::Open,
        });
        let open_row = usize::from(flags >> FLAG_ROW_SHIFT & 3).checked_sub(1).map(|index| Stream::ALL[index]);
        Self { last, open_row }
    }
}

/// The header of a frame: all that an index needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub key: StreamKey,
    pub codec: Codec,
    pub position: Position,
    /// How its streams stand after it.
    pub ends: Ends,
    /// The number of the first row in the frame, also if that row began in an earlier frame.
    pub first_line: u64,
    /// Rows that have a part in this frame.
    pub line_count: u32,
    /// How many bytes of content of this step stand in earlier frames.
    pub first_byte: u64,
    /// Bytes of content, without the run table.
    pub content_length: u32,
    /// Bytes of content and run table.
    pub raw_length: u32,
    /// Bytes in the file after the header.
    pub stored_length: u32,
    pub first_time_us: u64,
    pub last_time_us: u64,
    /// First eight bytes of the BLAKE3 of the stored bytes.
    pub payload_sum: u64,
}

impl Header {
    /// The number after the last row.
    pub fn end_line(&self) -> u64 {
        self.first_line.saturating_add(u64::from(self.line_count))
    }

    /// How many bytes of content stand in this and earlier frames.
    pub fn end_byte(&self) -> u64 {
        self.first_byte.saturating_add(u64::from(self.content_length))
    }

    /// Header and payload.
    pub fn frame_length(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.stored_length)
    }
}

/// The first eight bytes of the BLAKE3 of the bytes.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    first_eight(&blake3::hash(bytes))
}

fn first_eight(hash: &blake3::Hash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The header's own sum covers the place of the frame too: what a user prints can never be taken for a frame,
/// nor can the rest of an older frame below a newer one.
fn header_sum(bytes: &[u8], offset: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes).update(&offset.to_le_bytes());
    first_eight(&hasher.finalize())
}

/// The header of a new pack.
pub(super) fn pack_header() -> [u8; PACK_HEADER_BYTES] {
    let mut bytes = [0; PACK_HEADER_BYTES];
    bytes[..8].copy_from_slice(&PACK_MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes
}

/// Writes the header of a frame that will stand at `offset` in the pack.
pub(super) fn encode_header(header: &Header, offset: u64) -> [u8; HEADER_BYTES] {
    let flags = match header.codec {
        Codec::Raw => 0,
        Codec::Zstd => FLAG_ZSTD,
    } | match header.position {
        Position::Inner => 0,
        Position::Last => FLAG_LAST,
    } | header.ends.flags();
    let mut bytes = [0; HEADER_BYTES];
    let mut at = 0;
    let mut put = |field: &[u8]| {
        bytes[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    };
    put(&FRAME_MAGIC);
    put(&flags.to_le_bytes());
    put(&header.key.step.to_le_bytes());
    put(&header.key.attempt.to_le_bytes());
    put(&header.line_count.to_le_bytes());
    put(&header.first_line.to_le_bytes());
    put(&header.first_byte.to_le_bytes());
    put(&header.content_length.to_le_bytes());
    put(&header.raw_length.to_le_bytes());
    put(&header.stored_length.to_le_bytes());
    put(&[0; 4]);
    put(&header.first_time_us.to_le_bytes());
    put(&header.last_time_us.to_le_bytes());
    put(&header.payload_sum.to_le_bytes());
    put(&[0; 8]);
    let sum = header_sum(&bytes[..HEADER_BYTES - 8], offset);
    bytes[HEADER_BYTES - 8..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Reads the header of the frame at `offset`; `None` if these bytes are not one.
pub(super) fn decode_header(bytes: &[u8; HEADER_BYTES], offset: u64) -> Option<Header> {
    let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | (u64::from(u32_at(at + 4)) << 32);
    if bytes[..4] != FRAME_MAGIC || u64_at(HEADER_BYTES - 8) != header_sum(&bytes[..HEADER_BYTES - 8], offset) {
        return None;
    }
    let flags = u16_at(4);
    let header = Header {
        key: StreamKey { attempt: u32_at(8), step: u16_at(6) },
        codec: if flags & FLAG_ZSTD == 0 { Codec::Raw } else { Codec::Zstd },
        position: if flags & FLAG_LAST == 0 { Position::Inner } else { Position::Last },
        ends: Ends::of_flags(flags),
        line_count: u32_at(12),
        first_line: u64_at(16),
        first_byte: u64_at(24),
        content_length: u32_at(32),
        raw_length: u32_at(36),
        stored_length: u32_at(40),
        first_time_us: u64_at(48),
        last_time_us: u64_at(56),
        payload_sum: u64_at(64),
    };
    let bounded = |length: u32| length as usize <= PAYLOAD_BYTES_MAX;
    let whole = bounded(header.raw_length)
        && bounded(header.stored_length)
        && header.content_length <= header.raw_length
        && (header.codec == Codec::Zstd || header.raw_length == header.stored_length);
    whole.then_some(header)
}

/// How the first row of a run stands to what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joint {
    /// A new line begins.
    Fresh,
    /// It goes on with a line of the same stream, and another stream wrote in between: a new row.
    Continued,
    /// It goes on with the row before it.
    SameRow,
}

/// Bytes of one stream that came at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub stream: Stream,
    pub joint: Joint,
    pub time_us: u64,
    /// Bytes of content; at least 1.
    pub length: u32,
}

/// Appends the run table to the content.
pub(super) fn encode_runs(runs: &[Run], first_time_us: u64, payload: &mut Vec<u8>) {
    let mut time_us = first_time_us;
    for run in runs {
        let joint = match run.joint {
            Joint::Fresh => 0,
            Joint::Continued => 1,
            Joint::SameRow => 2,
        };
        payload.push(u8::try_from(run.stream.index()).expect("there are three streams") | (joint << 2));
        put_varint(run.time_us.saturating_sub(time_us), payload);
        put_varint(u64::from(run.length), payload);
        time_us = run.time_us;
    }
}

/// Reads a run table. `None` if it is not one, or if the lengths do not add up to `content_length`.
pub(super) fn decode_runs(mut table: &[u8], first_time_us: u64, content_length: usize) -> Option<Vec<Run>> {
    let mut runs = Vec::new();
    let mut time_us = first_time_us;
    let mut content = 0usize;
    while let Some((&tag, rest)) = table.split_first() {
        table = rest;
        let stream = *Stream::ALL.get(usize::from(tag & 3))?;
        let joint = match tag >> 2 {
            0 => Joint::Fresh,
            1 => Joint::Continued,
            2 => Joint::SameRow,
            _ => return None,
        };
        time_us = time_us.checked_add(take_varint(&mut table)?)?;
        let length = u32::try_from(take_varint(&mut table)?).ok().filter(|length| *length > 0)?;
        content = content.checked_add(length as usize)?;
        if runs.len() == RUNS_MAX || content > content_length {
            return None;
        }
        runs.push(Run { stream, joint, time_us, length });
    }
    (content == content_length).then_some(runs)
}

/// Appends a number, seven bits a byte, the lowest first (LEB128).
pub(super) fn put_varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// Takes such a number from the beginning. `None` if it does not end.
pub(super) fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
