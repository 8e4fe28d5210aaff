//! Where in a step's log a person should look first: the lines around the first error, else the last lines.
//!
//! Lines are judged by what compilers, test runners and interpreters print. There are three grades: what begins a
//! report of an error, what tells of one, and what follows from one (`make: *** [all] Error 2`). The first line of
//! the best grade that occurs is taken, so that a summary at the end does not hide the cause before it.

pub mod undeclared;

use std::sync::LazyLock;

use graph::{AttemptReport, Job, Outcome};
use regex::Regex;
use regex::bytes::RegexSet;
use store::log::{Item, LineEnd, LineStart, Stream, StreamKey};

use crate::archive::Log;
use crate::columns::{self, Paint, Style};
use crate::commands::Stop;
use crate::view::annotation::Annotation;
use crate::{view, words};

/// Lines shown before the first error.
const LINES_BEFORE: usize = 3;
/// Lines before the first error among which the place is looked for that Node prints before what was thrown.
const PLACE_LINES_MAX: usize = 6;
/// Lines shown from the first error on. A Python traceback is shown to its end and a JavaScript stack to the user's own
/// frames, if that is within twice as many; of a longer traceback its first line, and so many up to its end.
const LINES_AFTER: usize = 12;
/// The most lines of a traceback among which its end is looked for.
const TRACEBACK_LINES_MAX: u64 = 2000;
/// What Python says between the traceback of an exception and that of another to which it led.
const TRACEBACK_GOES_ON: [&str; 2] =
    ["During handling of the above exception", "The above exception was the direct cause"];
/// Lines shown of a log without an error.
const LAST_LINES: usize = 15;
/// How much of a step's end is searched, by the average length of its lines.
const SEARCHED_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How many lines of a step's end are searched.
const SEARCHED_LINES_MAX: u64 = 200_000;
/// Cells that a line is given even on the narrowest terminal.
const CELLS_MIN: usize = 20;
/// Rows at a step's end among which the message of a function is looked for.
const MESSAGE_ROWS: u64 = 50;
/// How much of a line is looked at and shown.
const LINE_BYTES_MAX: usize = 500;

/// Lines worth looking at first.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Excerpt {
    /// The lines, in order and without gaps, but that a function's message or the end of a traceback may stand far behind the rest.
    pub lines: Vec<ExcerptLine>,
    /// The number of the line with the first error; `None` if these are the last lines.
    pub error: Option<u64>,
}

/// One line of an excerpt.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ExcerptLine {
    /// Counted from 1 in the job's log, as `ropewalk logs --lines` counts.
    pub number: u64,
    /// The line, cut to a bound; colours kept, other control characters dropped.
    pub text: String,
}

/// How much a line tells, the best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Consequence,
    Telling,
    Cause,
}

