//! A server on a temporary folder, and a worker that follows a script.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use api::event::Moment;
use api::source::{File, Manifest, VERSION};
use api::worker::{FromWorker, Join, Offer, Start, Taken, ToWorker};
use engine::BuildOptions;
use graph::{
    AttemptReport, AttemptSpec, BuildId, Digest, Event, EventKind, LeaseId, Outcome, StepReport, StepResult, Timestamp,
    Trust, Usage, WorkerId,
};
use ropewalk_server::access::{Access, GrantRequest, Pass, RootKey, StoreLedger, Subject, SubjectKind, Verb};
use ropewalk_server::live::{Follower, Lines};
use ropewalk_server::outbox::{LOG, OutboxError, SAYING};
use ropewalk_server::records::{Sharing, Superseding};
use ropewalk_server::server::{Parts, Wanted};
use ropewalk_server::settings::{Heartbeat, Settings};
use ropewalk_server::world::{NoValue, SecretSource};
use ropewalk_server::{Running, Server};
use store::blob::{self, DirectoryBlobs, Verify};
use store::log::{Batch, Logs, LogsSettings, Sharing as LogSharing, StepEnd, Stream, StreamKey};
use store::{Durability, Journal, Opening, SqliteStore};
use tokio::sync::mpsc;

/// The present time.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    Timestamp(i64::try_from(since.as_micros()).expect("not so late"))
}

/// Secrets that a test knows.
#[derive(Default)]
struct Known(BTreeMap<String, String>);

impl SecretSource for Known {
    fn values(&self, _: &str, _: Trust, names: &BTreeSet<String>) -> Result<BTreeMap<String, String>, NoValue> {
        let value = |name: &String| {
            let value = self.0.get(name).ok_or_else(|| NoValue::Unset(format!("no value for {name}")))?;
            Ok((name.clone(), value.clone()))
        };
        names.iter().map(value).collect()
    }
}

/// A server and its data.
pub struct Site {
    folder: tempfile::TempDir,
    secrets: BTreeMap<String, String>,
    settings: Settings,
    running: Running,
}

fn start(folder: &tempfile::TempDir, secrets: &BTreeMap<String, String>, settings: Settings) -> Running {
    let path = folder.path();
    let records = path.join("records");
    std::fs::create_dir_all(&records).unwrap();
    let opening = Opening { durability: Durability::Process, journal: Journal::Kept };
    let store: Arc<dyn store::Store> = Arc::new(SqliteStore::open_with(&records, opening).unwrap());
    let logs = LogsSettings { root: path.join("logs"), durability: Durability::Process, sharing: LogSharing::Never };
    let parts = Parts {
        blobs: Arc::new(DirectoryBlobs::open(&path.join("blobs"), blob::Durability::Process, Verify::Always).unwrap()),
        logs: Arc::new(Logs::open(logs).unwrap()),
        access: Arc::new(Access::new(RootKey::of(path).unwrap(), Arc::new(StoreLedger(Arc::clone(&store))))),
        secrets: Arc::new(Known(secrets.clone())),
        scratch: path.join("scratch"),
        clock: now,
        early_turns: || (),
        store,
    };
    Server::start(settings, parts).unwrap()
}

impl Site {
    pub fn new() -> Self {
        Self::with_secrets(BTreeMap::new())
    }

    pub fn with_secrets(secrets: BTreeMap<String, String>) -> Self {
        Self::with(secrets, Settings::default())
    }

    /// Whose workers say something so often.
    pub fn with_heartbeat(heartbeat_ms: u64) -> Self {
        Self::with(BTreeMap::new(), Settings { heartbeat: Heartbeat(heartbeat_ms), ..Settings::default() })
    }

    fn with(secrets: BTreeMap<String, String>, settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let running = start(&folder, &secrets, settings.clone());
        Self { folder, secrets, settings, running }
    }

    pub fn server(&self) -> &Arc<Server> {
        &self.running.server
    }

    /// The file of a blob that is not compressed.
    pub fn blob(&self, digest: Digest) -> std::path::PathBuf {
        let name = digest.to_hex();
        self.folder.path().join("blobs").join(&name[..2]).join(name)
    }

    /// The file of the database.
    pub fn database(&self) -> std::path::PathBuf {
        self.folder.path().join("records").join(store::DATABASE_FILE)
    }

    /// Ends the server and starts another on the same data.
    pub async fn restart(self) -> Self {
        let Self { folder, secrets, settings, running } = self;
        running.end().await.unwrap();
        let running = start(&folder, &secrets, settings.clone());
        Self { folder, secrets, settings, running }
    }

    pub async fn end(self) {
        self.running.end().await.unwrap();
    }

