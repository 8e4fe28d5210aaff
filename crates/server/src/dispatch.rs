//! Who is joined, what is on the way to whom, and who evaluates.
//!
//! A worker is its key; a session is one answer that a joined worker reads. Of attempts only the engine decides: what is
//! given out is noted here so that a report or a log can be judged by its lease, and so that a start that was lost on the way is
//! said again when its worker joins again. Nothing here waits: a worker that does not read loses its session.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use api::worker::{CARGO_LABEL, Evaluate, Lack, Offer, ProgramReply, Then, ToWorker};
use bytes::Bytes;
use engine::{Intake, PoolReach, Presence};
use graph::{AttemptNumber, AttemptSpec, BuildId, JobName, LeaseId, Timestamp, Trust, WorkerId};
use serde::Serialize;
use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::access::Pass;
use crate::lock::lock;
use crate::random::random_digits;
use crate::records::{self, DEFAULT_POOL};

/// The most lines that wait for one worker; a worker that leaves more unread loses its session and joins again.
pub const SESSION_LINES_MAX: usize = 4096;
/// The most workers that are joined at once.
pub const SESSIONS_MAX: usize = 20_000;
/// The most challenges that wait to be signed; the oldest is forgotten for a newer one.
pub const CHALLENGES_MAX: usize = 1024;
/// How long a challenge may be signed, in milliseconds.
pub const CHALLENGE_MS: u64 = 60_000;
/// Of how many builds it is remembered who was asked for their programs.
pub const ASKED_BUILDS_MAX: usize = 256;
/// How many heartbeats a worker may be silent before it is lost.
pub const HEARTBEATS_MISSED_MAX: u64 = 3;
/// The most leases that one worker says it holds.
pub const LEASES_MAX: usize = 10_000;
/// The most pools or labels that one worker offers.
pub const OFFERED_MAX: usize = 1000;

/// Why a worker may not join.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JoinRefusal {
    /// There are too many.
    #[error("{SESSIONS_MAX} workers are joined, the most there may be")]
    Full,
    /// It offers nothing that its token allows.
    #[error("the token grants none of the pools {0}")]
    NoPool(String),
    /// It offers too much.
    #[error("a worker offers at most {OFFERED_MAX} pools and labels, and holds at most {LEASES_MAX} leases")]
    TooMuch,
}

/// An attempt in a worker's hands.
#[derive(Clone, Debug)]
pub struct Given {
    /// Who has it.
    pub worker: WorkerId,
    /// What it is; build and attempt as the worker knows them, also after it was handed on to another build.
    pub spec: Arc<AttemptSpec>,
    /// The build that waits for it now, and the attempt's number there.
    pub now: (BuildId, AttemptNumber),
    /// How far its build is trusted.
    pub trust: Trust,
}

/// What a joined worker is told of its session.
#[derive(Debug)]
pub struct Joined {
    /// Its session's secret.
    pub secret: String,
    /// The number of the session, larger than those before it.
    pub number: u64,
    /// The lines to send it, each with its line break. Ends when the session is over.
    pub lines: mpsc::Receiver<Bytes>,
}

/// One worker that is joined, for people.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Who.
    pub worker: WorkerId,
    /// What it offered; its pools are those that its token grants.
    pub offer: Offer,
    /// When it joined.
    pub since: Timestamp,
    /// When it last said something.
    pub heard: Timestamp,
    /// The leases it holds, by its own word.
    pub leases: BTreeSet<LeaseId>,
    /// Why it takes nothing new, if so.
    pub closed: Option<String>,
}

/// A session, by its secret.
#[derive(Clone, Debug)]
pub struct SessionPass {
    /// Who.
    pub worker: WorkerId,
    /// The number of the session.
    pub number: u64,
    /// The token by which the worker joined.
    pub pass: Arc<Pass>,
}

/// What a pipeline's program said, or what went wrong.
type Reply = Result<Box<ProgramReply>, String>;

/// Which workers may ask the program of a build: it runs there, as its jobs do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Askers {
    /// The build's pool; empty if it names none.
    pub pool: String,
    /// The pools that whoever asked for the build may use.
    pub reach: PoolReach,
}

/// An evaluation that somebody waits for, until this is dropped.
pub struct Wanted {
    dispatch: Arc<Dispatch>,
    number: u64,
}

