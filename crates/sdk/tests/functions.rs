//! The verb `run`: the example `functions` as a real program, called as a worker calls it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ropewalk::Json;

/// A workspace, and the program.
struct Scene {
    workspace: PathBuf,
    program: PathBuf,
    /// What jobs have handed on, by job: the context `needs`.
    needs: Vec<(String, Json)>,
    environment: Vec<(&'static str, &'static str)>,
}

/// How a call ended.
#[derive(Debug)]
struct Ended {
    exit: i32,
    log: String,
    errors: String,
    /// As a worker reads them.
    outputs: Vec<(String, String)>,
}

impl Scene {
    /// A fresh one, of this name.
    fn new(name: &str) -> Self {
        let workspace = Path::new(env!("CARGO_TARGET_TMPDIR")).join("functions").join(name);
        let _ = fs::remove_dir_all(&workspace);
        fs::create_dir_all(workspace.join("worker")).unwrap();
        let tests = std::env::current_exe().unwrap();
        let program = tests.ancestors().nth(2).unwrap().join("examples/functions");
        assert!(program.is_file(), "the example is not built: cargo build -p ropewalk --example functions");
        Self { workspace, program, needs: Vec::new(), environment: Vec::new() }
    }

    /// The answers to what the jobs of `needs` handed on.
    fn answers(&self) -> Json {
        let answer = |(job, need): &(String, Json)| {
            let outputs = need.get("outputs").cloned().unwrap_or_default();
            let outcome = Json::object([("outcome", "passed".into()), ("outputs", outputs)]);
            let question = Json::object([("outcome", job.as_str().into())]);
            Json::List(vec![question, Json::object([("outcome", outcome)])])
        };
        Json::List(self.needs.iter().map(answer).collect())
    }

    /// The document of an evaluation with those answers.
    fn document(&self) -> Json {
        let request = Json::object([
            ("protocol", Json::Int(1)),
            ("event", Json::object([("kind", "push".into())])),
            ("answers", self.answers()),
            ("hooks", Json::List(vec![Json::Int(0)])),
        ]);
        let mut command = Command::new(&self.program);
        let mut child = command.arg("evaluate").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{request}").unwrap();
        let output = child.wait_with_output().unwrap();
        let reply = Json::read(String::from_utf8(output.stdout).unwrap().trim()).unwrap();
        assert_eq!(reply.get("diagnostics"), None, "{reply}");
        reply.get("document").unwrap().clone()
    }

    fn job(&self, job: &str) -> Json {
        let document = self.document();
        document.get("jobs").unwrap().get(job).unwrap_or_else(|| panic!("no job {job} in {document}")).clone()
    }

    fn payload(&self, job: &str) -> Json {
        self.job(job).get("run").unwrap().items()[0].get("function").unwrap().clone()
    }

    /// The command that runs a job, with this payload.
    fn command(&self, job: &str, payload: &Json) -> Command {
        let file = |name: &str| self.workspace.join("worker").join(name);
        let _ = fs::remove_file(file("output"));
        fs::write(file("step"), payload.to_string()).unwrap();
        let context = Json::object([
            ("event", Json::object([("kind", "push".into())])),
            ("needs", Json::Object(self.needs.clone())),
        ]);
        fs::write(file("context"), context.to_string()).unwrap();
        let mut command = Command::new(&self.program);
        command.args(["run", job]).current_dir(&self.workspace).env("ROPEWALK_WORKSPACE", &self.workspace);
        command.env("ROPEWALK_STEP", file("step")).env("ROPEWALK_CONTEXT", file("context"));
        command.env("ROPEWALK_OUTPUT", file("output")).envs(self.environment.iter().copied());
        command
    }

    fn call(&self, job: &str, payload: &Json) -> Ended {
        let output = self.command(job, payload).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let outputs = fs::read_to_string(self.workspace.join("worker/output")).unwrap_or_default();
        Ended {
            exit: output.status.code().unwrap_or(-1),
            log: text(output.stdout),
            errors: text(output.stderr),
            outputs: entries(&outputs),
        }
    }

    fn run(&self, job: &str) -> Ended {
        self.call(job, &self.payload(job))
    }

    /// Runs a job that must pass; other jobs may need it then.
    fn pass(&mut self, job: &str) -> Ended {
        let ended = self.run(job);
        assert_eq!((ended.exit, ended.errors.as_str()), (0, ""), "{}", ended.log);
        let outputs = ended.outputs.iter().map(|(name, value)| (name.clone(), Json::from(value.as_str()))).collect();
        self.needs.push((job.to_owned(), Json::object([("outputs", Json::Object(outputs))])));
        ended
    }

    /// Runs a job that must not pass; gives the exit code and what it says.
    fn refuse(&self, job: &str) -> (i32, String) {
        let ended = self.run(job);
        // It hands on nothing but why, which its outcome says.
        let [(name, said)] = ended.outputs.as_slice() else { panic!("{ended:?}") };
        assert_eq!(name, "failure");
        match said.strip_prefix("the function panicked: ") {
            Some(panic) => assert!(ended.errors.contains(panic), "{ended:?}"),
            None => assert_eq!(ended.errors.trim_end(), said, "{ended:?}"),
        }
        (ended.exit, ended.errors)
    }
}

