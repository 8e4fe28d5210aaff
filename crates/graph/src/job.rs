//! The graph: jobs, what they need, and the steps they run.
//!
//! Only data. Defaults are left out on the wire, so that the same pipeline written in any notation gives the
//! same bytes ([`crate::canonical`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::{EventKind, Waits};
use crate::fields::Field;
use crate::name::JobName;
use crate::need::Need;
use crate::outcome::{Failure, SkipReason};
use crate::text::Text;

/// Jobs by full name, and the places where more will grow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// The pipeline's name, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The jobs. Shared, since attempts and evaluations hold them too.
    pub jobs: BTreeMap<JobName, Arc<Job>>,
    /// What is not known yet, in order of name.
    #[serde(default)]
    pub holes: Vec<Hole>,
    /// What the pipeline says of itself, by name: combined from outcomes by its program.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub statuses: BTreeMap<String, Status>,
}

/// What a pipeline says of a part of itself. Shown to people; decides nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// How it stands.
    pub state: StatusState,
    /// Why, or what came out: one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// How a [`Status`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusState {
    /// It is well.
    Ok,
    /// It did not apply.
    Skipped,
    /// It is not known yet.
    Pending,
    /// It is not well.
    Failed,
}

/// A place where an evaluation will add jobs once an answer is there: "grows after *plan*".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// The id whose jobs will appear.
    pub name: String,
    /// The jobs whose outcome it waits for.
    pub after: Vec<JobName>,
}

/// One job: needs, conditions, one environment, a sequence of steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Job {
    /// Place in the pipeline's text, from 0; breaks ties in what starts first and orders what people see.
    pub order: u32,
    /// Shown to people; empty means the full name.
    #[serde(skip_serializing_if = "is_default")]
    pub title: Text,
    /// What it waits for, in order of name.
    #[serde(skip_serializing_if = "is_default")]
    pub needs: Vec<Need>,
    /// Already decided not to run; still shown.
    #[serde(skip_serializing_if = "is_default")]
    pub skip: Option<SkipReason>,
    /// `if`, when it can be decided only once the needs have ended; an expression without `${{ }}`.
    #[serde(rename = "if", skip_serializing_if = "is_default")]
    pub condition: Option<Box<str>>,
    /// Coordinates in the matrix.
    #[serde(skip_serializing_if = "is_default")]
    pub matrix: BTreeMap<String, Value>,
    /// What runs, in order. Empty for a gate or a barrier: the job passes as soon as it is ready.
    #[serde(skip_serializing_if = "is_default")]
    pub steps: Vec<Step>,
    /// Where the steps run.
    #[serde(skip_serializing_if = "is_default")]
    pub environment: Environment,
    /// Containers beside the job's own, by the name under which its steps reach them.
    #[serde(skip_serializing_if = "is_default")]
    pub services: BTreeMap<String, Service>,
    /// Which files the steps see.
    #[serde(skip_serializing_if = "is_default")]
    pub workspace: WorkspaceKind,
    /// Environment variables of all steps: the pipeline's, overlaid by the job's.
    #[serde(skip_serializing_if = "is_default")]
    pub env: BTreeMap<String, Text>,
    /// Those of them that stand in the pipeline and not in the job: for people, no part of the work.
    #[serde(skip_serializing_if = "is_default")]
    pub env_of_pipeline: BTreeSet<String>,
    /// Whether, and on what, an earlier result may be reused.
    #[serde(skip_serializing_if = "is_default")]
    pub reuse: Reuse,
    /// The only files of the tree that it sees in a sandbox, by glob, of a job that is not reused by them. Read it by
    /// [`Job::inputs`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub sees: Option<Vec<String>>,
    /// The values it must hand on.
    #[serde(skip_serializing_if = "is_default")]
    pub outputs: BTreeSet<String>,
    /// Files it hands on: name to globs relative to the workspace.
    #[serde(skip_serializing_if = "is_default")]
    pub artifacts: BTreeMap<String, Vec<String>>,
    /// Directories kept across builds.
    #[serde(skip_serializing_if = "is_default")]
    pub cache: Vec<CacheUse>,
    /// Reports to read when it has ended.
    #[serde(skip_serializing_if = "is_default")]
    pub reports: Reports,
    /// When to try again.
    #[serde(skip_serializing_if = "is_default")]
    pub retry: Retry,
    /// Limit on running time of one attempt, in milliseconds. Waiting does not count.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout_ms: Option<u64>,
    /// Whether the verdict ignores its failure.
    #[serde(skip_serializing_if = "is_default")]
    pub allow_failure: bool,
    /// Whether it also runs when the build is canceled.
    #[serde(skip_serializing_if = "is_default")]
    pub cleanup: bool,
    /// A person's approval, asked once the needs are satisfied.
    #[serde(skip_serializing_if = "is_default")]
    pub gate: Option<Gate>,
    /// The group in which only one job runs at a time.
    #[serde(skip_serializing_if = "is_default")]
    pub concurrency: Option<Concurrency>,
    /// Names of secrets that it gets as environment variables. Never values.
    #[serde(skip_serializing_if = "is_default")]
    pub secrets: BTreeSet<String>,
    /// The pool whose workers may run it; empty means the default pool.
    #[serde(skip_serializing_if = "is_default")]
    pub pool: String,
    /// Labels that the worker must have.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeSet<String>,
    /// What it asks of the worker.
    #[serde(skip_serializing_if = "is_default")]
    pub resources: Resources,
}

