//! Logs of steps: in short, in lines, in bytes, followed, searched. One piece is in memory at a time, however long a log
//! is, and a reader who is slow holds no thread.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::log::{
    HITS_DEFAULT, HITS_MAX, HitSpread, LINES_MAX, LogFormat, LogGap, LogGapCause, LogGroups, LogHit, LogHits, LogItem,
    LogLine, LogState, LogStream, LogSummary, PARTS_MAX, REGEX_BYTES_MAX, StepLog, WITHIN_MS_MAX,
};
use api::page::Page;
use api::problem::{Problem, ProblemKind};
use api::routes::{BYTES, NDJSON, TEXT};
use axum::body::{Body, Bytes};
use axum::http::{Response, StatusCode};
use graph::{AttemptNumber, BuildId, JobName, Timestamp};
use store::log::{
    Gap, GapCause, Item, Line, LineEnd, Lines, LogReader, RawPart, SearchBudget, SearchEnd, SearchResult, Selection,
    Stream, StreamKey, StreamState, StreamSummary, Watch,
};
use store::rows::AttemptRow;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::admission::target_of;
use super::answer::{self, Answered, More, PIECE_BYTES, Wanted, by_pieces, range, ranged, with};
use super::call::{Call, invalid};
use super::guarded::{guarded, pass};
use super::likeness::{Earlier, Likeness};
use super::{App, build, groups, job, problem};
use crate::access::{Pass, Verb};
use crate::lock::lock;
use crate::records::LogPhase;
use crate::server::Server;

/// What one search may cost; its caller goes on by its cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchBounds {
    /// About the most bytes that it looks through.
    pub bytes: u64,
    /// How many of them before others get the thread.
    pub piece_bytes: u64,
    /// The longest that it goes on.
    pub time: Duration,
}

impl SearchBounds {
    /// Those of a server.
    pub const DEFAULT: Self = Self { bytes: 1 << 30, piece_bytes: 16 << 20, time: Duration::from_secs(10) };
}

/// The log of one step.
struct Place {
    build: BuildId,
    attempt: AttemptRow,
    key: StreamKey,
}

/// The log that the path names, opened; no reader if nothing was printed yet. Blocks.
fn open(
    app: &App,
    build: BuildId,
    number: AttemptNumber,
) -> Result<(AttemptRow, Option<LogReader>, LogPhase), Problem> {
    let row = build::row(app, build)?;
    let attempts = app.server.store.attempts(build, None).map_err(problem::store)?;
    let attempt = attempts.into_iter().find(|row| row.attempt == number);
    let attempt = attempt.ok_or_else(|| problem::not_found(format_args!("attempt {number} of build {build}")))?;
    let phase = match row.verdict {
        graph::Verdict::Running => LogPhase::Growing,
        _ => LogPhase::Ended,
    };
    let place = app.server.records.log_place(build, phase).map_err(problem::record)?;
    let reader = app.server.logs.reader(build, place).map_err(problem::log)?;
    Ok((attempt, reader, phase))
}

fn number(call: &Call) -> Result<AttemptNumber, Problem> {
    Ok(AttemptNumber(call.segment_as("attempt", "the number of an attempt")?))
}

fn stream(stream: Stream) -> LogStream {
    match stream {
        Stream::Stdout => LogStream::Stdout,
        Stream::Stderr => LogStream::Stderr,
        Stream::Note => LogStream::Note,
    }
}

fn time(time_us: u64) -> api::time::Time {
    Timestamp(i64::try_from(time_us).unwrap_or(i64::MAX)).into()
}

fn gap(gap: &Gap) -> LogGap {
    let size = match (gap.lines, gap.bytes) {
        (Some(lines), _) => format!("{lines} lines are lost here"),
        (None, Some(bytes)) => format!("{bytes} bytes are lost here"),
        (None, None) => "the end of this log may be lost".to_owned(),
    };
    let cause = match gap.cause {
        GapCause::Missing => LogGapCause::Missing,
        GapCause::Damaged => LogGapCause::Damaged,
        GapCause::CutShort => LogGapCause::CutShort,
    };
    LogGap { number: gap.first_line, text: size, lines: gap.lines, bytes: gap.bytes, cause }
}

