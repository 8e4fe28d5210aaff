//! One test over the builds of its project: how it ended in each, how long it took, since when.

use api::job::TestOutcome;
use api::page::Page;
use api::problem::Problem;
use api::quarantine::Quarantined;
use api::test_history::{BuildName, TestRun};
use maud::{Markup, html};

use crate::page::{Crumb, Document, Head, document};
use crate::words::{self, Standing};
use crate::{Ask, Source, paths, read};

/// How many builds are looked at for a page.
const BUILDS: u32 = 50;
/// The bars' height, and the width of each with its gap, in units of the drawing.
const HEIGHT: u64 = 48;
const WIDTH: u64 = 10;

/// Writes the page: `?name=`, `?suite=`, `?job=` and `?branch=` say which test and where.
pub(crate) async fn show(source: &impl Source, ask: &Ask, project: &str) -> Result<Document, Problem> {
    // A name may be empty, as its report has it.
    let wanted: String = ["name", "suite", "job", "branch"]
        .iter()
        .filter(|name| **name == "name" || !ask.text(name).is_empty())
        .map(|name| format!("&{name}={}", paths::encoded(ask.text(name))))
        .collect();
    let cursor = super::builds::cursor_of(ask);
    let path = format!("/api/v1/projects/{}/tests/history?limit={BUILDS}{wanted}{cursor}", paths::encoded(project));
    let page: Page<TestRun> = read(source, &path).await?;
    let own = format!("{}/tests", paths::project(project));
    let of_project = format!("/api/v1/projects/{}/quarantine", paths::encoded(project));
    let quarantined = read::<Page<Quarantined>>(source, &of_project).await?.items;
    let title = if ask.text("name").is_empty() { "A test without a name" } else { ask.text("name") };
    let main = html! {
        header.build {
            h1 { @if ask.text("name").is_empty() { (title) } @else { code { (title) } } }
            p.quiet { (ask.text("suite")) @if !ask.text("job").is_empty() { @if !ask.text("suite").is_empty() { " · " } "job " (ask.text("job")) } }
            (figures(&page.items))
            (super::quarantine::of_test(&quarantined, project, ask))
        }
        form.filters method="get" action=(own) role="search" {
            @for name in ["name", "suite", "job"] { input type="hidden" name=(name) value=(ask.text(name)); }
            label { "Branch " input #search type="search" name="branch" value=(ask.text("branch")) placeholder="any"; }
            button { "Show" }
        }
        @if page.items.is_empty() { p.empty { "No build among those looked at has reported this test." } }
        @else { (bars(&page.items)) (table(&page.items, ask)) }
        @if let Some(next) = &page.next {
            p.pager { a rel="next" href=(format!("{own}?cursor={}{wanted}", paths::encoded(next))) { "Older builds" } }
        }
    };
    let crumbs = vec![
        Crumb::new(project, paths::project(project)),
        Crumb::new("Test", format!("{own}?{}", wanted.trim_start_matches('&'))),
    ];
    Ok(document(&Head { title, crumbs, stream: None }, &main))
}

fn has_failed(run: &TestRun) -> bool {
    matches!(run.outcome, TestOutcome::Failed | TestOutcome::Errored)
}

fn build(name: &BuildName) -> Markup {
    html! { a href=(paths::build(name.build)) { @if let Some(number) = name.number { "#" (number) } @else { "build " (name.build) } } }
}

fn figures(runs: &[TestRun]) -> Markup {
    let ran: Vec<&TestRun> = runs.iter().filter(|run| run.outcome != TestOutcome::Skipped).collect();
    let n_passed = ran.iter().filter(|run| run.outcome == TestOutcome::Passed).count();
    let mut spans: Vec<u64> = ran.iter().map(|run| run.duration_ms).collect();
    spans.sort_unstable();
    let (first, last) = (runs.iter().rev().find(|run| has_failed(run)), runs.iter().find(|run| has_failed(run)));
    html! {
        @if !ran.is_empty() {
            dl.facts {
                div { dt { "Passed" } dd { strong { (n_passed * 100 / ran.len()) " %" } span.quiet { " of " (words::count(ran.len() as u64, "build", "builds")) } } }
                @if let Some(ms) = spans.get(spans.len() / 2) { div { dt { "Usually takes" } dd { (words::duration(*ms)) } } }
                @if let Some(first) = first { div { dt { "Failed first" } dd { (build(&first.build)) } } }
                @if let Some(last) = last { div { dt { "Failed last" } dd { (build(&last.build)) } } }
            }
        }
    }
}

/// The runs, the oldest at the left: colour is the outcome, height the duration.
fn bars(runs: &[TestRun]) -> Markup {
    let most = runs.iter().map(|run| run.duration_ms).max().unwrap_or(0).max(1);
    let width = runs.len() as u64 * WIDTH;
    html! {
        svg.bars viewBox=(format!("0 0 {width} {HEIGHT}")) preserveAspectRatio="xMinYMax meet" role="group" aria-label="The last builds" {
            @for (index, run) in runs.iter().rev().enumerate() {
                @let height = (run.duration_ms.saturating_mul(HEIGHT) / most).clamp(5, HEIGHT);
                @let standing = Standing::of_test(run.outcome);
                @let text = format!("{} in {}, {}", standing.word(), run.build.number.map_or_else(|| format!("build {}", run.build.build), |number| format!("#{number}")), words::duration(run.duration_ms));
                a href=(paths::build(run.build.build)) aria-label=(text) {
                    title { (text) }
                    rect class=(standing.word()) x=(index as u64 * WIDTH) y=(HEIGHT - height) width=(WIDTH - 2) height=(height) rx="1" {}
                }
            }
        }
    }
}

fn table(runs: &[TestRun], ask: &Ask) -> Markup {
    html! {
        table.list {
            thead { tr { th { span.unseen { "State" } } th { "Build" } th { "Said" } th.number { "Took" } th.wide { "When" } } }
            tbody { @for run in runs {
                @let standing = Standing::of_test(run.outcome);
                tr class=(standing.word()) {
                    td { (standing.mark()) }
                    td {
                        (build(&run.build))
                        @if let Some(branch) = &run.branch { " " span.tag { (branch) } }
                        @if let Some(commit) = &run.build.commit { " " code.quiet { (commit.get(..8).unwrap_or(commit)) } }
                    }
                    td {
                        a href=(format!("{}?attempt={}", paths::job(run.build.build, &run.job), run.attempt)) { (run.job) }
                        @if run.unsteady { " " span.tag { "other tries ended otherwise" } }
                        @if !run.message.is_empty() { span.why { (words::first_line(&run.message)) } }
                    }
                    td.number { (words::duration(run.duration_ms)) }
                    td.wide { (words::ago(run.created, ask.now)) }
                }
            } }
        }
    }
}
