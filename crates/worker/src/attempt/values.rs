//! What steps hand on by files: outputs, variables, directories, the summary.

use graph::{FAILURE_BYTES_MAX, Failure, Shell, Step, StepReport, StepResult};

use super::steps::Done;
use super::{Attempt, EXIT_BROKEN};
use crate::file_commands::{self, CommandFault, CommandFile, CommandFiles};
use crate::output::SharedRecorder;

/// The output by which a function that failed says why; it is the outcome's, and no value that the step hands on.
const FAILURE_OUTPUT: &str = "failure";

/// The most bytes of summaries of one attempt; what is longer is cut.
pub const SUMMARY_BYTES_MAX: usize = 1 << 20;

impl Attempt<'_> {
    /// Reads what the step wrote to the files that hand values on.
    pub(super) fn take_values(&mut self, index: usize, step: &Step, recorder: &SharedRecorder, done: &mut Done) {
        let Some(slot) = self.slot.take() else { return };
        let taken = self.take_files(&slot, &mut done.report);
        self.slot = Some(slot);
        if matches!(step.shell, Shell::Program(_)) {
            take_message(done);
        }
        let fault = taken.err().or_else(|| {
            let missing = step.outputs.iter().find(|name| !done.report.outputs.contains_key(*name))?;
            let is_due = done.report.result == StepResult::Passed;
            is_due.then(|| format!("the step declares the output `{missing}` and did not write it to $ROPEWALK_OUTPUT"))
        });
        if let Some(fault) = fault {
            let failure = self.broken(index, recorder, EXIT_BROKEN, &fault);
            if done.report.result == StepResult::Passed {
                done.report.result = StepResult::Failed;
                done.failure = Some(failure);
            }
        }
    }

    fn take_files(&mut self, slot: &CommandFiles, report: &mut StepReport) -> Result<(), String> {
        if slot.is_empty() {
            return Ok(());
        }
        // All four are taken away, whatever is wrong with one of them.
        let taken = CommandFile::ALL.map(|file| slot.take(file));
        let [output, env, path, summary] = taken;
        let of = |file: CommandFile| move |fault: CommandFault| format!("${}: {fault}", file.variable());
        if let Ok(Some(text)) = &summary {
            self.add_summary(text);
        }
        if let Some(text) = output.map_err(of(CommandFile::Output))? {
            for entry in file_commands::entries(&text).map_err(of(CommandFile::Output))? {
                let value = self.handed_on(&entry.name, entry.value);
                report.outputs.insert(entry.name, value);
            }
        }
        if let Some(text) = env.map_err(of(CommandFile::Env))? {
            for entry in file_commands::variables(&text).map_err(of(CommandFile::Env))? {
                self.environment.insert(&entry.name, entry.value);
                self.visible.insert(entry.name.into());
            }
            self.show_environment();
        }
        if let Some(text) = path.map_err(of(CommandFile::Path))? {
            let directories = file_commands::directories(&text).map_err(of(CommandFile::Path))?;
            for directory in directories {
                self.path.insert(0, directory);
            }
        }
        summary.map_err(of(CommandFile::Summary))?;
        Ok(())
    }

    /// An output without secrets. Whoever reads it would wonder at `***`, so the job says where it comes from; what a function says of its
    /// failure is text for people, as a log is.
    fn handed_on(&mut self, name: &str, value: String) -> String {
        let is_held = |(_, secret): &(&String, &String)| !secret.is_empty() && value.contains(secret.as_str());
        let held: Vec<String> =
            self.secrets.values.iter().filter(is_held).map(|(name, _)| format!("`{name}`")).collect();
        let hidden = self.secrets.hide(value.clone());
        if hidden != value && name != FAILURE_OUTPUT {
            let held = match held.as_slice() {
                // In another form, such as base64.
                [] => "a secret".to_owned(),
                [one] => format!("the secret {one}"),
                many => format!("the secrets {}", many.join(", ")),
            };
            self.note(format!(
                "the output `{name}` held {held} and was handed on with `***` in its place: give the secret to the jobs that read it"
            ));
        }
        hidden
    }

    fn add_summary(&mut self, text: &[u8]) {
        let text = self.secrets.hide(String::from_utf8_lossy(text).into_owned());
        let room = SUMMARY_BYTES_MAX.saturating_sub(self.summary.len());
        if text.len() > room {
            self.note(format!("the summary is longer than {SUMMARY_BYTES_MAX} bytes and was cut"));
        }
        self.summary.push_str(&text[..text.floor_char_boundary(room.min(text.len()))]);
        if !self.summary.is_empty() && !self.summary.ends_with('\n') && self.summary.len() < SUMMARY_BYTES_MAX {
            self.summary.push('\n');
        }
    }

    pub(super) fn check_outputs(&mut self) {
        let missing: Vec<&str> =
            self.spec.job.outputs.iter().filter(|name| !self.outputs.contains_key(*name)).map(String::as_str).collect();
        if !missing.is_empty() {
            let fault = format!(
                "the job declares the output `{}` and no step wrote it to $ROPEWALK_OUTPUT",
                missing.join("`, `")
            );
            self.break_word(fault);
        }
    }
}

/// Moves what a function said of its failure into the failure.
fn take_message(done: &mut Done) {
    let Some(Failure::Step { message, .. }) = &mut done.failure else { return };
    let Some(mut said) = done.report.outputs.remove(FAILURE_OUTPUT) else { return };
    said.truncate(said.floor_char_boundary(FAILURE_BYTES_MAX));
    *message = Some(said);
}