/// What begins a report of an error.
const CAUSES: &[&str] = &[
    // What a job says to its reader.
    r"^::error(?: [^\r\n]*?)?::",
    // rustc, cargo, clang, ld, git, and all that print like them.
    r"^(\S+: )?(fatal )?error(\[\w+\])?: ",
    r"^fatal: ",
    // file:line[:column]: error: … (gcc, clang, javac, swift, mypy), file(line,column): error … (tsc, msvc).
    r"^\S.*[:(]\d+([:,]\d+)?\)?: ((fatal|internal compiler) )?error\b",
    r"error TS\d+:",
    // eslint, stylelint: line:column  error  message.
    r"^\s+\d+:\d+\s+(error|✖)\s",
    // go build and go vet.
    r"^(vet: )?\S+\.go:\d+:\d+: ",
    // Panics of Rust and Go, assertions of C.
    r"panicked at ",
    r"^(panic|fatal error): ",
    r"[Aa]ssertion .*failed",
    // What links needs and does not find; the linker's own error is only a consequence.
    r"undefined reference to",
    r"^(ld|ld\.lld|ld64\.lld|mold|rust-lld): (error|fatal)",
    // make, when it cannot even begin.
    r"^(\S+:\d+|g?make(\[\d+\])?): \*\*\* ",
    // Python itself, pytest, unittest.
    r"^\S*python[\d.]*: (No module named|can't open file|can't find)",
    r"^Traceback \(most recent call last\):",
    r"^(E  |>) .*(Error|assert|Exception)",
    r"^(ERROR|FAIL): \w+ \(",
    // Test runners: go test, TAP, libtest, nextest, gtest, jest, vitest, mocha.
    r"^\s*--- FAIL: ",
    r"^not ok \d+",
    r"^test .* \.\.\. FAILED$",
    r"^\s+FAIL \[",
    r"^\[  FAILED  \]",
    r"^\s*● (.* › |Test suite failed to run)",
    r"^\s*(✕|✗|✘|×) ",
    // Uncaught exceptions of the JVM and of JavaScript.
    r"^Exception in thread ",
    r"^(Uncaught )?\w*(Error|Exception)( \[\w+\])?: ",
    // Shells.
    r"^\S*sh: (\d+|line \d+): ",
    r": (command )?not found$",
    r"^(Segmentation fault|Bus error|Illegal instruction|Aborted)",
];

/// What tells of an error.
const TELLINGS: &[&str] = &[
    r"^(FAILED|FAIL|ERROR|FATAL|Error|Failed)\b",
    r"(?i)\b(error|fatal|failure)\s*:",
    r"\[(ERROR|FATAL|error)\]",
    r"\b(ERROR|FATAL|FAILED|FAILURE)\b",
    r"\b\w+(Error|Exception)\b",
    r"(No such file or directory|Permission denied|Connection refused|No space left on device|Killed|Out of memory)",
    r"^failures:$",
];

/// What only follows from an error before.
const CONSEQUENCES: &[&str] = &[
    r"\*\*\* (\[|.*Error \d+)",
    r"^collect2: error: ",
    r"^clang(\+\+)?: error: linker command failed",
    r"^npm (ERR!|error)",
    r"^ninja: build stopped",
    r"^error: (could not compile|test failed|recipe `)",
    r"^error: aborting due to",
    r"[Ee]xit (code|status):? [1-9]",
    r"^error Command failed",
    // Nix: the builder's own error stands above.
    r"^error: \d+ dependencies of derivation ",
    r"^g?make(\[\d+\])?: (Entering|Leaving|Target|\*\*\* Waiting)",
];

/// What looks like an error and is none.
const HARMLESS: &[&str] = &[
    r"^::(group|endgroup|pending|notice|warning)(?: [^\r\n]*?)?::",
    // Nix tries again, or does without.
    r"^warning: (error: )?unable to download ",
    r"(?i)\b(0|no) (errors?|failures?|failed)\b",
    r"(?i)\b(errors?|failures?|failed)[:=]\s*0\b",
    r"^test .* \.\.\. ok$",
    r"(?i)^\s*(compiling|checking|downloading|downloaded|installing|building) ",
    r"\bPASS\b",
];

fn set(patterns: &[&str]) -> RegexSet {
    RegexSet::new(patterns).expect("the patterns of this file are valid")
}

static SETS: LazyLock<[RegexSet; 4]> = LazyLock::new(|| [set(HARMLESS), set(CONSEQUENCES), set(CAUSES), set(TELLINGS)]);

/// How much a line without colours tells; `None` if nothing.
fn grade(line: &[u8]) -> Option<Grade> {
    let [harmless, consequences, causes, tellings] = &*SETS;
    if harmless.is_match(line) {
        return None;
    }
    // It names the exit code of the builder, which elsewhere follows from something.
    if line.starts_with(b"error: builder for '") {
        return Some(Grade::Cause);
    }
    if consequences.is_match(line) {
        return Some(Grade::Consequence);
    }
    if causes.is_match(line) {
        return Some(Grade::Cause);
    }
    tellings.is_match(line).then_some(Grade::Telling)
}

