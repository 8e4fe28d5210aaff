//! Which tests of a build on this machine are run again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::Fact;
use engine::fact::What;
use graph::asked::{Extent, KnownTests, Unaskable, Wanted};
use graph::{AskedTests, BuildId, Graph, JobName, Outcome};
use store::{BuildFilter, Store};

use crate::commands::Stop;

/// The attempts of how many builds are looked at for one in which a job passed whole.
const BUILDS_MAX: u32 = 200;

/// The jobs of an ended build that failed, each with what is known of its tests.
pub struct Failed {
    build: BuildId,
    graph: Arc<Graph>,
    jobs: BTreeMap<JobName, KnownTests>,
    pipeline: String,
    /// The jobs that the build was asked for some tests of: what it knows of the others it was told.
    told: BTreeSet<JobName>,
}

impl Failed {
    /// Reads the facts of a build.
    #[must_use]
    pub fn of(build: BuildId, facts: &[Fact]) -> Self {
        let (pipeline, told) = Default::default();
        let mut failed = Self { build, graph: Arc::default(), jobs: BTreeMap::new(), pipeline, told };
        let mut extents = BTreeMap::new();
        let mut outcomes: BTreeMap<&JobName, &Outcome> = BTreeMap::new();
        for fact in facts {
            match &fact.what {
                What::BuildCreated(request) => {
                    let before = request.asked.iter().map(|(job, asked)| (job.clone(), KnownTests::before(asked)));
                    failed.jobs = before.collect();
                    failed.told = request.asked.keys().cloned().collect();
                    failed.pipeline.clone_from(&request.pipeline);
                }
                What::Evaluated { graph, .. } => failed.graph = Arc::clone(graph),
                What::AttemptLeased { attempt, partial: Some(_), .. } => drop(extents.insert(*attempt, Extent::Part)),
                What::AttemptFinished { job, attempt, report, retry_at, .. } => {
                    let extent = extents.get(attempt).copied().unwrap_or(Extent::Whole);
                    let known = failed.jobs.entry(job.clone()).or_default();
                    report.tests.iter().for_each(|case| known.add(*attempt, extent, case));
                    known.heed_cut(report);
                    if retry_at.is_none() {
                        outcomes.insert(job, &report.outcome);
                    }
                }
                What::JobEnded { job, outcome, .. } => drop(outcomes.insert(job, outcome)),
                _ => {}
            }
        }
        for (job, outcome) in outcomes {
            match outcome {
                Outcome::Failed(_) => drop(failed.jobs.entry(job.clone()).or_default()),
                Outcome::Passed { .. } | Outcome::Skipped(_) => drop(failed.jobs.remove(job)),
            }
        }
        failed
    }

    /// The jobs of which a test failed.
    #[must_use]
    pub fn with_failing_tests(&self) -> BTreeSet<JobName> {
        let has_failing = |known: &KnownTests| known.failed().next().is_some();
        self.jobs.iter().filter(|(_, known)| has_failing(known)).map(|(job, _)| job.clone()).collect()
    }

    /// Compares these jobs with what each ran in the last build of the same pipeline here in which it passed whole.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn compare(&mut self, store: &dyn Store, jobs: &BTreeSet<JobName>) -> Result<(), Stop> {
        let jobs = jobs.iter().filter(|job| !self.told.contains(*job)).cloned().collect();
        let filter = BuildFilter { pipeline: Some(self.pipeline.clone()), ..BuildFilter::default() };
        let builds = store.builds(&filter, None, BUILDS_MAX)?;
        for (job, ran) in store::ran_whole(store, builds.iter().map(|row| row.build), jobs)? {
            if let Some(known) = self.jobs.get_mut(&job) {
                known.compare(ran);
            }
        }
        Ok(())
    }

    /// The failing tests of every job that failed and reported some.
    ///
    /// # Errors
    /// If there is none, or more than a retry takes.
    pub fn failing(&self) -> Result<BTreeMap<JobName, Arc<AskedTests>>, Stop> {
        let mut asked = BTreeMap::new();
        for job in self.jobs.keys() {
            match self.choose(job, &Wanted::Failing) {
                Ok(tests) => drop(asked.insert(job.clone(), Arc::new(tests))),
                // Such a job runs whole.
                Err(Unaskable::NoneFailed | Unaskable::NoReports) => {}
                Err(fault) => return Err(refused(job, &fault)),
            }
        }
        if asked.is_empty() {
            let build = self.build;
            return Err(Stop::wrong(format!(
                "no job of build {build} that failed reported a test that failed; `ropewalk retry {build} --failed` runs what did \
                 not pass"
            )));
        }
        Ok(asked)
    }

    /// These tests of a job; its failing ones if none is named.
    ///
    /// # Errors
    /// If the job did not fail, or these tests cannot be asked for.
    pub fn of_job(&self, job: &JobName, names: &[String]) -> Result<BTreeMap<JobName, Arc<AskedTests>>, Stop> {
        if !self.jobs.contains_key(job) {
            let build = self.build;
            return Err(Stop::wrong(format!("job `{job}` of build {build} did not fail: there is nothing to retry")));
        }
        let wanted = if names.is_empty() { Wanted::Failing } else { Wanted::Named(names.to_vec()) };
        let asked = self.choose(job, &wanted).map_err(|fault| refused(job, &fault))?;
        Ok([(job.clone(), Arc::new(asked))].into())
    }

    fn choose(&self, job: &JobName, wanted: &Wanted) -> Result<AskedTests, Unaskable> {
        match self.graph.jobs.get(job) {
            Some(spec) if !spec.reports.junit.is_empty() => AskedTests::choose(&self.jobs[job], wanted),
            _ => Err(Unaskable::NoReports),
        }
    }
}

fn refused(job: &JobName, fault: &Unaskable) -> Stop {
    Stop::wrong(format!("job `{job}`: {fault}; {}", fault.help()))
}
