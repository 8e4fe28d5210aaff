//! What workers and those who look after them ask: to join, to be paused, drained, forgotten; pools to be held.

use std::sync::Arc;

use api::worker::{Join, Offer, Then, ToWorker};
use engine::{Engine, Input, Presence};
use graph::{AttemptReport, Failure, Outcome, Resources, WorkerId};
use thiserror::Error;

use super::{RequestError, Server, blocking};
use crate::access::{Denied, Pass};
use crate::dispatch::{Given, JoinRefusal, Joined, SessionPass, with_both_names};
use crate::notices;
use crate::records::{Intake, PoolRecord, RecordError, Records, Said, WorkerRecord, is_name};
use crate::request::Stopped;
use crate::world::send_start;

/// Why a worker cannot join.
#[derive(Debug, Error)]
pub enum JoinError {
    /// It may not.
    #[error(transparent)]
    Refused(#[from] JoinRefusal),
    /// A record refused.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The server is ending.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A task broke.
    #[error("joining was interrupted")]
    Interrupted,
}

impl Server {
    /// What the engine is told of workers with attempts in their hands whose token has become worth nothing: as when that is found while
    /// they are joined, they have three heartbeats to join by another one.
    pub(super) fn revoked_holders(&self, engine: &Engine) -> Result<Vec<Input>, RecordError> {
        let mut inputs = Vec::new();
        for (worker, leases) in engine.holders() {
            let Some((record, _)) = self.records.read::<WorkerRecord>(&worker.to_string())? else { continue };
            let Some(Err(denied)) = record.pass.map(|pass| self.access.ask_kept(&pass, self.now())) else { continue };
            let reason = no_good_token(&denied);
            notices::warning(&format!("worker {} goes on only by another token; {reason}", record.name));
            let presence = Presence {
                pools: with_both_names(record.pools),
                labels: record.labels,
                slots: 0,
                resources: Resources::default(),
                leases,
                holds_ms: self.dispatch.holds_ms(),
                intake: engine::Intake::Closed { reason },
            };
            inputs.push(Input::WorkerPresent { worker, presence });
        }
        Ok(inputs)
    }

    /// A worker that has proved its key joins by a token. Blocks not; the first line of its session is there when this returns.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn join(self: &Arc<Self>, worker: WorkerId, join: Join, pass: Arc<Pass>) -> Result<Joined, JoinError> {
        let at = self.now();
        let Join { key, offer, leases, is_draining, .. } = join;
        let (records, id, joining) = (self.records.clone(), worker.clone(), offer.clone());
        let kept = pass.kept();
        let record = blocking(move || {
            records.change(&id.to_string(), at, |record: Option<WorkerRecord>| {
                let record = record.unwrap_or_else(|| WorkerRecord { first_joined: at, ..WorkerRecord::default() });
                let Offer { name, pools, labels, version, .. } = joining.clone();
                let pass = Some(kept.clone());
                // One that still drains has lost its session only.
                let record = if is_draining { record } else { record.come_again() };
                WorkerRecord { key: key.clone(), name, pools, labels, version, last_joined: at, pass, ..record }
            })
        });
        let intake = record.await.map_err(|_| JoinError::Interrupted)??.intake;
        let is_drained = matches!(intake, Intake::Draining(_));
        let joined = self.dispatch.join(&worker, offer, leases, intake, (pass, at))?;
        if is_draining && !is_drained {
            // Somebody said so while it was away.
            self.dispatch.tell(&worker, &ToWorker::Resume);
        }
        if let Some(presence) = self.dispatch.present(&worker, None, at) {
            self.shell.put_and_wait(vec![Input::WorkerPresent { worker: worker.clone(), presence }]).await?;
        }
        self.say_starts_again(&worker).await?;
        Ok(joined)
    }

    /// Starts what a worker that has joined should run and has not heard of. What is to stop by now is not begun: nobody runs it.
    async fn say_starts_again(&self, worker: &WorkerId) -> Result<(), Stopped> {
        let unheard = self.dispatch.unheard(worker);
        if unheard.is_empty() {
            return Ok(());
        }
        let leases: Vec<_> = unheard.iter().map(|given| given.spec.lease).collect();
        let stopping = self.shell.ask(move |engine| engine.stopping(&leases)).await?;
        let (ended, begun): (Vec<_>, Vec<_>) =
            unheard.into_iter().partition(|given| stopping.contains(&given.spec.lease));
        for given in begun {
            send_start(&self.means, given.spec, given.trust);
        }
        let lost = |given: Given| Input::AttemptFinished {
            build: given.spec.build,
            attempt: given.spec.attempt,
            lease: given.spec.lease,
            report: Box::new(AttemptReport::of(Outcome::Failed(Failure::Lost), self.now())),
        };
        self.shell.put_and_wait(ended.into_iter().map(lost).collect()).await
    }

