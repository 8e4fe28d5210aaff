//! The settings of the server as its reader may see them: who one is, tokens, the audit, caches; and what a new token says.

use api::audit::AuditEntry;
use api::cache::{Evicted, Explained, KeyedCache, Operation};
use api::page::Page;
use api::problem::{Problem, ProblemKind};
use api::token::{Created, Grant, HolderKind, Inspected, Token, Version, Whoami};
use maud::{Markup, html};

use crate::actions::{Shown, VERBS};
use crate::page::{Crumb, Document, Head, document};
use crate::words::{self, Standing};
use crate::{Ask, Source, paths, read};

/// How many actions, results and directories a page has.
const ENTRIES: u32 = 100;
/// The pages: path, what it is called.
const TABS: [(&str, &str); 5] = [
    ("/settings", "You"),
    ("/settings/members", "Members"),
    ("/settings/tokens", "Tokens"),
    ("/settings/audit", "Audit"),
    ("/settings/caches", "Caches"),
];

/// A page of the settings around what it holds.
pub(crate) fn written(path: &str, title: &str, body: &Markup) -> Document {
    let main = html! {
        h1 { "Settings" }
        nav.tabs aria-label="Settings" {
            @for (to, text) in TABS { a href=(to) aria-current=[(to == path).then_some("page")] { (text) } }
        }
        (body)
    };
    let mut crumbs = vec![Crumb::new("Settings", "/settings")];
    if path != "/settings" {
        crumbs.push(Crumb::new(title, path));
    }
    document(&Head { title, crumbs, stream: None }, &main)
}

/// What is said instead of what the reader may not see.
pub(crate) fn only_for(problem: Problem, what: &str) -> Result<Markup, Problem> {
    if problem.status != ProblemKind::Forbidden.status() {
        return Err(problem);
    }
    Ok(
        html! { p.empty { (what) " are for those whose token grants " code { "admin" } " on the whole server. Yours does not; whoever runs the server can make one that does." } },
    )
}

/// Writes the page of whoever looks.
pub(crate) async fn you(source: &impl Source) -> Result<Document, Problem> {
    let whoami: Whoami = read(source, "/api/v1/whoami").await?;
    let version: Version = read(source, "/api/v1/version").await?;
    let body = html! {
        div.settings {
            section {
                h2 { "Who you are" }
                p { "You are " strong { (whoami.grant.name) } ", " (kind(whoami.grant.kind)) ", by the token " code { (whoami.token) } "." }
                (granted(&whoami.grant))
                p.quiet { "This server is Ropewalk " (version.version) "." }
            }
            section {
                h2 { "A weaker token of your own" }
                p { "For a script, or for a person who helps you for a day. It can do what you can, within these limits, and ends when yours does." }
                form.tall method="post" action="/settings/narrow" {
                    (limits("Only these verbs"))
                    button.main { "Make it" }
                }
            }
            section {
                h2 { "What does a token say?" }
                form.tall method="post" action="/settings/inspect" {
                    label { "The token " input name="token" type="password" required autocomplete="off" spellcheck="false"; }
                    button { "Look into it" }
                }
            }
        }
    };
    Ok(written("/settings", "Settings", &body))
}

fn kind(kind: HolderKind) -> &'static str {
    match kind {
        HolderKind::Person => "a person",
        HolderKind::Client => "a program",
        HolderKind::Worker => "a worker",
    }
}

/// What a grant grants, in words.
fn granted(grant: &Grant) -> Markup {
    let names = |names: &Option<std::collections::BTreeSet<String>>| {
        names.as_ref().map_or_else(|| "all".to_owned(), |names| names.iter().cloned().collect::<Vec<_>>().join(", "))
    };
    html! {
        dl.facts {
            div { dt { "May" } dd { @for verb in &grant.verbs { span.tag { (verb.name()) } " " } } }
            div { dt { "Projects" } dd { (names(&grant.projects)) } }
            div { dt { "Pools" } dd { (names(&grant.pools)) } }
            div { dt { "Until" } dd { @if let Some(until) = grant.expires { time datetime=(until) title=(until) { (until.in_seconds()) } } @else { "it is revoked" } } }
        }
    }
}

/// The part of a form that limits a token.
fn limits(verbs: &str) -> Markup {
    html! {
        fieldset { legend { (verbs) }
            div.choices { @for verb in VERBS { label.check { input type="checkbox" name=(format!("verb.{}", verb.name())); (verb.name()) } } }
        }
        label { "Only these projects " input name="projects" placeholder="all"; }
        label { "Only these pools " input name="pools" placeholder="all"; }
        label { "For so many days " input name="days" type="number" min="1" max="36500" placeholder="without end"; }
    }
}

