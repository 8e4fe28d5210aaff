//! `ropewalk cancel`: asks the process or the server that runs a build to end it.

use std::collections::BTreeSet;

use graph::{BuildId, Verdict};
use store::BuildFilter;
use store::rows::{BuildRow, VerdictWord};

use super::Stop;
use crate::archive::{Archive, There};
use crate::args::Cancel;
use crate::control::{self, Request, Sent};
use crate::places::{self, Places};
use crate::project::Project;
use crate::whereabouts::{Whereabouts, not_here, quoted};
use crate::{exit, given_up, output, room, words};

/// The digits of a commit in full, by SHA-1 and by SHA-256.
const COMMIT_LENGTHS: [usize; 2] = [40, 64];
/// The fewest digits by which a commit is known.
const COMMIT_DIGITS_MIN: usize = 7;
/// The most commits that are told where one is meant.
const COMMITS_TOLD_MAX: usize = 5;
/// The most running builds that are looked through for a commit.
const RUNNING_MAX: usize = 10_000;

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
    room::keep(&project.data);
    let places = Places::kept(project)?;
    let by = worker::repository::user_name();
    let said = match &arguments.commit {
        Some(commit) => cancel_commit(&places, commit, &by)?,
        None => cancel(&places, &arguments.build, &by)?,
    };
    output::print(said)?;
    Ok(exit::PASSED)
}

/// Cancels all builds of a commit that a process runs.
fn cancel_commit(places: &Places, text: &str, by: &str) -> Result<String, Stop> {
    let mut running = Vec::new();
    for build in places.store.unfinished()? {
        if places.is_run(build)? {
            running.extend(places.store.build(build)?);
        }
    }
    let commit = meant(text, &running)?;
    let wanted = running.iter().filter(|row| row.event.commit == commit);
    wanted.map(|row| cancel(places, &row.build.to_string(), by)).collect()
}

