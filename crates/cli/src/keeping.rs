//! The worker's walls towards storage, over the store of this machine: logs go to the build's pack and to the view,
//! files to the blobs, cache entries to the index. Secrets are masked before anything is kept or shown.

use std::borrow::Cow;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use graph::{BuildId, Digest, JobName, Timestamp, Trust, with_causes};
use store::blob::{self, BlobError, Blobs};
use store::cache::{self, CacheAct, CacheRow, CacheUse, CacheUser, CacheWanted, Saved, cache_uses};
use store::log::{LogWriter, MASKED_BYTES_MIN, MaskedStream, Masker, StreamKey, StreamWriter, is_too_short};
use store::{Store, StoreError};
use worker::depot::{
    AttemptLog, CacheEntry, CacheSaved, CacheScope, Depot, DepotError, LogEnd, LogError, LogSink, Mask, Reach, Stream,
};

use crate::view::{self, Moment, View, Wants};

/// The view of a build, shared with the threads that move heavy output.
#[derive(Clone)]
pub struct SharedView {
    held: Arc<Mutex<Held>>,
    wants: Wants,
}

struct Held {
    view: Box<dyn View + Send>,
    /// Why something was not written, the first time.
    refused: Option<io::Error>,
}

impl Held {
    /// A reader that has gone away wants nothing more, and is no fault.
    fn look_at(&mut self, written: io::Result<()>) {
        if let Err(error) = written
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            self.refused.get_or_insert(error);
        }
    }
}

impl SharedView {
    /// A view that may be shared.
    pub fn new(view: Box<dyn View + Send>) -> Self {
        let wants = view.wants();
        Self { held: Arc::new(Mutex::new(Held { view, refused: None })), wants }
    }

    /// What the view asks for.
    pub fn wants(&self) -> Wants {
        self.wants
    }

    /// Shows moments and hands them to the reader. A reader that has gone away, or takes nothing, does not stop the build.
    pub fn show<'a>(&self, moments: impl IntoIterator<Item = Moment<'a>>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for moment in moments {
            let written = held.view.show(moment);
            held.look_at(written);
        }
        let written = held.view.flush();
        held.look_at(written);
    }

    /// Writes out what is held back.
    ///
    /// # Errors
    /// Why something was not written, now or before.
    pub fn close(&self) -> io::Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let written = held.view.close();
        held.look_at(written);
        held.refused.take().map_or(Ok(()), Err)
    }
}

impl worker::Observer for SharedView {
    fn step_started(&self, job: &JobName, step: u16, name: &str, at: Timestamp) {
        self.show([Moment::StepStarted { job, step, name, at }]);
    }

    fn step_finished(&self, job: &JobName, step: u16, report: &graph::StepReport) {
        self.show([Moment::StepFinished { job, step, report }]);
    }
}

/// Where the log of one attempt goes.
pub struct LocalLog {
    /// The build's pack.
    pub writer: LogWriter,
    /// Who watches.
    pub view: SharedView,
    /// The attempt's job.
    pub job: JobName,
    /// The attempt's number.
    pub attempt: u32,
    /// Hides the attempt's secrets.
    pub masker: Masker,
}

impl AttemptLog for LocalLog {
    fn open_step(&self, step: u16) -> Box<dyn LogSink> {
        let shown = match self.view.wants() {
            Wants::Facts => None,
            Wants::Output | Wants::OutputAndTicks => Some(Shown {
                view: self.view.clone(),
                job: self.job.clone(),
                step,
                masked: std::array::from_fn(|_| self.masker.stream()),
            }),
        };
        let key = StreamKey { attempt: self.attempt, step };
        Box::new(LocalSink { stream: self.writer.open_stream(key, &self.masker), shown })
    }
}

struct LocalSink {
    stream: StreamWriter,
    shown: Option<Shown>,
}

/// What one step prints, on its way to the view.
struct Shown {
    view: SharedView,
    job: JobName,
    step: u16,
    /// One for stdout, one for stderr; `None` if there is nothing to mask.
    masked: [Option<MaskedStream>; 2],
}

