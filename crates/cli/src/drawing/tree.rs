//! A graph as an indented tree: each job under the last of the jobs it waits for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

use graph::{Accepts, Graph, Job, JobName, Need, Toleration};

use super::{Layers, layers, marks, title};
use crate::columns::{Paint, bare};

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

/// The tree of `graph`, one line an entry, with remarks on some of its jobs. What jobs are called commands no terminal.
pub fn draw(graph: &Graph, remarks: &Remarks) -> String {
    let layers = layers(graph);
    let entries = Entries::of(kinds(graph, remarks, &layers));
    let holes: BTreeSet<&str> = graph.holes.iter().map(|hole| hole.name.as_str()).collect();
    let name = if graph.name.is_empty() { "pipeline" } else { &graph.name };
    let mut text = format!("{}: {}\n", bare(name), crate::words::count(super::work(graph), "job"));
    // What is still to be drawn, last first: an entry, its guides, its branch, its depth.
    let mut stack: Vec<(&Entry, String, &str, usize)> = Vec::new();
    push(&mut stack, &entries, None, "", 0);
    while let Some((entry, indent, branch, depth)) = stack.pop() {
        let _ = writeln!(text, "{indent}{branch}{}", bare(&line(graph, remarks, &holes, entry)));
        let deeper = match branch {
            _ if depth >= DEPTH_MAX => indent,
            "└─ " => format!("{indent}   "),
            _ => format!("{indent}│  "),
        };
        push(&mut stack, &entries, Some(entry.names[0]), &deeper, depth + 1);
    }
    for hole in &graph.holes {
        let grows = match hole.after.is_empty() {
            true => format!("… {} grows later", hole.name),
            false => format!("… {} grows after {}", hole.name, some(&hole.after.iter().collect::<Vec<_>>())),
        };
        let _ = writeln!(text, "{}", bare(&grows));
    }
    if !graph.statuses.is_empty() {
        let _ = write!(text, "statuses:\n{}", super::statuses(graph, Paint::Plain));
    }
    text
}

fn push<'a>(
    stack: &mut Vec<(&'a Entry<'a>, String, &'static str, usize)>,
    entries: &'a Entries<'a>,
    parent: Option<&'a JobName>,
    indent: &str,
    depth: usize,
) {
    let below = entries.below.get(&parent).map_or(&[][..], Vec::as_slice);
    for (index, &entry) in below.iter().enumerate().rev() {
        let branch = if index + 1 == below.len() { "└─ " } else { "├─ " };
        stack.push((&entries.all[entry], indent.to_owned(), branch, depth));
    }
}

/// Every entry, and which stand under which job.
#[derive(Default)]
struct Entries<'a> {
    all: Vec<Entry<'a>>,
    /// By the first leg of the entry above, places in `all`; under none stand those that wait for nothing.
    below: BTreeMap<Option<&'a JobName>, Vec<usize>>,
}

impl<'a> Entries<'a> {
    /// The entries of jobs with their kinds, each job behind all that it needs.
    fn of(kinds: impl Iterator<Item = (&'a JobName, Kind<'a>)>) -> Self {
        let mut entries = Self::default();
        // The jobs so far, and the entry of each.
        let mut jobs: Vec<(&JobName, usize)> = Vec::new();
        // A whole matrix hangs under the first of its legs.
        let mut entry_of: HashMap<Kind, usize> = HashMap::new();
        for (name, kind) in kinds {
            if let Some(&entry) = entry_of.get(&kind) {
                entries.all[entry].names.push(name);
                jobs.push((name, entry));
                continue;
            }
            let above = kind.needs.last().map(|&last| jobs[last].1);
            // The other legs of the matrix that it hangs under are said by that.
            let also_after = kind.needs.iter().map(|&need| jobs[need]).filter(|&(_, entry)| Some(entry) != above);
            let also_after = also_after.map(|(name, _)| name).collect();
            let entry = entries.all.len();
            let parent = above.map(|above| entries.all[above].names[0]);
            entries.below.entry(parent).or_default().push(entry);
            entries.all.push(Entry { names: vec![name], also_after });
            entry_of.insert(kind, entry);
            jobs.push((name, entry));
        }
        entries
    }
}

/// What the legs of one entry have in common.
#[derive(PartialEq, Eq, Hash)]
struct Kind<'a> {
    id: &'a str,
    /// Places of jobs in the layers, counted over all rows, ascending: the last that it waits for stands last.
    needs: Vec<usize>,
    /// Why they do not run.
    skipped: Option<String>,
    remark: Option<&'a str>,
}

