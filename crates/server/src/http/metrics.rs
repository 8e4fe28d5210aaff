//! Figures for Prometheus, in its text format.
//!
//! Own code rather than a crate: a few counters over a fixed table of routes, and gauges that are asked for when they are
//! read, need no registry. Nothing here is kept over a restart, as Prometheus expects. [`METRICS`] is the one list of what
//! there is; the manual's table is held to it by a test.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::problem::Problem;
use api::routes::ROUTES;
use engine::{Engine, JobState, PoolState};
use graph::{Timestamp, Verdict};

use super::{App, STREAMS_MAX, problem};
use crate::dispatch::SessionView;
use crate::figures::{Counter, Histogram, seconds};
use crate::records::{DEFAULT_POOL, Intake, WorkerRecord};

/// Classes of statuses: 1xx to 5xx.
const CLASSES: usize = 5;

/// One metric: name, kind, and what it tells.
pub type Metric = (&'static str, &'static str, &'static str);

/// All of them, in the order in which they are told.
pub const METRICS: &[Metric] = &[
    ("ropewalk_builds_running", "gauge", "builds that have not ended"),
    ("ropewalk_builds_total", "counter", "builds that ended, by `verdict`"),
    ("ropewalk_jobs_waiting", "gauge", "jobs that wait for something other than a worker"),
    ("ropewalk_jobs_queued", "gauge", "jobs that wait for a worker"),
    ("ropewalk_jobs_unmatched", "gauge", "jobs that no worker which is there could run"),
    ("ropewalk_leases", "gauge", "attempts in the hands of workers"),
    ("ropewalk_leases_lost_total", "counter", "attempts given up because their worker fell silent"),
    (
        "ropewalk_stale_sections_total",
        "counter",
        "what workers said under leases that were not theirs, and was refused",
    ),
    (
        "ropewalk_workers",
        "gauge",
        "known workers by `state`: `ready`, `paused`, `draining`, `closed` (by itself), `away`",
    ),
    ("ropewalk_pool_queued", "gauge", "jobs that wait for a worker, by `pool`"),
    ("ropewalk_pool_oldest_wait_seconds", "gauge", "how long the oldest of them waits, by `pool`"),
    ("ropewalk_pool_running", "gauge", "attempts that run, by `pool`"),
    ("ropewalk_pool_workers", "gauge", "workers that are there, by `pool`"),
    ("ropewalk_pool_slots", "gauge", "attempts that those which take new ones run at once, by `pool`"),
    ("ropewalk_pool_held", "gauge", "1 while somebody holds the `pool`"),
    ("ropewalk_log_bytes_total", "counter", "bytes of logs received from workers and kept"),
    ("ropewalk_blob_bytes_total", "counter", "bytes of files, caches and artifacts, by `direction`: `in` or `out`"),
    ("ropewalk_blobs_kept", "gauge", "contents that are kept, as the last daily collection found them"),
    ("ropewalk_blobs_kept_bytes", "gauge", "the bytes they take"),
    ("ropewalk_streams", "gauge", "followers of builds and events"),
    ("ropewalk_answers_open", "gauge", "long answers that are open: logs, streams, searches"),
    ("ropewalk_appends_total", "counter", "transactions with facts, since the store was made"),
    ("ropewalk_append_seconds", "histogram", "how long storing what happened took, repetitions included"),
    ("ropewalk_store_read_seconds", "gauge", "how long the store took for one small read, now"),
    ("ropewalk_engine_wait_seconds", "gauge", "how long the engine took to be asked, now"),
    ("ropewalk_http_requests_total", "counter", "requests, by `operation` and class of `status`"),
    ("ropewalk_http_request_seconds", "histogram", "from a request's head to its answer's head, by `operation`"),
];

/// What is counted of requests.
pub struct Metrics {
    routes: Vec<OfRoute>,
}

#[derive(Default)]
struct OfRoute {
    classes: [Counter; CLASSES],
    took: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { routes: ROUTES.iter().map(|_| OfRoute::default()).collect() }
    }
}

impl Metrics {
    /// Counts an answer to the route at this place of the table: its status, and how long its head took.
    pub fn answered(&self, route: usize, status: u16, took: Duration) {
        let Some(route) = self.routes.get(route) else { return };
        route.classes[usize::from(status / 100).clamp(1, CLASSES) - 1].add(1);
        route.took.took(took);
    }

