//! The settings of one project: what it is, when it builds, how long it is kept, its secrets, its badge.

use api::build::Build;
use api::member::Member;
use api::page::Page;
use api::problem::{Problem, ProblemKind};
use api::project::{Project, ProjectSettings, Secret};
use maud::{Markup, html};

use crate::page::{Crumb, Document, Head, document};
use crate::words;
use crate::{Ask, Source, paths, read};

/// Of how many builds it is told what caused them.
const BUILDS: u32 = 100;
/// How many members are listed; all of them stand in the server's settings.
const MEMBERS: u32 = 200;

/// Writes the page.
pub(crate) async fn show(source: &impl Source, ask: &Ask, project: &str) -> Result<Document, Problem> {
    let api = format!("/api/v1/projects/{}", paths::encoded(project));
    let own = paths::project(project);
    let found: Project = read(source, &api).await?;
    let builds: Page<Build> =
        read(source, &format!("/api/v1/builds?project={}&limit={BUILDS}", paths::encoded(project))).await?;
    // Who may list secrets may change everything here.
    let secrets = match read::<Page<Secret>>(source, &format!("{api}/secrets")).await {
        Ok(page) => Some(page.items),
        Err(problem) if problem.status == ProblemKind::Forbidden.status() => None,
        Err(problem) => return Err(problem),
    };
    let members = match secrets {
        None => Vec::new(),
        Some(_) => {
            read::<Page<Member>>(
                source,
                &format!("/api/v1/members?limit={MEMBERS}&project={}", paths::encoded(project)),
            )
            .await?
            .items
        }
    };
    let main = html! {
        h1 { "Settings of " (project) }
        div.settings {
            @if secrets.is_none() { p.empty { "You may look at these and not change them: that is for those whose token grants " code { "admin" } " on this project." } }
            section { h2 { "General" } (general(&found.settings, &own, secrets.is_some())) }
            section { h2 { "When it builds" } (triggers(&builds.items, ask)) }
            @if let Some(secrets) = &secrets { section { h2 { "Secrets" } (of_secrets(secrets, &own, ask)) } }
            @if secrets.is_some() { section { h2 { "Members" } (super::members::of_project(&members, project, &format!("{own}/members"), ask)) } }
            section { h2 { "Badge" } (badge(&found, ask)) }
            @if secrets.is_some() { section { h2 { "Forget the project" } (remove(project, &own)) } }
        }
    };
    let crumbs = vec![Crumb::new(project, own.clone()), Crumb::new("Settings", format!("{own}/settings"))];
    Ok(document(&Head { title: &format!("Settings of {project}"), crumbs, stream: None }, &main))
}

/// A choice between what the server does, yes and no.
fn choice(name: &str, value: Option<bool>, words: [&str; 3]) -> Markup {
    html! {
        select name=(name) {
            option value="" { (words[0]) }
            option value="true" selected[value == Some(true)] { (words[1]) }
            option value="false" selected[value == Some(false)] { (words[2]) }
        }
    }
}

fn general(settings: &ProjectSettings, own: &str, may_change: bool) -> Markup {
    let text = |name: &str, value: Option<&str>, placeholder: &str| html! { input name=(name) value=[value] placeholder=(placeholder); };
    let number = |name: &str, value: Option<u64>| html! { input name=(name) type="number" min="0" value=[value] placeholder="as the server does"; };
    html! {
        form method="post" action=(format!("{own}/settings")) {
            fieldset.tall disabled[!may_change] {
                legend { "What is left empty is as the server has it" }
                label { "Description " (text("description", Some(&settings.description), "what people see")) }
                label { "Tags " (text("tags", Some(settings.tags.join(" ")).filter(|tags| !tags.is_empty()).as_deref(), "words apart by blanks, as the team's name")) span.quiet { "by which projects are found together" } }
                label { "Default branch " (text("default_branch", settings.default_branch.as_deref(), "main, master, or the one built most")) }
                label { "Pool of jobs that name none " (text("pool", settings.pool.as_deref(), "default")) }
                label { "A later build of a branch or pull request " (choice("auto_cancel", settings.auto_cancel, ["does as the server says", "cancels earlier ones", "lets earlier ones go on"])) }
                label { "Badge " (choice("public_badge", settings.public_badge, ["as the server says: for readers of the project", "for anybody", "for readers of the project alone"])) }
                label { "Keep builds for so many days " (number("keep_days", settings.keep_days.map(u64::from))) span.quiet { "0 keeps them for ever" } }
                label { "Keep at least so many builds " (number("keep_builds", settings.keep_builds.map(u64::from))) }
                label { "Bytes of logs and artifacts, before the oldest builds go " (number("quota_bytes", settings.quota_bytes)) span.quiet { "0 is without bound" @if let Some(bytes) = settings.quota_bytes.filter(|bytes| *bytes > 0) { "; now " (words::size(bytes)) } } }
                p { button.main { "Save" } }
            }
        }
    }
}

