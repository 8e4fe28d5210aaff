//! The pages: what the server takes to write each with very many builds stored, what the first load of a build's page brings over
//! the wire, what thousand readers of one log cost, and how soon a log of ten million lines is there in a browser. The goals
//! are those of issue 6; `$ROPEWALK_PAST_BUILDS` says how many builds to fill in, and `$ROPEWALK_PAST_SITE` a folder in which the
//! installation with them is kept for the next run.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::client::{Logs, PageWanted};
use api::event::Moment;
use api::project::ProjectSettings;
use graph::BuildId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::{PAST_LIMIT, fill};
use super::site::{
    ENVIRONMENT, Goal, HEAD, Rows, Site, Workers, family, ms, part, quantile, resident_mib, row, text, timed,
};
use super::{Bench, Row};
use crate::fleet::{self, Fleet, Listen, PATIENCE};

/// How often each page is asked for.
const ASKED: usize = 300;
/// How many readers follow one log.
const READERS: usize = 1000;
/// Of how many projects the builds are that are filled in (`crates/store/examples/past_builds.rs`).
const PAST_PROJECTS: usize = 100;
/// Jobs of the build whose page's first load is weighed.
const JOBS: usize = 50;
/// Builds that report tests, some of which fail: a page of tests looks at those before its own.
const TESTED_BUILDS: usize = 60;
/// Their pipeline, without its head.
const TESTED: &str = r#"jobs:
  lint: { environment: sandbox, inputs: [".ropewalk/**"], run: "echo fine" }
  test:
    run: |
      { echo '<testsuite name="s">'; seq 1 495 | sed 's|.*|<testcase name="t&" time="0.1"/>|'
        seq 496 500 | sed 's|.*|<testcase name="t&"><failure>expected &</failure></testcase>|'; echo '</testsuite>'; } > r.xml
      exit 1
    reports: { junit: r.xml }
    artifacts: { report: r.xml }
"#;
/// Lines of the log that a browser opens.
const LINES: u64 = 10_000_000;

/// What the server takes for them.
pub fn pages(bench: &Bench) -> Rows {
    match filled(bench) {
        Ok(Filled { fleet, many }) => {
            part(bench, "pages", PAST_LIMIT, async move |_: &Bench| server_side(fleet.take(), many).await)
        }
        Err(error) => Ok(vec![unmeasured(&format!("pages: {error}"))]),
    }
}

/// What a browser takes for a long log.
pub fn log(_: &Bench) -> Rows {
    Ok(in_browser().unwrap_or_else(|error| vec![unmeasured(&format!("the log in a browser: {error}"))]))
}

fn unmeasured(why: &str) -> Row {
    eprintln!("  {why}");
    Row { met: false, goal: "to be measured".to_owned(), ..row(why, f64::NAN, "", Goal::None) }
}

/// An installation whose server is not running, with builds that ended long ago.
struct Filled {
    /// Taken once.
    fleet: std::cell::Cell<Option<Fleet>>,
    many: u64,
}

