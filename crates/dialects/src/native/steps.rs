//! The steps of a job leg: scripts with their expressions turned into environment variables, shells, directories.

use std::collections::{BTreeMap, HashMap, HashSet};

use expression::Template;
use graph::{ChildBuild, EventKind, Shell, Step, Text, Waits};

use super::check::is_word;
use super::errors;
use super::files::Source;
use super::jobs::{Filling, Origin, Surroundings, Writing, field, timeout};
use super::literals::Literals;
use super::nodes;
use super::script::{self, Reader, Stand};
use super::texts::{AtPlan, Decision};
use crate::tree::{Entry, Node};

/// Shells whose quoting is POSIX's, by the name of the program.
const POSIX_SHELLS: [&str; 8] = ["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "busybox"];

/// The steps of a job leg in order.
pub(crate) fn steps(
    job: &Source<'_>,
    around: &Surroundings<'_>,
    origin: Origin,
    writing: &mut Writing<'_>,
) -> Vec<Step> {
    let defaults = Defaults {
        shell: field(job, around, "shell"),
        working_directory: field(job, around, "working_directory"),
        outputs: job.body.get("outputs").map(nodes::texts).unwrap_or_default(),
        job,
        around,
        origin,
    };
    let Some(run) = job.body.get("run") else { return Vec::new() };
    let items = nodes::list(run);
    // Whatever runs may set variables for the steps behind it.
    let first_script = items.iter().position(runs).unwrap_or(items.len());
    let lower = |(index, node): (usize, &Node)| {
        let env = if index <= first_script { EnvBefore::OfJob } else { EnvBefore::AnyStep };
        let mut step = step(node, env, &defaults, writing);
        if let (Some(program), Some(payload)) = (around.program, node.get("function")) {
            step.shell = Shell::Program(program);
            step.run = nodes::canonical(payload).into();
            if step.name == Text::default() {
                // The payload is nothing to show.
                let function = payload.get("job").and_then(Node::as_str).unwrap_or(job.id);
                step.name = Text::Plain(format!("function {function}").into());
            }
        }
        step
    };
    items.iter().enumerate().map(lower).collect()
}

/// Whether a step is a script or a function.
fn runs(node: &Node) -> bool {
    node.as_str().is_some() || ["run", "function"].iter().any(|key| node.get(key).is_some())
}

/// Who set the variables that a step finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EnvBefore {
    /// The job and the pipeline: their values are known.
    OfJob,
    /// Any of them may have been set anew by a step before, so that only the worker knows it.
    AnyStep,
}

/// What a step takes from its job.
struct Defaults<'n> {
    shell: Option<&'n Node>,
    working_directory: Option<&'n Node>,
    /// What the job hands on.
    outputs: Vec<String>,
    job: &'n Source<'n>,
    around: &'n Surroundings<'n>,
    /// Of the job's matrix.
    origin: Origin,
}

fn step(node: &Node, before: EnvBefore, defaults: &Defaults<'_>, writing: &mut Writing<'_>) -> Step {
    let unknown = BTreeMap::new();
    let of_job = match before {
        EnvBefore::OfJob => writing.at,
        EnvBefore::AnyStep => AtPlan { env: &unknown, env_now: &unknown, ..writing.at },
    };
    let name = node.get("name").map(|node| writing.text(node)).unwrap_or_default();
    let mut own = Writing { sources: writing.sources, faults: writing.faults, at: of_job };
    let env = own.env(node.get("env").and_then(Node::entries).unwrap_or_default());
    let shell = node.get("shell").or(defaults.shell).map(shell).unwrap_or_default();
    let directory = node.get("working_directory").or(defaults.working_directory);
    let mut lowered = Step {
        id: node.get("id").and_then(Node::as_str).map(Box::from),
        name,
        working_directory: directory.map(|node| own.text(node)),
        timeout_ms: timeout(node.get("timeout"), own.sources, own.faults),
        allow_failure: node.get("allow_failure").and_then(Node::as_bool) == Some(true),
        outputs: node.get("outputs").map(nodes::texts).unwrap_or_default().into_iter().collect(),
        shell,
        env,
        ..Step::default()
    };
    if let Some(node) = node.get("if") {
        lowered.condition = match own.decide(node) {
            Decision::Holds => None,
            Decision::Fails(_) => Some("false".into()),
            Decision::FailsNow(expression) | Decision::Later(expression) => Some(expression),
        };
    }
    if let Some(script) = node.as_str().map(|_| node).or_else(|| node.get("run")) {
        let literals = Literals::of_step(node, defaults.job, defaults.around, defaults.origin);
        lowered.run = script_of(script, &literals, &mut lowered, &mut own).into();
    }
    if let Some(node) = node.get("nix_build") {
        lowered.nix_build = installables(node, writing);
        lowered.run = nix_script(&lowered.nix_build).into();
    }
    if let Some(node) = node.get("build") {
        ask(&mut lowered, child(node, &defaults.outputs, writing));
    }
    lowered
}

