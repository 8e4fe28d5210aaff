//! The pages over the API: who sees them, what they hold, and what a form may do.

use api::client::{PageWanted, TestsWanted};
use api::event::EventWanted;
use api::job::TestOutcome as Ended;
use api::problem::ProblemKind;
use api::project::ProjectSettings;
use graph::{AttemptReport, Failure, Outcome, TestCase, TestOutcome};
use server::access::Verb;

use super::site::{Worker, log_section, manifest, report};
use super::{GATED, ONE, Served, asked, submit};

/// A browser as far as it matters here: it keeps no cookie by itself and follows nothing.
pub struct Browser {
    http: reqwest::Client,
    address: String,
    cookie: String,
}

/// A page: its status, where it leads, its text.
pub struct Page {
    pub status: u16,
    pub to: String,
    pub cookie: String,
    pub text: String,
    policy: String,
    pub encoding: String,
}

impl Browser {
    pub fn new(served: &Served, token: &str) -> Self {
        // The first to say so decides for the process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { http, address: served.address.clone(), cookie: format!("ropewalk={token}") }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Page {
        let answer = request.header("accept", "text/html").header("cookie", &self.cookie).send().await.unwrap();
        let header =
            |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let (status, to, cookie) = (answer.status().as_u16(), header("location"), header("set-cookie"));
        let (policy, encoding) = (header("content-security-policy"), header("content-encoding"));
        Page { status, to, cookie, policy, encoding, text: answer.text().await.unwrap() }
    }

    pub async fn get(&self, path: &str) -> Page {
        self.send(self.http.get(format!("{}{path}", self.address))).await
    }

    pub async fn post(&self, path: &str, form: &str, site: &str) -> Page {
        let request = self.http.post(format!("{}{path}", self.address)).header("sec-fetch-site", site);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form.to_owned());
        self.send(request).await
    }
}

#[tokio::test]
async fn the_first_administrator_comes_by_a_page() {
    let served = Served::new().await;
    let server = served.site.server();
    let secret = server::setup::link(&server.access, &server.records, super::site::now()).unwrap().expect("nobody yet");
    let nobody = Browser::new(&served, "");
    let page = nobody.get(&format!("/setup?token={secret}")).await;
    assert!(page.status == 200 && page.policy.contains("script-src 'self'"), "{}", page.policy);
    assert!(page.text.contains(&format!("value=\"{secret}\"")) && !page.text.contains("<script"), "{}", page.text);
    // A link that does not open has no form.
    for bad in ["/setup", "/setup?token=%22%3E%3Cscript%3E"] {
        let page = nobody.get(bad).await;
        let is_told = page.text.contains("This link is not good any more: take the one that the server printed");
        assert!(is_told && !page.text.contains("<form") && !page.text.contains("script>"), "{}", page.text);
    }
    let form = format!("token={secret}&name=Ada+%3Cb%3E");
    assert_eq!(nobody.post("/first", &form, "cross-site").await.status, 403);
    // Nobody is signed in: what is refused has no frame with a way out.
    let page = nobody.post("/first", "token=0&name=eve", "same-origin").await;
    assert!(page.status == 403 && page.text.contains("This link is not good any more"), "{}", page.text);
    assert!(!page.text.contains("Sign out"), "{}", page.text);
    let page = nobody.post("/first", &format!("token={secret}&name=+"), "same-origin").await;
    assert!(page.status == 400 && page.text.contains("the administrator needs a name"), "{}", page.text);
    assert!(!page.text.contains("Sign out"), "{}", page.text);
    let page = nobody.post("/first", &form, "same-origin").await;
    assert_eq!((page.status, page.encoding.as_str()), (200, ""));
    let token = page.text.split("name=\"token\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let signed_in = nobody.post("/sign-in", &format!("token={}", token.expect("a token")), "same-origin").await;
    assert_eq!((signed_in.status, signed_in.to.as_str()), (303, "/"));
    let ada = Browser::new(&served, token.expect("a token"));
    assert!(ada.get("/settings").await.text.contains("Ada &lt;b&gt;"));
    // A link is good once.
    let page = nobody.post("/first", &form, "same-origin").await;
    assert!(page.status == 410 && page.text.contains("This server has its administrator"), "{}", page.text);
    assert!(!page.text.contains("Sign out"), "{}", page.text);
    for late in [format!("/setup?token={secret}"), "/setup".to_owned()] {
        let page = nobody.get(&late).await;
        assert!(page.text.contains("This server has its administrator: sign in, or run"), "{}", page.text);
        assert!(page.text.contains("href=\"/sign-in\"") && !page.text.contains("<form"), "{}", page.text);
    }
    served.end().await;
}

#[tokio::test]
async fn who_is_nobody_signs_in_first() {
    let served = Served::new().await;
    let token = served.token(&[Verb::Admin], None, None);
    let nobody = Browser::new(&served, "");
    let page = nobody.get("/builds?branch=a%20b").await;
    assert_eq!((page.status, page.to.as_str()), (303, "/sign-in?to=%2Fbuilds%3Fbranch%3Da%2520b&refused="));
    assert_eq!(nobody.get("/sign-in").await.status, 200);
    // A wrong token is told as such, a good one leads to where one wanted to go, and only to pages of this server.
    let page = nobody.post("/sign-in", "token=wrong&to=%2Fbuilds", "same-origin").await;
    assert!(page.to.starts_with("/sign-in?to=%2Fbuilds&refused=") && page.cookie.is_empty(), "{}", page.to);
    for (to, expected) in
        [("%2Fqueue", "/queue"), ("%2F%2Fevil.example", "/"), ("https%3A%2F%2Fevil", "/"), ("%2F%5Cevil", "/")]
    {
        let page = nobody.post("/sign-in", &format!("token={token}&to={to}"), "same-origin").await;
        assert_eq!((page.status, page.to.as_str()), (303, expected));
        assert!(
            page.cookie.starts_with(&format!("ropewalk={token}; ")) && page.cookie.contains("HttpOnly; SameSite=Lax")
        );
    }
    let somebody = Browser::new(&served, &token);
    let page = somebody.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("ropewalk submit --server http://127.0.0.1:"), "{}", page.text);
    assert!(page.policy.starts_with("default-src 'none'; style-src 'self'; script-src 'self'"), "{}", page.policy);
    let page = somebody.get("/nowhere").await;
    assert!(page.status == 404 && page.text.contains("there is no such page"), "{}", page.text);
    // What a page loads is there, for ever.
    let style = page.text.split('"').find(|text| text.ends_with("/style.css")).unwrap();
    assert_eq!(somebody.get(style).await.status, 200);
    let page = somebody.post("/sign-out", "", "same-origin").await;
    assert!(page.cookie.starts_with("ropewalk=; ") && page.cookie.contains("Max-Age=0"), "{}", page.cookie);
    served.end().await;
}

