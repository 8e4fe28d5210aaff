//! One build: what failed and why, what asks for a person, every job with its time, tests and artifacts.

use std::collections::BTreeMap;

use api::build::{Build, Diagnostic, SeverityWord, VerdictWord};
use api::job::{Artifact, Attempt, Field, FieldKind, Gate, Job, JobState, Test, Waiting};
use api::page::Page;
use api::problem::Problem;
use maud::{Markup, html};

use super::projects::name;
use super::{log, waterfall};
use crate::page::{Crumb, Document, Head, document};
use crate::words::{self, Standing};
use crate::{Ask, Source, paths, read, read_all};

/// The most jobs that are listed.
pub const JOBS_MAX: usize = 20_000;
/// Of how many jobs that failed the end of the log is shown, and of how many that wait the reason.
const FAILURES: usize = 3;
const WAITING: usize = 20;
/// How many failed tests are shown.
const TESTS: u32 = 50;
/// The fewest legs that are folded into one row.
const LEGS_FOLDED: usize = 4;

/// What the page shows.
struct View {
    build: Build,
    jobs: Vec<Job>,
    has_more_jobs: bool,
    gates: Vec<Gate>,
    diagnostics: Vec<Diagnostic>,
    tests: Page<Test>,
    artifacts: Vec<Artifact>,
    failures: Vec<Failure>,
    waiting: BTreeMap<String, Waiting>,
}

/// A job that failed, with the end of what it printed.
struct Failure {
    job: Job,
    step: Option<(u16, String)>,
    excerpt: Markup,
}

/// Writes the page.
pub(crate) async fn show(source: &impl Source, ask: &Ask, build: &str) -> Result<Document, Problem> {
    let view = View::read(source, build).await?;
    let Build { id, project, .. } = &view.build;
    let main = html! {
        (header(&view, ask))
        div.live #live-failures data-live { (diagnostics(&view)) (gates(&view, ask)) (failures(&view)) }
        section aria-labelledby="jobs-title" {
            h2 #jobs-title { "Jobs" }
            div #jobs data-live { (jobs(&view, ask)) }
        }
        div #results data-live { (tests(&view)) (artifacts(&view)) }
    };
    let mut crumbs = Vec::new();
    if !project.is_empty() {
        crumbs.push(Crumb::new(project, paths::project(project)));
    }
    crumbs.push(Crumb::new(name(&view.build), paths::build(id)));
    let stream = (view.build.verdict == VerdictWord::Running).then(|| format!("/api/v1/builds/{id}/stream?logs=false"));
    let title = format!("{} {}: {}", project, name(&view.build), view.build.verdict.word());
    Ok(document(&Head { title: title.trim(), crumbs, stream }, &main))
}

impl View {
    async fn read(source: &impl Source, build: &str) -> Result<Self, Problem> {
        let path = format!("/api/v1/builds/{}", paths::encoded(build));
        let build: Build = read(source, &path).await?;
        let (jobs, has_more_jobs) = read_all::<Job>(source, &format!("{path}/jobs"), JOBS_MAX).await?;
        let gates = match build.open_gates {
            0 => Vec::new(),
            _ => read::<Page<Gate>>(source, &format!("{path}/gates")).await?.items,
        };
        let diagnostics = match build.errors + build.warnings {
            0 => Vec::new(),
            _ => read::<Page<Diagnostic>>(source, &format!("{path}/diagnostics")).await?.items,
        };
        let tests = read(source, &format!("{path}/tests?outcome=failed&limit={TESTS}")).await?;
        let artifacts = read::<Page<Artifact>>(source, &format!("{path}/artifacts")).await?.items;
        let mut failures = Vec::new();
        for job in jobs.iter().filter(|job| Standing::of_job(job) == Standing::Failed) {
            let excerpt_of = if failures.len() < FAILURES { job.attempt } else { None };
            failures.push(Failure::read(source, &path, job.clone(), excerpt_of).await?);
        }
        let mut waiting = BTreeMap::new();
        let waits = |job: &&Job| job.state == JobState::Waiting && build.verdict == VerdictWord::Running;
        for job in jobs.iter().filter(waits).take(WAITING) {
            let why = read(source, &format!("{}/why", paths::api_job(build.id, &job.name))).await?;
            waiting.insert(job.name.clone(), why);
        }
        Ok(Self { build, jobs, has_more_jobs, gates, diagnostics, tests, artifacts, failures, waiting })
    }
}

