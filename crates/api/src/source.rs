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
/// The newest version of the document of a history that is written and understood.
pub const HISTORY_VERSION: u32 = 1;
/// The largest document of a history in bytes.
pub const HISTORY_DOCUMENT_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// The most commits of a history that is sent as a whole. Of a longer one the newest are sent, and it is shallow.
pub const HISTORY_COMMITS_MAX: usize = 10_000;
/// The most bytes of all packs of a history. If it takes more, fewer commits are sent.
pub const HISTORY_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The most packs of a history. A sender that would add another one packs all anew.
pub const HISTORY_PACKS_MAX: usize = 32;
/// The most branches and tags of a history: the newest.
pub const HISTORY_REFERENCES_MAX: usize = 20_000;
/// The most staged files of a history; where there are more, none is sent, and a job sees them as not staged.
pub const HISTORY_STAGED_MAX: usize = 20_000;

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
    /// The document of the commit's history ([`History`]), for jobs that ask git; the worker makes a repository of it.
    /// `None` where there is no repository, and from senders that know of none.
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

/// What git knows of a commit: what a job's `.git` is made of. It holds no hook, no setting, no remote's address, and nothing
/// that the commit does not reach but what was staged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// See [`HISTORY_VERSION`].
    pub version: u32,
    /// How objects are named: `sha1` or `sha256`.
    pub format: String,
    /// The commit that is checked out: its full id.
    pub commit: String,
    /// The branch that is checked out; `None` if HEAD is detached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// How many commits there are.
    pub commits: u64,
    /// Branches and tags that the commit reaches, by full name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub references: BTreeMap<String, Reference>,
    /// The commits whose parents are left out; sorted. Empty if the history is whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shallow: Vec<String>,
    /// Packs of git that hold the objects, the oldest first; each is a blob.
    pub packs: Vec<Pack>,
    /// What the index has otherwise than the commit, by path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub staged: BTreeMap<String, Staged>,
}

/// Where a branch or tag points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The object's full id.
    pub id: String,
    /// The commit behind an annotated tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peeled: Option<String>,
}

/// A pack of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pack {
    /// Its content.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
}

/// What the index has at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Staged {
    /// A file that is staged.
    Added {
        /// git's mode, in octal digits.
        mode: String,
        /// The object's full id.
        id: String,
    },
    /// A file of the commit that is staged as deleted.
    Deleted,
}
