//! What a sandbox does not see beside a server.

use std::fs;
use std::process::Command;

use crate::installation::Site;

#[test]
fn a_sandbox_beside_a_server_sees_none_of_its_keys() {
    if Command::new("bwrap").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "bubblewrap is needed");
        println!("skipped: no bubblewrap");
        return;
    }
    let site = Site::new("");
    // Not in /tmp, which a sandbox has of its own; and by a link.
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let copied = Command::new("cp").arg("-a").arg(site.path("data/.")).arg(data.path()).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp");
    fs::remove_dir_all(site.path("data")).expect("removed");
    std::os::unix::fs::symlink(data.path(), site.path("data")).expect("a link");
    assert!(data.path().join("root.key").is_file());
    let pipeline =
        format!("jobs:\n  look: {{ environment: sandbox, run: 'ls -A {}; pwd; ls -A' }}\n", data.path().display());
    fs::write(site.root().join(".ropewalk/pipeline.yaml"), pipeline).expect("a file");
    let mut server = site.serve_with(&[]);
    let text = site.submit(&["--output", "plain"], 0);
    let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("look | ")).collect();
    assert!(lines[1].starts_with(data.path().canonicalize().expect("a path").to_str().expect("a path")), "{text}");
    assert_eq!((lines[0], &lines[2..]), ("worker", &[".git", ".ropewalk"][..]), "{text}");
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
}
