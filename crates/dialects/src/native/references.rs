//! Names that a job's expressions read: needs, steps, axes, parameters and fields must exist.
//!
//! A mistyped name would be null and so, silently, false or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::OnceLock;

use expression::{Condition, ContextPath, Scope, Template, Value};
use graph::{Event, EventKind, Field, FieldKind, Location};

use super::check::place_in;
use super::errors::{self, Faults};
use super::files::Source;
use super::kept;
use super::nodes;
use super::spelled::{self, Comparison};
use crate::hashing::QuickSet;
use crate::tree::{Entry, Node, Sources};

/// The names that a job's expressions may read.
pub(crate) struct Names<'a> {
    /// The pipeline's variables.
    pub env: &'a [&'a Entry],
    pub needs: Vec<&'a str>,
    /// `None` if they come from an expression.
    pub axes: Option<Vec<&'a str>>,
    pub params: &'a BTreeMap<String, Field>,
    pub gate: Vec<&'a str>,
    /// The outputs that a job hands on; `None` if there is no such job.
    pub outputs: &'a dyn Fn(&str) -> Option<Vec<String>>,
    /// Whether an id that is needed has a leg of this full name, or may come to have it.
    pub is_leg: &'a dyn Fn(&str) -> bool,
    /// Whether a job that is not among its needs has ended all the same before it starts.
    pub is_before: &'a dyn Fn(&str) -> bool,
    /// Whether an id may stand for several legs.
    pub has_legs: &'a dyn Fn(&str) -> bool,
}

/// What a step that has ended has; the worker's `contexts.rs` gives it.
const OF_STEP: &[&str] = &["outputs", "outcome", "conclusion", "exit"];
/// What is known of a job before a worker has it, by the engine's `contexts.rs`; a worker knows more.
const OF_JOB: &[&str] = &["id", "name"];
const OF_RUNNING_JOB: &[&str] = &["id", "name", "attempt", "status"];
const OF_BUILD: &[&str] = &["number"];
const OF_RUNNER: &[&str] = &["name", "os", "arch"];
/// How a job or a step may end, and how a job stands.
const RESULTS: &[&str] = &["passed", "failed", "skipped", "canceled"];
const STATUSES: &[&str] = &["passed", "failed", "canceled"];

/// The axes of a matrix as far as they are written; `None` if an expression gives some.
pub(crate) fn axes(matrix: Option<&Node>) -> Option<Vec<&str>> {
    let Some(matrix) = matrix else { return Some(Vec::new()) };
    let mut names = Vec::new();
    for entry in matrix.entries()? {
        let name = entry.name().unwrap_or_default();
        if name == "include" {
            let maps = entry.value.items()?.iter();
            names.extend(maps.flat_map(|map| map.entries().unwrap_or_default()).filter_map(|entry| entry.name()));
        } else if name != "exclude" {
            names.push(name);
        }
    }
    Some(names)
}

/// Whether a job has anything of which [`check`] could tell: an expression, a condition, or a step with an id.
pub(crate) fn are_needed(body: &Node) -> bool {
    let steps = body.get("run").map(nodes::list).unwrap_or_default();
    steps.iter().any(|step| step.get("id").is_some()) || kept::reads(body, "")
}

/// Tells every name that the job's expressions read and that does not exist. Gives the jobs whose outputs they read
/// without needing them directly; those are needed by others that this job needs.
pub(crate) fn check(job: &Source<'_>, names: &Names<'_>, sources: &Sources, faults: &mut Faults) -> BTreeSet<String> {
    let mut checking =
        Checking { names, steps: Vec::new(), of_job: OF_RUNNING_JOB, sources, faults, read_beyond: BTreeSet::new() };
    for entry in job.body.entries().unwrap_or_default() {
        let is_before_worker = matches!(entry.name(), Some("if" | "gate" | "concurrency"));
        checking.of_job = if is_before_worker { OF_JOB } else { OF_RUNNING_JOB };
        match entry.name() {
            Some("run") => {
                if let Some(step) = nodes::list(&entry.value).first() {
                    checking.variables_of_first_step(job, step);
                }
                for step in nodes::list(&entry.value) {
                    checking.of_job = if step.get("build").is_some() { OF_JOB } else { OF_RUNNING_JOB };
                    checking.node(step, "run");
                    if let Some(node) = step.get("id") {
                        checking.step_id(node);
                    }
                }
            }
            Some(name) => checking.node(&entry.value, name),
            None => {}
        }
    }
    if let Some(own) = job.body.get("env").and_then(Node::entries) {
        check_variables(own, &names_of(names.env.iter().copied()), sources, checking.faults);
    }
    checking.read_beyond
}

