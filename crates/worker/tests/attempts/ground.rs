//! What every test here stands on: a worker over a scratch tree, a log and a depot in memory, and `check`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use graph::{
    AttemptNumber, AttemptReport, AttemptSpec, BuildId, Digest, Event, EventKind, Failure, Job, JobName, LeaseId,
    NeedResult, Outcome,
};
use ropewalk_worker::cache::Passed;
use ropewalk_worker::depot::{
    AttemptLog, CacheEntry, CacheSaved, CacheScope, Depot, DepotError, LogEnd, LogError, LogSink, Mask, Secrets, Stream,
};
use ropewalk_worker::keeper::{Keeper, Processes};
use ropewalk_worker::workspace::StepBounds;
use ropewalk_worker::{Cancel, Settings, Worker, run_attempt};
use serde_json::Value;

/// A log in memory: text up to a bound, bytes as a digest.
#[derive(Clone, Default)]
pub struct MemoryLog(pub Arc<Mutex<Logged>>);

/// What a log was given.
#[derive(Default)]
pub struct Logged {
    /// `STEP STREAM text`, as far as it is kept.
    pub pieces: Vec<(u16, Stream, Vec<u8>)>,
    /// Bytes of stdout of all steps, hashed.
    pub hasher: blake3::Hasher,
    /// How many.
    pub bytes: u64,
    /// Called before each write.
    pub gate: Option<Arc<dyn Fn(u64) + Send + Sync>>,
    /// Said at the end.
    pub failure: Option<LogError>,
}

const KEPT_BYTES_MAX: u64 = 1 << 20;

struct Sink {
    log: MemoryLog,
    step: u16,
    lines: u64,
}

impl AttemptLog for MemoryLog {
    fn open_step(&self, step: u16) -> Box<dyn LogSink> {
        Box::new(Sink { log: self.clone(), step, lines: 0 })
    }
}