/// Looks at the output of one step. `lines_before` is how many lines the steps before it printed; numbers begin
/// behind them.
///
/// # Errors
/// If the log cannot be read. Lost parts are passed over.
pub fn of_step(reader: &dyn Log, key: StreamKey, lines_before: u64) -> Result<Excerpt, Stop> {
    let Some(summary) = reader.stream(key) else { return Ok(Excerpt::default()) };
    let first = first_searched(summary.lines, summary.bytes);
    let Some(found) = first_error(reader, key, first)? else {
        let from = summary.lines.saturating_sub(LAST_LINES as u64);
        let lines = texts(reader, key, from, LAST_LINES, lines_before)?;
        return Ok(Excerpt { lines, error: None });
    };
    let from = found.saturating_sub(PLACE_LINES_MAX as u64);
    let mut lines = texts(reader, key, from, PLACE_LINES_MAX + 2 * LINES_AFTER, lines_before)?;
    let number = lines_before + found + 1;
    let index = lines.iter().position(|line| line.number >= number).unwrap_or(0);
    let start = excerpt_start(&lines[..index]);
    match traceback_end(reader, key, found)? {
        Some(last) if last - found < 2 * LINES_AFTER as u64 => {
            lines.retain(|line| line.number <= lines_before + last + 1);
        }
        Some(last) => {
            lines.truncate(index + 1);
            let from = last + 1 - LINES_AFTER as u64;
            lines.extend(texts(reader, key, from, LINES_AFTER, lines_before)?);
        }
        None => lines.truncate(index + excerpt_end(&lines[index..])),
    }
    lines.drain(..start);
    Ok(Excerpt { lines, error: Some(number) })
}

/// The row of the exception with which a Python traceback that begins at row `found` ends: the last one, if it led to others.
/// `None` if none begins there, or if it has no end.
fn traceback_end(reader: &dyn Log, key: StreamKey, found: u64) -> Result<Option<u64>, Stop> {
    let (mut end, mut is_open) = (None, false);
    for item in reader.lines(key, found..found.saturating_add(TRACEBACK_LINES_MAX)) {
        let Item::Line(line) = item? else { continue };
        if line.stream == Stream::Note || line.start == LineStart::Continued {
            continue;
        }
        let text = crate::columns::bare(&String::from_utf8_lossy(&line.bytes[..line.bytes.len().min(LINE_BYTES_MAX)]));
        let text = text.trim_end();
        if text.starts_with("Traceback (") {
            is_open = true;
        } else if line.number == found {
            return Ok(None);
        } else if is_open {
            if !text.is_empty() && !text.starts_with([' ', '\t']) {
                // What is told may be a traceback, too.
                (end, is_open) = (Some(line.number), text.ends_with("Traceback (most recent call last):"));
            }
        } else if !text.is_empty() && !TRACEBACK_GOES_ON.iter().any(|words| text.starts_with(words)) {
            break;
        }
    }
    Ok(end)
}

/// As [`of_step`], of a job that ended so. Of a function that returned a failure, or could not be called, its message is
/// shown too, wherever it stands: the last line that its program wrote to standard error.
///
/// # Errors
/// As [`of_step`].
pub fn of_ending(
    reader: &dyn Log,
    key: StreamKey,
    lines_before: u64,
    job: Option<&Job>,
    outcome: Option<&Outcome>,
    report: Option<&AttemptReport>,
) -> Result<Excerpt, Stop> {
    let mut excerpt = of_step(reader, key, lines_before)?;
    let (Some(job), Some(Outcome::Failed(failure))) = (job, outcome) else { return Ok(excerpt) };
    if !words::function_has_message(job, failure, report) {
        return Ok(excerpt);
    }
    let mut message = None;
    for item in reader.tail(key, MESSAGE_ROWS) {
        let Item::Line(line) = item? else { continue };
        if line.stream == Stream::Stderr && !line.bytes.trim_ascii().is_empty() {
            message = Some(line.number);
        }
    }
    let Some(row) = message else { return Ok(excerpt) };
    let number = lines_before + row + 1;
    if excerpt.lines.last().is_none_or(|last| last.number < number) {
        excerpt.lines.extend(texts(reader, key, row, 1, lines_before)?);
    }
    excerpt.error.get_or_insert(number);
    Ok(excerpt)
}

