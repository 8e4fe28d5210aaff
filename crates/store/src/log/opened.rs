//! Readers of large packs that were opened lately. Who looks at a log of 1 GiB asks for a part of it again and again, and to learn
//! where its 4,000 frames stand takes longer than to read two of them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;

use super::pack::lock;
use super::{LogError, LogReader, Writing};

/// The most readers that are kept; the one that was kept longest ago goes first.
const READERS_MAX: usize = 4;
/// A pack with fewer frames is opened as quickly anew …
const FRAMES_MIN: usize = 64;
/// … and one with more would take more than 4 MB for each reader.
const FRAMES_MAX: usize = 32 * 1024;

/// See the head of this file.
#[derive(Default)]
pub(super) struct Opened {
    readers: Mutex<VecDeque<LogReader>>,
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
        let reader = LogReader::open(path, writing)?;
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
    }
}
