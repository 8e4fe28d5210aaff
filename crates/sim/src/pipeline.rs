//! Random pipelines: real functions from what is known to a graph, so that they can grow.

use std::collections::BTreeMap;
use std::sync::Arc;

use graph::{
    Accepts, Carries, Concurrency, ConcurrencyMode, Ending, Evaluation, Gate, Hole, Job, JobName, Known, Need, Outcome,
    Question, Resources, Retry, RetryOn, Reuse, Step,
};

use crate::random::Random;

/// The cores of every worker, in thousandths.
pub const WORKER_CPU_MILLI: u64 = 4000;
/// The most jobs of a base graph.
const JOBS_MAX: usize = 14;

/// A pipeline: jobs that are always there, and jobs that come once another's outcome is known.
#[derive(Clone, Debug)]
pub struct Pipeline {
    base: BTreeMap<JobName, Job>,
    growths: Vec<Growth>,
    asks_file: bool,
}

#[derive(Clone, Debug)]
struct Growth {
    id: String,
    after: JobName,
    jobs: BTreeMap<JobName, Job>,
}

impl Pipeline {
    /// A pipeline by the dice.
    #[must_use]
    pub fn new(random: &mut Random) -> Self {
        let mut base = BTreeMap::new();
        let n_jobs = 1 + random.below(JOBS_MAX);
        for index in 0..n_jobs {
            let name = JobName::from(format!("j{index:02}"));
            let earlier: Vec<JobName> = base.keys().cloned().collect();
            base.insert(name, job(random, &earlier, index));
        }
        let names: Vec<JobName> = base.keys().cloned().collect();
        let mut growths = Vec::new();
        for number in 0..random.below(3) {
            let after = random.pick(&names).expect("there is a job").clone();
            let id = format!("grown{number}");
            let mut jobs = BTreeMap::new();
            for leg in 0..random.below(4) {
                let earlier: Vec<JobName> = names.iter().chain(jobs.keys()).cloned().collect();
                jobs.insert(JobName::from(format!("{id}/{leg}")), job(random, &earlier, n_jobs + leg));
            }
            if random.chance(50) {
                let gather = Job { needs: vec![Need::success(id.as_str())], ..job(random, &[], n_jobs + 9) };
                base.insert(format!("z-after-{id}").into(), gather);
            }
            growths.push(Growth { id, after, jobs });
        }
        Self { base, growths, asks_file: random.chance(20) }
    }

    /// What the pipeline is, given what is known.
    #[must_use]
    pub fn evaluate(&self, known: &Known) -> Evaluation {
        let mut evaluation = Evaluation::default();
        if self.asks_file {
            evaluation.questions.insert(Question::File("plan.txt".to_owned()));
        }
        let mut jobs = self.base.clone();
        let mut legs_of: BTreeMap<&str, Vec<JobName>> = BTreeMap::new();
        for growth in &self.growths {
            evaluation.questions.insert(Question::Outcome(growth.after.clone()));
            match known.outcome(&growth.after) {
                None => {
                    let after = vec![growth.after.clone()];
                    evaluation.graph.holes.push(Hole { name: growth.id.clone(), after });
                }
                Some(Outcome::Passed { .. }) => {
                    legs_of.insert(&growth.id, growth.jobs.keys().cloned().collect());
                    jobs.extend(growth.jobs.clone());
                }
                Some(_) => drop(legs_of.insert(&growth.id, Vec::new())),
            }
        }
        for job in jobs.values_mut() {
            for (id, legs) in &legs_of {
                if job.needs.iter().any(|need| need.job.as_str() == *id) {
                    job.needs = legs.iter().cloned().map(Need::success).collect();
                }
            }
        }
        evaluation.graph.jobs = jobs.into_iter().map(|(name, job)| (name, Arc::new(job))).collect();
        evaluation
    }
}

fn job(random: &mut Random, earlier: &[JobName], order: usize) -> Job {
    let mut job = Job { order: order as u32, ..Job::default() };
    // Few scripts, so that some operations are equal.
    job.steps = vec![Step { run: format!("script {}", random.below(3)).into(), ..Step::default() }];
    let mut names: Vec<JobName> = (0..random.below(4)).filter_map(|_| random.pick(earlier).cloned()).collect();
    names.sort();
    names.dedup();
    job.needs = names.into_iter().map(|name| need(random, name)).collect();
    job.cleanup = random.chance(10);
    job.allow_failure = random.chance(15);
    if random.chance(10) {
        job.steps.clear();
    }
    if random.chance(8) {
        job.gate = Some(Gate { prompt: "go?".into(), ..Gate::default() });
    }
    if random.chance(30) {
        job.reuse = Reuse::Inputs(Vec::new());
    }
    if random.chance(25) {
        let modes = [ConcurrencyMode::Queue, ConcurrencyMode::CancelWaiting, ConcurrencyMode::CancelRunning];
        let mode = modes[random.below(8).saturating_sub(5)];
        job.concurrency = Some(Concurrency { group: format!("group {}", random.below(2)).as_str().into(), mode });
    }
    if random.chance(10) {
        let conditions = ["failure()", "success()", "always()", "needs.j00.result == 'passed'"];
        job.condition = random.pick(&conditions).map(|&text| text.into());
    }
    let on = vec![RetryOn::Lost, RetryOn::Infra, RetryOn::Step];
    job.retry = Retry { max: random.below(3) as u32, on, backoff_ms: random.below(3) as u64 * 1000 };
    job.resources = Resources { cpu_milli: random.below(4) as u64 * 1000, memory_bytes: 0 };
    if random.chance(20) {
        job.pool = "big".to_owned();
    }
    job
}

fn need(random: &mut Random, name: JobName) -> Need {
    let need = match random.below(10) {
        0 => Need::failure(name),
        1 | 2 => Need::finished(name),
        3 => Need::barrier(name),
        4 => Need::new(name, Accepts::of(&[Ending::Passed, Ending::Canceled]), Carries::Order),
        _ => Need::success(name),
    };
    Need { eager_skip: random.chance(25), ..need }
}
