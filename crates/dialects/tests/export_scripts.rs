//! The scripts that `ropewalk export` writes, run as GitLab's runner and Buildkite's agent run them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use graph::{Event, EventKind, Known};
use ropewalk_dialects::export::{System, export};
use ropewalk_dialects::native::{self, SourceFile};
use ropewalk_dialects::tree::{Node, NodeValue, Notation, Rules, Sources};

/// A configuration, as a reader of YAML sees it.
fn exported(case: &str, system: System) -> Node {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/export").join(case).join("pipeline.yaml");
    let text = fs::read_to_string(path).expect("the case is there");
    let push = Event { branch: Some("main".to_owned()), ..Event::new(EventKind::Push) };
    let lowered = native::lower_as_written(&[SourceFile::new("pipeline.yaml", text)], &Known::of(push));
    let text = export(&lowered, system);
    let (root, faults) = Sources::new().read("exported", text.as_bytes(), Notation::Yaml, &Rules::NATIVE);
    assert!(faults.is_empty(), "{faults:?}\n{text}");
    root.expect("it is YAML")
}

fn texts(node: Option<&Node>) -> Vec<String> {
    let text = |node: &Node| node.as_str().expect("a text").to_owned();
    match node.map(|node| (&node.value, node)) {
        Some((NodeValue::Sequence(items), _)) => items.iter().map(text).collect(),
        Some((_, node)) => vec![text(node)],
        None => Vec::new(),
    }
}

/// The commands of every job, by its key.
fn scripts(case: &str, system: System) -> BTreeMap<String, Vec<String>> {
    let root = exported(case, system);
    let of_gitlab = |(key, job): (String, &Node)| Some((key, texts(Some(job.get("script")?))));
    let of_buildkite = |step: &Node| {
        let commands = texts(step.get("commands").or(step.get("command")));
        let commands: Vec<String> = commands.into_iter().map(|line| line.replace("$$", "$")).collect();
        (!commands.is_empty()).then(|| (texts(step.get("key")).concat(), commands))
    };
    match system {
        System::Gitlab => {
            let entries = root.entries().expect("a map").iter();
            entries.filter_map(|entry| of_gitlab((entry.name()?.to_owned(), &entry.value))).collect()
        }
        System::Buildkite => match &root.get("steps").expect("steps").value {
            NodeValue::Sequence(steps) => steps.iter().filter_map(of_buildkite).collect(),
            _ => panic!("steps are a list"),
        },
        System::Github => panic!("GitHub runs every step by itself"),
    }
}

/// A folder of this test, empty, with a `buildkite-agent` that keeps meta-data as files beside it.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("export_scripts").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("the folder goes");
    }
    fs::create_dir_all(folder.join("bin")).expect("the folder is made");
    fs::create_dir_all(folder.join("kept")).expect("the folder is made");
    program(
        &folder.join("bin/buildkite-agent"),
        r#"case "$1 $2" in
"meta-data set") printf %s "$4" > "$KEPT/$3" ;;
"meta-data get") cat "$KEPT/$3" 2>/dev/null || { echo "fatal: no $3" >&2; exit 100; } ;;
"step get") cat "$KEPT/outcome-$5" ;;
*) exit 64 ;;
esac
"#,
    );
    folder
}

fn program(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}")).expect("a program is written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it may be run");
}

fn run(shell: &str, arguments: &[&str], folder: &Path, variables: &[(&str, &str)]) -> Output {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(shell);
    command.args(arguments).current_dir(folder).env("KEPT", folder.join("kept"));
    command.env("PATH", format!("{}:{path}", folder.join("bin").display())).env("CI_PROJECT_DIR", folder);
    command.envs(variables.iter().copied()).output().expect("the shell starts")
}

