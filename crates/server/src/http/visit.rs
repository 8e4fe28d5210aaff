//! Shells in what steps left: who may, which worker holds the files, and the bytes on their way.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use api::problem::{Problem, ProblemKind};
use api::routes::BYTES;
use api::shell::{ALIVE_MS, Frame, FrameReader, INPUT_BYTES_MAX, OpenShell, SECRETS_MAX, StartShell, WORDS_MAX};
use api::worker::{LayersDocument, Offer, ToWorker};
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use futures_util::{Stream, StreamExt};
use graph::{BuildId, Job, JobName, Origin, WorkerId};
use store::rows::AttemptRow;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::admission::target_of;
use super::answer::{Answered, json, nothing, with};
use super::build::row;
use super::call::Call;
use super::control::audit;
use super::guarded::{guarded_to, pass};
use super::job::graph_of;
use super::worker::worker_of;
use super::{App, problem};
use crate::access::{Target, Verb};
use crate::dispatch::SessionView;
use crate::records::{DEFAULT_POOL, LayersText, StoredLayers};
use crate::server::Server;
use crate::visits::{Seat, VisitError};

/// How long a worker may take to open a shell: it may have to lay the files of the build anew.
const OPEN_WAIT: Duration = Duration::from_secs(120);
/// After so long another one is asked, if there is one.
const NEXT_WAIT: Duration = Duration::from_secs(20);
/// How often is looked whether the worker that is asked is still there.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The most other workers that are asked.
const OTHERS_ASKED_MAX: usize = 3;

fn refused(error: VisitError) -> Problem {
    let kind = match error {
        VisitError::Full => ProblemKind::Busy,
        VisitError::None => ProblemKind::NotFound,
        VisitError::OutOfOrder(_) => ProblemKind::Conflict,
    };
    Problem::new(kind, error.to_string())
}

/// The attempt whose files stand for a job: its own last, or the one it was reused from.
async fn attempt_of(app: &Arc<App>, build: BuildId, job: JobName) -> Result<AttemptRow, Problem> {
    let conflict = |text: String| Problem::new(ProblemKind::Conflict, text);
    app.blocking(move |app| {
        let store = &app.server.store;
        if let Some(attempt) = store.attempts(build, Some(&job)).map_err(problem::store)?.pop() {
            return match attempt.ended {
                Some(_) => Ok(attempt),
                None => Err(conflict(format!("`{job}` is still running")).help("its log tells how far it is")),
            };
        }
        let jobs = store.jobs(build).map_err(problem::store)?;
        let row = jobs.into_iter().find(|row| row.name == job);
        let not_begun = || {
            conflict(format!("`{job}` has not begun")).help(format!("`ropewalk show {build}` tells what it waits for"))
        };
        let row = match row {
            Some(row) => row,
            None if graph_of(app, build)?.jobs.contains_key(&job) => return Err(not_begun()),
            None => return Err(problem::not_found(format_args!("job {job} of build {build}"))),
        };
        let none = || match row.child {
            Some(child) => {
                conflict(format!("`{job}` asked for build {child}")).help("open a shell in a job of that build")
            }
            None if row.outcome.is_none() => not_begun(),
            None => conflict(format!("`{job}` did not run in build {build}")),
        };
        let reused = row.reused.ok_or_else(none)?;
        let attempts = store.attempts(reused.build, Some(&reused.job)).map_err(problem::store)?;
        let attempt = attempts.into_iter().find(|attempt| attempt.attempt == reused.attempt);
        attempt.ok_or_else(|| problem::not_found(format_args!("attempt {} of build {}", reused.attempt, reused.build)))
    })
    .await
}

