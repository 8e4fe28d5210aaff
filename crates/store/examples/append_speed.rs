//! What it costs to store facts, beside inserts of the same bytes through rusqlite alone.
//!
//! Run with `cargo run --release -p ropewalk-store --example append_speed`. Figures are medians of rounds that
//! take turns, so that they may be compared with one another and with nothing else.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::fact::{Fact, What};
use engine::{BuildRequest, Ended, Reused};
use graph::{
    AttemptNumber, AttemptReport, BuildId, Digest, Event, EventKind, Graph, Job, JobName, LeaseId, Outcome, Step,
    StepReport, StepResult, Timestamp, Usage, Verdict, WorkerId,
};
use ropewalk_store::{SqliteStore, Store, StoreError};

const ROUNDS: usize = 9;
const JOBS: u32 = 2_000;
const GRAPH_JOBS: u32 = 10_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(&folder.path().join("store"))?;
    let raw = rusqlite::Connection::open(folder.path().join("raw.db"))?;
    raw.execute_batch(
        "pragma journal_mode = wal; pragma synchronous = normal; create table facts (body text) strict;",
    )?;

    let mut figures = BTreeMap::<&str, Vec<f64>>::new();
    for _ in 0..ROUNDS {
        let mut note = |name, took: Duration, per: u32| {
            figures.entry(name).or_default().push(took.as_secs_f64() * 1e6 / f64::from(per));
        };
        let build = begin(&store)?;
        let facts = job_facts(build);
        note("append: commit of 2 facts (a job ended, the next leased)", each(&facts, 2, |f| store.append(f))?, JOBS);
        store.append(&[ended(build)])?;
        note("raw: commit of 2 rows with the same JSON", each(&facts, 2, |f| insert(&raw, f))?, JOBS);

        let build = begin(&store)?;
        let facts = job_facts(build);
        note("append: one fact, in batches of 100", each(&facts, 100, |f| store.append(f))?, 2 * JOBS);
        store.append(&[ended(build)])?;
        note("raw: one row, in batches of 100", each(&facts, 100, |f| insert(&raw, f))?, 2 * JOBS);

        let build = begin(&store)?;
        let facts = reuse_facts(build);
        note(
            "append: one fact, 10,000 reused jobs at once",
            each(&facts, facts.len(), |f| store.append(f))?,
            2 * GRAPH_JOBS,
        );
        store.append(&[ended(build)])?;

        note(
            "facts: one fact read back",
            timed(|| store.facts(build).map(|facts| drop(black_box(facts))))?,
            2 * GRAPH_JOBS,
        );
        note(
            "jobs: one of 10,000 rows read",
            timed(|| store.jobs(build).map(|rows| drop(black_box(rows))))?,
            GRAPH_JOBS,
        );
        note(
            "builds: newest 50",
            timed(|| store.builds(&Default::default(), None, 50).map(|rows| drop(black_box(rows))))?,
            1,
        );
        let build = begin(&store)?;
        note("append: the graph of 10,000 jobs, known already", timed(|| store.append(&[evaluated(build)]))?, 1);
        note("reserve_build", timed(|| store.reserve_build().map(drop))?, 1);
    }
    drop(store);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let store = SqliteStore::open(&folder.path().join("store"))?;
        figures.entry("open: an existing store").or_default().push(begun.elapsed().as_secs_f64() * 1e6);
        let begun = Instant::now();
        black_box(store.unfinished()?);
        figures.entry("unfinished: after opening").or_default().push(begun.elapsed().as_secs_f64() * 1e6);
        store.reserve_build()?;
        let begun = Instant::now();
        drop(store);
        figures.entry("close").or_default().push(begun.elapsed().as_secs_f64() * 1e6);
    }
    for (name, mut microseconds) in figures {
        microseconds.sort_by(f64::total_cmp);
        let (least, median) = (microseconds[0], microseconds[microseconds.len() / 2]);
        println!("{name:<60} {median:>10.2} us (least {least:.2})");
    }
    Ok(())
}

fn timed<E>(work: impl FnOnce() -> Result<(), E>) -> Result<Duration, E> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

