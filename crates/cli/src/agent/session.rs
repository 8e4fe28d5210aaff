//! A worker's conversation with its servers: joins one, does what it says, tells it everything, and joins the next when it is
//! gone. Attempts neither begin nor end with a session.
//!
//! There are four clocks here: the heartbeat, the wait before a server is tried again, a moment in which the beginning of a step
//! waits for company, and how long a program is kept that nobody asks.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::client::{Client, ClientError, Server, Session};
use api::problem::ProblemKind;
use api::worker::{Evaluate, FromWorker, Hello, Join, Lack, Offer, PROTOCOL, ProgramReply, Taken, Then, ToWorker};
use graph::Digest;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use worker::memory;

use super::attempts::{Attempts, bring_program};
use super::departure::Ending;
use super::evaluation::{About, SESSION_IDLE_MAX};
use super::identity::Identity;
use super::link::{Link, LinkError};
use super::outbox::{Outbox, Post, Presence};
use super::spool::{Kind, put_section, text_of};
use super::visit;
use crate::commands::Stop;
use crate::remote;

/// The wait before a server is tried again; doubled each time, up to [`WAIT_MAX`], and spread by a third.
const WAIT_MIN: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a server may take to answer who joins. One that stands still takes the connection and never answers; the next is
/// tried then.
const JOIN_WAIT: Duration = Duration::from_secs(10);

/// A session of this length was one.
const LIVED: Duration = Duration::from_secs(5);

/// A worker on which nothing began for so many heartbeats, and nothing runs, is at rest. It gives memory back, and again
/// after each heartbeat, which maps a part of the program anew: about a hundred page faults.
const BEATS_BEFORE_REST: u32 = 2;

/// After so many heartbeats without a word from the server the connection is taken for dead.
const SILENT_BEATS: u32 = 3;

/// How long a second signal waits until what ended has been told.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How often a server is told that the worker leaves, and the wait in between, if it takes nothing for the moment.
const FAREWELLS_MAX: u32 = 20;
const FAREWELL_WAIT: Duration = Duration::from_millis(200);

/// How long the beginning of a step waits for the first thing that the step prints, or for its end, to leave together with it.
const GATHERING: Duration = Duration::from_millis(3);

/// The most evaluations that are under way; a server that asks for more is told so.
const EVALUATIONS_MAX: usize = 64;

/// Where a server is found.
#[derive(Clone, Debug)]
pub enum Place {
    /// At this address.
    Address(String),
    /// At the address that stands in this file: it may be another one at the next look.
    File(PathBuf),
}

impl Place {
    /// `file:PATH`, or an address.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("file:") {
            Some(path) => Self::File(PathBuf::from(path)),
            None => Self::Address(text.to_owned()),
        }
    }

    fn server(&self) -> Result<Server, String> {
        match self {
            Self::Address(text) => Ok(Server::parse(text)),
            Self::File(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| format!("no server has written {}: {error}", path.display()))?;
                Ok(Server::parse(text.trim()))
            }
        }
    }
}

/// What a worker goes by.
pub struct Settings {
    /// Servers, tried in turn.
    pub servers: Vec<Place>,
    /// The file with its token; read at each joining, so that it may be changed.
    pub token: PathBuf,
    /// What it offers; without any pool, those that its token is for.
    pub offer: Offer,
    /// After so long without any server it ends, once nothing runs.
    pub orphaned_after: Option<Duration>,
}

/// A worker at work.
pub struct Agent {
    /// What it goes by.
    pub settings: Settings,
    /// Who it is.
    pub identity: Identity,
    /// The way to the server, for those who work.
    pub link: Arc<Link>,
    /// What it says.
    pub outbox: Arc<Outbox>,
    /// What it runs.
    pub attempts: Rc<Attempts>,
    /// Its folder.
    pub data: PathBuf,
    /// What people want of it.
    pub ending: watch::Receiver<Ending>,
    /// What it does once it has left, if a server has asked it to leave. A session that is lost meanwhile changes nothing.
    pub then: Cell<Option<Then>>,
}

/// Why a session is over.
enum Over {
    /// The connection is, or the server.
    Lost(String),
    /// The worker leaves.
    Left(Box<Left>),
}