impl LogSink for Sink {
    fn write(&mut self, stream: Stream, bytes: &[u8], _: u64) -> Result<(), LogError> {
        let gate = self.log.0.lock().unwrap().gate.clone();
        let so_far = self.log.0.lock().unwrap().bytes;
        if let Some(gate) = gate {
            gate(so_far);
        }
        let mut logged = self.log.0.lock().unwrap();
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        if stream == Stream::Stdout {
            logged.hasher.update(bytes);
            logged.bytes += bytes.len() as u64;
        }
        if logged.bytes < KEPT_BYTES_MAX {
            match logged.pieces.last_mut() {
                Some((step, last, text)) if (*step, *last) == (self.step, stream) => text.extend_from_slice(bytes),
                _ => logged.pieces.push((self.step, stream, bytes.to_vec())),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LogError> {
        Ok(())
    }

    fn close(self: Box<Self>) -> LogEnd {
        LogEnd { lines: self.lines, failure: self.log.0.lock().unwrap().failure.clone() }
    }
}

/// Blobs and caches in memory.
#[derive(Clone, Default)]
pub struct MemoryDepot(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    blobs: BTreeMap<Digest, Vec<u8>>,
    caches: Vec<(CacheScope, CacheEntry)>,
}

impl MemoryDepot {
    /// The keys of the cache, in the order in which they were saved.
    pub fn keys(&self) -> Vec<String> {
        self.0.lock().unwrap().caches.iter().map(|(_, entry)| entry.key.clone()).collect()
    }
}

impl Depot for MemoryDepot {
    fn put(&self, bytes: &[u8]) -> Result<Digest, DepotError> {
        let digest = Digest(*blake3::hash(bytes).as_bytes());
        self.0.lock().unwrap().blobs.insert(digest, bytes.to_vec());
        Ok(digest)
    }

    fn put_file(&self, path: &Path) -> Result<Digest, DepotError> {
        self.put(&std::fs::read(path).map_err(|error| DepotError::Refused(error.to_string()))?)
    }

    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send>, DepotError> {
        let kept = self.0.lock().unwrap();
        let blob = kept.blobs.get(&digest).ok_or(DepotError::Absent(digest))?;
        Ok(Box::new(std::io::Cursor::new(blob.clone())))
    }

    fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, DepotError> {
        let kept = self.0.lock().unwrap();
        Ok(digests.iter().filter(|digest| !kept.blobs.contains_key(digest)).copied().collect())
    }

    fn find_cache(&self, scope: &CacheScope, key: &str, restore: &[String]) -> Result<Option<CacheEntry>, DepotError> {
        let kept = self.0.lock().unwrap();
        let mine = || kept.caches.iter().rev().filter(|(of, _)| of == scope).map(|(_, entry)| entry);
        let by_prefix = || restore.iter().find_map(|prefix| mine().find(|entry| entry.key.starts_with(prefix)));
        Ok(mine().find(|entry| entry.key == key).or_else(by_prefix).cloned())
    }

    fn save_cache(
        &self,
        scope: &CacheScope,
        entry: &CacheEntry,
        refused: Option<Digest>,
    ) -> Result<CacheSaved, DepotError> {
        let mut kept = self.0.lock().unwrap();
        kept.caches.retain(|(of, known)| of != scope || known.key != entry.key || Some(known.digest) != refused);
        if kept.caches.iter().any(|(of, known)| of == scope && known.key == entry.key) {
            return Ok(CacheSaved::Existed);
        }
        kept.caches.push((*scope, entry.clone()));
        Ok(CacheSaved::Saved)
    }
}

/// Hides one word.
struct HideWord(&'static str);

impl Mask for HideWord {
    fn mask<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let text = String::from_utf8_lossy(bytes);
        if text.contains(self.0) { Cow::Owned(text.replace(self.0, "***").into_bytes()) } else { Cow::Borrowed(bytes) }
    }
}

/// One secret.
pub fn secret(name: &str, value: &'static str) -> Secrets {
    Secrets { values: [(name.to_owned(), value.to_owned())].into(), mask: Some(Arc::new(HideWord(value))) }
}

/// A worker over a scratch tree.
pub struct Ground {
    pub worker: Worker,
    pub depot: MemoryDepot,
    pub root: PathBuf,
    pub data: PathBuf,
    /// What earlier attempts of the build found their images to be.
    pub images: std::cell::RefCell<BTreeMap<String, String>>,
    /// The tests to which the next attempts are narrowed.
    pub asked: std::cell::RefCell<Option<Arc<graph::AskedTests>>>,
    /// The tests in quarantine of the next attempts.
    pub quarantine: std::cell::RefCell<Vec<graph::TestName>>,
    number: std::cell::Cell<u32>,
}

impl Ground {
    /// Runs a job with these parts and the rest as usual.
    pub async fn run(&self, job: Value) -> (AttemptReport, MemoryLog) {
        self.run_with(job, BTreeMap::new(), Secrets::default(), Cancel::new(), MemoryLog::default()).await
    }

    pub async fn run_with(
        &self,
        job: Value,
        needs: BTreeMap<JobName, NeedResult>,
        secrets: Secrets,
        cancel: Cancel,
        log: MemoryLog,
    ) -> (AttemptReport, MemoryLog) {
        let spec = self.spec(job, needs);
        let depot = Arc::new(self.depot.clone());
        let report = run_attempt(&self.worker, spec, secrets, Arc::new(log.clone()), depot, cancel).await;
        (report, log)
    }

    fn spec(&self, job: Value, needs: BTreeMap<JobName, NeedResult>) -> AttemptSpec {
        self.number.set(self.number.get() + 1);
        let mut event = Event::new(EventKind::Push);
        event.branch = Some("main".to_owned());
        event.commit = "c0ffee".to_owned();
        let job: Job = serde_json::from_value(job).expect("a job");
        AttemptSpec {
            lease: LeaseId(1),
            build: BuildId(7),
            attempt: AttemptNumber(self.number.get()),
            try_number: 1,
            name: JobName::from("unit/1"),
            operation: (job.reuse != graph::Reuse::Never).then_some(Digest([0; 32])),
            job: Arc::new(job),
            event: Arc::new(event),
            needs,
            gate: None,
            images: self.images.borrow().clone(),
            origin: graph::Origin::default(),
            asked: self.asked.borrow().clone(),
            quarantine: self.quarantine.borrow().clone(),
        }
    }

    /// The attempt that ran last.
    pub fn last_attempt(&self) -> AttemptNumber {
        AttemptNumber(self.number.get())
    }

    /// Runs a job and compares what people would see of it.
    pub async fn check(&self, job: Value, expected: &str) {
        let (report, log) = self.run(job).await;
        compare(&report, &log, expected);
    }
}

/// Compares report and log, as text, with what is expected; leading white space aside.
pub fn compare(report: &AttemptReport, log: &MemoryLog, expected: &str) {
    let shown = shown(report, log);
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected, "\n{shown}");
}

/// The report and the log in lines. Process ids become `N`.
fn shown(report: &AttemptReport, log: &MemoryLog) -> String {
    let mut text = match &report.outcome {
        Outcome::Passed { outputs } => format!("passed {}\n", serde_json::to_string(outputs).unwrap()),
        Outcome::Failed(Failure::Step { step, exit, .. }) => format!("failed: step {step}, exit {exit}\n"),
        Outcome::Failed(Failure::Timeout { step, .. }) => format!("timed out: {step:?}\n"),
        Outcome::Failed(Failure::Infra { message }) => format!("infra: {message}\n"),
        Outcome::Failed(Failure::Canceled { by }) => format!("canceled by {by}\n"),
        other => format!("{other:?}\n"),
    };
    for step in &report.steps {
        let exit = step.exit.map_or(String::new(), |exit| format!(" {exit}"));
        let _ = writeln!(text, "{}{exit}: {}", step.result.word(), step.name);
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {}", without_numbers(note));
    }
    if !report.summary.is_empty() {
        let _ = writeln!(text, "summary: {:?}", report.summary);
    }
    for test in &report.tests {
        let _ = writeln!(text, "test: {} {:?}", test.name, test.outcome);
    }
    for (step, stream, bytes) in &log.0.lock().unwrap().pieces {
        for line in String::from_utf8_lossy(bytes).lines() {
            let _ = writeln!(text, "{step} {stream:?}: {line}");
        }
    }
    text
}

/// The text with `(123)` as `(N)`.
fn without_numbers(note: &str) -> String {
    let mut parts = note.split('(');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|character: char| character.is_ascii_digit());
        let number =
            if rest.len() < part.len() && rest.starts_with(')') { "N" } else { &part[..part.len() - rest.len()] };
        text.push_str(&format!("({number}{rest}"));
    }
    text
}

