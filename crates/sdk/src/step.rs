//! One step of a job: a script, or what Nix builds.

use std::panic::Location;
use std::time::Duration;

use crate::json::Json;
use crate::mark::{Files, Mark, Settings};
use crate::texts::Texts;
use crate::words;

/// One script of a job, or a build by Nix, with what is said of it.
#[derive(Clone, Debug)]
pub struct Step {
    settings: Settings,
    mark: Mark,
}

impl Step {
    /// This script, run by the job's shell. Its `${{ }}` arrive through environment variables.
    #[track_caller]
    #[must_use]
    pub fn sh(script: impl Into<String>) -> Self {
        let mark = Location::caller();
        let mut settings = Settings::default();
        settings.set("run", Json::Text(script.into()), mark);
        Self { settings, mark }
    }

    /// What Nix builds: installables such as `.#app`. Each derivation is reported by itself, and the store path of each
    /// installable is an output of the step under the last part of its attribute.
    #[track_caller]
    #[must_use]
    pub fn nix_build(installables: impl Texts) -> Self {
        let mark = Location::caller();
        let mut settings = Settings::default();
        settings.set("nix_build", one_or_list(installables), mark);
        Self { settings, mark }
    }

    /// Another build, as the format says it.
    #[track_caller]
    pub(crate) fn build(child: Json) -> Self {
        let mark = Location::caller();
        let mut settings = Settings::default();
        settings.set("build", child, mark);
        Self { settings, mark }
    }

    /// Shown to people. Without it: the script's first line.
    #[track_caller]
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        self.put("name", Json::Text(name.into()))
    }

    /// The name by which later steps find it: `${{ steps.ID.outputs.NAME }}`.
    #[track_caller]
    #[must_use]
    pub fn id(self, id: impl Into<String>) -> Self {
        self.put("id", Json::Text(id.into()))
    }

    /// An expression; the step is skipped where it does not hold. Without it: `success()`.
    #[track_caller]
    #[must_use]
    pub fn run_if(self, expression: impl Into<String>) -> Self {
        self.put("if", Json::Text(expression.into()))
    }

    /// An environment variable of this step; may hold `${{ }}`.
    #[track_caller]
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<Json>) -> Self {
        self.settings.insert("env", name.into(), value.into(), Location::caller());
        self
    }

    /// Where the script runs, relative to the repository's root; may hold `${{ }}`.
    #[track_caller]
    #[must_use]
    pub fn working_directory(self, path: impl Into<String>) -> Self {
        self.put("working_directory", Json::Text(path.into()))
    }

    /// What reads the script: `bash`, or a command such as `python3 {0}`.
    #[track_caller]
    #[must_use]
    pub fn shell(self, shell: impl Texts) -> Self {
        self.put("shell", one_or_list(shell))
    }

    /// Limit on its running time.
    #[track_caller]
    #[must_use]
    pub fn timeout(self, limit: Duration) -> Self {
        self.put("timeout", words::duration(limit))
    }

    /// A failure of this step is only a warning.
    #[track_caller]
    #[must_use]
    pub fn allow_failure(self) -> Self {
        self.put("allow_failure", Json::Bool(true))
    }

    /// Values that this step hands on.
    #[track_caller]
    #[must_use]
    pub fn outputs(self, names: impl Texts) -> Self {
        self.put("outputs", names.texts().into())
    }

    #[track_caller]
    fn put(mut self, key: &'static str, value: Json) -> Self {
        self.settings.set(key, value, Location::caller());
        self
    }

    pub(crate) fn json(self, files: &mut Files) -> Json {
        self.settings.json(self.mark, files)
    }
}

impl From<&str> for Step {
    #[track_caller]
    fn from(script: &str) -> Self {
        Self::sh(script)
    }
}

impl From<String> for Step {
    #[track_caller]
    fn from(script: String) -> Self {
        Self::sh(script)
    }
}

/// A text alone, or several as a list.
pub(crate) fn one_or_list(texts: impl Texts) -> Json {
    let mut texts = texts.texts();
    if texts.len() == 1 { Json::Text(texts.remove(0)) } else { texts.into() }
}
