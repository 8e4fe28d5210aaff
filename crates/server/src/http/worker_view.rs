//! Workers as people see them, and what people do to them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use api::problem::{Problem, ProblemKind};
use api::worker::Then;
use api::worker_view::{RunningAttempt, Stop, Worker, WorkerFault, WorkerState};
use engine::{Engine, JobState};
use graph::{BuildId, WorkerId};

use super::answer::{self, Answered};
use super::build::request;
use super::call::Call;
use super::control::{audit, reason};
use super::pool::held;
use super::{App, problem};
use crate::dispatch::{Fault, SessionView};
use crate::records::{Intake, Said, WorkerRecord};

/// What each worker runs, as the engine knows it.
fn leased(engine: &Engine) -> BTreeMap<WorkerId, Vec<RunningAttempt>> {
    let mut leased: BTreeMap<WorkerId, Vec<RunningAttempt>> = BTreeMap::new();
    for build in engine.builds() {
        for (job, state) in engine.jobs(build) {
            let JobState::Leased { attempt, lease, worker } = state else { continue };
            let running = RunningAttempt {
                lease: lease.0,
                build,
                job: job.to_string(),
                attempt: attempt.0,
                project: String::new(),
                leased: None,
            };
            leased.entry(worker.clone()).or_default().push(running);
        }
    }
    leased
}

/// Whose each of these attempts is, and since when it is leased.
fn described(app: &App, leased: &mut BTreeMap<WorkerId, Vec<RunningAttempt>>) -> Result<(), Problem> {
    let mut of_build: BTreeMap<BuildId, (String, Vec<store::rows::AttemptRow>)> = BTreeMap::new();
    for running in leased.values_mut().flatten() {
        let (project, attempts) = match of_build.entry(running.build) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let row = app.server.store.build(running.build).map_err(problem::store)?;
                let attempts = app.server.store.attempts(running.build, None).map_err(problem::store)?;
                unknown.insert((row.map(|row| row.origin.project).unwrap_or_default(), attempts))
            }
        };
        running.project.clone_from(project);
        let attempt = attempts.iter().find(|row| row.attempt.0 == running.attempt);
        running.leased = attempt.map(|row| row.leased.into());
    }
    Ok(())
}

async fn workers(app: &Arc<App>) -> Result<BTreeMap<String, Worker>, Problem> {
    let mut running = app.server.shell.ask(leased).await.map_err(problem::stopped)?;
    let (records, mut running) = app
        .blocking(move |app| {
            described(app, &mut running)?;
            Ok((app.server.records.all::<WorkerRecord>().map_err(problem::record)?, running))
        })
        .await?;
    let sessions: BTreeMap<String, SessionView> =
        app.server.dispatch.sessions().into_iter().map(|view| (view.worker.to_string(), view)).collect();
    let mut faults = app.server.dispatch.faults();
    let worker = |(id, record): (String, WorkerRecord)| {
        let key = WorkerId(id.as_str().into());
        let running = running.remove(&key).unwrap_or_default();
        let fault = faults.remove(&key).map(|Fault { at, build, job, text }| WorkerFault {
            at: at.into(),
            build,
            job: job.to_string(),
            text,
        });
        (id.clone(), Worker { fault, ..shown(id.clone(), &record, sessions.get(&id), running) })
    };
    Ok(records.into_iter().map(worker).collect())
}

fn shown(id: String, record: &WorkerRecord, session: Option<&SessionView>, running: Vec<RunningAttempt>) -> Worker {
    let (said, held_state) = match &record.intake {
        Intake::Open => (None, WorkerState::Ready),
        Intake::Paused(said) => (Some(said), WorkerState::Paused),
        Intake::Draining(said) => (Some(said), WorkerState::Draining),
    };
    let offer = session.map(|session| &session.offer);
    Worker {
        id,
        name: record.name.clone(),
        state: if session.is_some() { held_state } else { WorkerState::Away },
        held: said.map(held),
        closed: session.and_then(|session| session.closed.clone()).filter(|_| said.is_none()),
        pools: record.pools.iter().cloned().collect(),
        labels: record.labels.iter().cloned().collect(),
        slots: offer.map_or(0, |offer| offer.slots),
        cpu_milli: offer.map_or(0, |offer| offer.resources.cpu_milli),
        memory_bytes: offer.map_or(0, |offer| offer.resources.memory_bytes),
        version: record.version.clone(),
        seen: Some(session.map_or(record.last_joined, |session| session.heard).into()),
        joined: Some(record.last_joined.into()),
        fault: None,
        running,
    }
}

pub async fn list(app: Arc<App>, _: Call) -> Answered {
    answer::page(workers(&app).await?.into_values().collect())
}

async fn one(app: &Arc<App>, id: &str) -> Result<Worker, Problem> {
    workers(app).await?.remove(id).ok_or_else(|| problem::not_found(format_args!("worker `{id}`")))
}

pub async fn get(app: Arc<App>, call: Call) -> Answered {
    answer::json(&one(&app, call.segment("worker")).await?)
}

/// Changes whether a worker takes new attempts.
async fn set(app: Arc<App>, call: Call, then: Then, intake: impl FnOnce(Said) -> Intake) -> Answered {
    let id = call.segment("worker").to_owned();
    let reason = reason(call.json_or_default::<Stop>()?.reason)?;
    let said = Said { by: call.who(), reason: reason.clone(), at: app.now() };
    app.server.set_intake(&WorkerId(id.as_str().into()), intake(said), then).await.map_err(request)?;
    audit(&app, &call, "", format!("worker {id}"), reason).await?;
    answer::json(&one(&app, &id).await?)
}

pub async fn pause(app: Arc<App>, call: Call) -> Answered {
    set(app, call, Then::Leave, Intake::Paused).await
}

pub async fn drain(app: Arc<App>, call: Call) -> Answered {
    set(app, call, Then::Leave, Intake::Draining).await
}

pub async fn update(app: Arc<App>, call: Call) -> Answered {
    let id = call.segment("worker");
    let known = one(&app, id).await?;
    if known.state == WorkerState::Away {
        return Err(Problem::new(ProblemKind::Conflict, format!("worker `{id}` is away"))
            .help("start it: it runs the program that is on its disk then"));
    }
    set(app, call, Then::StartAnew, Intake::Draining).await
}

pub async fn resume(app: Arc<App>, call: Call) -> Answered {
    set(app, call, Then::Leave, |_| Intake::Open).await
}

pub async fn forget(app: Arc<App>, call: Call) -> Answered {
    let id = call.segment("worker").to_owned();
    let reason = reason(call.text("reason").unwrap_or_default().to_owned())?;
    if app.server.dispatch.sessions().iter().any(|session| *session.worker.0 == *id) {
        return Err(Problem::new(ProblemKind::Conflict, format!("worker `{id}` is there"))
            .help("drain it, and forget it once it has left"));
    }
    let worker = WorkerId(id.as_str().into());
    app.server.forget_worker(&worker).await.map_err(request)?;
    app.server.dispatch.forget(&worker);
    audit(&app, &call, "", format!("worker {id}"), reason).await?;
    answer::nothing()
}
