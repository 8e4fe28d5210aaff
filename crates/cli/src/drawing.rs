//! Graphs as people look at them: a tree in the terminal, Graphviz text, an SVG picture. Pure: graph in, text out.

pub mod dot;
pub mod svg;
pub mod tree;

use std::collections::BTreeMap;

use graph::{Graph, Job, JobName, StatusState};

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

/// How many jobs there are beside mere barriers.
pub fn work(graph: &Graph) -> usize {
    graph.jobs.keys().filter(|name| !dialects::native::is_barrier(name.as_str())).count()
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
