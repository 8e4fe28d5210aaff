//! A small world around an engine, driven by a script: graphs and happenings as one line of text each.
//!
//! Graph: `name [attribute…]: need…; …`. A need is a job's name, with `!` for on failure, `~` for finished, `|` for a
//! barrier. Attributes: `cleanup`, `allow`, `empty`, `gate`, `reports`, `reuse`, `group=G`, `waiting=G` and `running=G` for the
//! modes of a concurrency group, `retry=N` (on steps too), `if=EXPRESSION` without blanks, `not=CONDITION` that does not
//! hold, `pool=P`, `image=I`; `child` and `later` ask for a build and wait for it or do not, with `hands=JOB.OUTPUT` and
//! `limit=MILLISECONDS`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use graph::*;
use ropewalk_engine::{BuildOptions, BuildRequest, Effect, Ended, Engine, Fact, Input, Intake, Presence, What};

/// The graph that `text` describes.
pub fn graph(text: &str) -> Graph {
    let mut graph = Graph::default();
    for (order, line) in text.split(';').map(str::trim).filter(|line| !line.is_empty()).enumerate() {
        let (head, needs) = line.split_once(':').expect("a colon after the name");
        let mut words = head.split_whitespace();
        let name = words.next().expect("a name");
        let mut job =
            Job { order: order as u32, steps: vec![Step { run: "true".into(), ..Step::default() }], ..Job::default() };
        job.needs = needs.split_whitespace().map(need).collect();
        for word in words {
            attribute(&mut job, word.trim_matches(['[', ']']));
        }
        graph.jobs.insert(name.into(), Arc::new(job));
    }
    graph
}

fn need(text: &str) -> Need {
    let name = text.trim_start_matches(['!', '~', '|']);
    match &text[..text.len() - name.len()] {
        "!" => Need::failure(name),
        "~" => Need::finished(name),
        "|" => Need::barrier(name),
        _ => Need::success(name),
    }
}

fn attribute(job: &mut Job, text: &str) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let mut group = |mode| job.concurrency = Some(Concurrency { group: value.into(), mode });
    match name {
        "child" => job.steps[0].build = Some(Box::default()),
        "later" => {
            job.steps[0].build = Some(Box::new(ChildBuild { waits: Waits::No, ..ChildBuild::default() }));
        }
        "hands" => {
            let child = job.steps[0].build.as_mut().expect("`child` stands before");
            child.hand_on.insert("out".to_owned(), value.to_owned());
            job.outputs.insert("out".to_owned());
        }
        "limit" => job.timeout_ms = value.parse().ok(),
        "cleanup" => job.cleanup = true,
        "allow" => job.allow_failure = true,
        "empty" => job.steps.clear(),
        "gate" => job.gate = Some(Gate { prompt: "go?".into(), ..Gate::default() }),
        "reports" => job.reports.junit = vec!["*.xml".to_owned()],
        "reuse" => job.reuse = Reuse::Tree,
        "group" => group(ConcurrencyMode::Queue),
        "waiting" => group(ConcurrencyMode::CancelWaiting),
        "running" => group(ConcurrencyMode::CancelRunning),
        "retry" => {
            let on = vec![RetryOn::Step, RetryOn::Infra, RetryOn::Lost];
            job.retry = Retry { max: value.parse().expect("a number"), on, backoff_ms: 1000 };
        }
        "not" => job.skip = Some(SkipReason::Condition { text: value.to_owned() }),
        "if" => job.condition = Some(value.into()),
        "pool" => job.pool = value.to_owned(),
        "image" => job.environment = Environment::Image { image: value.into(), container: Box::default() },
        other => panic!("no attribute `{other}`"),
    }
}

/// Where builds of a server belong.
pub fn origin() -> Origin {
    Origin { project: "sails".to_owned(), number: 1, source: Some(Digest([1; 32])) }
}

/// An engine, the time, and what the engine asked for.
pub struct World {
    pub engine: Engine,
    pub now: Timestamp,
    pub facts: Vec<Fact>,
    pub effects: Vec<Effect>,
}

impl World {
    pub fn new() -> Self {
        Self { engine: Engine::new(), now: Timestamp(0), facts: Vec::new(), effects: Vec::new() }
    }

    /// Feeds one input and keeps what follows.
    pub fn feed(&mut self, input: Input) {
        self.step(vec![input]);
    }

