//! `ropewalk quarantine`: tests of a project on a server that come and go, with who looks after them, why and until when.

use std::io::stdout;

use api::quarantine::{NewQuarantine, QuarantineState, Quarantined, Runs, end_of};

use super::Stop;
use crate::args::{Colour, ListForm, Quarantine, QuarantineCommand};
use crate::columns::{Cell, Columns, Paint, one_line};
use crate::remote::{ask, stop};
use crate::{exit, output};

/// Runs the command.
///
/// # Errors
/// If the server cannot be asked or refuses, or the end is no time.
pub fn run(arguments: &Quarantine, colour: Colour) -> Result<u8, Stop> {
    let told = match &arguments.command {
        QuarantineCommand::List { remote, project, output } => {
            let client = remote.client()?;
            let tests = ask(async { client.quarantine_list(project, Runs::Told).await.map_err(stop) })?.items;
            match output {
                ListForm::Human => table(&tests, Paint::of(colour, &stdout())),
                ListForm::Json => format!("{:#}\n", serde_json::to_value(&tests).unwrap_or_default()),
            }
        }
        QuarantineCommand::Add { remote, project, name, suite, job, owner, reason, until } => {
            let end = end_of(until).parse().map_err(|_| {
                Stop::wrong(format!(
                    "`{until}` is no end; write a day such as 2026-12-01, or a time such as 2026-12-01T18:00:00Z"
                ))
            })?;
            let (suite, name, job) = (suite.clone(), name.clone(), job.clone());
            let wanted = NewQuarantine { suite, name, job, owner: owner.clone(), reason: reason.clone(), until: end };
            let client = remote.client()?;
            let put = ask(async { client.quarantine_put(project, &wanted).await.map_err(stop) })?;
            format!(
                "{} is in quarantine until {}; builds of {project} asked for from now on name it in ROPEWALK_QUARANTINE\n",
                title(&put),
                put.until.in_seconds()
            )
        }
        QuarantineCommand::Remove { remote, project, name, suite, job } => {
            let client = remote.client()?;
            ask(async { client.quarantine_delete(project, (suite, name), job.as_deref()).await.map_err(stop) })?;
            format!("{name} is in quarantine no more\n")
        }
    };
    output::print(told)?;
    Ok(exit::PASSED)
}

fn title(test: &Quarantined) -> String {
    if test.suite.is_empty() { test.name.clone() } else { format!("{} {}", test.suite, test.name) }
}

fn table(tests: &[Quarantined], paint: Paint) -> String {
    if tests.is_empty() {
        return "no test is in quarantine\n".to_owned();
    }
    let mut columns = Columns::default();
    columns.titles(["test", "job", "owner", "until", "", "passed last", "reason"]);
    for test in tests {
        let state = match test.state {
            QuarantineState::Expired => "expired, counts no more",
            QuarantineState::EndsSoon => "ends soon",
            QuarantineState::InForce => "",
        };
        let until = test.until.to_string();
        let passed = test.passed_last.filter(|n| *n > 0).map(|n| format!("{n} times")).unwrap_or_default();
        columns.row([
            Cell::new(one_line(&title(test))),
            Cell::new(test.job.as_deref().unwrap_or("any")),
            Cell::new(&test.owner),
            Cell::new(until.get(..10).unwrap_or(&until)),
            Cell::new(state),
            Cell::right(passed),
            Cell::new(one_line(&test.reason)),
        ]);
    }
    columns.text(paint, 0)
}