impl Wanted {
    /// Whether its build has not ended.
    #[must_use]
    pub fn is_still(&self) -> bool {
        self.dispatch.state().wanted.contains_key(&self.number)
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.dispatch.state().wanted.remove(&self.number);
    }
}

/// What an evaluation that is wanted waits for.
struct Waiting {
    build: BuildId,
    /// Of whom none is there that would ask it.
    askers: Option<Askers>,
}

/// A question on the way to a worker.
struct Asked {
    build: BuildId,
    worker: WorkerId,
    answer: oneshot::Sender<(Reply, Option<Lack>)>,
}

/// What became of a question.
enum Asking {
    /// This worker has it.
    Sent(WorkerId, u64, oneshot::Receiver<(Reply, Option<Lack>)>),
    /// Nobody may ask it who takes anything now.
    Nobody,
    /// All who may ask it lack what it takes.
    Refused,
    /// Its build has ended.
    Unwanted,
}

struct Session {
    number: u64,
    secret: Arc<str>,
    pass: Arc<Pass>,
    offer: Offer,
    since: Timestamp,
    heard: Timestamp,
    leases: BTreeSet<LeaseId>,
    /// Its own reason to take nothing new.
    own_reason: Option<String>,
    /// What people said of it.
    intake: records::Intake,
    lines: mpsc::Sender<Bytes>,
    started: BTreeSet<LeaseId>,
    /// Questions to pipelines' programs that it has not answered.
    asked: BTreeSet<u64>,
}

#[derive(Default)]
struct State {
    sessions: BTreeMap<WorkerId, Session>,
    secrets: HashMap<Arc<str>, WorkerId>,
    given: HashMap<LeaseId, Given>,
    /// The leases of attempts, as workers and logs name these.
    leases: HashMap<(BuildId, AttemptNumber), LeaseId>,
    challenges: std::collections::VecDeque<(String, String, Timestamp)>,
    answers: HashMap<u64, Asked>,
    /// Evaluations that somebody waits for, by number.
    wanted: BTreeMap<u64, Waiting>,
    last_wanted: u64,
    /// Who was asked last for a build's program, which it may keep running, the newest last; at most [`ASKED_BUILDS_MAX`].
    asked_builds: std::collections::VecDeque<(BuildId, WorkerId)>,
    last_number: u64,
    last_question: u64,
    stale_sections: u64,
    /// The last fault of each worker, since this server started; forgotten with the worker.
    faults: BTreeMap<WorkerId, Fault>,
}

/// What went wrong with an attempt that was not the attempt's own doing.
#[derive(Clone, Debug)]
pub struct Fault {
    /// When it ended.
    pub at: Timestamp,
    /// Its build.
    pub build: BuildId,
    /// Its job.
    pub job: JobName,
    /// Why, for people.
    pub text: String,
}

/// All sessions of all workers.
pub struct Dispatch {
    heartbeat_ms: u64,
    state: Mutex<State>,
    /// Wakes those who wait for a worker that evaluates.
    joined: Notify,
}

