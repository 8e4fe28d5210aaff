//! The graph as a drawing: a column for each depth, matrices folded, gates and holes among the jobs.
//!
//! At most [`NODES_DRAWN`] nodes are drawn. Of a larger build, jobs of the same depth and state are one node; if that is still too much,
//! the page says so and the tree and the table stand for it.

use std::collections::{BTreeMap, HashMap};

use api::job::Job;
use graph::Hole;
use maud::{Markup, html};

use super::jobs::{Choice, Unit, tally};
use super::title;
use crate::layout::{self, Layout, Measures, Route};
use crate::words::{self, Standing};
use crate::{Ask, paths};

/// The most nodes of a drawing that people can still read.
pub(crate) const NODES_DRAWN: usize = 100;
/// The letters of a node's name that have room.
const LETTERS: usize = 22;
const MEASURES: Measures = Measures { width: 196, height: 38, between_columns: 46, between_rows: 10 };
/// Around the drawing.
const MARGIN: u32 = 6;

/// One box.
struct Node {
    label: String,
    /// The second line.
    about: String,
    /// All of it, in words.
    title: String,
    standing: Standing,
    kind: Kind,
    /// Where it leads.
    link: String,
    /// Leads to another drawing of the same page.
    unfolds: bool,
}

/// What a box stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Job,
    /// Several jobs.
    Several,
    /// A person is asked before it.
    Gate,
    /// Where the pipeline is still to grow.
    Hole,
}

/// A drawing before it has places.
struct Sketch {
    nodes: Vec<Node>,
    edges: Vec<(usize, usize)>,
    /// Why it is not as one would expect.
    note: Option<String>,
}

/// Whether the drawing tells more than a list would, and can be read.
pub(crate) fn is_worth_it(units: &[Unit], holes: &[Hole]) -> bool {
    let has_needs = || units.iter().any(|unit| unit.jobs.iter().any(|job| !job.needs.is_empty()));
    (2..=NODES_DRAWN).contains(&(units.len() + holes.len())) && has_needs()
}

/// The drawing.
pub(crate) fn show(units: &[Unit], holes: &[Hole], choice: &Choice, ask: &Ask) -> Markup {
    let sketch = if units.len() + holes.len() <= NODES_DRAWN {
        sketch(units, holes, choice, ask)
    } else {
        folded(units, choice)
    };
    let Sketch { nodes, edges, note } = sketch;
    let layout = layout::lay_out(nodes.len(), &edges, MEASURES);
    html! {
        @if let Some(note) = note { p.quiet { (note) } }
        @if !choice.unfolded.is_empty() { p.more { a data-in-page href=(choice.link(&[("unfold", "")])) { "Fold matrices" } } }
        @if !layout.nodes.is_empty() { (drawing(&nodes, &layout)) }
    }
}

/// A node for each unit and hole; unfolded matrices have one for each leg, as far as there is room.
fn sketch(units: &[Unit], holes: &[Hole], choice: &Choice, ask: &Ask) -> Sketch {
    let mut nodes = Vec::new();
    let mut of_job: HashMap<&str, usize> = HashMap::new();
    let mut room = NODES_DRAWN - units.len() - holes.len();
    let mut note = None;
    for unit in units {
        let is_wanted = unit.is_family() && choice.unfolded.contains(unit.name);
        let has_room = unit.jobs.len() - 1 <= room;
        if is_wanted && !has_room {
            note = Some(format!("{} has more legs than a drawing can show: its list has them all.", unit.name));
        }
        if !unit.is_family() || is_wanted && has_room {
            room -= unit.jobs.len() - 1;
            for job in &unit.jobs {
                of_job.insert(&job.name, nodes.len());
                nodes.push(node_of_job(job, ask));
            }
        } else {
            of_job.extend(unit.jobs.iter().map(|job| (job.name.as_str(), nodes.len())));
            nodes.push(node_of_family(unit, choice));
        }
    }
    let first_hole = nodes.len();
    for hole in holes {
        of_job.entry(&hole.name).or_insert(nodes.len());
        nodes.push(node_of_hole(hole));
    }
    let mut edges = Vec::new();
    for job in units.iter().flat_map(|unit| &unit.jobs) {
        let needs = job.needs.iter().filter_map(|need| of_job.get(need.as_str()));
        edges.extend(needs.map(|need| (*need, of_job[job.name.as_str()])));
    }
    for (index, hole) in holes.iter().enumerate() {
        let after = hole.after.iter().filter_map(|job| of_job.get(job.as_str()));
        edges.extend(after.map(|job| (*job, first_hole + index)));
    }
    Sketch { nodes, edges, note }
}

