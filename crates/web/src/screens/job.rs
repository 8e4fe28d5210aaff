//! One job: its attempts, its steps, and the log of the step that is looked at, opened where the first error is.

use std::cmp::Ordering;

use api::build::Build;
use api::job::{Attempt, Gate, Job, JobState, OutcomeWord, ReusedFrom, Usage, Waiting};
use api::log::{LogState, LogSummary};
use api::page::Page;
use api::problem::{Problem, ProblemKind};
use api::time::Time;
use maud::{Markup, PreEscaped, html};

mod artifacts;
mod environment;

use super::log::{self, Green, Range};
use super::projects::name;
use super::{gate, groups};
use crate::page::{Crumb, Document, Head, document, panel};
use crate::words::{self, Standing};
use crate::{Ask, Place, Source, paths, read};

/// How many lines the page itself brings; the rest comes when it is looked at.
const LINES: u64 = 400;
/// How many of them stand before the first error.
const BEFORE_ERROR: u64 = 40;

/// What of a job is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tab {
    Log,
    Artifacts,
    Environment,
}

impl Tab {
    fn of(ask: &Ask) -> Self {
        match ask.text("tab") {
            "artifacts" => Self::Artifacts,
            "environment" => Self::Environment,
            _ => Self::Log,
        }
    }

    /// For addresses.
    fn word(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Artifacts => "artifacts",
            Self::Environment => "environment",
        }
    }
}

/// A step as the page lists it.
struct StepLine {
    index: u16,
    name: String,
    standing: Standing,
    took_ms: Option<u64>,
    exit: Option<i32>,
    signal: Option<i32>,
    lines: u64,
    first: Option<Time>,
    is_open: bool,
    /// What its processes used; nothing of one that goes on.
    usage: Usage,
}

/// Writes the page.
pub(crate) async fn show(source: &impl Source, ask: &Ask, build: &str, job: &str) -> Result<Document, Problem> {
    let build: Build = read(source, &format!("/api/v1/builds/{}", paths::encoded(build))).await?;
    let job: Job = read(source, &paths::api_job(build.id, job)).await?;
    let of_build = format!("/api/v1/builds/{}", build.id);
    let of_job = format!("{of_build}/attempts?job={}&limit=100", paths::encoded(&job.name));
    let attempts = read::<Page<Attempt>>(source, &of_job).await?.items;
    let wanted = ask.number("attempt").or(attempts.last().map(|attempt| attempt.attempt.into()));
    let own = paths::job(build.id, &job.name);
    if let Some(wanted) = wanted.filter(|wanted| !attempts.iter().any(|it| u64::from(it.attempt) == *wanted)) {
        return Err(Problem::new(ProblemKind::NotFound, format!("`{}` has no attempt {wanted}", job.name))
            .help("take one of the attempts that the job's page lists"));
    }
    let attempt: Option<Attempt> = match wanted {
        Some(wanted) => Some(read(source, &format!("{of_build}/attempts/{wanted}")).await?),
        None => None,
    };
    let gate = gate_of(source, &of_build, &job).await?;
    let tab = Tab::of(ask);
    let made = artifacts::of(source, &job).await?;
    let body = match (tab, &attempt) {
        (Tab::Artifacts, _) => artifacts::show(&job, &made, &attempts),
        (Tab::Environment, attempt) => environment::show(source, &job, attempt.as_ref()).await?,
        (Tab::Log, None) => not_begun(source, ask, (&build, &job), gate.as_ref()).await?,
        (Tab::Log, Some(attempt)) => shown(source, ask, (&build, &job), (attempt, &attempts), &own).await?,
    };
    let main = html! {
        header.build #job-header data-live data-attempt=[wanted] data-try=[attempt.as_ref().map(|attempt| attempt.try_number)] { (header((&job, gate.as_ref()), &attempts, wanted, ask, &own)) }
        nav.views #tabs data-live aria-label="What is shown of the job" { (tabs(tab, made.len(), wanted, &own)) }
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
    let head = Head { title: &title, crumbs, stream };
    Ok(match ask.place {
        Place::Window => document(&head, &main),
        Place::Panel => panel(&head, &main),
    })
}

fn tabs(shown: Tab, artifacts: usize, attempt: Option<u64>, own: &str) -> Markup {
    let attempt = attempt.map_or_else(String::new, |attempt| format!("&attempt={attempt}"));
    html! {
        @for tab in [Tab::Log, Tab::Artifacts, Tab::Environment] {
            a #(format!("tab-{}", tab.word())) href=(format!("{own}?tab={}{attempt}", tab.word())) aria-current=[(tab == shown).then_some("true")] {
                @match tab { Tab::Log => "Log", Tab::Artifacts => { "Artifacts" @if artifacts > 0 { " " span.quiet { (artifacts) } } }, Tab::Environment => "Environment" }
            }
        }
    }
}

