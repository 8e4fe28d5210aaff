//! What must hold of a graph before anything of it runs. Faults are collected, not stopped at.

use std::collections::{BTreeSet, HashMap};

use crate::diagnostic::{Diagnostic, Location};
use crate::job::{Environment, Graph, Job, Retry};
use crate::name::JobName;

/// The most jobs of one build.
pub const JOBS_MAX: usize = 200_000;
/// The most needs of one job.
pub const NEEDS_MAX: usize = 20_000;

/// Every fault of `graph`, in order of name: needs that name no job, circles, bounds passed.
///
/// `location_of` finds where the user wrote a job's need (or, with `None`, the job itself).
#[must_use]
pub fn faults(graph: &Graph, location_of: impl Fn(&JobName, Option<&JobName>) -> Option<Location>) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    let mut push = |diagnostic: Diagnostic, location: Option<Location>, label: &str| {
        faults.push(match location {
            Some(location) => diagnostic.at(location, label),
            None => diagnostic,
        });
    };
    if graph.jobs.len() > JOBS_MAX {
        let message = format!("the pipeline has {} jobs; the most is {JOBS_MAX}", graph.jobs.len());
        push(Diagnostic::error("too-many-jobs", message).help("split the pipeline in two"), None, "");
    }
    let names: Vec<&JobName> = graph.jobs.keys().collect();
    let index_of: HashMap<&JobName, usize> = names.iter().enumerate().map(|(index, &name)| (name, index)).collect();
    // The jobs that each job needs, by their number in order of name.
    let mut needed: Vec<Vec<usize>> = Vec::with_capacity(names.len());
    let holes: BTreeSet<&str> = graph.holes.iter().map(|hole| hole.name.as_str()).collect();
    for (name, job) in &graph.jobs {
        for (code, message) in bounds_passed(name, job) {
            push(Diagnostic::error(code, message), location_of(name, None), "this job");
        }
        let mut of_job = Vec::with_capacity(job.needs.len());
        for need in &job.needs {
            if let Some(&index) = index_of.get(&need.job) {
                of_job.push(index);
                continue;
            }
            let is_coming = || holes.contains(need.job.id()) || holes.contains(need.job.as_str());
            if need.optional || is_coming() {
                continue;
            }
            let message = format!("job `{name}` needs `{}`, which does not exist", need.job);
            push(
                Diagnostic::error("unknown-need", message).help("name a job of this pipeline, or remove the need"),
                location_of(name, Some(&need.job)),
                "no job has this name",
            );
        }
        needed.push(of_job);
    }
    for circle in circles(&names, &needed) {
        let path: Vec<_> = circle.iter().chain(circle.first()).map(|name| format!("`{name}`")).collect();
        let message = format!("jobs wait for each other in a circle: {}", path.join(" needs "));
        push(
            Diagnostic::error("circle", message).help("remove one of these needs"),
            location_of(circle[0], circle.get(1).copied().or(Some(circle[0]))),
            "this need closes the circle",
        );
    }
    faults
}

/// Bounds that a job passes, and what does not go together in it.
fn bounds_passed(name: &JobName, job: &Job) -> Vec<(&'static str, String)> {
    let mut passed = Vec::new();
    if name.as_str().len() > JobName::BYTES_MAX {
        passed.push(("name-too-long", format!("a job's name has at most {} bytes", JobName::BYTES_MAX)));
    }
    if job.needs.len() > NEEDS_MAX {
        passed.push(("too-many-needs", format!("job `{name}` has more than {NEEDS_MAX} needs")));
    }
    if job.steps.len() > Job::STEPS_MAX {
        passed.push(("too-many-steps", format!("job `{name}` has more than {} steps", Job::STEPS_MAX)));
    }
    let has_nix = matches!(job.environment, Environment::Host | Environment::Nix { .. });
    if !has_nix && job.steps.iter().any(|step| !step.nix_build.is_empty()) {
        let place = job.environment.word();
        let message =
            format!("job `{name}` has Nix build in the environment `{place}`: it can on the host and in a Nix shell");
        passed.push(("nix-build-elsewhere", message));
    }
    if job.steps.len() > 1 && job.steps.iter().any(|step| step.build.is_some()) {
        let message = format!("job `{name}` asks for a build and has other steps: such a step stands alone in its job");
        passed.push(("build-among-steps", message));
    }
    if job.retry.max > Retry::MAX_MAX {
        passed.push(("too-many-retries", format!("job `{name}` asks for more than {} retries", Retry::MAX_MAX)));
    }
    passed
}

