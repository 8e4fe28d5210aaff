//! A worker and a server that says, each time, what a real one says in this order only now and then.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};

use api::worker::{Challenge, FromWorker, Start, Taken, ToWorker};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::post;
use futures_util::stream::{StreamExt, iter, pending};
use graph::{AttemptNumber, AttemptSpec, BuildId, Event, EventKind, Failure, JobName, LeaseId, Outcome, WorkerId};
use serde::Serialize;
use serde_json::json;

use crate::process::{PATIENCE, Process};

/// The only attempt of a build, at a job with one step.
fn start(lease: LeaseId, script: &str) -> ToWorker {
    let spec = AttemptSpec {
        lease,
        build: BuildId(lease.0),
        attempt: AttemptNumber(1),
        try_number: 1,
        name: JobName::from("a"),
        job: Arc::new(serde_json::from_value(json!({ "steps": [{ "run": script }] })).expect("a job")),
        event: Arc::new(Event::new(EventKind::Push)),
        needs: Default::default(),
        gate: None,
        operation: None,
        images: Default::default(),
        origin: Default::default(),
        asked: None,
        quarantine: Vec::new(),
    };
    ToWorker::Start(Box::new(Start { spec, secrets: Default::default() }))
}

fn text(word: &impl Serialize) -> String {
    serde_json::to_string(word).expect("words are JSON")
}

/// The sections of an outbox, each with its kind.
fn sections(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut sections = Vec::new();
    while let [kind, a, b, c, d, rest @ ..] = bytes {
        let (section, rest) = rest.split_at(u32::from_le_bytes([*a, *b, *c, *d]) as usize);
        sections.push((*kind, section));
        bytes = rest;
    }
    sections
}

/// A server that says these words to whoever joins, and hands on how attempts end.
fn routes(words: &[ToWorker], ends: mpsc::Sender<(LeaseId, Outcome)>) -> Router {
    let said: String = words.iter().map(|word| text(word) + "\n").collect();
    let session = async move || {
        let said = iter([Ok::<_, std::io::Error>(said)]);
        Body::from_stream(said.chain(pending()))
    };
    let outbox = async move |bytes: Bytes| {
        let sections = sections(&bytes);
        for (_, section) in sections.iter().filter(|(kind, _)| *kind == 0) {
            if let FromWorker::Finished { lease, report } = serde_json::from_slice(section).expect("a word") {
                let _ = ends.send((lease, report.outcome));
            }
        }
        text(&Taken { sections: sections.len(), ..Taken::default() })
    };
    Router::new()
        .route("/api/v1/worker/hello", post(async || text(&Challenge { nonce: "once".to_owned() })))
        .route("/api/v1/worker/session", post(session))
        .route("/api/v1/worker/outbox", post(outbox))
}

fn work(server: &str, folder: &Path) -> Process {
    let token = folder.join("token");
    std::fs::write(&token, "token").expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ropewalk"));
    command.args(["work", "--server", server, "--capacity", "1", "--name", "one"]).arg("--token").arg(token);
    Process(command.arg("--data").arg(folder.join("data")).stderr(Stdio::null()).spawn().expect("ropewalk starts"))
}

#[test]
fn an_attempt_that_is_stopped_before_it_starts_runs_nothing() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let touch = |name: &str| format!("touch {}", folder.path().join(name).display());
    let welcome = ToWorker::Welcome { worker: WorkerId("one".into()), session: "s".to_owned(), heartbeat_ms: 10_000 };
    let stop = ToWorker::Stop { lease: LeaseId(1), by: "a person".to_owned() };
    let words = [welcome, stop, start(LeaseId(1), &touch("first")), start(LeaseId(2), &touch("second"))];
    let (ends, ended) = mpsc::channel();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("it starts");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port is free");
    let address = listener.local_addr().expect("it has one");
    let routes = routes(&words, ends);
    runtime.spawn(async move { axum::serve(listener, routes).await });
    let _worker = work(&format!("http://{address}"), folder.path());
    let mut ended = [(); 2].map(|()| ended.recv_timeout(PATIENCE).expect("both end"));
    ended.sort_by_key(|(lease, _)| *lease);
    let canceled = Outcome::Failed(Failure::Canceled { by: "a person".to_owned() });
    assert_eq!(ended, [(LeaseId(1), canceled), (LeaseId(2), Outcome::Passed { outputs: Default::default() })]);
    assert!(!folder.path().join("first").exists() && folder.path().join("second").exists());
}
