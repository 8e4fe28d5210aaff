//! Streams of what happens: one build with its logs, all builds without. Server-sent events, or JSON lines.
//!
//! Nothing is queued for anybody: each stream reads at its reader's pace and is woken when there may be more.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::event::Moment;
use api::problem::{Problem, ProblemKind};
use api::routes::{EVENT_STREAM, LAST_EVENT_ID, NDJSON};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use engine::Fact;
use engine::fact::What;
use graph::BuildId;
use store::Sequence;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::admission::target_of;
use super::answer::{Answered, with};
use super::build::{Sight, row};
use super::call::Call;
use super::guarded::{guarded, pass};
use super::{App, problem};
use crate::access::{Bearer, Pass, Verb};
use crate::live::{Follower, Lines, LiveError, LiveEvent};
use crate::moments::Telling;
use crate::server::{Ending, Server};

/// How often a stream says that it is alive when nothing happens.
const ALIVE: Duration = Duration::from_secs(15);
/// The most builds whose tellings a stream of all builds remembers; of more their facts are read again.
const TELLINGS_MAX: usize = 10_000;
/// How many appends are read at a time.
const APPENDS_TOGETHER_MAX: u32 = 100;

/// How a stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Events,
    Lines,
}

impl Form {
    /// What the caller takes; server-sent events if they do not say.
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
        let media: Vec<&str> =
            accept.split(',').map(|media| media.split(';').next().unwrap_or_default().trim()).collect();
        let takes = |wanted: &[&str]| media.iter().any(|media| wanted.contains(media));
        if takes(&[EVENT_STREAM]) {
            Ok(Self::Events)
        } else if takes(&[NDJSON, "application/jsonl"]) {
            Ok(Self::Lines)
        } else if takes(&["*/*", "text/*", ""]) {
            Ok(Self::Events)
        } else if takes(&["application/*"]) {
            Ok(Self::Lines)
        } else {
            Err(Problem::new(ProblemKind::NotAcceptable, format!("a stream is not given as `{accept}`"))
                .help(format!("accept {EVENT_STREAM} or {NDJSON}")))
        }
    }

    fn media(self) -> &'static str {
        match self {
            Self::Events => EVENT_STREAM,
            Self::Lines => NDJSON,
        }
    }

    fn write(self, id: Option<&str>, moment: &Moment, into: &mut Vec<u8>) {
        if self == Self::Events {
            if let Some(id) = id {
                into.extend_from_slice(format!("id: {id}\n").as_bytes());
            }
            into.extend_from_slice(b"data: ");
        }
        // Our own types serialize to JSON whatever they hold, and memory takes it.
        serde_json::to_writer(&mut *into, moment).expect("a moment always serializes");
        into.extend_from_slice(if self == Self::Events { b"\n\n" } else { b"\n" });
    }

    /// Says that the stream lives.
    fn alive(self) -> &'static [u8] {
        match self {
            Self::Events => b": alive\n\n",
            // A blank line, which readers of JSON lines pass over.
            Self::Lines => b"\n",
        }
    }
}

