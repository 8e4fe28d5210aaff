//! A lowered pipeline as the configuration of another system, as somebody would write it by hand.
//!
//! What a graph says for one event is written: its jobs, with legs of a matrix put together again (`legs.rs`), barriers
//! resolved into needs, and skipped jobs named; the triggers are those that lead to them (`scope.rs`). Where the system has no word for a thing, a comment stands in its place
//! (`notes` of a job, `Item::Comment` in the text). One file for each system knows its words; `shell.rs` is what GitLab
//! and Buildkite share, since both hand scripts to a shell; `yaml.rs` writes.
//!
//! Rules of the systems: docs.github.com/actions (workflow syntax), docs.gitlab.com/ci/yaml, buildkite.com/docs/pipelines.

mod buildkite;
mod github;
mod gitlab;
mod legs;
mod scope;
mod shell;
mod texts;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use expression::{Condition, ContextPath, Contexts, Template, Value as ExpressionValue};
use graph::{
    Accepts, Carries, Concurrency, Ending, Environment, Event, EventKind, Graph, Hole, Job, JobName, Need, Network,
    Reuse, Shell, SkipReason, Step, Text,
};
use serde_json::Value;

use crate::native::when::spoken;
use crate::native::{Lowered, Triggers};

/// A system whose configuration can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// A workflow of GitHub Actions.
    Github,
    /// `.gitlab-ci.yml`.
    Gitlab,
    /// A pipeline of Buildkite, for `buildkite-agent pipeline upload`.
    Buildkite,
}

/// The configuration as YAML. The pipeline should have no errors; what it says wrongly is missing.
#[must_use]
pub fn export(lowered: &Lowered, system: System) -> String {
    let graph = &lowered.evaluation.graph;
    match system {
        System::Github => {
            let mut plan = plan(lowered, graph, Conditions::Asked);
            github::fill_inputs(&mut plan);
            github::write(&plan)
        }
        System::Gitlab => gitlab::write(&plan(lowered, &for_this_event(graph, &lowered.event), Conditions::Noted)),
        System::Buildkite => {
            buildkite::write(&plan(lowered, &for_this_event(graph, &lowered.event), Conditions::Noted))
        }
    }
}

/// What becomes of what a job asks before it runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Conditions {
    /// The system asks it, of every event and of every need.
    Asked,
    /// Sentences say it; of needs the system knows what is written, and has one `when` for all.
    Noted,
}

/// The graph with `false` in the place of those conditions of steps that do not hold for the event: for systems that do not
/// ask conditions of steps.
fn for_this_event(graph: &Graph, event: &Event) -> Graph {
    let mut graph = graph.clone();
    let event = ExpressionValue::from(&event.context());
    let params = event.get("params").cloned().unwrap_or(ExpressionValue::Null);
    let world = Contexts::new().with("event", event).with("params", params);
    let fails = |written: &str| {
        let is_known = |path: &ContextPath| matches!(&*path.context, "event" | "params");
        Condition::parse(written).is_ok_and(|condition| {
            condition.context_paths().iter().all(is_known) && condition.is_true(&world).is_ok_and(|holds| !holds)
        })
    };
    for job in graph.jobs.values_mut() {
        let is_left_out = |step: &Step| step.condition.as_deref().is_some_and(fails);
        if job.steps.iter().any(is_left_out) {
            let steps = &mut Arc::make_mut(job).steps;
            steps.iter_mut().filter(|step| is_left_out(step)).for_each(|step| step.condition = Some("false".into()));
        }
    }
    graph
}

/// A pipeline as all three systems can take it.
struct Plan<'a> {
    name: &'a str,
    /// The events that lead to these jobs.
    triggers: Triggers,
    /// Sentences about hooks and events that are not in it.
    beside: Vec<String>,
    params: &'a BTreeMap<String, graph::Field>,
    jobs: Vec<Piece>,
    /// Variables that all jobs have, with finished values; no job has them beside.
    env: BTreeMap<String, Text>,
    /// Sentences about what is not there: jobs that do not run for the event, jobs that will come.
    remarks: Vec<String>,
}

