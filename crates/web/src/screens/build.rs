//! One build: what failed and why, what asks for a person, every job as a tree and as a drawing, a table, a waterfall or a flame, and what
//! came out: summaries, tests, artifacts.
//!
//! Whatever the size of a build, each part lists a bounded number of rows ([`jobs::ROWS_MAX`], [`graph::NODES_DRAWN`]) and leads to the rest.

mod flame;
mod graph;
mod jobs;
mod spans;
mod table;
mod tree;
mod waterfall;

use std::collections::{BTreeMap, BTreeSet};

use ::graph::Hole;
use api::build::{Build, Diagnostic, SeverityWord, VerdictWord};
use api::job::{Artifact, Attempt, Field, FieldKind, Gate, Job, JobState, Test, Waiting};
use api::log::LogSummary;
use api::page::Page;
use api::problem::Problem;
use maud::{Markup, PreEscaped, html};
use serde::Deserialize;

use self::jobs::{Choice, Unit, View};
use super::gate;
use super::log::{self, Excerpt};
use super::projects::name;
use crate::markdown::{self, Extent};
use crate::page::{Crumb, Document, Head, document};
use crate::words::{self, Standing};
use crate::{Ask, Source, paths, read, read_all};

/// The most jobs of a build that its page knows.
pub const JOBS_MAX: usize = 20_000;
/// Of how many jobs that failed the end of the log is shown, how many more are named, and of how many that wait the reason is asked.
const FAILURES: usize = 3;
const FAILURES_NAMED: usize = 20;
const WAITING: usize = 20;
/// How many failed tests are named with their job.
const TESTS_NAMED: usize = 5;
/// How many failed tests are shown.
const TESTS: u32 = 50;
/// The most jobs of a build whose attempts are read with their reports: of a larger one, summaries stand on the pages of its jobs.
const REPORTS_JOBS_MAX: usize = 300;
/// The most summaries that are shown.
const SUMMARIES_MAX: usize = 20;
/// The most jobs that a search finds by their steps.
const FOUND_MAX: u32 = 500;
/// The most attempts of an open job whose steps are shown: the last.
const TRIES_MAX: usize = 5;
/// The most answers at gates that are listed.
const ANSWERS_MAX: usize = 20;
/// The most artifacts that are listed.
const ARTIFACTS_MAX: usize = 100;

/// What the page shows.
struct Shown {
    build: Build,
    /// In the order of the pipeline.
    jobs: Vec<Job>,
    has_more_jobs: bool,
    /// All gates that opened, by job.
    asked: BTreeMap<String, Gate>,
    diagnostics: Vec<Diagnostic>,
    tests: Page<Test>,
    /// Those that failed and are in quarantine.
    quarantined: Page<Test>,
    artifacts: Vec<Artifact>,
    failures: Vec<Failure>,
    waiting: BTreeMap<String, Waiting>,
    /// With reports if the build is small; none if it is large and nobody looks at times.
    attempts: Vec<Attempt>,
    holes: Vec<Hole>,
    /// Only if times are looked at.
    before: waterfall::Before,
    /// The jobs whose steps are looked at, with their last attempts.
    opened: BTreeMap<String, Vec<Tried>>,
}

/// An attempt, with its report, or with what it has printed so far.
struct Tried {
    attempt: Attempt,
    /// Of one that goes on.
    printed: Option<LogSummary>,
}

/// A job that failed, with the end of what it printed.
struct Failure {
    job: Job,
    step: Option<(u16, String)>,
    excerpt: Excerpt,
}

/// Of a graph, what is not known yet.
#[derive(Deserialize)]
struct Holes {
    #[serde(default)]
    holes: Vec<Hole>,
}