/// A worker that runs nothing any more and has nothing to tell, but that it leaves.
pub struct Left {
    /// What it does then.
    pub then: Then,
    /// Where that is to be told, if a server is there.
    pub farewell: Option<Farewell>,
}

impl Left {
    /// With nobody to tell.
    fn alone(then: Then) -> Self {
        Self { then, farewell: None }
    }
}

/// A session that is open until its server hears that the worker leaves: for people it has left then, so that is told when it has
/// let go of all it held.
pub struct Farewell {
    client: Client,
    session: Session,
}

impl Farewell {
    /// Tells the server. One that does not take it notices the silence.
    pub async fn say(mut self) {
        let mut body = Vec::new();
        put_section(Kind::Word, &text_of(&FromWorker::Leaving), &mut body);
        let body = bytes::Bytes::from(body);
        let told = async {
            for _ in 0..FAREWELLS_MAX {
                match self.client.worker_outbox(body.clone()).await {
                    Err(error) if error.is_passing() => tokio::time::sleep(FAREWELL_WAIT).await,
                    // Also one that is refused: the session is over then, maybe since it was heard before.
                    Ok(_) | Err(_) => return,
                }
            }
        };
        let over = async { while let Ok(Some(_)) = self.session.next().await {} };
        let either = async {
            tokio::select! { () = told => {} () = over => {} }
        };
        let _ = tokio::time::timeout(LAST_WORDS, either).await;
    }
}

/// What becomes of an attempt to join.
enum Refused {
    /// It may do later.
    Passing(String),
    /// It will not, until somebody changes something.
    ForGood(String),
}

type Posting = Pin<Box<dyn Future<Output = (Post, Result<Taken, ClientError>)>>>;

impl Agent {
    /// Works until it is told to leave.
    ///
    /// # Errors
    /// What the server refuses for good.
    pub async fn run(&self) -> Result<Left, Stop> {
        let mut closed = self.attempts.closed();
        let retiring = tokio::task::spawn_local(retire_programs(Arc::clone(&self.link)));
        let (beat, beats) = mpsc::channel(1);
        let checks = tokio::task::spawn_local(check_health(Rc::clone(&self.attempts), beats));
        let _ = beat.try_send(());
        let worked = self.work(&mut closed, &beat).await;
        self.forget_questions().await;
        retiring.abort();
        checks.abort();
        worked
    }

    async fn work(&self, closed: &mut watch::Receiver<Option<String>>, beat: &mpsc::Sender<()>) -> Result<Left, Stop> {
        let mut failures = 0;
        let mut told = String::new();
        let mut last_heard = Instant::now();
        let mut has_told_orphaned = false;
        for place in self.settings.servers.clone().iter().cycle() {
            let joined = tokio::time::timeout(JOIN_WAIT, self.join(place)).await;
            match joined.unwrap_or_else(|_| Err(unanswered(place))) {
                Ok((server, session)) => {
                    told.clear();
                    let began = Instant::now();
                    let over = self.serve(&server, session, closed, beat).await;
                    self.link.set_client(None);
                    // Who asked has gone; whoever is there next asks anew.
                    self.forget_questions().await;
                    self.outbox.set_presence(Presence::Away);
                    last_heard = Instant::now();
                    has_told_orphaned = false;
                    // A session that ends at once is no success: the next one is not begun at once.
                    if began.elapsed() >= LIVED {
                        failures = 0;
                    }
                    match over {
                        Over::Left(left) => return Ok(*left),
                        Over::Lost(why) => say(&format!("the session with {} is over: {why}", server.server())),
                    }
                }
                Err(Refused::ForGood(why)) => return Err(Stop::wrong(why)),
                Err(Refused::Passing(why)) => {
                    // Once for each reason, however often it is tried.
                    if why != told {
                        warn(&format!("{why}; trying again"));
                        told = why;
                    }
                }
            }
            failures += 1;
            if self.is_orphaned(last_heard, &mut has_told_orphaned) {
                return Ok(Left::alone(Then::Leave));
            }
            if self.is_left_alone(wait(failures)).await {
                return Ok(Left::alone(Then::Leave));
            }
        }
        Err(Stop::wrong("no server is named: give --server URL"))
    }

