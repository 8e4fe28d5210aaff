//! The contract on a real PostgreSQL, and what only a server that others run can do: go, come back, be led by others.

use std::time::Duration;

use engine::fact::What;
use graph::{BuildId, Outcome, SkipReason};
use ropewalk_store::{Durability, Journal, Looked, Opening, PostgresStore, Sequence, Store, StoreError};

use crate::builds::begun;
use crate::database::Database;
use crate::sample::{created, decided, fact, leased};
use crate::{CONTRACT, INSTEAD};

const SERVER: Opening = Opening { durability: Durability::Power, journal: Journal::Kept };

fn open(url: &str) -> PostgresStore {
    PostgresStore::open(url, SERVER).expect("the store opens")
}

#[test]
fn the_contract_holds() {
    let Some(database) = Database::start() else { return };
    let database = std::rc::Rc::new(database);
    let server = std::rc::Rc::clone(&database);
    INSTEAD.set(Some(Box::new(move || Box::new(open(&server.create())))));
    for (name, test) in CONTRACT {
        // Said only if it fails.
        eprintln!("{name}");
        test();
    }
    INSTEAD.set(None);
}

#[test]
fn two_stores_see_one_another_and_appends_of_both_are_whole() {
    let Some(database) = Database::start() else { return };
    let url = database.create();
    let stores = [open(&url), open(&url)];
    let build = begun(&stores[0]);
    std::thread::scope(|scope| {
        for (index, store) in (0..).zip(&stores) {
            scope.spawn(move || {
                for number in 0..20 {
                    store.append(&[leased(build, "a", 1 + number * 2 + index)]).expect("it is stored");
                }
            });
        }
    });
    for store in &stores {
        assert_eq!(store.facts(build).unwrap().len(), 41);
        assert_eq!(store.jobs(build).unwrap()[0].attempts, 40);
        assert_eq!(store.journal(Sequence(0), 99).unwrap().len(), 41);
    }
    // A build that the other store deletes is gone for both.
    stores[1].delete_build(build).unwrap().expect("it was there");
    assert!(matches!(stores[0].append(&[leased(build, "a", 99)]), Err(StoreError::NoBuild(_))));
    assert!(stores[0].facts(build).unwrap().is_empty());
}

#[test]
fn a_claim_of_one_store_is_seen_by_the_other() {
    let Some(database) = Database::start() else { return };
    let url = database.create();
    let (one, two) = (open(&url), open(&url));
    let build = begun(&one);
    let claim = one.claim(build).unwrap().expect("nobody has it");
    assert!(two.claim(build).unwrap().is_none());
    assert_eq!(two.claimant(build).unwrap().expect("the other has it").process, None);
    assert!(matches!(two.delete_build(build), Err(StoreError::Running(_))));
    drop(claim);
    assert!(two.claim(build).unwrap().is_some());
}

#[test]
fn who_has_lost_its_connection_leads_no_more_once_another_leads() {
    let Some(database) = Database::start() else { return };
    let url = database.create();
    let (old, new) = (open(&url), open(&url));
    let build = begun(&old);
    let lost = old.lead(Duration::ZERO).unwrap().expect("nobody leads");
    assert!(new.lead(Duration::ZERO).unwrap().is_none());
    assert!(new.lead(Duration::from_millis(20)).unwrap().is_none());
    old.append(&[leased(build, "a", 1)]).unwrap();
    let holder = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objid = 4";
    database.run(&url, holder);
    // Waits on the lock.
    let leadership = new.lead(Duration::from_secs(20)).unwrap().expect("nobody leads");
    assert!(leadership.epoch() > lost.epoch());
    // The old one's appends still have a connection of their own, but no right.
    assert!(matches!(old.append(&[leased(build, "a", 2)]), Err(StoreError::NotLeading)));
    assert!(!lost.is_held());
    new.append(&[leased(build, "b", 2)]).unwrap();
    assert!(leadership.is_held());
    assert_eq!(new.facts(build).unwrap().len(), 3);
    drop(lost);
    assert!(leadership.is_held(), "the end of the old one is not the new one's");
}

