//! What the server remembers beside builds, as typed documents over [`Store::record`]: projects, workers, pools, and the
//! answers to requests that may come twice.
//!
//! All of it blocks, as the store does. Every shape here is stored: a new field has a default.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use graph::{AttemptNumber, BuildId, Digest, Timestamp, with_causes};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use store::log::{LogPlace, Logs};
use store::record::{Expect, NewRecord, Version};
use store::{Store, StoreError};
use thiserror::Error;

/// How often a record is read again that somebody else changed meanwhile.
const CONFLICTS_MAX: u32 = 16;
/// The longest name of a project or a pool in bytes.
pub const NAME_BYTES_MAX: usize = 100;
/// The pool of jobs that name none.
pub const DEFAULT_POOL: &str = "default";

/// Why a record was not read or written.
#[derive(Debug, Error)]
pub enum RecordError {
    /// As the store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored cannot be read: a newer Ropewalk wrote it, or it is damaged.
    #[error("the {kind} `{key}` cannot be read")]
    Unreadable {
        /// Of what kind.
        kind: &'static str,
        /// Which.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// A document with a kind of its own.
pub trait Document: Serialize + DeserializeOwned {
    /// The kind under which it is stored.
    const KIND: &'static str;
}

/// A document on its way into the store, among others of other kinds.
#[derive(Clone, Debug)]
pub struct Written {
    kind: &'static str,
    key: String,
    body: Vec<u8>,
}

impl Written {
    /// `document` as it will be stored under `key`.
    #[must_use]
    pub fn new<T: Document>(key: String, document: &T) -> Self {
        Self { kind: T::KIND, key, body: body(document) }
    }
}

/// One project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Project {
    /// Its name, also its key.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// How its builds are handled.
    pub settings: ProjectSettings,
}

impl Document for Project {
    const KIND: &'static str = "project";
}

/// How a project's builds are handled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProjectSettings {
    /// Whether a later build of a branch or pull request takes the place of earlier ones; `None`: as the server does.
    pub superseding: Option<Superseding>,
    /// Whether equal requests are one build while that waits.
    pub sharing: Sharing,
    /// What else is set, by name; owned by other parts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// Under which name the settings that belong to the API stand among the others.
pub const API_SETTINGS: &str = "api";

impl ProjectSettings {
    /// The settings that belong to the API; those that nobody set, or that cannot be read, are the server's.
    #[must_use]
    pub fn of_api(&self) -> api::project::ProjectSettings {
        let settings = self.other.get(API_SETTINGS).cloned().unwrap_or_default();
        serde_json::from_value(settings).unwrap_or_default()
    }
}

/// Whether a later build of a branch or pull request takes the place of earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Superseding {
    /// They are canceled.
    CancelsEarlier,
    /// They go on.
    KeepsEarlier,
}

/// Whether equal requests are one build while that waits for its first attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// They are.
    #[default]
    OneBuild,
    /// Every request is a build of its own.
    EachItsOwn,
}

/// One worker, by its id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerRecord {
    /// Its public key, hex.
    pub key: String,
    /// Its name, for people.
    pub name: String,
    /// The pools that it served last.
    pub pools: BTreeSet<String>,
    /// Its labels.
    pub labels: BTreeSet<String>,
    /// The version of its binary.
    pub version: String,
    /// When it joined first.
    pub first_joined: Timestamp,
    /// When it joined last.
    pub last_joined: Timestamp,
    /// Whether people let it take attempts.
    pub intake: Intake,
    /// The pause during which it was drained: it holds again once the worker has come back. An earlier version forgets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<Said>,
    /// Of the token by which it joined last; `None` if an earlier version noted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass: Option<KeptPass>,
}

/// What is kept of the token by which something long began, so that a server that is started anew can ask of it. Its text is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptPass {
    /// The token's id.
    pub token: String,
    /// What revokes it, or a narrowing of it.
    pub revocation: Vec<String>,
    /// When it ends, as it was made or as somebody narrowed it.
    pub until: Option<Timestamp>,
}

impl Document for WorkerRecord {
    const KIND: &'static str = "worker";
}

impl WorkerRecord {
    /// As people have said. A drain leaves the pause standing that there is.
    #[must_use]
    pub fn with_intake(self, intake: Intake) -> Self {
        let paused = match (&intake, self.intake) {
            (Intake::Draining(_), Intake::Paused(said)) => Some(said),
            (Intake::Draining(_), _) => self.paused,
            (Intake::Open | Intake::Paused(_), _) => None,
        };
        Self { intake, paused, ..self }
    }