/// A job as it is written: one, or all legs of a matrix.
struct Piece {
    /// Its key: letters, digits, `_` and `-`.
    key: String,
    /// Its id, for people.
    id: String,
    /// The job; of legs the one text that stands for all, with marks ([`legs::MARK`]) where an axis' value goes.
    job: Job,
    axes: Vec<(String, Vec<Value>)>,
    /// Combinations of the axes that no leg has.
    excluded: Vec<BTreeMap<String, Value>>,
    /// What it needs, by key, each once.
    needs: Vec<(String, Need)>,
    /// Whether it needs, too, what is not written: jobs that do not run for the event, or are still to come.
    needs_unwritten: bool,
    /// Its `when`, if the system asks it ([`Conditions::Asked`]).
    when: Option<graph::Condition>,
    /// What could not be carried whatever the system.
    notes: Vec<String>,
}

impl Plan<'_> {
    /// Whether something else than a person who fills in parameters starts it.
    fn starts_otherwise(&self) -> bool {
        match &self.triggers {
            Triggers::Everything => true,
            Triggers::Listed { kinds, .. } => kinds.keys().any(|kind| *kind != EventKind::Manual),
        }
    }

    /// The job of this name, if a person gives this value at its gate.
    fn gate_of(&self, job: &str, field: &str) -> Option<&Piece> {
        let asks = |piece: &&Piece| piece.job.gate.as_ref().is_some_and(|gate| gate.fields.contains_key(field));
        self.jobs.iter().filter(|piece| piece.id == job || piece.key == job).find(asks)
    }

    /// The values that a job reads and that a person gives at the gate of a job it needs; each with that job's id.
    fn gate_values(&self, piece: &Piece) -> Vec<(String, String)> {
        let mut found = BTreeSet::new();
        for path in paths(&piece.job).iter().filter(|path| &*path.context == "needs") {
            let (Some(job), Some("outputs"), Some(field)) = (path.name(0), path.name(1), path.name(2)) else {
                continue;
            };
            if let Some(gate) = self.gate_of(job, field) {
                found.insert((field.to_owned(), gate.id.clone()));
            }
        }
        found.into_iter().collect()
    }
}

/// The parameters that a job reads.
fn read_params(job: &Job) -> BTreeSet<String> {
    let of_path = |path: &ContextPath| match (&*path.context, path.name(0)) {
        ("params", Some(name)) => Some(name.to_owned()),
        ("event", Some("params")) => path.name(1).map(str::to_owned),
        _ => None,
    };
    paths(job).iter().filter_map(of_path).collect()
}

/// Everything that a job's texts and conditions read.
fn paths(job: &Job) -> Vec<ContextPath> {
    fn below(value: &Value, key: &str, paths: &mut Vec<ContextPath>) {
        match value {
            Value::String(text) if key == "if" => {
                paths.extend(Condition::parse(text).iter().flat_map(Condition::context_paths));
            }
            Value::String(text) if Template::is_needed(text) => {
                paths.extend(Template::parse(text).iter().flat_map(Template::context_paths));
            }
            Value::Array(items) => items.iter().for_each(|item| below(item, key, paths)),
            Value::Object(entries) => entries.iter().for_each(|(key, value)| below(value, key, paths)),
            _ => {}
        }
    }
    let mut paths = Vec::new();
    // A job always serializes to JSON.
    below(&serde_json::to_value(job).unwrap_or_default(), "", &mut paths);
    paths
}

impl Piece {
    /// Whether the need is the plain one: success, with all that comes along.
    fn is_plain(need: &Need) -> bool {
        need.accepts == Accepts::SUCCESS && !need.optional
    }

