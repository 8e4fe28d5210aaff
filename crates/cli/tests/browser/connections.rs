//! What pages have of the server: few connections for all windows together, a frame also where the browser tells the server nothing of it,
//! and words where the server has gone.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::build::inside;
use super::installation::Site;
use super::{Browser, Kind, has_browser};

/// A site with a job that prints a line ten times a second until the file `over` is in the folder.
fn ticking(folder: &Path) -> Site {
    let script =
        format!("i=0; while [ ! -e {} ]; do i=$((i+1)); echo tick $i; sleep 0.1; done", folder.join("over").display());
    Site::new(&format!("defaults: {{ environment: host }}\njobs:\n  tick: {{ run: '{script}' }}\n"))
}

#[test]
fn windows_that_nobody_looks_at_hold_no_connection() {
    if !has_browser() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let site = ticking(folder.path());
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&["--no-wait"], 0);
    let browser = Browser::open(&site, Kind::Desk);
    let ticks = inside("Number(page.querySelector('#log .l:last-child .c')?.textContent.slice('tick '.length) ?? 0)");
    let first = browser.call("GET", "/window", &json!(null));
    for _ in 0..4 {
        browser.go("/builds/1?job=tick");
        browser.until_is(&format!("{ticks} > 0"));
        browser.call("POST", "/window/minimize", &json!({}));
        browser.until_is("document.hidden");
        let made = browser.call("POST", "/window/new", &json!({ "type": "window" }));
        browser.call("POST", "/window", &json!({ "handle": made["handle"] }));
    }
    browser.go("/queue");
    browser.until("h1", "Queue");
    // What is looked at again goes on.
    browser.call("POST", "/window", &json!({ "handle": first }));
    let before = browser.ask(&ticks).as_u64().expect("a number");
    browser.call("POST", "/window/rect", &json!({ "width": 1280, "height": 900 }));
    browser.until_is("!document.hidden");
    browser.until_is(&format!("{ticks} > {}", before + 5));
    fs::write(folder.path().join("over"), "").expect("a file");
    // The page in the frame hears by the page around it.
    browser.until("p.verdict", "passed");
    browser.until_is(&inside("page.querySelector('#ending').textContent.includes('exit 0')"));
    browser.is_content();
}

#[test]
fn a_job_stands_beside_its_build_also_by_the_servers_name() {
    if !has_browser() {
        return;
    }
    let site = Site::new("defaults: { environment: host }\njobs:\n  a: { run: echo hello }\n");
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&[], 0);
    let mut browser = Browser::open(&site, Kind::Desk);
    browser.url = site.url().replace("127.0.0.1", "server.test");
    browser.go("/builds/1?job=a");
    let token = fs::read_to_string(site.path("admin.token")).expect("a token");
    browser.type_into("#token", &format!("{}\n", token.trim()));
    browser.until_is(&inside("page.querySelector('h1')?.textContent.includes('a') && page.querySelector('#log .l .c')?.textContent === 'hello'"));
    browser.until_is(&inside("page.querySelector('header.top') === null || page.defaultView.getComputedStyle(page.querySelector('header.top')).display === 'none'"));
    browser.screenshot("build-panel-by-name");
    // Keys that lead to other pages lead the whole window there.
    browser.until_is(&inside("page.documentElement.hasAttribute('data-ready')"));
    browser.ask(&inside(
        "['g', 'b'].every((key) => page.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true })) || true)",
    ));
    browser.until_is("location.pathname === '/builds'");
    browser.is_content();
}

#[test]
fn a_page_says_when_the_server_has_gone_and_goes_on_when_it_is_there() {
    if !has_browser() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let sign = folder.path().join("sign");
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", sign.display());
    let script = format!("seq 1 9000; {wait}");
    let site = Site::new(&format!("defaults: {{ environment: host }}\njobs:\n  slow: {{ run: '{script}' }}\n"));
    let (mut server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&["--no-wait"], 0);
    let browser = Browser::open(&site, Kind::Desk);
    browser.go("/builds/1/jobs/slow");
    browser.until("#log [id='1:9000'] .c", "9000");
    server.kill();
    browser.until("#stale", "Nothing has been heard of the server");
    // What is not there says so, and comes once it can.
    browser.ask("document.querySelector('#log').scrollTop = 0");
    browser.until(".stage .missing", "Lines are missing here: the server cannot be reached.");
    browser.type_into("#search", "9\n");
    browser.until(".find + .problem", "The server cannot be reached");
    browser.screenshot("server-gone");
    let mut server = site.serve();
    browser.until("#log [id='1:1'] .c", "1");
    browser.until_is("document.querySelector('.stage .missing').hidden && document.querySelector('#stale').hidden");
    // On the page of the build nothing is said to go on of which nobody hears.
    browser.go("/builds/1");
    browser.until("#tree", "slow");
    browser.until_is("document.querySelector('[data-since]') !== null && !document.body.hasAttribute('data-stale')");
    server.kill();
    browser.until("#stale", "Nothing has been heard of the server");
    browser.until_is("document.body.hasAttribute('data-stale')");
    let _server = site.serve();
    browser.until_is("document.querySelector('#stale').hidden && !document.body.hasAttribute('data-stale')");
    fs::write(sign, "").expect("a file");
    browser.until("p.verdict", "passed");
}
