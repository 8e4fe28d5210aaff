//! Values of the tree as plain data. What has the wrong type was told by `check.rs` and is left out here.

use serde_json::Value;

use crate::tree::{Node, NodeValue};

/// A string as a list of one, or the strings of a list.
pub(crate) fn texts(node: &Node) -> Vec<String> {
    match node.items() {
        Some(items) => items.iter().filter_map(Node::as_str).map(str::to_owned).collect(),
        None => node.as_str().map(str::to_owned).into_iter().collect(),
    }
}

/// A value as a list of one, or the items of a list.
pub(crate) fn list(node: &Node) -> &[Node] {
    node.items().unwrap_or(std::slice::from_ref(node))
}

/// Any value as JSON; infinities and NaN, which JSON has not, become null.
pub(crate) fn json(node: &Node) -> Value {
    match &node.value {
        NodeValue::Null => Value::Null,
        NodeValue::Bool(value) => Value::Bool(*value),
        NodeValue::Integer { value, .. } => Value::from(*value),
        NodeValue::Float { value, .. } => number(*value),
        NodeValue::String(text) => Value::from(&**text),
        NodeValue::Sequence(items) => items.iter().map(json).collect(),
        NodeValue::Mapping(entries) => {
            let named = entries.iter().filter_map(|entry| Some((entry.name()?.to_owned(), json(&entry.value))));
            Value::Object(named.collect())
        }
    }
}

/// A number; whole ones are integers, so that `1.0` and `1` are the same graph.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        #[expect(clippy::cast_possible_truncation, reason = "whole and within the range of i64")]
        return Value::from(value as i64);
    }
    Value::from(value)
}

/// A value as canonical JSON: keys sorted, no white space, numbers as they are written.
pub(crate) fn canonical(node: &Node) -> String {
    let mut text = String::new();
    write(node, &mut text);
    text
}

fn write(node: &Node, text: &mut String) {
    match &node.value {
        NodeValue::Integer { raw, .. } | NodeValue::Float { raw, .. } => text.push_str(raw),
        NodeValue::Sequence(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        NodeValue::Mapping(entries) => {
            let mut named: Vec<_> = entries.iter().filter_map(|entry| Some((entry.name()?, &entry.value))).collect();
            named.sort_unstable_by_key(|(name, _)| *name);
            text.push('{');
            for (index, (name, value)) in named.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(name).to_string());
                text.push(':');
                write(value, text);
            }
            text.push('}');
        }
        NodeValue::String(string) => text.push_str(&Value::from(&**string).to_string()),
        NodeValue::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
        NodeValue::Null => text.push_str("null"),
    }
}
