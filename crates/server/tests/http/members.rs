//! Members: what each role may do, links that are good once, and sessions that end at once.

use api::client::{AuditWanted, Client, PageWanted};
use api::job::GateAnswer;
use api::member::{Join, NewMember, NewRole, Role, Taken};
use api::problem::ProblemKind;
use api::project::ProjectSettings;
use api::token::{Narrow, Verb as ApiVerb};
use graph::BuildId;
use server::access::Verb;

use super::pages::Browser;
use super::{GATED, ONE, Served, asked, passed, refused};

/// What a link holds.
fn held(link: &str) -> Join {
    Join { link: link.strip_prefix("/join?link=").expect("a link").to_owned() }
}

fn member(name: &str, role: Role, project: Option<&str>) -> NewMember {
    NewMember { name: name.to_owned(), role, project: project.map(str::to_owned) }
}

/// Adds a member and signs them in.
async fn joined(served: &Served, by: &Client, name: &str, role: Role, project: Option<&str>) -> Client {
    let made = by.member_add(&member(name, role, project)).await.unwrap();
    let token = by.member_join(&held(&made.link)).await.unwrap().token;
    served.client(&token)
}

/// What a client may do to build 1 of `sails`, and to the server: look, control, administer the project, administer all.
async fn may(client: &Client) -> [bool; 4] {
    let settings = ProjectSettings::default();
    [
        client.build_get(BuildId(1)).await.is_ok(),
        client.build_rebuild(BuildId(1), &Default::default()).await.is_ok(),
        client.project_put("sails", &settings).await.is_ok(),
        client.token_list(&PageWanted::default()).await.is_ok(),
    ]
}

#[tokio::test]
async fn roles_let_through_what_the_table_says_and_change_at_once() {
    let served = Served::new().await;
    let admin = served.admin();
    passed(&served, &admin).await;
    for (role, project, expected) in [
        (Role::Reader, None, [true, false, false, false]),
        (Role::Developer, None, [true, true, false, false]),
        (Role::Administrator, None, [true, true, true, true]),
        (Role::Reader, Some("sails"), [true, false, false, false]),
        (Role::Developer, Some("sails"), [true, true, false, false]),
        (Role::Administrator, Some("sails"), [true, true, true, false]),
        (Role::Administrator, Some("masts"), [false, false, false, false]),
    ] {
        let name = format!("{} of {}", role.name(), project.unwrap_or("all"));
        let client = joined(&served, &admin, &name, role, project).await;
        assert_eq!(may(&client).await, expected, "{name}");
        let whoami = client.whoami().await.unwrap();
        assert_eq!((whoami.grant.name, whoami.grant.projects.is_none()), (name, project.is_none()));
    }
    // Another role counts in every session from the next request on, also in what was narrowed from one.
    let first = joined(&served, &admin, "ann", Role::Developer, Some("sails")).await;
    let link = admin.member_link("ann").await.unwrap().link;
    let second = served.client(&admin.member_join(&held(&link)).await.unwrap().token);
    let narrow = Narrow { verbs: [ApiVerb::Control, ApiVerb::Admin].into(), ..Narrow::default() };
    let narrowed = served.client(&second.token_narrow(&narrow).await.unwrap().token);
    assert_eq!(may(&narrowed).await, [false, true, false, false]);
    let to = |role| NewRole { role, project: Some("sails".to_owned()) };
    for (role, expected) in [
        (Role::Reader, [true, false, false, false]),
        (Role::Administrator, [true, true, true, false]),
        (Role::Developer, [true, true, false, false]),
    ] {
        admin.member_role("ann", &to(role)).await.unwrap();
        assert_eq!(may(&first).await, expected, "{role:?}");
        assert_eq!(may(&second).await, expected, "{role:?}");
    }
    admin.member_role("ann", &to(Role::Reader)).await.unwrap();
    assert_eq!(may(&narrowed).await, [false; 4]);
    served.end().await;
}

