//! A graph as an SVG picture: layers from left to right, edges as curves. All text is escaped.

use std::collections::BTreeMap;
use std::fmt::Write;

use graph::{Carries, Graph, JobName};

use super::{Layers, layers, marks, title, with_holes};
use crate::columns::cut;

/// The width of a job's box.
pub(super) const BOX_WIDTH: usize = 190;
/// The height of a job's box.
pub(super) const BOX_HEIGHT: usize = 40;
/// The height of a lane in which a long edge passes the boxes of a layer.
const LANE_HEIGHT: usize = 8;
const GAP_X: usize = 70;
const GAP_Y: usize = 16;
const MARGIN: usize = 20;
/// Longer labels are cut, counted in cells.
const LABEL_CELLS_MAX: usize = 24;
/// If edges pass over more boxes than this in all, they are drawn straight through: the picture's size is bounded by it.
const PASSES_MAX: usize = 20_000;

/// What stands at one place of a layer.
#[derive(Clone, Copy)]
struct Slot<'a> {
    /// The job, or the one whose edges pass here.
    name: &'a JobName,
    height: usize,
}

/// Where the slots of a name begin, by layer: the job itself in its own layer, lanes in later ones.
type Places<'a> = BTreeMap<(usize, &'a JobName), (usize, usize)>;

/// The picture of `graph`.
pub fn draw(graph: &Graph) -> String {
    let (graph, holes) = &with_holes(graph);
    let layers = layers(graph);
    let rows = ordered(graph, &layers, with_lanes(graph, &layers));
    let height_of = |row: &Vec<Slot>| row.iter().map(|slot| slot.height + GAP_Y).sum::<usize>().saturating_sub(GAP_Y);
    let highest = rows.iter().map(height_of).max().unwrap_or(0).max(BOX_HEIGHT);
    let mut places: Places = BTreeMap::new();
    for (layer, row) in rows.iter().enumerate() {
        let mut y = MARGIN + (highest - height_of(row)) / 2;
        for slot in row {
            places.insert((layer, slot.name), (MARGIN + layer * (BOX_WIDTH + GAP_X), y));
            y += slot.height + GAP_Y;
        }
    }
    let width = 2 * MARGIN + rows.len().max(1) * (BOX_WIDTH + GAP_X) - GAP_X;
    let height = 2 * MARGIN + highest;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\">\n<title>{}</title>\n\
         <style>.b{{fill:#f6f8fa;stroke:#57606a}}.s{{stroke-dasharray:4 3;fill:#fff}}.e{{fill:none;stroke:#8c959f}}\
         .o{{stroke-dasharray:2 3}}.t{{fill:#1f2328}}.m{{font-size:10px;fill:#57606a}}\
         @media(prefers-color-scheme:dark){{.b{{fill:#21262d;stroke:#8b949e}}.s{{fill:#0d1117}}.t{{fill:#e6edf3}}\
         .m{{fill:#9198a1}}}}</style>\n",
        escaped(if graph.name.is_empty() { "pipeline" } else { &graph.name })
    );
    for (name, job) in &graph.jobs {
        for need in &job.needs {
            let (Some(&from), Some(&to)) = (layers.of.get(&need.job), layers.of.get(name)) else { continue };
            let class = if need.carries == Carries::Order { "e o" } else { "e" };
            let _ = writeln!(text, "<path class=\"{class}\" d=\"{}\"/>", path(&places, (from, &need.job), (to, name)));
        }
    }
    for (name, job) in &graph.jobs {
        let Some(&(x, y)) = layers.of.get(name).and_then(|&layer| places.get(&(layer, name))) else { continue };
        let class = match &job.skip {
            _ if holes.contains(name) => "b o",
            Some(_) => "b s",
            None => "b",
        };
        let marks = marks(job).join(", ");
        let (text_x, text_y) = (x + 10, y + if marks.is_empty() { 25 } else { 18 });
        let _ = writeln!(
            text,
            "<g><title>{}</title><rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" \
             height=\"{BOX_HEIGHT}\" rx=\"6\"/><text class=\"t\" x=\"{text_x}\" y=\"{text_y}\">{}</text>\
             <text class=\"m\" x=\"{text_x}\" y=\"{}\">{}</text></g>",
            escaped(name.as_str()),
            escaped(&cut(title(name, job), LABEL_CELLS_MAX)),
            y + 32,
            escaped(&cut(&marks, LABEL_CELLS_MAX + 8)),
        );
    }
    text.push_str("</svg>\n");
    text
}

/// An edge from the right of one box to the left of another, through the lanes between.
fn path<'a>(places: &Places<'a>, from: (usize, &'a JobName), to: (usize, &'a JobName)) -> String {
    let (from_x, from_y) = places[&from];
    let (mut x, mut y) = (from_x + BOX_WIDTH, from_y + BOX_HEIGHT / 2);
    let mut text = format!("M{x} {y}");
    let mut curve = |text: &mut String, to_x: usize, to_y: usize, end_x: usize| {
        let middle = usize::midpoint(x, to_x);
        let _ = write!(text, " C{middle} {y} {middle} {to_y} {to_x} {to_y}");
        (x, y) = (end_x, to_y);
    };
    let lanes = (from.0 + 1..to.0).map_while(|layer| places.get(&(layer, from.1)));
    for &(lane_x, lane_y) in lanes {
        let (lane_y, end_x) = (lane_y + LANE_HEIGHT / 2, lane_x + BOX_WIDTH);
        curve(&mut text, lane_x, lane_y, end_x);
        let _ = write!(text, " H{end_x}");
    }
    let (to_x, to_y) = places[&to];
    curve(&mut text, to_x, to_y + BOX_HEIGHT / 2, to_x);
    text
}

