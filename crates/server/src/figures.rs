//! What a server counts while it runs: numbers that only grow, from zero at each start. `http/metrics.rs` tells them.
//!
//! Counting costs an atomic addition and never waits.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::Fact;
use engine::fact::What;
use graph::{Failure, Outcome, Verdict};

/// How builds end, by the words of [`Verdict::word`].
pub const VERDICTS: [&str; 4] = ["passed", "failed", "canceled", "diverged"];

/// The upper bounds of the buckets of durations, in microseconds.
const BUCKETS_US: [u64; 10] = [500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 200_000, 1_000_000, 5_000_000];

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// What it is now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took, by buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS_US.len()],
    count: Counter,
    total_us: Counter,
}

impl Histogram {
    /// Counts one that took so long.
    pub fn took(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.count.add(1);
        self.total_us.add(took_us);
        if let Some(bucket) = BUCKETS_US.iter().position(|bound| took_us <= *bound) {
            self.buckets[bucket].add(1);
        }
    }

    /// Writes its lines as Prometheus takes them; `label` is `name="value"`, or empty.
    pub fn write(&self, text: &mut String, name: &str, label: &str) {
        let (comma, braced) = match label {
            "" => ("", String::new()),
            label => (",", format!("{{{label}}}")),
        };
        let mut below = 0;
        for (bound, count) in BUCKETS_US.iter().zip(&self.buckets) {
            below += count.get();
            let bound = seconds(*bound);
            let _ = writeln!(text, "{name}_bucket{{{label}{comma}le=\"{bound}\"}} {below}");
        }
        let (count, sum) = (self.count.get(), seconds(self.total_us.get()));
        let _ = writeln!(text, "{name}_bucket{{{label}{comma}le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "{name}_sum{braced} {sum}");
        let _ = writeln!(text, "{name}_count{braced} {count}");
    }
}

/// Microseconds as seconds.
#[must_use]
pub fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// What is counted.
#[derive(Debug, Default)]
pub struct Figures {
    builds: [Counter; VERDICTS.len()],
    /// Attempts whose worker fell silent, or that it did not know any more.
    pub leases_lost: Counter,
    /// Bytes of logs that workers sent and that were kept.
    pub log_bytes: Counter,
    /// Bytes of contents that were taken.
    pub blob_bytes_in: Counter,
    /// Bytes of contents that were given.
    pub blob_bytes_out: Counter,
    /// What storing the facts of a step took, repetitions included.
    pub appends: Histogram,
    /// Contents that are kept, and the bytes they take, as the last collection found them; zero before the first.
    pub kept: [Counter; 2],
}

impl Figures {
    /// Counts what is stored.
    pub fn told(&self, facts: &[Fact]) {
        for fact in facts {
            match &fact.what {
                What::BuildEnded { verdict } => self.ended(verdict),
                What::AttemptFinished { report, .. } if matches!(report.outcome, Outcome::Failed(Failure::Lost)) => {
                    self.leases_lost.add(1);
                }
                _ => {}
            }
        }
    }

    fn ended(&self, verdict: &Verdict) {
        if let Some(place) = VERDICTS.iter().position(|word| *word == verdict.word()) {
            self.builds[place].add(1);
        }
    }

    /// Builds that ended, by verdict.
    pub fn builds(&self) -> impl Iterator<Item = (&'static str, u64)> {
        VERDICTS.into_iter().zip(self.builds.iter().map(Counter::get))
    }

    /// Notes what a collection found.
    pub fn collected(&self, kept: u64, bytes: u64) {
        for (figure, value) in self.kept.iter().zip([kept, bytes]) {
            figure.0.store(value, Ordering::Relaxed);
        }
    }
}
