//! Steps as lines of a script, for systems that hand a job's commands to one shell.
//!
//! To Ropewalk every step is a shell of its own: folder, variables and `exit` are its own, and the job stops where a step
//! ends with anything but zero. So a step stands in `( … )` where another command comes behind it, unless it calls one
//! program and nothing else: then `-e` sees whatever the step ends with.

use std::collections::BTreeMap;

use expression::Condition;
use graph::{Shell, Step, Text};

use super::Piece;
use super::texts::{Part, own_variables, parts, single_path};

/// How a system's shell reads what Ropewalk knows by expressions and variables.
pub(super) struct Words<'a> {
    /// What stands in double quotes for the value of a path such as `needs.build.outputs.version`.
    pub path: &'a dyn Fn(&[&str]) -> Option<String>,
    /// The name of one of Ropewalk's own variables.
    pub variable: &'a dyn Fn(&str) -> Option<&'static str>,
    /// What stands in double quotes for an axis' value.
    pub axis: &'a dyn Fn(&str) -> String,
    /// A script with the values of axes in their places; `None` if nothing can stand in one of them.
    pub script: &'a dyn Fn(&str, &Shell) -> Option<String>,
}

/// What comes behind a job's last step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nothing: the job ends as the step does.
    Nothing,
    /// Commands of the system, which may be there or not: the job ends as the step does only if `-e` sees how it ended.
    Maybe,
    /// More commands of the job.
    Commands,
}

/// The commands of a job, one text for each step; what cannot be said is noted.
pub(super) fn commands(piece: &Piece, behind: Behind, words: &Words<'_>, notes: &mut Vec<String>) -> Vec<String> {
    let job = &piece.job;
    let mut commands = exports(&job.env, words, notes, Only::Templates);
    let n_steps = job.steps.iter().filter(|step| left_out(step).is_none()).count();
    let behind = if n_steps == 1 { behind } else { Behind::Commands };
    for step in &job.steps {
        commands.extend(self::step(step, behind, words, notes));
    }
    commands
}

/// Whether a step may hand on a value of several lines.
pub(super) fn writes_documents(piece: &Piece) -> bool {
    let writes = |step: &Step| step.run.contains("<<") && step.run.contains("ROPEWALK_OUTPUT");
    !piece.job.outputs.is_empty() && piece.job.steps.iter().any(writes)
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
        match self::value(name, value, words) {
            Some(Value::Word(word)) => lines.push(format!("export {name}={word}")),
            Some(commands) => {
                lines.extend(commands.assigned(name));
                lines.push(format!("export {name}"));
            }
            None => {
                notes.push(format!("The value of {name} cannot be said here, so it fails: {}", value.as_written()));
                lines.push(failing(&format!("the value of {name} cannot be said here")));
            }
        }
    }
    lines
}

/// Why a step is left out: its condition does not hold, or it does nothing that matters to how the job ends.
fn left_out(step: &Step) -> Option<String> {
    let condition = step.condition.as_deref()?;
    match condition {
        "false" => Some("does not run for this event; it is left out.".to_owned()),
        "failure()" | "cancelled()" | "failure() || cancelled()" => {
            Some("runs once a step has failed; here the script ends there, so it is left out.".to_owned())
        }
        _ if step.allow_failure && !holds_for_event(condition) => {
            Some(format!("may fail, and runs only if {condition}; a script cannot ask that, so it is left out."))
        }
        _ => None,
    }
}

/// Whether a condition that was not refused for the event holds for it: it asks for nothing that is known only later.
pub(super) fn holds_for_event(condition: &str) -> bool {
    let is_known = |context: &str| matches!(context, "event" | "params");
    !["failure(", "cancelled("].iter().any(|function| condition.contains(function))
        && Condition::parse(condition)
            .is_ok_and(|condition| condition.context_paths().iter().all(|path| is_known(&path.context)))
}

/// A command that fails, saying why.
fn failing(why: &str) -> String {
    format!("echo {} >&2; exit 1", graph::shell::quoted(why))
}

