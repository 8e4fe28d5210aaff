//! What is wrong with a user's text: what, where, why, and what to do.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One fault found in a pipeline. Dialects make them in their `errors.rs`; `dialects::report` renders them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// A stable name in kebab case, such as `unknown-need`.
    pub code: std::borrow::Cow<'static, str>,
    /// Whether the build may go on.
    pub severity: Severity,
    /// What is wrong, as one sentence without a full stop.
    pub message: String,
    /// Where; `None` if no text of the user's is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// The cause, shown beside the carets.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
    /// Other places that belong to it, each with a remark.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<(Location, String)>,
}

impl Diagnostic {
    /// An error with this code and message and nothing else.
    #[must_use]
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            severity: Severity::Error,
            message: message.into(),
            location: None,
            label: String::new(),
            help: String::new(),
            related: Vec::new(),
        }
    }

    /// A warning with this code and message and nothing else.
    #[must_use]
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// The same, at `location`, with the cause.
    #[must_use]
    pub fn at(self, location: Location, label: impl Into<String>) -> Self {
        Self { location: Some(location), label: label.into(), ..self }
    }

    /// The same, with what to do next.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: help.into(), ..self }
    }

    /// The same, with one more place.
    #[must_use]
    pub fn related(mut self, location: Location, remark: impl Into<String>) -> Self {
        self.related.push((location, remark.into()));
        self
    }
}

/// How bad a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing may run.
    Error,
    /// The build goes on.
    Warning,
}

/// A place in a user's text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Location {
    /// The file's name as the user knows it.
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// First byte in the file.
    pub start: u32,
    /// The byte after the last; equal to `start` for a point.
    pub end: u32,
}