impl Job {
    /// The most steps of one job.
    pub const STEPS_MAX: usize = 1000;
    /// The most services of one job.
    pub const SERVICES_MAX: usize = 50;
    /// The most logs that an attempt has beside those of its steps: of fetching or building images, and of services.
    pub const SECTIONS_MAX: usize = 1 + 2 * Self::SERVICES_MAX;

    /// The build that it asks for, if it is a job that does nothing else.
    #[must_use]
    pub fn child(&self) -> Option<&ChildBuild> {
        match self.steps.as_slice() {
            [step] => step.build.as_deref(),
            _ => None,
        }
    }

    /// Whether it needs a container engine.
    #[must_use]
    pub fn needs_engine(&self) -> bool {
        self.environment.container().is_some() || !self.services.is_empty()
    }

    /// Names of all secrets whose values its worker needs: those for its steps, and those for registries.
    #[must_use]
    pub fn all_secrets(&self) -> BTreeSet<String> {
        let own = self.environment.container().map(|container| &container.login);
        let logins = own.into_iter().chain(self.services.values().map(|service| &service.login));
        self.secrets
            .iter()
            .cloned()
            .chain(logins.filter(|name| !name.is_empty()).map(|name| name.to_string()))
            .collect()
    }

    /// The only files of the tree that it sees in a sandbox, by glob: what it declares as inputs, whether or not it is
    /// reused by them. `None` is all.
    #[must_use]
    pub fn inputs(&self) -> Option<&[String]> {
        match &self.reuse {
            Reuse::Inputs(globs) => Some(globs),
            Reuse::Never | Reuse::Tree => self.sees.as_deref(),
        }
    }

    /// Labels that its environment and steps ask of a worker by themselves.
    pub fn implied_labels(&self) -> impl Iterator<Item = &'static str> {
        let builds = self.steps.iter().any(|step| !step.nix_build.is_empty());
        self.environment.label().into_iter().chain(builds.then_some(crate::nix::LABEL))
    }

    /// All labels that a worker must have to run it: those that its author wrote, and [`Job::implied_labels`].
    #[must_use]
    pub fn wanted_labels(&self) -> BTreeSet<String> {
        self.labels.iter().cloned().chain(self.implied_labels().map(str::to_owned)).collect()
    }

    /// The job's tolerance of failure, as edges and the verdict see it.
    #[must_use]
    pub fn toleration(&self) -> Toleration {
        if self.allow_failure { Toleration::AllowFailure } else { Toleration::Required }
    }
}

