//! Members: who they are, what they may do and where, and the link by which one signs in.

use api::member::{Invitation, Member, Role};
use api::page::Page;
use api::problem::Problem;
use maud::{Markup, html};

use super::settings::{only_for, written};
use crate::page::{Document, alone};
use crate::words;
use crate::{Ask, Source, paths, read};

/// What each role may do, as people read it.
fn meaning(role: Role) -> &'static str {
    match role {
        Role::Reader => "looks",
        Role::Developer => "also builds, cancels, retries, answers gates, opens shells",
        Role::Administrator => "does everything, members among it",
    }
}

/// Writes the page of all members that the reader administers.
pub(crate) async fn show(source: &impl Source, ask: &Ask) -> Result<Document, Problem> {
    let cursor = super::builds::cursor_of(ask);
    let path = "/settings/members";
    let body = match read::<Page<Member>>(source, &format!("/api/v1/members?limit=100{cursor}")).await {
        Err(problem) => only_for(problem, "Members")?,
        Ok(page) => html! {
            p.quiet { "Members are people: each signs in by a link that is good once, as often as you make one. Programs and workers hold " a href="/settings/tokens" { "tokens" } "." }
            (table(&page.items, path, None, ask))
            @if let Some(next) = &page.next { p.pager { a rel="next" href=(format!("{path}?cursor={}", paths::encoded(next))) { "More members" } } }
            section.settings { h2 { "A new member" } (form(path, None)) }
        },
    };
    Ok(written(path, "Members", &body))
}

/// The members of a project, and the form for one more. `base` is where the forms are sent.
pub(crate) fn of_project(members: &[Member], project: &str, base: &str, ask: &Ask) -> Markup {
    html! {
        p { "Who has a role on this project alone. Whoever has one on every project stands in " a href="/settings/members" { "the server's settings" } "." }
        (table(members, base, Some(project), ask))
        (form(base, Some(project)))
    }
}

/// `of` is the project whose members these are: there the row's own button takes the one role.
fn table(members: &[Member], base: &str, of: Option<&str>, ask: &Ask) -> Markup {
    html! {
        @if members.is_empty() { p.empty { "Nobody is a member yet." } }
        @else {
            table.list.entries.members {
                thead { tr { th { "Name" } th { "Role" } th.wide { "Signed in" } th.wide { "Added" } th { span.unseen { "What to do" } } } }
                tbody { @for member in members {
                    tr {
                        td { strong { (member.name) } }
                        td {
                            @if let Some(role) = member.role { (role_form(member, role, None, (base, of))) }
                            @for (project, role) in &member.projects { (role_form(member, *role, Some(project), (base, of))) }
                        }
                        td.wide { @if member.sessions > 0 { (words::count(member.sessions.into(), "time", "times")) } @else { "not yet" }
                            @if let Some(until) = member.link_until.filter(|until| until.0 > ask.now) { span.why { "a link is open and ends " time datetime=(until) title=(until) { (until) } } } }
                        td.wide { (words::ago(member.created, ask.now)) " by " (member.by) }
                        td {
                            form method="post" action=(format!("{base}/{}/link", paths::encoded(&member.name))) { button aria-label=(format!("New link for {}", member.name)) { "New link" } }
                            form method="post" action=(format!("{base}/{}/remove", paths::encoded(&member.name))) { button.danger aria-label=(format!("Remove {}", member.name)) { "Remove" } }
                        }
                    }
                } }
            }
        }
    }
}

/// A role, to be changed in place or taken alone.
fn role_form(member: &Member, role: Role, project: Option<&str>, (base, of): (&str, Option<&str>)) -> Markup {
    let on = project.unwrap_or("every project");
    let path = format!("{base}/{}", paths::encoded(&member.name));
    html! {
        form.hold method="post" action=(format!("{path}/role")) {
            @match project {
                Some(project) => { input type="hidden" name="project" value=(project); }
                None => { input type="hidden" name="everywhere" value="true"; }
            }
            select name="role" aria-label=(format!("Role of {} on {on}", member.name)) { @for known in Role::ALL { option value=(known.name()) selected[known == role] { (known.name()) } } }
            span.quiet { "on " (on) }
            button aria-label=(format!("Change the role of {} on {on}", member.name)) { "Change" }
            @if of.is_none() { button.quiet formaction=(format!("{path}/remove")) aria-label=(format!("Take away the role of {} on {on}", member.name)) { "Take away" } }
        }
    }
}

fn form(base: &str, project: Option<&str>) -> Markup {
    html! {
        form.tall method="post" action=(base) {
            label { "Name " input name="name" required maxlength="100" autocomplete="off" placeholder="who stands in the audit, at gates and with builds"; }
            label { "Role " select name="role" { @for role in Role::ALL { option value=(role.name()) selected[role == Role::Developer] { (role.name()) ": " (meaning(role)) } } } }
            @if project.is_none() { label { "Only on this project " input name="project" placeholder="every one" autocomplete="off" spellcheck="false"; } }
            p { button.main { "Add" } }
        }
    }
}

/// The link, shown once.
pub(crate) fn invited(answer: &[u8], back: &str, address: &str) -> Markup {
    let Ok(Invitation { member, link, expires }) = serde_json::from_slice(answer) else {
        return html! { p.problem { "The answer cannot be read." } };
    };
    html! {
        section.shown-once {
            h2 { "A link for " (member.name) }
            p { strong { "It is shown this once." } " Give it to " (member.name) ", to nobody else: whoever opens it first is signed in as them. It is good once, and ends " time datetime=(expires) title=(expires) { (expires.in_seconds()) } "." }
            pre { code { (address) (link) } }
            p { a href=(back) { "Done" } }
        }
    }
}

/// Writes the page that a link leads to. Looking at it changes nothing, so that a program that looks at links before people do takes nothing away.
pub(crate) fn join(ask: &Ask) -> Document {
    alone(
        "Sign in",
        &html! {
            p { "You were given a link to sign in here. It is good once, for the browser in which you go on." }
            form.tall method="post" action="/join" {
                input type="hidden" name="link" value=(ask.text("link"));
                button.main { "Sign in" }
            }
        },
    )
}
