//! How another `ropewalk` talks to the one that runs a build: one JSON line over a Unix socket in the data folder.
//! Only the socket's owner can connect.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::Input;
use graph::{BuildId, JobName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use server::Inbox;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

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
    pub fn start(data: &Path, build: BuildId, inbox: Inbox) -> std::io::Result<Self> {
        let path = path(data, build);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        // Ours by the claim on the build: whoever left it is dead.
        let _ = std::fs::remove_file(&path);
        let listener = tokio::net::UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let task = tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let inbox = inbox.clone();
                tokio::task::spawn_local(async move {
                    // A broken request concerns only the one who sent it.
                    let _ = serve(stream, build, inbox).await;
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

async fn serve(stream: tokio::net::UnixStream, build: BuildId, inbox: Inbox) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    tokio::io::BufReader::new(reader.take(REQUEST_BYTES_MAX)).read_line(&mut line).await?;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) => {
            let input = match request {
                Request::Cancel { by } => Input::CancelRequested { build, by },
                Request::Answer { job, answer, by } => Input::GateAnswered { build, job, answer, by },
            };
            if inbox.send(input).await.is_ok() { "ok\n" } else { "the build has ended\n" }
        }
        Err(_) => "not a request\n",
    };
    writer.write_all(answer.as_bytes()).await
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
    let Ok(mut stream) = UnixStream::connect(path(data, build)) else { return Ok(Sent::NobodyThere) };
    let failed = |error: std::io::Error| format!("the process that runs build {build} does not answer: {error}");
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
    let mut line = serde_json::to_string(request).map_err(|error| error.to_string())?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(failed)?;
    match answer.trim_end() {
        "ok" => Ok(Sent::Taken),
        other => Err(format!("build {build}: {other}")),
    }
}
