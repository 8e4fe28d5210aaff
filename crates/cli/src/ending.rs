//! What `run` says when a build is over: the failed jobs with the lines around their first error, and what to do next.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use dialects::tree::Sources;
use graph::outcome::JobEnd;
use graph::{AttemptReport, BuildId, Failure, JobName, Outcome, Toleration, Verdict};
use store::log::{StreamKey, Writing};

use crate::args::{Colour, Output};
use crate::columns::{Paint, Style};
use crate::commands::Stop;
use crate::first_error::{self, Excerpt, ExcerptLine, undeclared};
use crate::local::LocalWorld;
use crate::places::Places;
use crate::whereabouts::{Whereabouts, quoted};
use crate::words::LeftBehind;
use crate::{drawing, failed_test, faults, words};

/// Failed jobs shown with their lines; the rest are only named.
const JOBS_SHOWN_MAX: usize = 5;
/// Failed tests shown of a job.
const TESTS_SHOWN_MAX: usize = 5;

/// Prints the ending to standard error, so that what a pipe reads stays as it is. Nothing for JSON.
///
/// # Errors
/// If the log cannot be read.
pub fn show(
    world: &LocalWorld,
    places: &Places,
    root: &Path,
    build: BuildId,
    form: Output,
    colour: Colour,
) -> Result<(), Stop> {
    if form == Output::Json {
        return Ok(());
    }
    let is_live = crate::commands::run::form(form, &std::io::stdout()) == Output::Live;
    let paint = Paint::of(colour, &std::io::stderr());
    let at = Whereabouts::here();
    let mut text = String::new();
    let graph = if world.failed.is_empty() { None } else { places.store.graph(build)? };
    let failed = world.failures(graph.as_deref());
    let job_of = |name: &JobName| graph.as_ref().and_then(|graph| graph.jobs.get(name));
    let toleration = |name: &JobName| job_of(name).map_or(Toleration::Required, |job| job.toleration());
    for &JobEnd { name: job, outcome, .. } in failed.iter().take(JOBS_SHOWN_MAX) {
        let described = job_of(job);
        let (shown, lines) = failed_job(places, build, (job, described), outcome, toleration(job), paint)?;
        text.push_str(&shown);
        if let (Some(described), Outcome::Failed(failure)) = (described, outcome)
            && let Some(hint) = words::function_help(described, failure)
        {
            let _ = writeln!(text, "  {} {hint}", paint.text(Style::Strong, "= help:"));
        }
        if let Some(hint) = described.and_then(|described| undeclared::hint(root, job, described, &lines)) {
            let _ = writeln!(text, "  {} {hint}", paint.text(Style::Strong, "= help:"));
        }
    }
    if failed.len() > JOBS_SHOWN_MAX {
        let show = at.command(format_args!("show {build}"));
        let _ = writeln!(text, "\n… and {} more: {show}", failed.len() - JOBS_SHOWN_MAX);
    }
    if !world.faults.is_empty() {
        let lowered = world.last_lowering();
        let nothing = Sources::new();
        let sources = lowered.as_ref().map_or(&nothing, |lowered| &lowered.sources);
        text.push('\n');
        text.push_str(&faults::text(&world.faults, sources, paint));
    }
    if let Some(graph) = world.graph.as_ref().filter(|graph| !graph.statuses.is_empty()) {
        let _ = write!(text, "\n{}\n{}", paint.text(Style::Strong, "statuses"), drawing::statuses(graph, paint));
    }
    match &world.verdict {
        None => {
            let gates = places.store.open_gates(build)?;
            let job = |gate: &JobName| world.graph.as_ref()?.jobs.get(gate).map(|job| &**job);
            let asked: Vec<_> = gates.iter().map(|gate| words::approve(build, &gate.job, job(&gate.job))).collect();
            let approve = match asked.as_slice() {
                [one] => at.command(one),
                _ => at.command(format_args!("approve {build} GATE")),
            };
            let _ = writeln!(text, "build {build} waits at a gate: {approve} goes on with it");
        }
        Some(verdict) if is_live => {
            let style = match verdict {
                Verdict::Passed { .. } => Style::Good,
                Verdict::Canceled { .. } => Style::Warning,
                _ => Style::Bad,
            };
            let told = format!("build {build} {}", words::verdict(verdict));
            let _ = writeln!(text, "{}{}", paint.text(style, &told), took(places, build)?);
        }
        Some(_) => {}
    }
    if let (Some(first), true) = (failed.first(), world.verdict.is_some()) {
        let report = places.store.reports(build, Some(first.name))?.pop();
        let described = job_of(first.name).map(|job| &**job);
        // On a full disk it has given way.
        let is_kept = |attempt| worker::workspace_directory(&places.data, build, attempt).exists();
        match words::left_behind(described, report.as_ref().map(|(_, report)| report)) {
            LeftBehind::Nothing => {}
            LeftBehind::Workspace if !report.is_some_and(|(attempt, _)| is_kept(attempt)) => {}
            LeftBehind::InTree => {
                let _ =
                    writeln!(text, "\n`{}` worked in your tree itself (workspace: in_place): look there", first.name);
            }
            LeftBehind::Workspace => {
                let place = words::where_it_failed(first.name, Some(first.outcome));
                let shell = at.command(format_args!("shell {build} {place}"));
                let _ = writeln!(text, "\nto look around where it failed, without running it again:\n  {shell}");
            }
        }
    }
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
    Ok(())
}