#[tokio::test]
async fn a_log_has_its_groups_and_tells_what_a_passed_build_printed_too() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    for (log, outcome) in [
        ("--- build\ntook 3 s\n", Outcome::passed()),
        (
            "--- build\ntook 14 s\n+++ test\n<b>\n::group::one\n",
            Outcome::Failed(graph::Failure::Step { step: 0, exit: 1, message: None }),
        ),
    ] {
        let build = asked(&served, &admin, ONE).await;
        let start = worker.start().await;
        worker.say(&served.site, &[log_section(&start.spec, 0, 0, log.as_bytes(), None)]).await;
        worker.end(&served.site, &start.spec, outcome).await;
        served.site.ended(build).await;
    }
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    let jobs = browser.get("/api/v1/builds/2/jobs").await.text;
    let jobs: serde_json::Value = serde_json::from_str(&jobs).unwrap();
    let job = jobs["items"][0]["name"].as_str().unwrap();
    let page = browser.get(&format!("/builds/2/jobs/{job}")).await;
    assert!(page.text.contains("data-green=\"1.1\""), "{}", page.text);
    assert!(page.text.contains("class=\"closed\" data-line=\"0\" data-end=\"2\""), "{}", page.text);
    assert!(page.text.contains("<div class=\"l same\" id=\"1:2\">"), "{}", page.text);
    assert!(page.text.contains("<div class=\"l\" id=\"1:4\">"), "{}", page.text);
    // The same for scripts, and in plain.
    let lines = browser.get("/builds/2/attempts/1/lines/0?from=1&count=2&green=1.1").await.text;
    assert!(lines.contains("l same") && lines.contains("id=\"1:3\"") && !lines.contains("id=\"1:4\""), "{lines}");
    assert!(browser.get("/builds/2/attempts/1/groups/0").await.text.contains("data-line=\"2\" data-end=\"5\""));
    let groups = admin.log_groups(graph::BuildId(2), 1, 0).await.unwrap();
    let told: Vec<_> = groups.groups.iter().map(|it| (it.title.as_str(), it.fold, it.depth, it.line, it.end)).collect();
    let (closed, open) = (api::log::GroupFold::Closed, api::log::GroupFold::Open);
    assert_eq!(told, [("build", closed, 0, 0, 2), ("test", open, 0, 2, 5), ("one", closed, 1, 4, 5)]);
    assert!(
        !browser
            .get(&format!("/builds/2/jobs/{job}?plain=1"))
            .await
            .text
            .contains("data-source=\"/builds/2/attempts/1/lines")
    );
    served.end().await;
}