/// One circle for each knot of jobs that wait for each other, each starting at its smallest name. Does not recurse. `needs` are the
/// numbers of the jobs that each needs.
fn circles<'g>(names: &[&'g JobName], needs: &[Vec<usize>]) -> Vec<Vec<&'g JobName>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        OnPath,
        Done,
    }
    let mut marks = vec![Mark::New; names.len()];
    let mut found = Vec::new();
    for start in 0..names.len() {
        if marks[start] != Mark::New {
            continue;
        }
        // The path from `start`, each with how many of its needs have been looked at.
        let mut path = vec![(start, 0)];
        marks[start] = Mark::OnPath;
        while let Some((job, looked_at)) = path.last_mut() {
            let Some(&next) = needs[*job].get(*looked_at) else {
                marks[*job] = Mark::Done;
                path.pop();
                continue;
            };
            *looked_at += 1;
            match marks[next] {
                Mark::Done => {}
                Mark::New => {
                    marks[next] = Mark::OnPath;
                    path.push((next, 0));
                }
                Mark::OnPath => {
                    let begin = path.iter().position(|&(job, _)| job == next).expect("it is marked as on the path");
                    let mut circle: Vec<&'g JobName> = path[begin..].iter().map(|&(job, _)| names[job]).collect();
                    let smallest = (0..circle.len()).min_by_key(|&index| circle[index]).unwrap_or(0);
                    circle.rotate_left(smallest);
                    found.push(circle);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::faults;
    use crate::job::{Graph, Job};
    use crate::need::Need;

    /// A graph written as `a: b c; b:`; every edge is `on: success`.
    fn graph(text: &str) -> Graph {
        let mut graph = Graph::default();
        for line in text.split(';').filter(|line| !line.trim().is_empty()) {
            let (name, needs) = line.split_once(':').expect("a colon after the name");
            let job = Job { needs: needs.split_whitespace().map(Need::success).collect(), ..Job::default() };
            graph.jobs.insert(name.trim().into(), Arc::new(job));
        }
        graph
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let found: Vec<_> = faults(&graph(text), |_, _| None).into_iter().map(|fault| fault.message).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn nix_builds_on_the_host() {
        let job = |environment: &str| {
            let step = r#"{"run": "", "nix_build": [".#a"]}"#;
            let text = format!(r#"{{"jobs": {{"a": {{"environment": {environment}, "steps": [{step}]}}}}}}"#);
            let graph: Graph = serde_json::from_str(&text).expect("a graph");
            faults(&graph, |_, _| None).into_iter().map(|fault| fault.code.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(job(r#"{"image": {"image": "debian"}}"#), ["nix-build-elsewhere"]);
        assert_eq!(job(r#"{"sandbox": {}}"#), ["nix-build-elsewhere"]);
        assert_eq!(job(r#"{"nix": {"nix": "."}}"#), [""; 0]);
        assert_eq!(job(r#""host""#), [""; 0]);
    }

    #[test]
    fn a_graph_without_faults() {
        check("a:; b: a; c: a b", &[]);
    }

    #[test]
    fn needs_that_name_no_job_are_all_reported() {
        check("a: x; b: a y", &["job `a` needs `x`, which does not exist", "job `b` needs `y`, which does not exist"]);
    }

    #[test]
    fn circles_are_reported_once_each() {
        check("a: b; b: c; c: b", &["jobs wait for each other in a circle: `b` needs `c` needs `b`"]);
        check("a: a", &["jobs wait for each other in a circle: `a` needs `a`"]);
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_jobs_does_not_exhaust_the_stack() {
        let mut text = String::from("j0:;");
        for index in 1..100_000 {
            text.push_str(&format!("j{index}: j{};", index - 1));
        }
        check(&text, &[]);
    }
}
