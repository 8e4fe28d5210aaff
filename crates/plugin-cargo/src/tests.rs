//! The scripts, as texts and run by the real `sh` with a `cargo` that only says how it was called.

use std::fs;
use std::path::Path;
use std::process::Command;

use ropewalk::{Json, With};

use crate::{BINARIES, Cargo, scripts};

#[test]
fn the_whole_workspace_is_meant_if_no_package_is_named() {
    let cargo = Cargo::new();
    assert_eq!(scripts::fmt(&cargo), "cargo fmt --all --check");
    assert_eq!(scripts::clippy(&cargo), "cargo clippy --workspace --all-targets -- -D warnings");
    assert_eq!(scripts::doc(&cargo), "RUSTDOCFLAGS=\"${RUSTDOCFLAGS:-} -D warnings\" cargo doc --workspace --no-deps");
}

#[test]
fn options_of_files_and_of_programs_are_the_same() {
    let of_file = With::new([
        ("package", Json::from(["app", "lib"])),
        ("features", Json::from("tls")),
        ("no_default_features", true.into()),
        ("profile", "quick".into()),
        ("locked", true.into()),
        ("allow_warnings", true.into()),
    ]);
    let of_program =
        Cargo::new().package("app").package("lib").features(["tls"]).no_default_features().profile("quick").locked();
    let expected = "cargo clippy --package app --package lib --all-targets --no-default-features --features tls --locked --profile quick";
    assert_eq!(scripts::clippy(&Cargo::of(&of_file)), expected);
    assert_eq!(scripts::clippy(&of_program.allow_warnings()), expected);
}

#[test]
fn words_of_options_stay_words() {
    let fmt = |package: &str| scripts::fmt(&Cargo::new().package(package));
    assert_eq!(fmt("a b"), "cargo fmt --package 'a b' --check");
    assert_eq!(fmt("it's"), r"cargo fmt --package 'it'\''s' --check");
    assert_eq!(fmt("${{ matrix.package }}"), r#"cargo fmt --package "${{ matrix.package }}" --check"#);
    assert_eq!(fmt("$(x)-${{ a['b'] }}\""), r#"cargo fmt --package "\$(x)-${{ a['b'] }}\"" --check"#);
}

/// Runs a script in a folder, with these programs before all others; gives whether it passed, and what it printed.
fn run(script: &str, folder: &Path, programs: &Path) -> (bool, String) {
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("a path"));
    let output =
        Command::new("sh").args(["-ec", script]).current_dir(folder).env("PATH", path).output().expect("sh runs");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// A folder with a `cargo` that is this script; gone when the test ends.
struct Machine(std::path::PathBuf);

impl Machine {
    fn with_cargo(name: &str, script: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ropewalk-cargo-{name}-{}", std::process::id()));
        let machine = Self(folder);
        machine.program("bin/cargo", script);
        machine
    }

    /// Adds a program that is this script, at this place in the folder.
    fn program(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let program = self.0.join(name);
        fs::create_dir_all(program.parent().expect("below the folder")).expect("a folder");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
    }

    fn run(&self, script: &str) -> (bool, String) {
        run(script, &self.0, &self.0.join("bin"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn tests_run_without_nextest_too() {
    let machine = Machine::with_cargo("plain", r#"[ "$1" = test ] && echo "ran $*""#);
    let (passed, said) = machine.run(&scripts::nextest(&Cargo::new()));
    assert!(passed, "{said}");
    let expected = "cargo-nextest is not installed: cargo test runs the tests, and there is no JUnit report\nran test --workspace\n";
    assert_eq!(said, expected);
}

#[test]
fn nextest_is_told_where_the_report_goes() {
    let machine = Machine::with_cargo("nextest", r#"echo "ran $*""#);
    let (passed, said) = machine.run(&scripts::nextest(&Cargo::new().nextest_profile("ci")));
    assert!(passed, "{said}");
    let settings = machine.0.join("target/ropewalk-nextest.toml");
    let expected = format!(
        "ran nextest run --workspace --no-tests=pass --no-fail-fast --profile ci --tool-config-file ropewalk:{}\n",
        settings.display()
    );
    assert_eq!(said, expected);
    assert_eq!(fs::read_to_string(settings).expect("settings"), "[profile.default.junit]\npath = \"junit.xml\"\n");
}

#[test]
fn nextest_runs_only_tests_that_are_asked_for() {
    let machine = Machine::with_cargo("asked", r#"[ "$2" = --version ] || for word in "$@"; do echo "<$word>"; done"#);
    let asked = r"a\ttests::x\na::bin/b\tf(1, 2)\n\talone";
    let script = format!("export ROPEWALK_TESTS=\"$(printf '{asked}')\"\n{}", scripts::nextest(&Cargo::new()));
    let (passed, said) = machine.run(&script);
    assert!(passed, "{said}");
    let expected = r"<-E>
<(binary_id(=a) & test(=tests::x))
| (binary_id(=a::bin/b) & test(=f(1\, 2\)))
| (binary_id(=) & test(=alone))>
";
    assert!(said.ends_with(expected), "{said}");
}

#[test]
fn coverage_says_what_is_missing() {
    let machine = Machine::with_cargo("coverage", "exit 101");
    let (passed, said) = machine.run(&scripts::coverage(&Cargo::new()));
    assert!(!passed);
    let expected = "cargo-llvm-cov is not installed; install it with: rustup component add llvm-tools && cargo install cargo-llvm-cov\n";
    assert_eq!(said, expected);
}

#[test]
fn coverage_is_reported_from_where_it_was_built() {
    let machine = Machine::with_cargo("covered", r#"[ "$2" = --version ] || echo "ran $*""#);
    machine.program("bin/rustup", "exit 1");
    machine.program("bin/rustc", &format!("echo '{}'", machine.0.join("toolchain/lib").display()));
    fs::create_dir_all(machine.0.join("toolchain/lib")).expect("a folder");
    // rustup is not left to fetch what is missing.
    let (passed, said) = machine.run(&scripts::coverage(&Cargo::new()));
    assert!(!passed);
    let missing = "the compiler's LLVM tools are not installed; install them with: rustup component add llvm-tools\n";
    assert_eq!(said, missing);
    machine.program("toolchain/bin/llvm-cov", "exit 0");
    let (passed, said) = machine.run(&scripts::coverage(&Cargo::new().profile("release")));
    assert!(passed, "{said}");
    let expected = "ran llvm-cov --workspace --profile release --lcov --output-path target/coverage/lcov.info\n\
                    ran llvm-cov report --profile release\n";
    assert_eq!(said, expected);
}

#[test]
fn release_takes_the_binaries_that_cargo_names() {
    let made = r#"echo binary > made; echo '{"reason":"compiler-artifact","executable":null}'; echo '{"executable":"'$PWD/made'","fresh":false}'"#;
    let machine = Machine::with_cargo("release", made);
    let (passed, said) = machine.run(&scripts::release(&Cargo::new()));
    assert!(passed, "{said}");
    assert_eq!(said, "built made\n");
    assert_eq!(fs::read_to_string(machine.0.join(BINARIES).join("made")).expect("handed on"), "binary\n");
}

#[test]
fn release_fails_where_there_is_no_binary() {
    let machine = Machine::with_cargo("library", r#"echo '{"executable":null}'"#);
    let (passed, said) = machine.run(&scripts::release(&Cargo::new()));
    assert!(!passed);
    assert_eq!(said, "there is no binary to hand on: no package that was built has one\n");
}