/// The build that a step asks for, in a job with these outputs.
fn child(node: &Node, outputs: &[String], writing: &mut Writing<'_>) -> ChildBuild {
    let mut text = |name: &str| node.get(name).map(|node| writing.text(node));
    let (file, command, branch, tag) = (text("file"), text("command"), text("branch"), text("tag"));
    let handed_on = node.get("hand_on").and_then(Node::entries).unwrap_or_default();
    let name = |entry: &Entry| {
        let name = entry.name()?;
        // EDN's keywords as keys have lost their dashes; those in the list of outputs have them.
        let is_keyword = writing.sources.text(entry.key.span).starts_with(':');
        let meant = outputs.iter().find(|output| is_keyword && is_word(output, name));
        Some(meant.filter(|_| !outputs.iter().any(|output| output == name)).map_or(name, String::as_str).to_owned())
    };
    let handed_on = handed_on.iter().filter_map(|entry| Some((name(entry)?, entry.value.as_str()?.to_owned())));
    let handed_on = handed_on.collect();
    ChildBuild {
        file,
        event: node.get("event").and_then(Node::as_str).and_then(|word| EventKind::from_name(&word.replace('-', "_"))),
        command,
        branch,
        tag,
        params: writing.env(node.get("params").and_then(Node::entries).unwrap_or_default()),
        hand_on: handed_on,
        waits: if node.get("wait").and_then(Node::as_bool) == Some(false) { Waits::No } else { Waits::ForVerdict },
    }
}

/// Makes a step one that asks for a build. On a laptop and for other systems it is a script that does so, with every text from
/// outside in a variable: none of them is read by the shell.
fn ask(step: &mut Step, child: ChildBuild) {
    let mut script = r#"exec "$ROPEWALK_BINARY" run"#.to_owned();
    if child.waits == Waits::No {
        script.push_str(" --later");
    }
    let mut variables = Vec::new();
    let mut word = |flag: &str, value: Text| {
        let variable = format!("CHILD_{}", variables.len() + 1);
        script.push_str(&format!(" {flag}\"${variable}\""));
        variables.push((variable, value));
    };
    // A command says the kind.
    let event = child.event.filter(|kind| *kind != EventKind::Command).map(|kind| Text::from(kind.name()));
    let flags =
        [("--event=", &event), ("--command=", &child.command), ("--branch=", &child.branch), ("--tag=", &child.tag)];
    for (flag, value) in flags {
        if let Some(value) = value {
            word(flag, value.clone());
        }
    }
    for (name, value) in &child.params {
        word(
            "--param=",
            match value {
                Text::Plain(value) => Text::Plain(format!("{name}={value}").into()),
                Text::Template(value) => Text::Template(format!("{name}={value}").into()),
            },
        );
    }
    for (name, from) in &child.hand_on {
        word("--hand-on=", Text::Plain(format!("{from}={name}").into()));
    }
    if let Some(file) = &child.file {
        word("-- ", file.clone());
    }
    if step.name == Text::default() {
        step.name = Text::Plain(title(&child).into());
    }
    step.run = script.into();
    step.env.extend(variables);
    step.build = Some(Box::new(child));
}

/// What the step is called where it failed: `build of the command release`.
fn title(child: &ChildBuild) -> String {
    match (&child.file, &child.command, child.event) {
        (Some(file), ..) => format!("build of {file}"),
        (None, Some(command), _) => format!("build of the command {command}"),
        (None, None, Some(kind)) => format!("build of the event {}", kind.name()),
        (None, None, None) => "build of this pipeline".to_owned(),
    }
}

