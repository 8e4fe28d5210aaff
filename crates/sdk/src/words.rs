//! Values that keys of the native format take: where steps run, when to try again, what is kept.

use std::time::Duration;

use crate::json::Json;
use crate::texts::Texts;

/// Where the steps run.
#[derive(Clone, Debug, PartialEq)]
pub struct Environment(pub(crate) Json);

impl Environment {
    /// Processes of the machine, with what is installed there.
    #[must_use]
    pub fn host() -> Self {
        Self("host".into())
    }

    /// Processes with namespaces of their own and a read-only system.
    #[must_use]
    pub fn sandbox(network: Network) -> Self {
        Self(Json::object([("sandbox", Json::object([("network", network.word().into())]))]))
    }

    /// A container of this image; may hold `${{ }}`.
    #[must_use]
    pub fn image(name: impl Into<String>) -> Self {
        Self(Json::object([("image", Json::Text(name.into()))]))
    }

    /// A container of the image that this file builds; may hold `${{ }}`.
    #[must_use]
    pub fn dockerfile(path: impl Into<String>) -> Self {
        Self(Json::object([("dockerfile", Json::Text(path.into()))]))
    }

    /// The development shell of this flake: `.`, `.#ci`; may hold `${{ }}`.
    #[must_use]
    pub fn nix(flake: impl Into<String>) -> Self {
        Self(Json::object([("nix", Json::Text(flake.into()))]))
    }

    /// A pod after this template.
    #[must_use]
    pub fn kubernetes(template: Json) -> Self {
        Self(Json::object([("kubernetes", template)]))
    }
}

/// Settings of containers: of [`Environment::image`] and [`Environment::dockerfile`].
impl Environment {
    /// `dockerfile`: the directory that the build sees, relative to the project. Without it: the project's.
    #[must_use]
    pub fn context(self, directory: impl Into<String>) -> Self {
        self.with("context", Json::Text(directory.into()))
    }

    /// `dockerfile`: an argument of the build; may hold `${{ }}`.
    #[must_use]
    pub fn arg(mut self, name: impl Into<String>, value: impl Into<Json>) -> Self {
        if let Json::Object(entries) = &mut self.0 {
            let entry = (name.into(), value.into());
            match entries.iter_mut().find(|(key, _)| key == "args") {
                Some((_, Json::Object(args))) => args.push(entry),
                _ => entries.push(("args".to_owned(), Json::Object(vec![entry]))),
            }
        }
        self
    }

    /// `dockerfile`: the stage that is built. Without it: the last.
    #[must_use]
    pub fn target(self, stage: impl Into<String>) -> Self {
        self.with("target", Json::Text(stage.into()))
    }

    /// The program and arguments that start the container's first process; the image's own is not used.
    #[must_use]
    pub fn entrypoint(self, words: impl Texts) -> Self {
        self.with("entrypoint", words.texts().into())
    }

    /// The user of the steps, with or without `:GROUP`. Without it: the ids of the worker.
    #[must_use]
    pub fn user(self, user: impl Into<String>) -> Self {
        self.with("user", Json::Text(user.into()))
    }

    /// Whether the container reaches the network.
    #[must_use]
    pub fn network(self, network: Network) -> Self {
        self.with("network", network.word().into())
    }

    /// `OS/ARCHITECTURE`, such as `linux/arm64`. Without it: the engine's own.
    #[must_use]
    pub fn platform(self, platform: impl Into<String>) -> Self {
        self.with("platform", Json::Text(platform.into()))
    }

    /// `image`: when it is fetched. Without it: where the engine has none of this name.
    #[must_use]
    pub fn pull(self, pull: Pull) -> Self {
        self.with("pull", pull.word().into())
    }

    /// The name of a secret that holds `user:password` for the image's registry.
    #[must_use]
    pub fn login(self, secret: impl Into<String>) -> Self {
        self.with("login", Json::Text(secret.into()))
    }

    fn with(mut self, key: &str, value: Json) -> Self {
        if let Json::Object(entries) = &mut self.0 {
            entries.retain(|(name, _)| name != key);
            entries.push((key.to_owned(), value));
        }
        self
    }
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// Where the engine has no image of this name.
    Missing,
    /// Once a build.
    Always,
    /// The image must be there.
    Never,
}