impl Failure {
    async fn read(source: &impl Source, build: &str, job: Job, attempt: Option<u32>) -> Result<Self, Problem> {
        let Some(number) = attempt else { return Ok(Self { job, step: None, excerpt: html! {} }) };
        let attempt: Attempt = read(source, &format!("{build}/attempts/{number}")).await?;
        let step = attempt.ended.as_ref().and_then(|end| end.cause.as_ref()?.step);
        let report = attempt.ended.and_then(|end| end.report);
        let Some((step, report)) = step.zip(report) else { return Ok(Self { job, step: None, excerpt: html! {} }) };
        let name = report.steps.get(usize::from(step)).map(|step| step.name.clone()).unwrap_or_default();
        let lines = report.steps.get(usize::from(step)).map_or(0, |step| step.lines);
        let excerpt = match lines {
            0 => html! {},
            lines => log::around_first_error(source, [job.build.0, number.into(), step.into()], lines).await?,
        };
        Ok(Self { job, step: Some((step, name)), excerpt })
    }
}

fn header(view: &View, ask: &Ask) -> Markup {
    let build = &view.build;
    let standing = Standing::of_build(build.verdict, build.open_gates);
    let event = &build.event;
    let path = paths::build(build.id);
    html! {
        header.build #build-header data-live {
            h1 { (standing.mark()) " " (if event.message.is_empty() { name(build) } else { words::first_line(&event.message) }) }
            p.verdict class=(standing.word()) { @if standing == Standing::Asking { "waits for an answer" } @else if let Some(because) = &build.because { (build.verdict.word()) " because of " a href=(paths::job(build.id, because)) { (because) } } @else { (build.text) } }
            dl.facts {
                div { dt { "What happened" } dd { (words::happening(event)) @if !event.actor.is_empty() { " by " (event.actor) } } }
                @if let Some(commit) = &event.commit { div { dt { "Commit" } dd { code title=(commit) { (commit.get(..12).unwrap_or(commit)) } @if event.local_changes { " + local changes" } } } }
                div { dt { "Asked for" } dd { (words::ago(build.created, ask.now)) } }
                @if let Some(ms) = words::took(build.started, build.finished, ask.now) {
                    div { dt { @if build.finished.is_some() { "Took" } @else { "Running for" } } dd { (words::span(ms)) } }
                }
                div { dt { "Jobs" } dd { (tally(view)) } }
                @if let Some(of) = build.retry_of { div { dt { "Again" } dd { a href=(paths::build(of)) { "build " (of) } } } }
            }
            div.actions {
                @if build.verdict == VerdictWord::Running {
                    form method="post" action=(format!("{path}/cancel")) { button { "Cancel" } }
                }
                @if view.jobs.iter().any(|job| matches!(Standing::of_job(job), Standing::Failed | Standing::Canceled)) {
                    form method="post" action=(format!("{path}/retry")) { button.main name="what" value="failed" { "Retry what failed" } }
                }
                form method="post" action=(format!("{path}/rebuild")) { button { "Build again" } }
            }
        }
    }
}

/// How many jobs stand how, in words.
fn tally(view: &View) -> String {
    let counts = view.build.counts;
    let running = view.jobs.iter().filter(|job| job.state == JobState::Running).count() as u64;
    let ended = counts.passed + counts.failed + counts.canceled + counts.skipped;
    let parts = [
        (counts.failed, "failed"),
        (running, "running"),
        (view.build.jobs.saturating_sub(ended + running), "waiting"),
        (counts.canceled, "canceled"),
        (counts.passed, "passed"),
        (counts.skipped, "skipped"),
    ];
    let mut said: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    if counts.reused > 0 {
        said.push(format!("{} from the cache", counts.reused));
    }
    if said.is_empty() { "none yet".to_owned() } else { said.join(", ") }
}

fn diagnostics(view: &View) -> Markup {
    html! {
        @for found in &view.diagnostics {
            article.diagnostic class=(if found.severity == SeverityWord::Error { "failed" } else { "asking" }) {
                p { strong { (found.message) } " " code.quiet { (found.code) } }
                @if let Some(file) = &found.file {
                    p { code { (file) @if let Some(line) = found.line { ":" (line) } @if let Some(column) = found.column { ":" (column) } } @if !found.label.is_empty() { " " (found.label) } }
                }
                @if let Some(help) = &found.help { p { "What to do: " (help) } }
            }
        }
    }
}

