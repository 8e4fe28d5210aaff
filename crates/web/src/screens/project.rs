//! One project: how its branches, pull requests and tags stand, its figures, and its builds with filter and search.

use std::collections::HashMap;

use api::build::{Build, BuildBrief};
use api::overview::{Figures, Overview, RefKind, RefState};
use api::page::Page;
use api::problem::Problem;
use maud::{Markup, html};

use super::builds::{self, Usual};
use super::projects::{bars, name};
use crate::page::{Crumb, Document, Head, document};
use crate::words::{self, Standing};
use crate::{Ask, Source, paths, read};

/// How many builds a page has.
const BUILDS: u32 = 50;
/// Of how many builds there are bars.
const BARS: u32 = 30;
/// How many branches and pull requests stand above the builds; the others have a page of their own.
const REFS: usize = 8;
/// The fewest builds of a branch whose own times are what is usual for it.
const OWN_USUAL: u64 = 3;
/// The groups, each with its heading.
const GROUPS: [(RefKind, &str); 4] = [
    (RefKind::PullRequest, "Pull requests"),
    (RefKind::Branch, "Branches"),
    (RefKind::Tag, "Tags"),
    (RefKind::Other, "Other"),
];

/// Writes the page. `?group=` shows what is built of one kind instead of builds.
pub(crate) async fn show(source: &impl Source, ask: &Ask, project: &str) -> Result<Document, Problem> {
    let own = paths::project(project);
    let api = format!("/api/v1/projects/{}", paths::encoded(project));
    let overview: Overview = read(source, &format!("{api}/overview")).await?;
    let group = GROUPS.iter().find(|(kind, _)| kind.word() == ask.text("group"));
    let body = match group {
        Some((kind, title)) => of_group(&overview, *kind, title, ask, &own),
        None => history(source, &overview, ask, &own).await?,
    };
    let main = html! {
        header.build #project-header data-live { (header(&overview, ask, &own)) }
        (tabs(&overview, group.map(|(kind, _)| *kind), &own))
        (body)
    };
    let is_first = ask.text("cursor").is_empty();
    let stream = is_first.then(|| format!("/api/v1/events?project={}", paths::encoded(project)));
    Ok(document(&Head { title: project, crumbs: vec![Crumb::new(project, own)], stream }, &main))
}

fn header(overview: &Overview, ask: &Ask, own: &str) -> Markup {
    let project = &overview.project;
    let default = overview.refs.iter().find(|state| is_default(overview, state));
    html! {
        h1 { (project.name) }
        @if !project.settings.description.is_empty() { p { (project.settings.description) } }
        @if let Some(state) = default {
            p.last {
                (Standing::of_build(state.last.verdict, state.last.open_gates).mark()) " "
                strong { (state.name) } " " (words::verdict_short(&state.last)) " · "
                a href=(paths::build(state.last.id)) { (name(&state.last)) } " "
                span.quiet { (words::first_line(&state.last.event.message)) " · " (words::ago(state.last.created, ask.now)) }
            }
        }
        (figures(overview))
        p.quiet { a href=(format!("{own}/settings")) { "Settings" } " · " a href=(format!("{own}/quarantine")) { "Quarantine" } " · " a href=(format!("{own}/badge.svg")) { "Badge" } }
    }
}

/// The figures of the builds looked at, in words.
fn figures(overview: &Overview) -> Markup {
    let Figures { passed, failed, p50_ms, p95_ms, .. } = overview.figures;
    // What somebody ended says nothing of how well builds do.
    let judged = passed + failed;
    html! {
        @if judged > 0 {
            dl.facts {
                div { dt { "Passed" } dd { strong { (passed * 100 / judged) " %" } span.quiet { " of the last " (judged) } } }
                @if let Some(ms) = p50_ms { div { dt { "Usually takes" } dd { strong { (words::duration(ms)) } } } }
                @if let Some(ms) = p95_ms { div { dt { "95 of 100 within" } dd { (words::duration(ms)) } } }
                div { dt { "In seven days" } dd { (words::count(overview.last_week, "build", "builds")) @if overview.last_week == overview.builds && overview.has_older { " or more" } } }
            }
        }
    }
}

fn is_default(overview: &Overview, state: &RefState) -> bool {
    state.kind == RefKind::Branch && Some(&state.name) == overview.default_branch.as_ref()
}

fn tabs(overview: &Overview, shown: Option<RefKind>, own: &str) -> Markup {
    let current = |is_it: bool| is_it.then_some("page");
    html! {
        nav.tabs aria-label="Groups" {
            a href=(own) aria-current=[current(shown.is_none())] { "All builds" }
            @for (kind, title) in GROUPS {
                @let n = overview.refs.iter().filter(|state| state.kind == kind).count();
                @if n > 0 { a href=(format!("{own}?group={}", kind.word())) aria-current=[current(shown == Some(kind))] { (title) " " span.quiet { (n) } } }
            }
        }
    }
}

