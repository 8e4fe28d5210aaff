//! Why a call was not done, and what to do.

use crate::problem::{Problem, ProblemKind};

/// Why a call was not done, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server's address is none.
    #[error("`{server}` is not the address of a server: {why}")]
    Address {
        /// What was given.
        server: String,
        /// What is wrong with it.
        why: String,
    },
    /// No connection was made.
    #[error("cannot reach the server {server}")]
    Unreachable {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke; whether the call was done is unknown.
    #[error("the connection to {server} broke")]
    Broken {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server refused.
    #[error("the server refused: {0}")]
    Refused(Box<Problem>),
    /// Something answered that is no Ropewalk server, or one that speaks another language.
    #[error("{server} answered with status {status}, not as a Ropewalk server does{}", shown(text))]
    Foreign {
        /// The server.
        server: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of what it said.
        text: String,
    },
    /// The answer is not what this client understands.
    #[error("the answer to `{operation}` cannot be read")]
    Unreadable {
        /// Which call.
        operation: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// What was to be sent could not be read on this side.
    #[error("cannot read what is to be sent")]
    Body(#[source] std::io::Error),
}

fn shown(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

impl ClientError {
    /// What to do about it, as a sentence; empty if nobody knows.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Address { server, .. } if !server.is_empty() && !server.contains("://") => {
                format!("write http://{server}, or https://{server} if it is behind TLS")
            }
            Self::Address { .. } => "give it as http://HOST:PORT, https://HOST or unix:/PATH/OF/SOCKET".to_owned(),
            Self::Unreachable { server, .. } => {
                format!("see whether the server runs (`ropewalk serve`) and whether {server} is its address")
            }
            Self::Broken { .. } => "try again; a call under the same idempotency key is done once".to_owned(),
            Self::Refused(problem) => problem.help.clone(),
            Self::Foreign { .. } => "see whether this is the address of a Ropewalk server".to_owned(),
            Self::Unreadable { .. } => {
                "the server may be newer than this program: `ropewalk --version`, and the server's `/api/v1/version`"
                    .to_owned()
            }
            Self::Body(_) => String::new(),
        }
    }

    /// The server's refusal, if it is one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }

    /// Whether the server refused so.
    #[must_use]
    pub fn is(&self, kind: ProblemKind) -> bool {
        self.problem().and_then(Problem::known_kind) == Some(kind)
    }

    /// Whether the same call may succeed a little later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Refused(problem) => matches!(problem.status, 429 | 503),
            Self::Foreign { status, .. } => matches!(status, 502..=504),
            Self::Address { .. } | Self::Unreadable { .. } | Self::Body(_) => false,
        }
    }

    /// Whether the server says that it cannot take the call now.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.status == 503)
    }
}
