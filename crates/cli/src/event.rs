//! The event of a local build: what the flags say, and for the rest what the repository says.

use std::collections::BTreeMap;
use std::path::Path;

use graph::{Event, EventKind, Field, Timestamp};
use serde_json::Value;

use crate::args::EventArguments;
use crate::pipeline::{KindChoice, Unanswered};
use crate::project::Project;

/// The event that `arguments` and the repository tell. Parameters are still texts: [`crate::pipeline::Pipeline::check`] gives them
/// their types once the pipeline is known. `commit` is the full id of its commit, if that is not the one checked out.
///
/// # Errors
/// A sentence, if a flag is wrong.
pub fn of(
    arguments: &EventArguments,
    project: &Project,
    commit: Option<&str>,
    now: Timestamp,
) -> Result<Event, String> {
    // Outside a repository there is neither commit nor branch, and that is no fault.
    let head = worker::repository::head(&project.root).unwrap_or_default();
    let kind = match (&arguments.event, &arguments.tag) {
        _ if arguments.command.is_some() => EventKind::Command,
        (Some(name), _) => EventKind::from_name(name).ok_or_else(|| format!("`{name}` is no kind of event"))?,
        (None, Some(_)) => EventKind::Tag,
        (None, None) if arguments.params.is_empty() => EventKind::Push,
        (None, None) => EventKind::Manual,
    };
    let mut event = Event::new(kind);
    event.commit = commit.map(str::to_owned).or(head.commit).unwrap_or_default();
    event.tag.clone_from(&arguments.tag);
    // A child has that of its parent.
    if kind == EventKind::Tag && event.tag.is_none() && project.inside.is_none() {
        event.tag = Some(only_tag(&project.root, &event.commit)?);
    }
    event.command.clone_from(&arguments.command);
    event.branch = match (&arguments.branch, kind) {
        (Some(branch), _) => Some(branch.clone()),
        (None, EventKind::Tag) => None,
        (None, _) => head.branch,
    };
    event.base.clone_from(&arguments.base);
    if let Some(base) = &event.base {
        crate::agent::source::commit_id(&project.root, base).map_err(|fault| {
            format!("--base: {fault}; give a branch, a tag or a commit that git knows here, or leave it out for the commit before")
        })?;
    }
    event.actor = arguments.actor.clone().unwrap_or_else(worker::repository::user_name);
    event.time = now;
    for param in &arguments.params {
        let (name, value) = param.split_once('=').ok_or_else(|| format!("--param takes NAME=VALUE, not `{param}`"))?;
        event.params.insert(name.to_owned(), Value::from(value));
    }
    Ok(event)
}

/// The tag of this commit, if it has one alone. `commit` is empty if there is none.
///
/// # Errors
/// A sentence: it has none or several, so that one has to be named.
fn only_tag(root: &Path, commit: &str) -> Result<String, String> {
    let tags =
        if commit.is_empty() { Vec::new() } else { worker::repository::tags_at(root, commit).unwrap_or_default() };
    match &tags[..] {
        [only] => Ok(only.clone()),
        [] => Err("--event tag is of a tag, and this commit has none: add --tag NAME".to_owned()),
        [first, ..] => {
            let n_tags = tags.len();
            Err(format!(
                "--event tag is of one tag, and this commit has {n_tags}: add --tag NAME, such as --tag {first}"
            ))
        }
    }
}

/// Whether the arguments say what kind of event it is.
pub fn kind_choice(arguments: &EventArguments) -> KindChoice {
    let is_said = arguments.event.is_some() || arguments.tag.is_some() || arguments.command.is_some();
    if is_said { KindChoice::Said } else { KindChoice::Free }
}

/// What becomes of a build by the event of these arguments if the pipeline does not answer it: a mistyped flag is not green.
pub fn unanswered(arguments: &EventArguments) -> Unanswered {
    let EventArguments { event, branch, tag, command, .. } = arguments;
    let is_said = event.is_some() || branch.is_some() || tag.is_some() || command.is_some();
    if is_said { Unanswered::Refused } else { Unanswered::Noted }
}

