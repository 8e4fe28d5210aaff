//! Keeping a tree: what stamps say is unchanged is taken from a base, the rest is read, cut and packed.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use graph::Digest;

use super::cut::{CHUNK_BYTES_MAX, first_chunk};
use super::index::{Chunk, Entry, INDEX_BYTES_MAX, Index, Kind, PATH_BYTES_MAX, Pack};
use super::pack::{PackWriter, place};
use super::{Base, modified_ns};
use crate::archive::{ArchiveFault, Bounds, refused};
use crate::depot::Depot;
use crate::files::Found;
use crate::patterns::by_bytes;

/// How much of a file is in memory at once.
const BUFFER_BYTES: usize = 8 * CHUNK_BYTES_MAX;

/// A pack of a base of which less than one part in so many is still needed is not named again: what is needed of it is packed anew.
const WASTE: u64 = 4;

/// A tree that is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its index.
    pub index: Index,
    /// The blob that the index is.
    pub digest: Digest,
    /// How long that blob is.
    pub index_bytes: u64,
    /// How many files were read; the others are as the base said.
    pub files_read: u64,
    /// Bytes of the packs that were put.
    pub put_bytes: u64,
}

impl Kept {
    /// What all blobs of the tree hold: index and packs.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.index_bytes + self.index.packs.iter().map(|pack| u64::from(pack.bytes)).sum::<u64>()
    }
}

/// Keeps files under their names, which are sorted and differ. Files of the `bases` are not read if their stamps say that they need not; the first
/// base that knows a file is believed. Sockets, pipes and devices are passed over.
///
/// # Errors
/// [`ArchiveFault`]; packs that were put before it stay until somebody collects them.
pub fn keep(
    files: &[(PathBuf, Found)],
    bases: &[Base],
    bounds: Bounds,
    depot: &dyn Depot,
) -> Result<Kept, ArchiveFault> {
    keep_layers(files, &HashMap::new(), bases, bounds, depot)
}

/// As [`keep`], of layers of an overlay: what `marks` names is [`Kind::Whiteout`] or [`Kind::Opaque`], whatever was found there. A file of
/// several names is read once.
///
/// # Errors
/// As [`keep`].
pub fn keep_layers(
    files: &[(PathBuf, Found)],
    marks: &HashMap<PathBuf, Kind>,
    bases: &[Base],
    bounds: Bounds,
    depot: &dyn Depot,
) -> Result<Kept, ArchiveFault> {
    if files.len() as u64 > bounds.files_max {
        return Err(ArchiveFault::TooMany(bounds.files_max));
    }
    let places: Vec<Places<'_>> = bases.iter().map(|base| (base, base.places())).collect();
    let unchanged = unchanged(files, &places);
    // Of a file that changed most chunks may be those that it had.
    let there = files.iter().flat_map(|(name, _)| of_name(name, &places));
    let dropped = dropped_packs(there.map(|(base, entry)| (&*base.index, entry)), bases, depot)?;
    let mut keeping = Keeping::new(known_chunks(bases, &dropped), bounds, depot);
    for ((name, found), base) in files.iter().zip(unchanged) {
        match marks.get(name) {
            Some(mark) => keeping.mark(name, found, mark)?,
            None => keeping.add(name, found, base)?,
        }
    }
    keeping.end(depot)
}

/// How a tree differs from an index of it that is known.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// What is there now in place of what the index says, sorted by name, no duplicates.
    pub found: Vec<(PathBuf, Found)>,
    /// Names, as bytes, of which the index says nothing that is true any more.
    pub covered: HashMap<Vec<u8>, Covers>,
}

/// What of an index a name covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    /// The entry of this name.
    Itself,
    /// And all that are in it.
    AllBelow,
}

impl Changes {
    /// Whether an entry of the index is as it was.
    fn spare(&self, entry: &Entry) -> bool {
        let name = entry.path.as_os_str().as_bytes();
        // What is cached itself was named with a slash at its end.
        let name = name.strip_suffix(b"/").unwrap_or(name);
        let above = name.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| &name[..end]);
        !self.covered.contains_key(name)
            && above.into_iter().all(|directory| self.covered.get(directory) != Some(&Covers::AllBelow))
    }
}

