//! The HTTP API as people's programs meet it: the real client, a real listener, a store on disk, a worker by script.

extern crate ropewalk_server as server;

#[path = "http/members.rs"]
mod members;
#[path = "http/narrowed.rs"]
mod narrowed;
#[path = "http/overview.rs"]
mod overview;
#[path = "http/pages.rs"]
mod pages;
#[path = "http/quarantine.rs"]
mod quarantine;
#[path = "http/refusals.rs"]
mod refusals;
#[path = "http/schema.rs"]
mod schema;
#[path = "http/settings.rs"]
mod settings;
#[allow(dead_code, reason = "other tests use the rest of it")]
mod site;
#[path = "http/streams.rs"]
mod streams;
#[path = "http/tokens.rs"]
mod tokens;
#[path = "http/uploads.rs"]
mod uploads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::blob::{Digests, parcel_head};
use api::build::{BuildFilter, Cancel, Made, Rebuild, Retry, Submit, SubmitOptions, VerdictWord};
use api::cache::Evict;
use api::client::{AuditWanted, Client, JobsWanted, LogWanted, Logs, PageWanted, Server, TestsWanted};
use api::event::{EventWanted, Moment};
use api::job::{GateAnswer, JobState, OutcomeWord, WaitReason};
use api::log::{LogItem, LogState};
use api::pool::Hold;
use api::problem::ProblemKind;
use api::project::{ProjectSettings, SecretValue};
use api::routes::{Access, IDEMPOTENCY_KEY, Method, ROUTES, Route};
use api::time::Time;
use api::token::{Grant, HealthStatus, HolderKind, Setup, Verb};
use api::worker::FromWorker;
use api::worker_view::{Stop, WorkerState};
use graph::{BuildId, Failure, Outcome, Timestamp};
use serde_json::json;
use server::access::{GrantRequest, SealingKey, Subject, SubjectKind};
use server::http::{App, SearchBounds, router};
use server::secrets::Secrets;
use site::{Site, Worker, log_section, manifest, said};
use store::log::StepEnd;

const ONE: &str = "jobs:\n  hello:\n    run: echo hello\n";
const GATED: &str = "jobs:\n  ask:\n    gate:\n      prompt: Ship it?\n      fields:\n        region: { type: choice, options: [eu, us], default: eu }\n        note: { type: string }\n  after:\n    needs: ask\n    run: echo shipped\n";

/// A site that is served.
struct Served {
    site: Site,
    address: String,
    listener: tokio::task::JoinHandle<()>,
    _keys: tempfile::TempDir,
}

impl Served {
    async fn new() -> Self {
        Self::with(|app| app).await
    }

    async fn with_search_bounds(search: SearchBounds) -> Self {
        Self::with(|app| app.with_search_bounds(search)).await
    }

    async fn with(change: impl FnOnce(App) -> App) -> Self {
        let site = Site::new();
        let keys = tempfile::tempdir().unwrap();
        let key = Arc::new(SealingKey::of(keys.path()).unwrap());
        let secrets = Arc::new(Secrets::new(site.server().records.clone(), key));
        let app = Arc::new(change(App::new(Arc::clone(site.server()), secrets)));
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", socket.local_addr().unwrap());
        let service = router(app).into_make_service_with_connect_info::<std::net::SocketAddr>();
        let listener = tokio::spawn(async move { axum::serve(socket, service).await.unwrap() });
        Self { site, address, listener, _keys: keys }
    }

    /// A token's text.
    fn token(&self, verbs: &[server::access::Verb], project: Option<&str>, until: Option<Timestamp>) -> String {
        self.token_of("ada", verbs, project, until)
    }

    /// A token's text, of this holder.
    fn token_of(
        &self,
        name: &str,
        verbs: &[server::access::Verb],
        project: Option<&str>,
        until: Option<Timestamp>,
    ) -> String {
        let grant = GrantRequest {
            subject: Subject { kind: SubjectKind::Person, name: name.to_owned() },
            verbs: verbs.iter().copied().collect(),
            projects: project.map(|project| BTreeSet::from([project.to_owned()])),
            pools: None,
            until,
        };
        let id = server::parts::fresh_id();
        self.site.server().access.create(&id, grant, "test", site::now()).unwrap()
    }

    fn client(&self, token: &str) -> Client {
        Client::new(Server::parse(&self.address), token).unwrap()
    }

    fn admin(&self) -> Client {
        self.client(&self.token(&[server::access::Verb::Admin], None, None))
    }

