//! A server, its workers and people's programs: every one a real process of the binary, over real sockets.

#[path = "server/children.rs"]
mod children;
#[path = "server/closed.rs"]
mod closed;
#[path = "server/damage.rs"]
mod damage;
#[path = "server/departure.rs"]
mod departure;
#[path = "server/events.rs"]
mod events;
mod installation;
#[path = "server/named.rs"]
mod named;
mod process;
#[path = "server/programs.rs"]
mod programs;
#[path = "server/realms.rs"]
mod realms;
#[path = "server/room.rs"]
mod room;
#[path = "server/spares.rs"]
mod spares;
#[path = "server/stops.rs"]
mod stops;
#[path = "server/tokens.rs"]
mod tokens;
#[path = "server/walls.rs"]
mod walls;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use installation::{Site, Worker};
use process::{Process, Reader, appears};
use serde_json::{Value, json};

#[test]
fn a_directory_is_built_as_it_stands() {
    let site = Site::new("jobs:\n  hello:\n    run: cat file; cat sub/new\n");
    fs::write(site.root().join("file"), "changed\n").expect("a file");
    fs::create_dir(site.root().join("sub")).expect("a folder");
    fs::write(site.root().join("sub/new"), "untracked\n").expect("a file");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let text = site.submit(&[], 0);
    for line in ["build 1: push on main", "+ local changes", "hello | changed", "hello | untracked", "build 1 passed"] {
        assert!(text.contains(line), "no `{line}` in:\n{text}");
    }
    fs::write(site.root().join("file"), "again\n").expect("a file");
    let text = site.submit(&["--output", "json"], 0);
    assert!(text.contains("\"line\":\"again\""), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.contains("\"kind\":\"build_finished\"")), "{text}");
}

#[test]
fn the_worker_beside_the_server_needs_nothing() {
    let site = Site::new("jobs:\n  hello:\n    run: echo from the worker beside\n");
    let mut server = site.serve_with(&[]);
    let text = site.submit(&[], 0);
    assert!(text.contains("hello | from the worker beside"), "{text}");
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
}

#[test]
fn a_job_names_the_default_pool_or_none() {
    let pipeline = "jobs:\n  named:\n    pool: default\n    run: echo by its name\n  unnamed:\n    run: echo by none\n";
    let site = Site::new(pipeline);
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let text = site.submit(&[], 0);
    assert!(text.contains("named | by its name") && text.contains("unnamed | by none"), "{text}");
    // What is too large for the worker is so by either name, and says by how much.
    fs::write(
        site.root().join(".ropewalk/pipeline.yaml"),
        "jobs:\n  a:\n    pool: default\n    resources: { memory: 9000GiB }\n    run: echo never\n",
    )
    .expect("a file");
    let (_, err) = Site::told(site.submit_command(&["--no-wait"]), 0);
    let missing = "a waits: no worker of the pool `default` has all it asks for; w1 lacks ";
    assert!(err.contains(missing) && err.contains(" MiB of memory\n"), "{err}");
}