fn check(open: &OpenShell) -> Result<(), Problem> {
    let wrong = |text: String| Err(Problem::new(ProblemKind::Unprocessable, text));
    if open.command.len() > WORDS_MAX {
        return wrong(format!("a command has at most {WORDS_MAX} words"));
    }
    if open.secrets.len() > SECRETS_MAX {
        return wrong(format!("a shell is given at most {SECRETS_MAX} secrets"));
    }
    let kind = open.terminal.iter().map(|terminal| &terminal.kind);
    let texts = open.command.iter().chain(open.secrets.iter().flat_map(|(name, value)| [name, value])).chain(kind);
    if texts.clone().any(|text| text.contains('\0')) || open.secrets.keys().any(|name| name.contains('=')) {
        return wrong("words, names and values hold no NUL, names no `=`".to_owned());
    }
    Ok(())
}

/// Opens a shell: the answer is what it prints, to its end.
pub async fn open(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let open: OpenShell = call.json()?;
    check(&open)?;
    let permit = app.stream_permit()?;
    let project = app.blocking(move |app| row(app, build)).await?.origin.project;
    let attempt = attempt_of(&app, build, JobName::from(call.segment("job"))).await?;
    let of = attempt.build;
    let origin: Origin = app.blocking(move |app| row(app, of)).await?.origin;
    let job = app.blocking({
        let attempt = attempt.clone();
        move |app| job_of(app, &attempt)
    });
    let job = job.await?;
    // A job that was reused may come from a build that the token does not reach, and it runs on a worker of its pool.
    let ran = Target { pool: Some(pool_of(&job)), ..target_of(&origin.project, of) };
    call.demand(Verb::Shell, &ran, app.now())?;
    let pass = pass(&app, &call, Verb::Shell, &[target_of(&project, build), ran])?;
    let hosts = app.blocking({
        let (attempt, job) = (attempt.clone(), Arc::clone(&job));
        move |app| hosts(app, &attempt, &job)
    });
    let Hosts { workers, layers } = hosts.await?;
    let names: Vec<&str> = open.secrets.keys().map(String::as_str).collect();
    let secrets = if names.is_empty() { "no secrets".to_owned() } else { format!("secrets {}", names.join(", ")) };
    let at = open.at.as_deref().map_or_else(|| "its end".to_owned(), |at| format!("@{at}"));
    let target = format!("build {build}, job {}, attempt {} of build {of}, {at}", attempt.job, attempt.attempt);
    let command = if open.command.is_empty() { "a shell".to_owned() } else { open.command.join(" ") };
    let attempt_number = attempt.attempt;
    let mut problem = Problem::new(ProblemKind::Conflict, "no worker can open it");
    for (place, worker) in workers.iter().enumerate() {
        let detail = format!("{secrets}; worker {worker}; {command}");
        // Before anything is opened: what cannot be noted is not done.
        audit(&app, &call, &origin.project, target.clone(), detail).await?;
        let mut seat = app.server.visits.open(crate::parts::fresh_id(), worker.clone(), build).map_err(refused)?;
        let (shell, origin, open) = (seat.shell.clone(), origin.clone(), open.clone());
        let layers = layers.clone();
        let start = StartShell { shell, build: of, attempt: attempt_number, origin, open, layers };
        if !app.server.dispatch.tell(worker, &ToWorker::Shell(Box::new(start))) {
            problem = Problem::new(ProblemKind::Conflict, format!("the worker {worker} is not joined"));
            continue;
        }
        let wait = if place + 1 == workers.len() { OPEN_WAIT } else { NEXT_WAIT };
        let opened = tokio::time::timeout(wait, first_of(&app, worker, &mut seat));
        problem = match opened.await {
            Ok(Ok(held)) => {
                let stream = guarded_to(Arc::clone(&app), pass, stream(held, seat, permit), |refusal| {
                    Ok(Frame::Refused(refusal.to_string()).encode().into())
                });
                return Ok(with(StatusCode::OK, BYTES, Body::from_stream(stream)));
            }
            Ok(Err(problem)) if problem.status == ProblemKind::Unavailable.status() => problem,
            Ok(Err(problem)) => return Err(problem),
            Err(_) => {
                let seconds = wait.as_secs();
                let detail = format!("the worker {worker} has not answered within {seconds} s");
                Problem::new(ProblemKind::Unavailable, detail)
            }
        };
    }
    Err(problem)
}