#[tokio::test]
async fn a_page_shows_what_its_reader_may_see() {
    let served = Served::new().await;
    let admin = served.admin();
    for project in ["sails", "other"] {
        admin.project_put(project, &ProjectSettings::default()).await.unwrap();
    }
    asked(&served, &admin, ONE).await;
    let of = |project| Browser::new(&served, &served.token(&[Verb::Read], Some(project), None));
    assert_eq!(of("sails").get("/builds/1").await.status, 200);
    let page = of("other").get("/builds/1").await;
    assert!(page.status == 404 && page.text.contains("there is no build 1"), "{}", page.text);
    assert!(!of("other").get("/builds").await.text.contains("sails"));
    // What it may not do, a form does not do either.
    let page = of("sails").post("/builds/1/cancel", "", "same-origin").await;
    assert!(page.status == 403 && page.text.contains("does not grant"), "{}", page.text);
    served.end().await;
}

#[tokio::test]
async fn forms_are_taken_from_pages_of_this_server_alone() {
    let served = Served::new().await;
    let admin = served.admin();
    let token = served.token(&[Verb::Admin], None, None);
    let build = asked(&served, &admin, ONE).await;
    let browser = Browser::new(&served, &token);
    for path in ["/builds/1/cancel", "/builds/1/jobs/a/shells", "/builds/1/jobs/a/shells/1/input"] {
        let page = browser.post(path, "", "cross-site").await;
        assert!(page.status == 403 && page.text.contains("was not sent by a page"), "{path}: {}", page.text);
    }
    // What a page of ours sends of a shell is the API's own call, and its answer.
    let page = browser.post("/builds/1/jobs/a/shells", "", "same-origin").await;
    assert!(page.text.starts_with("{\"type\""), "{} {}", page.status, page.text);
    // Nor does the cookie open the API to anything but reading.
    let json =
        browser.http.post(format!("{}/api/v1/builds/1/cancel", served.address)).header("cookie", &browser.cookie);
    let answer = json.header("content-type", "application/json").body("{}").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 401);
    assert_eq!(browser.get("/api/v1/builds/1").await.status, 200);
    assert_eq!(admin.build_get(build).await.unwrap().canceled_by, None);
    let page = browser.post("/builds/1/cancel", "", "same-origin").await;
    assert_eq!((page.status, page.to.as_str()), (303, "/builds/1"));
    assert_eq!(admin.build_get(build).await.unwrap().canceled_by.as_deref(), Some("ada"));
    served.end().await;
}

#[tokio::test]
async fn a_gate_is_answered_from_its_form() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    asked(&served, &admin, GATED).await;
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    loop {
        let page = browser.get("/builds/1").await;
        if page.text.contains("Ship it?") {
            assert!(page.text.contains("name=\"field.region\""), "{}", page.text);
            // The job is seen to ask, in the tree and in the drawing.
            assert!(page.text.contains("mark asking") && page.text.contains("node asking"), "{}", page.text);
            assert!(page.text.contains("id=\"gate-ask\""), "{}", page.text);
            break;
        }
    }
    let of_job = browser.get("/builds/1/jobs/ask").await.text;
    for said in ["Ship it?", "developers of sails", "href=\"/builds/1#gate-ask\""] {
        assert!(of_job.contains(said), "no {said} in {of_job}");
    }
    let form = "answer=approve&field.region=us&kind.region=string&field.note=a%26b&kind.note=string&reason=";
    let page = browser.post("/builds/1/gates/ask", form, "same-origin").await;
    assert_eq!((page.status, page.to.as_str()), (303, "/builds/1"), "{}", page.text);
    let start = worker.start().await;
    assert_eq!(start.spec.name.as_str(), "after");
    // Who said what stands with the job and with its build, where nothing is asked any more.
    for (path, own) in
        [("/builds/1/jobs/ask", "It was approved, and has nothing to run."), ("/builds/1", "The gate of ")]
    {
        let page = browser.get(path).await.text;
        for said in [own, "approved by ada <time", ", with note <code>a&amp;b</code>, region <code>us</code>"] {
            assert!(page.contains(said), "{path}: no {said} in {page}");
        }
        assert!(!page.contains("It did not run") && !page.contains("gate-ask"), "{path}: {page}");
    }
    served.end().await;
}

