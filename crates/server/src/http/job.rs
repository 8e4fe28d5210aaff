//! Jobs of a build, their attempts, tests, artifacts and gates, and why a job waits.

use std::sync::Arc;

use api::job::{Estimate, Job, JobState, TestOutcome, WaitReason, Waiting};
use api::page::Page;
use api::problem::Problem;
use engine::JobState as Stands;
use graph::{AttemptNumber, BuildId, Digest, Graph, JobName, Resources, Timestamp};
use store::rows::GateRow;

use super::answer::{self, Answered, Wanted, exactly, range, ranged};
use super::call::Call;
use super::{App, convert, problem};
use crate::dispatch::SessionView;
use crate::records::{DEFAULT_POOL, PoolRecord};

/// The media type of an artifact.
const TAR: &str = "application/x-tar";

fn graph_of(app: &App, build: BuildId) -> Result<Arc<Graph>, Problem> {
    Ok(app.server.store.graph(build).map_err(problem::store)?.unwrap_or_default())
}

/// One job.
pub fn one(app: &App, build: BuildId, name: &JobName) -> Result<Job, Problem> {
    let graph = graph_of(app, build)?;
    let row = app.server.store.jobs(build).map_err(problem::store)?.into_iter().find(|row| row.name == *name);
    let spec = graph.jobs.get(name);
    if spec.is_none() && row.is_none() {
        return Err(problem::not_found(format_args!("job `{name}` in build {build}")));
    }
    let usual = app.server.store.usual_duration_ms(name).map_err(problem::store)?;
    Ok(convert::job(build, name, spec.map(|spec| &**spec), row.as_ref(), usual))
}

pub async fn list(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let state = call.word::<JobState>("state", "waiting, running or ended")?;
    let (limit, after) = (call.limit()?, call.cursor::<String>()?);
    let page = app
        .blocking(move |app| {
            let graph = graph_of(app, build)?;
            let rows = app.server.store.jobs(build).map_err(problem::store)?;
            let rows: std::collections::BTreeMap<_, _> = rows.iter().map(|row| (&row.name, row)).collect();
            let names: std::collections::BTreeSet<&JobName> = graph.jobs.keys().chain(rows.keys().copied()).collect();
            let behind = names.into_iter().filter(|name| after.as_deref().is_none_or(|after| name.as_str() > after));
            let job = |name: &JobName| {
                convert::job(build, name, graph.jobs.get(name).map(|spec| &**spec), rows.get(name).copied(), None)
            };
            let jobs = behind.map(job).filter(|job| state.is_none_or(|state| job.state == state));
            let mut page = cut(jobs, limit, |job| job.name.clone());
            let shown: Vec<JobName> = page.items.iter().map(|job| JobName::from(job.name.as_str())).collect();
            let usual = app.server.store.durations(&shown).map_err(problem::store)?;
            for job in &mut page.items {
                job.usual_ms = usual.get(job.name.as_str()).copied();
            }
            Ok(page)
        })
        .await?;
    answer::json(&page)
}

/// The first `limit` items, and where to go on if there are more: behind the last of them.
pub fn cut<T>(mut items: impl Iterator<Item = T>, limit: u32, cursor: impl Fn(&T) -> String) -> Page<T> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let page: Vec<T> = items.by_ref().take(most).collect();
    let next = if items.next().is_some() { page.last().map(cursor) } else { None };
    Page { items: page, next }
}

pub async fn get(app: Arc<App>, call: Call) -> Answered {
    let (build, name) = (call.build()?, JobName::from(call.segment("job")));
    answer::json(&app.blocking(move |app| one(app, build, &name)).await?)
}

pub async fn attempts(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let (limit, after) = (call.limit()?, call.cursor::<u32>()?);
    let job = call.text("job").map(JobName::from);
    let rows = app.blocking(move |app| app.server.store.attempts(build, job.as_ref()).map_err(problem::store)).await?;
    let behind = rows.iter().filter(|row| after.is_none_or(|after| row.attempt.0 > after));
    let attempts = behind.map(|row| convert::attempt(row, None));
    answer::json(&cut(attempts, limit, |attempt| attempt.attempt.to_string()))
}