/// Who can open what an attempt left.
struct Hosts {
    /// The one that ran it first, if it is there; not empty.
    workers: Vec<WorkerId>,
    /// By what another worker fetches it.
    layers: Option<LayersDocument>,
}

/// The workers that are asked one after the other: the one that ran the attempt; if its files were sent, others of the same pool that have the
/// labels which the job wants, those with the fewest attempts first.
fn hosts(app: &App, attempt: &AttemptRow, job: &Job) -> Result<Hosts, Problem> {
    let key = StoredLayers::key(attempt.build, attempt.attempt);
    let stored = app.server.records.read::<StoredLayers>(&key).map_err(problem::record)?.map(|(stored, _)| stored);
    let layers = match stored.as_ref().and_then(|stored| Some((stored, stored.document?))) {
        Some((stored, document)) if stored.blobs.contains(&document) => Some(LayersDocument::Blob(document)),
        Some(_) => {
            let text = app.server.records.read::<LayersText>(&key).map_err(problem::record)?;
            text.map(|(LayersText { text }, _)| LayersDocument::Text { text })
        }
        None => None,
    };
    // What came without its text was not sent.
    let stored = stored.filter(|stored| layers.is_some() || stored.document.is_none());
    let sessions = app.server.dispatch.sessions();
    let is_owner = |session: &&SessionView| session.worker == attempt.worker;
    let mut workers: Vec<WorkerId> = sessions.iter().filter(is_owner).map(|session| session.worker.clone()).collect();
    let (pool, labels) = (pool_of(job), job.wanted_labels());
    if layers.is_some() {
        let may = |session: &&SessionView| {
            let offer = &session.offer;
            !is_owner(session) && session.closed.is_none() && is_of(offer, pool) && labels.is_subset(&offer.labels)
        };
        let mut others: Vec<&SessionView> = sessions.iter().filter(may).collect();
        others.sort_by_key(|session| session.leases.len());
        workers.extend(others.into_iter().take(OTHERS_ASKED_MAX).map(|session| session.worker.clone()));
    }
    if !workers.is_empty() {
        return Ok(Hosts { workers, layers });
    }
    let worker = &attempt.worker;
    let detail = match stored {
        None => format!("the worker {worker} is not joined, and has not sent the files of this job"),
        Some(stored) if layers.is_none() => {
            format!(
                "the worker {worker} is not joined, and has not sent the files of this job, because {}",
                stored.reason
            )
        }
        Some(_) => {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            let labels = if labels.is_empty() { String::new() } else { format!(" with {}", labels.join(", ")) };
            format!("no worker of the pool `{pool}`{labels} is joined that could open it")
        }
    };
    Err(Problem::new(ProblemKind::Conflict, detail)
        .help("start the worker again that ran it, or another of its pool, or run the job again"))
}

/// The job of an attempt; one that asks for nothing if its build does not have it any more. Blocks.
fn job_of(app: &App, attempt: &AttemptRow) -> Result<Arc<Job>, Problem> {
    let graph = app.server.store.graph(attempt.build).map_err(problem::store)?.unwrap_or_default();
    Ok(graph.jobs.get(&attempt.job).cloned().unwrap_or_default())
}

fn pool_of(job: &Job) -> &str {
    if job.pool.is_empty() { DEFAULT_POOL } else { &job.pool }
}

/// Whether a worker takes jobs of a pool. Who offers the pool without a name takes those of the default one.
fn is_of(offer: &Offer, pool: &str) -> bool {
    offer.pools.contains(pool) || (pool == DEFAULT_POOL && offer.pools.contains(""))
}

