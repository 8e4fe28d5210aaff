//! Every diagnostic of the native format, made from what the call site holds.
//!
//! Codes are stable: people silence and search by them. `faults.rs` bounds how many are kept.

use graph::{Diagnostic, Location};

use super::foreign;
use super::plugins::BROUGHT_PLUGINS;
use super::spelled::Comparison;
use crate::suggest;

/// The most faults of one pipeline that are told.
pub(crate) const FAULTS_MAX: usize = 200;

/// Faults found so far; beyond [`FAULTS_MAX`] they are only counted.
#[derive(Default)]
pub(crate) struct Faults {
    kept: Vec<Diagnostic>,
    dropped: usize,
}

impl Faults {
    pub(crate) fn push(&mut self, fault: Diagnostic) {
        if self.kept.len() < FAULTS_MAX {
            self.kept.push(fault);
        } else {
            self.dropped += 1;
        }
    }

    /// Keeps what `fault` makes, or only counts it: for faults whose help is dear to find.
    pub(crate) fn push_with(&mut self, fault: impl FnOnce() -> Diagnostic) {
        if self.kept.len() < FAULTS_MAX {
            self.kept.push(fault());
        } else {
            self.dropped += 1;
        }
    }

    pub(crate) fn extend(&mut self, faults: impl IntoIterator<Item = Diagnostic>) {
        faults.into_iter().for_each(|fault| self.push(fault));
    }

    /// Takes over what another list holds.
    pub(crate) fn absorb(&mut self, other: Faults) {
        self.extend(other.kept);
        self.dropped += other.dropped;
    }

    /// How many were found.
    pub(crate) fn count(&self) -> usize {
        self.kept.len() + self.dropped
    }

    /// All that are told, each once: by file in the order of `files`, then by place; those without a place first.
    pub(crate) fn finish(mut self, files: &[&str]) -> Vec<Diagnostic> {
        let place = |diagnostic: &Diagnostic| {
            let location = diagnostic.location.as_ref()?;
            let file = files.iter().position(|name| **name == *location.file);
            Some((file, location.start, location.end))
        };
        self.kept.sort_by_key(place);
        // A context that cannot be read at all has no names to miss.
        self.kept.dedup_by(|second, first| {
            let starts_with = |diagnostic: &Diagnostic| {
                diagnostic.location.as_ref().map(|location| (location.file.clone(), location.start))
            };
            let is_echo = first.code == "expression" && second.code == "unknown-reference";
            first == second || (is_echo && starts_with(first) == starts_with(second))
        });
        if self.dropped > 0 {
            let message = format!("{} more faults are not shown", self.dropped);
            self.kept.push(
                Diagnostic::error("too-many-faults", message)
                    .help(format!("mend the first ones; at most {FAULTS_MAX} are shown at once")),
            );
        }
        self.kept
    }
}

pub(crate) fn no_pipeline() -> Diagnostic {
    Diagnostic::error("no-pipeline", "there is no pipeline file")
        .help("write `.ropewalk/pipeline.yaml`, or let `ropewalk init` write one")
}

pub(crate) fn no_jobs(place: Location) -> Diagnostic {
    Diagnostic::error("no-jobs", "the pipeline has no jobs")
        .at(place, "nothing would run")
        .help("add `jobs`, for example `jobs: { test: { run: make test } }`")
}

pub(crate) fn unknown_key(place: Location, key: &str, map: &str, known: &[&str]) -> Diagnostic {
    Diagnostic::error("unknown-key", format!("`{key}` is no key of {}", spoken(map)))
        .at(place, "not known here")
        .help(foreign::key(map, key).unwrap_or_else(|| suggest::did_you_mean(key, known)))
}

pub(crate) fn job_at_the_top(place: Location, id: &str) -> Diagnostic {
    unknown_key(place, id, "pipeline", &[]).help(format!("jobs stand below `jobs`: `jobs: {{ {id}: {{ run: … }} }}`"))
}

pub(crate) fn missing_key(place: Location, key: &str, map: &str) -> Diagnostic {
    Diagnostic::error("missing-key", format!("{} has no `{key}`", spoken(map)))
        .at(place, format!("`{key}` is missing"))
        .help(format!("add `{key}`"))
}

