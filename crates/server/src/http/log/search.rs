//! Searches of logs, within bounds, and what they found in logs that are whole.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::log::{HITS_DEFAULT, HITS_MAX, HitSpread, LogHit, LogHits, PARTS_MAX, REGEX_BYTES_MAX, WITHIN_MS_MAX};
use api::problem::{Problem, ProblemKind};
use graph::{AttemptNumber, BuildId};
use store::log::{LogReader, SearchBudget, SearchEnd, SearchResult, StreamKey, StreamState};

use super::super::answer::{self, Answered};
use super::super::call::Call;
use super::super::{App, problem};
use super::{bounded, gap, number, open, stream, time};
use crate::lock::lock;

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
pub(super) async fn found(
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

/// What a search is to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) place: (BuildId, AttemptNumber, StreamKey),
    pub(super) regex: String,
    pub(super) from: u64,
    pub(super) limit: usize,
    /// How many parts its spread is to have.
    pub(super) parts: Option<u32>,
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