/// Writes the page.
pub(crate) async fn show(source: &impl Source, ask: &Ask, build: &str) -> Result<Document, Problem> {
    let path = format!("/api/v1/builds/{}", paths::encoded(build));
    let build: Build = read(source, &path).await?;
    let mut choice = Choice::of(ask, paths::build(build.id));
    choice.with_step = with_step(source, &path, &choice.text).await?;
    let mut shown = Shown::read(source, &path, build).await?;
    let drawn = {
        let units = jobs::units(&shown.jobs);
        let default = if graph::is_worth_it(&units, &shown.holes) { View::Graph } else { View::Table };
        choice.view.unwrap_or(default)
    };
    shown.read_times(source, &path, drawn).await?;
    shown.read_steps(source, &path, (&choice, drawn)).await?;
    let units = jobs::units(&shown.jobs);
    let Build { id, project, .. } = &shown.build;
    let main = html! {
        (header(&shown, ask))
        div.build-page {
            (tree::show(&shown.build, &shown.jobs, &units, &choice, ask))
            div.build-main {
                div.live #live-failures data-live { (diagnostics(&shown)) (gates(&shown, ask)) (failures(&shown, &choice)) (answers(&shown, ask)) }
                @if !shown.has_no_jobs() { section.drawn aria-labelledby="jobs-title" {
                    h2.unseen #jobs-title { "Jobs" }
                    // The script's button stands beside what is live.
                    div.drawn-head #drawn-head { nav.views #views data-live aria-label="How the jobs are shown" { @for view in View::ALL {
                        a data-in-page id=(format!("view-{}", view.word())) href=(choice.link(&[("view", view.word())])) aria-current=[(view == drawn).then_some("true")] { (view.title()) }
                    } } }
                    div.canvas #canvas tabindex="0" role="region" aria-label="The jobs as they are shown" { div #jobs data-live { (drawing(&shown, &units, &choice, drawn, ask)) } }
                } }
                section #annotations data-source=(format!("{}/annotations", paths::build(id))) aria-label="Annotations" {}
                div #results data-live { (summaries(&shown)) (tests(&shown)) (artifacts(&shown)) }
            }
        }
    };
    let mut crumbs = Vec::new();
    if !project.is_empty() {
        crumbs.push(Crumb::new(project, paths::project(project)));
    }
    crumbs.push(Crumb::new(name(&shown.build), paths::build(id)));
    let stream =
        (shown.build.verdict == VerdictWord::Running).then(|| format!("/api/v1/builds/{id}/stream?logs=false"));
    let title = format!("{} {}: {}", project, name(&shown.build), shown.build.verdict.word());
    Ok(document(&Head { title: title.trim(), crumbs, stream }, &main))
}

/// The jobs with a step that has this text in its name; none without a text.
async fn with_step(source: &impl Source, path: &str, text: &str) -> Result<BTreeSet<String>, Problem> {
    if text.is_empty() {
        return Ok(BTreeSet::new());
    }
    let found = format!("{path}/jobs?step={}&limit={FOUND_MAX}", paths::encoded(text));
    Ok(read::<Page<Job>>(source, &found).await?.items.into_iter().map(|job| job.name).collect())
}

impl Shown {
    /// Whether it ended before it had any: its pipeline is wrong.
    fn has_no_jobs(&self) -> bool {
        self.jobs.is_empty() && self.build.finished.is_some()
    }

    async fn read(source: &impl Source, path: &str, build: Build) -> Result<Self, Problem> {
        let (mut jobs, has_more_jobs) = read_all::<Job>(source, &format!("{path}/jobs"), JOBS_MAX).await?;
        jobs.sort_by(|left, right| (left.order, &left.name).cmp(&(right.order, &right.name)));
        let gates = match build.open_gates > 0 || jobs.iter().any(|job| job.gate) {
            true => read::<Page<Gate>>(source, &format!("{path}/gates")).await?.items,
            false => Vec::new(),
        };
        let asked = gates.into_iter().map(|gate| (gate.job.clone(), gate)).collect();
        let diagnostics = match build.errors + build.warnings {
            0 => Vec::new(),
            _ => read::<Page<Diagnostic>>(source, &format!("{path}/diagnostics")).await?.items,
        };
        // An earlier try that failed counts for nothing once a later one has passed.
        let failed = format!("{path}/tests?outcome=failed,errored&newest=true&limit={TESTS}&quarantined");
        let tests = read(source, &format!("{failed}=false")).await?;
        let quarantined = read(source, &format!("{failed}=true")).await?;
        let artifacts = read::<Page<Artifact>>(source, &format!("{path}/artifacts")).await?.items;
        let mut failures = Vec::new();
        let failed = jobs.iter().filter(|job| Standing::of_job(job) == Standing::Failed);
        for job in failed.take(FAILURES + FAILURES_NAMED) {
            let excerpt_of = if failures.len() < FAILURES { job.attempt } else { None };
            failures.push(Failure::read(source, path, job.clone(), excerpt_of).await?);
        }
        let is_running = build.verdict == VerdictWord::Running;
        let mut waiting = BTreeMap::new();
        let waits =
            |job: &&Job| job.state == JobState::Waiting || job.state == JobState::Running && job.child.is_some();
        for job in jobs.iter().filter(|job| is_running && waits(job)).take(WAITING) {
            let why = read(source, &format!("{}/why", paths::api_job(build.id, &job.name))).await?;
            waiting.insert(job.name.clone(), why);
        }
        let holes = match is_running {
            true => read::<Holes>(source, &format!("{path}/graph")).await?.holes,
            false => Vec::new(),
        };
        let attempts = match jobs.len() <= REPORTS_JOBS_MAX {
            true => read_all(source, &format!("{path}/attempts?reports=true"), JOBS_MAX).await?.0,
            false => Vec::new(),
        };
        let (before, opened) = (waterfall::Before::default(), BTreeMap::new());
        Ok(Self {
            build,
            jobs,
            has_more_jobs,
            asked,
            diagnostics,
            tests,
            quarantined,
            artifacts,
            failures,
            waiting,
            attempts,
            holes,
            before,
            opened,
        })
    }

