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
use crate::git;
use crate::repository::checkout_root;

/// A look under way.
#[derive(Debug)]
pub struct Look {
    began: Moment,
    root: PathBuf,
    git: Option<Child>,
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
        let Some(root) = checkout_root(directory) else { return Self { began, root: PathBuf::new(), git: None } };
        Self {
            began,
            root: root.to_owned(),
            git: git::start(root, &checkout::status_of(checkout::Submodules::Compared)).ok(),
        }
    }

    /// What was seen, as soon as it is; `None` where there is no checkout, or git does not say.
    #[must_use]
    pub fn end(mut self) -> Option<Seen> {
        let answer = git::answer(self.git.take()?).ok()?;
        Some(Seen { began: self.began, root: std::mem::take(&mut self.root), answer })
    }

    /// Whether the files are those of the commit. [`graph::Checkout::AsCommitted`] also if git does not say.
    #[must_use]
    pub fn checkout(self) -> graph::Checkout {
        self.end().map_or(graph::Checkout::AsCommitted, |seen| seen.checkout())
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        if let Some(git) = &mut self.git {
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
