//! What workers ask: a challenge, a session, its outbox, keyed caches. Who speaks is known by the session alone.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api::problem::{Problem, ProblemKind};
use api::routes::NDJSON;
use api::worker::{
    AttemptLayers, AttemptName, CACHE_PACKS_MAX, CacheEntry, CacheSaved, Challenge, FindCache, FoundCache, Hello, Join,
    LAYERS_ATTEMPTS_MAX, LAYERS_BLOBS_MAX, LAYERS_TEXT_BYTES_MAX, Layers, LayersDocument, PROTOCOL, SaveCache,
    SaveLayers, SavedCache, SavedLayers, ToWorker,
};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use graph::{Digest, Timestamp, Trust, WorkerId, hex};
use ring::signature::{ED25519, UnparsedPublicKey};
use store::StoreError;
use store::cache::{CacheAct, CacheRow, CacheUse, CacheUser, CacheWanted, Saved, cache_uses};
use tokio::sync::mpsc;

use super::answer::{Answered, json, with};
use super::call::Call;
use super::problem;
use crate::access::{Ground, Pass, Target, Verb, pool_name};
use crate::dispatch::{Given, JoinRefusal, Joined, SessionPass};
use crate::outbox::OutboxError;
use crate::records::{LayersText, StoredLayers, Written};
use crate::server::{JoinError, Server};

/// What stands before the nonce in what a worker signs.
pub const SIGNED_PREFIX: &str = "ropewalk worker session\n";
/// The most lines that leave a session's stream in one piece.
const LINES_TOGETHER_MAX: usize = 256;
/// The most letters of a reason that a worker gives.
const REASON_CHARS_MAX: usize = 1000;
/// The most prefixes of one search for a cache.
const RESTORE_MAX: usize = 100;

/// The id of the worker that holds a key: it follows from the key and from nothing else.
#[must_use]
pub fn worker_id(key: &[u8]) -> WorkerId {
    WorkerId(store::blob::digest(key).to_hex()[..32].into())
}

fn unprocessable(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::Unprocessable, detail)
}

fn key_bytes(digits: &str, length: usize) -> Result<Vec<u8>, Problem> {
    let wrong = || unprocessable(format!("`{}` is not {length} bytes in hexadecimal", digits.escape_debug()));
    hex::bytes(digits).filter(|bytes| bytes.len() == length).ok_or_else(wrong)
}

/// Gives a challenge.
pub async fn hello(server: Arc<Server>, call: Call) -> Answered {
    let hello: Hello = call.json()?;
    if hello.protocol != PROTOCOL {
        let detail = format!("the worker speaks version {} of the protocol, this server {PROTOCOL}", hello.protocol);
        return Err(unprocessable(detail).help("run the worker of the same release as the server"));
    }
    key_bytes(&hello.key, 32)?;
    json(&Challenge { nonce: server.dispatch.challenge(&hello.key, server.now()) })
}

/// Opens a session: the answer is its stream.
pub async fn session(server: Arc<Server>, call: Call) -> Answered {
    let join: Join = call.json()?;
    let now = server.now();
    let key = key_bytes(&join.key, 32)?;
    let signature = key_bytes(&join.signature, 64)?;
    let refused = || Problem::new(ProblemKind::Unauthorized, "the worker has not proved that it holds its key");
    if !server.dispatch.take_challenge(&join.nonce, &join.key, now) {
        return Err(refused().help("ask for a new challenge by /api/v1/worker/hello"));
    }
    let signed = format!("{SIGNED_PREFIX}{}", join.nonce);
    UnparsedPublicKey::new(&ED25519, &key).verify(signed.as_bytes(), &signature).map_err(|_| refused())?;
    let mut offer = join.offer.clone();
    let bearer = Arc::clone(call.bearer()?);
    let asked = offer.pools.clone();
    offer.pools.retain(|pool| bearer.may(Verb::Work, &Target::pool(pool), now).is_ok());
    if offer.pools.is_empty() {
        let names = asked.iter().map(|pool| format!("`{}`", pool_name(pool))).collect::<Vec<_>>().join(", ");
        // A worker is given the files and the secrets of whatever runs in its pools.
        let of_projects = "the token is limited to projects, and a worker takes jobs of every one: \
                           `ropewalk token create --worker` without `--project` makes one that does";
        let help = match bearer.is_of_every_project() {
            true => problem::pools_help(&bearer)
                .unwrap_or_else(|| "`ropewalk token create --worker --pool POOL` makes one that does".to_owned()),
            false => of_projects.to_owned(),
        };
        return Err(Problem::new(ProblemKind::Forbidden, JoinRefusal::NoPool(names).to_string()).help(help));
    }
    let worker = worker_id(&key);
    let grounds = offer.pools.iter().map(|pool| Ground::from(&Target::pool(pool))).collect();
    let pass = Arc::new(Pass::new(bearer, Verb::Work, grounds, now));
    let joined = server.join(worker.clone(), Join { offer, ..join }, Arc::clone(&pass)).await.map_err(join_problem)?;
    let session = SessionPass { worker, number: joined.number, pass };
    Ok(with(StatusCode::OK, NDJSON, stream(server, session, joined)))
}

