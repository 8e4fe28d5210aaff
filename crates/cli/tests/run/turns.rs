//! Two `ropewalk run`s of one project at once: concurrency groups, and equal operations.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout};

use super::Repository;

/// A build under way, and what it has printed so far.
struct Run {
    process: Child,
    reader: BufReader<ChildStdout>,
    text: String,
}

impl Run {
    fn start(repository: &Repository, arguments: &[&str]) -> Self {
        let mut process = repository.start(&[&["run", "--output", "plain"], arguments].concat());
        let reader = BufReader::new(process.stdout.take().expect("a pipe"));
        Self { process, reader, text: String::new() }
    }

    /// Reads up to the line that holds `wanted`.
    #[track_caller]
    fn until(mut self, wanted: &str) -> Self {
        let mut line = String::new();
        while self.reader.read_line(&mut line).expect("readable output") > 0 {
            self.text.push_str(&line);
            if line.contains(wanted) {
                return self;
            }
            line.clear();
        }
        panic!("the output ended without `{wanted}`:\n{}", self.text);
    }

    /// What it has printed once it has ended, and asserts the exit code.
    #[track_caller]
    fn end(mut self, code: i32) -> String {
        self.reader.read_to_string(&mut self.text).expect("readable output");
        let status = self.process.wait().expect("it ends");
        assert_eq!(status.code(), Some(code), "{}", self.text);
        self.text
    }

    /// Has it die, with all that it had begun.
    fn kill(mut self) {
        self.process.kill().expect("kill -9");
        self.process.wait().expect("it ends");
        self.reader.read_to_end(&mut Vec::new()).expect("readable output");
    }

    fn interrupt(&self) {
        let process = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(process, rustix::process::Signal::INT).expect("a signal is sent");
    }
}

impl Repository {
    /// What is kept of the project, once something is.
    fn kept(&self) -> PathBuf {
        let mut entries = fs::read_dir(self.folder.path().join("data")).expect("a folder");
        entries.next().expect("a project").expect("a folder").path()
    }

    /// Makes the file for which scripts wait by [`until`].
    fn tell(&self, name: &str) {
        fs::write(self.kept().join(name), "").expect("a file");
    }

    /// What scripts wrote into `log` in the data folder.
    fn log(&self) -> String {
        fs::read_to_string(self.kept().join("log")).unwrap_or_default()
    }

    /// Nothing is left of any turn.
    #[track_caller]
    fn assert_no_turns(&self) {
        for kind in ["groups", "operations"] {
            let folder = self.kept().join("turns").join(kind);
            let left = fs::read_dir(folder).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{kind}");
        }
    }
}

/// A script that waits for a file in the data folder.
fn until(name: &str) -> String {
    format!("until [ -e \"$ROPEWALK_PROJECT_DATA/{name}\" ]; do sleep 0.02; done")
}

/// A script that tells when it begins and ends, and meanwhile waits for the file `go`.
fn work() -> String {
    let log = "\"$ROPEWALK_PROJECT_DATA/log\"";
    format!("echo begin $ROPEWALK_BUILD >> {log}; echo at work; {}; echo end $ROPEWALK_BUILD >> {log}", until("go"))
}

fn deploying(mode: &str) -> Repository {
    let work = work();
    let concurrency = format!("{{ group: production, mode: {mode} }}");
    Repository::new(&format!("jobs:\n  deploy: {{ reuse: false, concurrency: {concurrency}, run: '{work}' }}\n"))
}

const HELD: &str = "deploy: waits for its concurrency group `production`, held by build 1 (deploy)";

#[test]
fn a_group_holds_between_builds_in_order_of_arrival() {
    let repository = deploying("queue");
    let first = Run::start(&repository, &[]).until("at work");
    let second = Run::start(&repository, &[]).until(HELD);
    let third = Run::start(&repository, &[]).until(&format!("{HELD}, with 1 more job before it"));
    repository.tell("go");
    first.end(0);
    second.end(0);
    assert!(third.end(0).contains("build 3 passed"));
    assert_eq!(repository.log(), "begin 1\nend 1\nbegin 2\nend 2\nbegin 3\nend 3\n");
    repository.assert_no_turns();
}

#[test]
fn who_dies_leaves_its_turn_and_its_place_to_the_next() {
    let repository = deploying("queue");
    let first = Run::start(&repository, &[]).until("at work");
    Run::start(&repository, &[]).until(HELD).kill();
    let third = Run::start(&repository, &[]).until(HELD);
    assert!(!third.text.contains("before it"), "{}", third.text);
    first.kill();
    let third = third.until("at work");
    repository.tell("go");
    third.end(0);
    assert_eq!(repository.log(), "begin 1\nbegin 3\nend 3\n");
    repository.assert_no_turns();
}

