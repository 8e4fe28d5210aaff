//! A server and its workers, all of them real processes: at rest, one build's way from request to reader, bursts, ten thousand
//! jobs with and without running them, the same with very many past builds, live lines, and a log of 1 GiB. The goals are
//! those of issue 4; `$ROPEWALK_PAST_BUILDS` says how many builds to fill in (1,000,000 unless told).

use std::fs;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use api::build::{BuildFilter, VerdictWord};
use api::client::{Client, JobsWanted, LogWanted, Logs, PageWanted};
use api::event::Moment;
use api::log::LogItem;
use graph::BuildId;
use tokio::time::sleep;

use super::logs::{BYTES, peak_kib, write_text};
use super::measure::{median, raw_spawn_ms};
use super::site::{
    Goal, HEAD, LONGEST, Rows, Site, Workers, cpu_ms, ended, ends, family, first_lines, ms, part, quantile,
    resident_mib, row, text, timed,
};
use super::{Bench, Row, Size};
use crate::fleet::{self, Fleet};

/// How long a part may take; its row says so if it takes longer.
const LIMIT: Duration = Duration::from_secs(150);
/// The same, where very many builds are filled in before.
pub const PAST_LIMIT: Duration = Duration::from_secs(420);
/// Builds of which one build's latency is taken.
const BUILDS: usize = 200;
/// How long a server at rest is watched.
const REST: Duration = Duration::from_secs(15);
/// Requests of the burst.
const BURST: usize = 10_000;
/// How many of them are under way at once.
const BURST_WIDTH: usize = 32;
/// How many jobs at once a worker has that runs nothing.
const SIMULATED_SLOTS: usize = 64;
/// Lines of which the way to a reader is timed.
const LINES: usize = 500;
/// Builds beside which list queries are fast in any case.
const FEW: usize = 10_000;
/// Rounds of each list query.
const QUERIES: usize = 200;

/// What a server and a worker cost that have nothing to do.
pub fn rest(bench: &Bench) -> Rows {
    part(bench, "server at rest", LIMIT, at_rest)
}

/// One build of one job after another.
pub fn build(bench: &Bench) -> Rows {
    part(bench, "one build", LIMIT, one_build)
}

/// Lines as they are written.
pub fn live(bench: &Bench) -> Rows {
    part(bench, "live lines", LIMIT, live_lines)
}

/// A log of 1 GiB.
pub fn log(bench: &Bench) -> Rows {
    part(bench, "1 GiB log", LIMIT, one_large_log)
}

/// One build of ten thousand jobs, by workers that run nothing.
pub fn jobs(bench: &Bench) -> Rows {
    part(bench, "10,000 jobs, simulated", LIMIT, jobs_simulated)
}

/// The same, run.
pub fn executed(bench: &Bench) -> Rows {
    part(bench, "10,000 jobs, executed", LIMIT, jobs_executed)
}

/// Ten thousand builds at once.
pub fn burst(bench: &Bench) -> Rows {
    part(bench, "burst", LIMIT, one_burst)
}

/// One build, and lists, beside very many that have ended.
pub fn past(bench: &Bench) -> Rows {
    part(bench, "past builds", PAST_LIMIT, past_builds)
}

async fn at_rest(bench: &Bench) -> Rows {
    let site = Site::new(bench, Workers::Real(1, 2)).await?;
    // One build, so that what is made at first need is there.
    let source = fleet::upload(&site.client, &format!("{HEAD}jobs:\n  a: {{ run: \"true\" }}\n")).await?;
    let build = site.submit(source, "warm".to_owned()).await?;
    timed(&site.client, build, Instant::now(), Logs::Without).await?;
    sleep(Duration::from_secs(3)).await;
    let families = [family(site.server.id()), family(site.workers[0].id())];
    let before = families.each_ref().map(|ids| cpu_ms(ids));
    let rest = if bench.size == Size::Full { REST } else { REST / 15 };
    sleep(rest).await;
    let after = families.each_ref().map(|ids| cpu_ms(ids));
    let share = |index: usize| (after[index] - before[index]) / ms(rest) * 100.0;
    let rows = vec![
        row("server at rest: memory", resident_mib(&families[0]), "MiB", Goal::AtMost(25.0)),
        row("server at rest: processor", share(0), "% of one", Goal::AtMost(0.1)),
        row("worker at rest: memory, its keeper included", resident_mib(&families[1]), "MiB", Goal::AtMost(10.0)),
        row("worker at rest: processor", share(1), "% of one", Goal::AtMost(0.1)),
    ];
    site.end().await;
    Ok(rows)
}

