//! `ropewalk check`: every fault of a pipeline in one go, for people, as JSON, as SARIF.

use std::io::Write;

use dialects::native::{FileRole, NamedFile};
use dialects::report;
use dialects::tree::Sources;
use graph::{Diagnostic, Event, EventKind, Severity};
use serde_json::Value;
use worker::patterns::Patterns;
use worker::tree::Tree;

use super::Stop;
use crate::args::{Check, Colour, ReportForm};
use crate::local::inputs;
use crate::pipeline::{self, Pipeline};
use crate::program::{self, Program};
use crate::project::Project;
use crate::{exit, output};

/// Runs the command. The code is 2 if there is an error. What programs read is one report, whatever is wrong.
///
/// # Errors
/// For people: if there is no pipeline, it cannot be read, its program does not compile or says something else when it is asked again.
/// In other forms: if the report cannot be written.
pub fn run(arguments: &Check, project: &Project, colour: Colour) -> Result<u8, Stop> {
    let text: fn(&Found) -> String = match arguments.format {
        ReportForm::Human => return for_people(arguments, project, colour),
        ReportForm::Json => |found: &Found| report::json(&found.diagnostics),
        ReportForm::Sarif => {
            |found: &Found| report::sarif(&found.diagnostics, &found.sources, env!("CARGO_PKG_VERSION"))
        }
    };
    let found = find(arguments, project);
    output::print(text(&found) + "\n")?;
    Ok(found.code)
}

fn for_people(arguments: &Check, project: &Project, colour: Colour) -> Result<u8, Stop> {
    let pipeline = load(arguments, project, colour)?;
    let mut lowered = pipeline.faults();
    lowered.evaluation.diagnostics.extend(missing_files(&pipeline.named_files(), project));
    let (diagnostics, sources) = (&lowered.evaluation.diagnostics, &lowered.sources);
    let color = match output::coloured(colour, &std::io::stderr()) {
        true => report::Color::Always,
        false => report::Color::Never,
    };
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "{}", report::text(diagnostics, sources, color));
    let _ = writeln!(stderr, "{}: {}", pipeline.name(), report::summary(diagnostics));
    if lowered.is_wrong() {
        return Ok(exit::WRONG);
    }
    if arguments.twice {
        same(&pipeline).map_err(|diagnostic| Stop::wrong(diagnostic.message))?;
    }
    Ok(exit::PASSED)
}

/// Reads the pipeline.
fn load(arguments: &Check, project: &Project, colour: Colour) -> Result<Pipeline, Stop> {
    let file = arguments.source.pipeline.as_deref();
    if let Some(source) = program::source(project, file) {
        pipeline::find(project, source.path())?;
        // Most faults are found without building anything.
        Program::check(project, &source, colour)?;
    }
    Pipeline::load(project, file, colour)
}

/// All that is wrong.
struct Found {
    diagnostics: Vec<Diagnostic>,
    sources: Sources,
    /// The exit code.
    code: u8,
}

/// Everything that the command finds, whatever it stops at.
fn find(arguments: &Check, project: &Project) -> Found {
    let pipeline = match load(arguments, project, Colour::Never) {
        Ok(pipeline) => pipeline,
        Err(stop) => {
            let diagnostics = match stop.said {
                Some(said) => said.diagnostics,
                None => vec![Diagnostic::error("pipeline-unread", stop.message)],
            };
            return Found { diagnostics, sources: Sources::new(), code: stop.code };
        }
    };
    let mut lowered = pipeline.faults();
    lowered.evaluation.diagnostics.extend(missing_files(&pipeline.named_files(), project));
    let is_wrong = lowered.is_wrong();
    let mut diagnostics = lowered.evaluation.diagnostics;
    if arguments.twice && !is_wrong {
        diagnostics.extend(same(&pipeline).err().map(|diagnostic| *diagnostic));
    }
    let is_wrong = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    Found { diagnostics, sources: lowered.sources, code: if is_wrong { exit::WRONG } else { exit::PASSED } }
}

/// Warns of files that jobs name and that are not there: a glob that takes nothing lets an earlier result stand for good.
fn missing_files(named: &[NamedFile], project: &Project) -> Vec<Diagnostic> {
    // Where the tree cannot be listed, a run will say why.
    let Some(tree) = (!named.is_empty()).then(|| Tree::list(&project.root).ok()).flatten() else {
        return Vec::new();
    };
    let missing = named.iter().filter_map(|file| {
        let what = wrong_with(file, &tree, project)?;
        let of = file.job.as_ref().map_or_else(|| "`defaults`".to_owned(), |job| format!("job `{job}`"));
        let (key, label, help) = match file.role {
            FileRole::Input(_) => (
                "inputs",
                "takes nothing",
                "a job is reused while its `inputs` are the same: what no glob names does not count",
            ),
            FileRole::Dockerfile => ("environment", "not there", "its path is relative to the project"),
            FileRole::Pipeline => ("build", "not there", "its path is relative to the project"),
        };
        let warning = Diagnostic::warning("no-such-file", format!("`{key}` of {of}: {what}"));
        Some(warning.at(file.location.clone(), label).help(help))
    });
    missing.collect()
}

