//! What is installed on this machine that jobs may ask for by their environment or steps. Found out here and nowhere else: a
//! worker tells it to its server as labels, and a build of this machine looks before anything runs.
//!
//! Recipe, adding a kind: give it a label in `graph` (`Environment::label`), and a line in [`KINDS`].

use std::collections::BTreeSet;

use graph::{Diagnostic, Graph, JobName};

/// One thing that may be missing.
struct Kind {
    /// The label of workers that have it.
    label: &'static str,
    /// Its name for people.
    name: &'static str,
    /// Looks for it; else says what is missing and what to install.
    probe: fn() -> Result<(), String>,
}

const KINDS: [Kind; 3] = [
    Kind {
        label: graph::nix::LABEL,
        name: "Nix",
        probe: || worker::nix::find().map(drop).map_err(|none| none.to_string()),
    },
    Kind { label: graph::ENGINE_LABEL, name: "a container engine", probe: probe_engine },
    // For pipelines that are programs; no job asks for it by itself.
    Kind {
        label: api::worker::CARGO_LABEL,
        name: "cargo",
        probe: || crate::program::check_cargo().map_err(|stop| stop.message),
    },
];

/// Asks an engine whether it is there: on a thread of its own, since the caller may have a runtime already.
fn probe_engine() -> Result<(), String> {
    let asked = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(worker::container::Engine::find()).map(drop).map_err(|error| error.with_hint())
    });
    asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The labels that this machine has by what is installed.
pub fn labels() -> impl Iterator<Item = String> {
    KINDS.iter().filter(|kind| (kind.probe)().is_ok()).map(|kind| kind.label.to_owned())
}

/// What jobs of the graph need and this machine has not: one error for each kind. With names in `only`, of those jobs and
/// what they need alone.
pub fn lacking(graph: &Graph, only: &BTreeSet<String>) -> Vec<Diagnostic> {
    let wanted = wanted(graph, only);
    KINDS.iter().filter_map(|kind| lacking_kind(kind, graph, &wanted)).collect()
}

fn lacking_kind(kind: &Kind, graph: &Graph, wanted: &BTreeSet<&JobName>) -> Option<Diagnostic> {
    let needs_it = |name: &&JobName| graph.jobs[*name].implied_labels().any(|label| label == kind.label);
    let mut jobs = wanted.iter().copied().filter(needs_it);
    let first = jobs.next()?;
    let missing = (kind.probe)().err()?;
    let others = match jobs.count() {
        0 => String::new(),
        1 => " and one more".to_owned(),
        count => format!(" and {count} more"),
    };
    let message = format!("job `{first}`{others} cannot run here: {} is not installed", kind.name);
    Some(Diagnostic::error("not-installed", message).help(missing))
}

/// Jobs that may run: all that are not skipped, or those named and what they need.
fn wanted<'g>(graph: &'g Graph, only: &BTreeSet<String>) -> BTreeSet<&'g JobName> {
    let is_named = |name: &JobName| only.is_empty() || only.contains(name.as_str()) || only.contains(name.id());
    let mut open: Vec<&JobName> = graph.jobs.keys().filter(|name| is_named(name)).collect();
    let mut wanted = BTreeSet::new();
    while let Some(name) = open.pop() {
        let Some((name, job)) = graph.jobs.get_key_value(name).filter(|(_, job)| job.skip.is_none()) else { continue };
        if wanted.insert(name) {
            open.extend(job.needs.iter().map(|need| &need.job));
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use graph::{Graph, JobName, Need};
    use serde_json::json;

    use super::{Kind, lacking_kind, wanted};

    #[test]
    fn what_is_missing_is_told_for_jobs_that_may_run() {
        let nix = json!({ "nix": { "nix": "." } });
        let graph: Graph = serde_json::from_value(json!({ "jobs": {
            "a": { "steps": [{ "run": "true" }] },
            "b": { "environment": nix, "needs": [Need::success("a")] },
            "c": { "environment": nix, "skip": { "reason": "dropped" } },
            "d": { "steps": [{ "run": "nix build", "nix_build": ["."] }], "needs": [Need::success("b")] },
        }}))
        .expect("a graph");
        let kind = |probe| Kind { label: "nix", name: "Nix", probe };
        let check = |only: &[&str], expected: Option<&str>| {
            let only = only.iter().map(|&name| name.to_owned()).collect();
            let wanted: BTreeSet<&JobName> = wanted(&graph, &only);
            assert!(lacking_kind(&kind(|| Ok(())), &graph, &wanted).is_none());
            let told = lacking_kind(&kind(|| Err("install it".to_owned())), &graph, &wanted);
            assert_eq!(told.as_ref().map(|told| told.message.as_str()), expected);
        };
        check(&[], Some("job `b` and one more cannot run here: Nix is not installed"));
        check(&["a"], None);
        check(&["b"], Some("job `b` cannot run here: Nix is not installed"));
        check(&["c"], None);
    }
}