fn each<E>(facts: &[Fact], batch: usize, append: impl Fn(&[Fact]) -> Result<(), E>) -> Result<Duration, E> {
    timed(|| facts.chunks(batch).try_for_each(append))
}

fn insert(raw: &rusqlite::Connection, facts: &[Fact]) -> rusqlite::Result<()> {
    raw.prepare_cached("begin immediate")?.execute([])?;
    let mut statement = raw.prepare_cached("insert into facts (body) values ($1)")?;
    for fact in facts {
        statement.execute([serde_json::to_string(fact).expect("a fact always serializes")])?;
    }
    raw.prepare_cached("commit")?.execute([])?;
    Ok(())
}

fn fact(build: BuildId, what: What) -> Fact {
    Fact { build, at: Timestamp(1_763_700_000_000_000), what }
}

fn name(index: u32) -> JobName {
    format!("test/shard-{index}").into()
}

fn begin(store: &SqliteStore) -> Result<BuildId, StoreError> {
    let build = store.reserve_build()?;
    let request = BuildRequest::new(Event::new(EventKind::Manual), ".ropewalk/pipeline.yaml");
    store.append(&[fact(build, What::BuildCreated(Box::new(request))), evaluated(build)])?;
    Ok(build)
}

fn evaluated(build: BuildId) -> Fact {
    let job = |index| {
        let step = Step { run: "cargo test --workspace -- --exact".into(), ..Step::default() };
        (name(index), Arc::new(Job { order: index, steps: vec![step], ..Job::default() }))
    };
    let graph = Graph { jobs: (0..GRAPH_JOBS).map(job).collect(), ..Graph::default() };
    fact(
        build,
        What::Evaluated { graph: Arc::new(graph), questions: Vec::new(), diagnostics: Vec::new(), program: None },
    )
}

fn ended(build: BuildId) -> Fact {
    fact(build, What::BuildEnded { verdict: Verdict::Passed { note: None } })
}

/// Each job is leased and then passes; a pair is the end of one and the lease of the next.
fn job_facts(build: BuildId) -> Vec<Fact> {
    let leased = |index: u32| {
        let (attempt, lease) = (AttemptNumber(index + 1), LeaseId(u64::from(index) + 1));
        let worker = WorkerId("local".into());
        fact(
            build,
            What::AttemptLeased {
                job: name(index),
                attempt,
                try_number: 1,
                lease,
                worker,
                partial: None,
                waited_for: None,
            },
        )
    };
    let finished = |index: u32| {
        let at = Timestamp(1_763_700_000_000_000);
        let mut report = AttemptReport::of(Outcome::passed(), at);
        report.usage = Usage { peak_memory_bytes: 3 << 20, cpu_user_us: 812, cpu_system_us: 377 };
        report.steps.push(StepReport {
            name: "cargo test".to_owned(),
            exit: Some(0),
            signal: None,
            result: StepResult::Passed,
            started: at,
            finished: at,
            usage: report.usage,
            outputs: BTreeMap::new(),
            lines: 12,
        });
        let (attempt, lease) = (AttemptNumber(index + 1), LeaseId(u64::from(index) + 1));
        fact(
            build,
            What::AttemptFinished { job: name(index), attempt, lease, report: Box::new(report), retry_at: None },
        )
    };
    (0..JOBS).flat_map(|index| [leased(index), finished(index)]).collect()
}

fn reuse_facts(build: BuildId) -> Vec<Fact> {
    let known = |index: u32| {
        let operation = Digest(*blake3::hash(&index.to_le_bytes()).as_bytes());
        fact(build, What::OperationKnown { job: name(index), operation, evicted: None })
    };
    let reused = |index: u32| {
        let reused = Reused { build, attempt: AttemptNumber(index), job: name(index), artifacts: BTreeMap::new() };
        let how = Ended::Reused(reused);
        fact(build, What::JobEnded { job: name(index), outcome: Outcome::passed(), how })
    };
    (0..GRAPH_JOBS).map(known).chain((0..GRAPH_JOBS).map(reused)).collect()
}