    /// What only times need: attempts of a large build, and for the waterfall the build before of the same pipeline and branch.
    async fn read_times(&mut self, source: &impl Source, path: &str, view: View) -> Result<(), Problem> {
        if !matches!(view, View::Time | View::Flame) {
            return Ok(());
        }
        if self.attempts.is_empty() {
            self.attempts = read_all(source, &format!("{path}/attempts"), JOBS_MAX).await?.0;
        }
        if view == View::Flame {
            return Ok(());
        }
        let Build { id, project, pipeline, event, .. } = &self.build;
        let (project, pipeline) = (paths::encoded(project), paths::encoded(pipeline));
        let branch = paths::encoded(event.branch.as_deref().unwrap_or_default());
        let mut same = format!("/api/v1/builds?pipeline={pipeline}&before={id}&limit=1");
        for (name, value) in [("project", project), ("branch", branch)] {
            if !value.is_empty() {
                same.push_str(&format!("&{name}={value}"));
            }
        }
        let Some(before) = read::<Page<Build>>(source, &same).await?.items.into_iter().next() else { return Ok(()) };
        let jobs = read_all::<Job>(source, &format!("/api/v1/builds/{}/jobs", before.id), JOBS_MAX).await?.0;
        let since = |at: api::time::Time| at.0.ms_since(before.created.0);
        let span = |job: &Job| Some((job.name.clone(), (since(job.started?), since(job.finished?))));
        self.before = waterfall::Before {
            build: before.id.0,
            name: name(&before),
            spans: jobs.iter().filter_map(span).collect(),
        };
        Ok(())
    }

    /// What the open rows of the waterfall need. Reports of a small build are there; else they are asked for, job by job that is open.
    async fn read_steps(
        &mut self,
        source: &impl Source,
        path: &str,
        (choice, view): (&Choice, View),
    ) -> Result<(), Problem> {
        if view != View::Time {
            return Ok(());
        }
        let mut opened = BTreeMap::new();
        for job in choice.open(&self.jobs).into_iter().filter(|job| job.attempts > 0) {
            let mut attempts: Vec<Attempt> = match self.jobs.len() <= REPORTS_JOBS_MAX {
                true => self.attempts.iter().filter(|attempt| attempt.job == job.name).cloned().collect(),
                false => {
                    let job = paths::encoded(&job.name);
                    read::<Page<Attempt>>(source, &format!("{path}/attempts?reports=true&job={job}")).await?.items
                }
            };
            attempts.drain(..attempts.len().saturating_sub(TRIES_MAX));
            let mut tried = Vec::new();
            for attempt in attempts {
                let printed = match attempt.ended {
                    Some(_) => None,
                    None => Some(read(source, &format!("{path}/attempts/{}/log", attempt.attempt)).await?),
                };
                tried.push(Tried { attempt, printed });
            }
            opened.insert(job.name.clone(), tried);
        }
        self.opened = opened;
        Ok(())
    }
}

