//! The one table of routes: method, path, who may, what goes in, what comes out.
//!
//! The server mounts exactly this table, the OpenAPI document ([`crate::openapi`]) is made of it, and the client's calls
//! are named as its operations; tests hold all three to it. A route that is not here does not exist; a route here cannot
//! be without [`Access`]. **Adding a route:** a line here, a handler under `server/src/http`, a call in
//! [`crate::client`]; `ROPEWALK_ACCEPT=1` writes the document anew.

use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::problem::ProblemKind;
use crate::token::Verb;

mod table;

pub use table::ROUTES;

/// What stands before the path of every route that is versioned.
pub const PREFIX: &str = "/api/v1";
/// The header that makes a POST safe to repeat: the same key and body give the answer that was given before.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The longest idempotency key in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// How long an idempotency key is remembered, in seconds.
pub const IDEMPOTENCY_SECONDS: u64 = 24 * 3600;
/// The header by which a stream goes on where another ended: the `id` of the last object that was seen.
pub const LAST_EVENT_ID: &str = "last-event-id";
/// Names a call; an answer has it, a call may bring its own, and the server's log has it if the fault is the server's own.
pub const REQUEST_ID: &str = "x-request-id";
/// The largest body of a call that has a JSON body, in bytes.
pub const JSON_BYTES_MAX: usize = 1024 * 1024;

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Its name, unique, in snake case: the client's function, the server's handler.
    pub operation: &'static str,
    /// The method.
    pub method: Method,
    /// The path; `{name}` stands for one segment, percent-encoded.
    pub path: &'static str,
    /// Under which heading it is shown.
    pub tag: Tag,
    /// What it does, as a sentence without a full stop.
    pub summary: &'static str,
    /// Who may.
    pub access: Access,
    /// What may stand in the query and in headers.
    pub parameters: &'static [Parameter],
    /// What goes in.
    pub body: Option<Body>,
    /// What comes out when it is done.
    pub answers: &'static [Answer],
    /// How it is refused, besides what holds for every call of its shape ([`Route::refusals`]).
    pub also_refused: &'static [ProblemKind],
}

/// An HTTP method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// Looks.
    Get,
    /// Does something.
    Post,
    /// Puts something in its place; twice is once.
    Put,
    /// Removes something; twice is once.
    Delete,
}

impl Method {
    /// The method's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// A heading under which routes are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tag {
    /// The server itself.
    Server,
    /// Projects and their secrets.
    Projects,
    /// Builds.
    Builds,
    /// Jobs, attempts, tests, artifacts, gates.
    Jobs,
    /// Logs.
    Logs,
    /// Pools.
    Pools,
    /// Workers, as people see them.
    Workers,
    /// Results and directories that are kept.
    Caches,
    /// Tokens and the audit.
    Access,
    /// What workers and senders of files say; not for people.
    Worker,
}

impl Tag {
    /// All of them, in the order shown.
    pub const ALL: [Self; 10] = [
        Self::Server,
        Self::Projects,
        Self::Builds,
        Self::Jobs,
        Self::Logs,
        Self::Pools,
        Self::Workers,
        Self::Caches,
        Self::Access,
        Self::Worker,
    ];

    /// The heading.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Projects => "projects",
            Self::Builds => "builds",
            Self::Jobs => "jobs",
            Self::Logs => "logs",
            Self::Pools => "pools",
            Self::Workers => "workers",
            Self::Caches => "caches",
            Self::Access => "access",
            Self::Worker => "worker",
        }
    }
}

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// Anybody, who may have a token; the call itself looks at who asks.
    Visitor,
    /// Whoever has a token that holds.
    Token,
    /// Whoever has a token that grants this verb on this.
    Grant(Verb, On),
    /// A worker in its session.
    Session,
    /// Whoever has a token that grants `submit` on anything, or a worker in its session.
    Sender,
}

/// What a verb has to be granted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The server as a whole.
    Server,
    /// The project in the path.
    Project,
    /// The pool in the path.
    Pool,
    /// The build in the path, and so its project.
    Build,
    /// What the body names; the call looks into it.
    Body,
    /// Anything; the call gives, or touches, only what the token grants.
    Each,
}

impl On {
    /// The words for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Server => "the whole server",
            Self::Project => "the project",
            Self::Pool => "the pool",
            Self::Build => "the build's project",
            Self::Body => "what the body names",
            Self::Each => "whatever is shown or touched",
        }
    }
}

/// Makes the schema of a type.
pub type Shape = fn(&mut SchemaGenerator) -> Schema;

/// The schema of `T`.
pub fn shape<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A parameter in the query or a header.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Where it stands.
    pub place: Place,
    /// Whether it has to be there.
    pub presence: Presence,
    /// The schema of its value.
    pub shape: Shape,
    /// What it means.
    pub text: &'static str,
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind the `?`.
    Query,
    /// In a header.
    Header,
}

