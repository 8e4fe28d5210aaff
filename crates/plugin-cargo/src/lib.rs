//! A plugin for Cargo: format, lints, tests, coverage, release builds, documentation.
//!
//! In a program:
//!
//! ```no_run
//! use ropewalk::Ci;
//! use ropewalk_cargo::Cargo;
//!
//! fn ci(ci: &Ci) {
//!     let jobs = ropewalk_cargo::jobs(ci);
//!     Cargo::new().package("app").features(["tls"]).release(ci.job("app").needs(&jobs.test));
//! }
//! ```
//!
//! In a config file, with the same options under `with`:
//!
//! ```yaml
//! plugins: [cargo]
//! jobs:
//!   lint: { use: cargo.clippy, with: { all_features: true } }
//!   test: { use: cargo.nextest, timeout: 10m }
//! ```
//!
//! Every job is an ordinary one: what is said of it afterwards stands. Jobs are reused while nothing in the repository that they
//! may read has changed, and keep what Cargo downloads and builds in caches under the lock files and the pinned toolchain.

mod scripts;

use ropewalk::{Cache, Ci, Job, Plugin, Reuse, Step, With, Workspace};

/// Where binaries of [`Cargo::release`] are handed on, relative to the repository's root.
pub const BINARIES: &str = "target/dist";
/// Where [`Cargo::coverage`] hands on its report.
pub const COVERAGE: &str = "target/coverage/lcov.info";

/// What keys of caches end with: the locked versions and the pinned toolchain. Nothing of the machine: a job that reads `runner` is
/// never reused, and Cargo itself keeps what other machines and compilers have built apart.
const KEY: &str = "${{ hash_files('**/Cargo.lock', 'rust-toolchain.toml', 'rust-toolchain') }}";
/// What Cargo keeps of registries and repositories; sources are unpacked from it anew.
const DOWNLOADS: [&str; 3] = ["~/.cargo/registry/index", "~/.cargo/registry/cache", "~/.cargo/git/db"];
/// What decides how code is formatted.
const FORMATTED: [&str; 6] =
    ["**/*.rs", "**/Cargo.toml", "**/rustfmt.toml", "**/.rustfmt.toml", "rust-toolchain.toml", "rust-toolchain"];

/// The plugin: `cargo.fmt`, `clippy`, `nextest`, `coverage`, `release` and `doc`.
#[must_use]
pub fn plugin() -> Plugin {
    Plugin::new("cargo")
        .job("fmt", |job, with| Cargo::of(with).fmt(job))
        .job("clippy", |job, with| Cargo::of(with).clippy(job))
        .job("nextest", |job, with| Cargo::of(with).nextest(job))
        .job("coverage", |job, with| Cargo::of(with).coverage(job))
        .job("release", |job, with| Cargo::of(with).release(job))
        .job("doc", |job, with| Cargo::of(with).doc(job))
}

/// The usual jobs, by [`jobs`].
pub struct Jobs {
    /// `fmt`.
    pub fmt: Job,
    /// `clippy`.
    pub clippy: Job,
    /// `test`.
    pub test: Job,
    /// `doc`.
    pub doc: Job,
}

/// Adds the usual jobs of a workspace: `fmt`, `clippy`, `test` and `doc`, each by itself.
#[track_caller]
pub fn jobs(ci: &Ci) -> Jobs {
    Jobs { fmt: fmt(ci), clippy: clippy(ci), test: nextest(ci), doc: doc(ci) }
}

/// Adds the job `fmt`: all code is formatted.
#[track_caller]
pub fn fmt(ci: &Ci) -> Job {
    Cargo::new().fmt(ci.job("fmt"))
}

/// Adds the job `clippy`: no lint finds anything in any target.
#[track_caller]
pub fn clippy(ci: &Ci) -> Job {
    Cargo::new().clippy(ci.job("clippy"))
}

/// Adds the job `test`: all tests pass.
#[track_caller]
pub fn nextest(ci: &Ci) -> Job {
    Cargo::new().nextest(ci.job("test"))
}

/// Adds the job `coverage`: the lines that tests reach are written down.
#[track_caller]
pub fn coverage(ci: &Ci) -> Job {
    Cargo::new().coverage(ci.job("coverage"))
}

/// Adds the job `release`: binaries are built and handed on.
#[track_caller]
pub fn release(ci: &Ci) -> Job {
    Cargo::new().release(ci.job("release"))
}

/// Adds the job `doc`: the documentation is built without warnings, and handed on.
#[track_caller]
pub fn doc(ci: &Ci) -> Job {
    Cargo::new().doc(ci.job("doc"))
}

/// What of a workspace is built, and how. Texts may hold `${{ }}`.
#[derive(Clone, Debug, Default)]
pub struct Cargo {
    packages: Vec<String>,
    features: Features,
    profile: Option<String>,
    nextest_profile: Option<String>,
    lock: Lock,
    warnings: Warnings,
    tree: Tree,
    inputs: Vec<String>,
}

/// Which features are on.
#[derive(Clone, Debug, Default)]
struct Features {
    all: bool,
    without_default: bool,
    named: Vec<String>,
}

/// Whether the lock file may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lock {
    #[default]
    MayChange,
    Stays,
}

/// What warnings of Clippy and of rustdoc are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Warnings {
    #[default]
    Failures,
    Remarks,
}

/// Where jobs build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Tree {
    /// In a workspace of their own, with caches.
    #[default]
    Own,
    /// In the user's tree, whose `target` is already there.
    InPlace,
}

