//! How long a server keeps things: builds by project, results and caches by use, blobs while something names them, the audit
//! by a bound. The journal is pruned by who saves what it leads up to (`recovery.rs`).
//!
//! A sweep at the server's start and once an hour. Builds that have not ended are never touched, nor those that the engine
//! holds. Blobs are collected only from a place that is that of these records (`owner.rs`), and first: what a sweep lets go is collected by a later one, so that whoever found it just before
//! has long named it again or given it up. While a backup is made (`backup.rs`), nothing is removed at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use graph::{BuildId, Timestamp, with_causes};
use store::audit::AuditEntry;
use store::blob::{BlobError, Collected, collect};
use store::cache::cache_uses;
use store::log::{LogError, LogPlace};
use store::rows::BuildRow;
use store::{BuildFilter, PAGE_ROWS_MAX, Store, StoreError};

use crate::backup;
use crate::named::Mentions;
use crate::notices;
use crate::owner::{self, OwnerError};
use crate::records::{LayersText, LogPhase, Project, RecordError, Records, StoredLayers, StoredLog, StoredProgram};
use crate::request::Stopped;
use crate::server::{Ending, Server};
use crate::settings::Settings;

/// How often a server sweeps.
pub const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);
/// A blob that nothing names is kept so long after it was put or renewed: a worker that is cut off for less may still name it.
pub const BLOB_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// Blobs are looked through at least so often, even if nothing was let go.
const COLLECT_EVERY_MS: u64 = 24 * 60 * 60 * 1000;
/// The most builds that one sweep removes of a project; the next goes on.
pub const BUILDS_REMOVED_MAX: usize = 10_000;
/// The most results and caches that one sweep lets go for each reason; the next goes on.
pub const EVICTED_MAX: usize = 100_000;
/// What was done is known for so long.
pub const AUDIT_DAYS_KEPT: u64 = 400;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Who did it, in the audit.
const WHO: &str = "retention";

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Builds removed, by project.
    pub builds: BTreeMap<String, u64>,
    /// Results that are not reused any more.
    pub operations: u64,
    /// Caches that are not restored any more.
    pub caches: u64,
    /// Attempts whose files no other worker can open any more.
    pub layers: u64,
    /// Blobs, unless none were looked at.
    pub collected: Option<Collected>,
    /// Actions forgotten.
    pub audit: u64,
}

impl Swept {
    /// Whether something was let go that may leave blobs without a name.
    fn left_blobs(&self) -> bool {
        !self.builds.is_empty() || self.operations + self.caches + self.layers > 0
    }

