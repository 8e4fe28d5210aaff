//! What only a file can do: grow old, be of somebody else, break, be shared.

use std::fs;
use std::path::Path;

use engine::Fact;
use graph::{BuildId, Digest, Timestamp, Trust};
use rusqlite::Connection;

use super::migration::{MIGRATIONS, VERSION};
use super::{DATABASE_FILE, Opening, SqliteStore, projected};
use crate::cache::{CacheUser, CacheWanted};
use crate::record::Expect;
use crate::rows::{BuildRows, VerdictWord, rows_of};
use crate::store::{BuildFilter, Store, StoreError};

/// Data as each version of the schema held it, one file per migration. Added with the migration, never edited.
const DATA: &[&str] = &[
    include_str!("tests/0001.sql"),
    include_str!("tests/0002.sql"),
    include_str!("tests/0003.sql"),
    include_str!("tests/0004.sql"),
    include_str!("tests/0005.sql"),
    include_str!("tests/0006.sql"),
];

fn database(folder: &Path) -> Connection {
    Connection::open(folder.join(DATABASE_FILE)).expect("the database opens")
}

fn refusal(folder: &Path) -> StoreError {
    SqliteStore::open(folder).err().expect("it is refused")
}

#[test]
fn what_is_acknowledged_has_waited_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open_with(folder.path(), Opening::SERVER).unwrap();
    // What `pragma synchronous` says: 1 is `normal`, 2 is `full`.
    let last = || -> u8 { store.writer().connection.query_row("pragma synchronous", [], |row| row.get(0)).unwrap() };
    for _ in 0..2 {
        store.reserve_build().unwrap();
        assert_eq!(last(), 1);
        store.note_record("k", "k", b"", Timestamp(1)).unwrap();
        assert_eq!(last(), 1);
        store.put_record("k", "k", b"", Expect::Any, Timestamp(1)).unwrap();
        assert_eq!(last(), 2);
    }
}

#[test]
fn data_of_every_version_is_read_by_this_one() {
    assert_eq!(DATA.len(), MIGRATIONS.len(), "each migration brings data");
    for (version, data) in (1..).zip(DATA) {
        let folder = tempfile::tempdir().unwrap();
        drop(SqliteStore::open_at(folder.path(), Opening::default(), version).unwrap());
        database(folder.path()).execute_batch(data).unwrap();
        let store = SqliteStore::open(folder.path()).unwrap();
        check_data(&store);
    }
}

/// Everything that the data hold is found by the means of today.
fn check_data(store: &SqliteStore) {
    let facts: Vec<Fact> = store.facts(BuildId(1)).unwrap();
    assert_eq!(facts.len(), 5);
    let stored = BuildRows {
        build: store.build(BuildId(1)).unwrap().unwrap(),
        jobs: store.jobs(BuildId(1)).unwrap(),
        attempts: store.attempts(BuildId(1), None).unwrap(),
        gates: store.gates(BuildId(1)).unwrap(),
        artifacts: store.artifacts(BuildId(1)).unwrap(),
    };
    let mut folded = rows_of(&facts).unwrap().unwrap();
    // Named by the digest of what was written then, which today's writer may write otherwise.
    folded.build.graph = stored.build.graph;
    assert_eq!(stored, folded);
    assert_eq!(store.graph(BuildId(1)).unwrap().unwrap().jobs.len(), 1);
    assert_eq!(store.reports(BuildId(1), None).unwrap().len(), 1);
    assert_eq!(store.usual_duration_ms(&stored.build.origin.project, &"make".into()).unwrap(), Some(9));
    let digest = Digest([0x11; 32]);
    assert_eq!(store.operation(digest, Trust::Trusted).unwrap().unwrap().build, BuildId(1));
    assert_eq!(store.manifest(digest).unwrap().unwrap().0["file:a"], "b");
    let (evicted, _) = store.recent_operations("test", 1).unwrap().remove(0);
    assert_eq!(evicted.evicted.unwrap().reason, "no room");
    let wanted = CacheWanted { scopes: &["trusted"], key: "none", prefixes: &["cargo-"] };
    let reader = CacheUser { build: BuildId(1), job: "make".into() };
    assert_eq!(store.cache_reads("trusted", "cargo-1", 9).unwrap().len(), 1);
    assert!(store.restore_cache(&wanted, &reader, Timestamp(9)).unwrap().is_some());
    assert_eq!(store.unfinished().unwrap(), []);
    assert_eq!(store.reserve_build().unwrap(), BuildId(2));
}