    pub fn step(&mut self, inputs: Vec<Input>) {
        let step = self.engine.step(self.now, inputs);
        self.facts.extend(step.facts);
        self.effects.extend(step.effects);
    }

    /// Requests build `number` and answers its evaluation with `graph`.
    pub fn build(&mut self, number: u64, graph: Graph, options: BuildOptions) {
        self.request(number, options);
        self.evaluated(number, 0, Evaluation { graph, ..Evaluation::default() });
    }

    pub fn request(&mut self, number: u64, options: BuildOptions) {
        let request = BuildRequest { options, ..BuildRequest::new(Event::new(EventKind::Push), "pipeline") };
        self.request_as(number, request);
    }

    pub fn request_as(&mut self, number: u64, request: BuildRequest) {
        self.feed(Input::BuildRequested { build: BuildId(number), request: Box::new(request) });
    }

    pub fn evaluated(&mut self, number: u64, answers_known: usize, evaluation: Evaluation) {
        self.feed(Input::Evaluated { build: BuildId(number), answers_known, evaluation: Box::new(evaluation) });
    }

    /// A worker of these pools (blank-separated; the default pool always) shows itself.
    pub fn worker(&mut self, name: &str, slots: u32, pools: &str, holds_ms: u64) {
        let pools = pools.split_whitespace().map(str::to_owned).chain([String::new()]).collect();
        let leases = self.leases_of(name);
        let (labels, resources) = (BTreeSet::new(), Resources::default());
        let presence = Presence { pools, labels, slots, resources, leases, holds_ms, intake: Intake::Open };
        self.feed(Input::WorkerPresent { worker: WorkerId(name.into()), presence });
    }

    /// A worker of one slot that takes nothing new shows itself.
    pub fn closed_worker(&mut self, name: &str, reason: &str) {
        let (labels, resources) = (BTreeSet::new(), Resources::default());
        let intake = Intake::Closed { reason: reason.to_owned() };
        let (pools, leases) = ([String::new()].into(), self.leases_of(name));
        let presence = Presence { pools, labels, slots: 1, resources, leases, holds_ms: 0, intake };
        self.feed(Input::WorkerPresent { worker: WorkerId(name.into()), presence });
    }

    /// What the worker would say that it holds: all that it was given.
    fn leases_of(&self, name: &str) -> BTreeSet<LeaseId> {
        let mut leases = BTreeSet::new();
        for fact in &self.facts {
            match &fact.what {
                What::AttemptLeased { lease, worker, .. } if *worker.0 == *name => drop(leases.insert(*lease)),
                What::AttemptFinished { lease, .. } => drop(leases.remove(lease)),
                _ => {}
            }
        }
        leases
    }

    /// The running attempt of a job.
    pub fn lease(&self, build: u64, job: &str) -> Option<(AttemptNumber, LeaseId)> {
        match self.engine.job(BuildId(build), &job.into())? {
            ropewalk_engine::JobState::Leased { attempt, lease, .. } => Some((attempt, lease)),
            _ => None,
        }
    }

    /// The running attempt of a job ends.
    pub fn finish(&mut self, build: u64, job: &str, outcome: Outcome) {
        let (attempt, lease) = self.lease(build, job).unwrap_or_else(|| panic!("`{job}` does not run"));
        let report = Box::new(AttemptReport::of(outcome, self.now));
        self.feed(Input::AttemptFinished { build: BuildId(build), attempt, lease, report });
    }

    /// Somebody retries a job, whole or some of its tests.
    pub fn retry(&mut self, build: u64, job: &str, tests: Option<Arc<AskedTests>>) {
        self.feed(Input::JobRetried { build: BuildId(build), job: job.into(), by: "me".to_owned(), tests, key: None });
    }

