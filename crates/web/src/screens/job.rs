//! One job: its attempts, its steps, and the log of the step that is looked at, opened where the first error is.

use api::job::{Attempt, Job, JobState, Waiting};
use api::log::{LogState, LogSummary};
use api::page::Page;
use api::problem::{Problem, ProblemKind};
use maud::{Markup, PreEscaped, html};

use super::log::{self, Range};
use super::projects::name;
use crate::page::{Crumb, Document, Head, document};
use crate::words::{self, Standing};
use crate::{Ask, Source, paths, read};

/// How many lines the page itself brings; the rest comes when it is looked at.
const LINES: u64 = 400;
/// How many of them stand before the first error.
const BEFORE_ERROR: u64 = 40;

/// A step as the page lists it.
struct StepLine {
    index: u16,
    name: String,
    standing: Standing,
    took_ms: Option<u64>,
    exit: Option<i32>,
    lines: u64,
    is_open: bool,
}

/// Writes the page.
pub(crate) async fn show(source: &impl Source, ask: &Ask, build: &str, job: &str) -> Result<Document, Problem> {
    let build: api::build::Build = read(source, &format!("/api/v1/builds/{}", paths::encoded(build))).await?;
    let job: Job = read(source, &paths::api_job(build.id, job)).await?;
    let of_build = format!("/api/v1/builds/{}", build.id);
    let of_job = format!("{of_build}/attempts?job={}&limit=100", paths::encoded(&job.name));
    let attempts = read::<Page<Attempt>>(source, &of_job).await?.items;
    let wanted = ask.number("attempt").or(attempts.last().map(|attempt| attempt.attempt.into()));
    let own = paths::job(build.id, &job.name);
    let body = match wanted {
        None => not_begun(source, &build, &job).await?,
        Some(wanted) => {
            if !attempts.iter().any(|attempt| u64::from(attempt.attempt) == wanted) {
                return Err(Problem::new(ProblemKind::NotFound, format!("`{}` has no attempt {wanted}", job.name))
                    .help("take one of the attempts that the job's page lists"));
            }
            let attempt: Attempt = read(source, &format!("{of_build}/attempts/{wanted}")).await?;
            shown(source, ask, &job, &attempt, &own).await?
        }
    };
    let main = html! {
        header.build #job-header data-live { (header(&job, &attempts, wanted, ask, &own)) }
        (body)
    };
    let mut crumbs = Vec::new();
    if !build.project.is_empty() {
        crumbs.push(Crumb::new(&build.project, paths::project(&build.project)));
    }
    crumbs.push(Crumb::new(name(&build), paths::build(build.id)));
    crumbs.push(Crumb::new(&job.name, own.clone()));
    let is_over = job.state == JobState::Ended;
    let stream = (!is_over).then(|| format!("{of_build}/stream?logs=false"));
    let title = format!("{} of {} {}", super::build::title(&job), build.project, name(&build));
    Ok(document(&Head { title: &title, crumbs, stream }, &main))
}

