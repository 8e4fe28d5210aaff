//! GitLab CI. Source of words: docs.gitlab.com/ci/yaml, docs.gitlab.com/ci/variables/predefined_variables.

use std::collections::BTreeMap;

use graph::{Accepts, Carries, ConcurrencyMode, Ending, Environment, EventKind, RetryOn, Shell, Text};
use serde_json::Value;

use super::shell::{self, Behind, commands, writes_documents};
use super::texts::{in_words, single_path};
use super::yaml::{Entries, Yaml};
use super::{Piece, Plan, Words, common_title, concurrency_note, minutes, retries_specially};
use crate::native::Triggers;

mod axes;
mod variables;

use variables::Variables;

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
/// The file of outputs, whose lines become variables of later jobs.
const DOTENV: &str = "outputs.env";
/// The file of outputs under the names that the job gives them, where those can be no variables.
const WRITTEN: &str = "outputs.txt";
/// The most tries that GitLab takes.
const RETRIES_MAX: u32 = 2;

/// The file.
pub(super) fn write(plan: &Plan<'_>) -> String {
    let mut file = Entries::default();
    file.comment(format!("The pipeline `{}`. Jobs start as soon as what they need has passed.", plan.name));
    let variables = Variables::of(plan);
    workflow(plan, &mut file);
    common_variables(plan, &variables, &mut file);
    for piece in &plan.jobs {
        let (entries, notes) = job(&Reader { piece, plan, variables: &variables });
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
                let regex = regexes.iter().map(|regex| between_slashes(regex)).collect::<Vec<_>>().join("|");
                // Without brackets `^` would hold for the first alternative only, and `$` for the last.
                let regex = if regex.contains('|') { format!("({regex})") } else { regex };
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

/// A regex with no slash that would end it.
fn between_slashes(regex: &str) -> String {
    let mut out = String::new();
    let mut is_escaped = false;
    for character in regex.chars() {
        if character == '/' && !is_escaped {
            out.push('\\');
        }
        out.push(character);
        is_escaped = character == '\\' && !is_escaped;
    }
    out
}

/// Variables of all jobs, and those that a person fills in.
fn common_variables(plan: &Plan<'_>, names: &Variables<'_>, file: &mut Entries) {
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
        variables.map(&names.param(name), variable);
    }
    if !variables.0.is_empty() {
        file.gap();
        file.map("variables", variables);
    }
}

/// A job, with what its texts may read.
#[derive(Clone, Copy)]
struct Reader<'a> {
    piece: &'a Piece,
    plan: &'a Plan<'a>,
    variables: &'a Variables<'a>,
}

fn job(reader: &Reader<'_>) -> (Entries, Vec<String>) {
    let Reader { piece, plan, .. } = *reader;
    let job = &piece.job;
    let mut notes = piece.common_notes(Words { resources: false, cleanup: false });
    for (field, gate) in plan.gate_values(piece) {
        notes.push(format!(
            "A person gives `{field}` at the gate `{gate}`; GitLab hands it to no other job, so what reads it fails."
        ));
    }
    let mut entries = Entries::default();
    if let Some(title) = common_title(piece) {
        entries.comment(reader.text(&title, &mut notes));
    }
    needs(piece, plan, &mut entries);
    start(reader, &mut entries, &mut notes);
    if let Environment::Image { image, .. } = &job.environment {
        entries.text("image", reader.text(image, &mut notes));
    }
    let mut tags: Vec<String> = Some(job.pool.clone()).filter(|pool| !pool.is_empty()).into_iter().collect();
    tags.extend(job.labels.iter().cloned());
    let tags = tags.into_iter().map(|tag| reader.text(&Text::from(tag), &mut notes)).collect();
    entries.texts("tags", tags);
    parallel(reader, &mut entries);
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
        entries.text("resource_group", reader.text(&concurrency.group, &mut notes));
    }
    retry(piece, &mut entries, &mut notes);
    cache(reader, &mut entries, &mut notes);
    let mut variables = Entries::default();
    for (name, value) in job.env.iter().filter_map(|(name, value)| Some((name, value.as_plain()?))) {
        // A `$` would begin a variable of GitLab's.
        let value = in_words(&Text::from(value.replace('$', "$$")), |axis| reader.axis(axis), |_| None);
        variables.text(name, value.unwrap_or_default());
    }
    if !job.outputs.is_empty() {
        let file = if reader.renamed().is_empty() { DOTENV } else { WRITTEN };
        variables.text("ROPEWALK_OUTPUT", format!("$CI_PROJECT_DIR/{file}"));
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
    script(reader, &mut entries, &mut notes);
    artifacts(reader, &mut entries, &mut notes);
    (entries, notes)
}

