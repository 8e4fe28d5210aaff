//! The logs of all builds of one server: [`Logs`].
//!
//! A batch that a worker sends is appended to the pack of its build and is readable at once; what [`Logs::append`]
//! acknowledges survives what the durability says (`log/journal.rs`). If logs are shared ([`Sharing::Now`]) the batch is
//! put there first, and the pack is only this server's copy: whatever it lacks is fetched before it is read or written. If they
//! were shared before, what was put there is fetched as well, and goes on in the pack.
//!
//! **Order of locks:** the table of packs, then one pack; never two packs, and none of them while waiting for shared
//! storage or the journal. Callbacks of watchers are called without a lock.
//!
//! **Memory:** per open pack some hundred bytes for each step; buffers and compression contexts are shared between
//! packs and as many as threads that append at this moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use graph::{BuildId, Digest};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use super::frame::Position;
use super::journal::{self, Journal, Record, Wanted};
use super::opened::Opened;
use super::pack::{Pack, Pool, StreamEnd, lock};
use super::shared::{Shared, Sharing};
use super::{Batch, LogError, LogReader, LogWriter, Masker, StepEnd, StreamKey, Writing, index, merge};
use crate::Durability;
use crate::blob::{BlobError, Mode};
use crate::store::StoreError;

/// The most packs that are kept open for writing; the one that was used longest ago is closed for another.
pub const PACKS_OPEN_MAX: usize = 256;
/// The most callbacks that wait for one build.
pub const WATCHERS_MAX: usize = 10_000;

/// A pack is rewritten while its build runs when so many of its frames could be joined …
const JOINED_LIVE_MIN: usize = 1024;
/// … and it is no longer than this, so that nobody waits for long; longer ones are rewritten at their end.
const JOINED_LIVE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// At the end of a build fewer joinable frames are left as they are.
const JOINED_END_MIN: usize = 32;
/// Batches of one call with more content than this wait for their pack rather than going through the journal.
const JOURNALED_BYTES_MAX: usize = 128 * 1024;
/// Packs are spread over this many folders.
const FOLDERS: u64 = 256;

/// How the logs of a server are kept.
#[derive(Clone)]
pub struct LogsSettings {
    /// The folder of the packs, made if need be. One process at a time uses it.
    pub root: PathBuf,
    /// What an acknowledged batch survives. If they are shared, that is what shared storage promises.
    pub durability: Durability,
    /// Shared if several servers serve the same builds.
    pub sharing: Sharing,
}

/// What became of a batch.
#[derive(Clone, Debug)]
pub enum BatchEnd {
    /// All of it is kept, now or before.
    Taken,
    /// Bytes between the last ones kept and these are missing: send again from [`Receipt::next_byte`].
    Gap,
    /// The step was closed before these bytes: they are not kept.
    AfterEnd,
    /// It could not be kept. Sending it again is harmless.
    Failed(LogError),
}

/// The answer to a batch.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Whose build.
    pub build: BuildId,
    /// Whose step.
    pub key: StreamKey,
    /// The byte of the step that is expected next.
    pub next_byte: u64,
    /// What became of the batch.
    pub end: BatchEnd,
}

/// Where the log of a build is, as its facts tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPlace {
    /// In the pack, and it may grow.
    Live,
    /// In the pack of this server, or in chunks still; no more comes.
    Ended,
    /// In this blob, which [`Logs::end`] recorded; no more comes. If a job was retried since, or an attempt went on for another
    /// build, more of it is where that of a running build is.
    Stored(Digest),
    /// In this blob up to an earlier end of the build, which runs again: the pack begins with that, and may grow.
    Reopened(Digest),
}

/// What the end of a log left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedLog {
    /// Bytes of the pack.
    pub pack_bytes: u64,
    /// The blob that holds it, if storage is shared.
    pub digest: Option<Digest>,
}

type Callback = Arc<dyn Fn() + Send + Sync>;

/// See the head of this file. Clones are cheap and are the same logs.
#[derive(Clone)]
pub struct Logs {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    durability: Durability,
    journal: Option<Journal>,
    shared: Option<Shared>,
    keeping: Keeping,
    pool: Arc<Pool>,
    opened: Opened,
    slots: Mutex<Slots>,
    watchers: Mutex<HashMap<BuildId, BTreeMap<u64, Callback>>>,
    next_watcher: AtomicU64,
}

/// Where new batches are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeping {
    Here,
    Shared,
}

