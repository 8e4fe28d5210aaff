//! `when`: conditions on the event, decided while the graph is made.
//!
//! What is not known yet is asked for, and the job is a hole until the answer is there; what cannot be known counts as
//! true, whatever stands around it, so that a job runs rather than being skipped by ignorance.

use graph::{Answer, Condition, EventKind, Known, Question};
use serde_json::Value;

use super::check::is_word;
use super::nodes;
use super::patterns::Patterns;
use crate::tree::Node;

/// What a condition comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    /// It holds.
    Holds,
    /// It does not.
    Fails,
    /// It cannot be known.
    Unknown,
    /// A question that decides it has no answer yet.
    Open,
}

/// The condition that a `when` says; a list means all.
pub(crate) fn condition(node: &Node) -> Condition {
    if let Some(items) = node.items() {
        return Condition::All(items.iter().map(condition).collect());
    }
    let mut parts: Vec<Condition> = node
        .entries()
        .unwrap_or_default()
        .iter()
        .filter_map(|entry| {
            let value = &entry.value;
            Some(match entry.name()? {
                "branch" => any(nodes::texts(value), Condition::Branch),
                "tag" => any(nodes::texts(value), Condition::Tag),
                "actor" => any(nodes::texts(value), Condition::Actor),
                "event" => Condition::Any(
                    nodes::texts(value).iter().filter_map(|name| kind(name)).map(Condition::Event).collect(),
                ),
                "param" => {
                    let entries = value.entries().unwrap_or_default().iter();
                    Condition::All(
                        entries
                            .filter_map(|entry| {
                                Some(Condition::Param(entry.name()?.to_owned(), nodes::json(&entry.value)))
                            })
                            .collect(),
                    )
                }
                "changed" => Condition::Changed(nodes::texts(value)),
                "all" => Condition::All(value.items()?.iter().map(condition).collect()),
                "any" => Condition::Any(value.items()?.iter().map(condition).collect()),
                "not" => Condition::Not(Box::new(condition(value))),
                _ => return None,
            })
        })
        .collect();
    if parts.len() == 1 { parts.remove(0) } else { Condition::All(parts) }
}

fn any(mut patterns: Vec<String>, of: fn(String) -> Condition) -> Condition {
    if patterns.len() == 1 { of(patterns.remove(0)) } else { Condition::Any(patterns.into_iter().map(of).collect()) }
}

/// The kind of event of a name as it may be written.
pub(crate) fn kind(name: &str) -> Option<EventKind> {
    EventKind::ALL.into_iter().find(|kind| is_word(name, kind.name()))
}

/// What the condition comes to, and the questions that are open if it is [`Truth::Open`].
pub(crate) fn decide(
    condition: &Condition,
    known: &Known,
    params: &std::collections::BTreeMap<String, Value>,
    patterns: &mut Patterns,
    questions: &mut Vec<Question>,
) -> Truth {
    let event = &known.event;
    let mut matches =
        |pattern: &str, name: &str| truth(patterns.regex(pattern).is_ok_and(|regex| regex.is_match(name)));
    match condition {
        Condition::Branch(pattern) => match (&event.branch, &event.tag) {
            (_, Some(_)) => match answer(known, Question::BranchesHolding, questions) {
                Ok(Answer::Branches(branches)) => {
                    branches.iter().fold(Truth::Fails, |sum, branch| or(sum, matches(pattern, branch)))
                }
                Ok(_) => Truth::Unknown,
                Err(open) => open,
            },
            (Some(branch), None) => matches(pattern, branch),
            (None, None) => Truth::Fails,
        },
        Condition::Tag(pattern) => event.tag.as_ref().map_or(Truth::Fails, |tag| matches(pattern, tag)),
        Condition::Event(kind) => truth(event.kind == *kind),
        Condition::Actor(pattern) => matches(pattern, &event.actor),
        Condition::Param(name, value) => truth(params.get(name).is_some_and(|param| same(param, value))),
        Condition::Changed(globs) => match answer(known, Question::ChangedFiles, questions) {
            Ok(Answer::Files(files)) => truth(patterns.any_file_matches(globs, files)),
            Ok(_) => Truth::Unknown,
            Err(open) => open,
        },
        Condition::All(parts) => {
            parts.iter().fold(Truth::Holds, |sum, part| and(sum, decide(part, known, params, patterns, questions)))
        }
        Condition::Any(parts) => {
            parts.iter().fold(Truth::Fails, |sum, part| or(sum, decide(part, known, params, patterns, questions)))
        }
        Condition::Not(part) => match decide(part, known, params, patterns, questions) {
            Truth::Holds => Truth::Fails,
            Truth::Fails => Truth::Holds,
            unknown => unknown,
        },
    }
}

fn answer<'k>(known: &'k Known, question: Question, questions: &mut Vec<Question>) -> Result<&'k Answer, Truth> {
    known.answers.get(&question).ok_or_else(|| {
        questions.push(question);
        Truth::Open
    })
}

fn truth(holds: bool) -> Truth {
    if holds { Truth::Holds } else { Truth::Fails }
}

/// Numbers by their value, so that `1` is `1.0`.
fn same(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

fn and(left: Truth, right: Truth) -> Truth {
    let order = [Truth::Fails, Truth::Open, Truth::Unknown, Truth::Holds];
    order.into_iter().find(|truth| left == *truth || right == *truth).unwrap_or(Truth::Holds)
}

fn or(left: Truth, right: Truth) -> Truth {
    let order = [Truth::Holds, Truth::Open, Truth::Unknown, Truth::Fails];
    order.into_iter().find(|truth| left == *truth || right == *truth).unwrap_or(Truth::Fails)
}

/// The condition for people, the same in every notation: `all(tag v.*, not(actor bot-.*))`.
pub(crate) fn spoken(condition: &Condition) -> String {
    let list = |parts: &[Condition]| parts.iter().map(spoken).collect::<Vec<_>>().join(", ");
    match condition {
        Condition::Branch(pattern) => format!("branch {pattern}"),
        Condition::Tag(pattern) => format!("tag {pattern}"),
        Condition::Event(kind) => format!("event {}", kind.name()),
        Condition::Actor(pattern) => format!("actor {pattern}"),
        Condition::Param(name, value) => format!("param {name} {value}"),
        Condition::Changed(globs) => format!("changed {}", globs.join(" ")),
        Condition::All(parts) if parts.len() == 1 => spoken(&parts[0]),
        Condition::Any(parts) if parts.len() == 1 => spoken(&parts[0]),
        Condition::All(parts) => format!("all({})", list(parts)),
        Condition::Any(parts) => format!("any({})", list(parts)),
        Condition::Not(part) => format!("not({})", spoken(part)),
    }
}
