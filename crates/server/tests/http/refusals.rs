//! Calls that are refused though nothing is wrong with their form: nothing comes of them.

use std::collections::{BTreeMap, BTreeSet};

use api::blob::parcel_head;
use api::build::{BuildFilter, Submit, VerdictWord};
use api::client::{Client, PageWanted};
use api::event::{EventWanted, EventWord};
use api::problem::ProblemKind;
use api::routes::IDEMPOTENCY_KEY;
use api::source::{File, History, Manifest, Pack, VERSION};
use graph::Digest;
use serde_json::{Value, json};
use server::access::{Narrowing, Verb, narrow};

use super::site::{Worker, manifest};
use super::{ONE, Served, refused, run, submit};

const ASKING: &str = "on:\n  manual:\n    params:\n      env: { type: choice, options: [staging, prod], default: prod }\n      n: { type: number, default: 1 }\n      req: { type: string }\njobs:\n  a:\n    run: echo\n";

/// That somebody starts it by hand.
fn by_hand(source: Digest, params: &[(&str, Value)]) -> Submit {
    let params = params.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let event = EventWanted { kind: Some(EventWord::Manual), params, ..EventWanted::default() };
    Submit { event, ..submit(source) }
}

/// What is said to a call that is refused; no build came of it.
async fn why(client: &Client, submit: &Submit) -> String {
    let before = builds(client).await;
    let error = client.build_submit(submit).await.expect_err("it is refused");
    assert_eq!(refused(&error), Some(ProblemKind::Unprocessable), "{error}");
    assert_eq!(builds(client).await, before, "{error}");
    error.problem().expect("a problem").detail.clone()
}

async fn builds(client: &Client) -> usize {
    client.build_list(&BuildFilter::default(), &PageWanted::default()).await.expect("a list").items.len()
}