/// The gate of a job, once it has opened.
async fn gate_of(source: &impl Source, of_build: &str, job: &Job) -> Result<Option<Gate>, Problem> {
    if !job.gate {
        return Ok(None);
    }
    let gates = read::<Page<Gate>>(source, &format!("{of_build}/gates")).await?.items;
    Ok(gates.into_iter().find(|gate| gate.job == job.name))
}

/// The attempt that produced a result, with its log.
fn original(from: &ReusedFrom) -> String {
    format!("{}?attempt={}", paths::job(from.build, &from.job), from.attempt)
}

/// What stands in the place of a log where no worker had the job.
async fn not_begun(
    source: &impl Source,
    ask: &Ask,
    (build, job): (&Build, &Job),
    gate: Option<&Gate>,
) -> Result<Markup, Problem> {
    if let Some(child) = job.child {
        let why: Option<Waiting> = match job.state {
            JobState::Ended => None,
            _ => Some(read(source, &format!("{}/why", paths::api_job(build.id, &job.name))).await?),
        };
        return Ok(html! { div #job-body data-live {
            p.empty { "No worker runs it: it asked for " a href=(paths::build(child)) { "build " (child) } "." @if let Some(why) = why { " Now " (why.text) "." } }
        } });
    }
    if job.state == JobState::Ended {
        return Ok(html! { div #job-body data-live { p.empty { (did_not_run(job, gate)) } } });
    }
    if let Some(gate) = gate.filter(|gate| gate.answered.is_none()) {
        return Ok(html! { div #job-body data-live { (asks(build, gate, ask)) } });
    }
    let why: Waiting = read(source, &format!("{}/why", paths::api_job(build.id, &job.name))).await?;
    Ok(
        html! { div #job-body data-live { p.empty { (words::marked(&why.text)) @if let Some(estimate) = why.estimate { " It may take " (words::duration(estimate.low_ms)) " to " (words::duration(estimate.high_ms)) "." } } } },
    )
}

/// Why a job that has ended has no log of its own.
fn did_not_run(job: &Job, gate: Option<&Gate>) -> Markup {
    let is_approved = gate.and_then(|gate| gate.answered.as_ref()).is_some_and(|answered| answered.approved);
    html! {
        @if let Some(from) = &job.reused {
            "It did not run: the result of an equal run was taken. Its log is that of " a href=(original(from)) { (from.job) " in build " (from.build) } "."
        } @else if is_approved && job.outcome == Some(OutcomeWord::Passed) {
            "It was approved, and has nothing to run."
        } @else {
            "It did not run" @if let Some(cause) = &job.cause { ": " (words::marked(&cause.text)) } "."
        }
    }
}

/// A gate that is open: what it asks, whom, and where it is answered.
fn asks(build: &Build, gate: &Gate, ask: &Ask) -> Markup {
    html! {
        article.gate.asking {
            h2 { (gate.prompt) }
            p.quiet { "Its gate is open since " (words::ago(gate.opened, ask.now)) }
            p {
                "Administrators may answer it, developers" @if !build.project.is_empty() { " of " (build.project) } ", and tokens with the verb " code { "control" } ": "
                "who is kept to some pools, only if all that waits for the answer is in them."
            }
            p { a href=(format!("{}#{}", paths::build(build.id), gate::place(&gate.job))) { "Answer it on the page of its build" } }
        }
    }
}

fn header(
    (job, gate): (&Job, Option<&Gate>),
    attempts: &[Attempt],
    shown: Option<u64>,
    ask: &Ask,
    own: &str,
) -> Markup {
    let standing = Standing::of_job(job);
    // Who looks at a step or a tab sees the same of the other attempt.
    let mut step = ask.number("step").map_or_else(String::new, |step| format!("&step={step}"));
    if Tab::of(ask) != Tab::Log {
        step = format!("&tab={}", Tab::of(ask).word());
    }
    html! {
        h1 { (standing.mark()) " " (super::build::title(job)) (words::may_fail(job)) }
        @if let Some(cause) = &job.cause { p.verdict.(standing.word()) { (words::marked(&cause.text)) } }
        dl.facts {
            @if let Some(ms) = words::took(job.started, job.finished, ask.now) { div { dt { "Took" } dd { (words::against_usual(ms, job.usual_ms)) } } }
            @if let Some(at) = job.started { div { dt { "Began" } dd { (words::ago(at, ask.now)) } } }
            @if let Some(child) = job.child { div { dt { "Its build" } dd { a href=(paths::build(child)) { "build " (child) } } } }
            @if let Some(from) = &job.reused { div { dt { "Result" } dd { "taken from " a href=(original(from)) { (from.job) " in build " (from.build) } } } }
            @if let Some((gate, answered)) = gate.and_then(|gate| Some((gate, gate.answered.as_ref()?))) { div { dt { "Gate" } dd title=(gate.prompt) { (gate::said(answered, ask)) } } }
            @if !job.needs.is_empty() { div { dt { "Needs" } dd { @for (index, need) in job.needs.iter().enumerate() { @if index > 0 { ", " } a href=(paths::job(job.build, need)) { (need) } } } } }
            @if let Some(attempt) = attempts.iter().find(|attempt| Some(u64::from(attempt.attempt)) == shown) { div { dt { "Worker" } dd title=(attempt.worker) { (words::worker(attempt)) } } }
        }
        div.actions {
            @if attempts.len() > 1 {
                nav.attempts aria-label="Attempts" {
                    @for attempt in attempts {
                        @let standing = attempt.ended.as_ref().map_or(Standing::Running, |end| Standing::of_outcome(end.outcome));
                        a href=(format!("{own}?attempt={}{step}", attempt.attempt)) aria-current=[(Some(u64::from(attempt.attempt)) == shown).then_some("true")] { (standing.mark()) " try " (attempt.try_number) @if let Some(partial) = attempt.partial { span.quiet { " " (graph::Partial::from(partial)) } } }
                    }
                    a href=(paths::attempts(job.build, &job.name)) { "Side by side" }
                }
            }
            @if matches!(standing, Standing::Failed | Standing::Canceled) {
                form method="post" action=(format!("{own}/retry")) { button.main { "Retry" } }
                @if attempts.iter().any(|attempt| attempt.ended.as_ref().is_some_and(|end| end.tests_failed > 0)) { (retry_tests(job)) }
            } @else if job.state != JobState::Ended {
                form method="post" action=(format!("{own}/cancel")) { button { "Cancel" } }
            }
        }
    }
}

/// The button that runs only what failed of the tests that a job reported.
fn retry_tests(job: &Job) -> Markup {
    html! {
        form method="post" action=(format!("{}/retry", paths::build(job.build))) {
            input type="hidden" name="what" value="failed_tests";
            input type="hidden" name="jobs" value=(serde_json::json!([job.name]));
            button { "Retry the failing tests" }
        }
    }
}

/// The steps of an attempt: those that were reported, else all of the job, of which one goes on: the one that prints, or the first behind those that
/// have. What passed in silence is known only by the report.
fn steps(attempt: &Attempt, summary: &LogSummary, names: &[String]) -> Vec<StepLine> {
    let first = |index: u16| summary.steps.iter().find(|log| log.step == index).map(|log| log.first);
    if let Some(report) = attempt.ended.as_ref().and_then(|end| end.report.as_ref()) {
        let line = |(index, step): (usize, &api::job::Step)| {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            StepLine {
                index,
                name: step.name.clone(),
                standing: Standing::of_step(step.result),
                took_ms: Some(step.finished.0.ms_since(step.started.0)),
                exit: step.exit,
                signal: step.signal,
                lines: log::lines_of(summary, index),
                first: first(index),
                is_open: false,
                usage: step.usage,
            }
        };
        return report.steps.iter().enumerate().map(line).collect();
    }
    let is_open = |index: u16| summary.steps.iter().any(|log| log.step == index && log.state == LogState::Open);
    let last = summary.steps.iter().map(|log| log.step).max();
    let behind = last.map_or(0, |last| last.saturating_add(1));
    let count = names.len().max(usize::from(behind));
    let running = match last {
        Some(last) if is_open(last) || usize::from(behind) == count => last,
        _ => behind,
    };
    let line = |index: u16| StepLine {
        index,
        name: names.get(usize::from(index)).cloned().unwrap_or_else(|| format!("step {}", index + 1)),
        standing: match index.cmp(&running) {
            Ordering::Less => Standing::Passed,
            Ordering::Equal => Standing::Running,
            Ordering::Greater => Standing::Waiting,
        },
        took_ms: None,
        exit: None,
        signal: None,
        lines: log::lines_of(summary, index),
        first: first(index),
        is_open: is_open(index),
        usage: Usage::default(),
    };
    (0..u16::try_from(count).unwrap_or(u16::MAX)).map(line).collect()
}

/// What the parts of a log's page speak of.
struct Shown<'a> {
    build: &'a Build,
    job: &'a Job,
    attempt: &'a Attempt,
    /// The step that is looked at, and what is known of it.
    step: u16,
    here: Option<&'a StepLine>,
    has_failed: bool,
    /// The step that failed the job.
    failed: Option<u16>,
    /// Whether it is the last attempt at the job.
    is_last: bool,
    /// The page with the attempt and the step in its query.
    base: String,
    /// With what lines are compared.
    green: Option<Green>,
}

impl Shown<'_> {
    fn of(&self) -> [u64; 3] {
        [self.build.id.0, self.attempt.attempt.into(), self.step.into()]
    }

    fn log_path(&self) -> String {
        let [build, attempt, step] = self.of();
        paths::api_log(build, attempt, step)
    }
}

async fn shown(
    source: &impl Source,
    ask: &Ask,
    (build, job): (&Build, &Job),
    (attempt, attempts): (&Attempt, &[Attempt]),
    own: &str,
) -> Result<Markup, Problem> {
    let is_last = attempts.last().is_some_and(|last| last.attempt == attempt.attempt);
    let number = u64::from(attempt.attempt);
    let summary: LogSummary = read(source, &format!("/api/v1/builds/{}/attempts/{number}/log", build.id)).await?;
    let steps = steps(attempt, &summary, &job.steps);
    let failed = attempt.ended.as_ref().and_then(|end| end.cause.as_ref()?.step);
    let wanted = ask.number("step").and_then(|step| u16::try_from(step).ok());
    let printed = steps.iter().rev().find(|step| step.lines > 0).map(|step| step.index);
    let step = wanted.or(failed).or(printed).unwrap_or(0);
    let here = steps.iter().find(|line| line.index == step);
    let base = format!("{own}?attempt={number}&step={step}");
    // What is usual is worth telling where something is not.
    let has_failed = failed == Some(step);
    let green = if has_failed { Green::before(source, build, &job.name).await } else { None };
    let shown = Shown { build, job, attempt, step, here, has_failed, failed, is_last, base, green };
    let found = match ask.text("q") {
        "" => html! {},
        regex => log::search(source, shown.of(), regex, &shown.base).await?,
    };
    let lines = here.map_or(0, |line| line.lines);
    let groups = match lines {
        0 | groups::LINES_AT_ONCE.. => html! {},
        _ => groups::tree(source, shown.of()).await?,
    };
    let viewer = viewer(source, ask, &shown).await?;
    let report = attempt.ended.as_ref().and_then(|end| end.report.as_ref());
    Ok(html! {
        div.split {
            nav.steps #steps data-live aria-label="Steps" {
                ol { @for line in &steps { li {
                    (step_link(line, &format!("{own}?attempt={number}&step={}", line.index), line.index == step))
                    @if line.index == step {
                        ol.groups #groups data-source=[(lines >= groups::LINES_AT_ONCE).then(|| format!("/builds/{}/attempts/{number}/groups/{step}", build.id))] { (groups) }
                    }
                } } }
                @if let Some(partial) = attempt.partial { p.quiet { "Asked for " (graph::Partial::from(partial)) } }
                @if let Some(report) = report {
                    @if !report.notes.is_empty() { h2 { "Remarks" } ul { @for note in &report.notes { li { (note) } } } }
                    @if !report.outputs.is_empty() { h2 { "Outputs" } dl { @for (name, value) in &report.outputs { dt { code { (name) } } dd { code { (value) } } } } }
                    @if !report.summary.is_empty() { h2 { "Summary" } div.markdown { (crate::markdown::rendered(&report.summary).0) } }
                    p.quiet { "Peak memory " (words::size(report.usage.peak_memory_bytes)) ", processor " (words::duration((report.usage.cpu_user_us + report.usage.cpu_system_us) / 1000)) }
                }
            }
            section.viewer aria-label="Log of the step" {
                div.tools { (tools(ask, &shown)) }
                (found)
                (viewer)
            }
        }
    })
}

fn step_link(line: &StepLine, to: &str, is_here: bool) -> Markup {
    html! {
        a class=(line.standing.word()) #(format!("step-{}", line.index + 1)) title=[words::used(line.usage)] href=(to) aria-current=[is_here.then_some("true")] data-printed[line.lines > 0] {
            (line.standing.mark()) " " span.name { (words::first_line(&line.name)) }
            span.quiet { @if let Some(ms) = line.took_ms { (words::duration(ms)) " · " } @if let Some(exit) = line.exit.filter(|exit| *exit != 0) { "exit " (exit) " · " } @if line.standing != Standing::Waiting { (words::count(line.lines, "line", "lines")) } }
        }
    }
}