impl Dispatch {
    /// Nobody is joined. Workers shall say something at least every `heartbeat_ms`.
    #[must_use]
    pub fn new(heartbeat_ms: u64) -> Self {
        // An answer that comes late, to the server that was here before, is nobody's.
        let last_question = u64::from_str_radix(&random_digits::<6>(), 16).unwrap_or(0);
        let state = State { last_question, ..State::default() };
        Self { heartbeat_ms, state: Mutex::new(state), joined: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// How often a worker says something, in milliseconds.
    #[must_use]
    pub fn heartbeat_ms(&self) -> u64 {
        self.heartbeat_ms
    }

    /// How long a worker's word holds, in milliseconds.
    #[must_use]
    pub fn holds_ms(&self) -> u64 {
        self.heartbeat_ms * HEARTBEATS_MISSED_MAX
    }

    // Joining.

    /// A challenge for whoever says that it holds `key`.
    pub fn challenge(&self, key: &str, now: Timestamp) -> String {
        let nonce = random_digits::<32>();
        let mut state = self.state();
        if state.challenges.len() == CHALLENGES_MAX {
            state.challenges.pop_front();
        }
        state.challenges.push_back((nonce.clone(), key.to_owned(), now));
        nonce
    }

    /// Whether this challenge was given for this key and may still be signed. It cannot be used again.
    pub fn take_challenge(&self, nonce: &str, key: &str, now: Timestamp) -> bool {
        let mut state = self.state();
        let place = state.challenges.iter().position(|(given, whose, _)| given == nonce && whose == key);
        let taken = place.and_then(|place| state.challenges.remove(place));
        taken.is_some_and(|(_, _, at)| now.ms_since(at) <= CHALLENGE_MS)
    }

    /// A worker that has proved its key opens a session by a token; an earlier one of it ends. Its first line is
    /// [`ToWorker::Welcome`].
    ///
    /// # Errors
    /// [`JoinRefusal`].
    pub fn join(
        &self,
        worker: &WorkerId,
        offer: Offer,
        leases: BTreeSet<LeaseId>,
        intake: records::Intake,
        (pass, now): (Arc<Pass>, Timestamp),
    ) -> Result<Joined, JoinRefusal> {
        if offer.pools.len() > OFFERED_MAX || offer.labels.len() > OFFERED_MAX || leases.len() > LEASES_MAX {
            return Err(JoinRefusal::TooMuch);
        }
        let mut state = self.state();
        if state.sessions.len() >= SESSIONS_MAX && !state.sessions.contains_key(worker) {
            return Err(JoinRefusal::Full);
        }
        state.end_session(worker);
        state.last_number += 1;
        let number = state.last_number;
        let (lines, receiver) = mpsc::channel(SESSION_LINES_MAX);
        let secret: Arc<str> = random_digits::<32>().into();
        let session = Session {
            number,
            secret: Arc::clone(&secret),
            pass,
            offer,
            since: now,
            heard: now,
            leases,
            own_reason: None,
            intake,
            lines,
            started: BTreeSet::new(),
            asked: BTreeSet::new(),
        };
        state.secrets.insert(Arc::clone(&secret), worker.clone());
        state.sessions.insert(worker.clone(), session);
        let heartbeat_ms = self.heartbeat_ms;
        state.say(worker, &ToWorker::Welcome { worker: worker.clone(), session: secret.to_string(), heartbeat_ms });
        drop(state);
        self.joined.notify_waiters();
        Ok(Joined { secret: secret.to_string(), number, lines: receiver })
    }

    /// The worker of a session, by its secret.
    #[must_use]
    pub fn worker_of(&self, secret: &str) -> Option<WorkerId> {
        self.state().secrets.get(secret).cloned()
    }

    /// A session, by its secret.
    #[must_use]
    pub fn session_of(&self, secret: &str) -> Option<SessionPass> {
        let state = self.state();
        let worker = state.secrets.get(secret)?;
        let session = state.sessions.get(worker)?;
        Some(SessionPass { worker: worker.clone(), number: session.number, pass: Arc::clone(&session.pass) })
    }

    /// Ends the session of this number for a reason, if it is the worker's present one. Gives the worker's presence as the engine takes it from then
    /// on: it takes nothing new, and what it holds is lost unless it joins again in time.
    pub fn expel(&self, worker: &WorkerId, number: u64, reason: String) -> Option<Presence> {
        let holds_ms = self.holds_ms();
        let mut state = self.state();
        let session = state.sessions.get(worker).filter(|session| session.number == number)?;
        let presence = Presence { intake: Intake::Closed { reason }, ..session.presence(holds_ms) };
        state.end_session(worker);
        Some(presence)
    }

    /// Ends the session of this number, if it is the worker's present one.
    pub fn leave(&self, worker: &WorkerId, number: u64) {
        let mut state = self.state();
        if state.sessions.get(worker).is_some_and(|session| session.number == number) {
            state.end_session(worker);
        }
    }

    /// Ends the worker's session, whatever its number.
    pub fn end(&self, worker: &WorkerId) {
        self.state().end_session(worker);
    }

    /// Ends all sessions: their streams end.
    pub fn end_all(&self) {
        let mut state = self.state();
        let workers: Vec<WorkerId> = state.sessions.keys().cloned().collect();
        workers.iter().for_each(|worker| state.end_session(worker));
    }

    /// Notes what a worker says of itself. Gives its presence as the engine takes it; `None` if it is not joined.
    pub fn present(
        &self,
        worker: &WorkerId,
        said: Option<(BTreeSet<LeaseId>, Option<String>)>,
        now: Timestamp,
    ) -> Option<Presence> {
        let holds_ms = self.holds_ms();
        let mut state = self.state();
        let session = state.sessions.get_mut(worker)?;
        session.heard = now;
        let Some((leases, closed)) = said else { return Some(session.presence(holds_ms)) };
        let was_closed = session.closed().is_some();
        session.leases = leases;
        session.own_reason = closed;
        let is_opened = was_closed && session.closed().is_none();
        // Of what it was told since its last word it may know nothing yet: here only its word counts.
        let presence = Presence { leases: session.leases.clone(), ..session.presence(holds_ms) };
        drop(state);
        if is_opened {
            self.joined.notify_waiters();
        }
        Some(presence)
    }

    /// Notes what people said of a worker; `then` is what one that is drained does at the end. Gives its presence as the engine takes it; `None` if it is not joined.
    pub fn set_intake(&self, worker: &WorkerId, intake: records::Intake, then: Then) -> Option<Presence> {
        let holds_ms = self.holds_ms();
        let mut state = self.state();
        let session = state.sessions.get_mut(worker)?;
        let was_drained = matches!(session.intake, records::Intake::Draining(_));
        let told = match &intake {
            records::Intake::Draining(said) => Some(ToWorker::Drain { reason: said.reason.clone(), then }),
            records::Intake::Open | records::Intake::Paused(_) => was_drained.then_some(ToWorker::Resume),
        };
        session.intake = intake;
        let presence = session.presence(holds_ms);
        if let Some(told) = told {
            state.say(worker, &told);
        }
        drop(state);
        self.joined.notify_waiters();
        Some(presence)
    }

    /// Tells a worker something that is not asked twice; whether it is joined.
    pub fn tell(&self, worker: &WorkerId, line: &ToWorker) -> bool {
        let mut state = self.state();
        state.say(worker, line);
        state.sessions.contains_key(worker)
    }

    /// The number of a worker's present session; `None` if it is not joined.
    #[must_use]
    pub fn session_number(&self, worker: &WorkerId) -> Option<u64> {
        self.state().sessions.get(worker).map(|session| session.number)
    }

    /// A worker as people know it: by its name while it is joined, else by the beginning of its id.
    #[must_use]
    pub fn name_of(&self, worker: &WorkerId) -> String {
        let state = self.state();
        let name = state.sessions.get(worker).map(|session| session.offer.name.clone()).filter(|name| !name.is_empty());
        name.unwrap_or_else(|| worker.to_string().chars().take(12).collect())
    }

    /// Who is joined, in order of id.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionView> {
        let state = self.state();
        let view = |(worker, session): (&WorkerId, &Session)| SessionView {
            worker: worker.clone(),
            offer: session.offer.clone(),
            since: session.since,
            heard: session.heard,
            leases: session.leases.clone(),
            closed: session.closed(),
        };
        state.sessions.iter().map(view).collect()
    }

    // Attempts.

    /// Notes that an attempt is in a worker's hands. Gives whether it was noted before.
    pub fn give(&self, given: Given) -> bool {
        let mut state = self.state();
        state.leases.insert((given.spec.build, given.spec.attempt), given.spec.lease);
        state.given.insert(given.spec.lease, given).is_some()
    }

    /// Sends an attempt to its worker, unless this session has it already. A worker that is not joined gets it when it is.
    pub fn start(&self, spec: &AttemptSpec, secrets: &BTreeMap<String, String>) {
        let mut state = self.state();
        let lease = spec.lease;
        let Some(worker) = state.given.get(&lease).map(|given| given.worker.clone()) else { return };
        let Some(session) = state.sessions.get_mut(&worker) else { return };
        if session.leases.contains(&lease) || !session.started.insert(lease) {
            return;
        }
        state.say(&worker, &StartLine { say: "start", spec, secrets });
    }

    /// The attempts in a worker's hands that its session has not heard of.
    #[must_use]
    pub fn unheard(&self, worker: &WorkerId) -> Vec<Given> {
        let state = self.state();
        let Some(session) = state.sessions.get(worker) else { return Vec::new() };
        let is_unheard = |lease: &LeaseId| !session.leases.contains(lease) && !session.started.contains(lease);
        let mut unheard: Vec<Given> = state
            .given
            .values()
            .filter(|given| given.worker == *worker && is_unheard(&given.spec.lease))
            .cloned()
            .collect();
        unheard.sort_by_key(|given| given.spec.lease);
        unheard
    }

    /// Tells a worker that a lease is no longer wanted; if it is not its own any more, to forget it.
    pub fn stop(&self, worker: &WorkerId, lease: LeaseId, by: String) {
        let mut state = self.state();
        let is_its_own = state.given.get(&lease).is_some_and(|given| given.worker == *worker);
        let line = if is_its_own { ToWorker::Stop { lease, by } } else { ToWorker::Forget { lease } };
        state.say(worker, &line);
    }

    /// An attempt has ended, and is in nobody's hands any more, unless another build has taken it over.
    pub fn take_of(&self, lease: LeaseId, ended: (BuildId, AttemptNumber)) -> Option<Given> {
        let mut state = self.state();
        if state.given.get(&lease).is_none_or(|given| given.now != ended) {
            return None;
        }
        let given = state.given.remove(&lease)?;
        state.leases.remove(&(given.spec.build, given.spec.attempt));
        if let Some(session) = state.sessions.get_mut(&given.worker) {
            session.started.remove(&lease);
            session.leases.remove(&lease);
        }
        Some(given)
    }

    /// Notes what went wrong with an attempt in a worker's hands.
    pub fn note_fault(&self, worker: &WorkerId, fault: Fault) {
        self.state().faults.insert(worker.clone(), fault);
    }

    /// The last fault of each worker, since this server started.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<WorkerId, Fault> {
        self.state().faults.clone()
    }

