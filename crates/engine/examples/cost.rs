//! Measures what the engine costs a job: `cargo run --release -p ropewalk-engine --example cost`.
//!
//! Prints microseconds and bytes a job, for chains, fans and layers of 1,000, 10,000 and 100,000 jobs, from the
//! evaluation to the build's end, with one worker of two slots whose attempts end at once; then what a decision costs.
//! With `decide JOBS WORKERS` it prints the microseconds of one decision alone.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use graph::*;
use ropewalk_engine::{BuildOptions, BuildRequest, Effect, Engine, Input, Presence};

/// Counts the bytes in use.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, n_jobs, n_workers] = &arguments[..]
        && word == "decide"
    {
        let number = |text: &str| text.parse().expect("decide JOBS WORKERS");
        println!("{}", decide(number(n_jobs), number(n_workers)).0);
        return;
    }
    for (shape, needs) in [("chain", chain as fn(usize) -> Vec<usize>), ("fan", fan), ("layers", layers)] {
        for n_jobs in [1000, 10_000, 100_000] {
            let (micros, bytes) = measure(n_jobs, needs);
            println!("{shape:>6} of {n_jobs:>6}: {micros:6.2} µs and {bytes:5} bytes a job");
        }
    }
    let mut first = None;
    for n_workers in [100, 1000, 10_000] {
        for n_jobs in [1000, 10_000, 100_000] {
            let (micros, why_micros) = decide(n_jobs, n_workers);
            let ratio = micros / *first.get_or_insert(micros);
            println!(
                "{n_jobs:>6} waiting jobs, {n_workers:>6} workers: {micros:6.2} µs a decision ({:.0} a second, ratio {ratio:.2}); \
                 the place of a job {why_micros:.1} µs",
                1e6 / micros
            );
        }
    }
}

/// Microseconds for each end of an attempt and the lease that follows, in a queue that stays as long, in batches of 16; and
/// for telling a job's place in it. Four clients, three kinds of demand.
fn decide(n_jobs: usize, n_workers: usize) -> (f64, f64) {
    const DECISIONS: usize = 20_000;
    let mut engine = Engine::new();
    for worker in 0..n_workers {
        let presence = Presence {
            pools: [String::new()].into(),
            labels: ["small".to_owned(), "large".to_owned()].into(),
            slots: 2,
            resources: Resources::default(),
            leases: BTreeSet::new(),
            holds_ms: 0,
            intake: ropewalk_engine::Intake::Open,
        };
        engine
            .step(Timestamp(0), vec![Input::WorkerPresent { worker: WorkerId(format!("w{worker}").into()), presence }]);
    }
    let mut started = std::collections::VecDeque::new();
    let take = |effects: Vec<Effect>| {
        let starts = effects.into_iter().filter_map(|effect| match effect {
            Effect::Start { spec, .. } => Some((spec.build, spec.attempt, spec.lease)),
            _ => None,
        });
        starts.collect::<Vec<_>>()
    };
    for client in 0..4_u64 {
        let build = BuildId(client + 1);
        let request = BuildRequest {
            client: format!("client {client}"),
            ..BuildRequest::new(Event::new(EventKind::Push), String::new())
        };
        engine.step(Timestamp(0), vec![Input::BuildRequested { build, request: Box::new(request) }]);
        let n_of_client = (n_jobs + 2 * n_workers + DECISIONS) / 4;
        let jobs = (0..n_of_client).map(|index| {
            let labels = [[].as_slice(), &["small"], &["large"]][index % 3].iter().map(|&label| label.to_owned());
            let steps = vec![Step { run: "true".into(), ..Step::default() }];
            let job = Job { order: index as u32, labels: labels.collect(), steps, ..Job::default() };
            (JobName::from(format!("j{index:06}")), Arc::new(job))
        });
        let graph = Graph { jobs: jobs.collect(), ..Graph::default() };
        let evaluation = Box::new(Evaluation { graph, ..Evaluation::default() });
        started.extend(take(
            engine.step(Timestamp(0), vec![Input::Evaluated { build, answers_known: 0, evaluation }]).effects,
        ));
    }
    let start = Instant::now();
    for round in 0..DECISIONS / 16 {
        let ended = started.drain(..16).map(|(build, attempt, lease)| {
            let report = Box::new(AttemptReport::of(Outcome::passed(), Timestamp(round as i64)));
            Input::AttemptFinished { build, attempt, lease, report }
        });
        let ended = ended.collect();
        started.extend(take(engine.step(Timestamp(round as i64), ended).effects));
    }
    let micros = start.elapsed().as_secs_f64() * 1e6 / DECISIONS as f64;
    let queue = engine.queue("", None, 1000);
    let start = Instant::now();
    let known = queue.iter().filter_map(|(build, job)| engine.why(*build, job)).count();
    assert_eq!(known, queue.len());
    (micros, start.elapsed().as_secs_f64() * 1e6 / queue.len().max(1) as f64)
}

