//! Lines of a log: a range as HTML, the first error of a step, what a search finds.

use api::log::{LogHits, LogItem, LogLine, LogStream, LogSummary};
use api::problem::Problem;
use maud::{Markup, PreEscaped, html};

use crate::page::Document;
use crate::{Ask, Source, paths, read, terminal};

/// The most lines of one range.
pub const LINES_MAX: u64 = 1000;
/// Lines before and after the first error in an excerpt.
const BEFORE: u64 = 6;
const AFTER: u64 = 14;
/// What an error looks like, for a search that cannot know the language; the last lines are shown if nothing does.
const ERROR: &str = r"(?i)^\s*(error|fatal|failed|failure|panicked|traceback|exception|assert|FAIL)\b|\b(error|fatal error|panicked at|exception):|AssertionError|Segmentation fault|: No such file|command not found|\bnot found$";

/// The first and the next after the last line of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first.
    pub from: u64,
    /// How many.
    pub count: u64,
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
    let path = format!("{}/search?regex={}&limit=1", paths::api_log(build, attempt, step), paths::encoded(ERROR));
    let hits: LogHits = read(source, &path).await?;
    Ok(hits.hits.first().map(|hit| hit.number))
}

/// The lines around the first error of a step with so many lines.
pub(crate) async fn around_first_error(source: &impl Source, of: [u64; 3], lines: u64) -> Result<Markup, Problem> {
    let error = first_error(source, of).await?;
    let from = error.unwrap_or_else(|| lines.saturating_sub(BEFORE + AFTER)).saturating_sub(BEFORE);
    let items = read_range(source, of, Range { from, count: BEFORE + AFTER }).await?;
    Ok(html! { div.log.excerpt { (written(&items, None, error)) } })
}

/// Reads a range.
pub(crate) async fn read_range(
    source: &impl Source,
    [build, attempt, step]: [u64; 3],
    range: Range,
) -> Result<Vec<LogItem>, Problem> {
    let path = paths::api_log(build, attempt, step);
    let body = source.get(&format!("{path}?format=ndjson&from={}&count={}", range.from, range.count)).await?;
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
            continue;
        }
        whole.push(item.clone());
    }
    whole
}

/// Lines as rows. `base` is where links to lines lead: to the page itself if nothing is said.
pub(crate) fn written(items: &[LogItem], base: Option<&str>, marked: Option<u64>) -> Markup {
    let mut rows = String::new();
    let mut before = None;
    for item in whole_lines(items) {
        let row = match &item {
            LogItem::Line(line) => {
                let since = before.map(|at: graph::Timestamp| line.time.0.ms_since(at));
                before = Some(line.time.0);
                row(line, base, marked, since)
            }
            LogItem::Gap(gap) => html! { div.gap role="note" { (gap.text) } },
        };
        rows.push_str(&row.0);
    }
    PreEscaped(rows)
}

fn row(line: &LogLine, base: Option<&str>, marked: Option<u64>, since: Option<u64>) -> Markup {
    let stream = match line.stream {
        LogStream::Stdout => "",
        LogStream::Stderr => " err",
        LogStream::Note => " note",
    };
    let mark = if marked == Some(line.number) { " marked" } else { "" };
    // The browser's own time and heat: which part of a second, a second, ten seconds or a minute went before this line.
    let heat = match since {
        None | Some(0..100) => "",
        Some(100..1_000) => " h1",
        Some(1_000..10_000) => " h2",
        Some(10_000..60_000) => " h3",
        Some(60_000..) => " h4",
    };
    let number = line.number + 1;
    let time = line.time.to_string();
    // RFC 3339 in UTC with a fixed number of digits: hours, minutes, seconds and milliseconds stand at fixed places.
    let clock = time.get(11..23).unwrap_or_default();
    html! {
        div class=(format!("l{stream}{mark}{heat}")) id=(format!("L{number}")) {
            a.n href=(format!("{}#L{number}", base.unwrap_or_default())) aria-label=(format!("line {number}")) data-n=(number) {}
            time.t datetime=(time) data-t=(clock) data-d=[since.map(|ms| format!("+{}", crate::words::span(ms)))] {}
            span.c { (terminal::line(&line.line)) }
        }
    }
}

/// A range for a page that is open already: `?from=` the number of the first line from 0, `?count=`.
pub(crate) async fn lines(
    source: &impl Source,
    ask: &Ask,
    [build, attempt, step]: [&str; 3],
) -> Result<Document, Problem> {
    let number = |name: &str, text: &str| {
        text.parse::<u64>().map_err(|_| {
            Problem::new(api::problem::ProblemKind::NotFound, format!("`{text}` is no number")).field(name, "a number")
        })
    };
    let of = [number("build", build)?, number("attempt", attempt)?, number("step", step)?];
    let range =
        Range { from: ask.number("from").unwrap_or(0), count: ask.number("count").unwrap_or(200).clamp(1, LINES_MAX) };
    let items = read_range(source, of, range).await?;
    Ok(Document { status: 200, text: written(&items, None, None).0 })
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
        section.hits aria-label="What was found" {
            p { (crate::words::count(found.hits.len() as u64, "line matches", "lines match")) @if found.next.is_some() { " so far: the log goes on" } }
            ol {
                @for hit in &found.hits {
                    @let from = hit.number.saturating_sub(100);
                    li value=(hit.number + 1) { a href=(format!("{base}&from={from}&mark={}#L{}", hit.number, hit.number + 1)) data-line=(hit.number) { (crate::words::first_line(&hit.text)) } }
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
        })
    }

    #[test]
    fn a_line_in_pieces_stands_once() {
        let html = written(&[line(4, "one ", 0), line(4, "two", 0), line(5, "<three>", 2_000_000)], None, Some(5)).0;
        assert_eq!(html.matches("class=\"l").count(), 2);
        assert!(html.contains("one two"), "{html}");
        assert!(html.contains("&lt;three&gt;"), "{html}");
        assert!(html.contains("l err marked h2"), "{html}");
        assert!(html.contains("data-t=\"00:00:02.000\""), "{html}");
    }
}
