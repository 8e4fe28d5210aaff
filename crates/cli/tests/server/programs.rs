//! Who asks the program of a build, which one it is, and what becomes of the asking when nobody waits for it any more.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::evaluations;
use crate::installation::{Site, Worker};
use crate::process::{Process, Reader, appears};

/// A program whose graph grows when `slow` has ended, with a job that is a function of it.
const GROWS: &str = r#"
use ropewalk::{Ci, Environment};

fn main() {
    Ci::main(ci)
}

fn ci(ci: &Ci) {
    ci.job("plan").environment(Environment::host()).run_fn(|_, ()| Ok(()));
    let wait = "touch MARKS/begun; while ! [ -e MARKS/go ]; do sleep 0.05; done";
    let slow = ci.job("slow").environment(Environment::host()).run(wait);
    ci.after(&slow, |ci, _| {
        ci.job("last").environment(Environment::host()).run_fn(|_, ()| Ok(println!("it has grown")));
    });
}
"#;

/// A program with a test that tells its process and does not end.
const HANGS: &str = r#"
use ropewalk::{Ci, Environment};

fn main() {
    Ci::main(|ci: &Ci| {
        ci.job("one").environment(Environment::host()).run("echo one");
    })
}

#[test]
fn hangs() {
    std::fs::write("MARKS/hangs.new", std::process::id().to_string()).unwrap();
    std::fs::rename("MARKS/hangs.new", "MARKS/hangs").unwrap();
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
"#;

/// A program of one job.
const PLAIN: &str = r#"
use ropewalk::{Ci, Environment};

fn main() {
    Ci::main(|ci: &Ci| {
        ci.job("two").environment(Environment::host()).run("echo it ran");
    })
}
"#;

/// A site whose project is this program, and a folder for marks.
fn site(program: &str) -> (Site, tempfile::TempDir) {
    let site = Site::new("jobs: {}\n");
    let marks = tempfile::tempdir().expect("a folder");
    fs::remove_file(site.root().join(".ropewalk/pipeline.yaml")).expect("a file");
    write(&site, program, marks.path());
    (site, marks)
}

fn write(site: &Site, program: &str, marks: &Path) {
    let program = program.replace("MARKS", &marks.to_string_lossy());
    fs::write(site.root().join(".ropewalk/pipeline.rs"), program).expect("a file");
}

/// A folder with all programs of this machine but `cargo`.
fn without_cargo(site: &Site) -> PathBuf {
    let folder = site.path("programs-but-cargo");
    fs::create_dir_all(&folder).expect("a folder");
    let path = std::env::var_os("PATH").expect("a path");
    for program in std::env::split_paths(&path).filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        if program.file_name() != "cargo" {
            // The first of a name counts.
            let _ = symlink(program.path(), folder.join(program.file_name()));
        }
    }
    folder
}

/// A worker that finds no cargo.
fn work_without_cargo(site: &Site, name: &str, flags: &[&str]) -> Worker {
    let mut command =
        site.command(&["work", "--server", &site.url(), "--capacity", "2", "--grace", "1", "--name", name]);
    command.arg("--token").arg(site.path("worker.token")).arg("--data").arg(site.path(name)).args(flags);
    command.env("PATH", without_cargo(site)).stderr(Stdio::piped());
    let mut process = Process(command.spawn().expect("ropewalk starts"));
    let mut said = Reader::new(process.0.stderr.take().expect("a pipe"));
    said.until("joined http://");
    Worker { process, said }
}

fn administer(site: &Site, arguments: &[&str]) {
    let mut command = site.command(arguments);
    command.args(["--server", &site.url(), "--token"]).arg(site.path("admin.token"));
    let output = command.output().expect("ropewalk starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_build_that_grows_asks_the_program_that_it_began_with_wherever_that_was_built() {
    let (site, marks) = site(GROWS);
    let server = site.serve();
    let mut first = site.work("w1", &[]);
    let (mut watching, mut shown) = site.watch(&[]);
    appears(&marks.path().join("begun"));
    // Another server, which remembers nothing, and another worker, which would build another binary if it could build any.
    drop(server);
    let _server = site.serve();
    let _second = work_without_cargo(&site, "w2", &[]);
    first.said.until("joined http://");
    administer(&site, &["workers", "pause", "w1", "--reason", "another is to be asked"]);
    fs::write(marks.path().join("go"), "").expect("a file");
    shown.until("last | it has grown");
    assert_eq!(watching.ended(), Some(0));
}

#[test]
fn a_program_is_asked_by_a_worker_of_its_builds_pool_that_has_cargo() {
    let (site, _marks) = site(PLAIN);
    let _server = site.serve();
    let _elsewhere = site.work("elsewhere", &["--pool", "a"]);
    let (mut watching, mut shown) = site.watch(&["--pool", "b"]);
    shown.until("the pipeline's program waits to be asked: no worker serves the pool `b`");
    // It says that it has cargo, and has none.
    let _mistaken = work_without_cargo(&site, "mistaken", &["--pool", "b", "--labels", "cargo"]);
    shown.until("there is no `cargo` in PATH");
    assert_eq!(watching.ended(), Some(2));
    let _right = site.work("right", &["--pool", "b"]);
    for _ in 0..2 {
        let text = site.submit(&["--pool", "b", "--separate"], 0);
        assert!(text.contains("two | it ran"), "{text}");
    }
    assert!(!site.path("elsewhere/evaluate").exists(), "a program of another pool ran there");
}

#[test]
fn tests_that_hang_are_ended_with_their_build_and_keep_no_other_waiting() {
    let (site, marks) = site(HANGS);
    let _server = site.serve();
    let worker = site.work("w1", &[]);
    let (mut watching, _shown) = site.watch(&[]);
    appears(&marks.path().join("hangs"));
    let hangs = fs::read_to_string(marks.path().join("hangs")).expect("a file");
    let hangs = Path::new("/proc").join(hangs);
    assert!(hangs.exists());
    // A project of other files is asked meanwhile.
    let other = tempfile::tempdir().expect("a folder");
    fs::create_dir(other.path().join(".ropewalk")).expect("a folder");
    fs::write(other.path().join(".ropewalk/pipeline.rs"), PLAIN).expect("a file");
    let submit = || -> String {
        let mut command: Command = site.submit_command(&["."]);
        let output = command.current_dir(other.path()).output().expect("ropewalk starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(submit().contains("two | it ran"));
    assert!(hangs.exists() && evaluations(&worker).len() == 1);
    administer(&site, &["cancel", "1"]);
    assert_eq!(watching.ended(), Some(130));
    site.eventually("the test has ended", || !hangs.exists() && evaluations(&worker).is_empty());
    // The folder is free.
    write(&site, PLAIN, marks.path());
    assert!(site.submit(&[], 0).contains("two | it ran"));
}