/// Reads the file of outputs by the grammar that a worker knows.
fn entries(text: &str) -> Vec<(String, String)> {
    let mut entries = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let is_plain = line.find('=').unwrap_or(usize::MAX) < line.find("<<").unwrap_or(usize::MAX);
        let (name, value) = match is_plain {
            true => line.split_once('=').map(|(name, value)| (name, value.to_owned())).unwrap(),
            false => {
                let (name, delimiter) = line.split_once("<<").unwrap();
                let value: Vec<&str> = lines.by_ref().take_while(|line| *line != delimiter).collect();
                (name, value.join("\n"))
            }
        };
        entries.push((name.to_owned(), value));
    }
    entries
}

fn output<'a>(ended: &'a Ended, name: &str) -> &'a str {
    &ended.outputs.iter().find(|(output, _)| output == name).unwrap_or_else(|| panic!("no {name} in {ended:?}")).1
}

#[test]
fn a_value_is_handed_on_whole_and_by_field() {
    let mut scene = Scene::new("value");
    let ended = scene.pass("build");
    assert!(ended.log.contains("::group::build\n$ mkdir"), "{}", ended.log);
    assert!(ended.log.ends_with("::endgroup::\n"), "{}", ended.log);
    assert_eq!(output(&ended, "version"), "1.2");
    assert_eq!(output(&ended, "notes"), "first\nEND_OF_VALUE\nlast");
    assert_eq!(output(&ended, "size"), "7");
    assert_eq!(output(&ended, "app"), ".ropewalk-files/build/0/app");
    let value = Json::read(output(&ended, "value")).unwrap();
    assert_eq!(value.get("value").unwrap().get("docs").unwrap().as_str(), Some(".ropewalk-files/build/1/docs"));
    assert_eq!(value.get("schema"), scene.payload("build").get("output"));
    let job = scene.job("build");
    let declared: Vec<&str> = job.get("outputs").unwrap().items().iter().filter_map(Json::as_str).collect();
    assert_eq!(declared, ["value", "version", "notes", "app", "docs", "size"]);
    assert!(job.get("artifacts").unwrap().to_string().contains(".ropewalk-files/build/**"));
}

