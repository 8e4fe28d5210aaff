//! Tests over builds: what a failure is beside the builds before, and how one test did in each of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use api::overview::OVERVIEW_BUILDS;
use api::page::Page;
use api::problem::Problem;
use api::test_history::{
    BuildName, COMPARED_BUILDS, FAILURES_MAX, FailureKind, HISTORY_BUILDS_MAX, SLOWEST, TestFailure, TestRun,
    TestSummary,
};
use graph::{BuildId, TestOutcome};
use store::BuildFilter;
use store::rows::{BuildRow, TestRow};

use super::answer::{self, Answered};
use super::build::row;
use super::call::Call;
use super::comparison::{TestKey, last_reports};
use super::known_failures::Seen;
use super::known_tests::MESSAGE_CHARS_MAX;
use super::overview::{default_branch, newest, ref_of};
use super::quarantine::Notes;
use super::ran_whole::CANDIDATES_MAX;
use super::{App, control, convert, problem};
use crate::records::Project as Stored;

/// What builds reported that came before.
struct Earlier {
    name: BuildName,
    outcomes: BTreeMap<TestKey, TestOutcome>,
    /// The tests of which its attempts reported both.
    unsteady: BTreeSet<TestKey>,
}

fn name_of(row: &BuildRow) -> BuildName {
    let commit = Some(row.event.commit.clone()).filter(|commit| !commit.is_empty());
    BuildName { build: row.build, number: Some(row.origin.number).filter(|number| *number > 0), commit }
}

fn has_failed(outcome: TestOutcome) -> bool {
    matches!(outcome, TestOutcome::Failed | TestOutcome::Errored)
}

fn key(row: &TestRow) -> TestKey {
    (row.job.clone(), row.case.suite.clone(), row.case.name.clone())
}

/// A test within a build, borrowed from where it was reported.
type Named<'r> = (&'r str, &'r str, &'r str);

fn named(row: &TestRow) -> Named<'_> {
    (row.job.as_str(), &row.case.suite, &row.case.name)
}

/// The tests that attempts of one build reported both as passed and as failed.
fn unsteady<'r>(rows: impl IntoIterator<Item = &'r TestRow> + Clone) -> BTreeSet<TestKey> {
    let failed = rows.clone().into_iter().filter(|row| has_failed(row.case.outcome));
    let failed: HashSet<Named> = failed.map(named).collect();
    let passed = rows.into_iter().filter(|row| row.case.outcome == TestOutcome::Passed);
    passed.filter(|row| failed.contains(&named(row))).map(key).collect()
}

/// What the builds of these rows reported of these tests. Of a build with very many, all others are passed over uncopied.
fn reported(app: &App, builds: &[&BuildRow], tests: &HashSet<Named>) -> Result<Vec<Earlier>, Problem> {
    let of = |build: &&BuildRow| {
        let rows = app.known_tests.of(&*app.server.store, build.build).map_err(problem::store)?;
        let rows = rows.iter().filter(|row| tests.contains(&named(row)));
        let unsteady = unsteady(rows.clone());
        let outcomes = last_reports(rows).into_iter().map(|(key, row)| (key, row.case.outcome)).collect();
        Ok(Earlier { name: name_of(build), outcomes, unsteady })
    };
    builds.iter().map(of).collect()
}

/// With what these tests of a build are compared: the builds before it of the same branch or pull request, and the last one of the default
/// branch if it is of another.
fn before(app: &App, build: &BuildRow, tests: &HashSet<Named>) -> Result<(Vec<Earlier>, Option<Earlier>), Problem> {
    let project = &build.origin.project;
    if project.is_empty() {
        return Ok((Vec::new(), None));
    }
    let (rows, _) = newest(app, project)?;
    let stored = app.server.records.read::<Stored>(project).map_err(problem::record)?;
    let set = stored.and_then(|(project, _)| project.settings.of_api().default_branch);
    let default = default_branch(set, &rows);
    let comparable = |row: &&BuildRow| {
        row.build < build.build && row.finished.is_some() && row.pipeline == build.pipeline && row.jobs > 0
    };
    let own = ref_of(&build.event);
    let same: Vec<&BuildRow> =
        rows.iter().filter(comparable).filter(|row| ref_of(&row.event) == own).take(COMPARED_BUILDS).collect();
    let is_default = |row: &BuildRow| row.event.branch == default && !row.event.is_of_pull_request();
    let on_default = match default.is_some() && !is_default(build) {
        true => rows.iter().find(|row| comparable(row) && is_default(row)),
        false => None,
    };
    let on_default = reported(app, on_default.as_slice(), tests)?.pop();
    Ok((reported(app, &same, tests)?, on_default))
}