    /// Forgets what was noted of a worker.
    pub fn forget(&self, worker: &WorkerId) {
        self.state().faults.remove(worker);
    }

    /// An attempt goes on for another build.
    pub fn hand_on(&self, lease: LeaseId, now: (BuildId, AttemptNumber)) {
        if let Some(given) = self.state().given.get_mut(&lease) {
            given.now = now;
        }
    }

    /// What a lease stands for, if it is in this worker's hands.
    #[must_use]
    pub fn given(&self, worker: &WorkerId, lease: LeaseId) -> Option<Given> {
        self.state().given.get(&lease).filter(|given| given.worker == *worker).cloned()
    }

    /// What an attempt, as workers and logs name it, stands for, if it is in this worker's hands.
    #[must_use]
    pub fn given_attempt(&self, worker: &WorkerId, attempt: (BuildId, AttemptNumber)) -> Option<Given> {
        let state = self.state();
        let lease = state.leases.get(&attempt)?;
        state.given.get(lease).filter(|given| given.worker == *worker).cloned()
    }

    /// The attempts of a build that run, as their logs and workers know them: lease, job, worker.
    #[must_use]
    pub fn running(&self, build: BuildId) -> Vec<(LeaseId, JobName, WorkerId)> {
        let state = self.state();
        let of_build = state.given.values().filter(|given| given.now.0 == build);
        of_build.map(|given| (given.spec.lease, given.spec.name.clone(), given.worker.clone())).collect()
    }

