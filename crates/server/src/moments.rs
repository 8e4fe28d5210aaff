//! What happened in a build, fact by fact, as its followers read it. Facts in, [`Moment`]s out.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::event::Moment;
use api::job::{Cause, outputs_of};
use engine::fact::{Ended, What};
use engine::{BuildRequest, Fact};
use graph::{AttemptNumber, BuildId, Graph, Job, JobName, Outcome, StepReport, Timestamp};
use serde_json::json;

/// What is known of a build after some of its facts.
#[derive(Default)]
pub struct Telling {
    created: Timestamp,
    graph: Option<Arc<Graph>>,
    /// How jobs ended for which a hole waited.
    ended: Vec<JobName>,
    /// Since when jobs wait for builds that they asked for.
    waiting: BTreeMap<JobName, Timestamp>,
}

impl Telling {
    /// A job of the graph as it stands.
    pub fn job(&self, name: &JobName) -> Option<&Arc<Job>> {
        self.graph.as_ref()?.jobs.get(name)
    }

    /// Takes in a fact and tells it, unless it says nothing to followers.
    pub fn tell(&mut self, fact: &Fact) -> Option<Moment> {
        let (build, time) = (fact.build, fact.at.into());
        Some(match &fact.what {
            What::BuildCreated(request) => {
                self.created = fact.at;
                begun(fact, request)
            }
            What::Evaluated { graph, diagnostics, .. } => {
                let (added, because) = self.grow(graph);
                Moment::Planned {
                    build,
                    time,
                    jobs: graph.jobs.len(),
                    holes: graph.holes.iter().map(|hole| hole.name.clone()).collect(),
                    added,
                    because,
                    statuses: json!(graph.statuses),
                    diagnostics: diagnostics.iter().map(Into::into).collect(),
                }
            }
            What::AttemptLeased { job, attempt, try_number, worker, .. }
            | What::AttemptAdopted { job, attempt, try_number, worker, .. } => Moment::JobStarted {
                build,
                time,
                job: job.to_string(),
                attempt: attempt.0,
                try_number: *try_number,
                worker: worker.to_string(),
                partial: match &fact.what {
                    What::AttemptLeased { partial, .. } => partial.map(Into::into),
                    _ => None,
                },
            },
            What::ChildMade { job, try_number, child } => {
                self.waiting.insert(job.clone(), fact.at);
                Moment::ChildMade { build, time, job: job.to_string(), try_number: *try_number, child: *child }
            }
            What::ChildFailed { job, outcome, .. } => self.end_without_attempt(fact, job, outcome, (None, true)),
            What::AttemptFinished { job, attempt, report, retry_at, .. } => {
                if retry_at.is_none() {
                    self.end(job);
                }
                Moment::JobFinished {
                    build,
                    time,
                    job: job.to_string(),
                    attempt: Some(attempt.0),
                    outcome: (&report.outcome).into(),
                    cause: Cause::of(&report.outcome),
                    cached: false,
                    cached_from: None,
                    outputs: outputs_of(&report.outcome),
                    duration_ms: report.finished.ms_since(report.started),
                    usage: Some(report.usage.into()),
                    notes: report.notes.clone(),
                    retried: retry_at.is_some(),
                }
            }
            What::JobEnded { job, outcome, how } => {
                self.end(job);
                let cached_from = match how {
                    Ended::Reused(reused) => Some(reused.build),
                    Ended::Decided | Ended::Child { .. } => None,
                };
                self.end_without_attempt(fact, job, outcome, (cached_from, false))
            }
            What::JobRetried { job, by, .. } => {
                Moment::JobRetried { build, time, job: job.to_string(), by: by.clone() }
            }
            What::GateOpened { job, prompt } => {
                let gate = self.job(job).and_then(|job| job.gate.as_ref());
                let fields = gate.into_iter().flat_map(|gate| &gate.fields);
                Moment::GateOpened {
                    build,
                    time,
                    job: job.to_string(),
                    prompt: prompt.clone(),
                    fields: fields.map(|(name, field)| (name.clone(), field.into())).collect(),
                }
            }
            What::GateAnswered { job, answer, by, reason } => Moment::GateAnswered {
                build,
                time,
                job: job.to_string(),
                approved: answer.is_some(),
                fields: answer.clone().unwrap_or_default(),
                by: by.clone(),
                reason: reason.clone(),
            },
            What::CancelRequested { by } => Moment::CancelRequested { build, time, job: None, by: by.clone() },
            What::JobCancelRequested { job, by } => {
                Moment::CancelRequested { build, time, job: Some(job.to_string()), by: by.clone() }
            }
            What::BuildEnded { verdict } => Moment::BuildFinished {
                build,
                time,
                verdict: verdict.into(),
                text: api::words::verdict(verdict),
                duration_ms: fact.at.ms_since(self.created),
                statuses: self.graph.as_ref().map_or_else(|| json!({}), |graph| json!(graph.statuses)),
            },
            What::Answered { .. }
            | What::OperationKnown { .. }
            | What::OperationUnknown { .. }
            | What::MadeUrgent { .. } => return None,
        })
    }

