//! Appends that stand in a file before they stand in the database: nothing of them is lost with the process, and nothing
//! comes twice.

mod sample;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use engine::Fact;
use engine::fact::What;
use graph::{BuildId, Verdict};
use ropewalk_store::rows::{JobState, rows_of};
use ropewalk_store::{SqliteStore, Store, StoreError};
use sample::{created, decided, evaluated, fact, finished, leased, passed};

const BUILD: BuildId = BuildId(1);
/// Where the process that is to die finds the folder of its store.
const FOLDER: &str = "STORE_OF_A_PROCESS_TO_DIE";
/// The most facts about jobs that it appends.
const JOBS: u32 = 40;

/// The facts of a build whose jobs have all passed, but for its end; the first two cannot go ahead.
fn facts() -> Vec<Fact> {
    let mut facts = vec![created(BUILD), evaluated(BUILD, std::sync::Arc::default())];
    for number in 1..=JOBS {
        let job = format!("job{number}");
        facts.push(leased(BUILD, &job, number));
        facts.push(finished(BUILD, &job, number, passed(), None));
        facts.push(decided(BUILD, &job, passed()));
    }
    facts
}

fn ended() -> Fact {
    fact(BUILD, 99, What::BuildEnded { verdict: Verdict::Passed { note: None } })
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder.join("ahead")) else { return Vec::new() };
    entries.map(|entry| entry.expect("the folder is read").path()).collect()
}

/// Appends all facts, reading in between so that some of them are in the database, and dies. Run by the tests below.
#[test]
#[ignore = "dies; run by the other tests"]
fn process_that_dies() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("it is run by another test"));
    let store = SqliteStore::open(&folder).unwrap();
    let _claim = store.claim(BUILD).unwrap().unwrap();
    for (place, fact) in facts().into_iter().enumerate() {
        store.append(&[fact]).unwrap();
        if place == 30 {
            assert_eq!(store.facts(BUILD).unwrap().len(), 31);
        }
    }
    std::process::abort();
}

/// Has a process fill the store in `folder` and die.
fn die_over(folder: &Path) {
    let mut process = Command::new(std::env::current_exe().expect("this program has a path"));
    process.args(["--exact", "process_that_dies", "--ignored"]).env(FOLDER, folder);
    let output = process.output().expect("the process starts");
    assert!(!output.status.success());
    assert!(!String::from_utf8_lossy(&output.stderr).contains("assertion"), "{output:?}");
    assert_eq!(files(folder).len(), 1, "{output:?}");
}

#[test]
fn what_a_dead_process_told_is_there_for_the_next_once() {
    let folder = tempfile::tempdir().unwrap();
    die_over(folder.path());
    for _ in 0..2 {
        let store = SqliteStore::open(folder.path()).unwrap();
        assert_eq!(store.facts(BUILD).unwrap(), facts());
        let folded = rows_of(&facts()).unwrap().unwrap();
        assert_eq!(store.jobs(BUILD).unwrap(), folded.jobs);
        assert_eq!(store.attempts(BUILD, None).unwrap(), folded.attempts);
        assert_eq!(store.unfinished().unwrap(), [BUILD]);
    }
    assert!(files(folder.path()).is_empty());
}

#[test]
fn who_claims_the_build_of_a_dead_process_has_all_that_it_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    die_over(folder.path());
    let _claim = store.claim(BUILD).unwrap().unwrap();
    assert_eq!(store.facts(BUILD).unwrap(), facts());
    store.append(&[ended()]).unwrap();
    assert!(store.build(BUILD).unwrap().unwrap().finished.is_some());
    assert!(files(folder.path()).is_empty());
}

#[test]
fn a_record_that_was_cut_off_ends_the_file() {
    for cut in [1, 5, 13, 200] {
        let folder = tempfile::tempdir().unwrap();
        die_over(folder.path());
        let file = files(folder.path()).remove(0);
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() - cut]).unwrap();
        let store = SqliteStore::open(folder.path()).unwrap();
        let found = store.facts(BUILD).unwrap();
        assert_eq!(found, facts()[..found.len()]);
        assert!((facts().len() - 2..facts().len()).contains(&found.len()), "{cut}: {}", found.len());
    }
}

