//! A worker whose own leftovers fill its disk makes room, and goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::installation::Site;
use crate::process::{Process, Reader};

/// How large the worker's disk is.
const DISK: &str = "size=40m";

/// Makes a program that runs `ropewalk` with a small disk of its own at `folder`; `None` if that is not allowed here.
fn with_small_disk(program: &Path, folder: &Path) -> Option<()> {
    fs::create_dir(folder).expect("a folder");
    let mount = format!("mount -t tmpfs -o {DISK} none {}", folder.display());
    let may = Command::new("unshare").args(["--mount", "sh", "-c", &mount]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this user may not mount a disk");
        return None;
    }
    let ropewalk = env!("CARGO_BIN_EXE_ropewalk");
    let script = format!("#!/bin/sh\nexec unshare --mount sh -c '{mount} && exec {ropewalk} \"$@\"' sh \"$@\"\n");
    fs::write(program, script).expect("a file");
    fs::set_permissions(program, PermissionsExt::from_mode(0o755)).expect("it may run");
    Some(())
}

#[test]
fn a_worker_that_its_own_leftovers_fill_makes_room_and_goes_on() {
    let site = Site::new("jobs:\n  a:\n    run: sh script\n");
    fs::write(site.root().join("script"), "head -c 60000000 /dev/zero > big\n").expect("a file");
    if with_small_disk(&site.path("program"), &site.path("w1")).is_none() {
        return;
    }
    let _server = site.serve();
    let mut worker = site.work_as(&site.path("program"), "w1", &["--min-free", "1MiB"]);
    let first = site.submit_command(&[]).output().expect("ropewalk starts");
    assert!(!first.status.success(), "{first:?}");
    let told = worker.said.until("taking nothing new: the disk of ");
    assert!(told.contains(" and 1.0 MiB are wanted; 3") && told.contains(" of it are workspaces in use"), "{told}");
    worker.said.until("taking jobs again");
    fs::write(site.root().join("script"), "echo there is room\n").expect("a file");
    let (mut second, mut shown) = site.watch(&[]);
    shown.until("a | there is room");
    assert_eq!(second.ended(), Some(0));
}

#[test]
fn the_worker_beside_a_server_has_the_room_that_the_settings_say() {
    let site = Site::new("jobs: {}\n");
    fs::write(site.path("data/settings.toml"), "worker.min_free = \"1000000TiB\"\n").expect("a file");
    let mut command = site.command(&["serve", "--listen", &site.address, "--data"]);
    command.arg(site.path("data")).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut server = Process(command.spawn().expect("ropewalk starts"));
    let told = Reader::new(server.0.stderr.take().expect("a pipe")).until("taking nothing new: the disk of ");
    assert!(told.contains("beside a server the setting `worker.min_free`"), "{told}");
}