pub async fn summary(app: Arc<App>, call: Call) -> Answered {
    let (build, number) = (call.build()?, number(&call)?);
    let summary = app
        .blocking(move |app| {
            let (attempt, reader, _) = open(app, build, number)?;
            let steps = reader.iter().flat_map(LogReader::streams).filter(|stream| stream.key.attempt == number.0);
            Ok(LogSummary { build, attempt: number.0, steps: steps.map(|stream| step(&stream, &attempt)).collect() })
        })
        .await?;
    answer::json(&summary)
}

/// What a step of an attempt printed, in short.
fn step(stream: &StreamSummary, attempt: &AttemptRow) -> StepLog {
    StepLog {
        step: stream.key.step,
        lines: stream.lines,
        bytes: stream.bytes,
        first: time(stream.first_time_us),
        last: time(stream.last_time_us),
        state: match (stream.state, &attempt.ended) {
            (StreamState::Closed, _) => LogState::Closed,
            (StreamState::Open, None) => LogState::Open,
            (StreamState::Open, Some(_)) => LogState::Torn,
        },
    }
}

pub async fn list(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let (limit, after) = (call.limit()?, call.cursor::<u32>()?);
    let job = call.text("job").map(JobName::from);
    let page = app
        .blocking(move |app| {
            let attempts = app.server.store.attempts(build, job.as_ref()).map_err(problem::store)?;
            let Some(reader) = open_live(&app.server, build)? else { return Ok(Page::default()) };
            let mut steps: BTreeMap<u32, Vec<StreamSummary>> = BTreeMap::new();
            for stream in reader.streams() {
                steps.entry(stream.key.attempt).or_default().push(stream);
            }
            let behind = attempts.iter().filter(|row| after.is_none_or(|after| row.attempt.0 > after));
            let summaries = behind.filter_map(|row| {
                let steps = steps.get(&row.attempt.0)?.iter().map(|stream| step(stream, row)).collect();
                Some(LogSummary { build, attempt: row.attempt.0, steps })
            });
            Ok(job::cut(summaries, limit, |summary| summary.attempt.to_string()))
        })
        .await?;
    answer::json(&page)
}

/// Which lines are wanted.
struct Part {
    from: u64,
    count: u64,
    tail: Option<u64>,
}

pub async fn read(app: Arc<App>, call: Call) -> Answered {
    let (build, number) = (call.build()?, number(&call)?);
    let step = call.segment_as("step", "the index of a step")?;
    let key = StreamKey { attempt: number.0, step };
    let format = call.word::<LogFormat>("format", "text, ndjson or raw")?.unwrap_or_default();
    let what = "a number";
    let part = Part {
        from: call.wanted("from", what)?.unwrap_or(0),
        count: call.wanted("count", what)?.unwrap_or(u64::MAX),
        tail: call.wanted("tail", what)?,
    };
    let follow = call.wanted::<bool>("follow", "true or false")?.unwrap_or(false);
    let is_bad =
        format == LogFormat::Raw && (follow || ["from", "count", "tail"].iter().any(|name| call.text(name).is_some()));
    if is_bad {
        return Err(Problem::new(ProblemKind::Invalid, "`raw` is cut by the header `range`, and not followed")
            .field("format", "text or ndjson, to cut by lines or to follow"));
    }
    if part.tail.is_some_and(|tail| tail > LINES_MAX) {
        return Err(Problem::new(ProblemKind::Invalid, format!("`tail` is at most {LINES_MAX}"))
            .field("tail", format!("at most {LINES_MAX}")));
    }
    let against = against(&call)?;
    if against.is_some() && (follow || format != LogFormat::Ndjson) {
        return Err(invalid("against", "", "left out, but for `format=ndjson` that is not followed"));
    }
    let permit = app.stream_permit()?;
    if follow {
        let project = app.blocking(move |app| build::row(app, build)).await?.origin.project;
        let pass = pass(&app, &call, Verb::Read, &[target_of(&project, build)])?;
        let place = Place { build, attempt: attempt_row(&app, build, number).await?, key };
        return followed(&app, place, (part, format), permit, pass).await;
    }
    let (_, reader, _) = app.blocking(move |app| open(app, build, number)).await?;
    match (format, reader) {
        (LogFormat::Raw, reader) => raw(&call, reader, key, permit),
        (LogFormat::Text, None) => Ok(with(StatusCode::OK, TEXT, Body::empty())),
        (LogFormat::Ndjson, None) => Ok(with(StatusCode::OK, NDJSON, Body::empty())),
        (format, Some(reader)) => {
            let earlier = match against {
                Some(against) => app.blocking(move |app| earlier(app, build, step, against)).await?,
                None => None,
            };
            Ok(lines(&app, (&reader, key), &part, (format, earlier), permit))
        }
    }
}