/// Tells variables of one map that read what only their own map sets: a worker evaluates all of them before any is there.
/// `around` are the names that the map sees.
pub(crate) fn check_variables<'n>(
    entries: impl IntoIterator<Item = &'n Entry> + Clone,
    around: &QuickSet<&str>,
    sources: &Sources,
    faults: &mut Faults,
) {
    let beside = names_of(entries.clone());
    for entry in entries {
        let (Some(name), Some(text)) = (entry.name(), entry.value.as_str()) else { continue };
        let paths = Template::read(text, &Scope::default()).0.context_paths();
        for path in paths.iter().filter(|path| &*path.context == "env") {
            let Some(read) = path.name(0).filter(|read| beside.contains(read) && !around.contains(read)) else {
                continue;
            };
            let span = place_in(sources, &entry.value, text, spelled::place(text, path, 0..=1));
            faults.push(errors::set_beside(sources.location(span), name, read));
        }
    }
}

fn names_of<'n>(entries: impl IntoIterator<Item = &'n Entry>) -> QuickSet<&'n str> {
    entries.into_iter().filter_map(Entry::name).collect()
}

struct Checking<'a, 'f> {
    names: &'a Names<'a>,
    /// Ids of the steps before the one that is looked at.
    steps: Vec<&'a str>,
    /// What is known of the job where it is looked at.
    of_job: &'static [&'static str],
    sources: &'a Sources,
    faults: &'f mut Faults,
    /// Jobs that are read and have ended, but are not needed directly.
    read_beyond: BTreeSet<String>,
}

impl<'a> Checking<'a, '_> {
    fn step_id(&mut self, node: &'a Node) {
        let Some(id) = node.as_str() else { return };
        if self.steps.contains(&id) {
            let message = format!("two steps have the id `{id}`");
            let place = self.sources.location(node.span);
            self.faults.push(errors::bad_value(
                "duplicate-step",
                place,
                message,
                "the second one",
                "rename one of them",
            ));
        }
        self.steps.push(id);
    }

    /// Those of a later step may be there before it: a step before may have written them to `$ROPEWALK_ENV`.
    fn variables_of_first_step(&mut self, job: &Source<'_>, step: &Node) {
        let Some(own) = step.get("env").and_then(Node::entries) else { return };
        let of_job = job.body.get("env").and_then(Node::entries).unwrap_or_default();
        let around = names_of(self.names.env.iter().copied().chain(of_job));
        check_variables(own, &around, self.sources, self.faults);
    }

    /// All texts under a node; `key` is the nearest key above.
    fn node(&mut self, node: &Node, key: &str) {
        if let Some(text) = node.as_str() {
            // What is wrong with an expression was told by `check.rs`; what can be read of it may be wrong as well.
            let paths = if key == "if" {
                Condition::read(text, &Scope::default()).0.context_paths()
            } else if Template::is_needed(text) {
                Template::read(text, &Scope::default()).0.context_paths()
            } else {
                return;
            };
            for path in paths {
                self.path(node, text, &path);
            }
            self.comparisons(node, text);
        }
        node.items().unwrap_or_default().iter().for_each(|item| self.node(item, key));
        for entry in node.entries().unwrap_or_default() {
            self.node(&entry.key, "");
            self.node(&entry.value, entry.name().unwrap_or_default());
        }
    }

    fn path(&mut self, node: &Node, text: &str, path: &ContextPath) {
        let Some(name) = path.name(0) else { return self.property(node, text, path) };
        let params: Vec<&str>;
        let (kind, known, help) = match &*path.context {
            "needs" => ("needed job", self.names.needs.as_slice(), "add it to this job's `needs`"),
            "steps" => ("step before this one", self.steps.as_slice(), "give the step an `id`"),
            "matrix" => match &self.names.axes {
                Some(axes) => ("axis of this job's matrix", axes.as_slice(), "add it to this job's `matrix`"),
                None => return,
            },
            "params" => {
                params = self.names.params.keys().map(String::as_str).collect();
                ("parameter", params.as_slice(), "declare it: `on: { manual: { params: … } }`")
            }
            "gate" => ("field of this job's gate", self.names.gate.as_slice(), "add it to the gate's `fields`"),
            "event" => ("property of an event", event_names(), "see the manual for what an event has"),
            _ => return self.property(node, text, path),
        };
        if known.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            self.property(node, text, path);
            return self.output(node, text, path);
        }
        if &*path.context == "needs"
            && let Some((id, _)) = name.split_once('/')
            && self.names.needs.contains(&id)
            && (self.names.is_leg)(name)
        {
            self.property(node, text, path);
            return self.output(node, text, path);
        }
        if &*path.context == "needs" && (self.names.is_before)(name) {
            self.read_beyond.insert(name.to_owned());
            self.property(node, text, path);
            return self.output(node, text, path);
        }
        let fault = errors::unknown_reference(self.place(node, text, path, 0..=1), kind, name, known, help);
        self.faults.push(fault);
    }

    /// Where a path stands from one key to another; the context is the first.
    fn place(&self, node: &Node, text: &str, path: &ContextPath, keys: RangeInclusive<usize>) -> Location {
        let range = spelled::place(text, path, keys);
        self.sources.location(place_in(self.sources, node, text, range))
    }
}

