//! How long builds are kept on this machine: the newest ones and the young ones; what is older goes after a later run. So do keyed
//! caches that nobody used for long, and those used longest ago while all take more than they may.
//!
//! Results kept for reuse stay, and so do the files that they name. Nothing here runs while another build does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use graph::{BuildId, Timestamp};
use store::PAGE_ROWS_MAX;
use worker::workspace::StepBounds;

use crate::commands::Stop;
use crate::places::{Places, log_path};
use crate::words;

/// How many of the newest builds are kept, whatever their age; `$ROPEWALK_KEEP_BUILDS` says otherwise.
const BUILDS_KEPT: u64 = 200;
/// How many days every build is kept; `$ROPEWALK_KEEP_DAYS` says otherwise.
const DAYS_KEPT: u64 = 30;
/// How many days a keyed cache is kept that no job uses; `$ROPEWALK_KEEP_CACHES_DAYS` says otherwise.
const CACHES_DAYS_KEPT: u64 = 14;
/// How many bytes all keyed caches may take; `$ROPEWALK_KEEP_CACHES_BYTES` says otherwise.
const CACHES_BYTES_MAX: u64 = 20 << 30;
/// How many bytes the files may take that are kept of steps, for `ropewalk shell`; `$ROPEWALK_KEEP_STEPS_BYTES` says otherwise.
const STEPS_BYTES_MAX: u64 = 10 << 30;
/// The most builds that are looked at after one run, so that no run waits long for it.
const BUILDS_LOOKED_AT_MAX: u64 = 20;
/// The file that says below which number no build is left.
const MARK: &str = "builds-removed-below";

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many of the newest builds.
    pub builds: u64,
    /// Every build that was created so many days ago or later.
    pub days: u64,
}

impl Retention {
    /// What the environment says; what it does not say, or says in words that are no number, is as usual.
    pub fn of_environment() -> Self {
        let number = |name: &str| std::env::var(name).ok()?.parse().ok();
        Self {
            builds: number("ROPEWALK_KEEP_BUILDS").unwrap_or(BUILDS_KEPT),
            days: number("ROPEWALK_KEEP_DAYS").unwrap_or(DAYS_KEPT),
        }
    }

    fn created_before(self, now: Timestamp) -> Timestamp {
        let kept = Duration::from_secs(self.days.saturating_mul(24 * 60 * 60));
        Timestamp(now.0.saturating_sub(i64::try_from(kept.as_micros()).unwrap_or(i64::MAX)))
    }
}

/// Removes builds that are not kept any more: facts, logs, workspaces, and files that nothing else names. `newest` is the
/// build that has just ended. Where nothing is to be removed it costs one small file and one look at a build.
///
/// # Errors
/// As the medium refuses; what is left is tried again after a later run.
pub fn apply(places: &Places, retention: Retention, newest: BuildId, now: Timestamp) -> Result<(), Stop> {
    let end = newest.0.saturating_sub(retention.builds.max(1)) + 1;
    let begin = mark(&places.data);
    let created_before = retention.created_before(now);
    let mut blobs = Vec::new();
    let mut next = begin;
    for number in (begin..end).take(usize::try_from(BUILDS_LOOKED_AT_MAX).unwrap_or(usize::MAX)) {
        let build = BuildId(number);
        match places.store.build(build)? {
            None => {}
            Some(row) if row.created >= created_before => break,
            // A gate may still be answered; nothing behind it is removed before.
            Some(row) if row.finished.is_none() => break,
            Some(_) => {
                if places.running()?.is_some() {
                    break;
                }
                // The parts first: a build without its log can still be removed, a log without its build never would be.
                remove_parts(&places.data, build)?;
                blobs.extend(places.store.delete_build(build)?.into_iter().flat_map(|deleted| deleted.blobs));
            }
        }
        next = number + 1;
    }
    if next > begin {
        std::fs::write(mark_path(&places.data), next.to_string()).map_err(|error| refused(&places.data, &error))?;
    }
    // A build that began meanwhile may be about to name one of them; then they wait for `ropewalk cache clear`.
    if !blobs.is_empty() && places.running()?.is_none() {
        for blob in blobs {
            places.blobs.delete(blob).map_err(|error| Stop::of(&error))?;
        }
    }
    Ok(())
}

