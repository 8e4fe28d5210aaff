//! A store in one SQLite file, `ropewalk.db`, shared by any number of processes of one machine.
//!
//! One connection writes, behind a lock; reads take a connection of their own from a pool, so that a long read
//! never keeps an append waiting. On a laptop, most appends stand in a file for some milliseconds before they come into the
//! database, many at once (`sqlite/ahead.rs`). The writer keeps the rows of running builds at hand; rows may follow their facts
//! some appends later, but nobody sees that (`sqlite/facts.rs`). Whether another process has written meanwhile is asked inside the transaction
//! (`pragma data_version`); if so, what is at hand is dropped and read again.
//!
//! What a crash of the machine may take: with [`Durability::Process`] the newest appends, never the order or the
//! whole of an append; with [`Durability::Power`] nothing that was acknowledged. The death of the process alone
//! takes nothing.

mod ahead;
mod caches;
mod column;
mod copy;
mod deletion;
mod documents;
mod facts;
mod journal;
mod migration;
mod operations;
mod projected;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::Fact;
use engine::operation::Manifest;
use graph::{AttemptNumber, AttemptReport, BuildId, Digest, Graph, JobName, Timestamp, Trust};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use self::ahead::{Ahead, Went};
pub use self::copy::{BackupFile, restore_backup, verify_backup};
use crate::audit::{self, AuditEntry, AuditFilter, AuditRow};
use crate::cache::{CacheRead, CacheRow, CacheTotals, CacheUser, CacheWanted, Saved};
use crate::chunk::{self, LogChunk, LogChunks};
use crate::claim::{self, Claim, Claimant};
use crate::leadership::{Fence, FileLock, Leadership, Looked};
use crate::record::{self, Expect, NewRecord, Record, Version};
use crate::rows::projection::Working;
use crate::rows::{ArtifactRow, AttemptRow, BuildRow, GateRow, JobRow, OperationRow, OperationTotals, TestRow};
use crate::store::{BUILD_ID_MAX, BuildFilter, Deleted, Journal, Sequence, Store, StoreError};

/// The file's name in the folder of the store.
pub const DATABASE_FILE: &str = "ropewalk.db";
/// How long a call waits for another process before it is `Busy`.
pub const BUSY_WAIT: Duration = Duration::from_secs(10);
/// How often a write-ahead log is asked for again that SQLite refused at once.
const JOURNAL_ASKED_EVERY: Duration = Duration::from_millis(5);
/// How many prepared statements a connection keeps; there are fewer.
const STATEMENTS_KEPT: usize = 96;
/// How many idle connections the pool keeps.
const READERS_KEPT: usize = 4;
/// The most rows that the writer keeps at hand between appends; beyond it forgets them all and reads again.
const ROWS_AT_HAND_MAX: usize = 100_000;
/// A log of changes at least this long is folded into the file when the store is closed; a shorter one is left
/// for the next to go on with, since folding waits for the disk.
const FOLD_AT_CLOSE_BYTES: u64 = 1 << 20;

/// The file in the folder of the store whose lock the leader holds.
const LEADER_FILE: &str = "leader";

/// The folder of the files whose locks say who runs which build, in the folder of the store.
const CLAIMS: &str = "claims";

/// What an acknowledged append survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The death of the process (`synchronous = normal`): the disk is waited for only when the log of changes is folded
    /// into the file. Right for a laptop, and so the default: a build can be run again.
    #[default]
    Process,
    /// The loss of power (`synchronous = full`): every append waits for the disk. Right for a server, which has told
    /// others that it has what they sent.
    Power,
}

/// How a store is opened. The default is that of a laptop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// What an acknowledged append survives.
    pub durability: Durability,
    /// Whether the order of appends over all builds is kept.
    pub journal: Journal,
}

impl Opening {
    /// As a server needs it.
    pub const SERVER: Self = Self { durability: Durability::Power, journal: Journal::Kept };
}