#[tokio::test]
async fn a_gate_that_was_rejected_says_by_whom() {
    let served = Served::new().await;
    let admin = served.admin();
    let build = asked(&served, &admin, GATED).await;
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    while admin.gate_list(build).await.unwrap().items.is_empty() {}
    let page = browser.post("/builds/1/gates/ask", "answer=reject&reason=not%20today", "same-origin").await;
    assert_eq!((page.status, page.to.as_str()), (303, "/builds/1"), "{}", page.text);
    served.site.ended(build).await;
    for (path, own) in [("/builds/1/jobs/ask", "It did not run: "), ("/builds/1", "The gate of ")] {
        let page = browser.get(path).await.text;
        assert!(page.contains(own) && page.contains("rejected by ada <time"), "{path}: {page}");
    }
    // Who comes too late hears by whom, and comes back.
    let page = browser.post("/builds/1/gates/ask", "answer=approve&reason=", "same-origin").await;
    assert_eq!(page.status, 409);
    for said in
        ["the gate <code>ask</code> was rejected by ada at ", ", since: not today", "<a href=\"/builds/1\">Go back</a>"]
    {
        assert!(page.text.contains(said), "no {said} in {}", page.text);
    }
    served.end().await;
}

#[tokio::test]
async fn what_is_sent_when_the_session_has_ended_leads_back_to_its_page() {
    let served = Served::new().await;
    let admin = served.admin();
    asked(&served, &admin, ONE).await;
    let browser = Browser::new(&served, "no token");
    let page = browser.post("/builds/1/jobs/a/retry", "reason=", "same-origin").await;
    assert_eq!(page.status, 303, "{}", page.text);
    let to = "/sign-in?to=%2Fbuilds%2F1%2Fjobs%2Fa&refused=Your%20session%20has%20ended%2C%20and%20what%20you%20sent%20was%20not%20done";
    assert!(page.to.starts_with(to), "{}", page.to);
    served.end().await;
}

#[tokio::test]
async fn a_test_without_a_name_has_a_page() {
    let served = Served::new().await;
    let admin = served.admin();
    asked(&served, &admin, ONE).await;
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    let page = browser.get("/projects/sails/tests?name=&suite=s&job=a").await;
    assert!(page.status == 200 && page.text.contains("A test without a name"), "{} {}", page.status, page.text);
    served.end().await;
}

#[tokio::test]
async fn a_result_that_was_taken_leads_to_the_log_of_its_run() {
    const REUSED: &str = "jobs:\n  hello:\n    inputs: [a]\n    run: echo hello\n";
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    for changed in ["1", "2"] {
        let files = [(".ropewalk/pipeline.yaml", REUSED), ("a", "1"), ("b", changed)];
        let build = admin.build_submit(&submit(manifest(&served.site, &files))).await.unwrap().build;
        if changed == "1" {
            let start = worker.start().await;
            worker.finish(&served.site, &start.spec).await;
        }
        served.site.ended(build).await;
    }
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    let page = browser.get("/builds/2/jobs/hello").await.text;
    let log = "/builds/1/jobs/hello?attempt=1";
    assert_eq!(page.matches(&format!("<a href=\"{log}\">hello in build 1</a>")).count(), 2, "{page}");
    assert!(page.contains("the result of an equal run was taken"), "{page}");
    assert_eq!(browser.get(log).await.status, 200);
    served.end().await;
}

#[tokio::test]
async fn what_nobody_has_chosen_at_a_gate_is_no_answer() {
    const OPEN: &str = "jobs:\n  ask:\n    gate:\n      prompt: Ship it?\n      fields:\n        force: { type: boolean }\n        notes: { type: string }\n        region: { type: choice, options: [eu, us] }\n        safe: { type: boolean, default: false }\n        share: { type: number }\n  after: { needs: ask, run: echo shipped }\n";
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    let build = asked(&served, &admin, OPEN).await;
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    let page = loop {
        let page = browser.get("/builds/1").await;
        if page.text.contains("Ship it?") {
            break page.text;
        }
    };
    let open = "<option value=\"\">choose</option>";
    for field in [
        format!("<select name=\"field.force\" required>{open}<option value=\"true\">"),
        format!("<select name=\"field.region\" required>{open}<option value=\"eu\">"),
        "<select name=\"field.safe\" required><option value=\"true\">yes</option><option value=\"false\" selected>"
            .to_owned(),
        "<input name=\"field.notes\" value=\"\">".to_owned(),
        "name=\"field.share\" value=\"\" required>".to_owned(),
    ] {
        assert!(page.contains(&field), "no {field} in {page}");
    }
    // A browser that holds nobody to anything: the API does.
    let kinds = "&kind.force=boolean&kind.notes=string&kind.region=string&kind.safe=boolean&kind.share=number&reason=";
    let answer = |fields: &str| format!("answer=approve&field.notes=&field.safe=false&field.share=1&{fields}{kinds}");
    let page = browser.post("/builds/1/gates/ask", &answer("field.force=&field.region="), "same-origin").await;
    assert_eq!(page.status, ProblemKind::Unprocessable.status(), "{}", page.text);
    assert!(page.text.contains("takes true or false") && page.text.contains("takes one of eu, us"), "{}", page.text);
    // No text is a text.
    let page = browser.post("/builds/1/gates/ask", &answer("field.force=true&field.region=us"), "same-origin").await;
    assert_eq!((page.status, page.to.as_str()), (303, "/builds/1"), "{}", page.text);
    assert_eq!(worker.start().await.spec.name.as_str(), "after");
    let answered = admin.gate_list(build).await.unwrap().items.remove(0).answered.unwrap();
    assert_eq!(answered.fields["notes"], "");
    served.end().await;
}

