//! What becomes of the user's tree while a build runs.

use std::fs;

use crate::process::appears;
use crate::{Repository, text};

/// Waits in a job until the test has done its part.
const LATCH: &str = "touch ../waiting; until test -e ../go; do sleep 0.05; done";

#[test]
fn an_edit_that_a_job_may_have_seen_is_noted() {
    let repository = Repository::new(&format!(
        "jobs:\n  before: {{ run: 'true' }}\n  compile: {{ run: '{LATCH}; grep -q fixed value' }}\n  after: {{ needs: [compile], run: 'true' }}\n"
    ));
    repository.write("value", "broken\n");
    repository.git(&["add", "-A"]);
    repository.git(&["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "second"]);
    repository.write("changed", "before it began\n");
    let child = repository.start(&["run", "--output", "plain"]);
    appears(&repository.folder.path().join("waiting"));
    repository.write("value", "fixed\n");
    // The job has a copy of it.
    repository.write("changed", "again\n");
    repository.write("passing", "by\n");
    fs::remove_file(repository.root().join("passing")).expect("it was there");
    fs::write(repository.folder.path().join("go"), "").expect("a file");
    let output = child.wait_with_output().expect("it ends");
    let said = text(&output);
    assert!(said.contains("build 1 passed"), "{said}");
    let note = "`value` was changed in your tree while this job ran; it may have seen either state";
    assert_eq!(said.matches(" in your tree while this job ran").count(), 1, "{said}");
    assert!(said.contains(note), "{said}");
    assert!(repository.check(&["show", "1", "compile"], 0).contains(note));
}

#[test]
fn a_folder_that_goes_away_during_a_build_is_told_once() {
    let repository =
        Repository::new(&format!("jobs:\n  a: {{ run: '{LATCH}' }}\n  b: {{ needs: [a], run: echo never }}\n"));
    let child = repository.start(&["run", "--output", "plain"]);
    appears(&repository.folder.path().join("waiting"));
    fs::rename(repository.root(), repository.folder.path().join("elsewhere")).expect("it is there");
    fs::write(repository.folder.path().join("go"), "").expect("a file");
    let output = child.wait_with_output().expect("it ends");
    let said = text(&output);
    let root = repository.root();
    let told = format!("b: failed: the folder `{}` is gone: put it back, or work in another one", root.display());
    assert!(said.contains(&told), "{said}");
    assert!(!said.contains("install git") && !said.contains("tried again"), "{said}");
}
