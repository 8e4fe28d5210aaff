//! Rows on which lines of a log are written, as a terminal writes them. Rows have numbers, so that a line can go back to those above it.

use std::collections::BTreeMap;

use anstyle_parse::{DefaultCharAccumulator, Params, Parser, Perform};
use maud::{Markup, html};

use super::picture::Pictures;
use super::{LETTERS_MAX, Style, cut_mark, extended, linked, low};

/// How many rows above the lowest one the cursor reaches, as on a terminal of this height.
pub(super) const ROWS_MAX: i64 = 200;
/// The most letters that are kept of all rows together. Whoever writes more is not followed.
const CELLS_MAX: usize = 500_000;

/// What stands where a picture is: a sign for an object that is no letter.
const PICTURE: char = '\u{fffc}';

/// Whether the cursor leaves the row of the line that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moves {
    /// It does not: every line stands alone.
    WithinLines,
    /// It does (ECMA-48 CUU, CUD, CNL, CPL, and ED below it).
    BetweenLines,
}

/// One row.
#[derive(Default)]
pub(super) struct Row {
    cells: Vec<(char, Style)>,
    is_cut: bool,
    /// The line that wrote on it last.
    writer: Option<usize>,
    /// Letters of several lines stand on it.
    pub is_mixed: bool,
    /// The line that erased all that stood on it.
    wiped_by: Option<usize>,
}

impl Row {
    /// Whether something that another line wrote or erased is to be seen on it.
    pub fn is_foreign(&self, line: usize) -> bool {
        self.is_mixed || self.writer != Some(line) || self.wiped_by.is_some_and(|by| by != line)
    }

    /// The line that has left nothing of this one to be seen, other than itself.
    pub fn wiped_by(&self, line: usize) -> Option<usize> {
        let is_blank = self.cells.iter().all(|(letter, _)| *letter == ' ');
        self.wiped_by.filter(|by| *by != line && is_blank)
    }
}

/// Rows, and where the cursor is.
pub(super) struct Screen {
    moves: Moves,
    /// All but the row of the cursor, which is apart for the sake of speed.
    rows: BTreeMap<i64, Row>,
    row: Row,
    at: i64,
    lowest: i64,
    column: usize,
    style: Style,
    links: Vec<String>,
    pictures: Pictures,
    cells: usize,
    /// Which line is written, and the row of the last letter that it printed.
    line: usize,
    printed_at: Option<i64>,
}

impl Screen {
    pub fn new(moves: Moves) -> Self {
        Self {
            moves,
            rows: BTreeMap::new(),
            row: Row::default(),
            at: 0,
            lowest: 0,
            column: 0,
            style: Style::default(),
            links: Vec::new(),
            pictures: Pictures::default(),
            cells: 0,
            line: 0,
            printed_at: None,
        }
    }

    /// Writes the next line, without its end. Colours end with the line before.
    pub fn write(&mut self, text: &str) {
        let mut parser = Parser::<DefaultCharAccumulator>::new();
        for byte in text.bytes() {
            parser.advance(self, byte);
        }
    }

    /// The row on which the line came to its end, and to the next row. Of a line that ends on a row on which it has printed nothing, which
    /// is another's, it is the row of its last letter: it has only put the cursor there for the next.
    pub fn finish_line(&mut self) -> i64 {
        let is_own = self.row.writer.is_none_or(|writer| writer == self.line);
        let home = if is_own { self.at } else { self.printed_at.unwrap_or(self.at) };
        (self.style, self.column, self.printed_at) = (Style::default(), 0, None);
        self.line += 1;
        self.go_to(self.at + 1);
        self.lowest = self.lowest.max(self.at);
        home
    }

    /// A row; `None` if the cursor was never there.
    pub fn row(&self, row: i64) -> Option<&Row> {
        if row == self.at { Some(&self.row) } else { self.rows.get(&row) }
    }

    /// Whether more was written than is kept.
    pub fn is_overfull(&self) -> bool {
        self.cells > CELLS_MAX
    }

    pub fn markup(&self, row: &Row) -> Markup {
        let mut runs: Vec<(String, &Style)> = Vec::new();
        for (letter, style) in &row.cells {
            match runs.last_mut() {
                Some((text, last)) if *last == style => text.push(*letter),
                _ => runs.push((letter.to_string(), style)),
            }
        }
        html! {
            @for (text, style) in &runs {
                @if style.picture > 0 {
                    (self.pictures.markup(style.picture))
                } @else if style.is_plain() {
                    (linked(text))
                } @else if let Some(address) = style.link.checked_sub(1).and_then(|index| self.links.get(index)) {
                    a class=(style.classes()) href=(address) rel="noreferrer noopener nofollow" { (text) }
                } @else {
                    span class=(style.classes()) { (linked(text)) }
                }
            }
            @if row.is_cut { (cut_mark()) }
        }
    }

    fn go_to(&mut self, at: i64) {
        let to = self.rows.remove(&at).unwrap_or_default();
        let from = std::mem::replace(&mut self.row, to);
        self.rows.insert(self.at, from);
        self.at = at;
    }

