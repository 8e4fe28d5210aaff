//! What a joined worker says, section by section: judged by its session and by leases, into logs, inputs and to followers.
//!
//! Sections take effect in order. What was taken is kept: logs as their settings say, reports as facts. A section whose
//! lease is somebody else's by now is dropped and counted. All may come twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::worker::{FromWorker, Resend, Taken};
use engine::Input;
use graph::{AttemptNumber, BuildId, LeaseId, WorkerId};
use store::log::{Batch, BatchEnd, LogError};
use thiserror::Error;

use crate::dispatch::{Given, LEASES_MAX};
use crate::request::Stopped;
use crate::server::Server;

/// The kind of a section that holds a [`FromWorker`].
pub const SAYING: u8 = 0;
/// The kind of a section that holds a log batch.
pub const LOG: u8 = 1;
/// The bytes before each section.
pub const HEAD_BYTES: usize = 5;
/// The most sections of one post.
pub const SECTIONS_MAX: usize = 100_000;
/// How many log batches are handed to the logs at a time.
const BATCHES_TOGETHER_MAX: usize = 256;

/// Why a post was not taken, or not whole.
#[derive(Debug, Error)]
pub enum OutboxError {
    /// It is not of the form agreed upon: sending it again does not help.
    #[error("{0}")]
    Malformed(String),
    /// The server is ending: send it to the next.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// Nothing of it could be kept: send it again later.
    #[error("the log could not be kept")]
    Log(#[source] LogError),
}

/// One section of a post.
#[derive(Debug)]
enum Section {
    Saying(Box<FromWorker>),
    Log(Box<Batch>),
}

/// Reads the sections of a post.
fn sections(mut body: &[u8]) -> Result<Vec<Section>, OutboxError> {
    let malformed = |what: String| OutboxError::Malformed(what);
    let mut sections = Vec::new();
    while !body.is_empty() {
        let number = sections.len();
        if number == SECTIONS_MAX {
            return Err(malformed(format!("a post has at most {SECTIONS_MAX} sections")));
        }
        let cut_off = || malformed(format!("section {number} is cut off"));
        let (&kind, rest) = body.split_first().ok_or_else(cut_off)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
        let length = u32::from_le_bytes(*length) as usize;
        let content = rest.get(..length).ok_or_else(cut_off)?;
        body = &rest[length..];
        sections.push(match kind {
            SAYING => {
                let said = serde_json::from_slice(content);
                Section::Saying(
                    said.map_err(|error| malformed(format!("section {number} says nothing known: {error}")))?,
                )
            }
            LOG => {
                let (batch, length) = Batch::decode(content, 0).map_err(|error| malformed(error.to_string()))?;
                if length != content.len() {
                    return Err(malformed(format!("section {number} has more than one log batch")));
                }
                Section::Log(Box::new(batch))
            }
            kind => return Err(malformed(format!("section {number} is of the unknown kind {kind}"))),
        });
    }
    Ok(sections)
}

/// Whether log batches were kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    All,
    NotAll,
}

/// What a post has led to so far.
struct Taking<'s> {
    server: &'s Server,
    worker: &'s WorkerId,
    taken: Taken,
    inputs: Vec<Input>,
    woken: BTreeSet<BuildId>,
    has_left: bool,
}

impl Server {
    /// Takes a post of a joined worker. Answers once all that is said to be taken is kept.
    ///
    /// # Errors
    /// [`OutboxError`].
    pub async fn take_outbox(self: &Arc<Self>, worker: WorkerId, body: bytes::Bytes) -> Result<Taken, OutboxError> {
        let server = Arc::clone(self);
        let whose = worker.clone();
        let taking = crate::aside::briefly(move || {
            let mut taking = Taking {
                server: &server,
                worker: &whose,
                taken: Taken::default(),
                inputs: Vec::new(),
                woken: BTreeSet::new(),
                has_left: false,
            };
            taking.take(sections(&body)?)?;
            Ok::<_, OutboxError>((taking.taken, taking.inputs, taking.has_left))
        });
        let (taken, inputs, has_left) =
            taking.await.map_err(|_| OutboxError::Malformed("the post was interrupted".to_owned()))??;
        if !inputs.is_empty() {
            self.shell.put_and_wait(inputs).await?;
        }
        if has_left {
            self.dispatch.end(&worker);
        }
        Ok(taken)
    }
}

