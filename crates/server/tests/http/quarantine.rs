//! Tests in quarantine: who puts them there, for how long, where they are told, and that nothing passes by it alone.

use api::build::Rebuild;
use api::client::{AuditWanted, PageWanted, TestsWanted};
use api::job::OutcomeWord;
use api::problem::ProblemKind;
use api::quarantine::{DAY_MS, NewQuarantine, QuarantineState, Runs};
use api::test_history::FailureKind;
use api::time::Time;
use graph::{BuildId, Failure, Outcome, TestCase, TestOutcome, Timestamp};
use server::access::Verb;

use super::pages::Browser;
use super::site::{self, Worker, manifest, report};
use super::{Served, refused, submit};

/// One job that tells of its tests, one that does not.
const JOBS: &str = "jobs:\n  t: { inputs: [.ropewalk/pipeline.yaml], reports: { junit: r.xml }, run: echo }\n  plain: { needs: [{ job: t, on: finished }], run: echo }\n";

fn in_days(days: u64) -> Time {
    Time(site::now().plus_ms(days * DAY_MS))
}

fn quarantine(name: &str, job: Option<&str>) -> NewQuarantine {
    NewQuarantine {
        suite: "s".to_owned(),
        name: name.to_owned(),
        job: job.map(str::to_owned),
        owner: "ann".to_owned(),
        reason: "flaky <b>clock".to_owned(),
        until: in_days(30),
    }
}

fn cases(text: &str) -> Vec<TestCase> {
    let case = |word: &str| TestCase {
        suite: "s".to_owned(),
        name: word[1..].to_owned(),
        outcome: if word.starts_with('+') { TestOutcome::Passed } else { TestOutcome::Failed },
        duration_ms: 1,
        message: String::new(),
        output: String::new(),
    };
    text.split_whitespace().map(case).collect()
}

/// The next attempt ends so. Gives the tests in quarantine that it was told of.
async fn attempt(served: &Served, worker: &mut Worker, outcome: Outcome, tests: &str) -> String {
    let start = worker.start().await;
    let told = graph::AttemptReport { tests: cases(tests), ..report(outcome, "echo") };
    worker.report(&served.site, &start.spec, told).await;
    graph::quarantine::variable(&start.spec.quarantine)
}

/// A build of `JOBS` whose `t` ends with these tests: what `t` and `plain` were told of, as far as they ran.
async fn built(served: &Served, worker: &mut Worker, tests: &str) -> (BuildId, String, String) {
    let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", JOBS)]);
    let build = served.admin().build_submit(&submit(source)).await.unwrap().build;
    let (t, plain) =
        (attempt(served, worker, ended(tests), tests).await, attempt(served, worker, ended("-"), "").await);
    served.site.ended(build).await;
    (build, t, plain)
}

fn ended(tests: &str) -> Outcome {
    let has_failed = tests.contains('-');
    if has_failed { Outcome::Failed(Failure::Step { step: 0, exit: 1, message: None }) } else { Outcome::passed() }
}