#[test]
fn settings_are_read_again_without_a_restart() {
    let site = Site::new("jobs:\n  a:\n    pool: nobody\n    run: echo never\n");
    let mut command = site.command(&["serve", "--local-worker", "off", "--listen", &site.address, "--data"]);
    command.arg(site.path("data")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = Process(command.spawn().expect("ropewalk starts"));
    Reader::new(server.0.stdout.take().expect("a pipe")).until("serving http://");
    let mut said = Reader::new(server.0.stderr.take().expect("a pipe"));
    let mut read_again = |settings: &str, expected: &[&str]| {
        fs::write(site.path("data/settings.toml"), settings).expect("a file");
        server.signal("HUP");
        expected.iter().for_each(|words| drop(said.until(words)));
    };
    // A later build of the branch takes the place of an earlier one, unless settings say otherwise.
    let submitted = |changed: &str| {
        fs::write(site.root().join("changed"), changed).expect("a file");
        let (out, err) = Site::told(site.submit_command(&["--no-wait"]), 0);
        (out.trim().to_owned(), err)
    };
    let (first, _) = submitted("one");
    read_again("builds.auto_cancel = \"off\"\nworker.heartbeat = \"1s\"\n", &["the settings were read again"]);
    let (second, _) = submitted("two");
    site.shows(&first, "running");
    read_again("builds.auto_cancel = \"no\"\n", &["the settings stay as they were, for what stands above"]);
    read_again(
        "worker.heartbeat = \"2s\"\n",
        &["the settings were read again", "the next start takes `worker.heartbeat`"],
    );
    // One of its own stands outside.
    let own = site.submit_only(&[]);
    let (third, err) = submitted("three");
    let told =
        format!("build {third} takes the place of build {first}, which is canceled; `--separate` lets both run\n");
    assert!(err.contains(&told) && err.matches("takes the place").count() == 1, "{err}");
    site.shows(&own, "running");
    // It is named as `show` and `builds` name it.
    site.shows(&first, &format!("by build {third}, which supersedes it"));
    site.shows(&second, "running");
    site.shows(&third, "running");
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
}

#[test]
fn a_failure_is_told_and_shown() {
    let site =
        Site::new("jobs:\n  bad:\n    run: echo broken >&2; exit 3\n  wrong:\n    needs: [bad]\n    run: echo never\n");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let text = site.submit(&[], 1);
    for line in ["bad | broken", "bad: failed:", "ended with code 3", "wrong: skipped", "failed because of `bad`"] {
        assert!(text.contains(line), "no `{line}` in:\n{text}");
    }
    fs::write(site.root().join(".ropewalk/pipeline.yaml"), "jobs:\n  a:\n    runn: x\n").expect("a file");
    let text = site.submit(&[], 2);
    assert!(text.contains("the pipeline is wrong"), "{text}");
}

#[test]
fn artifacts_go_from_worker_to_worker() {
    let site = Site::new(
        "jobs:\n  make:\n    labels: [maker]\n    run: mkdir out; echo made > out/file; chmod +x out/file\n    artifacts: { out: [out/**] }\n\
         \x20 use:\n    labels: [user]\n    needs: [make]\n    run: cat out/file; test -x out/file && echo executable\n",
    );
    let _server = site.serve();
    let _maker = site.work("maker", &["--labels", "maker"]);
    let _user = site.work("user", &["--labels", "user"]);
    let text = site.submit(&[], 0);
    assert!(text.contains("use | made") && text.contains("use | executable"), "{text}");
}

#[test]
fn secrets_leave_no_worker_unmasked() {
    let pipeline = "jobs:\n  a:\n    secrets: [PIN, TOKEN]\n    run: echo \"it is $TOKEN\"; echo $TOKEN | base64\n";
    let site = Site::new(pipeline);
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let unmasked = "the secret PIN has fewer than 4 bytes and is not masked: give it a longer value";
    assert_eq!(site.put_secret("PIN", b"#~^"), format!("note: {unmasked}\n"));
    let text = site.submit(&[], 1);
    assert!(text.contains("`ropewalk secrets put repository TOKEN` sets it"), "{text}");
    assert_eq!(site.put_secret("TOKEN", b"hunter2hunter2"), "");
    let text = site.submit(&[], 0);
    assert!(text.contains("a | it is ***"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMmh1bnRlcjI"), "{text}");
    let (shown, _) = Site::told(site.there(&["show", "last"]), 0);
    assert!(shown.contains(unmasked) && !shown.contains("#~^"), "{shown}");
}

#[test]
fn secrets_are_put_and_removed_where_they_are_meant() {
    let site = Site::new("jobs:\n  a:\n    run: echo a\n");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    site.submit(&[], 0);
    let check = |arguments: &[&str], code: i32, expected: &str| {
        let (out, err) = Site::told(site.there(arguments), code);
        assert!(format!("{out}{err}").contains(expected), "{arguments:?}: {out}{err}");
    };
    let unknown = "the server has no project `repositry`: did you mean `repository`?; `--new` ";
    check(&["secrets", "put", "repositry", "TOKEN"], 2, unknown);
    check(&["secrets", "list", "repositry"], 2, "there is no project `repositry`");
    check(&["secrets", "list", "repository"], 0, "repository has no secrets: `ropewalk secrets put repository NAME`");
    site.put_secret("TOKEN", b"a-secret-value");
    check(&["secrets", "list", "repository"], 0, "TOKEN\n");
    check(&["secrets", "remove", "repository", "TOKE"], 2, "repository has no secret `TOKE`: did you mean `TOKEN`?");
    check(&["secrets", "remove", "repository", "TOKEN"], 0, "TOKEN is gone from repository");
    check(&["secrets", "remove", "repository", "TOKEN"], 2, "repository has no secret `TOKEN`");
}

#[test]
fn what_is_refused_is_said_once_and_with_what_to_do() {
    let site = Site::new("jobs:\n  a:\n    run: echo a\n  b:\n    pool: nobody\n    run: echo b\n");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let named = "`Foo Bar` cannot name a project: a name has letters, digits and `._-`, at most 100, ";
    let text = site.submit(&["--project", "Foo Bar"], 2);
    assert!(text.contains(named), "{text}");
    let mut bare = site.command(&["submit", "--server", &site.address, "--token"]);
    bare.arg(site.path("client.token"));
    let (_, err) = Site::told(bare, 2);
    let neither =
        format!("`{0}` is not the address of a server: it begins with neither http:// nor https://", site.address);
    assert!(err.contains(&neither) && err.contains(&format!("; write http://{}, ", site.address)), "{err}");
    let build = site.submit_only(&[]);
    let (_, err) = Site::told(site.there(&["shell", &build, "b"]), 2);
    assert!(err.contains(&format!("`b` has not begun; `ropewalk show {build}` tells what it waits for")), "{err}");
    let words =
        ["quarantine", "add", "repository", "t", "--owner", "ann", "--reason", "flaky", "--until", "2999-01-01"];
    let (_, err) = Site::told(site.there(&words), 2);
    assert_eq!(err.matches("at most 90 days ahead").count(), 1, "{err}");
}

#[test]
fn where_a_server_is_named_no_cache_of_this_machine_is_cleared() {
    let site = Site::new("jobs:\n  a:\n    run: echo a\n");
    for words in [["cache", "list"], ["cache", "clear"]] {
        let mut meant_there = site.command(&words);
        meant_there.env("ROPEWALK_SERVER", "http://127.0.0.1:9");
        let (out, err) = Site::told(meant_there, 2);
        assert!(out.is_empty() && err.contains("`--local` means the builds of this machine"), "{out}{err}");
        let mut meant_here = site.command(&words);
        meant_here.arg("--local").env("ROPEWALK_SERVER", "http://127.0.0.1:9");
        Site::told(meant_here, 0);
    }
}

#[test]
fn members_are_added_changed_and_removed() {
    let site = Site::new("jobs:\n  a:\n    run: echo a\n");
    let _server = site.serve();
    let check = |arguments: &[&str], code: i32, expected: &str| {
        let (out, err) = Site::told(site.there(arguments), code);
        assert!(format!("{out}{err}").contains(expected), "{arguments:?}: {out}{err}");
        out
    };
    let link = check(&["member", "add", "Ann B.", "--role", "reader", "--project", "sails"], 0, "a link for Ann B.");
    assert!(link.starts_with(&format!("{}/join?link=", site.url())) && link.lines().count() == 1, "{link}");
    check(&["member", "link", "Bob"], 2, "there is no member `Bob`, or the token may not see it");
    check(&["member", "add", "Ann B.", "--project", "sails"], 2, "there is a member of this name already");
    check(&["member", "list"], 0, "Ann B.  reader  sails");
    check(&["member", "role", "Ann B.", "developer", "--project", "sails"], 0, "is developer on sails now");
    check(&["member", "link", "Ann B."], 0, "/join?link=");
    check(&["member", "list", "--output", "json"], 0, "\"sails\": \"developer\"");
    check(&["member", "remove", "Ann B.", "--everywhere"], 2, "has no role on every project, but on sails");
    check(&["member", "add", "Ann B.", "--role", "reader"], 0, "a link for Ann B.");
    check(&["member", "remove", "Ann B.", "--everywhere"], 0, "has no role on every project any more");
    check(&["member", "list"], 0, "Ann B.  developer  sails");
    check(&["member", "remove", "Ann B."], 0, "signed out everywhere");
    check(&["member", "list"], 0, "nobody is a member yet");
    check(&["member", "remove", "Ann B."], 2, "there is no");
}

#[test]
fn a_job_that_nobody_can_run_says_so() {
    let site =
        Site::new("jobs:\n  a:\n    pool: gpu\n    run: echo never\n  b:\n    needs: [a]\n    run: echo never\n");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    // Whoever asks is told at once, who waits for the end and who does not.
    let (out, err) = Site::told(site.submit_command(&["--no-wait"]), 0);
    let missing = "waits: the pool `gpu` has no worker; `ropewalk work --pool gpu` starts one";
    assert!(err.contains(&format!("a {missing}\n")) && !err.contains(&format!("b {missing}")), "{err}");
    let (answer, _) = Site::told(site.submit_command(&["--no-wait", "--output", "json"]), 0);
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!((answer["build"].to_string().as_str(), &answer["made"]), (out.trim(), &"joined".into()), "{answer}");
    assert_eq!(answer["unmatched"][0]["reason"]["kind"], "no_worker", "{answer}");
    let (mut watching, mut shown) = site.watch(&["--output", "json", "--separate"]);
    shown.until("a waits: the pool `gpu` has no worker");
    shown.until("\"kind\":\"planned\"");
    let mut list = site.command(&["pools", "queue", "gpu", "--server", &site.url(), "--token"]);
    let output = list.arg(site.path("admin.token")).output().expect("ropewalk starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("no worker"), "{text}");
    // So is whoever looks, in words and as data.
    site.shows("last", "a  waiting  the pool `gpu` has no worker; `ropewalk work --pool gpu` starts one");
    site.shows("last", "b  waiting  it waits for `a`");
    let (out, _) = Site::told(site.there(&["show", "last", "--output", "json"]), 0);
    let shown_as_data: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let of = |job: usize| &shown_as_data["jobs"][job]["waiting"]["reason"];
    assert_eq!(of(0)["kind"], "no_worker", "{out}");
    assert_eq!(*of(1), serde_json::json!({ "kind": "needs", "jobs": ["a"], "count": 1 }), "{out}");
    watching.signal("TERM");
    assert_eq!(watching.ended(), Some(130));
}

#[test]
fn a_killed_worker_loses_its_attempt_and_another_runs_the_job() {
    let site = Site::new(
        "jobs:\n  a:\n    run: touch \"$MARK.$$\"; test -e \"$MARK.go\" && exit 0; sleep 600\n    env: { MARK: PATH/mark }\n",
    );
    let mark = site.path("mark");
    let pipeline = fs::read_to_string(site.root().join(".ropewalk/pipeline.yaml")).expect("a file");
    let pipeline = pipeline.replace("PATH/mark", &mark.display().to_string());
    fs::write(site.root().join(".ropewalk/pipeline.yaml"), pipeline).expect("a file");
    let _server = site.serve();
    let mut first = site.work("w1", &[]);
    let (mut watching, mut shown) = site.watch(&["--output", "json"]);
    shown.until("\"kind\":\"step_started\"");
    fs::write(mark.with_extension("go"), "").expect("a file");
    first.process.kill();
    let _second = site.work("w2", &[]);
    shown.until("\"kind\":\"lost\"");
    let last = shown.until("\"kind\":\"build_finished\"");
    assert!(last.contains("\"verdict\":\"passed\""), "{last}");
    assert_eq!(watching.ended(), Some(0));
}

#[test]
fn a_worker_that_comes_back_late_is_not_believed() {
    let site = Site::new(
        "jobs:\n  a:\n    outputs: [who]\n    run: |\n      touch MARK.$ROPEWALK_WHO\n      while ! test -e MARK.go; do sleep 0.05; done\n      echo who=$ROPEWALK_WHO >> $ROPEWALK_OUTPUT\n",
    );
    let mark = site.path("mark");
    let pipeline = fs::read_to_string(site.root().join(".ropewalk/pipeline.yaml")).expect("a file");
    let pipeline = pipeline.replace("MARK", &mark.display().to_string()).replace("$ROPEWALK_WHO", "$WHO");
    fs::write(site.root().join(".ropewalk/pipeline.yaml"), pipeline).expect("a file");
    let _server = site.serve();
    let work = |name: &str| {
        let mut command = site.command(&["work", "--server", &site.url(), "--name", name]);
        command.env("WHO", name).arg("--token").arg(site.path("worker.token")).arg("--data").arg(site.path(name));
        let mut process = Process(command.stderr(Stdio::piped()).spawn().expect("ropewalk starts"));
        let mut said = Reader::new(process.0.stderr.take().expect("a pipe"));
        said.until("joined http://");
        (process, said)
    };
    let (mut first, _first_said) = work("first");
    let (mut watching, mut shown) = site.watch(&["--output", "json"]);
    appears(&mark.with_extension("first"));
    first.signal("STOP");
    let (_second, _second_said) = work("second");
    appears(&mark.with_extension("second"));
    fs::write(mark.with_extension("go"), "").expect("a file");
    let last = shown.until("\"outcome\":\"passed\"");
    assert!(last.contains("\"who\":\"second\""), "{last}");
    first.signal("CONT");
    assert_eq!(watching.ended(), Some(0));
    let text = site.submit(&[], 0);
    assert!(text.contains("passed"), "{text}");
    // It joins again or goes on with its session, whichever it notices first; it hears that the lease is not its own and forgets the
    // attempt: one that held it would not leave.
    let mut drain = site.command(&["workers", "drain", "first", "--reason", "enough", "--server", &site.url()]);
    assert!(drain.arg("--token").arg(site.path("admin.token")).status().expect("ropewalk starts").success());
    assert_eq!(first.ended(), Some(0));
}

#[test]
fn a_server_that_dies_while_a_job_prints_loses_no_line() {
    let site = Site::new(
        "jobs:\n  count:\n    run: |\n      i=0; while test $i -lt 3000; do echo line-$i; i=$((i+1)); test $((i % 10)) = 0 && sleep 0.01; done; true\n",
    );
    let mut server = site.serve();
    let _worker = site.work("w1", &[]);
    let (mut watching, mut shown) = site.watch(&[]);
    shown.until("count | line-400");
    server.kill();
    server = site.serve();
    shown.until("count | line-1500");
    server.kill();
    let _server = site.serve();
    assert_eq!(watching.ended(), Some(0));
    let lines = shown.rest();
    let counted: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("count | ")).collect();
    let expected: Vec<String> = (0..3000).map(|number| format!("line-{number}")).collect();
    assert_eq!(counted, expected);
}

#[test]
fn a_flood_is_kept_in_little_memory() {
    let site = Site::new("jobs:\n  flood:\n    run: head -c 75000000 /dev/urandom | base64 -w 99\n");
    // A flood on a busy machine is no reason to give the worker up.
    fs::write(site.path("data/settings.toml"), "worker.heartbeat = \"30s\"\n").expect("a file");
    let server = site.serve();
    let worker = site.work("w1", &[]);
    let (mut watching, shown) = site.watch(&["--output", "quiet"]);
    assert_eq!(watching.ended(), Some(0));
    let lines = shown.rest();
    assert!(lines.iter().any(|line| line.contains("passed")), "{lines:?}");
    let (of_worker, of_server) = (worker.process.peak_mib(), server.peak_mib());
    println!("100 MiB of output: the worker peaked at {of_worker} MiB, the server at {of_server} MiB");
    assert!(of_worker < 100 && of_server < 150, "worker {of_worker} MiB, server {of_server} MiB");
}

#[test]
fn submit_cancels_if_asked_twice() {
    let site = Site::new("jobs:\n  a:\n    run: echo begun; sleep 600\n");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let (mut watching, mut shown) = site.watch(&[]);
    shown.until("a | begun");
    watching.signal("INT");
    shown.until("Ctrl-C once more cancels it");
    watching.signal("INT");
    shown.until("canceled by");
    assert_eq!(watching.ended(), Some(130));
    let (mut watching, mut shown) = site.watch(&[]);
    shown.until("a | begun");
    watching.signal("INT");
    assert_eq!(watching.ended(), Some(130));
}

#[test]
fn a_worker_told_to_end_finishes_what_it_runs() {
    let site =
        Site::new("jobs:\n  a:\n    run: echo begun; while ! test -e MARK; do sleep 0.05; done; echo finished\n");
    let mark = site.path("mark");
    let pipeline = fs::read_to_string(site.root().join(".ropewalk/pipeline.yaml")).expect("a file");
    fs::write(site.root().join(".ropewalk/pipeline.yaml"), pipeline.replace("MARK", &mark.display().to_string()))
        .expect("a file");
    let _server = site.serve();
    let mut worker = site.work("w1", &[]);
    let (mut watching, mut shown) = site.watch(&[]);
    shown.until("a | begun");
    worker.process.signal("TERM");
    worker.said.until("finishing what runs");
    fs::write(&mark, "").expect("a file");
    shown.until("a | finished");
    assert_eq!(worker.process.ended(), Some(0));
    assert_eq!(watching.ended(), Some(0));
}

#[test]
fn a_worker_without_the_right_is_told_so() {
    let site = Site::new("jobs:\n  a:\n    run: echo\n");
    let _server = site.serve();
    let mut command = site.command(&["work", "--server", &site.url(), "--token"]);
    command.arg(site.path("client.token")).arg("--data").arg(site.path("w1"));
    let output = command.output().expect("ropewalk starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("the server refused"), "{text}");
}

#[test]
fn a_worker_finds_its_server_and_token_by_variables_too() {
    let site = Site::new("jobs:\n  a:\n    run: echo\n");
    let _server = site.serve();
    let mut work = site.command(&["work", "--data"]);
    work.arg(site.path("w1"));
    let (_, err) = Site::told(work, 2);
    assert!(err.contains("which server? Give it by --server URL, or in $ROPEWALK_SERVER"), "{err}");
    assert!(!site.path("w1").exists());
    let mut work = site.command(&["work", "--data"]);
    work.arg(site.path("w1")).env("ROPEWALK_SERVER", site.url());
    work.env("ROPEWALK_TOKEN_FILE", site.path("worker.token")).stderr(Stdio::piped());
    let mut process = Process(work.spawn().expect("ropewalk starts"));
    Reader::new(process.0.stderr.take().expect("a pipe")).until("joined http://");
}

#[test]
fn a_wrong_token_is_told_with_how_to_name_another() {
    let site = Site::new("jobs:\n  a:\n    run: echo\n");
    let _server = site.serve();
    let token = fs::read_to_string(site.path("client.token")).expect("a token");
    fs::write(site.path("wrong.token"), token.replace(|letter: char| letter.is_ascii_digit(), "0")).expect("a file");
    for (subcommand, more) in [("builds", &[][..]), ("work", &["--data", "w1"])] {
        let mut command = site.command(&[subcommand, "--server", &site.url(), "--token"]);
        command.arg(site.path("wrong.token")).args(more);
        let (_, err) = Site::told(command, 2);
        assert!(err.contains("; name another by --token FILE, or in $ROPEWALK_TOKEN_FILE; "), "{err}");
        assert!(!err.contains("Bearer"), "{err}");
    }
}

/// A job that begins, waits until it may go on, and says when it has.
fn waiting(site: &Path) -> String {
    let run = "touch SITE/begun; while ! test -e SITE/go; do sleep 0.05; done; mkdir out; echo made > out/file; touch SITE/done";
    let run = run.replace("SITE", &site.display().to_string());
    format!("jobs:\n  wait:\n    run: {run}\n    artifacts: {{ out: [out/**] }}\n")
}

#[test]
fn a_worker_starts_its_new_program_once_nothing_runs() {
    let marks = tempfile::tempdir().expect("a folder");
    let site = Site::new(&waiting(marks.path()));
    // One session, however busy the machine: another one begins with the same words as the new program.
    fs::write(site.path("data/settings.toml"), "worker.heartbeat = \"30s\"\n").expect("a file");
    let _server = site.serve();
    let program = site.path("program");
    fs::copy(env!("CARGO_BIN_EXE_ropewalk"), &program).expect("a copy");
    let mut worker = site.work_as(&program, "w1", &[]);
    let (mut watching, _said) = site.watch(&[]);
    appears(&marks.path().join("begun"));
    // The new program tells that it began, then is the old one.
    let fresh = site.path("fresh");
    let script = format!(
        "#!/bin/sh\necho new >> {}/new\nexec {} \"$@\"\n",
        marks.path().display(),
        env!("CARGO_BIN_EXE_ropewalk")
    );
    fs::write(&fresh, script).expect("a file");
    fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it may run");
    fs::rename(&fresh, &program).expect("it takes the old one's place");
    let mut update =
        site.command(&["workers", "update", "w1", "--reason", "a release", "--wait", "--server", &site.url()]);
    update.arg("--token").arg(site.path("admin.token")).stdout(Stdio::piped());
    let mut update = Process(update.spawn().expect("ropewalk starts"));
    worker.said.until("finishing what runs, then starting anew: a release");
    assert!(!marks.path().join("new").exists(), "what runs goes on first");
    fs::write(marks.path().join("go"), "").expect("a file");
    assert_eq!(watching.ended(), Some(0));
    worker.said.until("joined http://");
    Reader::new(update.0.stdout.take().expect("a pipe")).until("w1 works again, with version");
    assert_eq!(update.ended(), Some(0));
    assert_eq!(fs::read_to_string(marks.path().join("new")).expect("it began"), "new\n");
    site.submit(&[], 0);
    // The same process, with the same name and key.
    worker.process.signal("TERM");
    assert_eq!(worker.process.ended(), Some(0));
    let mut list = site.command(&["workers", "list", "--output", "json", "--server", &site.url(), "--token"]);
    let listed = list.arg(site.path("admin.token")).output().expect("ropewalk starts");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(listed.matches("\"name\": \"w1\"").count(), 1, "{listed}");
}

#[test]
fn a_servers_own_log_is_for_programs_if_it_is_to_be() {
    let site = Site::new("jobs:\n  a:\n    run: echo\n");
    let mut command = site.command(&["serve", "--local-worker", "off", "--listen", &site.address, "--data"]);
    command.arg(site.path("data")).env("ROPEWALK_SERVER_LOG", "json").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = Process(command.spawn().expect("ropewalk starts"));
    Reader::new(server.0.stdout.take().expect("a pipe")).until("serving http://");
    let mut said = Reader::new(server.0.stderr.take().expect("a pipe"));
    server.signal("HUP");
    let line: Value = serde_json::from_str(&said.until("the settings were read again")).expect("JSON");
    assert_eq!((&line["level"], &line["message"]), (&"info".into(), &"the settings were read again".into()));
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
    // All of it is.
    let rest = said.rest();
    assert!(rest.iter().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{rest:?}");
}

#[test]
fn a_database_that_cannot_be_opened_is_told_with_what_to_do() {
    let site = Site::new("jobs:\n  a:\n    run: echo\n");
    let mut command = site.command(&["serve", "--listen", "127.0.0.1:0", "--data"]);
    command.arg(site.path("other")).env("ROPEWALK_STORE_URL", "postgres://ann:hush@127.0.0.1:1/ropewalk");
    let output = command.output().expect("ropewalk starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("see that the database runs and that `store.url` names its address"), "{said}");
    assert!(!said.contains("hush"), "{said}");
}

#[test]
fn a_worker_that_is_drained_leaves_once_and_stays_away() {
    let site = Site::new("jobs:\n  a:\n    run: echo\n");
    let _server = site.serve();
    for _ in 0..3 {
        let mut worker = site.work("w1", &[]);
        let mut drain =
            site.command(&["workers", "drain", "w1", "--reason", "a new kernel", "--wait", "--server", &site.url()]);
        assert!(drain.arg("--token").arg(site.path("admin.token")).status().expect("ropewalk starts").success());
        // What it held is free by then.
        let lock = fs::File::open(site.path("w1/lock")).expect("a worker's folder");
        assert!(lock.try_lock().is_ok(), "the folder is held by a worker that has left");
        drop(lock);
        assert_eq!(worker.process.ended(), Some(0));
        let said = worker.said.rest().join("\n");
        assert!(said.contains("finishing what runs, then leaving: a new kernel"), "{said}");
        assert_eq!(said.matches("joined").count(), 1, "{said}");
        let mut list = site.command(&["workers", "list", "--output", "json", "--server", &site.url(), "--token"]);
        let listed = list.arg(site.path("admin.token")).output().expect("ropewalk starts");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.contains("\"reason\": \"a new kernel\""), "{listed}");
    }
}

#[test]
fn a_worker_that_is_refused_for_good_ends_without_a_panic() {
    let marks = tempfile::tempdir().expect("a folder");
    let site = Site::new(&waiting(marks.path()));
    let mut server = site.serve();
    let mut worker = site.work("w1", &[]);
    let _watching = site.watch(&[]);
    appears(&marks.path().join("begun"));
    server.kill();
    worker.said.until("the session with");
    // What the job made waits for a server, on a thread of its own.
    fs::write(marks.path().join("go"), "").expect("a file");
    appears(&marks.path().join("done"));
    fs::remove_file(site.path("worker.token")).expect("a token");
    assert_eq!(worker.process.ended(), Some(2));
    let said = worker.said.rest().join("\n");
    assert!(said.contains("cannot read the token"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

const GROWS: &str = r#"
use ropewalk::hook::{on, push};
use ropewalk::{Ci, Environment};

fn main() {
    Ci::main([on(push()).run(ci)])
}

fn ci(ci: &Ci) {
    let first = ci.job("first").run("true");
    ci.after(&first, |ci, _| {
        let wait = "touch MARKS/begun-go; while ! [ -e MARKS/go ]; do sleep 0.05; done";
        let second = ci.job("second").environment(Environment::host()).run(wait);
        ci.after(&second, |ci, _| {
            ci.job("third").environment(Environment::host()).run(wait.replace("go", "end"));
        });
    });
}
"#;

/// The processes of a worker that ask programs.
fn evaluations(worker: &Worker) -> Vec<u32> {
    let id = worker.process.0.id();
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{id}/task")).expect("it lives").flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            let command = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            if command.split(|byte| *byte == 0).nth(1) == Some(b"evaluate") {
                found.push(child.parse().expect("an id"));
            }
        }
    }
    found
}

#[test]
fn a_program_that_grows_is_asked_by_one_process() {
    let site = Site::new("jobs: {}\n");
    let marks = tempfile::tempdir().expect("a folder");
    fs::remove_file(site.root().join(".ropewalk/pipeline.yaml")).expect("a file");
    let program = GROWS.replace("MARKS", &marks.path().to_string_lossy());
    fs::write(site.root().join(".ropewalk/pipeline.rs"), program).expect("a file");
    let _server = site.serve();
    let worker = site.work("w1", &[]);
    let (mut watching, _shown) = site.watch(&[]);
    appears(&marks.path().join("begun-go"));
    let asking = evaluations(&worker);
    assert_eq!(asking.len(), 1, "the program has a question, and is kept for the answer");
    fs::write(marks.path().join("go"), "").expect("a file");
    appears(&marks.path().join("begun-end"));
    let left = evaluations(&worker);
    assert!(left.is_empty(), "{left:?} of {asking:?} are kept though nothing is asked any more");
    fs::write(marks.path().join("end"), "").expect("a file");
    assert_eq!(watching.ended(), Some(0));
}

/// A program with a test.
const TESTED: &str = "use ropewalk::Ci;

fn main() {
    Ci::main(ci)
}

fn ci(ci: &Ci) {
    ci.job(\"one\").run(\"echo it ran\");
}

#[test]
fn arithmetic() {
    assert_eq!(1 + 1, 3, \"the sum\");
}
";

#[test]
fn a_program_that_does_not_compile_or_pass_its_tests_runs_nothing() {
    let site = Site::new("jobs: {}\n");
    fs::remove_file(site.root().join(".ropewalk/pipeline.yaml")).expect("a file");
    let write = |text: &str| fs::write(site.root().join(".ropewalk/pipeline.rs"), text).expect("a file");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let refused = |parts: &[&str]| {
        let text = site.submit(&[], 2);
        for part in parts {
            assert!(text.contains(part), "no `{part}` in:\n{text}");
        }
        assert!(!text.contains("| it ran") && !text.contains('\u{240a}'), "{text}");
    };
    write(TESTED);
    refused(&["the tests of .ropewalk/pipeline.rs do not pass; nothing was run\n", "arithmetic", "the sum\n"]);
    let (shown, _) = Site::told(site.there(&["show", "1"]), 0);
    assert!(shown.contains("nothing was run\n") && shown.contains("the sum\n"), "{shown}");
    // What the compiler says stands as it said it.
    write(&TESTED.replace("ci.job(", "ci.jobb("));
    refused(&[
        "does not compile\nerror[E0599]: no method named `jobb`",
        "--> .ropewalk/pipeline.rs:8:8\n",
        "ci.jobb(\"one\")",
    ]);
    let right = TESTED.replace("3, ", "2, ");
    // Every place that a fault names is shown with its line, while it is watched and afterwards.
    let added = "    ci.job(\"one\").run(\"echo it ran\");\n";
    write(&right.replace(added, &added.repeat(2)));
    let lines = ["8 |     ci.job(\"one\")", "the first time", "9 |     ci.job(\"one\")", "the second time"];
    refused(&[&["error[job-twice]: the job `one` is added twice"][..], &lines].concat());
    let (shown, _) = Site::told(site.there(&["show", "last"]), 0);
    assert!(lines.iter().all(|line| shown.contains(line)), "{shown}");
    write(&right);
    let text = site.submit(&[], 0);
    assert!(text.contains("one | it ran"), "{text}");
}

impl Site {
    /// A command about the server's builds; with the administrator's token.
    fn there(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.args(["--server", &self.url(), "--token"]).arg(self.path("admin.token"));
        command
    }

    /// Runs a command; asserts the exit code. Standard output, and standard error.
    #[track_caller]
    fn told(mut command: Command, code: i32) -> (String, String) {
        let Output { status, stdout, stderr } = command.output().expect("ropewalk starts");
        let (out, err) = (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned());
        assert_eq!(status.code(), Some(code), "{command:?} printed:\n{out}{err}");
        (out, err)
    }

    /// Sets a secret of the project `repository`. Gives what was said beside the answer.
    fn put_secret(&self, name: &str, value: &[u8]) -> String {
        let mut put = self.there(&["secrets", "put", "--new", "repository", name]);
        let mut put = put.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ropewalk starts");
        put.stdin.take().expect("a pipe").write_all(value).expect("it reads");
        let output = put.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    }

    /// Evicts the results of a job.
    fn evict(&self, job: &str) {
        let token = fs::read_to_string(self.path("admin.token")).expect("a token");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let client = api::client::Client::new(api::client::Server::parse(&self.url()), &token).expect("a client");
            let evict = api::cache::Evict::Job { job: job.to_owned(), reason: "stale".to_owned() };
            client.cache_evict(&evict).await.expect("it is evicted");
        });
    }

    /// Asks for a build of the files of build 1, as for a pull request of somebody who is not trusted.
    fn submit_untrusted(&self, branch: &str) {
        let token = fs::read_to_string(self.path("client.token")).expect("a token");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let client = api::client::Client::new(api::client::Server::parse(&self.url()), &token).expect("a client");
            let source = client.build_get(graph::BuildId(1)).await.expect("a build").source;
            let event = json!({ "kind": "pull_request", "pull_request": 7, "branch": branch, "trust": "untrusted" });
            let wanted =
                json!({ "project": "repository", "source": source, "event": event, "options": { "join": false } });
            let wanted = serde_json::from_value(wanted).expect("a request");
            client.build_submit(&wanted).await.expect("it is taken");
        });
    }

    /// Asks for a build and does not wait for it; its number as it was printed.
    fn submit_only(&self, flags: &[&str]) -> String {
        let flags = [&["--no-wait", "--separate"], flags].concat();
        let (out, _) = Self::told(self.submit_command(&flags), 0);
        out.trim().to_owned()
    }

    /// Waits until a page about a build says something.
    #[track_caller]
    fn shows(&self, build: &str, wanted: &str) {
        let began = std::time::Instant::now();
        loop {
            let (page, _) = Self::told(self.there(&["show", build]), 0);
            if page.contains(wanted) {
                return;
            }
            assert!(began.elapsed() < process::PATIENCE, "no `{wanted}` in:\n{page}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

/// The names of all keys of a value, with those above them; of lists those of all items.
fn keys(value: &serde_json::Value, above: &str, into: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                into.insert(format!("{above}.{name}"));
                keys(value, &format!("{above}.{name}"), into);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| keys(item, above, into)),
        _ => {}
    }
}

const TWO_STEPS: &str = r#"jobs:
  good:
    outputs: [version]
    run:
      - printf 'one\ntwo\n'; echo three >&2; echo version=7 >> $ROPEWALK_OUTPUT
      - printf 'four\nfive \377\n\033[31mred\033[0m\n'
  bad:
    run: "echo before; echo 'error: broken' >&2; exit 3"
"#;

#[test]
fn builds_of_a_server_are_told_as_those_here() {
    let site = Site::new(TWO_STEPS);
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    site.submit(&[], 1);
    Site::told(site.command(&["run", "--output", "quiet"]), 1);
    // What jobs printed is the same to the byte.
    for arguments in [
        &["logs", "1", "good"][..],
        &["logs", "1", "bad"],
        &["logs", "1", "good", "--raw"],
        &["logs", "last", "good", "--lines", "2-4"],
        &["logs", "last", "good", "--tail", "2"],
        &["logs", "last-failed", "good", "--grep", "^f|three"],
        &["logs", "last-failed", "good", "--grep", "^red$"],
        &["logs", "1", "good", "--grep", "one|five", "--context", "1"],
        &["logs", "1", "--grep", "broken"],
    ] {
        let here = site.command(arguments).output().expect("ropewalk starts");
        let there = site.there(arguments).output().expect("ropewalk starts");
        let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(text(&there), text(&here), "{arguments:?}\n{}", String::from_utf8_lossy(&there.stderr));
        assert_eq!((there.stdout, there.status.code()), (here.stdout, here.status.code()), "{arguments:?}");
    }
    let (_, err) = Site::told(site.there(&["logs", "1", "--grep", "nowhere"]), 1);
    assert!(err.contains("no line matches `nowhere`"), "{err}");
    // Pages have the same words, and name commands that reach the same build.
    let (page, _) = Site::told(site.there(&["show", "1"]), 0);
    let lines = [
        "build 1 failed because of `bad`",
        "good  passed",
        "bad   failed",
        "ended with code 3",
        "first error of bad",
        "error: broken",
        &format!("ropewalk retry 1 --failed --server {} --token ", site.url()),
    ];
    for line in lines {
        assert!(page.contains(line), "no `{line}` in:\n{page}");
    }
    assert!(page.contains("ropewalk shell 1 bad@failed --server"), "{page}");
    let (page, _) = Site::told(site.there(&["show", "#1", "good"]), 0);
    for line in ["build 1, good", "version = \"7\"", "lines 1-3", "lines 4-6", "worker "] {
        assert!(page.contains(line), "no `{line}` in:\n{page}");
    }
    for arguments in [
        &["builds", "--output", "json"][..],
        &["show", "1", "--output", "json"],
        &["show", "1", "bad", "--output", "json"],
    ] {
        let [here, there] = [site.command(arguments), site.there(arguments)].map(|command| {
            let value = serde_json::from_str(&Site::told(command, 0).0).expect("JSON");
            let mut names = std::collections::BTreeSet::new();
            keys(&value, "", &mut names);
            names
        });
        // What takes no time is no phase.
        let missing: Vec<_> = here.difference(&there).filter(|name| !name.contains(".report.phases")).collect();
        assert!(missing.is_empty(), "{arguments:?} of a server has no {missing:?}");
    }
}

#[test]
fn builds_of_a_server_are_listed_page_by_page() {
    let site = Site::new("jobs:\n  a:\n    run: echo a\n");
    let _server = site.serve();
    let (out, _) = Site::told(site.there(&["builds"]), 0);
    assert!(out.contains("no builds of repository on http://"), "{out}");
    let _worker = site.work("w1", &[]);
    for _ in 0..3 {
        site.submit(&["--separate"], 0);
    }
    site.submit(&["--separate", "--branch", "other"], 0);
    let listed = |arguments: &[&str]| {
        let arguments = [&["builds", "--output", "json"], arguments].concat();
        let (out, _) = Site::told(site.there(&arguments), 0);
        let value: Vec<serde_json::Value> = serde_json::from_str(&out).expect("JSON");
        value.iter().map(|build| build["build"].as_u64().expect("a number")).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]), [4, 3, 2, 1]);
    assert_eq!(listed(&["-n", "2"]), [4, 3]);
    assert_eq!(listed(&["--before", "3"]), [2, 1]);
    assert_eq!(listed(&["--branch", "other"]), [4]);
    assert_eq!(listed(&["--verdict", "failed"]), Vec::<u64>::new());
    assert_eq!(listed(&["--project", "another"]), Vec::<u64>::new());
    // A variable means the server as well as a flag does, and `--local` this machine.
    let by_variables = |arguments: &[&str], code| {
        let mut command = site.command(arguments);
        command.env("ROPEWALK_SERVER", site.url()).env("ROPEWALK_TOKEN_FILE", site.path("admin.token"));
        Site::told(command, code)
    };
    assert!(by_variables(&["show", "4"], 0).0.contains("build 4 passed"));
    assert!(by_variables(&["builds", "--local"], 0).0.contains("no builds yet"));
    let (_, err) = by_variables(&["explain", "a"], 2);
    assert!(err.contains("not on those of a server") && err.contains("ropewalk show"), "{err}");
    let (_, err) = Site::told(site.there(&["show", "9"]), 2);
    assert!(err.contains("there is no build 9") && err.contains("the newest of repository is 4"), "{err}");
    let (_, err) = Site::told(site.there(&["logs", "4", "b"]), 2);
    assert!(err.contains("build 4 has no job `b`"), "{err}");
}

/// Two steps that change one file, the second of which fails.
const STEPS: &str = "jobs:\n  a:\n    secrets: [TOKEN]\n    run:\n      - { name: make, run: 'echo one > f; echo HERE=yes >> $ROPEWALK_ENV' }\n      - { name: break, run: 'echo two > f; exit 3' }\n";

impl Site {
    /// `ropewalk shell 1 …` with a token that may, or another.
    fn shell(&self, token: &str, words: &[&str], script: &str) -> Command {
        let mut command = self.command(&["shell", "1", "--server", &self.url(), "--token"]);
        command.arg(self.path(token)).args(words).args(["--", "sh", "-c", script]);
        command
    }

    /// A token for this verb alone, besides looking.
    fn token(&self, name: &str, verb: &str) {
        let mut command =
            self.command(&["token", "create", "--verb", "read", "--verb", verb, "--name", "ann", "--data"]);
        let output = command.arg(self.path("data")).output().expect("ropewalk starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::write(self.path(name), output.stdout).expect("a file");
    }

    /// Builds the steps, which fail.
    fn fail_in_steps(&self) {
        self.put_secret("TOKEN", b"a-secret-value");
        self.submit(&[], 1);
    }
}

#[test]
fn a_step_is_entered_through_the_server_also_after_a_restart() {
    let site = Site::new(STEPS);
    site.token("shell.token", "shell");
    {
        let _server = site.serve();
        let _worker = site.work("w1", &[]);
        site.fail_in_steps();
    }
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let look = "cat f; echo \"<$HERE> <$TOKEN>\"; echo error >&2; rm -f f; exit 4";
    let withheld = "not given: the job's secrets TOKEN; --secret TOKEN gives them anew\nerror\n";
    for (place, seen) in [("a@1", "one\n<> <>\n"), ("a@failed", "two\n<yes> <>\n"), ("a@make", "one\n<> <>\n")] {
        let told = Site::told(site.shell("shell.token", &[place], look), 4);
        assert_eq!(told, (seen.to_owned(), withheld.to_owned()), "{place}");
    }
    let mut with_secret = site.shell("shell.token", &["@1", "--secret", "TOKEN"], "echo $TOKEN; cat");
    with_secret
        .env("TOKEN", "given-anew")
        .stdin(fs::File::open(site.root().join(".ropewalk/pipeline.yaml")).expect("it"));
    let (out, err) = Site::told(with_secret, 0);
    assert_eq!((out, err), (format!("given-anew\n{STEPS}"), String::new()), "what is typed comes to its end");
    let (_, err) = Site::told(site.shell("shell.token", &["a@7"], "true"), 2);
    assert!(err.contains("no step `7` ran: it has 1 (make), 2 (break)"), "{err}");
    let (_, err) = Site::told(site.shell("client.token", &["a@1"], "true"), 2);
    assert!(err.contains("does not grant `shell`"), "{err}");
    let mut curl = Command::new("curl");
    let token = fs::read_to_string(site.path("admin.token")).expect("a token");
    curl.args([
        "-sS",
        "-H",
        &format!("authorization: Bearer {}", token.trim()),
        &format!("{}/api/v1/audit", site.url()),
    ]);
    let audit: serde_json::Value = serde_json::from_str(&Site::told(curl, 0).0).expect("JSON");
    let entries = audit["items"].as_array().expect("entries");
    let entry =
        entries.iter().find(|entry| entry["detail"].as_str().is_some_and(|text| text.contains("secrets TOKEN")));
    let entry = entry.unwrap_or_else(|| panic!("no entry of the secret in {audit}"));
    assert_eq!(
        [&entry["who"], &entry["verb"], &entry["from"], &entry["project"]],
        ["ann", "shell_open", "127.0.0.1", "repository"]
    );
    assert_eq!(entry["target"], "build 1, job a, attempt 1 of build 1, @1");
    assert!(!audit.to_string().contains("given-anew"), "{audit}");
    assert_eq!(entries.iter().filter(|entry| entry["verb"] == "shell_open").count(), 5);
}

#[test]
fn what_holds_a_secret_is_not_shown_through_the_server_without_it() {
    let site =
        Site::new("jobs: { a: { secrets: [TOKEN], run: ['echo $TOKEN > held', 'echo plain > plain; exit 3'] } }\n");
    site.token("shell.token", "shell");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    site.fail_in_steps();
    let hidden = "without files that hold a secret: `held`";
    let look = "cat plain; cat held 2>/dev/null; rm -f held plain; exit 4";
    for (place, plain) in [("a@1", ""), ("a@failed", "plain\n"), ("a", "plain\n")] {
        let look = format!("touch plain; {look}");
        let told = Site::told(site.shell("shell.token", &[place], &look), 4);
        let notes = format!("not given: the job's secrets TOKEN; --secret TOKEN gives them anew\n{hidden}\n");
        assert_eq!(told, (plain.to_owned(), notes), "{place}");
        let mut guessed = site.shell("shell.token", &[place, "--secret", "TOKEN"], &look);
        guessed.env("TOKEN", "a-guess");
        let notes = format!("{hidden} (the job had another value of TOKEN than the one that was given)\n");
        assert_eq!(Site::told(guessed, 4), (plain.to_owned(), notes), "{place}");
        let mut given = site.shell("shell.token", &[place, "--secret", "TOKEN"], &look);
        given.env("TOKEN", "a-secret-value");
        assert_eq!(Site::told(given, 4), (format!("{plain}a-secret-value\n"), String::new()), "{place}");
    }
}

#[test]
fn who_read_and_missed_a_cache_of_a_server_is_told() {
    let pipeline = "jobs:\n  a:\n    cache: [{ key: \"k-${{ event.branch }}\", restore: [k-], paths: [made] }]\n    run: 'mkdir -p made; date +%N > made/f'\n";
    let site = Site::new(pipeline);
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    for branch in ["main", "main", "other"] {
        site.submit(&["--separate", "--branch", branch], 0);
    }
    let explained = |key: &str, code| Site::told(site.there(&["cache", "explain", key]), code);
    let words = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with("  "));
        lines.map(|line| format!("{} {}", line[2..9].trim(), &line[line.find('`').unwrap_or(0)..])).collect()
    };
    let (main, _) = explained("k-main", 0);
    assert_eq!(words(&main)[..1], ["read `a` of build 2"], "{main}");
    assert_eq!(words(&main).last().map(String::as_str), Some("missed `a` of build 1"), "{main}");
    assert!(words(&main)[1].starts_with("written `a` of build 1, "), "{main}");
    assert!(main.contains("repository has 2 caches, "), "{main}");
    let (other, _) = explained("k-other", 0);
    assert_eq!(words(&other)[1], "read `a` of build 3, which was given `k-main`", "{other}");
    let (_, err) = explained("k-never", 2);
    assert!(err.contains("no cache was ever kept under the key `k-never`"), "{err}");
    let json: serde_json::Value =
        serde_json::from_str(&Site::told(site.there(&["cache", "explain", "k-other", "--output", "json"]), 0).0)
            .expect("JSON");
    let acts: Vec<&str> =
        json["uses"].as_array().expect("uses").iter().filter_map(|used| used["act"].as_str()).collect();
    assert_eq!(acts, ["written", "read"]);
}

#[test]
fn what_an_untrusted_build_wrote_into_a_cache_a_trusted_one_never_reads() {
    let pipeline = "jobs:\n  a:\n    cache: [{ key: \"k-${{ event.branch }}\", restore: [k-], paths: [made] }]\n    \
        run: 'cat made/by 2> /dev/null || echo nothing; mkdir -p made; echo \"written by build $ROPEWALK_BUILD\" > made/by'\n";
    let site = Site::new(pipeline);
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let read = |build: u64| Site::told(site.there(&["logs", &build.to_string(), "a"]), 0).0;
    let trusted = |build, branch| {
        site.submit(&["--separate", "--branch", branch], 0);
        read(build)
    };
    let untrusted = |build: u64, branch| {
        site.submit_untrusted(branch);
        site.shows(&build.to_string(), "passed");
        read(build)
    };
    assert_eq!(trusted(1, "one"), "nothing\n");
    assert_eq!(untrusted(2, "two"), "written by build 1\n", "down may be read");
    // The key is that of an untrusted entry, and so is the newest entry that the prefix fits.
    assert_eq!(trusted(3, "two"), "written by build 1\n");
    assert_eq!(untrusted(4, "two"), "written by build 2\n", "its own comes first, and was not replaced");
    assert_eq!(untrusted(5, "one"), "written by build 2\n");
    assert_eq!(trusted(6, "one"), "written by build 1\n");
    assert_eq!(trusted(7, "three"), "written by build 3\n");
    let told = Site::told(site.there(&["cache", "explain", "k-two"]), 0).0;
    assert!(told.contains("which is not trusted"), "{told}");
}

/// What a step may do to a tree: it changes, removes and replaces files and folders of it, in a sandbox with a `/tmp` of its own; one of its files
/// holds a secret.
const CHANGES: &str = r#"jobs:
  a:
    environment: sandbox
    secrets: [TOKEN]
    run:
      - name: change
        run: |
          rm gone; rm -r folder; mkdir folder; echo new > folder/new; echo 1 > number
          ln number twin; ln -s number link; mkdir shut; echo x > shut/x; chmod 500 shut; printf '#!/bin/sh\necho runs' > run; chmod 755 run
          echo temporary > /tmp/file; echo "the $TOKEN" > leak
          echo "TREE=$PWD/number" >> $ROPEWALK_ENV
      - name: break
        run: echo 2 > number; exit 3
"#;

#[test]
fn a_step_is_entered_on_another_worker_when_its_own_is_gone() {
    let site = Site::new(CHANGES);
    fs::create_dir(site.root().join("folder")).expect("a folder");
    for name in ["gone", "folder/old", "stays"] {
        fs::write(site.root().join(name), format!("{name}\n")).expect("a file");
    }
    site.token("shell.token", "shell");
    let mut server = site.serve();
    let mut first = site.work("w1", &[]);
    site.fail_in_steps();
    site.eventually("it is sent", || site.path("w1/workspaces/1/1/sent").exists());
    first.process.kill();
    drop(first);
    fs::remove_dir_all(site.path("w1")).expect("its disk is wiped");
    site.eventually("the server has noticed, and says so", || {
        let output = site.shell("shell.token", &["a@1"], "true").output().expect("ropewalk starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.contains("no worker of the pool `default` is joined that could open it")
    });
    let look = "cat number twin link stays folder/new /tmp/file; ls; ls folder; stat -c %a shut run; ./run; cat $TREE; rm -f number";
    let seen = |number: &str, tree: &str| {
        format!(
            "{number}\n{number}\n{number}\nstays\nnew\ntemporary\nfolder\nlink\nnumber\nrun\nshut\nstays\ntwin\nnew\n500\n755\nruns\n{tree}"
        )
    };
    let second = site.work("w2", &[]);
    // A worker on a slow machine may lose its session for a moment.
    let entered = |place: &str, look: &str| {
        let began = std::time::Instant::now();
        loop {
            let output = site.shell("shell.token", &[place], look).output().expect("ropewalk starts");
            let err = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() {
                return String::from_utf8_lossy(&output.stdout).into_owned();
            }
            let is_away = ["is joined that could open it", "has gone before", "has just left"];
            assert!(is_away.iter().any(|word| err.contains(word)), "{place}: {err}");
            assert!(began.elapsed() < process::PATIENCE, "{place}: {err}");
        }
    };
    for round in ["first", "again", "after a restart of the server"] {
        if round == "after a restart of the server" {
            server.kill();
            server = site.serve();
        }
        for (place, number) in [("a@1", "1"), ("a@failed", "2"), ("a", "2")] {
            let tree = if place == "a@1" { "" } else { "2\n" };
            let look = if place == "a@1" { look.replace("cat $TREE; ", "") } else { look.to_owned() };
            assert_eq!(entered(place, &look), seen(number, tree), "{place}, {round}");
        }
        assert_eq!(entered("a@start", "cat gone folder/old; ls /tmp"), "gone\nfolder/old\n", "{round}");
    }
    // A file with a secret in it has not left the first worker, in no form.
    let held =
        Command::new("grep").args(["-rlF", "a-secret-value"]).args([site.path("data"), site.path("w2")]).output();
    let held = String::from_utf8(held.expect("grep").stdout).expect("text");
    assert!(!held.contains("/blobs") && !held.contains("/w2/"), "{held}");
    drop(second);
    drop(server);
}

#[test]
fn what_several_jobs_left_is_entered_on_another_worker() {
    // One changes nothing, one has a long environment, one writes a large file.
    let long = "x".repeat(20_000);
    let site = Site::new(&format!(
        "jobs:\n  a: {{ run: 'true' }}\n  b: {{ run: 'echo b > f', env: {{ LONG: {long} }} }}\n  c: {{ run: 'head -c 20000000 /dev/zero > f' }}\n"
    ));
    site.token("shell.token", "shell");
    let _server = site.serve();
    let mut first = site.work("w1", &[]);
    site.submit(&[], 0);
    site.eventually("all is sent", || {
        (1..=3).all(|attempt| site.path(&format!("w1/workspaces/1/{attempt}/sent")).exists())
    });
    first.process.kill();
    drop(first);
    fs::remove_dir_all(site.path("w1")).expect("its disk is wiped");
    let _second = site.work("w2", &[]);
    for (job, look, seen) in
        [("a", "ls", ""), ("b", "cat f; echo ${#LONG}", "b\n20000\n"), ("c", "wc -c < f", "20000000\n")]
    {
        // A worker on a slow machine may lose its session for a moment, and the first is missed only then.
        site.eventually(job, || {
            let output = site.shell("shell.token", &[job], look).output().expect("ropewalk starts");
            output.status.success() && String::from_utf8_lossy(&output.stdout) == seen
        });
    }
}

#[test]
fn a_shell_ends_with_whoever_sits_before_it() {
    let site = Site::new(STEPS);
    site.token("shell.token", "shell");
    let _server = site.serve();
    let worker = site.work("w1", &[]);
    site.fail_in_steps();
    let begin = |name: &str| {
        let pids = site.path(name);
        // One process in the shell's session, and one that left it.
        let script =
            format!("(setsid sleep 100000 & echo $! > {0}.2); echo $$ > {0}.1; echo up; read line", pids.display());
        let mut command = site.shell("shell.token", &["a@1"], &script);
        let mut process =
            Process(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ropewalk starts"));
        Reader::new(process.0.stdout.take().expect("a pipe")).until("up");
        let pid = |number: u8| fs::read_to_string(site.path(&format!("{name}.{number}"))).expect("a number");
        (process, [pid(1), pid(2)].map(|pid| PathBuf::from(format!("/proc/{}/cwd", pid.trim()))))
    };
    let is_over = |places: &[PathBuf]| {
        let began = std::time::Instant::now();
        while places.iter().any(|place| place.exists()) {
            assert!(began.elapsed() < process::PATIENCE, "it goes on: {places:?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    let (mut client, places) = begin("killed");
    client.kill();
    is_over(&places);
    let (mut client, places) = begin("left");
    worker.process.signal("TERM");
    assert_ne!(client.ended(), Some(0));
    is_over(&places);
}

#[test]
fn a_gate_of_a_server_is_answered_as_its_hint_says() {
    let site = Site::new(
        "jobs:\n  build: { run: echo built }\n  ship:\n    needs: [build]\n    name: Ship it?\n    gate:\n      fields:\n        region: { type: choice, options: [eu, us] }\n    run: echo \"to ${{ gate.region }}\"\n",
    );
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let (mut watching, mut shown) = site.watch(&[]);
    // A gate without a question asks what its title says, as gates of Rust programs do.
    shown.until("ship: waits for approval: Ship it?");
    let hint = shown.until("to go on: ");
    let words = hint.split("to go on: ropewalk ").nth(1).expect("a command").to_owned();
    assert!(words.starts_with("approve 1 ship --field region=VALUE --server "), "{words}");
    let words = words.replace(" --field region=VALUE", "");
    let (described, _) = Site::told(site.there(&["show", "1"]), 0);
    assert!(described.contains("approve 1 ship --field region=VALUE --server "), "{described}");
    let (listed, _) = Site::told(site.there(&["builds"]), 0);
    assert!(listed.contains("approve 1 ship --field region=VALUE --server "), "{listed}");
    let mut command = site.there(&["logs", "1", "ship", "--follow"]);
    let mut following = Process(command.stderr(Stdio::piped()).spawn().expect("ropewalk starts"));
    let mut noted = Reader::new(following.0.stderr.take().expect("a pipe"));
    noted.until("note: build 1 waits at a gate: ropewalk approve 1 ship --field region=VALUE --server ");
    following.kill();
    let words: Vec<&str> = words.split(' ').collect();
    let (_, err) = Site::told(site.command(&words), 2);
    assert!(err.contains("field `region` is missing: give --field region=VALUE"), "{err}");
    let (_, err) = Site::told(site.command(&[&words[..], &["--field", "region=mars"]].concat()), 2);
    assert!(err.contains("region"), "{err}");
    let (out, _) = Site::told(site.command(&[&words[..], &["--field", "region=eu"]].concat()), 0);
    assert_eq!(out, "ship: approved\n");
    let answered = shown.until("ship: approved by ");
    assert!(answered.ends_with(": region = eu"), "{answered}");
    shown.until("ship | to eu");
    assert_eq!(watching.ended(), Some(0));
    let (_, err) = Site::told(site.there(&["approve", "1", "ship", "--field", "region=eu"]), 2);
    assert!(err.contains("no gate of it waits"), "{err}");
    let build = site.submit_only(&[]);
    site.shows(&build, "gate");
    let (out, _) = Site::told(site.there(&["approve", &build, "ship", "--reject", "--reason", "not today"]), 0);
    assert_eq!(out, "ship: rejected\n");
    site.shows(&build, "rejected by");
}

#[test]
fn a_log_is_followed_over_a_server_that_dies() {
    let site = Site::new(
        "jobs:\n  other:\n    run: echo from another job\n  count:\n    run: |\n      i=0; while test $i -lt 2000; do echo line-$i; i=$((i+1)); test $((i % 10)) = 0 && sleep 0.01; done; true\n  last:\n    needs: [count]\n    gate: { prompt: The build goes on? }\n    run: 'true'\n",
    );
    let mut server = site.serve();
    let _worker = site.work("w1", &[]);
    let build = site.submit_only(&[]);
    site.shows(&build, "●");
    let follow = |arguments: &[&str]| {
        let mut command = site.there(&[&["logs", &build, "--follow"], arguments].concat());
        let mut process = Process(command.stdout(Stdio::piped()).spawn().expect("ropewalk starts"));
        let reader = Reader::new(process.0.stdout.take().expect("a pipe"));
        (process, reader)
    };
    let (mut following, mut shown) = follow(&["count"]);
    shown.until("line-300");
    server.kill();
    let _server = site.serve();
    let (mut last, last_shown) = follow(&["count", "--tail", "1"]);
    assert_eq!(following.ended(), Some(0));
    let expected: Vec<String> = (0..2000).map(|number| format!("line-{number}")).collect();
    assert_eq!(shown.rest(), expected);
    assert_eq!(last.ended(), Some(0));
    // From wherever it began, without a line lost or told twice.
    let rest = last_shown.rest();
    assert_eq!(rest, expected[expected.len() - rest.len()..]);
    let (out, _) = Site::told(site.there(&["logs", &build, "count", "--follow"]), 0);
    assert_eq!(out.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn tests_of_a_job_are_tried_again_on_a_server() {
    let site = Site::new(
        r#"jobs:
  t:
    reports: { junit: r.xml }
    run: |
      names=$(if [ -n "${ROPEWALK_TESTS+x}" ]; then printf '%s\n' "$ROPEWALK_TESTS" | cut -f2; else echo a b c; fi)
      { echo '<testsuite name="s">'
      for name in $names; do
        if [ $name = c ] || [ -e MARK ]; then echo "<testcase name='$name'/>"
        else echo "<testcase name='$name'><failure/></testcase>"; bad=1; fi
      done
      echo '</testsuite>'; } > r.xml
      echo ran $names; [ -z "$bad" ]
"#,
    );
    let mark = site.path("mark");
    let pipeline = site.root().join(".ropewalk/pipeline.yaml");
    let text = fs::read_to_string(&pipeline).expect("a file").replace("MARK", &mark.display().to_string());
    fs::write(&pipeline, text).expect("a file");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    site.submit(&[], 1);
    let (_, err) = Site::told(site.there(&["retry", "1", "t", "--tests", "x"]), 2);
    assert!(err.contains("the job reported no test `x`") && err.contains("retry the job whole"), "{err}");
    fs::write(&mark, "").expect("a file");
    let (out, _) = Site::told(site.there(&["retry", "1", "t", "--tests", "s a"]), 1);
    assert!(out.contains("t: is asked for 1 of 3 tests") && out.contains("t | ran a\n"), "{out}");
    assert!(out.contains("1 other test of the job failed before"), "{out}");
    let (out, err) = Site::told(site.there(&["retry", "1", "--tests"]), 0);
    assert!(err.contains("build 1: t again"), "{err}");
    assert!(out.contains("t: is asked for 1 of 3 tests") && out.contains("t | ran b\n"), "{out}");
    assert!(out.contains("build 1 passed"), "{out}");
}

#[test]
fn tests_in_quarantine_are_for_a_jobs_own_script_to_heed() {
    let site = Site::new(
        r#"jobs:
  t:
    inputs: [.ropewalk/pipeline.yaml]
    reports: { junit: r.xml }
    run: |
      echo "<testsuite name='s'><testcase name='a'/><testcase name='b'><failure/></testcase></testsuite>" > r.xml
      [ "$(printf '%s\n' "$ROPEWALK_QUARANTINE" | cut -f2)" = b ]
"#,
    );
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    site.submit(&["--project", "sails"], 1);
    let day = |days: i64| {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
        at.to_string()[..10].to_owned()
    };
    let (until, too_late) = (day(10), day(100));
    let add = |until: &str, code: i32| {
        let words = ["quarantine", "add", "sails", "b", "--suite", "s", "--owner", "ann", "--reason", "flaky clock"];
        Site::told(site.there(&[&words[..], &["--until", until]].concat()), code)
    };
    assert!(add(&too_late, 2).1.contains("at most 90 days ahead"));
    assert!(add("soon", 2).1.contains("write a day such as 2026-12-01"));
    assert!(add(&until, 0).0.contains("s b is in quarantine until"));
    let (out, _) = Site::told(site.there(&["quarantine", "list", "sails"]), 0);
    assert!(out.contains(&format!("s b   any  ann    {until}")) && out.contains("flaky clock"), "{out}");
    // The build that failed knows of none; the next one does, and its script lets the test fail.
    let (out, _) = Site::told(site.there(&["retry", "1", "t"]), 1);
    assert!(!out.contains("in quarantine"), "{out}");
    let text = site.submit(&["--project", "sails"], 0);
    assert!(text.contains("1 test is in quarantine; the steps find them in `ROPEWALK_QUARANTINE`"), "{text}");
    assert!(site.submit(&["--project", "sails"], 0).contains("t: cached"), "its result stands for the same quarantine");
    let (out, _) = Site::told(site.there(&["quarantine", "remove", "sails", "b", "--suite", "s"]), 0);
    assert!(out.contains("b is in quarantine no more"), "{out}");
    site.submit(&["--project", "sails"], 1);
    let (_, err) = Site::told(site.there(&["quarantine", "remove", "sails", "b", "--suite", "s"]), 2);
    assert!(err.contains("there is no `s b` in quarantine"), "{err}");
    assert_eq!(Site::told(site.there(&["quarantine", "list", "sails"]), 0).0, "no test is in quarantine\n");
}

#[test]
fn a_job_by_whose_end_a_build_of_a_server_has_grown_is_not_tried_again_within_it() {
    let site = Site::new(
        "jobs:\n  a: { outputs: [v], run: 'false' }\n  f: { needs: [a], matrix: { x: '${{ fromJSON(needs.a.outputs.v) }}' }, run: echo }\n",
    );
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    site.submit(&[], 1);
    let (shown, _) = Site::told(site.there(&["show", "1"]), 0);
    assert!(shown.contains("ropewalk retry 1 --server") && !shown.contains("--failed"), "{shown}");
    let (_, err) = Site::told(site.there(&["retry", "1", "--failed"]), 2);
    assert!(err.contains("the pipeline has grown by how `a` ended") && err.contains("`ropewalk retry 1`"), "{err}");
    let pipeline = site.root().join(".ropewalk/pipeline.yaml");
    let text = fs::read_to_string(&pipeline).expect("a file");
    fs::write(&pipeline, format!("{text}  b: {{ run: 'false' }}\n")).expect("a file");
    let build = site.submit_only(&[]);
    site.shows(&build, &format!("build {build} failed"));
    let (_, err) = Site::told(site.there(&["retry", &build, "--failed"]), 1);
    assert!(err.contains(&format!("build {build}: b again")), "{err}");
    assert!(
        err.contains(&format!("a stays as it is: the pipeline has grown by how it ended; `ropewalk retry {build}`")),
        "{err}"
    );
}

#[test]
fn builds_of_a_server_are_tried_again_and_canceled() {
    let site = Site::new("jobs:\n  a:\n    run: echo trying; test -e MARK\n  b:\n    run: echo fine\n");
    let mark = site.path("mark");
    let pipeline = site.root().join(".ropewalk/pipeline.yaml");
    let text = fs::read_to_string(&pipeline).expect("a file").replace("MARK", &mark.display().to_string());
    fs::write(&pipeline, text).expect("a file");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let text = site.submit(&[], 1);
    assert!(text.contains(&format!("ropewalk show 1 --server {}", site.url())), "{text}");
    let (out, _) = Site::told(site.there(&["retry", "1", "a"]), 1);
    assert!(out.contains("a | trying") && !out.contains("b | fine"), "{out}");
    fs::write(&mark, "").expect("a file");
    let (out, err) = Site::told(site.there(&["retry", "last-failed", "--failed"]), 0);
    assert!(err.contains("build 1: a again"), "{err}");
    assert_eq!(out.matches("a | trying").count(), 1, "{out}");
    assert!(out.contains("build 1 passed"), "{out}");
    let (_, err) = Site::told(site.there(&["retry", "1", "--failed"]), 2);
    assert!(err.contains("none of these jobs can run again"), "{err}");
    let (out, _) = Site::told(site.there(&["retry", "1"]), 0);
    assert!(out.contains("build 2 passed") && out.contains("b | fine"), "{out}");
    let (_, err) = Site::told(site.there(&["cancel", "2"]), 2);
    assert!(err.contains("build 2 has ended already: it passed"), "{err}");

    fs::write(&pipeline, "jobs:\n  a:\n    run: sleep 600\n  b:\n    run: sleep 600\n").expect("a file");
    let build = site.submit_only(&[]);
    site.shows(&build, "●  a");
    // Moved to the top it says so, and a second time it does no harm.
    for _ in 0..2 {
        let (out, _) = Site::told(site.there(&["urge", &build, "--reason", "a fix"]), 0);
        assert!(out.contains(&format!("build {build} goes before those that are not urgent")), "{out}");
    }
    let (_, err) = Site::told(site.there(&["urge", "2"]), 2);
    assert!(err.contains("build 2 has ended already: it passed"), "{err}");
    let (out, _) = Site::told(site.there(&["cancel", &build, "a", "--reason", "a trial"]), 0);
    assert!(out.contains(&format!("a of build {build} is asked to end")), "{out}");
    site.shows(&build, "■  a");
    let (out, _) = Site::told(site.there(&["cancel"]), 0);
    assert!(out.contains(&format!("build {build} is asked to end: ropewalk show {build} --server")), "{out}");
    site.shows(&build, &format!("build {build} was canceled by"));
    for flag in ["--failed", "a"] {
        let (_, err) = Site::told(site.there(&["retry", &build, flag]), 2);
        assert!(err.contains(&format!("build {build} was canceled, and is over")), "{err}");
        assert!(err.contains(&format!("`ropewalk retry {build}`")), "{err}");
    }
    // Of two branches: a later build of one branch cancels the earlier.
    let builds = [site.submit_only(&[]), site.submit_only(&["--branch", "other"])];
    let head = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(site.root()).output().expect("git");
    let commit = String::from_utf8_lossy(&head.stdout).trim().to_owned();
    let (out, _) = Site::told(site.there(&["cancel", "--commit", &commit]), 0);
    for build in &builds {
        assert!(out.contains(&format!("build {build} is asked to end")), "{out}");
        site.shows(build, "was canceled by");
    }
    let (_, err) = Site::told(site.there(&["cancel", "--commit", &commit]), 2);
    assert!(err.contains("is running"), "{err}");
}

#[test]
fn a_long_log_is_told_in_little_memory() {
    let site = Site::new("jobs:\n  flood:\n    run: head -c 15000000 /dev/urandom | base64 -w 99; echo the end\n");
    // A flood on a busy machine is no reason to give the worker up.
    fs::write(site.path("data/settings.toml"), "worker.heartbeat = \"30s\"\n").expect("a file");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    site.submit(&["--output", "quiet"], 0);
    let mut command = site.there(&["logs", "1"]);
    let mut process = Process(command.stdout(Stdio::piped()).spawn().expect("ropewalk starts"));
    let mut out = process.0.stdout.take().expect("a pipe");
    // What it takes does not grow with what it has told.
    let (mut buffer, mut bytes, mut peaks) = (vec![0; 1 << 20], 0, Vec::new());
    while let Ok(read @ 1..) = std::io::Read::read(&mut out, &mut buffer) {
        let marks = [4 << 20, 16 << 20].into_iter().filter(|mark| (bytes..bytes + read).contains(mark));
        peaks.extend(marks.map(|_| process.peak_mib()));
        bytes += read;
    }
    assert_eq!(process.ended(), Some(0));
    println!("{} MiB of log: `logs` peaked at {peaks:?} MiB", bytes >> 20);
    assert!(bytes > 20_000_000, "{bytes} bytes");
    let [early, late] = peaks[..] else { panic!("{peaks:?}") };
    assert!(late < early + 6, "{early} MiB after 4 MiB, {late} MiB after 16 MiB");
    let (out, _) = Site::told(site.there(&["logs", "1", "flood", "--grep", "^the end$"]), 0);
    assert_eq!(out, "the end\n");
}
