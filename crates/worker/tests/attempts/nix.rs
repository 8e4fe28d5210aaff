//! Jobs with Nix itself, in a store of each test's own: nothing is fetched, and builders are the machine's shells.

use std::collections::BTreeMap;
use std::path::Path;

use graph::{Failure, Outcome};
use ropewalk_worker::entry::{Entry, Moment};
use serde_json::json;

use crate::Case;
use crate::ground::{compare, on_ground};
use crate::trouble::when_it_prints;

pub const CASES: &[Case] = &[
    ("nix::a_shell", a_shell),
    ("nix::a_shell_whose_paths_are_gone", a_shell_whose_paths_are_gone),
    ("nix::a_shell_that_cannot_be_had", a_shell_that_cannot_be_had),
    ("nix::a_build", a_build),
    ("nix::a_build_that_fails", a_build_that_fails),
    ("nix::a_build_that_is_canceled", a_build_that_is_canceled),
];

const FLAKE: &str = r#"{
  outputs = { self }: let
    system = "x86_64-linux";
    make = name: script: more: builtins.derivation ({
      inherit name system; builder = "/bin/sh"; args = [ "-c" script ];
    } // more);
    shell = more: builtins.derivation ({
      name = "shell"; inherit system; builder = "/bin/bash"; args = [ "-c" "exit 1" ]; outputs = [ "out" ];
      PATH = "/nowhere/bin"; GREETING = "hello"; TAKEN = "from the shell";
    } // more);
  in {
    devShells.x86_64-linux.default = shell {
      shellHook = "greet() { echo \"$GREETING from \${hooks[0]}\"; }; hooks=(a 'function'); export HOOKED=yes; echo hook >&2";
    };
    devShells.x86_64-linux.plain = shell { };
    devShells.x86_64-linux.tools = shell {
      tool = make "tool" "PATH=/usr/bin:/bin; mkdir -p $out/bin; printf '#!/bin/sh\necho a tool\n' > $out/bin/tool; chmod 755 $out/bin/tool" { };
      shellHook = "export PATH=$tool/bin:$PATH";
    };
    devShells.x86_64-linux.wrong = throw "this flake is wrong";
    packages.x86_64-linux = rec {
      base = make "base-1" "echo base > $out" { };
      app = make "app-2" "read word < $base; echo building >&2; echo $word app > $out" { inherit base; };
      bad = make "bad" "echo so wrong; exit 3" { };
      next = make "next" "echo > $out" { inherit bad; };
      slow = make "slow" "exec /bin/sleep 600" { };
    };
  };
}
"#;

/// Whether Nix is here; if so, all that starts from now on has a store of its own in the directory.
fn has_nix(directory: &Path) -> bool {
    if ropewalk_worker::nix::find().is_err() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "nix is missing: `cargo xtask test` installs it");
        eprintln!("skipped: Nix is not installed");
        return false;
    }
    let set = |name: &str, value: &Path| {
        // SAFETY: the test is a process of its own and has one thread.
        unsafe { std::env::set_var(name, value) };
    };
    for (name, folder) in [
        ("NIX_STORE_DIR", "store"),
        ("NIX_STATE_DIR", "state"),
        ("NIX_LOG_DIR", "log"),
        ("HOME", "home"),
        // Nix remembers there where in the store a source lies: in one store alone.
        ("XDG_CACHE_HOME", "cache"),
    ] {
        std::fs::create_dir_all(directory.join(folder)).expect("a directory");
        set(name, &directory.join(folder));
    }
    set("NIX_CONFIG", Path::new("sandbox = false\nsubstitute = false\nbuild-users-group =\n"));
    true
}

/// Runs a test over a repository with the flake.
fn with_nix<F: AsyncFnOnce(&crate::ground::Ground)>(test: F) {
    let holder = tempfile::tempdir().expect("a directory");
    let directory = holder.path().canonicalize().expect("a path");
    if !has_nix(&directory) {
        return;
    }
    let flake = FLAKE.replace("x86_64", std::env::consts::ARCH);
    on_ground(&[("flake.nix", &flake)], async |ground| {
        let commit = "git add -A && git -c user.name=a -c user.email=a@b commit -qm flake";
        let git = std::process::Command::new("sh").args(["-c", commit]).current_dir(&ground.root).status();
        assert!(git.is_ok_and(|status| status.success()), "git commit");
        test(ground).await;
    });
}