    /// Does what one sentence of a script says.
    pub fn act(&mut self, sentence: &str) {
        let words: Vec<&str> = sentence.split_whitespace().collect();
        let job_of = |text: &str| match text.split_once('.') {
            Some((build, job)) => (build.parse().expect("a build's number"), job.to_owned()),
            None => (1, text.to_owned()),
        };
        let failed = Outcome::Failed(Failure::Step { step: 0, exit: 1, message: None });
        match words[..] {
            [job, "passes"] => self.finish(job_of(job).0, &job_of(job).1, Outcome::passed()),
            [job, "passes", "after", ms] => {
                self.now = self.now.plus_ms(ms.parse().expect("milliseconds"));
                let (build, job) = job_of(job);
                let (attempt, lease) = self.lease(build, &job).unwrap_or_else(|| panic!("`{job}` does not run"));
                let is_it =
                    |fact: &&Fact| matches!(&fact.what, What::AttemptLeased { lease: other, .. } if *other == lease);
                let mut report = Box::new(AttemptReport::of(Outcome::passed(), self.now));
                report.started = self.facts.iter().find(is_it).map_or(self.now, |fact| fact.at);
                self.feed(Input::AttemptFinished { build: BuildId(build), attempt, lease, report });
            }
            ["build", number, ..] => {
                // Jobs between commas, as sentences stand between semicolons.
                let jobs = graph(&words[2..].join(" ").replace(',', ";"));
                self.build(number.parse().expect("a build's number"), jobs, BuildOptions::default());
            }
            ["close", name] => self.closed_worker(name, "paused"),
            [job, "fails"] => self.finish(job_of(job).0, &job_of(job).1, failed),
            [job, "stops"] => {
                let canceled = Outcome::Failed(Failure::Canceled { by: "me".to_owned() });
                self.finish(job_of(job).0, &job_of(job).1, canceled);
            }
            ["cancel"] => self.feed(Input::CancelRequested { build: BuildId(1), by: "me".to_owned() }),
            ["drop", job] => {
                let (build, job) = job_of(job);
                self.feed(Input::JobCanceled { build: BuildId(build), job: job.into(), by: "me".to_owned() });
            }
            ["cancel", build] => {
                let build = BuildId(build.parse().expect("a build's number"));
                self.feed(Input::CancelRequested { build, by: "me".to_owned() });
            }
            ["urge", build] => {
                let build = BuildId(build.parse().expect("a build's number"));
                self.feed(Input::MadeUrgent { build, by: "me".to_owned() });
            }
            ["made", child, job, ..] => {
                let jobs = graph(&words[3..].join(" ").replace(',', ";"));
                self.child(child.parse().expect("a build's number"), job_of(job).0, &job_of(job).1, jobs);
            }
            [job, "refused"] => {
                let refused = ropewalk_engine::child::refused("no such file".to_owned());
                self.feed(self.prepared(job_of(job).0, &job_of(job).1, Err(refused)));
            }
            ["approve", job] => self.answer_gate(job, Some(BTreeMap::new())),
            ["refuse", job] => self.answer_gate(job, None),
            ["retry", job] => {
                let (build, job) = job_of(job);
                self.retry(build, &job, None);
            }
            ["worker", name, slots] => self.worker(name, slots.parse().expect("a number"), "", 0),
            ["lost", name] => self.feed(Input::WorkerLeft { worker: WorkerId(name.into()) }),
            ["later", ms] => {
                self.now = self.now.plus_ms(ms.parse().expect("milliseconds"));
                self.step(Vec::new());
            }
            [job, "resolves", digit] => {
                let (build, job) = job_of(job);
                self.resolve(build, &job, digit, None);
            }
            // All results that there are of it were evicted a moment ago.
            [job, "resolves", digit, "evicted"] => {
                let (build, job) = job_of(job);
                self.resolve(build, &job, digit, Some(self.now));
            }
            _ => panic!("cannot `{sentence}`"),
        }
    }

    fn resolve(&mut self, build: u64, job: &str, digit: &str, evicted: Option<graph::Timestamp>) {
        let operation = Ok(Digest([digit.parse().expect("a small number"); 32]));
        self.feed(Input::OperationResolved { build: BuildId(build), job: job.into(), operation, hit: None, evicted });
    }

    /// The answer to what a job asked for last.
    pub fn prepared(&self, build: u64, job: &str, child: Result<(BuildId, Box<BuildRequest>), Failure>) -> Input {
        let asking = self.effects.iter().rev().find_map(|effect| match effect {
            Effect::AskChild { build: of, job: asks, asking, .. } if *of == BuildId(build) && asks.as_str() == job => {
                Some(*asking)
            }
            _ => None,
        });
        let asking = asking.unwrap_or_else(|| panic!("`{job}` asks for nothing"));
        Input::ChildPrepared { build: BuildId(build), job: job.into(), asking, child }
    }

