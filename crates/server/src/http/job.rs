//! Jobs of a build, their attempts, tests, artifacts and gates, and why a job waits.

use std::collections::HashMap;
use std::sync::Arc;

use api::job::{Attempt, Job, JobState, TestOutcome};
use api::page::Page;
use api::problem::Problem;
use graph::{AttemptNumber, BuildId, Digest, Graph, JobName};
use store::rows::GateRow;

use super::answer::{self, Answered, Wanted, exactly, range, ranged};
use super::build::row;
use super::call::Call;
use super::comparison::last_reports;
use super::quarantine::Notes;
use super::{App, convert, environment, problem, wait};
use crate::records::WorkerRecord;

/// The media type of an artifact.
const TAR: &str = "application/x-tar";

/// The graph of a build as it was last evaluated; empty if it never was. Blocks.
pub fn graph_of(app: &App, build: BuildId) -> Result<Arc<Graph>, Problem> {
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
    let project = super::build::row(app, build)?.origin.project;
    let usual = app.server.store.usual_duration_ms(&project, name).map_err(problem::store)?;
    let mut job = convert::job(build, name, spec.map(|spec| &**spec), row.as_ref(), usual);
    job.steps = spec.map(|spec| spec.steps.iter().map(graph::Step::title).collect()).unwrap_or_default();
    add_asking(app, build, std::slice::from_mut(&mut job))?;
    Ok(job)
}

/// Tells of jobs of a build whether their gates are open.
fn add_asking(app: &App, build: BuildId, jobs: &mut [Job]) -> Result<(), Problem> {
    if !jobs.iter().any(|job| job.gate && job.state == JobState::Waiting) {
        return Ok(());
    }
    let open = app.server.store.open_gates(build).map_err(problem::store)?;
    let open: std::collections::BTreeSet<&str> = open.iter().map(|gate| gate.job.as_str()).collect();
    for job in jobs.iter_mut().filter(|job| job.state == JobState::Waiting) {
        job.asking = open.contains(job.name.as_str());
    }
    Ok(())
}

pub async fn list(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let state = call.word::<JobState>("state", "waiting, running or ended")?;
    let (limit, after) = (call.limit()?, call.cursor::<String>()?);
    let step = call.text("step").map(str::to_lowercase);
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
            let spec = |name: &JobName| graph.jobs.get(name);
            let wanted = |name: &&JobName| {
                step.as_deref().is_none_or(|step| spec(name).is_some_and(|spec| has_step(spec, step)))
            };
            let jobs = behind.filter(wanted).map(job).filter(|job| state.is_none_or(|state| job.state == state));
            let mut page = cut(jobs, limit, |job| job.name.clone());
            let shown: Vec<JobName> = page.items.iter().map(|job| JobName::from(job.name.as_str())).collect();
            let project = row(app, build)?.origin.project;
            let usual = app.server.store.durations(&project, &shown).map_err(problem::store)?;
            for job in &mut page.items {
                job.usual_ms = usual.get(job.name.as_str()).copied();
            }
            add_asking(app, build, &mut page.items)?;
            Ok(page)
        })
        .await?;
    answer::json(&page)
}

