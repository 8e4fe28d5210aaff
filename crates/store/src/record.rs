//! Records: small documents that a server keeps beside builds, by kind and key. What a body means is its writer's.

use graph::Timestamp;

use crate::store::StoreError;

/// The most bytes of a record's body.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// The most bytes of a record's kind and of its key.
pub const KEY_BYTES_MAX: usize = 512;
/// A page of records is full when their bodies hold this many bytes; the record that fills it is whole.
pub const PAGE_BYTES_MAX: usize = 8 << 20;
/// The kind of records whose keys are the digests (64 hexadecimal digits) of sources: manifests of files among the blobs.
pub const SOURCE_KIND: &str = "source";

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its kind.
    pub kind: String,
    /// Its key within the kind.
    pub key: String,
    /// Changes with every writing.
    pub version: Version,
    /// What was written, at most [`BODY_BYTES_MAX`].
    pub body: Vec<u8>,
    /// When it was written.
    pub at: Timestamp,
}

/// A record that is to be written, whatever is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRecord<'a> {
    /// Its kind, at most [`KEY_BYTES_MAX`].
    pub kind: &'a str,
    /// Its key within the kind, at most [`KEY_BYTES_MAX`].
    pub key: &'a str,
    /// What is written, at most [`BODY_BYTES_MAX`].
    pub body: &'a [u8],
}

impl NewRecord<'_> {
    /// Whether it may be stored.
    pub(crate) fn check_size(&self) -> Result<(), StoreError> {
        check_size(self.kind, self.key, self.body)
    }
}

/// One writing of a record. A later writing has a larger one; a record that was deleted and written again never has an
/// earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// What a writer expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Whatever is there.
    Any,
    /// No record.
    Absent,
    /// The record as it was read.
    Version(Version),
}

impl Expect {
    /// Whether `found` is as expected.
    pub(crate) fn check(self, found: Option<Version>) -> Result<(), StoreError> {
        let is_met = match self {
            Self::Any => true,
            Self::Absent => found.is_none(),
            Self::Version(version) => found == Some(version),
        };
        if is_met { Ok(()) } else { Err(StoreError::Conflict { found }) }
    }
}

/// Whether a record may be stored.
pub(crate) fn check_size(kind: &str, key: &str, body: &[u8]) -> Result<(), StoreError> {
    for (what, bytes, most) in [
        ("the kind of a record", kind.len(), KEY_BYTES_MAX),
        ("the key of a record", key.len(), KEY_BYTES_MAX),
        ("a record", body.len(), BODY_BYTES_MAX),
    ] {
        if bytes > most {
            return Err(StoreError::TooLarge { what, bytes, most });
        }
    }
    Ok(())
}

/// Cuts a page so that its bodies hold no more than [`PAGE_BYTES_MAX`], but for the record that passes the bound.
pub(crate) fn cut_page(records: &mut Vec<Record>) {
    let mut bytes = 0;
    let full = records.iter().position(|record| {
        bytes += record.body.len();
        bytes >= PAGE_BYTES_MAX
    });
    if let Some(last) = full {
        records.truncate(last + 1);
    }
}
