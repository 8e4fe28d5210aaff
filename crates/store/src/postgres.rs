//! A store in PostgreSQL, shared by any number of servers.
//!
//! One connection appends, behind a lock; everything else takes a connection from a pool. Calls block; they may be made
//! from anywhere (`postgres/session.rs`). A connection that broke is made anew by the next call. What an acknowledged
//! append survives is the database's to say: with [`Durability::Power`] its own setting of a synchronous commit, with
//! [`Durability::Process`] the newest appends may go with its machine, never the order or the whole of one.
//!
//! Without TLS: the database is to be reached through a socket, a private network or a tunnel.

mod column;
mod documents;
mod error;
mod facts;
mod migration;
mod operations;
mod rows;
mod session;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::Fact;
use engine::operation::Manifest;
use graph::{AttemptNumber, AttemptReport, BuildId, Digest, Graph, JobName, Timestamp, Trust};

use self::column::{digest, get, number, text, unsigned};
use self::error::{broken, is_locked, is_unmet};
use self::facts::{Memory, Refused};
use self::session::{Answer, Call, Driver, Pool, Session, Value};
use crate::audit::{self, AuditEntry, AuditFilter, AuditRow};
use crate::cache::{CacheRead, CacheRow, CacheTotals, CacheUser, CacheWanted, Saved};
use crate::chunk::{self, LogChunk, LogChunks};
use crate::claim::{Claim, Claimant, Marks};
use crate::leadership::{Fence, LeaderLock, Leadership, Looked};
use crate::record::{self, Expect, NewRecord, Record, SOURCE_KIND, Version};
use crate::rows::{ArtifactRow, AttemptRow, BuildRow, GateRow, JobRow, OperationRow, OperationTotals, TestRow};
use crate::sqlite::{Durability, Opening, number_counter};
use crate::store::{BUILD_ID_MAX, BuildFilter, Deleted, Journal, Sequence, Store, StoreError};
use crate::table::{ARTIFACTS, BUILDS};
use crate::unanswered::Unanswered;

/// How often a build's removal is tried again because somebody changes builds meanwhile.
const DELETE_TRIES_MAX: u32 = 16;
/// The advisory lock of the leader, and the first number of those of claims, of which the second is the build.
const LEADER_LOCK: &str = "1919905893, 4";
const CLAIM_LOCK: &str = "1919905894";

/// See the head of this file.
pub struct PostgresStore {
    // Connections before what drives them.
    pool: Pool,
    writer: Mutex<Writer>,
    claims: Arc<ClaimSession>,
    seen: Mutex<Option<Seen>>,
    fence: Arc<Fence>,
    journal: Journal,
    driver: Arc<Driver>,
}

#[derive(Default)]
struct Writer {
    session: Option<Session>,
    memory: Memory,
    unanswered: Option<Unanswered>,
}

/// A renewal of another's leadership: the connection that holds the lock, the renewal's number, and when it was first seen.
struct Seen {
    holder: i64,
    renewal: i64,
    first: Instant,
}

/// The connection whose locks are the claims of this store; its death frees them all.
#[derive(Default)]
struct ClaimSession {
    session: Mutex<Option<Session>>,
    marks: Marks,
}

impl PostgresStore {
    /// Opens the store in the database at `url` (`postgres://user:password@host/database`, or `key=value` pairs), whose
    /// tables are made if they are not there, in the first schema of the search path.
    ///
    /// # Errors
    /// `Newer` if a newer Ropewalk wrote it; `Denied` if the URL is none or the database does not let us in; `Lost` if it
    /// is not to be reached; else as the database says.
    pub fn open(url: &str, opening: Opening) -> Result<Self, StoreError> {
        let driver = Driver::start(
            url,
            match opening.durability {
                Durability::Process => "off",
                Durability::Power => "on",
            },
        )?;
        let session = driver.connect()?;
        migration::migrate(&session)?;
        Ok(Self {
            pool: Pool::new(),
            writer: Mutex::new(Writer { session: Some(session), ..Writer::default() }),
            claims: Arc::default(),
            seen: Mutex::default(),
            fence: Arc::default(),
            journal: opening.journal,
            driver: Arc::new(driver),
        })
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(|poisoned| {
            // Somebody panicked in the middle of a write: what is at hand may be wrong.
            let mut writer = PoisonError::into_inner(poisoned);
            writer.memory.clear();
            writer
        })
    }