async fn one_build(bench: &Bench) -> Rows {
    let site = Site::new(bench, Workers::Real(1, 2)).await?;
    let mut firsts = first_lines(&site, bench.sized(BUILDS)).await?;
    let mut ends = ends(&site, bench.sized(BUILDS)).await?;
    let rows = vec![
        row("POST to first log byte at a reader, p50", quantile(&mut firsts, 0.5), "ms", Goal::AtMost(5.0)),
        row("POST to first log byte at a reader, p99", quantile(&mut firsts, 0.99), "ms", Goal::AtMost(20.0)),
        row("trigger to finished, p50", quantile(&mut ends, 0.5), "ms", Goal::AtMost(3.0)),
        row("trigger to finished, p99", quantile(&mut ends, 0.99), "ms", Goal::None),
    ];
    site.end().await;
    Ok(rows)
}

async fn one_burst(bench: &Bench) -> Rows {
    let burst = bench.sized(BURST);
    let raw_per_s = burst as f64 / raw_spawn_ms(burst, 2)? * 1000.0;
    let site = Rc::new(Site::new(bench, Workers::Real(2, 2)).await?);
    let source = fleet::upload(&site.client, &format!("{HEAD}jobs:\n  a: {{ run: \"true\" }}\n")).await?;
    let began = Instant::now();
    let askers: Vec<_> = (0..BURST_WIDTH)
        .map(|asker| {
            let site = Rc::clone(&site);
            tokio::task::spawn_local(async move {
                let mut refused = 0;
                for index in (asker..burst).step_by(BURST_WIDTH) {
                    if let Err(error) = site.submit(source, format!("burst {index}")).await {
                        refused += 1;
                        eprintln!("  refused: {error}");
                    }
                }
                refused
            })
        })
        .collect();
    let mut refused = 0;
    for asker in askers {
        refused += asker.await.map_err(text)?;
    }
    let accepted_ms = ms(began.elapsed());
    let (passed, other) = ended(&site.client).await?;
    let took_s = began.elapsed().as_secs_f64();
    let lost = (burst - refused).abs_diff(passed) + other;
    let per_s = burst as f64 / took_s;
    let mut rows = vec![
        row(
            "burst of 10,000 requests: refused",
            f64::from(u32::try_from(refused).unwrap_or(u32::MAX)),
            "requests",
            Goal::AtMost(0.0),
        ),
        row("burst of 10,000 requests: lost, or not passed", lost as f64, "builds", Goal::AtMost(0.0)),
        row("burst: requests durably accepted", burst as f64 / accepted_ms * 1000.0, "per s", Goal::None),
        Row::compared("burst: builds of one job, end to end", "raw spawn, two threads", per_s, raw_per_s, "per s"),
    ];
    for row in &mut rows[..2] {
        row.met = row.ours == 0.0;
    }
    let peak = peak_kib(site.server.id()) as f64 / 1024.0;
    rows.push(row("burst: peak memory of the server", peak, "MiB", Goal::None));
    if let Ok(site) = Rc::try_unwrap(site) {
        site.end().await;
    }
    Ok(rows)
}

