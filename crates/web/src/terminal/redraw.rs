//! Blocks of rows that are drawn again and again: bars of several layers, crates or targets, whose program moves the cursor up and writes over what it
//! wrote before.
//!
//! What is recorded stays as it is: each line has its number, and every drawing can be read. Here is only said how lines are shown: of those that drew
//! on the same row only the last, as the row stands in the end. Rows are counted from line to line, so what a line is shown as depends on it and the
//! [`AHEAD`] lines after it alone, and is the same in whatever range of the log it is read.

use std::collections::HashMap;

use maud::Markup;

use super::screen::{Moves, ROWS_MAX, Screen};

/// How many lines after one are looked at for those that draw over it. A row that is left alone for longer stays.
pub(crate) const AHEAD: usize = ROWS_MAX as usize;
/// The most bytes of lines that are followed together. Beyond, every line stands alone.
const BYTES_MAX: usize = 4 << 20;

/// How a line is shown.
#[derive(Clone, Debug)]
pub(crate) enum Drawing {
    /// By itself.
    Alone,
    /// As its row stands in the end.
    Row(Markup),
    /// Not at all, unless somebody wants to see all drawings: this later one, by its index, drew over it.
    Over(usize),
}

/// Whether the cursor goes up in a line (ECMA-48 CUU and CPL).
fn goes_up(text: &str) -> bool {
    text.split("\x1b[").skip(1).any(|behind| {
        let end = behind.bytes().find(|byte| !byte.is_ascii_digit() && *byte != b';');
        matches!(end, Some(b'A' | b'F'))
    })
}

/// How the first `shown` of lines that follow one another are shown.
pub(crate) fn drawings(lines: &[&str], shown: usize) -> Vec<Drawing> {
    let shown = shown.min(lines.len());
    let bytes: usize = lines.iter().map(|line| line.len()).sum();
    let alone = || vec![Drawing::Alone; shown];
    if bytes > BYTES_MAX || !lines.iter().any(|line| goes_up(line)) {
        return alone();
    }
    let mut screen = Screen::new(Moves::BetweenLines);
    // The row of each line, the last line of each row, and who drew over whom.
    let (mut homes, mut lasts): (Vec<i64>, HashMap<i64, usize>) = (Vec::new(), HashMap::new());
    let mut over: Vec<Option<usize>> = vec![None; lines.len()];
    let mut drawn = Vec::with_capacity(shown);
    for (index, line) in lines.iter().enumerate() {
        screen.write(line);
        if screen.is_overfull() {
            return alone();
        }
        let home = screen.finish_line();
        homes.push(home);
        if let Some(before) = lasts.insert(home, index) {
            over[before] = Some(index).filter(|_| index - before <= AHEAD);
        }
        // Each is told with what so many lines after it have done, and no more: else it would depend on where the range ends.
        if let Some(done) = index.checked_sub(AHEAD).filter(|done| *done < shown) {
            drawn.push(drawing(&screen, lines, done, (homes[done], over[done])));
        }
    }
    for done in drawn.len()..shown {
        drawn.push(drawing(&screen, lines, done, (homes[done], over[done])));
    }
    drawn
}