    /// A call by hand: status, media type and body.
    async fn by_hand(&self, route: &Route, token: Option<&str>) -> (u16, String, serde_json::Value) {
        let path = route.path.split('/').map(|segment| match segment {
            "{build}" | "{number}" | "{attempt}" => "1".to_owned(),
            "{step}" => "0".to_owned(),
            "{digest}" => "0".repeat(64),
            "{commit}" => "0".repeat(40),
            segment => segment.trim_matches(['{', '}']).to_owned(),
        });
        let path = path.collect::<Vec<_>>().join("/");
        let method = match route.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut request = reqwest::Client::new().request(method, format!("{}{path}", self.address));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = &route.body {
            request = request.header("content-type", body.media).body("{}");
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let media = answer.headers().get("content-type").map(|media| media.to_str().unwrap().to_owned());
        let body = if status < 300 { Vec::new() } else { answer.bytes().await.unwrap().to_vec() };
        (status, media.unwrap_or_default(), serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn end(self) {
        self.site.end().await;
        self.listener.abort();
        let _ = self.listener.await;
    }
}

fn run(test: impl Future<Output = ()>) {
    // Clients made by hand need it; the first to say so decides.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn submit(source: graph::Digest) -> Submit {
    Submit {
        project: "sails".to_owned(),
        source,
        event: EventWanted {
            branch: Some("main".to_owned()),
            commit: Some("2ae4f66b".repeat(5)),
            ..EventWanted::default()
        },
        pipeline: None,
        pool: None,
        options: SubmitOptions::default(),
    }
}

/// A build of this pipeline.
async fn asked(served: &Served, client: &Client, pipeline: &str) -> BuildId {
    let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", pipeline)]);
    let submitted = client.build_submit(&submit(source)).await.unwrap();
    assert_eq!(submitted.made, Made::New);
    submitted.build
}

/// A build of one job that has passed, with a log of two lines and a gap-free end.
async fn passed(served: &Served, client: &Client) -> BuildId {
    let mut worker = Worker::join(&served.site, "w1", []).await;
    let build = asked(served, client, ONE).await;
    let start = worker.start().await;
    let log = log_section(&start.spec, 0, 0, b"hello\nworld\n", Some(StepEnd::Closed));
    worker.say(&served.site, &[log]).await;
    worker.finish(&served.site, &start.spec).await;
    served.site.ended(build).await;
    build
}

fn refused(error: &api::client::ClientError) -> Option<ProblemKind> {
    error.problem().and_then(api::problem::Problem::known_kind)
}

#[test]
fn nobody_is_let_in_without_a_grant() {
    run(async {
        let served = Served::new().await;
        let admin = served.admin();
        passed(&served, &admin).await;
        let all = server::access::Verb::ALL;
        let over = server::access::Narrowing { until: Some(Timestamp(1)), ..server::access::Narrowing::default() };
        let expired = [
            served.token(&all, None, Some(Timestamp(1))),
            server::access::narrow(&served.token(&all, None, None), &over).expect("a weaker token"),
        ];
        let foreign = served.token(
            &[
                server::access::Verb::Read,
                server::access::Verb::Submit,
                server::access::Verb::Control,
                server::access::Verb::Shell,
            ],
            Some("masts"),
            None,
        );
        for route in ROUTES.iter().filter(|route| route.access != Access::Public) {
            let operation = route.operation;
            let (status, media, body) = served.by_hand(route, None).await;
            assert_eq!(
                (status, media.as_str()),
                (401, "application/problem+json"),
                "{operation} without a token: {body}"
            );
            let (status, ..) = served.by_hand(route, Some("nonsense")).await;
            assert!(matches!(status, 401 | 410), "{operation} with nonsense: {status}");
            for token in &expired {
                let (status, _, body) = served.by_hand(route, Some(token)).await;
                assert!(matches!(status, 401 | 410), "{operation} with an expired token: {status} {body}");
            }
            let (status, _, body) = served.by_hand(route, Some(&foreign)).await;
            match route.access {
                // A build of another project is not even there; a token is no session.
                Access::Grant(_, api::routes::On::Build) => assert_eq!(status, 404, "{operation}: {body}"),
                Access::Session => assert_eq!(status, 403, "{operation}: {body}"),
                Access::Grant(_, api::routes::On::Project | api::routes::On::Server) => {
                    assert_eq!(status, 403, "{operation}: {body}");
                }
                _ => {}
            }
        }
        let foreign = served.client(&foreign);
        assert_eq!(foreign.build_list(&BuildFilter::default(), &PageWanted::default()).await.unwrap().items, []);
        assert_eq!(foreign.project_list(&PageWanted::default()).await.unwrap().items, []);
        assert_eq!(foreign.commit_cancel(&"0".repeat(40), None, &Cancel::default()).await.unwrap().builds, []);
        let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", ONE)]);
        let error = foreign.build_submit(&submit(source)).await.unwrap_err();
        assert_eq!(refused(&error), Some(ProblemKind::Forbidden));
        served.end().await;
    });
}

#[test]
fn what_is_not_in_the_table_is_not_there() {
    run(async {
        let served = Served::new().await;
        let http = reqwest::Client::new();
        for (method, path, status) in [
            (reqwest::Method::GET, "/nowhere", 404),
            (reqwest::Method::GET, "/api/v2/builds", 404),
            (reqwest::Method::PATCH, "/api/v1/builds", 405),
            (reqwest::Method::DELETE, "/health", 405),
        ] {
            let answer = http.request(method, format!("{}{path}", served.address)).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{path}");
            assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
            let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
            let refusal: api::problem::Problem = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            assert_eq!(refusal.request, id, "{path}");
        }
        let admin = served.token(&[server::access::Verb::Admin], None, None);
        for (query, status) in [("?limit=0", 400), ("?limit=1001", 400), ("?cursor=x", 400), ("?colour=red", 400)] {
            let url = format!("{}/api/v1/builds{query}", served.address);
            let answer = http.get(url).bearer_auth(&admin).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{query}");
        }
        served.end().await;
    });
}

#[test]
fn a_build_is_asked_for_watched_and_looked_at() {
    run(async {
        let served = Served::new().await;
        let admin = served.admin();
        let mut worker = Worker::join(&served.site, "w1", []).await;
        let content = bytes::Bytes::from_static(ONE.as_bytes());
        let digest = store::blob::digest(&content);
        let digests = Digests { digests: vec![digest] };
        assert_eq!(admin.blob_missing(&digests).await.unwrap(), digests);
        let parcel = [&parcel_head(digest, content.len() as u64)[..], &content[..]].concat();
        assert_eq!(admin.blob_put_bytes(parcel.into()).await.unwrap().blobs, 1);
        assert_eq!(admin.blob_missing(&digests).await.unwrap().digests, []);

        let build = asked(&served, &admin, ONE).await;
        let mut stream = admin.build_stream(build, Logs::With, None);
        let start = worker.start().await;
        worker.say(&served.site, &[log_section(&start.spec, 0, 0, b"hello\nwor", None)]).await;
        let (mut lines, mut last) = (Vec::new(), None);
        while lines.len() < 2 {
            let told = stream.next().await.unwrap().expect("it goes on");
            last = told.id.or(last);
            if let Moment::Log { line, open, .. } = told.moment {
                lines.push((line, open));
            }
        }
        assert_eq!(lines, [("hello".to_owned(), false), ("wor".to_owned(), true)]);
        let log = log_section(&start.spec, 0, 9, b"ld\n", Some(StepEnd::Closed));
        worker.say(&served.site, &[log]).await;
        worker.finish(&served.site, &start.spec).await;
        // Taken up again by another client behind what was seen, nothing is told twice.
        let mut again = admin.build_stream(build, Logs::With, last);
        let mut rest = Vec::new();
        while let Some(told) = again.next().await.unwrap() {
            rest.push(serde_json::to_value(&told.moment).unwrap()["kind"].as_str().unwrap().to_owned());
        }
        assert_eq!(rest.iter().filter(|kind| *kind == "log").count(), 1, "{rest:?}");
        assert_eq!(rest.last().map(String::as_str), Some("build_finished"));

        let shown = admin.build_get(build).await.unwrap();
        assert_eq!((shown.verdict, shown.project.as_str(), shown.number), (VerdictWord::Passed, "sails", Some(1)));
        assert_eq!((shown.client.as_str(), shown.event.actor.as_str()), ("ada", "ada"));
        assert_eq!(admin.build_numbered("sails", 1).await.unwrap(), shown);
        let commit = shown.event.commit.clone().expect("it has one");
        let filter = BuildFilter { branch: Some("main".to_owned()), ..BuildFilter::default() };
        let listed = api::build::Build { source: None, ..shown };
        assert_eq!(admin.build_list(&filter, &PageWanted::default()).await.unwrap().items, [listed]);
        let of_commit = async |commit: &str| {
            let filter = BuildFilter { commit: Some(commit.to_owned()), ..BuildFilter::default() };
            admin.build_list(&filter, &PageWanted::default()).await.map(|page| page.items.len())
        };
        for (beginning, count) in [(commit.as_str(), 1), ("2AE4F66", 1), ("2ae4f67", 0)] {
            assert_eq!(of_commit(beginning).await.unwrap(), count, "{beginning}");
        }
        for wrong in ["HEAD", &commit[..6]] {
            assert_eq!(refused(&of_commit(wrong).await.unwrap_err()), Some(ProblemKind::Invalid));
        }
        let canceled = admin.commit_cancel(&commit[..7], None, &Cancel::default()).await;
        assert_eq!(refused(&canceled.unwrap_err()), Some(ProblemKind::Invalid));
        for (before, count) in [(build, 0), (BuildId(build.0 + 1), 1)] {
            let older = BuildFilter { before: Some(before), ..BuildFilter::default() };
            assert_eq!(admin.build_list(&older, &PageWanted::default()).await.unwrap().items.len(), count);
        }
        let other = BuildFilter { verdict: Some(VerdictWord::Failed), ..BuildFilter::default() };
        assert_eq!(admin.build_list(&other, &PageWanted::default()).await.unwrap().items, []);
        assert_eq!(admin.build_graph(build).await.unwrap()["jobs"]["hello"]["steps"][0]["run"], "echo hello");
        assert_eq!(admin.build_diagnostics(build).await.unwrap().items, []);

        let jobs = admin.job_list(build, &JobsWanted::default(), &PageWanted::default()).await.unwrap();
        assert_eq!(
            jobs.items.iter().map(|job| (job.name.as_str(), job.state)).collect::<Vec<_>>(),
            [("hello", JobState::Ended)]
        );
        for (step, found) in [("ECHO h", 1), ("hello there", 0)] {
            let wanted = JobsWanted { step: Some(step.to_owned()), ..JobsWanted::default() };
            let jobs = admin.job_list(build, &wanted, &PageWanted::default()).await.unwrap();
            assert_eq!(jobs.items.len(), found, "{step}");
        }
        assert_eq!(admin.job_get(build, "hello").await.unwrap().outcome, Some(OutcomeWord::Passed));
        assert_eq!(admin.job_why(build, "hello").await.unwrap().reason, WaitReason::Nothing);
        let attempts = admin.attempt_list(build, None, &PageWanted::default()).await.unwrap();
        assert_eq!(attempts.items[0].ended.as_ref().unwrap().report, None);
        let attempt = admin.attempt_get(build, 1).await.unwrap();
        let reports = admin.attempt_reports(build, Some("hello"), &PageWanted::default()).await.unwrap();
        assert_eq!(reports.items, std::slice::from_ref(&attempt));
        assert_eq!(attempt.ended.unwrap().report.unwrap().steps[0].name, "echo hello");
        assert_eq!(admin.test_list(build, &TestsWanted::default(), &PageWanted::default()).await.unwrap().items, []);
        assert_eq!(admin.artifact_list(build, None).await.unwrap().items, []);
        let error = admin.job_get(build, "nobody").await.unwrap_err();
        assert_eq!(refused(&error), Some(ProblemKind::NotFound));
        served.end().await;
    });
}

#[test]
fn a_log_is_read_cut_searched_and_followed() {
    run(async {
        let served = Served::new().await;
        let admin = served.admin();
        let build = passed(&served, &admin).await;
        let summary = admin.log_summary(build, 1).await.unwrap();
        assert_eq!((summary.steps[0].lines, summary.steps[0].bytes, summary.steps[0].state), (2, 12, LogState::Closed));

        let page = PageWanted::default();
        assert_eq!(admin.log_list(build, None, &page).await.unwrap().items, [summary]);
        assert_eq!(admin.log_list(build, Some("other"), &page).await.unwrap().items, []);

        async fn text(mut bytes: api::client::LogBytes) -> String {
            let mut all = Vec::new();
            while let Some(piece) = bytes.next().await.unwrap() {
                all.extend_from_slice(&piece);
            }
            String::from_utf8(all).unwrap()
        }
        let whole = LogWanted::default();
        assert_eq!(text(admin.log_text(build, 1, 0, &whole).await.unwrap()).await, "hello\nworld\n");
        let second = LogWanted { from: Some(1), count: Some(1), ..LogWanted::default() };
        assert_eq!(text(admin.log_text(build, 1, 0, &second).await.unwrap()).await, "world\n");
        let tail = LogWanted { tail: Some(1), ..LogWanted::default() };
        assert_eq!(text(admin.log_text(build, 1, 0, &tail).await.unwrap()).await, "world\n");
        let first_of_tail = LogWanted { tail: Some(2), count: Some(1), ..LogWanted::default() };
        assert_eq!(text(admin.log_text(build, 1, 0, &first_of_tail).await.unwrap()).await, "hello\n");
        let follow = LogWanted { follow: true, ..LogWanted::default() };
        assert_eq!(text(admin.log_text(build, 1, 0, &follow).await.unwrap()).await, "hello\nworld\n");
        for wanted in [&whole, &follow] {
            let error = admin.log_text(build, 1, 77, wanted).await.err().unwrap();
            assert_eq!(refused(&error), Some(ProblemKind::NotFound), "the job has one step");
        }
        assert_eq!(text(admin.log_raw(build, 1, 0, 0).await.unwrap()).await, "hello\nworld\n");
        assert_eq!(text(admin.log_raw(build, 1, 0, 8).await.unwrap()).await, "rld\n");
        let error = admin.log_raw(build, 1, 0, 12).await.err().unwrap();
        assert_eq!(refused(&error), Some(ProblemKind::Range));
        let mut items = admin.log_items(build, 1, 0, &whole).await.unwrap();
        let Some(LogItem::Line(line)) = items.next().await.unwrap() else { panic!("a line comes first") };
        assert_eq!((line.number, line.line.as_str()), (0, "hello"));

        let page = PageWanted { limit: Some(1), cursor: None };
        let hits = admin.log_search(build, 1, 0, "o", &page).await.unwrap();
        assert_eq!(hits.hits[0].text, "hello");
        let rest = admin.log_search(build, 1, 0, "o", &PageWanted { cursor: hits.next, limit: None }).await.unwrap();
        assert_eq!(rest.hits.iter().map(|hit| hit.text.as_str()).collect::<Vec<_>>(), ["world"]);
        let error = admin.log_search(build, 1, 0, "(", &page).await.unwrap_err();
        assert_eq!(refused(&error), Some(ProblemKind::Invalid));
        served.end().await;
    });
}

#[test]
fn a_search_has_an_end_from_which_it_goes_on() {
    run(async {
        let bounds = SearchBounds { bytes: 4000, piece_bytes: 1000, ..SearchBounds::DEFAULT };
        let served = Served::with_search_bounds(bounds).await;
        let admin = served.admin();
        let mut worker = Worker::join(&served.site, "w1", []).await;
        let build = asked(&served, &admin, ONE).await;
        let start = worker.start().await;
        let log: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        worker.say(&served.site, &[log_section(&start.spec, 0, 0, log.as_bytes(), None)]).await;
        worker.finish(&served.site, &start.spec).await;
        served.site.ended(build).await;
        let (mut page, mut found, mut calls) = (PageWanted::default(), Vec::new(), 0);
        loop {
            let hits = admin.log_search(build, 1, 0, "line .*99$", &page).await.unwrap();
            calls += 1;
            found.extend(hits.hits.into_iter().map(|hit| hit.number));
            let Some(next) = hits.next else { break };
            page.cursor = Some(next);
        }
        assert_eq!(found, [99, 199, 299, 399, 499, 599, 699, 799, 899, 999]);
        assert_eq!(calls, 1 + log.len() / 4000, "each call looks through 4000 bytes");
        // Where in the log they are is told as far as the bounds go.
        let path = "/api/v1/builds/1/attempts/1/log/0/search?regex=9%24&limit=1&parts=10";
        let token = served.token(&[server::access::Verb::Read], None, None);
        let get = async |path: &str| {
            let request = reqwest::Client::new().get(format!("{}{path}", served.address)).bearer_auth(&token);
            request.send().await.unwrap()
        };
        let found: api::log::LogHits = serde_json::from_slice(&get(path).await.bytes().await.unwrap()).unwrap();
        let spread = found.spread.unwrap();
        assert_eq!((found.hits.len(), found.next.as_deref()), (1, Some("10")));
        assert!(spread.lines == 1000 && (400..500).contains(&spread.searched), "{spread:?}");
        assert_eq!((spread.hits, &spread.parts[..4]), (spread.parts.iter().sum(), &[10, 10, 10, 10][..]));
        for wrong in ["parts=0", "parts=501", "within_ms=0", "within_ms=x"] {
            let answer = get(&format!("/api/v1/builds/1/attempts/1/log/0/search?regex=9&{wrong}")).await;
            assert_eq!(answer.status().as_u16(), 400, "{wrong}");
        }
        served.end().await;
    });
}

#[test]
fn lines_are_compared_with_those_of_an_attempt_of_the_same_project() {
    run(async {
        let served = Served::new().await;
        let admin = served.admin();
        let mut worker = Worker::join(&served.site, "w1", []).await;
        for log in ["compiled in 3 s\nok\n", "compiled in 14 s\nerror\n"] {
            let build = asked(&served, &admin, ONE).await;
            let start = worker.start().await;
            worker.say(&served.site, &[log_section(&start.spec, 0, 0, log.as_bytes(), None)]).await;
            worker.finish(&served.site, &start.spec).await;
            served.site.ended(build).await;
        }
        let token = served.token(&[server::access::Verb::Read], None, None);
        let get = async |against: &str| {
            let path = format!("/api/v1/builds/2/attempts/1/log/0?{against}");
            let request = reqwest::Client::new().get(format!("{}{path}", served.address)).bearer_auth(&token);
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let (status, text) = get("format=ndjson&against=1.1").await;
        // The log has no end that was told, so that a gap stands behind its lines.
        let items = text.lines().map(|line| serde_json::from_str::<LogItem>(line).unwrap());
        let same: Vec<bool> =
            items.filter_map(|item| if let LogItem::Line(line) = item { Some(line.same) } else { None }).collect();
        assert_eq!((status, same), (200, vec![true, false]), "{text}");
        for (wrong, expected) in [
            ("format=ndjson&against=3.1", 404),
            ("format=ndjson&against=1.2", 404),
            ("format=ndjson&against=x", 400),
            ("format=text&against=1.1", 400),
            ("format=ndjson&follow=true&against=1.1", 400),
        ] {
            assert_eq!(get(wrong).await.0, expected, "{wrong}");
        }
        served.end().await;
    });
}

#[test]
fn readers_who_stop_hold_no_thread() {
    const THREADS: usize = 4;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(THREADS).build().unwrap();
    runtime.block_on(async {
        let served = Served::new().await;
        let admin = served.admin();
        let offer =
            api::worker::Offer { pools: BTreeSet::from(["default".to_owned()]), slots: 1, ..Default::default() };
        let join = api::worker::Join { key: "00".to_owned(), offer, ..Default::default() };
        let pass = served.site.pass(&served.site.worker_token());
        let joined = served.site.server().join(graph::WorkerId("w1".into()), join, pass);
        let joined = joined.await.unwrap();
        let worker = served.client(&joined.secret);
        // More than the buffers of a connection take.
        let digest = served.site.server().blobs.put(&vec![7; 64 << 20]).unwrap();
        let mut stopped = Vec::new();
        for _ in 0..THREADS {
            stopped.push(worker.blob_get(digest, 0).await.unwrap());
            stopped.push(worker.blob_fetch(&Digests { digests: vec![digest] }).await.unwrap());
        }
        assert_eq!(admin.project_list(&PageWanted::default()).await.unwrap().items.len(), 0);
        drop(stopped);
        served.end().await;
    });
}

#[test]
fn a_log_that_grows_is_followed_to_its_end() {
    run(async {
        let served = Served::new().await;
        let admin = served.admin();
        let mut worker = Worker::join(&served.site, "w1", []).await;
        let build = asked(&served, &admin, ONE).await;
        let start = worker.start().await;
        let follow = LogWanted { follow: true, ..LogWanted::default() };
        let mut log = admin.log_text(build, 1, 0, &follow).await.unwrap();
        let mut seen = Vec::new();
        for (from, piece) in [(0, &b"one\ntw"[..]), (6, b"o\n")] {
            worker.say(&served.site, &[log_section(&start.spec, 0, from, piece, None)]).await;
            let wanted = seen.len() + piece.len();
            while seen.len() < wanted {
                seen.extend_from_slice(&log.next().await.unwrap().expect("it goes on"));
            }
        }
        worker.finish(&served.site, &start.spec).await;
        while let Some(piece) = log.next().await.unwrap() {
            seen.extend_from_slice(&piece);
        }
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.starts_with("one\ntwo\n"), "{seen}");
        served.end().await;
    });
}

/// Waits until the only answer that is to be written down is, and removes it.
async fn forget_answer(served: &Served) {
    let records = &served.site.server().records;
    let written = loop {
        match records.all::<server::records::Answered>().unwrap().into_iter().next() {
            Some((key, _)) => break key,
            None => tokio::task::yield_now().await,
        }
    };
    records.remove::<server::records::Answered>(&written).unwrap();
}

#[test]
fn a_retry_whose_answer_was_not_written_down_puts_nothing_back_again() {
    run(async {
        let served = Served::new().await;
        let admin = served.admin();
        let mut worker = Worker::join(&served.site, "w1", []).await;
        let build = asked(&served, &admin, ONE).await;
        let failed = || Outcome::Failed(Failure::Step { step: 0, exit: 1, message: None });
        let start = worker.start().await;
        worker.end(&served.site, &start.spec, failed()).await;
        served.site.ended(build).await;
        let token = served.token(&[server::access::Verb::Admin], None, None);
        let http = reqwest::Client::new();
        let calls = [
            ("k1", format!("builds/{build}/retry"), json!({ "what": "failed" })),
            ("k2", format!("builds/{build}/jobs/hello/retry"), json!({})),
        ];
        for (n_retries, (key, path, body)) in (1..).zip(calls) {
            let post = || {
                let request = http.post(format!("{}/api/v1/{path}", served.address)).bearer_auth(&token);
                request
                    .header(IDEMPOTENCY_KEY, key)
                    .header("content-type", "application/json")
                    .body(body.to_string())
                    .send()
            };
            let first = post().await.unwrap();
            assert_eq!(first.status().as_u16(), 200, "{path}");
            let first = first.text().await.unwrap();
            let start = worker.start().await;
            worker.end(&served.site, &start.spec, failed()).await;
            served.site.ended(build).await;
            // As a server leaves it that dies right after the answer.
            forget_answer(&served).await;
            let again = post().await.unwrap();
            assert_eq!((again.status().as_u16(), again.text().await.unwrap()), (200, first), "{path}");
            assert_eq!(served.site.server().store.attempts(build, None).unwrap().len(), 1 + n_retries);
            // Written down now, so that the next one finds its own.
            forget_answer(&served).await;
        }
        served.end().await;
    });
}

#[test]
fn the_same_key_does_a_call_once() {
    run(async {
        let served = Served::new().await;
        let token = served.token(&[server::access::Verb::Admin], None, None);
        let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", ONE)]);
        let body = |join: bool| {
            serde_json::to_vec(&Submit {
                options: SubmitOptions { join: Some(join), ..SubmitOptions::default() },
                ..submit(source)
            })
            .unwrap()
        };
        let http = reqwest::Client::new();
        let post = |key: &'static str, body: Vec<u8>| {
            let request = http.post(format!("{}/api/v1/builds", served.address)).bearer_auth(&token);
            request.header(IDEMPOTENCY_KEY, key).header("content-type", "application/json").body(body).send()
        };
        let first = post("k1", body(false)).await.unwrap();
        assert_eq!(first.status().as_u16(), 201);
        let first = first.text().await.unwrap();
        let again = post("k1", body(false)).await.unwrap();
        assert_eq!(again.status().as_u16(), 201);
        assert_eq!(again.text().await.unwrap(), first);
        let (one, two) = tokio::join!(post("k2", body(false)), post("k2", body(false)));
        let (one, two) = (one.unwrap().text().await.unwrap(), two.unwrap().text().await.unwrap());
        assert_eq!(one, two);
        assert_ne!(one, first);
        assert_eq!(post("k1", body(true)).await.unwrap().status().as_u16(), 409);
        assert_eq!(post("", body(true)).await.unwrap().status().as_u16(), 400);
        served.end().await;
    });
}

#[test]
fn builds_are_canceled_retried_and_built_anew() {
    run(async {
        let served = Served::new().await;
        let admin = served.admin();
        let mut worker = Worker::join(&served.site, "w1", []).await;
        let build = asked(&served, &admin, ONE).await;
        let start = worker.start().await;
        worker.end(&served.site, &start.spec, Outcome::Failed(Failure::Step { step: 0, exit: 1, message: None })).await;
        served.site.ended(build).await;
        let failed = admin.build_get(build).await.unwrap();
        assert_eq!((failed.verdict, failed.because.as_deref()), (VerdictWord::Failed, Some("hello")));
        let retried = admin.build_retry(build, &Retry::Failed { reason: "flaky".to_owned() }).await.unwrap();
        assert_eq!((retried.jobs, retried.build), (vec!["hello".to_owned()], build));
        let start = worker.start().await;
        let canceled = admin.build_cancel(build, &Cancel { reason: "enough".to_owned() }).await.unwrap();
        assert_eq!(canceled.canceled_by.as_deref(), Some("ada"));
        worker.end(&served.site, &start.spec, Outcome::Failed(Failure::Canceled { by: "ada".to_owned() })).await;
        served.site.ended(build).await;
        assert_eq!(admin.build_get(build).await.unwrap().verdict, VerdictWord::Canceled);
        let again = admin.build_rebuild(build, &Rebuild::default()).await.unwrap();
        assert_eq!((again.made, again.number), (Made::New, 2));
        assert_eq!(admin.build_get(again.build).await.unwrap().retry_of, Some(build));
        let start = worker.start().await;
        let job = admin.job_cancel(again.build, "hello", &Cancel::default()).await.unwrap();
        assert_eq!(job.name, "hello");
        worker.end(&served.site, &start.spec, Outcome::Failed(Failure::Canceled { by: "ada".to_owned() })).await;
        served.site.ended(again.build).await;
        let error = admin.job_cancel(again.build, "hello", &Cancel::default()).await.unwrap_err();
        assert_eq!(refused(&error), Some(ProblemKind::Conflict));
        let error = admin.build_cancel(BuildId(99), &Cancel::default()).await.unwrap_err();
        assert_eq!(refused(&error), Some(ProblemKind::NotFound));
        served.end().await;
    });
}

#[test]
fn a_pull_request_without_a_number_takes_the_place_of_that_of_its_branch() {
    run(async {
        let served = Served::new().await;
        let ada = served.admin();
        let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", GATED)]);
        let asked = |message: &str, branch: &str| {
            let mut submit = submit(source);
            submit.event.kind = Some(api::event::EventWord::PullRequest);
            submit.event.message = message.to_owned();
            submit.event.branch = Some(branch.to_owned());
            submit
        };
        let first = ada.build_submit(&asked("one", "pr1")).await.unwrap();
        assert_eq!(ada.build_submit(&asked("two", "pr2")).await.unwrap().superseded, []);
        assert_eq!(ada.build_submit(&asked("three", "pr1")).await.unwrap().superseded, [first.build]);
        served.end().await;
    });
}

#[test]
fn who_submits_is_told_whose_place_the_build_takes() {
    run(async {
        let served = Served::new().await;
        let ada = served.admin();
        let bob = served.client(&served.token_of("bob", &[server::access::Verb::Submit], None, None));
        let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", GATED)]);
        let asked = |message: &str, join: Option<bool>| {
            let mut submit = submit(source);
            submit.event.kind = Some(api::event::EventWord::Push);
            submit.event.message = message.to_owned();
            submit.options.join = join;
            submit
        };
        let first = ada.build_submit(&asked("one", None)).await.unwrap();
        // Neither somebody else's build nor one of its own ends it.
        let others = [
            bob.build_submit(&asked("two", None)).await.unwrap(),
            ada.build_submit(&asked("one", Some(false))).await.unwrap(),
        ];
        for other in &others {
            assert_eq!((other.made, other.superseded.as_slice()), (Made::New, &[][..]));
        }
        let second = ada.build_submit(&asked("three", None)).await.unwrap();
        assert_eq!(second.superseded, [first.build]);
        for kept in others.iter().chain([&second]) {
            assert_eq!(ada.build_get(kept.build).await.unwrap().canceled_by, None);
        }
        let audit = ada.audit_list(&AuditWanted::default(), &PageWanted::default()).await.unwrap().items;
        let entry = &audit[0];
        assert_eq!(
            (entry.who.as_str(), entry.verb.as_str(), entry.target.as_str(), entry.detail.as_str()),
            ("ada", "build_submit", "build 1", "canceled: build 4 takes its place")
        );
        served.end().await;
    });
}

#[test]
fn a_gate_is_answered_as_it_asks() {
    run(async {
        let served = Served::new().await;
        let admin = served.admin();
        let _worker = Worker::join(&served.site, "w1", []).await;
        let build = asked(&served, &admin, GATED).await;
        let mut stream = admin.build_stream(build, Logs::Without, None);
        while !matches!(stream.next().await.unwrap().expect("it goes on").moment, Moment::GateOpened { .. }) {}
        let why = admin.job_why(build, "ask").await.unwrap();
        assert_eq!(why.reason, WaitReason::Gate { prompt: "Ship it?".to_owned() });
        let why = admin.job_why(build, "after").await.unwrap();
        assert_eq!(why.reason, WaitReason::Needs { jobs: vec!["ask".to_owned()], count: 1 });
        let gates = admin.gate_list(build).await.unwrap().items;
        assert_eq!(gates[0].fields["region"].options, ["eu", "us"]);
        let approve = |fields: &[(&str, serde_json::Value)]| GateAnswer::Approve {
            fields: fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            reason: "tested".to_owned(),
        };
        for wrong in [&[][..], &[("note", json!(1))], &[("note", json!("n")), ("colour", json!("red"))]] {
            let error = admin.gate_answer(build, "ask", &approve(wrong)).await.unwrap_err();
            assert_eq!(refused(&error), Some(ProblemKind::Unprocessable), "{wrong:?}");
        }
        let gate = admin.gate_answer(build, "ask", &approve(&[("note", json!("n"))])).await.unwrap();
        let answered = gate.answered.unwrap();
        assert_eq!(
            answered.fields,
            BTreeMap::from([("note".to_owned(), json!("n")), ("region".to_owned(), json!("eu"))])
        );
        assert_eq!((answered.approved, answered.by.as_str()), (true, "ada"));
        let error = admin.gate_answer(build, "ask", &GateAnswer::Reject { reason: String::new() }).await.unwrap_err();
        assert_eq!(refused(&error), Some(ProblemKind::Conflict));
        served.end().await;
    });
}

/// Nobody learns from the pages of a queue what waits of another project.
async fn queues_are_seen_by_project(served: &Served, admin: &Client) {
    let mut others = Vec::new();
    for project in ["masts", "masts", "sails"] {
        let submit = Submit {
            project: project.to_owned(),
            options: SubmitOptions { join: Some(false), ..SubmitOptions::default() },
            ..submit(manifest(
                &served.site,
                &[(".ropewalk/pipeline.yaml", &ONE.replace("hello:", &format!("of-{project}:")))],
            ))
        };
        let build = admin.build_submit(&submit).await.unwrap().build;
        let mut stream = admin.build_stream(build, Logs::Without, None);
        while !matches!(stream.next().await.unwrap().expect("it goes on").moment, Moment::Planned { .. }) {}
        others.push(build);
    }
    let of_masts = served.client(&served.token(&[server::access::Verb::Read], Some("masts"), None));
    let mut cursor = None;
    let mut told = Vec::new();
    loop {
        let page = of_masts.pool_queue("default", &PageWanted { limit: Some(1), cursor }).await.unwrap();
        told.extend(page.items.iter().map(|queued| queued.build));
        let Some(next) = page.next else { break };
        assert!(next.ends_with(".of-masts"), "{next}");
        cursor = Some(next);
    }
    assert_eq!(told, others[..2]);
    let of_hulls = served.client(&served.token(&[server::access::Verb::Read], Some("hulls"), None));
    let page = of_hulls.pool_queue("default", &PageWanted { limit: Some(1), cursor: None }).await.unwrap();
    assert_eq!((page.items, page.next), (Vec::new(), None));
    for build in others {
        admin.build_cancel(build, &Cancel::default()).await.unwrap();
        served.site.ended(build).await;
    }
}

#[test]
fn pools_and_workers_are_held_and_seen() {
    run(async {
        let served = Served::new().await;
        let admin = served.admin();
        let pool = admin.pool_hold("default", &Hold { reason: "repairs".to_owned() }).await.unwrap();
        assert_eq!(pool.held.unwrap().reason, "repairs");
        let build = asked(&served, &admin, ONE).await;
        let mut stream = admin.build_stream(build, Logs::Without, None);
        while !matches!(stream.next().await.unwrap().expect("it goes on").moment, Moment::Planned { .. }) {}
        let why = admin.job_why(build, "hello").await.unwrap();
        assert!(matches!(&why.reason, WaitReason::Held { reason, .. } if reason == "held by ada: repairs"), "{why:?}");
        let queue = admin.pool_queue("default", &PageWanted { limit: Some(1), cursor: None }).await.unwrap();
        assert_eq!(queue.next, None);
        assert_eq!(
            queue.items.iter().map(|queued| (queued.build, queued.position)).collect::<Vec<_>>(),
            [(build, Some(1))]
        );
        let urgent = Submit {
            options: SubmitOptions { urgent: true, ..SubmitOptions::default() },
            ..submit(manifest(&served.site, &[(".ropewalk/pipeline.yaml", ONE)]))
        };
        let urgent = admin.build_submit(&urgent).await.unwrap().build;
        let mut stream = admin.build_stream(urgent, Logs::Without, None);
        while !matches!(stream.next().await.unwrap().expect("it goes on").moment, Moment::Planned { .. }) {}
        let queue = admin.pool_queue("default", &PageWanted::default()).await.unwrap().items;
        let places: Vec<_> = queue.iter().map(|queued| (queued.build, queued.position)).collect();
        assert_eq!(places, [(urgent, Some(1)), (build, Some(2))]);
        queues_are_seen_by_project(&served, &admin).await;
        admin.build_cancel(urgent, &Cancel::default()).await.unwrap();
        served.site.ended(urgent).await;
        assert_eq!(admin.pool_get("default").await.unwrap().waiting, 1);
        admin.pool_release("default", &Hold { reason: "upgraded".to_owned() }).await.unwrap();
        let why = admin.job_why(build, "hello").await.unwrap();
        assert!(matches!(why.reason, WaitReason::NoWorker { .. }), "{why:?}");
        let mut worker = Worker::join(&served.site, "w1", []).await;
        let start = worker.start().await;
        let seen = admin.worker_get("w1").await.unwrap();
        assert_eq!((seen.state, seen.running[0].lease), (WorkerState::Ready, start.spec.lease.0));
        let paused = admin.worker_pause("w1", &Stop { reason: "disk".to_owned() }).await.unwrap();
        assert_eq!((paused.state, paused.held.unwrap().reason.as_str()), (WorkerState::Paused, "disk"));
        let back = Stop { reason: "a new disk".to_owned() };
        assert_eq!(admin.worker_resume("w1", &back).await.unwrap().state, WorkerState::Ready);
        let audit = admin.audit_list(&AuditWanted::default(), &PageWanted::default()).await.unwrap().items;
        assert_eq!((audit[0].verb.as_str(), audit[0].detail.as_str()), ("worker_resume", "a new disk"));
        assert_eq!(admin.worker_drain("w1", &Stop::default()).await.unwrap().state, WorkerState::Draining);
        let error = admin.worker_forget("w1", &Stop::default()).await.unwrap_err();
        assert_eq!(refused(&error), Some(ProblemKind::Conflict));
        assert_eq!(admin.worker_list().await.unwrap().items.len(), 1);
        worker.finish(&served.site, &start.spec).await;
        worker.say(&served.site, &[said(&FromWorker::Leaving)]).await;
        let gone = Stop { reason: "sold & shipped".to_owned() };
        admin.worker_forget("w1", &gone).await.unwrap();
        assert_eq!(admin.worker_list().await.unwrap().items, []);
        let audit = admin.audit_list(&AuditWanted::default(), &PageWanted::default()).await.unwrap().items;
        assert_eq!((audit[0].verb.as_str(), audit[0].detail.as_str()), ("worker_forget", "sold & shipped"));
        assert_eq!(admin.pool_list().await.unwrap().items[0].name, "default");
        served.end().await;
    });
}

#[test]
fn projects_secrets_tokens_and_the_audit() {
    run(async {
        let served = Served::new().await;
        let admin = served.admin();
        let settings = ProjectSettings { auto_cancel: Some(false), keep_days: Some(30), ..ProjectSettings::default() };
        assert_eq!(admin.project_put("sails", &settings).await.unwrap().settings, settings);
        assert_eq!(admin.project_get("sails").await.unwrap().settings, settings);
        let value = SecretValue { value: "hush".to_owned() };
        admin.secret_put("sails", "TOKEN", &value).await.unwrap();
        assert_eq!(admin.secret_list("sails").await.unwrap().items[0].name, "TOKEN");
        admin.secret_delete("sails", "TOKEN").await.unwrap();
        assert_eq!(admin.secret_list("sails").await.unwrap().items, []);
        let nul = SecretValue { value: "hu\0sh".to_owned() };
        let error = admin.secret_put("sails", "TOKEN", &nul).await.unwrap_err();
        assert_eq!(refused(&error), Some(ProblemKind::Unprocessable));
        assert_eq!(admin.secret_list("sails").await.unwrap().items, []);
        assert_eq!(refused(&admin.project_delete("saisl").await.unwrap_err()), Some(ProblemKind::NotFound));
        let audit = admin.audit_list(&AuditWanted::default(), &PageWanted::default()).await.unwrap().items;
        assert!(audit.iter().all(|entry| entry.verb != "project_delete"), "{audit:?}");
        // Before the project's first build.
        admin.secret_put("masts", "TOKEN", &value).await.unwrap();
        assert_eq!(admin.secret_list("masts").await.unwrap().items[0].name, "TOKEN");

        let expires = Some(Time(site::now().plus_ms(3_600_000)));
        let grant = Grant {
            kind: HolderKind::Client,
            name: "bot".to_owned(),
            verbs: BTreeSet::from([Verb::Read, Verb::Submit]),
            projects: Some(BTreeSet::from(["sails".to_owned()])),
            pools: None,
            expires,
        };
        let made = admin.token_create(&grant).await.unwrap();
        let bot = served.client(&made.token);
        assert_eq!(bot.whoami().await.unwrap().grant, grant);
        assert_eq!(bot.project_get("sails").await.unwrap().name, "sails");
        assert_eq!(refused(&bot.token_list(&PageWanted::default()).await.unwrap_err()), Some(ProblemKind::Forbidden));
        assert_eq!(admin.token_get(&made.id).await.unwrap().grant, grant);
        admin.token_revoke(&made.id).await.unwrap();
        assert_eq!(refused(&bot.whoami().await.unwrap_err()), Some(ProblemKind::Unauthorized));
        assert!(admin.token_list(&PageWanted::default()).await.unwrap().items.len() >= 2);
        admin.project_delete("sails").await.unwrap();
        assert_eq!(refused(&admin.project_get("sails").await.unwrap_err()), Some(ProblemKind::NotFound));

        let audit = admin.audit_list(&AuditWanted::default(), &PageWanted::default()).await.unwrap();
        assert_eq!(audit.items[0].verb, "project_delete");
        served.end().await;
    });
}

#[test]
fn what_cannot_be_audited_is_not_acknowledged() {
    run(async {
        let served = Served::new().await;
        let admin = served.admin();
        let database = rusqlite::Connection::open(served.site.database()).unwrap();
        database.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
        let refuse = "create trigger full before insert on audit begin select raise(abort, 'no room'); end";
        database.execute_batch(refuse).unwrap();
        let hold = Hold { reason: "repairs".to_owned() };
        let check = |error: api::client::ClientError| {
            let text = error.to_string();
            assert_eq!(refused(&error), Some(ProblemKind::Unavailable), "{text}");
            assert!(text.contains("it was done, but the audit cannot be stored"), "{text}");
        };
        check(admin.pool_hold("default", &hold).await.unwrap_err());
        let grant = Grant {
            kind: HolderKind::Client,
            name: "bot".to_owned(),
            verbs: BTreeSet::from([Verb::Read]),
            projects: None,
            pools: None,
            expires: None,
        };
        check(admin.token_create(&grant).await.unwrap_err());
        let tokens = admin.token_list(&PageWanted::default()).await.unwrap().items;
        let made = tokens.iter().find(|token| token.grant.name == "bot").expect("it is in the list");
        assert!(made.revoked.is_some(), "{made:?}");
        database.execute_batch("drop trigger full").unwrap();
        admin.pool_hold("default", &hold).await.unwrap();
        let audit = admin.audit_list(&AuditWanted::default(), &PageWanted::default()).await.unwrap();
        assert_eq!(audit.items.iter().map(|entry| entry.verb.as_str()).collect::<Vec<_>>(), ["pool_hold"]);
        served.end().await;
    });
}

#[test]
fn the_first_administrator_is_made_once() {
    run(async {
        let served = Served::new().await;
        let server = served.site.server();
        let secret = server::setup::link(&server.access, &server.records, site::now()).unwrap().expect("nobody yet");
        let anybody = served.client("");
        let wrong = Setup { token: "0".repeat(48), name: "eve".to_owned() };
        assert_eq!(refused(&anybody.setup(&wrong).await.unwrap_err()), Some(ProblemKind::Forbidden));
        let made = anybody.setup(&Setup { token: secret.clone(), name: "ada".to_owned() }).await.unwrap();
        assert_eq!(served.client(&made.token).whoami().await.unwrap().grant.verbs, BTreeSet::from([Verb::Admin]));
        let again = Setup { token: secret, name: "eve".to_owned() };
        assert_eq!(refused(&anybody.setup(&again).await.unwrap_err()), Some(ProblemKind::Gone));
        assert!(server::setup::link(&server.access, &server.records, site::now()).unwrap().is_none());
        served.end().await;
    });
}

#[test]
fn a_server_that_will_end_is_not_ready_and_still_answers() {
    run(async {
        let served = Served::new().await;
        let anybody = served.client("");
        assert_eq!(anybody.ready().await.unwrap().status, HealthStatus::Ok);
        served.site.server().announce_end();
        let unready = anybody.ready().await.unwrap_err();
        assert!(unready.to_string().contains("the server ends"), "{unready}");
        assert_eq!(anybody.health().await.unwrap().status, HealthStatus::Ok);
        served.end().await;
    });
}

#[test]
fn the_server_tells_of_itself() {
    run(async {
        let served = Served::new().await;
        let admin = served.admin();
        let anybody = served.client("");
        assert_eq!(anybody.health().await.unwrap().status, HealthStatus::Ok);
        assert_eq!(anybody.ready().await.unwrap().status, HealthStatus::Ok);
        assert_eq!(anybody.openapi().await.unwrap(), api::openapi::document());
        assert_eq!(admin.version().await.unwrap().worker_protocol, api::worker::PROTOCOL);
        let mut events = admin.events(None, None);
        let first = events.connected().await;
        assert!(first.is_ok());
        let build = passed(&served, &admin).await;
        let mut kinds = Vec::new();
        while kinds.last().is_none_or(|kind| kind != "build_finished") {
            let told = events.next().await.unwrap().expect("it goes on");
            assert_eq!(told.moment.build(), build);
            kinds.push(serde_json::to_value(&told.moment).unwrap()["kind"].as_str().unwrap().to_owned());
        }
        assert_eq!(kinds, ["build_started", "planned", "job_started", "job_finished", "build_finished"]);
        let metrics = admin.metrics().await.unwrap();
        for line in [
            "ropewalk_http_requests_total{operation=\"build_submit\",status=\"2xx\"} 1",
            "ropewalk_builds_total{verdict=\"passed\"} 1",
            "ropewalk_builds_total{verdict=\"failed\"} 0",
            "ropewalk_log_bytes_total 12",
            "ropewalk_leases_lost_total 0",
            "ropewalk_workers{state=\"ready\"} 1",
            "ropewalk_workers{state=\"away\"} 0",
            "ropewalk_pool_workers{pool=\"default\"} 1",
            "ropewalk_pool_queued{pool=\"default\"} 0",
            "ropewalk_pool_oldest_wait_seconds{pool=\"default\"} 0.000000",
            "ropewalk_append_seconds_bucket{le=\"+Inf\"}",
        ] {
            assert!(metrics.lines().any(|told| told.starts_with(line)), "{line}\n{metrics}");
        }
        for (name, kind, _) in server::http::metrics::METRICS {
            assert!(metrics.contains(&format!("# TYPE {name} {kind}\n")), "{name}\n{metrics}");
        }
        assert_eq!(admin.operation_list(None, None).await.unwrap().items, []);
        assert_eq!(admin.cache_list(None).await.unwrap().items, []);
        let evict = Evict::Job { job: "hello".to_owned(), reason: "stale".to_owned() };
        admin.cache_evict(&evict).await.unwrap();
        let error = admin.operation_explain(store::blob::digest(b"nothing")).await.unwrap_err();
        assert_eq!(refused(&error), Some(ProblemKind::NotFound));
        served.end().await;
    });
}
