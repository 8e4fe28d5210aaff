//! What the ignore files around a folder say of what lies in it, where git does not ask them: in a repository within the checkout, and in a
//! folder that the checkout ignores.
//!
//! A rule that names the folder itself, or one above it, says nothing of what is in it: whoever lists the folder wants it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::repository::git_directory;

/// The rules around one folder.
#[derive(Debug)]
pub(crate) struct Outer {
    folder: PathBuf,
    /// Those that decide come first.
    rules: Vec<Gitignore>,
    /// Those of the directories in the folder, as far as they were asked for; `None` for one that has none.
    inside: Mutex<HashMap<PathBuf, Option<Arc<Gitignore>>>>,
}

impl Outer {
    /// The rules of the directories from `top` down to the one that `folder` is in.
    pub(crate) fn between(top: &Path, folder: &Path) -> Self {
        let mut rules = Vec::new();
        for directory in folder.ancestors().skip(1).take_while(|directory| directory.starts_with(top)) {
            rules.extend(rules_of(&directory.join(".gitignore"), directory, folder));
            if let Some(git) = git_directory(directory) {
                rules.extend(rules_of(&git.join("info/exclude"), directory, folder));
            }
        }
        Self { folder: folder.to_owned(), rules, inside: Mutex::default() }
    }

    /// The same, and a user's own rules for all folders, which come last.
    pub(super) fn with_rules_for_all(mut self, file: &Path) -> Self {
        self.rules.extend(rules_of(file, &self.folder, &self.folder));
        self
    }

    /// Whether a path in the folder is ignored. What an ignore file of the folder takes back is not.
    pub(crate) fn hides(&self, path: &Path, is_directory: bool) -> bool {
        let judge = |rules: &Gitignore| rules.matched_path_or_any_parents(path, is_directory).map(|_| ());
        let decided = self.rules.iter().map(judge).find(|judged| !judged.is_none());
        matches!(decided, Some(Match::Ignore(()))) && !self.is_taken_back(path, is_directory)
    }

    fn is_taken_back(&self, path: &Path, is_directory: bool) -> bool {
        let directories = path.ancestors().skip(1).take_while(|directory| directory.starts_with(&self.folder));
        directories
            .filter_map(|directory| self.rules_inside(directory))
            .any(|rules| rules.matched_path_or_any_parents(path, is_directory).is_whitelist())
    }

    /// The rules of a directory in the folder; they are read once.
    fn rules_inside(&self, directory: &Path) -> Option<Arc<Gitignore>> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = inside.get(directory) {
            return known.clone();
        }
        let rules = read(&directory.join(".gitignore"), directory).map(|(_, rules)| Arc::new(rules));
        inside.insert(directory.to_owned(), rules.clone());
        rules
    }
}

/// The rules of one file, which are about what is below `directory`, without those that name `folder`; `None` without such a file.
fn rules_of(file: &Path, directory: &Path, folder: &Path) -> Option<Gitignore> {
    let (text, rules) = read(file, directory)?;
    if folder == directory || rules.matched_path_or_any_parents(folder, true).is_none() {
        return Some(rules);
    }
    let is_about_others =
        |line: &&str| !built(directory, [*line]).matched_path_or_any_parents(folder, true).is_ignore();
    Some(built(directory, text.lines().filter(is_about_others)))
}

fn read(file: &Path, directory: &Path) -> Option<(String, Gitignore)> {
    let text = String::from_utf8_lossy(&fs::read(file).ok()?).into_owned();
    let rules = built(directory, text.lines());
    Some((text, rules))
}

/// Lines that are no rules are passed over, as git does.
fn built<'l>(directory: &Path, lines: impl IntoIterator<Item = &'l str>) -> Gitignore {
    let mut builder = GitignoreBuilder::new(directory);
    for line in lines {
        let _ = builder.add_line(None, line);
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &[(&str, &str)], folder: &str, hidden: &[&str], seen: &[&str]) {
        let scratch = tempfile::tempdir().unwrap();
        for (file, text) in rules {
            let file = scratch.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let folder = scratch.path().join(folder);
        let outer = Outer::between(scratch.path(), &folder).with_rules_for_all(&scratch.path().join("for-all"));
        for (paths, is_hidden) in [(hidden, true), (seen, false)] {
            for path in paths {
                assert_eq!(outer.hides(&folder.join(path), false), is_hidden, "{path}");
            }
        }
    }

    #[test]
    fn rules_for_any_folder_and_those_that_lead_into_this_one() {
        let rules = [(".gitignore", ".env\nbuild/\n/sub/nested/named\n/top\n"), ("sub/.gitignore", "*.o\n")];
        check(&rules, "sub/nested", &[".env", "a/.env", "build/a", "named", "a.o"], &["a", "a/named", "top"]);
        check(&[(".git/info/exclude", "*.o\n")], "sub", &["a.o"], &["a"]);
    }

    #[test]
    fn rules_that_name_the_folder_say_nothing_of_what_is_in_it() {
        check(&[(".gitignore", "ignored/\n.env\n")], "ignored/app", &[".env"], &["a", "ignored"]);
        check(&[("made/.gitignore", "*\n"), (".gitignore", "*.o\n")], "made/app", &["a.o"], &["a", "b/c"]);
    }

    #[test]
    fn the_nearest_rule_decides() {
        let rules = [("for-all", "*.o\n*.swp\n/top\n"), (".gitignore", "!keep.o\n")];
        check(&rules, "app", &["a.o", "d/a.swp", "top"], &["keep.o", "d/top"]);
        check(&[(".gitignore", "*.o\n"), ("sub/.gitignore", "!keep.o\n")], "sub/app", &["a.o"], &["keep.o"]);
        check(&[(".gitignore", "*.o\n"), ("app/d/.gitignore", "!keep.o\n")], "app", &["keep.o"], &["d/keep.o"]);
    }

    #[test]
    fn the_rules_of_a_directory_are_read_once() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("app");
        fs::create_dir(&folder).unwrap();
        fs::write(scratch.path().join(".gitignore"), "*.o\n").unwrap();
        fs::write(folder.join(".gitignore"), "!keep.o\n").unwrap();
        let outer = Outer::between(scratch.path(), &folder);
        let hidden = || ["keep.o", "deep/keep.o", "a.o"].map(|path| outer.hides(&folder.join(path), false));
        assert_eq!(hidden(), [false, false, true]);
        fs::remove_file(folder.join(".gitignore")).unwrap();
        assert_eq!(hidden(), [false, false, true]);
    }
}
