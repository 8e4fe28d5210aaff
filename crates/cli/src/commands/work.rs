//! `ropewalk work`: runs jobs of a server on this machine.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::worker::{Offer, Then};
use graph::Resources;
use server::notices;
use server::settings::LogForm;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use worker::keeper::{Keeper, Processes};

use super::Stop;
use crate::agent::attempts::Attempts;
use crate::agent::departure::{Departure, Ending};
use crate::agent::health::{Health, Room};
use crate::agent::identity::{Identity, IfTaken};
use crate::agent::link::Link;
use crate::agent::outbox::Outbox;
use crate::agent::session::{Agent, Place, Settings, say};
use crate::args::{ListForm, Work};
use crate::{exit, remote};

/// How much room the disk must have, where no flag says it.
const MIN_FREE_VARIABLE: &str = "ROPEWALK_WORKER_MIN_FREE";

/// The fewest bytes that contents may take.
const CONTENTS_BYTES_MIN: u64 = 64 << 20;

/// Runs the command.
///
/// # Errors
/// If the worker cannot begin, or the server refuses it for good; it has been told.
pub fn run(work: &Work) -> Result<u8, Stop> {
    notices::set_form(match work.log {
        ListForm::Human => LogForm::Human,
        ListForm::Json => LogForm::Json,
    });
    run_as_told(work).map_err(told_as_notice)
}

/// Tells why a process ends that writes a log of its own, in the form of that; what is left is the exit code.
pub fn told_as_notice(stop: Stop) -> Stop {
    if !stop.message.is_empty() {
        notices::error(&stop.message);
    }
    Stop { message: String::new(), ..stop }
}

