//! Where the frames of a pack stand: by the side file (`<build>.idx`) as far as it goes, then by the frame headers.
//!
//! The side file is never trusted further than the headers' own sums, is written late, and may be missing: it only
//! saves reading 4,000 headers of a 1 GiB log. It holds, after a header of 16 bytes, 96 bytes for each frame: its
//! offset and a copy of its header.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::LogError;
use super::frame::{self, FRAME_MAGIC, HEADER_BYTES, Header, PACK_HEADER_BYTES};

const SIDE_MAGIC: [u8; 8] = *b"RWLOGIDX";
const SIDE_ENTRY_BYTES: usize = 8 + HEADER_BYTES;

/// Frames are noted in the side file in batches of this many. A pack with fewer has none.
const SIDE_BATCH: usize = 64;

/// How much is read at once while headers are read or looked for.
const WINDOW_BYTES: usize = 4096;

/// A frame and its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub offset: u64,
    pub header: Header,
}

impl Entry {
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.header.frame_length())
    }
}

/// What stands behind the last whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    Clean,
    /// Part of a frame, with its header if that is whole.
    Torn(Option<Header>),
}

/// The path of the side file.
pub(super) fn side_path(pack: &Path) -> PathBuf {
    pack.with_extension("idx")
}

/// Checks the header of a pack. An empty file, or one that was torn within its header, counts as an empty pack.
pub(super) fn check_pack(file: &File, path: &Path) -> Result<(), LogError> {
    let mut bytes = [0; PACK_HEADER_BYTES];
    let length = read_at(file, &mut bytes, 0)?;
    if length < PACK_HEADER_BYTES {
        return match frame::pack_header().starts_with(&bytes[..length]) {
            true => Ok(()),
            false => Err(LogError::NotALog(path.to_owned())),
        };
    }
    if bytes[..8] != frame::PACK_MAGIC {
        return Err(LogError::NotALog(path.to_owned()));
    }
    match u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) {
        frame::FORMAT_VERSION => Ok(()),
        version => Err(LogError::Newer(version)),
    }
}

/// The frames that the side file knows, in the order of the pack, as far as they follow one another without a hole.
/// Empty if there is no side file or it cannot be read.
pub(super) fn read_side_file(pack: &Path, pack_length: u64) -> Vec<Entry> {
    let mut bytes = Vec::new();
    let read = File::open(side_path(pack)).and_then(|mut file| file.read_to_end(&mut bytes));
    let mut entries = Vec::new();
    if read.is_err() || bytes.len() < PACK_HEADER_BYTES || bytes[..PACK_HEADER_BYTES] != side_header() {
        return entries;
    }
    let mut end = PACK_HEADER_BYTES as u64;
    let (chunks, _) = bytes[PACK_HEADER_BYTES..].as_chunks::<SIDE_ENTRY_BYTES>();
    for chunk in chunks {
        let (offset, header) = chunk.split_at(8);
        let offset = u64::from_le_bytes(offset.try_into().expect("split at 8"));
        let header = header.try_into().expect("an entry is an offset and a header");
        let Some(header) = frame::decode_header(header, offset) else { break };
        let entry = Entry { offset, header };
        if offset != end || entry.end() > pack_length {
            break;
        }
        end = entry.end();
        entries.push(entry);
    }
    entries
}

/// Adds the frames from `from` on. Returns where the last whole one ends, and what comes after it.
///
/// A header that cannot be read is followed by a search for the next that can: what lies between shows as a gap in
/// the streams it belonged to.
pub(super) fn scan(file: &File, from: u64, length: u64, entries: &mut Vec<Entry>) -> io::Result<(u64, Tail)> {
    let mut window = Window { file, start: 0, bytes: Vec::new() };
    let mut end = from.max(PACK_HEADER_BYTES as u64);
    let mut at = end;
    while at < length {
        let header = match window.header(at)? {
            Some(header) => header,
            None => match window.next_header(at + 1, length)? {
                Some(found) => {
                    at = found;
                    continue;
                }
                None => return Ok((end, Tail::Torn(None))),
            },
        };
        let entry = Entry { offset: at, header };
        if entry.end() > length {
            return Ok((end, Tail::Torn(Some(header))));
        }
        entries.push(entry);
        end = entry.end();
        at = end;
    }
    Ok((end, Tail::Clean))
}

