//! What an attempt leaves for a person who looks into it afterwards: the variables, the directory and the files of each step.
//!
//! The files of a step are kept when the next one is about to run, and not before: those of the last step are the workspace itself.
//! A job of one step pays nothing for it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use graph::{Digest, Environment, Failure, Shell, Step, WorkspaceKind};
use serde::{Deserialize, Serialize};

use super::{Attempt, blocking, infrastructure, number};
use crate::container::LeftContainer;
use crate::depot::Secrets;
use crate::path_text;
use crate::place::{Place, workspace_directory};
use crate::variables::Variables;
use crate::withheld;
use crate::workspace::{Layer, StepLayers, TEMPORARY, Unkept};

/// What is kept of an attempt beside its files, for a person's shell. Holds no secret. Old fields stay; new ones have defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeftBehind {
    /// The environment of the last step that was to start.
    pub variables: BTreeMap<String, String>,
    /// Its directory, as seen inside the workspace; the workspace's root, as for every step, if a secret stands in it.
    #[serde(with = "path_text")]
    pub directory: PathBuf,
    /// Where the steps ran.
    #[serde(default)]
    pub environment: Environment,
    /// The container that they ran in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<LeftContainer>,
    /// The programs that steps were functions of.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub programs: BTreeSet<Digest>,
    /// The names of secrets that the steps had. Their variables are not kept.
    #[serde(default)]
    pub withheld: BTreeSet<String>,
    /// The files before the first step.
    #[serde(default = "unknown")]
    pub start: Layer,
    /// The steps that ran, in their order. Empty in what was kept before there were any.
    #[serde(default)]
    pub steps: Vec<LeftStep>,
    /// The step that failed first.
    #[serde(default)]
    pub failed: Option<u16>,
    /// What is different since its layers came from another worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<Arrived>,
}

/// What is different in layers that came from another worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Arrived {
    /// The files at the end, which are not the workspace itself.
    pub end: Layer,
    /// What people should know who enter, in words that go on from "as step 1 left them".
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What is kept of a step that ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeftStep {
    /// Its place among the job's steps, from 0.
    pub step: u16,
    /// Its name, without secrets.
    pub name: String,
    /// What `${{ steps.ID }}` calls it. Unknown in what was kept before it was noted, and passed over by who read that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its files at its end.
    pub layer: Layer,
    /// Its directory.
    #[serde(with = "path_text")]
    pub directory: PathBuf,
    /// Its variables that are not those of the last step; `None` if it had none of the name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub differs: BTreeMap<String, Option<String>>,
}

fn unknown() -> Layer {
    Layer::Unkept("it is from a version of ropewalk that kept the end alone".to_owned())
}

impl LeftStep {
    /// Its variables, from those of the last step.
    #[must_use]
    pub fn variables(&self, last: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut variables = last.clone();
        for (name, value) in &self.differs {
            match value {
                Some(value) => variables.insert(name.clone(), value.clone()),
                None => variables.remove(name),
            };
        }
        variables
    }
}

/// What is known so far.
#[derive(Default)]
pub(super) struct Left {
    /// `None` where the files of steps are not kept.
    layers: Option<StepLayers>,
    /// Why they are not.
    why_not: &'static str,
    container: Option<LeftContainer>,
    start: Option<Layer>,
    steps: Vec<Ran>,
    failed: Option<u16>,
    /// The steps that were not kept because of a bound or the system, from 0; and the first reason.
    missed: Vec<u16>,
    reason: Option<String>,
}

/// A step that ran.
struct Ran {
    step: u16,
    name: String,
    layer: Layer,
    found: Option<Arc<(Variables, PathBuf)>>,
}

impl Left {
    /// The steps run in a container.
    pub(super) fn note_container(&mut self, container: LeftContainer) {
        self.container = Some(container);
    }

    /// A step failed; the first one counts.
    pub(super) fn note_failure(&mut self, step: u16) {
        self.failed.get_or_insert(step);
    }
}

