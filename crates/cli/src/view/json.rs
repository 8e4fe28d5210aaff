//! One JSON object a line; the shapes are in the manual and do not change without a note in the changelog.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;

use engine::fact::{Ended, What};
use graph::{BuildId, Graph, JobName, Outcome, Timestamp};
use serde_json::{Value, json};

use super::growth::Growing;
use super::lines::Lines;
use super::{Awaited, Moment, Stream, View, Wants};
use crate::words;

/// The JSON view, over any writer.
pub struct Json<W: Write> {
    writer: W,
    lines: Lines,
    started: BTreeMap<JobName, Timestamp>,
    build_started: Timestamp,
    growing: Growing,
    /// Gates that wait for an answer.
    gates: BTreeSet<JobName>,
    /// The build and the time of the last fact.
    last: Option<(BuildId, Timestamp)>,
}

impl<W: Write> Json<W> {
    /// A view that writes to `writer`, of a build whose graph was this before the first moment, if it had one.
    pub fn new(writer: W, graph: Option<Arc<Graph>>) -> Self {
        let build_started = Timestamp::default();
        let (started, growing) = (BTreeMap::new(), Growing::of(graph));
        Self { writer, lines: Lines::default(), started, build_started, growing, gates: BTreeSet::new(), last: None }
    }

    fn write(&mut self, object: &Value) -> io::Result<()> {
        serde_json::to_writer(&mut self.writer, object)?;
        self.writer.write_all(b"\n")
    }

    /// What a gate asks for, by name, as the API tells it.
    fn fields(&self, gate: &JobName) -> BTreeMap<String, api::job::Field> {
        let gate = self.growing.job(gate).and_then(|job| job.gate.as_ref());
        let fields = gate.into_iter().flat_map(|gate| &gate.fields);
        fields.map(|(name, field)| (name.clone(), field.into())).collect()
    }

    /// A job of another process has what this one waits for.
    fn waits(&mut self, job: &JobName, awaited: &Awaited, at: Timestamp) -> io::Result<()> {
        let (wait, group, holder) = match awaited {
            Awaited::Slot => return Ok(()),
            Awaited::Group { group, build, job, .. } => ("group", Some(group), (build, job)),
            Awaited::Operation { build, job } => ("operation", None, (build, job)),
        };
        let build = self.last.map(|(build, _)| build.0);
        self.write(&json!({
            "kind": "job_waiting", "build": build, "time": rfc3339(at), "job": job, "for": wait, "group": group,
            "holder": { "build": holder.0, "job": holder.1 }, "text": words::awaited(awaited),
        }))
    }

    fn fact(&mut self, fact: &engine::Fact) -> io::Result<()> {
        let growth = self.growing.take(fact);
        let build = fact.build.0;
        let time = rfc3339(fact.at);
        self.last = Some((fact.build, fact.at));
        match &fact.what {
            What::BuildCreated(request) => {
                self.build_started = fact.at;
                let event = &request.event;
                self.write(&json!({
                    "kind": "build_started", "build": build, "time": time, "event": event.kind.name(),
                    "branch": event.branch, "tag": event.tag, "commit": event.commit, "pipeline": request.pipeline,
                    "local_changes": event.checkout == graph::Checkout::Changed,
                }))
            }
            What::Evaluated { graph, diagnostics, .. } => {
                let growth = growth.unwrap_or_default();
                let because: Vec<_> = growth.because.iter().map(|(job, _)| job).collect();
                let holes: Vec<_> = graph.holes.iter().map(|hole| &hole.name).collect();
                let jobs = graph.jobs.len();
                self.write(&json!({
                    "kind": "planned", "build": build, "time": time, "jobs": jobs, "holes": holes,
                    "added": growth.added, "because": because, "statuses": graph.statuses,
                    "diagnostics": crate::faults::json(diagnostics),
                }))
            }
            What::AttemptLeased { job, try_number, worker, .. } => {
                self.started.insert(job.clone(), fact.at);
                self.write(&json!({
                    "kind": "job_started", "build": build, "time": time, "job": job, "try": try_number,
                    "worker": worker.to_string(),
                }))
            }
            What::AttemptFinished { job, report, retry_at, .. } => {
                let cause = match &report.outcome {
                    Outcome::Failed(failure) => {
                        json!({ "kind": failure.kind(), "text": words::failure_of(failure, Some(report)) })
                    }
                    outcome => cause(outcome),
                };
                let duration_ms = report.finished.ms_since(report.started);
                self.write(&json!({
                    "kind": "job_finished", "build": build, "time": time, "job": job,
                    "outcome": report.outcome.word(), "cause": cause, "cached": false,
                    "cached_from": null,
                    "outputs": outputs(&report.outcome), "duration_ms": duration_ms, "usage": report.usage,
                    "notes": report.notes, "retried": retry_at.is_some(),
                }))
            }
            What::ChildMade { job, try_number, child } => self.write(&json!({
                "kind": "child_made", "build": build, "time": time, "job": job, "try": try_number, "child": child,
            })),
            What::JobEnded { job, outcome, how } => {
                let from = match how {
                    Ended::Reused(reused) => Some(reused.build.0),
                    Ended::Decided | Ended::Child { .. } => None,
                };
                self.write(&json!({
                    "kind": "job_finished", "build": build, "time": time, "job": job, "outcome": outcome.word(),
                    "cause": cause(outcome), "cached": from.is_some(), "cached_from": from,
                    "outputs": outputs(outcome), "duration_ms": 0, "usage": null, "notes": [], "retried": false,
                }))
            }
            What::GateOpened { job, prompt } => {
                let fields = self.fields(job);
                self.gates.insert(job.clone());
                self.write(&json!({
                    "kind": "gate_opened", "build": build, "time": time, "job": job, "prompt": prompt,
                    "fields": fields,
                }))
            }
            What::GateAnswered { job, answer, by, reason } => {
                self.gates.remove(job);
                self.write(&json!({
                    "kind": "gate_answered", "build": build, "time": time, "job": job, "approved": answer.is_some(),
                    "fields": answer.clone().unwrap_or_default(), "by": by, "reason": reason,
                }))
            }
            What::CancelRequested { by } => {
                self.write(&json!({ "kind": "cancel_requested", "build": build, "time": time, "by": by }))
            }
            What::BuildEnded { verdict } => {
                self.gates.clear();
                let duration_ms = fact.at.ms_since(self.build_started);
                let statuses = self.growing.graph().map_or_else(|| json!({}), |graph| json!(graph.statuses));
                self.write(&json!({
                    "kind": "build_finished", "build": build, "time": time, "verdict": verdict.word(),
                    "text": words::verdict(verdict), "duration_ms": duration_ms, "statuses": statuses,
                }))
            }
            _ => Ok(()),
        }
    }
}

