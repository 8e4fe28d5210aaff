//! Calls that are done once however often they come: by an idempotency key, for a day.
//!
//! The same key and the same call give the answer that was given; the same key and another call is a conflict. A call that
//! comes while its twin is under way waits for it. What was refused is judged anew. A call, once begun, is finished also
//! if its sender goes. The answer is written down right after it is given, and the disk is not waited for: if the server dies in between, a repetition of a
//! request for a build finds that build by the key that stands in its first fact, and one of a retry what it put back by the key in those
//! facts; other calls do no harm twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use api::problem::{Problem, ProblemKind};
use api::routes::{IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENCY_SECONDS, JSON, Method};
use axum::body::{Body, Bytes};
use axum::http::{Response, StatusCode};
use graph::Digest;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use super::answer::{Answered as Answer, with};
use super::call::Call;
use super::router::Handler;
use super::{App, problem};
use crate::lock::lock;
use crate::notices;
use crate::records::Answered;

/// After so many written answers those that are too old are removed.
const SWEEP_EVERY: u64 = 1000;
/// The largest answer that is written down, in bytes; a larger one is worked out again.
const ANSWER_BYTES_MAX: usize = 512 * 1024;

/// Calls with a key that are under way.
#[derive(Default)]
pub struct UnderWay {
    turns: Mutex<HashMap<String, Arc<Turn<()>>>>,
    written: std::sync::atomic::AtomicU64,
}

impl UnderWay {
    /// Waits until no other call of this key is under way.
    async fn turn(&self, key: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = lock(&self.turns);
            Arc::clone(turns.entry(key.to_owned()).or_default())
        };
        turn.lock_owned().await
    }

    /// Lets the next one.
    fn leave(&self, key: &str, guard: OwnedMutexGuard<()>) {
        drop(guard);
        let mut turns = lock(&self.turns);
        // One owner is the table itself.
        if turns.get(key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(key);
        }
    }
}

/// Does a call, or gives the answer that it was given before.
pub async fn once(app: Arc<App>, call: Call, handler: Handler) -> Answer {
    let Some(key) = key_of(&call)? else {
        let is_change = call.route.method != Method::Get && call.stream.is_none() && call.worker.is_none();
        if !is_change {
            return handler(app, call).await;
        }
        // Its own task: what a sender began who then goes is finished, and audited.
        let task = tokio::spawn(handler(app, call));
        return task.await.unwrap_or_else(|error| Err(problem::internal(&error)));
    };
    let request = request_of(&call).to_hex();
    // Its own task: a sender that goes does not leave it half done.
    let task = tokio::spawn(async move {
        let guard = app.under_way.turn(&key).await;
        let answer = keyed(&app, call, handler, &key, &request).await;
        match answer {
            Ok((response, None)) => {
                app.under_way.leave(&key, guard);
                Ok(response)
            }
            Ok((response, Some(answered))) => {
                tokio::spawn(async move {
                    // The answer goes on its way first.
                    tokio::task::yield_now().await;
                    write(&app, key.clone(), answered).await;
                    app.under_way.leave(&key, guard);
                });
                Ok(response)
            }
            Err(refusal) => {
                app.under_way.leave(&key, guard);
                Err(refusal)
            }
        }
    });
    task.await.unwrap_or_else(|error| Err(problem::internal(&error)))
}

