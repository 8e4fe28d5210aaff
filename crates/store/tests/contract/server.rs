//! What servers need: projects, the order of everything, leadership, records, the audit, pieces of logs.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use engine::Fact;
use engine::fact::What;
use graph::{BuildId, Digest, Origin, Timestamp, Verdict};
use ropewalk_store::audit::{AuditEntry, AuditFilter, ENTRY_BYTES_MAX};
use ropewalk_store::chunk::{CHUNK_BYTES_MAX, LogChunks};
use ropewalk_store::record::{BODY_BYTES_MAX, Expect, KEY_BYTES_MAX, NewRecord, SOURCE_KIND, Version};
use ropewalk_store::rows::VerdictWord;
use ropewalk_store::{
    BuildFilter, Fault, FaultyStore, Journal, MemoryStore, Opening, Sequence, SqliteStore, Store, StoreError,
};

use crate::builds::{begun, ended};
use crate::check;
use crate::sample::{at, created, digest, leased};

/// A build of `project` with its number, on `branch`, of `commit`.
fn begun_in(store: &dyn Store, project: &str, branch: &str, commit: &str, source: Option<Digest>) -> BuildId {
    let build = store.reserve_build().unwrap();
    let number = store.reserve_number(project).unwrap();
    let mut fact = created(build);
    if let What::BuildCreated(request) = &mut fact.what {
        request.origin = Origin { project: project.to_owned(), number, source };
        request.event.branch = Some(branch.to_owned());
        request.event.commit = commit.to_owned();
    }
    store.append(&[fact]).unwrap();
    build
}

