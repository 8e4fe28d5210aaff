//! What tokens let through and what not: every row is a request that a holder might send.

use std::sync::Arc;
use std::time::Duration;

use graph::{BuildId, Timestamp};
use store::MemoryStore;

use super::*;

const NOW: Timestamp = Timestamp(1_000_000);

struct Office {
    access: Access,
    _folder: tempfile::TempDir,
}

fn office() -> Office {
    let folder = tempfile::tempdir().expect("a folder");
    let root = RootKey::of(folder.path()).expect("a key");
    Office { access: Access::new(root, Arc::new(StoreLedger(Arc::new(MemoryStore::new())))), _folder: folder }
}

fn grant(verbs: &[Verb]) -> GrantRequest {
    GrantRequest {
        subject: Subject { kind: SubjectKind::Client, name: "ann".to_owned() },
        verbs: verbs.iter().copied().collect(),
        projects: None,
        pools: None,
        until: None,
    }
}

fn names(names: &[&str]) -> std::collections::BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

impl Office {
    fn token(&self, grant: GrantRequest) -> String {
        self.access.create("t1", grant, "test", NOW).expect("a token")
    }

    #[track_caller]
    fn check(&self, token: &str, allowed: &[(Verb, Target<'_>)], denied: &[(Verb, Target<'_>)]) {
        // What was remembered of the first time is answered the second time.
        for _ in 0..2 {
            let bearer = self.access.admit(token).expect("admitted");
            for (verb, target) in allowed {
                bearer.may(*verb, target, NOW).unwrap_or_else(|error| panic!("{error}"));
            }
            for (verb, target) in denied {
                let error = bearer.may(*verb, target, NOW).expect_err(&format!("{verb} on {target} is let through"));
                assert!(matches!(error, Denied::Forbidden { .. }), "{error}");
            }
        }
    }
}

#[test]
fn a_token_grants_its_verbs_and_no_others() {
    let office = office();
    let token = office.token(grant(&[Verb::Read, Verb::Submit]));
    office.check(
        &token,
        &[(Verb::Read, Target::SERVER), (Verb::Read, Target::project("a")), (Verb::Submit, Target::project("a"))],
        &[(Verb::Control, Target::project("a")), (Verb::Admin, Target::SERVER), (Verb::Work, Target::pool("p"))],
    );
}

#[test]
fn admin_brings_every_verb() {
    let office = office();
    let token = office.token(grant(&[Verb::Admin]));
    let all: Vec<_> = Verb::ALL.into_iter().map(|verb| (verb, Target::build("a", BuildId(7)))).collect();
    office.check(&token, &all, &[]);
}

#[test]
fn a_grant_on_projects_and_pools_covers_nothing_else() {
    let office = office();
    let limited =
        GrantRequest { projects: Some(names(&["a", "b"])), pools: Some(names(&["p"])), ..grant(&[Verb::Submit]) };
    let token = office.token(limited);
    let both = |project, pool| Target { project: Some(project), pool: Some(pool), build: None };
    office.check(
        &token,
        &[(Verb::Submit, both("a", "p")), (Verb::Submit, Target::project("b")), (Verb::Submit, Target::pool("p"))],
        &[
            (Verb::Submit, both("c", "p")),
            (Verb::Submit, both("a", "q")),
            (Verb::Submit, Target::pool("")),
            (Verb::Submit, Target::SERVER),
        ],
    );
}

#[test]
fn a_grant_on_projects_looks_at_pools_and_changes_none() {
    let office = office();
    let pool = |verb| (verb, Target::pool("default"));
    let changes = [Verb::Control, Verb::Admin, Verb::Work].map(pool);
    let all = [Verb::Read, Verb::Control, Verb::Admin, Verb::Work];
    let token = office.token(GrantRequest { projects: Some(names(&["beta"])), ..grant(&all) });
    office.check(&token, &[pool(Verb::Read)], &changes);
    let of_build = Target { project: Some("beta"), pool: Some("default"), build: Some(BuildId(7)) };
    office.check(&token, &[(Verb::Control, of_build)], &[]);
    // As long as it is for every project, a token for the pool alone does.
    let token = office.token(GrantRequest { pools: Some(names(&["default"])), ..grant(&all) });
    office.check(&token, &changes, &[(Verb::Control, Target::pool("p"))]);
    let narrowed = narrow(&token, &Narrowing { projects: names(&["beta"]), ..Narrowing::default() });
    office.check(&narrowed.expect("narrowed"), &[pool(Verb::Read)], &changes);
    let narrowed = narrow(&token, &Narrowing { builds: [BuildId(7)].into(), ..Narrowing::default() });
    office.check(&narrowed.expect("narrowed"), &[], &[pool(Verb::Read)]);
}

