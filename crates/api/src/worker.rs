//! What a worker and its server say to each other (`docs/design/2026-11-21-server.md`, "Identity, leases, presence").
//!
//! A worker connects outward. It proves that it holds its key ([`Hello`], [`Join`]), then reads one endless answer of
//! [`ToWorker`] lines, and sends what it has to say as [`FromWorker`] and log batches in `outbox` posts, one at a time and
//! as much as waits in each. Every message may arrive twice. Nothing here is believed by name: who speaks is known by the
//! session, whose secret only the joined worker has, and what a lease may do by the lease.

use std::collections::{BTreeMap, BTreeSet};

use graph::{
    AttemptNumber, AttemptReport, AttemptSpec, BuildId, Digest, Known, LeaseId, Resources, StepReport, Timestamp,
    WorkerId,
};
use serde::{Deserialize, Serialize};

use crate::shell::StartShell;

/// The version of this conversation. A server refuses one that it does not speak, with words.
pub const PROTOCOL: u32 = 2;
/// The longest line of [`ToWorker`] in bytes.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The largest body of one outbox post in bytes.
pub const OUTBOX_BYTES_MAX: usize = 8 * 1024 * 1024;

/// `POST /api/v1/worker/hello`: asks for a challenge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The worker's public key (Ed25519, 32 bytes, hex). The worker's id is derived from it and from nothing else.
    pub key: String,
    /// See [`PROTOCOL`].
    pub protocol: u32,
}

/// The answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// To be signed, once, within a minute.
    pub nonce: String,
}

/// `POST /api/v1/worker/session`, under the worker's token: opens a session. The answer is a stream of [`ToWorker`], one
/// JSON object a line. A later session of the same key ends the earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The key of [`Hello`].
    pub key: String,
    /// The challenge.
    pub nonce: String,
    /// Ed25519 over `ropewalk worker session\n` and the nonce, hex.
    pub signature: String,
    /// What it offers.
    pub offer: Offer,
    /// The leases that it still holds, from sessions before.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub leases: BTreeSet<LeaseId>,
    /// Whether a server has drained it and it has not left yet: the session before was lost. An earlier worker does not say so, and
    /// is taken for one that was started anew; an earlier server passes over it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_draining: bool,
}

/// What a worker offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Shown to people; not an identity.
    pub name: String,
    /// The pools whose jobs it takes, of those that its token allows.
    pub pools: BTreeSet<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub labels: BTreeSet<String>,
    /// How many attempts it runs at once.
    pub slots: u32,
    /// Its cores and memory; zero is without limit.
    #[serde(default)]
    pub resources: Resources,
    /// The version of its binary.
    pub version: String,
}

/// One line of a session's stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum ToWorker {
    /// The first line.
    Welcome {
        /// Who the server takes the worker for.
        worker: WorkerId,
        /// Goes as `Authorization: Bearer` with everything that follows in this session.
        session: String,
        /// The worker says something at least this often, in milliseconds.
        heartbeat_ms: u64,
    },
    /// Nothing: the connection lives.
    Alive,
    /// Run this. Said again after a reconnection if the worker does not list the lease.
    Start(Box<Start>),
    /// A lease is not wanted any more: end the attempt gently and report it.
    Stop {
        /// Which.
        lease: LeaseId,
        /// Who or what canceled it.
        by: String,
    },
    /// A lease is somebody else's by now: end the attempt at once and report nothing.
    Forget {
        /// Which.
        lease: LeaseId,
    },
    /// Ask a pipeline's program; answer with [`FromWorker::Evaluated`].
    Evaluate(Box<Evaluate>),
    /// The answer to [`ToWorker::Evaluate`] is no longer wanted: end the asking, with the compiler and the tests that it may have started. An earlier
    /// worker passes over it, and answers in its time.
    Unask {
        /// The question.
        id: u64,
    },
    /// Open a shell in what an attempt left: read what is typed by `GET /api/v1/worker/shells/{shell}/input`, send what is printed by
    /// `POST …/output`.
    Shell(Box<StartShell>),
    /// Take nothing new, finish what runs, then leave.
    Drain {
        /// Why, for people.
        reason: String,
        /// What it does then. A worker that does not know the word leaves.
        #[serde(default)]
        then: Then,
    },
    /// Take jobs again and stay, after [`ToWorker::Drain`]. An earlier worker passes over it, and leaves.
    Resume,
    /// A word of a later release. A worker that does not know it passes it over; a server says none that must not be passed over to a worker
    /// of an earlier [`PROTOCOL`].
    #[serde(other)]
    Unknown,
}

