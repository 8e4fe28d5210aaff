//! Pipelines that are Rust programs, as users have them: real repositories, the real cargo, the real SDK.
//!
//! The scratch repositories lie at fixed places in cargo's folder for tests and keep their target folders, so that only
//! the first run compiles the SDK. What a repository keeps of builds is made anew each time.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

#[path = "program/begun.rs"]
mod begun;
#[path = "program/made.rs"]
mod made;

/// A repository with a place in the cache.
struct Repository {
    root: PathBuf,
}

impl Repository {
    /// A fresh repository of this name with one committed file.
    fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("program").join(name);
        let _ = fs::remove_dir_all(&root);
        let _ = fs::remove_dir_all(data(name));
        fs::create_dir_all(&root).expect("a folder");
        let repository = Self { root };
        repository.write("file.txt", "committed\n");
        for arguments in [
            &["init", "-q", "-b", "main"][..],
            &["add", "-A"],
            &["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "first"],
        ] {
            let status = Command::new("git").args(arguments).current_dir(&repository.root).status().expect("git");
            assert!(status.success(), "git {arguments:?}");
        }
        repository
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.root.join(name)).expect("a file")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let name = self.root.file_name().expect("a name").to_string_lossy();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ropewalk"));
        command.args(arguments).current_dir(&self.root).env("ROPEWALK_DATA", data(&name));
        command.env("ROPEWALK_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("program-cache"));
        command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "0").stdin(Stdio::null());
        command
    }

    /// Runs, and asserts the exit code. Both streams as text.
    #[track_caller]
    fn check(&self, arguments: &[&str], code: i32) -> String {
        let output = self.command(arguments).output().expect("ropewalk starts");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "ropewalk {arguments:?} printed:\n{text}");
        text
    }

    /// As [`Repository::check`], and asserts that every part is printed.
    #[track_caller]
    fn prints(&self, arguments: &[&str], code: i32, parts: &[&str]) -> String {
        let text = self.check(arguments, code);
        for part in parts {
            assert!(text.contains(part), "ropewalk {arguments:?} did not print `{part}`:\n{text}");
        }
        text
    }

    /// The first error of `check` with these arguments as JSON says it, and asserts that SARIF says the same.
    #[track_caller]
    fn first_error(&self, arguments: &[&str], code: i32) -> Value {
        let report = |form: &str| -> Value {
            let arguments = [&["check"], arguments, &["--format", form]].concat();
            let output = self.command(&arguments).output().expect("ropewalk starts");
            let (stdout, stderr) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
            assert_eq!(output.status.code(), Some(code), "ropewalk {arguments:?} said:\n{stderr}");
            serde_json::from_slice(stdout).unwrap_or_else(|error| panic!("ropewalk {arguments:?}: {error}:\n{stderr}"))
        };
        let (json, sarif) = (report("json")["diagnostics"][0].take(), report("sarif")["runs"][0]["results"][0].take());
        assert_eq!((&json["severity"], &json["code"]), (&sarif["level"], &sarif["ruleId"]));
        assert_eq!((json["severity"].as_str(), &json["message"]), (Some("error"), &sarif["message"]["text"]));
        json
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("program-data").join(name)
}

const FUNCTIONS: &str = r#"---
[dependencies]
ropewalk = "*"
---
use ropewalk::hook::{command, on, push, tag};
use ropewalk::{Ci, Data};

#[derive(Clone, Data)]
struct Plan {
    shards: Vec<String>,
}

fn main() {
    Ci::main([on(push()).run(pipeline), on(command("release")).or(tag("v.*")).run(release)])
}

fn pipeline(ci: &Ci) {
    let plan = ci.job("plan").run_fn(|cx, ()| {
        cx.sh("test -f file.txt")?;
        Ok(Plan { shards: vec!["a".into(), "b".into()] })
    });
    ci.then(&plan, |ci, plan: Plan| {
        for shard in plan.shards {
            ci.job(format!("test/{shard}")).run(format!("echo testing {shard}"));
        }
    });
}

fn release(ci: &Ci) {
    ci.job("tag").run("echo tagged");
}
"#;

#[test]
fn a_file_is_a_pipeline() {
    let repository = Repository::new("file");
    repository.write(".ropewalk/pipeline.rs", FUNCTIONS);
    // Functions run as jobs, and the graph grows with what they return.
    repository.prints(&["plan"], 0, &["plan\n", "grows after plan"]);
    repository.prints(&["run"], 0, &["test/a | testing a\n", "test/b | testing b\n"]);
    repository.prints(&["plan", "--given", "plan=failed"], 0, &["└─ plan"]);
    repository.prints(&["check", "--twice"], 0, &["nothing is wrong", "byte for byte the same"]);
    // Commands are asked for by name.
    repository.prints(&["run", "--command", "release"], 0, &["tag | tagged\n"]);
    repository.prints(&["plan", "--tag", "v1"], 0, &["└─ tag"]);
    repository.prints(&["run", "--command", "relase"], 2, &["the command `relase` fits none of: release"]);
    // Config files stand beside it.
    repository.write(".ropewalk/pipeline.yaml", "on: push\njobs:\n  lint: { run: echo linted }\n");
    repository.prints(&["run"], 0, &["lint | linted\n", "test/b | testing b\n"]);
    repository.prints(&["retry", "last"], 0, &["lint | linted\n", "test/b | testing b\n"]);
    fs::remove_file(repository.root.join(".ropewalk/pipeline.yaml")).expect("it is there");

    faults_point_into_the_program(&repository);
    evaluations_that_are_not_pure_are_told(&repository);
    only_what_is_unchanged_is_skipped(&repository);
}

