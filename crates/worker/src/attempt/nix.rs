//! A job in a flake's development shell, and steps that Nix builds.
//!
//! The shell is evaluated once, in the job's workspace, when the first step is to run: what is printed meanwhile stands in
//! that step's log, its limits and cancels are the step's, and a flake that cannot be evaluated fails that step.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use graph::{Environment, Failure, Step, StepResult, TestCase};

use super::command::{Unstarted, largest_variable};
use super::steps::Done;
use super::{Attempt, infrastructure};
use crate::keeper::Command;
use crate::nix::log::{NixLog, SharedHeard, lock as lock_heard};
use crate::nix::report::{self, Ended};
use crate::nix::{self, BUILD_SCRIPT, SHELL_SCRIPT, Shell};
use crate::output::{Recorder, SharedRecorder, lock};
use crate::place::Place;
use crate::reports::TESTS_MAX;

/// What Nix does for one attempt.
#[derive(Default)]
pub(super) struct OfNix {
    /// The job's shell, once it was evaluated.
    pub(super) shell: Option<Shell>,
    /// Store paths of what was built, by the name under which they are handed on.
    pub(super) built: std::collections::BTreeMap<String, String>,
    /// Where links keep all that from the collector of garbage; made for the first that needs it.
    directory: Option<Directory>,
}

