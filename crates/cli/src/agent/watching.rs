//! A build on a server as a view of builds here shows it: what a stream tells, as facts and output.
//!
//! The view knows facts of the engine; a stream tells less than they hold, but all of what is shown. Words that came from
//! the server stand where its words would be made here.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::build::VerdictWord;
use api::event::Moment;
use api::job::{Cause, Field};
use api::log::LogStream;
use engine::fact::{Ended, What};
use engine::{BuildRequest, Fact, Reused};
use graph::{
    AttemptNumber, AttemptReport, BuildId, Checkout, Event, Failure, Graph, Hole, JobName, LeaseId, Outcome,
    StepReport, StepResult, Timestamp, Usage, Verdict, WorkerId,
};

use crate::archive;
use crate::exit;
use crate::view::{self, View};

/// Feeds a view from a stream.
pub struct Watching {
    /// Shown as the build's number.
    shown: BuildId,
    /// As far as the stream tells: the jobs that came later by name, the others by number alone.
    graph: Graph,
    unnamed: usize,
    /// Steps that ended, by job, for how its attempt went.
    steps: BTreeMap<JobName, Vec<StepReport>>,
    /// Why jobs failed that were not tried again.
    failed: BTreeMap<JobName, Option<Cause>>,
    /// The builds for which jobs wait.
    children: BTreeMap<JobName, BuildId>,
    ended: Option<u8>,
}

impl Watching {
    /// A build that is shown under this number.
    pub fn new(shown: BuildId) -> Self {
        let (graph, unnamed, steps, failed, children, ended) = Default::default();
        Self { shown, graph, unnamed, steps, failed, children, ended }
    }

    /// The exit code that tells how the build ended, once it has.
    pub fn code(&self) -> Option<u8> {
        self.ended
    }

    /// Tells a view that has seen nothing yet of the jobs there are.
    pub fn catch_up(&self, view: &mut dyn View) {
        let graph = Arc::new(self.graph.clone());
        let what = What::Evaluated { graph, questions: Vec::new(), diagnostics: Vec::new(), program: None };
        let _ = view.show(view::Moment::Fact(&Fact { build: self.shown, at: Timestamp(0), what }));
    }

    /// Shows one object of the stream. A view that cannot be written to any more does not end the watching.
    pub fn show(&mut self, moment: &Moment, view: &mut dyn View) {
        match moment {
            Moment::StepStarted { job, step, name, time, .. } => {
                let (job, at) = (&JobName::from(job.as_str()), time.0);
                let _ = view.show(view::Moment::StepStarted { job, step: *step, name, at });
            }
            Moment::Log { job, step, stream, time, line, open, .. } => {
                let stream = match stream {
                    LogStream::Stdout => view::Stream::Stdout,
                    LogStream::Stderr => view::Stream::Stderr,
                    // Notes are shown with the report.
                    LogStream::Note => return,
                };
                let end = if *open { "" } else { "\n" };
                let bytes = format!("{line}{end}").into_bytes();
                let job = &JobName::from(job.as_str());
                let _ = view.show(view::Moment::Output { job, step: *step, stream, bytes: &bytes, at: time.0 });
            }
            Moment::LogGap { job, step, text, .. } => {
                let bytes = format!("[{text}]\n").into_bytes();
                let (job, stream, at) = (&JobName::from(job.as_str()), view::Stream::Stderr, Timestamp(0));
                let _ = view.show(view::Moment::Output { job, step: *step, stream, bytes: &bytes, at });
            }
            Moment::StepFinished { .. } => self.step_finished(moment, view),
            _ => {
                if let Moment::GateOpened { job, fields, .. } = moment {
                    self.describe(job, fields);
                    self.catch_up(view);
                }
                if let Some((at, what)) = self.fact(moment) {
                    let _ = view.show(view::Moment::Fact(&Fact { build: self.shown, at, what }));
                }
            }
        }
    }

    fn step_finished(&mut self, moment: &Moment, view: &mut dyn View) {
        let Moment::StepFinished { job, step, name, result, exit, signal, time, duration_ms, outputs, lines, .. } =
            moment
        else {
            return;
        };
        let finished = time.0;
        let ran_us = i64::try_from(*duration_ms).unwrap_or(i64::MAX).saturating_mul(1000);
        let report = StepReport {
            name: name.clone(),
            exit: *exit,
            signal: *signal,
            result: (*result).into(),
            started: Timestamp(finished.0.saturating_sub(ran_us)),
            finished,
            usage: Usage::default(),
            outputs: outputs.clone(),
            lines: *lines,
        };
        let job = JobName::from(job.as_str());
        let _ = view.show(view::Moment::StepFinished { job: &job, step: *step, report: &report });
        self.steps.entry(job).or_default().push(report);
    }

