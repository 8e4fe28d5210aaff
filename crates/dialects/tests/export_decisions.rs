//! Which jobs an exported workflow runs on GitHub, held against which Ropewalk runs, for all ways in which scripts end.
//!
//! GitHub's side is what docs.github.com/actions says of `needs`, `if` and the status functions: `success()` and `failure()` ask all
//! jobs before, however far; a job that its time limit ends is `cancelled`. Whether a job that may fail counts as `success` or as
//! `failure` is tried both ways.

use std::collections::{BTreeMap, BTreeSet};

use expression::{Condition, Contexts, Value};
use graph::{Ending, Event, EventKind, Graph, JobName, Known};
use ropewalk_dialects::export::{System, export};
use ropewalk_dialects::native::{self, Lowered, SourceFile};
use ropewalk_dialects::tree::{Node, Notation, Rules, Sources};

/// How a script ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Passes,
    Fails,
    TimesOut,
}

const ENDS: [End; 3] = [End::Passes, End::Fails, End::TimesOut];

/// Whether GitHub runs just what Ropewalk runs, or may leave something out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Runs {
    TheSame,
    NoMore,
}

/// Pipelines of jobs named by one letter, each with whether GitHub can say all of it.
const PIPELINES: &[(Runs, &str)] = &[
    (Runs::TheSame, "a: {}\nb: { needs: [a], if: \"needs.a.result == 'passed'\" }\nc: { needs: [b] }"),
    (Runs::TheSame, "a: {}\nb: { needs: [{ job: a, on: finished }], if: \"needs.a.result == 'failed'\" }"),
    (Runs::TheSame, "a: {}\nb: { needs: [{ job: a, on: finished }], if: \"needs.a.result != 'failed'\" }"),
    (
        Runs::TheSame,
        "a: {}\nb: {}\nc: { needs: [{ job: a, on: finished }, { job: b, on: finished }], if: \"!contains(needs.*.result, 'failed')\" }",
    ),
    (Runs::TheSame, "a: {}\nb: {}\nc: { needs: [a, { job: b, on: finished }] }"),
    (Runs::TheSame, "a: {}\nb: { needs: [a] }\nc: { needs: [{ job: b, on: failure }] }"),
    (Runs::TheSame, "a: {}\nb: {}\nc: { needs: [{ job: a, on: failure }, { job: b, on: failure }] }"),
    (Runs::TheSame, "a: {}\nb: { needs: [a], cleanup: true }\nc: { needs: [{ job: a, on: finished }], cleanup: true }"),
    (Runs::TheSame, "a: {}\nb: { needs: [a], if: always() }\nc: { needs: [a], if: \"failure() || success()\" }"),
    (
        Runs::TheSame,
        "a: { timeout: 1m }\nb: { needs: [{ job: a, on: failure }] }\nc: { needs: [{ job: a, on: finished }] }",
    ),
    (Runs::NoMore, "a: { timeout: 1m }\nb: { needs: [{ job: a, on: finished }], if: \"needs.a.result != 'failed'\" }"),
    (Runs::NoMore, "a: { timeout: 1m }\nb: { needs: [{ job: a, on: finished }], if: \"needs.a.result == 'failed'\" }"),
    (
        Runs::NoMore,
        "a: { timeout: 1m }\nb: {}\nc: { needs: [{ job: a, on: finished }, b], if: \"!contains(needs.*.result, 'failed')\" }",
    ),
    (
        Runs::NoMore,
        "a: { timeout: 1m }\nb: { needs: [{ job: a, on: finished }], cleanup: true, if: \"needs.a.result != 'failed'\" }",
    ),
    (
        Runs::NoMore,
        "a: { allow_failure: true }\nb: { needs: [{ job: a, on: finished }], if: \"needs.a.result != 'failed'\" }",
    ),
    (Runs::NoMore, "a: { allow_failure: true }\nb: { needs: [{ job: a, on: failure }] }\nc: { needs: [a] }"),
    (Runs::NoMore, "a: {}\nb: { needs: [{ job: a, on: finished }], if: \"needs.a.result == 'success'\" }"),
    (Runs::NoMore, "a: {}\nb: { needs: [{ job: a, on: finished }], if: \"toJSON(needs) != ''\" }"),
    (
        Runs::TheSame,
        "a: { stage: x }\nb: { stage: y, needs: [a], if: \"needs.a.result == 'skipped'\" }\nc: { stage: z }",
    ),
    (
        Runs::TheSame,
        "a: { stage: x }\nb: { stage: y, if: \"needs.a.result == 'passed'\" }\nc: { stage: z }\nd: { needs: [c] }",
    ),
    (
        Runs::TheSame,
        "a: { stage: x }\nb: { stage: y }\nc: { stage: y, needs: [{ job: d, on: finished }], if: \"needs.d.result != 'passed'\" }\nd: {}\ne: { stage: z, if: \"needs.c.result != 'passed'\" }",
    ),
    (
        Runs::TheSame,
        "a: { stage: x }\nb: { stage: y, if: \"needs.a.result == 'failed'\" }\nc: { stage: z, needs: [{ job: d, on: failure }] }\nd: {}",
    ),
    (
        Runs::TheSame,
        "a: {}\nb: { needs: [{ job: a, on: finished }] }\nc: { needs: [b] }\nd: { needs: [c], if: \"needs.c.result == 'passed'\" }",
    ),
    (Runs::TheSame, "a: {}\nb: { needs: [{ job: a, on: failure }] }\nc: { needs: [b], if: always() }"),
];

