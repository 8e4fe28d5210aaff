//! Words of other systems' pipelines that somebody writes out of habit, with what stands for them here.
//!
//! Nothing here is taken for what it says elsewhere: each word is a fault, and this is its help.

use crate::tree::Node;

/// Where a word is met.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the top of a file.
    Pipeline,
    /// In a job, under its id or in a list.
    Job,
    /// In a step.
    Step,
    /// Among what holds for every job.
    Defaults,
}

use Place::{Defaults, Job, Pipeline, Step};

const MATRIX: &str = "here this is `matrix`, right in the job: `matrix: { os: [linux, mac] }`";
const IMAGE: &str = "here this is `environment`: `environment: { image: … }`";
const TIMEOUT: &str = "here this is `timeout`, with its unit: `timeout: 20m`";
const ALLOW_FAILURE: &str = "here this is `allow_failure: true`";
const RUN: &str = "here this is `run`: one command, or a list of steps: `run: [make, make test]`";
const RUN_OF_STEP: &str = "here this is `run`: `run: make`";
const FIRST: &str = "write these commands as the first steps of `run`";
const LAST: &str = "write a last step: `run: [make, { if: always(), run: … }]`";
const WORKER: &str = "here this is `pool`, the queue of a server's workers, or `labels`, which the worker must have";
const WHEN: &str = "here this is `when`: `when: { branch: main }`; or `if` with an expression";
const STEPS: &str = "steps stand in a job: `jobs: { test: { run: [make, make test] } }`";
const RIGHTS: &str = "remove it: a job has no token of a forge; the secrets that it is given stand in its `secrets`";

/// By place and words, what stands for them. Sources: GitHub, "Workflow syntax for GitHub Actions"; GitLab, "CI/CD YAML syntax reference";
/// Buildkite, "Defining your pipeline steps".
const WORDS: &[(&[Place], &[&str], &str)] = &[
    (&[Job], &["steps", "script", "commands", "command"], RUN),
    (&[Step], &["script", "command", "commands"], RUN_OF_STEP),
    (&[Job], &["runs-on", "runs_on", "tags", "agents"], WORKER),
    (&[Job], &["strategy", "parallel"], MATRIX),
    (&[Job, Defaults], &["container", "image"], IMAGE),
    (&[Pipeline], &["image", "container"], "say it for all jobs: `defaults: { environment: { image: … } }`"),
    (&[Job, Step, Defaults], &["timeout-minutes", "timeout_in_minutes"], TIMEOUT),
    (&[Job, Step], &["continue-on-error", "soft_fail"], ALLOW_FAILURE),
    (&[Job], &["depends_on", "dependencies"], "here this is `needs`: `needs: [build]`"),
    (&[Job], &["only", "except", "rules"], WHEN),
    (&[Pipeline, Job], &["variables"], "here this is `env`"),
    (&[Job, Step], &["label"], "here this is `name`"),
    (&[Pipeline, Job], &["before_script"], FIRST),
    (&[Pipeline, Job], &["after_script"], LAST),
    (&[Pipeline, Job], &["permissions", "id_tokens"], RIGHTS),
    (&[Pipeline], &["steps", "script"], STEPS),
    (
        &[Step],
        &["uses"],
        "the files of the repository are there already, and caches, artifacts and images are keys of the job; otherwise write the command \
         as `run`. A plugin's job is `use`, a key of a job",
    ),
    (
        &[Job],
        &["uses"],
        "a plugin's job is `use: cargo.clippy`; another pipeline of this repository is a build of its own: `run: [{ build: { file: … } }]`",
    ),
    (
        &[Step],
        &["with"],
        "options of a plugin's job stand beside its `use`, in the job; a script is given values by `env`",
    ),
];

/// Kinds of events by the names that they have elsewhere.
const EVENTS: &[(&str, &str)] = &[
    ("workflow_dispatch", "manual"),
    ("repository_dispatch", "api"),
    ("workflow_call", "build"),
    ("pull_request_target", "pull_request"),
    ("merge_request", "pull_request"),
    ("merge_request_event", "pull_request"),
    ("release", "tag"),
];

/// What a map's `key` is called here; `map` is the name of its record. `None` for words that no other system has there.
pub(crate) fn key(map: &str, key: &str) -> Option<String> {
    let place = match map {
        "pipeline" => Pipeline,
        "job" | "listed_job" => Job,
        "step" => Step,
        "defaults" => Defaults,
        "on" => return event(key),
        _ => return None,
    };
    let found = WORDS.iter().find(|(places, words, _)| places.contains(&place) && words.contains(&key));
    found.map(|(_, _, here)| (*here).to_owned())
}

/// What an event of this name is called here.
pub(crate) fn event(name: &str) -> Option<String> {
    let (_, here) = EVENTS.iter().find(|(there, _)| *there == name)?;
    Some(format!("here this is `{here}`"))
}

/// Whether what stands at the top of a file is a job, as it does in GitLab's.
pub(crate) fn is_job(node: &Node) -> bool {
    ["script", "run", "steps", "command", "commands", "runs-on", "trigger"].iter().any(|key| node.get(key).is_some())
}

/// How a need is written that stands as `{ JOB: ENDING }`; `None` if it is no such map.
pub(crate) fn need(node: &Node) -> Option<String> {
    let [only] = node.entries()? else { return None };
    let (job, ending) = (only.name()?, only.value.as_str()?);
    let is_ending = ["success", "failure", "finished"].contains(&ending);
    (is_ending && !["job", "on"].contains(&job)).then(|| format!("write `needs: [{{ job: {job}, on: {ending} }}]`"))
}