fn drawing(screen: &Screen, lines: &[&str], index: usize, (home, over): (i64, Option<usize>)) -> Drawing {
    if let Some(by) = over {
        return Drawing::Over(by);
    }
    let Some(row) = screen.row(home) else { return Drawing::Alone };
    match row.wiped_by(index) {
        Some(by) if !lines[index].is_empty() => Drawing::Over(by),
        _ if row.is_foreign(index) || goes_up(lines[index]) => Drawing::Row(screen.markup(row)),
        _ => Drawing::Alone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is seen of a log, each line after its number; `| ` before what a line is shown as that is drawn by its row.
    fn seen(lines: &[&str], shown: usize) -> Vec<String> {
        let told = |(number, drawing)| match drawing {
            Drawing::Alone => Some(format!("{number} {}", super::super::line(lines[number]).0)),
            Drawing::Row(row) => Some(format!("{number} | {}", row.0)),
            Drawing::Over(_) => None,
        };
        drawings(lines, shown).into_iter().enumerate().filter_map(told).collect()
    }

    #[track_caller]
    fn check(log: &str, expected: &[&str]) {
        let lines: Vec<&str> = log.split('\n').collect();
        assert_eq!(seen(&lines, lines.len()), expected, "{log:?}");
    }

    #[test]
    fn only_the_last_drawing_of_rows_is_seen() {
        // Rows that are each erased and written, as of BuildKit and of npm.
        let log = "pull\na 1\nb 1\n\x1b[2A\x1b[2Ka 2\n\x1b[2Kb 2\n\x1b[2A\x1b[2Ka 3\n\x1b[2Kb 3\ndone";
        check(log, &["0 pull", "5 | a 3", "6 b 3", "7 done"]);
        // The same by CPL, and what is drawn without an erasure before it.
        check("a 10\nb 10\n\x1b[2Fa 2\nb 3\ndone", &["2 | a 2", "3 b 3", "4 done"]);
        // The cursor goes back at the end of a drawing, not before the next.
        check("a 1\nb 1\x1b[1A\ra 2\nb 2\x1b[1A\ra 3\nb 3\nend", &["2 | a 3", "3 b 3", "4 end"]);
        check("a 1\nb 1\x1b[1A\r", &["0 a 1", "1 | b 1"]);
    }

    #[test]
    fn rows_are_drawn_from_below_within_one_line() {
        // As of Docker: rows first, then each of them by going up and down again.
        let log = "\n\n\x1b[2A\x1b[2K\ra 1\r\x1b[2B\x1b[1A\x1b[2K\rb 1\r\x1b[1B\x1b[2A\x1b[2K\ra 2\r\x1b[2B\ndone";
        check(log, &["0 | a 2", "1 | b 1", "2 | ", "3 done"]);
    }

    #[test]
    fn what_is_erased_is_gone() {
        // Rows erased from below, one less drawn again.
        check("a\nb\nc\n\x1b[2K\x1b[1A\x1b[2K\x1b[1A\x1b[2K\x1b[1A\x1b[2K\x1b[GA\nB\n", &["3 | A", "4 B", "5 | "]);
        check("a\nb\n\x1b[2A\x1b[JA\nend", &["2 | A", "3 end"]);
        // What clears a terminal takes nothing from a log.
        check("a\n\x1b[2J\x1b[1Ab\x1b[3J", &["1 | b"]);
        check("a\nb\n\x1b[2Jc", &["0 a", "1 b", "2 c"]);
    }

    #[test]
    fn what_moves_nothing_stays_as_it_is() {
        check("a\n\x1b[5Bb\n\x1b[31mc", &["0 a", "1 b", "2 <span class=\"f1\">c</span>"]);
        // Lines around a block are told by themselves.
        check(
            "\x1b[31mx\na\n\x1b[1Ab\n\x1b[32my",
            &["0 <span class=\"f1\">x</span>", "2 | b", "3 <span class=\"f2\">y</span>"],
        );
        // Above the first line that was read there is nothing to draw over.
        check("\x1b[9Aa\nb", &["0 | a", "1 b"]);
    }

    #[test]
    fn a_line_is_shown_the_same_in_every_range() {
        let mut log: Vec<String> = vec!["before".to_owned()];
        for drawing in 0..150 {
            let up = if drawing == 0 { "" } else { "\x1b[3A" };
            log.extend([
                format!("{up}\x1b[2Ka {drawing}"),
                format!("\x1b[Kb {drawing}"),
                format!("\x1b[2Kc {drawing}"),
            ]);
            if drawing == 70 {
                log.push("error: it broke".to_owned());
                log.push("and goes on".to_owned());
            }
        }
        let lines: Vec<&str> = log.iter().map(String::as_str).collect();
        let number = |told: &String| told.split(' ').next().and_then(|number| number.parse::<usize>().ok());
        let whole = seen(&lines, lines.len());
        for from in [0, 1, 2, 3, 100, 200, 215, 300, 449] {
            let shown = 150.min(lines.len() - from);
            let part = &lines[from..lines.len().min(from + shown + AHEAD)];
            let told: Vec<String> = seen(part, shown)
                .into_iter()
                .map(|it| {
                    let (number, text) = it.split_once(' ').expect("a number");
                    format!("{} {text}", number.parse::<usize>().expect("a number") + from)
                })
                .collect();
            let expected: Vec<&String> =
                whole.iter().filter(|it| number(it).is_some_and(|at| (from..from + shown).contains(&at))).collect();
            assert_eq!(told.iter().collect::<Vec<_>>(), expected, "from {from}");
        }
    }

    #[test]
    fn hostile_lines_stay_small() {
        let long = "\r\x1b[9999C!\x1b[1A".repeat(1000);
        assert!(matches!(drawings(&[&long], 1)[..], [Drawing::Alone]));
        let up = "\x1b[65535A\x1b[65535B\x1b[99999999999999F".repeat(1000);
        assert_eq!(drawings(&[&up, "a", &up], 3).len(), 3);
        assert!(matches!(drawings(&["\x1b[1Aa", &"x".repeat(BYTES_MAX)], 2)[..], [Drawing::Alone, Drawing::Alone]));
    }
}