/// The layers with a lane for each job whose edges pass over one.
fn with_lanes<'a>(graph: &'a Graph, layers: &Layers<'a>) -> Vec<Vec<Slot<'a>>> {
    let boxes = |row: &Vec<&'a JobName>| row.iter().map(|name| Slot { name, height: BOX_HEIGHT }).collect();
    let mut rows: Vec<Vec<Slot>> = layers.rows.iter().map(boxes).collect();
    // How far the lanes of a job reach: up to the layer before its last dependent.
    let mut reach: BTreeMap<&JobName, usize> = BTreeMap::new();
    let mut passes = 0_usize;
    for (name, job) in &graph.jobs {
        for need in &job.needs {
            if let (Some((&source, _)), Some(&to)) = (layers.of.get_key_value(&need.job), layers.of.get(name)) {
                let end = reach.entry(source).or_insert(to);
                *end = to.max(*end);
                passes += to.saturating_sub(layers.of[source] + 1);
            }
        }
    }
    if passes <= PASSES_MAX {
        for (name, end) in reach {
            for row in &mut rows[(layers.of[name] + 1).min(end)..end] {
                row.push(Slot { name, height: LANE_HEIGHT });
            }
        }
    }
    rows
}

/// Orders each layer by the mean place of what leads to it, so that edges cross less.
fn ordered<'a>(graph: &Graph, layers: &Layers<'a>, mut rows: Vec<Vec<Slot<'a>>>) -> Vec<Vec<Slot<'a>>> {
    // By name: where it, or its lane, stands in the layer before.
    let mut before: BTreeMap<&JobName, usize> = BTreeMap::new();
    for (layer, row) in rows.iter_mut().enumerate() {
        let mean = |slot: &Slot| {
            let own = [slot.name];
            let places: Vec<usize> = match layers.of[slot.name] == layer {
                true => graph.jobs[slot.name].needs.iter().filter_map(|need| before.get(&need.job).copied()).collect(),
                false => own.iter().filter_map(|name| before.get(name).copied()).collect(),
            };
            if places.is_empty() { 0 } else { places.iter().sum::<usize>() * 16 / places.len() }
        };
        row.sort_by_cached_key(|slot| (mean(slot), graph.jobs[slot.name].order));
        before = row.iter().enumerate().map(|(index, slot)| (slot.name, index)).collect();
    }
    rows
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use graph::{Graph, Job, Need};

    use super::{LABEL_CELLS_MAX, draw};

    fn drawn(jobs: &[(&str, &[&str])]) -> String {
        let mut graph = Graph::default();
        for (order, (name, needs)) in jobs.iter().enumerate() {
            let needs = needs.iter().map(|need| Need::success(*need)).collect();
            let order = u32::try_from(order).expect("few jobs");
            graph.jobs.insert((*name).into(), Arc::new(Job { order, needs, ..Job::default() }));
        }
        draw(&graph)
    }

    #[test]
    fn a_long_edge_passes_beside_the_boxes_between() {
        let text = drawn(&[("a", &[]), ("b", &["a"]), ("c", &["a", "b"])]);
        // `a` and `c` stand in the middle, `b` below the lane.
        let middle = text.lines().filter(|line| line.contains("<path")).collect::<Vec<_>>();
        assert_eq!(
            middle,
            [
                r#"<path class="e" d="M210 52 C245 52 245 64 280 64"/>"#,
                r#"<path class="e" d="M210 52 C245 52 245 24 280 24 H470 C505 24 505 52 540 52"/>"#,
                r#"<path class="e" d="M470 64 C505 64 505 52 540 52"/>"#,
            ]
        );
    }

    #[test]
    fn labels_fit_their_boxes_and_are_escaped() {
        let text = drawn(&[("<a&b>", &[]), (&"測".repeat(30), &[])]);
        assert!(text.contains(">&lt;a&amp;b&gt;</text>"), "{text}");
        assert!(text.contains(&format!(">{}…</text>", "測".repeat(LABEL_CELLS_MAX / 2 - 1))), "{text}");
    }

    #[test]
    fn large_graphs_are_drawn() {
        let names: Vec<String> = (0..3000).map(|index| format!("j{index:04}")).collect();
        // Each needs the first and the one before: a lane of the first in every layer.
        let needs: Vec<Vec<&str>> = (0..names.len())
            .map(|index| if index == 0 { vec![] } else { vec![&*names[0], &*names[index - 1]] })
            .collect();
        let jobs: Vec<(&str, &[&str])> = names.iter().zip(&needs).map(|(name, needs)| (&**name, &**needs)).collect();
        let text = drawn(&jobs);
        assert_eq!(text.matches("<rect").count(), 3000);
        assert!(text.len() < 3_000_000, "{} bytes", text.len());
    }
}