/// Where the log of a build is that had ended before.
enum Ended {
    /// In this copy of its blob, and nowhere else.
    Blob(PathBuf),
    /// In the pack, with all that the blob holds: more has come since.
    Pack(PathBuf),
}

/// The pack of one build; opened when it is needed.
#[derive(Default)]
struct Slot {
    writer: Mutex<Option<LogWriter>>,
}

#[derive(Default)]
struct Slots {
    by_build: HashMap<BuildId, (Arc<Slot>, u64)>,
    clock: u64,
}

/// Keeps a callback registered; dropping it ends that.
pub struct Watch {
    inner: Arc<Inner>,
    build: BuildId,
    number: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watchers = lock(&self.inner.watchers);
        if let Some(callbacks) = watchers.get_mut(&self.build) {
            callbacks.remove(&self.number);
            if callbacks.is_empty() {
                watchers.remove(&self.build);
            }
        }
    }
}

impl Logs {
    /// Opens the folder and brings back what the journal of a process before kept.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(settings: LogsSettings) -> Result<Self, LogError> {
        fs::create_dir_all(&settings.root)?;
        spread(&settings.root);
        let (shared, keeping) = match settings.sharing {
            Sharing::Never => (None, Keeping::Here),
            Sharing::Before(places) => (Some(Shared::new(places)), Keeping::Here),
            Sharing::Now(places) => (Some(Shared::new(places)), Keeping::Shared),
        };
        let mut inner = Inner {
            root: settings.root,
            durability: settings.durability,
            journal: None,
            shared,
            keeping,
            pool: Arc::default(),
            opened: Opened::default(),
            slots: Mutex::default(),
            watchers: Mutex::default(),
            next_watcher: AtomicU64::new(0),
        };
        let journal = inner.root.join("journal");
        if inner.durability == Durability::Power && (inner.keeping == Keeping::Here || journal.try_exists()?) {
            let replay = |record| match record {
                Record::Batch(batch) => {
                    // It may go on where what was shared ends.
                    inner.fetch(batch.build)?;
                    inner.apply(batch.build, &[&batch]).map(drop)
                }
                Record::Deletion(build) => inner.forget(build),
            };
            let journal = Journal::open(&journal, replay, |build| inner.sync(build))?;
            inner.journal = (inner.keeping == Keeping::Here).then_some(journal);
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Keeps the batches and answers each, in their order. What was kept before is recognised; a batch that begins
    /// behind the last byte kept is refused unless it says that what is between is lost.
    ///
    /// Builds that have ended, or are not known, are the caller's to refuse.
    #[must_use]
    pub fn append(&self, batches: &[Batch]) -> Vec<Receipt> {
        let mut by_build: BTreeMap<BuildId, Vec<usize>> = BTreeMap::new();
        for (index, batch) in batches.iter().enumerate() {
            by_build.entry(batch.build).or_default().push(index);
        }
        let mut receipts: Vec<Receipt> = batches.iter().map(|batch| receipt(batch, 0, BatchEnd::Taken)).collect();
        let appended = match self.inner.keeper() {
            Some(shared) => self.inner.append_shared(shared, batches, &by_build, &mut receipts),
            None => self.inner.append_local(batches, &by_build, &mut receipts),
        };
        if let Err(error) = appended {
            for receipt in &mut receipts {
                if let BatchEnd::Taken = receipt.end {
                    receipt.end = BatchEnd::Failed(error.clone());
                }
            }
        }
        receipts
    }

    /// How far a step's output is kept here: the byte that is expected next.
    ///
    /// # Errors
    /// What the file system or shared storage says.
    pub fn next_byte(&self, build: BuildId, key: StreamKey) -> Result<u64, LogError> {
        self.inner.fetch(build)?;
        self.inner.with_pack(build, |pack| Ok(pack.stream_end(key).next_byte))
    }

    /// Opens the log of a build; `None` if there is none: nothing was printed yet, or it was deleted.
    ///
    /// # Errors
    /// What the file system or shared storage says.
    pub fn reader(&self, build: BuildId, place: LogPlace) -> Result<Option<LogReader>, LogError> {
        let (path, writing) = match place {
            LogPlace::Live | LogPlace::Ended => {
                // Of an ended build too: until it stands in a blob, another server may have what is missing here.
                self.inner.fetch(build)?;
                let writing = if place == LogPlace::Live { Writing::Going } else { Writing::Over };
                (self.inner.path(build), writing)
            }
            LogPlace::Stored(digest) => match self.inner.fetch_ended(build, digest)? {
                Some(Ended::Blob(path) | Ended::Pack(path)) => (path, Writing::Over),
                None => return Ok(None),
            },
            LogPlace::Reopened(digest) => {
                self.inner.begin_with(build, digest)?;
                self.inner.fetch(build)?;
                (self.inner.path(build), Writing::Going)
            }
        };
        match self.inner.opened.open(&path, writing) {
            Ok(reader) => Ok(Some(reader)),
            Err(LogError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches what other servers have put into shared storage, and wakes the watchers if there was something. To be
    /// called when shared storage tells of news.
    ///
    /// # Errors
    /// What the file system or shared storage says.
    pub fn refresh(&self, build: BuildId) -> Result<(), LogError> {
        if self.inner.fetch(build)? {
            self.inner.wake(build);
        }
        Ok(())
    }

    /// Has the callback called after each append to a build, at its end and at its deletion, until the returned value
    /// is dropped. It is called on the thread that appends and must only wake somebody. Register first, then read:
    /// then nothing is missed.
    ///
    /// # Errors
    /// [`LogError::Watched`] at [`WATCHERS_MAX`].
    pub fn watch(&self, build: BuildId, callback: impl Fn() + Send + Sync + 'static) -> Result<Watch, LogError> {
        let mut watchers = lock(&self.inner.watchers);
        let callbacks = watchers.entry(build).or_default();
        if callbacks.len() >= WATCHERS_MAX {
            return Err(LogError::Watched);
        }
        let number = self.inner.next_watcher.fetch_add(1, Ordering::Relaxed);
        callbacks.insert(number, Arc::new(callback));
        Ok(Watch { inner: Arc::clone(&self.inner), build, number })
    }

    /// No more comes: joins small frames, and if logs are shared moves this one into a blob, whose digest is given to
    /// `record` before the chunks are deleted. `None` if there is no log. May be called again, also after a death at
    /// any point of it, also by another server, if `place` is what has been recorded so far: what stands in that blob is not
    /// made again, unless more has come since. Once `record` has returned it is to be read from there.
    /// `record` must refuse a server that leads no more.
    ///
    /// # Errors
    /// What the file system, shared storage or `record` says. Nothing is lost then.
    pub fn end(
        &self,
        build: BuildId,
        place: LogPlace,
        record: impl FnOnce(Digest) -> Result<(), StoreError>,
    ) -> Result<Option<EndedLog>, LogError> {
        let ended = match place {
            LogPlace::Stored(digest) | LogPlace::Reopened(digest) => self.inner.end_again(build, digest, record),
            LogPlace::Live | LogPlace::Ended => self.inner.fetch(build).and_then(|_| self.inner.end(build, record)),
        };
        self.inner.wake(build);
        self.inner.make_next_folder(build);
        ended
    }

    /// Removes the log of a build here and its chunks. A blob that holds it is left to the collector.
    ///
    /// # Errors
    /// What the file system or shared storage says.
    pub fn delete(&self, build: BuildId) -> Result<(), LogError> {
        let inner = &self.inner;
        if let Some(shared) = &inner.shared {
            shared.places.chunks.delete_log_chunks(build).map_err(LogError::shared)?;
            shared.forget(build);
        }
        if let Some(journal) = &inner.journal {
            journal.commit(Wanted::Records(journal::deletion(build), BTreeSet::new()), |build| inner.sync(build))?;
        }
        inner.forget(build)?;
        inner.wake(build);
        Ok(())
    }

    /// The builds whose packs here are no copies of blobs though logs are shared, sorted: they run, or ended before logs were shared.
    /// None if they are not.
    ///
    /// # Errors
    /// What the file system says.
    pub fn unshared(&self) -> Result<Vec<BuildId>, LogError> {
        let mut builds = Vec::new();
        if self.inner.keeper().is_none() {
            return Ok(builds);
        }
        for folder in fs::read_dir(&self.inner.root)? {
            let folder = folder?.path();
            if !folder.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder)? {
                let name = file?.file_name();
                let number = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
                builds.extend(number.map(BuildId));
            }
        }
        builds.sort_unstable();
        Ok(builds)
    }

    /// What the log of a build takes on this disk, in bytes; 0 if there is none here.
    #[must_use]
    pub fn stored_bytes(&self, build: BuildId) -> u64 {
        fs::metadata(self.inner.path(build)).map_or(0, |metadata| metadata.len())
    }

    /// Removes local copies of packs that stand in blobs, those read longest ago first, until at most so many bytes of
    /// them are left. Returns how many bytes that are.
    ///
    /// # Errors
    /// What the file system says.
    pub fn trim(&self, bytes_max: u64) -> Result<u64, LogError> {
        let mut copies = Vec::new();
        for folder in fs::read_dir(&self.inner.root)? {
            let folder = folder?.path();
            if !folder.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder)? {
                let path = file?.path();
                if is_copy(&path)
                    && let Ok(metadata) = path.metadata()
                {
                    copies.push((metadata.modified()?, metadata.len(), path));
                }
            }
        }
        copies.sort_unstable();
        let mut left: u64 = copies.iter().map(|copy| copy.1).sum();
        for (_, bytes, path) in copies {
            if left <= bytes_max {
                break;
            }
            self.inner.forget_pack(&path)?;
            left -= bytes;
        }
        Ok(left)
    }
}

fn receipt(batch: &Batch, next_byte: u64, end: BatchEnd) -> Receipt {
    Receipt { build: batch.build, key: batch.key, next_byte, end }
}

/// The answer to a batch, and what of it was new if that is to be journaled.
type Applied = (Receipt, Option<Batch>);

/// What is to be done with a batch, given where its step ends.
enum Due {
    Nothing(BatchEnd),
    /// All but the first bytes of it is new.
    From(usize),
}

fn due(batch: &Batch, end: &StreamEnd) -> Due {
    let has_ended = end.position == Position::Last;
    if batch.next_byte() <= end.next_byte && (batch.end != Some(StepEnd::Closed) || has_ended) {
        return Due::Nothing(BatchEnd::Taken);
    }
    if has_ended {
        return Due::Nothing(BatchEnd::AfterEnd);
    }
    match end.next_byte.checked_sub(batch.first_byte) {
        Some(known) => {
            Due::From(usize::try_from(known).map_or(batch.content().len(), |k| k.min(batch.content().len())))
        }
        None if batch.lost_lines.is_some() => Due::From(0),
        None => Due::Nothing(BatchEnd::Gap),
    }
}

impl Inner {
    fn append_local(
        &self,
        batches: &[Batch],
        by_build: &BTreeMap<BuildId, Vec<usize>>,
        receipts: &mut [Receipt],
    ) -> Result<(), LogError> {
        let (mut records, mut content) = (Vec::new(), 0);
        for (build, indices) in by_build {
            let chosen: Vec<&Batch> = indices.iter().map(|index| &batches[*index]).collect();
            let applied = self.apply_here(*build, &chosen);
            for (position, index) in indices.iter().enumerate() {
                match &applied {
                    Ok(applied) => {
                        receipts[*index] = applied[position].0.clone();
                        content += applied[position].1.as_ref().map_or(0, |new| new.content().len());
                        if content <= JOURNALED_BYTES_MAX && self.journal.is_some() {
                            applied[position].1.iter().for_each(|new| new.encode(&mut records));
                        }
                    }
                    Err(error) => receipts[*index].end = BatchEnd::Failed(error.clone()),
                }
            }
            self.wake(*build);
        }
        let Some(journal) = &self.journal else { return Ok(()) };
        let builds = by_build.keys().copied().collect();
        let wanted = match content <= JOURNALED_BYTES_MAX {
            true => Wanted::Records(records, builds),
            false => Wanted::Sync(builds),
        };
        journal.commit(wanted, |build| self.sync(build))
    }

    /// As [`Inner::apply`], behind what was shared before.
    fn apply_here(&self, build: BuildId, batches: &[&Batch]) -> Result<Vec<Applied>, LogError> {
        self.fetch(build)?;
        self.apply_behind(build, batches)
    }

    /// As [`Inner::apply`]. If something before it is missing in the pack, that is looked for first.
    fn apply_behind(&self, build: BuildId, batches: &[&Batch]) -> Result<Vec<Applied>, LogError> {
        let mut applied = self.apply(build, batches)?;
        let has_gap = applied.iter().any(|(receipt, _)| matches!(receipt.end, BatchEnd::Gap));
        if has_gap
            && let Some(shared) = &self.shared
            && self.fetch_missing(shared, build)?
        {
            // The build had ended, or another server had not left off sharing.
            for (before, again) in applied.iter_mut().zip(self.apply(build, batches)?) {
                *before = (again.0, before.1.take().or(again.1));
            }
        }
        Ok(applied)
    }

    fn append_shared(
        &self,
        shared: &Shared,
        batches: &[Batch],
        by_build: &BTreeMap<BuildId, Vec<usize>>,
        receipts: &mut [Receipt],
    ) -> Result<(), LogError> {
        let mut new = Vec::new();
        for (build, indices) in by_build {
            let chosen: Vec<&Batch> = indices.iter().map(|index| &batches[*index]).collect();
            let judged = self.judge(*build, &chosen);
            for (position, index) in indices.iter().enumerate() {
                match &judged {
                    Ok(judged) if judged[position].1 => new.push(&batches[*index]),
                    Ok(judged) => receipts[*index] = judged[position].0.clone(),
                    Err(error) => receipts[*index].end = BatchEnd::Failed(error.clone()),
                }
            }
        }
        let numbers = if new.is_empty() { Vec::new() } else { shared.put(&new)? };
        for (build, indices) in by_build {
            let chosen: Vec<usize> = indices
                .iter()
                .copied()
                .filter(|index| new.iter().any(|new| std::ptr::eq(*new, &batches[*index])))
                .collect();
            if chosen.is_empty() {
                continue;
            }
            // It is kept for all servers. What this one cannot write it fetches again before it is read.
            let applied = self.apply_behind(*build, &chosen.iter().map(|index| &batches[*index]).collect::<Vec<_>>());
            for (position, index) in chosen.iter().enumerate() {
                receipts[*index] = match &applied {
                    Ok(applied) => applied[position].0.clone(),
                    Err(_) => receipt(&batches[*index], batches[*index].next_byte(), BatchEnd::Taken),
                };
            }
            if applied.is_ok() {
                numbers.iter().filter(|own| own.0 == *build).for_each(|own| shared.saw_own(*build, own.1));
            }
            self.wake(*build);
        }
        Ok(())
    }

    /// Whether each batch has something new that follows what is kept, without keeping it. Chunks of other servers are
    /// fetched if something seems to be missing.
    fn judge(&self, build: BuildId, batches: &[&Batch]) -> Result<Vec<(Receipt, bool)>, LogError> {
        let judged = self.judge_by_pack(build, batches)?;
        let is = |end: fn(&BatchEnd) -> bool| judged.iter().any(|(receipt, _)| end(&receipt.end));
        let found = match self.keeper() {
            Some(shared) if is(|end| matches!(end, BatchEnd::Gap)) => self.fetch_missing(shared, build)?,
            Some(shared) if is(|end| !matches!(end, BatchEnd::Taken)) => self.fetch_from(shared, build)?,
            _ => false,
        };
        if !found {
            return Ok(judged);
        }
        self.wake(build);
        self.judge_by_pack(build, batches)
    }

    fn judge_by_pack(&self, build: BuildId, batches: &[&Batch]) -> Result<Vec<(Receipt, bool)>, LogError> {
        self.with_pack(build, |pack| {
            let mut ends: HashMap<StreamKey, StreamEnd> = HashMap::new();
            let judge = |batch: &&Batch| {
                let end = ends.entry(batch.key).or_insert_with(|| pack.stream_end(batch.key));
                let due = due(batch, end);
                if let Due::From(_) = due {
                    end.next_byte = end.next_byte.max(batch.next_byte());
                    if batch.end == Some(StepEnd::Closed) {
                        end.position = Position::Last;
                    }
                }
                match due {
                    Due::Nothing(verdict) => (receipt(batch, end.next_byte, verdict), false),
                    Due::From(_) => (receipt(batch, end.next_byte, BatchEnd::Taken), true),
                }
            };
            Ok(batches.iter().map(judge).collect())
        })
    }

    /// Appends to the pack what is new of the batches. Returns it beside each answer.
    fn apply(&self, build: BuildId, batches: &[&Batch]) -> Result<Vec<Applied>, LogError> {
        let slot = self.slot(build);
        let mut writer = lock(&slot.writer);
        let applied = self.opened(&mut writer, build).and_then(|writer| {
            batches.iter().map(|batch| apply(writer, batch, self.journal.is_some())).collect::<Result<Vec<_>, _>>()
        });
        if applied.is_err() {
            // What is in the file is learnt from the file again.
            *writer = None;
        }
        let crowded = writer.as_ref().is_some_and(|writer| {
            writer.pack().joinable() >= JOINED_LIVE_MIN && writer.pack().length() <= JOINED_LIVE_BYTES_MAX
        });
        if crowded {
            *writer = None;
            merge::merge(&self.path(build), &self.pool, self.durability)?;
        }
        applied
    }

    /// Where new batches are kept, if they are shared.
    fn keeper(&self) -> Option<&Shared> {
        self.shared.as_ref().filter(|_| self.keeping == Keeping::Shared)
    }

    /// Appends the chunks of other servers to the pack. Says whether there were any. Once none are added any more, they are asked for once.
    fn fetch(&self, build: BuildId) -> Result<bool, LogError> {
        match &self.shared {
            Some(shared) if self.keeping == Keeping::Here && !shared.knows(build) => {
                let found = self.fetch_from(shared, build)?;
                shared.saw(build, 0, 0);
                Ok(found)
            }
            Some(shared) if self.keeping == Keeping::Shared => self.fetch_from(shared, build),
            _ => Ok(false),
        }
    }

    /// As [`Inner::fetch_from`], and before that what stands in a blob: an attempt may go on for another build when its own has ended.
    fn fetch_missing(&self, shared: &Shared, build: BuildId) -> Result<bool, LogError> {
        let recorded = (shared.places.recorded)(build).map_err(LogError::shared)?;
        if let Some(digest) = recorded {
            self.begin_with(build, digest)?;
        }
        Ok(self.fetch_from(shared, build)? || recorded.is_some())
    }

    fn fetch_from(&self, shared: &Shared, build: BuildId) -> Result<bool, LogError> {
        let mut found = false;
        loop {
            let (after, chunks) = shared.unseen(build)?;
            let Some(last) = chunks.last().map(|chunk| chunk.number) else { return Ok(found) };
            found = true;
            for chunk in chunks {
                let batches = Batch::decode_all(&chunk.body).map_err(LogError::shared)?;
                self.apply(build, &batches.iter().collect::<Vec<_>>())?;
            }
            shared.saw(build, after, last);
        }
    }

    fn slot(&self, build: BuildId) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        slots.clock += 1;
        let now = slots.clock;
        if !slots.by_build.contains_key(&build) && slots.by_build.len() >= PACKS_OPEN_MAX {
            let idle = slots.by_build.iter().filter(|(_, (slot, _))| Arc::strong_count(slot) == 1);
            let oldest = idle.min_by_key(|(_, (_, used))| *used).map(|(build, _)| *build);
            // Closed here, under the lock, so that nobody opens it before.
            oldest.and_then(|oldest| slots.by_build.remove(&oldest));
        }
        let (slot, used) = slots.by_build.entry(build).or_default();
        *used = now;
        Arc::clone(slot)
    }

    fn opened<'a>(&self, writer: &'a mut Option<LogWriter>, build: BuildId) -> Result<&'a LogWriter, LogError> {
        if writer.is_none() {
            let path = self.path(build);
            let is_new = !path.try_exists()?;
            let folder = path.parent().expect("a pack is in a folder");
            if is_new {
                fs::create_dir_all(folder)?;
            }
            *writer = Some(LogWriter::open_pooled(&path, &self.pool)?);
            if is_new && self.durability == Durability::Power {
                File::open(folder)?.sync_all()?;
                File::open(&self.root)?.sync_all()?;
            }
        }
        Ok(writer.as_ref().expect("opened above"))
    }

    /// Makes the folder of the build after this one, if it is not there, so that nobody waits for it before that build's first line: a
    /// fresh installation needs a new one for each of its first builds, and the file system looks for a place for it all over the disk.
    fn make_next_folder(&self, build: BuildId) {
        if let Some(next) = build.0.checked_add(1)
            && let Some(folder) = self.path(BuildId(next)).parent()
        {
            // Whoever needs it makes it, or says why not.
            let _ = fs::create_dir(folder);
        }
    }

    fn with_pack<T>(&self, build: BuildId, work: impl FnOnce(&Pack) -> Result<T, LogError>) -> Result<T, LogError> {
        let slot = self.slot(build);
        let mut writer = lock(&slot.writer);
        work(self.opened(&mut writer, build)?.pack())
    }

    fn end(
        &self,
        build: BuildId,
        record: impl FnOnce(Digest) -> Result<(), StoreError>,
    ) -> Result<Option<EndedLog>, LogError> {
        let path = self.path(build);
        if !path.try_exists()? {
            return Ok(None);
        }
        let slot = self.slot(build);
        let mut writer = lock(&slot.writer);
        let joinable = self.opened(&mut writer, build)?.pack().joinable();
        *writer = None;
        if joinable >= JOINED_END_MIN {
            merge::merge(&path, &self.pool, self.durability)?;
        }
        let pack_bytes = path.metadata()?.len();
        let Some(shared) = self.keeper() else {
            if self.durability == Durability::Power {
                self.sync(build)?;
            }
            return Ok(Some(EndedLog { pack_bytes, digest: None }));
        };
        let digest = shared.places.blobs.put_file(&path)?.digest;
        record(digest).map_err(LogError::shared)?;
        shared.places.chunks.delete_log_chunks(build).map_err(LogError::shared)?;
        // From now on it is a copy like any other.
        let copy = self.copy_path(build, digest);
        match fs::rename(index::side_path(&path), index::side_path(&copy)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::rename(&path, copy)?,
        }
        shared.forget(build);
        Ok(Some(EndedLog { pack_bytes, digest: Some(digest) }))
    }

    /// The log stands in its blob: what is left of it elsewhere goes. If that is more, it has ended once more, with all of it.
    fn end_again(
        &self,
        build: BuildId,
        digest: Digest,
        record: impl FnOnce(Digest) -> Result<(), StoreError>,
    ) -> Result<Option<EndedLog>, LogError> {
        let copy = match self.fetch_ended(build, digest)? {
            Some(Ended::Blob(copy)) => copy,
            Some(Ended::Pack(_)) => return self.end(build, record),
            None => return Ok(None),
        };
        if let Some(shared) = &self.shared {
            shared.places.chunks.delete_log_chunks(build).map_err(LogError::shared)?;
            shared.forget(build);
        }
        Ok(Some(EndedLog { pack_bytes: copy.metadata()?.len(), digest: Some(digest) }))
    }

    /// Where all of the log of a build is that had ended when it was put into the blob; `None` if nothing is anywhere.
    fn fetch_ended(&self, build: BuildId, digest: Digest) -> Result<Option<Ended>, LogError> {
        if let Some(shared) = self.keeper().filter(|shared| !shared.knows_blob(build, digest)) {
            // Chunks that came since are numbered anew.
            shared.forget(build);
        }
        self.fetch(build)?;
        let copy = self.copy(build, digest)?;
        let path = self.path(build);
        if !path.try_exists()? {
            return Ok(copy.map(Ended::Blob));
        }
        let Some(copy) = copy else { return Ok(Some(Ended::Pack(path))) };
        let stored = LogReader::open(&copy, Writing::Over)?;
        let slot = self.slot(build);
        let mut writer = lock(&slot.writer);
        *writer = None;
        let Some(pack) = merge::open_if_there(&path)? else { return Ok(Some(Ended::Blob(copy))) };
        if pack.has_more_than(&stored) {
            self.join(build, digest, &stored)?;
            return Ok(Some(Ended::Pack(path)));
        }
        // What was here while the build ran is part of that.
        self.forget_pack(&path)?;
        self.shared.iter().for_each(|shared| shared.forget(build));
        Ok(Some(Ended::Blob(copy)))
    }

    /// Has the pack hold what the blob does, in which an earlier end of the build put its log.
    fn begin_with(&self, build: BuildId, digest: Digest) -> Result<(), LogError> {
        let is_known = self.shared.as_ref().is_some_and(|shared| shared.knows_blob(build, digest));
        if is_known && self.path(build).try_exists()? {
            return Ok(());
        }
        let Some(copy) = self.copy(build, digest)? else { return Ok(()) };
        let stored = LogReader::open(&copy, Writing::Over)?;
        let slot = self.slot(build);
        let mut writer = lock(&slot.writer);
        *writer = None;
        self.join(build, digest, &stored)
    }

    /// As [`Inner::begin_with`], of a pack that is not open.
    fn join(&self, build: BuildId, digest: Digest, stored: &LogReader) -> Result<(), LogError> {
        let path = self.path(build);
        merge::join(&path, stored, &self.pool, self.durability)?;
        if let Some(shared) = self.shared.as_ref().filter(|shared| !shared.knows_blob(build, digest)) {
            shared.saw_blob(build, digest);
        }
        Ok(())
    }

    /// The local copy of a blob that holds a log, fetched if need be; `None` if there is no such blob.
    fn copy(&self, build: BuildId, digest: Digest) -> Result<Option<PathBuf>, LogError> {
        let copy = self.copy_path(build, digest);
        match File::options().write(true).open(&copy) {
            // So that `trim` knows it was read.
            Ok(file) => file.set_modified(SystemTime::now())?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Err(_) => {
                let Some(shared) = &self.shared else { return Ok(None) };
                fs::create_dir_all(copy.parent().expect("a pack is in a folder"))?;
                match shared.places.blobs.materialize(digest, &copy, Mode::FILE) {
                    Err(BlobError::Absent(_)) => return Ok(None),
                    fetched => fetched?,
                }
            }
        }
        Ok(Some(copy))
    }

    /// Removes all that is here of a build.
    fn forget(&self, build: BuildId) -> Result<(), LogError> {
        let slot = self.slot(build);
        let mut writer = lock(&slot.writer);
        *writer = None;
        let path = self.path(build);
        self.forget_pack(&path)?;
        let prefix = format!("{}-", build.0);
        let files = match fs::read_dir(path.parent().expect("a pack is in a folder")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            files => files?,
        };
        for file in files {
            let file = file?;
            if file.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
                self.forget_pack(&file.path())?;
            }
        }
        Ok(())
    }

    fn forget_pack(&self, path: &Path) -> Result<(), LogError> {
        self.opened.forget(path);
        Ok(merge::forget(path)?)
    }

    /// Waits until a pack, if it is there, is on the disk.
    fn sync(&self, build: BuildId) -> Result<(), LogError> {
        match File::open(self.path(build)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            file => Ok(file?.sync_data()?),
        }
    }

    fn wake(&self, build: BuildId) {
        let callbacks: Vec<Callback> = match lock(&self.watchers).get(&build) {
            Some(callbacks) => callbacks.values().cloned().collect(),
            None => return,
        };
        callbacks.iter().for_each(|callback| callback());
    }

    fn path(&self, build: BuildId) -> PathBuf {
        pack_path(&self.root, build)
    }

    /// Where the pack of an ended build is kept as a copy of its blob: under a name that no other content has.
    fn copy_path(&self, build: BuildId, digest: Digest) -> PathBuf {
        self.path(build).with_file_name(format!("{}-{}.log", build.0, digest.to_hex()))
    }
}

