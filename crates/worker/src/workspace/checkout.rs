//! What git says of a checkout: which files differ from its commit, which are ignored, and the commit's own content.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use graph::Digest;
use serde::{Deserialize, Serialize};

use super::WorkspaceError;
use crate::files::is_of_git;
use crate::git::{self, GitError};
use crate::path_text;
use crate::repository::git_directory;
use crate::tree::{self, Outer};

/// Paths handed to git in one call, far below what the system takes as arguments.
const PATHS_PER_CALL: usize = 256;

/// A checkout within the tree: the repository itself, or one that its index has within it, as submodules are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkout {
    /// Where it is in the repository; empty for the repository itself.
    #[serde(with = "path_text")]
    pub place: PathBuf,
    /// The commit that was checked out; `None` before the first one.
    pub commit: Option<String>,
}

/// What `git status` says, all paths relative to the repository and without a slash at the end.
#[derive(Debug, Default)]
pub struct Status {
    /// Every checkout, the repository first.
    pub checkouts: Vec<Checkout>,
    /// Files that differ from the commit or are not in it, not ignored; of a repository that the commit does not know, all that the tree
    /// lists, and its `.git` as one.
    pub present: Vec<PathBuf>,
    /// Files of the commit that are gone.
    pub gone: Vec<PathBuf>,
    /// What is ignored, by the repository that it is in or, untracked there, by one around it: files, and directories of which everything is.
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

/// The files that git told of in the repository itself that are there and not as in the commit.
pub fn present_in(answer: &[u8]) -> Vec<PathBuf> {
    let mut status = Status::default();
    read_status(answer, &Inside::top(), &mut status);
    status.present
}

/// What git told of in the repository itself that is not as in the commit, whether it is there or not.
pub fn differing(answer: &[u8]) -> BTreeSet<PathBuf> {
    let mut status = Status::default();
    let foreign = read_status(answer, &Inside::top(), &mut status);
    [foreign, status.present, status.gone].concat().into_iter().collect()
}

impl Status {
    /// The files that are there and not as in the commit.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.present.iter().filter(|path| !is_of_git(path))
    }

    /// What tells this state of the files from all others; `None` if one cannot be read.
    pub fn digest(&self, root: &Path) -> Option<Digest> {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for Checkout { place, commit } in &self.checkouts {
            part(place.as_os_str().as_bytes());
            part(commit.as_deref().unwrap_or_default().as_bytes());
        }
        let files: BTreeSet<&PathBuf> = self.files().collect();
        let files: Vec<PathBuf> = files.into_iter().cloned().collect();
        for (path, content) in files.iter().zip(tree::contents(root, &files).ok()?) {
            part(path.as_os_str().as_bytes());
            part(&content.map_or(Vec::new(), |content| [&[content.kind as u8][..], &content.digest.0].concat()));
        }
        part(b"");
        self.gone.iter().collect::<BTreeSet<_>>().into_iter().for_each(|path| part(path.as_os_str().as_bytes()));
        Some(Digest(*hasher.finalize().as_bytes()))
    }
}

fn told_commit(line: &[u8]) -> Option<String> {
    let id = line.strip_prefix(b"# branch.oid ").filter(|id| *id != b"(initial)")?;
    Some(String::from_utf8_lossy(id).into_owned())
}

/// The state of a checkout and of the repositories in it.
pub fn status(root: &Path) -> Result<Status, WorkspaceError> {
    status_after(root, &git::ask(root, &status_of(Submodules::LeftOut))?)
}

/// As [`status`], where git has said already what it knows of the repository itself.
pub fn status_after(root: &Path, answer: &[u8]) -> Result<Status, WorkspaceError> {
    let mut status = Status::default();
    let mut foreign = read_status(answer, &Inside::top(), &mut status);
    let mut waiting = known_repositories(root)?;
    while let Some(place) = waiting.pop() {
        let directory = root.join(&place);
        let answer = git::ask(&directory, &status_of(Submodules::LeftOut))?;
        waiting.extend(known_repositories(&directory)?.into_iter().map(|path| place.join(path)));
        let inside = Inside { around: Some((root, Outer::between(root, &directory))), place };
        foreign.extend(read_status(&answer, &inside, &mut status));
    }
    for place in foreign {
        add_foreign(root, &place, &mut status)?;
    }
    Ok(status)
}

/// Where in the tree git was asked.
struct Inside<'r> {
    /// Relative to the root.
    place: PathBuf,
    /// The root, and what the rules around a repository within it say of its untracked files, which git does not know.
    around: Option<(&'r Path, Outer)>,
}

impl Inside<'_> {
    /// The repository itself.
    fn top() -> Self {
        Self { place: PathBuf::new(), around: None }
    }

    fn hides(&self, path: &Path, is_directory: bool) -> bool {
        self.around.as_ref().is_some_and(|(root, outer)| outer.hides(&root.join(path), is_directory))
    }
}