/// Keeps what an index says but for the changes, without a look at what has not changed. `None` if a pack that is still needed is gone or holds
/// too little that is: then the files must be read, by [`keep`].
///
/// # Errors
/// As [`keep`].
pub fn keep_changes(
    base: &Base,
    changes: &Changes,
    bounds: Bounds,
    depot: &dyn Depot,
) -> Result<Option<Kept>, ArchiveFault> {
    let index = &*base.index;
    let same: Vec<&Entry> = index.entries.iter().filter(|entry| changes.spare(entry)).collect();
    if (same.len() + changes.found.len()) as u64 > bounds.files_max {
        return Err(ArchiveFault::TooMany(bounds.files_max));
    }
    let bases = std::slice::from_ref(base);
    let is_found = |entry: &Entry| changes.found.binary_search_by(|(name, _)| by_bytes(name, &entry.path)).is_ok();
    let there = index.entries.iter().filter(|entry| changes.spare(entry) || is_found(entry));
    let dropped = dropped_packs(there.map(|entry| (index, entry)), bases, depot)?;
    let mut keeping = Keeping::new(known_chunks(bases, &dropped), bounds, depot);
    if same.iter().any(|entry| !keeping.knows(index, entry)) {
        return Ok(None);
    }
    let mut found = changes.found.iter().peekable();
    for entry in same {
        while let Some((name, found)) = found.next_if(|(name, _)| by_bytes(name, &entry.path).is_lt()) {
            keeping.add(name, found, None)?;
        }
        keeping.add_known(index, entry)?;
    }
    for (name, found) in found {
        keeping.add(name, found, None)?;
    }
    keeping.end(depot).map(Some)
}

/// For each file the base and the entry that say what is in it.
type Unchanged<'b> = Vec<Option<(&'b Index, &'b Entry)>>;

/// A base with the numbers of its entries by name.
type Places<'b> = (&'b Base, HashMap<&'b Path, usize>);

/// What the bases have of a name.
fn of_name<'b>(name: &Path, places: &[Places<'b>]) -> impl Iterator<Item = (&'b Base, &'b Entry)> {
    places.iter().filter_map(move |(base, places)| Some((*base, &base.index.entries[*places.get(name)?])))
}

fn unchanged<'b>(files: &[(PathBuf, Found)], places: &[Places<'b>]) -> Unchanged<'b> {
    let find = |(name, found): &(PathBuf, Found)| {
        let same = of_name(name, places).find(|(base, entry)| base.is_same(entry, &found.metadata));
        same.map(|(base, entry)| (&*base.index, entry))
    };
    files.iter().map(find).collect()
}

/// Those of the files that no base knows as they are.
pub(crate) fn changed<'f>(files: &'f [(PathBuf, Found)], bases: &[Base]) -> Vec<&'f Found> {
    let places: Vec<Places<'_>> = bases.iter().map(|base| (base, base.places())).collect();
    let of_files = files.iter().zip(unchanged(files, &places));
    of_files.filter(|(_, base)| base.is_none()).map(|((_, found), _)| found).collect()
}

/// The packs of the bases that are not to be named again: they are gone, or hold too little of `there`, the entries of what is there still,
/// changed or not.
fn dropped_packs<'b>(
    there: impl Iterator<Item = (&'b Index, &'b Entry)>,
    bases: &[Base],
    depot: &dyn Depot,
) -> Result<HashSet<Digest>, ArchiveFault> {
    let mut needed: HashMap<Digest, HashMap<u32, u32>> = HashMap::new();
    for (index, entry) in there {
        let Kind::File { uses, .. } = &entry.kind else { continue };
        for chunk in index.chunks_of(uses) {
            needed.entry(index.packs[chunk.pack as usize].digest).or_default().insert(chunk.offset, chunk.length);
        }
    }
    let all: HashMap<Digest, u32> =
        bases.iter().flat_map(|base| &base.index.packs).map(|pack| (pack.digest, pack.bytes)).collect();
    let is_waste = |digest: &Digest, bytes: u32| {
        let needed = needed.get(digest).map_or(0, |chunks| chunks.values().map(|&length| u64::from(length)).sum());
        needed < u64::from(bytes) / WASTE
    };
    let mut dropped: HashSet<Digest> =
        all.iter().filter(|(digest, bytes)| is_waste(digest, **bytes)).map(|(digest, _)| *digest).collect();
    let mut named: Vec<Digest> = all.into_keys().filter(|digest| !dropped.contains(digest)).collect();
    named.sort_unstable();
    dropped.extend(depot.missing(&named)?);
    Ok(dropped)
}

/// Where chunks lie that need not be put again.
fn known_chunks<'b>(bases: &'b [Base], dropped: &HashSet<Digest>) -> HashMap<Digest, (Pack, &'b Chunk)> {
    let mut known = HashMap::new();
    for base in bases {
        let index = &base.index;
        for chunk in &index.chunks {
            let pack = index.packs[chunk.pack as usize];
            if !dropped.contains(&pack.digest) {
                known.entry(chunk.digest).or_insert((pack, chunk));
            }
        }
    }
    known
}

