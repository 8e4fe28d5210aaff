//! Who is a member of this server: added by administrators, signed in by links that are good once, gone at once.
//!
//! All of it blocks.

use std::collections::BTreeSet;

use graph::{Timestamp, hex};

use crate::access::{Access, CreateError, GrantRequest, LedgerError, Member, Role, Subject, SubjectKind};
use crate::one_time::{OneTimeLink, fresh_secret};
use crate::records::{RecordError, Records, is_name};

/// How long a link is good, in milliseconds: three days.
pub const LINK_MS: u64 = 3 * 24 * 3600 * 1000;
/// How long a session lasts, in milliseconds: ninety days.
pub const SESSION_MS: u64 = 90 * 24 * 3600 * 1000;
/// The most sessions of one member; one more ends the oldest.
pub const SESSIONS_MAX: usize = 20;
/// The most projects on which one member has a role.
pub const PROJECTS_MAX: usize = 200;
/// The longest name in characters.
pub const NAME_CHARACTERS_MAX: usize = 100;

/// What a role is held on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The server, and so every project.
    Server,
    /// One project.
    Project(String),
}

/// Why something was not done with a member.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// It cannot be a person's name.
    #[error(
        "a member's name has 1 to {NAME_CHARACTERS_MAX} characters, a letter or digit first, none of them a control character"
    )]
    Name,
    /// There is no such member, or not with a role on this.
    #[error("there is no member `{0}`")]
    Missing(String),
    /// There is one already, with a role on this.
    #[error("there is a member of this name already")]
    There,
    /// The member has a role also where the caller administers nothing.
    #[error("this name is a member also where you administer nothing")]
    Elsewhere,
    /// The member has [`PROJECTS_MAX`] roles.
    #[error("a member has a role on at most {PROJECTS_MAX} projects")]
    Full,
    /// The link is not the last that was made, was used, or is too old.
    #[error("this link is not good, or not any more")]
    Link,
    /// As the tokens refuse.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// As the list of tokens refuses.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// As the records refuse.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Whether a name may be that of a member.
#[must_use]
pub fn is_member_name(name: &str) -> bool {
    name.chars().count() <= NAME_CHARACTERS_MAX
        && name.starts_with(char::is_alphanumeric)
        && name.trim_end() == name
        && !name.chars().any(char::is_control)
}

/// Who looks after members: which scopes the caller administers.
pub trait Administers {
    /// Whether the caller administers this.
    fn administers(&self, scope: &Scope) -> bool;
}

impl<F: Fn(&Scope) -> bool> Administers for F {
    fn administers(&self, scope: &Scope) -> bool {
        self(scope)
    }
}

/// Whether the caller administers all that a member has a role on. Only who does may make a link that signs in as the member.
fn administers_all(caller: &impl Administers, member: &Member) -> bool {
    caller.administers(&Scope::Server)
        || member.everywhere.is_none()
            && member.projects.keys().all(|project| caller.administers(&Scope::Project(project.clone())))
}

/// Adds a member, or gives one a role on something more, which only who administers the whole member may. Gives the member, and what a link is to hold.
///
/// Who gave the first role knew the first link and may have used it: so with a further role all sessions end, and whoever opens the new link is the member.
///
/// # Errors
/// [`MemberError`].
pub fn add(
    access: &Access,
    records: &Records,
    caller: &impl Administers,
    (name, scope, role): (&str, &Scope, Role),
    by: &str,
    at: Timestamp,
) -> Result<(Member, String), MemberError> {
    if !is_member_name(name) || matches!(scope, Scope::Project(project) if !is_name(project)) {
        return Err(MemberError::Name);
    }
    let (id, secret) = (crate::parts::fresh_id(), fresh_secret());
    let fresh = || Member { name: name.to_owned(), created: at, by: by.to_owned(), ..Member::default() };
    let mut ended = Vec::new();
    let member = changed(records, name, at, |before| {
        let mut member = before.unwrap_or_else(fresh);
        if !administers_all(caller, &member) {
            return Err(MemberError::Elsewhere);
        }
        if role_in(&member, scope).is_some() {
            return Err(MemberError::There);
        }
        if member.projects.len() >= PROJECTS_MAX {
            return Err(MemberError::Full);
        }
        put_role(&mut member, scope, Some(role));
        member.id.clone_from(&id);
        ended = std::mem::take(&mut member.sessions);
        member.link = Some(OneTimeLink::new(&secret, at, LINK_MS));
        Ok(member)
    })?;
    revoke(access, &ended, by, at)?;
    Ok((member, text_of(name, &secret)))
}

