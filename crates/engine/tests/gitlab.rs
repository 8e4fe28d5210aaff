//! GitLab's own scheduler scenarios, lowered onto the engine's general needs (GitLab:
//! `spec/services/ci/pipeline_processing/test_cases`). After each event every job must be in the state they expect.
//!
//! The lowering, test-only until the dialect exists: a stage is a barrier on every job of earlier stages; `needs` are
//! eager; `on_failure` is `failure()`; a manual job that may fail is one whose `if` does not hold until somebody
//! retries it by name, any other manual job a gate.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use granit_parser::{Event as Yaml, Parser};
use graph::*;
use ropewalk_engine::{BuildOptions, BuildRequest, Engine, FailurePolicy, Input, JobState, Presence};

const SCENARIOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/gitlab_pipeline_processing");
/// How many there are; fewer would mean that some were not found.
const N_SCENARIOS: usize = 40;
const BUILD: BuildId = BuildId(1);

#[test]
fn every_job_is_in_the_state_gitlab_expects_after_every_event() {
    if !Path::new(SCENARIOS).is_dir() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{SCENARIOS} is not there");
        eprintln!("skipped: {SCENARIOS} is not there");
        return;
    }
    let mut files: Vec<_> =
        std::fs::read_dir(SCENARIOS).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let mut failures = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("a text");
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        failures.extend(run(&load(&text)).err().map(|failure| format!("{name}: {failure}")));
    }
    println!("{} of {} scenarios hold in every state", files.len() - failures.len(), files.len());
    assert_eq!(files.len(), N_SCENARIOS);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A YAML value; enough for these files.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    fn get(&self, key: &str) -> Option<&Node> {
        match self {
            Self::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            Self::Text(_) | Self::List(_) => None,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::List(_) | Self::Map(_) => panic!("{self:?} is no text"),
        }
    }

    fn items(&self) -> &[Node] {
        match self {
            Self::List(items) => items,
            Self::Text(_) | Self::Map(_) => panic!("{self:?} is no list"),
        }
    }

    fn entries(&self) -> &[(String, Node)] {
        match self {
            Self::Map(entries) => entries,
            Self::Text(_) | Self::List(_) => panic!("{self:?} is no map"),
        }
    }
}

fn load(text: &str) -> Node {
    let mut events = Parser::new_from_str(text).map(|event| event.expect("YAML").0);
    while let Some(event) = events.next() {
        if let Some(node) = node(event, &mut events) {
            return node;
        }
    }
    panic!("an empty file");
}

fn node<'a>(event: Yaml<'a>, events: &mut impl Iterator<Item = Yaml<'a>>) -> Option<Node> {
    match event {
        Yaml::Scalar(text, ..) => Some(Node::Text(text.into_owned())),
        Yaml::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                let next = events.next().expect("the list ends");
                match node(next, events) {
                    Some(item) => items.push(item),
                    None => return Some(Node::List(items)),
                }
            }
        }
        Yaml::MappingStart(..) => {
            let mut entries = Vec::new();
            loop {
                let next = events.next().expect("the map ends");
                let Some(key) = node(next, events) else { return Some(Node::Map(entries)) };
                let next = events.next().expect("a value follows");
                entries.push((key.text().to_owned(), node(next, events).expect("a value")));
            }
        }
        _ => None,
    }
}

/// One job of the config.
struct Entry<'a> {
    name: &'a str,
    stage: usize,
    when: When,
    allow_failure: bool,
    needs: Option<Vec<(&'a str, bool)>>,
}

#[derive(Clone, Copy, PartialEq)]
enum When {
    OnSuccess,
    OnFailure,
    Always,
    Manual,
}

impl Entry<'_> {
    /// Not played, it holds nobody up.
    fn is_optional_manual(&self) -> bool {
        self.when == When::Manual && self.allow_failure
    }
}

fn entries(config: &Node) -> Vec<Entry<'_>> {
    let usual = [".pre", "build", "test", "deploy", ".post"].map(str::to_owned).to_vec();
    let stages =
        config.get("stages").map_or(usual, |list| list.items().iter().map(|item| item.text().to_owned()).collect());
    let jobs = config.entries().iter().filter(|(name, _)| !matches!(name.as_str(), "stages" | "workflow"));
    jobs.filter(|(_, job)| job.get("rules").is_none()).map(|(name, job)| entry(name, job, &stages)).collect()
}