/// `meant` is how it is to be written.
pub(crate) fn need_by_key(place: Location, meant: String) -> Diagnostic {
    Diagnostic::error("missing-key", "a need has no `job`").at(place, "`job` is missing").help(meant)
}

pub(crate) fn wrong_type(place: Location, what: &str, takes: &str, found: &str) -> Diagnostic {
    let help = match found {
        _ if matches!(what, "jobs" | "pipeline") => "write jobs: `jobs: { test: { run: make test } }`",
        "a number" | "a whole number" | "a boolean" if takes.contains("a string") => "put it in quotes",
        "nothing" => "remove the key, or give it a value",
        "a number" | "a whole number" if takes.contains("a duration") => "say the unit: `30s`, `20m`",
        "a number" | "a whole number" if takes.contains("a size") => "say the unit: `512MiB`, `4GiB`",
        _ if takes.contains("`true` or `false`") => "write `true` or `false`, without quotes",
        "a string" if takes.starts_with("a number") || takes.starts_with("a whole number") => {
            "write a number, without quotes"
        }
        _ if what == "schedule" => "write a list of times: `schedule: [{ cron: \"0 4 * * *\" }]`",
        _ if takes.contains("a list of maps") => {
            "write a map: `{ KEY: VALUE }`, or a `KEY: VALUE` in each line; or a list of such maps"
        }
        _ if takes.contains("a list") => "write a list: `[one, two]`",
        _ if takes.contains("a map") => "write a map: `{ KEY: VALUE }`, or a `KEY: VALUE` in each line",
        _ => "write one value",
    };
    let message = match what {
        "pipeline" => format!("a pipeline is {takes}, not {found}"),
        _ => format!("`{what}` takes {takes}, not {found}"),
    };
    Diagnostic::error("wrong-type", message).at(place, format!("this is {found}")).help(help)
}

pub(crate) fn empty_script(place: Location) -> Diagnostic {
    Diagnostic::warning("empty-script", "this script is empty: it does nothing, and passes")
        .at(place, "nothing runs")
        .help("write the commands here, or remove it")
}

pub(crate) fn bad_key(place: Location, what: &str) -> Diagnostic {
    Diagnostic::error("wrong-type", format!("the keys of `{what}` are strings")).at(place, "this is none")
}

pub(crate) fn unknown_word(place: Location, what: &str, word: &str, known: &[&str]) -> Diagnostic {
    let foreign = if what == "on" { foreign::event(word) } else { None };
    let help = foreign.unwrap_or_else(|| suggest::did_you_mean(word, known));
    Diagnostic::error("unknown-word", format!("`{what}` cannot be `{word}`")).at(place, "not known here").help(help)
}

pub(crate) fn script_and_build(place: Location) -> Diagnostic {
    Diagnostic::error("bad-value", "a step has a script or something to build, not both".to_owned())
        .at(place, "beside `run`")
        .help("make two steps of it, or two jobs where `build` asks for a build")
}

pub(crate) fn installable_twice(place: Location, name: &str) -> Diagnostic {
    Diagnostic::error("bad-value", format!("two installables of this step are called `{name}`"))
        .at(place, "the second")
        .help("an installable hands its store path on under the last part of its attribute: build one of them in another step")
}

pub(crate) fn bad_installable(place: Location, text: &str) -> Diagnostic {
    Diagnostic::error("bad-value", format!("`{text}` is no installable"))
        .at(place, "not understood")
        .help("write a flake's reference and an attribute, such as `.#app`")
}

pub(crate) fn bad_value(code: &'static str, place: Location, message: String, label: &str, help: &str) -> Diagnostic {
    Diagnostic::error(code, message).at(place, label).help(help)
}

pub(crate) fn bad_pattern(place: Location, kind: &str, pattern: &str, cause: &str) -> Diagnostic {
    let help = match kind {
        "regex" => "regexes are those of the Rust crate `regex`; they match the whole name",
        _ => "globs are relative to the repository's root; `*` stays in one directory, `**` does not",
    };
    Diagnostic::error("bad-pattern", format!("`{pattern}` is no {kind}: {cause}")).at(place, cause).help(help)
}

