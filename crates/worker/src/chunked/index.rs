//! The index of a kept tree: its files by name, the chunks that they are made of, and the packs that hold the chunks.
//!
//! An index comes from storage that others write to. [`Index::decode`] believes nothing: whoever holds an [`Index`] holds names that stay
//! inside, chunks that lie in their packs, and files as long as their chunks.

use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use graph::Digest;

use super::cut::CHUNK_BYTES_MAX;
use super::pack::PACK_BYTES_MAX;
use crate::patterns::by_bytes;

/// What every index begins with; the last byte is the version of the format.
pub const MAGIC: [u8; 16] = *b"ropewalk index\n\x01";

/// The longest name of an entry, and the longest target of a link, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;

/// The longest index, in bytes.
pub const INDEX_BYTES_MAX: u64 = 1 << 30;

/// A pack: the blob that holds chunks one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pack {
    /// The blob.
    pub digest: Digest,
    /// How long it is, at most [`PACK_BYTES_MAX`].
    pub bytes: u32,
}

/// A chunk and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Of its bytes.
    pub digest: Digest,
    /// Which of [`Index::packs`] holds it.
    pub pack: u32,
    /// Where in the pack it begins.
    pub offset: u32,
    /// How long it is, from 1 to [`CHUNK_BYTES_MAX`].
    pub length: u32,
}

/// A file, link or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name: relative, of plain components, at most [`PATH_BYTES_MAX`] bytes.
    pub path: PathBuf,
    /// Its permissions, the lower nine bits.
    pub mode: u16,
    /// When it was modified, in nanoseconds since the Unix epoch.
    pub modified_ns: i64,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// How long it is.
        bytes: u64,
        /// Which of [`Index::uses`] make it up.
        uses: Range<u32>,
    },
    /// A symbolic link.
    Link {
        /// Where it leads.
        target: PathBuf,
    },
    /// In an overlay's layer: what hides a name of the layers below.
    Whiteout,
    /// In an overlay's layer: a directory that hides all that the layers below have in it.
    Opaque,
}

impl Kind {
    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self, Self::Directory | Self::Opaque)
    }
}

/// The files of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// The packs, no duplicates.
    pub packs: Vec<Pack>,
    /// The chunks, no duplicates.
    pub chunks: Vec<Chunk>,
    /// Numbers of chunks; a file's are together, in the order of its bytes.
    pub uses: Vec<u32>,
    /// Sorted by name, byte by byte; no duplicates.
    pub entries: Vec<Entry>,
}

/// Bytes that are no index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the index is damaged: {0}")]
pub struct IndexFault(String);

fn damaged<T>(what: impl Into<String>) -> Result<T, IndexFault> {
    Err(IndexFault(what.into()))
}

impl Index {
    /// The chunks of a file in order.
    pub fn chunks_of(&self, uses: &Range<u32>) -> impl Iterator<Item = &Chunk> {
        self.uses[uses.start as usize..uses.end as usize].iter().map(|&number| &self.chunks[number as usize])
    }