    /// A token for workers of every pool.
    pub fn worker_token(&self) -> String {
        let grant = GrantRequest {
            subject: Subject { kind: SubjectKind::Worker, name: "w".to_owned() },
            verbs: [Verb::Work].into(),
            projects: None,
            pools: None,
            until: None,
        };
        self.server().access.create(&ropewalk_server::parts::fresh_id(), grant, "test", now()).unwrap()
    }

    /// What a worker goes on by that joined by this token.
    pub fn pass(&self, token: &str) -> Arc<Pass> {
        let bearer = Arc::new(self.server().access.admit(token).unwrap());
        Arc::new(Pass::new(bearer, Verb::Work, Vec::new(), now()))
    }

    /// Revokes a token.
    pub fn revoke(&self, token: &str) {
        let said = ropewalk_server::access::inspect(token).unwrap();
        assert!(self.server().access.revoke(said.grant("id").unwrap(), "test", now()).unwrap());
    }

    /// Waits until a build has ended.
    pub async fn ended(&self, build: BuildId) {
        moments(&mut self.server().live.follow(build, None, Lines::Told).await.unwrap(), |_| false).await;
    }

    /// Waits until a worker has an attempt of a build.
    pub async fn leased(&self, build: BuildId) {
        let mut follower = self.server().live.follow(build, None, Lines::Told).await.unwrap();
        moments(&mut follower, |told| told.iter().any(|moment| moment.starts_with("job_started"))).await;
    }
}

/// What a follower is told until `is_enough`, or until the build has ended, each in a few words.
pub async fn moments(follower: &mut Follower, is_enough: impl Fn(&[String]) -> bool) -> Vec<String> {
    let mut told = Vec::new();
    while !is_enough(&told) {
        let Some(batch) = follower.next().await.unwrap() else { break };
        told.extend(batch.iter().map(|event| short(&event.moment)));
    }
    told
}

fn short(moment: &Moment) -> String {
    match moment {
        Moment::BuildStarted { .. } => "build_started".to_owned(),
        Moment::Planned { jobs, diagnostics, .. } => {
            let codes: String = diagnostics.iter().map(|fault| format!(" {}", fault.code)).collect();
            format!("planned {jobs}{codes}")
        }
        Moment::JobStarted { job, .. } => format!("job_started {job}"),
        Moment::StepStarted { job, step, name, .. } => format!("step_started {job} {step} {name}"),
        Moment::Log { job, step, number, line, open, .. } => {
            format!("log {job} {step}.{number} {line}{}", if *open { "…" } else { "" })
        }
        Moment::LogGap { job, step, text, .. } => format!("log_gap {job} {step} {text}"),
        Moment::StepFinished { job, step, result, .. } => {
            format!("step_finished {job} {step} {}", serde_json::to_value(result).unwrap().as_str().unwrap())
        }
        Moment::JobFinished { job, outcome, .. } => {
            format!("job_finished {job} {}", serde_json::to_value(outcome).unwrap().as_str().unwrap())
        }
        Moment::BuildFinished { verdict, .. } => {
            format!("build_finished {}", serde_json::to_value(verdict).unwrap().as_str().unwrap())
        }
        other => format!("{other:?}"),
    }
}

/// Puts files and their manifest among the blobs.
pub fn manifest(site: &Site, files: &[(&str, &str)]) -> Digest {
    let blobs = &site.server().blobs;
    let file = |(path, content): &(&str, &str)| {
        let digest = blobs.put(content.as_bytes()).unwrap();
        ((*path).to_owned(), File::Plain { digest, bytes: content.len() as u64 })
    };
    let files = files.iter().map(file).collect();
    let manifest = Manifest { version: VERSION, files, ..Manifest::default() };
    blobs.put(&serde_json::to_vec(&manifest).unwrap()).unwrap()
}

/// A request for a build of a source.
pub fn wanted(source: Digest) -> Wanted {
    Wanted {
        project: "sails".to_owned(),
        source,
        event: Event::new(EventKind::Api),
        pipeline: None,
        options: BuildOptions::default(),
        client: "ada".to_owned(),
        sharing: Sharing::OneBuild,
        superseding: Superseding::CancelsEarlier,
        key: None,
    }
}

/// One section that says something.
pub fn said(what: &FromWorker) -> Vec<u8> {
    section(SAYING, &serde_json::to_vec(what).unwrap())
}

/// One section with a piece of a log.
pub fn log_section(spec: &AttemptSpec, step: u16, first_byte: u64, bytes: &[u8], end: Option<StepEnd>) -> Vec<u8> {
    let key = StreamKey { attempt: spec.attempt.0, step };
    let mut batch = Batch::new(spec.build, key, first_byte);
    let time_us = u64::try_from(now().0).unwrap();
    assert!(batch.push(Stream::Stdout, time_us, bytes).is_empty());
    batch.end = end;
    encoded(&batch)
}