    /// What to tell; `None` if nothing was done.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        let collected = self.collected.unwrap_or_default();
        let parts: Vec<String> = [
            (self.builds.values().sum(), "builds"),
            (self.operations, "results"),
            (self.caches, "caches"),
            (self.layers, "files of jobs"),
            (collected.deleted, "blobs"),
            (self.audit, "entries of the audit"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        let bytes = collected.deleted_bytes;
        let bytes = if bytes > 0 { format!(" ({bytes} bytes)") } else { String::new() };
        (!parts.is_empty()).then(|| format!("removed {}{bytes}", parts.join(", ")))
    }
}

/// Why a sweep ended early. The next begins anew.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record refused.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The blobs refused.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The logs refused.
    #[error(transparent)]
    Log(#[from] LogError),
    /// It cannot be told whose the place of blobs is.
    #[error("cannot tell whose the place of blobs is")]
    Owner(#[from] OwnerError),
    /// The server is ending.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A task broke.
    #[error("the sweep was interrupted")]
    Interrupted,
}

/// What a project keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// So many of its newest builds, whatever their age.
    pub builds: u64,
    /// Builds that were created then or later; all if there is no such time.
    pub since: Option<Timestamp>,
    /// The most bytes of artifacts, each counted once, and of logs as they are stored; 0 is without bound.
    pub bytes: u64,
}

impl Policy {
    /// What the project says, and where it says nothing, the server.
    #[must_use]
    pub fn of(project: &Project, settings: &Settings, now: Timestamp) -> Self {
        let own = project.settings.of_api();
        let days = own.keep_days.map_or(settings.builds_keep_for.0, u64::from);
        Self {
            builds: own.keep_builds.map_or(settings.builds_keep, u64::from),
            since: (days > 0).then(|| before(now, days)),
            bytes: own.quota_bytes.unwrap_or(settings.builds_quota.0),
        }
    }
}

/// So many days before `now`.
fn before(now: Timestamp, days: u64) -> Timestamp {
    let micros = i64::try_from(days.saturating_mul(DAY_MS)).unwrap_or(i64::MAX).saturating_mul(1000);
    Timestamp(now.0.saturating_sub(micros))
}

/// Sweeps until the server ends.
pub async fn keep(server: Arc<Server>) {
    let mut collected_at = None;
    let mut is_due = true;
    loop {
        let now = server.now();
        let looked_long_ago = collected_at.is_none_or(|at| now.ms_since(at) >= COLLECT_EVERY_MS);
        let collecting = if is_due || looked_long_ago { Collecting::Yes } else { Collecting::No };
        match sweep(&server, collecting).await {
            Ok(swept) => {
                if swept.collected.is_some() {
                    (collected_at, is_due) = (Some(now), false);
                }
                is_due |= swept.left_blobs();
                if let Some(words) = swept.words() {
                    notices::info(&format!("retention: {words}"));
                }
            }
            Err(SweepError::Stopped(_)) => return,
            Err(error) => {
                notices::warning(&format!("the sweep of old builds and blobs ended early: {}", with_causes(&error)))
            }
        }
        let mut ending = server.ending();
        let ends = ending.wait_for(|ending| *ending == Ending::Begun);
        if tokio::time::timeout(SWEEP_EVERY, ends).await.is_ok() {
            return;
        }
    }
}

/// Whether a sweep looks for blobs that nothing names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collecting {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// One sweep.
///
/// # Errors
/// [`SweepError`]; what was done until then is done.
pub async fn sweep(server: &Arc<Server>, collecting: Collecting) -> Result<Swept, SweepError> {
    // Two collections at once would take each other's blobs for theirs.
    let mut sweeps = server.sweeps.lock().await;
    *sweeps += 1;
    let mut swept = Swept::default();
    if with(server, |server| backup::is_under_way(&*server.store, server.now())).await?? {
        return Ok(swept);
    }
    if collecting == Collecting::Yes {
        swept.collected = with(server, collect_blobs).await??;
    }
    for (name, project) in with(server, |server| server.records.all::<Project>()).await?? {
        let removed = remove_builds(server, name.clone(), project).await?;
        if removed > 0 {
            swept.builds.insert(name, removed);
        }
    }
    let rest = with(server, |server| {
        let (store, settings, now) = (&*server.store, server.settings(), server.now());
        let (operations, caches) = evict(store, &settings, now)?;
        cache_uses::prune(store, cache_uses::KEPT_MAX)?;
        let layers = remove_layers(&server.records, store, &settings, now)?;
        Ok::<_, SweepError>((operations, caches, layers, store.prune_audit(before(now, AUDIT_DAYS_KEPT))?))
    });
    (swept.operations, swept.caches, swept.layers, swept.audit) = rest.await??;
    note(server, &swept).await?;
    Ok(swept)
}

/// Runs what blocks on the pool of blocking threads.
async fn with<T: Send + 'static>(
    server: &Arc<Server>,
    work: impl FnOnce(&Server) -> T + Send + 'static,
) -> Result<T, SweepError> {
    if *server.ending().borrow() == Ending::Begun {
        return Err(Stopped.into());
    }
    let server = Arc::clone(server);
    tokio::task::spawn_blocking(move || work(&server)).await.map_err(|_| SweepError::Interrupted)
}

/// `None` from a place that is not that of these records: what they do not name others may need.
fn collect_blobs(server: &Server) -> Result<Option<Collected>, SweepError> {
    let named = Mentions::of_store(&*server.store)?.resolve(&*server.blobs)?;
    let owner = owner::settle(&server.records, &*server.blobs, Some(&named), server.now())?;
    if let Some(why) = owner.why_none_is_removed() {
        notices::warning(&format!("no blob is removed: {why}; {}", owner::NEXT));
        return Ok(None);
    }
    if !named.unreadable.is_empty() {
        let count = named.unreadable.len();
        notices::warning(&format!(
            "the files of {count} builds cannot be told, since their manifests are missing or damaged"
        ));
    }
    let ending = server.ending();
    // A server that ends deletes nothing more.
    let is_named = |digest| named.has(digest) || *ending.borrow() == Ending::Begun;
    let collected = collect(&*server.blobs, &is_named, BLOB_GRACE, server.now())?;
    server.figures.collected(collected.kept, collected.kept_bytes);
    Ok(Some(collected))
}