fn join_problem(error: JoinError) -> Problem {
    match error {
        JoinError::Refused(refusal) => Problem::new(ProblemKind::Busy, refusal.to_string()),
        JoinError::Record(error) => problem::record(error),
        JoinError::Stopped(error) => problem::stopped(error),
        error @ JoinError::Interrupted => problem::internal(&error),
    }
}

/// One session's stream; when nobody reads it any more the session is over.
struct Stream {
    server: Arc<Server>,
    session: SessionPass,
    lines: mpsc::Receiver<Bytes>,
    heartbeat: Duration,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.server.dispatch.leave(&self.session.worker, self.session.number);
    }
}

fn stream(server: Arc<Server>, session: SessionPass, joined: Joined) -> Body {
    let heartbeat = Duration::from_millis(server.dispatch.heartbeat_ms().max(1));
    let stream = Stream { server, session, lines: joined.lines, heartbeat };
    Body::from_stream(futures_util::stream::unfold(stream, |mut stream| async move {
        let mut lines = Vec::new();
        let waited = tokio::time::timeout(stream.heartbeat, stream.lines.recv_many(&mut lines, LINES_TOGETHER_MAX));
        let piece = match waited.await {
            Ok(0) => return None,
            Ok(_) => joined_lines(lines),
            Err(_) => alive(),
        };
        // Nothing leaves by a token that is not good any more: attempts come with secrets.
        stream.server.ask_session(&stream.session).await.ok()?;
        Some((Ok::<_, Infallible>(piece), stream))
    }))
}

fn joined_lines(mut lines: Vec<Bytes>) -> Bytes {
    if lines.len() == 1 {
        return lines.remove(0);
    }
    lines.concat().into()
}

fn alive() -> Bytes {
    // Our own types serialize to JSON whatever they hold.
    let mut line = serde_json::to_vec(&ToWorker::Alive).expect("a line always serializes");
    line.push(b'\n');
    line.into()
}

/// The worker whose session sent a request.
///
/// # Errors
/// `Gone` if the session is over: the worker joins again.
pub fn worker_of(server: &Server, headers: &HeaderMap) -> Result<WorkerId, Problem> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let secret = value.strip_prefix("Bearer ").unwrap_or_default().trim();
    server.dispatch.worker_of(secret).ok_or_else(|| {
        Problem::new(ProblemKind::Gone, "this session is over").help("join again by /api/v1/worker/hello")
    })
}

/// Takes what a worker says.
pub async fn outbox(server: Arc<Server>, call: Call) -> Answered {
    let worker = worker_of(&server, &call.headers)?;
    let body = axum::body::to_bytes(call.into_stream(), api::worker::OUTBOX_BYTES_MAX)
        .await
        .map_err(|_| Problem::new(ProblemKind::TooLarge, "the post is too large, or broke off"))?;
    match server.take_outbox(worker, body).await {
        Ok(taken) => json(&taken),
        Err(OutboxError::Malformed(what)) => Err(unprocessable(what)),
        Err(OutboxError::Stopped(error)) => Err(problem::stopped(error)),
        Err(OutboxError::Log(error)) => Err(problem::log(error)),
    }
}

