//! Asking a server over its API: which server, with which token, and what to say when it refuses.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;

use api::client::{Client, ClientError, LATE_MS, Late, Server};
use api::problem::ProblemKind;

use crate::args::Remote;
use crate::commands::Stop;

/// Names the server where no flag does.
pub const SERVER_VARIABLE: &str = "ROPEWALK_SERVER";
/// Names the file of the token where no flag does.
pub const TOKEN_VARIABLE: &str = "ROPEWALK_TOKEN_FILE";
/// The longest name of a file in a folder (`NAME_MAX`).
const FILE_NAME_BYTES_MAX: usize = 255;
/// The largest file of a token.
const TOKEN_FILE_BYTES_MAX: u64 = 64 * 1024;

/// What a variable holds, if it is not empty.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

impl Remote {
    /// The client.
    ///
    /// # Errors
    /// If no server or token is named, or the token's file cannot be read.
    pub fn client(&self) -> Result<Client, Stop> {
        let server = server_named(self.server.as_deref())?;
        let token = token_in(&token_file(self.token.as_deref())?)?;
        Client::new(Server::parse(&server), &token).map(|client| client.telling(tell_late)).map_err(stop)
    }
}

/// Says, once, that the server is waited for.
fn tell_late(late: &Late<'_>) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| drop(writeln!(std::io::stderr(), "note: {}", late_words(late))));
}

fn late_words(late: &Late<'_>) -> String {
    let Some(error) = late.failed else {
        return format!("{} has not answered for {} s; waiting (Ctrl-C ends it)", late.server, LATE_MS / 1000);
    };
    format!("{} does not take it yet: {}; trying on (Ctrl-C ends it)", late.server, Stop::of(error).message)
}

/// The server that a flag or the variable names.
///
/// # Errors
/// If none does.
pub fn server_named(flag: Option<&str>) -> Result<String, Stop> {
    let named = flag.map(str::to_owned);
    let named = named.or_else(|| Some(variable(SERVER_VARIABLE)?.to_string_lossy().into_owned()));
    named.ok_or_else(|| Stop::wrong(format!("which server? Give it by --server URL, or in ${SERVER_VARIABLE}")))
}

/// The file of the token that a flag or the variable names.
///
/// # Errors
/// If none does.
pub fn token_file(flag: Option<&Path>) -> Result<PathBuf, Stop> {
    let named = flag.map(Path::to_owned).or_else(|| Some(variable(TOKEN_VARIABLE)?.into()));
    named.ok_or_else(|| {
        Stop::wrong(format!("a token is needed: name its file by --token FILE, or in ${TOKEN_VARIABLE}"))
    })
}

/// The token that a file holds.
///
/// # Errors
/// If it cannot be read, is empty, or is too large for a token.
pub fn token_in(file: &Path) -> Result<String, Stop> {
    let name = file.display();
    let opened = File::open(file).map_err(|error| match is_token(file.as_os_str()) {
        true => Stop::wrong(format!("the name of a token's file is wanted, {IS_TOKEN}, and name that")),
        false => Stop::wrong(format!("cannot read the token {name}: {error}")),
    })?;
    token_of(opened, &name.to_string())
}

/// What to do with a token that stands where something else does; it is not said again.
pub const IS_TOKEN: &str = "and this is a token itself: write it to a file that only you can read";

/// Whether what should name something is a token, or what else is too long for the name of a file.
pub fn is_token(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes.len() > FILE_NAME_BYTES_MAX && !bytes.contains(&b'/')
        || name.to_str().is_some_and(|name| server::access::inspect(name).is_ok())
}

/// The token that is read from there; people know it by `name`.
///
/// # Errors
/// As [`token_in`].
pub fn token_of(from: impl Read, name: &str) -> Result<String, Stop> {
    let mut text = String::new();
    let read = from.take(TOKEN_FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| Stop::wrong(format!("cannot read the token {name}: {error}")))?;
    if text.len() as u64 > TOKEN_FILE_BYTES_MAX {
        return Err(Stop::wrong(format!("{name} is too large for a token")));
    }
    if text.trim().is_empty() {
        return Err(Stop::wrong(format!(
            "{name} is empty: it has to hold a token, as `ropewalk token create` prints it"
        )));
    }
    Ok(text)
}

/// What to do about an error, as a sentence; empty if nobody knows. Who has this program names a token by its file.
pub fn help(error: &ClientError) -> String {
    if error.is(ProblemKind::Unauthorized) {
        return format!("name another by --token FILE, or in ${TOKEN_VARIABLE}; `ropewalk token create` makes one");
    }
    error.help()
}

/// The refusal as the user reads it, with what to do.
pub fn stop(error: ClientError) -> Stop {
    let help = help(&error);
    let mut stop = Stop::of(&error);
    if !help.is_empty() {
        stop.message.push_str(&format!("; {help}"));
    }
    if matches!(error, ClientError::Address { .. }) || error.problem().is_some_and(|problem| problem.status < 500) {
        stop.code = crate::exit::WRONG;
    }
    stop
}

/// Does one thing that waits for a server.
///
/// # Errors
/// As `work` fails.
pub fn ask<T>(work: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::infra(format!("could not start: {error}")))?;
    runtime.block_on(work)
}