    /// Counts sections that were dropped because their lease was stale.
    pub fn count_stale(&self, sections: u64) {
        self.state().stale_sections += sections;
    }

    /// How many sections were dropped because their lease was stale.
    #[must_use]
    pub fn stale_sections(&self) -> u64 {
        self.state().stale_sections
    }

    // Evaluations.

    /// Notes that somebody waits for an evaluation of a build, until the build ends: see [`Dispatch::forget_build`].
    #[must_use]
    pub fn want(self: &Arc<Self>, build: BuildId) -> Wanted {
        let mut state = self.state();
        state.last_wanted += 1;
        let number = state.last_wanted;
        state.wanted.insert(number, Waiting { build, askers: None });
        Wanted { dispatch: Arc::clone(self), number }
    }

    /// A build has ended: nobody waits for its evaluations, and workers end what they ask for it.
    pub fn forget_build(&self, build: BuildId) {
        let mut state = self.state();
        let n_wanted = state.wanted.len();
        state.wanted.retain(|_, waiting| waiting.build != build);
        let is_any = state.wanted.len() < n_wanted;
        let asked: Vec<u64> =
            state.answers.iter().filter(|(_, asked)| asked.build == build).map(|(id, _)| *id).collect();
        asked.into_iter().for_each(|id| state.unask(id));
        drop(state);
        if is_any {
            self.joined.notify_waiters();
        }
    }