/// Whether a failure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toleration {
    /// It does.
    Required,
    /// A failure by step, time-out, infrastructure or loss is a warning. A cancellation never is.
    AllowFailure,
}

impl Toleration {
    /// Whether this failure is a mere warning.
    #[must_use]
    pub fn covers(self, failure: &Failure) -> bool {
        self == Self::AllowFailure && !matches!(failure, Failure::Canceled { .. })
    }
}

/// One script of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    /// The name by which `${{ steps.ID }}` finds it.
    #[serde(skip_serializing_if = "is_default")]
    pub id: Option<Box<str>>,
    /// Shown to people; empty means the script's first line.
    #[serde(skip_serializing_if = "is_default")]
    pub name: Text,
    /// The script. Expressions in it have already become environment variables.
    pub run: Box<str>,
    /// What reads the script.
    #[serde(skip_serializing_if = "is_default")]
    pub shell: Shell,
    /// `if`: an expression without `${{ }}`. `None` means `success()`.
    #[serde(rename = "if", skip_serializing_if = "is_default")]
    pub condition: Option<Box<str>>,
    /// Environment variables of this step, over the job's.
    #[serde(skip_serializing_if = "is_default")]
    pub env: BTreeMap<String, Text>,
    /// Relative to the workspace.
    #[serde(skip_serializing_if = "is_default")]
    pub working_directory: Option<Text>,
    /// Limit on its running time, in milliseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout_ms: Option<u64>,
    /// Whether the job goes on after its failure.
    #[serde(skip_serializing_if = "is_default")]
    pub allow_failure: bool,
    /// The values it must hand on.
    #[serde(skip_serializing_if = "is_default")]
    pub outputs: BTreeSet<String>,
    /// Nix installables (`.#app`), to be built by the worker itself instead of `run`, which then says the same for people
    /// and for other systems. The worker reports each derivation and hands on each installable's store path as an output
    /// of the step. An older worker runs `run`.
    #[serde(skip_serializing_if = "is_default")]
    pub nix_build: Vec<String>,
    /// Another build that the step asks for. `run` then does so, on a laptop, and for other systems; a server makes the build
    /// itself. Such a step stands alone in its job.
    #[serde(skip_serializing_if = "is_default")]
    pub build: Option<Box<ChildBuild>>,
}

/// A build that a job asks for: which pipeline of the same files, and what its event says. What is not said is as with the build
/// that asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChildBuild {
    /// The pipeline's file, relative to the repository's root; `None` is what the repository has.
    #[serde(skip_serializing_if = "is_default")]
    pub file: Option<Text>,
    /// The kind of its event. `None`: that of its command or its tag, else a build's.
    #[serde(skip_serializing_if = "is_default")]
    pub event: Option<EventKind>,
    /// The command that is asked for.
    #[serde(skip_serializing_if = "is_default")]
    pub command: Option<Text>,
    /// The branch of its event.
    #[serde(skip_serializing_if = "is_default")]
    pub branch: Option<Text>,
    /// The tag of its event.
    #[serde(skip_serializing_if = "is_default")]
    pub tag: Option<Text>,
    /// Its parameters, as a person would type them.
    #[serde(skip_serializing_if = "is_default")]
    pub params: BTreeMap<String, Text>,
    /// What its jobs hand on that the job hands on too, by name: `JOB.OUTPUT`.
    #[serde(skip_serializing_if = "is_default")]
    pub hand_on: BTreeMap<String, String>,
    /// Whether the job waits for it.
    #[serde(skip_serializing_if = "is_default")]
    pub waits: Waits,
}

