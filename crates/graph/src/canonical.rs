//! Canonical JSON: keys sorted, no white space, defaults left out. The same graph always gives the same bytes.

use std::collections::BTreeMap;
use std::iter::once;

use serde::Serialize;
use serde_json::Value;

use crate::job::Graph;

/// The graph as canonical JSON.
#[must_use]
pub fn graph_json(graph: &Graph) -> String {
    graph_parts(graph).collect()
}

/// The graph as canonical JSON in parts, to be written one behind the other: what stands before the jobs, each job, what stands
/// behind them. Of a graph with a million needs no more than one job is held as text.
pub fn graph_parts(graph: &Graph) -> impl Iterator<Item = String> {
    let around = value(&Graph { jobs: BTreeMap::new(), ..graph.clone() });
    let entries = around.as_object().into_iter().flatten().filter(|(key, _)| *key != JOBS);
    let mut entries: Vec<(&str, String)> = entries.map(|(key, value)| (key.as_str(), entry(key, value))).collect();
    entries.sort_unstable();
    let (mut before, mut after) = ("{".to_owned(), "}".to_owned());
    for (key, text) in entries {
        match key < JOBS {
            true => before.extend([&text, ","]),
            false => after.extend([",", &text]),
        }
    }
    before.push_str(&format!("{}:{{", Value::from(JOBS)));
    after.push('}');
    let jobs = graph.jobs.iter().enumerate().map(|(index, (name, job))| {
        let comma = if index > 0 { "," } else { "" };
        format!("{comma}{}", entry(name.as_str(), &value(&**job)))
    });
    once(before).chain(jobs).chain(once(after))
}

/// The key of a graph under which its jobs stand.
const JOBS: &str = "jobs";

fn value(shape: &impl Serialize) -> Value {
    // Our types serialize to JSON whatever they hold; `Value` objects are sorted by key.
    serde_json::to_value(shape).expect("a graph always serializes")
}

fn entry(key: &str, value: &Value) -> String {
    format!("{}:{}", Value::from(key), to_text(value))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{graph_json, graph_parts, to_text, value};
    use crate::{Graph, Hole, Job, JobName, Need, Status, StatusState};

    #[test]
    fn a_graph_is_written_job_by_job_as_it_is_as_a_whole() {
        let mut graph = Graph::default();
        let check = |graph: &Graph| assert_eq!(graph_json(graph), to_text(&value(graph)));
        check(&graph);
        graph.name = "a \"name\"".to_owned();
        graph.holes = vec![Hole { name: "jobs".to_owned(), after: vec!["b".into()] }];
        let status = Status { state: StatusState::Ok, text: "well".to_owned() };
        graph.statuses.insert("s".to_owned(), status);
        check(&graph);
        for name in ["b", "a", "m/2", "m/10", "m\n", "m-x"] {
            let needs = vec![Need::success("b"), Need::barrier("a")];
            graph.jobs.insert(JobName::from(name), Arc::new(Job { needs, ..Job::default() }));
        }
        check(&graph);
        assert_eq!(graph_parts(&graph).count(), 1 + graph.jobs.len() + 1);
    }
}
