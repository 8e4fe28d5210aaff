//! Compares a file's tree with the table of keys and tells every difference.
//!
//! What comes after reads only values that passed: a value that was found wrong here is left out there in silence.

use std::ops::Range;

use expression::{Condition, Error, Scope, Template};
use graph::{Diagnostic, EventKind, JobName, Location};

use super::errors::{self, Faults};
use super::foreign;
use super::kept::Kept;
use super::keys::{self, AXIS, MATRIX_FORM, NameKind, Phase, Presence, Record, Type};
use super::measure;
use super::nodes;
use super::patterns::{self, Patterns};
use crate::suggest;
use crate::tree::{Entry, Node, NodeValue, Sources, Span};

/// The longest name of a job, axis, field or variable, in bytes.
const NAME_BYTES_MAX: usize = 100;

/// What a check works with.
pub(crate) struct Check<'a> {
    pub sources: &'a Sources,
    pub faults: &'a mut Faults,
    pub patterns: &'a mut Patterns,
    pub author: Author,
    /// What an earlier evaluation found right.
    pub kept: &'a Kept,
}

/// Who wrote what is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Author {
    /// A person, in a file.
    User,
    /// A program: ids of its jobs may hold `/`, and its steps may be functions.
    Program,
}

/// Tells everything that is wrong with the root of a file.
pub(crate) fn check(root: &Node, with: &mut Check<'_>) {
    with.value(root, &Type::Record(&keys::PIPELINE), "pipeline");
}

/// Tells everything that is wrong with an `on` that stands alone.
pub(crate) fn check_on(on: &Node, with: &mut Check<'_>) {
    with.value(on, &keys::TRIGGERS, "on");
}