    /// How a job, or a try at it, ended of which no worker had an attempt.
    fn end_without_attempt(
        &mut self,
        fact: &Fact,
        job: &JobName,
        outcome: &Outcome,
        (cached_from, retried): (Option<BuildId>, bool),
    ) -> Moment {
        Moment::JobFinished {
            build: fact.build,
            time: fact.at.into(),
            job: job.to_string(),
            attempt: None,
            outcome: outcome.into(),
            cause: Cause::of(outcome),
            cached: cached_from.is_some(),
            cached_from,
            outputs: outputs_of(outcome),
            duration_ms: self.waiting.remove(job).map_or(0, |since| fact.at.ms_since(since)),
            usage: None,
            notes: Vec::new(),
            retried,
        }
    }

    fn end(&mut self, job: &JobName) {
        if self.graph.iter().flat_map(|graph| &graph.holes).any(|hole| hole.after.contains(job)) {
            self.ended.push(job.clone());
        }
    }

    /// The jobs that came with this graph, in the pipeline's order, and those whose endings let it grow.
    fn grow(&mut self, graph: &Arc<Graph>) -> (Vec<String>, Vec<String>) {
        let before = self.graph.replace(Arc::clone(graph)).unwrap_or_default();
        let mut added: Vec<&JobName> = graph.jobs.keys().filter(|job| !before.jobs.contains_key(*job)).collect();
        added.sort_by_key(|job| graph.jobs[*job].order);
        let gone = before.holes.iter().filter(|hole| !graph.holes.iter().any(|other| other.name == hole.name));
        let after = gone.flat_map(|hole| &hole.after).filter(|job| self.ended.contains(job));
        let mut because: Vec<String> = after.map(ToString::to_string).collect();
        because.sort();
        because.dedup();
        (added.into_iter().map(ToString::to_string).collect(), because)
    }
}

fn begun(fact: &Fact, request: &BuildRequest) -> Moment {
    let event = &request.event;
    Moment::BuildStarted {
        build: fact.build,
        project: request.origin.project.clone(),
        number: Some(request.origin.number).filter(|number| *number > 0),
        time: fact.at.into(),
        event: event.kind.into(),
        branch: event.branch.clone(),
        tag: event.tag.clone(),
        commit: event.commit.clone(),
        pipeline: request.pipeline.clone(),
        local_changes: event.checkout == graph::Checkout::Changed,
    }
}

/// Where a step is: its build, the attempt's number there, the job, the step's index.
#[derive(Clone, Debug)]
pub struct StepPlace {
    /// The build that is followed.
    pub build: BuildId,
    /// The attempt's number in it.
    pub attempt: AttemptNumber,
    /// The job.
    pub job: JobName,
    /// The step's index.
    pub step: u16,
}

impl StepPlace {
    /// The step begins.
    #[must_use]
    pub fn started(&self, name: &str, at: Timestamp) -> Moment {
        let Self { build, attempt, job, step } = self;
        let (attempt, step, name) = (attempt.0, *step, name.to_owned());
        Moment::StepStarted { build: *build, job: job.to_string(), attempt, step, name, time: at.into() }
    }

    /// The step has ended.
    #[must_use]
    pub fn finished(&self, report: &StepReport) -> Moment {
        let outputs: BTreeMap<String, String> = report.outputs.clone();
        Moment::StepFinished {
            build: self.build,
            job: self.job.to_string(),
            attempt: self.attempt.0,
            step: self.step,
            name: report.name.clone(),
            result: report.result.into(),
            exit: report.exit,
            signal: report.signal,
            time: report.finished.into(),
            duration_ms: report.finished.ms_since(report.started),
            usage: report.usage.into(),
            outputs,
            lines: report.lines,
        }
    }
}