#[test]
fn a_gate_that_nobody_is_asked_of_counts_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open_at(folder.path(), Opening::default(), 4).unwrap());
    database(folder.path()).execute_batch(DATA[3]).unwrap();
    // As version 4 left it of a job that was skipped and of two that still wait, one of them without a row.
    let filled = "insert into gates values (1, 'make', 'go?', 3, null), (1, 'ship', 'go?', 3, null), (1, 'sail', 'go?', 3, null), \
                  (1, 'moor', 'go?', 3, '{\"answer\":null,\"by\":\"ann\",\"at\":4}'); \
                  insert into jobs (build, name, state, attempts) values (1, 'ship', 'waiting', 0); \
                  update builds set open_gates = 3";
    database(folder.path()).execute_batch(filled).unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(store.build(BuildId(1)).unwrap().unwrap().open_gates, 2);
}

#[test]
fn running_times_of_many_projects_are_nobodys() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open_at(folder.path(), Opening::default(), 5).unwrap());
    database(folder.path()).execute_batch(DATA[4]).unwrap();
    let another = "insert into builds (id, pipeline, kind, event, client, created_at, name, verdict, verdict_word, facts, jobs, \
                   errors, warnings, passed, failed, canceled, skipped, reused, open_gates, project, commit_id) select 2, pipeline, \
                   kind, event, client, created_at, name, verdict, verdict_word, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'masts', '' from builds";
    database(folder.path()).execute_batch(another).unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    for project in ["sails", "masts", ""] {
        assert_eq!(store.usual_duration_ms(project, &"make".into()).unwrap(), None);
    }
}

#[test]
fn a_newer_database_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(folder.path()).unwrap());
    let later = "insert into migrations (number, name, checksum, readable_from) values (?1, 'later', '', ?1)";
    database(folder.path()).execute(later, [VERSION + 1]).unwrap();
    database(folder.path()).pragma_update(None, "user_version", VERSION + 1).unwrap();
    let error = refusal(folder.path());
    assert!(matches!(error, StoreError::Newer { found, known } if found == VERSION + 1 && known == VERSION));
    let kept: u32 = database(folder.path()).query_row("pragma user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, VERSION + 1);
}

#[test]
fn the_database_of_another_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    database(folder.path()).execute_batch("create table other (x)").unwrap();
    assert!(matches!(refusal(folder.path()), StoreError::Corrupt(_)));
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(DATABASE_FILE), "not a database, however long it may be ".repeat(99)).unwrap();
    assert!(matches!(refusal(folder.path()), StoreError::Corrupt(_)));
}

#[test]
fn a_folder_that_is_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(refusal(&file), StoreError::Io(_) | StoreError::Denied(_)));
}

#[test]
fn rows_that_make_no_sense_are_an_error_and_not_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open_at(folder.path(), Opening::default(), 1).unwrap());
    database(folder.path()).execute_batch(DATA[0]).unwrap();
    let spoil = |sql: &str| database(folder.path()).execute_batch(sql).unwrap();
    spoil(
        "update facts set body = substr(body, 2); update jobs set state = 'lost'; update graphs set body = x'28b52ffd';",
    );
    spoil("update builds set jobs = -1; update attempts set fact = 99; update operations set outcome = '{';");
    let store = SqliteStore::open(folder.path()).unwrap();
    let build = BuildId(1);
    let all = [
        store.facts(build).err(),
        store.jobs(build).err(),
        store.graph(build).err(),
        store.build(build).err(),
        store.reports(build, None).err(),
        store.list_operations(9).err(),
    ];
    for (index, error) in all.into_iter().enumerate() {
        assert!(matches!(error, Some(StoreError::Corrupt(_))), "{index}: {error:?}");
    }
}

#[test]
fn two_processes_may_make_the_same_store_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let open = || SqliteStore::open(folder.path()).unwrap().reserve_build().unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        let mut drawn: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap().0).collect();
        drawn.sort_unstable();
        assert_eq!(drawn, [1, 2, 3, 4]);
    });
}

