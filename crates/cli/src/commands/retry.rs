//! `ropewalk retry`: the same event through the pipeline again, as a new build; with `--failed` the jobs that passed
//! are taken from the old one.

use std::collections::BTreeMap;

use engine::fact::{Ended, What};
use engine::{BuildOptions, BuildRequest, Engine, Fact, Input, Reused};
use graph::{Event, JobName, Outcome};
use worker::keeper::Keeper;

use super::Stop;
use super::run::{Start, execute};
use crate::args::{Colour, Retry};
use crate::pipeline::{KindChoice, Pipeline};
use crate::places::Places;
use crate::project::Project;

/// Runs the command.
///
/// # Errors
/// If there is no such build, or the new one cannot begin.
pub fn run(arguments: &Retry, project: &Project, colour: Colour) -> Result<u8, Stop> {
    let keeper = Keeper::start().map_err(|error| Stop::of(&error))?;
    let look = worker::repository::Look::begin(&project.root);
    let places = Places::open(project)?;
    let old = places.build(&arguments.build)?;
    let facts = places.store.facts(old)?;
    let Some(request) = facts.iter().find_map(created) else {
        return Err(Stop::wrong(format!("build {old} was never begun")));
    };
    if arguments.failed && !facts.iter().any(|fact| matches!(fact.what, What::BuildEnded { .. })) {
        return Err(Stop::wrong(format!("build {old} has not ended: `ropewalk run --resume {old}` goes on with it")));
    }
    let given = if arguments.failed { passed(&facts) } else { BTreeMap::new() };
    // The files are those of now, whatever they were.
    let event = Event { checkout: look.end(), ..request.event.clone() };
    let request = BuildRequest {
        event,
        options: BuildOptions { retry_of: Some(old), ..request.options.clone() },
        given,
        ..request.clone()
    };
    let pipeline = Pipeline::named(project, &request.pipeline, colour)?;
    let mut event = request.event.clone();
    pipeline.check(&mut event, KindChoice::Said, colour)?;
    let build = places.store.reserve_build()?;
    let inputs = vec![Input::BuildRequested { build, request: Box::new(request) }];
    execute(
        Start { look: None, build, engine: Engine::new(), history: Vec::new(), inputs, event, pipeline, key: None },
        keeper,
        &places,
        &arguments.how,
        project,
        colour,
    )
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
