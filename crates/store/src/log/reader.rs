//! The reading side: any range of lines, the raw bytes, what has come since, and the gaps.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{self, Codec, HEADER_BYTES, Header, Joint, Position, Run};
use super::index::{self, Entry, Tail};
use super::opened::Frames;
use super::{Batch, LogError, StepEnd, Stream, StreamKey};
use graph::BuildId;

/// Whether somebody may still be writing the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// What is missing at the end of a stream may come: see [`LogReader::refresh`].
    Going,
    /// What is missing at the end of a stream is lost, and shown as a gap.
    Over,
}

/// Which streams of a step are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All, in the order in which they came.
    All,
    /// One of them.
    Only(Stream),
}

impl Selection {
    fn has(self, stream: Stream) -> bool {
        match self {
            Self::All => true,
            Self::Only(only) => only == stream,
        }
    }
}

/// How a step's output stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// It was not closed yet, or its writer died.
    Open,
    /// It was closed in good order.
    Closed,
}

/// One step's output in short, from the index alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSummary {
    /// Whose output.
    pub key: StreamKey,
    /// The number after the last row.
    pub lines: u64,
    /// Bytes of all streams together, those in gaps included.
    pub bytes: u64,
    /// Time of the first bytes.
    pub first_time_us: u64,
    /// Time of the last bytes.
    pub last_time_us: u64,
    /// Whether more may come.
    pub state: StreamState,
}

impl StreamSummary {
    /// Whether this is more of a step's output than the other.
    pub(super) fn goes_further_than(&self, other: Option<Self>) -> bool {
        let end = |stream: &Self| (stream.bytes, stream.state == StreamState::Closed);
        other.is_none_or(|other| end(self) > end(&other))
    }
}

/// How a row begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineStart {
    /// A new line begins.
    Fresh,
    /// It goes on with the unfinished line that the same stream wrote before.
    Continued,
}

/// How a row ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// With a line feed, which is not part of [`Line::bytes`].
    LineFeed,
    /// The line goes on in a later row or piece, or the stream ended without a line feed.
    Open,
}

/// A part of a frame that is kept in memory as long as one of its parts is.
#[derive(Clone)]
pub struct LineBytes {
    frame: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl From<Vec<u8>> for LineBytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { frame: Arc::new(bytes), range }
    }
}

impl std::ops::Deref for LineBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.frame[self.range.clone()]
    }
}

impl AsRef<[u8]> for LineBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for LineBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

/// A row, or a piece of one that is longer than a frame.
#[derive(Clone, Debug)]
pub struct Line {
    /// From 0, over all streams of the step.
    pub number: u64,
    /// When its last byte came.
    pub time_us: u64,
    /// Who wrote it.
    pub stream: Stream,
    /// Its bytes without the line feed, as they were written (carriage returns and all).
    pub bytes: LineBytes,
    /// Whether it goes on with an earlier piece.
    pub start: LineStart,
    /// Whether a later piece goes on with it.
    pub end: LineEnd,
}

/// Why output is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GapCause {
    /// A frame could not be written, or its header cannot be read.
    Missing,
    /// A frame is there, and its bytes are not those that were written.
    Damaged,
    /// The writer ended without closing the stream: its end may be missing.
    CutShort,
}

/// Output that was written and cannot be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gap {
    /// The number of the first row that has a part in the gap.
    pub first_line: u64,
    /// How many rows, if that is known.
    pub lines: Option<u64>,
    /// How many bytes, if that is known.
    pub bytes: Option<u64>,
    /// Why.
    pub cause: GapCause,
}

/// What reading yields.
#[derive(Clone, Debug)]
pub enum Item {
    /// A row or a piece of one.
    Line(Line),
    /// Lost output.
    Gap(Gap),
}

/// A piece of raw output.
#[derive(Clone, Debug)]
pub enum RawPart {
    /// Bytes as they were written, line feeds included.
    Bytes(LineBytes),
    /// Lost output. The bytes of other streams count in it.
    Gap(Gap),
}

#[derive(Clone, Debug, Default)]
struct StreamIndex {
    /// In the order of the file, which is that of the lines.
    frames: Vec<Entry>,
    closed: bool,
}

