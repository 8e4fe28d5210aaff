//! A look at a checkout, by a git that works while its asker does something else. What it saw serves twice: people are told
//! whether the files are those of the commit, and the build's snapshot need not ask again, unless a file was touched since.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Child;

use graph::Digest;
use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

use super::watch::Moment;
use super::{WorkspaceError, checkout};
use crate::git::{self, GitError};
use crate::repository::checkout_root;

/// A look under way.
#[derive(Debug)]
pub struct Look {
    began: Moment,
    root: PathBuf,
    /// `None` where there is no checkout.
    git: Option<Result<Child, GitError>>,
    /// Whether the checkout is the directory itself, not one around it.
    is_own: bool,
}

/// git does not say how the files of a checkout stand. Its text has several lines: git's words on their own, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "git does not say how the files of `{}` stand, of which jobs are given a copy:\n{}\n{}",
    root.display(),
    indented(&self.words()),
    self.cure()
)]
pub struct Blind {
    /// The folder that holds `.git`.
    pub root: PathBuf,
    /// Why.
    pub cause: GitError,
}

impl Blind {
    fn words(&self) -> String {
        match &self.cause {
            GitError::NoProgram => "no program `git` was found".to_owned(),
            GitError::NoFolder(folder) => format!("the folder `{}` is gone", folder.display()),
            GitError::NoRepository => match unreadable(&self.root) {
                Some(error) => format!("`{}` cannot be read: {error}", self.root.join(".git").display()),
                None => format!("`{}` is there, but holds no repository", self.root.join(".git").display()),
            },
            GitError::Refused(words) => words.clone(),
            GitError::NotAName(_) => self.cause.to_string(),
        }
    }

    fn cure(&self) -> String {
        let root = self.root.display();
        match &self.cause {
            GitError::NoProgram => "Install git, or set PATH so that it is found.".to_owned(),
            GitError::NoFolder(_) => "Put it back, or work in another one.".to_owned(),
            GitError::NoRepository if unreadable(&self.root).is_some() => {
                "Make it readable for you, or run this as its owner.".to_owned()
            }
            GitError::NoRepository => "Repair it; or remove it, and `git init` makes a new one.".to_owned(),
            GitError::Refused(words) if words.contains("dubious ownership") => {
                "The folder belongs to another user: run this as its owner, or tell git to trust it, as it says above."
                    .to_owned()
            }
            GitError::Refused(_) | GitError::NotAName(_) => {
                format!("Mend that first: `git -C {root} status` shows whether git answers.")
            }
        }
    }
}

/// Why the `.git` of a checkout cannot be read; `None` if it can.
fn unreadable(root: &Path) -> Option<Errno> {
    let flags = AtFlags::EACCESS;
    let path = root.join(".git");
    let wanted = if path.is_dir() { Access::READ_OK | Access::EXEC_OK } else { Access::READ_OK };
    rustix::fs::accessat(CWD, path, wanted, flags).err()
}

fn indented(words: &str) -> String {
    let lines = words.lines().map(|line| if line.is_empty() { String::new() } else { format!("  {line}") });
    lines.collect::<Vec<_>>().join("\n")
}

/// What git said of a checkout.
#[derive(Debug)]
pub struct Seen {
    /// Before it looked.
    began: Moment,
    root: PathBuf,
    answer: Vec<u8>,
}

impl Look {
    /// Begins to look at the checkout at or above `directory`.
    #[must_use]
    pub fn begin(directory: &Path) -> Self {
        let began = Moment::now();
        let Some(root) = checkout_root(directory) else {
            return Self { began, root: PathBuf::new(), git: None, is_own: false };
        };
        let git = git::start(root, &checkout::status_of(checkout::Submodules::Compared));
        Self { began, root: root.to_owned(), git: Some(git), is_own: root == directory }
    }

    /// What was seen, as soon as it is; `None` where there is no checkout, or git does not say.
    #[must_use]
    pub fn end(self) -> Option<Seen> {
        self.seen().ok().flatten()
    }

