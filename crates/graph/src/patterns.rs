//! Globs over paths of a workspace: inputs, artifacts, reports, `hash_files`.
//!
//! A glob is relative to the workspace's root; `*` and `?` do not match `/`, `**` does. A path without any of `*?[{` means
//! that file, or everything below that directory; so does a glob that matches a directory. A glob that begins with `!`
//! takes away what earlier ones matched. Paths are bytes: names that are not UTF-8 match like others. No glob means a path
//! that leads out of the root by `..`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// A list of globs, compiled.
#[derive(Clone, Debug)]
pub struct Patterns {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    written: String,
    sense: Sense,
    /// The directories before the first component with a wildcard; the whole path if there is none.
    prefix: PathBuf,
    /// `None` if the prefix is all: then the path itself and everything below it match.
    matcher: Option<GlobSet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sense {
    Takes,
    Drops,
}

/// A glob that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternFault {
    /// It is not a glob.
    #[error("`{glob}` is not a glob: {cause}")]
    Syntax {
        /// As written.
        glob: String,
        /// Why not.
        cause: String,
    },
    /// It leads out of the workspace.
    #[error("`{glob}` leads out of the workspace: paths are relative to it, without `..`")]
    Outside {
        /// As written.
        glob: String,
    },
}

impl Patterns {
    /// Compiles globs.
    ///
    /// # Errors
    /// The first one that cannot be used.
    pub fn new<S: AsRef<str>>(globs: &[S]) -> Result<Self, PatternFault> {
        Ok(Self { patterns: globs.iter().map(|glob| Pattern::new(glob.as_ref())).collect::<Result<_, _>>()? })
    }

    /// This path and everything below it, whatever characters it holds.
    #[must_use]
    pub fn literal(path: &Path) -> Self {
        let written = path.to_string_lossy().into_owned();
        Self { patterns: vec![Pattern { written, sense: Sense::Takes, prefix: path.to_owned(), matcher: None }] }
    }

    /// Whether the path, relative to the root, is meant. The last glob that matches decides.
    #[must_use]
    pub fn matches(&self, path: &Path) -> bool {
        let decides = self.patterns.iter().rev().find(|pattern| pattern.matches(path));
        decides.is_some_and(|pattern| pattern.sense == Sense::Takes)
    }

    /// The places of the paths that are meant, in order, no duplicates. `paths` is sorted by bytes. Costs only what lies
    /// below the globs' literal beginnings.
    #[must_use]
    pub fn select<P: AsRef<Path>>(&self, paths: &[P]) -> Vec<usize> {
        let mut selected = Vec::new();
        for pattern in self.patterns.iter().filter(|pattern| pattern.sense == Sense::Takes) {
            for range in below(paths, &pattern.prefix) {
                selected.extend(range.filter(|place| pattern.matches(paths[*place].as_ref())));
            }
        }
        selected.sort_unstable();
        selected.dedup();
        if self.patterns.iter().any(|pattern| pattern.sense == Sense::Drops) {
            selected.retain(|place| self.matches(paths[*place].as_ref()));
        }
        selected
    }

    /// The places from which a walk reaches everything that is meant, relative to the root: sorted, none below another.
    #[must_use]
    pub fn roots(&self) -> Vec<&Path> {
        let takes = self.patterns.iter().filter(|pattern| pattern.sense == Sense::Takes);
        let mut roots: Vec<&Path> = takes.map(|pattern| pattern.prefix.as_path()).collect();
        roots.sort_unstable();
        let mut kept: Vec<&Path> = Vec::new();
        for root in roots {
            if !kept.iter().any(|above| root.starts_with(above)) {
                kept.push(root);
            }
        }
        kept
    }

    /// The globs that take something, and matched none of `paths`, as written.
    #[must_use]
    pub fn unmatched<P: AsRef<Path>>(&self, paths: &[P]) -> Vec<&str> {
        let takes = self.patterns.iter().filter(|pattern| pattern.sense == Sense::Takes);
        let unmatched = takes.filter(|pattern| !paths.iter().any(|path| pattern.matches(path.as_ref())));
        unmatched.map(|pattern| pattern.written.as_str()).collect()
    }
}

impl Pattern {
    fn new(written: &str) -> Result<Self, PatternFault> {
        let (sense, glob) = match written.strip_prefix('!') {
            Some(rest) => (Sense::Drops, rest),
            None => (Sense::Takes, written),
        };
        let outside = || PatternFault::Outside { glob: written.to_owned() };
        if glob.is_empty() {
            return Err(PatternFault::Syntax { glob: written.to_owned(), cause: "it is empty".to_owned() });
        }
        let mut components: Vec<&str> = Vec::new();
        for component in Path::new(glob).components() {
            match component {
                Component::Normal(name) => components.push(name.to_str().unwrap_or_default()),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(outside()),
            }
        }
        let is_wild = |name: &&str| name.contains(['*', '?', '[', '{', '\\']);
        let wild = components.iter().position(is_wild);
        let prefix: PathBuf = components[..wild.unwrap_or(components.len())].iter().collect();
        let matcher = wild.map(|_| matcher(&components.join("/"), written)).transpose()?;
        Ok(Self { written: written.to_owned(), sense, prefix, matcher })
    }

    fn matches(&self, path: &Path) -> bool {
        // A `*` would match the two dots.
        if path.starts_with("..") {
            return false;
        }
        match &self.matcher {
            None => path.starts_with(&self.prefix),
            Some(matcher) => path.starts_with(&self.prefix) && matcher.is_match(path),
        }
    }
}

