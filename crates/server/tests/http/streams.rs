//! Streams, which last: they end, or tell less, once whoever reads them may not read on.

use std::collections::BTreeSet;
use std::time::Duration;

use api::build::{RetryJob, Submit, SubmitOptions};
use api::client::{Client, ClientError, Frames, LogWanted, Logs, Moments};
use api::event::Moment;
use api::job::GateAnswer;
use api::member::{Join, NewMember, NewRole, Role, Taken};
use api::problem::ProblemKind;
use api::shell::{Frame, OpenShell, Opened};
use api::worker::ToWorker;
use bytes::Bytes;
use futures_util::StreamExt;
use graph::{BuildId, Failure, Outcome};
use server::access::Verb;

use super::site::{Worker, log_section, manifest};
use super::{ONE, Served, asked, refused, submit};

/// How often a stream asks here.
const SOON: Duration = Duration::from_millis(20);

async fn served() -> Served {
    Served::with(|app| app.with_readers_asked(SOON)).await
}

/// Adds a member and signs them in.
async fn joined(served: &Served, name: &str, roles: &[(Role, Option<&str>)]) -> Client {
    let (admin, mut link) = (served.admin(), String::new());
    for &(role, project) in roles {
        let member = NewMember { name: name.to_owned(), role, project: project.map(str::to_owned) };
        link = admin.member_add(&member).await.unwrap().link;
    }
    let link = link.strip_prefix("/join?link=").expect("a link").to_owned();
    served.client(&admin.member_join(&Join { link }).await.unwrap().token)
}