/// The first `count_max` warnings and errors that a step tells its reader, as they were written, and how many there are in
/// all. Of a long log only the end is searched.
///
/// # Errors
/// As [`of_step`].
pub fn said(
    reader: &dyn Log,
    key: StreamKey,
    lines_before: u64,
    count_max: usize,
) -> Result<(Vec<ExcerptLine>, usize), Stop> {
    let Some(summary) = reader.stream(key) else { return Ok((Vec::new(), 0)) };
    let (mut found, mut count) = (Vec::new(), 0);
    for item in reader.lines(key, first_searched(summary.lines, summary.bytes)..u64::MAX) {
        let Item::Line(line) = item? else { continue };
        if line.stream != Stream::Stdout || line.start == LineStart::Continued || !line.bytes.starts_with(b"::") {
            continue;
        }
        let text = String::from_utf8_lossy(&line.bytes[..line.bytes.len().min(LINE_BYTES_MAX)]);
        let Some(Annotation::Warning(_) | Annotation::Error(_)) = Annotation::of(view::Stream::Stdout, &text) else {
            continue;
        };
        count += 1;
        if found.len() < count_max {
            found.push(ExcerptLine { number: lines_before + line.number + 1, text: text.into_owned() });
        }
    }
    Ok((found, count))
}

/// The row from which a step with so many rows and bytes is searched.
fn first_searched(rows: u64, bytes: u64) -> u64 {
    let mean = (bytes / rows.max(1)).max(1);
    rows.saturating_sub(SEARCHED_LINES_MAX.min(SEARCHED_BYTES_MAX / mean).max(LAST_LINES as u64))
}

/// The first of these lines, which stand before the error, that is shown.
fn excerpt_start(lines: &[ExcerptLine]) -> usize {
    // Node says where it was thrown, shows the line and a caret, and only then what was thrown.
    let place = lines.iter().rposition(|line| NODE_PLACE.is_match(&line.text));
    let caret = lines.iter().rposition(|line| line.text.trim_start().starts_with('^'));
    match (place, caret) {
        (Some(place), Some(caret)) if place < caret => place,
        _ => {
            let first = lines.len().saturating_sub(LINES_BEFORE);
            let blank = lines[first..].iter().take_while(|line| line.text.trim().is_empty()).count();
            first + blank
        }
    }
}

/// `/app/main.js:3`, alone on its line.
static NODE_PLACE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\S+:\d+$").expect("a valid pattern"));
/// A frame of a JavaScript stack.
static FRAME: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\s+at \S").expect("a valid pattern"));

/// How many of these lines, which begin with an error, show a JavaScript stack up to the last of the user's own frames
/// that stand together; `None` if there is no such stack.
fn stack_end(lines: &[ExcerptLine]) -> Option<usize> {
    let is_frame = |line: &ExcerptLine| FRAME.is_match(&line.text);
    let is_foreign = |line: &ExcerptLine| line.text.contains("node:internal") || line.text.contains("node_modules/");
    let first = lines.iter().take(LINES_AFTER).position(is_frame)?;
    let frames =
        &lines[first..first + lines[first..].iter().position(|line| !is_frame(line)).unwrap_or(lines.len() - first)];
    let own = frames.iter().position(|frame| !is_foreign(frame) && !frame.text.contains("(node:"))?;
    let length = frames[own..].iter().position(is_foreign).unwrap_or(frames.len() - own);
    Some(first + own + length.min(LINES_AFTER / 2))
}

