//! A server that stops, and what it says of itself to programs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::installation::Site;
use crate::process::{Process, Reader, appears};

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
    let (mut third, held) = logged(&site, "data", settings);
    assert_eq!(third.ended(), Some(2));
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
    let told = parsed(&said.rest());
    let held = parsed(&held.rest());
    let refused = parsed(&refused.rest());
    let check = |told: &[Value], level: &str, text: &str| {
        let says = |line: &Value| line["message"].as_str().is_some_and(|message| message.contains(text));
        assert!(told.iter().any(|line| line["level"] == level && says(line)), "no {level} `{text}`: {told:?}");
    };
    check(&told, "error", "there is no setting `server.grase`");
    check(&told, "warning", "the settings stay as they were");
    check(&refused, "error", "cannot listen on ");
    check(&held, "error", " holds the folder ");
}

/// The workers beside servers of this site that have opened the lock of their folder, and so know who started them.
fn local_workers(site: &Site) -> Vec<u32> {
    let lock = site.path("data/worker/lock");
    let has_opened = |process: &Path| {
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        files.into_iter().any(|file| fs::read_link(file.path()).is_ok_and(|path| path == lock))
    };
    let processes = fs::read_dir("/proc").expect("it is there").flatten();
    let workers = processes.filter(|process| has_opened(&process.path()));
    workers.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
}

#[test]
fn a_worker_that_waits_for_its_folder_ends_with_its_server() {
    let site = Site::new("");
    let mut first = site.serve_with(&[]);
    site.eventually("the first has the folder", || local_workers(&site).len() == 1);
    let holder = local_workers(&site);
    first.kill();
    let mut second = site.serve_with(&[]);
    site.eventually("the second waits for it", || local_workers(&site).len() == 2);
    second.kill();
    site.eventually("the first alone is left", || local_workers(&site) == holder);
    for worker in holder {
        Command::new("kill").arg(worker.to_string()).status().expect("kill");
    }
    site.eventually("it ends", || local_workers(&site).is_empty());
}

#[test]
fn the_next_server_of_a_folder_does_not_wait_for_what_the_worker_runs() {
    let site = Site::new("");
    let mark = site.path("mark");
    let run = format!("touch {0}.began; until test -e {0}.go; do sleep 0.05; done", mark.display());
    fs::write(site.root().join(".ropewalk/pipeline.yaml"), format!("jobs:\n  a:\n    run: {run}\n")).expect("a file");
    // Longer than anything here waits.
    fs::write(site.path("data/settings.toml"), "worker.heartbeat = \"1s\"\nserver.grace = \"6h\"\n").expect("a file");
    let mut server = site.serve_with(&[]);
    let (mut watching, mut shown) = site.watch(&["--output", "json"]);
    appears(&mark.with_extension("began"));
    server.signal("TERM");
    site.eventually("the server has ended", || server.0.try_wait().expect("a child").is_some());
    let mut next = site.serve_with(&[]);
    fs::write(mark.with_extension("go"), "").expect("a file");
    let last = shown.until("\"kind\":\"job_finished\"");
    assert!(last.contains("\"outcome\":\"passed\"") && last.contains("\"attempt\":1"), "{last}");
    assert_eq!(watching.ended(), Some(0));
    next.signal("TERM");
    assert_eq!(next.ended(), Some(0));
}