impl Attempt<'_> {
    pub(super) fn begin_to_keep(&mut self, place: &Place) {
        match place.layered() {
            Some(_) if self.worker.settings.steps.build_bytes == 0 => {
                self.left.why_not = "this installation keeps none ($ROPEWALK_KEEP_STEPS_BYTES)";
            }
            Some(directory) => self.left.layers = Some(StepLayers::new(directory)),
            None => self.left.why_not = "the workspace is a copy at another path, of which the end alone is kept",
        }
    }

    /// Notes that the attempt has secrets, before any step can write one: what it leaves is not entered without them until
    /// [`Attempt::find_withheld`] has looked.
    pub(super) async fn note_secrets(&mut self) -> Result<(), ()> {
        let Some((directory, secrets)) = self.withholding() else { return Ok(()) };
        let noted = blocking(move || withheld::begin(&directory, &secrets)).await;
        noted.map_err(|error| {
            self.fail(Failure::Infra { message: infrastructure("note that the job has secrets", &error) })
        })
    }

    /// Finds out which of the files that the attempt leaves hold a secret.
    pub(super) async fn find_withheld(&mut self) {
        let Some((directory, secrets)) = self.withholding() else { return };
        if let Err(error) = blocking(move || withheld::find(&directory, &secrets)).await {
            self.note(format!(
                "a shell in this workspace needs the job's secrets: its files were not looked through for them: {error}"
            ));
        }
    }

    /// The workspace of an attempt that has secrets and leaves files.
    fn withholding(&self) -> Option<(PathBuf, Secrets)> {
        let is_own = self.spec.job.workspace == WorkspaceKind::Isolated && self.secrets.mask.is_some();
        let data = &self.worker.settings.data;
        is_own.then(|| (workspace_directory(data, self.spec.build, self.spec.attempt), self.secrets.clone()))
    }

    /// Keeps the files as the step left them that ran last, or as they are before the first: another is about to run.
    pub(super) async fn keep_files(&mut self) {
        if self.spec.job.workspace == WorkspaceKind::InPlace {
            return;
        }
        let layer = match self.left.steps.last() {
            Some(_) => self.keep_layer().await,
            None if !self.is_given_files() => Layer::Nothing,
            None if self.spec.job.steps.len() > 1 => self.keep_layer().await,
            None => Layer::Unkept(
                "what a job of one step is given (artifacts, caches) is not kept apart from what it does with it"
                    .to_owned(),
            ),
        };
        match self.left.steps.last_mut() {
            Some(last) => last.layer = layer,
            None => self.left.start = Some(layer),
        }
    }

    /// Whether something was laid into the workspace before the first step.
    fn is_given_files(&self) -> bool {
        !self.caches.is_empty() || self.spec.needs.values().any(|need| !need.artifacts.is_empty())
    }

    async fn keep_layer(&mut self) -> Layer {
        let Some(mut layers) = self.left.layers.take() else { return Layer::Unkept(self.left.why_not.to_owned()) };
        // One look at an empty directory is quicker than another thread.
        let kept = if layers.is_untouched() {
            Ok(Layer::Nothing)
        } else {
            let budget = Arc::clone(&self.worker.budget);
            let work = move || {
                let kept = layers.keep(&budget);
                (layers, kept)
            };
            let kept;
            (layers, kept) = blocking(work).await;
            kept
        };
        self.left.layers = Some(layers);
        kept.unwrap_or_else(|unkept| self.miss(&unkept))
    }

    fn miss(&mut self, unkept: &Unkept) -> Layer {
        let reason = self.secrets.hide(unkept.to_string());
        if let Some(last) = self.left.steps.last() {
            self.left.missed.push(last.step);
        }
        self.left.reason.get_or_insert_with(|| reason.clone());
        Layer::Unkept(reason)
    }

    /// A step has ended.
    pub(super) fn leave(&mut self, index: usize, name: &str) {
        if self.spec.job.workspace == WorkspaceKind::Isolated {
            let (step, name, found) = (number(index), name.to_owned(), self.found.clone());
            self.left.steps.push(Ran { step, name, layer: Layer::End, found });
        }
    }

    /// Writes what is known of the steps, without secrets, beside the workspace's files.
    pub(super) fn keep_left(&mut self, place: &Place) {
        let left = std::mem::take(&mut self.left);
        if let Some(reason) = &left.reason {
            self.note(missed_note(&left.missed, reason));
        }
        for path in left.layers.iter().flat_map(StepLayers::unreadable) {
            let shown = match path.strip_prefix(TEMPORARY) {
                Ok(below) => Path::new("/tmp").join(below),
                Err(_) => path.components().skip(1).collect(),
            };
            let shown = shown.display();
            self.note(format!(
                "`ropewalk shell` cannot show what steps of this job left in `{shown}`: its owner or mode does not let Ropewalk read it"
            ));
        }
        if let Some(Err(error)) = left.layers.as_ref().map(StepLayers::account) {
            self.note(format!("what is kept of the steps could not be accounted for: {error}"));
        }
        let Some(found) = self.found.take() else { return };
        let data = &self.worker.settings.data;
        let path = crate::place::environment_file(data, self.spec.build, self.spec.attempt);
        let left = self.left_behind(left, &found, place.root());
        let written =
            serde_json::to_vec(&left).map_err(std::io::Error::from).and_then(|text| std::fs::write(&path, text));
        if let Err(error) = written {
            self.note(format!("a shell in this workspace will lack the job's variables: {error}"));
        }
    }

    fn left_behind(&self, left: Left, found: &Arc<(Variables, PathBuf)>, root: &Path) -> LeftBehind {
        let shown = |directory: &Path| match self.is_told(directory.as_os_str()) {
            true => directory.to_owned(),
            false => root.to_owned(),
        };
        let variables = self.without_secrets(&found.0);
        let failed = left.failed.or_else(|| self.failure.as_ref().and(left.steps.last()).map(|ran| ran.step));
        let step = |ran: Ran| {
            let (differs, directory) = match &ran.found {
                Some(here) if here.0.iter().eq(found.0.iter()) => (BTreeMap::new(), shown(&here.1)),
                Some(here) => (differences(&variables, &self.without_secrets(&here.0)), shown(&here.1)),
                None => (BTreeMap::new(), shown(&found.1)),
            };
            let id = self.spec.job.steps.get(usize::from(ran.step)).and_then(|step| step.id.as_deref());
            LeftStep { step: ran.step, name: ran.name, id: id.map(str::to_owned), layer: ran.layer, directory, differs }
        };
        LeftBehind {
            directory: shown(&found.1),
            environment: self.spec.job.environment.clone(),
            container: left.container,
            programs: self.spec.job.steps.iter().filter_map(program).collect(),
            withheld: self.secrets.values.keys().cloned().collect(),
            start: left.start.unwrap_or_else(unknown),
            steps: left.steps.into_iter().map(step).collect(),
            failed,
            arrived: None,
            variables,
        }
    }

    /// Whether no secret stands in it.
    fn is_told(&self, text: &OsStr) -> bool {
        let mask = self.secrets.mask.as_deref();
        mask.is_none_or(|mask| matches!(mask.mask(text.as_bytes()), Cow::Borrowed(_)))
    }

    fn without_secrets(&self, variables: &Variables) -> BTreeMap<String, String> {
        let text = |value: &OsStr| self.secrets.hide(value.to_string_lossy().into_owned());
        variables
            .iter()
            .filter(|(name, _)| !self.secrets.values.contains_key(&*name.to_string_lossy()) && self.is_told(name))
            .map(|(name, value)| (name.to_string_lossy().into_owned(), text(value)))
            .collect()
    }
}

