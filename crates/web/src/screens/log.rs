//! Lines of a log: a range as HTML, the first error of a step, what a search finds.

use api::build::Build;
use api::job::{Attempt, OutcomeWord};
use api::log::{LogHits, LogItem, LogLine, LogStream, LogSummary};
use api::page::Page;
use api::problem::Problem;
use api::workflow_command::WorkflowCommand;
use maud::{Markup, PreEscaped, html};

use crate::page::Document;
use crate::terminal::{self, Drawing};
use crate::{Ask, Source, paths, read};

/// The most lines of one range.
pub const LINES_MAX: u64 = 1000;
/// How many builds are looked at for one in which a job passed.
const GREEN_BUILDS: u32 = 3;
/// Lines before and after the first error in an excerpt.
const BEFORE: u64 = 6;
const AFTER: u64 = 14;
/// The last lines of an excerpt without an error.
const LAST: u64 = 12;
/// What an error looks like, for a search that cannot know the language; the last lines are shown if nothing does. In
/// ASCII alone, which is searched several times as fast.
pub(crate) const ERROR: &str = r"(?i-u)^::error\b|^\s*(error|fatal|failed|failure|panicked|traceback|exception|assert|FAIL)\b|\b(error|fatal error|panicked at|exception):|AssertionError|Segmentation fault|: No such file|command not found|\bnot found$";
/// How long a page waits for the first error of a log; it is found in the page later if this is not enough.
const ERROR_WITHIN_MS: u32 = 600;

/// The first and the next after the last line of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first.
    pub from: u64,
    /// How many.
    pub count: u64,
}

impl Range {
    /// The next after the last.
    pub fn end(self) -> u64 {
        self.from.saturating_add(self.count)
    }
}

/// How much of a step there is.
pub(crate) fn lines_of(summary: &LogSummary, step: u16) -> u64 {
    summary.steps.iter().find(|log| log.step == step).map_or(0, |log| log.lines)
}

/// The number of the first line that looks like an error.
pub(crate) async fn first_error(
    source: &impl Source,
    [build, attempt, step]: [u64; 3],
) -> Result<Option<u64>, Problem> {
    let path = paths::api_log(build, attempt, step);
    let path = format!("{path}/search?regex={}&limit=1&within_ms={ERROR_WITHIN_MS}", paths::encoded(ERROR));
    let hits: LogHits = read(source, &path).await?;
    Ok(hits.hits.first().map(|hit| hit.number))
}

/// Some lines of a log that are worth to be seen first.
#[derive(Default)]
pub(crate) struct Excerpt {
    /// The lines.
    pub lines: Markup,
    /// Whether there is an error among them; else they are the last.
    pub has_error: bool,
}

/// The lines around the first error of a step with so many lines.
pub(crate) async fn around_first_error(source: &impl Source, of: [u64; 3], lines: u64) -> Result<Excerpt, Problem> {
    let error = first_error(source, of).await?;
    let from = error.map_or(lines.saturating_sub(LAST), |error| error.saturating_sub(BEFORE));
    let range = Range { from, count: BEFORE + AFTER };
    let items = read_range(source, of, range, None).await?;
    let rows = Rows { step: None, base: None, marked: error, until: range.end(), redrawn: Redrawn::Folded };
    let label = if error.is_some() { "Lines around the first error" } else { "The last lines" };
    let lines = html! { div.log.excerpt role="group" aria-label=(label) tabindex="0" { (written(&items, &rows)) } };
    Ok(Excerpt { lines, has_error: error.is_some() })
}

/// An attempt with whose log lines are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Green {
    /// Its build.
    pub build: u64,
    /// Its number.
    pub attempt: u32,
}

impl std::fmt::Display for Green {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.build, self.attempt)
    }
}

impl Green {
    fn read(text: &str) -> Option<Self> {
        let (build, attempt) = text.split_once('.')?;
        Some(Self { build: build.parse().ok()?, attempt: attempt.parse().ok()? })
    }

