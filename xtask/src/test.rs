//! What the tests need of the machine; what is run with it is written in `.ropewalk/pipeline.rs`.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::{cargo, is_root, run, s3_server};

/// Programs that tests use, and the Debian package that has each.
const PROGRAMS: &[(&str, &str)] = &[
    ("git", "git"),
    ("bash", "bash"),
    ("bwrap", "bubblewrap"),
    ("nix", "nix-bin"),
    ("dockerd", "docker.io"),
    ("podman", "podman"),
    ("docker-registry", "docker-registry"),
    ("runc", "runc"),
    ("busybox", "busybox-static"),
    ("make", "make"),
    ("tmux", "tmux"),
    ("setpriv", "util-linux"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("filefrag", "e2fsprogs"),
    ("pg_ctlcluster", "postgresql"),
    ("python3", "python3-venv"),
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
    ("npm", "npm"),
];

/// What tests take from the npm registry, by the package's file that they look for in `target/npm/node_modules`: axe-core looks at pages
/// for people who read by other means (`crates/cli/tests/browser/axe.rs`), TypeScript checks the types that the scripts of pages
/// name in comments (`crates/web/tests/scripts.rs`).
const NPM_PACKAGES: [(&str, &str); 2] =
    [("axe-core@4.14.1", "axe-core/axe.min.js"), ("typescript@5.9.3", "typescript/bin/tsc")];

/// A checker from PyPI. It is installed into `target/NAME`, where the test that runs it looks.
struct Checker {
    name: &'static str,
    version: &'static str,
}

/// Run by `crates/server/tests/http/schema.rs` and `crates/dialects/tests/export_schema.rs`.
const CHECKERS: [Checker; 2] =
    [Checker { name: "schemathesis", version: "4.32.5" }, Checker { name: "check-jsonschema", version: "0.39.0" }];

/// How much of the disk of `target` a first run takes, in bytes, rounded up; measured.
const FIRST_RUN_BYTES: u64 = 12 << 30;
/// What the tests write while they run, in bytes, rounded up; measured.
const TESTS_BYTES: u64 = 4 << 30;

/// Says that the disk has little room: what fails for want of it later says so at another place each time.
///
/// # Errors
/// If there is not enough for the tests themselves.
fn look_at_room() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let Ok(disk) = rustix::fs::statvfs(&root) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let gibibytes = |bytes: u64| bytes >> 30;
    if free < TESTS_BYTES {
        return Err(format!(
            "the disk of this checkout has {} GiB left, and the tests need {}: remove files, for example `target/debug/incremental`",
            gibibytes(free),
            gibibytes(TESTS_BYTES)
        ));
    }
    if free < FIRST_RUN_BYTES {
        eprintln!(
            "note: the disk of this checkout has {} GiB left; a first run takes about {}",
            gibibytes(free),
            gibibytes(FIRST_RUN_BYTES)
        );
    }
    Ok(())
}

/// Installs what is missing, then runs Ropewalk's own pipeline with Ropewalk (`.ropewalk/pipeline.rs`). `rest` narrows the
/// tests (a nextest filter) and runs those alone.
///
/// # Errors
/// The first step that failed.
pub fn all(rest: &[&str]) -> Result<(), String> {
    look_at_room()?;
    install()?;
    CHECKERS.iter().for_each(install_checker);
    install_npm_packages();
    let s3_server = s3_server::begin();
    if !rest.is_empty() {
        let tests = ["nextest", "run", "--workspace", "--no-fail-fast"];
        return run(cargo(&tests).args(rest).envs(s3_server.variable()));
    }
    run(&mut cargo(&["build", "--quiet", "-p", "ropewalk-cli"]))?;
    let s3_server = s3_server.variable();
    // Steps have `CI=true` in any case; the pipeline hands on to the tests whether this was CI.
    let was_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty()).to_string();
    let ended = run(ropewalk(&["run", "--command", "test"]).env("WAS_CI", was_ci).envs(s3_server));
    for line in closing_lines() {
        println!("{line}");
    }
    ended
}

/// What the tests' runner said at its end, as it said it.
fn closing_lines() -> Vec<String> {
    let Ok(output) = ropewalk(&["logs", "last", "test"]).output() else { return Vec::new() };
    let log = String::from_utf8_lossy(&output.stdout);
    let lines = |begin: &'static str| -> Vec<String> {
        log.lines().filter(|line| line.trim_start().starts_with(begin)).map(str::to_owned).collect()
    };
    let of_nextest = lines("Summary [");
    // Without nextest, each of cargo's test programs ends with a line of its own.
    if of_nextest.is_empty() { lines("test result:") } else { of_nextest }
}

/// The `ropewalk` of this tree.
fn ropewalk(arguments: &[&str]) -> Command {
    let mut command = cargo(&["run", "--quiet", "-p", "ropewalk-cli", "--"]);
    command.args(arguments);
    command
}

/// Installs the programs that are missing, where that can be done without asking; else says what to install.
fn install() -> Result<(), String> {
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !is_installed(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    if !(is_root() && is_installed("apt-get")) {
        eprintln!("note: tests that need these are skipped; install: {}", packages.join(" "));
        return Ok(());
    }
    eprintln!("installing {}", packages.join(" "));
    run(Command::new("apt-get").args(["update", "-qq"]).stdout(Stdio::null()))?;
    run(Command::new("apt-get")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(Stdio::null()))
}

/// Installs a checker into a folder of its own. Where that fails its test says that it was skipped, or, in CI, fails.
fn install_checker(Checker { name, version }: &Checker) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(name);
    if folder.join("bin").join(name).exists() {
        return;
    }
    eprintln!("installing {name} {version} into target/{name}");
    let made = run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
    let pip = folder.join("bin/pip");
    let wanted = format!("{name}=={version}");
    let installed = made.and_then(|()| run(Command::new(pip).args(["install", "--quiet", &wanted])));
    if let Err(error) = installed {
        eprintln!("note: the test that needs {name} is skipped: {error}");
    }
}

/// As [`install_checker`], from the npm registry, into `target/npm`.
fn install_npm_packages() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/npm");
    if NPM_PACKAGES.iter().all(|(_, file)| folder.join("node_modules").join(file).exists()) {
        return;
    }
    let packages = NPM_PACKAGES.map(|(package, _)| package);
    eprintln!("installing {} into target/npm", packages.join(", "));
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(&folder);
    if let Err(error) = run(npm.args(packages)) {
        eprintln!("note: the tests that need them are skipped: {error}");
    }
}

fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file()))
}