/// See the head of this file.
pub struct SqliteStore {
    folder: PathBuf,
    durability: Durability,
    journal: Journal,
    fence: Arc<Fence>,
    front: Arc<Front>,
    readers: Mutex<Vec<Connection>>,
    /// Whether dead processes left what the disk had no room for when this was opened.
    has_left: AtomicBool,
    /// Has the appends that went ahead stored. Begun with the first of them.
    storing: Mutex<Option<JoinHandle<()>>>,
}

/// What writes, shared with the thread that has stored what went ahead.
struct Front {
    writer: Mutex<Writer>,
    ahead: Ahead,
}

struct Writer {
    connection: Connection,
    /// What its commits survive at present.
    durability: Durability,
    working: Working,
    /// The count of others' writes, as the connection saw it when `working` was right.
    data_version: i64,
    /// Whether somebody else has written since this writer's last write.
    is_shared: bool,
    journal: Journal,
    /// The graph stored last, so that storing it again costs nothing.
    last_graph: Option<(Arc<Graph>, Digest)>,
}

impl SqliteStore {
    /// Opens the store in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// `Newer` if a newer Ropewalk wrote it; `Denied`, `Full`, `Io`, `Corrupt` and `Busy` as the system says.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_with(folder, Opening::default())
    }

    /// As [`SqliteStore::open`], in this way.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn open_with(folder: &Path, opening: Opening) -> Result<Self, StoreError> {
        Self::open_at(folder, opening, migration::VERSION)
    }

    /// As [`SqliteStore::open`], for one who reads: on a full disk he is shown what dead processes left although it cannot be stored. To
    /// append, or to claim a build, takes room.
    ///
    /// # Errors
    /// As [`SqliteStore::open`]; `Full` if there is no database yet.
    pub fn open_to_read(folder: &Path) -> Result<Self, StoreError> {
        let store = Self::open_unadopted(folder, Opening::default(), migration::VERSION)?;
        match store.adopt() {
            Err(StoreError::Full(_)) => store.has_left.store(true, Ordering::Release),
            adopted => adopted?,
        }
        Ok(store)
    }

    /// Claims a build of the store in `folder` without opening it: for one who makes the room that it takes to open it. `None` if somebody has it.
    ///
    /// # Errors
    /// As the system refuses.
    pub fn claim_unopened(folder: &Path, build: BuildId) -> Result<Option<Claim>, StoreError> {
        let claims = folder.join(CLAIMS);
        fs::create_dir_all(&claims)?;
        Ok(Claim::on_file(&claims, build)?)
    }

    fn open_at(folder: &Path, opening: Opening, version: u32) -> Result<Self, StoreError> {
        let store = Self::open_unadopted(folder, opening, version)?;
        if version == migration::VERSION {
            store.adopt()?;
            if opening.journal == Journal::Kept {
                store.write(facts::catch_up)?;
            }
        }
        Ok(store)
    }

    /// Opens it without what dead processes left.
    fn open_unadopted(folder: &Path, opening: Opening, version: u32) -> Result<Self, StoreError> {
        let Opening { durability, journal } = opening;
        let path = folder.join(DATABASE_FILE);
        if !path.exists() {
            fs::create_dir_all(folder)?;
        }
        let mut connection = connect(&path, durability)?;
        migration::migrate(&mut connection, version)?;
        let writer = Writer {
            connection,
            durability,
            working: Working::default(),
            data_version: -1,
            is_shared: false,
            journal,
            last_graph: None,
        };
        Ok(Self {
            folder: folder.to_owned(),
            durability,
            journal,
            fence: Arc::default(),
            front: Arc::new(Front { writer: Mutex::new(writer), ahead: Ahead::new(folder) }),
            readers: Mutex::default(),
            has_left: AtomicBool::new(false),
            storing: Mutex::default(),
        })
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.front.writer()
    }

    /// Stores what processes left that died before it was in the database.
    fn adopt(&self) -> Result<(), StoreError> {
        for left in self.front.ahead.left()? {
            self.write(|writer| facts::adopt(writer, &left.records))?;
            left.remove()?;
        }
        self.has_left.store(false, Ordering::Release);
        Ok(())
    }

    /// Stores what was left and found no room when this was opened.
    fn adopt_late(&self) -> Result<(), StoreError> {
        if self.has_left.load(Ordering::Acquire) { self.adopt() } else { Ok(()) }
    }

    /// Whether appends may go ahead: not those that must survive the loss of power, nor those whose order over all builds is kept.
    fn goes_ahead(&self) -> bool {
        self.durability == Durability::Process && self.journal == Journal::Off
    }

    /// Begins, once, to have stored what went ahead.
    fn begin_storing(&self) {
        let mut storing = self.storing.lock().unwrap_or_else(PoisonError::into_inner);
        if storing.is_none() {
            let front = Arc::clone(&self.front);
            let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
                while front.ahead.next() {
                    // An error is told to whoever appends next, who has it stored at once.
                    drop(front.drain(&mut front.writer()));
                }
            });
            // Without a thread it is stored by whoever reads or writes next.
            *storing = thread.ok();
        }
    }

    fn claims(&self) -> PathBuf {
        self.folder.join(CLAIMS)
    }

    /// Reads in one snapshot.
    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.front.ahead.is_waiting() {
            self.front.drain(&mut self.writer())?;
        }
        let pooled = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => connect(&self.folder.join(DATABASE_FILE), self.durability)?,
        };
        connection.prepare_cached("begin")?.execute([])?;
        let result = read(&connection);
        connection.prepare_cached("commit")?.execute([])?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_KEPT {
            readers.push(connection);
        }
        result
    }

    /// As [`SqliteStore::read`], with all facts projected.
    fn read_rows<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        // With a journal every append projects its facts at once.
        if self.journal == Journal::Off
            && (self.has_left.load(Ordering::Acquire) || !self.read(facts::behind)?.is_empty())
        {
            match self.adopt_late().and_then(|()| self.write(facts::catch_up)) {
                Err(StoreError::Full(_)) => return self.read_unstored(read),
                caught_up => caught_up?,
            }
        }
        self.read(read)
    }

    /// Reads all that was told where the disk has no room to store and project it: in a transaction that is undone.
    fn read_unstored<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let left = self.front.ahead.left()?;
        self.writer().transact_undone(|writer| {
            for left in &left {
                facts::adopt(writer, &left.records)?;
            }
            facts::catch_up(writer)?;
            read(&writer.connection)
        })
    }

    /// Writes what has nothing to do with builds in one transaction.
    fn write_beside<T>(&self, write: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.write(|writer| write(&writer.connection))
    }

    /// Writes in one transaction; what is at hand is right inside it.
    fn write<T>(&self, write: impl FnOnce(&mut Writer) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.write_lasting(self.durability, write)
    }

    /// As [`SqliteStore::write`], without waiting for the disk: for what need not be durable before something else is stored after it.
    /// Then it is, since all of it stands in one log of changes, which is synced up to there.
    fn write_soon<T>(&self, write: impl FnOnce(&mut Writer) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.write_lasting(Durability::Process, write)
    }

    fn write_lasting<T>(
        &self,
        durability: Durability,
        write: impl FnOnce(&mut Writer) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = self.writer();
        self.front.drain(&mut writer)?;
        writer.transact(durability, write)
    }

    /// Stores `facts` in the database at once, and notes from where on their builds may go ahead.
    fn append_at_once(&self, facts: &[Fact]) -> Result<(), StoreError> {
        let epoch = self.fence.check()?;
        let mut writer = self.writer();
        let mut ahead = self.front.drained(&mut writer)?;
        writer.transact(self.durability, |writer| {
            if let Some(epoch) = epoch
                && counter(&writer.connection, EPOCH)? != epoch
            {
                self.fence.end();
                return Err(StoreError::NotLeading);
            }
            facts::append(writer, facts)
        })?;
        for build in facts.iter().map(|fact| fact.build) {
            let work = writer.working.builds.get(&build).filter(|work| work.build.row.finished.is_none());
            ahead.note_place(build, work.map(|work| work.facts));
        }
        Ok(())
    }
}

