//! GitLab CI. Source of words: docs.gitlab.com/ci/yaml, docs.gitlab.com/ci/variables/predefined_variables.

use std::collections::BTreeMap;

use graph::{Accepts, Carries, ConcurrencyMode, Environment, EventKind, RetryOn, Text};
use serde_json::Value;

use super::shell::{self, commands};
use super::texts::{in_words, single_path};
use super::yaml::{Entries, Yaml};
use super::{Piece, Plan, Words, common_title, concurrency_note, minutes, retries_specially};
use crate::native::Triggers;

/// Names at the top of the file that are no jobs.
const RESERVED: [&str; 14] = [
    "image",
    "services",
    "stages",
    "types",
    "before_script",
    "after_script",
    "variables",
    "cache",
    "include",
    "true",
    "false",
    "nil",
    "default",
    "workflow",
];
/// The most tries that GitLab takes.
const RETRIES_MAX: u32 = 2;

/// The file.
pub(super) fn write(plan: &Plan<'_>) -> String {
    let mut file = Entries::default();
    file.comment(format!("The pipeline `{}`. Jobs start as soon as what they need has passed.", plan.name));
    workflow(plan, &mut file);
    variables(plan, &mut file);
    for piece in &plan.jobs {
        let (entries, notes) = job(piece, plan);
        if !file.0.is_empty() {
            file.gap();
        }
        notes.into_iter().for_each(|note| file.comment(note));
        file.map(&name(&piece.key), entries);
    }
    if !plan.remarks.is_empty() {
        file.gap();
        plan.remarks.iter().for_each(|remark| file.comment(remark.clone()));
    }
    file.file()
}

fn name(key: &str) -> String {
    // `pages` publishes what it makes.
    if RESERVED.contains(&key) || key == "pages" { format!("{key}-job") } else { key.to_owned() }
}

fn workflow(plan: &Plan<'_>, file: &mut Entries) {
    plan.beside.iter().for_each(|note| file.comment(note.clone()));
    let Triggers::Listed { kinds, schedules } = &plan.triggers else { return };
    let mut rules = Vec::new();
    for (kind, regexes) in kinds {
        let matches = |variable: &str| match regexes.as_slice() {
            [] => String::new(),
            regexes => {
                let regexes: Vec<String> = regexes.iter().map(|regex| regex.replace('/', "\\/")).collect();
                let regex = if regexes.len() == 1 { regexes.concat() } else { format!("({})", regexes.join("|")) };
                format!(" && {variable} =~ /^{regex}$/")
            }
        };
        let condition = match kind {
            EventKind::Push => {
                let narrowed = matches("$CI_COMMIT_BRANCH");
                let branch = if narrowed.is_empty() { " && $CI_COMMIT_BRANCH" } else { &narrowed };
                format!("$CI_PIPELINE_SOURCE == \"push\"{branch}")
            }
            EventKind::Tag => format!("$CI_COMMIT_TAG{}", matches("$CI_COMMIT_TAG")),
            EventKind::PullRequest => format!(
                "$CI_PIPELINE_SOURCE == \"merge_request_event\"{}",
                matches("$CI_MERGE_REQUEST_TARGET_BRANCH_NAME")
            ),
            EventKind::Schedule => "$CI_PIPELINE_SOURCE == \"schedule\"".to_owned(),
            EventKind::Manual => "$CI_PIPELINE_SOURCE == \"web\"".to_owned(),
            EventKind::Api => "$CI_PIPELINE_SOURCE == \"api\" || $CI_PIPELINE_SOURCE == \"trigger\"".to_owned(),
            EventKind::Build => {
                "$CI_PIPELINE_SOURCE == \"pipeline\" || $CI_PIPELINE_SOURCE == \"parent_pipeline\"".to_owned()
            }
            EventKind::Command => {
                file.comment("Ropewalk runs it by command; here it is started by hand.");
                if kinds.contains_key(&EventKind::Manual) {
                    continue;
                }
                "$CI_PIPELINE_SOURCE == \"web\"".to_owned()
            }
        };
        let mut rule = Entries::default();
        rule.text("if", condition);
        rules.push(rule.into_yaml());
    }
    for schedule in schedules {
        file.comment(format!(
            "Add a schedule under Build > Pipeline schedules: `{}`, {}.",
            schedule.cron, schedule.timezone
        ));
    }
    let mut workflow = Entries::default();
    workflow.add("rules", Yaml::List(rules));
    file.map("workflow", workflow);
}

