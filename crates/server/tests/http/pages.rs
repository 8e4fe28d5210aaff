//! The pages over the API: who sees them, what they hold, and what a form may do.

use api::event::EventWanted;
use api::project::ProjectSettings;
use graph::Outcome;
use server::access::Verb;

use super::site::{Worker, log_section, manifest};
use super::{GATED, ONE, Served, asked, submit};

/// A browser as far as it matters here: it keeps no cookie by itself and follows nothing.
struct Browser {
    http: reqwest::Client,
    address: String,
    cookie: String,
}

/// A page: its status, where it leads, its text.
struct Page {
    status: u16,
    to: String,
    cookie: String,
    text: String,
    policy: String,
}

impl Browser {
    fn new(served: &Served, token: &str) -> Self {
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
        let policy = header("content-security-policy");
        Page { status, to, cookie, policy, text: answer.text().await.unwrap() }
    }

    async fn get(&self, path: &str) -> Page {
        self.send(self.http.get(format!("{}{path}", self.address))).await
    }

    async fn post(&self, path: &str, form: &str, site: &str) -> Page {
        let request = self.http.post(format!("{}{path}", self.address)).header("sec-fetch-site", site);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form.to_owned());
        self.send(request).await
    }
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
    let page = browser.post("/builds/1/cancel", "", "cross-site").await;
    assert!(page.status == 403 && page.text.contains("was not sent by a page"), "{}", page.text);
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
            break;
        }
    }
    let form = "answer=approve&field.region=us&kind.region=string&field.note=a%26b&kind.note=string&reason=";
    let page = browser.post("/builds/1/gates/ask", form, "same-origin").await;
    assert_eq!((page.status, page.to.as_str()), (303, "/builds/1"), "{}", page.text);
    let start = worker.start().await;
    assert_eq!(start.spec.name.as_str(), "after");
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
    worker.end(&served.site, &start.spec, Outcome::Failed(graph::Failure::Step { step: 0, exit: 1 })).await;
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    for path in [
        "/",
        "/builds",
        "/projects/sails",
        "/builds/1",
        "/builds/1/jobs/hello",
        "/builds/1/jobs/hello?q=%3Cimg",
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