impl Pull {
    fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// A container beside the job's own, which its steps reach by its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Service(pub(crate) Vec<(String, Json)>);

impl Service {
    /// A container of this image; may hold `${{ }}`.
    #[must_use]
    pub fn image(name: impl Into<String>) -> Self {
        Self(vec![("image".to_owned(), Json::Text(name.into()))])
    }

    /// What it runs instead of the image's `CMD`: the program and its arguments, a text each; may hold `${{ }}`.
    #[must_use]
    pub fn command(self, words: impl Texts) -> Self {
        self.with("command", words.texts().into())
    }

    /// An environment variable of it; may hold `${{ }}`.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<Json>) -> Self {
        let entry = (name.into(), value.into());
        match self.0.iter_mut().find(|(key, _)| key == "env") {
            Some((_, Json::Object(env))) => env.push(entry),
            _ => self.0.push(("env".to_owned(), Json::Object(vec![entry]))),
        }
        self
    }

    /// TCP ports on which it must listen before the first step.
    #[must_use]
    pub fn ports(self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.with("ports", Json::List(ports.into_iter().map(Json::from).collect()))
    }

    /// A script for its `/bin/sh` that must pass before the first step, asked at most `retries` times with this wait between.
    #[must_use]
    pub fn health(self, command: impl Into<String>, interval: Duration, retries: u16) -> Self {
        let health =
            [("command", Json::Text(command.into())), ("interval", duration(interval)), ("retries", retries.into())];
        self.with("health", Json::object(health))
    }

    /// Directories that it keeps in memory.
    #[must_use]
    pub fn tmpfs(self, directories: impl Texts) -> Self {
        self.with("tmpfs", directories.texts().into())
    }

    /// When its image is fetched. Without it: where the engine has none of this name.
    #[must_use]
    pub fn pull(self, pull: Pull) -> Self {
        self.with("pull", pull.word().into())
    }

    /// The name of a secret that holds `user:password` for the image's registry.
    #[must_use]
    pub fn login(self, secret: impl Into<String>) -> Self {
        self.with("login", Json::Text(secret.into()))
    }

    fn with(mut self, key: &str, value: Json) -> Self {
        self.0.retain(|(name, _)| name != key);
        self.0.push((key.to_owned(), value));
        self
    }
}

impl Network {
    fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// Whether a sandbox reaches the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// As the machine reaches it.
    On,
    /// Loopback only.
    Off,
}

/// Which files the steps see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workspace {
    /// The job's own copy of what git tracks and of untracked files that are not ignored.
    Isolated,
    /// The user's tree itself.
    InPlace,
}

/// Whether an earlier result is taken where nothing that the job depends on changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It is: by the input files or else the whole tree, even with secrets or a gate.
    Always,
    /// The job runs every time.
    Never,
}

/// When to try again.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry(pub(crate) Vec<(String, Json)>);

impl Retry {
    /// At most so many further tries, up to 100.
    #[must_use]
    pub fn times(max: u8) -> Self {
        Self(vec![("max".to_owned(), max.into())])
    }

    /// After which failures. Without it: after those of the infrastructure, and lost workers.
    #[must_use]
    pub fn on(mut self, failures: impl IntoIterator<Item = RetryOn>) -> Self {
        let failures = failures.into_iter().map(RetryOn::json).collect();
        self.0.push(("on".to_owned(), Json::List(failures)));
        self
    }

    /// The wait before the first further try, doubled each time. Without it: one second.
    #[must_use]
    pub fn backoff(mut self, wait: Duration) -> Self {
        self.0.push(("backoff".to_owned(), duration(wait)));
        self
    }
}

impl From<u8> for Retry {
    fn from(max: u8) -> Self {
        Self::times(max)
    }
}

/// A failure that is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    Exit(Vec<u8>),
}

impl RetryOn {
    fn json(self) -> Json {
        match self {
            Self::Infra => "infra".into(),
            Self::Lost => "lost".into(),
            Self::Timeout => "timeout".into(),
            Self::Step => "step".into(),
            Self::Exit(codes) => Json::object([("exit", codes.into())]),
        }
    }
}

/// Directories kept across builds under a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Cache(pub(crate) Vec<(String, Json)>);

