//! What tokens that their holders have narrowed let through where no project, or another build, is named.

use std::collections::BTreeSet;

use api::blob::{Digests, parcel_head};
use api::build::Retry;
use api::client::{Client, ClientError};
use api::job::GateAnswer;
use api::member::{Join, NewMember, Role};
use api::pool::Hold;
use api::problem::ProblemKind;
use api::shell::OpenShell;
use api::token::{Grant, HolderKind, Verb as WantedVerb};
use graph::{BuildId, Failure, Outcome, Timestamp};
use server::access::{Narrowing, Verb, narrow};

use super::site::Worker;
use super::{ONE, Served, asked, manifest, passed, refused, submit};

/// What became of sending a content, and of asking whether it is there.
async fn sent(client: &Client) -> [Option<ProblemKind>; 2] {
    let (content, digests) = (b"hello", Digests { digests: vec![store::blob::digest(b"hello")] });
    let parcel = [&parcel_head(digests.digests[0], content.len() as u64)[..], content].concat();
    [
        client.blob_put_bytes(parcel.into()).await.err().and_then(|error| refused(&error)),
        client.blob_missing(&digests).await.err().and_then(|error| refused(&error)),
    ]
}

#[tokio::test]
async fn only_who_may_ask_for_a_build_of_something_sends_contents() {
    let served = Served::new().await;
    let token = served.token(&[Verb::Read, Verb::Submit], None, None);
    let all = Narrowing::default;
    for (narrowing, expected) in [
        (all(), None),
        (Narrowing { projects: ["sails".to_owned()].into(), pools: ["p".to_owned()].into(), ..all() }, None),
        (Narrowing { verbs: [Verb::Read].into(), ..all() }, Some(ProblemKind::Forbidden)),
        (Narrowing { builds: [BuildId(1)].into(), ..all() }, Some(ProblemKind::Forbidden)),
    ] {
        let narrowed = narrow(&token, &narrowing).expect("narrowed");
        assert_eq!(sent(&served.client(&narrowed)).await, [expected; 2], "{narrowing:?}");
    }
    // Of a member the role on one project is enough.
    let admin = served.admin();
    let mut link = String::new();
    for (role, project) in [(Role::Reader, "masts"), (Role::Developer, "sails")] {
        let member = NewMember { name: "ann".to_owned(), role, project: Some(project.to_owned()) };
        link = admin.member_add(&member).await.unwrap().link;
    }
    let link = link.strip_prefix("/join?link=").unwrap().to_owned();
    let ann = admin.member_join(&Join { link }).await.unwrap().token;
    assert_eq!(sent(&served.client(&ann)).await, [None; 2]);
    let of_masts = narrow(&ann, &Narrowing { projects: ["masts".to_owned()].into(), ..all() }).expect("narrowed");
    assert_eq!(sent(&served.client(&of_masts)).await, [Some(ProblemKind::Forbidden); 2]);
    served.end().await;
}

#[tokio::test]
async fn a_build_is_built_anew_only_where_one_could_be_asked_for() {
    let served = Served::new().await;
    let admin = served.admin();
    let build = passed(&served, &admin).await;
    let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", ONE)]);
    let in_pool = api::build::Submit { pool: Some("p".to_owned()), ..submit(source) };
    let in_pool = admin.build_submit(&in_pool).await.unwrap().build;
    let token = served.token(&[Verb::Read, Verb::Control], None, None);
    let all = Narrowing::default;
    let of_pool = |name: &str| Narrowing { pools: [name.to_owned()].into(), ..all() };
    for (build, narrowing, expected) in [
        (build, all(), None),
        (build, Narrowing { projects: ["sails".to_owned()].into(), ..all() }, None),
        (build, Narrowing { builds: [build].into(), ..all() }, Some(ProblemKind::Forbidden)),
        (build, of_pool("default"), None),
        (build, of_pool("p"), Some(ProblemKind::Forbidden)),
        (in_pool, of_pool("p"), None),
        (in_pool, of_pool("default"), Some(ProblemKind::Forbidden)),
    ] {
        let client = served.client(&narrow(&token, &narrowing).expect("narrowed"));
        let rebuilt = client.build_rebuild(build, &Default::default()).await;
        assert_eq!(rebuilt.err().and_then(|error| refused(&error)), expected, "{build} by {narrowing:?}");
    }
    served.end().await;
}

