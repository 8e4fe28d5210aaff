//! GitHub Actions: one workflow. Source of words: docs.github.com/actions/reference/workflow-syntax-for-github-actions.

mod conditions;
mod when;
mod words;

use std::collections::BTreeMap;

use graph::{Accepts, Carries, ConcurrencyMode, Environment, EventKind, FieldKind, Shell, Step, Text};
use serde_json::Value;

use self::words::{Place, Reader};
use super::texts::{Word, in_words, own_variables, single_path, translated};
use super::yaml::{Entries, Yaml};
use super::{Piece, Plan, Words, common_title, concurrency_note, minutes, retries_specially};
use crate::native::Triggers;

/// The workflow.
pub(super) fn write(plan: &Plan<'_>) -> String {
    let mut file = Entries::default();
    file.text("name", plan.name);
    file.gap();
    triggers(plan, &mut file);
    if !plan.env.is_empty() {
        let mut env = Entries::default();
        plan.env.iter().for_each(|(name, value)| env.text(name, value.as_written()));
        file.gap();
        file.map("env", env);
    }
    if plan.jobs.iter().flat_map(|piece| &piece.job.steps).any(|step| step.shell == Shell::Sh) {
        file.gap();
        let mut run = Entries::default();
        run.text("shell", "sh");
        let mut defaults = Entries::default();
        defaults.map("run", run);
        file.map("defaults", defaults);
    }
    let lenient = conditions::lenient(plan);
    let mut jobs = Entries::default();
    for (index, piece) in plan.jobs.iter().enumerate() {
        if index > 0 {
            jobs.gap();
        }
        let (entries, notes) = job(Reader { plan, piece, lenient: &lenient });
        notes.into_iter().for_each(|note| jobs.comment(note));
        jobs.map(&piece.key, entries);
    }
    if !plan.remarks.is_empty() {
        jobs.gap();
        plan.remarks.iter().for_each(|remark| jobs.comment(remark.clone()));
    }
    file.gap();
    file.add("jobs", jobs.into_yaml());
    file.file()
}

/// Puts the inputs in the place of parameters. They are there only where a person starts the workflow; so each has its
/// default beside it, or the job a note.
pub(super) fn fill_inputs(plan: &mut Plan<'_>) {
    let by_other = plan.starts_otherwise();
    let mut jobs = std::mem::take(&mut plan.jobs);
    for piece in &mut jobs {
        let read = super::read_params(&piece.job);
        if read.is_empty() {
            continue;
        }
        let has_default = |name: &str| plan.params.get(name).is_some_and(|field| field.default.is_some());
        for name in read.iter().filter(|name| by_other && !has_default(name)) {
            piece.notes.push(format!("Only a start by hand fills in inputs.{name}; on other events it is empty."));
        }
        // A job always serializes to JSON, and comes back.
        let mut value = serde_json::to_value(&piece.job).unwrap_or_default();
        with_inputs(&mut value, "", &|name: &str| input(plan, name));
        if let Ok(job) = serde_json::from_value(value) {
            piece.job = job;
        }
    }
    plan.jobs = jobs;
}

/// A parameter as GitHub reads it, with its default beside it if something else than a person may start the workflow.
fn input(plan: &Plan<'_>, name: &str) -> String {
    let default = plan.params.get(name).and_then(|field| field.default.as_ref());
    match default.filter(|_| plan.starts_otherwise()) {
        Some(default) => or_default(name, default),
        None => format!("inputs.{name}"),
    }
}

/// An input, or the default where no person started the workflow.
fn or_default(name: &str, default: &Value) -> String {
    match default {
        Value::String(text) if text.is_empty() => format!("inputs.{name}"),
        Value::String(text) => format!("inputs.{name} || '{}'", text.replace('\'', "''")),
        // What is given may itself count as false.
        Value::Bool(false) => format!("inputs.{name} || false"),
        value if value.as_f64() == Some(0.0) => format!("inputs.{name} || 0"),
        value => format!("github.event_name != 'workflow_dispatch' && {value} || inputs.{name}"),
    }
}