impl Failure {
    async fn read(source: &impl Source, build: &str, job: Job, attempt: Option<u32>) -> Result<Self, Problem> {
        let Some(number) = attempt else { return Ok(Self { job, step: None, excerpt: Excerpt::default() }) };
        let attempt: Attempt = read(source, &format!("{build}/attempts/{number}")).await?;
        let step = attempt.ended.as_ref().and_then(|end| end.cause.as_ref()?.step);
        let report = attempt.ended.and_then(|end| end.report);
        let Some((step, report)) = step.zip(report) else {
            return Ok(Self { job, step: None, excerpt: Excerpt::default() });
        };
        let name = report.steps.get(usize::from(step)).map(|step| step.name.clone()).unwrap_or_default();
        let lines = report.steps.get(usize::from(step)).map_or(0, |step| step.lines);
        let excerpt = match lines {
            0 => Excerpt::default(),
            lines => log::around_first_error(source, [job.build.0, number.into(), step.into()], lines).await?,
        };
        Ok(Self { job, step: Some((step, name)), excerpt })
    }
}

fn header(shown: &Shown, ask: &Ask) -> Markup {
    let build = &shown.build;
    let standing = Standing::of_build(build.verdict, build.open_gates);
    let event = &build.event;
    let title = words::first_line(&event.message);
    let rest = event.message.strip_prefix(title.as_str()).unwrap_or(&event.message).trim();
    html! {
        header.build #build-header data-live {
            h1 { (standing.mark()) " " (if event.message.is_empty() { name(build) } else { title }) }
            @if !rest.is_empty() { details #message { summary.quiet { "The whole message" } pre { (event.message) } } }
            p.verdict.(standing.word()) { @if standing == Standing::Asking { "waits for an answer" @if build.counts.failed > 0 { ", " (super::builds::failed_so_far(build)) } } @else if let Some(because) = &build.because { (build.verdict.word()) " because of " a href=(paths::job(build.id, because)) { (because) } } @else { (words::marked(&build.text)) } }
            (facts(shown, ask))
            (actions(shown))
        }
    }
}

fn facts(shown: &Shown, ask: &Ask) -> Markup {
    let build = &shown.build;
    let event = &build.event;
    html! {
        dl.facts {
            div { dt { "What happened" } dd { (words::happening(event)) @if event.trust == api::event::TrustWord::Untrusted { " " span.tag title="no secrets, no shared caches" { "untrusted" } } } }
            @if !event.actor.is_empty() { div { dt { "By" } dd { (event.actor) } } }
            @if let Some(branch) = event.branch.as_ref().filter(|_| event.pull_request.is_some()) { div { dt { "Branch" } dd { (branch) } } }
            @if let Some(commit) = &event.commit { div { dt { "Commit" } dd { code title=(commit) { (commit.get(..12).unwrap_or(commit)) } @if event.local_changes { " + local changes" } } } }
            @if !build.name.is_empty() { div { dt { "Pipeline" } dd { (build.name) } } }
            div { dt { "Asked for" } dd { (words::ago(build.created, ask.now)) @if build.client != event.actor && !build.client.is_empty() { " by " (build.client) } } }
            @if let Some(ms) = words::took(build.started, build.finished, ask.now) {
                div { dt { @if build.finished.is_some() { "Took" } @else { "Running for" } } dd data-since=[build.started.filter(|_| build.finished.is_none())] { (words::duration(ms)) } }
            }
            div { dt { "Jobs" } dd { (tally(shown)) } }
            @if let Some(parent) = &event.parent { div { dt { "Asked for by" } dd { a href=(paths::job(parent.build, &parent.job)) { "build " (parent.build) ", job " (parent.job) } } } }
            @if let Some(of) = build.retry_of { div { dt { "Again" } dd { a href=(paths::build(of)) { "build " (of) } } } }
            @if let Some(by) = &build.canceled_by { div { dt { "Canceled by" } dd { (by) } } }
        }
    }
}

fn actions(shown: &Shown) -> Markup {
    let path = paths::build(shown.build.id);
    let is_running = shown.build.verdict == VerdictWord::Running;
    let ended_ill = |job: &&Job| matches!(Standing::of_job(job), Standing::Failed | Standing::Canceled);
    let has_failed = shown.jobs.iter().any(|job| ended_ill(&job));
    // What may fail is no reason to try again.
    let is_for_it = shown.jobs.iter().filter(ended_ill).any(|job| !job.allow_failure);
    html! {
        div.actions {
            @if has_failed { form method="post" action=(format!("{path}/retry")) { button.main[is_for_it] name="what" value="failed" { "Retry what failed" } } }
            @if !is_running && !shown.jobs.is_empty() { form method="post" action=(format!("{path}/retry")) { button name="what" value="all" { "Retry all" } } }
            @if is_running { form method="post" action=(format!("{path}/cancel")) { button { "Cancel" } } }
            form method="post" action=(format!("{path}/rebuild")) { button title="a new build of the same files" { "Build again" } }
            @if !shown.has_no_jobs() { a href=(format!("{path}/tests")) { "Tests" } a href=(format!("{path}/annotations")) { "Annotations" } }
            a href=(format!("{path}/compare")) { "Compare" }
        }
    }
}