    /// Up by a negative number. No further than the rows that there are.
    fn move_rows(&mut self, n: i64) {
        if self.moves == Moves::BetweenLines {
            self.go_to((self.at + n).clamp(self.lowest + 1 - ROWS_MAX, self.lowest));
        }
    }

    fn put(&mut self, letter: char) {
        if self.column >= LETTERS_MAX {
            self.row.is_cut = true;
            return;
        }
        if self.is_overfull() {
            return;
        }
        let row = &mut self.row;
        if row.writer.is_some_and(|writer| writer != self.line) {
            // Who begins at the row's beginning draws all of it, whatever stood behind: so a row reads as its last line, however far back one has read.
            if self.column == 0 {
                (row.cells, row.is_cut, row.is_mixed) = (Vec::new(), false, false);
            } else {
                row.is_mixed |= !row.cells.is_empty();
            }
        }
        (row.writer, row.wiped_by) = (Some(self.line), None);
        if row.cells.len() <= self.column {
            self.cells += self.column + 1 - row.cells.len();
            row.cells.resize(self.column + 1, (' ', Style::default()));
        }
        row.cells[self.column] = (letter, self.style.clone());
        self.column += 1;
        self.printed_at = Some(self.at);
    }

    fn move_to(&mut self, column: usize) {
        self.column = column.min(LETTERS_MAX);
    }

    /// "Erase in line", ECMA-48 8.3.41.
    fn erase(&mut self, what: u16) {
        let row = &mut self.row;
        match what {
            0 => row.cells.truncate(self.column),
            1 => row.cells.iter_mut().take(self.column).for_each(|cell| *cell = (' ', Style::default())),
            _ => row.cells.clear(),
        }
        if row.cells.is_empty() {
            (row.is_mixed, row.is_cut, row.wiped_by) = (false, false, Some(self.line));
        }
    }

    /// "Erase in page" from the cursor on, ECMA-48 8.3.39. What clears all of a terminal is not heeded: a log has no page.
    fn erase_below(&mut self) {
        self.erase(0);
        if self.moves == Moves::BetweenLines {
            for (_, row) in self.rows.range_mut(self.at + 1..) {
                *row = Row { writer: row.writer, wiped_by: Some(self.line), ..Row::default() };
            }
        }
    }

    /// "Select graphic rendition", ECMA-48 8.3.117.
    fn select(&mut self, params: &Params) {
        let mut codes = params.iter().flat_map(<[u16]>::iter).copied();
        if params.is_empty() {
            self.style = Style { link: self.style.link, ..Style::default() };
        }
        while let Some(code) = codes.next() {
            let style = &mut self.style;
            match code {
                0 => *style = Style { link: style.link, ..Style::default() },
                1 => style.is_bold = true,
                2 => style.is_dim = true,
                3 => style.is_italic = true,
                4 => style.is_underlined = true,
                7 => style.is_inverse = true,
                22 => (style.is_bold, style.is_dim) = (false, false),
                23 => style.is_italic = false,
                24 => style.is_underlined = false,
                27 => style.is_inverse = false,
                30..=37 => style.foreground = low(code - 30),
                38 => style.foreground = extended(&mut codes),
                39 => style.foreground = None,
                40..=47 => style.background = low(code - 40),
                48 => style.background = extended(&mut codes),
                49 => style.background = None,
                90..=97 => style.foreground = low(code - 90 + 8),
                100..=107 => style.background = low(code - 100 + 8),
                _ => {}
            }
        }
    }
}

impl Perform for Screen {
    fn print(&mut self, letter: char) {
        self.put(letter);
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\r' => self.column = 0,
            0x08 => self.column = self.column.saturating_sub(1),
            b'\t' => {
                let stop = ((self.column / 8 + 1) * 8).min(LETTERS_MAX);
                while self.column < stop && !self.is_overfull() {
                    self.put(' ');
                }
            }
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], _: bool, action: u8) {
        if !intermediates.is_empty() {
            return;
        }
        let first = params.iter().next().and_then(|param| param.first()).copied().unwrap_or(0);
        let n = first.max(1);
        let (columns, rows) = (usize::from(n), i64::from(n));
        match action {
            b'm' => self.select(params),
            b'A' => self.move_rows(-rows),
            b'B' => self.move_rows(rows),
            b'C' => self.move_to(self.column.saturating_add(columns)),
            b'D' => self.move_to(self.column.saturating_sub(columns)),
            b'E' | b'F' => {
                self.move_rows(if action == b'E' { rows } else { -rows });
                self.column = 0;
            }
            b'G' => self.move_to(columns - 1),
            b'J' if first == 0 => self.erase_below(),
            b'K' => self.erase(first),
            _ => {}
        }
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], _: bool) {
        if let [b"8", _, address @ ..] = params {
            let address = String::from_utf8_lossy(&address.join(&b';')).into_owned();
            let is_safe = address.starts_with("https://") || address.starts_with("http://");
            if is_safe {
                self.links.push(address);
            }
            self.style.link = if is_safe { self.links.len() } else { 0 };
        } else if let Some(picture) = self.pictures.take(params) {
            let style = std::mem::replace(&mut self.style, Style { picture, ..Style::default() });
            self.put(PICTURE);
            self.style = style;
        }
    }
}