/// The attempt of a build that lines are to be compared with.
fn against(call: &Call) -> Result<Option<(BuildId, AttemptNumber)>, Problem> {
    let Some(text) = call.text("against") else { return Ok(None) };
    let read = text
        .split_once('.')
        .and_then(|(build, attempt)| Some((BuildId(build.parse().ok()?), AttemptNumber(attempt.parse().ok()?))));
    read.map(Some).ok_or_else(|| invalid("against", text, "`BUILD.ATTEMPT`, two numbers"))
}

/// The log to compare with: of a build of the same project, since whoever may read the one may read the other. Blocks.
fn earlier(
    app: &App,
    build: BuildId,
    step: u16,
    (other, number): (BuildId, AttemptNumber),
) -> Result<Option<Earlier>, Problem> {
    let project = build::row(app, build)?.origin.project;
    if project != build::row(app, other).map_err(|_| unknown_build(other))?.origin.project {
        return Err(unknown_build(other));
    }
    let (attempt, reader, _) = open(app, other, number)?;
    if attempt.ended.is_none() {
        return Err(Problem::new(ProblemKind::Conflict, format!("attempt {number} of build {other} has not ended")));
    }
    Ok(reader.map(|reader| Earlier::new(other, StreamKey { attempt: number.0, step }, reader)))
}

/// The same for a build of another project as for none.
fn unknown_build(build: BuildId) -> Problem {
    problem::not_found(format_args!("build {build} in this project"))
}

async fn attempt_row(app: &Arc<App>, build: BuildId, number: AttemptNumber) -> Result<AttemptRow, Problem> {
    let (attempt, _, _) = app.blocking(move |app| open(app, build, number)).await?;
    Ok(attempt)
}