/// How many jobs stand how, in words.
fn tally(shown: &Shown) -> String {
    let counts = shown.build.counts;
    let running = shown.jobs.iter().filter(|job| job.state == JobState::Running).count() as u64;
    let ended = counts.passed + counts.failed + counts.canceled + counts.skipped;
    let parts = [
        (counts.failed, "failed"),
        (running, "running"),
        (shown.build.jobs.saturating_sub(ended + running), "waiting"),
        (counts.canceled, "canceled"),
        (counts.passed, "passed"),
        (counts.skipped, "skipped"),
    ];
    let mut said: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    if counts.reused > 0 {
        said.push(format!("{} from the cache", counts.reused));
    }
    match said.is_empty() {
        true if shown.has_no_jobs() => "none".to_owned(),
        true => "none yet".to_owned(),
        false => said.join(", "),
    }
}

/// The jobs, as the reader chose to see them.
fn drawing(shown: &Shown, units: &[Unit], choice: &Choice, view: View, ask: &Ask) -> Markup {
    html! {
        @if shown.jobs.is_empty() { p.empty { @if shown.build.verdict == VerdictWord::Running { "The pipeline is being read." } @else { "It had no jobs." } } }
        @else {
            @match view {
                View::Graph => (graph::show(units, &shown.holes, choice, ask)),
                View::Table => (table::show(shown, choice, ask)),
                View::Time => (waterfall::show(shown, units, choice, ask)),
                View::Flame => (flame::show(shown, choice, ask)),
            }
            @if shown.has_more_jobs { p.quiet { "Only the first " (JOBS_MAX) " jobs are listed." } }
        }
    }
}

fn diagnostics(shown: &Shown) -> Markup {
    html! {
        @for found in &shown.diagnostics {
            article.diagnostic.(if found.severity == SeverityWord::Error { "failed" } else { "asking" }) {
                p { strong { (words::marked(found.message.lines().next().unwrap_or_default())) } " " code.quiet { (found.code) } }
                @if let Some((_, said)) = found.message.split_once('\n') { pre { (said) } }
                @if let Some(file) = &found.file {
                    p { code { (file) @if let Some(line) = found.line { ":" (line) } @if let Some(column) = found.column { ":" (column) } } @if !found.label.is_empty() { " " (words::marked(&found.label)) } }
                    @if let Some(text) = &found.text { pre { (text.trim()) } }
                }
                @for related in &found.related {
                    p { code { (related.file) ":" (related.line) ":" (related.column) } " " (words::marked(&related.remark)) }
                    @if let Some(text) = &related.text { pre { (text.trim()) } }
                }
                @if let Some(help) = &found.help { p { "What to do: " (words::marked(help)) } }
            }
        }
    }
}

fn gates(shown: &Shown, ask: &Ask) -> Markup {
    // A build that has ended asks nobody any more, and that of a job which was canceled at its gate never gets an answer.
    let is_running = shown.build.verdict == VerdictWord::Running;
    let has_ended = |gate: &Gate| shown.jobs.iter().any(|job| job.name == gate.job && job.state == JobState::Ended);
    html! {
        @for gate in shown.asked.values().filter(|gate| is_running && gate.answered.is_none() && !has_ended(gate)) {
            article.gate.asking #(gate::place(&gate.job)) {
                h2 { (gate.prompt) }
                p.quiet { "The gate of " code { (gate.job) } ", open since " (words::ago(gate.opened, ask.now)) }
                form.tall method="post" action=(format!("/builds/{}/gates/{}", gate.build, paths::encoded(&gate.job))) {
                    (NOT_BY_ENTER)
                    @for (name, field) in &gate.fields { (field_of_form(name, field)) }
                    label { "Reason " input name="reason" maxlength="1000"; }
                    p { button.main name="answer" value="approve" { "Approve" } " " button name="answer" value="reject" formnovalidate { "Reject" } }
                }
            }
        }
    }
}

