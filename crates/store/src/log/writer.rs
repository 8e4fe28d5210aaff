//! The writing side: one [`LogWriter`] per build, one [`StreamWriter`] per step that runs.

use std::path::Path;
use std::sync::Arc;

use super::compress::{FrameBuffer, SealedFrame};
use super::frame::{Ends, FRAME_BYTES, HEADER_BYTES, Header, Joint, LastEnd, Position, RUNS_MAX, Run};
use super::mask::{MaskedStream, Masker};
use super::pack::{Compressing, Flight, Pack, Pool, StreamEnd};
use super::{LogError, Stream, StreamKey};

/// The beginning of a line is held back up to this size until its end comes, so that a read that ends in the middle of
/// a line does not split it. Longer ones are stored in pieces.
pub const PARTIAL_BYTES_MAX: usize = 16 * 1024;

/// Writes the pack of one build. Clones are cheap and write the same pack; only one process can have a pack open for
/// writing. When the last clone and the last stream are gone, the pack is finished.
#[derive(Clone)]
pub struct LogWriter {
    pack: Arc<Pack>,
}

impl LogWriter {
    /// Creates the pack, or goes on with the one that is there: a torn end is cut off, and steps that were not closed
    /// are shown with a gap at their end.
    ///
    /// # Errors
    /// [`LogError::Busy`] if another writer has it, [`LogError::NotALog`], [`LogError::Newer`], and what the file
    /// system says.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        Ok(Self { pack: Arc::new(Pack::open(path, Arc::default(), Compressing::Thread)?) })
    }

    /// As [`LogWriter::open`], with buffers shared between packs and no thread of its own.
    pub(super) fn open_pooled(path: &Path, pool: &Arc<Pool>) -> Result<Self, LogError> {
        Ok(Self { pack: Arc::new(Pack::open(path, Arc::clone(pool), Compressing::Caller)?) })
    }

    pub(super) fn pack(&self) -> &Pack {
        &self.pack
    }

    /// Begins the output of one step. Given a key that was written before, it goes on with the next number.
    ///
    /// # Panics
    /// If the key is open for writing already: two writers of one step are a fault of ours.
    #[must_use]
    pub fn open_stream(&self, key: StreamKey, masker: &Masker) -> StreamWriter {
        let end = self.pack.claim(key).expect("each step has one writer");
        StreamWriter {
            frame: self.pack.pool().empty(),
            pack: Arc::clone(&self.pack),
            key,
            flight: Arc::default(),
            masks: masker.stream().map(|mask| Box::new([mask.clone(), mask.clone(), mask])),
            partials: Default::default(),
            held_counted: 0,
            frame_first: end,
            frame_first_time_us: 0,
            next: end,
            begun: end,
            sealed: end,
            time_us: end.time_us,
            ends: end.ends,
            summary: Summary::default(),
            failure: Report::Due,
            state: State::Open,
        }
    }

    /// Waits until everything that has left the buffers is on the disk. Never needed for readers.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sync(&self) -> Result<(), LogError> {
        self.pack.sync()
    }

    /// The most bytes that the buffers of all streams and of the queue held at one time. Compression contexts (about
    /// 3 MiB) come on top.
    #[must_use]
    pub fn buffers_bytes_peak(&self) -> usize {
        self.pack.pool().gauge().peak()
    }
}

/// What one step printed in all.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Rows, see the module's text.
    pub lines: u64,
    /// Bytes kept of standard output, after masking.
    pub bytes_stdout: u64,
    /// Bytes kept of standard error, after masking.
    pub bytes_stderr: u64,
    /// Bytes of our own notes.
    pub bytes_note: u64,
    /// The number of the first row on standard error: a hint where to look first.
    pub first_stderr_line: Option<u64>,
    /// Why something was not written, if so. The lost bytes show as gaps.
    pub failure: Option<LogError>,
}

/// Whether the failure of this stream has been told by [`StreamWriter::write`] or [`StreamWriter::flush`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Report {
    Due,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Closed,
}

/// Writes the output of one step. Dropping it without [`StreamWriter::close`] keeps what was written, and readers show
/// that its end is missing.
pub struct StreamWriter {
    pack: Arc<Pack>,
    key: StreamKey,
    flight: Arc<Flight>,
    masks: Option<Box<[MaskedStream; 3]>>,
    /// Beginnings of lines, one for each stream.
    partials: [Vec<u8>; 3],
    held_counted: usize,
    frame: FrameBuffer,
    /// The first row of the frame and the bytes before it.
    frame_first: StreamEnd,
    frame_first_time_us: u64,
    next: StreamEnd,
    begun: StreamEnd,
    /// Behind the last frame that was handed on.
    sealed: StreamEnd,
    /// The latest time seen.
    time_us: u64,
    ends: Ends,
    summary: Summary,
    failure: Report,
    state: State,
}

