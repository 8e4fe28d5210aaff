//! A server and its workers, all of them real processes: at rest, one build's way from request to reader, bursts, the same
//! with very many past builds, live lines, and a log of 1 GiB. The goals are those of issue 4; `$ROPEWALK_PAST_BUILDS` says
//! how many builds to fill in (100,000 unless told).

use std::fs;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use api::build::{BuildFilter, VerdictWord};
use api::client::{Client, JobsWanted, LogWanted, Logs, PageWanted};
use api::event::Moment;
use api::log::LogItem;
use graph::{BuildId, Digest};
use tokio::time::sleep;

use super::logs::{BYTES, peak_kib, write_text};
use super::measure::{median, raw_spawn_ms};
use super::{Bench, Row};
use crate::fleet::{self, Fleet, PATIENCE, PROJECT, Process};

/// Builds of which one build's latency is taken.
const BUILDS: usize = 200;
/// How long a server at rest is watched.
const REST: Duration = Duration::from_secs(30);
/// Requests of the burst.
const BURST: usize = 10_000;
/// How many of them are under way at once.
const BURST_WIDTH: usize = 32;
/// Lines of which the way to a reader is timed.
const LINES: usize = 500;
/// How long a burst or a large log may take before its row is given up.
const LONGEST: Duration = Duration::from_secs(300);
/// Builds beside which list queries are fast in any case.
const FEW: u64 = 10_000;
/// Rounds of each list query.
const QUERIES: usize = 200;

const HEAD: &str = "defaults: { environment: host }\n";

/// What bounds a figure.
#[derive(Clone, Copy)]
enum Goal {
    AtMost(f64),
    AtLeast(f64),
    None,
}

fn row(name: &str, ours: f64, unit: &'static str, goal: Goal) -> Row {
    match goal {
        Goal::AtMost(most) => Row::at_most(name, "the goal", ours, most, unit, 1.0),
        Goal::AtLeast(least) => Row::at_least(name, "the goal", ours, least, unit, 1.0),
        Goal::None => Row::compared(name, "-", ours, ours, unit),
    }
}

/// The value below which `share` of `values` lie.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(((last as f64) * share).round() as usize).copied().unwrap_or(f64::NAN)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// One part of the measurements. One that cannot be taken does not hide the others.
fn part(bench: &Bench, name: &str, measured: impl AsyncFnOnce(&Bench) -> Result<Vec<Row>, String>) -> Rows {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
    let rows = tokio::task::LocalSet::new().block_on(&runtime, measured(bench));
    Ok(rows.unwrap_or_else(|error| {
        eprintln!("  {name}: {error}");
        let row = row(&format!("{name}: {error}"), f64::NAN, "", Goal::None);
        vec![Row { met: false, goal: "to be measured".to_owned(), ..row }]
    }))
}

type Rows = Result<Vec<Row>, String>;

/// What a server and a worker cost that have nothing to do.
pub fn rest(bench: &Bench) -> Rows {
    part(bench, "server at rest", at_rest)
}

/// One build of one job after another.
pub fn build(bench: &Bench) -> Rows {
    part(bench, "one build", one_build)
}

/// Lines as they are written, and 1 GiB of them.
pub fn log(bench: &Bench) -> Rows {
    part(bench, "logs", logs)
}

/// Ten thousand builds at once, and one of ten thousand jobs.
pub fn burst(bench: &Bench) -> Rows {
    part(bench, "bursts", bursts)
}

/// One build, and lists, beside very many that have ended.
pub fn past(bench: &Bench) -> Rows {
    part(bench, "past builds", past_builds)
}

/// A server, workers and a client.
struct Site {
    client: Client,
    workers: Vec<Process>,
    server: Process,
    fleet: Fleet,
}

impl Site {
    async fn new(bench: &Bench, workers: usize, capacity: usize) -> Result<Self, String> {
        Self::of(
            Fleet::new(&bench.ropewalk, &bench.folder.join("site"), &[("ROPEWALK_BUILDS_AUTO_CANCEL", "off")])?,
            workers,
            capacity,
        )
        .await
    }

    async fn of(fleet: Fleet, workers: usize, capacity: usize) -> Result<Self, String> {
        let client = fleet.client()?;
        let server = fleet.serve()?;
        fleet.answers(&client).await?;
        let begin = |index| fleet.work(&format!("worker{index}"), fleet.address(), capacity);
        let workers = (0..workers).map(begin).collect::<Result<Vec<_>, _>>()?;
        fleet.joined(&client, workers.len()).await?;
        Ok(Self { client, workers, server, fleet })
    }

    async fn submit(&self, source: Digest, name: String) -> Result<BuildId, String> {
        self.client.build_submit(&fleet::request(source, name)).await.map(|made| made.build).map_err(text)
    }

    async fn end(mut self) -> Fleet {
        for worker in &mut self.workers {
            worker.end().await;
        }
        self.server.end().await;
        self.fleet
    }
}