    fn with<T>(&self, work: impl FnMut(&Session) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.pool.with(&self.driver, work)
    }

    fn call(&self, sql: &str, values: &[Value]) -> Result<Answer, StoreError> {
        self.with(|session| session.call(Call::new(sql, values)))
    }

    /// The rows of one statement.
    fn rows<T>(
        &self,
        call: impl Fn() -> Call,
        row: impl Fn(&tokio_postgres::Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.with(|session| session.call(call())?.rows.iter().map(&row).collect())
    }

    /// Writes that are not to be made twice: never on a connection that may have died unnoticed, so that what is lost was
    /// lost on the way.
    fn write<T>(&self, mut work: impl FnMut(&Session) -> Result<T, StoreError>) -> Result<T, StoreError> {
        // A pooled connection that died is noticed by the thread that drives it; only what dies meanwhile is left, and
        // that is `Lost` to the caller, who knows whether to ask again.
        let mut lost = None;
        let result = self.with(|session| match work(session) {
            Err(StoreError::Lost(cause)) => {
                lost = Some(StoreError::Lost(cause));
                Ok(None)
            }
            other => other.map(Some),
        });
        match (lost, result?) {
            (Some(lost), _) => Err(lost),
            (None, Some(value)) => Ok(value),
            (None, None) => Err(broken("a write gave nothing")),
        }
    }

    /// The next number of a counter, from 1. As durable as an append: the database may go and come back while we, who hold the
    /// number, do not, and it would give the same number once more.
    fn count_up(&self, name: &str) -> Result<u64, StoreError> {
        let sql = "insert into counters (name, value) values ($1, 1) \
                   on conflict (name) do update set value = counters.value + 1 returning value";
        let answer = self.call(sql, &[text(name)])?;
        answer.rows.first().map_or_else(|| Err(broken("a counter is missing")), |row| unsigned(row, 0))
    }

    fn try_delete(&self, session: &Session, build: BuildId) -> Result<Option<Deleted>, StoreError> {
        let id = || [number(build.0)];
        let sql = "select value from counters where name = 'journal'";
        let answers = session.read(&[
            Call::new(sql, []),
            Call::new("select 1 from builds where id = $1", id()),
            Call::new("select distinct digest from artifacts where build = $1", id()),
            Call::new(
                "select distinct graph from facts where position >= $1 and position < $2 and graph is not null",
                facts_of(build),
            ),
        ])?;
        if answers[1].rows.is_empty() {
            return Ok(None);
        }
        let sequence = answers[0].rows.first().map_or(Ok(0), |row| unsigned(row, 0))?;
        let blobs = answers[2].rows.iter().map(|row| digest(row, 0)).collect::<Result<BTreeSet<_>, _>>()?;
        let graphs = answers[3].rows.iter().map(|row| digest(row, 0)).collect::<Result<Vec<_>, _>>()?;
        let mut calls = vec![facts::raise(sequence), Call::new("delete from builds where id = $1", id())];
        for table in ["jobs", "attempts", "gates", "artifacts", "cache_reads"] {
            calls.push(Call::new(format!("delete from {table} where build = $1"), id()));
        }
        calls.push(Call::new("delete from facts where position >= $1 and position < $2", facts_of(build)));
        calls.push(Call::new(
            "delete from graphs where digest = any($1) \
             and not exists (select 1 from facts where facts.graph = graphs.digest)",
            [column::all_bytes(graphs)],
        ));
        calls.push(Call::new(
            "select digest from unnest($1::bytea[]) as gone (digest) \
             where not exists (select 1 from artifacts where artifacts.digest = gone.digest) \
             and not exists (select 1 from operation_blobs where blob = gone.digest) \
             and not exists (select 1 from cache_blobs where blob = gone.digest)",
            [column::all_bytes(blobs)],
        ));
        let answers = session.transact(&calls).map_err(|(_, error)| error)?;
        let unnamed = answers.last().map(|answer| answer.rows.iter().map(|row| digest(row, 0)).collect());
        Ok(Some(Deleted { blobs: unnamed.unwrap_or_else(|| Ok(BTreeSet::new()))? }))
    }
}

/// Where the facts of a build lie.
fn facts_of(build: BuildId) -> [Value; 2] {
    [number(build.0 << 32), number((build.0 + 1) << 32)]
}

impl Writer {
    fn append(&mut self, driver: &Driver, facts: &[Fact], epoch: Option<u64>, journal: Journal) -> Result<(), Refused> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            self.memory.clear();
            self.session = Some(driver.connect()?);
        }
        let Some(session) = &self.session else { return Err(broken("there is no connection").into()) };
        if let Some(unanswered) = &self.unanswered {
            let stored = |build, first| facts::load(session, build, first, None);
            let is_stored = unanswered.is_stored(facts, stored)?;
            self.unanswered = None;
            if is_stored {
                return Ok(());
            }
        }
        facts::append(session, &mut self.memory, facts, epoch, journal)
    }
}

