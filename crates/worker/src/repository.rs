//! Where a checkout stands: commit, branch, changed files, the user. The common case reads two small files and
//! starts no process; what is unusual (reftables, odd layouts) is asked of git.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::git::{self, GitError};

/// How many symbolic references are followed.
const LINKS_MAX: usize = 5;

/// The most bytes read of HEAD, a reference, or `gitdir`.
const SMALL_BYTES_MAX: u64 = 64 << 10;

/// The most bytes read of `packed-refs`.
const PACKED_BYTES_MAX: u64 = 64 << 20;

/// Where a checkout stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The commit's full id; `None` before the first commit.
    pub commit: Option<String>,
    /// The branch's short name; `None` if HEAD is detached.
    pub branch: Option<String>,
}

/// The folder of the nearest checkout at or above `directory`, which holds `.git`.
#[must_use]
pub fn checkout_root(directory: &Path) -> Option<&Path> {
    directory.ancestors().find(|directory| directory.join(".git").symlink_metadata().is_ok())
}

/// Where a folder lies in its checkout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The checkout's root.
    pub root: PathBuf,
    /// The folder, relative to the root; empty if it is the root.
    pub prefix: PathBuf,
}

/// Where `directory` (canonical) lies in the checkout around it. `None` without one, and for a folder that the checkout
/// ignores and tracks nothing of: that is somebody else's.
///
/// # Errors
/// [`GitError`].
pub fn standing(directory: &Path) -> Result<Option<Standing>, GitError> {
    let Some(root) = checkout_root(directory) else { return Ok(None) };
    let prefix = directory.strip_prefix(root).unwrap_or(Path::new("")).to_owned();
    let standing = Standing { root: root.to_owned(), prefix };
    if standing.prefix.as_os_str().is_empty() {
        return Ok(Some(standing));
    }
    // git says no, without a word, of what is not ignored.
    let is_ignored = match git::ask(directory, &["check-ignore", "--quiet", "."]) {
        Ok(_) => true,
        Err(GitError::Refused(words)) if words.is_empty() => false,
        Err(GitError::NoRepository) => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_foreign = is_ignored && git::ask(directory, &["ls-files", "-z", "--", "."])?.is_empty();
    Ok((!is_foreign).then_some(standing))
}

/// Where the checkout at or above `directory` stands.
///
/// # Errors
/// [`GitError::NoRepository`], or what git says where the files alone do not tell.
pub fn head(directory: &Path) -> Result<Head, GitError> {
    let root = checkout_root(directory).ok_or(GitError::NoRepository)?;
    match head_from_files(root) {
        Some(head) => Ok(head),
        None => head_from_git(root),
    }
}

/// `None` if anything is not as usual.
fn head_from_files(root: &Path) -> Option<Head> {
    let own = git_directory(root)?;
    head_in(&own, &shared_directory(&own))
}

/// Where the checkout stands whose repository keeps what is its own in one folder, and the references in another or the same; `None` if anything
/// is not as usual.
pub(crate) fn head_in(own: &Path, shared: &Path) -> Option<Head> {
    if shared.join("reftable").is_dir() {
        return None;
    }
    let mut value = small_text(&own.join("HEAD"))?;
    let mut branch = None;
    for _ in 0..LINKS_MAX {
        let Some(reference) = value.strip_prefix("ref: ") else {
            return Some(Head { commit: Some(object_id(&value)?), branch });
        };
        let reference = reference.trim_end().to_owned();
        if !is_reference(&reference) {
            return None;
        }
        branch = branch.or_else(|| reference.strip_prefix("refs/heads/").map(str::to_owned));
        match small_text(&shared.join(&reference)).or_else(|| packed(shared, &reference)) {
            Some(next) => value = next,
            None => return Some(Head { commit: None, branch }),
        }
    }
    None
}

/// Where the repository of a checkout keeps what is its own; `None` of a folder that is none.
pub(crate) fn git_directory(root: &Path) -> Option<PathBuf> {
    let path = root.join(".git");
    if path.is_dir() {
        return Some(path);
    }
    let text = small_text(&path)?;
    Some(root.join(text.strip_prefix("gitdir: ")?.trim_end_matches(['\n', '\r'])))
}

/// Where the repository keeps what belongs to all its checkouts, by where it keeps what is one's own.
pub(crate) fn shared_directory(own: &Path) -> PathBuf {
    match small_text(&own.join("commondir")) {
        Some(path) => own.join(path.trim_end()),
        None => own.to_owned(),
    }
}

/// The folder in which git keeps what belongs to the checkout at `root`, and to the other checkouts of the same repository, if it is not in
/// it: of a linked worktree, of a submodule, of `--separate-git-dir`.
pub(crate) fn directory_outside(root: &Path) -> Option<PathBuf> {
    if root.join(".git").is_dir() {
        return None;
    }
    let shared = fs::canonicalize(shared_directory(&git_directory(root)?)).ok()?;
    (!shared.starts_with(root) && !root.starts_with(&shared)).then_some(shared)
}

fn small_text(path: &Path) -> Option<String> {
    bounded_text(path, SMALL_BYTES_MAX)
}

fn bounded_text(path: &Path, bytes_max: u64) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(bytes_max).read_to_string(&mut text).ok()?;
    Some(text)
}