/// Runs a test over a scratch repository with these files.
pub fn on_ground<F: AsyncFnOnce(&Ground)>(files: &[(&str, &str)], test: F) {
    on_ground_with(files, Duration::from_secs(10), None, test);
}

/// As [`on_ground`], with a grace time and a data directory.
pub fn on_ground_with<F: AsyncFnOnce(&Ground)>(files: &[(&str, &str)], grace: Duration, data: Option<&Path>, test: F) {
    let keeper = Keeper::start().expect("a keeper");
    let holder = tempfile::tempdir().expect("a directory");
    let base = std::fs::canonicalize(holder.path()).expect("a path");
    let root = base.join("repository");
    let data = data.map_or_else(|| base.join("data"), Path::to_owned);
    std::fs::create_dir_all(&root).expect("a directory");
    for (path, content) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, content).expect("written");
    }
    let git = std::process::Command::new("git").args(["init", "-q"]).current_dir(&root).status();
    assert!(git.is_ok_and(|status| status.success()), "git init");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let processes = Processes::attach(keeper).expect("attached");
        let settings = Settings {
            root: root.clone(),
            data: data.clone(),
            walled_off: Vec::new(),
            build: BuildId(7),
            grace,
            observer: None,
            shown: None,
            notes: Vec::new(),
            steps: StepBounds::default(),
            passed: Passed::default(),
        };
        let worker = Worker::new(processes.clone(), settings).await.expect("a worker");
        let (depot, images, asked, quarantine, number) = Default::default();
        let ground = Ground { worker, depot, root, data, images, asked, quarantine, number };
        test(&ground).await;
        drop(ground);
        processes.close().await;
    });
}
