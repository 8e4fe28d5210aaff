//! What a build's page and a job's page have in common: lines about jobs, tests, artifacts, gates, notes, summaries.

use api::job::{WaitReason, Waiting};
use graph::{AttemptReport, BuildId, JobName, Outcome, TestCase, TestOutcome, Timestamp, Verdict};

use super::{Shown, ShownJob};
use crate::calendar::Calendar;
use crate::child;
use crate::columns::{self, Cell, Columns, Paint, Style};
use crate::first_error::{Excerpt, undeclared};
use crate::whereabouts::quoted;
use crate::words::{self, LeftBehind};
use crate::{drawing, failed_test};

/// How many failed tests are shown with their messages.
const TESTS_SHOWN_MAX: usize = 20;
/// How many lines of summaries are shown.
const SUMMARY_LINES_MAX: usize = 60;
/// How many artifacts, notes and gates are shown each.
const ROWS_MAX: usize = 50;
/// How many jobs are named before a note that all have.
const NAMES_MAX: usize = 3;

/// A title before a part of the page.
pub fn title(page: &mut String, paint: Paint, text: &str) {
    page.push('\n');
    page.push_str(&paint.text(Style::Strong, text));
    page.push('\n');
}

/// The line of a job: mark, name, outcome, time, against usual, reason.
pub fn job_line(shown: &Shown, job: &ShownJob, calendar: &Calendar) -> Vec<Cell> {
    let (mark, word) = mark(shown, job);
    let took_ms = took_ms(job, calendar);
    let usual_ms = shown.usual_ms.get(&job.name).copied();
    let is_compared = matches!(job.outcome(), Some(Outcome::Passed { .. }));
    let against = match (took_ms, usual_ms) {
        (Some(took), Some(usual)) if is_compared => columns::against_usual(took, usual),
        _ => None,
    };
    vec![
        mark,
        Cell::new(job.name.as_str()),
        word,
        Cell::right(took_ms.map(words::duration).unwrap_or_default()),
        against.unwrap_or_default(),
        Cell::new(detail(shown, job, calendar)),
    ]
}

fn mark(shown: &Shown, job: &ShownJob) -> (Cell, Cell) {
    let row = job.row.as_ref();
    if let Some(outcome) = job.outcome() {
        if row.is_some_and(|row| row.reused.is_some()) {
            return (Cell::new("✓").style(Style::Dim), Cell::new("cached").style(Style::Dim));
        }
        return (columns::outcome_mark(outcome), Cell::new(outcome.word()));
    }
    if open_gate(shown, job) {
        return (Cell::new("?").style(Style::Ask), Cell::new("gate").style(Style::Ask));
    }
    match row.map(|row| row.state) {
        Some(store::rows::JobState::Running) if shown.is_run => {
            (Cell::new("●").style(Style::Ask), Cell::new("running"))
        }
        Some(store::rows::JobState::Running) => (Cell::new("!").style(Style::Warning), Cell::new("killed")),
        _ => (Cell::new("·").style(Style::Dim), Cell::new("waiting").style(Style::Dim)),
    }
}

/// Whether a job's gate waits for an answer. That of a job which was canceled at its gate never gets one.
fn open_gate(shown: &Shown, job: &ShownJob) -> bool {
    job.outcome().is_none() && shown.gates.iter().any(|gate| gate.answered.is_none() && gate.job == job.name)
}

/// How long the last attempt took, or has taken so far.
pub fn took_ms(job: &ShownJob, calendar: &Calendar) -> Option<u64> {
    let row = job.row.as_ref().filter(|row| row.attempt.is_some() || row.child.is_some())?;
    let started = row.started?;
    match (row.finished, row.state) {
        (Some(finished), _) => Some(finished.ms_since(started)),
        (None, store::rows::JobState::Running) => Some(calendar.now.ms_since(started)),
        _ => None,
    }
}

