//! The archive of a server, over its API.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use api::client::{Client, ClientError, JobsWanted, Logs, Moments, PageWanted, TestsWanted};
use api::event::Moment;
use api::job::{WaitReason, Waiting};
use api::page::{LIMIT_MAX, Page};
use api::problem::ProblemKind;
use dialects::tree::Sources;
use engine::Fact;
use engine::fact::What;
use engine::operation::Manifest;
use graph::{AttemptNumber, AttemptReport, BuildId, Digest, Graph, JobName, TestCase};
use store::BuildFilter;
use store::log::Writing;
use store::rows::{ArtifactRow, AttemptRow, BuildRow, GateRow, JobRow, VerdictWord};
use tokio::runtime::Runtime;

use super::lines::ThereLog;
use super::{Archive, Log, WAITS_MAX, rows};
use crate::args::Where;
use crate::commands::Stop;
use crate::places::{self, Places};
use crate::project::Project;
use crate::remote::stop;
use crate::whereabouts::Whereabouts;

/// After so many failures in a row people are told that the server is away.
const FAILURES_TOLD: u32 = 3;

/// A server, and a project on it.
pub struct There {
    pub link: Link,
    /// The project's name; empty if none was given and the checkout's folder has none that can be one.
    project: String,
    whereabouts: Whereabouts,
}

/// Calls of a server that are waited for.
#[derive(Clone)]
pub struct Link {
    pub client: Client,
    runtime: Rc<Runtime>,
}

impl Link {
    /// Waits for something.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// As the server refuses.
    pub fn ask<T>(&self, call: impl Future<Output = Result<T, ClientError>>) -> Result<T, Stop> {
        self.wait(call).map_err(stop)
    }

    /// All items of a list, page after page.
    ///
    /// # Errors
    /// As the server refuses.
    pub fn all<T, F: Future<Output = Result<Page<T>, ClientError>>>(
        &self,
        mut page: impl FnMut(PageWanted) -> F,
    ) -> Result<Vec<T>, Stop> {
        let mut items = Vec::new();
        let mut wanted = PageWanted { cursor: None, limit: Some(LIMIT_MAX) };
        loop {
            let page = self.ask(page(wanted.clone()))?;
            items.extend(page.items);
            match page.next {
                Some(next) => wanted.cursor = Some(next),
                None => return Ok(items),
            }
        }
    }
}

/// What has an answer unless there is nothing of this name.
fn known<T>(answer: Result<T, ClientError>) -> Result<Option<T>, Stop> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is(ProblemKind::NotFound) => Ok(None),
        Err(error) => Err(stop(error)),
    }
}