#[test]
fn a_leader_that_says_nothing_is_deposed() {
    let Some(database) = Database::start() else { return };
    let url = database.create();
    let (old, new) = (open(&url), open(&url));
    let build = begun(&old);
    assert_eq!(new.depose(Duration::ZERO).unwrap(), Looked::LeftAlone, "nobody leads");
    let silent = old.lead(Duration::ZERO).unwrap().expect("nobody leads");
    for _ in 0..3 {
        // Each look sees a renewal for the first time.
        assert_eq!(new.depose(Duration::ZERO).unwrap(), Looked::LeftAlone);
        silent.renew().unwrap();
    }
    assert_eq!(new.depose(Duration::ZERO).unwrap(), Looked::LeftAlone);
    assert_eq!(new.depose(Duration::from_secs(3600)).unwrap(), Looked::LeftAlone);
    assert_eq!(new.depose(Duration::ZERO).unwrap(), Looked::Deposed);
    let leadership = new.lead(Duration::from_secs(20)).unwrap().expect("nobody leads");
    assert!(matches!(old.append(&[leased(build, "a", 1)]), Err(StoreError::NotLeading)));
    new.append(&[leased(build, "b", 1)]).unwrap();
    // A leader of a release that renews nothing: the epoch is its own, the last renewal another's.
    database.run(&url, "update counters set value = value + 1 where name = 'epoch'");
    for _ in 0..3 {
        assert_eq!(old.depose(Duration::ZERO).unwrap(), Looked::LeftAlone);
    }
    drop(leadership);
}

#[test]
fn an_append_under_way_keeps_the_next_leader_waiting() {
    let Some(database) = Database::start() else { return };
    let url = database.create();
    let (old, new) = (open(&url), open(&url));
    let build = begun(&old);
    let first = old.lead(Duration::ZERO).unwrap().expect("nobody leads");
    // One whose process stands still in the middle: its transaction holds the epoch, and is ended by the database.
    let stuck = std::thread::scope(|scope| {
        let stuck = scope.spawn(|| {
            database.run(&url, "begin; select value from counters where name = 'epoch' for share; select pg_sleep(0.3)")
        });
        drop(first);
        let second = new.lead(Duration::from_secs(20)).unwrap().expect("nobody leads");
        new.append(&[leased(build, "a", 1)]).unwrap();
        drop(second);
        stuck.join().unwrap()
    });
    assert!(stuck.starts_with('1') || stuck.starts_with('2'), "{stuck}");
    assert!(matches!(old.append(&[leased(build, "a", 2)]), Err(StoreError::NotLeading)));
}

#[test]
fn a_server_that_goes_and_comes_back_is_found_again() {
    let Some(mut database) = Database::start() else { return };
    let url = database.create();
    let store = open(&url);
    let build = begun(&store);
    let leadership = store.lead(Duration::ZERO).unwrap().expect("nobody leads");
    database.kill();
    let refused = [
        store.append(&[leased(build, "a", 1)]).err(),
        store.facts(build).err(),
        store.reserve_build().err(),
        PostgresStore::open(&url, SERVER).err(),
    ];
    for error in refused {
        assert!(matches!(error, Some(StoreError::Lost(_))), "{error:?}");
    }
    assert!(!leadership.is_held());
    database.restart();
    // The same facts again, as the contract of an append says.
    store.append(&[leased(build, "a", 1)]).unwrap();
    assert_eq!(store.facts(build).unwrap(), [created(build), leased(build, "a", 1)]);
    assert!(store.lead(Duration::from_secs(20)).unwrap().is_some());
}

/// A server holds the number of its next build while the database goes and comes back.
#[test]
fn a_number_that_was_drawn_is_not_drawn_again_after_a_crash() {
    let Some(mut database) = Database::start() else { return };
    let url = database.create();
    let store = open(&url);
    for round in 0..5 {
        let drawn = (store.reserve_build().unwrap(), store.reserve_number("sails").unwrap());
        assert_eq!(drawn, (BuildId(round + 1), round + 1));
        database.kill();
        database.restart();
    }
}