fn faults_point_into_the_program(repository: &Repository) {
    let wrong = "---\n[dependencies]\n---\nuse ropewalk::Ci;\n\nfn main() {\n    Ci::main(|ci: &Ci| {\n        ci.job(\"a\").needs(\"b\").run(\"true\");\n    })\n}\n";
    repository.write(".ropewalk/pipeline.rs", wrong);
    let shown = ".ropewalk/pipeline.rs:8:21\n  |\n8 |         ci.job(\"a\").needs(\"b\").run(\"true\");";
    repository.prints(&["check"], 2, &["error[unknown-need]: job `a` needs `b`", shown]);
    repository.prints(&["run"], 2, &["error[unknown-need]", "nothing was run"]);
    // The compiler's words are all there is.
    repository.write(".ropewalk/pipeline.rs", &wrong.replace("needs", "nedes"));
    for command in ["check", "plan", "run"] {
        let text = repository.prints(&[command], 2, &["no method named `nedes`", " --> .ropewalk/pipeline.rs:8:21"]);
        assert!(text.starts_with("error[E0599]"), "{text}");
        assert!(text.trim_end().ends_with("due to 1 previous error"), "{text}");
    }
    let error = repository.first_error(&[], 2);
    assert_eq!(
        (error["code"].as_str(), error["file"].as_str()),
        (Some("program-not-built"), Some(".ropewalk/pipeline.rs"))
    );
    assert_eq!((error["line"].as_u64(), error["column"].as_u64()), (Some(8), Some(21)), "{error}");
    assert!(error["message"].as_str().is_some_and(|text| text.starts_with("no method named `nedes`")), "{error}");
    repository.write(".ropewalk/pipeline.rs", "---\nfn main() {}\n");
    repository.prints(&["plan"], 2, &["error: .ropewalk/pipeline.rs:1: nothing closes the frontmatter"]);
    // A panic is told as what is wrong with the pipeline.
    // What cargo says of the frontmatter is said of the file, on its lines.
    repository.write(
        ".ropewalk/pipeline.rs",
        "#!/usr/bin/env ropewalk\n\n---\n[dependencies]\nropewalk = \"*\n---\nfn main() {}\n",
    );
    let said = repository.prints(&["check"], 2, &[".ropewalk/pipeline.rs:5:14"]);
    assert!(!said.contains("package/Cargo.toml"), "{said}");
    repository
        .write(".ropewalk/pipeline.rs", "---\n[dependencies]\nno-such = { path = \"nowhere\" }\n---\nfn main() {}\n");
    let said = repository.prints(&["check"], 2, &["no-such"]);
    assert!(!said.contains("package/Cargo.toml"), "{said}");
    // Without a network the same is said of a crate that nobody has.
    repository
        .write(".ropewalk/pipeline.rs", "---\n[dependencies]\nno-such-crate-of-anybody = \"1\"\n---\nfn main() {}\n");
    let output = repository.command(&["check"]).env("CARGO_NET_OFFLINE", "true").output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let package = "required by package `pipeline v0.0.0 (.ropewalk/pipeline.rs)`";
    assert!(said.contains("no-such-crate-of-anybody") && said.contains(package) && said.contains("offline"), "{said}");
    let panics = "use ropewalk::Ci;\n\nfn main() {\n    Ci::main(|_: &Ci| -> () { panic!(\"no such shard\") })\n}\n";
    repository.write(".ropewalk/pipeline.rs", panics);
    repository.prints(&["plan"], 2, &["no such shard", ".ropewalk/pipeline.rs:4:31"]);
}

