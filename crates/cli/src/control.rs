//! How another `ropewalk` talks to the one that runs a build: one JSON line over a Unix socket in the data folder.
//! Only the socket's owner can connect. A slot (`local/slots.rs`) is lent for as long as its connection stands, and whoever waits for a turn
//! (`local/turns.rs`) waits as long as the connection to whoever has it stands.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::Input;
use futures_util::future::select;
use graph::{BuildId, ConcurrencyMode, JobName, Trust};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use server::Inbox;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::local::turns::Turns;

/// The longest request.
const REQUEST_BYTES_MAX: u64 = 1024 * 1024;

/// What another process may ask of the one that runs a build.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// Cancel the build.
    Cancel {
        /// Who asks.
        by: String,
    },
    /// Answer a gate; the answer was checked against the gate's fields.
    Answer {
        /// The gate's job.
        job: JobName,
        /// What was filled in; `None` is a no.
        answer: Option<BTreeMap<String, Value>>,
        /// Who answers.
        by: String,
    },
    /// Say how many slots the build and those below it have.
    Slots,
    /// Lend a slot, once one is free, until the connection is closed.
    Slot,
    /// Say when the ticket with this mark is given back.
    Returned {
        /// The mark.
        mark: String,
    },
    /// Hear that a job of another build has entered a concurrency group in a mode that cancels jobs before it.
    Entered {
        /// The group, by name.
        group: String,
        /// Among builds of which trust.
        trust: Trust,
        /// The mode.
        mode: ConcurrencyMode,
        /// Which job.
        by: String,
    },
    /// Let the holder of the ticket with this mark begin without a slot: who has the slots waits for it.
    Hurry {
        /// The mark.
        mark: String,
    },
}

/// The most processes and jobs that wait for a slot or hold one, or wait for a turn, at once; who comes then is sent away, and goes on with
/// the slot that it has, or asks again.
const BORROWERS_MAX: usize = 4096;

/// The slots that a build lends to those below it.
#[derive(Clone)]
pub struct Lent {
    /// How many there are.
    pub count: u32,
    /// Those that are free; `None` if this build has none of its own.
    pub slots: Option<Arc<Semaphore>>,
}

/// Where the process that runs `build` listens.
pub fn path(data: &Path, build: BuildId) -> PathBuf {
    data.join("run").join(format!("{build}.sock"))
}

/// Listens for requests about `build` until dropped, and hands them to the engine.
pub struct Listener {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Listener {
    /// Begins to listen. Must be called within a `LocalRuntime`.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn start(data: &Path, build: BuildId, inbox: Inbox, lent: Lent, turns: Rc<Turns>) -> std::io::Result<Self> {
        let path = path(data, build);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        // Ours by the claim on the build: whoever left it is dead.
        let _ = std::fs::remove_file(&path);
        let listener = tokio::net::UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let borrowers = Arc::new(Semaphore::new(BORROWERS_MAX));
        let task = tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = Served { build, inbox: inbox.clone(), lent: lent.clone(), turns: Rc::clone(&turns) };
                let borrowers = Arc::clone(&borrowers);
                tokio::task::spawn_local(async move {
                    // A broken request concerns only the one who sent it.
                    let _ = serve(stream, served, &borrowers).await;
                });
            }
        });
        Ok(Self { path, task })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What requests are about.
struct Served {
    build: BuildId,
    inbox: Inbox,
    lent: Lent,
    turns: Rc<Turns>,
}