impl Cargo {
    /// The whole workspace, as it is.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As a config file says it: `package`, `features`, `all_features`, `no_default_features`, `profile`, `nextest_profile`,
    /// `locked`, `allow_warnings`, `in_place`, `inputs`.
    #[must_use]
    pub fn of(with: &With) -> Self {
        Self {
            packages: with.texts("package"),
            features: Features {
                all: with.flag("all_features"),
                without_default: with.flag("no_default_features"),
                named: with.texts("features"),
            },
            profile: with.text("profile"),
            nextest_profile: with.text("nextest_profile"),
            lock: if with.flag("locked") { Lock::Stays } else { Lock::MayChange },
            warnings: if with.flag("allow_warnings") { Warnings::Remarks } else { Warnings::Failures },
            tree: if with.flag("in_place") { Tree::InPlace } else { Tree::Own },
            inputs: with.texts("inputs"),
        }
    }

    /// This package, besides those of earlier calls; without any, the whole workspace.
    #[must_use]
    pub fn package(mut self, name: impl Into<String>) -> Self {
        self.packages.push(name.into());
        self
    }

    /// These features, besides the default ones and those of earlier calls.
    #[must_use]
    pub fn features<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.features.named.extend(names.into_iter().map(Into::into));
        self
    }

    /// All features.
    #[must_use]
    pub fn all_features(mut self) -> Self {
        self.features.all = true;
        self
    }

    /// Without the default features.
    #[must_use]
    pub fn no_default_features(mut self) -> Self {
        self.features.without_default = true;
        self
    }

    /// The profile that is built with. Without it: `release` for [`Cargo::release`], else Cargo's own.
    #[must_use]
    pub fn profile(mut self, name: impl Into<String>) -> Self {
        self.profile = Some(name.into());
        self
    }

    /// The profile of nextest, of `.config/nextest.toml`.
    #[must_use]
    pub fn nextest_profile(mut self, name: impl Into<String>) -> Self {
        self.nextest_profile = Some(name.into());
        self
    }

    /// `Cargo.lock` must fit the manifests as it is.
    #[must_use]
    pub fn locked(mut self) -> Self {
        self.lock = Lock::Stays;
        self
    }

    /// Warnings are shown and fail nothing.
    #[must_use]
    pub fn allow_warnings(mut self) -> Self {
        self.warnings = Warnings::Remarks;
        self
    }

    /// Jobs build in the user's own tree, with the `target` that is there and without caches.
    #[must_use]
    pub fn in_place(mut self) -> Self {
        self.tree = Tree::InPlace;
        self
    }

    /// The files that results depend on. Without them: every file of the repository, since code may include any.
    #[must_use]
    pub fn inputs<T: Into<String>>(mut self, globs: impl IntoIterator<Item = T>) -> Self {
        self.inputs.extend(globs.into_iter().map(Into::into));
        self
    }

    /// All code is formatted.
    #[track_caller]
    pub fn fmt(&self, job: Job) -> Job {
        let job = match self.tree {
            Tree::Own => job,
            Tree::InPlace => job.workspace(Workspace::InPlace),
        };
        let inputs = if self.inputs.is_empty() { FORMATTED.map(str::to_owned).to_vec() } else { self.inputs.clone() };
        job.input_files(inputs).step(step(scripts::fmt(self)))
    }

    /// No lint finds anything, in any target.
    #[track_caller]
    pub fn clippy(&self, job: Job) -> Job {
        self.building(job, "clippy").step(step(scripts::clippy(self)))
    }

    /// All tests pass: run by `cargo nextest`, with a JUnit report, or where that is not installed by `cargo test`. Nextest runs no
    /// examples in documentation.
    #[track_caller]
    pub fn nextest(&self, job: Job) -> Job {
        self.building(job, "test").junit("target/nextest/*/*.xml").step(step(scripts::nextest(self)))
    }

    /// The lines that tests reach are written down, by `cargo llvm-cov`: [`COVERAGE`], as the artifact `coverage`. It needs
    /// `llvm-cov` and `llvm-profdata` of the compiler's LLVM version: rustup's component `llvm-tools`, or others that the
    /// variables `LLVM_COV` and `LLVM_PROFDATA` name. Tried with cargo-llvm-cov 0.9.1, and with LLVM 22 of Debian.
    #[track_caller]
    pub fn coverage(&self, job: Job) -> Job {
        self.building(job, "coverage").artifact("coverage", COVERAGE).step(step(scripts::coverage(self)))
    }

    /// Binaries are built and handed on as the artifact `binaries`, in [`BINARIES`].
    #[track_caller]
    pub fn release(&self, job: Job) -> Job {
        let glob = format!("{BINARIES}/*");
        self.building(job, "release").artifact("binaries", glob).step(step(scripts::release(self)))
    }

    /// The documentation is built without warnings, and handed on as the artifact `doc`.
    #[track_caller]
    pub fn doc(&self, job: Job) -> Job {
        self.building(job, "doc").artifact("doc", "target/doc/**").step(step(scripts::doc(self)))
    }

    /// A job that compiles: what it depends on, and its caches. Targets of different kinds do not push each other out.
    #[track_caller]
    fn building(&self, job: Job, kind: &str) -> Job {
        let job = job.reuse(Reuse::Always);
        let job = if self.inputs.is_empty() { job } else { job.input_files(self.inputs.clone()) };
        match self.tree {
            Tree::InPlace => job.workspace(Workspace::InPlace),
            Tree::Own => {
                let cache = |name: &str, paths: &[&str]| {
                    let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
                    Cache::new(format!("cargo-{name}-{KEY}"), paths).restore(format!("cargo-{name}-"))
                };
                job.cache(cache("downloads", &DOWNLOADS)).cache(cache(kind, &["target"]))
            }
        }
    }
}

/// A script that `sh` reads, whatever reads the other scripts of the pipeline.
#[track_caller]
fn step(script: String) -> Step {
    Step::sh(script).shell("sh")
}

#[cfg(test)]
mod tests;
