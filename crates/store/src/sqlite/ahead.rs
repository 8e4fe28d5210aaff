//! Appends that stand in a file before they stand in the database.
//!
//! A commit costs a laptop more than all else that Ropewalk does about a job. So what a build tells while nobody has
//! to see it at once ([`is_quiet`]) is written into a file first, which the death of the process does not take, and comes into
//! the database some milliseconds later, many appends in one transaction. Whoever reads or writes through the same store
//! first has what waits stored; other processes see it that much later. Only facts of builds go ahead that the store has claimed, so that
//! nobody else appends to them meanwhile; before a claim is free, all of it is stored.
//!
//! The file belongs to one store of one process, which holds its lock. One that nobody holds was left by a process
//! that died: whoever opens the store, or claims a build, stores what it holds and removes it. Each record says at which place in each
//! build it begins, so that what the database has already is not stored twice.
//!
//! A record is the length of its body (32 bits, big-endian), the first eight bytes of the body's BLAKE3, and the body: one line of
//! JSON with the first place in each build, then one line for each fact. One that is cut off or torn ends the file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use engine::Fact;
use engine::fact::What;
use graph::BuildId;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, test_kill_process};

use crate::claim::is_at;
use crate::store::StoreError;

/// How long an append waits for more to come with it into the database.
pub(super) const LINGER: Duration = Duration::from_millis(20);
/// The most bytes of records that wait for the database; the append that would be beyond it has them stored first.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A file at least this long begins anew once all of it is stored.
const FILE_BYTES: u64 = 4 * 1024 * 1024;
/// How often a file is tried whose owner has died while somebody, about to start a program, still has it open.
const TRIES: u32 = 50;
const TRY_WAIT: Duration = Duration::from_millis(2);
const HEAD_BYTES: usize = 12;

/// Whether a fact need not be seen by other processes at once: it is about one job among many.
pub(super) fn is_quiet(fact: &Fact) -> bool {
    matches!(
        fact.what,
        What::AttemptLeased { .. }
            | What::AttemptFinished { .. }
            | What::JobEnded { .. }
            | What::OperationKnown { .. }
            | What::OperationUnknown { .. }
            | What::Answered { .. }
    )
}

/// Whether an append went ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Went {
    Ahead,
    /// It has to go into the database at once.
    Not,
}

/// See the head of this file. Its lock is taken after the writer's.
pub(super) struct Ahead {
    folder: PathBuf,
    state: Mutex<State>,
    /// How many appends wait.
    waiting: AtomicUsize,
    more: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    file: Option<OwnFile>,
    /// The builds that this store has claimed, so that nobody else appends to them, and the place of the next fact of each
    /// to which it has appended and that has not ended.
    claimed: HashMap<BuildId, Option<u64>>,
    waiting: Vec<Append>,
    waiting_bytes: usize,
    /// Whether what waits could not be stored the last time.
    is_stuck: bool,
    is_closed: bool,
}

/// An append that waits for the database: its facts, and each as its line of JSON, with an end of line between two.
pub(super) struct Append {
    pub facts: Vec<Fact>,
    pub lines: Vec<u8>,
}