fn entry<'a>(name: &'a str, job: &'a Node, stages: &[String]) -> Entry<'a> {
    let when = match job.get("when").map(Node::text) {
        None | Some("on_success") => When::OnSuccess,
        Some("on_failure") => When::OnFailure,
        Some("always") => When::Always,
        Some("manual") => When::Manual,
        Some(other) => panic!("no `when: {other}`"),
    };
    let need = |need: &'a Node| match need {
        Node::Text(name) => (name.as_str(), false),
        need => {
            (need.get("job").expect("a job").text(), need.get("optional").is_some_and(|flag| flag.text() == "true"))
        }
    };
    let stage = job.get("stage").map_or("test", Node::text);
    Entry {
        name,
        stage: stages.iter().position(|known| known == stage).expect("a stage of the pipeline"),
        when,
        allow_failure: job.get("allow_failure").map_or(when == When::Manual, |flag| flag.text() == "true"),
        needs: job.get("needs").map(|needs| needs.items().iter().map(need).collect()),
    }
}

fn lower(entries: &[Entry<'_>]) -> Graph {
    let mut graph = Graph::default();
    for (order, entry) in entries.iter().enumerate() {
        let mut job = Job {
            order: order as u32,
            steps: vec![Step { run: "exit 0".into(), ..Step::default() }],
            allow_failure: entry.allow_failure,
            pool: entry.name.to_owned(),
            ..Job::default()
        };
        job.needs = match &entry.needs {
            Some(needs) => {
                needs.iter().map(|&(name, is_optional)| eager_need(entry, entries, name, is_optional)).collect()
            }
            None => {
                entries.iter().filter(|other| other.stage < entry.stage).map(|other| stage_need(entry, other)).collect()
            }
        };
        match entry.when {
            When::OnFailure => job.condition = Some("failure()".into()),
            When::Manual if entry.allow_failure => job.condition = Some("false".into()),
            When::Manual => job.gate = Some(Gate::default()),
            When::OnSuccess | When::Always => {}
        }
        graph.jobs.insert(entry.name.into(), Arc::new(job));
    }
    graph
}

fn accepts(entry: &Entry<'_>, other: Option<&Entry<'_>>) -> Vec<Ending> {
    let mut accepts = match entry.when {
        When::OnSuccess | When::Manual => vec![Ending::Passed, Ending::PassedWithWarnings],
        When::OnFailure | When::Always => {
            vec![Ending::Passed, Ending::PassedWithWarnings, Ending::Failed, Ending::Errored, Ending::Canceled]
        }
    };
    if other.is_some_and(|other| other.allow_failure) {
        accepts.push(Ending::Canceled);
    }
    accepts
}

/// One skipped need skips the dependent at once, unless it runs always.
fn eager_need(entry: &Entry<'_>, entries: &[Entry<'_>], name: &str, optional: bool) -> Need {
    let mut accepts = accepts(entry, entries.iter().find(|other| other.name == name));
    if entry.when == When::Always {
        accepts.push(Ending::Skipped);
    }
    Need { eager_skip: true, optional, ..Need::new(name, Accepts::of(&accepts), Carries::Artifacts) }
}

fn stage_need(entry: &Entry<'_>, other: &Entry<'_>) -> Need {
    let mut accepts = accepts(entry, Some(other));
    accepts.push(Ending::Skipped);
    Need::new(other.name, Accepts::of(&accepts), Carries::Order)
}

/// Runs one scenario; the first state that differs is the error.
fn run(scenario: &Node) -> Result<(), String> {
    let config = scenario.get("config").expect("a config");
    let entries = entries(config);
    let mut gitlab = Gitlab { engine: Engine::new(), entries };
    gitlab.request(config);
    gitlab.compare("init", scenario.get("init").expect("a first state"))?;
    for transition in scenario.get("transitions").map_or(&[][..], Node::items) {
        let event = transition.get("event").expect("an event").text();
        let jobs: Vec<&str> = transition.get("jobs").expect("its jobs").items().iter().map(Node::text).collect();
        for job in &jobs {
            gitlab.act(event, job);
        }
        gitlab.compare(&format!("{event} {}", jobs.join(" ")), transition)?;
    }
    Ok(())
}

