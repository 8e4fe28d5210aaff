//! Retries of single tests: what is asked for, what is refused, what the worker is told, what is shown afterwards.

use api::build::{Retry, RetryJob};
use api::client::{PageWanted, TestsWanted};
use api::problem::ProblemKind;
use graph::{AttemptNumber, BuildId, Failure, Outcome, Partial, TestCase, TestOutcome};

use server::access::Verb;

use super::pages::Browser;
use super::site::{Worker, manifest, report};
use super::{Served, refused, submit};

const JOBS: &str =
    "jobs:\n  t: { reports: { junit: r.xml }, run: echo }\n  plain: { needs: [{ job: t, on: finished }], run: echo }\n";

/// Tests of suite `s` as words: `+` passed, `-` failed, `~` skipped.
fn cases(text: &str) -> Vec<TestCase> {
    let case = |word: &str| TestCase {
        suite: "s".to_owned(),
        name: word[1..].to_owned(),
        outcome: match &word[..1] {
            "+" => TestOutcome::Passed,
            "-" => TestOutcome::Failed,
            _ => TestOutcome::Skipped,
        },
        duration_ms: 1,
        message: String::new(),
        output: String::new(),
    };
    text.split_whitespace().map(case).collect()
}

fn failed() -> Outcome {
    Outcome::Failed(Failure::Step { step: 0, exit: 1, message: None })
}

/// A build whose job `t` passed whole, as did `plain`.
async fn passed_whole(served: &Served, worker: &mut Worker, tests: &str) -> BuildId {
    let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", JOBS)]);
    let build = served.admin().build_submit(&submit(source)).await.unwrap().build;
    attempt(served, worker, Outcome::passed(), tests).await;
    attempt(served, worker, Outcome::passed(), "").await;
    served.site.ended(build).await;
    build
}

/// A build whose job `t` reported these tests and failed, as did `plain`.
async fn built(served: &Served, worker: &mut Worker, tests: &str) -> BuildId {
    let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", JOBS)]);
    let build = served.admin().build_submit(&submit(source)).await.unwrap().build;
    attempt(served, worker, failed(), tests).await;
    attempt(served, worker, failed(), "").await;
    served.site.ended(build).await;
    build
}

/// The next attempt ends so. Gives the lines that it was asked for.
async fn attempt(served: &Served, worker: &mut Worker, outcome: Outcome, tests: &str) -> Option<String> {
    let start = worker.start().await;
    let told = graph::AttemptReport { tests: cases(tests), ..report(outcome, "echo") };
    worker.report(&served.site, &start.spec, told).await;
    start.spec.asked.as_ref().map(|asked| asked.variable())
}

fn named(tests: &[&str]) -> RetryJob {
    RetryJob { tests: Some(tests.iter().map(|&name| name.to_owned()).collect()), reason: "flaky".to_owned() }
}

#[tokio::test]
async fn tests_of_a_job_are_retried_and_the_newest_result_of_each_stands() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    let build = built(&served, &mut worker, "+a -b -c").await;
    admin.job_retry(build, "t", &named(&["b"])).await.unwrap();
    assert_eq!(attempt(&served, &mut worker, Outcome::passed(), "+b ~c").await.as_deref(), Some("s\tb"));
    served.site.ended(build).await;
    let summary = admin.test_summary(build).await.unwrap();
    assert_eq!((summary.passed, summary.failed, summary.skipped), (2, 1, 0), "what was left out has failed still");
    let tried = admin.attempt_get(build, 3).await.unwrap().ended.unwrap();
    let told = tried.report.unwrap();
    let note = "the retry was asked for 1 test, which passed; 1 other test of the job failed before and was not asked for, `s c` among them";
    assert_eq!((told.notes, told.partial.map(Into::into)), (vec![note.to_owned()], Some(Partial { asked: 1, of: 3 })));
    let retried =
        admin.build_retry(build, &Retry::FailedTests { jobs: [].into(), reason: String::new() }).await.unwrap();
    assert_eq!(retried.jobs, ["t"]);
    assert_eq!(attempt(&served, &mut worker, Outcome::passed(), "+c").await.as_deref(), Some("s\tc"));
    served.site.ended(build).await;
    assert_eq!(admin.job_get(build, "t").await.unwrap().outcome, Some(api::job::OutcomeWord::Passed));
    let wanted = TestsWanted { newest: true, ..TestsWanted::default() };
    let tests = admin.test_list(build, &wanted, &PageWanted::default()).await.unwrap().items;
    let tests: Vec<_> = tests.iter().map(|test| (test.name.as_str(), test.attempt, test.outcome)).collect();
    let passed = api::job::TestOutcome::Passed;
    assert_eq!(tests, [("a", 1, passed), ("b", 3, passed), ("c", 4, passed)]);
    let audit = served.site.server().store.audit(&Default::default(), None, 10).unwrap();
    let told: Vec<&str> = audit.iter().map(|row| row.entry.detail.as_str()).collect();
    assert!(told.contains(&"flaky t (1 of 3 tests: s b)") && told.contains(&"t (1 of 3 tests: s c)"), "{told:?}");
    served.end().await;
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused_with_what_to_do() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    let build = built(&served, &mut worker, "+a -b").await;
    for (job, tests, text) in [
        ("t", &["x"][..], "the job reported no test `x`"),
        ("t", &[], "no test is named"),
        ("plain", &["b"], "the job declares no `reports`"),
    ] {
        let error = admin.job_retry(build, job, &named(tests)).await.unwrap_err();
        assert_eq!(refused(&error), Some(ProblemKind::Unprocessable));
        assert!(error.to_string().contains(text), "{error}");
    }
    let error = admin.job_retry(build, "none", &named(&["b"])).await.unwrap_err();
    assert_eq!(refused(&error), Some(ProblemKind::NotFound));
    let none = Retry::Tests { tests: [].into(), reason: String::new() };
    assert_eq!(refused(&admin.build_retry(build, &none).await.unwrap_err()), Some(ProblemKind::Unprocessable));
    let reader = served.client(&served.token(&[Verb::Read], None, None));
    assert_eq!(refused(&reader.job_retry(build, "t", &named(&["b"])).await.unwrap_err()), Some(ProblemKind::Forbidden));
    assert_eq!(served.site.server().store.attempts(build, None).unwrap().last().unwrap().attempt, AttemptNumber(2));
    served.end().await;
}

