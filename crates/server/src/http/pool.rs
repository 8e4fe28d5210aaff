//! Pools: who serves them, what waits in them, who holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::job::{WaitReason, Waiting};
use api::pool::{Held, Hold, Pool, Queued};
use api::problem::Problem;
use engine::{Engine, JobState};
use graph::{BuildId, JobName};

use super::answer::{self, Answered};
use super::build::{Sight, request};
use super::call::Call;
use super::control::{audit, reason};
use super::job::cut;
use super::{App, problem};
use crate::access::{Target, Verb};
use crate::records::{DEFAULT_POOL, PoolRecord, Said};

/// What waits and runs in a pool.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    waiting: u64,
    running: u64,
}

/// The name of a job's pool.
fn pool_name(pool: &str) -> &str {
    if pool.is_empty() { DEFAULT_POOL } else { pool }
}

/// What people said.
pub fn held(said: &Said) -> Held {
    Held { by: said.by.clone(), reason: said.reason.clone(), at: said.at.into() }
}

/// Jobs that wait for a worker, or are with one, by build.
fn jobs_of(engine: &Engine) -> Vec<(BuildId, JobName, bool)> {
    let jobs = engine.builds().flat_map(|build| engine.jobs(build).map(move |(job, state)| (build, job, state)));
    jobs.filter_map(|(build, job, state)| match state {
        JobState::Queued => Some((build, job.clone(), true)),
        JobState::Leased { .. } => Some((build, job.clone(), false)),
        _ => None,
    })
    .collect()
}

/// All pools, by name. Asks the engine, then reads.
async fn pools(app: &Arc<App>) -> Result<BTreeMap<String, Pool>, Problem> {
    let jobs = app.server.shell.ask(jobs_of).await.map_err(problem::stopped)?;
    app.blocking(move |app| {
        let mut counts: BTreeMap<String, Load> = BTreeMap::new();
        let mut graphs = BTreeMap::new();
        for (build, job, is_waiting) in jobs {
            let graph = match graphs.entry(build) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(app.server.store.graph(build).map_err(problem::store)?.unwrap_or_default())
                }
            };
            let pool = graph.jobs.get(&job).map_or(DEFAULT_POOL, |spec| pool_name(&spec.pool));
            let count = counts.entry(pool.to_owned()).or_default();
            if is_waiting { count.waiting += 1 } else { count.running += 1 }
        }
        let records: BTreeMap<String, PoolRecord> =
            app.server.records.all::<PoolRecord>().map_err(problem::record)?.into_iter().collect();
        let sessions = app.server.dispatch.sessions();
        let served = sessions.iter().flat_map(|worker| &worker.offer.pools).map(|pool| pool_name(pool).to_owned());
        let said = records.iter().filter(|(_, record)| record.held.is_some()).map(|(name, _)| name.clone());
        let names: BTreeSet<String> =
            counts.keys().cloned().chain(served).chain(said).chain([DEFAULT_POOL.to_owned()]).collect();
        let pool = |name: String| {
            let count = counts.get(&name).copied().unwrap_or_default();
            let workers: Vec<_> = sessions
                .iter()
                .filter(|worker| worker.offer.pools.iter().any(|pool| pool_name(pool) == name))
                .collect();
            let pool = Pool {
                held: records.get(&name).and_then(|record| record.held.as_ref()).map(held),
                waiting: count.waiting,
                running: count.running,
                workers: workers.len() as u64,
                slots: workers.iter().map(|worker| u64::from(worker.offer.slots)).sum(),
                name: name.clone(),
            };
            (name, pool)
        };
        Ok(names.into_iter().map(pool).collect())
    })
    .await
}

pub async fn list(app: Arc<App>, call: Call) -> Answered {
    let bearer = Arc::clone(call.bearer()?);
    let now = app.now();
    let mut pools: Vec<Pool> = pools(&app).await?.into_values().collect();
    pools.retain(|pool| bearer.may(Verb::Read, &Target::pool(&pool.name), now).is_ok());
    answer::page(pools)
}

async fn one(app: &Arc<App>, name: &str) -> Result<Pool, Problem> {
    pools(app).await?.remove(name).ok_or_else(|| problem::not_found(format_args!("pool `{name}`")))
}

