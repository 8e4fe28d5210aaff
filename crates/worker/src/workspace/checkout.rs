//! What git says of a checkout: which files differ from its commit, which are ignored, and the commit's own content.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::git::{self, GitError};

/// Paths handed to git in one call, far below what the system takes as arguments.
const PATHS_PER_CALL: usize = 256;

/// A checkout within the tree: the repository itself or a submodule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkout {
    /// Where it is in the repository; empty for the repository itself.
    pub place: PathBuf,
    /// The commit that was checked out; `None` before the first one.
    pub commit: Option<String>,
}

/// What `git status` says, all paths relative to the repository and without a slash at the end.
#[derive(Debug, Default)]
pub struct Status {
    /// Every checkout, the repository first, then submodules in order.
    pub checkouts: Vec<Checkout>,
    /// Files that differ from the commit or are not in it, not ignored; nested repositories as directories.
    pub present: Vec<PathBuf>,
    /// Files of the commit that are gone.
    pub gone: Vec<PathBuf>,
    /// What is ignored: files, and directories of which everything is.
    pub ignored: Vec<PathBuf>,
}

/// Whether the state of submodules is compared too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submodules {
    /// A submodule that differs from the commit is told.
    Compared,
    /// Nothing is said of submodules.
    LeftOut,
}

/// What to ask git for a checkout's state; [`status_after`] reads the answer.
pub fn status_of(submodules: Submodules) -> [&'static str; 8] {
    let submodules = match submodules {
        Submodules::Compared => "--ignore-submodules=none",
        Submodules::LeftOut => "--ignore-submodules=all",
    };
    [
        "status",
        "--porcelain=v2",
        "--branch",
        "-z",
        "--untracked-files=all",
        "--ignored=matching",
        "--no-renames",
        submodules,
    ]
}

/// Whether git told of anything but what is ignored.
pub fn has_changes(answer: &[u8]) -> bool {
    answer.split(|byte| *byte == 0).filter_map(|line| line.first()).any(|kind| !matches!(kind, b'#' | b'!'))
}

/// The commit that git told of; `None` before the first one.
pub fn commit_of(answer: &[u8]) -> Option<String> {
    answer.split(|byte| *byte == 0).find_map(told_commit)
}

fn told_commit(line: &[u8]) -> Option<String> {
    let id = line.strip_prefix(b"# branch.oid ").filter(|id| *id != b"(initial)")?;
    Some(String::from_utf8_lossy(id).into_owned())
}

/// The state of a checkout and its submodules.
pub fn status(root: &Path) -> Result<Status, GitError> {
    status_after(root, &git::ask(root, &status_of(Submodules::LeftOut))?)
}

/// As [`status`], where git has said already what it knows of the repository itself.
pub fn status_after(root: &Path, answer: &[u8]) -> Result<Status, GitError> {
    let mut status = Status::default();
    read_status(answer, Path::new(""), &mut status);
    let mut waiting = submodules(root)?;
    while let Some(place) = waiting.pop() {
        let directory = root.join(&place);
        read_status(&git::ask(&directory, &status_of(Submodules::LeftOut))?, &place, &mut status);
        waiting.extend(submodules(&directory)?.into_iter().map(|path| place.join(path)));
    }
    Ok(status)
}

fn read_status(answer: &[u8], place: &Path, status: &mut Status) {
    let mut commit = None;
    for line in answer.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
        let path =
            |fields: usize| line.splitn(fields + 1, |byte| *byte == b' ').nth(fields).map(|path| at(place, path));
        match line[0] {
            b'#' => commit = commit.or_else(|| told_commit(line)),
            // A submodule has a state of its own, which it is asked for.
            b'1' | b'u' if line.split(|byte| *byte == b' ').nth(2).is_some_and(|kind| kind.starts_with(b"S")) => {}
            b'1' => {
                let is_gone = line.splitn(7, |byte| *byte == b' ').nth(5) == Some(b"000000");
                if is_gone { status.gone.extend(path(8)) } else { status.present.extend(path(8)) }
            }
            b'u' => status.present.extend(path(10)),
            b'?' => status.present.extend(path(1)),
            b'!' => status.ignored.extend(path(1)),
            _ => {}
        }
    }
    status.checkouts.push(Checkout { place: place.to_owned(), commit });
}

/// A path that git printed; directories come with a slash at the end, which is dropped.
fn at(place: &Path, path: &[u8]) -> PathBuf {
    place.join(OsStr::from_bytes(path.strip_suffix(b"/").unwrap_or(path)))
}