fn needs(piece: &Piece, plan: &Plan<'_>, entries: &mut Entries) {
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
}

/// `when`: by the endings that needs accept, or a person.
fn start(reader: &Reader<'_>, entries: &mut Entries, notes: &mut Vec<String>) {
    let Reader { piece, plan, variables } = *reader;
    let job = &piece.job;
    if let Some(gate) = &job.gate {
        let prompt = reader.text(&gate.prompt, notes);
        if !prompt.is_empty() {
            entries.comment(prompt);
        }
        if !gate.fields.is_empty() {
            let fields: Vec<String> = gate.fields.keys().map(|field| variables.field(field)).collect();
            entries.comment(format!(
                "The gate asks for {}: whoever starts the job sets variables of these names.",
                fields.join(", ")
            ));
        }
    }
    if let Some(condition) = &job.condition {
        notes.push(match shell::holds_for_event(condition) {
            true => format!("It runs only if {condition}; GitLab does not ask that."),
            false => {
                format!("It runs only if {condition}; GitLab cannot ask that, so whoever knows it starts the job.")
            }
        });
    }
    for (key, _) in piece.needs.iter().filter(|(_, need)| need.accepts == Accepts::BARRIER) {
        notes.push(format!("It runs also if `{key}` is skipped; GitLab skips it, too."));
    }
    match when(piece, plan) {
        When::Success => {}
        When::AllPassed(why) => notes.push(why.to_owned()),
        When::Always => entries.text("when", "always"),
        When::Failure => entries.text("when", "on_failure"),
        When::Person(why) => {
            notes.push(why.to_owned());
            entries.text("when", "manual");
            return entries.word("allow_failure", true);
        }
        When::Gate | When::Condition => {
            entries.text("when", "manual");
            if !job.allow_failure {
                entries.word("allow_failure", false);
            }
        }
    }
    if job.allow_failure {
        entries.word("allow_failure", true);
    }
}

