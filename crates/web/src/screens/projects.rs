//! All projects with their last builds; on a fresh server, what to do first.

use api::build::{Build, BuildBrief};
use api::page::Page;
use api::problem::Problem;
use api::project::Project;
use graph::BuildId;
use maud::{Markup, html};

use super::builds::{self, Usual};
use crate::page::{Document, Head, document};
use crate::words::{self, Standing};
use crate::{Ask, Source, paths, read};

/// How many projects a page has.
const PROJECTS: u32 = 24;
/// Of how many builds there are bars.
const BARS: u32 = 30;
/// The bars' height and the width of each with its gap, in units of the drawing.
const BAR_HEIGHT: u64 = 40;
const BAR_WIDTH: u64 = 8;

/// Writes the page.
pub(crate) async fn show(source: &impl Source, ask: &Ask) -> Result<Document, Problem> {
    let cursor = match ask.text("cursor") {
        "" => String::new(),
        cursor => format!("&cursor={}", paths::encoded(cursor)),
    };
    let tag = tag_of(ask);
    let page: Page<Project> =
        read(source, &format!("/api/v1/projects?limit={PROJECTS}&builds={BARS}{tag}{cursor}")).await?;
    let main = html! {
        h1 { "Projects" @if !tag.is_empty() { " " span.quiet { "with the tag " (ask.text("tag")) } } }
        @if !tag.is_empty() || !page.items.is_empty() { p.ways {
            @if !tag.is_empty() { a href="/" { "All projects" } }
            a href=(format!("/wall?{}", tag.trim_start_matches('&'))) { "On a wall" }
        } }
        @if page.items.is_empty() {
            @if tag.is_empty() { (first_steps(ask)) } @else { p.empty { "No project that you may see has this tag. A project's settings say which it has." } }
        }
        div.cards #projects data-live { @for project in &page.items { (card(project, ask)) } }
        @if let Some(next) = &page.next { p.pager { a href=(format!("/?cursor={}{tag}", paths::encoded(next))) { "More projects" } } }
    };
    let head = Head { title: "Projects", crumbs: Vec::new(), stream: Some("/api/v1/events".to_owned()) };
    Ok(document(&head, &main))
}

/// The tag that is asked for, as a part of a query; empty if none is.
pub(crate) fn tag_of(ask: &Ask) -> String {
    match ask.text("tag") {
        "" => String::new(),
        tag => format!("&tag={}", paths::encoded(tag)),
    }
}

/// The way to the first build, in commands to copy.
fn first_steps(ask: &Ask) -> Markup {
    html! {
        section.first {
            p { "There is no project yet. A project comes to be with its first build, and a build needs two things:" }
            ol {
                li {
                    p { "A token for sending builds. On this machine, beside the server:" }
                    pre { code { "ropewalk token create --data DIR --submit --client NAME --pool default > submit.token" } }
                }
                li {
                    p { "A directory with a pipeline. In any repository of yours; " code { "init" } " writes one that fits:" }
                    pre { code { "ropewalk init\nropewalk submit --server " (words::quoted(&ask.address)) " --token submit.token --pool default" } }
                }
            }
            p { "This page shows the build by itself as soon as it is there." }
        }
    }
}

fn card(project: &Project, ask: &Ask) -> Markup {
    let builds = &project.builds;
    let usual = Usual::by_builds(builds);
    html! {
        article.card #(format!("project-{}", project.name)) {
            h2 { a href=(paths::project(&project.name)) { (project.name) } }
            @if !project.settings.description.is_empty() { p.quiet { (project.settings.description) } }
            @if !project.settings.tags.is_empty() { p.tags { @for tag in &project.settings.tags { a.tag href=(format!("/?tag={}", paths::encoded(tag))) { (tag) } " " } } }
            @match &project.last {
                None => p.quiet { "No build yet." },
                Some(last) => {
                    @let standing = Standing::of_build(last.verdict, last.open_gates);
                    p.last {
                        (standing.mark()) " "
                        a href=(paths::build(last.id)) { (name(last)) } " " (words::first_line(&last.event.message))
                        (builds::why(last, standing))
                    }
                    p.quiet {
                        (words::happening(&last.event)) " · "
                        @if last.finished.is_some() && last.started.is_some() { (builds::took(last, Some(&usual), ask)) " · " }
                        (words::ago(last.created, ask.now))
                    }
                    (bars(builds, ask))
                    @if let Some(record) = record(builds, &usual) { p.quiet { (record) } }
                }
            }
        }
    }
}

/// A build by its number in its project, or on the server.
pub(crate) fn name(build: &Build) -> String {
    numbered(build.number, build.id)
}