fn gates(view: &View, ask: &Ask) -> Markup {
    html! {
        @for gate in view.gates.iter().filter(|gate| gate.answered.is_none()) {
            article.gate.asking {
                h2 { (gate.prompt) }
                p.quiet { "The gate of " code { (gate.job) } ", open since " (words::ago(gate.opened, ask.now)) }
                form.tall method="post" action=(format!("/builds/{}/gates/{}", gate.build, paths::encoded(&gate.job))) {
                    @for (name, field) in &gate.fields { (field_of_form(name, field)) }
                    label { "Reason " input name="reason" maxlength="1000"; }
                    p { button.main name="answer" value="approve" { "Approve" } " " button name="answer" value="reject" formnovalidate { "Reject" } }
                }
            }
        }
    }
}

fn field_of_form(name: &str, field: &Field) -> Markup {
    let default = match &field.default {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let input = format!("field.{name}");
    html! {
        label { (name) " "
            @match field.kind {
                FieldKind::String => input name=(input) value=(default) required[field.default.is_none()];,
                FieldKind::Number => input type="number" step="any" name=(input) value=(default) required[field.default.is_none()];,
                FieldKind::Boolean => select name=(input) { option value="true" selected[default == "true"] { "yes" } option value="false" selected[default != "true"] { "no" } },
                FieldKind::Choice => select name=(input) { @for option in &field.options { option value=(option) selected[*option == default] { (option) } } },
            }
            @if !field.help.is_empty() { span.quiet { (field.help) } }
        }
        input type="hidden" name=(format!("kind.{name}")) value=(match field.kind { FieldKind::Number => "number", FieldKind::Boolean => "boolean", FieldKind::String | FieldKind::Choice => "string" });
    }
}

fn failures(view: &View) -> Markup {
    html! {
        @for (index, failure) in view.failures.iter().enumerate() {
            @let job = &failure.job;
            article.failure #(format!("failure-{index}")) {
                h2 {
                    (Standing::Failed.mark()) " " a href=(paths::job(job.build, &job.name)) { (title(job)) }
                    @if let Some(cause) = &job.cause { " " span.quiet { (cause.text) } }
                }
                @if let Some((step, name)) = &failure.step {
                    p.quiet { "Step " (step + 1) ": " code { (words::first_line(name)) } }
                    (failure.excerpt)
                    p { a href=(format!("{}?step={step}", paths::job(job.build, &job.name))) { "The whole log" } }
                }
            }
        }
    }
}

/// What a job is called.
pub(crate) fn title(job: &Job) -> &str {
    if job.title.is_empty() { &job.name } else { &job.title }
}

