//! The peer: Buildbot with a local worker, installed from PyPI, measured in turn with a server and a worker of ours. Where it
//! cannot be installed that is said aloud, and there are no rows.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::logs::{BYTES, write_text};
use super::measure::median;
use super::server::print_text;
use super::site::{HEAD, Rows, Site, Workers, ended, ends, family, part, resident_mib, text};
use super::{Bench, Row};
use crate::fleet;

/// What is installed, and what the rows call it.
const PACKAGES: [&str; 2] = ["buildbot[bundle]==4.3.0", "buildbot-worker==4.3.0"];
const NAME: &str = "Buildbot 4.3";
/// Builds of which one build's latency is taken.
const BUILDS: usize = 20;
/// Builds of the burst.
const BURST: usize = 100;
/// How long the part may take; it bounds each wait, too.
const LIMIT: Duration = Duration::from_secs(400);
/// How long a burst or a start may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// When a log that still comes is given up: what came by then tells the speed.
const LOG_PATIENCE: Duration = Duration::from_secs(60);
/// How often a question is asked again whose answer cannot be read.
const ASKED_AGAIN_MAX: usize = 20;
/// How often it is asked whether a build has ended.
const LOOK: Duration = Duration::from_millis(5);

/// The measurement.
pub fn buildbot(bench: &Bench) -> Rows {
    let folder = fleet::target().join("buildbot");
    if let Err(error) = install(&folder) {
        eprintln!("  SKIPPED: {NAME} could not be installed: {error}");
        return Ok(Vec::new());
    }
    part(bench, NAME, LIMIT, async |bench| both(bench, &folder).await)
}

/// Installs it, unless it is there.
fn install(folder: &Path) -> Result<(), String> {
    let program = folder.join("bin/buildbot");
    if program.exists() && folder.join("bin/buildbot-worker").exists() {
        return Ok(());
    }
    eprintln!("  installing {} into {}", PACKAGES.join(" "), folder.display());
    crate::run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    crate::run(Command::new(folder.join("bin/pip")).args(["install", "--quiet"]).args(PACKAGES))
}

/// What is measured of each.
struct Figures {
    latency_ms: f64,
    builds_per_minute: f64,
    memory_mib: f64,
    log_mb_per_s: f64,
}

async fn both(bench: &Bench, programs: &Path) -> Rows {
    let large = bench.folder.join("text");
    write_text(&large, bench.sized(BYTES)).map_err(text)?;
    let ours = ours(bench, &large).await?;
    let theirs = theirs(bench, programs, &large)?;
    let least = |name, ours, theirs, unit| Row::at_least(name, NAME, ours, theirs, unit, 1.0);
    let most = |name, ours, theirs, unit| Row::at_most(name, NAME, ours, theirs, unit, 1.0);
    Ok(vec![
        most("one build, trigger to finished, p50", ours.latency_ms, theirs.latency_ms, "ms"),
        least("burst of 100 builds", ours.builds_per_minute, theirs.builds_per_minute, "builds a minute"),
        most("server and worker after the burst: memory", ours.memory_mib, theirs.memory_mib, "MiB"),
        least("1 GiB log", ours.log_mb_per_s, theirs.log_mb_per_s, "MB/s"),
    ])
}

async fn ours(bench: &Bench, large: &Path) -> Result<Figures, String> {
    let site = Site::new(bench, Workers::Real(1, 2)).await?;
    let source = fleet::upload(&site.client, &format!("{HEAD}jobs:\n  a: {{ run: echo hi }}\n")).await?;
    let mut ends = ends(&site, bench.sized(BUILDS)).await?;
    let began = Instant::now();
    for index in 0..bench.sized(BURST) {
        site.submit(source, format!("burst {index}")).await?;
    }
    ended(&site.client).await?;
    let builds_per_minute = bench.sized(BURST) as f64 / began.elapsed().as_secs_f64() * 60.0;
    let memory_mib = resident_mib(&family(site.server.id())) + resident_mib(&family(site.workers[0].id()));
    let printed = print_text(&site, large).await;
    site.end().await;
    let log_mb_per_s = told(printed.map(|(_, took)| bench.sized(BYTES) as f64 / 1e6 / took.as_secs_f64()));
    Ok(Figures { latency_ms: median(&mut ends), builds_per_minute, memory_mib, log_mb_per_s })
}

