//! Logs of steps: in short, in lines, in bytes, followed, searched. One piece is in memory at a time, however long a log
//! is, and a reader who is slow holds no thread.

mod follow;
mod search;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use api::log::{
    LINES_MAX, LogFormat, LogGap, LogGapCause, LogGroups, LogItem, LogLine, LogState, LogStream, LogSummary, StepLog,
};
use api::page::Page;
use api::problem::{Problem, ProblemKind};
use api::routes::{BYTES, NDJSON, TEXT};
use axum::body::Body;
use axum::http::{Response, StatusCode};
use graph::{AttemptNumber, BuildId, JobName, Timestamp};
use store::log::{
    Gap, GapCause, Item, LineEnd, LogReader, RawPart, Selection, Stream, StreamKey, StreamState, StreamSummary,
};
use store::rows::AttemptRow;
use tokio::sync::OwnedSemaphorePermit;

use self::follow::followed;
pub use self::search::{FoundBefore, SearchBounds, search};
use self::search::{Wish, found};
use super::admission::target_of;
use super::answer::{self, Answered, More, PIECE_BYTES, Wanted, by_pieces, range, ranged, with};
use super::call::{Call, invalid};
use super::guarded::pass;
use super::likeness::{Earlier, Likeness};
use super::{App, build, groups, job, problem};
use crate::access::Verb;
use crate::records::LogPhase;
use crate::server::Server;

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
        (Some(lines), _) if lines > 0 => format!("{lines} lines are lost here"),
        (_, Some(bytes)) => format!("{bytes} bytes are lost here"),
        (_, None) => "the end of this log may be lost".to_owned(),
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
        let (attempt, _) = app.blocking(move |app| open_step(app, build, key)).await?;
        let place = Place { build, attempt, key };
        return followed(&app, place, (part, format), permit, pass).await;
    }
    let (_, reader) = app.blocking(move |app| open_step(app, build, key)).await?;
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

/// An attempt with its log, if it has such a step, or may have it still. Blocks.
fn open_step(app: &App, build: BuildId, key: StreamKey) -> Result<(AttemptRow, Option<LogReader>), Problem> {
    let (attempt, reader, _) = open(app, build, AttemptNumber(key.attempt))?;
    let has_printed = reader.as_ref().is_some_and(|reader| reader.stream(key).is_some());
    if attempt.ended.is_some() && !has_printed {
        let reports = app.server.store.reports(build, Some(&attempt.job)).map_err(problem::store)?;
        let report = reports.into_iter().find(|(number, _)| *number == attempt.attempt);
        let n_ran = report.map_or(0, |(_, report)| report.steps.len());
        let spec = app.server.store.graph(build).map_err(problem::store)?;
        let n_steps = spec.and_then(|graph| graph.jobs.get(&attempt.job).map(|job| job.steps.len())).unwrap_or(0);
        if usize::from(key.step) >= n_ran.max(n_steps) {
            return Err(problem::not_found(format_args!("step {} in attempt {}", key.step, key.attempt)));
        }
    }
    Ok((attempt, reader))
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
    // Of the last lines there may be more than are wanted.
    let mut left = part.count;
    let body = by_pieces(move |piece| {
        let _permit = &permit;
        while piece.len() < PIECE_BYTES * 4 {
            match lines.next().transpose().map_err(io::Error::other)? {
                Some(Item::Line(_)) if left == 0 => return Ok(More::No),
                Some(item) => {
                    left -= u64::from(matches!(item, Item::Line(_)));
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