    /// Why a build's program is not asked, for people: a sentence without its end. `None` if it is, or nobody waits for it.
    #[must_use]
    pub fn unasked(&self, build: BuildId) -> Option<String> {
        let state = self.state();
        let is_it = |waiting: &&Waiting| waiting.build == build;
        state.wanted.values().find(is_it)?.askers.as_ref().and_then(|askers| state.nobody(askers))
    }

    /// Why none of these workers can ask a program now, for people: a sentence without its end. `None` if one can.
    #[must_use]
    pub fn nobody(&self, askers: &Askers) -> Option<String> {
        self.state().nobody(askers)
    }

    /// Asks a worker a pipeline's program; waits until one is joined that may. Asked elsewhere if the worker goes, or lacks what that takes.
    ///
    /// # Errors
    /// What the worker said went wrong, that every worker lacks what it takes, that `tries` workers in a row did not answer in time, or that
    /// the build has ended.
    pub async fn evaluate(
        &self,
        (wanted, askers): (&Wanted, &Askers),
        mut question: Evaluate,
        tries: u32,
        silence: std::time::Duration,
    ) -> Result<Box<ProgramReply>, String> {
        let mut n_tries = 0;
        let mut lacking = BTreeMap::<WorkerId, String>::new();
        while n_tries < tries {
            let notified = self.joined.notified();
            let (worker, id, answer) = match self.ask((wanted, askers), &mut question, &lacking) {
                Asking::Sent(worker, id, answer) => (worker, id, answer),
                Asking::Nobody => {
                    notified.await;
                    continue;
                }
                Asking::Refused => {
                    let said = lacking.values().next().cloned().unwrap_or_default();
                    let names = lacking.keys().map(|worker| format!("`{}`", self.name_of(worker)));
                    return Err(format!("{said} (worker {})", names.collect::<Vec<_>>().join(", ")));
                }
                Asking::Unwanted => return Err("the build has ended".to_owned()),
            };
            match tokio::time::timeout(silence, answer).await {
                Ok(Ok((Err(said), Some(_)))) => drop(lacking.insert(worker, said)),
                Ok(Ok((reply, _))) => return reply,
                // The session ended: somebody else, without counting it.
                Ok(Err(_)) => {}
                Err(_) => {
                    n_tries += 1;
                    self.state().unask(id);
                }
            }
        }
        Err(format!("no worker has asked the pipeline's program within {} seconds", silence.as_secs()))
    }

    fn ask(
        &self,
        (wanted, askers): (&Wanted, &Askers),
        question: &mut Evaluate,
        lacking: &BTreeMap<WorkerId, String>,
    ) -> Asking {
        let mut state = self.state();
        if !state.wanted.contains_key(&wanted.number) {
            return Asking::Unwanted;
        }
        let last = state.asked_builds.iter().find(|(build, _)| *build == question.build).map(|(_, worker)| worker);
        let takes_cargo = question.program.is_none();
        let by_rank = |(worker, session): &(&WorkerId, &Session)| {
            let lacks = takes_cargo && !session.offer.labels.contains(CARGO_LABEL);
            (Some(*worker) != last, lacks, session.asked.len())
        };
        let may_ask = || state.eligible(askers).filter(|(worker, _)| !lacking.contains_key(*worker));
        let worker = may_ask().filter(|(_, session)| session.closed().is_none()).min_by_key(by_rank);
        let worker = worker.map(|(worker, _)| worker.clone());
        let is_any = may_ask().next().is_some();
        let Some(worker) = worker else {
            if !is_any && !lacking.is_empty() {
                return Asking::Refused;
            }
            if let Some(waiting) = state.wanted.get_mut(&wanted.number) {
                waiting.askers = Some(askers.clone());
            }
            return Asking::Nobody;
        };
        if let Some(waiting) = state.wanted.get_mut(&wanted.number) {
            waiting.askers = None;
        }
        state.asked_builds.retain(|(build, _)| *build != question.build);
        state.asked_builds.push_back((question.build, worker.clone()));
        if state.asked_builds.len() > ASKED_BUILDS_MAX {
            state.asked_builds.pop_front();
        }
        state.last_question += 1;
        let id = state.last_question;
        question.id = id;
        let (answer, receiver) = oneshot::channel();
        state.answers.insert(id, Asked { build: question.build, worker: worker.clone(), answer });
        if let Some(session) = state.sessions.get_mut(&worker) {
            session.asked.insert(id);
        }
        state.say(&worker, &ToWorker::Evaluate(Box::new(question.clone())));
        Asking::Sent(worker, id, receiver)
    }