/// Replaces parameters in all expressions under a value.
fn with_inputs(value: &mut Value, key: &str, input: &impl Fn(&str) -> String) {
    let replaced = |written: &str| {
        let one = |names: &[&str]| match names {
            ["params", name] | ["event", "params", name] => Some(input(name)),
            _ => None,
        };
        if let Some(alone) = single_path(written).and_then(|names| one(&names)) {
            return alone;
        }
        let other = |word: Word<'_>| {
            Some(match word {
                Word::Path(_, names) => one(names).map_or_else(|| joined(names), |input| format!("({input})")),
                Word::Function(word) | Word::Quoted(_, word) => word.to_owned(),
            })
        };
        translated(written, other).unwrap_or_else(|| written.to_owned())
    };
    match value {
        Value::String(text) if key == "if" => *text = replaced(text),
        Value::String(text) if text.contains("${{") => {
            let whole = Text::Template(text.as_str().into());
            let marked =
                in_words(&whole, super::legs::marked, |written| Some(format!("${{{{ {} }}}}", replaced(written))));
            *text = marked.unwrap_or_default();
        }
        Value::Array(items) => items.iter_mut().for_each(|item| with_inputs(item, key, input)),
        Value::Object(entries) => entries.iter_mut().for_each(|(key, value)| with_inputs(value, key, input)),
        _ => {}
    }
}

/// A path as it is written.
fn joined(names: &[&str]) -> String {
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let behind = |name: &&str| if is_name(name) || *name == "*" { format!(".{name}") } else { format!("['{name}']") };
    names.iter().take(1).map(|name| (*name).to_owned()).chain(names.iter().skip(1).map(behind)).collect()
}

fn triggers(plan: &Plan<'_>, file: &mut Entries) {
    plan.beside.iter().for_each(|note| file.comment(note.clone()));
    let Triggers::Listed { kinds, schedules } = &plan.triggers else {
        file.comment("Ropewalk runs it on every event.");
        file.add("on", Yaml::Flow(["push", "pull_request", "workflow_dispatch"].map(str::to_owned).to_vec()));
        return;
    };
    let mut on = Entries::default();
    let mut push = Entries::default();
    if let Some(regexes) = kinds.get(&EventKind::Push) {
        let has_tags = kinds.contains_key(&EventKind::Tag);
        names(&mut push, "branches", regexes, if regexes.is_empty() && !has_tags { Any::Said } else { Any::Needed });
    }
    if let Some(regexes) = kinds.get(&EventKind::Tag) {
        names(&mut push, "tags", regexes, Any::Needed);
    }
    on.map("push", push);
    if let Some(regexes) = kinds.get(&EventKind::PullRequest) {
        let mut pull_request = Entries::default();
        names(&mut pull_request, "branches", regexes, Any::Silent);
        on.add("pull_request", pull_request.into_yaml());
    }
    if !schedules.is_empty() {
        for schedule in schedules.iter().filter(|schedule| schedule.timezone != "UTC") {
            on.comment(format!("`{}` is meant in {}; GitHub counts in UTC.", schedule.cron, schedule.timezone));
        }
        let cron = |schedule: &crate::native::Schedule| {
            let mut entry = Entries::default();
            entry.text("cron", schedule.cron.clone());
            entry.into_yaml()
        };
        on.add("schedule", Yaml::List(schedules.iter().map(cron).collect()));
    }
    if kinds.contains_key(&EventKind::Manual) {
        let mut manual = Entries::default();
        manual.map("inputs", inputs(plan));
        on.add("workflow_dispatch", manual.into_yaml());
    }
    if kinds.contains_key(&EventKind::Api) {
        on.add("repository_dispatch", Yaml::Map(Vec::new()));
    }
    if kinds.contains_key(&EventKind::Build) {
        on.add("workflow_call", Yaml::Map(Vec::new()));
    }
    if let Some(names) = kinds.get(&EventKind::Command) {
        let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
        on.comment(format!("Ropewalk runs it by command{names}: start it by hand."));
        if !kinds.contains_key(&EventKind::Manual) {
            on.add("workflow_dispatch", Yaml::Map(Vec::new()));
        }
    }
    file.add("on", on.into_yaml());
}

/// What is written where every name will do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Any {
    Silent,
    Said,
    Needed,
}

fn names(entries: &mut Entries, key: &str, regexes: &[String], any: Any) {
    if regexes.is_empty() {
        if any != Any::Silent {
            entries.texts(key, vec!["**".to_owned()]);
        }
        return;
    }
    let mut globs = Vec::new();
    for regex in regexes {
        match alternatives(regex).into_iter().map(glob).collect::<Option<Vec<String>>>() {
            Some(all) => globs.extend(all),
            None => entries.comment(format!(
                "The regex `{regex}` is no pattern of GitHub's, so nothing starts by it: write the names it stands for."
            )),
        }
    }
    match globs.is_empty() {
        true => entries.texts(&format!("{key}-ignore"), vec!["**".to_owned()]),
        false => entries.texts(key, globs),
    }
}