/// How much all that is kept of steps may take.
pub fn steps_bytes_max() -> u64 {
    std::env::var("ROPEWALK_KEEP_STEPS_BYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(STEPS_BYTES_MAX)
}

/// How much of what one attempt left a worker sends to its server; 0 is nothing.
pub fn sent_bytes_max() -> u64 {
    let written = std::env::var("ROPEWALK_SEND_STEPS_BYTES").ok().and_then(|text| text.parse().ok());
    written.unwrap_or(worker::travel::BYTES_MAX)
}

/// How much a build that begins now may keep of its steps.
pub fn step_bounds() -> StepBounds {
    let bounds = StepBounds::default();
    StepBounds { build_bytes: bounds.build_bytes.min(steps_bytes_max()), ..bounds }
}

/// Takes away what is kept of the steps of old builds while all of it takes more than it may. `newest` is the build that has just ended:
/// if it has kept nothing, nothing is looked at.
///
/// # Errors
/// As the medium refuses; what is left is tried again after a later run.
pub fn apply_to_steps(places: &Places, newest: BuildId) -> Result<(), Stop> {
    let workspaces = places.data.join("workspaces");
    if !worker::workspace::has_layers(&workspaces.join(newest.to_string())) {
        return Ok(());
    }
    let has_ended = |build: u64| {
        let row = places.store.build(BuildId(build));
        build != newest.0 && row.is_ok_and(|row| row.is_none_or(|row| row.finished.is_some()))
    };
    worker::workspace::collect_layers(&workspaces, steps_bytes_max(), &has_ended)
        .map_err(|error| refused(&workspaces, &error))
}

/// How long keyed caches are kept, and how much they may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheBounds {
    /// Every cache that a job used so many days ago or later, as far as there is room.
    pub days: u64,
    /// All of them together.
    pub bytes: u64,
}

impl CacheBounds {
    /// What the environment says; what it does not say, or says in words that are no number, is as usual.
    pub fn of_environment() -> Self {
        let number = |name: &str| std::env::var(name).ok()?.parse().ok();
        Self {
            days: number("ROPEWALK_KEEP_CACHES_DAYS").unwrap_or(CACHES_DAYS_KEPT),
            bytes: number("ROPEWALK_KEEP_CACHES_BYTES").unwrap_or(CACHES_BYTES_MAX),
        }
    }
}

impl std::fmt::Display for CacheBounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let days = words::count(usize::try_from(self.days).unwrap_or(usize::MAX), "day");
        write!(
            f,
            "a cache goes {days} after its last use, the longest unused first if all take more than {}",
            words::size(self.bytes)
        )
    }
}

/// Evicts keyed caches by these bounds, those used longest ago first, and removes the files that nothing else names; how many. While a
/// build runs, which may be reading one, none goes.
///
/// # Errors
/// As the medium refuses; what is left is tried again after a later run.
pub fn apply_to_caches(places: &Places, bounds: CacheBounds, now: Timestamp) -> Result<u64, Stop> {
    let store = &*places.store;
    store::cache::cache_uses::prune(store, store::cache::cache_uses::KEPT_MAX)?;
    let totals = store.cache_totals()?;
    let used_before = Retention { builds: 0, days: bounds.days }.created_before(now);
    let is_due = totals.bytes > bounds.bytes || (totals.live > 0 && !store.unused_caches(used_before, 1)?.is_empty());
    if !is_due || places.running()?.is_some() {
        return Ok(0);
    }
    let (mut bytes, mut evicted, mut blobs) = (totals.bytes, 0, Vec::new());
    for row in store.unused_caches(now.plus_ms(1), PAGE_ROWS_MAX)? {
        let reason = if row.used_at < used_before {
            format!("unused for {} days", bounds.days)
        } else if bytes > bounds.bytes {
            "all caches take more than they may".to_owned()
        } else {
            break;
        };
        store.evict_cache(&row.scope, &row.key, &reason, now)?;
        bytes = bytes.saturating_sub(row.bytes);
        evicted += 1;
        blobs.extend(row.blobs);
    }
    let named = store.referenced_blobs()?;
    if places.running()?.is_none() {
        for blob in blobs.into_iter().filter(|blob| !named.contains(blob)) {
            places.blobs.delete(blob).map_err(|error| Stop::of(&error))?;
        }
    }
    Ok(evicted)
}

fn mark_path(data: &Path) -> PathBuf {
    data.join(MARK)
}

/// The number below which no build is left.
fn mark(data: &Path) -> u64 {
    let text = std::fs::read_to_string(mark_path(data)).unwrap_or_default();
    text.trim().parse().unwrap_or(1).max(1)
}

fn remove_parts(data: &Path, build: BuildId) -> Result<(), Stop> {
    for path in [log_path(data, build), data.join("workspaces").join(build.to_string())] {
        worker::workspace::remove_tree(&path).map_err(|error| refused(&path, &error))?;
    }
    Ok(())
}

