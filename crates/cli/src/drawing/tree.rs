//! A graph as an indented tree: each job under the last of the jobs it waits for.

use std::collections::BTreeMap;
use std::fmt::Write;

use graph::{Accepts, Graph, Job, JobName, Need, Toleration};

use super::{Layers, layers, marks, title};
use crate::columns::Paint;

/// The depth from which the tree is no longer indented, so that a long chain stays readable.
const DEPTH_MAX: usize = 12;
/// How many names are listed before "and N more".
const NAMES_MAX: usize = 4;

/// What there is to say of jobs beside what they are.
pub type Remarks = BTreeMap<JobName, String>;

/// Jobs of one id that hang on the same jobs: legs of a matrix are one entry.
struct Entry<'a> {
    names: Vec<&'a JobName>,
    /// What they wait for beside the job they hang under.
    also_after: Vec<&'a JobName>,
}

/// The tree of `graph`, one line an entry, with remarks on some of its jobs.
pub fn draw(graph: &Graph, remarks: &Remarks) -> String {
    let layers = layers(graph);
    let children = children(graph, remarks, &layers);
    let name = if graph.name.is_empty() { "pipeline" } else { &graph.name };
    let mut text = format!("{name}: {}\n", crate::words::count(super::work(graph), "job"));
    // What is still to be drawn, last first: an entry, its guides, its branch, its depth.
    let mut stack: Vec<(&Entry, String, &str, usize)> = Vec::new();
    push(&mut stack, &children, None, "", 0);
    while let Some((entry, indent, branch, depth)) = stack.pop() {
        let _ = writeln!(text, "{indent}{branch}{}", line(graph, remarks, entry));
        let deeper = match branch {
            _ if depth >= DEPTH_MAX => indent,
            "└─ " => format!("{indent}   "),
            _ => format!("{indent}│  "),
        };
        push(&mut stack, &children, Some(entry.names[0]), &deeper, depth + 1);
    }
    for hole in &graph.holes {
        let _ = match hole.after.is_empty() {
            true => writeln!(text, "… {} grows later", hole.name),
            false => writeln!(text, "… {} grows after {}", hole.name, some(&hole.after.iter().collect::<Vec<_>>())),
        };
    }
    if !graph.statuses.is_empty() {
        let _ = write!(text, "statuses:\n{}", super::statuses(graph, Paint::Plain));
    }
    text
}

type Children<'a> = BTreeMap<Option<&'a JobName>, Vec<Entry<'a>>>;

fn push<'a>(
    stack: &mut Vec<(&'a Entry<'a>, String, &'static str, usize)>,
    children: &'a Children<'a>,
    parent: Option<&'a JobName>,
    indent: &str,
    depth: usize,
) {
    let entries = children.get(&parent).map_or(&[][..], Vec::as_slice);
    for (index, entry) in entries.iter().enumerate().rev() {
        let branch = if index + 1 == entries.len() { "└─ " } else { "├─ " };
        stack.push((entry, indent.to_owned(), branch, depth));
    }
}

/// The entries under each job; under none stand those that wait for nothing.
fn children<'a>(graph: &'a Graph, remarks: &'a Remarks, layers: &Layers<'a>) -> Children<'a> {
    let mut children: Children = BTreeMap::new();
    // A whole matrix hangs under the first of its legs.
    let mut first_leg: BTreeMap<Kind, &JobName> = BTreeMap::new();
    for name in layers.rows.iter().flatten().copied() {
        let kind = kind(graph, remarks, layers, name);
        let mut needs = kind.needs.clone();
        if let Some(&first) = first_leg.get(&kind) {
            let entry = children.values_mut().flatten().find(|entry| entry.names[0] == first);
            if let Some(entry) = entry {
                entry.names.push(name);
            }
            continue;
        }
        first_leg.insert(kind, name);
        let parent = needs.pop().map(|parent| representative(graph, remarks, &first_leg, layers, parent));
        // The other legs of the matrix that it hangs under are said by that.
        needs.retain(|need| Some(representative(graph, remarks, &first_leg, layers, need)) != parent);
        children.entry(parent).or_default().push(Entry { names: vec![name], also_after: needs });
    }
    children
}

/// What the legs of one entry have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Kind<'a> {
    id: &'a str,
    /// The last that it waits for stands last.
    needs: Vec<&'a JobName>,
    /// Why they do not run.
    skipped: Option<String>,
    remark: Option<&'a str>,
}

fn kind<'a>(graph: &'a Graph, remarks: &'a Remarks, layers: &Layers<'a>, name: &'a JobName) -> Kind<'a> {
    let job = &graph.jobs[name];
    let known = job.needs.iter().filter_map(|need| graph.jobs.get_key_value(&need.job));
    let mut needs: Vec<&JobName> = known.map(|(name, _)| name).collect();
    needs.sort_by_key(|need| (layers.of.get(need).copied(), graph.jobs[*need].order));
    let skipped = job.skip.as_ref().map(crate::words::skip_reason);
    Kind { id: name.id(), needs, skipped, remark: remarks.get(name).map(String::as_str) }
}

/// The leg that stands for all legs of `job`'s entry.
fn representative<'a>(
    graph: &'a Graph,
    remarks: &'a Remarks,
    first_leg: &BTreeMap<Kind<'a>, &'a JobName>,
    layers: &Layers<'a>,
    job: &'a JobName,
) -> &'a JobName {
    first_leg.get(&kind(graph, remarks, layers, job)).copied().unwrap_or(job)
}

