//! The files of a workspace, found from outside by globs, and what stands in one. Links are never followed.
//!
//! The root may be a descriptor's path (`/proc/self/fd/N`) into a job's own mount. To be used when no step of the job
//! runs.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use crate::patterns::{Patterns, by_bytes};

/// How deep directories may be nested.
pub const DEPTH_MAX: usize = 512;

/// How much of a file is looked through at once, and how much of it again with what comes next: as long as all forms of all secrets
/// together may be, so that none hides in a cut.
pub(crate) const WINDOW_BYTES: usize = 16 << 20;
const OVERLAP_BYTES: usize = 4 << 20;

/// A file, link or directory of a workspace.
#[derive(Clone, Debug)]
pub struct Found {
    /// Relative to the workspace's root.
    pub path: PathBuf,
    /// Where it really is.
    pub place: PathBuf,
    /// What it is; of a link, the link itself.
    pub metadata: Metadata,
}

/// Whether directories are wanted as entries of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directories {
    /// Files and links only.
    Left,
    /// Directories too, each before what is in it.
    Taken,
}

/// The name of git's own data: a directory, or a file where the data lies elsewhere (submodules, linked worktrees).
const GIT: &str = ".git";

/// Whether git's own data, at any depth, is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GitData {
    Left,
    Taken,
}

/// Whether a path is git's own data, or lies in it.
#[must_use]
pub fn is_of_git(path: &Path) -> bool {
    path.components().any(|component| component.as_os_str() == GIT)
}

/// Why files cannot be looked for.
#[derive(Debug, thiserror::Error)]
pub enum FilesFault {
    /// The way to a path leads over a link, which is not followed.
    #[error("`{}` is a symbolic link, and is not followed out of the workspace", path.display())]
    Link {
        /// The link, relative to the root.
        path: PathBuf,
    },
    /// There are more files than the caller takes.
    #[error("more than {files_max} files")]
    TooMany {
        /// The caller's bound.
        files_max: usize,
    },
    /// Directories are nested deeper than [`DEPTH_MAX`].
    #[error("directories are nested deeper than {DEPTH_MAX}")]
    Deep,
    /// A path is longer than the system takes.
    #[error("a path is longer than the system takes, below `{}`", path.display())]
    Long {
        /// Up to where it could be followed, relative to the root.
        path: PathBuf,
    },
    /// The system's words.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// What, relative to the root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The files below `root` that `patterns` mean, sorted by bytes, no duplicates.
///
/// # Errors
/// [`FilesFault`].
pub fn find(
    root: &Path,
    patterns: &Patterns,
    directories: Directories,
    files_max: usize,
) -> Result<Vec<Found>, FilesFault> {
    Walk { root, patterns, directories, git_data: GitData::Taken, files_max, found: Vec::new() }.found()
}

/// The files and links of a workspace that `patterns` mean, sorted by bytes, no duplicates. Never git's own data: it is not what a job
/// works on, holds what is known of remotes, and put back it would move branches.
///
/// # Errors
/// [`FilesFault`].
pub fn find_without_git(root: &Path, patterns: &Patterns, files_max: usize) -> Result<Vec<Found>, FilesFault> {
    let (directories, git_data) = (Directories::Left, GitData::Left);
    Walk { root, patterns, directories, git_data, files_max, found: Vec::new() }.found()
}

/// What is at `path` below `root`; `None` if nothing is.
fn metadata_of(root: &Path, path: &Path) -> Result<Option<Metadata>, FilesFault> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| FilesFault::Read { path, source }
    };
    // The root itself may be a link, a descriptor's path for instance.
    let mut metadata = fs::metadata(root).map_err(read(root))?;
    let mut so_far = PathBuf::new();
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        if metadata.is_symlink() {
            return Err(FilesFault::Link { path: so_far });
        }
        so_far.push(name);
        metadata = match fs::symlink_metadata(root.join(&so_far)) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(read(&so_far)(error)),
        };
    }
    Ok(Some(metadata))
}

struct Walk<'w> {
    root: &'w Path,
    patterns: &'w Patterns,
    directories: Directories,
    git_data: GitData,
    files_max: usize,
    found: Vec<Found>,
}

