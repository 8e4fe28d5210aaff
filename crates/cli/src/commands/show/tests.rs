//! `show` over real facts and a real log.

use graph::{Artifact, TestCase, TestOutcome, Timestamp};
use store::log::Stream;

use super::*;
use crate::places::kept::Kept;

fn shown(kept: &Kept, job: Option<&str>, output: ListForm) -> String {
    let arguments = Show { build: "last".to_owned(), job: job.map(str::to_owned), output, at: Default::default() };
    let root = Path::new("nowhere");
    show(&arguments, &kept.places(), root, &kept.calendar(), Paint::Plain).map_err(|stop| stop.message).expect("a page")
}

#[track_caller]
fn check(kept: &Kept, job: Option<&str>, expected: &str) {
    assert_eq!(shown(kept, job, ListForm::Human), expected);
}

fn test_case(name: &str, outcome: TestOutcome, message: &str) -> TestCase {
    TestCase {
        suite: "calc".to_owned(),
        name: name.to_owned(),
        outcome,
        duration_ms: 12,
        message: message.to_owned(),
        output: String::new(),
    }
}

/// A build with one job of each kind.
fn failed() -> Kept {
    let mut kept = Kept::new();
    kept.build(&["lint", "build"]).pass("lint", 10).pass("build", 1000).end();
    let mut build = kept.build(&["lint", "build", "test", "deploy"]);
    build.reuse("lint", 1, 1).attempt("build", 3000, |report| {
        let artifact = Artifact { digest: store::blob::digest(b"bin"), files: 2, bytes: 2048 };
        report.artifacts = BTreeMap::from([("bin".to_owned(), artifact)]);
        report.notes = vec!["1 process was left behind".to_owned()];
        report.summary = "# Sizes\n\n* bin: 2 KiB\n".to_owned();
        report.outcome = Outcome::Passed { outputs: BTreeMap::from([("version".to_owned(), json!("1.2"))]) };
    });
    build.attempt("test", 1500, |report| {
        report.outcome = Outcome::Failed(Failure::Step { step: 0, exit: 101, message: None });
        report.steps[0].exit = Some(101);
        report.steps[0].result = graph::StepResult::Failed;
        report.steps[0].lines = 3;
        report.tests = vec![
            test_case("adds", TestOutcome::Passed, ""),
            test_case("divides", TestOutcome::Failed, "left: 1\nright: 2"),
        ];
    });
    let outcome = Outcome::Skipped(graph::SkipReason::Need { because: "test".into() });
    build.fact(engine::What::JobEnded { job: "deploy".into(), outcome, how: engine::Ended::Decided });
    build.print(&[(2, 0, Stream::Stdout, "running\nthread 'main' panicked at src/lib.rs:1\nleft: 1\n")]);
    build.fact(engine::What::BuildEnded { verdict: graph::Verdict::Failed { because: Some("test".into()) } });
    kept
}

#[test]
fn barriers_are_no_jobs_of_any_view() {
    let mut kept = Kept::new();
    let passed =
        |job: &str| engine::What::JobEnded { job: job.into(), outcome: Outcome::passed(), how: engine::Ended::Decided };
    kept.build(&["a", "wait:1", "b"]).pass("a", 10).fact(passed("wait:1")).pass("b", 10).end();
    check(
        &kept,
        None,
        "\
build 1 passed
  push on main, 1a2b3c4d5e6f
  2026-11-21 04:00:00, 6 min ago, took 20 ms, .ropewalk/pipeline.yaml

  ✓  a  passed  10 ms
  ✓  b  passed  10 ms
  2 jobs: 2 passed
",
    );
    let places = kept.places();
    let graph = places.store.graph(graph::BuildId(1)).expect("the store answers").expect("it was evaluated");
    assert_eq!(crate::drawing::work(&graph), 2, "as `plan` has it");
    assert_eq!(places.store.build(graph::BuildId(1)).expect("the store answers").map(|row| row.jobs), Some(2));
}

#[test]
fn a_wait_that_was_skipped_says_why() {
    let mut kept = Kept::new();
    let skipped = |job: &str, because: &str| engine::What::JobEnded {
        job: job.into(),
        outcome: Outcome::Skipped(graph::SkipReason::Need { because: because.into() }),
        how: engine::Ended::Decided,
    };
    kept.build(&["a", "wait:1", "b"]).fail("a", 1).fact(skipped("wait:1", "a")).fact(skipped("b", "wait:1")).end();
    let page = shown(&kept, None, ListForm::Human);
    let expected = "  -  wait:1  skipped         `a` did not end as needed\n  -  b       skipped         `wait:1` did not end as needed\n  \
                    2 jobs: 1 failed, 1 skipped\n";
    assert!(page.contains(expected), "{page}");
}