impl Shown {
    fn show(&mut self, stream: Stream, bytes: &[u8], time_us: u64) {
        let (index, stream) = match stream {
            Stream::Stdout => (0, view::Stream::Stdout),
            Stream::Stderr => (1, view::Stream::Stderr),
            // Notes are shown with the report.
            Stream::Note => return,
        };
        let at = Timestamp(i64::try_from(time_us).unwrap_or(i64::MAX));
        let (view, job, step) = (&self.view, &self.job, self.step);
        let emit = &mut |bytes: &[u8]| view.show([Moment::Output { job, step, stream, bytes, at }]);
        match &mut self.masked[index] {
            Some(masked) => masked.push(bytes, emit),
            None => emit(bytes),
        }
    }
}

impl LogSink for LocalSink {
    fn write(&mut self, stream: Stream, bytes: &[u8], time_us: u64) -> Result<(), LogError> {
        if let Some(shown) = &mut self.shown {
            shown.show(stream, bytes, time_us);
        }
        let stream = match stream {
            Stream::Stdout => store::log::Stream::Stdout,
            Stream::Stderr => store::log::Stream::Stderr,
            Stream::Note => store::log::Stream::Note,
        };
        self.stream.write(stream, bytes, time_us).map_err(|error| log_error(&error))
    }

    fn flush(&mut self) -> Result<(), LogError> {
        self.stream.flush().map_err(|error| log_error(&error))
    }

    fn close(self: Box<Self>) -> LogEnd {
        let summary = self.stream.close();
        LogEnd { lines: summary.lines, failure: summary.failure.as_ref().map(log_error) }
    }
}

fn log_error(error: &store::log::LogError) -> LogError {
    match error {
        store::log::LogError::Full(cause) => LogError::Full(cause.to_string()),
        _ => LogError::Refused(with_causes(error)),
    }
}

/// Says which secrets are not masked because they are too short; `None` if none is.
pub fn unmasked<'s>(secrets: impl IntoIterator<Item = (&'s String, &'s String)>) -> Option<String> {
    let too_short = secrets.into_iter().filter(|(_, value)| is_too_short(value.as_bytes()));
    let names: Vec<&str> = too_short.map(|(name, _)| name.as_str()).collect();
    match names.as_slice() {
        [] => None,
        [name] => Some(format!(
            "the secret {name} has fewer than {MASKED_BYTES_MIN} bytes and is not masked: give it a longer value"
        )),
        _ => Some(format!(
            "the secrets {} have fewer than {MASKED_BYTES_MIN} bytes and are not masked: give them longer values",
            names.join(", ")
        )),
    }
}

/// Hides secrets in whole texts.
pub struct LocalMask(pub Masker);

impl Mask for LocalMask {
    fn mask<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        self.0.mask(bytes)
    }

    fn is_in_content(&self, bytes: &[u8]) -> bool {
        self.0.is_in_content(bytes)
    }

    fn is_in_cached(&self, bytes: &[u8]) -> bool {
        self.0.is_in_cached(bytes)
    }
}

/// Artifacts and caches of one job of a build.
pub struct LocalDepot {
    /// The blobs.
    pub blobs: Arc<dyn Blobs + Send + Sync>,
    /// The index of caches.
    pub store: Arc<dyn Store>,
    /// Who reads and writes.
    pub user: CacheUser,
    /// The present time.
    pub now: fn() -> Timestamp,
}

impl LocalDepot {
    /// The depot of a job.
    pub fn new(
        blobs: Arc<dyn Blobs + Send + Sync>,
        store: Arc<dyn Store>,
        build: BuildId,
        job: JobName,
        now: fn() -> Timestamp,
    ) -> Self {
        Self { blobs, store, user: CacheUser { build, job }, now }
    }
}

/// The name of a scope in the index.
fn scope_name(trust: Trust, paths: Digest) -> String {
    let trust = match trust {
        Trust::Trusted => "trusted",
        Trust::Untrusted => "untrusted",
    };
    format!("{trust}/{paths}")
}

