//! The native format: `.ropewalk/pipeline.{yaml,yml,json,edn,toml}`, lowered to a graph.
//!
//! [`lower`] is the whole road: read the files (`tree.rs`), compare them with the table of keys (`keys.rs`, `check.rs`),
//! merge them (`files.rs`), decide triggers and parameters (`triggers.rs`), expand each job into its legs (`expand.rs`,
//! `matrix.rs`, `when.rs`), lower the legs (`jobs.rs`, `steps.rs`, `script.rs`), and join them by needs and barriers
//! (`edges.rs`). It never fails: what is wrong becomes a diagnostic, and the rest is lowered.
//!
//! Nothing here does I/O, reads a clock, or depends on the order of a hash map.

pub mod init;

mod check;
mod edges;
mod errors;
mod expand;
mod files;
mod jobs;
mod keys;
mod lints;
mod matrix;
mod measure;
mod nodes;
mod patterns;
mod references;
mod schema;
mod script;
mod steps;
mod texts;
mod triggers;
mod when;

use std::collections::BTreeMap;

use expression::Value as ExpressionValue;
use graph::{Diagnostic, Evaluation, Field, Graph, Known, Severity};
use serde_json::Value;

pub use schema::schema;
pub use triggers::{Schedule, Triggered, Triggers};

use crate::tree::{Node, Notation, Rules, Sources};
use check::Check;
use errors::Faults;
use patterns::Patterns;

/// The files of a pipeline, in the order in which they are read and merged.
pub const PIPELINE_FILES: [&str; 5] = [
    ".ropewalk/pipeline.yaml",
    ".ropewalk/pipeline.yml",
    ".ropewalk/pipeline.json",
    ".ropewalk/pipeline.edn",
    ".ropewalk/pipeline.toml",
];

/// One file of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The path as the user knows it; diagnostics name it.
    pub name: String,
    /// How it is written; see [`Notation::of_path`].
    pub notation: Notation,
    /// Its bytes, whatever they are.
    pub text: Vec<u8>,
}

impl SourceFile {
    /// A file of this path; YAML if its extension says nothing else.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<Vec<u8>>) -> Self {
        let name = name.into();
        Self { notation: Notation::of_path(&name).unwrap_or(Notation::Yaml), name, text: text.into() }
    }
}

/// What a pipeline is for one event, and what it says of itself.
#[derive(Debug)]
pub struct Lowered {
    /// The graph, its open questions, and the diagnostics sorted by file and place. With an error among them the graph
    /// is only what could be understood.
    pub evaluation: Evaluation,
    /// The files that were read, for [`crate::report`].
    pub sources: Sources,
    /// Which events the pipeline answers to.
    pub triggers: Triggers,
    /// Whether it answers to this one; if not, the graph is empty.
    pub triggered: Triggered,
    /// What a person who starts it may fill in.
    pub params: BTreeMap<String, Field>,
    /// The parameters' values for this event: checked, completed with defaults. To be put into the event's `params`
    /// before anything runs, since workers evaluate `${{ params.… }}` from there.
    pub filled: BTreeMap<String, Value>,
}

impl Lowered {
    /// Whether a diagnostic says that nothing may run.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.evaluation.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// Whether a job of this name is a mere barrier that lowering put between stages or at a `wait`: it has nothing to run
/// and nothing to ask, and views leave it out. No job that a user names has a colon in its name.
#[must_use]
pub fn is_barrier(name: &str) -> bool {
    name.starts_with("stage:") || name.starts_with("wait:")
}

/// Lowers the files of a pipeline for what is known.
///
/// Pure: the same files and answers give the same result. Bounded by [`crate::tree::Limits`] for each file and by the
/// named bounds of this module; takes time linear in what the files hold and in the jobs they make.
#[must_use]
pub fn lower(files: &[SourceFile], known: &Known) -> Lowered {
    let mut faults = Faults::default();
    let (sources, roots) = read(files, &mut faults);
    let mut patterns = Patterns::default();
    for root in &roots {
        check::check(root, &mut Check { sources: &sources, faults: &mut faults, patterns: &mut patterns });
    }
    if files.is_empty() {
        faults.push(errors::no_pipeline());
    }
    let merged = files::merge(&roots, &sources, &mut faults);
    if let Some(root) = roots.first()
        && merged.jobs.is_empty()
        && merged.barriers.is_empty()
        && faults.count() == 0
    {
        faults.push(errors::no_jobs(sources.location(root.span)));
    }

    let triggers = triggers::triggers(&merged.on);
    let triggered = triggers::triggered(&triggers, &known.event, &mut patterns);
    let param_entries = triggers::params(&merged.on);
    let params = triggers::fields(param_entries, &sources, &mut faults);
    lints::Lints { merged: &merged, roots: &roots, triggers: &triggers, params: &params, sources: &sources }
        .tell(&mut faults);
    let filled = match triggered {
        Triggered::Yes => {
            let place_of = |name: &str| {
                let entry = param_entries.iter().find(|entry| entry.name() == Some(name));
                entry.map(|entry| sources.location(entry.key.span))
            };
            triggers::filled(&params, &known.event, place_of, &mut faults)
        }
        Triggered::No { .. } => BTreeMap::new(),
    };

    let values = event_values(known, &filled);
    let around =
        jobs::Surroundings { sources: &sources, values: &values, env: &merged.env, defaults: &merged.defaults };
    let given = edges::Given { merged: &merged, around: &around, known, params: &params, filled: &filled, files };
    let (mut graph, mut questions) = edges::graph(&given, &mut patterns, &mut faults);
    graph.name = merged.name.unwrap_or_else(|| stem(files)).to_owned();
    if triggered != Triggered::Yes {
        graph = Graph { name: graph.name, ..Graph::default() };
        questions.clear();
    }
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let diagnostics = faults.finish(&names);
    let evaluation = Evaluation { graph, questions, diagnostics };
    Lowered { evaluation, sources, triggers, triggered, params, filled }
}

/// The first file's name without folders and extension: what a pipeline is called that does not say.
fn stem(files: &[SourceFile]) -> &str {
    let path = files.first().map(|file| file.name.as_str()).unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The trees of all files that have one; what is wrong with the others is told.
fn read(files: &[SourceFile], faults: &mut Faults) -> (Sources, Vec<Node>) {
    let mut sources = Sources::new();
    let mut roots = Vec::new();
    for file in files {
        let (root, found): (Option<Node>, Vec<Diagnostic>) =
            sources.read(&file.name, &file.text, file.notation, &Rules::NATIVE);
        faults.extend(found);
        roots.extend(root);
    }
    (sources, roots)
}

fn event_values(known: &Known, filled: &BTreeMap<String, Value>) -> texts::EventValues {
    let mut event = known.event.clone();
    event.params.clone_from(filled);
    // Our types serialize to JSON whatever they hold.
    let event = serde_json::to_value(event).expect("an event always serializes");
    let params = ExpressionValue::object(filled.iter().map(|(name, value)| (name.as_str(), value.into())));
    texts::EventValues { event: ExpressionValue::from(&event), params }
}
