//! `ropewalk token`: grants with a secret. Making and revoking are done on the server's machine, narrowing and reading
//! anywhere.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::Write;
use std::path::Path;

use graph::{BuildId, Timestamp};
use server::access::{
    GrantRequest, Inspected, Narrowing, Subject, SubjectKind, TokenError, TokenRow, Verb, inspect, narrow,
};
use server::parts::{Places, next_of};
use server::settings::OnOff;
use store::audit::AuditEntry;
use store::{Store, StoreError};

use super::Stop;
use crate::args::{
    Colour, ListForm, Token, TokenAttenuate, TokenCommand, TokenCreate, TokenInspect, TokenList, TokenRevoke,
};
use crate::calendar::Calendar;
use crate::columns::{Cell, Columns, Paint, Style};
use crate::installation::IfNone;
use crate::local::clock::now;
use crate::remote::{IS_TOKEN, is_token, token_in, token_of};
use crate::{exit, output};

/// Who made or revoked a token, where its row says so.
const BY: &str = "the server's machine";

/// How much of a token's id stands for its holder.
const SHORT_ID: usize = 8;

/// Runs the command.
///
/// # Errors
/// If there is no such installation or token, or what was asked makes no sense.
pub fn run(arguments: &Token, colour: Colour) -> Result<u8, Stop> {
    match &arguments.command {
        TokenCommand::Create(create) => self::create(create, colour)?,
        TokenCommand::Attenuate(attenuate) => self::attenuate(attenuate)?,
        TokenCommand::Inspect(inspect) => say(inspect)?,
        TokenCommand::Revoke(revoke) => self::revoke(revoke, colour)?,
        TokenCommand::List(list) => self::list(list, colour)?,
    }
    Ok(exit::PASSED)
}

fn create(arguments: &TokenCreate, colour: Colour) -> Result<(), Stop> {
    let (kind, verbs) = if arguments.worker {
        (SubjectKind::Worker, BTreeSet::from([Verb::Work]))
    } else if arguments.submit {
        (SubjectKind::Client, BTreeSet::from([Verb::Read, Verb::Submit, Verb::Control]))
    } else if arguments.admin {
        (SubjectKind::Person, BTreeSet::from([Verb::Admin]))
    } else {
        (SubjectKind::Person, verbs(&arguments.verbs)?)
    };
    if arguments.worker && !arguments.projects.is_empty() {
        return Err(Stop::wrong(
            "a worker takes jobs of every project: leave --project out, and give it a pool of its own by --pool",
        ));
    }
    let id = server::parts::fresh_id();
    // Who was given no name is known by the token.
    let default = if arguments.worker { "worker".to_owned() } else { format!("token {}", &id[..SHORT_ID]) };
    let name = arguments.client.as_deref().or(arguments.name.as_deref()).unwrap_or(&default);
    if name.is_empty() || name.len() > 200 || name.chars().any(char::is_control) {
        return Err(Stop::wrong("a name has 1 to 200 characters, none of them a control character"));
    }
    let some = |names: &[String]| (!names.is_empty()).then(|| names.iter().map(|name| pool_name(name)).collect());
    let grant = GrantRequest {
        subject: Subject { kind, name: name.to_owned() },
        verbs,
        projects: (!arguments.projects.is_empty()).then(|| arguments.projects.iter().cloned().collect()),
        pools: some(&arguments.pools),
        until: arguments.until.as_deref().map(until).transpose()?,
    };
    let (access, store) = arguments.installation.access(IfNone::BeginInEmpty, colour)?;
    if arguments.submit {
        refuse_second(&access, name)?;
    }
    note(&*store, "token_create", &id, format!("for {}", grant.subject))?;
    let text = access.create(&id, grant, BY, now()).map_err(|error| refused(&error))?;
    let settings = arguments.installation.settings(&[], colour)?.settings;
    // A flag may keep it away, too: then it has no folder.
    let has_worked = Places::of(&arguments.installation.folder()).local_worker().exists();
    if arguments.submit && settings.local_worker == OnOff::On && has_worked {
        let _ = writeln!(std::io::stderr(), "note: {}", super::doctor::HOST_JOBS);
    }
    output::print(format!("{text}\n"))
}