async fn remove_builds(server: &Arc<Server>, name: String, project: Project) -> Result<u64, SweepError> {
    let outdated = with(server, move |server| {
        let policy = Policy::of(&project, &server.settings(), server.now());
        outdated(&*server.store, &name, policy, &|build| log_bytes(server, build))
    });
    let mut removed = 0;
    for build in outdated.await?? {
        if let Removal::Removed = server.remove_build(build).await? {
            removed += 1;
        }
    }
    Ok(removed)
}

/// What the log of a build takes, wherever it is; 0 if that cannot be told.
fn log_bytes(server: &Server, build: BuildId) -> u64 {
    match server.records.log_place(build, LogPhase::Ended) {
        // The pack, if there is one, holds what the blob does.
        Ok(LogPlace::Stored(digest) | LogPlace::Reopened(digest)) => {
            server.blobs.length(digest).unwrap_or(0).max(server.logs.stored_bytes(build))
        }
        Ok(LogPlace::Live | LogPlace::Ended) => server.logs.stored_bytes(build),
        Err(_) => 0,
    }
}

/// What became of the removal of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone: facts, rows, log.
    Removed,
    /// It stays: it has not ended, is held by the engine, is not there, or a backup is made.
    Stays,
}

/// Removes a build that the engine does not hold and nobody takes up meanwhile. Blocks.
pub(crate) fn remove_parts(server: &Server, build: BuildId) -> Result<Removal, SweepError> {
    let row = server.store.build(build)?;
    let has_ended = row.is_some_and(|row| row.finished.is_some());
    if !has_ended || backup::is_under_way(&*server.store, server.now())? {
        return Ok(Removal::Stays);
    }
    // The log first: a build without it can still be removed, a log without its build never would be.
    server.logs.delete(build)?;
    server.records.remove::<StoredLog>(&build.to_string())?;
    server.records.remove::<StoredProgram>(&build.to_string())?;
    match server.store.delete_build(build) {
        Ok(Some(_)) => Ok(Removal::Removed),
        Ok(None) | Err(StoreError::Running(_)) => Ok(Removal::Stays),
        Err(error) => Err(error.into()),
    }
}

/// The builds of a project that are not kept and have ended, at most [`BUILDS_REMOVED_MAX`]. Costs a page for each
/// thousand builds that are kept in any case, a few rows to find how old builds are, and what is found; with a quota a look
/// at every build that is kept, and at what its log takes (`log_bytes`).
///
/// # Errors
/// As the store refuses.
pub fn outdated(
    store: &dyn Store,
    project: &str,
    policy: Policy,
    log_bytes: &dyn Fn(BuildId) -> u64,
) -> Result<BTreeSet<BuildId>, StoreError> {
    let filter = BuildFilter { project: Some(project.to_owned()), ..BuildFilter::default() };
    let mut found = BTreeSet::new();
    if let Some(since) = policy.since
        && let Some(kept) = nth_newest(store, &filter, policy.builds)?
        && let Some(end) = first_older(store, &filter, kept, since)?
    {
        let mut take = |row: &BuildRow| {
            if row.finished.is_some() {
                found.insert(row.build);
            }
            found.len() < BUILDS_REMOVED_MAX
        };
        each(store, &filter, Some(end), &mut take)?;
    }
    if policy.bytes > 0 {
        beyond_quota(store, &filter, policy.bytes, log_bytes, &mut found)?;
    }
    Ok(found)
}

