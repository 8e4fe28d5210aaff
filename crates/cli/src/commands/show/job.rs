//! The page of a job.

use graph::{AttemptReport, CacheFound, CacheSaved, Job, JobName, Outcome, StepReport, StepResult, Toleration};

use super::parts::{self, title};
use super::{Shown, ShownJob, Stop};
use crate::archive::Archive;
use crate::calendar::Calendar;
use crate::columns::{self, Cell, Columns, Paint, Style};
use crate::view::Stream;
use crate::view::annotation::Annotation;
use crate::whereabouts::quoted;
use crate::words;

/// How many inputs are listed.
const INPUTS_SHOWN_MAX: usize = 20;
/// How many warnings and errors are listed.
const SAID_SHOWN_MAX: usize = 20;

/// The page.
pub fn text(
    shown: &Shown,
    archive: &dyn Archive,
    calendar: &Calendar,
    paint: Paint,
    name: &JobName,
) -> Result<String, Stop> {
    let Some(job) = shown.job(name) else {
        return Err(Stop::wrong(format!("build {} has no job `{name}`", shown.row.build)));
    };
    let mut page = header(shown, job, calendar, paint);
    if let Some(report) = shown.report(job) {
        steps(&mut page, job.job.as_deref(), report, paint);
    }
    tries(&mut page, shown, job, calendar, paint);
    outputs(&mut page, job, paint);
    parts::gates(&mut page, shown, calendar, paint);
    parts::tests(&mut page, shown, paint);
    if job.is_failed()
        && let Some(excerpt) = shown.excerpt(archive, name)?
    {
        let what = if excerpt.error.is_some() { "first error" } else { "last lines" };
        title(&mut page, paint, what);
        parts::excerpt(&mut page, shown, job, &excerpt, paint);
    }
    said(&mut page, shown, archive, job, paint)?;
    parts::artifacts(&mut page, shown, paint);
    inputs(&mut page, archive, job, paint)?;
    caches(&mut page, shown, job, paint);
    parts::notes(&mut page, shown, paint);
    parts::summaries(&mut page, shown, paint);
    next(&mut page, shown, job, paint);
    Ok(page)
}

/// What the last attempt read and wrote of keyed caches.
fn caches(page: &mut String, shown: &Shown, job: &ShownJob, paint: Paint) {
    let Some(report) = shown.report(job).filter(|report| !report.caches.is_empty()) else { return };
    title(page, paint, "caches");
    for cache in &report.caches {
        let found = match cache.found {
            CacheFound::Key => format!("restored, {}", words::size(cache.found_bytes)),
            CacheFound::Prefix => {
                let from = crate::columns::one_line(&cache.found_key);
                format!("restored from `{from}`, {}", words::size(cache.found_bytes))
            }
            CacheFound::Nothing => "nothing was kept".to_owned(),
            CacheFound::Refused => "was not restored".to_owned(),
        };
        let saved = match cache.saved {
            CacheSaved::Not => String::new(),
            CacheSaved::Written => {
                let (all, put) = (words::size(cache.saved_bytes), words::size(cache.put_bytes));
                format!("; saved, {all}, of which {put} were new")
            }
            CacheSaved::Kept => "; another job had saved it meanwhile".to_owned(),
            CacheSaved::Refused => "; was not saved".to_owned(),
        };
        page.push_str(&format!("  {}: {found}{saved}\n", crate::columns::one_line(&cache.key)));
    }
}

fn header(shown: &Shown, job: &ShownJob, calendar: &Calendar, paint: Paint) -> String {
    let mut page = format!("build {}, {}\n", shown.row.build, paint.text(Style::Strong, job.name.as_str()));
    let mut table = Columns::default();
    let mut line = parts::job_line(shown, job, calendar);
    // The name stands above.
    line.remove(1);
    table.row(line);
    page.push_str(&table.text(paint, 2));
    let mut facts = Vec::new();
    if let Some(started) = job.row.as_ref().and_then(|row| row.started) {
        facts.push(parts::when(calendar, started));
    }
    if let Some(usual) = shown.usual_ms.get(&job.name) {
        facts.push(format!("usually {}", words::duration(*usual)));
    }
    if let Some(attempt) = shown.attempts.last() {
        facts.push(format!("worker {}", attempt.worker));
    }
    if let Some(partial) = shown.report(job).and_then(|report| report.partial) {
        facts.push(format!("asked for {partial}"));
    }
    if let Some(described) = &job.job {
        facts.push(described.environment.word().to_owned());
        if !described.needs.is_empty() {
            let needs: Vec<&str> = described.needs.iter().take(8).map(|need| need.job.as_str()).collect();
            let more = if described.needs.len() > needs.len() { ", …" } else { "" };
            facts.push(format!("needs {}{more}", needs.join(", ")));
        }
    }
    if !facts.is_empty() {
        page.push_str(&format!("  {}\n", facts.join("; ")));
    }
    page
}

