//! `ropewalk run`: the whole walk of one local build.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use engine::fact::What;
use engine::{BuildOptions, BuildRequest, Engine, Fact, FailurePolicy, Input};
use graph::{BuildId, Diagnostic, Event, Graph, Job, JobName, Known, Verdict, Waits, WorkerId, WorkspaceKind};
use server::Shell;
use store::Claim;
use worker::keeper::{Keeper, Processes};
use worker::workspace::{Blind, Look, Seen, Snapshot, WorkspaceError};

use super::Stop;
use crate::args::{Colour, Output, Run, RunHow};
use crate::child::{self, Inside};
use crate::columns::Paint;
use crate::keeping::SharedView;
use crate::local::clock::now;
use crate::local::inputs::{self, Begun, Inputs};
use crate::local::secrets::SecretSource;
use crate::local::slots::{Lender, Slots};
use crate::local::turns::Turns;
use crate::local::world::{GatePolicy, LocalWorld, Parts, WORKER};
use crate::pipeline::{AtStart, Pipeline};
use crate::places::Places;
use crate::program::testing::{self, Tests};
use crate::project::{PIPELINE_FOLDER, Project};
use crate::retention::{self, CacheBounds, Retention};
use crate::shortcut::{Key, Unchanged};
use crate::view::json::Json;
use crate::view::live::Live;
use crate::view::plain::{Detail, Plain};
use crate::view::suspension::Suspension;
use crate::view::{Moment, Opening, View, Wants};
use crate::whereabouts::Whereabouts;
use crate::{control, ending, event, exit, given_up, output, shortcut};

/// Runs the command.
///
/// # Errors
/// If the build cannot begin, or its records cannot be kept.
pub fn run(arguments: &Run, project: &Project, colour: Colour) -> Result<u8, Stop> {
    if let Some(build) = &arguments.resume {
        return resume(build.as_deref(), &arguments.how, project, colour);
    }
    // git looks while all the rest is made ready.
    let look = Look::begin(&project.root);
    let pipeline = Pipeline::load(project, arguments.source.pipeline.as_deref(), colour)?;
    let event = event::of(&arguments.event, project, None, now()).map_err(Stop::wrong)?;
    if let Some(program) = pipeline.program()
        && let Tests::Failed { said } = testing::before_run(program, None)?
    {
        let request = request(event, &pipeline, BuildOptions::default());
        return tests_failed(request, testing::failure(program, &said), project);
    }
    let only: BTreeSet<String> = arguments.jobs.iter().cloned().collect();
    let on_failure = if arguments.fail_fast { FailurePolicy::FailFast } else { FailurePolicy::KeepGoing };
    let options = BuildOptions { only, on_failure, ..BuildOptions::default() };
    if let Some(inside) = &project.inside {
        let options = BuildOptions { reuse: arguments.how.reuse(), ..options };
        return run_inside(inside, event, options, (pipeline, look), arguments, project, colour);
    }
    if arguments.later || !arguments.hand_on.is_empty() {
        return Err(Stop::wrong("--later and --hand-on are for steps of a build, which run in its workspace"));
    }
    let mut event = event;
    let key = Key::new(&pipeline.texts(), &event, &options);
    if !arguments.how.no_reuse
        && arguments.how.output != Output::Json
        && let Some(unchanged) = shortcut::find(&project.data, &project.root, &key)
    {
        return nothing_changed(&unchanged, project, request(event, &pipeline, options));
    }
    // Forked before anything can start a thread.
    let keeper = Keeper::start().map_err(|error| Stop::of(&error))?;
    pipeline.check(&mut event, event::kind_choice(&arguments.event), event::unanswered(&arguments.event), colour)?;
    pipeline.check_names(&event, &options.only)?;
    pipeline.check_machine(&event, &options.only, colour)?;
    let places = Places::open(project)?;
    child::tell_forgotten(&places)?;
    let options = BuildOptions { reuse: arguments.how.reuse(), ..options };
    let request = request(event, &pipeline, options);
    let start = Start { key: Some(key), ..Start::new(request, pipeline, Sight::Coming(look), &places)? };
    execute(start, keeper, &places, &arguments.how, project, colour)
}

