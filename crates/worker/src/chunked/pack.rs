//! Packs: chunks one after another in one blob, so that many small files cost few requests.
//!
//! Where a pack ends follows from its chunks, so that equal files give equal packs wherever they are kept.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;

use graph::Digest;

use super::cut::CHUNK_BYTES_MAX;
use super::index::{Chunk, Index, Pack};
use crate::archive::ArchiveFault;
use crate::depot::Depot;

/// No pack is longer.
pub const PACK_BYTES_MAX: u32 = 8 << 20;

/// No pack but the last of a tree is shorter.
const PACK_BYTES_MIN: usize = 3 << 20;

/// Beyond the shortest length a chunk whose digest begins so ends its pack: one in 32.
const END_MASK: u8 = 0x1f;

/// How many packs a reader holds in memory: files are laid in the order of their packs.
const PACKS_HELD: usize = 3;

/// Fills packs and puts them.
pub struct PackWriter<'d> {
    depot: &'d dyn Depot,
    bytes: Vec<u8>,
    /// What was put, in bytes.
    pub put_bytes: u64,
}

impl<'d> PackWriter<'d> {
    pub fn new(depot: &'d dyn Depot) -> Self {
        Self { depot, bytes: Vec::new(), put_bytes: 0 }
    }

    /// Adds a chunk that no pack of the index has. Its number.
    pub fn add(&mut self, index: &mut Index, digest: Digest, bytes: &[u8]) -> Result<u32, ArchiveFault> {
        let number = place(index.chunks.len());
        let (pack, offset, length) = (place(index.packs.len()), place(self.bytes.len()), place(bytes.len()));
        index.chunks.push(Chunk { digest, pack, offset, length });
        self.bytes.extend_from_slice(bytes);
        let is_end = self.bytes.len() >= PACK_BYTES_MIN && digest.0[0] & END_MASK == 0;
        if is_end || self.bytes.len() + CHUNK_BYTES_MAX > PACK_BYTES_MAX as usize {
            self.end(index)?;
        }
        Ok(number)
    }

    /// Puts what there is.
    pub fn end(&mut self, index: &mut Index) -> Result<(), ArchiveFault> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let digest = self.depot.put(&self.bytes)?;
        index.packs.push(Pack { digest, bytes: place(self.bytes.len()) });
        self.put_bytes += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}

/// Numbers of an index fit into 32 bits: its own length is bounded so.
pub fn place(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Reads chunks out of packs.
pub struct PackReader<'d> {
    depot: &'d dyn Depot,
    held: VecDeque<(u32, Arc<Vec<u8>>)>,
}

impl<'d> PackReader<'d> {
    pub fn new(depot: &'d dyn Depot) -> Self {
        Self { depot, held: VecDeque::new() }
    }

    /// The bytes of a chunk, handed to `take`.
    pub fn read<T>(&mut self, index: &Index, chunk: &Chunk, take: impl FnOnce(&[u8]) -> T) -> Result<T, ArchiveFault> {
        let pack = self.pack(index, chunk.pack)?;
        let start = chunk.offset as usize;
        let bytes = &pack[start..start + chunk.length as usize];
        if *blake3::hash(bytes).as_bytes() != chunk.digest.0 {
            let pack = index.packs[chunk.pack as usize].digest;
            self.depot.doubt(pack);
            return Err(ArchiveFault::Damaged(format!("a chunk of pack {pack}")));
        }
        Ok(take(bytes))
    }

    fn pack(&mut self, index: &Index, number: u32) -> Result<Arc<Vec<u8>>, ArchiveFault> {
        if let Some((_, bytes)) = self.held.iter().find(|(held, _)| *held == number) {
            return Ok(Arc::clone(bytes));
        }
        let pack = index.packs[number as usize];
        let mut bytes = Vec::with_capacity(pack.bytes as usize);
        let mut content = self.depot.open(pack.digest)?.take(u64::from(pack.bytes) + 1);
        let damaged = |what: &dyn std::fmt::Display| {
            self.depot.doubt(pack.digest);
            ArchiveFault::Damaged(format!("pack {}: {what}", pack.digest))
        };
        content.read_to_end(&mut bytes).map_err(|error| damaged(&error))?;
        if bytes.len() != pack.bytes as usize {
            return Err(damaged(&"it is not as long as the index says"));
        }
        let bytes = Arc::new(bytes);
        if self.held.len() == PACKS_HELD {
            self.held.pop_front();
        }
        self.held.push_back((number, Arc::clone(&bytes)));
        Ok(bytes)
    }
}
