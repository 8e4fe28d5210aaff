//! Workers that end, or whose server does, while they run something: no build is lost by it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::installation::{Site, Worker};
use crate::process::{Process, Reader, appears};

/// A site whose job makes `mark.pid` with the step's process, and runs until there is `mark.go`; and the path of `mark`.
fn site() -> (Site, PathBuf) {
    let site = Site::new("");
    let mark = site.path("mark");
    let run =
        format!("echo $$ > {0}.new; mv {0}.new {0}.pid; until test -e {0}.go; do sleep 0.05; done", mark.display());
    fs::write(site.root().join(".ropewalk/pipeline.yaml"), format!("jobs:\n  a:\n    run: {run}\n")).expect("a file");
    (site, mark)
}

fn go_on(mark: &Path) {
    fs::write(mark.with_extension("go"), "").expect("a file");
}

/// A server whose worker finds it by the file of its address, as the one beside it does, and has the job; and who watches.
fn begun(site: &Site, mark: &Path) -> (Process, Worker, (Process, Reader)) {
    let server = site.serve();
    let worker = site.work("w1", &["--orphaned-after", "1"]);
    let watch = site.watch(&["--output", "json"]);
    appears(&mark.with_extension("pid"));
    (server, worker, watch)
}

#[test]
fn a_worker_beside_a_server_that_died_finishes_what_it_runs() {
    let (site, mark) = site();
    let (mut server, mut worker, (mut watching, mut shown)) = begun(&site, &mark);
    server.kill();
    worker.said.until("no server was there for 1 s: finishing what runs, then leaving, unless a server comes back");
    go_on(&mark);
    worker.said.until("no server was there for 1 s: leaving");
    assert_eq!(worker.process.ended(), Some(0));
    let _server = site.serve();
    let _next = site.work("w1", &["--orphaned-after", "1"]);
    let last = shown.until("\"kind\":\"job_finished\"");
    assert!(last.contains("\"outcome\":\"passed\"") && last.contains("\"attempt\":1"), "{last}");
    assert_eq!(watching.ended(), Some(0));
}

#[test]
fn a_server_that_comes_back_late_has_its_worker_back() {
    let (site, mark) = site();
    let (mut server, mut worker, (mut watching, mut shown)) = begun(&site, &mark);
    server.kill();
    worker.said.until("no server was there for 1 s: finishing what runs");
    let _server = site.serve();
    worker.said.until("joined http://");
    go_on(&mark);
    let last = shown.until("\"kind\":\"job_finished\"");
    assert!(last.contains("\"outcome\":\"passed\"") && last.contains("\"attempt\":1"), "{last}");
    assert_eq!(watching.ended(), Some(0));
}

#[test]
fn a_worker_that_was_started_by_a_link_starts_what_the_link_is_by_then() {
    let (site, mark) = site();
    let link = |to: &Path| {
        std::os::unix::fs::symlink(to, site.path("fresh")).expect("a link");
        fs::rename(site.path("fresh"), site.path("program")).expect("it takes the old one's place");
    };
    link(Path::new(env!("CARGO_BIN_EXE_ropewalk")));
    let _server = site.serve();
    let mut worker = site.work_as(&site.path("program"), "w1", &[]);
    let script = format!("#!/bin/sh\ntouch {}.new\nexec {} \"$@\"\n", mark.display(), env!("CARGO_BIN_EXE_ropewalk"));
    fs::write(site.path("next"), script).expect("a file");
    fs::set_permissions(site.path("next"), PermissionsExt::from_mode(0o755)).expect("it may run");
    link(&site.path("next"));
    let mut update = site.command(&["workers", "update", "w1", "--reason", "a release", "--server", &site.url()]);
    assert!(update.arg("--token").arg(site.path("admin.token")).status().expect("ropewalk starts").success());
    worker.said.until("joined http://");
    assert!(mark.with_extension("new").exists(), "the old program was started");
}