/// Reads what git said of one repository; gives the repositories in it that it does not track.
fn read_status(answer: &[u8], inside: &Inside<'_>, status: &mut Status) -> Vec<PathBuf> {
    let place = &inside.place;
    let (mut commit, mut foreign) = (None, Vec::new());
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
            b'?' => {
                // A directory is named only if it is a repository.
                let is_repository = line.ends_with(b"/");
                let Some(path) = path(1) else { continue };
                match (inside.hides(&path, is_repository), is_repository) {
                    (true, _) => status.ignored.push(path),
                    (false, true) => foreign.push(path),
                    (false, false) => status.present.push(path),
                }
            }
            b'!' => status.ignored.extend(path(1)),
            _ => {}
        }
    }
    status.checkouts.push(Checkout { place: place.clone(), commit });
    foreign
}

/// Adds a repository that no commit knows: what the tree lists of it is there, and all else in it is ignored, but for empty folders. One that
/// cannot be listed is there as a whole; then the tree's files have no digest.
fn add_foreign(root: &Path, place: &Path, status: &mut Status) -> Result<(), WorkspaceError> {
    let Ok(listed) = tree::list_nested(root, place) else {
        status.present.push(place.to_owned());
        return Ok(());
    };
    let mut listed: BTreeSet<PathBuf> = listed.into_iter().collect();
    listed.retain(|path| root.join(path).symlink_metadata().is_ok());
    let above: HashSet<&Path> = listed.iter().flat_map(|path| path.ancestors().skip(1)).collect();
    let mut waiting = vec![place.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in entries(&root.join(&folder)).map_err(WorkspaceError::at(&root.join(&folder)))? {
            let path = folder.join(entry.file_name());
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if entry.file_name() == ".git" {
                status.present.push(path);
            } else if is_directory && above.contains(path.as_path()) {
                waiting.push(path);
            } else if !(listed.contains(&path) || is_directory && is_empty(&root.join(&path))) {
                status.ignored.push(path);
            }
        }
    }
    status.present.extend(listed);
    Ok(())
}

/// What is in a folder, if it is there.
fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        entries => entries?.collect(),
    }
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// A path that git printed; directories come with a slash at the end, which is dropped.
fn at(place: &Path, path: &[u8]) -> PathBuf {
    place.join(OsStr::from_bytes(path.strip_suffix(b"/").unwrap_or(path)))
}

/// The repositories that the index has within its own and that are checked out, relative to the checkout; sorted, no duplicates.
fn known_repositories(directory: &Path) -> Result<Vec<PathBuf>, GitError> {
    if !may_have_repositories(directory) {
        return Ok(Vec::new());
    }
    let answer = git::ask(directory, &["ls-files", "-z", "--stage"])?;
    let tracked = answer.split(|byte| *byte == 0).filter_map(tree::tracked);
    let named = tracked.filter(|(mode, _)| *mode == tree::GITLINK_MODE).map(|(_, name)| at(Path::new(""), name));
    let is_checked_out = |path: &PathBuf| directory.join(path).join(".git").symlink_metadata().is_ok();
    let found: BTreeSet<PathBuf> = named.filter(is_checked_out).collect();
    Ok(found.into_iter().collect())
}

/// How the index has the mode of a repository. Source: gitformat-index(5).
const GITLINK_BYTES: [u8; 4] = 0o160_000_u32.to_be_bytes();

/// Whether it is worth asking git which repositories the index has: a look at its bytes costs less than a process.
fn may_have_repositories(directory: &Path) -> bool {
    let Some(git) = git_directory(directory) else { return true };
    // Part of a split index is in a file of its own.
    let is_shared = |entry: &fs::DirEntry| entry.file_name().as_bytes().starts_with(b"sharedindex.");
    match fs::read(git.join("index")) {
        Ok(index) if memchr::memmem::find(&index, &GITLINK_BYTES).is_some() => true,
        Ok(_) => fs::read_dir(&git).map_or(true, |entries| entries.flatten().any(|entry| is_shared(&entry))),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// What differs now from the commits that were checked out, or was not in them: candidates, some of which differed already
/// when the build began.
pub fn differences(root: &Path, checkouts: &[Checkout]) -> Result<Vec<PathBuf>, WorkspaceError> {
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
    let _ = fs::remove_file(index);
    Ok(())
}

fn with_index(directory: &Path, index: &Path, arguments: &[OsString], input: &[u8]) -> Result<(), GitError> {
    let refused = |error: io::Error| GitError::Refused(error.to_string());
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
        .map_err(|error| git::unstarted(directory, &error))?;
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
