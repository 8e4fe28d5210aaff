//! Contents on their way: which are missing, and many in one body.
//!
//! A **parcel** is a sequence of blobs: each its digest (32 bytes), its length (eight bytes, little end first), and so many
//! bytes. `POST /api/v1/blobs` takes one; `POST /api/v1/blobs/fetch` answers with one, in the order of what was asked for,
//! and leaves out what is not there. `GET /api/v1/blobs/DIGEST` gives one alone, with ranges.

use graph::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::build::DigestText;

/// The most digests of one [`Digests`].
pub const DIGESTS_MAX: usize = 100_000;
/// The largest blob in bytes that travels.
pub const BLOB_BYTES_MAX: u64 = 64 << 30;
/// The bytes before each blob of a parcel.
pub const PARCEL_HEAD_BYTES: usize = 40;

/// Some blobs by name. The body of `POST /api/v1/blobs/missing` (the answer holds those that are not there, in the same
/// order) and of `POST /api/v1/blobs/fetch`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Digests {
    /// At most [`DIGESTS_MAX`].
    #[schemars(with = "Vec<DigestText>", length(max = 100_000))]
    pub digests: Vec<Digest>,
}

/// The answer to a parcel: all of it is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stored {
    /// How many blobs the parcel held.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What stands before a blob in a parcel.
#[must_use]
pub fn parcel_head(digest: Digest, bytes: u64) -> [u8; PARCEL_HEAD_BYTES] {
    let mut head = [0; PARCEL_HEAD_BYTES];
    head[..32].copy_from_slice(&digest.0);
    head[32..].copy_from_slice(&bytes.to_le_bytes());
    head
}

/// The name and the length that a head says.
#[must_use]
pub fn read_parcel_head(head: &[u8; PARCEL_HEAD_BYTES]) -> (Digest, u64) {
    let mut digest = [0; 32];
    digest.copy_from_slice(&head[..32]);
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&head[32..]);
    (Digest(digest), u64::from_le_bytes(bytes))
}
