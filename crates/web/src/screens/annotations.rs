//! What steps said of lines of files, in the forms that are known: GitHub's workflow commands, what compilers print, and rustc's two lines.
//!
//! Nobody collects them while jobs run. The logs are searched when somebody looks, as a reader could search them, within bounds that the page tells.

use std::collections::{BTreeMap, BTreeSet};

use api::build::Build;
use api::job::Job;
use api::log::{LogHit, LogHits, LogSummary};
use api::problem::Problem;
use api::workflow_command::WorkflowCommand;
use maud::{Markup, html};

use super::build::{JOBS_MAX, title};
use super::projects::name;
use crate::page::{Crumb, Document, Head, document};
use crate::words::{self, Standing};
use crate::{Source, paths, read, read_all};

/// Of how many jobs the logs are searched: those that failed, then the others in their order.
const SEARCHED_JOBS_MAX: usize = 20;
/// How many steps of them all.
const SEARCHES_MAX: usize = 40;
/// How long one search may take, in milliseconds; what it has found by then counts.
const WITHIN_MS: u32 = 100;
/// How many lines one search may find.
const HITS_MAX: u32 = 200;
/// How many are shown.
const SHOWN_MAX: usize = 100;
/// The longest message that is shown, in bytes.
const MESSAGE_BYTES_MAX: usize = 600;

/// What speaks of a line of a file. In ASCII alone, which is searched several times as fast. Sources: GitHub, "Workflow commands", Setting a notice, warning, or
/// error message; GCC, "Diagnostic Message Formatting Options"; TypeScript's and rustc's own output.
const MARKS: &str = r"(?-u)^(?:::(?:error|warning|notice)(?: [^\r\n]*?)?::[^\s]|##\[(?:error|warning)\][^\s]|[^\s:]+:[0-9]+(?::[0-9]+)?: (?:fatal )?(?:error|warning)\b|[^\s:(]+\([0-9]+,[0-9]+\): (?:error|warning)\b|(?:error|warning)(?:\[[A-Z]?[0-9]+\])?: [^\s]| *--> [^\s]+:[0-9]+:[0-9]+$)";

/// How much it matters, the most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Error,
    Warning,
    Notice,
}