/// Search, and ways out of the page. What only scripts can do is shown by the log's module.
fn tools(ask: &Ask, shown: &Shown) -> Markup {
    let Shown { build, job, attempt, step, .. } = shown;
    let (id, number) = (build.id, attempt.attempt);
    let text = format!("{}?format=text", shown.log_path());
    let file = format!("build-{id}-{}-{}.log", job.name.replace('/', "-"), step + 1);
    let place = words::quoted(&format!("{}@{}", job.name, step + 1));
    html! {
        form.find method="get" role="search" {
            input type="hidden" name="attempt" value=(number); input type="hidden" name="step" value=(step);
            input #search type="search" name="q" value=(ask.text("q")) placeholder="Find by regular expression" aria-label="Find in the log";
            button { "Find" }
            span.scripted #log-tools role="group" aria-label="Ways to look at the log" hidden {
                button type="button" data-do="p" aria-label="Previous hit or error" title="Previous hit or error (p)" { "↑" }
                button type="button" data-do="n" aria-label="Next hit or error" title="Next hit or error (n)" { "↓" }
                button type="button" data-do="t" title="Times: none, clock, since the step began, since the line before (t)" { "Times" }
                button type="button" data-do="w" aria-pressed="false" title="Wrap long lines (w)" { "Wrap" }
                @if let Some(green) = &shown.green {
                    button type="button" data-do="d" aria-pressed="true" title=(format!("Dim what build {} printed too, when this job passed (d)", green.build)) { "Dim usual" }
                }
                button type="button" data-do="c" title="Copy the chosen lines, or those in view, without numbers (c)" { "Copy" }
            }
            a href=(text) { "Raw" }
            a href=(text) download=(file) { "Download" }
            a href=(format!("{}&plain=1", shown.base)) title="All lines as plain text of the page, without scripts: for screen readers" { "Plain" }
        }
        details.shell {
            summary { "Shell" }
            div #shell-ways data-live { (shell(shown, &place, &ask.address)) }
        }
    }
}

