//! `ropewalk doctor`: what is wrong with an installation, and what to do.

use std::path::Path;

use server::doctor::{Checked, Depth, Serving, examine};
use server::settings::{OnOff, Settings};

use super::Stop;
use crate::args::{Colour, Doctor, ListForm};
use crate::installation::{Holder, SERVE_LOCK, holder};
use crate::local::clock::now;
use crate::{exit, output};

/// Runs the command.
///
/// # Errors
/// If nothing can be printed; what is wrong with the installation is a finding.
pub fn run(arguments: &Doctor, colour: Colour) -> Result<u8, Stop> {
    let installation = &arguments.installation;
    let depth = if arguments.all { Depth::All } else { Depth::Sample };
    let checks = match installation.settings(&[], colour) {
        Ok(loaded) => {
            let mut checks = vec![sound(&loaded.settings)];
            let folder = installation.folder();
            checks.push(lock(&folder));
            let serving = if matches!(holder(&folder), Ok(None)) { Serving::No } else { Serving::Maybe };
            checks.extend(examine(&loaded.settings, &folder, serving, depth, now()));
            if loaded.settings.local_worker == OnOff::On {
                checks.push(isolation());
            }
            checks
        }
        Err(stop) => {
            let mut check = Checked::new("settings");
            let why = if stop.message.is_empty() { "each fault stands above".to_owned() } else { stop.message };
            check.add("the settings are wrong", why, "mend them; `ropewalk config` shows what each key takes");
            vec![check]
        }
    };
    output::print(match arguments.output {
        ListForm::Human => human(&checks),
        ListForm::Json => format!("{:#}\n", serde_json::json!({ "checks": checks })),
    })?;
    let is_well = checks.iter().all(|check| check.findings.is_empty());
    Ok(if is_well { exit::PASSED } else { exit::FAILED })
}

fn sound(settings: &Settings) -> Checked {
    let mut check = Checked::new("settings");
    if !settings.listen.ip().is_loopback() && settings.url.is_none() {
        check.add(
            "`server.url` is not set, and the server listens for other machines",
            format!("links and answers would name {}, which others may not reach", settings.listen),
            "set `server.url` to the address that people and workers use",
        );
    }
    check.seen = "each key is known and of its type".to_owned();
    check
}

/// Who holds the folder: one server at a time may.
fn lock(folder: &Path) -> Checked {
    let mut check = Checked::new("lock");
    match holder(folder) {
        Ok(Some(Holder(holder))) => check.seen = format!("{holder} holds the folder"),
        Ok(None) => check.seen = "no server runs with this folder".to_owned(),
        Err(error) => check.add(
            format!("{SERVE_LOCK} cannot be looked at"),
            error.to_string(),
            "look as the user whom the server runs as",
        ),
    }
    check
}

/// What jobs of the worker beside the server may do that have no walls.
pub const HOST_JOBS: &str = "jobs that run on the host do so as the server's user and can read its keys, so who may submit can do everything: \
                             unless that is meant, set `worker.local` to `off` and run workers as another user or elsewhere";

/// The worker beside the server puts steps into walls.
fn isolation() -> Checked {
    let mut check = Checked::new("isolation");
    if let Err(error) = worker::sandbox::Sandbox::probe() {
        check.add(
            "the worker of this machine cannot wall jobs in",
            Stop::of(&error).message,
            "install bubblewrap and allow it user namespaces, or set `worker.local` to `off`",
        );
    }
    check.seen = format!("bubblewrap works; {HOST_JOBS}");
    check
}

fn human(checks: &[Checked]) -> String {
    let mut text = String::new();
    for check in checks {
        if check.findings.is_empty() {
            text.push_str(&format!("good   {}: {}\n", check.name, check.seen));
        }
        for finding in &check.findings {
            let (what, why, next) = (&finding.what, &finding.why, &finding.next);
            text.push_str(&format!("wrong  {}: {what}\n       why:  {why}\n       next: {next}\n", check.name));
        }
    }
    text
}
