//! Facts for tests: as small as they can be, and one of every kind with everything filled in.
#![allow(dead_code, reason = "every test file takes what it needs")]

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::fact::{Fact, What};
use engine::{Adopted, BuildOptions, BuildRequest, Ended, FailurePolicy, Reused};
use graph::{
    Answer, Artifact, AskedTests, AttemptNumber, AttemptReport, BuildId, Diagnostic, Digest, Event, EventKind, Failure,
    Graph, Job, JobName, LeaseId, Location, Need, NeverRun, Origin, Outcome, Question, SkipReason, Step, StepReport,
    StepResult, TestCase, TestName, TestOutcome, Timestamp, Trust, Usage, Verdict, WaitedFor, WorkerId,
};

pub fn at(second: i64) -> Timestamp {
    Timestamp(second * 1_000_000)
}

pub fn digest(text: &str) -> Digest {
    Digest(*blake3::hash(text.as_bytes()).as_bytes())
}

/// A thousand bytes under the digest of `name`.
pub fn artifact(name: &str) -> Artifact {
    Artifact { digest: digest(name), files: 2, bytes: 1000 }
}

pub fn fact(build: BuildId, second: i64, what: What) -> Fact {
    Fact { build, at: at(second), what }
}

pub fn created(build: BuildId) -> Fact {
    let request = BuildRequest::new(Event::new(EventKind::Manual), "pipeline.yaml");
    fact(build, 1, What::BuildCreated(Box::new(request)))
}

pub fn evaluated(build: BuildId, graph: Arc<Graph>) -> Fact {
    let diagnostics = vec![Diagnostic::warning("odd", "this is odd")];
    fact(build, 2, What::Evaluated { graph, questions: vec![Question::ChangedFiles], diagnostics, program: None })
}

/// An evaluation by a program, whose binary is noted.
pub fn said_by_a_program(build: BuildId) -> Fact {
    let program = Some(graph::Digest([7; 32]));
    let (graph, questions, diagnostics) = (Arc::default(), Vec::new(), Vec::new());
    fact(build, 3, What::Evaluated { graph, questions, diagnostics, program })
}

pub fn leased(build: BuildId, job: &str, attempt: u32) -> Fact {
    let what = What::AttemptLeased {
        job: job.into(),
        attempt: AttemptNumber(attempt),
        try_number: 1,
        lease: LeaseId(u64::from(attempt) + 100),
        worker: WorkerId("local".into()),
        partial: None,
        waited_for: None,
    };
    fact(build, 10, what)
}

/// Facts about some tests of a job, as a server and a local retry write them.
pub fn asked_for_tests(build: BuildId) -> Vec<Fact> {
    let name = |suite: &str, name: &str| TestName { suite: suite.to_owned(), name: name.to_owned() };
    let tests = vec![name("", "alone"), name("suite", "x")];
    let asked = Arc::new(AskedTests {
        tests,
        others_failed: vec![name("suite", "y")],
        of: 240,
        after: AttemptNumber(1),
        never_run: None,
    });
    let mut request = BuildRequest::new(Event::new(EventKind::Manual), "pipeline.yaml");
    request.asked = [("test".into(), Arc::clone(&asked))].into();
    let mut held = leased(build, "test", 2);
    if let What::AttemptLeased { partial, .. } = &mut held.what {
        *partial = Some(asked.partial());
    }
    let retried = What::JobRetried { job: "test".into(), by: "ann".to_owned(), tests: Some(asked), key: None };
    vec![fact(build, 1, What::BuildCreated(Box::new(request))), fact(build, 9, retried), held]
}

/// An attempt that had waited for its concurrency group, and its end.
pub fn waited_for_a_group(build: BuildId) -> Vec<Fact> {
    let told = WaitedFor { build: BuildId(1), job: "deploy".into(), group: Some("prod".to_owned()) };
    let (mut held, mut ended) = (leased(build, "test", 3), finished(build, "test", 3, passed(), None));
    if let What::AttemptLeased { waited_for, .. } = &mut held.what {
        *waited_for = Some(Box::new(told.clone()));
    }
    if let What::AttemptFinished { report, .. } = &mut ended.what {
        report.waited_for = Some(Box::new(told));
    }
    vec![held, ended]
}

/// The end of an attempt whose reports were not read whole.
pub fn with_reports_cut(build: BuildId) -> Vec<Fact> {
    let mut ended = finished(build, "test", 4, passed(), None);
    if let What::AttemptFinished { report, .. } = &mut ended.what {
        report.tests_cut = true;
    }
    vec![ended]
}