/// The moments of a job at which a shell opens in its files, as the API names them, with what they are called: empty while it runs, and for a try that
/// is not the last, since the last one's files stand for the job.
fn moments(shown: &Shown) -> Vec<(String, String)> {
    let Some(report) = shown.attempt.ended.as_ref().and_then(|end| end.report.as_ref()) else { return Vec::new() };
    if !shown.is_last {
        return Vec::new();
    }
    let mut moments = Vec::new();
    if let Some(failed) = shown.failed {
        moments.push(("failed".to_owned(), format!("as the failed step {} left it", failed + 1)));
    }
    moments.push(("start".to_owned(), "before the first step".to_owned()));
    for (index, step) in report.steps.iter().enumerate() {
        moments.push((
            (index + 1).to_string(),
            format!("as step {} left it: {}", index + 1, words::first_line(&step.name)),
        ));
    }
    moments.push((String::new(), "at its end, where changes stay".to_owned()));
    moments
}

/// The moment of the step that is looked at.
fn moment_here(shown: &Shown) -> String {
    if shown.has_failed { "failed".to_owned() } else { (shown.step + 1).to_string() }
}

/// The ways to a shell: in the page, and as a command.
fn shell(shown: &Shown, place: &str, address: &str) -> Markup {
    let moments = moments(shown);
    let here = moment_here(shown);
    let path = format!("{}/shells", paths::job(shown.build.id, &shown.job.name));
    html! {
        @if !moments.is_empty() {
            form.needs-scripts method="get" data-shells=(path) data-job=(shown.job.name) {
                label { "The job's files and variables"
                    select name="at" { @for (at, text) in &moments { option value=(at) selected[*at == here] { (text) } } }
                }
                button.main { "Open a shell here" }
            }
            p.quiet.needs-scripts { "It opens below, with the rights of your token, and is noted in the audit. It has no secrets of the job." }
        } @else if shown.attempt.ended.is_none() {
            p { "The job still runs: a shell opens in its files once it has ended." }
        } @else if !shown.is_last {
            p { "A shell opens in what the last try left: " a href=(paths::job(shown.build.id, &shown.job.name)) { "go there" } "." }
        }
        @if shown.attempt.ended.is_some() {
            p { "In a terminal of yours:" }
            pre #shell-command { "ropewalk shell " (shown.build.id) " " (place) " --server " (words::quoted(address)) }
            p.quiet { "It asks for your token by " code { "--token FILE" } " or " code { "ROPEWALK_TOKEN_FILE" } "." }
        }
    }
}