/// Writes the page of tokens.
pub(crate) async fn tokens(source: &impl Source, ask: &Ask) -> Result<Document, Problem> {
    let cursor = match ask.text("cursor") {
        "" => String::new(),
        cursor => format!("?cursor={}", paths::encoded(cursor)),
    };
    let body = match read::<Page<Token>>(source, &format!("/api/v1/tokens{cursor}")).await {
        Err(problem) => only_for(problem, "Tokens")?,
        Ok(page) => html! {
            p.quiet { "For programs and workers. Whoever holds a token is who the token says, and can do what it grants. People are " a href="/settings/members" { "members" } ", whose sessions stand here too." }
            (token_table(&page.items, ask))
            @if let Some(next) = &page.next { p.pager { a rel="next" href=(format!("/settings/tokens?cursor={}", paths::encoded(next))) { "More tokens" } } }
            section.settings {
                h2 { "A new token" }
                form.tall method="post" action="/settings/tokens" {
                    label { "For " select name="kind" {
                        option value="person" { "a person" } option value="client" { "a program that asks for builds" } option value="worker" { "a worker" }
                    } }
                    label { "Name " input name="name" required maxlength="100" placeholder="who stands in the audit, and whom the queue charges"; }
                    (limits("What it lets them do"))
                    button.main { "Make it" }
                }
            }
        },
    };
    Ok(written("/settings/tokens", "Tokens", &body))
}

fn token_table(tokens: &[Token], ask: &Ask) -> Markup {
    let has_ended =
        |token: &Token| token.revoked.is_some() || token.grant.expires.is_some_and(|until| until.0 < ask.now);
    html! {
        @if tokens.is_empty() { p.empty { "No token was made yet." } }
        @else {
            table.list {
                thead { tr { th { span.unseen { "State" } } th { "Holder" } th { "May" } th.wide { "Made" } th { span.unseen { "Revoke" } } } }
                tbody { @for token in tokens {
                    @let standing = if has_ended(token) { Standing::Skipped } else { Standing::Passed };
                    tr {
                        td { (standing.mark()) }
                        td { strong { (token.grant.name) } " " span.quiet { @if token.is_session { "a member, signed in" } @else { (kind(token.grant.kind)) } } span.why { code { (token.id) } } }
                        td {
                            @for verb in &token.grant.verbs { span.tag { (verb.name()) } " " }
                            @if let Some(projects) = &token.grant.projects { span.why { "projects " (projects.iter().cloned().collect::<Vec<_>>().join(", ")) } }
                            @if let Some(pools) = &token.grant.pools { span.why { "pools " (pools.iter().cloned().collect::<Vec<_>>().join(", ")) } }
                            @if let Some(until) = token.grant.expires { span.why { @if has_ended(token) { "ended " } @else { "until " } time datetime=(until) title=(until) { (until.in_seconds()) } } }
                        }
                        td.wide { (words::ago(token.created, ask.now)) " by " (token.by) }
                        td {
                            @if let Some(at) = token.revoked { span.quiet { "revoked " (words::ago(at, ask.now)) @if let Some(by) = &token.revoked_by { " by " (by) } } }
                            @else if !has_ended(token) { form method="post" action=(format!("/settings/tokens/{}/revoke", paths::encoded(&token.id))) { button.danger aria-label=(format!("Revoke the token of {}", token.grant.name)) { "Revoke" } } }
                        }
                    }
                } }
            }
        }
    }
}

/// What came of a form whose answer is shown once, on the server at `address`.
#[must_use]
pub fn told(shown: Shown, answer: &[u8], back: &str, address: &str) -> Document {
    let unreadable = html! { p.problem { "The answer cannot be read." } };
    let body = match shown {
        Shown::NewToken => match serde_json::from_slice::<Created>(answer) {
            Err(_) => unreadable,
            Ok(Created { id, token }) => html! {
                section.shown-once {
                    h2 { "The token" }
                    p { strong { "It is shown this once." } " Keep it where secrets are kept; its id is " code { (id) } "." }
                    pre { code { (token) } }
                    p { a href=(back) { "Done" } }
                }
            },
        },
        Shown::Inspected => match serde_json::from_slice::<Inspected>(answer) {
            Err(_) => unreadable,
            Ok(said) => inspected(&said, back),
        },
        Shown::Invited => return written(back, "Member", &super::members::invited(answer, back, address)),
    };
    written(back, "Token", &body)
}