/// The kind of each job, in the order of the layers. Each is made once.
fn kinds<'a>(
    graph: &'a Graph,
    remarks: &'a Remarks,
    layers: &Layers<'a>,
) -> impl Iterator<Item = (&'a JobName, Kind<'a>)> {
    let names: Vec<&JobName> = layers.rows.iter().flatten().copied().collect();
    let places: HashMap<&JobName, usize> = names.iter().enumerate().map(|(place, name)| (*name, place)).collect();
    names.into_iter().map(move |name| {
        let job = &graph.jobs[name];
        let mut needs: Vec<usize> = job.needs.iter().filter_map(|need| places.get(&need.job).copied()).collect();
        needs.sort_unstable();
        let skipped = job.skip.as_ref().map(crate::words::skip_reason);
        (name, Kind { id: name.id(), needs, skipped, remark: remarks.get(name).map(String::as_str) })
    })
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

fn line(graph: &Graph, remarks: &Remarks, holes: &BTreeSet<&str>, entry: &Entry) -> String {
    let first = entry.names[0];
    let job = &graph.jobs[first];
    let mut text = if entry.names.len() == 1 {
        // By its name it is asked for.
        match title(first, job) {
            title if title == first.as_str() => title.to_owned(),
            title => format!("{first} ({title})"),
        }
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
    after.extend(job.needs.iter().map(|need| &need.job).filter(|need| holes.contains(need.as_str())));
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

    use graph::{Graph, Hole, Job, Need, SkipReason};

    use super::{Entries, Remarks, draw, kinds, layers};

    fn graph_of(jobs: &[(&str, &[&str])]) -> Graph {
        let mut graph = Graph { name: "demo".to_owned(), ..Graph::default() };
        for (order, (name, needs)) in jobs.iter().enumerate() {
            let needs = needs.iter().map(|need| Need::success(*need)).collect();
            let order = u32::try_from(order).expect("few jobs");
            graph.jobs.insert((*name).into(), Arc::new(Job { order, needs, ..Job::default() }));
        }
        graph
    }

    #[track_caller]
    fn check(jobs: &[(&str, &[&str])], expected: &str) {
        assert_eq!(draw(&graph_of(jobs), &Remarks::new()), expected);
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
    fn legs_of_one_matrix_hang_together_if_they_wait_for_the_same() {
        check(
            &[
                ("a", &[]),
                ("b", &[]),
                ("t/1", &["a"]),
                ("t/2", &["b"]),
                ("t/3", &["a"]),
                ("end", &["t/1", "t/2", "t/3"]),
            ],
            "demo: 6 jobs\n├─ a\n│  └─ t ×2: 1, 3\n│     └─ end  (also after t/2)\n└─ b\n   └─ t/2\n",
        );
    }

    #[test]
    fn the_kind_of_each_job_is_made_once_however_many_edges_there_are() {
        let names: Vec<Vec<String>> =
            ["a", "b", "c"].map(|layer| (0..400).map(|index| format!("{layer}{index:03}")).collect()).into();
        let mut jobs: Vec<(&str, Vec<&str>)> = Vec::new();
        for (layer, row) in names.iter().enumerate() {
            let needs: Vec<&str> =
                layer.checked_sub(1).into_iter().flat_map(|above| &names[above]).map(|name| &**name).collect();
            jobs.extend(row.iter().map(|name| (&**name, needs.clone())));
        }
        let jobs: Vec<(&str, &[&str])> = jobs.iter().map(|(name, needs)| (*name, &**needs)).collect();
        let (graph, remarks) = (graph_of(&jobs), Remarks::new());
        let mut n_kinds = 0;
        let entries = Entries::of(kinds(&graph, &remarks, &layers(&graph)).inspect(|_| n_kinds += 1));
        assert_eq!((n_kinds, entries.all.len()), (1200, 1200));
        let tree = draw(&graph, &remarks);
        assert_eq!(tree.lines().count(), 1201);
        assert!(tree.ends_with("      └─ c399  (also after b000, b001, b002, b003 and 395 more)\n"), "{tree}");
    }

    #[test]
    fn what_a_job_is_called_commands_no_terminal() {
        let mut graph = graph_of(&[("a\u{1b}]0;x\u{7}/\u{9b}1", &[])]);
        let skip = SkipReason::Condition { text: "\u{1b}[2J".to_owned() };
        let job = Job { title: "\u{1b}[31mred\nX".into(), order: 1, skip: Some(skip), ..Job::default() };
        graph.jobs.insert("c".into(), Arc::new(job));
        graph.holes.push(Hole { name: "h\r".to_owned(), after: vec!["c".into()] });
        graph.name = "de\u{8}mo".to_owned();
        let tree = "demo: 2 jobs\n├─ a/1\n└─ c (redX)  (skipped: `` does not hold)\n… h grows after c\n";
        assert_eq!(draw(&graph, &Remarks::new()), tree);
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
