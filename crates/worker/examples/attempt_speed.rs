//! What a whole attempt costs beyond a raw `posix_spawn` of its shell, and how fast output flows: `cargo run --release
//! --example attempt_speed [ROUNDS]`. Rows are measured in turns, in batches, and printed as medians.
//!
//! Log and depot take everything and keep nothing, so that the figures are the worker's own.

use std::ffi::CStr;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use graph::{AttemptNumber, AttemptSpec, BuildId, Digest, Event, EventKind, Job, JobName, LeaseId, Outcome};
use ropewalk_worker::depot::{
    AttemptLog, CacheEntry, CacheSaved, CacheScope, Depot, DepotError, LogEnd, LogError, LogSink, Secrets, Stream,
};
use ropewalk_worker::keeper::{Keeper, Processes};
use ropewalk_worker::{Cancel, Settings, Worker, run_attempt};

/// Attempts between two looks at the clock.
const BATCH: u32 = 100;

/// What the flood prints.
const FLOOD_BYTES: u64 = 1 << 30;

struct Nothing;

impl AttemptLog for Nothing {
    fn open_step(&self, _: u16) -> Box<dyn LogSink> {
        Box::new(Nothing)
    }
}

impl LogSink for Nothing {
    fn write(&mut self, _: Stream, _: &[u8], _: u64) -> Result<(), LogError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LogError> {
        Ok(())
    }

    fn close(self: Box<Self>) -> LogEnd {
        LogEnd::default()
    }
}

impl Depot for Nothing {
    fn put(&self, _: &[u8]) -> Result<Digest, DepotError> {
        Ok(Digest([0; 32]))
    }

    fn put_file(&self, _: &Path) -> Result<Digest, DepotError> {
        Ok(Digest([0; 32]))
    }

    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send>, DepotError> {
        Err(DepotError::Absent(digest))
    }

    fn missing(&self, _: &[Digest]) -> Result<Vec<Digest>, DepotError> {
        Ok(Vec::new())
    }

    fn find_cache(&self, _: &CacheScope, _: &str, _: &[String]) -> Result<Option<CacheEntry>, DepotError> {
        Ok(None)
    }

    fn save_cache(&self, _: &CacheScope, _: &CacheEntry, _: Option<Digest>) -> Result<CacheSaved, DepotError> {
        Ok(CacheSaved::Saved)
    }
}

fn main() {
    let keeper = match Keeper::start() {
        Ok(keeper) => keeper,
        Err(error) => return eprintln!("{error}"),
    };
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(11);
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(measure(keeper, rounds)),
        Err(error) => eprintln!("{error}"),
    }
}

async fn measure(keeper: Keeper, rounds: usize) {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("repository");
    std::fs::create_dir(&root).expect("a directory");
    let git = std::process::Command::new("git").args(["init", "-q"]).current_dir(&root).status();
    git.expect("git");
    let processes = Processes::attach(keeper).expect("a tokio runtime");
    let settings = Settings {
        root,
        data: directory.path().join("data"),
        walled_off: Vec::new(),
        build: BuildId(1),
        grace: Duration::from_secs(10),
        observer: None,
        shown: None,
        notes: Vec::new(),
        steps: ropewalk_worker::workspace::StepBounds::default(),
        passed: ropewalk_worker::cache::Passed::default(),
    };
    let worker = Worker::new(processes.clone(), settings).await.expect("a worker");
    let mut medians: [Vec<Duration>; 4] = Default::default();
    let trivial = r#"{"workspace": "in_place", "steps": [{"run": "true"}]}"#;
    let isolated = r#"{"steps": [{"run": "true"}]}"#;
    let sandboxed = r#"{"environment": {"sandbox": {}}, "steps": [{"run": "true"}]}"#;
    for _ in 0..rounds {
        let clock = Instant::now();
        (0..BATCH).for_each(|_| raw_step());
        medians[0].push(clock.elapsed() / BATCH);
        for (place, job) in [trivial, isolated, sandboxed].into_iter().enumerate() {
            let clock = Instant::now();
            for number in 0..BATCH {
                attempt(&worker, job, number).await;
            }
            medians[place + 1].push(clock.elapsed() / BATCH);
        }
    }
    let raw = median(&mut medians[0]);
    for (name, row) in ["raw posix_spawn + waitpid", "in place", "isolated", "sandbox"].into_iter().zip(&mut medians) {
        let value = median(row);
        println!("{name:<28} {:>9.1} us  {:>6.2}x", value.as_secs_f64() * 1e6, value.as_secs_f64() / raw.as_secs_f64());
    }
    let before = process_time();
    let clock = Instant::now();
    let flood = format!(r#"{{"workspace": "in_place", "steps": [{{"run": "head -c {FLOOD_BYTES} /dev/zero"}}]}}"#);
    attempt(&worker, &flood, 0).await;
    let (wall, cpu) = (clock.elapsed(), process_time() - before);
    println!(
        "1 GiB of output              {:>9.0} MB/s, reader at {:.0} % of a core",
        FLOOD_BYTES as f64 / 1e6 / wall.as_secs_f64(),
        cpu.as_secs_f64() / wall.as_secs_f64() * 100.0
    );
    drop(worker);
    processes.close().await;
}

/// CPU time of this process.
fn process_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one value to where it is.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

async fn attempt(worker: &Worker, job: &str, number: u32) {
    let job: Job = serde_json::from_str(job).expect("a job");
    let spec = AttemptSpec {
        lease: LeaseId(1),
        build: BuildId(1),
        attempt: AttemptNumber(number),
        try_number: 1,
        name: JobName::from("speed"),
        job: Arc::new(job),
        event: Arc::new(Event::new(EventKind::Push)),
        needs: Default::default(),
        gate: None,
        images: Default::default(),
        operation: None,
        origin: Default::default(),
        asked: None,
        quarantine: Vec::new(),
    };
    let report =
        run_attempt(worker, spec, Secrets::default(), Arc::new(Nothing), Arc::new(Nothing), Cancel::new()).await;
    assert!(matches!(report.outcome, Outcome::Passed { .. }), "{report:?}");
}

fn median(values: &mut [Duration]) -> Duration {
    values.sort();
    values[values.len() / 2]
}

/// The same shell, started and waited for with nothing around it.
fn raw_step() {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    let arguments: [&CStr; 4] = [c"sh", c"-e", c"-c", c"true"];
    let mut pointers: Vec<*mut libc::c_char> = arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    let mut pid = 0;
    let mut status = 0;
    // SAFETY: the path, the arguments and the environment are NUL-terminated and outlive the calls.
    unsafe {
        let path = c"/bin/sh".as_ptr();
        assert_eq!(
            libc::posix_spawn(&raw mut pid, path, std::ptr::null(), std::ptr::null(), pointers.as_ptr(), environ),
            0
        );
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
    }
}