/// As [`log_section`], if the worker has lost what comes before and knows of no line there.
pub fn lost_section(spec: &AttemptSpec, step: u16, first_byte: u64, bytes: &[u8]) -> Vec<u8> {
    let key = StreamKey { attempt: spec.attempt.0, step };
    let mut batch = Batch::new(spec.build, key, first_byte);
    assert!(batch.push(Stream::Stdout, u64::try_from(now().0).unwrap(), bytes).is_empty());
    batch.lost_lines = Some(0);
    encoded(&batch)
}

fn encoded(batch: &Batch) -> Vec<u8> {
    let mut content = Vec::new();
    batch.encode(&mut content);
    section(LOG, &content)
}

fn section(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut section = vec![kind];
    section.extend_from_slice(&u32::try_from(content.len()).unwrap().to_le_bytes());
    section.extend_from_slice(content);
    section
}

/// How an attempt of one step ended.
pub fn report(outcome: Outcome, name: &str) -> AttemptReport {
    let at = now();
    let result = if matches!(outcome, Outcome::Passed { .. }) { StepResult::Passed } else { StepResult::Failed };
    let step = StepReport {
        name: name.to_owned(),
        exit: Some(0),
        signal: None,
        result,
        started: at,
        finished: at,
        usage: Usage::default(),
        outputs: BTreeMap::new(),
        lines: 0,
    };
    AttemptReport { steps: vec![step], ..AttemptReport::of(outcome, at) }
}

/// A worker that follows a script.
pub struct Worker {
    pub id: WorkerId,
    /// By what it joined.
    pub token: String,
    /// Its session's.
    pub secret: String,
    lines: mpsc::Receiver<bytes::Bytes>,
    unread: Vec<u8>,
}

impl Worker {
    pub async fn join(site: &Site, name: &str, leases: impl IntoIterator<Item = LeaseId>) -> Self {
        let id = WorkerId(name.into());
        let leases = leases.into_iter().collect();
        Self::join_as(site, id, Join { leases, ..Join::default() }).await
    }

    /// As one that was drained, and whose session was lost before it had left.
    pub async fn join_again(site: &Site, name: &str) -> Self {
        Self::join_as(site, WorkerId(name.into()), Join { is_draining: true, ..Join::default() }).await
    }

    async fn join_as(site: &Site, id: WorkerId, join: Join) -> Self {
        let (pools, name) = (["default".to_owned()].into(), id.to_string());
        let offer = Offer { name, pools, slots: 2, version: "0.1.0".to_owned(), ..Offer::default() };
        let (join, token) = (Join { key: "00".to_owned(), offer, ..join }, site.worker_token());
        let joined = site.server().join(id.clone(), join, site.pass(&token)).await.unwrap();
        Self { id, token, secret: joined.secret, lines: joined.lines, unread: Vec::new() }
    }

    /// The next line of the session; `None` once it is over.
    pub async fn next(&mut self) -> Option<ToWorker> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                match serde_json::from_slice(&line).unwrap() {
                    ToWorker::Welcome { .. } | ToWorker::Alive => continue,
                    line => return Some(line),
                }
            }
            self.unread.extend_from_slice(&self.lines.recv().await?);
        }
    }

    /// The next line of this kind.
    pub async fn heard(&mut self, is_it: impl Fn(&ToWorker) -> bool) -> ToWorker {
        loop {
            let line = self.next().await.expect("the session goes on");
            if is_it(&line) {
                return line;
            }
        }
    }

    /// The next attempt to run.
    pub async fn start(&mut self) -> Start {
        match self.heard(|line| matches!(line, ToWorker::Start(_))).await {
            ToWorker::Start(start) => *start,
            line => panic!("{line:?}"),
        }
    }

    pub async fn post(&self, site: &Site, body: Vec<u8>) -> Result<Taken, OutboxError> {
        site.server().take_outbox(self.id.clone(), body.into()).await
    }

    pub async fn say(&self, site: &Site, sections: &[Vec<u8>]) -> Taken {
        self.post(site, sections.concat()).await.unwrap()
    }

    /// Says that an attempt passed.
    pub async fn finish(&self, site: &Site, spec: &AttemptSpec) -> Taken {
        self.end(site, spec, Outcome::passed()).await
    }

    /// Says how an attempt ended.
    pub async fn end(&self, site: &Site, spec: &AttemptSpec, outcome: Outcome) -> Taken {
        self.report(site, spec, report(outcome, "echo hello")).await
    }

    /// Says all of how an attempt ended.
    pub async fn report(&self, site: &Site, spec: &AttemptSpec, report: AttemptReport) -> Taken {
        let report = Box::new(report);
        self.say(site, &[said(&FromWorker::Finished { lease: spec.lease, report })]).await
    }
}
