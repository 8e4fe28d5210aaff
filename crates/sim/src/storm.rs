//! One storm: a simulated world around the real engine and the real store in memory.
//!
//! First the world misbehaves for a while: workers fall silent and come back as zombies, messages are lost, repeated,
//! late and wrong, the server dies between storing facts and performing effects, time jumps. Then it calms down, and
//! everything must come to its end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use engine::operation::{Work, operation};
use engine::{
    BuildOptions, BuildRequest, Effect, Engine, Fact, FailurePolicy, Input, Intake, JobState, Presence, Reused, Wait,
    What,
};
use graph::asked::{Extent, KnownTests, RanWhole, Wanted};
use graph::{
    Answer, AskedTests, AttemptNumber, AttemptReport, AttemptSpec, BuildId, Digest, Evaluation, Event, EventKind,
    JobName, Known, LeaseId, Outcome, Resources, TestCase, TestName, TestOutcome, Timestamp, Trust, WorkerId,
};
use store::{MemoryStore, Store};

use crate::oracle::{Oracle, Violation};
use crate::pipeline::{Pipeline, WORKER_CPU_MILLI};
use crate::random::Random;
use crate::sabotage::Sabotage;

/// How many things happen before the world calms down.
const HAPPENINGS: usize = 160;
/// The most rounds that a calm world needs to come to its end.
const CALM_ROUNDS_MAX: usize = 2000;
/// How long a worker's word holds.
const HOLDS_MS: u64 = 4000;
/// The most requests for builds.
const BUILDS_MAX: u64 = 6;
/// Earlier inputs that may be said again.
const MEMORY_MAX: usize = 64;

/// How often some tests are retried of what has failed in the end.
const RETRIES_OF_TESTS: usize = 3;
/// The tests of every job that tells them.
const TESTS: [&str; 3] = ["a", "b", "c"];

/// A storm that broke a law.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The law.
    pub violation: Violation,
    /// Every fact up to there, one a line.
    pub trace: String,
}

/// Runs the storm of `seed`.
///
/// # Errors
/// The first law that it breaks.
pub fn run(seed: u64, sabotage: Sabotage) -> Result<Tally, Failure> {
    let mut storm = Storm::new(seed, sabotage);
    match storm.weather() {
        Ok(()) => Ok(storm.tally()),
        Err(violation) => Err(Failure { seed, violation, trace: storm.trace() }),
    }
}

/// What happened in a storm, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Facts.
    pub facts: u64,
    /// Builds that were created.
    pub builds: u64,
    /// Requests that were other builds.
    pub duplicates: u64,
    /// Builds that somebody, or a later build, canceled.
    pub canceled: u64,
    /// Leases that were given.
    pub leases: u64,
    /// Leases that were handed over.
    pub adoptions: u64,
    /// Attempts that were narrowed to some tests and passed.
    pub narrowed: u64,
    /// Jobs that waited for a worker that had them warm.
    pub affinities: u64,
    /// Restarts from a standing that left builds out which had ended.
    pub left_out: u64,
    /// Times that the server died.
    pub deaths: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.facts += other.facts;
        self.builds += other.builds;
        self.duplicates += other.duplicates;
        self.canceled += other.canceled;
        self.leases += other.leases;
        self.adoptions += other.adoptions;
        self.narrowed += other.narrowed;
        self.affinities += other.affinities;
        self.left_out += other.left_out;
        self.deaths += other.deaths;
    }
}

struct Storm {
    random: Random,
    /// For what becomes of tests.
    dice: Random,
    /// For what becomes of results.
    evictor: Random,
    sabotage: Sabotage,
    /// Whether the planted fault has been used where once is enough.
    is_planted: bool,
    now: Timestamp,
    engine: Engine,
    store: MemoryStore,
    facts: Vec<Fact>,
    /// Whether the world behaves. The server no longer dies then: a restart must not be what gets things going.
    is_calm: bool,
    /// Whether the engine was last rebuilt build by build, as a store gives facts, not in the order of all.
    is_folded_by_build: bool,
    /// A fact kept from the store by sabotage.
    unwritten: Option<usize>,
    pipelines: BTreeMap<BuildId, Pipeline>,
    created: BTreeSet<BuildId>,
    workers: Vec<Worker>,
    /// Effects that the world has not got round to.
    tasks: VecDeque<Effect>,
    /// Inputs under way.
    mail: Vec<Input>,
    /// Inputs that were delivered, to be said again.
    memory: Vec<Input>,
    gates: BTreeSet<(BuildId, graph::JobName)>,
    /// Results that passed, by operation.
    results: BTreeMap<Digest, (Reused, Outcome)>,
    /// When results of an operation were evicted last.
    evicted: BTreeMap<Digest, Timestamp>,
    operations: BTreeMap<(BuildId, graph::JobName), Digest>,
    oracle: Oracle,
    /// What was asked for; a request that was neither created nor answered is made again.
    requests: BTreeMap<BuildId, Input>,
    duplicates: BTreeSet<BuildId>,
    /// Pools that somebody holds.
    held: BTreeSet<String>,
    /// The latest time that the engine should have heard of.
    latest: Timestamp,
    n_affinities: u64,
    n_left_out: u64,
    n_deaths: u64,
}

struct Worker {
    id: WorkerId,
    slots: u32,
    pools: BTreeSet<String>,
    running: BTreeMap<LeaseId, (BuildId, AttemptNumber, Box<AttemptSpec>)>,
    stopping: BTreeSet<LeaseId>,
    /// Leases it has heard of once; hearing again does no harm.
    seen: BTreeSet<LeaseId>,
    /// Nothing reaches it and nothing comes from it.
    is_silent: bool,
    is_closed: bool,
    outbox: Vec<Input>,
}