impl ChildBuild {
    /// The kind of the child's event.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        match self.event {
            Some(kind) => kind,
            None if self.command.is_some() => EventKind::Command,
            None if self.tag.is_some() => EventKind::Tag,
            None => EventKind::Build,
        }
    }
}

impl Step {
    /// Of a function of the pipeline's program: what the program had read of the event before it gave the function to the job, by part,
    /// and the step without that. The function may have taken it with it.
    #[must_use]
    pub fn without_reads(&self) -> Option<(serde_json::Map<String, Value>, Self)> {
        let Shell::Program(_) = self.shell else { return None };
        let mut payload: serde_json::Map<String, Value> = serde_json::from_str(&self.run).ok()?;
        let Some(Value::Object(read)) = payload.remove("read") else { return None };
        let run = Value::Object(payload).to_string().into();
        Some((read, Self { run, ..self.clone() }))
    }

    /// The most installables of one step.
    pub const INSTALLABLES_MAX: usize = 1000;

    /// The most characters of a script's line that stand for its name.
    const TITLE_CHARS_MAX: usize = 100;

    /// Begins the names of variables that hand values of `${{ }}` to a script; a number follows.
    pub const EXPRESSION_VARIABLE: &str = "ROPEWALK_EXPR_";

    /// What the step is called, as its author wrote it.
    #[must_use]
    pub fn title(&self) -> String {
        let name = self.name.as_written();
        if name.is_empty() { self.script_title() } else { name.to_owned() }
    }

    /// What a step without a name is called: the first line of its script that is not blank, with `…` after it where it is cut or more
    /// lines follow, so that nobody takes the first command for the whole. Of a value that the script is handed stands there what its
    /// author wrote, or the value if it is known and of one line.
    #[must_use]
    pub fn script_title(&self) -> String {
        let mut lines = self.run.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = self.as_its_author_wrote(lines.next().unwrap_or_default());
        let mut title: String = first.chars().take(Self::TITLE_CHARS_MAX).collect();
        if title.len() < first.len() {
            title.push('…');
        } else if lines.next().is_some() {
            title.push_str(" …");
        }
        title
    }

    /// A line of the script without the variables that stand for `${{ }}`.
    fn as_its_author_wrote(&self, line: &str) -> String {
        let mut line = line.to_owned();
        let made = self.env.iter().filter(|(name, _)| name.starts_with(Self::EXPRESSION_VARIABLE));
        for (name, value) in made {
            let value = Some(value.as_written()).filter(|value| !value.contains(char::is_control)).unwrap_or("…");
            for stand in [format!("'\"${{{name}}}\"'"), format!("\"${{{name}}}\""), format!("${{{name}}}")] {
                line = line.replace(&stand, value);
            }
        }
        line
    }
}

/// What reads a script.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shell {
    /// `sh -e`.
    #[default]
    Sh,
    /// `bash -eo pipefail`.
    Bash,
    /// A program and its arguments; `{0}` stands for the file that holds the script.
    Custom(Vec<String>),
    /// The pipeline's own program, by the digest of its binary: it is called as `PROGRAM run JOB` and finds in the script
    /// which of its functions to run, and with what types.
    Program(crate::digest::Digest),
}

/// Where a job's steps run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// As processes of the machine, with what is installed there.
    #[default]
    Host,
    /// As processes with namespaces of their own and a read-only system.
    Sandbox {
        /// Whether they reach the network.
        #[serde(default)]
        network: Network,
    },
    /// In a container of this image.
    Image {
        /// The image's reference.
        image: Text,
        /// How its container is made.
        #[serde(default, skip_serializing_if = "is_default")]
        container: Box<Container>,
    },
    /// In a container of an image built from this file.
    Dockerfile {
        /// Relative to the project.
        dockerfile: Text,
        /// The directory that the build sees, relative to the project; empty is the project itself.
        #[serde(default, skip_serializing_if = "is_default")]
        context: Box<str>,
        /// Its build arguments.
        #[serde(default, skip_serializing_if = "is_default")]
        args: BTreeMap<String, Text>,
        /// The stage that is built; empty is the last.
        #[serde(default, skip_serializing_if = "is_default")]
        target: Box<str>,
        /// How its container is made.
        #[serde(default, skip_serializing_if = "is_default")]
        container: Box<Container>,
    },
    /// As processes of the machine, with the variables of a flake's development shell.
    Nix {
        /// The flake's reference, with the shell's attribute after `#` unless it is the default one: `.`, `.#ci`.
        nix: Text,
    },
    /// In a pod. No executor yet.
    Kubernetes {
        /// The pod's template, as the author wrote it.
        kubernetes: Value,
    },
}