/// `meant` is the regex that says what `pattern` says as a glob.
pub(crate) fn glob_as_regex(place: Location, pattern: &str, cause: &str, meant: &str) -> Diagnostic {
    bad_pattern(place, "regex", pattern, cause).help(format!(
        "this is read as a regex, which matches the whole name: for anything in place of `*` write `{meant}`"
    ))
}

/// `meant` is the regex that says what `pattern` says as a glob.
pub(crate) fn glob_like(place: Location, pattern: &str, meant: &str) -> Diagnostic {
    Diagnostic::warning("glob-like", format!("`{pattern}` looks like a glob, and is read as a regex"))
        .at(place, "`*` repeats the character before it, and stands for nothing else")
        .help(format!(
            "for anything in place of `*` write `{meant}`; if the character is to be repeated, put it in brackets: `[x]*`"
        ))
}

/// `letter` is the one by which the path looks like a glob.
pub(crate) fn cache_path_like_glob(place: Location, path: &str, letter: char) -> Diagnostic {
    Diagnostic::warning("cache-path-like-glob", format!("`{path}` looks like a glob, and paths of caches are none"))
        .at(place, format!("`{letter}` stands for itself"))
        .help("name the directory or file itself; a directory is kept with all that is in it")
}

pub(crate) fn expression(place: Location, error: &expression::Error, help: String) -> Diagnostic {
    Diagnostic::error("expression", format!("the expression is wrong: {}", error.cause)).at(place, "here").help(help)
}

pub(crate) fn always_true(place: Location) -> Diagnostic {
    Diagnostic::error("always-true", "a condition with text around `${{ }}` is a string, and always true")
        .at(place, "this would hold whatever the expression says")
        .help("write the whole condition inside one `${{ }}`, or without it")
}

pub(crate) fn filled_badly(place: Location, value: &str, cause: &str) -> Diagnostic {
    Diagnostic::error("filled-badly", format!("with its `${{{{ }}}}` filled in this is `{value}`, and {cause}"))
        .at(place, "filled in while the graph is made")
        .help("give it other values: they come from the matrix, the parameters, the event or `env`")
}

pub(crate) fn not_known_yet(place: Location) -> Diagnostic {
    Diagnostic::error("not-known-yet", "this must be known while the graph is made, and reads what is known later")
        .at(place, "a variable of `env` whose own value waits for the job to start")
        .help("read the matrix, the parameters or the event here, or a variable with a plain value")
}

/// The engine says the same of what it meets; see its `contexts.rs`.
pub(crate) fn variable_not_known_yet(place: Location, name: &str, written: &str) -> Diagnostic {
    let message =
        format!("`env.{name}` has expressions of its own, which only a worker evaluates, and none runs the job yet");
    let help = write_instead(name, written);
    Diagnostic::error("not-known-yet", message).at(place, "not known when this is evaluated").help(help)
}

pub(crate) fn variables_not_known_yet(place: Location, unfinished: &str) -> Diagnostic {
    let message = format!(
        "any variable may be read here, and `env.{unfinished}` has expressions of its own, which only a worker evaluates, and none runs \
         the job yet"
    );
    Diagnostic::error("not-known-yet", message)
        .at(place, "not all are known when this is evaluated")
        .help("name the variable that is meant, as `env.NAME`")
}

/// The engine says the same of what it meets; see its `contexts.rs`.
pub(crate) fn variable_unset(place: Location, name: &str, known: &[&str]) -> Diagnostic {
    let message =
        format!("no `env` sets `{name}`, and what a worker has of its own is not known before it runs the job");
    let help = match (graph::text::instead_of_variable(name), suggest::nearest(name, known.iter().copied())) {
        (Some(context), _) => format!("read `{context}`"),
        (None, Some(nearest)) => format!("did you mean `env.{nearest}`? Letter case counts"),
        (None, None) => "set it in the `env` of the job or of the pipeline".to_owned(),
    };
    Diagnostic::error("not-known-yet", message).at(place, "not known when this is evaluated").help(help)
}

pub(crate) fn variable_covered(place: Location, name: &str, written: &str) -> Diagnostic {
    let message = format!(
        "`env.{name}` of the pipeline has expressions, which only a worker evaluates, and the job's own `{name}` takes its place there"
    );
    let help = format!("{}; or give the job's variable a name of its own", write_instead(name, written));
    Diagnostic::error("not-known-yet", message).at(place, "the pipeline's is not known here").help(help)
}