/// What an attempt reports that ended so, with these tests.
fn told(outcome: Outcome, tests: &[(&str, TestOutcome)]) -> AttemptReport {
    let case = |(name, outcome): &(&str, TestOutcome)| TestCase {
        suite: "s".to_owned(),
        name: (*name).to_owned(),
        outcome: *outcome,
        duration_ms: 1,
        message: String::new(),
        output: String::new(),
    };
    AttemptReport { tests: tests.iter().map(case).collect(), ..report(outcome, "echo") }
}

fn broken() -> Outcome {
    Outcome::Failed(Failure::Step { step: 0, exit: 1, message: None })
}

#[tokio::test]
async fn a_build_lists_the_tests_that_failed_when_they_were_last_run() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    let build = asked(&served, &admin, "jobs:\n  t: { reports: { junit: r.xml }, run: echo }\n").await;
    let start = worker.start().await;
    let tests =
        [("fails", TestOutcome::Failed), ("has-no-table", TestOutcome::Errored), ("passes", TestOutcome::Passed)];
    worker.report(&served.site, &start.spec, told(broken(), &tests)).await;
    served.site.ended(build).await;
    let names = async |outcomes: &[Ended]| -> Vec<String> {
        let wanted = TestsWanted { outcomes: outcomes.to_vec(), ..TestsWanted::default() };
        let tests = admin.test_list(build, &wanted, &PageWanted::default()).await.unwrap().items;
        tests.into_iter().map(|test| test.name).collect()
    };
    assert_eq!(names(&[Ended::Failed, Ended::Errored]).await, ["fails", "has-no-table"]);
    assert_eq!(names(&[Ended::Errored]).await, ["has-no-table"]);
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    for path in ["/builds/1", "/builds/1/jobs/t/attempts"] {
        let page = browser.get(path).await.text;
        let failed = page.split("Tests that failed").nth(1).expect(path);
        assert!(failed.contains("fails") && failed.contains("has-no-table") && !failed.contains("passes"), "{page}");
    }
    // At the job that failed for them too.
    let page = browser.get("/builds/1").await.text;
    let (first, _) = page.split_once("Tests that failed").unwrap();
    assert!(first.contains("has-no-table"), "{page}");
    let answer = browser.get("/api/v1/builds/1/tests?outcome=failed,late").await;
    assert!(
        answer.status == 400 && answer.text.contains("several of these with commas between them"),
        "{}",
        answer.text
    );
    // What a later try has passed has not failed.
    admin.job_retry(build, "t", &Default::default()).await.unwrap();
    let start = worker.start().await;
    let tests = tests.map(|(name, _)| (name, TestOutcome::Passed));
    worker.report(&served.site, &start.spec, told(Outcome::passed(), &tests)).await;
    served.site.ended(build).await;
    for path in ["/builds/1", "/builds/1/jobs/t/attempts"] {
        let page = browser.get(path).await.text;
        assert!(!page.contains("Tests that failed"), "{path}: {page}");
    }
    served.end().await;
}

