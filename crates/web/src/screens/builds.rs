//! Builds of all projects, the newest first, with filters and search; and the parts of such lists.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;

use api::build::{Build, BuildBrief, VerdictWord};
use api::overview::RefKind;
use api::page::Page;
use api::problem::Problem;
use api::project::{LISTED_WITH_BUILDS_MAX, Project};
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

/// By how many of a project's newest builds it is told how long they usually take: fewer where there are many projects.
const COMPARED: RangeInclusive<usize> = 10..=30;
/// About how many builds of all projects together are compared.
const COMPARED_IN_ALL: usize = 500;
/// With so many builds of its own that passed, a branch is compared with itself.
const OWN_USUAL: usize = 3;

/// How long builds of a project usually take, in milliseconds.
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

    /// Of these builds that passed: the median of each branch that has enough, and of all.
    pub(crate) fn by_builds(builds: &[BuildBrief]) -> Self {
        let mut of_branch: HashMap<&str, Vec<u64>> = HashMap::new();
        let mut all = Vec::new();
        for build in builds.iter().filter(|build| build.verdict == VerdictWord::Passed) {
            let Some((started, finished)) = build.started.zip(build.finished) else { continue };
            let took = finished.0.ms_since(started.0);
            all.push(took);
            if let Some(branch) = &build.branch {
                of_branch.entry(branch).or_default().push(took);
            }
        }
        let enough = of_branch.into_iter().filter(|(_, spans)| spans.len() >= OWN_USUAL);
        let of_ref = enough.filter_map(|(name, spans)| Some(((RefKind::Branch, name.to_owned()), median(spans)?)));
        Self { of_ref: of_ref.collect(), of_all: median(all) }
    }
}

/// The one in the middle; of an even number the later of both.
fn median(mut spans: Vec<u64>) -> Option<u64> {
    spans.sort_unstable();
    spans.get(spans.len() / 2).copied()
}

/// How long builds of the projects of these usually take, by project.
async fn usual_of(source: &impl Source, builds: &[Build]) -> HashMap<String, Usual> {
    let projects: BTreeSet<&str> =
        builds.iter().map(|build| build.project.as_str()).filter(|project| !project.is_empty()).collect();
    if projects.is_empty() {
        return HashMap::new();
    }
    let names: Vec<&str> = projects.into_iter().take(LISTED_WITH_BUILDS_MAX as usize).collect();
    let compared = (COMPARED_IN_ALL / names.len()).clamp(*COMPARED.start(), *COMPARED.end());
    let path = format!(
        "/api/v1/projects?limit={LISTED_WITH_BUILDS_MAX}&builds={compared}&names={}",
        paths::encoded(&names.join(","))
    );
    // What a list says beside its rows is no reason to show none.
    let told = read::<Page<Project>>(source, &path).await.map(|page| page.items).unwrap_or_default();
    told.into_iter().map(|project| (project.name, Usual::by_builds(&project.builds))).collect()
}

/// Writes the page.
pub(crate) async fn show(source: &impl Source, ask: &Ask) -> Result<Document, Problem> {
    let own = "/builds";
    let (filter, cursor) = (filter_of(ask), cursor_of(ask));
    let page: Page<Build> = read(source, &format!("/api/v1/builds?limit={BUILDS}{filter}{cursor}")).await?;
    let is_first = cursor.is_empty();
    let usual = usual_of(source, &page.items).await;
    let main = html! {
        h1 { "Builds" }
        (filters(own, ask))
        div #builds data-live[is_first] { (table(&page.items, None, &|project| usual.get(project), ask)) }
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

/// Builds as rows. `usual` tells by project how long builds take.
pub(crate) fn table<'u>(
    builds: &[Build],
    project: Option<&str>,
    usual: &dyn Fn(&str) -> Option<&'u Usual>,
    ask: &Ask,
) -> Markup {
    html! {
        @if builds.is_empty() {
            p.empty { "No build is like that." }
        } @else {
            table.list.builds {
                thead { tr { th { span.unseen { "State" } } th { "Build" } th { "What happened" } th.number { "Took" } th.wide { "When" } th.wide { span.unseen { "Compare" } } } }
                tbody { @for build in builds { (row(build, project, usual(&build.project), ask)) } }
            }
        }
    }
}

fn row(build: &Build, project: Option<&str>, usual: Option<&Usual>, ask: &Ask) -> Markup {
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
pub(crate) fn took(build: &Build, usual: Option<&Usual>, ask: &Ask) -> Markup {
    let usual = usual.and_then(|usual| usual.of(build)).filter(|_| build.finished.is_some());
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
            (Standing::Failed | Standing::Canceled, _) => span.why { (words::marked(&build.text)) },
            (Standing::Asking, _) => span.why { "waits for an answer" @if build.counts.failed > 0 { ", " (failed_so_far(build)) } },
            (Standing::Running, _) if build.counts.failed > 0 => span.why { (failed_so_far(build)) },
            _ => {},
        }
    }
}

/// How many jobs of a build that has not ended have failed.
pub(crate) fn failed_so_far(build: &Build) -> String {
    format!("{} failed so far", words::count(build.counts.failed, "job", "jobs"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_usual_is_told_by_the_branch_if_it_has_passed_often_enough() {
        let brief = |branch: &str, verdict: &str, took: u64| {
            serde_json::from_value::<BuildBrief>(json!({
                "id": 1, "branch": branch, "created": "1970-01-01T00:00:00Z", "started": "1970-01-01T00:00:00Z",
                "finished": format!("1970-01-01T00:00:{took:02}Z"), "verdict": verdict, "text": "", "open_gates": 0,
            }))
            .expect("a build")
        };
        let of_main = [5, 7, 30].map(|took| brief("main", "passed", took));
        let others = [brief("main", "failed", 1), brief("fix", "passed", 40), brief("fix", "passed", 50)];
        let usual = Usual::by_builds(&[of_main.as_slice(), &others].concat());
        assert_eq!(usual.of_ref, HashMap::from([((RefKind::Branch, "main".to_owned()), 7_000)]));
        assert_eq!(usual.of_all, Some(30_000));
        assert_eq!(Usual::by_builds(&others[..1]).of_all, None);
    }
}