/// How to do without a variable whose text has expressions.
fn write_instead(name: &str, written: &str) -> String {
    match expression::Template::parse(written) {
        Ok(template) if template.single().is_some() => format!("write them here: `{written}` instead of `env.{name}`"),
        _ => format!("write them here: the variable is `{written}`"),
    }
}

/// The worker says the same of what it meets; see its `environment.rs`.
pub(crate) fn set_beside(place: Location, name: &str, read: &str) -> Diagnostic {
    let message = match name == read {
        true => format!("the variable `{name}` reads itself, and no `env` around it sets it"),
        false => format!("the variable `{name}` reads `env.{read}`, which is set beside it"),
    };
    Diagnostic::error("set-beside", message).at(place, "variables of one `env` do not see each other").help(
        "write its value here; or set it in an `env` around this one: a step's sees the job's, a job's the pipeline's",
    )
}

pub(crate) fn artifact_twice(place: Location, name: &str) -> Diagnostic {
    Diagnostic::error("artifact-twice", format!("two artifacts of this job have the name `{name}`"))
        .at(place, "the second one")
        .help("give them different names, or one name with both globs")
}

pub(crate) fn secret_not_evaluated(place: Location) -> Diagnostic {
    Diagnostic::error("not-evaluated", "`secrets` holds `${{ }}`, which is not evaluated there")
        .at(place, "this would stand as it is")
        .help("write the names: which job gets which secret must not depend on a value")
}

pub(crate) fn not_evaluated(place: Location, what: &str) -> Diagnostic {
    Diagnostic::error("not-evaluated", format!("`{what}` holds `${{{{ }}}}`, which is not evaluated there"))
        .at(place, "this would stand as it is")
        .help("write the value itself, or make it an environment variable of the job")
}

pub(crate) fn matrix_not_evaluated(place: Location, axis: &str) -> Diagnostic {
    Diagnostic::error(
        "not-evaluated",
        format!("`{axis}` holds `${{{{ }}}}` inside its list, which is not evaluated there"),
    )
    .at(place, "this would stand as it is")
    .help(format!("let one expression give the whole list: `{axis}: \"${{{{ fromJSON(…) }}}}\"`"))
}

pub(crate) fn status_function(place: Location) -> Diagnostic {
    Diagnostic::warning("status-function", "status functions in a job's `if` cannot make it run after a failure")
        .at(place, "the job's needs decide first")
        .help("say which ending is waited for: `needs: [{ job: test, on: finished }]`, or `on: failure`")
}

pub(crate) fn unknown_reference(place: Location, kind: &str, name: &str, known: &[&str], help: &str) -> Diagnostic {
    let known = suggest::nearest(name, known.iter().copied());
    let help = known.map_or_else(|| help.to_owned(), |nearest| format!("did you mean `{nearest}`?"));
    Diagnostic::error("unknown-reference", format!("`{name}` is no {kind}")).at(place, "not known here").help(help)
}

pub(crate) fn unknown_property(place: Location, of: &str, name: &str, known: &[&str]) -> Diagnostic {
    Diagnostic::error("unknown-reference", format!("`{name}` is no property of {of}"))
        .at(place, "this is always empty")
        .help(suggest::did_you_mean(name, known))
}

/// `known` are the texts that it may be, each of them a `kind`: "result".
pub(crate) fn never_equal(
    place: Location,
    what: &str,
    by: Comparison,
    word: &str,
    kind: &str,
    known: &[&str],
) -> Diagnostic {
    // GitHub's words.
    let meant = match word.to_ascii_lowercase().as_str() {
        "success" => "passed",
        "failure" => "failed",
        "cancelled" => "canceled",
        "workflow_dispatch" => "manual",
        "repository_dispatch" => "api",
        "pull_request_target" => "pull_request",
        _ => "",
    };
    let help = match known.contains(&meant) {
        true => format!("did you mean `{meant}`?"),
        false => suggest::did_you_mean(word, known),
    };
    let (never, label) = match by {
        Comparison::Whole => ("is never", format!("no {kind} has this name")),
        Comparison::Part => ("never contains", format!("no {kind} has this in its name")),
    };
    Diagnostic::warning("never-equal", format!("`{what}` {never} `{word}`")).at(place, label).help(help)
}

