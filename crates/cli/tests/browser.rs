//! The pages in a real browser: Debian's Chromium, driven by its own driver, over a real server with a real worker.
//!
//! Screenshots are left in `target/screens`, for people to look at.

#[path = "browser/axe.rs"]
mod axe;
#[path = "browser/build.rs"]
mod build;
#[path = "browser/connections.rs"]
mod connections;
#[path = "browser/forms.rs"]
mod forms;
mod installation;
#[path = "browser/job.rs"]
mod job;
#[path = "browser/log.rs"]
mod log;
mod process;
#[path = "browser/reading.rs"]
mod reading;
#[path = "browser/session.rs"]
mod session;
#[path = "browser/settings.rs"]
mod settings;
#[path = "browser/terminal.rs"]
mod terminal;
#[path = "browser/tries.rs"]
mod tries;

use std::cell::Cell;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use installation::Site;
use process::{PATIENCE, Process};
use serde_json::{Value, json};

/// The name under which the driver's protocol hands out elements (W3C WebDriver, 12.2).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// For whom a browser shows pages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Desk,
    Phone,
    Dark,
    /// Without JavaScript.
    Plain,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Desk => "desk",
            Self::Phone => "phone",
            Self::Dark => "dark",
            Self::Plain => "plain",
        }
    }
}

/// A browser with one window.
struct Browser {
    driver: Process,
    address: String,
    session: String,
    kind: Cell<Kind>,
    url: String,
    profile: tempfile::TempDir,
}

/// Whether there is a browser; says so if there is none, which in CI is a failure.
fn has_browser() -> bool {
    let is_there = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    let has = is_there("chromedriver") && is_there("chromium");
    assert!(has || std::env::var("CI").as_deref() != Ok("true"), "CI needs the packages chromium and chromium-driver");
    if !has {
        eprintln!("skipped: install the packages chromium and chromium-driver");
    }
    has
}

impl Browser {
    /// Opens one that has signed in.
    fn open(site: &Site, kind: Kind) -> Self {
        let token = fs::read_to_string(site.path("admin.token")).expect("a token");
        Self::open_as(site, kind, &token)
    }

