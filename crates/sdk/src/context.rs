//! What a function gets when it runs as a job: its shell, its log, its place.
//!
//! Everything that touches the world goes through a [`Shell`]: processes of the machine in a job, a [`Recorded`] one in a
//! test of the pipeline.

mod recorded;
mod shell;
mod signal;

use std::path::{Component, Path};

pub use recorded::Recorded;
pub use shell::{CAPTURE_BYTES_MAX, Command, Finished, PathKind, Processes, Shell};
pub(crate) use signal::listen;

use crate::data::{Dir, File};
use crate::event::Event;

/// The job that a function runs in: its shell, its log, its place.
pub struct Cx {
    shell: Box<dyn Shell>,
    event: Event,
    /// What it waits for, outermost first.
    pending: Vec<String>,
    /// Whether a heading's group is open, for each group around this place and for the function itself.
    headings: Vec<bool>,
}

/// Why a function did not pass; its message is shown where the job's failure is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    message: String,
    exit: Option<i32>,
    is_canceled: bool,
}

impl Failure {
    /// A failure with this message.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit: None, is_canceled: false }
    }

    /// The job was canceled while it ran.
    #[must_use]
    pub fn canceled() -> Self {
        Self { message: "canceled".to_owned(), exit: None, is_canceled: true }
    }

    /// What is shown.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The exit code of the command that failed, or 128 + the signal's number; `None` if it was no command.
    #[must_use]
    pub fn exit(&self) -> Option<i32> {
        self.exit
    }

    /// Whether the job was canceled.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.is_canceled
    }

    fn of_command(command: &Command, exit: i32) -> Self {
        let message = format!("`{}` ended with exit code {exit}", command.headline());
        Self { message, exit: Some(exit), is_canceled: false }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::new(message)
    }
}

impl Cx {
    /// The context of a function in this shell, for this event.
    #[must_use]
    pub fn new(shell: impl Shell + 'static, event: Event) -> Self {
        Self { shell: Box::new(shell), event, pending: Vec::new(), headings: vec![false] }
    }

    /// Runs a script by `sh -e`; what it writes goes to the job's log.
    ///
    /// # Errors
    /// If it does not end with 0; the failure holds the exit code.
    pub fn sh(&mut self, script: impl Into<String>) -> Result<(), Failure> {
        self.run(&Command::sh(script)).map(drop)
    }

    /// Runs a program with these arguments, without a shell; what it writes goes to the job's log.
    ///
    /// # Errors
    /// As [`Cx::sh`].
    pub fn command<W: Into<String>>(&mut self, words: impl IntoIterator<Item = W>) -> Result<(), Failure> {
        self.run(&Command::new(words)).map(drop)
    }

    /// Runs a script by `sh -e` and gives what it wrote to its standard output, without line feeds at the end.
    ///
    /// # Errors
    /// As [`Cx::sh`]; if that is no text or longer than [`CAPTURE_BYTES_MAX`].
    pub fn capture(&mut self, script: impl Into<String>) -> Result<String, Failure> {
        self.run(&Command::sh(script).capture())
    }

    /// Runs a command; gives its output if it is captured, else nothing.
    ///
    /// # Errors
    /// As [`Cx::sh`].
    pub fn run(&mut self, command: &Command) -> Result<String, Failure> {
        match self.status(command)? {
            Finished { exit: 0, output } => Ok(output),
            Finished { exit, .. } => Err(Failure::of_command(command, exit)),
        }
    }

    /// Runs a command to its end, whatever that is.
    ///
    /// # Errors
    /// If it cannot be started, or the job was canceled meanwhile.
    pub fn status(&mut self, command: &Command) -> Result<Finished, Failure> {
        if self.is_canceled() {
            return Err(Failure::canceled());
        }
        self.event.reads().note_variables(&command.text());
        self.shell.log(&format!("$ {}", command.headline()));
        let finished = self.shell.run(command);
        if self.is_canceled() {
            return Err(Failure::canceled());
        }
        finished.map_err(|message| Failure::new(format!("cannot run `{}`: {message}", command.headline())))
    }

    /// Writes a line to the job's log.
    pub fn log(&mut self, line: impl AsRef<str>) {
        self.shell.log(line.as_ref());
    }

    /// Begins a part of the log with this title; it ends at the next heading, or with the group around it.
    pub fn heading(&mut self, title: impl AsRef<str>) {
        self.end_heading();
        self.mark("group", title.as_ref());
        if let Some(is_open) = self.headings.last_mut() {
            *is_open = true;
        }
    }