/// The submodules that are checked out, relative to the checkout.
fn submodules(directory: &Path) -> Result<Vec<PathBuf>, GitError> {
    if !directory.join(".gitmodules").is_file() {
        return Ok(Vec::new());
    }
    let arguments = ["config", "-f", ".gitmodules", "-z", "--get-regexp", r"^submodule\..*\.path$"];
    // It says no if there is no such key.
    let answer = match git::ask(directory, &arguments) {
        Err(GitError::Refused(_)) => return Ok(Vec::new()),
        other => other?,
    };
    let values = answer.split(|byte| *byte == 0).filter_map(|entry| entry.splitn(2, |byte| *byte == b'\n').nth(1));
    let is_inside = |path: &PathBuf| path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let is_checked_out = |path: &PathBuf| directory.join(path).join(".git").exists();
    let mut found: Vec<PathBuf> =
        values.map(|value| PathBuf::from(OsStr::from_bytes(value))).filter(is_inside).filter(is_checked_out).collect();
    found.sort();
    Ok(found)
}

/// What differs now from the commits that were checked out, or was not in them: candidates, some of which differed already
/// when the build began.
pub fn differences(root: &Path, checkouts: &[Checkout]) -> Result<Vec<PathBuf>, GitError> {
    let now = status(root)?;
    let mut found = [now.present, now.gone, now.ignored].concat();
    for checkout in checkouts {
        let Some(commit) = &checkout.commit else { continue };
        let arguments =
            ["diff", "--name-only", "--no-renames", "--no-ext-diff", "--ignore-submodules=all", "-z", commit, "--"];
        let answer = git::ask(&root.join(&checkout.place), &arguments)?;
        let names = answer.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        found.extend(names.map(|name| at(&checkout.place, name)));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// A file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Relative to its checkout.
    pub path: PathBuf,
    /// Mode, kind and object as git prints them.
    pub entry: String,
}

/// The files of a checkout's commit at or below `paths` (relative to it); all of them if `paths` is `None`.
pub fn tracked(root: &Path, checkout: &Checkout, paths: Option<&[PathBuf]>) -> Result<Vec<Tracked>, GitError> {
    let Some(commit) = &checkout.commit else { return Ok(Vec::new()) };
    let directory = root.join(&checkout.place);
    let mut found = Vec::new();
    let chunks: Vec<&[PathBuf]> = paths.map_or_else(|| vec![&[][..]], |paths| paths.chunks(PATHS_PER_CALL).collect());
    for chunk in chunks {
        let mut arguments: Vec<OsString> =
            ["--literal-pathspecs", "ls-tree", "-r", "-z", "--full-tree", commit, "--"].map(OsString::from).to_vec();
        arguments.extend(chunk.iter().map(|path| path.as_os_str().to_owned()));
        let answer = git::ask(&directory, &arguments)?;
        for line in answer.split(|byte| *byte == 0) {
            let Some(tab) = memchr::memchr(b'\t', line) else { continue };
            let entry = String::from_utf8_lossy(&line[..tab]).into_owned();
            if !entry.starts_with("160000") {
                found.push(Tracked { path: PathBuf::from(OsStr::from_bytes(&line[tab + 1..])), entry });
            }
        }
    }
    Ok(found)
}

/// Writes files as the commit has them below `target`, through an index of their own, so that git itself applies modes,
/// links and filters.
pub fn restore(
    root: &Path,
    checkout: &Checkout,
    files: &[Tracked],
    target: &Path,
    index: &Path,
) -> Result<(), GitError> {
    if files.is_empty() {
        return Ok(());
    }
    let directory = root.join(&checkout.place);
    let mut lines = Vec::new();
    for file in files {
        lines.extend_from_slice(file.entry.as_bytes());
        lines.push(b'\t');
        lines.extend_from_slice(file.path.as_os_str().as_bytes());
        lines.push(0);
    }
    let mut prefix = OsString::from("--prefix=");
    prefix.push(target);
    // git takes the prefix as it is.
    prefix.push("/");
    with_index(&directory, index, &["update-index".into(), "-z".into(), "--index-info".into()], &lines)?;
    with_index(&directory, index, &["checkout-index".into(), "-a".into(), "-f".into(), "-q".into(), prefix], &[])?;
    let _ = std::fs::remove_file(index);
    Ok(())
}

fn with_index(directory: &Path, index: &Path, arguments: &[OsString], input: &[u8]) -> Result<(), GitError> {
    let refused = |error: std::io::Error| GitError::Refused(error.to_string());
    let mut command = Command::new("git");
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_PREFIX", "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY"] {
        command.env_remove(variable);
    }
    let mut child = command
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.splitIndex=false"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_INDEX_FILE", index)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(refused)?;
    if let Some(mut stdin) = child.stdin.take() {
        // git says why if it stopped reading; its words are better than a broken pipe's.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(refused)?;
    if output.status.success() {
        return Ok(());
    }
    Err(GitError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
