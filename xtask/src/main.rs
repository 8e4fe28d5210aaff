//! The tasks of this repository. The list does not grow: new checks go inside `test`.

mod bench;
mod fleet;
mod postgres;
mod s3_server;
mod simulated;
mod storm;
mod test;
mod tidy;

use std::process::{Command, ExitCode};

const USAGE: &str = "\
cargo xtask test          everything that CI runs: installs what the tests need, then runs all of them
cargo xtask tidy          check the arrows between the crates
cargo xtask storm [SEED]  run many storms, or one again with its trace
cargo xtask storm server [ROUNDS] [--seed=N] [--store=postgres|URL] [--faults=ONE_IN|off]
                          kill, stop and cut real servers and workers under load, let calls of their stores fail,
                          then count what is left
cargo xtask accept        accept new snapshots, after you have read them
cargo xtask bench [NAME]  measure against peers and raw limits; prints a table, writes target/bench.json";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["test", rest @ ..] => test::all(rest),
        ["tidy"] => tidy::run(),
        ["storm"] => run(&mut cargo(&["run", "--release", "--quiet", "-p", "ropewalk-sim", "--", "--seeds", "10000"])),
        ["storm", "server", rest @ ..] => storm::server(rest),
        ["storm", seed] => {
            run(&mut cargo(&["run", "--release", "--quiet", "-p", "ropewalk-sim", "--", "--seed", seed]))
        }
        ["accept"] => {
            run(cargo(&["nextest", "run", "--workspace"]).env("INSTA_UPDATE", "always").env("ROPEWALK_ACCEPT", "1"))
        }
        ["bench", rest @ ..] => bench::run(rest),
        // What a measurement starts.
        ["simulated-worker", rest @ ..] => simulated::work(rest),
        _ => Err(format!("what to do?\n\n{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The cargo that runs this task.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// The repository's root.
fn root() -> &'static std::path::Path {
    std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Runs `command` and turns any end but success into a sentence.
fn run(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}").replace('"', "");
    let status = command.status().map_err(|error| format!("could not start {shown}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown} ended with {status}")) }
}

/// Whether this is root.
fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