    /// As [`Look::end`], with why git does not say. `None` where there is no checkout, and where git cannot compare submodules but answers
    /// of the checkout itself.
    ///
    /// # Errors
    /// [`Blind`].
    pub fn seen(mut self) -> Result<Option<Seen>, Blind> {
        let Some(git) = self.git.take() else { return Ok(None) };
        let root = std::mem::take(&mut self.root);
        match git.and_then(git::answer) {
            Ok(answer) => Ok(Some(Seen { began: self.began, root, answer })),
            Err(GitError::Refused(_))
                if git::ask(&root, &checkout::status_of(checkout::Submodules::LeftOut)).is_ok() =>
            {
                Ok(None)
            }
            // git looks on above what is no repository, and so does whoever takes the files.
            Err(GitError::NoRepository) if !self.is_own && unreadable(&root).is_none() => Ok(None),
            Err(cause) => Err(Blind { root, cause }),
        }
    }

    /// Whether the files are those of the commit. [`graph::Checkout::AsCommitted`] also if git does not say.
    #[must_use]
    pub fn checkout(self) -> graph::Checkout {
        self.end().map_or(graph::Checkout::AsCommitted, |seen| seen.checkout())
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        if let Some(Ok(git)) = &mut self.git {
            let _ = git.kill();
            let _ = git.wait();
        }
    }
}

impl Seen {
    /// Whether the files are those of the commit.
    #[must_use]
    pub fn checkout(&self) -> graph::Checkout {
        match checkout::has_changes(&self.answer) {
            true => graph::Checkout::Changed,
            false => graph::Checkout::AsCommitted,
        }
    }

    /// Whether the files can be read that jobs are given a copy of. Of submodules, and of repositories that the commit does not know, nothing
    /// is said.
    ///
    /// # Errors
    /// [`WorkspaceError::Unreadable`]: one cannot.
    pub fn check_readable(&self) -> Result<(), WorkspaceError> {
        let flags = AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW;
        let is_refused = |path: &PathBuf| {
            rustix::fs::accessat(CWD, self.root.join(path), Access::READ_OK, flags) == Err(Errno::ACCESS)
        };
        let refused = checkout::present_in(&self.answer).into_iter().filter(is_refused);
        let told = refused.filter_map(|path| WorkspaceError::unreadable(&self.root, &path)).next();
        told.map_or(Ok(()), Err)
    }

    /// The commit that was checked out; `None` before the first one.
    #[must_use]
    pub fn commit(&self) -> Option<String> {
        checkout::commit_of(&self.answer)
    }

    /// What tells these files from all others; `None` if that cannot be said. What is ignored does not count.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        checkout::status_after(&self.root, &self.answer).ok()?.digest(&self.root)
    }

    /// What is to be remembered of it by which a build can tell at its end who has changed the files.
    #[must_use]
    pub fn beginning(&self) -> Beginning {
        let (began, root, commit) = (self.began, self.root.clone(), self.commit());
        Beginning { began, root, commit, differing: checkout::differing(&self.answer) }
    }

    /// The state of the checkout at `root` and its submodules, with a moment before git looked; `None` if this was seen of another one.
    pub(super) fn status(&self, root: &Path) -> Option<(Moment, Result<checkout::Status, WorkspaceError>)> {
        let is_of_it = self.root == root || self.root.canonicalize().is_ok_and(|seen| seen == root);
        is_of_it.then(|| (self.began, checkout::status_after(root, &self.answer)))
    }
}

/// How a checkout stood when a build began.
#[derive(Clone, Debug)]
pub struct Beginning {
    began: Moment,
    root: PathBuf,
    commit: Option<String>,
    /// What was not as in the commit.
    differing: BTreeSet<PathBuf>,
}