impl Taking<'_> {
    fn take(&mut self, sections: Vec<Section>) -> Result<(), OutboxError> {
        let mut waiting: Vec<(Given, Batch)> = Vec::new();
        for section in sections {
            match section {
                Section::Log(batch) => {
                    let attempt = AttemptNumber(batch.key.attempt);
                    let given = self.server.dispatch.given_attempt(self.worker, (batch.build, attempt));
                    let is_full = waiting.len() == BATCHES_TOGETHER_MAX;
                    if (is_full || given.is_none()) && self.append(&mut waiting)? == Kept::NotAll {
                        return Ok(());
                    }
                    match given {
                        Some(given) => waiting.push((given, *batch)),
                        // Its attempt is not this worker's, or has ended: dropped for good.
                        None => {
                            self.server.dispatch.count_stale(1);
                            self.taken.sections += 1;
                        }
                    }
                }
                Section::Saying(said) => {
                    // What is said of a step comes after its log.
                    if self.append(&mut waiting)? == Kept::NotAll {
                        return Ok(());
                    }
                    self.hear(*said);
                    self.taken.sections += 1;
                }
            }
        }
        self.append(&mut waiting)?;
        self.wake();
        Ok(())
    }

    fn given(&mut self, lease: LeaseId) -> Option<Given> {
        let given = self.server.dispatch.given(self.worker, lease);
        if given.is_none() {
            self.stale(lease);
        }
        given
    }

    fn stale(&mut self, lease: LeaseId) {
        self.taken.stale.insert(lease);
        self.server.dispatch.count_stale(1);
    }

    /// Keeps the batches that wait. Unless all are kept, nothing behind them may be taken.
    fn append(&mut self, waiting: &mut Vec<(Given, Batch)>) -> Result<Kept, OutboxError> {
        if waiting.is_empty() {
            return Ok(Kept::All);
        }
        let (given, batches): (Vec<Given>, Vec<Batch>) = std::mem::take(waiting).into_iter().unzip();
        let receipts = self.server.logs.append(&batches);
        let mut kept = Kept::All;
        for ((given, batch), receipt) in given.into_iter().zip(&batches).zip(receipts) {
            match receipt.end {
                BatchEnd::Taken => self.server.figures.log_bytes.add(batch.content().len() as u64),
                BatchEnd::AfterEnd => {}
                BatchEnd::Gap => {
                    let lease = given.spec.lease;
                    let resend = Resend { lease, step: receipt.key.step, from_byte: receipt.next_byte };
                    if !self.taken.resend.contains(&resend) {
                        self.taken.resend.push(resend);
                    }
                    // What is said behind it, the attempt's end above all, waits for what is sent again: the worker holds it, with
                    // its lines, and then says what of it is lost, so that this is asked for once.
                    kept = Kept::NotAll;
                }
                BatchEnd::Failed(error) if self.taken == Taken::default() => return Err(OutboxError::Log(error)),
                BatchEnd::Failed(_) => {
                    kept = Kept::NotAll;
                    break;
                }
            }
            if kept == Kept::All {
                self.taken.sections += 1;
            }
            self.woken.extend([given.spec.build, given.now.0]);
        }
        if kept == Kept::NotAll {
            self.wake();
        }
        Ok(kept)
    }

    fn hear(&mut self, said: FromWorker) {
        let server = self.server;
        let now = server.now();
        match said {
            FromWorker::Present { mut leases, closed } => {
                while leases.len() > LEASES_MAX {
                    leases.pop_last();
                }
                if let Some(presence) = server.dispatch.present(self.worker, Some((leases, closed)), now) {
                    self.inputs.push(Input::WorkerPresent { worker: self.worker.clone(), presence });
                }
            }
            FromWorker::StepStarted { lease, step, name, at } => {
                if let Some(given) = self.given(lease) {
                    server.live.step_started((given.spec.build, given.spec.attempt), step, &name, at);
                    self.woken.extend([given.spec.build, given.now.0]);
                }
            }
            FromWorker::StepFinished { lease, step, report } => {
                if let Some(given) = self.given(lease) {
                    server.live.step_finished((given.spec.build, given.spec.attempt), step, *report);
                    self.woken.extend([given.spec.build, given.now.0]);
                }
            }
            FromWorker::Finished { lease, report } => {
                if let Some(given) = self.given(lease) {
                    let (build, attempt) = (given.spec.build, given.spec.attempt);
                    self.inputs.push(Input::AttemptFinished { build, attempt, lease, report });
                }
            }
            FromWorker::Evaluated { id, reply, lack } => server.dispatch.evaluated(self.worker, id, reply, lack),
            FromWorker::Leaving => {
                self.inputs.push(Input::WorkerLeft { worker: self.worker.clone() });
                self.has_left = true;
            }
        }
    }

    fn wake(&mut self) {
        for build in std::mem::take(&mut self.woken) {
            self.server.live.wake(build);
        }
    }
}
