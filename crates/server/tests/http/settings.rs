//! Settings, tokens, the audit, caches, pools and workers as pages: what forms do, and what they show to whom.

use api::client::{AuditWanted, PageWanted};
use api::project::ProjectSettings;
use api::token::{Narrow, TokenText, Verb as ApiVerb};
use api::worker_view::WorkerState;
use graph::{Failure, Outcome};
use server::access::{GrantRequest, Subject, SubjectKind, Verb};

use super::pages::{Browser, Page};
use super::site::Worker;
use super::{ONE, Served, asked, passed};

/// A text that breaks out of HTML that does not heed it.
const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&";

/// How long is waited for what happens by itself.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(300);

/// A browser that may do everything, after one build.
async fn admin(served: &Served) -> Browser {
    passed(served, &served.admin()).await;
    Browser::new(served, &served.token(&[Verb::Admin], None, None))
}

/// A form of this server, as a browser sends it.
async fn sent(browser: &Browser, path: &str, form: &[(&str, &str)]) -> Page {
    let pairs = form.iter().map(|(name, value)| format!("{name}={}", web::paths::encoded(value)));
    browser.post(path, &pairs.collect::<Vec<_>>().join("&"), "same-origin").await
}

/// The token that a page shows this once.
fn token_of(page: &Page) -> String {
    assert_eq!(page.status, 200, "{}", page.text);
    let shown = page.text.split_once("<pre><code>").unwrap_or_else(|| panic!("no token: {}", page.text)).1;
    shown.split_once('<').unwrap().0.to_owned()
}

#[tokio::test]
async fn jobs_that_name_no_pool_go_to_that_of_their_project_where_who_asks_may_use_it() {
    let served = Served::new().await;
    let browser = admin(&served).await;
    let page = sent(&browser, "/projects/sails/settings", &[("pool", "heavy")]).await;
    assert_eq!(page.status, 303, "{}", page.text);
    let admin = served.admin();
    let waiting = async |pool: &str| admin.pool_queue(pool, &PageWanted::default()).await.unwrap().items.len();
    asked(&served, &admin, ONE).await;
    assert_eq!((waiting("heavy").await, waiting("default").await), (1, 0));
    let grant = GrantRequest {
        subject: Subject { kind: SubjectKind::Person, name: "bob".to_owned() },
        verbs: [Verb::Read, Verb::Submit].into(),
        projects: None,
        pools: Some(["light".to_owned()].into()),
        until: None,
    };
    let access = &served.site.server().access;
    let light = access.create(&server::parts::fresh_id(), grant, "test", super::site::now()).unwrap();
    let light = served.client(&light);
    asked(&served, &light, "jobs: { other: { run: 'true' } }\n").await;
    assert_eq!((waiting("heavy").await, waiting("light").await), (1, 1));
}

#[tokio::test]
async fn a_project_is_set_from_its_form() {
    let served = Served::new().await;
    let browser = admin(&served).await;
    let form = [
        ("description", HOSTILE),
        ("keep_days", "7"),
        ("auto_cancel", "true"),
        ("pool", ""),
        ("public_badge", "true"),
        ("tags", "web core"),
    ];
    let page = sent(&browser, "/projects/sails/settings", &form).await;
    assert_eq!((page.status, page.to.as_str()), (303, "/projects/sails/settings"), "{}", page.text);
    let settings = served.admin().project_get("sails").await.unwrap().settings;
    let expected = ProjectSettings {
        description: HOSTILE.to_owned(),
        keep_days: Some(7),
        auto_cancel: Some(true),
        public_badge: Some(true),
        tags: vec!["web".to_owned(), "core".to_owned()],
        ..ProjectSettings::default()
    };
    assert_eq!(settings, expected);
    // What cannot be is said, and nothing is changed.
    let page = sent(&browser, "/projects/sails/settings", &[("pool", "no pool")]).await;
    assert!(page.text.contains("<code>no pool</code> cannot be a pool"), "{}", page.text);
    let page = sent(&browser, "/projects/sails/settings", &[("keep_days", "soon")]).await;
    assert!(page.status == 400 && page.text.contains("soon"), "{}", page.text);
    // A secret goes in and never comes out.
    sent(&browser, "/projects/sails/secrets", &[("secret", "TOKEN"), ("value", "hushhush")]).await;
    let page = browser.get("/projects/sails/settings").await;
    assert!(page.text.contains("<code>TOKEN</code>") && !page.text.contains("hushhush"), "{}", page.text);
    assert!(!page.text.contains("<img src=x"), "{}", page.text);
    sent(&browser, "/projects/sails/secrets/TOKEN/remove", &[]).await;
    assert_eq!(served.admin().secret_list("sails").await.unwrap().items, []);
    // Who may only read sees no secrets and changes nothing.
    let reader = Browser::new(&served, &served.token(&[Verb::Read], Some("sails"), None));
    let page = reader.get("/projects/sails/settings").await;
    assert!(page.text.contains("You may look at these") && !page.text.contains("Set</button>"), "{}", page.text);
    assert_eq!(sent(&reader, "/projects/sails/settings", &[]).await.status, 403);
    // It is forgotten by its name alone.
    assert_eq!(sent(&browser, "/projects/sails/remove", &[("name", "sail")]).await.status, 404);
    assert_eq!(sent(&browser, "/projects/sails/remove", &[("name", "sails")]).await.status, 303);
    assert_eq!(browser.get("/projects/sails/settings").await.status, 404);
    served.end().await;
}

