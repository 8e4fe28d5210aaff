//! What a job of a submitted build sees: the files, their history and their place, as on the laptop that sent them. Every part is a
//! real process of the binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use process::{Process, Reader};

mod process;

/// A server, a worker and a repository.
struct Site {
    folder: tempfile::TempDir,
    address: String,
    running: Vec<Process>,
}

impl Site {
    /// With a repository of these files in one commit.
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let mut site = Self { folder, address, running: Vec::new() };
        fs::create_dir_all(site.path("data")).expect("a folder");
        fs::create_dir_all(site.root()).expect("a folder");
        files.iter().for_each(|(name, text)| site.write(name, text));
        site.git(&["init", "-q", "-b", "main"]);
        site.commit("first");
        for (name, flags) in
            [("worker.token", &["--worker", "--name", "w"][..]), ("client.token", &["--submit", "--client", "t"])]
        {
            let mut command = site.command(&["token", "create", "--data"]);
            let output = command.arg(site.path("data")).args(flags).output().expect("ropewalk starts");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            fs::write(site.path(name), output.stdout).expect("a file");
        }
        site.start();
        site
    }

    fn start(&mut self) {
        let data = self.path("data");
        let mut serve = self.command(&["serve", "--local-worker", "off", "--listen", &self.address, "--data"]);
        let mut server = Process(serve.arg(data).stdout(Stdio::piped()).spawn().expect("ropewalk starts"));
        Reader::new(server.0.stdout.take().expect("a pipe")).until("serving http://");
        self.running.push(server);
        self.work();
    }

    /// Starts the worker, always the same one.
    fn work(&mut self) {
        let url = self.url();
        let mut work = self.command(&["work", "--server", &url, "--capacity", "4", "--grace", "1", "--name", "w"]);
        work.arg("--token").arg(self.path("worker.token")).arg("--data").arg(self.path("worker"));
        let mut worker = Process(work.stderr(Stdio::piped()).spawn().expect("ropewalk starts"));
        Reader::new(worker.0.stderr.take().expect("a pipe")).until("joined http://");
        self.running.push(worker);
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.path("repository")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@localhost"]).args(arguments).current_dir(self.root());
        let output = command.output().expect("git starts");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ropewalk"));
        command.args(arguments).current_dir(self.root()).stdin(Stdio::null());
        command.env("ROPEWALK_DATA", self.path("home")).env("NO_COLOR", "1");
        for variable in ["ROPEWALK_SERVER", "ROPEWALK_TOKEN_FILE"] {
            command.env_remove(variable);
        }
        command
    }

    /// Submits and waits; asserts the exit code. Both streams.
    #[track_caller]
    fn submit(&self, flags: &[&str], code: i32) -> String {
        let mut command = self.command(&["submit", "--server", &self.url(), "--token"]);
        let output = command.arg(self.path("client.token")).args(flags).output().expect("ropewalk starts");
        let Output { status, stdout, stderr } = output;
        let text = format!("{}{}", String::from_utf8_lossy(&stderr), String::from_utf8_lossy(&stdout));
        assert_eq!(status.code(), Some(code), "ropewalk submit {flags:?} printed:\n{text}");
        text
    }

    /// What the job `job` of a build printed, line by line.
    #[track_caller]
    fn printed(&self, job: &str, flags: &[&str]) -> Vec<String> {
        let text = self.submit(flags, 0);
        let before = format!("{job} | ");
        text.lines().filter_map(|line| line.strip_prefix(&before)).map(str::to_owned).collect()
    }

    /// The digests of all blobs that the server has, with their lengths.
    fn blobs(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        files_below(&self.path("data/blobs"), &mut found);
        found.sort();
        found
    }
}

fn files_below(folder: &Path, found: &mut Vec<(PathBuf, u64)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let metadata = entry.metadata().expect("metadata");
        match metadata.is_dir() {
            true => files_below(&entry.path(), found),
            false => found.push((entry.path(), metadata.len())),
        }
    }
}

/// A pipeline of one job that runs these lines.
fn pipeline(lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("      {line}\n")).collect();
    format!("jobs:\n  a:\n    run: |\n{lines}")
}

