//! Projects at a glance, badges, builds side by side, and tests over builds: what the API tells and what pages make of it.

use api::build::{Submit, VerdictWord};
use api::client::{Client, PageWanted, TestWanted};
use api::event::{EventWanted, EventWord};
use api::job::{OutcomeWord, TestOutcome};
use api::overview::RefKind;
use api::page::Page;
use api::project::{Project, ProjectSettings};
use api::test_history::FailureKind;
use api::worker::FromWorker;
use graph::{BuildId, Failure, Outcome, TestCase};
use server::access::Verb;

use super::pages::Browser;
use super::site::{Worker, manifest, report, said};
use super::{Served, submit};

/// Names that break out of HTML that does not heed them.
const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&";

/// How a test of a build ended.
fn case(name: &str, outcome: graph::TestOutcome, duration_ms: u64) -> TestCase {
    let message =
        if outcome == graph::TestOutcome::Passed { String::new() } else { format!("{HOSTILE}\n- left\n+ right") };
    let output = message.clone();
    TestCase { suite: HOSTILE.to_owned(), name: name.to_owned(), outcome, duration_ms, message, output }
}

/// A build of one job that has ended so, with these tests. `n` makes it another operation.
async fn built(
    served: &Served,
    admin: &Client,
    worker: &mut Worker,
    n: u32,
    event: EventWanted,
    tests: Vec<TestCase>,
) -> BuildId {
    let pipeline = format!("jobs:\n  hello:\n    run: echo {n}\n");
    let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", &pipeline)]);
    let build = admin.build_submit(&Submit { event, ..submit(source) }).await.unwrap().build;
    let start = worker.start().await;
    let has_failed = tests.iter().any(|case| case.outcome == graph::TestOutcome::Failed);
    let outcome =
        if has_failed { Outcome::Failed(Failure::Step { step: 0, exit: 1, message: None }) } else { Outcome::passed() };
    let report = Box::new(graph::AttemptReport { tests, ..report(outcome, "echo") });
    worker.say(&served.site, &[said(&FromWorker::Finished { lease: start.spec.lease, report })]).await;
    served.site.ended(build).await;
    build
}

fn on(branch: &str, commit: char) -> EventWanted {
    EventWanted {
        kind: Some(EventWord::Push),
        branch: Some(branch.to_owned()),
        commit: Some(commit.to_string().repeat(40)),
        message: HOSTILE.to_owned(),
        ..EventWanted::default()
    }
}

const PASSED: graph::TestOutcome = graph::TestOutcome::Passed;
const FAILED: graph::TestOutcome = graph::TestOutcome::Failed;

#[tokio::test]
async fn a_project_is_told_by_its_newest_builds() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    built(&served, &admin, &mut worker, 1, on("main", 'a'), vec![]).await;
    let of_pull = EventWanted { kind: Some(EventWord::PullRequest), pull_request: Some(7), ..on("main", 'b') };
    built(&served, &admin, &mut worker, 2, of_pull, vec![case("t", FAILED, 1)]).await;
    built(&served, &admin, &mut worker, 3, on(HOSTILE, 'c'), vec![]).await;
    let overview = admin.project_overview("sails").await.unwrap();
    let refs: Vec<_> =
        overview.refs.iter().map(|state| (state.kind, state.name.as_str(), state.last.verdict)).collect();
    let expected = [
        (RefKind::Branch, HOSTILE, VerdictWord::Passed),
        (RefKind::PullRequest, "7", VerdictWord::Failed),
        (RefKind::Branch, "main", VerdictWord::Passed),
    ];
    assert_eq!(refs, expected);
    assert_eq!((overview.builds, overview.last_week, overview.has_older), (3, 3, false));
    assert_eq!((overview.figures.ended, overview.figures.passed, overview.figures.failed), (3, 2, 1));
    assert_eq!(overview.default_branch.as_deref(), Some("main"));
    assert!(overview.figures.p50_ms <= overview.figures.p95_ms);
    // What is searched for is found by what people know it by.
    for (search, found) in [("ALERT(1)", 3), ("#2", 1), ("cccc", 1), ("nowhere", 0)] {
        let filter = api::build::BuildFilter { search: Some(search.to_owned()), ..Default::default() };
        assert_eq!(admin.build_list(&filter, &PageWanted::default()).await.unwrap().items.len(), found, "{search}");
    }
    let browser = Browser::new(&served, &served.token(&[Verb::Read], Some("sails"), None));
    let page = browser.get("/projects/sails").await;
    for text in ["66 %", "Pull request 7", "hello</a> failed", "class=\"tag\">default"] {
        assert!(page.text.contains(text), "{text}: {}", page.text);
    }
    for path in [
        "/projects/sails",
        "/projects/sails?group=branch",
        "/projects/sails?group=pull_request",
        "/projects/sails?search=%3Cimg",
        "/builds?branch=%3Cimg",
    ] {
        let page = browser.get(path).await;
        assert!(page.status == 200 && !page.text.contains("<img src=x"), "{path}: {}", page.text);
    }
    served.end().await;
}