/// The lines that the page itself brings, and what the log's module needs to know to bring the others.
async fn viewer(source: &impl Source, ask: &Ask, shown: &Shown<'_>) -> Result<Markup, Problem> {
    let Some(step) = shown.here.filter(|step| step.lines > 0 || step.is_open) else {
        return Ok(html! { p.empty #log data-live { "This step has printed nothing." } (footer(shown)) });
    };
    let Shown { base, has_failed, .. } = shown;
    let error = match ask.number("mark") {
        Some(mark) => Some(mark),
        None if *has_failed => log::first_error(source, shown.of()).await?,
        None => None,
    };
    let last = step.lines.saturating_sub(LINES);
    let from = match (ask.number("from"), error) {
        (Some(from), _) => from.min(step.lines.saturating_sub(1)),
        (None, Some(error)) => error.saturating_sub(BEFORE_ERROR),
        (None, None) if step.is_open || *has_failed => last,
        (None, None) => 0,
    };
    let range = Range { from, count: LINES };
    let items = log::read_range(source, shown.of(), range, shown.green).await?;
    let end = range.end().min(step.lines);
    let [build, attempt, index] = shown.of();
    let earlier = from.saturating_sub(LINES);
    // For who reads line by line, nothing is taken away that is not looked at.
    let is_plain = ask.text("plain") == "1";
    let plain = if is_plain { "&plain=1" } else { "" };
    let source = format!("/builds/{build}/attempts/{attempt}/lines/{index}");
    // The end of the log has what may be lost behind its last line.
    let until = if end < step.lines { end } else { u64::MAX };
    let rows = log::Rows { step: Some(index), base: Some(base), marked: error, until, redrawn: log::Redrawn::Folded };
    Ok(html! {
        @if from > 0 { p.pager.before { a href=(format!("{base}{plain}&from=0")) { "First lines" } " " a href=(format!("{base}{plain}&from={earlier}")) { "Earlier lines" } " " span.quiet { (words::count(from, "line", "lines")) " above" } } }
        div.stage {
            div #log class=(if shown.green.is_some() { "log dims" } else { "log" }) role="region" aria-label="Lines" tabindex="0" data-lines=(step.lines) data-from=(from) data-open[step.is_open]
                data-source=[(!is_plain).then_some(source)] data-step=(index + 1)
                data-api=(shown.log_path()) data-errors=(log::ERROR) data-failed[*has_failed]
                data-first=[step.first.map(|first| first.to_string())] data-green=[shown.green.map(|green| green.to_string())] data-mark=[error] {
                (PreEscaped(log::written(&items, &rows).0))
            }
        }
        @if end < step.lines { p.pager.after { a href=(format!("{base}{plain}&from={end}")) { "Later lines" } " " a href=(format!("{base}{plain}&from={last}")) { "Last lines" } " " span.quiet { (words::count(step.lines - end, "line", "lines")) " below" } } }
        (footer(shown))
    })
}

/// How the step ended.
fn footer(shown: &Shown) -> Markup {
    let cause = shown.attempt.ended.as_ref().and_then(|end| end.cause.as_ref()).filter(|_| shown.has_failed);
    html! {
        p.ending #ending data-live {
            @if let Some(step) = shown.here {
                (step.standing.mark()) " "
                @match (step.signal, step.exit) {
                    (Some(signal), _) => { "ended by " (signal_name(signal)) " (signal " (signal) ")" }
                    (None, Some(exit)) => { "exit " (exit) }
                    (None, None) => { (step.standing.word()) }
                }
                @if let Some(ms) = step.took_ms { " after " (words::duration(ms)) }
                @if let Some(cause) = cause { ": " (words::marked(&cause.text)) }
                @if let Some(green) = &shown.green { span.quiet { " · dimmed lines are as in " a href=(format!("{}?attempt={}&step={}", paths::job(green.build, &shown.job.name), green.attempt, shown.step)) { "build " (green.build) } ", where it passed" } }
            }
            @if !moments(shown).is_empty() { " " button #open-shell .needs-scripts type="button" data-shell-at=(moment_here(shown)) { "Open a shell here" } }
        }
    }
}

/// The name of a signal (signal(7), x86 and ARM).
fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => "a signal",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is shown of the steps `a`, `b` and `c` of an attempt that runs, of which these have printed a line.
    fn check(printed: &[(u16, &str)], expected: &str) {
        let attempt =
            json!({ "build": 1, "attempt": 1, "job": "j", "try": 1, "worker": "w", "leased": "2026-01-01T00:00:00Z" });
        let attempt: Attempt = serde_json::from_value(attempt).expect("an attempt");
        let logs = printed.iter().map(|(step, state)| json!({ "step": step, "lines": 1, "bytes": 1, "state": state }));
        let summary = json!({ "build": 1, "attempt": 1, "steps": logs.collect::<Vec<_>>() });
        let summary: LogSummary = serde_json::from_value(summary).expect("a summary");
        let names = ["a", "b", "c"].map(str::to_owned);
        let shown = steps(&attempt, &summary, &names);
        let shown: Vec<String> = shown.iter().map(|line| format!("{} {}", line.name, line.standing.word())).collect();
        assert_eq!(shown.join(", "), expected, "{printed:?}");
    }

    #[test]
    fn all_steps_of_a_job_that_runs_have_their_names() {
        check(&[], "a running, b waiting, c waiting");
        check(&[(0, "open")], "a running, b waiting, c waiting");
        check(&[(0, "closed")], "a passed, b running, c waiting");
        check(&[(0, "closed"), (2, "open")], "a passed, b passed, c running");
        check(&[(0, "closed"), (2, "closed")], "a passed, b passed, c running");
        check(&[(3, "open")], "a passed, b passed, c passed, step 4 running");
    }
}