#[test]
pub fn numbers_of_a_project_begin_at_one_and_are_never_given_twice() {
    check(|store| {
        assert_eq!(store.reserve_number("sails").unwrap(), 1);
        assert_eq!(store.reserve_number("masts").unwrap(), 1);
        let drawn = thread::scope(|scope| {
            let draw = || (0..10).map(|_| store.reserve_number("sails").unwrap()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<BTreeSet<_>>()
        });
        assert_eq!(drawn, (2..=41).collect());
        assert_eq!(store.reserve_number("masts").unwrap(), 2);
    });
}

#[test]
pub fn a_build_is_found_by_its_number_in_its_project() {
    check(|store| {
        let (one, two) = (begun_in(store, "sails", "main", "", None), begun_in(store, "masts", "main", "", None));
        begun(store);
        assert_eq!(store.build_numbered("sails", 1).unwrap(), Some(one));
        assert_eq!(store.build_numbered("masts", 1).unwrap(), Some(two));
        assert_eq!(store.build_numbered("sails", 2).unwrap(), None);
        assert_eq!(store.build_numbered("", 0).unwrap(), None);
        let origin = Origin { project: "masts".to_owned(), number: 1, source: None };
        assert_eq!(store.build(two).unwrap().unwrap().origin, origin);
    });
}

#[test]
pub fn builds_are_listed_by_project_and_commit() {
    check(|store| {
        for (project, branch, commit) in [
            ("sails", "main", "aa"),
            ("masts", "main", "aa"),
            ("sails", "topic", "bb"),
            ("sails", "main", "bb"),
            ("sails", "main", "aa"),
        ] {
            begun_in(store, project, branch, commit, None);
        }
        begun(store);
        store.append(&[ended(BuildId(4), Verdict::Failed { because: None })]).unwrap();
        let listed = |filter: BuildFilter, before| {
            let rows = store.builds(&filter, before, 9).unwrap();
            rows.into_iter().map(|row| row.build.0).collect::<Vec<_>>()
        };
        let sails = BuildFilter { project: Some("sails".to_owned()), ..BuildFilter::default() };
        assert_eq!(listed(sails.clone(), None), [5, 4, 3, 1]);
        assert_eq!(listed(sails.clone(), Some(BuildId(4))), [3, 1]);
        assert_eq!(listed(BuildFilter { project: Some(String::new()), ..BuildFilter::default() }, None), [6]);
        let main = BuildFilter { branch: Some("main".to_owned()), ..sails.clone() };
        assert_eq!(listed(main.clone(), None), [5, 4, 1]);
        let running = Some(VerdictWord::Running);
        assert_eq!(listed(BuildFilter { verdict: running, ..main }, None), [5, 1]);
        assert_eq!(listed(BuildFilter { verdict: running, ..sails.clone() }, None), [5, 3, 1]);
        let commit = |commit: &str| Some(commit.to_owned());
        assert_eq!(listed(BuildFilter { commit: commit("aa"), ..BuildFilter::default() }, None), [5, 2, 1]);
        assert_eq!(listed(BuildFilter { commit: commit("aa"), ..sails.clone() }, None), [5, 1]);
        assert_eq!(listed(BuildFilter { commit: commit("cc"), ..sails.clone() }, None), [0; 0]);
        // The first digits are enough; a whole id means itself alone.
        let (long, longer) = ("ab12cd34".repeat(5), "ab12cd34".repeat(8));
        for commit in [&long, &longer] {
            begun_in(store, "sails", "main", commit, None);
        }
        assert_eq!(listed(BuildFilter { commit: commit("ab12cd3"), ..sails.clone() }, None), [8, 7]);
        assert_eq!(listed(BuildFilter { commit: commit("ab12cd3"), ..sails.clone() }, Some(BuildId(8))), [7]);
        assert_eq!(listed(BuildFilter { commit: commit("ab12cd3"), ..BuildFilter::default() }, None), [8, 7]);
        assert_eq!(listed(BuildFilter { commit: commit("ab12cd4"), ..sails.clone() }, None), [0; 0]);
        assert_eq!(listed(BuildFilter { commit: Some(long), ..sails.clone() }, None), [7]);
        assert_eq!(listed(BuildFilter { commit: Some(longer), ..sails }, None), [8]);
    });
}

#[test]
pub fn the_journal_tells_appends_in_their_order() {
    check(|store| {
        assert_eq!(store.last_sequence().unwrap(), Sequence(0));
        assert_eq!(store.journal(Sequence(0), 9).unwrap(), []);
        let (one, two) = (begun(store), begun(store));
        let mixed =
            [leased(one, "a", 1), leased(two, "a", 1), leased(one, "b", 2), leased(one, "c", 3), leased(two, "b", 2)];
        store.append(&mixed).unwrap();
        let graph = crate::sample::evaluated(one, Default::default());
        store.append(&[leased(one, "d", 4), graph.clone(), leased(one, "e", 5)]).unwrap();
        let journal = store.journal(Sequence(0), 9).unwrap();
        let brought: Vec<_> = journal.iter().map(|(_, facts)| facts.as_slice()).collect();
        let last = [leased(one, "d", 4), graph, leased(one, "e", 5)];
        assert_eq!(brought, [&[created(one)], &[created(two)], &mixed[..], &last[..]]);
        let numbers: Vec<_> = journal.iter().map(|(number, _)| *number).collect();
        assert!(numbers[0] > Sequence(0) && numbers.is_sorted_by(|one, two| one < two), "{numbers:?}");
        assert_eq!(store.last_sequence().unwrap(), numbers[3]);
        assert_eq!(store.journal(numbers[1], 1).unwrap(), journal[2..3]);
        assert_eq!(store.journal(numbers[3], 9).unwrap(), []);
        assert_eq!(store.journal(Sequence(u64::MAX), 9).unwrap(), []);

        // A build that goes leaves holes.
        store.delete_build(one).unwrap();
        let left: Vec<_> = store.journal(Sequence(0), 9).unwrap().into_iter().map(|(_, facts)| facts).collect();
        let of_two: Vec<Fact> = vec![leased(two, "a", 1), leased(two, "b", 2)];
        assert_eq!(left, [vec![], vec![created(two)], of_two, vec![]]);

        assert_eq!(store.prune_journal(numbers[2]).unwrap(), 2);
        assert_eq!(store.journal(Sequence(0), 9).unwrap()[0].0, numbers[2]);
        // The last one stays, so that numbers go on from there.
        assert_eq!(store.prune_journal(Sequence(u64::MAX)).unwrap(), 1);
        assert_eq!(store.last_sequence().unwrap(), numbers[3]);
        store.append(&[leased(two, "c", 3)]).unwrap();
        assert!(store.last_sequence().unwrap() > numbers[3]);
    });
}

#[test]
pub fn one_leads_and_who_leads_no_more_may_not_append() {
    check(|store| {
        let build = begun(store);
        let first = store.lead(Duration::ZERO).unwrap().expect("nobody leads");
        assert!(store.lead(Duration::ZERO).unwrap().is_none());
        assert!(store.lead(Duration::from_millis(5)).unwrap().is_none());
        assert!(first.is_held());
        store.append(&[leased(build, "a", 1)]).unwrap();
        let epoch = first.epoch();
        drop(first);
        let refused = store.append(&[leased(build, "b", 2)]);
        assert!(matches!(refused, Err(StoreError::NotLeading)), "{refused:?}");
        assert_eq!(store.facts(build).unwrap().len(), 2);
        let second = store.lead(Duration::from_secs(5)).unwrap().expect("nobody leads");
        assert!(second.epoch() > epoch);
        store.append(&[leased(build, "b", 2)]).unwrap();
    });
}

#[test]
pub fn several_records_are_written_or_none() {
    check(|store| {
        let body = |kind: &str, key: &str| store.record(kind, key).unwrap().map(|record| record.body);
        let new = |kind, key, body| NewRecord { kind, key, body };
        let before = store.put_record("project", "sails", b"0", Expect::Any, at(1)).unwrap();
        store.put_records(&[], at(2)).unwrap();
        let all = [new("project", "sails", &b"1"[..]), new("text", "sails", b"2"), new("project", "masts", b"3")];
        store.put_records(&all, at(2)).unwrap();
        for NewRecord { kind, key, body: written } in all {
            assert_eq!(body(kind, key).as_deref(), Some(written));
        }
        let [first, second] = ["sails", "masts"].map(|key| store.record("project", key).unwrap().unwrap());
        assert!(before < first.version && first.version < second.version, "each writing has its version");
        assert_eq!((first.at, second.at), (at(2), at(2)));
        // Of two for one key the last one stands.
        store.put_records(&[new("project", "sails", b"4"), new("project", "sails", b"5")], at(3)).unwrap();
        assert_eq!(body("project", "sails").unwrap(), b"5");

        let large = vec![7; BODY_BYTES_MAX + 1];
        let refused = store.put_records(&[new("project", "sails", b"6"), new("project", "masts", &large)], at(4));
        assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
        assert_eq!(body("project", "sails").unwrap(), b"5");
        let refused = store.note_record("project", "masts", &large, at(4));
        assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    });
}

#[test]
pub fn a_record_is_written_if_it_is_as_expected() {
    check(|store| {
        let put = |body: &str, expect| store.put_record("project", "sails", body.as_bytes(), expect, at(3));
        assert_eq!(store.record("project", "sails").unwrap(), None);
        let conflict = put("x", Expect::Version(Version(1)));
        assert!(matches!(conflict, Err(StoreError::Conflict { found: None })), "{conflict:?}");
        let first = put("1", Expect::Absent).unwrap();
        let record = store.record("project", "sails").unwrap().unwrap();
        assert_eq!((record.version, record.body.as_slice(), record.at), (first, &b"1"[..], at(3)));
        let conflict = put("x", Expect::Absent);
        assert!(matches!(conflict, Err(StoreError::Conflict { found: Some(found) }) if found == first));
        let second = put("2", Expect::Version(first)).unwrap();
        assert!(second > first);
        assert!(matches!(put("x", Expect::Version(first)), Err(StoreError::Conflict { .. })));
        let third = put("3", Expect::Any).unwrap();
        assert_eq!(store.record("project", "sails").unwrap().unwrap().body, b"3");
        store.note_record("project", "sails", b"noted", at(4)).unwrap();
        let noted = store.record("project", "sails").unwrap().unwrap();
        assert_eq!((noted.body.as_slice(), noted.at), (&b"noted"[..], at(4)));
        assert!(matches!(put("x", Expect::Version(third)), Err(StoreError::Conflict { .. })));
        let third = put("3", Expect::Any).unwrap();

        assert!(matches!(
            store.delete_record("project", "sails", Expect::Version(second)),
            Err(StoreError::Conflict { .. })
        ));
        assert!(store.delete_record("project", "sails", Expect::Version(third)).unwrap());
        assert!(!store.delete_record("project", "sails", Expect::Any).unwrap());
        assert_eq!(store.record("project", "sails").unwrap(), None);
        // Its successor is never mistaken for it.
        assert!(put("4", Expect::Absent).unwrap() > third);
    });
}

#[test]
pub fn of_many_writers_that_expect_the_same_one_writes() {
    check(|store| {
        let first = store.put_record("worker", "w", b"", Expect::Absent, at(1)).unwrap();
        let written = thread::scope(|scope| {
            let write = || store.put_record("worker", "w", b"x", Expect::Version(first), at(2)).is_ok();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(write)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap().then_some(())).count()
        });
        assert_eq!(written, 1);
        let absent = thread::scope(|scope| {
            let write = || store.put_record("worker", "new", b"x", Expect::Absent, at(2)).is_ok();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(write)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap().then_some(())).count()
        });
        assert_eq!(absent, 1);
    });
}