#[tokio::test]
async fn a_failure_that_counts_for_nothing_says_so_where_it_is_told() {
    const ODD: &str = "jobs:\n  odd: { allow_failure: true, run: echo }\n  last: { needs: [{ job: odd, on: finished }], run: echo }\n";
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    for (last, is_main) in [(Outcome::passed(), false), (broken(), true)] {
        let build = asked(&served, &admin, &format!("{ODD}# {is_main}\n")).await;
        for outcome in [broken(), last] {
            let start = worker.start().await;
            worker.report(&served.site, &start.spec, told(outcome, &[])).await;
        }
        served.site.ended(build).await;
        let page = browser.get(&format!("/builds/{build}?view=graph")).await.text;
        let (_, heading) = page.split_once("id=\"failure-0\"").unwrap();
        let (heading, _) = heading.split_once("</h2>").unwrap();
        assert!(heading.contains("/jobs/odd\"") && heading.contains("may fail"), "{heading}");
        let main = "<button class=\"main\" name=\"what\" value=\"failed\">";
        assert!(page.contains("value=\"failed\">Retry what failed") && page.contains(main) == is_main, "{page}");
        for (job, may_fail) in [("odd", true), ("last", false)] {
            let page = browser.get(&format!("/builds/{build}/jobs/{job}")).await.text;
            let (heading, _) = page.split_once("</h1>").unwrap();
            assert_eq!(heading.contains("may fail"), may_fail, "{heading}");
        }
    }
    served.end().await;
}

