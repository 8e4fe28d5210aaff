//! `ropewalk workers`: who works for a server, and who shall not for a while.

use std::time::Duration;

use api::client::Client;
use api::worker_view::{self, Worker, WorkerState};

use super::Stop;
use crate::args::{Colour, ListForm, Workers, WorkersCommand};
use crate::columns::{Cell, Columns, Paint, Style};
use crate::remote::{ask, stop};
use crate::{exit, output, words};

/// How often a drain that is waited for is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Runs the command.
///
/// # Errors
/// If the server cannot be asked or refuses.
pub fn run(arguments: &Workers, colour: Colour) -> Result<u8, Stop> {
    let told = match &arguments.command {
        WorkersCommand::List { remote, output } => {
            let client = remote.client()?;
            let workers = ask(async { client.worker_list().await.map_err(stop) })?.items;
            match output {
                ListForm::Json => format!("{:#}\n", serde_json::to_value(&workers).unwrap_or_default()),
                ListForm::Human => table(&workers, Paint::of(colour, &std::io::stdout())),
            }
        }
        WorkersCommand::Pause(pause) => {
            let client = pause.which.remote.client()?;
            let reason = worker_view::Stop { reason: pause.reason.clone() };
            let worker = ask(async {
                let id = find(&client, &pause.which.worker).await?;
                client.worker_pause(&id, &reason).await.map_err(stop)
            })?;
            format!("{} takes nothing new; {} run on\n", worker.name, words::count(worker.running.len(), "job"))
        }
        WorkersCommand::Drain(drain) => {
            let client = drain.stop.which.remote.client()?;
            let reason = worker_view::Stop { reason: drain.stop.reason.clone() };
            ask(async {
                let id = find(&client, &drain.stop.which.worker).await?;
                let mut worker = client.worker_drain(&id, &reason).await.map_err(stop)?;
                while drain.wait && worker.state != WorkerState::Away {
                    tokio::time::sleep(LOOK_AGAIN).await;
                    worker = client.worker_get(&id).await.map_err(stop)?;
                }
                Ok(match worker.state {
                    WorkerState::Away => format!("{} has left\n", worker.name),
                    _ => format!("{} leaves after {}\n", worker.name, words::count(worker.running.len(), "job")),
                })
            })?
        }
        WorkersCommand::Update(update) => {
            let client = update.stop.which.remote.client()?;
            let reason = worker_view::Stop { reason: update.stop.reason.clone() };
            ask(async {
                let id = find(&client, &update.stop.which.worker).await?;
                let mut worker = client.worker_update(&id, &reason).await.map_err(stop)?;
                while update.wait && worker.state != WorkerState::Ready {
                    tokio::time::sleep(LOOK_AGAIN).await;
                    worker = client.worker_get(&id).await.map_err(stop)?;
                }
                let name = &worker.name;
                Ok(match worker.state {
                    WorkerState::Ready => format!("{name} works again, with version {}\n", worker.version),
                    _ => format!("{name} starts anew after {}\n", words::count(worker.running.len(), "job")),
                })
            })?
        }
        WorkersCommand::Resume(resume) => {
            let client = resume.which.remote.client()?;
            let reason = worker_view::Stop { reason: resume.reason.clone() };
            let worker = ask(async {
                let id = find(&client, &resume.which.worker).await?;
                client.worker_resume(&id, &reason).await.map_err(stop)
            })?;
            match worker.state {
                WorkerState::Away => format!("{} is away; it takes jobs again once it has joined\n", worker.name),
                _ => format!("{} takes jobs again\n", worker.name),
            }
        }
        WorkersCommand::Forget(forget) => {
            let client = forget.which.remote.client()?;
            let reason = worker_view::Stop { reason: forget.reason.clone() };
            ask(async {
                let id = find(&client, &forget.which.worker).await?;
                client.worker_forget(&id, &reason).await.map_err(stop)?;
                Ok(format!("forgot {id}\n"))
            })?
        }
    };
    output::print(told)?;
    Ok(exit::PASSED)
}

/// The id of the one worker that is meant.
async fn find(client: &Client, wanted: &str) -> Result<String, Stop> {
    let workers = client.worker_list().await.map_err(stop)?.items;
    let of = |is_meant: &dyn Fn(&Worker) -> bool| workers.iter().filter(|worker| is_meant(worker)).collect::<Vec<_>>();
    let exact = of(&|worker| worker.id == wanted);
    let named = of(&|worker| worker.name == wanted);
    let begun = of(&|worker| !wanted.is_empty() && worker.id.starts_with(wanted));
    for found in [exact, named, begun] {
        match found.as_slice() {
            [] => {}
            [worker] => return Ok(worker.id.clone()),
            several => {
                let ids: Vec<&str> = several.iter().map(|worker| worker.id.as_str()).collect();
                return Err(Stop::wrong(format!("{wanted} may be any of {}: give the id", ids.join(", "))));
            }
        }
    }
    Err(Stop::wrong(format!("there is no worker {wanted}: `ropewalk workers list` shows all")))
}

/// Who closed it, and why if they said it.
pub fn said(by: &str, reason: &str) -> String {
    if reason.is_empty() { by.to_owned() } else { format!("{by}: {reason}") }
}

fn table(workers: &[Worker], paint: Paint) -> String {
    if workers.is_empty() {
        return "no worker has joined: `ropewalk work --server URL --token FILE` starts one\n".to_owned();
    }
    let mut columns = Columns::default();
    columns.titles(["worker", "name", "state", "runs", "version", "pools", "labels", "why"]);
    for worker in workers {
        let (word, style) = match (worker.state, &worker.closed) {
            (WorkerState::Ready, None) => ("ready", Style::Good),
            (WorkerState::Ready, Some(_)) => ("closed", Style::Warning),
            (WorkerState::Paused, _) => ("paused", Style::Warning),
            (WorkerState::Draining, _) => ("draining", Style::Warning),
            (WorkerState::Away, _) => ("away", Style::Dim),
        };
        let held = worker.held.as_ref().map(|held| said(&held.by, &held.reason));
        let why: Vec<String> = held.into_iter().chain(worker.closed.clone()).collect();
        columns.row([
            Cell::new(crate::columns::cut(&worker.id, 12)),
            Cell::new(&worker.name),
            Cell::new(word).style(style),
            Cell::new(format!("{}/{}", worker.running.len(), worker.slots)),
            Cell::new(&worker.version),
            Cell::new(worker.pools.iter().map(|pool| super::token::shown_pool(pool)).collect::<Vec<_>>().join(", ")),
            Cell::new(worker.labels.join(", ")),
            Cell::new(why.join("; ")),
        ]);
    }
    columns.text(paint, 0)
}
