//! The binary as users run it: real repositories, real processes, what it prints, its exit codes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

#[path = "run/agent.rs"]
mod agent;
#[path = "run/background.rs"]
mod background;
#[path = "run/claims.rs"]
mod claims;
#[path = "run/damage.rs"]
mod damage;
#[path = "run/denied.rs"]
mod denied;
#[path = "run/edits.rs"]
mod edits;
#[path = "run/event.rs"]
mod event;
#[path = "run/failed.rs"]
mod failed;
#[path = "run/named_files.rs"]
mod named_files;
mod process;
#[path = "run/room.rs"]
mod room;
#[path = "run/shell.rs"]
mod shell;
#[path = "run/start.rs"]
mod start;
#[path = "run/suspension.rs"]
mod suspension;
#[path = "run/turns.rs"]
mod turns;
#[path = "run/unchanged.rs"]
mod unchanged;
#[path = "run/walls.rs"]
mod walls;
#[path = "run/worktree.rs"]
mod worktree;

/// A repository and a data folder of its own.
struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    /// A repository with this pipeline and one committed file.
    fn new(pipeline: &str) -> Self {
        let repository = Self { folder: tempfile::tempdir().expect("a scratch folder") };
        fs::create_dir_all(repository.root().join(".ropewalk")).expect("a folder");
        repository.write(".ropewalk/pipeline.yaml", pipeline);
        repository.write("file.txt", "committed\n");
        repository.git(&["init", "-q", "-b", "main"]);
        repository.git(&["add", "-A"]);
        repository.git(&["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "first"]);
        repository
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn git(&self, arguments: &[&str]) {
        fs::create_dir_all(self.root()).expect("a folder");
        let status = Command::new("git").args(arguments).current_dir(self.root()).status().expect("git");
        assert!(status.success(), "git {arguments:?}");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ropewalk"));
        command.args(arguments).current_dir(self.root()).env("ROPEWALK_DATA", self.folder.path().join("data"));
        command.env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    fn ropewalk(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("ropewalk starts")
    }

    /// Runs, and asserts the exit code. Both streams as text.
    #[track_caller]
    fn check(&self, arguments: &[&str], code: i32) -> String {
        let output = self.ropewalk(arguments);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(code), "ropewalk {arguments:?} printed:\n{text}");
        text
    }

    /// The objects that `--output json` prints.
    #[track_caller]
    fn json(&self, arguments: &[&str], code: i32) -> Vec<Value> {
        let output = self.ropewalk(arguments);
        assert_eq!(output.status.code(), Some(code), "ropewalk {arguments:?} printed:\n{}", text(&output));
        let stdout = String::from_utf8(output.stdout).expect("JSON is UTF-8");
        stdout.lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect()
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ropewalk starts")
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Reads the child's output up to the line that holds `wanted`.
fn wait_for(child: &mut Child, wanted: &str) -> BufReader<std::process::ChildStdout> {
    let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while reader.read_line(&mut line).expect("readable output") > 0 {
        if line.contains(wanted) {
            return reader;
        }
        line.clear();
    }
    panic!("the output ended without `{wanted}`");
}

fn of_kind<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

#[test]
fn a_build_that_passes() {
    let repository = Repository::new("jobs: { a: { run: echo one }, b: { needs: [a], run: echo two } }");
    let text = repository.check(&["run"], 0);
    assert!(text.contains("a | one") && text.contains("b | two") && text.contains("build 1 passed"), "{text}");
}

#[test]
fn a_build_that_fails_says_where_and_how_to_go_on() {
    let repository = Repository::new(
        "jobs:\n  a: { run: [\"true\", { name: two, run: \"echo 'error: bad thing' >&2; exit 7\" }] }\n  b: { needs: [a], run: echo no }\n",
    );
    let text = repository.check(&["run"], 1);
    assert!(text.contains("error: bad thing"), "{text}");
    assert!(text.contains("ended with code 7"), "{text}");
    assert!(text.contains("ropewalk shell 1 a@failed"), "{text}");
    assert!(text.contains("b: skipped: `a` did not end as needed"), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_told_with_what_may_have_been_meant() {
    let repository = Repository::new("jobs: { test: { run: 'true' } }");
    let text = repository.check(&["run", "test"], 2);
    let expected = "; `ropewalk run --job test` runs one job of the pipeline; there is .ropewalk/pipeline.yaml\n";
    assert!(text.contains("cannot read the pipeline test: ") && text.contains(expected), "{text}");
    for file in ["ci/none.yaml", "ci/none.rs"] {
        let text = repository.check(&["check", file], 2);
        assert!(text.contains("; there is .ropewalk/pipeline.yaml\n") && !text.contains("--job"), "{text}");
    }
    fs::write(repository.root().join(".ropewalk/nightly.yaml"), "").expect("a file");
    let text = repository.check(&["run", "none.yaml"], 2);
    assert!(text.contains("; there are .ropewalk/nightly.yaml, .ropewalk/pipeline.yaml\n"), "{text}");
    fs::remove_dir_all(repository.root().join(".ropewalk")).expect("it goes");
    let text = repository.check(&["run", "none.yaml"], 2);
    assert!(text.contains("No such file or directory (os error 2); `ropewalk init` writes one\n"), "{text}");
}

#[test]
fn a_repository_without_files_asks_for_a_checkout() {
    let repository = Repository::new("jobs: { a: { run: 'true' } }");
    repository.git(&["clone", "--quiet", "--bare", ".", "../bare.git"]);
    let bare = repository.folder.path().join("bare.git");
    let bare = bare.to_str().expect("UTF-8");
    for command in ["run", "init"] {
        let text = repository.check(&["-C", bare, command], 2);
        assert!(text.contains("is a repository of git without files: work in a checkout of it"), "{text}");
    }
}

#[test]
fn what_is_wrong_with_params_is_told_before_what_they_do_not_take() {
    let repository = Repository::new(
        "on: { manual: { params: { z: { type: choice, options: [3.9, 3.10] } } } }\njobs: { a: { run: 'true' } }\n",
    );
    let text = repository.check(&["run", "--param", "z=3.10"], 2);
    assert!(text.contains("wrong-type") && !text.contains("takes one of"), "{text}");
    assert!(text.contains("nothing was run"), "{text}");
}

#[test]
fn a_pipeline_that_cannot_be_read_is_in_reports_for_programs_too() {
    let repository = Repository::new("jobs: { test: { run: 'true' } }");
    let large = fs::File::create(repository.root().join("large.yaml")).expect("a file");
    large.set_len(16 * 1024 * 1024 + 1).expect("a hole");
    fs::create_dir(repository.root().join("ci")).expect("a folder");
    let check = |file: &str, expected: &str| {
        let json = &repository.json(&["check", file, "--format", "json"], 2)[0]["diagnostics"];
        assert_eq!((&json[0]["code"], &json[0]["severity"]), (&"pipeline-unread".into(), &"error".into()), "{json}");
        assert!(json[0]["message"].as_str().expect("a text").contains(expected), "{json}");
        let sarif = &repository.json(&["check", file, "--format", "sarif"], 2)[0]["runs"][0]["results"];
        assert_eq!((&sarif[0]["ruleId"], &sarif[0]["level"]), (&"pipeline-unread".into(), &"error".into()), "{sarif}");
        assert!(sarif[0]["message"]["text"].as_str().expect("a text").contains(expected), "{sarif}");
        let text = repository.check(&["check", file], 2);
        assert!(text.starts_with("error: ") && text.contains(expected), "{text}");
    };
    check("none.yaml", "cannot read the pipeline none.yaml: No such file");
    check("ci", "cannot read the pipeline ci: Is a directory");
    check("large.yaml", "large.yaml is larger than 16777216 bytes");
}

#[test]
fn a_wrong_pipeline_runs_nothing() {
    let repository = Repository::new("jobs: { a: { rnu: echo one } }");
    let text = repository.check(&["run"], 2);
    assert!(text.contains("did you mean `run`?"), "{text}");
    assert!(repository.check(&["builds"], 0).contains("no builds yet"), "nothing was recorded");
}

#[test]
fn jobs_see_the_start_and_leave_the_tree_alone() {
    let repository = Repository::new(
        "jobs:\n  a: { run: \"cat file.txt untracked.txt; ls; echo changed > file.txt; echo new > made.txt\" }\n  b: { needs: [a], run: \"cat file.txt; test ! -e made.txt\" }\n",
    );
    repository.write("file.txt", "not committed\n");
    repository.write("untracked.txt", "untracked\n");
    repository.write(".gitignore", "ignored.txt\n");
    repository.write("ignored.txt", "ignored\n");
    let text = repository.check(&["run"], 0);
    assert!(text.contains("a | not committed") && text.contains("a | untracked"), "{text}");
    assert!(!text.contains("ignored.txt"), "{text}");
    assert!(text.contains("b | not committed"), "the other job's change is not seen: {text}");
    assert_eq!(fs::read_to_string(repository.root().join("file.txt")).expect("there"), "not committed\n");
    assert!(!repository.root().join("made.txt").exists());
}

#[test]
fn data_within_the_repository_is_told_once() {
    let repository = Repository::new("defaults: { environment: host }\njobs:\n  a: { run: 'true' }\n");
    let mut command = repository.command(&["run"]);
    let output = command.env("ROPEWALK_DATA", repository.root().join("data")).output().expect("ropewalk starts");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("set ROPEWALK_DATA to a folder outside it") && !said.contains("try 1 of"), "{said}");
}

#[test]
fn in_place_works_in_the_tree() {
    let repository = Repository::new("jobs: { a: { workspace: in_place, run: echo new > made.txt } }");
    repository.check(&["run"], 0);
    assert!(repository.root().join("made.txt").exists());
}

#[test]
fn values_files_and_artifacts_are_handed_on() {
    let repository = Repository::new(
        "jobs:\n  a:\n    outputs: [v]\n    artifacts: { f: out/file }\n    run:\n      - { id: s, run: 'mkdir out; echo data > out/file; echo v=42 >> \"$ROPEWALK_OUTPUT\"; echo X=exported >> \"$ROPEWALK_ENV\"' }\n      - 'test \"$X\" = exported'\n  b: { needs: [a], run: 'cat out/file; echo value ${{ needs.a.outputs.v }}' }\n",
    );
    let text = repository.check(&["run"], 0);
    assert!(text.contains("b | data") && text.contains("b | value 42"), "{text}");
}

#[test]
fn json_tells_every_step() {
    let repository = Repository::new(
        "jobs: { a: { outputs: [v], run: 'echo out; echo err >&2; echo v=1 >> \"$ROPEWALK_OUTPUT\"' } }",
    );
    let lines = repository.json(&["run", "--output", "json"], 0);
    let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().expect("a kind")).collect();
    assert_eq!(kinds[..2], ["build_started", "planned"]);
    assert_eq!(kinds[kinds.len() - 1], "build_finished");
    for kind in ["job_started", "step_started", "step_finished", "job_finished"] {
        assert_eq!(of_kind(&lines, kind).len(), 1, "{kind} in {kinds:?}");
    }
    let logs: Vec<_> = of_kind(&lines, "log").iter().map(|log| (log["stream"].clone(), log["line"].clone())).collect();
    assert!(
        logs.contains(&("stdout".into(), "out".into())) && logs.contains(&("stderr".into(), "err".into())),
        "{logs:?}"
    );
    let finished = of_kind(&lines, "job_finished")[0];
    assert_eq!(finished["outputs"]["v"], "1");
    assert_eq!((&finished["outcome"], &finished["cached"]), (&"passed".into(), &false.into()));
    assert_eq!(of_kind(&lines, "step_finished")[0]["exit"], 0);
    assert_eq!(lines[lines.len() - 1]["verdict"], "passed");
}

#[test]
fn equal_work_is_done_once_and_explained() {
    let repository = Repository::new(
        "jobs:\n  a: { inputs: [file.txt], artifacts: { f: out }, run: cp file.txt out }\n  b: { needs: [a], run: cat out }\n",
    );
    repository.check(&["run"], 0);
    let text = repository.check(&["run"], 0);
    assert!(text.contains("a: cached, from build 1") && text.contains("b | committed"), "{text}");
    let text = repository.check(&["explain", "a"], 0);
    assert!(text.contains("build 1"), "{text}");
    repository.write("file.txt", "changed\n");
    let text = repository.check(&["run"], 0);
    assert!(text.contains("b | changed"), "{text}");
    let text = repository.check(&["explain", "a"], 0);
    assert!(text.contains("file.txt"), "{text}");
    let text = repository.check(&["explain"], 0);
    assert!(text.contains("file file.txt changed") && text.contains("b in build 3: runs every time"), "{text}");
    repository.check(&["run", "--no-reuse"], 0);
    let text = repository.check(&["explain", "a"], 0);
    assert!(text.contains("a in build 4: ran\n  the build was told to run everything (`--no-reuse`)"), "{text}");
}

#[test]
fn a_failure_is_compared_with_the_run_before() {
    let repository = Repository::new("jobs: { a: { inputs: ['*.txt'], run: '! grep bad file.txt' } }");
    repository.check(&["run"], 0);
    repository.write("file.txt", "bad\n");
    repository.check(&["run"], 1);
    let text = repository.check(&["explain", "a"], 0);
    assert!(text.contains("compared with build 1") && text.contains("file file.txt changed"), "{text}");
}

#[test]
fn a_plan_knows_what_would_grow_after_a_job_that_does_not_run() {
    let check = |when: &str, given: &[&str], expected: &str| {
        let repository = Repository::new(&format!(
            "jobs:\n  build: {{ run: 'true' }}\n  \
             list: {{ needs: [build], {when} outputs: [legs], run: 'true' }}\n  \
             work: {{ needs: [list], matrix: {{ leg: '${{{{ fromJSON(needs.list.outputs.legs) }}}}' }}, outputs: [x], run: 'true' }}\n  \
             again: {{ needs: [work], matrix: {{ leg: '${{{{ fromJSON(needs.work.outputs.x) }}}}' }}, run: 'true' }}\n  \
             end: {{ needs: [{{ job: again, on: finished }}], run: 'true' }}\n",
        ));
        let text = repository.check(&[&["plan"], given].concat(), 0);
        assert_eq!(text.split_once('\n').expect("lines").1, expected);
    };
    let below = |of_build: &str, of_list: &str| {
        format!(
            "└─ build{of_build}\n   └─ list  (skipped: {of_list})\n      └─ work  (skipped: `list` did not end as needed)\n         \
             └─ again  (skipped: `work` did not end as needed)\n            └─ end\n"
        )
    };
    check("when: { tag: 'v.*' },", &[], &below("", "`tag v.*` does not hold"));
    check("", &["--given", "build=failed"], &below("  (given: failed)", "`build` did not end as needed"));
    check("", &[], "├─ build\n│  └─ list\n└─ end  (after again)\n… again grows after list\n… work grows after list\n");
}

#[test]
fn nothing_changed_is_told_at_once_and_recorded() {
    let repository = Repository::new(
        "jobs:\n  a: { inputs: [file.txt], run: cat file.txt }\n  b: { inputs: ['*.txt'], run: cat file.txt }\n",
    );
    // So that nothing changed just before the files were looked at.
    std::thread::sleep(std::time::Duration::from_millis(60));
    repository.check(&["run"], 0);
    let text = repository.check(&["run"], 0);
    assert!(text.contains("nothing changed since build 1"), "{text}");
    assert!(repository.check(&["builds"], 0).contains('2'), "the build has a number of its own");
    repository.write("new.txt", "new\n");
    let text = repository.check(&["run"], 0);
    assert!(text.contains("a: cached") && text.contains("b | committed"), "{text}");
    repository.check(&["cache", "clear"], 0);
    let text = repository.check(&["run"], 0);
    assert!(text.contains("a | committed") && text.contains("b | committed"), "{text}");
}

#[test]
fn a_graph_grows_with_what_its_jobs_say() {
    let repository = Repository::new(
        "jobs:\n  plan: { outputs: [legs], run: 'echo \"legs=[\\\"x\\\",\\\"y\\\"]\" >> \"$ROPEWALK_OUTPUT\"' }\n  work:\n    needs: [plan]\n    matrix: { leg: '${{ fromJSON(needs.plan.outputs.legs) }}' }\n    run: 'echo leg ${{ matrix.leg }}'\n",
    );
    let text = repository.check(&["plan"], 0);
    assert!(text.contains("work grows after plan"), "{text}");
    let text = repository.check(&["run"], 0);
    assert!(text.contains("work/x | leg x") && text.contains("work/y | leg y"), "{text}");
}

#[test]
fn ctrl_c_ends_gently_and_cleanup_still_runs() {
    let repository = Repository::new(
        "jobs:\n  a: { run: 'trap \"echo asked; exit 0\" TERM; echo ready; while :; do sleep 0.05; done' }\n  b: { needs: [{ job: a, on: finished }], cleanup: true, run: echo swept }\n  c: { needs: [a], run: echo never }\n",
    );
    let mut child = repository.start(&["run", "--output", "plain"]);
    let mut reader = wait_for(&mut child, "a | ready");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal is sent");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut reader, &mut rest).expect("readable output");
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{rest}");
    assert!(rest.contains("a | asked") && rest.contains("b | swept") && !rest.contains("never"), "{rest}");
}

#[test]
fn the_end_of_the_terminal_ends_gently_too() {
    let repository = Repository::new(
        "jobs:\n  a: { run: 'trap \"exit 0\" TERM; echo ready; while :; do sleep 0.05; done' }\n  b: { needs: [{ job: a, on: finished }], cleanup: true, run: echo swept > ../swept }\n",
    );
    let mut child = repository.start(&["run", "--output", "plain"]);
    // Nobody reads on.
    drop(wait_for(&mut child, "a | ready"));
    let pid = rustix::process::Pid::from_child(&child);
    for _ in 0..2 {
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("a signal is sent");
    }
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(repository.folder.path().join("swept").is_file());
}

#[test]
fn after_kill_nine_nothing_is_left_and_resume_goes_on() {
    let repository = Repository::new(
        "jobs:\n  first: { run: echo first ran >> ../first.txt }\n  a:\n    needs: [first]\n    run: 'if [ -e ../again ]; then echo second try; else touch ../again; setsid sleep 1000 & echo pid $!; sleep 1000; fi'\n  b: { needs: [a], run: echo end }\n",
    );
    let mut child = repository.start(&["run", "--output", "plain"]);
    let mut reader = wait_for(&mut child, "a | pid");
    child.kill().expect("kill -9");
    child.wait().expect("it ends");
    // The pipe's other end is held by everything the build had started: its end shows that all of it is gone.
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut reader, &mut rest).expect("readable output");
    let text = repository.check(&["run", "--resume", "last-failed"], 2);
    assert!(text.contains("no build has failed"), "{text}");
    let text = repository.check(&["run", "--resume", "last"], 0);
    assert!(text.contains("second try") && text.contains("b | end"), "{text}");
    let first = fs::read_to_string(repository.folder.path().join("first.txt")).expect("there");
    assert_eq!(first, "first ran\n", "a job that had ended is not run again");
    repository.check(&["run", "--resume"], 2);
}

#[test]
fn a_gate_waits_without_a_process() {
    let repository = Repository::new(
        "jobs:\n  ship:\n    gate: { prompt: Ship?, fields: { to: { type: choice, options: [eu, us] } } }\n    run: echo to ${{ gate.to }}\n  after: { needs: [ship], run: echo after }\n",
    );
    let text = repository.check(&["run"], 4);
    assert!(text.contains("Ship?") && text.contains("ropewalk approve 1 ship"), "{text}");
    let text = repository.check(&["approve", "1", "ship", "--field", "to=moon"], 2);
    assert!(text.contains("takes one of eu, us"), "{text}");
    let text = repository.check(&["approve", "1", "ship", "--field", "to=eu"], 0);
    assert!(text.contains("ship | to eu") && text.contains("after | after"), "{text}");
    let text = repository.check(&["run"], 4);
    assert!(text.contains("build 2"), "{text}");
    let text = repository.check(&["approve", "2", "ship", "--reject"], 0);
    assert!(text.contains("rejected"), "{text}");
    repository.check(&["run"], 4);
    let lines = repository.json(&["approve", "3", "ship", "--field", "to=eu", "--output", "json"], 0);
    assert_eq!(of_kind(&lines, "build_finished")[0]["statuses"], serde_json::json!({}), "never null");
}

#[test]
fn retry_runs_only_what_did_not_pass() {
    let repository = Repository::new(
        "jobs:\n  a: { artifacts: { f: out }, run: 'echo ran >> ../count; echo data > out' }\n  b: { needs: [a], run: 'test -e ../ok && cat out' }\n",
    );
    repository.check(&["run"], 1);
    fs::write(repository.folder.path().join("ok"), "").expect("a file");
    let text = repository.check(&["retry", "last", "--failed"], 0);
    assert!(text.contains("b | data"), "{text}");
    assert_eq!(fs::read_to_string(repository.folder.path().join("count")).expect("there"), "ran\n");
}

#[test]
fn retry_runs_what_needs_what_did_not_pass_too() {
    let repository = Repository::new(
        "jobs:\n  a: { run: 'echo ran >> ../count' }\n  b: { needs: [a], run: 'test -e ../ok' }\n  \
         never: { needs: [a], when: { branch: other }, run: 'true' }\n  \
         apart: { needs: [a, { job: never, on: finished }], run: 'echo ran >> ../count' }\n  \
         report: { needs: [{ job: b, on: finished }], env: { B: '${{ needs.b.result }}' }, run: 'echo b has $B' }\n  \
         rescue: { needs: [{ job: b, on: failure }], run: echo rescued }\n",
    );
    let text = repository.check(&["run"], 1);
    assert!(text.contains("report | b has failed") && text.contains("rescue | rescued"), "{text}");
    fs::write(repository.folder.path().join("ok"), "").expect("a file");
    let text = repository.check(&["retry", "last", "--failed"], 0);
    assert!(text.contains("report | b has passed") && text.contains("rescue: skipped: `b` did not end"), "{text}");
    assert!(text.contains("apart: cached, from build 1"), "{text}");
    assert_eq!(fs::read_to_string(repository.folder.path().join("count")).expect("there"), "ran\nran\n");
}

#[test]
fn a_plan_with_given_results_shows_what_they_keep_from_running() {
    let repository = Repository::new(
        "jobs:\n  build: { outputs: [v], run: 'true' }\n  \
         test: { needs: [build], matrix: { n: [1, 2] }, run: 'true' }\n  \
         ver: { needs: [build], if: \"${{ needs.build.outputs.v == '1' }}\", run: 'true' }\n  \
         rescue: { needs: [{ job: test, on: failure }], run: 'true' }\n  \
         ship: { needs: [test, ver], run: 'true' }\n",
    );
    let check = |given: &[&str], expected: &str| {
        let flags = given.iter().flat_map(|given| ["--given", given]);
        let arguments: Vec<&str> = ["plan"].into_iter().chain(flags).collect();
        let text = repository.check(&arguments, 0);
        let told: Vec<&str> = text.lines().filter(|line| line.contains("skipped")).map(str::trim).collect();
        assert_eq!(told.join("\n"), expected, "{text}");
    };
    check(&[], "");
    check(&["build=passed,v=1"], "");
    check(
        &["build=passed,v=2", "test=passed"],
        "│  └─ rescue  (skipped: `test/1` did not end as needed)\n\
         └─ ver  (if needs.build.outputs.v == '1'; skipped: `needs.build.outputs.v == '1'` does not hold)\n\
         └─ ship  (also after test/1, test/2; skipped: `ver` did not end as needed)",
    );
    check(
        &["build=passed,v=1", "test/1=failed"],
        "└─ ship  (also after test/1, test/2; skipped: `test/1` did not end as needed)",
    );
}

#[test]
fn a_plan_shows_what_a_skipped_job_keeps_from_running() {
    let chain = "jobs:\n  release: { when: { tag: 'v.*' }, run: 'true' }\n  publish: { needs: [release], run: 'true' }\n  \
                 notify: { needs: [publish], run: 'true' }\n  q: { run: 'true' }\n";
    let growing = "  a: { outputs: [legs], run: 'true' }\n  \
                   h: { needs: [a], matrix: { leg: '${{ fromJSON(needs.a.outputs.legs) }}' }, run: 'true' }\n  \
                   z: { needs: [h], run: 'true' }\n";
    let tree = "├─ release  (skipped: `tag v.*` does not hold)\n\
                │  └─ publish  (skipped: `release` did not end as needed)\n\
                │     └─ notify  (skipped: `publish` did not end as needed)\n";
    let check = |pipeline: &str, given: &[&str]| {
        let repository = Repository::new(pipeline);
        let arguments = [&["plan"], given].concat();
        let text = repository.check(&arguments, 0);
        assert!(text.contains(tree), "{text}");
        assert_eq!(text.matches("skipped").count(), 3, "{text}");
        let graph = &repository.json(&[&arguments[..], &["--output", "json"]].concat(), 0)[0];
        let jobs = graph["jobs"].as_object().expect("jobs");
        let skipped: Vec<&str> =
            jobs.iter().filter(|(_, job)| !job["skip"].is_null()).map(|(name, _)| &**name).collect();
        assert_eq!(skipped, ["notify", "publish", "release"]);
    };
    check(chain, &[]);
    check(&format!("{chain}{growing}"), &[]);
    check(&format!("{chain}{growing}"), &["--given", "q=passed"]);
}

#[test]
fn a_leg_that_is_still_to_grow_can_be_asked_for() {
    let text = "jobs:\n  plan: { outputs: [parts], run: \"echo 'parts=[1,2]' >> $ROPEWALK_OUTPUT\" }\n  \
                test: { needs: [plan], matrix: { n: '${{ fromJSON(needs.plan.outputs.parts) }}' }, run: 'echo part ${{ matrix.n }}' }\n";
    let repository = Repository::new(text);
    let text = repository.check(&["run", "--job", "test/2"], 0);
    assert!(text.contains("part 2") && !text.contains("part 1"), "{text}");
    let text = repository.check(&["run", "--job", "test/3"], 2);
    assert!(text.contains("test/3"), "{text}");
    let text = repository.check(&["run", "--job", "tset/2"], 2);
    assert!(text.contains("the pipeline has no job `tset/2`"), "{text}");
}

/// What a person fills in has a type, and `plan` reads it as `approve` does.
#[test]
fn plan_foretells_what_follows_from_a_gates_answer() {
    let fields = "{ yes: { type: boolean }, count: { type: number, default: 3 }, region: { type: choice, options: [eu, us], default: eu } }";
    let repository = Repository::new(&format!(
        "jobs:\n  p: {{ gate: {{ prompt: 'Ship?', fields: {fields} }} }}\n  \
         typed: {{ needs: [p], if: 'needs.p.outputs.yes == true && needs.p.outputs.count == 3', run: echo typed }}\n  \
         text: {{ needs: [p], if: \"needs.p.outputs.yes == 'true'\", run: echo text }}\n  \
         truth: {{ needs: [p], if: needs.p.outputs.yes, run: echo truth }}\n"
    ));
    for (number, yes) in [(1, "true"), (2, "false")] {
        repository.check(&["run", "--output", "plain"], 4);
        repository.check(&["approve", &number.to_string(), "p", "--field", &format!("yes={yes}")], 0);
        let build = repository.check(&["show", &number.to_string()], 0);
        let plan = repository.check(&["plan", "--given", &format!("p=passed,yes={yes}")], 0);
        assert!(!plan.contains("note:"), "{plan}");
        for job in ["typed", "text", "truth"] {
            let is_skipped = |text: &str, wanted: &str| {
                let line = text.lines().find(|line| line.contains(&format!(" {job} "))).expect("a line of the job");
                line.contains(wanted)
            };
            let foretold = is_skipped(&plan, "does not hold");
            assert_eq!(foretold, is_skipped(&build, "skipped"), "{job} for {yes}:\n{plan}\n{build}");
            assert_eq!(foretold, yes == "false" || job == "text", "{job} for {yes}");
        }
    }
    let text = repository.check(&["plan", "--given", "p=passed,yes=true,region=mars"], 2);
    assert!(text.contains("the gate `p`, whose field `region` takes one of eu, us, not `mars`"), "{text}");
    let text = repository.check(&["plan", "--given", "p=passed,yes=true,size=1"], 0);
    assert!(text.contains("`p` hands on no output `size`: it has `count`, `region`, `yes`"), "{text}");
}

#[test]
fn a_plan_says_which_results_were_given_and_refuses_those_of_no_job() {
    let repository = Repository::new(
        "jobs:\n  build: { outputs: [v], run: 'true' }\n  test: { needs: [build], matrix: { n: [1, 2] }, run: 'true' }\n",
    );
    let check = |given: &str, code: i32, expected: &str| {
        let text = repository.check(&["plan", "--given", given], code);
        assert!(text.contains(expected), "no `{expected}` in:\n{text}");
        text
    };
    check("biuld=failed", 2, "error: --given names `biuld`, and the pipeline has no such job: did you mean `build`?");
    let text = check("build=passed,v=1", 0, "└─ build  (given: passed)\n");
    assert!(!text.contains("note:"), "{text}");
    check("build=passed,bogus=1", 0, "note: --given: `build` hands on no output `bogus`: it has `v`\n");
    check("test/1=canceled", 0, "test/1  (given: canceled)\n");
    check("test=failed", 0, "test ×2: 1, 2  (given: failed)\n");
    let repository = Repository::new(&growing("[]"));
    let text = repository.check(&["plan", "--given", "m/x=passed"], 2);
    assert!(text.contains("names `m/x`, which is still to grow: give a result of plan, too"), "{text}");
}

#[test]
#[cfg(target_os = "linux")]
fn output_that_cannot_be_written_is_told() {
    let repository = Repository::new("jobs: { a: { run: echo hello } }");
    for form in ["plain", "json"] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("there");
        let output = repository.command(&["run", "--output", form]).stdout(full).output().expect("ropewalk starts");
        let text = text(&output);
        assert_eq!(output.status.code(), Some(0), "the build passed: {text}");
        assert!(text.contains("not all of this output could be written: No space left on device"), "{text}");
    }
}

#[test]
fn a_job_that_breaks_its_word_says_how() {
    let repository = Repository::new(
        "jobs:\n  files: { artifacts: { app: 'out/*' }, run: 'true' }\n  value: { outputs: [v], run: 'true' }\n  \
         line: { run: ['true', 'echo v >> $ROPEWALK_OUTPUT'] }\n  folder: { working_directory: absent, run: 'true' }\n",
    );
    let text = repository.check(&["run"], 1);
    let broken = [
        "files: failed: artifact `app`: `out/*` matches no file",
        "value: failed: the job declares the output `v` and no step wrote it to $ROPEWALK_OUTPUT",
        "line: failed: step 2: $ROPEWALK_OUTPUT: line 1: `v` is neither `name=value` nor `name<<DELIMITER`",
        "folder: failed: step 1: cannot enter the directory",
    ];
    for words in broken {
        assert_eq!(text.matches(words).count(), 2, "where it ends, and at the end of the build: {words}\n{text}");
    }
    assert!(!text.contains("note:") && !text.contains("ended with code"), "{text}");
    let text = repository.check(&["show", "last"], 0);
    assert!(text.contains(&broken[0]["files: failed: ".len()..]) && !text.contains("notes"), "{text}");
}

/// Runs the tests that it is asked for, or all: a and b pass once there is a file for each, c always. Does nothing where a file
/// says so.
const TESTS: &str = r#"
[ -e ../nothing ] && names= || names=$(if [ -n "${ROPEWALK_TESTS+x}" ]; then printf '%s\n' "$ROPEWALK_TESTS" | cut -f2; else echo a b c; fi)
status=0
{ echo '<testsuite name="s">'
for name in $names; do
  if [ $name = c ] || [ -e ../ok-$name ]; then echo "<testcase name='$name'/>"
  else echo "<testcase name='$name'><failure>no</failure></testcase>"; status=1; fi
done
echo '</testsuite>'; } > r.xml
exit $status
"#;

#[test]
fn retry_runs_only_tests_that_failed_and_is_green_for_no_other_reason() {
    let repository = Repository::new(
        "jobs:\n  t: { reports: { junit: r.xml }, run: 'sh tests.sh' }\n  after: { needs: [t], run: echo went on }\n  plain: { run: 'test -e ../ok-b' }\n",
    );
    repository.write("tests.sh", TESTS);
    let there = |name: &str| fs::write(repository.folder.path().join(name), "").expect("a file");
    repository.check(&["run"], 1);
    let check = |arguments: &[&str], code: i32, expected: &[&str]| {
        let text = repository.check(arguments, code);
        assert!(expected.iter().all(|line| text.contains(line)), "{expected:?} in\n{text}");
    };
    check(&["retry", "1", "t", "--tests", "d"], 2, &["the job reported no test `d`"]);
    check(&["retry", "1", "--tests", "a"], 2, &["which job has these tests?"]);
    check(&["retry", "1", "plain", "--tests"], 2, &["job `plain`: the job declares no `reports`"]);
    there("nothing");
    let missing = "the retry was asked for 2 tests; `s a` and 1 more were not in its reports";
    check(&["retry", "1", "--tests"], 1, &["t: is asked for 2 of 3 tests", missing]);
    fs::remove_file(repository.folder.path().join("nothing")).expect("it is there");
    there("ok-a");
    let other = "the retry was asked for 1 test, which passed; 1 other test of the job failed before and was not asked for, `s b` among them";
    check(&["retry", "1", "t", "--tests", "s a"], 1, &["t: is asked for 1 of 3 tests", other]);
    let shown = repository.check(&["show", "last", "t"], 0);
    assert!(shown.contains("asked for 1 of 3 tests"), "{shown}");
    there("ok-b");
    // Of what the build before last reported, a has passed meanwhile.
    check(&["retry", "last", "--tests"], 0, &["t: is asked for 1 of 3 tests", "build 4 passed"]);
    check(&["retry", "last", "--tests"], 2, &["no job of build 4 that failed", "--failed"]);
    // All that failed tests: what failed otherwise runs whole, and what waited goes on.
    check(&["retry", "1", "--tests"], 0, &["t: is asked for 2 of 3 tests", "plain: passed", "after | went on"]);
    check(&["retry", "1"], 0, &["after | went on"]);
}

/// Stops at its first failure, as `pytest -x`: what it did not come to is in no report. Does not heed what it is asked for if a file
/// says so.
const STOPPING: &str = r#"
names="a b c"
[ -e ../all ] || [ -z "${ROPEWALK_TESTS+x}" ] || names=$(printf '%s\n' "$ROPEWALK_TESTS" | cut -f2)
status=0
{ echo '<testsuite name="s">'
for name in $names; do
  if [ -e ../bad-$name ]; then echo "<testcase name='$name'><failure>no</failure></testcase>"; status=1; break; fi
  echo "<testcase name='$name'/>"
done
echo '</testsuite>'; } > r.xml
exit $status
"#;

#[test]
fn tests_that_a_runner_never_came_to_are_missed_by_a_retry_of_those_that_failed() {
    let repository = Repository::new(
        "jobs:\n  t: { reports: { junit: r.xml }, run: 'sh tests.sh' }\n  after: { needs: [t], run: echo went on }\n",
    );
    repository.write("tests.sh", STOPPING);
    let file = |name: &str| repository.folder.path().join(name);
    let there = |name: &str| fs::write(file(name), "").expect("a file");
    let gone = |name: &str| fs::remove_file(file(name)).expect("it is there");
    let check = |arguments: &[&str], code: i32, expected: &[&str]| {
        let text = repository.check(arguments, code);
        assert!(expected.iter().all(|line| text.contains(line)), "{expected:?} in\n{text}");
        text
    };
    // Nothing has passed yet: there is nothing to compare with, and that is said.
    there("bad-a");
    check(&["run"], 1, &[]);
    gone("bad-a");
    check(&["retry", "1", "--tests"], 0, &["build 2 passed"]);
    let shown = repository.check(&["show", "2", "t"], 0);
    assert!(shown.contains("nothing tells whether there are tests that were never run"), "{shown}");

    check(&["run"], 0, &[]);
    for name in ["bad-a", "bad-c"] {
        there(name);
    }
    check(&["run"], 1, &[]);
    gone("bad-a");
    let told = "t: 2 tests that ran when it last passed whole, in build 3, have not run this time, `s b` among them";
    let missing = "the retry was asked for 1 test, which passed; 2 tests that ran when the job last passed whole, in build 3, have not passed this time, `s b` among them: retry the job whole";
    let text = check(&["retry", "4", "--tests"], 1, &[told, missing, "build 5 failed"]);
    assert!(!text.contains("went on"), "{text}");
    // A retry of the retry knows it too, and of it what ran meanwhile.
    check(
        &["retry", "5", "t", "--tests", "b"],
        1,
        &["t: 1 test that ran when it last passed whole, in build 3, has not run"],
    );
    check(&["retry", "6", "t", "--tests", "c"], 1, &["t: failed"]);
    gone("bad-c");
    check(&["retry", "7", "--tests"], 0, &["build 8 passed"]);
    // A script that runs everything proves everything.
    there("all");
    check(&["retry", "4", "--tests"], 0, &["build 9 passed", "went on"]);
    // What is whole is judged by its steps alone.
    check(&["retry", "4", "--failed"], 0, &["build 10 passed"]);
}

#[test]
fn a_very_short_secret_turns_no_cache_off() {
    let repository = Repository::new(
        "jobs:\n  a: { secrets: [USER_NAME, TOKEN], cache: [{ key: short, paths: [short] }, { key: long, paths: [long] }], run: 'mkdir short long; echo administrator > short/admin.js; echo $TOKEN > long/f' }\n",
    );
    let output = repository.command(&["run"]).env("USER_NAME", "admin").env("TOKEN", "s3cr3t-value").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("cache `long` was not saved: `long/f` holds one of the job's secrets"), "{text}");
    assert!(!text.contains("cache `short`"), "{text}");
}

#[test]
fn secrets_reach_their_job_and_no_log() {
    let repository = Repository::new(
        "jobs:\n  a: { secrets: [TOKEN], run: 'echo \"got $TOKEN\"; printf %s \"$TOKEN\" | base64; test \"$TOKEN\" = s3cr3t-value' }\n  b: { run: 'test -z \"$TOKEN\"' }\n",
    );
    let output = repository.command(&["run"]).env("TOKEN", "s3cr3t-value").output().expect("ropewalk starts");
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("got ***") && !text.contains("s3cr3t") && !text.contains("czNjcjN0"), "{text}");
    let logs = repository.check(&["logs", "last"], 0);
    assert!(logs.contains("got ***") && !logs.contains("s3cr3t"), "{logs}");
    let text = repository.check(&["run"], 1);
    assert!(text.contains("TOKEN") && text.contains("--secrets"), "{text}");
}

