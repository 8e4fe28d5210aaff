//! What measurements of a server share: a server with its workers and a client, builds that are waited for, and what
//! processes use.

use std::fs;
use std::time::{Duration, Instant};

use api::build::{BuildFilter, VerdictWord};
use api::client::{Client, Logs, PageWanted};
use api::event::Moment;
use graph::{BuildId, Digest};
use tokio::time::sleep;

use super::{Bench, Row};
use crate::fleet::{self, Fleet, Listen, PATIENCE, PROJECT, Process};

/// What stands first in pipelines here.
pub const HEAD: &str = "defaults: { environment: host }\n";
/// What servers are told: no build ends another one, and builds that were filled in are as old as they are and stay.
pub const ENVIRONMENT: [(&str, &str); 2] =
    [("ROPEWALK_BUILDS_AUTO_CANCEL", "off"), ("ROPEWALK_BUILDS_KEEP_FOR", "36500d")];
/// How long a burst or a large log may take before its row is given up.
pub const LONGEST: Duration = Duration::from_secs(120);

/// What bounds a figure.
#[derive(Clone, Copy)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    None,
}

/// A row without a peer.
pub fn row(name: &str, ours: f64, unit: &'static str, goal: Goal) -> Row {
    match goal {
        Goal::AtMost(most) => Row::at_most(name, "the goal", ours, most, unit, 1.0),
        Goal::AtLeast(least) => Row::at_least(name, "the goal", ours, least, unit, 1.0),
        Goal::None => Row::compared(name, "-", ours, ours, unit),
    }
}

/// The value below which `share` of `values` lie.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(((last as f64) * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// In milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// An error as people read it.
pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// One part of the measurements, within a limit. One that cannot be taken does not hide the others.
pub fn part(bench: &Bench, name: &str, limit: Duration, measured: impl AsyncFnOnce(&Bench) -> Rows) -> Rows {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
    let measured = async { tokio::time::timeout(limit, measured(bench)).await };
    let rows = tokio::task::LocalSet::new().block_on(&runtime, measured);
    let rows = rows.unwrap_or_else(|_| Err(format!("given up after {} s", limit.as_secs())));
    Ok(rows.unwrap_or_else(|error| {
        eprintln!("  {name}: {error}");
        let row = row(&format!("{name}: {error}"), f64::NAN, "", Goal::None);
        vec![Row { met: false, goal: "to be measured".to_owned(), ..row }]
    }))
}

/// What a measurement gives.
pub type Rows = Result<Vec<Row>, String>;

/// A server, workers and a client.
pub struct Site {
    /// An administrator's.
    pub client: Client,
    /// The workers.
    pub workers: Vec<Process>,
    /// The server.
    pub server: Process,
    /// Where all is.
    pub fleet: Fleet,
}

/// What works for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// Real ones, so many, each of so many jobs at once.
    Real(usize, usize),
    /// Such as run nothing.
    Simulated(usize, usize),
}

impl Site {
    /// A fresh server with workers.
    ///
    /// # Errors
    /// If one of them does not come.
    pub async fn new(bench: &Bench, workers: Workers) -> Result<Self, String> {
        Self::of(Fleet::new(&bench.ropewalk, &bench.folder.join("site"), &ENVIRONMENT, Listen::Loopback)?, workers)
            .await
    }

    /// A server of this installation with workers.
    ///
    /// # Errors
    /// If one of them does not come.
    pub async fn of(fleet: Fleet, workers: Workers) -> Result<Self, String> {
        let client = fleet.client()?;
        let server = fleet.serve()?;
        fleet.answers(&client).await?;
        let begin = |index| match workers {
            Workers::Real(_, capacity) => fleet.work(&format!("worker{index}"), fleet.address(), capacity),
            Workers::Simulated(_, capacity) => fleet.simulate(&format!("worker{index}"), capacity),
        };
        let (Workers::Real(count, _) | Workers::Simulated(count, _)) = workers;
        let workers = (0..count).map(begin).collect::<Result<Vec<_>, _>>()?;
        fleet.joined(&client, workers.len()).await?;
        Ok(Self { client, workers, server, fleet })
    }

    /// Asks for a build of its own.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn submit(&self, source: Digest, name: String) -> Result<BuildId, String> {
        self.client.build_submit(&fleet::request(source, name)).await.map(|made| made.build).map_err(text)
    }

    /// Ends all of it.
    pub async fn end(mut self) -> Fleet {
        for worker in &mut self.workers {
            worker.end().await;
        }
        self.server.end().await;
        self.fleet
    }
}