/// The label of workers that have a container engine.
pub const ENGINE_LABEL: &str = "engine";

impl Environment {
    /// How its container is made, if it is one.
    #[must_use]
    pub fn container(&self) -> Option<&Container> {
        match self {
            Self::Image { container, .. } | Self::Dockerfile { container, .. } => Some(container),
            Self::Host | Self::Sandbox { .. } | Self::Nix { .. } | Self::Kubernetes { .. } => None,
        }
    }

    /// The word for people.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Sandbox { .. } => "sandbox",
            Self::Image { .. } => "image",
            Self::Dockerfile { .. } => "dockerfile",
            Self::Nix { .. } => "nix",
            Self::Kubernetes { .. } => "kubernetes",
        }
    }

    /// Its texts that may hold `${{ }}`, evaluated when a worker starts the job.
    #[must_use]
    pub fn texts(&self) -> Vec<&Text> {
        match self {
            Self::Host | Self::Sandbox { .. } | Self::Kubernetes { .. } => Vec::new(),
            Self::Image { image: text, .. } | Self::Nix { nix: text } => vec![text],
            Self::Dockerfile { dockerfile, args, .. } => args.values().chain([dockerfile]).collect(),
        }
    }

    /// The label of workers that have what it takes besides the operating system. A worker finds out by itself which of
    /// these it has.
    #[must_use]
    pub fn label(&self) -> Option<&'static str> {
        match self {
            Self::Nix { .. } => Some(crate::nix::LABEL),
            Self::Image { .. } | Self::Dockerfile { .. } => Some(ENGINE_LABEL),
            Self::Host | Self::Sandbox { .. } | Self::Kubernetes { .. } => None,
        }
    }
}

/// How the container of a job is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// The program and arguments that start the container's first process, in place of nothing: the image's own is not used.
    #[serde(skip_serializing_if = "is_default")]
    pub entrypoint: Vec<String>,
    /// The user, by name or number, with or without `:GROUP`; empty is the worker's own ids.
    #[serde(skip_serializing_if = "is_default")]
    pub user: Box<str>,
    /// Whether it reaches the network.
    #[serde(skip_serializing_if = "is_default")]
    pub network: Network,
    /// `OS/ARCHITECTURE`; empty is the engine's own.
    #[serde(skip_serializing_if = "is_default")]
    pub platform: Box<str>,
    /// When the image is fetched.
    #[serde(skip_serializing_if = "is_default")]
    pub pull: Pull,
    /// The name of a secret that holds `user:password` for the image's registry; empty is none.
    #[serde(skip_serializing_if = "is_default")]
    pub login: Box<str>,
}

/// When an image is fetched from its registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pull {
    /// Where the engine has none of this name.
    #[default]
    Missing,
    /// Once a build.
    Always,
    /// It must be there.
    Never,
}

