//! The client: one function for each operation of the table of routes.
//!
//! A call is repeated by itself only where that is safe: looking, putting and removing always, a POST under its
//! idempotency key, which every one has. Streams go on by themselves where they broke off. Nothing here asks again and
//! again whether something has happened.

mod blobs;
mod calls;
mod error;
mod log;
mod request;
mod shell;
mod stream;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use blobs::{Content, Parcel};
pub use calls::{AuditWanted, JobsWanted, PageWanted, TestWanted, TestsWanted};
pub use error::ClientError;
pub use log::{LogBytes, LogItems, LogWanted};
pub use shell::Frames;
pub use stream::{Logs, Moments, Told};
pub use worker::Session;

/// How long a connection may take to be made.
pub const CONNECT_MS_MAX: u64 = 10_000;
/// How often a call is repeated that may be, before its failure is told.
pub const REPEATS_MAX: u32 = 4;
/// The wait before the first repetition; doubled each time.
pub const REPEAT_MS: u64 = 50;
/// The longest wait before a repetition.
pub const REPEAT_MS_MAX: u64 = 1_000;
/// How long a call of somebody who is told that it is late is repeated while no server can take it: longer than another one needs to lead.
pub const UNLED_MS_MAX: u64 = 15_000;
/// The longest wait before a stream is taken up again.
pub const RESUME_MS_MAX: u64 = 5_000;
/// A call that has not succeeded after this time is late.
pub const LATE_MS: u64 = 2_000;
/// The largest answer that is taken into memory.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// An address: `http://HOST:PORT`, `https://HOST`, with a path before the API's own if a proxy puts it there.
    Url(String),
    /// A socket of this machine.
    Socket(PathBuf),
}

impl Server {
    /// What people write: an address, or `unix:/path/of/socket`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("unix:") {
            Some(path) => Self::Socket(PathBuf::from(path.strip_prefix("//").unwrap_or(path))),
            None => Self::Url(text.trim_end_matches('/').to_owned()),
        }
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Calls one server with one token. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// What stands before every path.
    base: Arc<str>,
    /// As people know it.
    server: Arc<Server>,
    token: Arc<str>,
    tell_late: Option<TellLate>,
}

/// A call that has not succeeded within [`LATE_MS`] and is waited for further.
#[derive(Debug)]
pub struct Late<'a> {
    /// Who is called.
    pub server: &'a Server,
    /// What became of the last try, if it is not the first.
    pub failed: Option<&'a ClientError>,
}

/// Tells people of a call that is late.
pub type TellLate = fn(&Late<'_>);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Client {
    /// A client for `server`, whose calls have this token; without one (empty) only what is public answers.
    ///
    /// # Errors
    /// [`ClientError::Address`].
    pub fn new(server: Server, token: &str) -> Result<Self, ClientError> {
        // The first to say so decides for the process; that somebody did is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = |why: String| ClientError::Address { server: server.to_string(), why };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("ropewalk/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_millis(CONNECT_MS_MAX))
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none());
        let base = match &server {
            Server::Url(url) => {
                let neither = || address("it begins with neither http:// nor https://".to_owned());
                if !url.contains("://") {
                    return Err(neither());
                }
                let parsed = reqwest::Url::parse(url).map_err(|error| address(error.to_string()))?;
                if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
                    return Err(neither());
                }
                url.trim_end_matches('/').to_owned()
            }
            Server::Socket(path) => {
                builder = builder.unix_socket(path.clone());
                "http://localhost".to_owned()
            }
        };
        let http = builder.build().map_err(|error| address(error.to_string()))?;
        Ok(Self { http, base: base.into(), server: server.into(), token: token.trim().into(), tell_late: None })
    }

    /// The same server and connections, another token: that of a worker's session, for instance.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.trim().into(), ..self.clone() }
    }

    /// The same, but each call that is late is told of, once. Large bodies and streams take their time, and are not.
    #[must_use]
    pub fn telling(self, late: TellLate) -> Self {
        Self { tell_late: Some(late), ..self }
    }

    /// The server, as it was given.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }
}
