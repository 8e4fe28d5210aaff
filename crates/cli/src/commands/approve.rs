//! `ropewalk approve`: answers a gate. If no process runs the build, this one goes on with it.

use std::collections::BTreeMap;

use engine::Input;
use graph::JobName;
use serde_json::Value;

use super::Stop;
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
    let (build, job, answer) = {
        let places = Places::open(project)?;
        let build = places.build(&arguments.build)?;
        let gates = places.store.open_gates(build)?;
        let Some(gate) = gates.iter().find(|gate| gate.job.as_str() == arguments.gate) else {
            let names: Vec<_> = gates.iter().map(|gate| format!("`{}`", gate.job)).collect();
            let hint = if names.is_empty() {
                "no gate of it waits".to_owned()
            } else {
                format!("these wait: {}", names.join(", "))
            };
            return Err(Stop::wrong(format!("`{}` is no gate of build {build} that waits: {hint}", arguments.gate)));
        };
        let job: JobName = gate.job.clone();
        let answer = if arguments.refuse { None } else { Some(answer(arguments, &places, build, &job)?) };
        (build, job, answer)
    };
    let by = worker::repository::user_name();
    let request = Request::Answer { job: job.clone(), answer: answer.clone(), by: by.clone() };
    match control::send(&project.data, build, &request).map_err(Stop::infra)? {
        Sent::Taken => {
            output::print(format!("{job}: {}\n", if answer.is_some() { "approved" } else { "refused" }))?;
            Ok(exit::PASSED)
        }
        Sent::NobodyThere => {
            let input = Input::GateAnswered { build, job, answer, by };
            super::run::resume(Some(build), &arguments.how, project, colour, vec![input])
        }
    }
}

fn answer(
    arguments: &Approve,
    places: &Places,
    build: graph::BuildId,
    job: &JobName,
) -> Result<BTreeMap<String, Value>, Stop> {
    let mut given = BTreeMap::new();
    for field in &arguments.fields {
        let (name, value) =
            field.split_once('=').ok_or_else(|| Stop::wrong(format!("--field takes NAME=VALUE, not `{field}`")))?;
        given.insert(name.to_owned(), Value::from(value));
    }
    let graph = places.store.graph(build)?;
    let fields = graph
        .as_ref()
        .and_then(|graph| graph.jobs.get(job))
        .and_then(|job| job.gate.as_ref())
        .map(|gate| gate.fields.clone())
        .unwrap_or_default();
    event::typed(&given, &fields, event::Asked::Field).map_err(Stop::wrong)
}