/// The attempt in whose name a worker asks.
fn given(server: &Server, call: &Call, lease: graph::LeaseId) -> Result<Given, Problem> {
    let worker = worker_of(server, &call.headers)?;
    server.dispatch.given(&worker, lease).ok_or_else(|| {
        Problem::new(ProblemKind::Conflict, format!("the lease {lease} is not this worker's"))
            .help("forget the attempt")
    })
}

/// The name of a scope in the index: of a project, a trust and the paths that are kept.
fn scope_name(given: &Given, trust: Trust, paths: Digest) -> String {
    let trust = match trust {
        Trust::Trusted => "trusted",
        Trust::Untrusted => "untrusted",
    };
    format!("{}/{trust}/{paths}", given.spec.origin.project)
}

fn user(given: &Given) -> CacheUser {
    CacheUser { build: given.now.0, job: given.spec.name.clone() }
}

fn note_use(server: &Server, given: &Given, used: CacheUse) -> Result<(), StoreError> {
    cache_uses::note(&*server.store, &given.spec.origin.project, &used)
}

/// Finds a keyed cache.
pub async fn cache_find(server: Arc<Server>, call: Call) -> Answered {
    let find: FindCache = call.json()?;
    if find.restore.len() > RESTORE_MAX {
        return Err(unprocessable(format!("a search has at most {RESTORE_MAX} prefixes")));
    }
    let given = given(&server, &call, find.lease)?;
    let at = server.now();
    let found = blocking(move || {
        let own = scope_name(&given, given.trust, find.paths);
        let trusted = scope_name(&given, Trust::Trusted, find.paths);
        // Reading down is allowed, reading up never is.
        let scopes: &[&str] = if given.trust == Trust::Trusted { &[&own] } else { &[&own, &trusted] };
        let prefixes: Vec<&str> = find.restore.iter().map(String::as_str).collect();
        let wanted = CacheWanted { scopes, key: &find.key, prefixes: &prefixes };
        let row = server.store.restore_cache(&wanted, &user(&given), at)?;
        let (scope, act) = match &row {
            Some(row) => (row.scope.clone(), CacheAct::Read { found: row.key.clone() }),
            None => (own, CacheAct::Missed),
        };
        note_use(&server, &given, CacheUse { scope, key: find.key, act, by: user(&given), at })?;
        Ok(row)
    });
    let row = found.await?;
    let entry = row.and_then(|row| {
        Some(CacheEntry { digest: *row.blobs.first()?, key: row.key, bytes: row.bytes, packs: Vec::new() })
    });
    json(&FoundCache { entry })
}

/// Whether all blobs of a cache are here; they stay for long enough to be named.
async fn check_there(server: &Arc<Server>, blobs: Vec<Digest>) -> Result<(), Problem> {
    let server = Arc::clone(server);
    let looked = tokio::task::spawn_blocking(move || {
        for digest in blobs {
            if !server.blobs.renew(digest)? {
                return Ok(Some(digest));
            }
        }
        Ok(None)
    });
    match looked.await.map_err(|error| problem::internal(&error))?.map_err(problem::blob)? {
        None => Ok(()),
        Some(digest) => Err(Problem::new(ProblemKind::Conflict, format!("{digest} is named and not here"))
            .help("ask what is missing, and send that first")),
    }
}