impl Walk<'_> {
    fn found(mut self) -> Result<Vec<Found>, FilesFault> {
        let patterns = self.patterns;
        for start in patterns.roots() {
            if self.git_data == GitData::Left && is_of_git(start) {
                continue;
            }
            if let Some(metadata) = metadata_of(self.root, start)? {
                self.enter(start, metadata, 0)?;
            }
        }
        self.found.sort_by(|left, right| by_bytes(&left.path, &right.path));
        Ok(self.found)
    }

    fn enter(&mut self, path: &Path, metadata: Metadata, depth: usize) -> Result<(), FilesFault> {
        if !metadata.is_dir() {
            return self.take(path, metadata);
        }
        if depth == DEPTH_MAX {
            return Err(FilesFault::Deep);
        }
        if self.directories == Directories::Taken && !path.as_os_str().is_empty() {
            self.take(path, metadata)?;
        }
        let read = |source: io::Error| match source.raw_os_error() {
            Some(libc::ENAMETOOLONG) => FilesFault::Long { path: path.to_owned() },
            _ => FilesFault::Read { path: path.to_owned(), source },
        };
        for entry in fs::read_dir(self.root.join(path)).map_err(read)? {
            let entry = entry.map_err(read)?;
            if self.git_data == GitData::Left && entry.file_name() == GIT {
                continue;
            }
            // Of a link, the link itself.
            let metadata = entry.metadata().map_err(read)?;
            self.enter(&path.join(entry.file_name()), metadata, depth + 1)?;
        }
        Ok(())
    }

    fn take(&mut self, path: &Path, metadata: Metadata) -> Result<(), FilesFault> {
        if !self.patterns.matches(path) {
            return Ok(());
        }
        if self.found.len() == self.files_max {
            return Err(FilesFault::TooMany { files_max: self.files_max });
        }
        self.found.push(Found { path: path.to_owned(), place: self.root.join(path), metadata });
        Ok(())
    }
}

/// Whether a file has something in it, looked through piece by piece.
pub(crate) fn holds(place: &Path, is_in: &dyn Fn(&[u8]) -> bool) -> io::Result<bool> {
    let mut file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(place)?;
    let mut window = Vec::new();
    loop {
        let room = (WINDOW_BYTES - window.len()) as u64;
        let read = (&mut file).take(room).read_to_end(&mut window)?;
        if is_in(&window) {
            return Ok(true);
        }
        if (read as u64) < room {
            return Ok(false);
        }
        window.drain(..window.len().saturating_sub(OVERLAP_BYTES));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Directories, find, find_without_git};
    use crate::patterns::Patterns;

    fn write(root: &Path, files: &[&str]) {
        for path in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    fn check(root: &Path, globs: &[&str], directories: Directories, expected: &str) {
        let shown = match find(root, &Patterns::new(globs).unwrap(), directories, 10) {
            Ok(found) => found.iter().map(|found| found.path.to_string_lossy()).collect::<Vec<_>>().join(" "),
            Err(fault) => fault.to_string(),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn files_by_globs() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path();
        write(root, &["a", "d/b", "d/e/c"]);
        std::os::unix::fs::symlink("d", root.join("link")).unwrap();
        check(root, &["**"], Directories::Left, "a d/b d/e/c link");
        check(root, &["d"], Directories::Taken, "d d/b d/e d/e/c");
        check(root, &["d/*/c", "nothing/x", "a/b"], Directories::Left, "d/e/c");
        check(root, &["link"], Directories::Left, "link");
        check(
            root,
            &["link/b"],
            Directories::Left,
            "`link` is a symbolic link, and is not followed out of the workspace",
        );
        write(root, &["1", "2", "3", "4", "5", "6", "7"]);
        check(root, &["**"], Directories::Left, "more than 10 files");
    }

    #[test]
    fn git_data_is_left_at_any_depth() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path();
        // A repository, a submodule's file, and names that only look like it.
        write(root, &["a", ".git/HEAD", "d/.git", "d/b", ".gitignore", "x.git/HEAD"]);
        let found = |globs: &[&str]| {
            let found = find_without_git(root, &Patterns::new(globs).unwrap(), 10).unwrap();
            found.iter().map(|found| found.path.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(found(&["**"]), ".gitignore a d/b x.git/HEAD");
        assert_eq!(found(&[".git", ".git/HEAD", "d/.git", ".git*"]), ".gitignore");
        check(root, &["**/HEAD", "d"], Directories::Left, ".git/HEAD d/.git d/b x.git/HEAD");
    }

    #[test]
    fn a_path_that_the_system_does_not_take_is_told() {
        use rustix::fs::{Mode, OFlags, mkdirat, openat};
        let scratch = tempfile::tempdir().unwrap();
        let name = "n".repeat(255);
        let mut directory = std::os::fd::OwnedFd::from(fs::File::open(scratch.path()).unwrap());
        for _ in 0..17 {
            mkdirat(&directory, &name, Mode::RWXU).unwrap();
            directory = openat(&directory, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let found = find(scratch.path(), &Patterns::new(&["**"]).unwrap(), Directories::Left, 10);
        assert!(matches!(found, Err(super::FilesFault::Long { .. })), "{found:?}");
    }

    #[test]
    fn the_root_may_be_a_descriptor() {
        use std::os::fd::AsRawFd;
        let scratch = tempfile::tempdir().unwrap();
        write(scratch.path(), &["d/b"]);
        let directory = fs::File::open(scratch.path()).unwrap();
        let root = format!("/proc/self/fd/{}", directory.as_raw_fd());
        check(root.as_ref(), &["d/*"], Directories::Left, "d/b");
    }
}