/// A container beside the job's, which is reached by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// The image's reference.
    pub image: Text,
    /// The program and its arguments, in place of the image's `CMD`; its `ENTRYPOINT` stays. Empty is the image's own.
    #[serde(skip_serializing_if = "is_default")]
    pub command: Vec<Text>,
    /// Its environment variables, over the image's.
    #[serde(skip_serializing_if = "is_default")]
    pub env: BTreeMap<String, Text>,
    /// The TCP ports on which it must listen before the first step.
    #[serde(skip_serializing_if = "is_default")]
    pub ports: BTreeSet<u16>,
    /// A command that must pass in it before the first step.
    #[serde(skip_serializing_if = "is_default")]
    pub health: Option<Health>,
    /// Directories that it keeps in memory.
    #[serde(skip_serializing_if = "is_default")]
    pub tmpfs: BTreeSet<String>,
    /// When the image is fetched.
    #[serde(skip_serializing_if = "is_default")]
    pub pull: Pull,
    /// The name of a secret that holds `user:password` for the image's registry; empty is none.
    #[serde(skip_serializing_if = "is_default")]
    pub login: Box<str>,
}

impl Service {
    /// Its texts that may hold `${{ }}`, evaluated when a worker starts the job.
    pub fn texts(&self) -> impl Iterator<Item = &Text> {
        self.env.values().chain(&self.command).chain([&self.image])
    }
}

/// By what a service says that it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// A script for the image's `/bin/sh`; it is well when the script passes.
    pub command: Box<str>,
    /// Between two tries, in milliseconds.
    pub interval_ms: u64,
    /// The most tries.
    pub retries: u32,
}

impl Health {
    /// Between two tries, in milliseconds, if nothing is said.
    pub const INTERVAL_MS: u64 = 1000;
    /// The most tries, if nothing is said.
    pub const RETRIES: u32 = 60;
    /// The most tries that a pipeline may ask for.
    pub const RETRIES_MAX: u32 = 10_000;
}

/// Whether a sandbox or a container reaches the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// As the machine does.
    #[default]
    On,
    /// Loopback only.
    Off,
}

/// Which files a job's steps see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceKind {
    /// The job's own copy of what git tracks and of untracked files that are not ignored.
    #[default]
    Isolated,
    /// The user's tree itself.
    InPlace,
}

/// Whether, and on what, an earlier result of a job may be reused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// It runs every time.
    #[default]
    Never,
    /// Its result depends on these files of the tree, by glob; none if empty.
    Inputs(Vec<String>),
    /// Its result depends on the whole tree.
    Tree,
}

/// A directory, or several, kept across builds under a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheUse {
    /// Written once per key, after the job has passed.
    pub key: Text,
    /// Prefixes tried in order, newest entry first, when there is no entry of the key itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restore: Vec<Text>,
    /// Paths relative to the workspace, or under the home directory with `~/`.
    pub paths: Vec<String>,
}

/// Reports to read when a job has ended, passed or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reports {
    /// Globs of JUnit XML files.
    #[serde(skip_serializing_if = "is_default")]
    pub junit: Vec<String>,
}

/// When to try again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// The most further tries.
    pub max: u32,
    /// Failures that are tried again.
    pub on: Vec<RetryOn>,
    /// Wait before the first further try, in milliseconds; doubled each time, at most [`Retry::BACKOFF_MS_MAX`].
    pub backoff_ms: u64,
}

impl Retry {
    /// The longest wait between tries.
    pub const BACKOFF_MS_MAX: u64 = 10 * 60 * 1000;
    /// The largest `max` a pipeline may ask for.
    pub const MAX_MAX: u32 = 100;

    /// Whether `failure` of try number `number` (from 1) is tried again.
    #[must_use]
    pub fn admits(&self, failure: &Failure, number: u32) -> bool {
        number <= self.max
            && self.on.iter().any(|on| match (on, failure) {
                (RetryOn::Infra, Failure::Infra { .. })
                | (RetryOn::Lost, Failure::Lost)
                | (RetryOn::Timeout, Failure::Timeout { .. })
                | (RetryOn::Step, Failure::Step { .. }) => true,
                (RetryOn::Exit(codes), Failure::Step { exit, .. }) => codes.contains(exit),
                _ => false,
            })
    }