impl Front {
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(|poisoned| {
            // Somebody panicked in the middle of a write: what is at hand may be wrong.
            let mut writer = PoisonError::into_inner(poisoned);
            writer.working.clear();
            writer
        })
    }

    /// Stores what went ahead.
    fn drain(&self, writer: &mut Writer) -> Result<(), StoreError> {
        if !self.ahead.is_waiting() {
            return Ok(());
        }
        let appends = self.ahead.take();
        match writer.transact(Durability::Process, |writer| facts::append_ahead(writer, &appends)) {
            Ok(gone) => self.ahead.stored(&gone),
            Err(error) => {
                self.ahead.give_back(appends);
                Err(error)
            }
        }
    }

    /// A build is no longer claimed: what others then append has to come behind all that was appended here.
    fn release(&self, build: BuildId) {
        let mut writer = self.writer();
        match self.drained(&mut writer) {
            Ok(mut ahead) => ahead.release(build),
            // The file keeps it for whoever comes next.
            Err(_) => self.ahead.lock().release(build),
        }
    }

    /// Stores what went ahead; nothing more does until what is returned is dropped.
    fn drained(&self, writer: &mut Writer) -> Result<MutexGuard<'_, ahead::State>, StoreError> {
        loop {
            self.drain(writer)?;
            let state = self.ahead.lock();
            if !state.is_waiting() {
                return Ok(state);
            }
        }
    }
}