/// Goes through builds, newest first, below `before`, until `take` says no.
fn each(
    store: &dyn Store,
    filter: &BuildFilter,
    mut before: Option<BuildId>,
    take: &mut dyn FnMut(&BuildRow) -> bool,
) -> Result<(), StoreError> {
    loop {
        let page = store.builds(filter, before, PAGE_ROWS_MAX)?;
        let Some(last) = page.last() else { return Ok(()) };
        before = Some(last.build);
        if !page.iter().all(&mut *take) {
            return Ok(());
        }
    }
}

/// Below which number the builds are not among the `count` newest; `None` if all are.
fn nth_newest(store: &dyn Store, filter: &BuildFilter, count: u64) -> Result<Option<BuildId>, StoreError> {
    let (mut seen, mut found) = (0, None);
    let mut take = |row: &BuildRow| {
        seen += 1;
        // The one after the last that is kept.
        found = (seen > count).then_some(BuildId(row.build.0 + 1));
        found.is_none()
    };
    each(store, filter, None, &mut take)?;
    Ok(found)
}

/// Below which number, at most `end`, all builds were created before `since`; `None` if none were. Builds are created in the
/// order of their numbers, so that this asks for some thirty rows however many builds there are.
fn first_older(
    store: &dyn Store,
    filter: &BuildFilter,
    end: BuildId,
    since: Timestamp,
) -> Result<Option<BuildId>, StoreError> {
    let newest_below = |end: u64| Ok::<_, StoreError>(store.builds(filter, Some(BuildId(end)), 1)?.into_iter().next());
    // Nothing young is below `old`, something young is below `young`.
    let (mut old, mut young) = (0, end.0 + 1);
    while young - old > 1 {
        let middle = old + (young - old) / 2;
        match newest_below(middle)? {
            Some(row) if row.created >= since => young = row.build.0 + 1,
            _ => old = middle,
        }
    }
    Ok(newest_below(old)?.map(|_| BuildId(old)))
}

/// Adds the builds behind those whose artifacts and logs fill the quota. The newest stays.
fn beyond_quota(
    store: &dyn Store,
    filter: &BuildFilter,
    bytes_max: u64,
    log_bytes: &dyn Fn(BuildId) -> u64,
    found: &mut BTreeSet<BuildId>,
) -> Result<(), StoreError> {
    let (mut seen, mut bytes, mut is_newest) = (BTreeSet::new(), 0_u64, true);
    let mut failed = None;
    let mut take = |row: &BuildRow| {
        if found.contains(&row.build) {
            return true;
        }
        if bytes <= bytes_max {
            bytes = bytes.saturating_add(log_bytes(row.build));
            match store.artifacts(row.build) {
                Ok(artifacts) => {
                    for artifact in artifacts {
                        if seen.insert(artifact.artifact.digest) {
                            bytes = bytes.saturating_add(artifact.artifact.bytes);
                        }
                    }
                }
                Err(error) => {
                    failed = Some(error);
                    return false;
                }
            }
        }
        if bytes > bytes_max && !is_newest && row.finished.is_some() {
            found.insert(row.build);
        }
        is_newest = false;
        found.len() < BUILDS_REMOVED_MAX
    };
    each(store, filter, None, &mut take)?;
    failed.map_or(Ok(()), Err)
}

/// Lets results and caches go that nobody used for long, and those used longest ago while all take more than they may.
/// Gives how many results and caches.
///
/// # Errors
/// As the store refuses.
pub fn evict(store: &dyn Store, settings: &Settings, now: Timestamp) -> Result<(u64, u64), StoreError> {
    let mut evicted = (0, 0);
    let days = settings.caches_keep_for.0;
    if days > 0 {
        let reason = format!("unused for {days} days");
        let since = before(now, days);
        evict_while(store, since, &reason, now, &mut evicted, &mut |_| true)?;
    }
    let bytes_max = settings.caches_quota.0;
    let mut bytes = store.operation_totals()?.artifact_bytes.saturating_add(store.cache_totals()?.bytes);
    if bytes_max > 0 && bytes > bytes_max {
        let mut is_over = |freed: u64| {
            let is_over = bytes > bytes_max;
            if is_over {
                bytes = bytes.saturating_sub(freed);
            }
            is_over
        };
        evict_while(store, now, "all caches and results take more than they may", now, &mut evicted, &mut is_over)?;
    }
    Ok(evicted)
}