impl Check<'_> {
    fn at(&self, node: &Node) -> Location {
        self.sources.location(node.span)
    }

    /// Checks one value; `what` is the key it stands under.
    fn value(&mut self, node: &Node, takes: &Type, what: &str) {
        if !is_of_kind(node, takes) {
            let fault = errors::wrong_type(self.at(node), what, &description(takes), node.kind());
            return self.faults.push(fault);
        }
        match takes {
            Type::Any | Type::Boolean | Type::Scalar => {}
            Type::Either(types) => {
                if let Some(takes) = types.iter().find(|takes| is_of_kind(node, takes)) {
                    self.value(node, takes, what);
                }
            }
            Type::List(items) => {
                for item in node.items().unwrap_or_default() {
                    self.value(item, items, what);
                }
            }
            Type::Map(names, values) => {
                for entry in node.entries().unwrap_or_default() {
                    let Some(name) = entry.name() else {
                        let fault = errors::bad_key(self.at(&entry.key), what);
                        self.faults.push(fault);
                        continue;
                    };
                    let is_program = self.author == Author::Program && *names == NameKind::JobId;
                    if is_program && self.kept.is_right(name, &entry.value) {
                        continue;
                    }
                    if *names == NameKind::Filled && Template::is_needed(name) {
                        self.template(&entry.key, name, Phase::Plan);
                    } else {
                        self.name(&entry.key, name, *names);
                    }
                    self.value(&entry.value, values, name);
                }
            }
            Type::Record(record) => self.record(node, record, what),
            _ => self.scalar(node, takes, what),
        }
    }

    fn record(&mut self, node: &Node, record: &Record, what: &str) {
        let has_axes = std::ptr::eq(record, &raw const MATRIX_FORM);
        let need_by_key = if record.name == "need" { foreign::need(node) } else { None };
        for entry in node.entries().unwrap_or_default() {
            let Some(name) = entry.name() else {
                let fault = errors::bad_key(self.at(&entry.key), what);
                self.faults.push(fault);
                continue;
            };
            match record.keys.iter().find(|key| key.name == name) {
                None if self.is_function(record, name) => {
                    self.value(&entry.value, &keys::FUNCTION, name);
                }
                Some(key) if has_axes => self.axis(&entry.value, &key.takes, name),
                Some(key) => self.value(&entry.value, &key.takes, name),
                None if has_axes => {
                    self.name(&entry.key, name, NameKind::Id);
                    self.axis(&entry.value, &AXIS, name);
                }
                None if need_by_key.is_some() => {}
                None => {
                    let sources = self.sources;
                    self.faults.push_with(|| {
                        let place = sources.location(entry.key.span);
                        if std::ptr::eq(record, &raw const keys::PIPELINE) && foreign::is_job(&entry.value) {
                            return errors::job_at_the_top(place, name);
                        }
                        let known: Vec<&str> = record.keys.iter().map(|key| key.name).collect();
                        errors::unknown_key(place, name, record.name, &known)
                    });
                }
            }
        }
        let has_scripts = [&raw const keys::STEP, &raw const keys::JOB, &raw const keys::LISTED_JOB];
        if has_scripts.contains(&std::ptr::from_ref(record))
            && let Some(run) = node.get_entry("run")
        {
            self.empty_scripts(run);
        }
        for key in record.keys.iter().filter(|key| key.presence == Presence::Required) {
            if node.get(key.name).is_none() {
                let fault = match &need_by_key {
                    Some(meant) => errors::need_by_key(self.at(node), meant.clone()),
                    None => errors::missing_key(self.at(node), key.name, record.name),
                };
                self.faults.push(fault);
            }
        }
        if std::ptr::eq(record, &raw const keys::STEP) {
            self.step(node);
        }
        if std::ptr::eq(record, &raw const keys::CACHE_FORM)
            && let Some(key) = node.get("key").filter(|key| key.as_str() == Some(""))
        {
            let message = "a cache without a key is no cache".to_owned();
            let help = "write what the content depends on: `deps-${{ hash_files('**/lock') }}`";
            let fault = errors::bad_value("bad-value", self.at(key), message, "empty", help);
            self.faults.push(fault);
        }
        if [&raw const keys::JOB, &raw const keys::LISTED_JOB].contains(&std::ptr::from_ref(record)) {
            self.job(node);
        }
    }

    /// The values of an axis, or what `include` and `exclude` hold: written as they are, or all of them by one expression.
    fn axis(&mut self, node: &Node, takes: &Type, what: &str) {
        if node.scalar_text().is_some_and(|text| !Template::is_needed(text)) {
            let fault = errors::wrong_type(self.at(node), what, "a list, or an expression that gives one", node.kind());
            return self.faults.push(fault);
        }
        self.value(node, takes, what);
        node.items().unwrap_or_default().iter().for_each(|item| self.literal(item, what));
    }

    /// Tells every expression in a value of a matrix.
    fn literal(&mut self, node: &Node, axis: &str) {
        if node.as_str().is_some_and(Template::is_needed) {
            let fault = errors::matrix_not_evaluated(self.at(node), axis);
            self.faults.push(fault);
        }
        node.items().unwrap_or_default().iter().for_each(|item| self.literal(item, axis));
        for entry in node.entries().unwrap_or_default() {
            self.literal(&entry.key, axis);
            self.literal(&entry.value, axis);
        }
    }

    /// Warns of scripts in which there is nothing: they pass.
    fn empty_scripts(&mut self, run: &Entry) {
        let is_empty = |node: &Node| node.as_str().is_some_and(|text| text.trim().is_empty());
        // An empty block has no place of its own.
        let alone = is_empty(&run.value).then_some(&run.key);
        let listed = run.value.items().unwrap_or_default().iter().filter(|item| is_empty(item));
        for node in alone.into_iter().chain(listed) {
            let fault = errors::empty_script(self.at(node));
            self.faults.push(fault);
        }
    }

    /// A step is exactly one of a script, a build by Nix, another build and, in a program's reply, a function.
    fn step(&mut self, node: &Node) {
        let is_function = self.author == Author::Program && node.get("function").is_some();
        let mut said = ["run", "nix_build", "build"].into_iter().filter_map(|key| node.get(key));
        match (said.next(), said.next()) {
            (None, _) if !is_function => {
                let fault = errors::missing_key(self.at(node), "run", "step");
                self.faults.push(fault);
            }
            (Some(_), Some(other)) => {
                let fault = errors::script_and_build(self.at(other));
                self.faults.push(fault);
            }
            _ => {}
        }
        if let Some(child) = node.get("build") {
            self.child(child);
            self.beside_build(node);
        }
    }

    /// Where a server runs the job there is no process that a step's keys could be about: what is said beside `build` would be
    /// forgotten, and a condition among it.
    fn beside_build(&mut self, step: &Node) {
        const OF_JOB: [&str; 3] = ["if", "timeout", "allow_failure"];
        const OF_SCRIPT: [&str; 4] = ["env", "working_directory", "shell", "outputs"];
        for key in OF_JOB.into_iter().chain(OF_SCRIPT) {
            let Some(value) = step.get(key).filter(|value| !says_nothing(key, value)) else { continue };
            let message = format!("`{key}` of a step that asks for a build");
            let help = match key {
                _ if OF_JOB.contains(&key) => "say it of the job, whose only step it is",
                "outputs" => "`hand_on` says which outputs of its jobs are handed on; name them in the job's `outputs`",
                _ => "no script runs here: `params` hand values on to the build",
            };
            let fault = errors::bad_value("beside-build", self.at(value), message, "not of this step", help);
            self.faults.push(fault);
        }
    }

    fn job(&mut self, job: &Node) {
        if let Some(matrix) = job.get("matrix")
            && matrix.scalar_text().is_some_and(|text| !Template::is_needed(text))
        {
            let takes = "a map of axes, or an expression that gives one";
            let fault = errors::wrong_type(self.at(matrix), "matrix", takes, matrix.kind());
            self.faults.push(fault);
        }
        self.job_of_build(job);
        if let Some(artifacts) = job.get("artifacts") {
            let named = artifacts.entries().map(|entries| entries.iter().map(|entry| &entry.value).collect());
            named.unwrap_or_else(|| vec![artifacts]).into_iter().for_each(|globs| self.artifact(globs));
        }
    }

    /// No artifact holds git's own data: a worker passes over it, so such a glob would match nothing.
    fn artifact(&mut self, globs: &Node) {
        for glob in nodes::list(globs) {
            let is_of_git = |text: &&str| !text.starts_with('!') && text.split('/').any(|part| part == ".git");
            if let Some(text) = glob.as_str().filter(is_of_git) {
                let message = format!("`{text}` is git's own data, which no artifact holds");
                let help = "jobs have the repository of the build; other commits are handed on in a file: \
                            `git bundle create commits.bundle --all`";
                let fault = errors::bad_value("bad-value", self.at(glob), message, "never handed on", help);
                self.faults.push(fault);
            }
        }
    }

    /// A job that asks for a build gives what that build gives, and is never reused itself.
    fn job_of_build(&mut self, job: &Node) {
        let asks = |run: &Node| nodes::list(run).iter().any(|step| step.get("build").is_some());
        if !job.get("run").is_some_and(asks) {
            return;
        }
        for key in ["inputs", "reuse", "artifacts", "reports", "cache", "services"] {
            let Some(value) = job.get(key).filter(|value| !says_nothing(key, value)) else { continue };
            let help = match key {
                "inputs" | "reuse" => "say it of that build's jobs: they are reused, and this one asks each time",
                "artifacts" => "hand outputs on by `hand_on`; the artifacts are that build's",
                _ => "say it of that build's jobs, which are what runs",
            };
            let message = format!("`{key}` of a job that asks for a build");
            let fault = errors::bad_value("beside-build", self.at(value), message, "not of this job", help);
            self.faults.push(fault);
        }
    }

    /// A build has one event. What is handed on names a job and its output; nothing is of a build that nobody waits for.
    fn child(&mut self, node: &Node) {
        self.event_of_child(node);
        let Some(handed_on) = node.get("hand_on") else { return };
        if node.get("wait").and_then(Node::as_bool) == Some(false) {
            let message = "nothing is handed on by a build that nobody waits for".to_owned();
            let help = "leave out `wait: false`, or what is handed on";
            let fault = errors::bad_value("hand-on-later", self.at(handed_on), message, "not waited for", help);
            self.faults.push(fault);
        }
        for entry in handed_on.entries().unwrap_or_default() {
            let text = entry.value.as_str().unwrap_or_default();
            if !text.rsplit_once('.').is_some_and(|(job, output)| !job.is_empty() && !output.is_empty()) {
                let message = format!("`{text}` names no output of a job");
                let help = "write the job and its output: `pack.url`";
                let fault = errors::bad_value("bad-value", self.at(&entry.value), message, "not understood", help);
                self.faults.push(fault);
            }
        }
    }

    /// A command is a kind of event, and has a name.
    fn event_of_child(&mut self, node: &Node) {
        let Some(kind) = node.get("event") else { return };
        let (message, help) = match (node.get("command"), kind.as_str() == Some(EventKind::Command.name())) {
            (Some(_), false) => ("a command is a kind of event: the build has no other", "leave out one of the two"),
            (None, true) => ("the command has no name", "write `command: NAME` instead of `event: command`"),
            _ => return,
        };
        self.faults.push(errors::bad_value("build-event", self.at(kind), message.to_owned(), "not understood", help));
    }

    /// Whether a key says which of a program's functions a step is.
    fn is_function(&self, record: &Record, key: &str) -> bool {
        self.author == Author::Program && std::ptr::eq(record, &raw const keys::STEP) && key == "function"
    }

    fn scalar(&mut self, node: &Node, takes: &Type, what: &str) {
        let text = node.scalar_text().unwrap_or_default();
        match takes {
            Type::Template(phase) => self.template(node, text, *phase),
            Type::Script => self.template(node, text, Phase::Step),
            Type::Filled(_) if Template::is_needed(text) => self.template(node, text, Phase::Plan),
            Type::Filled(takes) => self.scalar(node, takes, what),
            Type::Condition(phase) => self.condition(node, text, *phase),
            Type::Directory(phase) => {
                self.template(node, text, *phase);
                if !Template::is_needed(text) {
                    self.directory(node, text);
                }
            }
            Type::Name(NameKind::Variable) if what == "secrets" && Template::is_needed(text) => {
                let fault = errors::secret_not_evaluated(self.at(node));
                self.faults.push(fault);
            }
            _ if Template::is_needed(text) => {
                let fault = errors::not_evaluated(self.at(node), what);
                self.faults.push(fault);
            }
            Type::Name(kind) => self.name(node, text, *kind),
            Type::Word(words) => self.word(node, text, words, what),
            Type::Regex => {
                let place = self.sources.location(node.span);
                let meant = patterns::meant_by_glob(text).filter(|meant| self.patterns.regex(meant).is_ok());
                match (self.patterns.regex(text), meant) {
                    (Ok(_), None) => {}
                    (Ok(_), Some(meant)) => self.faults.push(errors::glob_like(place, text, &meant)),
                    (Err(cause), Some(meant)) => self.faults.push(errors::glob_as_regex(place, text, cause, &meant)),
                    (Err(cause), None) => self.faults.push(errors::bad_pattern(place, "regex", text, cause)),
                }
            }
            Type::Glob => {
                if let Some(cause) = self.patterns.glob_fault(text) {
                    let fault = errors::bad_pattern(self.sources.location(node.span), "glob", text, cause);
                    self.faults.push(fault);
                }
            }
            Type::CachePath if is_cache_path(text) => {
                if let Some(letter) = text.chars().find(|letter| "*?[{".contains(*letter)) {
                    self.faults.push(errors::cache_path_like_glob(self.sources.location(node.span), text, letter));
                }
            }
            _ => self.measured(node, text, takes, what),
        }
    }

    fn word(&mut self, node: &Node, text: &str, words: &[(&str, &str)], what: &str) {
        if !words.iter().any(|(word, _)| is_word(text, word)) {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let fault = errors::unknown_word(self.at(node), what, text, &known);
            self.faults.push(fault);
        }
    }

    /// Values with a grammar of their own.
    fn measured(&mut self, node: &Node, text: &str, takes: &Type, what: &str) {
        let fault = match takes {
            Type::Duration if measure::duration_ms(text).is_none() => Some((
                format!("`{text}` is no duration"),
                "not understood",
                "write `30s`, `20m`, `6h` or `1d`, also `1h30m`",
            )),
            Type::Size if node.as_integer().is_none_or(|bytes| bytes < 0) && measure::size_bytes(text).is_none() => {
                Some((format!("`{text}` is no size"), "not understood", "write `512MiB` or `4GiB`"))
            }
            Type::Size
                if node.as_integer().map_or_else(|| measure::size_bytes(text) == Some(0), |bytes| bytes == 0) =>
            {
                Some((format!("`{what}` is above zero"), "nothing fits", "write `512MiB` or `4GiB`, or leave it out"))
            }
            Type::Integer(least, most) if node.as_integer().is_none_or(|value| value < *least || value > *most) => {
                Some((
                    format!("`{what}` lies between {least} and {most}"),
                    "out of bounds",
                    "take a number between the two",
                ))
            }
            Type::Number if node.as_float().is_none_or(|value| !(value > 0.0 && value < 1e6)) => {
                Some((format!("`{what}` is above zero and below a million"), "out of bounds", "take such a number"))
            }
            Type::CachePath if !is_cache_path(text) => Some((
                format!("`{text}` lies outside the workspace"),
                "not allowed here",
                "take a path relative to the repository's root, or one that begins with `~/`",
            )),
            Type::Cron => {
                cron_fault(text).map(|cause| (cause, "not understood", "five fields: minute hour day month weekday"))
            }
            Type::Timezone if !is_timezone(text) => Some((
                format!("`{text}` is no name of a time zone"),
                "not understood",
                "write a name of the IANA database, such as `Europe/Paris` or `UTC`",
            )),
            _ => None,
        };
        if let Some((message, label, help)) = fault {
            let fault = errors::bad_value("bad-value", self.at(node), message, label, help);
            self.faults.push(fault);
        }
    }

    fn directory(&mut self, node: &Node, text: &str) {
        if !is_inside(text) {
            let message = format!("`{text}` lies outside the workspace");
            let help = "take a path relative to the repository's root, without `..`";
            let fault = errors::bad_value("outside-workspace", self.at(node), message, "not allowed here", help);
            self.faults.push(fault);
        }
    }

    fn name(&mut self, node: &Node, name: &str, kind: NameKind) {
        let fault = if kind == NameKind::JobId { id_fault(name, self.author) } else { name_fault(name, kind) };
        if let Some(help) = fault {
            let help = match (kind, allowed(name, self.author)) {
                (NameKind::JobId | NameKind::Id, Some(allowed)) => format!("`{allowed}` would do: {help}"),
                _ => help.to_owned(),
            };
            let message = format!("`{name}` cannot be a name here");
            let fault = errors::bad_value("bad-name", self.at(node), message, "not allowed here", &help);
            self.faults.push(fault);
        }
    }

    fn template(&mut self, node: &Node, text: &str, phase: Phase) {
        if !Template::is_needed(text) {
            return;
        }
        let scope = Scope { contexts: Some(phase.contexts()), functions: phase.functions() };
        let (_, faults) = Template::read(text, &scope);
        self.expression_faults(node, text, &faults, phase);
    }

    fn condition(&mut self, node: &Node, text: &str, phase: Phase) {
        let scope = Scope { contexts: Some(phase.contexts()), functions: phase.functions() };
        let (condition, faults) = Condition::read(text, &scope);
        if !faults.is_empty() {
            return self.expression_faults(node, text, &faults, phase);
        }
        if condition.is_text() {
            let fault = errors::always_true(self.at(node));
            self.faults.push(fault);
        } else if phase == Phase::ReadyCondition && condition.calls_status_function() {
            let fault = errors::status_function(self.at(node));
            self.faults.push(fault);
        }
    }

    fn expression_faults(&mut self, node: &Node, text: &str, faults: &[Error], phase: Phase) {
        let sources = self.sources;
        for error in faults {
            self.faults.push_with(|| expression_fault(sources, node, text, error, phase));
        }
    }
}