/// What Nix is to build, without what cannot be, which is told.
fn installables(node: &Node, writing: &mut Writing<'_>) -> Vec<String> {
    let items = nodes::list(node);
    if items.is_empty() || items.len() > Step::INSTALLABLES_MAX {
        let message = format!("a step builds one to {} installables", Step::INSTALLABLES_MAX);
        let place = writing.sources.location(node.span);
        let fault = errors::bad_value("bad-value", place, message, "out of bounds", "split it, or leave it out");
        writing.faults.push(fault);
    }
    let mut names = HashSet::new();
    let mut installables = Vec::with_capacity(items.len());
    for item in items.iter().take(Step::INSTALLABLES_MAX) {
        let Some(installable) = writing.filled(item, Filling::Installable).pop() else { continue };
        let place = writing.sources.location(item.span);
        let name = graph::nix::installable_name(&installable);
        if !is_installable(&installable) {
            writing.faults.push(errors::bad_installable(place, &installable));
        } else if !names.insert(name.clone()) {
            writing.faults.push(errors::installable_twice(place, &name));
        } else {
            installables.push(installable);
        }
    }
    installables
}

/// Whether Nix takes it for something to build: a line of at most a thousand bytes that is no option.
pub(crate) fn is_installable(text: &str) -> bool {
    (1..=1000).contains(&text.len()) && !text.starts_with('-') && !text.contains(char::is_control)
}

/// The same as a script: for people, for other systems, and for workers that know no better.
fn nix_script(installables: &[String]) -> String {
    let is_plain =
        |text: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-/:@+#=".contains(letter));
    let quoted = |text: &String| match is_plain(text) && !text.starts_with('#') {
        true => text.clone(),
        false => graph::shell::quoted(text),
    };
    let words: Vec<String> = installables.iter().map(quoted).collect();
    format!("nix build --keep-going {}", words.join(" "))
}

/// The script's text; what it reads goes into the step's environment variables.
fn script_of(node: &Node, literals: &Literals<'_>, step: &mut Step, writing: &mut Writing<'_>) -> String {
    let text = node.as_str().unwrap_or_default();
    if !Template::is_needed(text) {
        return text.to_owned();
    }
    let Ok(template) = Template::parse(text) else { return String::new() };
    // A script sees its step's own variables over those before it.
    let mut env = writing.at.env.clone();
    env.extend(step.env.iter().map(|(name, text)| (name.clone(), text.clone())));
    let at = AtPlan { env: &env, ..writing.at };
    let mut names: HashMap<String, String> = HashMap::new();
    let mut given = Vec::new();
    let (script, faults) = script::script(&template, reader(&step.shell), |expression| {
        if let Some(value) = literals.value(expression, &at) {
            return Stand::Literal(value);
        }
        let count = names.len() + 1;
        let name = names.entry(expression.text().to_owned()).or_insert_with(|| {
            let name = format!("{}{count}", Step::EXPRESSION_VARIABLE);
            given.push((name.clone(), format!("${{{{ {} }}}}", expression.text())));
            name
        });
        Stand::Variable(name.clone())
    });
    for fault in faults {
        let part = text.get(fault.range.clone()).unwrap_or_default();
        let span = super::check::place_in(writing.sources, node, text, fault.range);
        writing.faults.push(errors::cannot_paste(writing.sources.location(span), fault.why, &variable_name(part)));
    }
    for (name, written) in given {
        // A fault of this evaluation was told where the same expression stands by itself, or is the worker's to tell.
        let value = at.text(&written).unwrap_or_else(|_| Text::Template(written.as_str().into()));
        if script.contains(&format!("${{{name}}}")) {
            step.env.insert(name, value);
        }
    }
    script
}

/// A name for the variable that a person would set: the last word of the expression.
fn variable_name(written: &str) -> String {
    let word = written.rsplit(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    let word = word.into_iter().find(|word| word.starts_with(|first: char| first.is_ascii_alphabetic()));
    word.map_or_else(|| "VALUE".to_owned(), str::to_ascii_uppercase)
}

fn reader(shell: &Shell) -> Reader {
    let Shell::Custom(command) = shell else { return Reader::Posix };
    let program = command.first().map(String::as_str).unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    if POSIX_SHELLS.contains(&name) { Reader::Posix } else { Reader::Other }
}

/// `sh`, `bash`, or a command; without `{0}` the script's file is its last argument.
fn shell(node: &Node) -> Shell {
    let mut command = match node.as_str() {
        Some("sh") => return Shell::Sh,
        Some("bash") => return Shell::Bash,
        Some(text) => text.split_whitespace().map(str::to_owned).collect(),
        None => nodes::texts(node),
    };
    if command.is_empty() {
        return Shell::Sh;
    }
    if !command.iter().any(|argument| argument.contains("{0}")) {
        command.push("{0}".to_owned());
    }
    Shell::Custom(command)
}
