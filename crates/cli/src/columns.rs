//! Dense aligned text: cells with a style, columns as wide as their widest cell, and the marks of outcomes.
//! Widths are counted in cells of a terminal: a CJK letter or an emoji takes two, a combining mark none.

use std::io::IsTerminal;

use graph::{Failure, Outcome, Verdict};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::args::Colour;
use crate::words;

/// The widest a column gets but the last; a longer cell is cut.
pub const COLUMN_CELLS_MAX: usize = 60;

/// Whether styles become colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Text only.
    Plain,
    /// With the terminal's colours.
    Coloured,
}

/// What a text means to the eye.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Nothing special.
    #[default]
    Normal,
    /// It went well.
    Good,
    /// It went wrong.
    Bad,
    /// It deserves a look.
    Warning,
    /// It asks for something.
    Ask,
    /// It matters less.
    Dim,
    /// It matters more.
    Strong,
}

impl Paint {
    /// The paint for what goes to `stream`.
    pub fn of(choice: Colour, stream: &impl IsTerminal) -> Self {
        if crate::output::coloured(choice, stream) { Self::Coloured } else { Self::Plain }
    }

    /// `text` in `style`.
    pub fn text(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Normal => return text.to_owned(),
            Style::Good => "32",
            Style::Bad => "31",
            Style::Warning => "33",
            Style::Ask => "36",
            Style::Dim => "2",
            Style::Strong => "1",
        };
        match self {
            Self::Coloured if !text.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

/// Where a cell's text stands in its column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Side {
    #[default]
    Left,
    Right,
}

/// One field of a row.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    style: Style,
    side: Side,
}

impl Cell {
    /// A text at the left; control characters are dropped.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self { text: one_line(text.as_ref()), ..Self::default() }
    }

    /// A text at the right, such as a number.
    pub fn right(text: impl AsRef<str>) -> Self {
        Self { side: Side::Right, ..Self::new(text) }
    }

    /// The cell in `style`.
    pub fn style(mut self, style: Style) -> Self {
        self.style = style;
        self
    }
}

/// Rows of cells. Rows may have different numbers of cells.
#[derive(Debug, Default)]
pub struct Columns {
    rows: Vec<Vec<Cell>>,
}