    /// The last attempt at a job that passed, in a build that passed before this one; `None` if none of the last few has one.
    pub async fn before(source: &impl Source, build: &Build, job: &str) -> Option<Self> {
        let of = |name: &str, value: &str| match value {
            "" => String::new(),
            value => format!("&{name}={}", paths::encoded(value)),
        };
        let list = format!(
            "/api/v1/builds?verdict=passed&before={}&limit={GREEN_BUILDS}{}{}",
            build.id,
            of("project", &build.project),
            of("pipeline", &build.pipeline)
        );
        let builds: Page<Build> = read(source, &list).await.ok()?;
        // The same where there is no name to ask for: only what is like it counts.
        let is_like = |it: &Build| it.project == build.project && it.pipeline == build.pipeline;
        for build in builds.items.iter().filter(|it| is_like(it)) {
            let list = format!("/api/v1/builds/{}/attempts?job={}&limit=100", build.id, paths::encoded(job));
            let attempts: Page<Attempt> = read(source, &list).await.ok()?;
            let has_passed =
                |attempt: &&Attempt| attempt.ended.as_ref().is_some_and(|end| end.outcome == OutcomeWord::Passed);
            if let Some(attempt) = attempts.items.iter().rev().find(has_passed) {
                return Some(Self { build: build.id.0, attempt: attempt.attempt });
            }
        }
        None
    }
}

/// Reads a range and the lines behind it that may have drawn over it, each line compared with those of an earlier attempt.
pub(crate) async fn read_range(
    source: &impl Source,
    [build, attempt, step]: [u64; 3],
    range: Range,
    green: Option<Green>,
) -> Result<Vec<LogItem>, Problem> {
    let path = paths::api_log(build, attempt, step);
    let count = range.count.saturating_add(terminal::AHEAD as u64);
    let path = format!("{path}?format=ndjson&from={}&count={count}", range.from);
    let body = match green {
        None => source.get(&path).await?,
        // What it is compared with may be gone; the log is not.
        Some(green) => match source.get(&format!("{path}&against={green}")).await {
            Ok(body) => body,
            Err(_) => source.get(&path).await?,
        },
    };
    body.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect::<Result<_, _>>()
        .map_err(|error| Problem::new(api::problem::ProblemKind::Internal, format!("`{path}` cannot be read: {error}")))
}

/// Pieces of one line put together again, so that each number stands once.
fn whole_lines(items: &[LogItem]) -> Vec<LogItem> {
    let mut whole: Vec<LogItem> = Vec::with_capacity(items.len());
    for item in items {
        if let (LogItem::Line(piece), Some(LogItem::Line(last))) = (item, whole.last_mut())
            && last.number == piece.number
        {
            last.line.push_str(&piece.line);
            last.open = piece.open;
            last.same &= piece.same;
            continue;
        }
        whole.push(item.clone());
    }
    whole
}

/// What becomes of lines that others have drawn over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Redrawn {
    /// They stand in their places and say it, for a page that folds them itself.
    Told,
    /// They stand in a fold before the last drawing.
    Folded,
}

/// How lines are written.
pub(crate) struct Rows<'a> {
    /// The index of their step; `None` for an excerpt, whose rows have no names of their own.
    pub step: Option<u64>,
    /// Where links to lines lead: to the page itself if nothing is said.
    pub base: Option<&'a str>,
    /// The line that is looked for.
    pub marked: Option<u64>,
    /// The line before which to end: those from there on are only looked at for what they draw over.
    pub until: u64,
    /// What becomes of lines that others have drawn over.
    pub redrawn: Redrawn,
}

/// What a row is made of.
struct Written {
    markup: Markup,
    /// Of a line that another has drawn over: how often its row was drawn again after it.
    redraws: Option<u64>,
    /// Whether it is the line that is looked for.
    is_marked: bool,
}

/// Lines as rows.
pub(crate) fn written(items: &[LogItem], rows: &Rows) -> Markup {
    let whole = whole_lines(items);
    let mut written = Vec::with_capacity(whole.len());
    let mut before = None;
    // Where something is lost, nobody knows what was drawn over what.
    for part in whole.chunk_by(|one, next| matches!((one, next), (LogItem::Line(_), LogItem::Line(_)))) {
        lines_written(part, rows, &mut before, &mut written);
    }
    let mut text = String::new();
    match rows.redrawn {
        Redrawn::Told => written.iter().for_each(|it| text.push_str(&it.markup.0)),
        Redrawn::Folded => {
            for part in written.chunk_by(|one, next| one.redraws.is_some() == next.redraws.is_some()) {
                folded(part, &mut text);
            }
        }
    }
    PreEscaped(text)
}