#[test]
fn github_runs_nothing_that_ropewalk_would_not_run() {
    for (runs, jobs) in PIPELINES {
        let jobs: String = jobs.lines().map(|job| format!("  {}\n", job.replacen('{', "{ run: x,", 1))).collect();
        let stages = if jobs.contains("stage:") { "stages: [x, y, z]\n" } else { "" };
        let pipeline = format!("on: {{ push: {{ branches: [main] }} }}\n{stages}jobs:\n{jobs}");
        check(*runs, &pipeline);
    }
}

fn check(runs: Runs, pipeline: &str) {
    let known = Known::of(Event { branch: Some("main".to_owned()), ..Event::new(EventKind::Push) });
    let lowered: Lowered = native::lower_as_written(&[SourceFile::new("pipeline.yaml", pipeline)], &known);
    assert!(!lowered.is_wrong(), "{pipeline}{:?}", lowered.evaluation.diagnostics);
    let graph = &lowered.evaluation.graph;
    let written = export(&lowered, System::Github);
    let (root, _) = Sources::new().read("github.yml", written.as_bytes(), Notation::Yaml, &Rules::NATIVE);
    let root = root.expect("it is YAML");
    let workflow: BTreeMap<&str, &Node> = root
        .get("jobs")
        .and_then(Node::entries)
        .unwrap_or_default()
        .iter()
        .filter_map(|entry| Some((entry.name()?, &entry.value)))
        .collect();
    let names: Vec<&str> = workflow.keys().copied().collect();
    let n_ways = ENDS.len().pow(u32::try_from(names.len()).expect("few jobs"));
    for way in 0..n_ways {
        let mut rest = way;
        let mut ends: BTreeMap<&str, End> = BTreeMap::new();
        for &name in &names {
            ends.insert(name, ENDS[rest % ENDS.len()]);
            rest /= ENDS.len();
        }
        // Only a job with a limit is ended by it.
        let is_possible = |(name, end): (&&str, &End)| *end != End::TimesOut || graph.jobs[*name].timeout_ms.is_some();
        if !ends.iter().all(is_possible) {
            continue;
        }
        let expected = ropewalk_runs(graph, &ends);
        for tolerated in ["success", "failure"] {
            let found = github_runs(&workflow, &ends, tolerated);
            let context = format!("{pipeline}{ends:?}, what may fail is a {tolerated}:\n{written}");
            assert!(found.is_subset(&expected), "GitHub runs {found:?}, Ropewalk {expected:?}:\n{context}");
            if runs == Runs::TheSame {
                assert_eq!(found, expected, "{context}");
            }
        }
    }
}

