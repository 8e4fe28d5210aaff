//! Graphs as they are kept: once each, compressed, under the digest of their JSON.

use std::sync::Arc;

use graph::{Digest, Graph};

use crate::store::StoreError;

/// The level of compression: a graph of 10,000 jobs is packed in some milliseconds to a tenth.
const ZSTD_LEVEL: i32 = 1;
/// The most bytes of a graph's JSON; a packed graph that claims more is damaged.
const GRAPH_BYTES_MAX: usize = 1 << 30;

/// The digest under which a graph is kept, and its JSON. Maps are sorted by key, so equal graphs give equal bytes.
pub(crate) fn digest_of(graph: &Graph) -> (Digest, Vec<u8>) {
    // Our types serialize to JSON whatever they hold.
    let json = serde_json::to_vec(graph).expect("a graph always serializes");
    (Digest(*blake3::hash(&json).as_bytes()), json)
}

/// Packs bytes.
pub(crate) fn pack(bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    Ok(zstd::bulk::compress(bytes, ZSTD_LEVEL)?)
}

/// Unpacks what [`pack`] made.
pub(crate) fn unpack(packed: &[u8]) -> Result<Vec<u8>, StoreError> {
    let corrupt = |error: std::io::Error| StoreError::Corrupt(error.into());
    let bytes = zstd::bulk::Decompressor::upper_bound(packed).unwrap_or(GRAPH_BYTES_MAX).min(GRAPH_BYTES_MAX);
    zstd::bulk::decompress(packed, bytes).map_err(corrupt)
}

/// The graph that was packed.
pub(crate) fn unpack_graph(packed: &[u8]) -> Result<Arc<Graph>, StoreError> {
    let json = unpack(packed)?;
    serde_json::from_slice(&json).map(Arc::new).map_err(|error| StoreError::Corrupt(error.into()))
}
