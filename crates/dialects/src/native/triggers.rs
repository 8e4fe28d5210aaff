//! `on`: which events a pipeline answers to, its schedules, and the parameters of a manual start.

use std::collections::{BTreeMap, BTreeSet};

use graph::{Event, EventKind, Field, FieldKind, Location, Severity};
use serde_json::Value;

use super::check::is_word;
use super::errors::{self, Faults};
use super::nodes;
use super::patterns::Patterns;
use super::when;
use super::{Lowered, Written};
use crate::tree::{Entry, Node, Sources};

/// Which events a pipeline answers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Triggers {
    /// Every event, since the pipeline has no `on`.
    Everything,
    /// Events of these kinds; each with the regexes of which one must match the whole of a name, or none for any:
    /// the branch (push), the tag (tag), the branch merged into (pull request). A kind for which the files say an empty list is
    /// none of them.
    Listed {
        /// Kinds with their regexes.
        kinds: BTreeMap<EventKind, Vec<String>>,
        /// When builds start by themselves, in the order of the file.
        schedules: Vec<Schedule>,
    },
}

/// Points in time at which a build starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Five fields of cron, already found right.
    pub cron: String,
    /// A name of the IANA database by its form; whether it is one is known where the schedule runs.
    pub timezone: String,
}

/// Whether a pipeline answers to an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Triggered {
    /// It does.
    Yes,
    /// It does not; its graph is empty.
    No {
        /// Why, for people: "a push to branch `x` is not among the pipeline's triggers".
        reason: String,
    },
}

/// A part of a pipeline that answers to events by itself: its files, or one hook of its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The hook's name; `None` for the files.
    pub hook: Option<String>,
    /// Which events it answers to.
    pub triggers: Triggers,
    /// Whether it answers to the event of the lowering, so that its jobs are in the graph.
    pub answers: bool,
}

/// What of a pipeline answers to an event.
pub(crate) struct Heard {
    pub triggers: Triggers,
    /// The files first, if there are any, then the hooks in order.
    pub parts: Vec<Part>,
    pub triggered: Triggered,
    /// Whether the files' part of it does, or there is none.
    pub files: bool,
    /// The fields of a manual start.
    pub params: Vec<Entry>,
}

/// What answers to an event: the files by their `on`; of a program every hook by its own `on`, or else as the files do.
pub(crate) fn heard(roots: &[Node], program: Option<&Written>, event: &Event, patterns: &mut Patterns) -> Heard {
    let sections: Vec<&Node> = roots.iter().filter_map(|root| root.get("on")).collect();
    let of_files = triggers(&sections);
    let Some(program) = program else {
        let triggered = triggered(&of_files, event, patterns);
        let part = Part { hook: None, triggers: of_files.clone(), answers: triggered == Triggered::Yes };
        let params = params(&sections).to_vec();
        return Heard { triggers: of_files, parts: vec![part], triggered, files: true, params };
    };
    let of_hook = |on: &Option<Node>| on.as_ref().map_or_else(|| of_files.clone(), |on| triggers(&[on]));
    let mut of_parts: Vec<Triggers> = program.hooks.iter().map(of_hook).collect();
    let files = roots.is_empty() || triggered(&of_files, event, patterns) == Triggered::Yes;
    let mut part = |hook: Option<&String>, triggers: &Triggers| {
        let answers = triggered(triggers, event, patterns) == Triggered::Yes;
        Part { hook: hook.cloned(), triggers: triggers.clone(), answers }
    };
    let mut parts: Vec<Part> = Vec::with_capacity(of_parts.len() + 1);
    if !roots.is_empty() || of_parts.is_empty() {
        parts.push(part(None, &of_files));
    }
    parts.extend(program.hook_names.iter().zip(&of_parts).map(|(name, triggers)| part(Some(name), triggers)));
    if !roots.is_empty() || of_parts.is_empty() {
        of_parts.push(of_files);
    }
    let joined = joined(of_parts);
    let triggered_by = triggered(&joined, event, patterns);
    let is_asked = |on: &Node| triggered(&triggers(&[on]), event, patterns) == Triggered::Yes;
    let mut asked: Vec<&Node> = program.hooks.iter().flatten().collect();
    if triggered_by == Triggered::Yes {
        let mut is_asked = is_asked;
        asked.retain(|on| is_asked(on));
    }
    let mut params = params(&sections).to_vec();
    for entry in asked.into_iter().flat_map(|on| self::params(&[on])) {
        params.retain(|before| before.name() != entry.name());
        params.push(entry.clone());
    }
    Heard { triggers: joined, parts, triggered: triggered_by, files, params }
}

