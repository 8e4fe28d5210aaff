//! Two builds side by side: commits, jobs and tests that differ, what came from the cache.

use api::build::Build;
use api::comparison::{Comparison, JobDifference, JobSide, TestDifference, TestSide};
use api::job::JobState;
use api::overview::RefKind;
use api::page::Page;
use api::problem::{Problem, ProblemKind};
use maud::{Markup, html};

use super::projects::name;
use crate::page::{Crumb, Document, Head, document};
use crate::words::{self, Standing};
use crate::{Ask, Source, paths, read};

/// How many earlier builds are offered to compare with.
const OFFERED: u32 = 50;

/// Writes the page. `?with=` is the id of the other build; the newest earlier one of the same branch that passed if it is
/// not said.
pub(crate) async fn show(source: &impl Source, ask: &Ask, build: &str) -> Result<Document, Problem> {
    let api = format!("/api/v1/builds/{}", paths::encoded(build));
    let build: Build = read(source, &api).await?;
    let offered = offered(source, &build).await?;
    let with = ask.number("with").or_else(|| usual(&build, &offered).map(|other| other.id.0));
    let body = match with {
        None => html! { p.empty { "There is no earlier build to compare with. The next one has." } },
        Some(with) => {
            let comparison: Comparison = read(source, &format!("{api}/compare/{with}")).await?;
            differences(&comparison, ask)
        }
    };
    let own = format!("{}/compare", paths::build(build.id));
    let main = html! {
        h1 { "What differs" }
        @if !offered.is_empty() {
            form.filters method="get" action=(own) {
                label { (name(&build)) " with " select name="with" {
                    @for other in &offered {
                        option value=(other.id) selected[Some(other.id.0) == with] { (name(other)) " " (other.verdict.word()) " · " (words::happening(&other.event)) " · " (words::first_line(&other.event.message)) }
                    }
                } }
                button { "Compare" }
            }
        }
        (body)
    };
    let mut crumbs = Vec::new();
    if !build.project.is_empty() {
        crumbs.push(Crumb::new(&build.project, paths::project(&build.project)));
    }
    crumbs.push(Crumb::new(name(&build), paths::build(build.id)));
    crumbs.push(Crumb::new("Compare", own));
    Ok(document(&Head { title: &format!("{} {} compared", build.project, name(&build)), crumbs, stream: None }, &main))
}

/// The builds of the project before this one.
async fn offered(source: &impl Source, build: &Build) -> Result<Vec<Build>, Problem> {
    if build.project.is_empty() {
        return Ok(Vec::new());
    }
    let project = paths::encoded(&build.project);
    let path = format!("/api/v1/builds?project={project}&before={}&limit={OFFERED}", build.id);
    match read::<Page<Build>>(source, &path).await {
        Ok(page) => Ok(page.items),
        // Who may see one build alone compares it with what they name.
        Err(problem) if problem.status == ProblemKind::Forbidden.status() => Ok(Vec::new()),
        Err(problem) => Err(problem),
    }
}

/// With which of these a build is compared if nobody says.
fn usual<'b>(build: &Build, offered: &'b [Build]) -> Option<&'b Build> {
    let of = |build: &Build| {
        let event = &build.event;
        RefKind::of(event.kind, event.pull_request, event.tag.as_deref(), event.branch.as_deref())
    };
    let is_same = |other: &&Build| of(other) == of(build) && other.pipeline == build.pipeline;
    let passed = |other: &&Build| other.verdict == api::build::VerdictWord::Passed;
    let mut same = offered.iter().filter(is_same);
    same.clone().find(passed).or_else(|| same.next()).or_else(|| offered.iter().find(passed)).or(offered.first())
}