#[tokio::test]
async fn a_link_signs_in_once_and_who_is_removed_is_out_everywhere() {
    let served = Served::new().await;
    let admin = served.admin();
    passed(&served, &admin).await;
    let made = admin.member_add(&member("ann", Role::Reader, None)).await.unwrap();
    // A later link takes the place of one that was not used.
    let later = admin.member_link("ann").await.unwrap();
    let error = admin.member_join(&held(&made.link)).await.unwrap_err();
    assert_eq!(refused(&error), Some(ProblemKind::Forbidden));
    let first = served.client(&admin.member_join(&held(&later.link)).await.unwrap().token);
    let error = admin.member_join(&held(&later.link)).await.unwrap_err();
    assert_eq!(refused(&error), Some(ProblemKind::Forbidden));
    for link in ["", "x", "616e6e.", "616e6e.00", "zz.00", "616e.00"] {
        assert!(admin.member_join(&Join { link: link.to_owned() }).await.is_err(), "{link}");
    }
    // Nothing of a link but its digest is kept.
    let store = &served.site.server().store;
    let record = store.record("member", "ann").unwrap().unwrap();
    let secret = held(&later.link).link.split_once('.').unwrap().1.to_owned();
    assert!(!String::from_utf8(record.body).unwrap().contains(&secret));
    let link = admin.member_link("ann").await.unwrap().link;
    let second = served.client(&admin.member_join(&held(&link)).await.unwrap().token);
    assert_eq!(admin.member_list(None, &PageWanted::default()).await.unwrap().items[0].sessions, 2);
    // One session is revoked as any token is; the other goes on.
    admin.token_revoke(&first.whoami().await.unwrap().token).await.unwrap();
    assert!(first.whoami().await.is_err() && second.whoami().await.is_ok());
    let open = admin.member_link("ann").await.unwrap().link;
    admin.member_remove("ann", Taken::All).await.unwrap();
    assert!(second.whoami().await.is_err() && second.build_get(BuildId(1)).await.is_err());
    assert!(admin.member_join(&held(&open)).await.is_err());
    assert_eq!(refused(&admin.member_remove("ann", Taken::All).await.unwrap_err()), Some(ProblemKind::NotFound));
    // Another of the same name does not bring the old sessions back.
    let third = joined(&served, &admin, "ann", Role::Reader, None).await;
    assert!(third.whoami().await.is_ok() && second.whoami().await.is_err());
    let audit = admin.audit_list(&AuditWanted::default(), &PageWanted::default()).await.unwrap();
    let said: Vec<(&str, &str)> =
        audit.items.iter().map(|entry| (entry.verb.as_str(), entry.who.as_str())).take(4).collect();
    assert_eq!(said, [("member_join", "ann"), ("member_add", "ada"), ("member_remove", "ada"), ("member_link", "ada")]);
    served.end().await;
}