fn expression_fault(sources: &Sources, node: &Node, text: &str, error: &Error, phase: Phase) -> Diagnostic {
    let place = sources.location(place_in(sources, node, text, error.range.clone()));
    let word = text.get(error.range.clone()).unwrap_or_default();
    let is_name = |word: &str| word.starts_with(char::is_alphabetic) && !word.contains(char::is_whitespace);
    let functions: Vec<&str> = phase.functions().iter().map(|function| function.name).collect();
    let help = match error.cause.as_str() {
        _ if word.eq_ignore_ascii_case("secrets") => {
            let behind = text.get(error.range.end..).unwrap_or_default().strip_prefix('.').unwrap_or_default();
            let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            let name = behind.split(|letter| !is_of_name(letter)).next().filter(|name| !name.is_empty());
            let name = name.unwrap_or("NAME");
            format!("write `secrets: [{name}]` in the job: its scripts then read it as `${name}`")
        }
        cause if cause.contains("named-value") && is_name(word) => {
            if Phase::StepCondition.contexts().iter().any(|context| context.eq_ignore_ascii_case(word)) {
                format!("`{word}` is not known yet when this is evaluated; known here: {}", listed(phase.contexts()))
            } else {
                suggest::did_you_mean(word, phase.contexts())
            }
        }
        cause if cause.contains("function") && is_name(word) => {
            let known = ["contains", "startsWith", "endsWith", "format", "join", "toJSON", "fromJSON"];
            let known: Vec<&str> = known.into_iter().chain(functions).collect();
            suggest::did_you_mean(word, &known)
        }
        _ => "texts stand in single quotes: `${{ event.branch == 'main' }}`".to_owned(),
    };
    errors::expression(place, error, help)
}