fn steps(page: &mut String, job: Option<&Job>, report: &AttemptReport, paint: Paint) {
    if report.steps.is_empty() {
        return;
    }
    title(page, paint, "steps");
    let mut table = Columns::default();
    let mut lines = 0;
    for (index, step) in report.steps.iter().enumerate() {
        let is_tolerated = job.and_then(|job| job.steps.get(index)).is_some_and(|step| step.allow_failure);
        let toleration = if is_tolerated { Toleration::AllowFailure } else { Toleration::Required };
        table.row(step_line(index, step, toleration, lines));
        lines += step.lines;
    }
    let usage = &report.usage;
    page.push_str(&table.text(paint, 2));
    page.push_str(&format!(
        "  in all: cpu {} (user {}, system {}), peak memory {}\n",
        words::duration((usage.cpu_user_us + usage.cpu_system_us) / 1000),
        words::duration(usage.cpu_user_us / 1000),
        words::duration(usage.cpu_system_us / 1000),
        words::size(usage.peak_memory_bytes),
    ));
}

fn step_line(index: usize, step: &StepReport, toleration: Toleration, lines_before: u64) -> Vec<Cell> {
    let (mark, style) = match step.result {
        StepResult::Passed => ("✓", Style::Good),
        StepResult::Skipped => ("-", Style::Dim),
        StepResult::Canceled => ("■", Style::Warning),
        StepResult::Failed if toleration == Toleration::AllowFailure => ("✗", Style::Warning),
        StepResult::Failed => ("✗", Style::Bad),
    };
    let aside =
        if toleration == Toleration::AllowFailure && step.result == StepResult::Failed { ", may fail" } else { "" };
    let end = match (step.signal, step.exit) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(exit)) => format!("exit {exit}"),
        (None, None) => step.result.word().to_owned(),
    };
    let lines = match step.lines {
        0 => "no output".to_owned(),
        1 => format!("line {}", lines_before + 1),
        lines => format!("lines {}-{}", lines_before + 1, lines_before + lines),
    };
    vec![
        Cell::new(mark).style(style),
        Cell::right((index + 1).to_string()),
        Cell::new(&step.name),
        Cell::right(words::duration(step.finished.ms_since(step.started))),
        Cell::new(format!("{end}{aside}")),
        Cell::new(format!("cpu {}", words::duration((step.usage.cpu_user_us + step.usage.cpu_system_us) / 1000))),
        Cell::right(words::size(step.usage.peak_memory_bytes)),
        Cell::new(lines).style(Style::Dim),
    ]
}

/// The attempts before the last one.
fn tries(page: &mut String, shown: &Shown, job: &ShownJob, calendar: &Calendar, paint: Paint) {
    let last = job.row.as_ref().and_then(|row| row.attempt);
    let earlier: Vec<_> = shown.attempts.iter().filter(|attempt| Some(attempt.attempt) != last).collect();
    if earlier.is_empty() {
        return;
    }
    title(page, paint, "earlier tries");
    let mut table = Columns::default();
    for attempt in earlier {
        let (mark, how, took) = match &attempt.ended {
            None => (Cell::new("!"), "did not end".to_owned(), String::new()),
            Some(end) => {
                let how = match &end.outcome {
                    Outcome::Failed(failure) => words::failure_of(failure, shown.reports.get(&attempt.attempt)),
                    outcome => words::outcome(outcome),
                };
                let partial = shown.reports.get(&attempt.attempt).and_then(|report| report.partial);
                let how = partial.map_or_else(|| how.clone(), |partial| format!("{how}, asked for {partial}"));
                (columns::outcome_mark(&end.outcome), how, words::duration(end.finished.ms_since(end.started)))
            }
        };
        table.row([
            mark,
            Cell::right(format!("try {}", attempt.try_number)),
            Cell::new(calendar.time(attempt.leased)),
            Cell::right(took),
            Cell::new(attempt.worker.to_string()),
            Cell::new(how),
        ]);
    }
    page.push_str(&table.text(paint, 2));
}

