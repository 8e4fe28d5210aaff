//! Jobs in containers of real engines. One engine serves all cases of its test.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use graph::{Failure, Outcome};
use ropewalk_worker::Cancel;
use ropewalk_worker::container::engine::Kind as Thing;
use ropewalk_worker::container::{DATA_LABEL, Engine, data_label, remove_leftovers};
use ropewalk_worker::depot::{Secrets, Stream};
use ropewalk_worker::entry::{Entry, Moment};
use serde_json::{Value, json};

use super::engines::{self, Kind, ORDINARY, make_image};
use super::ground::{Ground, MemoryLog, compare, on_ground, on_ground_with, secret};
use super::{Case, connection, registry};

pub const CASES: &[Case] = &[
    ("jobs_in_docker", || jobs_in(Kind::Docker)),
    ("jobs_in_podman", || jobs_in(Kind::Podman)),
    ("jobs_in_a_rootless_engine", jobs_in_a_rootless_engine),
    ("no_engine", no_engine),
];

/// A test's other half, which is started by it and never by itself.
pub const HALVES: &[Case] =
    &[("half_that_is_killed", half_that_is_killed), ("half_of_an_ordinary_user", half_of_an_ordinary_user)];

/// Where the half finds its data directory.
const DATA_VARIABLE: &str = "ROPEWALK_TEST_DATA";

const FILES: &[(&str, &str)] = &[
    ("hello", "hello\n"),
    ("folder/inner", "inner\n"),
    (
        "ci/Dockerfile",
        "FROM box AS base\nARG WORD=none\nRUN echo $WORD > /word\nCOPY . /context\nFROM base AS last\nRUN false\n",
    ),
    ("ci/context/taken", "taken\n"),
    ("ci/context/left", "left\n"),
    ("ci/context/.dockerignore", "left\n"),
];

fn jobs_in(kind: Kind) {
    let Some(running) = engines::start(kind) else { return };
    let data = tempfile::tempdir().expect("a folder");
    on_ground_with(FILES, Duration::from_millis(500), Some(data.path()), async |ground| {
        let engine = ground.worker.engine().await.expect("an engine");
        assert!(engine.version.starts_with(&format!("{kind:?} ")), "{}", engine.version);
        make_image(&engine, "box", "first\n", &["ENV FROM_IMAGE=yes"]).await;
        make_image(&engine, "web", "web\n", &["CMD [\"/bin/httpd\",\"-f\",\"-vv\",\"-p\",\"8080\",\"-h\",\"/etc\"]"])
            .await;
        steps_and_values(ground).await;
        entered(ground).await;
        secrets_are_hidden(ground).await;
        settings_of_containers(ground).await;
        settings_that_the_image_has_not(ground).await;
        limits(ground, &engine).await;
        usage(ground).await;
        services(ground, &engine).await;
        builds(ground).await;
        pins(ground, &engine).await;
        visits(ground, &engine).await;
        assert_eq!(left(ground, &engine).await, 0, "{}", running.log());
        assert_eq!(monitors(ground), Vec::<String>::new(), "of Podman");
        after_a_kill(ground, &engine).await;
    });
    ordinary_user(&running.socket());
    if kind == Kind::Docker {
        registry::images_of_a_registry();
        connection::a_connection_that_drops(&running.socket());
    }
}

pub(crate) fn in_image(job: Value) -> Value {
    with(json!({ "environment": { "image": { "image": "box" } } }), job)
}

fn with(mut job: Value, more: Value) -> Value {
    let more = more.as_object().expect("an object").clone();
    job.as_object_mut().expect("an object").extend(more);
    job
}

pub(crate) fn steps(scripts: &[&str]) -> Value {
    scripts.iter().map(|script| json!({ "run": script })).collect()
}

/// How many things of this data directory the engine has.
async fn left(ground: &Ground, engine: &Engine) -> usize {
    let label = format!("{DATA_LABEL}={}", data_label(&ground.data));
    let mut count = 0;
    for kind in Thing::ALL {
        count += engine.labeled(kind, &label).await.expect("a list").len();
    }
    count
}

/// Processes of this machine that watch containers of this data directory.
fn monitors(ground: &Ground) -> Vec<String> {
    let name = format!("ropewalk-{}-", data_label(&ground.data));
    let processes = std::fs::read_dir("/proc").expect("a list").flatten();
    let arguments = processes.filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok());
    arguments.filter(|words| words.contains("conmon\0") && words.contains(&name)).collect()
}