#[tokio::test]
async fn what_is_built_anew_reaches_the_pools_of_whoever_asks() {
    let served = Served::new().await;
    let admin = served.admin();
    let build = asked(&served, &admin, "jobs:\n  hello:\n    pool: gpu\n    run: echo hello\n").await;
    let token = served.token(&[Verb::Read, Verb::Control], None, None);
    let of_default = Narrowing { pools: ["default".to_owned()].into(), ..Narrowing::default() };
    let token = narrow(&token, &of_default).expect("narrowed");
    let again = served.client(&token).build_rebuild(build, &Default::default()).await.unwrap().build;
    served.site.ended(again).await;
    let told = serde_json::to_string(&admin.build_diagnostics(again).await.unwrap().items).unwrap();
    assert!(told.contains("gpu"), "{told}");
    served.end().await;
}

#[tokio::test]
async fn nobody_gives_out_more_than_the_own_token_grants() {
    let served = Served::new().await;
    let token = served.token(&[Verb::Admin], None, None);
    let grant = |verb: WantedVerb| Grant {
        kind: HolderKind::Client,
        name: "ci".to_owned(),
        verbs: [verb].into(),
        projects: None,
        pools: None,
        expires: None,
    };
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    let narrowed = |narrowing: &Narrowing| served.client(&narrow(&token, narrowing).expect("narrowed"));
    served
        .admin()
        .member_add(&NewMember { name: "ann".to_owned(), role: Role::Administrator, project: None })
        .await
        .unwrap();
    let bob = NewMember { name: "bob".to_owned(), role: Role::Reader, project: None };

    let of_pool = narrowed(&Narrowing { pools: names(&["linux"]), ..Narrowing::default() });
    let read = grant(WantedVerb::Read);
    assert!(is_forbidden(&of_pool.token_create(&read).await));
    assert!(is_forbidden(
        &of_pool.token_create(&Grant { pools: Some(names(&["linux", "gpu"])), ..read.clone() }).await
    ));
    of_pool.token_create(&Grant { pools: Some(names(&["linux"])), ..read.clone() }).await.unwrap();
    // Whoever is a member may use every pool, and a link signs in as the member.
    assert!(is_forbidden(&of_pool.member_add(&bob).await));
    assert!(is_forbidden(&of_pool.member_link("ann").await));

    let of_admin = narrowed(&Narrowing { verbs: [Verb::Admin].into(), ..Narrowing::default() });
    assert!(is_forbidden(&of_admin.token_create(&read).await));
    assert!(is_forbidden(&of_admin.token_create(&grant(WantedVerb::Admin)).await), "it would bring all verbs");

    let end = Timestamp(super::site::now().0 + 3_600_000_000);
    let of_hour = narrowed(&Narrowing { until: Some(end), ..Narrowing::default() });
    let later = Timestamp(end.0 + 1).into();
    assert!(is_forbidden(&of_hour.token_create(&Grant { expires: Some(later), ..read.clone() }).await));
    let made = of_hour.token_create(&read).await.unwrap();
    assert_eq!(of_hour.token_get(&made.id).await.unwrap().grant.expires, Some(end.into()), "it ends with its giver");
    assert!(is_forbidden(&of_hour.member_add(&bob).await));

    // What is not narrowed gives all that it has: an administrator who signed in, too.
    let link = served.admin().member_link("ann").await.unwrap().link;
    let link = link.split_once('=').unwrap().1.to_owned();
    let ann = served.client(&served.client("").member_join(&Join { link }).await.unwrap().token);
    for verb in [WantedVerb::Read, WantedVerb::Work, WantedVerb::Admin] {
        let made = ann.token_create(&grant(verb)).await.unwrap();
        assert_eq!(ann.token_get(&made.id).await.unwrap().grant.expires, None);
    }
    served.end().await;
}

/// A job, one of another pool behind it, and one alone.
const TWO_POOLS: &str = "jobs:\n  a: { run: echo }\n  b: { pool: gpu, needs: a, run: echo }\n  c: { run: echo }\n";

/// Somebody whose token is limited to these pools; to none if none is named.
fn of_pools(served: &Served, pools: &[&str]) -> Client {
    let token = served.token(&[Verb::Read, Verb::Control, Verb::Shell], None, None);
    let pools = pools.iter().map(|&pool| pool.to_owned()).collect();
    served.client(&narrow(&token, &Narrowing { pools, ..Narrowing::default() }).expect("narrowed"))
}