#[tokio::test]
async fn nobody_gives_more_than_they_hold() {
    let served = Served::new().await;
    let admin = served.admin();
    passed(&served, &admin).await;
    let of_sails = joined(&served, &admin, "captain", Role::Administrator, Some("sails")).await;
    let developer = joined(&served, &admin, "ann", Role::Developer, None).await;
    let forbidden = |error: api::client::ClientError| assert_eq!(refused(&error), Some(ProblemKind::Forbidden));
    // Only administrators, only of what they administer, and not by a token that holds less.
    forbidden(developer.member_add(&member("b", Role::Reader, Some("sails"))).await.unwrap_err());
    forbidden(developer.member_list(None, &PageWanted::default()).await.unwrap_err());
    for project in [None, Some("masts")] {
        forbidden(of_sails.member_add(&member("b", Role::Reader, project)).await.unwrap_err());
        let role = NewRole { role: Role::Reader, project: project.map(str::to_owned) };
        forbidden(of_sails.member_role("ann", &role).await.unwrap_err());
    }
    let narrow = Narrow { verbs: [ApiVerb::Admin].into(), ..Narrow::default() };
    let narrowed = served.client(&of_sails.token_narrow(&narrow).await.unwrap().token);
    forbidden(narrowed.member_add(&member("b", Role::Reader, Some("sails"))).await.unwrap_err());
    // Whoever may sign in as somebody could do all that these may: so the whole member has to be the caller's.
    let conflict = |error: api::client::ClientError| assert_eq!(refused(&error), Some(ProblemKind::Conflict));
    conflict(of_sails.member_add(&member("ann", Role::Reader, Some("sails"))).await.unwrap_err());
    conflict(of_sails.member_link("ann").await.unwrap_err());
    conflict(of_sails.member_remove("ann", Taken::All).await.unwrap_err());
    assert!(developer.whoami().await.is_ok());
    // Their own are.
    let sailor = joined(&served, &of_sails, "sailor", Role::Developer, Some("sails")).await;
    let listed = of_sails.member_list(None, &PageWanted::default()).await.unwrap().items;
    assert_eq!(listed.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["captain", "sailor"]);
    conflict(of_sails.member_add(&member("sailor", Role::Reader, Some("sails"))).await.unwrap_err());
    // A role elsewhere comes from who administers both, and then the captain signs nobody in as the sailor. The captain knew the first link: what it signed
    // in is out.
    let link = admin.member_add(&member("sailor", Role::Reader, Some("masts"))).await.unwrap().link;
    assert!(sailor.whoami().await.is_err() && sailor.build_get(BuildId(1)).await.is_err());
    assert_eq!(admin.member_list(Some("masts"), &PageWanted::default()).await.unwrap().items[0].sessions, 0);
    let sailor = served.client(&admin.member_join(&held(&link)).await.unwrap().token);
    assert!(sailor.build_get(BuildId(1)).await.is_ok());
    conflict(of_sails.member_link("sailor").await.unwrap_err());
    of_sails.member_remove("sailor", Taken::Project("sails")).await.unwrap();
    assert!(sailor.whoami().await.is_ok() && sailor.build_get(BuildId(1)).await.is_err());
    admin.member_remove("sailor", Taken::Project("masts")).await.unwrap();
    assert!(sailor.whoami().await.is_err());
    for name in ["", " ann", "ann ", "..", "a\nb", &"a".repeat(101)] {
        let error = admin.member_add(&member(name, Role::Reader, None)).await.unwrap_err();
        assert_eq!(refused(&error), Some(ProblemKind::Unprocessable), "{name:?}");
    }
    served.end().await;
}

#[tokio::test]
async fn the_role_on_every_project_is_taken_alone() {
    let served = Served::new().await;
    let admin = served.admin();
    passed(&served, &admin).await;
    let of_sails = joined(&served, &admin, "captain", Role::Administrator, Some("sails")).await;
    admin.member_add(&member("ann", Role::Administrator, None)).await.unwrap();
    let link = admin.member_add(&member("ann", Role::Reader, Some("sails"))).await.unwrap().link;
    let ann = served.client(&admin.member_join(&held(&link)).await.unwrap().token);
    assert_eq!(may(&ann).await, [true; 4]);
    // Only who administers the server takes it, and there is one to take.
    let error = of_sails.member_remove("ann", Taken::Everywhere).await.unwrap_err();
    assert_eq!(refused(&error), Some(ProblemKind::Forbidden));
    let error = admin.member_remove("captain", Taken::Everywhere).await.unwrap_err();
    assert_eq!(refused(&error), Some(ProblemKind::NotFound));
    admin.member_remove("ann", Taken::Everywhere).await.unwrap();
    assert_eq!(may(&ann).await, [true, false, false, false]);
    let audit = admin.audit_list(&AuditWanted::default(), &PageWanted::default()).await.unwrap();
    assert_eq!((audit.items[0].verb.as_str(), audit.items[0].detail.as_str()), ("member_remove", "from every project"));
    // With the last role the member goes.
    let eve = joined(&served, &admin, "eve", Role::Reader, None).await;
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    let page = browser.get("/settings/members").await.text;
    assert!(page.contains("Take away the role of eve on every project"), "{page}");
    let page = browser.post("/settings/members/eve/remove", "everywhere=true&role=reader", "same-origin").await;
    assert_eq!((page.status, page.to.as_str()), (303, "/settings/members"));
    assert!(eve.whoami().await.is_err() && ann.whoami().await.is_ok());
    let both = format!("{}/api/v1/members/ann?everywhere=true&project=sails", served.address);
    let token = served.token(&[Verb::Admin], None, None);
    let status = reqwest::Client::new().delete(both).bearer_auth(token).send().await.unwrap().status();
    assert_eq!(status.as_u16(), 400);
    assert!(ann.whoami().await.is_ok());
    served.end().await;
}

