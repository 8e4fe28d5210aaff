//! The config files as one document that a program's plugins extend, and what they leave as it was.

use std::fmt::Write;

use crate::hashing::QuickMap;
use crate::native::files::merge;
use crate::native::nodes::canonical;
use crate::native::{self, SourceFile};
use crate::tree::{Entry, Node, NodeValue, Sources, Span, Style};

/// The config files as one native document, for [`super::request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The document as JSON on one line, with marks: `"@KEY": [-1 - n, line, column]` for file `n`.
    pub text: String,
    /// The names of the files.
    pub files: Vec<String>,
}

/// The config files merged into one document: `env`, `defaults`, the names of `plugins` and `jobs` by id. The order of stages and of barriers in
/// lists is the files' own and holds whatever a plugin does. What is wrong with the files is told by lowering.
#[must_use]
pub fn document(files: &[SourceFile]) -> Document {
    let mut faults = native::Faults::default();
    let (sources, roots) = native::read(files, &mut faults);
    let merged = merge(&roots, None, &sources, &mut faults);
    let mut defaults: Vec<(&str, &Node)> = merged.defaults.iter().map(|(name, node)| (*name, *node)).collect();
    defaults.sort_unstable_by_key(|(name, _)| *name);
    let mut text = String::from("{");
    let section = |name: &str, text: &mut String| {
        text.push_str(if text.len() > 1 { ",\"" } else { "\"" });
        text.push_str(name);
        text.push_str("\":");
    };
    section("env", &mut text);
    write_map(
        merged.env.iter().filter_map(|entry| Some((entry.name()?, entry.key.span, &entry.value))),
        &sources,
        &mut text,
    );
    section("defaults", &mut text);
    write_map(defaults.into_iter().map(|(name, node)| (name, node.span, node)), &sources, &mut text);
    let plugins = native::named_plugins(&roots);
    if !plugins.is_empty() {
        section("plugins", &mut text);
        let nothing = Span { source: 0, start: 0, end: 0 };
        let nothing = Node::new(NodeValue::Null, nothing, Style::Plain);
        write_map(plugins.iter().map(|(name, key, _)| (*name, key.span, &nothing)), &sources, &mut text);
    }
    section("jobs", &mut text);
    text.push('{');
    for (index, job) in merged.jobs.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_key(job.id, job.key.span, &sources, &mut text);
        // An item of a list of jobs holds its own id.
        let keys = job.body.entries().unwrap_or_default().iter().filter(|entry| entry.name() != Some("job"));
        write_map(keys.filter_map(|entry| Some((entry.name()?, entry.key.span, &entry.value))), &sources, &mut text);
    }
    text.push_str("}}");
    Document { text, files: files.iter().map(|file| file.name.clone()).collect() }
}

/// A map with the mark of each of its keys.
fn write_map<'n>(entries: impl Iterator<Item = (&'n str, Span, &'n Node)>, sources: &Sources, text: &mut String) {
    text.push('{');
    for (index, (name, place, value)) in entries.enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_key(name, place, sources, text);
        write_node(value, sources, text);
    }
    text.push('}');
}

/// The mark of a key, and the key.
fn write_key(name: &str, place: Span, sources: &Sources, text: &mut String) {
    let position = sources.start(place);
    let mark = json_text(&format!("@{name}"));
    let file = -1 - i64::from(place.source);
    let _ = write!(text, "{mark}:[{file},{},{}],{}:", position.line, position.column, json_text(name));
}

fn write_node(node: &Node, sources: &Sources, text: &mut String) {
    match &node.value {
        NodeValue::Mapping(entries) => {
            let named = entries.iter().filter_map(|entry| Some((entry.name()?, entry.key.span, &entry.value)));
            write_map(named, sources, text);
        }
        NodeValue::Sequence(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_node(item, sources, text);
            }
            text.push(']');
        }
        _ => text.push_str(&canonical(node)),
    }
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Entries and items that are compared with those from before; what is beyond keeps the program's places.
const COMPARED_MAX: usize = 64;

/// Puts what the files said in the place of what a program handed on unchanged, so that its places are exact.
pub(super) fn take_over(document: &mut Node, roots: &[Node], sources: &Sources) {
    let merged = merge(roots, None, sources, &mut native::Faults::default());
    let of_files: QuickMap<&str, (&Node, &Node)> =
        merged.jobs.iter().map(|job| (job.id, (job.key, job.body))).collect();
    if of_files.is_empty() {
        return;
    }
    let NodeValue::Mapping(entries) = &mut document.value else { return };
    for entry in entries.iter_mut().filter(|entry| entry.name() == Some("jobs")) {
        let NodeValue::Mapping(jobs) = &mut entry.value.value else { continue };
        for job in jobs {
            if let Some(&(key, body)) = job.name().and_then(|name| of_files.get(name)) {
                job.key.span = key.span;
                restore(&mut job.value, body);
            }
        }
    }
}

/// Gives the parts that say the same as before the nodes from before.
fn restore(node: &mut Node, before: &Node) {
    if node.same_value(before) {
        *node = before.clone();
        return;
    }
    match (&mut node.value, &before.value) {
        (NodeValue::Mapping(entries), NodeValue::Mapping(old)) if old.len() <= COMPARED_MAX => {
            for Entry { key, value } in entries {
                if let Some(old) = key.scalar_text().and_then(|name| before.get_entry(name)) {
                    key.span = old.key.span;
                    restore(value, &old.value);
                }
            }
        }
        (NodeValue::Sequence(items), NodeValue::Sequence(old)) => {
            // In order: what was put between stays, what was there is found again.
            let mut rest = old.as_slice();
            for item in items {
                if let Some(index) = rest.iter().take(COMPARED_MAX).position(|old| item.same_value(old)) {
                    *item = rest[index].clone();
                    rest = &rest[index + 1..];
                }
            }
        }
        _ => {}
    }
}