async fn jobs_simulated(bench: &Bench) -> Rows {
    let site = Site::new(bench, Workers::Simulated(2, SIMULATED_SLOTS)).await?;
    let per_s = wide(&site, bench.sized(BURST)).await?;
    let peak = peak_kib(site.server.id()) as f64 / 1024.0;
    site.end().await;
    Ok(vec![
        row("10,000 jobs, two workers, execution simulated", per_s, "jobs per s", Goal::AtLeast(500.0)),
        row("10,000 jobs in one build: peak memory of the server", peak, "MiB", Goal::None),
    ])
}

async fn jobs_executed(bench: &Bench) -> Rows {
    let jobs = bench.sized(BURST);
    let raw = jobs as f64 / raw_spawn_ms(jobs, 2)? * 1000.0;
    let site = Site::new(bench, Workers::Real(2, 2)).await?;
    let per_s = wide(&site, jobs).await?;
    site.end().await;
    Ok(vec![Row::compared("10,000 jobs, two workers, executed", "raw spawn, two threads", per_s, raw, "jobs per s")])
}

/// One build of so many jobs, from the request to its end: jobs a second.
async fn wide(site: &Site, jobs: usize) -> Result<f64, String> {
    let mut pipeline = HEAD.to_owned() + "jobs:\n";
    for index in 0..jobs {
        pipeline.push_str(&format!("  j{index:05}: {{ run: \"true\" }}\n"));
    }
    let source = fleet::upload(&site.client, &pipeline).await?;
    let began = Instant::now();
    let build = site.submit(source, "wide".to_owned()).await?;
    let mut moments = site.client.build_stream(build, Logs::Without, None);
    let read = async {
        while let Some(told) = moments.next().await.map_err(text)? {
            if let Moment::BuildFinished { verdict, text, .. } = told.moment {
                return if verdict == VerdictWord::Passed { Ok(()) } else { Err(text) };
            }
        }
        Err("the stream ended".to_owned())
    };
    tokio::time::timeout(LONGEST, read).await.map_err(|_| "they do not end")??;
    Ok(jobs as f64 / began.elapsed().as_secs_f64())
}

async fn live_lines(bench: &Bench) -> Rows {
    let site = Site::new(bench, Workers::Real(1, 2)).await?;
    let rows = live_of(&site, bench.sized(LINES)).await?;
    site.end().await;
    Ok(rows)
}

async fn one_large_log(bench: &Bench) -> Rows {
    let large = bench.folder.join("text");
    let bytes = bench.sized(BYTES);
    write_text(&large, bytes).map_err(text)?;
    let site = Site::new(bench, Workers::Real(1, 2)).await?;
    let rows = large_log(&site, &large, bytes).await?;
    site.end().await;
    Ok(rows)
}

/// Lines that say when they were written, read as they come.
async fn live_of(site: &Site, lines: usize) -> Rows {
    let script = format!("bash -c 'for i in $(seq {lines}); do echo $EPOCHREALTIME; sleep 0.01; done'");
    let source = fleet::upload(&site.client, &format!("{HEAD}jobs:\n  a:\n    run: |\n      {script}\n")).await?;
    let build = site.submit(source, "live".to_owned()).await?;
    let mut moments = pin!(site.client.build_stream(build, Logs::With, None));
    let mut times = Vec::new();
    while let Some(told) = moments.next().await.map_err(text)? {
        let now = SystemTime::UNIX_EPOCH.elapsed().map_err(text)?.as_secs_f64();
        match told.moment {
            Moment::Log { line, .. } => times.extend(line.parse::<f64>().ok().map(|at| (now - at) * 1000.0)),
            Moment::BuildFinished { verdict: VerdictWord::Passed, .. } => break,
            Moment::BuildFinished { text, .. } => return Err(format!("live lines: {text}")),
            _ => {}
        }
    }
    if times.len() != lines {
        return Err(format!("{} lines of {lines} came", times.len()));
    }
    Ok(vec![
        row("line written to line read, p50", quantile(&mut times, 0.5), "ms", Goal::AtMost(5.0)),
        row("line written to line read, p99", quantile(&mut times, 0.99), "ms", Goal::AtMost(200.0)),
    ])
}

