//! The files of a build, named by content: a manifest that names every file, whose contents travel as blobs.
//!
//! The manifest's own bytes are a blob too; its digest is the build's source ([`graph::Origin::source`]). A file that a
//! server has already is not sent again, so a changed checkout costs what changed.

use std::collections::BTreeMap;

use graph::Digest;
use serde::{Deserialize, Serialize};

/// The newest version of the manifest that is written and understood.
pub const VERSION: u32 = 1;
/// The most files of one source.
pub const FILES_MAX: usize = 1_000_000;
/// The largest manifest in bytes.
pub const MANIFEST_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Every file of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// See [`VERSION`].
    pub version: u32,
    /// By path relative to the checkout's root, with `/`, never absolute, never with `..`; sorted.
    pub files: BTreeMap<String, File>,
    /// The project's folder within the checkout; empty if it is the root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub folder: String,
    /// The paths that differ from the event's base, if the sender knows: the answer to `changed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Vec<String>>,
    /// The branches that hold the commit, if the sender knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branches: Option<Vec<String>>,
    /// A git bundle of the commit's recent history, for jobs that ask git; the worker makes a repository of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Digest>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum File {
    /// An ordinary file.
    Plain {
        /// Its content.
        digest: Digest,
        /// Its length.
        bytes: u64,
    },
    /// A file that may be executed.
    Program {
        /// Its content.
        digest: Digest,
        /// Its length.
        bytes: u64,
    },
    /// A symbolic link. It may dangle; following it out of the workspace is the reader's to refuse.
    Link {
        /// Where it points, as it stands in the checkout.
        target: String,
    },
}
