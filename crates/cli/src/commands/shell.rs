//! `ropewalk shell`: opens the kept workspace of a job that ended, with the variables and in the directory of its last
//! step. Nothing runs again; secrets are not there.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use graph::{AttemptNumber, BuildId, Failure, JobName, Outcome, WorkspaceKind};
use worker::LeftBehind;
use worker::workspace::Workspace;

use super::Stop;
use crate::args::Shell;
use crate::columns::one_line;
use crate::places::Places;
use crate::project::Project;

/// Runs the command; its exit code is the shell's.
///
/// # Errors
/// If nothing is kept of such a job.
pub fn run(arguments: &Shell, project: &Project) -> Result<u8, Stop> {
    arguments.at.only_here(
        "shell",
        "`ropewalk logs BUILD JOB` shows what a job there printed, and `ropewalk run --job JOB` runs it here",
    )?;
    let places = Places::kept(project)?;
    let build = places.build(&arguments.build)?;
    let job = match &arguments.job {
        Some(job) => places.job(build, job)?,
        None => first_failed(&places, build)?,
    };
    let (build, attempt) = producer(&places, build, &job)?;
    let directory = worker::workspace_directory(&places.data, build, attempt);
    if !directory.is_dir() {
        return Err(nothing_kept(&places, build, &job)?);
    }
    let workspace = Workspace::reopen(&directory).map_err(|error| Stop::of(&error))?;
    let left = left_behind(&places, build, attempt);
    let (program, rest) = match arguments.command.split_first() {
        Some((program, rest)) => (program.clone(), rest),
        None => (std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned()), &[][..]),
    };
    let mut command = match &left {
        // The workspace's own command begins at its root: the step's directory is entered from there.
        Some(left) => {
            let mut command = workspace.command("/bin/sh");
            command.args(["-c", "cd \"$0\" || exit; exec \"$@\""]).arg(&left.directory).arg(&program);
            command.env_clear().envs(&left.variables);
            if let Some(terminal) = std::env::var_os("TERM") {
                command.env("TERM", terminal);
            }
            command
        }
        None => workspace.command(&program),
    };
    command.args(rest);
    if arguments.command.is_empty() {
        eprintln!(
            "the files of `{job}` in build {build}, as it left them; nothing here reaches your own tree; `exit` leaves\n\
             to run it again: ropewalk retry {build} --failed"
        );
        let place = format!("{build}/{job}");
        // A person's own settings win over PS1: bash is told where it is once they have been read.
        if Path::new(&program).file_name().is_some_and(|name| name == "bash") {
            command.env("PROMPT_COMMAND", format!("PS1=\"[{place}] $PS1\"; unset PROMPT_COMMAND"));
        }
        command.env("PS1", format!("{place} $ "));
    }
    wait(command, &program)
}

fn wait(mut command: Command, program: &str) -> Result<u8, Stop> {
    let status = command
        .status()
        .map_err(|error| Stop::infra(format!("could not open the workspace with `{}`: {error}", one_line(program))))?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// The first job of `build` that failed, in the pipeline's order.
fn first_failed(places: &Places, build: BuildId) -> Result<JobName, Stop> {
    let graph = places.store.graph(build)?;
    let order = |job: &JobName| graph.as_ref().and_then(|graph| graph.jobs.get(job)).map_or(u32::MAX, |job| job.order);
    let failed =
        |outcome: &Outcome| matches!(outcome, Outcome::Failed(failure) if !matches!(failure, Failure::Canceled { .. }));
    let mut jobs: Vec<JobName> = Vec::new();
    for attempt in places.store.attempts(build, None)? {
        if attempt.ended.as_ref().is_some_and(|end| failed(&end.outcome)) {
            jobs.push(attempt.job);
        }
    }
    jobs.into_iter().min_by_key(order).ok_or_else(|| {
        Stop::wrong(format!("no job of build {build} has failed: name one, as in `ropewalk shell {build} JOB`"))
    })
}

/// The build and attempt whose files stand for the job: its own last attempt, or the one it was reused from.
fn producer(places: &Places, build: BuildId, job: &JobName) -> Result<(BuildId, AttemptNumber), Stop> {
    if let Some(attempt) = places.store.attempts(build, Some(job))?.pop() {
        return match attempt.ended {
            Some(_) => Ok((build, attempt.attempt)),
            None if places.is_run(build)? => {
                Err(Stop::wrong(format!("`{job}` is still running: `ropewalk logs {build} {job} --follow` shows it")))
            }
            None => Ok((build, attempt.attempt)),
        };
    }
    for fact in places.store.facts(build)? {
        if let engine::fact::What::JobEnded { job: ended, how: engine::Ended::Reused(reused), .. } = fact.what
            && ended == *job
        {
            return Ok((reused.build, reused.attempt));
        }
    }
    Err(Stop::wrong(format!("`{job}` did not run in build {build}; `ropewalk show {build}` says why")))
}

fn nothing_kept(places: &Places, build: BuildId, job: &JobName) -> Result<Stop, Stop> {
    let graph = places.store.graph(build)?;
    let kind = graph.as_ref().and_then(|graph| graph.jobs.get(job)).map(|job| job.workspace);
    Ok(Stop::wrong(match kind {
        Some(WorkspaceKind::InPlace) => format!("`{job}` worked in your tree itself (workspace: in_place): look there"),
        _ => format!(
            "the workspace of `{job}` in build {build} is not kept any more; `ropewalk retry {build}` runs it again"
        ),
    }))
}

/// What the last step found around it; `None` if the job never got so far.
fn left_behind(places: &Places, build: BuildId, attempt: AttemptNumber) -> Option<LeftBehind> {
    let path: PathBuf = worker::environment_file(&places.data, build, attempt);
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
