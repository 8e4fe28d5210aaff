//! The contract of [`Store`] and [`LogChunks`], run for every implementation.

mod builds;
mod copies;
#[cfg(feature = "postgres")]
#[path = "../database/mod.rs"]
#[allow(dead_code, reason = "tests of other crates take it too")]
mod database;
#[cfg(feature = "postgres")]
mod postgres;
#[path = "../sample/mod.rs"]
mod sample;
mod server;

use std::cell::RefCell;

use ropewalk_store::chunk::LogChunks;
use ropewalk_store::{FaultyStore, Journal, MemoryStore, Opening, SqliteStore, Store};

/// All doors of an implementation.
trait Kept: Store + LogChunks {}
impl<T: Store + LogChunks> Kept for T {}

/// Makes an empty store.
type Make = Box<dyn Fn() -> Box<dyn Kept>>;

thread_local! {
    /// Where tests of the contract run instead of on all implementations that need nothing installed.
    static INSTEAD: RefCell<Option<Make>> = const { RefCell::new(None) };
}

/// Runs one test of the contract on an empty store of each kind.
fn check(test: impl Fn(&dyn Kept)) {
    if let Some(store) = INSTEAD.with_borrow(|make| make.as_ref().map(|make| make())) {
        return test(&*store);
    }
    test(&MemoryStore::with_journal(Journal::Kept));
    test(&FaultyStore::new(MemoryStore::with_journal(Journal::Kept), 1, 0));
    let folder = tempfile::tempdir().expect("a scratch folder");
    let laptop = Opening { journal: Journal::Kept, ..Opening::default() };
    test(&SqliteStore::open_with(&folder.path().join("laptop"), laptop).expect("a new store opens"));
    test(&SqliteStore::open_with(&folder.path().join("server"), Opening::SERVER).expect("a new store opens"));
}

/// The contract, for an implementation that needs something to be started.
#[cfg(feature = "postgres")]
const CONTRACT: &[(&str, fn())] = &[
    (
        "builds::numbers_of_builds_begin_at_one_and_are_never_given_twice",
        builds::numbers_of_builds_begin_at_one_and_are_never_given_twice,
    ),
    ("builds::facts_come_back_as_they_were_and_in_order", builds::facts_come_back_as_they_were_and_in_order),
    ("builds::a_refused_append_leaves_nothing", builds::a_refused_append_leaves_nothing),
    ("builds::no_build_takes_the_place_of_another", builds::no_build_takes_the_place_of_another),
    ("builds::an_empty_append_does_nothing", builds::an_empty_append_does_nothing),
    ("builds::builds_without_an_end_are_unfinished", builds::builds_without_an_end_are_unfinished),
    ("builds::a_row_of_a_job_follows_its_facts", builds::a_row_of_a_job_follows_its_facts),
    ("builds::counts_tell_endings_apart", builds::counts_tell_endings_apart),
    ("builds::reports_and_tests_are_found_again", builds::reports_and_tests_are_found_again),
    ("builds::the_graph_is_the_last_one_evaluated", builds::the_graph_is_the_last_one_evaluated),
    ("builds::builds_are_listed_newest_first_page_by_page", builds::builds_are_listed_newest_first_page_by_page),
    ("builds::barriers_count_as_no_jobs", builds::barriers_count_as_no_jobs),
    ("builds::gates_open_and_are_answered_once", builds::gates_open_and_are_answered_once),
    (
        "builds::the_usual_duration_is_the_median_of_the_last_ten_that_passed",
        builds::the_usual_duration_is_the_median_of_the_last_ten_that_passed,
    ),
    (
        "builds::jobs_of_different_projects_have_durations_of_their_own",
        builds::jobs_of_different_projects_have_durations_of_their_own,
    ),
    (
        "builds::an_operation_is_found_until_it_is_evicted_and_then_explained",
        builds::an_operation_is_found_until_it_is_evicted_and_then_explained,
    ),
    ("builds::what_was_tried_is_known_and_never_reused", builds::what_was_tried_is_known_and_never_reused),
    ("builds::the_operations_of_a_job_are_evicted", builds::the_operations_of_a_job_are_evicted),
    (
        "builds::what_an_untrusted_build_wrote_a_trusted_one_never_reads",
        builds::what_an_untrusted_build_wrote_a_trusted_one_never_reads,
    ),
    ("builds::operations_are_listed_and_cleared", builds::operations_are_listed_and_cleared),
    ("builds::only_so_many_tombstones_are_kept", builds::only_so_many_tombstones_are_kept),
    (
        "builds::an_entry_of_a_cache_never_changes_while_it_lives",
        builds::an_entry_of_a_cache_never_changes_while_it_lives,
    ),
    (
        "builds::a_cache_is_restored_by_key_then_by_prefix_newest_first_scope_by_scope",
        builds::a_cache_is_restored_by_key_then_by_prefix_newest_first_scope_by_scope,
    ),
    (
        "builds::a_deleted_build_names_the_blobs_that_nothing_else_names",
        builds::a_deleted_build_names_the_blobs_that_nothing_else_names,
    ),
    ("builds::a_build_is_claimed_by_one", builds::a_build_is_claimed_by_one),
    (
        "server::numbers_of_a_project_begin_at_one_and_are_never_given_twice",
        server::numbers_of_a_project_begin_at_one_and_are_never_given_twice,
    ),
    ("server::a_build_is_found_by_its_number_in_its_project", server::a_build_is_found_by_its_number_in_its_project),
    ("server::builds_are_listed_by_project_and_commit", server::builds_are_listed_by_project_and_commit),
    ("server::the_journal_tells_appends_in_their_order", server::the_journal_tells_appends_in_their_order),
    ("server::one_leads_and_who_leads_no_more_may_not_append", server::one_leads_and_who_leads_no_more_may_not_append),
    ("server::several_records_are_written_or_none", server::several_records_are_written_or_none),
    ("server::a_record_is_written_if_it_is_as_expected", server::a_record_is_written_if_it_is_as_expected),
    (
        "server::of_many_writers_that_expect_the_same_one_writes",
        server::of_many_writers_that_expect_the_same_one_writes,
    ),
    ("server::records_are_listed_by_key_page_by_page", server::records_are_listed_by_key_page_by_page),
    ("server::what_is_too_large_is_refused", server::what_is_too_large_is_refused),
    ("server::the_audit_tells_actions_newest_first", server::the_audit_tells_actions_newest_first),
    (
        "server::pieces_of_logs_come_back_in_order_until_they_go",
        server::pieces_of_logs_come_back_in_order_until_they_go,
    ),
    (
        "server::sources_of_builds_and_of_records_are_referenced",
        server::sources_of_builds_and_of_records_are_referenced,
    ),
    ("builds::caches_are_found_by_how_long_nobody_used_them", builds::caches_are_found_by_how_long_nobody_used_them),
    (
        "builds::uses_of_caches_are_told_newest_first_and_pruned",
        builds::uses_of_caches_are_told_newest_first_and_pruned,
    ),
];

#[cfg(feature = "postgres")]
#[test]
fn the_contract_is_complete() {
    let tests = [include_str!("builds.rs"), include_str!("server.rs")].concat();
    assert_eq!(CONTRACT.len(), tests.matches("() {\n    check(").count());
}