/// The name of the counter of a project's builds.
pub(crate) fn number_counter(project: &str) -> String {
    format!("number:{project}")
}

impl Writer {
    /// Has the commits to come survive this much.
    fn last(&mut self, durability: Durability) -> Result<(), StoreError> {
        if self.durability != durability {
            // It takes effect when it is prepared, so it cannot be kept.
            self.connection.execute_batch(synchronous(durability))?;
            self.durability = durability;
        }
        Ok(())
    }

    /// Writes in one transaction that survives this much.
    fn transact<T>(
        &mut self,
        durability: Durability,
        write: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.last(durability)?;
        self.connection.prepare_cached("begin immediate")?.execute([])?;
        let result = self.refresh().and_then(|()| write(self)).and_then(|value| {
            self.connection.prepare_cached("commit")?.execute([])?;
            Ok(value)
        });
        if result.is_err() {
            self.working.clear();
            if !self.connection.is_autocommit() {
                self.connection.prepare_cached("rollback")?.execute([])?;
            }
        }
        result
    }

    /// As [`Writer::transact`], but nothing of it lasts.
    fn transact_undone<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.connection.prepare_cached("begin immediate")?.execute([])?;
        let result = self.refresh().and_then(|()| work(self));
        self.working.clear();
        self.last_graph = None;
        if !self.connection.is_autocommit() {
            self.connection.prepare_cached("rollback")?.execute([])?;
        }
        result
    }

    fn refresh(&mut self) -> Result<(), StoreError> {
        let found = self.connection.prepare_cached("pragma data_version")?.query_row([], |row| row.get(0))?;
        self.is_shared = self.data_version != -1 && found != self.data_version;
        if found != self.data_version || self.working.rows() > ROWS_AT_HAND_MAX {
            self.working.clear();
            self.last_graph = None;
            self.data_version = found;
        }
        Ok(())
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.front.ahead.close();
        if let Some(thread) = self.storing.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // Whatever became of it, the rest is stored here.
            drop(thread.join());
        }
        if self.front.drain(&mut self.writer()).is_ok() {
            self.front.ahead.remove();
        }
        let mut log = self.folder.join(DATABASE_FILE).into_os_string();
        log.push("-wal");
        let is_long = fs::metadata(log).is_ok_and(|log| log.len() >= FOLD_AT_CLOSE_BYTES);
        if !is_long {
            let writer = self.writer();
            // Each only a hint; folding would be right too.
            drop(writer.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true));
            drop(writer);
            for reader in self.readers.get_mut().unwrap_or_else(PoisonError::into_inner) {
                drop(reader.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true));
            }
        }
    }
}