/// A node for each depth and state: what a build of thousands of jobs looks like from afar.
fn folded(units: &[Unit], choice: &Choice) -> Sketch {
    let depths = depths(units);
    let mut groups: BTreeMap<(usize, Standing), Vec<&Job>> = BTreeMap::new();
    for job in units.iter().flat_map(|unit| &unit.jobs) {
        groups
            .entry((depths.get(job.name.as_str()).copied().unwrap_or(0), Standing::of_job(job)))
            .or_default()
            .push(job);
    }
    if groups.len() > NODES_DRAWN {
        let note = format!(
            "A drawing of {} columns would not be readable: the tree and the table have all of this build.",
            groups.keys().map(|(depth, _)| depth + 1).max().unwrap_or(0)
        );
        return Sketch { nodes: Vec::new(), edges: Vec::new(), note: Some(note) };
    }
    let of_job: HashMap<&str, usize> = groups
        .values()
        .enumerate()
        .flat_map(|(index, jobs)| jobs.iter().map(move |job| (job.name.as_str(), index)))
        .collect();
    let mut edges: Vec<(usize, usize)> = units
        .iter()
        .flat_map(|unit| &unit.jobs)
        .flat_map(|job| {
            job.needs.iter().filter_map(|need| Some((*of_job.get(need.as_str())?, of_job[job.name.as_str()])))
        })
        .collect();
    edges.sort_unstable();
    edges.dedup();
    let node = |((depth, standing), jobs): (&(usize, Standing), &Vec<&Job>)| Node {
        label: format!("{} {}", jobs.len(), standing.word()),
        about: format!("at depth {}", depth + 1),
        title: format!("{} {} at depth {}", jobs.len(), standing.word(), depth + 1),
        standing: *standing,
        kind: Kind::Several,
        link: choice.link(&[("state", standing.word()), ("view", "table")]),
        unfolds: true,
    };
    let note = format!("More than {NODES_DRAWN} boxes could not be read, so jobs of one depth and state are one.");
    Sketch { nodes: groups.iter().map(node).collect(), edges, note: Some(note) }
}

/// How many jobs are behind one another up to each job, by name.
fn depths<'j>(units: &[Unit<'j>]) -> HashMap<&'j str, usize> {
    let jobs: HashMap<&str, &Job> =
        units.iter().flat_map(|unit| &unit.jobs).map(|job| (job.name.as_str(), *job)).collect();
    let mut depths: HashMap<&str, usize> = HashMap::with_capacity(jobs.len());
    // A walk without recursion: a job stays on the stack until all it needs has its depth. One in a circle gets that of its first visit.
    for start in jobs.values() {
        let mut stack = vec![(*start, false)];
        let mut entered = std::collections::HashSet::new();
        while let Some((job, is_back)) = stack.pop() {
            if depths.contains_key(job.name.as_str()) {
                continue;
            }
            let needs = || job.needs.iter().filter_map(|need| jobs.get(need.as_str()).copied());
            if is_back || !entered.insert(job.name.as_str()) {
                let depth = needs().filter_map(|need| depths.get(need.name.as_str())).map(|depth| depth + 1).max();
                depths.insert(&job.name, depth.unwrap_or(0));
                continue;
            }
            stack.push((job, true));
            stack.extend(needs().filter(|need| !depths.contains_key(need.name.as_str())).map(|need| (need, false)));
        }
    }
    depths
}

