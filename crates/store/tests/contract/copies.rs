//! Whole copies: from store to store, and into a file while the store goes on.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use engine::operation::Manifest;
use graph::{AttemptNumber, BuildId, Outcome, Trust, Verdict};
use ropewalk_store::audit::{AuditEntry, AuditFilter};
use ropewalk_store::cache::{CacheRow, CacheUser, CacheWanted};
use ropewalk_store::record::Expect;
use ropewalk_store::rows::OperationRow;
use ropewalk_store::{
    BuildFilter, DATABASE_FILE, Opening, Portable, Sequence, SqliteStore, Store, StoreError, restore_backup, transfer,
    verify_backup,
};

use crate::Kept;
use crate::builds::{begun, ended};
use crate::sample::{artifact, at, created, digest, every_kind, leased, with_tests};

/// Something of everything that a store keeps.
fn fill(store: &dyn Kept) {
    for _ in 0..3 {
        begun(store);
    }
    let mut facts = every_kind(BuildId(2));
    facts.remove(0);
    store.append(&facts).unwrap();
    store.append(&[leased(BuildId(1), "a", 1), leased(BuildId(3), "b", 1), with_tests(BuildId(1), "a", 1)]).unwrap();
    store.append(&[ended(BuildId(1), Verdict::Passed { note: None })]).unwrap();
    store.reserve_number("sails").unwrap();
    store.delete_build(BuildId(3)).unwrap();
    let row = |name: &str| OperationRow {
        digest: digest(name),
        trust: Trust::Trusted,
        build: BuildId(1),
        attempt: AttemptNumber(1),
        job: "a".into(),
        outcome: Outcome::passed(),
        artifacts: BTreeMap::from([("bin".to_owned(), artifact(name))]),
        at: at(1),
        used_at: at(1),
        evicted: None,
        replaced: None,
    };
    let long = Manifest(BTreeMap::from([("file:a".to_owned(), "x".repeat(5000))]));
    store.record_operations(&[(row("kept"), &long), (row("evicted"), &long), (row("replaced"), &long)]).unwrap();
    store.evict(digest("evicted"), "old", at(2)).unwrap();
    store.evict(digest("replaced"), "old", at(3)).unwrap();
    store.record_operations(&[(row("replaced"), &long)]).unwrap();
    store.record_tried(&[(digest("tried"), &long)], at(4)).unwrap();
    let written_by = CacheUser { build: BuildId(1), job: "a".into() };
    let entry = CacheRow {
        scope: "main".to_owned(),
        key: "k".to_owned(),
        blobs: vec![digest("cache")],
        bytes: 3,
        written_by: written_by.clone(),
        at: at(1),
        used_at: at(1),
        evicted: None,
    };
    store.save_cache(&entry).unwrap();
    store.restore_cache(&CacheWanted { scopes: &["main"], key: "k", prefixes: &[] }, &written_by, at(9)).unwrap();
    // More than a page of each kind of table.
    for number in 0..20 {
        store.put_record("token", &format!("t{number}"), &[0, 255], Expect::Any, at(5)).unwrap();
        store.append_log_chunks(&[(BuildId(1), vec![number; 100])]).unwrap();
    }
    let entry = AuditEntry { at: at(6), who: "ann".to_owned(), ..AuditEntry::default() };
    for _ in 0..600 {
        store.append_audit(&entry).unwrap();
    }
}

/// What is seen of a store, as text.
fn seen(store: &dyn Kept) -> String {
    let builds = store.builds(&BuildFilter::default(), None, 99).unwrap();
    let of_builds: Vec<_> = builds
        .iter()
        .map(|row| {
            let build = row.build;
            let tests = store.tests(build).unwrap();
            (store.facts(build).unwrap(), store.jobs(build).unwrap(), store.gates(build).unwrap(), tests)
        })
        .collect();
    let operations = (store.recent_operations("a", 9).unwrap(), store.manifest(digest("tried")).unwrap());
    let caches = (store.list_caches(9).unwrap(), store.cache_reads("main", "k", 9).unwrap());
    let documents =
        (store.records("token", None, 99).unwrap(), store.audit(&AuditFilter::default(), None, 999).unwrap());
    let journal = (store.journal(Sequence(0), 99).unwrap(), store.last_sequence().unwrap());
    let rest = (
        store.referenced_blobs().unwrap(),
        store.log_chunks(BuildId(1), 0, 99).unwrap(),
        store.durations("", &["a".into()]),
    );
    format!("{builds:?} {of_builds:?} {operations:?} {caches:?} {documents:?} {journal:?} {rest:?}")
}