fn detail(shown: &Shown, job: &ShownJob, calendar: &Calendar) -> String {
    let mut parts = Vec::new();
    match job.outcome() {
        Some(Outcome::Failed(failure)) => {
            let report = shown.report(job);
            let function = job.job.as_ref().and_then(|job| words::function_failure(job, failure, report));
            let other = || words::failure_of(failure, report);
            parts.push(function.map_or_else(other, str::to_owned));
        }
        Some(Outcome::Skipped(reason)) => parts.push(words::skip_reason(reason)),
        Some(Outcome::Passed { .. }) | None => {}
    }
    if let Some(row) = &job.row {
        if let Some(reused) = &row.reused {
            let other = if reused.job == job.name { String::new() } else { format!(", {}", reused.job) };
            parts.push(format!("from build {}{other}", reused.build));
        }
        let is_told = |child: &BuildId| {
            shown.waits.contains_key(&job.name) || parts.iter().any(|part| words::names_build(part, *child))
        };
        if let Some(child) = row.child.filter(|child| !is_told(child)) {
            parts.push(format!("build {child}"));
        }
        if row.attempts > 1 {
            parts.push(format!("try {}", row.attempts));
        }
        if let Some(retry_at) = row.retry_at.filter(|_| row.outcome.is_none()) {
            parts.push(format!("next try {}", calendar.moment(retry_at)));
        }
    }
    if job.is_failed() && !job.fails_build() {
        parts.push("may fail".to_owned());
    }
    // The time of the next try, and what to type at a gate, stand there already.
    let is_told = |why: &Waiting| matches!(why.reason, WaitReason::Retry { .. } | WaitReason::Gate { .. });
    if let Some(why) = shown.waits.get(&job.name).filter(|why| !is_told(why)) {
        parts.push(words::waiting(why));
    }
    if open_gate(shown, job) {
        parts.push(shown.whereabouts.command(words::approve(shown.row.build, &job.name, job.job.as_deref())));
    }
    parts.join("; ")
}

/// What to type to see more of a job: its log and the shell in what it left; of one that asked for a build, that build.
pub fn commands(shown: &Shown, job: &ShownJob) -> Vec<String> {
    let (build, name, at) = (shown.row.build, &job.name, &shown.whereabouts);
    let Some(row) = &job.row else { return Vec::new() };
    if let Some(child) = shown.children.iter().find(|child| row.child == Some(child.build)) {
        let mut commands = vec![at.command(format_args!("show {}", child.build))];
        if let Verdict::Failed { because: Some(blamed) } = &child.verdict {
            commands.push(at.command(format_args!("logs {} {}", child.build, quoted(blamed.as_str()))));
        }
        return commands;
    }
    let mut commands = Vec::new();
    if row.attempt.is_some() || row.reused.is_some() {
        commands.push(at.command(format_args!("logs {build} {}", quoted(name.as_str()))));
    }
    let left = words::left_behind(job.job.as_deref(), shown.report(job));
    if row.outcome.is_some() && left == LeftBehind::Workspace {
        let place = words::where_it_failed(name, row.outcome.as_ref());
        commands.push(at.command(format_args!("shell {build} {place}")));
    }
    commands
}

/// What happened, when it began, how long it took.
pub fn header(shown: &Shown, calendar: &Calendar, paint: Paint) -> String {
    let row = &shown.row;
    let mut page = format!(
        "{} {}\n",
        paint.text(Style::Strong, &format!("build {}", row.build)),
        paint.text(verdict_style(&row.verdict), &words::verdict(&row.verdict)),
    );
    let mut line = |text: String| page.push_str(&format!("  {}\n", columns::one_line(&text)));
    line(crate::event::describe(&row.event));
    if !row.event.message.is_empty() {
        line(columns::cut(&columns::one_line(&row.event.message), 100));
    }
    let took = row.finished.unwrap_or(calendar.now).ms_since(row.created);
    let verb = if row.finished.is_some() { "took" } else { "for" };
    line(format!(
        "{}, {}, {verb} {}, {}",
        calendar.time(row.created),
        calendar.age(row.created),
        words::duration(took),
        row.pipeline
    ));
    if let Some(retry_of) = row.retry_of {
        line(format!("tries build {retry_of} again"));
    }
    for child in shown.children.iter().take(ROWS_MAX) {
        let job = child.event.parent.as_ref().map(|parent| format!(", for {}", parent.job)).unwrap_or_default();
        let state = if child::is_request(child) { "is asked for".to_owned() } else { words::verdict(&child.verdict) };
        line(format!("build {} {state}{job}: {}", child.build, child.pipeline));
    }
    if child::is_request(row) && !shown.is_run {
        line(format!("has not begun: ropewalk run --resume {}", row.build));
    } else if row.verdict == Verdict::Running && !shown.is_run && row.open_gates == 0 {
        line(format!("no process runs it: ropewalk run --resume {}", shown.resumed_by));
    }
    page
}

