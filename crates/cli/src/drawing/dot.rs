//! A graph as Graphviz text.

use std::fmt::Write;

use graph::{Carries, Graph};

use super::{marks, title, with_holes};

/// The graph for `dot`.
pub fn draw(graph: &Graph) -> String {
    let mut text = String::from(
        "digraph pipeline {\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n  edge [color=\"#8c959f\"];\n",
    );
    let (graph, holes) = with_holes(graph);
    for (name, job) in &graph.jobs {
        let style = match &job.skip {
            _ if holes.contains(name) => ", style=dotted",
            Some(_) => ", style=\"rounded,dashed\"",
            None => "",
        };
        let mut label = title(name, job).to_owned();
        for mark in marks(job) {
            label.push('\n');
            label.push_str(&mark);
        }
        let _ = writeln!(text, "  {} [label={}{style}];", quoted(name.as_str()), quoted(&label));
        for need in &job.needs {
            let style = if need.carries == Carries::Order { " [style=dotted]" } else { "" };
            let _ = writeln!(text, "  {} -> {}{style};", quoted(need.job.as_str()), quoted(name.as_str()));
        }
    }
    text.push_str("}\n");
    text
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            letter if letter.is_control() => {}
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