#[test]
fn a_build_gone_on_with_after_a_kill_is_not_taken_for_the_one_that_had_the_turn() {
    let repository = deploying("queue");
    Run::start(&repository, &[]).until("at work").kill();
    let second = Run::start(&repository, &[]).until("at work");
    let again = Run::start(&repository, &["--resume", "1"]).until("held by build 2 (deploy)");
    repository.tell("go");
    second.end(0);
    again.end(0);
    assert_eq!(repository.log(), "begin 1\nbegin 2\nend 2\nbegin 1\nend 1\n");
}

#[test]
fn a_job_that_waits_for_its_group_is_canceled_without_having_run() {
    let repository = deploying("queue");
    let first = Run::start(&repository, &[]).until("at work");
    let second = Run::start(&repository, &[]).until(HELD);
    second.interrupt();
    let text = second.end(130);
    assert!(text.contains("deploy: canceled by Ctrl-C") && text.contains("build 2 was canceled"), "{text}");
    let third = Run::start(&repository, &[]).until(HELD);
    assert!(!third.text.contains("before it"), "{}", third.text);
    assert!(repository.check(&["cancel", "3"], 0).contains("build 3 is asked to end"));
    third.end(130);
    repository.tell("go");
    first.end(0);
    assert_eq!(repository.log(), "begin 1\nend 1\n");
    repository.assert_no_turns();
}

#[test]
fn a_newer_build_cancels_the_one_that_runs() {
    let repository = deploying("cancel_running");
    let first = Run::start(&repository, &[]).until("at work");
    let second = Run::start(&repository, &[]).until("at work");
    let text = first.end(1);
    assert!(text.contains("deploy: canceled by a newer job of its concurrency group"), "{text}");
    repository.tell("go");
    second.end(0);
    assert_eq!(repository.log(), "begin 1\nbegin 2\nend 2\n");
}

#[test]
fn a_newer_build_cancels_those_that_wait_in_their_process_or_in_line() {
    let work = work();
    let concurrency = "concurrency: { group: production, mode: cancel_waiting }";
    let repository = Repository::new(&format!(
        "jobs:\n  deploy: {{ reuse: false, {concurrency}, run: '{work}' }}\n  soon: {{ reuse: false, run: '{}' }}\n  \
         again: {{ needs: [soon], reuse: false, concurrency: {{ group: production }}, run: '{work}' }}\n",
        until("soon"),
    ));
    let first = Run::start(&repository, &[]).until("deploy | at work");
    repository.tell("soon");
    let first = first.until("soon: passed");
    let second = Run::start(&repository, &["--job", "deploy"]).until(HELD);
    let first = first.until("again: canceled by job `deploy` of build 2");
    let third = Run::start(&repository, &["--job", "deploy"]).until(HELD);
    let text = second.end(1);
    assert!(text.contains("deploy: canceled by job `deploy` of build 3"), "{text}");
    repository.tell("go");
    assert!(first.end(1).contains("deploy: passed"));
    third.end(0);
    assert_eq!(repository.log(), "begin 1\nend 1\nbegin 3\nend 3\n");
}

#[test]
fn a_job_has_its_turn_over_all_its_tries() {
    let log = "\"$ROPEWALK_PROJECT_DATA/log\"";
    let retry = "retry: { max: 1, on: [step], backoff: 1s }";
    let script = format!("echo begin $ROPEWALK_BUILD >> {log}; echo at work; {}; mkdir once && exit 1", until("go"));
    let script = script.replace("mkdir once", "mkdir \"$ROPEWALK_PROJECT_DATA/once\"");
    let repository = Repository::new(&format!(
        "jobs:\n  deploy: {{ reuse: false, concurrency: {{ group: production }}, {retry}, run: '{script} || true' }}\n"
    ));
    let first = Run::start(&repository, &[]).until("at work");
    let second = Run::start(&repository, &[]).until(HELD);
    repository.tell("go");
    assert!(first.end(0).contains("try 1 of 2"));
    second.end(0);
    assert_eq!(repository.log(), "begin 1\nbegin 1\nbegin 2\n");
}

#[test]
fn a_job_that_waits_takes_no_slot_from_others_of_its_build() {
    let work = work();
    let repository = Repository::new(&format!(
        "jobs:\n  deploy: {{ reuse: false, concurrency: {{ group: production }}, run: '{work}' }}\n  beside: {{ reuse: false, run: echo beside }}\n"
    ));
    let first = Run::start(&repository, &["--job", "deploy"]).until("at work");
    let second = Run::start(&repository, &["-j1"]).until("beside: passed");
    assert!(second.text.contains(HELD), "{}", second.text);
    repository.tell("go");
    first.end(0);
    second.end(0);
}