/// Variables of all jobs, and those that a person fills in.
fn variables(plan: &Plan<'_>, file: &mut Entries) {
    let mut variables = Entries::default();
    for (name, value) in &plan.env {
        variables.text(name, value.as_written().replace('$', "$$"));
    }
    for (name, field) in plan.params {
        let mut variable = Entries::default();
        let default =
            field.default.as_ref().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        match &default {
            Some(default) => variable.text("value", default.clone()),
            None => variable.comment("It must be filled in."),
        }
        if let graph::FieldKind::Choice { options } = &field.kind {
            variable.texts("options", options.clone());
        }
        variable.text("description", if field.help.is_empty() { name.clone() } else { field.help.clone() });
        if matches!(field.kind, graph::FieldKind::Number | graph::FieldKind::Boolean) {
            variable.comment("A number or boolean in Ropewalk; any text here.");
        }
        variables.map(name, variable);
    }
    if !variables.0.is_empty() {
        file.gap();
        file.map("variables", variables);
    }
}

fn job(piece: &Piece, plan: &Plan<'_>) -> (Entries, Vec<String>) {
    let job = &piece.job;
    let mut notes = piece.common_notes(Words { resources: false, cleanup: false });
    for (field, gate) in plan.gate_values(piece) {
        notes.push(format!(
            "A person gives `{field}` at the gate `{gate}`; GitLab hands it to no other job: it is empty here."
        ));
    }
    let mut entries = Entries::default();
    if let Some(title) = common_title(piece) {
        entries.comment(text(&title, &mut notes));
    }
    needs(piece, plan, &mut entries, &mut notes);
    start(piece, &mut entries, &mut notes);
    if let Environment::Image { image, .. } = &job.environment {
        entries.text("image", text(image, &mut notes));
    }
    let mut tags: Vec<String> = Some(job.pool.clone()).filter(|pool| !pool.is_empty()).into_iter().collect();
    tags.extend(job.labels.iter().cloned());
    let tags = tags.into_iter().map(|tag| text(&Text::from(tag), &mut notes)).collect();
    entries.texts("tags", tags);
    parallel(piece, &mut entries);
    if let Some(limit) = job.timeout_ms {
        entries.text("timeout", format!("{} minutes", minutes(limit)));
    }
    if let Some(concurrency) = &job.concurrency {
        if concurrency.mode != ConcurrencyMode::Queue {
            entries.comment(format!(
                "{} GitLab lets all of them run, one after the other.",
                concurrency_note(concurrency)
            ));
        }
        entries.text("resource_group", text(&concurrency.group, &mut notes));
    }
    retry(piece, &mut entries, &mut notes);
    cache(piece, &mut entries, &mut notes);
    let mut variables = Entries::default();
    for (name, value) in job.env.iter().filter_map(|(name, value)| Some((name, value.as_plain()?))) {
        // A `$` would begin a variable of GitLab's.
        let value = in_words(&Text::from(value.replace('$', "$$")), |axis| format!("${axis}"), |_| None);
        variables.text(name, value.unwrap_or_default());
    }
    if !job.outputs.is_empty() {
        variables.text("ROPEWALK_OUTPUT", "$CI_PROJECT_DIR/outputs.env");
    }
    if !job.secrets.is_empty() {
        let secrets: Vec<&str> = job.secrets.iter().map(String::as_str).collect();
        variables.comment(format!(
            "{}: set as masked, protected variables in the project's settings; every job sees them.",
            secrets.join(", ")
        ));
    }
    if variables.0.iter().any(|item| matches!(item, super::yaml::Item::Entry(..))) {
        entries.map("variables", variables);
    } else {
        entries.0.extend(variables.0);
    }
    script(piece, &mut entries, &mut notes);
    artifacts(piece, &mut entries, &mut notes);
    (entries, notes)
}