fn run_as_told(work: &Work) -> Result<u8, Stop> {
    let settings = settings(work)?;
    let room = room(work)?;
    // Of now: the file may be replaced, and its name is then that of the new one.
    let program = own_program().map_err(|error| Stop::infra(error.to_string()))?;
    // Before there is any thread.
    let keeper = Keeper::start().map_err(|error| Stop::of(&error))?;
    let data = data_folder(work)?;
    let if_taken = if work.orphaned_after.is_some() { IfTaken::Wait } else { IfTaken::Refuse };
    let identity = Identity::open(&data, if_taken).map_err(Stop::infra)?;
    let data = data.canonicalize().map_err(|error| Stop::infra(error.to_string()))?;
    let killed = worker::keeper::kill_leftovers(&worker::data_marker_prefix(&data));
    if !killed.is_empty() {
        say(&format!("ended {} processes that a killed worker had left", killed.len()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .map_err(|error| Stop::infra(format!("could not start: {error}")))?;
    let local = tokio::task::LocalSet::new();
    let worked = local.block_on(&runtime, at_work(work, settings, room, keeper, identity, data));
    runtime.shutdown_background();
    match worked? {
        Then::Leave => Ok(exit::PASSED),
        Then::StartAnew => Err(start_anew(&program)),
    }
}

/// Becomes the program that is in the file now, with the same arguments; what is told is why it did not. What this
/// process held, its lock on the folder among it, is closed by the kernel as the program begins.
fn start_anew(program: &Path) -> Stop {
    say(&format!("starting {} anew", program.display()));
    let error = Command::new(program).args(std::env::args_os().skip(1)).exec();
    Stop::infra(format!("cannot start {}: {error}", program.display()))
}

/// The file of this program under the name by which it was started: a link may lead to a newer one by the time that it is
/// started again.
///
/// # Errors
/// If the system does not say which file it is.
pub fn own_program() -> io::Result<PathBuf> {
    let running = std::env::current_exe()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::args_os().next().zip(std::env::current_dir().ok());
    let named = named.and_then(|(name, directory)| named_program(Path::new(&name), &path, &directory));
    // Whoever starts a program may call it anything.
    Ok(named.filter(|named| named.canonicalize().is_ok_and(|named| named == running)).unwrap_or(running))
}

/// The file that a shell in `directory` starts by this name.
fn named_program(name: &Path, path: &OsStr, directory: &Path) -> Option<PathBuf> {
    if name.parent().is_some_and(|parent| !parent.as_os_str().is_empty()) {
        return Some(directory.join(name));
    }
    std::env::split_paths(path).map(|folder| directory.join(folder).join(name)).find(|file| file.is_file())
}

/// What the worker goes by: the servers and the token that flags name, or else variables.
fn settings(work: &Work) -> Result<Settings, Stop> {
    let servers = match work.servers.as_slice() {
        [] => vec![remote::server_named(None)?],
        named => named.to_vec(),
    };
    Ok(Settings {
        servers: servers.iter().map(|text| Place::parse(text)).collect(),
        token: remote::token_file(work.token.as_deref())?,
        offer: offer(work),
        orphaned_after: work.orphaned_after.map(Duration::from_secs),
    })
}

/// `--min-free`, else the variable, which is that of the server's setting for the worker beside it.
fn room(work: &Work) -> Result<Room, Stop> {
    let named = || std::env::var(MIN_FREE_VARIABLE).ok().filter(|text| !text.is_empty());
    match (work.min_free, named()) {
        (Some(room), _) => Ok(room),
        (None, None) => Ok(Room::Usual),
        (None, Some(text)) => text.parse().map_err(|error| Stop::wrong(format!("{MIN_FREE_VARIABLE}: {error}"))),
    }
}

async fn at_work(
    work: &Work,
    settings: Settings,
    room: Room,
    keeper: Keeper,
    identity: Identity,
    data: PathBuf,
) -> Result<Then, Stop> {
    let failed =
        |error: std::io::Error| Stop::infra(format!("cannot use the worker's folder {}: {error}", data.display()));
    let processes = Processes::attach(keeper).map_err(|error| Stop::of(&error))?;
    let contents_bytes_max = match work.keep_contents {
        Some(Room::Bytes(bytes)) => bytes.max(CONTENTS_BYTES_MIN),
        _ => crate::agent::content::BYTES_MAX,
    };
    let link = Arc::new(Link::open(&data, contents_bytes_max).map_err(failed)?);
    let (outbox, lost) = Outbox::open(data.join("spool")).map_err(failed)?;
    let outbox = Arc::new(outbox);
    let grace = Duration::from_secs(work.grace);
    let (sender, ending) = watch::channel(Ending::No);
    let signals = tokio::task::spawn_local(wait_for_signals(sender));
    let departure = Departure::new(ending.clone());
    let health = Health { data: data.clone(), room, check: work.health_check.clone(), last: None, low: None };
    let (calls, said) = (Arc::clone(&link), Arc::clone(&outbox));
    let attempts = Attempts::new(processes.clone(), grace, calls, said, departure, health, &lost);
    match worker::container::remove_leftovers(&data, |_| false).await {
        Ok(0) => {}
        Ok(count) => say(&format!("removed {count} containers, networks and volumes that a killed worker had left")),
        Err(error) => say(&format!("containers that a killed worker had left were not removed: {}", error.with_hint())),
    }
    let attempts = Rc::new(attempts);
    attempts.send_earlier();
    let (calls, running) = (Arc::clone(&link), Rc::clone(&attempts));
    let then = Cell::new(None);
    let here = data.clone();
    let agent = Agent { settings, identity, link, outbox, attempts, data, ending, then };
    let worked = agent.run().await;
    // A worker that is refused for good may run something yet: it ends and is told in the next life. No thread may wait for a
    // server once the runtime is gone.
    running.end_all();
    let _ = tokio::task::spawn_blocking(move || calls.close()).await;
    running.ended().await;
    // Shells that people have open end with the worker.
    let shells = crate::agent::visit::marker_prefix(&here);
    let _ = tokio::task::spawn_blocking(move || worker::keeper::kill_leftovers(&shells)).await;
    running.end_spares().await;
    processes.close().await;
    let Agent { identity, link, outbox, attempts, .. } = agent;
    drop((running, link, outbox, attempts));
    // The last that is held: the folder is free for another worker from here on.
    drop(identity);
    let left = worked?;
    if let Some(farewell) = left.farewell {
        farewell.say().await;
    }
    signals.abort();
    Ok(left.then)
}

/// `--data`, else a folder of this user's.
fn data_folder(work: &Work) -> Result<PathBuf, Stop> {
    match &work.data {
        Some(data) => Ok(std::env::current_dir().unwrap_or_default().join(data)),
        None => Ok(crate::project::data_home().map_err(Stop::wrong)?.join("worker")),
    }
}

fn offer(work: &Work) -> Offer {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = u32::try_from(cores).unwrap_or(u32::MAX);
    let memory_bytes = match work.memory {
        Some(Room::Bytes(bytes)) => bytes,
        _ => memory_of_machine().unwrap_or(0),
    };
    let mut labels: BTreeSet<String> =
        work.labels.iter().flat_map(|labels| labels.split(',')).map(|label| label.trim().to_owned()).collect();
    labels.remove("");
    labels.extend(crate::machine::labels());
    Offer {
        name: work.name.clone().unwrap_or_else(host_name),
        pools: work.pools.iter().map(|name| super::token::pool_name(name)).collect(),
        labels,
        slots: if work.capacity == 0 { cores } else { work.capacity },
        resources: Resources { cpu_milli: u64::from(work.cpus.unwrap_or(cores)) * 1000, memory_bytes },
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What the kernel says that there is.
fn memory_of_machine() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The first SIGTERM or Ctrl-C lets what runs end, the second ends it.
async fn wait_for_signals(ending: watch::Sender<Ending>) {
    let (Ok(mut interrupts), Ok(mut terminates)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    loop {
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terminates.recv() => {}
        }
        if *ending.borrow() == Ending::No {
            say("finishing what runs, then leaving; once more ends it at once");
            let _ = ending.send(Ending::Drain);
        } else {
            if *ending.borrow() == Ending::Drain {
                say("ending what runs at once; its jobs are tried again, here or elsewhere");
            }
            let _ = ending.send(Ending::Now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_the_name_by_which_it_was_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = folder.path();
        std::fs::create_dir(directory.join("bin")).expect("a folder");
        std::fs::write(directory.join("bin/ropewalk"), "").expect("a file");
        let bin = directory.join("bin");
        let path = std::env::join_paths([Path::new("/nowhere"), &bin]).expect("a path");
        let found = |name: &str| named_program(Path::new(name), &path, directory);
        assert_eq!(found("ropewalk"), Some(bin.join("ropewalk")));
        assert_eq!(found("./bin/ropewalk"), Some(directory.join("./bin/ropewalk")));
        assert_eq!(found("/opt/ropewalk"), Some(PathBuf::from("/opt/ropewalk")));
        assert_eq!(found("other"), None);
    }
}
