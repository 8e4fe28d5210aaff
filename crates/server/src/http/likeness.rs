//! Which lines of a log an earlier one says too, apart from numbers: what is usual can be shown as such.
//!
//! The earlier log is known by hashes of its lines, part by part, as far as parts near the lines in question go. What is read for one
//! line is bounded by [`PART_LINES`] and [`PART_BYTES_MAX`], what is kept by [`PARTS_KEPT`], whatever logs hold.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

use graph::BuildId;
use store::log::{Item, LogError, LogReader, StreamKey};

use crate::lock::lock;

/// How many lines are known together.
const PART_LINES: u64 = 32_768;
/// Lines of a part behind so many bytes are not known.
const PART_BYTES_MAX: usize = 16 << 20;
/// A line is compared by its first bytes.
const LINE_BYTES_MAX: usize = 1024;
/// How many parts are kept, those that were asked for last.
const PARTS_KEPT: usize = 64;

/// Whether a line is in the log that it was compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// It is not, or nothing was compared.
    Own,
    /// It is, near the same place.
    Same,
}

/// The hashes of a part's lines, sorted.
type Part = Arc<[u64]>;
/// Names a part: the build, its stream, which part.
type Name = (BuildId, StreamKey, u64);

/// Parts of logs that were compared with lately.
#[derive(Default)]
pub struct KnownParts(Mutex<VecDeque<(Name, Part)>>);

impl KnownParts {
    fn find(&self, name: Name) -> Option<Part> {
        let mut parts = lock(&self.0);
        let index = parts.iter().position(|(known, _)| *known == name)?;
        let found = parts.remove(index)?;
        let part = Arc::clone(&found.1);
        parts.push_back(found);
        Some(part)
    }

    fn keep(&self, name: Name, part: &Part) {
        let mut parts = lock(&self.0);
        if parts.len() >= PARTS_KEPT {
            parts.pop_front();
        }
        parts.push_back((name, Arc::clone(part)));
    }
}

/// A log that another is compared with. It is not written any more.
pub struct Earlier {
    build: BuildId,
    key: StreamKey,
    reader: LogReader,
    /// The parts at hand, by their index: those around the last line asked for.
    at_hand: Vec<(u64, Part)>,
}

impl Earlier {
    /// The log of a step.
    pub fn new(build: BuildId, key: StreamKey, reader: LogReader) -> Self {
        Self { build, key, reader, at_hand: Vec::new() }
    }

    /// Whether the log says this line near this place. Blocks.
    ///
    /// # Errors
    /// What the file system says.
    pub fn likeness(&mut self, known: &KnownParts, number: u64, line: &[u8]) -> Result<Likeness, LogError> {
        let index = number / PART_LINES;
        let wanted = index.saturating_sub(1)..=index.saturating_add(1);
        self.at_hand.retain(|(index, _)| wanted.contains(index));
        let hash = hash(line);
        for index in wanted {
            let part = match self.at_hand.iter().find(|(at_hand, _)| *at_hand == index) {
                Some((_, part)) => Arc::clone(part),
                None => {
                    let part = self.part(known, index)?;
                    self.at_hand.push((index, Arc::clone(&part)));
                    part
                }
            };
            if part.binary_search(&hash).is_ok() {
                return Ok(Likeness::Same);
            }
        }
        Ok(Likeness::Own)
    }

    fn part(&self, known: &KnownParts, index: u64) -> Result<Part, LogError> {
        let name = (self.build, self.key, index);
        if let Some(part) = known.find(name) {
            return Ok(part);
        }
        let from = index.saturating_mul(PART_LINES);
        let (mut hashes, mut bytes) = (Vec::new(), 0);
        for item in self.reader.lines(self.key, from..from.saturating_add(PART_LINES)) {
            if let Item::Line(line) = item? {
                bytes += line.bytes.len();
                hashes.push(hash(&line.bytes));
            }
            if bytes > PART_BYTES_MAX {
                break;
            }
        }
        hashes.sort_unstable();
        hashes.dedup();
        let part = Part::from(hashes);
        known.keep(name, &part);
        Ok(part)
    }
}

/// Of what a line says, without what differs from run to run: numbers, digests, colours, the width of spaces.
fn hash(line: &[u8]) -> u64 {
    let mut clean = Vec::with_capacity(line.len().min(LINE_BYTES_MAX));
    store::log::Escapes::default().strip(&line[..line.len().min(LINE_BYTES_MAX)], &mut clean);
    let mut hasher = DefaultHasher::new();
    for word in clean.chunk_by(|left, right| left.is_ascii_alphanumeric() == right.is_ascii_alphanumeric()) {
        let is_digest =
            word.len() >= 7 && word.iter().all(u8::is_ascii_hexdigit) && word.iter().any(u8::is_ascii_digit);
        if is_digest || word.iter().all(u8::is_ascii_digit) {
            b"0".hash(&mut hasher);
        } else if word.iter().all(u8::is_ascii_whitespace) {
            b" ".hash(&mut hasher);
        } else {
            for piece in word.chunk_by(|left, right| left.is_ascii_digit() == right.is_ascii_digit()) {
                if piece[0].is_ascii_digit() { b"0".hash(&mut hasher) } else { piece.hash(&mut hasher) }
            }
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_compared_without_what_differs_from_run_to_run() {
        for (left, right, expected) in [
            ("test a ... ok", "test a ... ok", true),
            ("finished in 1.25 s", "finished in 13.07 s", true),
            ("at 4f1c9aa07b", "at 0099aabbcc", true),
            ("\x1b[32mok\x1b[0m  a", "ok a", true),
            ("leg2 done", "leg14 done", true),
            ("test a ... ok", "test a ... FAILED", false),
            ("facade", "decade", false),
        ] {
            assert_eq!(hash(left.as_bytes()) == hash(right.as_bytes()), expected, "{left} / {right}");
        }
    }
}
