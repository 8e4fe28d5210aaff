//! The pages: what the server takes to write each with very many builds stored, what the first load of a build's page brings over
//! the wire, what thousand readers of one log cost, and how soon a log of ten million lines is there in a browser. The goals
//! are those of issue 6; `$ROPEWALK_PAST_BUILDS` says how many builds to fill in.

use std::fs;
use std::time::{Duration, Instant};

use api::client::PageWanted;
use graph::BuildId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::{PAST_LIMIT, fill};
use super::site::{Goal, HEAD, Rows, Site, Workers, family, ms, part, quantile, resident_mib, row, text, timed};
use super::{Bench, Row};
use crate::fleet;

/// How often each page is asked for.
const ASKED: usize = 300;
/// How many readers follow one log.
const READERS: usize = 1000;
/// Jobs of the build whose page's first load is weighed.
const JOBS: usize = 50;
/// Lines of the log that a browser opens.
const LINES: u64 = 10_000_000;

/// All rows.
pub fn pages(bench: &Bench) -> Rows {
    let mut rows = part(bench, "pages", PAST_LIMIT * 2, server_side)?;
    rows.extend(in_browser().unwrap_or_else(|error| {
        eprintln!("  the log in a browser: {error}");
        let row = row(&format!("the log in a browser: {error}"), f64::NAN, "", Goal::None);
        vec![Row { met: false, goal: "to be measured".to_owned(), ..row }]
    }));
    Ok(rows)
}

async fn server_side(bench: &Bench) -> Rows {
    let many = std::env::var("ROPEWALK_PAST_BUILDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000_u64);
    let mut site = Site::new(bench, Workers::Real(1, 2)).await?;
    let fleet = site.end().await;
    fill(bench, &fleet, many)?;
    site = Site::of(fleet, Workers::Real(1, 2)).await?;
    let mut pipeline = format!("{HEAD}jobs:\n");
    for index in 0..JOBS {
        pipeline.push_str(&format!("  job{index:02}: {{ run: \"seq 1 200; exit {}\" }}\n", u8::from(index == 7)));
    }
    let source = fleet::upload(&site.client, &pipeline).await?;
    let build = site.submit(source, "pages".to_owned()).await?;
    timed(&site.client, build, Instant::now()).await?;
    let reader = Reader::new(&site)?;
    let mut rows = times(&reader, build, many).await?;
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

/// The server's time for each page.
async fn times(reader: &Reader, build: BuildId, many: u64) -> Rows {
    let past = build.0 / 2;
    let pages = [
        ("projects", "/".to_owned()),
        ("all builds", "/builds".to_owned()),
        ("a project", "/projects/past-7".to_owned()),
        ("failed builds of a project", "/projects/past-50?verdict=failed".to_owned()),
        ("a past build", format!("/builds/{past}")),
        ("a build of 50 jobs", format!("/builds/{build}")),
        ("a failed job with its log", format!("/builds/{build}/jobs/job07")),
        ("a passed job with its log", format!("/builds/{build}/jobs/job08")),
        ("the queue", "/queue".to_owned()),
    ];
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
    timed(&site.client, build, Instant::now()).await?;
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

    /// All bytes that a browser takes for a page that it has never seen, heads included.
    async fn first_load(&self, path: &str) -> Result<usize, String> {
        const TAKES: &str = "accept-encoding: gzip, deflate, br, zstd\r\n";
        let plain = String::from_utf8_lossy(&self.get(path, "").await?).into_owned();
        let mut wire = self.get(path, TAKES).await?.len();
        let files = plain.split('"').filter(|part| part.starts_with("/assets/"));
        let mut files: Vec<String> = files.map(str::to_owned).collect();
        // What the page's script imports at once.
        let script = files.iter().find(|file| file.ends_with("/page.js")).cloned().unwrap_or_default();
        let code = String::from_utf8_lossy(&self.get(&script, "").await?).into_owned();
        let folder = script.trim_end_matches("page.js");
        let imports = code.lines().filter(|line| line.starts_with("import ")).filter_map(|line| line.split('"').nth(1));
        files.extend(imports.map(|name| format!("{folder}{}", name.trim_start_matches("./"))));
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