fn verdict_style(verdict: &Verdict) -> Style {
    match verdict {
        Verdict::Running => Style::Ask,
        Verdict::Passed { .. } => Style::Good,
        Verdict::Canceled { .. } => Style::Warning,
        Verdict::Failed { .. } | Verdict::Diverged { .. } => Style::Bad,
    }
}

/// The tests of the last attempts, those that failed first and with their messages.
pub fn tests(page: &mut String, shown: &Shown, paint: Paint) {
    let mut counts = [0_usize; 3];
    let mut failed: Vec<(&JobName, &TestCase)> = Vec::new();
    let mut flaky = 0;
    for job in &shown.jobs {
        let Some(report) = shown.report(job) else { continue };
        for test in &report.tests {
            match test.outcome {
                TestOutcome::Passed => counts[0] += 1,
                TestOutcome::Failed | TestOutcome::Errored => {
                    counts[1] += 1;
                    failed.push((&job.name, test));
                }
                TestOutcome::Skipped => counts[2] += 1,
            }
        }
        flaky += flaky_tests(shown, job, report);
    }
    if counts == [0; 3] {
        return;
    }
    let mut text = format!("tests: {} passed", words::thousands(counts[0] as u64));
    for (count, word) in [(counts[1], "failed"), (counts[2], "skipped"), (flaky, "failed in an earlier try")] {
        if count > 0 {
            text.push_str(&format!(", {} {word}", words::thousands(count as u64)));
        }
    }
    title(page, paint, &text);
    for (job, test) in failed.iter().take(TESTS_SHOWN_MAX) {
        page.push_str(&failed_test::text(test, Some(job), paint));
    }
    more(page, failed.len(), TESTS_SHOWN_MAX, "failed tests", shown);
}

/// The lines around a job's first error, and what to do about it where that is known.
pub fn excerpt(page: &mut String, shown: &Shown, job: &ShownJob, excerpt: &Excerpt, paint: Paint) {
    page.push_str(&excerpt.text(paint, 2, crate::output::columns(&std::io::stdout())));
    let Some(described) = &job.job else { return };
    let failed = match job.outcome() {
        Some(Outcome::Failed(failure)) => words::function_help(described, failure).map(str::to_owned),
        _ => None,
    };
    let missed = undeclared::hint(&shown.root, &job.name, described, &excerpt.lines);
    for hint in failed.into_iter().chain(missed) {
        page.push_str(&format!("  {} {hint}\n", paint.text(Style::Strong, "= help:")));
    }
}

/// What the pipeline says of itself.
pub fn statuses(page: &mut String, shown: &Shown, paint: Paint) {
    let Some(graph) = shown.graph.as_ref().filter(|graph| !graph.statuses.is_empty()) else { return };
    title(page, paint, "statuses");
    page.push_str(&drawing::statuses(graph, paint));
}

/// How many tests that passed had failed in an earlier try.
fn flaky_tests(shown: &Shown, job: &ShownJob, report: &AttemptReport) -> usize {
    let last = job.row.as_ref().and_then(|row| row.attempt);
    let earlier = shown.attempts.iter().filter(|attempt| attempt.job == job.name && Some(attempt.attempt) != last);
    if job.row.as_ref().is_none_or(|row| row.attempts < 2) {
        return 0;
    }
    let failed: std::collections::HashSet<(&str, &str)> = earlier
        .filter_map(|attempt| shown.reports.get(&attempt.attempt))
        .flat_map(|report| &report.tests)
        .filter(|test| matches!(test.outcome, TestOutcome::Failed | TestOutcome::Errored))
        .map(|test| (test.suite.as_str(), test.name.as_str()))
        .collect();
    let passed = report.tests.iter().filter(|test| test.outcome == TestOutcome::Passed);
    passed.filter(|test| failed.contains(&(test.suite.as_str(), test.name.as_str()))).count()
}

/// How many of something are not shown.
fn more(page: &mut String, count: usize, shown_max: usize, what: &str, shown: &Shown) {
    if count > shown_max {
        let hidden = words::thousands((count - shown_max) as u64);
        let show = shown.whereabouts.command(format_args!("show {} --output json", shown.row.build));
        page.push_str(&format!("  … {hidden} more {what}: {show}\n"));
    }
}