impl There {
    /// The server that flags or variables name, and the project that a flag or the checkout names.
    ///
    /// # Errors
    /// If no token is named.
    pub fn new(at: &Where, project: &Project) -> Result<Self, Stop> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Stop::infra(format!("could not start: {error}")))?;
        Ok(Self {
            link: Link { client: at.remote.client()?, runtime: Rc::new(runtime) },
            project: at.project.clone().or_else(|| project.name()).unwrap_or_default(),
            whereabouts: at.whereabouts(),
        })
    }

    /// The project that is meant.
    ///
    /// # Errors
    /// If there is none.
    pub fn project(&self) -> Result<&str, Stop> {
        match self.project.as_str() {
            "" => Err(Stop::wrong("which project of the server? Name it by --project NAME")),
            project => Ok(project),
        }
    }

    /// As [`Archive::find_build`]; `last` means the newest that runs, if there is one, and rather one that somebody asked for.
    ///
    /// # Errors
    /// Clear words if there is no such build.
    pub fn find_running(&self, text: &str) -> Result<BuildRow, Stop> {
        if text == "last" {
            let running = BuildFilter { verdict: Some(VerdictWord::Running), ..BuildFilter::default() };
            if let Some(build) = self.newest(&running, places::is_asked_for)? {
                return Ok(build);
            }
        }
        self.find_build(text)
    }

    /// As [`places::newest`], of the builds that the filter lets pass.
    fn newest(&self, filter: &BuildFilter, is_meant: fn(&BuildRow) -> bool) -> Result<Option<BuildRow>, Stop> {
        places::newest(|before, limit| self.builds(filter, before, limit), is_meant)
    }

    fn numbered(&self, project: &str, number: u64) -> Result<BuildRow, Stop> {
        let client = &self.link.client;
        let build = known(self.link.wait(client.build_numbered(project, number)))?;
        build.map(|build| rows::build(&build)).ok_or_else(|| {
            Stop::wrong(format!("project {project} has no build #{number} on {}", self.link.client.server()))
        })
    }

    /// The jobs of a build, by name.
    fn jobs_there(&self, build: BuildId) -> Result<Vec<api::job::Job>, Stop> {
        let client = &self.link.client;
        self.link.all(|page| async move { client.job_list(build, &JobsWanted::default(), &page).await })
    }

    /// The tests of a build or of one job, by attempt.
    fn tests(&self, build: BuildId, job: Option<&JobName>) -> Result<HashMap<u32, Vec<TestCase>>, Stop> {
        let client = &self.link.client;
        let wanted = TestsWanted { job: job.map(ToString::to_string), ..TestsWanted::default() };
        let wanted = &wanted;
        let mut tests: HashMap<u32, Vec<TestCase>> = HashMap::new();
        for test in self.link.all(|page| async move { client.test_list(build, wanted, &page).await })? {
            tests.entry(test.attempt).or_default().push(rows::test(test));
        }
        Ok(tests)
    }

    fn unknown_build(&self, build: BuildId) -> Result<Stop, Stop> {
        let newest = self.builds(&BuildFilter::default(), None, 1)?;
        let Some(newest) = newest.first() else { return Ok(Stop::wrong(self.nothing())) };
        Ok(Stop::wrong(format!(
            "there is no build {build} on {}; the newest of {} is {} (see `{}`)",
            self.link.client.server(),
            self.project,
            newest.build,
            self.whereabouts.command("builds"),
        )))
    }
}

impl Archive for There {
    /// `12` as `submit` prints it, `#12` in the project, `NAME#12` in another one, `last` that somebody asked for, `last-failed`.
    fn find_build(&self, text: &str) -> Result<BuildRow, Stop> {
        match (text, text.split_once('#')) {
            ("last", _) => {
                let newest = self.newest(&BuildFilter::default(), places::is_asked_for)?;
                newest.ok_or_else(|| Stop::wrong(self.nothing()))
            }
            ("last-failed", _) => {
                let failed = BuildFilter { verdict: Some(VerdictWord::Failed), ..BuildFilter::default() };
                self.newest(&failed, places::is_own_failure)?
                    .ok_or_else(|| Stop::wrong(format!("no build of {} has failed", self.project)))
            }
            (_, Some((project, number))) if number.parse::<u64>().is_ok() => {
                let project = if project.is_empty() { self.project()? } else { project };
                self.numbered(project, number.parse().unwrap_or_default())
            }
            _ => {
                let build = text.parse().map(BuildId).map_err(|_| {
                    Stop::wrong(format!(
                        "`{}` is no build: give its number, `#` and its number in the project, `last` or `last-failed`; \
                         a job comes after it",
                        crate::columns::one_line(text)
                    ))
                })?;
                match self.build(build)? {
                    Some(build) => Ok(build),
                    None => Err(self.unknown_build(build)?),
                }
            }
        }
    }

    fn find_job(&self, build: BuildId, text: &str) -> Result<JobName, Stop> {
        let jobs = self.jobs_there(build)?;
        places::job_among(build, text, &jobs.iter().map(|job| JobName::from(job.name.as_str())).collect::<Vec<_>>())
    }

