//! Tests of a pipeline: what it does with an event and with results, without running anything.
//!
//! ```no_run
//! use ropewalk::Ci;
//! use ropewalk::testing::*;
//!
//! fn ci(ci: &Ci) {
//!     let build = ci.job("build").run("cargo build");
//!     ci.job("deploy").needs(&build).secrets(["TOKEN"]).run("./deploy.sh");
//! }
//!
//! let build = evaluate(ci, push("main").changed(["src/a.rs"]));
//! build.assert_runs(["build", "deploy"]);
//! build.job("deploy").assert_needs(["build"]).assert_secrets(["TOKEN"]);
//! ```
//!
//! Events share names with the triggers of [`crate::hook`] (`push("main")` here, `push()` there). Where tests take all of their program
//! with `use super::*`, the program imports its triggers inside `main`, and each has its own.
//!
//! The program adds the jobs, and the binary says what they come to (`ropewalk lower`), so a test sees exactly what a
//! build would. `ropewalk test` tells the tests where the binary is; under plain `cargo test` it is looked for in `PATH`.
//!
//! [`given`] holds what a test says is known, [`evaluated`] what came out of it.

mod evaluated;
mod given;
mod lower;
mod unknown;

use std::collections::BTreeSet;

use crate::growth::Ended;
use crate::hook::{Hook, Hooks};
use crate::inputs::Stopped;
use crate::json::Json;
use crate::wire::{self, Request};
use crate::{Cx, Data, Failure};

pub use crate::context::Recorded;
pub use evaluated::{Evaluated, JobSeen};
pub use given::{
    Event, Given, answered, canceled, command, failed, failed_with, manual, passed, pull_request, push, schedule,
    skipped, tag, timed_out,
};

/// The most times that a pipeline is evaluated for one test: each time at least one given result is new.
pub const EVALUATIONS_MAX: usize = 10_000;

/// What the pipeline comes to for this event and with the results that were given to it.
///
/// # Panics
/// If the binary cannot be asked, or a result is given to a job that the pipeline does not have: the message says what to
/// do. What is wrong with the pipeline itself is in [`Evaluated::faults`], and makes every assertion fail.
#[track_caller]
pub fn evaluate(pipeline: impl Hooks, event: Event) -> Evaluated {
    let hooks = pipeline.hooks();
    // Not by closures: a panic in one names its own line, and not the test's.
    let mut binary = match lower::Binary::start() {
        Ok(binary) => binary,
        Err(message) => panic!("{message}"),
    };
    let numbers = matching(&hooks, &event, &mut binary);
    let mut known = event.known();
    let (mut reply, mut names) = (String::new(), BTreeSet::new());
    for _ in 0..EVALUATIONS_MAX {
        reply = wire::answer(&hooks, request(&known, &numbers));
        let read = match Json::read(&reply) {
            Ok(read) => read,
            Err(error) => panic!("the pipeline's reply is no JSON: {error}"),
        };
        unknown::names_of(&read, &mut names);
        if !event.answer(&read, &mut known) {
            break;
        }
    }
    let lowered = match binary.lower(&reply, &known) {
        Ok(lowered) => lowered,
        Err(message) => panic!("{message}"),
    };
    let evaluated = Evaluated::new(lowered);
    // Where the pipeline is wrong there may be no jobs at all, and the faults say why.
    if evaluated.faults().is_empty() {
        names.extend(evaluated.jobs().into_iter().map(str::to_owned));
        if let Some(message) = unknown::told(&event, &names) {
            panic!("{message}\n{}", evaluated.listing());
        }
    }
    evaluated
}

/// The hooks that answer to the event. One without events answers to all but commands.
#[track_caller]
fn matching(hooks: &[Hook], event: &Event, binary: &mut lower::Binary) -> Vec<usize> {
    if hooks.iter().all(|hook| hook.triggers.is_none()) {
        return (0..hooks.len()).collect();
    }
    let described = Request { hooks: None, ..request(&event.known(), &[]) };
    let reply = wire::answer(hooks, described);
    match binary.hooks(&reply, &event.known()) {
        Ok(hooks) => hooks,
        Err(message) => panic!("{message}"),
    }
}

fn request(known: &Json, hooks: &[usize]) -> Request {
    let hooks = Json::List(hooks.iter().map(|&hook| Json::Int(hook as i128)).collect());
    let line = Json::object([
        ("protocol", wire::PROTOCOL.into()),
        ("event", known.get("event").cloned().unwrap_or_default()),
        ("answers", known.get("answers").cloned().unwrap_or_default()),
        ("hooks", hooks),
    ]);
    Request::read(&line.to_string()).unwrap_or_else(|message| panic!("{message}"))
}

/// Runs the function of a job as a test: with this shell, for this event, with the results given to it.
///
/// The job must be there for the event; its inputs come from the results that were given
/// (`passed().value(&Version { … })`).
///
/// # Errors
/// What the function returned, or that an input is missing.
///
/// # Panics
/// If the pipeline has no such job, also none that a result is given to, its job is no function, or it returns another type.
#[track_caller]
pub fn run_fn<T: Data>(pipeline: impl Hooks, event: Event, job: &str, shell: &Recorded) -> Result<T, Failure> {
    let hooks = pipeline.hooks();
    let numbers: Vec<usize> = (0..hooks.len()).collect();
    let mut known = event.known();
    let mut names = BTreeSet::new();
    let ci = loop {
        let ci = wire::evaluate(&hooks, request(&known, &numbers));
        let read = Json::read(&crate::document::reply(&ci, &[])).unwrap_or_default();
        unknown::names_of(&read, &mut names);
        if !event.answer(&read, &mut known) {
            break ci;
        }
    };
    if let Some(message) = unknown::told(&event, &names) {
        panic!("{message}");
    }
    let run = {
        let shared = ci.shared.borrow();
        let names = || shared.jobs.iter().map(|job| job.name.as_str()).collect::<Vec<_>>().join(", ");
        let Some(index) = shared.by_name.get(job) else {
            panic!("no job `{job}`; there are: {}", names());
        };
        let Some(run) = shared.functions.get(index) else {
            panic!("the job `{job}` is no function: its steps are looked at by `evaluate(…).job(\"{job}\")`");
        };
        run.clone()
    };
    let mut cx = Cx::new(
        shell.clone(),
        crate::Event::new(known.get("event").cloned().unwrap_or_default(), ci.shared.borrow().reads.clone()),
    );
    let outputs_of = |name: &str| match Ended::read(&event.result_of(name)) {
        Ok(Ended::Passed(outputs)) => outputs,
        _ => Json::Null,
    };
    match (run.call)(&mut cx, &outputs_of) {
        Ok(returned) => match T::from_json(&returned.value) {
            Ok(value) => Ok(value),
            Err(error) => panic!("the job `{job}` returned another type: {error}"),
        },
        Err(Stopped::Failed(failure)) => Err(failure),
        Err(Stopped::Inputs(error)) => Err(Failure::new(format!(
            "an input of `{job}` cannot be read ({error}): {}",
            event.missing_input(&run.sources)
        ))),
    }
}