    fn fact(&mut self, moment: &Moment) -> Option<(Timestamp, What)> {
        Some(match moment {
            Moment::BuildStarted { time, event, branch, tag, commit, pipeline, local_changes, .. } => {
                let mut shown = Event::new((*event).into());
                (shown.branch, shown.tag, shown.commit) = (branch.clone(), tag.clone(), commit.clone());
                shown.checkout = if *local_changes { Checkout::Changed } else { Checkout::AsCommitted };
                (time.0, What::BuildCreated(Box::new(BuildRequest::new(shown, pipeline.clone()))))
            }
            Moment::Planned { time, jobs, holes, added, .. } => (time.0, self.planned(*jobs, holes, added)),
            Moment::JobStarted { time, job, attempt, try_number, worker, partial, .. } => {
                let job = JobName::from(job.as_str());
                self.steps.remove(&job);
                self.failed.remove(&job);
                let what = What::AttemptLeased {
                    job,
                    attempt: AttemptNumber(*attempt),
                    lease: LeaseId(0),
                    worker: WorkerId(worker.as_str().into()),
                    try_number: *try_number,
                    partial: partial.map(Into::into),
                    waited_for: None,
                };
                (time.0, what)
            }
            Moment::ChildMade { time, job, try_number, child, .. } => {
                let job = JobName::from(job.as_str());
                self.failed.remove(&job);
                self.children.insert(job.clone(), *child);
                (time.0, What::ChildMade { job, try_number: *try_number, child: *child })
            }
            Moment::JobFinished { .. } => return self.job_finished(moment),
            Moment::GateOpened { time, job, prompt, .. } => {
                let job = JobName::from(job.as_str());
                (time.0, What::GateOpened { job, prompt: prompt.clone() })
            }
            Moment::GateAnswered { time, job, approved, fields, by, reason, .. } => {
                let job = JobName::from(job.as_str());
                let answer = approved.then(|| fields.clone());
                (time.0, What::GateAnswered { job, answer, by: by.clone(), reason: reason.clone() })
            }
            Moment::CancelRequested { time, job: None, by, .. } => (time.0, What::CancelRequested { by: by.clone() }),
            Moment::BuildFinished { time, verdict, text, .. } => {
                self.ended = Some(self.code_of(*verdict, text));
                (time.0, What::BuildEnded { verdict: archive::verdict(*verdict, text) })
            }
            _ => return None,
        })
    }

    /// The graph as far as the stream tells: how many jobs there are, and the names of those that came later.
    fn planned(&mut self, jobs: usize, holes: &[String], added: &[String]) -> What {
        for name in added {
            self.graph.jobs.insert(JobName::from(name.as_str()), Arc::default());
        }
        let unnamed = jobs.saturating_sub(self.graph.jobs.len() - self.unnamed);
        let name = |number: usize| JobName::from(format!("\u{10ffff}{number}"));
        (unnamed..self.unnamed).for_each(|number| drop(self.graph.jobs.remove(&name(number))));
        self.graph.jobs.extend((self.unnamed..unnamed).map(|number| (name(number), Arc::default())));
        self.unnamed = unnamed;
        self.graph.holes = holes.iter().map(|name| Hole { name: name.clone(), after: Vec::new() }).collect();
        What::Evaluated {
            graph: Arc::new(self.graph.clone()),
            questions: Vec::new(),
            diagnostics: Vec::new(),
            program: None,
        }
    }

    /// What a gate asks for, at its job, where a view looks for it; of a job that the stream has not named it is not told.
    fn describe(&mut self, gate: &str, fields: &BTreeMap<String, Field>) {
        let Some(job) = self.graph.jobs.get_mut(&JobName::from(gate)) else { return };
        let fields = fields.iter().map(|(name, field)| (name.clone(), field.into())).collect();
        Arc::make_mut(job).gate = Some(graph::Gate { prompt: graph::Text::default(), fields });
    }