/// As gitlab.com/gitlab-org/gitlab-runner does (shells/bash.go), with the evaluation that keeps exit codes.
fn run_gitlab(shell: &str, lines: &[String], folder: &Path, variables: &[(&str, &str)]) -> Output {
    let script = format!(
        "if set -o | grep pipefail > /dev/null; then set -o pipefail; fi; set -o errexit\n: | (eval {})\nexit 0\n",
        graph::shell::quoted(&lines.join("\n"))
    );
    run(shell, &["-c", &script], folder, variables)
}

/// As the agent does where nobody chose another shell.
fn run_buildkite(lines: &[String], folder: &Path) -> Output {
    run("bash", &["-e", "-c", &lines.join("\n")], folder, &[])
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_job_ends_as_in_ropewalk() {
    let folder = folder("ends");
    for (system, name) in [(System::Gitlab, "GitLab"), (System::Buildkite, "Buildkite")] {
        let scripts = scripts("apart", system);
        assert!(scripts.len() > 10, "the jobs are there");
        for (job, lines) in scripts {
            let expected = job.rsplit('-').next().and_then(|code| code.parse::<i32>().ok());
            let is_bash = lines.iter().any(|line| line.contains("set -o pipefail"));
            let mut outputs = Vec::new();
            if system == System::Buildkite {
                outputs.push(run_buildkite(&lines, &folder));
            } else {
                // A runner may mark where a section of the log ends.
                let marked: Vec<String> = lines.iter().cloned().chain(["printf %s end".to_owned()]).collect();
                for shell in ["bash", "sh"].into_iter().filter(|shell| *shell == "bash" || !is_bash) {
                    outputs.push(run_gitlab(shell, &lines, &folder, &[]));
                    outputs.push(run_gitlab(shell, &marked, &folder, &[]));
                }
            }
            for output in outputs {
                assert_eq!(output.status.code(), expected, "{name}, {job}: {lines:#?}\n{output:?}");
                assert!(!said(&output).contains("after"), "{name}, {job} goes on behind a step that failed");
            }
        }
    }
}

#[test]
fn buildkite_hands_values_on_or_fails() {
    let folder = folder("meta_data");
    let scripts = scripts("meta_data", System::Buildkite);
    for job in ["ship", "folder"] {
        let output = run_buildkite(&scripts[job], &folder);
        assert!(!output.status.success() && said(&output).is_empty(), "{job} runs without the value: {output:?}");
    }
    let output = run_buildkite(&scripts["build"], &folder);
    assert!(output.status.success(), "{output:?}");
    let kept = |name: &str| fs::read_to_string(folder.join("kept").join(name)).ok();
    assert_eq!(kept("build.tag").as_deref(), Some("v1"), "the last line has no end");
    assert_eq!(kept("build.padded").as_deref(), Some("YWJj="));
    let output = run_buildkite(&scripts["ship"], &folder);
    assert_eq!(said(&output), "shipped v1 v1-YWJj=\n", "{output:?}");
    // Of two values in one text the first must be there, too.
    fs::remove_file(folder.join("kept/build.tag")).expect("it was kept");
    let output = run_buildkite(&scripts["ship"], &folder);
    assert!(!output.status.success() && said(&output).is_empty(), "{output:?}");
    let output = run_buildkite(&scripts["lines"], &folder);
    assert_eq!(output.status.code(), Some(1), "several lines are no value: {output:?}");
    assert_eq!(kept("lines.tag"), None, "a line of a value is no output");
}

#[test]
fn buildkite_runs_what_waits_for_failures_only_then() {
    let folder = folder("failures");
    program(&folder.join("mourn"), "echo mourned\n");
    program(&folder.join("after"), "echo mourned\n");
    let scripts = scripts("transitive_output", System::Buildkite);
    for (outcome, expected) in [("passed", ""), ("soft_failed", ""), ("hard_failed", "mourned\n")] {
        fs::write(folder.join("kept/outcome-test"), outcome).expect("it is written");
        for job in ["mourn", "after-mourning"] {
            let output = run_buildkite(&scripts[job], &folder);
            assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), expected), "{job}: {output:?}");
        }
    }
}