/// Whether a parameter has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has to.
    Required,
    /// It may be absent.
    Optional,
}

/// The body of a call.
#[derive(Clone, Copy, Debug)]
pub struct Body {
    /// Its media type.
    pub media: &'static str,
    /// What it holds.
    pub content: Content,
    /// The most bytes; a larger one is refused before it is read.
    pub bytes_max: u64,
    /// Whether it has to be there.
    pub presence: Presence,
}

/// An answer to a call that was done.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type; empty if there is no body.
    pub media: &'static str,
    /// What it holds.
    pub content: Content,
    /// When it is given.
    pub text: &'static str,
}

/// What a body holds.
#[derive(Clone, Copy, Debug)]
pub enum Content {
    /// Nothing.
    Nothing,
    /// One JSON value of this schema.
    Json(Shape),
    /// JSON whose schema stands elsewhere, not in the document.
    AnyJson,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// A stream without end, one JSON value of this schema a line, or a server-sent event.
    Stream(Shape),
}

/// JSON.
pub const JSON: &str = "application/json";
/// JSON, one value a line.
pub const NDJSON: &str = "application/x-ndjson";
/// Server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";
/// Text in UTF-8.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// A drawing.
pub const SVG: &str = "image/svg+xml";
/// A page of hypertext in UTF-8.
pub const HTML: &str = "text/html; charset=utf-8";
/// Bytes.
pub const BYTES: &str = "application/octet-stream";

impl Route {
    /// The names of the segments that the path leaves open, in order.
    pub fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }

    /// Whether it heeds an idempotency key. What makes a token or opens a shell does not: its
    /// answer is not kept anywhere.
    #[must_use]
    pub fn takes_key(&self) -> bool {
        let is_json = self.body.is_none_or(|body| body.media == JSON);
        self.method == Method::Post
            && is_json
            && matches!(self.access, Access::Grant(..))
            && self.tag != Tag::Worker
            && !matches!(self.operation, "token_create" | "shell_open" | "member_add" | "member_link")
    }

    /// How it may be refused, in order of status, without duplicates.
    #[must_use]
    pub fn refusals(&self) -> Vec<ProblemKind> {
        let mut kinds = self.also_refused.to_vec();
        if self.access != Access::Public {
            kinds.extend([ProblemKind::Unauthorized, ProblemKind::Forbidden, ProblemKind::Unavailable]);
        }
        if matches!(self.access, Access::Session | Access::Sender) {
            kinds.push(ProblemKind::Gone);
        }
        if self.path_parameters().next().is_some() {
            kinds.extend([ProblemKind::Invalid, ProblemKind::NotFound]);
        }
        if !self.parameters.is_empty() {
            kinds.push(ProblemKind::Invalid);
        }
        if self.body.is_some() {
            kinds.extend([ProblemKind::Invalid, ProblemKind::TooLarge, ProblemKind::MediaType]);
        }
        if self.takes_key() {
            kinds.extend([ProblemKind::Invalid, ProblemKind::Conflict]);
        }
        kinds.sort_unstable_by_key(|kind| kind.status());
        kinds.dedup();
        kinds
    }

    /// The route of this operation.
    ///
    /// # Panics
    /// If there is none: operations are named by us.
    #[must_use]
    pub fn of(operation: &str) -> &'static Self {
        ROUTES.iter().find(|route| route.operation == operation).unwrap_or_else(|| {
            panic!("the table of routes has no operation `{operation}`");
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn operations_and_paths_are_unique() {
        let operations: BTreeSet<_> = ROUTES.iter().map(|route| route.operation).collect();
        assert_eq!(operations.len(), ROUTES.len());
        let paths: BTreeSet<_> = ROUTES.iter().map(|route| (route.path, route.method)).collect();
        assert_eq!(paths.len(), ROUTES.len());
    }

    #[test]
    fn what_is_public_is_named_here() {
        let public: Vec<_> =
            ROUTES.iter().filter(|route| route.access == Access::Public).map(|route| route.operation).collect();
        assert_eq!(public, ["health", "ready", "openapi", "setup_page", "setup", "member_join"]);
    }

    #[test]
    fn targets_stand_in_the_path() {
        for route in ROUTES {
            let Access::Grant(_, on) = route.access else { continue };
            let wanted = match on {
                On::Project => "project",
                On::Pool => "pool",
                On::Build => "build",
                On::Server | On::Body | On::Each => continue,
            };
            assert!(route.path_parameters().any(|name| name == wanted), "{} names no {wanted}", route.operation);
        }
    }

    #[test]
    fn looking_changes_nothing() {
        for route in ROUTES {
            if route.method == Method::Get {
                assert!(route.body.is_none(), "{}", route.operation);
            } else if let Access::Grant(verb, _) = route.access {
                assert_ne!(verb, Verb::Read, "{} changes something by the verb `read`", route.operation);
            }
        }
    }
}
