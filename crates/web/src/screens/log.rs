//! Lines of a log: a range as HTML, the first error of a step, what a search finds.

use api::build::Build;
use api::job::{Attempt, OutcomeWord};
use api::log::{LogHits, LogItem, LogLine, LogStream, LogSummary};
use api::page::Page;
use api::problem::Problem;
use maud::{Markup, PreEscaped, html};

use crate::page::Document;
use crate::{Ask, Source, paths, read, terminal};

/// The most lines of one range.
pub const LINES_MAX: u64 = 1000;
/// How many builds are looked at for one in which a job passed.
const GREEN_BUILDS: u32 = 3;
/// Lines before and after the first error in an excerpt.
const BEFORE: u64 = 6;
const AFTER: u64 = 14;
/// What an error looks like, for a search that cannot know the language; the last lines are shown if nothing does. In
/// ASCII alone, which is searched several times as fast.
pub(crate) const ERROR: &str = r"(?i-u)^\s*(error|fatal|failed|failure|panicked|traceback|exception|assert|FAIL)\b|\b(error|fatal error|panicked at|exception):|AssertionError|Segmentation fault|: No such file|command not found|\bnot found$";
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

/// The lines around the first error of a step with so many lines.
pub(crate) async fn around_first_error(source: &impl Source, of: [u64; 3], lines: u64) -> Result<Markup, Problem> {
    let error = first_error(source, of).await?;
    let from = error.unwrap_or_else(|| lines.saturating_sub(BEFORE + AFTER)).saturating_sub(BEFORE);
    let items = read_range(source, of, Range { from, count: BEFORE + AFTER }, None).await?;
    Ok(
        html! { div.log.excerpt role="group" aria-label="Lines around the first error" tabindex="0" { (written(&items, &Rows { step: None, base: None, marked: error })) } },
    )
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

/// Reads a range, each line compared with those of an earlier attempt.
pub(crate) async fn read_range(
    source: &impl Source,
    [build, attempt, step]: [u64; 3],
    range: Range,
    green: Option<Green>,
) -> Result<Vec<LogItem>, Problem> {
    let path = paths::api_log(build, attempt, step);
    let path = format!("{path}?format=ndjson&from={}&count={}", range.from, range.count);
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

/// How lines are written.
pub(crate) struct Rows<'a> {
    /// The index of their step; `None` for an excerpt, whose rows have no names of their own.
    pub step: Option<u64>,
    /// Where links to lines lead: to the page itself if nothing is said.
    pub base: Option<&'a str>,
    /// The line that is looked for.
    pub marked: Option<u64>,
}

/// Lines as rows.
pub(crate) fn written(items: &[LogItem], rows: &Rows) -> Markup {
    let mut text = String::new();
    let mut before = None;
    for item in whole_lines(items) {
        let row = match &item {
            LogItem::Line(line) => {
                let since = before.map(|at: graph::Timestamp| line.time.0.ms_since(at));
                before = Some(line.time.0);
                row(line, rows, since)
            }
            LogItem::Gap(gap) => html! { div.gap role="note" data-line=(gap.number) { (gap.text) } },
        };
        text.push_str(&row.0);
    }
    PreEscaped(text)
}

fn row(line: &LogLine, rows: &Rows, since: Option<u64>) -> Markup {
    let stream = match line.stream {
        LogStream::Stdout => "",
        LogStream::Stderr => " err",
        LogStream::Note => " note",
    };
    let mark = if rows.marked == Some(line.number) { " marked" } else { "" };
    let same = if line.same { " same" } else { "" };
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
        div class=(format!("l{stream}{mark}{same}{heat}")) id=[id] {
            @match to {
                Some(to) => { a.n href=(to) aria-label=(format!("line {number}")) data-n=(number) {} }
                None => { span.n data-n=(number) {} }
            }
            time.t datetime=(time) data-t=(clock) {}
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
    let of = [number(build)?, number(attempt)?, number(step)?];
    let range =
        Range { from: ask.number("from").unwrap_or(0), count: ask.number("count").unwrap_or(200).clamp(1, LINES_MAX) };
    let items = read_range(source, of, range, Green::read(ask.text("green"))).await?;
    let rows = Rows { step: Some(of[2]), base: None, marked: None };
    Ok(Document { status: 200, text: written(&items, &rows).0 })
}

/// The groups of a step, for a page that is open already: `?lines=` how many the log has.
pub(crate) async fn groups(
    source: &impl Source,
    ask: &Ask,
    [build, attempt, step]: [&str; 3],
) -> Result<Document, Problem> {
    let of = [number(build)?, number(attempt)?, number(step)?];
    let tree = super::groups::tree(source, of, ask.number("lines").unwrap_or(0)).await?;
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
    fn a_line_in_pieces_stands_once() {
        let html = written(
            &[line(4, "one ", 0), line(4, "two", 0), line(5, "<three>", 2_000_000)],
            &Rows { step: Some(0), base: None, marked: Some(5) },
        )
        .0;
        assert_eq!(html.matches("class=\"l").count(), 2);
        assert!(html.contains("one two"), "{html}");
        assert!(html.contains("&lt;three&gt;"), "{html}");
        assert!(html.contains("l err marked h2"), "{html}");
        assert!(html.contains("data-t=\"00:00:02.000\""), "{html}");
    }
}