/// The same of a build of which little is known.
pub(crate) fn numbered(number: Option<u64>, id: BuildId) -> String {
    number.map_or_else(|| format!("build {id}"), |number| format!("#{number}"))
}

/// How many of these builds passed, and how long such a one usually takes; `None` if none passed or failed, since what somebody ended says nothing
/// of either.
fn record(builds: &[BuildBrief], usual: &Usual) -> Option<String> {
    let count = |standing| builds.iter().filter(|build| Standing::of_build(build.verdict, 0) == standing).count();
    let (passed, failed) = (count(Standing::Passed), count(Standing::Failed));
    let usually = usual.of_all.map(|ms| format!(" · usually {}", words::duration(ms))).unwrap_or_default();
    (passed + failed > 0).then(|| format!("{passed} of the last {} passed{usually}", passed + failed))
}

/// The last builds, the oldest at the left: colour is the verdict, height the duration.
pub(crate) fn bars(builds: &[BuildBrief], ask: &Ask) -> Markup {
    let span = |build: &BuildBrief| words::took(build.started, build.finished, ask.now).unwrap_or(0);
    let most = builds.iter().map(span).max().unwrap_or(0).max(1);
    let width = u64::from(BARS) * BAR_WIDTH;
    html! {
        svg.bars viewBox=(format!("0 0 {width} {BAR_HEIGHT}")) preserveAspectRatio="xMinYMax" role="group" aria-label="The last builds" {
            @for (index, build) in builds.iter().rev().enumerate() {
                @let height = (span(build) * BAR_HEIGHT / most).clamp(4, BAR_HEIGHT);
                @let standing = Standing::of_build(build.verdict, build.open_gates);
                a href=(paths::build(build.id)) aria-label=(format!("{} {}", numbered(build.number, build.id), standing.word())) {
                    title { (numbered(build.number, build.id)) ": " (build.text) ", " (words::duration(span(build))) }
                    rect class=(standing.word()) x=(index as u64 * BAR_WIDTH) y=(BAR_HEIGHT - height) width=(BAR_WIDTH - 2) height=(height) rx="1" {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_somebody_ended_counts_for_nothing_and_only_what_passed_says_what_is_usual() {
        let said = |builds: &[(&str, u64)]| {
            let brief = |(verdict, seconds): &(&str, u64)| {
                let mut brief = json!({ "id": 1, "created": "1970-01-01T00:00:00Z", "verdict": verdict, "text": "", "open_gates": 0 });
                brief["started"] = json!("1970-01-01T00:00:00Z");
                if *verdict != "running" {
                    brief["finished"] = json!(format!("1970-01-01T00:00:{seconds:02}Z"));
                }
                serde_json::from_value::<BuildBrief>(brief).expect("a build")
            };
            let builds: Vec<BuildBrief> = builds.iter().map(brief).collect();
            record(&builds, &Usual::by_builds(&builds))
        };
        assert_eq!(said(&[("canceled", 1), ("running", 0)]), None);
        assert_eq!(said(&[("failed", 1), ("canceled", 2)]).as_deref(), Some("0 of the last 1 passed"));
        assert_eq!(
            said(&[("canceled", 1), ("passed", 9), ("failed", 2), ("diverged", 3)]).as_deref(),
            Some("1 of the last 3 passed · usually 9.0 s")
        );
    }

    #[test]
    fn a_build_that_took_no_time_has_no_dot_for_it() {
        let card_of = |started: &[&str]| {
            let event = graph::Event { branch: Some("main".to_owned()), ..graph::Event::new(graph::EventKind::Push) };
            let none = json!({ "passed": 0, "failed": 0, "canceled": 0, "skipped": 0, "reused": 0 });
            let mut last = json!({
                "id": 1, "project": "p", "pipeline": "", "name": "", "event": api::event::Event::from(&event), "client": "",
                "created": "1970-01-01T00:00:00Z", "finished": "1970-01-01T00:00:02Z", "verdict": "canceled",
                "text": "superseded", "jobs": 0, "counts": none, "errors": 0, "warnings": 0, "open_gates": 0,
            });
            if let Some(started) = started.first() {
                last["started"] = json!(started);
            }
            let project = json!({ "name": "p", "created": "1970-01-01T00:00:00Z", "settings": {}, "last": last });
            card(&serde_json::from_value(project).expect("a project"), &Ask::default()).into_string()
        };
        assert!(card_of(&[]).contains("push to main · <time"), "{}", card_of(&[]));
        let took = card_of(&["1970-01-01T00:00:00Z"]);
        assert!(took.contains("push to main · 2.0 s · <time"), "{took}");
    }
}