#[test]
fn whoever_holds_a_token_narrows_it_and_never_widens_it() {
    let office = office();
    let token = office.token(grant(&[Verb::Read, Verb::Control]));
    let narrowing = Narrowing {
        verbs: [Verb::Read, Verb::Admin].into(),
        projects: names(&["a"]),
        builds: [BuildId(7)].into(),
        ..Narrowing::default()
    };
    let narrowed = narrow(&token, &narrowing).expect("narrowed");
    office.check(
        &narrowed,
        &[(Verb::Read, Target::build("a", BuildId(7)))],
        &[
            (Verb::Read, Target::build("a", BuildId(8))),
            (Verb::Read, Target::build("b", BuildId(7))),
            (Verb::Read, Target::project("a")),
            (Verb::Read, Target::SERVER),
            (Verb::Control, Target::build("a", BuildId(7))),
            (Verb::Admin, Target::build("a", BuildId(7))),
        ],
    );
    let wider = Narrowing { projects: names(&["a", "b"]), ..Narrowing::default() };
    let twice = narrow(&narrowed, &wider).expect("narrowed again");
    office.check(
        &twice,
        &[(Verb::Read, Target::build("a", BuildId(7)))],
        &[(Verb::Read, Target::build("b", BuildId(7)))],
    );
}

#[test]
fn a_token_says_whether_it_grants_a_verb_on_anything() {
    let office = office();
    let all = Narrowing::default;
    let limited =
        GrantRequest { projects: Some(names(&["a", "b"])), pools: Some(names(&["", "p"])), ..grant(&[Verb::Submit]) };
    for (granted, narrowings, expected) in [
        (grant(&[Verb::Submit]), vec![], true),
        (grant(&[Verb::Admin]), vec![], true),
        (grant(&[Verb::Read]), vec![], false),
        (limited.clone(), vec![], true),
        (grant(&[Verb::Submit]), vec![Narrowing { verbs: [Verb::Read].into(), ..all() }], false),
        (grant(&[Verb::Submit]), vec![Narrowing { builds: [BuildId(7)].into(), ..all() }], false),
        (grant(&[Verb::Submit]), vec![Narrowing { until: Some(Timestamp(NOW.0 - 1)), ..all() }], false),
        (grant(&[Verb::Submit]), vec![Narrowing { projects: names(&["a", "c"]), ..all() }], true),
        (limited.clone(), vec![Narrowing { projects: names(&["c", "b"]), pools: names(&["default"]), ..all() }], true),
        (limited.clone(), vec![Narrowing { projects: names(&["c"]), ..all() }], false),
        (limited, vec![Narrowing { pools: names(&["q"]), ..all() }], false),
        (grant(&[Verb::Submit]), [["a"], ["b"]].map(|it| Narrowing { projects: names(&it), ..all() }).to_vec(), false),
    ] {
        let token = office.token(granted);
        let token = narrowings.iter().fold(token, |token, narrowing| narrow(&token, narrowing).expect("narrowed"));
        let bearer = office.access.admit(&token).expect("admitted");
        let granted = bearer.may_somewhere(Verb::Submit, NOW);
        assert_eq!(granted.is_ok(), expected, "{narrowings:?}");
        assert!(granted.is_ok() || matches!(granted, Err(Denied::Forbidden { .. })));
    }
}

#[test]
fn the_default_pool_is_one_whatever_name_a_token_has_for_it() {
    let office = office();
    for (granted, narrowed) in [("", "default"), ("default", "")] {
        let token = office.token(GrantRequest { pools: Some(names(&[granted])), ..grant(&[Verb::Submit]) });
        let narrowed = narrow(&token, &Narrowing { pools: names(&[narrowed]), ..Narrowing::default() });
        for token in [token, narrowed.expect("narrowed")] {
            let pool = |pool| (Verb::Submit, Target::pool(pool));
            office.check(&token, &[pool(""), pool("default")], &[pool("p")]);
        }
    }
    // Whoever has it not has it by neither name.
    let other = office.token(GrantRequest { pools: Some(names(&["p"])), ..grant(&[Verb::Submit]) });
    office.check(
        &other,
        &[(Verb::Submit, Target::pool("p"))],
        &["", "default"].map(|it| (Verb::Submit, Target::pool(it))),
    );
}

#[test]
fn a_pool_narrows_what_is_about_pools() {
    let office = office();
    let token = office.token(grant(&[Verb::Read, Verb::Submit]));
    let narrowed = narrow(&token, &Narrowing { pools: names(&["p"]), ..Narrowing::default() }).expect("narrowed");
    office.check(
        &narrowed,
        &[(Verb::Read, Target::project("a")), (Verb::Submit, Target::pool("p"))],
        &[(Verb::Submit, Target::pool("q"))],
    );
}