/// Notes what is about to be done to a token here, under the word that it has over HTTP: nothing is done that is not noted.
fn note(store: &dyn Store, verb: &str, token: &str, detail: String) -> Result<(), Stop> {
    let user = rustix::process::getuid().as_raw();
    let entry = AuditEntry {
        at: now(),
        who: std::env::var("USER").map_or_else(|_| format!("user {user}"), |name| format!("user {user}, {name}")),
        verb: verb.to_owned(),
        target: format!("token {token}"),
        from: BY.to_owned(),
        detail,
        ..AuditEntry::default()
    };
    store.append_audit(&entry).map(drop).map_err(|error| refused(&error))
}

/// What the server's records refuse, with what to do about them: they are not those of this machine's own builds.
fn refused(error: &(dyn Error + 'static)) -> Stop {
    let mut stop = Stop::of(error);
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(store) = error.downcast_ref::<StoreError>() {
            stop.message.push_str(&format!("; {}", next_of(store)));
            break;
        }
        cause = error.source();
    }
    stop
}

/// A client has one token, so that revoking it is the end of it.
fn refuse_second(access: &server::access::Access, name: &str) -> Result<(), Stop> {
    let rows = rows(access)?;
    let now = now();
    let is_good = |row: &TokenRow| row.revoked.is_none() && row.grant.until.is_none_or(|until| until > now);
    let earlier =
        rows.iter().find(|row| row.subject().kind == SubjectKind::Client && row.subject().name == name && is_good(row));
    match earlier {
        None => Ok(()),
        Some(row) => Err(Stop::wrong(format!(
            "the client {name} has a token already, {id}: `ropewalk token revoke {id}` ends it, then make a new one",
            id = row.id
        ))),
    }
}

fn rows(access: &server::access::Access) -> Result<Vec<TokenRow>, Stop> {
    let mut rows: Vec<TokenRow> = Vec::new();
    loop {
        let page = access.ledger().list(rows.last().map(|row| row.id.as_str())).map_err(|error| refused(&error))?;
        if page.is_empty() {
            return Ok(rows);
        }
        rows.extend(page);
    }
}

/// The default pool has the empty name, which nobody can type.
pub fn pool_name(name: &str) -> String {
    if name == "default" { String::new() } else { name.to_owned() }
}

/// A pool as people know it.
pub fn shown_pool(name: &str) -> &str {
    if name.is_empty() { "default" } else { name }
}

/// Verbs as people read them. One of them brings all others with it, named or not.
fn shown_verbs<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.contains(&Verb::Admin.name()) { "every one (admin)".to_owned() } else { names.join(", ") }
}

fn verbs(names: &[String]) -> Result<BTreeSet<Verb>, Stop> {
    let all = Verb::ALL.map(Verb::name);
    names
        .iter()
        .map(|name| {
            Verb::from_name(name).ok_or_else(|| {
                Stop::wrong(format!("there is no verb `{name}`; {}", dialects::suggest::did_you_mean(name, &all)))
            })
        })
        .collect()
}

/// A point in time to come: a duration from now, or the time itself.
fn until(text: &str) -> Result<Timestamp, Stop> {
    let (at, now) = (moment(text)?, now());
    match at > now {
        true => Ok(at),
        false => Err(Stop::wrong(format!("`{text}` is over: the token would be refused at once; give a time to come"))),
    }
}

fn moment(text: &str) -> Result<Timestamp, Stop> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(Timestamp(at.as_microsecond()));
    }
    let days = |days: &str| days.parse::<u64>().ok().map(|days| days * 86_400_000);
    let millis = match text.strip_suffix('d').and_then(days) {
        Some(millis) => Some(millis),
        None => <server::settings::Millis as server::settings::Setting>::parse(text).ok().map(|millis| millis.0),
    };
    let millis = millis.ok_or_else(|| {
        Stop::wrong(format!(
            "`{text}` is no time: write a duration such as 12h or 30d, or a time such as 2026-12-31T00:00:00Z"
        ))
    })?;
    Ok(now().plus_ms(millis))
}

/// The token of a file, or of standard input if that is `-`.
fn read(path: &Path) -> Result<String, Stop> {
    if path == Path::new("-") { token_of(std::io::stdin(), "standard input") } else { token_in(path) }
}

/// What is wrong with the token of a file.
fn wrong(file: &Path, error: &TokenError) -> Stop {
    Stop::wrong(format!("{}: {error}", file.display()))
}

