//! How an attempt that nobody wants any more comes to its end, whatever is lost on the way to its worker.

mod world;

use graph::{BuildId, Failure, LeaseId, Outcome};
use ropewalk_engine::{BuildOptions, Effect, Ended, Engine, Input, What};
use world::{World, graph, trace};

/// A build whose job runs on worker `w`.
fn running() -> World {
    let mut world = World::new();
    world.worker("w", 1, "", 0);
    world.build(1, graph("a:"), BuildOptions::default());
    world
}

/// What was told since, and by whom it is stopped.
fn take_stops(world: &mut World) -> Vec<(LeaseId, String)> {
    let effects = std::mem::take(&mut world.effects);
    let stop = |effect| match effect {
        Effect::Stop { lease, by, .. } => Some((lease, by)),
        _ => None,
    };
    effects.into_iter().filter_map(stop).collect()
}

#[test]
fn a_worker_is_told_to_stop_each_time_that_it_says_it_has_not() {
    for (request, by) in [("cancel", "me"), ("drop a", "me")] {
        let mut world = running();
        take_stops(&mut world);
        world.act(request);
        let told = take_stops(&mut world);
        assert_eq!(told, [(LeaseId(1), by.to_owned())], "{request}");
        world.act(request);
        assert_eq!(take_stops(&mut world), [], "nobody was heard of since: {request}");
        world.act("worker w 1");
        assert_eq!(take_stops(&mut world), told, "{request}");
        world.act("a stops");
        world.act("worker w 1");
        assert_eq!(take_stops(&mut world), [], "{request}");
    }
}

#[test]
fn a_newer_job_of_the_group_stops_the_older_one_until_it_has_heard() {
    let mut world = World::new();
    world.worker("w", 1, "", 0);
    world.build(1, graph("a [running=g]:"), BuildOptions::default());
    world.build(2, graph("a [running=g]:"), BuildOptions::default());
    let told = take_stops(&mut world);
    assert_eq!(told, [(LeaseId(1), "a newer job of its concurrency group".to_owned())]);
    world.act("worker w 1");
    assert_eq!(take_stops(&mut world), told);
}

#[test]
fn what_waits_for_a_group_is_canceled_by_one_of_another_engine_and_what_has_a_lease_is_not() {
    let mut world = World::new();
    world.worker("w", 3, "", 0);
    world.build(1, graph("a [group=g]:"), BuildOptions::default());
    world.build(2, graph("b [group=g]:; c [group=h]:"), BuildOptions::default());
    world.build(3, graph("d [group=h]:"), BuildOptions::default());
    let started = |world: &mut World| {
        let effects = std::mem::take(&mut world.effects);
        let group = |effect| match effect {
            Effect::Start { spec, group, .. } => Some(format!("{} {}", spec.name, group.as_deref().unwrap_or("-"))),
            _ => None,
        };
        effects.into_iter().filter_map(group).collect::<Vec<_>>()
    };
    assert_eq!(started(&mut world), ["a g", "c h"]);
    let n_facts = world.facts.len();
    let by = "job `deploy` of build 9".to_owned();
    world.feed(Input::GroupEntered { build: BuildId(1), group: "g".to_owned(), by: by.clone() });
    let canceled = Outcome::Failed(Failure::Canceled { by });
    let told: Vec<&What> = world.facts[n_facts..].iter().map(|fact| &fact.what).collect();
    assert_eq!(told, [&What::JobEnded { job: "b".into(), outcome: canceled, how: Ended::Decided }]);
    world.act("1.a passes");
    assert_eq!(started(&mut world), Vec::<String>::new());
    world.act("2.c passes");
    assert_eq!(started(&mut world), ["d h"]);
}

#[test]
fn an_engine_rebuilt_from_facts_stops_what_was_canceled_once_its_worker_is_there_again() {
    let mut world = running();
    world.act("cancel");
    let mut again = World::new();
    again.engine = Engine::new();
    world.facts.iter().for_each(|fact| again.engine.apply(fact));
    again.facts.clone_from(&world.facts);
    // Nobody is there to hear it.
    again.step(Vec::new());
    take_stops(&mut again);
    assert_eq!(again.engine.stopping(&[LeaseId(1), LeaseId(2)]), [LeaseId(1)].into());
    again.act("worker w 1");
    assert_eq!(take_stops(&mut again), [(LeaseId(1), "me".to_owned())]);
    again.act("a stops");
    assert_eq!(trace(&again.facts[3..]), "cancel by me\na canceled by me\nbuild canceled");
}

#[test]
fn what_goes_on_is_not_told_to_stop() {
    let mut world = running();
    world.act("worker w 1");
    assert_eq!(take_stops(&mut world), []);
    assert!(world.engine.stopping(&[LeaseId(1)]).is_empty());
}