/// The answer, and what is to be written down of it.
async fn keyed(
    app: &Arc<App>,
    call: Call,
    handler: Handler,
    key: &str,
    request: &str,
) -> Result<(Response<Body>, Option<Answered>), Problem> {
    let now = app.now();
    let wanted = key.to_owned();
    let before = app
        .blocking(move |app| app.server.records.read::<Answered>(&wanted).map_err(problem::record))
        .await?
        .map(|(answered, _)| answered)
        .filter(|answered| answered.until > now);
    if let Some(before) = before {
        if before.request != request {
            return Err(Problem::new(ProblemKind::Conflict, "the idempotency key was used for another call")
                .help("use a fresh key for each call"));
        }
        let status = StatusCode::from_u16(before.status).unwrap_or(StatusCode::OK);
        let response = if before.body.is_empty() {
            super::answer::nothing()?
        } else {
            with(status, JSON, Body::from(before.body))
        };
        return Ok((response, None));
    }
    let response = handler(Arc::clone(app), call).await?;
    let (parts, body) = response.into_parts();
    let body: Bytes = axum::body::to_bytes(body, usize::MAX).await.map_err(|error| problem::internal(&error))?;
    let text = std::str::from_utf8(&body).ok().filter(|text| text.len() <= ANSWER_BYTES_MAX);
    let answered = text.map(|text| Answered {
        request: request.to_owned(),
        status: parts.status.as_u16(),
        body: text.to_owned(),
        until: now.plus_ms(IDEMPOTENCY_SECONDS * 1000),
    });
    Ok((Response::from_parts(parts, Body::from(body)), answered))
}

/// The key under which a call is remembered: that of its sender and of its token. What a token was answered is no answer to one that was
/// narrowed from it, which may have no right to it.
fn key_of(call: &Call) -> Result<Option<String>, Problem> {
    if !call.route.takes_key() {
        return Ok(None);
    }
    let Some(value) = call.headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let bytes = value.as_bytes();
    if bytes.is_empty() || bytes.len() > IDEMPOTENCY_KEY_BYTES_MAX || !bytes.iter().all(u8::is_ascii_graphic) {
        return Err(Problem::new(ProblemKind::Invalid, "the idempotency key cannot be used")
            .field(IDEMPOTENCY_KEY, "has to be 1 to 255 visible characters of ASCII"));
    }
    let token = call.bearer.as_ref().map_or(Digest([0; 32]), |bearer| bearer.presented());
    Ok(Some(store::blob::digest(&[&token.0[..], bytes].concat()).to_hex()))
}

/// What the call asks, whatever its key.
fn request_of(call: &Call) -> Digest {
    store::blob::digest(&[call.route.operation.as_bytes(), &path_text(call), &call.body].join(&0_u8))
}

/// Names a call that has a key, with what it asks: it stands with the build that the call makes, or the jobs that it puts back, in one
/// transaction, so that a repetition finds them also if the server died before the answer was written down.
///
/// # Errors
/// If the key cannot be used.
pub fn name_of(call: &Call) -> Result<Option<Digest>, Problem> {
    let Some(key) = key_of(call)? else { return Ok(None) };
    Ok(Some(store::blob::digest(&[key.as_bytes(), request_of(call).0.as_slice()].join(&0_u8))))
}

fn path_text(call: &Call) -> Vec<u8> {
    let sorted = |map: &HashMap<String, String>| {
        let mut pairs: Vec<_> = map.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.sort();
        pairs.join("\0")
    };
    format!("{}\0\0{}", sorted(&call.path), sorted(&call.query)).into_bytes()
}

async fn write(app: &Arc<App>, key: String, answered: Answered) {
    let count = app.under_way.written.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let written = app
        .blocking(move |app| {
            let now = app.now();
            app.server.records.note(&key, &answered, now).map_err(problem::record)?;
            if count.is_multiple_of(SWEEP_EVERY) { sweep(app, now) } else { Ok(()) }
        })
        .await;
    if let Err(refusal) = written {
        let why = problem::told(&refusal);
        notices::warning(&format!("an answer was not kept for repetitions of its call: {why}"));
    }
}

/// Removes the answers that are too old.
fn sweep(app: &App, now: graph::Timestamp) -> Result<(), Problem> {
    for (key, answered) in app.server.records.all::<Answered>().map_err(problem::record)? {
        if answered.until <= now {
            app.server.records.remove::<Answered>(&key).map_err(problem::record)?;
        }
    }
    Ok(())
}