struct OwnFile {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Ahead {
    /// For the store in `folder`.
    pub fn new(folder: &Path) -> Self {
        let (state, waiting, more) = (Mutex::default(), AtomicUsize::new(0), Condvar::new());
        Self { folder: folder.join("ahead"), state, waiting, more }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an append waits.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Writes `facts` into the file if they may go ahead; after an error none of them is there.
    pub fn append(&self, facts: &[Fact]) -> Result<Went, StoreError> {
        if !facts.iter().all(is_quiet) {
            return Ok(Went::Not);
        }
        let mut state = self.lock();
        let mut first = BTreeMap::new();
        for fact in facts {
            let Some(&Some(place)) = state.claimed.get(&fact.build) else { return Ok(Went::Not) };
            first.entry(fact.build).or_insert(place);
        }
        if state.is_stuck || state.waiting_bytes >= WAITING_BYTES_MAX {
            return Ok(Went::Not);
        }
        let lines = lines_of(facts);
        let record = record(&first, &lines);
        if state.file.is_none() {
            state.file = Some(OwnFile::make(&self.folder)?);
        }
        let own = state.file.as_mut().expect("it was just made");
        // Behind an error the length stays, so that what was written of the record is written over.
        own.file.write_all_at(&record, own.length)?;
        own.length += record.len() as u64;
        for fact in facts {
            if let Some(Some(place)) = state.claimed.get_mut(&fact.build) {
                *place += 1;
            }
        }
        state.waiting_bytes += lines.len();
        state.waiting.push(Append { facts: facts.to_vec(), lines });
        self.waiting.store(state.waiting.len(), Ordering::Release);
        if state.waiting.len() == 1 {
            self.more.notify_one();
        }
        Ok(Went::Ahead)
    }

    /// Waits until something waits for the database, and then for what may come with it; `false` once this is closed.
    pub fn next(&self) -> bool {
        let is_idle = |state: &mut State| state.waiting.is_empty() && !state.is_closed;
        let state = self.more.wait_while(self.lock(), is_idle).unwrap_or_else(PoisonError::into_inner);
        let is_open = |state: &mut State| !state.is_closed;
        let waited = self.more.wait_timeout_while(state, LINGER, is_open);
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_closed
    }

    /// Takes what waits, to be stored or given back. The caller holds the writer, so nobody else takes any meanwhile.
    pub fn take(&self) -> Vec<Append> {
        let mut state = self.lock();
        self.waiting.store(0, Ordering::Release);
        state.waiting_bytes = 0;
        std::mem::take(&mut state.waiting)
    }

    /// Gives back what could not be stored.
    pub fn give_back(&self, mut appends: Vec<Append>) {
        let mut state = self.lock();
        appends.append(&mut state.waiting);
        state.waiting_bytes = appends.iter().map(|append| append.lines.len()).sum();
        state.waiting = appends;
        state.is_stuck = true;
        self.waiting.store(state.waiting.len(), Ordering::Release);
    }

    /// What was taken is stored, but for facts of builds that are `gone`. A long file begins anew.
    pub fn stored(&self, gone: &BTreeSet<BuildId>) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.is_stuck = false;
        for build in gone {
            state.note_place(*build, None);
        }
        if state.waiting.is_empty()
            && let Some(own) = &mut state.file
            && own.length >= FILE_BYTES
        {
            own.file.set_len(0)?;
            own.length = 0;
        }
        Ok(())
    }

    /// No more is to come; wakes whoever waits in [`Ahead::next`].
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.more.notify_all();
    }

    /// Removes the file, all of which is stored.
    pub fn remove(&self) {
        if let Some(own) = self.lock().file.take() {
            // Left behind it would be looked at by the next process, and nothing of it stored twice.
            drop(fs::remove_file(own.path));
        }
    }

    /// The records that dead processes have left, each file with its path; the files are locked as long as they are held.
    pub fn left(&self) -> Result<Vec<Left>, StoreError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut left = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if let Some(file) = take_over(&path)? {
                left.push(Left { records: records(&fs::read(&path)?, &path)?, _file: file, path });
            }
        }
        Ok(left)
    }
}

impl State {
    /// Whether an append waits.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The build is this store's, until it is released.
    pub fn claim(&mut self, build: BuildId) {
        self.claimed.insert(build, None);
    }

    /// The build is anybody's.
    pub fn release(&mut self, build: BuildId) {
        self.claimed.remove(&build);
    }

    /// Notes where the next fact of a build goes, should it be claimed; `None` if none may go ahead.
    pub fn note_place(&mut self, build: BuildId, place: Option<u64>) {
        if let Some(noted) = self.claimed.get_mut(&build) {
            *noted = place;
        }
    }
}

