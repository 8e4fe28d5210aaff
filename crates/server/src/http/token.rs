//! Tokens and the audit.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::audit::AuditEntry;
use api::page::Page;
use api::problem::{Problem, ProblemKind};
use api::token::{Created, Grant, HolderKind, Inspected, Narrow, Token, TokenText, Whoami};
use axum::http::StatusCode;
use store::audit::AuditFilter;

use super::admission::verb_of;
use super::answer::{self, Answered};
use super::call::Call;
use super::control::audit as note;
use super::{App, problem};
use crate::access::{CreateError, GrantRequest, Narrowing, Subject, SubjectKind, TokenError, TokenRow, Verb};

/// The most names of projects, or of pools, in one token.
const NAMES_MAX: usize = 100;

fn grant(grant: &GrantRequest) -> Grant {
    Grant {
        kind: match grant.subject.kind {
            SubjectKind::Person => HolderKind::Person,
            SubjectKind::Client => HolderKind::Client,
            SubjectKind::Worker => HolderKind::Worker,
        },
        name: grant.subject.name.clone(),
        verbs: grant.verbs.iter().map(|verb| public(*verb)).collect(),
        projects: grant.projects.clone(),
        pools: grant.pools.clone(),
        expires: grant.until.map(Into::into),
    }
}

fn public(verb: Verb) -> api::token::Verb {
    match verb {
        Verb::Read => api::token::Verb::Read,
        Verb::Submit => api::token::Verb::Submit,
        Verb::Control => api::token::Verb::Control,
        Verb::Shell => api::token::Verb::Shell,
        Verb::Work => api::token::Verb::Work,
        Verb::Admin => api::token::Verb::Admin,
    }
}

/// A token as people see it; a member's session grants what the member may now.
fn shown(app: &App, row: &TokenRow) -> Token {
    let standing = app.server.access.standing(row).map_or_else(|_| row.grant.clone(), |(grant, _)| grant);
    Token {
        id: row.id.clone(),
        grant: grant(&standing),
        is_session: row.member.is_some(),
        created: row.created.into(),
        by: row.by.clone(),
        revoked: row.revoked.as_ref().map(|(at, _)| (*at).into()),
        revoked_by: row.revoked.as_ref().map(|(_, by)| by.clone()),
    }
}

pub async fn whoami(_: Arc<App>, call: Call) -> Answered {
    let bearer = call.bearer()?;
    answer::json(&Whoami { token: bearer.token.clone(), grant: grant(&bearer.grant) })
}

pub async fn list(app: Arc<App>, call: Call) -> Answered {
    let after = call.cursor::<String>()?;
    let page = app
        .blocking(move |app| {
            let rows = app.server.access.ledger().list(after.as_deref()).map_err(problem::ledger)?;
            let Some(last) = rows.last() else { return Ok(Page::default()) };
            let more = app.server.access.ledger().list(Some(&last.id)).map_err(problem::ledger)?;
            let next = (!more.is_empty()).then(|| last.id.clone());
            Ok(Page { items: rows.iter().map(|row| shown(app, row)).collect::<Vec<_>>(), next })
        })
        .await?;
    answer::json(&page)
}

/// The text of the token that a call is made with. Only a header can bring it here: a cookie counts for looking alone.
fn own_text(call: &Call) -> &str {
    let value = call.headers.get(axum::http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.split_once(' ')).map_or("", |(_, token)| token.trim())
}

fn refused(error: &TokenError) -> Problem {
    Problem::new(ProblemKind::Unprocessable, error.to_string())
}

pub async fn narrow(app: Arc<App>, call: Call) -> Answered {
    let wanted: Narrow = call.json()?;
    if [&wanted.projects, &wanted.pools].into_iter().any(|names| names.len() > NAMES_MAX) {
        return Err(too_many_names());
    }
    let narrowing = Narrowing {
        verbs: wanted.verbs.into_iter().map(verb_of).collect(),
        projects: wanted.projects,
        pools: wanted.pools,
        builds: BTreeSet::new(),
        until: wanted.expires.map(|until| until.0),
    };
    if narrowing.is_empty() {
        return Err(Problem::new(ProblemKind::Unprocessable, "this limits nothing")
            .help("name verbs, projects, pools or an end in time"));
    }
    let token = crate::access::narrow(own_text(&call), &narrowing).map_err(|error| refused(&error))?;
    let id = call.bearer()?.token.clone();
    note(&app, &call, "", format!("token {id}"), String::new()).await?;
    answer::json_as(StatusCode::CREATED, &Created { id, token })
}