pub async fn attempt(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let number = AttemptNumber(call.segment_as("attempt", "the number of an attempt")?);
    let attempt = app
        .blocking(move |app| {
            let rows = app.server.store.attempts(build, None).map_err(problem::store)?;
            let row = rows.into_iter().find(|row| row.attempt == number);
            let row = row.ok_or_else(|| problem::not_found(format_args!("attempt {number} of build {build}")))?;
            let reports = app.server.store.reports(build, Some(&row.job)).map_err(problem::store)?;
            let report = reports.iter().find(|(attempt, _)| *attempt == number).map(|(_, report)| report);
            Ok(convert::attempt(&row, report))
        })
        .await?;
    answer::json(&attempt)
}

pub async fn tests(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let outcome = call.word::<TestOutcome>("outcome", "passed, failed, errored or skipped")?;
    let job = call.text("job").map(str::to_owned);
    let (limit, from) = (call.limit()?, call.cursor::<usize>()?.unwrap_or(0));
    let rows = app.blocking(move |app| app.server.store.tests(build).map_err(problem::store)).await?;
    let wanted = rows.iter().enumerate().skip(from).filter(|(_, row)| {
        job.as_deref().is_none_or(|job| row.job.as_str() == job)
            && outcome.is_none_or(|outcome| TestOutcome::from(row.case.outcome) == outcome)
    });
    let page = cut(wanted, limit, |(place, _)| (place + 1).to_string());
    answer::json(&Page { items: page.items.into_iter().map(|(_, row)| convert::test(row)).collect(), next: page.next })
}

pub async fn artifacts(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let job = call.text("job").map(str::to_owned);
    let rows = app.blocking(move |app| app.server.store.artifacts(build).map_err(problem::store)).await?;
    let wanted = rows.iter().filter(|row| job.as_deref().is_none_or(|job| row.job.as_str() == job));
    answer::page(wanted.map(convert::artifact).collect())
}

pub async fn artifact(app: Arc<App>, call: Call) -> Answered {
    let (build, digest) = (call.build()?, call.digest()?);
    let headers = call.headers.clone();
    let (wanted, length, reader) = app
        .blocking(move |app| {
            // A blob is shown only to those who may see a build that hands it on.
            let rows = app.server.store.artifacts(build).map_err(problem::store)?;
            if !rows.iter().any(|row| row.artifact.digest == digest) {
                return Err(problem::not_found(format_args!("artifact {digest} in build {build}")));
            }
            let length = app.server.blobs.length(digest).map_err(problem::blob)?;
            let wanted = range(&headers, length)?;
            let reader = open(app, digest, wanted)?;
            Ok((wanted, length, reader))
        })
        .await?;
    let sent = match wanted {
        Wanted::Whole => length,
        Wanted::Part(start, end) => end - start,
    };
    Ok(ranged(wanted, length, TAR, exactly(sent, reader)))
}

fn open(app: &App, digest: Digest, wanted: Wanted) -> Result<Box<dyn std::io::Read + Send>, Problem> {
    match wanted {
        Wanted::Whole => app.server.blobs.open(digest),
        Wanted::Part(start, end) => app.server.blobs.open_range(digest, start..end),
    }
    .map_err(problem::blob)
}

/// The gate of a job, as it stands, and its form.
pub fn gate(app: &App, build: BuildId, job: &JobName) -> Result<(GateRow, graph::Gate), Problem> {
    let gates = app.server.store.gates(build).map_err(problem::store)?;
    let gate = gates.into_iter().find(|gate| gate.job == *job);
    let gate = gate.ok_or_else(|| problem::not_found(format_args!("gate `{job}` that has opened in build {build}")))?;
    let spec = graph_of(app, build)?.jobs.get(job).and_then(|spec| spec.gate.clone()).unwrap_or_default();
    Ok((gate, spec))
}