#[tokio::test]
async fn projects_are_listed_with_their_newest_builds_and_found_by_tags() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    for n in 1..=3 {
        built(
            &served,
            &admin,
            &mut worker,
            n,
            on("main", 'a'),
            vec![case("t", if n == 2 { FAILED } else { PASSED }, 1)],
        )
        .await;
    }
    let settings = ProjectSettings { tags: vec!["web".to_owned(), "core".to_owned()], ..ProjectSettings::default() };
    admin.project_put("sails", &settings).await.unwrap();
    let token = served.token(&[Verb::Read], Some("sails"), None);
    let browser = Browser::new(&served, &token);
    let list = async |query: &str| -> (u16, Page<Project>) {
        let page = browser.get(&format!("/api/v1/projects?{query}")).await;
        (page.status, serde_json::from_str(&page.text).unwrap_or_default())
    };
    let (_, plain) = list("").await;
    assert!(plain.items[0].last.is_none() && plain.items[0].builds.is_empty() && plain.items[0].settings == settings);
    let (_, told) = list("builds=2&tag=core").await;
    let project = &told.items[0];
    let briefs: Vec<_> =
        project.builds.iter().map(|build| (build.id.0, build.verdict, build.branch.as_deref())).collect();
    assert_eq!(briefs, [(3, VerdictWord::Passed, Some("main")), (2, VerdictWord::Failed, Some("main"))]);
    let listed = api::build::Build { source: None, ..admin.build_get(BuildId(3)).await.unwrap() };
    assert_eq!(project.last.as_deref(), Some(&listed));
    assert_eq!(project.builds[0], api::build::BuildBrief::from(project.last.as_deref().unwrap()));
    // The same again; then what has changed since, and only that.
    assert_eq!(list("builds=2&tag=core").await.1, told);
    assert_eq!(list("builds=2&names=nobody,sails,%00,sails,").await.1, told);
    assert_eq!(list("names=nobody").await.1.items, []);
    let many: Vec<String> = (0..51).map(|number| number.to_string()).collect();
    assert_eq!(list(&format!("names={}", many.join(","))).await.0, 400);
    let running = admin
        .build_submit(&Submit {
            event: on("main", 'b'),
            ..submit(manifest(&served.site, &[(".ropewalk/pipeline.yaml", "jobs:\n  hello:\n    run: echo 4\n")]))
        })
        .await
        .unwrap()
        .build;
    let start = worker.start().await;
    let newest = async || {
        let builds = list("builds=2").await.1.items.remove(0).builds;
        builds.into_iter().map(|build| (build.id.0, build.verdict)).collect::<Vec<_>>()
    };
    assert_eq!(newest().await, [(4, VerdictWord::Running), (3, VerdictWord::Passed)]);
    let passed = Box::new(report(Outcome::passed(), "echo"));
    worker.say(&served.site, &[said(&FromWorker::Finished { lease: start.spec.lease, report: passed })]).await;
    served.site.ended(running).await;
    assert_eq!(newest().await, [(4, VerdictWord::Passed), (3, VerdictWord::Passed)]);
    assert!(served.site.server().store.delete_build(BuildId(3)).unwrap().is_some());
    assert_eq!(newest().await, [(4, VerdictWord::Passed), (2, VerdictWord::Failed)]);
    assert_eq!(list("tag=other").await.1.items, []);
    assert_eq!((list("builds=0").await.0, list("builds=31").await.0), (400, 400));
    for tags in [vec![HOSTILE.to_owned()], vec!["a b".to_owned()], vec!["a".to_owned(); 21]] {
        assert!(admin.project_put("sails", &ProjectSettings { tags, ..settings.clone() }).await.is_err());
    }
    // Pages have the same: cards by tag, and a wall.
    for path in ["/", "/?tag=core", "/wall", "/wall?tag=core"] {
        let page = browser.get(path).await;
        assert!(page.status == 200 && page.text.contains("sails</a>"), "{path}: {}", page.text);
    }
    assert!(browser.get("/?tag=web").await.text.contains("class=\"tag\" href=\"/?tag=core\""));
    assert!(browser.get("/wall").await.text.contains("tile passed"));
    for path in ["/?tag=%3Cimg%20src=x", "/wall?tag=%3Cimg%20src=x"] {
        let page = browser.get(path).await;
        assert!(page.text.contains("has this tag") && !page.text.contains("<img src=x"), "{path}: {}", page.text);
    }
    // Who may not see the project sees no tile of it.
    let foreign = Browser::new(&served, &served.token(&[Verb::Read], Some("other"), None));
    assert!(!foreign.get("/wall").await.text.contains("sails"));
    served.end().await;
}

