//! Retries that are narrowed to tests: what the worker is told, and what makes such an attempt pass.

mod world;

use std::sync::Arc;

use graph::asked::{Extent, KnownTests, RanWhole, Wanted};
use graph::{
    AskedTests, AttemptNumber, AttemptReport, BuildId, Digest, JobName, NeverRun, Outcome, Partial, TestCase, TestName,
    TestOutcome,
};
use ropewalk_engine::{BuildOptions, BuildRequest, Effect, Engine, Fact, Input, What};
use world::{World, graph, trace};

fn names(text: &str) -> Vec<TestName> {
    text.split_whitespace().map(|name| TestName { suite: String::new(), name: name.to_owned() }).collect()
}

/// Tests of a job that were compared with what ran in build 7, and found to have run.
fn asked(tests: &str, others_failed: &str, of: u64) -> Arc<AskedTests> {
    lacking(tests, others_failed, of, "")
}

/// As [`asked`], but for some that have not run.
fn lacking(tests: &str, others_failed: &str, of: u64, never_run: &str) -> Arc<AskedTests> {
    let never_run = names(never_run);
    let never_run = Some(NeverRun { passed_in: BuildId(7), count: never_run.len() as u64, tests: never_run });
    let (tests, others_failed) = (names(tests), names(others_failed));
    Arc::new(AskedTests { tests, others_failed, of, after: AttemptNumber(1), never_run })
}

/// Job `a` of `jobs` has failed in build 1.
fn failed(jobs: &str) -> World {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.build(1, graph(jobs), BuildOptions::default());
    world.act("a fails");
    world
}

/// Tests as words: `+` passed, `-` failed, `~` skipped.
fn cases(tests: &str) -> Vec<TestCase> {
    let case = |word: &str| TestCase {
        suite: String::new(),
        name: word[1..].to_owned(),
        outcome: match &word[..1] {
            "+" => TestOutcome::Passed,
            "-" => TestOutcome::Failed,
            _ => TestOutcome::Skipped,
        },
        duration_ms: 0,
        message: String::new(),
        output: String::new(),
    };
    tests.split_whitespace().map(case).collect()
}

/// The steps of the running attempt of job `a` of build 1 pass, and its reports hold these tests.
fn report(world: &mut World, tests: &str) {
    let (attempt, lease) = world.lease(1, "a").expect("`a` runs");
    let report = Box::new(AttemptReport { tests: cases(tests), ..AttemptReport::of(Outcome::passed(), world.now) });
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
fn what_never_ran_keeps_the_job_from_passing() {
    let missing = "the retry was asked for 1 test, which passed; 2 tests that ran when the job last passed whole, in build 7, have not \
                   passed this time, `y` among them: retry the job whole, also if tests were removed or renamed";
    check(lacking("x", "", 9, "y z"), "+x", FAILS, missing);
    check(lacking("x", "", 9, "y z"), "+x +y +z", PASSES, "");
    let one = "the retry was asked for 1 test, which passed; 1 test that ran when the job last passed whole, in build 7, has not passed \
               this time, `z` among them: retry the job whole, also if tests were removed or renamed";
    check(lacking("x", "", 9, "y z"), "+x +y -z", FAILS, one);
    // Where nothing is known with which to compare, that is told.
    let uncompared = AskedTests { never_run: None, ..AskedTests::clone(&asked("x", "", 9)) };
    check(Arc::new(uncompared), "+x", PASSES, AskedTests::UNCOMPARED);
}

#[test]
fn a_retry_of_the_whole_job_forgets_what_never_ran() {
    let mut world = failed("a [reports retry=0]:");
    world.retry(1, "a", Some(lacking("x", "", 2, "y")));
    report(&mut world, "+x");
    world.act("retry a");
    world.act("a passes");
    let verdict = &world.facts.last().expect("facts").what;
    assert!(matches!(verdict, What::BuildEnded { verdict } if verdict.word() == "passed"), "{verdict:?}");
}

/// Whatever is asked for, known and reported: a job passes only if of each test that ran before the newest report says that it passed.
#[test]
fn no_attempt_passes_while_a_test_that_is_known_of_has_not() {
    let outcomes = ["+", "-", "~", ""];
    let written = |which: usize, name: &str| match outcomes[which % 4] {
        "" => String::new(),
        sign => format!("{sign}{name} "),
    };
    let mut n_passed = 0;
    for case in 0..4096 {
        let digit = |place: u32| case / 4usize.pow(place);
        let whole = "+a +b ~c ";
        let first = format!("-a {}{}", written(digit(0), "b"), written(digit(1), "c"));
        let second = format!("{}{}{}", written(digit(2), "a"), written(digit(3), "b"), written(digit(4), "c"));
        let mut known = KnownTests::default();
        cases(&first).iter().for_each(|case| known.add(AttemptNumber(1), Extent::Whole, case));
        known.compare(RanWhole::new(BuildId(7), &cases(whole), 100));
        let wanted = if digit(5) % 2 == 0 { Wanted::Failing } else { Wanted::Named(vec!["a".to_owned()]) };
        let tests = Arc::new(AskedTests::choose(&known, &wanted).expect("`a` failed"));
        let mut world = failed("a [reports]:");
        world.retry(1, "a", Some(tests));
        report(&mut world, &second);
        cases(&second).iter().for_each(|case| known.add(AttemptNumber(2), Extent::Part, case));
        let last = &world.facts.last().expect("facts").what;
        if !matches!(last, What::BuildEnded { verdict } if verdict.word() == "passed") {
            continue;
        }
        n_passed += 1;
        // What fails while the steps pass is what the steps put up with.
        let failed: Vec<&TestName> =
            known.failed().filter(|test| !second.contains(&format!("-{}", test.name))).collect();
        assert_eq!(failed, Vec::<&TestName>::new(), "{first}/ {second}");
        let missing = known.never_run(&[]).expect("it was compared");
        assert_eq!(missing.count, 0, "{first}/ {second}");
    }
    assert!(n_passed > 100, "{n_passed} passed");
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
fn a_further_try_does_not_pass_while_what_failed_in_the_one_before_has_not() {
    for (second, expected) in [("+x", "failed"), ("+x +y", "passed")] {
        let mut world = asking("a [reports retry=1]:", asked("x", "", 3));
        report(&mut world, "-x -y");
        world.act("later 2000");
        report(&mut world, second);
        let last = &world.facts.last().expect("facts").what;
        assert!(matches!(last, What::BuildEnded { verdict } if verdict.word() == expected), "{second}: {last:?}");
    }
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
    world.feed(Input::OperationResolved { build: BuildId(1), job: "a".into(), operation, hit: None, evicted: None });
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
