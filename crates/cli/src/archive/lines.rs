//! Logs that a server keeps: ranges of lines as they are read, taken up again where a connection broke, and what a search
//! there finds. One piece of each step that is read is in memory, however long its log is.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use api::client::{LogItems, LogWanted, PageWanted};
use api::log::{HITS_MAX, LogGap, LogGapCause, LogHit, LogItem, LogLine, LogState, LogStream, LogSummary};
use graph::BuildId;
use store::log::{
    Gap, GapCause, HIT_BYTES_MAX, Item, Line, LineEnd, LineStart, Stream, StreamKey, StreamState, StreamSummary,
};

use super::there::Link;
use super::{Items, Log, Search};
use crate::commands::Stop;
use crate::remote::stop;

/// How often in a row the reading of a log is taken up again without one line more, before that is told.
const TRIES_MAX: u32 = 8;
/// The wait before the first of these tries; doubled each time.
const WAIT_MS: u64 = 100;

/// The log of a build on a server, as far as it went when it was looked at.
pub struct ThereLog {
    link: Link,
    build: BuildId,
    streams: BTreeMap<StreamKey, StreamSummary>,
}

impl ThereLog {
    /// The log of a build whose steps printed this.
    pub fn new(link: Link, build: BuildId, summaries: &[LogSummary]) -> Self {
        let micros = |at: api::time::Time| u64::try_from(at.0.0).unwrap_or(0);
        let of = |attempt: u32| {
            move |step: &api::log::StepLog| {
                let key = StreamKey { attempt, step: step.step };
                let state = if step.state == LogState::Closed { StreamState::Closed } else { StreamState::Open };
                let (first_time_us, last_time_us) = (micros(step.first), micros(step.last));
                let (lines, bytes) = (step.lines, step.bytes);
                (key, StreamSummary { key, lines, bytes, first_time_us, last_time_us, state })
            }
        };
        let streams = summaries.iter().flat_map(|summary| summary.steps.iter().map(of(summary.attempt))).collect();
        Self { link, build, streams }
    }
}

impl Log for ThereLog {
    fn streams(&self) -> Box<dyn Iterator<Item = StreamSummary> + '_> {
        Box::new(self.streams.values().copied())
    }

    fn stream(&self, key: StreamKey) -> Option<StreamSummary> {
        self.streams.get(&key).copied()
    }

    fn lines(&self, key: StreamKey, rows: Range<u64>) -> Items {
        Box::new(Reading::new(self.link.clone(), self.build, key, rows))
    }

    fn tail(&self, key: StreamKey, count: u64) -> Items {
        let end = self.stream(key).map_or(0, |stream| stream.lines);
        self.lines(key, end.saturating_sub(count)..u64::MAX)
    }

    fn found(&self, key: StreamKey, rows: Range<u64>, search: &Search) -> Option<Items> {
        Some(Box::new(Finding {
            link: self.link.clone(),
            build: self.build,
            key,
            rows,
            search: search.clone(),
            cursor: Cursor::Begin,
            hits: VecDeque::new(),
            ready: VecDeque::new(),
            reading: None,
        }))
    }
}

/// Rows of one step as they come.
struct Reading {
    link: Link,
    build: BuildId,
    key: StreamKey,
    /// The row that comes next or is under way, and the one after the last.
    rows: Range<u64>,
    /// How many bytes of that row were given on.
    told: usize,
    /// How many bytes of it came on this connection.
    seen: usize,
    /// By stream: whether its line has begun and not ended.
    open: [bool; 3],
    items: Option<LogItems>,
    failures: u32,
    is_over: bool,
}

impl Reading {
    fn new(link: Link, build: BuildId, key: StreamKey, rows: Range<u64>) -> Self {
        let is_over = rows.is_empty();
        Self { link, build, key, rows, told: 0, seen: 0, open: [false; 3], items: None, failures: 0, is_over }
    }

    fn step(&mut self) -> Result<Option<Item>, Stop> {
        while !self.is_over {
            let Some(items) = &mut self.items else {
                self.connect()?;
                continue;
            };
            match self.link.wait(items.next()) {
                Ok(Some(LogItem::Line(line))) => {
                    self.failures = 0;
                    if let Some(line) = self.line(line) {
                        return Ok(Some(Item::Line(line)));
                    }
                }
                Ok(Some(LogItem::Gap(gap))) => {
                    self.failures = 0;
                    return Ok(Some(Item::Gap(self.gap(&gap))));
                }
                Ok(None) => self.is_over = true,
                Err(error) if error.is_passing() && self.failures < TRIES_MAX => self.items = None,
                Err(error) => return Err(stop(error)),
            }
        }
        Ok(None)
    }

    fn connect(&mut self) -> Result<(), Stop> {
        if self.failures > 0 {
            let wait = Duration::from_millis(WAIT_MS << self.failures);
            self.link.wait(async { tokio::time::sleep(wait).await });
        }
        self.failures += 1;
        let Range { start, end } = self.rows;
        let count = (end != u64::MAX).then(|| end - start);
        let wanted = LogWanted { from: Some(start), count, ..LogWanted::default() };
        let call = self.link.client.log_items(self.build, self.key.attempt, self.key.step, &wanted);
        match self.link.wait(call) {
            Ok(items) => (self.items, self.seen) = (Some(items), 0),
            Err(error) if error.is_passing() && self.failures < TRIES_MAX => {}
            Err(error) => return Err(stop(error)),
        }
        Ok(())
    }

