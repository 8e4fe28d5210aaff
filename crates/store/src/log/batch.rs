//! What travels from a worker to a server, and into shared storage: pieces of the output of one step.
//!
//! ```text
//! body  = batch*
//! batch = "RWb1" length:u32 sum:u64 rest            length and sum (first eight bytes of BLAKE3) are those of `rest`
//! rest  = flags:u8 build attempt step first_byte [lost_lines] first_time content_length payload_length payload
//! payload = content run*                            stored as it is, or as one zstd frame
//! run   = stream:u8 time_delta byte_length          a run is what one read brought
//! ```
//!
//! Numbers without a type are LEB128. Decoding is bounded by the named limits and refuses what it does not know; it
//! never panics. A batch says where it stands by `first_byte`, which counts the bytes of all streams of the step
//! together, after masking, from 0: so that repeats are cut and gaps are seen.

use graph::BuildId;

use super::frame::{self, put_varint, take_varint};
use super::{Stream, StreamKey};

/// The most bytes of content in a batch.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// The most runs in a batch.
pub const BATCH_RUNS_MAX: usize = 64 * 1024;
/// The most batches that one body may hold.
pub const BATCHES_MAX: usize = 4096;

/// Payloads under this size are stored as they are.
const COMPRESSED_BYTES_MIN: usize = 300;
/// zstd's level, as for packs.
const LEVEL: i32 = 1;
/// A run takes at most a byte and two numbers of 64 bits.
const RUN_BYTES_MAX: usize = 21;
const PAYLOAD_BYTES_MAX: usize = BATCH_BYTES_MAX + BATCH_RUNS_MAX * RUN_BYTES_MAX;
/// Room for the fields before the payload.
const FIELDS_BYTES_MAX: usize = 128;
const MAGIC: [u8; 4] = *b"RWb1";
const HEAD_BYTES: usize = 16;

const FLAG_ZSTD: u8 = 1;
const FLAG_LOST: u8 = 2;
const FLAG_END_CLOSED: u8 = 4;
const FLAG_END_CUT: u8 = 8;

/// Why no more comes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// It was closed in good order: all of it is there.
    Closed,
    /// Its writer died: readers show a gap at its end.
    CutShort,
}

/// Bytes of one stream that came at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRun {
    /// Who wrote them.
    pub stream: Stream,
    /// Microseconds since the Unix epoch; in a batch it never goes back.
    pub time_us: u64,
    /// At least 1.
    pub bytes: u32,
}

/// Some output of one step, masked. Its runs together are exactly its content.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    /// Whose build.
    pub build: BuildId,
    /// Whose step.
    pub key: StreamKey,
    /// How many bytes of the step come before, over all streams.
    pub first_byte: u64,
    /// Set if the bytes between those sent before and `first_byte` are lost for ever: how many lines that were, about.
    pub lost_lines: Option<u64>,
    /// Set if no more comes.
    pub end: Option<StepEnd>,
    runs: Vec<BatchRun>,
    content: Vec<u8>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { build, key, first_byte, lost_lines, end, runs, content } = self;
        write!(f, "Batch({build:?} {}.{} at {first_byte}", key.attempt, key.step)?;
        write!(f, " lost {lost_lines:?} end {end:?}: {} bytes in {} runs)", content.len(), runs.len())
    }
}

/// Why bytes are no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// They end too early, or their sum is wrong.
    #[error("the log batch at byte {at} is damaged or cut off")]
    Damaged {
        /// Where it begins in the body.
        at: usize,
    },
    /// A later Ropewalk wrote them, or nobody did.
    #[error("at byte {at} there is no log batch of a known form")]
    Unknown {
        /// Where it was looked for.
        at: usize,
    },
    /// Over one of the limits of this module.
    #[error(
        "the log batch at byte {at} is over the limit of {BATCH_BYTES_MAX} bytes, or the body over {BATCHES_MAX} batches"
    )]
    TooLarge {
        /// Where it begins in the body.
        at: usize,
    },
}

impl Batch {
    /// A batch without output. As it is, it only asks how far the server is.
    #[must_use]
    pub fn new(build: BuildId, key: StreamKey, first_byte: u64) -> Self {
        Self { build, key, first_byte, lost_lines: None, end: None, runs: Vec::new(), content: Vec::new() }
    }

