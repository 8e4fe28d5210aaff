//! Legs of a matrix put together again: one text that gives every leg's when an axis' value is put in its place.

use std::collections::{BTreeMap, BTreeSet};

use graph::{Job, JobName};
use serde_json::{Map, Value};

/// Stands before and behind an axis' name where its value goes; no text of a pipeline has it.
pub(super) const MARK: char = '\u{1}';
/// The most characters that legs have in common in front of a difference and that still belong to an axis' value.
const SHARED_MAX: usize = 64;

/// What stands for the value of an axis.
pub(super) fn marked(axis: &str) -> String {
    format!("{MARK}{axis}{MARK}")
}

/// All legs as one.
pub(super) struct Joined {
    pub job: Job,
    pub axes: Vec<(String, Vec<Value>)>,
    pub excluded: Vec<BTreeMap<String, Value>>,
}

/// The legs as one job with axes; `None` if they differ otherwise, or are no product with few gaps.
pub(super) fn joined(legs: &[(&JobName, &Job)]) -> Option<Joined> {
    let (_, first) = legs.first()?;
    let names: Vec<&String> = first.matrix.keys().collect();
    if legs.iter().any(|(_, leg)| leg.matrix.keys().ne(first.matrix.keys())) {
        return None;
    }
    let mut axes: Vec<(String, Vec<Value>)> = Vec::new();
    for name in names {
        let mut values: Vec<Value> = Vec::new();
        for (_, leg) in legs {
            let value = &leg.matrix[name];
            if value.is_object() || value.is_array() {
                return None;
            }
            if !values.contains(value) {
                values.push(value.clone());
            }
        }
        axes.push((name.clone(), values));
    }
    let excluded = gaps(&axes, legs)?;
    let own: Vec<Value> = legs.iter().map(|(_, leg)| plain(leg)).collect::<Option<_>>()?;
    let coordinates: Vec<BTreeMap<&str, String>> = legs
        .iter()
        .map(|(_, leg)| leg.matrix.iter().map(|(name, value)| (name.as_str(), text_of(value))).collect())
        .collect();
    let whole = unified(&own.iter().collect::<Vec<_>>(), &coordinates)?;
    let mut job: Job = serde_json::from_value(whole).ok()?;
    job.order = first.order;
    Some(Joined { job, axes, excluded })
}

/// The combinations that no leg has; `None` if there are more of them than legs.
fn gaps(axes: &[(String, Vec<Value>)], legs: &[(&JobName, &Job)]) -> Option<Vec<BTreeMap<String, Value>>> {
    let n_all = axes.iter().try_fold(1_usize, |count, (_, values)| count.checked_mul(values.len()))?;
    if n_all > legs.len().saturating_mul(2) {
        return None;
    }
    let present: BTreeSet<String> =
        legs.iter().map(|(_, leg)| Value::from_iter(leg.matrix.clone()).to_string()).collect();
    let mut all: Vec<BTreeMap<String, Value>> = vec![BTreeMap::new()];
    for (name, values) in axes {
        let with = |value: &Value, before: &BTreeMap<String, Value>| {
            let mut combination = before.clone();
            combination.insert(name.clone(), value.clone());
            combination
        };
        all = all.iter().flat_map(|before| values.iter().map(move |value| with(value, before))).collect();
    }
    all.retain(|combination| !present.contains(&Value::from_iter(combination.clone()).to_string()));
    Some(all)
}

/// What legs must have in common: all but their place and coordinates.
fn plain(leg: &Job) -> Option<Value> {
    let mut value = serde_json::to_value(Job { order: 0, matrix: BTreeMap::new(), ..leg.clone() }).ok()?;
    value.as_object_mut()?.remove("order");
    Some(value)
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn unified(values: &[&Value], coordinates: &[BTreeMap<&str, String>]) -> Option<Value> {
    let first = values.first()?;
    if values.iter().all(|value| value == first) {
        return Some((*first).clone());
    }
    match first {
        Value::String(_) => {
            let texts: Vec<&str> = values.iter().map(|value| value.as_str()).collect::<Option<_>>()?;
            unified_text(&texts, coordinates).map(Value::String)
        }
        Value::Array(items) => {
            let lists: Vec<&Vec<Value>> = values.iter().map(|value| value.as_array()).collect::<Option<_>>()?;
            if lists.iter().any(|list| list.len() != items.len()) {
                return None;
            }
            let item = |index: usize| unified(&lists.iter().map(|list| &list[index]).collect::<Vec<_>>(), coordinates);
            (0..items.len()).map(item).collect::<Option<Vec<_>>>().map(Value::Array)
        }
        Value::Object(entries) => {
            let maps: Vec<&Map<String, Value>> = values.iter().map(|value| value.as_object()).collect::<Option<_>>()?;
            if maps.iter().any(|map| map.keys().ne(entries.keys())) {
                return None;
            }
            let entry = |key: &String| {
                let of_key: Vec<&Value> = maps.iter().map(|map| &map[key]).collect();
                Some((key.clone(), unified(&of_key, coordinates)?))
            };
            entries.keys().map(entry).collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        _ => None,
    }
}

/// One text for all: what they share as it is, and where they part an axis whose value each has there.
fn unified_text(texts: &[&str], coordinates: &[BTreeMap<&str, String>]) -> Option<String> {
    let mut rest: Vec<&str> = texts.to_vec();
    let mut out = String::new();
    loop {
        let shared = shared_prefix(&rest);
        if rest.iter().all(|rest| rest.len() == shared) {
            out.push_str(&rest[0][..shared]);
            return Some(out);
        }
        let (back, axis) = (0..=shared.min(SHARED_MAX)).find_map(|back| {
            let start = shared - back;
            if !rest[0].is_char_boundary(start) {
                return None;
            }
            let fits = |axis: &&str| {
                let begins =
                    |(rest, of_leg): (&&str, &BTreeMap<&str, String>)| rest[start..].starts_with(&of_leg[*axis]);
                let is_empty = coordinates.iter().any(|of_leg| of_leg[*axis].is_empty());
                !is_empty && rest.iter().zip(coordinates).all(begins)
            };
            let differs = |axis: &&str| coordinates.iter().any(|of_leg| of_leg[*axis] != coordinates[0][*axis]);
            let axes: Vec<&str> = coordinates[0].keys().copied().filter(|axis| differs(axis)).collect();
            axes.into_iter().find(|axis| fits(axis)).map(|axis| (back, axis))
        })?;
        let start = shared - back;
        out.push_str(&rest[0][..start]);
        out.push_str(&marked(axis));
        for (rest, of_leg) in rest.iter_mut().zip(coordinates) {
            *rest = &rest[start + of_leg[axis].len()..];
        }
    }
}

/// Bytes that all texts begin with, up to a character's end.
fn shared_prefix(texts: &[&str]) -> usize {
    let first = texts[0];
    let mut shared = first.len();
    for text in &texts[1..] {
        shared = first.bytes().zip(text.bytes()).take(shared).take_while(|(left, right)| left == right).count();
    }
    while !first.is_char_boundary(shared) {
        shared -= 1;
    }
    shared
}
