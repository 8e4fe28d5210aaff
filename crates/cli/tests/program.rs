//! Pipelines that are Rust programs, as users have them: real repositories, the real cargo, the real SDK.
//!
//! The scratch repositories lie at fixed places in cargo's folder for tests and keep their target folders, so that only
//! the first run compiles the SDK. What a repository keeps of builds is made anew each time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

    /// Runs, and asserts the exit code. Both streams as text.
    #[track_caller]
    fn check(&self, arguments: &[&str], code: i32) -> String {
        let name = self.root.file_name().expect("a name").to_string_lossy();
        let output = Command::new(env!("CARGO_BIN_EXE_ropewalk"))
            .args(arguments)
            .current_dir(&self.root)
            .env("ROPEWALK_DATA", data(&name))
            .env("ROPEWALK_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("program-cache"))
            .env("NO_COLOR", "1")
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .output()
            .expect("ropewalk starts");
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
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("program-data").join(name)
}

const FUNCTIONS: &str = r#"---
[dependencies]
ropewalk = "*"
---
use ropewalk::hook::{command, on, push};
use ropewalk::{Ci, Data};

#[derive(Clone, Data)]
struct Plan {
    shards: Vec<String>,
}

fn main() {
    Ci::main([on(push()).run(pipeline), on(command("release")).run(release)])
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
    repository.write(".ropewalk/pipeline.rs", "---\nfn main() {}\n");
    repository.prints(&["plan"], 2, &["error: .ropewalk/pipeline.rs:1: nothing closes the frontmatter"]);
    // A panic is told as what is wrong with the pipeline.
    let panics = "use ropewalk::Ci;\n\nfn main() {\n    Ci::main(|_: &Ci| -> () { panic!(\"no such shard\") })\n}\n";
    repository.write(".ropewalk/pipeline.rs", panics);
    repository.prints(&["plan"], 2, &["no such shard", ".ropewalk/pipeline.rs:4:31"]);
}

fn evaluations_that_are_not_pure_are_told(repository: &Repository) {
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
    let versions = "error[diverged]: job `first` had begun, and a later evaluation changes it";
    let before_and_after = "  env.COUNT\n    - \"1\"\n    + \"2\"\n";
    repository.prints(&["run"], 1, &[versions, before_and_after, "diverged"]);
    repository.prints(&["show"], 0, &[versions, before_and_after]);
    let silent = "fn main() {\n    std::process::exit(7)\n}\n";
    repository.write(".ropewalk/pipeline.rs", silent);
    repository.prints(&["plan"], 2, &["the pipeline's program ended while it was evaluated (exit code 7)"]);
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
    // A test that fails ends the build before any job starts, also when only the test changed.
    let program = repository.read(".ropewalk/src/main.rs");
    repository.write(".ropewalk/tests/other.rs", "#[test]\nfn arithmetic() {\n    assert_eq!(1 + 1, 3);\n}\n");
    let text = repository.prints(&["run"], 2, &["assertion", "do not pass; nothing was run"]);
    assert!(!text.contains("make | made"), "{text}");
    repository.prints(&["test", "arithmetic"], 1, &["arithmetic ... FAILED"]);
    repository.write(".ropewalk/tests/other.rs", "#[test]\nfn arithmetic() {\n    assert_eq!(1 + 1, 2);\n}\n");
    repository.prints(&["run"], 0, &["make | made\n", "build 2 passed"]);
    // Places are those of the package's file.
    repository.write(".ropewalk/src/main.rs", &program.replace(".run(", ".needs(\"nobody\").run("));
    repository.prints(&["check"], 2, &["--> .ropewalk/src/main.rs:"]);
}

#[test]
fn what_is_no_program_has_no_tests() {
    let repository = Repository::new("none");
    repository.prints(&["test"], 2, &["only pipelines that are Rust programs have tests"]);
}