/// A process and all that it started, still alive.
pub fn family(id: u32) -> Vec<u32> {
    let mut family = vec![id];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        next += 1;
        for task in fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
    }
    family
}

/// The resident set of a family in MiB.
pub fn resident_mib(ids: &[u32]) -> f64 {
    let of = |id: &u32| {
        let text = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0)
    };
    ids.iter().map(of).sum::<f64>() / 1024.0
}

/// The time on a processor of a family in milliseconds, threads that have ended included, to 10 ms.
pub fn cpu_ms(ids: &[u32]) -> f64 {
    let of = |id: &u32| {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // Behind the name, which may hold anything: fields 14 and 15 of proc(5), in ticks of 10 ms.
        let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
    };
    ids.iter().map(of).sum::<f64>() * 10.0
}

/// When a build's first line came and when its end, since `began`, both as a reader saw them.
pub async fn timed(client: &Client, build: BuildId, began: Instant, logs: Logs) -> Result<(f64, f64), String> {
    let mut moments = client.build_stream(build, logs, None);
    let mut first = f64::NAN;
    loop {
        let next = tokio::time::timeout(PATIENCE, moments.next()).await;
        let Some(told) = next.map_err(|_| "a build did not end")?.map_err(text)? else { break };
        match told.moment {
            Moment::Log { .. } if first.is_nan() => first = ms(began.elapsed()),
            Moment::BuildFinished { verdict: VerdictWord::Passed, .. } => return Ok((first, ms(began.elapsed()))),
            Moment::BuildFinished { text, .. } => return Err(format!("a build {text}")),
            _ => {}
        }
    }
    Err("a stream ended before its build".to_owned())
}

/// Builds of one job that prints a line, one after another while its log is followed: from the request to the first line, in ms.
pub async fn first_lines(site: &Site, builds: usize) -> Result<Vec<f64>, String> {
    one_after_another(site, "echo hi", Logs::With, builds).await.map(|(firsts, _)| firsts)
}

/// Builds of one job that does nothing, one after another: from the request to the end, in ms.
pub async fn ends(site: &Site, builds: usize) -> Result<Vec<f64>, String> {
    one_after_another(site, "'true'", Logs::Without, builds).await.map(|(_, ends)| ends)
}

async fn one_after_another(
    site: &Site,
    script: &str,
    logs: Logs,
    builds: usize,
) -> Result<(Vec<f64>, Vec<f64>), String> {
    let source = fleet::upload(&site.client, &format!("{HEAD}jobs:\n  a: {{ run: {script} }}\n")).await?;
    let (mut firsts, mut ends) = (Vec::new(), Vec::new());
    for index in 0..builds + 10 {
        let began = Instant::now();
        let build = site.submit(source, format!("{script} {index}")).await?;
        let (first, end) = timed(&site.client, build, began, logs).await?;
        // The first ten warm what is kept.
        if index >= 10 {
            firsts.push(first);
            ends.push(end);
        }
    }
    Ok((firsts, ends))
}

/// Waits until no build runs; how many of the project ended in each way.
pub async fn ended(client: &Client) -> Result<(usize, usize), String> {
    let running = BuildFilter { verdict: Some(VerdictWord::Running), ..BuildFilter::default() };
    let one = PageWanted { cursor: None, limit: Some(1) };
    let began = Instant::now();
    while !client.build_list(&running, &one).await.map_err(text)?.items.is_empty() {
        if began.elapsed() > LONGEST {
            return Err("builds do not end".to_owned());
        }
        sleep(Duration::from_millis(10)).await;
    }
    let all = BuildFilter { project: Some(PROJECT.to_owned()), ..BuildFilter::default() };
    let (mut passed, mut other) = (0, 0);
    let mut page = PageWanted { cursor: None, limit: Some(1000) };
    loop {
        let found = client.build_list(&all, &page).await.map_err(text)?;
        let of_these = found.items.iter().filter(|build| build.verdict == VerdictWord::Passed).count();
        passed += of_these;
        other += found.items.len() - of_these;
        match found.next {
            Some(next) => page.cursor = Some(next),
            None => return Ok((passed, other)),
        }
    }
}