/// Where the builds of a branch, pull request or tag are listed.
fn builds_of(state: &RefState, own: &str) -> String {
    let branch = state.last.event.branch.as_deref().unwrap_or_default();
    match state.kind {
        RefKind::PullRequest => format!("{own}?event=pull_request&branch={}", paths::encoded(branch)),
        RefKind::Branch => format!("{own}?branch={}", paths::encoded(&state.name)),
        RefKind::Tag => format!("{own}?event=tag&search={}", paths::encoded(&state.name)),
        RefKind::Other => own.to_owned(),
    }
}

fn title(state: &RefState) -> String {
    match state.kind {
        RefKind::PullRequest if state.name.parse::<u64>().is_ok() => format!("Pull request {}", state.name),
        RefKind::PullRequest => format!("Pull request of {}", state.name),
        RefKind::Tag => format!("Tag {}", state.name),
        RefKind::Branch => state.name.clone(),
        RefKind::Other => "Without a branch".to_owned(),
    }
}

/// What is built of one kind, each with its last build.
fn of_group(overview: &Overview, kind: RefKind, title: &str, ask: &Ask, own: &str) -> Markup {
    let states: Vec<&RefState> = overview.refs.iter().filter(|state| state.kind == kind).collect();
    html! {
        section aria-labelledby="group-title" {
            h2 #group-title { (title) }
            div #group data-live {
                @if states.is_empty() { p.empty { "None of the newest " (overview.builds) " builds is of these." } }
                @else { (refs(overview, &states, ask, own)) }
            }
            @if overview.has_older { p.quiet { "Of the newest " (overview.builds) " builds. Older ones are found by branch among " a href=(own) { "all builds" } "." } }
        }
    }
}

fn refs(overview: &Overview, states: &[&RefState], ask: &Ask, own: &str) -> Markup {
    let usual = usual_of(overview);
    html! {
        table.list.refs {
            thead { tr { th { span.unseen { "State" } } th { "Branch" } th { "Last build" } th.number { "Took" } th.number.wide { "Passed" } th.wide { "When" } } }
            tbody { @for state in states {
                @let last = &state.last;
                @let standing = Standing::of_build(last.verdict, last.open_gates);
                tr class=(standing.word()) {
                    td { (standing.mark()) }
                    td { a.name href=(builds_of(state, own)) { (title(state)) } @if is_default(overview, state) { " " span.tag { "default" } } }
                    td {
                        a href=(paths::build(last.id)) { (name(last)) } " " (words::first_line(&last.event.message))
                        (builds::why(last, standing))
                    }
                    td.number { (builds::took(last, Some(&usual), ask)) }
                    td.number.wide { @let judged = state.figures.passed + state.figures.failed; @if judged > 0 { (state.figures.passed) " of " (judged) } }
                    td.wide { (words::ago(last.created, ask.now)) }
                }
            } }
        }
    }
}

/// How long builds usually take: those of a branch by its own, if there are enough, else by all.
fn usual_of(overview: &Overview) -> Usual {
    let own = |state: &RefState| {
        let ms = state.figures.p50_ms.filter(|_| state.figures.passed >= OWN_USUAL)?;
        Some(((state.kind, state.name.clone()), ms))
    };
    Usual { of_ref: overview.refs.iter().filter_map(own).collect::<HashMap<_, _>>(), of_all: overview.figures.p50_ms }
}

/// The builds, with what stands above them on the first page.
async fn history(source: &impl Source, overview: &Overview, ask: &Ask, own: &str) -> Result<Markup, Problem> {
    let project = &overview.project.name;
    let (filter, cursor) = (builds::filter_of(ask), builds::cursor_of(ask));
    let of_project = format!("/api/v1/builds?project={}", paths::encoded(project));
    let page: Page<Build> = read(source, &format!("{of_project}&limit={BUILDS}{filter}{cursor}")).await?;
    let is_first = cursor.is_empty();
    let is_whole = is_first && filter.is_empty();
    let mut leading: Vec<&RefState> = overview.refs.iter().filter(|state| state.kind != RefKind::Other).collect();
    leading.sort_by_key(|state| !is_default(overview, state));
    let n_more = leading.len().saturating_sub(REFS);
    leading.truncate(REFS);
    let usual = usual_of(overview);
    Ok(html! {
        @if is_whole && leading.len() > 1 {
            section aria-labelledby="refs-title" {
                h2 #refs-title { "Branches and pull requests" }
                div #refs data-live { (refs(overview, &leading, ask, own)) }
                @if n_more > 0 { p.quiet { (n_more) " more stand under the headings above." } }
            }
        }
        section aria-labelledby="builds-title" {
            h2 #builds-title { "Builds" }
            (builds::filters(own, ask))
            div #builds data-live[is_first] {
                @if is_first && !page.items.is_empty() { (bars(&page.items.iter().take(BARS as usize).map(BuildBrief::from).collect::<Vec<_>>(), ask)) }
                @if page.items.is_empty() && is_whole { (first_build(ask)) }
                @else { (builds::table(&page.items, Some(project), &|_| Some(&usual), ask)) }
            }
            (builds::pager(own, &filter, page.next.as_deref(), page.items.is_empty()))
        }
    })
}

fn first_build(ask: &Ask) -> Markup {
    html! {
        div.empty {
            p { "Nothing was built here yet. From a directory with a pipeline:" }
            pre { code { "ropewalk submit --server " (words::quoted(&ask.address)) " --token submit.token" } }
        }
    }
}