/// The log's lines of these steps, and the report, without what Nix says of its own and of a tree that is dirty.
async fn check(ground: &crate::ground::Ground, job: serde_json::Value, expected: &str) -> graph::AttemptReport {
    let (report, log) = ground.run(job).await;
    {
        let mut logged = log.0.lock().unwrap();
        for (_, _, text) in &mut logged.pieces {
            let lines = String::from_utf8_lossy(text).into_owned();
            let is_kept =
                |line: &&str| !["Git tree '", "building '", "evaluating"].iter().any(|noise| line.contains(noise));
            *text = lines.lines().filter(is_kept).map(|line| format!("{line}\n")).collect::<String>().into_bytes();
        }
    }
    compare(&report, &log, expected);
    report
}

fn a_shell() {
    with_nix(async |ground| {
        let job = json!({
            "workspace": "isolated", "environment": { "nix": { "nix": "." } }, "env": { "TAKEN": "from the job" },
            "steps": [
                { "run": "echo $GREETING $HOOKED $TAKEN; case $PATH in /nowhere/bin:*/bin*) echo extended;; esac" },
                { "run": "greet; test -d ${TMPDIR:-/tmp}", "shell": "bash" },
                { "run": "echo $ROPEWALK_JOB; test $IN_NIX_SHELL = impure" },
            ],
        });
        let expected = "passed {}
            passed 0: echo $GREETING $HOOKED $TAKEN; case $PATH in /nowhere/bin:*/bin*) echo extended;; esac
            passed 0: greet; test -d ${TMPDIR:-/tmp}
            passed 0: echo $ROPEWALK_JOB; test $IN_NIX_SHELL = impure
            0 Stderr: hook
            0 Stdout: hello yes from the job
            0 Stdout: extended
            1 Stdout: hello from a
            2 Stdout: unit/1";
        check(ground, job, expected).await;
        let scratch = std::fs::read_dir(ground.worker.scratch()).expect("a directory").flatten();
        let left = scratch.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "nix"));
        assert_eq!(left.count(), 0, "nothing of the shell is left");
    });
}

/// After a collection of garbage, as on another machine, whoever enters has what the shell's `PATH` names fetched or built again.
fn a_shell_whose_paths_are_gone() {
    with_nix(async |ground| {
        let job = json!({
            "workspace": "isolated", "environment": { "nix": { "nix": ".#tools" } },
            "steps": [{ "run": "tool > said" }, { "run": "exit 3" }],
        });
        let (report, _) = ground.run(job).await;
        assert_eq!(report.outcome, Outcome::Failed(Failure::Step { step: 1, exit: 3, message: None }));
        let collected = std::process::Command::new("nix-store").arg("--gc").output().expect("it starts");
        assert!(collected.status.success(), "{collected:?}");
        for is_missing in [true, false] {
            let entry =
                Entry::open(&ground.data, graph::BuildId(7), ground.last_attempt(), &Moment::Failed, BTreeMap::new());
            let entry = entry.expect("it is kept");
            let mut command = entry.command("sh".as_ref(), &["-c".into(), "tool; cat said".into()]).expect("a command");
            let output = command.output().expect("it starts");
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert_eq!(String::from_utf8_lossy(&output.stdout), "a tool\na tool\n", "{complaint}");
            assert_eq!(complaint.contains("the store of this machine has not"), is_missing, "{complaint}");
        }
    });
}

