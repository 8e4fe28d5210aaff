//! The native format: `.ropewalk/pipeline.{yaml,yml,json,edn,toml}`, lowered to a graph.
//!
//! [`lower`] is the whole road: read the files (`tree.rs`), compare them with the table of keys (`keys.rs`, `check.rs`),
//! merge them (`files.rs`), decide triggers and parameters (`triggers.rs`), expand each job into its legs (`expand.rs`,
//! `matrix.rs`, `when.rs`), lower the legs (`jobs.rs`, `steps.rs`, `literals.rs`, `script.rs`), and join them by needs and barriers
//! (`edges.rs`). It never fails: what is wrong becomes a diagnostic, and the rest is lowered.
//!
//! Nothing here does I/O, reads a clock, or depends on the order of a hash map.

pub mod init;

mod check;
mod edges;
mod environment_files;
mod errors;
mod expand;
pub(crate) mod files;
mod foreign;
mod jobs;
mod kept;
mod keys;
mod lints;
mod literals;
mod matrix;
mod measure;
mod named_files;
pub(crate) mod nodes;
mod patterns;
mod placed;
mod plugins;
mod references;
mod schema;
mod script;
pub(crate) mod spelled;
mod steps;
mod texts;
mod triggers;
pub(crate) mod when;

use std::collections::{BTreeMap, BTreeSet};

use expression::Value as ExpressionValue;
use graph::{
    Condition, Diagnostic, Digest, Evaluation, Event, Field, Graph, Hole, JobName, Known, Question, Severity, Status,
};
use serde_json::Value;

pub use named_files::{FileRole, NamedFile, named_files};
pub use placed::JobPlaces;
pub use plugins::{BROUGHT_PLUGINS, Plugin, PluginOrigin, plugins};
pub use schema::schema;
pub use triggers::{Part, Schedule, Triggered, Triggers};

use crate::tree::{Node, Notation, Rules, Sources, Span};
use check::{Author, Check};
pub(crate) use errors::Faults;
use errors::Started;
pub(crate) use kept::{JobText, Kept, Words};
use patterns::Patterns;
pub(crate) use plugins::named as named_plugins;
pub(crate) use texts::EventTexts;

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
    /// Its parts that answer to events by themselves: the files first, if there are any, then the program's hooks in order.
    pub parts: Vec<Part>,
    /// Whether it answers to this one; if not, the graph is empty.
    pub triggered: Triggered,
    /// What a person who starts it may fill in.
    pub params: BTreeMap<String, Field>,
    /// The event, with the parameters' values.
    pub event: Event,
    /// The parameters' values for this event: checked, completed with defaults. To be put into the event's `params`
    /// before anything runs, since workers evaluate `${{ params.… }}` from there.
    pub filled: BTreeMap<String, Value>,
    /// Where its jobs were written.
    pub places: JobPlaces,
    /// The `when` of jobs for which it holds or cannot be known, by the id under which each was written.
    pub conditions: Vec<(JobName, Condition)>,
}