struct Keeping<'b, 'd> {
    /// What is known already: packs of bases, and the entries of all files.
    index: Index,
    known: HashMap<Digest, (Pack, &'b Chunk)>,
    /// Numbers of chunks by digest; those of fresh packs from [`FRESH`] on.
    numbers: HashMap<Digest, u32>,
    packs: HashMap<Digest, u32>,
    writer: PackWriter<'d>,
    /// The packs that are put now, and their chunks.
    fresh: Index,
    /// What files are made of that have several names, by device and inode.
    twins: HashMap<(u64, u64), Range<u32>>,
    bounds: Bounds,
    bytes: u64,
    files_read: u64,
}

/// What chunks of fresh packs are numbered from until it is known how many come before them.
const FRESH: u32 = 1 << 31;

impl<'b, 'd> Keeping<'b, 'd> {
    fn new(known: HashMap<Digest, (Pack, &'b Chunk)>, bounds: Bounds, depot: &'d dyn Depot) -> Self {
        Self {
            index: Index::default(),
            known,
            numbers: HashMap::new(),
            packs: HashMap::new(),
            writer: PackWriter::new(depot),
            fresh: Index::default(),
            twins: HashMap::new(),
            bounds,
            bytes: 0,
            files_read: 0,
        }
    }

    fn add(&mut self, name: &Path, found: &Found, base: Option<(&Index, &Entry)>) -> Result<(), ArchiveFault> {
        let metadata = &found.metadata;
        let kind = metadata.file_type();
        if kind.is_socket() || kind.is_fifo() || kind.is_char_device() || kind.is_block_device() {
            return Ok(());
        }
        check_name(name)?;
        let (kind, mode, modified_ns) = if kind.is_dir() {
            (Kind::Directory, metadata.mode(), modified_ns(metadata))
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&found.place).map_err(refused(&found.place))?;
            (Kind::Link { target }, 0o777, modified_ns(metadata))
        } else {
            let start = place(self.index.uses.len());
            let twin = (metadata.nlink() > 1).then_some((metadata.dev(), metadata.ino()));
            let before = twin.and_then(|twin| self.twins.get(&twin).cloned());
            let (bytes, metadata) = match base.map(|(index, entry)| self.take(index, entry)) {
                Some(true) => (metadata.len(), None),
                _ => match before {
                    Some(uses) => (self.take_twin(uses), None),
                    None => self.read(found)?,
                },
            };
            self.count(bytes)?;
            let metadata = metadata.as_ref().unwrap_or(&found.metadata);
            let uses = start..place(self.index.uses.len());
            if let Some(twin) = twin {
                self.twins.entry(twin).or_insert_with(|| uses.clone());
            }
            (Kind::File { bytes, uses }, metadata.mode(), modified_ns(metadata))
        };
        // Nine bits fit.
        let mode = u16::try_from(mode & 0o777).unwrap_or(0);
        self.index.entries.push(Entry { path: name.to_owned(), mode, modified_ns, kind });
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<(), ArchiveFault> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.bounds.bytes_max { Err(ArchiveFault::TooLarge(self.bounds.bytes_max)) } else { Ok(()) }
    }

    /// Adds an entry as a base has it, of which [`Keeping::knows`] all.
    fn add_known(&mut self, index: &Index, entry: &Entry) -> Result<(), ArchiveFault> {
        let kind = match &entry.kind {
            Kind::File { bytes, .. } => {
                let start = place(self.index.uses.len());
                self.take(index, entry);
                self.count(*bytes)?;
                Kind::File { bytes: *bytes, uses: start..place(self.index.uses.len()) }
            }
            other => other.clone(),
        };
        self.index.entries.push(Entry { path: entry.path.clone(), kind, ..*entry });
        Ok(())
    }

    /// Whether all chunks of an entry are still in packs.
    fn knows(&self, index: &Index, entry: &Entry) -> bool {
        let Kind::File { uses, .. } = &entry.kind else { return true };
        index.chunks_of(uses).all(|chunk| self.known.contains_key(&chunk.digest))
    }

    /// Notes an entry that only a layer has.
    fn mark(&mut self, name: &Path, found: &Found, mark: &Kind) -> Result<(), ArchiveFault> {
        check_name(name)?;
        // Nine bits fit.
        let mode = u16::try_from(found.metadata.mode() & 0o777).unwrap_or(0);
        let modified_ns = modified_ns(&found.metadata);
        self.index.entries.push(Entry { path: name.to_owned(), mode, modified_ns, kind: mark.clone() });
        Ok(())
    }

    /// Takes a file as another name of it was read; how long it was.
    fn take_twin(&mut self, uses: Range<u32>) -> u64 {
        let mut bytes = 0;
        for place in uses {
            let number = self.index.uses[place as usize];
            let chunks = if number >= FRESH { &self.fresh.chunks } else { &self.index.chunks };
            bytes += u64::from(chunks[(number & !FRESH) as usize].length);
            self.index.uses.push(number);
        }
        bytes
    }