impl OwnFile {
    fn make(folder: &Path) -> Result<Self, StoreError> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        fs::create_dir_all(folder)?;
        loop {
            let name = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
            let path = folder.join(name);
            let file = match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                // Of a process with our number: in another container, or long ago.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file?,
            };
            flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from)?;
            if is_at(&file, &path)? {
                return Ok(Self { file, path, length: 0 });
            }
            // Taken for one of a dead process between its making and its locking.
        }
    }
}

/// What a dead process left.
pub(super) struct Left {
    pub records: Vec<LeftRecord>,
    path: PathBuf,
    /// Its lock is ours until this is dropped.
    _file: File,
}

impl Left {
    /// All of it is stored.
    pub fn remove(self) -> Result<(), StoreError> {
        Ok(fs::remove_file(&self.path)?)
    }
}

/// One append that a dead process left.
pub(super) struct LeftRecord {
    /// The place of the first fact of each build.
    pub first: BTreeMap<BuildId, u64>,
    pub facts: Vec<Fact>,
}

/// Locks a file whose owner has died; `None` if it lives, or has removed it.
fn take_over(path: &Path) -> Result<Option<File>, StoreError> {
    for _ in 0..TRIES {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(is_at(&file, path)?.then_some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) if is_alive(path) => return Ok(None),
            Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(TRY_WAIT),
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
    Ok(None)
}

/// Whether the process after which a file is named is alive.
fn is_alive(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let number = name.split('-').next().and_then(|number| number.parse().ok()).and_then(Pid::from_raw);
    number.is_some_and(|process| test_kill_process(process) != Err(rustix::io::Errno::SRCH))
}

/// Each fact as a line of JSON, without an end of line behind the last.
pub(super) fn lines_of<'a>(facts: impl IntoIterator<Item = &'a Fact>) -> Vec<u8> {
    let mut lines = Vec::new();
    for fact in facts {
        if !lines.is_empty() {
            lines.push(b'\n');
        }
        // Our types serialize to JSON whatever they hold.
        serde_json::to_writer(&mut lines, fact).expect("a fact always serializes");
    }
    lines
}

fn record(first: &BTreeMap<BuildId, u64>, lines: &[u8]) -> Vec<u8> {
    let mut record = vec![0; HEAD_BYTES];
    let first: Vec<(&BuildId, &u64)> = first.iter().collect();
    serde_json::to_writer(&mut record, &first).expect("numbers always serialize");
    record.push(b'\n');
    record.extend_from_slice(lines);
    let length = u32::try_from(record.len() - HEAD_BYTES).expect("an append is far shorter than 4 GiB");
    let digest = blake3::hash(&record[HEAD_BYTES..]);
    record[..4].copy_from_slice(&length.to_be_bytes());
    record[4..HEAD_BYTES].copy_from_slice(&digest.as_bytes()[..8]);
    record
}

/// The whole records of a file, up to the first that is not.
fn records(bytes: &[u8], path: &Path) -> Result<Vec<LeftRecord>, StoreError> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while let Some((head, behind)) = rest.split_at_checked(HEAD_BYTES) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some((body, next)) = behind.split_at_checked(length) else { break };
        if length == 0 || blake3::hash(body).as_bytes()[..8] != head[4..] {
            break;
        }
        records.push(parse(body).map_err(|error| {
            let told = format!("{} holds what this version of Ropewalk cannot read: {error}", path.display());
            StoreError::Corrupt(told.into())
        })?);
        rest = next;
    }
    Ok(records)
}

fn parse(body: &[u8]) -> serde_json::Result<LeftRecord> {
    let mut lines = body.split(|&byte| byte == b'\n');
    let first: Vec<(BuildId, u64)> = serde_json::from_slice(lines.next().unwrap_or_default())?;
    let facts = lines.map(serde_json::from_slice).collect::<Result<_, _>>()?;
    Ok(LeftRecord { first: first.into_iter().collect(), facts })
}