/// The commit of builds that run which a name means: in full, or the first digits of one alone.
fn meant(text: &str, running: &[BuildRow]) -> Result<String, Stop> {
    let wanted = text.to_ascii_lowercase();
    let begins = |commit: &&str| commit.starts_with(&wanted);
    let commits: BTreeSet<&str> = running.iter().map(|row| &*row.event.commit).filter(begins).collect();
    let mut found = commits.iter();
    match (found.next(), found.next()) {
        (Some(commit), _) if **commit == wanted => Ok(wanted),
        _ if wanted.len() < COMMIT_DIGITS_MIN => {
            let text = words::harmless(text);
            Err(Stop::wrong(format!("`{text}` may be many commits: give at least {COMMIT_DIGITS_MIN} digits of it")))
        }
        (None, _) => Err(none_of(text)),
        (Some(commit), None) => Ok((*commit).to_owned()),
        (Some(_), Some(_)) => {
            let commits: Vec<&str> = commits.into_iter().take(COMMITS_TOLD_MAX).collect();
            let (text, commits) = (words::harmless(text), commits.join(", "));
            Err(Stop::wrong(format!(
                "builds of several commits run that begin with {text}: {commits}; give more digits"
            )))
        }
    }
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
        let commit = match COMMIT_LENGTHS.contains(&commit.len()) {
            true => commit.to_ascii_lowercase(),
            false => {
                let running = BuildFilter { verdict: Some(VerdictWord::Running), ..BuildFilter::default() };
                meant(commit, &there.builds(&running, None, RUNNING_MAX)?)?
            }
        };
        let touched = there.link.ask(client.commit_cancel(&commit, Some(there.project()?), &reason))?;
        if touched.builds.is_empty() {
            return Err(none_of(&commit));
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
    match control::send_or_claim(&places.data, &*places.store, number, &request)? {
        Sent::Taken => {
            let show = Whereabouts::here().command(format_args!("show {number}"));
            Ok(format!("build {number} is asked to end: {show}\n"))
        }
        Sent::ToStopped => Ok(format!("build {number} is stopped (Ctrl-Z): it ends when `fg` or `bg` lets it go on\n")),
        Sent::Claimed(_claim) => {
            // Whoever ran it may have ended it before it could be claimed.
            let build = find(places, &number.to_string())?;
            if build.verdict != Verdict::Running {
                return Err(has_ended(&build));
            }
            Ok(format!("{}\n", given_up::give_up(&*places.store, &build, by)?))
        }
    }
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::path::{Path, PathBuf};

    use engine::{Fact, fact::What};
    use store::Store;

    use super::*;
    use crate::local::clock::now;
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
    }

    #[test]
    fn a_build_that_nobody_runs_is_given_up() {
        let mut kept = Kept::new();
        kept.build(&["a"]).lease("a");
        kept.build(&["a"]).fact(engine::What::GateOpened { job: "a".into(), prompt: "go?".to_owned() });
        for number in [1, 2] {
            let said = cancel(&kept.places(), &number.to_string(), "ada").map_err(|stop| stop.message);
            assert_eq!(said, Ok(format!("build {number} is given up: no process ran it\n")));
            let ended = kept.store().build(graph::BuildId(number)).expect("the store answers").expect("it is there");
            assert_eq!(ended.verdict, Verdict::Canceled { by: "ada".to_owned() });
            check(&kept, &number.to_string(), &format!("build {number} has ended already: it was canceled by ada"));
        }
    }

    #[test]
    fn a_commit_is_known_by_its_first_digits() {
        let mut kept = Kept::new();
        kept.build(&["a"]);
        let row = kept.places().store.build(BuildId(1)).expect("the store answers").expect("a build");
        let of = |commit: &str| {
            let mut row = row.clone();
            row.event.commit = commit.into();
            row
        };
        let (first, second) = (format!("2342b35b{:032}", 0), format!("2342b35c{:032}", 0));
        let running = [of(&first), of(&first), of(&second)];
        let check = |text: &str, told: &str| {
            let found = meant(text, &running).unwrap_or_else(|stop| stop.message);
            assert_eq!(found, told);
        };
        check("2342b35b", &first);
        check("2342B35B0", &first);
        check(&second, &second);
        check("2342b3", "`2342b3` may be many commits: give at least 7 digits of it");
        check("2342b36", "no build of commit 2342b36 is running");
        let several =
            format!("builds of several commits run that begin with 2342b35: {first}, {second}; give more digits");
        check("2342b35", &several);
    }

    /// Where the process that runs build 1 listens.
    fn socket(places: &Places) -> PathBuf {
        let path = control::path(&places.data, BuildId(1));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        path
    }

    /// What somebody says, who gets this answer.
    fn heard(listener: &UnixListener, answer: &[u8]) -> String {
        let (stream, _) = listener.accept().expect("a connection");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("a line");
        (&stream).write_all(answer).expect("an answer");
        line
    }

    /// What a process does that has heard a request too late: it goes, without an answer.
    fn ends(path: &Path, listener: UnixListener) {
        heard(&listener, b"");
        drop(listener);
        std::fs::remove_file(path).expect("its own socket");
    }

    #[test]
    fn a_build_whose_process_was_about_to_end_is_given_up() {
        let mut kept = Kept::new();
        kept.build(&["a"]).fact(What::GateOpened { job: "a".into(), prompt: "go?".to_owned() });
        let places = kept.places();
        let claim = places.store.claim(BuildId(1)).expect("the store answers").expect("it is free");
        let path = socket(&places);
        let listener = UnixListener::bind(&path).expect("a socket");
        let running = std::thread::spawn(move || {
            ends(&path, listener);
            drop(claim);
        });
        let said = cancel(&places, "1", "ada").map_err(|stop| stop.message);
        assert_eq!(said, Ok("build 1 is given up: no process ran it\n".to_owned()));
        running.join().expect("it ends");
    }

    #[test]
    fn a_process_that_goes_on_with_a_build_is_asked_once_it_listens() {
        let mut kept = Kept::new();
        kept.build(&["a"]).lease("a");
        let places = kept.places();
        let _claim = places.store.claim(BuildId(1)).expect("the store answers").expect("it is free");
        let path = socket(&places);
        let listener = UnixListener::bind(&path).expect("a socket");
        let running = std::thread::spawn(move || {
            ends(&path, listener);
            heard(&UnixListener::bind(&path).expect("a socket"), b"ok\n")
        });
        let said = cancel(&places, "1", "ada").map_err(|stop| stop.message);
        assert_eq!(said, Ok("build 1 is asked to end: ropewalk show 1\n".to_owned()));
        assert_eq!(running.join().expect("it ends"), "{\"ask\":\"cancel\",\"by\":\"ada\"}\n");
    }

    #[test]
    fn a_build_that_ended_before_it_could_be_claimed_is_told_as_that() {
        let mut kept = Kept::new();
        kept.build(&["a"]).lease("a");
        let places = kept.places();
        let claim = places.store.claim(BuildId(1)).expect("the store answers").expect("it is free");
        let path = socket(&places);
        let listener = UnixListener::bind(&path).expect("a socket");
        let store = places.store.clone();
        let running = std::thread::spawn(move || {
            ends(&path, listener);
            let verdict = Verdict::Passed { note: None };
            let ended = Fact { build: BuildId(1), at: now(), what: What::BuildEnded { verdict } };
            store.append(&[ended]).expect("the store takes it");
            drop(claim);
        });
        check(&kept, "1", "build 1 has ended already: it passed");
        running.join().expect("it ends");
    }

    #[test]
    fn the_process_that_runs_it_is_asked() {
        let mut kept = Kept::new();
        kept.build(&["a"]).lease("a");
        kept.build(&["a"]).lease("a");
        let places = kept.places();
        let _claim = places.store.claim(graph::BuildId(1)).expect("the store answers").expect("it is free");
        let listener = UnixListener::bind(socket(&places)).expect("a socket");
        let answering = std::thread::spawn(move || heard(&listener, b"ok\n"));
        let said = cancel(&places, "last", "ada").map_err(|stop| stop.message);
        assert_eq!(said, Ok("build 1 is asked to end: ropewalk show 1\n".to_owned()));
        assert_eq!(answering.join().expect("it ends"), "{\"ask\":\"cancel\",\"by\":\"ada\"}\n");
    }
}