async fn steps_and_values(ground: &Ground) {
    let script = "cat hello folder/inner; echo bad >&2; echo changed > hello; echo \"$FROM_IMAGE $HOME\" > made";
    let values = "echo 'NAME=a b' >> \"$ROPEWALK_ENV\"; echo 'word=it'\\''s' >> \"$ROPEWALK_OUTPUT\"";
    let server = "sleep 1000 >/dev/null 2>&1 &";
    let job = json!({
        "steps": steps(&[script, values, server, "cat hello made; echo \"$NAME\"; pwd", "exit 3", "echo never"]),
        "outputs": ["word"],
        "artifacts": { "all": ["made"] },
    });
    let (report, log) = ground.run(in_image(job)).await;
    let home = if rustix::process::getuid().is_root() { "/root" } else { "/tmp" };
    let root = ground.root.display();
    compare(
        &report,
        &log,
        &format!(
            "failed: step 4, exit 3
            passed 0: {script}
            passed 0: {values}
            passed 0: {server}
            passed 0: cat hello made; echo \"$NAME\"; pwd
            failed 3: exit 3
            skipped: echo never
            0 Stdout: hello
            0 Stdout: inner
            0 Stderr: bad
            3 Stdout: changed
            3 Stdout: yes {home}
            3 Stdout: a b
            3 Stdout: {root}"
        ),
    );
    assert_eq!(report.steps[1].outputs["word"], "it's");
    assert_eq!(report.artifacts["all"].files, 1, "what the container made was collected");
    // While a container has the files, this side says so instead of reading whatever is there.
    let step = json!({ "run": "true", "env": { "H": {"template": "${{ hash_files('hello') }}"} } });
    let (hashed, log) = ground.run(in_image(json!({ "steps": [step] }))).await;
    assert!(matches!(hashed.outcome, Outcome::Failed(Failure::Step { step: 0, .. })), "{:?}", hashed.outcome);
    let pieces = log.0.lock().unwrap().pieces.clone();
    let said: Vec<u8> = pieces.into_iter().flat_map(|(_, _, bytes)| bytes).collect();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("while a container has the files nobody else reads them"), "{said}");
    assert!(report.images["box"].contains("sha256:"), "{:?}", report.images);
    let hello = std::fs::read_to_string(ground.root.join("hello")).expect("it is there");
    assert_eq!(hello, "hello\n", "the user's tree is as it was");
    assert!(!ground.root.join("made").exists());
}

/// What a job left is entered in a container like its own: its image, files, variables and directory.
async fn entered(ground: &Ground) {
    let job = json!({
        "steps": steps(&["echo one > made; cp made /tmp/made; rm folder/inner", "echo two > made; cp made /tmp/made; exit 3"]),
        "env": { "WORD": "it's" },
    });
    let (report, _) = ground.run(in_image(job)).await;
    assert_eq!(report.outcome, Outcome::Failed(Failure::Step { step: 1, exit: 3, message: None }));
    let script = "cat made /tmp/made; ls folder; echo \"$WORD $FROM_IMAGE\"; pwd; echo visited > made; cp made /tmp/made; exit 4";
    let root = ground.root.display();
    for (moment, made) in [("1", "one"), ("failed", "two"), ("1", "one")] {
        let entry =
            Entry::open(&ground.data, graph::BuildId(7), ground.last_attempt(), &Moment::read(moment), BTreeMap::new())
                .expect("it is kept");
        assert_eq!(entry.shell("/usr/bin/fish".to_owned()), "/bin/sh", "the image need not have another");
        let mut command = entry.command("/bin/sh".as_ref(), &["-c".into(), script.into()]).expect("a command");
        let output = command.stdin(Stdio::null()).output().expect("it starts");
        let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(said, format!("{made}\n{made}\nit's yes\n{root}\n"), "{moment}: {complaint}");
        assert_eq!(output.status.code(), Some(4), "{complaint}");
    }
}

