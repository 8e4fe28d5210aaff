//! Several steps' output as one sequence: by time, or one step after the other. At most one frame of each step that
//! printed at the same time is in memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use store::log::{Item, StreamKey};

use crate::archive::{Items, Log, Search};
use crate::commands::Stop;

/// What is wanted of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whose output.
    pub key: StreamKey,
    /// Which rows.
    pub rows: Range<u64>,
    /// Pieces of the first row that have been seen.
    pub pieces_seen: u64,
}

/// In which order steps are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Line by line, as they came.
    ByTime,
    /// As the parts stand.
    ByPart,
}

/// The rows of several parts.
pub struct Merge<'r> {
    reader: &'r dyn Log,
    order: Order,
    /// What of the rows is looked for, if that is known beforehand.
    search: Option<&'r Search>,
    parts: Vec<Part>,
    open: Vec<Option<Box<Open>>>,
    /// Time (or nothing) and place of the parts that have more, the next first.
    next: BinaryHeap<Reverse<(u64, usize)>>,
}

struct Open {
    lines: Items,
    head: Item,
    time_us: u64,
}

impl<'r> Merge<'r> {
    /// The rows of `parts`, or at least those of them that a search finds.
    pub fn new(reader: &'r dyn Log, parts: Vec<Part>, order: Order, search: Option<&'r Search>) -> Self {
        let first_time = |part: &Part| reader.stream(part.key).map_or(u64::MAX, |stream| stream.first_time_us);
        let time = |part: &Part| if order == Order::ByTime { first_time(part) } else { 0 };
        let next = parts.iter().enumerate().map(|(index, part)| Reverse((time(part), index))).collect();
        let open = parts.iter().map(|_| None).collect();
        Self { reader, order, search, parts, open, next }
    }

    /// Opens a part, which is a frame to read, only when its turn may have come.
    fn begin(&mut self, index: usize, time_us: u64) -> Result<(), Stop> {
        let part = &self.parts[index];
        let found = self.search.and_then(|search| self.reader.found(part.key, part.rows.clone(), search));
        let mut lines = found.unwrap_or_else(|| self.reader.lines(part.key, part.rows.clone()));
        let mut to_skip = part.pieces_seen;
        while let Some(item) = lines.next() {
            match item? {
                Item::Line(line) if to_skip > 0 && line.number == part.rows.start => to_skip -= 1,
                // Told with the first piece.
                Item::Gap(gap) if to_skip > 0 && gap.lines == Some(0) && gap.first_line == part.rows.start => {}
                head => {
                    self.put(index, lines, head, time_us);
                    break;
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, index: usize, lines: Items, head: Item, time_before: u64) {
        let time_us = match &head {
            Item::Line(line) => line.time_us,
            Item::Gap(_) => time_before,
        };
        self.open[index] = Some(Box::new(Open { lines, head, time_us }));
        self.next.push(Reverse((if self.order == Order::ByTime { time_us } else { 0 }, index)));
    }

    fn step(&mut self) -> Result<Option<(StreamKey, Item)>, Stop> {
        while let Some(&Reverse((time_us, index))) = self.next.peek() {
            let Some(open) = &mut self.open[index] else {
                self.next.pop();
                self.begin(index, time_us)?;
                continue;
            };
            let key = self.parts[index].key;
            let Some(item) = open.lines.next() else {
                self.next.pop();
                let head = self.open[index].take().map(|open| open.head);
                return Ok(head.map(|head| (key, head)));
            };
            let item = item?;
            if let Item::Line(line) = &item {
                open.time_us = line.time_us;
            }
            let head = std::mem::replace(&mut open.head, item);
            // Most often the same part goes on, and nothing moves.
            if self.order == Order::ByTime
                && open.time_us != time_us
                && let Some(mut next) = self.next.peek_mut()
            {
                *next = Reverse((open.time_us, index));
            }
            return Ok(Some((key, head)));
        }
        Ok(None)
    }
}

impl Iterator for Merge<'_> {
    type Item = Result<(StreamKey, Item), Stop>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