/// The lock of the leader: it goes with its connection.
struct PostgresLock {
    session: Session,
    /// Lives as long as the connection needs it.
    _driver: Arc<Driver>,
}

impl LeaderLock for PostgresLock {
    fn is_held(&self) -> bool {
        !self.session.is_closed()
    }

    fn renew(&self, epoch: u64) -> Result<(), StoreError> {
        self.session.call(renewal(epoch)).map(drop)
    }
}

/// Counts a renewal, under the epoch whose leader says it: a leader of a release that renews nothing has another.
fn renewal(epoch: u64) -> Call {
    let sql = "insert into counters (name, value) values ('renewal', 1), ('renewed_epoch', $1) \
               on conflict (name) do update set value = \
               case counters.name when 'renewal' then counters.value + 1 else excluded.value end";
    Call::new(sql, [number(epoch)])
}

impl ClaimSession {
    fn try_lock(&self, driver: &Driver, build: BuildId) -> Result<bool, StoreError> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if session.as_ref().is_none_or(Session::is_closed) {
            *session = Some(driver.connect()?);
        }
        let Some(session) = &*session else { return Ok(false) };
        let sql = format!("select pg_try_advisory_lock({CLAIM_LOCK}, $1::bigint::int)");
        let answer = session.call(Call::new(sql, [number(build.0)]))?;
        answer.rows.first().map_or(Ok(false), |row| get(row, 0))
    }

    fn unlock(&self, build: BuildId) {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = &*session {
            let sql = format!("select pg_advisory_unlock({CLAIM_LOCK}, $1::bigint::int)");
            // If this fails the connection is gone, and the lock with it.
            drop(session.call(Call::new(sql, [number(build.0)])));
        }
    }
}

impl Store for PostgresStore {
    fn reserve_build(&self) -> Result<BuildId, StoreError> {
        let number = self.count_up("build")?;
        if number > BUILD_ID_MAX {
            return Err(StoreError::Full("no number is left for a build".into()));
        }
        Ok(BuildId(number))
    }

    fn append(&self, facts: &[Fact]) -> Result<(), StoreError> {
        if facts.is_empty() {
            return Ok(());
        }
        let epoch = self.fence.check()?;
        let mut writer = self.writer();
        match writer.append(&self.driver, facts, epoch, self.journal) {
            Ok(()) => Ok(()),
            Err(Refused::NotLeading) => {
                self.fence.end();
                Err(StoreError::NotLeading)
            }
            Err(Refused::Other(error, first)) => {
                if matches!(error, StoreError::Lost(_)) {
                    writer.session = None;
                    // Places are known once the append was sent; before, nothing was stored.
                    if !first.is_empty() {
                        writer.unanswered = Some(Unanswered::new(facts, first));
                    }
                }
                Err(error)
            }
        }
    }

    fn facts(&self, build: BuildId) -> Result<Vec<Fact>, StoreError> {
        self.with(|session| facts::load(session, build, 0, None))
    }

    fn unfinished(&self) -> Result<Vec<BuildId>, StoreError> {
        let call = || Call::new("select id from builds where finished_at is null order by id", []);
        self.rows(call, |row| Ok(BuildId(unsigned(row, 0)?)))
    }

