//! What builds of other projects, and of events that are not trusted, can do to a build: nothing, by its groups and its results.

#[expect(dead_code, reason = "its traces are for other tests")]
mod world;

use graph::{AttemptReport, BuildId, Digest, Event, EventKind, JobName, Outcome, StepReport, Trust};
use ropewalk_engine::{BuildRequest, Input, JobState};
use world::{World, graph, origin};

/// A build of one project and trust, with these jobs.
fn build(world: &mut World, number: u64, project: &str, trust: Trust, jobs: &str) {
    let mut event = Event::new(EventKind::Push);
    event.trust = trust;
    let origin = graph_origin(project, number);
    world.request_as(number, BuildRequest { origin, ..BuildRequest::new(event, "pipeline") });
    let evaluation = graph::Evaluation { graph: graph(jobs), ..graph::Evaluation::default() };
    world.evaluated(number, 0, evaluation);
}

fn graph_origin(project: &str, number: u64) -> graph::Origin {
    graph::Origin { project: project.to_owned(), number, ..origin() }
}

fn state(world: &World, number: u64) -> Option<JobState<'_>> {
    world.engine.job(BuildId(number), &"a".into())
}

fn runs(world: &World, number: u64) -> bool {
    matches!(state(world, number), Some(JobState::Leased { .. }))
}

/// Tells the operation of the job `a` of a build, the same for all.
fn resolve(world: &mut World, number: u64) {
    let (build, job) = (BuildId(number), JobName::from("a"));
    world.feed(Input::OperationResolved { build, job, operation: Ok(Digest([7; 32])), hit: None, evicted: None });
}

#[test]
fn a_group_is_of_one_project_and_one_trust() {
    for mode in ["group", "waiting", "running"] {
        let mut world = World::new();
        world.worker("w", 4, "", 0);
        let jobs = format!("a [{mode}=deploy]:");
        build(&mut world, 1, "sails", Trust::Trusted, &jobs);
        build(&mut world, 2, "ropes", Trust::Trusted, &jobs);
        build(&mut world, 3, "sails", Trust::Untrusted, &jobs);
        let running: Vec<u64> = (1..=3).filter(|number| runs(&world, *number)).collect();
        assert_eq!(running, [1, 2, 3], "{mode}");
        assert!(world.engine.stopping(&[graph::LeaseId(1)]).is_empty(), "{mode}: nobody was told to stop");
        build(&mut world, 4, "sails", Trust::Trusted, &jobs);
        assert!(!runs(&world, 4), "{mode}: one after another in its own");
    }
}

#[test]
fn a_trusted_build_neither_waits_for_nor_takes_what_an_untrusted_one_runs() {
    for (first, second) in [(Trust::Untrusted, Trust::Trusted), (Trust::Trusted, Trust::Untrusted)] {
        let mut world = World::new();
        world.worker("w", 2, "", 0);
        for (number, trust) in [(1, first), (2, second), (3, first)] {
            build(&mut world, number, "sails", trust, "a [reuse]:");
            resolve(&mut world, number);
        }
        assert!(runs(&world, 1) && runs(&world, 2), "each for itself");
        assert!(!runs(&world, 3), "the equal one of the same trust waits");
        // Its attempt goes on for the third, and never for the second.
        world.act("cancel");
        assert!(runs(&world, 3));
        let worker_of = |world: &World, number| world.lease(number, "a").map(|(_, lease)| lease);
        assert_eq!(worker_of(&world, 3).map(|lease| lease.0), Some(1));
        world.act("3.a passes");
        assert!(runs(&world, 2), "no result crosses");
        build(&mut world, 4, "sails", second, "a [reuse]:");
        resolve(&mut world, 4);
        assert!(!runs(&world, 4), "it waits for the second");
        world.act("2.a passes");
        assert!(matches!(state(&world, 4), Some(JobState::Ended(_))));
    }
}

#[test]
fn a_build_neither_waits_for_nor_takes_what_another_project_runs() {
    let mut world = World::new();
    world.worker("w", 2, "", 0);
    for (number, project) in [(1, "sails"), (2, "ropes"), (3, "sails")] {
        build(&mut world, number, project, Trust::Trusted, "a [reuse]:");
        // As an earlier version worked it out: its digests did not tell the project.
        resolve(&mut world, number);
    }
    assert!(runs(&world, 1) && runs(&world, 2) && !runs(&world, 3));
    world.act("1.a passes");
    assert!(runs(&world, 2), "no result crosses");
    assert!(matches!(state(&world, 3), Some(JobState::Ended(_))));
}

#[test]
fn what_was_evicted_is_taken_from_no_build() {
    let mut world = World::new();
    world.worker("w", 2, "", 0);
    for number in [1, 2, 3, 4, 5] {
        build(&mut world, number, "sails", Trust::Trusted, "a [reuse]:");
    }
    world.act("1.a resolves 7");
    world.act("1.a passes");
    world.act("2.a resolves 7");
    assert!(matches!(state(&world, 2), Some(JobState::Ended(_))), "the engine holds the result");
    world.act("3.a resolves 7 evicted");
    assert!(runs(&world, 3));
    // What ends later is another result.
    world.act("4.a resolves 7");
    world.act("later 1");
    world.act("3.a passes");
    assert!(matches!(state(&world, 4), Some(JobState::Ended(_))));
    world.act("5.a resolves 7");
    assert!(matches!(state(&world, 5), Some(JobState::Ended(_))));
}

#[test]
fn what_was_made_of_more_than_its_operation_is_taken_by_nobody() {
    let reads = |report: &mut AttemptReport| {
        let (name, result, at) = ("f".to_owned(), graph::StepResult::Passed, report.started);
        let outputs = [(graph::attempt::EVENT_READ.to_owned(), "branch".to_owned())].into();
        let (usage, exit, signal) = (graph::Usage::default(), Some(0), None);
        report.steps =
            vec![StepReport { name, exit, signal, result, started: at, finished: at, usage, outputs, lines: 0 }];
    };
    let changed = |report: &mut AttemptReport| report.notes = vec![format!("{}: a", graph::attempt::INPUT_CHANGED)];
    for spoil in [&reads as &dyn Fn(&mut AttemptReport), &changed] {
        let mut world = World::new();
        world.worker("w", 2, "", 0);
        for number in [1, 2, 3] {
            build(&mut world, number, "sails", Trust::Trusted, "a [reuse]:");
        }
        resolve(&mut world, 1);
        resolve(&mut world, 2);
        assert!(!runs(&world, 2), "it waits for the first");
        let (attempt, lease) = world.lease(1, "a").expect("it runs");
        let mut report = Box::new(AttemptReport::of(Outcome::passed(), world.now));
        spoil(&mut report);
        world.feed(Input::AttemptFinished { build: BuildId(1), attempt, lease, report });
        assert!(runs(&world, 2));
        world.act("2.a passes");
        resolve(&mut world, 3);
        assert!(matches!(state(&world, 3), Some(JobState::Ended(_))), "the second made it of its operation alone");
    }
}
