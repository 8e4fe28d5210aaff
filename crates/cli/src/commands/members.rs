//! `ropewalk member`: the people who may sign in to a server, over its API.

use std::io::stdout;

use api::client::{Client, PageWanted};
use api::member::{Invitation, Member, NewMember, NewRole, Role, Taken};

use super::Stop;
use crate::args::{Colour, ListForm, MemberRole, Members, MembersCommand, Remote};
use crate::columns::{Cell, Columns, Paint};
use crate::remote::{SERVER_VARIABLE, ask, stop, variable};
use crate::{exit, output};

/// Runs the command.
///
/// # Errors
/// If the server cannot be asked or refuses.
pub fn run(arguments: &Members, colour: Colour) -> Result<u8, Stop> {
    let told = match &arguments.command {
        MembersCommand::Add { remote, name, role, project } => {
            let client = remote.client()?;
            let wanted = NewMember { name: name.clone(), role: role_of(*role), project: project.clone() };
            invited(&ask(async { client.member_add(&wanted).await.map_err(stop) })?, remote)
        }
        MembersCommand::Link { remote, name } => {
            let client = remote.client()?;
            invited(&ask(async { client.member_link(name).await.map_err(stop) })?, remote)
        }
        MembersCommand::List { remote, project, output } => {
            let client = remote.client()?;
            let members = ask(all(&client, project.as_deref()))?;
            match output {
                ListForm::Human => table(&members, Paint::of(colour, &stdout())),
                ListForm::Json => format!("{:#}\n", serde_json::to_value(&members).unwrap_or_default()),
            }
        }
        MembersCommand::Role { remote, name, role, project } => {
            let client = remote.client()?;
            let wanted = NewRole { role: role_of(*role), project: project.clone() };
            ask(async { client.member_role(name, &wanted).await.map_err(stop) })?;
            format!("{name} is {} on {} now\n", wanted.role.name(), on(project.as_deref()))
        }
        MembersCommand::Remove { remote, name, project, everywhere } => {
            let client = remote.client()?;
            let taken = match project {
                Some(project) => Taken::Project(project),
                None if *everywhere => Taken::Everywhere,
                None => Taken::All,
            };
            ask(async { client.member_remove(name, taken).await.map_err(stop) })?;
            match taken {
                Taken::Project(project) => format!("{name} has no role on {project} any more\n"),
                Taken::Everywhere => {
                    format!("{name} has no role on every project any more; roles on single ones stay\n")
                }
                Taken::All => format!("{name} is no member any more, and signed out everywhere\n"),
            }
        }
    };
    output::print(told)?;
    Ok(exit::PASSED)
}

fn role_of(role: MemberRole) -> Role {
    match role {
        MemberRole::Reader => Role::Reader,
        MemberRole::Developer => Role::Developer,
        MemberRole::Administrator => Role::Administrator,
    }
}

fn on(project: Option<&str>) -> &str {
    project.unwrap_or("every project")
}

async fn all(client: &Client, project: Option<&str>) -> Result<Vec<Member>, Stop> {
    let mut members = Vec::new();
    let mut wanted = PageWanted::default();
    loop {
        let page = client.member_list(project, &wanted).await.map_err(stop)?;
        members.extend(page.items);
        match page.next {
            Some(next) => wanted.cursor = Some(next),
            None => return Ok(members),
        }
    }
}

/// The link alone on the standard output, so that it can be taken; what to do with it beside.
fn invited(made: &Invitation, remote: &Remote) -> String {
    let server =
        remote.server.clone().or_else(|| variable(SERVER_VARIABLE).map(|it| it.to_string_lossy().into_owned()));
    let server = server.filter(|server| !server.starts_with("unix:")).unwrap_or_default();
    eprintln!(
        "a link for {}, good once, until {}; whoever opens it first is signed in as them:",
        made.member.name,
        made.expires.in_seconds()
    );
    format!("{}{}\n", server.trim_end_matches('/'), made.link)
}

fn table(members: &[Member], paint: Paint) -> String {
    if members.is_empty() {
        return "nobody is a member yet\n".to_owned();
    }
    let mut columns = Columns::default();
    columns.titles(["member", "role", "on", "signed in", "added by"]);
    for member in members {
        let everywhere = member.role.map(|role| (role, on(None)));
        let projects = member.projects.iter().map(|(project, role)| (*role, project.as_str()));
        for (role, on) in everywhere.into_iter().chain(projects) {
            columns.row([
                Cell::new(&member.name),
                Cell::new(role.name()),
                Cell::new(on),
                Cell::right(member.sessions.to_string()),
                Cell::new(&member.by),
            ]);
        }
    }
    columns.text(paint, 0)
}
