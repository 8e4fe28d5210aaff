//! How a graph grew: what each evaluation added, and the endings that let it. Facts in, words out.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::Fact;
use engine::fact::What;
use graph::{Graph, Hole, Job, JobName};

use crate::{columns, words};

/// How many names are listed before "and N more".
const NAMES_MAX: usize = 4;

/// The graph as it stands, and what its holes wait for.
#[derive(Default)]
pub struct Growing {
    graph: Option<Arc<Graph>>,
    /// How jobs ended for which a hole waited.
    ended: BTreeMap<JobName, &'static str>,
}

/// What one evaluation changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// The jobs that let it grow, with the word for how they ended, in order of name; empty if it did not grow out of a hole.
    pub because: Vec<(JobName, &'static str)>,
    /// Jobs that were not there before, in the pipeline's order.
    pub added: Vec<JobName>,
    /// How many of them do work.
    pub work: usize,
    /// How many jobs are no longer there.
    pub dropped: usize,
    /// Whether it is the first evaluation.
    pub is_first: bool,
}

impl Growing {
    /// What an earlier process left of it: a graph, if it was evaluated by then.
    pub fn of(graph: Option<Arc<Graph>>) -> Self {
        Self { graph, ended: BTreeMap::new() }
    }

    /// Takes in a fact; of an evaluation that changed which jobs or holes there are, what it changed.
    pub fn take(&mut self, fact: &Fact) -> Option<Growth> {
        match &fact.what {
            What::Evaluated { graph, .. } => return self.grow(graph),
            What::AttemptFinished { job, report, retry_at: None, .. } => self.end(job, report.outcome.word()),
            What::JobEnded { job, outcome, .. } => self.end(job, outcome.word()),
            _ => {}
        }
        None
    }

    /// The graph as it was evaluated last.
    pub fn graph(&self) -> Option<&Arc<Graph>> {
        self.graph.as_ref()
    }

    /// A job of it.
    pub fn job(&self, name: &JobName) -> Option<&Job> {
        self.graph.as_ref()?.jobs.get(name).map(|job| &**job)
    }

    /// What a gate asks: its prompt, or its title if it has none; empty if neither says more than its name.
    pub fn asked(&self, gate: &JobName, prompt: &str) -> String {
        let title = || self.job(gate).and_then(|job| job.title.as_plain()).unwrap_or_default();
        words::harmless(if prompt.is_empty() { title() } else { prompt }).into_owned()
    }

    fn end(&mut self, job: &JobName, word: &'static str) {
        let mut holes = self.graph.iter().flat_map(|graph| &graph.holes);
        if holes.any(|hole| hole.after.contains(job)) {
            self.ended.insert(job.clone(), word);
        }
    }

    fn grow(&mut self, graph: &Arc<Graph>) -> Option<Growth> {
        let before = self.graph.replace(Arc::clone(graph));
        let is_first = before.is_none();
        let before = before.unwrap_or_default();
        let mut added: Vec<JobName> =
            graph.jobs.keys().filter(|job| !before.jobs.contains_key(*job)).cloned().collect();
        added.sort_by_key(|job| graph.jobs[job].order);
        let dropped = before.jobs.keys().filter(|job| !graph.jobs.contains_key(*job)).count();
        let gone = before.holes.iter().filter(|hole| !graph.holes.iter().any(|other| other.name == hole.name));
        let mut because: Vec<(JobName, &'static str)> =
            gone.flat_map(|hole| &hole.after).filter_map(|job| Some((job.clone(), *self.ended.get(job)?))).collect();
        because.sort();
        because.dedup();
        let work = added.iter().filter(|job| !job.is_barrier()).count();
        let growth = Growth { because, added, work, dropped, is_first };
        (is_first || growth != Growth::default()).then_some(growth)
    }
}

impl Growth {
    /// `plan passed: 3 jobs added`, or how many jobs there are if it grew out of no hole; with what is still to grow.
    pub fn text(&self, graph: &Graph) -> String {
        let more = holes(&graph.holes).map(|holes| format!(", {holes}")).unwrap_or_default();
        if self.because.is_empty() {
            return format!("{}{more}", words::count(crate::drawing::work(graph), "job"));
        }
        format!("{}: {}{more}", self.cause(), self.change())
    }