fn inspected(said: &Inspected, back: &str) -> Markup {
    html! {
        section.settings {
            h2 { @if said.refused.is_empty() { (Standing::Passed.mark()) " This server takes it" } @else { (Standing::Failed.mark()) " This server does not take it" } }
            @if !said.refused.is_empty() { p.problem { (said.refused) } }
            dl.facts {
                div { dt { "Id" } dd { code { (said.id) } } }
                @for (name, values) in said.grants.iter().filter(|(name, _)| *name != "id") { div { dt { (name.replace('_', " ")) } dd { (values.join(", ")) } } }
            }
            @if !said.limits.is_empty() { h3 { "Limits that it was made with" } ul { @for limit in &said.limits { li { (limit) } } } }
            @for narrowing in &said.narrowed { h3 { "Narrowed by a holder" } ul { @for limit in narrowing { li { (limit) } } } }
            p { a href=(back) { "Back" } }
        }
    }
}

/// Writes the page of the audit.
pub(crate) async fn audit(source: &impl Source, ask: &Ask) -> Result<Document, Problem> {
    let filter: String = ["project", "who"]
        .iter()
        .filter(|name| !ask.text(name).is_empty())
        .map(|name| format!("&{name}={}", paths::encoded(ask.text(name))))
        .collect();
    let cursor = super::builds::cursor_of(ask);
    let body = match read::<Page<AuditEntry>>(source, &format!("/api/v1/audit?limit={ENTRIES}{filter}{cursor}")).await {
        Err(problem) => only_for(problem, "Actions")?,
        Ok(page) => html! {
            form.filters method="get" action="/settings/audit" role="search" {
                label { "Who " input #search type="search" name="who" value=(ask.text("who")) placeholder="anybody"; }
                label { "Project " input type="search" name="project" value=(ask.text("project")) placeholder="any"; }
                button { "Show" }
                @if !filter.is_empty() { a href="/settings/audit" { "Show all" } }
            }
            @if page.items.is_empty() { p.empty { "Nobody has done anything like that." } }
            @else {
                table.list.entries {
                    thead { tr { th { "When" } th { "Who" } th { "What" } th { "On what" } th.wide { "From" } } }
                    tbody { @for entry in &page.items {
                        tr {
                            td { (words::ago(entry.at, ask.now)) }
                            td { (entry.who) }
                            td { code { @for (index, word) in entry.verb.split('_').enumerate() { @if index > 0 { "_" wbr; } (word) } } }
                            td { (entry.target) @if !entry.project.is_empty() { " " span.quiet { "in " (entry.project) } } @if !entry.detail.is_empty() { span.why { (entry.detail) } } }
                            td.wide { (entry.from) }
                        }
                    } }
                }
            }
            @if let Some(next) = &page.next { p.pager { a rel="next" href=(format!("/settings/audit?cursor={}{filter}", paths::encoded(next))) { "Earlier" } } }
        },
    };
    Ok(written("/settings/audit", "Audit", &body))
}

/// Writes the page of what is kept to be taken again.
pub(crate) async fn caches(source: &impl Source, ask: &Ask) -> Result<Document, Problem> {
    let job = match ask.text("job") {
        "" => String::new(),
        job => format!("&job={}", paths::encoded(job)),
    };
    let operations = match read::<Page<Operation>>(source, &format!("/api/v1/operations?limit={ENTRIES}{job}")).await {
        Ok(page) => page.items,
        Err(problem) => {
            let text = "Caches belong to all projects together. They are for those whose token grants `read` on the whole server.";
            if problem.status == ProblemKind::Forbidden.status() {
                return Ok(written("/settings/caches", "Caches", &html! { p.empty { (text) } }));
            }
            return Err(problem);
        }
    };
    let directories = read::<Page<KeyedCache>>(source, &format!("/api/v1/caches?limit={ENTRIES}")).await?.items;
    let body = html! {
        section aria-labelledby="results-title" {
            h2 #results-title { "Results of jobs" }
            form.filters method="get" action="/settings/caches" role="search" {
                label { "Job " input #search type="search" name="job" value=(ask.text("job")) placeholder="any"; }
                button { "Show" }
                @if !job.is_empty() { a href="/settings/caches" { "Show all" } }
            }
            @if operations.is_empty() { p.empty { "No result is kept. A job's result is kept once it has passed, and taken again where nothing that it reads has changed." } }
            @else { (results(&operations, ask)) }
            @if !job.is_empty() && operations.iter().any(|operation| operation.evicted.is_none()) {
                (evict(html! { input type="hidden" name="what" value="job"; input type="hidden" name="job" value=(ask.text("job")); }, &format!("Clear all results of {}", ask.text("job"))))
            }
        }
        section aria-labelledby="directories-title" {
            h2 #directories-title { "Directories" }
            @if directories.is_empty() { p.empty { "No directory is kept. A job keeps those that it names under " code { "cache" } "." } }
            @else { (kept(&directories, ask)) }
        }
    };
    Ok(written("/settings/caches", "Caches", &body))
}

/// A form that evicts something; it says why, since the tombstone keeps it.
fn evict(what: Markup, text: &str) -> Markup {
    html! {
        form.hold method="post" action="/settings/caches/evict" {
            (what)
            input name="reason" required maxlength="1000" placeholder="Why" aria-label="Why";
            button.danger { (text) }
        }
    }
}

fn tombstone(evicted: Option<&Evicted>, ask: &Ask) -> Markup {
    html! { @if let Some(evicted) = evicted { span.why { "cleared " (words::ago(evicted.at, ask.now)) ": " (evicted.reason) } } }
}

fn results(operations: &[Operation], ask: &Ask) -> Markup {
    html! {
        table.list {
            thead { tr { th { span.unseen { "State" } } th { "Job" } th.number.wide { "Size" } th.wide { "Recorded" } th { "Taken" } th { span.unseen { "Clear" } } } }
            tbody { @for operation in operations {
                @let digest = operation.digest.to_string();
                tr {
                    td { (if operation.evicted.is_some() { Standing::Skipped } else { Standing::of_outcome(operation.outcome) }.mark()) }
                    td {
                        a.name href=(format!("/settings/caches/{digest}")) { (operation.job) } " " a.quiet href=(paths::build(operation.build)) { "build " (operation.build) }
                        (tombstone(operation.evicted.as_ref(), ask))
                    }
                    td.number.wide { (words::size(operation.bytes)) }
                    td.wide { (words::ago(operation.at, ask.now)) }
                    td { (words::ago(operation.used_at, ask.now)) }
                    td { a href=(format!("/settings/caches/{digest}")) { "Why and clear" } }
                }
            } }
        }
    }
}

fn kept(directories: &[KeyedCache], ask: &Ask) -> Markup {
    html! {
        table.list {
            thead { tr { th { span.unseen { "State" } } th { "Key" } th.number { "Size" } th.wide { "Written" } th.wide { "Read" } th { span.unseen { "Clear" } } } }
            tbody { @for (index, directory) in directories.iter().enumerate() {
                tr {
                    td { (if directory.evicted.is_some() { Standing::Skipped } else { Standing::Passed }.mark()) }
                    td {
                        code { (directory.key) } @if !directory.scope.is_empty() { " " span.quiet { "of " (directory.scope) } }
                        (tombstone(directory.evicted.as_ref(), ask))
                    }
                    td.number { (words::size(directory.bytes)) }
                    td.wide { (words::ago(directory.at, ask.now)) " by " a href=(paths::job(directory.written_by.build, &directory.written_by.job)) { (directory.written_by.job) } }
                    td.wide { (words::ago(directory.used_at, ask.now)) }
                    td { @if directory.evicted.is_none() {
                        details #(format!("clear-{index}")) { summary { "Clear" }
                            (evict(html! { input type="hidden" name="what" value="keyed"; input type="hidden" name="scope" value=(directory.scope); input type="hidden" name="key" value=(directory.key); }, "Clear"))
                        }
                    } }
                }
            } }
        }
    }
}

/// Writes the page that says what a kept result is made of.
pub(crate) async fn result(source: &impl Source, digest: &str) -> Result<Document, Problem> {
    let explained: Explained = read(source, &format!("/api/v1/operations/{}", paths::encoded(digest))).await?;
    let body = html! {
        section {
            h2 { "Why a result is taken" }
            p { "A job takes this result if all of these are the same. Change any of them, and it runs anew." }
            p.quiet { "Operation " code { (explained.digest) } }
            table.list.entries { thead { tr { th { "Part" } th { "Value, or its digest" } } } tbody { @for part in &explained.parts {
                tr { td { (part.name) } td { code { (part.value) } } }
            } } }
            (evict(html! { input type="hidden" name="what" value="operation"; input type="hidden" name="digest" value=(explained.digest); }, "Clear this result"))
        }
    };
    Ok(written("/settings/caches", "Caches", &body))
}
