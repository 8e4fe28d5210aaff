//! The same pipeline in YAML, JSON, EDN, TOML and Rust is the same graph, byte for byte. The Rust is the SDK's own: its
//! examples are built and asked as `ropewalk run` asks a program.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use graph::{Answer, Diagnostic, Digest, Event, EventKind, Known, Outcome, Question, Severity, canonical};
use ropewalk_dialects::native::{self, Lowered, SourceFile, Triggered};
use ropewalk_dialects::program;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The SDK's examples, built once.
fn examples() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sdk");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--offline", "--package", "ropewalk", "--examples", "--target-dir"])
            .arg(&target)
            .current_dir(root)
            .status()
            .expect("cargo starts");
        assert!(status.success(), "the SDK's examples build");
        target.join("debug/examples")
    })
}

/// One line for each of these requests, from one process.
fn ask(example: &str, requests: &[String]) -> Vec<String> {
    let mut child = Command::new(examples().join(example))
        .arg("evaluate")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    for request in requests {
        writeln!(stdin, "{request}").expect("the program reads");
    }
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{example} ends well");
    String::from_utf8(output.stdout).expect("replies are text").lines().map(str::to_owned).collect()
}

/// What the program comes to, beside these files.
fn lower_program(example: &str, files: &[SourceFile], known: &Known) -> Lowered {
    let document = (!files.is_empty()).then(|| program::document(files));
    let requests = [program::request(known, None, None), program::request(known, Some(&[0]), document.as_ref())];
    let replies = ask(example, &requests);
    let hooks = program::read(&replies[0]).expect("a reply");
    let [hooks, mut evaluated] = [hooks, program::read(&replies[1]).expect("a reply")];
    let answering = program::triggered_hooks(&hooks, files, &known.event);
    assert_eq!(answering, [0], "the hook answers");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let names = evaluated.files().to_vec();
    let sources =
        names.into_iter().filter_map(|name| Some((name.clone(), std::fs::read_to_string(root.join(name)).ok()?)));
    program::lower(evaluated, sources.collect(), files, known, Digest([0; 32]))
}

fn lower_file(path: &str, known: &Known) -> Lowered {
    let name = path.rsplit('/').next().expect("a name");
    let text = std::fs::read(folder().join(path)).expect("the file is there");
    native::lower(&[SourceFile::new(name, text)], known)
}

fn event(kind: EventKind) -> Event {
    Event { branch: Some("main".to_owned()), actor: "ada".to_owned(), ..Event::new(kind) }
}

/// Both give the same graph, the same questions and no diagnostics.
fn check_same(path: &str, example: &str, known: &Known) {
    let [file, program] = [lower_file(path, known), lower_program(example, &[], known)];
    assert_eq!(errors(&file), Vec::<&Diagnostic>::new(), "{path}");
    assert_eq!(errors(&program), Vec::<&Diagnostic>::new(), "{example}");
    assert_eq!(file.evaluation.questions, program.evaluation.questions, "{path}, {example}");
    let [left, right] = [&file, &program].map(|lowered| canonical::graph_json(&lowered.evaluation.graph));
    assert!(left.len() > 1_000, "the graph is there");
    similar(&left, &right);
}

/// A file also warns of parameters that nothing reads.
fn errors(lowered: &Lowered) -> Vec<&Diagnostic> {
    lowered.evaluation.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).collect()
}

/// Compares job by job, so that a difference can be read.
fn similar(left: &str, right: &str) {
    let [left_jobs, right_jobs] =
        [left, right].map(|text| serde_json::from_str::<serde_json::Value>(text).expect("JSON"));
    let names = |value: &serde_json::Value| -> BTreeSet<String> {
        value["jobs"].as_object().expect("jobs").keys().cloned().collect()
    };
    assert_eq!(names(&left_jobs), names(&right_jobs));
    for name in names(&left_jobs) {
        assert_eq!(left_jobs["jobs"][&name], right_jobs["jobs"][&name], "{name}");
    }
    assert_eq!(left, right);
}

#[test]
fn five_notations_say_the_same() {
    let known = Known::of(event(EventKind::Push));
    for notation in ["yaml", "json", "edn", "toml"] {
        check_same(&format!("native/notation_{notation}/pipeline.{notation}"), "whole_format", &known);
    }
}

#[test]
fn every_other_key_says_the_same() {
    let mut known = Known::of(event(EventKind::Push));
    check_same("program_parity/other_keys.yaml", "other_keys", &known);
    // With a matrix that came out of a job.
    let outputs = [("shards".to_owned(), "[1,2]".into()), ("matrix".to_owned(), r#"{"x":[1,2]}"#.into())].into();
    let outcome = Outcome::Passed { outputs };
    known.answers.insert(Question::Outcome("plan".into()), Answer::Outcome(outcome));
    known.answers.insert(Question::ChangedFiles, Answer::Files(vec!["src/a.rs".to_owned()]));
    check_same("program_parity/other_keys.yaml", "other_keys", &known);
}

#[test]
fn hooks_answer_as_the_files_do() {
    let path = "native/notation_yaml/pipeline.yaml";
    for kind in EventKind::ALL {
        for (branch, tag) in [(Some("main"), None), (Some("x"), None), (None, Some("v1"))] {
            let event = Event { branch: branch.map(str::to_owned), tag: tag.map(str::to_owned), ..event(kind) };
            let known = Known::of(event);
            let reply = ask("whole_format", &[program::request(&known, None, None)]).remove(0);
            let hooks = program::triggered_hooks(&program::read(&reply).expect("a reply"), &[], &known.event);
            let of_file = matches!(lower_file(path, &known).triggered, Triggered::Yes);
            assert_eq!(!hooks.is_empty(), of_file, "{kind:?} {branch:?} {tag:?}");
        }
    }
}