/// The parts of a regex between `|` that stand in no brackets.
fn alternatives(regex: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth, mut is_escaped) = (0, 0_usize, false);
    for (at, character) in regex.char_indices() {
        match character {
            _ if is_escaped => {
                is_escaped = false;
                continue;
            }
            '\\' => is_escaped = true,
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => {
                parts.push(&regex[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&regex[start..]);
    parts
}

/// A regex as GitHub's filter pattern, where both mean the same.
fn glob(regex: &str) -> Option<String> {
    let mut out = String::new();
    let mut characters = regex.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                let next = characters.next().filter(|next| !next.is_ascii_alphanumeric())?;
                if "*?+[]!\\".contains(next) {
                    out.push('\\');
                }
                out.push(next);
            }
            '!' if out.is_empty() => out.push_str("\\!"),
            '.' => match characters.peek() {
                Some('*') => {
                    characters.next();
                    out.push_str("**");
                }
                Some('+') => return None,
                // People write the point of a version without a backslash.
                _ => out.push('.'),
            },
            '[' | ']' | '+' => out.push(character),
            '*' | '?' | '(' | ')' | '|' | '{' | '}' | '^' | '$' => return None,
            plain => out.push(plain),
        }
    }
    Some(out)
}

fn inputs(plan: &Plan<'_>) -> Entries {
    let mut inputs = Entries::default();
    for (name, field) in plan.params {
        let mut input = Entries::default();
        if !field.help.is_empty() {
            input.text("description", field.help.clone());
        }
        let kind = match &field.kind {
            FieldKind::String => "string",
            FieldKind::Number => "number",
            FieldKind::Boolean => "boolean",
            FieldKind::Choice { .. } => "choice",
        };
        input.text("type", kind);
        if let FieldKind::Choice { options } = &field.kind {
            input.texts("options", options.clone());
        }
        match &field.default {
            Some(Value::String(text)) => input.text("default", text.clone()),
            Some(value) => input.word("default", value),
            None => input.word("required", true),
        }
        inputs.map(name, input);
    }
    inputs
}

/// A job's entries, and what stands above it.
fn job(reader: Reader<'_>) -> (Entries, Vec<String>) {
    let Reader { plan, piece, .. } = reader;
    let job = &piece.job;
    let mut notes = piece.common_notes(Words { resources: false, cleanup: true });
    for (field, gate) in plan.gate_values(piece) {
        notes.push(format!(
            "A person gives `{field}` at the gate `{gate}`; GitHub hands it to no other job: it is empty here."
        ));
    }
    let mut entries = Entries::default();
    if let Some(title) = common_title(piece).map(|title| reader.text(&title, &mut notes)) {
        entries.text("name", title);
    }
    entries.texts("needs", piece.needs.iter().map(|(key, _)| key.clone()).collect());
    if let Some(condition) = conditions::of_job(reader, &mut notes) {
        entries.add("if", condition);
    }
    let mut runner: Vec<String> = Vec::new();
    if !job.pool.is_empty() || !job.labels.is_empty() {
        runner.push("self-hosted".to_owned());
        runner.extend(Some(job.pool.clone()).filter(|pool| !pool.is_empty()));
        runner.extend(job.labels.iter().cloned());
        runner = runner.into_iter().map(|label| reader.text(&Text::from(label), &mut notes)).collect();
    }
    match runner.is_empty() {
        true => entries.text("runs-on", "ubuntu-latest"),
        false => entries.texts("runs-on", runner),
    }
    strategy(piece, &mut entries);
    if let Some(gate) = &job.gate {
        let prompt = reader.text(&gate.prompt, &mut notes);
        let asked = if prompt.is_empty() { String::new() } else { format!(" (\"{prompt}\")") };
        entries.comment(format!(
            "A person must approve{asked}: give the environment required reviewers in the repository's settings."
        ));
        if !gate.fields.is_empty() {
            let fields: Vec<&str> = gate.fields.keys().map(String::as_str).collect();
            entries.comment(format!("The gate asks for {}, which GitHub cannot.", fields.join(", ")));
        }
        entries.text("environment", piece.key.clone());
    }
    if let Environment::Image { image, .. } = &job.environment {
        entries.text("container", reader.text(image, &mut notes));
    }
    if let Some(concurrency) = &job.concurrency {
        if concurrency.mode == ConcurrencyMode::Queue {
            entries.comment(format!(
                "{} GitHub keeps one that waits and cancels the others.",
                concurrency_note(concurrency)
            ));
        }
        let mut group = Entries::default();
        group.text("group", reader.text(&concurrency.group, &mut notes));
        group.word("cancel-in-progress", concurrency.mode == ConcurrencyMode::CancelRunning);
        entries.map("concurrency", group);
    }
    if let Some(limit) = job.timeout_ms {
        entries.word("timeout-minutes", minutes(limit));
    }
    if job.allow_failure {
        entries.word("continue-on-error", true);
    }
    if retries_specially(job) && job.retry.max > 0 {
        notes.push(format!("Ropewalk tries it again, up to {} times; GitHub only by hand.", job.retry.max));
    }
    let mut env = Entries::default();
    for (name, value) in &job.env {
        env.text(name, reader.text(value, &mut notes));
    }
    for secret in &job.secrets {
        env.text(secret, format!("${{{{ secrets.{secret} }}}}"));
    }
    entries.map("env", env);
    let ids = step_ids(piece);
    let mut outputs = Entries::default();
    for output in &job.outputs {
        // What is written last counts.
        let writers = piece.writers_of(output).into_iter().rev();
        let values: Vec<String> =
            writers.filter_map(|step| Some(format!("steps.{}.outputs.{output}", ids[step].as_deref()?))).collect();
        match values.is_empty() {
            true => notes.push(format!("No step seems to write the output `{output}`.")),
            false => outputs.text(output, format!("${{{{ {} }}}}", values.join(" || "))),
        }
    }
    entries.map("outputs", outputs);
    entries.add("steps", Yaml::List(steps(reader, &ids, &mut notes)));
    (entries, notes)
}

