//! What of packs was read lately and is likely to be asked for again: readers of large ones, and frames of which a part was told.
//!
//! Who looks at a log of 1 GiB asks for a part of it again and again, and to learn where its 4,000 frames stand takes longer than to
//! read two of them. Who follows one is told some hundred rows at a time, and a frame has thousands.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::index::Entry;
use super::pack::lock;
use super::{LogError, LogReader, Writing};

/// The most readers that are kept; the one that was kept longest ago goes first.
const READERS_MAX: usize = 4;
/// A pack with fewer frames is opened as quickly anew …
const FRAMES_MIN: usize = 64;
/// … and one with more would take more than 4 MB for each reader.
const FRAMES_MAX: usize = 32 * 1024;

/// The most frames that are kept, each of about 256 KiB; the one that was asked for longest ago goes first.
const FRAMES_KEPT_MAX: usize = 8;

/// See the head of this file.
#[derive(Default)]
pub(super) struct Opened {
    readers: Mutex<VecDeque<LogReader>>,
    frames: Arc<Frames>,
}

/// Contents of frames of which a part was read.
#[derive(Debug, Default)]
pub(super) struct Frames(Mutex<VecDeque<Frame>>);

/// One of them.
#[derive(Debug)]
struct Frame {
    /// Of which pack.
    path: PathBuf,
    /// Where it stands there. What its header says, checksum included, tells it from one that stands there later.
    entry: Entry,
    /// Decompressed.
    payload: Arc<Vec<u8>>,
}

impl Frame {
    fn is(&self, path: &Path, entry: &Entry) -> bool {
        self.entry.offset == entry.offset && self.entry.header == entry.header && self.path == path
    }
}

impl Frames {
    /// The content of a frame, if it is kept.
    pub fn find(&self, path: &Path, entry: &Entry) -> Option<Arc<Vec<u8>>> {
        let mut frames = lock(&self.0);
        let place = frames.iter().position(|frame| frame.is(path, entry))?;
        let frame = frames.remove(place)?;
        let payload = Arc::clone(&frame.payload);
        frames.push_back(frame);
        Some(payload)
    }

    /// Keeps the content of a frame whose end was not read yet.
    pub fn keep(&self, path: &Path, entry: &Entry, payload: &Arc<Vec<u8>>) {
        let mut frames = lock(&self.0);
        if frames.iter().any(|frame| frame.is(path, entry)) {
            return;
        }
        if frames.len() == FRAMES_KEPT_MAX {
            frames.pop_front();
        }
        frames.push_back(Frame { path: path.to_owned(), entry: *entry, payload: Arc::clone(payload) });
    }
}

impl Opened {
    /// As [`LogReader::open`].
    pub fn open(&self, path: &Path, writing: Writing) -> Result<LogReader, LogError> {
        let is_it = |reader: &&LogReader| reader.path() == path && reader.writing() == writing;
        let known = lock(&self.readers).iter().find(is_it).cloned();
        // What was deleted, or stands in a rewritten pack, is not read from what is kept.
        if let Some(mut reader) = known
            && reader.is_in_place()
        {
            if reader.refresh()? > 0 {
                self.keep(&reader);
            }
            return Ok(reader);
        }
        let reader = LogReader::open(path, writing)?.with_frames(&self.frames);
        self.keep(&reader);
        Ok(reader)
    }

    fn keep(&self, reader: &LogReader) {
        if !(FRAMES_MIN..=FRAMES_MAX).contains(&reader.frames()) {
            return;
        }
        let mut readers = lock(&self.readers);
        readers.retain(|kept| kept.path() != reader.path());
        if readers.len() == READERS_MAX {
            readers.pop_front();
        }
        readers.push_back(reader.clone());
    }

    /// Lets go of a pack that goes.
    pub fn forget(&self, path: &Path) {
        lock(&self.readers).retain(|kept| kept.path() != path);
        lock(&self.frames.0).retain(|kept| kept.path != path);
    }
}