    /// Whether it is a function of a program.
    fn is_function(&self) -> bool {
        self.job.steps.iter().any(|step| matches!(step.shell, Shell::Program(_)))
    }

    /// The steps that may hand this output on, by their indices: those that must, else all that hand on anything.
    fn writers_of(&self, output: &str) -> Vec<usize> {
        let those = |may: &dyn Fn(&Step) -> bool| -> Vec<usize> {
            self.job.steps.iter().enumerate().filter(|(_, step)| may(step)).map(|(index, _)| index).collect()
        };
        let declared = those(&|step| step.outputs.contains(output));
        if declared.is_empty() { those(&|step| step.run.contains("ROPEWALK_OUTPUT")) } else { declared }
    }

    /// What no system here has a word for.
    fn common_notes(&self, with: Words) -> Vec<String> {
        let mut notes = self.notes.clone();
        if self.job.reuse != Reuse::Never {
            let what = match &self.job.reuse {
                Reuse::Inputs(globs) if globs.is_empty() => "its steps or what it needs".to_owned(),
                Reuse::Inputs(globs) => globs.join(", "),
                _ => "any file".to_owned(),
            };
            notes.push(format!("Ropewalk runs it again only if {what} changed; here it runs every time."));
        }
        if self.is_function() {
            notes.push("A function of the pipeline's program: only Ropewalk can call it.".to_owned());
        }
        if !with.resources && (self.job.resources.cpu_milli > 0 || self.job.resources.memory_bytes > 0) {
            notes.push(format!("It asks for {}: choose a machine that has them.", resources(&self.job)));
        }
        match &self.job.environment {
            Environment::Sandbox { network: Network::Off } => {
                notes.push("Ropewalk runs it without network; here it has one.".to_owned());
            }
            Environment::Dockerfile { dockerfile, .. } => {
                notes.push(format!("It runs in an image built from {dockerfile}: build it, and name it here."));
            }
            Environment::Nix { nix } => notes.push(format!("It runs in the Nix shell of {nix}.")),
            Environment::Kubernetes { .. } => notes.push("It runs in a pod with a template of its own.".to_owned()),
            _ => {}
        }
        if self.job.environment.container().is_some_and(|container| *container != graph::Container::default()) {
            notes.push(
                "How its container is made (user, network, entrypoint, platform, login) is not written here."
                    .to_owned(),
            );
        }
        for (name, service) in &self.job.services {
            notes.push(format!("It has a service `{name}` of the image {}: add it.", service.image));
        }
        if self.job.cleanup && !with.cleanup {
            notes.push("Ropewalk runs it also when the build is canceled.".to_owned());
        }
        notes
    }
}

/// What a system has words for, among what most have not.
#[derive(Clone, Copy)]
struct Words {
    resources: bool,
    cleanup: bool,
}

fn resources(job: &Job) -> String {
    let mut parts = Vec::new();
    if job.resources.cpu_milli > 0 {
        parts.push(format!("{} cores", job.resources.cpu_milli as f64 / 1000.0));
    }
    if job.resources.memory_bytes > 0 {
        parts.push(format!("{} MiB of memory", job.resources.memory_bytes >> 20));
    }
    parts.join(" and ")
}

/// Whether a failed try is tried again in another way than Ropewalk does by itself.
fn retries_specially(job: &Job) -> bool {
    job.retry != graph::Retry::unasked(job.gate.is_some())
}

/// The title, if it says more than the key.
fn common_title(piece: &Piece) -> Option<Text> {
    let title = &piece.job.title;
    match title.as_written() {
        "" if piece.id != piece.key => Some(piece.id.as_str().into()),
        "" => None,
        written => Some(title.clone()).filter(|_| written != piece.key),
    }
}

/// Minutes, rounded up.
fn minutes(limit_ms: u64) -> u64 {
    limit_ms.div_ceil(60_000)
}

