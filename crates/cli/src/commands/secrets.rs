//! `ropewalk secrets`: values that jobs of a project on a server get, put and never read.

use std::io::{IsTerminal, Read};

use api::project::SecretValue;

use super::Stop;
use crate::args::{Secrets, SecretsCommand};
use crate::remote::{ask, stop};
use crate::{exit, output};

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
            let names = ask(async { client.secret_list(project).await.map_err(stop) })?.items;
            names.iter().map(|secret| format!("{}\n", secret.name)).collect()
        }
        SecretsCommand::Put { remote, project, name } => {
            let client = remote.client()?;
            let value = SecretValue { value: value(name)? };
            ask(async { client.secret_put(project, name, &value).await.map_err(stop) })?;
            format!("{name} is kept for {project}, sealed; jobs that name it in `secrets` get it\n")
        }
        SecretsCommand::Remove { remote, project, name } => {
            let client = remote.client()?;
            ask(async { client.secret_delete(project, name).await.map_err(stop) })?;
            format!("{name} is gone from {project}\n")
        }
    };
    output::print(told)?;
    Ok(exit::PASSED)
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