fn step(step: &Step, behind: Behind, words: &Words<'_>, notes: &mut Vec<String>) -> Vec<String> {
    let called = step_name(step);
    if let Some(why) = left_out(step) {
        notes.push(format!("The step{called} {why}"));
        return Vec::new();
    }
    if let Some(condition) = &step.condition {
        if !holds_for_event(condition) {
            notes.push(format!("The step{called} runs only if {condition}; a script cannot ask that, so it fails."));
            return vec![failing("a condition that only ropewalk can ask: see the comment above the job")];
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
        return vec![failing("a function of the pipeline: only ropewalk can call it")];
    }
    let Some(script) = script(step, words, notes) else {
        notes.push(format!(
            "The step{called} has the value of an axis where nothing can be put in: in quotes, in a document, or in \
             another language. Give it a variable of that value."
        ));
        return vec![failing("the value of an axis cannot be put into this step")];
    };
    let is_call = is_call(&script);
    let mut before = Vec::new();
    if step.shell == Shell::Bash && !is_call {
        before.push("set -o pipefail".to_owned());
    }
    if let Some(directory) = &step.working_directory {
        match value("directory", directory, words) {
            Some(Value::Word(word)) => before.push(format!("cd {word}")),
            Some(commands) => {
                before.extend(commands.assigned("directory"));
                before.push("cd \"$directory\"".to_owned());
            }
            None => {
                notes.push(format!("The folder cannot be said here, so it fails: {}", directory.as_written()));
                before.push(failing("the folder cannot be said here"));
            }
        }
    }
    before.extend(exports(&step.env, words, notes, Only::All));
    let is_alone = match behind {
        Behind::Nothing => true,
        // `-e` does not see how these end.
        Behind::Maybe => !["!", "&&", "||"].iter().any(|word| script.contains(word)),
        Behind::Commands => before.is_empty() && (is_call || is_comment(&script)),
    };
    if is_alone {
        before.push(script);
        return before;
    }
    vec![apart(before, &script)]
}

/// What a step runs, in the system's words; `None` if they have none for an axis' value.
fn script(step: &Step, words: &Words<'_>, notes: &mut Vec<String>) -> Option<String> {
    let (script, missing) = own_variables(&step.run, words.variable);
    if !missing.is_empty() {
        notes.push(format!("Only Ropewalk sets {}.", missing.join(", ")));
    }
    let script = (words.script)(&script, &step.shell)?;
    let Shell::Custom(command) = &step.shell else { return Some(script) };
    let command = command.join(" ").replace("{0}", "/dev/stdin");
    let script = script.trim_end_matches('\n');
    let mut end = "SCRIPT".to_owned();
    while script.lines().any(|line| line == end) {
        end.push('_');
    }
    Some(format!("{command} <<'{end}'\n{script}\n{end}"))
}

/// Words at the start of a command that a shell takes for its own, and that change it or what comes behind them.
const OWN_WORDS: [&str; 67] = [
    ".",
    "alias",
    "bg",
    "bind",
    "break",
    "builtin",
    "caller",
    "case",
    "cd",
    "chdir",
    "command",
    "continue",
    "coproc",
    "declare",
    "dirs",
    "disown",
    "do",
    "done",
    "elif",
    "else",
    "enable",
    "esac",
    "eval",
    "exec",
    "exit",
    "export",
    "fc",
    "fg",
    "fi",
    "for",
    "function",
    "getopts",
    "hash",
    "history",
    "if",
    "in",
    "jobs",
    "let",
    "local",
    "logout",
    "mapfile",
    "popd",
    "printf",
    "pushd",
    "read",
    "readarray",
    "readonly",
    "return",
    "select",
    "set",
    "shift",
    "shopt",
    "source",
    "suspend",
    "then",
    "time",
    "times",
    "trap",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "until",
    "wait",
    "while",
];

/// Whether a script calls one program by plain words and does nothing else.
fn is_call(script: &str) -> bool {
    let script = script.trim_end_matches('\n');
    let is_plain = |character: char| character.is_ascii_alphanumeric() || " _-./:=@%+,*?~".contains(character);
    let first = script.split_whitespace().next().unwrap_or_default();
    script.chars().all(is_plain) && !first.is_empty() && !first.contains('=') && !OWN_WORDS.contains(&first)
}

/// Whether a script holds no command.
fn is_comment(script: &str) -> bool {
    script.lines().all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#'))
}

/// A step in a shell of its own.
fn apart(before: Vec<String>, script: &str) -> String {
    let script = script.trim_end_matches('\n');
    let is_line = |text: &str| !text.contains('\n');
    if before.is_empty() && is_line(script) && !script.contains('#') && !script.ends_with('\\') {
        return format!("( {} )", script.trim());
    }
    let mut commands = before;
    commands.push(script.to_owned());
    // What stands in quotes or in a document is as long as it is written.
    let is_free = |command: &String| is_line(command) || !["'", "\"", "<<"].iter().any(|mark| command.contains(mark));
    let indent = if commands.iter().all(is_free) { "  " } else { "" };
    let lines = commands.iter().flat_map(|command| command.split('\n'));
    let lines: Vec<String> =
        lines.map(|line| if line.is_empty() { String::new() } else { format!("{indent}{line}") }).collect();
    format!("(\n{}\n)", lines.join("\n"))
}

fn step_name(step: &Step) -> String {
    match (step.name.as_written(), &step.id) {
        ("", None) => String::new(),
        ("", Some(id)) => format!(" `{id}`"),
        (name, _) => format!(" `{name}`"),
    }
}

/// A name in letters, digits and `_`, as shells have them.
pub(super) fn readable(name: &str) -> String {
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '_' };
    let name: String = name.chars().map(plain).collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// A text as words of a shell.
enum Value {
    /// One word.
    Word(String),
    /// Words to assign one after the other, each with what was there before in front: a command is in each, and the
    /// assignment fails as its command does. As a word of another command, nobody would see it fail.
    Commands(Vec<String>),
}

impl Value {
    /// The commands that assign it.
    fn assigned(self, name: &str) -> Vec<String> {
        let words = match self {
            Value::Word(word) => vec![word],
            Value::Commands(words) => words,
        };
        words.into_iter().map(|word| format!("{name}={word}")).collect()
    }
}

/// The value of a variable of this name; `None` if one of its expressions has no word.
fn value(name: &str, text: &Text, words: &Words<'_>) -> Option<Value> {
    let mut before: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut is_plain = true;
    let mut has_command = false;
    for part in parts(text) {
        match part {
            Part::Plain(plain) => {
                is_plain &= plain.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c));
                for character in plain.chars() {
                    if "\"\\$`".contains(character) {
                        word.push('\\');
                    }
                    word.push(character);
                }
            }
            Part::Axis(axis) => {
                is_plain = false;
                word.push_str(&(words.axis)(axis));
            }
            Part::Expression(written) => {
                is_plain = false;
                let path = (words.path)(&single_path(written)?)?;
                if path.starts_with("$(") {
                    if has_command {
                        before.push(std::mem::replace(&mut word, format!("${{{name}}}")));
                    }
                    has_command = true;
                }
                word.push_str(&path);
            }
        }
    }
    if is_plain && !word.is_empty() {
        return Some(Value::Word(word));
    }
    before.push(word);
    let mut words: Vec<String> = before.into_iter().map(|word| format!("\"{word}\"")).collect();
    if has_command { Some(Value::Commands(words)) } else { words.pop().map(Value::Word) }
}