/// The job of a worker that ended in this way is tried again by another, which passes.
#[track_caller]
fn check_tried_again(end: impl Fn(&mut Worker, &Path), cause: &str) {
    let (site, mark) = site();
    let (_server, mut worker, (mut watching, mut shown)) = begun(&site, &mark);
    worker.process.signal("TERM");
    worker.said.until("finishing what runs, then leaving");
    end(&mut worker, &mark);
    let told = shown.until("\"kind\":\"job_finished\"");
    assert!(told.contains("\"kind\":\"infra\"") && told.contains(cause), "{told}");
    assert_eq!(worker.process.ended(), Some(0));
    go_on(&mark);
    let _next = site.work("w2", &[]);
    assert_eq!(watching.ended(), Some(0), "{:?}", shown.rest());
}

#[test]
fn what_a_worker_ends_at_once_is_tried_again() {
    check_tried_again(
        |worker, _| {
            worker.process.signal("TERM");
            worker.said.until("ending what runs at once");
        },
        "its worker was stopped before the job had ended",
    );
}

#[test]
fn a_step_that_ends_with_its_machine_is_tried_again() {
    check_tried_again(
        |_, mark| {
            let pid = fs::read_to_string(mark.with_extension("pid")).expect("a file");
            assert!(Command::new("kill").args(["-TERM", pid.trim()]).status().expect("kill").success());
        },
        "signal 15 ended its step while its worker was being stopped",
    );
}

#[test]
fn a_pool_that_nobody_knows_is_held_only_if_it_is_to_be_new() {
    let site = Site::new("jobs:\n  a:\n    run: echo\n");
    let _server = site.serve();
    let _worker = site.work("w1", &["--pool", "linux"]);
    let pools = |arguments: &[&str], code: i32| {
        let mut command = site.command(&["pools"]);
        command.args(arguments).args(["--server", &site.url(), "--token"]).arg(site.path("admin.token"));
        let (out, err) = Site::told(command, code);
        format!("{out}{err}")
    };
    let check = |arguments: &[&str], code: i32, wanted: &str| {
        let told = pools(arguments, code);
        assert!(told.contains(wanted), "{arguments:?}: {told}");
    };
    let unknown = "no worker serves the pool `linx` and no job names it: did you mean `linux`?";
    check(&["hold", "linx"], 2, &format!("{unknown}; `--new` holds it before anybody does"));
    check(&["hold", "linx", "--new"], 0, "nothing starts in linx until");
    check(&["release", "linx"], 0, "jobs start in linx again: it was held by a");
    check(&["release", "linx"], 0, "nobody held linx: no worker serves");
    check(&["hold", "linux", "--reason", "a new disk"], 0, "0 wait, 0 run on\n");
    let replaced = "this takes the place of the hold by a: a new disk: one release ends it for both";
    check(&["hold", "linux", "--reason", "a new kernel"], 0, replaced);
    check(&["release", "linux"], 0, "jobs start in linux again: it was held by a: a new kernel");
    check(&["release", "linux"], 0, "jobs start in linux: nobody held it");
}

#[test]
fn whoever_waits_for_a_worker_that_stays_after_all_hears_so() {
    let (site, mark) = site();
    let (_server, mut worker, (mut watching, _shown)) = begun(&site, &mark);
    let workers = |arguments: &[&str]| {
        let mut command = site.command(&["workers"]);
        command.args(arguments).args(["--server", &site.url(), "--token"]).arg(site.path("admin.token"));
        command
    };
    for (order, other, told) in [
        ("drain", "resume", "w1 was resumed meanwhile, and does not leave"),
        ("update", "pause", "meanwhile, and was not updated"),
    ] {
        let mut waiting = workers(&[order, "w1", "--wait"]);
        let mut waiting = Process(waiting.stderr(Stdio::piped()).spawn().expect("ropewalk starts"));
        worker.said.until("finishing what runs, then");
        assert!(workers(&[other, "w1", "--reason", "not yet"]).status().expect("ropewalk starts").success());
        let mut said = Reader::new(waiting.0.stderr.take().expect("a pipe"));
        said.until(told);
        assert_eq!(waiting.ended(), Some(1));
    }
    go_on(&mark);
    assert_eq!(watching.ended(), Some(0));
}
