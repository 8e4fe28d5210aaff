//! What a step leaves in the background does not outlive its job, whatever it does about a closed terminal.

use std::fs;

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
