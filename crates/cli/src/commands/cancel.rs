//! `ropewalk cancel`: asks the process or the server that runs a build to end it.

use std::path::Path;

use engine::{Fact, fact::What};
use graph::{BuildId, Verdict};
use store::Store;
use store::rows::BuildRow;

use super::Stop;
use crate::archive::{Archive, There};
use crate::args::Cancel;
use crate::child;
use crate::control::{self, Request, Sent};
use crate::local::clock::now;
use crate::places::{self, Places};
use crate::project::Project;
use crate::whereabouts::{Whereabouts, not_here, quoted};
use crate::{exit, output, words};

/// Runs the command.
///
/// # Errors
/// If there is no such build, it has ended, or no process runs it.
pub fn run(arguments: &Cancel, project: &Project) -> Result<u8, Stop> {
    if let Some(there) = arguments.at.there(project)? {
        return on_server(arguments, &there);
    }
    not_here("--reason", arguments.reason.is_some())?;
    if let Some(job) = &arguments.job {
        return Err(Stop::wrong(format!(
            "one job alone is canceled on a server: here `ropewalk cancel {}` cancels the build with `{job}`",
            quoted(&arguments.build)
        )));
    }
    let places = Places::kept(project)?;
    let by = std::env::var("USER").ok().filter(|user| !user.is_empty());
    let by = by.unwrap_or_else(|| "somebody at this machine".to_owned());
    let said = match &arguments.commit {
        Some(commit) => cancel_commit(&places, commit, &by)?,
        None => cancel(&places, &arguments.build, &by)?,
    };
    output::print(said)?;
    Ok(exit::PASSED)
}

/// Cancels all builds of a commit that a process runs.
fn cancel_commit(places: &Places, commit: &str, by: &str) -> Result<String, Stop> {
    let mut said = String::new();
    for build in places.store.unfinished()? {
        let is_wanted = places.store.build(build)?.is_some_and(|row| row.event.commit == commit);
        if is_wanted && places.is_run(build)? {
            said.push_str(&cancel(places, &build.to_string(), by)?);
        }
    }
    if said.is_empty() { Err(none_of(commit)) } else { Ok(said) }
}

fn none_of(commit: &str) -> Stop {
    Stop::wrong(format!("no build of commit {} is running", words::harmless(commit)))
}

fn on_server(arguments: &Cancel, there: &There) -> Result<u8, Stop> {
    let reason = api::build::Cancel { reason: arguments.reason.clone().unwrap_or_default() };
    let client = &there.link.client;
    let ended = |build: BuildId| {
        let show = there.whereabouts().command(format_args!("show {build}"));
        format!("build {build} is asked to end: {show}\n")
    };
    let said = if let Some(commit) = &arguments.commit {
        let touched = there.link.ask(client.commit_cancel(commit, Some(there.project()?), &reason))?;
        if touched.builds.is_empty() {
            return Err(none_of(commit));
        }
        touched.builds.into_iter().map(ended).collect()
    } else {
        let build = there.find_running(&arguments.build)?;
        let number = build.build;
        if build.verdict != Verdict::Running {
            return Err(has_ended(&build));
        }
        match &arguments.job {
            Some(job) => {
                let job = there.find_job(number, job)?;
                there.link.ask(client.job_cancel(number, job.as_str(), &reason))?;
                let show = there.whereabouts().command(format_args!("show {number} {}", quoted(job.as_str())));
                format!("{job} of build {number} is asked to end: {show}\n")
            }
            None => {
                there.link.ask(client.build_cancel(number, &reason))?;
                ended(number)
            }
        }
    };
    output::print(said)?;
    Ok(exit::PASSED)
}

fn has_ended(build: &BuildRow) -> Stop {
    Stop::wrong(format!("build {} has ended already: it {}", build.build, words::verdict(&build.verdict)))
}

fn cancel(places: &Places, text: &str, by: &str) -> Result<String, Stop> {
    let build = find(places, text)?;
    let number = build.build;
    if build.verdict != Verdict::Running {
        return Err(has_ended(&build));
    }
    let request = Request::Cancel { by: by.to_owned() };
    match control::send(&places.data, number, &request).map_err(Stop::infra)? {
        Sent::Taken => {
            let show = Whereabouts::here().command(format_args!("show {number}"));
            Ok(format!("build {number} is asked to end: {show}\n"))
        }
        Sent::NobodyThere if child::is_request(&build) && places.store.claimant(number)?.is_none() => {
            give_up(places, number, by)?;
            Ok(format!("build {number} is given up: it had not begun\n"))
        }
        Sent::NobodyThere => Err(Stop::wrong(nobody(&places.data, &*places.store, &build)?)),
    }
}