    /// Asks whether the token by which a worker joined is good still. If not its session ends: nothing more is handed to it, no word of it is taken, and what it
    /// runs is lost once it has been silent for long enough, unless it joins again by a token that is good.
    ///
    /// # Errors
    /// [`Denied`], once the session has ended for that.
    pub async fn ask_session(self: &Arc<Self>, session: &SessionPass) -> Result<(), Denied> {
        let (server, pass) = (Arc::clone(self), Arc::clone(&session.pass));
        let asked = tokio::task::spawn_blocking(move || pass.ask(&server.access, server.now())).await;
        // A task that broke has said nothing.
        let Ok(Err(denied)) = asked else { return Ok(()) };
        let worker = &session.worker;
        let name = self.dispatch.name_of(worker);
        let reason = no_good_token(&denied);
        if let Some(presence) = self.dispatch.expel(worker, session.number, reason.clone()) {
            self.visits.end_of(worker);
            notices::warning(&format!("the session of worker {name} was ended; {reason}"));
            // A server that is ending has told it already.
            let _ = self.shell.put(Input::WorkerPresent { worker: worker.clone(), presence }).await;
        }
        Err(denied)
    }

    /// Pauses, drains or resumes a worker; `then` is what one that is drained does at the end.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn set_intake(&self, worker: &WorkerId, intake: Intake, then: Then) -> Result<(), RequestError> {
        let (records, id, at, said) = (self.records.clone(), worker.to_string(), self.now(), intake.clone());
        let is_known = blocking(move || {
            if records.read::<WorkerRecord>(&id)?.is_none() {
                return Ok(false);
            }
            records
                .change(&id, at, |record: Option<WorkerRecord>| record.unwrap_or_default().with_intake(said.clone()))?;
            Ok::<_, RecordError>(true)
        });
        if !is_known.await?? {
            return Err(RequestError::NoWorker(worker.to_string()));
        }
        if let Some(presence) = self.dispatch.set_intake(worker, intake, then) {
            let worker = worker.clone();
            self.shell.put_and_wait(vec![Input::WorkerPresent { worker, presence }]).await?;
        }
        Ok(())
    }

    /// Forgets a worker: its session ends, what it held is lost at once.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn forget_worker(&self, worker: &WorkerId) -> Result<(), RequestError> {
        let (records, id) = (self.records.clone(), worker.to_string());
        if !blocking(move || records.remove::<WorkerRecord>(&id)).await?? {
            return Err(RequestError::NoWorker(worker.to_string()));
        }
        self.dispatch.end(worker);
        self.shell.put_and_wait(vec![Input::WorkerLeft { worker: worker.clone() }]).await?;
        Ok(())
    }

    /// Holds a pool, or releases it with `None`.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn hold_pool(&self, pool: &str, held: Option<Said>) -> Result<(), RequestError> {
        if !is_name(pool) {
            return Err(RequestError::BadName(pool.to_owned()));
        }
        let (records, name, at) = (self.records.clone(), pool.to_owned(), self.now());
        let document = PoolRecord { held: held.clone() };
        blocking(move || records.write(&name, &document, at)).await??;
        self.shell.put_and_wait(pool_held(pool, held.as_ref())).await?;
        Ok(())
    }
}

pub(super) fn held_pools(records: &Records) -> Result<Vec<Input>, RecordError> {
    let pools = records.all::<PoolRecord>()?;
    Ok(pools
        .into_iter()
        .filter(|(_, pool)| pool.held.is_some())
        .flat_map(|(name, pool)| pool_held(&name, pool.held.as_ref()))
        .collect())
}

/// The default pool has two names: its own, and the empty one of jobs that name none.
fn pool_held(pool: &str, held: Option<&Said>) -> Vec<Input> {
    let reason = held.map(|said| format!("held {}", said.in_words()));
    let mut names = vec![pool.to_owned()];
    if pool == crate::records::DEFAULT_POOL {
        names.push(String::new());
    }
    names.into_iter().map(|pool| Input::PoolHeld { pool, reason: reason.clone() }).collect()
}

fn no_good_token(denied: &Denied) -> String {
    format!("its token is not good any more: {denied}")
}
