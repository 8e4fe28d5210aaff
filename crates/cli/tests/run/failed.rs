//! What is told of a failure: which job first, what of it may be entered, which tests failed.

use super::Repository;

/// `slow` fails last, `zlint` first; `flaky` fails once and passes then; `lint` may fail.
const SEVERAL: &str = r#"jobs:
  flaky: { retry: { max: 1, on: [step] }, run: 'test -e "$ROPEWALK_PROJECT_DATA/tried" || { touch "$ROPEWALK_PROJECT_DATA/tried"; exit 1; }' }
  lint: { allow_failure: true, run: exit 2 }
  slow: { run: 'sleep 1; exit 3' }
  zlint: { run: 'sleep 0.3; echo unused; exit 4' }
"#;

#[test]
fn the_job_that_failed_first_is_looked_at_first() {
    let repository = Repository::new(SEVERAL);
    let text = repository.check(&["run", "--keep-going"], 1);
    assert!(text.contains("build 1 failed because of `zlint`"), "{text}");
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no `{part}` in {text}"));
    assert!(at("✗ zlint") < at("✗ slow") && at("✗ slow") < at("✗ lint"), "{text}");
    assert!(text.ends_with("  ropewalk shell 1 zlint@failed\n"), "{text}");
    let opened = repository.check(&["shell", "last-failed", "--", "sh", "-c", "echo $ROPEWALK_JOB"], 0);
    assert_eq!(opened, "zlint\n");
    repository.check(&["shell", "last-failed", "@failed", "--", "true"], 0);
    assert!(repository.check(&["show", "last"], 0).contains("of zlint\n"));
}

#[test]
fn what_never_began_is_not_entered() {
    let repository = Repository::new("jobs: { a: { secrets: [NOT_THERE], run: echo one } }");
    let text = repository.check(&["run"], 1);
    assert!(text.contains("NOT_THERE") && !text.contains("ropewalk shell"), "{text}");
    assert!(!repository.check(&["show", "1"], 0).contains("ropewalk shell"));
    let text = repository.check(&["shell", "1", "a"], 2);
    assert!(
        text.contains("no step of `a` began in build 1, so it left nothing: ") && text.contains("NOT_THERE"),
        "{text}"
    );
}

#[test]
fn a_job_in_the_tree_itself_is_looked_at_there() {
    let repository = Repository::new("jobs: { a: { workspace: in_place, run: exit 1 } }");
    let text = repository.check(&["run"], 1);
    assert!(text.ends_with("`a` worked in your tree itself (workspace: in_place): look there\n"), "{text}");
}

#[test]
fn tests_that_failed_are_told_at_the_end() {
    let repository = Repository::new("jobs: { a: { reports: { junit: r.xml }, run: 'sh tests.sh' } }");
    repository.write(
        "tests.sh",
        "cat > r.xml <<E\n<testsuite name=\"sums\"><testcase name=\"adds\"/><testcase name=\"halves\"><failure>expected 1, was 2</failure></testcase></testsuite>\nE\nexit 1\n",
    );
    let text = repository.check(&["run"], 1);
    assert!(text.contains("  ✗ sums › halves  0 ms\n      expected 1, was 2\n"), "{text}");
    assert!(!text.contains("adds"), "{text}");
}

#[test]
fn tests_that_failed_are_told_of_a_job_that_passed() {
    let repository = Repository::new(
        "jobs: { a: { reports: { junit: r.xml }, run: 'echo \"<testsuite><testcase name=\\\"x\\\"><failure/></testcase></testsuite>\" > r.xml' } }",
    );
    let text = repository.check(&["run"], 0);
    assert!(
        text.contains("1 test of its reports failed, `x` among them; the job passes, since its steps decide"),
        "{text}"
    );
}

#[test]
fn single_tests_of_a_report_that_was_cut_are_not_retried() {
    let repository = Repository::new("jobs: { a: { reports: { junit: r.xml }, run: 'sh tests.sh' } }");
    // The runner is ended while it reports `b`, which it runs only if it is asked for nothing.
    repository.write(
        "tests.sh",
        "if [ -n \"$ROPEWALK_TESTS\" ]; then echo '<testsuite><testcase name=\"a\"/></testsuite>' > r.xml; exit 0; fi\n\
         echo '<testsuite><testcase name=\"a\"><failure/></testcase><testcase name=\"b\">' > r.xml; exit 1\n",
    );
    let text = repository.check(&["run"], 1);
    assert!(text.contains("r.xml") && !text.contains("› b"), "{text}");
    for arguments in [&["retry", "1", "--tests"][..], &["retry", "1", "a", "--tests", "a"]] {
        let text = repository.check(arguments, 2);
        assert!(text.contains("job `a`: its reports were not read whole"), "{text}");
        assert!(text.contains("; retry the job whole"), "{text}");
    }
}

#[test]
fn a_build_in_which_nothing_changed_is_told_with_its_jobs() {
    let repository = Repository::new(
        "jobs: { a: { inputs: [file.txt], artifacts: { made: made.txt }, run: 'echo one > made.txt; cat made.txt' }, b: { needs: [a], inputs: [], run: echo two } }",
    );
    repository.check(&["run"], 0);
    let text = repository.check(&["run"], 0);
    assert!(text.contains("build 2: nothing changed since build 1: 2 jobs cached"), "{text}");
    for number in ["2", "last"] {
        let page = repository.check(&["show", number], 0);
        assert!(page.contains("  ✓  b  cached  from build 1\n  2 jobs: 2 cached\n"), "{page}");
        assert!(repository.check(&["show", number, "a"], 0).contains("build 1"));
        assert!(repository.check(&["explain", "a", "--build", number], 0).contains("an equal run passed in build 1"));
        assert!(repository.check(&["logs", number, "a"], 0).starts_with("one\n"));
        let opened = repository.check(&["shell", number, "a", "--", "cat", "made.txt"], 0);
        assert_eq!(opened, "one\n");
    }
    assert!(repository.check(&["explain"], 0).contains("a in build 2: "), "every job is explained");
}
