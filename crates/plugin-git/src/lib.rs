//! A plugin for Git: what version this is, the changes since the last tag, new tags.
//!
//! In a program, the values that jobs hand on have types:
//!
//! ```no_run
//! use ropewalk::{Ci, Cx, Failure};
//! use ropewalk_git::Described;
//!
//! fn ci(ci: &Ci) {
//!     let described = ropewalk_git::describe(ci);
//!     ci.job("publish").inputs(&described).run_fn(|cx: &mut Cx, described: Described| -> Result<(), Failure> {
//!         cx.sh(format!("./publish.sh {}", described.version))
//!     });
//! }
//! ```
//!
//! In a config file they are outputs:
//!
//! ```yaml
//! plugins: [git]
//! jobs:
//!   describe: { use: git.describe }
//!   changes: { use: git.changelog, with: { prefix: release- } }
//!   publish: { needs: [describe, changes], run: "./publish.sh ${{ needs.describe.outputs.version }}" }
//!   tag: { use: git.tag, needs: [publish], with: { bump: minor, push: origin, token: GIT_TOKEN } }
//! ```
//!
//! Nothing leaves the machine unless [`Tag::push`] says where to.

mod changelog;
mod describe;
mod tag;
mod version;

use ropewalk::{Ci, Job, Plugin};

pub use changelog::{CHANGES_MAX, Changelog, FILE};
pub use describe::Described;
pub use tag::{Tag, Tagged};
pub use version::{Bump, NoVersion, Version};

/// What stands before the version in tags, if nothing else is said.
pub const PREFIX: &str = "v";

/// The plugin: `git.describe`, `changelog` and `tag`.
#[must_use]
pub fn plugin() -> Plugin {
    let git = |with: &ropewalk::With| Git::new().prefix(with.text("prefix").unwrap_or_else(|| PREFIX.to_owned()));
    Plugin::new("git")
        .job("describe", move |job, with| git(with).describe(job))
        .job("changelog", move |job, with| git(with).changelog(job))
        .job("tag", move |job, with| git(with).tag(job, &Tag::of(with)))
}

/// Adds the job `describe`.
#[track_caller]
pub fn describe(ci: &Ci) -> Job<Described> {
    Git::new().describe(ci.job("describe"))
}

/// Adds the job `changelog`.
#[track_caller]
pub fn changelog(ci: &Ci) -> Job<Changelog> {
    Git::new().changelog(ci.job("changelog"))
}

/// Adds the job `tag`.
#[track_caller]
pub fn tag(ci: &Ci, tag: &Tag) -> Job<Tagged> {
    Git::new().tag(ci.job("tag"), tag)
}

/// Which tags are versions.
#[derive(Clone, Debug)]
pub struct Git {
    prefix: String,
}

impl Default for Git {
    fn default() -> Self {
        Self { prefix: PREFIX.to_owned() }
    }
}

impl Git {
    /// Tags are [`PREFIX`] and a version.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What stands before the version in tags. It may be empty.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// What version this is: the last tag that is one, and how far the commit is from it.
    #[track_caller]
    pub fn describe(&self, job: Job) -> Job<Described> {
        let git = self.clone();
        job.run_fn(move |cx, ()| describe::describe(cx, &git.prefix))
    }

    /// The changes since the last tag, as Markdown: in the build's summary, and handed on as the file [`FILE`]. Of a commit that has a tag
    /// itself, the changes since the one before.
    #[track_caller]
    pub fn changelog(&self, job: Job) -> Job<Changelog> {
        let git = self.clone();
        job.run_fn(move |cx, ()| changelog::changelog(cx, &git.prefix))
    }

    /// Makes a tag for the commit. A tag that is there already and means the same commit is left as it is; one that means another fails.
    #[track_caller]
    pub fn tag(&self, job: Job, tag: &Tag) -> Job<Tagged> {
        tag.job(job, self.prefix.clone())
    }
}

#[cfg(test)]
mod tests;