/// Rows that stand, or a fold with those that were drawn over.
fn folded(part: &[Written], text: &mut String) {
    let Some(redraws) = part.iter().filter_map(|it| it.redraws).max() else {
        part.iter().for_each(|it| text.push_str(&it.markup.0));
        return;
    };
    // What is looked for is seen.
    let is_open = part.iter().any(|it| it.is_marked);
    let fold = html! {
        details.redrawn open[is_open] { summary { (crate::words::count(redraws, "redraw", "redraws")) } @for row in part { (row.markup) } }
    };
    text.push_str(&fold.0);
}

/// Writes lines that follow one another, or a gap.
fn lines_written(part: &[LogItem], rows: &Rows, before: &mut Option<graph::Timestamp>, written: &mut Vec<Written>) {
    let lines: Vec<&LogLine> =
        part.iter().filter_map(|item| if let LogItem::Line(line) = item { Some(line) } else { None }).collect();
    let texts: Vec<&str> = lines.iter().map(|line| line.line.as_str()).collect();
    let shown = lines.iter().take_while(|line| line.number < rows.until).count();
    let drawings = terminal::drawings(&texts, shown);
    // Whoever drew over a line stands behind it.
    let mut redraws: Vec<Option<u64>> = vec![None; shown];
    for (index, drawing) in drawings.iter().enumerate().rev() {
        if let Drawing::Over(by) = drawing {
            redraws[index] = Some(1 + redraws.get(*by).copied().flatten().unwrap_or(0));
        }
    }
    for ((line, drawing), redraws) in lines.iter().zip(&drawings).zip(redraws) {
        let since = before.map(|at| line.time.0.ms_since(at));
        *before = Some(line.time.0);
        let markup = row(line, drawing, rows, (since, redraws));
        written.push(Written { markup, redraws, is_marked: rows.marked == Some(line.number) });
    }
    for item in part {
        if let LogItem::Gap(gap) = item
            && gap.number < rows.until
        {
            let markup = html! { div.gap role="note" data-line=(gap.number) { (gap.text) } };
            written.push(Written { markup, redraws: None, is_marked: false });
        }
    }
}

fn row(line: &LogLine, drawing: &Drawing, rows: &Rows, (since, redraws): (Option<u64>, Option<u64>)) -> Markup {
    let stream = match line.stream {
        LogStream::Stdout => "",
        LogStream::Stderr => " err",
        LogStream::Note => " note",
    };
    let mark = if rows.marked == Some(line.number) { " marked" } else { "" };
    let same = if line.same { " same" } else { "" };
    let over = if redraws.is_some() { " over" } else { "" };
    // The browser's own time and heat: which part of a second, a second, ten seconds or a minute went before this line.
    let heat = match since {
        None | Some(0..100) => "",
        Some(100..1_000) => " h1",
        Some(1_000..10_000) => " h2",
        Some(10_000..60_000) => " h3",
        Some(60_000..) => " h4",
    };
    let number = line.number + 1;
    // As addresses name lines, by the step's number and the line's.
    let id = rows.step.map(|step| format!("{}:{number}", step + 1));
    let to = match (&id, rows.base) {
        (Some(id), Some(base)) => Some(format!("{base}&from={}#{id}", line.number.saturating_sub(100))),
        (Some(id), None) => Some(format!("#{id}")),
        (None, _) => None,
    };
    let time = line.time.to_string();
    // RFC 3339 in UTC with a fixed number of digits: hours, minutes, seconds and milliseconds stand at fixed places.
    let clock = time.get(11..23).unwrap_or_default();
    html! {
        div class=(format!("l{stream}{mark}{same}{over}{heat}")) id=[id] data-redraws=[redraws] {
            @match to {
                Some(to) => { a.n href=(to) aria-label=(format!("line {number}")) data-n=(number) {} }
                None => { span.n data-n=(number) {} }
            }
            time.t datetime=(time) data-t=(clock) {}
            @match (drawing, spoken(line)) {
                (Drawing::Row(row), _) => { span.c { (row) } }
                (Drawing::Alone | Drawing::Over(_), Some(said)) => { span.c data-raw=(line.line) { (said) } }
                (Drawing::Alone | Drawing::Over(_), None) => { span.c { (terminal::line(&line.line)) } }
            }
        }
    }
}