fn connect(path: &Path, durability: Durability) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    begin_journal(&connection)?;
    connection.execute_batch(synchronous(durability))?;
    connection.execute_batch("pragma temp_store = memory;")?;
    Ok(connection)
}

/// Has a connection's commits survive this much. Source: sqlite.org, pragma.html, "synchronous"; not within a transaction.
fn synchronous(durability: Durability) -> &'static str {
    match durability {
        Durability::Process => "pragma synchronous = normal;",
        Durability::Power => "pragma synchronous = full;",
    }
}

/// Has the database keep a write-ahead log. Where several begin that at once SQLite refuses all but one without waiting, whatever the
/// connection's time to wait is (sqlite3_busy_handler: not where two would wait for each other): so it is asked again.
fn begin_journal(connection: &Connection) -> rusqlite::Result<()> {
    let began = Instant::now();
    loop {
        match connection.execute_batch("pragma journal_mode = wal;") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && began.elapsed() < BUSY_WAIT => {
                std::thread::sleep(JOURNAL_ASKED_EVERY);
            }
            other => return other,
        }
    }
}

/// The counter of leaders.
const EPOCH: &str = "epoch";

/// The next number of a counter, from 1.
fn count_up(connection: &Connection, name: &str) -> Result<u64, StoreError> {
    let sql = "insert into counters (name, value) values (?1, 1) \
               on conflict (name) do update set value = counters.value + 1 returning value";
    Ok(connection.prepare_cached(sql)?.query_row([name], |row| column::unsigned(row, 0))?)
}

/// The last number of a counter; 0 before the first.
fn counter(connection: &Connection, name: &str) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached("select value from counters where name = ?1")?;
    Ok(statement.query_row([name], |row| column::unsigned(row, 0)).optional()?.unwrap_or_default())
}

impl Store for SqliteStore {
    fn reserve_build(&self) -> Result<BuildId, StoreError> {
        // What is stored under the number makes it durable, too.
        self.write_soon(|writer| {
            let number = count_up(&writer.connection, "build")?;
            if number > BUILD_ID_MAX {
                return Err(StoreError::Full("no number is left for a build".into()));
            }
            Ok(BuildId(number))
        })
    }

    fn append(&self, facts: &[Fact]) -> Result<(), StoreError> {
        if facts.is_empty() {
            return Ok(());
        }
        self.adopt_late()?;
        if self.goes_ahead() && self.fence.check()?.is_none() && self.front.ahead.append(facts)? == Went::Ahead {
            self.begin_storing();
            return Ok(());
        }
        self.append_at_once(facts)
    }

    fn facts(&self, build: BuildId) -> Result<Vec<Fact>, StoreError> {
        let load = |connection: &Connection| facts::load(connection, build);
        if self.has_left.load(Ordering::Acquire) { self.read_rows(load) } else { self.read(load) }
    }

    fn unfinished(&self) -> Result<Vec<BuildId>, StoreError> {
        self.read(projected::unfinished)
    }

    fn claim(&self, build: BuildId) -> Result<Option<Claim>, StoreError> {
        let folder = self.claims();
        fs::create_dir_all(&folder)?;
        let Some(claim) = Claim::on_file(&folder, build)? else { return Ok(None) };
        // What its last holder told, should it have died.
        self.adopt()?;
        if !self.goes_ahead() {
            return Ok(Some(claim));
        }
        self.front.ahead.lock().claim(build);
        let front = Arc::clone(&self.front);
        Ok(Some(claim.and_then(move || front.release(build))))
    }