#[test]
fn a_graph_is_stored_once_and_goes_with_its_last_build() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open_at(folder.path(), Opening::default(), 1).unwrap());
    database(folder.path()).execute_batch(DATA[0]).unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let facts = store.facts(BuildId(1)).unwrap();
    store.delete_build(BuildId(1)).unwrap();
    for build in [BuildId(2), BuildId(3)] {
        let facts: Vec<_> = facts.iter().map(|fact| Fact { build, ..fact.clone() }).collect();
        store.append(&facts).unwrap();
    }
    let graphs =
        || -> u32 { database(folder.path()).query_row("select count(*) from graphs", [], |row| row.get(0)).unwrap() };
    assert_eq!(graphs(), 1);
    store.delete_build(BuildId(2)).unwrap();
    assert_eq!(graphs(), 1);
    store.delete_build(BuildId(3)).unwrap();
    assert_eq!(graphs(), 0);
}

#[test]
fn a_newer_database_that_says_we_may_use_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(folder.path()).unwrap());
    let later = "insert into migrations (number, name, checksum, readable_from) values (?1, 'later', '', ?2)";
    database(folder.path()).execute(later, [VERSION + 1, VERSION]).unwrap();
    database(folder.path()).pragma_update(None, "user_version", VERSION).unwrap();
    assert_eq!(SqliteStore::open(folder.path()).unwrap().reserve_build().unwrap(), BuildId(1));
}

/// What programs of version 2 say to a database, as it stood in their source.
const STATEMENTS_OF_2: &str = include_str!("tests/statements_of_2.sql");

#[test]
fn programs_of_version_2_go_on_with_a_database_of_today() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open_at(folder.path(), Opening::default(), 2).unwrap());
    database(folder.path()).execute_batch(DATA[1]).unwrap();
    drop(SqliteStore::open(folder.path()).unwrap());
    let database = database(folder.path());
    // This is what they look at to see whether they may.
    let seen: u32 = database.query_row("pragma user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(seen, 2);
    for sql in STATEMENTS_OF_2.split(";\n").map(str::trim).filter(|sql| !sql.is_empty()) {
        let mut statement = database.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        if statement.readonly() {
            let values = vec![rusqlite::types::Value::Integer(1); statement.parameter_count()];
            let mut rows = statement.query(rusqlite::params_from_iter(values)).unwrap();
            assert!(rows.next().unwrap().is_some(), "{sql} finds what is there");
        } else {
            statement.execute([]).unwrap();
        }
    }
    // What they wrote is read again.
    let store = SqliteStore::open(folder.path()).unwrap();
    let row = store.build(BuildId(2)).unwrap().unwrap();
    assert!(row.origin.is_empty() && row.jobs == 1, "{row:?}");
}

#[test]
fn lists_of_builds_are_read_off_an_index_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(folder.path()).unwrap());
    let text = |text: &str| Some(text.to_owned());
    let all = BuildFilter::default;
    let (project, branch, commit) = (text("sails"), text("main"), text(&"ab".repeat(20)));
    let (verdict, of_project) = (Some(VerdictWord::Failed), BuildFilter { project: project.clone(), ..all() });
    let filters = [
        (all(), "PRIMARY KEY"),
        (BuildFilter { branch: branch.clone(), ..all() }, "builds_branch "),
        (BuildFilter { verdict, ..all() }, "builds_verdict "),
        (of_project.clone(), "builds_project "),
        (BuildFilter { branch: branch.clone(), ..of_project.clone() }, "builds_project_branch "),
        (BuildFilter { verdict, ..of_project.clone() }, "builds_project_verdict "),
        (BuildFilter { branch, verdict, ..of_project.clone() }, "builds_project_branch_verdict "),
        (BuildFilter { commit: commit.clone(), ..of_project }, "builds_commit "),
    ];
    let plan = |filter: &BuildFilter| {
        let (sql, values) = projected::builds_query(filter, None, 50);
        let database = database(folder.path());
        let mut statement = database.prepare(&format!("explain query plan {sql}")).unwrap();
        let plan = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
        plan.collect::<Result<Vec<_>, _>>().unwrap().join("; ") + " "
    };
    for (filter, index) in filters {
        let plan = plan(&filter);
        assert!(plan.contains(index) && !plan.contains("TEMP"), "{filter:?}: {plan}");
    }
    // Of few builds, which are sorted.
    for project in [None, project] {
        let filter = BuildFilter { commit: text("abababa"), project, ..all() };
        let plan = plan(&filter);
        assert!(plan.contains("builds_commit (commit_id>? AND commit_id<?)"), "{filter:?}: {plan}");
    }
}