/// Runs a child of the build whose step started this process, or only asks for it.
fn run_inside(
    inside: &Inside,
    mut event: Event,
    options: BuildOptions,
    (pipeline, look): (Pipeline, Look),
    arguments: &Run,
    project: &Project,
    colour: Colour,
) -> Result<u8, Stop> {
    let keeper = Keeper::start().map_err(|error| Stop::of(&error))?;
    let places = Places::open(project)?;
    let waits = if arguments.later { Waits::No } else { Waits::ForVerdict };
    inside.adopt(&mut event, &arguments.event, waits, &*places.store)?;
    pipeline.check(&mut event, event::kind_choice(&arguments.event), event::unanswered(&arguments.event), colour)?;
    pipeline.check_names(&event, &options.only)?;
    pipeline.check_machine(&event, &options.only, colour)?;
    event.checkout = look.checkout();
    let request = request(event, &pipeline, options);
    child::refuse_circle(&request, &*places.store)?;
    if arguments.later {
        return child::ask(request, &places);
    }
    // No shortcut: the files of a workspace are never those of the next one.
    let start = Start::new(request, pipeline, Sight::Unasked, &places)?;
    let build = start.build;
    let how = RunHow { grace: inside.grace(arguments.how.grace), ..arguments.how.clone() };
    let code = execute(start, keeper, &places, &how, project, colour)?;
    if code == exit::PASSED {
        child::hand_on(&arguments.hand_on, build, &*places.store)?;
    }
    Ok(code)
}

fn request(event: Event, pipeline: &Pipeline, options: BuildOptions) -> BuildRequest {
    BuildRequest { options, client: "local".to_owned(), ..BuildRequest::new(event, pipeline.name()) }
}

/// Records a build in which every job would be reused.
fn nothing_changed(unchanged: &Unchanged, project: &Project, request: BuildRequest) -> Result<u8, Stop> {
    let places = Places::open(project)?;
    let build = places.store.reserve_build()?;
    let note = format!(
        "nothing changed since build {}: {} cached",
        unchanged.build,
        crate::words::count(usize::try_from(unchanged.jobs).unwrap_or(usize::MAX), "job")
    );
    let at = now();
    let verdict = Verdict::Passed { note: Some(note.clone()) };
    let options = BuildOptions { unchanged_since: Some(unchanged.build), ..request.options };
    let request = BuildRequest { options, ..request };
    let facts = [What::BuildCreated(Box::new(request)), What::BuildEnded { verdict }];
    places.store.append(&facts.map(|what| Fact { build, at, what }))?;
    output::print(format!("build {build}: {note}\n"))?;
    Ok(exit::PASSED)
}

/// Records a build that ended before any job began, since the tests of its pipeline do not pass. They have been shown.
fn tests_failed(request: BuildRequest, failure: Diagnostic, project: &Project) -> Result<u8, Stop> {
    let places = Places::open(project)?;
    let build = places.store.reserve_build()?;
    let at = now();
    let name = request.pipeline.clone();
    let evaluated =
        What::Evaluated { graph: Arc::default(), questions: Vec::new(), diagnostics: vec![failure], program: None };
    let ended = What::BuildEnded { verdict: Verdict::Failed { because: None } };
    let facts = [What::BuildCreated(Box::new(request)), evaluated, ended];
    places.store.append(&facts.map(|what| Fact { build, at, what }))?;
    Err(Stop::wrong(format!(
        "the tests of {name} do not pass; nothing was run (`ropewalk show {build}` shows what they said, `ropewalk test` runs them again)"
    )))
}

/// Goes on with a build that nobody runs: with the one that `build` names, see [`crate::places::find_build`], or the newest that has not
/// ended.
fn resume(build: Option<&str>, how: &RunHow, project: &Project, colour: Colour) -> Result<u8, Stop> {
    let keeper = Keeper::start().map_err(|error| Stop::of(&error))?;
    let places = Places::open(project)?;
    let build = match build {
        Some(build) => places.build(build)?,
        None => child::newest_unfinished(&places)?.ok_or_else(|| {
            Stop::wrong("every build has ended: there is nothing to go on with; `ropewalk run` begins a new one")
        })?,
    };
    let claim = claim(build, &places)?;
    let taken = Taken { build, claim, inputs: Vec::new() };
    go_on(taken, keeper, &places, how, project, colour)
}

/// A build that this process has claimed and goes on with.
pub struct Taken {
    /// Its number.
    pub build: BuildId,
    /// Nothing is killed or written without it: what it had started, and what it told, is otherwise another process's.
    pub claim: Claim,
    /// What to tell the engine first.
    pub inputs: Vec<Input>,
}