/// Gives a member another role.
///
/// # Errors
/// [`MemberError`].
pub fn set_role(
    records: &Records,
    (name, scope, role): (&str, &Scope, Role),
    at: Timestamp,
) -> Result<Member, MemberError> {
    changed(records, name, at, |before| {
        let mut member = before
            .filter(|member| role_in(member, scope).is_some())
            .ok_or_else(|| MemberError::Missing(name.to_owned()))?;
        put_role(&mut member, scope, Some(role));
        Ok(member)
    })
}

/// Takes a role away. With the last one the member is gone, with all sessions and the open link.
///
/// # Errors
/// [`MemberError`].
pub fn remove(
    access: &Access,
    records: &Records,
    (name, scope): (&str, &Scope),
    by: &str,
    at: Timestamp,
) -> Result<(), MemberError> {
    let member = changed(records, name, at, |before| {
        let mut member = before
            .filter(|member| role_in(member, scope).is_some())
            .ok_or_else(|| MemberError::Missing(name.to_owned()))?;
        put_role(&mut member, scope, None);
        Ok(member)
    })?;
    if member.has_no_role() { end(access, records, &member, by, at) } else { Ok(()) }
}

/// Removes a member with all roles, if the caller administers them all.
///
/// # Errors
/// [`MemberError`].
pub fn remove_whole(
    access: &Access,
    records: &Records,
    caller: &impl Administers,
    name: &str,
    (by, at): (&str, Timestamp),
) -> Result<(), MemberError> {
    let (member, _) = records.read::<Member>(name)?.ok_or_else(|| MemberError::Missing(name.to_owned()))?;
    if !administers_all(caller, &member) {
        return Err(MemberError::Elsewhere);
    }
    end(access, records, &member, by, at)
}