/// The jobs that run by the engine's rules: every need is satisfied, and the condition holds.
fn ropewalk_runs(graph: &Graph, ends: &BTreeMap<&str, End>) -> BTreeSet<String> {
    let mut endings: BTreeMap<&JobName, (Ending, &str)> = BTreeMap::new();
    let mut failed: BTreeSet<&JobName> = BTreeSet::new();
    let mut ran = BTreeSet::new();
    while endings.len() < graph.jobs.len() {
        for (name, job) in &graph.jobs {
            let needs: Option<Vec<_>> = job.needs.iter().map(|need| Some((need, *endings.get(&need.job)?))).collect();
            let Some(needs) = needs.filter(|_| !endings.contains_key(name)) else { continue };
            let is_after_failure = needs.iter().any(|(need, _)| failed.contains(&need.job));
            if is_after_failure {
                failed.insert(name);
            }
            let results = needs.iter().map(|(need, (_, word))| (need.job.as_str(), result(word)));
            let is_success = needs.iter().all(|(_, (ending, _))| *ending == Ending::Passed) && !is_after_failure;
            let holds = |condition: &str| holds(condition, results.clone(), is_success, is_after_failure);
            let runs = needs.iter().all(|(need, (ending, _))| need.accepts.holds(*ending))
                && job.condition.as_deref().is_none_or(holds);
            let ending = match ends.get(name.as_str()) {
                _ if !runs => (Ending::Skipped, "skipped"),
                None | Some(End::Passes) => (Ending::Passed, "passed"),
                Some(_) if job.allow_failure => (Ending::PassedWithWarnings, "failed"),
                Some(_) => (Ending::Failed, "failed"),
            };
            if ending.0 == Ending::Failed {
                failed.insert(name);
            }
            if runs && !name.is_barrier() {
                ran.insert(name.to_string());
            }
            endings.insert(name, ending);
        }
    }
    ran
}

/// The jobs that GitHub runs, where a job that may fail, and does, is what is said.
fn github_runs(
    workflow: &BTreeMap<&str, &Node>,
    ends: &BTreeMap<&str, End>,
    tolerated: &'static str,
) -> BTreeSet<String> {
    let mut results: BTreeMap<&str, &str> = BTreeMap::new();
    let mut before: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut ran = BTreeSet::new();
    while results.len() < workflow.len() {
        for (&name, job) in workflow {
            let needs: Vec<&str> =
                job.get("needs").and_then(Node::items).unwrap_or_default().iter().filter_map(Node::as_str).collect();
            if results.contains_key(name) || !needs.iter().all(|need| results.contains_key(need)) {
                continue;
            }
            let of_needs = needs.iter().flat_map(|need| before[need].iter().copied().chain([*need]));
            let ancestors: BTreeSet<&str> = of_needs.collect();
            let is_success = ancestors.iter().all(|name| results[name] == "success");
            let is_failure = ancestors.iter().any(|name| results[name] == "failure");
            let of_needs = needs.iter().map(|need| (*need, result(results[need])));
            let written = job.get("if");
            let condition = written.and_then(Node::as_str).unwrap_or("true");
            let asks = Condition::parse(condition).expect("GitHub can read it").calls_status_function();
            let runs = written.and_then(Node::as_bool) != Some(false)
                && (asks || is_success)
                && holds(condition, of_needs, is_success, is_failure);
            let may_fail = job.get("continue-on-error").and_then(Node::as_bool) == Some(true);
            let result = match ends[name] {
                _ if !runs => "skipped",
                End::Passes => "success",
                End::Fails if may_fail => tolerated,
                End::Fails => "failure",
                End::TimesOut => "cancelled",
            };
            if runs {
                ran.insert(name.to_owned());
            }
            results.insert(name, result);
            before.insert(name, ancestors);
        }
    }
    ran
}

fn result(word: &str) -> Value {
    Value::object([("result", Value::from(word))])
}

fn holds<'n>(
    condition: &str,
    needs: impl Iterator<Item = (&'n str, Value)>,
    is_success: bool,
    is_failure: bool,
) -> bool {
    let world = Contexts::new()
        .with("needs", Value::object(needs))
        .with_function("always", |_| Ok(Value::from(true)))
        .with_function("cancelled", |_| Ok(Value::from(false)))
        .with_function("success", move |_| Ok(Value::from(is_success)))
        .with_function("failure", move |_| Ok(Value::from(is_failure)));
    Condition::parse(condition).expect("it can be read").is_true(&world).expect("it can be evaluated")
}