#[tokio::test]
async fn who_signs_out_ends_their_session_and_no_other_token() {
    let served = Served::new().await;
    let admin = served.admin();
    let other = joined(&served, &admin, "ann", Role::Developer, None).await;
    let link = held(&admin.member_link("ann").await.unwrap().link).link;
    let page = Browser::new(&served, "").post("/join", &format!("link={link}"), "same-origin").await;
    let token = page.cookie.strip_prefix("ropewalk=").unwrap().split(';').next().unwrap().to_owned();
    let ann = served.client(&token);
    let id = ann.whoami().await.unwrap().token;
    let sign_out = async |token: &str| {
        let page = Browser::new(&served, token).post("/sign-out", "", "same-origin").await;
        assert_eq!((page.status, page.to.as_str()), (303, "/sign-in"), "{}", page.text);
        assert!(page.cookie.starts_with("ropewalk=; ") && page.cookie.contains("Max-Age=0"), "{}", page.cookie);
    };
    // A token that was made goes on, also one that was made from the session.
    let made = served.token(&[Verb::Read], None, None);
    let narrow = Narrow { verbs: [ApiVerb::Read].into(), ..Narrow::default() };
    let narrowed = ann.token_narrow(&narrow).await.unwrap().token;
    for token in [&made, &narrowed] {
        sign_out(token).await;
        assert!(served.client(token).whoami().await.is_ok());
    }
    assert!(ann.whoami().await.is_ok());
    // Not from another site.
    Browser::new(&served, &token).post("/sign-out", "", "cross-site").await;
    assert!(ann.whoami().await.is_ok());
    sign_out(&token).await;
    for ended in [&token, &narrowed] {
        let error = served.client(ended).whoami().await.unwrap_err();
        assert_eq!(refused(&error), Some(ProblemKind::Unauthorized));
    }
    assert!(other.whoami().await.is_ok());
    assert_eq!(admin.member_list(None, &PageWanted::default()).await.unwrap().items[0].sessions, 1);
    let audit = admin.audit_list(&AuditWanted::default(), &PageWanted::default()).await.unwrap();
    let entry = &audit.items[0];
    assert_eq!(
        (entry.verb.as_str(), entry.who.as_str(), &entry.detail),
        ("member_leave", "ann", &format!("token {id}"))
    );
    // What has ended is signed out of as well.
    for ended in [&*token, "nonsense", ""] {
        sign_out(ended).await;
    }
    served.end().await;
}