#[tokio::test]
async fn tokens_are_made_narrowed_looked_into_and_revoked() {
    let served = Served::new().await;
    let browser = admin(&served).await;
    let form = [
        ("kind", "client"),
        ("name", HOSTILE),
        ("verb.read", "on"),
        ("verb.submit", "on"),
        ("projects", "sails"),
        ("days", "2"),
    ];
    let made = token_of(&sent(&browser, "/settings/tokens", &form).await);
    let client = served.client(&made);
    let whoami = client.whoami().await.unwrap();
    assert_eq!((whoami.grant.name.as_str(), whoami.grant.verbs.len()), (HOSTILE, 2));
    assert!(whoami.grant.expires.is_some());
    // A holder makes a weaker one, from a page and by the API.
    let holder = Browser::new(&served, &made);
    let weaker = token_of(&sent(&holder, "/settings/narrow", &[("verb.read", "on")]).await);
    assert!(served.client(&weaker).build_get(graph::BuildId(1)).await.is_ok());
    let page = sent(&holder, "/settings/narrow", &[]).await;
    assert!(page.status == 422 && page.text.contains("limits nothing"), "{}", page.text);
    let narrow = Narrow { verbs: [ApiVerb::Read].into(), projects: ["other".to_owned()].into(), ..Narrow::default() };
    let other = client.token_narrow(&narrow).await.unwrap().token;
    assert!(served.client(&other).build_get(graph::BuildId(1)).await.is_err());
    let said = client.token_inspect(&TokenText { token: other }).await.unwrap();
    assert_eq!((said.refused.as_str(), said.narrowed.len()), ("", 1));
    let page = sent(&holder, "/settings/inspect", &[("token", &weaker)]).await;
    assert!(page.text.contains("This server takes it") && page.text.contains("verbs: read"), "{}", page.text);
    assert_eq!(sent(&holder, "/settings/inspect", &[("token", "nonsense")]).await.status, 422);
    // Only who may lists tokens, and what is revoked is worth nothing, with all that came of it.
    assert!(holder.get("/settings/tokens").await.text.contains("Yours does not"));
    let page = browser.get("/settings/tokens").await;
    assert!(
        page.text.contains("Revoke") && !page.text.contains("<img src=x") && !page.text.contains(&made),
        "{}",
        page.text
    );
    let path = format!("/settings/tokens/{}/revoke", whoami.token);
    assert_eq!(sent(&browser, &path, &[]).await.status, 303);
    assert!(client.whoami().await.is_err() && served.client(&weaker).whoami().await.is_err());
    let said = served.admin().token_inspect(&TokenText { token: weaker }).await.unwrap();
    assert!(!said.refused.is_empty());
    // All of it is in the audit.
    let audit = served.admin().audit_list(&AuditWanted::default(), &PageWanted::default()).await.unwrap();
    let verbs: Vec<&str> = audit.items.iter().map(|entry| entry.verb.as_str()).collect();
    assert_eq!(verbs[..4], ["token_revoke", "token_narrow", "token_narrow", "token_create"]);
    let page = browser.get("/settings/audit").await;
    assert!(page.text.contains("token_<wbr>narrow") && !page.text.contains("<img src=x"), "{}", page.text);
    let page = browser.get("/settings/audit?who=nobody").await;
    assert!(page.text.contains("Nobody has done anything like that"), "{}", page.text);
    served.end().await;
}

#[tokio::test]
async fn caches_are_looked_at_explained_and_cleared() {
    let served = Served::new().await;
    let client = served.admin();
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    let mut worker = Worker::join(&served.site, "w", []).await;
    let build = asked(&served, &client, "jobs:\n  hello:\n    inputs: []\n    run: echo hello\n").await;
    let start = worker.start().await;
    worker.finish(&served.site, &start.spec).await;
    served.site.ended(build).await;
    // A result is kept beside the build's end, not before it.
    let kept = async {
        loop {
            if let Some(operation) = client.operation_list(None, None).await.unwrap().items.pop() {
                return operation;
            }
        }
    };
    let operation = tokio::time::timeout(PATIENCE, kept).await.expect("the result is kept");
    let path = format!("/settings/caches/{}", operation.digest);
    assert!(browser.get("/settings/caches").await.text.contains(&path));
    let page = browser.get(&path).await;
    assert!(
        page.text.contains("Change any of them, and it runs anew") && page.text.contains("echo hello"),
        "{}",
        page.text
    );
    let digest = operation.digest.to_string();
    let form = [("what", "operation"), ("digest", digest.as_str()), ("reason", HOSTILE)];
    assert_eq!(sent(&browser, "/settings/caches/evict", &form).await.to, "/settings/caches");
    let page = browser.get("/settings/caches?job=hello").await;
    assert!(page.text.contains("cleared") && !page.text.contains("<img src=x"), "{}", page.text);
    let form = [("what", "operation"), ("digest", digest.as_str()), ("reason", "")];
    assert_eq!(sent(&browser, "/settings/caches/evict", &form).await.status, 400);
    served.end().await;
}