    /// A worker that was drained, has left and comes again was meant to come again: to what it was before.
    #[must_use]
    pub fn come_again(self) -> Self {
        match self.intake {
            Intake::Draining(_) => {
                let intake = self.paused.map_or(Intake::Open, Intake::Paused);
                Self { intake, paused: None, ..self }
            }
            Intake::Open | Intake::Paused(_) => self,
        }
    }
}

/// Whether people let a worker take new attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "intake", rename_all = "snake_case")]
pub enum Intake {
    /// They do.
    #[default]
    Open,
    /// It keeps what it runs and takes nothing new, until it is resumed.
    Paused(Said),
    /// It finishes what it runs, then leaves.
    Draining(Said),
}

impl Intake {
    /// Why it takes nothing new, for people.
    #[must_use]
    pub fn closed(&self) -> Option<String> {
        match self {
            Self::Open => None,
            Self::Paused(said) => Some(format!("paused {}", said.in_words())),
            Self::Draining(said) => Some(format!("drained {}", said.in_words())),
        }
    }
}

/// What a person said when they changed something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

impl Said {
    /// By whom, and why if they said it.
    #[must_use]
    pub fn in_words(&self) -> String {
        if self.reason.is_empty() { format!("by {}", self.by) } else { format!("by {}: {}", self.by, self.reason) }
    }
}

/// One pool about which somebody said something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolRecord {
    /// Set while its jobs do not start.
    pub held: Option<Said>,
}

impl Document for PoolRecord {
    const KIND: &'static str = "pool";
}

/// The answer to a request that was given under an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The digest of the request, so that a key is not used for another one.
    pub request: String,
    /// The answer's HTTP status.
    pub status: u16,
    /// The answer's body, JSON.
    pub body: String,
    /// Until when it is remembered.
    pub until: Timestamp,
}

impl Document for Answered {
    const KIND: &'static str = "idempotency";
}

/// Where the log of a build that has ended is, if it moved into a blob; the key is the build's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredLog {
    /// The blob.
    pub digest: Digest,
}

impl Document for StoredLog {
    const KIND: &'static str = "log";
}

/// The program that a build asks, as a blob; the key is the build's number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredProgram {
    /// Its binary.
    pub digest: Digest,
}

impl Document for StoredProgram {
    const KIND: &'static str = "program";
}

/// What an attempt left, if its worker sent it; the key is [`StoredLayers::key`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoredLayers {
    /// The digest of what says what it is; `None` if it was not sent. A blob if it is among `blobs`, else in [`LayersText`].
    pub document: Option<Digest>,
    /// All blobs that it needs.
    pub blobs: Vec<Digest>,
    /// What they hold.
    pub bytes: u64,
    /// Why it was not sent, for people.
    pub reason: String,
    /// When it came.
    pub at: Timestamp,
}

impl Document for StoredLayers {
    const KIND: &'static str = "layers";
}

impl StoredLayers {
    /// The key of an attempt's.
    #[must_use]
    pub fn key(build: BuildId, attempt: AttemptNumber) -> String {
        format!("{build}/{attempt}")
    }

    /// The build of a key.
    #[must_use]
    pub fn build_of(key: &str) -> Option<BuildId> {
        Some(BuildId(key.split_once('/')?.0.parse().ok()?))
    }
}

/// The document of a [`StoredLayers`] that is no blob; the key is the same. Apart from it, since that is read of all attempts again and again, and
/// this by who opens a shell alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LayersText {
    /// The document.
    pub text: String,
}

impl Document for LayersText {
    const KIND: &'static str = "layers-text";
}

/// Whether a build has ended, as far as its log is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPhase {
    /// More may come.
    Growing,
    /// No more comes.
    Ended,
}

/// All records.
#[derive(Clone)]
pub struct Records {
    store: Arc<dyn Store>,
}

