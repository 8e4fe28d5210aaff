//! What tokens that their holders have narrowed let through where no project, or another build, is named.

use api::blob::{Digests, parcel_head};
use api::client::Client;
use api::member::{Join, NewMember, Role};
use api::problem::ProblemKind;
use graph::BuildId;
use server::access::{Narrowing, Verb, narrow};

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