impl StreamWriter {
    /// Takes the bytes of one read. `time_us` is microseconds since the Unix epoch (or any other start, the same for
    /// the whole step); a time before the last one counts as the last one. Waits if the compressor is behind.
    ///
    /// # Errors
    /// The first failure of the file system is told once. Later bytes are taken all the same, so that the step is not
    /// blocked, and are stored if there is room again.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], time_us: u64) -> Result<(), LogError> {
        self.time_us = self.time_us.max(time_us);
        match self.masks.take() {
            None => self.append(stream, bytes),
            Some(mut masks) => {
                masks[stream.index()].push(bytes, &mut |bytes| self.append(stream, bytes));
                self.masks = Some(masks);
            }
        }
        self.count_held();
        self.told_failure()
    }

    /// Makes what has been written readable for others, also the beginning of a line: at once, or as soon as the
    /// frames before it are. Only what could be the beginning of a secret stays.
    ///
    /// # Errors
    /// As [`StreamWriter::write`].
    pub fn flush(&mut self) -> Result<(), LogError> {
        self.store_partials();
        if !self.frame.content.is_empty() {
            self.seal(Position::Inner);
        }
        self.told_failure()
    }

    /// Ends the stream and waits until all of it can be read.
    pub fn close(mut self) -> Summary {
        self.finish(Position::Last);
        self.flight.wait();
        let mut summary = std::mem::take(&mut self.summary);
        summary.lines = self.next.next_line - self.begun.next_line;
        summary.failure = self.flight.failure();
        summary
    }

    fn finish(&mut self, position: Position) {
        if let Some(mut masks) = self.masks.take() {
            for stream in Stream::ALL {
                masks[stream.index()].finish(&mut |bytes| self.append(stream, bytes));
            }
        }
        self.store_partials();
        if position == Position::Last || !self.frame.content.is_empty() {
            self.seal(position);
        }
        self.count_held();
        self.pack.release(self.key, self.sealed);
        self.state = State::Closed;
    }

    fn told_failure(&mut self) -> Result<(), LogError> {
        match self.flight.failure() {
            Some(error) if self.failure == Report::Due => {
                self.failure = Report::Done;
                Err(error)
            }
            _ => Ok(()),
        }
    }

    fn count_held(&mut self) {
        let partials: usize = self.partials.iter().map(Vec::capacity).sum();
        let masks: usize = self.masks.iter().flat_map(|masks| masks.iter()).map(MaskedStream::held_capacity).sum();
        self.pack.pool().gauge().change(self.held_counted, partials + masks);
        self.held_counted = partials + masks;
    }

    /// Stores whole lines; holds back the beginning of the last.
    fn append(&mut self, stream: Stream, bytes: &[u8]) {
        let (lines, rest) = match memchr::memrchr(b'\n', bytes) {
            Some(last) => bytes.split_at(last + 1),
            None => (&[][..], bytes),
        };
        if !lines.is_empty() {
            let mut partial = std::mem::take(&mut self.partials[stream.index()]);
            if !partial.is_empty() {
                let line = partial.len() + memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1);
                if line > self.space() && line <= FRAME_BYTES {
                    self.seal_filled();
                }
                self.store(stream, &partial);
                partial.clear();
            }
            self.partials[stream.index()] = partial;
            self.store(stream, lines);
        }
        if self.partials[stream.index()].len() + rest.len() > PARTIAL_BYTES_MAX {
            let mut partial = std::mem::take(&mut self.partials[stream.index()]);
            self.store(stream, &partial);
            self.store(stream, rest);
            partial.clear();
            self.partials[stream.index()] = partial;
        } else {
            self.partials[stream.index()].extend_from_slice(rest);
        }
    }

    fn store_partials(&mut self) {
        for stream in Stream::ALL {
            let mut partial = std::mem::take(&mut self.partials[stream.index()]);
            self.store(stream, &partial);
            partial.clear();
            self.partials[stream.index()] = partial;
        }
    }

    fn space(&self) -> usize {
        FRAME_BYTES - self.frame.content.len()
    }

    /// Puts bytes into frames, which are cut between lines if that leaves none of them half empty.
    fn store(&mut self, stream: Stream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.space();
            if bytes.len() <= space {
                return self.push(stream, bytes);
            }
            let cut = match memchr::memrchr(b'\n', &bytes[..space]) {
                Some(end) => end + 1,
                None if space > FRAME_BYTES / 2 => space,
                None => 0,
            };
            if cut > 0 {
                self.push(stream, &bytes[..cut]);
            }
            self.seal_filled();
            bytes = &bytes[cut..];
        }
    }

    /// Adds bytes for which there is room to the frame, and counts their rows.
    fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let extends = |run: &&mut Run| run.stream == stream && run.time_us == self.time_us;
        let extended = self.frame.runs.last_mut().filter(extends).is_some();
        if !extended && self.frame.runs.len() == RUNS_MAX {
            self.seal_filled();
        }
        let joint = match self.ends.last[stream.index()] {
            LastEnd::LineFeed => Joint::Fresh,
            LastEnd::Open if self.ends.open_row == Some(stream) => Joint::SameRow,
            LastEnd::Open => Joint::Continued,
        };
        let first_line = self.next.next_line - u64::from(joint == Joint::SameRow);
        if self.frame.content.is_empty() {
            if self.frame.content.capacity() == 0 {
                self.frame = self.pack.pool().buffer();
            }
            self.frame_first = StreamEnd { next_line: first_line, ..self.next };
            self.frame_first_time_us = self.time_us;
        }
        let length = u32::try_from(bytes.len()).expect("a frame is far smaller than 4 GiB");
        match self.frame.runs.last_mut() {
            Some(run) if extended => run.length += length,
            _ => self.frame.runs.push(Run { stream, joint, time_us: self.time_us, length }),
        }
        self.frame.extend(bytes);

        let last_end = if bytes.last() == Some(&b'\n') { LastEnd::LineFeed } else { LastEnd::Open };
        let rows = memchr::memchr_iter(b'\n', bytes).count() as u64 + u64::from(last_end == LastEnd::Open);
        self.ends.last[stream.index()] = last_end;
        self.ends.open_row = (last_end == LastEnd::Open).then_some(stream);
        self.next.next_line = first_line + rows;
        self.next.next_byte += u64::from(length);
        self.count(stream, u64::from(length), first_line);
    }

    fn count(&mut self, stream: Stream, length: u64, first_line: u64) {
        match stream {
            Stream::Stdout => self.summary.bytes_stdout += length,
            Stream::Stderr => {
                self.summary.bytes_stderr += length;
                self.summary.first_stderr_line.get_or_insert(first_line);
            }
            Stream::Note => self.summary.bytes_note += length,
        }
    }

    fn seal_filled(&mut self) {
        if !self.frame.content.is_empty() {
            self.seal(Position::Inner);
        }
    }

    /// Hands the frame on, also an empty one, and begins the next.
    fn seal(&mut self, position: Position) {
        if self.frame.content.is_empty() {
            self.frame_first = self.next;
            self.frame_first_time_us = self.time_us;
        }
        let line_count = self.next.next_line - self.frame_first.next_line;
        let frame = SealedFrame {
            key: self.key,
            position,
            ends: self.ends,
            first_line: self.frame_first.next_line,
            line_count: u32::try_from(line_count).expect("a frame has no more lines than bytes"),
            first_byte: self.frame_first.next_byte,
            first_time_us: self.frame_first_time_us,
            last_time_us: self.time_us.max(self.frame_first_time_us),
            buffer: std::mem::replace(&mut self.frame, self.pack.pool().empty()),
        };
        let before = self.sealed;
        self.sealed = StreamEnd {
            next_line: self.next.next_line,
            next_byte: self.next.next_byte,
            time_us: frame.last_time_us,
            ends: self.ends,
            position,
            frame_byte: frame.first_byte,
        };
        self.pack.append(frame, &before, &self.flight);
    }
}