#[test]
pub fn records_are_listed_by_key_page_by_page() {
    check(|store| {
        for key in ["b", "a", "ä", "B", "a b"] {
            store.put_record("token", key, key.as_bytes(), Expect::Any, at(1)).unwrap();
        }
        store.put_record("other", "a", b"", Expect::Any, at(1)).unwrap();
        let keys = |after, limit| {
            let records = store.records("token", after, limit).unwrap();
            records.into_iter().map(|record| record.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(None, 9), ["B", "a", "a b", "b", "ä"]);
        assert_eq!(keys(Some("a"), 2), ["a b", "b"]);
        assert_eq!(keys(Some("aa"), 1), ["b"]);
        assert_eq!(keys(None, 0), [""; 0]);
    });
}

#[test]
pub fn what_is_too_large_is_refused() {
    check(|store| {
        let put = |key: &str, bytes: usize| store.put_record("k", key, &vec![7; bytes], Expect::Any, at(1));
        put(&"x".repeat(KEY_BYTES_MAX), BODY_BYTES_MAX).unwrap();
        assert_eq!(store.record("k", &"x".repeat(KEY_BYTES_MAX)).unwrap().unwrap().body.len(), BODY_BYTES_MAX);
        assert!(matches!(put("y", BODY_BYTES_MAX + 1), Err(StoreError::TooLarge { .. })));
        assert!(matches!(put(&"x".repeat(KEY_BYTES_MAX + 1), 0), Err(StoreError::TooLarge { .. })));
        let entry = AuditEntry { detail: "x".repeat(ENTRY_BYTES_MAX + 1), ..AuditEntry::default() };
        assert!(matches!(store.append_audit(&entry), Err(StoreError::TooLarge { .. })));
        let chunk = (BuildId(1), vec![0; CHUNK_BYTES_MAX + 1]);
        assert!(matches!(store.append_log_chunks(&[chunk]), Err(StoreError::TooLarge { .. })));
    });
}

fn action(second: i64, who: &str, project: &str) -> AuditEntry {
    AuditEntry {
        at: at(second),
        who: who.to_owned(),
        verb: "cancel".to_owned(),
        target: format!("build {second}"),
        project: project.to_owned(),
        from: "127.0.0.1".to_owned(),
        detail: "{}".to_owned(),
    }
}

#[test]
pub fn the_audit_tells_actions_newest_first() {
    check(|store| {
        let entries =
            [action(1, "ann", "sails"), action(2, "bob", "sails"), action(3, "ann", ""), action(2, "ann", "sails")];
        let numbers: Vec<_> = entries.iter().map(|entry| store.append_audit(entry).unwrap()).collect();
        assert!(numbers.is_sorted_by(|one, two| one < two));
        let listed = |filter: &AuditFilter, before, limit| {
            let rows = store.audit(filter, before, limit).unwrap();
            rows.into_iter().map(|row| (row.number, row.entry)).collect::<Vec<_>>()
        };
        let row = |index: usize| (numbers[index], entries[index].clone());
        let all = AuditFilter::default();
        assert_eq!(listed(&all, None, 2), [row(3), row(2)]);
        assert_eq!(listed(&all, Some(numbers[2]), 9), [row(1), row(0)]);
        let sails = AuditFilter { project: Some("sails".to_owned()), who: None };
        assert_eq!(listed(&sails, None, 9), [row(3), row(1), row(0)]);
        let by_ann = AuditFilter { who: Some("ann".to_owned()), ..sails };
        assert_eq!(listed(&by_ann, Some(numbers[3]), 9), [row(0)]);
        assert_eq!(store.prune_audit(at(3)).unwrap(), 2, "all before, but the last");
        assert_eq!(listed(&all, None, 9), [row(3), row(2)]);
        assert!(store.append_audit(&entries[0]).unwrap() > numbers[3]);
    });
}

#[test]
pub fn pieces_of_logs_come_back_in_order_until_they_go() {
    check(|store| {
        let (one, two) = (BuildId(1), BuildId(2));
        let body = |text: &str| text.as_bytes().to_vec();
        let numbers = store.append_log_chunks(&[(one, body("a")), (two, body("x")), (one, body(""))]).unwrap();
        let more = store.append_log_chunks(&[(one, vec![0, 255])]).unwrap();
        assert!(numbers[0] < numbers[2] && numbers[2] < more[0]);
        let read = |build, after, limit| {
            let chunks = store.log_chunks(build, after, limit).unwrap();
            chunks.into_iter().map(|chunk| (chunk.number, chunk.body)).collect::<Vec<_>>()
        };
        assert_eq!(read(one, 0, 9), [(numbers[0], body("a")), (numbers[2], body("")), (more[0], vec![0, 255])]);
        assert_eq!(read(one, numbers[0], 1), [(numbers[2], body(""))]);
        assert_eq!(store.delete_log_chunks(one).unwrap(), 3);
        assert_eq!((read(one, 0, 9), read(two, 0, 9)), (vec![], vec![(numbers[1], body("x"))]));
        assert!(store.append_log_chunks(&[]).unwrap().is_empty());
    });
}

#[test]
pub fn sources_of_builds_and_of_records_are_referenced() {
    check(|store| {
        let build = begun_in(store, "sails", "main", "", Some(digest("of a build")));
        store.put_record(SOURCE_KIND, &digest("of a record").to_hex(), b"", Expect::Any, at(1)).unwrap();
        store.put_record(SOURCE_KIND, "no digest", b"", Expect::Any, at(1)).unwrap();
        let both = BTreeSet::from(["of a build", "of a record"].map(digest));
        assert_eq!(store.referenced_sources().unwrap(), both);
        assert_eq!(store.referenced_blobs().unwrap(), both);
        store.delete_build(build).unwrap().unwrap();
        assert_eq!(store.referenced_sources().unwrap(), BTreeSet::from([digest("of a record")]));
    });
}

#[test]
fn an_append_whose_answer_was_lost_is_recognised_when_it_is_made_again() {
    let faulty = |fault| FaultyStore::with_faults(MemoryStore::with_journal(Journal::Kept), 3, 2, &[fault], || {});
    for fault in [Fault::Unanswered, Fault::Lost] {
        let store = faulty(fault);
        let (one, two) = (BuildId(1), BuildId(2));
        let mut lost = 0;
        let mut append = |facts: &[Fact]| {
            while let Err(error) = store.append(facts) {
                assert!(matches!(error, StoreError::Lost(_)), "{error}");
                lost += 1;
            }
        };
        append(&[created(one), created(two)]);
        for number in 1..=20 {
            append(&[leased(one, "a", number), leased(two, "b", number), leased(one, "c", number)]);
        }
        assert!(lost > 3, "{lost}");
        assert_eq!(store.inner().facts(one).unwrap().len(), 41);
        assert_eq!(store.inner().facts(two).unwrap().len(), 21);
        assert_eq!(store.inner().journal(Sequence(0), 99).unwrap().len(), 21);
    }
}

#[test]
fn slow_calls_are_made_after_the_wait() {
    static WAITED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let wait = || {
        WAITED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let store = FaultyStore::with_faults(MemoryStore::new(), 1, 1, &[Fault::Slow], wait);
    assert_eq!(store.reserve_build().unwrap(), BuildId(1));
    store.append(&[created(BuildId(1))]).unwrap();
    store.append_log_chunks(&[]).unwrap();
    assert_eq!((WAITED.load(std::sync::atomic::Ordering::Relaxed), store.faults()), (3, 3));
}

#[test]
fn a_plan_is_told_which_call_is_made() {
    let plan = |call: &'static str| (call == "put_record").then_some(Fault::Busy);
    let store = FaultyStore::with_plan(MemoryStore::new(), plan, || {});
    store.append(&[created(BuildId(1))]).unwrap();
    let refused = store.put_record("k", "k", b"", Expect::Any, Timestamp(1));
    assert!(matches!(refused, Err(StoreError::Busy(_))), "{refused:?}");
    assert_eq!((store.facts(BuildId(1)).unwrap().len(), store.faults()), (1, 1));
}

#[test]
fn every_fault_has_its_word() {
    for (fault, refused) in [
        (Fault::Busy, StoreError::Busy("".into())),
        (Fault::Full, StoreError::Full("".into())),
        (Fault::Io, StoreError::Io("".into())),
        (Fault::Lost, StoreError::Lost("".into())),
        (Fault::Unanswered, StoreError::Lost("".into())),
    ] {
        let store = FaultyStore::with_faults(MemoryStore::new(), 1, 1, &[fault], || {});
        let error = store.put_record("k", "k", b"", Expect::Any, Timestamp(1)).unwrap_err();
        assert_eq!(std::mem::discriminant(&error), std::mem::discriminant(&refused), "{fault:?}: {error:?}");
        let is_done = store.inner().record("k", "k").unwrap().is_some();
        assert_eq!(is_done, fault == Fault::Unanswered);
        // What can be held is not lost on the way.
        assert!(store.lead(Duration::ZERO).is_err());
        assert!(store.inner().lead(Duration::ZERO).unwrap().is_some());
    }
}

#[test]
fn a_leader_killed_in_another_process_leaves_the_lead_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open_with(folder.path(), Opening::SERVER).unwrap();
    // The lock is the kernel's; any program can hold it.
    let mut other = Command::new("flock")
        .args(["--no-fork", "--exclusive"])
        .arg(folder.path().join("leader"))
        .args(["sh", "-c", "echo held; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(other.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "held\n");
    assert!(store.lead(Duration::ZERO).unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(store.lead(Duration::ZERO).unwrap().is_some());
}

#[test]
fn of_two_stores_of_one_file_the_later_leader_appends() {
    let folder = tempfile::tempdir().unwrap();
    let open = || SqliteStore::open_with(folder.path(), Opening::SERVER).unwrap();
    let (old, new) = (open(), open());
    let build = begun(&old);
    let first = old.lead(Duration::ZERO).unwrap().expect("nobody leads");
    // Somebody takes the file of the lock away: the epoch still tells.
    std::fs::remove_file(folder.path().join("leader")).unwrap();
    let second = new.lead(Duration::ZERO).unwrap().expect("nobody leads");
    assert!(matches!(old.append(&[leased(build, "a", 1)]), Err(StoreError::NotLeading)));
    assert!(!first.is_held() && second.is_held());
    new.append(&[leased(build, "a", 1)]).unwrap();
}