/// What a job in a container wrote a secret into is seen by whoever is given it anew, and by nobody else.
async fn secrets_are_hidden(ground: &Ground) {
    let scripts = ["echo \"$TOKEN\" | tee held > /tmp/held; echo plain > plain", "echo more >> plain; exit 3"];
    let (job, secrets) = (in_image(json!({ "steps": steps(&scripts) })), secret("TOKEN", "s3cr3t-value"));
    ground.run_with(job, BTreeMap::new(), secrets, Cancel::new(), MemoryLog::default()).await;
    let script = "cat held /tmp/held; cat plain; echo mine > held";
    for (moment, plain) in [("1", "plain\n"), ("failed", "plain\nmore\n"), ("end", "plain\nmore\n")] {
        let seen = |secrets: &[&str]| {
            let moment = if moment == "end" { Moment::End } else { Moment::read(moment) };
            let secrets = secrets.iter().map(|value| ("TOKEN".to_owned(), (*value).to_owned())).collect();
            let entry = Entry::open(&ground.data, graph::BuildId(7), ground.last_attempt(), &moment, secrets);
            let entry = entry.expect("it is kept");
            let mut command = entry.command("/bin/sh".as_ref(), &["-c".into(), script.into()]).expect("a command");
            let output = command.stdin(Stdio::null()).output().expect("it starts");
            (String::from_utf8_lossy(&output.stdout).into_owned(), entry.hidden().unwrap_or_default().to_owned())
        };
        let hidden = "without files that hold a secret: `/tmp/held`, `held`";
        assert_eq!(seen(&[]), (plain.to_owned(), hidden.to_owned()), "{moment}");
        let (said, hidden_as_well) = seen(&["guessed"]);
        assert!(said == plain && hidden_as_well.starts_with(hidden), "{moment}: {said} {hidden_as_well}");
        let all = format!("s3cr3t-value\ns3cr3t-value\n{plain}");
        assert_eq!(seen(&["s3cr3t-value"]), (all, String::new()), "{moment}");
    }
}

/// A shell that is killed leaves nothing with the engine: it is taken away when the entry ends, or by the next start.
async fn visits(ground: &Ground, engine: &Engine) {
    ground.run(in_image(json!({ "steps": steps(&["true", "exit 3"]) }))).await;
    let open = || {
        let entry =
            Entry::open(&ground.data, graph::BuildId(7), ground.last_attempt(), &Moment::Failed, BTreeMap::new())
                .expect("it is kept");
        let mut command =
            entry.command("/bin/sh".as_ref(), &["-c".into(), "echo in; sleep 1000".into()]).expect("a command");
        let mut shell = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(shell.stdout.take().expect("a pipe")).lines();
        assert!(lines.any(|line| line.is_ok_and(|line| line == "in")), "a shell opened");
        shell.kill().expect("killed");
        shell.wait().expect("reaped");
        entry
    };
    let entry = open();
    assert_eq!(left(ground, engine).await, 3, "a container, its files and its /tmp");
    drop(entry);
    assert_eq!(left(ground, engine).await, 0);

    // As if this process had been killed: nobody takes it away, and no process has its number.
    std::mem::forget(open());
    let notes = ground.data.join("containers");
    let all = std::fs::read_dir(&notes).expect("a list").flatten().map(|entry| entry.path());
    let note = all.into_iter().find(|path| path.to_string_lossy().contains("/visit.")).expect("a note");
    assert_eq!(remove_leftovers(&ground.data, |_| true).await, Ok(0), "whoever opened it lives");
    let mut gone = Command::new("true").spawn().expect("it starts");
    let number = gone.id();
    gone.wait().expect("reaped");
    std::fs::rename(note, notes.join(format!("visit.{number}.0"))).expect("renamed");
    assert_eq!(remove_leftovers(&ground.data, |_| true).await, Ok(1));
    assert_eq!(left(ground, engine).await, 0);
}

async fn settings_of_containers(ground: &Ground) {
    let container = json!({ "user": "ada", "network": "off", "entrypoint": ["/bin/env", "ENTERED=yes"] });
    let job = json!({
        "environment": { "image": { "image": { "template": "${{ env.BOX }}" }, "container": container } },
        "env": { "BOX": { "template": "b${{ 'ox' }}" } },
        "steps": steps(&["id -un; echo $ENTERED; grep -c : /proc/net/dev; echo a=b >> \"$ROPEWALK_OUTPUT\""]),
        "outputs": ["a"],
    });
    let expected = "passed {\"a\":\"b\"}
        passed 0: id -un; echo $ENTERED; grep -c : /proc/net/dev; echo a=b >> \"$ROPEWALK_OUTPUT\"
        0 Stdout: ada
        0 Stdout: yes
        0 Stdout: 1";
    ground.check(job, expected).await;
    let job = json!({ "workspace": "in_place", "steps": steps(&["echo here > in_place"]) });
    let (report, _) = ground.run(in_image(job)).await;
    assert!(matches!(report.outcome, Outcome::Passed { .. }), "{:?}", report.outcome);
    assert_eq!(std::fs::read_to_string(ground.root.join("in_place")).expect("it is there"), "here\n");
    let never = json!({ "image": "nowhere.invalid/none", "container": { "pull": "never" } });
    let (report, _) = ground.run(json!({ "environment": { "image": never }, "steps": steps(&["true"]) })).await;
    let told =
        matches!(&report.outcome, Outcome::Failed(Failure::Setup { message }) if message.contains("pull: never"));
    assert!(told, "{:?}", report.outcome);
}

