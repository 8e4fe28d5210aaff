//! Conditions over the event (`when`), decided at plan time.

use serde::{Deserialize, Serialize};

/// A condition over the event. Regexes match the whole name; a list of conditions means all of them.
///
/// Dialects decide it while they lower; a graph holds only the decision, never the condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The branch's name matches; for a tag event, some branch that holds the commit.
    Branch(String),
    /// The tag's name matches.
    Tag(String),
    /// The event's kind is this one.
    Event(crate::event::EventKind),
    /// The actor's name matches.
    Actor(String),
    /// The parameter has this value.
    Param(String, serde_json::Value),
    /// Some changed file matches one of the globs. Unknown changes count as a match.
    Changed(Vec<String>),
    /// All hold; true if empty.
    All(Vec<Condition>),
    /// At least one holds; false if empty.
    Any(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
}
