//! Graphs as people look at them: a tree in the terminal, Graphviz text, an SVG picture. Pure: graph in, text out.

pub mod dot;
pub mod svg;
pub mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use graph::{Graph, Job, JobName, Need, StatusState};

use crate::columns::{Cell, Columns, Paint, Style};

/// A graph's jobs by layer: a job's layer is one more than the highest of those it waits for.
pub struct Layers<'a> {
    /// The names in each layer, in the pipeline's order.
    pub rows: Vec<Vec<&'a JobName>>,
    /// The layer of each job.
    pub of: BTreeMap<&'a JobName, usize>,
}

/// The layers of a graph without circles. A job in a circle is left out.
pub fn layers(graph: &Graph) -> Layers<'_> {
    let mut unmet: BTreeMap<&JobName, usize> = BTreeMap::new();
    let mut dependents: BTreeMap<&JobName, Vec<&JobName>> = BTreeMap::new();
    for (name, job) in &graph.jobs {
        let present = job.needs.iter().filter(|need| graph.jobs.contains_key(&need.job));
        unmet.insert(name, present.clone().count());
        for need in present {
            dependents.entry(&need.job).or_default().push(name);
        }
    }
    let mut of = BTreeMap::new();
    let mut rows: Vec<Vec<&JobName>> = Vec::new();
    let mut row: Vec<&JobName> = unmet.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    while !row.is_empty() {
        row.sort_by_key(|name| (graph.jobs[*name].order, *name));
        let mut next = Vec::new();
        for name in &row {
            of.insert(*name, rows.len());
            for dependent in dependents.get(*name).into_iter().flatten() {
                let count = unmet.get_mut(*dependent).expect("every job is counted");
                *count -= 1;
                if *count == 0 {
                    next.push(*dependent);
                }
            }
        }
        rows.push(std::mem::replace(&mut row, next));
    }
    Layers { rows, of }
}

/// The graph with a job in place of each hole, titled `NAME…` and behind all others in order, and the names of these. What needs a
/// leg that is still to grow needs the hole; a need of what will not be there is left out.
pub fn with_holes(graph: &Graph) -> (Graph, BTreeSet<JobName>) {
    let mut whole = Graph { holes: Vec::new(), ..graph.clone() };
    let mut holes: BTreeMap<&str, JobName> = BTreeMap::new();
    for hole in &graph.holes {
        let title = format!("{}…", hole.name);
        // What a job has as its name already stays that job's.
        let is_free = !graph.jobs.contains_key(hole.name.as_str());
        let name: JobName = if is_free { hole.name.as_str().into() } else { title.as_str().into() };
        let needs = hole.after.iter().map(|job| Need::success(job.clone())).collect();
        let job = Job { title: title.into(), order: u32::MAX, needs, ..Job::default() };
        whole.jobs.insert(name.clone(), Arc::new(job));
        holes.insert(&hole.name, name);
    }
    let meant = |need: &Need| match graph.jobs.contains_key(&need.job) {
        true => Some(need.job.clone()),
        false => holes.get(need.job.as_str()).or_else(|| holes.get(need.job.id())).cloned(),
    };
    for job in whole.jobs.values_mut().filter(|job| !job.needs.iter().all(|need| graph.jobs.contains_key(&need.job))) {
        let needs = job.needs.iter().filter_map(|need| Some(Need { job: meant(need)?, ..need.clone() })).collect();
        let job = Arc::make_mut(job);
        job.needs = needs;
        job.needs.dedup_by(|second, first| second.job == first.job);
    }
    (whole, holes.into_values().collect())
}

/// How many jobs there are beside mere barriers.
pub fn work(graph: &Graph) -> usize {
    graph.jobs.keys().filter(|name| !name.is_barrier()).count()
}

/// What the pipeline says of itself, one line a status: mark, name, state, text.
pub fn statuses(graph: &Graph, paint: Paint) -> String {
    let mut table = Columns::default();
    for (name, status) in &graph.statuses {
        let (mark, word, style) = match status.state {
            StatusState::Ok => ("✓", "ok", Style::Good),
            StatusState::Skipped => ("-", "skipped", Style::Dim),
            StatusState::Pending => ("·", "pending", Style::Dim),
            StatusState::Failed => ("✗", "failed", Style::Bad),
        };
        table.row([Cell::new(mark).style(style), Cell::new(name), Cell::new(word), Cell::new(&status.text)]);
    }
    table.text(paint, 2)
}