fn last_id(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let text = value.to_str().map_err(|_| bad_id("?"))?;
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

fn bad_id(id: &str) -> Problem {
    let id: String = id.chars().take(80).collect();
    Problem::new(ProblemKind::Invalid, format!("`{id}` is not the id of an object of this stream"))
        .field(LAST_EVENT_ID, "has to be an id that this stream gave")
}

fn live(error: LiveError) -> Problem {
    match error {
        LiveError::NoBuild(build) => problem::not_found(format_args!("build {build}")),
        LiveError::BadId(id) => bad_id(&id),
        LiveError::Store(error) => problem::store(error),
        LiveError::Record(error) => problem::record(error),
        LiveError::Log(error) => problem::log(error),
        LiveError::Interrupted => problem::internal(&error),
    }
}

/// A reading of a follower, which is never broken off: it gives the follower back.
type Reading = Pin<Box<dyn Future<Output = (Follower, Result<Option<Vec<LiveEvent>>, LiveError>)> + Send>>;

fn reading(mut follower: Follower) -> Reading {
    Box::pin(async move {
        let told = follower.next().await;
        (follower, told)
    })
}

/// One build's stream.
struct OfBuild {
    reading: Reading,
    form: Form,
    ending: tokio::sync::watch::Receiver<Ending>,
    _permit: OwnedSemaphorePermit,
}

pub async fn build(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let form = Form::of(&call.headers)?;
    let lines = match call.wanted::<bool>("logs", "true or false")? {
        Some(false) => Lines::Left,
        Some(true) | None => Lines::Told,
    };
    let last = last_id(&call.headers)?;
    let permit = app.stream_permit()?;
    let project = app.blocking(move |app| row(app, build)).await?.origin.project;
    let pass = pass(&app, &call, Verb::Read, &[target_of(&project, build)])?;
    let ending = app.server.ending();
    let follower = app.server.live.follow(build, last.as_deref(), lines).await.map_err(live)?;
    let stream = OfBuild { reading: reading(follower), form, ending, _permit: permit };
    let body = futures_util::stream::unfold(Some(stream), |stream| async move {
        let mut stream = stream?;
        let form = stream.form;
        let told = tokio::select! {
            told = tokio::time::timeout(ALIVE, &mut stream.reading) => told,
            _ = stream.ending.changed() => return None,
        };
        match told {
            Err(_) => Some((Ok(Bytes::from_static(form.alive())), Some(stream))),
            Ok((follower, Ok(Some(events)))) => {
                let piece = written(form, &events);
                stream.reading = reading(follower);
                Some((Ok(piece), Some(stream)))
            }
            Ok((_, Ok(None))) => None,
            Ok((_, Err(error))) => Some((Err(io::Error::other(error)), None)),
        }
    });
    Ok(with(StatusCode::OK, form.media(), Body::from_stream(guarded(app, pass, body))))
}

fn written(form: Form, events: &[LiveEvent]) -> Bytes {
    let mut piece = Vec::new();
    for LiveEvent { id, moment } in events {
        form.write(id.as_deref(), moment, &mut piece);
    }
    piece.into()
}

/// The stream of all builds.
struct OfAll {
    server: Arc<Server>,
    pass: Arc<Pass>,
    /// Whose rights the tellings were judged by.
    bearer: Arc<Bearer>,
    form: Form,
    project: Option<String>,
    after: Sequence,
    /// Of builds of which this reader is not told: nothing.
    tellings: HashMap<BuildId, Option<Telling>>,
    stored: tokio::sync::watch::Receiver<u64>,
    ending: tokio::sync::watch::Receiver<Ending>,
    turns: Arc<Semaphore>,
    _permit: OwnedSemaphorePermit,
}

pub async fn events(app: Arc<App>, call: Call) -> Answered {
    let form = Form::of(&call.headers)?;
    let last = last_id(&call.headers)?;
    let permit = app.stream_permit()?;
    // Subscribed before the place is read: then nothing is missed.
    let (stored, ending) = (app.server.live.stored(), app.server.ending());
    let newest = app.blocking(|app| app.server.store.last_sequence().map_err(problem::store)).await?;
    let after = match last {
        Some(id) => {
            let after = id.parse().map(Sequence).map_err(|_| bad_id(&id))?;
            if after > newest {
                // Nothing would be told until as much has happened again.
                let help = "leave the header out: the server was restored from a backup, or the id is another stream's";
                return Err(bad_id(&id).help(help));
            }
            after
        }
        None => newest,
    };
    // Which builds are told is looked at for each.
    let pass = pass(&app, &call, Verb::Read, &[])?;
    let stream = OfAll {
        server: Arc::clone(&app.server),
        bearer: pass.bearer(),
        pass: Arc::clone(&pass),
        form,
        project: call.text("project").map(str::to_owned),
        after,
        tellings: HashMap::new(),
        stored,
        ending,
        turns: Arc::clone(&app.turns),
        _permit: permit,
    };
    let body = futures_util::stream::unfold(Some((stream, true)), |stream| async move {
        let (mut stream, is_first) = stream?;
        if is_first {
            // The answer begins at once, also when nothing happens for long.
            let alive = Bytes::from_static(stream.form.alive());
            return Some((Ok(alive), Some((stream, false))));
        }
        loop {
            let turn = Arc::clone(&stream.turns).acquire_owned().await;
            let read = tokio::task::spawn_blocking(move || {
                let piece = stream.read();
                drop(turn);
                (stream, piece)
            });
            let (read, piece) = match read.await {
                Ok(done) => done,
                Err(error) => return Some((Err(io::Error::other(error)), None)),
            };
            stream = read;
            match piece {
                Err(refusal) => return Some((Err(problem::broken_off(&refusal)), None)),
                Ok(Some(piece)) if !piece.is_empty() => return Some((Ok(piece), Some((stream, false)))),
                // There was something, and nothing for this reader: there may be more.
                Ok(Some(_)) => continue,
                Ok(None) => {}
            }
            tokio::select! {
                changed = tokio::time::timeout(ALIVE, stream.stored.changed()) => match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return None,
                    Err(_) => {
                        let alive = Bytes::from_static(stream.form.alive());
                        return Some((Ok(alive), Some((stream, false))));
                    }
                },
                _ = stream.ending.changed() => return None,
            }
        }
    });
    Ok(with(StatusCode::OK, form.media(), Body::from_stream(guarded(app, pass, body))))
}