/// What is measured beside: made, or found in `$ROPEWALK_PAST_SITE` where an earlier run left it.
fn filled(bench: &Bench) -> Result<Filled, String> {
    let many = std::env::var("ROPEWALK_PAST_BUILDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000_usize);
    let many = bench.sized(many) as u64;
    let kept = std::env::var_os("ROPEWALK_PAST_SITE").map(PathBuf::from);
    let folder = kept.unwrap_or_else(|| bench.folder.join("site"));
    let mark = folder.join("filled");
    let fleet = if fs::read_to_string(&mark).is_ok_and(|said| said == many.to_string()) {
        Fleet::at(&bench.ropewalk, &folder, &ENVIRONMENT, Listen::Loopback)?
    } else {
        let fleet = Fleet::new(&bench.ropewalk, &folder, &ENVIRONMENT, Listen::Loopback)?;
        fill(bench, &fleet, many)?;
        fs::write(mark, many.to_string()).map_err(text)?;
        fleet
    };
    Ok(Filled { fleet: Some(fleet).into(), many })
}

async fn server_side(fleet: Option<Fleet>, many: u64) -> Rows {
    let site = Site::of(fleet.ok_or("the installation was used")?, Workers::Real(1, 2)).await?;
    // The builds that were filled in say only what their projects are called.
    for index in 0..PAST_PROJECTS {
        site.client.project_put(&format!("past-{index}"), &ProjectSettings::default()).await.map_err(text)?;
    }
    let mut pipeline = format!("{HEAD}jobs:\n");
    for index in 0..JOBS {
        pipeline.push_str(&format!("  job{index:02}: {{ run: \"seq 1 200; exit {}\" }}\n", u8::from(index == 7)));
    }
    let source = fleet::upload(&site.client, &pipeline).await?;
    let build = site.submit(source, "pages".to_owned()).await?;
    until_ended(&site, build).await?;
    let source = fleet::upload(&site.client, &format!("{HEAD}{TESTED}")).await?;
    let mut tested = build;
    for index in 0..TESTED_BUILDS {
        tested = site.submit(source, format!("tested {index}")).await?;
        until_ended(&site, tested).await?;
    }
    let reader = Reader::new(&site)?;
    let mut rows = times(&reader, build, tested, many).await?;
    let wire = reader.first_load(&format!("/builds/{build}")).await?;
    rows.push(row(
        &format!("first load of the page of a build of {JOBS} jobs, over the wire"),
        wire as f64 / 1000.0,
        "KB",
        Goal::AtMost(100.0),
    ));
    rows.push(readers(&site, &reader).await?);
    site.end().await;
    Ok(rows)
}

/// Waits until a build has ended, however.
async fn until_ended(site: &Site, build: BuildId) -> Result<(), String> {
    let mut moments = site.client.build_stream(build, Logs::Without, None);
    loop {
        let next = tokio::time::timeout(PATIENCE, moments.next()).await;
        let Some(told) = next.map_err(|_| "a build did not end")?.map_err(text)? else { break };
        if matches!(told.moment, Moment::BuildFinished { .. }) {
            return Ok(());
        }
    }
    Err("a stream ended before its build".to_owned())
}

/// The server's time for each page.
async fn times(reader: &Reader, build: BuildId, tested: BuildId, many: u64) -> Rows {
    let past = many / 2;
    let tests = format!("/builds/{tested}/tests");
    let fixed = |name: &'static str, path: &str| (name, path.to_owned());
    let mut pages = vec![
        fixed("projects", "/"),
        fixed("the wall", "/wall"),
        fixed("all builds", "/builds"),
        fixed("a project", "/projects/past-7"),
        fixed("a project's search", "/projects/past-7?q=branch-3"),
        fixed("failed builds of a project", "/projects/past-50?verdict=failed"),
        fixed("a project's settings", "/projects/past-7/settings"),
        fixed("a project's quarantine", "/projects/fleet/quarantine"),
        ("builds of many projects", format!("/builds?cursor={past}")),
        ("a past build", format!("/builds/{past}")),
        ("a build of 50 jobs", format!("/builds/{build}")),
        ("its waterfall with open steps", format!("/builds/{build}?view=time&open=job07%0Ajob08")),
        ("its table", format!("/builds/{build}?view=table")),
        ("its annotations", format!("/builds/{build}/annotations")),
        ("a build compared", format!("/builds/{tested}/compare")),
        ("a failed job with its log", format!("/builds/{build}/jobs/job07")),
        ("a passed job with its log", format!("/builds/{build}/jobs/job08")),
        ("a job's artifacts", format!("/builds/{tested}/jobs/test?tab=artifacts")),
        ("a job's environment", format!("/builds/{tested}/jobs/test?tab=environment")),
        ("a job's tries", format!("/builds/{build}/jobs/job07/attempts")),
        ("a failing build's tests", tests.clone()),
        ("the queue", "/queue".to_owned()),
        fixed("settings", "/settings"),
        fixed("members", "/settings/members"),
        fixed("tokens", "/settings/tokens"),
        fixed("the audit", "/settings/audit"),
        fixed("caches", "/settings/caches"),
    ];
    let history = reader.link(&tests, "/projects/fleet/tests?").await?;
    pages.push(("a test's history", history));
    let artifact = reader.link(&format!("/builds/{tested}"), "/artifacts/").await?;
    pages.push(("an artifact", artifact));
    let result = reader.link("/settings/caches", "/settings/caches/").await?;
    pages.push(("a kept result", result));
    let mut rows = Vec::new();
    for (name, path) in pages {
        let mut times = Vec::new();
        for _ in 0..ASKED {
            let began = Instant::now();
            let answer = reader.get(&path, "").await?;
            times.push(ms(began.elapsed()));
            if !answer.starts_with(b"HTTP/1.1 200") {
                let head = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
                return Err(format!("{path}: {head}"));
            }
        }
        let beside = format!("beside {many} builds: page of {name}");
        rows.push(row(&format!("{beside}, p50"), quantile(&mut times, 0.5), "ms", Goal::None));
        rows.push(row(&format!("{beside}, p99"), quantile(&mut times, 0.99), "ms", Goal::AtMost(10.0)));
    }
    Ok(rows)
}

/// What it costs the server that very many follow one log.
async fn readers(site: &Site, reader: &Reader) -> Result<Row, String> {
    let sign = site.fleet.folder().join("go-on");
    // That of an earlier run.
    let _ = fs::remove_file(&sign);
    let script = format!("seq 1 10000; while [ ! -e {} ]; do echo tick; sleep 0.2; done", sign.display());
    let source = fleet::upload(&site.client, &format!("{HEAD}jobs:\n  a:\n    run: |\n      {script}\n")).await?;
    let build = site.submit(source, "followed".to_owned()).await?;
    let path = format!("/api/v1/builds/{build}/attempts/1/log/0?format=ndjson&follow=true&from=9000");
    let began = Instant::now();
    while site.client.log_list(build, None, &PageWanted::default()).await.map_err(text)?.items.is_empty() {
        if began.elapsed() > Duration::from_secs(30) {
            return Err("the log that is to be followed does not begin".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let processes = family(site.server.id());
    let before = resident_mib(&processes);
    let mut streams = Vec::new();
    for _ in 0..READERS {
        let mut stream = reader.ask(&path, "").await?;
        let mut some = [0; 4096];
        stream.read(&mut some).await.map_err(text)?;
        streams.push(stream);
    }
    // Each is read on as a browser would, for a while.
    let until = Instant::now() + Duration::from_secs(5);
    let mut some = vec![0; 64 * 1024];
    while Instant::now() < until {
        for stream in &mut streams {
            let _ = stream.try_read(&mut some);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let after = resident_mib(&processes);
    fs::write(&sign, "").map_err(text)?;
    drop(streams);
    timed(&site.client, build, Instant::now(), Logs::Without).await?;
    Ok(row(
        &format!("{READERS} live readers of one log: the server's memory, more"),
        after - before,
        "MiB",
        Goal::AtMost(50.0),
    ))
}

/// Somebody signed in.
struct Reader {
    address: String,
    token: String,
}

impl Reader {
    fn new(site: &Site) -> Result<Self, String> {
        let token = fs::read_to_string(site.fleet.folder().join("admin")).map_err(text)?;
        Ok(Self { address: site.fleet.address().to_owned(), token: token.trim().to_owned() })
    }

    async fn ask(&self, path: &str, headers: &str) -> Result<TcpStream, String> {
        let mut stream = TcpStream::connect(&self.address).await.map_err(text)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\naccept: text/html\r\nconnection: close\r\ncookie: ropewalk={}\r\n{headers}\r\n",
            self.address, self.token
        );
        stream.write_all(request.as_bytes()).await.map_err(text)?;
        Ok(stream)
    }

    /// Head and body.
    async fn get(&self, path: &str, headers: &str) -> Result<Vec<u8>, String> {
        let mut stream = self.ask(path, headers).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.map_err(text)?;
        Ok(answer)
    }

    /// The first link of a page that has this in it.
    async fn link(&self, page: &str, part: &str) -> Result<String, String> {
        let answer = String::from_utf8_lossy(&self.get(page, "").await?).into_owned();
        let mut links = answer.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
        let found = links.find(|link| link.contains(part));
        found.map(|link| link.replace("&amp;", "&")).ok_or_else(|| format!("{page} has no link with {part}"))
    }

    /// All bytes that a browser takes for a page that it has never seen, heads included.
    async fn first_load(&self, path: &str) -> Result<usize, String> {
        const TAKES: &str = "accept-encoding: gzip, deflate, br, zstd\r\n";
        let plain = String::from_utf8_lossy(&self.get(path, "").await?).into_owned();
        let mut wire = self.get(path, TAKES).await?.len();
        let files = plain.split('"').filter(|part| part.starts_with("/assets/"));
        let mut files: Vec<String> = files.map(str::to_owned).collect();
        // What the page's script imports, at once or after it.
        let script = files.iter().find(|file| file.ends_with("/page.js")).cloned().unwrap_or_default();
        let code = String::from_utf8_lossy(&self.get(&script, "").await?).into_owned();
        let folder = script.trim_end_matches("page.js");
        let imports = ["live.js", "build.js"].into_iter().filter(|name| code.contains(&format!("\"./{name}\"")));
        files.extend(imports.map(|name| format!("{folder}{name}")));
        files.sort();
        files.dedup();
        for file in files {
            wire += self.get(&file, TAKES).await?.len();
        }
        Ok(wire)
    }
}

/// The browser's own figures: its test prints them.
fn in_browser() -> Rows {
    let name = "log::a_log_of_very_many_lines_is_opened_searched_and_followed";
    let mut command = crate::cargo(&["test", "--release", "--quiet", "-p", "ropewalk-cli", "--test", "browser", "--"]);
    command.args([name, "--exact", "--nocapture"]).env("ROPEWALK_LOG_LINES", LINES.to_string());
    let output = command.output().map_err(text)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    }
    let figure = |name: &str| -> Result<f64, String> {
        let found = said.lines().find_map(|line| line.split_once(&format!("figure: {name} = "))?.1.parse().ok());
        found.ok_or_else(|| format!("`{name}` was not measured: {said}"))
    };
    Ok(vec![
        row(
            "log of 10,000,000 lines: its page interactive in Chromium",
            figure("interactive ms")?,
            "ms",
            Goal::AtMost(1000.0),
        ),
        row("log of 10,000,000 lines: at its first error", figure("at the error ms")?, "ms", Goal::None),
        row("log of 10,000,000 lines: searched, hits counted", figure("searched ms")?, "ms", Goal::None),
        row("log of 10,000,000 lines: memory of the tab", figure("tab MiB")?, "MiB", Goal::AtMost(150.0)),
    ])
}