async fn serve(stream: tokio::net::UnixStream, served: Served, borrowers: &Semaphore) -> std::io::Result<()> {
    let Served { build, inbox, lent, turns } = served;
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(reader.take(REQUEST_BYTES_MAX));
    reader.read_line(&mut line).await?;
    let input = match serde_json::from_str::<Request>(&line) {
        Ok(Request::Cancel { by }) => Input::CancelRequested { build, by },
        Ok(Request::Answer { job, answer, by }) => Input::GateAnswered { build, job, answer, by },
        Ok(Request::Slots) => return writer.write_all(format!("{}\n", lent.count).as_bytes()).await,
        Ok(Request::Slot) => {
            let (Ok(_borrower), Some(slots)) = (borrowers.try_acquire(), &lent.slots) else {
                return writer.write_all(b"none\n").await;
            };
            // Nobody closes them.
            let Ok(_slot) = slots.acquire().await else { return Ok(()) };
            writer.write_all(b"ok\n").await?;
            // The borrower says nothing more: this ends when it closes, or dies.
            reader.read_line(&mut line).await?;
            return Ok(());
        }
        Ok(Request::Returned { mark }) => {
            let Ok(_waiter) = borrowers.try_acquire() else { return Ok(()) };
            let Some(held) = turns.held(&mark) else { return writer.write_all(b"none\n").await };
            // Whoever waits says nothing more: he has gone if that ends.
            select(pin!(held.returned()), pin!(reader.read_line(&mut line))).await;
            return writer.write_all(b"ok\n").await;
        }
        Ok(Request::Entered { group, trust, mode, by }) => {
            for (job, by) in turns.canceled_by_newcomer(&group, trust, mode, &by) {
                let _ = inbox.send(Input::JobCanceled { build, job, by }).await;
            }
            let _ = inbox.send(Input::GroupEntered { build, group, by }).await;
            return writer.write_all(b"ok\n").await;
        }
        Ok(Request::Hurry { mark }) => {
            turns.hurry(&mark);
            return writer.write_all(b"ok\n").await;
        }
        Err(_) => return writer.write_all(b"not a request\n").await,
    };
    let answer: &[u8] = if inbox.send(input).await.is_ok() { b"ok\n" } else { b"the build has ended\n" };
    writer.write_all(answer).await
}

/// Waits until the process that runs `build` lends a slot; it is given back when the connection is dropped.
///
/// # Errors
/// If no process runs the build, or it lends none.
pub async fn borrow_slot(data: &Path, build: BuildId) -> std::io::Result<tokio::net::UnixStream> {
    let mut stream = tokio::net::UnixStream::connect(path(data, build)).await?;
    stream.write_all(b"{\"ask\":\"slot\"}\n").await?;
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).await?;
    if answer == *b"ok\n" { Ok(stream) } else { Err(std::io::ErrorKind::WouldBlock.into()) }
}

/// What is heard of a ticket of another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It was given back.
    Returned,
    /// The process that runs the build knows nothing of it.
    Unknown,
    /// Nothing: the process has died, or is about to end.
    Nothing,
}

/// Waits until the process that runs `build` gives the ticket with this mark back, or ends.
pub async fn returned(data: &Path, build: BuildId, mark: String) -> Heard {
    match tell(data, build, &Request::Returned { mark }).await.as_deref() {
        Ok("ok") => Heard::Returned,
        Ok("none") => Heard::Unknown,
        _ => Heard::Nothing,
    }
}

/// Says something to the process that runs `build`. Gives its answer, one line; empty if it ends without one.
///
/// # Errors
/// If no process runs the build, or it ends meanwhile.
pub async fn tell(data: &Path, build: BuildId, request: &Request) -> std::io::Result<String> {
    let stream = tokio::net::UnixStream::connect(path(data, build)).await?;
    let (reader, mut writer) = stream.into_split();
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    writer.write_all(line.as_bytes()).await?;
    let mut answer = String::new();
    tokio::io::BufReader::new(reader.take(REQUEST_BYTES_MAX)).read_line(&mut answer).await?;
    Ok(answer.trim_end().to_owned())
}

/// How many slots the process that runs `build` has for it and the builds below it; `None` if no process does.
pub fn slots(data: &Path, build: BuildId) -> Option<u32> {
    ask(data, build, &Request::Slots).ok()??.parse().ok()
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// The process that runs the build has taken it.
    Taken,
    /// No process runs the build.
    NobodyThere,
}

/// Sends `request` to the process that runs `build`.
///
/// # Errors
/// A sentence, if that process is there but does not take it.
pub fn send(data: &Path, build: BuildId, request: &Request) -> Result<Sent, String> {
    match ask(data, build, request)?.as_deref() {
        None => Ok(Sent::NobodyThere),
        Some("ok") => Ok(Sent::Taken),
        Some(other) => Err(format!("build {build}: {other}")),
    }
}

/// The answer of the process that runs `build`, one line; `None` if there is none.
fn ask(data: &Path, build: BuildId, request: &Request) -> Result<Option<String>, String> {
    let Ok(mut stream) = UnixStream::connect(path(data, build)) else { return Ok(None) };
    let failed = |error: std::io::Error| format!("the process that runs build {build} does not answer: {error}");
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
    let mut line = serde_json::to_string(request).map_err(|error| error.to_string())?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(failed)?;
    Ok(Some(answer.trim_end().to_owned()))
}
