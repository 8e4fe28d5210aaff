//! Builds that jobs of other builds ask for: real repositories, real processes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// A repository with these files, and a data folder of its own.
struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    fn new(files: &[(&str, &str)]) -> Self {
        let repository = Self { folder: tempfile::tempdir().expect("a scratch folder") };
        fs::create_dir_all(repository.root().join(".ropewalk")).expect("a folder");
        for (name, text) in files {
            fs::write(repository.root().join(".ropewalk").join(name), text).expect("a file");
        }
        repository.git(&["init", "-q", "-b", "main"]);
        repository.git(&["add", "-A"]);
        repository.git(&["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "first"]);
        repository
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    fn git(&self, arguments: &[&str]) {
        let status = Command::new("git").args(arguments).current_dir(self.root()).status().expect("git");
        assert!(status.success(), "git {arguments:?}");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ropewalk"));
        command.args(arguments).current_dir(self.root()).env("ROPEWALK_DATA", self.folder.path().join("data"));
        command.env("NO_COLOR", "1").env("TOKEN", "hunter2").stdin(Stdio::null());
        command
    }

    /// Runs, and asserts the exit code. Both streams as text.
    #[track_caller]
    fn check(&self, arguments: &[&str], code: i32) -> String {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("ropewalk starts");
        let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert_eq!(status.code(), Some(code), "ropewalk {arguments:?} printed:\n{text}");
        text
    }

    /// Starts a build and reads its output up to the line that holds `wanted`.
    fn start(&self, wanted: &str) -> (Child, BufReader<std::process::ChildStdout>) {
        let mut command = self.command(&["run", "--output", "plain"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ropewalk starts");
        let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        while reader.read_line(&mut line).expect("readable output") > 0 {
            if line.contains(wanted) {
                return (child, reader);
            }
            line.clear();
        }
        let status = child.wait();
        panic!("the output ended without `{wanted}`, with {status:?}");
    }
}

/// Asserts that each of these stands in the text, in this order.
#[track_caller]
fn in_order(text: &str, wanted: &[&str]) {
    let mut rest = text;
    for one in wanted {
        let Some((_, after)) = rest.split_once(one) else { panic!("no `{one}` in what is left of:\n{text}") };
        rest = after;
    }
}

const WAITING: &str = r#"exec "$ROPEWALK_BINARY" run .ropewalk/child.yaml"#;

fn waiting(more: &str) -> String {
    format!("jobs:\n  a: {{ reuse: false, run: '{WAITING}' }}\n{more}")
}

#[test]
fn a_job_waits_for_its_child_and_hands_on_what_it_hands_on() {
    let parent = "jobs:\n  prep: { run: echo prepared > made.txt, artifacts: [made.txt] }\n  a:\n    needs: [prep]\n    secrets: [TOKEN]\n    outputs: [v]\n    run: 'exec \"$ROPEWALK_BINARY\" run .ropewalk/child.yaml --param to=moon --hand-on one.version=v'\n  b: { needs: [a], run: 'echo got ${{ needs.a.outputs.v }}' }\n";
    let child = "on: { manual: { params: { to: { type: string } } } }\njobs:\n  one: { outputs: [version], secrets: [TOKEN], run: 'cat made.txt; echo $ROPEWALK_EVENT ${{ params.to }}; echo ${#TOKEN} letters; echo version=1.2 >> $ROPEWALK_OUTPUT' }\n";
    let repository = Repository::new(&[("pipeline.yaml", parent), ("child.yaml", child)]);
    let text = repository.check(&["run"], 0);
    in_order(
        &text,
        &["one | prepared", "one | manual moon", "one | 7 letters", "build 2 passed", "got 1.2", "build 1 passed"],
    );
    let text = repository.check(&["show", "1"], 0);
    assert!(text.contains("build 2 passed, for a: .ropewalk/child.yaml"), "{text}");
    let text = repository.check(&["show", "2"], 0);
    assert!(text.contains("for a of build 1"), "{text}");
    assert!(!repository.root().join("made.txt").exists(), "the user's tree is left alone");
}

#[test]
fn a_job_hands_on_what_the_legs_of_a_matrix_hand_on_together() {
    let parent = "jobs:\n  a: { outputs: [last, one], run: [{ build: { file: .ropewalk/child.yaml, hand_on: { last: m.n, one: m/1.n } } }] }\n  b: { needs: [a], run: 'echo got ${{ needs.a.outputs.last }} ${{ needs.a.outputs.one }}' }\n";
    let child =
        "jobs: { m: { matrix: { n: [1, 2] }, outputs: [n], run: 'echo n=${{ matrix.n }}0 >> $ROPEWALK_OUTPUT' } }";
    let repository = Repository::new(&[("pipeline.yaml", parent), ("child.yaml", child)]);
    let text = repository.check(&["run"], 0);
    assert!(text.contains("got 20 10"), "{text}");
}

#[test]
fn a_child_that_fails_fails_its_job() {
    let child = "jobs: { one: { run: exit 7 } }";
    let repository = Repository::new(&[("pipeline.yaml", &waiting("")), ("child.yaml", child)]);
    let text = repository.check(&["run"], 1);
    in_order(&text, &["one: failed", "build 2 failed", "ended with code 1", "build 1 failed"]);
}

#[test]
fn a_pipeline_that_asks_for_itself_is_told() {
    let itself = r#"jobs: { a: { reuse: false, run: 'exec "$ROPEWALK_BINARY" run' } }"#;
    let repository = Repository::new(&[("pipeline.yaml", itself)]);
    let text = repository.check(&["run"], 1);
    assert!(text.contains("build 2 runs .ropewalk/pipeline.yaml for the same event"), "{text}");
}

#[test]
fn where_the_parent_is_not_kept_the_job_fails_and_says_what_to_do() {
    // As a worker's own folder holds no builds of the server for which it works.
    let parent = r#"jobs: { a: { reuse: false, run: 'ROPEWALK_PROJECT_DATA="$PWD/other" exec "$ROPEWALK_BINARY" run .ropewalk/child.yaml' } }"#;
    let repository = Repository::new(&[("pipeline.yaml", parent), ("child.yaml", "jobs: { one: { run: echo one } }")]);
    let text = repository.check(&["run"], 1);
    in_order(
        &text,
        &[
            "build 1, whose job `a` runs this, is not in `",
            "by its only step, `run: [{ build: { file: … } }]`",
            "build 1 failed",
        ],
    );
    assert!(!text.contains("echo one"), "{text}");
}

#[test]
fn depth_has_a_bound() {
    let deeper = r#"on: { push: {}, manual: { params: { n: { type: number, default: 0 } } } }
jobs: { a: { reuse: false, env: { N: '${{ params.n }}' }, run: 'exec "$ROPEWALK_BINARY" run --event manual --param n=$((N + 1))' } }"#;
    let repository = Repository::new(&[("pipeline.yaml", deeper)]);
    let text = repository.check(&["run"], 1);
    assert!(
        text.contains("8 builds stand above this one, the most there may be: build 1 asked for 2 asked for 3"),
        "{text}"
    );
    assert!(text.contains("build 9 failed") && !text.contains("build 10"), "{text}");
}

#[test]
fn a_cancel_reaches_the_child_gently() {
    let child = "jobs:\n  one: { run: 'trap \"echo asked; exit 0\" TERM; echo ready; while :; do sleep 0.05; done' }\n  two: { needs: [{ job: one, on: finished }], cleanup: true, run: echo swept }\n  three: { needs: [one], run: echo never }\n";
    let repository = Repository::new(&[("pipeline.yaml", &waiting("")), ("child.yaml", child)]);
    let (mut process, mut reader) = repository.start("one | ready");
    rustix::process::kill_process(rustix::process::Pid::from_child(&process), rustix::process::Signal::INT)
        .expect("a signal is sent");
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("readable output");
    assert_eq!(process.wait().expect("it ends").code(), Some(130), "{rest}");
    assert!(rest.contains("two | swept") && !rest.contains("never"), "{rest}");
    assert_eq!(rest.matches("asked").count(), 1, "the child's step is asked once: {rest}");
    let text = repository.check(&["show", "2"], 0);
    assert!(text.contains("build 2 was canceled") && !text.contains("failed"), "{text}");
}

/// Nobody would be there for what its gate lets through.
#[test]
fn a_child_at_its_gate_ends_with_its_parent() {
    let child = "jobs:\n  ask: { gate: 'Ship?' }\n  ship: { needs: [ask], run: echo shipped }\n";
    let parent = "jobs: { a: { run: [{ build: { file: .ropewalk/child.yaml } }] } }";
    let repository = Repository::new(&[("pipeline.yaml", parent), ("child.yaml", child)]);
    let (mut process, mut reader) = repository.start("ropewalk approve 2 ask");
    rustix::process::kill_process(rustix::process::Pid::from_child(&process), rustix::process::Signal::INT)
        .expect("a signal is sent");
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("readable output");
    assert_eq!(process.wait().expect("it ends").code(), Some(130), "{rest}");
    let text = repository.check(&["show", "2"], 0);
    assert!(text.contains("build 2 was canceled"), "{text}");
    let text = repository.check(&["approve", "2", "ask"], 2);
    assert!(text.contains("no gate of it waits"), "{text}");
}

#[test]
fn a_job_whose_child_is_canceled_is_canceled() {
    let child = "jobs: { one: { run: 'echo ready; while :; do sleep 0.05; done' } }";
    let parent = "jobs:\n  a: { retry: { max: 2, on: [step] }, run: [{ build: { file: .ropewalk/child.yaml } }] }\n  mend: { needs: [{ job: a, on: failure }], run: echo mended }\n";
    let repository = Repository::new(&[("pipeline.yaml", parent), ("child.yaml", child)]);
    let (mut process, mut reader) = repository.start("one | ready");
    repository.check(&["cancel", "2"], 0);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("readable output");
    assert_eq!(process.wait().expect("it ends").code(), Some(1), "{rest}");
    in_order(&rest, &["build 2 was canceled", "a: canceled by the end of the build that it asked for"]);
    assert!(!rest.contains("mended") && !rest.contains("build 3"), "{rest}");
    assert!(repository.check(&["builds"], 0).lines().all(|line| !line.trim_start().starts_with('3')));
}

#[test]
fn after_kill_nine_nothing_of_a_child_is_left_and_resume_goes_on_with_the_parent() {
    let child = "jobs:\n  one: { run: 'if [ -e ../again ]; then echo second; else touch ../again; echo ready; setsid sleep 1000; fi' }\n";
    let repository = Repository::new(&[("pipeline.yaml", &waiting("")), ("child.yaml", child)]);
    let (mut process, mut reader) = repository.start("one | ready");
    process.kill().expect("kill -9");
    process.wait().expect("it ends");
    // Everything that was started holds the other end of the pipe.
    reader.read_to_end(&mut Vec::new()).expect("readable output");
    // Its job asks for it anew: it would be done twice.
    let mut text = repository.check(&["run", "--resume", "2"], 2);
    while text.contains("is run by another process") {
        // It is just dying.
        text = repository.check(&["run", "--resume", "2"], 2);
    }
    assert!(text.contains("`ropewalk run --resume 1` goes on with both"), "{text}");
    let text = repository.check(&["builds"], 0);
    assert!(text.contains("--resume 1") && !text.contains("--resume 2"), "{text}");
    let text = repository.check(&["run", "--resume"], 0);
    in_order(&text, &["build 3: build", "one | second", "build 1 passed", "build 2 is given up"]);
    let text = repository.check(&["show", "2"], 0);
    assert!(text.contains("build 2 was canceled by the end of job `a` of build 1"), "{text}");
}

#[test]
fn a_child_that_is_killed_with_its_job_is_not_left_without_an_end() {
    let child = "jobs: { one: { run: 'trap \"\" TERM INT; echo ready; while :; do sleep 0.05; done' } }";
    let repository = Repository::new(&[("pipeline.yaml", &waiting("")), ("child.yaml", child)]);
    let (mut process, mut reader) = repository.start("one | ready");
    let id = rustix::process::Pid::from_child(&process);
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("a signal is sent");
    let mut told = BufReader::new(process.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("once more kills") {
        line.clear();
        assert!(told.read_line(&mut line).expect("readable output") > 0, "it says that it heard the first signal");
    }
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("a signal is sent");
    reader.read_to_end(&mut Vec::new()).expect("readable output");
    told.read_to_end(&mut Vec::new()).expect("readable output");
    assert_eq!(process.wait().expect("it ends").code(), Some(130));
    let text = repository.check(&["show", "2"], 0);
    assert!(text.contains("build 2 was canceled by"), "{text}");
}

const LATER: &str = "jobs:\n  a: { reuse: false, run: '\"$ROPEWALK_BINARY\" run --later .ropewalk/child.yaml; echo asked' }\n  b: { needs: [a], run: echo end; test ! -e fail }\n";

#[test]
fn a_build_asked_for_begins_when_the_parent_has_ended() {
    let child = "jobs: { one: { reuse: false, run: 'echo later; test ! -e fail-later' } }";
    let repository = Repository::new(&[("pipeline.yaml", LATER), ("child.yaml", child)]);
    let asked = "build 2 is asked for: it begins when build 1 has ended";
    let text = repository.check(&["run"], 0);
    in_order(&text, &[asked, "asked", "b | end", "build 1 passed", "one | later", "build 2 passed"]);
    fs::write(repository.root().join("fail-later"), "").expect("a file");
    let text = repository.check(&["run"], 1);
    assert!(text.contains("build 3 passed") && text.contains("build 4 failed"), "{text}");
    fs::rename(repository.root().join("fail-later"), repository.root().join("fail")).expect("a file");
    let text = repository.check(&["run"], 1);
    assert!(text.contains("build 5 failed") && text.contains("build 6 passed"), "{text}");
}

#[test]
fn a_build_asked_for_outlives_a_kill() {
    let parent = "jobs:\n  a: { reuse: false, run: '\"$ROPEWALK_BINARY\" run --later .ropewalk/child.yaml; echo ready; test -e ../again || sleep 1000' }\n";
    let repository =
        Repository::new(&[("pipeline.yaml", parent), ("child.yaml", "jobs: { one: { run: echo later } }")]);
    let (mut process, mut reader) = repository.start("a | ready");
    process.kill().expect("kill -9");
    process.wait().expect("it ends");
    reader.read_to_end(&mut Vec::new()).expect("readable output");
    fs::write(repository.folder.path().join("again"), "").expect("a file");
    let text = repository.check(&["show", "2"], 0);
    assert!(text.contains("has not begun: ropewalk run --resume 2"), "{text}");
    // The job asks again: it is the same build.
    let text = repository.check(&["run", "--resume", "1"], 0);
    in_order(&text, &["build 2 is asked for", "build 1 passed", "one | later", "build 2 passed"]);
}

#[test]
fn builds_asked_for_by_a_canceled_one_are_named_and_given_up() {
    let parent = "jobs:\n  a: { reuse: false, run: ['\"$ROPEWALK_BINARY\" run --later .ropewalk/child.yaml; echo ready', 'sleep 1000'] }\n";
    let repository =
        Repository::new(&[("pipeline.yaml", parent), ("child.yaml", "jobs: { one: { run: echo later } }")]);
    let (mut process, mut reader) = repository.start("a | ready");
    rustix::process::kill_process(rustix::process::Pid::from_child(&process), rustix::process::Signal::INT)
        .expect("a signal is sent");
    reader.read_to_end(&mut Vec::new()).expect("readable output");
    assert_eq!(process.wait().expect("it ends").code(), Some(130));
    let mut told = String::new();
    process.stderr.take().expect("a pipe").read_to_string(&mut told).expect("readable output");
    assert!(told.contains("build 2, asked for by build 1, has not begun"), "{told}");
    assert!(repository.check(&["cancel", "2"], 0).contains("build 2 is given up"));
    repository.check(&["run", "--resume", "2"], 2);
    repository.check(&["run", "--later"], 2);
}

/// Two jobs of the child meet, so they ran at once: the second slot is one that the parent had left.
#[test]
fn a_child_uses_what_its_parent_has_left() {
    let child = "jobs:\n  setup: { run: mkfifo ../meeting }\n  a: { needs: [setup], run: 'echo met > ../meeting' }\n  b: { needs: [setup], run: cat ../meeting }\n";
    let parent = waiting("  beside: { reuse: false, run: echo beside }\n");
    let repository = Repository::new(&[("pipeline.yaml", &parent), ("child.yaml", child)]);
    let text = repository.check(&["run", "-j2"], 0);
    assert!(text.contains("b | met") && text.contains("beside | beside"), "{text}");
}

/// With one slot for all of them no two jobs run at once, however many builds they belong to.
#[test]
fn parent_and_children_together_keep_to_the_number_of_jobs_at_once() {
    // Whoever finds another at work fails; the pause only makes sure that it would be found.
    let alone = "mkdir \"$ROPEWALK_PROJECT_DATA/alone\" && sleep 0.05 && rmdir \"$ROPEWALK_PROJECT_DATA/alone\"";
    let grandchild =
        format!("jobs:\n  x: {{ reuse: false, run: '{alone}' }}\n  y: {{ reuse: false, run: '{alone}' }}\n");
    let child = format!(
        "jobs:\n  one: {{ reuse: false, run: '{alone}' }}\n  two: {{ reuse: false, run: '{alone}' }}\n  below: {{ reuse: false, \
         run: 'exec \"$ROPEWALK_BINARY\" run .ropewalk/grandchild.yaml' }}\n"
    );
    let parent = waiting(&format!("  beside: {{ reuse: false, run: '{alone}' }}\n"));
    let files = [("pipeline.yaml", &*parent), ("child.yaml", &*child), ("grandchild.yaml", &*grandchild)];
    let text = Repository::new(&files).check(&["run", "-j1"], 0);
    assert!(text.contains("build 3 passed") && text.contains("build 1 passed"), "{text}");
}
