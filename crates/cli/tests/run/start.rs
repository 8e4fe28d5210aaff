//! A build has one state of the files, that of its start: for its jobs, for the digests of their inputs, and for whoever goes on with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};

use rustix::thread::CapabilitySet;

use crate::{Repository, text};

/// How long a step may take to come to a point.
const PATIENCE: Duration = Duration::from_secs(60);

/// A step that says by `../waits` that it runs, and ends once there is `../go`.
const WAIT: &str = "touch ../waits; until [ -e ../go ]; do sleep 0.02; done";

impl Repository {
    fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn commit(&self, file: &str) {
        self.write("file.txt", file);
        self.git(&["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qam", file.trim()]);
    }

    /// Begins a build and comes back when its waiting step runs.
    fn start_and_wait(&self, arguments: &[&str]) -> Child {
        let child = self.start(arguments);
        let began = Instant::now();
        while !self.beside("waits").exists() {
            assert!(began.elapsed() < PATIENCE, "no step said that it runs");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    /// Lets the waiting step end, and the build.
    #[track_caller]
    fn let_go(&self, child: Child, code: i32) -> String {
        fs::write(self.beside("go"), "").expect("a file");
        let output = child.wait_with_output().expect("it ends");
        for name in ["go", "waits"] {
            let _ = fs::remove_file(self.beside(name));
        }
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        text(&output)
    }
}

const AUTHOR: [&str; 4] = ["-c", "user.name=t", "-c", "user.email=t@localhost"];

/// Makes a repository within the repository, with one file in its commit.
fn nest(repository: &Repository, place: &str) {
    repository.write(&format!("{place}/f"), "start\n");
    for arguments in [&["init", "-q"][..], &["add", "f"], &["commit", "-qm", "nested"]] {
        repository.git(&[&["-C", place], &AUTHOR[..], arguments].concat());
    }
}

fn pipeline(jobs: &str) -> String {
    format!("jobs:\n  slow: {{ run: '{WAIT}' }}\n{jobs}")
}

#[test]
fn no_result_of_another_tree_stands_for_a_build() {
    let repository =
        Repository::new(&pipeline("  check: { needs: [slow], inputs: [file.txt], run: grep committed file.txt }\n"));
    let child = repository.start_and_wait(&["run"]);
    repository.let_go(child, 0);
    repository.commit("bad\n");
    let child = repository.start_and_wait(&["run"]);
    repository.git(&["checkout", "-q", "HEAD~1"]);
    let text = repository.let_go(child, 1);
    assert!(text.contains("check: failed") && !text.contains("cached"), "{text}");
}

/// Longer than a tick of any kernel's clock.
const TICK: Duration = Duration::from_millis(20);

/// A filter of git's that, whenever git looks, touches a file, so that the tree does not stand still, and that changes `file.txt` once a copy of the
/// tree is being made that `../before` does not name.
const FILTER: &str = r#"cat
cd "$(dirname "$0")"
touch repository/touched
if find data -type d -name delta | grep -qvxFf before 2> /dev/null && [ ! -e edited ]; then
    touch edited
    echo other > repository/file.txt
fi
"#;

#[test]
fn no_job_runs_beside_a_result_of_files_that_changed_while_the_build_began() {
    let repository = Repository::new(
        "jobs:\n  check: { inputs: [file.txt], run: cat file.txt }\n  next: { needs: [check], run: echo it ran }\n",
    );
    let filter = repository.beside("filter.sh");
    fs::write(&filter, FILTER).expect("a file");
    repository.write(".gitattributes", "filtered filter=touching\n");
    repository.write("filtered", "the same\n");
    repository.git(&["add", "-A"]);
    repository.commit("start\n");
    repository.git(&["config", "filter.touching.clean", &format!("sh '{}'", filter.display())]);
    // Of the same size and of another time: git has to read it, through the filter.
    let filtered = fs::File::options().write(true).open(repository.root().join("filtered")).expect("there");
    filtered.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).expect("a time");
    let text = repository.check(&["run"], 0);
    assert!(text.contains("check | start") && text.contains("next | it ran"), "{text}");
    let find = ["data", "-type", "d", "-name", "delta"];
    let copies = Command::new("find").args(find).current_dir(repository.beside("")).output().expect("find starts");
    fs::write(repository.beside("before"), copies.stdout).expect("a file");
    let text = repository.check(&["run"], 1);
    let why = "file.txt was changed while the build began, and an earlier result had been taken for check, which depends on it: run the \
               build again";
    assert!(text.contains("check: cached, from build 1") && text.contains(why) && !text.contains("it ran"), "{text}");
    let text = repository.check(&["run"], 0);
    assert!(text.contains("check | other") && text.contains("next | it ran"), "{text}");
}

#[test]
fn after_a_gate_inputs_are_those_of_the_start() {
    let repository = Repository::new(
        "jobs:\n  ok: { gate: {} }\n  check: { needs: [ok], inputs: [file.txt], run: grep committed file.txt }\n",
    );
    repository.check(&["run"], 4);
    repository.check(&["approve", "1", "ok"], 0);
    repository.commit("bad\n");
    repository.check(&["run"], 4);
    repository.git(&["checkout", "-q", "HEAD~1"]);
    let text = repository.check(&["approve", "2", "ok"], 1);
    assert!(text.contains("check: failed"), "{text}");
    // What the build began with counts, not what was checked out meanwhile.
    repository.check(&["run"], 4);
    repository.write("file.txt", "bad\n");
    let text = repository.check(&["approve", "3", "ok"], 0);
    assert!(text.contains("check: cached, from build 1"), "{text}");
}

#[test]
fn after_a_gate_git_stands_as_at_the_start() {
    let repository = Repository::new(
        "jobs:\n  ok: { gate: {} }\n  version: { needs: [ok], inputs: [file.txt], run: git describe --tags; git status --short; git add -A }\n",
    );
    repository.git(&["tag", "v1"]);
    repository.check(&["run"], 4);
    repository.write("readme", "new");
    repository.git(&["add", "readme"]);
    repository.git(&["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "later"]);
    repository.git(&["tag", "v2"]);
    repository.write(".git/index.lock", "");
    let text = repository.check(&["approve", "1", "ok"], 0);
    assert!(text.contains("version | v1\n") && text.matches("version | ").count() == 1, "{text}");
    fs::remove_file(repository.root().join(".git/index.lock")).expect("a lock");
    repository.git(&["checkout", "-q", "v1"]);
    repository.check(&["run", "--branch", "main"], 4);
    let text = repository.check(&["approve", "2", "ok"], 0);
    assert!(text.contains("version: cached, from build 1"), "{text}");
    assert!(repository.check(&["logs", "1", "version"], 0).contains("v1"), "what is reused is of the commit");
}

#[test]
fn a_build_that_was_killed_takes_results_of_its_own_tree_only() {
    let repository = Repository::new(&pipeline("  check: { needs: [slow], inputs: [file.txt], run: cat file.txt }\n"));
    repository.write("file.txt", "dirty\n");
    let child = repository.start_and_wait(&["run"]);
    repository.let_go(child, 0);
    for (meanwhile, expected) in [("dirty\n", "check: cached, from build 1"), ("other\n", "check | dirty")] {
        let mut child = repository.start_and_wait(&["run"]);
        child.kill().expect("kill -9");
        // The pipe's other end is held by everything the build had started.
        child.wait_with_output().expect("it ends");
        repository.write("file.txt", meanwhile);
        fs::write(repository.beside("go"), "").expect("a file");
        let text = repository.check(&["run", "--resume"], 0);
        assert!(text.contains(expected), "{text}");
        for name in ["go", "waits"] {
            fs::remove_file(repository.beside(name)).expect("there");
        }
        repository.write("file.txt", "dirty\n");
    }
}

#[test]
fn after_a_gate_files_are_those_of_the_start() {
    let repository = Repository::new("jobs:\n  ok: { gate: {} }\n  publish: { needs: [ok], run: cat file.txt }\n");
    repository.check(&["run"], 4);
    repository.check(&["run"], 4);
    repository.commit("later\n");
    let text = repository.check(&["approve", "1", "ok"], 0);
    assert!(text.contains("publish | committed") && text.contains("is checked out now"), "{text}");
    fs::remove_dir_all(workspaces(&repository.beside("data")).join("2")).expect("kept for the next process");
    let text = repository.check(&["approve", "2", "ok"], 1);
    assert!(text.contains("publish: failed: the build began at commit") && !text.contains("later"), "{text}");
}

/// The folder of that name below another.
fn workspaces(folder: &Path) -> PathBuf {
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        let folders = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
        for folder in folders.filter(|path| path.is_dir()) {
            if folder.ends_with("workspaces") {
                return folder;
            }
            waiting.push(folder);
        }
    }
    panic!("no workspaces are kept")
}

#[test]
fn a_job_in_the_tree_that_finds_other_inputs_than_were_looked_at_is_not_kept() {
    let repository =
        Repository::new(&pipeline("  there: { workspace: in_place, inputs: [file.txt], run: cat file.txt }\n"));
    let child = repository.start_and_wait(&["run", "-j", "1"]);
    repository.write("file.txt", "edited\n");
    let text = repository.let_go(child, 0);
    assert!(text.contains("there | edited"), "{text}");
    repository.write("file.txt", "committed\n");
    let child = repository.start_and_wait(&["run", "-j", "1"]);
    let text = repository.let_go(child, 0);
    assert!(text.contains("there | committed"), "{text}");
}

#[test]
fn without_git_a_job_is_kept_only_for_what_it_found() {
    let jobs = "  check: { needs: [slow], inputs: [file.txt], run: cat file.txt }\n";
    let repository = Repository { folder: tempfile::tempdir().expect("a scratch folder") };
    repository.write(".ropewalk/pipeline.yaml", &pipeline(jobs));
    repository.write("file.txt", "first\n");
    let child = repository.start_and_wait(&["run"]);
    repository.write("file.txt", "edited\n");
    let text = repository.let_go(child, 0);
    assert!(text.contains("check | edited"), "{text}");
    repository.write("file.txt", "first\n");
    let child = repository.start_and_wait(&["run"]);
    let text = repository.let_go(child, 0);
    assert!(text.contains("check | first"), "{text}");
}

#[test]
fn no_shortcut_passes_a_gate_or_a_job_that_failed() {
    let repository =
        Repository::new(&format!("jobs:\n  ok: {{ gate: {{}} }}\n  a: {{ inputs: [file.txt], run: '{WAIT}' }}\n"));
    // So that nothing changed just before the files were looked at.
    std::thread::sleep(Duration::from_millis(60));
    let child = repository.start_and_wait(&["run"]);
    repository.check(&["approve", "1", "ok"], 0);
    repository.let_go(child, 0);
    let text = repository.check(&["run"], 4);
    assert!(text.contains("a: cached"), "{text}");
    let repository = Repository::new("jobs: { a: { allow_failure: true, inputs: [file.txt], run: 'false' } }");
    std::thread::sleep(Duration::from_millis(60));
    repository.check(&["run"], 0);
    let text = repository.check(&["run"], 0);
    assert!(text.contains("a: failed") && !text.contains("nothing changed"), "{text}");
}

#[test]
fn a_retry_is_of_the_tree_as_it_is() {
    let repository = Repository::new("jobs:\n  a: { run: cat file.txt }\n  b: { run: test -e ../ok }\n");
    repository.check(&["run"], 1);
    fs::write(repository.beside("ok"), "").expect("a file");
    let text = repository.check(&["retry", "1", "--failed"], 0);
    assert!(text.contains("a: cached, from build 1") && !text.contains("any more"), "{text}");
    repository.write("file.txt", "edited\n");
    let text = repository.check(&["retry", "1", "--failed"], 0);
    assert!(text.contains("the files are not those of build 1 any more") && text.contains("a | edited"), "{text}");
    assert!(text.contains("+ local changes"), "{text}");
    repository.git(&["checkout", "-qb", "other"]);
    repository.commit("later\n");
    let text = repository.check(&["retry", "1"], 0);
    assert!(text.contains("on other, ") && text.contains("a | later") && !text.contains("local changes"), "{text}");
}

#[test]
fn a_retry_takes_over_what_ran_in_the_tree_as_its_own_jobs_left_it() {
    let repository = Repository::new(
        "jobs:\n  made: { workspace: in_place, run: 'date > made.txt' }\n  a: { run: cat file.txt }\n  b: { needs: [made, a], workspace: in_place, run: test -e ../ok }\n",
    );
    repository.write("file.txt", "dirty\n");
    nest(&repository, "nested");
    // So that nothing changed just before the files were looked at.
    std::thread::sleep(Duration::from_millis(60));
    repository.check(&["run"], 1);
    let text = repository.check(&["retry", "1", "--failed"], 1);
    assert!(text.contains("made: cached, from build 1") && text.contains("a: cached, from build 1"), "{text}");
    assert!(!text.contains("any more"), "{text}");
    repository.write("made.txt", "edited\n");
    let text = repository.check(&["retry", "1", "--failed"], 1);
    assert!(text.contains("the files are not those of build 1 any more") && !text.contains("cached"), "{text}");
}

#[test]
fn a_retry_takes_over_nothing_of_files_that_somebody_edited_meanwhile() {
    let repository = Repository::new(&format!(
        "jobs:\n  a: {{ workspace: in_place, run: cat file.txt }}\n  b: {{ needs: [a], run: '{WAIT}' }}\n  c: {{ needs: [b], run: 'false' }}\n"
    ));
    let child = repository.start_and_wait(&["run"]);
    // A file's time is that of the kernel's last tick: what is written within the tick in which a job in the tree ends counts as its own.
    std::thread::sleep(TICK);
    repository.write("file.txt", "edited\n");
    repository.let_go(child, 1);
    fs::write(repository.beside("go"), "").expect("a file");
    let text = repository.check(&["retry", "1", "--failed"], 1);
    assert!(text.contains("the files are not those of build 1 any more") && text.contains("a | edited"), "{text}");
}

#[test]
fn a_retry_knows_a_repository_within_that_nobody_changed() {
    let repository = Repository::new("jobs:\n  a: { run: cat nested/f }\n  b: { run: test -e ../ok }\n");
    nest(&repository, "nested");
    repository.check(&["run"], 1);
    // git writes its index anew.
    repository.write("nested/f", "start\n");
    repository.git(&["-C", "nested", "status"]);
    let text = repository.check(&["retry", "1", "--failed"], 1);
    assert!(text.contains("a: cached, from build 1") && !text.contains("any more"), "{text}");
    repository.write("nested/f", "edited\n");
    let text = repository.check(&["retry", "1", "--failed"], 1);
    assert!(text.contains("a | edited"), "{text}");
}

#[test]
fn inputs_that_say_less_than_they_seem_to_are_told() {
    let repository = Repository::new(
        "jobs:\n  a: { inputs: ['none/**', link, 'file.txt'], run: 'true' }\n  b: { inputs: ['!file.txt'], run: 'true' }\n",
    );
    repository.write("aim", "1");
    std::os::unix::fs::symlink("aim", repository.root().join("link")).expect("a link");
    repository.check(&["run"], 0);
    let text = repository.check(&["show", "last", "a"], 0);
    assert!(text.contains("inputs: `none/**` matches no file"), "{text}");
    assert!(text.contains("inputs: link is a link to what is no input"), "{text}");
    assert_eq!(text.matches("inputs: ").count(), 2, "{text}");
    let text = repository.check(&["run"], 0);
    assert!(text.contains("a: cached") && !text.contains("b: cached"), "{text}");
}

#[test]
fn links_out_of_the_tree_are_told_of_a_job_whose_input_it_is() {
    let repository = Repository::new("jobs: { a: { reuse: true, run: cat out } }");
    fs::write(repository.beside("aim"), "1").expect("a file");
    for (aim, link) in [("../aim", "out"), ("file.txt", "within"), (".", "root"), ("../gone", "broken")] {
        std::os::unix::fs::symlink(aim, repository.root().join(link)).expect("a link");
    }
    repository.write("deep/file", "1");
    std::os::unix::fs::symlink("../file.txt", repository.root().join("deep/up")).expect("a link");
    repository.check(&["run"], 0);
    let text = repository.check(&["show", "last", "a"], 0);
    let told: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once("inputs: ")?.1.split_once(" is a link to what"))
        .map(|(link, _)| link)
        .collect();
    assert_eq!(told, ["broken", "out"], "{text}");
}

#[test]
fn an_ignored_input_of_a_job_in_the_tree_counts() {
    let repository = Repository::new("jobs: { a: { workspace: in_place, inputs: [local.txt], run: 'cat local.txt' } }");
    repository.write(".gitignore", "local.txt\n");
    repository.write("local.txt", "one\n");
    repository.check(&["run"], 0);
    let text = repository.check(&["run"], 0);
    assert!(text.contains("cached"), "{text}");
    repository.write("local.txt", "two\n");
    let text = repository.check(&["run"], 0);
    assert!(text.contains("a | two"), "{text}");
}

#[test]
fn a_file_that_cannot_be_read_is_named_before_a_build_begins() {
    become_ordinary();
    let repository = Repository::new("jobs: { a: { run: 'true' }, b: { run: 'true' } }");
    repository.write("keys/private", "");
    let private = repository.root().join("keys/private");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o0)).expect("it is ours");
    let text = repository.check(&["run"], 2);
    let told = "error: jobs are given a copy of `keys/private`, which is not as in the commit, and it cannot be read: make it readable, \
                or, if git does not track it, name it in a .gitignore: Permission denied (os error 13)\n";
    assert_eq!(text, told);
    repository.write(".ropewalk/pipeline.yaml", "jobs: { a: { workspace: in_place, run: 'true' } }");
    repository.check(&["run"], 0);
}