fn needs(piece: &Piece, plan: &Plan<'_>, entries: &mut Entries, notes: &mut Vec<String>) {
    let need = |(key, need): &(String, graph::Need)| {
        let needed = plan.jobs.iter().find(|other| other.key == *key);
        let has_files = needed.is_some_and(|needed| !needed.job.artifacts.is_empty() || !needed.job.outputs.is_empty());
        let mut entry = Entries::default();
        entry.text("job", name(key));
        match (need.carries, has_files) {
            (Carries::Order, true) => entry.word("artifacts", false),
            _ => return Yaml::Text(name(key)),
        }
        entry.into_yaml()
    };
    let needs: Vec<Yaml> = piece.needs.iter().map(need).collect();
    match needs.iter().map(|need| if let Yaml::Text(text) = need { Some(text.clone()) } else { None }).collect() {
        // All jobs are of one stage, so what needs nothing starts at once.
        _ if needs.is_empty() => {}
        Some(texts) => entries.texts("needs", texts),
        _ => entries.add("needs", Yaml::List(needs)),
    }
    let special: Vec<Accepts> =
        piece.needs.iter().filter(|(_, need)| !Piece::is_plain(need)).map(|(_, need)| need.accepts).collect();
    if special.len() != piece.needs.len() && !special.is_empty() {
        notes.push("Its needs ask for different endings; GitLab takes one `when` for all.".to_owned());
    }
}

/// `when`: by the endings that needs accept, or a person.
fn start(piece: &Piece, entries: &mut Entries, notes: &mut Vec<String>) {
    let job = &piece.job;
    let accepts: Vec<Accepts> = piece.needs.iter().map(|(_, need)| need.accepts).collect();
    if let Some(condition) = &job.condition {
        notes.push(format!("It runs only if {condition}; GitLab cannot ask that once the needs have ended."));
    }
    if let Some(gate) = &job.gate {
        let prompt = text(&gate.prompt, notes);
        if !prompt.is_empty() {
            entries.comment(prompt);
        }
        if !gate.fields.is_empty() {
            let fields: Vec<&str> = gate.fields.keys().map(String::as_str).collect();
            entries.comment(format!(
                "The gate asks for {}: whoever starts the job sets variables of these names.",
                fields.join(", ")
            ));
        }
        entries.text("when", "manual");
        if !job.allow_failure {
            entries.word("allow_failure", false);
        }
    } else if accepts.contains(&Accepts::FAILURE) {
        entries.text("when", "on_failure");
    } else if accepts.contains(&Accepts::FINISHED) {
        entries.text("when", "always");
    }
    if job.allow_failure {
        entries.word("allow_failure", true);
    }
}

fn parallel(piece: &Piece, entries: &mut Entries) {
    if piece.axes.is_empty() {
        return;
    }
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut rows: Vec<Yaml> = Vec::new();
    if piece.excluded.is_empty() {
        let mut row = Entries::default();
        for (name, values) in &piece.axes {
            row.texts(name, values.iter().map(plain).collect());
        }
        rows.push(row.into_yaml());
    } else {
        // One row for all values of the last axis that go with the same values of the others.
        let Some(((last, _), others)) = piece.axes.split_last() else { return };
        for before in combinations(others) {
            let with = |value: &Value| before.clone().into_iter().chain([(last.clone(), value.clone())]).collect();
            let values = piece.axes[others.len()].1.iter().filter(|value| !piece.excluded.contains(&with(value)));
            let values: Vec<String> = values.map(plain).collect();
            let mut row = Entries::default();
            others.iter().for_each(|(name, _)| row.text(name, plain(&before[name])));
            match values.is_empty() {
                true => {}
                false => {
                    row.texts(last, values);
                    rows.push(row.into_yaml());
                }
            }
        }
    }
    let mut parallel = Entries::default();
    parallel.add("matrix", Yaml::List(rows));
    entries.map("parallel", parallel);
}