#[test]
fn what_no_record_is_at_the_end_of_a_file_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    die_over(folder.path());
    let file = files(folder.path()).remove(0);
    OpenOptions::new().append(true).open(file).unwrap().write_all(&[7; 5000]).unwrap();
    assert_eq!(SqliteStore::open(folder.path()).unwrap().facts(BUILD).unwrap(), facts());
}

#[test]
fn a_record_that_this_program_cannot_read_is_told_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(folder.path()).unwrap());
    let body = b"[[1,0]]\n{\"a\":\"fact of tomorrow\"}";
    let mut record = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    record.extend_from_slice(&blake3::hash(body).as_bytes()[..8]);
    record.extend_from_slice(body);
    fs::create_dir_all(folder.path().join("ahead")).unwrap();
    fs::write(folder.path().join("ahead/1-1"), record).unwrap();
    let error = SqliteStore::open(folder.path()).err().expect("it is refused");
    let StoreError::Corrupt(cause) = error else { panic!("{error}") };
    assert!(cause.to_string().contains("ahead/1-1"), "{cause}");
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn the_file_of_a_living_process_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let claim = store.claim(BUILD).unwrap().unwrap();
    let all = facts();
    let (first, rest) = all.split_at(20);
    for fact in first {
        store.append(std::slice::from_ref(fact)).unwrap();
    }
    assert_eq!(files(folder.path()).len(), 1);
    let other = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(files(folder.path()).len(), 1);
    assert!(other.claim(BUILD).unwrap().is_none());
    for fact in rest {
        store.append(std::slice::from_ref(fact)).unwrap();
    }
    // Before the claim is free, all of it is stored.
    drop(claim);
    assert_eq!(other.facts(BUILD).unwrap(), facts());
    drop(store);
    assert!(files(folder.path()).is_empty());
}

#[test]
fn others_see_it_soon() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let other = SqliteStore::open(folder.path()).unwrap();
    let _claim = store.claim(BUILD).unwrap().unwrap();
    for fact in facts() {
        store.append(&[fact]).unwrap();
    }
    // A bound for machines that stand still, not a time that is measured.
    let is_there = (0..3000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        other.facts(BUILD).unwrap() == facts()
    });
    assert!(is_there);
    assert!(other.jobs(BUILD).unwrap().iter().all(|job| job.state == JobState::Ended));
}

#[test]
fn facts_of_a_build_that_is_no_longer_there_are_refused_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let claim = store.claim(BUILD).unwrap().unwrap();
    for fact in facts() {
        store.append(&[fact]).unwrap();
    }
    // As nobody can who heeds the claim.
    fs::remove_file(folder.path().join("claims/1")).unwrap();
    SqliteStore::open(folder.path()).unwrap().delete_build(BUILD).unwrap().unwrap();
    // What went ahead is found to be about nothing when it comes into the database, and from then on nothing goes ahead.
    assert_eq!(store.facts(BUILD).unwrap(), []);
    let refused = (0..2).find_map(|_| {
        let refused = store.append(&facts()[2..3]).err();
        assert_eq!(store.facts(BUILD).unwrap(), []);
        refused
    });
    assert!(matches!(refused, Some(StoreError::NoBuild(BUILD))), "{refused:?}");
    drop(claim);
    assert_eq!(store.facts(BUILD).unwrap(), []);
}

#[test]
fn an_append_that_cannot_be_written_ahead_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let _claim = store.claim(BUILD).unwrap().unwrap();
    store.append(&facts()[..2]).unwrap();
    fs::write(folder.path().join("ahead"), "in the way").unwrap();
    assert!(matches!(store.append(&facts()[2..3]), Err(StoreError::Io(_))));
    assert_eq!(store.facts(BUILD).unwrap().len(), 2);
    fs::remove_file(folder.path().join("ahead")).unwrap();
    store.append(&facts()[2..3]).unwrap();
    assert_eq!(store.facts(BUILD).unwrap(), facts()[..3]);
}