    fn builds(&self, filter: &BuildFilter, before: Option<BuildId>, limit: usize) -> Result<Vec<BuildRow>, Stop> {
        let filter = api::build::BuildFilter {
            project: Some(self.project()?.to_owned()),
            branch: filter.branch.clone(),
            commit: filter.commit.clone(),
            event: filter.kind.map(Into::into),
            verdict: filter.verdict.map(verdict_word),
            pipeline: filter.pipeline.clone(),
            search: None,
            before,
        };
        let mut builds: Vec<BuildRow> = Vec::new();
        let mut cursor = None;
        while builds.len() < limit {
            let room = u32::try_from(limit - builds.len()).unwrap_or(u32::MAX).min(LIMIT_MAX);
            let wanted = PageWanted { cursor, limit: Some(room) };
            let page = self.link.ask(self.link.client.build_list(&filter, &wanted))?;
            builds.extend(page.items.iter().map(rows::build));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(builds)
    }

    fn build(&self, build: BuildId) -> Result<Option<BuildRow>, Stop> {
        let found = known(self.link.wait(self.link.client.build_get(build)))?;
        Ok(found.map(|found| rows::build(&found)))
    }

    fn graph(&self, build: BuildId) -> Result<Option<Arc<Graph>>, Stop> {
        let graph = self.link.ask(self.link.client.build_graph(build))?;
        let graph: Graph = serde_json::from_value(graph).map_err(|error| {
            Stop::infra(format!("the graph of build {build} cannot be read: {error}; the server may be newer"))
        })?;
        Ok(Some(Arc::new(graph)))
    }

    fn jobs(&self, build: BuildId) -> Result<Vec<JobRow>, Stop> {
        Ok(self.jobs_there(build)?.iter().filter_map(rows::job).collect())
    }

    fn attempts(&self, build: BuildId, job: Option<&JobName>) -> Result<Vec<AttemptRow>, Stop> {
        let client = &self.link.client;
        let job = job.map(JobName::as_str);
        let attempts = self.link.all(|page| async move { client.attempt_list(build, job, &page).await })?;
        Ok(attempts.iter().map(rows::attempt).collect())
    }

    fn reports(&self, build: BuildId, job: Option<&JobName>) -> Result<Vec<(AttemptNumber, AttemptReport)>, Stop> {
        let client = &self.link.client;
        let name = job.map(JobName::as_str);
        let attempts = self.link.all(|page| async move { client.attempt_reports(build, name, &page).await })?;
        let has_tests = attempts.iter().any(|attempt| attempt.ended.as_ref().is_some_and(|end| end.tests > 0));
        let mut tests = if has_tests { self.tests(build, job)? } else { HashMap::new() };
        let report = |attempt: &api::job::Attempt| {
            let tests = tests.remove(&attempt.attempt).unwrap_or_default();
            Some((AttemptNumber(attempt.attempt), rows::report(attempt, tests)?))
        };
        Ok(attempts.iter().filter_map(report).collect())
    }

    fn artifacts(&self, build: BuildId) -> Result<Vec<ArtifactRow>, Stop> {
        let artifacts = self.link.ask(self.link.client.artifact_list(build, None))?.items;
        Ok(artifacts.into_iter().map(|artifact| rows::artifact(build, artifact)).collect())
    }

    fn gates(&self, build: BuildId) -> Result<Vec<GateRow>, Stop> {
        let gates = self.link.ask(self.link.client.gate_list(build))?.items;
        Ok(gates.into_iter().map(rows::gate).collect())
    }

    fn usual_ms(&self, build: BuildId, _names: &[JobName]) -> Result<BTreeMap<JobName, u64>, Stop> {
        let jobs = self.jobs_there(build)?;
        Ok(jobs.iter().filter_map(|job| Some((JobName::from(job.name.as_str()), job.usual_ms?))).collect())
    }

    /// A token that may not look at operations sees none.
    fn manifest(&self, operation: Digest) -> Result<Option<Manifest>, Stop> {
        match self.link.wait(self.link.client.operation_explain(operation)) {
            Ok(explained) => {
                Ok(Some(Manifest(explained.parts.into_iter().map(|part| (part.name, part.value)).collect())))
            }
            Err(error) if error.is(ProblemKind::NotFound) || error.is(ProblemKind::Forbidden) => Ok(None),
            Err(error) => Err(stop(error)),
        }
    }

    /// Those that its jobs asked for last.
    fn children(&self, build: BuildId) -> Result<Vec<BuildRow>, Stop> {
        let mut children: Vec<BuildId> = self.jobs_there(build)?.iter().filter_map(|job| job.child).collect();
        children.sort_unstable();
        let mut found = Vec::new();
        for child in children {
            // One that was removed since, or that the token does not grant, is left out.
            found.extend(known(self.link.wait(self.link.client.build_get(child)))?.as_ref().map(rows::build));
        }
        Ok(found)
    }

    fn unasked(&self, build: BuildId) -> Result<Option<String>, Stop> {
        let found = known(self.link.wait(self.link.client.build_get(build)))?;
        Ok(found.and_then(|found| found.unasked))
    }

    fn waits(&self, build: BuildId, names: &[JobName]) -> Result<BTreeMap<JobName, Waiting>, Stop> {
        let mut waits = BTreeMap::new();
        for name in names.iter().take(WAITS_MAX) {
            let why = known(self.link.wait(self.link.client.job_why(build, name.as_str())))?;
            // It may have begun meanwhile.
            if let Some(why) = why.filter(|why| why.reason != WaitReason::Nothing) {
                waits.insert(name.clone(), why);
            }
        }
        Ok(waits)
    }

    fn is_run(&self, build: &BuildRow) -> Result<bool, Stop> {
        Ok(build.verdict == graph::Verdict::Running)
    }

    /// The last one alone.
    fn evaluations(&self, build: BuildId) -> Result<Vec<Fact>, Stop> {
        let diagnostics = self.link.ask(self.link.client.build_diagnostics(build))?.items;
        let what = What::Evaluated {
            graph: Arc::default(),
            questions: Vec::new(),
            diagnostics: rows::diagnostics(diagnostics).0,
            program: None,
        };
        Ok(vec![Fact { build, at: graph::Timestamp(0), what }])
    }

    fn sources(&self, build: BuildId) -> Result<Option<Sources>, Stop> {
        Ok(Some(rows::diagnostics(self.link.ask(self.link.client.build_diagnostics(build))?.items).1))
    }

    fn log(&self, build: BuildId, job: Option<&JobName>, _writing: Writing) -> Result<Option<Box<dyn Log>>, Stop> {
        let client = &self.link.client;
        let name = job.map(JobName::as_str);
        let summaries = self.link.all(|page| async move { client.log_list(build, name, &page).await })?;
        let log = ThereLog::new(self.link.clone(), build, &summaries);
        Ok((!summaries.is_empty()).then(|| Box::new(log) as Box<dyn Log>))
    }

    fn news(&self, build: BuildId) -> News<'_> {
        let moments = self.link.client.build_stream(build, Logs::With, None);
        News::Stream(Box::new(Stream { link: self.link.clone(), moments, is_told: false }))
    }

