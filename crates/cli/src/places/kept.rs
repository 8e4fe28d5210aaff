//! For tests: a store in memory, filled by real facts, and a real log pack in a folder that removes itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::fact::{Ended, What};
use engine::operation::{Manifest, Work, operation};
use engine::{BuildRequest, Fact, Reused};
use graph::{
    Artifact, AttemptNumber, AttemptReport, BuildId, Digest, Event, EventKind, Failure, Graph, Job, JobName, LeaseId,
    Outcome, Parent, Step, StepReport, StepResult, Timestamp, Usage, Verdict, Waits, WorkerId,
};
use store::blob::MemoryBlobs;
use store::log::{LogWriter, Masker, Stream, StreamKey};
use store::rows::OperationRow;
use store::{MemoryStore, Store};

use super::{Places, log_path};
use crate::calendar::Calendar;

/// 2026-11-21 04:00:00 UTC, when the first build of every test begins.
const START: i64 = 1_795_233_600_000_000;

/// What is kept in a test.
pub struct Kept {
    store: Arc<MemoryStore>,
    folder: tempfile::TempDir,
    time: i64,
}

impl Kept {
    /// Nothing yet.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("logs")).expect("a folder");
        Self { store: Arc::default(), folder, time: START }
    }

    /// The store.
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// All of it, as commands have it.
    pub fn places(&self) -> Places {
        Places {
            data: self.folder.path().to_owned(),
            store: self.store.clone(),
            blobs: Arc::new(MemoryBlobs::default()),
        }
    }

    /// Five minutes after the last thing that happened.
    pub fn calendar(&self) -> Calendar {
        Calendar::utc(Timestamp(self.time + 300_000_000))
    }

    /// Begins a build of jobs with these names, each with one step, in this order.
    pub fn build(&mut self, names: &[&str]) -> KeptBuild<'_> {
        let jobs = names.iter().map(|name| (*name, job("make"))).collect();
        self.build_of(jobs)
    }

    /// Goes on with a build in which nothing has been leased.
    pub fn go_on(&mut self, build: BuildId) -> KeptBuild<'_> {
        let graph = self.store.graph(build).expect("the store answers").expect("it was evaluated");
        KeptBuild { kept: self, build, graph, attempts: 0, failed: None }
    }

    /// Begins a build with a job `a` that the job `a` of another one asked for.
    pub fn child(&mut self, parent: u64, waits: Waits) -> KeptBuild<'_> {
        let parent = Parent { build: BuildId(parent), job: JobName::from("a"), depth: 1, waits };
        self.begin(Some(parent), vec![("a", job("make"))])
    }

    /// Begins a build of these jobs, in this order.
    pub fn build_of(&mut self, jobs: Vec<(&str, Job)>) -> KeptBuild<'_> {
        self.begin(None, jobs)
    }

    fn begin(&mut self, parent: Option<Parent>, jobs: Vec<(&str, Job)>) -> KeptBuild<'_> {
        let build = self.store.reserve_build().expect("a number");
        let mut event = Event::new(EventKind::Push);
        event.branch = Some("main".to_owned());
        event.parent = parent;
        event.commit = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".to_owned();
        let request =
            BuildRequest { client: "local".to_owned(), ..BuildRequest::new(event, ".ropewalk/pipeline.yaml") };
        let jobs = jobs.into_iter().enumerate().map(|(order, (name, job))| {
            (JobName::from(name), Arc::new(Job { order: u32::try_from(order).expect("few jobs"), ..job }))
        });
        let graph = Arc::new(Graph { jobs: jobs.collect(), ..Graph::default() });
        let mut kept = KeptBuild { kept: self, build, graph: Arc::clone(&graph), attempts: 0, failed: None };
        kept.fact(What::BuildCreated(Box::new(request)));
        kept.fact(What::Evaluated { graph, questions: Vec::new(), diagnostics: Vec::new(), program: None });
        kept
    }
}

/// A job of one script.
pub fn job(run: &str) -> Job {
    Job { steps: vec![Step { run: run.into(), ..Step::default() }], ..Job::default() }
}

/// One build in the making.
pub struct KeptBuild<'k> {
    kept: &'k mut Kept,
    build: BuildId,
    graph: Arc<Graph>,
    attempts: u32,
    failed: Option<JobName>,
}

