//! A worker that speaks the whole conversation and runs nothing: every attempt passes the moment it comes. It is a process
//! of its own, as a real one is, and shows what server and conversation cost alone.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use api::client::{Client, ClientError, Server, Session};
use api::worker::{FromWorker, Hello, Join, OUTBOX_BYTES_MAX, Offer, PROTOCOL, Start, ToWorker};
use graph::{AttemptReport, Outcome, Timestamp};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

/// What stands before the nonce in what is signed (`api::worker::Join`).
const SIGNED_PREFIX: &[u8] = b"ropewalk worker session\n";
/// The kind of a section that holds a [`FromWorker`].
const SAYING: u8 = 0;
/// It shows itself so much more often than it must.
const BEATS_MORE: u32 = 3;

/// Works for the server at an address, under the token in a file, until it is killed: `ADDRESS TOKEN NAME SLOTS`.
///
/// # Errors
/// What the server refuses; that it has gone.
pub fn work(arguments: &[&str]) -> Result<(), String> {
    let [address, token, name, slots] = arguments else { return Err("ADDRESS TOKEN NAME SLOTS".to_owned()) };
    let slots = slots.parse().map_err(|_| "SLOTS is a number")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(serve(address, Path::new(token), name, slots))
}

async fn serve(address: &str, token: &Path, name: &str, slots: u32) -> Result<(), String> {
    let token = std::fs::read_to_string(token).map_err(|error| error.to_string())?;
    let client = Client::new(Server::parse(&format!("http://{address}")), &token).map_err(text)?;
    let mut session = join(&client, name, slots).await.map_err(text)?;
    let Some(ToWorker::Welcome { session: secret, heartbeat_ms, .. }) = session.next().await.map_err(text)? else {
        return Err("no welcome came".to_owned());
    };
    let client = client.with_token(&secret);
    let mut beat = tokio::time::interval(Duration::from_millis(heartbeat_ms) / BEATS_MORE);
    let mut waiting = Vec::new();
    loop {
        // All that came while the last post was under way is told in one.
        if !waiting.is_empty() {
            let body = std::mem::take(&mut waiting);
            let mut posting = pin!(client.worker_outbox(body.into()));
            loop {
                tokio::select! {
                    taken = &mut posting => { taken.map_err(text)?; break }
                    line = session.next(), if waiting.len() < OUTBOX_BYTES_MAX / 2 => hear(line, &mut waiting)?,
                }
            }
            continue;
        }
        tokio::select! {
            line = session.next() => hear(line, &mut waiting)?,
            // Whatever came has been told: nothing is held.
            _ = beat.tick() => say(&FromWorker::Present { leases: BTreeSet::new(), closed: None }, &mut waiting)?,
        }
    }
}

async fn join(client: &Client, name: &str, slots: u32) -> Result<Session, ClientError> {
    let broken = "the system gives random numbers";
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect(broken);
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("it was made just now");
    let key = hex(pair.public_key().as_ref());
    let challenge = client.worker_hello(&Hello { key: key.clone(), protocol: PROTOCOL }).await?;
    let signature = hex(pair.sign(&[SIGNED_PREFIX, challenge.nonce.as_bytes()].concat()).as_ref());
    let pools = BTreeSet::from(["default".to_owned()]);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let offer = Offer { name: name.to_owned(), pools, slots, version, ..Offer::default() };
    client
        .worker_session(&Join {
            key,
            nonce: challenge.nonce,
            signature,
            offer,
            leases: BTreeSet::new(),
            is_draining: false,
        })
        .await
}

fn hear(line: Result<Option<ToWorker>, ClientError>, waiting: &mut Vec<u8>) -> Result<(), String> {
    match line.map_err(text)?.ok_or("the server ended the session")? {
        ToWorker::Start(start) => pass(&start, waiting),
        _ => Ok(()),
    }
}

/// Says what a worker says of an attempt that took no time.
fn pass(start: &Start, waiting: &mut Vec<u8>) -> Result<(), String> {
    let (lease, at) = (start.spec.lease, now());
    say(&FromWorker::StepStarted { lease, step: 0, name: "simulated".to_owned(), at }, waiting)?;
    let report = Box::new(AttemptReport::of(Outcome::passed(), at));
    say(&FromWorker::Finished { lease, report }, waiting)
}

fn say(word: &FromWorker, waiting: &mut Vec<u8>) -> Result<(), String> {
    let text = serde_json::to_vec(word).map_err(text)?;
    waiting.push(SAYING);
    waiting.extend_from_slice(&u32::try_from(text.len()).map_err(|error| error.to_string())?.to_le_bytes());
    waiting.extend_from_slice(&text);
    Ok(())
}

fn now() -> Timestamp {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