/// What is counted goes on where it was.
fn check_goes_on(store: &dyn Kept) {
    assert_eq!(store.reserve_build().unwrap(), BuildId(4));
    assert_eq!(store.reserve_number("sails").unwrap(), 2);
    let last = store.last_sequence().unwrap();
    store.append(&[created(BuildId(4))]).unwrap();
    assert!(store.last_sequence().unwrap() > last);
}

fn sqlite(folder: &std::path::Path) -> SqliteStore {
    SqliteStore::open_with(folder, Opening::SERVER).unwrap()
}

/// Copies a filled store through `middle` and back.
fn check_there_and_back<S: Kept + Portable>(middle: &S) {
    let folder = tempfile::tempdir().unwrap();
    let (from, back) = (sqlite(&folder.path().join("from")), sqlite(&folder.path().join("back")));
    fill(&from);
    // One that leads is new all the same.
    drop(back.lead(Duration::ZERO).unwrap());
    let there = transfer(&from, middle).unwrap();
    assert_eq!(transfer(middle, &back).unwrap(), there);
    assert!(there.rows.contains(&("audit", 600)), "{there:?}");
    let expected = seen(&from);
    assert_eq!(seen(middle), expected);
    assert_eq!(seen(&back), expected);
    assert!(matches!(transfer(&from, middle), Err(StoreError::NotEmpty)));
    check_goes_on(middle);
    let back = sqlite(&folder.path().join("back"));
    check_goes_on(&back);
}

#[test]
fn a_store_copied_there_and_back_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    check_there_and_back(&sqlite(folder.path()));
}

#[cfg(feature = "postgres")]
#[test]
fn a_store_copied_to_postgresql_and_back_is_the_same() {
    let Some(database) = crate::database::Database::start() else { return };
    let store = ropewalk_store::PostgresStore::open(&database.create(), Opening::SERVER).unwrap();
    check_there_and_back(&store);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("copy");
    let backup = store.backup(&file).unwrap();
    assert_eq!((backup.builds, fs::read_dir(folder.path()).unwrap().count()), (3, 1));
    restore_backup(&file, &folder.path().join("restored")).unwrap();
    let restored = SqliteStore::open(&folder.path().join("restored")).unwrap();
    assert_eq!(restored.facts(BuildId(1)).unwrap(), store.facts(BuildId(1)).unwrap());
}

#[test]
fn a_copy_is_made_while_the_store_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(&folder.path().join("store"));
    fill(&store);
    let file = folder.path().join("copy");
    let backup = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for number in 2..100 {
                store.append(&[leased(BuildId(1), "c", number)]).unwrap();
            }
        });
        let backup = store.backup(&file).unwrap();
        writing.join().unwrap();
        backup
    });
    assert_eq!((backup.builds, backup), (2, verify_backup(&file).unwrap()));
    assert!(matches!(store.backup(&file), Err(StoreError::NotEmpty)), "a copy is never written over");
    let restored = folder.path().join("restored");
    restore_backup(&file, &restored).unwrap();
    let copy = SqliteStore::open(&restored).unwrap();
    let (kept, all) = (copy.facts(BuildId(1)).unwrap(), store.facts(BuildId(1)).unwrap());
    assert_eq!(kept, all[..kept.len()], "it is one state that was");
    assert!(matches!(restore_backup(&file, &restored), Err(StoreError::NotEmpty)));
}

#[test]
fn a_copy_that_is_damaged_or_no_copy_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(&folder.path().join("store"));
    fill(&store);
    let file = folder.path().join("copy");
    store.backup(&file).unwrap();
    let whole = fs::read(&file).unwrap();
    let refused = |bytes: &[u8]| {
        let spoiled = folder.path().join("spoiled");
        fs::write(&spoiled, bytes).unwrap();
        let error = restore_backup(&spoiled, &folder.path().join("restored")).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
        assert!(!folder.path().join("restored").join(DATABASE_FILE).exists());
    };
    refused(&whole[..whole.len() / 2]);
    refused(b"no database");
    refused(b"");
    let mut holes = whole.clone();
    holes[4096..16384].fill(0);
    refused(&holes);
}