/// A process and all that it started, still alive.
fn family(id: u32) -> Vec<u32> {
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
fn resident_mib(ids: &[u32]) -> f64 {
    let of = |id: &u32| {
        let text = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0)
    };
    ids.iter().map(of).sum::<f64>() / 1024.0
}

/// The time on a processor of a family in milliseconds, threads that have ended included, to 10 ms.
fn cpu_ms(ids: &[u32]) -> f64 {
    let of = |id: &u32| {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // Behind the name, which may hold anything: fields 14 and 15 of proc(5), in ticks of 10 ms.
        let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
    };
    ids.iter().map(of).sum::<f64>() * 10.0
}

async fn at_rest(bench: &Bench) -> Result<Vec<Row>, String> {
    let site = Site::new(bench, 1, 2).await?;
    // One build, so that what is made at first need is there.
    let source = fleet::upload(&site.client, &format!("{HEAD}jobs:\n  a: {{ run: \"true\" }}\n")).await?;
    let build = site.submit(source, "warm".to_owned()).await?;
    timed(&site.client, build, Instant::now()).await?;
    sleep(Duration::from_secs(3)).await;
    let families = [family(site.server.id()), family(site.workers[0].id())];
    let before = families.each_ref().map(|ids| cpu_ms(ids));
    sleep(REST).await;
    let after = families.each_ref().map(|ids| cpu_ms(ids));
    let share = |index: usize| (after[index] - before[index]) / ms(REST) * 100.0;
    let rows = vec![
        row("server at rest: memory", resident_mib(&families[0]), "MiB", Goal::AtMost(25.0)),
        row("server at rest: processor", share(0), "% of one", Goal::AtMost(0.1)),
        row("worker at rest: memory, its keeper included", resident_mib(&families[1]), "MiB", Goal::AtMost(10.0)),
        row("worker at rest: processor", share(1), "% of one", Goal::AtMost(0.1)),
    ];
    site.end().await;
    Ok(rows)
}