/// Exactly the bytes. A byte that is lost is sent as NUL, so that every other stands where it stood.
fn raw(call: &Call, reader: Option<LogReader>, key: StreamKey, permit: OwnedSemaphorePermit) -> Answered {
    let length = reader.as_ref().and_then(|reader| reader.stream(key)).map_or(0, |stream| stream.bytes);
    let wanted = range(&call.headers, length)?;
    let (start, end) = match wanted {
        Wanted::Whole => (0, length),
        Wanted::Part(start, end) => (start, end),
    };
    let Some(reader) = reader else { return Ok(ranged(wanted, length, BYTES, Body::empty())) };
    let mut parts = reader.raw_from(key, Selection::All, start);
    let mut left = end - start;
    let mut lost = 0;
    let body = by_pieces(move |piece| {
        let _permit = &permit;
        while piece.len() < PIECE_BYTES * 4 && left > 0 {
            if lost > 0 {
                let most = lost.min(left).min(PIECE_BYTES as u64);
                piece.resize(piece.len() + usize::try_from(most).unwrap_or(PIECE_BYTES), 0);
                (lost, left) = (lost - most, left - most);
                continue;
            }
            match parts.next().transpose().map_err(io::Error::other)? {
                Some(RawPart::Bytes(bytes)) => {
                    let most = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    piece.extend_from_slice(&bytes[..most]);
                    left -= most as u64;
                }
                Some(RawPart::Gap(gap)) => lost = gap.bytes.unwrap_or(0),
                // What was told of the length was a lie; the answer breaks off.
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(if left == 0 { More::No } else { More::Yes })
    });
    Ok(ranged(wanted, length, BYTES, body))
}

fn lines(
    app: &Arc<App>,
    (reader, key): (&LogReader, StreamKey),
    part: &Part,
    (format, mut earlier): (LogFormat, Option<Earlier>),
    permit: OwnedSemaphorePermit,
) -> Response<Body> {
    let app = Arc::clone(app);
    let mut lines = match part.tail {
        Some(tail) => reader.tail(key, tail),
        None => reader.lines(key, part.from..part.from.saturating_add(part.count)),
    };
    let body = by_pieces(move |piece| {
        let _permit = &permit;
        while piece.len() < PIECE_BYTES * 4 {
            match lines.next().transpose().map_err(io::Error::other)? {
                Some(item) => {
                    let likeness = match (&item, &mut earlier) {
                        (Item::Line(line), Some(earlier)) => {
                            let known = &app.known_parts;
                            earlier.likeness(known, line.number, &line.bytes).map_err(io::Error::other)?
                        }
                        _ => Likeness::Own,
                    };
                    write(&item, (0, likeness), format, piece);
                }
                None => return Ok(More::No),
            }
        }
        Ok(More::Yes)
    });
    with(StatusCode::OK, media(format), body)
}

fn media(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => TEXT,
        LogFormat::Ndjson => NDJSON,
        LogFormat::Raw => BYTES,
    }
}

/// Writes a line, without its first `skip` bytes, or a gap.
fn write(item: &Item, (skip, likeness): (usize, Likeness), format: LogFormat, into: &mut Vec<u8>) {
    match (item, format) {
        (Item::Line(line), LogFormat::Ndjson) => {
            let item = LogItem::Line(LogLine {
                number: line.number,
                stream: stream(line.stream),
                time: time(line.time_us),
                line: String::from_utf8_lossy(&line.bytes[skip..]).into_owned(),
                bytes: std::str::from_utf8(&line.bytes[skip..]).is_err().then(|| line.bytes[skip..].to_vec()),
                open: line.end == LineEnd::Open,
                same: likeness == Likeness::Same,
            });
            write_json(&item, into);
        }
        (Item::Gap(lost), LogFormat::Ndjson) => write_json(&LogItem::Gap(gap(lost)), into),
        (Item::Line(line), LogFormat::Text | LogFormat::Raw) => {
            // Text is promised to be UTF-8; whoever wants the bytes asks for `raw`.
            into.extend_from_slice(String::from_utf8_lossy(&line.bytes[skip..]).as_bytes());
            if line.end == LineEnd::LineFeed {
                into.push(b'\n');
            }
        }
        (Item::Gap(lost), LogFormat::Text | LogFormat::Raw) => {
            into.extend_from_slice(format!("\n[{}]\n", gap(lost).text).as_bytes());
        }
    }
}

fn write_json(item: &LogItem, into: &mut Vec<u8>) {
    // Our own types serialize to JSON whatever they hold, and memory takes it.
    serde_json::to_writer(&mut *into, item).expect("an item of a log always serializes");
    into.push(b'\n');
}

/// A log that is followed: how far it was told, and what wakes it.
struct Follower {
    server: Arc<Server>,
    place: Place,
    format: LogFormat,
    /// The next row, and how many bytes of it were told.
    line: u64,
    bytes: usize,
    /// How many rows may still be told.
    left: u64,
    reader: Option<LogReader>,
    has_ended: bool,
    woken: Arc<Notify>,
    stored: tokio::sync::watch::Receiver<u64>,
    ending: tokio::sync::watch::Receiver<crate::server::Ending>,
    turns: Arc<Semaphore>,
    _watch: Watch,
    _permit: OwnedSemaphorePermit,
}

async fn followed(
    app: &Arc<App>,
    place: Place,
    (part, format): (Part, LogFormat),
    permit: OwnedSemaphorePermit,
    pass: Arc<Pass>,
) -> Answered {
    let server = Arc::clone(&app.server);
    let woken = Arc::new(Notify::new());
    let waker = Arc::clone(&woken);
    // Registered before anything is read: then nothing is missed.
    let watch = server.logs.watch(place.build, move || waker.notify_one()).map_err(problem::log)?;
    let (stored, ending) = (server.live.stored(), server.ending());
    let mut follower = Follower {
        server,
        place,
        format,
        line: part.from,
        bytes: 0,
        left: part.count,
        reader: None,
        has_ended: false,
        woken,
        stored,
        ending,
        turns: Arc::clone(&app.turns),
        _watch: watch,
        _permit: permit,
    };
    if let Some(tail) = part.tail {
        let (build, number) = (follower.place.build, follower.place.attempt.attempt);
        let key = follower.place.key;
        let reader = app.blocking(move |app| open(app, build, number)).await?.1;
        let lines = reader.and_then(|reader| reader.stream(key)).map_or(0, |stream| stream.lines);
        follower.line = lines.saturating_sub(tail);
    }
    let stream = futures_util::stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        loop {
            let turn = Arc::clone(&follower.turns).acquire_owned().await;
            let read = tokio::task::spawn_blocking(move || {
                let piece = follower.read();
                drop(turn);
                (follower, piece)
            });
            let (read, piece) = match read.await {
                Ok(done) => done,
                Err(error) => return Some((Err(io::Error::other(error)), None)),
            };
            follower = read;
            match piece {
                Err(refusal) => return Some((Err(problem::broken_off(&refusal)), None)),
                Ok(piece) if !piece.is_empty() => return Some((Ok(Bytes::from(piece)), Some(follower))),
                Ok(_) if follower.has_ended => return None,
                Ok(_) => {}
            }
            // One of these comes with everything that could change what there is to read.
            tokio::select! {
                () = follower.woken.notified() => {}
                changed = follower.stored.changed() => if changed.is_err() { return None },
                _ = follower.ending.changed() => return None,
            }
        }
    });
    Ok(with(StatusCode::OK, media(format), Body::from_stream(guarded(Arc::clone(app), pass, stream))))
}

