//! Whether the inputs of a job that works in the user's tree stayed as they were while it ran.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::patterns::Patterns;
use crate::tree::Tree;

/// The stats of some files, by sorted path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    files: Vec<(PathBuf, Stat)>,
}

/// What changes when a file does: times of content and of the file itself in nanoseconds, size, inode.
type Stat = (i64, i64, i64, i64, u64, u64);

/// Looks at the files that `globs` mean, all of the checkout if `None`; `None` if the tree cannot be listed. Globs that only name files
/// cost a look at these; others a listing of the tree.
#[must_use]
pub fn look(root: &Path, globs: Option<&[String]>) -> Option<Looked> {
    if let Some(files) = globs.and_then(|globs| look_at_named(root, globs)) {
        return Some(Looked { files });
    }
    let tree = if globs.is_some() { Tree::list(root) } else { Tree::list_checkout(root) }.ok()?;
    let places = match globs {
        None => (0..tree.paths().len()).collect(),
        Some(globs) => Patterns::new(globs).ok()?.select(tree.paths()),
    };
    let looked = |place: usize| {
        let path = &tree.paths()[place];
        Some((path.clone(), stat(&fs::symlink_metadata(root.join(path)).ok()?)))
    };
    Some(Looked { files: places.into_iter().filter_map(looked).collect() })
}

/// The files that globs without any special letter name; `None` if one has such a letter, or names a directory.
fn look_at_named(root: &Path, globs: &[String]) -> Option<Vec<(PathBuf, Stat)>> {
    let mut files = Vec::with_capacity(globs.len());
    for glob in globs {
        if glob.contains(['*', '?', '[', ']', '{', '}', '!', '\\']) {
            return None;
        }
        match fs::symlink_metadata(root.join(glob)) {
            Ok(file) if file.is_dir() => return None,
            Ok(file) => files.push((PathBuf::from(glob), stat(&file))),
            // It may appear: then there is a difference.
            Err(_) => {}
        }
    }
    files.sort();
    files.dedup();
    Some(files)
}

fn stat(file: &fs::Metadata) -> Stat {
    (file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec(), file.size(), file.ino())
}

impl Looked {
    /// The first path that differs, appeared or went.
    #[must_use]
    pub fn difference(&self, later: &Self) -> Option<PathBuf> {
        let mut before = self.files.iter();
        let mut after = later.files.iter();
        loop {
            match (before.next(), after.next()) {
                (None, None) => return None,
                (left, right) if left == right => {}
                (Some((left, _)), Some((right, _))) => return Some(left.min(right).clone()),
                (Some((path, _)), None) | (None, Some((path, _))) => return Some(path.clone()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::look;

    #[test]
    fn changes_are_seen() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path();
        fs::write(root.join("a"), "1").unwrap();
        fs::write(root.join("b"), "1").unwrap();
        let all = || look(root, None).unwrap();
        let before = all();
        assert_eq!(before.difference(&all()), None);
        fs::write(root.join("b"), "12").unwrap();
        assert_eq!(before.difference(&all()), Some("b".into()));
        let only = look(root, Some(&["a".to_owned()])).unwrap();
        fs::remove_file(root.join("b")).unwrap();
        assert_eq!(only.difference(&look(root, Some(&["a".to_owned()])).unwrap()), None);
        assert_eq!(before.difference(&all()), Some("b".into()));
    }
}
