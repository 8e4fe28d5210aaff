//! Traces of facts: what follows from a graph and what happens to it.

mod world;

use graph::{BuildId, Evaluation, Hole, JobName, Location, Moved, Outcome, Question};
use ropewalk_engine::operation::{Work, operation};
use ropewalk_engine::wait::DEMANDS_MAX;
use ropewalk_engine::{BuildOptions, Effect, Engine, Fact, FailurePolicy, Input, Presence, What};
use world::{World, graph, trace};

/// Runs `script` (sentences between `;`) on a build of `jobs` with one worker `w` of four slots, and compares the
/// facts after the evaluation. Whatever happens, the facts must rebuild the engine and survive a trip through JSON.
#[track_caller]
fn check(jobs: &str, script: &str, expected: &str) {
    check_with(jobs, BuildOptions::default(), script, expected);
}

#[track_caller]
fn check_with(jobs: &str, options: BuildOptions, script: &str, expected: &str) {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.build(1, graph(jobs), options);
    for sentence in script.split(';').map(str::trim).filter(|sentence| !sentence.is_empty()) {
        world.act(sentence);
    }
    compare(&world, 2, expected);
}

#[track_caller]
fn compare(world: &World, n_skipped: usize, expected: &str) {
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(trace(&world.facts[n_skipped..]), expected.join("\n"));
    let mut rebuilt = Engine::new();
    for fact in &world.facts {
        let text = serde_json::to_string(fact).expect("facts serialize");
        let again: Fact = serde_json::from_str(&text).expect("facts load");
        assert_eq!(&again, fact);
        rebuilt.apply(&again);
    }
    assert_eq!(rebuilt.portrait(), world.engine.portrait());
}

#[test]
fn a_chain_passes() {
    check(
        "a:; b: a",
        "a passes; b passes",
        "a leased 1 try 1
        a passed
        b leased 2 try 1
        b passed
        build passed",
    );
}

#[test]
fn an_empty_graph_passes_with_nothing_to_do() {
    check("", "", "build passed");
}

#[test]
fn a_failure_skips_what_needs_it_and_names_the_smallest() {
    check(
        "a:; b:; c: a b; d: c",
        "b fails; a fails",
        "a leased 1 try 1
        b leased 2 try 1
        b failed by step
        a failed by step
        c skipped because of a
        d skipped because of c
        build failed",
    );
}

#[test]
fn failure_and_finished_needs() {
    check(
        "a:; f: !a; o: ~a; s: |f; t: f",
        "a passes; o passes; s passes",
        "a leased 1 try 1
        a passed
        f skipped because of a
        t skipped because of f
        o leased 2 try 1
        s leased 3 try 1
        o passed
        s passed
        build passed",
    );
}

#[test]
fn a_failure_that_is_allowed_is_a_warning() {
    check(
        "a [allow]:; b: a; c: !a",
        "a fails; b passes",
        "a leased 1 try 1
        a failed by step
        c skipped because of a
        b leased 2 try 1
        b passed
        build passed",
    );
}

#[test]
fn retries_wait_longer_each_time() {
    check(
        "a [retry=2]:",
        "a fails; later 999; later 1; a fails; later 1999; later 1; a fails",
        "a leased 1 try 1
        a failed by step, again
        a leased 2 try 2
        a failed by step, again
        a leased 3 try 3
        a failed by step
        build failed",
    );
}

#[test]
fn a_lost_worker_loses_its_leases_and_its_late_result_counts_for_nothing() {
    let mut world = World::new();
    world.worker("w", 1, "", 0);
    world.build(1, graph("a:"), BuildOptions::default());
    let (attempt, lease) = world.lease(1, "a").expect("it runs");
    world.act("lost w");
    world.act("later 1000");
    world.act("worker v 1");
    let report = Box::new(graph::AttemptReport::of(Outcome::passed(), world.now));
    world.feed(Input::AttemptFinished { build: BuildId(1), attempt, lease, report });
    world.act("a fails");
    compare(
        &world,
        2,
        "a leased 1 try 1
        a failed by lost, again
        a leased 2 try 2
        a failed by step
        build failed",
    );
}

#[test]
fn an_attempt_that_its_worker_tells_as_lost_took_the_time_since_its_lease() {
    let mut world = World::new();
    world.worker("w", 1, "", 0);
    world.build(1, graph("a:"), BuildOptions::default());
    let (attempt, lease) = world.lease(1, "a").expect("it runs");
    world.act("later 2000");
    // A worker that was killed and is back knows no more of it.
    let report = Box::new(graph::AttemptReport::of(Outcome::Failed(graph::Failure::Lost), world.now));
    world.feed(Input::AttemptFinished { build: BuildId(1), attempt, lease, report });
    let told = world.facts.iter().find_map(|fact| match &fact.what {
        What::AttemptFinished { report, .. } => Some(report.finished.ms_since(report.started)),
        _ => None,
    });
    assert_eq!(told, Some(2000));
}

#[test]
fn silence_loses_a_lease() {
    let mut world = World::new();
    world.worker("w", 1, "", 5000);
    world.build(1, graph("a [retry=0]:"), BuildOptions::default());
    world.act("later 4999");
    world.act("later 1");
    compare(&world, 2, "a leased 1 try 1\n a failed by lost\n build failed");
}

#[test]
fn cancel_ends_what_waits_stops_what_runs_and_lets_cleanup_run() {
    check(
        "a:; b: a; c [cleanup]: ~b",
        "cancel; a stops; c passes",
        "a leased 1 try 1
        cancel by me
        b canceled by me
        c leased 2 try 1
        a canceled by me
        c passed
        build canceled",
    );
}

