//! Finding lines by a regular expression, with memory for one frame and one line.

use std::ops::Range;
use std::time::Instant;

use regex::bytes::{Regex, RegexBuilder};

use super::{ESCAPE, Escapes, Gap, Item, LineEnd, LineStart, LogError, LogReader, Stream, StreamKey};

/// A line is searched in whole up to this size; of a longer one, its beginning.
pub const SEARCH_LINE_BYTES_MAX: usize = 1024 * 1024;

/// A hit shows at most this many bytes of its line.
pub const HIT_BYTES_MAX: usize = 4096;

/// A line that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The number of the line's first row.
    pub number: u64,
    /// When that row came.
    pub time_us: u64,
    /// Who wrote it.
    pub stream: Stream,
    /// The line without a terminal's language, or [`HIT_BYTES_MAX`] of it around the match.
    pub bytes: Vec<u8>,
    /// The first match, within `bytes`.
    pub matched: Range<usize>,
}

/// Where a search stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchEnd {
    /// At the end of what there is.
    Complete,
    /// At the limit. Go on from this row.
    Limit {
        /// The number of the row after the last hit.
        next: u64,
    },
    /// The budget was used up. Go on from this row.
    Budget {
        /// The number of the row after the last one searched.
        next: u64,
    },
}

/// What one call of a search may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchBudget {
    /// The most hits.
    pub hits: usize,
    /// About how many bytes may be searched. A line in pieces is searched to its end, up to [`BUDGET_OVERRUN`] times
    /// this; of one that is longer still the rest is passed over.
    pub bytes: u64,
    /// When to stop, checked every few hundred rows.
    pub deadline: Option<Instant>,
}

/// See [`SearchBudget::bytes`].
pub const BUDGET_OVERRUN: u64 = 4;

/// An expression for many lines at once may take so much memory; a larger one is tried line by line.
const OVER_LINES_BYTES_MAX: usize = 4 << 20;

/// How often the clock is read, in rows.
const ROWS_BETWEEN_LOOKS: u64 = 256;

/// What is left of a budget.
struct Spent {
    budget: SearchBudget,
    bytes: u64,
    rows: u64,
    is_late: bool,
}

impl Spent {
    /// How many bytes may still be searched.
    fn left(&self) -> u64 {
        self.budget.bytes.saturating_sub(self.bytes)
    }

    /// Counts rows that were passed over together. Says whether to stop after them.
    fn passes(&mut self, length: usize, is_within_line: bool) -> bool {
        // The next row counted looks at the clock as well.
        self.rows |= ROWS_BETWEEN_LOOKS - 1;
        self.is_late |= self.budget.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        self.stops(length.saturating_sub(1), is_within_line)
    }

    /// Counts a row. Says whether to stop after it.
    fn stops(&mut self, length: usize, is_within_line: bool) -> bool {
        self.bytes = self.bytes.saturating_add(length as u64 + 1);
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS_BETWEEN_LOOKS) {
            self.is_late |= self.budget.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        }
        let bytes_max = self.budget.bytes.saturating_mul(if is_within_line { BUDGET_OVERRUN } else { 1 });
        self.bytes >= bytes_max || (self.is_late && !is_within_line)
    }
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct SearchResult {
    /// In the order of the lines.
    pub hits: Vec<Hit>,
    /// Output that could not be searched.
    pub gaps: Vec<Gap>,
    /// Where it stopped.
    pub end: SearchEnd,
}

/// The beginning of a line of one stream, whose end has not come yet.
#[derive(Default)]
struct Unfinished {
    first: Option<(u64, u64)>,
    bytes: Vec<u8>,
}

impl LogReader {
    /// The first `limit` lines from row `from` on that match. A line that stands in several pieces is searched as one;
    /// without its line feed, so `$` is its end. The expression is taken by its text: options of its builder do not count.
    ///
    /// # Errors
    /// What the file system says.
    pub fn search(&self, key: StreamKey, regex: &Regex, from: u64, limit: usize) -> Result<SearchResult, LogError> {
        self.search_within(key, regex, from, SearchBudget { hits: limit, bytes: u64::MAX, deadline: None })
    }

