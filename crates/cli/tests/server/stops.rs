//! A server that stops, and what it says of itself to programs.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::installation::Site;
use crate::process::{Process, Reader};

/// Each line of a log in JSON.
#[track_caller]
fn parsed(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
}

/// A server of these settings whose log is read.
fn logged(site: &Site, data: &str, settings: &str) -> (Process, Reader) {
    fs::create_dir_all(site.path(data)).expect("a folder");
    fs::write(site.path(data).join("settings.toml"), settings).expect("a file");
    let mut command = site.command(&["serve", "--listen", &site.address, "--data"]);
    command.arg(site.path(data)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process(command.spawn().expect("ropewalk starts"));
    let said = Reader::new(process.0.stderr.take().expect("a pipe"));
    (process, said)
}

#[test]
fn all_that_a_server_says_to_programs_is_json() {
    let site = Site::new("");
    let settings = "server.log = \"json\"\nworker.local = \"off\"\n";
    let (mut server, mut said) = logged(&site, "data", settings);
    Reader::new(server.0.stdout.take().expect("a pipe")).until("serving http://");
    fs::write(site.path("data/settings.toml"), format!("{settings}server.grase = \"5s\"\n")).expect("a file");
    server.signal("HUP");
    said.until("the settings stay as they were");
    let (mut second, refused) = logged(&site, "second", settings);
    assert_eq!(second.ended(), Some(2));
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
    let told = parsed(&said.rest());
    let refused = parsed(&refused.rest());
    let check = |told: &[Value], level: &str, text: &str| {
        let says = |line: &Value| line["message"].as_str().is_some_and(|message| message.contains(text));
        assert!(told.iter().any(|line| line["level"] == level && says(line)), "no {level} `{text}`: {told:?}");
    };
    check(&told, "error", "there is no setting `server.grase`");
    check(&told, "warning", "the settings stay as they were");
    check(&refused, "error", "cannot listen on ");
}