/// Whether it was refused for what the token does not grant.
fn is_forbidden<T>(answer: &Result<T, ClientError>) -> bool {
    answer.as_ref().err().is_some_and(|error| refused(error) == Some(ProblemKind::Forbidden))
}

/// A build of which every job that runs on the worker has failed.
async fn failed(served: &Served, worker: &mut Worker, pipeline: &str, n_attempts: usize) -> BuildId {
    let build = asked(served, &served.admin(), pipeline).await;
    for _ in 0..n_attempts {
        let start = worker.start().await;
        let failure = Failure::Step { step: 0, exit: 1, message: None };
        worker.end(&served.site, &start.spec, Outcome::Failed(failure)).await;
    }
    served.site.ended(build).await;
    build
}

#[tokio::test]
async fn jobs_are_tried_again_only_by_who_may_use_the_pools_of_all_that_runs_then() {
    let served = Served::new().await;
    let mut worker = Worker::join(&served.site, "w1", []).await;
    let build = failed(&served, &mut worker, TWO_POOLS, 2).await;
    let all = || Retry::Failed { reason: String::new() };
    // `b` was skipped and would run too.
    for pools in [&["default"][..], &["gpu"]] {
        let client = of_pools(&served, pools);
        assert!(is_forbidden(&client.job_retry(build, "a", &Default::default()).await), "{pools:?}");
        assert!(is_forbidden(&client.build_retry(build, &all()).await), "{pools:?}");
    }
    let n_attempts = || served.site.server().store.attempts(build, None).unwrap().len();
    assert_eq!(n_attempts(), 2);
    assert_eq!(of_pools(&served, &["default"]).job_retry(build, "c", &Default::default()).await.unwrap().jobs, ["c"]);
    let start = worker.start().await;
    worker.finish(&served.site, &start.spec).await;
    served.site.ended(build).await;
    assert_eq!(of_pools(&served, &["", "gpu"]).build_retry(build, &all()).await.unwrap().jobs, ["a"]);
    served.end().await;
}

#[tokio::test]
async fn a_build_is_moved_up_only_by_who_may_use_the_pools_of_all_that_waits() {
    let served = Served::new().await;
    let build = asked(&served, &served.admin(), TWO_POOLS).await;
    for pools in [&["default"][..], &["gpu"]] {
        let urged = of_pools(&served, pools).build_urge(build, &Default::default()).await;
        assert!(is_forbidden(&urged), "{pools:?}");
    }
    assert!(of_pools(&served, &["default", "gpu"]).build_urge(build, &Default::default()).await.is_ok());
    let other = asked(&served, &served.admin(), "jobs: { a: { run: echo 2 } }").await;
    assert!(of_pools(&served, &["default"]).build_urge(other, &Default::default()).await.is_ok());
    served.end().await;
}

