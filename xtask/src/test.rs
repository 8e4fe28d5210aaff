//! Everything that CI runs, in the order in which it fails soonest.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::{cargo, run};

/// Programs that tests use, and the Debian package that has each.
const PROGRAMS: &[(&str, &str)] = &[
    ("git", "git"),
    ("bash", "bash"),
    ("bwrap", "bubblewrap"),
    ("make", "make"),
    ("tmux", "tmux"),
    ("setpriv", "util-linux"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("filefrag", "e2fsprogs"),
];

/// Installs what is missing, then checks format, lints and the house, then runs every test. `rest` narrows the
/// tests (a nextest filter).
///
/// # Errors
/// The first step that failed.
pub fn all(rest: &[&str]) -> Result<(), String> {
    install()?;
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    crate::tidy::run()?;
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
    let has_nextest = cargo(&["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if has_nextest.is_ok_and(|status| status.success()) {
        run(cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]).args(rest))
    } else {
        run(cargo(&["test", "--workspace", "--no-fail-fast"]).args(rest))
    }
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

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file()))
}