/// Where the pack of a build is below a folder of logs, unless it is a copy of a blob.
#[must_use]
pub fn pack_path(root: &Path, build: BuildId) -> PathBuf {
    root.join(format!("{:02x}", build.0 % FOLDERS)).join(format!("{}.log", build.0))
}

/// Has the file system lay the files of each folder in a part of the disk of their own, where it can (ext4: `chattr +T`, chattr(1)). A
/// pack is made while somebody waits for its first line, and ext4 passes over each file that was deleted in the same part
/// within the last minutes.
fn spread(root: &Path) {
    // Other file systems have no such flag, and need none.
    if let Ok(root) = File::open(root)
        && let Ok(flags) = ioctl_getflags(&root)
    {
        let _ = ioctl_setflags(&root, flags | IFlags::TOPDIR);
    }
}

fn is_copy(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.ends_with(".log") && name.contains('-')
}

/// Appends what is new of a batch to the pack of its build.
fn apply(writer: &LogWriter, batch: &Batch, is_journaled: bool) -> Result<Applied, LogError> {
    let end = writer.pack().stream_end(batch.key);
    let cut = match due(batch, &end) {
        Due::Nothing(verdict) => return Ok((receipt(batch, end.next_byte, verdict), None)),
        Due::From(cut) => cut,
    };
    let mut stream = writer.open_stream(batch.key, &Masker::none());
    if batch.first_byte > end.next_byte {
        let next_line = end.next_line.saturating_add(batch.lost_lines.unwrap_or(0));
        stream.skip_to(next_line, batch.first_byte, end.ends);
    }
    let mut skip = cut;
    for (run, bytes) in batch.runs() {
        let new = &bytes[skip.min(bytes.len())..];
        skip -= bytes.len() - new.len();
        if !new.is_empty() {
            stream.write_run(run.stream, new, run.time_us);
        }
    }
    let position = if batch.end == Some(StepEnd::Closed) { Position::Last } else { Position::Inner };
    stream.leave(position)?;
    let new = is_journaled.then(|| if cut == 0 { batch.clone() } else { batch.after(cut) });
    Ok((receipt(batch, batch.next_byte().max(end.next_byte), BatchEnd::Taken), new))
}