    /// Whether no server was there for so long that the worker ends. What runs goes on to its end first, and what is not told
    /// by then waits on the disk for the next life; a server that comes back meanwhile has the worker back.
    fn is_orphaned(&self, last_heard: Instant, has_told: &mut bool) -> bool {
        let Some(limit) = self.settings.orphaned_after.filter(|limit| last_heard.elapsed() >= *limit) else {
            return false;
        };
        let what = match self.attempts.count() {
            0 => "leaving",
            _ => "finishing what runs, then leaving, unless a server comes back",
        };
        if !std::mem::replace(has_told, true) || self.attempts.count() == 0 {
            say(&format!("no server was there for {} s: {what}", limit.as_secs()));
        }
        self.attempts.count() == 0
    }

    /// Waits before the next joining; whether the worker has ended meanwhile.
    async fn is_left_alone(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let mut changes = self.ending.clone();
        loop {
            let ending = *changes.borrow_and_update();
            if ending == Ending::Now {
                self.attempts.end_all();
            }
            // What is not told yet waits on the disk for the next life.
            if ending != Ending::No && self.attempts.count() == 0 {
                return true;
            }
            tokio::select! {
                () = sleep_until(until) => return false,
                Ok(()) = changes.changed() => {}
                () = self.attempts_ended(), if ending != Ending::No => {}
            }
        }
    }

    async fn attempts_ended(&self) {
        self.attempts.ended().await;
    }

    async fn join(&self, place: &Place) -> Result<(Client, Session), Refused> {
        let server = place.server().map_err(Refused::Passing)?;
        let token = remote::token_in(&self.settings.token).map_err(|stop| Refused::ForGood(stop.message))?;
        let client = Client::new(server, &token).map_err(|error| Refused::ForGood(remote::stop(error).message))?;
        let key = self.identity.key();
        let hello = Hello { key: key.clone(), protocol: PROTOCOL };
        let challenge = client.worker_hello(&hello).await.map_err(|error| refused(&error))?;
        let signature = self.identity.sign(&challenge.nonce);
        let (mut offer, leases) = (self.settings.offer.clone(), self.outbox.leases());
        if offer.pools.is_empty() {
            offer.pools = pools_of(&token);
        }
        let is_draining = self.then.get().is_some();
        let join = Join { key, nonce: challenge.nonce, signature, offer, leases, is_draining };
        let session = client.worker_session(&join).await.map_err(|error| match refused(&error) {
            // The token was taken a moment ago: it is the challenge that this server does not know, since another one made
            // it, or it was used up by a call whose answer got lost.
            Refused::ForGood(why) if error.is(ProblemKind::Unauthorized) => Refused::Passing(why),
            other => other,
        })?;
        Ok((client, session))
    }