/// For bytes that another writer has masked and put in order.
impl StreamWriter {
    /// Stores the bytes of one run as they are: nothing is held back.
    pub(super) fn write_run(&mut self, stream: Stream, bytes: &[u8], time_us: u64) {
        self.time_us = self.time_us.max(time_us);
        self.store(stream, bytes);
    }

    /// Goes on at a later place: what is before it is lost, and shows as a gap, also if nothing follows. `ends` says
    /// what the next run joins.
    pub(super) fn skip_to(&mut self, next_line: u64, next_byte: u64, ends: Ends) {
        self.seal_filled();
        (self.next.next_line, self.next.next_byte, self.ends) = (next_line, next_byte, ends);
        self.seal(Position::Inner);
    }

    /// Appends a frame of the same step that stands compressed in another pack, behind room for its header.
    pub(super) fn write_stored(&mut self, header: &Header, stored: &mut [u8]) -> Result<(), LogError> {
        debug_assert_eq!(stored.len(), HEADER_BYTES + header.stored_length as usize);
        self.seal_filled();
        self.flight.wait();
        self.pack.append_stored(header, stored)?;
        self.sealed = StreamEnd::after(header);
        (self.next, self.ends, self.time_us) = (self.sealed, self.sealed.ends, self.sealed.time_us);
        Ok(())
    }

    /// Ends the writing, not the stream unless `position` says so, and waits until all of it can be read.
    ///
    /// # Errors
    /// The first failure. Then it is not known which bytes are in the pack until it is opened again.
    pub(super) fn leave(mut self, position: Position) -> Result<(), LogError> {
        self.finish(position);
        self.flight.wait();
        self.flight.failure().map_or(Ok(()), Err)
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if self.state == State::Open {
            self.finish(Position::Inner);
        }
        self.pack.pool().gauge().change(self.held_counted, 0);
    }
}
