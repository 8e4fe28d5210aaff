//! The workspace that a worker makes ahead: who gets it, and what becomes of one that nobody gets.

use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};

use crate::installation::Site;

/// How often a mount of another test may come between.
const TRIES: u32 = 20;

/// A site whose job says which files there are, and leaves one.
fn site() -> Site {
    Site::new("jobs:\n  a:\n    run: echo \"files:\" *; echo mine > left; cat file\n")
}

impl Site {
    /// The names of a worker's workspaces that wait for a job, sorted, with what the file system knows each by.
    fn spares(&self, worker: &str) -> Vec<(String, u64)> {
        let entries = fs::read_dir(self.path(worker).join("workspaces")).expect("a folder").flatten();
        let named = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.ino()));
        let mut spares: Vec<_> = named.filter(|(name, _)| name.starts_with(".spare-")).collect();
        spares.sort();
        spares
    }

    /// The number of the one of this name, once it is the only one.
    #[track_caller]
    fn spare(&self, worker: &str, name: &str) -> u64 {
        let is_it = |spares: &[(String, u64)]| matches!(spares, [(found, _)] if found == name);
        self.eventually("a workspace is made ahead", || is_it(&self.spares(worker)));
        self.spares(worker)[0].1
    }

    /// The number of the workspace of the only job of a build.
    fn workspace(&self, worker: &str, build: u32) -> u64 {
        fs::metadata(self.path(worker).join(format!("workspaces/{build}/1"))).expect("it is kept").ino()
    }

    /// Whether the system lets a worker show files at another place: without that nothing is made ahead.
    fn has_overlays(&self, worker: &str) -> bool {
        let about = self.path(worker).join("workspaces/1/1/workspace.json");
        fs::read_to_string(about).expect("it is kept").contains("\"overlay\"")
    }
}

#[test]
fn the_next_job_of_the_same_files_gets_it_and_no_other() {
    let site = site();
    fs::write(site.root().join("file"), "first\n").expect("a file");
    let _server = site.serve();
    let mut worker = site.work("w1", &[]);
    let submit = |content: &str| {
        let text = site.submit(&[], 0);
        assert!(text.contains("a | files: file\n") && text.contains(&format!("a | {content}\n")), "{text}");
    };
    submit("first");
    if !site.has_overlays("w1") {
        return;
    }
    // One that was made before somebody else mounted something is not given: then the next one is.
    let is_given = |build: &u32| {
        let waits = site.spare("w1", &format!(".spare-{}", build - 1));
        submit("first");
        site.workspace("w1", *build) == waits
    };
    let given = (2..2 + TRIES).find(is_given).expect("what was made for a job is given to it");
    let waits = site.spare("w1", &format!(".spare-{given}"));
    fs::write(site.root().join("file"), "second\n").expect("a file");
    submit("second");
    assert_ne!(site.workspace("w1", given + 1), waits, "it was of other files");
    // The one that nobody got is gone by then.
    site.spare("w1", &format!(".spare-{}", given + 1));
    worker.process.signal("TERM");
    assert_eq!(worker.process.ended(), Some(0));
    assert_eq!(site.spares("w1"), []);
}

#[test]
fn a_worker_that_was_killed_leaves_none_to_the_next() {
    let site = site();
    fs::write(site.root().join("file"), "first\n").expect("a file");
    let _server = site.serve();
    let mut worker = site.work("w1", &[]);
    site.submit(&[], 0);
    if !site.has_overlays("w1") {
        return;
    }
    site.spare("w1", ".spare-1");
    worker.process.kill();
    assert_eq!(site.spares("w1").len(), 1);
    let _worker = site.work("w1", &[]);
    assert_eq!(site.spares("w1"), []);
    let text = site.submit(&[], 0);
    assert!(text.contains("a | files: file\n"), "{text}");
}