impl Cache {
    /// These paths, relative to the repository's root or under the home directory with `~/`, written once per key after the job has passed. The key
    /// may hold `${{ }}`, such as `cargo-${{ hash_files('Cargo.lock') }}`.
    #[must_use]
    pub fn new(key: impl Into<String>, paths: impl Texts) -> Self {
        Self(vec![("key".to_owned(), Json::Text(key.into())), ("paths".to_owned(), paths.texts().into())])
    }

    /// Prefixes of keys, tried in order where there is no entry of the key itself.
    #[must_use]
    pub fn restore(mut self, prefixes: impl Texts) -> Self {
        self.0.push(("restore".to_owned(), prefixes.texts().into()));
        self
    }
}

/// A group in which only one job runs at a time, over all builds.
#[derive(Clone, Debug, PartialEq)]
pub struct Concurrency(pub(crate) Json);

impl Concurrency {
    /// Jobs of this group wait in order of arrival. The name may hold `${{ }}`.
    #[must_use]
    pub fn queue(group: impl Into<String>) -> Self {
        Self::group(group.into(), "queue")
    }

    /// A job that finds the group taken cancels those that wait; the one that runs goes on.
    #[must_use]
    pub fn cancel_waiting(group: impl Into<String>) -> Self {
        Self::group(group.into(), "cancel_waiting")
    }

    /// A job that finds the group taken cancels the one that runs too.
    #[must_use]
    pub fn cancel_running(group: impl Into<String>) -> Self {
        Self::group(group.into(), "cancel_running")
    }

    fn group(group: String, mode: &str) -> Self {
        Self(Json::object([("group", group.into()), ("mode", mode.into())]))
    }
}

impl From<&str> for Concurrency {
    fn from(group: &str) -> Self {
        Self::queue(group)
    }
}

impl From<String> for Concurrency {
    fn from(group: String) -> Self {
        Self::queue(group)
    }
}

/// The combinations that a job runs for: axes, each with its values. Values are anything that becomes JSON; in place of a list of them stands an
/// expression such as `${{ fromJSON(needs.plan.outputs.shards) }}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix(pub(crate) Json);

impl Matrix {
    /// No axes yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Json::Object(Vec::new()))
    }

    /// All of the matrix from an expression: `${{ fromJSON(needs.plan.outputs.matrix) }}`.
    #[must_use]
    pub fn expression(text: impl Into<String>) -> Self {
        Self(Json::Text(text.into()))
    }

    /// An axis: a list of values, or an expression that gives one.
    #[must_use]
    pub fn axis(self, name: &str, values: impl Into<Json>) -> Self {
        self.with(name, values.into())
    }

    /// Adds these values to the combinations whose axes they fit; where they fit none they are one of their own.
    #[must_use]
    pub fn include<'a, V: Into<Json>>(self, values: impl IntoIterator<Item = (&'a str, V)>) -> Self {
        self.listed("include", values)
    }

    /// Takes out the combinations that have all these values.
    #[must_use]
    pub fn exclude<'a, V: Into<Json>>(self, values: impl IntoIterator<Item = (&'a str, V)>) -> Self {
        self.listed("exclude", values)
    }

    fn listed<'a, V: Into<Json>>(mut self, key: &str, values: impl IntoIterator<Item = (&'a str, V)>) -> Self {
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let Json::Object(entries) = &mut self.0 else { return self };
        match entries.iter_mut().find(|(name, _)| name == key) {
            Some((_, Json::List(items))) => items.push(Json::Object(values)),
            _ => entries.push((key.to_owned(), Json::List(vec![Json::Object(values)]))),
        }
        self
    }

    fn with(mut self, key: &str, value: Json) -> Self {
        if let Json::Object(entries) = &mut self.0 {
            entries.retain(|(name, _)| name != key);
            entries.push((key.to_owned(), value));
        }
        self
    }
}

/// A duration as the native format has it: `1h30m`. Rounded up to whole milliseconds.
pub(crate) fn duration(duration: Duration) -> Json {
    let mut rest = duration.as_nanos().div_ceil(1_000_000);
    let mut text = String::new();
    for (unit, factor) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= factor {
            text.push_str(&format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    if text.is_empty() { "0s".into() } else { text.into() }
}