/// What something may be, beside not being there.
enum Values<'n> {
    /// One of these texts, each of them such a thing: "result".
    Words(&'static str, Vec<&'n str>),
    Boolean,
}

impl Values<'_> {
    /// Whether a comparison with the text may hold. What is not there is null, which equals the empty text and zero.
    fn may_be(&self, text: &str, by: Comparison) -> bool {
        let values: Vec<Value> = match self {
            Values::Words(_, words) => words.iter().map(|word| Value::from(*word)).collect(),
            Values::Boolean => vec![Value::from(true), Value::from(false)],
        };
        match by {
            Comparison::Whole => values.iter().chain([&Value::Null]).any(|value| value.equals(&Value::from(text))),
            Comparison::Part => {
                let part = text.to_lowercase();
                values.iter().any(|value| value.to_text().to_lowercase().contains(&part))
            }
        }
    }
}

impl Checking<'_, '_> {
    /// Tells what nothing of this kind has.
    fn property(&mut self, node: &Node, text: &str, path: &ContextPath) {
        let (of, known, at) = match &*path.context {
            "needs" => {
                let has_legs = path.name(0).is_none_or(|name| (self.names.has_legs)(name));
                let known: &[&str] = if has_legs { &["result", "outputs", "legs"] } else { &["result", "outputs"] };
                ("a needed job", known, 1)
            }
            "steps" => ("a step", OF_STEP, 1),
            "job" => ("a job where this is evaluated", self.of_job, 0),
            "build" => ("a build", OF_BUILD, 0),
            "runner" => ("a runner", OF_RUNNER, 0),
            _ => return,
        };
        let Some(name) = path.name(at) else { return };
        if !known.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            let place = self.place(node, text, path, 0..=at + 1);
            self.faults.push(errors::unknown_property(place, of, name, known));
        }
    }

    /// Tells comparisons with texts that what is compared never is.
    fn comparisons(&mut self, node: &Node, text: &str) {
        for spelled in spelled::spelled(text) {
            let Some(compared) = &spelled.compared else { continue };
            let Some(values) = self.values(&spelled.keys) else { continue };
            if values.may_be(compared.text, compared.by) {
                continue;
            }
            let place = self.sources.location(place_in(self.sources, node, text, compared.place.clone()));
            let path = spelled.keys.join(".");
            self.faults.push(match values {
                Values::Words(kind, known) => {
                    errors::never_equal(place, &path, compared.by, compared.text, kind, &known)
                }
                Values::Boolean => errors::boolean_as_text(place, &path, compared.text),
            });
        }
    }

    /// What something may be that an expression reads by these keys; `None` if it may be any text.
    fn values(&self, keys: &[&str]) -> Option<Values<'_>> {
        let keys: Vec<String> = keys.iter().map(|key| key.to_ascii_lowercase()).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        match keys.as_slice() {
            ["needs", _, "result"] | ["needs", _, "legs", _, "result"] | ["steps", _, "outcome" | "conclusion"] => {
                Some(Values::Words("result", RESULTS.to_vec()))
            }
            ["job", "status"] => Some(Values::Words("result", STATUSES.to_vec())),
            ["event", "kind"] => Some(Values::Words("kind of event", EventKind::ALL.map(EventKind::name).to_vec())),
            ["params", name] | ["event", "params", name] => {
                let (_, field) = self.names.params.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
                match &field.kind {
                    FieldKind::Choice { options } => {
                        Some(Values::Words("option", options.iter().map(String::as_str).collect()))
                    }
                    FieldKind::Boolean => Some(Values::Boolean),
                    FieldKind::String | FieldKind::Number => None,
                }
            }
            _ => None,
        }
    }

    /// Tells an output that the needed job never hands on.
    fn output(&mut self, node: &Node, text: &str, path: &ContextPath) {
        let ("needs", Some(name), Some(property), Some(output)) =
            (&*path.context, path.name(0), path.name(1), path.name(2))
        else {
            return;
        };
        let id = name.split_once('/').map_or(name, |(id, _)| id);
        let Some(known) = (self.names.outputs)(id).filter(|_| property.eq_ignore_ascii_case("outputs")) else { return };
        if !known.iter().any(|known| known.eq_ignore_ascii_case(output)) {
            let place = self.place(node, text, path, 2..=3);
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            self.faults.push(errors::unknown_output(place, id, output, &known));
        }
    }
}

/// What an event may have, from its own shape.
fn event_names() -> &'static [&'static str] {
    static NAMES: OnceLock<Vec<&'static str>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let context = Event::new(EventKind::Push).context();
        let names = context.as_object().into_iter().flat_map(|object| object.keys());
        names.map(|name| &*Box::leak(name.clone().into_boxed_str())).collect()
    })
}
