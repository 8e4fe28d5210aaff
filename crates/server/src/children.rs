//! Builds that jobs of a server's builds ask for: what is wanted of each follows from the build whose job asks. The files, the
//! trust, the client, the pools and who caused it are the parent's; nothing here gives a child more than its parent has.
//!
//! All of it blocks. Nothing is recorded here but numbers that are drawn: a child exists once the engine says so.

use std::time::Duration;

use dialects::native::Triggered;
use engine::child::refused;
use engine::{BuildOptions, BuildRequest};
use graph::{BuildId, ChildBuild, Event, EventKind, Failure, JobName, Origin, Parent, with_causes};
use store::StoreError;
use store::rows::BuildRow;

use crate::lock::lock;
use crate::lowering::First;
use crate::source::{SourceError, read_patiently};
use crate::world::Means;

/// How often a store that refuses is asked again, each time after twice the wait: ten seconds in all.
const AGAIN_MAX: u32 = 10;
const AGAIN_WAIT: Duration = Duration::from_millis(10);

/// Works out what the job of a build asks for, and draws the child's numbers.
///
/// # Errors
/// How the job fails: what it asks for is not there, or would be asked for without end.
pub fn prepare(
    means: &Means,
    (build, parent): (BuildId, &BuildRequest),
    job: &JobName,
    asked: &ChildBuild,
) -> Result<(BuildId, Box<BuildRequest>), Failure> {
    let source = parent.origin.source.ok_or_else(|| refused("the build has no files of its own".to_owned()))?;
    let depth = parent.event.parent.as_ref().map_or(0, |above| above.depth) + 1;
    let above = patiently(|| with_above(means, build))?;
    if depth > Parent::DEPTH_MAX {
        let mut numbers: Vec<String> = above.iter().map(|row| row.build.to_string()).collect();
        numbers.reverse();
        return Err(refused(format!(
            "{} builds stand above this one, the most there may be: build {}",
            Parent::DEPTH_MAX,
            numbers.join(" asked for ")
        )));
    }
    let pipeline = match &asked.file {
        Some(file) => file.as_written().trim_start_matches("./").to_owned(),
        None => read(|| means.sources.open(source)?.own_pipeline())?,
    };
    let event = event(asked, (build, parent), job, depth, (means.clock)());
    let options = BuildOptions {
        urgent: parent.options.urgent,
        pool: parent.options.pool.clone(),
        pools: parent.options.pools,
        reuse: parent.options.reuse,
        ..BuildOptions::default()
    };
    let mut request = BuildRequest { options, client: parent.client.clone(), ..BuildRequest::new(event, pipeline) };
    let project = parent.origin.project.clone();
    request.origin = Origin { project: project.clone(), source: Some(source), ..Origin::default() };
    fill_in(means, &mut request, asked)?;
    let is_same = |row: &&BuildRow| row.pipeline == request.pipeline && row.event.says_the_same(&request.event);
    if let Some(same) = above.iter().find(is_same) {
        return Err(refused(format!(
            "build {} runs {} for the same event and would be asked for by itself, for ever: another event, parameter or \
             pipeline ends the circle",
            same.build, same.pipeline
        )));
    }
    let time = request.event.time;
    request.quarantine = patiently(|| crate::quarantine::in_force(&means.records, &project, time))?;
    let (child, number) = lock(&means.drawn).take(&project);
    let child = child.map_or_else(|| patiently(|| means.store.reserve_build()), Ok)?;
    request.origin.number = number.map_or_else(|| patiently(|| means.store.reserve_number(&project)), Ok)?;
    Ok((child, Box::new(request)))
}

/// What happened: the parent's event, but for what is said of the child's.
fn event(
    asked: &ChildBuild,
    (build, parent): (BuildId, &BuildRequest),
    job: &JobName,
    depth: u32,
    now: graph::Timestamp,
) -> Event {
    let text = |text: &Option<graph::Text>| text.as_ref().map(|text| text.as_written().to_owned());
    let params = asked.params.iter().map(|(name, value)| (name.clone(), value.as_written().into()));
    let above = &parent.event;
    Event {
        kind: asked.kind(),
        command: text(&asked.command),
        tag: text(&asked.tag).or_else(|| above.tag.clone()),
        branch: text(&asked.branch).or_else(|| above.branch.clone()),
        params: params.collect(),
        time: now,
        parent: Some(Parent { build, job: job.clone(), depth, waits: asked.waits }),
        ..above.clone()
    }
}

/// Gives parameters their types and defaults, as far as files say them. A pipeline that does not answer to a build's event may be
/// one that a person starts by hand.
fn fill_in(means: &Means, request: &mut BuildRequest, asked: &ChildBuild) -> Result<(), Failure> {
    let First::Lowered(mut lowered) = read(|| means.lowering.first(request))? else { return Ok(()) };
    if asked.kind() == EventKind::Build && asked.event.is_none() && lowered.triggered != Triggered::Yes {
        let mut by_hand = request.clone();
        by_hand.event.kind = EventKind::Manual;
        if let First::Lowered(manual) = read(|| means.lowering.first(&by_hand))?
            && manual.triggered == Triggered::Yes
        {
            (*request, lowered) = (by_hand, manual);
        }
    }
    // A build in which nothing runs would pass, and its job with it.
    if let Triggered::No { reason } = &lowered.triggered {
        return Err(refused(match request.event.kind {
            EventKind::Command => reason.clone(),
            kind => format!(
                "{} does not answer to the event `{}`: {reason}; say `event`, `branch` or `params` so that it does",
                request.pipeline,
                kind.name()
            ),
        }));
    }
    if !lowered.is_wrong() {
        request.event.params.clone_from(&lowered.filled);
    }
    Ok(())
}

/// A build and those above it, the nearest first.
fn with_above(means: &Means, build: BuildId) -> Result<Vec<BuildRow>, StoreError> {
    let Some(row) = means.store.build(build)? else { return Ok(Vec::new()) };
    let above = store::builds_above(&*means.store, &row.event)?;
    Ok([row].into_iter().chain(above).collect())
}

/// Reads the files of a build.
fn read<T>(read: impl FnMut() -> Result<T, SourceError>) -> Result<T, Failure> {
    read_patiently(read).map_err(|error| match error {
        SourceError::Refused(_) => Failure::Infra { message: with_causes(&error) },
        _ => refused(with_causes(&error)),
    })
}

/// Asks the store, again while it refuses.
fn patiently<T, E: std::error::Error>(mut ask: impl FnMut() -> Result<T, E>) -> Result<T, Failure> {
    let mut tries = 0;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if tries == AGAIN_MAX => return Err(Failure::Infra { message: with_causes(&error) }),
            Err(_) => std::thread::sleep(AGAIN_WAIT * (1 << tries)),
        }
        tries += 1;
    }
}