impl Follower {
    /// What is new, about a piece; empty if nothing is. Blocks.
    fn read(&mut self) -> Result<Vec<u8>, Problem> {
        let Place { build, key, .. } = self.place;
        // Asked first: what was printed before the end was seen is read after.
        let is_over = self.is_over()?;
        match &mut self.reader {
            Some(reader) => drop(reader.refresh().map_err(problem::log)?),
            None => self.reader = open_live(&self.server, build)?,
        }
        let mut piece = Vec::new();
        let Some(reader) = &self.reader else {
            self.has_ended = is_over;
            return Ok(piece);
        };
        let is_closed = reader.stream(key).is_some_and(|stream| stream.state == StreamState::Closed);
        let mut lines: Lines = reader.lines(key, self.line..u64::MAX);
        let mut rest = More::No;
        // How many bytes of the present row have been seen in this reading.
        let mut seen = 0;
        loop {
            if piece.len() >= PIECE_BYTES * 4 || self.left == 0 {
                rest = More::Yes;
                break;
            }
            match lines.next().transpose().map_err(problem::log)? {
                None => break,
                Some(item @ Item::Gap(_)) => write(&item, (0, Likeness::Own), self.format, &mut piece),
                Some(Item::Line(line)) => self.tell(line, &mut seen, &mut piece),
            }
        }
        self.has_ended = self.left == 0 || (rest == More::No && (is_closed || is_over));
        Ok(piece)
    }