    /// Opens one that has signed in with this token.
    fn open_as(site: &Site, kind: Kind, token: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let mut driver = Command::new("chromedriver");
        driver.arg(format!("--port={port}")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = Process(driver.spawn().expect("chromedriver starts"));
        let profile = tempfile::tempdir().expect("a folder");
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
            // A name that is not the machine's own, over plain HTTP.
            "--host-resolver-rules=MAP server.test 127.0.0.1",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let address = format!("127.0.0.1:{port}");
        let kind_now = Cell::new(Kind::Desk);
        let mut browser = Self { driver, address, session: String::new(), kind: kind_now, url: site.url(), profile };
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments }, "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": PATIENCE.as_millis() as u64 },
        } } });
        let began = Instant::now();
        let made = loop {
            match browser.try_call("POST", "/session", &wanted) {
                Ok(made) => break made,
                Err(error) => assert!(began.elapsed() < PATIENCE, "no browser: {error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        browser.session = format!("/session/{}", made["sessionId"].as_str().expect("a session"));
        if kind != Kind::Desk {
            browser.turn(kind);
        }
        browser.go("/builds");
        browser.type_into("#token", &format!("{}\n", token.trim()));
        browser.until("h1", "Builds");
        browser
    }

    /// Shows pages for somebody else from now on: starting a browser takes longer than most that is done with it.
    #[track_caller]
    fn turn(&self, kind: Kind) {
        // A window of its own width would be at least 500 pixels wide.
        match kind {
            Kind::Phone => {
                let screen = json!({ "width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": true });
                self.command("Emulation.setDeviceMetricsOverride", &screen)
            }
            _ => self.command("Emulation.clearDeviceMetricsOverride", &json!({})),
        };
        let scheme = if kind == Kind::Dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.command("Emulation.setEmulatedMedia", &json!({ "features": features }));
        self.command("Emulation.setScriptExecutionDisabled", &json!({ "value": kind == Kind::Plain }));
        self.kind.set(kind);
    }

    /// One call of the driver's protocol.
    fn try_call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let text = if method == "POST" { body.to_string() } else { String::new() };
        let mut stream = TcpStream::connect(&self.address).map_err(|error| error.to_string())?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        stream.write_all(format!("{head}{text}").as_bytes()).map_err(|error| error.to_string())?;
        // The driver keeps its connections: an answer ends where it says.
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        while reader.read_line(&mut head).is_ok_and(|n_read| n_read > 2) {
            let line = head.lines().last().unwrap_or_default().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(|_| format!("an odd length: {line}"))?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).map_err(|error| error.to_string())?;
        let value: Value = serde_json::from_slice(&body).map_err(|error| format!("{error}: {head}"))?;
        if head.starts_with("HTTP/1.1 200") {
            Ok(value["value"].clone())
        } else {
            Err(value["value"]["message"].to_string())
        }
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("{}{path}", self.session);
        self.try_call(method, &path, body).unwrap_or_else(|error| panic!("{method} {path} {body}: {error}"))
    }

    /// Opens a page of ours and waits until its scripts are there.
    #[track_caller]
    fn go(&self, path: &str) {
        self.call("POST", "/url", &json!({ "url": format!("{}{path}", self.url) }));
        if self.kind.get() != Kind::Plain {
            let has_scripts = "document.querySelector('script[src$=\"/page.js\"]') !== null";
            self.until_is(&format!("!({has_scripts}) || document.documentElement.hasAttribute('data-ready')"));
        }
    }

    /// The folder of its own that it was given.
    fn profile(&self) -> &Path {
        self.profile.path()
    }

    fn path(&self) -> String {
        let url = self.call("GET", "/url", &Value::Null);
        url.as_str().and_then(|url| url.strip_prefix(&self.url)).unwrap_or_default().to_owned()
    }

    fn find(&self, css: &str) -> Option<String> {
        let path = format!("{}/element", self.session);
        let found = self.try_call("POST", &path, &json!({ "using": "css selector", "value": css })).ok()?;
        found[ELEMENT].as_str().map(str::to_owned)
    }

    fn text(&self, css: &str) -> Option<String> {
        let path = format!("{}/element/{}/text", self.session, self.find(css)?);
        // It may be replaced between the two calls.
        self.try_call("GET", &path, &Value::Null).ok()?.as_str().map(str::to_owned)
    }

    /// What an element is called to those who listen to the page.
    #[track_caller]
    fn name(&self, css: &str) -> String {
        let element = self.find(css).unwrap_or_else(|| panic!("there is no `{css}` at {}", self.path()));
        let name = self.call("GET", &format!("/element/{element}/computedlabel"), &Value::Null);
        name.as_str().expect("a text").to_owned()
    }

    /// Waits until an element holds a text.
    #[track_caller]
    fn until(&self, css: &str, text: &str) {
        let began = Instant::now();
        loop {
            let found = self.text(css);
            if found.as_ref().is_some_and(|found| found.contains(text)) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "`{css}` does not say `{text}` at {}: {found:?}", self.path());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Clicks an element; again if it was replaced between the two calls.
    #[track_caller]
    fn click(&self, css: &str) {
        let began = Instant::now();
        loop {
            let element = self.find(css).unwrap_or_else(|| panic!("there is no `{css}` at {}", self.path()));
            match self.try_call("POST", &format!("{}/element/{element}/click", self.session), &json!({})) {
                Ok(_) => return,
                Err(error) if error.contains("stale element") && began.elapsed() < PATIENCE => {}
                Err(error) => panic!("`{css}` cannot be clicked at {}: {error}", self.path()),
            }
        }
    }

    #[track_caller]
    fn type_into(&self, css: &str, text: &str) {
        let element = self.find(css).unwrap_or_else(|| panic!("there is no `{css}` at {}", self.path()));
        self.call("POST", &format!("/element/{element}/value"), &json!({ "text": text }));
    }

    /// Runs an expression in the page.
    #[track_caller]
    fn ask(&self, expression: &str) -> Value {
        self.call("POST", "/execute/sync", &json!({ "script": format!("return {expression}"), "args": [] }))
    }

    /// Keeps what is seen.
    fn screenshot(&self, name: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../screens");
        fs::create_dir_all(&folder).expect("a folder");
        let picture = self.call("GET", "/screenshot", &Value::Null);
        let bytes = from_base64(picture.as_str().expect("a picture"));
        fs::write(folder.join(format!("{name}-{}.png", self.kind.get().name())), bytes).expect("a file");
    }

    /// Asserts that the browser found nothing wrong: no script refused, no error, nothing missing.
    #[track_caller]
    fn is_content(&self) {
        let said = self.call("POST", "/se/log", &json!({ "type": "browser" }));
        let severe = |entry: &&Value| entry["level"] == "SEVERE";
        let faults: Vec<&Value> = said.as_array().expect("a list").iter().filter(severe).collect();
        assert!(faults.is_empty(), "the browser says at {}: {faults:#?}", self.path());
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.try_call("DELETE", &self.session, &Value::Null);
        self.driver.kill();
    }
}

/// RFC 4648, without the characters that end a text.
fn from_base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for value in text.bytes().filter_map(|byte| LETTERS.iter().position(|letter| *letter == byte)) {
        bits = bits << 6 | u32::try_from(value).expect("six bits");
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    bytes
}

/// A pipeline with what pages must bear: hostile names and texts, a failure, a gate, a matrix, a long log.
const PIPELINE: &str = r#"
name: "<b>demo</b>"
defaults: { environment: host }
jobs:
  long: { run: 'seq 1 200000; printf "\033[31merror\033[0m: it broke\n"; seq 200001 200100; exit 3' }
  hostile: { run: 'echo "<script>document.title = 1</script><img src=x onerror=alert(1)>"' }
  legs: { matrix: { n: [1, 2, 3, 4, 5] }, run: 'echo "${{ matrix.n }}"' }
  ship:
    gate: { prompt: "Ship <i>it</i>?", fields: { version: { type: string, default: "1.2" } } }
    run: echo shipped
"#;

/// A site with a build of [`PIPELINE`] of which only the gate is open.
fn site() -> (Site, Vec<Process>) {
    let site = Site::new(PIPELINE);
    let (server, worker) = (site.serve(), site.work("w", &[]));
    site.submit(&["--no-wait"], 0);
    (site, vec![worker.process, server])
}

#[test]
fn a_build_is_watched_to_its_end() {
    if !has_browser() {
        return;
    }
    let (site, _processes) = site();
    let browser = Browser::open(&site, Kind::Desk);
    browser.go("/builds/1");
    // By itself: nothing is loaded again but what has changed.
    browser.until("#tree", "legs");
    browser.until("#failure-0", "it broke");
    browser.until(".gate h2", "Ship <i>it</i>?");
    browser.until("#build-header .facts", "1 waiting");
    browser.ask("window.stays = true");
    browser.screenshot("build");
    browser.click(".gate button[value=approve]");
    browser.until("p.verdict", "failed");
    browser.until("#tree", "ship");
    browser.is_content();
    // A failed job is tried again from the page, and the page follows that too.
    browser.click("#build-header button[value=failed]");
    browser.until("#tree", "try 2");
    browser.until("p.verdict", "failed");
    browser.is_content();
}

#[test]
fn focus_stays_where_it_is_while_a_page_changes() {
    if !has_browser() {
        return;
    }
    let (site, _processes) = site();
    let browser = Browser::open(&site, Kind::Desk);
    browser.until("#builds", "#1");
    browser.ask("document.querySelector('#builds a.name[href=\"/builds/1\"]').focus()");
    site.submit(&["--no-wait"], 0);
    browser.until("#builds", "#2");
    assert_eq!(browser.ask("document.activeElement.getAttribute('href')"), "/builds/1");
    browser.is_content();
}

#[test]
fn a_long_log_opens_at_its_first_error() {
    if !has_browser() {
        return;
    }
    let (site, _processes) = site();
    let browser = Browser::open(&site, Kind::Desk);
    browser.go("/builds/1");
    browser.until("#failure-0", "it broke");
    browser.go("/builds/1/jobs/long");
    browser.until("#log .marked .c", "error: it broke");
    assert_eq!(browser.ask("getComputedStyle(document.querySelector('#log .marked .c .f1')).color !== getComputedStyle(document.querySelector('#log .l .c')).color"), true);
    let rows = browser.ask("document.querySelectorAll('#log .l').length").as_u64().expect("a number");
    assert!(rows < 500, "{rows} of 200,101 lines are in the page");
    browser.screenshot("log");
    // Far away and back: what is looked at is loaded.
    browser.ask("document.querySelector('#log').scrollTop = 0");
    browser.until("#log [id='1:1'] .c", "1");
    browser.ask("document.querySelector('#log').scrollTop = 1e9");
    browser.until("#log [id='1:200101'] .c", "200100");
    // A link to a line leads there.
    browser.go("/builds/1/jobs/long#1:150000");
    browser.until("#log [id='1:150000'].marked .c", "150000");
    // A search goes over the whole log, on the server.
    browser.type_into("#search", "^1234[57]$\n");
    browser.until(".hits", "2 lines match");
    browser.click(".hits li:nth-child(2) a");
    browser.until("#log [id='1:12347'].marked .c", "12347");
    browser.is_content();
    // However much was looked at, little of it stays.
    for part in 0..20 {
        browser.ask(&format!("document.querySelector('#log').scrollTop = {}", part * 200_000));
        browser.until_is(&format!(
            "[...document.querySelectorAll('#log .n')].some(it => Number(it.dataset.n) > {})",
            part * 10_000
        ));
    }
    let mib = browser.tab_mib();
    println!("the tab takes {mib} MiB");
    assert!((1..300).contains(&mib), "the tab takes {mib} MiB");
}

#[test]
fn nothing_hostile_runs() {
    if !has_browser() {
        return;
    }
    let (site, _processes) = site();
    let browser = Browser::open(&site, Kind::Phone);
    browser.go("/builds/1/jobs/hostile");
    browser.until("#log [id='1:1'] .c", "<script>document.title = 1</script>");
    assert_ne!(browser.ask("document.title"), "1");
    assert_eq!(browser.ask("document.querySelectorAll('#log img, #log script').length"), 0);
    browser.is_content();
    for (name, path) in [("projects", "/"), ("builds", "/builds"), ("build", "/builds/1"), ("queue", "/queue")] {
        browser.go(path);
        browser.until("h1", "");
        let too_wide = browser.ask("document.documentElement.scrollWidth > document.documentElement.clientWidth");
        assert_eq!(too_wide, false, "{path} scrolls sideways on a phone");
        browser.screenshot(name);
    }
    browser.is_content();
}

#[test]
fn pages_are_read_without_scripts_and_in_the_dark() {
    if !has_browser() {
        return;
    }
    let (site, _processes) = site();
    let plain = Browser::open(&site, Kind::Plain);
    let began = Instant::now();
    while plain.text("#failure-0").is_none() {
        assert!(began.elapsed() < PATIENCE, "the build does not fail");
        plain.go("/builds/1");
    }
    plain.go("/builds/1/jobs/long");
    plain.until("#log .marked .c", "error: it broke");
    // What only scripts can do is not there without them.
    let tools = plain.find("#log-tools").expect("the tools");
    assert_eq!(plain.call("GET", &format!("/element/{tools}/displayed"), &Value::Null), false);
    plain.click(".pager.before a");
    plain.until("#log [id='1:1'] .c", "1");
    plain.go("/builds/1");
    plain.click(".gate button[value=reject]");
    plain.until("h1", "first");
    let dark = plain;
    dark.turn(Kind::Dark);
    for (name, path) in [("projects", "/"), ("build", "/builds/1"), ("log", "/builds/1/jobs/long"), ("queue", "/queue")]
    {
        dark.go(path);
        dark.until("h1", "");
        dark.screenshot(name);
    }
    let ground = dark.ask("getComputedStyle(document.documentElement).backgroundColor");
    assert_eq!(ground, "rgb(20, 24, 27)");
    dark.is_content();
}
