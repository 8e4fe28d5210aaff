//! Which build of a server is meant by `last` and `last-failed`, and which is led to: builds that jobs asked for are others' business.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::installation::Site;

/// A site whose job `a` asks for a build of this pipeline.
fn site(child: &str) -> Site {
    let site = Site::new("jobs:\n  a:\n    run: [{ build: { file: .ropewalk/child.yaml } }]\n");
    fs::write(site.root().join(".ropewalk/child.yaml"), child).expect("a file");
    site
}

/// What a command prints that ends so.
#[track_caller]
fn told(site: &Site, arguments: &[&str], code: i32) -> String {
    let (out, err) = Site::told(site.there(arguments), code);
    format!("{out}{err}")
}

/// The build that the job of build 1 asked for, once there is one.
fn child_of_the_first(site: &Site) -> String {
    site.shows("1", ", for a: ");
    let shown: Value = serde_json::from_str(&told(site, &["show", "1", "--output", "json"], 0)).expect("JSON");
    shown["children"][0]["build"].to_string()
}

/// A page, as the administrator sees it.
fn page(site: &Site, path: &str) -> String {
    let token = fs::read_to_string(site.path("admin.token")).expect("a token");
    let mut server = TcpStream::connect(&site.address).expect("the server");
    let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\ncookie: ropewalk={}\r\n", site.address, token.trim());
    server.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).expect("it listens");
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).expect("it answers");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn pages_tell_a_jobs_build_apart_from_its_tries() {
    let site = site("jobs: { one: { pool: none, run: echo never } }");
    let _server = site.serve();
    site.submit_only(&[]);
    let child = child_of_the_first(&site);
    let job = page(&site, "/builds/1/jobs/a");
    assert!(job.contains(&format!("<dt>Its build</dt><dd><a href=\"/builds/{child}\">")), "{job}");
    let table = page(&site, "/builds/1?view=table");
    assert!(table.contains("<td class=\"number wide\">–</td></tr>"), "{table}");
}

#[test]
fn the_last_build_is_one_that_somebody_asked_for() {
    let site = site("jobs: { one: { pool: none, run: echo never } }");
    let _server = site.serve();
    site.submit_only(&[]);
    let child = child_of_the_first(&site);
    site.shows(&child, "one  waiting");
    assert!(told(&site, &["show"], 0).starts_with("build 1 is running"));
    let text = told(&site, &["urge"], 0);
    assert!(text.starts_with("build 1 goes before"), "{text}");
    let text = told(&site, &["cancel"], 0);
    assert!(text.starts_with("build 1 is asked to end"), "{text}");
    site.shows("1", "build 1 was canceled");
    let text = told(&site, &["cancel"], 2);
    assert!(text.contains("build 1 has ended already"), "{text}");
    let text = told(&site, &["urge"], 2);
    for command in ["retry 1", "submit --urgent"] {
        assert!(text.contains(&format!("`ropewalk {command} --server {} --token ", site.url())), "{text}");
    }
}

#[test]
fn a_job_whose_build_failed_leads_to_that_build() {
    let site = site("jobs: { one: { run: echo trying; exit 3 } }");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    site.submit(&[], 1);
    let child = child_of_the_first(&site);
    let page = told(&site, &["show", "last-failed"], 0);
    assert!(page.starts_with("build 1 failed because of `a`"), "{page}");
    assert!(page.contains(&format!("  build {child} failed because of `one`\n")), "{page}");
    let commands: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("  ropewalk ")?.split(" --").next()).collect();
    let (show, logs) = (format!("show {child}"), format!("logs {child} one"));
    assert_eq!(commands, ["show 1 a", &show, &logs, "retry 1"], "{page}");
    let page = told(&site, &["show", "1", "a"], 0);
    assert!(page.contains(&logs) && !page.contains("  ropewalk shell"), "{page}");
    let mut shell = site.command(&["shell", "--server", &site.url(), "--token"]);
    shell.arg(site.path("admin.token")).args(["1", "a", "--", "true"]);
    let (_, text) = Site::told(shell, 2);
    let led = format!("`a` asked for build {child}; open a shell in a job of that build");
    assert!(text.contains(&led), "{text}");
}