/// The child's job waits for one that has its turn, and lacks the slot of the job that waits for that child.
#[test]
fn a_job_for_which_one_waits_below_the_slots_begins_without() {
    let work = work();
    let repository = Repository::new(&format!(
        "jobs:\n  deploy: {{ reuse: false, concurrency: {{ group: production }}, run: '{work}' }}\n  \
         parent: {{ reuse: false, run: 'exec \"$ROPEWALK_BINARY\" run .ropewalk/child.yaml' }}\n"
    ));
    let child = "jobs:\n  first: { reuse: false, run: 'echo child; UNTIL' }\n  second: { needs: [first], reuse: false, concurrency: { group: production }, run: echo late }\n";
    repository.write(".ropewalk/child.yaml", &child.replace("UNTIL", &until("child")));
    let first = Run::start(&repository, &["--job", "deploy"]).until("at work");
    let second = Run::start(&repository, &["-j1"]).until("first | child");
    assert!(second.text.contains(HELD), "{}", second.text);
    repository.tell("go");
    first.end(0);
    repository.tell("child");
    let text = second.end(0);
    assert!(text.contains("second | late"), "{text}");
    assert_eq!(repository.log(), "begin 1\nend 1\nbegin 2\nend 2\n");
}

#[test]
fn a_build_below_a_job_that_has_the_group_is_refused_at_once() {
    let concurrency = "concurrency: { group: production }";
    let run = "exec \"$ROPEWALK_BINARY\" run .ropewalk/child.yaml";
    let repository = Repository::new(&format!("jobs:\n  release: {{ reuse: false, {concurrency}, run: '{run}' }}\n"));
    let child = format!("jobs: {{ deploy: {{ {concurrency}, retry: {{ max: 2, on: [step] }}, run: echo never }} }}\n");
    repository.write(".ropewalk/child.yaml", &child);
    let text = repository.check(&["run"], 1);
    let refused = "deploy: failed: the group `production` is held by job `release` of build 1, which waits for this build: name the group in one of them";
    assert!(text.contains(refused) && !text.contains("| never") && !text.contains("try 1"), "{text}");
}

fn building(script: &str) -> Repository {
    let log = "\"$ROPEWALK_PROJECT_DATA/log\"";
    let work = format!("echo ran >> {log}; echo at work; {}; {script}", until("go"));
    Repository::new(&format!("jobs:\n  build: {{ inputs: [file.txt], run: '{work}' }}\n"))
}

const SAME: &str = "build: waits for the equal operation that build 1 runs (build)";

#[test]
fn an_equal_operation_of_two_builds_runs_once() {
    let repository = building("true");
    let first = Run::start(&repository, &[]).until("at work");
    let second = Run::start(&repository, &[]).until(SAME);
    // One that looks for no earlier result does not wait for any.
    Run::start(&repository, &["--no-reuse"]).until("at work").kill();
    repository.tell("go");
    first.end(0);
    let text = second.end(0);
    assert!(text.contains("build: cached, from build 1") && !text.contains("at work"), "{text}");
    assert_eq!(repository.log(), "ran\nran\n");
    repository.assert_no_turns();
}

#[test]
fn an_equal_operation_runs_again_if_the_first_fails_or_dies() {
    let repository = building("mkdir \"$ROPEWALK_PROJECT_DATA/once\" && exit 1; true");
    let first = Run::start(&repository, &[]).until("at work");
    let second = Run::start(&repository, &[]).until(SAME);
    repository.tell("go");
    first.end(1);
    let text = second.end(0);
    assert!(text.contains("build: passed"), "{text}");
    fs::remove_file(repository.kept().join("go")).expect("it was there");
    repository.write("file.txt", "another\n");
    let third = Run::start(&repository, &[]).until("at work");
    let fourth = Run::start(&repository, &[]).until("the equal operation that build 3 runs");
    third.kill();
    let fourth = fourth.until("at work");
    repository.tell("go");
    fourth.end(0);
    assert_eq!(repository.log(), "ran\nran\nran\nran\n");
    repository.assert_no_turns();
}

#[test]
fn a_job_that_waits_for_an_equal_operation_is_canceled_without_having_run() {
    let repository = building("true");
    let first = Run::start(&repository, &[]).until("at work");
    let second = Run::start(&repository, &[]).until(SAME);
    second.interrupt();
    let text = second.end(130);
    assert!(text.contains("build 2 was canceled by Ctrl-C") && !text.contains("at work"), "{text}");
    repository.tell("go");
    first.end(0);
}

#[test]
fn what_waits_says_so_in_json() {
    let repository = deploying("queue");
    let first = Run::start(&repository, &[]).until("at work");
    let mut second = repository.start(&["run", "--output", "json"]);
    let mut lines = BufReader::new(second.stdout.take().expect("a pipe")).lines().map(|line| line.expect("text"));
    let waiting = lines.find(|line| line.contains("\"kind\":\"job_waiting\"")).expect("it says so");
    let mut waiting: serde_json::Value = serde_json::from_str(&waiting).expect("an object");
    waiting.as_object_mut().expect("an object").remove("time");
    let expected = serde_json::json!({
        "kind": "job_waiting", "build": 2, "job": "deploy", "for": "group", "group": "production",
        "holder": { "build": 1, "job": "deploy" }, "text": HELD.trim_start_matches("deploy: "),
    });
    assert_eq!(waiting, expected);
    repository.tell("go");
    first.end(0);
    assert!(lines.last().expect("a line").contains("build_finished"));
    assert!(second.wait().expect("it ends").success());
}