pub(crate) fn boolean_as_text(place: Location, what: &str, word: &str) -> Diagnostic {
    let help = match word.to_ascii_lowercase().as_str() {
        truth @ ("true" | "false") => format!("write `{truth}` without quotes"),
        _ => "compare with `true` or `false`, without quotes".to_owned(),
    };
    Diagnostic::warning("never-equal", format!("`{what}` is a boolean, and never equal to the text `{word}`"))
        .at(place, "a text")
        .help(help)
}

pub(crate) fn unknown_need(
    place: Location,
    job: &str,
    need: &str,
    nearest: Option<&str>,
    known: &[&str],
) -> Diagnostic {
    let help = match nearest {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => suggest::did_you_mean(need, known),
    };
    Diagnostic::error("unknown-need", format!("job `{job}` needs `{need}`, which does not exist"))
        .at(place, "no job has this name")
        .help(help)
}

pub(crate) fn needed_twice(place: Location, job: &str, need: &str) -> Diagnostic {
    Diagnostic::error("needed-twice", format!("job `{job}` needs `{need}` twice, with different endings"))
        .at(place, "the second time")
        .help("keep one of them; `finished` holds for every ending")
}

pub(crate) fn job_twice(place: Location, first: Location, job: &str) -> Diagnostic {
    Diagnostic::error("duplicate-job", format!("job `{job}` is defined twice"))
        .at(place, "the second definition")
        .related(first, "the first one")
        .help("rename one of them, or let the one in the later file say `override: true`")
}

pub(crate) fn replaced_by_later_file(place: Location, replaced: Location, section: &str, key: &str) -> Diagnostic {
    let what = if key.is_empty() { section.to_owned() } else { format!("{section}.{key}") };
    let message = format!("two files say different things in `{what}`, and the later one holds for the jobs of both");
    Diagnostic::warning("replaced-by-later-file", message)
        .at(place, "this holds")
        .related(replaced, "this is not read")
        .help("say it in one file alone; what holds for one job stands in that job")
}

pub(crate) fn group_and_job(place: Location, job: Location, member: &str, group: &str) -> Diagnostic {
    Diagnostic::error("group-and-job", format!("`{group}` is a job, and the group of `{member}`"))
        .at(place, "a need of the group would mean both")
        .related(job, "the job")
        .help("rename one of them")
}

pub(crate) fn overrides_nothing(place: Location, job: &str) -> Diagnostic {
    Diagnostic::warning("overrides-nothing", format!("job `{job}` says `override`, but no file before defines it"))
        .at(place, "nothing to replace")
        .help("remove `override`")
}

pub(crate) fn nothing_to_run(place: Location, job: &str) -> Diagnostic {
    Diagnostic::error("nothing-to-run", format!("job `{job}` has nothing to run"))
        .at(place, "neither `run` nor `gate`")
        .help("add `run`; `run: []` makes a job that only joins others")
}

pub(crate) fn unnamed_plugin(place: Location, job: &str, plugin: &str, named: &[&str]) -> Diagnostic {
    let help = match suggest::nearest(plugin, named.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => match suggest::nearest(plugin, BROUGHT_PLUGINS) {
            Some(near) if near != plugin => {
                format!("did you mean `{near}`? Then name it at the top of the file: `plugins: [{near}]`")
            }
            _ => format!("name it at the top of the file: `plugins: [{plugin}]`"),
        },
    };
    Diagnostic::error(
        "unknown-plugin",
        format!("job `{job}` uses the plugin `{plugin}`, which the pipeline does not name"),
    )
    .at(place, "not among `plugins`")
    .help(help)
}

pub(crate) fn plugin_not_asked(place: Location, job: &str, plugin: &str) -> Diagnostic {
    let message = format!("job `{job}` is not complete: the plugin `{plugin}` was not asked");
    Diagnostic::error("plugin-not-asked", message)
        .at(place, "a job of a plugin")
        .help("`ropewalk run`, `plan` and `check` build plugins and ask them; a program beside this file asks those that it takes with `ci.plugin(…)`")
}

