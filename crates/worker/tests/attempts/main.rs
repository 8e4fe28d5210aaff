//! Whole attempts with real processes: what the report and the log say. Each test is a process of its own, because the
//! keeper is forked before any thread.
//!
//! Called without arguments, this program runs every test as a child; with a test's name, that test. It speaks as much of
//! libtest's language as `cargo nextest` needs.

use std::process::{Command, ExitCode};

mod cases;
mod connection;
mod containers;
mod engines;
mod ground;
mod nix;
mod registry;
mod trouble;

/// A test: its name and what it does. It fails by panicking.
pub type Case = (&'static str, fn());

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let all = [cases::CASES, trouble::CASES, nix::CASES, containers::CASES].concat();
    if has("--list") {
        // None is ignored, so that list is empty.
        all.iter().filter(|_| !has("--ignored")).for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with("--")).map_or("", String::as_str);
    if has("--exact")
        && let Some((_, run)) = all.iter().chain(containers::HALVES).find(|(name, _)| *name == wanted)
    {
        run();
        return ExitCode::SUCCESS;
    }
    let program = std::env::current_exe().expect("the test program has a path");
    let mut failed = 0;
    for (name, _) in all.iter().filter(|(name, _)| name.contains(wanted)) {
        let passed = Command::new(&program).args([name, "--exact"]).status().is_ok_and(|status| status.success());
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u32::from(!passed);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