struct Gitlab<'a> {
    engine: Engine,
    entries: Vec<Entry<'a>>,
}

impl Gitlab<'_> {
    fn feed(&mut self, input: Input) {
        self.engine.step(Timestamp(0), vec![input]);
    }

    fn request(&mut self, config: &Node) {
        let cancels = config.get("workflow").and_then(|workflow| workflow.get("auto_cancel")).is_some();
        let on_failure = if cancels { FailurePolicy::FailFast } else { FailurePolicy::KeepGoing };
        let request = Box::new(BuildRequest {
            options: BuildOptions { on_failure, ..BuildOptions::default() },
            ..BuildRequest::new(Event::new(EventKind::Push), "")
        });
        self.feed(Input::BuildRequested { build: BUILD, request });
        let evaluation = Box::new(Evaluation { graph: lower(&self.entries), ..Evaluation::default() });
        self.feed(Input::Evaluated { build: BUILD, answers_known: 0, evaluation });
    }

    fn act(&mut self, event: &str, job: &str) {
        let name = JobName::from(job);
        let by = "somebody".to_owned();
        match event {
            "play" if self.engine.job(BUILD, &name) == Some(JobState::Gated) => {
                self.feed(Input::GateAnswered {
                    build: BUILD,
                    job: name,
                    answer: Some(BTreeMap::new()),
                    by,
                    reason: String::new(),
                });
            }
            "play" | "retry" => self.feed(Input::JobRetried { build: BUILD, job: name, by, tests: None, key: None }),
            "run" => self.lease(job),
            "success" => self.finish(job, Outcome::passed()),
            "drop" => self.finish(job, Outcome::Failed(Failure::Step { step: 0, exit: 1, message: None })),
            "cancel" => self.finish(job, Outcome::Failed(Failure::Canceled { by })),
            other => panic!("no event `{other}`"),
        }
    }

    /// A worker for this job alone takes it, if it waits for one.
    fn lease(&mut self, job: &str) {
        let presence = Presence {
            pools: [job.to_owned()].into(),
            labels: BTreeSet::new(),
            slots: 1,
            resources: Resources::default(),
            leases: BTreeSet::new(),
            holds_ms: 0,
            intake: ropewalk_engine::Intake::Open,
        };
        self.feed(Input::WorkerPresent { worker: WorkerId(job.into()), presence });
    }

    fn finish(&mut self, job: &str, outcome: Outcome) {
        self.lease(job);
        let Some(JobState::Leased { attempt, lease, .. }) = self.engine.job(BUILD, &job.into()) else { return };
        let report = Box::new(AttemptReport::of(outcome, Timestamp(0)));
        // The worker leaves with its report, so that the next try waits as pending.
        self.engine.step(
            Timestamp(0),
            vec![
                Input::AttemptFinished { build: BUILD, attempt, lease, report },
                Input::WorkerLeft { worker: WorkerId(job.into()) },
            ],
        );
    }

    fn compare(&self, after: &str, state: &Node) -> Result<(), String> {
        let expected = state.get("expect").and_then(|expect| expect.get("jobs")).expect("states of jobs");
        for (name, expected) in expected.entries() {
            let entry = self.entries.iter().find(|entry| entry.name == name).expect("a job of the config");
            let state = self.engine.job(BUILD, &name.as_str().into()).expect("a job of the build");
            let shown = shown(entry, &state);
            if shown != expected.text() {
                return Err(format!("after {after}: `{name}` is {shown}, not {}", expected.text()));
            }
        }
        Ok(())
    }
}

/// The state as GitLab names it.
fn shown(entry: &Entry<'_>, state: &JobState<'_>) -> &'static str {
    match state {
        JobState::Waiting => "created",
        JobState::Gated => "manual",
        JobState::Leased { .. } => "running",
        JobState::Ended(Outcome::Passed { .. }) => "success",
        JobState::Ended(Outcome::Skipped(SkipReason::Condition { .. })) if entry.is_optional_manual() => "manual",
        JobState::Ended(Outcome::Skipped(_)) => "skipped",
        JobState::Ended(Outcome::Failed(Failure::Canceled { .. })) => "canceled",
        JobState::Ended(Outcome::Failed(_)) => "failed",
        _ => "pending",
    }
}
