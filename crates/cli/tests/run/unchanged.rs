//! A run in which nothing changed is told at once, and never where something has: green by mistake is the worst there is.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::{Repository, text};

/// A job that lists what it sees of `src`, in a repository with a rule that hides `*.ig`.
fn repository() -> Repository {
    let repository = Repository::new("jobs: { a: { inputs: ['src/**'], run: find src -type f | sort } }\n");
    repository.write(".gitignore", "*.ig\n");
    repository.write("src/a", "a\n");
    repository.write("src/x.ig", "x\n");
    repository.git(&["add", "-A"]);
    repository.git(&["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "files"]);
    repository
}

/// Runs twice in `folder`, makes a file seen, and runs again; the file is seen.
#[track_caller]
fn check(repository: &Repository, folder: &Path, change: impl Fn(), file: &str) {
    let run = || {
        // So that nothing changed just before the files were looked at.
        std::thread::sleep(Duration::from_millis(60));
        let output = repository.command(&["run"]).current_dir(folder).output().expect("ropewalk starts");
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    run();
    let said = run();
    assert!(said.contains("nothing changed since"), "{said}");
    change();
    let said = run();
    assert!(said.contains(&format!("a | {file}\n")), "{said}");
}

fn git(folder: &Path, arguments: &[&str]) {
    let status = Command::new("git").args(arguments).current_dir(folder).status().expect("git starts");
    assert!(status.success(), "git {arguments:?}");
}

#[test]
fn a_file_in_a_folder_that_had_none() {
    let repository = repository();
    let root = repository.root();
    fs::create_dir_all(root.join("src/empty/deep")).expect("made");
    fs::create_dir(root.join("src/hidden")).expect("made");
    fs::write(root.join("src/hidden/y.ig"), "y\n").expect("written");
    let write = |path: &str| fs::write(root.join(path), "new\n").expect("written");
    check(&repository, &root, || write("src/empty/deep/new"), "src/empty/deep/new");
    check(&repository, &root, || write("src/hidden/new"), "src/hidden/new");
}

#[test]
fn a_file_that_git_was_made_to_track() {
    let repository = repository();
    let linked = repository.folder.path().join("linked");
    repository.git(&["worktree", "add", "-q", &linked.display().to_string()]);
    fs::write(linked.join("src/x.ig"), "x\n").expect("written");
    for folder in [repository.root(), linked] {
        check(&repository, &folder, || git(&folder, &["add", "-f", "src/x.ig"]), "src/x.ig");
    }
    let nested = repository.root().join("src/nested");
    fs::create_dir(&nested).expect("made");
    git(&nested, &["init", "-q"]);
    fs::write(nested.join("z.ig"), "z\n").expect("written");
    check(&repository, &repository.root(), || git(&nested, &["add", "-f", "z.ig"]), "src/nested/z.ig");
}

#[test]
fn a_file_that_a_rule_elsewhere_hides_no_more() {
    let repository = repository();
    let rules = repository.folder.path().join("rules");
    fs::write(&rules, "*.log\n").expect("written");
    repository.git(&["config", "core.excludesFile", &rules.display().to_string()]);
    repository.write("src/x.log", "x\n");
    check(&repository, &repository.root(), || fs::write(&rules, "").expect("written"), "src/x.log");
}
