//! The calls that answer with one value, in the order of the table of routes.

use graph::{BuildId, Digest};

use super::{Client, ClientError};
use crate::audit::AuditEntry;
use crate::build::{
    Build, BuildFilter, Cancel, Diagnostic, Rebuild, Retried, Retry, RetryJob, Submit, Submitted, Touched, Urge,
};
use crate::cache::{CacheTotals, CacheUse, Evict, Explained, KeyedCache, Operation};
use crate::comparison::Comparison;
use crate::environment::JobEnvironment;
use crate::event::EventWord;
use crate::job::{Artifact, Attempt, Gate, GateAnswer, Job, JobState, Test, TestOutcome, Waiting};
use crate::log::{LogGroups, LogHits, LogSummary};
use crate::member::{Invitation, Join, Member, NewMember, NewRole, Taken};
use crate::overview::Overview;
use crate::page::Page;
use crate::pool::{Hold, Pool, PoolHistory, Queued, WorkerTime};
use crate::project::{Project, ProjectSettings, Secret, SecretValue};
use crate::quarantine::{NewQuarantine, Quarantined, Runs};
use crate::test_history::{TestRun, TestSummary};
use crate::token::{Created, Grant, Health, Inspected, Narrow, Setup, Token, TokenText, Version, Whoami};
use crate::worker_view::{Stop, Worker};

/// Which page of a list. The default is the first, of the usual length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageWanted {
    /// The `next` of the page before.
    pub cursor: Option<String>,
    /// How many items at most.
    pub limit: Option<u32>,
}

/// Which jobs of a build, attempts or artifacts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobsWanted {
    /// Only those that stand so.
    pub state: Option<JobState>,
    /// Only those with a step that has this in its name.
    pub step: Option<String>,
}

/// Which tests of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestsWanted {
    /// Only of this job.
    pub job: Option<String>,
    /// Only those that ended in one of these ways; all if it is empty.
    pub outcomes: Vec<TestOutcome>,
    /// Only those that are in quarantine now, or only those that are not.
    pub quarantined: Option<bool>,
    /// Of each test of a job only its newest result.
    pub newest: bool,
}

/// Which test, and in which builds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestWanted {
    /// Its suite.
    pub suite: String,
    /// Its name within the suite.
    pub name: String,
    /// Only as this job reported it.
    pub job: Option<String>,
    /// Only in builds of this branch.
    pub branch: Option<String>,
}

/// Which actions of the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditWanted {
    /// Only of this project.
    pub project: Option<String>,
    /// Only by this person or program.
    pub who: Option<String>,
}

/// The word of an enum as it stands in a query.
fn word<T: serde::Serialize>(value: Option<T>) -> Option<String> {
    let value = serde_json::to_value(value?).ok()?;
    value.as_str().map(str::to_owned)
}

/// The words of enums as they stand in a query, with commas between them; `None` of none.
fn words<T: serde::Serialize>(values: &[T]) -> Option<String> {
    let words: Vec<String> = values.iter().filter_map(|value| word(Some(value))).collect();
    (!words.is_empty()).then(|| words.join(","))
}