    fn job_finished(&mut self, moment: &Moment) -> Option<(Timestamp, What)> {
        let Moment::JobFinished {
            time,
            job,
            attempt,
            outcome,
            cause,
            cached_from,
            outputs,
            duration_ms,
            notes,
            retried,
            ..
        } = moment
        else {
            return None;
        };
        let job = JobName::from(job.as_str());
        let outcome = archive::outcome(*outcome, cause.as_ref(), outputs);
        if matches!(outcome, Outcome::Failed(_)) && !retried {
            self.failed.insert(job.clone(), cause.clone());
        } else {
            self.failed.remove(&job);
        }
        let finished = time.0;
        let Some(attempt) = attempt else {
            let child = self.children.remove(&job);
            if let Some(child) = child.filter(|_| *retried) {
                return Some((finished, What::ChildFailed { job, child, outcome, retry_at: finished }));
            }
            let how = match (cached_from, child) {
                (_, Some(build)) => Ended::Child { build },
                (Some(build), None) => Ended::Reused(Reused {
                    build: *build,
                    attempt: AttemptNumber(0),
                    job: job.clone(),
                    artifacts: BTreeMap::new(),
                }),
                (None, None) => Ended::Decided,
            };
            return Some((finished, What::JobEnded { job, outcome, how }));
        };
        let mut report = AttemptReport::of(outcome, finished);
        let ran_us = i64::try_from(*duration_ms).unwrap_or(i64::MAX).saturating_mul(1000);
        report.started = Timestamp(finished.0.saturating_sub(ran_us));
        report.notes.clone_from(notes);
        report.steps = self.steps.remove(&job).unwrap_or_default();
        let failed = report.steps.iter().position(|step| step.result == StepResult::Failed);
        if let (Some(step), Outcome::Failed(_), Some("step")) =
            (failed, &report.outcome, cause.as_ref().map(|cause| cause.kind.as_str()))
            && let Some(exit) = report.steps[step].exit
        {
            let step = u16::try_from(step).unwrap_or(u16::MAX);
            report.outcome = Outcome::Failed(Failure::Step { step, exit, message: None });
        }
        let (attempt, lease) = (AttemptNumber(*attempt), LeaseId(0));
        let retry_at = retried.then_some(finished);
        Some((finished, What::AttemptFinished { job, attempt, lease, report: Box::new(report), retry_at }))
    }