#[test]
fn time_ends_a_token() {
    let office = office();
    let token = office.token(GrantRequest { until: Some(Timestamp(NOW.0 + 10)), ..grant(&[Verb::Read]) });
    let bearer = office.access.admit(&token).expect("admitted");
    assert!(bearer.may(Verb::Read, &Target::SERVER, Timestamp(NOW.0 + 10)).is_ok());
    assert!(bearer.may(Verb::Read, &Target::SERVER, Timestamp(NOW.0 + 11)).is_err());
    assert!(!bearer.has_ended(Timestamp(NOW.0 + 10)) && bearer.has_ended(Timestamp(NOW.0 + 11)));
    let narrowed = narrow(&token, &Narrowing { until: Some(NOW), ..Narrowing::default() }).expect("narrowed");
    let bearer = office.access.admit(&narrowed).expect("admitted");
    assert!(bearer.may(Verb::Read, &Target::SERVER, Timestamp(NOW.0 + 1)).is_err());
    assert!(!bearer.has_ended(NOW) && bearer.has_ended(Timestamp(NOW.0 + 1)));
}

#[test]
fn a_revoked_token_and_all_that_came_of_it_are_refused() {
    let office = office();
    let token = office.token(grant(&[Verb::Read]));
    let narrowed = narrow(&token, &Narrowing { projects: names(&["a"]), ..Narrowing::default() }).expect("narrowed");
    // Once they were let in they are remembered; whether they hold is asked each time.
    assert!([&token, &narrowed].into_iter().all(|text| office.access.admit(text).is_ok()));
    assert!(office.access.revoke("t1", "root", NOW).expect("revoked"));
    for text in [&token, &narrowed] {
        assert!(matches!(office.access.admit(text), Err(Denied::Revoked)));
    }
    assert!(!office.access.revoke("t2", "root", NOW).expect("asked"));
}

#[test]
fn one_narrowing_can_be_revoked_alone() {
    let office = office();
    let token = office.token(grant(&[Verb::Read]));
    let narrow_to = |text: &str, project| {
        narrow(text, &Narrowing { projects: names(&[project]), ..Narrowing::default() }).expect("narrowed")
    };
    let (lost, kept) = (narrow_to(&token, "a"), narrow_to(&token, "a"));
    let revocation = inspect(&lost).expect("inspected").revocation;
    assert!(office.access.admit(&lost).is_ok());
    office.access.ledger().revoke_narrowing(revocation.last().expect("one"), NOW).expect("revoked");
    assert!(matches!(office.access.admit(&lost), Err(Denied::Revoked)));
    assert!(matches!(office.access.admit(&narrow_to(&lost, "a")), Err(Denied::Revoked)));
    assert!(office.access.admit(&kept).is_ok());
    assert!(office.access.admit(&token).is_ok());
}

#[test]
fn foreign_and_damaged_tokens_are_refused() {
    let (office, other) = (office(), self::office());
    let token = office.token(grant(&[Verb::Admin]));
    let mut damaged = token.clone();
    damaged.replace_range(40..41, if &token[40..41] == "A" { "B" } else { "A" });
    let long = "A".repeat(token::TOKEN_BYTES_MAX + 1);
    for text in ["", "  ", "hello", &damaged, &long, &token[..token.len() / 2]] {
        assert!(matches!(office.access.admit(text), Err(Denied::NoToken(_))), "{text}");
    }
    assert!(matches!(other.access.admit(&token), Err(Denied::NoToken(_))));
    // Genuine, but listed nowhere.
    let unlisted = mint(&office.access_root(), "t9", &grant(&[Verb::Read])).expect("a token");
    assert!(matches!(office.access.admit(&unlisted), Err(Denied::NoToken(_))));
}

impl Office {
    fn access_root(&self) -> RootKey {
        RootKey::of(self._folder.path()).expect("the same key")
    }
}

#[test]
fn a_token_says_what_it_is() {
    let office = office();
    let token = office.token(GrantRequest {
        pools: Some(names(&["linux \"x\""])),
        until: Some(Timestamp(1_800_000_000_000_000)),
        ..grant(&[Verb::Read, Verb::Submit])
    });
    let narrowing = Narrowing {
        projects: names(&["a", "b"]),
        pools: names(&["p"]),
        until: Some(Timestamp(1_700_000_000_000_000)),
        ..Narrowing::default()
    };
    let said = inspect(&narrow(&token, &narrowing).expect("narrowed")).expect("inspected");
    assert_eq!(said.subject(), Some(Subject { kind: SubjectKind::Client, name: "ann".to_owned() }));
    assert_eq!(said.grant("id"), Some("t1"));
    assert_eq!(said.grants["verb"], ["read", "submit"]);
    assert_eq!(said.grants["pool"], ["linux \"x\""]);
    assert_eq!(said.checks, ["until 2027-01-15T08:00:00Z"]);
    assert_eq!(said.narrowed, [["projects: a, b", "pools: p", "until 2023-11-14T22:13:20Z"]]);
    assert_eq!(said.revocation.len(), 2);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    RootKey::of(folder.path()).expect("made");
    RootKey::of(folder.path()).expect("read");
    let path = folder.path().join("root.key");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("opened");
    assert!(matches!(RootKey::of(folder.path()), Err(KeyError::Open { mode: 0o644, .. })));
}

