//! When the jobs of a build waited and ran, and which of them decided how long it took.

use std::collections::{BTreeSet, HashMap};

use api::job::Job;
use graph::Timestamp;
use maud::{Markup, html};

use crate::words::{self, Standing};

/// The width of a bar's drawing in its own units.
const WIDTH: u64 = 1000;

/// The span of time that all bars of a build have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    from: Timestamp,
    to: Timestamp,
}

impl Scale {
    /// From the request for the build to its end, or to now.
    pub(crate) fn new(from: Timestamp, to: Timestamp) -> Self {
        Self { from, to: to.max(from) }
    }

    fn place(self, at: Timestamp) -> u64 {
        let whole = self.to.ms_since(self.from).max(1);
        (at.ms_since(self.from) * WIDTH / whole).min(WIDTH)
    }
}

/// When a job could begin: when the last of its needs had ended, else when the build was asked for.
fn ready(job: &Job, ended: &HashMap<&str, Timestamp>, scale: Scale) -> Timestamp {
    let needs = job.needs.iter().filter_map(|need| ended.get(need.as_str()).copied());
    needs.max().unwrap_or(scale.from)
}

/// When each job that has ended had.
pub(crate) fn ends(jobs: &[Job]) -> HashMap<&str, Timestamp> {
    jobs.iter().filter_map(|job| Some((job.name.as_str(), job.finished?.0))).collect()
}

/// The jobs that decided when the build ended: from the one that ended last, each the need that ended last.
pub(crate) fn critical(jobs: &[Job]) -> BTreeSet<&str> {
    let by_name: HashMap<&str, &Job> = jobs.iter().map(|job| (job.name.as_str(), job)).collect();
    let has_run = |job: &&Job| job.started.is_some() && job.finished.is_some();
    let mut path = BTreeSet::new();
    let mut next = jobs.iter().filter(has_run).max_by_key(|job| job.finished);
    while let Some(job) = next {
        // Needs have no circles; a document that has one ends the walk here.
        if !path.insert(job.name.as_str()) {
            break;
        }
        let needs = job.needs.iter().filter_map(|need| by_name.get(need.as_str()).copied());
        next = needs.filter(has_run).max_by_key(|job| job.finished);
    }
    path
}

/// One job's bar: grey while it waited, coloured while it ran.
pub(crate) fn bar(job: &Job, ended: &HashMap<&str, Timestamp>, scale: Scale, now: Timestamp) -> Markup {
    let standing = Standing::of_job(job);
    let Some(started) = job.started else { return html! {} };
    let could = ready(job, ended, scale).min(started.0);
    let end = job.finished.map_or(now, |at| at.0);
    let [could_at, from, to] = [could, started.0, end].map(|at| scale.place(at));
    let title =
        format!("waited {}, ran {}", words::span(started.0.ms_since(could)), words::span(end.ms_since(started.0)),);
    html! {
        svg.waterfall viewBox=(format!("0 0 {WIDTH} 12")) preserveAspectRatio="none" role="img" aria-label=(title) {
            title { (title) }
            rect.waiting x=(could_at) y="4" width=(from - could_at) height="4" {}
            rect class=(standing.word()) x=(from.min(WIDTH - 4)) y="1" width=(to.saturating_sub(from).max(4)) height="10" rx="1" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screens::build::tests::job;

    #[test]
    fn the_path_that_decided_leads_from_the_end_to_the_start() {
        let jobs = [
            job("lint", &[], Some((0, 1))),
            job("build", &[], Some((0, 5))),
            job("test", &["lint", "build"], Some((5, 9))),
            job("docs", &["lint"], Some((1, 2))),
        ];
        assert_eq!(critical(&jobs).into_iter().collect::<Vec<_>>(), ["build", "test"]);
        let circle = [job("a", &["b"], Some((0, 1))), job("b", &["a"], Some((0, 2)))];
        assert_eq!(critical(&circle).len(), 2);
    }

    #[test]
    fn a_bar_lies_within_its_drawing() {
        let scale = Scale::new(Timestamp(0), Timestamp(10_000_000));
        let waited = job("a", &[], Some((5, 10)));
        let bar = bar(&waited, &HashMap::new(), scale, Timestamp(10_000_000)).into_string();
        assert!(bar.contains("waited 5.0 s, ran 5.0 s"), "{bar}");
        assert!(bar.contains(r#"x="500" y="1" width="500""#), "{bar}");
    }
}