fn refused(path: &Path, error: &std::io::Error) -> Stop {
    Stop::infra(format!("could not remove an old build at `{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use store::Store;
    use store::cache::{CacheRow, CacheUser};
    use store::log::Stream;

    use super::*;
    use crate::places::kept::Kept;

    /// Five builds, the third with a result that is kept; then the retention, so many days later. The builds left.
    fn left(builds: u64, days: u64, days_later: u64) -> (Vec<u64>, Kept) {
        let mut kept = Kept::new();
        for number in 1..=5 {
            let mut build = kept.build(&["a"]);
            build.print(&[(1, 0, Stream::Stdout, "hello\n")]);
            let operation = build.operation("a", &[("f", &number.to_string())]);
            build.pass("a", 1);
            if number == 3 {
                build.keep("a", &operation, 1);
            }
            build.end();
        }
        let places = kept.places();
        let now = kept.calendar().now.plus_ms(days_later * 24 * 60 * 60 * 1000);
        apply(&places, Retention { builds, days }, BuildId(5), now).map_err(|stop| stop.message).expect("it answers");
        let left = (1..=5).filter(|&number| {
            let build = places.store.build(BuildId(number)).expect("it answers");
            assert_eq!(build.is_some(), log_path(&places.data, BuildId(number)).exists(), "log of {number}");
            build.is_some()
        });
        (left.collect(), kept)
    }

    #[test]
    fn what_is_new_or_young_stays() {
        assert_eq!(left(2, 30, 31).0, [4, 5]);
        assert_eq!(left(2, 30, 29).0, [1, 2, 3, 4, 5]);
        assert_eq!(left(200, 30, 31).0, [1, 2, 3, 4, 5]);
        assert_eq!(left(0, 0, 1).0, [5], "the build that has just ended stays");
    }

    /// Three caches of 400 bytes, used so many days ago each; the keys of those that are left by the bounds.
    #[track_caller]
    fn check_caches(used_days_ago: [u64; 3], bounds: CacheBounds, expected: &[&str]) {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        let kept = Kept::new();
        let places = kept.places();
        let now = kept.calendar().now.plus_ms(100 * DAY_MS);
        let mut blobs = Vec::new();
        for (key, days) in ["a", "b", "c"].into_iter().zip(used_days_ago) {
            let blob = places.blobs.put(key.repeat(400).as_bytes()).expect("a blob");
            let at = kept.calendar().now.plus_ms((100 - days) * DAY_MS);
            let written_by = CacheUser { build: BuildId(1), job: "a".into() };
            let (scope, key) = ("trusted/x".to_owned(), key.to_owned());
            let row =
                CacheRow { scope, key, blobs: vec![blob], bytes: 400, written_by, at, used_at: at, evicted: None };
            places.store.save_cache(&row).expect("the store takes it");
            blobs.push((row.key, blob));
        }
        apply_to_caches(&places, bounds, now).map_err(|stop| stop.message).expect("it answers");
        let rows = places.store.list_caches(9).expect("rows");
        let mut left: Vec<&str> = rows.iter().filter(|row| row.evicted.is_none()).map(|row| row.key.as_str()).collect();
        left.sort_unstable();
        assert_eq!(left, expected);
        for (key, blob) in &blobs {
            assert_eq!(places.blobs.contains(*blob).expect("it answers"), left.contains(&key.as_str()), "{key}");
        }
    }

    #[test]
    fn caches_go_by_age_and_by_room() {
        check_caches([20, 13, 0], CacheBounds { days: 14, bytes: 1 << 20 }, &["b", "c"]);
        check_caches([1, 3, 2], CacheBounds { days: 14, bytes: 800 }, &["a", "c"]);
        check_caches([1, 3, 2], CacheBounds { days: 14, bytes: 799 }, &["a"]);
        check_caches([1, 3, 2], CacheBounds { days: 14, bytes: 1200 }, &["a", "b", "c"]);
    }

    #[test]
    fn while_a_build_runs_no_cache_goes() {
        let mut kept = Kept::new();
        kept.build(&["a"]).lease("a");
        let places = kept.places();
        let at = kept.calendar().now;
        let written_by = CacheUser { build: BuildId(1), job: "a".into() };
        let (scope, key) = ("trusted/x".to_owned(), "a".to_owned());
        let row = CacheRow { scope, key, blobs: Vec::new(), bytes: 9, written_by, at, used_at: at, evicted: None };
        places.store.save_cache(&row).expect("the store takes it");
        let _claim = places.store.claim(BuildId(1)).expect("the store answers").expect("it is free");
        let evicted = apply_to_caches(&places, CacheBounds { days: 14, bytes: 1 }, at).map_err(|stop| stop.message);
        assert_eq!(evicted, Ok(0));
    }

    #[test]
    fn results_outlive_their_builds() {
        let (_, kept) = left(1, 0, 1);
        let (row, _) = kept.store().recent_operations("a", 9).expect("rows").remove(0);
        assert_eq!((row.build, row.evicted), (BuildId(3), None));
        assert_eq!(kept.store().referenced_blobs().expect("digests").len(), 1);
    }

    #[test]
    fn a_build_that_waits_keeps_what_comes_after_it() {
        let mut kept = Kept::new();
        kept.build(&["a"]).pass("a", 1).end();
        kept.build(&["a"]).lease("a");
        kept.build(&["a"]).pass("a", 1).end();
        let places = kept.places();
        let now = kept.calendar().now.plus_ms(1);
        for _ in 0..2 {
            apply(&places, Retention { builds: 1, days: 0 }, BuildId(3), now).map_err(|stop| stop.message).expect("ok");
        }
        assert!(places.store.build(BuildId(1)).expect("it answers").is_none());
        assert!(places.store.build(BuildId(2)).expect("it answers").is_some());
        assert_eq!(mark(&places.data), 2);
    }
}