/// Triggers that let in what any of these does.
pub(crate) fn joined(parts: Vec<Triggers>) -> Triggers {
    let is_open = parts.contains(&Triggers::Everything);
    let mut all: BTreeMap<EventKind, Vec<String>> = BTreeMap::new();
    let mut schedules: Vec<Schedule> = Vec::new();
    for part in parts {
        let Triggers::Listed { kinds, schedules: more } = part else { continue };
        for (kind, regexes) in kinds {
            match all.entry(kind) {
                std::collections::btree_map::Entry::Vacant(vacant) => drop(vacant.insert(regexes)),
                std::collections::btree_map::Entry::Occupied(mut known) if regexes.is_empty() => {
                    known.get_mut().clear()
                }
                std::collections::btree_map::Entry::Occupied(known) if known.get().is_empty() => {}
                std::collections::btree_map::Entry::Occupied(mut known) => known.get_mut().extend(regexes),
            }
        }
        schedules.extend(more.into_iter().filter(|schedule| !schedules.contains(schedule)).collect::<Vec<_>>());
    }
    if is_open {
        // Everything but commands, which somebody must have written.
        if schedules.is_empty() && !all.contains_key(&EventKind::Command) {
            return Triggers::Everything;
        }
        let others = EventKind::ALL.into_iter().filter(|kind| *kind != EventKind::Command);
        all.extend(others.map(|kind| (kind, Vec::new())));
    }
    Triggers::Listed { kinds: all, schedules }
}

/// The triggers of `on` sections, one for each file; a later file's kind of event replaces an earlier one's.
pub(crate) fn triggers(sections: &[&Node]) -> Triggers {
    if sections.is_empty() {
        return Triggers::Everything;
    }
    let mut kinds = BTreeMap::new();
    let mut schedules = Vec::new();
    for section in sections {
        for name in nodes::texts(section) {
            kinds.extend(when::kind(&name).map(|kind| (kind, Vec::new())));
        }
        for entry in section.entries().unwrap_or_default() {
            let Some(kind) = entry.name().and_then(when::kind) else { continue };
            match empty_list(&entry.value) {
                Some(_) => kinds.remove(&kind),
                None => kinds.insert(kind, regexes(&entry.value).map(nodes::texts).unwrap_or_default()),
            };
            if kind == EventKind::Schedule {
                schedules = entry.value.items().unwrap_or_default().iter().filter_map(schedule).collect();
            }
        }
    }
    Triggers::Listed { kinds, schedules }
}

/// What stands in `on` under a kind of event about its names.
pub(crate) fn regexes(of_kind: &Node) -> Option<&Node> {
    ["branches", "names"].into_iter().find_map(|key| of_kind.get(key))
}

/// The list of regexes or of points in time that stands in `on` under a kind of event, if it is empty: no event fits it.
pub(crate) fn empty_list(of_kind: &Node) -> Option<&Node> {
    let list = regexes(of_kind).unwrap_or(of_kind);
    list.items().is_some_and(<[Node]>::is_empty).then_some(list)
}

fn schedule(node: &Node) -> Option<Schedule> {
    let timezone = node.get("timezone").and_then(Node::as_str).unwrap_or("UTC");
    Some(Schedule { cron: node.get("cron")?.as_str()?.to_owned(), timezone: timezone.to_owned() })
}

/// Whether the triggers let this event in.
pub(crate) fn triggered(triggers: &Triggers, event: &Event, patterns: &mut Patterns) -> Triggered {
    let Triggers::Listed { kinds, .. } = triggers else {
        return match (event.kind, event.command.as_deref()) {
            // A command is run only where somebody wrote what it is.
            (EventKind::Command, Some(name)) => {
                Triggered::No { reason: format!("the pipeline has no command `{name}`") }
            }
            _ => Triggered::Yes,
        };
    };
    let (what, name) = match event.kind {
        EventKind::Push => ("a push to branch", event.branch.as_deref()),
        EventKind::Tag => ("the tag", event.tag.as_deref()),
        EventKind::PullRequest => ("a pull request into", event.base.as_deref()),
        EventKind::Command => ("the command", event.command.as_deref()),
        kind => (kind.name(), None),
    };
    let spoken = name.map_or_else(|| format!("`{}`", event.kind.name()), |name| format!("{what} `{name}`"));
    let Some(regexes) = kinds.get(&event.kind) else {
        let listed: Vec<String> = kinds.keys().map(|kind| format!("`{}`", kind.name())).collect();
        let only = if listed.is_empty() { String::new() } else { format!(", only {}", listed.join(", ")) };
        return Triggered::No { reason: format!("the pipeline's `on` does not list {spoken}{only}") };
    };
    let name = name.unwrap_or_default();
    let admits = |pattern: &String| patterns.regex(pattern).is_ok_and(|regex| regex.is_match(name));
    if regexes.is_empty() || regexes.iter().any(admits) {
        return Triggered::Yes;
    }
    let regexes: Vec<&str> = regexes.iter().map(|regex| if regex.is_empty() { "``" } else { regex }).collect();
    Triggered::No { reason: format!("{spoken} fits none of: {}", regexes.join(", ")) }
}

