//! What is kept is damaged on its disk: nobody is given it, and the next build makes it anew.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Repository;

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

impl Repository {
    /// Flips a bit of the one blob that holds this text, within it.
    fn damage(&self, text: &str) {
        let is_blob = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "blobs");
        let mut damaged = 0;
        for path in files(&self.folder.path().join("data")).into_iter().filter(is_blob) {
            let mut bytes = fs::read(&path).expect("a blob");
            let found = bytes.windows(text.len()).position(|part| part == text.as_bytes());
            if let Some(place) = found {
                bytes[place] ^= 1;
                fs::remove_file(&path).expect("it goes");
                fs::write(&path, bytes).expect("it comes");
                damaged += 1;
            }
        }
        assert_eq!(damaged, 1, "one blob holds it");
    }
}

#[test]
fn a_damaged_artifact_is_given_to_nobody_and_made_anew() {
    let repository = Repository::new(
        "jobs:\n  p: { inputs: [], artifacts: { a: a.txt }, run: echo content > a.txt }\n  \
         c: { needs: [p], retry: { max: 0 }, run: cat a.txt }\n",
    );
    let text = repository.check(&["run"], 0);
    assert!(text.contains("c | content"), "{text}");
    repository.damage("content");
    let text = repository.check(&["run"], 3);
    assert!(text.contains("p: cached") && !text.contains("c | "), "{text}");
    assert!(
        text.contains("artifact `a` of `p` was not restored") && text.contains("is damaged where it is kept"),
        "{text}"
    );
    assert!(text.contains("run the build again, not this job alone: `p` makes it anew"), "{text}");
    let text = repository.check(&["run"], 0);
    assert!(text.contains("p: passed") && text.contains("c | content"), "{text}");
    let text = repository.check(&["run"], 0);
    assert!(text.contains("p: cached") && text.contains("c | content"), "{text}");
}

#[test]
fn a_damaged_cache_entry_gives_way_to_what_is_saved() {
    let repository = Repository::new(
        "jobs: { a: { cache: [{ key: k, paths: [kept] }], run: 'cat kept/name || { mkdir -p kept; echo content > kept/name; }' } }",
    );
    repository.check(&["run"], 0);
    let text = repository.check(&["run"], 0);
    assert!(text.contains("a | content"), "{text}");
    // The index holds the names.
    repository.damage("0/name");
    let text = repository.check(&["run"], 0);
    assert!(!text.contains("a | content"), "{text}");
    let text = repository.check(&["show", "last", "a"], 0);
    assert!(text.contains("k: was not restored; saved"), "{text}");
    let text = repository.check(&["run"], 0);
    assert!(text.contains("a | content"), "{text}");
    let text = repository.check(&["show", "last", "a"], 0);
    assert!(text.contains("k: restored"), "{text}");
}