    /// Tells what of a piece of a row was not told yet.
    fn tell(&mut self, line: Line, seen: &mut usize, piece: &mut Vec<u8>) {
        if line.number != self.line {
            (self.line, self.bytes, *seen) = (line.number, 0, 0);
        }
        let length = line.bytes.len();
        let known = self.bytes.saturating_sub(*seen).min(length);
        *seen += length;
        let is_whole = line.end == LineEnd::LineFeed;
        self.bytes = self.bytes.max(*seen);
        if known < length || is_whole {
            write(&Item::Line(line), (known, Likeness::Own), self.format, piece);
        }
        if is_whole {
            (self.line, self.bytes, *seen) = (self.line + 1, 0, 0);
            self.left = self.left.saturating_sub(1);
        }
    }

    /// Whether the attempt has ended, so that no more comes.
    fn is_over(&self) -> Result<bool, Problem> {
        let Place { build, attempt, .. } = &self.place;
        if attempt.ended.is_some() {
            return Ok(true);
        }
        let rows = self.server.store.attempts(*build, Some(&attempt.job)).map_err(problem::store)?;
        Ok(rows.iter().find(|row| row.attempt == attempt.attempt).is_none_or(|row| row.ended.is_some()))
    }
}

/// The log of a build, wherever it is now.
fn open_live(server: &Server, build: BuildId) -> Result<Option<LogReader>, Problem> {
    let row = server.store.build(build).map_err(problem::store)?;
    let phase = match row.map(|row| row.verdict) {
        Some(graph::Verdict::Running) => LogPhase::Growing,
        _ => LogPhase::Ended,
    };
    let place = server.records.log_place(build, phase).map_err(problem::record)?;
    server.logs.reader(build, place).map_err(problem::log)
}

pub async fn search(app: Arc<App>, call: Call) -> Answered {
    let (build, number) = (call.build()?, number(&call)?);
    let step = call.segment_as("step", "the index of a step")?;
    let key = StreamKey { attempt: number.0, step };
    let wrong = |detail: String| Problem::new(ProblemKind::Invalid, detail.clone()).field("regex", detail);
    let Some(text) = call.text("regex").filter(|text| !text.is_empty()) else {
        return Err(wrong("say what to find".to_owned()));
    };
    if text.len() > REGEX_BYTES_MAX {
        return Err(wrong(format!("a regular expression has at most {REGEX_BYTES_MAX} bytes")));
    }
    let limit = match call.text("limit") {
        Some(_) => call.limit()?.min(HITS_MAX),
        None => HITS_DEFAULT,
    };
    let wanted = Wish {
        place: (build, number, key),
        regex: text.to_owned(),
        from: call.cursor::<u64>()?.unwrap_or(0),
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        parts: bounded(&call, "parts", PARTS_MAX)?,
    };
    let within = bounded(&call, "within_ms", WITHIN_MS_MAX)?;
    let time = within.map_or(app.search.time, |ms| app.search.time.min(Duration::from_millis(ms.into())));
    let _permit = app.stream_permit()?;
    // What was found in a log that is whole holds as long as its build is there, which was looked at for the reader's rights.
    if let Some(found) = app.found.find(&wanted) {
        return answer::json(&*found);
    }
    let regex = regex::bytes::RegexBuilder::new(text).size_limit(1 << 20).build();
    let regex = regex.map_err(|error| wrong(error.to_string()))?;
    let Some(reader) = app.blocking(move |app| Ok(open(app, build, number)?.1)).await? else {
        return answer::json(&LogHits::default());
    };
    answer::json(&*found(&app, reader, wanted, Arc::new(regex), time).await?)
}