#[tokio::test]
async fn a_test_in_quarantine_is_told_apart_and_fails_its_job_all_the_same() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    let (first, told, _) = built(&served, &mut worker, "+a -b -c").await;
    assert_eq!(told, "");
    let developer = served.client(&served.token(&[Verb::Read, Verb::Control], Some("sails"), None));
    let put = developer.quarantine_put("sails", &quarantine("b", None)).await.unwrap();
    assert_eq!((put.by.as_str(), put.state), ("ada", QuarantineState::InForce));
    // What has failed has failed, also when it is tried again: its build knows of no quarantine.
    let kinds = |summary: api::test_history::TestSummary| -> Vec<(String, FailureKind)> {
        summary.failures.into_iter().map(|failure| (failure.test.name, failure.kind)).collect()
    };
    let summary = admin.test_summary(first).await.unwrap();
    assert_eq!((summary.failed, summary.quarantined), (2, 1));
    let expected = [("c".to_owned(), FailureKind::New), ("b".to_owned(), FailureKind::Quarantined)];
    assert_eq!(kinds(summary), expected);
    assert_eq!(admin.job_get(first, "t").await.unwrap().outcome, Some(OutcomeWord::Failed));
    admin.job_retry(first, "t", &Default::default()).await.unwrap();
    assert_eq!(attempt(&served, &mut worker, ended("-"), "+a -b -c").await, "");
    served.site.ended(first).await;
    // A later build names it to the steps of the job with reports, and fails as they do.
    let again = admin.build_rebuild(first, &Rebuild::default()).await.unwrap().build;
    assert_eq!(attempt(&served, &mut worker, ended("-"), "+a -b +c").await, "s\tb");
    assert_eq!(attempt(&served, &mut worker, ended("-"), "").await, "");
    served.site.ended(again).await;
    assert_eq!(admin.job_get(again, "t").await.unwrap().outcome, Some(OutcomeWord::Failed));
    let of = |quarantined| TestsWanted { quarantined: Some(quarantined), ..TestsWanted::default() };
    let names = async |quarantined| -> Vec<String> {
        let tests = admin.test_list(again, &of(quarantined), &PageWanted::default()).await.unwrap().items;
        tests.into_iter().map(|test| test.name).collect()
    };
    assert_eq!((names(true).await, names(false).await), (vec!["b".to_owned()], vec!["a".to_owned(), "c".to_owned()]));
    let comparison = admin.build_compare(again, first).await.unwrap();
    let marked: Vec<_> = comparison.tests.iter().filter(|test| test.quarantine.is_some()).collect();
    assert!(marked.iter().all(|test| test.name == "b"), "{:?}", comparison.tests);
    // Pages say who, until when and why, and nothing in them is a tag of a stranger.
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    let said = format!("quarantined by ann until {}: flaky &lt;b&gt;clock", &in_days(30).to_string()[..10]);
    for path in [format!("/builds/{again}"), format!("/builds/{again}/tests")] {
        let page = browser.get(&path).await;
        assert!(page.text.contains(&said) && !page.text.contains("<b>clock"), "{path}: {}", page.text);
    }
    let tests = browser.get(&format!("/builds/{first}/tests")).await.text;
    assert!(tests.find("New failures").unwrap() < tests.find("In quarantine").unwrap(), "{tests}");
    served.end().await;
}

#[tokio::test]
async fn what_passed_with_a_quarantine_stands_for_nothing_without_it() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    built(&served, &mut worker, "-b").await;
    admin.quarantine_put("sails", &quarantine("b", Some("t"))).await.unwrap();
    admin.quarantine_put("sails", &quarantine("x", Some("other"))).await.unwrap();
    // The script leaves it out, so the job passes, and its result is kept: for the same quarantine.
    let (_, told, _) = built(&served, &mut worker, "+a").await;
    assert_eq!(told, "s\tb");
    let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", JOBS)]);
    let same = admin.build_submit(&submit(source)).await.unwrap().build;
    attempt(&served, &mut worker, ended("-"), "").await;
    served.site.ended(same).await;
    assert!(admin.job_get(same, "t").await.unwrap().reused.is_some());
    admin.quarantine_delete("sails", ("s", "b"), Some("t")).await.unwrap();
    let (without, told, _) = built(&served, &mut worker, "-b").await;
    assert_eq!(told, "");
    assert_eq!(admin.job_get(without, "t").await.unwrap().outcome, Some(OutcomeWord::Failed));
    served.end().await;
}

