//! `ropewalk shell`: opens the kept workspace of a job that ended, with the variables and in the directory of its last step, or of another
//! one. Nothing runs again; secrets are not there unless they are given anew.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use graph::outcome::{JobEnd, failures};
use graph::{AttemptNumber, BuildId, Graph, JobName, Timestamp};
use store::audit::AuditEntry;
use store::rows::JobRow;
use worker::entry::{Entry, EntryError, Moment};

mod there;

use super::Stop;
use crate::args::Shell;
use crate::columns::one_line;
use crate::local::clock::now;
use crate::local::secrets::SecretSource;
use crate::places::Places;
use crate::project::Project;
use crate::whereabouts::quoted;
use crate::words::{self, LeftBehind};

/// Runs the command; its exit code is the shell's.
///
/// # Errors
/// If nothing is kept of such a job.
pub fn run(arguments: &Shell, project: &Project) -> Result<u8, Stop> {
    if let Some(there) = arguments.at.there(project)? {
        return there::run(arguments, &there);
    }
    let places = Places::kept(project)?;
    let build = places.build(&arguments.build)?;
    let (job, moment) = job_and_moment(arguments.job.as_deref(), |job| match job {
        Some(job) => places.job(build, job),
        None => first_failed(build, places.graph_of(build)?.as_deref(), &places.jobs_of(build)?),
    })?;
    let (build, attempt) = producer(&places, build, &job)?;
    let secrets = given(&arguments.secrets)?;
    let names: BTreeSet<String> = secrets.keys().cloned().collect();
    let mut entry = match Entry::open(&places.data, build, attempt, &moment, secrets) {
        Ok(entry) => entry,
        Err(EntryError::Gone) => return Err(nothing_kept(&places, (build, attempt), &job, &moment)?),
        Err(error) => return Err(refused(&job, build, error)),
    };
    entry.wall_off(crate::project::walled_off(&places.data));
    let withheld: Vec<&str> = entry.secrets().difference(&names).map(String::as_str).collect();
    let withheld = withheld_note(&withheld);
    if !names.is_empty() {
        record(&places, build, &job, entry.when(), &Vec::from_iter(names))?;
    }
    if let Ok(terminal) = std::env::var("TERM") {
        entry.set("TERM", &terminal);
    }
    let (program, rest) = match arguments.command.split_first() {
        Some((program, rest)) => (program.clone(), rest),
        None => (entry.shell(std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned())), &[][..]),
    };
    if arguments.command.is_empty() {
        eprintln!("{}", greeting(&entry, build, &job));
        adorn(&mut entry, &program, &in_prompt(&format!("{build}/{job}")));
    }
    if let Some(withheld) = withheld {
        eprintln!("{withheld}");
    }
    // A greeting has said it.
    if let Some(hidden) = entry.hidden().filter(|_| !arguments.command.is_empty()) {
        eprintln!("{}", crate::words::harmless(hidden));
    }
    let rest: Vec<OsString> = rest.iter().map(OsString::from).collect();
    let command = entry.command(program.as_ref(), &rest).map_err(|error| refused(&job, build, error))?;
    wait(command, &program)
}

/// The job and the moment that `JOB[@STEP]` names. `find` finds a job by name, or the one that is meant if none is given. A job's own name
/// may hold `@`, and so may a step's: the shortest name of a job that there is counts.
///
/// # Errors
/// Those of `find`.
fn job_and_moment(
    text: Option<&str>,
    find: impl Fn(Option<&str>) -> Result<JobName, Stop>,
) -> Result<(JobName, Moment), Stop> {
    let Some(text) = text else { return Ok((find(None)?, Moment::End)) };
    if let Some(step) = text.strip_prefix('@') {
        return Ok((find(None)?, Moment::read(step)));
    }
    let whole = find(Some(text));
    let parts = text.match_indices('@').map(|(at, _)| (&text[..at], &text[at + 1..]));
    let mut refusal = None;
    if whole.is_err() {
        for (job, step) in parts {
            match find(Some(job)) {
                Ok(job) => return Ok((job, Moment::read(step))),
                Err(stop) => drop(refusal.get_or_insert(stop)),
            }
        }
    }
    match (whole, refusal) {
        (Ok(job), _) => Ok((job, Moment::End)),
        // Of a name without the step it can be said which is nearest.
        (Err(_), Some(refusal)) => Err(refusal),
        (Err(refusal), None) => Err(refusal),
    }
}

fn refused(job: &JobName, build: BuildId, error: EntryError) -> Stop {
    Stop::wrong(format!("`{job}` in build {build}: {}", Stop::of(&error).message))
}

/// The values of secrets that are given anew, from the environment.
fn given(names: &[String]) -> Result<BTreeMap<String, String>, Stop> {
    SecretSource::default().values(names).map_err(|missing| {
        Stop::wrong(format!("no value for the secrets {}: export them", crate::columns::one_line(&missing.join(", "))))
    })
}

/// Says which secrets the steps had and the shell has not; `None` if it has all.
fn withheld_note(names: &[&str]) -> Option<String> {
    let flags: Vec<String> = names.iter().map(|name| format!("--secret {name}")).collect();
    (!names.is_empty())
        .then(|| format!("not given: the job's secrets {}; {} gives them anew", names.join(", "), flags.join(" ")))
}