impl Lowered {
    /// Whether a diagnostic says that nothing may run.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.evaluation.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// Lowers the files of a pipeline for what is known.
///
/// Pure: the same files and answers give the same result. Bounded by [`crate::tree::Limits`] for each file and by the
/// named bounds of this module; takes time linear in what the files hold and in the jobs they make.
#[must_use]
pub fn lower(files: &[SourceFile], known: &Known) -> Lowered {
    lower_files(files, known, EventTexts::Finished)
}

/// As [`lower`], with texts that read the event or its parameters as they are written: for [`crate::export`].
#[must_use]
pub fn lower_as_written(files: &[SourceFile], known: &Known) -> Lowered {
    lower_files(files, known, EventTexts::AsWritten)
}

fn lower_files(files: &[SourceFile], known: &Known, texts: EventTexts) -> Lowered {
    let mut faults = Faults::default();
    let (sources, roots) = read(files, &mut faults);
    let parts = Parts { sources, roots, program: None, faults };
    lower_parts(parts, files, known, texts, &mut Kept::default())
}

/// A pipeline that has been read.
pub(crate) struct Parts {
    pub sources: Sources,
    /// The trees of the files, in their order.
    pub roots: Vec<Node>,
    pub program: Option<Written>,
    pub faults: Faults,
}

/// What a program wrote: the last part of the merge, with the four freedoms that files do not have (see
/// `docs/design/2026-11-21-rust-pipelines.md`).
pub(crate) struct Written {
    /// Its document, without marks; places stand in the spans.
    pub document: Option<Node>,
    /// The `on` of each of its hooks, if it has one.
    pub hooks: Vec<Option<Node>>,
    /// The names of its hooks.
    pub hook_names: Vec<String>,
    /// The jobs that will come, each with its place.
    pub holes: Vec<(Hole, Span)>,
    pub questions: BTreeSet<Question>,
    pub statuses: BTreeMap<String, Status>,
    /// What it found wrong itself.
    pub diagnostics: Vec<Diagnostic>,
    /// The program's binary.
    pub program: Digest,
    /// Its files, in the order in which their diagnostics are told.
    pub files: Vec<String>,
    /// How each job of the document was read, if it was read by a session; else empty.
    pub words: Vec<Words>,
}

/// Which hooks of a program answer to an event; see [`crate::program::triggered_hooks`].
pub(crate) fn triggered_hooks(roots: &[Node], hooks: &[Option<&Node>], event: &Event) -> Vec<usize> {
    let mut patterns = Patterns::default();
    let sections: Vec<&Node> = roots.iter().filter_map(|root| root.get("on")).collect();
    let answers = |on: &Option<&Node>| {
        let triggers = on.map_or_else(|| triggers::triggers(&sections), |on| triggers::triggers(&[on]));
        triggers::triggered(&triggers, event, &mut patterns) == Triggered::Yes
    };
    let mut answers = answers;
    (0..hooks.len()).filter(|&index| answers(&hooks[index])).collect()
}

/// Lowers what has been read. A program's document is merged last; jobs of it that `kept` knows are not lowered again.
pub(crate) fn lower_parts(
    parts: Parts,
    files: &[SourceFile],
    known: &Known,
    texts: EventTexts,
    kept: &mut Kept,
) -> Lowered {
    let Parts { sources, roots, mut program, mut faults } = parts;
    let mut patterns = Patterns::default();
    let mut checking = |root: &Node, author, faults: &mut Faults| {
        check::check(root, &mut Check { sources: &sources, faults, patterns: &mut patterns, author, kept });
    };
    roots.iter().for_each(|root| checking(root, Author::User, &mut faults));
    if let Some(program) = &program {
        program.document.iter().for_each(|root| checking(root, Author::Program, &mut faults));
        let hooks = program.hooks.iter().flatten();
        hooks.for_each(|on| {
            check::check_on(
                on,
                &mut Check {
                    sources: &sources,
                    faults: &mut faults,
                    patterns: &mut patterns,
                    author: Author::Program,
                    kept,
                },
            )
        });
    }
    if files.is_empty() && program.is_none() {
        faults.push(errors::no_pipeline());
    }
    let heard = triggers::heard(&roots, program.as_ref(), &known.event, &mut patterns);
    files::tell_replaced(&roots, &sources, &mut faults);
    // What does not answer to the event says nothing of its build.
    let file_roots = if heard.files { roots.as_slice() } else { &[] };
    let document = program.as_ref().and_then(|program| program.document.as_ref());
    let merged = files::merge(file_roots, document, &sources, &mut faults);
    if let Some(root) = file_roots.first()
        && merged.jobs.is_empty()
        && merged.barriers.is_empty()
        && faults.count() == 0
        && program.is_none()
    {
        faults.push(errors::no_jobs(sources.location(root.span)));
    }

    if heard.triggered == Triggered::Yes {
        plugins::tell_uncompleted(&merged, file_roots, program.as_ref(), &sources, &mut faults);
    }
    let params = triggers::fields(&heard.params, &sources, &mut faults);
    // A hook with an `on` of its own has events and parameters of its own.
    let has_own = program.as_ref().is_some_and(|program| program.hooks.iter().any(Option::is_some));
    if let Some(of_files) = heard.parts.iter().find(|part| part.hook.is_none()) {
        let started = if has_own { Started::Files } else { Started::Pipeline };
        lints::never_starts(&roots, &of_files.triggers, started, &sources, &mut faults);
    }
    let lints = lints::Lints {
        merged: &merged,
        roots: file_roots,
        triggers: &heard.triggers,
        params: &params,
        sources: &sources,
    };
    if !has_own {
        lints.jobs(&mut faults);
    }
    if program.is_none() {
        lints.unused_params(&mut faults);
    }
    let filled = match heard.triggered {
        Triggered::Yes => {
            let place_of = |name: &str| {
                let entry = heard.params.iter().find(|entry| entry.name() == Some(name));
                entry.map(|entry| sources.location(entry.key.span))
            };
            triggers::filled(&params, &known.event, place_of, &mut faults)
        }
        Triggered::No { .. } => BTreeMap::new(),
    };

    if let Some(program) = &program {
        kept.look_around(&known.event, &filled, &merged, program.program);
    }
    let values = event_values(known, &filled, texts);
    let around = jobs::Surroundings {
        sources: &sources,
        values: &values,
        env: &merged.env,
        defaults: &merged.defaults,
        program: program.as_ref().map(|program| program.program),
        files: file_roots.len(),
    };
    let holes = program.as_ref().map(|program| program.holes.as_slice()).unwrap_or_default();
    let given =
        edges::Given { merged: &merged, around: &around, known, params: &params, filled: &filled, files, holes, kept };
    let edges::Woven { mut graph, mut questions, lowered, places, conditions } =
        edges::graph(&given, &mut patterns, &mut faults);
    graph.name = merged.name.unwrap_or_else(|| stem(files)).to_owned();
    match &mut program {
        Some(program) if faults.count() == 0 => {
            kept.keep(program.document.take(), std::mem::take(&mut program.words), lowered);
        }
        _ => kept.clear(),
    }
    let mut names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    if let Some(program) = &program {
        names.extend(program.files.iter().map(String::as_str));
        graph.statuses.clone_from(&program.statuses);
        questions.extend(program.questions.iter().cloned());
        faults.extend(program.diagnostics.iter().cloned());
    }
    if heard.triggered != Triggered::Yes {
        graph = Graph { name: graph.name, ..Graph::default() };
        questions.clear();
    }
    let diagnostics = faults.finish(&names);
    let evaluation = Evaluation { graph, questions, diagnostics, ..Evaluation::default() };
    Lowered {
        evaluation,
        sources,
        triggers: heard.triggers,
        parts: heard.parts,
        triggered: heard.triggered,
        params,
        event: Event { params: filled.clone(), ..known.event.clone() },
        filled,
        places,
        conditions,
    }
}

/// The first file's name without folders and extension: what a pipeline is called that does not say.
fn stem(files: &[SourceFile]) -> &str {
    let path = files.first().map_or("pipeline", |file| file.name.as_str());
    let name = path.rsplit('/').next().unwrap_or_default();
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The trees of all files that have one; what is wrong with the others is told.
pub(crate) fn read(files: &[SourceFile], faults: &mut Faults) -> (Sources, Vec<Node>) {
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

fn event_values(known: &Known, filled: &BTreeMap<String, Value>, texts: EventTexts) -> texts::EventValues {
    let event = Event { params: filled.clone(), ..known.event.clone() }.context();
    let params = ExpressionValue::object(filled.iter().map(|(name, value)| (name.as_str(), value.into())));
    texts::EventValues { texts, event: ExpressionValue::from(&event), params }
}