const PIPELINE: &str = ".ropewalk/pipeline.yaml";

#[test]
fn git_answers_in_a_job_as_it_does_where_it_was_submitted() {
    let questions = [
        "git describe --tags",
        "git rev-parse HEAD",
        "git rev-parse --abbrev-ref HEAD",
        "git log --format=%s",
        "git ls-files",
        "git status --porcelain",
        "git diff --stat HEAD",
        "git tag --list",
        "git fsck --no-progress",
    ];
    let site =
        Site::new(&[(PIPELINE, &pipeline(&questions)), ("file", "one\n"), ("gone", "x\n"), (".gitignore", "out\n")]);
    site.git(&["tag", "-a", "v1.0", "-m", "a release"]);
    site.write("file", "two\n");
    site.commit("second");
    site.git(&["tag", "light"]);
    site.write("file", "three\n");
    site.write("untracked", "new\n");
    site.write("staged", "new\n");
    site.write("out", "ignored\n");
    site.git(&["add", "staged"]);
    fs::remove_file(site.root().join("gone")).expect("a file");
    let asked = |directory: &Path| {
        let output = Command::new("sh").args(["-c", &questions.join(" && ")]).current_dir(directory).output();
        String::from_utf8(output.expect("sh starts").stdout).expect("text")
    };
    let expected: Vec<String> = asked(&site.root()).lines().map(str::to_owned).collect();
    assert!(expected.contains(&"?? untracked".to_owned()) && expected.contains(&" M file".to_owned()), "{expected:?}");
    assert_eq!(site.printed("a", &[]), expected);

    // A commit is laid as `git checkout` would, detached unless it is the branch's.
    let first = site.git(&["rev-parse", "HEAD~1"]);
    let printed = site.printed("a", &["--commit", "HEAD~1"]);
    assert_eq!(printed[..4], ["v1.0", first.trim(), "HEAD", "first"], "{printed:?}");
    assert!(!printed.iter().any(|line| line.starts_with("??") || line.contains(" M ")), "{printed:?}");
}

#[test]
fn where_there_is_no_repository_there_is_none_in_the_job() {
    let site = Site::new(&[(PIPELINE, &pipeline(&["test -e .git || echo none"]))]);
    fs::remove_dir_all(site.root().join(".git")).expect("a folder");
    assert_eq!(site.printed("a", &[]), ["none"]);
}

#[test]
fn an_unchanged_commit_sends_its_history_once_and_the_next_one_what_it_adds() {
    let site = Site::new(&[(PIPELINE, &pipeline(&["git log --format=%s | wc -l", "git fsck --no-progress"]))]);
    let noise: String =
        (0..20_000).map(|number: u64| format!("{}\n", number.wrapping_mul(6_364_136_223_846_793_005))).collect();
    site.write("large", &noise);
    site.commit("second");
    assert_eq!(site.printed("a", &[]), ["2"]);
    let packs = |site: &Site| {
        let mut found = Vec::new();
        files_below(&site.path("worker/packs"), &mut found);
        let mut lengths: Vec<u64> = found
            .iter()
            .filter(|(path, _)| path.extension().is_some_and(|kind| kind == "pack"))
            .map(|(_, bytes)| *bytes)
            .collect();
        lengths.sort_unstable();
        lengths
    };
    let first = packs(&site);
    assert_eq!(first.len(), 1);
    let before = site.blobs();
    site.write("small", "edited\n");
    assert_eq!(site.printed("a", &[]), ["2"]);
    assert_eq!(packs(&site), first, "the pack was made again");
    // The file, the list of files, and what ends with the build.
    let sent: u64 = site.blobs().iter().filter(|blob| !before.contains(blob)).map(|(_, bytes)| *bytes).sum();
    assert!(sent < first[0] / 4, "{sent} bytes were sent, the history has {}", first[0]);
    site.commit("third");
    assert_eq!(site.printed("a", &[]), ["3"]);
    let second = packs(&site);
    assert_eq!(second.len(), 2);
    assert!(second[0] < first[0] / 4, "{second:?}");
}