/// Whether what stands beside a `build` is what holds without it: a flag that is off, a list or a map of nothing. An empty list of
/// `inputs` says that no file counts, and `if: false` that nothing runs.
fn says_nothing(key: &str, value: &Node) -> bool {
    let is_empty = value.items().is_some_and(<[_]>::is_empty) || value.entries().is_some_and(<[_]>::is_empty);
    !matches!(key, "inputs" | "if") && (is_empty || value.as_bool() == Some(false))
}

/// Words in backquotes, parted by commas.
fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Where a part of a scalar's text stands in its file; the whole scalar where the text is written with escapes.
pub(crate) fn place_in(sources: &Sources, node: &Node, text: &str, range: Range<usize>) -> Span {
    let Some(part) = text.get(range.clone()).filter(|part| !part.is_empty()) else { return node.span };
    let before = text[..range.start].matches(part).count();
    match sources.text(node.span).match_indices(part).nth(before) {
        Some((offset, _)) => {
            let start = node.span.start + u32::try_from(offset).unwrap_or(0);
            Span { start, end: start + u32::try_from(part.len()).unwrap_or(0), ..node.span }
        }
        None => node.span,
    }
}

/// Whether a text is this word; EDN writes words as keywords with dashes.
pub(crate) fn is_word(text: &str, word: &str) -> bool {
    text == word || (text.contains('-') && text.replace('-', "_") == word)
}