#[tokio::test]
async fn a_job_whose_reports_were_cut_is_retried_whole() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", JOBS)]);
    let build = admin.build_submit(&submit(source)).await.unwrap().build;
    let cut = graph::AttemptReport { tests: cases("+a -b"), tests_cut: true, ..report(failed(), "echo") };
    let start = worker.start().await;
    worker.report(&served.site, &start.spec, cut).await;
    attempt(&served, &mut worker, failed(), "").await;
    served.site.ended(build).await;
    let all = Retry::FailedTests { jobs: [].into(), reason: String::new() };
    for error in [
        admin.build_retry(build, &all).await.unwrap_err(),
        admin.job_retry(build, "t", &named(&["b"])).await.unwrap_err(),
    ] {
        assert_eq!(refused(&error), Some(ProblemKind::Unprocessable));
        assert!(error.to_string().contains("job `t`: its reports were not read whole"), "{error}");
    }
    let whole = RetryJob { tests: None, reason: String::new() };
    admin.job_retry(build, "t", &whole).await.unwrap();
    attempt(&served, &mut worker, failed(), "+a -b").await;
    served.site.ended(build).await;
    admin.job_retry(build, "t", &named(&["b"])).await.unwrap();
    assert_eq!(attempt(&served, &mut worker, Outcome::passed(), "+b").await.as_deref(), Some("s\tb"));
    served.end().await;
}

#[tokio::test]
async fn the_page_of_tests_retries_those_that_are_chosen_without_scripts() {
    let served = Served::new().await;
    let mut worker = Worker::join(&served.site, "w", []).await;
    let build = built(&served, &mut worker, "+a -b -c").await;
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    let page = browser.get("/builds/1/tests").await;
    let boxes: Vec<&str> =
        page.text.split("<input type=\"checkbox\"").skip(1).map(|rest| rest.split('>').next().unwrap()).collect();
    assert_eq!(boxes.len(), 2, "{}", page.text);
    assert!(
        boxes[1].contains("form=\"retry-chosen\" name=\"test.new-1\" value=\"t\ts\tc\" aria-label=\"Retry s c\""),
        "{boxes:?}"
    );
    let sent = browser.post("/builds/1/retry", "what=tests", "same-origin").await;
    assert!(sent.text.contains("choose at least one test"), "{} {}", sent.status, sent.text);
    let sent = browser.post("/builds/1/retry", "what=tests&test.new-1=t%09s%09c", "same-origin").await;
    assert_eq!(sent.status, 303, "{}", sent.text);
    assert_eq!(attempt(&served, &mut worker, failed(), "+c").await.as_deref(), Some("s\tc"));
    served.site.ended(build).await;
    let page = browser.get("/builds/1/jobs/t").await;
    assert!(page.text.contains("Asked for 1 of 3 tests"), "{}", page.text);
    let page = browser.get("/builds/1/jobs/t/attempts").await;
    assert!(page.text.contains("asked for 1 of 3 tests"), "{}", page.text);
    let sent = browser.post("/builds/1/retry", "what=failed_tests&jobs=%5B%22t%22%5D", "same-origin").await;
    assert_eq!(sent.status, 303, "{}", sent.text);
    assert_eq!(attempt(&served, &mut worker, Outcome::passed(), "+b").await.as_deref(), Some("s\tb"));
    served.site.ended(build).await;
    let page = browser.get("/builds/1/tests").await;
    assert!(page.text.contains("None of 3 failed"), "{}", page.text);
    served.end().await;
}

