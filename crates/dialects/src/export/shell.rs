//! Steps as lines of a script, for systems that hand a job's commands to one shell.
//!
//! Variables and folders of a step hold for that step alone, so a step that has any stands in `( … )`, unless it is the
//! job's only one.

use std::collections::BTreeMap;

use graph::{Shell, Step, Text};

use super::Piece;
use super::texts::{Part, own_variables, parts, single_path};

/// How a system's shell reads what Ropewalk knows by expressions and variables.
pub(super) struct Words<'a> {
    /// What stands in double quotes for the value of a path such as `needs.build.outputs.version`.
    pub path: &'a dyn Fn(&[&str]) -> Option<String>,
    /// The name of one of Ropewalk's own variables.
    pub variable: &'a dyn Fn(&str) -> Option<&'static str>,
    /// What stands for an axis' value.
    pub axis: &'a dyn Fn(&str) -> String,
}

/// The commands of a job, one text for each step; what cannot be said is noted.
pub(super) fn commands(piece: &Piece, words: &Words<'_>, notes: &mut Vec<String>) -> Vec<String> {
    let job = &piece.job;
    let is_alone = job.steps.len() == 1;
    let mut commands = exports(&job.env, words, notes, Only::Templates);
    for step in &job.steps {
        commands.extend(self::step(step, is_alone, words, notes));
    }
    commands
}

/// Which variables become `export`s.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Only {
    /// Those that the system cannot set by itself.
    Templates,
    All,
}

fn exports(env: &BTreeMap<String, Text>, words: &Words<'_>, notes: &mut Vec<String>, only: Only) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, value) in env {
        if only == Only::Templates && value.as_plain().is_some() {
            continue;
        }
        match quoted(value, words) {
            Some(value) => lines.push(format!("export {name}={value}")),
            None => notes.push(format!("The value of {name} cannot be said here: {}", value.as_written())),
        }
    }
    lines
}

fn step(step: &Step, is_alone: bool, words: &Words<'_>, notes: &mut Vec<String>) -> Vec<String> {
    let called = step_name(step);
    if let Some(condition) = &step.condition {
        if &**condition == "false" {
            notes.push(format!("The step{called} does not run for this event; it is left out."));
            return Vec::new();
        }
        let also_failed = ["always(", "failure(", "cancelled("].iter().any(|function| condition.contains(function));
        notes.push(match also_failed {
            true => format!(
                "The step{called} runs if {condition}, also once a step has failed; here the script stops at the first \
                 command that fails, so it runs only if none has failed."
            ),
            false => format!(
                "The step{called} runs only if {condition}; here it runs whenever no command before it has failed."
            ),
        });
    }
    if step.allow_failure {
        notes.push(format!("The step{called} may fail; here the job fails with it."));
    }
    if let Some(limit) = step.timeout_ms {
        notes.push(format!("The step{called} has {} s of time.", limit.div_ceil(1000)));
    }
    if let Shell::Program(_) = step.shell {
        return vec!["echo 'a function of the pipeline: only ropewalk can call it' >&2; exit 1".to_owned()];
    }
    let (script, missing) = own_variables(&step.run, words.variable);
    if !missing.is_empty() {
        notes.push(format!("Only Ropewalk sets {}.", missing.join(", ")));
    }
    let script = Text::from(script);
    let script = super::texts::in_words(&script, words.axis, |_| None).unwrap_or_default();
    let mut lines = Vec::new();
    if let Some(directory) = &step.working_directory {
        match quoted(directory, words) {
            Some(directory) => lines.push(format!("cd {directory}")),
            None => notes.push(format!("The folder cannot be said here: {}", directory.as_written())),
        }
    }
    lines.extend(exports(&step.env, words, notes, Only::All));
    let read = match &step.shell {
        Shell::Custom(command) => {
            let command = command.join(" ").replace("{0}", "/dev/stdin");
            format!("{command} <<'SCRIPT'\n{}\nSCRIPT", script.trim_end_matches('\n'))
        }
        _ => script,
    };
    if lines.is_empty() {
        return vec![read];
    }
    if is_alone {
        lines.push(read);
        return lines;
    }
    let has_document = read.contains("<<");
    let indented = |line: &str| if line.is_empty() || has_document { line.to_owned() } else { format!("  {line}") };
    lines.extend(read.trim_end_matches('\n').split('\n').map(str::to_owned));
    let body: Vec<String> = lines.iter().map(|line| indented(line)).collect();
    vec![format!("(\n{}\n)", body.join("\n"))]
}

fn step_name(step: &Step) -> String {
    match (step.name.as_written(), &step.id) {
        ("", None) => String::new(),
        ("", Some(id)) => format!(" `{id}`"),
        (name, _) => format!(" `{name}`"),
    }
}

/// A text as a word of a shell; `None` if one of its expressions has no word.
fn quoted(text: &Text, words: &Words<'_>) -> Option<String> {
    let mut out = String::new();
    let mut is_plain = true;
    for part in parts(text) {
        match part {
            Part::Plain(plain) => {
                is_plain &= plain.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c));
                for character in plain.chars() {
                    if "\"\\$`".contains(character) {
                        out.push('\\');
                    }
                    out.push(character);
                }
            }
            Part::Axis(name) => {
                is_plain = false;
                out.push_str(&(words.axis)(name));
            }
            Part::Expression(written) => {
                is_plain = false;
                out.push_str(&(words.path)(&single_path(written)?)?);
            }
        }
    }
    if is_plain && !out.is_empty() { Some(out) } else { Some(format!("\"{out}\"")) }
}
