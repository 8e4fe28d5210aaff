//! Rewriting a pack of many small frames into one of few large ones.
//!
//! A follower wants each line at once, so that a step that prints little and often fills its pack with frames of one
//! line, each with a header of 88 bytes. The rewritten pack has the same rows, bytes, times and gaps under the same
//! numbers; it takes the place of the old one by a rename, and readers of the old one notice
//! ([`LogReader::refresh`](super::LogReader::refresh)). Frames that are large enough are copied as they are.
//! Memory: one frame, and the index.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{Ends, FRAME_BYTES, HEADER_BYTES, Header, Joint, LastEnd, Run};
use super::index::{self, Entry, side_path};
use super::pack::Pool;
use super::reader::{Decoded, Decoder};
use super::{LogError, LogReader, LogWriter, Masker, Selection, StreamKey, StreamSummary, StreamWriter, Writing};
use crate::Durability;

/// Frames with at least this much content are not opened.
const COPIED_BYTES_MIN: usize = FRAME_BYTES / 2;

/// Where the new pack is written. What a dead process left there is overwritten.
fn target_path(pack: &Path) -> PathBuf {
    pack.with_extension("merging.log")
}

/// Rewrites the pack, which nobody may be writing. If it does not return, the pack is what it was, or the new one.
pub(super) fn merge(pack: &Path, pool: &Arc<Pool>, durability: Durability) -> Result<(), LogError> {
    let reader = LogReader::open(pack, Writing::Going)?;
    rewrite(pack, &[(&reader, reader.streams().collect())], pool, durability)
}

/// Has the pack, which nobody may be writing, hold of each step what goes further, in it or in the other one. It is made if it is not
/// there. If it does not return, the pack is what it was, or the new one.
pub(super) fn join(pack: &Path, other: &LogReader, pool: &Arc<Pool>, durability: Durability) -> Result<(), LogError> {
    let Some(reader) = open_if_there(pack)? else {
        return rewrite(pack, &[(other, other.streams().collect())], pool, durability);
    };
    if !other.has_more_than(&reader) {
        return Ok(());
    }
    let is_theirs = |key| other.stream(key).is_some_and(|stream| stream.goes_further_than(reader.stream(key)));
    let theirs = other.streams().filter(|stream| is_theirs(stream.key)).collect();
    let ours = reader.streams().filter(|stream| !is_theirs(stream.key)).collect();
    rewrite(pack, &[(other, theirs), (&reader, ours)], pool, durability)
}

/// Opens a pack that may grow; `None` if it is not there.
pub(super) fn open_if_there(pack: &Path) -> Result<Option<LogReader>, LogError> {
    match LogReader::open(pack, Writing::Going) {
        Err(LogError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        reader => reader.map(Some),
    }
}

/// Puts a new pack of these steps in the place of the pack.
fn rewrite(
    pack: &Path,
    parts: &[(&LogReader, Vec<StreamSummary>)],
    pool: &Arc<Pool>,
    durability: Durability,
) -> Result<(), LogError> {
    let target = target_path(pack);
    forget(&target)?;
    let writer = LogWriter::open_pooled(&target, pool)?;
    let copied = parts.iter().try_for_each(|(reader, streams)| {
        let mut copy = Copy { reader, decoder: Decoder::default(), stored: Vec::new() };
        streams.iter().try_for_each(|stream| copy.stream(stream.key, &writer))
    });
    let copied = copied.and_then(|()| if durability == Durability::Power { writer.sync() } else { Ok(()) });
    drop(writer);
    if let Err(error) = copied {
        forget(&target)?;
        return Err(error);
    }
    // In this order a reader never takes the side file of one pack for that of the other without seeing it.
    forget_file(&side_path(pack))?;
    fs::rename(&target, pack)?;
    match fs::rename(side_path(&target), side_path(pack)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    if durability == Durability::Power
        && let Some(folder) = pack.parent()
    {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Removes a pack and its side file, if they are there.
pub(super) fn forget(pack: &Path) -> io::Result<()> {
    forget_file(&side_path(pack))?;
    forget_file(pack)
}

fn forget_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

struct Copy<'a> {
    reader: &'a LogReader,
    decoder: Decoder,
    stored: Vec<u8>,
}

impl Copy<'_> {
    fn stream(&mut self, key: StreamKey, writer: &LogWriter) -> Result<(), LogError> {
        let mut target = writer.open_stream(key, &Masker::none());
        let (entries, position) = self.reader.entries(key);
        let mut next_byte = 0;
        for entry in entries {
            let header = &entry.header;
            let is_after_gap = header.first_byte > next_byte;
            next_byte = header.end_byte();
            let is_copied = header.content_length as usize >= COPIED_BYTES_MIN;
            if is_copied && self.read_stored(entry)? {
                target.write_stored(header, &mut self.stored)?;
                continue;
            }
            match self.decoder.decode(self.reader.file(), entry)? {
                // Its bytes stay a gap: what follows does not join.
                None => next_byte = header.first_byte,
                Some(decoded) => write_frame(&mut target, decoded, is_after_gap),
            }
        }
        if let Some(Entry { header, .. }) = entries.last()
            && next_byte < header.end_byte()
        {
            target.skip_to(header.end_line(), header.end_byte(), header.ends);
        }
        target.leave(position)
    }

    /// Reads a whole frame as it stands. False if it is shorter than it should be.
    fn read_stored(&mut self, entry: &Entry) -> io::Result<bool> {
        self.stored.resize(HEADER_BYTES + entry.header.stored_length as usize, 0);
        Ok(index::read_at(self.reader.file(), &mut self.stored, entry.offset)? == self.stored.len())
    }
}

fn write_frame(target: &mut StreamWriter, mut decoded: Decoded, is_after_gap: bool) {
    let header = decoded.header;
    let mut skip = 0;
    let mut is_first = is_after_gap;
    while let Some((run, bytes)) = decoded.next_run(Selection::All, &mut skip) {
        if std::mem::take(&mut is_first) {
            seat(target, &header, &run);
        }
        target.write_run(run.stream, &bytes, run.time_us);
    }
    if is_first {
        target.skip_to(header.first_line, header.first_byte, header.ends);
    }
}

/// Goes on behind a gap where the frame does, joined to what the gap holds as the frame was.
fn seat(target: &mut StreamWriter, header: &Header, run: &Run) {
    let mut ends = Ends::default();
    let mut next_line = header.first_line;
    match run.joint {
        Joint::Fresh => {}
        Joint::Continued => ends.last[run.stream.index()] = LastEnd::Open,
        Joint::SameRow => {
            ends.last[run.stream.index()] = LastEnd::Open;
            ends.open_row = Some(run.stream);
            next_line = next_line.saturating_add(1);
        }
    }
    target.skip_to(next_line, header.first_byte, ends);
}