impl Records {
    /// The records of this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// One document and the version it has.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn read<T: Document>(&self, key: &str) -> Result<Option<(T, Version)>, RecordError> {
        let Some(record) = self.store.record(T::KIND, key)? else { return Ok(None) };
        Ok(Some((parse(key, &record.body)?, record.version)))
    }

    /// Some documents in order of key, after `after`; at most `limit`.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn list<T: Document>(&self, after: Option<&str>, limit: u32) -> Result<Vec<(String, T)>, RecordError> {
        let records = self.store.records(T::KIND, after, limit)?;
        records.into_iter().map(|record| Ok((record.key.clone(), parse(&record.key, &record.body)?))).collect()
    }

    /// All documents of a kind, in order of key.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn all<T: Document>(&self) -> Result<Vec<(String, T)>, RecordError> {
        let mut all: Vec<(String, T)> = Vec::new();
        loop {
            let page = self.list(all.last().map(|(key, _)| key.as_str()), store::PAGE_ROWS_MAX)?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// Writes a document, whatever was there.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn write<T: Document>(&self, key: &str, document: &T, at: Timestamp) -> Result<(), RecordError> {
        self.store.put_record(T::KIND, key, &body(document), Expect::Any, at)?;
        Ok(())
    }

    /// As [`Records::write`], of several: all of them, or none if it fails.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn write_all(&self, documents: &[Written], at: Timestamp) -> Result<(), RecordError> {
        let records: Vec<_> =
            documents.iter().map(|Written { kind, key, body }| NewRecord { kind, key, body }).collect();
        Ok(self.store.put_records(&records, at)?)
    }

    /// As [`Records::write`], for what may be gone again after a loss of power.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn note<T: Document>(&self, key: &str, document: &T, at: Timestamp) -> Result<(), RecordError> {
        Ok(self.store.note_record(T::KIND, key, &body(document), at)?)
    }

    /// Changes a document as it stands, or makes it. Gives what was written. Tried again while others change it too.
    ///
    /// # Errors
    /// [`RecordError`]; a conflict only if it has come again and again.
    pub fn change<T: Document>(
        &self,
        key: &str,
        at: Timestamp,
        mut change: impl FnMut(Option<T>) -> T,
    ) -> Result<T, RecordError> {
        let changed = self.try_change(key, at, |before| Some(change(before)))?;
        Ok(changed.expect("a change that never refuses is written"))
    }

    /// As [`Records::change`], unless `change` refuses the document as it stands: then nothing is written, and `None` given.
    ///
    /// # Errors
    /// [`RecordError`]; a conflict only if it has come again and again.
    pub fn try_change<T: Document>(
        &self,
        key: &str,
        at: Timestamp,
        mut change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>, RecordError> {
        let mut conflicts = 0;
        loop {
            let (before, expect) = match self.read::<T>(key)? {
                Some((document, version)) => (Some(document), Expect::Version(version)),
                None => (None, Expect::Absent),
            };
            let Some(after) = change(before) else { return Ok(None) };
            match self.store.put_record(T::KIND, key, &body(&after), expect, at) {
                Ok(_) => return Ok(Some(after)),
                Err(StoreError::Conflict { .. }) if conflicts < CONFLICTS_MAX => conflicts += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Where the log of a build is to be read.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn log_place(&self, build: BuildId, phase: LogPhase) -> Result<LogPlace, RecordError> {
        Ok(match (phase, self.read::<StoredLog>(&build.to_string())?) {
            (LogPhase::Growing, Some((stored, _))) => LogPlace::Reopened(stored.digest),
            (LogPhase::Ended, Some((stored, _))) => LogPlace::Stored(stored.digest),
            (LogPhase::Growing, None) => LogPlace::Live,
            (LogPhase::Ended, None) => LogPlace::Ended,
        })
    }

    /// The blob that holds the log of a build up to its last end, if one does.
    ///
    /// # Errors
    /// As the store refuses; [`StoreError::Corrupt`] if the record cannot be read.
    pub fn stored_log(&self, build: BuildId) -> Result<Option<Digest>, StoreError> {
        match self.read::<StoredLog>(&build.to_string()) {
            Ok(stored) => Ok(stored.map(|(stored, _)| stored.digest)),
            Err(RecordError::Store(error)) => Err(error),
            Err(RecordError::Unreadable { source, .. }) => Err(StoreError::Corrupt(source.into())),
        }
    }

    /// Finishes the log of a build that has ended. May be done again.
    ///
    /// # Errors
    /// A sentence.
    pub fn end_log(&self, logs: &Logs, build: BuildId, at: Timestamp) -> Result<(), String> {
        let place = self.log_place(build, LogPhase::Ended).map_err(|error| with_causes(&error))?;
        let record = |digest: Digest| {
            let document = body(&StoredLog { digest });
            self.store.put_record(StoredLog::KIND, &build.to_string(), &document, Expect::Any, at).map(drop)
        };
        logs.end(build, place, record).map(drop).map_err(|error| with_causes(&error))
    }

    /// Removes a document; says whether there was one.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn remove<T: Document>(&self, key: &str) -> Result<bool, RecordError> {
        Ok(self.store.delete_record(T::KIND, key, Expect::Any)?)
    }
}

/// Whether a name may be that of a project or a pool: it begins with a letter or a digit, and goes on with these and `._-`, at
/// most [`NAME_BYTES_MAX`] in all.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter))
}

fn body<T: Document>(document: &T) -> Vec<u8> {
    // Our own types serialize to JSON whatever they hold.
    serde_json::to_vec(document).expect("a document always serializes")
}

fn parse<T: Document>(key: &str, body: &[u8]) -> Result<T, RecordError> {
    serde_json::from_slice(body).map_err(|source| RecordError::Unreadable {
        kind: T::KIND,
        key: key.to_owned(),
        source,
    })
}