/// When a build's first line came and when its end, since `began`, both as a reader saw them.
async fn timed(client: &Client, build: BuildId, began: Instant) -> Result<(f64, f64), String> {
    let mut moments = client.build_stream(build, Logs::With, None);
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

/// One job a build, one build after another: to the first line, and to the end.
async fn latencies(site: &Site, source: Digest, builds: usize) -> Result<(Vec<f64>, Vec<f64>), String> {
    let (mut firsts, mut ends) = (Vec::new(), Vec::new());
    for index in 0..builds + 10 {
        let began = Instant::now();
        let build = site.submit(source, format!("one {index}")).await?;
        let (first, end) = timed(&site.client, build, began).await?;
        // The first ten warm what is kept.
        if index >= 10 {
            firsts.push(first);
            ends.push(end);
        }
    }
    Ok((firsts, ends))
}

async fn one_build(bench: &Bench) -> Result<Vec<Row>, String> {
    let site = Site::new(bench, 1, 2).await?;
    let source = fleet::upload(&site.client, &format!("{HEAD}jobs:\n  a: {{ run: echo hi }}\n")).await?;
    let (mut firsts, mut ends) = latencies(&site, source, BUILDS).await?;
    let rows = vec![
        row("POST to first log byte at a reader, p50", quantile(&mut firsts, 0.5), "ms", Goal::AtMost(5.0)),
        row("POST to first log byte at a reader, p99", quantile(&mut firsts, 0.99), "ms", Goal::AtMost(20.0)),
        row("trigger to finished, p50", quantile(&mut ends, 0.5), "ms", Goal::AtMost(3.0)),
        row("trigger to finished, p99", quantile(&mut ends, 0.99), "ms", Goal::None),
    ];
    site.end().await;
    Ok(rows)
}

/// Waits until no build runs; how many of the project ended in each way.
async fn ended(client: &Client) -> Result<(usize, usize), String> {
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

async fn bursts(bench: &Bench) -> Result<Vec<Row>, String> {
    let raw_per_s = BURST as f64 / raw_spawn_ms(BURST, 2)? * 1000.0;
    let site = Rc::new(Site::new(bench, 2, 2).await?);
    let source = fleet::upload(&site.client, &format!("{HEAD}jobs:\n  a: {{ run: \"true\" }}\n")).await?;
    let began = Instant::now();
    let askers: Vec<_> = (0..BURST_WIDTH)
        .map(|asker| {
            let site = Rc::clone(&site);
            tokio::task::spawn_local(async move {
                let mut refused = 0;
                for index in (asker..BURST).step_by(BURST_WIDTH) {
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
    let lost = (BURST - refused).abs_diff(passed) + other;
    let per_s = BURST as f64 / took_s;
    let mut rows = vec![
        row(
            "burst of 10,000 requests: refused",
            f64::from(u32::try_from(refused).unwrap_or(u32::MAX)),
            "requests",
            Goal::AtMost(0.0),
        ),
        row("burst of 10,000 requests: lost, or not passed", lost as f64, "builds", Goal::AtMost(0.0)),
        row("burst: requests durably accepted", BURST as f64 / accepted_ms * 1000.0, "per s", Goal::None),
        Row::compared("burst: builds of one job, end to end", "raw spawn, two threads", per_s, raw_per_s, "per s"),
    ];
    for row in &mut rows[..2] {
        row.met = row.ours == 0.0;
    }
    rows.push(wide(&site, raw_per_s).await?);
    rows.push(row("server after both: peak memory", peak_kib(site.server.id()) as f64 / 1024.0, "MiB", Goal::None));
    if let Ok(site) = Rc::try_unwrap(site) {
        site.end().await;
    }
    Ok(rows)
}

/// One build of ten thousand jobs.
async fn wide(site: &Site, raw_per_s: f64) -> Result<Row, String> {
    let mut pipeline = format!("{HEAD}jobs:\n");
    for index in 0..BURST {
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
    tokio::time::timeout(LONGEST, read).await.map_err(|_| "10,000 jobs do not end")??;
    let per_s = BURST as f64 / began.elapsed().as_secs_f64();
    let row = Row::compared("one build of 10,000 jobs", "raw spawn, two threads", per_s, raw_per_s, "per s");
    Ok(Row { goal: "at least 500 per s".to_owned(), met: per_s >= 500.0, ..row })
}

async fn logs(bench: &Bench) -> Result<Vec<Row>, String> {
    let site = Site::new(bench, 1, 2).await?;
    let mut rows = live(&site).await?;
    site.end().await;
    let large = bench.folder.join("text");
    write_text(&large).map_err(text)?;
    let site = Site::new(bench, 1, 2).await?;
    rows.extend(large_log(&site, &large).await?);
    site.end().await;
    Ok(rows)
}

/// Lines that say when they were written, read as they come.
async fn live(site: &Site) -> Result<Vec<Row>, String> {
    let script = format!("bash -c 'for i in $(seq {LINES}); do echo $EPOCHREALTIME; sleep 0.01; done'");
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
    if times.len() != LINES {
        return Err(format!("{} lines of {LINES} came", times.len()));
    }
    Ok(vec![
        row("line written to line read, p50", quantile(&mut times, 0.5), "ms", Goal::AtMost(5.0)),
        row("line written to line read, p99", quantile(&mut times, 0.99), "ms", Goal::AtMost(200.0)),
    ])
}

async fn large_log(site: &Site, large: &Path) -> Result<Vec<Row>, String> {
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
    let speed = |began: Instant| BYTES as f64 / 1e6 / began.elapsed().as_secs_f64();
    let in_speed = speed(began);
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
    let is_whole = length == BYTES && hasher.finalize() == wanted.finalize();
    let mut windows = Vec::new();
    for index in 0..100_u64 {
        let part = LogWanted { from: Some(index * 77_777), count: Some(200), ..LogWanted::default() };
        let began = Instant::now();
        let mut items = site.client.log_items(build, attempt, 0, &part).await.map_err(text)?;
        let mut lines = 0;
        while let Some(item) = items.next().await.map_err(text)? {
            lines += usize::from(matches!(item, LogItem::Line(_)));
        }
        if lines != 200 {
            return Err(format!("200 lines from {} on were {lines}", index * 77_777));
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
fn fill(fleet: &Fleet, count: u64) -> Result<(), String> {
    let folder = fleet.data().join("records");
    let mut command =
        crate::cargo(&["run", "--release", "--quiet", "-p", "ropewalk-store", "--example", "past_builds"]);
    crate::run(command.arg(folder).arg(count.to_string()))
}

async fn past_builds(bench: &Bench) -> Result<Vec<Row>, String> {
    let many = std::env::var("ROPEWALK_PAST_BUILDS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000_u64);
    let pipeline = format!("{HEAD}jobs:\n  a: {{ run: echo hi }}\n");
    let mut site = Site::new(bench, 1, 2).await?;
    let source = fleet::upload(&site.client, &pipeline).await?;
    let mut all = Vec::new();
    for count in [FEW, many - FEW] {
        let fleet = site.end().await;
        fill(&fleet, count)?;
        site = Site::of(fleet, 1, 2).await?;
        let (firsts, ends) = latencies(&site, source, BUILDS / 2).await?;
        let mut measured = vec![("POST to first log byte, p50", firsts, 2.0), ("trigger to finished, p50", ends, 2.0)];
        measured.extend(queries(&site.client).await?.into_iter().map(|(name, times)| (name, times, 2.0)));
        all.push(measured);
    }
    let memory = resident_mib(&family(site.server.id()));
    site.end().await;
    let large = all.pop().unwrap_or_default();
    let small = all.pop().unwrap_or_default();
    let against = format!("beside {FEW}");
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