impl StreamIndex {
    fn end_line(&self) -> u64 {
        self.frames.last().map_or(0, |entry| entry.header.end_line())
    }
}

/// Reads one pack, also while it is written. Holds about 100 bytes for each frame, and one frame for each iterator. A clone
/// shares what is known of the frames until one of the two learns of more.
#[derive(Clone, Debug)]
pub struct LogReader {
    file: Arc<File>,
    path: PathBuf,
    writing: Writing,
    streams: BTreeMap<StreamKey, Arc<StreamIndex>>,
    /// Where the last whole frame ends.
    end: u64,
    tail: Tail,
    /// Where frames go of which a part was read.
    frames: Option<Arc<Frames>>,
}

impl LogReader {
    /// Opens a pack and learns where its frames are.
    ///
    /// # Errors
    /// [`LogError::NotALog`], [`LogError::Newer`], and what the file system says. Damage is no error, see [`Gap`].
    pub fn open(path: &Path, writing: Writing) -> Result<Self, LogError> {
        let mut reader = Self {
            file: Arc::new(File::open(path)?),
            path: path.to_owned(),
            writing,
            streams: BTreeMap::new(),
            end: 0,
            tail: Tail::Clean,
            frames: None,
        };
        reader.read_index()?;
        reader.refresh()?;
        Ok(reader)
    }

    /// The same reader, which leaves frames of which a part was read to those who read on.
    pub(super) fn with_frames(mut self, frames: &Arc<Frames>) -> Self {
        self.frames = Some(Arc::clone(frames));
        self
    }