/// When a job starts.
enum When {
    /// Once all it needs have passed, which GitLab does unasked.
    Success,
    /// The same, though Ropewalk asks for less.
    AllPassed(&'static str),
    Always,
    Failure,
    /// If somebody starts it, since GitLab cannot tell when it should; else it does not run.
    Person(&'static str),
    /// If somebody starts it, since GitLab cannot ask its condition; the pipeline waits for that.
    Condition,
    /// At its gate.
    Gate,
}

/// GitLab has one `when` for all needs, and `on_failure` means that any of them failed: what cannot be said so must not
/// start a job that Ropewalk would not.
fn when(piece: &Piece, plan: &Plan<'_>) -> When {
    // What only brings values along has ended by then, whatever its ending.
    let asking: Vec<&graph::Need> =
        piece.needs.iter().map(|(_, need)| need).filter(|need| need.carries != Carries::Outputs).collect();
    let is_one_job = |key: &String| plan.jobs.iter().any(|other| other.key == *key && other.axes.is_empty());
    let asks_results = piece.job.condition.as_deref().is_some_and(|condition| !shell::holds_for_event(condition));
    if asking.iter().any(|need| !need.accepts.holds(Ending::Passed)) {
        return match piece.needs.as_slice() {
            [(key, need)]
                if need.accepts == Accepts::FAILURE
                    && is_one_job(key)
                    && piece.job.condition.is_none()
                    && piece.job.gate.is_none() =>
            {
                When::Failure
            }
            _ => When::Person(
                "Ropewalk runs it only if all that it waits for so has failed; GitLab would if any job here has, so it \
                 does not start by itself.",
            ),
        };
    }
    if piece.job.gate.is_some() {
        return When::Gate;
    }
    if asks_results {
        return When::Condition;
    }
    match asking.iter().filter(|need| need.accepts == Accepts::FINISHED).count() {
        0 => When::Success,
        count if count < asking.len() => When::AllPassed(
            "Its needs ask for different endings; GitLab takes one `when` for all, so here all must have passed.",
        ),
        _ => When::Always,
    }
}

fn parallel(reader: &Reader<'_>, entries: &mut Entries) {
    let Reader { piece, variables, .. } = *reader;
    if piece.axes.is_empty() {
        return;
    }
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut rows: Vec<Yaml> = Vec::new();
    if piece.excluded.is_empty() {
        let mut row = Entries::default();
        for (name, values) in &piece.axes {
            row.texts(&variables.axis(name), values.iter().map(plain).collect());
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
            others.iter().for_each(|(name, _)| row.text(&variables.axis(name), plain(&before[name])));
            match values.is_empty() {
                true => {}
                false => {
                    row.texts(&variables.axis(last), values);
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

fn cache(reader: &Reader<'_>, entries: &mut Entries, notes: &mut Vec<String>) {
    let mut list = Vec::new();
    for cache in &reader.piece.job.cache {
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
            None => form.text("key", reader.text(&cache.key, notes)),
        }
        let restore: Vec<String> = cache.restore.iter().map(|key| reader.text(key, notes)).collect();
        if !restore.is_empty() {
            form.comment(format!("Ropewalk falls back on the newest entry that begins with {}.", restore.join(", ")));
        }
        let (outside, inside): (Vec<String>, Vec<String>) =
            cache.paths.iter().cloned().partition(|path| path.starts_with('~'));
        if !outside.is_empty() {
            form.comment(format!("GitLab caches no folder outside the project: {}.", outside.join(", ")));
        }
        if !inside.is_empty() {
            form.texts("paths", inside.iter().map(|path| reader.text(&Text::from(path.as_str()), notes)).collect());
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

fn script(reader: &Reader<'_>, entries: &mut Entries, notes: &mut Vec<String>) {
    let renamed = reader.renamed();
    let in_script = |names: &[&str]| reader.in_script(names);
    let axis = |axis: &str| reader.axis(axis);
    let script = |script: &str, shell: &Shell| axes::expanded(script, shell, |axis| reader.variables.axis(axis));
    let words = shell::Words { path: &in_script, variable: &own_variable, axis: &axis, script: &script };
    // A runner may say something behind the last command.
    let behind = if renamed.is_empty() { Behind::Maybe } else { Behind::Commands };
    let mut lines = commands(reader.piece, behind, &words, notes);
    if !renamed.is_empty() {
        let of_name =
            |(name, variable): &(&String, String)| format!(" -e 's/^{}=/{variable}=/'", name.replace('.', "\\."));
        let expressions: String = renamed.iter().map(of_name).collect();
        lines.push(format!("sed{expressions} {WRITTEN} > {DOTENV}"));
    }
    if writes_documents(reader.piece) {
        notes.push(
            "An output of several lines (`NAME<<END`) is none that a dotenv report can hold: it fails here.".to_owned(),
        );
    }
    if lines.is_empty() {
        lines.push("true".to_owned());
    }
    match reader.piece.job.steps.is_empty() {
        true => entries.texts("script", lines),
        false => entries.add("script", Yaml::List(lines.into_iter().map(Yaml::Text).collect())),
    }
}

fn artifacts(reader: &Reader<'_>, entries: &mut Entries, notes: &mut Vec<String>) {
    let job = &reader.piece.job;
    let mut artifacts = Entries::default();
    let paths: Vec<String> =
        job.artifacts.values().flatten().map(|glob| reader.text(&Text::from(glob.as_str()), notes)).collect();
    let (excluded, paths): (Vec<String>, Vec<String>) = paths.into_iter().partition(|glob| glob.starts_with('!'));
    artifacts.texts("paths", paths);
    artifacts.texts("exclude", excluded.iter().map(|glob| glob[1..].to_owned()).collect());
    let mut reports = Entries::default();
    reports
        .texts("junit", job.reports.junit.iter().map(|glob| reader.text(&Text::from(glob.as_str()), notes)).collect());
    if !job.outputs.is_empty() {
        reports.text("dotenv", DOTENV);
    }
    if !job.reports.junit.is_empty() {
        artifacts.text("when", "always");
    }
    artifacts.map("reports", reports);
    entries.map("artifacts", artifacts);
}

/// What a shell does where a variable is not set.
enum Unset {
    /// It is empty.
    Empty,
    /// The command fails.
    Fails,
    /// It has this value.
    Default(String),
}

impl Reader<'_> {
    /// The variable that holds what is at a path.
    fn variable(&self, names: &[&str]) -> Option<(String, Unset)> {
        let variable = match names {
            ["needs", job, "outputs", name] => return Some(self.output(job, name)),
            ["gate", name] => {
                let gate = self.piece.job.gate.as_ref();
                let default = gate.and_then(|gate| gate.fields.get(*name)?.default.as_ref());
                let default = default.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
                let is_plain = |text: &String| text.chars().all(|c| c.is_ascii_alphanumeric() || " _-./:".contains(c));
                let unset = default.filter(is_plain).map_or(Unset::Fails, Unset::Default);
                return Some((self.variables.field(name), unset));
            }
            ["event", "params", name] | ["params", name] => self.variables.param(name),
            ["matrix", name] => self.variables.axis(name),
            ["env", name] => (*name).to_owned(),
            ["event", "branch"] => "CI_COMMIT_BRANCH".to_owned(),
            ["event", "tag"] => "CI_COMMIT_TAG".to_owned(),
            ["event", "commit"] => "CI_COMMIT_SHA".to_owned(),
            ["event", "actor"] => "GITLAB_USER_LOGIN".to_owned(),
            ["event", "message"] => "CI_COMMIT_MESSAGE".to_owned(),
            ["build", "number"] => "CI_PIPELINE_IID".to_owned(),
            ["job", "name"] => "CI_JOB_NAME".to_owned(),
            _ => return None,
        };
        Some((variable, Unset::Empty))
    }

    /// Of an output: it is there, unless the job may be needed without having passed.
    fn output(&self, job: &str, name: &str) -> (String, Unset) {
        if self.plan.gate_of(job, name).is_some() {
            return (self.variables.field(name), Unset::Fails);
        }
        let needed = self.plan.jobs.iter().find(|piece| piece.id == job || piece.key == job);
        let need = needed.and_then(|needed| self.piece.needs.iter().find(|(key, _)| *key == needed.key));
        let unset = match need {
            Some((_, need)) if need.carries != Carries::Outputs && need.accepts != Accepts::SUCCESS => Unset::Empty,
            _ => Unset::Fails,
        };
        (needed.map_or_else(|| self.variables.other(name), |needed| self.variables.output(needed, name)), unset)
    }

    /// What stands in double quotes of a script for a path.
    fn in_script(&self, names: &[&str]) -> Option<String> {
        let (variable, unset) = self.variable(names)?;
        Some(match unset {
            Unset::Empty => format!("${{{variable}}}"),
            Unset::Fails => format!("${{{variable}?}}"),
            Unset::Default(value) => format!("${{{variable}:-{value}}}"),
        })
    }

    fn axis(&self, name: &str) -> String {
        format!("${{{}}}", self.variables.axis(name))
    }

    /// A text outside scripts, where GitLab expands variables.
    fn text(&self, text: &Text, notes: &mut Vec<String>) -> String {
        let path = |written: &str| Some(format!("${{{}}}", self.variable(&single_path(written)?)?.0));
        in_words(text, |axis| self.axis(axis), path).unwrap_or_else(|| {
            notes.push(format!("GitLab cannot evaluate {}.", text.as_written()));
            text.as_written().to_owned()
        })
    }

    /// The job's outputs whose variables have other names.
    fn renamed(&self) -> Vec<(&String, String)> {
        let outputs = self.piece.job.outputs.iter();
        let named = outputs.map(|output| (output, self.variables.output(self.piece, output)));
        named.filter(|(output, variable)| *output != variable).collect()
    }
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