fn attenuate(arguments: &TokenAttenuate) -> Result<(), Stop> {
    let narrowing = Narrowing {
        verbs: verbs(&arguments.verbs)?,
        projects: arguments.projects.iter().cloned().collect(),
        pools: arguments.pools.iter().map(|name| pool_name(name)).collect(),
        builds: arguments.builds.iter().copied().map(BuildId).collect(),
        until: arguments.until.as_deref().map(until).transpose()?,
    };
    if narrowing.is_empty() {
        return Err(Stop::wrong("say what to limit the token to: --verb, --project, --pool, --build or --until"));
    }
    let file = &arguments.token;
    let text = read(file)?;
    let said = inspect(&text).map_err(|error| wrong(file, &error))?;
    let text = narrow(&text, &narrowing).map_err(|error| wrong(file, &error))?;
    for nothing in left_empty(&said, &narrowing) {
        let _ = writeln!(std::io::stderr(), "warning: the new token can do nothing: {nothing}");
    }
    output::print(format!("{text}\n"))
}

/// Of what the narrowing leaves nothing that the token grants, for people.
fn left_empty(said: &Inspected, narrowing: &Narrowing) -> Vec<String> {
    let granted = |name: &str| said.grants.get(name).map(Vec::as_slice).unwrap_or_default();
    let (verbs, projects) = (granted("verb"), granted("project"));
    let has_verb = |verb: &Verb| verbs.iter().any(|name| name == verb.name() || name == Verb::Admin.name());
    let verbs_left = narrowing.verbs.is_empty() || verbs.is_empty() || narrowing.verbs.iter().any(has_verb);
    let has_project = |project: &String| projects.contains(project);
    let projects_left =
        narrowing.projects.is_empty() || projects.is_empty() || narrowing.projects.iter().any(has_project);
    let names = |names: &[String]| names.join(", ");
    let found = [("verb", verbs_left, verbs), ("project", projects_left, projects)];
    found
        .into_iter()
        .filter(|(_, is_left, _)| !is_left)
        .map(|(what, _, granted)| format!("the old one grants no {what} but {}", names(granted)))
        .collect()
}

fn say(arguments: &TokenInspect) -> Result<(), Stop> {
    let file = &arguments.token;
    let said = inspect(&read(file)?).map_err(|error| wrong(file, &error))?;
    let text = match arguments.output {
        ListForm::Json => format!("{:#}\n", serde_json::to_value(&said).unwrap_or_default()),
        ListForm::Human => in_words(&said, now()),
    };
    output::print(text)
}

fn in_words(said: &Inspected, now: Timestamp) -> String {
    let all = |name: &str| said.grants.get(name).map(|values| values.join(", "));
    let pools =
        said.grants.get("pool").map(|names| names.iter().map(|name| shown_pool(name)).collect::<Vec<_>>().join(", "));
    let rows = [
        ("id", all("id")),
        ("holder", said.subject().map(|subject| subject.to_string())),
        ("verbs", said.grants.get("verb").map(|names| shown_verbs(names.iter().map(String::as_str)))),
        ("projects", all("project").or_else(|| all("every_project").map(|_| "every one".to_owned()))),
        ("pools", pools.or_else(|| all("every_pool").map(|_| "every one".to_owned()))),
        ("limits", (!said.checks.is_empty()).then(|| said.checks.join("; "))),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        text.push_str(&format!("{name:<10}{}\n", value.unwrap_or_else(|| "-".to_owned())));
    }
    for narrowed in &said.narrowed {
        text.push_str(&format!("{:<10}{}\n", "narrowed", narrowed.join("; ")));
    }
    if let Some(ended) = said.ends.filter(|ends| *ends <= now) {
        text.push_str(&format!(
            "It came to its end at {}: the server refuses it.\n",
            api::time::Time(ended).in_seconds()
        ));
    }
    text.push_str("Only the server can tell whether it is genuine and not revoked.\n");
    text
}

fn revoke(arguments: &TokenRevoke, colour: Colour) -> Result<(), Stop> {
    let (access, store) = arguments.installation.access(IfNone::Refuse, colour)?;
    let (id, narrowing) = match (&arguments.id, &arguments.token) {
        (Some(id), _) if is_token(id.as_ref()) => {
            return Err(Stop::wrong(format!("the id of a token is wanted, {IS_TOKEN}, and name that by --token FILE")));
        }
        (Some(id), _) => (id.clone(), None),
        (None, Some(file)) => {
            let said = inspect(&read(file)?).map_err(|error| wrong(file, &error))?;
            let narrowing = said.revocation.last().filter(|_| said.revocation.len() > 1).cloned();
            (said.grant("id").unwrap_or_default().to_owned(), narrowing)
        }
        (None, None) => unreachable!("one of them is required"),
    };
    if access.ledger().token(&id).map_err(|error| refused(&error))?.is_none() {
        return Err(Stop::wrong(format!("there is no token {id}: `ropewalk token list` shows all")));
    }
    let (what, detail) = match &narrowing {
        Some(narrowing) => (format!("this narrowing of {id}"), format!("its narrowing {narrowing}")),
        None => (id.clone(), String::new()),
    };
    note(&*store, "token_revoke", &id, detail)?;
    match &narrowing {
        Some(narrowing) => access.ledger().revoke_narrowing(narrowing, now()),
        None => access.revoke(&id, BY, now()).map(drop),
    }
    .map_err(|error| refused(&error))?;
    let _ = writeln!(std::io::stderr(), "revoked {what}, with all that was narrowed from it");
    Ok(())
}