#[tokio::test]
async fn members_sign_in_from_a_page_and_are_named_where_they_act() {
    let served = Served::new().await;
    let admin = served.admin();
    let browser = Browser::new(&served, &served.token(&[Verb::Admin], None, None));
    let build = asked(&served, &admin, GATED).await;
    // From another site nothing is added; from the page it is, without scripts.
    let form = "name=Ann+%3Cb%3E&role=developer";
    assert_ne!(browser.post("/settings/members", form, "cross-site").await.status, 200);
    assert_eq!(admin.member_list(None, &PageWanted::default()).await.unwrap().items, []);
    let page = browser.post("/settings/members", form, "same-origin").await;
    assert!(page.status == 200 && page.text.contains("Ann &lt;b&gt;") && page.encoding.is_empty(), "{}", page.text);
    let link = page.text.split_once("/join?link=").unwrap().1.split('<').next().unwrap().to_owned();
    let listed = browser.get("/settings/members").await;
    assert!(listed.text.contains("Ann &lt;b&gt;") && !listed.text.contains("<b>"), "{}", listed.text);
    // Looking at the link takes nothing away; another site cannot sign anybody in.
    let nobody = Browser::new(&served, "");
    assert_eq!(nobody.get(&format!("/join?link={link}")).await.status, 200);
    assert_ne!(nobody.post("/join", &format!("link={link}"), "cross-site").await.status, 303);
    let page = nobody.post("/join", &format!("link={link}"), "same-origin").await;
    assert_eq!((page.status, page.to.as_str()), (303, "/"), "{}", page.text);
    assert!(page.cookie.contains("; HttpOnly; SameSite=Lax"), "{}", page.cookie);
    assert_eq!(nobody.post("/join", &format!("link={link}"), "same-origin").await.status, 403);
    let token = page.cookie.strip_prefix("ropewalk=").unwrap().split(';').next().unwrap().to_owned();
    let ann = Browser::new(&served, &token);
    let page = ann.get("/settings").await;
    assert!(page.text.contains("Ann &lt;b&gt;"), "{}", page.text);
    assert!(ann.get("/settings/members").await.text.contains("Yours does not"));
    // At a gate, with a build and in the audit stands the name.
    let gate = loop {
        let gates = admin.gate_list(build).await.unwrap().items;
        if let Some(gate) = gates.into_iter().next() {
            break gate.job;
        }
        tokio::task::yield_now().await;
    };
    let answer = GateAnswer::Approve { fields: [("note".to_owned(), "x".into())].into(), reason: String::new() };
    served.client(&token).gate_answer(build, &gate, &answer).await.unwrap();
    assert_eq!(admin.gate_list(build).await.unwrap().items[0].answered.as_ref().unwrap().by, "Ann <b>");
    let audit = admin.audit_list(&AuditWanted::default(), &PageWanted::default()).await.unwrap();
    assert_eq!((audit.items[0].verb.as_str(), audit.items[0].who.as_str()), ("gate_answer", "Ann <b>"));
    let own = asked(&served, &served.client(&token), ONE).await;
    assert_eq!(admin.build_get(own).await.unwrap().client, "Ann <b>");
    // A role is changed and a member removed from the project's page too.
    let form = "name=bob&role=reader&project=masts";
    assert_eq!(browser.post("/projects/sails/members", form, "same-origin").await.status, 200);
    let page = browser.post("/projects/sails/members/bob/role", "role=developer&project=sails", "same-origin").await;
    assert_eq!((page.status, page.to.as_str()), (303, "/projects/sails/settings"));
    let listed = admin.member_list(Some("sails"), &PageWanted::default()).await.unwrap().items;
    assert_eq!(
        listed.iter().map(|it| (it.name.as_str(), it.projects["sails"])).collect::<Vec<_>>(),
        [("bob", Role::Developer)]
    );
    assert_eq!(browser.post("/projects/sails/members/bob/remove", "", "same-origin").await.status, 303);
    // A project that is forgotten leaves no role behind.
    admin.member_add(&member("eve", Role::Reader, Some("sails"))).await.unwrap();
    admin.project_delete("sails").await.unwrap();
    assert_eq!(admin.member_list(Some("sails"), &PageWanted::default()).await.unwrap().items, []);
    served.end().await;
}

#[tokio::test]
async fn a_role_that_is_elsewhere_is_named_to_whoever_may_know_of_it() {
    let served = Served::new().await;
    let admin = served.admin();
    for project in ["sails", "masts"] {
        admin.member_add(&member("bob", Role::Reader, Some(project))).await.unwrap();
    }
    let on = |project: Option<&str>| NewRole { role: Role::Developer, project: project.map(str::to_owned) };
    let told = |error: api::client::ClientError| error.problem().expect("the server refused").clone();
    let refusal = told(admin.member_role("bob", &on(None)).await.unwrap_err());
    assert_eq!(refusal.detail, "the member `bob` has no role on every project, but on masts, sails");
    assert!(refusal.help.contains("`--project masts`"));
    let refusal = told(admin.member_remove("bob", Taken::Project("ropes")).await.unwrap_err());
    assert_eq!(refusal.detail, "the member `bob` has no role on ropes, but on masts, sails");
    let of_ropes = joined(&served, &admin, "cy", Role::Administrator, Some("ropes")).await;
    let refusal = told(of_ropes.member_role("bob", &on(Some("ropes"))).await.unwrap_err());
    assert_eq!(
        refusal.detail,
        told(admin.member_role("bo", &on(None)).await.unwrap_err()).detail.replace("bo`", "bob`")
    );
    served.end().await;
}