    /// What of a piece of a row was not given on before.
    fn line(&mut self, line: LogLine) -> Option<Line> {
        if line.number != self.rows.start {
            (self.rows.start, self.told, self.seen) = (line.number, 0, 0);
        }
        let bytes = line.bytes.unwrap_or_else(|| line.line.into_bytes());
        let passed = self.told.saturating_sub(self.seen).min(bytes.len());
        self.seen += bytes.len();
        self.told = self.told.max(self.seen);
        if line.open && passed > 0 && passed == bytes.len() {
            return None;
        }
        let stream = stream_of(line.stream);
        let was_open = std::mem::replace(&mut self.open[stream.index()], line.open);
        if !line.open {
            (self.rows.start, self.told, self.seen) = (line.number + 1, 0, 0);
        }
        Some(Line {
            number: line.number,
            time_us: u64::try_from(line.time.0.0).unwrap_or(0),
            stream,
            bytes: bytes[passed..].to_vec().into(),
            start: if was_open { LineStart::Continued } else { LineStart::Fresh },
            end: if line.open { LineEnd::Open } else { LineEnd::LineFeed },
        })
    }

    fn gap(&mut self, gap: &LogGap) -> Gap {
        let after = gap.number + gap.lines.unwrap_or(0);
        if after > self.rows.start {
            (self.rows.start, self.told, self.seen) = (after, 0, 0);
        }
        gap_of(gap)
    }
}

impl Iterator for Reading {
    type Item = Result<Item, Stop>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.step().transpose();
        self.is_over |= matches!(item, Some(Err(_)));
        item
    }
}

fn stream_of(stream: LogStream) -> Stream {
    match stream {
        LogStream::Stdout => Stream::Stdout,
        LogStream::Stderr => Stream::Stderr,
        LogStream::Note => Stream::Note,
    }
}

fn gap_of(gap: &LogGap) -> Gap {
    let cause = match gap.cause {
        LogGapCause::Missing => GapCause::Missing,
        LogGapCause::Damaged => GapCause::Damaged,
        LogGapCause::CutShort => GapCause::CutShort,
    };
    Gap { first_line: gap.number, lines: gap.lines, bytes: gap.bytes, cause }
}

/// How far a search went.
enum Cursor {
    Begin,
    Next(String),
    End,
}

/// The rows that a search of a step found, with those around them.
struct Finding {
    link: Link,
    build: BuildId,
    key: StreamKey,
    /// The rows that were not given on yet.
    rows: Range<u64>,
    search: Search,
    cursor: Cursor,
    hits: VecDeque<LogHit>,
    ready: VecDeque<Item>,
    reading: Option<Reading>,
}

impl Finding {
    fn step(&mut self) -> Result<Option<Item>, Stop> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            if let Some(reading) = &mut self.reading {
                match reading.step()? {
                    Some(item) => return Ok(Some(item)),
                    None => self.reading = None,
                }
            } else if let Some(hit) = self.hits.pop_front() {
                self.begin(hit);
            } else if !self.search_on()? {
                return Ok(None);
            }
        }
    }

    /// The next hits; no if there are none.
    fn search_on(&mut self) -> Result<bool, Stop> {
        let cursor = match std::mem::replace(&mut self.cursor, Cursor::End) {
            Cursor::End => return Ok(false),
            Cursor::Begin => None,
            Cursor::Next(cursor) => Some(cursor),
        };
        let page = PageWanted { cursor, limit: Some(HITS_MAX) };
        let StreamKey { attempt, step } = self.key;
        let call = self.link.client.log_search(self.build, attempt, step, &self.search.regex, &page);
        let found = self.link.ask(call)?;
        self.hits.extend(found.hits);
        self.ready.extend(found.gaps.iter().map(|gap| Item::Gap(gap_of(gap))));
        self.cursor = found.next.map_or(Cursor::End, Cursor::Next);
        Ok(true)
    }

    /// Begins to give on a hit and what stands around it, and around those that follow close on.
    fn begin(&mut self, hit: LogHit) {
        let context = self.search.context;
        if !self.rows.contains(&hit.number) {
            return;
        }
        // Of a longer line a hit shows a part.
        if context == 0 && hit.text.len() < HIT_BYTES_MAX && !hit.text.contains('\u{fffd}') {
            self.rows.start = hit.number + 1;
            self.ready.push_back(Item::Line(Line {
                number: hit.number,
                time_us: u64::try_from(hit.time.0.0).unwrap_or(0),
                stream: stream_of(hit.stream),
                bytes: hit.text.into_bytes().into(),
                start: LineStart::Fresh,
                end: LineEnd::LineFeed,
            }));
            return;
        }
        let start = hit.number.saturating_sub(context).max(self.rows.start);
        let mut end = hit.number.saturating_add(context).saturating_add(1);
        while let Some(next) = self.hits.front().filter(|next| next.number.saturating_sub(context) <= end) {
            end = next.number.saturating_add(context).saturating_add(1);
            self.hits.pop_front();
        }
        let end = end.min(self.rows.end);
        self.rows.start = end;
        self.reading = Some(Reading::new(self.link.clone(), self.build, self.key, start..end));
    }
}

impl Iterator for Finding {
    type Item = Result<Item, Stop>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
