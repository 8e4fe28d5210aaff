//! Tests to which a retry of a job is narrowed: which they are, what is known of the others, and whether a report holds what
//! was asked for. A job never becomes green because of what was not run.

mod known_tests;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::known_tests::{Extent, KnownTests, RanWhole, replaces};
use crate::attempt::{TestCase, TestOutcome};
use crate::name::{AttemptNumber, BuildId};

/// A test of a job, as its JUnit report names it. Tests are the same across attempts and builds if suite and name are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TestName {
    /// The suite or class; empty if the report names none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub suite: String,
    /// Its name within the suite.
    pub name: String,
}

impl TestName {
    /// The test's line in [`AskedTests::VARIABLE`]: suite, tab, name.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{}\t{}", self.suite, self.name)
    }

    /// Whether suite and name can stand in a line: neither holds a tab or what ends lines or variables.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        !self.name.is_empty() && !self.suite.chars().chain(self.name.chars()).any(|letter| "\t\n\r\0".contains(letter))
    }
}

/// As pages show it: suite and name, or the name alone.
impl fmt::Display for TestName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.suite.as_str() {
            "" => formatter.write_str(&self.name),
            suite => write!(formatter, "{suite} {}", self.name),
        }
    }
}

impl From<&TestCase> for TestName {
    fn from(case: &TestCase) -> Self {
        Self { suite: case.suite.clone(), name: case.name.clone() }
    }
}

/// The tests that a retry of a job is asked for, and what must be known to judge it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedTests {
    /// Which, sorted, none twice: 1 to [`AskedTests::TESTS_MAX`].
    pub tests: Vec<TestName>,
    /// The tests that failed before and are not asked for, sorted: at most [`AskedTests::TESTS_MAX`]. The job does not pass
    /// unless they pass as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others_failed: Vec<TestName>,
    /// How many tests the job has reported so far, those asked for among them.
    pub of: u64,
    /// The last attempt of the job of which this knows. Of a retry within a build nothing comes if there is a later one: it may have
    /// failed where this one did not.
    #[serde(default = "no_attempt")]
    pub after: AttemptNumber,
    /// What ran when the job last passed whole and has not run this time. `None` if nothing is known with which to compare; facts of
    /// versions that did not compare lack it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub never_run: Option<NeverRun>,
}

/// Tests that ran when a job last passed whole, and not since: a runner that stops at its first failure leaves them out of its
/// report. The job does not pass unless they pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeverRun {
    /// The build in which the job passed whole.
    pub passed_in: BuildId,
    /// How many they are.
    pub count: u64,
    /// The first of them, sorted, none twice: at most [`AskedTests::TESTS_MAX`], of [`AskedTests::BYTES_MAX`] together. If there are
    /// more, only the whole job can pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<TestName>,
}

impl NeverRun {
    fn of<'t>(passed_in: BuildId, tests: impl Iterator<Item = &'t TestName>, n_unnamed: u64) -> Self {
        let mut never_run = Self { passed_in, count: n_unnamed, tests: Vec::new() };
        let mut bytes = 0;
        for test in tests {
            never_run.count += 1;
            bytes += size(test);
            if never_run.tests.len() < AskedTests::TESTS_MAX && bytes <= AskedTests::BYTES_MAX {
                never_run.tests.push(test.clone());
            }
        }
        never_run
    }

    /// What of it keeps the job from passing, for people; `None` if `has_passed` holds for all.
    fn missing(&self, has_passed: impl Fn(&TestName) -> bool) -> Option<String> {
        let n_passed = self.tests.iter().filter(|test| has_passed(test)).count() as u64;
        let n = self.count.max(self.tests.len() as u64) - n_passed;
        let first = self.tests.iter().find(|test| !has_passed(test));
        let among = first.map_or_else(String::new, |test| format!(", `{test}` among them"));
        (n > 0).then(|| {
            format!(
                "{n} test{} ran when the job last passed whole, in build {}, ha{} not passed this time{among}: retry the job whole, \
                 also if tests were removed or renamed",
                if n == 1 { " that" } else { "s that" },
                self.passed_in,
                if n == 1 { "s" } else { "ve" },
            )
        })
    }
}