fn node_of_job(job: &Job, ask: &Ask) -> Node {
    let standing = Standing::of_job(job);
    let took = words::took(job.started, job.finished, ask.now).map(words::duration);
    let about = match (&job.reused, took) {
        (Some(from), _) => format!("cached from build {}", from.build),
        (None, Some(took)) => took,
        (None, None) if job.gate && standing == Standing::Waiting => "asks first".to_owned(),
        (None, None) if standing == Standing::Asking => "waits for an answer".to_owned(),
        (None, None) => standing.word().to_owned(),
    };
    let state = if about == standing.word() { String::new() } else { format!(", {}", standing.word()) };
    let after = if job.needs.is_empty() { String::new() } else { format!(", after {}", job.needs.join(", ")) };
    Node {
        label: title(job).to_owned(),
        title: format!("{} {about}{state}{after}", title(job)),
        about,
        standing,
        kind: if job.gate { Kind::Gate } else { Kind::Job },
        link: paths::job(job.build, &job.name),
        unfolds: false,
    }
}

fn node_of_family(unit: &Unit, choice: &Choice) -> Node {
    let mut unfolded: Vec<&str> = choice.unfolded.iter().map(String::as_str).collect();
    unfolded.push(unit.name);
    let tally = tally(unit.jobs.iter().copied());
    Node {
        label: format!("{} ×{}", unit.name, unit.jobs.len()),
        title: format!("{} ×{} {tally}; unfold", unit.name, unit.jobs.len()),
        about: tally,
        standing: unit.standing(),
        kind: Kind::Several,
        link: choice.link(&[("unfold", &unfolded.join(","))]),
        unfolds: true,
    }
}

fn node_of_hole(hole: &Hole) -> Node {
    let after: Vec<&str> = hole.after.iter().map(graph::JobName::as_str).collect();
    Node {
        label: hole.name.clone(),
        about: format!("grows after {}", after.join(", ")),
        title: format!("{} grows after {}: the pipeline adds these jobs", hole.name, after.join(", ")),
        standing: Standing::Waiting,
        kind: Kind::Hole,
        link: String::new(),
        unfolds: false,
    }
}

fn drawing(nodes: &[Node], layout: &Layout) -> Markup {
    let (width, height) = (layout.width + 2 * MARGIN, layout.height + 2 * MARGIN);
    html! {
        svg.graph width=(width) height=(height) viewBox=(format!("-{MARGIN} -{MARGIN} {width} {height}")) role="group" aria-label="The jobs, and what needs what" {
            g aria-hidden="true" { @for route in &layout.edges { path.edge data-from=(route.from) data-to=(route.to) d=(way(route)) {} } }
            @for (index, (node, place)) in nodes.iter().zip(&layout.nodes).enumerate() {
                @if node.link.is_empty() { g.node.(class(node)) data-node=(index) role="img" tabindex="0" { (inside(node, *place)) } }
                @else { a.node.(class(node)) data-node=(index) href=(node.link) data-in-page[node.unfolds] { (inside(node, *place)) } }
            }
        }
    }
}

fn class(node: &Node) -> String {
    let kind = match node.kind {
        Kind::Job => "",
        Kind::Several => " several",
        Kind::Gate => " gated",
        Kind::Hole => " hole",
    };
    format!("{}{kind}", node.standing.word())
}

fn inside(node: &Node, (x, y): (u32, u32)) -> Markup {
    let Measures { width, height, .. } = MEASURES;
    html! {
        title { (node.title) }
        @if node.kind == Kind::Several { rect.behind x=(x + 4) y=(y + 4) width=(width) height=(height) rx="6" {} }
        rect.box x=(x) y=(y) width=(width) height=(height) rx="6" {}
        rect.side x=(x) y=(y + 5) width="3" height=(height - 10) {}
        text.sign x=(x + 17) y=(y + 24) { (if node.kind == Kind::Hole { "…" } else { node.standing.sign() }) }
        // A drawing within the drawing cuts what is too long.
        svg x=(x + 30) y=(y) width=(width - 34) height=(height) {
            text.label x="0" y="16" { (cut(&node.label)) }
            text.about x="0" y="31" { (cut(&node.about)) }
        }
    }
}