/// What a worker does once nothing runs on it any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// It ends.
    #[default]
    Leave,
    /// It starts the file of its program anew, which somebody has replaced, and joins again as the same worker.
    StartAnew,
}

/// An attempt to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// The attempt.
    pub spec: AttemptSpec,
    /// Values of the job's secrets by name, for this lease alone. Never kept, never printed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
}

/// A pipeline's program to ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluate {
    /// Names this question in the answer.
    pub id: u64,
    /// The build.
    pub build: BuildId,
    /// Its files.
    pub source: Digest,
    /// The pipeline, as the request named it.
    pub pipeline: String,
    /// What is known.
    pub known: Known,
    /// The blob with the binary that is asked: the one that gave the build's first reply. `None` before that, and then the program is built and tested. An
    /// earlier worker passes over it and asks what it builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Digest>,
}

/// What a worker has not that asking a program takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// `cargo`, to build it.
    Cargo,
    /// A word of a later release.
    #[serde(other)]
    Unknown,
}

/// The label of workers that have `cargo`.
pub const CARGO_LABEL: &str = "cargo";

/// One thing that a worker says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum FromWorker {
    /// It is there. The leases are all that it holds.
    Present {
        /// Held leases.
        leases: BTreeSet<LeaseId>,
        /// Why it takes nothing new for now (paused by its own health check, low disk), if so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        closed: Option<String>,
    },
    /// A step begins. Of attempts that still run, this and [`FromWorker::StepFinished`] are said again after each
    /// [`Join`]: a server keeps them only until the report.
    StepStarted {
        /// Under which lease.
        lease: LeaseId,
        /// Its index.
        step: u16,
        /// Its name, without secrets.
        name: String,
        /// When.
        at: Timestamp,
    },
    /// A step has ended.
    StepFinished {
        /// Under which lease.
        lease: LeaseId,
        /// Its index.
        step: u16,
        /// How.
        report: Box<StepReport>,
    },
    /// An attempt has ended. Comes after all of its log.
    Finished {
        /// Under which lease.
        lease: LeaseId,
        /// How.
        report: Box<AttemptReport>,
    },
    /// What a program said.
    Evaluated {
        /// The question.
        id: u64,
        /// What it said; or what went wrong, for people.
        reply: Result<Box<ProgramReply>, String>,
        /// What another worker may have, if that is all that went wrong. An earlier server passes over it; of an earlier worker it is not there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lack: Option<Lack>,
    },
    /// It leaves: nothing runs any more.
    Leaving,
}

/// What a pipeline's program said, asked for its hooks and then for those that answer to the event. Both blobs were sent
/// before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramReply {
    /// The blob with the reply as it came, a document of the native format.
    pub text: Digest,
    /// The blob with the program's binary: steps that are functions name it, and whoever runs one fetches it.
    pub program: Digest,
    /// The paths of the program's files in the project, by the names that the reply has for them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

/// `POST /api/v1/worker/outbox`: the body is a sequence of sections, each a byte of kind (0: JSON of one [`FromWorker`];
/// 1: one log batch of `store::log::batch`), a length of four bytes, little end first, and so many bytes. They take effect
/// in order. The answer says what must not be sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// How many sections, from the first, were taken for good.
    pub sections: usize,
    /// Leases that are not the worker's any more: their sections were dropped, and more of them shall not come.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub stale: BTreeSet<LeaseId>,
    /// Of logs whose beginning is missing here: send again from this byte. Whoever is not named goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resend: Vec<Resend>,
}

/// Where a log has to be taken up again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resend {
    /// Under which lease.
    pub lease: LeaseId,
    /// Which step.
    pub step: u16,
    /// The next byte that the server has not.
    pub from_byte: u64,
}

/// `POST /api/v1/worker/caches/find`: the keyed cache that fits best. Which scopes may be read is known by the lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindCache {
    /// Whose job asks.
    pub lease: LeaseId,
    /// The digest of the paths that the cache holds.
    pub paths: Digest,
    /// The key itself.
    pub key: String,
    /// Beginnings of keys that do as well, the best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restore: Vec<String>,
}

/// The answer to [`FindCache`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundCache {
    /// What was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<CacheEntry>,
}