/// What ends a stream, or the wish to take it up again.
async fn end<T>(mut next: impl AsyncFnMut() -> Result<Option<T>, ClientError>) -> ClientError {
    loop {
        match next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the build goes on"),
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn whoever_is_removed_reads_no_stream_on() {
    let served = served().await;
    let admin = served.admin();
    let ann = joined(&served, "ann", &[(Role::Reader, None)]).await;
    let mut worker = Worker::join(&served.site, "w1", []).await;
    let build = asked(&served, &admin, ONE).await;
    let start = worker.start().await;
    worker.say(&served.site, &[log_section(&start.spec, 0, 0, b"hello\n", None)]).await;
    let follow = LogWanted { follow: true, ..LogWanted::default() };
    let (mut moments, mut events) = (ann.build_stream(build, Logs::With, None), ann.events(None, None));
    let mut log = ann.log_items(build, start.spec.attempt.0, 0, &follow).await.unwrap();
    moments.connected().await.unwrap();
    events.connected().await.unwrap();
    assert!(log.next().await.unwrap().is_some());
    admin.member_remove("ann", Taken::All).await.unwrap();
    assert_eq!(refused(&end(async || moments.next().await).await), Some(ProblemKind::Unauthorized));
    assert_eq!(refused(&end(async || events.next().await).await), Some(ProblemKind::Unauthorized));
    let error = end(async || log.next().await).await;
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
    served.end().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_token_also_while_it_is_full() {
    let served = served().await;
    let (admin, token) = (served.admin(), served.token(&[Verb::Read], None, None));
    let mut worker = Worker::join(&served.site, "w1", []).await;
    let build = asked(&served, &admin, ONE).await;
    let start = worker.start().await;
    let mut moments = served.client(&token).build_stream(build, Logs::With, None);
    moments.connected().await.unwrap();
    served.site.revoke(&token);
    let mut sent = 0_u64;
    let error = loop {
        worker.say(&served.site, &[log_section(&start.spec, 0, sent, b"hello\n", None)]).await;
        sent += 6;
        match moments.next().await {
            Ok(told) => assert!(told.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(refused(&error), Some(ProblemKind::Unauthorized));
    served.end().await;
}

#[tokio::test]
async fn a_role_that_is_taken_away_ends_what_is_told_of_its_project() {
    let served = served().await;
    let admin = served.admin();
    let ann = joined(&served, "ann", &[(Role::Reader, Some("sails")), (Role::Reader, Some("masts"))]).await;
    let (mut events, first) = (ann.events(None, None), asked(&served, &admin, ONE).await);
    let mut of_build = ann.build_stream(first, Logs::With, None);
    events.connected().await.unwrap();
    of_build.connected().await.unwrap();
    // The stream knows the build from now on.
    let _worker = Worker::join(&served.site, "w1", []).await;
    assert_eq!(events.next().await.unwrap().expect("it goes on").moment.build(), first);
    admin.member_remove("ann", Taken::Project("sails")).await.unwrap();
    assert_eq!(refused(&end(async || of_build.next().await).await), Some(ProblemKind::NotFound));
    loop {
        let in_sails = admin.build_submit(&of_its_own(&served)).await.unwrap().build;
        if !told_until_masts(&served, &admin, &mut events).await.contains(&in_sails) {
            break;
        }
    }
    admin.build_cancel(first, &Default::default()).await.unwrap();
    assert!(!told_until_masts(&served, &admin, &mut events).await.contains(&first));
    served.end().await;
}

/// A build of the project `sails` that joins no other, and for whose pool there is no worker.
fn of_its_own(served: &Served) -> Submit {
    let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", "jobs:\n  a:\n    pool: p\n    run: echo\n")]);
    Submit { options: SubmitOptions { join: Some(false), ..SubmitOptions::default() }, ..submit(source) }
}

/// The builds that are told of until one of the project `masts` is, which is asked for.
async fn told_until_masts(served: &Served, admin: &Client, events: &mut Moments) -> BTreeSet<BuildId> {
    let of_masts = Submit { project: "masts".to_owned(), ..of_its_own(served) };
    let last = admin.build_submit(&of_masts).await.unwrap().build;
    let mut told = BTreeSet::new();
    while !told.contains(&last) {
        told.insert(events.next().await.unwrap().expect("it goes on").moment.build());
    }
    told
}

/// A shell that is open in a job which has passed, and its worker's side.
struct Shell {
    build: BuildId,
    name: String,
    frames: Frames,
    typed: Frames,
    printing: tokio::task::JoinHandle<Result<(), ClientError>>,
}

/// Opens a shell that prints without end.
async fn shell(served: &Served, client: &Client, worker: &mut Worker) -> Shell {
    let build = asked(served, &served.admin(), ONE).await;
    let start = worker.start().await;
    worker.finish(&served.site, &start.spec).await;
    served.site.ended(build).await;
    let there = served.client(&worker.secret);
    let wanted = OpenShell::default();
    let answering = async {
        let line = worker.heard(|line| matches!(line, ToWorker::Shell(_))).await;
        let ToWorker::Shell(start) = line else { unreachable!("it was looked for") };
        let (name, when) = (start.shell.clone(), "at its end".to_owned());
        let opened = Opened { shell: name.clone(), when, withheld: Vec::new(), hidden: None, is_lasting: false };
        let first = Bytes::from(Frame::Opened(opened).encode());
        let prompt = futures_util::stream::repeat_with(|| Ok(Bytes::from(Frame::Bytes(b"$ ".to_vec()).encode())));
        let printed = futures_util::stream::iter([Ok(first)]).chain(prompt.then(async |piece| {
            tokio::task::yield_now().await;
            piece
        }));
        let (printer, shell) = (there.clone(), name.clone());
        let printing = tokio::spawn(async move { printer.worker_shell_output(&shell, Box::pin(printed)).await });
        (there.worker_shell_input(&name).await.unwrap(), printing, name)
    };
    let (frames, (typed, printing, name)) = tokio::join!(client.shell_open(build, "hello", &wanted), answering);
    Shell { build, name, frames: frames.unwrap(), typed, printing }
}

impl Shell {
    async fn type_in(&self, client: &Client, sequence: u64) -> Result<(), ClientError> {
        let key = Bytes::from(Frame::Bytes(b"x".to_vec()).encode());
        client.shell_input((self.build, "hello", &self.name), sequence, key).await
    }

    /// Waits until both sides have ended. Gives the last that was told to whoever sat before it.
    async fn ended(mut self) -> Option<Frame> {
        let mut last = None;
        while let Some(frame) = self.frames.next().await.unwrap() {
            last = Some(frame);
        }
        while self.typed.next().await.unwrap().is_some() {}
        assert!(self.printing.await.unwrap().is_err());
        last
    }
}

#[tokio::test]
async fn a_shell_ends_with_the_right_to_it() {
    let served = served().await;
    let ann = joined(&served, "ann", &[(Role::Developer, None)]).await;
    let mut worker = Worker::join(&served.site, "w1", []).await;
    let shell = shell(&served, &ann, &mut worker).await;
    shell.type_in(&ann, 0).await.unwrap();
    let role = NewRole { role: Role::Reader, project: None };
    served.admin().member_role("ann", &role).await.unwrap();
    assert_eq!(refused(&shell.type_in(&ann, 1).await.unwrap_err()), Some(ProblemKind::Forbidden));
    let last = shell.ended().await;
    assert!(matches!(&last, Some(Frame::Refused(said)) if said.contains("does not grant `shell`")), "{last:?}");
    served.end().await;
}

#[tokio::test]
async fn a_shell_ends_with_its_workers_token() {
    let served = served().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w1", []).await;
    let shell = shell(&served, &admin, &mut worker).await;
    served.site.revoke(&worker.token);
    let server = served.site.server();
    let session = server.dispatch.session_of(&worker.secret).unwrap();
    assert!(server.ask_session(&session).await.is_err());
    assert_eq!(refused(&shell.type_in(&admin, 0).await.unwrap_err()), Some(ProblemKind::NotFound));
    assert!(!matches!(shell.ended().await, Some(Frame::Refused(_) | Frame::Ended(_))));
    served.end().await;
}

/// A job, a gate behind it, and a job behind that.
const WITH_GATE: &str = "jobs:\n  first:\n    run: echo\n  ask:\n    needs: first\n    gate:\n      prompt: Ship it?\n      fields: { region: { type: choice, options: [eu, us], default: eu } }\n  after:\n    needs: ask\n    run: echo\n";

/// What is told of a build until it has ended, with the ids.
async fn told_to_the_end(events: &mut Moments) -> Vec<(Option<String>, serde_json::Value)> {
    let mut told = Vec::new();
    loop {
        let next = events.next().await.unwrap().expect("it goes on");
        let moment = serde_json::to_value(&next.moment).unwrap();
        let is_last = moment["kind"] == "build_finished";
        told.push((next.id, moment));
        if is_last {
            return told;
        }
    }
}

/// Asserts that the stream of all builds told of this one as its own stream does, from some moment on.
async fn check_as_its_own(admin: &Client, build: BuildId, told: &[(Option<String>, serde_json::Value)]) {
    let mut own = Vec::new();
    let mut stream = admin.build_stream(build, Logs::Without, None);
    while let Some(next) = stream.next().await.unwrap() {
        let moment = serde_json::to_value(&next.moment).unwrap();
        // Steps are of a build's own stream alone.
        if !matches!(moment["kind"].as_str(), Some("step_started" | "step_finished")) {
            own.push(moment);
        }
    }
    let told: Vec<&serde_json::Value> = told.iter().map(|(_, moment)| moment).collect();
    assert!(told.len() <= own.len(), "{told:#?}");
    assert_eq!(told, own[own.len() - told.len()..].iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn whoever_comes_late_is_told_of_a_build_as_its_own_stream_tells() {
    let served = served().await;
    let admin = served.admin();
    let mut worker = Worker::join(&served.site, "w1", []).await;
    let build = asked(&served, &admin, WITH_GATE).await;
    let first = worker.start().await;
    let mut events = admin.events(None, None);
    events.connected().await.unwrap();
    worker.finish(&served.site, &first.spec).await;
    loop {
        let next = events.next().await.unwrap().expect("it goes on");
        if let Moment::GateOpened { fields, .. } = next.moment {
            assert_eq!(fields.keys().collect::<Vec<_>>(), ["region"]);
            break;
        }
    }
    let yes = GateAnswer::Approve { fields: Default::default(), reason: String::new() };
    admin.gate_answer(build, "ask", &yes).await.unwrap();
    let after = worker.start().await;
    worker.end(&served.site, &after.spec, Outcome::Failed(Failure::Step { step: 0, exit: 1, message: None })).await;
    let told = told_to_the_end(&mut events).await;
    check_as_its_own(&admin, build, &told).await;
    // Taken up again behind any of it, the rest is the same.
    let ids = told.iter().enumerate().filter_map(|(place, (id, _))| Some((place + 1, id.clone()?)));
    for (place, id) in ids.filter(|(place, _)| *place < told.len()) {
        let rest = told_to_the_end(&mut admin.events(None, Some(id))).await;
        assert_eq!(rest, told[place..]);
    }
    // A build that had ended goes on.
    admin.job_retry(build, "after", &RetryJob::default()).await.unwrap();
    let again = worker.start().await;
    worker.finish(&served.site, &again.spec).await;
    let told = told_to_the_end(&mut events).await;
    assert_eq!(told[0].1["kind"], "job_retried");
    check_as_its_own(&admin, build, &told).await;
    served.end().await;
}

#[tokio::test]
async fn an_id_that_the_server_has_not_reached_is_refused() {
    let served = Served::new().await;
    let admin = served.admin();
    let newest = served.site.server().store.last_sequence().unwrap().0;
    let error = admin.events(None, Some((newest + 1).to_string())).next().await.unwrap_err();
    assert_eq!(refused(&error), Some(ProblemKind::Invalid));
    assert!(error.problem().unwrap().help.contains("restored"), "{error}");
    assert!(admin.events(None, Some(newest.to_string())).connected().await.is_ok());
    served.end().await;
}