/// As it is told before the tests run.
impl fmt::Display for NeverRun {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed_in, count, tests } = self;
        let (ends, have) = if *count == 1 { ("", "has") } else { ("s", "have") };
        write!(
            formatter,
            "{count} test{ends} that ran when it last passed whole, in build {passed_in}, {have} not run this time"
        )?;
        if let [first, ..] = &**tests {
            write!(formatter, ", `{first}` among them")?;
        }
        formatter.write_str(": unless they run too, only a retry of the whole job can pass")
    }
}

/// The bytes of a test's line.
fn size(test: &TestName) -> usize {
    test.suite.len() + test.name.len() + 2
}

fn no_attempt() -> AttemptNumber {
    AttemptNumber(0)
}

/// How much of a job's tests an attempt was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// How many tests it was asked for.
    pub asked: u64,
    /// How many the job had reported before.
    pub of: u64,
}

impl fmt::Display for Partial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {} test{}", self.asked, self.of, if self.of == 1 { "" } else { "s" })
    }
}

/// Which tests somebody wants to run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All that failed.
    Failing,
    /// These: each as its line, or as its name or its suite and name with a blank between them if that is one test's only.
    Named(Vec<String>),
}

/// Why a retry cannot be narrowed to tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unaskable {
    /// The job declares no `reports`, so nothing would tell whether the tests passed.
    NoReports,
    /// No test is named.
    NothingNamed,
    /// No test of the job failed.
    NoneFailed,
    /// There may be tests that failed of which nothing is known: reports were too long, or could not be read to their end.
    Cut,
    /// The job reported no test of this name.
    Unknown(String),
    /// Several tests have this name.
    Ambiguous(String, TestName, TestName),
    /// There are more tests than one retry is asked for.
    TooMany(usize),
    /// More tests failed before than a retry may leave out.
    TooManyOthers(usize),
    /// The names are longer than the variable may be.
    TooLong(usize),
    /// The test cannot be named in one line.
    Unwritable(TestName),
}

impl Unaskable {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::NoReports => {
                "let the job name its JUnit files (`reports: { junit: … }`), or retry the job whole; what it reported can be \
                 asked for once it has"
            }
            Self::NothingNamed => "choose at least one test, or retry the job whole",
            Self::NoneFailed | Self::Cut => "retry the job whole",
            Self::Unknown(_) => "name it as its report does, or retry the job whole",
            Self::Ambiguous(..) => "say its suite too",
            Self::TooMany(_) | Self::TooManyOthers(_) | Self::TooLong(_) | Self::Unwritable(_) => "retry the job whole",
        }
    }
}

impl fmt::Display for Unaskable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tests_max, bytes_max) = (AskedTests::TESTS_MAX, AskedTests::BYTES_MAX);
        match self {
            Self::NoReports => {
                formatter.write_str("the job declares no `reports`, so nothing tells whether single tests passed")
            }
            Self::NothingNamed => formatter.write_str("no test is named"),
            Self::NoneFailed => formatter.write_str("the job reported no test that failed"),
            Self::Cut => formatter.write_str(
                "its reports were not read whole, as the notes of its attempts say, so there may be other tests that failed",
            ),
            Self::Unknown(name) => write!(formatter, "the job reported no test `{name}`"),
            Self::Ambiguous(name, one, other) => {
                write!(formatter, "`{name}` is more than one test: `{one}` and `{other}`")
            }
            Self::TooMany(n) => {
                write!(formatter, "{n} tests are too many for a retry of single tests: the most is {tests_max}")
            }
            Self::TooManyOthers(n) => {
                write!(
                    formatter,
                    "{n} other tests failed before, which is too many to leave out: the most is {tests_max}"
                )
            }
            Self::TooLong(bytes) => {
                write!(
                    formatter,
                    "the names of the tests have {bytes} bytes; the most that a retry takes is {bytes_max}"
                )
            }
            Self::Unwritable(test) => {
                write!(formatter, "the test {:?} has no name that stands in one line", test.to_string())
            }
        }
    }
}

impl std::error::Error for Unaskable {}

impl AskedTests {
    /// The variable that names the tests to the steps of an attempt, one line each ([`TestName::line`]), without an end of
    /// line after the last.
    pub const VARIABLE: &'static str = "ROPEWALK_TESTS";

    /// The most tests of one retry, and the most that failed before and are not asked for.
    pub const TESTS_MAX: usize = 1000;

    /// The most bytes of [`AskedTests::VARIABLE`], and of the names of the tests that are not asked for. Linux takes
    /// 128 KiB for one variable (`MAX_ARG_STRLEN`).
    pub const BYTES_MAX: usize = 64 << 10;