/// Goes on with a build that nobody ran until it was taken.
///
/// # Errors
/// If there is no such build, it has ended, or a job of another waited for it.
pub fn go_on(
    taken: Taken,
    keeper: Keeper,
    places: &Places,
    how: &RunHow,
    project: &Project,
    colour: Colour,
) -> Result<u8, Stop> {
    let Taken { build, claim, inputs } = taken;
    let facts = places.store.facts(build)?;
    let (mut request, mut program) = (None, None);
    let mut engine = Engine::new();
    for fact in &facts {
        match &fact.what {
            engine::fact::What::BuildCreated(created) => request = Some(created.clone()),
            // The first is that which is asked ever after.
            engine::fact::What::Evaluated { program: Some(digest), .. } => drop(program.get_or_insert(*digest)),
            engine::fact::What::BuildEnded { verdict } => {
                let text = crate::words::verdict(verdict);
                return Err(Stop::wrong(format!(
                    "build {build} has ended: it {text}; `ropewalk retry {build}` runs it again"
                )));
            }
            _ => {}
        }
        engine.apply(fact);
    }
    let Some(request) = request else {
        return Err(Stop::wrong(format!("there is no build {build}; `ropewalk builds` lists those that are kept")));
    };
    child::refuse_waited_for(build, &*places.store)?;
    // Should the keeper have died too, what it had started is still there.
    let killed = worker::keeper::kill_leftovers(&worker::marker_prefix(&project.data, build));
    if !killed.is_empty() {
        let _ = writeln!(
            std::io::stderr(),
            "note: ended {} processes that a killed run of this build had left",
            killed.len()
        );
    }
    // The attempts of the process that died are lost: told before anything is started again.
    let lost = engine.step(now(), vec![Input::WorkerLeft { worker: WorkerId(WORKER.into()) }]);
    places.store.append(&lost.facts)?;
    for said in given_up::children_left(&*places.store, build, None)? {
        let _ = writeln!(std::io::stderr(), "note: {said}");
    }
    let facts = facts.into_iter().chain(lost.facts).collect();
    tell_moved(build, &request.event, project);
    let begun = AtStart { program, texts: texts_at_start(build, &request.pipeline, project) };
    let pipeline = Pipeline::begun(project, &request.pipeline, begun, colour).map_err(|stop| match program {
        Some(_) => Stop {
            message: format!("{}; `ropewalk retry {build}` begins anew with what is there now", stop.message),
            ..stop
        },
        None => stop,
    })?;
    let start = Start {
        sight: Sight::Unasked,
        build,
        claim: Rc::new(claim),
        engine,
        history: facts,
        inputs,
        event: request.event,
        pipeline,
        key: None,
    };
    execute(start, keeper, places, how, project, colour)
}

/// The files of a build's pipeline, and its program's sources, as they were when it began, by name. What cannot be had is left out: it is read as it
/// is now.
fn texts_at_start(build: BuildId, pipeline: &str, project: &Project) -> BTreeMap<String, Vec<u8>> {
    let read = || -> Result<_, WorkspaceError> {
        let start = Snapshot::reopen(&worker::snapshot_directory(&project.data, build))?;
        let is_source =
            |path: &PathBuf| path.starts_with(PIPELINE_FOLDER) && path.extension().is_some_and(|end| end == "rs");
        let mut wanted: Vec<PathBuf> = start.files()?.into_iter().filter(is_source).collect();
        wanted.extend(pipeline.split(", ").map(PathBuf::from));
        let texts = start.contents(&wanted)?;
        let named = |(path, text): (&PathBuf, Option<Vec<u8>>)| Some((path.display().to_string(), text?));
        Ok(wanted.iter().zip(texts).filter_map(named).collect())
    };
    read().unwrap_or_default()
}

/// Says that jobs which work in the tree itself will find another commit than the build's.
fn tell_moved(build: BuildId, event: &Event, project: &Project) {
    let Some(now) = worker::repository::head(&project.root).ok().and_then(|head| head.commit) else { return };
    if event.parent.is_none() && !event.commit.is_empty() && now != event.commit {
        let short = |commit: &str| commit.get(..12).unwrap_or(commit).to_owned();
        let (was, now) = (short(&event.commit), short(&now));
        let text = "its jobs have the files of its start, but for those that work in the tree itself";
        let _ = writeln!(std::io::stderr(), "note: build {build} began at {was}, and {now} is checked out now: {text}");
    }
}