#[tokio::test]
async fn a_badge_is_public_only_if_the_settings_say_so() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    built(&served, &admin, &mut worker, 1, on("main", 'a'), vec![]).await;
    built(&served, &admin, &mut worker, 2, on("side", 'b'), vec![case("t", FAILED, 1)]).await;
    let nobody = Browser::new(&served, "");
    assert_eq!(nobody.get("/projects/sails/badge.svg").await.status, 401);
    assert_eq!(nobody.get("/projects/other/badge.svg").await.status, 401);
    let foreign = Browser::new(&served, &served.token(&[Verb::Read], Some("other"), None));
    assert_eq!(foreign.get("/projects/sails/badge.svg").await.status, 403);
    let reader = Browser::new(&served, &served.token(&[Verb::Read], Some("sails"), None));
    assert!(reader.get("/projects/sails/badge.svg").await.text.contains(">passing<"));
    let settings = ProjectSettings { public_badge: Some(true), ..ProjectSettings::default() };
    admin.project_put("sails", &settings).await.unwrap();
    for (path, word) in [("", ">passing<"), ("?branch=side", ">failing<"), ("?branch=none", ">no build yet<")] {
        let badge = nobody.get(&format!("/projects/sails/badge.svg{path}")).await;
        assert!(badge.status == 200 && badge.text.contains(word), "{path}: {}", badge.text);
    }
    // What the settings name is what matters most.
    let settings = ProjectSettings { default_branch: Some("side".to_owned()), ..settings };
    admin.project_put("sails", &settings).await.unwrap();
    assert!(nobody.get("/projects/sails/badge.svg").await.text.contains(">failing<"));
    assert_eq!(nobody.get("/projects/sails").await.status, 303);
    served.end().await;
}

#[tokio::test]
async fn failures_are_told_by_what_was_before() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    let cases = |new, known, steady| vec![case("new", new, 5), case("known", known, 9), case("comes", steady, 1)];
    built(&served, &admin, &mut worker, 1, on("main", 'a'), cases(PASSED, PASSED, PASSED)).await;
    built(&served, &admin, &mut worker, 2, on("main", 'b'), cases(PASSED, FAILED, PASSED)).await;
    // The same commit again: what fails now has passed on it.
    let mut last = cases(FAILED, FAILED, FAILED);
    last.remove(0);
    let again = built(&served, &admin, &mut worker, 3, on("main", 'b'), last).await;
    let of_main = built(&served, &admin, &mut worker, 4, on("main", 'c'), cases(FAILED, FAILED, PASSED)).await;
    let of_side = built(&served, &admin, &mut worker, 5, on("side", 'd'), cases(FAILED, FAILED, FAILED)).await;
    let told =
        |summary: api::test_history::TestSummary| -> Vec<(String, FailureKind, Option<u64>, Option<TestOutcome>)> {
            let told = summary.failures.into_iter();
            told.map(|failure| (failure.test.name, failure.kind, failure.since.number, failure.on_default_branch))
                .collect()
        };
    let summary = admin.test_summary(again).await.unwrap();
    assert_eq!((summary.passed, summary.failed, summary.compared.len()), (0, 2, 2));
    let expected = [
        ("comes".to_owned(), FailureKind::Flaky, Some(3), None),
        ("known".to_owned(), FailureKind::Known, Some(2), None),
    ];
    assert_eq!(told(summary), expected);
    let summary = admin.test_summary(of_main).await.unwrap();
    assert_eq!(summary.slowest[0].name, "known");
    let expected =
        [("new".to_owned(), FailureKind::New, Some(4), None), ("known".to_owned(), FailureKind::Known, Some(2), None)];
    assert_eq!(told(summary), expected);
    let on_default: Vec<_> =
        told(admin.test_summary(of_side).await.unwrap()).into_iter().map(|it| (it.0, it.3)).collect();
    let (failed, passed) = (Some(TestOutcome::Failed), Some(TestOutcome::Passed));
    assert_eq!(on_default, [("comes".to_owned(), passed), ("known".to_owned(), failed), ("new".to_owned(), failed)]);
    // What was told once is told anew as soon as anything is different of which it was told.
    let settings = ProjectSettings { default_branch: Some("side".to_owned()), ..ProjectSettings::default() };
    admin.project_put("sails", &settings).await.unwrap();
    let of_default = admin.test_summary(of_side).await.unwrap();
    assert_eq!(of_default.failures.iter().filter(|failure| failure.on_default_branch.is_some()).count(), 0);
    admin.project_put("sails", &ProjectSettings::default()).await.unwrap();
    assert_eq!(admin.test_summary(of_main).await.unwrap().compared.len(), 3);
    assert!(served.site.server().store.delete_build(BuildId(2)).unwrap().is_some());
    let without = admin.test_summary(of_main).await.unwrap();
    let since: Vec<_> = without.failures.iter().map(|failure| failure.since.number).collect();
    assert_eq!((without.compared.len(), since), (2, vec![Some(4), Some(3)]));
    // One test over all builds, newest first, and only where it was reported.
    let wanted = TestWanted { suite: HOSTILE.to_owned(), name: "new".to_owned(), ..TestWanted::default() };
    let runs = admin.test_history("sails", &wanted, &PageWanted::default()).await.unwrap();
    let runs: Vec<_> = runs.items.iter().map(|run| (run.build.number, run.outcome)).collect();
    let expected = [(Some(5), TestOutcome::Failed), (Some(4), TestOutcome::Failed), (Some(1), TestOutcome::Passed)];
    assert_eq!(runs, expected);
    let browser = Browser::new(&served, &served.token(&[Verb::Read, Verb::Control], None, None));
    let page = browser.get(&format!("/builds/{of_main}/tests")).await;
    for text in
        ["New failures", "Failed before too", "<span class=\"added\">+ right</span>", "ropewalk shell 4 hello@failed"]
    {
        assert!(page.text.contains(text), "{text}: {}", page.text);
    }
    let hostile = web::paths::encoded(HOSTILE);
    for path in [
        format!("/builds/{of_main}/tests"),
        format!("/projects/sails/tests?name=new&suite={hostile}"),
        format!("/projects/sails/tests?name={hostile}"),
    ] {
        let page = browser.get(&path).await;
        assert!(page.status == 200 && !page.text.contains("<img src=x"), "{path}: {}", page.text);
    }
    // The jobs that hold the failures run again from the page.
    let page =
        browser.post(&format!("/builds/{of_main}/retry"), "what=jobs&jobs=%5B%22hello%22%5D", "same-origin").await;
    assert_eq!(page.status, 303, "{}", page.text);
    served.end().await;
}