#[tokio::test]
async fn no_text_from_outside_is_taken_for_html() {
    const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&";
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    let pipeline = format!(
        "name: {0}\njobs:\n  hello:\n    name: {0}\n    run: [ {{ name: {0}, run: \"true\" }} ]\n  wait: {{ gate: {{ prompt: {0} }}, run: \"true\" }}\n",
        serde_json::Value::from(HOSTILE)
    );
    let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", &pipeline)]);
    let event = EventWanted { branch: Some(HOSTILE.to_owned()), message: HOSTILE.to_owned(), ..EventWanted::default() };
    admin.build_submit(&api::build::Submit { event, ..submit(source) }).await.unwrap();
    let start = worker.start().await;
    let line = format!("{HOSTILE}\n\u{1b}]8;;javascript:alert(1)\u{7}link\u{1b}]8;;\u{7}\n");
    worker.say(&served.site, &[log_section(&start.spec, 0, 0, line.as_bytes(), None)]).await;
    let failed = Outcome::Failed(graph::Failure::Step { step: 0, exit: 1, message: None });
    let report = graph::AttemptReport {
        summary: format!("# {HOSTILE}\n\n[link](javascript:alert(1)) ![picture](x.png)\n\n{HOSTILE}"),
        notes: vec![HOSTILE.to_owned()],
        ..super::site::report(failed, HOSTILE)
    };
    worker.report(&served.site, &start.spec, report).await;
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    for path in [
        "/",
        "/wall",
        "/builds",
        "/projects/sails",
        "/builds/1",
        "/builds/1?view=graph",
        "/builds/1?view=table&q=%22%3E%3Cimg%20src=x",
        "/builds/1?view=time&by=state&sort=took",
        "/builds/1?view=time&open=hello",
        "/builds/1?view=time&q=img",
        "/builds/1?view=time&open=%3Cimg%20src=x%0Ahello",
        "/builds/1?family=%3Cimg%20src=x&unfold=%3Cimg%20src=x",
        "/builds/1/jobs/hello/attempts",
        "/builds/1/jobs/hello",
        "/builds/1/jobs/hello?q=%3Cimg",
        "/builds/1/jobs/wait",
        "/queue",
    ] {
        let page = browser.get(path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        assert!(!page.text.contains("<img src=x") && !page.text.contains("javascript:"), "{path}: {}", page.text);
    }
    let page = browser.get("/builds/1/jobs/hello").await;
    assert!(page.text.contains("&lt;img src=x onerror=alert(1)&gt;&quot;'&amp;"), "{}", page.text);
    served.end().await;
}

/// How many bytes a page and all that it loads are on the wire for a browser that takes zstd.
async fn wire_bytes(browser: &Browser, path: &str) -> usize {
    let request = |path: &str| {
        let request = browser.http.get(format!("{}{path}", browser.address)).header("cookie", &browser.cookie);
        request.header("accept", "text/html").header("accept-encoding", "gzip, br, zstd")
    };
    let page = request(path).send().await.unwrap();
    assert_eq!(page.headers()["content-encoding"], "zstd");
    let mut bytes = page.bytes().await.unwrap().len();
    for asset in &web::assets::ASSETS {
        bytes += request(&web::assets::path(asset.name)).send().await.unwrap().bytes().await.unwrap().len();
    }
    bytes
}

#[tokio::test]
async fn five_thousand_jobs_fit_a_first_load() {
    // The first load of a build's page, assets included.
    const WIRE_BYTES_MAX: usize = 100_000;
    let served = Served::new().await;
    let admin = served.admin();
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    let mut pipeline = "jobs:\n".to_owned();
    for n in 0..5_000 {
        let needs = if n < 100 { String::new() } else { format!("needs: check-crate-number-{}, ", n % 100) };
        pipeline.push_str(&format!("  check-crate-number-{n}: {{ {needs}run: cargo test -p crate-{n} }}\n"));
    }
    let build = asked(&served, &admin, &pipeline).await;
    while admin.build_get(build).await.unwrap().jobs < 5_000 {
        tokio::task::yield_now().await;
    }
    for path in [
        "/builds/1",
        "/builds/1?view=table",
        "/builds/1?view=time",
        "/builds/1?by=state",
        "/builds/1?q=number-49",
        "/builds/1?view=time&q=cargo",
    ] {
        let bytes = wire_bytes(&browser, path).await;
        println!("{path}: {bytes} bytes");
        assert!(bytes <= WIRE_BYTES_MAX, "{path}: {bytes} bytes");
    }
    let page = browser.get("/builds/1?view=graph").await;
    assert!(page.text.contains("100 waiting") && page.text.contains("4900 waiting"), "the drawing is folded");
    let page = browser.get("/builds/1?q=NUMBER-4321").await;
    assert!(page.text.contains("1 job") && page.text.contains("check-crate-number-4321"), "{}", page.text);
    served.end().await;
}

#[tokio::test]
async fn a_job_tells_what_it_runs_in_and_what_it_hands_on() {
    let served = Served::new().await;
    let admin = served.admin();
    admin.secret_put("sails", "TOKEN", &api::project::SecretValue { value: "hush-hush".to_owned() }).await.unwrap();
    let mut worker = Worker::join(&served.site, "w", []).await;
    let pipeline = "env: { COLOUR: red }\njobs:\n  make:\n    env: { GREETING: \"<b>hi</b>\", NUMBER: \"${{ matrix.n }}\" }\n    timeout: 5m\n    run: [ { run: make, env: { LOUD: \"1\" } } ]\n  far:\n    needs: make\n    environment: { image: \"alpine:3.20\", network: off, platform: linux/arm64 }\n    labels: [fast]\n    secrets: [TOKEN]\n    resources: { cpu: 1.5, memory: 1GiB }\n    run: echo\n".replace("matrix.n", "job.name");
    asked(&served, &admin, &pipeline).await;
    let start = worker.start().await;
    let browser = Browser::new(&served, &served.token(&[Verb::Read], None, None));
    let page = browser.get("/builds/1/jobs/make?tab=artifacts").await;
    assert!(page.text.contains("once it has ended"), "{}", page.text);
    let digest = served.site.server().blobs.put(b"an archive").unwrap();
    let artifact = graph::Artifact { digest, files: 3, bytes: 2048 };
    let image = ("alpine:3.20".to_owned(), "alpine@sha256:abc".to_owned());
    let report = graph::AttemptReport {
        artifacts: [("<i>report</i>".to_owned(), artifact)].into(),
        images: [image].into(),
        ..super::site::report(Outcome::passed(), "make")
    };
    worker.report(&served.site, &start.spec, report).await;
    let check = |page: &Page, parts: &[&str]| {
        for part in parts {
            assert!(page.text.contains(part), "no {part} in {}", page.text);
        }
        assert!(!page.text.contains("hush-hush") && !page.text.contains("<b>hi") && !page.text.contains("<i>report"));
    };
    let page = browser.get("/builds/1/jobs/make?tab=environment").await;
    check(&page, &["CI", "GREETING", "&lt;b&gt;hi&lt;/b&gt;", "COLOUR", "<code>red</code>", "env of step 1", "LOUD"]);
    check(&page, &["5 m 00 s", "<code>alpine@sha256:abc</code>", "aria-current=\"true\">Environment"]);
    let page = browser.get("/builds/1/jobs/make?tab=artifacts").await;
    check(
        &page,
        &[
            "&lt;i&gt;report&lt;/i&gt;",
            "3 files, 2.0 KiB",
            "try 1",
            &digest.to_string(),
            "Artifacts <span class=\"quiet\">1</span>",
        ],
    );
    check(
        &page,
        &[
            &format!("href=\"/builds/1/artifacts/{digest}\""),
            &format!("href=\"/api/v1/builds/1/artifacts/{digest}\" download="),
        ],
    );
    check(&browser.get("/builds/1/jobs/make").await, &["id=\"steps\"", "aria-current=\"true\">Log"]);
    // Of a job that nobody can run it says what it asks for.
    let page = browser.get("/builds/1/jobs/far?tab=environment").await;
    check(
        &page,
        &[
            "a container of the image <code>alpine:3.20</code>",
            "none but its own",
            "linux/arm64",
            "<code>fast</code>",
            "1.5",
            "1.0 GiB",
            "TOKEN",
            "shown to nobody",
        ],
    );
    let told = admin.job_environment(graph::BuildId(1), "far").await.unwrap();
    let secret = told.variables.iter().find(|it| it.name == "TOKEN").unwrap();
    assert_eq!(secret.value, api::environment::VariableValue::Secret);
    assert_eq!(browser.get("/builds/1/jobs/none?tab=environment").await.status, 404);
    assert_eq!(browser.get("/builds/1/jobs/make?tab=environment&attempt=9").await.status, 404);
    served.end().await;
}

#[tokio::test]
async fn what_is_chosen_to_be_seen_is_kept() {
    let served = Served::new().await;
    let admin = served.admin();
    asked(&served, &admin, ONE).await;
    let mut browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    let page = browser.get("/builds/1?view=time&by=evil;x").await;
    assert_eq!(page.cookie, "ropewalk-view=time; Path=/; Max-Age=31536000; SameSite=Lax");
    browser.cookie.push_str("; ropewalk-view=time; ropewalk-by=state");
    let page = browser.get("/builds/1").await;
    assert!(page.text.contains("id=\"view-time\" href=\"/builds/1?view=time\" aria-current=\"true\""), "{}", page.text);
    assert!(
        page.text.contains("id=\"order-state\" href=\"/builds/1?by=state\" aria-current=\"true\""),
        "{}",
        page.text
    );
    // What the browser does not take is not packed.
    assert_eq!(page.encoding, "");
    served.end().await;
}

#[tokio::test]
async fn files_of_artifacts_are_given_without_rights_and_without_an_origin() {
    let served = Served::new().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w", []).await;
    asked(&served, &admin, ONE).await;
    let start = worker.start().await;
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in
        [("report/index.html", "<script>1</script>"), ("report/a b.txt", "0123456789"), ("empty", "")]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    let digest = served.site.server().blobs.put(&archive.into_inner().unwrap()).unwrap();
    let artifact = graph::Artifact { digest, files: 3, bytes: 28 };
    let report = graph::AttemptReport {
        artifacts: [("report".to_owned(), artifact)].into(),
        ..super::site::report(Outcome::passed(), "make")
    };
    worker.report(&served.site, &start.spec, report).await;
    let reader = Browser::new(&served, &served.token(&[Verb::Read], None, None));
    let page = reader.get(&format!("/builds/1/artifacts/{digest}")).await;
    assert!(
        page.text.contains("sandbox=\"allow-scripts\"") && !page.text.contains("allow-same-origin"),
        "{}",
        page.text
    );
    let view = page.text.split('"').find(|text| text.starts_with("/artifacts/")).unwrap();
    let view = view.strip_suffix("/report/index.html").unwrap().to_owned();
    // Whoever knows the address may look, for that is all it is good for.
    let nobody = Browser::new(&served, "");
    let page = nobody.get(&format!("{view}/report/index.html")).await;
    assert_eq!((page.status, page.text.as_str()), (200, "<script>1</script>"));
    assert!(page.policy.starts_with("sandbox allow-scripts; default-src 'self'"), "{}", page.policy);
    for (path, status, text) in [
        ("/report", 200, "<script>1</script>"),
        ("/report/a%20b.txt", 200, "0123456789"),
        ("/empty", 200, ""),
        ("/report/none", 404, "there is no file"),
        ("/..%2Freport/index.html", 404, "there is no file"),
    ] {
        let page = nobody.get(&format!("{view}{path}")).await;
        assert!(page.status == status && page.text.contains(text), "{path}: {} {}", page.status, page.text);
        assert!(page.policy.starts_with("sandbox"), "{path}: {}", page.policy);
    }
    let part = nobody.http.get(format!("{}{view}/report/a%20b.txt", nobody.address)).header("range", "bytes=2-4");
    assert_eq!(part.send().await.unwrap().text().await.unwrap(), "234");
    // Not for another build, artifact or time, and never without the signature.
    for forged in [
        view.replacen("/artifacts/1-", "/artifacts/2-", 1),
        view[..view.len() - 2].to_owned(),
        "/artifacts/1".to_owned(),
    ] {
        assert_eq!(nobody.get(&format!("{forged}/report/index.html")).await.status, 403, "{forged}");
    }
    // The list of files, which says the address, is for those who may read the build.
    let answer = nobody.http.get(format!("{}/api/v1/builds/1/artifacts/{digest}/files", nobody.address));
    assert_eq!(answer.send().await.unwrap().status().as_u16(), 401);
    served.end().await;
}