/// A retry of which is known what has not run.
pub fn compared_with_what_passed(build: BuildId) -> Vec<Fact> {
    let name = |name: &str| TestName { suite: "suite".to_owned(), name: name.to_owned() };
    let never_run = Some(NeverRun { passed_in: BuildId(1), count: 2, tests: vec![name("z"), name("zz")] });
    let (tests, others_failed) = (vec![name("x")], Vec::new());
    let asked = AskedTests { tests, others_failed, of: 240, after: AttemptNumber(1), never_run };
    let tests = Some(Arc::new(asked));
    vec![fact(build, 9, What::JobRetried { job: "test".into(), by: "ann".to_owned(), tests, key: None })]
}

/// A retry by a request that may be repeated.
pub fn retried_by_key(build: BuildId) -> Vec<Fact> {
    let key = Some(Digest([0xab; 32]));
    vec![fact(build, 9, What::JobRetried { job: "test".into(), by: "ann".to_owned(), tests: None, key })]
}

pub fn finished(build: BuildId, job: &str, attempt: u32, outcome: Outcome, retry_at: Option<Timestamp>) -> Fact {
    let what = What::AttemptFinished {
        job: job.into(),
        attempt: AttemptNumber(attempt),
        lease: LeaseId(u64::from(attempt) + 100),
        report: Box::new(AttemptReport { started: at(11), ..AttemptReport::of(outcome, at(20)) }),
        retry_at,
    };
    fact(build, 21, what)
}

pub fn with_tests(build: BuildId, job: &str, attempt: u32) -> Fact {
    let mut end = finished(build, job, attempt, passed(), None);
    if let What::AttemptFinished { report, .. } = &mut end.what {
        let case = |name: String, outcome, message: &str| TestCase {
            suite: "unit\ntests".to_owned(),
            name,
            outcome,
            duration_ms: 7,
            message: message.repeat(20),
            output: String::new(),
        };
        report.tests = vec![
            case("first".to_owned(), TestOutcome::Skipped, ""),
            case(format!("test of {attempt}"), TestOutcome::Errored, "broken\r\n"),
        ];
    }
    end
}

pub fn decided(build: BuildId, job: &str, outcome: Outcome) -> Fact {
    fact(build, 30, What::JobEnded { job: job.into(), outcome, how: Ended::Decided })
}

pub fn reused(build: BuildId, job: &str, from: BuildId) -> Fact {
    let artifacts = BTreeMap::from([("bin".to_owned(), artifact("bin"))]);
    let how = Ended::Reused(Reused { build: from, attempt: AttemptNumber(4), job: job.into(), artifacts });
    fact(build, 31, What::JobEnded { job: job.into(), outcome: passed(), how })
}

pub fn passed() -> Outcome {
    Outcome::passed()
}

pub fn failed(exit: i32) -> Outcome {
    Outcome::Failed(Failure::Step { step: 0, exit, message: None })
}

fn full_event() -> Event {
    Event {
        commit: "ab".repeat(20),
        branch: Some("topic".to_owned()),
        tag: Some("v1".to_owned()),
        base: Some("main".to_owned()),
        pull_request: Some(12),
        actor: "ann".to_owned(),
        message: "mend\nthe \u{1f600} rope".to_owned(),
        time: at(1),
        params: BTreeMap::from([("level".to_owned(), 3.into()), ("dry".to_owned(), false.into())]),
        trust: Trust::Untrusted,
        ..Event::new(EventKind::PullRequest)
    }
}

fn full_graph() -> Graph {
    let step = Step { run: "make".into(), ..Step::default() };
    let make = Job { steps: vec![step], ..Job::default() };
    let test = Job { order: 1, needs: vec![Need::success("make")], allow_failure: true, ..Job::default() };
    let jobs = BTreeMap::from([("make".into(), Arc::new(make)), ("test".into(), Arc::new(test))]);
    Graph { name: "ci".to_owned(), jobs, ..Graph::default() }
}

fn full_report() -> AttemptReport {
    let usage = Usage { peak_memory_bytes: 4096, cpu_user_us: 5, cpu_system_us: 6 };
    let step = StepReport {
        name: "make".to_owned(),
        exit: Some(143),
        signal: Some(15),
        result: StepResult::Failed,
        started: at(11),
        finished: at(19),
        usage,
        outputs: BTreeMap::from([("version".to_owned(), "1.2".to_owned())]),
        lines: 3,
    };
    let test = TestCase {
        suite: "unit".to_owned(),
        name: "adds".to_owned(),
        outcome: TestOutcome::Failed,
        duration_ms: 7,
        message: "1 is not 2".to_owned(),
        output: "adding".to_owned(),
    };
    AttemptReport {
        outcome: Outcome::Failed(Failure::Timeout { step: Some(0), limit_ms: 100 }),
        started: at(11),
        finished: at(20),
        steps: vec![step],
        artifacts: BTreeMap::from([("bin".to_owned(), artifact("bin"))]),
        usage,
        tests: vec![test],
        tests_cut: false,
        summary: "# done".to_owned(),
        images: BTreeMap::new(),
        notes: vec!["a process was left behind".to_owned()],
        partial: None,
        waited_for: None,
        caches: Vec::new(),
        phases: Vec::new(),
    }
}

