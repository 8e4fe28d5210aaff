//! Text of a pipeline that may hold `${{ }}` expressions still to be evaluated.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A text from a pipeline: finished, or a template whose `${{ }}` wait for values.
///
/// On the wire a finished text is a plain string and a template is `{"template": "…"}`, so that a value that
/// happens to contain `${{` is never evaluated again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub enum Text {
    /// Nothing in it is to be evaluated.
    Plain(Box<str>),
    /// Holds at least one `${{ }}`; written as the pipeline's author wrote it.
    Template(Box<str>),
}

/// What an expression reads instead of a variable that a worker sets for every step, where no worker has the job yet. `None` for
/// variables that nothing else tells.
#[must_use]
pub fn instead_of_variable(name: &str) -> Option<&'static str> {
    Some(match name {
        "ROPEWALK_BUILD" => "build.number",
        "ROPEWALK_JOB" => "job.name",
        "ROPEWALK_EVENT" => "event.kind",
        "ROPEWALK_BRANCH" => "event.branch",
        "ROPEWALK_TAG" => "event.tag",
        "ROPEWALK_COMMIT" => "event.commit",
        _ => return None,
    })
}

impl Text {
    /// The text as written, whether finished or not.
    #[must_use]
    pub fn as_written(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Template(text) => text,
        }
    }

    /// The text if nothing in it is to be evaluated.
    #[must_use]
    pub fn as_plain(&self) -> Option<&str> {
        match self {
            Self::Plain(text) => Some(text),
            Self::Template(_) => None,
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::Plain("".into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::Plain(text.into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Plain(text.into())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_written())
    }
}

/// A wire shape of our own making, never written by users.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Wire {
    Plain(Box<str>),
    Template { template: Box<str> },
}

impl From<Wire> for Text {
    fn from(wire: Wire) -> Self {
        match wire {
            Wire::Plain(text) => Self::Plain(text),
            Wire::Template { template } => Self::Template(template),
        }
    }
}

impl From<Text> for Wire {
    fn from(text: Text) -> Self {
        match text {
            Text::Plain(text) => Self::Plain(text),
            Text::Template(template) => Self::Template { template },
        }
    }
}