    /// What holds for a job that does not say. Of one with a gate a single run was approved, and nobody knows how far it came when its worker
    /// fell silent: it is not tried again.
    #[must_use]
    pub fn unasked(has_gate: bool) -> Self {
        if has_gate { Self { on: vec![RetryOn::Infra], ..Self::default() } } else { Self::default() }
    }

    /// The wait after try number `number` (from 1), in milliseconds.
    #[must_use]
    pub fn wait_ms(&self, number: u32) -> u64 {
        let doublings = number.saturating_sub(1).min(32);
        self.backoff_ms.saturating_mul(1 << doublings).min(Self::BACKOFF_MS_MAX)
    }
}

impl Default for Retry {
    /// Twice for what is not the job's fault, after one second and after two.
    fn default() -> Self {
        Self { max: 2, on: vec![RetryOn::Infra, RetryOn::Lost], backoff_ms: 1000 }
    }
}

/// A kind of failure that is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// The infrastructure's fault.
    Infra,
    /// A worker that fell silent.
    Lost,
    /// A limit on time.
    Timeout,
    /// Any step that failed.
    Step,
    /// A step that ended with one of these codes.
    Exit(Vec<i32>),
}

/// A person's approval; its answer is a typed value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gate {
    /// The question asked.
    pub prompt: Text,
    /// What to fill in, by name.
    #[serde(skip_serializing_if = "is_default")]
    pub fields: BTreeMap<String, Field>,
}

/// A group in which only one job runs at a time, over all builds of a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// The group's name.
    pub group: Text,
    /// What happens to a job that finds the group taken.
    #[serde(default)]
    pub mode: ConcurrencyMode,
}

/// What happens when a job finds its concurrency group taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConcurrencyMode {
    /// Jobs wait in order of arrival; none is dropped.
    #[default]
    Queue,
    /// Jobs that wait are canceled; the one that runs goes on.
    CancelWaiting,
    /// The job that runs is canceled too.
    CancelRunning,
}

/// What a job asks of its worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Thousandths of a core; zero takes the worker's default.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_milli: u64,
    /// Bytes of memory; zero takes the worker's default.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_bytes: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::{Environment, Job, Step};

    #[test]
    fn what_a_job_asks_of_a_worker_by_itself() {
        let check = |job: Job, expected: &[&str]| {
            assert_eq!(job.wanted_labels().iter().map(String::as_str).collect::<Vec<_>>(), expected);
        };
        let labels = [String::from("fast")].into();
        let build = Step { nix_build: vec![".".to_owned()], ..Step::default() };
        check(Job::default(), &[]);
        check(Job { labels, environment: Environment::Nix { nix: ".".into() }, ..Job::default() }, &["fast", "nix"]);
        check(Job { steps: vec![Step::default(), build], ..Job::default() }, &["nix"]);
    }

    #[test]
    fn what_a_step_without_a_name_is_called() {
        let long = "x".repeat(101);
        let check = |run: &str, expected: &str| {
            assert_eq!(Step { run: run.into(), ..Step::default() }.script_title(), expected);
        };
        check("", "");
        check("\n  make  \n\n", "make");
        check("make\nmake install", "make …");
        check(&long[1..], &long[1..]);
        check(&format!("{long}\nmore"), &format!("{}…", &long[1..]));
        let step = Step {
            run: "a \"${ROPEWALK_EXPR_1}\" \"of ${ROPEWALK_EXPR_2}\" 'x'\"${ROPEWALK_EXPR_1}\"'' \"${HOME}\"".into(),
            env: [
                ("ROPEWALK_EXPR_1".to_owned(), crate::Text::Template("${{ gate.x }}".into())),
                ("ROPEWALK_EXPR_2".to_owned(), crate::Text::Plain("main".into())),
            ]
            .into(),
            ..Step::default()
        };
        assert_eq!(step.script_title(), "a ${{ gate.x }} \"of main\" 'x${{ gate.x }}' \"${HOME}\"");
    }
}