/// The glob itself, or anything below what it matches.
fn matcher(glob: &str, written: &str) -> Result<GlobSet, PatternFault> {
    let fault =
        |error: globset::Error| PatternFault::Syntax { glob: written.to_owned(), cause: error.kind().to_string() };
    let mut set = GlobSetBuilder::new();
    for glob in [glob, &format!("{glob}/**")] {
        set.add(GlobBuilder::new(glob).literal_separator(true).backslash_escape(true).build().map_err(fault)?);
    }
    set.build().map_err(fault)
}

/// The ranges of sorted `paths` that are the prefix itself and what lies below it.
fn below<P: AsRef<Path>>(paths: &[P], prefix: &Path) -> [std::ops::Range<usize>; 2] {
    let prefix = prefix.as_os_str().as_bytes();
    if prefix.is_empty() {
        return [0..paths.len(), 0..0];
    }
    let itself = paths.partition_point(|path| path.as_ref().as_os_str().as_bytes() < prefix);
    let is_there = paths.get(itself).is_some_and(|path| path.as_ref().as_os_str().as_bytes() == prefix);
    let mut directory = prefix.to_owned();
    directory.push(b'/');
    let start = paths.partition_point(|path| path.as_ref().as_os_str().as_bytes() < directory.as_slice());
    // `0` is the character after `/`.
    directory.pop();
    directory.push(b'0');
    let end = paths.partition_point(|path| path.as_ref().as_os_str().as_bytes() < directory.as_slice());
    [itself..itself + usize::from(is_there), start..end]
}

/// Orders paths by their bytes, as git does; [`Path`]'s own order is by components.
#[must_use]
pub fn by_bytes(left: &Path, right: &Path) -> std::cmp::Ordering {
    left.as_os_str().as_bytes().cmp(right.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::{Patterns, by_bytes};

    const PATHS: [&[u8]; 9] = [
        b"Cargo.lock",
        b"Cargo.toml",
        b"src-old/a.rs",
        b"src/a.rs",
        b"src/deep/b.rs",
        b"src/deep/c.txt",
        b"src0",
        b"target/\xff.bin",
        b"target/app",
    ];

    fn paths() -> Vec<PathBuf> {
        PATHS.iter().map(|path| PathBuf::from(OsStr::from_bytes(path))).collect()
    }

    fn check(globs: &[&str], expected: &str) {
        let shown = match Patterns::new(globs) {
            Err(fault) => fault.to_string(),
            Ok(patterns) => {
                let paths = paths();
                let one = |place: usize| paths[place].to_string_lossy().into_owned();
                patterns.select(&paths).into_iter().map(one).collect::<Vec<_>>().join(" ")
            }
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn globs() {
        check(&["Cargo.*"], "Cargo.lock Cargo.toml");
        check(
            &["*"],
            "Cargo.lock Cargo.toml src-old/a.rs src/a.rs src/deep/b.rs src/deep/c.txt src0 target/\u{fffd}.bin target/app",
        );
        check(&["*.rs"], "");
        check(&["**/*.rs"], "src-old/a.rs src/a.rs src/deep/b.rs");
        check(&["src"], "src/a.rs src/deep/b.rs src/deep/c.txt");
        check(&["./src/"], "src/a.rs src/deep/b.rs src/deep/c.txt");
        check(&["src/*.rs"], "src/a.rs");
        check(&["src/d*"], "src/deep/b.rs src/deep/c.txt");
        check(&["src/**", "!src/deep/*.txt", "src0"], "src/a.rs src/deep/b.rs src0");
        check(&["!src", "src/a.rs"], "src/a.rs");
        check(&["target/*.{bin,exe}"], "target/\u{fffd}.bin");
        check(
            &["."],
            "Cargo.lock Cargo.toml src-old/a.rs src/a.rs src/deep/b.rs src/deep/c.txt src0 target/\u{fffd}.bin target/app",
        );
        check(&[], "");
    }

    #[test]
    fn faults() {
        check(&["../x"], "`../x` leads out of the workspace: paths are relative to it, without `..`");
        check(&["/etc/passwd"], "`/etc/passwd` leads out of the workspace: paths are relative to it, without `..`");
        check(&["!"], "`!` is not a glob: it is empty");
        check(&["src/[a"], "`src/[a` is not a glob: unclosed character class; missing ']'");
    }

    #[test]
    fn roots_cover_all() {
        let patterns = Patterns::new(&["src/deep/*.rs", "src/*.rs", "target/app", "!x/*"]).unwrap();
        assert_eq!(patterns.roots(), ["src".as_ref(), "target/app".as_ref() as &std::path::Path]);
    }

    #[test]
    fn unmatched_globs_are_named() {
        let patterns = Patterns::new(&["src/*.rs", "nope/**", "!also-not"]).unwrap();
        assert_eq!(patterns.unmatched(&paths()), ["nope/**"]);
    }

    proptest! {
        #[test]
        fn selecting_is_matching(
            globs in proptest::collection::vec("!?[ab*?{},\\[\\]/]{1,6}", 1..4),
            paths in proptest::collection::vec("[ab0/-]{1,4}", 0..20),
        ) {
            let mut paths: Vec<PathBuf> = paths.into_iter().map(PathBuf::from).collect();
            paths.retain(|path| path.is_relative() && path.components().count() > 0);
            let mut paths: Vec<PathBuf> = paths.iter().map(|path| path.components().collect()).collect();
            paths.sort_by(|left, right| by_bytes(left, right));
            paths.dedup();
            if let Ok(patterns) = Patterns::new(&globs) {
                let slow: Vec<usize> = (0..paths.len()).filter(|place| patterns.matches(&paths[*place])).collect();
                prop_assert_eq!(patterns.select(&paths), slow);
            }
        }
    }
}
