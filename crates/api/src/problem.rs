//! Why a call was not done: `application/problem+json` (RFC 9457), with what to do.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The media type of every answer that is a refusal.
pub const MEDIA_TYPE: &str = "application/problem+json";
/// What stands before a problem's word in [`Problem::kind`].
pub const KIND_PREFIX: &str = "urn:ropewalk:problem:";

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Which kind, for programs: `urn:ropewalk:problem:` and a word that does not change, such as `not-found`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this call, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What to do about it, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
    /// Names this call; the server's log has it if the fault is the server's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
    /// What is wrong with which field or parameter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldProblem>,
    /// What went wrong within, for the log of whoever refuses: never sent.
    #[serde(skip)]
    pub cause: String,
}

/// What is wrong with one field or parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldProblem {
    /// Its name; of something within the body, with dots.
    pub name: String,
    /// What is wrong with it.
    pub detail: String,
}

/// The kinds of problems. The word and the status of each never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProblemKind {
    /// A parameter, header or body cannot be read as what it has to be.
    Invalid,
    /// There is no token, or it is not one of this server's, or it has expired or was revoked.
    Unauthorized,
    /// The token does not allow this.
    Forbidden,
    /// There is no such thing, or the token may not see it.
    NotFound,
    /// The path is there, the method is not.
    MethodNotAllowed,
    /// None of the media types that the caller takes can be given.
    NotAcceptable,
    /// What is there stands against it: it has ended already, it is used by something, a key was used for another call.
    Conflict,
    /// It was there and is gone: evicted, revoked, ended.
    Gone,
    /// The body is larger than this call takes.
    TooLarge,
    /// The body's media type is not one that this call takes.
    MediaType,
    /// The range of bytes lies outside.
    Range,
    /// It can be read and makes no sense: an unknown source, a pipeline that is not there, an answer that does not fit.
    Unprocessable,
    /// Too much waits already; later it may be done.
    Busy,
    /// The server cannot do it now: it starts, it ends, another server leads, the disk is full.
    Unavailable,
    /// A fault of the server's.
    Internal,
}

impl ProblemKind {
    /// All kinds.
    pub const ALL: [Self; 15] = [
        Self::Invalid,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::Conflict,
        Self::Gone,
        Self::TooLarge,
        Self::MediaType,
        Self::Range,
        Self::Unprocessable,
        Self::Busy,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::Conflict => 409,
            Self::Gone => 410,
            Self::TooLarge => 413,
            Self::MediaType => 415,
            Self::Range => 416,
            Self::Unprocessable => 422,
            Self::Busy => 429,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }

    /// The word in [`Problem::kind`].
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::NotAcceptable => "not-acceptable",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::TooLarge => "too-large",
            Self::MediaType => "media-type",
            Self::Range => "range",
            Self::Unprocessable => "unprocessable",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// The kind in a few words, for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Invalid => "the request cannot be read",
            Self::Unauthorized => "no valid token",
            Self::Forbidden => "the token does not allow this",
            Self::NotFound => "not found",
            Self::MethodNotAllowed => "the path does not take this method",
            Self::NotAcceptable => "no such media type",
            Self::Conflict => "it does not fit what is there",
            Self::Gone => "it is gone",
            Self::TooLarge => "the body is too large",
            Self::MediaType => "the body's media type is not taken",
            Self::Range => "the range lies outside",
            Self::Unprocessable => "the request makes no sense here",
            Self::Busy => "too much waits already",
            Self::Unavailable => "the server cannot do this now",
            Self::Internal => "the server has a fault",
        }
    }
}

impl Problem {
    /// A refusal of this kind; `detail` says what is wrong with this call.
    #[must_use]
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("{KIND_PREFIX}{}", kind.word()),
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            help: String::new(),
            request: String::new(),
            fields: Vec::new(),
            cause: String::new(),
        }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// The same, with what is wrong with one field.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, detail: impl Into<String>) -> Self {
        self.fields.push(FieldProblem { name: name.into(), detail: detail.into() });
        self
    }

    /// Which of our kinds it is; `None` if somebody else made it, a proxy for instance.
    #[must_use]
    pub fn known_kind(&self) -> Option<ProblemKind> {
        let word = self.kind.strip_prefix(KIND_PREFIX)?;
        ProblemKind::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        // What a field has to be may stand in the detail already.
        for field in self.fields.iter().filter(|field| !self.detail.contains(&field.detail)) {
            write!(f, "; `{}`: {}", field.name, field.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