pub(crate) fn with_without_use(place: Location, job: &str) -> Diagnostic {
    Diagnostic::error("with-without-use", format!("job `{job}` has options but uses no plugin"))
        .at(place, "options of what?")
        .help("say whose they are: `use: cargo.clippy`")
}

pub(crate) fn too_many_legs(place: Location, job: &str, legs_max: usize) -> Diagnostic {
    Diagnostic::error("too-many-legs", format!("the matrix of job `{job}` has more than {legs_max} legs"))
        .at(place, "too many combinations")
        .help("leave some out by `exclude`, or let one job do several combinations")
}

pub(crate) fn same_leg(place: Location, leg: &str) -> Diagnostic {
    Diagnostic::error("same-leg", format!("two legs of this matrix have the name `{leg}`"))
        .at(place, "names are made of the axes' values in order")
        .help("make the values different, or leave the repeated one out")
}

pub(crate) fn no_legs(place: Location, job: &str) -> Diagnostic {
    Diagnostic::error("no-legs", format!("the matrix of job `{job}` has no legs"))
        .at(place, "no combination is left")
        .help("give every axis a value; to skip the job, use `when` or `if`")
}

pub(crate) fn matrix_of_later(place: Location, job: &str) -> Diagnostic {
    Diagnostic::error("matrix-order", format!("this matrix reads `{job}`, which has a matrix itself and stands later"))
        .at(place, "its legs are not known yet")
        .help(format!("write `{job}` before this job"))
}

pub(crate) fn cleanup_never_cleans(place: Location, job: &str, needed: &str) -> Diagnostic {
    let message = format!("job `{job}` is for cleanup, and is skipped if `{needed}` fails or is canceled");
    Diagnostic::warning("cleanup-skipped", message)
        .at(place, "its needs ask for a success")
        .help(format!("wait for any ending: `needs: [{{ job: {needed}, on: finished }}]`"))
}

pub(crate) fn cleanup_of_failure_alone(place: Location, job: &str, needed: &str) -> Diagnostic {
    let result = format!("{}.result", read_need(needed));
    let message = format!("job `{job}` is for cleanup, and is skipped if `{needed}` is canceled");
    Diagnostic::warning("cleanup-skipped", message).at(place, "its needs ask for a failure").help(format!(
        "wait for any ending: `needs: [{{ job: {needed}, on: finished }}]` with `if: {result} == 'failed' || {result} == 'canceled'`"
    ))
}

/// What the `on` of files starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Started {
    /// The whole pipeline.
    Pipeline,
    /// What the files say, beside a program whose hooks may have an `on` of their own.
    Files,
}

impl Started {
    fn spoken(self) -> &'static str {
        match self {
            Started::Pipeline => "this pipeline",
            Started::Files => "what the files say",
        }
    }
}

pub(crate) fn lists_no_event(place: Location, started: Started) -> Diagnostic {
    let started = started.spoken();
    Diagnostic::warning("never-starts", format!("`on` lists no event: nothing starts {started}"))
        .at(place, "nothing is listed")
        .help(format!(
            "list events, such as `on: [push, tag]`; or remove `on`: without it every event starts {started}"
        ))
}

/// `kind` is a key of `on`.
pub(crate) fn fits_no_event(place: Location, kind: &str, started: Started) -> Diagnostic {
    let help = match kind {
        "schedule" => "write points in time: `schedule: [{ cron: \"0 4 * * *\" }]`; or remove `schedule`".to_owned(),
        _ => format!("write the regexes of which one must fit; without them, as `{kind}: {{}}`, any name fits"),
    };
    let started = started.spoken();
    Diagnostic::warning("never-starts", format!("an empty list under `{kind}`: no such event starts {started}"))
        .at(place, "nothing to fit")
        .help(help)
}

/// `kind` is a key of `on`.
pub(crate) fn fits_no_name(place: Location, kind: &str) -> Diagnostic {
    Diagnostic::warning(
        "never-starts",
        format!("an empty regex under `{kind}` fits no name: it must match the whole of it"),
    )
    .at(place, "no name is empty")
    .help(format!("write a regex, such as `main` or `release/.*`; without any, as `{kind}: {{}}`, any name fits"))
}