    /// What is said of an attempt that passed though nothing is known with which to compare its tests.
    pub const UNCOMPARED: &'static str = "nothing tells whether there are tests that were never run: no earlier attempt is known in \
        which the job passed whole and reported tests; if its runner stops at the first failure, retry the job whole";

    /// What is wanted of `known`.
    ///
    /// # Errors
    /// [`Unaskable`], with what to do.
    pub fn choose(known: &KnownTests, wanted: &Wanted) -> Result<Self, Unaskable> {
        let tests = match wanted {
            Wanted::Failing => known.failed().cloned().collect(),
            Wanted::Named(names) if names.is_empty() => return Err(Unaskable::NothingNamed),
            Wanted::Named(names) if names.len() > Self::TESTS_MAX => return Err(Unaskable::TooMany(names.len())),
            Wanted::Named(names) => {
                let mut tests = names.iter().map(|name| known.named(name)).collect::<Result<Vec<_>, _>>()?;
                tests.sort();
                tests.dedup();
                tests
            }
        };
        if tests.is_empty() {
            return Err(Unaskable::NoneFailed);
        }
        if known.is_cut {
            return Err(Unaskable::Cut);
        }
        let others_failed = known.failed().filter(|test| tests.binary_search(test).is_err()).cloned().collect();
        let never_run = known.never_run(&tests);
        let asked = Self { tests, others_failed, of: known.of(), after: known.last, never_run };
        asked.check()?;
        Ok(asked)
    }

    /// Whether it is within the bounds, as what [`AskedTests::choose`] gives is.
    ///
    /// # Errors
    /// Says what is not.
    pub fn check(&self) -> Result<(), Unaskable> {
        let bytes = |tests: &[TestName]| tests.iter().map(size).sum::<usize>();
        let never_run = self.never_run.as_ref().map_or(&[][..], |never_run| &never_run.tests);
        match self {
            Self { tests, .. } if tests.is_empty() => Err(Unaskable::NothingNamed),
            Self { tests, .. } if tests.len() > Self::TESTS_MAX => Err(Unaskable::TooMany(tests.len())),
            Self { others_failed, .. } if others_failed.len() > Self::TESTS_MAX => {
                Err(Unaskable::TooManyOthers(others_failed.len()))
            }
            _ if never_run.len() > Self::TESTS_MAX => Err(Unaskable::TooManyOthers(never_run.len())),
            Self { tests, others_failed, .. } => {
                let longest = bytes(tests).max(bytes(others_failed)).max(bytes(never_run));
                let unwritable = tests.iter().find(|test| !test.is_writable());
                match unwritable {
                    Some(test) => Err(Unaskable::Unwritable(test.clone())),
                    None if longest > Self::BYTES_MAX => Err(Unaskable::TooLong(longest)),
                    None => Ok(()),
                }
            }
        }
    }

    /// The value of [`AskedTests::VARIABLE`].
    #[must_use]
    pub fn variable(&self) -> String {
        let lines: Vec<String> = self.tests.iter().map(TestName::line).collect();
        lines.join("\n")
    }

    /// How much of the job's tests this is.
    #[must_use]
    pub fn partial(&self) -> Partial {
        Partial { asked: self.tests.len() as u64, of: self.of }
    }

    /// What the next try by itself is asked for, after one that reported this: the same tests, and of the others those that failed now
    /// count as failed, those that passed no longer. At the bounds the last of those that failed are left out.
    #[must_use]
    pub fn after(&self, reported: &[TestCase]) -> Self {
        let mut known = KnownTests::default();
        for case in reported {
            known.add(AttemptNumber(0), Extent::Part, case);
        }
        let found = |test: &TestName| known.tests.get(test).map(|(_, outcome)| *outcome);
        let has_passed = |test: &TestName| found(test) == Some(TestOutcome::Passed);
        let before = self.others_failed.iter().filter(|test| !has_passed(test));
        let now = known.failed().filter(|test| self.tests.binary_search(test).is_err());
        let others: BTreeSet<&TestName> = before.chain(now).collect();
        let mut bytes = 0;
        let fits = |test: &&TestName| {
            bytes += size(test);
            bytes <= Self::BYTES_MAX
        };
        let others_failed = others.into_iter().take(Self::TESTS_MAX).take_while(fits).cloned().collect();
        let never_run = self.never_run.as_ref().map(|never_run| {
            let has_run = |test: &TestName| found(test).is_some_and(|outcome| outcome != TestOutcome::Skipped);
            let tests: Vec<TestName> = never_run.tests.iter().filter(|test| !has_run(test)).cloned().collect();
            let n_run = (never_run.tests.len() - tests.len()) as u64;
            NeverRun { passed_in: never_run.passed_in, count: never_run.count.saturating_sub(n_run), tests }
        });
        Self { tests: self.tests.clone(), others_failed, never_run, ..*self }
    }

