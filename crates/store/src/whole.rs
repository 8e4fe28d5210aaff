//! What ran when jobs last passed whole: with it the tests of a retry of single tests are compared.

use std::collections::{BTreeMap, BTreeSet};

use engine::report::TESTS_MAX;
use graph::asked::RanWhole;
use graph::{BuildId, JobName, Outcome};

use crate::rows::AttemptRow;
use crate::{Store, StoreError};

/// What each of these jobs ran in its last attempt that passed whole and reported tests, in the first of these builds that has one. A
/// job without one is left out; no build is looked at once all jobs are found.
///
/// # Errors
/// As the medium refuses.
pub fn ran_whole(
    store: &dyn Store,
    builds: impl IntoIterator<Item = BuildId>,
    mut jobs: BTreeSet<JobName>,
) -> Result<BTreeMap<JobName, RanWhole>, StoreError> {
    let mut found = BTreeMap::new();
    for build in builds {
        if jobs.is_empty() {
            break;
        }
        for attempt in store.attempts(build, None)?.iter().rev().filter(|attempt| has_passed(attempt)) {
            if !jobs.contains(&attempt.job) {
                continue;
            }
            let reports = store.reports(build, Some(&attempt.job))?;
            let report = reports.iter().find(|(number, _)| *number == attempt.attempt).map(|(_, report)| report);
            if let Some(report) = report.filter(|report| report.partial.is_none()) {
                jobs.remove(&attempt.job);
                let ran = RanWhole::new(build, &report.tests, TESTS_MAX);
                found.insert(attempt.job.clone(), if report.tests_cut { ran.and_more() } else { ran });
            }
        }
    }
    Ok(found)
}

fn has_passed(attempt: &AttemptRow) -> bool {
    attempt.ended.as_ref().is_some_and(|end| end.tests > 0 && matches!(end.outcome, Outcome::Passed { .. }))
}