    fn claimant(&self, build: BuildId) -> Result<Option<Claimant>, StoreError> {
        Ok(claim::claimant_on_file(&self.claims(), build)?)
    }

    fn delete_build(&self, build: BuildId) -> Result<Option<Deleted>, StoreError> {
        // Held while it is deleted, so that nobody takes it up meanwhile.
        let Some(_claim) = self.claim(build)? else { return Err(StoreError::Running(build)) };
        self.write(|writer| {
            facts::catch_up(writer)?;
            writer.working.clear();
            writer.last_graph = None;
            deletion::delete(&writer.connection, build)
        })
    }

    fn reserve_number(&self, project: &str) -> Result<u64, StoreError> {
        self.write_soon(|writer| count_up(&writer.connection, &number_counter(project)))
    }

    fn build_numbered(&self, project: &str, number: u64) -> Result<Option<BuildId>, StoreError> {
        self.read(|connection| projected::numbered(connection, project, number))
    }

    fn journal(&self, after: Sequence, limit: u32) -> Result<Vec<(Sequence, Vec<Fact>)>, StoreError> {
        self.read(|connection| journal::read(connection, after, limit))
    }

    fn last_sequence(&self) -> Result<Sequence, StoreError> {
        self.read(journal::last)
    }

    fn prune_journal(&self, before: Sequence) -> Result<u64, StoreError> {
        self.write(|writer| journal::prune(&writer.connection, before))
    }

    fn lead(&self, wait: Duration) -> Result<Option<Leadership>, StoreError> {
        let Some(lock) = FileLock::take(&self.folder.join(LEADER_FILE), wait)? else { return Ok(None) };
        let epoch = self.write(|writer| count_up(&writer.connection, EPOCH))?;
        Ok(Some(Leadership::begin(epoch, &self.fence, lock)))
    }

    fn depose(&self, _: Duration) -> Result<Looked, StoreError> {
        Ok(Looked::LeftAlone)
    }

    fn record(&self, kind: &str, key: &str) -> Result<Option<Record>, StoreError> {
        self.read(|connection| documents::record(connection, kind, key))
    }

    fn put_record(
        &self,
        kind: &str,
        key: &str,
        body: &[u8],
        expect: Expect,
        at: Timestamp,
    ) -> Result<Version, StoreError> {
        record::check_size(kind, key, body)?;
        self.write_beside(|connection| documents::put_record(connection, kind, key, body, expect, at))
    }