fn claim(build: BuildId, places: &Places) -> Result<Claim, Stop> {
    places.store.claim(build)?.ok_or_else(|| {
        Stop::wrong(format!("build {build} is run by another process; `ropewalk logs {build} --follow` shows it"))
    })
}

/// What git says of the checkout that a build begins with.
pub enum Sight {
    /// It is being asked.
    Coming(Look),
    /// It has said it, or why it does not; nothing where there is no checkout.
    There(Result<Option<Seen>, Blind>),
    /// The request knows already.
    Unasked,
}

/// A build that is to begin or to go on.
pub struct Start {
    /// What git says goes into the request.
    pub sight: Sight,
    /// Its number.
    pub build: BuildId,
    /// Held until the last of it is written.
    claim: Rc<Claim>,
    /// An engine that holds its facts so far.
    pub engine: Engine,
    /// These facts.
    pub history: Vec<Fact>,
    /// What to tell the engine first.
    pub inputs: Vec<Input>,
    /// What happened.
    pub event: Event,
    /// The pipeline.
    pub pipeline: Pipeline,
    /// Under which a shortcut may be kept once it has passed.
    pub key: Option<Key>,
}

impl Start {
    /// A build with a number of its own that begins by this request, and for which no shortcut is kept.
    ///
    /// # Errors
    /// As the store refuses.
    pub fn new(request: BuildRequest, pipeline: Pipeline, sight: Sight, places: &Places) -> Result<Self, Stop> {
        let build = places.store.reserve_build()?;
        let claim = Rc::new(claim(build, places)?);
        let event = request.event.clone();
        let inputs = vec![Input::BuildRequested { build, request: Box::new(request) }];
        Ok(Self { sight, build, claim, engine: Engine::new(), history: Vec::new(), inputs, event, pipeline, key: None })
    }
}

/// Runs a build to its end, or until only gates are left and nobody watches.
///
/// # Errors
/// If it cannot begin, or its records cannot be kept.
pub fn execute(
    mut start: Start,
    keeper: Keeper,
    places: &Places,
    how: &RunHow,
    project: &Project,
    colour: Colour,
) -> Result<u8, Stop> {
    let (build, _claim) = (start.build, Rc::clone(&start.claim));
    let secrets = SecretSource::read(how.secrets.as_deref()).map_err(Stop::wrong)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(|error| Stop::infra(format!("could not start: {error}")))?;
    let key = start.key.take();
    let world = runtime.block_on(build_to_end(start, keeper, places, how, project, colour, secrets))?;
    drop(runtime);
    let code = match &world.verdict {
        None => exit::WAITING,
        Some(verdict) => code_of(verdict, &world),
    };
    if let (Some(key), Some(Verdict::Passed { note: None })) = (&key, &world.verdict)
        && let (Some(graph), Some(seen)) = (&world.graph, world.seen())
        && !world.has_asked
        && world.failed.is_empty()
    {
        // Losing it costs time only.
        let _ = shortcut::keep(&project.data, &project.root, key, build, graph, &seen);
    }
    ending::show(&world, places, &project.root, build, how.output, colour)?;
    retire_workspaces(&project.data, places, build);
    let kept = retention::apply(places, Retention::of_environment(), build, now())
        .and_then(|()| retention::apply_to_steps(places, build))
        .and_then(|()| retention::apply_to_caches(places, CacheBounds::of_environment(), now()).map(drop));
    if let Err(stop) = kept {
        let _ = writeln!(std::io::stderr(), "note: {}", stop.message);
    }
    drop(world);
    child::go_on((build, code), how, places, project, colour)
}

/// How many of the newest builds keep the workspaces of their jobs, for `ropewalk shell`.
const BUILDS_WITH_WORKSPACES: u64 = 20;
/// The most builds whose workspaces are removed after one run, so that no run waits long for it.
const RETIRED_MAX: usize = 5;