/// Whether the value's kind is one that the type takes.
pub(crate) fn is_of_kind(node: &Node, takes: &Type) -> bool {
    let is_number = matches!(node.value, NodeValue::Integer { .. } | NodeValue::Float { .. });
    match takes {
        Type::Any => true,
        Type::Filled(takes) => is_of_kind(node, takes),
        Type::Boolean => node.as_bool().is_some(),
        Type::Integer(..) => node.as_integer().is_some(),
        Type::Number => is_number,
        Type::Template(_) | Type::Scalar => node.scalar_text().is_some(),
        Type::Size => node.as_str().is_some() || node.as_integer().is_some(),
        Type::List(_) => node.items().is_some(),
        Type::Map(..) => node.entries().is_some(),
        Type::Record(record) => {
            let may_be_empty = record.keys.iter().all(|key| key.presence == Presence::Optional);
            node.entries().is_some() || (node.is_null() && may_be_empty)
        }
        Type::Either(types) => types.iter().any(|takes| is_of_kind(node, takes)),
        Type::Text
        | Type::Condition(_)
        | Type::Script
        | Type::Duration
        | Type::Regex
        | Type::Glob
        | Type::Directory(_)
        | Type::CachePath
        | Type::Cron
        | Type::Timezone
        | Type::Name(_)
        | Type::Word(_) => node.as_str().is_some(),
    }
}