fn combinations(axes: &[(String, Vec<Value>)]) -> Vec<BTreeMap<String, Value>> {
    axes.iter().fold(vec![BTreeMap::new()], |all, (name, values)| {
        let with = |before: &BTreeMap<String, Value>, value: &Value| {
            let mut combination = before.clone();
            combination.insert(name.clone(), value.clone());
            combination
        };
        all.iter().flat_map(|before| values.iter().map(move |value| with(before, value))).collect()
    })
}

fn retry(piece: &Piece, entries: &mut Entries, notes: &mut Vec<String>) {
    let retry = &piece.job.retry;
    if !retries_specially(&piece.job) {
        return;
    }
    if retry.max > RETRIES_MAX {
        notes.push(format!("Ropewalk tries it again up to {} times; GitLab twice at most.", retry.max));
    }
    let mut form = Entries::default();
    form.word("max", retry.max.min(RETRIES_MAX));
    let mut when = Vec::new();
    let mut codes = Vec::new();
    for on in &retry.on {
        match on {
            RetryOn::Infra => when.push("runner_system_failure".to_owned()),
            RetryOn::Lost => when.push("stuck_or_timeout_failure".to_owned()),
            RetryOn::Timeout => when.push("job_execution_timeout".to_owned()),
            RetryOn::Step => when.push("script_failure".to_owned()),
            RetryOn::Exit(exit) => codes.extend(exit.iter().map(i32::to_string)),
        }
    }
    if retry.max > 0 {
        form.texts("when", when);
        if !codes.is_empty() {
            form.word("exit_codes", format!("[{}]", codes.join(", ")));
        }
    }
    entries.map("retry", form);
}

fn cache(piece: &Piece, entries: &mut Entries, notes: &mut Vec<String>) {
    let mut list = Vec::new();
    for cache in &piece.job.cache {
        let mut form = Entries::default();
        match files_key(&cache.key) {
            Some((prefix, file)) => {
                let mut key = Entries::default();
                key.texts("files", vec![file]);
                if !prefix.is_empty() {
                    key.text("prefix", prefix);
                }
                form.map("key", key);
            }
            None => form.text("key", text(&cache.key, notes)),
        }
        let restore: Vec<String> = cache.restore.iter().map(|key| text(key, notes)).collect();
        if !restore.is_empty() {
            form.comment(format!("Ropewalk falls back on the newest entry that begins with {}.", restore.join(", ")));
        }
        let (outside, inside): (Vec<String>, Vec<String>) =
            cache.paths.iter().cloned().partition(|path| path.starts_with('~'));
        if !outside.is_empty() {
            form.comment(format!("GitLab caches no folder outside the project: {}.", outside.join(", ")));
        }
        if !inside.is_empty() {
            form.texts("paths", inside.iter().map(|path| text(&Text::from(path.as_str()), notes)).collect());
            list.push(form.into_yaml());
        } else {
            notes.push(format!("GitLab caches no folder outside the project: {}.", outside.join(", ")));
        }
    }
    match list.len() {
        0 => {}
        1 => entries.add("cache", list.remove(0)),
        _ => entries.add("cache", Yaml::List(list)),
    }
}