/// Removes the workspaces of builds that are old and have ended. What cannot be removed is tried again after a later run.
fn retire_workspaces(data: &std::path::Path, places: &Places, newest: BuildId) {
    let Ok(entries) = std::fs::read_dir(data.join("workspaces")) else { return };
    let mut old: Vec<u64> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|build| build + BUILDS_WITH_WORKSPACES <= newest.0)
        .collect();
    old.sort_unstable();
    for build in old.into_iter().take(RETIRED_MAX) {
        let has_ended =
            places.store.build(BuildId(build)).is_ok_and(|row| row.is_none_or(|row| row.finished.is_some()));
        if has_ended {
            let _ = worker::workspace::remove_tree(&data.join("workspaces").join(build.to_string()));
        }
    }
}

async fn build_to_end(
    mut start: Start,
    keeper: Keeper,
    places: &Places,
    how: &RunHow,
    project: &Project,
    colour: Colour,
    secrets: SecretSource,
) -> Result<LocalWorld, Stop> {
    let build = start.build;
    let stdout = std::io::stdout();
    let form = form(how.output, &stdout);
    let lowered = start.pipeline.lower(&Known::of(start.event.clone()));
    let graph = &lowered.evaluation.graph;
    let names: Vec<JobName> = graph.jobs.keys().cloned().collect();
    // A store of this machine is one project's, and builds do not name it.
    let usual_ms = if form == Output::Live { places.store.durations("", &names)? } else { Default::default() };
    let graph_before = start.history.iter().rev().find_map(|fact| match &fact.what {
        engine::fact::What::Evaluated { graph, .. } => Some(Arc::clone(graph)),
        _ => None,
    });
    let opening = Opening { build, usual_ms, whereabouts: Whereabouts::here(), graph: graph_before };
    let view = SharedView::new(view(form, colour, opening));
    let processes = Processes::attach(keeper).map_err(|error| Stop::of(&error))?;
    let settings = worker::Settings {
        root: project.root.clone(),
        data: project.data.clone(),
        walled_off: crate::project::walled_off(&project.data),
        build,
        grace: std::time::Duration::from_secs(how.grace),
        observer: (view.wants() != Wants::Facts).then(|| Arc::new(view.clone()) as Arc<dyn worker::Observer>),
        shown: None,
        notes: Vec::new(),
        steps: crate::retention::step_bounds(),
        passed: worker::cache::Passed::default(),
    };
    // Of builds that somebody runs, this one apart, nothing is removed.
    let is_alive = |other: BuildId| other != build && places.is_run(other).unwrap_or(true);
    match worker::container::remove_leftovers(&project.data, is_alive).await {
        Ok(0) => {}
        Ok(count) => {
            let text = "containers, networks and volumes that a killed run had left";
            let _ = writeln!(std::io::stderr(), "note: removed {count} {text}");
        }
        Err(error) => {
            let error = error.with_hint();
            let _ =
                writeln!(std::io::stderr(), "note: what a killed run had left in containers was not removed: {error}");
        }
    }
    let worker =
        worker::Worker::new(processes.clone(), settings).await.map(Rc::new).map_err(|error| Stop::of(&error))?;
    note_start(&mut start, graph, &worker)?;
    let (inbox, inputs) = server::shell::inbox();
    let (parallel, slots) = slots_of(how, &start.event, project, places)?;
    let lent = control::Lent { count: parallel, slots: slots.to_lend() };
    let above = match &project.inside {
        Some(_) => child::jobs_waiting_above(&*places.store, &start.event)?,
        None => Vec::new(),
    };
    let turns = Turns::new(&project.data, build, start.event.trust, above, Arc::clone(&places.store));
    let turns = Rc::new(turns);
    let _listener = control::Listener::start(&project.data, build, inbox.clone(), lent, Rc::clone(&turns))
        .map_err(|error| Stop::infra(format!("could not listen for `cancel` and `approve`: {error}")))?;
    let stats = project.data.join("stats");
    let inputs_file = worker::snapshot_directory(&project.data, build).with_file_name("inputs");
    let mut world = LocalWorld::new(Parts {
        build,
        event: start.event,
        pipeline: start.pipeline,
        store: Arc::clone(&places.store),
        blobs: Arc::clone(&places.blobs),
        log: places.log_writer(build)?,
        view: view.clone(),
        root: project.root.clone(),
        data: project.data.clone(),
        inputs: match start.history.is_empty() {
            true => Inputs::new(&project.root, stats, Begun::Here, None),
            false => {
                let kept = inputs::Seen::kept(&inputs_file).or_else(|| still_there(build, project, &stats));
                Inputs::new(&project.root, stats, Begun::Earlier, kept)
            }
        },
        worker: Rc::clone(&worker),
        secrets,
        reuse: how.reuse(),
        gates: Cell::new(match form {
            _ if project.inside.is_some() => GatePolicy::WaitedFor,
            Output::Live => GatePolicy::Wait,
            _ => GatePolicy::Leave,
        }),
        parallel,
        slots,
        turns: Rc::clone(&turns),
        inbox: inbox.clone(),
    });
    world.remember(&start.history);
    let ticks = (view.wants() == Wants::OutputAndTicks).then(|| tokio::task::spawn_local(tick(view.clone())));
    let signals = tokio::task::spawn_local(wait_for_signals(world.interrupter(), view.wants()));
    for input in start.inputs {
        let _ = inbox.send(input).await;
    }
    // A task of its own: the future that the runtime was begun with is woken through a descriptor, each time.
    let shell = Shell::new(start.engine, Arc::clone(&places.store), world, inputs);
    let ended = tokio::task::spawn_local(shell.run()).await;
    let ended = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    signals.abort();
    // While this process can still be asked for them.
    turns.close();
    if let Err(error) = turns.sweep() {
        let _ = writeln!(std::io::stderr(), "note: what killed runs had left in line was not removed: {error}");
    }
    if let Ok(world) = &ended
        && world.verdict.is_none()
        && let Err(error) = world.keep_inputs(&inputs_file)
    {
        let text = "the state of inputs was not kept, so that no earlier result is used when this build goes on";
        let _ = writeln!(std::io::stderr(), "note: {text}: {error}");
    }
    if let Some(ticks) = ticks {
        ticks.abort();
    }
    if let Err(error) = view.close() {
        let _ = writeln!(
            std::io::stderr(),
            "note: not all of this output could be written: {error}; `ropewalk show {build}` and `ropewalk logs {build}` have it"
        );
    }
    processes.close().await;
    ended.map_err(|error| Stop::kept(&error))
}