/// What a type takes, in words with an article.
pub(crate) fn description(takes: &Type) -> String {
    match takes {
        Type::Any => "any value".to_owned(),
        Type::Filled(takes) => description(takes),
        Type::Text | Type::Name(_) => "a string".to_owned(),
        Type::Script => "a script as a string".to_owned(),
        Type::Condition(_) => "an expression as a string".to_owned(),
        Type::Template(_) | Type::Scalar => "a string, number or boolean".to_owned(),
        Type::Boolean => "`true` or `false`".to_owned(),
        Type::Integer(least, most) => format!("a whole number from {least} to {most}"),
        Type::Number => "a number".to_owned(),
        Type::Duration => "a duration such as `20m`".to_owned(),
        Type::Size => "a size such as `4GiB`".to_owned(),
        Type::Regex => "a regex as a string".to_owned(),
        Type::Glob => "a glob as a string".to_owned(),
        Type::Directory(_) | Type::CachePath => "a path as a string".to_owned(),
        Type::Cron => "a cron expression such as `0 3 * * *`".to_owned(),
        Type::Timezone => "a time zone such as `Europe/Paris`".to_owned(),
        Type::Word(words) => {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            if words.len() == 1 { words.concat() } else { format!("one of {}", words.join(", ")) }
        }
        Type::List(items) => match items {
            Type::Text | Type::Name(_) => "a list of strings".to_owned(),
            Type::Regex => "a list of regexes".to_owned(),
            Type::Glob | Type::Filled(Type::Glob) => "a list of globs".to_owned(),
            Type::Filled(Type::Name(_)) => "a list of strings".to_owned(),
            Type::Record(_) => "a list of maps".to_owned(),
            _ => "a list".to_owned(),
        },
        Type::Map(..) | Type::Record(_) => "a map".to_owned(),
        Type::Either(types) => {
            let mut parts: Vec<String> = types.iter().map(description).collect();
            parts.dedup();
            parts.join(" or ")
        }
    }
}

