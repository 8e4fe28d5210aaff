//! Pools: who serves them, what waits in them, who holds them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use api::page::{LIMIT_MAX, Page};
use api::pool::{
    Held, Hold, Pool, PoolHistory, PoolSample, Queued, SHARES_MAX, Share, WORKER_TIME_PROJECTS_MAX, WorkerTime,
};
use api::problem::Problem;
use engine::{ClientState, Engine, PoolState};
use graph::{BuildId, JobName, WorkerId};
use store::rows::BuildRow;

use super::answer::{self, Answered};
use super::build::{Sight, request};
use super::call::Call;
use super::control::{audit, reason};
use super::wait::{self, pool_name};
use super::{App, problem};
use crate::access::{Bearer, Target, Verb};
use crate::pool_history::{EVERY_MS, Sample};
use crate::records::{DEFAULT_POOL, PoolRecord, Said};

/// The most pieces of a queue that are gone through for one page, for what is in sight.
const PIECES_MAX: usize = 20;

/// What people said.
pub fn held(said: &Said) -> Held {
    Held { by: said.by.clone(), reason: said.reason.clone(), at: said.at.into() }
}

/// A pool of which nothing is known but its name.
fn named(name: &str) -> Pool {
    Pool {
        name: name.to_owned(),
        held: None,
        waiting: 0,
        running: 0,
        workers: 0,
        slots: 0,
        to_come: 0,
        shares: Vec::new(),
    }
}

/// What the engine knows of pools, and how many jobs are still to come into each.
fn known(engine: &Engine) -> (Vec<PoolState>, BTreeMap<String, u64>) {
    let to_come = engine.to_come().into_iter().map(|(pool, n)| (pool.to_owned(), n)).collect();
    (engine.pools(), to_come)
}

/// Adds how clients stand under one of a pool's names.
fn add_shares(shares: &mut Vec<Share>, clients: BTreeMap<String, ClientState>) {
    for (client, state) in clients {
        match shares.iter_mut().find(|share| share.client == client) {
            Some(share) => share.waiting += state.queued,
            None => shares.push(Share { client, waiting: state.queued, ahead_ms: state.ahead_ms }),
        }
    }
}

/// All pools, by name: those that the engine knows, and those that are held. Clients, which are those of all projects, are told to
/// whoever may read the whole server.
async fn pools(app: &Arc<App>, call: &Call) -> Result<BTreeMap<String, Pool>, Problem> {
    let (states, to_come) = app.server.shell.ask(known).await.map_err(problem::stopped)?;
    let records = app.blocking(|app| app.server.records.all::<PoolRecord>().map_err(problem::record)).await?;
    let mut pools: BTreeMap<String, Pool> = BTreeMap::new();
    pools.insert(DEFAULT_POOL.to_owned(), named(DEFAULT_POOL));
    for state in states {
        // Jobs may name the default pool or no pool; its workers serve both names.
        let name = pool_name(&state.pool);
        let pool = pools.entry(name.to_owned()).or_insert_with(|| named(name));
        pool.waiting += state.queued;
        pool.running += state.running;
        pool.workers = pool.workers.max(state.workers);
        pool.slots = pool.slots.max(state.slots);
        add_shares(&mut pool.shares, state.clients);
    }
    for (name, n) in to_come {
        let name = pool_name(&name);
        pools.entry(name.to_owned()).or_insert_with(|| named(name)).to_come += n;
    }
    let sees_clients = call.bearer()?.may(Verb::Read, &Target::SERVER, app.now()).is_ok();
    for pool in pools.values_mut() {
        if !sees_clients {
            pool.shares.clear();
        }
        pool.shares.sort_by(|left, right| (left.ahead_ms, &left.client).cmp(&(right.ahead_ms, &right.client)));
        pool.shares.truncate(SHARES_MAX);
    }
    for (name, record) in records {
        if let Some(said) = &record.held {
            pools.entry(name.clone()).or_insert_with(|| named(&name)).held = Some(held(said));
        }
    }
    Ok(pools)
}

pub async fn list(app: Arc<App>, call: Call) -> Answered {
    let bearer = Arc::clone(call.bearer()?);
    let now = app.now();
    let mut pools: Vec<Pool> = pools(&app, &call).await?.into_values().collect();
    pools.retain(|pool| bearer.may(Verb::Read, &Target::pool(&pool.name), now).is_ok());
    answer::page(pools)
}

pub async fn history(app: Arc<App>, call: Call) -> Answered {
    let pool = call.segment("pool").to_owned();
    let sample = |sample: Sample| PoolSample {
        at: sample.at.into(),
        waiting: sample.waiting,
        running: sample.running,
        slots: sample.slots,
        workers: sample.workers,
        waits: sample.waits,
    };
    let samples = app.server.pool_history.of(&pool).into_iter().map(sample).collect();
    answer::json(&PoolHistory { pool, every_ms: EVERY_MS, samples })
}

/// How long workers were busy for each project in sight.
pub async fn worker_time(app: Arc<App>, call: Call) -> Answered {
    let bearer = Arc::clone(call.bearer()?);
    let now = app.now();
    let mut sight = Sight::new(&bearer, Verb::Read, now);
    let mut projects = app.server.worker_time.projects(now);
    projects.retain(|time| sight.project(&time.project));
    projects.sort_by(|left, right| (right.worker_ms, &left.project).cmp(&(left.worker_ms, &right.project)));
    projects.truncate(WORKER_TIME_PROJECTS_MAX);
    answer::json(&WorkerTime { since: app.server.worker_time.since(now).into(), projects })
}

async fn one(app: &Arc<App>, call: &Call, name: &str) -> Result<Pool, Problem> {
    pools(app, call).await?.remove(name).ok_or_else(|| problem::not_found(format_args!("pool `{name}`")))
}