impl LocalDepot {
    /// All of one installation's are those of one project, which needs no name.
    fn note(&self, used: CacheUse) -> Result<(), DepotError> {
        cache_uses::note(&*self.store, "", &used).map_err(|error| store_error(&error))
    }
}

impl Depot for LocalDepot {
    fn reach(&self) -> Reach {
        Reach::ThisMachine
    }

    fn put(&self, bytes: &[u8]) -> Result<Digest, DepotError> {
        self.blobs.put(bytes).map_err(|error| blob_error(&error))
    }

    fn put_file(&self, path: &Path) -> Result<Digest, DepotError> {
        self.blobs.put_file(path).map(|put| put.digest).map_err(|error| blob_error(&error))
    }

    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send>, DepotError> {
        self.blobs.open(digest).map_err(|error| blob_error(&error))
    }

    fn doubt(&self, digest: Digest) {
        // Whoever asked fails in any case, and says why.
        let _ = blob::remove_damaged(&*self.blobs, digest);
    }

    fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, DepotError> {
        let mut missing = Vec::new();
        for &digest in digests {
            if !self.blobs.renew(digest).map_err(|error| blob_error(&error))? {
                missing.push(digest);
            }
        }
        Ok(missing)
    }

    fn find_cache(&self, scope: &CacheScope, key: &str, restore: &[String]) -> Result<Option<CacheEntry>, DepotError> {
        let own = scope_name(scope.trust, scope.paths);
        let trusted = scope_name(Trust::Trusted, scope.paths);
        // Reading down is allowed, reading up never is.
        let scopes: &[&str] = if scope.trust == Trust::Trusted { &[&own] } else { &[&own, &trusted] };
        let prefixes: Vec<&str> = restore.iter().map(String::as_str).collect();
        let wanted = CacheWanted { scopes, key, prefixes: &prefixes };
        let at = (self.now)();
        let row = self.store.restore_cache(&wanted, &self.user, at).map_err(|error| store_error(&error))?;
        let (scope, act) = match &row {
            Some(row) => (row.scope.clone(), CacheAct::Read { found: row.key.clone() }),
            None => (own, CacheAct::Missed),
        };
        self.note(CacheUse { scope, key: key.to_owned(), act, by: self.user.clone(), at })?;
        Ok(row.and_then(|row| {
            let digest = *row.blobs.first()?;
            Some(CacheEntry { key: row.key, digest, bytes: row.bytes, packs: Vec::new() })
        }))
    }

    fn save_cache(
        &self,
        scope: &CacheScope,
        entry: &CacheEntry,
        refused: Option<Digest>,
    ) -> Result<CacheSaved, DepotError> {
        let at = (self.now)();
        let row = CacheRow {
            scope: scope_name(scope.trust, scope.paths),
            key: entry.key.clone(),
            blobs: std::iter::once(entry.digest).chain(entry.packs.iter().map(|pack| pack.digest)).collect(),
            bytes: entry.bytes,
            written_by: self.user.clone(),
            at,
            used_at: at,
            evicted: None,
        };
        let saved = cache::save(&*self.store, &row, refused).map_err(|error| store_error(&error))?;
        let (act, saved) = match saved {
            Saved::Written => (CacheAct::Written { bytes: row.bytes }, CacheSaved::Saved),
            Saved::Kept => (CacheAct::Kept, CacheSaved::Existed),
        };
        self.note(CacheUse { scope: row.scope, key: row.key, act, by: row.written_by, at })?;
        Ok(saved)
    }
}

fn blob_error(error: &BlobError) -> DepotError {
    match error {
        BlobError::Absent(digest) => DepotError::Absent(*digest),
        BlobError::Damaged(digest) => DepotError::Damaged(*digest),
        BlobError::Full(_) => DepotError::Full(with_causes(error)),
        error => DepotError::Refused(with_causes(error)),
    }
}

fn store_error(error: &StoreError) -> DepotError {
    match error {
        StoreError::Full(_) => DepotError::Full(with_causes(error)),
        error => DepotError::Refused(with_causes(error)),
    }
}
