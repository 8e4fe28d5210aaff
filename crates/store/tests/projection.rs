//! The law of rows: however facts are split over appends, processes and openings, the stored rows are those that
//! folding the facts from nothing gives.

mod sample;

use engine::fact::{Fact, What};
use graph::{BuildId, Failure, JobName, Outcome, SkipReason, Verdict};
use proptest::prelude::*;
use ropewalk_store::rows::{BuildRows, rows_of};
use ropewalk_store::{MemoryStore, SqliteStore, Store};
use sample::{at, created, decided, evaluated, fact, failed, finished, leased, passed, reused, with_tests};

const BUILDS: u64 = 3;

/// What happens between two appends.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// Nothing.
    GoOn,
    /// The next append comes from the other of two that have the store open.
    OtherWriter,
    /// The other one reads rows, and so projects what waits.
    OtherReader,
    /// The store is closed and opened again.
    Reopen,
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(passed()),
        Just(failed(1)),
        Just(Outcome::Failed(Failure::Lost)),
        Just(Outcome::Failed(Failure::Canceled { by: "ann".to_owned() })),
        Just(Outcome::Skipped(SkipReason::Dropped)),
    ]
}

/// Any fact about one of three builds and jobs; most sequences make no sense, which must not matter.
fn any_fact() -> impl Strategy<Value = Fact> {
    let build = (1..=BUILDS).prop_map(BuildId);
    let job = prop_oneof![Just("a"), Just("b/1"), Just("c")];
    (build, job, 1..5_u32, any_outcome(), 0..15_u8).prop_map(|(build, job, attempt, outcome, kind)| {
        let name = JobName::from(job);
        match kind {
            0 => leased(build, job, attempt),
            1 => finished(build, job, attempt, outcome, None),
            2 => finished(build, job, attempt, outcome, Some(at(40))),
            3 => with_tests(build, job, attempt),
            4 => decided(build, job, outcome),
            5 => reused(build, job, BuildId(1)),
            6 => fact(build, 50, What::GateOpened { job: name, prompt: "go on?".to_owned() }),
            7 => fact(
                build,
                51,
                What::GateAnswered { job: name, answer: None, by: "ann".to_owned(), reason: String::new() },
            ),
            8 => fact(build, 52, What::JobRetried { job: name, by: "ann".to_owned(), tests: None, key: None }),
            9 => fact(build, 53, What::OperationKnown { job: name, operation: sample::digest(job), evicted: None }),
            10 => fact(build, 54, What::BuildEnded { verdict: Verdict::Failed { because: Some(name) } }),
            11 => fact(build, 55, What::CancelRequested { by: job.to_owned() }),
            12 => fact(build, 56, What::ChildMade { job: name, try_number: attempt, child: BuildId(9) }),
            13 => fact(build, 57, What::ChildFailed { job: name, child: BuildId(9), outcome, retry_at: at(60) }),
            _ => evaluated(build, Default::default()),
        }
    })
}

fn any_appends() -> impl Strategy<Value = Vec<(Vec<Fact>, Then)>> {
    let then = prop_oneof![4 => Just(Then::GoOn), 2 => Just(Then::OtherWriter), 1 => Just(Then::OtherReader), 1 => Just(Then::Reopen)];
    prop::collection::vec((prop::collection::vec(any_fact(), 1..6), then), 1..14)
}

fn stored_rows(store: &dyn Store, build: BuildId) -> Option<BuildRows> {
    Some(BuildRows {
        build: store.build(build).unwrap()?,
        jobs: store.jobs(build).unwrap(),
        attempts: store.attempts(build, None).unwrap(),
        gates: store.gates(build).unwrap(),
        artifacts: store.artifacts(build).unwrap(),
    })
}

/// Appends in two stores at once and compares them with the fold and with each other.
fn check(appends: &[(Vec<Fact>, Then)]) {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let open = || SqliteStore::open(folder.path()).expect("the store opens");
    let memory = MemoryStore::new();
    let mut stores = [open(), open()];
    let creations: Vec<_> = (1..=BUILDS).map(|build| created(BuildId(build))).collect();
    memory.append(&creations).unwrap();
    stores[0].append(&creations).unwrap();
    for (facts, then) in appends {
        memory.append(facts).unwrap();
        stores[0].append(facts).unwrap();
        match then {
            Then::GoOn => {}
            Then::OtherWriter => stores.swap(0, 1),
            Then::OtherReader => {
                let build = facts[0].build;
                assert_eq!(stored_rows(&stores[1], build), stored_rows(&memory, build));
            }
            Then::Reopen => stores[0] = open(),
        }
    }
    for build in (1..=BUILDS).map(BuildId) {
        let facts = memory.facts(build).unwrap();
        assert_eq!(stores[0].facts(build).unwrap(), facts);
        let folded = rows_of(&facts).unwrap();
        assert_eq!(stored_rows(&stores[0], build), folded);
        assert_eq!(stored_rows(&memory, build), folded);
        assert_eq!(stores[0].reports(build, None).unwrap(), memory.reports(build, None).unwrap());
        assert_eq!(stores[0].graph(build).unwrap(), memory.graph(build).unwrap());
        // The counts are those that the rows of the jobs give.
        let folded = folded.unwrap();
        let ended = folded.jobs.iter().filter(|job| job.outcome.is_some()).count() as u64;
        assert_eq!(folded.build.counts.ended(), ended);
        let open = memory.open_gates(build).unwrap().len() as u64;
        assert_eq!(folded.build.open_gates, open);
    }
    let names = ["a", "b/1", "c"].map(JobName::from);
    assert_eq!(stores[0].durations("", &names).unwrap(), memory.durations("", &names).unwrap());
    assert_eq!(stores[0].unfinished().unwrap(), memory.unfinished().unwrap());
    assert_eq!(stores[0].referenced_blobs().unwrap(), memory.referenced_blobs().unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stored_rows_are_those_that_the_facts_give(appends in any_appends()) {
        check(&appends);
    }
}
