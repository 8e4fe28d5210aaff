//! Traces of builds that jobs of a server's builds ask for.

mod world;

use graph::{BuildId, Evaluation, Event, EventKind, Failure, Outcome, Parent, Waits};
use ropewalk_engine::child::CHILDREN_MAX;
use ropewalk_engine::{BuildRequest, Effect, Engine, Fact, JobState, Wait};
use world::{World, graph, origin, trace};

/// A build of a server with these jobs, and one worker of one slot.
fn world_of(jobs: &str) -> World {
    let mut world = World::new();
    world.worker("w", 1, "", 0);
    add(&mut world, 1, jobs);
    world
}

fn add(world: &mut World, number: u64, jobs: &str) {
    let event = Event::new(EventKind::Push);
    world.request_as(number, BuildRequest { origin: origin(), ..BuildRequest::new(event, "pipeline") });
    world.evaluated(number, 0, graph::Evaluation { graph: graph(jobs), ..Default::default() });
}

/// Runs `script` and compares the facts after the evaluation; they rebuild the engine, in any order of builds.
#[track_caller]
fn check(jobs: &str, script: &str, expected: &str) -> World {
    check_in(world_of(jobs), script, expected)
}

/// Runs `script` in a world, as [`check`] does; the first two facts are not compared.
#[track_caller]
fn check_in(mut world: World, script: &str, expected: &str) -> World {
    for sentence in script.split(';').map(str::trim).filter(|sentence| !sentence.is_empty()) {
        world.act(sentence);
    }
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(trace(&world.facts[2..]), expected.join("\n"));
    assert_eq!(rebuilt(&world.facts, |_| 0).portrait(), world.engine.portrait());
    // What clients were charged, and where jobs are warm, depends on the order of the facts.
    let own = |engine: &Engine| {
        let portrait = engine.portrait();
        portrait.lines().filter(|line| !line.starts_with("shared")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(own(&rebuilt(&world.facts, |fact| fact.build.0)), own(&world.engine));
    assert_eq!(own(&rebuilt(&world.facts, |fact| u64::MAX - fact.build.0)), own(&world.engine));
    world
}

fn rebuilt(facts: &[Fact], order: impl Fn(&Fact) -> u64) -> Engine {
    let mut facts = facts.to_vec();
    facts.sort_by_key(order);
    let mut engine = Engine::new();
    for fact in &facts {
        let text = serde_json::to_string(fact).expect("facts serialize");
        engine.apply(&serde_json::from_str(&text).expect("facts load"));
    }
    engine
}

#[test]
fn a_job_ends_as_its_child_and_takes_no_slot() {
    let world = check(
        "a [child]:; b: a",
        "made 2 a x:; 2.x passes",
        "2.created
        a has build 2 try 1
        2.evaluated 1
        2.x leased 1 try 1
        2.x passed
        2.build passed
        a passed with build 2
        b leased 2 try 1",
    );
    assert!(matches!(world.engine.job(BuildId(1), &"b".into()), Some(JobState::Leased { .. })));
}

#[test]
fn a_child_that_fails_fails_its_job_and_a_retry_asks_anew() {
    check(
        "a [child]:",
        "made 2 a x:; 2.x fails; retry a; made 3 a x:; 3.x passes",
        "2.created
        a has build 2 try 1
        2.evaluated 1
        2.x leased 1 try 1
        2.x failed by step
        2.build failed
        a failed by step with build 2
        build failed
        a retried
        3.created
        a has build 3 try 1
        3.evaluated 1
        3.x leased 2 try 1
        3.x passed
        3.build passed
        a passed with build 3
        build passed",
    );
}

#[test]
fn a_job_tries_again_by_itself() {
    check(
        "a [child] [retry=1]:",
        "made 2 a x:; 2.x fails; later 1000; made 3 a x:; 3.x passes",
        "2.created
        a has build 2 try 1
        2.evaluated 1
        2.x leased 1 try 1
        2.x failed by step
        2.build failed
        a failed by step, again
        3.created
        a has build 3 try 2
        3.evaluated 1
        3.x leased 2 try 1
        3.x passed
        3.build passed
        a passed with build 3
        build passed",
    );
}

#[test]
fn who_does_not_wait_passes_at_once_and_its_cancel_leaves_the_child() {
    check(
        "a [later]:; b [pool=none]: a",
        "made 2 a x:; cancel; 2.x passes",
        "2.created
        a has build 2 try 1
        a passed with build 2
        2.evaluated 1
        2.x leased 1 try 1
        cancel by me
        b canceled by me
        build canceled
        2.x passed
        2.build passed",
    );
}

#[test]
fn a_canceled_build_cancels_what_it_waits_for_and_ends_with_it() {
    check(
        "a [child]:",
        "made 2 a x:; cancel; 2.x stops",
        "2.created
        a has build 2 try 1
        2.evaluated 1
        2.x leased 1 try 1
        cancel by me
        2.cancel by me
        2.x canceled by me
        2.build canceled
        a canceled by me with build 2
        build canceled",
    );
}

#[test]
fn a_job_is_canceled_alone_and_so_is_a_child() {
    check(
        "a [child]:; b [child]:",
        "made 2 a x [pool=none]:; drop a; made 3 b x [pool=none]:; cancel 3",
        "2.created
        a has build 2 try 1
        2.evaluated 1
        a to be canceled by me
        2.cancel by me
        2.x canceled by me
        2.build canceled
        a canceled by me with build 2
        3.created
        b has build 3 try 1
        3.evaluated 1
        3.cancel by me
        3.x canceled by me
        3.build canceled
        b canceled by the end of build 3, which was canceled by me with build 3
        build failed",
    );
}

#[test]
fn a_job_is_canceled_while_its_child_is_made() {
    check(
        "a [child]:",
        "cancel; made 2 a x:",
        "cancel by me
        a canceled by me
        build canceled",
    );
}

#[test]
fn time_runs_out() {
    check(
        "a [child] [limit=1000]:",
        "made 2 a x [pool=none]:; later 1000",
        "2.created
        a has build 2 try 1
        2.evaluated 1
        2.cancel by job `a` of build 1, whose 1 s were over
        2.x canceled by job `a` of build 1, whose 1 s were over
        2.build canceled
        a failed by timeout with build 2
        build failed",
    );
}

#[test]
fn a_child_that_cannot_be_made_says_why() {
    check("a [child]:", "a refused", "a failed by step\nbuild failed");
}

#[test]
fn what_a_child_does_not_hand_on_is_missed() {
    let world = check(
        "a [child] [hands=x.url]:",
        "made 2 a x:; 2.x passes",
        "2.created
        a has build 2 try 1
        2.evaluated 1
        2.x leased 1 try 1
        2.x passed
        2.build passed
        a failed by step with build 2
        build failed",
    );
    let Some(JobState::Ended(Outcome::Failed(Failure::Step { message: Some(message), .. }))) =
        world.engine.job(BuildId(1), &"a".into())
    else {
        panic!("it failed with words");
    };
    assert_eq!(message, "build 2 passed, and its job `x` handed on no `url`");
}

#[test]
fn what_a_matrix_hands_on_is_what_its_last_leg_gave() {
    let mut world = check(
        "a [child] [hands=m.url]:",
        "made 2 a m/1:, m/2: m/1",
        "2.created
        a has build 2 try 1
        2.evaluated 2
        2.m/1 leased 1 try 1",
    );
    for (leg, url) in [("m/1", "first"), ("m/2", "last")] {
        world.finish(2, leg, Outcome::Passed { outputs: [("url".to_owned(), url.into())].into() });
    }
    let handed_on = Outcome::Passed { outputs: [("out".to_owned(), "last".into())].into() };
    assert_eq!(world.engine.job(BuildId(1), &"a".into()), Some(JobState::Ended(&handed_on)));
}

#[test]
fn a_group_holds_one_child_at_a_time() {
    check(
        "a [child] [group=g]:; b [child] [group=g]:",
        "made 2 a x:; 2.x passes; made 3 b x:; 3.x passes",
        "2.created
        a has build 2 try 1
        2.evaluated 1
        2.x leased 1 try 1
        2.x passed
        2.build passed
        a passed with build 2
        3.created
        b has build 3 try 1
        3.evaluated 1
        3.x leased 2 try 1
        3.x passed
        3.build passed
        b passed with build 3
        build passed",
    );
}

#[test]
fn a_child_does_not_wait_for_the_group_that_its_parent_holds() {
    check(
        "a [child] [group=g]:",
        "made 2 a b [child]:; made 3 2.b x [group=g]:",
        "2.created
        a has build 2 try 1
        2.evaluated 1
        3.created
        2.b has build 3 try 1
        3.evaluated 1
        3.x failed by step
        3.build failed
        2.b failed by step with build 3
        2.build failed
        a failed by step with build 2
        build failed",
    );
}

/// The words with which a job failed.
#[track_caller]
fn message_of(world: &World, build: u64, job: &str) -> String {
    match world.engine.job(BuildId(build), &job.into()) {
        Some(JobState::Ended(Outcome::Failed(Failure::Step { message: Some(message), .. }))) => message.clone(),
        state => panic!("it failed with words: {state:?}"),
    }
}

#[test]
fn two_children_do_not_wait_for_the_groups_that_their_parents_hold_crosswise() {
    let mut world = world_of("a [child] [group=g1]:");
    add(&mut world, 5, "b [child] [group=g2]:");
    let world = check_in(
        world,
        "made 7 a x [group=g2]:; made 6 5.b y [group=g1]:; 7.x passes",
        "5.created
        5.evaluated 1
        7.created
        a has build 7 try 1
        7.evaluated 1
        6.created
        5.b has build 6 try 1
        6.evaluated 1
        6.y failed by step
        6.build failed
        5.b failed by step with build 6
        5.build failed
        7.x leased 1 try 1
        7.x passed
        7.build passed
        a passed with build 7
        build passed",
    );
    assert_eq!(
        message_of(&world, 6, "y"),
        "the group `g1` is held by job `a` of build 1, which waits in turn, for other groups, for this build: let all builds enter \
         the groups in one order"
    );
}

#[test]
fn who_is_no_longer_waited_for_waits_for_a_group_like_any_other() {
    let mut world = world_of("a [child] [group=g]:");
    for sentence in ["made 7 a x [child]:", "made 8 7.x y:"] {
        world.act(sentence);
    }
    let parent = Parent { build: BuildId(7), job: "x".into(), depth: 2, waits: Waits::ForVerdict };
    let event = Event { parent: Some(parent), ..Event::new(EventKind::Build) };
    world.request_as(9, BuildRequest { origin: origin(), ..BuildRequest::new(event, "pipeline") });
    world.evaluated(9, 0, Evaluation { graph: graph("z [group=g]:"), ..Evaluation::default() });
    assert!(matches!(world.engine.job(BuildId(9), &"z".into()), Some(JobState::Grouped)));
    for sentence in ["8.y passes", "9.z passes"] {
        world.act(sentence);
    }
}

#[test]
fn who_cancels_the_holder_of_its_group_waits_for_nobody() {
    let mut world = world_of("a [child] [group=g1]:");
    add(&mut world, 5, "b [child] [group=g2]:");
    check_in(
        world,
        "made 7 a x [group=g2]:; made 6 5.b y [running=g1]:; 6.y passes",
        "5.created
        5.evaluated 1
        7.created
        a has build 7 try 1
        7.evaluated 1
        6.created
        5.b has build 6 try 1
        6.evaluated 1
        7.cancel by job `y` of build 6
        7.x canceled by job `y` of build 6
        7.build canceled
        a canceled by the end of build 7, which was canceled by job `y` of build 6 with build 7
        build failed
        6.y leased 1 try 1
        6.y passed
        6.build passed
        5.b passed with build 6
        5.build passed",
    );
}

#[test]
fn a_child_runs_what_it_would_wait_for_if_that_waits_for_its_parent() {
    let mut world = world_of("h [child] [group=g]:");
    add(&mut world, 5, "l [reuse] [group=g]:");
    check_in(
        world,
        "5.l resolves 7; made 2 h y [reuse]:; 2.y resolves 7; 2.y passes; 5.l passes",
        "5.created
        5.evaluated 1
        5.l is operation 7
        2.created
        h has build 2 try 1
        2.evaluated 1
        2.y is operation 7
        2.y leased 1 try 1
        2.y passed
        2.build passed
        h passed with build 2
        build passed
        5.l leased 2 try 1
        5.l passed
        5.build passed",
    );
}

/// The wait for the group comes last: who waits for an equal operation lets go.
#[test]
fn a_child_no_longer_waits_for_equal_work_once_that_waits_for_its_parent() {
    let mut world = world_of("z [reuse]:");
    add(&mut world, 5, "h [child] [group=g]:");
    add(&mut world, 2, "l [reuse] [group=g]:");
    check_in(
        world,
        "z resolves 7; 2.l resolves 7; made 6 5.h y [reuse]:; 6.y resolves 7; z fails; 6.y passes; 2.l passes",
        "5.created
        5.evaluated 1
        2.created
        2.evaluated 1
        z is operation 7
        z leased 1 try 1
        2.l is operation 7
        6.created
        5.h has build 6 try 1
        6.evaluated 1
        6.y is operation 7
        z failed by step
        build failed
        6.y leased 2 try 1
        6.y passed
        6.build passed
        5.h passed with build 6
        5.build passed
        2.l leased 3 try 1
        2.l passed
        2.build passed",
    );
}

/// Whoever was killed between two of its acts asks again, and makes one child.
#[test]
fn an_engine_rebuilt_asks_once_more_and_takes_one_answer() {
    let world = world_of("a [child]:");
    let asked = |effects: &[Effect]| effects.iter().filter(|it| matches!(it, Effect::AskChild { .. })).count();
    assert_eq!(asked(&world.effects), 1);
    let mut again = World::new();
    again.engine = rebuilt(&world.facts, |_| 0);
    again.step(Vec::new());
    assert_eq!(asked(&again.effects), 1);
    assert_eq!(asked(&again.engine.wanted(again.now)), 1, "as long as nobody has answered");
    // What was asked for twice is answered twice, under two numbers.
    let answer = |number| {
        let request = BuildRequest { origin: origin(), ..BuildRequest::new(Event::new(EventKind::Build), "child") };
        again.prepared(1, "a", Ok((BuildId(number), Box::new(request))))
    };
    let answers = [answer(2), answer(3)];
    answers.into_iter().for_each(|answer| again.feed(answer));
    assert_eq!(trace(&again.facts), "2.created\na has build 2 try 1");
    let mut last = World::new();
    last.engine = rebuilt(&[world.facts.clone(), again.facts.clone()].concat(), |_| 0);
    last.step(Vec::new());
    assert_eq!(asked(&last.effects), 0, "it has its child");
}

#[test]
fn children_have_a_bound() {
    let mut world = world_of("a [child]:");
    for number in 0..u64::from(CHILDREN_MAX) {
        world.act(&format!("made {} a x [empty]: y", number + 2));
        world.act(&format!("cancel {}", number + 2));
        world.act("retry a");
    }
    world.act("made 900 a x:");
    let last = trace(&world.facts[world.facts.len() - 2..]);
    assert_eq!(last, "a failed by step\nbuild failed");
}

#[test]
fn who_waits_for_a_child_that_cannot_begin_is_told_so() {
    let world = check(
        "a [child]:",
        "made 2 a b [child]:; made 3 2.b x [pool=none]:",
        "2.created
        a has build 2 try 1
        2.evaluated 1
        3.created
        2.b has build 3 try 1
        3.evaluated 1",
    );
    let Some(Wait::Child { build: BuildId(2), stuck: Some((BuildId(3), job, wait)) }) =
        world.engine.why(BuildId(1), &"a".into())
    else {
        panic!("it waits for build 2");
    };
    assert_eq!(job.as_str(), "x");
    assert!(matches!(*wait, Wait::Worker { .. }));
}

#[test]
fn what_is_urgent_makes_its_children_urgent() {
    check(
        "a [child]:",
        "made 2 a x [pool=none]:; urge 1",
        "2.created
        a has build 2 try 1
        2.evaluated 1
        urgent by me
        2.urgent by me",
    );
}