/// What the image cannot do is the file's fault, and is not tried again; what the kernel killed for want of memory is told.
async fn settings_that_the_image_has_not(ground: &Ground) {
    let never = |more: Value| with(json!({ "pull": "never" }), more);
    for (container, told) in [
        (json!({ "user": "bob" }), "the image does not know the user of `user: bob`"),
        (json!({ "entrypoint": ["/bin/nonsense"] }), "the container cannot run its `entrypoint`: "),
        (
            json!({ "entrypoint": ["/bin/false"] }),
            "the container ended at once, with code 1: its `entrypoint` must run",
        ),
        (never(json!({ "platform": "linux/s390x" })), "the image `box` is for linux/"),
    ] {
        let image = json!({ "image": "box", "container": container });
        let (report, _) = ground.run(json!({ "environment": { "image": image }, "steps": steps(&["true"]) })).await;
        let is_told =
            matches!(&report.outcome, Outcome::Failed(Failure::Setup { message }) if message.starts_with(told));
        assert!(is_told, "{:?}", report.outcome);
    }
    let hungry = json!({
        "resources": { "memory_bytes": 32 << 20 },
        "steps": steps(&["grep x /dev/zero"]),
    });
    let (report, _) = ground.run(in_image(hungry)).await;
    assert!(matches!(report.outcome, Outcome::Failed(Failure::Step { step: 0, .. })), "{:?}", report.outcome);
    let is_told = |note: &String| {
        note.starts_with("step 1: the kernel killed ") && note.contains("of memory: the container may hold 32 MiB")
    };
    assert!(report.notes.iter().any(is_told), "{:?}", report.notes);
}

async fn limits(ground: &Ground, engine: &Engine) {
    let job = json!({ "steps": [{ "run": "trap '' TERM; echo on; sleep 1000 & wait; sleep 1000", "timeout_ms": 1000 }, { "run": "echo after", "if": "always()" }] });
    let (report, log) = ground.run(in_image(job)).await;
    let timed_out = matches!(report.outcome, Outcome::Failed(Failure::Timeout { step: Some(0), limit_ms: 1000 }));
    assert!(timed_out, "{:?}", report.outcome);
    assert_eq!(report.steps[0].exit, Some(137), "it did not heed TERM");
    let pieces = log.0.lock().unwrap().pieces.clone();
    let printed = |step: u16, text: &str| pieces.iter().any(|(of, _, bytes)| *of == step && bytes == text.as_bytes());
    assert!(printed(1, "after\n"), "the container outlives a step that ran out of time");
    limits_below_an_entrypoint(ground).await;

    let cancel = Cancel::new();
    let log = MemoryLog::default();
    let canceling = cancel.clone();
    log.0.lock().unwrap().gate = Some(std::sync::Arc::new(move |_| canceling.gently("ada")));
    let job = json!({ "steps": steps(&["echo on; sleep 1000"]) });
    let (report, _) = ground.run_with(in_image(job), BTreeMap::new(), Secrets::default(), cancel, log).await;
    assert_eq!(report.outcome, Outcome::Failed(Failure::Canceled { by: "ada".to_owned() }));
    assert_eq!(report.steps[0].exit, Some(143), "it heeded TERM");
    assert_eq!(left(ground, engine).await, 0);
}