    /// A job gets the build that it asked for, with these jobs.
    pub fn child(&mut self, number: u64, build: u64, job: &str, graph: Graph) {
        let parent = Parent { build: BuildId(build), job: job.into(), depth: 1, waits: Waits::ForVerdict };
        let event = Event { parent: Some(parent), ..Event::new(EventKind::Build) };
        let request = Box::new(BuildRequest { origin: origin(), ..BuildRequest::new(event, "child") });
        self.feed(self.prepared(build, job, Ok((BuildId(number), request))));
        self.evaluated(number, 0, Evaluation { graph, ..Evaluation::default() });
    }

    fn answer_gate(&mut self, job: &str, answer: Option<BTreeMap<String, serde_json::Value>>) {
        self.feed(Input::GateAnswered {
            build: BuildId(1),
            job: job.into(),
            answer,
            by: "me".to_owned(),
            reason: String::new(),
        });
    }
}

/// One line for each fact.
pub fn trace(facts: &[Fact]) -> String {
    let lines: Vec<String> = facts.iter().map(line).collect();
    lines.join("\n")
}

fn line(fact: &Fact) -> String {
    let prefix = if fact.build == BuildId(1) { String::new() } else { format!("{}.", fact.build) };
    let text = match &fact.what {
        What::BuildCreated(_) => "created".to_owned(),
        What::Answered { question, .. } => format!("answered {question:?}"),
        What::Evaluated { graph, diagnostics, .. } => {
            let codes: Vec<_> = diagnostics.iter().map(|diagnostic| &*diagnostic.code).collect();
            format!("evaluated {} {}", graph.jobs.len(), codes.join(" ")).trim_end().to_owned()
        }
        What::GateOpened { job, prompt } => format!("{job} asks {prompt}"),
        What::GateAnswered { job, answer, .. } => {
            format!("{job} {}", if answer.is_some() { "approved" } else { "rejected" })
        }
        What::OperationKnown { job, operation, .. } => format!("{job} is operation {}", operation.0[0]),
        What::OperationUnknown { job, reason } => format!("{job} has no operation: {reason}"),
        What::AttemptLeased { job, try_number, lease, .. } => format!("{job} leased {lease} try {try_number}"),
        What::AttemptAdopted { job, try_number, lease, from, .. } => {
            format!("{job} adopts {lease} try {try_number} from {}.{}", from.build, from.job)
        }
        What::AttemptFinished { job, report, retry_at, .. } => {
            let again = if retry_at.is_some() { ", again" } else { "" };
            format!("{job} {}{again}", outcome_line(&report.outcome))
        }
        What::JobEnded { job, outcome, how: Ended::Decided } => format!("{job} {}", outcome_line(outcome)),
        What::JobEnded { job, outcome, how: Ended::Reused(reused) } => {
            format!("{job} {} as {}.{}", outcome_line(outcome), reused.build, reused.job)
        }
        What::JobEnded { job, outcome, how: Ended::Child { build } } => {
            format!("{job} {} with build {build}", outcome_line(outcome))
        }
        What::ChildMade { job, try_number, child } => format!("{job} has build {child} try {try_number}"),
        What::ChildFailed { job, outcome, .. } => format!("{job} {}, again", outcome_line(outcome)),
        What::JobRetried { job, .. } => format!("{job} retried"),
        What::JobCancelRequested { job, by } => format!("{job} to be canceled by {by}"),
        What::MadeUrgent { by } => format!("urgent by {by}"),
        What::CancelRequested { by } => format!("cancel by {by}"),
        What::BuildEnded { verdict } => format!("build {}", verdict.word()),
    };
    prefix + &text
}

fn outcome_line(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Passed { .. } => "passed".to_owned(),
        Outcome::Failed(Failure::Canceled { by }) => format!("canceled by {by}"),
        Outcome::Failed(Failure::Infra { message }) => format!("failed: {message}"),
        Outcome::Failed(failure) => format!("failed by {}", failure.kind()),
        Outcome::Skipped(SkipReason::Need { because }) => format!("skipped because of {because}"),
        Outcome::Skipped(SkipReason::Condition { text }) => format!("skipped, not {text}"),
        Outcome::Skipped(reason) => format!("skipped {reason:?}"),
    }
}
