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
mod faults;
mod first_error;
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
mod shortcut;
mod view;
mod whereabouts;
mod words;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use args::{Arguments, Command};
use clap::Parser;
use commands::Stop;
use project::Project;

/// Runs the command that the process was started with, and gives the code to end with.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
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
            if !stop.message.is_empty() {
                let _ = writeln!(std::io::stderr(), "error: {}", stop.message);
            }
            ExitCode::from(stop.code)
        }
    }
}

fn run(arguments: &Arguments) -> Result<u8, Stop> {
    if let Command::Completions(completions) = &arguments.command {
        return commands::completions::run(completions);
    }
    if let Command::Lower = arguments.command {
        return commands::lower::run();
    }
    if let Command::Evaluate = arguments.command {
        return commands::evaluate::run();
    }
    match &arguments.command {
        Command::Serve(serve) => return commands::serve::run(serve, arguments.color),
        Command::Work(work) => return commands::work::run(work),
        Command::Submit(submit) => return commands::submit::run(submit, arguments),
        Command::Workers(workers) => return commands::workers::run(workers, arguments.color),
        Command::Pools(pools) => return commands::pools::run(pools, arguments.color),
        Command::Secrets(secrets) => return commands::secrets::run(secrets),
        Command::Quarantine(quarantine) => return commands::quarantine::run(quarantine, arguments.color),
        Command::Member(members) => return commands::members::run(members, arguments.color),
        Command::Token(token) => return commands::token::run(token, arguments.color),
        Command::Config(config) => return commands::config::run(config, arguments.color),
        Command::Doctor(doctor) => return commands::doctor::run(doctor, arguments.color),
        Command::Backup(backup) => return commands::backup::run(backup, arguments.color),
        Command::Restore(restore) => return commands::restore::run(restore, arguments.color),
        Command::MigrateStore(migrate) => return commands::migrate_store::run(migrate, arguments.color),
        _ => {}
    }
    let directory = arguments.directory.clone().unwrap_or_else(|| PathBuf::from("."));
    let project = Project::find(&directory).map_err(Stop::wrong)?;
    match &arguments.command {
        Command::Run(run) => commands::run::run(run, &project, arguments.color),
        Command::Retry(retry) => commands::retry::run(retry, &project, arguments.color),
        Command::Approve(approve) => commands::approve::run(approve, &project, arguments.color),
        Command::Plan(plan) => commands::plan::run(plan, &project, arguments.color),
        Command::Check(check) => commands::check::run(check, &project, arguments.color),
        Command::Test(test) => commands::test::run(test, &project, arguments.color),
        Command::Init(init) => commands::init::run(init, &project),
        Command::Builds(builds) => commands::builds::run(builds, &project, arguments.color),
        Command::Show(show) => commands::show::run(show, &project, arguments.color),
        Command::Logs(logs) => commands::logs::run(logs, &project, arguments.color),
        Command::Cancel(cancel) => commands::cancel::run(cancel, &project),
        Command::Urge(urge) => commands::urge::run(urge, &project),
        Command::Explain(explain) => commands::explain::run(explain, &project),
        Command::Cache(cache) => commands::cache::run(cache, &project),
        Command::Export(export) => commands::export::run(export, &project, arguments.color),
        Command::Shell(shell) => commands::shell::run(shell, &project),
        Command::Completions(_)
        | Command::Lower
        | Command::Evaluate
        | Command::Serve(_)
        | Command::Work(_)
        | Command::Submit(_)
        | Command::Workers(_)
        | Command::Pools(_)
        | Command::Secrets(_)
        | Command::Quarantine(_)
        | Command::Member(_)
        | Command::Token(_)
        | Command::Config(_)
        | Command::Doctor(_)
        | Command::Backup(_)
        | Command::Restore(_)
        | Command::MigrateStore(_) => unreachable!("it needs no project and was done above"),
    }
}
