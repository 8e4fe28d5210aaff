//! Buildkite: a pipeline for `buildkite-agent pipeline upload`. Source of words: buildkite.com/docs/pipelines.
//!
//! An upload expands `$NAME`; so every `$` of a script is written as `$$`.

use std::collections::BTreeSet;

use graph::shell::quoted;
use graph::{Accepts, Carries, ConcurrencyMode, Ending, Environment, EventKind, FieldKind, RetryOn, Text};
use serde_json::Value;

use super::shell::{self, Behind, commands, readable, writes_documents};
use super::texts::{in_words, single_path};
use super::yaml::{Entries, Yaml};
use super::{Piece, Plan, Words, common_title, concurrency_note, minutes, retries_specially};
use crate::native::Triggers;

/// The exit code that Buildkite gives to jobs whose agent was lost.
const LOST: i32 = -1;

/// The key of the step that asks for parameters.
const INPUT: &str = "params";

/// The pipeline.
pub(super) fn write(plan: &Plan<'_>) -> String {
    let mut file = Entries::default();
    file.comment(format!(
        "The pipeline `{}`, for `buildkite-agent pipeline upload`: `$$` is a `$` of the script.",
        plan.name
    ));
    plan.beside.iter().for_each(|note| file.comment(note.clone()));
    if let Triggers::Listed { kinds, schedules } = &plan.triggers {
        if kinds.keys().any(|kind| *kind == EventKind::Command) {
            file.comment("Ropewalk runs it by command: start a build of it by hand.");
        }
        let by_event = kinds.keys().filter(|kind| **kind != EventKind::Command);
        let kinds: Vec<&str> = by_event.map(|kind| kind.name()).collect();
        if !kinds.is_empty() {
            file.comment(format!("Ropewalk runs it on {}: set that in the pipeline's settings.", kinds.join(", ")));
        }
        for schedule in schedules {
            file.comment(format!("Add a schedule: `{} {}`.", schedule.cron, schedule.timezone));
        }
    }
    if !plan.env.is_empty() {
        let mut env = Entries::default();
        plan.env.iter().for_each(|(name, value)| env.text(name, value.as_written().replace('$', "$$")));
        file.gap();
        file.map("env", env);
    }
    let mut steps = Vec::new();
    let asks = matches!(&plan.triggers, Triggers::Listed { kinds, .. } if kinds.contains_key(&EventKind::Manual));
    if asks && !plan.params.is_empty() {
        let mut input = Entries::default();
        input.text("input", "Parameters");
        input.text("key", INPUT);
        input.text("if", "build.source == \"ui\"");
        input.add("fields", Yaml::List(plan.params.iter().map(|(name, one)| field(name, one)).collect()));
        steps.push(input.into_yaml());
    }
    // What has no `depends_on` waits for all blocks and inputs before it.
    let at_once = if steps.is_empty() { Yaml::Word("~".to_owned()) } else { Yaml::Flow(vec![INPUT.to_owned()]) };
    let mut is_behind_block = false;
    for piece in &plan.jobs {
        if let Some(block) = block(piece, &at_once) {
            steps.push(block.into_yaml());
            is_behind_block = true;
        }
        if !piece.job.steps.is_empty() {
            steps.push(step(piece, plan, Some(&at_once).filter(|_| is_behind_block)).into_yaml());
        }
    }
    file.gap();
    file.add("steps", Yaml::List(steps));
    if !plan.remarks.is_empty() {
        file.gap();
        plan.remarks.iter().for_each(|remark| file.comment(remark.clone()));
    }
    file.file()
}

fn field(name: &str, field: &graph::Field) -> Yaml {
    let mut entries = Entries::default();
    let default = field.default.as_ref().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let label = if field.help.is_empty() { name } else { &field.help };
    let options = match &field.kind {
        FieldKind::Choice { options } => Some(options.clone()),
        FieldKind::Boolean => Some(vec!["true".to_owned(), "false".to_owned()]),
        FieldKind::Number => {
            entries.comment("A number in Ropewalk; any text here.");
            None
        }
        FieldKind::String => None,
    };
    entries.text(if options.is_some() { "select" } else { "text" }, label);
    entries.text("key", name);
    if let Some(options) = options {
        let option = |value: String| {
            let mut option = Entries::default();
            option.text("label", value.clone());
            option.text("value", value);
            option.into_yaml()
        };
        entries.add("options", Yaml::List(options.into_iter().map(option).collect()));
    }
    match default {
        Some(default) => entries.text("default", default),
        None => entries.word("required", true),
    }
    entries.into_yaml()
}