/// The files that were handed on.
pub fn artifacts(page: &mut String, shown: &Shown, paint: Paint) {
    if shown.artifacts.is_empty() {
        return;
    }
    title(page, paint, "artifacts");
    let mut table = Columns::default();
    for row in shown.artifacts.iter().take(ROWS_MAX) {
        table.row([
            Cell::new(&row.name),
            Cell::new(row.job.as_str()).style(Style::Dim),
            Cell::right(words::count(usize::try_from(row.artifact.files).unwrap_or(usize::MAX), "file")),
            Cell::right(words::size(row.artifact.bytes)),
            Cell::new(row.artifact.digest.short()).style(Style::Dim),
        ]);
    }
    page.push_str(&table.text(paint, 2));
    more(page, shown.artifacts.len(), ROWS_MAX, "artifacts", shown);
}

/// The gates: those that wait with what to type, the others with who answered.
pub fn gates(page: &mut String, shown: &Shown, calendar: &Calendar, paint: Paint) {
    if shown.gates.is_empty() {
        return;
    }
    title(page, paint, "gates");
    for gate in shown.gates.iter().take(ROWS_MAX) {
        let title = || shown.job(&gate.job).and_then(|job| job.job.as_ref()?.title.as_plain().map(str::to_owned));
        let prompt = if gate.prompt.is_empty() { title().unwrap_or_default() } else { gate.prompt.clone() };
        let prompt = columns::cut(&columns::one_line(&prompt), 100);
        let ended = shown.job(&gate.job).and_then(ShownJob::outcome);
        let state = match (&gate.answered, ended) {
            (None, Some(outcome)) => format!("nobody answered before it was {}", outcome.word()),
            (None, None) => {
                let job = shown.job(&gate.job).and_then(|job| job.job.as_deref());
                let words = words::approve(shown.row.build, &gate.job, job);
                let command = shown.whereabouts.command(words);
                paint.text(Style::Ask, &command)
            }
            (Some(answer), _) => {
                let word = if answer.answer.is_some() { "approved" } else { "rejected" };
                let by = columns::one_line(&answer.by);
                let said = answer.answer.as_ref().map(words::answer).filter(|said| !said.is_empty());
                let said = said.map(|said| format!("\n      {said}")).unwrap_or_default();
                format!("{word} by {by}, {}{}{said}", when(calendar, answer.at), words::in_brackets(&answer.reason))
            }
        };
        page.push_str(&format!("  {}: {prompt}\n      {state}\n", gate.job));
    }
    more(page, shown.gates.len(), ROWS_MAX, "gates", shown);
}

/// Remarks of the last attempts; what holds for several jobs stands once.
pub fn notes(page: &mut String, shown: &Shown, paint: Paint) {
    let mut notes: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut places: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    for (job, report) in shown.jobs.iter().filter_map(|job| Some((job, shown.report(job)?))) {
        for note in report.remarks() {
            let place = *places.entry(note).or_insert(notes.len());
            if place == notes.len() {
                notes.push((note, Vec::new()));
            }
            notes[place].1.push(job.name.as_str());
        }
    }
    if notes.is_empty() {
        return;
    }
    title(page, paint, "notes");
    for (note, names) in notes.iter().take(ROWS_MAX) {
        let listed = names[..names.len().min(NAMES_MAX)].join(", ");
        let more = match names.len().saturating_sub(NAMES_MAX) {
            0 => String::new(),
            more => format!(" and {} more", words::thousands(more as u64)),
        };
        page.push_str(&format!("  {listed}{more}: {}\n", columns::one_line(note)));
    }
    more(page, notes.len(), ROWS_MAX, "notes", shown);
}

/// What jobs wrote to `$ROPEWALK_SUMMARY`, as Markdown.
pub fn summaries(page: &mut String, shown: &Shown, paint: Paint) {
    let mut room = SUMMARY_LINES_MAX;
    for job in &shown.jobs {
        let Some(report) = shown.report(job).filter(|report| !report.summary.trim().is_empty()) else { continue };
        if room == 0 {
            page.push_str("  … more summaries: name a job\n");
            return;
        }
        title(page, paint, &format!("summary of {}", job.name));
        for line in report.summary.trim().lines().take(room) {
            page.push_str(format!("  {}", columns::bare(line)).trim_end());
            page.push('\n');
        }
        room = room.saturating_sub(report.summary.trim().lines().count());
    }
}

/// A point in time and how long ago it was.
pub fn when(calendar: &Calendar, at: Timestamp) -> String {
    format!("{}, {}", calendar.time(at), calendar.age(at))
}
