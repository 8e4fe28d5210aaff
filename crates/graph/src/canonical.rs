//! Canonical JSON: keys sorted, no white space, defaults left out. The same graph always gives the same bytes.

use serde_json::Value;

use crate::job::Graph;

/// The graph as canonical JSON.
#[must_use]
pub fn graph_json(graph: &Graph) -> String {
    // Our types serialize to JSON whatever they hold; `Value` objects are sorted by key.
    let value = serde_json::to_value(graph).expect("a graph always serializes");
    to_text(&value)
}

/// Any JSON value as canonical text.
#[must_use]
pub fn to_text(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        Value::Object(entries) => {
            let mut keys: Vec<_> = entries.keys().collect();
            keys.sort_unstable();
            text.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write(&entries[key], text);
            }
            text.push('}');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}