/// What causes builds. Only the pipeline says what it answers to; what has happened is told from builds.
fn triggers(builds: &[Build], ask: &Ask) -> Markup {
    let mut seen: Vec<(String, usize, &Build)> = Vec::new();
    for build in builds {
        let word = serde_json::to_value(build.event.kind)
            .ok()
            .and_then(|word| word.as_str().map(str::to_owned))
            .unwrap_or_default();
        match seen.iter_mut().find(|(kind, ..)| *kind == word) {
            Some((_, n, _)) => *n += 1,
            None => seen.push((word, 1, build)),
        }
    }
    html! {
        p { "The pipeline itself says what it answers to, under " code { "on" } " in its file; what it does not name there builds nothing. Nothing is set here beside it." }
        @if !seen.is_empty() {
            table.list.entries {
                thead { tr { th { "Event" } th.number { "Builds" } th { "Last" } } }
                tbody { @for (kind, n, last) in &seen {
                    tr { td { (kind.replace('_', " ")) } td.number { (n) } td { a href=(paths::build(last.id)) { (super::projects::name(last)) } " " (words::ago(last.created, ask.now)) } }
                } }
            }
            p.quiet { "Of the last " (words::count(builds.len() as u64, "build", "builds")) "." }
        }
    }
}

fn of_secrets(secrets: &[Secret], own: &str, ask: &Ask) -> Markup {
    html! {
        p { "Values go in and never come out. A step takes one by naming it under " code { "secrets" } "; what it prints of it is masked, unless it has fewer than four bytes. Untrusted events, such as a fork's pull request, get none." }
        @if secrets.is_empty() { p.empty { "No secret is set." } }
        @else {
            table.list.entries {
                thead { tr { th { "Name" } th { "Set" } th { span.unseen { "Remove" } } } }
                tbody { @for secret in secrets {
                    tr {
                        td { code { (secret.name) } }
                        td { @if let Some(at) = secret.changed { (words::ago(at, ask.now)) } }
                        td { form method="post" action=(format!("{own}/secrets/{}/remove", paths::encoded(&secret.name))) { button.danger aria-label=(format!("Remove {}", secret.name)) { "Remove" } } }
                    }
                } }
            }
        }
        form.tall method="post" action=(format!("{own}/secrets")) {
            label { "Name " input name="secret" required pattern="[A-Za-z_][A-Za-z0-9_]{0,99}" placeholder="DEPLOY_TOKEN" autocomplete="off" spellcheck="false"; span.quiet { "one that is there takes the new value" } }
            label { "Value " textarea.secret name="value" rows="3" required autocomplete="off" spellcheck="false" {} span.quiet { "one line or several, such as a key; one last line end is left out" } }
            p { button.main { "Set" } }
        }
    }
}

fn badge(project: &Project, ask: &Ask) -> Markup {
    let own = paths::project(&project.name);
    let is_public = project.settings.public_badge == Some(true);
    html! {
        p { img src=(format!("{own}/badge.svg")) alt="The badge" height="20"; }
        p { @if is_public { "Anybody may see it." } @else { "Only readers of the project see it. For a page elsewhere, let anybody above." } " Another branch by " code { "?branch=" } "." }
        pre { code { "[![build](" (ask.address) (own) "/badge.svg)](" (ask.address) (own) ")" } }
    }
}

fn remove(project: &str, own: &str) -> Markup {
    html! {
        p { "The project and its secrets go at once; its builds stay until they are too old." }
        form.hold method="post" action=(format!("{own}/remove")) {
            input name="name" required autocomplete="off" placeholder=(format!("Type {project} to confirm")) aria-label="The project's name";
            button.danger { "Forget it" }
        }
    }
}