/// The step that waits for a person; `at_once` is what it depends on where it needs nothing.
fn block(piece: &Piece, at_once: &Yaml) -> Option<Entries> {
    let Some(gate) = &piece.job.gate else { return condition_block(piece, at_once) };
    let mut notes = Vec::new();
    let asked = [&gate.prompt, &piece.job.title].map(|asked| text(asked, &mut notes));
    let asked = asked.into_iter().find(|asked| !asked.is_empty());
    let mut entries = Entries::default();
    notes.into_iter().for_each(|note| entries.comment(note));
    entries.text("block", asked.unwrap_or_else(|| format!("{}?", piece.id)));
    entries.text("key", block_key(piece));
    entries.add("depends_on", depends_on(piece).unwrap_or_else(|| at_once.clone()));
    if !gate.fields.is_empty() {
        entries.add("fields", Yaml::List(gate.fields.iter().map(|(name, one)| field(name, one)).collect()));
    }
    Some(entries)
}

/// The step that waits for a person who knows whether a condition holds. Until then the build is not over.
fn condition_block(piece: &Piece, at_once: &Yaml) -> Option<Entries> {
    if !asks_person(piece) {
        return None;
    }
    let mut entries = Entries::default();
    entries.text("block", format!("Does the condition of {} hold?", piece.id));
    entries.text("key", block_key(piece));
    entries.text("blocked_state", "running");
    entries.add("depends_on", depends_on(piece).unwrap_or_else(|| at_once.clone()));
    Some(entries)
}

/// Whether a person is asked before it runs: at its gate, or since nothing else can ask its condition.
fn asks_person(piece: &Piece) -> bool {
    piece.job.gate.is_some()
        || piece.job.condition.as_deref().is_some_and(|condition| !shell::holds_for_event(condition))
}

/// A gate alone has the job's key, so that what needs the job needs the gate.
fn block_key(piece: &Piece) -> String {
    if piece.job.steps.is_empty() { piece.key.clone() } else { format!("{}-gate", piece.key) }
}

/// What a job waits for; `None` if it needs nothing.
fn depends_on(piece: &Piece) -> Option<Yaml> {
    let one = |(key, need): &(String, graph::Need)| match need.accepts {
        // A step that was skipped satisfies it.
        Accepts::SUCCESS | Accepts::BARRIER => Yaml::Text(key.clone()),
        _ => {
            let mut entry = Entries::default();
            entry.text("step", key.clone());
            entry.word("allow_failure", true);
            entry.into_yaml()
        }
    };
    let needs: Vec<Yaml> = piece.needs.iter().map(one).collect();
    let texts = needs.iter().map(|need| if let Yaml::Text(text) = need { Some(text.clone()) } else { None });
    match texts.collect::<Option<Vec<String>>>() {
        Some(texts) if texts.is_empty() => None,
        Some(texts) => Some(Yaml::Flow(texts)),
        None => Some(Yaml::List(needs)),
    }
}