/// As [`limits`], when the first process is not the shell that runs the steps, nor what started that.
async fn limits_below_an_entrypoint(ground: &Ground) {
    let entrypoint = json!(["/bin/sh", "-c", "/bin/sh -c '\"$@\"; exit 9' sh \"$@\"; exit 8", "sh"]);
    let image = json!({ "image": "box", "container": { "entrypoint": entrypoint } });
    for (step, exit) in [("sleep 1000", 143), ("trap '' TERM; sleep 1000 & wait; sleep 1000", 137)] {
        let after = json!({ "run": "echo after", "if": "always()" });
        let job = json!({ "environment": { "image": image }, "steps": [{ "run": step, "timeout_ms": 1000 }, after] });
        let (report, log) = ground.run(job).await;
        let timed_out = Outcome::Failed(Failure::Timeout { step: Some(0), limit_ms: 1000 });
        assert_eq!((report.outcome, report.steps[0].exit), (timed_out, Some(exit)), "{:?}", report.notes);
        assert!(take_pieces_of(&log, 1).contains("after"), "{step}");
    }
}

async fn services(ground: &Ground, engine: &Engine) {
    let web = json!({ "image": "web", "ports": [8080], "health": { "command": "grep -q ada /etc/passwd", "interval_ms": 10, "retries": 3 } });
    let job =
        json!({ "services": { "pages": web }, "steps": steps(&["wget -q -O - http://pages:8080/passwd | grep ada"]) });
    let (report, log) = ground.run(in_image(job)).await;
    let expected = "passed {}
        passed 0: wget -q -O - http://pages:8080/passwd | grep ada
        passed: service pages
        0 Stdout: ada:x:77:77::/home/ada:/bin/sh";
    let of_service = take_pieces_of(&log, 1);
    compare(&report, &log, expected);
    assert!(of_service.contains("passwd"), "the service's log: {of_service:?}");

    let sick = json!({ "image": "web", "health": { "command": "false", "interval_ms": 1, "retries": 2 } });
    let job = json!({ "services": { "pages": sick }, "steps": steps(&["echo never"]) });
    let (report, _) = ground.run(in_image(job)).await;
    let words = "the service `pages` was not well after 2 tries: its health command ended with code 1";
    let message = Some(words.to_owned());
    assert_eq!(report.outcome, Outcome::Failed(Failure::Step { step: 1, exit: 1, message }));
    services_without_a_program(ground).await;
    assert!(report.notes.iter().any(|note| note == words), "{:?}", report.notes);
    assert_eq!(left(ground, engine).await, 0);
}

/// An image that says nothing of what it runs is a service by its `command`; without one the file is at fault, and says so.
async fn services_without_a_program(ground: &Ground) {
    let run = async |service: Value| {
        let steps = steps(&["wget -q -O - http://pages:8080/passwd | grep ada"]);
        let (report, _) = ground.run(in_image(json!({ "services": { "pages": service }, "steps": steps }))).await;
        report
    };
    let httpd = ["/bin/httpd", "-f", "-p", "8080", "-h", "/etc"];
    let report = run(json!({ "image": "box", "command": httpd, "ports": [8080] })).await;
    assert!(matches!(report.outcome, Outcome::Passed { .. }), "{:?}", report.outcome);
    let used = report.steps[1].usage;
    assert!(used.peak_memory_bytes > 0 || !kernel_tells_peaks(), "the service's memory is told: {used:?}");
    for (service, told) in [
        (
            json!({ "image": "box" }),
            "the service `pages` has nothing to run: its image `box` has neither CMD nor ENTRYPOINT",
        ),
        (json!({ "image": "box", "command": ["nonsense"] }), "the service `pages` cannot run its program: "),
    ] {
        let outcome = run(service).await.outcome;
        let is_told = matches!(&outcome, Outcome::Failed(Failure::Setup { message }) if message.starts_with(told));
        assert!(is_told && format!("{outcome:?}").contains("`command` in the service"), "{outcome:?}");
    }
}

/// Memory and time of steps are those of their container.
async fn usage(ground: &Ground) {
    let large = "head -c 50000000 /dev/zero > /dev/shm/large; i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done; rm /dev/shm/large";
    let (report, _) = ground.run(in_image(json!({ "steps": steps(&["true", large]) }))).await;
    let [small, large] = [&report.steps[0].usage, &report.steps[1].usage];
    assert!(large.cpu_user_us + large.cpu_system_us > small.cpu_user_us + small.cpu_system_us, "{small:?} {large:?}");
    if !kernel_tells_peaks() {
        println!("passed over: this kernel keeps no peak of a container's memory");
        return;
    }
    assert!(large.peak_memory_bytes > 50_000_000, "{large:?}");
    assert!((1..large.peak_memory_bytes).contains(&small.peak_memory_bytes), "{small:?}");
}