    /// As [`LogReader::search`], at bounded cost: for a server, that searches a log piece by piece.
    ///
    /// # Errors
    /// What the file system says.
    pub fn search_within(
        &self,
        key: StreamKey,
        regex: &Regex,
        from: u64,
        budget: SearchBudget,
    ) -> Result<SearchResult, LogError> {
        let limit = budget.hits;
        let mut spent = Spent { budget, bytes: 0, rows: 0, is_late: false };
        let mut result = SearchResult { hits: Vec::new(), gaps: Vec::new(), end: SearchEnd::Complete };
        let mut unfinished: [Unfinished; 3] = Default::default();
        let over_lines = over_lines(regex.as_str());
        let mut lines = self.lines(key, from..u64::MAX);
        loop {
            if let Some(over_lines) = &over_lines
                && let Some((passed, next)) = lines.pass_over(spent.left(), |rows| Some(over_lines.find(rows)?.start()))
                && passed > 0
            {
                let is_within_line = unfinished.iter().any(|waiting| waiting.first.is_some());
                if spent.passes(passed, is_within_line) {
                    result.end = SearchEnd::Budget { next };
                    break;
                }
            }
            let Some(item) = lines.next() else { break };
            let line = match item? {
                Item::Line(line) => line,
                Item::Gap(gap) => {
                    result.gaps.push(gap);
                    continue;
                }
            };
            let waiting = &mut unfinished[line.stream.index()];
            let hit = if line.start == LineStart::Fresh && line.end == LineEnd::LineFeed {
                hit(regex, line.number, line.time_us, line.stream, &line.bytes)
            } else {
                let (number, time_us) = *waiting.first.get_or_insert((line.number, line.time_us));
                let room = SEARCH_LINE_BYTES_MAX.saturating_sub(waiting.bytes.len());
                waiting.bytes.extend_from_slice(&line.bytes[..line.bytes.len().min(room)]);
                if line.end == LineEnd::Open {
                    if spent.stops(line.bytes.len(), true) {
                        result.end = SearchEnd::Budget { next: line.number.saturating_add(1) };
                        break;
                    }
                    continue;
                }
                let hit = hit(regex, number, time_us, line.stream, &waiting.bytes);
                waiting.first = None;
                waiting.bytes.clear();
                hit
            };
            result.hits.extend(hit);
            if result.hits.len() >= limit {
                result.end = SearchEnd::Limit { next: line.number.saturating_add(1) };
                return Ok(result);
            }
            let is_within_line = unfinished.iter().any(|waiting| waiting.first.is_some());
            if spent.stops(line.bytes.len(), is_within_line) {
                result.end = SearchEnd::Budget { next: line.number.saturating_add(1) };
                break;
            }
        }
        for (stream, waiting) in Stream::ALL.into_iter().zip(unfinished) {
            let Some((number, time_us)) = waiting.first else { continue };
            if result.hits.len() < limit {
                result.hits.extend(hit(regex, number, time_us, stream, &waiting.bytes));
            }
        }
        Ok(result)
    }
}

/// The expression for many lines at once: it finds something in every text of lines in one of which `text` alone finds something.
/// `None` for one that speaks of the text's own beginning and end, or of other line ends.
fn over_lines(text: &str) -> Option<Regex> {
    if text.contains("\\A") || text.contains("\\z") {
        return None;
    }
    let flags = text.split("(?").skip(1).map(|rest| rest.split([')', ':']).next().unwrap_or_default());
    for flags in flags {
        let (on, off) = flags.split_once('-').unwrap_or((flags, ""));
        if on.contains('R') || off.contains('m') {
            return None;
        }
    }
    RegexBuilder::new(text).multi_line(true).size_limit(OVER_LINES_BYTES_MAX).build().ok()
}

/// Colours do not count: a line is searched, and shown, as it reads.
fn hit(regex: &Regex, number: u64, time_us: u64, stream: Stream, line: &[u8]) -> Option<Hit> {
    let mut clean = Vec::new();
    let line = match line.contains(&ESCAPE) {
        true => {
            Escapes::default().strip(line, &mut clean);
            &clean
        }
        false => line,
    };
    let found = regex.find(line)?;
    let start = if found.end() <= HIT_BYTES_MAX { 0 } else { found.start() };
    let end = line.len().min(start + HIT_BYTES_MAX);
    let matched = found.start() - start..found.end().min(end) - start;
    Some(Hit { number, time_us, stream, bytes: line[start..end].to_vec(), matched })
}
