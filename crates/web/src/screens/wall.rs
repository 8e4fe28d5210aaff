//! How projects stand, to be seen from across a room: a tile for each, what failed first. It needs nobody at a keyboard.
//!
//! A tile tells of the branch that matters most. A wall that hears nothing from its server any more says so (`assets/live.js`): old
//! news must not look like good news.

use api::build::BuildBrief;
use api::page::Page;
use api::problem::Problem;
use api::project::Project;
use maud::{Markup, html};

use super::projects::{bars, numbered, tag_of};
use crate::page::{Document, Head, wall};
use crate::words::{self, Standing};
use crate::{Ask, Source, paths, read};

/// How many projects a wall has, and of how many builds of each there are bars.
const PROJECTS: u32 = 24;
const BUILDS: u32 = 30;
/// The branches that matter most where nobody says otherwise.
const USUAL_BRANCHES: [&str; 2] = ["main", "master"];

/// What a wall tells of a project.
struct Told<'p> {
    project: &'p Project,
    /// The branch that is told of; `None` if builds of all are.
    branch: Option<&'p str>,
    /// Its newest build that passed, failed or asks for a person, else the newest.
    newest: Option<&'p BuildBrief>,
    /// The builds that failed in a row up to that one, the newest first.
    failing: Vec<&'p BuildBrief>,
    /// How many other builds of the project go on.
    running: usize,
}

fn standing_of(build: &BuildBrief) -> Standing {
    Standing::of_build(build.verdict, build.open_gates)
}

impl<'p> Told<'p> {
    fn of(project: &'p Project) -> Self {
        let is_built = |branch: &str| project.builds.iter().any(|build| build.branch.as_deref() == Some(branch));
        let set = project.settings.default_branch.as_deref();
        let branch = set.or_else(|| USUAL_BRANCHES.into_iter().find(|branch| is_built(branch)));
        let branch = branch.filter(|branch| is_built(branch));
        let of_branch = |build: &&BuildBrief| branch.is_none() || build.branch.as_deref() == branch;
        let own: Vec<&BuildBrief> = project.builds.iter().filter(of_branch).collect();
        // What goes on or was canceled says nothing of the branch.
        let says = |build: &&BuildBrief| !matches!(standing_of(build), Standing::Running | Standing::Canceled);
        let settled: Vec<&BuildBrief> = own.iter().copied().filter(says).collect();
        let failing = settled.iter().copied().take_while(|build| standing_of(build) == Standing::Failed).collect();
        let newest = settled.first().or(own.first()).copied();
        let others = project.builds.iter().filter(|build| newest.is_none_or(|newest| newest.id != build.id));
        let running = others.filter(|build| build.finished.is_none()).count();
        Self { project, branch, newest, failing, running }
    }

    fn standing(&self) -> Standing {
        self.newest.map_or(Standing::Waiting, standing_of)
    }
}

/// Writes the page.
pub(crate) async fn show(source: &impl Source, ask: &Ask) -> Result<Document, Problem> {
    let tag = tag_of(ask);
    let page: Page<Project> = read(source, &format!("/api/v1/projects?limit={PROJECTS}&builds={BUILDS}{tag}")).await?;
    let mut told: Vec<Told> = page.items.iter().map(Told::of).collect();
    told.sort_by_key(Told::standing);
    let main = html! {
        header.wall-header {
            h1 { @if tag.is_empty() { "All projects" } @else { (ask.text("tag")) } }
            p #tally data-live { (tally(&told)) }
            p { a.quiet href=(format!("/?{}", tag.trim_start_matches('&'))) { "Back to the pages" } }
        }
        div.tiles #tiles data-live {
            @if told.is_empty() { p.empty { @if tag.is_empty() { "There is no project yet." } @else { "No project that you may see has this tag." } } }
            @for each in &told { (tile(each, ask)) }
        }
        @if page.next.is_some() { p.quiet { "Only the first " (PROJECTS) " projects are here. " code { "/wall?tag=TAG" } " has those with a tag." } }
    };
    Ok(wall(&Head { title: "Wall", crumbs: Vec::new(), stream: Some("/api/v1/events".to_owned()) }, &main))
}