/// ` in 3.2 s, 4 cached`.
fn took(places: &Places, build: BuildId) -> Result<String, Stop> {
    let Some(row) = places.store.build(build)? else { return Ok(String::new()) };
    let Some(finished) = row.finished else { return Ok(String::new()) };
    let cached = match row.counts.reused {
        0 => String::new(),
        reused => format!(", {} cached", words::thousands(reused)),
    };
    Ok(format!(" in {}{cached}", words::duration(finished.ms_since(row.created))))
}

fn failed_job(
    places: &Places,
    build: BuildId,
    (job, described): (&JobName, Option<&std::sync::Arc<graph::Job>>),
    outcome: &Outcome,
    toleration: Toleration,
    paint: Paint,
) -> Result<(String, Vec<ExcerptLine>), Stop> {
    let mark = paint.text(Style::Bad, &format!("✗ {job}"));
    let report = places.store.reports(build, Some(job))?.pop();
    let described = described.map(|job| &**job);
    let told = report.as_ref().map_or_else(|| words::outcome(outcome), |(_, report)| words::report(report, described));
    let aside = if toleration == Toleration::AllowFailure { "; may fail" } else { "" };
    let mut text = format!("\n{mark}: {}{aside}\n", words::harmless(&told));
    let tests = report.iter().flat_map(|(_, report)| &report.tests).filter(|test| test.outcome.is_failure());
    let tests: Vec<_> = tests.collect();
    for test in tests.iter().take(TESTS_SHOWN_MAX) {
        text.push_str(&failed_test::text(test, None, paint));
    }
    if tests.len() > TESTS_SHOWN_MAX {
        let show = Whereabouts::here().command(format_args!("show {build} {}", quoted(job.as_str())));
        let _ = writeln!(
            text,
            "  … {} more failed tests: {show}",
            words::thousands((tests.len() - TESTS_SHOWN_MAX) as u64)
        );
    }
    let step = match outcome {
        Outcome::Failed(Failure::Step { step, .. } | Failure::Timeout { step: Some(step), .. }) => Some(*step),
        _ => None,
    };
    let report = report.as_ref().map(|(_, report)| report);
    let excerpt = excerpt(places, build, (job, described), (outcome, report), step)?;
    text.push_str(&excerpt.text(paint, 2, crate::output::columns(&std::io::stderr())));
    Ok((text, excerpt.lines))
}

/// The lines around the first error of a job's last attempt, in the step that failed or else in the last that printed.
fn excerpt(
    places: &Places,
    build: BuildId,
    (job, described): (&JobName, Option<&graph::Job>),
    (outcome, report): (&Outcome, Option<&AttemptReport>),
    step: Option<u16>,
) -> Result<Excerpt, Stop> {
    let Some(attempt) = places.store.attempts(build, Some(job))?.pop() else { return Ok(Excerpt::default()) };
    let Some(reader) = places.log_reader(build, Writing::Over)? else { return Ok(Excerpt::default()) };
    let printed: Vec<_> = reader.streams().filter(|stream| stream.key.attempt == attempt.attempt.0).collect();
    let Some(step) = step.or_else(|| printed.last().map(|stream| stream.key.step)) else {
        return Ok(Excerpt::default());
    };
    let lines_before = printed.iter().filter(|stream| stream.key.step < step).map(|stream| stream.lines).sum();
    let key = StreamKey { attempt: attempt.attempt.0, step };
    first_error::of_ending(&reader, key, lines_before, described, Some(outcome), report)
}
