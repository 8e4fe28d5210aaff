//! `ropewalk retry`: the same event through the pipeline again, as a new build; with `--failed` the jobs that passed,
//! and need nothing that runs again, are taken from the old one, unless the files are others now, and with `--tests` those that failed are asked for some of their tests only.

mod asked;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::build::Rebuild;
use engine::fact::{Ended, What};
use engine::{BuildOptions, BuildRequest, Fact, Reused};
use graph::{AskedTests, BuildId, Checkout, Event, Graph, JobName, Outcome, SkipReason};
use worker::keeper::Keeper;
use worker::workspace::{Seen, Snapshot};

use self::asked::Failed;
use super::Stop;
use super::run::{Sight, Start, execute};
use super::submit::{Since, Watched};
use crate::archive::{Archive, There};
use crate::args::{Colour, Retry};
use crate::pipeline::{KindChoice, Pipeline, Unanswered};
use crate::places::Places;
use crate::project::Project;
use crate::whereabouts::{not_here, quoted};
use crate::{exit, output};

/// How many of the jobs that run again are named.
const NAMES_TOLD_MAX: usize = 10;

/// Runs the command.
///
/// # Errors
/// If there is no such build, or the new one cannot begin.
pub fn run(arguments: &Retry, project: &Project, colour: Colour) -> Result<u8, Stop> {
    if let Some(there) = arguments.at.there(project)? {
        return on_server(arguments, &there, colour);
    }
    not_here("--reason", arguments.reason.is_some())?;
    not_here("--no-wait", arguments.no_wait)?;
    if let Some(job) = arguments.job.as_ref().filter(|_| arguments.tests.is_none()) {
        let places = Places::kept(project)?;
        let job = places.find_job(places.build(&arguments.build)?, job)?;
        return Err(Stop::wrong(format!(
            "one job alone is tried again on a server: here `ropewalk run --job {}` runs it with what it needs, and \
             `ropewalk retry {} --failed` all that did not pass",
            quoted(job.as_str()),
            quoted(&arguments.build)
        )));
    }
    let keeper = Keeper::start().map_err(|error| Stop::of(&error))?;
    let look = worker::workspace::Look::begin(&project.root);
    let places = Places::open(project)?;
    let old = places.build(&arguments.build)?;
    let facts = places.store.facts(old)?;
    let Some(request) = facts.iter().find_map(created) else {
        return Err(Stop::wrong(format!("build {old} was never begun")));
    };
    let is_rest_given = arguments.failed || arguments.tests.is_some();
    if is_rest_given && !facts.iter().any(|fact| matches!(fact.what, What::BuildEnded { .. })) {
        return Err(Stop::wrong(format!("build {old} has not ended: `ropewalk run --resume {old}` goes on with it")));
    }
    let (asked, only) = asked(arguments, &places, old, &facts)?;
    let seen = look.seen();
    let is_same_tree = is_tree_of(old, &request.event, seen.as_ref().ok().and_then(Option::as_ref), project);
    let given = match (is_rest_given, is_same_tree) {
        (true, true) => untouched(&facts),
        (true, false) => {
            eprintln!(
                "note: the files are not those of build {old} any more: what passed then runs again with what did not"
            );
            BTreeMap::new()
        }
        (false, _) => BTreeMap::new(),
    };
    let mut event = request.event.clone();
    if !is_same_tree {
        stand_where_head_is(&mut event, project);
    }
    let pipeline = Pipeline::named(project, &request.pipeline, colour)?;
    pipeline.check(&mut event, KindChoice::Said, Unanswered::Noted, colour)?;
    let request = BuildRequest {
        event,
        options: BuildOptions {
            retry_of: Some(old),
            reuse: arguments.how.reuse(),
            only: only.unwrap_or_else(|| request.options.only.clone()),
            ..request.options.clone()
        },
        given,
        asked,
        ..request.clone()
    };
    // The files are those of now, whatever they were.
    let start = Start::new(request, pipeline, Sight::There(seen), &places)?;
    execute(start, keeper, &places, &arguments.how, project, colour)
}

