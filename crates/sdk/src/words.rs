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
        let word = match network {
            Network::On => "on",
            Network::Off => "off",
        };
        Self(Json::object([("sandbox", Json::object([("network", word.into())]))]))
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