/// The prefix and the file of a key `prefix-${{ hash_files('FILE') }}`.
fn files_key(key: &Text) -> Option<(String, String)> {
    let (prefix, rest) = key.as_written().split_once("${{")?;
    let call = rest.strip_suffix("}}")?.trim();
    let file = call.strip_prefix("hash_files('").or_else(|| call.strip_prefix("hashFiles('"))?.strip_suffix("')")?;
    let is_one = !file.contains('\'') && !prefix.contains(super::legs::MARK);
    is_one.then(|| (prefix.trim_end_matches('-').to_owned(), file.to_owned()))
}

fn script(piece: &Piece, entries: &mut Entries, notes: &mut Vec<String>) {
    if piece.job.steps.is_empty() {
        entries.texts("script", vec!["true".to_owned()]);
        return;
    }
    let words = shell::Words { path: &path, variable: &own_variable, axis: &|axis| format!("${{{axis}}}") };
    let lines = commands(piece, &words, notes);
    let lines: Vec<Yaml> = lines.into_iter().map(Yaml::Text).collect();
    entries.add("script", Yaml::List(lines));
}

fn artifacts(piece: &Piece, entries: &mut Entries, notes: &mut Vec<String>) {
    let job = &piece.job;
    let mut artifacts = Entries::default();
    let paths: Vec<String> =
        job.artifacts.values().flatten().map(|glob| text(&Text::from(glob.as_str()), notes)).collect();
    let (excluded, paths): (Vec<String>, Vec<String>) = paths.into_iter().partition(|glob| glob.starts_with('!'));
    artifacts.texts("paths", paths);
    artifacts.texts("exclude", excluded.iter().map(|glob| glob[1..].to_owned()).collect());
    let mut reports = Entries::default();
    reports.texts("junit", job.reports.junit.iter().map(|glob| text(&Text::from(glob.as_str()), notes)).collect());
    if !job.outputs.is_empty() {
        reports.text("dotenv", "outputs.env");
    }
    if !job.reports.junit.is_empty() {
        artifacts.text("when", "always");
    }
    artifacts.map("reports", reports);
    entries.map("artifacts", artifacts);
}

/// What stands in double quotes for a path.
fn path(names: &[&str]) -> Option<String> {
    let variable = match names {
        ["needs", _, "outputs", output] => output,
        ["event", "branch"] => "CI_COMMIT_BRANCH",
        ["event", "tag"] => "CI_COMMIT_TAG",
        ["event", "commit"] => "CI_COMMIT_SHA",
        ["event", "actor"] => "GITLAB_USER_LOGIN",
        ["event", "message"] => "CI_COMMIT_MESSAGE",
        ["build", "number"] => "CI_PIPELINE_IID",
        ["job", "name"] => "CI_JOB_NAME",
        ["event", "params", name] | ["params" | "gate" | "env" | "matrix", name] => name,
        _ => return None,
    };
    Some(format!("${{{variable}}}"))
}

fn own_variable(name: &str) -> Option<&'static str> {
    Some(match name {
        "ROPEWALK_OUTPUT" => "ROPEWALK_OUTPUT",
        "ROPEWALK_BRANCH" => "CI_COMMIT_BRANCH",
        "ROPEWALK_TAG" => "CI_COMMIT_TAG",
        "ROPEWALK_COMMIT" => "CI_COMMIT_SHA",
        "ROPEWALK_EVENT" => "CI_PIPELINE_SOURCE",
        "ROPEWALK_WORKSPACE" => "CI_PROJECT_DIR",
        "ROPEWALK_JOB" => "CI_JOB_NAME",
        "ROPEWALK_BUILD" => "CI_PIPELINE_IID",
        _ => return None,
    })
}

/// A text outside scripts, where GitLab expands variables.
fn text(text: &Text, notes: &mut Vec<String>) -> String {
    let words = in_words(text, |axis| format!("${axis}"), |written| path(&single_path(written)?));
    words.unwrap_or_else(|| {
        notes.push(format!("GitLab cannot evaluate {}.", text.as_written()));
        text.as_written().to_owned()
    })
}