#[tokio::test]
async fn two_builds_are_compared() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    let one = built(
        &served,
        &admin,
        &mut worker,
        1,
        on("main", 'a'),
        vec![case("t", PASSED, 1), case("gone", PASSED, 1), case("same", PASSED, 1)],
    )
    .await;
    let two =
        built(&served, &admin, &mut worker, 2, on("main", 'b'), vec![case("t", FAILED, 1), case("same", PASSED, 2)])
            .await;
    let compared = admin.build_compare(two, one).await.unwrap();
    assert_eq!((compared.build.id, compared.with.id), (two, one));
    let sides = |job: &api::comparison::JobDifference| {
        (job.there.as_ref().unwrap().outcome, job.here.as_ref().unwrap().outcome)
    };
    assert_eq!(
        compared.jobs.iter().map(sides).collect::<Vec<_>>(),
        [(Some(OutcomeWord::Passed), Some(OutcomeWord::Failed))]
    );
    let tests: Vec<_> =
        compared.tests.iter().map(|test| (test.name.as_str(), test.here.map(|side| side.outcome))).collect();
    assert_eq!(tests, [("gone", None), ("t", Some(TestOutcome::Failed))]);
    assert_eq!((compared.tests_same, compared.jobs_same), (1, 0));
    let same = admin.build_compare(two, two).await.unwrap();
    assert!(same.jobs.is_empty() && same.tests.is_empty());
    // Who may not see the other is not told that it is there.
    let only = server::access::Narrowing { builds: [two].into(), ..Default::default() };
    let narrow = server::access::narrow(&served.token(&[Verb::Read], None, None), &only).unwrap();
    let error = served.client(&narrow).build_compare(two, one).await.unwrap_err();
    assert_eq!(super::refused(&error), Some(api::problem::ProblemKind::NotFound));
    let browser = Browser::new(&served, &served.token(&[Verb::Read], None, None));
    for path in [
        format!("/builds/{two}/compare"),
        format!("/builds/{two}/compare?with={one}"),
        format!("/builds/{one}/compare"),
    ] {
        let page = browser.get(&path).await;
        assert!(page.status == 200 && !page.text.contains("<img src=x"), "{path}: {}", page.text);
    }
    served.end().await;
}