fn list(arguments: &TokenList, colour: Colour) -> Result<(), Stop> {
    let rows = rows(&arguments.installation.access(IfNone::Refuse, colour)?.0)?;
    if arguments.output == ListForm::Json {
        return output::print(format!("{:#}\n", serde_json::to_value(&rows).unwrap_or_default()));
    }
    if rows.is_empty() {
        return output::print("no token has been made: `ropewalk token create` makes one\n");
    }
    let calendar = Calendar::system();
    let mut columns = Columns::default();
    columns.titles(["id", "holder", "verbs", "projects", "pools", "made", "state"]);
    for row in &rows {
        let names = |names: &Option<BTreeSet<String>>| match names {
            None => "every one".to_owned(),
            Some(names) => names.iter().map(|name| shown_pool(name)).collect::<Vec<_>>().join(", "),
        };
        let state = match (&row.revoked, row.grant.until) {
            (Some(_), _) => Cell::new("revoked").style(Style::Dim),
            (None, Some(until)) if until < calendar.now => Cell::new("over").style(Style::Dim),
            (None, Some(until)) => Cell::new(format!("until {}", calendar.moment(until))),
            (None, None) => Cell::new("good"),
        };
        columns.row([
            Cell::new(&row.id),
            Cell::new(row.subject().to_string()),
            Cell::new(shown_verbs(row.grant.verbs.iter().map(|verb| verb.name()))),
            Cell::new(names(&row.grant.projects)),
            Cell::new(names(&row.grant.pools)),
            Cell::new(calendar.age(row.created)),
            state,
        ]);
    }
    output::print(columns.text(Paint::of(colour, &std::io::stdout()), 0))
}

#[cfg(test)]
mod tests {
    use server::access::LedgerError;
    use store::{Fault, FaultyStore, MemoryStore};

    use super::*;

    #[test]
    fn a_full_disk_is_the_servers() {
        let full = FaultyStore::with_plan(MemoryStore::new(), |_| Some(Fault::Full), || ());
        let noted = note(&full, "token_create", "id", String::new()).expect_err("no room");
        let listed = refused(&LedgerError::Store(StoreError::Full("no room".into())));
        for stop in [noted, listed] {
            assert!(stop.message.ends_with("; make room on its disk"), "{}", stop.message);
        }
    }

    #[test]
    fn an_end_that_has_come_is_told() {
        let said = Inspected { ends: Some(Timestamp(978_307_200_000_000)), ..Inspected::default() };
        assert!(
            in_words(&said, now()).contains("\nIt came to its end at 2001-01-01T00:00:00Z: the server refuses it.\n")
        );
    }

    #[test]
    fn a_narrowing_that_leaves_nothing_is_told() {
        let granting = |grants: &[(&str, &[&str])]| {
            let own = |names: &&[&str]| names.iter().map(|&name| name.to_owned()).collect();
            let grants = grants.iter().map(|(name, values)| ((*name).to_owned(), own(values))).collect();
            Inspected { grants, ..Inspected::default() }
        };
        let check = |said: &Inspected, verbs: &[Verb], projects: &[&str], expected: &[&str]| {
            let projects = projects.iter().map(|&project| project.to_owned()).collect();
            let narrowing = Narrowing { verbs: verbs.iter().copied().collect(), projects, ..Narrowing::default() };
            assert_eq!(left_empty(said, &narrowing), expected);
        };
        let said = granting(&[("verb", &["read", "submit"]), ("project", &["sails"])]);
        check(&said, &[Verb::Read, Verb::Control], &["sails", "ropes"], &[]);
        check(&said, &[Verb::Control], &[], &["the old one grants no verb but read, submit"]);
        check(&said, &[], &["ropes"], &["the old one grants no project but sails"]);
        let all = granting(&[("verb", &["admin"]), ("every_project", &[])]);
        check(&all, &[Verb::Read], &["ropes"], &[]);
    }
}