pub(crate) fn image_of_whole_project(place: Location, job: &str) -> Diagnostic {
    whole_tree(place, job, "the build of its image sees the whole project")
        .help("put the Dockerfile and what it copies into a folder of their own, and say `context: FOLDER`; or say `inputs: [\"**\"]`")
}

pub(crate) fn shell_of_whole_checkout(place: Location, job: &str) -> Diagnostic {
    whole_tree(place, job, "its flake sees the whole repository")
        .help("put the flake into a folder of its own, and say `nix: path:FOLDER`; or say `inputs: [\"**\"]`")
}

fn whole_tree(place: Location, job: &str, cause: &str) -> Diagnostic {
    let message = format!("a change in any file runs job `{job}` again, whatever its `inputs` say: {cause}");
    Diagnostic::warning("inputs-of-environment", message).at(place, "made of any file")
}

pub(crate) fn never_holds(place: Location, job: &str, condition: &str) -> Diagnostic {
    Diagnostic::warning(
        "never-holds",
        format!("job `{job}` never runs: `{condition}` holds for no event that starts it"),
    )
    .at(place, "never true here")
    .help("look at the kinds of events under `on`, and at the parameters; or remove the job")
}

pub(crate) fn param_of_another_type(place: Location, name: &str, takes: &str, help: &str) -> Diagnostic {
    Diagnostic::warning("never-holds", format!("the parameter `{name}` {takes}, and never has this value"))
        .at(place, "never true here")
        .help(help)
}

pub(crate) fn globs_only_take_away(place: Location) -> Diagnostic {
    Diagnostic::warning("never-holds", "these globs hold for no file: all of them only take away")
        .at(place, "never true here")
        .help("say first what they take away from: `changed: [\"**\", \"!docs/**\"]`")
}

pub(crate) fn empty_condition(place: Location, key: &str) -> Diagnostic {
    Diagnostic::warning("never-holds", format!("`{key}` is an empty list, and holds for no event"))
        .at(place, "nothing to hold")
        .help(format!("write what may hold, or remove `{key}`"))
}

pub(crate) fn never_fails_before(place: Location, job: &str, needed: &str, barrier: &str) -> Diagnostic {
    let message = format!(
        "job `{job}` never runs: it waits for a failure of `{needed}`, which would let nothing pass {}",
        spoken_barrier(barrier)
    );
    Diagnostic::warning("never-runs", message)
        .at(place, "this job stands behind that")
        .help(format!("let `{job}` stand where it does not wait for that: {}", beside(barrier)))
}

pub(crate) fn failure_is_allowed(place: Location, job: &str, needed: &str) -> Diagnostic {
    let id = needed.split_once('/').map_or(needed, |(id, _)| id);
    let read = read_need(needed);
    let message = format!("job `{job}` never runs: it waits for a failure of `{needed}`, and `{id}` allows failures");
    Diagnostic::warning("never-runs", message).at(place, "a failure that is allowed counts as passed here").help(format!(
        "take `needs: [{{ job: {needed}, on: finished }}]` with `if: {read}.result == 'failed'`; or remove the `allow_failure` of `{id}`"
    ))
}

/// How an expression reads a job that is needed, by its id or as a leg.
fn read_need(needed: &str) -> String {
    if needed.contains('/') { format!("needs['{needed}']") } else { format!("needs.{needed}") }
}

pub(crate) fn cleanup_behind_barrier(place: Location, job: &str, barrier: &str) -> Diagnostic {
    let message = format!(
        "job `{job}` is for cleanup, and is skipped if a job before {} fails or is canceled",
        spoken_barrier(barrier)
    );
    Diagnostic::warning("cleanup-skipped", message).at(place, "what it waits for must have passed").help(format!(
        "let it wait for any ending, `needs: [{{ job: JOB, on: finished }}]`, and stand apart: {}",
        beside(barrier)
    ))
}

/// A barrier by its name, as people say it.
fn spoken_barrier(name: &str) -> String {
    match name.split_once(':') {
        Some(("stage", stage)) => format!("the end of the stage `{stage}`"),
        Some((kind, number)) => format!("`{kind}` {number} of the list"),
        None => format!("`{name}`"),
    }
}