impl KeptBuild<'_> {
    /// Stores a fact.
    pub fn fact(&mut self, what: What) -> &mut Self {
        let fact = Fact { build: self.build, at: Timestamp(self.kept.time), what };
        self.kept.store.append(&[fact]).expect("the store takes facts");
        self
    }

    /// A job runs and passes.
    pub fn pass(&mut self, job: &str, took_ms: i64) -> &mut Self {
        self.attempt(job, took_ms, |_| {})
    }

    /// A job runs and its first step ends with `exit`.
    pub fn fail(&mut self, job: &str, exit: i32) -> &mut Self {
        self.failed = Some(job.into());
        self.attempt(job, 1500, |report| {
            report.outcome = Outcome::Failed(Failure::Step { step: 0, exit, message: None });
            report.steps[0].exit = Some(exit);
            report.steps[0].result = StepResult::Failed;
        })
    }

    /// Leases an attempt.
    pub fn lease(&mut self, job: &str) -> AttemptNumber {
        self.attempts += 1;
        let attempt = AttemptNumber(self.attempts);
        let lease = LeaseId(u64::from(self.attempts));
        let worker = WorkerId("local".into());
        self.fact(What::AttemptLeased {
            job: job.into(),
            attempt,
            try_number: 1,
            lease,
            worker,
            partial: None,
            waited_for: None,
        });
        attempt
    }

    /// A job runs and ends with a report that `change` has changed.
    pub fn attempt(&mut self, job: &str, took_ms: i64, change: impl FnOnce(&mut AttemptReport)) -> &mut Self {
        let attempt = self.lease(job);
        let started = Timestamp(self.kept.time);
        self.kept.time += took_ms * 1000;
        let finished = Timestamp(self.kept.time);
        let mut report = AttemptReport::of(Outcome::passed(), finished);
        report.started = started;
        report.usage = Usage { peak_memory_bytes: 3 << 20, cpu_user_us: 1_200_000, cpu_system_us: 30_000 };
        report.steps.push(StepReport {
            name: "make".to_owned(),
            exit: Some(0),
            signal: None,
            result: StepResult::Passed,
            started,
            finished,
            usage: report.usage,
            outputs: BTreeMap::new(),
            lines: 0,
        });
        change(&mut report);
        let lease = LeaseId(u64::from(self.attempts));
        self.fact(What::AttemptFinished { job: job.into(), attempt, lease, report: Box::new(report), retry_at: None })
    }

    /// A job takes the result of another build.
    pub fn reuse(&mut self, job: &str, build: u64, attempt: u32) -> &mut Self {
        let (build, attempt) = (BuildId(build), AttemptNumber(attempt));
        let reused = Reused { build, attempt, job: job.into(), artifacts: BTreeMap::new() };
        self.fact(What::JobEnded { job: job.into(), outcome: Outcome::passed(), how: Ended::Reused(reused) })
    }

    /// The operation of a job is known: its steps and these files.
    pub fn operation(&mut self, job: &str, files: &[(&str, &str)]) -> (Digest, Manifest) {
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), Digest(*blake3::hash(text.as_bytes()).as_bytes())))
            .collect();
        let event = graph::Event::new(graph::EventKind::Push);
        let (digest, manifest) = operation(&Work {
            name: &job.into(),
            job: &self.graph.jobs[job],
            files: &files,
            needs: &BTreeMap::new(),
            event: &event,
            build: self.build,
            project: "",
            quarantine: &[],
        });
        self.fact(What::OperationKnown { job: job.into(), operation: digest, evicted: None });
        (digest, manifest)
    }

    /// The result of the last attempt is kept for reuse, with artifacts of so many bytes.
    pub fn keep(&mut self, job: &str, operation: &(Digest, Manifest), bytes: u64) -> &mut Self {
        let at = Timestamp(self.kept.time);
        let artifact = Artifact { digest: store::blob::digest(&bytes.to_le_bytes()), files: 1, bytes };
        let row = OperationRow {
            digest: operation.0,
            trust: graph::Trust::Trusted,
            build: self.build,
            attempt: AttemptNumber(self.attempts),
            job: job.into(),
            outcome: Outcome::passed(),
            artifacts: BTreeMap::from([("bin".to_owned(), artifact)]),
            at,
            used_at: at,
            evicted: None,
            replaced: None,
        };
        self.kept.store.record_operations(&[(row, &operation.1)]).expect("the store takes operations");
        self
    }

    /// What the last attempt was made of is kept, though it has no result.
    pub fn tried(&mut self, operation: &(Digest, Manifest)) -> &mut Self {
        let at = Timestamp(self.kept.time);
        self.kept.store.record_tried(&[(operation.0, &operation.1)], at).expect("the store takes manifests");
        self
    }

    /// The build ends as its jobs say.
    pub fn end(&mut self) {
        let verdict = match self.failed.take() {
            None => Verdict::Passed { note: None },
            because => Verdict::Failed { because },
        };
        self.fact(What::BuildEnded { verdict });
        self.kept.time += 60_000_000;
    }

    /// Steps print: attempt, step, stream, text; one microsecond apart.
    pub fn print(&mut self, printed: &[(u32, u16, Stream, &str)]) -> &mut Self {
        let path = log_path(self.kept.folder.path(), self.build);
        let writer = LogWriter::open(&path).expect("a log");
        let mut streams = BTreeMap::new();
        for (index, (attempt, step, stream, text)) in printed.iter().enumerate() {
            let key = StreamKey { attempt: *attempt, step: *step };
            let open = streams.entry(key).or_insert_with(|| writer.open_stream(key, &Masker::default()));
            let time = u64::try_from(START).expect("after 1970") + index as u64;
            open.write(*stream, text.as_bytes(), time).expect("the log takes it");
        }
        for stream in streams.into_values() {
            stream.close();
        }
        self
    }
}