    fn claim(&self, build: BuildId) -> Result<Option<Claim>, StoreError> {
        let Some(claim) = Claim::in_memory(build, &self.claims.marks) else { return Ok(None) };
        if !self.claims.try_lock(&self.driver, build)? {
            return Ok(None);
        }
        let (claims, driver) = (Arc::clone(&self.claims), Arc::clone(&self.driver));
        Ok(Some(claim.and_then(move || {
            claims.unlock(build);
            drop(driver);
        })))
    }

    fn claimant(&self, build: BuildId) -> Result<Option<Claimant>, StoreError> {
        if self.claims.marks.lock().unwrap_or_else(PoisonError::into_inner).contains(&build) {
            return Ok(Some(Claimant { process: Some(std::process::id()) }));
        }
        let sql = format!(
            "select 1 from pg_locks where locktype = 'advisory' and granted and classid = {CLAIM_LOCK}::oid \
             and objid::bigint = $1 and database = (select oid from pg_database where datname = current_database())"
        );
        let answer = self.call(&sql, &[number(build.0)])?;
        Ok((!answer.rows.is_empty()).then_some(Claimant { process: None }))
    }

    fn delete_build(&self, build: BuildId) -> Result<Option<Deleted>, StoreError> {
        // Held while it is deleted, so that nobody takes it up meanwhile.
        let Some(_claim) = self.claim(build)? else { return Err(StoreError::Running(build)) };
        for _ in 0..DELETE_TRIES_MAX {
            match self.write(|session| self.try_delete(session, build)) {
                Err(error) if is_unmet(&error) => {}
                deleted => return deleted,
            }
        }
        Err(StoreError::Busy("others change builds all the time".into()))
    }

    fn reserve_number(&self, project: &str) -> Result<u64, StoreError> {
        self.count_up(&number_counter(project))
    }

    fn build_numbered(&self, project: &str, build_number: u64) -> Result<Option<BuildId>, StoreError> {
        if project.is_empty() {
            return Ok(None);
        }
        let sql = "select id from builds where project = $1 and number = $2 order by id limit 1";
        let answer = self.call(sql, &[text(project), number(build_number)])?;
        answer.rows.first().map(|row| Ok(BuildId(unsigned(row, 0)?))).transpose()
    }

    fn journal(&self, after: Sequence, limit: u32) -> Result<Vec<(Sequence, Vec<Fact>)>, StoreError> {
        self.with(|session| facts::journal(session, after, limit))
    }

    fn last_sequence(&self) -> Result<Sequence, StoreError> {
        let answer = self.call("select coalesce(max(sequence), 0) from journal", &[])?;
        answer.rows.first().map_or(Ok(Sequence(0)), |row| Ok(Sequence(unsigned(row, 0)?)))
    }

    fn prune_journal(&self, before: Sequence) -> Result<u64, StoreError> {
        let sql = "delete from journal where sequence < $1 and sequence < (select max(sequence) from journal)";
        Ok(self.call(sql, &[number(before.0)])?.affected)
    }

    fn lead(&self, wait: Duration) -> Result<Option<Leadership>, StoreError> {
        let session = self.driver.connect()?;
        if wait.is_zero() {
            let sql = format!("select pg_try_advisory_lock({LEADER_LOCK})");
            let answer = session.call(Call::new(sql, []))?;
            if !answer.rows.first().map_or(Ok(false), |row| get(row, 0))? {
                return Ok(None);
            }
        } else {
            // The session ends with the wait, so its settings are nobody else's. The time of one call is bounded.
            let wait_ms = wait.as_millis().clamp(1, session::LOCK_WAIT_MAX.as_millis());
            session.batch(&format!("set statement_timeout = 0; set lock_timeout = {wait_ms}"))?;
            match session.call(Call::new(format!("select pg_advisory_lock({LEADER_LOCK})"), [])) {
                Err(error) if is_locked(&error) => return Ok(None),
                other => other?,
            };
        }
        // Waits for appends under the epoch before, which hold its row until they are through.
        let sql = "insert into counters (name, value) values ('epoch', 1) \
                   on conflict (name) do update set value = counters.value + 1 returning value";
        let answer = session.call(Call::new(sql, []))?;
        let epoch = answer.rows.first().map_or_else(|| Err(broken("a counter is missing")), |row| unsigned(row, 0))?;
        session.call(renewal(epoch))?;
        self.writer().memory.clear();
        let lock = PostgresLock { session, _driver: Arc::clone(&self.driver) };
        Ok(Some(Leadership::begin(epoch, &self.fence, lock)))
    }