    /// Whether the tests of an attempt's report make an attempt pass whose steps passed: each test asked for passed, and
    /// so did those that failed before and those that had not run. A test that is reported twice passes if it never failed.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn confirm(&self, reported: &[TestCase]) -> Result<(), String> {
        let mut known = KnownTests::default();
        for case in reported {
            known.add(AttemptNumber(0), Extent::Whole, case);
        }
        let n = self.tests.len();
        let asked_for = format!("the retry was asked for {n} test{}", if n == 1 { "" } else { "s" });
        let found = |test: &TestName| known.tests.get(test).map(|(_, outcome)| *outcome);
        let missing: Vec<&TestName> = self.tests.iter().filter(|test| found(test).is_none()).collect();
        if let [first, more @ ..] = &*missing {
            return Err(format!("{asked_for}; {} not in its reports", are(first, more.len())));
        }
        let not_passed: Vec<&TestName> =
            self.tests.iter().filter(|test| found(test) != Some(TestOutcome::Passed)).collect();
        if let [first, more @ ..] = &*not_passed {
            return Err(format!("{asked_for}; {} not reported as passed", are(first, more.len())));
        }
        let has_passed = |test: &TestName| found(test) == Some(TestOutcome::Passed);
        let others: Vec<&TestName> = self.others_failed.iter().filter(|test| !has_passed(test)).collect();
        let mut missing = Vec::new();
        if let [first, ..] = &*others {
            missing.push(format!(
                "{} other test{} of the job failed before and {} not asked for, `{first}` among them",
                others.len(),
                if others.len() == 1 { "" } else { "s" },
                if others.len() == 1 { "was" } else { "were" },
            ));
        }
        missing.extend(self.never_run.as_ref().and_then(|never_run| never_run.missing(has_passed)));
        if missing.is_empty() { Ok(()) } else { Err(format!("{asked_for}, which passed; {}", missing.join("; "))) }
    }
}

/// A test and how many more, with their verb.
fn are(first: &TestName, n_more: usize) -> String {
    match n_more {
        0 => format!("`{first}` was"),
        1 => format!("`{first}` and 1 more were"),
        n => format!("`{first}` and {n} more were"),
    }
}

#[cfg(test)]
mod tests {
    use super::{AskedTests, Extent, KnownTests, Partial, RanWhole, TestName, Unaskable, Wanted};
    use crate::attempt::{AttemptReport, TestCase, TestOutcome};
    use crate::name::{AttemptNumber, BuildId};
    use crate::{Outcome, Timestamp};

    /// Tests as words: `suite.name` and how it ended as `+` passed, `-` failed, `!` errored, `~` skipped.
    fn cases(text: &str) -> Vec<TestCase> {
        let case = |word: &str| {
            let (sign, path) = word.split_at(1);
            let (suite, name) = path.split_once('.').unwrap_or(("", path));
            let outcome = match sign {
                "+" => TestOutcome::Passed,
                "-" => TestOutcome::Failed,
                "!" => TestOutcome::Errored,
                "~" => TestOutcome::Skipped,
                other => panic!("no sign `{other}`"),
            };
            let (message, output) = Default::default();
            TestCase { suite: suite.to_owned(), name: name.to_owned(), outcome, duration_ms: 0, message, output }
        };
        text.split_whitespace().map(case).collect()
    }

    /// Attempts between `;`, a partial one begins with `part`.
    fn known(attempts: &str) -> KnownTests {
        let mut known = KnownTests::default();
        for (number, text) in (1..).zip(attempts.split(';')) {
            let (extent, text) = match text.trim().strip_prefix("part") {
                Some(text) => (Extent::Part, text),
                None => (Extent::Whole, text),
            };
            cases(text).iter().for_each(|case| known.add(AttemptNumber(number), extent, case));
        }
        known
    }