/// Takes from this thread, and from what it starts, what lets root read everything.
fn become_ordinary() {
    for capability in [CapabilitySet::DAC_OVERRIDE, CapabilitySet::DAC_READ_SEARCH] {
        // Who is not root has neither.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
}

#[test]
fn a_sandbox_shows_the_inputs_that_a_build_began_with() {
    let repository = Repository::new(&pipeline(
        "  check: { needs: [slow], environment: sandbox, inputs: ['data/**'], run: 'echo $(ls data)' }\n",
    ));
    repository.write("data/kept", "");
    repository.git(&["add", "-A"]);
    repository.commit("other\n");
    repository.write("data/new", "");
    let child = repository.start_and_wait(&["run"]);
    fs::remove_file(repository.root().join("data/new")).expect("there");
    repository.git(&["rm", "-q", "data/kept"]);
    repository.write("data/later", "");
    let text = repository.let_go(child, 0);
    assert!(text.contains("check | kept new\n"), "{text}");
}

#[test]
fn what_is_ignored_around_a_repository_is_not_seen_in_it() {
    let repository = Repository::new(
        "jobs: { a: { inputs: ['**'], run: 'test ! -e known/a.o && test ! -e foreign/a.o && cat known/f foreign/f' } }",
    );
    repository.write(".gitignore", "*.o\n");
    for place in ["known", "foreign"] {
        nest(&repository, place);
        repository.write(&format!("{place}/a.o"), "1");
    }
    repository.git(&["add", ".gitignore", "known"]);
    repository.commit("other\n");
    let text = repository.check(&["run"], 0);
    assert_eq!(text.matches("a | start").count(), 2, "{text}");
}

#[test]
fn a_repository_in_the_index_is_of_the_start_too() {
    let repository =
        Repository::new("jobs:\n  ok: { gate: {} }\n  a: { needs: [ok], inputs: ['**'], run: cat nested/f }\n");
    nest(&repository, "nested");
    repository.git(&["add", "nested"]);
    repository.commit("other\n");
    repository.check(&["run"], 4);
    repository.write("nested/f", "later\n");
    let text = repository.check(&["approve", "1", "ok"], 0);
    assert!(text.contains("a | start"), "{text}");
    let text = repository.check(&["show", "1", "a"], 0);
    let told = "an input changed while the job ran or before it, since the build began: nested/f; its result is not kept for reuse";
    assert!(text.contains(told), "{text}");
    repository.check(&["run"], 4);
    let text = repository.check(&["approve", "2", "ok"], 0);
    assert!(text.contains("a | later"), "{text}");
}

#[test]
fn why_git_does_not_answer_is_told_once_before_a_build_begins() {
    let repository = Repository::new("jobs: { a: { run: 'true' } }");
    let check = |path: Option<&std::path::Path>, told: &[&str]| {
        let mut command = repository.command(&["run"]);
        if let Some(path) = path {
            command.env("PATH", path);
        }
        // git asks for the owner as this variable says, in its own tests.
        command.env("GIT_TEST_ASSUME_DIFFERENT_OWNER", if told[0].contains("dubious") { "1" } else { "0" });
        let output = command.output().expect("ropewalk starts");
        let text = text(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        let root = repository.root();
        let start = format!(
            "error: git does not say how the files of `{}` stand, of which jobs are given a copy:\n  ",
            root.display()
        );
        assert!(text.starts_with(&start), "{text}");
        told.iter().for_each(|told| assert_eq!(text.matches(told).count(), 1, "`{told}` once in:\n{text}"));
    };
    check(
        None,
        &[
            "detected dubious ownership",
            "\n  To add an exception for this directory, call:\n\n  \tgit config --global --add safe.directory ",
            "\nThe folder belongs to another user: ",
        ],
    );
    let nothing = tempfile::tempdir().expect("a scratch folder");
    check(Some(nothing.path()), &["\n  no program `git` was found\nInstall git, or set PATH so that it is found.\n"]);
    let git = repository.root().join(".git");
    become_ordinary();
    fs::set_permissions(&git, fs::Permissions::from_mode(0o0)).expect("it is ours");
    check(None, &["/.git` cannot be read: Permission denied (os error 13)\nMake it readable for you"]);
    fs::set_permissions(&git, fs::Permissions::from_mode(0o700)).expect("it is ours");
    fs::remove_file(git.join("HEAD")).expect("a repository has it");
    check(None, &["/.git` is there, but holds no repository\nRepair it; "]);
    repository.write(".ropewalk/pipeline.yaml", "jobs: { a: { workspace: in_place, run: 'true' } }");
    repository.check(&["run"], 0);
    assert!(repository.check(&["builds"], 0).starts_with("build  "), "only that one has begun");
}