/// What the tree holds, if it has not changed since the start of a build that was killed before it kept that.
fn still_there(build: BuildId, project: &Project, stats: &std::path::Path) -> Option<inputs::Seen> {
    let start = Snapshot::reopen(&worker::snapshot_directory(&project.data, build)).ok()?;
    // Looked at first, so that a change meanwhile is told.
    let seen = inputs::look(&project.root, stats, inputs::Extent::Checkout).ok()?;
    start.changed_since_start().is_ok_and(|changed| changed.is_empty()).then_some(seen)
}

/// Has git tell in the request how the tree stands, and the worker of which state the files of jobs are to be.
///
/// # Errors
/// Jobs of the graph are to have a copy of files, and git does not say how these stand, or one cannot be read.
fn note_start(start: &mut Start, graph: &Graph, worker: &worker::Worker) -> Result<(), Stop> {
    let seen = match std::mem::replace(&mut start.sight, Sight::Unasked) {
        Sight::Coming(look) => look.seen(),
        Sight::There(seen) => seen,
        Sight::Unasked => {
            // A child's files are those of a workspace, and its commit that of its parent.
            if start.event.parent.is_none() && !start.history.is_empty() {
                let (commit, files) = (start.event.commit.clone(), Some(start.event.checkout));
                worker.note_start(worker::Start { commit, files });
            }
            return Ok(());
        }
    };
    let is_copied = |job: &Job| job.workspace == WorkspaceKind::Isolated && !job.steps.is_empty();
    let seen = match graph.jobs.values().any(|job| is_copied(job)) {
        true => {
            let seen = seen.map_err(|blind| Stop::wrong(blind.to_string()))?;
            if let Some(seen) = &seen {
                seen.check_readable().map_err(|error| Stop::wrong(Stop::of(&error).message))?;
            }
            seen
        }
        false => seen.ok().flatten(),
    };
    for input in &mut start.inputs {
        if let Input::BuildRequested { request, .. } = input {
            request.event.checkout = seen.as_ref().map_or(graph::Checkout::AsCommitted, Seen::checkout);
            if let Some(seen) = &seen {
                // Somebody may have checked out another one since the event was made.
                request.event.commit = seen.commit().unwrap_or_default();
                start.event.commit.clone_from(&request.event.commit);
            }
        }
    }
    worker.note_start(worker::Start { commit: start.event.commit.clone(), files: None });
    seen.into_iter().for_each(|seen| worker.note_seen(seen));
    Ok(())
}