/// All calls fail as [`ClientError`] says; none panics.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
impl Client {
    /// Says that the process answers.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.call("health", &[]).answer().await
    }

    /// Says whether the server does its work.
    pub async fn ready(&self) -> Result<Health, ClientError> {
        self.call("ready", &[]).answer().await
    }

    /// The OpenAPI document.
    pub async fn openapi(&self) -> Result<serde_json::Value, ClientError> {
        self.call("openapi", &[]).answer().await
    }

    /// Makes the first administrator, once.
    pub async fn setup(&self, setup: &Setup) -> Result<Created, ClientError> {
        self.call("setup", &[]).json(setup).answer().await
    }

    /// What Prometheus reads.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let text = self.call("metrics", &[]).text().await?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// What runs there.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.call("version", &[]).answer().await
    }

    /// Who the token says we are.
    pub async fn whoami(&self) -> Result<Whoami, ClientError> {
        self.call("whoami", &[]).answer().await
    }

    /// Projects, by name.
    pub async fn project_list(&self, page: &PageWanted) -> Result<Page<Project>, ClientError> {
        self.page("project_list", &[], page).answer().await
    }

    /// A project.
    pub async fn project_get(&self, project: &str) -> Result<Project, ClientError> {
        self.call("project_get", &[&project]).answer().await
    }

    /// Makes a project, or changes its settings as a whole.
    pub async fn project_put(&self, project: &str, settings: &ProjectSettings) -> Result<Project, ClientError> {
        self.call("project_put", &[&project]).json(settings).answer().await
    }

    /// Forgets a project and its secrets.
    pub async fn project_delete(&self, project: &str) -> Result<(), ClientError> {
        self.call("project_delete", &[&project]).done().await
    }

    /// How a project's branches, pull requests and tags stand.
    pub async fn project_overview(&self, project: &str) -> Result<Overview, ClientError> {
        self.call("project_overview", &[&project]).answer().await
    }

    /// How the last build of a branch ended, drawn as SVG.
    pub async fn project_badge(&self, project: &str, branch: Option<&str>) -> Result<String, ClientError> {
        let text = self.call("project_badge", &[&project]).query("branch", branch).text().await?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// How one test ended in a project's builds, newest first.
    pub async fn test_history(
        &self,
        project: &str,
        wanted: &TestWanted,
        page: &PageWanted,
    ) -> Result<Page<TestRun>, ClientError> {
        self.page("test_history", &[&project], page)
            .query("name", Some(&wanted.name))
            .query("suite", Some(&wanted.suite))
            .query("job", wanted.job.as_ref())
            .query("branch", wanted.branch.as_ref())
            .answer()
            .await
    }

    /// The tests of a project that are in quarantine: expired ones first, then by their end.
    pub async fn quarantine_list(&self, project: &str, runs: Runs) -> Result<Page<Quarantined>, ClientError> {
        let runs = Some(runs == Runs::Told).filter(|is_told| *is_told);
        self.call("quarantine_list", &[&project]).query("runs", runs).answer().await
    }

    /// Puts a test into quarantine, or changes what is said of one that is.
    pub async fn quarantine_put(&self, project: &str, test: &NewQuarantine) -> Result<Quarantined, ClientError> {
        self.call("quarantine_put", &[&project]).json(test).answer().await
    }

    /// Takes a test out of quarantine; `job` is the one as of which it was put there.
    pub async fn quarantine_delete(
        &self,
        project: &str,
        (suite, name): (&str, &str),
        job: Option<&str>,
    ) -> Result<(), ClientError> {
        let call = self.call("quarantine_delete", &[&project]).query("name", Some(name)).query("suite", Some(suite));
        call.query("job", job).done().await
    }

    /// A build by its number in a project.
    pub async fn build_numbered(&self, project: &str, number: u64) -> Result<Build, ClientError> {
        self.call("build_numbered", &[&project, &number]).answer().await
    }

    /// The names of a project's secrets.
    pub async fn secret_list(&self, project: &str) -> Result<Page<Secret>, ClientError> {
        self.call("secret_list", &[&project]).answer().await
    }

    /// Sets a secret.
    pub async fn secret_put(&self, project: &str, secret: &str, value: &SecretValue) -> Result<(), ClientError> {
        self.call("secret_put", &[&project, &secret]).json(value).done().await
    }

    /// Removes a secret.
    pub async fn secret_delete(&self, project: &str, secret: &str) -> Result<(), ClientError> {
        self.call("secret_delete", &[&project, &secret]).done().await
    }

    /// Builds, newest first.
    pub async fn build_list(&self, filter: &BuildFilter, page: &PageWanted) -> Result<Page<Build>, ClientError> {
        let BuildFilter { project, branch, commit, event, verdict, pipeline, search, before } = filter;
        self.page("build_list", &[], page)
            .query("project", project.as_ref())
            .query("branch", branch.as_ref())
            .query("commit", commit.as_ref())
            .query("event", word::<EventWord>(*event))
            .query("verdict", verdict.map(|verdict| verdict.word()))
            .query("pipeline", pipeline.as_ref())
            .query("search", search.as_ref())
            .query("before", before.as_ref())
            .answer()
            .await
    }

    /// Asks for a build. When it answers, the build is durably kept.
    pub async fn build_submit(&self, submit: &Submit) -> Result<Submitted, ClientError> {
        self.call("build_submit", &[]).json(submit).answer().await
    }

    /// A build.
    pub async fn build_get(&self, build: BuildId) -> Result<Build, ClientError> {
        self.call("build_get", &[&build]).answer().await
    }

    /// Puts a build before those that are not urgent.
    pub async fn build_urge(&self, build: BuildId, said: &Urge) -> Result<Build, ClientError> {
        self.call("build_urge", &[&build]).json(said).answer().await
    }

    /// Cancels a build.
    pub async fn build_cancel(&self, build: BuildId, cancel: &Cancel) -> Result<Build, ClientError> {
        self.call("build_cancel", &[&build]).json(cancel).answer().await
    }

    /// Runs jobs of a build again, within it.
    pub async fn build_retry(&self, build: BuildId, retry: &Retry) -> Result<Retried, ClientError> {
        self.call("build_retry", &[&build]).json(retry).answer().await
    }

    /// Builds the same files and inputs anew.
    pub async fn build_rebuild(&self, build: BuildId, rebuild: &Rebuild) -> Result<Submitted, ClientError> {
        self.call("build_rebuild", &[&build]).json(rebuild).answer().await
    }

    /// The graph as it was last evaluated.
    pub async fn build_graph(&self, build: BuildId) -> Result<serde_json::Value, ClientError> {
        self.call("build_graph", &[&build]).answer().await
    }

    /// What the last evaluation found wrong with the pipeline.
    pub async fn build_diagnostics(&self, build: BuildId) -> Result<Page<Diagnostic>, ClientError> {
        self.call("build_diagnostics", &[&build]).answer().await
    }

    /// What differs between two builds.
    pub async fn build_compare(&self, build: BuildId, other: BuildId) -> Result<Comparison, ClientError> {
        self.call("build_compare", &[&build, &other]).answer().await
    }

    /// Cancels all builds of a commit, or those of one project.
    pub async fn commit_cancel(
        &self,
        commit: &str,
        project: Option<&str>,
        cancel: &Cancel,
    ) -> Result<Touched, ClientError> {
        self.call("commit_cancel", &[&commit]).query("project", project).json(cancel).answer().await
    }

    /// The jobs of a build, by name.
    pub async fn job_list(
        &self,
        build: BuildId,
        wanted: &JobsWanted,
        page: &PageWanted,
    ) -> Result<Page<Job>, ClientError> {
        let call = self.page("job_list", &[&build], page);
        call.query("state", word(wanted.state)).query("step", wanted.step.clone()).answer().await
    }

    /// A job.
    pub async fn job_get(&self, build: BuildId, job: &str) -> Result<Job, ClientError> {
        self.call("job_get", &[&build, &job]).answer().await
    }

    /// What a job runs in, and its variables.
    pub async fn job_environment(&self, build: BuildId, job: &str) -> Result<JobEnvironment, ClientError> {
        self.call("job_environment", &[&build, &job]).answer().await
    }

    /// Why a job has not begun.
    pub async fn job_why(&self, build: BuildId, job: &str) -> Result<Waiting, ClientError> {
        self.call("job_why", &[&build, &job]).answer().await
    }

    /// Cancels a job.
    pub async fn job_cancel(&self, build: BuildId, job: &str, cancel: &Cancel) -> Result<Job, ClientError> {
        self.call("job_cancel", &[&build, &job]).json(cancel).answer().await
    }

    /// Runs a job again, whole or some of its tests.
    pub async fn job_retry(&self, build: BuildId, job: &str, retry: &RetryJob) -> Result<Retried, ClientError> {
        self.call("job_retry", &[&build, &job]).json(retry).answer().await
    }

    /// Attempts, by number, of a build or of one job, without their reports.
    pub async fn attempt_list(
        &self,
        build: BuildId,
        job: Option<&str>,
        page: &PageWanted,
    ) -> Result<Page<Attempt>, ClientError> {
        self.page("attempt_list", &[&build], page).query("job", job).answer().await
    }

    /// Attempts, by number, of a build or of one job, with their reports.
    pub async fn attempt_reports(
        &self,
        build: BuildId,
        job: Option<&str>,
        page: &PageWanted,
    ) -> Result<Page<Attempt>, ClientError> {
        self.page("attempt_list", &[&build], page).query("job", job).query("reports", Some("true")).answer().await
    }

    /// An attempt with its report.
    pub async fn attempt_get(&self, build: BuildId, attempt: u32) -> Result<Attempt, ClientError> {
        self.call("attempt_get", &[&build, &attempt]).answer().await
    }

    /// What the steps of all attempts printed, or of those at one job, in short.
    pub async fn log_list(
        &self,
        build: BuildId,
        job: Option<&str>,
        page: &PageWanted,
    ) -> Result<Page<LogSummary>, ClientError> {
        self.page("log_list", &[&build], page).query("job", job).answer().await
    }

    /// What the steps of an attempt printed, in short.
    pub async fn log_summary(&self, build: BuildId, attempt: u32) -> Result<LogSummary, ClientError> {
        self.call("log_summary", &[&build, &attempt]).answer().await
    }

    /// Lines of a step that match a regular expression.
    pub async fn log_search(
        &self,
        build: BuildId,
        attempt: u32,
        step: u16,
        regex: &str,
        page: &PageWanted,
    ) -> Result<LogHits, ClientError> {
        self.page("log_search", &[&build, &attempt, &step], page).query("regex", Some(regex)).answer().await
    }

    /// The groups of lines in the log of a step.
    pub async fn log_groups(&self, build: BuildId, attempt: u32, step: u16) -> Result<LogGroups, ClientError> {
        self.call("log_groups", &[&build, &attempt, &step]).answer().await
    }

    /// The tests that the jobs of a build reported.
    pub async fn test_list(
        &self,
        build: BuildId,
        wanted: &TestsWanted,
        page: &PageWanted,
    ) -> Result<Page<Test>, ClientError> {
        self.page("test_list", &[&build], page)
            .query("job", wanted.job.as_ref())
            .query("outcome", words(&wanted.outcomes))
            .query("quarantined", wanted.quarantined)
            .query("newest", wanted.newest.then_some(true))
            .answer()
            .await
    }

    /// Which failures of a build are new, which were there before and which come and go.
    pub async fn test_summary(&self, build: BuildId) -> Result<TestSummary, ClientError> {
        self.call("test_summary", &[&build]).answer().await
    }

    /// What the jobs of a build, or one of them, hand on.
    pub async fn artifact_list(&self, build: BuildId, job: Option<&str>) -> Result<Page<Artifact>, ClientError> {
        self.call("artifact_list", &[&build]).query("job", job).answer().await
    }

    /// The gates of a build that opened.
    pub async fn gate_list(&self, build: BuildId) -> Result<Page<Gate>, ClientError> {
        self.call("gate_list", &[&build]).answer().await
    }

    /// Answers a gate.
    pub async fn gate_answer(&self, build: BuildId, job: &str, answer: &GateAnswer) -> Result<Gate, ClientError> {
        self.call("gate_answer", &[&build, &job]).json(answer).answer().await
    }

    /// Pools, by name.
    pub async fn pool_list(&self) -> Result<Page<Pool>, ClientError> {
        self.call("pool_list", &[]).answer().await
    }

    /// A pool.
    pub async fn pool_get(&self, pool: &str) -> Result<Pool, ClientError> {
        self.call("pool_get", &[&pool]).answer().await
    }

    /// How a pool stood over the last hour.
    pub async fn pool_history(&self, pool: &str) -> Result<PoolHistory, ClientError> {
        self.call("pool_history", &[&pool]).answer().await
    }

    /// How long workers were busy for each project.
    pub async fn worker_time(&self) -> Result<WorkerTime, ClientError> {
        self.call("worker_time", &[]).answer().await
    }

    /// Holds a pool.
    pub async fn pool_hold(&self, pool: &str, hold: &Hold) -> Result<Pool, ClientError> {
        self.call("pool_hold", &[&pool]).json(hold).answer().await
    }

    /// Releases a pool.
    pub async fn pool_release(&self, pool: &str, hold: &Hold) -> Result<Pool, ClientError> {
        self.call("pool_release", &[&pool]).json(hold).answer().await
    }

    /// The jobs that wait in a pool, with reasons.
    pub async fn pool_queue(&self, pool: &str, page: &PageWanted) -> Result<Page<Queued>, ClientError> {
        self.page("pool_queue", &[&pool], page).answer().await
    }

    /// Workers, by id.
    pub async fn worker_list(&self) -> Result<Page<Worker>, ClientError> {
        self.call("worker_list", &[]).answer().await
    }

    /// A worker.
    pub async fn worker_get(&self, worker: &str) -> Result<Worker, ClientError> {
        self.call("worker_get", &[&worker]).answer().await
    }

    /// Pauses a worker.
    pub async fn worker_pause(&self, worker: &str, stop: &Stop) -> Result<Worker, ClientError> {
        self.call("worker_pause", &[&worker]).json(stop).answer().await
    }

    /// Lets a worker take jobs again.
    pub async fn worker_resume(&self, worker: &str, stop: &Stop) -> Result<Worker, ClientError> {
        self.call("worker_resume", &[&worker]).json(stop).answer().await
    }

    /// Drains a worker.
    pub async fn worker_drain(&self, worker: &str, stop: &Stop) -> Result<Worker, ClientError> {
        self.call("worker_drain", &[&worker]).json(stop).answer().await
    }

    /// Has a worker finish what runs and start the program that is on its disk now.
    pub async fn worker_update(&self, worker: &str, stop: &Stop) -> Result<Worker, ClientError> {
        self.call("worker_update", &[&worker]).json(stop).answer().await
    }

    /// Forgets a worker that is away; the audit keeps why.
    pub async fn worker_forget(&self, worker: &str, stop: &Stop) -> Result<(), ClientError> {
        let reason = Some(&stop.reason).filter(|reason| !reason.is_empty());
        self.call("worker_forget", &[&worker]).query("reason", reason).done().await
    }

    /// Results that are kept, newest first, of one job if it is named.
    pub async fn operation_list(&self, job: Option<&str>, limit: Option<u32>) -> Result<Page<Operation>, ClientError> {
        self.call("operation_list", &[]).query("job", job).query("limit", limit).answer().await
    }

    /// What an operation is made of.
    pub async fn operation_explain(&self, operation: Digest) -> Result<Explained, ClientError> {
        self.call("operation_explain", &[&operation]).answer().await
    }

    /// Keyed directories, newest first.
    pub async fn cache_list(&self, limit: Option<u32>) -> Result<Page<KeyedCache>, ClientError> {
        self.call("cache_list", &[]).query("limit", limit).answer().await
    }

    /// What keyed directories a project has.
    pub async fn cache_totals(&self, project: &str) -> Result<CacheTotals, ClientError> {
        self.call("cache_totals", &[&project]).answer().await
    }

    /// What jobs of a project did with keyed directories, newest first; of one key if it is given.
    pub async fn cache_uses(
        &self,
        project: &str,
        key: Option<&str>,
        page: &PageWanted,
    ) -> Result<Page<CacheUse>, ClientError> {
        self.page("cache_uses", &[&project], page).query("key", key).answer().await
    }

    /// Evicts a result or a keyed directory.
    pub async fn cache_evict(&self, evict: &Evict) -> Result<(), ClientError> {
        self.call("cache_evict", &[]).json(evict).done().await
    }

    /// Members, by name; of one project, or all that the caller administers.
    pub async fn member_list(&self, project: Option<&str>, page: &PageWanted) -> Result<Page<Member>, ClientError> {
        self.page("member_list", &[], page).query("project", project).answer().await
    }

    /// Adds a member. The link of the answer is shown this once.
    pub async fn member_add(&self, member: &NewMember) -> Result<Invitation, ClientError> {
        self.call("member_add", &[]).json(member).answer().await
    }

    /// Gives a member another role.
    pub async fn member_role(&self, member: &str, role: &NewRole) -> Result<Member, ClientError> {
        self.call("member_role", &[&member]).json(role).answer().await
    }

    /// Takes a role from a member, or all of them.
    pub async fn member_remove(&self, member: &str, taken: Taken<'_>) -> Result<(), ClientError> {
        let (project, everywhere) = match taken {
            Taken::All => (None, None),
            Taken::Everywhere => (None, Some(true)),
            Taken::Project(project) => (Some(project), None),
        };
        let call = self.call("member_remove", &[&member]).query("project", project);
        call.query("everywhere", everywhere).done().await
    }

    /// A link by which a member signs in once more.
    pub async fn member_link(&self, member: &str) -> Result<Invitation, ClientError> {
        self.call("member_link", &[&member]).answer().await
    }

    /// Signs in by a link.
    pub async fn member_join(&self, join: &Join) -> Result<Created, ClientError> {
        self.call("member_join", &[]).json(join).answer().await
    }

    /// The tokens that were made there, by id.
    pub async fn token_list(&self, page: &PageWanted) -> Result<Page<Token>, ClientError> {
        self.page("token_list", &[], page).answer().await
    }

    /// Makes a token.
    pub async fn token_create(&self, grant: &Grant) -> Result<Created, ClientError> {
        self.call("token_create", &[]).json(grant).answer().await
    }

    /// A weaker token than the one of this client.
    pub async fn token_narrow(&self, narrow: &Narrow) -> Result<Created, ClientError> {
        self.call("token_narrow", &[]).json(narrow).answer().await
    }

    /// What a token's text grants, and whether it holds there.
    pub async fn token_inspect(&self, text: &TokenText) -> Result<Inspected, ClientError> {
        self.call("token_inspect", &[]).json(text).answer().await
    }

    /// A token, without its text.
    pub async fn token_get(&self, token: &str) -> Result<Token, ClientError> {
        self.call("token_get", &[&token]).answer().await
    }

    /// Revokes a token with all that was narrowed from it.
    pub async fn token_revoke(&self, token: &str) -> Result<(), ClientError> {
        self.call("token_revoke", &[&token]).done().await
    }

    /// Who did what, newest first.
    pub async fn audit_list(&self, wanted: &AuditWanted, page: &PageWanted) -> Result<Page<AuditEntry>, ClientError> {
        self.page("audit_list", &[], page)
            .query("project", wanted.project.as_ref())
            .query("who", wanted.who.as_ref())
            .answer()
            .await
    }

    fn page(
        &self,
        operation: &str,
        open: &[&(dyn std::fmt::Display + Sync)],
        page: &PageWanted,
    ) -> super::request::Call<'_> {
        self.call(operation, open).query("cursor", page.cursor.as_ref()).query("limit", page.limit)
    }
}