/// What Ropewalk does with a concurrency group's jobs, for a comment.
fn concurrency_note(concurrency: &Concurrency) -> &'static str {
    match concurrency.mode {
        graph::ConcurrencyMode::Queue => "Ropewalk lets jobs of the group wait in order of arrival and drops none.",
        graph::ConcurrencyMode::CancelWaiting => "Ropewalk cancels the jobs of the group that wait.",
        graph::ConcurrencyMode::CancelRunning => "Ropewalk cancels the job of the group that runs.",
    }
}

fn plan<'a>(lowered: &'a Lowered, graph: &Graph, conditions: Conditions) -> Plan<'a> {
    let skipped = skipped(graph);
    let mut remarks: Vec<String> =
        skipped.iter().map(|(name, why)| format!("`{name}` does not run for this event: {why}.")).collect();
    remarks.extend(graph.holes.iter().map(hole_remark));
    remarks.extend(
        graph.statuses.keys().map(|name| format!("Ropewalk shows the status `{name}`, which nothing shows here.")),
    );
    let mut names: Vec<&JobName> =
        graph.jobs.keys().filter(|name| !name.is_barrier() && !skipped.contains_key(name)).collect();
    names.sort_by_key(|name| (graph.jobs[*name].order, *name));
    let mut jobs: Vec<Piece> = Vec::new();
    // The key under which each job is written.
    let mut keys: BTreeMap<&JobName, String> = BTreeMap::new();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for name in &names {
        if keys.contains_key(name) {
            continue;
        }
        let legs: Vec<(&JobName, &Job)> = names
            .iter()
            .filter(|other| !graph.jobs[**other].matrix.is_empty() && other.id() == name.id())
            .map(|name| (*name, &*graph.jobs[*name]))
            .collect();
        let is_leg = !graph.jobs[*name].matrix.is_empty();
        if let Some(joined) = is_leg.then(|| legs::joined(&legs)).flatten() {
            let key = key(name.id(), &mut taken);
            keys.extend(legs.iter().map(|(name, _)| (*name, key.clone())));
            jobs.push(Piece {
                key,
                id: name.id().to_owned(),
                job: joined.job,
                axes: joined.axes,
                excluded: joined.excluded,
                needs: Vec::new(),
                needs_unwritten: false,
                when: None,
                notes: Vec::new(),
            });
            continue;
        }
        let key = key(name.as_str(), &mut taken);
        keys.insert(name, key.clone());
        let notes = if is_leg && legs.first().is_some_and(|(first, _)| first == name) && legs.len() > 1 {
            vec![format!(
                "The legs of `{}` differ in more than the values of axes; each is a job of its own.",
                name.id()
            )]
        } else {
            Vec::new()
        };
        let job = Job::clone(&graph.jobs[*name]);
        jobs.push(Piece {
            key,
            id: name.to_string(),
            job,
            axes: Vec::new(),
            excluded: Vec::new(),
            needs: Vec::new(),
            needs_unwritten: false,
            when: None,
            notes,
        });
    }
    let whens: BTreeMap<&str, &graph::Condition> =
        lowered.conditions.iter().map(|(id, when)| (id.as_str(), when)).collect();
    // Legs have the condition of their id.
    let when_of = |name: &str| {
        let mut ends = name.match_indices('/').map(|(end, _)| end).chain([name.len()]);
        ends.find_map(|end| whens.get(&name[..end]).copied())
    };
    let may_skip = may_skip(graph, &skipped, |name, job| {
        job.condition.is_some() || conditions == Conditions::Asked && when_of(name.as_str()).is_some()
    });
    let surely_runs = |name: &JobName| keys.contains_key(name) && !may_skip.contains(name);
    for piece in &mut jobs {
        if piece.is_function() {
            // It fails there, so it hands nothing on.
            piece.job.outputs.clear();
        }
        let mut needs: BTreeMap<String, Need> = BTreeMap::new();
        for need in through_barriers(&piece.job.needs, graph, surely_runs) {
            match keys.get(&need.job) {
                Some(key) => {
                    let known = needs.entry(key.clone()).or_insert_with(|| need.clone());
                    known.accepts = match both(known.accepts, need.accepts) {
                        // The failure of a job before a barrier, which nothing passes then.
                        None if conditions == Conditions::Noted && known.accepts == Accepts::BARRIER => need.accepts,
                        None if conditions == Conditions::Noted => known.accepts,
                        both => both.unwrap_or(Accepts::of(&[])),
                    };
                    known.carries = known.carries.max(need.carries);
                    known.optional &= need.optional;
                }
                None => {
                    piece.needs_unwritten = true;
                    let Some(hole) = graph.holes.iter().find(|hole| hole.name == need.job.as_str()) else { continue };
                    piece.notes.push(format!("It waits for the jobs that come in the place of `{}`.", need.job));
                    // They come once these have ended, so it can begin no earlier.
                    for key in hole.after.iter().filter_map(|job| keys.get(job)) {
                        let waits = Need { job: need.job.clone(), carries: Carries::Order, ..need.clone() };
                        needs.entry(key.clone()).or_insert(waits);
                    }
                }
            }
        }
        let order: BTreeMap<&str, u32> =
            keys.iter().map(|(name, key)| (key.as_str(), graph.jobs[*name].order)).collect();
        // Order alone accepts a job that was skipped. Where none can be, it is the plain need, which people write.
        for (key, need) in needs.iter_mut().filter(|(_, need)| need.accepts == Accepts::BARRIER) {
            if keys.iter().filter(|(_, other)| *other == key).all(|(name, _)| surely_runs(name)) {
                need.accepts = Accepts::SUCCESS;
            }
        }
        piece.needs = needs.into_iter().collect();
        piece.needs.sort_by_key(|(key, _)| order.get(key.as_str()).copied());
        texts::rename_variables(&mut piece.job);
        match (when_of(&piece.id), conditions) {
            (Some(when), Conditions::Asked) => piece.when = Some(when.clone()),
            (Some(when), Conditions::Noted) => {
                piece.notes.push(format!("Ropewalk runs it only for {}; here it runs every time.", spoken(when)));
            }
            (None, _) => {}
        }
    }
    let env = common_env(&mut jobs);
    let scope = scope::scope(lowered);
    Plan {
        name: &lowered.evaluation.graph.name,
        triggers: scope.triggers,
        beside: scope.notes,
        params: &lowered.params,
        jobs,
        env,
        remarks,
    }
}

