//! What the binary `ropewalk` does: it reads the command line, picks the command, prints what went wrong, and ends with its code.
//!
//! It is a library because cargo begins to compile one as soon as the crates below are known, and a binary only when they
//! are whole: a first build is shorter by a tenth.

mod agent;
mod archive;
mod args;
mod calendar;
mod child;
mod columns;
mod commands;
mod control;
mod drawing;
mod ending;
mod event;
mod exit;
mod failed_test;
mod faults;
mod first_error;
mod given_up;
mod installation;
mod keeping;
mod local;
mod machine;
mod output;
mod pipeline;
mod places;
mod program;
mod project;
mod remote;
mod retention;
mod room;
mod shortcut;
mod view;
mod whereabouts;
mod words;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use args::{Arguments, Command};
use commands::Stop;
use project::Project;

/// Runs the command that the process was started with, and gives the code to end with.
pub fn main() -> ExitCode {
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap's own printing ends with 2 for faults and 0 for help and version, as our exit codes do.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::WRONG } else { exit::PASSED });
        }
    };
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(stop) => {
            if let Some(said) = &stop.said {
                let _ = std::io::stderr().write_all(said.text.as_bytes());
            }
            if !stop.message.is_empty() {
                let _ = writeln!(std::io::stderr(), "error: {}", stop.message);
            }
            ExitCode::from(stop.code)
        }
    }
}

fn run(arguments: &Arguments) -> Result<u8, Stop> {
    let color = arguments.color;
    let project = || {
        let directory = arguments.directory.as_deref().unwrap_or(Path::new("."));
        Project::find(directory).map_err(Stop::wrong)
    };
    match &arguments.command {
        Command::Run(run) => commands::run::run(run, &project()?, color),
        Command::Retry(retry) => commands::retry::run(retry, &project()?, color),
        Command::Approve(approve) => commands::approve::run(approve, &project()?, color),
        Command::Plan(plan) => commands::plan::run(plan, &project()?, color),
        Command::Check(check) => commands::check::run(check, &project()?, color),
        Command::Test(test) => commands::test::run(test, &project()?, color),
        Command::Init(init) => commands::init::run(init, &project()?),
        Command::Builds(builds) => commands::builds::run(builds, &project()?, color),
        Command::Show(show) => commands::show::run(show, &project()?, color),
        Command::Logs(logs) => commands::logs::run(logs, &project()?, color),
        Command::Cancel(cancel) => commands::cancel::run(cancel, &project()?),
        Command::Urge(urge) => commands::urge::run(urge, &project()?),
        Command::Explain(explain) => commands::explain::run(explain, &project()?),
        Command::Cache(cache) => commands::cache::run(cache, &project()?),
        Command::Export(export) => commands::export::run(export, &project()?, color),
        Command::Shell(shell) => commands::shell::run(shell, &project()?),
        Command::Completions(completions) => commands::completions::run(completions),
        Command::Lower => commands::lower::run(),
        Command::Evaluate => commands::evaluate::run(),
        Command::Serve(serve) => commands::serve::run(serve, color),
        Command::Work(work) => commands::work::run(work),
        Command::Submit(submit) => commands::submit::run(submit, arguments),
        Command::Workers(workers) => commands::workers::run(workers, color),
        Command::Pools(pools) => commands::pools::run(pools, color),
        Command::Secrets(secrets) => commands::secrets::run(secrets),
        Command::Quarantine(quarantine) => commands::quarantine::run(quarantine, color),
        Command::Member(members) => commands::members::run(members, color),
        Command::Token(token) => commands::token::run(token, color),
        Command::Config(config) => commands::config::run(config, color),
        Command::Doctor(doctor) => commands::doctor::run(doctor, color),
        Command::Backup(backup) => commands::backup::run(backup, color),
        Command::Restore(restore) => commands::restore::run(restore, color),
        Command::MigrateStore(migrate) => commands::migrate_store::run(migrate, color),
    }
}