/// Waits for the worker's first frame, or until its session is over.
async fn first_of(app: &App, worker: &WorkerId, seat: &mut Seat) -> Result<Vec<u8>, Problem> {
    let dispatch = &app.server.dispatch;
    let session = dispatch.session_number(worker);
    let left = async {
        while dispatch.session_number(worker) == session {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    match futures_util::future::select(std::pin::pin!(first(seat)), std::pin::pin!(left)).await {
        futures_util::future::Either::Left((opened, _)) => opened,
        futures_util::future::Either::Right(_) => Err(gone()),
    }
}

fn gone() -> Problem {
    Problem::new(ProblemKind::Unavailable, "the worker has gone before the shell was open")
}

/// Waits for the worker's first frame: a refusal, or the first of all that comes.
async fn first(seat: &mut Seat) -> Result<Vec<u8>, Problem> {
    let mut reader = FrameReader::default();
    let mut held = Vec::new();
    loop {
        let piece = seat.printed.recv().await.ok_or_else(gone)?;
        reader.push(&piece);
        held.extend_from_slice(&piece);
        match reader.next_frame().map_err(|error| problem::internal(&error))? {
            None => {}
            Some(Frame::Refused(text)) => return Err(Problem::new(ProblemKind::Conflict, text)),
            Some(_) => return Ok(held),
        }
    }
}

fn stream(held: Vec<u8>, seat: Seat, permit: OwnedSemaphorePermit) -> impl Stream<Item = io::Result<Bytes>> {
    let first = futures_util::stream::once(async move { Ok(Bytes::from(held)) });
    // The permit goes with the stream, and so does the visit.
    let rest = futures_util::stream::unfold((seat, permit), |(mut seat, permit)| async move {
        let piece = next_or_alive(&mut seat.printed).await?;
        // A worker that was put out prints on, and nobody hears it.
        seat.is_open().then_some((Ok(piece), (seat, permit)))
    });
    first.chain(rest)
}

/// What comes next, or that there is nothing yet; `None` at the end.
async fn next_or_alive(pieces: &mut mpsc::Receiver<Bytes>) -> Option<Bytes> {
    match tokio::time::timeout(Duration::from_millis(ALIVE_MS), pieces.recv()).await {
        Ok(piece) => piece,
        Err(_) => Some(Frame::Alive.encode().into()),
    }
}

/// Takes what was typed.
pub async fn input(app: Arc<App>, mut call: Call) -> Answered {
    let build = call.build()?;
    let sequence = call.wanted::<u64>("sequence", "the number of the post, from 0")?.unwrap_or(0);
    let shell = call.segment("shell").to_owned();
    let body = call.stream.take().map(|stream| stream.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
    let bytes = axum::body::to_bytes(body.unwrap_or_default(), INPUT_BYTES_MAX)
        .await
        .map_err(|_| Problem::new(ProblemKind::TooLarge, format!("a post has at most {INPUT_BYTES_MAX} bytes")))?;
    app.server.visits.type_in(&shell, build, sequence, bytes).await.map_err(refused)?;
    nothing()
}

/// Gives a worker what is typed, until the one who types has gone.
pub async fn typed(server: Arc<Server>, call: Call) -> Answered {
    let worker = worker_of(&server, &call.headers)?;
    let pieces = server.visits.typed(call.segment("shell"), &worker).map_err(refused)?;
    let stream = futures_util::stream::unfold(pieces, |mut pieces| async move {
        Some((Ok::<_, Infallible>(next_or_alive(&mut pieces).await?), pieces))
    });
    // Something at once, so that the worker knows that it is heard.
    let first = futures_util::stream::once(async { Ok(Bytes::from(Frame::Alive.encode())) });
    Ok(with(StatusCode::OK, BYTES, Body::from_stream(first.chain(stream))))
}

/// Takes what a worker's shell prints, to its end.
pub async fn printed(server: Arc<Server>, call: Call) -> Answered {
    let worker = worker_of(&server, &call.headers)?;
    let sender = server.visits.printed(call.segment("shell"), &worker).map_err(refused)?;
    let mut pieces = call.into_stream().into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Problem::new(ProblemKind::Invalid, "what the shell prints broke off"))?;
        if sender.send(piece).await.is_err() {
            return Err(refused(VisitError::None));
        }
    }
    json(&serde_json::json!({}))
}