#[test]
fn a_build_that_failed() {
    let digest = store::blob::digest(b"bin").short();
    check(
        &failed(),
        None,
        &format!(
            "\
build 2 failed because of `test`
  push on main, 1a2b3c4d5e6f
  2026-11-21 04:01:01, 5 min ago, took 4.5 s, .ropewalk/pipeline.yaml

  ✓  lint    cached                    from build 1
  ✓  build   passed   3.0 s  ▲ +200 %
  ✗  test    failed   1.5 s            `make` ended with code 101
  -  deploy  skipped                   `test` did not end as needed
  4 jobs: 1 passed, 1 cached, 1 failed, 1 skipped

tests: 1 passed, 1 failed
  ✗ calc › divides  test, 12 ms
      left: 1
      right: 2

first error of test
   1 | running
  >2 | thread 'main' panicked at src/lib.rs:1
   3 | left: 1

artifacts
  bin  build  2 files  2.0 KiB  {digest}

notes
  build: 1 process was left behind

summary of build
  # Sizes

  * bin: 2 KiB

next
  ropewalk show 2 test
  ropewalk logs 2 test
  ropewalk shell 2 test@failed
  ropewalk retry 2 --failed
"
        ),
    );
}

#[test]
fn a_job_that_failed() {
    check(
        &failed(),
        Some("test"),
        "\
build 2, test
  ✗  failed  1.5 s  `make` ended with code 101
  2026-11-21 04:01:04, 5 min ago; worker local; host

steps
  ✗  1  make  1.5 s  exit 101  cpu 1.2 s  3.0 MiB  lines 1-3
  in all: cpu 1.2 s (user 1.2 s, system 30 ms), peak memory 3.0 MiB

tests: 1 passed, 1 failed
  ✗ calc › divides  test, 12 ms
      left: 1
      right: 2

first error
   1 | running
  >2 | thread 'main' panicked at src/lib.rs:1
   3 | left: 1

next
  ropewalk logs 2 test
  ropewalk shell 2 test@failed
  ropewalk explain test --build 2
",
    );
}

#[test]
fn a_step_that_may_fail_is_not_marked_as_what_failed() {
    let mut kept = Kept::new();
    let step = graph::Step { run: "make".into(), allow_failure: true, ..graph::Step::default() };
    let job = graph::Job { steps: vec![step], ..graph::Job::default() };
    let mut build = kept.build_of(vec![("a", job)]);
    build.attempt("a", 1500, |report| {
        report.steps[0].exit = Some(1);
        report.steps[0].result = graph::StepResult::Failed;
    });
    build.end();
    let page = shown(&kept, Some("a"), ListForm::Human);
    assert!(page.contains("\n  ✗  1  make  1.5 s  exit 1, may fail  cpu "), "{page}");
}

