//! The verb `run`, by which a worker calls the function of a job.
//!
//! The program evaluates itself again to find the function, by the event and the answers that the payload names. All digests
//! of types are compared before anything is decoded. What the function reads of the event that the payload does not hold is told to the
//! worker: its result fits no other event.

mod handed;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use crate::ci::{Ci, Evaluation};
use crate::context::{self, Cx, Failure, Processes};
use crate::data::DecodeError;
use crate::event::Event;
use crate::growth;
use crate::inputs::{Run, Source, Stopped};
use crate::json::Json;
use crate::reads::{Reads, WHOLE};
use crate::wire;

/// The function passed.
pub(crate) const EXIT_PASSED: i32 = 0;
/// It returned a failure.
pub(crate) const EXIT_FAILED: i32 = 1;
/// Program and payload do not match.
pub(crate) const EXIT_OTHER_BUILD: i32 = 65;
/// Inputs are missing or do not decode.
pub(crate) const EXIT_INPUTS: i32 = 66;
/// It panicked, as Rust's own programs do.
pub(crate) const EXIT_PANICKED: i32 = 101;
/// It was canceled: 128 + SIGTERM.
pub(crate) const EXIT_CANCELED: i32 = 143;

/// Where the worker put the payload, the contexts, and where it reads outputs.
const STEP_VARIABLE: &str = "ROPEWALK_STEP";
const CONTEXT_VARIABLE: &str = "ROPEWALK_CONTEXT";
const OUTPUT_VARIABLE: &str = "ROPEWALK_OUTPUT";
const WORKSPACE_VARIABLE: &str = "ROPEWALK_WORKSPACE";

fn source_entry(source: &Source) -> [Json; 3] {
    let output = source.output.as_deref().map_or(Json::Null, Json::from);
    [source.job.as_str().into(), output, source.schema.as_str().into()]
}

/// Why `run` did not pass.
#[derive(Debug)]
enum Refused {
    /// The worker's files cannot be read.
    Call(String),
    /// The payload was written by another build of the program.
    OtherBuild(String),
    /// Inputs are missing or do not decode.
    Inputs(DecodeError),
    /// The function, or handing on its value, failed.
    Failed(Failure),
    /// It panicked, with these words; they stand on stderr already.
    Panicked(String),
}

impl Refused {
    fn exit(&self) -> i32 {
        match self {
            Self::Call(_) | Self::OtherBuild(_) => EXIT_OTHER_BUILD,
            Self::Inputs(_) => EXIT_INPUTS,
            Self::Failed(failure) if failure.is_canceled() => EXIT_CANCELED,
            Self::Failed(_) => EXIT_FAILED,
            Self::Panicked(_) => EXIT_PANICKED,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(message) => write!(f, "this function cannot be called: {message}"),
            Self::OtherBuild(message) => {
                write!(f, "this program is another build than the one that planned the job: {message}")
            }
            Self::Inputs(error) => write!(f, "the inputs cannot be read: {error}"),
            Self::Failed(failure) => f.write_str(failure.message()),
            Self::Panicked(said) => write!(f, "the function panicked: {said}"),
        }
    }
}

/// What the payload says about how to evaluate.
pub(crate) struct Place {
    pub event: Json,
    pub answers: HashMap<String, Json>,
    pub hooks: Vec<usize>,
    /// The job of a file whose function a plugin wrote; else nothing.
    pub document: Json,
}

/// Runs the function of a job, given how the program evaluates itself; gives the exit code.
pub(crate) fn run(job: &str, evaluate: impl FnOnce(Place) -> Ci) -> i32 {
    context::listen();
    match call(job, evaluate) {
        Ok(()) => EXIT_PASSED,
        Err(refused) => {
            let message = refused.to_string();
            match refused {
                // Rust's own words are there already, with the place.
                Refused::Panicked(_) => eprintln!("the function panicked"),
                _ => eprintln!("{message}"),
            }
            if let Some(path) = std::env::var_os(OUTPUT_VARIABLE) {
                // What cannot be told so stands on stderr.
                let _ = handed::write_failure(&PathBuf::from(path), &message);
            }
            refused.exit()
        }
    }
}

