//! A look at a checkout, by a git that works while its asker does something else. What it saw serves twice: people are told
//! whether the files are those of the commit, and the build's snapshot need not ask again, unless a file was touched since.

use std::path::{Path, PathBuf};
use std::process::Child;

use super::checkout;
use super::watch::Moment;
use crate::git::{self, GitError};
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

    /// The commit that was checked out; `None` before the first one.
    #[must_use]
    pub fn commit(&self) -> Option<String> {
        checkout::commit_of(&self.answer)
    }

    /// The state of the checkout at `root` and its submodules, with a moment before git looked; `None` if this was seen of another one.
    pub(super) fn status(&self, root: &Path) -> Option<(Moment, Result<checkout::Status, GitError>)> {
        let is_of_it = self.root == root || self.root.canonicalize().is_ok_and(|seen| seen == root);
        is_of_it.then(|| (self.began, checkout::status_after(root, &self.answer)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use graph::Checkout;

    use super::{Look, checkout};
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
}