fn strategy(piece: &Piece, entries: &mut Entries) {
    if piece.axes.is_empty() {
        return;
    }
    let plain = |value: &Value| match value {
        Value::String(text) => Yaml::Text(text.clone()),
        other => Yaml::Word(other.to_string()),
    };
    let mut matrix = Entries::default();
    for (name, values) in &piece.axes {
        match values.iter().map(Value::as_str).collect::<Option<Vec<_>>>() {
            Some(texts) => matrix.texts(name, texts.into_iter().map(str::to_owned).collect()),
            None if values.iter().all(|value| !value.is_string()) => {
                let words: Vec<String> = values.iter().map(Value::to_string).collect();
                matrix.word(name, format!("[{}]", words.join(", ")));
            }
            None => matrix.add(name, Yaml::List(values.iter().map(plain).collect())),
        }
    }
    if !piece.excluded.is_empty() {
        let exclude = |combination: &std::collections::BTreeMap<String, Value>| {
            let mut entries = Entries::default();
            combination.iter().for_each(|(name, value)| entries.add(name, plain(value)));
            entries.into_yaml()
        };
        matrix.add("exclude", Yaml::List(piece.excluded.iter().map(exclude).collect()));
    }
    let mut strategy = Entries::default();
    strategy.word("fail-fast", false);
    strategy.map("matrix", matrix);
    entries.map("strategy", strategy);
}

/// The id of every step that has one, or needs one since its outputs are read.
fn step_ids(piece: &Piece) -> Vec<Option<String>> {
    let mut ids: Vec<Option<String>> =
        piece.job.steps.iter().map(|step| step.id.as_deref().map(str::to_owned)).collect();
    let mut writers: Vec<usize> = piece.job.outputs.iter().flat_map(|output| piece.writers_of(output)).collect();
    writers.sort_unstable();
    for step in writers {
        if ids[step].is_none() {
            let mut id = "outputs".to_owned();
            let mut number = 2;
            while ids.iter().flatten().any(|known| *known == id) {
                id = format!("outputs-{number}");
                number += 1;
            }
            ids[step] = Some(id);
        }
    }
    ids
}

fn action(uses: &str, with: Entries) -> Entries {
    let mut step = Entries::default();
    step.text("uses", uses);
    step.map("with", with);
    step
}