#[test]
fn secrets_open_only_where_they_were_sealed() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = SealingKey::of(folder.path()).expect("a key");
    let sealed = key.seal("a/TOKEN", b"hunter2").expect("sealed");
    assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
    assert_ne!(sealed, key.seal("a/TOKEN", b"hunter2").expect("sealed"), "each has a nonce of its own");
    assert_eq!(key.open("a/TOKEN", &sealed).expect("opened"), b"hunter2");
    for (place, sealed) in [("b/TOKEN", &sealed[..]), ("a/TOKEN", &sealed[..20]), ("a/TOKEN", &[])] {
        assert!(matches!(key.open(place, sealed), Err(SealError::Foreign { .. })));
    }
    let other = tempfile::tempdir().expect("a folder");
    assert!(SealingKey::of(other.path()).expect("a key").open("a/TOKEN", &sealed).is_err());
}

#[test]
fn checks_that_took_too_long_say_nothing_about_the_token() {
    let office = office();
    let token = office.token(grant(&[Verb::Read]));
    let bearer = office.access.admit(&token).expect("admitted");
    let limits = |max_time: Duration| biscuit_auth::AuthorizerLimits { max_facts: 1000, max_iterations: 100, max_time };
    let (at_once, later) = (limits(Duration::ZERO), limits(Duration::from_secs(600)));
    assert!(matches!(bearer.may_within(Verb::Read, &Target::SERVER, NOW, &at_once), Err(Denied::Slow)));
    assert!(bearer.may_within(Verb::Read, &Target::SERVER, NOW, &later).is_ok());
}

#[test]
fn keys_are_those_with_which_the_records_were_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |file: &str| folder.path().join(file);
    let store: Arc<dyn store::Store> = Arc::new(MemoryStore::new());
    let open = |new| Keys::open(folder.path(), &store, new, NOW);
    let made = open(NewKeys::Refused).expect("made for records that hold nothing").fingerprint();
    assert_eq!(open(NewKeys::Refused).expect("the same").fingerprint(), made);
    for file in [ROOT_KEY_FILE, SEALING_KEY_FILE] {
        let right = std::fs::read(path(file)).expect("read");
        std::fs::remove_file(path(file)).expect("removed");
        let refused = open(NewKeys::Refused);
        assert!(matches!(&refused, Err(KeysError::Missing { path: of }) if *of == path(file)), "{refused:?}");
        assert!(!path(file).exists());
        match file {
            ROOT_KEY_FILE => drop(RootKey::of(folder.path()).expect("another")),
            _ => drop(SealingKey::of(folder.path()).expect("another")),
        }
        let refused = open(NewKeys::Refused);
        assert!(matches!(&refused, Err(KeysError::Foreign { path: of }) if *of == path(file)), "{refused:?}");
        let records = crate::records::Records::new(Arc::clone(&store));
        assert_eq!(foreign_key(folder.path(), &records), Some(path(file)));
        std::fs::write(path(file), right).expect("written");
    }
    std::fs::remove_file(path(ROOT_KEY_FILE)).expect("removed");
    let new = open(NewKeys::Wanted).expect("made by somebody's word").fingerprint();
    assert_ne!(new, made);
    assert_eq!(open(NewKeys::Refused).expect("the new ones").fingerprint(), new);
}

#[test]
fn no_server_begins_anew_in_a_folder_whose_records_are_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let open =
        || Keys::open(folder.path(), &(Arc::new(MemoryStore::new()) as Arc<dyn store::Store>), NewKeys::Refused, NOW);
    std::fs::write(folder.path().join("root.18288.new"), "half a k").expect("written");
    open().expect("made for records that hold nothing");
    assert!(!folder.path().join("root.18288.new").exists(), "what a killed start left");
    open().expect("a first start that ended before it served anything is begun again");
    std::fs::write(folder.path().join(crate::doctor::ADDRESS), "http://127.0.0.1:7070\n").expect("written");
    let refused = open();
    assert!(matches!(&refused, Err(KeysError::NoRecords { data }) if data == folder.path()), "{refused:?}");
}
