//! The command that a step becomes: its shell, its script, its directory and its variables.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use graph::{Shell, Step, WorkspaceKind};

use super::container::Contained;
use super::{Attempt, infrastructure};
use crate::keeper::Command;
use crate::place::{Place, program_file};
use crate::variables::Variables;

/// Where a step that is a function of the pipeline's program finds which one, and with what types.
pub const STEP_VARIABLE: &str = "ROPEWALK_STEP";

/// Where it finds the event, its needs and the answer at its gate, as one JSON object.
pub const CONTEXT_VARIABLE: &str = "ROPEWALK_CONTEXT";

impl Attempt<'_> {
    /// The command of a step, and its script if that had to become a file.
    pub(super) async fn command(
        &mut self,
        place: &Place,
        step: &Step,
    ) -> Result<(Command, Vec<HandedFile>), Unstarted> {
        let mut environment = self.environment.clone();
        if !self.path.is_empty() {
            let old = environment.get("PATH").map(OsString::from).unwrap_or_default();
            let mut path = OsString::from(self.path.join(":"));
            path.push(":");
            path.push(old);
            environment.insert("PATH", path);
        }
        self.add_variables_of_step(step, &mut environment).await.map_err(Unstarted::Job)?;
        let directory = match &step.working_directory {
            None => place.root().to_owned(),
            Some(text) => {
                let directory =
                    self.evaluate(text).await.map_err(|fault| Unstarted::Job(format!("working_directory: {fault}")))?;
                below(place.root(), &directory).map_err(Unstarted::Job)?
            }
        };
        if self.spec.job.workspace == WorkspaceKind::Isolated {
            self.found = Some(Arc::new((environment.clone(), directory.clone())));
        }
        let (mut command, script) = match step.nix_build.is_empty() {
            true => self.shell(step)?,
            false => (self.build_command(step)?, Vec::new()),
        };
        command.marker.clone_from(&self.marker);
        environment.extend(command.environment.iter());
        command.environment = environment;
        command.directory = directory;
        place.enter(&mut command);
        Ok((command, script))
    }

    fn shell(&self, step: &Step) -> Result<(Command, Vec<HandedFile>), Unstarted> {
        let script = step.run.as_bytes();
        if self.contained.is_some() {
            return self.shell_in_container(step);
        }
        let failed = |error: std::io::Error| Unstarted::Machine(infrastructure("cannot hand over a script", &error));
        match &step.shell {
            Shell::Sh => Ok((Command::shell("/bin/sh", &["-e"], script).map_err(failed)?, Vec::new())),
            Shell::Bash => {
                let arguments = ["--noprofile", "--norc", "-eo", "pipefail"];
                let script = self.with_functions(script);
                Ok((Command::shell("bash", &arguments, &script).map_err(failed)?, Vec::new()))
            }
            Shell::Program(digest) => self.program(*digest, script),
            Shell::Custom(words) => self.custom(words, script),
        }
    }

    /// As [`Attempt::shell`]: in a container all scripts are files.
    fn shell_in_container(&self, step: &Step) -> Result<(Command, Vec<HandedFile>), Unstarted> {
        let words: &[&str] = match &step.shell {
            Shell::Sh => &["/bin/sh", "-e"],
            Shell::Bash => &["bash", "--noprofile", "--norc", "-eo", "pipefail"],
            Shell::Custom(words) => return self.custom(words, step.run.as_bytes()),
            Shell::Program(digest) => return self.program(*digest, step.run.as_bytes()),
        };
        self.custom(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), step.run.as_bytes())
    }

    fn program(&self, digest: graph::Digest, script: &[u8]) -> Result<(Command, Vec<HandedFile>), Unstarted> {
        let failed = |error: std::io::Error| Unstarted::Machine(infrastructure("cannot hand over a script", &error));
        let program = program_file(&self.worker.settings.data, digest);
        if !program.is_file() {
            return Err(Unstarted::Machine(format!(
                "the pipeline's program {digest} is not on this worker; the next evaluation of the pipeline brings it"
            )));
        }
        let payload = self.handed("script", script)?;
        let context = serde_json::json!({
            "event": self.spec.event,
            "needs": graph::legs::context(&self.spec.needs),
            "gate": self.spec.gate,
            "matrix": self.spec.job.matrix,
            "job": { "name": self.spec.name, "attempt": self.spec.try_number },
            "build": { "number": self.spec.build },
        });
        let context = self.handed("context", context.to_string().as_bytes())?;
        let mut command = Command::shell("", &[], b"").map_err(failed)?;
        command.program = program.into();
        command.arguments = vec!["run".into(), self.spec.name.as_str().into()];
        command.environment.insert(STEP_VARIABLE, &payload.path);
        command.environment.insert(CONTEXT_VARIABLE, &context.path);
        Ok((command, vec![payload, context]))
    }

    fn custom(&self, words: &[String], script: &[u8]) -> Result<(Command, Vec<HandedFile>), Unstarted> {
        let failed = |error: std::io::Error| Unstarted::Machine(infrastructure("cannot hand over a script", &error));
        let file = self.handed("script", script)?;
        let text = file.path.to_string_lossy();
        let mut all: Vec<OsString> = words.iter().map(|word| word.replace("{0}", &text).into()).collect();
        if !words.iter().any(|word| word.contains("{0}")) {
            all.push(file.path.clone().into());
        }
        let program = all.remove(0);
        let mut command = Command::shell("", &[], b"").map_err(failed)?;
        (command.program, command.arguments) = (program, all);
        Ok((command, vec![file]))
    }

    /// A file for the next step, beside those by which it hands on values.
    fn handed(&self, name: &str, content: &[u8]) -> Result<HandedFile, Unstarted> {
        let Some(slot) = &self.slot else { return Err(Unstarted::Machine("no place for a script".to_owned())) };
        // In a container the folder of the slot is the steps' own, and what they plant there must not be written through.
        let folder = self.contained.as_ref().map_or(slot.directory(), Contained::folder);
        let file = HandedFile { path: folder.join(name) };
        write_anew(&file.path, content).map_err(|error| {
            Unstarted::Machine(infrastructure(&format!("cannot write `{}`", file.path.display()), &error))
        })?;
        Ok(file)
    }
}

/// Writes a file that did not exist: no link that stands in its place is followed.
fn write_anew(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::OpenOptions::new().write(true).create_new(true).open(path)?.write_all(content)
}

/// Why a step's process was not even asked for.
pub(super) enum Unstarted {
    /// The job's fault.
    Job(String),
    /// The machine's.
    Machine(String),
    /// The machine's, and trying again would not help.
    Setup(String),
}

/// A script that an interpreter reads from a file; removed when the step has ended.
pub(super) struct HandedFile {
    path: PathBuf,
}

impl Drop for HandedFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A directory of the workspace as steps see it.
fn below(root: &Path, directory: &str) -> Result<PathBuf, String> {
    let is_below = |component: Component<'_>| matches!(component, Component::Normal(_) | Component::CurDir);
    match Path::new(directory).components().all(is_below) {
        true => Ok(root.join(directory)),
        false => Err(format!("working_directory `{directory}` leads out of the workspace")),
    }
}

/// The name and size of the largest variable; of none if there is none.
pub(super) fn largest_variable(environment: &Variables) -> (OsString, usize) {
    let sized = environment.iter().map(|(name, value)| (name, name.len() + value.len()));
    let largest = sized.max_by_key(|(_, bytes)| *bytes);
    largest.map_or_else(Default::default, |(name, bytes)| (name.into(), bytes))
}
