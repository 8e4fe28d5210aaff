//! The repository of a checkout, where it lies elsewhere too (a linked worktree, a separate git directory): no job changes it for others.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Repository, text};

/// Everything that git keeps in a folder, by name, but for what a look at the state may write anew.
fn kept(git: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut folders = vec![git.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => all.push((path.display().to_string(), fs::read(&path).expect("a file"))),
            }
        }
    }
    all.sort();
    all
}

#[test]
fn artifacts_hold_nothing_of_the_repository() {
    let repository = Repository::new(
        "jobs:\n  make: { inputs: [file.txt], artifacts: { all: '**' }, run: cp file.txt out }\n  \
         use: { needs: [make], workspace: in_place, run: 'cat out; git log --format=%s' }\n",
    );
    let linked = repository.folder.path().join("linked");
    repository.git(&["worktree", "add", "-q", "-b", "side", &linked.display().to_string()]);
    for folder in [repository.root(), linked] {
        let git = |arguments: &[&str]| {
            let output = Command::new("git").args(arguments).current_dir(&folder).output().expect("git");
            assert!(output.status.success(), "git {arguments:?}: {}", text(&output));
            text(&output)
        };
        let ropewalk = || {
            let output = repository.command(&["run"]).current_dir(&folder).output().expect("ropewalk starts");
            assert!(output.status.success(), "{}", text(&output));
            text(&output)
        };
        ropewalk();
        let name = ["-c", "user.name=t", "-c", "user.email=t@localhost"];
        git(&[&name[..], &["commit", "-q", "--allow-empty", "-m", "second"]].concat());
        let head = git(&["rev-parse", "HEAD"]);
        let said = ropewalk();
        assert!(said.contains("make: cached") && said.contains("use | committed\n"), "{said}");
        assert!(said.contains("use | second\n") && said.contains("use | first\n"), "{said}");
        assert_eq!(git(&["rev-parse", "HEAD"]), head, "the branch has not moved");
    }
}

/// What does harm in a repository, and shows that it works there.
const HARM: &str = "git checkout -q -b of_job; echo job > file.txt; git -c user.name=j -c user.email=j@localhost commit -qam job; \
                    git config user.hacked yes; git reset -q --hard; git log -1 --format=%s; git config user.hacked";

#[test]
fn jobs_and_shells_change_a_repository_elsewhere_for_themselves() {
    let pipeline = format!(
        "jobs:\n  a: {{ run: \"{HARM}\" }}\n  b: {{ needs: [a], run: \"git log -1 --format=%s; git branch --list of_job; git config user.hacked || echo none\" }}\n"
    );
    let repository = Repository::new(&pipeline);
    let place = |name: &str| repository.folder.path().join(name);
    let (linked, apart) = (place("linked").display().to_string(), place("apart").display().to_string());
    repository.git(&["worktree", "add", "-q", "-b", "side", &linked]);
    repository.git(&["clone", "-q", "--separate-git-dir", &place("apart.git").display().to_string(), ".", &apart]);
    for (folder, git) in [("linked", repository.root().join(".git")), ("apart", place("apart.git"))] {
        let folder = place(folder);
        fs::write(folder.join("staged"), "s\n").expect("written");
        assert!(Command::new("git").args(["add", "staged"]).current_dir(&folder).status().expect("git").success());
        let before = kept(&git);
        let ropewalk = |arguments: &[&str]| {
            let output = repository.command(arguments).current_dir(&folder).output().expect("ropewalk starts");
            assert!(output.status.success(), "{arguments:?}: {}", text(&output));
            text(&output)
        };
        let said = ropewalk(&["run"]);
        assert!(said.contains("a | job\n") && said.contains("a | yes\n"), "{said}");
        assert!(!said.contains("b | job") && !said.contains("of_job") && said.contains("b | none\n"), "{said}");
        assert_eq!(before, kept(&git), "nothing of the user's repository has changed");
        let said = ropewalk(&["shell", "last", "b", "--", "sh", "-c", HARM]);
        assert!(said.contains("job\n"), "{said}");
        let said = ropewalk(&["shell", "last", "a@1", "--", "sh", "-c", HARM]);
        assert!(said.contains("job\n"), "{said}");
        assert_eq!(before, kept(&git), "nothing of the user's repository has changed by a shell");
    }
}