/// Prints a text in a job; the build, and how long it took from the request to its end.
pub async fn print_text(site: &Site, large: &Path) -> Result<(BuildId, Duration), String> {
    let pipeline = format!("{HEAD}jobs:\n  a: {{ run: \"cat {}\" }}\n", large.display());
    let source = fleet::upload(&site.client, &pipeline).await?;
    let began = Instant::now();
    let build = site.submit(source, "large".to_owned()).await?;
    let mut moments = site.client.build_stream(build, Logs::Without, None);
    let read = async {
        while let Some(told) = moments.next().await.map_err(text)? {
            if let Moment::BuildFinished { verdict: VerdictWord::Passed, .. } = told.moment {
                return Ok(());
            }
        }
        Err("the build with the large log did not pass".to_owned())
    };
    tokio::time::timeout(LONGEST, read).await.map_err(|_| "a log of 1 GiB does not end")??;
    Ok((build, began.elapsed()))
}

async fn large_log(site: &Site, large: &Path, size: usize) -> Rows {
    let (build, took) = print_text(site, large).await?;
    let in_speed = size as f64 / 1e6 / took.as_secs_f64();
    let speed = |began: Instant| size as f64 / 1e6 / began.elapsed().as_secs_f64();
    let peak = |id: u32| family(id).into_iter().map(peak_kib).sum::<u64>() as f64 / 1024.0;
    let peaks = [peak(site.server.id()), peak(site.workers[0].id())];
    let jobs = site.client.job_list(build, &JobsWanted::default(), &PageWanted::default()).await.map_err(text)?;
    let attempt = jobs.items.first().and_then(|job| job.attempt).ok_or("the job has no attempt")?;
    let began = Instant::now();
    let mut bytes = site.client.log_raw(build, attempt, 0, 0).await.map_err(text)?;
    let mut hasher = blake3::Hasher::new();
    let mut length = 0;
    while let Some(piece) = bytes.next().await.map_err(text)? {
        length += piece.len();
        hasher.update(&piece);
    }
    let out_speed = speed(began);
    let mut wanted = blake3::Hasher::new();
    wanted.update_reader(fs::File::open(large).map_err(text)?).map_err(text)?;
    let is_whole = length == size && hasher.finalize() == wanted.finalize();
    let mut windows = Vec::new();
    // A line of it has at most 100 bytes.
    let lines_apart = size as u64 / 100 / 110;
    for index in 0..100_u64 {
        let part = LogWanted { from: Some(index * lines_apart), count: Some(200), ..LogWanted::default() };
        let began = Instant::now();
        let mut items = site.client.log_items(build, attempt, 0, &part).await.map_err(text)?;
        let mut lines = 0;
        while let Some(item) = items.next().await.map_err(text)? {
            // A line that was written in two parts comes as two items, of which only the last ends it.
            lines += usize::from(matches!(item, LogItem::Line(line) if !line.open));
        }
        if lines != 200 {
            return Err(format!("200 lines from {} on were {lines}", index * lines_apart));
        }
        windows.push(ms(began.elapsed()));
    }
    let exact = row("1 GiB log: every byte back", f64::from(u8::from(is_whole)), "yes is 1", Goal::AtLeast(1.0));
    Ok(vec![
        row("1 GiB log through worker and server", in_speed, "MB/s", Goal::AtLeast(200.0)),
        exact,
        row("1 GiB log: peak memory of the server", peaks[0], "MiB", Goal::AtMost(64.0)),
        row("1 GiB log: peak memory of the worker, its keeper included", peaks[1], "MiB", Goal::AtMost(64.0)),
        row("1 GiB log read back", out_speed, "MB/s", Goal::AtLeast(500.0)),
        row("any 200 lines of it, p50", median(&mut windows), "ms", Goal::AtMost(2.0)),
    ])
}