/// One more than there are processors, so that none stands idle while the end of a job is recorded and the next one begins.
fn slots_by_default() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)).saturating_add(1)
}

/// How many jobs are begun at once, and the slots they run in: those of the outermost build, if this is a child that a job waits for.
fn slots_of(how: &RunHow, event: &Event, project: &Project, places: &Places) -> Result<(u32, Slots), Stop> {
    let lender = match &project.inside {
        Some(_) => child::waiting_above(&*places.store, event)?,
        None => None,
    };
    let lender = lender.map(|build| Lender { data: project.data.clone(), build });
    let shared = lender.as_ref().and_then(|lender| control::slots(&lender.data, lender.build));
    let parallel = how.parallel.or(shared).unwrap_or_else(slots_by_default).max(1);
    Ok(match lender.filter(|_| shared.is_some()) {
        Some(lender) => (parallel, Slots::borrowed(lender)),
        None => (parallel, Slots::own(parallel)),
    })
}

/// The form that `auto` stands for.
pub fn form(wanted: Output, stdout: &impl IsTerminal) -> Output {
    match wanted {
        Output::Auto if stdout.is_terminal() && output::has_cursor() => Output::Live,
        Output::Auto => Output::Plain,
        wanted => wanted,
    }
}

/// The view of this form, on standard output.
pub fn view(form: Output, colour: Colour, opening: Opening) -> Box<dyn View + Send> {
    let writer = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout());
    let paint = Paint::of(colour, &std::io::stdout());
    match form {
        Output::Live => Box::new(Live::new(writer, terminal_size, paint, opening).suspended_by(Suspension::heeded())),
        Output::Json => Box::new(Json::new(writer, opening.graph)),
        Output::Quiet => Box::new(Plain::new(writer, Detail::Endings, paint, opening)),
        Output::Plain | Output::Auto => Box::new(Plain::new(writer, Detail::Lines, paint, opening)),
    }
}

fn terminal_size() -> (u16, u16) {
    crossterm::terminal::size().unwrap_or((80, 24))
}

async fn tick(view: SharedView) {
    let mut interval = tokio::time::interval(std::time::Duration::from_millis(100));
    loop {
        interval.tick().await;
        view.show([Moment::Tick(now())]);
    }
}

/// The first Ctrl-C or SIGTERM asks for an end, the second kills. The terminal's end asks too, and never kills: kernel and shell both
/// tell of it. A live view says so itself: other lines would shift it.
async fn wait_for_signals(interrupter: crate::local::world::Interrupter, wants: Wants) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupts), Ok(mut terminates)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    let mut hangups = if ignores_hangups() { None } else { signal(SignalKind::hangup()).ok() };
    let mut count = 0;
    loop {
        let by = tokio::select! {
            _ = interrupts.recv() => "Ctrl-C",
            _ = terminates.recv() => "SIGTERM",
            _ = async { hangups.as_mut()?.recv().await }, if hangups.is_some() && count == 0 => "SIGHUP",
        };
        count += 1;
        if count == 1 {
            if wants != Wants::OutputAndTicks {
                let _ = writeln!(std::io::stderr(), "\ncanceling; once more kills at once");
            }
            interrupter.first(by).await;
        } else {
            interrupter.second(by);
        }
    }
}

/// Whether whoever started us wants the build to outlive the terminal, as `nohup` does.
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Source: proc_pid_status(5): a mask, of which the first signal, SIGHUP, is the lowest bit.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

fn code_of(verdict: &Verdict, world: &LocalWorld) -> u8 {
    match verdict {
        Verdict::Passed { .. } => exit::PASSED,
        Verdict::Canceled { .. } => exit::CANCELED,
        Verdict::Diverged { .. } | Verdict::Running => exit::FAILED,
        Verdict::Failed { because: None } => exit::WRONG,
        Verdict::Failed { because: Some(_) } => {
            let is_infra = |outcome: &graph::Outcome| {
                matches!(outcome, graph::Outcome::Failed(graph::Failure::Infra { .. } | graph::Failure::Lost))
            };
            // Only if nothing but the machine is to blame.
            let failures = world.failed.values().map(|(outcome, _)| outcome);
            if failures.clone().next().is_some() && failures.into_iter().all(is_infra) {
                exit::INFRA
            } else {
                exit::FAILED
            }
        }
    }
}