#[test]
fn what_a_function_reads_of_the_event_is_planned_or_told() {
    let mut scene = Scene::new("event");
    let read = |job: &str| scene.payload(job).get("read").map(Json::to_string);
    assert_eq!(read("deaf"), None);
    // What the program has read by then the function may hold; what it reads of that is nothing new.
    assert_eq!(read("hears").as_deref(), Some(r#"{"branch":null}"#));
    assert_eq!(scene.pass("hears").outputs.len(), 1);
    assert_eq!(read_of(&scene.pass("listens")), "commit, message, tag");
}

fn read_of(ended: &Ended) -> &str {
    output(ended, "event.read")
}

#[test]
fn files_are_laid_by_hard_link_with_what_is_in_them() {
    let mut scene = Scene::new("files");
    scene.pass("build");
    let path = |path: &str| scene.workspace.join(path);
    let inode = |name: &str| fs::metadata(path(name)).unwrap().ino();
    assert_eq!(inode(".ropewalk-files/build/0/app"), inode("out/app"));
    assert_eq!(fs::read_to_string(path(".ropewalk-files/build/1/docs/link")).unwrap(), "page\n");
    assert_eq!(fs::read_link(path(".ropewalk-files/build/1/docs/link")).unwrap(), Path::new("sub/page"));
    assert_eq!(fs::read_to_string(path(".ropewalk-files/.gitignore")).unwrap(), "*\n");
    // An earlier try leaves nothing behind.
    fs::write(path(".ropewalk-files/build/0/old"), "").unwrap();
    fs::remove_dir_all(path("out")).unwrap();
    scene.pass("build");
    assert!(!scene.workspace.join(".ropewalk-files/build/0/old").exists());
}

#[test]
fn inputs_arrive_with_their_types() {
    let mut scene = Scene::new("inputs");
    scene.environment = vec![("GREETING", "hello")];
    scene.pass("build");
    let ended = scene.pass("look");
    let lines: Vec<&str> = ended.log.lines().filter(|line| !line.starts_with("$ ")).collect();
    assert_eq!(lines, ["1.2 7 binary", "::pending::a lock", "hello", "::pending::", "::warning::beware"]);
    assert!(output(&ended, "value").ends_with("\"value\":true}"), "{ended:?}");
}

#[test]
fn what_grew_runs_by_the_answers_that_its_payload_names() {
    let mut scene = Scene::new("grown");
    scene.pass("names");
    assert_eq!(scene.pass("each/a").log, "a\n");
    assert_eq!(scene.pass("each/b").log, "b\n");
    let ended = scene.pass("sum");
    assert!(output(&ended, "value").ends_with("\"value\":2}"), "{ended:?}");
}

#[test]
fn failures_have_their_exit_codes() {
    let scene = Scene::new("failures");
    assert_eq!(scene.refuse("fail"), (1, "`exit 7` ended with exit code 7\n".to_owned()));
    let (exit, errors) = scene.refuse("no-command");
    assert_eq!(exit, 1);
    assert!(errors.starts_with("cannot run `/no/such/program`: No such file"), "{errors}");
    let (exit, errors) = scene.refuse("panic");
    assert_eq!(exit, 101);
    assert!(errors.contains("this is wrong"), "{errors}");
    let (exit, errors) = scene.refuse("large");
    assert_eq!(exit, 1);
    assert!(errors.contains("the most is 1048576: hand on what is large as a `File`"), "{errors}");
}

#[test]
fn another_build_of_the_program_is_refused_before_anything_is_decoded() {
    let mut scene = Scene::new("other-build");
    scene.pass("build");
    let payload = scene.payload("look");
    let with = |name: &str, value: Json| {
        let Json::Object(mut entries) = payload.clone() else { unreachable!() };
        entries.iter_mut().find(|(key, _)| key == name).unwrap().1 = value;
        let ended = scene.call("look", &Json::Object(entries));
        assert_eq!((ended.exit, ended.log.as_str()), (65, ""));
        ended.errors
    };
    let said = |rest: &str| format!("this program is another build than the one that planned the job: {rest}\n");
    assert_eq!(with("job", "gone".into()), said("it has no function for the job `gone`"));
    assert_eq!(with("output", "0".into()), said("the function of `look` returns another type"));
    assert_eq!(with("inputs", Json::List(Vec::new())), said("the function of `look` takes 1 inputs, not 0"));
    let input = Json::List(vec![Json::List(vec!["build".into(), Json::Null, "0".into()])]);
    assert_eq!(with("inputs", input), said("the input of `look` from `build` has another type"));
    assert_eq!(with("job", Json::Null), "this function cannot be called: the payload names no job\n");
}

#[test]
fn missing_inputs_are_named() {
    let mut scene = Scene::new("no-inputs");
    let (exit, errors) = scene.refuse("look");
    assert_eq!(
        (exit, errors.as_str()),
        (66, "the inputs cannot be read: .build: the job `build` handed on no `value`\n")
    );
    let broken = Json::object([("outputs", Json::object([("value", "{".into())]))]);
    scene.needs.push(("build".to_owned(), broken));
    let (exit, errors) = scene.refuse("look");
    assert_eq!(exit, 66);
    assert!(errors.starts_with("the inputs cannot be read: .build: the value is no JSON"), "{errors}");
}

#[test]
fn files_that_cannot_be_handed_on_fail_the_function() {
    let mut scene = Scene::new("bad-files");
    let path = |path: &str| scene.workspace.join(path);
    fs::write(path("../outside"), "").unwrap();
    symlink("../outside", path("link")).unwrap();
    fs::create_dir(path("dir")).unwrap();
    symlink("/etc/hostname", path("dir/absolute")).unwrap();
    fs::create_dir(path("up")).unwrap();
    symlink("../../outside", path("up/link")).unwrap();
    let mut check = |job: &str, path: &'static str, expected: &str| {
        scene.environment = vec![("PATH_TO_HAND_ON", path)];
        assert_eq!(scene.refuse(job), (1, format!("{expected}\n")));
    };
    check("hand-on", "gone", "the value holds `gone`, which is not there");
    check("hand-on", "", "the value cannot be handed on: a path is empty");
    check("hand-on", "../outside", "the value cannot be handed on: `../outside` leads out of the workspace");
    check("hand-on", "/etc/hostname", "the value cannot be handed on: `/etc/hostname` leads out of the workspace");
    check("hand-on", "link", "the value holds `link`, which leads out of the workspace");
    check("hand-on-dir", "link", "the value holds `link`, which leads out of the workspace");
    check("hand-on-dir", "dir", "the directory `dir` holds the link `dir/absolute`, which leads out of it");
    check("hand-on-dir", "up", "the directory `up` holds the link `up/link`, which leads out of it");
}

/// Starts a job whose command says that it has started, cancels the function, and waits for both.
fn cancel(job: &str, said_by: fn(&mut std::process::Child) -> Box<dyn std::io::Read>) {
    let scene = Scene::new(job);
    let mut command = scene.command(job, &scene.payload(job));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(said_by(&mut child)).lines();
    assert!(said.any(|line| line.unwrap() == "started"));
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    // The command holds the other end: no more lines come once it and all that it started have ended.
    assert_eq!(said.filter(|line| line.as_ref().unwrap() != "canceled").count(), 0);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn a_cancellation_ends_the_command_and_all_that_it_started() {
    cancel("wait", |child| Box::new(child.stdout.take().unwrap()));
    cancel("captured-wait", |child| Box::new(child.stderr.take().unwrap()));
}

#[test]
fn without_a_worker_it_says_what_is_missing() {
    let scene = Scene::new("by-hand");
    let output = Command::new(&scene.program).args(["run", "build"]).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(65));
    let expected = "this function cannot be called: `ROPEWALK_STEP` is not set; a worker of ropewalk sets it\n";
    assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
}