type Checked = Result<(), Violation>;

impl Storm {
    fn new(seed: u64, sabotage: Sabotage) -> Self {
        let mut random = Random::new(seed);
        let mut oracle = Oracle::default();
        let mut workers = Vec::new();
        for number in 0..1 + random.below(3) {
            let id = WorkerId(format!("worker {number}").into());
            let slots = 1 + random.below(3) as u32;
            let mut pools = BTreeSet::from([String::new()]);
            if number == 0 || random.chance(50) {
                pools.insert("big".to_owned());
            }
            oracle.hire(id.clone(), slots);
            let (running, stopping, seen) = Default::default();
            workers.push(Worker {
                id,
                slots,
                pools,
                running,
                stopping,
                seen,
                is_silent: false,
                is_closed: false,
                outbox: Vec::new(),
            });
        }
        Self {
            random,
            dice: Random::new(!seed),
            evictor: Random::new(seed.rotate_left(32)),
            sabotage,
            is_planted: false,
            now: Timestamp(1_000_000_000),
            engine: Engine::new(),
            store: MemoryStore::new(),
            facts: Vec::new(),
            is_calm: false,
            is_folded_by_build: false,
            unwritten: None,
            pipelines: BTreeMap::new(),
            created: BTreeSet::new(),
            workers,
            tasks: VecDeque::new(),
            mail: Vec::new(),
            memory: Vec::new(),
            gates: BTreeSet::new(),
            results: BTreeMap::new(),
            evicted: BTreeMap::new(),
            operations: BTreeMap::new(),
            oracle,
            requests: BTreeMap::new(),
            duplicates: BTreeSet::new(),
            held: BTreeSet::new(),
            latest: Timestamp(0),
            n_affinities: 0,
            n_left_out: 0,
            n_deaths: 0,
        }
    }

    fn weather(&mut self) -> Checked {
        for _ in 0..HAPPENINGS {
            self.happen()?;
        }
        self.calm()?;
        for _ in 0..RETRIES_OF_TESTS {
            for (build, job) in self.oracle.with_failing_tests() {
                self.retry_some_tests(build, &job);
            }
            if self.mail.is_empty() {
                break;
            }
            self.calm()?;
        }
        Ok(())
    }

    fn tally(&self) -> Tally {
        let count = |is_meant: fn(&What) -> bool| self.facts.iter().filter(|fact| is_meant(&fact.what)).count() as u64;
        Tally {
            facts: self.facts.len() as u64,
            builds: self.created.len() as u64,
            duplicates: self.duplicates.len() as u64,
            canceled: count(|what| matches!(what, What::CancelRequested { .. })),
            leases: count(|what| matches!(what, What::AttemptLeased { .. })),
            adoptions: count(|what| matches!(what, What::AttemptAdopted { .. })),
            narrowed: count(|what| {
                matches!(what, What::AttemptFinished { report, .. }
                    if report.partial.is_some() && matches!(report.outcome, Outcome::Passed { .. }))
            }),
            affinities: self.n_affinities,
            left_out: self.n_left_out,
            deaths: self.n_deaths,
        }
    }

