//! `ropewalk workers`: who works for a server, and who shall not for a while.

mod leaving;

use std::time::Duration;

use api::client::Client;
use api::worker_view::{self, Worker, WorkerState};

use super::Stop;
use crate::args::{Colour, ListForm, Workers, WorkersCommand};
use crate::columns::{Cell, Columns, Paint, Style};
use crate::remote::{ask, stop};
use crate::{exit, output, words};

use leaving::{AWAY_MAX, Leaving, Stands};

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
                let worker = client.worker_drain(&id, &reason).await.map_err(stop)?;
                let (worker, stands) = waited(&client, worker, drain.wait, Duration::ZERO).await?;
                let name = &worker.name;
                match stands {
                    Stands::Away(_) => Ok(format!("{name} has left\n")),
                    Stands::Again => Ok(format!("{name} has left, and joined again\n")),
                    Stands::Leaving => Ok(format!("{name} leaves after {}\n", running(&worker))),
                    Stands::Stays(why) => Err(stays(format!(
                        "{name} {why} meanwhile, and does not leave: `ropewalk workers drain {name}` drains it again"
                    ))),
                }
            })?
        }
        WorkersCommand::Update(update) => {
            let client = update.stop.which.remote.client()?;
            let reason = worker_view::Stop { reason: update.stop.reason.clone() };
            ask(async {
                let id = find(&client, &update.stop.which.worker).await?;
                let worker = client.worker_update(&id, &reason).await.map_err(stop)?;
                let (worker, stands) = waited(&client, worker, update.wait, AWAY_MAX).await?;
                let (name, version) = (&worker.name, &worker.version);
                match stands {
                    Stands::Again if worker.state == WorkerState::Paused => {
                        Ok(format!("{name} is there again, with version {version}, and still paused\n"))
                    }
                    Stands::Again => Ok(format!("{name} works again, with version {version}\n")),
                    Stands::Leaving => Ok(format!("{name} starts anew after {}\n", running(&worker))),
                    Stands::Away(_) if !update.wait => Ok(format!("{name} starts anew\n")),
                    Stands::Away(_) => Err(stays(format!(
                        "{name} left to start anew {} seconds ago and has not joined again: see what it says on its machine, put a program \
                         that runs in the place of the new one, and start it",
                        AWAY_MAX.as_secs()
                    ))),
                    Stands::Stays(why) => Err(stays(format!(
                        "{name} {why} meanwhile, and was not updated: `ropewalk workers update {name}` asks for it again"
                    ))),
                }
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

/// How a worker that was told to leave stands at last; at once if nobody waits. One that is away is waited for until it has been so for `away_max`.
async fn waited(client: &Client, mut worker: Worker, wait: bool, away_max: Duration) -> Result<(Worker, Stands), Stop> {
    let (begun, mut leaving) = (tokio::time::Instant::now(), Leaving::default());
    loop {
        let stands = leaving.look(&worker, begun.elapsed());
        let is_over = match &stands {
            Stands::Leaving => false,
            Stands::Away(time) => *time >= away_max,
            Stands::Again | Stands::Stays(_) => true,
        };
        if is_over || !wait {
            return Ok((worker, stands));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        worker = client.worker_get(&worker.id).await.map_err(stop)?;
    }
}

/// What was waited for does not come.
fn stays(message: String) -> Stop {
    Stop { code: exit::FAILED, message, said: None }
}

fn running(worker: &Worker) -> String {
    words::count(worker.running.len(), "job")
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