/// What to do about a job's id that is not allowed; `None` if it is. A program's may be `group/member`.
pub(crate) fn id_fault(id: &str, author: Author) -> Option<&'static str> {
    match author {
        Author::User => name_fault(id, NameKind::JobId),
        Author::Program if id.len() > JobName::BYTES_MAX => Some("a job's name has at most 512 bytes"),
        Author::Program => match id.split_once('/') {
            None => name_fault(id, NameKind::JobId),
            Some((group, members)) => {
                name_fault(group, NameKind::JobId).or_else(|| members.split('/').find_map(member_fault))
            }
        },
    }
}

/// The nearest name that is allowed for a job or another thing with an id, if there is one.
fn allowed(name: &str, author: Author) -> Option<String> {
    let plain = |part: &str| {
        let letters =
            part.chars().map(|letter| if letter.is_ascii_alphanumeric() || letter == '_' { letter } else { '-' });
        let parts: String = letters.collect();
        parts.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
    };
    let allowed = match author {
        Author::User => plain(name),
        Author::Program => name.split('/').map(plain).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"),
    };
    let allowed =
        if allowed.starts_with(|first: char| first.is_ascii_digit()) { format!("_{allowed}") } else { allowed };
    (!allowed.is_empty() && id_fault(&allowed, author).is_none()).then_some(allowed)
}

/// What to do about a name that is not allowed; `None` if it is.
pub(crate) fn name_fault(name: &str, kind: NameKind) -> Option<&'static str> {
    let is_plain = |name: &str, dash: bool| {
        name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || (dash && byte == b'-'))
    };
    let fits = name.len() <= NAME_BYTES_MAX;
    match kind {
        NameKind::JobId | NameKind::Id | NameKind::Filled if !(fits && is_plain(name, true)) => {
            Some("begin with a letter or `_`, go on with letters, digits, `_` and `-`; at most 100 characters")
        }
        NameKind::OfPlugin => match name.split_once('.') {
            Some((plugin, job)) => name_fault(plugin, NameKind::Id).or_else(|| name_fault(job, NameKind::Id)),
            None => Some("write the plugin's name, a dot, and the name of its job: `cargo.clippy`"),
        },
        NameKind::JobName if name.is_empty() || name.chars().any(char::is_control) => Some("write a job's id"),
        NameKind::Variable if !(fits && is_plain(name, false)) => {
            Some("begin with a letter or `_`, go on with letters, digits and `_`; at most 100 characters")
        }
        NameKind::Variable if name.starts_with("ROPEWALK_") => {
            Some("names with `ROPEWALK_` are Ropewalk's own; take another")
        }
        NameKind::Label if !fits || name.trim().is_empty() || name.chars().any(char::is_control) => {
            Some("write one line of at most 100 characters")
        }
        _ => None,
    }
}

/// What is wrong with the name of a job within its group: as the values of a matrix leg it may begin with a digit.
fn member_fault(name: &str) -> Option<&'static str> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_allowed);
    (!fits).then_some("within a group, write letters, digits, `_`, `-` and `.`; at most 100 characters")
}

fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with(['/', '~'])
        && !path.contains('\0')
        && path.split('/').all(|part| part != "..")
}

pub(crate) fn is_cache_path(path: &str) -> bool {
    is_inside(path.strip_prefix("~/").unwrap_or(path))
}

fn cron_fault(text: &str) -> Option<String> {
    let parser = croner::parser::CronParser::builder().seconds(croner::parser::Seconds::Disallowed).build();
    if text.len() > NAME_BYTES_MAX {
        return Some("a cron expression has at most 100 characters".to_owned());
    }
    parser.parse(text).err().map(|error| format!("`{text}` is no cron expression: {error}"))
}

/// Whether the text has the form of a name of the IANA database. Whether it is one is known where the schedule runs:
/// looking it up reads the machine's files, which lowering must not.
fn is_timezone(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.split('/').all(|part| {
            part.starts_with(|first: char| first.is_ascii_alphabetic())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+'))
        })
}