    /// One session, from its first line to its end.
    async fn serve(
        &self,
        server: &Client,
        mut session: Session,
        closed: &mut watch::Receiver<Option<String>>,
        beat: &mpsc::Sender<()>,
    ) -> Over {
        let welcome = tokio::time::timeout(JOIN_WAIT, session.next()).await.unwrap_or(Ok(None));
        let (client, heartbeat) = match welcome {
            Ok(Some(ToWorker::Welcome { worker, session, heartbeat_ms })) => {
                say(&format!("joined {} as {worker}", server.server()));
                (server.with_token(&session), Duration::from_millis(heartbeat_ms.max(100)))
            }
            Ok(_) => return Over::Lost("it did not begin with a welcome".to_owned()),
            Err(error) => return Over::Lost(Stop::of(&error).message),
        };
        self.link.set_client(Some(client.clone()));
        self.outbox.say_steps_again();
        self.outbox.set_presence(Presence::Here);
        let outbox = Arc::clone(&self.outbox);
        let mut ending = self.ending.clone();
        let mut posting: Option<Posting> = None;
        let mut heard = Instant::now();
        let mut next_beat = Instant::now();
        // After a post that was not taken, when the next one is tried.
        let mut hold: Option<Instant> = None;
        // Until when what can wait a moment waits for what cannot.
        let mut gathering: Option<Instant> = None;
        let mut leaving = if self.then.get().is_some() { Leaving::Asked } else { Leaving::No };
        let mut last_words = None;
        let mut beats_at_rest = 0u32;
        // When a worker at rest has been answered, and gives memory back.
        let mut rest: Option<Instant> = None;
        loop {
            if posting.is_none() && hold.is_none() && gathering.is_none() {
                posting = post(&outbox, &client);
            }
            if *self.ending.borrow() == Ending::Now && last_words.is_none() {
                self.attempts.end_all();
                last_words = Some(Instant::now() + LAST_WORDS);
            }
            if self.is_to_leave(leaving, posting.is_some()) {
                let then = self.then.get().unwrap_or(Then::Leave);
                return Over::Left(Box::new(Left { then, farewell: Some(Farewell { client, session }) }));
            }
            let dead = heard + heartbeat * SILENT_BEATS;
            tokio::select! {
                line = session.next() => match line {
                    Ok(Some(said)) => {
                        heard = Instant::now();
                        if matches!(said, ToWorker::Start(_)) {
                            (beats_at_rest, rest) = (0, None);
                        }
                        let was_leaving = leaving;
                        self.hear(said, &mut leaving);
                        if leaving < was_leaving {
                            self.say_present(closed, leaving);
                        }
                    }
                    Ok(None) => return Over::Lost("the server ended it".to_owned()),
                    Err(error) => return Over::Lost(Stop::of(&error).message),
                },
                (sent, taken) = finished(&mut posting) => {
                    posting = None;
                    match taken {
                        Ok(taken) => {
                            heard = Instant::now();
                            let is_stuck = taken.sections == 0 && sent.sections() > 0;
                            for lease in outbox.taken(sent, &taken) {
                                self.attempts.forget(lease);
                            }
                            if !outbox.is_waiting() {
                                self.attempts.told();
                            }
                            hold = is_stuck.then(|| Instant::now() + heartbeat / 8);
                        }
                        Err(error) if error.is_passing() => hold = Some(Instant::now() + heartbeat / 8),
                        Err(error) => return Over::Lost(Stop::of(&error).message),
                    }
                }
                () = outbox.wake.notified(), if posting.is_none() && hold.is_none() => gathering = None,
                () = outbox.wake_soon.notified(), if posting.is_none() && hold.is_none() && gathering.is_none() => {
                    gathering = Some(Instant::now() + GATHERING);
                }
                () = until(gathering) => gathering = None,
                () = until(hold) => hold = None,
                () = sleep_until(next_beat) => {
                    next_beat = Instant::now() + heartbeat * 4 / 5;
                    let _ = beat.try_send(());
                    self.say_present(closed, leaving);
                    beats_at_rest = if self.attempts.count() == 0 { beats_at_rest.saturating_add(1) } else { 0 };
                    rest = (beats_at_rest >= BEATS_BEFORE_REST).then(|| Instant::now() + heartbeat / 16);
                }
                () = until(rest) => {
                    rest = None;
                    memory::give_back();
                }
                Ok(()) = closed.changed() => self.say_present(closed, leaving),
                Ok(()) = ending.changed() => self.say_present(closed, leaving),
                () = self.attempts_ended(), if self.attempts.count() > 0 => {}
                () = self.attempts.sent(), if self.attempts.count() == 0 && !self.attempts.is_idle() => {}
                () = until(last_words) => return Over::Left(Box::new(Left::alone(Then::Leave))),
                () = sleep_until(dead) => return Over::Lost("nothing was heard of it".to_owned()),
            }
        }
    }

    /// Whether it is to leave, and there is nothing left to do and nothing to tell.
    fn is_to_leave(&self, leaving: Leaving, is_posting: bool) -> bool {
        let is_asked = leaving == Leaving::Asked || *self.ending.borrow() != Ending::No;
        is_asked && self.attempts.is_idle() && !is_posting && !self.outbox.is_waiting()
    }

    fn say_present(&self, closed: &mut watch::Receiver<Option<String>>, leaving: Leaving) {
        let mut reason = closed.borrow_and_update().clone();
        if leaving != Leaving::No || *self.ending.borrow() != Ending::No {
            reason = Some("it is being stopped".to_owned());
        }
        self.outbox.say(&FromWorker::Present { leases: self.outbox.leases(), closed: reason });
    }