    fn write(&self, page: &mut Page) {
        page.head("ropewalk_http_requests_total");
        for (route, figures) in ROUTES.iter().zip(&self.routes) {
            for (class, count) in figures.classes.iter().enumerate().filter(|(_, count)| count.get() > 0) {
                let label = format!("operation=\"{}\",status=\"{}xx\"", route.operation, class + 1);
                page.line("ropewalk_http_requests_total", &label, count.get());
            }
        }
        page.head("ropewalk_http_request_seconds");
        for (route, figures) in ROUTES.iter().zip(&self.routes) {
            if figures.classes.iter().any(|count| count.get() > 0) {
                let label = format!("operation=\"{}\"", route.operation);
                figures.took.write(&mut page.text, "ropewalk_http_request_seconds", &label);
            }
        }
    }
}

/// The text on its way.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str) {
        let known = METRICS.iter().find(|(known, ..)| *known == name);
        let (name, kind, help) = known.expect("what is told stands in the list");
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, label: &str, value: impl Display) {
        let _ = match label {
            "" => writeln!(self.text, "{name} {value}"),
            label => writeln!(self.text, "{name}{{{label}}} {value}"),
        };
    }

    /// A metric that is one number.
    fn one(&mut self, name: &str, value: impl Display) {
        self.head(name);
        self.line(name, "", value);
    }

    /// A metric that is a number for each value of one label.
    fn each<V: Display>(&mut self, name: &str, label: &str, values: impl IntoIterator<Item = (impl AsRef<str>, V)>) {
        self.head(name);
        for (of, value) in values {
            self.line(name, &format!("{label}=\"{}\"", escaped(of.as_ref())), value);
        }
    }
}

/// What the engine holds.
#[derive(Clone, Debug, Default)]
struct Held {
    builds_running: u64,
    waiting: u64,
    queued: u64,
    leased: u64,
    unmatched: u64,
    pools: Vec<PoolState>,
    /// Since when the oldest job of each pool waits for a worker.
    oldest: BTreeMap<String, Timestamp>,
}

fn held(engine: &Engine) -> Held {
    let mut held = Held { unmatched: engine.unmatched().len() as u64, pools: engine.pools(), ..Held::default() };
    for build in engine.builds() {
        if engine.verdict(build) != Some(Verdict::Running) {
            continue;
        }
        held.builds_running += 1;
        for (_, state) in engine.jobs(build) {
            match state {
                JobState::Queued => held.queued += 1,
                JobState::Leased { .. } => held.leased += 1,
                JobState::Ended(_) => {}
                _ => held.waiting += 1,
            }
        }
        for (pool, since) in engine.waits(build) {
            match held.oldest.get_mut(pool) {
                Some(oldest) => *oldest = since.min(*oldest),
                None => drop(held.oldest.insert(pool.to_owned(), since)),
            }
        }
    }
    held
}

/// What people and workers say of all pools; jobs that name none are in the default pool, whose workers count once.
fn by_pool(held: &Held, now: Timestamp) -> BTreeMap<String, (PoolState, u64)> {
    let mut pools: BTreeMap<String, (PoolState, u64)> = BTreeMap::new();
    for state in &held.pools {
        let name = if state.pool.is_empty() { DEFAULT_POOL } else { &state.pool };
        let (pool, wait_ms) = pools.entry(name.to_owned()).or_default();
        pool.queued += state.queued;
        pool.running += state.running;
        pool.workers = pool.workers.max(state.workers);
        pool.slots = pool.slots.max(state.slots);
        pool.held = pool.held.take().or_else(|| state.held.clone());
        let since = held.oldest.get(&state.pool).filter(|_| state.queued > 0);
        *wait_ms = (*wait_ms).max(since.map_or(0, |since| now.ms_since(*since)));
    }
    pools
}

/// How many of the known workers are in which state.
fn by_state(records: &[(String, WorkerRecord)], sessions: &[SessionView]) -> BTreeMap<&'static str, u64> {
    let mut states = BTreeMap::from(["ready", "paused", "draining", "closed", "away"].map(|state| (state, 0)));
    let sessions: BTreeMap<&str, &SessionView> = sessions.iter().map(|view| (&*view.worker.0, view)).collect();
    for (id, record) in records {
        let state = match (sessions.get(id.as_str()), &record.intake) {
            (None, _) => "away",
            (_, Intake::Paused(_)) => "paused",
            (_, Intake::Draining(_)) => "draining",
            (Some(session), Intake::Open) if session.closed.is_some() => "closed",
            (Some(_), Intake::Open) => "ready",
        };
        *states.entry(state).or_default() += 1;
    }
    states
}