    /// Learns of the frames that the side file names. It may be that of a pack that has taken the place of ours at
    /// this moment: then ours is linked no more, and the new one is opened.
    fn read_index(&mut self) -> Result<(), LogError> {
        loop {
            index::check_pack(&self.file, &self.path)?;
            let length = self.file.metadata()?.len();
            let entries = index::read_side_file(&self.path, length);
            if self.file.metadata()?.nlink() == 0 {
                match File::open(&self.path) {
                    Ok(file) => {
                        self.file = Arc::new(file);
                        continue;
                    }
                    // Deleted, not replaced: what was opened can still be read, without the side file.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            self.end = entries.last().map_or(0, Entry::end);
            self.add(&entries);
            return Ok(());
        }
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Learns of the frames that have been appended since. Returns how many there are (all of them if the pack was
    /// rewritten meanwhile). Who waits for them is told by
    /// other means; this asks the file only once.
    ///
    /// # Errors
    /// What the file system says.
    pub fn refresh(&mut self) -> Result<usize, LogError> {
        let mut known = self.frames();
        if !self.is_in_place()
            && let Ok(there) = Self::open(&self.path, self.writing)
            && !self.has_more_than(&there)
        {
            // The pack was rewritten with fewer frames (`log/merge.rs`), or went into a blob and begins anew with what that holds; numbers
            // of rows and bytes stay.
            *self = Self { frames: self.frames.take(), ..there };
            known = 0;
        }
        let length = self.file.metadata()?.len();
        let mut entries = Vec::new();
        (self.end, self.tail) = index::scan(&self.file, self.end, length, &mut entries)?;
        self.add(&entries);
        Ok(self.frames().saturating_sub(known))
    }

    /// Whether the pack that is read still stands under its path.
    pub(super) fn is_in_place(&self) -> bool {
        let ours = self.file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        let there = std::fs::metadata(&self.path).map(|metadata| (metadata.dev(), metadata.ino()));
        matches!((ours, there), (Ok(ours), Ok(there)) if ours == there)
    }

    pub(super) fn writing(&self) -> Writing {
        self.writing
    }

    /// How many frames it knows.
    pub(super) fn frames(&self) -> usize {
        self.streams.values().map(|stream| stream.frames.len()).sum()
    }

    /// The places of a stream's frames, in order, and how it ends.
    pub(super) fn entries(&self, key: StreamKey) -> (&[Entry], Position) {
        match self.streams.get(&key) {
            Some(stream) if stream.closed => (&stream.frames, Position::Last),
            Some(stream) => (&stream.frames, Position::Inner),
            None => (&[], Position::Inner),
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Nobody writes the pack any more: what is missing is now shown as a gap.
    ///
    /// # Errors
    /// As [`LogReader::refresh`].
    pub fn writing_is_over(&mut self) -> Result<(), LogError> {
        self.writing = Writing::Over;
        self.refresh().map(drop)
    }

    fn add(&mut self, entries: &[Entry]) {
        for entry in entries {
            let stream = Arc::make_mut(self.streams.entry(entry.header.key).or_default());
            stream.closed = entry.header.position == Position::Last;
            stream.frames.push(*entry);
        }
    }

    /// All steps that have output, sorted by key.
    pub fn streams(&self) -> impl Iterator<Item = StreamSummary> + '_ {
        self.streams.keys().filter_map(|key| self.stream(*key))
    }

    /// One step in short; `None` if nothing of it is in the pack.
    #[must_use]
    pub fn stream(&self, key: StreamKey) -> Option<StreamSummary> {
        let stream = self.streams.get(&key)?;
        let last = stream.frames.last()?;
        // A frame that only says where the output goes on behind a gap has no time of its own.
        let first = stream.frames.iter().find(|entry| entry.header.content_length > 0).unwrap_or(last);
        Some(StreamSummary {
            key,
            lines: last.header.end_line(),
            bytes: last.header.end_byte(),
            first_time_us: first.header.first_time_us,
            last_time_us: last.header.last_time_us,
            state: if stream.closed { StreamState::Closed } else { StreamState::Open },
        })
    }

    /// Whether some step goes further here than in the other pack.
    pub(super) fn has_more_than(&self, other: &Self) -> bool {
        self.streams().any(|stream| stream.goes_further_than(other.stream(stream.key)))
    }

    /// The rows with these numbers, in order, and the gaps among them. A step without output has none. What has been
    /// appended since the last [`LogReader::refresh`] is not seen.
    #[must_use]
    pub fn lines(&self, key: StreamKey, range: Range<u64>) -> Lines {
        let parts = self.parts(key, &range);
        let kept = self.frames.as_ref().map(|frames| (Arc::clone(frames), self.path.clone()));
        Lines { range, parts: Parts { kept, ..parts }, frame: None }
    }

    /// The last `count` rows.
    #[must_use]
    pub fn tail(&self, key: StreamKey, count: u64) -> Lines {
        let end = self.streams.get(&key).map_or(0, |stream| stream.end_line());
        self.lines(key, end.saturating_sub(count)..u64::MAX)
    }

    /// Exactly the bytes that were written, in pieces of at most a frame.
    #[must_use]
    pub fn raw(&self, key: StreamKey, selection: Selection) -> Raw {
        self.raw_from(key, selection, 0)
    }

    /// As [`LogReader::raw`], from a byte of the step on: all its streams count, whatever the selection. What a gap holds
    /// counts too.
    #[must_use]
    pub fn raw_from(&self, key: StreamKey, selection: Selection, first_byte: u64) -> Raw {
        let (parts, skip) = self.parts_from_byte(key, first_byte);
        Raw { selection, parts, frame: None, skip }
    }

    /// The output of a step from a byte on in batches, for whoever keeps it in another place. Empty if there is no
    /// more. The last batch carries the end of a stream that was closed; what is lost is named in the batch after it.
    #[must_use]
    pub fn batches(&self, build: BuildId, key: StreamKey, first_byte: u64) -> Batches {
        let (parts, skip) = self.parts_from_byte(key, first_byte);
        let (entries, position) = self.entries(key);
        let end_byte = entries.last().map_or(0, |entry| entry.header.end_byte());
        let next = Some(Batch::new(build, key, first_byte));
        let closes = (position == Position::Last && first_byte <= end_byte).then_some(StepEnd::Closed);
        Batches { parts, skip, next, end: closes, frame: None, rest: None }
    }

    /// The frames from the one with this byte on, and how many bytes of it come before.
    fn parts_from_byte(&self, key: StreamKey, first_byte: u64) -> (Parts, usize) {
        let (entries, _) = self.entries(key);
        let from = entries.partition_point(|entry| entry.header.end_byte() <= first_byte);
        let Some(entry) = entries.get(from) else { return (self.parts(key, &(u64::MAX..u64::MAX)), 0) };
        let mut parts = self.parts(key, &(0..u64::MAX));
        let mut left: Vec<Part> = parts.parts.collect();
        let is_before = |part: &Part| match part {
            Part::Frame(frame) => frame.offset != entry.offset,
            Part::Gap(_) => true,
        };
        let before = left.iter().take_while(|part| is_before(part)).count();
        // A gap right before the frame is shown if the byte that is asked for lies in it.
        let gap = usize::from(first_byte < entry.header.first_byte && before > 0);
        left.drain(..before - gap);
        parts.parts = left.into_iter();
        let skip = first_byte.saturating_sub(entry.header.first_byte);
        (parts, usize::try_from(skip).expect("a frame is far smaller than 4 GiB"))
    }

    /// The frames with these rows, and the gaps between them.
    fn parts(&self, key: StreamKey, rows: &Range<u64>) -> Parts {
        let empty = StreamIndex::default();
        let stream = self.streams.get(&key).map_or(&empty, |stream| stream);
        let place_before = |from: usize| match from.checked_sub(1).map(|before| &stream.frames[before].header) {
            Some(before) => Place { line: before.end_line(), byte: before.end_byte() },
            None => Place::default(),
        };
        let mut from = stream.frames.partition_point(|entry| entry.header.end_line() <= rows.start);
        // A gap of which it is not known that it holds a row is right before the row that follows it.
        while from > 0
            && stream.frames[from - 1].header.content_length == 0
            && stream.frames[from - 1].header.end_line() == rows.start
            && place_before(from - 1).line == rows.start
        {
            from -= 1;
        }
        let mut expected = place_before(from);
        let mut parts = Vec::new();
        for entry in &stream.frames[from..] {
            let header = &entry.header;
            if expected.line >= rows.end && header.first_line >= rows.end {
                break;
            }
            if header.first_byte > expected.byte {
                parts.push(Part::Gap(expected.gap_to(header, GapCause::Missing)));
            }
            expected = Place { line: header.end_line(), byte: header.end_byte() };
            parts.push(Part::Frame(*entry));
        }
        if self.writing == Writing::Over && !stream.closed {
            parts.extend(self.gap_at_end(key, expected).map(Part::Gap));
        }
        let file = Arc::clone(&self.file);
        Parts { file, parts: parts.into_iter(), decoder: Decoder::default(), kept: None, last: None }
    }

    /// What is known of the end that a stream lacks. A torn frame of a step that has no other is a gap of that step.
    fn gap_at_end(&self, key: StreamKey, end: Place) -> Option<Gap> {
        match self.tail {
            Tail::Torn(Some(header)) if header.key == key => Some(Gap {
                first_line: header.first_line.min(end.line),
                lines: Some(header.end_line().saturating_sub(end.line)),
                bytes: Some(header.end_byte().saturating_sub(end.byte)),
                cause: GapCause::CutShort,
            }),
            _ if self.streams.contains_key(&key) => {
                Some(Gap { first_line: end.line, lines: None, bytes: None, cause: GapCause::CutShort })
            }
            _ => None,
        }
    }
}

/// A place in a stream.
#[derive(Clone, Copy, Default)]
struct Place {
    line: u64,
    byte: u64,
}

impl Place {
    fn gap_to(self, next: &Header, cause: GapCause) -> Gap {
        Gap {
            first_line: self.line.min(next.first_line),
            lines: Some(next.first_line.saturating_sub(self.line)),
            bytes: Some(next.first_byte.saturating_sub(self.byte)),
            cause,
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    Frame(Entry),
    Gap(Gap),
}

/// A frame that has been read.
pub(super) struct Decoded {
    pub header: Header,
    payload: Arc<Vec<u8>>,
    runs: std::vec::IntoIter<Run>,
    /// Bytes of content that have been given out.
    at: usize,
    /// The run that is being given out, and where it ends.
    run: Option<(Run, usize)>,
    /// The number of the next row.
    number: u64,
    /// Whether the run's next row is its first.
    joint: Joint,
    /// Up to here whole rows are known to stand one behind the other, without a terminal's language.
    plain_end: usize,
}

enum DecodedPart {
    Frame(Box<Decoded>),
    Gap(Gap),
}

/// Reads one frame after the other.
struct Parts {
    file: Arc<File>,
    parts: std::vec::IntoIter<Part>,
    decoder: Decoder,
    /// The frames of which somebody has read a part, and the pack's path.
    kept: Option<(Arc<Frames>, PathBuf)>,
    /// The frame that was given last.
    last: Option<Entry>,
}

impl Parts {
    fn next(&mut self) -> Option<Result<DecodedPart, LogError>> {
        let entry = match self.parts.next()? {
            Part::Gap(gap) => return Some(Ok(DecodedPart::Gap(gap))),
            Part::Frame(entry) => entry,
        };
        self.last = Some(entry);
        if let Some(payload) = self.kept.as_ref().and_then(|(frames, path)| frames.find(path, &entry))
            && let Some(decoded) = Decoded::of(entry.header, payload)
        {
            return Some(Ok(DecodedPart::Frame(Box::new(decoded))));
        }
        match self.decoder.decode(&self.file, &entry) {
            Err(error) => Some(Err(error.into())),
            Ok(Some(decoded)) => Some(Ok(DecodedPart::Frame(Box::new(decoded)))),
            Ok(None) => Some(Ok(DecodedPart::Gap(Gap {
                first_line: entry.header.first_line,
                lines: Some(u64::from(entry.header.line_count)),
                bytes: Some(u64::from(entry.header.content_length)),
                cause: GapCause::Damaged,
            }))),
        }
    }
}

/// Buffers and a context that are used again for each frame.
#[derive(Default)]
pub(super) struct Decoder {
    stored: Vec<u8>,
    context: Option<zstd::bulk::Decompressor<'static>>,
    last: Arc<Vec<u8>>,
}

impl Decoder {
    /// `None` if the frame is damaged. The header has been checked and its lengths are bounded.
    pub fn decode(&mut self, file: &File, entry: &Entry) -> io::Result<Option<Decoded>> {
        let header = entry.header;
        self.stored.resize(header.stored_length as usize, 0);
        let read = index::read_at(file, &mut self.stored, entry.offset + HEADER_BYTES as u64)?;
        if read < self.stored.len() || frame::sum(&self.stored) != header.payload_sum {
            return Ok(None);
        }
        // The last frame's buffer is used again unless somebody kept a line of it.
        let mut payload = std::mem::take(&mut self.last);
        if Arc::get_mut(&mut payload).is_none() {
            payload = Arc::default();
        }
        let buffer = Arc::get_mut(&mut payload).expect("nobody else has it");
        buffer.clear();
        match header.codec {
            Codec::Raw => buffer.extend_from_slice(&self.stored),
            Codec::Zstd => {
                buffer.reserve(header.raw_length as usize);
                let context = match &mut self.context {
                    Some(context) => context,
                    empty => empty.insert(zstd::bulk::Decompressor::new()?),
                };
                if context.decompress_to_buffer(&self.stored, buffer).is_err() {
                    return Ok(None);
                }
            }
        }
        if buffer.len() != header.raw_length as usize {
            return Ok(None);
        }
        self.last = Arc::clone(&payload);
        Ok(Decoded::of(header, payload))
    }
}

impl Decoded {
    /// Over the content of a frame, of the length that its header says; `None` if the frame is damaged.
    fn of(header: Header, payload: Arc<Vec<u8>>) -> Option<Self> {
        let content_length = header.content_length as usize;
        let runs = frame::decode_runs(&payload[content_length..], header.first_time_us, content_length)?.into_iter();
        let number = header.first_line;
        Some(Self { header, payload, runs, at: 0, run: None, number, joint: Joint::Fresh, plain_end: 0 })
    }

    /// The next row or piece.
    fn next_line(&mut self) -> Option<Line> {
        if self.run.is_none() {
            let run = self.runs.next()?;
            // The row that this one goes on with has been counted, unless it stands in the frame before.
            if run.joint == Joint::SameRow && self.at > 0 {
                self.number -= 1;
            }
            self.joint = run.joint;
            self.run = Some((run, self.at + run.length as usize));
        }
        let (run, run_end) = self.run?;
        let bytes = &self.payload[self.at..run_end];
        let (length, next, end) = match memchr::memchr(b'\n', bytes) {
            Some(length) => (length, self.at + length + 1, LineEnd::LineFeed),
            None => (bytes.len(), run_end, LineEnd::Open),
        };
        let start = match std::mem::replace(&mut self.joint, Joint::Fresh) {
            Joint::Fresh => LineStart::Fresh,
            Joint::Continued | Joint::SameRow => LineStart::Continued,
        };
        let bytes = LineBytes { frame: Arc::clone(&self.payload), range: self.at..self.at + length };
        let line = Line { number: self.number, time_us: run.time_us, stream: run.stream, bytes, start, end };
        self.number = self.number.saturating_add(1);
        self.at = next;
        if next == run_end {
            self.run = None;
        }
        Some(line)
    }

    /// Passes over whole rows up to the one in which `finds` finds something, or up to where rows no longer stand whole one behind
    /// the other, `most` bytes. Gives how many bytes were passed over.
    fn pass_over(&mut self, most: u64, finds: impl Fn(&[u8]) -> Option<usize>) -> usize {
        let joint =
            if self.run.is_some() { Some(self.joint) } else { self.runs.as_slice().first().map(|run| run.joint) };
        if joint != Some(Joint::Fresh) {
            return 0;
        }
        if self.plain_end <= self.at {
            self.plain_end = self.plain_rows_end();
        }
        let start = self.at;
        let mut rows = &self.payload[start..self.plain_end.max(start)];
        if let Some(within) = usize::try_from(most).ok().and_then(|most| rows.get(..most)) {
            rows = &within[..memchr::memrchr(b'\n', within).map_or(0, |feed| feed + 1)];
        }
        let to = match finds(rows) {
            Some(found) => memchr::memrchr(b'\n', &rows[..found]).map_or(0, |feed| feed + 1),
            None => rows.len(),
        };
        self.number = self.number.saturating_add(memchr::memchr_iter(b'\n', &rows[..to]).count() as u64);
        self.go_to(start + to);
        to
    }

    /// Where the rows end that stand whole from the present place on: at the last line feed before a row that was written in
    /// pieces, or before an escape.
    fn plain_rows_end(&self) -> usize {
        let mut end = self.at;
        let mut run = self.run;
        let mut rest = self.runs.as_slice().iter();
        loop {
            let run_end = match run.take() {
                Some((_, run_end)) => run_end,
                None => match rest.next() {
                    Some(next) if next.joint == Joint::SameRow && end > self.at => end + next.length as usize,
                    Some(next) if next.joint == Joint::Fresh && (end == self.at || self.payload[end - 1] == b'\n') => {
                        end + next.length as usize
                    }
                    _ => break,
                },
            };
            if let Some(escape) = memchr::memchr(super::ESCAPE, &self.payload[end..run_end]) {
                end += escape;
                break;
            }
            end = run_end;
        }
        memchr::memrchr(b'\n', &self.payload[self.at..end]).map_or(self.at, |feed| self.at + feed + 1)
    }

    /// Goes on at a place behind a line feed.
    fn go_to(&mut self, place: usize) {
        while self.at < place {
            let (run, run_end) = match self.run.take() {
                Some(run) => run,
                None => match self.runs.next() {
                    Some(run) => (run, self.at + run.length as usize),
                    None => return,
                },
            };
            self.joint = Joint::Fresh;
            self.at = place.min(run_end);
            self.run = (self.at < run_end).then_some((run, run_end));
        }
    }

    /// The next run of the selection, without the first `skip` bytes of content.
    pub fn next_run(&mut self, selection: Selection, skip: &mut usize) -> Option<(Run, LineBytes)> {
        loop {
            let run = self.runs.next()?;
            let end = self.at + run.length as usize;
            let start = end.min(self.at + *skip);
            *skip -= start - self.at;
            self.at = end;
            if selection.has(run.stream) && start < end {
                return Some((run, LineBytes { frame: Arc::clone(&self.payload), range: start..end }));
            }
        }
    }
}

/// The rows of a range, see [`LogReader::lines`].
pub struct Lines {
    range: Range<u64>,
    parts: Parts,
    frame: Option<Box<Decoded>>,
}

impl Lines {
    /// Passes over rows at hand in which `finds` finds nothing; it is given many at once, whole ones without a terminal's language.
    /// Gives how many bytes were passed over, at most `most`, and the number of the row that comes next.
    pub(super) fn pass_over(&mut self, most: u64, finds: impl Fn(&[u8]) -> Option<usize>) -> Option<(usize, u64)> {
        let frame = self.frame.as_mut()?;
        let passed = frame.pass_over(most, finds);
        Some((passed, frame.number))
    }
}

impl Drop for Lines {
    /// Whoever reads on begins with this frame.
    fn drop(&mut self) {
        if let (Some(frame), Some((frames, path)), Some(entry)) = (&self.frame, &self.parts.kept, &self.parts.last)
            && frame.header.line_count > 1
        {
            frames.keep(path, entry, &frame.payload);
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Item, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(frame) = &mut self.frame {
                match frame.next_line() {
                    Some(line) if line.number >= self.range.end => return None,
                    Some(line) if line.number >= self.range.start => return Some(Ok(Item::Line(line))),
                    Some(_) => continue,
                    None => self.frame = None,
                }
            }
            match self.parts.next()? {
                Err(error) => return Some(Err(error)),
                Ok(DecodedPart::Frame(frame)) if frame.header.first_line >= self.range.end => return None,
                Ok(DecodedPart::Frame(frame)) => self.frame = Some(frame),
                Ok(DecodedPart::Gap(gap)) if gap.first_line >= self.range.end => return None,
                Ok(DecodedPart::Gap(gap)) => return Some(Ok(Item::Gap(gap))),
            }
        }
    }
}

/// The raw bytes of a step, see [`LogReader::raw`].
pub struct Raw {
    selection: Selection,
    parts: Parts,
    frame: Option<Box<Decoded>>,
    /// Bytes of the first frame that are not wanted.
    skip: usize,
}

impl Iterator for Raw {
    type Item = Result<RawPart, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(frame) = &mut self.frame {
                match frame.next_run(self.selection, &mut self.skip) {
                    Some((_, bytes)) => return Some(Ok(RawPart::Bytes(bytes))),
                    None => self.frame = None,
                }
            }
            match self.parts.next()? {
                Err(error) => return Some(Err(error)),
                Ok(DecodedPart::Frame(frame)) => self.frame = Some(frame),
                Ok(DecodedPart::Gap(gap)) => return Some(Ok(RawPart::Gap(gap))),
            }
        }
    }
}

/// See [`LogReader::batches`].
pub struct Batches {
    parts: Parts,
    skip: usize,
    /// What is being filled.
    next: Option<Batch>,
    end: Option<StepEnd>,
    frame: Option<Box<Decoded>>,
    /// The rest of a run for which the last batch had no room.
    rest: Option<(Run, LineBytes)>,
}

impl Iterator for Batches {
    type Item = Result<Batch, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = self.next.take()?;
        loop {
            if let Some((run, bytes)) = self.rest.take().or_else(|| self.run()) {
                let left = batch.push(run.stream, run.time_us, &bytes).len();
                if left > 0 {
                    let range = bytes.range.end - left..bytes.range.end;
                    self.rest = Some((run, LineBytes { frame: bytes.frame, range }));
                    self.next = Some(Batch::new(batch.build, batch.key, batch.next_byte()));
                    return Some(Ok(batch));
                }
                continue;
            }
            match self.parts.next() {
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(DecodedPart::Frame(frame))) => self.frame = Some(frame),
                Some(Ok(DecodedPart::Gap(gap))) => {
                    // A gap at the end, of unknown length, ends the batches: more may come.
                    let Some(lost) = gap.bytes.filter(|_| gap.cause != GapCause::CutShort) else { continue };
                    let mut next = Batch::new(batch.build, batch.key, batch.next_byte().saturating_add(lost));
                    next.lost_lines = Some(gap.lines.unwrap_or(0));
                    if batch.content().is_empty() {
                        batch = next;
                    } else {
                        self.next = Some(next);
                        return Some(Ok(batch));
                    }
                }
                None => break,
            }
        }
        batch.end = self.end;
        (!batch.content().is_empty() || batch.end.is_some() || batch.lost_lines.is_some()).then_some(Ok(batch))
    }
}

impl Batches {
    fn run(&mut self) -> Option<(Run, LineBytes)> {
        let run = self.frame.as_mut()?.next_run(Selection::All, &mut self.skip);
        if run.is_none() {
            self.frame = None;
        }
        run
    }
}