/// Keeps a keyed cache.
pub async fn cache_save(server: Arc<Server>, call: Call) -> Answered {
    let save: SaveCache = call.json()?;
    let given = given(&server, &call, save.lease)?;
    if save.entry.packs.len() > CACHE_PACKS_MAX {
        return Err(unprocessable(format!("a cache has at most {CACHE_PACKS_MAX} packs")));
    }
    let at = server.now();
    let blobs: Vec<Digest> =
        std::iter::once(save.entry.digest).chain(save.entry.packs.iter().map(|pack| pack.digest)).collect();
    check_there(&server, blobs.clone()).await?;
    let saved = blocking(move || {
        let (scope, by) = (scope_name(&given, given.trust, save.paths), user(&given));
        let row = CacheRow {
            scope: scope.clone(),
            key: save.entry.key.clone(),
            blobs,
            bytes: save.entry.bytes,
            written_by: by.clone(),
            at,
            used_at: at,
            evicted: None,
        };
        let saved = store::cache::save(&*server.store, &row, save.refused)?;
        let act = match saved {
            Saved::Written => CacheAct::Written { bytes: save.entry.bytes },
            Saved::Kept => CacheAct::Kept,
        };
        note_use(&server, &given, CacheUse { scope, key: save.entry.key, act, by, at })?;
        Ok(saved)
    });
    let saved = match saved.await? {
        Saved::Written => CacheSaved::Written,
        Saved::Kept => CacheSaved::Kept,
    };
    json(&SavedCache { saved })
}

/// Keeps what attempts left that were this worker's, and names the others.
pub async fn layers_save(server: Arc<Server>, call: Call) -> Answered {
    let SaveLayers { attempts } = call.json()?;
    let worker = worker_of(&server, &call.headers)?;
    let at = server.now();
    let mut blobs = Vec::new();
    for told in &attempts {
        if let Layers::Sent { document, blobs: needed, .. } = &told.layers {
            match document {
                LayersDocument::Blob(document) if !needed.contains(document) => {
                    return Err(unprocessable("what an attempt left is blobs, the document among them"));
                }
                LayersDocument::Text { text } if text.len() > LAYERS_TEXT_BYTES_MAX => {
                    let detail = format!("a document that is no blob has at most {LAYERS_TEXT_BYTES_MAX} bytes");
                    return Err(unprocessable(detail));
                }
                LayersDocument::Blob(_) | LayersDocument::Text { .. } => {}
            }
            blobs.extend_from_slice(needed);
        }
    }
    if attempts.len() > LAYERS_ATTEMPTS_MAX || blobs.len() > LAYERS_BLOBS_MAX {
        let detail = format!("at most {LAYERS_ATTEMPTS_MAX} attempts with {LAYERS_BLOBS_MAX} blobs are kept at once");
        return Err(unprocessable(detail));
    }
    // Attempts that changed nothing name the same one.
    blobs.sort_unstable();
    blobs.dedup();
    check_there(&server, blobs).await?;
    let records = server.records.clone();
    let kept = blocking(move || {
        let mut its_own = BTreeMap::new();
        let (mut written, mut saved) = (Vec::new(), SavedLayers::default());
        for AttemptLayers { build, attempt, layers } in attempts {
            let its_own = match its_own.entry(build) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let rows = server.store.attempts(build, None)?;
                    let of_worker = rows.iter().filter(|row| row.worker == worker);
                    unknown.insert(of_worker.map(|row| row.attempt).collect::<BTreeSet<_>>())
                }
            };
            if its_own.contains(&attempt) {
                let key = StoredLayers::key(build, attempt);
                let (layers, text) = stored_layers(layers, at);
                written.extend(text.map(|text| Written::new(key.clone(), &LayersText { text })));
                written.push(Written::new(key, &layers));
            } else {
                saved.refused.push(AttemptName { build, attempt });
            }
        }
        Ok(records.write_all(&written, at).map(|()| saved))
    });
    json(&kept.await?.map_err(problem::record)?)
}

/// What is kept of layers, and their document if it is no blob.
fn stored_layers(layers: Layers, at: Timestamp) -> (StoredLayers, Option<String>) {
    match layers {
        Layers::Sent { document, blobs, bytes } => {
            let (document, text) = match document {
                LayersDocument::Blob(digest) => (digest, None),
                LayersDocument::Text { text } => (store::blob::digest(text.as_bytes()), Some(text)),
            };
            (StoredLayers { document: Some(document), blobs, bytes, at, ..StoredLayers::default() }, text)
        }
        Layers::Unsent { reason } => {
            let reason = reason.chars().take(REASON_CHARS_MAX).collect();
            (StoredLayers { reason, at, ..StoredLayers::default() }, None)
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(problem::store),
        Err(error) => Err(problem::internal(&error)),
    }
}