/// The program that a step is a function of.
fn program(step: &Step) -> Option<Digest> {
    match step.shell {
        Shell::Program(digest) => Some(digest),
        _ => None,
    }
}

/// What of `here` is not in `last`, and what it lacks.
fn differences(last: &BTreeMap<String, String>, here: &BTreeMap<String, String>) -> BTreeMap<String, Option<String>> {
    let gone = last.keys().filter(|name| !here.contains_key(*name)).map(|name| (name.clone(), None));
    let other = here.iter().filter(|(name, value)| last.get(*name) != Some(value));
    gone.chain(other.map(|(name, value)| (name.clone(), Some(value.clone())))).collect()
}

/// The most numbers of steps in one note.
const STEPS_NAMED_MAX: usize = 10;

fn missed_note(missed: &[u16], reason: &str) -> String {
    let mut numbers: Vec<String> =
        missed.iter().take(STEPS_NAMED_MAX).map(|step| (u32::from(*step) + 1).to_string()).collect();
    if missed.len() > numbers.len() {
        numbers.push("…".to_owned());
    }
    let what = match missed {
        [] => "the state before the first step".to_owned(),
        [_] => format!("step {}", numbers[0]),
        _ => format!("steps {}", numbers.join(", ")),
    };
    format!("`ropewalk shell` cannot open {what} of this job: {reason}")
}
