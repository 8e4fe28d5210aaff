//! Asking a server over its API: which server, with which token, and what to say when it refuses.

use std::ffi::OsString;
use std::future::Future;

use api::client::{Client, ClientError, Server};

use crate::args::Remote;
use crate::commands::Stop;

/// Names the server where no flag does.
pub const SERVER_VARIABLE: &str = "ROPEWALK_SERVER";
/// Names the file of the token where no flag does.
pub const TOKEN_VARIABLE: &str = "ROPEWALK_TOKEN_FILE";
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
        let server = match (&self.server, variable(SERVER_VARIABLE)) {
            (Some(server), _) => server.clone(),
            (None, Some(server)) => server.to_string_lossy().into_owned(),
            (None, None) => {
                return Err(Stop::wrong(format!("which server? Give it by --server URL, or in ${SERVER_VARIABLE}")));
            }
        };
        let file = match (&self.token, variable(TOKEN_VARIABLE)) {
            (Some(file), _) => file.clone(),
            (None, Some(file)) => file.into(),
            (None, None) => {
                return Err(Stop::wrong(format!(
                    "a token is needed: name its file by --token FILE, or in ${TOKEN_VARIABLE}"
                )));
            }
        };
        let refused = |error: std::io::Error| Stop::wrong(format!("cannot read the token {}: {error}", file.display()));
        if std::fs::metadata(&file).map_err(refused)?.len() > TOKEN_FILE_BYTES_MAX {
            return Err(Stop::wrong(format!("{} is too large for a token", file.display())));
        }
        let token = std::fs::read_to_string(&file).map_err(refused)?;
        if token.trim().is_empty() {
            let file = file.display();
            return Err(Stop::wrong(format!(
                "{file} is empty: it has to hold a token, as `ropewalk token create` prints it"
            )));
        }
        Client::new(Server::parse(&server), &token).map_err(stop)
    }
}

/// The refusal as the user reads it, with what to do.
pub fn stop(error: ClientError) -> Stop {
    let help = error.help();
    let mut stop = Stop::of(&error);
    if !help.is_empty() {
        stop.message.push_str(&format!("; {help}"));
    }
    if error.problem().is_some_and(|problem| problem.status < 500) {
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
