//! What the failures of builds are beside the builds before, kept for who looks again while nothing of all these builds has changed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use api::test_history::TestSummary;
use graph::BuildId;

use crate::lock::lock;

/// How many summaries are kept, and how many bytes of text with them.
const SUMMARIES_KEPT: usize = 64;
const BYTES_KEPT: usize = 4 << 20;
/// What a test takes beside its texts.
const TEST_BYTES: usize = 500;

/// All that a summary follows from but what is in quarantine: builds with how many facts their rows show.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// The build itself.
    pub build: BuildId,
    /// It and those before it of its pipeline.
    pub before: Vec<(BuildId, u64)>,
    /// The newest ones of its project.
    pub newest: Vec<(BuildId, u64)>,
    /// The default branch, if the project's settings name it.
    pub default_branch: Option<String>,
}

/// The summaries that were looked at lately.
#[derive(Default)]
pub struct KnownFailures(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// Those looked at last at the end.
    summaries: VecDeque<(Seen, Arc<TestSummary>)>,
    bytes: usize,
}

impl KnownFailures {
    /// The summary that follows from this, if it is kept.
    pub fn find(&self, seen: &Seen) -> Option<Arc<TestSummary>> {
        let mut kept = self.kept();
        let index = kept.summaries.iter().position(|(known, _)| known == seen)?;
        let found = kept.summaries.remove(index)?;
        let summary = Arc::clone(&found.1);
        kept.summaries.push_back(found);
        Some(summary)
    }

    /// Keeps a summary in the place of an older one of its build, unless it is very large.
    pub fn keep(&self, seen: Seen, summary: &Arc<TestSummary>) {
        let mut kept = self.kept();
        while let Some(index) = kept.summaries.iter().position(|(known, _)| known.build == seen.build) {
            kept.take_away(index);
        }
        if bytes(summary) > BYTES_KEPT / 4 {
            return;
        }
        kept.bytes += bytes(summary);
        kept.summaries.push_back((seen, Arc::clone(summary)));
        while kept.bytes > BYTES_KEPT || kept.summaries.len() > SUMMARIES_KEPT {
            kept.take_away(0);
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        lock(&self.0)
    }
}

impl Kept {
    fn take_away(&mut self, index: usize) {
        if let Some((_, summary)) = self.summaries.remove(index) {
            self.bytes -= bytes(&summary);
        }
    }
}

fn bytes(summary: &TestSummary) -> usize {
    let failing = summary.failures.iter().map(|failure| &failure.test);
    let tests = failing.chain(&summary.unsteady).chain(&summary.slowest);
    tests.map(|test| TEST_BYTES + test.suite.len() + test.name.len() + test.message.len() + test.output.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(build: u64, facts: u64) -> Seen {
        let version = vec![(BuildId(build), facts)];
        Seen { build: BuildId(build), before: version.clone(), newest: version, default_branch: None }
    }

    #[test]
    fn a_summary_is_found_while_nothing_changed() {
        let known = KnownFailures::default();
        let summary = Arc::new(TestSummary {
            build: BuildId(1),
            passed: 1,
            failed: 0,
            skipped: 0,
            quarantined: 0,
            compared: Vec::new(),
            failures: Vec::new(),
            failures_left_off: 0,
            unsteady: Vec::new(),
            never_run: Vec::new(),
            slowest: Vec::new(),
        });
        known.keep(seen(1, 5), &summary);
        assert!(known.find(&seen(1, 5)).is_some() && known.find(&seen(1, 6)).is_none());
        let renamed = Seen { default_branch: Some("main".to_owned()), ..seen(1, 5) };
        assert!(known.find(&renamed).is_none());
        // One for each build.
        known.keep(seen(1, 6), &summary);
        assert!(known.find(&seen(1, 5)).is_none() && known.find(&seen(1, 6)).is_some());
        for build in 2..=SUMMARIES_KEPT as u64 {
            known.keep(seen(build, 1), &summary);
        }
        assert!(known.find(&seen(1, 6)).is_some());
        known.keep(seen(1000, 1), &summary);
        // The one that was not looked at for the longest time has gone.
        assert!(known.find(&seen(2, 1)).is_none() && known.find(&seen(1, 6)).is_some());
    }
}