fn differences(comparison: &Comparison, ask: &Ask) -> Markup {
    let Comparison { build, with, jobs, tests, .. } = comparison;
    html! {
        div.pair { (side(with, ask)) (side(build, ask)) }
        section aria-labelledby="jobs-title" {
            h2 #jobs-title { "Jobs" }
            @if jobs.is_empty() { p.empty { "All " (comparison.jobs_same) " jobs ended alike and took about as long." } }
            @else {
                table.list.compared {
                    thead { tr { th { "Job" } th { (name(with)) } th { (name(build)) } } }
                    tbody { @for job in jobs { (job_row(job, build, with)) } }
                }
                p.quiet { @if comparison.jobs_left_off > 0 { (comparison.jobs_left_off) " more differ; " } (words::count(comparison.jobs_same, "job is", "jobs are")) " the same." }
            }
        }
        section aria-labelledby="tests-title" {
            h2 #tests-title { "Tests" }
            @if tests.is_empty() {
                p.empty { @if comparison.tests_same == 0 { "Neither build reported tests." } @else { "All " (comparison.tests_same) " tests ended alike." } }
            } @else {
                table.list.compared {
                    thead { tr { th { "Test" } th { (name(with)) } th { (name(build)) } } }
                    tbody { @for test in tests.iter().filter(|test| test.quarantine.is_none()).chain(tests.iter().filter(|test| test.quarantine.is_some())) { (test_row(test)) } }
                }
                p.quiet { @if comparison.tests_left_off > 0 { (comparison.tests_left_off) " more differ; " } (words::count(comparison.tests_same, "test is", "tests are")) " the same." }
            }
        }
    }
}

fn side(build: &Build, ask: &Ask) -> Markup {
    let standing = Standing::of_build(build.verdict, build.open_gates);
    let counts = build.counts;
    html! {
        article.card {
            h2 { (standing.mark()) " " a href=(paths::build(build.id)) { (name(build)) } " " span.quiet { (words::happening(&build.event)) } }
            p { (words::first_line(&build.event.message)) }
            dl.facts {
                @if let Some(commit) = &build.event.commit { div { dt { "Commit" } dd { code { (commit.get(..12).unwrap_or(commit)) } } } }
                @if let Some(ms) = words::took(build.started, build.finished, ask.now) { div { dt { "Took" } dd { (words::duration(ms)) } } }
                div { dt { "Jobs" } dd { (build.jobs) @if counts.failed > 0 { ", " (counts.failed) " failed" } } }
                div { dt { "From the cache" } dd { (counts.reused) } }
                div { dt { "When" } dd { (words::ago(build.created, ask.now)) } }
            }
        }
    }
}

fn job_row(difference: &JobDifference, build: &Build, with: &Build) -> Markup {
    let (here, there) = (difference.here.as_ref(), difference.there.as_ref());
    html! {
        tr class=[here.map(standing_of).map(Standing::word)] {
            td { (difference.job) }
            td { (job_side(there, &paths::job(with.id, &difference.job), None)) }
            td { (job_side(here, &paths::job(build.id, &difference.job), there.and_then(|there| there.took_ms))) }
        }
    }
}

fn standing_of(side: &JobSide) -> Standing {
    match (side.state, side.outcome) {
        (JobState::Running, _) => Standing::Running,
        (_, Some(outcome)) => Standing::of_outcome(outcome),
        (JobState::Waiting | JobState::Ended, None) => Standing::Waiting,
    }
}

fn job_side(side: Option<&JobSide>, path: &str, usual: Option<u64>) -> Markup {
    html! {
        @match side {
            None => span.quiet { "not there" },
            Some(side) => {
                (standing_of(side).mark()) " " a href=(path) { (standing_of(side).word()) }
                @if side.reused { " " span.tag { "cached" } }
                @if let Some(ms) = side.took_ms { " " (words::against_usual(ms, usual)) }
                @if !side.text.is_empty() { span.why { (words::marked(&side.text)) } }
            }
        }
    }
}

fn test_row(difference: &TestDifference) -> Markup {
    let name = if difference.suite.is_empty() {
        difference.name.clone()
    } else {
        format!("{} {}", difference.suite, difference.name)
    };
    let side = |side: Option<TestSide>, usual: Option<u64>| {
        html! {
            @match side {
                None => span.quiet { "not there" },
                Some(side) => {
                    @let standing = Standing::of_test(side.outcome);
                    (standing.mark()) " " (standing.word()) " " (words::against_usual(side.duration_ms, usual))
                }
            }
        }
    };
    html! {
        tr class=[difference.here.map(|here| Standing::of_test(here.outcome).word())] {
            td { code { (name) } " " span.quiet { (difference.job) } @if let Some(note) = &difference.quarantine { span.why { (words::quarantined(note)) } } }
            td { (side(difference.there, None)) }
            td { (side(difference.here, difference.there.map(|there| there.duration_ms))) }
        }
    }
}