/// A directory that ends with its attempt.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Attempt<'_> {
    /// A directory of this attempt, beside its slot.
    fn nix_directory(&mut self) -> Result<PathBuf, Unstarted> {
        if let Some(Directory(path)) = &self.nix.directory {
            return Ok(path.clone());
        }
        let Some(slot) = &self.slot else { return Err(Unstarted::Machine("no place for a shell".to_owned())) };
        let path = slot.directory().with_extension("nix");
        // What an attempt left whose process was killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("tmp")).map_err(|error| {
            Unstarted::Machine(infrastructure(&format!("cannot make `{}`", path.display()), &error))
        })?;
        self.nix.directory = Some(Directory(path.clone()));
        Ok(path)
    }

    /// Whether the next step that runs has the job's shell evaluated first.
    pub(super) fn needs_shell(&self) -> bool {
        matches!(self.spec.job.environment, Environment::Nix { .. }) && self.nix.shell.is_none()
    }

    /// Evaluates the job's development shell. Afterwards `done` says whether the step may
    /// begin: its result is `passed`.
    pub(super) async fn begin_shell(
        &mut self,
        place: &Place,
        index: usize,
        step: &Step,
        recorder: &SharedRecorder,
        done: &mut Done,
    ) {
        let job = Arc::clone(&self.spec.job);
        let Environment::Nix { nix } = &job.environment else { return };
        done.report.result = StepResult::Failed;
        let reference = match self.evaluate(nix).await {
            Ok(reference) => reference,
            Err(fault) => {
                let fault = format!("environment: {fault}");
                done.failure = Some(self.broken(index, recorder, super::EXIT_BROKEN, &fault));
                return;
            }
        };
        let (command, directory) = match self.shell_command(place, &reference) {
            Ok(ready) => ready,
            Err(unstarted) => {
                done.failure = Some(self.unstarted(index, recorder, unstarted));
                return;
            }
        };
        let before = command.environment.clone();
        let largest = largest_variable(&before);
        let (went, limit) = self.watch(step, recorder, command).await;
        self.judge(index, recorder, went, limit, largest, done);
        if done.report.result != StepResult::Passed {
            if let Some(Failure::Step { exit, .. }) = done.failure {
                let fault = format!("the development shell `{reference}` could not be had (exit code {exit})");
                done.failure = Some(self.broken(index, recorder, exit, &fault));
            }
            return;
        }
        match Shell::read(&directory, &before) {
            Ok(shell) => self.enter_shell(shell),
            Err(error) => {
                done.report.result = StepResult::Failed;
                let fault = format!("the development shell `{reference}` cannot be taken over: {error}");
                done.failure = Some(self.broken(index, recorder, super::EXIT_BROKEN, &fault));
            }
        }
    }

    fn shell_command(&mut self, place: &Place, reference: &str) -> Result<(Command, PathBuf), Unstarted> {
        let program = nix::find().map_err(|none| Unstarted::Setup(none.to_string()))?;
        if reference.starts_with('-') {
            return Err(Unstarted::Job(format!("environment: `{reference}` is no reference to a flake")));
        }
        let directory = self.nix_directory()?;
        let failed = |error: std::io::Error| Unstarted::Machine(infrastructure("cannot hand over a script", &error));
        let mut command =
            Command::shell("bash", &["--noprofile", "--norc"], SHELL_SCRIPT.as_bytes()).map_err(failed)?;
        command.arguments.push("shell".into());
        command.arguments.extend([program.into(), reference.into(), directory.clone().into_os_string()]);
        command.marker.clone_from(&self.marker);
        command.environment = self.environment.clone();
        command.directory = place.root().to_owned();
        place.enter(&mut command);
        Ok((command, directory))
    }

    /// Takes the shell's variables over. What the pipeline says stands above what the shell says.
    fn enter_shell(&mut self, shell: Shell) {
        for (name, value) in &shell.variables {
            let name_text = name.to_string_lossy();
            let is_set = self.spec.job.env.contains_key(&*name_text) || self.secrets.values.contains_key(&*name_text);
            if !is_set {
                self.environment.insert(name, value);
            }
        }
        self.nix.shell = Some(shell);
    }

    /// The script with the functions of the job's shell before it, on its first line: lines keep their numbers.
    pub(super) fn with_functions(&self, script: &[u8]) -> Vec<u8> {
        let mut whole = Vec::new();
        if let Some(functions) = self.nix.shell.as_ref().and_then(|shell| shell.functions.as_deref()) {
            whole.extend_from_slice(b". ");
            graph::shell::push_quoted(&mut whole, functions.as_os_str().as_bytes());
            whole.extend_from_slice(b"; ");
        }
        whole.extend_from_slice(script);
        whole
    }

    /// The command that builds a step's installables.
    pub(super) fn build_command(&mut self, step: &Step) -> Result<Command, Unstarted> {
        let program = nix::find().map_err(|none| Unstarted::Setup(none.to_string()))?;
        let links = self.nix_directory()?;
        let failed = |error: std::io::Error| Unstarted::Machine(infrastructure("cannot hand over a script", &error));
        let mut command = Command::shell("/bin/sh", &["-e"], BUILD_SCRIPT.as_bytes()).map_err(failed)?;
        command.arguments.extend(["build".into(), program.into(), links.join(self.steps.len().to_string()).into()]);
        command.arguments.extend(step.nix_build.iter().map(Into::into));
        Ok(command)
    }

    /// The log of a step, and what is heard in it if Nix builds.
    pub(super) fn recorder_of(&self, index: usize, step: &Step) -> (SharedRecorder, Option<SharedHeard>) {
        if step.nix_build.is_empty() {
            return (Recorder::new(Arc::clone(&self.log), super::number(index)), None);
        }
        let heard = SharedHeard::default();
        let log = NixLog { inner: Arc::clone(&self.log), heard: Arc::clone(&heard) };
        (Recorder::new(Arc::new(log), super::number(index)), Some(heard))
    }

    /// Takes what became of a build: results, outputs, and a line about it in the log.
    pub(super) fn take_built(&mut self, heard: &SharedHeard, step: &Step, recorder: &SharedRecorder, done: &mut Done) {
        let ended = match (done.report.result, &done.failure) {
            (StepResult::Passed, _) => Ended::Passed,
            (_, Some(Failure::Step { .. })) => Ended::Failed,
            _ => Ended::Stopped,
        };
        let (built, dropped) = {
            let heard = lock_heard(heard);
            (report::built(&heard, &step.nix_build, ended), heard.dropped)
        };
        if !built.summary.is_empty() {
            lock(recorder).note(&format!("derivations: {}", built.summary));
        }
        let room = TESTS_MAX.saturating_sub(self.tests.len());
        if dropped > 0 || built.results.len() > room {
            self.note("some derivations are not in the report: there were too many".to_owned());
            self.tests_cut = true;
        }
        let hidden: Vec<TestCase> =
            built.results.into_iter().take(room).map(|case| self.secrets_hidden(case)).collect();
        self.tests.extend(hidden);
        self.nix.built.extend(built.outputs.clone());
        done.report.outputs.extend(built.outputs);
    }
}