/// A figure, or none, said aloud: the others stand without it.
fn told(figure: Result<f64, String>) -> f64 {
    figure.unwrap_or_else(|error| {
        eprintln!("  the log of 1 GiB: {error}");
        f64::NAN
    })
}

fn theirs(bench: &Bench, programs: &Path, large: &Path) -> Result<Figures, String> {
    let master = Master::start(programs, &bench.folder.join("master"), large)?;
    let (trivial, print) = (master.builder("trivial")?, master.builder("large")?);
    let mut times = Vec::new();
    for index in 0..=bench.sized(BUILDS) {
        let began = Instant::now();
        let request = master.force(trivial)?;
        until(PATIENCE, || master.has_ended(request))?;
        // The first one makes what is made once.
        if index > 0 {
            times.push(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
    let began = Instant::now();
    for _ in 0..bench.sized(BURST) {
        master.force(trivial)?;
    }
    until(PATIENCE, || master.is_idle())?;
    let builds_per_minute = bench.sized(BURST) as f64 / began.elapsed().as_secs_f64() * 60.0;
    let memory_mib = resident_mib(&family(master.process.id()));
    let log_mb_per_s = told(master.print(print, large));
    Ok(Figures { latency_ms: median(&mut times), builds_per_minute, memory_mib, log_mb_per_s })
}

/// A master with a local worker of two builds at once; it ends with its value.
struct Master {
    process: Child,
    address: String,
}

impl Drop for Master {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        if until(Duration::from_secs(10), || Ok(self.process.try_wait().map_err(text)?.is_some())).is_err() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

impl Master {
    fn start(programs: &Path, folder: &Path, large: &Path) -> Result<Self, String> {
        let address = fleet::free_address()?;
        let program: PathBuf = programs.join("bin/buildbot");
        crate::run(Command::new(&program).args(["create-master", "-q", "-r"]).arg(folder).stdout(Stdio::null()))?;
        fs::write(folder.join("master.cfg"), settings(&address, large)).map_err(text)?;
        let mut command = Command::new(&program);
        command.args(["start", "--nodaemon", "."]).current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let master = Self { process: command.spawn().map_err(text)?, address };
        until(PATIENCE, || Ok(master.ask_once("GET", "/builders", "").is_ok()))?;
        Ok(master)
    }

    /// Calls its REST interface. Under load an answer of it has no body now and then: a question is asked again.
    fn ask(&self, method: &str, path: &str, body: &str) -> Result<Value, String> {
        let mut asked = self.ask_once(method, path, body);
        for _ in 0..ASKED_AGAIN_MAX {
            if asked.is_ok() || method != "GET" {
                break;
            }
            sleep(LOOK * 10);
            asked = self.ask_once(method, path, body);
        }
        asked
    }

    fn ask_once(&self, method: &str, path: &str, body: &str) -> Result<Value, String> {
        let mut stream = TcpStream::connect(&self.address).map_err(text)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
        let request = format!(
            "{method} /api/v2{path} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).map_err(text)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(text)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer of HTTP")?;
        let status = head.lines().next().unwrap_or_default();
        serde_json::from_str(body).map_err(|error| format!("{path}: {status}: {error}: {body}"))
    }

    fn builder(&self, name: &str) -> Result<u64, String> {
        let found = self.ask("GET", "/builders", "")?;
        let builders = found["builders"].as_array().ok_or("no builders")?;
        let builder = builders.iter().find(|builder| builder["name"] == name).ok_or("no such builder")?;
        builder["builderid"].as_u64().ok_or_else(|| "a builder without a number".to_owned())
    }

    /// Asks for a build; the number of the request.
    fn force(&self, builder: u64) -> Result<u64, String> {
        let body = format!(
            r#"{{"id":1,"jsonrpc":"2.0","method":"force","params":{{"builderid":{builder},"reason":"bench","owner":"bench"}}}}"#
        );
        let answer = self.ask("POST", "/forceschedulers/force", &body)?;
        let request = &answer["result"][1][builder.to_string()];
        request.as_u64().ok_or_else(|| format!("the build was not begun: {answer}"))
    }

    fn has_ended(&self, request: u64) -> Result<bool, String> {
        let found = self.ask("GET", &format!("/buildrequests/{request}"), "")?;
        let request = &found["buildrequests"][0];
        match (request["complete"].as_bool(), request["results"].as_i64()) {
            (Some(true), Some(0)) => Ok(true),
            (Some(true), result) => Err(format!("a build of theirs ended with {result:?}")),
            _ => Ok(false),
        }
    }

    fn is_idle(&self) -> Result<bool, String> {
        let found = self.ask("GET", "/buildrequests?complete=false&limit=1", "")?;
        Ok(found["buildrequests"].as_array().is_some_and(Vec::is_empty))
    }

    /// Prints the text in a build: MB a second, up to its end or as far as it came in time.
    fn print(&self, builder: u64, large: &Path) -> Result<f64, String> {
        let began = Instant::now();
        let request = self.force(builder)?;
        let mut ended = false;
        while !ended && began.elapsed() < LOG_PATIENCE {
            sleep(Duration::from_millis(200));
            ended = self.has_ended(request)?;
        }
        let mb = super::logs::BYTES as f64 / 1e6;
        if ended {
            return Ok(mb / began.elapsed().as_secs_f64());
        }
        let builds = self.ask("GET", "/builds?order=-buildid&limit=1", "")?;
        let build = builds["builds"][0]["buildid"].as_u64().ok_or("no build")?;
        let logs = self.ask("GET", &format!("/builds/{build}/steps/run/logs"), "")?;
        let took = began.elapsed().as_secs_f64();
        let lines = logs["logs"][0]["num_lines"].as_f64().ok_or("no log")?;
        let share = lines / count_lines(large)?;
        eprintln!("  {NAME}: {:.0} % of the log was recorded after {took:.0} s", share * 100.0);
        Ok(mb * share / took)
    }
}

fn count_lines(file: &Path) -> Result<f64, String> {
    let mut file = fs::File::open(file).map_err(text)?;
    let (mut buffer, mut lines) = (vec![0; 1 << 20], 0_usize);
    loop {
        let length = file.read(&mut buffer).map_err(text)?;
        if length == 0 {
            return Ok(lines as f64);
        }
        lines += buffer[..length].iter().filter(|byte| **byte == b'\n').count();
    }
}

/// Asks until it is so.
fn until(limit: Duration, mut is_so: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let began = Instant::now();
    while began.elapsed() < limit {
        if is_so()? {
            return Ok(());
        }
        sleep(LOOK);
    }
    Err(format!("{NAME} was not done within {} s", limit.as_secs()))
}

fn settings(address: &str, large: &Path) -> String {
    let (host, port) = address.rsplit_once(':').unwrap_or(("127.0.0.1", address));
    format!(
        r#"from buildbot.plugins import schedulers, steps, util, worker

def builder(name, command):
    factory = util.BuildFactory([steps.ShellCommand(name="run", command=command)])
    return util.BuilderConfig(name=name, workernames=["local"], factory=factory)

BuildmasterConfig = {{
    "workers": [worker.LocalWorker("local", max_builds=2)],
    "builders": [builder("trivial", ["echo", "hi"]), builder("large", ["cat", "{large}"])],
    "schedulers": [schedulers.ForceScheduler(name="force", builderNames=["trivial", "large"])],
    "collapseRequests": False,
    "protocols": {{"null": {{}}}},
    "db": {{"db_url": "sqlite:///state.sqlite"}},
    "www": {{"port": "tcp:{port}:interface={host}"}},
    "buildbotNetUsageData": None,
    "buildbotURL": "http://{address}/",
}}
"#,
        large = large.display()
    )
}