/// The `manual.params` of the last section that has them, each with its place.
pub(crate) fn params<'n>(sections: &[&'n Node]) -> &'n [Entry] {
    let of = |section: &&'n Node| section.get("manual")?.get("params")?.entries();
    sections.iter().rev().find_map(of).unwrap_or_default()
}

/// Fields by name; what is wrong with one is told.
pub(crate) fn fields(entries: &[Entry], sources: &Sources, faults: &mut Faults) -> BTreeMap<String, Field> {
    let mut fields = BTreeMap::new();
    for entry in entries {
        let Some(name) = entry.name() else { continue };
        fields.insert(name.to_owned(), field(name, &entry.value, sources, faults));
    }
    fields
}

fn field(name: &str, node: &Node, sources: &Sources, faults: &mut Faults) -> Field {
    let at = |node: &Node| sources.location(node.span);
    let options = node.get("options");
    let kind = node.get("type").and_then(Node::as_str).unwrap_or("string");
    let kind = match kind {
        kind if is_word(kind, "number") => FieldKind::Number,
        kind if is_word(kind, "boolean") => FieldKind::Boolean,
        kind if is_word(kind, "choice") => FieldKind::Choice { options: options.map(nodes::texts).unwrap_or_default() },
        _ => FieldKind::String,
    };
    let options_fault = match (&kind, options) {
        (FieldKind::Choice { options }, _) if options.is_empty() => {
            Some((node, "nothing can be chosen", "add `options: [first, second]`"))
        }
        (FieldKind::Choice { options }, Some(node)) if BTreeSet::from_iter(options).len() < options.len() => {
            Some((node, "an option stands twice", "keep each option once"))
        }
        (FieldKind::Choice { .. }, _) | (_, None) => None,
        (_, Some(node)) => Some((node, "only a choice has options", "say `type: choice`, or remove `options`")),
    };
    if let Some((node, label, help)) = options_fault {
        let message = format!("the options of `{name}` are wrong");
        faults.push(errors::bad_value("bad-field", at(node), message, label, help));
    }
    let help = node.get("help").and_then(Node::as_str).unwrap_or_default().to_owned();
    let mut field = Field { kind, default: None, help };
    if let Some(default) = node.get("default") {
        let value = nodes::json(default);
        if field.admits(&value) {
            field.default = Some(value);
        } else if options_fault.is_none() {
            let message = format!("the default of `{name}` is not of its type");
            let help = "a string stands in quotes, a number and a boolean do not, a choice is one of its options";
            faults.push(errors::bad_value("bad-field", at(default), message, "not of that type", help));
        }
    }
    field
}

impl Lowered {
    /// What is wrong with the parameters of the event, for whoever set them, who may have used no flag; `None` if nothing is, or if the pipeline
    /// is wrong as well.
    #[must_use]
    pub fn wrong_params(&self) -> Option<String> {
        let faults = self.evaluation.diagnostics.iter().filter(|fault| fault.severity == Severity::Error);
        let told: Option<Vec<String>> = faults
            .map(|fault| match &*fault.code {
                "bad-param" => Some(fault.message.clone()),
                "unknown-param" => Some(format!("{}: {}", fault.message, fault.help)),
                _ => None,
            })
            .collect();
        told.filter(|told| !told.is_empty()).map(|told| told.join("; "))
    }
}

/// The values of parameters for this event: what it brings, typed texts read by the field's type, else the defaults.
pub(crate) fn filled(
    fields: &BTreeMap<String, Field>,
    event: &Event,
    place_of: impl Fn(&str) -> Option<Location>,
    faults: &mut Faults,
) -> BTreeMap<String, Value> {
    let known: Vec<&str> = fields.keys().map(String::as_str).collect();
    for name in event.params.keys().filter(|name| !fields.contains_key(*name)) {
        faults.push(errors::unknown_param(name, &known));
    }
    let must_be_filled = matches!(event.kind, EventKind::Manual | EventKind::Api);
    let mut filled = BTreeMap::new();
    for (name, field) in fields {
        let value = match event.params.get(name) {
            Some(value) if field.admits(value) => Ok(Some(value.clone())),
            Some(Value::String(typed)) => field.parse(typed).map(Some),
            Some(value) => Err(format!("does not take `{value}`")),
            None if field.default.is_none() && must_be_filled => Err("must be given: it has no default".to_owned()),
            None => Ok(field.default.clone()),
        };
        match value {
            Ok(value) => filled.extend(value.map(|value| (name.clone(), value))),
            Err(takes) => faults.push(errors::bad_param(name, &takes, place_of(name))),
        }
    }
    filled
}