#[test]
fn appends_are_stored_once_however_often_connections_are_cut() {
    let Some(database) = Database::start() else { return };
    let url = database.create();
    let store = open(&url);
    let build = begun(&store);
    let appends = 150;
    std::thread::scope(|scope| {
        let cutting = scope.spawn(|| {
            let others = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                          where application_name = 'ropewalk' and pid <> pg_backend_pid()";
            (0..15).filter(|_| database.run(&url, others) != "0").count()
        });
        for number in 1..=appends {
            let mut tries = 0;
            while let Err(error) = store.append(&[leased(build, "a", number), leased(build, "b", number)]) {
                assert!(matches!(error, StoreError::Lost(_)), "{error:?}");
                tries += 1;
                assert!(tries < 100);
            }
        }
        assert!(cutting.join().unwrap() > 0, "no connection was cut");
    });
    assert_eq!(store.facts(build).unwrap().len() as u32, 1 + 2 * appends);
    assert_eq!(store.jobs(build).unwrap()[0].attempts, appends);
    assert_eq!(store.unfinished().unwrap(), [build]);
}

#[test]
fn what_does_not_belong_is_refused() {
    let Some(database) = Database::start() else { return };
    let refused = |url: &str| PostgresStore::open(url, SERVER).err().expect("it is refused");
    assert!(matches!(refused("neither a url nor pairs"), StoreError::Denied(_)));
    let url = database.create();
    let unknown = format!("{url}unknown");
    assert!(matches!(refused(&unknown), StoreError::Denied(_)), "{:?}", refused(&unknown));
    database.run(&url, "create table other (x int)");
    assert!(matches!(refused(&url), StoreError::Corrupt(_)));

    let url = database.create();
    let by_tls = format!("{url}?sslmode=require");
    let error = refused(&by_tls);
    assert!(
        matches!(&error, StoreError::Denied(cause) if cause.to_string().contains("`sslmode=require`")),
        "{error:?}"
    );
    database.run(&url, "create role guest login; revoke create on schema public from public");
    let error = refused(&url.replace("ropewalk@", "guest@"));
    assert!(matches!(&error, StoreError::Denied(_)), "{error:?}");
    assert!(graph::with_causes(&error).contains("permission denied for schema public"), "{error:?}");

    let url = database.create();
    drop(open(&url));
    let known = version(&database, &url);
    let later = |number: u32, usable: u32| {
        database.run(&url, &format!("insert into migrations values ({number}, 'later', '', {usable})"));
    };
    later(known + 1, known);
    assert_eq!(begun(&open(&url)), BuildId(1), "a newer one that says we may use it is used");
    later(known + 2, known + 2);
    let error = refused(&url);
    let expected = (known + 2, known);
    assert!(matches!(error, StoreError::Newer { found, known } if (found, known) == expected), "{error:?}");
}

/// Which version of the schema a database has.
fn version(database: &Database, url: &str) -> u32 {
    database.run(url, "select max(number) from migrations").parse().expect("it has one")
}

/// What each step added, taken away again: the database as the version before it left it.
const UNDONE: &[&str] = &[
    "alter table jobs drop column child",
    "update builds set open_gates = 2",
    "drop table job_histories; insert into histories values ('a', '[9]')",
];

#[test]
fn a_filled_database_of_an_older_version_is_brought_to_this_one() {
    let Some(database) = Database::start() else { return };
    let url = database.create();
    let store = open(&url);
    let build = begun(&store);
    store.append(&[leased(build, "a", 1), leased(build, "b", 1)]).unwrap();
    let gate = |job: &str| fact(build, 11, What::GateOpened { job: job.into(), prompt: "go?".to_owned() });
    store.append(&[gate("c"), gate("d"), decided(build, "d", Outcome::Skipped(SkipReason::Dropped))]).unwrap();
    let told = |store: &PostgresStore| {
        let rows = (store.build(build).unwrap(), store.jobs(build).unwrap(), store.attempts(build, None).unwrap());
        (store.facts(build).unwrap(), rows, store.journal(Sequence(0), 99).unwrap())
    };
    let before = told(&store);
    drop(store);
    let newest = version(&database, &url);
    assert_eq!(newest as usize, 1 + UNDONE.len(), "each step after the first says how it is undone");
    for older in 1..newest {
        for number in (older + 1..=newest).rev() {
            let undone = UNDONE[number as usize - 2];
            database.run(&url, &format!("{undone}; delete from migrations where number = {number}"));
        }
        assert_eq!(version(&database, &url), older);
        let store = open(&url);
        assert_eq!(version(&database, &url), newest);
        assert_eq!(told(&store), before);
        let project = store.build(build).unwrap().unwrap().origin.project;
        assert_eq!(store.usual_duration_ms(&project, &"a".into()).unwrap(), Some(9), "they were one project's alone");
    }
}
