//! What is known of a job's tests over its attempts, and which of them ran when it last passed whole.

use std::collections::{BTreeMap, BTreeSet};

use super::{AskedTests, NeverRun, TestName, Unaskable, no_attempt};
use crate::attempt::{AttemptReport, TestCase, TestOutcome};
use crate::name::{AttemptNumber, BuildId};

/// How much of its tests an attempt was to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All.
    Whole,
    /// Some.
    Part,
}

/// The newest result of each test of one job, over its attempts.
///
/// What a partial attempt says to have skipped counts for nothing if the test has another result: runners report so what
/// they were told to leave out. Of a test that one attempt reported more than once the worst result counts.
#[derive(Clone, Debug)]
pub struct KnownTests {
    pub(super) tests: BTreeMap<TestName, (AttemptNumber, TestOutcome)>,
    of: u64,
    pub(super) last: AttemptNumber,
    ran_whole: Option<RanWhole>,
    pub(super) is_cut: bool,
}

/// The tests that ran when a job last passed whole.
#[derive(Clone, Debug)]
pub struct RanWhole {
    build: BuildId,
    tests: BTreeSet<TestName>,
    n_unnamed: u64,
}

impl RanWhole {
    /// Those of the report of an attempt of `build`, of at most `tests_max` tests: one with so many may have been cut, so there may be
    /// more than it names. What it skipped did not run.
    #[must_use]
    pub fn new(build: BuildId, reported: &[TestCase], tests_max: usize) -> Self {
        let ran = reported.iter().filter(|case| case.outcome != TestOutcome::Skipped);
        Self { build, tests: ran.map(TestName::from).collect(), n_unnamed: u64::from(reported.len() >= tests_max) }
    }

    /// The same, if there may be more than it names.
    #[must_use]
    pub fn and_more(self) -> Self {
        Self { n_unnamed: 1, ..self }
    }
}

impl Default for KnownTests {
    fn default() -> Self {
        Self { tests: BTreeMap::new(), of: 0, last: no_attempt(), ran_whole: None, is_cut: false }
    }
}

impl KnownTests {
    /// What is known of a job whose attempts were asked for `asked`, before anything is known of those: what was asked for
    /// has not passed, what failed before has failed, and what had not run has not.
    #[must_use]
    pub fn before(asked: &AskedTests) -> Self {
        let tests = asked.tests.iter().chain(&asked.others_failed);
        let tests = tests.map(|test| (test.clone(), (AttemptNumber(0), TestOutcome::Failed))).collect();
        let ran_whole = asked.never_run.as_ref().map(|never_run| RanWhole {
            build: never_run.passed_in,
            tests: never_run.tests.iter().cloned().collect(),
            n_unnamed: never_run.count.saturating_sub(never_run.tests.len() as u64),
        });
        Self { tests, of: asked.of, last: no_attempt(), ran_whole, is_cut: false }
    }

    /// With which tests these are compared.
    pub fn compare(&mut self, ran_whole: RanWhole) {
        self.ran_whole = Some(ran_whole);
    }

    /// What ran when the job last passed whole and not since, but for `asked`, which are sorted. What was only reported as skipped did
    /// not run: so some runners call what they never came to.
    #[must_use]
    pub fn never_run(&self, asked: &[TestName]) -> Option<NeverRun> {
        let whole = self.ran_whole.as_ref()?;
        let has_run =
            |test: &TestName| self.tests.get(test).is_some_and(|(_, outcome)| *outcome != TestOutcome::Skipped);
        let never = whole.tests.iter().filter(|test| !has_run(test) && asked.binary_search(test).is_err());
        Some(NeverRun::of(whole.build, never, whole.n_unnamed))
    }

    /// There was this attempt, whether it reported tests or not.
    pub fn saw(&mut self, attempt: AttemptNumber) {
        self.last = self.last.max(attempt);
    }

    /// Takes in whether tests of an attempt's reports are missing. Attempts come in order of their numbers: one of all tests whose
    /// reports were read whole tells what those before it did not.
    pub fn heed_cut(&mut self, report: &AttemptReport) {
        let tells_all = report.partial.is_none() && !report.tests.is_empty();
        self.is_cut = report.tests_cut || (self.is_cut && !tells_all);
    }

    /// Takes in what an attempt reported of a test. Attempts come in order of their numbers.
    pub fn add(&mut self, attempt: AttemptNumber, extent: Extent, case: &TestCase) {
        self.saw(attempt);
        let name = TestName::from(case);
        match self.tests.get_mut(&name) {
            Some((last, known)) if *last == attempt && !is_worse(case.outcome, *known) => {}
            Some((last, _)) if *last != attempt && !replaces(extent, case.outcome) => {}
            Some(known) => *known = (attempt, case.outcome),
            None => drop(self.tests.insert(name, (attempt, case.outcome))),
        }
    }

    /// The tests that failed, sorted.
    pub fn failed(&self) -> impl Iterator<Item = &TestName> {
        let is_failed = |outcome| matches!(outcome, TestOutcome::Failed | TestOutcome::Errored);
        self.tests.iter().filter(move |(_, (_, outcome))| is_failed(*outcome)).map(|(name, _)| name)
    }

    /// How many tests there are.
    pub(super) fn of(&self) -> u64 {
        self.of.max(self.tests.len() as u64)
    }

    /// The test of this name, among those that have not run too.
    pub(super) fn named(&self, text: &str) -> Result<TestName, Unaskable> {
        let ran_whole = self.ran_whole.as_ref().map(|whole| &whole.tests);
        if let Some((suite, name)) = text.split_once('\t') {
            let exact = TestName { suite: suite.to_owned(), name: name.to_owned() };
            return match self.tests.contains_key(&exact) || ran_whole.is_some_and(|ran| ran.contains(&exact)) {
                true => Ok(exact),
                false => Err(Unaskable::Unknown(exact.to_string())),
            };
        }
        let others = ran_whole.into_iter().flatten().filter(|test| !self.tests.contains_key(*test));
        let known = self.tests.keys().chain(others);
        let mut fitting = known.filter(|test| {
            let of_both = || text.strip_prefix(test.suite.as_str()).and_then(|rest| rest.strip_prefix(' '));
            test.name == text || of_both() == Some(test.name.as_str())
        });
        match (fitting.next(), fitting.next()) {
            (Some(test), None) => Ok(test.clone()),
            (None, _) => Err(Unaskable::Unknown(text.to_owned())),
            (Some(one), Some(other)) => Err(Unaskable::Ambiguous(text.to_owned(), one.clone(), other.clone())),
        }
    }
}

/// Whether a later attempt's result of a test takes the place of an earlier attempt's.
#[must_use]
pub fn replaces(extent: Extent, outcome: TestOutcome) -> bool {
    extent == Extent::Whole || outcome != TestOutcome::Skipped
}

fn is_worse(outcome: TestOutcome, known: TestOutcome) -> bool {
    let weight = |outcome| match outcome {
        TestOutcome::Skipped => 0,
        TestOutcome::Passed => 1,
        TestOutcome::Failed => 2,
        TestOutcome::Errored => 3,
    };
    weight(outcome) > weight(known)
}
