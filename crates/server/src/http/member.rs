//! Members: who may sign in, with which role, and the links by which they do.

use std::net::SocketAddr;
use std::sync::Arc;

use api::member::{Invitation, Join, Member, NewMember, NewRole};
use api::page::LIMIT_MAX;
use api::problem::{Problem, ProblemKind};
use api::token::Created;
use axum::http::StatusCode;
use graph::Timestamp;
use store::audit::AuditEntry;

use super::answer::{self, Answered};
use super::call::Call;
use super::control::{audit, audit_by, note};
use super::job::cut;
use super::{App, problem};
use crate::access::{
    Bearer, CreateError, Denied, GrantRequest, Member as Stored, Role, Subject, SubjectKind, Target, Verb,
};
use crate::members::{self, MemberError, Scope};

/// The most projects of a member that a refusal names.
const ROLES_NAMED_MAX: usize = 5;

fn public(role: Role) -> api::member::Role {
    match role {
        Role::Reader => api::member::Role::Reader,
        Role::Developer => api::member::Role::Developer,
        Role::Administrator => api::member::Role::Administrator,
    }
}

fn role_of(role: api::member::Role) -> Role {
    match role {
        api::member::Role::Reader => Role::Reader,
        api::member::Role::Developer => Role::Developer,
        api::member::Role::Administrator => Role::Administrator,
    }
}

fn scope_of(project: Option<String>) -> Scope {
    project.map_or(Scope::Server, Scope::Project)
}

fn target(scope: &Scope) -> Target<'_> {
    match scope {
        Scope::Server => Target::SERVER,
        Scope::Project(project) => Target::project(project),
    }
}

/// How a scope stands in the audit: its project, and in words.
fn told(scope: &Scope) -> (&str, String) {
    match scope {
        Scope::Server => ("", "on every project".to_owned()),
        Scope::Project(project) => (project, format!("on {project}")),
    }
}

/// Which scopes whoever asks administers.
fn caller(bearer: Arc<Bearer>, now: Timestamp) -> impl Fn(&Scope) -> bool {
    move |scope| bearer.may(Verb::Admin, &target(scope), now).is_ok()
}

/// A member as whoever asks may see it: roles on what they administer.
fn shown(member: &Stored, may: impl Fn(&Scope) -> bool) -> Member {
    let projects = member.projects.iter().filter(|(project, _)| may(&Scope::Project((*project).clone())));
    Member {
        name: member.name.clone(),
        role: member.everywhere.filter(|_| may(&Scope::Server)).map(public),
        projects: projects.map(|(project, role)| (project.clone(), public(*role))).collect(),
        created: member.created.into(),
        by: member.by.clone(),
        sessions: u32::try_from(member.sessions.len()).unwrap_or(u32::MAX),
        link_until: member.link.as_ref().map(|link| link.until.into()),
    }
}

/// Why something about members was not done, for whoever asked.
pub fn refused(error: MemberError) -> Problem {
    let said = error.to_string();
    match error {
        MemberError::Name => {
            Problem::new(ProblemKind::Unprocessable, said).field("name", "cannot name a member, or the project none")
        }
        MemberError::Missing(name) => problem::not_found(format_args!("member `{name}`")),
        MemberError::There => {
            Problem::new(ProblemKind::Conflict, said).help("change the role, or make another link for the member")
        }
        MemberError::Elsewhere => Problem::new(ProblemKind::Conflict, said)
            .help("take another name, or ask whoever administers the whole server"),
        MemberError::Full => Problem::new(ProblemKind::Unprocessable, said).help("give a role on every project"),
        MemberError::Link => Problem::new(ProblemKind::Forbidden, said).help("ask whoever sent it for a new one"),
        MemberError::Create(CreateError::Token(error)) => Problem::new(ProblemKind::Unprocessable, error.to_string()),
        MemberError::Create(CreateError::Ledger(error)) | MemberError::Ledger(error) => problem::ledger(error),
        MemberError::Record(error) => problem::record(error),
    }
}

/// As [`refused`]; of a member who has no role on `scope`, where whoever asks knows of one.
fn refused_on(app: &App, scope: &Scope, may: &impl Fn(&Scope) -> bool, error: MemberError) -> Problem {
    let MemberError::Missing(name) = &error else { return refused(error) };
    let Ok(Some((member, _))) = app.server.records.read::<Stored>(name) else { return refused(error) };
    let known = shown(&member, may);
    let everywhere = known.role.map(|_| "every project");
    let mut on: Vec<&str> = everywhere.into_iter().chain(known.projects.keys().map(String::as_str)).collect();
    if on.is_empty() {
        return refused(error);
    }
    let more = on.len().saturating_sub(ROLES_NAMED_MAX);
    on.truncate(ROLES_NAMED_MAX);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    let help = match known.projects.keys().next() {
        Some(project) => {
            format!("name the project (`--project {project}`), or give a role here with `ropewalk member add`")
        }
        None => "leave `--project` out for the role on every project, or give one here with `ropewalk member add`"
            .to_owned(),
    };
    let text = format!("the member `{name}` has no role {}, but on {}{rest}", told(scope).1, on.join(", "));
    Problem::new(ProblemKind::NotFound, text).help(help)
}