#[test]
fn gitlab_reads_each_value_by_a_name_of_its_own() {
    let folder = folder("named");
    program(&folder.join("ship"), "echo \"$*\"\n");
    program(&folder.join("test"), "echo \"$*\"\n");
    let root = exported("named", System::Gitlab);
    let scripts = scripts("named", System::Gitlab);
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    let common = root.get("variables").and_then(Node::entries).expect("variables");
    for entry in common {
        let name = entry.name().expect("a name").to_owned();
        variables.insert(name, texts(entry.value.get("value")).concat());
    }
    for job in ["build", "docs"] {
        let file = texts(root.get(job).and_then(|job| job.get("variables")?.get("ROPEWALK_OUTPUT"))).concat();
        let file = file.replace("$CI_PROJECT_DIR", &folder.display().to_string());
        let output = run_gitlab("bash", &scripts[job], &folder, &[("ROPEWALK_OUTPUT", &file)]);
        assert!(output.status.success(), "{job}: {output:?}");
        let outputs = fs::read_to_string(folder.join("outputs.env")).expect("the dotenv report is there");
        for (name, value) in outputs.lines().map(|line| line.split_once('=').expect("a value")) {
            let before = variables.insert(name.to_owned(), value.to_owned());
            assert_eq!(before, None, "{name} is two things");
        }
        fs::remove_file(folder.join("outputs.env")).expect("it goes");
        fs::remove_file(folder.join("outputs.txt")).expect("it goes");
    }
    let is_name = |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    assert!(variables.keys().all(is_name), "{variables:?}");
    assert!(!variables.contains_key("image_tag"), "that is a secret of the project");
    let given = |more: &[(&'static str, &'static str)]| -> Vec<(String, String)> {
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        variables.clone().into_iter().chain(more).collect()
    };
    let run = |job: &str, variables: &[(String, String)]| {
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
        run_gitlab("sh", &scripts[job], &folder, &variables)
    };
    let output = run("ship", &given(&[]));
    assert!(!output.status.success() && said(&output).is_empty(), "nobody gave a region: {output:?}");
    let output = run("ship", &given(&[("to_region", "eu")]));
    assert_eq!(said(&output), "v1 2 3 1.0 true eu 3\n", "{output:?}");
    let output = run("test", &given(&[("node_version", "18"), ("os", "linux")]));
    assert_eq!(said(&output), "--node 18 --os linux\n", "{output:?}");
}

#[test]
fn gitlab_puts_values_of_axes_in_or_fails() {
    let folder = folder("axes");
    program(&folder.join("after"), "echo after\n");
    let scripts = scripts("axes", System::Gitlab);
    let variables = [("os", "linux"), ("node_version", "18")];
    let output = run_gitlab("sh", &scripts["quoted"], &folder, &variables);
    assert_eq!(said(&output), "linux linux 18_x\n", "{output:?}");
    for job in ["document", "python"] {
        let output = run_gitlab("sh", &scripts[job], &folder, &variables);
        assert_eq!((output.status.code(), said(&output).as_str()), (Some(1), ""), "{job}: {output:?}");
    }
}

#[test]
fn what_a_script_cannot_ask_or_say_fails() {
    let folder = folder("unsaid");
    program(&folder.join("announce"), "echo announced\n");
    for system in [System::Gitlab, System::Buildkite] {
        let run = |lines: &[String]| match system {
            System::Gitlab => run_gitlab("sh", lines, &folder, &[]),
            _ => run_buildkite(lines, &folder),
        };
        // A step asks how another has ended; and a value is a job's result.
        for (case, job) in [("results", "publish"), ("stage_may_skip", "announce")] {
            let output = run(&scripts(case, system)[job]);
            assert_eq!((output.status.code(), said(&output).as_str()), (Some(1), ""), "{job}: {output:?}");
        }
    }
}