/// The remarks of an attempt.
async fn notes(served: &Served, build: BuildId, attempt: u32) -> Vec<String> {
    served.admin().attempt_get(build, attempt).await.unwrap().ended.unwrap().report.unwrap().notes
}

#[tokio::test]
async fn what_a_runner_that_stops_at_the_first_failure_never_ran_keeps_the_job_from_passing() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    passed_whole(&served, &mut worker, "+a +b +c ~d").await;
    // What passed with a retry of some tests is nothing to compare with.
    let partly = built(&served, &mut worker, "+a -b +c").await;
    admin.job_retry(partly, "t", &named(&["b"])).await.unwrap();
    attempt(&served, &mut worker, Outcome::passed(), "+b").await;
    served.site.ended(partly).await;
    assert_eq!(notes(&served, partly, 3).await, Vec::<String>::new(), "all ran");

    let build = built(&served, &mut worker, "-a").await;
    let summary = admin.test_summary(build).await.unwrap();
    let never: Vec<_> = summary.never_run.iter().map(|never| (&*never.job, never.tests, never.passed_in.0)).collect();
    assert_eq!(never, [("t", 2, 1)]);
    assert_eq!(summary.never_run[0].first, ["s b", "s c"]);
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    let page = browser.get(&format!("/builds/{build}/tests")).await;
    assert!(page.text.contains("never ran in this build") && page.text.contains("<code>s b</code>"), "{}", page.text);

    let retried = admin.job_retry(build, "t", &named(&["a"])).await.unwrap();
    let remark = "t: 2 tests that ran when it last passed whole, in build 1, have not run this time, `s b` among them: unless they run \
                  too, only a retry of the whole job can pass";
    assert_eq!(retried.remarks, [remark]);
    assert_eq!(attempt(&served, &mut worker, Outcome::passed(), "+a").await.as_deref(), Some("s\ta"));
    served.site.ended(build).await;
    let note = "the retry was asked for 1 test, which passed; 2 tests that ran when the job last passed whole, in build 1, have not \
                passed this time, `s b` among them: retry the job whole, also if tests were removed or renamed";
    assert_eq!(notes(&served, build, 3).await, [note]);
    assert_eq!(admin.job_get(build, "t").await.unwrap().outcome, Some(api::job::OutcomeWord::Failed));

    // They can be asked for too; what one attempt ran, another need not.
    admin.job_retry(build, "t", &named(&["b"])).await.unwrap();
    assert_eq!(attempt(&served, &mut worker, Outcome::passed(), "+b").await.as_deref(), Some("s\tb"));
    served.site.ended(build).await;
    let again = admin.job_retry(build, "t", &named(&["s c"])).await.unwrap();
    assert_eq!(again.remarks, Vec::<String>::new());
    attempt(&served, &mut worker, Outcome::passed(), "+c").await;
    served.site.ended(build).await;
    assert_eq!(admin.job_get(build, "t").await.unwrap().outcome, Some(api::job::OutcomeWord::Passed));
    served.end().await;
}

#[tokio::test]
async fn where_no_attempt_passed_whole_it_is_told_that_nothing_is_compared() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    let build = built(&served, &mut worker, "+a -b").await;
    assert_eq!(admin.test_summary(build).await.unwrap().never_run, []);
    admin.job_retry(build, "t", &named(&["b"])).await.unwrap();
    attempt(&served, &mut worker, Outcome::passed(), "+b").await;
    served.site.ended(build).await;
    assert_eq!(notes(&served, build, 3).await, [graph::AskedTests::UNCOMPARED]);
    assert_eq!(admin.job_get(build, "t").await.unwrap().outcome, Some(api::job::OutcomeWord::Passed));
    served.end().await;
}

#[tokio::test]
async fn tries_of_some_tests_are_marked_while_they_run_and_after() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    let build = built(&served, &mut worker, "+a -b -c").await;
    admin.job_retry(build, "t", &named(&["b"])).await.unwrap();
    let start = worker.start().await;
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    let marked = async || {
        let list = admin.attempt_list(build, Some("t"), &PageWanted::default()).await.unwrap();
        let partials: Vec<Option<Partial>> = list.items.iter().map(|attempt| attempt.partial.map(Into::into)).collect();
        assert_eq!(partials, [None, Some(Partial { asked: 1, of: 3 })]);
        assert!(list.items.iter().all(|attempt| attempt.ended.as_ref().is_none_or(|end| end.report.is_none())));
        let page = browser.get("/builds/1/jobs/t").await;
        assert!(page.text.contains("<span class=\"quiet\"> 1 of 3 tests</span>"), "{}", page.text);
        assert!(page.text.contains("Asked for 1 of 3 tests"), "{}", page.text);
        let page = browser.get("/builds/1/jobs/t/attempts").await;
        assert!(page.text.contains("asked for 1 of 3 tests"), "{}", page.text);
    };
    marked().await;
    let told = graph::AttemptReport { tests: cases("+b"), ..report(failed(), "echo") };
    worker.report(&served.site, &start.spec, told).await;
    served.site.ended(build).await;
    marked().await;
    served.end().await;
}