fn chain(index: usize) -> Vec<usize> {
    index.checked_sub(1).into_iter().collect()
}

fn fan(index: usize) -> Vec<usize> {
    if index == 0 { Vec::new() } else { vec![0] }
}

/// Layers of 100 jobs, each of which needs four of the layer before.
fn layers(index: usize) -> Vec<usize> {
    if index < 100 { Vec::new() } else { (0..4).map(|leg| index / 100 * 100 - 100 + (index * 7 + leg) % 100).collect() }
}

fn measure(n_jobs: usize, needs: fn(usize) -> Vec<usize>) -> (f64, usize) {
    let mut graph = Graph::default();
    for index in 0..n_jobs {
        let needs: BTreeSet<usize> = needs(index).into_iter().collect();
        let job = Job {
            order: index as u32,
            needs: needs.into_iter().map(|need| Need::success(format!("job-{need:06}"))).collect(),
            steps: vec![Step { run: "true".into(), ..Step::default() }],
            ..Job::default()
        };
        graph.jobs.insert(format!("job-{index:06}").into(), Arc::new(job));
    }
    let (event, pipeline, options) = (Event::new(EventKind::Push), String::new(), BuildOptions::default());
    let request = Box::new(BuildRequest { options, ..BuildRequest::new(event, pipeline) });
    let presence = Presence {
        pools: [String::new()].into(),
        labels: BTreeSet::new(),
        slots: 2,
        resources: Resources::default(),
        leases: BTreeSet::new(),
        holds_ms: 0,
        intake: ropewalk_engine::Intake::Open,
    };
    let evaluation = Box::new(Evaluation { graph, ..Evaluation::default() });
    let mut engine = Engine::new();
    let build = BuildId(1);
    let bytes_before = BYTES.load(Ordering::Relaxed);
    let start = Instant::now();
    engine.step(Timestamp(0), vec![Input::WorkerPresent { worker: WorkerId("w".into()), presence }]);
    engine.step(Timestamp(0), vec![Input::BuildRequested { build, request }]);
    let mut step = engine.step(Timestamp(0), vec![Input::Evaluated { build, answers_known: 0, evaluation }]);
    let mut clock = 0;
    loop {
        let ended = std::mem::take(&mut step.effects).into_iter().filter_map(|effect| match effect {
            Effect::Start { spec, .. } => {
                let report = Box::new(AttemptReport::of(Outcome::passed(), Timestamp(clock)));
                Some(Input::AttemptFinished { build, attempt: spec.attempt, lease: spec.lease, report })
            }
            _ => None,
        });
        let ended: Vec<Input> = ended.collect();
        if ended.is_empty() {
            break;
        }
        clock += 1;
        step = engine.step(Timestamp(clock), ended);
    }
    let micros = start.elapsed().as_secs_f64() * 1e6 / n_jobs as f64;
    assert_eq!(engine.verdict(build), Some(Verdict::Passed { note: None }));
    let bytes = BYTES.load(Ordering::Relaxed).saturating_sub(bytes_before) / n_jobs;
    (micros, bytes)
}