/// Control groups of version 1 always do, those of version 2 since Linux 5.19.
fn kernel_tells_peaks() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(19)) || std::path::Path::new("/sys/fs/cgroup/memory").is_dir()
}

/// Takes what a log has of a step or a section, as text.
pub(crate) fn take_pieces_of(log: &MemoryLog, step: u16) -> String {
    let mut logged = log.0.lock().unwrap();
    let (taken, kept) = std::mem::take(&mut logged.pieces).into_iter().partition(|(of, ..)| *of == step);
    logged.pieces = kept;
    Vec::into_iter(taken).map(|(.., bytes)| String::from_utf8_lossy(&bytes).into_owned()).collect()
}

async fn builds(ground: &Ground) {
    let built = |target: &str| {
        let args = json!({ "WORD": { "plain": "given" } });
        json!({ "dockerfile": { "dockerfile": "ci/Dockerfile", "context": "ci/context", "args": args, "target": target } })
    };
    let args = json!({ "WORD": "given" });
    let mut environment = built("base");
    environment["dockerfile"]["args"] = args.clone();
    let job = json!({ "environment": environment, "steps": steps(&["cat /word; ls /context"]) });
    let (report, log) = ground.run(job).await;
    log.0.lock().unwrap().pieces.retain(|(step, ..)| *step == 0);
    let expected = "passed {}
        passed 0: cat /word; ls /context
        passed 0: build ci/Dockerfile
        0 Stdout: given
        0 Stdout: taken";
    compare(&report, &log, expected);
    let mut environment = built("");
    environment["dockerfile"]["args"] = args;
    let (report, _) = ground.run(json!({ "environment": environment, "steps": steps(&["true"]) })).await;
    assert_eq!(
        report.outcome,
        Outcome::Failed(Failure::Step { step: 1, exit: 1, message: None }),
        "the last stage fails"
    );
    assert_eq!(report.steps[1].result, graph::StepResult::Failed);
    assert!(report.steps[1].lines > 0, "the build's output is in its log");
    // What the engine refuses at once is told in the log as what it says later.
    let environment = json!({ "dockerfile": { "dockerfile": "hello" } });
    let (report, log) = ground.run(json!({ "environment": environment, "steps": steps(&["true"]) })).await;
    assert!(matches!(report.outcome, Outcome::Failed(Failure::Step { step: 1, .. })), "{:?}", report.outcome);
    let pieces = log.0.lock().unwrap().pieces.clone();
    let is_told = pieces.iter().any(|(step, stream, ..)| *step == 1 && *stream == Stream::Stdout);
    assert!(is_told, "{pieces:?}");
}

async fn pins(ground: &Ground, engine: &Engine) {
    make_image(engine, "moving", "old\n", &[]).await;
    let job = json!({ "environment": { "image": { "image": "moving" } }, "steps": steps(&["cat /which"]) });
    let word = async |expected: &str| {
        let (report, log) = ground.run(job.clone()).await;
        let pieces = log.0.lock().unwrap().pieces.clone();
        let printed = pieces.iter().map(|(.., bytes)| String::from_utf8_lossy(bytes).into_owned()).collect::<String>();
        assert_eq!(printed, expected, "{:?}", report.outcome);
        report.images["moving"].clone()
    };
    let first = word("old\n").await;
    make_image(engine, "moving", "new\n", &[]).await;
    assert_eq!(word("old\n").await, first, "the tag means one image for the whole build");
}

/// A worker is killed while its job runs in a container with a service; what it left is removed by the next.
async fn after_a_kill(ground: &Ground, engine: &Engine) {
    let program = std::env::current_exe().expect("the test program has a path");
    let mut half = Command::new(program)
        .args(["half_that_is_killed", "--exact"])
        .env(DATA_VARIABLE, &ground.data)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the half starts");
    let mut lines = BufReader::new(half.stdout.take().expect("a pipe")).lines();
    let running = lines.any(|line| line.is_ok_and(|line| line == "running"));
    assert!(running, "the half ran a job");
    half.kill().expect("killed");
    half.wait().expect("reaped");
    let count = left(ground, engine).await;
    assert!(count >= 4, "two containers, a network and a volume: {count}");
    assert_eq!(
        remove_leftovers(&ground.data, |_| true).await,
        Ok(0),
        "of a build that somebody runs nothing is removed"
    );
    assert_eq!(remove_leftovers(&ground.data, |_| false).await, Ok(count));
    assert_eq!(left(ground, engine).await, 0);
    assert_eq!(remove_leftovers(&ground.data, |_| false).await, Ok(0));
}

