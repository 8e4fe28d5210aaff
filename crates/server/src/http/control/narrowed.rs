//! Which tests of which jobs a retry asks for: those that failed, or those that somebody named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::build::JOBS_NAMED_MAX;
use api::problem::{Problem, ProblemKind};
use graph::asked::{KnownTests, Unaskable, Wanted};
use graph::{AskedTests, BuildId, Graph, JobName, NeverRun, Outcome};
use store::rows::BuildRow;

use super::Again;
use crate::http::build::row;
use crate::http::{App, problem, ran_whole};

/// How many tests the audit names.
const NAMES_TOLD_MAX: usize = 20;

/// The failing tests of these jobs, or of every job that failed if none is named.
///
/// # Errors
/// If there is none, or more of a job than a retry takes.
pub(super) async fn failing(app: &Arc<App>, build: BuildId, jobs: BTreeSet<String>) -> Result<Again, Problem> {
    within(jobs.len(), 0)?;
    let jobs: BTreeSet<JobName> = jobs.into_iter().map(JobName::from).collect();
    app.blocking(move |app| {
        let mut reported = Reported::of(app, build)?;
        reported.compare(app, if jobs.is_empty() { reported.with_failing_tests() } else { jobs.clone() })?;
        let mut tests = BTreeMap::new();
        for job in if jobs.is_empty() { reported.failed.iter() } else { jobs.iter() } {
            match reported.choose(app, job, &Wanted::Failing)? {
                Ok(asked) => drop(tests.insert(job.clone(), Arc::new(asked))),
                Err(Unaskable::NoneFailed | Unaskable::NoReports) if jobs.is_empty() => {}
                Err(fault) => return Err(refused(job, &fault)),
            }
        }
        if tests.is_empty() {
            let text = format!("no job of build {build} that failed reported a test that failed");
            return Err(Problem::new(ProblemKind::Conflict, text).help("retry the jobs whole"));
        }
        Ok(Again::Tests(tests))
    })
    .await
}

/// These tests, by job.
///
/// # Errors
/// If there are no such tests, or more of a job than a retry takes.
pub(super) async fn named(
    app: &Arc<App>,
    build: BuildId,
    tests: BTreeMap<String, Vec<String>>,
) -> Result<Again, Problem> {
    within(tests.len(), 1)?;
    app.blocking(move |app| {
        let mut reported = Reported::of(app, build)?;
        reported.compare(app, tests.keys().cloned().map(JobName::from).collect())?;
        let mut asked = BTreeMap::new();
        for (job, names) in tests {
            let job = JobName::from(job);
            let chosen = reported.choose(app, &job, &Wanted::Named(names))?.map_err(|fault| refused(&job, &fault))?;
            asked.insert(job, Arc::new(chosen));
        }
        Ok(Again::Tests(asked))
    })
    .await
}

/// Of the jobs of a build that failed, and a test of which did: what ran when each last passed whole and has not run in this build.
/// Jobs of which nothing is missing are left out. Blocks.
///
/// # Errors
/// If there is no such build, or the store cannot be read.
pub fn never_run(app: &App, build: BuildId) -> Result<Vec<(JobName, NeverRun)>, Problem> {
    let mut reported = Reported::of(app, build)?;
    let jobs = reported.with_failing_tests();
    reported.compare(app, jobs.clone())?;
    let of = |job: JobName| Some((reported.known.get(&job)?.never_run(&[])?, job));
    let told = jobs.into_iter().filter_map(of).filter(|(never_run, _)| never_run.count > 0);
    Ok(told.map(|(never_run, job)| (job, never_run)).collect())
}

/// What the audit says of a job that runs again.
pub(super) fn told(job: &JobName, asked: Option<&Arc<AskedTests>>) -> String {
    let Some(asked) = asked else { return job.to_string() };
    let names: Vec<String> = asked.tests.iter().take(NAMES_TOLD_MAX).map(ToString::to_string).collect();
    let more = if asked.tests.len() > names.len() { ", …" } else { "" };
    format!("{job} ({}: {}{more})", asked.partial(), names.join(", "))
}

/// What is said before tests of a job run again if they alone cannot make it pass.
pub(super) fn remark(job: &JobName, asked: &AskedTests) -> Option<String> {
    asked.never_run.as_ref().filter(|never_run| never_run.count > 0).map(|never_run| format!("{job}: {never_run}"))
}

fn within(n_jobs: usize, least: usize) -> Result<(), Problem> {
    match n_jobs {
        n if (least..=JOBS_NAMED_MAX).contains(&n) => Ok(()),
        _ => Err(Problem::new(ProblemKind::Unprocessable, format!("name tests of {least} to {JOBS_NAMED_MAX} jobs"))
            .help("choose at least one test, or retry the failing tests")),
    }
}

fn refused(job: &JobName, fault: &Unaskable) -> Problem {
    Problem::new(ProblemKind::Unprocessable, format!("job `{job}`: {fault}")).help(fault.help())
}

/// What the jobs of a build reported of tests.
struct Reported {
    build: BuildRow,
    graph: Arc<Graph>,
    known: BTreeMap<JobName, KnownTests>,
    failed: BTreeSet<JobName>,
}

impl Reported {
    /// Attempts are read before their tests: what ends meanwhile is a later attempt, and then nothing comes of the retry.
    fn of(app: &App, build: BuildId) -> Result<Self, Problem> {
        let of = row(app, build)?;
        let store = &app.server.store;
        let graph = store.graph(build).map_err(problem::store)?.unwrap_or_default();
        let mut reported = Self { build: of, graph, known: BTreeMap::new(), failed: BTreeSet::new() };
        for job in store.jobs(build).map_err(problem::store)? {
            let known = reported.known.entry(job.name.clone()).or_default();
            job.attempt.into_iter().for_each(|attempt| known.saw(attempt));
            if matches!(job.outcome, Some(Outcome::Failed(_))) {
                reported.failed.insert(job.name);
            }
        }
        for test in store.tests(build).map_err(problem::store)? {
            reported.known.entry(test.job).or_default().add(test.attempt, test.extent, &test.case);
        }
        Ok(reported)
    }

    /// Compares these jobs with what they ran when they last passed whole.
    fn compare(&mut self, app: &App, jobs: BTreeSet<JobName>) -> Result<(), Problem> {
        for (job, ran) in ran_whole::before(app, &self.build, jobs)? {
            self.known.entry(job).or_default().compare(ran);
        }
        Ok(())
    }

    /// The jobs that failed and of which a test did.
    fn with_failing_tests(&self) -> BTreeSet<JobName> {
        let has_failing = |job: &&JobName| self.known.get(*job).is_some_and(|known| known.failed().next().is_some());
        self.failed.iter().filter(has_failing).cloned().collect()
    }

    fn choose(&self, app: &App, job: &JobName, wanted: &Wanted) -> Result<Result<AskedTests, Unaskable>, Problem> {
        let Some(spec) = self.graph.jobs.get(job) else {
            return Err(problem::not_found(format_args!("job `{job}` in build {}", self.build.build)));
        };
        if spec.reports.junit.is_empty() {
            return Ok(Err(Unaskable::NoReports));
        }
        let mut known = self.known.get(job).cloned().unwrap_or_default();
        for (_, report) in app.server.store.reports(self.build.build, Some(job)).map_err(problem::store)? {
            known.heed_cut(&report);
        }
        Ok(AskedTests::choose(&known, wanted))
    }
}