/// The step of a job's commands; `at_once` is said where a step that needs nothing would wait for something.
fn step(piece: &Piece, plan: &Plan<'_>, at_once: Option<&Yaml>) -> Entries {
    let job = &piece.job;
    let mut notes = piece.common_notes(Words { resources: false, cleanup: false });
    let mut entries = Entries::default();
    let label = common_title(piece).map_or_else(|| piece.id.clone(), |title| text(&title, &mut notes));
    let axes: Vec<String> = piece.axes.iter().map(|(axis, _)| in_matrix(axis)).collect();
    let is_told_apart = axes.is_empty() || label.contains("{{matrix.");
    entries.text("label", if is_told_apart { label } else { format!("{label} {}", axes.join(" ")) });
    entries.text("key", piece.key.clone());
    if asks_person(piece) {
        entries.add("depends_on", Yaml::Flow(vec![block_key(piece)]));
    } else if let Some(depends_on) = depends_on(piece).or_else(|| at_once.cloned()) {
        entries.add("depends_on", depends_on);
    }
    if let Some(condition) = &job.condition {
        notes.push(match shell::holds_for_event(condition) {
            true => format!("It runs only if {condition}; Buildkite does not ask that."),
            false => format!("It runs only if {condition}; Buildkite cannot ask that, so a person does."),
        });
    }
    matrix(piece, &mut entries);
    let mut lines = failures(piece, plan, &mut notes);
    lines.extend(downloads(piece, plan));
    let path_of = |names: &[&str]| match names {
        // What a person gave at a gate is kept under the field's name.
        ["needs", job, "outputs", field] if plan.gate_of(job, field).is_some() => path(&["gate", field]),
        ["params", name] | ["event", "params", name] => Some(param(name, plan)),
        _ => path(names),
    };
    let words = shell::Words {
        path: &path_of,
        variable: &own_variable,
        axis: &in_matrix,
        script: &|script, _| in_words(&Text::from(script), in_matrix, |_| None),
    };
    if !job.outputs.is_empty() {
        lines.push("export ROPEWALK_OUTPUT=\"$(mktemp)\"".to_owned());
    }
    let behind = if job.outputs.is_empty() { Behind::Nothing } else { Behind::Commands };
    lines.extend(commands(piece, behind, &words, &mut notes));
    if !job.outputs.is_empty() {
        lines.push(hand_on(&piece.key));
    }
    if writes_documents(piece) {
        notes.push(
            "An output of several lines (`NAME<<END`) is not handed on: the job fails when it writes one.".to_owned(),
        );
    }
    if lines.is_empty() {
        lines.push("true".to_owned());
    }
    let lines: Vec<String> = lines.into_iter().map(|line| line.replace('$', "$$")).collect();
    match lines.as_slice() {
        [one] => entries.text("command", one.clone()),
        _ => entries.add("commands", Yaml::List(lines.into_iter().map(Yaml::Text).collect())),
    }
    settings(piece, &mut entries, &mut notes);
    let mut whole = Entries::default();
    notes.into_iter().for_each(|note| whole.comment(note));
    whole.0.extend(entries.0);
    whole
}

/// Commands that end a job which runs only if others have failed. Where one of these ends so it has passed, so a job that
/// needs it asks the same.
fn failures(piece: &Piece, plan: &Plan<'_>, notes: &mut Vec<String>) -> Vec<String> {
    let mut failed: BTreeSet<&str> = BTreeSet::new();
    let mut lines = Vec::new();
    let mut ahead = vec![piece];
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    while let Some(piece) = ahead.pop() {
        if !seen.insert(&piece.key) {
            continue;
        }
        for (key, need) in &piece.needs {
            match need.accepts {
                Accepts::FAILURE => {
                    failed.insert(key);
                }
                accepts if !accepts.holds(Ending::Passed) => {
                    notes
                        .push(format!("Buildkite cannot ask how Ropewalk wants `{key}` to end: it does nothing here."));
                    lines.push("exit 0".to_owned());
                }
                Accepts::SUCCESS => ahead.extend(plan.jobs.iter().find(|other| other.key == *key)),
                _ => {}
            }
        }
    }
    for key in failed {
        if plan.jobs.iter().any(|other| other.key == key && !other.axes.is_empty()) {
            notes.push(format!(
                "Ropewalk runs it only if every leg of `{key}` has failed; Buildkite knows only whether one has, so it \
                 does nothing here."
            ));
            lines.push("exit 0".to_owned());
        } else {
            lines.push(format!("outcome=\"$(buildkite-agent step get outcome --step {key})\""));
            lines.push("[ \"$outcome\" = hard_failed ] || exit 0".to_owned());
        }
    }
    lines
}