    fn depose(&self, silence: Duration) -> Result<Looked, StoreError> {
        // Of an advisory lock named by two numbers, `objsubid` is 2 (PostgreSQL: view-pg-locks).
        let (class, object) = LEADER_LOCK.split_once(", ").unwrap_or_default();
        let holds = format!(
            "locktype = 'advisory' and granted and classid = {class} and objid = {object} and objsubid = 2 \
             and database = (select oid from pg_database where datname = current_database())"
        );
        let sql = format!(
            "select pid::bigint, (select value from counters where name = 'renewal') from pg_locks where {holds} \
             and (select value from counters where name = 'epoch') \
             = (select value from counters where name = 'renewed_epoch')"
        );
        let answer = self.call(&sql, &[])?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(row) = answer.rows.first() else {
            *seen = None;
            return Ok(Looked::LeftAlone);
        };
        let (holder, renewal): (i64, i64) = (get(row, 0)?, get(row, 1)?);
        match &*seen {
            Some(seen) if (seen.holder, seen.renewal) == (holder, renewal) => {
                if seen.first.elapsed() < silence {
                    return Ok(Looked::LeftAlone);
                }
            }
            _ => {
                *seen = Some(Seen { holder, renewal, first: Instant::now() });
                return Ok(Looked::LeftAlone);
            }
        }
        *seen = None;
        // Only if it still holds the lock and has still said nothing.
        let sql = format!(
            "select pg_terminate_backend(pid) from pg_locks where {holds} and pid = $1::bigint \
             and (select value from counters where name = 'renewal') = $2"
        );
        let ended = self.call(&sql, &[Value::Integer(holder), Value::Integer(renewal)])?;
        Ok(if ended.rows.is_empty() { Looked::LeftAlone } else { Looked::Deposed })
    }

    fn record(&self, kind: &str, key: &str) -> Result<Option<Record>, StoreError> {
        self.with(|session| documents::record(session, kind, key))
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
        self.write(|session| documents::put_record(session, kind, key, body, expect, at))
    }