#[tokio::test]
async fn a_quarantine_has_an_owner_a_reason_and_an_end() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    let unknown = admin.quarantine_put("sails", &quarantine("b", None)).await.unwrap_err();
    assert_eq!(refused(&unknown), Some(ProblemKind::NotFound));
    built(&served, &mut worker, "-b").await;
    for n in 0..4 {
        let event = api::event::EventWanted { message: n.to_string(), ..Default::default() };
        let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", &format!("{JOBS}# {n}\n"))]);
        let build = admin.build_submit(&api::build::Submit { event, ..submit(source) }).await.unwrap().build;
        // The steps are the same; what failed before is tried again.
        attempt(&served, &mut worker, ended("-"), "+b -c").await;
        attempt(&served, &mut worker, ended("-"), "").await;
        served.site.ended(build).await;
    }
    let good = || quarantine("b", None);
    for (wrong, field) in [
        (NewQuarantine { owner: " ".to_owned(), ..good() }, "owner"),
        (NewQuarantine { owner: "a".repeat(101), ..good() }, "owner"),
        (NewQuarantine { reason: String::new(), ..good() }, "reason"),
        (NewQuarantine { name: String::new(), ..good() }, "name"),
        (NewQuarantine { suite: "a\tb".to_owned(), ..good() }, "name"),
        (NewQuarantine { job: Some(String::new()), ..good() }, "job"),
        (NewQuarantine { until: Time(Timestamp(0)), ..good() }, "until"),
        (NewQuarantine { until: in_days(91), ..good() }, "until"),
    ] {
        let error = admin.quarantine_put("sails", &wrong).await.unwrap_err();
        assert_eq!(refused(&error), Some(ProblemKind::Unprocessable), "{wrong:?}");
        assert!(error.to_string().contains(&format!("`{field}`")), "{error}");
    }
    let reader = served.client(&served.token(&[Verb::Read], None, None));
    let refusal = |error: api::client::ClientError| refused(&error);
    assert_eq!(reader.quarantine_put("sails", &good()).await.map_err(refusal), Err(Some(ProblemKind::Forbidden)));
    // Said anew it is the same one; what ends first stands first.
    admin.quarantine_put("sails", &good()).await.unwrap();
    admin.quarantine_put("sails", &NewQuarantine { owner: "bob".to_owned(), ..good() }).await.unwrap();
    let soon = NewQuarantine { until: in_days(3), ..quarantine("c", None) };
    admin.quarantine_put("sails", &soon).await.unwrap();
    // What has expired stays in the list, and counts no more.
    let records = &served.site.server().records;
    let put = |name: &str, until: Time, at: u64| server::quarantine::Entry {
        what: graph::quarantine::QuarantinedTest {
            test: graph::TestName { suite: "s".to_owned(), name: name.to_owned() },
            job: None,
            until: until.0,
        },
        owner: "ann".to_owned(),
        reason: "old".to_owned(),
        by: "ada".to_owned(),
        at: Timestamp(0).plus_ms(at),
    };
    server::quarantine::put(records, "sails", &put("old", Time(Timestamp(0).plus_ms(DAY_MS)), 0)).unwrap();
    let listed = reader.quarantine_list("sails", Runs::Told).await.unwrap().items;
    let told: Vec<_> =
        listed.iter().map(|it| (it.name.as_str(), it.owner.as_str(), it.state, it.passed_last.unwrap())).collect();
    let expected = [
        ("old", "ann", QuarantineState::Expired, 0),
        ("c", "ann", QuarantineState::EndsSoon, 0),
        ("b", "bob", QuarantineState::InForce, 4),
    ];
    assert_eq!(told, expected);
    let (build, told, _) = built(&served, &mut worker, "-old").await;
    assert_eq!((told.as_str(), admin.test_summary(build).await.unwrap().quarantined), ("s\tb\ns\tc", 0));
    assert_eq!(
        refusal(admin.quarantine_delete("sails", ("s", "none"), None).await.unwrap_err()),
        Some(ProblemKind::NotFound)
    );
    // From the page, without scripts, and not from another site.
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    let page = browser.get("/projects/sails/quarantine").await;
    for text in ["1 quarantine has", "1 ends", "passed the last 4 times"] {
        assert!(page.text.contains(text), "{text}: {}", page.text);
    }
    let page = browser.get("/projects/sails/tests?name=b&suite=s").await;
    assert!(
        page.text.contains("in quarantine") && page.text.contains("name=b&amp;suite=s&amp;job=#new"),
        "{}",
        page.text
    );
    let form = format!("name=d+%3Ci%3E&suite=s&owner=eve&reason=x&until={}", &in_days(5).to_string()[..10]);
    assert_ne!(browser.post("/projects/sails/quarantine", &form, "cross-site").await.status, 303);
    let page = browser.post("/projects/sails/quarantine", &form, "same-origin").await;
    assert_eq!((page.status, page.to.as_str()), (303, "/projects/sails/quarantine"), "{}", page.text);
    let page = browser.get("/projects/sails/quarantine").await;
    assert!(page.text.contains("s d &lt;i&gt;") && !page.text.contains("<i>"), "{}", page.text);
    let page = browser.post("/projects/sails/quarantine/remove", "name=d+%3Ci%3E&suite=s", "same-origin").await;
    assert_eq!(page.status, 303, "{}", page.text);
    let audit = admin.audit_list(&AuditWanted::default(), &PageWanted::default()).await.unwrap().items;
    let said: Vec<_> = audit.iter().take(2).map(|entry| (entry.verb.as_str(), entry.target.as_str())).collect();
    assert_eq!(said, [("quarantine_delete", "test s d <i>"), ("quarantine_put", "test s d <i>")]);
    assert!(audit[1].detail.starts_with("owner eve, until "), "{}", audit[1].detail);
    // With the project it is forgotten.
    admin.project_delete("sails").await.unwrap();
    assert_eq!(server::quarantine::of(records, "sails").unwrap().tests, []);
    served.end().await;
}