/// Waits until a gate is open.
async fn opened(client: &Client, build: BuildId) {
    while client.gate_list(build).await.unwrap().items.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_gate_is_answered_only_by_who_may_use_the_pools_of_what_it_holds_back() {
    let served = Served::new().await;
    let admin = served.admin();
    let gated =
        "jobs:\n  ask: { gate: { prompt: Go? } }\n  b: { pool: gpu, needs: ask, run: echo }\n  c: { run: echo }\n";
    let build = asked(&served, &admin, gated).await;
    opened(&admin, build).await;
    let yes = || GateAnswer::Approve { fields: Default::default(), reason: String::new() };
    let no = || GateAnswer::Reject { reason: String::new() };
    for answer in [yes(), no()] {
        assert!(is_forbidden(&of_pools(&served, &["default"]).gate_answer(build, "ask", &answer).await));
    }
    assert!(of_pools(&served, &["gpu"]).gate_answer(build, "ask", &yes()).await.is_ok());
    // What nobody knows yet may be of any pool, where the build may name any.
    for behind in [
        "  b: { needs: ask, run: [{ build: { file: .ropewalk/other.yaml } }] }\n",
        "  b: { needs: ask, outputs: [list], run: echo }\n  d: { matrix: { x: \"${{ fromJSON(needs.b.outputs.list) }}\" }, needs: b, run: echo }\n",
    ] {
        let gated = format!("jobs:\n  ask: {{ gate: {{ prompt: Go? }} }}\n{behind}");
        let build = asked(&served, &admin, &gated).await;
        opened(&admin, build).await;
        let error = of_pools(&served, &["default"]).gate_answer(build, "ask", &yes()).await.unwrap_err();
        assert!(error.to_string().contains("jobs that are not known yet"), "{error}");
        assert!(of_pools(&served, &[]).gate_answer(build, "ask", &yes()).await.is_ok());
        // Of a build that may use no other pool they are of that one.
        let token = served.token(&[Verb::Read, Verb::Submit], None, None);
        let of_default = Narrowing { pools: ["default".to_owned()].into(), ..Narrowing::default() };
        let ann = served.client(&narrow(&token, &of_default).expect("narrowed"));
        let build = asked(&served, &ann, &gated).await;
        opened(&admin, build).await;
        assert!(is_forbidden(&of_pools(&served, &["gpu"]).gate_answer(build, "ask", &yes()).await));
        assert!(of_pools(&served, &["default"]).gate_answer(build, "ask", &yes()).await.is_ok());
    }
    served.end().await;
}

#[tokio::test]
async fn the_pools_of_all_are_held_only_by_who_may_control_every_project() {
    let served = Served::new().await;
    let hold = Hold { reason: "repairs".to_owned() };
    let verbs = [Verb::Read, Verb::Submit, Verb::Control];
    let bob = served.client(&served.token(&verbs, Some("beta"), None));
    assert!(is_forbidden(&bob.pool_hold("default", &hold).await));
    assert!(bob.pool_get("default").await.unwrap().held.is_none());
    let ann = served.client(&served.token(&verbs, None, None));
    assert!(ann.pool_hold("default", &hold).await.unwrap().held.is_some());
    assert!(is_forbidden(&bob.pool_release("default", &hold).await));
    assert!(ann.pool_release("default", &hold).await.unwrap().held.is_none());
    served.end().await;
}

#[tokio::test]
async fn the_source_of_a_build_is_told_to_whoever_may_submit_builds_of_its_project() {
    let served = Served::new().await;
    let admin = served.admin();
    let build = passed(&served, &admin).await;
    let source = admin.build_get(build).await.unwrap().source;
    assert!(source.is_some());
    for (verbs, expected) in
        [(&[Verb::Read][..], None), (&[Verb::Read, Verb::Control], None), (&[Verb::Read, Verb::Submit], source)]
    {
        let client = served.client(&served.token(verbs, None, None));
        assert_eq!(client.build_get(build).await.unwrap().source, expected, "{verbs:?}");
        let listed = client.build_list(&Default::default(), &Default::default()).await.unwrap().items;
        assert!(listed.iter().any(|row| row.id == build) && listed.iter().all(|row| row.source.is_none()));
    }
    served.end().await;
}

#[tokio::test]
async fn a_shell_is_opened_only_by_who_may_use_the_pool_of_its_job() {
    let served = Served::new().await;
    let mut worker = Worker::join(&served.site, "w1", []).await;
    let build = failed(&served, &mut worker, ONE, 1).await;
    // Nobody is there who could open it.
    drop(worker);
    served.site.server().dispatch.end_all();
    let open = async |pools: &[&str]| of_pools(&served, pools).shell_open(build, "hello", &OpenShell::default()).await;
    assert!(is_forbidden(&open(&["gpu"]).await));
    let error = open(&["default"]).await.err().unwrap();
    assert_eq!(refused(&error), Some(ProblemKind::Conflict), "{error}");
    served.end().await;
}

#[tokio::test]
async fn a_list_of_builds_of_a_project_that_may_not_be_read_is_refused() {
    let served = Served::new().await;
    let admin = served.admin();
    let build = passed(&served, &admin).await;
    let token = served.token(&[Verb::Read], None, None);
    let all = Narrowing::default;
    for (narrowing, project, expected) in [
        (all(), "sails", Ok(1)),
        (all(), "masts", Ok(0)),
        (Narrowing { projects: ["masts".to_owned()].into(), ..all() }, "masts", Ok(0)),
        (Narrowing { projects: ["masts".to_owned()].into(), ..all() }, "sails", Err(Some(ProblemKind::Forbidden))),
        (Narrowing { builds: [build].into(), ..all() }, "sails", Ok(1)),
    ] {
        let client = served.client(&narrow(&token, &narrowing).expect("narrowed"));
        let filter = api::build::BuildFilter { project: Some(project.to_owned()), ..Default::default() };
        let listed = client.build_list(&filter, &Default::default()).await;
        let listed = listed.map(|page| page.items.len()).map_err(|error| refused(&error));
        assert_eq!(listed, expected, "{project} by {narrowing:?}");
    }
    served.end().await;
}