fn packed(shared: &Path, reference: &str) -> Option<String> {
    let text = bounded_text(&shared.join("packed-refs"), PACKED_BYTES_MAX)?;
    let line = text.lines().find(|line| line.split_once(' ').is_some_and(|(_, name)| name == reference))?;
    line.split_once(' ').map(|(id, _)| id.to_owned())
}

fn is_reference(name: &str) -> bool {
    name.starts_with("refs/") && !name.split('/').any(|part| part.is_empty() || part.starts_with('.'))
}

fn object_id(text: &str) -> Option<String> {
    let id = text.trim_end();
    let is_id = matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_ascii_lowercase())
}

fn head_from_git(root: &Path) -> Result<Head, GitError> {
    let line = |arguments: &[&str]| {
        let answer = git::ask(root, arguments)?;
        let text = String::from_utf8_lossy(&answer).trim_end().to_owned();
        Ok::<_, GitError>(Some(text).filter(|text| !text.is_empty()))
    };
    let optional = |answer: Result<Option<String>, GitError>| match answer {
        Err(GitError::Refused(_)) => Ok(None),
        other => other,
    };
    Ok(Head {
        commit: optional(line(&["rev-parse", "--quiet", "--verify", "HEAD^{commit}"]))?,
        branch: optional(line(&["symbolic-ref", "--quiet", "--short", "HEAD"]))?,
    })
}

/// Up to where changes are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until<'c> {
    /// This commit.
    Commit(&'c str),
    /// The files as they are now: also what is not committed, and untracked files that are not ignored.
    Now,
}

/// The files below `directory` that changed since the last common commit with `base` (a branch or commit), as paths
/// relative to it: sorted, no duplicates; a renamed file counts with both names. Names that are not UTF-8 have their
/// bytes replaced.
///
/// # Errors
/// [`GitError`]; also when there is no common commit.
pub fn changed_files(directory: &Path, base: &str, until: Until<'_>) -> Result<Vec<String>, GitError> {
    checkout_root(directory).ok_or(GitError::NoRepository)?;
    let base = git::name(base)?;
    let commit = match until {
        Until::Commit(commit) => git::name(commit)?,
        Until::Now => "HEAD",
    };
    const DIFF: [&str; 8] = [
        "diff",
        "--name-only",
        "--relative",
        "-z",
        "--no-renames",
        "--no-ext-diff",
        "--no-textconv",
        "--ignore-submodules=none",
    ];
    let mut arguments = DIFF.to_vec();
    let range = format!("{base}...{commit}");
    arguments.extend(["--end-of-options", &range, "--"]);
    let mut files = names(&git::ask(directory, &arguments)?);
    if until == Until::Now {
        let mut arguments = DIFF.to_vec();
        arguments.extend(["HEAD", "--"]);
        files.append(&mut names(&git::ask(directory, &arguments)?));
        files.append(&mut names(&git::ask(directory, &["ls-files", "-z", "-o", "--exclude-standard"])?));
    }
    Ok(files.into_iter().collect())
}

