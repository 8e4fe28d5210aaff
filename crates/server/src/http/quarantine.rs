//! Tests in quarantine: the list of a project, and what is told of them where tests are.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::job::Test;
use api::problem::{Problem, ProblemKind};
use api::quarantine::{NewQuarantine, QuarantineNote, QuarantineState, Quarantined, RUNS};
use graph::quarantine::QuarantinedTest;
use graph::{JobName, TestName, TestOutcome, Timestamp};

use super::answer::{self, Answered};
use super::call::Call;
use super::comparison::{TestKey, last_reports};
use super::control::audit;
use super::overview::newest;
use super::project::exists;
use super::{App, problem};
use crate::quarantine::{self, Entry, Quarantine, QuarantineError};

/// What a project has in quarantine now, to be told of tests.
pub struct Notes {
    quarantine: Quarantine,
    now: Timestamp,
}

impl Notes {
    /// Those of a project; none of a build without one.
    pub fn of(app: &App, project: &str) -> Result<Self, Problem> {
        let quarantine = match project {
            "" => Quarantine::default(),
            project => quarantine::of(&app.server.records, project).map_err(problem::record)?,
        };
        Ok(Self { quarantine, now: app.now() })
    }

    /// What is to be told of a test that this job reported.
    pub fn note(&self, job: &str, suite: &str, name: &str) -> Option<QuarantineNote> {
        let entry = self.quarantine.of(job, suite, name, self.now)?;
        let (owner, reason) = (entry.owner.clone(), entry.reason.clone());
        Some(QuarantineNote { owner, reason, until: entry.what.until.into() })
    }

    /// The test with what is to be told of it.
    pub fn told(&self, test: Test) -> Test {
        Test { quarantine: self.note(&test.job, &test.suite, &test.name), ..test }
    }
}

fn shown(entry: &Entry, now: Timestamp) -> Quarantined {
    let QuarantinedTest { test, job, until } = &entry.what;
    Quarantined {
        suite: test.suite.clone(),
        name: test.name.clone(),
        job: job.as_ref().map(ToString::to_string),
        owner: entry.owner.clone(),
        reason: entry.reason.clone(),
        until: (*until).into(),
        by: entry.by.clone(),
        at: entry.at.into(),
        state: QuarantineState::at(*until, now),
        passed_last: None,
    }
}

/// How a test ended in one build: whether all that ran passed; `None` if none ran.
fn passed(reports: &BTreeMap<(&str, &str), Vec<(&JobName, TestOutcome)>>, what: &QuarantinedTest) -> Option<bool> {
    let of_test = reports.get(&(what.test.suite.as_str(), what.test.name.as_str()))?;
    let of_job = of_test.iter().filter(|(job, _)| what.job.as_ref().is_none_or(|wanted| wanted == *job));
    let ran: Vec<TestOutcome> =
        of_job.map(|(_, outcome)| *outcome).filter(|outcome| *outcome != TestOutcome::Skipped).collect();
    (!ran.is_empty()).then(|| ran.iter().all(|outcome| *outcome == TestOutcome::Passed))
}

/// In how many of the newest builds each of these passed up to the newest.
fn passed_last(app: &App, project: &str, tests: &[Entry]) -> Result<Vec<u32>, Problem> {
    let (builds, _) = newest(app, project)?;
    let mut counts: Vec<(u32, bool)> = vec![(0, true); tests.len()];
    for build in builds.iter().filter(|build| build.finished.is_some() && build.jobs > 0).take(RUNS) {
        let rows = app.known_tests.of(&*app.server.store, build.build).map_err(problem::store)?;
        let rows: BTreeMap<TestKey, _> = last_reports(rows.iter());
        let mut reports: BTreeMap<(&str, &str), Vec<(&JobName, TestOutcome)>> = BTreeMap::new();
        for ((job, suite, name), row) in &rows {
            reports.entry((suite, name)).or_default().push((job, row.case.outcome));
        }
        for (entry, (n, goes_on)) in tests.iter().zip(&mut counts).filter(|(_, (_, goes_on))| *goes_on) {
            match passed(&reports, &entry.what) {
                Some(true) => *n += 1,
                Some(false) => *goes_on = false,
                None => {}
            }
        }
    }
    Ok(counts.into_iter().map(|(n, _)| n).collect())
}

pub async fn list(app: Arc<App>, call: Call) -> Answered {
    let project = call.segment("project").to_owned();
    let with_runs = call.wanted::<bool>("runs", "true or false")?.unwrap_or(false);
    let items = app
        .blocking(move |app| {
            let tests = quarantine::of(&app.server.records, &project).map_err(problem::record)?.tests;
            let now = app.now();
            let mut items: Vec<Quarantined> = tests.iter().map(|entry| shown(entry, now)).collect();
            if with_runs && !tests.is_empty() {
                let counts = passed_last(app, &project, &tests)?;
                items.iter_mut().zip(counts).for_each(|(item, n)| item.passed_last = Some(n));
            }
            items.sort_by(|one, other| {
                (one.state, one.until, &one.suite, &one.name).cmp(&(
                    other.state,
                    other.until,
                    &other.suite,
                    &other.name,
                ))
            });
            Ok(items)
        })
        .await?;
    answer::page(items)
}

fn refused(error: QuarantineError) -> Problem {
    let said = error.to_string();
    match error {
        QuarantineError::Field { field, what } => {
            Problem::new(ProblemKind::Unprocessable, said).field(field, format!("has to be {what}"))
        }
        QuarantineError::Full => Problem::new(ProblemKind::Unprocessable, said)
            .help("remove those that expired, and mend some of the others"),
        QuarantineError::Record(error) => problem::record(error),
    }
}

/// How a test stands in the audit.
fn target(test: &TestName, job: Option<&JobName>) -> String {
    match job {
        Some(job) => format!("test {test} of {job}"),
        None => format!("test {test}"),
    }
}

pub async fn put(app: Arc<App>, call: Call) -> Answered {
    let project = call.segment("project").to_owned();
    let NewQuarantine { suite, name, job, owner, reason, until } = call.json()?;
    let what = QuarantinedTest { test: TestName { suite, name }, job: job.map(JobName::from), until: until.0 };
    let target = target(&what.test, what.job.as_ref());
    let entry = Entry { what, owner, reason, by: call.who(), at: app.now() };
    let detail = format!("owner {}, until {until}: {}", entry.owner, entry.reason);
    let key = project.clone();
    let put = app
        .blocking(move |app| {
            exists(app, &key)?;
            quarantine::put(&app.server.records, &key, &entry).map_err(refused)?;
            Ok(shown(&entry, entry.at))
        })
        .await?;
    audit(&app, &call, &project, target, detail).await?;
    answer::json(&put)
}

pub async fn delete(app: Arc<App>, call: Call) -> Answered {
    let project = call.segment("project").to_owned();
    let name = call
        .wanted::<String>("name", "the name of a test")?
        .ok_or_else(|| Problem::new(ProblemKind::Invalid, "which test is not said").field("name", "has to be there"))?;
    let test = TestName { suite: call.text("suite").unwrap_or_default().to_owned(), name };
    let job = call.text("job").map(JobName::from);
    let (target, key) = (target(&test, job.as_ref()), project.clone());
    app.blocking(move |app| {
        let was_there = quarantine::remove(&app.server.records, &key, (&test, job.as_ref()), app.now());
        match was_there.map_err(problem::record)? {
            true => Ok(()),
            false => Err(problem::not_found(format_args!("`{test}` in quarantine"))),
        }
    })
    .await?;
    audit(&app, &call, &project, target, String::new()).await?;
    answer::nothing()
}
