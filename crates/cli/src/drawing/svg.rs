//! A graph as an SVG picture: layers from left to right, edges as curves. All text is escaped.

use std::collections::BTreeMap;
use std::fmt::Write;

use graph::{Carries, Graph, JobName};

use super::{layers, marks, title};

const BOX_WIDTH: usize = 190;
const BOX_HEIGHT: usize = 40;
const GAP_X: usize = 70;
const GAP_Y: usize = 16;
const MARGIN: usize = 20;
/// Longer labels are cut.
const LABEL_CHARS_MAX: usize = 24;

/// The picture of `graph`.
pub fn draw(graph: &Graph) -> String {
    let mut rows = layers(graph).rows;
    order_rows(graph, &mut rows);
    let mut places: BTreeMap<&JobName, (usize, usize)> = BTreeMap::new();
    for (column, row) in rows.iter().enumerate() {
        for (index, name) in row.iter().enumerate() {
            places.insert(name, (MARGIN + column * (BOX_WIDTH + GAP_X), MARGIN + index * (BOX_HEIGHT + GAP_Y)));
        }
    }
    let highest = rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let width = 2 * MARGIN + rows.len().max(1) * (BOX_WIDTH + GAP_X) - GAP_X;
    let height = 2 * MARGIN + highest * (BOX_HEIGHT + GAP_Y) - GAP_Y;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\">\n<title>{}</title>\n\
         <style>.b{{fill:#f6f8fa;stroke:#57606a}}.s{{stroke-dasharray:4 3;opacity:.6}}.e{{fill:none;stroke:#8c959f}}\
         .o{{stroke-dasharray:2 3}}.m{{font-size:10px;fill:#57606a}}</style>\n",
        escaped(if graph.name.is_empty() { "pipeline" } else { &graph.name })
    );
    for (name, job) in &graph.jobs {
        let Some(&(to_x, to_y)) = places.get(name) else { continue };
        for need in &job.needs {
            let Some(&(from_x, from_y)) = places.get(&need.job) else { continue };
            let (from_x, from_y, to_y) = (from_x + BOX_WIDTH, from_y + BOX_HEIGHT / 2, to_y + BOX_HEIGHT / 2);
            let middle = usize::midpoint(from_x, to_x);
            let class = if need.carries == Carries::Order { "e o" } else { "e" };
            let _ = writeln!(
                text,
                "<path class=\"{class}\" d=\"M{from_x} {from_y} C{middle} {from_y} {middle} {to_y} {to_x} {to_y}\"/>"
            );
        }
    }
    for (name, job) in &graph.jobs {
        let Some(&(x, y)) = places.get(name) else { continue };
        let class = if job.skip.is_some() { "b s" } else { "b" };
        let marks = marks(job).join(", ");
        let (text_x, text_y) = (x + 10, y + if marks.is_empty() { 25 } else { 18 });
        let _ = writeln!(
            text,
            "<g><title>{}</title><rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" \
             height=\"{BOX_HEIGHT}\" rx=\"6\"/><text x=\"{text_x}\" y=\"{text_y}\">{}</text>\
             <text class=\"m\" x=\"{text_x}\" y=\"{}\">{}</text></g>",
            escaped(name.as_str()),
            escaped(&cut(title(name, job), LABEL_CHARS_MAX)),
            y + 32,
            escaped(&cut(&marks, LABEL_CHARS_MAX + 8)),
        );
    }
    text.push_str("</svg>\n");
    text
}

/// Orders each layer by the mean place of what its jobs wait for, so that edges cross less.
fn order_rows(graph: &Graph, rows: &mut [Vec<&JobName>]) {
    let mut place: BTreeMap<&JobName, usize> = BTreeMap::new();
    for row in rows {
        let mean = |name: &JobName| {
            let places: Vec<usize> =
                graph.jobs[name].needs.iter().filter_map(|need| place.get(&need.job).copied()).collect();
            if places.is_empty() { 0 } else { places.iter().sum::<usize>() * 16 / places.len() }
        };
        row.sort_by_key(|name| (mean(name), graph.jobs[*name].order));
        for (index, name) in row.iter().enumerate() {
            place.insert(name, index);
        }
    }
}

fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max - 1).chain(['…']).collect()
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            letter if letter.is_control() => {}
            letter => escaped.push(letter),
        }
    }
    escaped
}