/// What a search finds. What was found in a log that is whole is found again.
async fn found(
    app: &Arc<App>,
    reader: LogReader,
    wanted: Wish,
    regex: Arc<regex::bytes::Regex>,
    time: Duration,
) -> Result<Arc<LogHits>, Problem> {
    let is_whole = reader.stream(wanted.place.2).is_some_and(|stream| stream.state == StreamState::Closed);
    if let Some(found) = app.found.find(&wanted) {
        return Ok(found);
    }
    let deadline = Instant::now() + time;
    let (found, reached) = searched(app, reader, &wanted, regex, deadline).await?;
    let found = Arc::new(found);
    if is_whole && reached == Reached::Wanted {
        app.found.keep(wanted, &found);
    }
    Ok(found)
}

/// The groups of a step. Their marks are found by one search, which is kept of a log that is whole: nothing reads the log again for them.
pub async fn groups(app: Arc<App>, call: Call) -> Answered {
    let (build, number) = (call.build()?, number(&call)?);
    let key = StreamKey { attempt: number.0, step: call.segment_as("step", "the index of a step")? };
    let _permit = app.stream_permit()?;
    let Some(reader) = app.blocking(move |app| Ok(open(app, build, number)?.1)).await? else {
        return answer::json(&LogGroups::default());
    };
    let lines = reader.stream(key).map_or(0, |stream| stream.lines);
    let regex = Arc::clone(&groups::MARKS);
    let text = regex.as_str().to_owned();
    let wish = Wish { place: (build, number, key), regex: text, from: 0, limit: groups::MARKS_MAX, parts: None };
    let hits = found(&app, reader, wish, regex, app.search.time).await?;
    answer::json(&groups::tree(&hits, lines))
}

/// A number of the query from 1 to `most`.
pub fn bounded(call: &Call, name: &'static str, most: u32) -> Result<Option<u32>, Problem> {
    let what = format!("a number from 1 to {most}");
    match call.wanted::<u32>(name, &what)? {
        Some(number) if !(1..=most).contains(&number) => Err(invalid(name, &number.to_string(), &what)),
        number => Ok(number),
    }
}

/// What a search is to find.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    place: (BuildId, AttemptNumber, StreamKey),
    regex: String,
    from: u64,
    limit: usize,
    /// How many parts its spread is to have.
    parts: Option<u32>,
}

/// How far a search came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// All that was wanted.
    Wanted,
    /// Its bounds.
    Bounds,
}

/// How many answers of searches are kept, those that were asked for last: most find nothing, as those for annotations.
const FOUND_KEPT: usize = 512;
/// The largest of them, and all together, in bytes of lines.
const FOUND_BYTES_MAX: usize = 64 * 1024;
const FOUND_BYTES_KEPT: usize = 4 << 20;

/// Answers of searches of logs that are whole: everybody who opens a failed job asks for its first error.
#[derive(Default)]
pub struct FoundBefore(Mutex<VecDeque<(Wish, Arc<LogHits>)>>);

/// What an answer counts for: the bytes of its lines.
fn found_bytes(found: &LogHits) -> usize {
    found.hits.iter().map(|hit| hit.text.len()).sum()
}

impl FoundBefore {
    fn find(&self, wish: &Wish) -> Option<Arc<LogHits>> {
        let mut kept = lock(&self.0);
        let index = kept.iter().position(|(known, _)| known == wish)?;
        let found = kept.remove(index)?;
        let hits = Arc::clone(&found.1);
        kept.push_back(found);
        Some(hits)
    }

    fn keep(&self, wish: Wish, found: &Arc<LogHits>) {
        if found_bytes(found) > FOUND_BYTES_MAX {
            return;
        }
        let mut kept = lock(&self.0);
        kept.push_back((wish, Arc::clone(found)));
        let mut bytes: usize = kept.iter().map(|(_, found)| found_bytes(found)).sum();
        while kept.len() > FOUND_KEPT || bytes > FOUND_BYTES_KEPT {
            let Some((_, gone)) = kept.pop_front() else { break };
            bytes -= found_bytes(&gone);
        }
    }
}