async fn not_begun(source: &impl Source, build: &api::build::Build, job: &Job) -> Result<Markup, Problem> {
    if job.state == JobState::Ended {
        return Ok(
            html! { div #job-body data-live { p.empty { "It did not run" @if let Some(cause) = &job.cause { ": " (cause.text) } "." } } },
        );
    }
    let why: Waiting = read(source, &format!("{}/why", paths::api_job(build.id, &job.name))).await?;
    Ok(
        html! { div #job-body data-live { p.empty { (why.text) @if let Some(estimate) = why.estimate { " It may take " (words::span(estimate.low_ms)) " to " (words::span(estimate.high_ms)) "." } } } },
    )
}

fn header(job: &Job, attempts: &[Attempt], shown: Option<u64>, ask: &Ask, own: &str) -> Markup {
    let standing = Standing::of_job(job);
    html! {
        h1 { (standing.mark()) " " (super::build::title(job)) }
        @if let Some(cause) = &job.cause { p.verdict.(standing.word()) { (cause.text) } }
        dl.facts {
            @if let Some(ms) = words::took(job.started, job.finished, ask.now) { div { dt { "Took" } dd { (words::against_usual(ms, job.usual_ms)) } } }
            @if let Some(at) = job.started { div { dt { "Began" } dd { (words::ago(at, ask.now)) } } }
            @if let Some(from) = &job.reused { div { dt { "Result" } dd { "taken from " a href=(paths::job(from.build, &from.job)) { "build " (from.build) } } } }
            @if !job.needs.is_empty() { div { dt { "Needs" } dd { @for (index, need) in job.needs.iter().enumerate() { @if index > 0 { ", " } a href=(paths::job(job.build, need)) { (need) } } } } }
            @if let Some(attempt) = attempts.iter().find(|attempt| Some(u64::from(attempt.attempt)) == shown) { div { dt { "Worker" } dd { code { (attempt.worker.get(..16).unwrap_or(&attempt.worker)) } } } }
        }
        div.actions {
            @if attempts.len() > 1 {
                nav.attempts aria-label="Attempts" {
                    @for attempt in attempts {
                        @let standing = attempt.ended.as_ref().map_or(Standing::Running, |end| Standing::of_outcome(end.outcome));
                        a href=(format!("{own}?attempt={}", attempt.attempt)) aria-current=[(Some(u64::from(attempt.attempt)) == shown).then_some("true")] { (standing.mark()) " try " (attempt.try_number) }
                    }
                    a href=(paths::attempts(job.build, &job.name)) { "Side by side" }
                }
            }
            @if matches!(standing, Standing::Failed | Standing::Canceled) {
                form method="post" action=(format!("{own}/retry")) { button.main { "Retry" } }
            } @else if job.state != JobState::Ended {
                form method="post" action=(format!("{own}/cancel")) { button { "Cancel" } }
            }
        }
    }
}

/// The steps of an attempt: those that were reported, else those that have printed something.
fn steps(attempt: &Attempt, summary: &LogSummary) -> Vec<StepLine> {
    if let Some(report) = attempt.ended.as_ref().and_then(|end| end.report.as_ref()) {
        let line = |(index, step): (usize, &api::job::Step)| {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            StepLine {
                index,
                name: step.name.clone(),
                standing: Standing::of_step(step.result),
                took_ms: Some(step.finished.0.ms_since(step.started.0)),
                exit: step.exit,
                lines: log::lines_of(summary, index),
                is_open: false,
            }
        };
        return report.steps.iter().enumerate().map(line).collect();
    }
    let last = summary.steps.last().map(|log| log.step);
    let line = |log: &api::log::StepLog| StepLine {
        index: log.step,
        name: format!("step {}", log.step + 1),
        standing: if Some(log.step) == last { Standing::Running } else { Standing::Passed },
        took_ms: None,
        exit: None,
        lines: log.lines,
        is_open: log.state == LogState::Open,
    };
    summary.steps.iter().map(line).collect()
}

async fn shown(source: &impl Source, ask: &Ask, job: &Job, attempt: &Attempt, own: &str) -> Result<Markup, Problem> {
    let (build, number) = (job.build.0, u64::from(attempt.attempt));
    let summary: LogSummary = read(source, &format!("/api/v1/builds/{build}/attempts/{number}/log")).await?;
    let steps = steps(attempt, &summary);
    let failed = attempt.ended.as_ref().and_then(|end| end.cause.as_ref()?.step);
    let wanted = ask.number("step").and_then(|step| u16::try_from(step).ok());
    let printed = steps.iter().rev().find(|step| step.lines > 0).map(|step| step.index);
    let step = wanted.or(failed).or(printed).unwrap_or(0);
    let here = steps.iter().find(|line| line.index == step);
    let base = format!("{own}?attempt={number}&step={step}");
    let found = match ask.text("q") {
        "" => html! {},
        regex => log::search(source, [build, number, step.into()], regex, &base).await?,
    };
    let viewer = viewer(source, ask, [build, number, step.into()], here, failed == Some(step), &base).await?;
    let report = attempt.ended.as_ref().and_then(|end| end.report.as_ref());
    Ok(html! {
        div.split {
            nav.steps #steps data-live aria-label="Steps" {
                ol { @for line in &steps {
                    li {
                        a class=(line.standing.word()) href=(format!("{own}?attempt={number}&step={}", line.index)) aria-current=[(line.index == step).then_some("true")] {
                            (line.standing.mark()) " " span.name { (words::first_line(&line.name)) }
                            span.quiet { @if let Some(ms) = line.took_ms { (words::span(ms)) } @if let Some(exit) = line.exit.filter(|exit| *exit != 0) { " exit " (exit) } " " (words::count(line.lines, "line", "lines")) }
                        }
                    }
                } }
                @if let Some(report) = report {
                    @if !report.notes.is_empty() { h3 { "Remarks" } ul { @for note in &report.notes { li { (note) } } } }
                    @if !report.outputs.is_empty() { h3 { "Outputs" } dl { @for (name, value) in &report.outputs { dt { code { (name) } } dd { code { (value) } } } } }
                    @if !report.summary.is_empty() { h3 { "Summary" } div.markdown { (crate::markdown::rendered(&report.summary).0) } }
                    p.quiet { "Peak memory " (words::bytes(report.usage.peak_memory_bytes)) ", processor " (words::span((report.usage.cpu_user_us + report.usage.cpu_system_us) / 1000)) }
                }
            }
            section.viewer aria-label="Log" {
                form.find method="get" role="search" {
                    input type="hidden" name="attempt" value=(number); input type="hidden" name="step" value=(step);
                    input #search type="search" name="q" value=(ask.text("q")) placeholder="Find by regular expression" aria-label="Find in the log";
                    button { "Find" }
                    a href=(format!("{}?format=text", paths::api_log(build, number, step))) { "Raw" }
                    a href=(format!("{}?format=text", paths::api_log(build, number, step))) download=(format!("build-{build}-{}-{}.log", job.name.replace('/', "-"), step + 1)) { "Download" }
                }
                (found)
                (viewer)
            }
        }
    })
}

/// The lines that the page itself brings, and what the log's module needs to know to bring the others.
async fn viewer(
    source: &impl Source,
    ask: &Ask,
    of: [u64; 3],
    step: Option<&StepLine>,
    has_failed: bool,
    base: &str,
) -> Result<Markup, Problem> {
    let Some(step) = step.filter(|step| step.lines > 0 || step.is_open) else {
        return Ok(html! { p.empty #log data-live { "This step has printed nothing." } });
    };
    let error = match ask.number("mark") {
        Some(mark) => Some(mark),
        None if has_failed => log::first_error(source, of).await?,
        None => None,
    };
    let last = step.lines.saturating_sub(LINES);
    let from = match (ask.number("from"), error) {
        (Some(from), _) => from.min(step.lines.saturating_sub(1)),
        (None, Some(error)) => error.saturating_sub(BEFORE_ERROR),
        (None, None) if step.is_open || has_failed => last,
        (None, None) => 0,
    };
    let items = log::read_range(source, of, Range { from, count: LINES }).await?;
    let end = (from + LINES).min(step.lines);
    let [build, attempt, index] = of;
    let earlier = from.saturating_sub(LINES);
    Ok(html! {
        @if from > 0 { p.pager.before { a href=(format!("{base}&from=0")) { "First lines" } " " a href=(format!("{base}&from={earlier}")) { "Earlier lines" } " " span.quiet { (from) " lines above" } } }
        div.log #log role="log" tabindex="0" data-lines=(step.lines) data-from=(from) data-open[step.is_open]
            data-source=(format!("/builds/{build}/attempts/{attempt}/lines/{index}"))
            data-follow=(format!("{}?format=ndjson&follow=true", paths::api_log(build, attempt, index)))
            data-mark=[error] {
            (PreEscaped(log::written(&items, Some(base), error).0))
        }
        @if end < step.lines { p.pager.after { a href=(format!("{base}&from={end}")) { "Later lines" } " " a href=(format!("{base}&from={last}")) { "Last lines" } " " span.quiet { (step.lines - end) " lines below" } } }
    })
}