/// Whether the files are those that a build began with, or those that its own jobs have made of them. Without git nobody can tell, and they are taken for it.
fn is_tree_of(old: BuildId, event: &Event, seen: Option<&Seen>, project: &Project) -> bool {
    let Some(seen) = seen else { return true };
    if let Some(end) = worker::files_at_end(&project.data, old) {
        // What its jobs have made of the tree itself is of it.
        return seen.digest() == Some(end);
    }
    if seen.commit().unwrap_or_default() != event.commit {
        return false;
    }
    match Snapshot::reopen(&worker::snapshot_directory(&project.data, old)) {
        Ok(start) => start.changed_since_start().is_ok_and(|changed| changed.is_empty()),
        Err(_) => [event.checkout, seen.checkout()] == [Checkout::AsCommitted; 2],
    }
}

/// Gives an event the commit that is checked out, and its branch, if the event has one.
fn stand_where_head_is(event: &mut Event, project: &Project) {
    let Ok(head) = worker::repository::head(&project.root) else { return };
    event.commit = head.commit.unwrap_or_default();
    if event.branch.is_some() {
        event.branch = head.branch;
    }
}

/// What a server is asked for, but for the whole build.
fn wanted_there(job: Option<String>, tests: Option<&[String]>, reason: String) -> Result<api::build::Retry, Stop> {
    use api::build::Retry;
    Ok(match (job, tests) {
        (None, None) => Retry::Failed { reason },
        (Some(job), None) => Retry::Jobs { jobs: [job].into(), reason },
        (Some(job), Some([])) => Retry::FailedTests { jobs: [job].into(), reason },
        (Some(job), Some(names)) => Retry::Tests { tests: [(job, names.to_vec())].into(), reason },
        (None, Some(names)) => {
            tests_of_a_job(names)?;
            Retry::FailedTests { jobs: BTreeSet::new(), reason }
        }
    })
}

/// The tests that are asked for, by job, and the jobs wanted if not those of the old build.
type Asked = (BTreeMap<JobName, Arc<AskedTests>>, Option<BTreeSet<String>>);

fn asked(arguments: &Retry, places: &Places, old: BuildId, facts: &[Fact]) -> Result<Asked, Stop> {
    let Some(names) = &arguments.tests else { return Ok(Default::default()) };
    let mut failed = Failed::of(old, facts);
    let (asked, only) = match &arguments.job {
        None => {
            tests_of_a_job(names)?;
            failed.compare(&*places.store, &failed.with_failing_tests())?;
            (failed.failing()?, None)
        }
        Some(job) => {
            let job = places.find_job(old, job)?;
            failed.compare(&*places.store, &[job.clone()].into())?;
            (failed.of_job(&job, names)?, Some([job.to_string()].into()))
        }
    };
    for (job, asked) in &asked {
        if let Some(never_run) = asked.never_run.as_ref().filter(|never_run| never_run.count > 0) {
            eprintln!("{job}: {}", crate::columns::one_line(&never_run.to_string()));
        }
    }
    Ok((asked, only))
}

/// Tests are named within a job.
fn tests_of_a_job(names: &[String]) -> Result<(), Stop> {
    match names {
        [] => Ok(()),
        _ => Err(Stop::wrong("which job has these tests? `ropewalk retry BUILD JOB --tests NAME…`".to_owned())),
    }
}

