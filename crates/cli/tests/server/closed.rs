//! What projects and jobs leave on a disk is closed to other accounts of the machine.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::installation::Site;

/// The folders in a folder into which another account could look, sorted.
fn open_to_others(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").flatten().filter(|entry| entry.path().is_dir());
    let is_open = |entry: &fs::DirEntry| entry.metadata().expect("it is there").permissions().mode() & 0o077 != 0;
    let mut names: Vec<String> =
        entries.filter(is_open).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_projects_and_jobs_leave_is_closed_to_other_accounts() {
    let site = Site::new("jobs:\n  a: { run: echo made > file }\n");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    site.submit(&[], 0);
    assert_eq!(open_to_others(&site.path("data")), Vec::<String>::new());
    // What is shown there is a job's, which may go on as another user.
    assert_eq!(open_to_others(&site.path("w1")), ["projects"]);
    let logs = site.path("data/logs");
    fs::set_permissions(&logs, Permissions::from_mode(0o755)).expect("it is ours");
    let doctor = site.command(&["doctor", "--data"]).arg(site.path("data")).output().expect("ropewalk starts");
    let told = format!("others than its owner may look into {} (mode 755)", logs.display());
    assert!(String::from_utf8_lossy(&doctor.stdout).contains(&told), "{doctor:?}");
}

#[test]
fn what_a_laptop_keeps_is_closed_to_other_accounts() {
    let site = Site::new("jobs:\n  a: { run: echo made > file }\n");
    let mut run = site.command(&["run"]);
    let ran = run.current_dir(site.root()).env("ROPEWALK_DATA", site.path("kept")).output().expect("ropewalk starts");
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(fs::read_dir(site.path("kept")).expect("it is there").count(), 1);
    assert_eq!(open_to_others(&site.path("kept")), Vec::<String>::new());
}