    fn named(names: &[&str]) -> Wanted {
        Wanted::Named(names.iter().map(|&name| name.to_owned()).collect())
    }

    fn shown(asked: Result<AskedTests, Unaskable>) -> String {
        let words = |tests: &[TestName]| tests.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match asked {
            Ok(asked) => format!("{}; {}; of {}", words(&asked.tests), words(&asked.others_failed), asked.of),
            Err(fault) => fault.to_string(),
        }
    }

    #[track_caller]
    fn check(attempts: &str, wanted: &Wanted, expected: &str) {
        assert_eq!(shown(AskedTests::choose(&known(attempts), wanted)), expected);
    }

    #[test]
    fn what_failed_last_is_asked_for() {
        check("+s.a -s.b !s.c ~s.d", &Wanted::Failing, "s b, s c; ; of 4");
        check("-a -b; part +a ~b", &Wanted::Failing, "b; ; of 2");
        check("-a -b; +a ~b", &Wanted::Failing, "the job reported no test that failed");
        check("-a +a +b", &Wanted::Failing, "a; ; of 2");
        check("", &Wanted::Failing, "the job reported no test that failed");
    }

    #[test]
    fn tests_are_named_by_line_name_or_both() {
        check("-s.a -t.a -s.b", &named(&["s\ta", "b", "s b"]), "s a, s b; t a; of 3");
        check("-s.a -t.a", &named(&["a"]), "`a` is more than one test: `s a` and `t a`");
        check("-s.a", &named(&["z"]), "the job reported no test `z`");
        check("-s.a", &named(&["\ta"]), "the job reported no test `a`");
        check("-s.a", &named(&[]), "no test is named");
        check("-a -b; part +a", &named(&["a"]), "a; b; of 2");
    }

