//! Real processes, mounts and sandboxes. Each test is a process of its own, because the keeper is forked before any thread.
//!
//! Called without arguments, this program runs every test as a child; with a test's name, that test. It speaks as much of
//! libtest's language as `cargo nextest` needs. Run it as an ordinary user too: namespaces differ.

use std::process::{Command, ExitCode};

mod ground;
mod keeper;
mod sandbox;
mod spare;
mod workspace;

/// A test: its name and what it does. It fails by panicking.
pub type Case = (&'static str, fn());

fn cases() -> Vec<Case> {
    [keeper::CASES, workspace::CASES, spare::CASES, sandbox::CASES].concat()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if let Some(role) = arguments.first().and_then(|name| keeper::role(name)) {
        role();
        return ExitCode::SUCCESS;
    }
    if has("--list") {
        // None is ignored, so that list is empty.
        let listed = cases().into_iter().filter(|_| !has("--ignored"));
        listed.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with("--"));
    if has("--exact")
        && let Some((_, run)) = cases().into_iter().find(|(name, _)| Some(*name) == wanted.map(String::as_str))
    {
        run();
        return ExitCode::SUCCESS;
    }
    run_all(wanted.map(String::as_str).unwrap_or_default())
}

/// Runs every test whose name holds `part`, one after the other.
fn run_all(part: &str) -> ExitCode {
    let program = std::env::current_exe().expect("the test program has a path");
    let mut failed = Vec::new();
    for (name, _) in cases().into_iter().filter(|(name, _)| name.contains(part)) {
        let passed = Command::new(&program).args([name, "--exact"]).status().is_ok_and(|status| status.success());
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(name);
        }
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