    /// Nobody waits for answers of programs any more.
    async fn forget_questions(&self) {
        if self.link.evaluations().count() > 0 {
            let link = Arc::clone(&self.link);
            let _ = tokio::task::spawn_blocking(move || link.evaluations().forget_all()).await;
        }
    }

    fn hear(&self, said: ToWorker, leaving: &mut Leaving) {
        match said {
            ToWorker::Welcome { .. } | ToWorker::Alive => {}
            ToWorker::Unknown => say("the server said something that this release does not know: update this worker"),
            ToWorker::Start(start) => self.attempts.start(*start),
            ToWorker::Stop { lease, by } => self.attempts.stop(lease, &by),
            ToWorker::Forget { lease } => self.attempts.forget(lease),
            ToWorker::Evaluate(question) => {
                let id = question.id;
                if self.link.evaluations().count() >= EVALUATIONS_MAX {
                    let reply = Err(format!("{EVALUATIONS_MAX} programs wait to be asked on this worker already"));
                    return self.outbox.say(&FromWorker::Evaluated { id, reply, lack: None });
                }
                self.link.evaluations().begin(id);
                let (link, outbox) = (Arc::clone(&self.link), Arc::clone(&self.outbox));
                tokio::task::spawn_local(answer(*question, link, outbox, self.data.clone()));
            }
            ToWorker::Unask { id } => {
                let link = Arc::clone(&self.link);
                tokio::task::spawn_blocking(move || link.evaluations().forget(id));
            }
            ToWorker::Shell(start) => {
                if let Some(client) = self.link.client() {
                    let held = self.attempts.hold(start.build);
                    let place = visit::Place { data: self.data.clone(), link: Arc::clone(&self.link) };
                    tokio::task::spawn_local(async move {
                        visit::serve(&place, &client, *start).await;
                        drop(held);
                    });
                }
            }
            ToWorker::Drain { reason, then } => {
                let what = match then {
                    Then::Leave => "leaving",
                    Then::StartAnew => "starting anew",
                };
                let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
                say(&format!("finishing what runs, then {what}{why}"));
                self.then.set(Some(then));
                *leaving = Leaving::Asked;
            }
            ToWorker::Resume => {
                if *leaving == Leaving::Asked {
                    say("taking jobs again");
                    self.then.set(None);
                    *leaving = Leaving::No;
                }
            }
        }
    }
}

/// Whether a server has asked the worker to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leaving {
    No,
    Asked,
}

/// The pools that a token is for; the default one if it names none, or cannot be read.
fn pools_of(token: &str) -> BTreeSet<String> {
    let pools = server::access::inspect(token).ok().and_then(|said| said.pools());
    pools.filter(|pools| !pools.is_empty()).unwrap_or_else(|| BTreeSet::from([String::new()]))
}

fn unanswered(place: &Place) -> Refused {
    let server = place.server().map_or_else(|why| why, |server| server.to_string());
    Refused::Passing(format!("{server} has not answered for {} s", JOIN_WAIT.as_secs()))
}

fn refused(error: &ClientError) -> Refused {
    let text = Stop::of(error).message;
    let help = remote::help(error);
    let text = if help.is_empty() { text } else { format!("{text}; {help}") };
    // A challenge that came too late is asked for again.
    let is_late = [ProblemKind::Conflict, ProblemKind::Gone].into_iter().any(|kind| error.is(kind));
    match error {
        ClientError::Refused(problem) if problem.status < 500 && problem.status != 429 && !is_late => {
            Refused::ForGood(text)
        }
        ClientError::Address { .. } => Refused::ForGood(text),
        _ => Refused::Passing(text),
    }
}

fn post(outbox: &Outbox, client: &Client) -> Option<Posting> {
    let mut post = outbox.post();
    if post.is_empty() {
        return None;
    }
    let client = client.clone();
    let body = bytes::Bytes::from(std::mem::take(&mut post.body));
    Some(Box::pin(async move {
        let taken = client.worker_outbox(body).await;
        (post, taken)
    }))
}