/// How many of these lines, which begin with the error, belong to it.
fn excerpt_end(lines: &[ExcerptLine]) -> usize {
    // Rust's frames say less than the place of the panic, and there are many.
    let is_panic = lines.first().is_some_and(|line| line.text.contains("panicked at "));
    let frames = lines.iter().position(|line| line.text.starts_with("stack backtrace:")).filter(|_| is_panic);
    frames.or_else(|| stack_end(lines)).unwrap_or(LINES_AFTER).min(lines.len())
}

/// The row of the first line of the best grade.
fn first_error(reader: &dyn Log, key: StreamKey, first: u64) -> Result<Option<u64>, Stop> {
    let mut best: Option<(Grade, u64)> = None;
    for item in reader.lines(key, first..u64::MAX) {
        let Item::Line(line) = item? else { continue };
        if line.stream == Stream::Note || line.start == LineStart::Continued {
            continue;
        }
        let bytes = &line.bytes[..line.bytes.len().min(LINE_BYTES_MAX)];
        let found = match bytes.contains(&0x1b) || bytes.ends_with(b"\r") {
            true => grade(crate::columns::bare(&String::from_utf8_lossy(bytes)).trim_end().as_bytes()),
            false => grade(bytes),
        };
        let Some(found) = found else { continue };
        if best.is_none_or(|(best, _)| found > best) {
            best = Some((found, line.number));
        }
        if found == Grade::Cause {
            break;
        }
    }
    // A mere consequence, such as make's last line, says less than the lines before it.
    Ok(best.filter(|(grade, _)| *grade > Grade::Consequence).map(|(_, number)| number))
}

/// At most `count` lines from row `from` on.
fn texts(
    reader: &dyn Log,
    key: StreamKey,
    from: u64,
    count: usize,
    lines_before: u64,
) -> Result<Vec<ExcerptLine>, Stop> {
    let mut lines: Vec<ExcerptLine> = Vec::new();
    let mut is_open = false;
    for item in reader.lines(key, from..from.saturating_add(count as u64)) {
        let Item::Line(line) = item? else { continue };
        if line.stream == Stream::Note || (line.start == LineStart::Continued && is_open) {
            continue;
        }
        is_open = line.end == LineEnd::Open;
        let bytes = &line.bytes[..line.bytes.len().min(LINE_BYTES_MAX)];
        let text = String::from_utf8_lossy(bytes);
        // What a progress bar showed last is what counts.
        let text = text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
        let more = if line.bytes.len() > LINE_BYTES_MAX { "…" } else { "" };
        let text = format!("{}{more}", words::harmless(text));
        lines.push(ExcerptLine { number: lines_before + line.number + 1, text });
    }
    Ok(lines)
}

