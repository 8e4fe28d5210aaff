//! Builds as OpenTelemetry traces: a span for the build, one for each attempt from its lease, one for each step.
//!
//! The shape is the JSON form of `ExportTraceServiceRequest` (opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding"):
//! ids in hex, times as decimal strings of nanoseconds, enums as numbers. Made from rows that are stored anyway, so that a
//! trace can be made of any kept build; the ids follow from the build, so that sending one twice makes one trace.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use graph::{AttemptReport, BuildId, JobName, Outcome, StepResult, Timestamp, Verdict};
use serde_json::{Value, json};
use store::rows::{AttemptRow, BuildRow};

use crate::notices;
use crate::settings::Setting;

/// The most spans of one trace; the steps of later attempts are left out beyond it, and the trace says so.
pub const SPANS_MAX: usize = 50_000;

/// How long a collector may take.
const SEND_WAIT: Duration = Duration::from_secs(10);
/// How long is waited before a trace that did not arrive is sent again.
const SEND_AGAIN: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(25)];

/// Status codes of OTLP.
const STATUS_OK: u8 = 1;
const STATUS_ERROR: u8 = 2;
/// `SPAN_KIND_INTERNAL`.
const KIND_INTERNAL: u8 = 1;

/// The trace of a build that has ended, ready to be posted to `ENDPOINT/v1/traces`.
#[must_use]
pub fn trace(build: &BuildRow, attempts: &[(AttemptRow, Option<AttemptReport>)], version: &str) -> Value {
    let ids = Ids::of(build);
    let mut spans = vec![build_span(build, &ids)];
    let mut is_cut = false;
    for (row, report) in attempts {
        let Some(report) = report else { continue };
        if spans.len() + report.steps.len() >= SPANS_MAX {
            is_cut = true;
            break;
        }
        attempt_spans(row, report, &ids, &mut spans);
    }
    if is_cut && let Some(attributes) = spans[0]["attributes"].as_array_mut() {
        attributes.push(text("ropewalk.cut", &format!("more than {SPANS_MAX} spans")));
    }
    json!({
        "resourceSpans": [{
            "resource": { "attributes": [text("service.name", "ropewalk"), text("service.version", version)] },
            "scopeSpans": [{ "scope": { "name": "ropewalk", "version": version }, "spans": spans }],
        }],
    })
}

/// Ids that follow from the build alone.
struct Ids {
    seed: String,
    trace: String,
}

impl Ids {
    fn of(build: &BuildRow) -> Self {
        let seed = format!("{}/{}/{}", build.origin.project, build.build, build.created.0);
        let trace = blake3::hash(seed.as_bytes()).to_hex()[..32].to_owned();
        Self { seed, trace }
    }

    /// The span of a part of the build; the empty part is the build itself.
    fn span(&self, part: &str) -> String {
        blake3::hash(format!("{}#{part}", self.seed).as_bytes()).to_hex()[..16].to_owned()
    }

    fn attempt(&self, row: &AttemptRow) -> String {
        self.span(&row.attempt.to_string())
    }
}

fn build_span(build: &BuildRow, ids: &Ids) -> Value {
    let mut attributes = vec![
        text("cicd.pipeline.name", if build.name.is_empty() { &build.pipeline } else { &build.name }),
        text("cicd.pipeline.run.id", &build.build.to_string()),
        text("vcs.repository.name", &build.origin.project),
        text("ropewalk.event", build.event.kind.name()),
    ];
    let optional = [
        ("vcs.ref.head.name", build.event.branch.as_deref().or(build.event.tag.as_deref())),
        ("vcs.ref.head.revision", Some(build.event.commit.as_str()).filter(|commit| !commit.is_empty())),
    ];
    attributes.extend(optional.into_iter().filter_map(|(name, value)| Some(text(name, value?))));
    let (result, status) = match &build.verdict {
        Verdict::Passed { .. } => ("success", STATUS_OK),
        Verdict::Failed { .. } => ("failure", STATUS_ERROR),
        Verdict::Canceled { .. } => ("cancellation", STATUS_ERROR),
        Verdict::Diverged { .. } => ("error", STATUS_ERROR),
        Verdict::Running => ("pending", 0),
    };
    attributes.push(text("cicd.pipeline.result", result));
    let end = build.finished.unwrap_or(build.created);
    let name = format!("build {}", build.build);
    span(ids, ids.span(""), None, &name, (build.created, end), attributes, status)
}