    /// A foldable part of the log with this title: all that `inside` writes.
    pub fn group<R>(&mut self, title: impl AsRef<str>, inside: impl FnOnce(&mut Self) -> R) -> R {
        self.mark("group", title.as_ref());
        self.headings.push(false);
        let result = inside(self);
        self.end_heading();
        self.headings.pop();
        self.shell.log("::endgroup::");
        result
    }

    /// Ends the heading that is open at this level, if one is.
    pub(crate) fn end_heading(&mut self) {
        if self.headings.last_mut().is_some_and(std::mem::take) {
            self.shell.log("::endgroup::");
        }
    }

    /// Shows a warning beside the job.
    pub fn warning(&mut self, text: impl AsRef<str>) {
        self.mark("warning", text.as_ref());
    }

    /// Shows an error beside the job. The job does not fail by it: return a [`Failure`] for that.
    pub fn error(&mut self, text: impl AsRef<str>) {
        self.mark("error", text.as_ref());
    }

    /// Says what the job waits for while `inside` runs. The innermost reason is shown.
    pub fn pending<R>(&mut self, reason: impl Into<String>, inside: impl FnOnce(&mut Self) -> R) -> R {
        self.pending.push(reason.into());
        self.tell_pending();
        let result = inside(self);
        self.pending.pop();
        self.tell_pending();
        result
    }

    fn tell_pending(&mut self) {
        let reason = self.pending.last().cloned().unwrap_or_default();
        self.mark("pending", &reason);
    }

    /// Writes a line for people and tools: `::WORD::TEXT`.
    fn mark(&mut self, word: &str, text: &str) {
        let text = text.split(['\n', '\r']).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        self.shell.log(&format!("::{word}::{text}"));
    }

    /// Whether somebody wants the job to end. From then on no command is started.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.shell.is_canceled()
    }

    /// What happened, and so why there is a build. What is read of it here, and was not before [`Job::run_fn`](crate::Job::run_fn), keeps the
    /// job's result from being reused: take it from [`Ci::event`](crate::Ci::event) there, and let the function take the value.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The environment variable of this name. One that holds a part of the event (`ROPEWALK_TAG`) counts as [`Cx::event`] does.
    #[must_use]
    pub fn env(&self, name: &str) -> Option<String> {
        self.event.reads().note_variables(name);
        self.shell.variable(name)
    }

    /// The secret of this name.
    ///
    /// # Errors
    /// If the job was not given it.
    pub fn secret(&self, name: &str) -> Result<String, Failure> {
        let missing = || Failure::new(format!("the secret `{name}` is not here: a job names the secrets it gets"));
        self.shell.variable(name).ok_or_else(missing)
    }

    /// Where the job's files are.
    #[must_use]
    pub fn workspace(&self) -> &Path {
        self.shell.workspace()
    }

    /// The file at this path, relative to the workspace, to be handed on.
    ///
    /// # Errors
    /// If no file is there, or the path leads out of the workspace.
    pub fn file(&self, path: impl Into<String>) -> Result<File, Failure> {
        let path = self.checked(path.into(), PathKind::File, "file")?;
        Ok(File::new(path))
    }

    /// The directory at this path, relative to the workspace, to be handed on.
    ///
    /// # Errors
    /// If no directory is there, or the path leads out of the workspace.
    pub fn dir(&self, path: impl Into<String>) -> Result<Dir, Failure> {
        let path = self.checked(path.into(), PathKind::Dir, "directory")?;
        Ok(Dir::new(path))
    }

    fn checked(&self, path: String, wanted: PathKind, what: &str) -> Result<String, Failure> {
        let path = inside(&path)?;
        match self.shell.kind(Path::new(&path)) {
            Some(kind) if kind == wanted => Ok(path),
            Some(_) => Err(Failure::new(format!("`{path}` is no {what}"))),
            None => Err(Failure::new(format!("there is no {what} `{path}`"))),
        }
    }
}

/// The path without `.` in it.
///
/// # Errors
/// If it is absolute, empty, or goes up.
pub(crate) fn inside(path: &str) -> Result<String, Failure> {
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy()),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(Failure::new(format!("`{path}` leads out of the workspace")));
            }
        }
    }
    if parts.is_empty() { Err(Failure::new("a path is empty")) } else { Ok(parts.join("/")) }
}

#[cfg(test)]
mod tests;
