//! Retries that are narrowed to tests: what the worker is told, and what makes such an attempt pass.

mod world;

use std::sync::Arc;

use graph::{
    AskedTests, AttemptNumber, AttemptReport, BuildId, Digest, JobName, Outcome, Partial, TestCase, TestName,
    TestOutcome,
};
use ropewalk_engine::{BuildOptions, BuildRequest, Effect, Engine, Fact, Input, What};
use world::{World, graph, trace};

fn names(text: &str) -> Vec<TestName> {
    text.split_whitespace().map(|name| TestName { suite: String::new(), name: name.to_owned() }).collect()
}

fn asked(tests: &str, others_failed: &str, of: u64) -> Arc<AskedTests> {
    Arc::new(AskedTests { tests: names(tests), others_failed: names(others_failed), of, after: AttemptNumber(1) })
}

/// Job `a` of `jobs` has failed in build 1.
fn failed(jobs: &str) -> World {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.build(1, graph(jobs), BuildOptions::default());
    world.act("a fails");
    world
}

/// The steps of the running attempt of job `a` of build 1 pass, and its reports hold these tests: `+` passed, `-` failed.
fn report(world: &mut World, tests: &str) {
    let (attempt, lease) = world.lease(1, "a").expect("`a` runs");
    let case = |word: &str| TestCase {
        suite: String::new(),
        name: word[1..].to_owned(),
        outcome: if word.starts_with('+') { TestOutcome::Passed } else { TestOutcome::Failed },
        duration_ms: 0,
        message: String::new(),
        output: String::new(),
    };
    let tests = tests.split_whitespace().map(case).collect();
    let report = Box::new(AttemptReport { tests, ..AttemptReport::of(Outcome::passed(), world.now) });
    world.feed(Input::AttemptFinished { build: BuildId(1), attempt, lease, report });
}

/// The facts after the job was retried, and the note of its attempt. Facts must survive a trip through JSON and rebuild the engine.
#[track_caller]
fn compare(world: &World, expected: &str, note: &str) {
    let from = world.facts.iter().position(|fact| matches!(fact.what, What::JobRetried { .. })).expect("a retry");
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(trace(&world.facts[from..]), expected.join("\n"));
    let reports = world.facts.iter().filter_map(|fact| match &fact.what {
        What::AttemptFinished { report, .. } => Some(report),
        _ => None,
    });
    assert_eq!(reports.flat_map(|report| &report.notes).map(String::as_str).collect::<String>(), note);
    let mut rebuilt = Engine::new();
    for fact in &world.facts {
        let again: Fact =
            serde_json::from_str(&serde_json::to_string(fact).expect("facts serialize")).expect("they load");
        assert_eq!(&again, fact);
        rebuilt.apply(&again);
    }
    assert_eq!(rebuilt.portrait(), world.engine.portrait());
}

#[track_caller]
fn check(asked: Arc<AskedTests>, reported: &str, expected: &str, note: &str) {
    let mut world = failed("a [reports]:");
    world.retry(1, "a", Some(asked));
    report(&mut world, reported);
    compare(&world, expected, note);
}

const PASSES: &str = "a retried
    a leased 2 try 1
    a passed
    build passed";
const FAILS: &str = "a retried
    a leased 2 try 1
    a failed by step
    build failed";

#[test]
fn an_attempt_passes_if_its_reports_hold_what_was_asked_for() {
    check(asked("x y", "", 9), "+x +y", PASSES, "");
    check(asked("x", "", 9), "+x +y -z", PASSES, "");
    check(asked("x", "z", 9), "+x +y +z", PASSES, "");
}

#[test]
fn an_attempt_whose_reports_lack_a_test_fails_whatever_its_steps_say() {
    check(asked("x y z", "", 9), "+x +y", FAILS, "the retry was asked for 3 tests; `z` was not in its reports");
    check(asked("x", "", 9), "", FAILS, "the retry was asked for 1 test; `x` was not in its reports");
    check(asked("x", "", 9), "-x", FAILS, "the retry was asked for 1 test; `x` was not reported as passed");
    let others = "the retry was asked for 1 test, which passed; 1 other test of the job failed before and was not asked for, `z` among them";
    check(asked("x", "z", 9), "+x", FAILS, others);
}