pub async fn gates(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let gates = app
        .blocking(move |app| {
            let graph = graph_of(app, build)?;
            let rows = app.server.store.gates(build).map_err(problem::store)?;
            let form = |job: &JobName| graph.jobs.get(job).and_then(|spec| spec.gate.as_ref());
            Ok(rows.iter().map(|row| convert::gate(row, form(&row.job))).collect::<Vec<_>>())
        })
        .await?;
    answer::page(gates)
}

pub async fn why(app: Arc<App>, call: Call) -> Answered {
    let (build, name) = (call.build()?, JobName::from(call.segment("job")));
    let asked = name.clone();
    let stands = app.server.shell.ask(move |engine| standing(engine, build, &asked)).await.map_err(problem::stopped)?;
    let waiting = app.blocking(move |app| waiting(app, build, &name, stands)).await?;
    answer::json(&waiting)
}

/// How a job stands in the engine, without what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Decided with the next step.
    Undecided,
    /// At its gate.
    Gated,
    /// Its operation is worked out.
    Resolving,
    /// Behind an equal operation.
    Following,
    /// Behind its concurrency group.
    Grouped,
    /// In its pool's queue; whether a worker that is there could run it.
    Queued(Runnable),
    /// Between two tries.
    Sleeping(Timestamp),
    /// It runs or has ended.
    Begun,
}

/// Whether a worker that is there could run a job if it were idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runnable {
    /// One could.
    Yes,
    /// None could.
    No,
}

/// How a job stands; `None` if the engine does not hold it.
fn standing(engine: &engine::Engine, build: BuildId, job: &JobName) -> Option<Standing> {
    Some(match engine.job(build, job)? {
        Stands::Waiting => Standing::Undecided,
        Stands::Gated => Standing::Gated,
        Stands::Resolving => Standing::Resolving,
        Stands::Following => Standing::Following,
        Stands::Grouped => Standing::Grouped,
        Stands::Queued => {
            let is_unmatched = engine.unmatched().iter().any(|(of, name)| *of == build && name == job);
            Standing::Queued(if is_unmatched { Runnable::No } else { Runnable::Yes })
        }
        Stands::Leased { .. } | Stands::Ended(_) => Standing::Begun,
        Stands::Sleeping { until } => Standing::Sleeping(until),
    })
}

/// Why a job waits, as data and as a sentence.
fn waiting(app: &App, build: BuildId, name: &JobName, stands: Option<Standing>) -> Result<Waiting, Problem> {
    let graph = graph_of(app, build)?;
    let rows = app.server.store.jobs(build).map_err(problem::store)?;
    let row = rows.iter().find(|row| row.name == *name);
    let Some(spec) = graph.jobs.get(name) else {
        return match row {
            Some(_) => Ok(told(build, name, WaitReason::Nothing, "it has ended".to_owned())),
            None => Err(problem::not_found(format_args!("job `{name}` in build {build}"))),
        };
    };
    let pool = if spec.pool.is_empty() { DEFAULT_POOL } else { spec.pool.as_str() };
    let (reason, text) = match stands {
        None | Some(Standing::Begun) => (WaitReason::Nothing, "it runs or has ended".to_owned()),
        Some(Standing::Undecided) => {
            let open =
                |job: &JobName| !rows.iter().any(|row| row.name == *job && row.state == store::rows::JobState::Ended);
            let jobs: Vec<String> =
                spec.needs.iter().filter(|need| open(&need.job)).map(|need| need.job.to_string()).collect();
            let text = format!("it waits for {}", quoted(&jobs));
            (WaitReason::Needs { jobs }, text)
        }
        Some(Standing::Gated) => {
            let gates = app.server.store.gates(build).map_err(problem::store)?;
            let prompt = gates.into_iter().find(|gate| gate.job == *name).map(|gate| gate.prompt).unwrap_or_default();
            let text = format!("it waits for a person: {prompt}");
            (WaitReason::Gate { prompt }, text)
        }
        Some(Standing::Resolving | Standing::Following) => {
            (WaitReason::Resolving, "it is seen whether an equal operation has passed, or is under way".to_owned())
        }
        Some(Standing::Sleeping(until)) => {
            let at = api::time::Time(until);
            (WaitReason::Retry { at }, format!("its next try may begin at {at}"))
        }
        Some(Standing::Grouped) => {
            let group = spec.concurrency.as_ref().map(|group| group.group.to_string()).unwrap_or_default();
            let text = format!("another job of the group `{group}` runs or goes before it");
            (WaitReason::Concurrency { group, holder: None }, text)
        }
        Some(Standing::Queued(runnable)) => queued(app, pool, spec, runnable)?,
    };
    let mut waiting = told(build, name, reason, text);
    waiting.estimate = estimate(app, name, &waiting.reason)?;
    Ok(waiting)
}