fn a_shell_that_cannot_be_had() {
    with_nix(async |ground| {
        let job = json!({
            "workspace": "isolated", "environment": { "nix": { "nix": ".#wrong" } }, "steps": [{ "run": "echo never" }, { "run": "echo never" }],
        });
        let (report, log) = ground.run(job).await;
        let message = "step 1: the development shell `.#wrong` could not be had (exit code 1)";
        assert_eq!(report.notes, [message]);
        let message = Some(message.to_owned());
        assert_eq!(report.outcome, Outcome::Failed(Failure::Step { step: 0, exit: 1, message }));
        let text: Vec<u8> = log.0.lock().unwrap().pieces.iter().flat_map(|(_, _, text)| text.clone()).collect();
        assert!(String::from_utf8_lossy(&text).contains("this flake is wrong"), "Nix's words are in the log");
        // What people are told to do then.
        let (build, attempt) = (graph::BuildId(7), ground.last_attempt());
        Entry::open(&ground.data, build, attempt, &Moment::Failed, BTreeMap::new())
            .expect("its files open as they are");
        assert!(
            Entry::open(&ground.data, build, attempt, &Moment::Start, BTreeMap::new()).is_err(),
            "nothing was noted of its steps"
        );
    });
}

fn a_build() {
    with_nix(async |ground| {
        let job = json!({
            "workspace": "isolated", "artifacts": { "files": ["nix:app"], "two": ["nix:app", "nix:base"] },
            "steps": [
                { "id": "one", "name": "one", "run": "", "nix_build": [".#base"] },
                { "id": "two", "name": "two", "run": "", "nix_build": [".#app", ".#base"] },
                { "name": "use", "run": "cat $APP", "env": { "APP": { "template": "${{ steps.two.outputs.app }}" } } },
            ],
        });
        let expected = "passed {}
            passed 0: one
            passed 0: two
            passed 0: use
            test: base-1 Passed
            test: app-2 Passed
            test: base-1 Skipped
            0 Stderr: building base-1
            0 Note: derivations: 1 built
            1 Stderr: building app-2
            1 Stderr: app-2> building
            1 Note: derivations: 1 built, 1 cached
            2 Stdout: base app";
        let report = check(ground, job, expected).await;
        assert_eq!(report.steps[1].outputs.keys().collect::<Vec<_>>(), ["app", "base"]);
        let counts = ["files", "two"].map(|name| (report.artifacts[name].files, report.artifacts[name].bytes));
        assert_eq!(counts, [(1, 9), (2, 14)]);
        let needs = [(
            graph::JobName::from("build"),
            graph::NeedResult {
                result: "passed".to_owned(),
                outputs: Default::default(),
                artifacts: report.artifacts.clone(),
            },
        )];
        let job =
            json!({ "workspace": "isolated", "steps": [{ "name": "files", "run": "cat result/app result/base" }] });
        let (report, log) = ground
            .run_with(job, needs.into(), Default::default(), ropewalk_worker::Cancel::new(), Default::default())
            .await;
        compare(&report, &log, "passed {}\npassed 0: files\n0 Stdout: base app\n0 Stdout: base");
    });
}

fn a_build_that_fails() {
    with_nix(async |ground| {
        let job = json!({
            "steps": [{ "name": "build", "run": "", "nix_build": [".#next", ".#app", ".#bad"] }],
        });
        let (report, _) = ground.run(job).await;
        assert_eq!(report.outcome, Outcome::Failed(Failure::Step { step: 0, exit: 1, message: None }));
        let told: Vec<String> = report.tests.iter().map(|test| format!("{} {:?}", test.name, test.outcome)).collect();
        assert_eq!(told, ["bad Failed", "next Skipped", "app-2 Passed", "base-1 Passed"]);
        let bad = &report.tests[0];
        assert!(bad.message.starts_with("so wrong\nerror: builder for '") && bad.output == "so wrong", "{bad:?}");
    });
}

fn a_build_that_is_canceled() {
    with_nix(async |ground| {
        let job = json!({ "steps": [{ "name": "build", "run": "", "nix_build": [".#slow"] }] });
        // The first that is printed is that it is being built: the tree is clean, so Nix warns of nothing.
        let (report, _) = when_it_prints(ground, job, |cancel| cancel.gently("a test")).await;
        assert_eq!(report.outcome, Outcome::Failed(Failure::Canceled { by: "a test".into() }));
        let told: Vec<String> =
            report.tests.iter().map(|test| format!("{} {:?}: {}", test.name, test.outcome, test.message)).collect();
        assert_eq!(told, ["slow Errored: stopped before its end"]);
    });
}