fn jobs(view: &View, ask: &Ask) -> Markup {
    let build = &view.build;
    let scale = waterfall::Scale::new(build.created.0, build.finished.map_or(ask.now, |at| at.0));
    let ended = waterfall::ends(&view.jobs);
    let critical = waterfall::critical(&view.jobs);
    let row = |job: &Job| {
        let standing = Standing::of_job(job);
        let waiting = view.waiting.get(&job.name);
        html! {
            tr class=(standing.word()) #(format!("job-{}", job.name)) {
                td { (standing.mark()) }
                td {
                    a.name href=(paths::job(job.build, &job.name)) { (title(job)) }
                    @if let Some(from) = &job.reused { " " span.tag { "cached from " a href=(paths::build(from.build)) { "build " (from.build) } } }
                    @if job.allow_failure { " " span.tag title="its failure does not fail the build" { "may fail" } }
                    @if job.attempts > 1 { " " span.tag { "try " (job.attempts) } }
                    @if let Some(cause) = &job.cause { span.why { (cause.text) } }
                    @if let Some(waiting) = waiting { span.why { (waiting.text) } }
                }
                td.number { @if let Some(ms) = words::took(job.started, job.finished, ask.now) { (words::against_usual(ms, job.usual_ms)) } }
                td.bar class=[critical.contains(job.name.as_str()).then_some("critical")] { (waterfall::bar(job, &ended, scale, ask.now)) }
            }
        }
    };
    html! {
        @if view.jobs.is_empty() { p.empty { @if build.verdict == VerdictWord::Running { "The pipeline is being read." } @else { "It had no jobs." } } }
        @else {
            table.list.jobs {
                thead { tr { th { span.unseen { "State" } } th { "Job" } th.number { "Took" } th { "When, from the request to the end" @if critical.len() > 1 { " " span.quiet { "(underlined: what decided how long it took)" } } } } }
                @for family in families(&view.jobs) {
                    @if family.len() < LEGS_FOLDED {
                        tbody { @for job in family { (row(job)) } }
                    } @else {
                        @let worst = family.iter().map(Standing::of_job).min().unwrap_or(Standing::Waiting);
                        @let of = family[0].name.split('/').next().unwrap_or_default();
                        tbody.family { tr class=(worst.word()) { td { (worst.mark()) } td colspan="3" { strong { (of) } " " span.quiet { (family_tally(family)) } } } }
                        @let (shown, folded): (Vec<&Job>, Vec<&Job>) = family.iter().partition(|job| !matches!(Standing::of_job(job), Standing::Passed | Standing::Skipped | Standing::Waiting));
                        tbody.legs { @for job in shown { (row(job)) } }
                        @if !folded.is_empty() {
                            tbody { tr { td colspan="4" { details #(format!("legs-{of}")) { summary { (words::count(folded.len() as u64, "other leg", "other legs")) } table.list.jobs { tbody { @for job in folded { (row(job)) } } } } } } }
                        }
                    }
                }
            }
            @if view.has_more_jobs { p.quiet { "Only the first " (JOBS_MAX) " jobs are listed." } }
        }
    }
}

/// Jobs in the order of the pipeline, legs of one matrix together.
fn families(jobs: &[Job]) -> Vec<&[Job]> {
    let head = |job: &Job| job.name.split('/').next().unwrap_or_default().to_owned();
    jobs.chunk_by(|left, right| left.name.contains('/') && head(left) == head(right)).collect()
}

fn family_tally(family: &[Job]) -> String {
    let mut counts: BTreeMap<Standing, u64> = BTreeMap::new();
    for job in family {
        *counts.entry(Standing::of_job(job)).or_default() += 1;
    }
    let said: Vec<String> = counts.iter().map(|(standing, n)| format!("{n} {}", standing.word())).collect();
    said.join(", ")
}

fn tests(view: &View) -> Markup {
    html! {
        @if !view.tests.items.is_empty() {
            section aria-labelledby="tests-title" {
                h2 #tests-title { "Tests that failed" @if view.tests.next.is_some() { " (the first " (TESTS) ")" } }
                @for test in &view.tests.items {
                    details.test open[view.tests.items.len() <= 3] {
                        summary { (Standing::of_test(test.outcome).mark()) " " code { @if !test.suite.is_empty() { (test.suite) " " } (test.name) } " " span.quiet { (test.job) " · " (words::span(test.duration_ms)) } }
                        @if !test.message.is_empty() { pre { (test.message) } }
                        @if !test.output.is_empty() { h3 { "What it printed" } pre { (test.output) } }
                    }
                }
            }
        }
    }
}

fn artifacts(view: &View) -> Markup {
    let build = view.build.id;
    html! {
        @if !view.artifacts.is_empty() {
            section aria-labelledby="artifacts-title" {
                h2 #artifacts-title { "Artifacts" }
                table.list { tbody { @for artifact in &view.artifacts {
                    tr {
                        td { a.name href=(format!("/api/v1/builds/{build}/artifacts/{}", artifact.digest)) download=(format!("{}.tar", artifact.name)) { (artifact.name) } }
                        td { a href=(paths::job(build, &artifact.job)) { (artifact.job) } }
                        td.number { (words::count(artifact.files, "file", "files")) ", " (words::bytes(artifact.bytes)) }
                        td { code.quiet title="BLAKE3 of the archive" { (artifact.digest.to_string().get(..16).unwrap_or_default()) } }
                    }
                } } }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use api::time::Time;
    use graph::Timestamp;
    use serde_json::json;

    use super::*;

    /// A job that ran so many seconds after the start of its build.
    pub(crate) fn job(name: &str, needs: &[&str], ran: Option<(i64, i64)>) -> Job {
        let at = |second: i64| Time(Timestamp(second * 1_000_000));
        let mut job: Job = serde_json::from_value(json!({
            "build": 1, "name": name, "order": 0, "state": "waiting", "needs": needs, "pool": "", "attempts": 0,
        }))
        .expect("a job");
        if let Some((started, finished)) = ran {
            job.state = JobState::Ended;
            job.outcome = Some(api::job::OutcomeWord::Passed);
            (job.started, job.finished) = (Some(at(started)), Some(at(finished)));
        }
        job
    }

    #[test]
    fn legs_of_a_matrix_stand_together() {
        let jobs: Vec<Job> = ["a", "b", "t/1", "t/2", "u/1", "c"].iter().map(|name| job(name, &[], None)).collect();
        let sizes: Vec<usize> = families(&jobs).into_iter().map(<[Job]>::len).collect();
        assert_eq!(sizes, [1, 1, 2, 1, 1]);
    }
}