/// How many stand how.
fn tally(told: &[Told]) -> Markup {
    let count = |standing| told.iter().filter(|each| each.standing() == standing).count();
    let counts = Standing::ALL.map(|standing| (standing, count(standing)));
    html! { @for (standing, n) in counts.iter().filter(|(_, n)| *n > 0) { span { (standing.mark()) " " (n) " " (standing.word()) } " " } }
}

fn tile(told: &Told, ask: &Ask) -> Markup {
    let standing = told.standing();
    html! {
        article class=(format!("tile {}", standing.word())) #(format!("tile-{}", told.project.name)) {
            h2 { (standing.mark()) " " a href=(paths::project(&told.project.name)) { (told.project.name) } }
            @match told.newest {
                None => p { "No build yet." },
                Some(build) => {
                    p.said { a href=(paths::build(build.id)) { (numbered(build.number, build.id)) } " " @if build.open_gates > 0 { "waits for an answer" } @else { (words::marked(&build.text)) } }
                    p.quiet {
                        @if let Some(branch) = told.branch { (branch) " · " }
                        (words::ago(build.finished.unwrap_or(build.created), ask.now))
                        @if told.running > 0 { " · " (told.running) " running" }
                        @if let Some(first) = told.failing.last().filter(|_| told.failing.len() > 1) { " · fails since " (numbered(first.number, first.id)) }
                    }
                    (bars(&told.project.builds, ask))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A project with these builds, the newest first: branch and verdict.
    fn project(default_branch: Option<&str>, builds: &[(&str, &str)]) -> Project {
        let brief = |(index, (branch, verdict)): (usize, &(&str, &str))| {
            let mut brief = json!({
                "id": 100 - index, "number": 100 - index, "created": "2026-01-01T00:00:00Z", "verdict": verdict, "text": verdict, "open_gates": 0,
            });
            if !branch.is_empty() {
                brief["branch"] = json!(branch);
            }
            if *verdict != "running" {
                brief["finished"] = json!("2026-01-01T00:01:00Z");
            }
            brief
        };
        let builds: Vec<_> = builds.iter().enumerate().map(brief).collect();
        let settings = default_branch.map_or(json!({}), |branch| json!({ "default_branch": branch }));
        let project =
            json!({ "name": "sails", "created": "2026-01-01T00:00:00Z", "settings": settings, "builds": builds });
        serde_json::from_value(project).expect("a project")
    }

    #[track_caller]
    fn check(project: &Project, expected: (Standing, Option<u64>, usize, usize)) {
        let told = Told::of(project);
        let newest = told.newest.and_then(|build| build.number);
        assert_eq!((told.standing(), newest, told.failing.len(), told.running), expected);
    }

    #[test]
    fn a_tile_tells_of_the_branch_that_matters_most() {
        let builds = [("side", "passed"), ("", "failed"), ("main", "running"), ("main", "failed"), ("main", "failed")];
        // What goes on hides no failure, and what was canceled neither.
        check(&project(None, &builds), (Standing::Failed, Some(97), 2, 1));
        check(&project(None, &[("main", "canceled"), ("main", "failed")]), (Standing::Failed, Some(99), 1, 0));
        check(&project(Some("side"), &builds), (Standing::Passed, Some(100), 0, 1));
        // A branch of which no build is among the newest tells nothing: then all do.
        check(&project(Some("gone"), &builds), (Standing::Passed, Some(100), 0, 1));
        check(&project(None, &[("main", "running"), ("x", "running")]), (Standing::Running, Some(100), 0, 1));
        check(&project(None, &[]), (Standing::Waiting, None, 0, 0));
    }
}