fn attempt_spans(row: &AttemptRow, report: &AttemptReport, ids: &Ids, spans: &mut Vec<Value>) {
    let own = ids.attempt(row);
    let attributes = vec![
        text("cicd.pipeline.task.name", row.job.as_str()),
        text("cicd.pipeline.task.run.id", &format!("{}.{}", row.build, row.attempt)),
        text("cicd.worker.id", &row.worker.0),
        number("ropewalk.try", u64::from(row.try_number)),
        number("ropewalk.waited_us", micros(row.leased, report.started)),
        number("ropewalk.memory.peak_bytes", report.usage.peak_memory_bytes),
        number("ropewalk.cpu.user_us", report.usage.cpu_user_us),
        number("ropewalk.cpu.system_us", report.usage.cpu_system_us),
        text("cicd.pipeline.task.run.result", result_word(&report.outcome)),
    ];
    let times = (row.leased, report.finished);
    spans.push(span(
        ids,
        own.clone(),
        Some(ids.span("")),
        row.job.as_str(),
        times,
        attributes,
        status_of(&report.outcome),
    ));
    for (index, step) in report.steps.iter().enumerate() {
        if step.result == StepResult::Skipped {
            continue;
        }
        let mut attributes = vec![number("ropewalk.step", index as u64), number("ropewalk.lines", step.lines)];
        attributes.extend(step.exit.map(|exit| number("process.exit.code", u64::try_from(exit).unwrap_or(0))));
        let status = if step.result == StepResult::Passed { STATUS_OK } else { STATUS_ERROR };
        let id = ids.span(&format!("{}/{index}", row.attempt));
        spans.push(span(ids, id, Some(own.clone()), &step.name, (step.started, step.finished), attributes, status));
    }
}

fn result_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed { .. } => "success",
        Outcome::Failed(graph::Failure::Canceled { .. }) => "cancellation",
        Outcome::Failed(graph::Failure::Timeout { .. }) => "timeout",
        Outcome::Failed(graph::Failure::Step { .. }) => "failure",
        Outcome::Failed(_) => "error",
        Outcome::Skipped(_) => "skip",
    }
}

fn status_of(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Passed { .. } => STATUS_OK,
        Outcome::Failed(_) => STATUS_ERROR,
        Outcome::Skipped(_) => 0,
    }
}

fn span(
    ids: &Ids,
    id: String,
    parent: Option<String>,
    name: &str,
    (start, end): (Timestamp, Timestamp),
    attributes: Vec<Value>,
    status: u8,
) -> Value {
    let mut span = json!({
        "traceId": ids.trace,
        "spanId": id,
        "name": name,
        "kind": KIND_INTERNAL,
        "startTimeUnixNano": nanos(start),
        "endTimeUnixNano": nanos(end.max(start)),
        "attributes": attributes,
        "status": { "code": status },
    });
    if let Some(parent) = parent {
        span["parentSpanId"] = parent.into();
    }
    span
}

fn nanos(at: Timestamp) -> String {
    (i128::from(at.0.max(0)) * 1000).to_string()
}

fn micros(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0)
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

/// The trace of a kept build, read from the store; `None` if there is no such build.
///
/// # Errors
/// As the store refuses.
pub fn of_build(store: &dyn store::Store, build: BuildId, version: &str) -> Result<Option<Value>, store::StoreError> {
    let Some(row) = store.build(build)? else { return Ok(None) };
    let mut reports: std::collections::BTreeMap<_, _> = store.reports(build, None::<&JobName>)?.into_iter().collect();
    let attempts: Vec<_> = store.attempts(build, None)?;
    let attempts: Vec<_> = attempts
        .into_iter()
        .map(|row| {
            let report = reports.remove(&row.attempt);
            (row, report)
        })
        .collect();
    Ok(Some(trace(&row, &attempts, version)))
}

/// Sends the trace of a build that has ended to a collector (`http://HOST:4318`), several times if need be. A trace that does not arrive
/// then is told on standard error and lost: builds do not wait for it.
pub async fn send(store: Arc<dyn store::Store>, build: BuildId, collector: String) {
    let mut sent = post(Arc::clone(&store), build, &collector).await;
    for wait in SEND_AGAIN {
        if sent.is_ok() {
            return;
        }
        tokio::time::sleep(wait).await;
        sent = post(Arc::clone(&store), build, &collector).await;
    }
    if let Err(error) = sent {
        let collector = Some(collector).show();
        notices::warning(&format!("the trace of build {build} was not sent to {collector}: {error}"));
    }
}