/// One fact of every kind, and of those that come in several shapes one of each.
pub fn every_kind(build: BuildId) -> Vec<Fact> {
    let job = |name: &str| JobName::from(name);
    let earlier = Reused {
        build: BuildId(1),
        attempt: AttemptNumber(2),
        job: job("make"),
        artifacts: BTreeMap::from([("bin".to_owned(), artifact("bin"))]),
    };
    let request = BuildRequest {
        event: full_event(),
        pipeline: ".ropewalk/pipeline.yaml".to_owned(),
        options: BuildOptions {
            only: ["test".to_owned()].into(),
            on_failure: FailurePolicy::FailFast,
            urgent: true,
            retry_of: Some(BuildId(1)),
            pool: "linux".to_owned(),
            ..BuildOptions::default()
        },
        client: "ann".to_owned(),
        asked: BTreeMap::new(),
        quarantine: Vec::new(),
        given: BTreeMap::from([(job("make"), (earlier.clone(), passed()))]),
        origin: Origin { project: "sails".to_owned(), number: 7, source: Some(Digest([9; 32])) },
        identity: Some(Digest([8; 32])),
        supersedes: Some("main".to_owned()),
        key: None,
    };
    let warning = Diagnostic::warning("odd", "this is odd")
        .help("mend it")
        .at(Location { file: "pipeline.yaml".into(), line: 1, column: 2, start: 1, end: 3 }, "here");
    let outputs = BTreeMap::from([("version".to_owned(), "1.2".into())]);
    let whats = vec![
        What::BuildCreated(Box::new(request)),
        What::Answered { question: Question::ChangedFiles, answer: Answer::Files(vec!["a b".to_owned()]) },
        What::Answered {
            question: Question::Outcome(job("make")),
            answer: Answer::Outcome(Outcome::Passed { outputs: outputs.clone() }),
        },
        What::Answered { question: Question::File("x".to_owned()), answer: Answer::Unknown("no such file".to_owned()) },
        What::Evaluated {
            graph: Arc::new(full_graph()),
            questions: vec![Question::BranchesHolding],
            diagnostics: vec![warning],
            program: None,
        },
        What::GateOpened { job: job("test"), prompt: "go on?".to_owned() },
        What::GateAnswered { job: job("test"), answer: Some(outputs), by: "ann".to_owned(), reason: String::new() },
        What::GateAnswered { job: job("test"), answer: None, by: "ann".to_owned(), reason: String::new() },
        What::OperationKnown { job: job("make"), operation: digest("make"), evicted: None },
        What::OperationUnknown { job: job("make"), reason: "too many files".to_owned() },
        What::AttemptLeased {
            job: job("make"),
            attempt: AttemptNumber(1),
            try_number: 1,
            lease: LeaseId(7),
            worker: WorkerId("local".into()),
            partial: None,
            waited_for: None,
        },
        What::AttemptFinished {
            job: job("make"),
            attempt: AttemptNumber(1),
            lease: LeaseId(7),
            report: Box::new(full_report()),
            retry_at: Some(at(30)),
        },
        What::JobEnded { job: job("make"), outcome: passed(), how: Ended::Reused(earlier) },
        What::JobEnded {
            job: job("test"),
            outcome: Outcome::Skipped(SkipReason::Need { because: job("make") }),
            how: Ended::Decided,
        },
        What::JobRetried { job: job("test"), by: "ann".to_owned(), tests: None, key: None },
        What::CancelRequested { by: "ann".to_owned() },
        What::BuildEnded { verdict: Verdict::Canceled { by: "ann".to_owned() } },
        What::AttemptAdopted {
            job: job("make"),
            attempt: AttemptNumber(2),
            try_number: 1,
            lease: LeaseId(6),
            worker: WorkerId("local".into()),
            from: Adopted { build: BuildId(1), attempt: AttemptNumber(3), job: job("make/x") },
            handed: 1,
        },
        What::JobCancelRequested { job: job("make"), by: "ann".to_owned() },
        What::MadeUrgent { by: "ann".to_owned() },
        What::ChildMade { job: job("test"), try_number: 1, child: BuildId(3) },
        What::ChildFailed {
            job: job("test"),
            child: BuildId(3),
            outcome: Outcome::Failed(Failure::Step { step: 0, exit: 1, message: Some("build 3 failed".to_owned()) }),
            retry_at: at(40),
        },
        What::JobEnded { job: job("test"), outcome: passed(), how: Ended::Child { build: BuildId(3) } },
    ];
    let times = 1_i64..;
    times.zip(whats).map(|(second, what)| fact(build, second, what)).collect()
}
