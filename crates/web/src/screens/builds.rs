//! Builds of a project, or of all, the newest first, with filters.

use api::build::Build;
use api::page::Page;
use api::problem::Problem;
use maud::{Markup, html};

use super::projects::{bars, name};
use crate::page::{Crumb, Document, Head, document};
use crate::words::{self, Standing};
use crate::{Ask, Source, paths, read};

/// How many builds a page has.
const BUILDS: u32 = 50;
/// What a list can be narrowed to; the names are those of the API.
const FILTERS: [&str; 5] = ["branch", "verdict", "event", "commit", "pipeline"];
/// The words of `verdict`, and of `event`.
const VERDICTS: [&str; 5] = ["running", "passed", "failed", "canceled", "diverged"];
const EVENTS: [&str; 8] = ["push", "pull_request", "tag", "schedule", "manual", "api", "build", "command"];

/// Writes the page.
pub(crate) async fn show(source: &impl Source, ask: &Ask, project: Option<&str>) -> Result<Document, Problem> {
    let own = match project {
        Some(project) => paths::project(project),
        None => "/builds".to_owned(),
    };
    let filter: String = FILTERS
        .iter()
        .filter(|name| !ask.text(name).is_empty())
        .map(|name| format!("&{name}={}", paths::encoded(ask.text(name))))
        .collect();
    let cursor = match ask.text("cursor") {
        "" => String::new(),
        cursor => format!("&cursor={}", paths::encoded(cursor)),
    };
    let of_project = project.map(|project| format!("&project={}", paths::encoded(project))).unwrap_or_default();
    let path = format!("/api/v1/builds?limit={BUILDS}{of_project}{filter}{cursor}");
    let page: Page<Build> = read(source, &path).await?;
    let is_first = cursor.is_empty();
    let main = html! {
        h1 { (project.unwrap_or("Builds")) }
        (filters(&own, ask))
        div #builds data-live[is_first] {
            @if is_first && filter.is_empty() && project.is_some() { (bars(&page.items[..page.items.len().min(30)], ask)) }
            (table(&page.items, project, ask))
        }
        @if let Some(next) = &page.next {
            p.pager { a rel="next" href=(format!("{own}?{}cursor={}", filter.trim_start_matches('&').to_owned() + if filter.is_empty() { "" } else { "&" }, paths::encoded(next))) { "Older builds" } }
        }
    };
    let crumbs = vec![match project {
        Some(project) => Crumb::new(project, own.clone()),
        None => Crumb::new("Builds", own.clone()),
    }];
    let stream = project.map(|project| format!("/api/v1/events?project={}", paths::encoded(project)));
    let stream = Some(stream.unwrap_or_else(|| "/api/v1/events".to_owned())).filter(|_| is_first);
    Ok(document(&Head { title: project.unwrap_or("Builds"), crumbs, stream }, &main))
}

fn filters(own: &str, ask: &Ask) -> Markup {
    let choice = |name: &str, label: &str, words: &[&str]| {
        html! {
            label { (label) " "
                select name=(name) {
                    option value="" { "any" }
                    @for word in words { option value=(word) selected[ask.text(name) == *word] { (word.replace('_', " ")) } }
                }
            }
        }
    };
    html! {
        form.filters method="get" action=(own) role="search" {
            label { "Branch " input #search type="search" name="branch" value=(ask.text("branch")) placeholder="any"; }
            (choice("verdict", "State", &VERDICTS))
            (choice("event", "By", &EVENTS))
            button { "Show" }
            @if FILTERS.iter().any(|name| !ask.text(name).is_empty()) { a href=(own) { "Show all" } }
        }
    }
}

fn table(builds: &[Build], project: Option<&str>, ask: &Ask) -> Markup {
    html! {
        @if builds.is_empty() {
            p.empty { "No build is like that." }
        } @else {
            table.list {
                thead { tr { th { span.unseen { "State" } } th { "Build" } th { "What happened" } th.number { "Took" } th { "When" } } }
                tbody { @for build in builds { (row(build, project, ask)) } }
            }
        }
    }
}

fn row(build: &Build, project: Option<&str>, ask: &Ask) -> Markup {
    let standing = Standing::of_build(build.verdict, build.open_gates);
    html! {
        tr class=(standing.word()) {
            td { (standing.mark()) }
            td {
                @if project.is_none() && !build.project.is_empty() { a.quiet href=(paths::project(&build.project)) { (build.project) } " " }
                a.name href=(paths::build(build.id)) { (name(build)) }
            }
            td {
                span.message { (words::first_line(&build.event.message)) }
                span.quiet { (words::happening(&build.event)) @if !build.event.actor.is_empty() { " by " (build.event.actor) } }
                @if matches!(standing, Standing::Failed | Standing::Canceled | Standing::Asking) {
                    span.why { @if standing == Standing::Asking { "waits for an answer" } @else { (build.text) } }
                }
            }
            td.number { @if let Some(ms) = words::took(build.started, build.finished, ask.now) { (words::span(ms)) } }
            td { (words::ago(build.created, ask.now)) }
        }
    }
}