    fn trace(&self) -> String {
        let line = |fact: &Fact| format!("{:>9} {} {}", fact.at.0 / 1000, fact.build, shown(&fact.what));
        self.facts.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// One thing, by the dice.
    fn happen(&mut self) -> Checked {
        if self.dice.chance(6)
            && let Some((build, job)) = self.dice.pick(&self.oracle.with_failing_tests()).cloned()
        {
            self.retry_some_tests(build, &job);
        }
        if self.evictor.chance(3) && self.now >= self.latest {
            self.evict()?;
        }
        match self.random.below(100) {
            0..4 => self.request(),
            4..12 => self.pass_time(),
            12..22 => self.beat(),
            22..42 => self.work(),
            42..46 => self.trouble_a_worker(),
            46..66 => self.do_tasks(),
            66..70 => self.answer_a_gate(),
            70..73 => self.lie(),
            73..75 => self.cancel_retry_or_urge(),
            80..82 => self.hold_or_close(),
            75..78 => self.say_again(),
            78..80 => return self.die(),
            _ => return self.deliver(),
        }
        Ok(())
    }

    fn request(&mut self) {
        let build = self.store.reserve_build().expect("a store in memory numbers builds");
        if build.0 > BUILDS_MAX {
            return;
        }
        // Often the pipeline of another build, so that much is equal.
        let others: Vec<&Pipeline> = self.pipelines.values().filter(|_| self.random.clone().chance(50)).collect();
        let other = self.random.pick(&others).map(|&other| other.clone());
        let pipeline = other.unwrap_or_else(|| Pipeline::new(&mut self.random));
        let mut event = Event::new(EventKind::Push);
        event.trust = if self.random.chance(20) { Trust::Untrusted } else { Trust::Trusted };
        let on_failure = if self.random.chance(25) { FailurePolicy::FailFast } else { FailurePolicy::KeepGoing };
        let urgent = self.random.chance(20);
        let options = BuildOptions { on_failure, urgent, ..BuildOptions::default() };
        let client = format!("client {}", self.random.below(2));
        let known = Known::of(event.clone());
        let mut request = BuildRequest { options, client, ..BuildRequest::new(event, "pipeline") };
        request.identity = self.random.chance(40).then(|| Digest([self.random.below(2) as u8; 32]));
        request.supersedes = self.random.chance(40).then(|| format!("branch {}", self.random.below(2)));
        self.oracle.expect(build, pipeline.clone(), known, &request);
        self.pipelines.insert(build, pipeline);
        match self.sabotage {
            Sabotage::LostIdentity => request.identity = None,
            Sabotage::LostRivalry => request.supersedes = None,
            _ => {}
        }
        let input = Input::BuildRequested { build, request: Box::new(request) };
        self.requests.insert(build, input.clone());
        self.mail.push(input);
    }

    /// Somebody throws away the results of an operation that are kept for reuse.
    fn evict(&mut self) -> Checked {
        let kept: Vec<Digest> = self.results.keys().copied().collect();
        let Some(&digest) = self.evictor.pick(&kept) else { return Ok(()) };
        self.results.remove(&digest);
        self.evicted.insert(digest, self.now);
        self.oracle.hear_eviction(digest);
        // What ends in the same millisecond would be taken for evicted.
        self.now = self.now.plus_ms(1);
        self.step(Vec::new())
    }

    fn pass_time(&mut self) {
        let jumps = [1, 10, 200, 1500, 1500, 20_000];
        let jump = *self.random.pick(&jumps).expect("there are some");
        // Nor is time told twice, to which results and evictions belong.
        let goes_back = self.random.chance(3) && self.evicted.is_empty();
        self.now = if goes_back { Timestamp(self.now.0 - 5_000_000) } else { self.now.plus_ms(jump) };
    }

    fn beat(&mut self) {
        for index in 0..self.workers.len() {
            if !self.workers[index].is_silent && self.random.chance(70) {
                let input = self.presence(index);
                self.mail.push(input);
            }
        }
    }

    fn presence(&mut self, index: usize) -> Input {
        let mut slots = self.workers[index].slots;
        slots += u32::from(self.sabotage == Sabotage::ExtraSlot);
        let worker = &self.workers[index];
        let presence = Presence {
            pools: worker.pools.clone(),
            labels: BTreeSet::new(),
            slots,
            resources: Resources { cpu_milli: WORKER_CPU_MILLI, memory_bytes: 0 },
            leases: worker.running.keys().copied().collect(),
            holds_ms: HOLDS_MS,
            intake: if worker.is_closed && self.sabotage != Sabotage::OpenDoor {
                Intake::Closed { reason: "low disk".to_owned() }
            } else {
                Intake::Open
            },
        };
        Input::WorkerPresent { worker: worker.id.clone(), presence }
    }

    /// Some attempt ends.
    fn work(&mut self) {
        let index = self.random.below(self.workers.len());
        let leases: Vec<LeaseId> = self.workers[index].running.keys().copied().collect();
        let Some(&lease) = self.random.pick(&leases) else { return };
        self.end_attempt(index, lease);
    }

    fn end_attempt(&mut self, index: usize, lease: LeaseId) {
        let is_stopping = self.workers[index].stopping.remove(&lease);
        let outcome = match self.random.below(20) {
            _ if is_stopping && self.random.chance(80) => {
                Outcome::Failed(graph::Failure::Canceled { by: "the engine".to_owned() })
            }
            0..4 => Outcome::Failed(graph::Failure::Step { step: 0, exit: 1, message: None }),
            4 => Outcome::Failed(graph::Failure::Infra { message: "disk full".to_owned() }),
            5 => Outcome::Failed(graph::Failure::Timeout { step: None, limit_ms: 7 }),
            // Every attempt's result is unlike every other's, so that one taken for another shows.
            _ => Outcome::Passed { outputs: BTreeMap::from([("lease".to_owned(), lease.0.into())]) },
        };
        let worker = &mut self.workers[index];
        let (build, attempt, spec) = worker.running.remove(&lease).expect("the caller saw it run");
        let (outcome, tests) = self.run_tests(&spec, outcome);
        self.oracle.hear_report(lease, outcome.clone());
        let mut report = Box::new(AttemptReport { tests, ..AttemptReport::of(outcome, self.now) });
        let took_ms = *self.random.pick(&[0, 400, 3000, 12_000]).expect("there are some");
        report.started = Timestamp(self.now.0 - took_ms * 1000);
        let worker = &mut self.workers[index];
        let input = Input::AttemptFinished { build, attempt, lease, report };
        if worker.is_silent {
            worker.outbox.push(input);
        } else {
            self.mail.push(input);
        }
    }

    /// What the tests of an attempt make of its outcome, and what is reported of them. Some runners stop at their first failure, some
    /// run all tests whatever they are asked for, and some leave one out.
    fn run_tests(&mut self, spec: &AttemptSpec, outcome: Outcome) -> (Outcome, Vec<TestCase>) {
        let ends = matches!(outcome, Outcome::Passed { .. } | Outcome::Failed(graph::Failure::Step { .. }));
        if spec.job.reports.junit.is_empty() || !ends {
            return (outcome, Vec::new());
        }
        let (is_heeded, stops) = (self.dice.chance(85), self.dice.chance(50));
        let asked = spec.asked.as_ref().filter(|_| is_heeded);
        let mut tests = Vec::new();
        let mut has_failed = false;
        for name in TESTS.iter().map(|&name| test_named(name)) {
            let is_run = asked.is_none_or(|asked| asked.tests.contains(&name)) && !self.dice.chance(4);
            if !is_run || (stops && has_failed) {
                if self.dice.chance(30) {
                    tests.push(case(&name, TestOutcome::Skipped));
                }
                continue;
            }
            let is_failed = self.dice.chance(15);
            has_failed |= is_failed;
            tests.push(case(&name, if is_failed { TestOutcome::Failed } else { TestOutcome::Passed }));
        }
        match has_failed {
            true => (Outcome::Failed(graph::Failure::Step { step: 0, exit: 1, message: None }), tests),
            false => (outcome, tests),
        }
    }

    /// Somebody retries some tests of a job.
    fn retry_some_tests(&mut self, build: BuildId, job: &JobName) {
        if let Some(tests) = self.some_tests(build, job) {
            let (job, by) = (job.clone(), "somebody".to_owned());
            self.mail.push(Input::JobRetried { build, job, by, tests: Some(tests), key: None });
        }
    }

    /// Some tests of a job that failed, as a server finds them.
    fn some_tests(&mut self, build: BuildId, job: &JobName) -> Option<Arc<AskedTests>> {
        let mut known = KnownTests::default();
        let mut ran_whole = None;
        for fact in &self.facts {
            match &fact.what {
                What::AttemptLeased { job: of, attempt, .. } | What::AttemptAdopted { job: of, attempt, .. }
                    if (fact.build, of) == (build, job) =>
                {
                    known.saw(*attempt);
                }
                What::AttemptFinished { job: of, attempt, report, .. } if (fact.build, of) == (build, job) => {
                    let extent = if report.partial.is_some() { Extent::Part } else { Extent::Whole };
                    report.tests.iter().for_each(|case| known.add(*attempt, extent, case));
                }
                What::AttemptFinished { job: of, report, .. } if of == job && fact.build < build => {
                    let is_whole = report.partial.is_none() && !report.tests.is_empty();
                    if is_whole && matches!(report.outcome, Outcome::Passed { .. }) {
                        ran_whole = Some(RanWhole::new(fact.build, &report.tests, usize::MAX));
                    }
                }
                _ => {}
            }
        }
        if let Some(ran) = ran_whole {
            known.compare(ran);
        }
        let wanted = match self.dice.chance(50) {
            true => Wanted::Failing,
            false => Wanted::Named(vec![(*self.dice.pick(&TESTS).expect("there are some")).to_owned()]),
        };
        AskedTests::choose(&known, &wanted).ok().map(Arc::new)
    }

    fn trouble_a_worker(&mut self) {
        let index = self.random.below(self.workers.len());
        match self.random.below(4) {
            0 | 1 => self.workers[index].is_silent = true,
            2 => self.bring_back(index),
            _ => {
                // The machine restarts: what ran is gone without a word.
                self.workers[index].running.clear();
                self.workers[index].stopping.clear();
                if self.random.chance(50) {
                    self.mail.push(Input::WorkerLeft { worker: self.workers[index].id.clone() });
                }
            }
        }
    }

    /// A silent worker returns, with all that it had to say.
    fn bring_back(&mut self, index: usize) {
        self.workers[index].is_silent = false;
        let outbox = std::mem::take(&mut self.workers[index].outbox);
        self.mail.extend(outbox);
        let input = self.presence(index);
        self.mail.push(input);
    }

    fn do_tasks(&mut self) {
        for _ in 0..1 + self.random.below(6) {
            let Some(effect) = self.tasks.pop_front() else { return };
            if self.random.chance(5) {
                self.tasks.push_back(effect.clone());
            }
            if self.random.chance(10) {
                self.tasks.push_back(effect);
            } else {
                self.perform(effect);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            // No job of a storm asks for a build.
            Effect::AskChild { .. } => {}
            Effect::Evaluate { build, known, .. } => {
                let mut evaluation = Box::new(self.pipelines[&build].evaluate(&known));
                if self.sabotage == Sabotage::MeltedJob {
                    // What was there at first, in the place of what it has become: the engine cannot see the change.
                    let first = self.pipelines[&build].evaluate(&Known::of(known.event.clone()));
                    for (name, job) in first.graph.jobs {
                        if evaluation.graph.jobs.get(&name).is_none_or(|now| now.title != job.title) {
                            evaluation.graph.jobs.insert(name, job);
                        }
                    }
                }
                self.corrupt(&mut evaluation);
                self.mail.push(Input::Evaluated { build, answers_known: known.answers.len(), evaluation });
            }
            Effect::Answer { build, question } => {
                let answer = Answer::Text(format!("text {}", self.random.below(3)));
                self.mail.push(Input::Answered { build, question, answer });
            }
            Effect::Resolve { build, job, spec, needs } => {
                let event = graph::Event::new(graph::EventKind::Push);
                let (mut digest, _) = operation(&Work {
                    name: &job,
                    job: &spec,
                    files: &[],
                    needs: &needs,
                    event: &event,
                    build,
                    project: "",
                    quarantine: &[],
                });
                let mut true_digest = digest;
                if self.sabotage == Sabotage::UnequalOperation {
                    digest.0[0] ^= self.random.number() as u8;
                }
                // Nothing crosses from what is not trusted: to those who judge, its work is other work.
                true_digest.0[31] ^= u8::from(self.oracle.trust_of(build) == Trust::Untrusted);
                self.operations.insert((build, job.clone()), true_digest);
                self.oracle.hear_operation(build, job.clone(), true_digest);
                let is_honest = self.sabotage != Sabotage::UnequalOperation;
                let hit = self.results.get(&true_digest).filter(|_| is_honest).cloned();
                let operation = if self.random.chance(5) { Err("no tree".to_owned()) } else { Ok(digest) };
                let hit = hit.filter(|_| operation.is_ok());
                let is_told = hit.is_none() && self.sabotage != Sabotage::UntoldEviction;
                let evicted = self.evicted.get(&true_digest).copied().filter(|_| is_told);
                self.mail.push(Input::OperationResolved { build, job, operation, hit, evicted });
            }
            Effect::Start { worker, spec, .. } => self.start(&worker, spec),
            Effect::Stop { worker, lease, .. } => {
                let worker = self.workers.iter_mut().find(|other| other.id == worker);
                // The worker's session may be cut off at this moment.
                let is_lost = self.sabotage == Sabotage::LostStop || !self.is_calm && self.dice.chance(30);
                let worker = worker.filter(|_| !is_lost);
                if let Some(worker) = worker.filter(|worker| !worker.is_silent && worker.running.contains_key(&lease)) {
                    worker.stopping.insert(lease);
                }
            }
            Effect::Duplicate { requested, .. } => drop(self.duplicates.insert(requested)),
            Effect::Wake { .. } => {}
        }
    }

    fn start(&mut self, id: &WorkerId, spec: Box<AttemptSpec>) {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == *id && !worker.is_silent) else { return };
        if worker.seen.insert(spec.lease) {
            worker.running.insert(spec.lease, (spec.build, spec.attempt, spec));
        }
    }

    /// Plants what an evaluation can carry.
    fn corrupt(&mut self, evaluation: &mut Evaluation) {
        if self.sabotage == Sabotage::LostGrowth {
            let is_needed = |name: &graph::JobName| {
                evaluation.graph.jobs.values().any(|job| job.needs.iter().any(|need| need.job == *name))
            };
            let grown = evaluation.graph.jobs.keys().find(|name| name.leg().is_some() && !is_needed(name)).cloned();
            grown.map(|name| evaluation.graph.jobs.remove(&name));
        }
        for job in evaluation.graph.jobs.values_mut() {
            let job = Arc::make_mut(job);
            match self.sabotage {
                Sabotage::IgnoredNeed => drop(job.needs.pop()),
                Sabotage::GroupLeak if job.order % 2 == 0 => job.concurrency = None,
                _ => {}
            }
        }
    }

    fn answer_a_gate(&mut self) {
        let gates: Vec<_> = self.gates.iter().cloned().collect();
        let Some((build, job)) = self.random.pick(&gates).cloned() else { return };
        let answer = (!self.random.chance(20)).then(BTreeMap::new);
        self.mail.push(Input::GateAnswered { build, job, answer, by: "somebody".to_owned(), reason: String::new() });
    }

    /// Something that is not so: a report under a made-up lease, an answer nobody asked for.
    fn lie(&mut self) {
        let build = BuildId(1 + self.random.below(5) as u64);
        let report = Box::new(AttemptReport::of(Outcome::passed(), self.now));
        let number = |random: &mut Random| random.below(12) as u64;
        let input = match self.random.below(4) {
            0 => Input::AttemptFinished {
                build,
                attempt: AttemptNumber(number(&mut self.random) as u32),
                // Past all that are given, as nobody can guess the lease of another.
                lease: LeaseId(1_000_000 + number(&mut self.random)),
                report,
            },
            1 => Input::GateAnswered {
                build,
                job: "j01".into(),
                answer: None,
                by: "a liar".to_owned(),
                reason: String::new(),
            },
            2 => Input::OperationResolved {
                build,
                job: "j00".into(),
                operation: Err("a lie".to_owned()),
                hit: None,
                evicted: None,
            },
            _ => Input::Evaluated { build, answers_known: 77, evaluation: Box::default() },
        };
        self.mail.push(input);
    }

    fn cancel_retry_or_urge(&mut self) {
        let by = "somebody".to_owned();
        if self.random.chance(10) {
            let build = BuildId(1 + self.random.below(4) as u64);
            self.mail.push(Input::MadeUrgent { build, by });
        } else if self.random.chance(30) {
            // Mostly one that runs, so that its work may be wanted by another.
            let running: Vec<BuildId> =
                self.workers.iter().flat_map(|worker| worker.running.values()).map(|(build, _, _)| *build).collect();
            let any = BuildId(1 + self.random.below(4) as u64);
            let build = self.random.pick(&running).copied().filter(|_| self.random.clone().chance(75)).unwrap_or(any);
            self.mail.push(Input::CancelRequested { build, by });
        } else if self.random.chance(30) {
            let build = BuildId(1 + self.random.below(4) as u64);
            let jobs: Vec<_> = self.engine.jobs(build).map(|(name, _)| name.clone()).collect();
            let Some(job) = self.random.pick(&jobs).cloned() else { return };
            self.mail.push(Input::JobCanceled { build, job, by });
        } else if let Some((build, job)) = self.random.pick(&self.oracle.failed_jobs()).cloned() {
            self.mail.push(Input::JobRetried { build, job, by, tests: None, key: None });
        }
    }

    /// Somebody holds or releases a pool; a worker pauses or goes on.
    fn hold_or_close(&mut self) {
        if self.random.chance(50) {
            let worker = self.random.below(self.workers.len());
            self.workers[worker].is_closed ^= true;
            return;
        }
        let pool = if self.random.chance(50) { "big".to_owned() } else { String::new() };
        if !self.held.remove(&pool) {
            self.held.insert(pool.clone());
        }
        self.say_hold(pool);
    }

    fn say_hold(&mut self, pool: String) {
        let reason = self.held.contains(&pool).then(|| "maintenance".to_owned());
        self.mail.push(Input::PoolHeld { pool, reason });
    }

    fn say_again(&mut self) {
        // Nobody asks twice in the same words for a new start.
        let again = self.random.pick(&self.memory).filter(|input| !matches!(input, Input::JobRetried { .. })).cloned();
        self.mail.extend(again);
    }

    /// A batch of the mail arrives, not always in order.
    fn deliver(&mut self) -> Checked {
        let mut batch = Vec::new();
        for _ in 0..self.random.below(6) {
            if self.mail.is_empty() {
                break;
            }
            let index = if self.random.chance(30) { self.random.below(self.mail.len()) } else { 0 };
            batch.push(self.mail.remove(index));
        }
        self.step(batch)
    }

    fn step(&mut self, mut inputs: Vec<Input>) -> Checked {
        for input in &mut inputs {
            self.hear(input);
            self.plant_stale(input);
            if self.memory.len() < MEMORY_MAX {
                self.memory.push(input.clone());
            } else {
                let index = self.random.below(MEMORY_MAX);
                self.memory[index] = input.clone();
            }
        }
        let told = self.told_time();
        let step = self.engine.step(told, inputs);
        self.latest = self.latest.max(self.now);
        for effect in &step.effects {
            if let Effect::Duplicate { requested, of } = effect {
                self.oracle.see_duplicate(*requested, *of)?;
            }
        }
        self.append(step.facts)?;
        self.oracle.check_rest()?;
        self.check_waits(&step.effects)?;
        if !self.is_calm && self.random.chance(4) {
            // The server dies after it has stored the facts and before it performs the effects.
            return self.die();
        }
        self.tasks.extend(step.effects);
        Ok(())
    }

    /// The time that the engine is told.
    fn told_time(&self) -> Timestamp {
        match self.oracle.first_wait() {
            Some(since) if self.sabotage == Sabotage::EndlessPatience => since,
            _ => self.now,
        }
    }

    /// What jobs of the queues wait for, as the engine tells it, must be so.
    fn check_waits(&mut self, effects: &[Effect]) -> Checked {
        let is_queued = |state: &JobState<'_>| matches!(state, JobState::Queued);
        let jobs = self.created.iter().flat_map(|&id| self.engine.jobs(id).map(move |(name, state)| (id, name, state)));
        let queued = jobs.filter(|(_, _, state)| is_queued(state));
        let told: Vec<_> =
            queued.filter_map(|(id, name, _)| Some((id, name.clone(), self.engine.why(id, name)?))).collect();
        let wake = effects.iter().filter_map(|effect| match effect {
            Effect::Wake { at } => Some(*at),
            _ => None,
        });
        self.n_affinities += self.oracle.hear_waits(&told, self.latest, wake.min())?;
        // What an attempt uses that is no longer wanted is in no fact.
        let is_anything_running = self.workers.iter().any(|worker| !worker.running.is_empty());
        if !self.is_calm || is_anything_running {
            return Ok(());
        }
        // All have just told the truth, and what has been handed out since stands in facts.
        for (id, name, wait) in &told {
            let Wait::Queue { pool, .. } = wait else { continue };
            let serving = self.workers.iter().filter(|worker| worker.pools.contains(pool));
            self.oracle.check_idle(*id, name, serving.map(|worker| &worker.id))?;
        }
        Ok(())
    }

    /// What reaches the engine is what it can know.
    fn hear(&mut self, input: &mut Input) {
        match input {
            Input::WorkerPresent { worker, presence } => {
                let worker = self.workers.iter().find(|other| other.id == *worker).expect("no other shows itself");
                // The word of a moment ago may be on its way still; whoever sent it, it is what the engine knows.
                let is_closed = match self.sabotage {
                    Sabotage::OpenDoor => worker.is_closed,
                    _ => presence.intake != Intake::Open,
                };
                self.oracle.hear_intake(&worker.id, is_closed);
            }
            Input::WorkerLeft { worker } => self.oracle.hear_intake(worker, false),
            Input::PoolHeld { pool, reason } => {
                self.oracle.hear_hold(pool, reason.is_some());
                if self.sabotage == Sabotage::UnheldPool {
                    *reason = None;
                }
            }
            Input::JobRetried { tests: Some(tests), .. } => match self.sabotage {
                Sabotage::ForgottenFailures => Arc::make_mut(tests).others_failed.clear(),
                Sabotage::ForgottenTests => {
                    let never_run = Arc::make_mut(tests).never_run.as_mut();
                    if let Some(never_run) = never_run {
                        (never_run.count, never_run.tests) = (0, Vec::new());
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn append(&mut self, facts: Vec<Fact>) -> Checked {
        for fact in facts {
            self.note(&fact);
            // Without its first fact a build is not in the store at all.
            let is_first = matches!(fact.what, What::BuildCreated(_));
            let is_kept =
                self.sabotage != Sabotage::UnwrittenFact || self.is_planted || is_first || !self.random.chance(3);
            if is_kept {
                self.store.append(std::slice::from_ref(&fact)).map_err(|error| Violation {
                    law: "the store takes every fact",
                    text: format!("{error}: {fact:?}"),
                })?;
            } else {
                self.is_planted = true;
                self.unwritten = Some(self.facts.len());
            }
            self.facts.push(fact);
            self.oracle.see(self.facts.last().expect("it was just put there"))?;
        }
        Ok(())
    }

    fn note(&mut self, fact: &Fact) {
        match &fact.what {
            What::BuildCreated(_) => drop(self.created.insert(fact.build)),
            What::GateOpened { job, .. } => drop(self.gates.insert((fact.build, job.clone()))),
            What::AttemptFinished { job, attempt, report, retry_at: None, .. } => {
                if let (Outcome::Passed { .. }, Some(&digest)) =
                    (&report.outcome, self.operations.get(&(fact.build, job.clone())))
                {
                    let (build, attempt, job) = (fact.build, *attempt, job.clone());
                    let reused = Reused { build, attempt, job, artifacts: BTreeMap::new() };
                    self.results.insert(digest, (reused, report.outcome.clone()));
                }
            }
            _ => {}
        }
    }

    /// What has not ended, for the trace of a storm that did not calm down.
    fn unended(&self) -> String {
        let is_ended = |state: &JobState<'_>| matches!(state, JobState::Ended(_));
        let jobs = self.created.iter().flat_map(|&id| self.engine.jobs(id).map(move |(name, state)| (id, name, state)));
        let left = jobs.filter(|(_, _, state)| !is_ended(state));
        left.map(|(id, name, state)| format!("{id}.{name} {state:?}")).collect::<Vec<_>>().join(", ")
    }

    /// The server dies and starts again: all that it knows are the facts.
    fn die(&mut self) -> Checked {
        self.n_deaths += 1;
        let mut folded = Engine::new();
        for (index, fact) in self.facts.iter().enumerate() {
            if self.unwritten != Some(index) {
                folded.apply(fact);
            }
        }
        let (before, after) = (self.engine.portrait(), folded.portrait());
        let is_compared = |line: &str| !self.is_folded_by_build || !line.starts_with("shared");
        let mut pairs = before.lines().zip(after.lines()).filter(|(before, _)| is_compared(before));
        if before.lines().count() != after.lines().count() || pairs.any(|(before, after)| before != after) {
            let differing = before.lines().zip(after.lines()).find(|(before, after)| before != after);
            let text = format!("{differing:?}");
            return Err(Violation { law: "folding the facts rebuilds the engine", text });
        }
        self.check_standing(&before)?;
        self.is_folded_by_build = self.random.chance(50);
        self.engine = if self.is_folded_by_build { self.rebuilt_from_store()? } else { folded };
        // All that it knows of time is what facts say: that the clock went back since it does not notice.
        self.latest = self.facts.iter().map(|fact| fact.at).max().unwrap_or(Timestamp(0));
        self.plant_unfenced();
        self.plant_unread_adoption();
        self.oracle.forget_hearsay();
        for pool in self.held.clone() {
            self.say_hold(pool);
        }
        self.tasks.clear();
        self.tasks.extend(self.engine.wanted(self.now));
        Ok(())
    }

    /// A restart from a standing taken at any time, with the facts that were stored since, charges every client once.
    fn check_standing(&mut self, before: &str) -> Checked {
        if self.is_folded_by_build || self.unwritten.is_some() {
            return Ok(());
        }
        let taken = self.random.below(self.facts.len() + 1);
        let mut past = Engine::new();
        self.facts[..taken].iter().for_each(|fact| past.apply(fact));
        let standing = past.standing();
        let (earlier, mut later) = self.facts.split_at(taken);
        if self.sabotage == Sabotage::ChargedTwice {
            later = &self.facts[taken.saturating_sub(8)..];
        }
        let after = Engine::recover(standing.clone(), earlier, later).portrait();
        let differing = before.lines().zip(after.lines()).find(|(before, after)| before != after);
        let law = "a restart from a standing charges once";
        if let Some(differing) = differing {
            return Err(Violation { law, text: format!("taken after {taken} facts: {differing:?}") });
        }
        // A server does not read the facts of what had ended then.
        let is_over = |id: &BuildId| past.verdict(*id).is_some_and(|verdict| verdict != graph::Verdict::Running);
        let is_done = |id: &&BuildId| is_over(id) && !later.iter().any(|fact| fact.build == **id);
        let done: BTreeSet<BuildId> = self.created.iter().filter(is_done).copied().collect();
        if done.is_empty() {
            return Ok(());
        }
        self.n_left_out += 1;
        let after = Engine::recover(standing, earlier.iter().filter(|fact| !done.contains(&fact.build)), later);
        let mut whole = Engine::new();
        self.facts.iter().for_each(|fact| whole.apply(fact));
        for &id in &done {
            whole.forget(id);
        }
        let (before, after) = (whole.portrait(), after.portrait());
        // Which of equal results is the shared one depends on those that are left out.
        let is_compared = |line: &&str| !line.starts_with("shared results");
        let mut pairs = before.lines().filter(is_compared).zip(after.lines().filter(is_compared));
        let law = "a restart does not need what had ended";
        match pairs.find(|(before, after)| before != after) {
            Some(differing) => Err(Violation { law, text: format!("taken after {taken} facts: {differing:?}") }),
            None => Ok(()),
        }
    }

    /// An engine from what the store holds, build by build.
    fn rebuilt_from_store(&self) -> Result<Engine, Violation> {
        let mut engine = Engine::new();
        for &build in &self.created {
            let facts = self.store.facts(build);
            let facts =
                facts.map_err(|error| Violation { law: "the store gives facts back", text: error.to_string() })?;
            facts.iter().for_each(|fact| engine.apply(fact));
        }
        Ok(engine)
    }

    /// Sabotage: the report of a lease that was lost names the lease that replaced it.
    fn plant_stale(&mut self, input: &mut Input) {
        let Input::AttemptFinished { build, attempt, lease, .. } = input else { return };
        if self.sabotage != Sabotage::StaleResult {
            return;
        }
        let leased = |fact: &Fact| match &fact.what {
            What::AttemptLeased { job, attempt, lease, .. } if fact.build == *build => {
                Some((job.clone(), *attempt, *lease))
            }
            _ => None,
        };
        let job = self.facts.iter().filter_map(leased).find(|(_, _, other)| other == lease).map(|(job, _, _)| job);
        let last = self.facts.iter().rev().filter_map(leased).find(|(other, _, _)| Some(other) == job.as_ref());
        if let Some((_, last_attempt, last_lease)) = last {
            (*attempt, *lease) = (last_attempt, last_lease);
        }
    }

    /// Sabotage: the rebuilt engine has not read that a lease was lost, nor what followed for that job.
    fn plant_unfenced(&mut self) {
        if self.sabotage != Sabotage::UnfencedRecovery {
            return;
        }
        let lost = self.facts.iter().position(|fact| {
            matches!(&fact.what, What::AttemptFinished { report, .. } if report.outcome == Outcome::Failed(graph::Failure::Lost))
        });
        let Some(lost) = lost else { return };
        let What::AttemptFinished { job: lost_job, .. } = &self.facts[lost].what else { return };
        let mut engine = Engine::new();
        for (index, fact) in self.facts.iter().enumerate() {
            let is_about_it = match &fact.what {
                What::AttemptLeased { job, .. } | What::AttemptFinished { job, .. } => job == lost_job,
                _ => false,
            };
            if !(index >= lost && fact.build == self.facts[lost].build && is_about_it) {
                engine.apply(fact);
            }
        }
        self.engine = engine;
    }

    /// Sabotage: the rebuilt engine has not read that a lease was handed over, but that the old job has ended.
    fn plant_unread_adoption(&mut self) {
        if self.sabotage != Sabotage::UnreadAdoption {
            return;
        }
        let mut engine = Engine::new();
        let is_read = |fact: &&Fact| !matches!(fact.what, What::AttemptAdopted { .. });
        self.facts.iter().filter(is_read).for_each(|fact| engine.apply(fact));
        self.engine = engine;
    }

    /// All workers have shown themselves: who runs what nobody wants any more has heard so, whatever was lost before.
    fn check_stops(&mut self) -> Checked {
        // In the first round starts come that were on their way.
        for _ in 0..2 {
            for index in 0..self.workers.len() {
                let input = self.presence(index);
                self.mail.push(input);
            }
            let mail = std::mem::take(&mut self.mail);
            self.step(mail)?;
            while let Some(effect) = self.tasks.pop_front() {
                self.perform(effect);
            }
        }
        for worker in &self.workers {
            let untold = worker.running.keys().filter(|lease| !worker.stopping.contains(lease));
            self.oracle.check_untold(untold.copied())?;
        }
        Ok(())
    }

    /// Everybody behaves until nothing is left to do.
    fn calm(&mut self) -> Checked {
        self.is_calm = true;
        for index in 0..self.workers.len() {
            self.workers[index].is_closed = false;
            self.bring_back(index);
        }
        self.check_stops()?;
        self.held.clear();
        // Also of a pool that is not held any more: an older word may have come later.
        for pool in ["", "big"] {
            self.say_hold(pool.to_owned());
        }
        for _ in 0..CALM_ROUNDS_MAX {
            self.now = self.now.plus_ms(700);
            for index in 0..self.workers.len() {
                let leases: Vec<LeaseId> = self.workers[index].running.keys().copied().collect();
                leases.into_iter().for_each(|lease| self.end_attempt(index, lease));
                let input = self.presence(index);
                self.mail.push(input);
            }
            for (build, job) in self.gates.clone() {
                self.mail.push(Input::GateAnswered {
                    build,
                    job,
                    answer: Some(BTreeMap::new()),
                    by: "all".to_owned(),
                    reason: String::new(),
                });
            }
            let is_open = |id: &&BuildId| !self.created.contains(id) && !self.duplicates.contains(id);
            let open: Vec<BuildId> = self.requests.keys().filter(is_open).copied().collect();
            self.mail.extend(open.iter().map(|id| self.requests[id].clone()));
            let mail = std::mem::take(&mut self.mail);
            self.step(mail)?;
            while let Some(effect) = self.tasks.pop_front() {
                self.perform(effect);
            }
            let is_over =
                |id: &BuildId| self.engine.verdict(*id).is_none_or(|verdict| verdict != graph::Verdict::Running);
            if self.created.iter().all(is_over)
                && self.pipelines.keys().all(|id| self.created.contains(id) || self.duplicates.contains(id))
            {
                break;
            }
        }
        self.oracle.check_calm(&self.created).map_err(|violation| {
            let text = format!("{}: {}", violation.text, self.unended());
            Violation { text, ..violation }
        })?;
        let rest = self.engine.step(self.now.plus_ms(1), Vec::new());
        self.append(rest.facts)?;
        self.die()?;
        let rest = self.engine.step(self.now.plus_ms(100_000), Vec::new());
        if let Some(fact) = rest.facts.first() {
            return Err(Violation { law: "a finished build is a fixed point", text: format!("{fact:?}") });
        }
        Ok(())
    }
}

fn test_named(name: &str) -> TestName {
    TestName { suite: String::new(), name: name.to_owned() }
}

fn case(name: &TestName, outcome: TestOutcome) -> TestCase {
    let TestName { suite, name } = name.clone();
    TestCase { suite, name, outcome, duration_ms: 0, message: String::new(), output: String::new() }
}

fn shown(what: &What) -> String {
    match what {
        What::BuildCreated(request) => format!("created {:?} by {}", request.options, request.client),
        What::Evaluated { graph, diagnostics, .. } => {
            let jobs: Vec<_> = graph.jobs.iter().map(|(name, job)| format!("\n    {name}: {job:?}")).collect();
            format!("evaluated {diagnostics:?} holes {:?}{}", graph.holes, jobs.concat())
        }
        other => format!("{other:?}"),
    }
}
