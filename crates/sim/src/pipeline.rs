//! Random pipelines: real functions from what is known to a graph, so that they can grow.

use std::collections::BTreeMap;
use std::sync::Arc;

use graph::{
    Accepts, Carries, Concurrency, ConcurrencyMode, Ending, Evaluation, Gate, Hole, Job, JobName, Known, Need, Outcome,
    Question, Resources, Retry, RetryOn, Reuse, SkipReason, Step,
};

use crate::random::Random;

/// The cores of every worker, in thousandths.
pub const WORKER_CPU_MILLI: u64 = 4000;
/// The most jobs of a base graph.
const JOBS_MAX: usize = 14;

/// A pipeline: jobs that are always there, and jobs that come once another's outcome is known, also that of one that came
/// so. Few break the rule that answers only add: what they do to a job that has begun must end their build.
#[derive(Clone, Debug)]
pub struct Pipeline {
    base: BTreeMap<JobName, Job>,
    growths: Vec<Growth>,
    betrayal: Option<Betrayal>,
    asks_file: bool,
    /// A job that comes once it is known that another, which never is, will not be.
    last: Option<Job>,
}

/// A change to a job that is there, once the outcome of another is known.
#[derive(Clone, Debug)]
struct Betrayal {
    trigger: JobName,
    victim: JobName,
    is_dropped: bool,
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
        let mut may_grow_after = names.clone();
        for number in 0..random.below(4) {
            let after = random.pick(&may_grow_after).expect("there is a job").clone();
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
            may_grow_after.extend(jobs.keys().cloned());
            growths.push(Growth { id, after, jobs });
        }
        let betrayal = random.chance(15).then(|| betrayal(random, &base, &names));
        let last = random.chance(10).then(|| job(random, &names, n_jobs + 20));
        Self { base, growths, betrayal, asks_file: random.chance(20), last }
    }

    /// Whether the pipeline, with what is known, has broken the rule that answers only add; and to which job.
    #[must_use]
    pub fn betrayed(&self, known: &Known) -> Option<&JobName> {
        let betrayal = self.betrayal.as_ref()?;
        known.outcome(&betrayal.trigger).map(|_| &betrayal.victim)
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
        let mut holes_of: BTreeMap<&str, Vec<JobName>> = BTreeMap::new();
        for growth in &self.growths {
            if !jobs.contains_key(&growth.after) {
                // What it grows after has itself to grow, or never comes.
                match holes_of.get(growth.after.id()).cloned() {
                    None => drop(legs_of.insert(&growth.id, Vec::new())),
                    Some(after) => {
                        holes_of.insert(&growth.id, after.clone());
                        evaluation.graph.holes.push(Hole { name: growth.id.clone(), after });
                    }
                }
                continue;
            }
            evaluation.questions.insert(Question::Outcome(growth.after.clone()));
            match known.outcome(&growth.after) {
                None => {
                    let after = vec![growth.after.clone()];
                    holes_of.insert(&growth.id, after.clone());
                    evaluation.graph.holes.push(Hole { name: growth.id.clone(), after });
                }
                Some(Outcome::Passed { .. }) => {
                    legs_of.insert(&growth.id, growth.jobs.keys().cloned().collect());
                    jobs.extend(growth.jobs.clone());
                }
                Some(_) => drop(legs_of.insert(&growth.id, Vec::new())),
            }
        }
        if let Some(job) = &self.last {
            let nobody = Question::Outcome("nobody".into());
            if known.answers.contains_key(&nobody) {
                jobs.insert("last".into(), job.clone());
            } else {
                evaluation.graph.holes.push(Hole { name: "last".to_owned(), after: Vec::new() });
            }
            evaluation.questions.insert(nobody);
        }
        self.betray(known, &mut evaluation, &mut jobs);
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

    fn betray(&self, known: &Known, evaluation: &mut Evaluation, jobs: &mut BTreeMap<JobName, Job>) {
        let Some(betrayal) = &self.betrayal else { return };
        evaluation.questions.insert(Question::Outcome(betrayal.trigger.clone()));
        if known.outcome(&betrayal.trigger).is_none() {
            return;
        }
        let is_needed = jobs.values().any(|job| job.needs.iter().any(|need| need.job == betrayal.victim));
        let is_asked = evaluation.questions.contains(&Question::Outcome(betrayal.victim.clone()));
        if betrayal.is_dropped && !is_needed && !is_asked {
            jobs.remove(&betrayal.victim);
        } else if let Some(job) = jobs.get_mut(&betrayal.victim) {
            job.title = "another".into();
            job.env.insert("X".to_owned(), "1".into());
        }
    }
}

fn betrayal(random: &mut Random, base: &BTreeMap<JobName, Job>, names: &[JobName]) -> Betrayal {
    let victims: Vec<JobName> = base.keys().cloned().collect();
    let pick = |random: &mut Random, names: &[JobName]| random.pick(names).expect("there is a job").clone();
    Betrayal { trigger: pick(random, names), victim: pick(random, &victims), is_dropped: random.chance(50) }
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
    if random.chance(5) {
        job.skip = Some(SkipReason::Condition { text: "branch main".to_owned() });
    }
    if random.chance(40) {
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
    // Some tell their tests.
    if order % 3 == 1 {
        job.reports.junit.push("r.xml".to_owned());
    }
    if job.reuse != Reuse::Never && random.chance(70) {
        // Alike enough that one may go on for another.
        (job.resources, job.concurrency) = Default::default();
        job.pool.clear();
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