/// One keyed cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheEntry {
    /// Its key, which may be longer than what was asked for.
    pub key: String,
    /// The blob that says what is in it.
    pub digest: Digest,
    /// What all its blobs hold.
    pub bytes: u64,
    /// The packs that it names, which live as long as it does. In an answer there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packs: Vec<CachePack>,
}

/// The most packs of one cache.
pub const CACHE_PACKS_MAX: usize = 100_000;

/// The longest body that names so many.
pub const CACHE_BODY_BYTES_MAX: u64 = 16 << 20;

/// A blob that holds files of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachePack {
    /// The blob.
    pub digest: Digest,
    /// Its length.
    pub bytes: u32,
}

/// `POST /api/v1/worker/caches/save`: keeps a cache whose blobs have been sent before, or were asked for as missing and
/// are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaveCache {
    /// Whose job saves.
    pub lease: LeaseId,
    /// The digest of the paths that the cache holds.
    pub paths: Digest,
    /// What is saved.
    pub entry: CacheEntry,
    /// The digest of the entry of this key that the job found and could not restore, since it is damaged or gone: it gives way. An older server passes
    /// over it and keeps what it has; of an older worker it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Digest>,
}

/// The answer to [`SaveCache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCache {
    /// What became of it.
    pub saved: CacheSaved,
}

/// `POST /api/v1/worker/layers`: keeps what attempts of this worker left, so that any worker can open them. Their blobs have been sent before, or
/// were asked for as missing and are not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaveLayers {
    /// At most [`LAYERS_ATTEMPTS_MAX`], which name at most [`LAYERS_BLOBS_MAX`] blobs together.
    pub attempts: Vec<AttemptLayers>,
}

/// What one attempt left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptLayers {
    /// The build, as the worker knows it.
    pub build: BuildId,
    /// The attempt.
    pub attempt: AttemptNumber,
    /// What it left.
    pub layers: Layers,
}

/// What a worker says of the files that an attempt left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layers {
    /// They were sent.
    Sent {
        /// What says what they are.
        document: LayersDocument,
        /// All blobs that they need, the document too if it is one; at most [`LAYERS_BLOBS_MAX`].
        blobs: Vec<Digest>,
        /// What these and the document hold.
        bytes: u64,
    },
    /// They stay where they are.
    Unsent {
        /// Why, for people; words that go on from "because ".
        reason: String,
    },
}

/// What says what an attempt left. JSON: the blob's digest, or `{"text": …}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LayersDocument {
    /// A blob.
    Blob(Digest),
    /// The document itself.
    Text {
        /// At most [`LAYERS_TEXT_BYTES_MAX`] bytes.
        text: String,
    },
}

/// The answer to [`SaveLayers`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLayers {
    /// Those that were not this worker's: nothing is kept of them.
    pub refused: Vec<AttemptName>,
}

/// Which attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttemptName {
    /// The build.
    pub build: BuildId,
    /// The attempt.
    pub attempt: AttemptNumber,
}

/// The most attempts whose layers are kept at once.
pub const LAYERS_ATTEMPTS_MAX: usize = 64;

/// The most blobs of what attempts left that are told at once.
pub const LAYERS_BLOBS_MAX: usize = 10_000;

/// The most bytes of a document that is no blob.
pub const LAYERS_TEXT_BYTES_MAX: usize = 16 << 10;

/// The longest body of [`SaveLayers`].
pub const LAYERS_BODY_BYTES_MAX: u64 = 4 << 20;

/// What became of a cache that was to be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheSaved {
    /// It was written.
    Written,
    /// There was one of that key; it stays as it was.
    Kept,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &ToWorker) {
        assert_eq!(serde_json::from_str::<ToWorker>(line).expect("it is read"), *expected);
    }

    #[test]
    fn a_word_of_a_later_release_does_not_end_a_session() {
        check(r#"{"say":"sing","song":{"verses":[1,2]}}"#, &ToWorker::Unknown);
        check(r#"{"say":"alive","since":3}"#, &ToWorker::Alive);
        check(r#"{"say":"forget","lease":3,"why":"x"}"#, &ToWorker::Forget { lease: LeaseId(3) });
        let broken = serde_json::from_str::<ToWorker>(r#"{"say":"forget"}"#);
        assert!(broken.is_err(), "a word that is known, without what belongs to it");
    }
}