/// What a line says to the reader, as it is shown in its place; the line itself is what is copied, and what `Raw` has.
fn spoken(line: &LogLine) -> Option<Markup> {
    if line.stream == LogStream::Note {
        return None;
    }
    let command = WorkflowCommand::of(&line.line)?;
    match command.word {
        "group" => Some(html! { strong.said { (terminal::line(&command.text)) } }),
        "endgroup" => Some(html! { span.quiet { "end of group" } }),
        word @ ("error" | "warning" | "notice") => Some(html! {
            span class=(format!("said {word}")) {
                strong { (word) } " "
                @if !command.place.is_empty() { (command.place) " " }
                (terminal::line(&command.message().lines().collect::<Vec<_>>().join(" ")))
            }
        }),
        _ => None,
    }
}

/// A range for a page that is open already: `?from=` the number of the first line from 0, `?count=`.
pub(crate) async fn lines(
    source: &impl Source,
    ask: &Ask,
    [build, attempt, step]: [&str; 3],
) -> Result<Document, Problem> {
    let of = [number(build)?, number(attempt)?, number(step)?];
    let range =
        Range { from: ask.number("from").unwrap_or(0), count: ask.number("count").unwrap_or(200).clamp(1, LINES_MAX) };
    let items = read_range(source, of, range, Green::read(ask.text("green"))).await?;
    // Of the page that they come to.
    let base = format!("?attempt={}&step={}", of[1], of[2]);
    let rows = Rows { step: Some(of[2]), base: Some(&base), marked: None, until: range.end(), redrawn: Redrawn::Told };
    Ok(Document { status: 200, text: written(&items, &rows).0 })
}

/// The groups of a step, for a page that is open already.
pub(crate) async fn groups(source: &impl Source, [build, attempt, step]: [&str; 3]) -> Result<Document, Problem> {
    let of = [number(build)?, number(attempt)?, number(step)?];
    let tree = super::groups::tree(source, of).await?;
    Ok(Document { status: 200, text: tree.0 })
}

fn number(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| Problem::new(api::problem::ProblemKind::NotFound, format!("`{text}` is no number")))
}