/// Whether a job has a step with this, in small letters, in its name.
fn has_step(job: &graph::Job, text: &str) -> bool {
    let name = |step: &graph::Step| match step.name.as_written() {
        "" => step.script_title().to_lowercase(),
        name => name.to_lowercase(),
    };
    job.steps.iter().any(|step| name(step).contains(text))
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

pub async fn environment(app: Arc<App>, call: Call) -> Answered {
    let (build, name) = (call.build()?, JobName::from(call.segment("job")));
    let told = app.blocking(move |app| {
        let graph = graph_of(app, build)?;
        let job = graph.jobs.get(&name);
        let job = job.ok_or_else(|| problem::not_found(format_args!("job `{name}` in build {build}")))?;
        Ok(environment::of(build, &name, job, &super::build::row(app, build)?.event))
    });
    answer::json(&told.await?)
}

pub async fn attempts(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let (limit, after) = (call.limit()?, call.cursor::<u32>()?);
    let job = call.text("job").map(JobName::from);
    let with_reports = call.wanted::<bool>("reports", "true or false")?.unwrap_or(false);
    let mut page = app
        .blocking(move |app| {
            let store = &app.server.store;
            let rows = store.attempts(build, job.as_ref()).map_err(problem::store)?;
            // The first attempt at a job is never narrowed on a server; of later ones the reports say it.
            let is_read = with_reports || (job.is_some() && rows.len() > 1);
            let reports =
                if is_read { store.reports(build, job.as_ref()).map_err(problem::store)? } else { Vec::new() };
            let reports: HashMap<_, _> = reports.into_iter().collect();
            let behind = rows.iter().filter(|row| after.is_none_or(|after| row.attempt.0 > after));
            let attempts = behind.map(|row| {
                let mut attempt = convert::attempt(row, reports.get(&row.attempt));
                if let Some(end) = attempt.ended.as_mut().filter(|_| !with_reports) {
                    end.report = None;
                }
                attempt
            });
            let mut page = cut(attempts, limit, |attempt| attempt.attempt.to_string());
            name_workers(app, &mut page.items)?;
            Ok(page)
        })
        .await?;
    tell_of_running(&app, build, &mut page.items).await;
    answer::json(&page)
}

/// Says the names of the workers of these attempts, of those that are still known.
fn name_workers(app: &App, attempts: &mut [Attempt]) -> Result<(), Problem> {
    let mut names: HashMap<String, String> = HashMap::new();
    for attempt in attempts {
        if !names.contains_key(&attempt.worker) {
            let known = app.server.records.read::<WorkerRecord>(&attempt.worker).map_err(problem::record)?;
            names.insert(attempt.worker.clone(), known.map(|(record, _)| record.name).unwrap_or_default());
        }
        attempt.worker_name.clone_from(&names[&attempt.worker]);
    }
    Ok(())
}

/// Of the attempts that run, how many tests each is asked for and what it waited for: that no report says yet. A standby knows no more than the store.
async fn tell_of_running(app: &Arc<App>, build: BuildId, attempts: &mut [Attempt]) {
    let running: Vec<&mut Attempt> = attempts.iter_mut().filter(|attempt| attempt.ended.is_none()).collect();
    if running.is_empty() {
        return;
    }
    let jobs: Vec<JobName> = running.iter().map(|attempt| JobName::from(attempt.job.as_str())).collect();
    let of = move |engine: &engine::Engine| {
        let told = |job| (engine.partial(build, job), engine.waited_for(build, job).map(Into::into));
        jobs.iter().map(told).collect::<Vec<_>>()
    };
    let Ok(told) = app.server.shell.ask(of).await else { return };
    for (attempt, (partial, waited_for)) in running.into_iter().zip(told) {
        attempt.partial = partial.map(Into::into);
        attempt.waited_for = waited_for;
    }
}

pub async fn attempt(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let number = AttemptNumber(call.segment_as("attempt", "the number of an attempt")?);
    let mut attempt = app
        .blocking(move |app| {
            let rows = app.server.store.attempts(build, None).map_err(problem::store)?;
            let row = rows.into_iter().find(|row| row.attempt == number);
            let row = row.ok_or_else(|| problem::not_found(format_args!("attempt {number} of build {build}")))?;
            let reports = app.server.store.reports(build, Some(&row.job)).map_err(problem::store)?;
            let report = reports.iter().find(|(attempt, _)| *attempt == number).map(|(_, report)| report);
            let mut attempt = convert::attempt(&row, report);
            name_workers(app, std::slice::from_mut(&mut attempt))?;
            Ok(attempt)
        })
        .await?;
    tell_of_running(&app, build, std::slice::from_mut(&mut attempt)).await;
    answer::json(&attempt)
}

pub async fn tests(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let what = "passed, failed, errored or skipped, or several of these with commas between them";
    let outcomes = call.words::<TestOutcome>("outcome", what)?;
    let job = call.text("job").map(str::to_owned);
    let (limit, from) = (call.limit()?, call.cursor::<usize>()?.unwrap_or(0));
    let newest = call.wanted::<bool>("newest", "true or false")?.unwrap_or(false);
    let quarantined = call.wanted::<bool>("quarantined", "true or false")?;
    let (mut rows, notes) = app
        .blocking(move |app| {
            let project = row(app, build)?.origin.project;
            Ok((app.server.store.tests(build).map_err(problem::store)?, Notes::of(app, &project)?))
        })
        .await?;
    if newest {
        rows = last_reports(rows).into_values().collect();
    }
    let wanted = rows.iter().enumerate().skip(from).filter(|(_, row)| {
        job.as_deref().is_none_or(|job| row.job.as_str() == job)
            && outcomes.as_ref().is_none_or(|outcomes| outcomes.contains(&row.case.outcome.into()))
            && quarantined
                .is_none_or(|wanted| notes.note(row.job.as_str(), &row.case.suite, &row.case.name).is_some() == wanted)
    });
    let page = cut(wanted, limit, |(place, _)| (place + 1).to_string());
    answer::json(&Page {
        items: page.items.into_iter().map(|(_, row)| notes.told(convert::test(row))).collect(),
        next: page.next,
    })
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
    Ok(ranged(wanted, length, TAR, exactly(sent, reader, &app.server.figures)))
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
    let wait = app.server.shell.ask(move |engine| engine.why(build, &asked)).await.map_err(problem::stopped)?;
    let waiting = app
        .blocking(move |app| {
            // That there is such a job.
            one(app, build, &name)?;
            let gates = app.server.store.open_gates(build).map_err(problem::store)?;
            let prompt = gates.into_iter().find(|gate| gate.job == name).map(|gate| gate.prompt).unwrap_or_default();
            Ok(wait::told(build, &name, wait.as_ref(), &prompt, &|worker| app.server.dispatch.name_of(worker)))
        })
        .await?;
    answer::json(&waiting)
}