fn steps(reader: Reader<'_>, ids: &[Option<String>], notes: &mut Vec<String>) -> Vec<Yaml> {
    let Reader { plan, piece, .. } = reader;
    let job = &piece.job;
    if job.steps.is_empty() {
        let mut step = Entries::default();
        step.text("run", "true");
        return vec![step.into_yaml()];
    }
    let mut steps = vec![action("actions/checkout@v4", Entries::default()).into_yaml()];
    for (key, need) in piece.needs.iter().filter(|(_, need)| need.carries == Carries::Artifacts) {
        let Some(needed) = plan.jobs.iter().find(|other| other.key == *key) else { continue };
        for (name, globs) in &needed.job.artifacts {
            let mut with = Entries::default();
            match needed.axes.is_empty() {
                true => with.text("name", artifact_name(Reader { piece: needed, ..reader }, name)),
                false => {
                    let name = name.split(super::legs::MARK).enumerate();
                    let name: String = name.map(|(index, part)| if index % 2 == 1 { "*" } else { part }).collect();
                    with.text("pattern", format!("{}-{name}-*", needed.key));
                    with.word("merge-multiple", true);
                }
            }
            if let Root::Folder(root) = root(globs) {
                with.text("path", root);
            }
            let mut step = action("actions/download-artifact@v4", with);
            if !need.accepts.holds(graph::Ending::Passed) || need.accepts == Accepts::FINISHED {
                step.word("continue-on-error", true);
            }
            steps.push(step.into_yaml());
        }
    }
    for cache in &job.cache {
        let mut with = Entries::default();
        let paths: Vec<String> =
            cache.paths.iter().map(|path| reader.text(&Text::from(path.as_str()), notes)).collect();
        with.text("path", paths.join("\n"));
        with.text("key", reader.text(&cache.key, notes));
        let restore: Vec<String> = cache.restore.iter().map(|key| reader.text(key, notes)).collect();
        if !restore.is_empty() {
            with.text("restore-keys", restore.join("\n"));
        }
        steps.push(action("actions/cache@v4", with).into_yaml());
    }
    for (index, lowered) in job.steps.iter().enumerate() {
        steps.push(step(lowered, ids[index].as_deref(), reader, notes).into_yaml());
    }
    if !job.reports.junit.is_empty() {
        notes.push(format!("Ropewalk reads test reports from {}.", job.reports.junit.join(", ")));
    }
    for (name, globs) in &job.artifacts {
        let mut with = Entries::default();
        with.text("name", artifact_name(reader, name));
        let mut paths: Vec<String> = globs.iter().map(|glob| reader.text(&Text::from(glob.as_str()), notes)).collect();
        if root(globs) == Root::Forced {
            with.comment(
                "Nothing has the second path. With two, GitHub keeps the folders in which files stand, whether the first is \
                 a file or a folder.",
            );
            paths.push(NO_PATH.to_owned());
        }
        with.text("path", paths.join("\n"));
        with.text("if-no-files-found", "error");
        with.word("include-hidden-files", true);
        steps.push(action("actions/upload-artifact@v4", with).into_yaml());
    }
    steps
}

/// A name that is the artifact's alone in the whole run.
fn artifact_name(reader: Reader<'_>, name: &str) -> String {
    let piece = reader.piece;
    let name = reader.text(&Text::from(name), &mut Vec::new());
    let axes: Vec<String> = piece.axes.iter().map(|(axis, _)| format!("-${{{{ matrix.{axis} }}}}")).collect();
    format!("{}-{name}{}", piece.key, axes.concat())
}

/// A second path for upload-artifact, of which there is nothing.
const NO_PATH: &str = "no-such-path";

/// What upload-artifact takes as the root of what it stores; there download-artifact must put it, so that files come back where
/// they were.
#[derive(PartialEq, Eq)]
enum Root {
    Workspace,
    Folder(String),
    /// It depends on what is there: the path itself if it is a folder, else the folder of the file; or on the leg of a
    /// matrix. With a path that has nothing in common with it, it is the workspace.
    Forced,
}