    /// `lint failed, plan passed`.
    pub fn cause(&self) -> String {
        let told = self.because.iter().map(|(job, word)| format!("{job} {word}")).collect::<Vec<_>>();
        some(&told)
    }

    /// `3 jobs added`, `nothing added`.
    pub fn change(&self) -> String {
        let mut text = match self.work {
            0 => "nothing added".to_owned(),
            work => format!("{} added", words::count(work, "job")),
        };
        if self.dropped > 0 {
            text.push_str(&format!(", {} dropped", words::count(self.dropped, "job")));
        }
        text
    }
}

/// `grows after plan`; `None` if there are no holes.
pub fn holes(holes: &[Hole]) -> Option<String> {
    let mut after: Vec<String> = holes.iter().flat_map(|hole| &hole.after).map(|job| job.as_str().to_owned()).collect();
    after.sort();
    after.dedup();
    (!holes.is_empty()).then(|| grows(&after))
}

/// `… then:plan  grows after plan`.
pub fn hole(hole: &Hole) -> String {
    let after: Vec<String> = hole.after.iter().map(|job| job.as_str().to_owned()).collect();
    format!("… {}  {}", columns::one_line(&hole.name), grows(&after))
}

/// What lets it grow. A hole inside another waits for no job itself.
fn grows(after: &[String]) -> String {
    if after.is_empty() { "grows later".to_owned() } else { format!("grows after {}", some(after)) }
}

/// The first of these names, and how many more there are.
pub fn some(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let shown = names.iter().take(NAMES_MAX).map(|name| columns::one_line(name)).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {} more", words::thousands(more as u64)) } else { shown }
}

#[cfg(test)]
mod tests {
    use engine::fact::Ended;
    use graph::{BuildId, Outcome, Timestamp};

    use super::*;

    fn graph(jobs: &[&str], after: &[&str]) -> What {
        let job = |(order, name): (usize, &&str)| {
            let order = u32::try_from(order).expect("few jobs");
            (JobName::from(*name), Arc::new(Job { order, ..Job::default() }))
        };
        let hole = |job: &&str| Hole { name: format!("then:{job}"), after: vec![JobName::from(*job)] };
        let graph = Graph {
            jobs: jobs.iter().enumerate().map(job).collect(),
            holes: after.iter().map(hole).collect(),
            ..Graph::default()
        };
        What::Evaluated { graph: Arc::new(graph), questions: Vec::new(), diagnostics: Vec::new(), program: None }
    }

    fn passed(job: &str) -> What {
        What::JobEnded { job: job.into(), outcome: Outcome::passed(), how: Ended::Decided }
    }

    #[track_caller]
    fn check(facts: Vec<What>, expected: &[&str]) {
        let mut growing = Growing::default();
        let told: Vec<String> = facts
            .into_iter()
            .filter_map(|what| {
                let growth = growing.take(&Fact { build: BuildId(1), at: Timestamp(0), what })?;
                Some(growth.text(growing.graph()?))
            })
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn what_grew_is_told_with_its_cause() {
        check(
            vec![
                graph(&["plan", "lint"], &["plan", "lint"]),
                passed("plan"),
                graph(&["plan", "lint", "b", "a"], &["lint"]),
                passed("a"),
                graph(&["plan", "lint", "b", "a"], &["lint"]),
                passed("lint"),
                graph(&["plan", "lint", "b", "a"], &[]),
            ],
            &[
                "2 jobs, grows after lint, plan",
                "plan passed: 2 jobs added, grows after lint",
                "lint passed: nothing added",
            ],
        );
    }

    #[test]
    fn what_grew_out_of_no_hole_is_a_new_count() {
        check(vec![graph(&["a"], &[]), graph(&["a", "b"], &[])], &["1 job", "2 jobs"]);
    }
}