#[test]
fn a_shallow_repository_stays_one_and_says_so() {
    let site = Site::new(&[(
        PIPELINE,
        &pipeline(&["git log --format=%s", "git rev-parse --is-shallow-repository", "git fsck"]),
    )]);
    for message in ["second", "third"] {
        site.commit(message);
    }
    let clone = site.path("clone");
    let from = format!("file://{}", site.root().display());
    site.git(&["clone", "-q", "--depth", "2", &from, &clone.display().to_string()]);
    fs::remove_dir_all(site.root()).expect("a folder");
    fs::rename(&clone, site.root()).expect("it is moved");
    let text = site.submit(&[], 0);
    for line in ["a | third", "a | second", "a | true", "shallow: 2 commits"] {
        assert!(text.contains(line), "no `{line}` in:\n{text}");
    }
    assert!(!text.contains("a | first"), "{text}");
}

/// Whether a file below the folder, or what git keeps in it, holds the text.
fn holds(folder: &Path, text: &str) -> Option<PathBuf> {
    let mut found = Vec::new();
    files_below(folder, &mut found);
    let has = |path: &Path| {
        let bytes = fs::read(path).unwrap_or_default();
        let bytes = if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let output = Command::new("zstd").args(["-dcq"]).arg(path).output();
            output.map(|output| output.stdout).unwrap_or(bytes)
        } else {
            bytes
        };
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    found.into_iter().map(|(path, _)| path).find(|path| has(path))
}

#[test]
fn no_setting_hook_or_address_travels() {
    let lines =
        ["cat .git/config", "ls .git/hooks || true", "git for-each-ref", "git remote", "git stash list", "git reflog"];
    let site = Site::new(&[(PIPELINE, &pipeline(&lines)), ("file", "one\n")]);
    let secret = "hunter2hunter2";
    site.git(&["remote", "add", "origin", &format!("https://ann:{secret}@example.org/x.git")]);
    site.git(&["config", "credential.helper", &format!("!echo {secret}")]);
    site.git(&["config", "http.extraHeader", &format!("Authorization: {secret}")]);
    let hook = site.root().join(".git/hooks/post-checkout");
    fs::create_dir_all(hook.parent().expect("a parent")).expect("a folder");
    fs::write(&hook, format!("#!/bin/sh\necho {secret}\n")).expect("a file");
    fs::write(site.root().join(".git/credentials"), secret).expect("a file");
    // Nor what the commit does not reach: a stash, another branch, an amended commit.
    site.write("file", &format!("{secret}\n"));
    site.git(&["stash", "push", "-q", "-m", secret]);
    site.git(&["checkout", "-q", "-b", "other"]);
    site.commit(secret);
    site.git(&["checkout", "-q", "main"]);
    let text = site.submit(&[], 0);
    assert!(!text.contains(secret) && !text.contains("other") && !text.contains("origin"), "{text}");
    let own = [site.path("worker"), site.path("data/blobs")];
    assert_eq!(own.iter().find_map(|folder| holds(folder, secret)), None);
    // Objects are compressed: git itself is asked for every one of them.
    let mut found = Vec::new();
    files_below(&site.path("worker/packs"), &mut found);
    let index = found.iter().find(|(path, _)| path.extension().is_some_and(|kind| kind == "idx")).expect("a pack");
    let listed = Command::new("git").args(["verify-pack", "-v"]).arg(&index.0).output().expect("git starts");
    let objects = String::from_utf8(listed.stdout).expect("text");
    let reached = site.git(&["rev-list", "--objects", "main"]);
    let ids = |text: &str| -> std::collections::BTreeSet<String> {
        let first = text.lines().filter_map(|line| line.split(' ').next());
        first.filter(|id| id.len() == 40).map(str::to_owned).collect()
    };
    assert_eq!(ids(&objects), ids(&reached));
}

