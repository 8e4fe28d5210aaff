//! A full disk: what Ropewalk keeps of builds that nobody runs gives way, and what is kept can be read all the same.

use std::fs;
use std::process::Command;

use crate::{Repository, text};

/// Runs a script of `sh` in the repository, where the data folder is a file system of so many MiB and `$ropewalk` the binary, and gives what
/// it prints; `None` where no file system can be mounted.
fn on_small_disk(repository: &Repository, mebibytes: u32, script: &str) -> Option<String> {
    let data = repository.folder.path().join("data");
    fs::create_dir_all(&data).expect("a folder");
    let namespaces: &[&str] =
        if rustix::process::geteuid().is_root() { &["--mount"] } else { &["--mount", "--map-root-user"] };
    let script = format!("mount -t tmpfs -o size={mebibytes}m tmpfs \"$ROPEWALK_DATA\" || exit 99\n{script}");
    let mut command = Command::new("unshare");
    command.args(namespaces).args(["sh", "-c", &script]).current_dir(repository.root());
    command.env("ROPEWALK_DATA", data).env("ropewalk", env!("CARGO_BIN_EXE_ropewalk")).env("NO_COLOR", "1");
    let output = command.output().expect("unshare starts");
    let is_mounted = output.status.code() != Some(99) && !text(&output).starts_with("unshare: ");
    if !is_mounted {
        assert!(std::env::var_os("CI").is_none(), "a small file system is needed: {}", text(&output));
        println!("skipped: no file system can be mounted here");
        return None;
    }
    Some(text(&output))
}

/// Asserts that these stand in a text, in this order.
#[track_caller]
fn check_order(text: &str, expected: &[&str]) {
    let mut rest = text;
    for part in expected {
        let Some((_, behind)) = rest.split_once(part) else { panic!("no `{part}` there in:\n{text}") };
        rest = behind;
    }
}

#[test]
fn a_job_that_fills_the_disk_fails_and_its_build_goes_on() {
    let repository = Repository::new(
        "jobs:\n  large: { run: 'head -c 100000000 /dev/zero > large' }\n  then: { needs: [{ job: large, on: finished }], run: echo there is room }\n",
    );
    let script = "exec 2>&1; $ropewalk run; echo \"run $?\"; $ropewalk show 1; $ropewalk shell 1 large -- true; echo \"shell $?\"";
    let Some(said) = on_small_disk(&repository, 16, script) else { return };
    let note = "large: note: no space was left on the disk of `";
    let removed = "`: what the job had left was removed (1";
    check_order(&said, &[note, removed, "large: failed", "then | there is room", "run 1"]);
    check_order(&said, &["run 1", "large  failed", "then   passed", "shell 2"]);
    assert!(!said.contains("to look around where it failed"), "nothing of it is kept: {said}");
}

#[test]
fn what_a_killed_build_left_gives_way_when_it_has_filled_the_disk() {
    let repository = Repository::new(
        "jobs:\n  small: { run: echo small }\n  large: { needs: [small], run: 'head -c 100000000 /dev/zero > large || sleep 1000' }\n",
    );
    let script = "exec 2>&1; $ropewalk run --output quiet & ran=$!\n\
                  until [ \"$(stat -f -c %f \"$ROPEWALK_DATA\")\" = 0 ] || ! kill -0 $ran; do sleep 0.05; done; kill -9 $ran; wait $ran\n\
                  $ropewalk builds; echo \"builds $?\"; $ropewalk show 1; echo \"show $?\"\n\
                  $ropewalk run --job small; echo \"run $?\"; $ropewalk cache clear; echo \"clear $?\"";
    let Some(said) = on_small_disk(&repository, 16, script) else { return };
    // The first is read while the disk is full.
    check_order(&said, &["killed: ropewalk run --resume 1", "builds 0", "✓  small  passed", "show 0"]);
    let note = "note: no space was left on the disk of `";
    check_order(
        &said,
        &["show 0", note, "the workspaces of build 1 were removed (", "build 2 passed", "run 0", "clear 0"],
    );
}

#[test]
fn a_state_of_the_start_that_finds_no_room_is_not_left() {
    let repository = Repository::new("jobs: { a: { retry: 0, run: echo done } }");
    fs::write(repository.root().join("large"), vec![7; 40 << 20]).expect("a file");
    let script = "exec 2>&1; $ropewalk run; echo \"run $?\"; ls \"$ROPEWALK_DATA\"/*/workspaces/1; $ropewalk builds; echo \"builds $?\"\n\
                  rm large; $ropewalk run; echo \"run $?\"";
    let Some(said) = on_small_disk(&repository, 16, script) else { return };
    check_order(
        &said,
        &[
            "a: failed: jobs are given a copy of `large` (41943040 bytes), which is not as in the commit, and it could not be made",
            "name it in a .gitignore: No space left on device",
            "run 3",
            "builds 0",
            "build 2 passed",
            "run 0",
        ],
    );
    assert!(!said.contains("snapshot"), "{said}");
}