/// What people said at the gates that were answered.
fn answers(shown: &Shown, ask: &Ask) -> Markup {
    let answered = || shown.asked.values().filter_map(|gate| Some((gate, gate.answered.as_ref()?)));
    let count = answered().count();
    html! {
        @for (gate, answered) in answered().take(ANSWERS_MAX) {
            p.quiet { "The gate of " a href=(paths::job(gate.build, &gate.job)) { (gate.job) } " was " (gate::said(answered, ask)) }
        }
        @if count > ANSWERS_MAX { p.quiet { "Only the first " (ANSWERS_MAX) " of " (count) " answers are listed; each stands on its job's page." } }
    }
}

/// The first button of a form is the one that Enter in its fields presses (HTML, "Implicit submission"); where that is disabled, Enter sends nothing.
const NOT_BY_ENTER: PreEscaped<&str> = PreEscaped("<button disabled hidden></button>");

fn field_of_form(name: &str, field: &Field) -> Markup {
    let default = match &field.default {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let input = format!("field.{name}");
    // What nobody has chosen is no answer: without a default none of them stands there already.
    let is_open = field.default.is_none();
    html! {
        label { (name) " "
            @match field.kind {
                FieldKind::String => input name=(input) value=(default);,
                FieldKind::Number => input type="number" step="any" name=(input) value=(default) required;,
                FieldKind::Boolean => select name=(input) required { @if is_open { option value="" { "choose" } } option value="true" selected[default == "true"] { "yes" } option value="false" selected[default == "false"] { "no" } },
                FieldKind::Choice => select name=(input) required { @if is_open { option value="" { "choose" } } @for option in &field.options { option value=(option) selected[*option == default] { (option) } } },
            }
            @if !field.help.is_empty() { span.quiet { (field.help) } }
        }
        input type="hidden" name=(format!("kind.{name}")) value=(match field.kind { FieldKind::Number => "number", FieldKind::Boolean => "boolean", FieldKind::String | FieldKind::Choice => "string" });
    }
}

fn failures(shown: &Shown, choice: &Choice) -> Markup {
    let count = shown.jobs.iter().filter(|job| Standing::of_job(job) == Standing::Failed).count();
    let (looked_into, named) = shown.failures.split_at(FAILURES.min(shown.failures.len()));
    html! {
        @for (index, failure) in looked_into.iter().enumerate() {
            @let job = &failure.job;
            article.failure #(format!("failure-{index}")) {
                h2 {
                    (Standing::Failed.mark()) " " a href=(paths::job(job.build, &job.name)) { (title(job)) } (words::may_fail(job))
                    @if let Some(cause) = &job.cause { " " span.quiet { (words::marked(&cause.text)) } }
                }
                @if let Some((step, name)) = &failure.step {
                    p.quiet { "Step " (step + 1) ": " code { (words::first_line(name)) } }
                    @let tests: Vec<&Test> = shown.tests.items.iter().filter(|test| test.job == job.name).collect();
                    @if tests.is_empty() { (failure.excerpt.lines) } @else {
                        (failed_in(&tests, shown.build.id.0))
                        details open[failure.excerpt.has_error] { summary { @if failure.excerpt.has_error { "The log around the first error" } @else { "The end of the log" } } (failure.excerpt.lines) }
                    }
                    p { a href=(format!("{}?step={step}", paths::job(job.build, &job.name))) { "The whole log" } @if job.attempts > 1 { " · " a href=(paths::attempts(job.build, &job.name)) { (job.attempts) " tries side by side" } } }
                }
            }
        }
        @if !named.is_empty() {
            ul.failures { @for Failure { job, .. } in named { li { (Standing::Failed.mark()) " " a href=(paths::job(job.build, &job.name)) { (title(job)) } (words::may_fail(job)) @if let Some(cause) = &job.cause { " " span.quiet { (words::marked(&cause.text)) } } } } }
        }
        @if count > shown.failures.len() { p { a data-in-page href=(choice.link(&[("state", "failed"), ("view", "table")])) { "All " (count) " that failed" } } }
    }
}

/// The tests for which a job failed, with what each said first.
fn failed_in(tests: &[&Test], build: u64) -> Markup {
    html! {
        ul.failures { @for test in tests.iter().take(TESTS_NAMED) {
            li {
                (Standing::of_test(test.outcome).mark()) " " code { @if !test.suite.is_empty() { (test.suite) " " } (test.name) }
                @if !test.message.is_empty() { " " span.quiet { (words::first_line(&test.message)) } }
            }
        } }
        p { a href=(format!("{}/tests", paths::build(build))) { @if tests.len() > TESTS_NAMED { "All " (tests.len()) " that failed, with what they said" } @else { "What they said, and since when they fail" } } }
    }
}

