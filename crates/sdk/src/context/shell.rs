//! What runs commands and holds files: a trait, and the machine itself.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use super::signal;

/// The most bytes that a command may write if its output is captured.
pub const CAPTURE_BYTES_MAX: usize = 16 << 20;

/// What a function's commands run in.
pub trait Shell {
    /// Runs a command to its end.
    ///
    /// # Errors
    /// A sentence, if it cannot be started or its output cannot be taken.
    fn run(&mut self, command: &Command) -> Result<Finished, String>;

    /// Writes a line to the job's log.
    fn log(&mut self, line: &str);

    /// Whether somebody wants the job to end.
    fn is_canceled(&self) -> bool;

    /// The environment variable of this name.
    fn variable(&self, name: &str) -> Option<String>;

    /// Where the job's files are.
    fn workspace(&self) -> &Path;

    /// What is at this path, relative to the workspace; links are followed.
    fn kind(&self, path: &Path) -> Option<PathKind>;
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// A file.
    File,
    /// A directory.
    Dir,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The exit code, or 128 + the signal's number.
    pub exit: i32,
    /// What it wrote to its standard output, without line feeds at the end; empty unless it was captured.
    pub output: String,
}

/// A command that a function runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    what: What,
    environment: Vec<(String, String)>,
    directory: Option<String>,
    output: Output,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Script(String),
    Words(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Logged,
    Captured,
}

impl Command {
    /// A script for `sh -e`.
    #[must_use]
    pub fn sh(script: impl Into<String>) -> Self {
        Self::of(What::Script(script.into()))
    }

    /// A program and its arguments.
    #[must_use]
    pub fn new<W: Into<String>>(words: impl IntoIterator<Item = W>) -> Self {
        Self::of(What::Words(words.into_iter().map(Into::into).collect()))
    }

    fn of(what: What) -> Self {
        Self { what, environment: Vec::new(), directory: None, output: Output::Logged }
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs it in this directory, relative to where the job's steps run.
    #[must_use]
    pub fn directory(mut self, path: impl Into<String>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Takes its standard output instead of writing it to the log.
    #[must_use]
    pub fn capture(mut self) -> Self {
        self.output = Output::Captured;
        self
    }

    /// The command as text: the script, or the words, those with spaces in quotes.
    #[must_use]
    pub fn text(&self) -> String {
        let words = match &self.what {
            What::Script(script) => return script.trim().to_owned(),
            What::Words(words) => words,
        };
        let is_plain = |word: &str| !word.is_empty() && !word.contains([' ', '\t', '\n', '\'', '"']);
        let shown = words.iter().map(|word| if is_plain(word) { word.clone() } else { format!("{word:?}") });
        shown.collect::<Vec<_>>().join(" ")
    }

    /// The first line of the text, with `…` if there is more.
    pub(super) fn headline(&self) -> String {
        let text = self.text();
        match text.split_once('\n') {
            Some((first, _)) => format!("{first} …"),
            None => text,
        }
    }

    fn prepare(&self) -> Result<std::process::Command, String> {
        let mut command = match &self.what {
            What::Script(script) => {
                let mut command = std::process::Command::new("/bin/sh");
                command.args(["-e", "-c", script]);
                command
            }
            What::Words(words) => {
                let (program, arguments) = words.split_first().ok_or("it has no words")?;
                let mut command = std::process::Command::new(program);
                command.args(arguments);
                command
            }
        };
        command.stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if self.output == Output::Captured {
            command.stdout(Stdio::piped());
        }
        // A group of its own, so that cancellation reaches all that it starts.
        command.process_group(0);
        Ok(command)
    }
}

/// The machine that the job runs on.
#[derive(Debug)]
pub struct Processes {
    workspace: PathBuf,
}

impl Processes {
    /// Runs commands in the current directory; files are relative to `workspace`.
    #[must_use]
    pub fn new(workspace: PathBuf) -> Self {
        Self { workspace }
    }
}

impl Shell for Processes {
    fn run(&mut self, command: &Command) -> Result<Finished, String> {
        let mut prepared = command.prepare()?;
        // What was logged so far stands before what the command writes.
        let _ = std::io::stdout().flush();
        let mut child = prepared.spawn().map_err(|error| error.to_string())?;
        let _heard = signal::forward_to(child.id());
        let output = child.stdout.take().map(read_bounded).unwrap_or_default();
        if output.len() > CAPTURE_BYTES_MAX {
            // It may be blocked on a pipe that nobody reads any more.
            let _ = child.kill();
        }
        let status = child.wait().map_err(|error| error.to_string())?;
        if output.len() > CAPTURE_BYTES_MAX {
            return Err(format!("it wrote more than {CAPTURE_BYTES_MAX} bytes, which is the most that is captured"));
        }
        let mut output = String::from_utf8(output).map_err(|_| "what it wrote is not UTF-8".to_owned())?;
        output.truncate(output.trim_end_matches(['\n', '\r']).len());
        Ok(Finished { exit: exit_code(status), output })
    }

    fn log(&mut self, line: &str) {
        // Whoever read the log has gone: the job goes on.
        let _ = writeln!(std::io::stdout(), "{line}");
    }

    fn is_canceled(&self) -> bool {
        signal::is_heard()
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn workspace(&self) -> &Path {
        &self.workspace
    }

    fn kind(&self, path: &Path) -> Option<PathKind> {
        let metadata = std::fs::metadata(self.workspace.join(path)).ok()?;
        Some(if metadata.is_dir() { PathKind::Dir } else { PathKind::File })
    }
}

/// All that is written, up to one byte more than may be.
fn read_bounded(output: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // An error here means that the command is gone; its status says how.
    let _ = output.take(CAPTURE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    bytes
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}