#[test]
fn a_large_build_shows_what_did_not_pass() {
    let mut kept = Kept::new();
    let names: Vec<String> = (0..300).map(|number| format!("test/{number:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut build = kept.build(&names);
    for name in &names {
        match *name {
            "test/007" | "test/250" => drop(build.fail(name, 1)),
            name => drop(build.pass(name, 1)),
        }
    }
    build.end();
    let page = shown(&kept, None, ListForm::Human);
    let listed: Vec<&str> = page.lines().skip_while(|line| !line.is_empty()).skip(1).take(4).collect();
    let expected = [
        "  ✗  test/007  failed  1.5 s  `make` ended with code 1",
        "  ✗  test/250  failed  1.5 s  `make` ended with code 1",
        "  … 298 more jobs, counted below: ropewalk show 1 JOB, or --output json",
        "  300 jobs: 298 passed, 2 failed",
    ];
    assert_eq!(listed, expected);
}

#[test]
fn an_open_gate_says_what_to_type() {
    let mut kept = Kept::new();
    let fields = BTreeMap::from([(
        "ticket".to_owned(),
        graph::Field { kind: graph::FieldKind::Number, default: None, help: String::new() },
    )]);
    let gate = graph::Job { gate: Some(graph::Gate { prompt: "".into(), fields }), ..graph::Job::default() };
    let mut build = kept.build_of(vec![("deploy", gate)]);
    build.fact(engine::What::GateOpened { job: "deploy".into(), prompt: "Now?\u{1b}[2J".to_owned() });
    check(
        &kept,
        None,
        "\
build 1 is running
  push on main, 1a2b3c4d5e6f
  2026-11-21 04:00:00, 5 min ago, for 5 m 00 s, .ropewalk/pipeline.yaml

  ?  deploy  gate  ropewalk approve 1 deploy --field ticket=VALUE
  1 job: 1 not ended

gates
  deploy: Now?
      ropewalk approve 1 deploy --field ticket=VALUE
",
    );
    // Once it is canceled nobody can answer any more.
    let mut build = kept.go_on(graph::BuildId(1));
    let outcome = Outcome::Failed(Failure::Canceled { by: "ann".to_owned() });
    build.fact(engine::What::JobEnded { job: "deploy".into(), outcome, how: engine::Ended::Decided });
    build.fact(engine::What::BuildEnded { verdict: graph::Verdict::Canceled { by: "ann".to_owned() } });
    let page = shown(&kept, None, ListForm::Human);
    assert!(
        page.contains("deploy: Now?\n      nobody answered before it was canceled\n") && !page.contains("approve"),
        "{page}"
    );
}

#[test]
fn what_grew_what_it_says_of_itself_and_what_was_wrong() {
    let mut kept = Kept::new();
    let graph = |jobs: &[&str], after: Option<&str>| {
        let job = |(order, name): (usize, &&str)| {
            (JobName::from(*name), Arc::new(Job { order: u32::try_from(order).expect("few jobs"), ..Job::default() }))
        };
        let text = after.map_or_else(|| "1.2".to_owned(), |job| format!("waiting for {job}"));
        let state = if after.is_some() { graph::StatusState::Pending } else { graph::StatusState::Ok };
        Arc::new(Graph {
            jobs: jobs.iter().enumerate().map(job).collect(),
            holes: after
                .map(|job| graph::Hole { name: "then:plan".into(), after: vec![job.into()] })
                .into_iter()
                .collect(),
            statuses: BTreeMap::from([("release".to_owned(), graph::Status { state, text })]),
            ..Graph::default()
        })
    };
    let evaluated =
        |graph, diagnostics| engine::What::Evaluated { graph, questions: Vec::new(), diagnostics, program: None };
    let mut diverged = graph::Diagnostic::error("diverged", "job `plan` had begun, and a later evaluation changes it");
    diverged.label = r#"before: {"order":0}; after: {"order":0,"title":"Plan"}"#.to_owned();
    let mut build = kept.build(&["plan"]);
    build.fact(evaluated(graph(&["plan"], Some("plan")), Vec::new()));
    build.pass("plan", 1000);
    build.fact(evaluated(graph(&["plan", "test/1", "test/2"], None), vec![diverged]));
    build.fact(engine::What::BuildEnded { verdict: graph::Verdict::Diverged { job: "plan".into() } });
    check(
        &kept,
        None,
        "\
build 1 diverged: the pipeline changed `plan` after it had begun
  push on main, 1a2b3c4d5e6f
  2026-11-21 04:00:00, 5 min ago, took 1.0 s, .ropewalk/pipeline.yaml

  ✓  plan    passed   1.0 s
  ·  test/1  waiting
  ·  test/2  waiting
  3 jobs: 1 passed, 2 not ended

statuses
  ✓  release  ok  1.2

growth
  plan passed: 2 jobs added: test/1, test/2

the pipeline
error[diverged]: job `plan` had begun, and a later evaluation changes it
  title
    + \"Plan\"
",
    );
    let value: Value = serde_json::from_str(&shown(&kept, None, ListForm::Json)).expect("JSON");
    assert_eq!(value["growth"][0]["because"], json!([{ "job": "plan", "outcome": "passed" }]));
    assert_eq!(value["growth"][0]["added"], json!(["test/1", "test/2"]));
    assert_eq!(value["diagnostics"][0]["after"]["title"], "Plan");
    assert_eq!(value["statuses"]["release"]["text"], "1.2");
}

#[test]
fn faults_show_the_lines_of_sources_that_nobody_has_changed() {
    let root = tempfile::tempdir().expect("a folder");
    let path = root.path().join("pipeline.rs");
    std::fs::write(&path, "one\ntwo\n").expect("a file");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_micros();
    let now = i64::try_from(now).expect("not yet");
    let source = |name: &str, created: i64| history::source(root.path(), name, Timestamp(created));
    assert_eq!(source("pipeline.rs", now + 1_000_000).as_deref(), Some("one\ntwo\n"));
    assert_eq!(source("pipeline.rs", now - 60_000_000), None);
    assert_eq!(source("../pipeline.rs", now + 1_000_000), None);
    assert_eq!(source("nothing.rs", now + 1_000_000), None);
}

#[test]
fn what_a_job_warned_of_is_listed() {
    let mut kept = Kept::new();
    let mut build = kept.build(&["a"]);
    build.pass("a", 10);
    build.print(&[
        (1, 0, Stream::Stdout, "one\n::warning::old\n"),
        (1, 0, Stream::Stderr, "::error::not one\n"),
        (1, 1, Stream::Stdout, "::error::no\n"),
    ]);
    build.end();
    let page = shown(&kept, Some("a"), ListForm::Human);
    assert!(page.contains("\nwarnings and errors\n  line 2  warning: old\n  line 4  error: no\n\n"), "{page}");
}

#[test]
fn json_has_everything_of_a_job() {
    let kept = failed();
    let value: Value = serde_json::from_str(&shown(&kept, Some("test"), ListForm::Json)).expect("JSON");
    assert_eq!(value["build"]["build"], 2);
    assert_eq!(value["jobs"][0]["name"], "test");
    assert_eq!(value["jobs"][0]["attempts"][0]["report"]["tests"][1]["message"], "left: 1\nright: 2");
    assert_eq!(value["first_error"]["error"], 2);
    assert_eq!(value["jobs"].as_array().map(Vec::len), Some(1));
    let started: Timestamp = serde_json::from_value(value["jobs"][0]["row"]["started"].clone()).expect("a time");
    assert_eq!(kept.calendar().time(started), "2026-11-21 04:01:04");
}