    /// Adds as much as there is room for, and returns the rest. A time before the last one counts as the last one.
    pub fn push<'a>(&mut self, stream: Stream, time_us: u64, bytes: &'a [u8]) -> &'a [u8] {
        let time_us = self.runs.last().map_or(time_us, |last| time_us.max(last.time_us));
        let extends = |run: &&mut BatchRun| run.stream == stream && run.time_us == time_us;
        let (now, rest) = bytes.split_at(bytes.len().min(BATCH_BYTES_MAX - self.content.len()));
        let length = u32::try_from(now.len()).expect("a batch is far smaller than 4 GiB");
        let full = self.runs.len() >= BATCH_RUNS_MAX;
        match self.runs.last_mut().filter(extends) {
            Some(run) => run.bytes += length,
            None if full => return bytes,
            None if length == 0 => return rest,
            None => self.runs.push(BatchRun { stream, time_us, bytes: length }),
        }
        self.content.extend_from_slice(now);
        rest
    }

    /// The bytes of all runs, one behind the other.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Each run and its bytes, in order.
    pub fn runs(&self) -> impl Iterator<Item = (BatchRun, &[u8])> {
        let mut rest = self.content.as_slice();
        self.runs.iter().map(move |run| {
            let (bytes, after) = rest.split_at(run.bytes as usize);
            rest = after;
            (*run, bytes)
        })
    }

    /// How many bytes of the step come up to the end of the batch.
    #[must_use]
    pub fn next_byte(&self) -> u64 {
        self.first_byte.saturating_add(self.content.len() as u64)
    }

    /// What follows the first `cut` bytes of it.
    #[must_use]
    pub fn after(&self, cut: usize) -> Self {
        let mut after = Self::new(self.build, self.key, self.first_byte.saturating_add(cut as u64));
        after.end = self.end;
        let mut skip = cut;
        for (run, bytes) in self.runs() {
            let bytes = &bytes[skip.min(bytes.len())..];
            skip = skip.saturating_sub(run.bytes as usize);
            after.push(run.stream, run.time_us, bytes);
        }
        after
    }

    /// Appends the batch to a body.
    pub fn encode(&self, body: &mut Vec<u8>) {
        let start = body.len();
        body.extend_from_slice(&[0; HEAD_BYTES]);
        let mut payload = Vec::with_capacity(self.content.len() + self.runs.len() * 4);
        payload.extend_from_slice(&self.content);
        let first_time_us = self.runs.first().map_or(0, |run| run.time_us);
        let mut time_us = first_time_us;
        for run in &self.runs {
            payload.push(run.stream.index() as u8);
            put_varint(run.time_us - time_us, &mut payload);
            put_varint(u64::from(run.bytes), &mut payload);
            time_us = run.time_us;
        }
        let raw_length = payload.len();
        let compressed = (raw_length >= COMPRESSED_BYTES_MIN).then(|| zstd::bulk::compress(&payload, LEVEL).ok());
        let compressed = compressed.flatten().filter(|compressed| compressed.len() < raw_length);
        body.push(self.flags() | compressed.as_ref().map_or(0, |_| FLAG_ZSTD));
        for number in [self.build.0, self.key.attempt.into(), self.key.step.into(), self.first_byte] {
            put_varint(number, body);
        }
        self.lost_lines.iter().for_each(|lines| put_varint(*lines, body));
        for number in [first_time_us, self.content.len() as u64, raw_length as u64] {
            put_varint(number, body);
        }
        body.extend_from_slice(compressed.as_deref().unwrap_or(&payload));
        let rest = &body[start + HEAD_BYTES..];
        let length = u32::try_from(rest.len()).expect("a batch is far smaller than 4 GiB");
        let sum = frame::sum(rest);
        body[start..start + 4].copy_from_slice(&MAGIC);
        body[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
        body[start + 8..start + HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
    }

    fn flags(&self) -> u8 {
        let end = match self.end {
            None => 0,
            Some(StepEnd::Closed) => FLAG_END_CLOSED,
            Some(StepEnd::CutShort) => FLAG_END_CUT,
        };
        end | self.lost_lines.map_or(0, |_| FLAG_LOST)
    }

    /// All batches of a body.
    ///
    /// # Errors
    /// Of the first that cannot be read; none is given out then.
    pub fn decode_all(body: &[u8]) -> Result<Vec<Self>, BatchError> {
        let mut batches = Vec::new();
        let mut at = 0;
        while at < body.len() {
            if batches.len() == BATCHES_MAX {
                return Err(BatchError::TooLarge { at });
            }
            let (batch, length) = Self::decode(body, at)?;
            batches.push(batch);
            at += length;
        }
        Ok(batches)
    }

    /// The batch at `at`, and how many bytes it takes there.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn decode(body: &[u8], at: usize) -> Result<(Self, usize), BatchError> {
        let bytes = body.get(at..).unwrap_or_default();
        let Some((head, bytes)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Err(BatchError::Damaged { at });
        };
        if head[..4] != MAGIC {
            return Err(BatchError::Unknown { at });
        }
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if length > PAYLOAD_BYTES_MAX + FIELDS_BYTES_MAX {
            return Err(BatchError::TooLarge { at });
        }
        let sum = head[8..].iter().rev().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
        let rest = bytes.get(..length).filter(|rest| frame::sum(rest) == sum).ok_or(BatchError::Damaged { at })?;
        Ok((Self::decode_rest(rest, at)?, HEAD_BYTES + length))
    }

    fn decode_rest(rest: &[u8], at: usize) -> Result<Self, BatchError> {
        let unknown = BatchError::Unknown { at };
        let (&flags, mut rest) = rest.split_first().ok_or(unknown)?;
        let mut number = || take_varint(&mut rest).ok_or(unknown);
        let build = BuildId(number()?);
        let attempt = u32::try_from(number()?).map_err(|_| unknown)?;
        let step = u16::try_from(number()?).map_err(|_| unknown)?;
        let mut batch = Self::new(build, StreamKey { attempt, step }, number()?);
        if flags & FLAG_LOST != 0 {
            batch.lost_lines = Some(number()?);
        }
        batch.end = match flags & (FLAG_END_CLOSED | FLAG_END_CUT) {
            0 => None,
            FLAG_END_CLOSED => Some(StepEnd::Closed),
            FLAG_END_CUT => Some(StepEnd::CutShort),
            _ => return Err(unknown),
        };
        if flags & !(FLAG_ZSTD | FLAG_LOST | FLAG_END_CLOSED | FLAG_END_CUT) != 0 {
            return Err(unknown);
        }
        let (first_time_us, content_length, raw_length) = (number()?, number()?, number()?);
        if content_length > BATCH_BYTES_MAX as u64 || raw_length > PAYLOAD_BYTES_MAX as u64 {
            return Err(BatchError::TooLarge { at });
        }
        let (content_length, raw_length) = (content_length as usize, raw_length as usize);
        let mut payload = match flags & FLAG_ZSTD {
            0 => rest.to_vec(),
            _ => zstd::bulk::decompress(rest, raw_length).map_err(|_| unknown)?,
        };
        if payload.len() != raw_length || content_length > raw_length {
            return Err(unknown);
        }
        batch.runs = decode_runs(&payload[content_length..], first_time_us, content_length).ok_or(unknown)?;
        payload.truncate(content_length);
        batch.content = payload;
        Ok(batch)
    }
}

/// `None` if it is no run table, or not that of so much content.
fn decode_runs(mut table: &[u8], first_time_us: u64, content_length: usize) -> Option<Vec<BatchRun>> {
    let mut runs = Vec::new();
    let (mut time_us, mut content) = (first_time_us, 0usize);
    while let Some((&stream, rest)) = table.split_first() {
        table = rest;
        let stream = *Stream::ALL.get(usize::from(stream))?;
        time_us = time_us.checked_add(take_varint(&mut table)?)?;
        let bytes = u32::try_from(take_varint(&mut table)?).ok().filter(|bytes| *bytes > 0)?;
        content = content.checked_add(bytes as usize).filter(|content| *content <= content_length)?;
        if runs.len() == BATCH_RUNS_MAX {
            return None;
        }
        runs.push(BatchRun { stream, time_us, bytes });
    }
    (content == content_length).then_some(runs)
}