    /// A worker answers, and says what it lacks if that is why it cannot. Only who was asked is heard.
    pub fn evaluated(&self, worker: &WorkerId, id: u64, reply: Reply, lack: Option<Lack>) {
        let mut state = self.state();
        let was_asked = state.sessions.get_mut(worker).is_some_and(|session| session.asked.remove(&id));
        if was_asked && let Some(asked) = state.answers.remove(&id) {
            // Whoever asked may have given up.
            let _ = asked.answer.send((reply, lack));
        }
    }
}

/// [`ToWorker::Start`], without a copy of the attempt.
#[derive(Serialize)]
struct StartLine<'a> {
    say: &'static str,
    spec: &'a AttemptSpec,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    secrets: &'a BTreeMap<String, String>,
}

impl Session {
    fn closed(&self) -> Option<String> {
        self.intake.closed().or_else(|| self.own_reason.clone())
    }

    fn presence(&self, holds_ms: u64) -> Presence {
        Presence {
            pools: with_both_names(self.offer.pools.clone()),
            labels: self.offer.labels.clone(),
            slots: self.offer.slots,
            resources: self.offer.resources,
            // What this session was told to start is on its way.
            leases: self.leases.union(&self.started).copied().collect(),
            holds_ms,
            intake: self.closed().map_or(Intake::Open, |reason| Intake::Closed { reason }),
        }
    }
}

/// The pools that a worker serves, as jobs name them. The default pool has two names: its own, and the empty one of jobs that name none. Who
/// serves one serves both.
#[must_use]
pub fn with_both_names(mut pools: BTreeSet<String>) -> BTreeSet<String> {
    if pools.contains(DEFAULT_POOL) || pools.contains("") {
        pools.extend([String::new(), DEFAULT_POOL.to_owned()]);
    }
    pools
}

impl State {
    fn end_session(&mut self, worker: &WorkerId) {
        let Some(session) = self.sessions.remove(worker) else { return };
        self.secrets.remove(&session.secret);
        for id in session.asked {
            self.answers.remove(&id);
        }
    }

    /// Nobody waits for the answer to a question any more.
    fn unask(&mut self, id: u64) {
        let Some(Asked { worker, .. }) = self.answers.remove(&id) else { return };
        if self.sessions.get_mut(&worker).is_some_and(|session| session.asked.remove(&id)) {
            self.say(&worker, &ToWorker::Unask { id });
        }
    }

    /// The workers that may ask a build's program: those of its pool. Of a build that names none, and whose asker may use every pool, any worker, if none
    /// serves the default pool: its jobs name theirs.
    fn eligible(&self, askers: &Askers) -> impl Iterator<Item = (&WorkerId, &Session)> {
        let serves = |session: &Session| with_both_names(session.offer.pools.clone()).contains(&askers.pool);
        let may_be_any = askers.pool.is_empty() && askers.reach == PoolReach::Every;
        let is_any = may_be_any && !self.sessions.values().any(&serves);
        self.sessions.iter().filter(move |(_, session)| is_any || serves(session))
    }

    /// See [`Dispatch::nobody`].
    fn nobody(&self, askers: &Askers) -> Option<String> {
        let mut closed = None;
        for (_, session) in self.eligible(askers) {
            closed = Some(session.closed()?);
        }
        let pool = if askers.pool.is_empty() { DEFAULT_POOL } else { &askers.pool };
        let why = match closed {
            None => format!("no worker serves the pool `{pool}`"),
            Some(reason) => format!("no worker of the pool `{pool}` takes anything new ({reason})"),
        };
        Some(format!("the pipeline's program waits to be asked: {why}"))
    }

    /// Writes a line to a worker. One that has not read for too long loses its session and joins again.
    fn say(&mut self, worker: &WorkerId, line: &impl Serialize) {
        // Our own types serialize to JSON whatever they hold.
        let mut text = serde_json::to_vec(line).expect("a line always serializes");
        text.push(b'\n');
        let is_sent =
            self.sessions.get(worker).is_some_and(|session| session.lines.try_send(Bytes::from(text)).is_ok());
        if !is_sent {
            self.end_session(worker);
        }
    }
}
