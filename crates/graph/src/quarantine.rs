//! Tests in quarantine: those of which people said that they come and go, until when, so that a job's own script may leave them
//! out or let them fail. Nothing here changes an outcome: a job is what its steps make of it.

use serde::{Deserialize, Serialize};

use crate::asked::TestName;
use crate::job::Job;
use crate::name::JobName;
use crate::time::Timestamp;

/// The variable that names the tests in quarantine to the steps of a job, one line each ([`TestName::line`]), without an end of
/// line after the last. It is there only if there are some.
pub const VARIABLE: &str = "ROPEWALK_QUARANTINE";
/// The most tests of a project that are in quarantine.
pub const TESTS_MAX: usize = 1000;
/// The most bytes of [`VARIABLE`]. Linux takes 128 KiB for one variable (`MAX_ARG_STRLEN`).
pub const BYTES_MAX: usize = 64 << 10;

/// A test that was in quarantine when a build was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedTest {
    /// Which.
    #[serde(flatten)]
    pub test: TestName,
    /// As this job reports it; `None`: as any does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// Until when; not any more at that time.
    pub until: Timestamp,
}

/// The tests of these that are a job's, sorted, none twice. None are of a job without reports: nothing tells how its tests end.
#[must_use]
pub fn of_job<'q>(tests: impl IntoIterator<Item = &'q QuarantinedTest>, name: &JobName, job: &Job) -> Vec<TestName> {
    if job.reports.junit.is_empty() {
        return Vec::new();
    }
    let own = tests.into_iter().filter(|it| it.job.as_ref().is_none_or(|job| job == name));
    let mut own: Vec<TestName> = own.map(|it| it.test.clone()).collect();
    own.sort();
    own.dedup();
    own
}

/// The value of [`VARIABLE`].
#[must_use]
pub fn variable(tests: &[TestName]) -> String {
    tests.iter().map(TestName::line).collect::<Vec<_>>().join("\n")
}

/// How many bytes these tests take in [`VARIABLE`], with an end of line each.
#[must_use]
pub fn bytes<'t>(tests: impl IntoIterator<Item = &'t TestName>) -> usize {
    tests.into_iter().map(|test| test.suite.len() + test.name.len() + 2).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_with_reports_has_its_own_tests_and_those_of_all() {
        let test = |name: &str, job: Option<&str>| QuarantinedTest {
            test: TestName { suite: "s".to_owned(), name: name.to_owned() },
            job: job.map(JobName::from),
            until: Timestamp(1),
        };
        let all = [test("c", None), test("a", Some("unit")), test("b", Some("e2e")), test("c", Some("unit"))];
        let mut job = Job::default();
        assert_eq!(of_job(&all, &"unit".into(), &job), []);
        job.reports.junit = vec!["r.xml".to_owned()];
        assert_eq!(variable(&of_job(&all, &"unit".into(), &job)), "s\ta\ns\tc");
        assert_eq!(bytes(&of_job(&all, &"unit".into(), &job)), "s\ta\ns\tc\n".len());
    }
}