fn call(job: &str, evaluate: impl FnOnce(Place) -> Ci) -> Result<(), Refused> {
    let payload = read_file(STEP_VARIABLE)?;
    let payload = payload.get("function").unwrap_or(&payload);
    let contexts = read_file(CONTEXT_VARIABLE)?;
    let event = contexts.get("event").cloned().unwrap_or_default();
    let needs = contexts.get("needs");
    let outputs_of = |job: &str| {
        let outputs = needs.and_then(|needs| needs.get(job)).and_then(|need| need.get("outputs"));
        outputs.cloned().unwrap_or_default()
    };
    let Found { run, declared, reads } = find(payload, event.clone(), &outputs_of, evaluate)?;
    let workspace =
        std::env::var_os(WORKSPACE_VARIABLE).map_or_else(std::env::current_dir, |path| Ok(PathBuf::from(path)));
    let workspace = workspace.map_err(|error| Refused::Call(format!("the workspace is not known: {error}")))?;
    let failed = |error: String| Refused::Failed(Failure::new(error));
    handed::clear(&workspace, job).map_err(failed)?;
    // An event that the function has caught notes there too.
    reads.reset(BTreeSet::new());
    let mut cx = Cx::new(Processes::new(workspace.clone()), Event::new(event, reads.clone()));
    let returned = match catch_unwind(AssertUnwindSafe(|| (run.call)(&mut cx, &outputs_of))) {
        Ok(Ok(returned)) => returned,
        Ok(Err(Stopped::Inputs(error))) => return Err(Refused::Inputs(error)),
        Ok(Err(Stopped::Failed(failure))) => return Err(Refused::Failed(failure)),
        Err(payload) => return Err(Refused::Panicked(wire::said(&*payload))),
    };
    cx.end_heading();
    let places = handed::lay(&workspace, job, &returned.files).map_err(failed)?;
    let value = (returned.with_files)(&places);
    let Some(path) = std::env::var_os(OUTPUT_VARIABLE) else {
        return Err(Refused::Call(format!("`{OUTPUT_VARIABLE}` is not set")));
    };
    let planned = payload.get("read");
    let is_told = |part: &String| planned.is_some_and(|read| read.get(part).or_else(|| read.get(WHOLE)).is_some());
    let untold: Vec<String> = reads.parts().into_iter().filter(|part| !is_told(part)).collect();
    handed::write_outputs(&PathBuf::from(path), &run.output, value, &declared, &untold).map_err(failed)
}

fn read_file(variable: &str) -> Result<Json, Refused> {
    let Some(path) = std::env::var_os(variable) else {
        return Err(Refused::Call(format!("`{variable}` is not set; a worker of ropewalk sets it")));
    };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Refused::Call(format!("the file of `{variable}` cannot be read: {error}")))?;
    Json::read(&text).map_err(|error| Refused::Call(format!("the file of `{variable}` is no JSON: {error}")))
}

/// A function that a payload names.
struct Found {
    run: Run,
    /// The names of its job's outputs.
    declared: Vec<String>,
    /// What the program's events note what is read of them in.
    reads: Reads,
}

/// Evaluates up to the function that the payload names, and compares all types.
fn find(
    payload: &Json,
    event: Json,
    outputs_of: &dyn Fn(&str) -> Json,
    evaluate: impl FnOnce(Place) -> Ci,
) -> Result<Found, Refused> {
    let Some(name) = payload.get("job").and_then(Json::as_str) else {
        return Err(Refused::Call("the payload names no job".to_owned()));
    };
    let list = |key: &str| payload.get(key).map(Json::items).unwrap_or_default();
    let pair = |pair: &Json| match pair.items() {
        [question, answer] => Some((question.to_string(), answer.clone())),
        _ => None,
    };
    let passed = |job: &Json| {
        let job = job.as_str()?;
        let outcome = Json::object([("outcome", "passed".into()), ("outputs", outputs_of(job))]);
        Some((growth::outcome_of(job).to_string(), Json::object([("outcome", outcome)])))
    };
    let hook = |hook: &Json| if let Json::Int(hook) = hook { usize::try_from(*hook).ok() } else { None };
    let place = Place {
        event,
        answers: list("answers").iter().filter_map(pair).chain(list("passed").iter().filter_map(passed)).collect(),
        hooks: list("hooks").iter().filter_map(hook).collect(),
        document: payload.get("document").cloned().unwrap_or_default(),
    };
    let ci = evaluate(place);
    let shared = ci.shared.borrow();
    let Some((run, declared)) = shared.function(name) else {
        return Err(Refused::OtherBuild(format!("it has no function for the job `{name}`")));
    };
    if payload.get("output").and_then(Json::as_str) != Some(run.output.as_str()) {
        return Err(Refused::OtherBuild(format!("the function of `{name}` returns another type")));
    }
    let theirs: Vec<&[Json]> = list("inputs").iter().map(Json::items).collect();
    let ours: Vec<[Json; 3]> = run.sources.list.iter().map(source_entry).collect();
    if theirs.len() != ours.len() {
        return Err(Refused::OtherBuild(format!(
            "the function of `{name}` takes {} inputs, not {}",
            ours.len(),
            theirs.len()
        )));
    }
    for (theirs, ours) in theirs.iter().zip(&ours) {
        if *theirs != ours.as_slice() {
            let from = ours[0].as_str().unwrap_or_default();
            return Err(Refused::OtherBuild(format!("the input of `{name}` from `{from}` has another type")));
        }
    }
    Ok(Found { run, declared, reads: shared.reads.clone() })
}

impl Evaluation {
    /// The function of a job, with the names of its outputs.
    pub fn function(&self, name: &str) -> Option<(Run, Vec<String>)> {
        let Some(&job) = self.by_name.get(name) else {
            let of_file = self.functions_of_files.iter().find(|function| function.job == name)?;
            return Some((of_file.run.clone(), of_file.outputs.clone()));
        };
        let declared = self.jobs[job].settings.get("outputs").map(Json::items).unwrap_or_default();
        let declared = declared.iter().filter_map(Json::as_str).map(str::to_owned).collect();
        Some((self.functions.get(&job)?.clone(), declared))
    }
}