fn evaluations_that_are_not_pure_are_told(repository: &Repository) {
    let shuffled = "use ropewalk::Ci;

fn main() {
    Ci::main(|ci: &Ci| {
        let variables = std::env::vars_os().count();
        ci.job(\"a-first-job-of-which-all-know\").run(format!(\"test {variables} = 0\"));
        for name in std::collections::HashSet::from([1, 2, 3, 4, 5, 6, 7, 8, 9]) {
            ci.job(format!(\"job-{name}\")).run(\"true\");
        }
    })
}
";
    repository.write(".ropewalk/pipeline.rs", shuffled);
    let differs =
        ["the program says something else, the same in another order", "before: …", "nor on the order of a `HashMap`"];
    repository.prints(&["check", "--twice"], 2, &differs);
    // Where nothing runs behind walls the program is asked without an environment, too.
    repository.prints(&["run"], 0, &["passed"]);
    let counting = "use ropewalk::Ci;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

static COUNT: AtomicU32 = AtomicU32::new(0);

fn main() {
    Ci::main(|ci: &Ci| {
        let count = COUNT.fetch_add(1, SeqCst);
        let first = ci.job(\"first\").env(\"COUNT\", count.to_string()).run(\"true\");
        ci.after(&first, |ci, _| drop(ci.job(\"second\").run(\"true\")));
    })
}
";
    repository.write(".ropewalk/pipeline.rs", counting);
    let differs = "the program says something else in job `first`, key `env.COUNT`";
    repository.prints(&["check", "--twice"], 2, &[differs]);
    let error = repository.first_error(&["--twice"], 2);
    assert_eq!(error["code"], "program-differs", "{error}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains(differs)), "{error}");
    let versions = "error[diverged]: job `first` had begun, and a later evaluation changes it";
    let before_and_after = "  env.COUNT\n    - \"0\"\n    + \"1\"\n";
    // With the line that adds it, in both.
    let place = "--> .ropewalk/pipeline.rs:9:24";
    let line = "both versions are added here";
    repository.prints(&["run"], 1, &[versions, place, line, before_and_after, "diverged"]);
    repository.prints(&["show"], 0, &[versions, place, before_and_after]);
    let moving = counting
        .replace(
            "let first = ci.job(",
            "let first = if count > 0 { ci.job(\"first\").env(\"COUNT\", \"late\") } else { ci.job(",
        )
        .replace(".run(\"true\");\n        ci.after", "}\n            .run(\"true\");\n        ci.after");
    repository.write(".ropewalk/pipeline.rs", &moving);
    let lines = ["the later version is added here", "the version that began was added here"];
    repository.prints(&["run"], 1, &[versions, lines[0], lines[1]]);
    let silent = "fn main() {\n    std::process::exit(7)\n}\n";
    repository.write(".ropewalk/pipeline.rs", silent);
    // What is wrong is told once, not once more for the second evaluation.
    let said = repository.prints(&["check", "--twice"], 2, &["exit code 7"]);
    assert_eq!(said.matches("exit code 7").count(), 1, "{said}");
    let place = "--> .ropewalk/pipeline.rs:1:1";
    repository.prints(&["plan"], 2, &["ended without an answer: exit code 7: nothing in it may end it", place]);
    // Each with what happened, where, and what to do.
    for (program, said) in [
        ("fn main() {}\n", "its `main` came to its end; it has to call `ropewalk::Ci::main`"),
        (
            "fn main() {\n    println!(\"hello\");\n}\n",
            "it begins with `hello`): its `main` has to call `ropewalk::Ci::main`",
        ),
        ("fn main() {\n    panic!(\"no\")\n}\n", "it panicked outside of the pipeline's function"),
        (
            "fn deep(n: u64) -> u64 {\n    if n == u64::MAX { 0 } else { 1 + deep(n + 1) }\n}\n\nfn main() {\n    \
             ropewalk::Ci::main(|ci: &ropewalk::Ci| drop(ci.job(\"a\").run(deep(0).to_string())))\n}\n",
            "its stack is full: look for a function that calls itself without end",
        ),
        (
            "fn main() {\n    ropewalk::Ci::main(|ci: &ropewalk::Ci| {\n        let now = std::time::SystemTime::now();\n        \
             ci.job(\"a\").run(format!(\"echo {now:?}\"));\n    })\n}\n",
            if cfg!(target_arch = "x86_64") { "it read the clock, which evaluations do not have" } else { "" },
        ),
    ] {
        repository.write(".ropewalk/pipeline.rs", program);
        if !said.is_empty() {
            repository.prints(&["plan"], 2, &["error[program-failed]", said, "the program begins here"]);
        }
    }
}

fn only_what_is_unchanged_is_skipped(repository: &Repository) {
    let reusable = |script: &str| {
        format!(
            "use ropewalk::Ci;\n\nfn main() {{\n    Ci::main(|ci: &Ci| {{\n        \
             ci.job(\"a\").input_files([\"file.txt\"]).reuse(ropewalk::Reuse::Always).run(\"{script}\");\n    }})\n}}\n"
        )
    };
    repository.write(".ropewalk/pipeline.rs", &reusable("echo one"));
    repository.prints(&["run"], 0, &["a | one\n"]);
    repository.prints(&["run"], 0, &["cached"]);
    repository.write(".ropewalk/pipeline.rs", &reusable("echo two"));
    repository.prints(&["run"], 0, &["a | two\n"]);
}

#[test]
fn a_package_is_tested_before_it_runs() {
    let repository = Repository::new("package");
    repository.write("Makefile", "test:\n\t@echo made\n");
    let status = Command::new("git").args(["add", "-A"]).current_dir(&repository.root).status().expect("git");
    assert!(status.success());
    repository.prints(&["init", "--rust"], 0, &["wrote a package"]);
    repository.prints(&["init", "--rust"], 2, &[".ropewalk/Cargo.toml is there already"]);
    assert!(repository.read(".ropewalk/.gitignore").contains("/.sdk\n"));
    // It passes at once.
    repository.prints(&["test"], 0, &["a_push_runs_every_job ... ok"]);
    repository.prints(&["run"], 0, &["make | made\n", "build 1 passed"]);
    let link = fs::read_link(repository.root.join(".ropewalk/.sdk")).expect("the link is laid");
    assert!(link.join("ropewalk/src/lib.rs").is_file());
    // Only the package is the program; a file beside it is told, unless the manifest names it.
    repository.write(".ropewalk/pipeline.rs", "fn main() {}\n");
    let unread = "nothing reads .ropewalk/pipeline.rs: .ropewalk/Cargo.toml is there too";
    repository.prints(&["check"], 0, &[unread, "or remove .ropewalk/Cargo.toml", "1 warning"]);
    repository.prints(&["plan"], 0, &[unread, "make"]);
    fs::remove_file(repository.root.join(".ropewalk/pipeline.rs")).expect("it is there");
    assert!(!repository.check(&["plan"], 0).contains("nothing reads"));
    // A test that fails ends the build before any job starts, also when only the test changed.
    let program = repository.read(".ropewalk/src/main.rs");
    repository.write(".ropewalk/tests/other.rs", "#[test]\nfn arithmetic() {\n    assert_eq!(1 + 1, 3);\n}\n");
    let hint = "`ropewalk show 2` shows what they said, `ropewalk test` runs them again";
    let text = repository.prints(&["run"], 2, &["assertion", "do not pass; nothing was run", hint]);
    assert!(!text.contains("make | made"), "{text}");
    // It leaves a build that says why.
    repository.prints(&["builds"], 0, &["2", "failed", "the pipeline's tests do not pass: ropewalk test"]);
    let kept = ["the tests of .ropewalk/Cargo.toml do not pass", "tests/other.rs:3:5", "left: 2"];
    repository.prints(&["show", "2"], 0, &kept);
    repository.prints(&["test", "arithmetic"], 1, &["arithmetic ... FAILED"]);
    // So does one that gives a result to nobody.
    let given = program.replace("push(\"main\")", "push(\"main\").given(\"mkae\", failed(1))");
    assert_ne!(given, program);
    repository.write(".ropewalk/src/main.rs", &given);
    let told = "gives a result to `mkae`, but for this event the pipeline has no such job: did you mean `make`?";
    repository.prints(&["test", "a_push_runs_every_job"], 1, &[told, "the pipeline has:\n  make"]);
    repository.write(".ropewalk/src/main.rs", &program);
    repository.write(".ropewalk/tests/other.rs", "#[test]\nfn arithmetic() {\n    assert_eq!(1 + 1, 2);\n}\n");
    repository.prints(&["run"], 0, &["make | made\n", "build 3 passed"]);
    // What passed before passes again without being run, also after other sources have passed.
    let ran = tempfile::NamedTempFile::new().expect("a file");
    let count = format!("std::fs::OpenOptions::new().append(true).open({:?})", ran.path());
    for sum in [1, 2, 1, 2] {
        let text = format!(
            "#[test]\nfn arithmetic() {{\n    use std::io::Write;\n    writeln!({count}.unwrap(), \"{sum}\").unwrap();\n}}\n"
        );
        repository.write(".ropewalk/tests/other.rs", &text);
        repository.prints(&["run"], 0, &["make | made\n"]);
    }
    assert_eq!(fs::read_to_string(ran.path()).expect("a file"), "1\n2\n");
    // Places are those of the package's file.
    repository.write(".ropewalk/src/main.rs", &program.replace(".run(", ".needs(\"nobody\").run("));
    repository.prints(&["check"], 2, &["--> .ropewalk/src/main.rs:"]);
}

/// The SDK as it is published: packed by cargo, and laid out as `cargo vendor` does, so that it is found without a registry.
fn vendored_sdk(folder: &Path) {
    let packed = Path::new(env!("CARGO_TARGET_TMPDIR")).join("program").join("packed");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let arguments = ["package", "-p", "ropewalk-derive", "-p", "ropewalk", "--no-verify", "--allow-dirty", "--offline"];
    let mut cargo = Command::new("cargo");
    cargo.args(arguments).args(["--exclude-lockfile", "--quiet", "--target-dir"]).arg(&packed).current_dir(workspace);
    assert!(cargo.status().expect("cargo starts").success());
    fs::create_dir_all(folder).expect("a folder");
    for name in ["ropewalk-derive", "ropewalk"] {
        let package = format!("{name}-{}", env!("CARGO_PKG_VERSION"));
        let archive = packed.join("package").join(format!("{package}.crate"));
        let status = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder).status().expect("tar starts");
        assert!(status.success());
        fs::write(folder.join(package).join(".cargo-checksum.json"), r#"{"files":{}}"#).expect("a file");
    }
}

#[test]
fn a_published_version_of_the_sdk_can_be_named_and_vendored() {
    let repository = Repository::new("published");
    vendored_sdk(&repository.root.join(".ropewalk/vendor"));
    let version = env!("CARGO_PKG_VERSION");
    let manifest = format!(
        "[package]\nname = \"pipeline\"\nedition = \"2024\"\n\n[dependencies]\nropewalk = \"{version}\"\n\n[workspace]\n"
    );
    repository.write(".ropewalk/Cargo.toml", &manifest);
    let config = "[source.crates-io]\nreplace-with = \"vendored\"\n\n[source.vendored]\ndirectory = \"vendor\"\n\n[net]\noffline = true\n";
    repository.write(".ropewalk/.cargo/config.toml", config);
    let program = FUNCTIONS.split_once("---\nuse ").expect("a frontmatter").1;
    repository.write(".ropewalk/src/main.rs", &format!("use {program}"));
    repository.prints(&["run"], 0, &["test/a | testing a\n", "test/b | testing b\n"]);
    let lock = repository.read(".ropewalk/Cargo.lock");
    assert!(lock.contains("registry+"), "the SDK is the published one:\n{lock}");
    assert!(fs::symlink_metadata(repository.root.join(".ropewalk/.sdk")).is_err(), "nothing is laid beside it");
    // What is locked stays as it is, and is enough.
    repository.prints(&["run"], 0, &["build 2 passed"]);
    assert_eq!(repository.read(".ropewalk/Cargo.lock"), lock);
}

const OF_SERDE: &str = r#"use std::collections::BTreeMap;

use ropewalk::{Ci, Data, Serde};
use serde::{Deserialize, Serialize};

/// A type that knows serde and nothing of Ropewalk.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Release {
    largest_size: u64,
    by_target: BTreeMap<String, Option<Kind>>,
}

#[derive(Clone, Serialize, Deserialize)]
enum Kind {
    Static,
    Dynamic { libraries: Vec<String> },
}

#[derive(Data)]
struct Packed {
    count: u32,
    release: Serde<Release>,
}

fn main() {
    Ci::main(ci)
}

fn ci(ci: &Ci) {
    let pack = ci.job("pack").run_fn(|_, ()| {
        let by_target = BTreeMap::from([
            ("gnu".to_owned(), Some(Kind::Dynamic { libraries: vec!["c".to_owned()] })),
            ("musl".to_owned(), Some(Kind::Static)),
            ("none".to_owned(), None),
        ]);
        Ok(Packed { count: 3, release: Serde(Release { largest_size: u64::MAX, by_target }) })
    });
    ci.job("show").inputs(&pack).run_fn(|_, packed: Packed| {
        println!("{} of at most {} bytes", packed.count, packed.release.largest_size);
        Ok(())
    });
    ci.then(&pack, |ci, packed: Packed| {
        for (target, kind) in packed.release.0.by_target {
            let libraries = match kind {
                Some(Kind::Dynamic { libraries }) => libraries.join(","),
                Some(Kind::Static) => "static".to_owned(),
                None => "nothing".to_owned(),
            };
            ci.job(format!("ship/{target}")).run(format!("echo {target} with {libraries}"));
        }
    });
    ci.job("ratio").allow_failure().run_fn(|_, ()| Ok(Serde(vec![1.0, f64::NAN])));
}
"#;

/// The binary that was built last, and what it says to a push with these answers.
fn evaluated(repository: &Repository) -> (PathBuf, serde_json::Value) {
    let name = repository.root.file_name().expect("a name").to_string_lossy();
    let mut projects = fs::read_dir(data(&name)).expect("projects are kept").flatten();
    let project = projects.find(|entry| entry.path().join("programs").is_dir()).expect("a program was built").path();
    let binaries = fs::read_dir(project.join("programs")).expect("programs are kept").flatten();
    let binaries = binaries.filter(|entry| !entry.file_name().to_string_lossy().starts_with("recipe-"));
    let newest =
        binaries.max_by_key(|entry| entry.metadata().and_then(|metadata| metadata.modified()).expect("a time"));
    let binary = newest.expect("a binary").path();
    let mut command = Command::new(&binary);
    let mut child = command.arg("evaluate").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let request = r#"{"protocol":1,"event":{"kind":"push"},"answers":[],"hooks":[0]}"#;
    writeln!(child.stdin.take().expect("a pipe"), "{request}").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    (binary, serde_json::from_slice(&output.stdout).expect("a reply"))
}

#[test]
fn types_that_know_serde_cross_between_jobs() {
    let repository = Repository::new("serde");
    let frontmatter = "---\n[dependencies]\nropewalk = { version = \"*\", features = [\"serde\"] }\n\
                       serde = { version = \"1\", features = [\"derive\"] }\n---\n";
    let parts = [
        "show | 3 of at most 18446744073709551615 bytes\n",
        "ship/gnu | gnu with c\n",
        "ship/musl | musl with static\n",
        "ship/none | none with nothing\n",
        "ratio | the value that the function returned cannot be handed on: [1] is NaN, which no JSON number is",
    ];
    repository.write(".ropewalk/pipeline.rs", &format!("{frontmatter}{OF_SERDE}"));
    repository.prints(&["run"], 0, &parts);
    let (_, before) = evaluated(&repository);
    let payload = &before["document"]["jobs"]["show"]["run"][0];
    assert!(payload["function"].is_object(), "{before}");

    // A package has it in the same way, with the SDK that is laid beside it.
    fs::remove_file(repository.root.join(".ropewalk/pipeline.rs")).expect("it is there");
    let manifest = |features: &str| {
        format!(
            "[package]\nname = \"pipeline\"\nedition = \"2024\"\n\n[dependencies]\n\
             ropewalk = {{ path = \".sdk/ropewalk\"{features} }}\n[workspace]\n"
        )
    };
    let of_serde = manifest(", features = [\"serde\"]")
        .replace("[workspace]", "serde = { version = \"1\", features = [\"derive\"] }\n[workspace]");
    repository.write(".ropewalk/Cargo.toml", &of_serde);
    repository.write(".ropewalk/src/main.rs", OF_SERDE);
    repository.prints(&["run"], 0, &parts);

    // A worker with another build of the program refuses what it would misread.
    repository.write(
        ".ropewalk/src/main.rs",
        &OF_SERDE
            .replace("libraries: Vec<String>", "libraries: Vec<char>")
            .replace("libraries.join(\",\")", "libraries.into_iter().collect()")
            .replace("\"c\".to_owned()", "'c'"),
    );
    repository.prints(&["plan"], 0, &["show"]);
    let (other, after) = evaluated(&repository);
    assert_ne!(&after["document"]["jobs"]["show"]["run"][0], payload);
    let step = repository.root.join("step.json");
    fs::write(&step, payload.to_string()).expect("a file");
    fs::write(repository.root.join("context.json"), r#"{"event":{"kind":"push"},"needs":{}}"#).expect("a file");
    let mut call = Command::new(other);
    call.args(["run", "show"]).current_dir(&repository.root).env("ROPEWALK_STEP", &step);
    let output = call.env("ROPEWALK_CONTEXT", repository.root.join("context.json")).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{said}");
    assert!(said.contains("the input of `show` from `pack` has another type"), "{said}");

    // Who does not ask for it has nothing of it, not even in the lock.
    repository.write(".ropewalk/Cargo.toml", &manifest(""));
    repository.write(
        ".ropewalk/src/main.rs",
        "fn main() {\n    ropewalk::Ci::main(|ci: &ropewalk::Ci| drop(ci.job(\"a\").run(\"true\")))\n}\n",
    );
    repository.prints(&["run"], 0, &["passed"]);
    let lock = repository.read(".ropewalk/Cargo.lock");
    assert!(!lock.contains("serde"), "{lock}");
}

/// Tests may write into the package: what holds the same afterwards is no change.
#[test]
fn tests_that_write_what_was_there_are_remembered() {
    let repository = Repository::new("writes");
    let manifest = "[package]\nname = \"pipeline\"\nedition = \"2024\"\n\n[dependencies]\nropewalk = { path = \".sdk/ropewalk\" }\n\n[workspace]\n";
    repository.write(".ropewalk/Cargo.toml", manifest);
    let program = "use ropewalk::Ci;\n\nfn main() {\n    Ci::main(|ci: &Ci| {\n        ci.job(\"a\").run(\"echo a\");\n    })\n}\n\n\
                   #[test]\nfn the_table_is_written() {\n    use std::io::Write;\n    \
                   let mut runs = std::fs::OpenOptions::new().append(true).create(true).open(\"../runs\").unwrap();\n    \
                   runs.write_all(b\"x\").unwrap();\n    std::fs::create_dir_all(\"golden\").unwrap();\n    \
                   std::fs::write(\"golden/table.txt\", \"a\").unwrap();\n}\n";
    repository.write(".ropewalk/src/main.rs", program);
    // The first run makes a file that was not there, and says so.
    let note = "changed while the tests of .ropewalk/Cargo.toml ran, so they run again next time";
    repository.prints(&["run"], 0, &["note: .ropewalk", note]);
    assert!(!repository.check(&["run"], 0).contains(note));
    assert_eq!(repository.read("runs"), "xx");
    repository.check(&["run"], 0);
    assert_eq!(repository.read("runs"), "xx", "nothing has changed since the tests passed");
    repository.write(".ropewalk/golden/table.txt", "b");
    repository.check(&["run"], 0);
    assert_eq!(repository.read("runs"), "xxx", "the file that they write is also one that they could read");
    watched(&repository);
}

/// `test --watch` runs again for what a person writes, and waits in spite of what the tests write.
fn watched(repository: &Repository) {
    let mut watch = repository.command(&["test", "--watch"]);
    let mut watch = watch.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("ropewalk starts");
    let mut said = BufReader::new(watch.stderr.take().expect("it is piped")).lines();
    let mut until = |wanted: &str| {
        let lines = said.by_ref().map(|line| line.expect("it is text"));
        assert!(lines.into_iter().any(|line| line == wanted), "`{wanted}` is never said");
    };
    until("passed; waiting for a change (Ctrl-C ends)");
    let runs = repository.read("runs");
    let program = repository.read(".ropewalk/src/main.rs");
    repository.write(".ropewalk/src/main.rs", &program.replace("unwrap();\n}\n", "unwrap();\n    panic!();\n}\n"));
    until("failed; waiting for a change (Ctrl-C ends)");
    repository.write(".ropewalk/src/main.rs", &program);
    until("passed; waiting for a change (Ctrl-C ends)");
    assert_eq!(repository.read("runs"), format!("{runs}xx"), "once for each change");
    watch.kill().expect("it runs");
    watch.wait().expect("it ends");
}

/// What a program is made of, beside the files that are there: variables that it reads, files that appear.
#[test]
fn what_a_program_reads_is_part_of_it() {
    let repository = Repository::new("reads");
    let program = "use ropewalk::Ci;\n\nfn main() {\n    Ci::main(|ci: &Ci| {\n        \
                   let channel = option_env!(\"ROPEWALK_TEST_CHANNEL\").unwrap_or(\"none\");\n        \
                   ci.job(\"a\").run(format!(\"echo {channel} {}\", include_str!(\"../word.txt\").trim()));\n    })\n}\n";
    let manifest = "[package]\nname = \"pipeline\"\nedition = \"2024\"\n\n[dependencies]\nropewalk = { path = \".sdk/ropewalk\" }\n\n[workspace]\n";
    repository.write(".ropewalk/Cargo.toml", manifest);
    repository.write(".ropewalk/src/main.rs", program);
    repository.write(".ropewalk/word.txt", "first");
    let script = |variable: Option<&str>, wanted: &str| {
        let mut command = repository.command(&["plan", "--output", "json"]);
        if let Some(value) = variable {
            command.env("ROPEWALK_TEST_CHANNEL", value);
        }
        let output = command.output().expect("ropewalk starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(wanted), "no `{wanted}` in {text}\n{}", String::from_utf8_lossy(&output.stderr));
    };
    // Twice: the second time nothing is so fresh that no stamp is kept.
    script(None, "echo none first");
    script(None, "echo none first");
    script(Some("beta"), "echo beta first");
    script(Some("beta"), "echo beta first");
    script(None, "echo none first");
    repository.write(".ropewalk/word.txt", "second");
    script(None, "echo none second");
    script(None, "echo none second");
    // A build script is a new file, of which nothing knew.
    repository.write(
        ".ropewalk/build.rs",
        "fn main() {\n    println!(\"cargo::rustc-env=ROPEWALK_TEST_CHANNEL=built\");\n}\n",
    );
    script(None, "echo built second");
}

#[test]
fn a_child_runs_the_program_that_its_parent_has_built() {
    let repository = Repository::new("parent");
    let program = r#"use ropewalk::hook::{command, on, push};
use ropewalk::{Child, Ci};

fn main() {
    Ci::main([on(push()).run(parent), on(command("child")).run(child)])
}

fn parent(ci: &Ci) {
    ci.build("below", Child::command("child"));
}

fn child(ci: &Ci) {
    ci.job("inner").run("echo inside");
}
"#;
    repository.write(".ropewalk/pipeline.rs", program);
    // Twice: the second time nothing is so fresh that nothing is kept.
    repository.prints(&["plan"], 0, &["below"]);
    repository.prints(&["plan"], 0, &["below"]);
    repository.prints(&["run"], 0, &["inside"]);
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("program-cache/programs");
    let of_project = fs::read_dir(cache).expect("the cache").flatten();
    let folders = of_project.filter(|entry| entry.file_name().to_string_lossy().starts_with("parent-")).count();
    assert_eq!(folders, 1, "the child had cargo build the program again");
}

#[test]
fn what_waits_for_a_matrix_grows_when_all_its_legs_have_ended() {
    let repository = Repository::new("matrix");
    let program = r#"use ropewalk::{Ci, Matrix};

fn main() {
    Ci::main(|ci: &Ci| {
        let test = ci.job("test").matrix(Matrix::new().axis("os", ["a", "b"])).run("echo on ${{ matrix.os }}");
        let grown = ci.after(&test, |ci, _| ci.job("report").run("echo reported"));
        ci.job("last").needs(&grown).run("echo at last");
        ci.job("other").run("echo another");
    })
}
"#;
    repository.write(".ropewalk/pipeline.rs", program);
    repository.prints(&["plan"], 0, &["test/a", "test/b", "grows after"]);
    let all = ["test/a | on a\n", "test/b | on b\n", "report | reported\n", "last | at last\n"];
    repository.prints(&["run"], 0, &all);
    let text = repository.prints(&["run", "--job", "last"], 0, &all);
    assert!(!text.contains("another"), "{text}");
    repository.prints(&["run", "--job", "then:test"], 2, &["`then:test` is where a program's jobs grow, and no job"]);
}

#[test]
fn who_takes_values_of_a_closed_growth_is_skipped() {
    let repository = Repository::new("closed");
    let program = r#"use ropewalk::Ci;

fn main() {
    Ci::main(|ci: &Ci| {
        let plan = ci.job("plan").allow_failure().run("exit 1").output::<Vec<String>>("names");
        let grown = ci.then(plan, |ci, names| {
            names.iter().map(|name| ci.job(name).run("true").output::<String>("out")).collect::<Vec<_>>()
        });
        ci.job("takes").inputs(&grown).run_fn(|_, _| Ok(()));
        ci.job("follows").needs(&grown).run("echo followed");
    })
}
"#;
    repository.write(".ropewalk/pipeline.rs", program);
    let text = repository.prints(&["run"], 0, &["follows | followed\n", "takes: skipped"]);
    assert!(!text.contains("takes: failed"), "{text}");
}

/// What people are told of a function that could not be called, by its exit code (see the contract, *Functions*).
#[test]
fn functions_that_cannot_be_called_are_told() {
    let repository = Repository::new("refusing");
    let missing = r#"use ropewalk::Ci;

fn main() {
    // A worker with another build of the program is told so by the program itself.
    if std::env::args().nth(1).as_deref() == Some("run") && std::env::args().nth(2).as_deref() == Some("other") {
        std::process::exit(65);
    }
    Ci::main(|ci: &Ci| {
        let count = ci.job("counts").run("echo count=many >> $ROPEWALK_OUTPUT").output::<u32>("count");
        ci.job("takes").inputs(&count).run_fn(|_, _| Ok(()));
        ci.job("other").run_fn(|_, ()| Ok(()));
        ci.job("rate").run_fn(|_, ()| Ok(vec![1.0, 0.0 / 0.0_f64]));
    })
}
"#;
    repository.write(".ropewalk/pipeline.rs", missing);
    let told = [
        "other: failed: the program has changed since it planned the job",
        "takes: failed: the function's inputs are missing or cannot be read",
        "a build keeps to the program it began with",
        "handed on none, or none of that type",
        "the value that the function returned cannot be handed on: [1] is NaN",
        "rate: failed",
    ];
    repository.prints(&["run"], 1, &told);
}

#[test]
fn what_a_function_said_of_its_failure_reaches_what_comes_after() {
    let repository = Repository::new("words");
    let program = r#"use ropewalk::{Ci, Ended, Failure};

fn main() {
    Ci::main(|ci: &Ci| {
        let check = ci.job("check").allow_failure().run_fn(|_, ()| -> Result<(), Failure> {
            Err(Failure::new("the tag v1 is taken\nby ada"))
        });
        let panics = ci.job("panics").allow_failure().run_fn(|_, ()| if true { panic!("no such shard") } else { Ok(()) });
        let script = ci.job("script").allow_failure().run("exit 3");
        let tell = |ci: &Ci, name: &str, message: String| drop(ci.job(name).env("SAID", message).run("echo \"$SAID\""));
        ci.after(&check, move |ci, ended| if let Ended::Failed { message, .. } = ended { tell(ci, "tell", message) });
        ci.after(&panics, move |ci, ended| if let Ended::Failed { message, .. } = ended { tell(ci, "panic", message) });
        ci.after(&script, move |ci, ended| if let Ended::Failed { message, .. } = ended { tell(ci, "other", message) });
    })
}
"#;
    repository.write(".ropewalk/pipeline.rs", program);
    let said = [
        "tell | the tag v1 is taken\ntell | by ada\n",
        "panic | the function panicked: no such shard\n",
        "other | step 1 ended with exit code 3\n",
    ];
    repository.prints(&["run", "-j1"], 0, &said);
}

const READERS: &str = r#"use ropewalk::Ci;

fn main() {
    Ci::main(|ci: &Ci| {
        ci.job("deaf").input_files(["file.txt"]).run_fn(|cx, ()| cx.sh("echo ran"));
        let branch = ci.event().branch().unwrap_or_default().to_owned();
        ci.job("takes").input_files(["file.txt"]).run_fn(move |cx, ()| cx.sh(format!("echo on {branch}")));
        ci.job("looks").input_files(["file.txt"]).run_fn(|cx, ()| {
            let length = cx.event().commit().len();
            cx.log(format!("at {length}"));
            Ok(())
        });
    })
}
"#;

#[test]
fn what_a_function_reads_of_the_event_counts_for_reuse() {
    let repository = Repository::new("readers");
    repository.write(".ropewalk/pipeline.rs", READERS);
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@localhost"]).args(arguments);
        assert!(command.current_dir(&repository.root).status().expect("git").success(), "git {arguments:?}");
    };
    git(&["add", "-A"]);
    git(&["commit", "-qm", "one"]);
    repository.prints(&["run"], 0, &["deaf | ran\n", "takes | on main\n", "looks | at 40\n"]);
    let note = "a function read of the event while it ran: commit; its result is not kept for reuse";
    repository.prints(&["show", "last", "looks"], 0, &[note]);
    repository.prints(&["run"], 0, &["deaf: cached, from build 1", "takes: cached, from build 1", "looks | at 40\n"]);
    git(&["commit", "-qm", "two", "--allow-empty"]);
    repository.prints(&["run"], 0, &["deaf: cached, from build 1", "takes: cached, from build 1", "looks | at 40\n"]);
    git(&["checkout", "-qb", "next"]);
    repository.prints(&["run"], 0, &["deaf: cached, from build 1", "takes | on next\n", "looks | at 40\n"]);
    repository.prints(&["explain", "takes"], 0, &["event.branch: \"main\" → \"next\""]);
}

#[test]
fn another_pipeline_is_moved_aside() {
    let repository = Repository::new("aside");
    repository.write(".ropewalk/pipeline.yaml", "jobs: { old: { run: echo old } }\n");
    repository.prints(&["init", "--rust"], 2, &["pipeline.yaml is there already"]);
    let moved = "moved .ropewalk/pipeline.yaml to .ropewalk/pipeline.yaml.before, which nothing reads";
    repository.prints(&["init", "--rust", "--force"], 0, &[moved, "wrote a package"]);
    assert!(repository.read(".ropewalk/pipeline.yaml.before").contains("echo old"));
    let moved = "moved .ropewalk/Cargo.toml to .ropewalk/Cargo.toml.before";
    repository.prints(&["init", "--force"], 0, &[moved, "wrote .ropewalk/pipeline.yaml"]);
}

#[test]
fn what_is_no_program_has_no_tests() {
    let repository = Repository::new("none");
    repository.prints(&["test"], 2, &["only pipelines that are Rust programs have tests"]);
}