/// `None` if it is there.
fn wrong_with(file: &NamedFile, tree: &Tree, project: &Project) -> Option<String> {
    match file.role {
        FileRole::Input(workspace) => {
            // A glob that cannot be read has been told.
            let selected = Patterns::new(&[&file.text]).ok()?.select(tree.paths());
            let is_there = |place: &usize| project.root.join(&tree.paths()[*place]).symlink_metadata().is_ok();
            if selected.iter().any(is_there) {
                return None;
            }
            inputs::words_of_missing(&project.root, &file.text, workspace)
        }
        FileRole::Dockerfile | FileRole::Pipeline => {
            let is_there = project.root.join(&file.text).exists();
            (!is_there).then(|| format!("there is no file `{}`", file.text))
        }
    }
}

/// The most characters of a value that are shown where two evaluations differ.
const VALUE_CHARACTERS_MAX: usize = 200;
/// The most characters that are shown before the first that differs.
const SAME_CHARACTERS_MAX: usize = 40;

/// Whether a program says the same to the same question.
///
/// # Errors
/// If it cannot be asked, or where it does not: the first difference.
fn same(pipeline: &Pipeline) -> Result<(), Box<Diagnostic>> {
    let asked = pipeline.thrice(Event::new(EventKind::Push));
    let asked = asked.map_err(|message| Diagnostic::error("program-failed", message))?;
    let Some([first, second, third]) = asked else { return Ok(()) };
    for (other, when) in [(second, "a second time in the same process"), (third, "in another process")] {
        if other == first {
            continue;
        }
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let place = difference(&read(&first), &read(&other), Vec::new());
        let (place, before, after) = match place {
            Some((path, before, after)) => (named(&path), before, after),
            None => {
                let (before, after) = from_where_they_differ(&first, &other);
                (", the same in another order".to_owned(), before, after)
            }
        };
        let message = format!(
            "{}: evaluated {when}, the program says something else{place}\n  before: {}\n  after:  {}\nan evaluation may \
             depend on the event and on answers alone: not on addresses, nor on the order of a `HashMap`",
            pipeline.name(),
            shortened(&before),
            shortened(&after),
        );
        return Err(Box::new(Diagnostic::error("program-differs", message)));
    }
    let _ = writeln!(
        std::io::stderr(),
        "{}: evaluated three times in two processes, byte for byte the same",
        pipeline.name()
    );
    Ok(())
}

/// ` in job `build`, key `env.A``.
fn named(path: &[String]) -> String {
    match path {
        [document, jobs, job, key @ ..] if document == "document" && jobs == "jobs" => {
            let key = if key.is_empty() { String::new() } else { format!(", key `{}`", key.join(".")) };
            format!(" in job `{job}`{key}")
        }
        [] => String::new(),
        path => format!(" in `{}`", path.join(".")),
    }
}

/// Both texts from a little before the first character in which they differ.
fn from_where_they_differ(before: &str, after: &str) -> (String, String) {
    let same = before.chars().zip(after.chars()).take_while(|(left, right)| left == right).count();
    let skipped = same.saturating_sub(SAME_CHARACTERS_MAX);
    let dots = if skipped > 0 { "…" } else { "" };
    let rest = |text: &str| format!("{dots}{}", text.chars().skip(skipped).collect::<String>());
    (rest(before), rest(after))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Path and both values of the first place in which two values differ. Objects of one reply keep their order, so that only
/// the order differing is a difference of its own.
fn difference(before: &Value, after: &Value, path: Vec<String>) -> Option<(Vec<String>, String, String)> {
    let below = |key: String| [path.as_slice(), &[key]].concat();
    let nothing = || "nothing".to_owned();
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                match after.get(key) {
                    None => return Some((below(key.clone()), value.to_string(), nothing())),
                    Some(other) => {
                        if let Some(found) = difference(value, other, below(key.clone())) {
                            return Some(found);
                        }
                    }
                }
            }
            let fresh = after.iter().find(|(key, _)| !before.contains_key(*key));
            fresh.map(|(key, value)| (below(key.clone()), nothing(), value.to_string()))
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            let pairs = before.iter().zip(after).enumerate();
            pairs.into_iter().find_map(|(index, (before, after))| difference(before, after, below(index.to_string())))
        }
        (before, after) if before == after => None,
        (before, after) => Some((path, before.to_string(), after.to_string())),
    }
}
