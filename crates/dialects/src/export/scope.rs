//! Which events lead to what is exported, and what the pipeline has beside it.
//!
//! A program's hooks answer to events of their own, and a graph holds the jobs of those that answer to one event. A
//! configuration has one list of triggers for all its jobs; so it lists the events to which all these hooks answer, and
//! says of everything else how to export it.

use std::collections::BTreeMap;

use graph::EventKind;

use crate::native::{Lowered, Part, Schedule, Triggers};

/// Stands for names that are not listed; no name, so that its flag asks for one.
const OTHER_NAMES: &str = "other names";

/// The triggers of a configuration.
pub(super) struct Scope {
    pub triggers: Triggers,
    /// Sentences about hooks and events that are not in it.
    pub notes: Vec<String>,
}

/// The triggers that lead to the lowered graph.
pub(super) fn scope(lowered: &Lowered) -> Scope {
    let heard: Vec<&Part> = lowered.parts.iter().filter(|part| part.answers).collect();
    let mut notes: Vec<String> = Vec::new();
    let triggers = match heard.as_slice() {
        [] => lowered.triggers.clone(),
        [one] => one.triggers.clone(),
        _ => common(&heard, &mut notes),
    };
    if lowered.parts.len() > 1 {
        notes.extend(heard.iter().filter_map(|part| rest_note(part, &triggers)));
        notes.extend(lowered.parts.iter().filter(|part| !part.answers).map(other_note));
    }
    Scope { triggers, notes }
}

/// What all of these parts answer to.
fn common(parts: &[&Part], notes: &mut Vec<String>) -> Triggers {
    if parts.iter().all(|part| part.triggers == Triggers::Everything) {
        return Triggers::Everything;
    }
    let mut all = kinds(&parts[0].triggers);
    for part in &parts[1..] {
        let other = kinds(&part.triggers);
        all.retain(|kind, _| other.contains_key(kind));
        for (kind, names) in &mut all {
            let others = &other[kind];
            if names.is_empty() {
                names.clone_from(others);
            } else if !others.is_empty() {
                let both: Vec<String> = names.iter().filter(|name| others.contains(name)).cloned().collect();
                match both.is_empty() {
                    true => notes.push(format!(
                        "{} answers to {} of {} only: write the names that fit both.",
                        called(part),
                        kind.name(),
                        others.join(", ")
                    )),
                    false => *names = both,
                }
            }
        }
    }
    let mut schedules: Vec<Schedule> = Vec::new();
    if all.contains_key(&EventKind::Schedule) {
        for schedule in parts.iter().flat_map(|part| schedules_of(&part.triggers)) {
            if !schedules.contains(schedule) {
                schedules.push(schedule.clone());
            }
        }
    }
    Triggers::Listed { kinds: all, schedules }
}

/// Every kind of event with its names; no names mean any.
fn kinds(triggers: &Triggers) -> BTreeMap<EventKind, Vec<String>> {
    match triggers {
        Triggers::Listed { kinds, .. } => kinds.clone(),
        Triggers::Everything => {
            let kinds = EventKind::ALL.into_iter().filter(|kind| *kind != EventKind::Command);
            kinds.map(|kind| (kind, Vec::new())).collect()
        }
    }
}

fn schedules_of(triggers: &Triggers) -> &[Schedule] {
    match triggers {
        Triggers::Listed { schedules, .. } => schedules,
        Triggers::Everything => &[],
    }
}

fn called(part: &Part) -> String {
    part.hook.as_ref().map_or_else(|| "What the files say".to_owned(), |name| format!("The hook `{name}`"))
}

/// What a part that is in it also answers to.
fn rest_note(part: &Part, triggers: &Triggers) -> Option<String> {
    let mut rest = kinds(&part.triggers);
    let listed = kinds(triggers);
    rest.retain(|kind, names| listed.get(kind).is_none_or(|listed| listed != names));
    if rest.is_empty() {
        return None;
    }
    // Of a kind that is listed under fewer names, the others.
    for (_, names) in rest.iter_mut().filter(|(kind, _)| listed.contains_key(kind)) {
        *names = vec![OTHER_NAMES.to_owned()];
    }
    let also = listed_kinds(&rest, schedules_of(&part.triggers));
    Some(format!("{} also answers to {also}, without the other jobs here: {}.", called(part), how(&rest)))
}

/// A part that is not in it.
fn other_note(part: &Part) -> String {
    let kinds = kinds(&part.triggers);
    if kinds.is_empty() {
        return format!("{} is not in this file: it answers to no event.", called(part));
    }
    let on = match part.triggers {
        Triggers::Everything => "every event".to_owned(),
        Triggers::Listed { .. } => listed_kinds(&kinds, schedules_of(&part.triggers)),
    };
    format!("{} is not in this file; it answers to {on}: {}.", called(part), how(&kinds))
}

/// Kinds of events for people: `push (main), schedule (0 3 * * * UTC)`.
fn listed_kinds(kinds: &BTreeMap<EventKind, Vec<String>>, schedules: &[Schedule]) -> String {
    let of_kind = |(kind, names): (&EventKind, &Vec<String>)| {
        let times = schedules.iter().map(|schedule| format!("{} {}", schedule.cron, schedule.timezone));
        let names: Vec<String> = if *kind == EventKind::Schedule { times.collect() } else { names.clone() };
        match names.is_empty() {
            true => kind.name().to_owned(),
            false => format!("{} ({})", kind.name(), names.join(", ")),
        }
    };
    kinds.iter().map(of_kind).collect::<Vec<_>>().join(", ")
}

/// How to export what answers to these events.
fn how(kinds: &BTreeMap<EventKind, Vec<String>>) -> String {
    let flags: Vec<String> = kinds.iter().filter_map(|(kind, names)| flag(*kind, names)).collect();
    match flags.is_empty() {
        true => "no flag of `ropewalk export` stands for that".to_owned(),
        false => format!("export it with {}", flags.join(" or ")),
    }
}

/// The flag of `ropewalk export` for events of a kind.
fn flag(kind: EventKind, names: &[String]) -> Option<String> {
    let is_name = |name: &&String| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_/".contains(c));
    let name = names.iter().find(is_name).map_or("NAME", String::as_str);
    Some(match kind {
        EventKind::Push if names.is_empty() => "`--event push`".to_owned(),
        EventKind::Push => format!("`--branch {name}`"),
        EventKind::Tag => format!("`--tag {name}`"),
        EventKind::PullRequest if names.is_empty() => "`--event pull_request`".to_owned(),
        EventKind::PullRequest => format!("`--event pull_request --base {name}`"),
        EventKind::Command => format!("`--command {name}`"),
        EventKind::Schedule | EventKind::Manual | EventKind::Build => format!("`--event {}`", kind.name()),
        EventKind::Api => return None,
    })
}