/// Who asks for values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A pipeline, for its parameters.
    Parameter,
    /// A gate, for its fields.
    Field,
}

impl Asked {
    fn word(self) -> &'static str {
        match self {
            Self::Parameter => "parameter",
            Self::Field => "field",
        }
    }

    fn flag(self) -> &'static str {
        match self {
            Self::Parameter => "--param",
            Self::Field => "--field",
        }
    }
}

/// Gives the typed texts of `--param` or `--field` the types that the pipeline declares.
///
/// # Errors
/// A sentence for each that is unknown or of the wrong type, all of them together.
pub fn typed(
    given: &BTreeMap<String, Value>,
    fields: &BTreeMap<String, Field>,
    what: Asked,
) -> Result<BTreeMap<String, Value>, String> {
    let mut values = BTreeMap::new();
    let mut faults = Vec::new();
    for (name, value) in given {
        let Some(field) = fields.get(name) else {
            let known: Vec<_> = fields.keys().map(String::as_str).collect();
            let known =
                if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
            faults.push(format!("there is no {} `{name}`: {known}", what.word()));
            continue;
        };
        match value.as_str().map_or(Ok(value.clone()), |typed| field.parse(typed)) {
            Ok(value) => drop(values.insert(name.clone(), value)),
            Err(fault) => faults.push(format!("{} `{name}` {fault}", what.word())),
        }
    }
    for (name, field) in fields.iter().filter(|(name, _)| !given.contains_key(*name)) {
        match &field.default {
            Some(default) => drop(values.insert(name.clone(), default.clone())),
            None => faults.push(format!("{} `{name}` is missing: give {} {name}=VALUE", what.word(), what.flag())),
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(faults.join("\n")) }
}

/// The event in a few words: `push to main, 1a2b3c4d5e6f, by Ada`.
pub fn describe(event: &Event) -> String {
    let mut text = event.kind.name().replace('_', " ");
    if let Some(tag) = &event.tag {
        text.push_str(&format!(" {tag}"));
    } else if let Some(command) = &event.command {
        text.push_str(&format!(" {command}"));
    } else if let Some(branch) = &event.branch {
        text.push_str(&format!(" on {branch}"));
    }
    if !event.commit.is_empty() {
        text.push_str(&format!(", {}", event.commit.get(..12).unwrap_or(&event.commit)));
        if event.checkout == graph::Checkout::Changed {
            text.push_str(" + local changes");
        }
    }
    if !event.actor.is_empty() {
        text.push_str(&format!(", by {}", event.actor));
    }
    if let Some(parent) = &event.parent {
        text.push_str(&format!(", for {} of build {}", parent.job, parent.build));
    }
    crate::words::harmless(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use graph::{Field, FieldKind};
    use serde_json::{Value, json};

    use super::{Asked, typed};

    #[track_caller]
    fn check(given: Value, expected: Result<Value, &str>) {
        let fields = BTreeMap::from([
            ("dry".to_owned(), Field { kind: FieldKind::Boolean, default: Some(json!(true)), help: String::new() }),
            ("count".to_owned(), Field { kind: FieldKind::Number, default: None, help: String::new() }),
        ]);
        let given = serde_json::from_value(given).expect("an object");
        let found = typed(&given, &fields, Asked::Parameter).map(|values| json!(values));
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn parameters_get_types_and_defaults() {
        check(json!({ "count": "3" }), Ok(json!({ "count": 3, "dry": true })));
        check(json!({ "count": "3", "dry": "false" }), Ok(json!({ "count": 3, "dry": false })));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        check(
            json!({ "dry": "no", "cuont": "1" }),
            Err("there is no parameter `cuont`: it has count, dry\n\
                 parameter `dry` takes `true` or `false`, not `no`\n\
                 parameter `count` is missing: give --param count=VALUE"),
        );
    }
}
