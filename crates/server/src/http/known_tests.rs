//! What builds reported of their tests, kept for who reads it again: a page of tests looks at many builds before its own, and a report
//! is written once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use graph::{AttemptNumber, BuildId};
use store::rows::TestRow;
use store::{Store, StoreError};

use crate::lock::lock;

/// How many tests are kept, of how many builds.
const TESTS_KEPT: usize = 40_000;
const BUILDS_KEPT: usize = 1_000;
/// How many characters of a message are kept.
pub const MESSAGE_CHARS_MAX: usize = 1_000;

/// A build with how many of its attempts reported tests, and the last of them: another try makes another name.
type Name = (BuildId, usize, AttemptNumber);

/// The tests of builds that were looked at lately, without what they printed.
#[derive(Default)]
pub struct KnownTests(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// Those looked at last at the end.
    builds: VecDeque<(Name, Arc<[TestRow]>)>,
    tests: usize,
}

impl KnownTests {
    /// All tests that attempts of a build reported, by attempt: messages cut, without what they printed. Blocks.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn of(&self, store: &dyn Store, build: BuildId) -> Result<Arc<[TestRow]>, StoreError> {
        let attempts = store.attempts(build, None)?;
        let reported = attempts.iter().filter(|row| row.ended.as_ref().is_some_and(|end| end.tests > 0));
        let (n_reported, last) = reported.fold((0, AttemptNumber(0)), |(n, last), row| (n + 1, last.max(row.attempt)));
        if n_reported == 0 {
            return Ok(Arc::default());
        }
        let name = (build, n_reported, last);
        if let Some(found) = self.kept().find(name) {
            return Ok(found);
        }
        let mut rows = store.tests(build)?;
        for row in &mut rows {
            row.case.output = String::new();
            if let Some((end, _)) = row.case.message.char_indices().nth(MESSAGE_CHARS_MAX) {
                row.case.message.truncate(end);
                row.case.message.shrink_to_fit();
            }
        }
        let rows: Arc<[TestRow]> = rows.into();
        self.kept().keep(name, &rows);
        Ok(rows)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        lock(&self.0)
    }
}

impl Kept {
    fn find(&mut self, name: Name) -> Option<Arc<[TestRow]>> {
        let index = self.builds.iter().position(|(known, _)| *known == name)?;
        let found = self.builds.remove(index)?;
        let rows = Arc::clone(&found.1);
        self.builds.push_back(found);
        Some(rows)
    }

    /// Keeps these too, and of all others as many as there is room for. More than fit are not kept.
    fn keep(&mut self, name: Name, rows: &Arc<[TestRow]>) {
        if rows.len() > TESTS_KEPT {
            return;
        }
        // Two readers may have read them at once.
        if self.find(name).is_some() {
            self.take_away(self.builds.len() - 1);
        }
        self.tests += rows.len();
        self.builds.push_back((name, Arc::clone(rows)));
        while self.tests > TESTS_KEPT || self.builds.len() > BUILDS_KEPT {
            self.take_away(0);
        }
    }

    fn take_away(&mut self, index: usize) {
        if let Some((_, rows)) = self.builds.remove(index) {
            self.tests -= rows.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use graph::asked::Extent;
    use graph::{TestCase, TestOutcome};

    use super::*;

    fn rows(count: usize) -> Arc<[TestRow]> {
        let case = TestCase {
            suite: "s".to_owned(),
            name: "t".to_owned(),
            outcome: TestOutcome::Passed,
            duration_ms: 1,
            message: String::new(),
            output: String::new(),
        };
        vec![TestRow { attempt: AttemptNumber(1), job: "a".into(), extent: Extent::Whole, case }; count].into()
    }

    #[test]
    fn what_was_looked_at_last_is_kept_within_its_bounds() {
        let name = |build: u64| (BuildId(build), 1, AttemptNumber(1));
        let mut kept = Kept::default();
        for build in 1..=4 {
            kept.keep(name(build), &rows(TESTS_KEPT / 4));
        }
        assert!(kept.find(name(1)).is_some());
        kept.keep(name(5), &rows(1));
        // The one that was not looked at again for the longest time has gone.
        assert_eq!((kept.find(name(2)), kept.tests), (None, TESTS_KEPT / 4 * 3 + 1));
        assert!(kept.find(name(1)).is_some());
        kept.keep(name(5), &rows(1));
        assert_eq!((kept.builds.len(), kept.tests), (4, TESTS_KEPT / 4 * 3 + 1));
        kept.keep(name(6), &rows(TESTS_KEPT + 1));
        assert!(kept.find(name(6)).is_none() && kept.find(name(5)).is_some());
        // Another try is another name.
        assert!(kept.find((BuildId(5), 2, AttemptNumber(2))).is_none());
        for build in 10..10 + 2 * BUILDS_KEPT as u64 {
            kept.keep(name(build), &rows(1));
        }
        assert_eq!((kept.builds.len(), kept.tests), (BUILDS_KEPT, BUILDS_KEPT));
    }
}