/// What people read of a job: its title if it has one, else its full name.
pub fn title<'a>(name: &'a JobName, job: &'a Job) -> &'a str {
    match job.title.as_plain() {
        Some(title) if !title.is_empty() => title,
        _ => name.as_str(),
    }
}

/// What is special about a job, in a few words each: `sandbox`, `gate`, `reusable`, `skipped: …`.
pub fn marks(job: &Job) -> Vec<String> {
    let mut marks = Vec::new();
    if job.environment != graph::Environment::Host {
        marks.push(job.environment.word().to_owned());
    }
    if job.workspace == graph::WorkspaceKind::InPlace {
        marks.push("in place".to_owned());
    }
    if job.gate.is_some() {
        marks.push("gate".to_owned());
    }
    if job.reuse != graph::Reuse::Never {
        marks.push("reusable".to_owned());
    }
    if job.allow_failure {
        marks.push("may fail".to_owned());
    }
    if job.cleanup {
        marks.push("cleanup".to_owned());
    }
    if let Some(condition) = &job.condition {
        marks.push(format!("if {condition}"));
    }
    if let Some(reason) = &job.skip {
        marks.push(format!("skipped: {}", crate::words::skip_reason(reason)));
    }
    marks
}

#[cfg(test)]
mod tests {
    use graph::{Graph, Hole, Job, Need};

    use super::{dot, svg};

    /// `plan`, then `t` that is still to grow, then `s`; `u` needs a leg of it, and one that nobody will see.
    fn growing() -> Graph {
        let job =
            |needs: &[&str]| Job { needs: needs.iter().map(|need| Need::success(*need)).collect(), ..Job::default() };
        let jobs = [("plan", job(&[])), ("s", job(&["t"])), ("u", job(&["gone", "t/1", "t/2"]))];
        let jobs = jobs.into_iter().map(|(name, job)| (name.into(), job.into())).collect();
        let hole = Hole { name: "t".to_owned(), after: vec!["plan".into()] };
        Graph { jobs, holes: vec![hole], ..Graph::default() }
    }

    #[test]
    fn a_hole_is_one_node_of_the_dot_and_each_edge_joins_nodes() {
        let text = dot::draw(&growing());
        let lines = || text.lines().map(str::trim);
        let nodes: Vec<&str> = lines().filter_map(|line| line.split_once(" [label=")).map(|(name, _)| name).collect();
        let edges: Vec<(&str, &str)> =
            lines().filter_map(|line| line.trim_end_matches(';').split_once(" -> ")).collect();
        assert_eq!(nodes, ["\"plan\"", "\"s\"", "\"t\"", "\"u\""]);
        assert_eq!(edges, [("\"t\"", "\"s\""), ("\"plan\"", "\"t\""), ("\"t\"", "\"u\"")]);
        assert!(text.contains("  \"t\" [label=\"t…\", style=dotted];\n"), "{text}");
    }

    #[test]
    fn a_hole_is_a_dotted_box_of_the_picture_with_its_edges() {
        let text = svg::draw(&growing());
        let place = |label: &str, class: &str| {
            let line = text.lines().find(|line| line.contains(&format!(">{label}</text>"))).expect("it is drawn");
            let number = |key: &str| -> usize {
                let (_, after) = line.split_once(&format!("<rect class=\"{class}\" ")).expect("a box");
                let (_, after) = after.split_once(&format!("{key}=\"")).expect("a place");
                after.split('"').next().and_then(|number| number.parse().ok()).expect("a number")
            };
            (number("x"), number("y") + svg::BOX_HEIGHT / 2)
        };
        let (plan, hole, s) = (place("plan", "b"), place("t…", "b o"), place("s", "b"));
        for (from, to) in [(plan, hole), (hole, s)] {
            let (begin, end) =
                (format!("d=\"M{} {} ", from.0 + svg::BOX_WIDTH, from.1), format!(" {} {}\"/>", to.0, to.1));
            assert!(text.lines().any(|line| line.contains(&begin) && line.ends_with(&end)), "{begin} {end}: {text}");
        }
        assert_eq!(text.matches("<path").count(), 3, "{text}");
    }
}