impl Severity {
    fn read(word: &str) -> Option<Self> {
        Some(match word {
            "error" => Self::Error,
            "warning" => Self::Warning,
            "notice" => Self::Notice,
            _ => return None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

/// What a step said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Annotation {
    severity: Severity,
    /// `file:line:column`, as much of it as was said.
    place: String,
    message: String,
}

/// What a line says by itself.
enum Said {
    Whole(Annotation),
    /// The first of rustc's two lines.
    Head(Severity, String),
    /// The second.
    Place(String),
}

fn said(text: &str) -> Option<Said> {
    let text = text.trim_end();
    if text.starts_with("::") || text.starts_with("##[") {
        return command(text).map(Said::Whole);
    }
    if let Some(place) = text.trim_start().strip_prefix("--> ") {
        return Some(Said::Place(place.to_owned()));
    }
    let (head, message) = text.split_once(": ")?;
    let word = head.split_once('[').map_or(head, |(word, _)| word);
    if let Some(severity) = Severity::read(word) {
        return Some(Said::Head(severity, message.to_owned()));
    }
    // `file:line:column: error: message`, `file(line,column): error TS1: message`.
    let message = message.strip_prefix("fatal ").unwrap_or(message);
    let end = message.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(message.len());
    let severity = Severity::read(&message[..end])?;
    let message = message[end..].trim_start_matches(':').trim().to_owned();
    let place = match head.strip_suffix(')').and_then(|head| head.rsplit_once('(')) {
        Some((file, at)) => format!("{file}:{}", at.replace(',', ":")),
        None => head.to_owned(),
    };
    Some(Said::Whole(Annotation { severity, place, message }))
}

fn command(line: &str) -> Option<Annotation> {
    let command = WorkflowCommand::of(line)?;
    let (severity, message) = (Severity::read(command.word)?, command.message().into_owned());
    Some(Annotation { severity, place: command.place, message })
}

/// What lines of one step say, each with the number of its line.
fn read_hits(hits: &[LogHit]) -> Vec<(u64, Annotation)> {
    let mut found = Vec::new();
    let mut head: Option<(u64, Severity, String)> = None;
    for hit in hits {
        match said(&hit.text) {
            Some(Said::Whole(annotation)) => found.push((hit.number, annotation)),
            Some(Said::Head(severity, message)) => head = Some((hit.number, severity, message)),
            Some(Said::Place(place)) => {
                // A head alone says nothing of a line, as rustc's count of its warnings.
                if let Some((number, severity, message)) = head.take().filter(|(number, ..)| number + 1 == hit.number) {
                    found.push((number, Annotation { severity, place, message }));
                }
            }
            None => {}
        }
    }
    found
}

/// Where one was said.
struct Place {
    job: usize,
    attempt: u32,
    step: u16,
    line: u64,
}

/// All that was found.
struct Found {
    jobs: Vec<Job>,
    /// By severity, then in the order of the pipeline.
    annotations: Vec<(Annotation, Place)>,
    /// How many jobs were searched, and how many have logs.
    searched: usize,
    logged: usize,
    /// Steps of which only a part was searched.
    cut: usize,
}

impl Found {
    async fn read(source: &impl Source, build: &Build) -> Result<Self, Problem> {
        let of_build = format!("/api/v1/builds/{}", build.id);
        let mut jobs = read_all::<Job>(source, &format!("{of_build}/jobs"), JOBS_MAX).await?.0;
        jobs.sort_by(|left, right| (left.order, &left.name).cmp(&(right.order, &right.name)));
        let mut order: Vec<usize> = (0..jobs.len()).filter(|index| jobs[*index].attempt.is_some()).collect();
        order.sort_by_key(|index| Standing::of_job(&jobs[*index]) != Standing::Failed);
        let (logged, mut searched, mut cut, mut searches) = (order.len(), 0, 0, 0);
        let (mut annotations, mut seen) = (Vec::new(), BTreeSet::new());
        let logs = read_all::<LogSummary>(source, &format!("{of_build}/logs"), JOBS_MAX).await?.0;
        let logs: BTreeMap<u32, LogSummary> = logs.into_iter().map(|log| (log.attempt, log)).collect();
        for index in order.into_iter().take(SEARCHED_JOBS_MAX) {
            let Some(attempt) = jobs[index].attempt else { continue };
            if searches >= SEARCHES_MAX {
                break;
            }
            searched += 1;
            let steps = logs.get(&attempt).into_iter().flat_map(|log| &log.steps);
            for step in steps.filter(|step| step.lines > 0) {
                if searches >= SEARCHES_MAX {
                    cut += 1;
                    continue;
                }
                searches += 1;
                let path = paths::api_log(build.id, attempt, step.step);
                let path =
                    format!("{path}/search?regex={}&limit={HITS_MAX}&within_ms={WITHIN_MS}", paths::encoded(MARKS));
                let hits: LogHits = read(source, &path).await?;
                cut += usize::from(hits.next.is_some());
                for (line, annotation) in read_hits(&hits.hits) {
                    if seen.insert((index, annotation.clone())) {
                        annotations.push((annotation, Place { job: index, attempt, step: step.step, line }));
                    }
                }
            }
        }
        annotations.sort_by_key(|(annotation, place)| (annotation.severity, place.job));
        Ok(Self { jobs, annotations, searched, logged, cut })
    }
}

/// Writes the page; what is in `#annotations` stands on the build's page too.
pub(crate) async fn show(source: &impl Source, build: &str) -> Result<Document, Problem> {
    let build: Build = read(source, &format!("/api/v1/builds/{}", paths::encoded(build))).await?;
    let found = Found::read(source, &build).await?;
    let main = html! {
        h1 { "Annotations of " (name(&build)) }
        section #annotations aria-label="Annotations" { (list(&build, &found)) }
        @if found.annotations.is_empty() {
            p.empty { "No step said anything of a line in a form that is known: " code { "::error file=F,line=L::TEXT" } ", " code { "file:line:column: error: TEXT" } "." }
        }
    };
    let mut crumbs = Vec::new();
    if !build.project.is_empty() {
        crumbs.push(Crumb::new(&build.project, paths::project(&build.project)));
    }
    crumbs.push(Crumb::new(name(&build), paths::build(build.id)));
    let title = format!("Annotations of {} {}", build.project, name(&build));
    Ok(document(&Head { title: &title, crumbs, stream: None }, &main))
}

fn list(build: &Build, found: &Found) -> Markup {
    let Found { jobs, annotations, searched, logged, cut } = found;
    html! {
        @if !annotations.is_empty() {
            h2 { "Annotations" }
            p.quiet { (tally(annotations)) @if searched < logged { ", in the logs of " (searched) " of " (logged) " jobs" } @if *cut > 0 { "; of " (words::count(*cut as u64, "step", "steps")) " not all was searched" } }
            ol.annotations {
                @for (annotation, place) in annotations.iter().take(SHOWN_MAX) {
                    @let job = &jobs[place.job];
                    @let line = format!("{}?attempt={}&step={}&from={}#{}:{}", paths::job(build.id, &job.name), place.attempt, place.step, place.line.saturating_sub(100), place.step + 1, place.line + 1);
                    li.(annotation.severity.word()) {
                        strong.severity { (annotation.severity.word()) } " "
                        @if !annotation.place.is_empty() { code { (annotation.place) } " " }
                        span.said { (cut_to(&annotation.message)) } " "
                        a href=(line) { (title(job)) ", line " (place.line + 1) }
                    }
                }
            }
            @if annotations.len() > SHOWN_MAX { p.quiet { "Only the first " (SHOWN_MAX) " are shown." } }
        }
    }
}

/// How many of each.
fn tally(annotations: &[(Annotation, Place)]) -> String {
    let count = |wanted| annotations.iter().filter(|(annotation, _)| annotation.severity == wanted).count() as u64;
    let counts = [(Severity::Error, "errors"), (Severity::Warning, "warnings"), (Severity::Notice, "notices")];
    let said = counts.into_iter().map(|(severity, many)| (count(severity), severity.word(), many));
    said.filter(|(n, ..)| *n > 0).map(|(n, one, many)| words::count(n, one, many)).collect::<Vec<_>>().join(", ")
}

/// A message, as much of it as is shown.
fn cut_to(message: &str) -> String {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message.to_owned();
    }
    let end = (0..=MESSAGE_BYTES_MAX).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &message[..end])
}

#[cfg(test)]
mod tests {
    use api::log::LogStream;
    use api::time::Time;
    use graph::Timestamp;