/// The root of these globs: the longest path that those without `!` have in common.
fn root(globs: &[String]) -> Root {
    let wanted: Vec<&String> = globs.iter().filter(|glob| !glob.starts_with('!')).collect();
    let is_literal = |glob: &str| !glob.contains(['*', '?', '[']);
    let holds_all = |folder: &str| {
        wanted.iter().all(|glob| glob.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    };
    if wanted.iter().any(|glob| is_literal(glob) && holds_all(glob)) {
        return Root::Forced;
    }
    let folder = |glob: &&String| {
        let fixed = glob.split('/').take_while(|part| is_literal(part));
        let mut parts: Vec<String> = fixed.map(str::to_owned).collect();
        // Among others, a path without a wildcard stands in its folder.
        if is_literal(glob) {
            parts.pop();
        }
        parts
    };
    let mut roots = wanted.iter().map(folder);
    let mut root = roots.next().unwrap_or_default();
    for other in roots {
        let shared = root.iter().zip(&other).take_while(|(left, right)| left == right).count();
        root.truncate(shared);
    }
    match root.join("/") {
        root if root.is_empty() => Root::Workspace,
        root if root.contains(super::legs::MARK) => Root::Forced,
        root => Root::Folder(root),
    }
}

fn step(step: &Step, id: Option<&str>, reader: Reader<'_>, notes: &mut Vec<String>) -> Entries {
    let mut entries = Entries::default();
    let name = reader.text(&step.name, notes);
    if !name.is_empty() {
        entries.text("name", name);
    }
    if let Some(id) = id {
        entries.text("id", id);
    }
    if let Some((condition, note)) = conditions::of_step(step, reader) {
        note.into_iter().for_each(|note| entries.comment(note));
        entries.add("if", condition);
    }
    if let Shell::Program(_) = step.shell {
        entries.text("run", "echo 'a function of the pipeline: only ropewalk can call it' >&2; exit 1");
        return entries;
    }
    let (script, missing) = own_variables(&step.run, |name| own_variable(name, reader));
    if !missing.is_empty() {
        entries.comment(format!("Only Ropewalk sets {}.", missing.join(", ")));
    }
    let mut env: BTreeMap<&str, String> = BTreeMap::new();
    for name in EVENT_VARIABLES.into_iter().filter(|name| script.contains(name)) {
        env.extend(event_variable(name, reader).map(|value| (name, format!("${{{{ {value} }}}}"))));
    }
    for (name, value) in &step.env {
        env.insert(name, reader.text(value, notes));
    }
    let script = reader.text(&Text::from(script), notes);
    let line = script.trim_end_matches('\n');
    entries.text("run", if line.contains('\n') { script.as_str() } else { line });
    let mut variables = Entries::default();
    env.into_iter().for_each(|(name, value)| variables.text(name, value));
    entries.map("env", variables);
    if let Some(directory) = &step.working_directory {
        entries.text("working-directory", reader.text(directory, notes));
    }
    match &step.shell {
        Shell::Bash => entries.text("shell", "bash"),
        Shell::Custom(command) => entries.text("shell", command.join(" ")),
        _ => {}
    }
    if let Some(limit) = step.timeout_ms {
        entries.word("timeout-minutes", minutes(limit));
    }
    if step.allow_failure {
        entries.word("continue-on-error", true);
    }
    entries
}

/// Variables of Ropewalk's that say what the event is.
const EVENT_VARIABLES: [&str; 3] = ["ROPEWALK_BRANCH", "ROPEWALK_EVENT", "ROPEWALK_TAG"];

/// The value of such a variable, as an expression, where no variable of GitHub's says the same.
fn event_variable(name: &str, reader: Reader<'_>) -> Option<String> {
    let path = match name {
        "ROPEWALK_BRANCH" => "event.branch",
        "ROPEWALK_TAG" => "event.tag",
        "ROPEWALK_EVENT" => "event.kind",
        _ => return None,
    };
    reader
        .expression(path, Place::Text)
        .ok()
        .filter(|value| !matches!(value.as_str(), "github.ref_name" | "github.event_name"))
}

fn own_variable(name: &str, reader: Reader<'_>) -> Option<&'static str> {
    if event_variable(name, reader).is_some() {
        return EVENT_VARIABLES.into_iter().find(|known| *known == name);
    }
    Some(match name {
        "ROPEWALK_OUTPUT" => "GITHUB_OUTPUT",
        "ROPEWALK_ENV" => "GITHUB_ENV",
        "ROPEWALK_PATH" => "GITHUB_PATH",
        "ROPEWALK_SUMMARY" => "GITHUB_STEP_SUMMARY",
        "ROPEWALK_BRANCH" | "ROPEWALK_TAG" => "GITHUB_REF_NAME",
        "ROPEWALK_COMMIT" => "GITHUB_SHA",
        "ROPEWALK_EVENT" => "GITHUB_EVENT_NAME",
        "ROPEWALK_WORKSPACE" => "GITHUB_WORKSPACE",
        "ROPEWALK_JOB" => "GITHUB_JOB",
        "ROPEWALK_BUILD" => "GITHUB_RUN_NUMBER",
        _ => return None,
    })
}
