//! `ropewalk secrets`: values that jobs of a project on a server get, put and never read.

use std::io::{IsTerminal, Read};

use api::client::{Client, PageWanted};
use api::page::LIMIT_MAX;
use api::problem::ProblemKind;
use api::project::SecretValue;
use dialects::suggest;

use super::Stop;
use crate::args::{Secrets, SecretsCommand};
use crate::keeping::unmasked;
use crate::remote::{ask, stop};
use crate::whereabouts::quoted;
use crate::{exit, output, words};

/// The largest value.
const VALUE_BYTES_MAX: u64 = 64 * 1024;

/// Runs the command.
///
/// # Errors
/// If the server cannot be asked or refuses, or there is no value.
pub fn run(arguments: &Secrets) -> Result<u8, Stop> {
    let told = match &arguments.command {
        SecretsCommand::List { remote, project } => {
            let client = remote.client()?;
            let names = names(&client, project)?;
            match names.is_empty() {
                true => format!("{project} has no secrets: `ropewalk secrets put {} NAME` puts one\n", quoted(project)),
                false => names.iter().map(|name| format!("{name}\n")).collect(),
            }
        }
        SecretsCommand::Put { remote, project, name, new } => {
            let client = remote.client()?;
            if !new {
                demand(&client, project)?;
            }
            let value = SecretValue { value: value(name)? };
            ask(async { client.secret_put(project, name, &value).await.map_err(stop) })?;
            if let Some(unmasked) = unmasked([(name, &value.value)]) {
                eprintln!("note: {unmasked}");
            }
            format!("{name} is kept for {project}, sealed; jobs that name it in `secrets` get it\n")
        }
        SecretsCommand::Remove { remote, project, name } => {
            let client = remote.client()?;
            let names = names(&client, project)?;
            if !names.contains(name) {
                let nearest = nearest(name, names.iter().map(String::as_str));
                return Err(Stop::wrong(format!("{project} has no secret `{}`{nearest}", words::harmless(name))));
            }
            ask(async { client.secret_delete(project, name).await.map_err(stop) })?;
            format!("{name} is gone from {project}\n")
        }
    };
    output::print(told)?;
    Ok(exit::PASSED)
}

/// The names of a project's secrets.
fn names(client: &Client, project: &str) -> Result<Vec<String>, Stop> {
    let secrets = ask(async { client.secret_list(project).await.map_err(stop) })?.items;
    Ok(secrets.into_iter().map(|secret| secret.name).collect())
}

/// Refuses a project that the server has not: a slip of the pen would make one.
fn demand(client: &Client, project: &str) -> Result<(), Stop> {
    ask(async {
        let Err(error) = client.project_get(project).await else { return Ok(()) };
        if !error.is(ProblemKind::NotFound) {
            return Err(stop(error));
        }
        let page = PageWanted { limit: Some(LIMIT_MAX), cursor: None };
        let known = client.project_list(&page).await.map(|page| page.items).unwrap_or_default();
        let nearest = nearest(project, known.iter().map(|project| project.name.as_str()));
        let project = words::harmless(project);
        Err(Stop::wrong(format!(
            "the server has no project `{project}`{nearest}; `--new` puts the secret before its first build"
        )))
    })
}

/// The name that was meant, as a question after another one.
fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> String {
    suggest::nearest(name, names).map_or_else(String::new, |nearest| format!(": did you mean `{nearest}`?"))
}

/// The value from standard input, without the line end that `echo` adds.
fn value(name: &str) -> Result<String, Stop> {
    let mut text = String::new();
    if std::io::stdin().is_terminal() {
        eprintln!("type the value of {name}, then Ctrl-D:");
    }
    std::io::stdin()
        .take(VALUE_BYTES_MAX + 2)
        .read_to_string(&mut text)
        .map_err(|error| Stop::wrong(format!("cannot read the value from standard input: {error}")))?;
    let value = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if value.is_empty() || value.len() as u64 > VALUE_BYTES_MAX {
        return Err(Stop::wrong(format!("a secret has 1 to {VALUE_BYTES_MAX} bytes; pipe it: `printf %s VALUE | …`")));
    }
    Ok(value.to_owned())
}
