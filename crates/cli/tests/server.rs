//! A server, its workers and people's programs: every one a real process of the binary, over real sockets.

mod process;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use process::{Process, Reader, appears};

/// An installation and a repository.
struct Site {
    folder: tempfile::TempDir,
    address: String,
}

/// A worker that runs, and what it says.
struct Worker {
    process: Process,
    said: Reader,
}

impl Site {
    /// With this pipeline, and tokens for workers and for submitting.
    fn new(pipeline: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let site = Self { folder, address };
        fs::create_dir_all(site.root().join(".ropewalk")).expect("a folder");
        fs::write(site.root().join(".ropewalk/pipeline.yaml"), pipeline).expect("a file");
        site.git(&["init", "-q", "-b", "main"]);
        site.git(&["add", "-A"]);
        site.git(&["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "first"]);
        fs::create_dir_all(site.path("data")).expect("a folder");
        for (name, flags) in [
            ("worker.token", &["--worker", "--name", "w"][..]),
            ("client.token", &["--submit", "--client", "t"]),
            ("admin.token", &["--admin", "--name", "a"]),
        ] {
            let data = site.path("data");
            let mut command = site.command(&["token", "create", "--data"]);
            let output = command.arg(&data).args(flags).output().expect("ropewalk starts");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            fs::write(site.path(name), output.stdout).expect("a file");
        }
        fs::write(site.path("data/settings.toml"), "worker.heartbeat = \"500ms\"\n").expect("a file");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.path("repository")
    }

    fn git(&self, arguments: &[&str]) {
        let status = Command::new("git").args(arguments).current_dir(self.root()).status().expect("git");
        assert!(status.success(), "git {arguments:?}");
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

    /// Starts the server, without a worker beside it.
    fn serve(&self) -> Process {
        self.serve_with(&["--local-worker", "off"])
    }

    fn serve_with(&self, flags: &[&str]) -> Process {
        let mut command = self.command(&["serve", "--listen", &self.address, "--data"]);
        command.arg(self.path("data")).args(flags).stdout(Stdio::piped());
        let mut process = Process(command.spawn().expect("ropewalk starts"));
        Reader::new(process.0.stdout.take().expect("a pipe")).until("serving http://");
        process
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn work(&self, name: &str, flags: &[&str]) -> Worker {
        let mut command =
            self.command(&["work", "--server", &self.url(), "--capacity", "2", "--grace", "1", "--name", name]);
        command.arg("--token").arg(self.path("worker.token")).arg("--data").arg(self.path(name)).args(flags);
        let mut process = Process(command.stderr(Stdio::piped()).spawn().expect("ropewalk starts"));
        let mut said = Reader::new(process.0.stderr.take().expect("a pipe"));
        said.until("joined http://");
        Worker { process, said }
    }

    fn submit_command(&self, flags: &[&str]) -> Command {
        let mut command = self.command(&["submit", "--server", &self.url(), "--token"]);
        command.arg(self.path("client.token")).args(flags);
        command
    }

    /// Submits and waits; asserts the exit code. Both streams.
    #[track_caller]
    fn submit(&self, flags: &[&str], code: i32) -> String {
        let Output { status, stdout, stderr } = self.submit_command(flags).output().expect("ropewalk starts");
        let text = format!("{}{}", String::from_utf8_lossy(&stderr), String::from_utf8_lossy(&stdout));
        assert_eq!(status.code(), Some(code), "ropewalk submit {flags:?} printed:\n{text}");
        text
    }

    /// Submits and reads what is shown, both streams.
    fn watch(&self, flags: &[&str]) -> (Process, Reader) {
        let mut command = self.submit_command(flags);
        let mut process =
            Process(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ropewalk starts"));
        let stdout = Box::new(process.0.stdout.take().expect("a pipe"));
        let reader = Reader::of(vec![stdout, Box::new(process.0.stderr.take().expect("a pipe"))]);
        (process, reader)
    }
}

#[test]
fn a_directory_is_built_as_it_stands() {
    let site = Site::new("jobs:\n  hello:\n    run: cat file; cat sub/new\n");
    fs::write(site.root().join("file"), "changed\n").expect("a file");
    fs::create_dir(site.root().join("sub")).expect("a folder");
    fs::write(site.root().join("sub/new"), "untracked\n").expect("a file");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let text = site.submit(&[], 0);
    for line in ["build 1: push on main", "+ local changes", "hello | changed", "hello | untracked", "build 1 passed"] {
        assert!(text.contains(line), "no `{line}` in:\n{text}");
    }
    fs::write(site.root().join("file"), "again\n").expect("a file");
    let text = site.submit(&["--output", "json"], 0);
    assert!(text.contains("\"line\":\"again\""), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.contains("\"kind\":\"build_finished\"")), "{text}");
}

#[test]
fn the_worker_beside_the_server_needs_nothing() {
    let site = Site::new("jobs:\n  hello:\n    run: echo from the worker beside\n");
    let mut server = site.serve_with(&[]);
    let text = site.submit(&[], 0);
    assert!(text.contains("hello | from the worker beside"), "{text}");
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
}

#[test]
fn a_failure_is_told_and_shown() {
    let site =
        Site::new("jobs:\n  bad:\n    run: echo broken >&2; exit 3\n  wrong:\n    needs: [bad]\n    run: echo never\n");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let text = site.submit(&[], 1);
    for line in ["bad | broken", "bad: failed:", "ended with code 3", "wrong: skipped", "failed because of `bad`"] {
        assert!(text.contains(line), "no `{line}` in:\n{text}");
    }
    fs::write(site.root().join(".ropewalk/pipeline.yaml"), "jobs:\n  a:\n    runn: x\n").expect("a file");
    let text = site.submit(&[], 2);
    assert!(text.contains("the pipeline is wrong"), "{text}");
}

#[test]
fn artifacts_go_from_worker_to_worker() {
    let site = Site::new(
        "jobs:\n  make:\n    labels: [maker]\n    run: mkdir out; echo made > out/file; chmod +x out/file\n    artifacts: { out: [out/**] }\n\
         \x20 use:\n    labels: [user]\n    needs: [make]\n    run: cat out/file; test -x out/file && echo executable\n",
    );
    let _server = site.serve();
    let _maker = site.work("maker", &["--labels", "maker"]);
    let _user = site.work("user", &["--labels", "user"]);
    let text = site.submit(&[], 0);
    assert!(text.contains("use | made") && text.contains("use | executable"), "{text}");
}

#[test]
fn secrets_leave_no_worker_unmasked() {
    let site = Site::new("jobs:\n  a:\n    secrets: [TOKEN]\n    run: echo \"it is $TOKEN\"; echo $TOKEN | base64\n");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let text = site.submit(&[], 3);
    assert!(text.contains("TOKEN"), "{text}");
    let mut put = site.command(&["secrets", "put", "--server", &site.url(), "--token"]);
    put.arg(site.path("admin.token")).args(["repository", "TOKEN"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut put = put.spawn().expect("ropewalk starts");
    put.stdin.take().expect("a pipe").write_all(b"hunter2hunter2").expect("it reads");
    let output = put.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = site.submit(&[], 0);
    assert!(text.contains("a | it is ***"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMmh1bnRlcjI"), "{text}");
}

#[test]
fn a_job_that_nobody_can_run_says_so() {
    let site = Site::new("jobs:\n  a:\n    pool: gpu\n    run: echo never\n");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let (mut watching, mut shown) = site.watch(&["--output", "json"]);
    shown.until("\"kind\":\"planned\"");
    let mut list = site.command(&["pools", "queue", "gpu", "--server", &site.url(), "--token"]);
    let output = list.arg(site.path("admin.token")).output().expect("ropewalk starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("no worker"), "{text}");
    watching.signal("TERM");
    assert_eq!(watching.ended(), Some(130));
}

#[test]
fn a_killed_worker_loses_its_attempt_and_another_runs_the_job() {
    let site = Site::new(
        "jobs:\n  a:\n    run: touch \"$MARK.$$\"; test -e \"$MARK.go\" && exit 0; sleep 600\n    env: { MARK: PATH/mark }\n",
    );
    let mark = site.path("mark");
    let pipeline = fs::read_to_string(site.root().join(".ropewalk/pipeline.yaml")).expect("a file");
    let pipeline = pipeline.replace("PATH/mark", &mark.display().to_string());
    fs::write(site.root().join(".ropewalk/pipeline.yaml"), pipeline).expect("a file");
    let _server = site.serve();
    let mut first = site.work("w1", &[]);
    let (mut watching, mut shown) = site.watch(&["--output", "json"]);
    shown.until("\"kind\":\"step_started\"");
    fs::write(mark.with_extension("go"), "").expect("a file");
    first.process.kill();
    let _second = site.work("w2", &[]);
    shown.until("\"kind\":\"lost\"");
    let last = shown.until("\"kind\":\"build_finished\"");
    assert!(last.contains("\"verdict\":\"passed\""), "{last}");
    assert_eq!(watching.ended(), Some(0));
}

#[test]
fn a_worker_that_comes_back_late_is_not_believed() {
    let site = Site::new(
        "jobs:\n  a:\n    outputs: [who]\n    run: |\n      touch MARK.$ROPEWALK_WHO\n      while ! test -e MARK.go; do sleep 0.05; done\n      echo who=$ROPEWALK_WHO >> $ROPEWALK_OUTPUT\n",
    );
    let mark = site.path("mark");
    let pipeline = fs::read_to_string(site.root().join(".ropewalk/pipeline.yaml")).expect("a file");
    let pipeline = pipeline.replace("MARK", &mark.display().to_string()).replace("$ROPEWALK_WHO", "$WHO");
    fs::write(site.root().join(".ropewalk/pipeline.yaml"), pipeline).expect("a file");
    let _server = site.serve();
    let work = |name: &str| {
        let mut command = site.command(&["work", "--server", &site.url(), "--name", name]);
        command.env("WHO", name).arg("--token").arg(site.path("worker.token")).arg("--data").arg(site.path(name));
        let mut process = Process(command.stderr(Stdio::piped()).spawn().expect("ropewalk starts"));
        let mut said = Reader::new(process.0.stderr.take().expect("a pipe"));
        said.until("joined http://");
        (process, said)
    };
    let (first, mut first_said) = work("first");
    let (mut watching, mut shown) = site.watch(&["--output", "json"]);
    appears(&mark.with_extension("first"));
    first.signal("STOP");
    let (_second, _second_said) = work("second");
    appears(&mark.with_extension("second"));
    fs::write(mark.with_extension("go"), "").expect("a file");
    let last = shown.until("\"outcome\":\"passed\"");
    assert!(last.contains("\"who\":\"second\""), "{last}");
    first.signal("CONT");
    // It joins again, hears that the lease is not its own, and forgets the attempt.
    first_said.until("joined http://");
    assert_eq!(watching.ended(), Some(0));
    let text = site.submit(&[], 0);
    assert!(text.contains("passed"), "{text}");
}

#[test]
fn a_server_that_dies_while_a_job_prints_loses_no_line() {
    let site = Site::new(
        "jobs:\n  count:\n    run: |\n      i=0; while test $i -lt 3000; do echo line-$i; i=$((i+1)); test $((i % 10)) = 0 && sleep 0.01; done; true\n",
    );
    let mut server = site.serve();
    let _worker = site.work("w1", &[]);
    let (mut watching, mut shown) = site.watch(&[]);
    shown.until("count | line-400");
    server.kill();
    server = site.serve();
    shown.until("count | line-1500");
    server.kill();
    let _server = site.serve();
    assert_eq!(watching.ended(), Some(0));
    let lines = shown.rest();
    let counted: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("count | ")).collect();
    let expected: Vec<String> = (0..3000).map(|number| format!("line-{number}")).collect();
    assert_eq!(counted, expected);
}

#[test]
fn a_flood_is_kept_in_little_memory() {
    let site = Site::new("jobs:\n  flood:\n    run: head -c 75000000 /dev/urandom | base64 -w 99\n");
    let server = site.serve();
    let worker = site.work("w1", &[]);
    let (mut watching, shown) = site.watch(&["--output", "quiet"]);
    assert_eq!(watching.ended(), Some(0));
    let lines = shown.rest();
    assert!(lines.iter().any(|line| line.contains("passed")), "{lines:?}");
    let (of_worker, of_server) = (worker.process.peak_mib(), server.peak_mib());
    println!("100 MiB of output: the worker peaked at {of_worker} MiB, the server at {of_server} MiB");
    assert!(of_worker < 100 && of_server < 150, "worker {of_worker} MiB, server {of_server} MiB");
}

#[test]
fn submit_cancels_if_asked_twice() {
    let site = Site::new("jobs:\n  a:\n    run: echo begun; sleep 600\n");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let (mut watching, mut shown) = site.watch(&[]);
    shown.until("a | begun");
    watching.signal("INT");
    shown.until("Ctrl-C once more cancels it");
    watching.signal("INT");
    shown.until("canceled by");
    assert_eq!(watching.ended(), Some(130));
    let (mut watching, mut shown) = site.watch(&[]);
    shown.until("a | begun");
    watching.signal("INT");
    assert_eq!(watching.ended(), Some(130));
}

#[test]
fn a_worker_told_to_end_finishes_what_it_runs() {
    let site =
        Site::new("jobs:\n  a:\n    run: echo begun; while ! test -e MARK; do sleep 0.05; done; echo finished\n");
    let mark = site.path("mark");
    let pipeline = fs::read_to_string(site.root().join(".ropewalk/pipeline.yaml")).expect("a file");
    fs::write(site.root().join(".ropewalk/pipeline.yaml"), pipeline.replace("MARK", &mark.display().to_string()))
        .expect("a file");
    let _server = site.serve();
    let mut worker = site.work("w1", &[]);
    let (mut watching, mut shown) = site.watch(&[]);
    shown.until("a | begun");
    worker.process.signal("TERM");
    worker.said.until("finishing what runs");
    fs::write(&mark, "").expect("a file");
    shown.until("a | finished");
    assert_eq!(worker.process.ended(), Some(0));
    assert_eq!(watching.ended(), Some(0));
}

#[test]
fn a_worker_without_the_right_is_told_so() {
    let site = Site::new("jobs:\n  a:\n    run: echo\n");
    let _server = site.serve();
    let mut command = site.command(&["work", "--server", &site.url(), "--token"]);
    command.arg(site.path("client.token")).arg("--data").arg(site.path("w1"));
    let output = command.output().expect("ropewalk starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("the server refused"), "{text}");
}
