//! Fills the database of a server that is not running with builds that have ended, for measurements.
//!
//! Run with `cargo run --release -p ropewalk-store --example past_builds FOLDER COUNT`: the folder `records` of the server's
//! data folder, and how many builds to add.

use std::error::Error;
use std::path::PathBuf;

use engine::BuildRequest;
use engine::fact::{Fact, What};
use graph::{
    AttemptNumber, AttemptReport, BuildId, Event, EventKind, LeaseId, Origin, Outcome, Timestamp, Verdict, WorkerId,
};
use ropewalk_store::{Durability, Journal, Opening, SqliteStore, Store};

const PROJECTS: u64 = 100;
const BRANCHES: u64 = 20;
const BATCH: u64 = 500;
/// The usual time of the first; each next one is a second later.
const FIRST: i64 = 1_763_700_000_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(count)) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        return Err("past_builds FOLDER COUNT".into());
    };
    let mut left: u64 = count.parse()?;
    // What is filled in need not outlive the power, and nobody reads it in the order in which it happened.
    let store = SqliteStore::open_with(&folder, Opening { durability: Durability::Process, journal: Journal::Off })?;
    while left > 0 {
        let mut facts = Vec::new();
        for _ in 0..left.min(BATCH) {
            facts.extend(past(store.reserve_build()?));
        }
        store.append(&facts)?;
        left -= left.min(BATCH);
    }
    Ok(())
}

/// What happened in a build of one job. One of fifty fails.
fn past(build: BuildId) -> [Fact; 4] {
    let at = Timestamp(FIRST + i64::try_from(build.0).unwrap_or(0) * 1_000_000);
    let event = Event {
        branch: Some(format!("branch-{}", build.0 / PROJECTS % BRANCHES)),
        commit: format!("{:040x}", build.0),
        ..Event::new(EventKind::Push)
    };
    let mut request = BuildRequest::new(event, ".ropewalk/pipeline.yaml");
    let project = format!("past-{}", build.0 % PROJECTS);
    request.origin = Origin { project, number: 1 + build.0 / PROJECTS, source: None };
    let (job, attempt, lease) = ("test".into(), AttemptNumber(1), LeaseId(1));
    let report = Box::new(AttemptReport::of(Outcome::passed(), at));
    let verdict = match build.0 % 50 {
        0 => Verdict::Failed { because: None },
        _ => Verdict::Passed { note: None },
    };
    [
        What::BuildCreated(Box::new(request)),
        What::AttemptLeased {
            job,
            attempt,
            try_number: 1,
            lease,
            worker: WorkerId("worker".into()),
            partial: None,
            waited_for: None,
        },
        What::AttemptFinished { job: "test".into(), attempt, lease, report, retry_at: None },
        What::BuildEnded { verdict },
    ]
    .map(|what| Fact { build, at, what })
}