/// What a search found, as links to the lines.
pub(crate) async fn search(
    source: &impl Source,
    [build, attempt, step]: [u64; 3],
    regex: &str,
    base: &str,
) -> Result<Markup, Problem> {
    let path = format!("{}/search?regex={}&limit=200", paths::api_log(build, attempt, step), paths::encoded(regex));
    let found: LogHits = match read(source, &path).await {
        Ok(found) => found,
        // An expression that cannot be read is the reader's to mend, not the page's end.
        Err(problem) if problem.status == 400 || problem.status == 422 => {
            return Ok(html! { p.problem role="alert" { (problem.detail) } });
        }
        Err(problem) => return Err(problem),
    };
    Ok(html! {
        section.hits #hits aria-label="What was found" tabindex="0" {
            p { (crate::words::count(found.hits.len() as u64, "line matches", "lines match")) @if found.next.is_some() { " so far: the log goes on" } }
            ol {
                @for hit in &found.hits {
                    @let from = hit.number.saturating_sub(100);
                    li value=(hit.number + 1) { a href=(format!("{base}&from={from}&mark={}#{}:{}", hit.number, step + 1, hit.number + 1)) data-line=(hit.number) { (crate::words::first_line(&hit.text)) } }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use api::time::Time;
    use graph::Timestamp;

    use super::*;

    fn line(number: u64, text: &str, at: i64) -> LogItem {
        LogItem::Line(LogLine {
            number,
            stream: LogStream::Stderr,
            time: Time(Timestamp(at)),
            line: text.to_owned(),
            bytes: None,
            open: false,
            same: false,
        })
    }

    #[test]
    fn what_a_line_says_stands_in_its_place() {
        let shown = |text: &str| {
            let rows = Rows { step: Some(0), base: None, marked: None, until: 1, redrawn: Redrawn::Told };
            let html = written(&[line(0, text, 0)], &rows).0;
            html[html.find("<span class=\"c\"").expect("a content")..].to_owned()
        };
        for (text, said) in [
            ("::group::<b>Build</b> it", "<strong class=\"said\">&lt;b&gt;Build&lt;/b&gt; it</strong>"),
            ("##[group]Build", "<strong class=\"said\">Build</strong>"),
            ("::endgroup::", "<span class=\"quiet\">end of group</span>"),
            (
                "::error file=a<.rs,line=3,title=T::no%0Aname",
                "<span class=\"said error\"><strong>error</strong> a&lt;.rs:3 T: no name</span>",
            ),
            ("::notice::n", "<span class=\"said notice\"><strong>notice</strong> n</span>"),
        ] {
            let html = shown(text);
            assert!(html.contains(said), "{html}");
            let raw = text.replace('<', "&lt;").replace('>', "&gt;");
            assert!(html.contains(&format!("data-raw=\"{raw}\"")), "{html}");
        }
        for text in ["::std::fmt", " ::error::x", "::group"] {
            assert!(shown(text).contains(text) && !shown(text).contains("data-raw"), "{text}");
        }
    }

    #[test]
    fn a_line_in_pieces_stands_once() {
        let html = written(
            &[line(4, "one ", 0), line(4, "two", 0), line(5, "<three>", 2_000_000)],
            &Rows { step: Some(0), base: None, marked: Some(5), until: 6, redrawn: Redrawn::Told },
        )
        .0;
        assert_eq!(html.matches("class=\"l").count(), 2);
        assert!(html.contains("one two"), "{html}");
        assert!(html.contains("&lt;three&gt;"), "{html}");
        assert!(html.contains("l err marked h2"), "{html}");
        assert!(html.contains("data-t=\"00:00:02.000\""), "{html}");
    }

    #[test]
    fn what_was_drawn_over_is_folded_before_the_last_drawing() {
        let texts = ["a 1", "b 1", "\x1b[2Aa 2", "b 2", "\x1b[2Aa 3", "b 3", "end"];
        let lines: Vec<LogItem> = texts.iter().enumerate().map(|(n, text)| line(n as u64, text, 0)).collect();
        let check = |redrawn, marked, until, expected: &[&str]| {
            let html = written(&lines, &Rows { step: Some(0), base: None, marked, until, redrawn }).0;
            let places: Vec<Option<usize>> = expected.iter().map(|part| html.find(part)).collect();
            assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{expected:?} in {html}");
            html
        };
        let fold = "<details class=\"redrawn\"><summary>2 redraws</summary>";
        let html =
            check(Redrawn::Folded, None, 7, &[fold, "a 1", "b 1", "a 2", "b 2", "</details>", "a 3", "b 3", "end"]);
        assert_eq!(html.matches("<details").count(), 1);
        check(Redrawn::Folded, Some(1), 7, &["<details class=\"redrawn\" open>"]);
        let told = ["id=\"1:1\" data-redraws=\"2\"", "id=\"1:3\" data-redraws=\"1\"", "id=\"1:5\"><a"];
        check(Redrawn::Told, None, 7, &told);
        // What a range does not show still draws over it, as often as it shows.
        let html = check(Redrawn::Told, None, 3, &["id=\"1:1\" data-redraws=\"2\"", "id=\"1:3\" data-redraws=\"1\""]);
        assert!(!html.contains("id=\"1:4\""), "{html}");
    }

    #[test]
    fn where_something_is_lost_nothing_is_drawn_over() {
        let gap = LogItem::Gap(api::log::LogGap {
            number: 1,
            text: "lost".to_owned(),
            lines: None,
            bytes: None,
            cause: api::log::LogGapCause::Missing,
        });
        let items = [line(0, "a", 0), gap, line(1, "\x1b[1Ab", 0)];
        let rows = Rows { step: Some(0), base: None, marked: None, until: 2, redrawn: Redrawn::Folded };
        let html = written(&items, &rows).0;
        assert!(!html.contains("details") && html.contains("lost"), "{html}");
    }
}