/// Adds builds that have ended to a server that does not run.
///
/// # Errors
/// If it cannot, or takes longer than [`PAST_LIMIT`].
pub fn fill(bench: &Bench, fleet: &Fleet, count: u64) -> Result<(), String> {
    let folder = fleet.data().join("records");
    let mut command = bench.example("ropewalk-store", "past_builds");
    command.arg(folder).arg(count.to_string());
    let mut child = command.spawn().map_err(text)?;
    let began = Instant::now();
    loop {
        match child.try_wait().map_err(text)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("past builds were not filled in: {status}")),
            None if began.elapsed() > PAST_LIMIT => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("past builds were not filled in within {} s", PAST_LIMIT.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

async fn past_builds(bench: &Bench) -> Rows {
    let many = std::env::var("ROPEWALK_PAST_BUILDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000_usize);
    let (few, many) = (bench.sized(FEW) as u64, bench.sized(many) as u64);
    let mut site = Site::new(bench, Workers::Real(1, 2)).await?;
    let mut all = Vec::new();
    for count in [few, many.saturating_sub(few)] {
        let fleet = site.end().await;
        fill(bench, &fleet, count)?;
        site = Site::of(fleet, Workers::Real(1, 2)).await?;
        let firsts = first_lines(&site, bench.sized(BUILDS / 2)).await?;
        let ends = ends(&site, bench.sized(BUILDS / 2)).await?;
        let mut measured = vec![("POST to first log byte, p50", firsts, 2.0), ("trigger to finished, p50", ends, 2.0)];
        measured.extend(queries(&site.client).await?.into_iter().map(|(name, times)| (name, times, 2.0)));
        all.push(measured);
    }
    let memory = resident_mib(&family(site.server.id()));
    site.end().await;
    let large = all.pop().unwrap_or_default();
    let small = all.pop().unwrap_or_default();
    let against = format!("beside {few}");
    let mut rows: Vec<_> = large
        .into_iter()
        .zip(small)
        .map(|((name, mut large, most), (_, mut small, _))| {
            Row::at_most(
                format!("beside {many} past builds: {name}"),
                &against,
                median(&mut large),
                median(&mut small),
                "ms",
                most,
            )
        })
        .collect();
    rows.push(row(&format!("beside {many} past builds: server's memory"), memory, "MiB", Goal::None));
    Ok(rows)
}

async fn queries(client: &Client) -> Result<Vec<(&'static str, Vec<f64>)>, String> {
    let page = PageWanted { cursor: None, limit: Some(50) };
    let newest = client.build_list(&BuildFilter::default(), &page).await.map_err(text)?;
    let newest = newest.items.first().map(|build| build.id).ok_or("no builds")?;
    let of = |project: Option<&str>, verdict| BuildFilter {
        project: project.map(str::to_owned),
        verdict,
        ..BuildFilter::default()
    };
    let filters = [
        ("newest 50 builds", of(None, None)),
        ("newest 50 of a project", of(Some("past-7"), None)),
        ("failed ones of a project", of(Some("past-50"), Some(VerdictWord::Failed))),
    ];
    let mut measured = Vec::new();
    for (name, filter) in &filters {
        let mut times = Vec::new();
        for _ in 0..QUERIES {
            let began = Instant::now();
            client.build_list(filter, &page).await.map_err(text)?;
            times.push(ms(began.elapsed()));
        }
        measured.push((*name, times));
    }
    let mut times = [Vec::new(), Vec::new()];
    for index in 0..QUERIES as u64 {
        let build = BuildId(newest.0 * (index + 1) / (QUERIES as u64 + 1));
        let began = Instant::now();
        client.build_get(build).await.map_err(text)?;
        times[0].push(ms(began.elapsed()));
        let began = Instant::now();
        client.attempt_list(build, None, &page).await.map_err(text)?;
        times[1].push(ms(began.elapsed()));
    }
    let [builds, attempts] = times;
    measured.extend([("one build", builds), ("its attempts", attempts)]);
    Ok(measured)
}