/// What one failure is beside the builds before.
fn judged(
    test: &TestRow,
    build: &BuildName,
    is_unsteady: bool,
    earlier: &[Earlier],
    on_default: Option<&Earlier>,
) -> TestFailure {
    let key = key(test);
    let seen: Vec<(&Earlier, TestOutcome)> =
        earlier.iter().filter_map(|earlier| Some((earlier, *earlier.outcomes.get(&key)?))).collect();
    let failing = seen.iter().take_while(|(_, outcome)| has_failed(*outcome));
    let since = failing.last().map_or(build, |(earlier, _)| &earlier.name);
    let passed = seen.iter().find(|(_, outcome)| *outcome == TestOutcome::Passed).map(|(earlier, _)| &earlier.name);
    let is_same_commit = |name: &BuildName| name.commit.is_some() && name.commit == build.commit;
    let comes_and_goes = is_unsteady
        || passed.is_some_and(is_same_commit)
        || earlier.iter().any(|earlier| earlier.unsteady.contains(&key));
    let kind = match seen.first() {
        _ if comes_and_goes => FailureKind::Flaky,
        Some((_, outcome)) if has_failed(*outcome) => FailureKind::Known,
        _ => FailureKind::New,
    };
    TestFailure {
        test: convert::test(test),
        kind,
        since: since.clone(),
        passed: passed.cloned(),
        on_default_branch: on_default.and_then(|build| build.outcomes.get(&key)).map(|outcome| (*outcome).into()),
    }
}

/// A test without what it said.
fn brief(row: &TestRow) -> api::job::Test {
    api::job::Test { message: String::new(), output: String::new(), ..convert::test(row) }
}

/// What was looked at to tell which failures of a build are new: the same again tells the same.
fn seen(app: &App, build: &BuildRow) -> Result<Seen, Problem> {
    let project = &build.origin.project;
    let stored = app.server.records.read::<Stored>(project).map_err(problem::record)?;
    let default_branch = stored.and_then(|(project, _)| project.settings.of_api().default_branch);
    let of_project = BuildFilter { project: Some(project.clone()), ..BuildFilter::default() };
    let of_pipeline = BuildFilter { pipeline: Some(build.pipeline.clone()), ..of_project.clone() };
    let versions = |filter, before, limit| app.server.store.build_versions(filter, before, limit);
    // Its own is the first of them.
    let above = BuildId(build.build.0.saturating_add(1));
    let before = versions(&of_pipeline, Some(above), CANDIDATES_MAX + 1).map_err(problem::store)?;
    let newest = versions(&of_project, None, OVERVIEW_BUILDS + 1).map_err(problem::store)?;
    Ok(Seen { build: build.build, before, newest, default_branch })
}

fn summary(app: &App, build: BuildId) -> Result<TestSummary, Problem> {
    let build_row = row(app, build)?;
    let seen = seen(app, &build_row)?;
    let found = app.known_failures.find(&seen);
    let compared = match found {
        Some(known) => known,
        None => {
            let told = Arc::new(compared(app, &build_row)?);
            app.known_failures.keep(seen, &told);
            told
        }
    };
    with_notes((*compared).clone(), &Notes::of(app, &build_row.origin.project)?)
}

/// With what is in quarantine now, and no more failures than are told.
fn with_notes(mut summary: TestSummary, notes: &Notes) -> Result<TestSummary, Problem> {
    for failure in &mut summary.failures {
        failure.test.quarantine = notes.note(&failure.test.job, &failure.test.suite, &failure.test.name);
        if failure.test.quarantine.is_some() {
            failure.kind = FailureKind::Quarantined;
        }
    }
    summary.failures.sort_by_key(|failure| failure.kind);
    summary.quarantined =
        summary.failures.iter().filter(|failure| failure.kind == FailureKind::Quarantined).count() as u64;
    summary.failures.truncate(FAILURES_MAX);
    summary.failures_left_off = summary.failed - summary.failures.len() as u64;
    for test in summary.unsteady.iter_mut().chain(&mut summary.slowest) {
        test.quarantine = notes.note(&test.job, &test.suite, &test.name);
    }
    Ok(summary)
}

