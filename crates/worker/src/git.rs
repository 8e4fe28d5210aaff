//! The `git` program, asked without trusting the repository: no hooks, no monitors, no external diffs, no pagers.
//!
//! What comes from outside (branches, commits) stands behind `--end-of-options` and never begins with `-`.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The most bytes read of one answer.
pub const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Why git gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitError {
    /// There is no `git` to ask.
    #[error("no program `git` was found: install git, or set PATH so that it is found")]
    NoProgram,
    /// The folder in which it was to be asked is not there any more.
    #[error("the folder `{}` is gone: put it back, or work in another one", .0.display())]
    NoFolder(PathBuf),
    /// There is no repository here.
    #[error("not in a git repository")]
    NoRepository,
    /// git said no, in these words, which may have several lines.
    #[error("git: {}", one_line(.0))]
    Refused(String),
    /// A name from outside that could be taken for an option or is no name.
    #[error("`{0}` is not the name of a commit or branch")]
    NotAName(String),
}

/// The words as one line: a space where a line ended, or a gap was.
fn one_line(words: &str) -> String {
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Variables that would lead git to another repository than the directory's own, as they are set within hooks.
pub(crate) const MISLEADING: [&str; 7] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_EXTERNAL_DIFF",
];

/// What git prints for these arguments in this directory.
///
/// # Errors
/// [`GitError`].
pub fn ask<S: AsRef<OsStr>>(directory: &Path, arguments: &[S]) -> Result<Vec<u8>, GitError> {
    answer(start(directory, arguments)?)
}

/// What a git that was [`start`]ed prints; waits for its end.
pub(crate) fn answer(mut child: Child) -> Result<Vec<u8>, GitError> {
    let mut answer = Vec::new();
    let mut complaint = Vec::new();
    let refused = |error: std::io::Error| GitError::Refused(error.to_string());
    // git writes its answer first and a complaint of a few lines at most, which fits into a pipe.
    if let Some(stdout) = child.stdout.take() {
        stdout.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut answer).map_err(refused)?;
    }
    if let Some(stderr) = child.stderr.take() {
        stderr.take(64 << 10).read_to_end(&mut complaint).map_err(refused)?;
    }
    let status = child.wait().map_err(refused)?;
    if answer.len() as u64 > ANSWER_BYTES_MAX {
        return Err(GitError::Refused(format!("the answer has more than {ANSWER_BYTES_MAX} bytes")));
    }
    if status.success() {
        return Ok(answer);
    }
    let complaint = String::from_utf8_lossy(&complaint);
    match complaint.contains("not a git repository") {
        true => Err(GitError::NoRepository),
        false => Err(GitError::Refused(complaint.trim().trim_start_matches("fatal: ").to_owned())),
    }
}

/// git in a directory, neither led astray by variables nor running what the repository says.
#[must_use]
pub fn command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    for variable in MISLEADING {
        command.env_remove(variable);
    }
    command
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "--no-pager"])
        .current_dir(directory);
    command
}

/// Starts git with these arguments in this directory; both its streams are pipes.
///
/// # Errors
/// [`GitError::NoProgram`], [`GitError::NoFolder`], or why it cannot be started.
pub(crate) fn start<S: AsRef<OsStr>>(directory: &Path, arguments: &[S]) -> Result<Child, GitError> {
    let mut command = command(directory);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(|error| unstarted(directory, &error))
}

/// Why git could not be started in a directory: the system says the same of a missing program and a missing directory.
pub(crate) fn unstarted(directory: &Path, error: &std::io::Error) -> GitError {
    match error.kind() {
        // Without the slash at the end of a path that was joined with an empty one.
        std::io::ErrorKind::NotFound if !directory.exists() => GitError::NoFolder(directory.components().collect()),
        std::io::ErrorKind::NotFound => GitError::NoProgram,
        _ => GitError::Refused(error.to_string()),
    }
}

/// The name, if it can stand in a command line: not empty, no leading `-`, no control characters or white space.
///
/// # Errors
/// [`GitError::NotAName`].
pub fn name(text: &str) -> Result<&str, GitError> {
    let is_bad = |character: char| character.is_control() || character.is_whitespace();
    match text.is_empty() || text.starts_with('-') || text.contains(is_bad) || text.contains("..") {
        true => Err(GitError::NotAName(text.chars().take(100).collect())),
        false => Ok(text),
    }
}