    fn put_records(&self, records: &[NewRecord<'_>], at: Timestamp) -> Result<(), StoreError> {
        records.iter().try_for_each(NewRecord::check_size)?;
        self.write_beside(|connection| {
            records.iter().try_for_each(|NewRecord { kind, key, body }| {
                documents::put_record(connection, kind, key, body, Expect::Any, at).map(drop)
            })
        })
    }

    fn note_record(&self, kind: &str, key: &str, body: &[u8], at: Timestamp) -> Result<(), StoreError> {
        record::check_size(kind, key, body)?;
        self.write_soon(|writer| documents::put_record(&writer.connection, kind, key, body, Expect::Any, at)).map(drop)
    }

    fn delete_record(&self, kind: &str, key: &str, expect: Expect) -> Result<bool, StoreError> {
        self.write_beside(|connection| documents::delete_record(connection, kind, key, expect))
    }

    fn records(&self, kind: &str, after: Option<&str>, limit: u32) -> Result<Vec<Record>, StoreError> {
        self.read(|connection| documents::records(connection, kind, after, limit))
    }

    fn append_audit(&self, entry: &AuditEntry) -> Result<u64, StoreError> {
        audit::check_size(entry)?;
        self.write_beside(|connection| documents::append_audit(connection, entry))
    }

    fn audit(&self, filter: &AuditFilter, before: Option<u64>, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        self.read(|connection| documents::audit(connection, filter, before, limit))
    }

    fn prune_audit(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.write_beside(|connection| documents::prune_audit(connection, before))
    }

    fn builds(&self, filter: &BuildFilter, before: Option<BuildId>, limit: u32) -> Result<Vec<BuildRow>, StoreError> {
        self.read_rows(|connection| projected::builds(connection, filter, before, limit))
    }

    fn build_versions(
        &self,
        filter: &BuildFilter,
        before: Option<BuildId>,
        limit: u32,
    ) -> Result<Vec<(BuildId, u64)>, StoreError> {
        self.read_rows(|connection| projected::build_versions(connection, filter, before, limit))
    }

    fn build(&self, build: BuildId) -> Result<Option<BuildRow>, StoreError> {
        self.read_rows(|connection| projected::build(connection, build))
    }

    fn graph(&self, build: BuildId) -> Result<Option<Arc<Graph>>, StoreError> {
        self.read_rows(|connection| facts::graph_of(connection, build))
    }

    fn jobs(&self, build: BuildId) -> Result<Vec<JobRow>, StoreError> {
        self.read_rows(|connection| projected::jobs(connection, build))
    }

    fn attempts(&self, build: BuildId, job: Option<&JobName>) -> Result<Vec<AttemptRow>, StoreError> {
        self.read_rows(|connection| projected::attempts(connection, build, job))
    }

    fn reports(
        &self,
        build: BuildId,
        job: Option<&JobName>,
    ) -> Result<Vec<(AttemptNumber, AttemptReport)>, StoreError> {
        self.read_rows(|connection| {
            let attempts = projected::attempts(connection, build, job)?;
            let reports = facts::reports(connection, build, &attempts)?;
            Ok(reports.into_iter().map(|(row, report)| (row.attempt, *report)).collect())
        })
    }

    fn tests(&self, build: BuildId) -> Result<Vec<TestRow>, StoreError> {
        self.read_rows(|connection| {
            let mut attempts = projected::attempts(connection, build, None)?;
            attempts.retain(|row| row.ended.as_ref().is_some_and(|end| end.tests > 0));
            let reports = facts::reports(connection, build, &attempts)?;
            Ok(reports.iter().flat_map(|(row, report)| crate::rows::tests_of(row, report)).collect())
        })
    }

    fn artifacts(&self, build: BuildId) -> Result<Vec<ArtifactRow>, StoreError> {
        self.read_rows(|connection| projected::artifacts(connection, build))
    }

    fn gates(&self, build: BuildId) -> Result<Vec<GateRow>, StoreError> {
        self.read_rows(|connection| projected::gates(connection, build))
    }

    fn durations(&self, project: &str, names: &[JobName]) -> Result<BTreeMap<JobName, u64>, StoreError> {
        self.read_rows(|connection| projected::durations(connection, project, names))
    }

    fn record_operations(&self, operations: &[(OperationRow, &Manifest)]) -> Result<(), StoreError> {
        // A result that is not kept is worked out again; so with what follows here.
        self.write_soon(|writer| operations::record(&writer.connection, operations))
    }

    fn record_tried(&self, tried: &[(Digest, &Manifest)], at: Timestamp) -> Result<(), StoreError> {
        self.write_soon(|writer| operations::record_tried(&writer.connection, tried, at))
    }

    fn operations(&self, digests: &[Digest], trust: Trust) -> Result<BTreeMap<Digest, OperationRow>, StoreError> {
        self.read(|connection| operations::find(connection, digests, trust))
    }

    fn evictions(&self, digests: &[Digest]) -> Result<BTreeMap<Digest, Timestamp>, StoreError> {
        self.read(|connection| operations::evictions(connection, digests))
    }

    fn manifest(&self, digest: Digest) -> Result<Option<Manifest>, StoreError> {
        self.read(|connection| operations::manifest(connection, digest))
    }

    fn recent_operations(&self, job_id: &str, limit: u32) -> Result<Vec<(OperationRow, Manifest)>, StoreError> {
        self.read(|connection| operations::recent(connection, job_id, limit))
    }

    fn list_operations(&self, limit: u32) -> Result<Vec<OperationRow>, StoreError> {
        self.read(|connection| operations::list(connection, limit))
    }

    fn operation_totals(&self) -> Result<OperationTotals, StoreError> {
        self.read(operations::totals)
    }

    fn touch_operations(&self, digests: &[Digest], at: Timestamp) -> Result<(), StoreError> {
        self.write_soon(|writer| operations::touch(&writer.connection, digests, at))
    }

    fn unused_operations(&self, before: Timestamp, limit: u32) -> Result<Vec<OperationRow>, StoreError> {
        self.read(|connection| operations::unused(connection, before, limit))
    }

    fn evict(&self, digest: Digest, reason: &str, at: Timestamp) -> Result<(), StoreError> {
        self.write(|writer| operations::evict(&writer.connection, digest, reason, at))
    }

    fn evict_job(&self, job: &JobName, reason: &str, at: Timestamp) -> Result<u64, StoreError> {
        self.write(|writer| operations::evict_job(&writer.connection, job, reason, at))
    }

    fn clear_operations(&self, reason: &str, at: Timestamp) -> Result<u64, StoreError> {
        self.write(|writer| operations::clear(&writer.connection, reason, at))
    }

    fn save_cache(&self, entry: &CacheRow) -> Result<Saved, StoreError> {
        self.write(|writer| caches::save(&writer.connection, entry))
    }

    fn restore_cache(
        &self,
        wanted: &CacheWanted<'_>,
        reader: &CacheUser,
        at: Timestamp,
    ) -> Result<Option<CacheRow>, StoreError> {
        self.write(|writer| caches::restore(&writer.connection, wanted, reader, at))
    }

    fn cache_reads(&self, scope: &str, key: &str, limit: u32) -> Result<Vec<CacheRead>, StoreError> {
        self.read(|connection| caches::reads(connection, scope, key, limit))
    }

    fn list_caches(&self, limit: u32) -> Result<Vec<CacheRow>, StoreError> {
        self.read(|connection| caches::list(connection, limit))
    }

    fn unused_caches(&self, before: Timestamp, limit: u32) -> Result<Vec<CacheRow>, StoreError> {
        self.read(|connection| caches::unused(connection, before, limit))
    }

    fn cache_totals(&self) -> Result<CacheTotals, StoreError> {
        self.cache_totals_of("")
    }

    fn cache_totals_of(&self, scope_prefix: &str) -> Result<CacheTotals, StoreError> {
        self.read(|connection| caches::totals(connection, scope_prefix))
    }

    fn evict_cache(&self, scope: &str, key: &str, reason: &str, at: Timestamp) -> Result<(), StoreError> {
        self.write(|writer| caches::evict(&writer.connection, scope, key, reason, at))
    }

    fn clear_caches(&self, reason: &str, at: Timestamp) -> Result<u64, StoreError> {
        self.write(|writer| caches::clear(&writer.connection, reason, at))
    }

    fn referenced_blobs(&self) -> Result<BTreeSet<Digest>, StoreError> {
        self.read_rows(deletion::referenced_blobs)
    }

    fn referenced_sources(&self) -> Result<BTreeSet<Digest>, StoreError> {
        self.read_rows(deletion::referenced_sources)
    }
}

impl LogChunks for SqliteStore {
    fn append_log_chunks(&self, chunks: &[(BuildId, Vec<u8>)]) -> Result<Vec<u64>, StoreError> {
        chunk::check_size(chunks)?;
        self.write_beside(|connection| documents::append_chunks(connection, chunks))
    }

    fn log_chunks(&self, build: BuildId, after: u64, limit: u32) -> Result<Vec<LogChunk>, StoreError> {
        self.read(|connection| documents::chunks(connection, build, after, limit))
    }

    fn delete_log_chunks(&self, build: BuildId) -> Result<u64, StoreError> {
        self.write_beside(|connection| documents::delete_chunks(connection, build))
    }
}

#[cfg(test)]
mod tests;