#[test]
fn the_worker_is_told_and_the_attempt_is_marked() {
    let mut world = failed("a [reports]:; b: a");
    world.retry(1, "a", Some(asked("x y", "", 240)));
    let spec = world.effects.iter().rev().find_map(|effect| match effect {
        Effect::Start { spec, .. } => Some(spec),
        _ => None,
    });
    let spec = spec.expect("the attempt starts");
    assert_eq!((&spec.asked, spec.operation), (&Some(asked("x y", "", 240)), None));
    let marks: Vec<_> = world
        .facts
        .iter()
        .filter_map(|fact| match fact.what {
            What::AttemptLeased { partial, .. } => Some(partial),
            _ => None,
        })
        .collect();
    assert_eq!(marks, [None, Some(Partial { asked: 2, of: 240 })]);
    assert_eq!(
        world
            .engine
            .wanted(world.now)
            .iter()
            .filter(|effect| matches!(effect, Effect::Start { spec, .. } if spec.asked.is_some()))
            .count(),
        1
    );
}

#[test]
fn a_lost_attempt_is_asked_for_the_same_again_and_a_whole_retry_for_all() {
    let mut world = failed("a [reports retry=0]:");
    world.retry(1, "a", Some(asked("x", "", 2)));
    world.act("a fails");
    world.act("retry a");
    world.act("a passes");
    let expected = "a retried
        a leased 2 try 1
        a failed by step
        build failed
        a retried
        a leased 3 try 1
        a passed
        build passed";
    compare(&world, expected, "");
    let mut world = failed("a [reports]:");
    world.retry(1, "a", Some(asked("x", "", 2)));
    for sentence in ["lost w", "worker v 1", "later 1000"] {
        world.act(sentence);
    }
    report(&mut world, "+y");
    assert!(
        matches!(&world.facts.last().expect("facts").what, What::BuildEnded { verdict } if verdict.word() == "failed")
    );
}

#[test]
fn what_was_seen_before_a_later_attempt_is_not_retried() {
    let mut world = failed("a [reports]:");
    world.act("retry a");
    world.act("a fails");
    let before = world.facts.len();
    world.retry(1, "a", Some(asked("x", "", 9)));
    assert_eq!(world.facts.len(), before);
}

#[test]
fn what_no_report_would_tell_or_is_out_of_bounds_is_not_retried() {
    let many: String = (0..=AskedTests::TESTS_MAX).map(|n| format!("t{n:04} ")).collect();
    for (jobs, tests) in
        [("a:", asked("x", "", 1)), ("a [reports]:", asked("", "", 1)), ("a [reports]:", asked(&many, "", 2000))]
    {
        let mut world = failed(jobs);
        let before = world.facts.len();
        world.retry(1, "a", Some(tests));
        assert_eq!(world.facts.len(), before);
    }
}

/// A build that asks from its beginning for tests of job `a`, as a local retry does.
fn asking(jobs: &str, tests: Arc<AskedTests>) -> World {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    let mut request = BuildRequest::new(graph::Event::new(graph::EventKind::Push), "pipeline");
    request.asked = [(JobName::from("a"), tests)].into();
    world.feed(Input::BuildRequested { build: BuildId(1), request: Box::new(request) });
    let evaluation = graph::Evaluation { graph: graph(jobs), ..Default::default() };
    world.evaluated(1, 0, evaluation);
    world
}

#[test]
fn a_build_that_asks_for_tests_neither_takes_nor_gives_a_result_for_reuse() {
    let mut world = asking("a [reports] [reuse]:", asked("x", "", 3));
    assert!(!world.effects.iter().any(|effect| matches!(effect, Effect::Resolve { .. })));
    let operation = Ok(Digest([1; 32]));
    world.feed(Input::OperationResolved { build: BuildId(1), job: "a".into(), operation, hit: None });
    report(&mut world, "+x");
    assert_eq!(trace(&world.facts[2..]), "a leased 1 try 1\na passed\nbuild passed");
    world.act("build 2 a [reports] [reuse]:");
    world.act("2.a resolves 1");
    assert_eq!(trace(&world.facts[world.facts.len() - 2..]), "2.a is operation 1\n2.a leased 2 try 1");
    // Of a job that no longer tells, the whole is run.
    let mut world = asking("a:", asked("x", "", 3));
    world.act("a passes");
    assert_eq!(trace(&world.facts[2..]), "a leased 1 try 1\na passed\nbuild passed");
}