/// The user of an engine that is no root's is root inside, so that the files are theirs.
fn jobs_in_a_rootless_engine() {
    let Some(running) = engines::start(Kind::Rootless) else { return };
    ordinary_user(&running.socket());
}

/// Jobs of an ordinary user with an engine of root's, whose mounts leave folders of root's, and whose steps may be root's too.
fn ordinary_user(socket: &std::path::Path) {
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).expect("a mode");
    // Where this program is, another user may not look.
    let folder =
        tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().expect("a folder");
    let program = folder.path().join("attempts");
    let own = std::env::current_exe().expect("the test program has a path");
    std::fs::copy(own, &program).expect("copied");
    let mut half = Command::new(program);
    half.args(["half_of_an_ordinary_user", "--exact"]).uid(ORDINARY).gid(ORDINARY).current_dir("/");
    assert!(half.env("HOME", "/nowhere").status().expect("the half starts").success());
}

fn half_of_an_ordinary_user() {
    on_ground_with(FILES, Duration::from_secs(1), None, async |ground| {
        let mine = "id -u; id -g; umask 077; echo more >> hello; rm folder/inner; mkdir made; echo one > made/file";
        let engine = ground.worker.engine().await.expect("an engine");
        if engine.is_rootless {
            // Without a name there is no network either.
            make_image(&engine, "box", "first\n", &[]).await;
        }
        let own = if engine.is_rootless { 0 } else { ORDINARY };
        for (user, id) in [("", own), ("root", 0)] {
            let container = json!({ "user": user, "network": "off" });
            let job = json!({
                "environment": { "image": { "image": "box", "container": container } },
                "steps": steps(&[mine, "cat made/file hello"]),
                "artifacts": { "all": ["made"] },
            });
            let expected = format!(
                "passed {{}}
                passed 0: {mine}
                passed 0: cat made/file hello
                0 Stdout: {id}
                0 Stdout: {id}
                1 Stdout: one
                1 Stdout: hello
                1 Stdout: more"
            );
            let (mut report, log) = ground.run(job).await;
            // Root's private files are not kept between steps, and a note says so.
            report.notes.retain(|note| !note.contains("cannot show what steps of this job left in `made`"));
            compare(&report, &log, &expected);
            assert_eq!(report.artifacts["all"].files, 1, "what was made is this user's in the end");
        }
        // Of another user than root and this one, where the engine knows more than one.
        if !engine.is_rootless {
            let mine = "umask 077; mkdir /tmp/made; echo private > /tmp/made/file";
            let container = json!({ "user": "77", "network": "off" });
            let environment = json!({ "image": { "image": "box", "container": container } });
            let (report, log) = ground.run(json!({ "environment": environment, "steps": steps(&[mine]) })).await;
            compare(&report, &log, &format!("passed {{}}\npassed 0: {mine}"));
        }
        let workspaces = ground.data.join("workspaces");
        ropewalk_worker::workspace::remove_tree(&workspaces).expect("all of it can be removed");
    });
}

fn half_that_is_killed() {
    let data = std::env::var_os(DATA_VARIABLE).map(std::path::PathBuf::from).expect("a data directory");
    on_ground_with(FILES, Duration::from_secs(1), Some(&data), async |ground| {
        let log = MemoryLog::default();
        log.0.lock().unwrap().gate = Some(std::sync::Arc::new(|_| println!("running")));
        let job = json!({ "services": { "pages": { "image": "web" } }, "steps": steps(&["echo on; sleep 1000"]) });
        let _ = ground.run_with(in_image(job), BTreeMap::new(), Secrets::default(), Cancel::new(), log).await;
    });
}

/// What a job is told where no engine is.
fn no_engine() {
    let nowhere = tempfile::tempdir().expect("a folder");
    // SAFETY: there is one thread.
    unsafe { std::env::set_var("DOCKER_HOST", format!("unix://{}/socket", nowhere.path().display())) };
    on_ground(&[], async |ground| {
        let (report, _) = ground.run(in_image(json!({ "steps": steps(&["true"]) }))).await;
        let Outcome::Failed(Failure::Setup { message }) = report.outcome else { panic!("{:?}", report.outcome) };
        assert!(
            message.contains("no container engine was found at") && message.contains("install Docker"),
            "{message}"
        );
    });
}