/// Takes all roles on a project that is forgotten, so that a later one of its name begins without members.
///
/// # Errors
/// [`MemberError`].
pub fn forget_project(
    access: &Access,
    records: &Records,
    project: &str,
    by: &str,
    at: Timestamp,
) -> Result<(), MemberError> {
    let scope = Scope::Project(project.to_owned());
    for (name, member) in records.all::<Member>()? {
        if role_in(&member, &scope).is_none() {
            continue;
        }
        match remove(access, records, (&name, &scope), by, at) {
            // Somebody else took it meanwhile.
            Ok(()) | Err(MemberError::Missing(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// With the record go all sessions, since each request asks for it; their rows are told for people.
fn end(access: &Access, records: &Records, member: &Member, by: &str, at: Timestamp) -> Result<(), MemberError> {
    records.remove::<Member>(&member.name)?;
    revoke(access, &member.sessions, by, at)
}

fn revoke(access: &Access, sessions: &[String], by: &str, at: Timestamp) -> Result<(), MemberError> {
    sessions.iter().try_for_each(|session| access.revoke(session, by, at).map(drop)).map_err(MemberError::from)
}

/// Makes a link for one more sign-in, in place of the one that was open. Gives the member and what the link is to hold.
///
/// # Errors
/// [`MemberError`].
pub fn link(
    records: &Records,
    caller: &impl Administers,
    name: &str,
    at: Timestamp,
) -> Result<(Member, String), MemberError> {
    let secret = fresh_secret();
    let member = changed(records, name, at, |before| {
        let mut member = before.ok_or_else(|| MemberError::Missing(name.to_owned()))?;
        if !administers_all(caller, &member) {
            return Err(MemberError::Elsewhere);
        }
        member.link = Some(OneTimeLink::new(&secret, at, LINK_MS));
        Ok(member)
    })?;
    Ok((member, text_of(name, &secret)))
}

/// Signs in by a link, which is worth nothing afterwards: the member, the id of the session's token and its text.
///
/// # Errors
/// [`MemberError`].
pub fn join(
    access: &Access,
    records: &Records,
    text: &str,
    at: Timestamp,
) -> Result<(Member, String, String), MemberError> {
    let (name, secret) = parts_of(text)?;
    let id = crate::parts::fresh_id();
    let mut ended = Vec::new();
    // Whoever takes the link out of the record is the one.
    let member = changed(records, &name, at, |before| {
        let mut member = before
            .filter(|member| member.link.as_ref().is_some_and(|link| link.opens(secret, at)))
            .ok_or(MemberError::Link)?;
        member.link = None;
        member.sessions.push(id.clone());
        ended = member.sessions.drain(..member.sessions.len().saturating_sub(SESSIONS_MAX)).collect();
        Ok(member)
    })?;
    revoke(access, &ended, &member.name, at)?;
    let grant = GrantRequest {
        subject: Subject { kind: SubjectKind::Person, name: member.name.clone() },
        verbs: BTreeSet::new(),
        projects: Some(BTreeSet::new()),
        pools: Some(BTreeSet::new()),
        until: Some(at.plus_ms(SESSION_MS)),
    };
    let token = access.create_session(&id, grant, &member, at)?;
    Ok((member, id, token))
}

/// Ends one session of a member, who signs out. Also if the member is gone by then.
///
/// # Errors
/// [`MemberError`].
pub fn leave(
    access: &Access,
    records: &Records,
    (name, session): (&str, &str),
    at: Timestamp,
) -> Result<(), MemberError> {
    access.revoke(session, name, at)?;
    let forgotten = changed(records, name, at, |before| {
        let mut member = before.ok_or_else(|| MemberError::Missing(name.to_owned()))?;
        member.sessions.retain(|known| known != session);
        Ok(member)
    });
    match forgotten {
        Ok(_) | Err(MemberError::Missing(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a member administers the server.
///
/// # Errors
/// [`RecordError`].
pub fn has_administrator(records: &Records) -> Result<bool, RecordError> {
    let members = records.all::<Member>()?;
    Ok(members.iter().any(|(_, member)| member.everywhere == Some(Role::Administrator)))
}

/// The role in a scope, and nowhere else.
#[must_use]
pub fn role_in(member: &Member, scope: &Scope) -> Option<Role> {
    match scope {
        Scope::Server => member.everywhere,
        Scope::Project(project) => member.projects.get(project).copied(),
    }
}

fn put_role(member: &mut Member, scope: &Scope, role: Option<Role>) {
    match (scope, role) {
        (Scope::Server, role) => member.everywhere = role,
        (Scope::Project(project), Some(role)) => drop(member.projects.insert(project.clone(), role)),
        (Scope::Project(project), None) => drop(member.projects.remove(project)),
    }
}

/// Changes a member's record, unless the change is refused; tried again while others change it.
fn changed(
    records: &Records,
    name: &str,
    at: Timestamp,
    mut change: impl FnMut(Option<Member>) -> Result<Member, MemberError>,
) -> Result<Member, MemberError> {
    let mut refused = None;
    let written = records.try_change(name, at, |before: Option<Member>| match change(before) {
        Ok(member) => Some(member),
        Err(error) => {
            refused = Some(error);
            None
        }
    })?;
    written.ok_or_else(|| refused.unwrap_or_else(|| MemberError::Missing(name.to_owned())))
}

/// The member's name and the secret of what a link holds.
fn parts_of(text: &str) -> Result<(String, &str), MemberError> {
    let (name, secret) = text.split_once('.').ok_or(MemberError::Link)?;
    let name = hex::bytes(name).and_then(|bytes| String::from_utf8(bytes).ok()).filter(|name| is_member_name(name));
    Ok((name.ok_or(MemberError::Link)?, secret))
}

/// What a link holds: the member's name in hexadecimal digits, so that it is a word in any address, and the secret.
fn text_of(name: &str, secret: &str) -> String {
    format!("{}.{secret}", hex::digits(name.as_bytes()))
}