/// The branches, by short name, that hold the commit: sorted, no duplicates. Remote ones without the remote's name.
///
/// # Errors
/// [`GitError`].
pub fn branches_holding(directory: &Path, commit: &str) -> Result<Vec<String>, GitError> {
    let contains = format!("--contains={}", git::name(commit)?);
    let arguments = ["for-each-ref", "--format=%(refname)", &contains, "refs/heads", "refs/remotes"];
    let answer = git::ask(directory, &arguments)?;
    let text = String::from_utf8_lossy(&answer);
    let short = |name: &str| match name.strip_prefix("refs/remotes/") {
        Some(remote) => remote.split_once('/').map(|(_, branch)| branch.to_owned()),
        None => name.strip_prefix("refs/heads/").map(str::to_owned),
    };
    let branches: BTreeSet<String> = text.lines().filter_map(short).filter(|name| name != "HEAD").collect();
    Ok(branches.into_iter().collect())
}

/// The tags that point at `commit`, sorted.
///
/// # Errors
/// [`GitError`].
pub fn tags_at(directory: &Path, commit: &str) -> Result<Vec<String>, GitError> {
    let points_at = format!("--points-at={}", git::name(commit)?);
    let answer = git::ask(directory, &["for-each-ref", "--format=%(refname:lstrip=2)", &points_at, "refs/tags"])?;
    Ok(String::from_utf8_lossy(&answer).lines().map(str::to_owned).collect())
}