async fn post(
    store: Arc<dyn store::Store>,
    build: BuildId,
    collector: &str,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let made = tokio::task::spawn_blocking(move || of_build(&*store, build, env!("CARGO_PKG_VERSION"))).await??;
    let Some(trace) = made else { return Ok(()) };
    // The first to say so decides for the process; that somebody did is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(SEND_WAIT).redirect(reqwest::redirect::Policy::none()).build()?;
    let address = format!("{}/v1/traces", collector.trim_end_matches('/'));
    let sent = client.post(address).header("content-type", "application/json").body(trace.to_string());
    sent.send().await?.error_for_status()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use engine::BuildRequest;
    use engine::fact::{Fact, What};
    use graph::{AttemptNumber, Event, EventKind, Failure, Graph, Job, LeaseId, Origin, StepReport, Usage, WorkerId};
    use store::{MemoryStore, Store};

    use super::*;

    fn fact(at: i64, what: What) -> Fact {
        Fact { build: BuildId(1), at: Timestamp(at), what }
    }

    fn facts() -> Vec<Fact> {
        let mut event = Event::new(EventKind::Push);
        event.branch = Some("main".to_owned());
        event.commit = "c0ffee".to_owned();
        let origin = Origin { project: "sails".to_owned(), number: 4, source: None };
        let request = BuildRequest { origin, ..BuildRequest::new(event, "pipeline.yaml") };
        let jobs = [(JobName::from("test"), Arc::new(Job::default()))];
        let graph = Arc::new(Graph { jobs: jobs.into_iter().collect(), ..Graph::default() });
        let step = |name: &str, result, exit, from, to| StepReport {
            name: name.to_owned(),
            exit,
            signal: None,
            result,
            started: Timestamp(from),
            finished: Timestamp(to),
            usage: Usage::default(),
            outputs: Default::default(),
            lines: 3,
        };
        let mut report =
            AttemptReport::of(Outcome::Failed(Failure::Step { step: 1, exit: 2, message: None }), Timestamp(40));
        report.finished = Timestamp(90);
        report.steps = vec![
            step("prepare", StepResult::Passed, Some(0), 41, 50),
            step("check", StepResult::Failed, Some(2), 50, 89),
            step("publish", StepResult::Skipped, None, 89, 89),
        ];
        let (job, attempt, lease) = (JobName::from("test"), AttemptNumber(1), LeaseId(1));
        vec![
            fact(10, What::BuildCreated(Box::new(request))),
            fact(20, What::Evaluated { graph, questions: Vec::new(), diagnostics: Vec::new(), program: None }),
            fact(
                30,
                What::AttemptLeased {
                    job: job.clone(),
                    attempt,
                    try_number: 1,
                    lease,
                    worker: WorkerId("w1".into()),
                    partial: None,
                    waited_for: None,
                },
            ),
            fact(91, What::AttemptFinished { job, attempt, lease, report: Box::new(report), retry_at: None }),
            fact(92, What::BuildEnded { verdict: Verdict::Failed { because: Some("test".into()) } }),
        ]
    }

    #[test]
    fn a_build_is_one_trace_of_attempts_and_steps() {
        let store = MemoryStore::new();
        store.reserve_build().expect("a number");
        store.append(&facts()).expect("stored");
        let trace = of_build(&store, BuildId(1), "0.1.0").expect("read").expect("there is one");
        let spans = trace["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans");
        let name_of = |id: &Value| spans.iter().find(|span| span["spanId"] == *id).map(|span| span["name"].clone());
        let told: Vec<String> = spans
            .iter()
            .map(|span| {
                format!(
                    "{} in {} {}..{} status {}",
                    span["name"],
                    name_of(&span["parentSpanId"]).unwrap_or_default(),
                    span["startTimeUnixNano"],
                    span["endTimeUnixNano"],
                    span["status"]["code"]
                )
            })
            .collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        "build 1" in null "10000".."92000" status 2
        "test" in "build 1" "30000".."90000" status 2
        "prepare" in "test" "41000".."50000" status 1
        "check" in "test" "50000".."89000" status 2
        "#);
        for span in spans {
            assert_eq!(span["traceId"].as_str().map(str::len), Some(32));
            assert_eq!(span["spanId"].as_str().map(str::len), Some(16));
            assert_eq!(span["traceId"], spans[0]["traceId"]);
        }
        assert_eq!(of_build(&store, BuildId(1), "0.1.0").expect("read").expect("it"), trace, "the same twice");
        assert!(of_build(&store, BuildId(2), "0.1.0").expect("read").is_none());
    }

    #[test]
    fn a_collector_gets_the_trace_if_not_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let collector = format!("http://{}/", listener.local_addr().expect("its address"));
        let received = std::thread::spawn(move || {
            // The first caller is not answered.
            drop(listener.accept().expect("a caller"));
            let (mut stream, _) = listener.accept().expect("a caller");
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            loop {
                let text = String::from_utf8_lossy(&request).into_owned();
                let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
                if let Some(Ok(trace)) = body.map(|body| serde_json::from_str::<Value>(&body)) {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").expect("an answer");
                    return (text.lines().next().unwrap_or_default().to_owned(), trace);
                }
                let count = stream.read(&mut piece).expect("more of the request");
                assert!(count > 0, "it ended early: {text}");
                request.extend_from_slice(&piece[..count]);
            }
        });
        let store = Arc::new(MemoryStore::new());
        store.reserve_build().expect("a number");
        store.append(&facts()).expect("stored");
        let wanted = of_build(&*store, BuildId(1), env!("CARGO_PKG_VERSION")).expect("read").expect("a trace");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(send(store, BuildId(1), collector));
        let (line, trace) = received.join().expect("received");
        assert_eq!(line, "POST /v1/traces HTTP/1.1");
        assert_eq!(trace, wanted);
    }
}