/// Lets go what attempts left: of builds that are gone, what is too old, and the oldest while all of it takes more than it may. Gives how
/// many attempts.
///
/// # Errors
/// As the store refuses.
pub fn remove_layers(
    records: &Records,
    store: &dyn Store,
    settings: &Settings,
    now: Timestamp,
) -> Result<u64, RecordError> {
    let mut kept: Vec<(Timestamp, u64, String)> = Vec::new();
    let mut after = None::<String>;
    loop {
        let page = records.list::<StoredLayers>(after.as_deref(), PAGE_ROWS_MAX)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        kept.extend(page.into_iter().map(|(key, layers)| (layers.at, layers.bytes, key)));
    }
    kept.sort_unstable();
    let days = settings.steps_keep_for.0;
    let since = if days > 0 { before(now, days) } else { Timestamp(i64::MIN) };
    let bytes_max = if settings.steps_quota.0 > 0 { settings.steps_quota.0 } else { u64::MAX };
    let mut bytes = kept.iter().fold(0_u64, |sum, (_, bytes, _)| sum.saturating_add(*bytes));
    let mut removed = 0;
    for (at, own, key) in kept {
        let is_gone = || match StoredLayers::build_of(&key) {
            Some(build) => store.build(build).map(|row| row.is_none()),
            None => Ok(true),
        };
        if at < since || bytes > bytes_max || is_gone()? {
            bytes = bytes.saturating_sub(own);
            records.remove::<LayersText>(&key)?;
            removed += u64::from(records.remove::<StoredLayers>(&key)?);
        }
    }
    Ok(removed)
}

/// Lets go what was used last before `since`, the longest unused first, as long as `goes` says so of its bytes.
fn evict_while(
    store: &dyn Store,
    since: Timestamp,
    reason: &str,
    now: Timestamp,
    evicted: &mut (u64, u64),
    goes: &mut dyn FnMut(u64) -> bool,
) -> Result<(), StoreError> {
    for _ in 0..EVICTED_MAX / PAGE_ROWS_MAX as usize {
        let mut operations = store.unused_operations(since, PAGE_ROWS_MAX)?.into_iter().peekable();
        let mut caches = store.unused_caches(since, PAGE_ROWS_MAX)?.into_iter().peekable();
        // Both lists are cut: beyond the end of one nothing is known of its kind.
        let (n_operations, n_caches) = (operations.len(), caches.len());
        let is_cut = |count: usize| count == PAGE_ROWS_MAX as usize;
        if n_operations + n_caches == 0 {
            return Ok(());
        }
        loop {
            let takes_operation = match (operations.peek(), caches.peek()) {
                (Some(operation), Some(cache)) => operation.used_at <= cache.used_at,
                (Some(_), None) if !is_cut(n_caches) => true,
                (None, Some(_)) if !is_cut(n_operations) => false,
                _ => break,
            };
            if takes_operation {
                let Some(row) = operations.next() else { break };
                if !goes(row.artifacts.values().map(|artifact| artifact.bytes).sum()) {
                    return Ok(());
                }
                store.evict(row.digest, reason, now)?;
                evicted.0 += 1;
            } else {
                let Some(row) = caches.next() else { break };
                if !goes(row.bytes) {
                    return Ok(());
                }
                store.evict_cache(&row.scope, &row.key, reason, now)?;
                evicted.1 += 1;
            }
        }
    }
    Ok(())
}

/// Notes in the audit what was removed.
async fn note(server: &Arc<Server>, swept: &Swept) -> Result<(), SweepError> {
    let at = server.now();
    let entry = |project: &str, target: String| AuditEntry {
        at,
        who: WHO.to_owned(),
        verb: "remove".to_owned(),
        target,
        project: project.to_owned(),
        ..AuditEntry::default()
    };
    let mut entries: Vec<AuditEntry> =
        swept.builds.iter().map(|(project, count)| entry(project, format!("{count} builds"))).collect();
    let rest = Swept { builds: BTreeMap::new(), ..swept.clone() };
    entries.extend(rest.words().map(|words| entry("", words)));
    with(server, move |server| {
        entries.iter().try_for_each(|entry| server.store.append_audit(entry).map(drop)).map_err(SweepError::from)
    })
    .await?
}