impl Beginning {
    /// The digest of the files as they are now, if all that has become of them since was made in these spans of time, in which jobs worked among
    /// them; `None` if somebody else has changed one, or that cannot be told.
    #[must_use]
    pub fn digest_now(&self, worked: &[(Moment, Moment)]) -> Option<Digest> {
        let seen = Look::begin(&self.root).end()?;
        let differing = checkout::differing(&seen.answer);
        let status = checkout::status_after(&self.root, &seen.answer).ok()?;
        let is_own = |path: &PathBuf| {
            let Ok(there) = self.root.join(path).symlink_metadata() else { return false };
            self.began.is_after_changes(&there) || worked.iter().any(|(from, to)| from.spans_change(*to, &there))
        };
        let is_explained = seen.commit() == self.commit
            && self.differing.is_subset(&differing)
            && status.gone.iter().all(|path| self.differing.contains(path))
            && status.files().all(is_own);
        is_explained.then(|| status.digest(&self.root))?
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use graph::Checkout;

    use super::super::watch::tests::pass;
    use super::{Look, Moment, checkout};
    use crate::repository::tests::{git, repository};

    #[test]
    fn a_look_sees_whether_files_are_as_committed() {
        let repository = repository();
        let root = repository.path();
        let check = |expected: Checkout| assert_eq!(Look::begin(root).checkout(), expected);
        check(Checkout::AsCommitted);
        fs::write(root.join("a"), "changed").unwrap();
        check(Checkout::Changed);
        git(root, &["commit", "-q", "-a", "-m", "two"]);
        check(Checkout::AsCommitted);
        fs::write(root.join("new"), "1").unwrap();
        check(Checkout::Changed);
        fs::write(root.join(".git/info/exclude"), "new\n").unwrap();
        check(Checkout::AsCommitted);
        fs::remove_file(root.join("a")).unwrap();
        check(Checkout::Changed);
        assert_eq!(Look::begin(tempfile::tempdir().unwrap().path()).checkout(), Checkout::AsCommitted);
    }

    #[test]
    fn a_look_tells_a_snapshot_what_git_would() {
        let (outer, inner) = (repository(), repository());
        let root = outer.path();
        let source = inner.path().to_str().unwrap();
        git(root, &["-c", "protocol.file.allow=always", "submodule", "add", "-q", source, "sub"]);
        git(root, &["commit", "-q", "-m", "sub"]);
        assert_eq!(Look::begin(root).checkout(), Checkout::AsCommitted);
        fs::write(root.join("sub/a"), "changed").unwrap();
        assert_eq!(Look::begin(root).checkout(), Checkout::Changed);
        fs::write(root.join("new"), "1").unwrap();
        fs::write(root.join("ignored"), "1").unwrap();
        fs::write(root.join(".git/info/exclude"), "ignored\n").unwrap();
        fs::remove_file(root.join("a")).unwrap();
        let seen = Look::begin(root).end().unwrap();
        let told = format!("{:?}", checkout::status_after(root, &seen.answer).unwrap());
        assert_eq!(told, format!("{:?}", checkout::status(root).unwrap()));
        assert!(told.contains(r#"present: ["new", "sub/a"]"#), "{told}");
        assert!(seen.status(inner.path()).is_none());
    }

    #[test]
    fn files_that_jobs_made_are_told_from_those_that_somebody_else_did() {
        let repository = repository();
        let root = repository.path();
        let write = |path: &str, text: &str| fs::write(root.join(path), text).unwrap();
        write("dirty", "1");
        pass();
        let seen = Look::begin(root).end().unwrap();
        let beginning = seen.beginning();
        assert_eq!(beginning.digest_now(&[]), seen.digest());
        pass();
        let from = Moment::now();
        write("made", "1");
        let worked = [(from, Moment::end_of_now())];
        let made = beginning.digest_now(&worked);
        assert!(made.is_some() && made != seen.digest());
        assert_eq!(made, Look::begin(root).end().unwrap().digest());
        assert_eq!(beginning.digest_now(&[]), None, "nobody worked");
        pass();
        for (path, text, back) in [("dirty", "2", "1"), ("a", "2", "a"), ("other", "2", "")] {
            write(path, text);
            assert_eq!(beginning.digest_now(&worked), None, "{path}");
            assert_ne!(Look::begin(root).end().unwrap().digest(), made, "{path}");
            if back.is_empty() { fs::remove_file(root.join(path)).unwrap() } else { write(path, back) }
        }
        fs::remove_file(root.join("dirty")).unwrap();
        assert_eq!(beginning.digest_now(&worked), None, "gone");
    }
}