impl Excerpt {
    /// The excerpt as lines of text: `indent`, a mark at the error, the line's number, the line. No line takes more than
    /// `cells_max` cells.
    pub fn text(&self, paint: Paint, indent: usize, cells_max: usize) -> String {
        let width = self.lines.last().map_or(0, |line| line.number.to_string().len());
        let mut text = String::new();
        for line in &self.lines {
            let is_error = Some(line.number) == self.error;
            let (mark, style) = if is_error { (">", Style::Bad) } else { (" ", Style::Dim) };
            let head = format!("{mark}{:>width$} |", line.number);
            let room = cells_max.saturating_sub(indent + columns::cells(&head) + 1).max(CELLS_MIN);
            let said = Annotation::of(view::Stream::Stdout, &line.text);
            let line = match said.map(|said| said.text(Paint::Plain)) {
                None => line.clone(),
                Some(Some(text)) => ExcerptLine { text, ..*line },
                Some(None) => continue,
            };
            let content = match paint {
                Paint::Plain => columns::cut(&columns::bare(&line.text), room),
                // A colour that a line leaves on must not run into what follows.
                Paint::Coloured if line.text.contains('\u{1b}') => {
                    format!("{}\u{1b}[0m", columns::cut_coloured(&line.text.replace('\t', "    "), room))
                }
                Paint::Coloured => columns::cut(&line.text.replace('\t', "    "), room),
            };
            let line = format!("{}{} {content}", " ".repeat(indent), paint.text(style, &head));
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use store::log::Writing;

    use super::*;
    use crate::places::kept::Kept;

    #[track_caller]
    fn check(log: &str, expected: &str) {
        let mut kept = Kept::new();
        kept.build(&["a"]).print(&[(1, 0, Stream::Stdout, log)]);
        let reader = kept.places().log_reader(graph::BuildId(1), Writing::Over).expect("it reads").expect("a log");
        let excerpt = of_step(&reader, StreamKey { attempt: 1, step: 0 }, 10).expect("it reads");
        assert_eq!(excerpt.text(Paint::Plain, 0, 100), expected);
    }

    #[test]
    fn the_first_cause_is_taken_not_what_follows_from_it() {
        check(
            "   Compiling thiserror v2.0.0\n   Compiling x\n0 errors so far\nsome error: maybe\n\
             \u{1b}[1m\u{1b}[31merror[E0308]\u{1b}[0m: mismatched types\n --> src/main.rs:1:1\n\
             error: could not compile `x`\n",
            " 12 |    Compiling x\n 13 | 0 errors so far\n 14 | some error: maybe\n\
             >15 | error[E0308]: mismatched types\n 16 |  --> src/main.rs:1:1\n 17 | error: could not compile `x`\n",
        );
    }

    #[test]
    fn of_nix_the_builder_is_shown_and_not_what_it_does_without() {
        check(
            "warning: error: unable to download 'https://cache.nixos.org/nix-cache-info': Couldn't resolve host\nbad-0.1> expected a number\n\
             error: builder for '/nix/store/x-bad-0.1.drv' failed with exit code 3\nerror: 1 dependencies of derivation '/nix/store/y.drv' failed to build\n",
            " 11 | warning: error: unable to download 'https://cache.nixos.org/nix-cache-info': Couldn't resolve…\n 12 | bad-0.1> expected a number\n\
             >13 | error: builder for '/nix/store/x-bad-0.1.drv' failed with exit code 3\n 14 | error: 1 dependencies of derivation '/nix/store/y.drv' failed to build\n",
        );
    }

    #[test]
    fn a_panic_is_shown_without_its_frames() {
        check(
            "\nthread 'main' (7) panicked at .ropewalk/pipeline.rs:9:5:\nno\nstack backtrace:\n   0: a\nend\n",
            ">12 | thread 'main' (7) panicked at .ropewalk/pipeline.rs:9:5:\n 13 | no\n",
        );
    }

    #[test]
    fn the_message_of_a_function_is_shown_wherever_it_stands() {
        let mut kept = Kept::new();
        let step = graph::Step { shell: graph::Shell::Program(graph::Digest([0; 32])), ..graph::Step::default() };
        let job = Job { steps: vec![step], ..Job::default() };
        let check = |kept: &Kept, exit: i32, expected: &str| {
            let log = kept.places().log_reader(graph::BuildId(1), Writing::Over);
            let reader = log.expect("it reads").expect("a log");
            let outcome = Outcome::Failed(graph::Failure::Step { step: 0, exit, message: None });
            let key = StreamKey { attempt: 1, step: 0 };
            let excerpt = of_ending(&reader, key, 0, Some(&job), Some(&outcome), None).expect("it reads");
            assert_eq!(excerpt.text(Paint::Plain, 0, 100), expected);
        };
        kept.build(&["a"]).print(&[(1, 0, Stream::Stdout, "one\n"), (1, 0, Stream::Stderr, "it is taken\n")]);
        check(&kept, 1, " 1 | one\n>2 | it is taken\n");
        check(&kept, 2, " 1 | one\n 2 | it is taken\n");
    }

    #[test]
    fn a_traceback_is_shown_to_its_end() {
        check(
            "ok\nTraceback (most recent call last):\n  File \"a.py\", line 1\n    x()\nValueError: no\nbye\n",
            " 11 | ok\n>12 | Traceback (most recent call last):\n 13 |   File \"a.py\", line 1\n 14 |     x()\n 15 | ValueError: no\n",
        );
    }

    #[test]
    fn of_a_long_traceback_its_end_is_shown_and_of_several_the_last() {
        check(
            "Traceback (most recent call last):\n  File \"a.py\", line 1\nKeyError: 'x'\n\nDuring handling of the above exception, \
             another exception occurred:\n\nTraceback (most recent call last):\n  File \"a.py\", line 3\nValueError: no\nbye\n",
            ">11 | Traceback (most recent call last):\n 12 |   File \"a.py\", line 1\n 13 | KeyError: 'x'\n 14 |\n \
             15 | During handling of the above exception, another exception occurred:\n 16 |\n \
             17 | Traceback (most recent call last):\n 18 |   File \"a.py\", line 3\n 19 | ValueError: no\n",
        );
        check(
            "Traceback (most recent call last):\n  File \"a.py\", line 1\nx.E: Traceback (most recent call last):\n  File \"b.py\", line 1\n\
             ValueError: no\n\nbye\n",
            ">11 | Traceback (most recent call last):\n 12 |   File \"a.py\", line 1\n 13 | x.E: Traceback (most recent call last):\n \
             14 |   File \"b.py\", line 1\n 15 | ValueError: no\n",
        );
        let frames: String = (1..=40).map(|line| format!("  File \"a.py\", line {line}\n")).collect();
        let last: String = (30..=40).map(|line| format!(" {} |   File \"a.py\", line {line}\n", line + 11)).collect();
        check(
            &format!("Traceback (most recent call last):\n{frames}ValueError: no\nbye\n"),
            &format!(">11 | Traceback (most recent call last):\n{last} 52 | ValueError: no\n"),
        );
        check(&format!("Traceback (most recent call last):\n{frames}"), &{
            let shown: String =
                (1..=11).map(|line| format!(" {} |   File \"a.py\", line {line}\n", line + 11)).collect();
            format!(">11 | Traceback (most recent call last):\n{shown}")
        });
    }

    #[test]
    fn what_node_throws_is_shown_from_its_place_to_the_users_frames() {
        check(
            "start\n/app/main.js:3\n    throw new Error(\"no\");\n    ^\n\nError: no\n    at read (/app/main.js:3:9)\n    \
             at Object.<anonymous> (/app/main.js:7:1)\n    at Module._compile (node:internal/modules/cjs/loader:1554:14)\n\n\
             Node.js v22\n",
            " 12 | /app/main.js:3\n 13 |     throw new Error(\"no\");\n 14 |     ^\n 15 |\n>16 | Error: no\n \
             17 |     at read (/app/main.js:3:9)\n 18 |     at Object.<anonymous> (/app/main.js:7:1)\n",
        );
        check(
            "node:fs:573\n  return binding.open(\n                 ^\n\nError: ENOENT: no such file or directory, open 'x'\n    \
             at Object.openSync (node:fs:573:18)\n    at Object.<anonymous> (/app/main.js:1:15)\n    \
             at Module._compile (node:internal/modules/cjs/loader:1554:14) {\n  errno: -2\n}\n",
            " 11 | node:fs:573\n 12 |   return binding.open(\n 13 |                  ^\n 14 |\n\
             >15 | Error: ENOENT: no such file or directory, open 'x'\n 16 |     at Object.openSync (node:fs:573:18)\n \
             17 |     at Object.<anonymous> (/app/main.js:1:15)\n",
        );
    }

    #[test]
    fn lines_fit_the_terminal() {
        let line = |text: &str| ExcerptLine { number: 7, text: text.to_owned() };
        let text = |text: &str, paint: Paint| Excerpt { lines: vec![line(text)], error: None }.text(paint, 2, 30);
        assert_eq!(text(&"x".repeat(40), Paint::Plain), format!("   7 | {}…\n", "x".repeat(22)));
        assert_eq!(text(&"測".repeat(40), Paint::Plain), format!("   7 | {}…\n", "測".repeat(11)));
        let coloured = text(&format!("\u{1b}[31m{}", "x".repeat(40)), Paint::Coloured);
        assert_eq!(coloured, format!("  \u{1b}[2m 7 |\u{1b}[0m \u{1b}[31m{}…\u{1b}[0m\n", "x".repeat(22)));
    }

    #[test]
    fn without_an_error_the_last_lines_are_shown() {
        let log: String = (1..=20).map(|number| format!("line {number}\n")).collect();
        let expected: String = (6..=20).map(|number| format!(" {} | line {number}\n", number + 10)).collect();
        check(&log, &expected);
        check("a\nmake: *** [all] Error 2\n", " 11 | a\n 12 | make: *** [all] Error 2\n");
        check("", "");
    }

    #[test]
    fn what_tools_print_is_graded() {
        let check = |line: &str, expected: Option<Grade>| assert_eq!(grade(line.as_bytes()), expected, "{line}");
        for line in [
            "src/main.c:3:5: error: expected ‘;’ before ‘return’",
            "./main.go:7:2: undefined: foo",
            "src/a.ts(3,7): error TS2322: Type 'string' is not assignable to type 'number'.",
            "  3:7  error  'x' is assigned a value but never used  no-unused-vars",
            "thread 'main' (7) panicked at src/main.rs:2:5:",
            "--- FAIL: TestAdd (0.00s)",
            "not ok 2 - adds",
            "test tests::adds ... FAILED",
            "::error::the version is taken",
            "::error file=a.rs,line=3::no such name",
            "E       assert 1 == 2",
            "E   AssertionError: no",
            "FAIL: test_add (test_a.TestA)",
            "AssertionError [ERR_ASSERTION]: 1 == 2",
            "sh: 1: pytset: not found",
            "/bin/bash: line 2: foo: command not found",
            "Exception in thread \"main\" java.lang.RuntimeException",
            "fatal: not a git repository",
            "error: linker `cc` not found",
            "ModuleNotFoundError: No module named 'numpy'",
            "E   ModuleNotFoundError: No module named 'numpy'",
            "/usr/bin/python3: No module named pytest",
            "python: can't open file '/w/x.py': [Errno 2] No such file or directory",
            "TypeError: x is not a function",
            "  ● sum › adds",
            "  ● Test suite failed to run",
            "main.c:(.text+0x9): undefined reference to `foo'",
            "panic: runtime error: index out of range [1] with length 1",
            "make: *** No rule to make target 'x', needed by 'all'.  Stop.",
            "Makefile:3: *** missing separator.  Stop.",
            "main.c:1:10: fatal error: foo.h: No such file or directory",
        ] {
            check(line, Some(Grade::Cause));
        }
        check("FAILED tests/test_a.py::test_add - assert 1 == 2", Some(Grade::Telling));
        check("2026-11-21 ERROR root: it broke", Some(Grade::Telling));
        check("make: *** [Makefile:2: all] Error 1", Some(Grade::Consequence));
        check("make: *** [Makefile:2: all] Segmentation fault", Some(Grade::Consequence));
        check("make[1]: Leaving directory '/w'", Some(Grade::Consequence));
        check("make: cc: No such file or directory", Some(Grade::Telling));
        check("collect2: error: ld returned 1 exit status", Some(Grade::Consequence));
        check("error: could not compile `x` (bin \"x\") due to 1 previous error", Some(Grade::Consequence));
        check("test result: ok. 3 passed; 0 failed", None);
        check("test error_handling ... ok", None);
        check("Compiling error-chain v0.12.4", None);
        check("::warning::error: old", None);
        check("all good", None);
    }
}
