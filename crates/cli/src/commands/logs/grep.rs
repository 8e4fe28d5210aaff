//! Lines that match, with the lines around them. Colours do not count: a line is searched as it reads. Of each job only as many lines as the context asks for are kept.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};

use regex::bytes::Regex;
use store::log::{ESCAPE, Escapes, LineEnd, LineStart, SEARCH_LINE_BYTES_MAX, Stream, StreamKey};

use super::page::{Page, Row};

/// The most lines of context before a match.
pub const CONTEXT_LINES_MAX: u64 = 10_000;
/// The most lines that are kept back for `--tail`.
pub const TAIL_LINES_MAX: u64 = 1_000_000;

/// Whether the line as it reads matches.
fn is_match(regex: &Regex, line: &[u8]) -> bool {
    match line.contains(&ESCAPE) {
        false => regex.is_match(line),
        true => {
            let mut clean = Vec::with_capacity(line.len());
            Escapes::default().strip(line, &mut clean);
            regex.is_match(&clean)
        }
    }
}

/// A whole line.
#[derive(Clone, Debug)]
struct Whole {
    /// Its place among the lines of its attempt, from 0, whichever step they are of.
    place: u64,
    name: String,
    key: StreamKey,
    number: u64,
    time_us: u64,
    stream: Stream,
    bytes: Vec<u8>,
}

/// One attempt while it is searched.
#[derive(Default)]
struct State {
    lines: u64,
    /// The last row seen, by its number in the job.
    row: u64,
    before: VecDeque<Whole>,
    after: u64,
    /// Lines whose end has not come, by stream.
    unfinished: [Option<Whole>; 3],
}

/// Searches rows and writes those that match.
pub struct Grep {
    regex: Regex,
    context: u64,
    attempts: HashMap<u32, State>,
    matches: u64,
    /// The last line written: its attempt and place.
    last: Option<(u32, u64)>,
    /// The last lines found, if only those are wanted.
    tail: Option<(usize, VecDeque<Whole>)>,
}

impl Grep {
    /// Searches for `regex`; shows `context` lines around, and only the last `tail` lines of all that.
    pub fn new(regex: Regex, context: u64, tail: Option<u64>) -> Self {
        let tail =
            tail.map(|count| (usize::try_from(count.min(TAIL_LINES_MAX)).unwrap_or(usize::MAX), VecDeque::new()));
        Self { regex, context: context.min(CONTEXT_LINES_MAX), attempts: HashMap::new(), matches: 0, last: None, tail }
    }

    /// How many lines have matched.
    pub fn matches(&self) -> u64 {
        self.matches
    }

    /// Takes a row.
    pub fn row<W: Write>(&mut self, page: &mut Page<W>, name: &str, row: &Row<'_>) -> io::Result<()> {
        let state = self.attempts.entry(row.key.attempt).or_default();
        let passed_over = row.number.saturating_sub(state.row + 1);
        if passed_over > 0 && state.row > 0 {
            // Whoever searched before saw that nothing is found there.
            state.lines += passed_over;
            state.before.clear();
            state.after = 0;
        }
        state.row = row.number;
        let waiting = &mut state.unfinished[row.stream.index()];
        let is_whole = row.start == LineStart::Fresh && row.end == LineEnd::LineFeed;
        if is_whole && self.context == 0 && waiting.is_none() && !is_match(&self.regex, row.bytes) {
            state.lines += 1;
            return Ok(());
        }
        let mut whole = match waiting.take().filter(|whole| whole.key == row.key) {
            Some(whole) => whole,
            None => {
                state.lines += 1;
                Whole {
                    place: state.lines,
                    name: name.to_owned(),
                    key: row.key,
                    number: row.number,
                    time_us: row.time_us,
                    stream: row.stream,
                    bytes: Vec::new(),
                }
            }
        };
        let room = SEARCH_LINE_BYTES_MAX.saturating_sub(whole.bytes.len());
        whole.bytes.extend_from_slice(&row.bytes[..row.bytes.len().min(room)]);
        if row.end == LineEnd::Open {
            *waiting = Some(whole);
            return Ok(());
        }
        self.line(page, whole)
    }

    fn line<W: Write>(&mut self, page: &mut Page<W>, line: Whole) -> io::Result<()> {
        let state = self.attempts.entry(line.key.attempt).or_default();
        if is_match(&self.regex, &line.bytes) {
            self.matches += 1;
            state.after = self.context;
            for before in std::mem::take(&mut state.before) {
                self.found(page, before)?;
            }
            return self.found(page, line);
        }
        if state.after > 0 {
            state.after -= 1;
            return self.found(page, line);
        }
        if self.context > 0 {
            if state.before.len() as u64 == self.context {
                state.before.pop_front();
            }
            state.before.push_back(line);
        }
        Ok(())
    }

    fn found<W: Write>(&mut self, page: &mut Page<W>, line: Whole) -> io::Result<()> {
        let Some((count, held)) = &mut self.tail else { return self.write(page, &line) };
        if *count == 0 {
            return Ok(());
        }
        if held.len() == *count {
            held.pop_front();
        }
        held.push_back(line);
        Ok(())
    }

    fn write<W: Write>(&mut self, page: &mut Page<W>, line: &Whole) -> io::Result<()> {
        let place = (line.key.attempt, line.place);
        let follows = self.last.is_none_or(|last| last.0 == place.0 && last.1 + 1 == place.1);
        if self.context > 0 && !follows {
            page.cut()?;
        }
        self.last = Some(place);
        let row = Row {
            key: line.key,
            number: line.number,
            time_us: line.time_us,
            stream: line.stream,
            bytes: &line.bytes,
            start: LineStart::Fresh,
            end: LineEnd::LineFeed,
        };
        page.row(&line.name, &row)
    }

    /// What has come so far is all that the tail is about; later lines are shown as they come.
    pub fn end_tail<W: Write>(&mut self, page: &mut Page<W>) -> io::Result<()> {
        for line in self.tail.take().map(|(_, held)| held).unwrap_or_default() {
            self.write(page, &line)?;
        }
        Ok(())
    }

    /// Nothing more comes: lines without an end are searched too.
    pub fn end<W: Write>(&mut self, page: &mut Page<W>) -> io::Result<()> {
        let mut unfinished: Vec<Whole> =
            self.attempts.values_mut().flat_map(|state| state.unfinished.iter_mut().filter_map(Option::take)).collect();
        unfinished.sort_by_key(|line| (line.time_us, line.key, line.number));
        for line in unfinished {
            self.line(page, line)?;
        }
        self.end_tail(page)
    }
}
