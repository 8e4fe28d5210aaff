//! `ropewalk urge`: moves a build of a server to the top of the queue.

use graph::Verdict;

use super::Stop;
use crate::archive::Archive;
use crate::args::Urge;
use crate::project::Project;
use crate::remote::SERVER_VARIABLE;
use crate::{exit, output, words};

/// Runs the command.
///
/// # Errors
/// If no server is named, or there is no such build there, or it has ended.
pub fn run(arguments: &Urge, project: &Project) -> Result<u8, Stop> {
    let Some(there) = arguments.at.there(project)? else {
        return Err(Stop::wrong(format!(
            "on this machine no build waits behind others: name a server by --server URL, or in ${SERVER_VARIABLE}"
        )));
    };
    let build = there.find_running(&arguments.build)?;
    let number = build.build;
    if build.verdict != Verdict::Running {
        let (at, verdict) = (there.whereabouts(), words::verdict(&build.verdict));
        let (retry, submit) = (at.command(format_args!("retry {number}")), at.command("submit --urgent"));
        return Err(Stop::wrong(format!(
            "build {number} has ended already: it {verdict}; `{retry}` tries it again, `{submit}` asks for a new build"
        )));
    }
    let said = api::build::Urge { reason: arguments.reason.clone().unwrap_or_default() };
    there.link.ask(there.link.client.build_urge(number, &said))?;
    let show = there.whereabouts().command(format_args!("show {number}"));
    output::print(format!("build {number} goes before those that are not urgent: {show}\n"))?;
    Ok(exit::PASSED)
}