/// Whole it is a new build of the same files; what failed, or one job, runs again within the build.
fn on_server(arguments: &Retry, there: &There, colour: Colour) -> Result<u8, Stop> {
    arguments.how.only_there()?;
    let build = there.find_build(&arguments.build)?;
    let number = build.build;
    let reason = arguments.reason.clone().unwrap_or_default();
    let client = &there.link.client;
    let (again, since, told) = match &arguments.job {
        None if !arguments.failed && arguments.tests.is_none() => {
            let submitted = there.link.ask(client.build_rebuild(number, &Rebuild { reason }))?;
            super::submit::tell(&submitted);
            (submitted.build, Since::Beginning, submitted.unmatched)
        }
        job => {
            let job = job.as_ref().map(|job| there.find_job(number, job)).transpose()?.map(|job| job.to_string());
            let wanted = wanted_there(job, arguments.tests.as_deref(), reason)?;
            let retried = there.link.ask(client.build_retry(number, &wanted))?;
            let jobs: Vec<&str> = retried.jobs.iter().map(String::as_str).take(NAMES_TOLD_MAX).collect();
            let more = if retried.jobs.len() > jobs.len() { ", …" } else { "" };
            eprintln!("build {}: {}{more} again", retried.build, jobs.join(", "));
            retried.remarks.iter().for_each(|remark| eprintln!("{}", crate::columns::one_line(remark)));
            let ended = build.finished.filter(|_| retried.build == number);
            (retried.build, ended.map_or(Since::Beginning, |at| Since::Ended(at.into())), Vec::new())
        }
    };
    if arguments.no_wait {
        output::print(format!("{again}\n"))?;
        return Ok(exit::PASSED);
    }
    let (output, whereabouts) = (arguments.how.output, there.whereabouts());
    let watched = Watched { build: again, since, told, output, colour, whereabouts };
    there.link.wait(watched.watch(client))
}

fn created(fact: &Fact) -> Option<&BuildRequest> {
    match &fact.what {
        What::BuildCreated(request) => Some(request),
        _ => None,
    }
}

/// The jobs that passed in these facts, each with where its result came from.
fn passed(facts: &[Fact]) -> BTreeMap<JobName, (Reused, Outcome)> {
    let mut passed = BTreeMap::new();
    for fact in facts {
        match &fact.what {
            What::AttemptFinished { job, attempt, report, retry_at: None, .. }
                if matches!(report.outcome, Outcome::Passed { .. }) =>
            {
                let artifacts = report.artifacts.clone();
                let reused = Reused { build: fact.build, attempt: *attempt, job: job.clone(), artifacts };
                passed.insert(job.clone(), (reused, report.outcome.clone()));
            }
            What::JobEnded { job, outcome: outcome @ Outcome::Passed { .. }, how: Ended::Reused(reused) } => {
                passed.insert(job.clone(), (reused.clone(), outcome.clone()));
            }
            _ => {}
        }
    }
    passed
}

/// The jobs that passed in these facts and need nothing that runs again: a report on tests that failed speaks of those, and what
/// ran because they failed has no reason left.
fn untouched(facts: &[Fact]) -> BTreeMap<JobName, (Reused, Outcome)> {
    let mut passed = passed(facts);
    let Some(graph) = facts.iter().rev().find_map(evaluated) else { return passed };
    let decided: BTreeSet<&JobName> = facts.iter().filter_map(decided_again).collect();
    let mut dependents: BTreeMap<&JobName, Vec<&JobName>> = BTreeMap::new();
    for (name, job) in &graph.jobs {
        job.needs.iter().for_each(|need| dependents.entry(&need.job).or_default().push(name));
    }
    let mut again: Vec<&JobName> =
        graph.jobs.keys().filter(|job| !passed.contains_key(*job) && !decided.contains(job)).collect();
    let mut seen: BTreeSet<&JobName> = again.iter().copied().collect();
    while let Some(job) = again.pop() {
        let more = dependents.get(job).into_iter().flatten().copied();
        again.extend(more.filter(|dependent| seen.insert(dependent)));
    }
    passed.retain(|job, _| !seen.contains(job));
    passed
}

fn evaluated(fact: &Fact) -> Option<&Graph> {
    match &fact.what {
        What::Evaluated { graph, .. } => Some(graph),
        _ => None,
    }
}

/// A job that did not run, and of which the same will be decided if what it needs ends the same.
fn decided_again(fact: &Fact) -> Option<&JobName> {
    match &fact.what {
        What::JobEnded { outcome: Outcome::Skipped(SkipReason::Rejected { .. }), .. } => None,
        What::JobEnded { job, outcome: Outcome::Passed { .. } | Outcome::Skipped(_), .. } => Some(job),
        _ => None,
    }
}