fn names(answer: &[u8]) -> BTreeSet<String> {
    let names = answer.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

/// The name of the user of this process: `$USER`, else what the system's list of users says, else the user's number.
#[must_use]
pub fn user_name() -> String {
    let said = ["USER", "LOGNAME"].into_iter().filter_map(std::env::var_os).find(|name| !name.is_empty());
    if let Some(name) = said {
        return String::from_utf8_lossy(&name.into_vec()).into_owned();
    }
    let number = rustix::process::getuid().as_raw().to_string();
    let users = bounded_text(Path::new("/etc/passwd"), PACKED_BYTES_MAX).unwrap_or_default();
    let user = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut user = user.filter(|fields| fields.get(2).is_some_and(|id| *id == number));
    user.next().map_or(number.clone(), |fields| fields[0].to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::path::Path;

    use super::{
        Head, Standing, Until, branches_holding, changed_files, head, head_from_files, head_from_git, standing,
    };
    use crate::git::GitError;

    pub(crate) fn git(directory: &Path, arguments: &[&str]) -> String {
        let mut all = vec!["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"];
        all.extend(arguments);
        String::from_utf8(crate::git::ask(directory, &all).unwrap()).unwrap().trim().to_owned()
    }

    pub(crate) fn repository() -> tempfile::TempDir {
        let scratch = tempfile::tempdir().unwrap();
        git(scratch.path(), &["init", "-q"]);
        fs::write(scratch.path().join("a"), "1").unwrap();
        git(scratch.path(), &["add", "a"]);
        git(scratch.path(), &["commit", "-q", "-m", "one"]);
        scratch
    }

    /// Both ways agree, and that no process is needed.
    fn check(directory: &Path, branch: Option<&str>) {
        let head = head_from_files(directory).unwrap();
        assert_eq!(head, head_from_git(directory).unwrap());
        assert_eq!(head.branch.as_deref(), branch);
        assert!(head.commit.is_some());
    }

    #[test]
    fn heads_of_all_kinds() {
        let repository = repository();
        let root = repository.path();
        check(root, Some("main"));
        git(root, &["checkout", "-q", "-b", "feature/x"]);
        check(root, Some("feature/x"));
        git(root, &["pack-refs", "--all"]);
        check(root, Some("feature/x"));
        git(root, &["worktree", "add", "-q", "-b", "side", "tree"]);
        check(&root.join("tree"), Some("side"));
        git(root, &["checkout", "-q", "--detach"]);
        check(root, None);
        fs::create_dir(root.join("deep")).unwrap();
        assert_eq!(head(&root.join("deep")), head(root));
    }

    #[test]
    fn no_commit_and_no_repository() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(head(scratch.path()), Err(GitError::NoRepository));
        git(scratch.path(), &["init", "-q"]);
        let expected = Head { commit: None, branch: Some("main".to_owned()) };
        assert_eq!(head(scratch.path()), Ok(expected.clone()));
        assert_eq!(head_from_git(scratch.path()), Ok(expected));
    }

    #[test]
    fn a_head_that_leads_elsewhere_is_not_followed() {
        let repository = repository();
        fs::write(repository.path().join(".git/HEAD"), "ref: refs/../../../etc/passwd\n").unwrap();
        assert_eq!(head_from_files(repository.path()), None);
    }

    #[test]
    fn changes() {
        let repository = repository();
        let root = repository.path();
        git(root, &["checkout", "-q", "-b", "side"]);
        fs::write(root.join("b c\nd"), "1").unwrap();
        git(root, &["mv", "a", "moved"]);
        git(root, &["add", "."]);
        git(root, &["commit", "-q", "-m", "two"]);
        assert_eq!(changed_files(root, "main", Until::Commit("side")).unwrap(), ["a", "b c\nd", "moved"]);
        assert_eq!(changed_files(root, "side", Until::Commit("side")).unwrap(), [""; 0]);
        fs::write(root.join("new"), "1").unwrap();
        fs::write(root.join("moved"), "2").unwrap();
        assert_eq!(changed_files(root, "side", Until::Now).unwrap(), ["moved", "new"]);
        let fault = changed_files(root, "--output=/tmp/x", Until::Now).unwrap_err();
        assert_eq!(fault.to_string(), "`--output=/tmp/x` is not the name of a commit or branch");
        assert!(matches!(changed_files(root, "nope", Until::Now), Err(GitError::Refused(_))));
    }

    #[test]
    fn changes_of_a_folder_are_relative_to_it() {
        let repository = repository();
        let folder = repository.path().join("sub/deep");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("b"), "1").unwrap();
        git(repository.path(), &["checkout", "-q", "-b", "side"]);
        git(repository.path(), &["add", "."]);
        git(repository.path(), &["commit", "-q", "-m", "two"]);
        fs::write(folder.join("c"), "1").unwrap();
        fs::write(repository.path().join("a"), "2").unwrap();
        assert_eq!(changed_files(&folder, "main", Until::Commit("side")).unwrap(), ["b"]);
        assert_eq!(changed_files(&folder, "main", Until::Now).unwrap(), ["b", "c"]);
    }

    #[test]
    fn folders_of_a_checkout() {
        let repository = repository();
        let root = repository.path().canonicalize().unwrap();
        let check = |folder: &str, prefix: Option<&str>| {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).unwrap();
            let expected = prefix.map(|prefix| Standing { root: root.clone(), prefix: prefix.into() });
            assert_eq!(standing(&folder), Ok(expected), "{}", folder.display());
        };
        fs::write(root.join(".gitignore"), "ignored\nforced\n").unwrap();
        fs::create_dir(root.join("forced")).unwrap();
        fs::write(root.join("forced/tracked"), "").unwrap();
        git(&root, &["add", "-f", "forced/tracked"]);
        check("", Some(""));
        check("sub/deep", Some("sub/deep"));
        check("forced", Some("forced"));
        check("ignored", None);
        check("ignored/deep", None);
        assert_eq!(standing(tempfile::tempdir().unwrap().path()), Ok(None));
    }

    #[test]
    fn branches() {
        let repository = repository();
        let commit = git(repository.path(), &["rev-parse", "HEAD"]);
        git(repository.path(), &["branch", "old"]);
        assert_eq!(branches_holding(repository.path(), &commit).unwrap(), ["main", "old"]);
    }
}