/// What a search has found so far.
struct Finding {
    hits: LogHits,
    limit: usize,
}

impl Finding {
    fn new(wish: &Wish, lines: u64) -> Self {
        let parts = |parts: u32| HitSpread { lines, parts: vec![0; parts as usize], ..HitSpread::default() };
        let hits = LogHits { spread: wish.parts.map(parts), ..LogHits::default() };
        Self { hits, limit: wish.limit }
    }

    fn is_full(&self) -> bool {
        self.hits.hits.len() >= self.limit
    }

    fn add(&mut self, result: &SearchResult) {
        for found in &result.hits {
            if !self.is_full() {
                self.hits.hits.push(hit(found));
                if self.is_full() {
                    self.hits.next = Some((found.number + 1).to_string());
                }
            }
            if let Some(spread) = &mut self.hits.spread {
                spread.hits += 1;
                let parts = spread.parts.len() as u64;
                let part = found.number.saturating_mul(parts) / spread.lines.max(1);
                spread.parts[usize::try_from(part.min(parts - 1)).unwrap_or(0)] += 1;
            }
        }
        self.hits.gaps.extend(result.gaps.iter().map(gap));
    }

    /// The search ended before this line.
    fn end(&mut self, line: u64) {
        if let Some(spread) = &mut self.hits.spread {
            spread.searched = line.min(spread.lines);
        }
    }
}

/// The most hits that are looked at together.
const HITS_AT_ONCE: usize = 10_000;

/// Searches piece by piece. No thread is held longer than a piece takes, others get theirs in between, and a client that
/// goes away ends the search with the piece at hand, since nobody asks for the next.
async fn searched(
    app: &Arc<App>,
    reader: LogReader,
    wish: &Wish,
    regex: Arc<regex::bytes::Regex>,
    deadline: Instant,
) -> Result<(LogHits, Reached), Problem> {
    let (_, _, key) = wish.place;
    let lines = reader.stream(key).map_or(0, |stream| stream.lines);
    let mut finding = Finding::new(wish, lines);
    let reader = Arc::new(reader);
    let (mut from, mut bytes_left) = (wish.from, app.search.bytes);
    loop {
        let piece = bytes_left.min(app.search.piece_bytes);
        let hits = match wish.parts {
            None => wish.limit - finding.hits.hits.len(),
            Some(_) => HITS_AT_ONCE,
        };
        let budget = SearchBudget { hits, bytes: piece, deadline: Some(deadline) };
        let (reader, regex) = (Arc::clone(&reader), Arc::clone(&regex));
        let search = move |_: &App| reader.search_within(key, &regex, from, budget).map_err(problem::log);
        let result = app.blocking(search).await?;
        finding.add(&result);
        bytes_left = bytes_left.saturating_sub(piece);
        from = match result.end {
            SearchEnd::Complete => {
                finding.end(lines);
                return Ok((finding.hits, Reached::Wanted));
            }
            SearchEnd::Limit { next } | SearchEnd::Budget { next } => next,
        };
        let is_enough = finding.is_full() && wish.parts.is_none();
        let is_over = bytes_left == 0 || Instant::now() >= deadline;
        if is_enough || is_over {
            finding.end(from);
            finding.hits.next.get_or_insert_with(|| from.to_string());
            return Ok((finding.hits, if is_enough { Reached::Wanted } else { Reached::Bounds }));
        }
    }
}

fn hit(hit: &store::log::Hit) -> LogHit {
    LogHit {
        number: hit.number,
        stream: stream(hit.stream),
        time: time(hit.time_us),
        text: String::from_utf8_lossy(&hit.bytes).into_owned(),
    }
}