/// Notes who was given which secrets.
fn record(places: &Places, build: BuildId, job: &JobName, when: &str, names: &[String]) -> Result<(), Stop> {
    let entry = AuditEntry {
        at: now(),
        who: std::env::var("USER").unwrap_or_else(|_| format!("user {}", rustix::process::getuid().as_raw())),
        verb: "shell".to_owned(),
        target: format!("build {build}, job {job}"),
        detail: format!("{when}; secrets {}", names.join(", ")),
        ..AuditEntry::default()
    };
    places.store.append_audit(&entry)?;
    Ok(())
}

/// What somebody reads who comes in.
fn greeting(entry: &Entry, build: BuildId, job: &JobName) -> String {
    let when = entry.when();
    let goes = if entry.is_lasting() { "" } else { "; what you change goes when you leave" };
    format!(
        "the files of `{job}` in build {build}, {when}; nothing here reaches your own tree{goes}; `exit` leaves\n\
         to run it again: ropewalk retry {build} --failed"
    )
}

/// Makes an interactive shell show where it is.
fn adorn(entry: &mut Entry, program: &str, place: &str) {
    // A person's own settings win over PS1: bash is told where it is once they have been read.
    if Path::new(program).file_name().is_some_and(|name| name == "bash") {
        entry.set("PROMPT_COMMAND", &format!("PS1=\"[{place}] $PS1\"; unset PROMPT_COMMAND"));
    }
    entry.set("PS1", &format!("{place} $ "));
}

/// A name as part of a prompt, in which shells would run what stands in `$( )`: what may mean something to one is `?`.
fn in_prompt(name: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "-_./:@+=, ".contains(letter);
    name.chars().map(|letter| if is_plain(letter) { letter } else { '?' }).collect()
}

fn wait(mut command: Command, program: &str) -> Result<u8, Stop> {
    let status = command
        .status()
        .map_err(|error| Stop::infra(format!("could not open the workspace with `{}`: {error}", one_line(program))))?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Which of the jobs of `build` is meant by one that failed: the one that a person should look at first.
///
/// # Errors
/// None has failed.
fn first_failed(build: BuildId, graph: Option<&Graph>, jobs: &[JobRow]) -> Result<JobName, Stop> {
    let ends = jobs.iter().filter_map(|row| {
        Some(JobEnd {
            name: &row.name,
            outcome: row.outcome.as_ref()?,
            at: row.finished.unwrap_or(Timestamp(i64::MAX)),
        })
    });
    let first = failures(graph, ends).first().map(|end| end.name.clone());
    first.ok_or_else(|| {
        Stop::wrong(format!("no job of build {build} has failed: name one, as in `ropewalk shell {build} JOB`"))
    })
}

/// The build and attempt whose files stand for the job: its own last attempt, or the one it was reused from.
fn producer(places: &Places, build: BuildId, job: &JobName) -> Result<(BuildId, AttemptNumber), Stop> {
    if let Some(attempt) = places.store.attempts(build, Some(job))?.pop() {
        return match attempt.ended {
            Some(_) => Ok((build, attempt.attempt)),
            None if places.is_run(build)? => {
                let name = quoted(job.as_str());
                Err(Stop::wrong(format!("`{job}` is still running: `ropewalk logs {build} {name} --follow` shows it")))
            }
            None => Ok((build, attempt.attempt)),
        };
    }
    let row = places.jobs_of(build)?.into_iter().find(|row| row.name == *job);
    let has_ended = row.as_ref().is_some_and(|row| row.outcome.is_some());
    if let Some(reused) = row.and_then(|row| row.reused) {
        return Ok((reused.build, reused.attempt));
    }
    let what = if has_ended { "did not run" } else { "has not begun" };
    Err(Stop::wrong(format!("`{job}` {what} in build {build}; `ropewalk show {build}` says why")))
}

fn nothing_kept(
    places: &Places,
    (build, attempt): (BuildId, AttemptNumber),
    job: &JobName,
    moment: &Moment,
) -> Result<Stop, Stop> {
    let graph = places.store.graph(build)?;
    let described = graph.as_ref().and_then(|graph| graph.jobs.get(job)).map(|job| &**job);
    let reports = places.store.reports(build, Some(job))?;
    let report = reports.iter().find(|(number, _)| *number == attempt).map(|(_, report)| report);
    Ok(Stop::wrong(match (words::left_behind(described, report), moment) {
        (LeftBehind::Nothing, _) if report.is_some() => {
            let told = report.map_or_else(String::new, |report| words::report(report, described));
            format!("no step of `{job}` began in build {build}, so it left nothing: {told}")
        }
        (LeftBehind::InTree, Moment::End) => {
            format!("`{job}` worked in your tree itself (workspace: in_place): look there")
        }
        (LeftBehind::InTree, _) => format!(
            "`{job}` worked in your tree itself (workspace: in_place): of its steps nothing is kept, and its end is your tree"
        ),
        _ => format!(
            "the workspace of `{job}` in build {build} is not kept any more; `ropewalk retry {build}` runs it again"
        ),
    }))
}

#[cfg(test)]
mod tests {
    use super::in_prompt;

    #[test]
    fn a_prompt_runs_nothing() {
        assert_eq!(in_prompt("1/m/a b-1.80"), "1/m/a b-1.80");
        assert_eq!(in_prompt(r#"1/m/$(touch x)`y`\w"!"#), "1/m/??touch x??y??w??");
    }
}