    fn whereabouts(&self) -> Whereabouts {
        self.whereabouts.clone()
    }

    fn nothing(&self) -> String {
        format!(
            "no builds of {} on {}: `ropewalk submit` starts one, --project names another",
            self.project,
            self.link.client.server()
        )
    }
}

fn verdict_word(verdict: VerdictWord) -> api::build::VerdictWord {
    match verdict {
        VerdictWord::Running => api::build::VerdictWord::Running,
        VerdictWord::Passed => api::build::VerdictWord::Passed,
        VerdictWord::Failed => api::build::VerdictWord::Failed,
        VerdictWord::Canceled => api::build::VerdictWord::Canceled,
        VerdictWord::Diverged => api::build::VerdictWord::Diverged,
    }
}

/// How one learns that a build goes on.
pub enum News<'a> {
    /// From the files of this machine.
    Files(&'a Places),
    /// From a server, which tells all of the build from its beginning.
    Stream(Box<Stream>),
}

/// What a server tells of a build, also over broken connections.
pub struct Stream {
    link: Link,
    moments: Moments,
    /// Whether it was told that the server is away.
    is_told: bool,
}

impl Stream {
    /// What happened next; `None` once the build has ended.
    ///
    /// # Errors
    /// As the server refuses for good.
    pub fn next(&mut self) -> Result<Option<Moment>, Stop> {
        let Self { link, moments, is_told } = self;
        link.wait(async {
            let mut looks = tokio::time::interval(std::time::Duration::from_millis(500));
            loop {
                let told = tokio::time::timeout_at(looks.tick().await + looks.period(), moments.next()).await;
                if let Ok(told) = told {
                    *is_told = false;
                    return told.map(|told| told.map(|told| told.moment)).map_err(stop);
                }
                if moments.failures() >= FAILURES_TOLD && !std::mem::replace(is_told, true) {
                    eprintln!("note: the server is away; waiting for it");
                }
            }
        })
    }

    /// Whether the next is here already.
    pub fn is_at_hand(&self) -> bool {
        self.moments.is_at_hand()
    }
}