#[tokio::test]
async fn pools_and_workers_are_told_and_held() {
    let served = Served::new().await;
    let client = served.admin();
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    let mut worker = Worker::join(&served.site, "w", []).await;
    let build = asked(&served, &client, ONE).await;
    let start = worker.start().await;
    let page = browser.get("/queue").await;
    assert!(
        page.text.contains("1 running in 2 places")
            && page.text.contains("lease")
            && page.text.contains("sails build 1"),
        "{}",
        page.text
    );
    let running = &client.worker_get("w").await.unwrap().running[0];
    assert!(running.project == "sails" && running.leased.is_some());
    // A pool that is held says why, and to those who wait.
    let page = sent(&browser, "/pools/default/hold", &[("reason", HOSTILE)]).await;
    assert_eq!((page.status, page.to.as_str()), (303, "/queue"), "{}", page.text);
    let waits = asked(&served, &client, "jobs:\n  other:\n    run: echo other\n").await;
    let page = loop {
        let page = browser.get("/queue").await;
        if page.text.contains("the pool, which is held") {
            break page;
        }
    };
    assert!(page.text.contains("Held by ada") && !page.text.contains("<img src=x"), "{}", page.text);
    // A build is moved to the top, once, by whoever may control it; the audit says who.
    assert!(page.text.contains(&format!("Move build {waits} to the top")), "{}", page.text);
    let reader = Browser::new(&served, &served.token(&[Verb::Read], None, None));
    assert_eq!(sent(&reader, &format!("/builds/{waits}/urge"), &[]).await.status, 403);
    let moved = sent(&browser, &format!("/builds/{waits}/urge"), &[]).await;
    assert_eq!((moved.status, moved.to.as_str()), (303, "/queue"), "{}", moved.text);
    let page = browser.get("/queue").await;
    assert!(page.text.contains(">urgent<") && !page.text.contains("to the top"), "{}", page.text);
    assert_eq!(client.build_urge(waits, &api::build::Urge::default()).await.unwrap().id, waits);
    let audit = client.audit_list(&AuditWanted::default(), &PageWanted::default()).await.unwrap().items;
    assert_eq!(
        audit.iter().filter(|entry| entry.verb == "build_urge" && entry.target == format!("build {waits}")).count(),
        1
    );
    // Who may see another project only sees the pools, no worker and nothing that waits.
    let foreign = Browser::new(&served, &served.token(&[Verb::Read], Some("other"), None)).get("/queue").await;
    assert!(foreign.status == 200 && !foreign.text.contains("sails"), "{}", foreign.text);
    assert_eq!(sent(&browser, "/pools/default/release", &[]).await.status, 303);
    // What failed in a worker's hands by no fault of the job's stands with it.
    worker.end(&served.site, &start.spec, Outcome::Failed(Failure::Setup { message: HOSTILE.to_owned() })).await;
    served.site.ended(build).await;
    let told = client.worker_get("w").await.unwrap();
    assert_eq!(told.fault.map(|fault| (fault.build, fault.text)), Some((build, HOSTILE.to_owned())));
    // What it took counts for its project, for those who may see that.
    let time = client.worker_time().await.unwrap();
    let told: Vec<_> = time.projects.iter().map(|time| (time.project.as_str(), time.attempts)).collect();
    assert_eq!(told, [("sails", 1)]);
    let foreign = Browser::new(&served, &served.token(&[Verb::Read], Some("other"), None));
    assert!(foreign.get("/api/v1/worker-time").await.text.contains("\"projects\":[]"));
    let page = browser.get("/queue").await;
    assert!(page.text.contains("Time of workers") && page.text.contains("in 1 attempt"), "{}", page.text);
    assert!(page.text.contains("Last fault") && !page.text.contains("<img src=x"), "{}", page.text);
    sent(&browser, "/workers/w/pause", &[("reason", "looking at it")]).await;
    assert_eq!(client.worker_get("w").await.unwrap().state, WorkerState::Paused);
    assert!(browser.get("/queue").await.text.contains("looking at it"));
    sent(&browser, "/workers/w/resume", &[]).await;
    assert_eq!(client.worker_get("w").await.unwrap().state, WorkerState::Ready);
    assert!(client.build_get(waits).await.is_ok());
    served.end().await;
}