/// The tests of a build beside those before, all failures in the order of jobs and names, whatever is in quarantine.
fn compared(app: &App, build_row: &BuildRow) -> Result<TestSummary, Problem> {
    let build = build_row.build;
    let rows = app.server.store.tests(build).map_err(problem::store)?;
    let comes_and_goes = unsteady(&rows);
    let tests = last_reports(&rows);
    let count = |wanted: fn(TestOutcome) -> bool| tests.values().filter(|row| wanted(row.case.outcome)).count() as u64;
    let failed = count(has_failed);
    let failing = tests.values().filter(|row| has_failed(row.case.outcome)).map(|row| named(row)).collect();
    let (earlier, on_default) = if failed == 0 { (Vec::new(), None) } else { before(app, build_row, &failing)? };
    let never_run = if failed == 0 { Vec::new() } else { control::never_run(app, build)? };
    let name = name_of(build_row);
    let of_failure = |(key, row): (&TestKey, &&TestRow)| {
        judged(row, &name, comes_and_goes.contains(key), &earlier, on_default.as_ref())
    };
    let failures: Vec<TestFailure> =
        tests.iter().filter(|(_, row)| has_failed(row.case.outcome)).map(of_failure).collect();
    let mut slowest: Vec<&TestRow> = tests.values().copied().collect();
    slowest.sort_by_key(|row| std::cmp::Reverse(row.case.duration_ms));
    let passed_later = tests
        .iter()
        .filter(|(key, row)| comes_and_goes.contains(*key) && row.case.outcome == TestOutcome::Passed)
        .map(|(_, row)| brief(row));
    Ok(TestSummary {
        build,
        passed: count(|outcome| outcome == TestOutcome::Passed),
        failed,
        skipped: count(|outcome| outcome == TestOutcome::Skipped),
        quarantined: 0,
        compared: earlier.iter().map(|earlier| earlier.name.clone()).collect(),
        failures_left_off: 0,
        failures,
        unsteady: passed_later.take(FAILURES_MAX).collect(),
        never_run: never_run.into_iter().map(|(job, tests)| convert::never_run(&job, &tests)).collect(),
        slowest: slowest.into_iter().take(SLOWEST).map(brief).collect(),
    })
}

pub async fn summarize(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    answer::json(&app.blocking(move |app| summary(app, build)).await?)
}

/// How a test ended in one build, if that reported it.
fn run_of(build: &BuildRow, rows: &[&TestRow]) -> Option<TestRun> {
    let last = rows.last()?;
    let is_unsteady = rows.iter().any(|row| has_failed(row.case.outcome) != has_failed(last.case.outcome));
    Some(TestRun {
        build: name_of(build),
        branch: build.event.branch.clone(),
        created: build.created.into(),
        job: last.job.to_string(),
        attempt: last.attempt.0,
        outcome: last.case.outcome.into(),
        unsteady: is_unsteady,
        duration_ms: last.case.duration_ms,
        message: last.case.message.chars().take(MESSAGE_CHARS_MAX).collect(),
    })
}

pub async fn history(app: Arc<App>, call: Call) -> Answered {
    let project = call.segment("project").to_owned();
    let name = call.wanted::<String>("name", "the name of a test")?.ok_or_else(|| {
        Problem::new(api::problem::ProblemKind::Invalid, "which test is not said").field("name", "has to be there")
    })?;
    let suite = call.text("suite").unwrap_or_default().to_owned();
    let job = call.text("job").map(str::to_owned);
    let branch = call.text("branch").map(str::to_owned);
    let (limit, before) = (call.limit()?.min(HISTORY_BUILDS_MAX), call.cursor::<u64>()?.map(BuildId));
    let page = app
        .blocking(move |app| {
            let filter = BuildFilter { project: Some(project), branch, ..BuildFilter::default() };
            let builds = app.server.store.builds(&filter, before, limit).map_err(problem::store)?;
            let mut items = Vec::new();
            for build in &builds {
                let rows = app.known_tests.of(&*app.server.store, build.build).map_err(problem::store)?;
                let is_it = |row: &&TestRow| {
                    row.case.name == name
                        && row.case.suite == suite
                        && job.as_deref().is_none_or(|job| row.job.as_str() == job)
                };
                items.extend(run_of(build, &rows.iter().filter(is_it).collect::<Vec<_>>()));
            }
            let is_full = builds.len() == limit as usize;
            let next = builds.last().filter(|_| is_full).map(|last| last.build.to_string());
            Ok(Page { items, next })
        })
        .await?;
    answer::json(&page)
}