/// The word for why a job did not pass: the failure's kind, or the reason it was skipped.
fn cause(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Passed { .. } => Value::Null,
        Outcome::Failed(failure) => json!({ "kind": failure.kind(), "text": words::failure(failure) }),
        Outcome::Skipped(reason) => json!({ "kind": reason.kind(), "text": words::skip_reason(reason) }),
    }
}

fn outputs(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Passed { outputs } => json!(outputs),
        _ => json!({}),
    }
}

/// `2026-11-21T04:33:12.000123Z`.
fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.0).map(|time| format!("{time:.6}")).unwrap_or_default()
}

fn log_line(job: &JobName, step: u16, stream: Stream, at: Timestamp, line: &str) -> Value {
    let stream = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    json!({ "kind": "log", "job": job, "step": step, "stream": stream, "time": rfc3339(at), "line": line })
}

impl<W: Write> View for Json<W> {
    fn show(&mut self, moment: Moment<'_>) -> io::Result<()> {
        match moment {
            Moment::Fact(fact) => self.fact(fact)?,
            Moment::StepStarted { job, step, name, at } => {
                self.write(&json!({
                    "kind": "step_started", "job": job, "step": step, "name": name, "time": rfc3339(at),
                }))?;
            }
            Moment::Output { job, step, stream, bytes, at } => {
                let mut lines = std::mem::take(&mut self.lines);
                let mut result = Ok(());
                lines.push(job, step, stream, bytes, |line| {
                    if result.is_ok() {
                        result = self.write(&log_line(job, step, stream, at, line));
                    }
                });
                self.lines = lines;
                result?;
            }
            Moment::StepFinished { job, step, report } => {
                let mut lines = std::mem::take(&mut self.lines);
                let mut result = Ok(());
                lines.finish(job, step, |stream, line| {
                    if result.is_ok() {
                        result = self.write(&log_line(job, step, stream, report.finished, line));
                    }
                });
                self.lines = lines;
                result?;
                self.write(&json!({
                    "kind": "step_finished", "job": job, "step": step, "name": report.name, "result": report.result,
                    "exit": report.exit, "signal": report.signal, "time": rfc3339(report.finished),
                    "duration_ms": report.finished.ms_since(report.started), "usage": report.usage,
                    "outputs": report.outputs, "lines": report.lines,
                }))?;
            }
            Moment::Waits { job, awaited: Some(awaited), at } => self.waits(job, awaited, at)?,
            Moment::Waits { .. } | Moment::Tick(_) => {}
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// A build that is left at a gate ends its stream with that.
    fn close(&mut self) -> io::Result<()> {
        let gates = std::mem::take(&mut self.gates);
        if let Some((build, at)) = self.last.filter(|_| !gates.is_empty()) {
            let duration_ms = at.ms_since(self.build_started);
            self.write(&json!({
                "kind": "build_waiting", "build": build.0, "time": rfc3339(at), "gates": gates,
                "duration_ms": duration_ms,
            }))?;
        }
        self.writer.flush()
    }

    fn wants(&self) -> Wants {
        Wants::Output
    }
}

#[cfg(test)]
mod tests {
    use engine::Fact;
    use graph::{AttemptNumber, AttemptReport, Hole, Job, LeaseId, Status, StatusState};

    use super::*;

    #[test]
    fn a_build_that_is_left_at_a_gate_ends_its_stream_with_that() {
        let last = |answered: bool| {
            let mut json = Json::new(Vec::new(), None);
            let mut facts = vec![What::GateOpened { job: "ship".into(), prompt: String::new() }];
            let answer = What::GateAnswered {
                job: "ship".into(),
                answer: None,
                by: "ada".to_owned(),
                reason: "no tests".to_owned(),
            };
            facts.extend(Some(answer).filter(|_| answered));
            for what in facts {
                json.fact(&Fact { build: BuildId(7), at: Timestamp(0), what }).expect("memory takes it");
            }
            json.close().expect("memory takes it");
            let written = String::from_utf8(json.writer).expect("text");
            serde_json::from_str::<Value>(written.lines().last().expect("a line")).expect("JSON")
        };
        let expected = json!({
            "kind": "build_waiting", "build": 7, "time": "1970-01-01T00:00:00.000000Z", "gates": ["ship"],
            "duration_ms": 0,
        });
        assert_eq!(last(false), expected);
        assert_eq!(last(true)["kind"], "gate_answered");
    }

    #[test]
    fn the_end_of_a_build_has_the_statuses_that_an_earlier_process_saw() {
        let statuses_of = |graph: Option<Arc<Graph>>| {
            let mut json = Json::new(Vec::new(), graph);
            let what = What::BuildEnded { verdict: graph::Verdict::Passed { note: None } };
            json.fact(&Fact { build: BuildId(1), at: Timestamp(0), what }).expect("memory takes it");
            serde_json::from_slice::<Value>(&json.writer).expect("JSON")["statuses"].clone()
        };
        let statuses = BTreeMap::from([("s".to_owned(), Status { state: StatusState::Ok, text: "t".to_owned() })]);
        let graph = Graph { statuses, ..Graph::default() };
        assert_eq!(statuses_of(Some(Arc::new(graph))), json!({ "s": { "state": "ok", "text": "t" } }));
        assert_eq!(statuses_of(None), json!({}));
    }

    #[test]
    fn every_end_of_a_job_has_the_same_fields() {
        let keys = |what: What| {
            let mut json = Json::new(Vec::new(), None);
            json.fact(&Fact { build: BuildId(1), at: Timestamp(0), what }).expect("memory takes it");
            let value: Value = serde_json::from_slice(&json.writer).expect("JSON");
            value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>()
        };
        let report = Box::new(AttemptReport::of(Outcome::passed(), Timestamp(0)));
        let (attempt, lease) = (AttemptNumber(1), LeaseId(1));
        let ran = What::AttemptFinished { job: "a".into(), attempt, lease, report, retry_at: None };
        let left_out = What::JobEnded { job: "a".into(), outcome: Outcome::passed(), how: Ended::Decided };
        assert_eq!(keys(ran), keys(left_out));
    }

    #[test]
    fn what_grew_is_told_by_name() {
        let mut json = Json::new(Vec::new(), None);
        let graph = |jobs: &[&str], holes: Vec<Hole>, state| {
            let jobs = jobs.iter().map(|name| (JobName::from(*name), Arc::new(Job::default()))).collect();
            let statuses = BTreeMap::from([("s".to_owned(), Status { state, text: "t".to_owned() })]);
            let graph = Arc::new(Graph { jobs, holes, statuses, ..Graph::default() });
            What::Evaluated { graph, questions: Vec::new(), diagnostics: Vec::new(), program: None }
        };
        let hole = Hole { name: "then:plan".to_owned(), after: vec!["plan".into()] };
        let ended = What::JobEnded { job: "plan".into(), outcome: Outcome::passed(), how: Ended::Decided };
        let facts = [
            graph(&["plan"], vec![hole], StatusState::Pending),
            ended,
            graph(&["a", "plan"], Vec::new(), StatusState::Ok),
        ];
        for what in facts {
            json.fact(&Fact { build: BuildId(1), at: Timestamp(0), what }).expect("memory takes it");
        }
        let written = String::from_utf8(json.writer).expect("text");
        let planned: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(planned[0]["holes"], json!(["then:plan"]));
        assert_eq!(planned[0]["statuses"], json!({ "s": { "state": "pending", "text": "t" } }));
        let shown = |key: &str| planned[2][key].clone();
        assert_eq!((shown("added"), shown("because")), (json!(["a"]), json!(["plan"])));
        assert_eq!((shown("jobs"), shown("holes")), (json!(2), json!([])));
        assert_eq!(shown("statuses")["s"]["state"], "ok");
    }
}
