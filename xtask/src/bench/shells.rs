//! A shell in what a step left, through a server: on the worker that ran it, and on another one when the first is gone with its disk.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use api::client::Logs;
use api::worker_view::WorkerState;
use graph::BuildId;
use tokio::time::sleep;

use super::measure::{median, time_ms};
use super::site::{Goal, HEAD, Rows, Site, Workers, part, row, text, timed};
use super::{Bench, Size};
use crate::fleet::{self, PATIENCE};

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(150);
/// How many files the step changes.
const FILES: usize = 2_000;
/// How long each of them is at least, in bytes.
const FILE_BYTES: usize = 1_000;

/// The measurement.
pub fn shells(bench: &Bench) -> Rows {
    part(bench, "a shell through a server", LIMIT, entered)
}

async fn entered(bench: &Bench) -> Rows {
    let mut site = Site::new(bench, Workers::Real(2, 2)).await?;
    let (mut own, mut other, mut again, mut next) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let rounds = if bench.size == Size::Full { bench.rounds.clamp(1, 5) } else { 1 };
    for round in 0..rounds {
        let source = fleet::upload(&site.client, &pipeline(bench.sized(FILES), round)).await?;
        let build = site.submit(source, format!("shell {round}")).await?;
        timed(&site.client, build, Instant::now(), Logs::Without).await?;
        let runner = sent_by(&site, build).await?;
        let folder = site.fleet.folder().to_owned();
        let address = site.fleet.address().to_owned();
        let enter = |at: &str| time_ms(&mut shell(bench, &folder, &address, build, at));
        own.push(enter("a@make")?);
        site.workers[runner].kill();
        let name = format!("worker{runner}");
        std::fs::remove_dir_all(folder.join(&name)).map_err(text)?;
        alone(&site).await?;
        other.push(enter("a@make")?);
        again.push(enter("a@make")?);
        next.push(enter("a@change")?);
        site.workers[runner] = site.fleet.work(&name, site.fleet.address(), 2)?;
        site.fleet.joined(&site.client, 2).await?;
    }
    let rows = vec![
        row(
            "a shell in a step of 2,000 files, on another worker, its own gone",
            median(&mut other),
            "ms",
            Goal::AtMost(1000.0),
        ),
        row("the same again, the files being there", median(&mut again), "ms", Goal::AtMost(1000.0)),
        row("another step of the same attempt", median(&mut next), "ms", Goal::AtMost(1000.0)),
        row("a shell on the worker that ran it", median(&mut own), "ms", Goal::AtMost(1000.0)),
    ];
    site.end().await;
    Ok(rows)
}

/// Steps of which one writes files that no other build has, and the next changes one of ten.
fn pipeline(files: usize, round: usize) -> String {
    let line = "x".repeat(FILE_BYTES);
    let make = format!(
        "mkdir -p out; cd out; i=0; while [ $i -lt {files} ]; do d=$((i % 50)); [ -d $d ] || mkdir $d; \
         echo \"{round} $i {line}\" > $d/$i; i=$((i+1)); done"
    );
    let change = format!("cd out; i=0; while [ $i -lt {files} ]; do echo more >> $((i % 50))/$i; i=$((i+10)); done");
    format!(
        "{HEAD}jobs:\n  a:\n    run:\n      - {{ name: make, run: '{make}' }}\n      - {{ name: change, run: '{change}' }}\n      - \"true\"\n"
    )
}

/// Waits until the server has noticed that one of both workers is gone.
async fn alone(site: &Site) -> Result<(), String> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let list = site.client.worker_list().await.map_err(text)?;
        if list.items.iter().filter(|worker| worker.state == WorkerState::Ready).count() == 1 {
            return Ok(());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Err("the server does not notice that a worker is gone".to_owned())
}

/// The worker that ran the job of the files, once it has sent what it left.
async fn sent_by(site: &Site, build: BuildId) -> Result<usize, String> {
    let has = |index: usize| {
        let attempts = site.fleet.folder().join(format!("worker{index}/workspaces/{build}"));
        let attempts = std::fs::read_dir(attempts).into_iter().flatten().flatten();
        attempts.map(|attempt| attempt.path()).any(|attempt| is_of_files(&attempt) && attempt.join("sent").exists())
    };
    let mut found = None;
    eventually(|| {
        found = (0..2).find(|index| has(*index));
        found.is_some()
    })
    .await?;
    found.ok_or_else(|| "nobody has sent it".to_owned())
}

fn is_of_files(attempt: &Path) -> bool {
    attempt.join("upper/out").is_dir()
}

fn shell(bench: &Bench, folder: &Path, address: &str, build: BuildId, at: &str) -> Command {
    let mut command = Command::new(&bench.ropewalk);
    command.args(["shell", &build.to_string(), at, "--server", &format!("http://{address}"), "--token"]);
    command.arg(folder.join("admin")).args(["--", "cat", "out/7/7"]);
    command.current_dir(folder).env("ROPEWALK_DATA", folder.join("home"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

async fn eventually(mut holds: impl FnMut() -> bool) -> Result<(), String> {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() > PATIENCE {
            return Err("nothing came of it".to_owned());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
