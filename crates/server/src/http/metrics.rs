//! Figures for Prometheus, in its text format.
//!
//! Own code rather than a crate: a few counters over a fixed table of routes, and gauges that are asked for when they are
//! read, need no registry. Nothing here is kept over a restart, as Prometheus expects.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::problem::Problem;
use api::routes::ROUTES;
use engine::{Engine, JobState};
use graph::Verdict;

use super::{App, problem};

/// The upper bounds of the buckets of durations, in microseconds.
const BUCKETS_US: [u64; 10] = [500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 200_000, 1_000_000, 5_000_000];
/// Classes of statuses: 1xx to 5xx.
const CLASSES: usize = 5;

/// What is counted of requests.
pub struct Metrics {
    routes: Vec<OfRoute>,
}

#[derive(Default)]
struct OfRoute {
    classes: [AtomicU64; CLASSES],
    buckets: [AtomicU64; BUCKETS_US.len()],
    total_us: AtomicU64,
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
        let class = usize::from(status / 100).clamp(1, CLASSES) - 1;
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        route.classes[class].fetch_add(1, Ordering::Relaxed);
        route.total_us.fetch_add(took_us, Ordering::Relaxed);
        if let Some(bucket) = BUCKETS_US.iter().position(|bound| took_us <= *bound) {
            route.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write(&self, text: &mut String) {
        head(text, "ropewalk_http_requests_total", "counter", "Requests by route and class of status.");
        for (route, figures) in ROUTES.iter().zip(&self.routes) {
            for (class, count) in figures.classes.iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let (operation, class) = (route.operation, class + 1);
                    let _ = writeln!(
                        text,
                        "ropewalk_http_requests_total{{operation=\"{operation}\",status=\"{class}xx\"}} {count}"
                    );
                }
            }
        }
        let name = "ropewalk_http_request_seconds";
        head(text, name, "histogram", "Time from a request's head to its answer's head, by route.");
        for (route, figures) in ROUTES.iter().zip(&self.routes) {
            let total: u64 = figures.classes.iter().map(|count| count.load(Ordering::Relaxed)).sum();
            if total == 0 {
                continue;
            }
            let operation = route.operation;
            let mut below = 0;
            for (bound, count) in BUCKETS_US.iter().zip(&figures.buckets) {
                below += count.load(Ordering::Relaxed);
                let bound = seconds(*bound);
                let _ = writeln!(text, "{name}_bucket{{operation=\"{operation}\",le=\"{bound}\"}} {below}");
            }
            let sum = seconds(figures.total_us.load(Ordering::Relaxed));
            let _ = writeln!(text, "{name}_bucket{{operation=\"{operation}\",le=\"+Inf\"}} {total}");
            let _ = writeln!(text, "{name}_sum{{operation=\"{operation}\"}} {sum}");
            let _ = writeln!(text, "{name}_count{{operation=\"{operation}\"}} {total}");
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn gauge(text: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    head(text, name, "gauge", help);
    let _ = writeln!(text, "{name} {value}");
}

fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// What the engine holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    builds_running: u64,
    waiting: u64,
    queued: u64,
    leased: u64,
    unmatched: u64,
}

fn held(engine: &Engine) -> Held {
    let mut held = Held { unmatched: engine.unmatched().len() as u64, ..Held::default() };
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
    }
    held
}

/// All figures.
///
/// # Errors
/// If the shell has ended, or the store refuses.
pub async fn text(app: &Arc<App>) -> Result<String, Problem> {
    let asked = Instant::now();
    let held = app.server.shell.ask(held).await.map_err(problem::stopped)?;
    let engine_us = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
    let (sequence, store_us) = app
        .blocking(|app| {
            let asked = Instant::now();
            let sequence = app.server.store.last_sequence().map_err(problem::store)?;
            Ok((sequence, u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX)))
        })
        .await?;
    let mut pools: std::collections::BTreeMap<String, (u64, u64)> = std::collections::BTreeMap::new();
    let sessions = app.server.dispatch.sessions();
    for session in &sessions {
        for pool in &session.offer.pools {
            let figures = pools.entry(pool.clone()).or_default();
            *figures = (figures.0 + 1, figures.1 + u64::from(session.offer.slots));
        }
    }
    let mut text = String::new();
    gauge(&mut text, "ropewalk_builds_running", "Builds that have not ended.", held.builds_running);
    gauge(&mut text, "ropewalk_jobs_waiting", "Jobs that wait for something other than a worker.", held.waiting);
    gauge(&mut text, "ropewalk_jobs_queued", "Jobs that wait for a worker.", held.queued);
    gauge(&mut text, "ropewalk_jobs_unmatched", "Jobs that no worker which is there could run.", held.unmatched);
    gauge(&mut text, "ropewalk_leases", "Attempts in the hands of workers.", held.leased);
    gauge(&mut text, "ropewalk_workers", "Workers that are there.", sessions.len());
    head(&mut text, "ropewalk_pool_workers", "gauge", "Workers that are there, by pool.");
    for (pool, (workers, _)) in &pools {
        let _ = writeln!(text, "ropewalk_pool_workers{{pool=\"{}\"}} {workers}", escaped(pool));
    }
    head(&mut text, "ropewalk_pool_slots", "gauge", "Attempts that the workers of a pool run at once.");
    for (pool, (_, slots)) in &pools {
        let _ = writeln!(text, "ropewalk_pool_slots{{pool=\"{}\"}} {slots}", escaped(pool));
    }
    gauge(&mut text, "ropewalk_streams", "Followers of builds.", app.server.live.followers());
    head(&mut text, "ropewalk_appends_total", "counter", "Transactions with facts, since the store was made.");
    let _ = writeln!(text, "ropewalk_appends_total {}", sequence.0);
    head(&mut text, "ropewalk_stale_sections_total", "counter", "What workers said under leases that were not theirs.");
    let _ = writeln!(text, "ropewalk_stale_sections_total {}", app.server.dispatch.stale_sections());
    gauge(
        &mut text,
        "ropewalk_store_read_seconds",
        "How long the store took for one small read, now.",
        seconds(store_us),
    );
    gauge(&mut text, "ropewalk_engine_wait_seconds", "How long the engine took to be asked, now.", seconds(engine_us));
    app.metrics.write(&mut text);
    Ok(text)
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
        let mut text = String::new();
        metrics.write(&mut text);
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
}