/// What a function returned, as its program writes it.
#[derive(serde::Deserialize)]
struct TypedValue {
    value: serde_json::Value,
    #[serde(rename = "schema")]
    _schema: String,
}

fn outputs(page: &mut String, job: &ShownJob, paint: Paint) {
    let Some(Outcome::Passed { outputs }) = job.outcome() else { return };
    if outputs.is_empty() {
        return;
    }
    title(page, paint, "outputs");
    for (name, value) in outputs {
        // What a function returned stands under `value` once more, with the digest of its type.
        let typed = value.as_str().and_then(|text| serde_json::from_str::<TypedValue>(text).ok());
        let value = match typed.filter(|_| name == "value") {
            Some(_) if outputs.len() > 1 => continue,
            Some(typed) => typed.value,
            None => value.clone(),
        };
        page.push_str(&format!("  {name} = {}\n", columns::cut(&columns::bare(&value.to_string()), 160)));
    }
}

/// The warnings and errors that it told whoever reads its log.
fn said(page: &mut String, shown: &Shown, archive: &dyn Archive, job: &ShownJob, paint: Paint) -> Result<(), Stop> {
    let (lines, count) = shown.said(archive, &job.name, SAID_SHOWN_MAX)?;
    if count == 0 {
        return Ok(());
    }
    title(page, paint, "warnings and errors");
    let mut table = Columns::default();
    for line in &lines {
        let said = Annotation::of(Stream::Stdout, &line.text);
        let style = if matches!(said, Some(Annotation::Error(_))) { Style::Bad } else { Style::Warning };
        let text = said.and_then(|said| said.text(Paint::Plain)).unwrap_or_default();
        table.row([Cell::right(format!("line {}", line.number)).style(Style::Dim), Cell::new(text).style(style)]);
    }
    page.push_str(&table.text(paint, 2));
    if count > lines.len() {
        let more = words::thousands((count - lines.len()) as u64);
        let logs =
            shown.whereabouts.command(format_args!("logs {} {} --folded", shown.row.build, quoted(job.name.as_str())));
        page.push_str(&format!("  … {more} more: {logs}\n"));
    }
    Ok(())
}

fn inputs(page: &mut String, archive: &dyn Archive, job: &ShownJob, paint: Paint) -> Result<(), Stop> {
    let Some(operation) = job.operation() else { return Ok(()) };
    title(page, paint, &format!("operation {}", operation.short()));
    let Some(manifest) = archive.manifest(operation)? else {
        page.push_str("  what it was made of is kept only of jobs that passed\n");
        return Ok(());
    };
    page.push_str(&format!("  {}\n", crate::commands::explain::parts_text(&manifest)));
    let files: Vec<(&str, &str)> =
        manifest.0.iter().filter_map(|(part, value)| Some((part.strip_prefix("file:")?, value.as_str()))).collect();
    for (path, digest) in files.iter().take(INPUTS_SHOWN_MAX) {
        let digest = paint.text(Style::Dim, digest.get(..12).unwrap_or(digest));
        page.push_str(&format!("  {digest}  {}\n", columns::one_line(path)));
    }
    if files.len() > INPUTS_SHOWN_MAX {
        let hidden = words::count(files.len() - INPUTS_SHOWN_MAX, "more file");
        page.push_str(&format!("  … {hidden}: --output json\n"));
    }
    Ok(())
}

fn next(page: &mut String, shown: &Shown, job: &ShownJob, paint: Paint) {
    let (build, name, at) = (shown.row.build, &job.name, &shown.whereabouts);
    let mut commands = parts::commands(shown, job);
    if let Some(reused) = job.row.as_ref().and_then(|row| row.reused.as_ref()) {
        commands.push(at.command(format_args!("show {} {}", reused.build, quoted(reused.job.as_str()))));
    }
    if !at.is_there() {
        commands.push(at.command(format_args!("explain {} --build {build}", quoted(name.as_str()))));
    }
    if commands.is_empty() {
        return;
    }
    title(page, paint, "next");
    for command in commands {
        page.push_str(&format!("  {command}\n"));
    }
}