#[tokio::test]
async fn wrong_parameters_start_no_build() {
    let served = Served::new().await;
    let admin = served.admin();
    let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", ASKING)]);
    let asked = |params: &[(&str, Value)]| by_hand(source, &[&[("req", json!("x"))], params].concat());
    let mut told = Vec::new();
    for params in [
        &[("env", json!("stagin"))][..],
        &[("environment", json!("staging"))],
        &[("n", json!(true))],
        &[("n", json!("many")), ("enf", json!("prod"))],
    ] {
        told.push(why(&admin, &asked(params)).await);
    }
    told.push(why(&admin, &by_hand(source, &[])).await);
    insta::assert_snapshot!(told.join("\n"), @r"
    the parameter `env` takes one of staging, prod, not `stagin`
    the pipeline has no parameter `environment`: known here: `env`, `n`, `req`
    the parameter `n` does not take `true`
    the pipeline has no parameter `enf`: did you mean `env`?; the parameter `n` takes a number, not `many`
    the parameter `req` must be given: it has no default
    ");
    // What fits is filled in as before: typed texts by their types, the rest by defaults.
    let mut worker = Worker::join(&served.site, "w1", []).await;
    let build = admin.build_submit(&asked(&[("n", json!("3"))])).await.expect("it is taken").build;
    let start = worker.start().await;
    worker.finish(&served.site, &start.spec).await;
    served.site.ended(build).await;
    let shown = admin.build_get(build).await.expect("it is there");
    assert_eq!(shown.verdict, VerdictWord::Passed);
    assert_eq!(json!(shown.event.params), json!({ "env": "prod", "n": 3, "req": "x" }));
    served.end().await;
}

#[tokio::test]
async fn an_event_whose_tag_or_branch_is_empty_starts_no_build() {
    let served = Served::new().await;
    let admin = served.admin();
    let pipeline = "jobs: { a: { when: { tag: '.*' }, run: echo } }";
    let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", pipeline)]);
    let empty = || Some(String::new());
    for (event, what) in [
        (EventWanted { tag: empty(), ..EventWanted::default() }, "tag"),
        (EventWanted { branch: empty(), ..EventWanted::default() }, "branch"),
        (EventWanted { base: empty(), ..EventWanted::default() }, "base"),
        (EventWanted { command: empty(), ..EventWanted::default() }, "command"),
    ] {
        let said = why(&admin, &Submit { event, ..submit(source) }).await;
        assert_eq!(said, format!("the event's {what} is empty"));
    }
    served.end().await;
}

#[tokio::test]
async fn a_pipeline_that_is_wrong_as_well_makes_a_build_that_tells_all_of_it() {
    let served = Served::new().await;
    let admin = served.admin();
    let wrong = ASKING.replace("run: echo", "needs: b\n    run: echo");
    let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", &wrong)]);
    let params = [("req", json!("x")), ("env", json!("stagin"))];
    let build = admin.build_submit(&by_hand(source, &params)).await.expect("it is taken").build;
    served.site.ended(build).await;
    let shown = admin.build_get(build).await.expect("it is there");
    assert_eq!(shown.verdict, VerdictWord::Failed);
    assert_eq!(json!(shown.event.params), json!({ "env": "stagin", "req": "x" }));
    let told = admin.build_diagnostics(build).await.expect("they are told").items;
    let codes: BTreeSet<String> = told.into_iter().map(|it| it.code).collect();
    assert_eq!(codes.into_iter().collect::<Vec<_>>(), ["bad-param", "unknown-need", "unused-param"]);
    served.end().await;
}

async fn send(client: &Client, content: &[u8]) -> Digest {
    let digest = store::blob::digest(content);
    let parcel = [&parcel_head(digest, content.len() as u64)[..], content].concat();
    client.blob_put_bytes(parcel.into()).await.expect("it is taken");
    digest
}

#[tokio::test]
async fn a_source_whose_contents_are_not_there_makes_no_build() {
    let served = Served::new().await;
    let admin = served.admin();
    let pipeline = File::Plain { digest: send(&admin, ONE.as_bytes()).await, bytes: ONE.len() as u64 };
    let (content, pack) = (&b"of a file"[..], &b"of git"[..]);
    let file = File::Program { digest: store::blob::digest(content), bytes: content.len() as u64 };
    let packs = vec![Pack { digest: store::blob::digest(pack), bytes: pack.len() as u64 }];
    let document = serde_json::to_vec(&History { packs, ..History::default() }).expect("JSON");
    let files = BTreeMap::from([(".ropewalk/pipeline.yaml".to_owned(), pipeline), ("sub/x".to_owned(), file)]);
    let history = Some(store::blob::digest(&document));
    let manifest = Manifest { version: VERSION, files, history, ..Manifest::default() };
    let source = send(&admin, &serde_json::to_vec(&manifest).expect("JSON")).await;
    assert_eq!(why(&admin, &submit(source)).await, "the content of `sub/x` is not on the server: send it again");
    send(&admin, content).await;
    assert_eq!(why(&admin, &submit(source)).await, "the history of git is not on the server: send it again");
    send(&admin, &document).await;
    assert_eq!(why(&admin, &submit(source)).await, "a pack of the history of git is not on the server: send it again");
    send(&admin, pack).await;
    admin.build_submit(&submit(source)).await.expect("all of it is there");
    served.end().await;
}

#[test]
fn a_repetition_by_a_token_that_may_do_less_is_judged_by_that_token() {
    run(async {
        let served = Served::new().await;
        let token = served.token(&[Verb::Submit, Verb::Read], None, None);
        let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", ONE)]);
        let body = serde_json::to_vec(&submit(source)).expect("JSON");
        let http = reqwest::Client::new();
        let post = async |token: &str| {
            let request = http.post(format!("{}/api/v1/builds", served.address)).bearer_auth(token).body(body.clone());
            let answer = request.header(IDEMPOTENCY_KEY, "k1").header("content-type", "application/json").send().await;
            answer.expect("an answer").status().as_u16()
        };
        assert_eq!([post(&token).await, post(&token).await], [201; 2]);
        let reading = Narrowing { verbs: [Verb::Read].into(), ..Narrowing::default() };
        let elsewhere = Narrowing { projects: ["other".to_owned()].into(), ..Narrowing::default() };
        for narrowing in [reading, elsewhere] {
            assert_eq!(post(&narrow(&token, &narrowing).expect("a weaker token")).await, 403, "{narrowing:?}");
        }
        assert_eq!(builds(&served.admin()).await, 1);
        served.end().await;
    });
}
