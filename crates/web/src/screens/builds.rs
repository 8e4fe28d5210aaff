//! Builds of all projects, the newest first, with filters and search; and the parts of such lists.

use std::collections::HashMap;

use api::build::Build;
use api::overview::RefKind;
use api::page::Page;
use api::problem::Problem;
use maud::{Markup, html};

use super::projects::name;
use crate::page::{Crumb, Document, Head, document};
use crate::words::{self, Standing};
use crate::{Ask, Source, paths, read};

/// How many builds a page has.
const BUILDS: u32 = 50;
/// What a list can be narrowed to; the names are those of the API.
const FILTERS: [&str; 6] = ["search", "branch", "verdict", "event", "commit", "pipeline"];
/// The words of `verdict`, and of `event`.
const VERDICTS: [&str; 5] = ["running", "passed", "failed", "canceled", "diverged"];
const EVENTS: [&str; 8] = ["push", "pull_request", "tag", "schedule", "manual", "api", "build", "command"];

/// How long builds usually take, in milliseconds.
#[derive(Default)]
pub(crate) struct Usual {
    /// Those of one branch, pull request or tag.
    pub of_ref: HashMap<(RefKind, String), u64>,
    /// All others.
    pub of_all: Option<u64>,
}

impl Usual {
    fn of(&self, build: &Build) -> Option<u64> {
        let event = &build.event;
        let of = RefKind::of(event.kind, event.pull_request, event.tag.as_deref(), event.branch.as_deref());
        self.of_ref.get(&of).copied().or(self.of_all)
    }
}

/// Writes the page.
pub(crate) async fn show(source: &impl Source, ask: &Ask) -> Result<Document, Problem> {
    let own = "/builds";
    let (filter, cursor) = (filter_of(ask), cursor_of(ask));
    let page: Page<Build> = read(source, &format!("/api/v1/builds?limit={BUILDS}{filter}{cursor}")).await?;
    let is_first = cursor.is_empty();
    let main = html! {
        h1 { "Builds" }
        (filters(own, ask))
        div #builds data-live[is_first] { (table(&page.items, None, &Usual::default(), ask)) }
        (pager(own, &filter, page.next.as_deref(), page.items.is_empty()))
    };
    let stream = Some("/api/v1/events".to_owned()).filter(|_| is_first);
    Ok(document(&Head { title: "Builds", crumbs: vec![Crumb::new("Builds", own)], stream }, &main))
}

/// What the reader narrows the list to, as a query of the API.
pub(crate) fn filter_of(ask: &Ask) -> String {
    let wanted = FILTERS.iter().filter(|name| !ask.text(name).is_empty());
    wanted.map(|name| format!("&{name}={}", paths::encoded(ask.text(name)))).collect()
}

/// Where the page begins, as a query of the API; empty for the first.
pub(crate) fn cursor_of(ask: &Ask) -> String {
    match ask.text("cursor") {
        "" => String::new(),
        cursor => format!("&cursor={}", paths::encoded(cursor)),
    }
}

/// The way to older builds. A search that has found nothing yet says how far it has looked.
pub(crate) fn pager(own: &str, filter: &str, next: Option<&str>, is_empty: bool) -> Markup {
    html! {
        @if let Some(next) = next {
            @if is_empty { p.quiet { "Nothing among the builds that were gone through so far." } }
            p.pager { a rel="next" href=(format!("{own}?cursor={}{filter}", paths::encoded(next))) { @if is_empty { "Look further" } @else { "Older builds" } } }
        }
    }
}

/// The form that narrows a list.
pub(crate) fn filters(own: &str, ask: &Ask) -> Markup {
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
            label { "Find " input #search type="search" name="search" value=(ask.text("search")) placeholder="message, author, commit, #"; }
            label { "Branch " input type="search" name="branch" value=(ask.text("branch")) placeholder="any"; }
            (choice("verdict", "State", &VERDICTS))
            (choice("event", "By", &EVENTS))
            button { "Show" }
            @if FILTERS.iter().any(|name| !ask.text(name).is_empty()) { a href=(own) { "Show all" } }
        }
    }
}

/// Builds as rows.
pub(crate) fn table(builds: &[Build], project: Option<&str>, usual: &Usual, ask: &Ask) -> Markup {
    html! {
        @if builds.is_empty() {
            p.empty { "No build is like that." }
        } @else {
            table.list.builds {
                thead { tr { th { span.unseen { "State" } } th { "Build" } th { "What happened" } th.number { "Took" } th.wide { "When" } th.wide { span.unseen { "Compare" } } } }
                tbody { @for build in builds { (row(build, project, usual, ask)) } }
            }
        }
    }
}

fn row(build: &Build, project: Option<&str>, usual: &Usual, ask: &Ask) -> Markup {
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
                (why(build, standing))
            }
            td.number { (took(build, usual, ask)) }
            td.wide { (words::ago(build.created, ask.now)) }
            td.wide { a.quiet href=(format!("{}/compare", paths::build(build.id))) aria-label=(format!("Compare {} with another build", name(build))) { "compare" } }
        }
    }
}

/// How long a build took, beside what is usual once it has ended.
pub(crate) fn took(build: &Build, usual: &Usual, ask: &Ask) -> Markup {
    let usual = usual.of(build).filter(|_| build.finished.is_some());
    html! { @if let Some(ms) = words::took(build.started, build.finished, ask.now) { (words::against_usual(ms, usual)) } }
}

/// What failed, or what a build waits for, in a few words.
pub(crate) fn why(build: &Build, standing: Standing) -> Markup {
    let others = build.counts.failed.saturating_sub(1);
    html! {
        @match (standing, &build.because) {
            (Standing::Failed, Some(because)) => span.why {
                a href=(paths::job(build.id, because)) { (because) } @if others > 0 { " and " (words::count(others, "other", "others")) } " failed"
            },
            (Standing::Failed, None) if build.errors > 0 => span.why { "the pipeline has " (words::count(build.errors, "error", "errors")) },
            (Standing::Failed | Standing::Canceled, _) => span.why { (build.text) },
            (Standing::Asking, _) => span.why { "waits for an answer" },
            (Standing::Running, _) if build.counts.failed > 0 => span.why { (words::count(build.counts.failed, "job", "jobs")) " failed so far" },
            _ => {},
        }
    }
}
