//! Several processes that want one build: one goes on with it, and what the others ask reaches that one.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::process::{PATIENCE, Process, Reader};
use crate::{Repository, text, wait_for};

/// Opens a pipe that somebody reads, or will soon.
#[track_caller]
fn open_read(path: &Path) -> fs::File {
    let began = Instant::now();
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).expect("a flag");
    loop {
        // Refused until there is a reader.
        match fs::OpenOptions::new().write(true).custom_flags(flags).open(path) {
            Ok(file) => return file,
            Err(error) => assert!(began.elapsed() < PATIENCE, "nobody reads {}: {error}", path.display()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn nothing_of_a_build_that_another_process_goes_on_with_is_killed() {
    let pipeline = "jobs: { a: { run: 'env | grep ^ROPEWALK_ATTEMPT= >../marker; [ -e ../again ] || { touch ../again; echo ready; sleep 1000; }' } }";
    let repository = Repository::new("jobs: {}");
    let beside = |name: &str| repository.folder.path().join(name);
    fs::write(beside("pipeline.yaml"), pipeline).expect("a file");
    let mut child = repository.start(&["run", "--output", "plain", "../pipeline.yaml"]);
    let reader = wait_for(&mut child, "a | ready");
    child.kill().expect("kill -9");
    child.wait().expect("it ends");
    drop(reader);
    // The first to go on with it stands still where it reads the pipeline.
    fs::remove_file(beside("pipeline.yaml")).expect("it was there");
    assert!(Command::new("mkfifo").arg(beside("pipeline.yaml")).status().expect("mkfifo").success());
    let mut first = Process(repository.start(&["run", "--resume", "--output", "plain"]));
    let mut pipe = open_read(&beside("pipeline.yaml"));
    let marker = fs::read_to_string(beside("marker")).expect("the job has begun");
    let (name, marker) = marker.trim().split_once('=').expect("a variable");
    // As a job that it has begun.
    let job = Command::new("sleep").arg("1000").env(name, marker).stdout(Stdio::null()).spawn().expect("sleep");
    let mut job = Process(job);
    let before = repository.check(&["show", "1", "--output", "json"], 0);
    let mut second = Process(repository.start(&["run", "--resume"]));
    Reader::new(second.0.stderr.take().expect("a pipe")).until("error: build 1 is run by another process");
    assert_eq!(second.ended(), Some(2));
    assert!(job.0.try_wait().expect("a child").is_none(), "it was killed");
    assert_eq!(repository.check(&["show", "1", "--output", "json"], 0), before);
    job.kill();
    pipe.write_all(pipeline.as_bytes()).expect("it is read");
    drop(pipe);
    Reader::new(first.0.stdout.take().expect("a pipe")).until("build 1 passed");
    assert_eq!(first.ended(), Some(0));
}

#[test]
fn two_answers_at_once_are_both_taken() {
    let repository = Repository::new(
        "jobs:\n  a: { gate: { prompt: One? }, run: echo one }\n  b: { gate: { prompt: Two? }, run: echo two }\n  c: { needs: [a, b], run: echo end }\n",
    );
    for build in ["1", "2", "3"] {
        repository.check(&["run", "--no-reuse"], 4);
        let both = Barrier::new(2);
        let approve = &|gate: &str| {
            both.wait();
            repository.ropewalk(&["approve", build, gate, "--no-reuse"])
        };
        let answers = std::thread::scope(|scope| {
            let threads = ["a", "b"].map(|gate| scope.spawn(move || approve(gate)));
            threads.map(|thread| thread.join().expect("it ends"))
        });
        let [a, b] = answers.each_ref().map(|output| output.status.code().expect("it ends by itself"));
        let told = answers.each_ref().map(text).join("\n");
        // Whoever goes on with the build leaves it again if the other answer has not come yet.
        assert!([(0, 0), (0, 4), (4, 0)].contains(&(a, b)), "{a}, {b}: {told}");
        let shown = repository.check(&["show", build], 0);
        assert!(shown.contains(&format!("build {build} passed")), "{told}\n{shown}");
    }
}
