//! `ropewalk approve`: answers a gate. If no process runs the build, this one goes on with it.

use std::collections::BTreeMap;

use api::job::GateAnswer;
use engine::Input;
use graph::{BuildId, JobName};
use serde_json::Value;
use worker::keeper::Keeper;

use super::Stop;
use super::run::Taken;
use crate::archive::{Archive, There};
use crate::args::{Approve, Colour};
use crate::control::{self, Request, Sent};
use crate::places::Places;
use crate::project::Project;
use crate::{event, exit, output};

/// Runs the command.
///
/// # Errors
/// If there is no such gate, it does not wait, or a field is wrong.
pub fn run(arguments: &Approve, project: &Project, colour: Colour) -> Result<u8, Stop> {
    if let Some(there) = arguments.at.there(project)? {
        return on_server(arguments, &there);
    }
    // Forked before anything can start a thread, should nobody run the build.
    let keeper = Keeper::start().map_err(|error| Stop::of(&error))?;
    let places = Places::open(project)?;
    let Asked { build, job, answer } = asked(arguments, &places)?;
    let by = worker::repository::user_name();
    let reason = arguments.reason.clone().unwrap_or_default();
    let (told, who, why) = (answer.clone(), by.clone(), reason.clone());
    let request = Request::Answer { job: job.clone(), answer: told, by: who, reason: why };
    match control::send_or_claim(&places.data, &*places.store, build, &request)? {
        Sent::Taken => said(&job, answer.is_some()),
        Sent::ToStopped => {
            output::print(format!(
                "build {build} is stopped (Ctrl-Z): it takes the answer when `fg` or `bg` lets it go on\n"
            ))?;
            Ok(exit::PASSED)
        }
        Sent::Claimed(claim) => {
            // Somebody else may have answered before it could be claimed.
            asked(arguments, &places)?;
            let taken = Taken { build, claim, inputs: vec![Input::GateAnswered { build, job, answer, by, reason }] };
            super::run::go_on(taken, keeper, &places, &arguments.how, project, colour)
        }
    }
}

/// A gate and what is said at it; `None` is a no.
struct Asked {
    build: BuildId,
    job: JobName,
    answer: Option<BTreeMap<String, Value>>,
}

/// What was asked for: the gate, which waits, and the answer, which fits it.
fn asked(arguments: &Approve, archive: &dyn Archive) -> Result<Asked, Stop> {
    let build = archive.find_build(&arguments.build)?.build;
    let waiting = archive.open_gates(build)?;
    let Some(gate) = waiting.iter().find(|gate| gate.job.as_str() == arguments.gate) else {
        let names: Vec<_> = waiting.iter().map(|gate| format!("`{}`", gate.job)).collect();
        let hint = if names.is_empty() {
            "no gate of it waits".to_owned()
        } else {
            format!("these wait: {}", names.join(", "))
        };
        return Err(Stop::wrong(format!("`{}` is no gate of build {build} that waits: {hint}", arguments.gate)));
    };
    let job = gate.job.clone();
    let answer = if arguments.reject { None } else { Some(answer(arguments, archive, build, &job)?) };
    Ok(Asked { build, job, answer })
}

fn on_server(arguments: &Approve, there: &There) -> Result<u8, Stop> {
    arguments.how.only_there()?;
    let Asked { build, job, answer: fields } = asked(arguments, there)?;
    let reason = arguments.reason.clone().unwrap_or_default();
    let is_yes = fields.is_some();
    let answer = match fields {
        Some(fields) => GateAnswer::Approve { fields, reason },
        None => GateAnswer::Reject { reason },
    };
    there.link.ask(there.link.client.gate_answer(build, job.as_str(), &answer))?;
    said(&job, is_yes)
}

fn said(job: &JobName, is_yes: bool) -> Result<u8, Stop> {
    output::print(format!("{job}: {}\n", if is_yes { "approved" } else { "rejected" }))?;
    Ok(exit::PASSED)
}

fn answer(
    arguments: &Approve,
    archive: &dyn Archive,
    build: BuildId,
    job: &JobName,
) -> Result<BTreeMap<String, Value>, Stop> {
    let mut given = BTreeMap::new();
    for field in &arguments.fields {
        let (name, value) =
            field.split_once('=').ok_or_else(|| Stop::wrong(format!("--field takes NAME=VALUE, not `{field}`")))?;
        given.insert(name.to_owned(), Value::from(value));
    }
    let graph = archive.graph(build)?;
    let fields = graph
        .as_ref()
        .and_then(|graph| graph.jobs.get(job))
        .and_then(|job| job.gate.as_ref())
        .map(|gate| gate.fields.clone())
        .unwrap_or_default();
    event::typed(&given, &fields, event::Asked::Field).map_err(Stop::wrong)
}