/// The command that hands on what the steps have written to `$ROPEWALK_OUTPUT`; its last line may have no end.
fn hand_on(key: &str) -> String {
    let lines = [
        "while IFS= read -r line || [ -n \"$line\" ]; do".to_owned(),
        "  name=\"${line%%=*}\"".to_owned(),
        "  case \"$name\" in".to_owned(),
        "    *'<<'*) echo \"$name: only a value of one line can be handed on\" >&2; exit 1 ;;".to_owned(),
        format!("    ?*) buildkite-agent meta-data set \"{key}.$name\" \"${{line#*=}}\" ;;"),
        "  esac".to_owned(),
        "done < \"$ROPEWALK_OUTPUT\"".to_owned(),
    ];
    lines.join("\n")
}

/// Commands that fetch the files of what is needed.
fn downloads(piece: &Piece, plan: &Plan<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, _) in piece.needs.iter().filter(|(_, need)| need.carries == Carries::Artifacts) {
        let Some(needed) = plan.jobs.iter().find(|other| other.key == *key) else { continue };
        for glob in needed.job.artifacts.values().flatten().filter(|glob| !glob.starts_with('!')) {
            let glob =
                glob.split(super::legs::MARK).enumerate().map(|(index, part)| if index % 2 == 1 { "*" } else { part });
            let glob: String = glob.collect();
            lines.push(format!("buildkite-agent artifact download {} . --step {key}", quoted(&glob)));
        }
    }
    lines
}

fn matrix(piece: &Piece, entries: &mut Entries) {
    if piece.axes.is_empty() {
        return;
    }
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut setup = Entries::default();
    for (name, values) in &piece.axes {
        setup.texts(&readable(name), values.iter().map(plain).collect());
    }
    let mut matrix = Entries::default();
    matrix.map("setup", setup);
    if !piece.excluded.is_empty() {
        let skip = |combination: &std::collections::BTreeMap<String, Value>| {
            let mut with = Entries::default();
            combination.iter().for_each(|(name, value)| with.text(&readable(name), plain(value)));
            let mut adjustment = Entries::default();
            adjustment.map("with", with);
            adjustment.word("skip", true);
            adjustment.into_yaml()
        };
        matrix.add("adjustments", Yaml::List(piece.excluded.iter().map(skip).collect()));
    }
    entries.map("matrix", matrix);
}

fn settings(piece: &Piece, entries: &mut Entries, notes: &mut Vec<String>) {
    let job = &piece.job;
    let mut env = Entries::default();
    for (name, value) in job.env.iter().filter_map(|(name, value)| Some((name, value.as_plain()?))) {
        env.text(name, text(&Text::from(value.replace('$', "$$")), notes));
    }
    entries.map("env", env);
    entries.texts("secrets", job.secrets.iter().cloned().collect());
    let mut agents = Entries::default();
    if !job.pool.is_empty() {
        agents.text("queue", text(&Text::from(job.pool.as_str()), notes));
    }
    for label in &job.labels {
        agents.text(&text(&Text::from(label.as_str()), notes), "true");
    }
    entries.map("agents", agents);
    if let Environment::Image { image, .. } = &job.environment {
        let mut docker = Entries::default();
        docker.text("image", text(image, notes));
        let mut plugin = Entries::default();
        plugin.map("docker#v5.12.0", docker);
        entries.add("plugins", Yaml::List(vec![plugin.into_yaml()]));
    }
    let paths: Vec<String> =
        job.artifacts.values().flatten().map(|glob| text(&Text::from(glob.as_str()), notes)).collect();
    let (excluded, paths): (Vec<String>, Vec<String>) = paths.into_iter().partition(|glob| glob.starts_with('!'));
    if !excluded.is_empty() {
        notes.push(format!("Ropewalk leaves out {}; Buildkite cannot.", excluded.join(", ").replace('!', "")));
    }
    entries.texts("artifact_paths", paths);
    for cache in &job.cache {
        notes.push(format!(
            "Ropewalk keeps {} from build to build; Buildkite does by the agents' disks or a plugin.",
            cache.paths.join(", ")
        ));
    }
    if !job.reports.junit.is_empty() {
        notes.push(format!("Ropewalk reads test reports from {}.", job.reports.junit.join(", ")));
    }
    if let Some(limit) = job.timeout_ms {
        entries.word("timeout_in_minutes", minutes(limit));
    }
    retry(piece, entries);
    if job.allow_failure {
        entries.word("soft_fail", true);
    }
    if let Some(concurrency) = &job.concurrency {
        if concurrency.mode != ConcurrencyMode::Queue {
            entries.comment(format!(
                "{} Buildkite lets all of them run, one after the other.",
                concurrency_note(concurrency)
            ));
        }
        entries.word("concurrency", 1);
        entries.text("concurrency_group", text(&concurrency.group, notes));
    }
}