pub async fn list(app: Arc<App>, call: Call) -> Answered {
    let (limit, after) = (call.limit()?, call.cursor::<String>()?);
    let project = call.text("project").map(str::to_owned);
    let bearer = Arc::clone(call.bearer()?);
    let page = app
        .blocking(move |app| {
            let may = caller(bearer, app.now());
            let wanted = |scope: &Scope| {
                project.as_ref().is_none_or(|wanted| matches!(scope, Scope::Project(project) if project == wanted))
                    && may(scope)
            };
            let mut found = Vec::new();
            let mut last = after;
            // One more than wanted says whether there is a next page.
            while found.len() <= limit as usize {
                let page = app.server.records.list::<Stored>(last.as_deref(), LIMIT_MAX).map_err(problem::record)?;
                let Some((key, _)) = page.last() else { break };
                last = Some(key.clone());
                let members = page.iter().map(|(_, member)| shown(member, wanted));
                found.extend(members.filter(|member| member.role.is_some() || !member.projects.is_empty()));
            }
            Ok(cut(found.into_iter(), limit, |member| member.name.clone()))
        })
        .await?;
    answer::json(&page)
}

/// Whether whoever asks administers a scope, and holds all that a role would give there.
fn demand(app: &App, call: &Call, scope: &Scope, role: Option<Role>) -> Result<(), Problem> {
    if let Scope::Project(project) = scope
        && !crate::records::is_name(project)
    {
        return Err(Problem::new(ProblemKind::Invalid, format!("`{project}` cannot name a project"))
            .field("project", "letters, digits and `._-`, at most 100, a letter or digit first"));
    }
    call.demand(Verb::Admin, &target(scope), app.now())?;
    let Some(role) = role else { return Ok(()) };
    call.bearer()?.may_give(&given(scope, role), app.now()).map_err(problem::not_given)
}

/// What whoever is given a role may do by it: on every pool, and without an end.
fn given(scope: &Scope, role: Role) -> GrantRequest {
    let projects = match scope {
        Scope::Server => None,
        Scope::Project(project) => Some([project.clone()].into()),
    };
    let subject = Subject { kind: SubjectKind::Person, name: String::new() };
    GrantRequest { subject, verbs: role.verbs().iter().copied().collect(), projects, pools: None, until: None }
}

/// On which scopes whoever asks may make anybody an administrator, and so give out a link that signs in as whoever is one.
fn giver(bearer: Arc<Bearer>, now: Timestamp) -> impl Fn(&Scope) -> bool {
    move |scope| bearer.may_give(&given(scope, Role::Administrator), now).is_ok()
}

fn invitation(member: &Stored, secret: &str, may: impl Fn(&Scope) -> bool) -> Invitation {
    let expires = member.link.as_ref().map_or(member.created, |link| link.until);
    Invitation { member: shown(member, may), link: format!("/join?link={secret}"), expires: expires.into() }
}

pub async fn add(app: Arc<App>, call: Call) -> Answered {
    let NewMember { name, role, project } = call.json()?;
    let (scope, role) = (scope_of(project), role_of(role));
    demand(&app, &call, &scope, Some(role))?;
    let (bearer, by) = (Arc::clone(call.bearer()?), call.who());
    let (on, who) = (scope.clone(), name.clone());
    let made = app
        .blocking(move |app| {
            if let Scope::Project(project) = &on {
                // As secrets, members are often there before the first build.
                app.server.project(project).map_err(super::build::request)?;
            }
            let (access, records, at) = (&app.server.access, &app.server.records, app.now());
            let may_sign_in = giver(Arc::clone(&bearer), at);
            let asked = (who.as_str(), &on, role);
            let (member, secret) = members::add(access, records, &may_sign_in, asked, &by, at).map_err(refused)?;
            Ok(invitation(&member, &secret, caller(bearer, at)))
        })
        .await?;
    let (project, words) = told(&scope);
    audit(&app, &call, project, format!("member {name}"), format!("{} {words}", role.name())).await?;
    answer::json_as(StatusCode::CREATED, &made)
}

pub async fn role(app: Arc<App>, call: Call) -> Answered {
    let NewRole { role, project } = call.json()?;
    let (scope, role, name) = (scope_of(project), role_of(role), call.segment("member").to_owned());
    demand(&app, &call, &scope, Some(role))?;
    let bearer = Arc::clone(call.bearer()?);
    let (on, who) = (scope.clone(), name.clone());
    let member = app
        .blocking(move |app| {
            let at = app.now();
            let member = members::set_role(&app.server.records, (&who, &on, role), at);
            let may = caller(bearer, at);
            let member = member.map_err(|error| refused_on(app, &on, &may, error))?;
            Ok(shown(&member, may))
        })
        .await?;
    let (project, words) = told(&scope);
    audit(&app, &call, project, format!("member {name}"), format!("{} {words}", role.name())).await?;
    answer::json(&member)
}