    /// Takes a file as a base knows it, if all its chunks are still in packs.
    fn take(&mut self, index: &Index, entry: &Entry) -> bool {
        let Kind::File { uses, .. } = &entry.kind else { return false };
        if !self.knows(index, entry) {
            return false;
        }
        for chunk in index.chunks_of(uses) {
            let number = self.known_number(chunk.digest);
            self.index.uses.extend(number);
        }
        true
    }

    /// The number of a chunk that need not be put.
    fn known_number(&mut self, digest: Digest) -> Option<u32> {
        if let Some(&number) = self.numbers.get(&digest) {
            return Some(number);
        }
        let (pack, chunk) = *self.known.get(&digest)?;
        let packs = &mut self.index.packs;
        let pack_number = *self.packs.entry(pack.digest).or_insert_with(|| {
            packs.push(pack);
            place(packs.len() - 1)
        });
        let number = place(self.index.chunks.len());
        self.index.chunks.push(Chunk { pack: pack_number, ..*chunk });
        self.numbers.insert(digest, number);
        Some(number)
    }

    /// Reads a file. How long it was, and what it was when it was opened.
    fn read(&mut self, found: &Found) -> Result<(u64, Option<std::fs::Metadata>), ArchiveFault> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let mut file = options.open(&found.place).map_err(refused(&found.place))?;
        let metadata = file.metadata().map_err(refused(&found.place))?;
        if !metadata.is_file() {
            return Err(ArchiveFault::Changed { path: found.path.clone() });
        }
        self.files_read += 1;
        let room = usize::try_from(metadata.len()).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES) + 1;
        let mut buffer = Vec::with_capacity(room);
        let (mut bytes, mut start) = (0, 0);
        loop {
            let is_end = fill(&mut file, &mut buffer, start + CHUNK_BYTES_MAX).map_err(refused(&found.place))?;
            let rest = &buffer[start..];
            if rest.is_empty() {
                return Ok((bytes, Some(metadata)));
            }
            let length = first_chunk(rest);
            let digest = Digest(*blake3::hash(&rest[..length]).as_bytes());
            let number = match self.known_number(digest) {
                Some(number) => number,
                None => {
                    let number = FRESH + self.writer.add(&mut self.fresh, digest, &rest[..length])?;
                    self.numbers.insert(digest, number);
                    number
                }
            };
            self.index.uses.push(number);
            bytes += length as u64;
            start += length;
            if !is_end && start + CHUNK_BYTES_MAX > BUFFER_BYTES {
                buffer.drain(..start);
                start = 0;
            }
        }
    }

    /// Puts the last pack and the index.
    fn end(mut self, depot: &dyn Depot) -> Result<Kept, ArchiveFault> {
        self.writer.end(&mut self.fresh)?;
        let mut index = self.index;
        let chunks_before = place(index.chunks.len());
        for number in index.uses.iter_mut().filter(|number| **number >= FRESH) {
            *number = *number - FRESH + chunks_before;
        }
        // A pack that comes out equal to one that is there would be named twice.
        let mut numbers = Vec::with_capacity(self.fresh.packs.len());
        for pack in self.fresh.packs {
            let next = place(index.packs.len());
            let number = *self.packs.entry(pack.digest).or_insert(next);
            if number == next {
                index.packs.push(pack);
            }
            numbers.push(number);
        }
        let chunks = self.fresh.chunks.into_iter();
        index.chunks.extend(chunks.map(|chunk| Chunk { pack: numbers[chunk.pack as usize], ..chunk }));
        let encoded = index.encode();
        if encoded.len() as u64 > INDEX_BYTES_MAX {
            return Err(ArchiveFault::TooLarge(INDEX_BYTES_MAX));
        }
        let digest = depot.put(&encoded)?;
        Ok(Kept {
            index,
            digest,
            index_bytes: encoded.len() as u64,
            files_read: self.files_read,
            put_bytes: self.writer.put_bytes,
        })
    }
}

fn check_name(name: &Path) -> Result<(), ArchiveFault> {
    if name.as_os_str().len() > PATH_BYTES_MAX {
        return Err(ArchiveFault::Damaged(format!("`{}` has more than {PATH_BYTES_MAX} bytes", name.display())));
    }
    Ok(())
}

/// Reads until the buffer has so many bytes or the file ends; whether it ended.
fn fill(file: &mut File, buffer: &mut Vec<u8>, length: usize) -> io::Result<bool> {
    if buffer.len() >= length {
        return Ok(false);
    }
    let wanted = BUFFER_BYTES.max(length) - buffer.len();
    let read = file.take(wanted as u64).read_to_end(buffer)?;
    Ok(read < wanted)
}