/// All figures.
///
/// # Errors
/// If the shell has ended, or the store refuses.
pub async fn text(app: &Arc<App>) -> Result<String, Problem> {
    let asked = Instant::now();
    let held = app.server.shell.ask(held).await.map_err(problem::stopped)?;
    let engine_us = us(asked.elapsed());
    let (sequence, store_us, records) = app
        .blocking(|app| {
            let asked = Instant::now();
            let sequence = app.server.store.last_sequence().map_err(problem::store)?;
            let took = us(asked.elapsed());
            Ok((sequence, took, app.server.records.all::<WorkerRecord>().map_err(problem::record)?))
        })
        .await?;
    let (figures, mut page) = (&app.server.figures, Page::default());
    page.one("ropewalk_builds_running", held.builds_running);
    page.each("ropewalk_builds_total", "verdict", figures.builds());
    page.one("ropewalk_jobs_waiting", held.waiting);
    page.one("ropewalk_jobs_queued", held.queued);
    page.one("ropewalk_jobs_unmatched", held.unmatched);
    page.one("ropewalk_leases", held.leased);
    page.one("ropewalk_leases_lost_total", figures.leases_lost.get());
    page.one("ropewalk_stale_sections_total", app.server.dispatch.stale_sections());
    page.each("ropewalk_workers", "state", by_state(&records, &app.server.dispatch.sessions()));
    let pools = by_pool(&held, app.now());
    let each = |value: fn(&PoolState) -> u64| pools.iter().map(move |(name, (pool, _))| (name, value(pool)));
    page.each("ropewalk_pool_queued", "pool", each(|pool| pool.queued));
    let waits = pools.iter().map(|(name, (_, wait_ms))| (name, seconds(wait_ms.saturating_mul(1000))));
    page.each("ropewalk_pool_oldest_wait_seconds", "pool", waits);
    page.each("ropewalk_pool_running", "pool", each(|pool| pool.running));
    page.each("ropewalk_pool_workers", "pool", each(|pool| pool.workers));
    page.each("ropewalk_pool_slots", "pool", each(|pool| pool.slots));
    page.each("ropewalk_pool_held", "pool", each(|pool| u64::from(pool.held.is_some())));
    page.one("ropewalk_log_bytes_total", figures.log_bytes.get());
    let directions = [("in", figures.blob_bytes_in.get()), ("out", figures.blob_bytes_out.get())];
    page.each("ropewalk_blob_bytes_total", "direction", directions);
    page.one("ropewalk_blobs_kept", figures.kept[0].get());
    page.one("ropewalk_blobs_kept_bytes", figures.kept[1].get());
    page.one("ropewalk_streams", app.server.live.followers());
    page.one("ropewalk_answers_open", STREAMS_MAX - app.streams.available_permits());
    page.one("ropewalk_appends_total", sequence.0);
    page.head("ropewalk_append_seconds");
    figures.appends.write(&mut page.text, "ropewalk_append_seconds", "");
    page.one("ropewalk_store_read_seconds", seconds(store_us));
    page.one("ropewalk_engine_wait_seconds", seconds(engine_us));
    app.metrics.write(&mut page);
    Ok(page.text)
}

fn us(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// A label's value (Prometheus text format: backslash, quote and line feed are escaped).
fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_route_and_class() {
        let metrics = Metrics::default();
        let place = ROUTES.iter().position(|route| route.operation == "build_get").expect("it is in the table");
        metrics.answered(place, 200, Duration::from_micros(700));
        metrics.answered(place, 404, Duration::from_secs(60));
        let mut page = Page::default();
        metrics.write(&mut page);
        let text = page.text;
        for line in [
            "ropewalk_http_requests_total{operation=\"build_get\",status=\"2xx\"} 1",
            "ropewalk_http_requests_total{operation=\"build_get\",status=\"4xx\"} 1",
            "ropewalk_http_request_seconds_bucket{operation=\"build_get\",le=\"0.000500\"} 0",
            "ropewalk_http_request_seconds_bucket{operation=\"build_get\",le=\"0.001000\"} 1",
            "ropewalk_http_request_seconds_bucket{operation=\"build_get\",le=\"+Inf\"} 2",
            "ropewalk_http_request_seconds_sum{operation=\"build_get\"} 60.000700",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }

    /// The manual lists what there is, in this order and these words.
    #[test]
    fn the_manual_lists_all_metrics() {
        let manual = include_str!("../../../../docs/manual/server.md");
        let listed: Vec<&str> = manual.lines().filter(|line| line.starts_with("| `ropewalk_")).collect();
        let line = |(name, kind, help): &Metric| format!("| `{name}` | {kind} | {help} |");
        assert_eq!(listed, METRICS.iter().map(line).collect::<Vec<_>>());
    }
}