    /// Files and links.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.entries.iter().filter(|entry| !entry.kind.is_directory()).count() as u64
    }

    /// The entry of a name.
    #[must_use]
    pub fn entry(&self, name: &Path) -> Option<&Entry> {
        let place = self.entries.binary_search_by(|entry| by_bytes(&entry.path, name)).ok()?;
        self.entries.get(place)
    }

    /// The bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| if let Kind::File { bytes, .. } = entry.kind { bytes } else { 0 }).sum()
    }

    /// The bytes that [`Index::decode`] reads. Equal trees in equal packs have equal ones.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes =
            Vec::with_capacity(64 + self.packs.len() * 36 + self.chunks.len() * 44 + self.entries.len() * 96);
        bytes.extend_from_slice(&MAGIC);
        put_count(&mut bytes, self.packs.len());
        for pack in &self.packs {
            bytes.extend_from_slice(&pack.digest.0);
            bytes.extend_from_slice(&pack.bytes.to_le_bytes());
        }
        put_count(&mut bytes, self.chunks.len());
        for chunk in &self.chunks {
            bytes.extend_from_slice(&chunk.digest.0);
            for number in [chunk.pack, chunk.offset, chunk.length] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        put_count(&mut bytes, self.entries.len());
        for entry in &self.entries {
            self.put_entry(&mut bytes, entry);
        }
        bytes
    }

    fn put_entry(&self, bytes: &mut Vec<u8>, entry: &Entry) {
        put_path(bytes, &entry.path);
        bytes.extend_from_slice(&entry.mode.to_le_bytes());
        bytes.extend_from_slice(&entry.modified_ns.to_le_bytes());
        match &entry.kind {
            Kind::Directory => bytes.push(0),
            Kind::File { bytes: length, uses } => {
                bytes.push(1);
                bytes.extend_from_slice(&length.to_le_bytes());
                put_count(bytes, uses.len());
                for number in &self.uses[uses.start as usize..uses.end as usize] {
                    bytes.extend_from_slice(&number.to_le_bytes());
                }
            }
            Kind::Link { target } => {
                bytes.push(2);
                put_path(bytes, target);
            }
            // A reader that knows no layers takes these for damage.
            Kind::Whiteout => bytes.push(3),
            Kind::Opaque => bytes.push(4),
        }
    }

    /// Reads an index that somebody wrote.
    ///
    /// # Errors
    /// [`IndexFault`] if any word of [`Index`] is not true of it.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexFault> {
        let mut reader = Reader(bytes);
        if reader.array::<16>()? != MAGIC {
            return damaged("it does not begin as one");
        }
        let mut index = Self::default();
        for _ in 0..reader.count(36)? {
            let pack = Pack { digest: Digest(reader.array()?), bytes: reader.u32()? };
            if pack.bytes > PACK_BYTES_MAX {
                return damaged("a pack is too long");
            }
            index.packs.push(pack);
        }
        for _ in 0..reader.count(44)? {
            let digest = Digest(reader.array()?);
            let chunk = Chunk { digest, pack: reader.u32()?, offset: reader.u32()?, length: reader.u32()? };
            let pack_bytes = index.packs.get(chunk.pack as usize).map(|pack| u64::from(pack.bytes));
            let is_inside = pack_bytes.is_some_and(|bytes| u64::from(chunk.offset) + u64::from(chunk.length) <= bytes);
            if !is_inside || chunk.length == 0 || chunk.length as usize > CHUNK_BYTES_MAX {
                return damaged("a chunk lies outside its pack");
            }
            index.chunks.push(chunk);
        }
        for _ in 0..reader.count(13)? {
            let entry = reader.entry(&mut index)?;
            if index.entries.last().is_some_and(|last: &Entry| by_bytes(&last.path, &entry.path).is_ge()) {
                return damaged("names are not in order");
            }
            index.entries.push(entry);
        }
        if reader.0.is_empty() { Ok(index) } else { damaged("something comes after it") }
    }
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    // Counts are bounded far below by what an index may hold.
    bytes.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_path(bytes: &mut Vec<u8>, path: &Path) {
    let path = path.as_os_str().as_bytes();
    bytes.extend_from_slice(&u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend_from_slice(path);
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Result<&'b [u8], IndexFault> {
        match self.0.split_at_checked(length) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => damaged("it is cut off"),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], IndexFault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, IndexFault> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// How many things follow, each at least so long: no more than there can be.
    fn count(&mut self, bytes_each_min: usize) -> Result<u32, IndexFault> {
        let count = self.u32()?;
        if count as usize > self.0.len() / bytes_each_min { damaged("it is cut off") } else { Ok(count) }
    }

    fn path(&mut self) -> Result<PathBuf, IndexFault> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        if length == 0 || length > PATH_BYTES_MAX {
            return damaged("a path is empty or too long");
        }
        let path = self.take(length)?;
        if path.contains(&0) {
            return damaged("a path holds a zero");
        }
        Ok(PathBuf::from(OsStr::from_bytes(path)))
    }

    fn entry(&mut self, index: &mut Index) -> Result<Entry, IndexFault> {
        let path = self.path()?;
        if !path.components().all(|component| matches!(component, Component::Normal(_))) {
            return damaged(format!("it names `{}`", path.display()));
        }
        let mode = u16::from_le_bytes(self.array()?) & 0o777;
        let modified_ns = i64::from_le_bytes(self.array()?);
        let kind = match self.array()? {
            [0] => Kind::Directory,
            [1] => self.file(index)?,
            [2] => Kind::Link { target: self.path()? },
            [3] => Kind::Whiteout,
            [4] => Kind::Opaque,
            _ => return damaged(format!("`{}` is neither file, link nor directory", path.display())),
        };
        Ok(Entry { path, mode, modified_ns, kind })
    }

    fn file(&mut self, index: &mut Index) -> Result<Kind, IndexFault> {
        let bytes = u64::from_le_bytes(self.array()?);
        let start = index.uses.len();
        let mut held = 0;
        for _ in 0..self.count(4)? {
            let number = self.u32()?;
            match index.chunks.get(number as usize) {
                Some(chunk) => held += u64::from(chunk.length),
                None => return damaged("a file names a chunk that is none"),
            }
            index.uses.push(number);
        }
        // The index itself is shorter than four times what a number of this kind can say.
        let place = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        let uses = place(start)..place(index.uses.len());
        if held == bytes { Ok(Kind::File { bytes, uses }) } else { damaged("a file is not as long as its chunks") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Index {
        let digest = |byte| Digest([byte; 32]);
        let entry = |path: &str, kind| Entry { path: path.into(), mode: 0o644, modified_ns: -5, kind };
        Index {
            packs: vec![Pack { digest: digest(1), bytes: 30 }],
            chunks: vec![
                Chunk { digest: digest(2), pack: 0, offset: 0, length: 10 },
                Chunk { digest: digest(3), pack: 0, offset: 10, length: 20 },
            ],
            uses: vec![0, 1, 1],
            entries: vec![
                entry("0/a", Kind::Directory),
                entry("0/a/b", Kind::File { bytes: 30, uses: 0..2 }),
                entry("0/a/c", Kind::File { bytes: 20, uses: 2..3 }),
                entry("0/a/d", Kind::File { bytes: 0, uses: 3..3 }),
                entry("0/l", Kind::Link { target: "../x".into() }),
            ],
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let index = sample();
        assert_eq!(Index::decode(&index.encode()), Ok(index));
        assert_eq!(Index::decode(&Index::default().encode()), Ok(Index::default()));
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Index), expected: &str) {
        let mut index = sample();
        change(&mut index);
        let fault = Index::decode(&index.encode()).expect_err("it is refused").to_string();
        assert_eq!(fault, format!("the index is damaged: {expected}"));
    }

    #[test]
    fn what_is_not_true_is_refused() {
        check(|index| index.entries[4].path = "../x".into(), "it names `../x`");
        check(|index| index.entries[4].path = "/etc/x".into(), "it names `/etc/x`");
        check(|index| index.entries[4].path = "0/a/../../x".into(), "it names `0/a/../../x`");
        check(|index| index.entries[4].path = "x".repeat(5000).into(), "a path is empty or too long");
        check(|index| index.entries[4].path = "0/a/c".into(), "names are not in order");
        check(|index| index.packs[0].bytes = 29, "a chunk lies outside its pack");
        check(|index| index.chunks[0].pack = 1, "a chunk lies outside its pack");
        check(|index| index.chunks[0].length = 0, "a chunk lies outside its pack");
        check(|index| index.uses[0] = 2, "a file names a chunk that is none");
        check(|index| index.uses[0] = 1, "a file is not as long as its chunks");
    }

    #[test]
    fn no_beginning_of_an_index_is_one() {
        let bytes = sample().encode();
        for length in 0..bytes.len() {
            Index::decode(&bytes[..length]).expect_err("it is cut off");
        }
        let mut longer = bytes;
        longer.push(0);
        Index::decode(&longer).expect_err("it is too long");
    }
}