/// What a job is called.
pub(crate) fn title(job: &Job) -> &str {
    if job.title.is_empty() { &job.name } else { &job.title }
}

fn tests(shown: &Shown) -> Markup {
    html! {
        (failed_tests(&shown.tests, "tests-title", "Tests that failed", shown.tests.items.len() <= 3))
        (failed_tests(&shown.quarantined, "quarantined-title", "Tests that failed in quarantine", false))
    }
}

fn failed_tests(tests: &Page<Test>, id: &str, title: &str, is_open: bool) -> Markup {
    html! {
        @if !tests.items.is_empty() {
            section aria-labelledby=(id) {
                h2 id=(id) { (title) @if tests.next.is_some() { " (the first " (TESTS) ")" } }
                @for test in &tests.items {
                    details.test open[is_open] {
                        summary { (Standing::of_test(test.outcome).mark()) " " code { @if !test.suite.is_empty() { (test.suite) " " } (test.name) } " " span.quiet { (test.job) " · " (words::duration(test.duration_ms)) } @if let Some(note) = &test.quarantine { span.why { (words::quarantined(note)) } } }
                        @if !test.message.is_empty() { pre { (test.message) } }
                        @if !test.output.is_empty() { h3 { "What it printed" } pre { (test.output) } }
                    }
                }
            }
        }
    }
}

/// What steps wrote for people, in the order of the pipeline.
fn summaries(shown: &Shown) -> Markup {
    let of = |job: &Job| {
        let attempt =
            shown.attempts.iter().find(|attempt| Some(attempt.attempt) == job.attempt && attempt.job == job.name)?;
        let report = attempt.ended.as_ref()?.report.as_ref()?;
        (!report.summary.trim().is_empty() || !report.notes.is_empty()).then_some(report)
    };
    let said: Vec<_> = shown.jobs.iter().filter_map(|job| Some((job, of(job)?))).collect();
    html! {
        @for (job, report) in said.iter().take(SUMMARIES_MAX) {
            section.summary aria-label=(format!("Summary of {}", title(job))) {
                p.of { a href=(paths::job(job.build, &job.name)) { (title(job)) } }
                @if !report.summary.trim().is_empty() {
                    @let (text, extent) = markdown::rendered(&report.summary);
                    div.markdown { (text) }
                    @if extent == Extent::Cut { p.quiet { "It goes on: " a href=(paths::job(job.build, &job.name)) { "all of it" } } }
                }
                @for note in &report.notes { p.note { (note) } }
            }
        }
        @if said.len() > SUMMARIES_MAX { p.quiet { "Only the first " (SUMMARIES_MAX) " of " (said.len()) " summaries are shown; each stands on its job's page." } }
        @if shown.jobs.len() > REPORTS_JOBS_MAX { p.quiet { "Summaries of a build of more than " (REPORTS_JOBS_MAX) " jobs stand on the pages of its jobs." } }
    }
}

fn artifacts(shown: &Shown) -> Markup {
    let build = shown.build.id;
    html! {
        @if !shown.artifacts.is_empty() {
            section aria-labelledby="artifacts-title" {
                h2 #artifacts-title { "Artifacts" }
                table.list.plain { tbody { @for artifact in shown.artifacts.iter().take(ARTIFACTS_MAX) {
                    tr {
                        td { a.name href=(paths::artifact(build, artifact.digest)) { (artifact.name) } }
                        td { a href=(paths::job(build, &artifact.job)) { (artifact.job) } }
                        td.number { (words::count(artifact.files, "file", "files")) ", " (words::size(artifact.bytes)) }
                        td.wide { code.quiet title="BLAKE3 of the archive" { (artifact.digest.to_string().get(..16).unwrap_or_default()) } }
                        td { a href=(format!("/api/v1/builds/{build}/artifacts/{}", artifact.digest)) download=(format!("{}.tar", artifact.name)) { "Download" } }
                    }
                } } }
                @if shown.artifacts.len() > ARTIFACTS_MAX { p.quiet { "Only the first " (ARTIFACTS_MAX) " of " (shown.artifacts.len()) " are listed." } }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ::graph::Timestamp;
    use api::time::Time;
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
}