    fn code_of(&self, verdict: VerdictWord, text: &str) -> u8 {
        match verdict {
            VerdictWord::Passed => exit::PASSED,
            VerdictWord::Canceled => exit::CANCELED,
            VerdictWord::Running | VerdictWord::Diverged => exit::FAILED,
            VerdictWord::Failed
                if archive::verdict(VerdictWord::Failed, text) == (Verdict::Failed { because: None }) =>
            {
                exit::WRONG
            }
            VerdictWord::Failed => {
                let is_infra = |cause: &Option<Cause>| {
                    cause.as_ref().is_some_and(|cause| matches!(cause.kind.as_str(), "infra" | "lost"))
                };
                // Only if nothing but the machine is to blame.
                let is_infra = !self.failed.is_empty() && self.failed.values().all(is_infra);
                if is_infra { exit::INFRA } else { exit::FAILED }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::columns::Paint;
    use crate::view::Opening;
    use crate::view::plain::{Detail, Plain};

    /// What the plain view shows of these objects, and the exit code.
    #[track_caller]
    fn check(moments: &[serde_json::Value], expected: &str, code: u8) {
        let mut written = Vec::new();
        let opening =
            Opening { build: BuildId(7), usual_ms: BTreeMap::new(), whereabouts: Default::default(), graph: None };
        let mut view = Plain::new(&mut written, Detail::Lines, Paint::Plain, opening);
        let mut watching = Watching::new(BuildId(7));
        for moment in moments {
            let mut moment = moment.clone();
            moment["build"] = json!(1);
            moment["time"] = json!("2026-11-21T00:00:01.000000Z");
            let moment: Moment =
                serde_json::from_value(moment.clone()).unwrap_or_else(|error| panic!("{error}: {moment}"));
            watching.show(&moment, &mut view);
        }
        drop(view);
        assert_eq!(String::from_utf8_lossy(&written), expected);
        assert_eq!(watching.code(), Some(code));
    }

    fn ended(job: &str, outcome: &str, cause: serde_json::Value) -> serde_json::Value {
        json!({ "kind": "job_finished", "job": job, "attempt": 1, "outcome": outcome, "cause": cause, "cached": false,
                "outputs": {}, "duration_ms": 1000 })
    }

    fn finished(verdict: &str, text: &str) -> serde_json::Value {
        json!({ "kind": "build_finished", "verdict": verdict, "text": text, "duration_ms": 1000, "statuses": {} })
    }

    fn begun() -> [serde_json::Value; 3] {
        [
            json!({ "kind": "build_started", "event": "push", "branch": "main", "tag": null,
                    "commit": "1234567890123456", "pipeline": "p", "local_changes": true }),
            json!({ "kind": "planned", "jobs": 1, "holes": [], "added": [], "because": [], "statuses": {},
                    "diagnostics": [] }),
            json!({ "kind": "job_started", "job": "a", "attempt": 1, "try": 1, "worker": "w" }),
        ]
    }

    #[test]
    fn a_build_elsewhere_looks_like_one_here() {
        let log = |line: &str, open: bool| {
            json!({ "kind": "log", "job": "a", "attempt": 1, "step": 0, "stream": "stdout", "number": 0, "line": line,
                    "open": open })
        };
        let step = json!({ "kind": "step_finished", "job": "a", "attempt": 1, "step": 0, "name": "make", "result": "failed",
                           "exit": 3, "signal": null, "duration_ms": 1, "outputs": {}, "lines": 1,
                           "usage": { "peak_memory_bytes": 0, "cpu_user_us": 0, "cpu_system_us": 0 } });
        let cause = json!({ "kind": "step", "text": "a step ended with code 3" });
        let [one, two, three] = begun();
        let moments = [
            one,
            two,
            three,
            log("hel", true),
            log("lo", false),
            step,
            ended("a", "failed", cause),
            finished("failed", "failed because of `a`"),
        ];
        check(
            &moments,
            "build 7: push on main, 123456789012 + local changes\n1 job\na | hello\na: failed: `make` ended with code 3 in 1.0 s\n\
             build 7 failed because of `a` in 0 ms\n",
            exit::FAILED,
        );
    }

    #[test]
    fn a_gate_elsewhere_is_told_with_its_fields() {
        let [one, ..] = begun();
        let planned = json!({ "kind": "planned", "jobs": 2, "holes": [], "added": ["build", "ship"], "because": [],
                              "statuses": {}, "diagnostics": [] });
        let fields = json!({ "copies": { "type": "number", "default": 2 },
                             "region": { "type": "choice", "options": ["eu", "us"] } });
        let opened = json!({ "kind": "gate_opened", "job": "ship", "prompt": "Ship it?", "fields": fields });
        let answer = json!({ "copies": 2, "region": "eu" });
        let answered =
            json!({ "kind": "gate_answered", "job": "ship", "approved": true, "by": "ada", "fields": answer });
        let mut older = opened.clone();
        older.as_object_mut().expect("an object").remove("fields");
        let head = "build 7: push on main, 123456789012 + local changes\n2 jobs\n";
        let tail = "ship: approved by ada: copies = 2, region = eu\nbuild 7 passed in 0 ms\n";
        for (opened, words) in [(opened, "ship --field copies=2 --field region=VALUE"), (older, "ship")] {
            check(
                &[one.clone(), planned.clone(), opened, answered.clone(), finished("passed", "passed")],
                &format!(
                    "{head}ship: waits for approval: Ship it?\nship: to go on: ropewalk approve 7 {words}\n{tail}"
                ),
                exit::PASSED,
            );
        }
    }

    #[test]
    fn codes_tell_who_is_to_blame() {
        let lost = json!({ "kind": "lost", "text": "its worker fell silent" });
        let [one, two, three] = begun();
        let head = "build 7: push on main, 123456789012 + local changes\n1 job\n";
        check(
            &[
                one.clone(),
                two.clone(),
                three.clone(),
                ended("a", "failed", lost),
                finished("failed", "failed because of `a`"),
            ],
            &format!("{head}a: failed: its worker fell silent in 1.0 s\nbuild 7 failed because of `a` in 0 ms\n"),
            exit::INFRA,
        );
        check(
            &[one.clone(), two.clone(), finished("failed", "failed: the pipeline is wrong")],
            &format!("{head}build 7 failed: the pipeline is wrong in 0 ms\n"),
            exit::WRONG,
        );
        check(
            &[one, two, three, finished("canceled", "was canceled by ada")],
            &format!("{head}build 7 was canceled by ada in 0 ms\n"),
            exit::CANCELED,
        );
    }
}