#[test]
fn a_project_is_always_seen_at_one_place_and_only_what_changed_is_newer() {
    let lines = ["pwd", "stat -c '%n %y' kept changed folder"];
    let site = Site::new(&[(PIPELINE, &pipeline(&lines)), ("kept", "1\n"), ("changed", "1\n"), ("folder/x", "1\n")]);
    let first = site.printed("a", &[]);
    site.write("changed", "2\n");
    let second = site.printed("a", &[]);
    let [place, kept, changed, folder] = &first[..] else { panic!("{first:?}") };
    assert_eq!([place, kept, folder], [&second[0], &second[1], &second[3]]);
    assert!(changed < &second[2], "{changed} is not older than {}", second[2]);
    // As it was before: newer again, since what was built meanwhile was built from the other.
    site.write("changed", "1\n");
    let third = site.printed("a", &[]);
    assert!(second[2] < third[2], "{} is not older than {}", second[2], third[2]);
    assert_eq!(second[1], third[1]);
    let in_place = format!("{}    workspace: in_place\n", pipeline(&lines));
    site.write(PIPELINE, &in_place);
    let fourth = site.printed("a", &[]);
    assert_eq!([place, kept], [&fourth[0], &fourth[1]]);
}

#[test]
fn two_builds_of_a_project_at_once_see_each_their_own_files() {
    let meet = "touch MARK.$(cat who); while ! test -e MARK.one || ! test -e MARK.two; do sleep 0.02; done";
    let site = Site::new(&[("who", "one\n")]);
    let mark = site.path("mark").display().to_string();
    let lines = ["pwd", &meet.replace("MARK", &mark), "echo mine >> who; cat who"];
    site.write(PIPELINE, &pipeline(&lines));
    std::thread::scope(|scope| {
        let submit = |name: &'static str| {
            let mut command = site.command(&["submit", "--server", &site.url(), "--token"]);
            command.arg(site.path("client.token")).args(["--separate"]).stdout(Stdio::piped()).stderr(Stdio::piped());
            site.write("who", &format!("{name}\n"));
            // Of one branch, the later build would supersede the earlier.
            site.git(&["checkout", "-q", "-B", name]);
            let mut process = Process(command.spawn().expect("ropewalk starts"));
            let mut said = Reader::new(process.0.stderr.take().expect("a pipe"));
            said.until("number");
            scope.spawn(move || Reader::new(process.0.stdout.take().expect("a pipe")).rest())
        };
        let shown = ["one", "two"].map(submit).map(|shown| shown.join().expect("it ends"));
        let line = |shown: &[String], wanted: &str| shown.iter().any(|line| line == wanted);
        let place = |shown: &[String]| shown.iter().find(|line| line.starts_with("a | /")).cloned();
        assert_eq!(place(&shown[0]), place(&shown[1]));
        assert!(place(&shown[0]).is_some() && line(&shown[0], "a | one") && line(&shown[0], "a | mine"), "{shown:?}");
        assert!(line(&shown[1], "a | two") && !line(&shown[1], "a | one"), "{shown:?}");
    });
}

#[test]
fn jobs_that_begin_at_once_after_a_restart_share_one_snapshot() {
    let jobs: String = (0..8).map(|job| format!("  job-{job}:\n    run: cat file\n")).collect();
    let mut site = Site::new(&[(PIPELINE, &format!("jobs:\n{jobs}")), ("file", "1\n")]);
    for round in 0..6 {
        site.write("file", &format!("{round}\n"));
        let text = site.submit(&["--separate"], 0);
        assert_eq!(text.matches(": passed").count(), 8, "{text}");
        assert!(!text.contains("prepare the workspace") && !text.contains("try 2"), "{text}");
        let mut worker = site.running.pop().expect("a worker");
        worker.kill();
        site.work();
    }
}

#[test]
fn a_secret_that_is_not_there_fails_at_once_and_says_what_sets_it() {
    let site = Site::new(&[(PIPELINE, "jobs:\n  a:\n    secrets: [TOKEN]\n    run: echo never\n")]);
    let text = site.submit(&["--project", "web", "--output", "json"], 1);
    assert!(text.contains("project `web` has no secret `TOKEN`: `ropewalk secrets put web TOKEN` sets it"), "{text}");
    assert_eq!(text.matches("\"kind\":\"job_finished\"").count(), 1, "{text}");
    assert!(!text.contains("\"try\":2") && text.contains("\"setup\""), "{text}");
}