pub async fn get(app: Arc<App>, call: Call) -> Answered {
    answer::json(&one(&app, &call, call.segment("pool")).await?)
}

pub async fn hold(app: Arc<App>, call: Call) -> Answered {
    let name = call.segment("pool").to_owned();
    let reason = reason(call.json_or_default::<Hold>()?.reason)?;
    let said = Said { by: call.who(), reason: reason.clone(), at: app.now() };
    app.server.hold_pool(&name, Some(said)).await.map_err(request)?;
    audit(&app, &call, "", format!("pool {name}"), reason).await?;
    answer::json(&one(&app, &call, &name).await?)
}

pub async fn release(app: Arc<App>, call: Call) -> Answered {
    let name = call.segment("pool").to_owned();
    let reason = reason(call.json_or_default::<Hold>()?.reason)?;
    app.server.hold_pool(&name, None).await.map_err(request)?;
    audit(&app, &call, "", format!("pool {name}"), reason).await?;
    // A pool that nobody serves and nothing waits in is not there any more.
    answer::json(&pools(&app, &call).await?.remove(&name).unwrap_or_else(|| named(&name)))
}

pub async fn queue(app: Arc<App>, call: Call) -> Answered {
    let name = call.segment("pool").to_owned();
    let most = usize::try_from(call.limit()?).unwrap_or(usize::MAX);
    let bearer = Arc::clone(call.bearer()?);
    let (mut place, mut seen, mut is_whole) = (call.cursor::<Cursor>()?, Vec::new(), false);
    // One more than wanted says whether there is a next page.
    let mut piece_max = most + 1;
    for _ in 0..PIECES_MAX {
        let (pool, from) = (name.clone(), place.clone());
        let asked = move |engine: &Engine| waiting_in(engine, &pool, from, piece_max);
        let piece = app.server.shell.ask(asked).await.map_err(problem::stopped)?;
        is_whole = piece.len() < piece_max;
        // What this reader may not see is not named: builds are seen whole or not at all.
        place = piece.last().map(|last| Cursor { job: JobName::from(""), ..last.clone() }).or(place);
        let bearer = Arc::clone(&bearer);
        seen.extend(app.blocking(move |app| in_sight(app, &bearer, piece)).await?);
        if is_whole || seen.len() > most {
            break;
        }
        piece_max = LIMIT_MAX as usize;
    }
    let next = match seen.len() > most {
        true => {
            seen.truncate(most);
            seen.last().map(|(cursor, _)| cursor.clone())
        }
        false => place.filter(|_| !is_whole),
    };
    let dispatch = Arc::clone(&app.server.dispatch);
    let tell = move |engine: &Engine| {
        let name_of = |worker: &WorkerId| dispatch.name_of(worker);
        let told = seen.into_iter().map(|(Cursor { build, job, .. }, row)| {
            let waiting = wait::told(build, &job, engine.why(build, &job).as_ref(), "", &name_of);
            let (position, urgent) = (engine.place_in_queue(build, &job), engine.is_urgent(build));
            Queued { build, project: row.origin.project.clone(), client: row.client.clone(), urgent, position, waiting }
        });
        told.collect::<Vec<_>>()
    };
    let mut items = app.server.shell.ask(tell).await.map_err(problem::stopped)?;
    items.sort_by_key(|queued| (queued.position, queued.build));
    answer::json(&Page { items, next: next.map(|next| next.to_string()) })
}

/// Those jobs that a reader may see, each with its build. Blocks.
fn in_sight(app: &App, bearer: &Bearer, piece: Vec<Cursor>) -> Result<Vec<(Cursor, Arc<BuildRow>)>, Problem> {
    let mut sight = Sight::new(bearer, Verb::Read, app.now());
    let mut at_hand: Option<(BuildId, Option<Arc<BuildRow>>)> = None;
    let mut seen = Vec::new();
    for cursor in piece {
        let row = match &at_hand {
            Some((build, row)) if *build == cursor.build => row.clone(),
            _ => {
                let row = app.server.store.build(cursor.build).map_err(problem::store)?;
                let row = row.filter(|row| sight.build(&row.origin.project, row.build)).map(Arc::new);
                at_hand = Some((cursor.build, row.clone()));
                row
            }
        };
        seen.extend(row.map(|row| (cursor, row)));
    }
    Ok(seen)
}

/// Where a page of a queue ended: which of the pool's names, the build and the job; behind the whole build if no job is named.
#[derive(Clone, Debug)]
struct Cursor {
    name: usize,
    build: BuildId,
    job: JobName,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.name, self.build, self.job)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '.');
        let mut next = || parts.next().ok_or(());
        let (name, build, job) = (next()?, next()?, next()?);
        let build = BuildId(build.parse().map_err(drop)?);
        Ok(Self { name: name.parse().map_err(drop)?, build, job: JobName::from(job) })
    }
}

/// What waits in a pool's queue behind a place, oldest builds first, at most so many. The default pool is asked by both of its names.
fn waiting_in(engine: &Engine, pool: &str, after: Option<Cursor>, most: usize) -> Vec<Cursor> {
    let names: &[&str] = if pool == DEFAULT_POOL { &["", DEFAULT_POOL] } else { &[pool] };
    let begun = after.as_ref().map_or(0, |after| after.name);
    let mut waiting = Vec::new();
    for (index, name) in names.iter().enumerate().skip(begun) {
        let from = after.as_ref().filter(|after| after.name == index);
        let queue = engine.queue(name, from.map(|from| (from.build, &from.job)), most - waiting.len());
        waiting.extend(queue.into_iter().map(|(build, job)| Cursor { name: index, build, job }));
    }
    waiting
}