async fn finished(posting: &mut Option<Posting>) -> (Post, Result<Taken, ClientError>) {
    match posting {
        Some(posting) => posting.await,
        None => std::future::pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// How long to wait after so many failures in a row.
fn wait(failures: u32) -> Duration {
    let wait = WAIT_MIN.saturating_mul(1 << failures.clamp(1, 16).saturating_sub(1)).min(WAIT_MAX);
    let mut byte = [0];
    // Without random numbers all workers come back at once; that is borne.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut byte);
    wait * 2 / 3 + wait * u32::from(byte[0]) / (3 * 255)
}

/// Asks whether the worker is well, when told to.
async fn check_health(attempts: Rc<Attempts>, mut beats: mpsc::Receiver<()>) {
    while beats.recv().await.is_some() {
        attempts.look().await;
    }
}

/// Ends programs that are kept running and that nobody asks.
async fn retire_programs(link: Arc<Link>) {
    loop {
        tokio::time::sleep(SESSION_IDLE_MAX).await;
        link.evaluations().retire(std::time::Instant::now());
    }
}

/// Answers a question to a program, unless it is forgotten meanwhile.
async fn answer(question: Evaluate, link: Arc<Link>, outbox: Arc<Outbox>, data: PathBuf) {
    let id = question.id;
    let asked = Arc::clone(&link);
    let said = tokio::task::spawn_blocking(move || evaluate_now(&asked, &data, question)).await;
    let (reply, lack) = match said.unwrap_or_else(|error| Err(NoReply::of(error.to_string()))) {
        Ok(reply) => (Ok(reply), None),
        Err(NoReply { why, lack }) => (Err(why), lack),
    };
    if link.evaluations().end(id) {
        outbox.say(&FromWorker::Evaluated { id, reply, lack });
    }
}

/// Why a program was not asked.
struct NoReply {
    /// For people.
    why: String,
    /// What another worker may have.
    lack: Option<Lack>,
}

impl NoReply {
    fn of(why: String) -> Self {
        Self { why, lack: None }
    }
}

fn evaluate_now(link: &Link, data: &std::path::Path, question: Evaluate) -> Result<Box<ProgramReply>, NoReply> {
    let Evaluate { id, build, source, pipeline, known, program } = question;
    let about = About { build, source, pipeline };
    let evaluations = link.evaluations();
    let again = evaluations.ask_again(id, &about, data, &known);
    let answer = match again {
        Some(Ok(answer)) => answer,
        // It may have died of something that has nothing to do with the question.
        Some(Err(_)) | None => {
            let program = match program {
                Some(program) => fetch_program(link, data, program).map_err(NoReply::of)?,
                None => None,
            };
            if let (None, Err(stop)) = (program, crate::program::check_cargo()) {
                return Err(NoReply { why: stop.message, lack: Some(Lack::Cargo) });
            }
            let manifest = link.manifest(source).map_err(NoReply::of)?;
            let files = (&manifest, link.contents());
            evaluations.ask((id, about), files, data, known, program).map_err(NoReply::of)?
        }
    };
    let failed = |error: std::io::Error| NoReply::of(format!("cannot keep what the program said: {error}"));
    let text = link.contents().put(answer.text.as_bytes()).map_err(failed)?;
    if !link.contents().has(answer.program) {
        link.contents().put_file(&answer.binary).map_err(failed)?;
    }
    link.send(&[text, answer.program]).map_err(|error| NoReply::of(error.to_string()))?;
    Ok(Box::new(ProgramReply { text, program: answer.program, files: answer.files }))
}

/// Sees to it that a program lies among the programs. `None` if nobody has it any more: then it is built again.
fn fetch_program(link: &Link, data: &std::path::Path, program: Digest) -> Result<Option<Digest>, String> {
    match bring_program(link, data, program) {
        Ok(()) => Ok(Some(program)),
        Err(LinkError::Absent(_)) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Tells whoever watches the process.
pub fn say(text: &str) {
    server::notices::info(&crate::words::harmless(text));
}

/// Tells whoever watches the process what they should look at.
pub fn warn(text: &str) {
    server::notices::warning(&crate::words::harmless(text));
}