    use super::*;

    fn check(lines: &[&str], expected: &[(u64, &str)]) {
        let hit = |(number, text): (usize, &&str)| LogHit {
            number: number as u64,
            stream: LogStream::Stdout,
            time: Time(Timestamp(0)),
            text: (*text).to_owned(),
        };
        let hits: Vec<LogHit> = lines.iter().enumerate().map(hit).collect();
        let found = read_hits(&hits);
        let written: Vec<(u64, String)> = found
            .iter()
            .map(|(number, it)| (*number, format!("{} {} {}", it.severity.word(), it.place, it.message)))
            .collect();
        let written: Vec<(u64, &str)> = written.iter().map(|(number, text)| (*number, text.as_str())).collect();
        assert_eq!(written, expected, "{lines:?}");
    }

    #[test]
    fn the_forms_that_are_known_are_read() {
        check(&["##[error]no good"], &[(0, "error  no good")]);
        check(
            &["::error file=src/a.rs,line=3,col=5,title=Lint::no%0Agood"],
            &[(0, "error src/a.rs:3:5 Lint: no\ngood")],
        );
        check(&["::warning::look"], &[(0, "warning  look")]);
        check(&["::notice line=3::no file"], &[(0, "notice  no file")]);
        check(
            &["a.c:3:5: fatal error: x.h: No such file", "a.c:7: warning: old"],
            &[(0, "error a.c:3:5 x.h: No such file"), (1, "warning a.c:7 old")],
        );
        check(
            &["src/a.ts(3,5): error TS2304: Cannot find name"],
            &[(0, "error src/a.ts:3:5 TS2304: Cannot find name")],
        );
        check(&["error[E0308]: mismatched types", "  --> src/a.rs:3:5"], &[(0, "error src/a.rs:3:5 mismatched types")]);
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        check(&["warning: 3 warnings emitted", "error: could not compile"], &[]);
        check(&["  --> src/a.rs:3:5"], &[]);
        check(&["warning: x", "a line between", "  --> src/a.rs:3:5"], &[]);
        check(&["::group::error", "::error", "note: file:3:5: see there"], &[]);
    }
}