/// Why a job can never run, if one of its needs says so.
fn never_runs(graph: &Graph, job: &Job) -> Option<String> {
    let waits_in_vain = |need: &&Need| {
        let needed = graph.jobs.get(&need.job);
        need.accepts == Accepts::FAILURE && needed.is_some_and(|job| job.toleration() == Toleration::AllowFailure)
    };
    let need = job.needs.iter().find(waits_in_vain)?;
    Some(format!("never runs: `{}` may fail, and then passes", need.job))
}

fn line(graph: &Graph, remarks: &Remarks, entry: &Entry) -> String {
    let first = entry.names[0];
    let job = &graph.jobs[first];
    let mut text = if entry.names.len() == 1 {
        title(first, job).to_owned()
    } else {
        let legs: Vec<_> =
            entry.names.iter().map(|name| name.as_str()[first.id().len()..].trim_start_matches('/')).collect();
        let shown = legs.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
        let more = legs.len().saturating_sub(NAMES_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{} ×{}: {shown}{more}", first.id(), legs.len())
    };
    let mut marks = marks(job);
    marks.extend(never_runs(graph, job).filter(|_| job.skip.is_none()));
    marks.extend(remarks.get(first).cloned());
    let mut after: Vec<_> = entry.also_after.iter().copied().filter(|need| need.id() != first.id()).collect();
    // What is still to grow is no job to hang under.
    let is_hole = |need: &&JobName| graph.holes.iter().any(|hole| hole.name == need.as_str());
    after.extend(job.needs.iter().map(|need| &need.job).filter(is_hole));
    if !after.is_empty() {
        let hangs = job.needs.iter().any(|need| graph.jobs.contains_key(&need.job));
        marks.insert(0, format!("{} {}", if hangs { "also after" } else { "after" }, some(&after)));
    }
    if !marks.is_empty() {
        let _ = write!(text, "  ({})", marks.join("; "));
    }
    text
}

fn some(names: &[&JobName]) -> String {
    let mut ids: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    ids.dedup();
    let more = ids.len().saturating_sub(NAMES_MAX);
    ids.truncate(NAMES_MAX);
    let text = ids.join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use graph::{Graph, Hole, Job, Need};

    use super::{Remarks, draw};

    #[track_caller]
    fn check(jobs: &[(&str, &[&str])], expected: &str) {
        let mut graph = Graph { name: "demo".to_owned(), ..Graph::default() };
        for (order, (name, needs)) in jobs.iter().enumerate() {
            let needs = needs.iter().map(|need| Need::success(*need)).collect();
            let order = u32::try_from(order).expect("few jobs");
            graph.jobs.insert((*name).into(), Arc::new(Job { order, needs, ..Job::default() }));
        }
        assert_eq!(draw(&graph, &Remarks::new()), expected);
    }

    #[test]
    fn a_job_hangs_under_the_last_it_waits_for() {
        check(
            &[("lint", &[]), ("build", &[]), ("test", &["build"]), ("ship", &["test", "lint"])],
            "demo: 4 jobs\n├─ lint\n└─ build\n   └─ test\n      └─ ship  (also after lint)\n",
        );
    }

    #[test]
    fn what_waits_for_jobs_that_are_still_to_come_says_so() {
        let job = |needs: &[&str]| {
            Arc::new(Job { needs: needs.iter().map(|need| Need::success(*need)).collect(), ..Job::default() })
        };
        let jobs = [("plan", job(&[])), ("sum", job(&["test"])), ("tell", job(&["plan", "test"]))];
        let hole = Hole { name: "test".to_owned(), after: ["plan".into()].into() };
        let jobs = jobs.into_iter().map(|(name, job)| (name.into(), job)).collect();
        let graph = Graph { name: "demo".to_owned(), jobs, holes: vec![hole], ..Graph::default() };
        let tree =
            "demo: 3 jobs\n├─ plan\n│  └─ tell  (also after test)\n└─ sum  (after test)\n… test grows after plan\n";
        assert_eq!(draw(&graph, &Remarks::new()), tree);
    }

    #[test]
    fn what_waits_for_a_failure_that_is_allowed_never_runs() {
        let b = Job { allow_failure: true, ..Job::default() };
        let tell = Job { order: 1, needs: vec![Need::failure("b")], ..Job::default() };
        let jobs = [("b", b), ("tell", tell)].map(|(name, job)| (name.into(), Arc::new(job)));
        let graph = Graph { name: "demo".to_owned(), jobs: jobs.into(), ..Graph::default() };
        let tree = "demo: 2 jobs\n└─ b  (may fail)\n   └─ tell  (never runs: `b` may fail, and then passes)\n";
        assert_eq!(draw(&graph, &Remarks::new()), tree);
    }

    #[test]
    fn legs_of_a_matrix_are_one_line() {
        check(&[("t/1", &[]), ("t/2", &[]), ("end", &["t/1", "t/2"])], "demo: 3 jobs\n└─ t ×2: 1, 2\n   └─ end\n");
    }

    #[test]
    fn a_long_chain_neither_recurses_nor_indents_for_ever() {
        let names: Vec<String> = (0..5000).map(|index| format!("j{index:05}")).collect();
        let mut graph = Graph::default();
        for (index, name) in names.iter().enumerate() {
            let needs = index.checked_sub(1).map(|before| Need::success(names[before].as_str())).into_iter().collect();
            graph.jobs.insert(name.as_str().into(), Arc::new(Job { needs, ..Job::default() }));
        }
        let text = draw(&graph, &Remarks::new());
        assert_eq!(text.lines().count(), 5001);
        assert!(text.lines().all(|line| line.chars().count() < 100));
    }
}
