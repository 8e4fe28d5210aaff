//! How files looked when something was made of them: by this an unchanged program is known without asking cargo.
//!
//! A stamp never says "unchanged" of something that changed: a file that changed so shortly before the work began that a
//! later change could have the same time keeps a stamp from being written.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// The form of the file; another is passed over.
const FORM: u32 = 1;
/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A change later than this before the work could be followed by another with the same time.
const RACY: Duration = Duration::from_millis(20);
/// Variables that change what cargo and rustc make; those of whole families by their beginning.
const VARIABLES: [&str; 8] =
    ["RUSTFLAGS", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTUP_HOME", "CARGO_HOME", "CARGO_ENCODED_RUSTFLAGS", "PATH", "CC"];
const VARIABLE_FAMILIES: [&str; 5] = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "RUSTC_", "CARGO_UNSTABLE_"];

/// What was made of files that looked like this.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    form: u32,
    /// A digest of the variables of the environment that matter.
    environment: String,
    /// Each path and how it looked; `None` if there was nothing. Sorted by path.
    files: Vec<(PathBuf, Option<Look>)>,
    /// What was made.
    pub result: String,
}

/// What of a file's stat tells that it did not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Look {
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
    inode: u64,
}

impl Look {
    /// How the file that a path leads to looks. Of a folder only that it is there, and when a file in it came or went.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.size(),
            inode: metadata.ino(),
        })
    }

    fn is_settled(self, began: SystemTime) -> bool {
        let bound = (began - RACY).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let bound = (bound.as_secs().cast_signed(), i64::from(bound.subsec_nanos()));
        self.modified < bound && self.changed < bound
    }
}

impl Stamp {
    /// The stamp of these paths, looked at now. `None` if one of them changed after `began`, or just before.
    #[must_use]
    pub fn of(paths: BTreeSet<PathBuf>, began: SystemTime, result: String) -> Option<Self> {
        let files: Vec<_> =
            paths.into_iter().map(|path| (Look::of(&path), path)).map(|(look, path)| (path, look)).collect();
        let is_settled = files.iter().all(|(_, look)| look.is_none_or(|look| look.is_settled(began)));
        is_settled.then(|| Self { form: FORM, environment: environment(), files, result })
    }

    /// The stamp kept at `path`, if every file looks as it did and the environment is the same.
    #[must_use]
    pub fn unchanged(path: &Path) -> Option<Self> {
        if fs::metadata(path).ok()?.len() > FILE_BYTES_MAX {
            return None;
        }
        let stamp: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let is_same = stamp.form == FORM
            && stamp.environment == environment()
            && stamp.files.iter().all(|(path, look)| Look::of(path) == *look);
        is_same.then_some(stamp)
    }

    /// Keeps the stamp at `path`, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let file = tempfile::NamedTempFile::new_in(folder)?;
        fs::write(file.path(), serde_json::to_vec(self)?)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// The files among the paths.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }
}

fn environment() -> String {
    let matters =
        |name: &str| VARIABLES.contains(&name) || VARIABLE_FAMILIES.iter().any(|family| name.starts_with(family));
    let mut variables: Vec<_> = std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(matters)).collect();
    variables.sort();
    let mut hasher = blake3::Hasher::new();
    for (name, value) in variables {
        for part in [name, value] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_encoded_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// The files that cargo's dep-info (`NAME.d` beside the binary) says a binary was made of. Source: "Dep-info files" in
/// the build cache's page of The Cargo Book: `BINARY: FILE FILE …`, with spaces as `\ `.
#[must_use]
pub fn dep_info(text: &str) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for line in text.lines() {
        let Some((_, list)) = line.split_once(": ") else { continue };
        let mut path = String::new();
        let mut characters = list.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => path.push(characters.next().unwrap_or('\\')),
                ' ' if path.is_empty() => {}
                ' ' => paths.push(PathBuf::from(std::mem::take(&mut path))),
                character => path.push(character),
            }
        }
        if !path.is_empty() {
            paths.push(PathBuf::from(path));
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, SystemTime};

    use super::{Stamp, dep_info};

    /// Whether a stamp of a file and of one that is missing still holds after `change`.
    fn holds(change: impl Fn(&Path)) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let (file, stamp) = (folder.path().join("file"), folder.path().join("stamp"));
        fs::write(&file, "text").unwrap();
        let paths = BTreeSet::from([file, folder.path().join("missing")]);
        // ctime cannot be set: the work is moved forward instead of the file backward.
        let later = SystemTime::now() + Duration::from_secs(1);
        Stamp::of(paths, later, "made".to_owned()).unwrap().keep(&stamp).unwrap();
        change(folder.path());
        Stamp::unchanged(&stamp).is_some_and(|stamp| stamp.result == "made")
    }

    #[test]
    fn a_stamp_holds_as_long_as_nothing_changes() {
        assert!(holds(|_| {}));
        assert!(holds(|folder| fs::write(folder.join("other"), "x").unwrap()));
        assert!(!holds(|folder| fs::write(folder.join("file"), "longer").unwrap()));
        assert!(!holds(|folder| fs::remove_file(folder.join("file")).unwrap()));
        assert!(!holds(|folder| fs::write(folder.join("missing"), "x").unwrap()));
        assert!(!holds(|folder| fs::write(folder.join("stamp"), "{").unwrap()));
    }

    #[test]
    fn a_change_at_the_time_of_the_work_leaves_no_stamp() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "text").unwrap();
        let paths = BTreeSet::from([folder.path().join("file")]);
        assert_eq!(Stamp::of(paths, SystemTime::now() - Duration::from_secs(1), String::new()), None);
    }

    #[test]
    fn dep_info_is_read() {
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(dep_info("/t/a: /x/b.rs /x/c\\ d.rs\n"), paths(&["/x/b.rs", "/x/c d.rs"]));
        assert_eq!(dep_info("/t/a:\n"), paths(&[]));
    }
}