/// Where a job stands that shall not wait for this barrier.
fn beside(barrier: &str) -> String {
    match barrier.split_once(':') {
        Some(("stage", _)) => "without `stage`".to_owned(),
        Some((kind, _)) => format!("before the `{kind}`"),
        None => "before it".to_owned(),
    }
}

pub(crate) fn every_leg_must_fail(place: Location, job: &str, needed: &str) -> Diagnostic {
    Diagnostic::warning("every-leg", format!("job `{job}` runs only if every leg of `{needed}` fails"))
        .at(place, "a need of all legs")
        .help(format!(
            "to run if any of them fails: `needs: [{{ job: {needed}, on: finished }}]` with `if: needs.{needed}.result == 'failed'`"
        ))
}

pub(crate) fn unused_param(place: Location, name: &str) -> Diagnostic {
    Diagnostic::warning("unused-param", format!("nothing reads the parameter `{name}`"))
        .at(place, "declared here")
        .help(format!("read it by `${{{{ params.{name} }}}}`, or remove it"))
}

pub(crate) fn unknown_output(place: Location, job: &str, output: &str, known: &[&str]) -> Diagnostic {
    let help = match suggest::nearest(output, known.iter().copied()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("only what a job lists is handed on: add `{output}` to the `outputs` of `{job}`"),
    };
    Diagnostic::warning("unknown-output", format!("job `{job}` hands on no output `{output}`"))
        .at(place, "this is always empty")
        .help(help)
}

pub(crate) fn excludes_nothing(place: Location) -> Diagnostic {
    Diagnostic::warning("excludes-nothing", "this `exclude` fits no combination")
        .at(place, "nothing has these values")
        .help("remove it, or repair its values; `1` and `\"1\"` differ")
}

pub(crate) fn exclude_by_no_axis(place: Location, key: &str, axes: &[&str]) -> Diagnostic {
    Diagnostic::error("bad-matrix", format!("an `exclude` has `{key}`, which is no axis of this matrix"))
        .at(place, "not usable as a matrix")
        .help(suggest::did_you_mean(key, axes))
}

pub(crate) fn rounded_number(place: Location, written: &str, value: &str) -> Diagnostic {
    let label =
        if written.contains('.') && written.ends_with('0') { "zeros at the end are lost" } else { "digits are lost" };
    Diagnostic::warning("rounded-number", format!("`{written}` is a number and becomes `{value}`"))
        .at(place, label)
        .help(format!("write \"{written}\" in quotes"))
}

pub(crate) fn cannot_paste(place: Location, why: &str, variable: &str) -> Diagnostic {
    Diagnostic::error(
        "unsafe-expression",
        format!("the value of this `${{{{ }}}}` cannot be handed over safely: {why}"),
    )
    .at(place, "it would have to be pasted into the script")
    .help(format!("set it as a variable, `env: {{ {variable}: \"${{{{ … }}}}\" }}`, and read that in the script"))
}

pub(crate) fn bad_param(name: &str, takes: &str, place: Option<Location>) -> Diagnostic {
    let fault = Diagnostic::error("bad-param", format!("the parameter `{name}` {takes}"))
        .help(format!("set it by `--param {name}=VALUE`"));
    match place {
        Some(place) => fault.at(place, "declared here"),
        None => fault,
    }
}

pub(crate) fn unknown_param(name: &str, known: &[&str]) -> Diagnostic {
    Diagnostic::error("unknown-param", format!("the pipeline has no parameter `{name}`"))
        .help(suggest::did_you_mean(name, known))
}

pub(crate) fn too_many_edges(place: Location, job: &str, edges_max: usize) -> Diagnostic {
    Diagnostic::error(
        "too-many-edges",
        format!("with the needs of job `{job}` the graph has more than {edges_max} edges"),
    )
    .at(place, "every leg needs every leg")
    .help("put a job between that needs all of them, and need that one; or use stages")
}

/// A record's name as people say it.
fn spoken(name: &str) -> String {
    match name {
        "pipeline" => "the pipeline".to_owned(),
        "job" | "step" | "need" | "field" => format!("a {name}"),
        "listed_job" => "a job or barrier".to_owned(),
        _ => format!("`{name}`"),
    }
}
