//! A look at a checkout, by a git that works while its asker does something else. What it saw serves twice: people are told
//! whether the files are those of the commit, and the first job's snapshot need not ask again.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use super::checkout;
use crate::git::{self, GitError};
use crate::repository::checkout_root;

/// How long after git looked its answer may stand for the state of the tree: what is edited later and before the snapshot
/// watches the tree is noticed by neither.
const FRESH: Duration = Duration::from_millis(100);

/// How long git may look. Of one that takes longer it is not known when: it may have waited for its reader.
const LOOKING: Duration = Duration::from_secs(1);

/// A look under way.
#[derive(Debug)]
pub struct Look {
    began: Instant,
    root: PathBuf,
    git: Option<Child>,
}

/// What git said of a checkout.
#[derive(Debug)]
pub struct Seen {
    /// When it looked, or earlier.
    at: Instant,
    root: PathBuf,
    answer: Vec<u8>,
}

impl Look {
    /// Begins to look at the checkout at or above `directory`.
    #[must_use]
    pub fn begin(directory: &Path) -> Self {
        let began = Instant::now();
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
        let mut git = self.git.take()?;
        let still_looks = self.began.elapsed() < LOOKING && matches!(git.try_wait(), Ok(None));
        let answer = git::answer(git).ok()?;
        let at = if still_looks { Instant::now() } else { self.began };
        Some(Seen { at, root: std::mem::take(&mut self.root), answer })
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

    /// The state of the checkout at `root` and its submodules; `None` if this was seen of another one, or too long ago.
    pub(super) fn status(&self, root: &Path) -> Option<Result<checkout::Status, GitError>> {
        let is_of_it = self.root == root || self.root.canonicalize().is_ok_and(|seen| seen == root);
        (is_of_it && self.at.elapsed() < FRESH).then(|| checkout::status_after(root, &self.answer))
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
