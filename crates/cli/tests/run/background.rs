//! What a step leaves in the background does not outlive its job, whatever it does about a closed terminal; and what `ropewalk` itself
//! was left by whoever started it.

use std::fs;
use std::os::unix::process::CommandExt;

use rustix::process::{Pid, Signal, kill_process};

use crate::{Repository, wait_for};

#[test]
fn what_a_step_began_with_nohup_ends_with_its_job() {
    let repository = Repository::new(
        "jobs:\n  a: { run: 'nohup sleep 1000 >/dev/null 2>&1 & echo $! > ../pid' }\n  b: { needs: [a], run: 'test ! -e /proc/$(cat ../pid)' }\n",
    );
    repository.check(&["run"], 0);
}

#[test]
fn what_a_step_began_with_nohup_ends_with_the_terminal() {
    let repository = Repository::new(
        "jobs: { a: { run: 'nohup sleep 1000 >/dev/null 2>&1 & echo $! > ../pid; echo ready; wait' } }",
    );
    let mut child = repository.start(&["run", "--output", "plain"]);
    // Nobody reads on.
    drop(wait_for(&mut child, "a | ready"));
    // As the kernel does when a terminal is closed.
    kill_process(Pid::from_child(&child), Signal::HUP).expect("a signal is sent");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let pid = fs::read_to_string(repository.folder.path().join("pid")).expect("it began");
    assert!(!fs::exists(format!("/proc/{}", pid.trim())).expect("it can be told"), "{pid}");
}

#[test]
fn a_build_runs_whatever_descriptors_it_was_left() {
    let repository = Repository::new("jobs: { a: { run: 'ls /proc/self/fd' } }");
    let null = fs::File::options().read(true).write(true).open("/dev/null").expect("there is one");
    let mut command = repository.command(&["run"]);
    // SAFETY: system calls on descriptors of the child's own, which it does not use before it becomes `ropewalk`.
    unsafe {
        command.pre_exec(move || {
            for place in 3..40 {
                std::mem::forget(rustix::io::fcntl_dupfd_cloexec(&null, place)?);
            }
            for place in 3..40 {
                let left = std::os::fd::BorrowedFd::borrow_raw(place);
                rustix::io::fcntl_setfd(left, rustix::io::FdFlags::empty())?;
            }
            Ok(())
        });
    }
    let output = command.output().expect("ropewalk starts");
    let text = crate::text(&output);
    assert!(output.status.success(), "{text}");
    assert!(!text.lines().any(|line| line.ends_with("| 16")), "a step has none of them: {text}");
}