fn retry(piece: &Piece, entries: &mut Entries) {
    let retry = &piece.job.retry;
    if !retries_specially(&piece.job) || retry.max == 0 {
        return;
    }
    let mut rules = Vec::new();
    let mut rule = |status: String| {
        let mut entry = Entries::default();
        entry.word("exit_status", status);
        entry.word("limit", retry.max.min(10));
        rules.push(entry.into_yaml());
    };
    for on in &retry.on {
        match on {
            RetryOn::Lost => rule(LOST.to_string()),
            RetryOn::Step => rule("\"*\"".to_owned()),
            RetryOn::Exit(codes) => codes.iter().for_each(|code| rule(code.to_string())),
            RetryOn::Infra | RetryOn::Timeout => {}
        }
    }
    if rules.is_empty() {
        return;
    }
    let mut form = Entries::default();
    form.add("automatic", Yaml::List(rules));
    entries.map("retry", form);
}

/// What stands in double quotes of a script for a path.
fn path(names: &[&str]) -> Option<String> {
    let variable = match names {
        ["needs", job, "outputs", output] => return Some(format!("$(buildkite-agent meta-data get {job}.{output})")),
        ["gate", name] => return Some(format!("$(buildkite-agent meta-data get {name})")),
        ["event", "branch"] => "BUILDKITE_BRANCH",
        ["event", "tag"] => "BUILDKITE_TAG",
        ["event", "commit"] => "BUILDKITE_COMMIT",
        ["event", "actor"] => "BUILDKITE_BUILD_AUTHOR",
        ["event", "message"] => "BUILDKITE_MESSAGE",
        ["event", "pull_request"] => "BUILDKITE_PULL_REQUEST",
        ["build", "number"] => "BUILDKITE_BUILD_NUMBER",
        ["job", "name"] => "BUILDKITE_LABEL",
        ["env", name] => name,
        _ => return None,
    };
    Some(format!("${{{variable}}}"))
}

/// What a person filled in; where nobody was asked, the default, or else the command fails.
fn param(name: &str, plan: &Plan<'_>) -> String {
    let default = plan.params.get(name).and_then(|field| field.default.as_ref());
    match default.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)) {
        Some(default) => {
            format!("$(buildkite-agent meta-data get {name} --default {})", quoted(&default))
        }
        None => format!("$(buildkite-agent meta-data get {name})"),
    }
}

fn own_variable(name: &str) -> Option<&'static str> {
    Some(match name {
        "ROPEWALK_OUTPUT" => "ROPEWALK_OUTPUT",
        "ROPEWALK_BRANCH" => "BUILDKITE_BRANCH",
        "ROPEWALK_TAG" => "BUILDKITE_TAG",
        "ROPEWALK_COMMIT" => "BUILDKITE_COMMIT",
        "ROPEWALK_EVENT" => "BUILDKITE_SOURCE",
        "ROPEWALK_WORKSPACE" => "BUILDKITE_BUILD_CHECKOUT_PATH",
        "ROPEWALK_JOB" => "BUILDKITE_LABEL",
        "ROPEWALK_BUILD" => "BUILDKITE_BUILD_NUMBER",
        _ => return None,
    })
}

/// What stands for an axis' value.
fn in_matrix(axis: &str) -> String {
    format!("{{{{matrix.{}}}}}", readable(axis))
}

/// A text outside scripts; variables are expanded by the upload.
fn text(text: &Text, notes: &mut Vec<String>) -> String {
    let words = in_words(text, in_matrix, |written| {
        path(&single_path(written)?).filter(|word| word.starts_with("${BUILDKITE_"))
    });
    words.unwrap_or_else(|| {
        notes.push(format!("Buildkite cannot evaluate {}.", text.as_written()));
        text.as_written().to_owned()
    })
}