/// Ends a build that was asked for and has not begun.
fn give_up(places: &Places, build: BuildId, by: &str) -> Result<(), Stop> {
    let verdict = Verdict::Canceled { by: by.to_owned() };
    Ok(places.store.append(&[Fact { build, at: now(), what: What::BuildEnded { verdict } }])?)
}

/// The build to cancel. `last` means the newest that a process runs, if there is one, and rather one that somebody asked for.
fn find(places: &Places, text: &str) -> Result<BuildRow, Stop> {
    if text == "last" {
        // A build that somebody asked for before those that its jobs asked for.
        let mut child = None;
        for build in places.store.unfinished()?.into_iter().rev() {
            if places.is_run(build)?
                && let Some(row) = places.store.build(build)?
            {
                if places::is_asked_for(&row) {
                    return Ok(row);
                }
                child = child.or(Some(row));
            }
        }
        if let Some(child) = child {
            return Ok(child);
        }
    }
    places::find_build(&*places.store, text)
}

/// What to say of a build that has not ended and that nobody answers for.
fn nobody(data: &Path, store: &dyn Store, build: &BuildRow) -> Result<String, Stop> {
    let number = build.build;
    if let Some(claimant) = store.claimant(number)? {
        let process = claimant.process.map(|process| format!(" (process {process})")).unwrap_or_default();
        let socket = control::path(data, number);
        return Ok(format!("build {number} is run{process}, but nobody listens at `{}`", socket.display()));
    }
    if let Some(gate) = store.open_gates(number)?.first() {
        let job = &gate.job;
        return Ok(format!(
            "no process runs build {number}: it waits at the gate `{job}`; `ropewalk approve {number} {} --reject` ends it",
            quoted(job.as_str())
        ));
    }
    Ok(format!(
        "no process runs build {number}: whoever ran it was killed, and nothing of it is left running; \
         `ropewalk run --resume {number}` goes on with it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::kept::Kept;

    #[track_caller]
    fn check(kept: &Kept, text: &str, expected: &str) {
        assert_eq!(cancel(&kept.places(), text, "ada").map_err(|stop| stop.message), Err(expected.to_owned()));
    }

    #[test]
    fn what_cannot_be_canceled_is_told() {
        let mut kept = Kept::new();
        kept.build(&["a"]).fail("a", 1).end();
        kept.build(&["a"]).lease("a");
        check(&kept, "1", "build 1 has ended already: it failed because of `a`");
        let killed = "no process runs build 2: whoever ran it was killed, and nothing of it is left running; \
                      `ropewalk run --resume 2` goes on with it";
        check(&kept, "last", killed);
        let mut kept = Kept::new();
        kept.build(&["a"]).fact(engine::What::GateOpened { job: "a".into(), prompt: "go?".to_owned() });
        check(&kept, "1", "no process runs build 1: it waits at the gate `a`; `ropewalk approve 1 a --reject` ends it");
    }

    #[test]
    fn the_process_that_runs_it_is_asked() {
        let mut kept = Kept::new();
        kept.build(&["a"]).lease("a");
        kept.build(&["a"]).lease("a");
        let places = kept.places();
        let _claim = places.store.claim(graph::BuildId(1)).expect("the store answers").expect("it is free");
        let path = control::path(&places.data, graph::BuildId(1));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let answering = std::thread::spawn(move || {
            use std::io::{BufRead, BufReader, Write};
            let (stream, _) = listener.accept().expect("a connection");
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).expect("a line");
            (&stream).write_all(b"ok\n").expect("an answer");
            line
        });
        let said = cancel(&places, "last", "ada").map_err(|stop| stop.message);
        assert_eq!(said, Ok("build 1 is asked to end: ropewalk show 1\n".to_owned()));
        assert_eq!(answering.join().expect("it ends"), "{\"ask\":\"cancel\",\"by\":\"ada\"}\n");
    }
}