/// The jobs, barriers among them, that may be skipped without any failure, or come behind one that may be: those with a condition
/// that the system asks.
fn may_skip<'g>(
    graph: &'g Graph,
    skipped: &BTreeMap<&JobName, String>,
    is_asked: impl Fn(&JobName, &Job) -> bool,
) -> BTreeSet<&'g JobName> {
    let mut may_skip: BTreeSet<&JobName> = BTreeSet::new();
    // Needs come first in a pipeline's text or not; so until nothing new is found.
    loop {
        let before = may_skip.len();
        for (name, job) in graph.jobs.iter().filter(|(name, _)| !skipped.contains_key(name)) {
            let by_need =
                || job.needs.iter().any(|need| may_skip.contains(&need.job) || need.accepts == Accepts::FAILURE);
            if is_asked(name, job) || by_need() {
                may_skip.insert(name);
            }
        }
        if may_skip.len() == before {
            return may_skip;
        }
    }
}

/// The endings that both accept, if there are any.
fn both(left: Accepts, right: Accepts) -> Option<Accepts> {
    let endings: Vec<Ending> = left.endings().filter(|ending| right.holds(*ending)).collect();
    (!endings.is_empty()).then(|| Accepts::of(&endings))
}

/// Takes out of all jobs what all have.
fn common_env(jobs: &mut [Piece]) -> BTreeMap<String, Text> {
    let mut with_steps = jobs.iter().filter(|piece| !piece.job.steps.is_empty());
    let Some(first) = with_steps.next().filter(|_| jobs.len() > 1) else { return BTreeMap::new() };
    let mut common = first.job.env.clone();
    common.retain(|_, value| value.as_plain().is_some_and(|value| !value.contains(legs::MARK)));
    for piece in with_steps {
        common.retain(|name, value| piece.job.env.get(name) == Some(value));
    }
    for piece in jobs {
        piece.job.env.retain(|name, _| !common.contains_key(name));
    }
    common
}