#[test]
fn the_first_failure_stops_the_rest_if_asked() {
    let options = BuildOptions { on_failure: FailurePolicy::FailFast, ..BuildOptions::default() };
    check_with(
        "a:; b:; c: b; z [cleanup]: ~b",
        options,
        "a fails; b stops; z passes",
        "a leased 1 try 1
        b leased 2 try 1
        a failed by step
        c skipped NotWanted { text: \"the build stopped when `a` failed\" }
        b canceled by me
        z leased 3 try 1
        z passed
        build failed",
    );
}

#[test]
fn only_the_jobs_asked_for_and_what_they_need() {
    let options = BuildOptions { only: ["b".to_owned()].into(), ..BuildOptions::default() };
    check_with(
        "a:; b: a; c: a",
        options,
        "a passes; b passes",
        "c skipped NotWanted { text: \"the build did not ask for it\" }
        a leased 1 try 1
        a passed
        b leased 2 try 1
        b passed
        build passed",
    );
}

/// What a build of `only` says of a pipeline with which it is refused.
#[track_caller]
fn check_refused(only: &str, jobs: &str, expected: &str) {
    let mut world = World::new();
    world.worker("w", 1, "", 0);
    world.build(1, graph(jobs), BuildOptions { only: [only.to_owned()].into(), ..BuildOptions::default() });
    assert!(trace(&world.facts).ends_with("build failed"), "{}", trace(&world.facts));
    let told = world.facts.iter().find_map(|fact| match &fact.what {
        What::Evaluated { diagnostics, .. } => diagnostics.first().map(|told| told.message.clone()),
        _ => None,
    });
    assert_eq!(told.as_deref(), Some(expected));
}

#[test]
fn a_build_of_a_job_that_is_not_there_fails() {
    check_refused("nope", "a:; b: a", "the pipeline has no job `nope`, which the build was asked for");
}

#[test]
fn a_build_of_a_job_by_an_event_that_starts_nothing_says_so() {
    let expected = "the pipeline has no jobs for the event `push`, and the build was asked for job `a`";
    check_refused("a", "", expected);
}

/// `plan` waited for by `hole`, ends as `sentence` says, and then `jobs` are all: what becomes of a build of `only`.
#[track_caller]
fn check_only_of_grown(only: &str, hole: &str, sentence: &str, jobs: &str, expected: &str) {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.request(1, BuildOptions { only: [only.to_owned()].into(), ..BuildOptions::default() });
    let mut first = grown("plan:; other:", false);
    first.graph.holes[0].name = hole.to_owned();
    world.evaluated(1, 0, first);
    world.act(sentence);
    world.evaluated(1, 1, grown(jobs, true));
    compare(&world, 2, expected);
}

#[test]
fn a_growing_job_that_is_asked_for_and_comes_to_nothing_is_no_fault() {
    let expected = "plan leased 1 try 1
        plan passed
        answered Outcome(\"plan\")
        evaluated 2
        other skipped NotWanted { text: \"the build did not ask for it\" }
        build passed";
    for only in ["test", "test/1"] {
        check_only_of_grown(only, "test", "plan passes", "plan:; other:", expected);
    }
    let failed = expected.replace("plan passed", "plan failed by step").replace("build passed", "build failed");
    for (only, hole) in [("test", "test"), ("deploy", "then:plan")] {
        check_only_of_grown(only, hole, "plan fails", "plan:; other:", &failed);
    }
}

#[test]
fn what_a_program_has_not_named_yet_is_waited_for_by_a_build_of_an_unknown_job() {
    let expected = "plan leased 1 try 1
        plan passed
        answered Outcome(\"plan\")
        evaluated 3
        other skipped NotWanted { text: \"the build did not ask for it\" }
        deploy leased 2 try 1";
    check_only_of_grown("deploy", "then:plan", "plan passes", "plan:; other:; deploy: plan", expected);
    let missing = "plan leased 1 try 1
        plan passed
        answered Outcome(\"plan\")
        evaluated 2 unknown-job
        other canceled by the pipeline
        build failed";
    check_only_of_grown("deploy", "then:plan", "plan passes", "plan:; other:", missing);
    check_only_of_grown("test/2", "test", "plan passes", "plan:; other:; test/1: plan", missing);
}

/// `plan` asked for with `lint` and what grows out of it, and only the job `only` wanted: what becomes of each.
#[track_caller]
fn check_only_of_growing(only: &str, expected: &str) {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.request(1, BuildOptions { only: [only.to_owned()].into(), ..BuildOptions::default() });
    world.evaluated(1, 0, grown("plan:; lint:; other:; late: test", false));
    check_why(&world, 1, "other", r#"{"wait":"needs","jobs":["test"],"count":1}"#);
    world.act("plan passes");
    world.evaluated(1, 1, grown("plan:; lint:; other:; test/1: plan lint; late: test/1", true));
    for sentence in ["lint passes", "test/1 fails"] {
        world.act(sentence);
    }
    compare(&world, 2, expected);
}

#[test]
fn a_growing_job_that_is_asked_for_comes_with_what_it_waits_for_and_needs() {
    let expected = "plan leased 1 try 1
        plan passed
        answered Outcome(\"plan\")
        evaluated 5
        other skipped NotWanted { text: \"the build did not ask for it\" }
        lint leased 2 try 1
        lint passed
        test/1 leased 3 try 1
        test/1 failed by step";
    let left_out = "other skipped NotWanted { text: \"the build did not ask for it\" }";
    let late_too = format!("late skipped NotWanted {{ text: \"the build did not ask for it\" }}\n{left_out}");
    check_only_of_growing("test", &format!("{}\nbuild failed", expected.replace(left_out, &late_too)));
    check_only_of_growing("late", &format!("{expected}\nlate skipped because of test/1\nbuild failed"));
}

#[test]
fn what_nobody_asked_for_is_left_out_when_a_build_stops_before_it_has_grown() {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.request(1, BuildOptions { only: ["test".to_owned()].into(), ..BuildOptions::default() });
    world.evaluated(1, 0, grown("plan:; other [cleanup]:; plain:", false));
    world.act("cancel");
    world.act("plan stops");
    compare(
        &world,
        2,
        "plan leased 1 try 1
        cancel by me
        other skipped NotWanted { text: \"the build did not ask for it\" }
        plain canceled by me
        plan canceled by me
        build canceled",
    );
}

#[test]
fn conditions_see_needs_and_status() {
    check(
        "a:; b [if=needs.a.result=='passed']: ~a; c [if=failure()]: ~a; d [if=event.kind]: a; e [if=oops(]: a",
        "a passes; b passes; d passes",
        "a leased 1 try 1
        a passed
        c skipped, not failure()
        e failed: `if` cannot be evaluated: Unrecognized function: 'oops'. Located at position 1 within expression: oops(
        b leased 2 try 1
        d leased 3 try 1
        b passed
        d passed
        build failed",
    );
}

/// How a job ends whose `if` is this, with these variables.
#[track_caller]
fn check_variables(condition: &str, env: &[(&str, graph::Text)], expected: &str) {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    let mut graph = graph(&format!("a [if={condition}]:"));
    for job in graph.jobs.values_mut() {
        std::sync::Arc::make_mut(job).env = env.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
    }
    world.build(1, graph, BuildOptions::default());
    let ended = trace(&world.facts[2..]);
    assert_eq!(ended.lines().next(), Some(expected), "{condition}");
}

#[test]
fn a_condition_does_not_read_a_variable_that_only_a_worker_knows() {
    let env = [("LATE", graph::Text::Template("${{ runner.os }}".into())), ("NOW", "1".into())];
    let unfinished = "a failed: `if` cannot be evaluated: `env.LATE` has expressions of its own, which only a worker evaluates, and none \
                      runs the job yet: write them here";
    for condition in ["env.LATE==null", "env[format('L{0}','ATE')]==null", "toJSON(env)!=''", "contains(env.*,'1')"] {
        check_variables(condition, &env, unfinished);
    }
    let unset = |name: &str, advice: &str| {
        format!(
            "a failed: `if` cannot be evaluated: no `env` sets `{name}`, and what a worker has of its own is not known before it runs \
             the job: {advice}"
        )
    };
    let set_it = "set it in the `env` of the job or of the pipeline";
    for name in ["late", "now", "NONE"] {
        check_variables(&format!("env.{name}==null"), &env, &unset(name, set_it));
    }
    let of_worker = unset("ROPEWALK_BRANCH", "read `event.branch`");
    check_variables("env['ROPEWALK_BRANCH']=='main'", &env, &of_worker);
    check_variables("env.NOW=='1'", &env, "a leased 1 try 1");
    check_variables("env[format('N{0}','OW')]=='1'", &env[1..], "a leased 1 try 1");
}

#[test]
fn a_gate_waits_for_a_person_once() {
    check(
        "a [gate]:; b [gate empty]:; c [gate]:; d: c",
        "approve a; approve a; a passes; approve b; refuse c",
        "a asks go?
        b asks go?
        c asks go?
        a approved
        a leased 1 try 1
        a passed
        b approved
        b passed
        c rejected
        c skipped Rejected { by: \"me\" }
        d skipped because of c
        build passed",
    );
}

#[test]
fn one_job_at_a_time_in_a_group_in_order_of_arrival() {
    check(
        "a [group=g]:; b [group=g retry=1]:; c [group=g]:",
        "a passes; b fails; later 1000; b passes; c passes",
        "a leased 1 try 1
        a passed
        b leased 2 try 1
        b failed by step, again
        b leased 3 try 2
        b passed
        c leased 4 try 1
        c passed
        build passed",
    );
}

#[test]
fn a_newer_job_of_a_group_cancels_those_that_wait_or_run() {
    check(
        "a [waiting=g]:; n:; b [waiting=g]: n; c [running=g]: n",
        "n passes; a stops; c passes",
        "a leased 1 try 1
        n leased 2 try 1
        n passed
        b canceled by job `c` of build 1
        a canceled by me
        c leased 3 try 1
        c passed
        build failed",
    );
}

#[test]
fn equal_operations_run_once() {
    check(
        "a [reuse]:; b [reuse]:; c [reuse]:",
        "a resolves 7; b resolves 7; a passes; c resolves 7",
        "a is operation 7
        a leased 1 try 1
        b is operation 7
        a passed
        b passed as 1.a
        c is operation 7
        c passed as 1.a
        build passed",
    );
}

#[test]
fn a_follower_leads_when_a_whole_build_before_it_is_canceled() {
    let mut world = World::new();
    world.build(1, graph("a [reuse]:; b [reuse]:"), BuildOptions::default());
    world.build(2, graph("a [reuse]:"), BuildOptions::default());
    for sentence in ["1.a resolves 7", "1.b resolves 7", "2.a resolves 7", "cancel", "worker w 1", "2.a passes"] {
        world.act(sentence);
    }
    compare(
        &world,
        4,
        "a is operation 7
        b is operation 7
        2.a is operation 7
        cancel by me
        a canceled by me
        b canceled by me
        build canceled
        2.a leased 1 try 1
        2.a passed
        2.build passed",
    );
}

#[test]
fn a_failure_is_shared_within_its_build_only() {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.build(1, graph("a [reuse]:; b [reuse]:"), BuildOptions::default());
    world.build(2, graph("a [reuse]:"), BuildOptions::default());
    for sentence in ["1.a resolves 7", "1.b resolves 7", "2.a resolves 7", "1.a fails", "2.a passes"] {
        world.act(sentence);
    }
    compare(
        &world,
        4,
        "a is operation 7
        a leased 1 try 1
        b is operation 7
        2.a is operation 7
        a failed by step
        b failed by step as 1.a
        build failed
        2.a leased 2 try 1
        2.a passed
        2.build passed",
    );
}

#[test]
fn a_retried_job_puts_back_what_was_skipped_because_of_it() {
    check(
        "a:; b: a; c: b; d: ~a",
        "a fails; d passes; retry a; a passes; b passes; c passes; retry d",
        "a leased 1 try 1
        a failed by step
        b skipped because of a
        c skipped because of b
        d leased 2 try 1
        d passed
        build failed
        a retried
        a leased 3 try 1
        a passed
        b leased 4 try 1
        b passed
        c leased 5 try 1
        c passed
        build passed",
    );
}

/// A pipeline of `plan` and, once its outcome is known, `jobs`.
fn grown(jobs: &str, is_known: bool) -> Evaluation {
    let name = JobName::from("plan");
    let mut evaluation = Evaluation { graph: graph(jobs), ..Evaluation::default() };
    evaluation.questions.insert(Question::Outcome(name.clone()));
    if !is_known {
        evaluation.graph.holes.push(Hole { name: "test".to_owned(), after: vec![name] });
    }
    evaluation
}

#[test]
fn a_graph_grows_once_an_outcome_is_known() {
    let mut world = growing();
    world.act("plan passes");
    let is_asked = |effect: &Effect| matches!(effect, Effect::Evaluate { known, .. } if known.answers.len() == 1);
    assert_eq!(world.effects.iter().filter(|effect| is_asked(effect)).count(), 1);
    // Older knowledge is ignored, and so is the same evaluation a second time.
    world.evaluated(1, 0, grown("plan:; test:", true));
    world.evaluated(1, 1, grown("plan:; test/1: plan; test/2: plan; after: test/1 test/2", true));
    world.evaluated(1, 1, grown("plan:", true));
    for sentence in ["test/1 passes", "test/2 passes", "after passes"] {
        world.act(sentence);
    }
    compare(
        &world,
        2,
        "plan leased 1 try 1
        plan passed
        answered Outcome(\"plan\")
        evaluated 4
        test/1 leased 2 try 1
        test/2 leased 3 try 1
        test/1 passed
        test/2 passed
        after leased 4 try 1
        after passed
        build passed",
    );
}

#[test]
fn the_program_that_began_a_build_is_asked_ever_after() {
    let (first, other) = (graph::Digest([1; 32]), graph::Digest([2; 32]));
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.request(1, BuildOptions::default());
    world.evaluated(1, 0, Evaluation { program: Some(first), ..grown("plan:; after: test", false) });
    world.effects.clear();
    world.act("plan passes");
    let asked = |effects: &[Effect]| -> Vec<Option<graph::Digest>> {
        let program = |effect: &Effect| match effect {
            Effect::Evaluate { program, .. } => Some(*program),
            _ => None,
        };
        effects.iter().filter_map(program).collect()
    };
    assert_eq!(asked(&world.effects), [Some(first)]);
    // Who has only the facts knows it too, and an answer by another program changes nothing.
    let mut engine = Engine::new();
    world.facts.iter().for_each(|fact| engine.apply(fact));
    assert_eq!(asked(&engine.step(world.now, Vec::new()).effects), [Some(first)]);
    let mut evaluation = grown("plan:; test:; more:; after: test", true);
    evaluation.questions.insert(Question::Outcome("test".into()));
    world.evaluated(1, 1, Evaluation { program: Some(other), ..evaluation });
    world.effects.clear();
    world.act("test passes");
    assert_eq!(asked(&world.effects), [Some(first)]);
}

/// A build of a pipeline that is to grow, with `plan` under way.
fn growing() -> World {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.request(1, BuildOptions::default());
    world.evaluated(1, 0, grown("plan:; after: test", false));
    world
}

#[test]
fn a_build_that_stopped_while_it_grew_grows_again_after_a_retry() {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.request(1, BuildOptions { on_failure: FailurePolicy::FailFast, ..BuildOptions::default() });
    world.evaluated(1, 0, grown("plan:; b:; late: test", false));
    world.act("plan passes");
    world.act("b fails");
    world.evaluated(1, 1, grown("plan:; b:; test:; late: test", true));
    world.effects.clear();
    world.act("retry b");
    assert!(world.effects.iter().any(|effect| matches!(effect, Effect::Evaluate { .. })), "{:?}", world.effects);
    world.evaluated(1, 1, grown("plan:; b:; test:; late: test", true));
    world.act("b fails");
    world.act("test stops");
    compare(
        &world,
        2,
        "plan leased 1 try 1
        b leased 2 try 1
        plan passed
        answered Outcome(\"plan\")
        b failed by step
        late skipped NotWanted { text: \"the build stopped when `b` failed\" }
        build failed
        b retried
        b leased 3 try 1
        evaluated 4
        test leased 4 try 1
        b failed by step
        late skipped NotWanted { text: \"the build stopped when `b` failed\" }
        test canceled by me
        build failed",
    );
}

#[test]
fn an_evaluation_that_changes_what_has_begun_diverges() {
    let mut world = growing();
    world.act("plan passes");
    world.evaluated(1, 1, grown("plan [allow]:", true));
    compare(
        &world,
        2,
        "plan leased 1 try 1
        plan passed
        answered Outcome(\"plan\")
        evaluated 2 diverged
        after canceled by the pipeline
        build diverged",
    );
}

#[test]
fn both_versions_of_what_diverged_are_shown() {
    let mut world = growing();
    world.act("plan passes");
    let place = |line| Location { file: "p.rs".into(), line, column: 1, start: line, end: line + 1 };
    let moved = Moved { before: Some(place(3)), after: Some(place(9)) };
    let changed = grown("new:; plan [allow]:", true);
    world.evaluated(1, 1, Evaluation { moved: [("plan".into(), moved)].into(), ..changed });
    let evaluated = world.facts.iter().rev().find_map(|fact| match &fact.what {
        What::Evaluated { diagnostics, .. } => Some(diagnostics.clone()),
        _ => None,
    });
    let [diagnostic] = &evaluated.expect("it was evaluated")[..] else { panic!("one fault") };
    let (before, after) = diagnostic.label.split_once("; after: ").expect("both versions");
    assert!(before.starts_with("before: {") && !before.contains("allow_failure"), "{before}");
    assert!(after.contains("\"allow_failure\":true"), "{after}");
    // Its place among the others is for people, and no change.
    assert!(before.contains("\"order\":0") && after.contains("\"order\":0"), "{before} {after}");
    assert_eq!(diagnostic.location, Some(place(9)));
    assert_eq!(diagnostic.related, [(place(3), "the version that began was added here".to_owned())]);
}

#[test]
fn what_has_begun_and_is_no_longer_there_diverges() {
    let mut world = growing();
    world.act("plan passes");
    world.evaluated(1, 1, grown("other:", true));
    compare(
        &world,
        2,
        "plan leased 1 try 1
        plan passed
        answered Outcome(\"plan\")
        evaluated 2 diverged
        after canceled by the pipeline
        build diverged",
    );
}

#[test]
fn what_has_not_begun_may_still_change_or_go() {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.request(1, BuildOptions::default());
    world.evaluated(1, 0, grown("plan:; a [pool=far]: plan; b [pool=far]:; after: test", false));
    world.act("plan passes");
    world.evaluated(1, 1, grown("plan:; a: plan; test:; after: test", true));
    for sentence in ["a passes", "test passes", "after passes"] {
        world.act(sentence);
    }
    compare(
        &world,
        2,
        "plan leased 1 try 1
        plan passed
        answered Outcome(\"plan\")
        evaluated 4
        a leased 2 try 1
        test leased 3 try 1
        a passed
        test passed
        after leased 4 try 1
        after passed
        build passed",
    );
}

/// Whether `failure()` holds behind a job that does not run hangs on the pipeline alone, not on what ends first.
#[test]
fn failures_before_a_job_that_does_not_run_are_told_alike_in_every_order() {
    let condition = graph::SkipReason::Condition { text: "branch main".to_owned() };
    let need = graph::SkipReason::Need { because: "plan".into() };
    for (skip, told) in [(&condition, "report skipped, not failure()"), (&need, "report leased 3 try 1")] {
        for order in
            [["a fails", "plan passes", "grow"], ["plan passes", "a fails", "grow"], ["plan passes", "grow", "a fails"]]
        {
            let mut world = World::new();
            world.worker("w", 4, "", 0);
            world.request(1, BuildOptions::default());
            let grown_with = |text: &str, is_whole| {
                let mut evaluation = grown(text, is_whole);
                if let Some(job) = evaluation.graph.jobs.get_mut("quiet") {
                    std::sync::Arc::make_mut(job).skip = Some(skip.clone());
                }
                evaluation
            };
            let report = "report [if=failure()]: ~quiet ~test";
            let first = match skip {
                graph::SkipReason::Condition { .. } => format!("a:; plan:; quiet: ~a !plan; {report}"),
                // It is known not to run once it has grown.
                _ => "a:; plan:; report [if=failure()]: ~test".to_owned(),
            };
            world.evaluated(1, 0, grown_with(&first, false));
            for event in order {
                match event {
                    "grow" => {
                        let last = format!("a:; plan:; quiet: ~a !plan; test [empty]: plan; {report}");
                        world.evaluated(1, 1, grown_with(&last, true));
                    }
                    sentence => world.act(sentence),
                }
            }
            let facts = trace(&world.facts);
            assert!(facts.contains(told), "{skip:?}, {order:?}:\n{facts}");
        }
    }
}

#[test]
fn a_job_that_was_skipped_before_what_it_needs_had_grown_does_not_diverge() {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.request(1, BuildOptions::default());
    let with_skip = |mut evaluation: Evaluation| {
        let job = evaluation.graph.jobs.get_mut("after").expect("it is there");
        let text = "branch main".to_owned();
        std::sync::Arc::make_mut(job).skip = Some(graph::SkipReason::Condition { text });
        evaluation
    };
    world.evaluated(1, 0, with_skip(grown("plan:; after: plan test", false)));
    world.act("plan passes");
    world.evaluated(1, 1, with_skip(grown("plan:; test/1:; test/2:; after: plan test/1 test/2", true)));
    world.act("test/1 passes");
    world.act("test/2 passes");
    compare(
        &world,
        2,
        "after skipped, not branch main
        plan leased 1 try 1
        plan passed
        answered Outcome(\"plan\")
        evaluated 4
        test/1 leased 2 try 1
        test/2 leased 3 try 1
        test/1 passed
        test/2 passed
        build passed",
    );
}

#[test]
fn a_pipeline_that_asks_too_much_ends_its_build() {
    let mut world = World::new();
    world.request(1, BuildOptions::default());
    let mut evaluation = Evaluation { graph: graph("a:"), ..Evaluation::default() };
    evaluation.questions =
        (0..=ropewalk_engine::QUESTIONS_MAX).map(|number| Question::File(number.to_string())).collect();
    world.evaluated(1, 0, evaluation);
    compare(&world, 1, "evaluated 0 too-many-questions\n build failed");
}

#[test]
fn a_hole_keeps_its_build_running_until_the_answer() {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.request(1, BuildOptions::default());
    let asking = |is_known: bool| {
        let mut evaluation = Evaluation { graph: graph("a:"), ..Evaluation::default() };
        evaluation.questions.insert(Question::ChangedFiles);
        if !is_known {
            evaluation.graph.holes.push(Hole { name: "late".to_owned(), after: Vec::new() });
        }
        evaluation
    };
    world.evaluated(1, 0, asking(false));
    world.act("a passes");
    world.act("later 100000");
    let files = graph::Answer::Files(Vec::new());
    let answer = |answer| Input::Answered { build: BuildId(1), question: Question::ChangedFiles, answer };
    world.feed(answer(files.clone()));
    // A second answer to the same question is none, and old evaluations say nothing any more.
    world.feed(answer(graph::Answer::Files(vec!["x".to_owned()])));
    world.evaluated(1, 0, asking(true));
    world.evaluated(1, 1, asking(true));
    world.evaluated(1, 1, asking(false));
    compare(
        &world,
        2,
        "a leased 1 try 1
        a passed
        answered ChangedFiles
        evaluated 1
        build passed",
    );
}

#[test]
fn a_hole_that_nothing_can_fill_fails_the_build() {
    let mut world = growing();
    world.act("plan passes");
    world.evaluated(1, 1, grown("plan:; after: test", false));
    compare(
        &world,
        2,
        "plan leased 1 try 1
        plan passed
        answered Outcome(\"plan\")
        evaluated 2 never-filled
        after canceled by the pipeline
        build failed",
    );
}

#[test]
fn a_question_about_a_job_that_there_is_not_is_answered_at_the_end() {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.request(1, BuildOptions::default());
    let mut evaluation = Evaluation { graph: graph("a:"), ..Evaluation::default() };
    evaluation.questions.insert(Question::Outcome("nobody".into()));
    world.evaluated(1, 0, evaluation.clone());
    world.act("a passes");
    world.evaluated(1, 1, evaluation);
    compare(
        &world,
        2,
        "a leased 1 try 1
        a passed
        answered Outcome(\"nobody\")
        evaluated 1
        build passed",
    );
}

/// An evaluation of `jobs` that asks how `asked` ends and lets `late` wait for it.
fn asking_how(jobs: &str, asked: &str, is_known: bool) -> Evaluation {
    let mut evaluation = Evaluation { graph: graph(jobs), ..Evaluation::default() };
    evaluation.questions.extend(asked.split(' ').map(|name| Question::Outcome(name.into())));
    if !is_known {
        evaluation.graph.holes.push(Hole { name: "late".to_owned(), after: vec![asked.into()] });
    }
    evaluation
}

#[test]
fn a_question_about_a_matrix_is_answered_once_all_its_legs_have_ended() {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.request(1, BuildOptions::default());
    world.evaluated(1, 0, asking_how("m/9:; m/10:", "m", false));
    let outputs = |value: &str| Outcome::Passed { outputs: [("x".to_owned(), value.into())].into() };
    world.finish(1, "m/10", outputs("last in the matrix"));
    world.finish(1, "m/9", outputs("first in the matrix"));
    let answer = world.facts.iter().find_map(|fact| match &fact.what {
        What::Answered { answer, .. } => Some(answer.clone()),
        _ => None,
    });
    assert_eq!(answer, Some(graph::Answer::Outcome(outputs("last in the matrix"))));
    world.evaluated(1, 1, asking_how("m/9:; m/10:; late: m/9 m/10", "m", true));
    world.act("late passes");
    compare(
        &world,
        2,
        "m/9 leased 1 try 1
        m/10 leased 2 try 1
        m/10 passed
        m/9 passed
        answered Outcome(\"m\")
        evaluated 3
        late leased 3 try 1
        late passed
        build passed",
    );
}

#[test]
fn a_leg_that_failed_answers_for_its_matrix_and_can_be_retried_only_before() {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.request(1, BuildOptions::default());
    world.evaluated(1, 0, asking_how("m/1:; m/2:", "m m/1", false));
    for sentence in ["m/2 fails", "retry m/2", "m/2 fails", "m/1 stops", "retry m/2"] {
        world.act(sentence);
    }
    let answers = world.facts.iter().filter_map(|fact| match &fact.what {
        What::Answered { answer: graph::Answer::Outcome(outcome), .. } => Some(outcome.word()),
        _ => None,
    });
    assert_eq!(answers.collect::<Vec<_>>(), ["canceled", "failed"], "the worst of the legs");
    compare(
        &world,
        2,
        "m/1 leased 1 try 1
        m/2 leased 2 try 1
        m/2 failed by step
        m/2 retried
        m/2 leased 3 try 1
        m/2 failed by step
        m/1 canceled by me
        answered Outcome(\"m/1\")
        answered Outcome(\"m\")",
    );
}

#[test]
fn a_matrix_that_has_yet_to_grow_is_answered_with_its_legs() {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.request(1, BuildOptions::default());
    let legs = |is_known| {
        let mut evaluation = grown(if is_known { "plan:; test/1: plan; test/2: plan" } else { "plan:" }, is_known);
        evaluation.questions.insert(Question::Outcome("test".into()));
        evaluation.graph.holes.push(Hole { name: "late".to_owned(), after: vec!["test".into()] });
        evaluation
    };
    world.evaluated(1, 0, legs(false));
    world.act("plan passes");
    world.evaluated(1, 1, legs(true));
    world.act("test/1 passes");
    world.act("test/2 passes");
    let mut all = grown("plan:; test/1: plan; test/2: plan; late:", true);
    all.questions.insert(Question::Outcome("test".into()));
    world.evaluated(1, 2, all);
    world.act("late passes");
    compare(
        &world,
        2,
        "plan leased 1 try 1
        plan passed
        answered Outcome(\"plan\")
        evaluated 3
        test/1 leased 2 try 1
        test/2 leased 3 try 1
        test/1 passed
        test/2 passed
        answered Outcome(\"test\")
        evaluated 4
        late leased 4 try 1
        late passed
        build passed",
    );
}

#[test]
fn the_legs_of_a_matrix_are_one_needed_job_by_their_id() {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    let condition = "needs.m.result=='failed'&&needs.m.outputs.x=='1'&&needs['m/9'].outputs.x=='1'&&needs.m.legs['10'].result=='failed'";
    world.build(1, graph(&format!("m/9:; m/10:; a [if={condition}]: ~m/9 ~m/10")), BuildOptions::default());
    let x = |value: &str| Outcome::Passed { outputs: [("x".to_owned(), value.into())].into() };
    world.finish(1, "m/9", x("1"));
    world.act("m/10 fails");
    compare(
        &world,
        2,
        "m/9 leased 1 try 1
        m/10 leased 2 try 1
        m/9 passed
        m/10 failed by step
        a leased 3 try 1",
    );
}

#[test]
fn the_outputs_of_legs_reach_the_worker_and_the_operation() {
    let needs_of = |first: &str, second: &str| {
        let mut world = World::new();
        world.worker("w", 4, "", 0);
        world.build(1, graph("m/9:; m/10:; a [reuse]: m/9 m/10"), BuildOptions::default());
        for (leg, value) in [("m/9", first), ("m/10", second)] {
            world.finish(1, leg, Outcome::Passed { outputs: [("x".to_owned(), value.into())].into() });
        }
        let resolved = world.effects.iter().find_map(|effect| match effect {
            Effect::Resolve { needs, .. } => Some(needs.clone()),
            _ => None,
        });
        world.act("a resolves 7");
        let started = world.effects.iter().rev().find_map(|effect| match effect {
            Effect::Start { spec, .. } => Some(spec.needs.clone()),
            _ => None,
        });
        assert_eq!(resolved, started);
        started.expect("it starts")
    };
    let needs = needs_of("early", "late");
    assert_eq!(needs[&JobName::from("m")].outputs["x"], "late", "in the order of the matrix, not of the names");
    let operation_of = |needs| {
        let event = graph::Event::new(graph::EventKind::Push);
        operation(&Work {
            name: &"a".into(),
            job: &graph::Job::default(),
            files: &[],
            needs: &needs,
            event: &event,
            build: BuildId(1),
            project: "",
            quarantine: &[],
        })
    };
    let parts: Vec<String> =
        operation_of(needs).1.0.into_iter().map(|(name, value)| format!("{name} {value}")).collect();
    let outputs: Vec<&String> = parts.iter().filter(|part| part.starts_with("output:")).collect();
    assert_eq!(outputs, ["output:m/10:x \"late\"", "output:m/9:x \"early\"", "output:m:x \"late\""]);
    assert_ne!(operation_of(needs_of("1", "2")).0, operation_of(needs_of("2", "1")).0);
}

/// Two builds that want the same work, which the first runs.
fn sharing(jobs: &str) -> World {
    let mut world = World::new();
    world.worker("w", 4, "", 0);
    world.build(1, graph("a [reuse]:"), BuildOptions::default());
    world.build(2, graph(jobs), BuildOptions::default());
    world.act("1.a resolves 7");
    world
}

fn n_stops(world: &World) -> usize {
    world.effects.iter().filter(|effect| matches!(effect, Effect::Stop { .. })).count()
}

#[test]
fn work_that_two_builds_want_goes_on_for_the_other_when_the_one_that_runs_it_is_canceled() {
    let mut world = sharing("x [reuse]:");
    let report = |world: &mut World, outcome| {
        let report = Box::new(graph::AttemptReport::of(outcome, world.now));
        let (attempt, lease) = (graph::AttemptNumber(1), graph::LeaseId(1));
        world.feed(Input::AttemptFinished { build: BuildId(1), attempt, lease, report });
    };
    for sentence in ["2.x resolves 7", "cancel", "worker w 4"] {
        world.act(sentence);
    }
    assert_eq!(n_stops(&world), 0, "the worker notices nothing");
    // The engine asks again for what began, as what it began.
    let asked = world.engine.wanted(world.now).into_iter().find_map(|effect| match effect {
        Effect::Start { spec, .. } => Some((spec.build, spec.name, spec.lease)),
        _ => None,
    });
    assert_eq!(asked, Some((BuildId(1), "a".into(), graph::LeaseId(1))));
    report(&mut world, Outcome::passed());
    report(&mut world, Outcome::passed());
    compare(
        &world,
        4,
        "a is operation 7
        a leased 1 try 1
        2.x is operation 7
        cancel by me
        2.x adopts 1 try 1 from 1.a
        a canceled by me
        build canceled
        2.x passed
        2.build passed",
    );
}

#[test]
fn work_is_handed_on_as_often_as_it_is_wanted_and_stopped_when_nobody_wants_it() {
    let mut world = sharing("x [reuse]:");
    world.build(3, graph("y [reuse]:"), BuildOptions::default());
    for sentence in ["2.x resolves 7", "3.y resolves 7", "cancel 1", "drop 2.x"] {
        world.act(sentence);
    }
    assert_eq!(n_stops(&world), 0);
    world.act("cancel 3");
    assert_eq!(n_stops(&world), 1, "nobody wants it any more");
    // In whatever order builds are folded, the lease is the last one's.
    for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1], [1, 3, 2], [2, 1, 3], [3, 1, 2]] {
        let mut folded = Engine::new();
        for build in order {
            world.facts.iter().filter(|fact| fact.build == BuildId(build)).for_each(|fact| folded.apply(fact));
        }
        let of = |engine: &Engine| {
            let portrait = engine.portrait();
            portrait.lines().filter(|line| !line.starts_with("shared")).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(of(&folded), of(&world.engine), "{order:?}");
    }
    world.act("3.y stops");
    compare(
        &world,
        8,
        "2.x is operation 7
        3.y is operation 7
        cancel by me
        2.x adopts 1 try 1 from 1.a
        a canceled by me
        build canceled
        2.x to be canceled by me
        3.y adopts 1 try 1 from 1.a
        2.x canceled by me
        2.build failed
        3.cancel by me
        3.y canceled by me
        3.build canceled",
    );
}

#[test]
fn work_begins_anew_for_a_job_that_may_not_take_it_over() {
    for jobs in ["x [reuse group=g]:", "x [reuse pool=far]:"] {
        let mut world = sharing(jobs);
        world.act("2.x resolves 7");
        world.act("cancel");
        assert_eq!(n_stops(&world), 1, "{jobs}");
    }
}

#[test]
fn one_job_of_a_build_is_canceled() {
    check(
        "a [retry=2]:; b: a; c:; d: c",
        "drop b; drop a; drop a; a stops; drop a; c passes; drop d; d stops",
        "a leased 1 try 1
        c leased 2 try 1
        b canceled by me
        a to be canceled by me
        a canceled by me
        c passed
        d leased 3 try 1
        d to be canceled by me
        d canceled by me
        build failed",
    );
}

#[test]
fn a_canceled_job_whose_worker_is_lost_is_not_tried_again() {
    let mut world = World::new();
    world.worker("w", 1, "", 0);
    world.build(1, graph("a [retry=2]:"), BuildOptions::default());
    for sentence in ["drop a", "lost w"] {
        world.act(sentence);
    }
    compare(&world, 2, "a leased 1 try 1\n a to be canceled by me\n a canceled by me\n build failed");
}

/// A request of the `identity` that supersedes those of the same branch, both named by one letter; `-` for none.
fn request(world: &mut World, number: u64, identity: &str, branch: &str) {
    request_with(world, number, (identity, branch), |_| {});
}

fn request_with(
    world: &mut World,
    number: u64,
    (identity, branch): (&str, &str),
    change: impl FnOnce(&mut ropewalk_engine::BuildRequest),
) {
    let mut request = ropewalk_engine::BuildRequest::new(graph::Event::new(graph::EventKind::Push), "pipeline");
    request.identity = (identity != "-").then(|| graph::Digest([identity.as_bytes()[0]; 32]));
    request.supersedes = (branch != "-").then(|| branch.to_owned());
    request.origin.project = if number > 100 { "another".to_owned() } else { "project".to_owned() };
    request.origin.number = number + 1000;
    change(&mut request);
    world.feed(Input::BuildRequested { build: BuildId(number), request: Box::new(request) });
}

#[test]
fn a_request_is_the_build_of_its_identity_that_has_not_begun() {
    let mut world = World::new();
    request(&mut world, 1, "i", "-");
    request(&mut world, 2, "i", "-");
    request(&mut world, 101, "i", "-");
    request(&mut world, 3, "other", "-");
    world.evaluated(1, 0, Evaluation { graph: graph("a:"), ..Evaluation::default() });
    world.worker("w", 1, "", 0);
    // Said again after the build has begun, it is what it was.
    request(&mut world, 2, "i", "-");
    request(&mut world, 4, "i", "-");
    world.act("cancel 4");
    request(&mut world, 5, "i", "-");
    let duplicates = world.effects.iter().filter_map(|effect| match effect {
        Effect::Duplicate { requested, of } => Some((requested.0, of.0)),
        _ => None,
    });
    assert_eq!(duplicates.collect::<Vec<_>>(), [(2, 1), (2, 1)]);
    compare(
        &world,
        0,
        "created
        101.created
        3.created
        evaluated 1
        a leased 1 try 1
        4.created
        4.cancel by me
        4.build canceled
        5.created",
    );
}

#[test]
fn a_request_is_no_build_that_somebody_elses_next_request_would_end() {
    let mut world = World::new();
    let of =
        |client: &'static str| move |request: &mut ropewalk_engine::BuildRequest| request.client = client.to_owned();
    request_with(&mut world, 1, ("i", "b"), of("ann"));
    request_with(&mut world, 2, ("i", "b"), of("bob"));
    request_with(&mut world, 3, ("i", "b"), of("bob"));
    // Whose place nobody takes is anybody's.
    request_with(&mut world, 4, ("j", "-"), of("ann"));
    request_with(&mut world, 5, ("j", "-"), of("bob"));
    request_with(&mut world, 6, ("k", "b"), of("ann"));
    let duplicates = world.effects.iter().filter_map(|effect| match effect {
        Effect::Duplicate { requested, of } => Some((requested.0, of.0)),
        _ => None,
    });
    assert_eq!(duplicates.collect::<Vec<_>>(), [(3, 2), (5, 4)]);
    compare(
        &world,
        0,
        "created\n 2.created\n 4.created\n 6.created\n cancel by build 6, which supersedes it\n build canceled",
    );
}

#[test]
fn tests_in_quarantine_are_named_to_jobs_with_reports_until_they_expire() {
    let mut world = World::new();
    let test = |name: &str, job: Option<&str>, ms: u64| graph::quarantine::QuarantinedTest {
        test: graph::TestName { suite: "s".to_owned(), name: name.to_owned() },
        job: job.map(JobName::from),
        until: world.now.plus_ms(ms),
    };
    let request = ropewalk_engine::BuildRequest {
        quarantine: vec![test("a", None, 500), test("b", Some("t"), 900), test("c", Some("u"), 900)],
        ..ropewalk_engine::BuildRequest::new(graph::Event::new(graph::EventKind::Push), "pipeline")
    };
    world.feed(Input::BuildRequested { build: BuildId(1), request: Box::new(request) });
    let mut graph = graph("t:; u:; v:");
    for name in ["t", "u"] {
        let job = graph.jobs.get_mut(&JobName::from(name)).expect("it is there");
        std::sync::Arc::make_mut(job).reports.junit = vec!["r.xml".to_owned()];
    }
    world.evaluated(1, 0, Evaluation { graph, ..Evaluation::default() });
    world.worker("w", 1, "", 0);
    for ms in [600, 600] {
        let job = ["t", "u", "v"].into_iter().find(|job| world.lease(1, job).is_some()).expect("one runs");
        world.now = world.now.plus_ms(ms);
        world.act(&format!("{job} passes"));
    }
    let told = world.effects.iter().filter_map(|effect| match effect {
        Effect::Start { spec, .. } => {
            Some(format!("{}: {}", spec.name, graph::quarantine::variable(&spec.quarantine).replace('\n', ", ")))
        }
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), ["t: s\ta, s\tb", "u: s\tc", "v: "]);
}

#[test]
fn a_repeated_request_is_the_build_that_it_made_whatever_became_of_that() {
    let mut world = World::new();
    let ask = |world: &mut World, number: u64, key: u8| {
        let event = graph::Event::new(graph::EventKind::Push);
        let request = ropewalk_engine::BuildRequest {
            key: Some(graph::Digest([key; 32])),
            ..ropewalk_engine::BuildRequest::new(event, "pipeline")
        };
        world.feed(Input::BuildRequested { build: BuildId(number), request: Box::new(request) });
    };
    ask(&mut world, 1, 7);
    world.act("cancel 1");
    // The server has died and comes again before its answer was written down.
    let mut rebuilt = Engine::new();
    world.facts.iter().for_each(|fact| rebuilt.apply(fact));
    world.engine = rebuilt;
    ask(&mut world, 2, 7);
    ask(&mut world, 3, 8);
    let duplicates = world.effects.iter().filter_map(|effect| match effect {
        Effect::Duplicate { requested, of } => Some((requested.0, of.0)),
        _ => None,
    });
    assert_eq!(duplicates.collect::<Vec<_>>(), [(2, 1)]);
    compare(&world, 0, "created\n cancel by me\n build canceled\n 3.created");
}

#[test]
fn a_later_build_takes_the_place_of_earlier_ones_of_its_branch() {
    let mut world = World::new();
    request(&mut world, 1, "-", "b");
    request(&mut world, 2, "-", "c");
    request(&mut world, 101, "-", "b");
    request(&mut world, 4, "-", "b");
    // A request that comes late is itself superseded.
    request(&mut world, 3, "-", "b");
    request(&mut world, 5, "-", "b");
    compare(
        &world,
        0,
        "created
        2.created
        101.created
        4.created
        cancel by build 4, which supersedes it
        build canceled
        3.created
        3.cancel by build 4, which supersedes it
        3.build canceled
        5.created
        4.cancel by build 5, which supersedes it
        4.build canceled",
    );
}

#[test]
fn who_tries_a_build_again_takes_the_place_of_no_newer_one() {
    let mut world = World::new();
    let again = |world: &mut World, number, of| {
        request_with(world, number, ("-", "b"), |request| request.options.retry_of = Some(BuildId(of)));
    };
    request(&mut world, 2, "-", "b");
    again(&mut world, 3, 1);
    again(&mut world, 4, 1);
    again(&mut world, 5, 2);
    request(&mut world, 6, "-", "b");
    compare(
        &world,
        0,
        "2.created
        3.created
        4.created
        3.cancel by build 4, which supersedes it
        3.build canceled
        5.created
        2.cancel by build 5, which supersedes it
        2.build canceled
        6.created
        4.cancel by build 6, which supersedes it
        5.cancel by build 6, which supersedes it
        4.build canceled
        5.build canceled",
    );
}

#[test]
fn a_build_takes_the_place_only_of_those_that_are_trusted_as_it_is() {
    let mut world = World::new();
    let untrusted = |request: &mut ropewalk_engine::BuildRequest| request.event.trust = graph::Trust::Untrusted;
    request(&mut world, 1, "-", "b");
    request_with(&mut world, 2, ("-", "b"), untrusted);
    request_with(&mut world, 3, ("-", "b"), untrusted);
    request(&mut world, 4, "-", "b");
    compare(
        &world,
        0,
        "created
        2.created
        3.created
        2.cancel by build 3, which supersedes it
        2.build canceled
        4.created
        cancel by build 4, which supersedes it
        build canceled",
    );
}

#[test]
fn a_build_of_some_jobs_takes_the_place_only_of_those_of_the_same() {
    let mut world = World::new();
    let only = |request: &mut ropewalk_engine::BuildRequest| request.options.only = ["a".to_owned()].into();
    request(&mut world, 1, "-", "b");
    request_with(&mut world, 2, ("-", "b"), only);
    request_with(&mut world, 3, ("-", "b"), only);
    request(&mut world, 4, "-", "b");
    compare(
        &world,
        0,
        "created
        2.created
        3.created
        2.cancel by build 3, which supersedes it
        2.build canceled
        4.created
        cancel by build 4, which supersedes it
        build canceled",
    );
}

#[test]
fn a_build_takes_the_place_only_of_those_of_its_own_client() {
    let mut world = World::new();
    let of =
        |client: &'static str| move |request: &mut ropewalk_engine::BuildRequest| request.client = client.to_owned();
    request_with(&mut world, 1, ("-", "b"), of("ann"));
    request_with(&mut world, 2, ("-", "b"), of("bob"));
    request_with(&mut world, 3, ("-", "b"), of("ann"));
    compare(
        &world,
        0,
        "created
        2.created
        3.created
        cancel by build 3, which supersedes it
        build canceled",
    );
    assert!(world.facts.iter().any(|fact| ropewalk_engine::is_superseded_by(fact, BuildId(3))));
    assert!(!world.facts.iter().any(|fact| ropewalk_engine::is_superseded_by(fact, BuildId(2))));
}

#[test]
fn no_build_takes_the_place_of_one_that_was_let_past_a_gate() {
    let mut world = World::new();
    request(&mut world, 1, "-", "b");
    world.evaluated(1, 0, Evaluation { graph: graph("g [gate empty]:; d: g"), ..Evaluation::default() });
    world.act("approve g");
    // The same gate was passed in another build, whose jobs this one takes over.
    request_with(&mut world, 2, ("-", "c"), |request| {
        let reused = ropewalk_engine::Reused {
            build: BuildId(1),
            attempt: graph::AttemptNumber(1),
            job: JobName::from("g"),
            artifacts: Default::default(),
        };
        request.given.insert(JobName::from("g"), (reused, Outcome::passed()));
    });
    world.evaluated(2, 0, Evaluation { graph: graph("g [gate empty]:; e: g"), ..Evaluation::default() });
    world.worker("w", 2, "", 0);
    request(&mut world, 3, "-", "c");
    world.evaluated(3, 0, Evaluation { graph: graph("g [gate empty]:; f: g"), ..Evaluation::default() });
    request(&mut world, 4, "-", "b");
    // One that waits at its gate ends.
    request(&mut world, 5, "-", "c");
    compare(
        &world,
        0,
        "created
        evaluated 2
        g asks go?
        g approved
        g passed
        2.created
        2.evaluated 2
        2.g passed as 1.g
        d leased 1 try 1
        2.e leased 2 try 1
        3.created
        3.evaluated 2
        3.g asks go?
        4.created
        5.created
        3.cancel by build 5, which supersedes it
        3.f canceled by build 5, which supersedes it
        3.g canceled by build 5, which supersedes it
        3.build canceled",
    );
}

#[test]
fn what_runs_without_an_approval_is_past_no_gate() {
    // After a gate that was rejected, and behind one about which somebody is still asked.
    for (jobs, happens, told) in [
        (
            "g [gate empty]:; f: ~g",
            "refuse g",
            "2\n g asks go?\n g rejected\n g skipped Rejected { by: \"me\" }\n f leased 1 try 1\n 2.created
            cancel by build 2, which supersedes it",
        ),
        (
            "g [gate empty]:; s [not=main]: g; f: ~s",
            "later 1",
            "3\n g asks go?\n s skipped, not main\n f leased 1 try 1\n 2.created
            cancel by build 2, which supersedes it\n g canceled by build 2, which supersedes it",
        ),
    ] {
        let mut world = World::new();
        request(&mut world, 1, "-", "b");
        world.evaluated(1, 0, Evaluation { graph: graph(jobs), ..Evaluation::default() });
        world.worker("w", 1, "", 0);
        world.act(happens);
        request(&mut world, 2, "-", "b");
        compare(&world, 0, &format!("created\n evaluated {told}"));
    }
}

#[test]
fn a_closed_worker_and_a_held_pool_get_nothing_new() {
    let mut world = World::new();
    world.closed_worker("w", "low disk");
    world.build(1, graph("a:; b:"), BuildOptions::default());
    world.worker("w", 1, "", 0);
    world.closed_worker("w", "paused");
    let hold = |reason: Option<&str>| Input::PoolHeld { pool: String::new(), reason: reason.map(str::to_owned) };
    world.feed(hold(Some("maintenance")));
    world.act("a passes");
    world.act("worker w 1");
    assert_eq!(world.lease(1, "b"), None);
    world.feed(hold(None));
    world.act("b passes");
    compare(&world, 2, "a leased 1 try 1\n a passed\n b leased 2 try 1\n b passed\n build passed");
}

/// Why a job waits, as JSON.
#[track_caller]
fn check_why(world: &World, build: u64, job: &str, expected: &str) {
    let wait = world.engine.why(BuildId(build), &job.into());
    assert_eq!(serde_json::to_string(&wait).expect("it serializes"), expected);
}

#[test]
fn every_job_that_waits_has_a_reason() {
    let mut world = World::new();
    world.build(
        1,
        graph("a:; b: a; g [gate]:; r [reuse]:; s [reuse]:; x [group=one]:; y [group=one]:; far [pool=far]:; again [retry=1]:"),
        BuildOptions::default(),
    );
    check_why(&world, 1, "r", r#"{"wait":"resolving"}"#);
    let nobody = r#"{"wait":"worker","pool":"","labels":[],"resources":{},"instead":{"there_is":"nobody"}}"#;
    check_why(&world, 1, "a", nobody);
    world.closed_worker("c", "low disk");
    let closed = r#"{"wait":"worker","pool":"","labels":[],"resources":{},"instead":{"there_is":"closed","workers":[["c","low disk"]]}}"#;
    check_why(&world, 1, "a", closed);
    world.act("r resolves 7");
    world.act("s resolves 7");
    world.worker("w", 3, "", 0);
    check_why(&world, 1, "a", "null");
    check_why(&world, 1, "b", r#"{"wait":"needs","jobs":["a"],"count":1}"#);
    check_why(&world, 1, "g", r#"{"wait":"gate"}"#);
    check_why(&world, 1, "s", r#"{"wait":"same","build":1,"job":"r","attempt":2}"#);
    check_why(&world, 1, "y", r#"{"wait":"group","group":"one","holders":[[1,"x"]],"position":1}"#);
    let queued = r#"{"wait":"queue","pool":"","position":1,"ahead":0,"holders":[[1,"a"],[1,"r"],[1,"x"]],"estimate":{"low_ms":5000,"high_ms":20000}}"#;
    check_why(&world, 1, "again", queued);
    world.feed(Input::PoolHeld { pool: "far".to_owned(), reason: Some("moving".to_owned()) });
    check_why(&world, 1, "far", r#"{"wait":"held","pool":"far","reason":"moving"}"#);
    for sentence in ["a passes", "b passes", "again fails"] {
        world.act(sentence);
    }
    check_why(&world, 1, "again", r#"{"wait":"backoff","until":1000000}"#);
    let pools = serde_json::to_string(&world.engine.pools()).expect("they serialize");
    assert_eq!(
        pools,
        r#"[{"pool":"","queued":0,"running":2,"workers":2,"slots":3,"held":null,"clients":{}},{"pool":"far","queued":1,"running":0,"workers":0,"slots":0,"held":"moving","clients":{"":{"queued":1,"charged_ms":20000,"ahead_ms":0}}}]"#
    );
    // `g` asks, `s` follows an equal job, `y` waits for its group, `again` for its next try.
    let to_come: Vec<(&str, u64)> = world.engine.to_come().into_iter().collect();
    assert_eq!(to_come, [("", 4)]);
}

#[test]
fn jobs_that_no_worker_could_run_are_known_before_they_wait_for_one() {
    let mut world = World::new();
    world.worker("w", 1, "", 0);
    world.build(1, graph("a:; b: a; far [pool=far]: a; off [pool=far]:; g [gate]: a"), BuildOptions::default());
    let unmatched = |world: &World, limit: usize| {
        let unmatched = world.engine.unmatched_of(BuildId(1), limit);
        unmatched.into_iter().map(|(job, why)| (job.to_string(), serde_json::to_string(&why).expect("it serializes")))
    };
    let nobody = r#"{"wait":"worker","pool":"far","labels":[],"resources":{},"instead":{"there_is":"nobody"}}"#;
    let both = ["far", "off"].map(|job| (job.to_owned(), nobody.to_owned()));
    assert_eq!(unmatched(&world, 20).collect::<Vec<_>>(), both);
    assert_eq!(unmatched(&world, 1).collect::<Vec<_>>(), both[..1]);
    assert_eq!(world.engine.unmatched_of(BuildId(2), 20), []);
    // More demands than are compared: the rest is not judged, which costs nothing.
    let many: String = (0..DEMANDS_MAX + 9).map(|index| format!("j{index} [pool=p{index}]:; ")).collect();
    world.build(3, graph(&many), BuildOptions::default());
    assert_eq!(world.engine.unmatched_of(BuildId(3), 1000).len(), DEMANDS_MAX);
}

#[test]
fn urgent_jobs_go_first_until_their_client_has_its_share_of_them() {
    let mut world = World::new();
    let jobs: String = (0..20).map(|index| format!("j{index}:; ")).collect();
    for (build, client, urgent) in [(1, "bob", false), (2, "ann", true)] {
        let options = BuildOptions { urgent, ..BuildOptions::default() };
        let event = graph::Event::new(graph::EventKind::Push);
        let request = ropewalk_engine::BuildRequest::new(event, "pipeline");
        let request = ropewalk_engine::BuildRequest { client: client.to_owned(), options, ..request };
        world.feed(Input::BuildRequested { build: BuildId(build), request: Box::new(request) });
        world.evaluated(build, 0, Evaluation { graph: graph(jobs.trim_end_matches("; ")), ..Evaluation::default() });
    }
    let n_running =
        |world: &World, build: u64| (0..20).filter(|index| world.lease(build, &format!("j{index}")).is_some()).count();
    // Bob asked first, but Ann's are urgent.
    world.worker("w", 16, "", 0);
    assert_eq!((n_running(&world, 2), n_running(&world, 1)), (16, 0));
    // Further urgent ones of hers stand in line as usual: after Bob's, since she was charged and he was not.
    world.worker("v", 2, "", 0);
    assert_eq!((n_running(&world, 2), n_running(&world, 1)), (16, 2));
    world.act("2.j0 passes");
    assert_eq!((n_running(&world, 2), n_running(&world, 1)), (16, 2));
}

#[test]
fn a_build_that_is_made_urgent_goes_first() {
    let mut world = World::new();
    for (build, client) in [(1, "bob"), (2, "ann")] {
        let request = ropewalk_engine::BuildRequest {
            client: client.to_owned(),
            ..ropewalk_engine::BuildRequest::new(graph::Event::new(graph::EventKind::Push), "pipeline")
        };
        world.feed(Input::BuildRequested { build: BuildId(build), request: Box::new(request) });
        world.evaluated(build, 0, Evaluation { graph: graph("a:; b: a"), ..Evaluation::default() });
    }
    let place = |world: &World, build: u64, job: &str| match world.engine.why(BuildId(build), &job.into()) {
        Some(ropewalk_engine::Wait::Queue { position, .. }) => position,
        other => panic!("{other:?}"),
    };
    world.worker("w", 0, "", 0);
    world.act("urge 2");
    assert!(world.engine.is_urgent(BuildId(2)) && !world.engine.is_urgent(BuildId(1)));
    world.worker("w", 1, "", 0);
    assert!(world.lease(2, "a").is_some());
    // What comes of it later goes first too, and a second time changes nothing.
    world.act("urge 2");
    world.act("2.a passes");
    assert!(world.lease(2, "b").is_some());
    assert_eq!(place(&world, 1, "a"), 1);
    world.act("2.b passes");
    assert!(world.lease(1, "a").is_some() && !world.engine.is_urgent(BuildId(2)));
    // One that has ended stays as it is.
    let n_facts = world.facts.len();
    world.act("urge 2");
    assert_eq!(world.facts.len(), n_facts);
}

#[test]
fn places_in_the_queue_follow_the_fair_share_of_clients() {
    let mut world = World::new();
    for (build, client) in [(1, "ann"), (2, "bob")] {
        let request = ropewalk_engine::BuildRequest {
            client: client.to_owned(),
            ..ropewalk_engine::BuildRequest::new(graph::Event::new(graph::EventKind::Push), "pipeline")
        };
        world.feed(Input::BuildRequested { build: BuildId(build), request: Box::new(request) });
        world.evaluated(build, 0, Evaluation { graph: graph("a:; b:; c:"), ..Evaluation::default() });
    }
    world.worker("w", 1, "", 0);
    let mut promised = Vec::new();
    for (build, job) in [(1, "b"), (1, "c"), (2, "a"), (2, "b"), (2, "c")] {
        match world.engine.why(BuildId(build), &job.into()) {
            Some(ropewalk_engine::Wait::Queue { position, .. }) => promised.push((position, format!("{build}.{job}"))),
            other => panic!("{other:?}"),
        }
    }
    promised.sort();
    let mut kept = Vec::new();
    let queued = world.engine.queue("", Some((BuildId(1), &"b".into())), 2);
    assert_eq!(queued, [(BuildId(1), JobName::from("c")), (BuildId(2), JobName::from("a"))]);
    for _ in 0..6 {
        let running = [1, 2].into_iter().flat_map(|build| ["a", "b", "c"].map(|job| (build, job)));
        let (build, job) =
            running.into_iter().find(|&(build, job)| world.lease(build, job).is_some()).expect("one runs");
        kept.push(format!("{build}.{job}"));
        // As long as was estimated, so that nothing is corrected.
        let (attempt, lease) = world.lease(build, job).expect("it runs");
        let mut report = Box::new(graph::AttemptReport::of(Outcome::passed(), world.now.plus_ms(10_000)));
        report.started = world.now;
        world.now = world.now.plus_ms(10_000);
        world.feed(Input::AttemptFinished { build: BuildId(build), attempt, lease, report });
    }
    assert_eq!(promised.into_iter().map(|(_, name)| name).collect::<Vec<_>>(), kept[1..]);
}

/// Runs `script`, then compares which worker got which attempt, in their order.
#[track_caller]
fn check_workers(script: &str, expected: &[&str]) -> World {
    let mut world = World::new();
    for sentence in script.split(';').map(str::trim).filter(|sentence| !sentence.is_empty()) {
        world.act(sentence);
    }
    let leased = world.facts.iter().filter_map(|fact| match &fact.what {
        What::AttemptLeased { job, worker, .. } => Some(format!("{}.{job} {worker}", fact.build)),
        _ => None,
    });
    assert_eq!(leased.collect::<Vec<_>>(), expected);
    compare(&world, 0, &trace(&world.facts));
    world
}

/// `a` takes a minute on a cold worker and 20 seconds on `w`, where it is warm; then `x` keeps `w` busy, for ten seconds
/// by the estimate, when `v` comes.
const MEASURED: &str = "worker w 1; build 1 a:; 1.a passes after 60000; build 2 a:; 2.a passes after 20000; build 3 x:; \
                        worker v 1;";

#[test]
fn a_job_goes_to_a_free_worker_that_has_it_warm() {
    check_workers("worker w 1; build 1 a:; a passes; worker v 1; build 2 a:, b:", &["1.a w", "2.a w", "2.b v"]);
    // Also if that runs more, if it is the one of two that runs less, and not if it takes nothing or has left.
    check_workers("worker w 3; build 1 a:; a passes; build 2 x:; worker v 1; build 3 a:", &["1.a w", "2.x w", "3.a w"]);
    check_workers(
        "worker u 2; build 1 a:; close u; worker w 2; build 2 a:; 1.a passes; 2.a passes; worker u 2; build 3 x:; \
         worker v 1; build 4 a:",
        &["1.a u", "2.a w", "3.x u", "4.a w"],
    );
    check_workers("worker w 1; build 1 a:; a passes; close w; worker v 1; build 2 a:", &["1.a w", "2.a v"]);
    check_workers("worker w 1; build 1 a:; a passes; lost w; worker v 1; build 2 a:", &["1.a w", "2.a v"]);
}

#[test]
fn a_job_waits_for_a_busy_worker_that_has_it_warm_while_others_go_first() {
    let script = format!("{MEASURED} build 4 a:, b:");
    let world = check_workers(&script, &["1.a w", "2.a w", "3.x w", "4.b v"]);
    check_why(&world, 4, "a", r#"{"wait":"affinity","worker":"w","until":120000000}"#);
    let wake = Effect::Wake { at: graph::Timestamp(120_000_000) };
    assert_eq!(world.effects.last(), Some(&wake), "time is looked at without being asked");
    assert_eq!(world.engine.queue("", None, 9), [(BuildId(4), JobName::from("a"))]);
    assert_eq!(world.engine.pools()[0].queued, 1);
    let script = format!("{script}; 4.b passes; 3.x passes");
    check_workers(&script, &["1.a w", "2.a w", "3.x w", "4.b v", "4.a w"]);
}

#[test]
fn a_wait_for_a_warm_worker_ends_when_it_costs_more_than_it_saves() {
    let begun = ["1.a w", "2.a w", "3.x w"];
    let with = |more: &[&'static str]| [begun.as_slice(), more].concat();
    check_workers(&format!("{MEASURED} build 4 a:; later 39999"), &begun);
    check_workers(&format!("{MEASURED} build 4 a:; later 40000"), &with(&["4.a v"]));
    // The time does not begin anew when the worker shows itself or runs another job.
    let script = format!("{MEASURED} build 4 a:; later 30000; worker w 1; later 10000");
    check_workers(&script, &with(&["4.a v"]));
    // It is over as soon as the worker is closed or gone, and does not begin where the estimate is longer.
    check_workers(&format!("{MEASURED} build 4 a:; close w"), &with(&["4.a v"]));
    check_workers(&format!("{MEASURED} build 4 a:; lost w"), &with(&["4.a v"]));
    check_workers(&format!("{MEASURED} build 4 a:; cancel 4; later 40000"), &begun);
    check_workers("worker w 1; build 1 a:; a passes; build 2 x:; worker v 1; build 3 a:", &["1.a w", "2.x w", "3.a v"]);
    // Only as many wait for a worker as it has slots to free.
    check_workers(&format!("{MEASURED} build 4 a:; build 5 a:"), &with(&["5.a v"]));
}

#[test]
fn a_further_try_prefers_no_worker() {
    let failing = "worker w 1; build 1 a [retry=1]:; a passes; build 2 a [retry=1]:; 2.a fails; build 3 x:; worker v 1";
    check_workers(&format!("{failing}; later 1000; 3.x passes"), &["1.a w", "2.a w", "3.x w", "2.a v"]);
}

#[test]
fn a_restart_knows_where_jobs_are_warm() {
    let mut world = check_workers(&format!("{MEASURED} 3.x passes; build 4 a:"), &["1.a w", "2.a w", "3.x w", "4.a w"]);
    let standing = serde_json::to_string(&world.engine.standing()).expect("it serializes");
    let standing: ropewalk_engine::Standing = serde_json::from_str(&standing).expect("it loads");
    let unended: Vec<Fact> = world.facts.iter().filter(|fact| fact.build == BuildId(4)).cloned().collect();
    world.engine = Engine::recover(standing, &unended, &[]);
    for sentence in ["worker v 1", "worker w 1", "build 5 a:"] {
        world.act(sentence);
    }
    // What runs was estimated from both attempts before, so it ends in time.
    check_why(&world, 5, "a", r#"{"wait":"affinity","worker":"w","until":120000000}"#);
    let older: ropewalk_engine::Standing = serde_json::from_str(
        r#"{"charges":{"ann":7},"virtual_ms":7,"estimates":{"a":9},"running":{"3":7},"last_lease":3,"now":9}"#,
    )
    .expect("what an older server saved loads");
    assert!(older.warmth.is_empty() && older.warm.is_empty() && older.took.is_empty());
}

#[test]
fn what_a_worker_says_of_time_counts_only_as_far_as_it_had_the_job() {
    let mut world = check_workers("worker w 1; build 1 a:", &["1.a w"]);
    world.now = world.now.plus_ms(5000);
    let mut report = Box::new(graph::AttemptReport::of(Outcome::passed(), world.now.plus_ms(3_600_000)));
    report.started = graph::Timestamp(0);
    let (attempt, lease) = (graph::AttemptNumber(1), graph::LeaseId(1));
    world.feed(Input::AttemptFinished { build: BuildId(1), attempt, lease, report });
    let standing = world.engine.standing();
    assert_eq!(standing.charges.values().collect::<Vec<_>>(), [&5000]);
    assert_eq!(standing.took.iter().map(|took| took.took_ms).collect::<Vec<_>>(), [5000]);
}

#[test]
fn jobs_of_one_name_in_two_projects_are_estimated_apart() {
    let mut world = World::new();
    world.worker("w", 1, "", 0);
    let begin = |world: &mut World, number: u64| {
        request(world, number, "-", "-");
        world.evaluated(number, 0, Evaluation { graph: graph("a:"), ..Evaluation::default() });
    };
    begin(&mut world, 1);
    world.now = world.now.plus_ms(5000);
    let mut report = Box::new(graph::AttemptReport::of(Outcome::passed(), world.now));
    report.started = graph::Timestamp(world.now.0 - 5_000_000);
    let (attempt, lease) = (graph::AttemptNumber(1), graph::LeaseId(1));
    world.feed(Input::AttemptFinished { build: BuildId(1), attempt, lease, report });
    let unknown = world.engine.estimate_ms("project", "never run");
    let standing = serde_json::to_string(&world.engine.standing()).expect("it serializes");
    let standing = serde_json::from_str(&standing).expect("it loads");
    for engine in [&world.engine, &Engine::recover(standing, &[], &[])] {
        assert_eq!(["project", "another"].map(|project| engine.estimate_ms(project, "a")), [5000, unknown]);
    }
    // What it is charged for is not what another project's job of that name took.
    begin(&mut world, 101);
    assert_eq!(world.engine.standing().charges.values().sum::<u64>(), 5000 + unknown);
}

#[test]
fn who_is_called_back_charges_nobody_and_teaches_nothing_again() {
    let mut world = check_workers(&format!("{MEASURED} 3.x passes; build 4 a:"), &["1.a w", "2.a w", "3.x w", "4.a w"]);
    let before = world.engine.standing();
    for build in 1..=2 {
        assert!(world.engine.forget(BuildId(build)));
        world.engine.recall(world.facts.iter().filter(|fact| fact.build == BuildId(build)));
        assert!(world.engine.verdict(BuildId(build)).is_some());
    }
    assert_eq!(world.engine.standing(), before);
    world.act("4.a passes after 1000");
    assert_ne!(world.engine.standing(), before, "what is new counts");
}

#[test]
fn who_is_called_back_brings_no_result_back_and_changes_no_line() {
    let mut world = World::new();
    world.worker("w", 1, "", 0);
    let recall = |world: &mut World, build| {
        assert!(world.engine.forget(BuildId(build)));
        world.engine.recall(world.facts.iter().filter(|fact| fact.build == BuildId(build)));
    };
    let act = |world: &mut World, sentences: &str| sentences.split(';').for_each(|sentence| world.act(sentence.trim()));
    act(&mut world, "build 1 a [reuse]:; 1.a resolves 7; 1.a passes");
    recall(&mut world, 1);
    // The world has told that there is none.
    act(&mut world, "build 2 a [reuse]:; 2.a resolves 7");
    assert!(world.lease(2, "a").is_some(), "it was evicted");
    act(&mut world, "2.a fails; build 3 x:; build 4 a [reuse]:; 4.a resolves 7; build 5 a [reuse]:; 5.a resolves 7");
    recall(&mut world, 2);
    act(&mut world, "worker w 3; 3.x passes");
    assert!(world.lease(4, "a").is_some(), "it leads");
    assert!(world.lease(5, "a").is_none(), "it waits for its equal");
    act(&mut world, "4.a passes");
    assert!(matches!(world.engine.job(BuildId(5), &"a".into()), Some(ropewalk_engine::JobState::Ended(_))));
}

/// A worker with a container engine shows itself.
fn worker_with_engine(world: &mut World, name: &str) {
    let presence = Presence {
        pools: [String::new()].into(),
        labels: [graph::ENGINE_LABEL.to_owned()].into(),
        slots: 1,
        resources: graph::Resources::default(),
        leases: std::collections::BTreeSet::new(),
        holds_ms: 0,
        intake: ropewalk_engine::Intake::Open,
    };
    world.feed(Input::WorkerPresent { worker: graph::WorkerId(name.into()), presence });
}

#[test]
fn a_job_in_a_container_waits_for_a_worker_with_an_engine() {
    let mut world = World::new();
    world.worker("w", 1, "", 0);
    world.build(1, graph("a [image=x]:"), BuildOptions::default());
    assert_eq!(world.lease(1, "a"), None);
    worker_with_engine(&mut world, "v");
    assert!(world.lease(1, "a").is_some());
}

#[test]
fn an_image_is_the_same_for_a_whole_build() {
    let mut world = World::new();
    worker_with_engine(&mut world, "v");
    worker_with_engine(&mut world, "w");
    world.build(1, graph("a [image=x]:; b [image=x retry=1]:"), BuildOptions::default());
    let finish = |world: &mut World, job: &str, digest: &str| {
        let (attempt, lease) = world.lease(1, job).expect("it runs");
        let mut report = graph::AttemptReport::of(Outcome::passed(), world.now);
        report.images.insert("x".to_owned(), digest.to_owned());
        world.feed(Input::AttemptFinished { build: BuildId(1), attempt, lease, report: Box::new(report) });
    };
    finish(&mut world, "a", "one");
    finish(&mut world, "b", "two");
    let finished = world.facts.iter().rev().find_map(|fact| match &fact.what {
        What::AttemptFinished { job, report, retry_at, .. } if job.as_str() == "b" => Some((report, retry_at)),
        _ => None,
    });
    let (report, retry_at) = finished.expect("b has a report");
    let message = "the image `x` is one in this build, and came to be two while the job began".to_owned();
    assert_eq!(report.outcome, Outcome::Failed(graph::Failure::Infra { message }));
    world.now = retry_at.expect("it is tried again");
    world.effects.clear();
    worker_with_engine(&mut world, "v");
    worker_with_engine(&mut world, "w");
    let mut rebuilt = Engine::new();
    world.facts.iter().for_each(|fact| rebuilt.apply(fact));
    for effects in [std::mem::take(&mut world.effects), rebuilt.wanted(world.now)] {
        let started = effects.iter().find_map(|effect| match effect {
            Effect::Start { spec, .. } if spec.name.as_str() == "b" => Some(spec),
            _ => None,
        });
        let images = [("x".to_owned(), "one".to_owned())].into();
        assert_eq!(started.expect("b begins again").images, images, "also after a restart");
    }
    finish(&mut world, "b", "one");
    assert_eq!(
        world
            .facts
            .iter()
            .filter(
                |fact| matches!(&fact.what, What::AttemptFinished { report, .. } if report.outcome == Outcome::passed())
            )
            .count(),
        2
    );
}

#[test]
fn whose_end_let_an_attempt_begin_is_told_over_builds() {
    let mut world = World::new();
    for sentence in [
        "worker w 1",
        "build 1 a: , after: a",
        "build 2 b:",
        "later 1000",
        "1.a passes",
        "later 1000",
        "1.after passes",
        "worker w 3",
        "build 3 first [group=g]:",
        "build 4 second [group=g]:",
        "later 1000",
        "3.first passes",
    ] {
        world.act(sentence);
    }
    let told: Vec<String> = world
        .facts
        .iter()
        .filter_map(|fact| match &fact.what {
            What::AttemptLeased { job, waited_for, .. } => Some((job, waited_for)),
            _ => None,
        })
        .map(|(job, told)| match told.as_deref() {
            None => format!("{job} at once"),
            Some(told) => {
                format!("{job} after {}.{} {}", told.build, told.job, told.group.as_deref().unwrap_or("on w"))
            }
        })
        .collect();
    assert_eq!(told, ["a at once", "after at once", "b after 1.after on w", "first at once", "second after 3.first g"]);
    // It is told of what runs, and stays in its report.
    let second = "second".into();
    assert_eq!(world.engine.waited_for(BuildId(4), &second).map(|told| told.build), Some(BuildId(3)));
    world.act("4.second passes");
    let report = world.facts.iter().find_map(|fact| match &fact.what {
        What::AttemptFinished { job, report, .. } if *job == second => report.waited_for.as_ref(),
        _ => None,
    });
    assert_eq!(report.map(|told| told.job.to_string()), Some("first".to_owned()));
}
