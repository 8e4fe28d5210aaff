//! Conditions on the event: `when` of the native format. They are written down here and decided by the binary.

use std::ops::{BitAnd, BitOr, Not};

use crate::event::EventKind;
use crate::json::Json;
use crate::texts::Texts;

/// A condition on the event. `a & b`, `a | b` and `!a` combine them.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition(pub(crate) Json);

/// One of these regexes matches the branch's whole name; for a tag, the name of some branch that holds its commit.
#[must_use]
pub fn branch(regexes: impl Texts) -> Condition {
    one("branch", regexes.texts().into())
}

/// The event is of this kind.
#[must_use]
pub fn event(kind: EventKind) -> Condition {
    one("event", kind.name().into())
}

/// One of these regexes matches the whole name of the one who caused the event.
#[must_use]
pub fn actor(regexes: impl Texts) -> Condition {
    one("actor", regexes.texts().into())
}

/// The parameter of this name has this value.
#[must_use]
pub fn param(name: &str, value: impl Into<Json>) -> Condition {
    one("param", Json::object([(name, value.into())]))
}

/// One of these globs matches a changed file. Where changes are not known it holds.
#[must_use]
pub fn changed(globs: impl Texts) -> Condition {
    one("changed", globs.texts().into())
}

/// All of these hold.
#[must_use]
pub fn all<C: Into<Condition>>(conditions: impl IntoIterator<Item = C>) -> Condition {
    one("all", list(conditions))
}

/// At least one of these holds.
#[must_use]
pub fn any<C: Into<Condition>>(conditions: impl IntoIterator<Item = C>) -> Condition {
    one("any", list(conditions))
}

/// This does not hold.
#[must_use]
pub fn not(condition: impl Into<Condition>) -> Condition {
    one("not", condition.into().0)
}

fn one(key: &str, value: Json) -> Condition {
    Condition(Json::object([(key, value)]))
}

fn list<C: Into<Condition>>(conditions: impl IntoIterator<Item = C>) -> Json {
    Json::List(conditions.into_iter().map(|condition| condition.into().0).collect())
}

/// Tags: as a condition of a job one of the regexes matches the tag's whole name; as a trigger, such a tag arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub(crate) names: Vec<String>,
}

/// Tags of which one of these regexes matches the whole name.
#[must_use]
pub fn tag(regexes: impl Texts) -> Tag {
    Tag { names: regexes.texts() }
}

impl From<Tag> for Condition {
    fn from(tag: Tag) -> Self {
        one("tag", tag.names.into())
    }
}

macro_rules! operators {
    ($kind:ty) => {
        impl<C: Into<Condition>> BitAnd<C> for $kind {
            type Output = Condition;

            fn bitand(self, other: C) -> Condition {
                all([self.into(), other.into()])
            }
        }

        impl<C: Into<Condition>> BitOr<C> for $kind {
            type Output = Condition;

            fn bitor(self, other: C) -> Condition {
                any([self.into(), other.into()])
            }
        }

        impl Not for $kind {
            type Output = Condition;

            fn not(self) -> Condition {
                not(self)
            }
        }
    };
}

operators!(Condition);
operators!(Tag);