/// A text that fits: of a longer one the middle is left out, since names that begin alike differ at their ends.
fn cut(text: &str) -> String {
    let count = text.chars().count();
    if count <= LETTERS {
        return text.to_owned();
    }
    let (head, tail) = (LETTERS / 2, LETTERS - 1 - LETTERS / 2);
    text.chars().take(head).chain(['…']).chain(text.chars().skip(count - tail)).collect()
}

/// The way of an edge as a path: level through columns, bent between them.
fn way(route: &Route) -> String {
    let mut way = String::new();
    for (index, (x, y)) in route.points.iter().enumerate() {
        let (before_x, before_y) = route.points[index.saturating_sub(1)];
        let middle = u32::midpoint(before_x, *x);
        way.push_str(&match index {
            0 => format!("M{x} {y}"),
            _ if before_y == *y => format!("H{x}"),
            _ => format!("C{middle} {before_y} {middle} {y} {x} {y}"),
        });
    }
    way
}

#[cfg(test)]
mod tests {
    use super::super::jobs;
    use super::super::tests::job;
    use super::*;

    fn drawn(jobs: &[Job], holes: &[Hole], query: &[(&str, &str)]) -> String {
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let ask = Ask { query, ..Ask::default() };
        let choice = Choice::of(&ask, "/builds/1".to_owned());
        show(&jobs::units(jobs), holes, &choice, &ask).into_string()
    }

    #[test]
    fn names_that_begin_alike_are_told_apart() {
        let names = ["integration-tests-of-the-parser", "integration-tests-of-the-writer"];
        assert_eq!(names.map(cut), ["integration…the-parser", "integration…the-writer"]);
        assert_eq!(names.map(|name| cut(name).chars().count()), [LETTERS; 2]);
        assert_eq!(cut("exactly-twenty-two-let"), "exactly-twenty-two-let");
    }

    #[test]
    fn a_matrix_is_one_box_until_it_is_unfolded() {
        let jobs =
            [job("a", &[], None), job("t/1", &["a"], None), job("t/2", &["a"], None), job("z", &["t/1", "t/2"], None)];
        let html = drawn(&jobs, &[], &[]);
        assert_eq!((html.matches("data-node").count(), html.matches("data-from").count()), (3, 2), "{html}");
        assert!(html.contains("t ×2") && html.contains("/builds/1?unfold=t"), "{html}");
        let html = drawn(&jobs, &[], &[("unfold", "t")]);
        assert!(html.contains("Fold matrices"), "{html}");
        assert_eq!((html.matches("data-node").count(), html.matches("data-from").count()), (4, 4), "{html}");
    }

    #[test]
    fn what_is_to_come_is_drawn() {
        let hole = Hole { name: "tests".to_owned(), after: vec![graph::JobName::from("plan")] };
        let html = drawn(&[job("plan", &[], None), job("done", &["tests"], None)], &[hole], &[]);
        assert!(html.contains("grows after plan"), "{html}");
        assert_eq!(html.matches("data-from").count(), 2, "{html}");
    }

    #[test]
    fn thousands_of_jobs_are_drawn_by_depth_and_state() {
        let jobs: Vec<Job> = (0..3000)
            .map(|n| job(&format!("j{n}"), if n < 1000 { &[] } else { &["j0"] }, (n < 500).then_some((0, 1))))
            .collect();
        let html = drawn(&jobs, &[], &[]);
        assert!(html.contains("500 waiting") && html.contains("2000 waiting") && html.len() < 6000, "{html}");
        // A chain cannot be folded: it is told so.
        let names: Vec<String> = (0..1000).map(|n| format!("j{n}")).collect();
        let chain: Vec<Job> =
            (0..1000).map(|n| job(&names[n], &[names[n.max(1) - 1].as_str()][..n.min(1)], None)).collect();
        let html = drawn(&chain, &[], &[]);
        assert!(html.contains("1000 columns") && !html.contains("<svg"), "{html}");
    }
}