#[test]
fn secrets_that_shells_quote_reach_no_log() {
    let repository = Repository::new(
        "jobs:\n  a: { secrets: [PW], run: [{ run: 'export -p', shell: bash }, { run: 'export -p' }, { run: 'printf \"%q\\n\" \"$PW\"', shell: bash }] }\n",
    );
    let output = repository.command(&["run"]).env("PW", "pa$$w\"ord/ü's&1").output().expect("ropewalk starts");
    let told = text(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let logs = repository.check(&["logs", "last"], 0);
    for text in [told, logs] {
        // What is quoted is all of the value, whatever the marks around it.
        let lines = text.lines().filter(|line| line.contains(" PW=") || line.ends_with("***"));
        assert_eq!(lines.filter(|line| line.contains("***")).count(), 3, "{text}");
        assert!(!["pa$", "pa\\", "ord", "s&1", "s\\&1"].iter().any(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn a_secret_that_is_too_short_to_be_masked_is_named() {
    let repository = Repository::new(
        "jobs:\n  a: { secrets: [PIN, KEY, TOKEN], run: 'test \"$PIN$KEY\" = \"#~^%\"' }\n  b: { needs: [a], secrets: [PIN, TOKEN], run: 'true' }\n",
    );
    let mut run = repository.command(&["run"]);
    let output = run.env("PIN", "#~^").env("KEY", "%").env("TOKEN", "s3cr3t-value").output().expect("ropewalk starts");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let shown = repository.check(&["show", "last"], 0);
    let both = "the secrets KEY, PIN have fewer than 4 bytes and are not masked: give them longer values";
    assert!(shown.contains(both), "{shown}");
    assert!(
        shown.contains("the secret PIN has fewer than 4 bytes and is not masked: give it a longer value"),
        "{shown}"
    );
    assert!(!shown.contains("#~^"), "{shown}");
}

#[test]
fn secrets_that_are_too_long_to_mask_fail_their_job_once() {
    let repository = Repository::new("jobs: { a: { secrets: [TOKEN], run: echo never } }");
    let file = repository.folder.path().join("secrets");
    fs::write(&file, format!("TOKEN={}\n", "+".repeat(1_000_000))).expect("a file");
    let text = repository.check(&["run", "--secrets", &file.to_string_lossy()], 1);
    assert!(text.contains("a: failed: the secrets have ") && !text.contains("tried again"), "{text}");
}

#[test]
fn fail_fast_cancels_the_rest() {
    let repository = Repository::new(
        "jobs:\n  a: { run: 'echo up; sleep 1000' }\n  b: { run: 'while [ ! -e ../up ]; do sleep 0.02; done; exit 1' }\n  c: { needs: [{ job: b, on: finished }], run: echo never }\n",
    );
    fs::write(repository.folder.path().join("up"), "").expect("a file");
    let text = repository.check(&["run", "--fail-fast", "-j2"], 1);
    assert!(!text.contains("never"), "{text}");
}

#[test]
fn a_job_and_what_it_needs_can_be_run_alone() {
    let repository =
        Repository::new("jobs: { a: { run: echo a }, b: { needs: [a], run: echo b }, c: { run: echo c } }");
    let text = repository.check(&["run", "--job", "b"], 0);
    assert!(text.contains("a | a") && text.contains("b | b") && !text.contains("c | c"), "{text}");
    assert!(text.contains("c: skipped: the build did not ask for it\n"), "{text}");
    let text = repository.check(&["run", "--job", "bb"], 2);
    assert!(text.contains("did you mean `b`?"), "{text}");
}

#[test]
fn a_shell_that_is_not_there_is_not_looked_for_again() {
    let repository = Repository::new(
        "jobs:\n  a: { shell: 'zish {0}', run: echo a }\n  b: { retry: { max: 1, on: [step], backoff: 0s }, run: exit 3 }\n",
    );
    let text = repository.check(&["run"], 1);
    assert!(text.contains("a: failed: the shell `zish` was not found: install it where the job runs, or"), "{text}");
    assert_eq!(text.matches("tried again").count(), 1, "{text}");
    assert!(text.contains("; try 1 of 2, it will be tried again\n"), "{text}");
}

#[test]
fn jobs_that_were_not_asked_for_are_one_line() {
    let repository = Repository::new("jobs: { m: { matrix: { n: [1, 2, 3, 4] }, run: echo m }, b: { run: echo b } }");
    let text = repository.check(&["run", "--job", "b"], 0);
    assert_eq!(text.matches("4 jobs not asked for\n").count(), 1, "{text}");
    assert!(!text.contains("m/1"), "{text}");
    let repository = Repository::new(
        "jobs: { a: { run: exit 1 }, m: { matrix: { n: [1, 2, 3, 4] }, run: sleep 5 }, z: { needs: [m], run: echo z } }",
    );
    let text = repository.check(&["run", "--fail-fast", "-j1"], 1);
    assert!(text.contains(" jobs skipped: the build stopped when `a` failed\n"), "{text}");
}

/// A pipeline of `plan`, which hands on `parts`, and of `m`, which grows a leg out of each.
fn growing(parts: &str) -> String {
    format!(
        "jobs:\n  plan:\n    outputs: [parts]\n    run: |\n      cat >> \"$ROPEWALK_OUTPUT\" <<'END'\n      parts={parts}\n      END\n  \
         lint: {{ run: echo linted }}\n  other: {{ run: echo other }}\n  \
         m:\n    needs: [plan, lint]\n    matrix: {{ part: '${{{{ fromJSON(needs.plan.outputs.parts) }}}}' }}\n    \
         run: 'echo leg \"${{{{ matrix.part }}}}\"; exit 3'\n  after: {{ needs: [{{ job: m, on: finished }}], run: echo after }}\n"
    )
}

#[test]
fn a_job_that_is_still_to_grow_can_be_run_alone() {
    let repository = Repository::new(&growing(r#"["x"]"#));
    let text = repository.check(&["run", "--job", "m"], 1);
    assert!(
        text.contains("lint | linted") && text.contains("m/x | leg x") && !text.contains("other | other"),
        "{text}"
    );
    assert!(!text.contains("after | after"), "{text}");
    let text = repository.check(&["run", "--job", "after"], 1);
    assert!(
        text.contains("m/x | leg x") && text.contains("after | after") && !text.contains("other | other"),
        "{text}"
    );
}

#[test]
fn commands_to_copy_hold_a_name_from_outside_as_one_word() {
    let repository = Repository::new(&growing(r#"["$(touch${IFS}PWNED)"]"#));
    let check = |arguments: &[&str], code: i32, expected: &[&str]| {
        let text = repository.check(arguments, code);
        for command in expected {
            assert!(text.contains(command), "no `{command}` in:\n{text}");
        }
        let commands = text.lines().filter_map(|line| line.split_once("ropewalk "));
        let bare = commands.filter(|(_, words)| words.contains(" m/"));
        assert_eq!(bare.count(), 0, "a name stands bare in:\n{text}");
    };
    let shell = "ropewalk shell 1 'm/$(touch${IFS}PWNED)@failed'";
    let logs = "ropewalk logs 1 'm/$(touch${IFS}PWNED)'";
    check(&["run"], 1, &[shell]);
    check(&["show", "1"], 0, &["ropewalk show 1 'm/$(touch${IFS}PWNED)'", logs, shell]);
    let explain = "ropewalk explain 'm/$(touch${IFS}PWNED)' --build 1";
    check(&["show", "1", "m/$(touch${IFS}PWNED)"], 0, &[logs, shell, explain]);
}

#[test]
fn faults_that_given_results_bring_are_told() {
    let repository = Repository::new(&growing("[]"));
    let check = |parts: &str, code: i32, expected: &str| {
        let text = repository.check(&["plan", "--given", &format!("plan=passed,parts={parts}")], code);
        assert!(text.contains(expected), "no `{expected}` in:\n{text}");
    };
    check(r#"["a","b"]"#, 0, "m ×2: a, b");
    for (parts, expected) in [(r#"["a","a"]"#, "error["), ("oops", "error["), ("{}", "error[")] {
        check(parts, 2, expected);
    }
}

#[test]
fn a_base_that_is_no_revision_is_told() {
    let repository = Repository::new("jobs: { a: { when: { changed: ['x'] }, run: echo a } }");
    for command in ["plan", "run"] {
        let text = repository.check(&[command, "--base", "nope"], 2);
        assert!(text.contains("--base: there is no commit `nope` here"), "{text}");
    }
    repository.check(&["plan", "--base", "main"], 0);
}

#[test]
fn variables_that_are_read_late_have_their_values() {
    let repository = Repository::new(
        "env: { REGISTRY: '${{ needs.v.outputs.registry }}', PLAIN: plain }\njobs:\n  \
         v: { outputs: [registry, version], env: { REGISTRY: none }, run: 'printf \"registry=reg.io\\nversion=7\\n\" >> $ROPEWALK_OUTPUT' }\n  \
         b:\n    needs: [v]\n    env: { IMAGE: '${{ env.REGISTRY }}/app:${{ needs.v.outputs.version }}', HOME_OF: '${{ env.PLAIN }} ${{ runner.os }}' }\n    \
         run:\n      - run: echo got $IMAGE $HOME_OF ${{ env.IMAGE }}\n      \
         - { run: \"echo step ${{ env.TAG }} $TAG\", env: { TAG: '${{ env.IMAGE }}-${{ job.id }}' } }\n",
    );
    let text = repository.check(&["run"], 0);
    assert!(text.contains("got reg.io/app:7 plain linux reg.io/app:7"), "{text}");
    assert!(text.contains("step reg.io/app:7-b reg.io/app:7-b"), "{text}");
}

#[test]
fn time_limits_and_retries() {
    let repository = Repository::new(
        "jobs:\n  slow: { timeout: 1s, run: sleep 1000 }\n  flaky: { retry: { max: 2, on: [{ exit: [75] }], backoff: 0s }, run: 'echo x >> ../tries; test $(wc -l < ../tries) -ge 3 || exit 75' }\n",
    );
    let text = repository.check(&["run", "--grace", "1"], 1);
    assert!(text.contains("slow: failed") && text.contains("ran longer than 1.0 s"), "{text}");
    assert!(text.contains("flaky: passed"), "{text}");
    assert_eq!(fs::read_to_string(repository.folder.path().join("tries")).expect("there").lines().count(), 3);
}

#[test]
fn another_process_cancels_a_build() {
    let repository = Repository::new("jobs: { a: { run: 'echo ready; sleep 1000' } }");
    let mut child = repository.start(&["run", "--output", "plain"]);
    let _reader = wait_for(&mut child, "a | ready");
    repository.check(&["cancel", "last"], 0);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
}

#[test]
fn workspaces_of_old_builds_are_removed() {
    let repository = Repository::new("jobs: { a: { run: echo made > made.txt } }");
    for _ in 0..21 {
        repository.check(&["run", "--output", "quiet"], 0);
    }
    let text = repository.check(&["shell", "1", "a", "--", "cat", "made.txt"], 2);
    assert!(text.contains("is not kept any more"), "{text}");
    assert_eq!(repository.check(&["shell", "2", "a", "--", "cat", "made.txt"], 0), "made\n");
}

#[test]
fn a_sandboxed_job_sees_its_inputs_only() {
    if Command::new("bwrap").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "bubblewrap is missing");
        eprintln!("skipped: bubblewrap is not installed");
        return;
    }
    let repository = Repository::new(
        "jobs:\n  a: { environment: sandbox, inputs: [file.txt], run: 'cat file.txt; test ! -e other.txt; test ! -w /usr; ls /tmp' }\n  c: { environment: sandbox, inputs: [file.txt], secrets: [TOKEN], run: 'echo \"c sees $(ls)\"' }\n  d: { environment: sandbox, inputs: [file.txt], reuse: false, run: 'echo \"d sees $(ls)\"' }\n  b: { environment: { sandbox: { network: off } }, run: 'test $(grep -c : /proc/net/dev) = 1; cat other.txt' }\n",
    );
    repository.write("other.txt", "other\n");
    let output = repository.command(&["run"]).env("TOKEN", "s3cr3t-value").output().expect("ropewalk starts");
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("c sees file.txt\n") && text.contains("d sees file.txt\n"), "{text}");
    assert!(text.contains("a | committed") && text.contains("b | other"), "{text}");
}

#[test]
fn a_file_that_a_sandboxed_job_did_not_declare_is_named() {
    if Command::new("bwrap").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "bubblewrap is missing");
        eprintln!("skipped: bubblewrap is not installed");
        return;
    }
    let repository = Repository::new(
        "jobs:\n  a: { environment: sandbox, inputs: [file.txt], run: cat deep/other.txt }\n  b: { run: cat deep/nowhere.txt }\n",
    );
    repository.write("deep/other.txt", "other\n");
    let output = repository.command(&["run"]).output().expect("ropewalk starts");
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("= help: `deep/other.txt` is in the repository but not among the `inputs` of `a`"), "{text}");
    assert_eq!(text.matches("= help:").count(), 1, "{text}");
    let output = repository.command(&["show", "last", "a"]).output().expect("ropewalk starts");
    let page = String::from_utf8(output.stdout).expect("text");
    assert!(page.contains("= help: `deep/other.txt` is in the repository"), "{page}");
}

#[test]
fn colours_of_jobs_reach_terminals_only_and_a_search_without_a_match_says_so() {
    let repository = Repository::new(r#"jobs: { a: { run: "printf '\\033[31mred\\033[0m\\n'" } }"#);
    let check = |arguments: &[&str], code: i32, expected: &str| {
        let output = repository.command(arguments).env_remove("NO_COLOR").output().expect("ropewalk starts");
        let text = text(&output);
        assert_eq!(output.status.code(), Some(code), "ropewalk {arguments:?} printed:\n{text}");
        assert!(text.contains(expected), "ropewalk {arguments:?} printed:\n{text:?}");
    };
    check(&["run"], 0, "a | red\n");
    check(&["run", "--color", "always"], 0, "a | \u{1b}[31mred\u{1b}[0m");
    check(&["logs", "1", "a"], 0, "red\n");
    check(&["logs", "1", "a", "--raw"], 0, "\u{1b}[31mred\u{1b}[0m\n");
    check(&["logs", "1", "a", "--grep", "^red$"], 0, "red\n");
    check(&["logs", "1", "a", "--grep", "blue"], 1, "note: no line matches `blue`\n");
}

#[test]
fn a_build_says_whether_its_files_are_as_committed() {
    let repository = Repository::new("jobs: { a: { run: cat file.txt } }");
    repository.git(&["add", "-A"]);
    let committed = text(&repository.command(&["run"]).output().expect("ropewalk starts"));
    assert!(!committed.contains("local changes"), "{committed}");
    repository.write("file.txt", "changed\n");
    for arguments in [&["run"][..], &["show"], &["retry", "1"], &["show"]] {
        let told = text(&repository.command(arguments).output().expect("ropewalk starts"));
        assert!(told.contains(" + local changes, by "), "ropewalk {arguments:?} printed:\n{told}");
    }
    let listed = text(&repository.command(&["builds"]).output().expect("ropewalk starts"));
    assert_eq!(listed.matches(" + local").count(), 2, "{listed}");
}

/// A repository whose project is the folder `app`; `shared/lib.txt` lies beside it.
fn repository_with_a_folder(pipeline: &str) -> Repository {
    let repository = Repository::new("");
    fs::remove_dir_all(repository.root().join(".ropewalk")).expect("it was there");
    repository.write("app/.ropewalk/pipeline.yaml", pipeline);
    repository.write("app/src/a.txt", "a\n");
    repository.write("shared/lib.txt", "shared\n");
    repository.git(&["add", "-A"]);
    repository.git(&["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "a project in a folder"]);
    repository
}

impl Repository {
    #[track_caller]
    fn check_in(&self, folder: &str, arguments: &[&str], code: i32) -> String {
        let output = self.command(arguments).current_dir(self.root().join(folder)).output().expect("ropewalk starts");
        let text = text(&output);
        assert_eq!(output.status.code(), Some(code), "ropewalk {arguments:?} in {folder} printed:\n{text}");
        text
    }
}

#[test]
fn a_project_in_a_folder_sees_the_repository_and_starts_in_its_folder() {
    let repository = repository_with_a_folder(
        "jobs:\n  a:\n    artifacts: { f: out.txt }\n    run: 'git rev-parse --show-prefix; cat ../shared/lib.txt src/*; cp src/a.txt out.txt; echo changed > ../shared/lib.txt'\n  b: { needs: [a], run: 'cat ../shared/lib.txt out.txt' }\n",
    );
    repository.write("app/src/b.txt", "untracked\n");
    repository.write(".gitignore", "*.ignored\n");
    repository.write("app/src/c.ignored", "ignored\n");
    let text = repository.check_in("app/src", &["run"], 0);
    assert!(text.contains("a | app/") && text.contains("a | shared") && text.contains("a | untracked"), "{text}");
    assert!(!text.contains("a | ignored") && !text.contains("note:"), "{text}");
    assert!(text.contains("b | shared") && text.contains("b | a"), "{text}");
    let shell =
        repository.check_in("app", &["shell", "last", "a", "--", "sh", "-c", "cat out.txt ../shared/lib.txt"], 0);
    assert_eq!(shell, "a\nchanged\n");
}

#[test]
fn a_project_in_a_folder_is_reused_by_what_it_depends_on() {
    let repository = repository_with_a_folder(
        "jobs:\n  files: { inputs: ['src/**'], run: echo files ran }\n  tree: { reuse: true, run: echo tree ran }\n  changes: { when: { changed: ['src/**'] }, run: echo changes ran }\n",
    );
    repository.check_in("app", &["run", "--base", "HEAD"], 0);
    repository.write("shared/lib.txt", "other\n");
    let text = repository.check_in("app", &["run", "--base", "HEAD"], 0);
    assert!(text.contains("files: cached") && text.contains("tree | tree ran"), "{text}");
    assert!(!text.contains("changes ran"), "{text}");
    let text = repository.check_in("app", &["explain", "tree"], 0);
    assert!(text.contains("file ../shared/lib.txt changed"), "{text}");
    repository.write("app/src/a.txt", "other\n");
    let text = repository.check_in("app", &["run", "--base", "HEAD"], 0);
    assert!(text.contains("files | files ran") && text.contains("changes | changes ran"), "{text}");
}

#[test]
fn a_sandbox_in_a_folder_shows_inputs_or_the_repository() {
    if Command::new("bwrap").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "bubblewrap is missing");
        eprintln!("skipped: bubblewrap is not installed");
        return;
    }
    let repository = repository_with_a_folder(
        "defaults: { environment: sandbox }\njobs:\n  some: { inputs: ['src/**'], run: 'cat src/a.txt; ls -A . ..' }\n  all: { run: 'cat ../shared/lib.txt; echo x > ../shared/new; git add -A' }\n",
    );
    let text = repository.check_in("app", &["run"], 0);
    assert!(text.contains("some | a") && !text.contains("some | shared"), "{text}");
    assert!(text.contains("all | shared"), "{text}");
    assert!(!repository.root().join("shared/new").exists());
}

#[test]
fn builds_that_are_not_kept_any_more_are_removed() {
    let repository = Repository::new(
        "jobs: { a: { inputs: [], artifacts: { f: out }, run: 'echo made > out' }, b: { needs: [a], artifacts: { g: out }, run: 'cat out; date +%N > out' } }",
    );
    let run = |days: &str| {
        let mut command = repository.command(&["run", "--output", "quiet"]);
        let output =
            command.env("ROPEWALK_KEEP_BUILDS", "2").env("ROPEWALK_KEEP_DAYS", days).output().expect("it starts");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    };
    for days in ["1", "1", "1", "0"] {
        run(days);
    }
    repository.check(&["show", "1"], 2);
    repository.check(&["logs", "2"], 2);
    repository.check(&["show", "3"], 0);
    let text = repository.check(&["logs", "4", "b"], 0);
    assert!(text.contains("made"), "the result outlived its build: {text}");
    // `a` of build 1 and `b` of the two builds that are kept.
    let places = fs::read_dir(repository.folder.path().join("data")).expect("it is there");
    let data = places.flatten().next().expect("the project's folder").path();
    let mut blobs = Vec::new();
    let mut waiting = vec![data.join("blobs")];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            if entry.path().is_dir() {
                waiting.push(entry.path());
            } else if entry.file_name() != "renewal" {
                blobs.push(entry.path());
            }
        }
    }
    assert_eq!(blobs.len(), 3, "{blobs:?}");
}

#[test]
fn a_damaged_database_is_named_with_what_may_be_done() {
    let repository = Repository::new("jobs: { a: { run: 'true' } }");
    repository.check(&["run"], 0);
    let kept = fs::read_dir(repository.folder.path().join("data")).expect("a folder");
    let mut kept = kept.flatten().map(|entry| entry.path());
    let data = kept.find(|path| path.join("ropewalk.db").exists()).expect("one project");
    for beside in ["ropewalk.db-wal", "ropewalk.db-shm"] {
        // Whole pages of it may be there.
        let _ = fs::remove_file(data.join(beside));
    }
    fs::write(data.join("ropewalk.db"), "no database, however long it may be ".repeat(99)).expect("it is ours");
    for command in ["run", "builds"] {
        let text = repository.check(&[command], 3);
        assert_eq!(text.matches("file is not a database").count(), 1, "{text}");
        let next = format!("; it is `{0}/ropewalk.db`: move the folder `{0}` away, ", data.display());
        assert!(
            text.starts_with("error: the database is damaged: file is not a database; ") && text.contains(&next),
            "{text}"
        );
    }
    fs::rename(&data, data.with_file_name("away")).expect("it is ours");
    assert!(repository.check(&["run"], 0).contains("build 1 passed"));
}

#[test]
fn init_names_files_as_they_are_seen_from_where_the_user_is() {
    let repository = Repository::new("");
    fs::remove_dir_all(repository.root().join(".ropewalk")).expect("it is ours");
    fs::create_dir_all(repository.root().join("below/deep")).expect("a folder");
    let init = |folder: &str, arguments: &[&str]| {
        let mut command = repository.command(&["init"]);
        text(&command.args(arguments).current_dir(repository.root().join(folder)).output().expect("ropewalk starts"))
    };
    let text = init("below/deep", &[]);
    let wrote = "wrote ../../.ropewalk/pipeline.yaml, and ../../.ropewalk/pipeline.schema.json for your editor\n";
    assert!(text.starts_with(wrote), "{text}");
    assert!(text.ends_with("put your commands into ../../.ropewalk/pipeline.yaml\n"), "{text}");
    assert!(init("below", &[]).starts_with("error: ../.ropewalk/pipeline.yaml is there already: "));
    assert!(init("", &["--force"]).starts_with("wrote .ropewalk/pipeline.yaml, and "));
}

#[test]
fn a_follower_of_a_job_that_waits_is_told_what_for_at_once() {
    let wait = "echo begun; until [ -e ../go ]; do sleep 0.02; done";
    let repository =
        Repository::new(&format!("jobs: {{ a: {{ run: '{wait}' }}, b: {{ needs: [a], run: echo late }} }}"));
    let mut run = repository.start(&["run"]);
    let _rest = wait_for(&mut run, "begun");
    let mut follower = repository.start(&["logs", "last", "b", "--follow"]);
    let mut note = String::new();
    let stderr = follower.stderr.take().expect("a pipe");
    BufReader::new(stderr).read_line(&mut note).expect("readable output");
    assert_eq!(note, "note: b has not begun in build 1: it waits for a\n");
    fs::write(repository.folder.path().join("go"), "").expect("a file");
    let output = follower.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "late\n");
    assert!(run.wait().expect("it ends").success());
}