fn hole_remark(hole: &Hole) -> String {
    let after: Vec<String> = hole.after.iter().map(|job| format!("`{job}`")).collect();
    match after.is_empty() {
        true => format!("Jobs of `{}` come once it is known which.", hole.name),
        false => {
            format!("Jobs of `{}` come once {} has ended; they cannot be written here.", hole.name, after.join(", "))
        }
    }
}

/// Jobs that do not run, each with the reason: by themselves, or because what they need does not.
fn skipped(graph: &Graph) -> BTreeMap<&JobName, String> {
    let mut skipped: BTreeMap<&JobName, String> = BTreeMap::new();
    for (name, job) in &graph.jobs {
        if let Some(reason) = &job.skip {
            skipped.insert(name, reason_text(reason));
        }
    }
    // Each round finds what waits for the finds of the one before, so there are at most as many as jobs.
    loop {
        let mut fresh = Vec::new();
        for (name, job) in graph.jobs.iter().filter(|(name, _)| !skipped.contains_key(name)) {
            let refused = |need: &&Need| {
                skipped.contains_key(&need.job) && !need.accepts.holds(Ending::Skipped) && !need.optional
            };
            if let Some(need) = job.needs.iter().find(refused) {
                fresh.push((name, format!("it needs `{}`", need.job)));
            }
        }
        if fresh.is_empty() {
            return skipped;
        }
        skipped.extend(fresh);
    }
}

fn reason_text(reason: &SkipReason) -> String {
    match reason {
        SkipReason::Condition { text } => text.clone(),
        SkipReason::Need { because } => format!("it needs `{because}`"),
        _ => "it is skipped".to_owned(),
    }
}

/// The needs with barriers replaced by what the barriers need.
fn through_barriers(needs: &[Need], graph: &Graph, surely_runs: impl Fn(&JobName) -> bool) -> Vec<Need> {
    let mut found = Vec::new();
    let mut seen: BTreeSet<&JobName> = BTreeSet::new();
    let mut ahead: Vec<&Need> = needs.iter().rev().collect();
    while let Some(need) = ahead.pop() {
        match graph.jobs.get(&need.job).filter(|_| need.job.is_barrier()) {
            Some(barrier) if seen.insert(&need.job) => {
                let (earlier, direct): (Vec<&Need>, Vec<&Need>) =
                    barrier.needs.iter().partition(|need| need.job.is_barrier());
                // Once one that waits for the earlier barrier itself has passed, so has what stands before that. One that was
                // skipped proves nothing.
                let proves = direct.iter().any(|need| surely_runs(&need.job));
                ahead.extend(direct);
                ahead.extend(earlier.into_iter().filter(|_| !proves));
            }
            Some(_) => {}
            None => found.push(need.clone()),
        }
    }
    found
}

/// The name in the form that all systems take, and that is not taken yet.
fn key(name: &str, taken: &mut BTreeSet<String>) -> String {
    let plain = |character: char| if character.is_ascii_alphanumeric() || character == '_' { character } else { '-' };
    let base: String = name.chars().map(plain).collect();
    let mut key = base.clone();
    let mut number = 2;
    while !taken.insert(key.clone()) {
        key = format!("{base}-{number}");
        number += 1;
    }
    key
}