    #[test]
    fn bounds_are_told() {
        let many: String = (0..=AskedTests::TESTS_MAX).map(|n| format!("-t{n} ")).collect();
        let too_many = "1001 tests are too many for a retry of single tests: the most is 1000";
        check(&many, &Wanted::Failing, too_many);
        check(&many, &Wanted::Named(vec!["t1".to_owned(); AskedTests::TESTS_MAX + 1]), too_many);
        check(
            &format!("{many} -x"),
            &named(&["x"]),
            "1001 other tests failed before, which is too many to leave out: the most is 1000",
        );
        let long = format!("-{}", "n".repeat(AskedTests::BYTES_MAX));
        check(&long, &Wanted::Failing, "the names of the tests have 65538 bytes; the most that a retry takes is 65536");
        let mut broken = known("-a");
        broken.add(AttemptNumber(1), Extent::Whole, &TestCase { name: "x\ny".to_owned(), ..cases("-x").remove(0) });
        let fault = AskedTests::choose(&broken, &Wanted::Failing).unwrap_err();
        assert_eq!(
            (fault.to_string().as_str(), fault.help()),
            (r#"the test "x\ny" has no name that stands in one line"#, "retry the job whole")
        );
    }

    #[test]
    fn the_variable_has_a_line_for_each() {
        let asked = AskedTests::choose(&known("-s.b -s.a -c +d"), &Wanted::Failing).unwrap();
        assert_eq!(asked.variable(), "\tc\ns\ta\ns\tb");
        assert_eq!(asked.partial().to_string(), "3 of 4 tests");
    }

    #[track_caller]
    fn confirm(before: &str, wanted: &Wanted, reported: &str, expected: Result<(), &str>) {
        let asked = AskedTests::choose(&known(before), wanted).unwrap();
        assert_eq!(asked.confirm(&cases(reported)), expected.map_err(str::to_owned));
    }

    #[test]
    fn only_reports_of_what_was_asked_for_make_it_pass() {
        confirm("-s.a -b +c", &Wanted::Failing, "+s.a +b", Ok(()));
        confirm("-s.a -b +c", &Wanted::Failing, "+s.a +b -c", Ok(()));
        confirm(
            "-s.a -b",
            &Wanted::Failing,
            "+b +t.a",
            Err("the retry was asked for 2 tests; `s a` was not in its reports"),
        );
        let none = "the retry was asked for 3 tests; `a` and 2 more were not in its reports";
        confirm("-a -b -c", &Wanted::Failing, "", Err(none));
        confirm("-a", &Wanted::Failing, "~a", Err("the retry was asked for 1 test; `a` was not reported as passed"));
        confirm("-a", &Wanted::Failing, "-a +a", Err("the retry was asked for 1 test; `a` was not reported as passed"));
        let others = "the retry was asked for 1 test, which passed; 2 other tests of the job failed before and were not asked for, `b` among them";
        confirm("-a -b -c", &named(&["a"]), "+a", Err(others));
        confirm("-a -b -c", &named(&["a"]), "+a +b +c", Ok(()));
    }

    #[test]
    fn what_was_asked_for_before_counts_as_failed_until_it_is_reported() {
        let asked = AskedTests::choose(&known("-a -b +c"), &named(&["a"])).unwrap();
        let mut after = KnownTests::before(&asked);
        assert_eq!(shown(AskedTests::choose(&after, &Wanted::Failing)), "a, b; ; of 3");
        after.add(AttemptNumber(1), Extent::Part, &cases("+a")[0]);
        assert_eq!(shown(AskedTests::choose(&after, &named(&["a"]))), "a; b; of 3");
    }

    /// What is known after these attempts, compared with a report of build 7 in which the job passed whole.
    fn compared(attempts: &str, whole: &str) -> KnownTests {
        let mut known = known(attempts);
        known.compare(RanWhole::new(BuildId(7), &cases(whole), AskedTests::TESTS_MAX + 100));
        known
    }

    #[track_caller]
    fn judge(known: &KnownTests, wanted: &Wanted, reported: &str, expected: Result<(), &str>) {
        let asked = AskedTests::choose(known, wanted).unwrap();
        assert_eq!(asked.confirm(&cases(reported)), expected.map_err(str::to_owned));
    }

    #[test]
    fn a_job_whose_reports_were_cut_is_retried_whole() {
        // As `known`, of attempts whose reports were cut if they begin with `cut`.
        let check = |attempts: &str, wanted: &Wanted, expected: &str| {
            let mut known = KnownTests::default();
            for (number, text) in (1..).zip(attempts.split(';')) {
                let (tests_cut, text) = text.trim().strip_prefix("cut").map_or((false, text), |rest| (true, rest));
                let (extent, text) =
                    text.trim().strip_prefix("part").map_or((Extent::Whole, text), |rest| (Extent::Part, rest));
                let partial = (extent == Extent::Part).then_some(Partial { asked: 1, of: 2 });
                let report = AttemptReport::of(Outcome::passed(), Timestamp(0));
                let report = AttemptReport { tests: cases(text), tests_cut, partial, ..report };
                report.tests.iter().for_each(|case| known.add(AttemptNumber(number), extent, case));
                known.heed_cut(&report);
            }
            assert_eq!(shown(AskedTests::choose(&known, wanted)), expected, "{attempts}");
        };
        let cut = "its reports were not read whole, as the notes of its attempts say, so there may be other tests that failed";
        check("cut -a +b", &Wanted::Failing, cut);
        check("cut -a +b", &named(&["a"]), cut);
        check("cut +a", &Wanted::Failing, "the job reported no test that failed");
        // What tells of all tests tells more than what came before; what tells of some or of none does not.
        check("cut -a +b; -a +b", &Wanted::Failing, "a; ; of 2");
        for attempts in ["cut -a +b; part -a", "cut -a +b; ", "-a +b; cut part -a"] {
            check(attempts, &Wanted::Failing, cut);
        }
    }

    #[test]
    fn what_ran_in_the_last_attempt_that_passed_whole_must_have_run() {
        let failing = &Wanted::Failing;
        let lacks_c = "the retry was asked for 1 test, which passed; 1 test that ran when the job last passed whole, in build 7, \
                       has not passed this time, `c` among them: retry the job whole, also if tests were removed or renamed";
        // A runner that stops at its first failure says nothing of the rest, or that it skipped them.
        for attempts in ["+a -b", "+a -b ~c", "+a -b; part +a ~c", "+a -b +c; +a -b ~c"] {
            judge(&compared(attempts, "+a +b +c"), failing, "+b", Err(lacks_c));
            judge(&compared(attempts, "+a +b +c"), failing, "+b ~c", Err(lacks_c));
            judge(&compared(attempts, "+a +b +c"), failing, "+b -c", Err(lacks_c));
            judge(&compared(attempts, "+a +b +c"), failing, "+b +c", Ok(()));
            judge(&compared(attempts, "+a +b ~c"), failing, "+b", Ok(()));
        }
        // What any attempt of the build ran has run, and what is new stands in no one's way.
        for attempts in ["+a -b +c", "+a -b; part +c ~b", "+a +c -b +new"] {
            judge(&compared(attempts, "+a +b +c"), failing, "+b", Ok(()));
        }
        let both = "the retry was asked for 1 test, which passed; 1 other test of the job failed before and was not asked for, `a` \
                    among them; 2 tests that ran when the job last passed whole, in build 7, have not passed this time, `c` among them: \
                    retry the job whole, also if tests were removed or renamed";
        judge(&compared("-a -b", "+a +b +c +d"), &named(&["b"]), "+b", Err(both));
        // They can be asked for by name.
        judge(&compared("+a -b", "+a +b +s.c"), &named(&["b", "s c"]), "+b +s.c", Ok(()));
        judge(&compared("+a -b", "+a +b +s.c"), &named(&["b", "s\tc"]), "+b +s.c", Ok(()));
    }

    #[test]
    fn a_further_try_knows_what_the_one_before_it_reported() {
        let asked = AskedTests::choose(&compared("-a -b -c", "+a +b +c +d +e"), &named(&["a"])).unwrap();
        let again = asked.after(&cases("-a +b -d ~e -f"));
        assert_eq!(shown(Ok(again.clone())), "a; c, d, f; of 3");
        assert_eq!(again.never_run.map(|never| (never.count, never.tests)), Some((1, names("e"))));
    }

    #[test]
    fn nothing_to_compare_with_is_told_from_nothing_missing() {
        let never_run = |known: &KnownTests| AskedTests::choose(known, &Wanted::Failing).unwrap().never_run;
        assert_eq!(never_run(&known("-a")), None);
        let all = never_run(&compared("-a", "+a")).unwrap();
        assert_eq!((all.passed_in, all.count, all.tests), (BuildId(7), 0, vec![]));
    }

    #[test]
    fn what_had_not_run_is_known_of_in_a_retry_of_a_retry() {
        let asked = AskedTests::choose(&compared("-a", "+a +b +c"), &Wanted::Failing).unwrap();
        let mut after = KnownTests::before(&asked);
        after.add(AttemptNumber(1), Extent::Part, &cases("-a")[0]);
        after.add(AttemptNumber(1), Extent::Part, &cases("+c")[0]);
        let again = AskedTests::choose(&after, &Wanted::Failing).unwrap();
        assert_eq!((shown(Ok(again.clone())), again.never_run.unwrap().tests), ("a; ; of 2".to_owned(), names("b")));
    }

    fn names(text: &str) -> Vec<TestName> {
        text.split_whitespace().map(|name| TestName { suite: String::new(), name: name.to_owned() }).collect()
    }

    #[test]
    fn of_too_many_that_had_not_run_only_the_whole_job_can_pass() {
        let many: String = (0..AskedTests::TESTS_MAX + 5).map(|n| format!("+t{n:04} ")).collect();
        let known = compared("-a", &many);
        let asked = AskedTests::choose(&known, &Wanted::Failing).unwrap();
        let never_run = asked.never_run.clone().unwrap();
        assert_eq!((never_run.count, never_run.tests.len()), (1005, AskedTests::TESTS_MAX));
        assert_eq!(asked.check(), Ok(()));
        let more = "the retry was asked for 1 test, which passed; 5 tests that ran when the job last passed whole, in build 7, have not \
                    passed this time: retry the job whole, also if tests were removed or renamed";
        judge(&known, &Wanted::Failing, &format!("+a {many}"), Err(more));
        let again = KnownTests::before(&asked).never_run(&[]).unwrap();
        assert_eq!((again.count, again.tests.len()), (1005, AskedTests::TESTS_MAX));
        // So it is with a report that may have been cut.
        let mut known = super::KnownTests::default();
        known.add(AttemptNumber(1), Extent::Whole, &cases("-a")[0]);
        known.compare(RanWhole::new(BuildId(7), &cases("+a +b"), 2));
        assert_eq!(known.never_run(&names("a b")).unwrap().count, 1);
        known.compare(RanWhole::new(BuildId(7), &cases("+a +b"), 100).and_more());
        assert_eq!(known.never_run(&names("a b")).unwrap().count, 1);
    }
}