impl OfAll {
    /// What was appended since, as far as this reader may see it; `None` if nothing was. Blocks.
    fn read(&mut self) -> Result<Option<Bytes>, Problem> {
        let appends = self.server.store.journal(self.after, APPENDS_TOGETHER_MAX).map_err(problem::store)?;
        if appends.is_empty() {
            return Ok(None);
        }
        let bearer = self.pass.bearer();
        let mut sight = Sight::new(&bearer, Verb::Read, self.server.now());
        if !Arc::ptr_eq(&bearer, &self.bearer) {
            // The reader's roles have changed.
            self.bearer = Arc::clone(&bearer);
            self.tellings.clear();
        }
        let mut piece = Vec::new();
        for (sequence, facts) in appends {
            self.after = sequence;
            let told: Vec<Moment> = facts
                .iter()
                .map(|fact| self.told(&mut sight, fact))
                .filter_map(Result::transpose)
                .collect::<Result<_, _>>()?;
            let last = told.len();
            let id = sequence.0.to_string();
            for (index, moment) in told.iter().enumerate() {
                self.form.write((index + 1 == last).then_some(id.as_str()), moment, &mut piece);
            }
        }
        Ok(Some(piece.into()))
    }

    /// One fact as this reader is told of it; `None` if it may not see it, or there is nothing to tell.
    fn told(&mut self, sight: &mut Sight<'_>, fact: &Fact) -> Result<Option<Moment>, Problem> {
        let build = fact.build;
        if !self.tellings.contains_key(&build) {
            if self.tellings.len() >= TELLINGS_MAX {
                self.tellings.clear();
            }
            let row = self.server.store.build(build).map_err(problem::store)?;
            let Some(row) = row else { return Ok(None) };
            let project = row.origin.project;
            let is_seen = is_wanted(self.project.as_ref(), &project) && sight.build(&project, build);
            let telling = if is_seen { Some(self.telling_before(fact)?) } else { None };
            self.tellings.insert(build, telling);
        }
        let Some(Some(telling)) = self.tellings.get_mut(&build) else { return Ok(None) };
        let told = telling.tell(fact);
        if matches!(told, Some(Moment::BuildFinished { .. })) {
            self.tellings.remove(&build);
        }
        Ok(told)
    }

    /// What is known of a build before a fact of it, which a reader that came later, or one of a build that is retried, was not told.
    fn telling_before(&self, fact: &Fact) -> Result<Telling, Problem> {
        let mut telling = Telling::default();
        if matches!(fact.what, What::BuildCreated(_)) {
            return Ok(telling);
        }
        for earlier in self.server.store.facts(fact.build).map_err(problem::store)? {
            if earlier == *fact {
                break;
            }
            telling.tell(&earlier);
        }
        Ok(telling)
    }
}

/// Whether a build of this project is among those that were asked for.
fn is_wanted(wanted: Option<&String>, project: &str) -> bool {
    wanted.is_none_or(|wanted| wanted == project)
}