fn told(build: BuildId, name: &JobName, reason: WaitReason, text: String) -> Waiting {
    Waiting { build, job: name.to_string(), reason, text, estimate: None }
}

fn quoted(jobs: &[String]) -> String {
    if jobs.is_empty() {
        return "a decision that comes with the next step".to_owned();
    }
    jobs.iter().map(|job| format!("`{job}`")).collect::<Vec<_>>().join(", ")
}

fn queued(app: &App, pool: &str, spec: &graph::Job, runnable: Runnable) -> Result<(WaitReason, String), Problem> {
    let held = app.server.records.read::<PoolRecord>(pool).map_err(problem::record)?;
    if let Some(said) = held.and_then(|(record, _)| record.held) {
        let text = format!("the pool `{pool}` is held by {}: {}", said.by, said.reason);
        return Ok((WaitReason::Held { pool: pool.to_owned(), by: said.by, reason: said.reason }, text));
    }
    if runnable == Runnable::No {
        let missing = missing(&app.server.dispatch.sessions(), pool, spec);
        let text = format!("no worker can run it: {missing}");
        return Ok((WaitReason::NoWorker { pool: pool.to_owned(), missing }, text));
    }
    let text = format!("it waits for a worker of the pool `{pool}`");
    Ok((WaitReason::Queue { pool: pool.to_owned(), position: None, holders: Vec::new() }, text))
}

/// What no worker has that a job needs, for people.
fn missing(workers: &[SessionView], pool: &str, spec: &graph::Job) -> String {
    let of_pool: Vec<&SessionView> = workers.iter().filter(|worker| worker.offer.pools.contains(pool)).collect();
    if of_pool.is_empty() {
        return format!("the pool `{pool}` has no worker; `ropewalk work --pool {pool}` starts one");
    }
    if let Some(label) =
        spec.labels.iter().find(|label| !of_pool.iter().any(|worker| worker.offer.labels.contains(*label)))
    {
        return format!("no worker of the pool `{pool}` has the label `{label}`");
    }
    let Resources { cpu_milli, memory_bytes } = spec.resources;
    let offers = |worker: &&SessionView| {
        let Resources { cpu_milli: cpu, memory_bytes: memory } = worker.offer.resources;
        (cpu == 0 || cpu >= cpu_milli) && (memory == 0 || memory >= memory_bytes)
    };
    if !of_pool.iter().any(offers) {
        return format!(
            "no worker of the pool `{pool}` has {cpu_milli} thousandths of a core and {memory_bytes} bytes"
        );
    }
    if let Some(reason) = of_pool.iter().find_map(|worker| worker.closed.as_ref()) {
        return format!("the workers of the pool `{pool}` take nothing new: {reason}");
    }
    format!("no worker of the pool `{pool}` has all of its labels and resources together")
}

/// In how long a job that waits for a worker may begin: between at once and the usual time of a job like it.
fn estimate(app: &App, name: &JobName, reason: &WaitReason) -> Result<Option<Estimate>, Problem> {
    if !matches!(reason, WaitReason::Queue { .. }) {
        return Ok(None);
    }
    let usual = app.server.store.usual_duration_ms(name).map_err(problem::store)?;
    Ok(usual.map(|usual| Estimate { low_ms: 0, likely_ms: usual / 2, high_ms: usual }))
}