/// What the role to be taken is held on; `None`: all roles are taken.
fn taken(call: &Call) -> Result<Option<Scope>, Problem> {
    let everywhere = call.wanted::<bool>("everywhere", "`true` or `false`")?.unwrap_or(false);
    match (call.text("project"), everywhere) {
        (Some(_), true) => {
            let said = "a role is taken on one project or on every one, not both";
            Err(Problem::new(ProblemKind::Invalid, said).help("leave out `project` or `everywhere`, or ask twice"))
        }
        (project, false) => Ok(project.map(|project| Scope::Project(project.to_owned()))),
        (None, true) => Ok(Some(Scope::Server)),
    }
}

pub async fn remove(app: Arc<App>, call: Call) -> Answered {
    let name = call.segment("member").to_owned();
    let scope = taken(&call)?;
    let (bearer, by) = (Arc::clone(call.bearer()?), call.who());
    let (who, from) = (name.clone(), scope.clone());
    if let Some(scope) = &scope {
        demand(&app, &call, scope, None)?;
    }
    app.blocking(move |app| {
        let (access, records, at) = (&app.server.access, &app.server.records, app.now());
        match from {
            Some(scope) => members::remove(access, records, (&who, &scope), &by, at)
                .map_err(|error| refused_on(app, &scope, &caller(bearer, at), error)),
            None => members::remove_whole(access, records, &caller(bearer, at), &who, (&by, at)).map_err(refused),
        }
    })
    .await?;
    let (project, words) = match &scope {
        None => ("", String::new()),
        Some(Scope::Server) => ("", "from every project".to_owned()),
        Some(Scope::Project(project)) => (project.as_str(), format!("from {project}")),
    };
    audit(&app, &call, project, format!("member {name}"), words).await?;
    answer::nothing()
}

pub async fn link(app: Arc<App>, call: Call) -> Answered {
    let name = call.segment("member").to_owned();
    let bearer = Arc::clone(call.bearer()?);
    let who = name.clone();
    let made = app
        .blocking(move |app| {
            let at = app.now();
            if caller(Arc::clone(&bearer), at)(&Scope::Server) {
                // Whoever administers every member does not need to hear of others who do.
                bearer.may_give(&given(&Scope::Server, Role::Administrator), at).map_err(problem::not_given)?;
            }
            let may_sign_in = giver(Arc::clone(&bearer), at);
            let (member, secret) = members::link(&app.server.records, &may_sign_in, &who, at).map_err(refused)?;
            Ok(invitation(&member, &secret, caller(bearer, at)))
        })
        .await?;
    audit(&app, &call, "", format!("member {name}"), String::new()).await?;
    answer::json_as(StatusCode::CREATED, &made)
}

pub async fn join(app: Arc<App>, call: Call) -> Answered {
    let Join { link } = call.json()?;
    let (name, id, token) = app
        .blocking(move |app| {
            let (member, id, token) =
                members::join(&app.server.access, &app.server.records, &link, app.now()).map_err(refused)?;
            Ok((member.name, id, token))
        })
        .await?;
    audit_by(&app, &call, name.clone(), "", format!("member {name}"), format!("token {id}")).await?;
    answer::json_as(StatusCode::CREATED, &Created { id, token })
}

/// Ends the session that a token is, of a member who signs out. Another token goes on, and so does a session from which this one was
/// narrowed.
pub async fn leave(app: &Arc<App>, token: String, from: Option<SocketAddr>) -> Result<(), Problem> {
    let ended = app.blocking(move |app| {
        let bearer = match app.server.access.admit(&token) {
            Ok(bearer) => bearer,
            // It lets nobody in anyway.
            Err(Denied::NoToken(_) | Denied::Revoked) => return Ok(None),
            Err(denied) => return Err(problem::denied(denied)),
        };
        let Some(session) = bearer.session() else { return Ok(None) };
        let name = &bearer.subject.name;
        members::leave(&app.server.access, &app.server.records, (name, session), app.now()).map_err(refused)?;
        Ok(Some((name.clone(), session.to_owned())))
    });
    let Some((name, session)) = ended.await? else { return Ok(()) };
    let entry = AuditEntry {
        at: app.now(),
        verb: "member_leave".to_owned(),
        target: format!("member {name}"),
        who: name,
        project: String::new(),
        from: from.map(|from| from.ip().to_string()).unwrap_or_default(),
        detail: format!("token {session}"),
    };
    note(app, entry).await
}