pub async fn inspect(app: Arc<App>, call: Call) -> Answered {
    let TokenText { token } = call.json()?;
    let said = crate::access::inspect(&token).map_err(|error| refused(&error))?;
    let held = app.blocking(move |app| app.server.access.admit(&token).map_err(problem::denied)).await;
    let refused = match held {
        Ok(bearer) if bearer.has_ended(app.now()) => "the token has expired".to_owned(),
        Ok(_) => String::new(),
        Err(problem) => problem.detail,
    };
    answer::json(&Inspected {
        id: said.grant("id").unwrap_or_default().to_owned(),
        refused,
        grants: said.grants,
        limits: said.checks,
        narrowed: said.narrowed,
    })
}

fn too_many_names() -> Problem {
    Problem::new(ProblemKind::Unprocessable, format!("a token names at most {NAMES_MAX} projects or pools"))
}

fn row(app: &App, id: &str) -> Result<TokenRow, Problem> {
    let row = app.server.access.ledger().token(id).map_err(problem::ledger)?;
    row.ok_or_else(|| problem::not_found(format_args!("token `{id}`")))
}

pub async fn get(app: Arc<App>, call: Call) -> Answered {
    let id = call.segment("token").to_owned();
    answer::json(&app.blocking(move |app| Ok(shown(app, &row(app, &id)?))).await?)
}

pub async fn create(app: Arc<App>, call: Call) -> Answered {
    let wanted: Grant = call.json()?;
    let names = [wanted.projects.as_ref(), wanted.pools.as_ref()];
    if names.into_iter().flatten().any(|names| names.len() > NAMES_MAX) {
        return Err(too_many_names());
    }
    if wanted.verbs.is_empty() || wanted.name.is_empty() || wanted.name.chars().count() > 100 {
        return Err(Problem::new(ProblemKind::Unprocessable, "a token has a holder's name and a verb")
            .field("name", "1 to 100 characters")
            .field("verbs", "at least one"));
    }
    let bearer = Arc::clone(call.bearer()?);
    let request = GrantRequest {
        subject: Subject {
            kind: match wanted.kind {
                HolderKind::Person => SubjectKind::Person,
                HolderKind::Client => SubjectKind::Client,
                HolderKind::Worker => SubjectKind::Worker,
            },
            name: wanted.name,
        },
        verbs: wanted.verbs.into_iter().map(verb_of).collect::<BTreeSet<_>>(),
        projects: wanted.projects,
        pools: wanted.pools,
        until: wanted.expires.map(|until| until.0).or(bearer.ends()),
    };
    let (id, by, holder) = (crate::parts::fresh_id(), call.who(), request.subject.to_string());
    let made = id.clone();
    let token = app
        .blocking(move |app| {
            bearer.may_give(&request, app.now()).map_err(problem::not_given)?;
            app.server.access.create(&made, request, &by, app.now()).map_err(|error| match error {
                CreateError::Token(error) => Problem::new(ProblemKind::Unprocessable, error.to_string()),
                CreateError::Ledger(error) => problem::ledger(error),
            })
        })
        .await?;
    if let Err(refusal) = note(&app, &call, "", format!("token {id}"), format!("for {holder}")).await {
        // Nobody gets to know it; so it need not hold.
        let made = id.clone();
        app.blocking(move |app| app.server.access.revoke(&made, "server", app.now()).map_err(problem::ledger)).await?;
        return Err(refusal);
    }
    answer::json_as(StatusCode::CREATED, &Created { id, token })
}

pub async fn revoke(app: Arc<App>, call: Call) -> Answered {
    let (id, by) = (call.segment("token").to_owned(), call.who());
    let token = id.clone();
    app.blocking(move |app| {
        row(app, &token)?;
        app.server.access.revoke(&token, &by, app.now()).map_err(problem::ledger)
    })
    .await?;
    note(&app, &call, "", format!("token {id}"), String::new()).await?;
    answer::nothing()
}

pub async fn audit(app: Arc<App>, call: Call) -> Answered {
    let filter =
        AuditFilter { project: call.text("project").map(str::to_owned), who: call.text("who").map(str::to_owned) };
    let (limit, before) = (call.limit()?, call.cursor::<u64>()?);
    let page = app
        .blocking(move |app| {
            let rows = app.server.store.audit(&filter, before, limit).map_err(problem::store)?;
            // A full page may be the last; the next one is then empty.
            let next = (rows.len() == limit as usize).then(|| rows.last().map(|row| row.number.to_string())).flatten();
            let items: Vec<AuditEntry> = rows
                .into_iter()
                .map(|row| AuditEntry {
                    number: row.number,
                    at: row.entry.at.into(),
                    who: row.entry.who,
                    verb: row.entry.verb,
                    target: row.entry.target,
                    project: row.entry.project,
                    from: row.entry.from,
                    detail: row.entry.detail,
                })
                .collect();
            Ok(Page { items, next })
        })
        .await?;
    answer::json(&page)
}