pub async fn get(app: Arc<App>, call: Call) -> Answered {
    answer::json(&one(&app, call.segment("pool")).await?)
}

pub async fn hold(app: Arc<App>, call: Call) -> Answered {
    let name = call.segment("pool").to_owned();
    let reason = reason(call.json_or_default::<Hold>()?.reason)?;
    let said = Said { by: call.who(), reason: reason.clone(), at: app.now() };
    app.server.hold_pool(&name, Some(said)).await.map_err(request)?;
    audit(&app, &call, "", format!("pool {name}"), reason);
    answer::json(&one(&app, &name).await?)
}

pub async fn release(app: Arc<App>, call: Call) -> Answered {
    let name = call.segment("pool").to_owned();
    app.server.hold_pool(&name, None).await.map_err(request)?;
    audit(&app, &call, "", format!("pool {name}"), String::new());
    let pool = Pool { name: name.clone(), held: None, waiting: 0, running: 0, workers: 0, slots: 0 };
    // A pool that nobody serves and nothing waits in is not there any more.
    answer::json(&pools(&app).await?.remove(&name).unwrap_or(pool))
}

pub async fn queue(app: Arc<App>, call: Call) -> Answered {
    let name = call.segment("pool").to_owned();
    let (limit, from) = (call.limit()?, call.cursor::<usize>()?.unwrap_or(0));
    let bearer = Arc::clone(call.bearer()?);
    let asked = |engine: &Engine| (jobs_of(engine), engine.unmatched());
    let (jobs, unmatched) = app.server.shell.ask(asked).await.map_err(problem::stopped)?;
    let page = app
        .blocking(move |app| {
            let mut sight = Sight::new(&bearer, Verb::Read, app.now());
            let unmatched: BTreeSet<(BuildId, JobName)> = unmatched.into_iter().collect();
            let held = app.server.records.read::<PoolRecord>(&name).map_err(problem::record)?;
            let held = held.and_then(|(record, _)| record.held);
            let mut queued = Vec::new();
            let mut at_hand: Option<(BuildId, Arc<graph::Graph>, store::rows::BuildRow)> = None;
            for (build, job, is_waiting) in jobs {
                if !is_waiting {
                    continue;
                }
                if at_hand.as_ref().is_none_or(|(held, ..)| *held != build) {
                    let graph = app.server.store.graph(build).map_err(problem::store)?.unwrap_or_default();
                    let Some(row) = app.server.store.build(build).map_err(problem::store)? else { continue };
                    at_hand = Some((build, graph, row));
                }
                let Some((_, graph, row)) = &at_hand else { continue };
                let is_here = graph.jobs.get(&job).is_some_and(|spec| pool_name(&spec.pool) == name);
                if !is_here || !sight.build(&row.origin.project, build) {
                    continue;
                }
                let is_unmatched = unmatched.contains(&(build, job.clone()));
                let position = queued.len() as u64 + 1;
                let (reason, text) = waits(&name, held.as_ref(), is_unmatched, position);
                queued.push(Queued {
                    build,
                    project: row.origin.project.clone(),
                    client: row.client.clone(),
                    waiting: Waiting { build, job: job.to_string(), reason, text, estimate: None },
                });
            }
            let behind = queued.into_iter().enumerate().skip(from);
            let page = cut(behind, limit, |(place, _)| (place + 1).to_string());
            let items = page.items.into_iter().map(|(_, queued)| queued).collect();
            Ok(api::page::Page { items, next: page.next })
        })
        .await?;
    answer::json(&page)
}

fn waits(pool: &str, held: Option<&Said>, is_unmatched: bool, position: u64) -> (WaitReason, String) {
    let pool = pool.to_owned();
    if let Some(said) = held {
        let text = format!("the pool `{pool}` is held by {}: {}", said.by, said.reason);
        return (WaitReason::Held { pool, by: said.by.clone(), reason: said.reason.clone() }, text);
    }
    if is_unmatched {
        let missing = "none that is there has its labels and resources".to_owned();
        let text = format!("no worker of the pool `{pool}` can run it");
        return (WaitReason::NoWorker { pool, missing }, text);
    }
    let text = format!("it waits for a worker of the pool `{pool}`");
    (WaitReason::Queue { pool, position: Some(position), holders: Vec::new() }, text)
}