/// A piece of the file that has been read already.
struct Window<'a> {
    file: &'a File,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The bytes from `at` on: at least a header's, unless the file ends.
    fn bytes_from(&mut self, at: u64) -> io::Result<&[u8]> {
        let inside = at.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        if let Some(skip) = inside.filter(|skip| skip + HEADER_BYTES <= self.bytes.len()) {
            return Ok(&self.bytes[skip..]);
        }
        self.bytes.resize(WINDOW_BYTES, 0);
        let length = read_at(self.file, &mut self.bytes, at)?;
        self.bytes.truncate(length);
        self.start = at;
        Ok(&self.bytes)
    }

    fn header(&mut self, at: u64) -> io::Result<Option<Header>> {
        let bytes = self.bytes_from(at)?;
        Ok(bytes.first_chunk::<HEADER_BYTES>().and_then(|bytes| frame::decode_header(bytes, at)))
    }

    /// The place of the first header at or after `at` that is whole.
    fn next_header(&mut self, mut at: u64, length: u64) -> io::Result<Option<u64>> {
        while at + HEADER_BYTES as u64 <= length {
            let bytes = self.bytes_from(at)?;
            if bytes.len() < HEADER_BYTES {
                break;
            }
            let candidate = memchr::memmem::find(bytes, &FRAME_MAGIC);
            match candidate {
                Some(skip) => {
                    at += skip as u64;
                    if self.header(at)?.is_some() {
                        return Ok(Some(at));
                    }
                    at += 1;
                }
                None => at += (bytes.len() - (FRAME_MAGIC.len() - 1)) as u64,
            }
        }
        Ok(None)
    }
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn side_header() -> [u8; PACK_HEADER_BYTES] {
    let mut bytes = frame::pack_header();
    bytes[..8].copy_from_slice(&SIDE_MAGIC);
    bytes
}

/// Writes the side file. What it meets is swallowed: readers do without it.
pub(super) struct SideFile {
    path: PathBuf,
    file: Option<File>,
    /// Where the next batch goes.
    end: u64,
    waiting: Vec<u8>,
    state: SideState,
}

enum SideState {
    Kept,
    GivenUp,
}

impl SideFile {
    /// Begins anew with the frames that the pack has already.
    pub fn new(pack: &Path, entries: &[Entry]) -> Self {
        let path = side_path(pack);
        // A side file of an earlier pack of this name would be refused by its sums at best; do without it.
        let _ = std::fs::remove_file(&path);
        let mut side = Self { path, file: None, end: 0, waiting: Vec::new(), state: SideState::Kept };
        for entry in entries {
            side.note(entry.offset, &frame::encode_header(&entry.header, entry.offset));
        }
        side
    }

    /// Notes a frame that has been appended.
    pub fn note(&mut self, offset: u64, header: &[u8; HEADER_BYTES]) {
        if matches!(self.state, SideState::GivenUp) {
            return;
        }
        self.waiting.extend_from_slice(&offset.to_le_bytes());
        self.waiting.extend_from_slice(header);
        if self.waiting.len() >= SIDE_BATCH * SIDE_ENTRY_BYTES {
            self.write();
        }
    }

    /// Writes what waits, if the pack is large enough to have a side file.
    pub fn finish(&mut self) {
        if self.file.is_some() && !self.waiting.is_empty() {
            self.write();
        }
    }

    fn write(&mut self) {
        if self.try_write().is_err() {
            self.state = SideState::GivenUp;
            self.file = None;
        }
        self.waiting.clear();
    }

    fn try_write(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            let file = File::create(&self.path)?;
            file.write_all_at(&side_header(), 0)?;
            self.end = PACK_HEADER_BYTES as u64;
            self.file = Some(file);
        }
        let file = self.file.as_ref().expect("opened above");
        file.write_all_at(&self.waiting, self.end)?;
        self.end += self.waiting.len() as u64;
        Ok(())
    }
}