    fn put_records(&self, records: &[NewRecord<'_>], at: Timestamp) -> Result<(), StoreError> {
        records.iter().try_for_each(NewRecord::check_size)?;
        self.write(|session| documents::put_records(session, records, at))
    }

    fn delete_record(&self, kind: &str, key: &str, expect: Expect) -> Result<bool, StoreError> {
        self.write(|session| documents::delete_record(session, kind, key, expect))
    }

    fn records(&self, kind: &str, after: Option<&str>, limit: u32) -> Result<Vec<Record>, StoreError> {
        self.with(|session| documents::records(session, kind, after, limit))
    }

    fn append_audit(&self, entry: &AuditEntry) -> Result<u64, StoreError> {
        audit::check_size(entry)?;
        self.write(|session| documents::append_audit(session, entry))
    }

    fn audit(&self, filter: &AuditFilter, before: Option<u64>, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        self.with(|session| documents::audit(session, filter, before, limit))
    }

    fn prune_audit(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.with(|session| documents::prune_audit(session, before))
    }

    fn builds(&self, filter: &BuildFilter, before: Option<BuildId>, limit: u32) -> Result<Vec<BuildRow>, StoreError> {
        self.rows(|| rows::builds(filter, before, limit), |row| Ok(rows::build_row(row)?.0))
    }

    fn build_versions(
        &self,
        filter: &BuildFilter,
        before: Option<BuildId>,
        limit: u32,
    ) -> Result<Vec<(BuildId, u64)>, StoreError> {
        self.rows(|| rows::build_versions(filter, before, limit), rows::build_version)
    }

    fn build(&self, build: BuildId) -> Result<Option<BuildRow>, StoreError> {
        let sql = format!("select {} from builds where id = $1", BUILDS.names());
        let rows = self.rows(|| Call::new(sql.as_str(), [number(build.0)]), |row| Ok(rows::build_row(row)?.0))?;
        Ok(rows.into_iter().next())
    }

    fn graph(&self, build: BuildId) -> Result<Option<Arc<Graph>>, StoreError> {
        self.with(|session| facts::graph_of(session, build))
    }

    fn jobs(&self, build: BuildId) -> Result<Vec<JobRow>, StoreError> {
        self.rows(|| rows::jobs(build), rows::job_row)
    }

    fn attempts(&self, build: BuildId, job: Option<&JobName>) -> Result<Vec<AttemptRow>, StoreError> {
        self.rows(|| rows::attempts(build, job), rows::attempt_row)
    }

    fn reports(
        &self,
        build: BuildId,
        job: Option<&JobName>,
    ) -> Result<Vec<(AttemptNumber, AttemptReport)>, StoreError> {
        let reports = self.with(|session| facts::reports(session, build, job))?;
        Ok(reports.into_iter().map(|(row, report)| (row.attempt, *report)).collect())
    }

    fn tests(&self, build: BuildId) -> Result<Vec<TestRow>, StoreError> {
        let reports = self.with(|session| facts::reports(session, build, None))?;
        Ok(reports.iter().flat_map(|(row, report)| crate::rows::tests_of(row, report)).collect())
    }

    fn artifacts(&self, build: BuildId) -> Result<Vec<ArtifactRow>, StoreError> {
        let sql = format!("select {} from artifacts where build = $1 order by job, attempt, name", ARTIFACTS.names());
        self.rows(|| Call::new(sql.as_str(), [number(build.0)]), rows::artifact_row)
    }

    fn gates(&self, build: BuildId) -> Result<Vec<GateRow>, StoreError> {
        self.rows(|| rows::gates(build), rows::gate_row)
    }

    fn durations(&self, project: &str, names: &[JobName]) -> Result<BTreeMap<JobName, u64>, StoreError> {
        let wanted = || Value::Texts(names.iter().map(|name| Some(column::clean(name.as_str()))).collect());
        let sql = "select project, job, durations from job_histories where project = $1 and job = any($2)";
        let call = || Call::new(sql, [Value::Text(column::clean(project)), wanted()]);
        let rows = self.rows(call, rows::history_row)?;
        Ok(rows.into_iter().filter_map(|(key, history)| Some((key.job, history.usual_ms()?))).collect())
    }

    fn record_operations(&self, operations: &[(OperationRow, &Manifest)]) -> Result<(), StoreError> {
        self.write(|session| operations::record(session, operations))
    }

    fn record_tried(&self, tried: &[(Digest, &Manifest)], at: Timestamp) -> Result<(), StoreError> {
        self.with(|session| operations::record_tried(session, tried, at))
    }

    fn operations(&self, digests: &[Digest], trust: Trust) -> Result<BTreeMap<Digest, OperationRow>, StoreError> {
        self.with(|session| operations::find(session, digests, trust))
    }

    fn evictions(&self, digests: &[Digest]) -> Result<BTreeMap<Digest, Timestamp>, StoreError> {
        self.with(|session| operations::evictions(session, digests))
    }

    fn manifest(&self, digest: Digest) -> Result<Option<Manifest>, StoreError> {
        self.with(|session| operations::manifest(session, digest))
    }

    fn recent_operations(&self, job_id: &str, limit: u32) -> Result<Vec<(OperationRow, Manifest)>, StoreError> {
        self.with(|session| operations::recent(session, job_id, limit))
    }

    fn list_operations(&self, limit: u32) -> Result<Vec<OperationRow>, StoreError> {
        self.with(|session| operations::list(session, limit))
    }

    fn operation_totals(&self) -> Result<OperationTotals, StoreError> {
        self.with(operations::totals)
    }

    fn touch_operations(&self, digests: &[Digest], at: Timestamp) -> Result<(), StoreError> {
        self.with(|session| operations::touch(session, digests, at))
    }

    fn unused_operations(&self, before: Timestamp, limit: u32) -> Result<Vec<OperationRow>, StoreError> {
        self.with(|session| operations::unused(session, before, limit))
    }

    fn evict(&self, digest: Digest, reason: &str, at: Timestamp) -> Result<(), StoreError> {
        let values = || vec![column::bytes(digest)];
        self.with(|session| operations::evict(session, "digest = $1", values(), reason, at)).map(drop)
    }

    fn evict_job(&self, job: &JobName, reason: &str, at: Timestamp) -> Result<u64, StoreError> {
        self.write(|session| operations::evict_job(session, job, reason, at))
    }

    fn clear_operations(&self, reason: &str, at: Timestamp) -> Result<u64, StoreError> {
        self.write(|session| operations::evict(session, "true", Vec::new(), reason, at))
    }

    fn save_cache(&self, entry: &CacheRow) -> Result<Saved, StoreError> {
        self.write(|session| operations::save(session, entry))
    }

    fn restore_cache(
        &self,
        wanted: &CacheWanted<'_>,
        reader: &CacheUser,
        at: Timestamp,
    ) -> Result<Option<CacheRow>, StoreError> {
        self.with(|session| operations::restore(session, wanted, reader, at))
    }

    fn cache_reads(&self, scope: &str, key: &str, limit: u32) -> Result<Vec<CacheRead>, StoreError> {
        self.with(|session| operations::cache_reads(session, scope, key, limit))
    }

    fn list_caches(&self, limit: u32) -> Result<Vec<CacheRow>, StoreError> {
        self.with(|session| operations::list_caches(session, limit))
    }

    fn unused_caches(&self, before: Timestamp, limit: u32) -> Result<Vec<CacheRow>, StoreError> {
        self.with(|session| operations::unused_caches(session, before, limit))
    }

    fn cache_totals(&self) -> Result<CacheTotals, StoreError> {
        self.cache_totals_of("")
    }

    fn cache_totals_of(&self, scope_prefix: &str) -> Result<CacheTotals, StoreError> {
        self.with(|session| operations::cache_totals(session, scope_prefix))
    }

    fn evict_cache(&self, scope: &str, key: &str, reason: &str, at: Timestamp) -> Result<(), StoreError> {
        self.with(|session| operations::evict_cache(session, scope, key, reason, at))
    }

    fn clear_caches(&self, reason: &str, at: Timestamp) -> Result<u64, StoreError> {
        self.write(|session| operations::clear_caches(session, reason, at))
    }

    fn referenced_blobs(&self) -> Result<BTreeSet<Digest>, StoreError> {
        let sql =
            "select digest from artifacts union select blob from operation_blobs union select blob from cache_blobs";
        let mut referenced = self.referenced_sources()?;
        referenced.extend(self.rows(|| Call::new(sql, []), |row| digest(row, 0))?);
        Ok(referenced)
    }

    fn referenced_sources(&self) -> Result<BTreeSet<Digest>, StoreError> {
        let sql = "select distinct source from builds where source is not null";
        let mut referenced: BTreeSet<_> = self.rows(|| Call::new(sql, []), |row| digest(row, 0))?.into_iter().collect();
        let sql = "select key from records where kind = $1";
        let keys = self.rows(|| Call::new(sql, [text(SOURCE_KIND)]), |row| get::<String>(row, 0))?;
        referenced.extend(keys.iter().filter_map(|key| key.parse::<Digest>().ok()));
        Ok(referenced)
    }
}

impl LogChunks for PostgresStore {
    fn append_log_chunks(&self, chunks: &[(BuildId, Vec<u8>)]) -> Result<Vec<u64>, StoreError> {
        chunk::check_size(chunks)?;
        self.write(|session| documents::append_chunks(session, chunks))
    }

    fn log_chunks(&self, build: BuildId, after: u64, limit: u32) -> Result<Vec<LogChunk>, StoreError> {
        self.with(|session| documents::chunks(session, build, after, limit))
    }

    fn delete_log_chunks(&self, build: BuildId) -> Result<u64, StoreError> {
        self.with(|session| documents::delete_chunks(session, build))
    }
}
