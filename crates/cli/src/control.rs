//! How another `ropewalk` talks to the one that runs a build: one JSON line over a Unix socket in the data folder.
//! Only the socket's owner can connect. A slot (`local/slots.rs`) is lent for as long as its connection stands, and whoever waits for a turn
//! (`local/turns.rs`) waits as long as the connection to whoever has it stands.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::Input;
use futures_util::future::select;
use graph::{BuildId, ConcurrencyMode, JobName, Trust};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use server::Inbox;
use store::{Claim, Store};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::commands::Stop;
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
        /// Why; may be empty.
        #[serde(default)]
        reason: String,
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
        Ok(Request::Answer { job, answer, by, reason }) => Input::GateAnswered { build, job, answer, by, reason },
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
    match inbox.send(input).await {
        Ok(()) => writer.write_all(b"ok\n").await,
        // The run is over, and takes nothing any more; whoever asks hears so by the end of the connection.
        Err(_) => Ok(()),
    }
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
    match ask(data, build, &Request::Slots, |_| false) {
        Ok(Answer::Line(line)) => line.parse().ok(),
        _ => None,
    }
}

/// What became of a request.
#[derive(Debug)]
pub enum Sent {
    /// The process that runs the build has taken it.
    Taken,
    /// The process that runs the build is stopped (Ctrl-Z), and takes it when it goes on.
    ToStopped,
    /// No process runs the build: it is in the hands of this one, which does what it was to request.
    Claimed(Claim),
}

/// Sends `request` to the process that runs `build`, or claims the build if none does. A process that begins to run it or is about to end
/// has claimed it and does not listen: then both are tried again, for at most [`ANSWER_WAIT`].
///
/// # Errors
/// If a process runs the build but does not take the request, and as the store refuses.
pub fn send_or_claim(data: &Path, store: &dyn Store, build: BuildId, request: &Request) -> Result<Sent, Stop> {
    let began = Instant::now();
    loop {
        match ask(data, build, request, is_stopped).map_err(Stop::infra)? {
            Answer::Stopped => return Ok(Sent::ToStopped),
            Answer::Line(line) if line == "ok" => return Ok(Sent::Taken),
            Answer::Line(line) => return Err(Stop::infra(format!("build {build}: {line}"))),
            Answer::Nobody => {}
        }
        if let Some(claim) = store.claim(build)? {
            return Ok(Sent::Claimed(claim));
        }
        if began.elapsed() >= ANSWER_WAIT {
            return Err(Stop::infra(is_deaf(data, store, build)?));
        }
        std::thread::sleep(ASKED_AGAIN_AFTER);
    }
}

/// What to say of a build that somebody runs who does not listen.
fn is_deaf(data: &Path, store: &dyn Store, build: BuildId) -> Result<String, Stop> {
    let process = store.claimant(build)?.and_then(|claimant| claimant.process);
    let process = process.map(|process| format!(" (process {process})")).unwrap_or_default();
    let (waited, path) = (ANSWER_WAIT.as_secs(), path(data, build));
    Ok(format!(
        "build {build} is run{process}, but nobody has listened at `{}` for {waited} s: it begins or is about to end; ask again",
        path.display()
    ))
}

/// How long the process that runs a build has for its answer, and for listening.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// The wait before a process that does not listen is asked again.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How often it is looked at meanwhile.
const LOOKED_AT_EVERY: Duration = Duration::from_millis(100);

/// What the process that runs a build answers.
enum Answer {
    /// One line.
    Line(String),
    /// Nothing, since it is stopped: it has the request when it goes on.
    Stopped,
    /// There is none, or it ended without an answer.
    Nobody,
}

/// Asks the process that runs a build, and waits for its answer, but not longer than until it is given up.
fn ask(data: &Path, build: BuildId, request: &Request, is_given_up: fn(Pid) -> bool) -> Result<Answer, String> {
    let Ok(mut stream) = UnixStream::connect(path(data, build)) else { return Ok(Answer::Nobody) };
    let failed = |error: std::io::Error| format!("the process that runs build {build} does not answer: {error}");
    let has_gone = |error: &std::io::Error| matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
    stream.set_read_timeout(Some(LOOKED_AT_EVERY)).map_err(failed)?;
    let mut line = serde_json::to_string(request).map_err(|error| error.to_string())?;
    line.push('\n');
    match stream.write_all(line.as_bytes()) {
        Err(error) if has_gone(&error) => return Ok(Answer::Nobody),
        written => written.map_err(failed)?,
    }
    let listener = listener(&stream);
    let (began, mut reader, mut answer) = (Instant::now(), BufReader::new(stream), String::new());
    loop {
        match reader.read_line(&mut answer) {
            Ok(_) if answer.is_empty() => return Ok(Answer::Nobody),
            Ok(_) => return Ok(Answer::Line(answer.trim_end().to_owned())),
            Err(error) if has_gone(&error) => return Ok(Answer::Nobody),
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(failed(error));
            }
            Err(_) if listener.is_some_and(is_given_up) => return Ok(Answer::Stopped),
            Err(_) if began.elapsed() >= ANSWER_WAIT => {
                let waited = ANSWER_WAIT.as_secs();
                return Err(format!("the process that runs build {build} has not answered for {waited} s: ask again"));
            }
            Err(_) => {}
        }
    }
}

/// The process at the other end of a socket; `None` if it has no number here, as one in another container.
fn listener(stream: &UnixStream) -> Option<Pid> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of_val(&peer)).ok()?;
    // SAFETY: the kernel writes at most `length` bytes into `peer`, all of whose bytes may have any value. rustix has its number never be 0.
    let code = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if code == 0 { Pid::from_raw(peer.pid) } else { None }
}

/// Whether a process is stopped by job control.
fn is_stopped(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
    // Source: proc_pid_stat(5): the state stands behind the name, which may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}