impl Columns {
    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Adds a row of dim titles.
    pub fn titles<'a>(&mut self, titles: impl IntoIterator<Item = &'a str>) {
        self.row(titles.into_iter().map(|title| match title.strip_prefix('>') {
            Some(title) => Cell::right(title).style(Style::Dim),
            None => Cell::new(title).style(Style::Dim),
        }));
    }

    /// The rows as text: two spaces between columns, `indent` spaces before, no spaces at ends of lines. A column in
    /// which all cells are empty takes no room.
    pub fn text(&self, paint: Paint, indent: usize) -> String {
        let n_columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; n_columns];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cells(&cell.text).min(COLUMN_CELLS_MAX).max(*width);
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = " ".repeat(indent);
            let mut spaces_due = 0;
            for (index, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                if width == 0 {
                    continue;
                }
                let is_last = index + 1 == n_columns;
                let content = if is_last { cell.text.clone() } else { cut(&cell.text, width) };
                let pad = width.saturating_sub(cells(&content));
                if cell.side == Side::Right {
                    spaces_due += pad;
                }
                if !content.is_empty() {
                    line.push_str(&" ".repeat(spaces_due));
                    spaces_due = 0;
                    line.push_str(&paint.text(cell.style, &content));
                } else if cell.side == Side::Right {
                    spaces_due -= pad;
                }
                spaces_due += 2 + if cell.side == Side::Left || content.is_empty() { pad } else { 0 };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// How many cells of a terminal `text` takes. Colours count as their characters: see [`cut_coloured`].
pub fn cells(text: &str) -> usize {
    // Most texts are ASCII, of one cell each.
    if text.is_ascii() { text.len() } else { text.width() }
}

/// `text` in at most `cells_max` cells, the last one `…` if some were cut.
pub fn cut(text: &str, cells_max: usize) -> String {
    if cells(text) <= cells_max {
        return text.to_owned();
    }
    format!("{}…", &text[..fitting(text, cells_max.saturating_sub(1))])
}

/// `text` in at most `cells_max` cells, with a `…` in place of what was cut: two thirds of what stays are its end.
pub fn cut_middle(text: &str, cells_max: usize) -> String {
    if cells(text) <= cells_max {
        return text.to_owned();
    }
    let room = cells_max.saturating_sub(1);
    let head = &text[..fitting(text, room / 3)];
    let (mut room, mut tail) = (room - cells(head), "");
    for (at, letter) in text.char_indices().rev() {
        let Some(left) = room.checked_sub(letter.width().unwrap_or(0)) else { break };
        (room, tail) = (left, &text[at..]);
    }
    format!("{head}…{tail}")
}

/// How many bytes of `text` fit into `cells_max` cells, without colours.
fn fitting(text: &str, cells_max: usize) -> usize {
    let mut taken = 0;
    for (at, letter) in text.char_indices() {
        taken += letter.width().unwrap_or(0);
        if taken > cells_max {
            return at;
        }
    }
    text.len()
}

/// `text` with colours (`ESC [ … m`, nothing else of a terminal's language) in at most `cells_max` cells, the last one
/// `…` if some were cut. A colour that is on stays on.
pub fn cut_coloured(text: &str, cells_max: usize) -> String {
    if cells(&bare(text)) <= cells_max {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut room = cells_max.saturating_sub(1);
    let mut rest = text;
    loop {
        let (plain, colour) = match rest.split_once("\u{1b}[") {
            Some((plain, after)) => (plain, after.split_once('m')),
            None => (rest, None),
        };
        let fits = fitting(plain, room);
        shown.push_str(&plain[..fits]);
        let Some((codes, after)) = colour.filter(|_| fits == plain.len()) else { break };
        room -= cells(plain).min(room);
        shown.push_str(&format!("\u{1b}[{codes}m"));
        rest = after;
    }
    shown.push('…');
    shown
}

/// `text` and as many spaces as make it `cells_min` cells wide.
pub fn padded(text: &str, cells_min: usize) -> String {
    format!("{text}{}", " ".repeat(cells_min.saturating_sub(cells(text))))
}

/// The first line of `text` that is not blank, without control characters and colours.
pub fn one_line(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    bare(line)
}

/// `text` without control characters and colours; tabs become spaces.
pub fn bare(text: &str) -> String {
    colourless(text).replace('\t', " ")
}

/// `text` without control characters and colours; tabs stay.
pub fn colourless(text: &str) -> String {
    let clean = words::harmless(text);
    let mut bare = String::with_capacity(clean.len());
    let mut rest = clean.as_ref();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        bare.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    bare.push_str(rest);
    bare
}

/// The mark of an outcome.
pub fn outcome_mark(outcome: &Outcome) -> Cell {
    match outcome {
        Outcome::Passed { .. } => Cell::new("✓").style(Style::Good),
        Outcome::Failed(Failure::Canceled { .. }) => Cell::new("■").style(Style::Warning),
        Outcome::Failed(_) => Cell::new("✗").style(Style::Bad),
        Outcome::Skipped(_) => Cell::new("-").style(Style::Dim),
    }
}

/// The mark and the word of a verdict.
pub fn verdict_mark(verdict: &Verdict) -> Cell {
    let (mark, style) = match verdict {
        Verdict::Running => ("●", Style::Ask),
        Verdict::Passed { .. } => ("✓", Style::Good),
        Verdict::Failed { .. } => ("✗", Style::Bad),
        Verdict::Canceled { .. } => ("■", Style::Warning),
        Verdict::Diverged { .. } => ("≠", Style::Bad),
    };
    Cell::new(format!("{mark} {}", verdict.word())).style(style)
}

/// What took longer than the usual time so many times over waited for something, a person mostly: no comparison says anything.
const TIMES_MAX: u64 = 10;

/// `+35 %▲` or `-20 %▼` if `took_ms` is unlike `usual_ms`: by a fifth and by a tenth of a second at least.
pub fn against_usual(took_ms: u64, usual_ms: u64) -> Option<Cell> {
    let difference = took_ms.abs_diff(usual_ms);
    let is_strange = took_ms > usual_ms.saturating_mul(TIMES_MAX);
    if difference < 100 || difference.saturating_mul(5) < usual_ms || usual_ms == 0 || is_strange {
        return None;
    }
    let percent = difference.saturating_mul(100) / usual_ms;
    Some(match took_ms > usual_ms {
        true => Cell::right(format!("▲ +{percent} %")).style(Style::Warning),
        false => Cell::right(format!("▼ -{percent} %")).style(Style::Good),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut columns = Columns::default();
        columns.titles([">N", "name", "empty", "rest"]);
        columns.row([Cell::right("1"), Cell::new("ä"), Cell::default(), Cell::new("x")]);
        columns.row([Cell::right("1000"), Cell::new("long\u{1b}[2J one\nsecond"), Cell::default(), Cell::new("")]);
        columns.row([Cell::right(""), Cell::new("b").style(Style::Bad)]);
        let expected = "   N  name      empty  rest\n   1  ä                x\n1000  long one\n      b\n";
        assert_eq!(columns.text(Paint::Plain, 0), expected);
        assert!(columns.text(Paint::Coloured, 2).ends_with("\n        \u{1b}[31mb\u{1b}[0m\n"));
    }

    #[test]
    fn wide_letters_take_two_cells_and_marks_none() {
        let mut columns = Columns::default();
        columns.row([Cell::new("測試"), Cell::new("x")]);
        columns.row([Cell::new("e\u{301}t"), Cell::new("x")]);
        columns.row([Cell::new("🚀"), Cell::right("1")]);
        columns.row([Cell::new("abcd"), Cell::right("22")]);
        assert_eq!(columns.text(Paint::Plain, 0), "測試  x\ne\u{301}t    x\n🚀     1\nabcd  22\n");
    }

    #[test]
    fn texts_are_cut_at_cells() {
        let check = |text: &str, cells_max: usize, expected: &str| {
            assert_eq!(cut(text, cells_max), expected);
            assert!(cells(expected) <= cells_max.max(1));
        };
        check("測試測", 6, "測試測");
        check("測試測", 5, "測試…");
        check("測試測", 4, "測…");
        check("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}…");
        check("ab", 0, "…");
        assert_eq!(cut_middle("abcdefgh", 8), "abcdefgh");
        assert_eq!(cut_middle("abcdefgh", 7), "ab…efgh");
        assert_eq!(cut_middle("測試測試", 6), "…測試");
        assert_eq!(cut_middle("ab", 0), "…");
        assert_eq!(padded("測", 4), "測  ");
        assert_eq!(cut_coloured("\u{1b}[31mab\u{1b}[0mcd", 4), "\u{1b}[31mab\u{1b}[0mcd");
        assert_eq!(cut_coloured("\u{1b}[31mab\u{1b}[0mcd", 3), "\u{1b}[31mab\u{1b}[0m…");
        assert_eq!(cut_coloured("\u{1b}[31mabcd\u{1b}[0m", 3), "\u{1b}[31mab…");
    }

    #[test]
    fn only_large_differences_from_the_usual_are_told() {
        let check = |took, usual, expected: Option<&str>| {
            assert_eq!(against_usual(took, usual).map(|cell| cell.text).as_deref(), expected, "{took} {usual}");
        };
        check(1200, 1000, Some("▲ +20 %"));
        check(1199, 1000, None);
        check(600, 1000, Some("▼ -40 %"));
        check(99, 1, None);
        check(500, 0, None);
        check(10_000, 1000, Some("▲ +900 %"));
        check(10_001, 1000, None);
    }
}
