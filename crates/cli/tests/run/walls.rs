//! What a sandbox does not see of what is kept here.

use std::process::Command;

use super::{Repository, text};

#[test]
fn a_sandbox_sees_nothing_of_other_projects() {
    if Command::new("bwrap").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "bubblewrap is needed");
        println!("skipped: no bubblewrap");
        return;
    }
    // Not in /tmp, which a sandbox has of its own.
    let kept = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let kept = kept.path().canonicalize().expect("a path");
    std::fs::create_dir_all(kept.join("other-0123456789ab/workspaces/1/1")).expect("a folder");
    std::fs::write(kept.join("other-0123456789ab/workspaces/1/1/secret"), "secret").expect("a file");
    let look = format!("find {} -name 'other*' -o -name '*.sqlite'; cat file.txt", kept.display());
    let repository = Repository::new(&format!(
        "jobs: {{ a: {{ environment: sandbox, run: \"{look}; echo v=1 >> $ROPEWALK_OUTPUT\" }} }}"
    ));
    let check = |arguments: &[&str], expected: &str| {
        let output = repository.command(arguments).env("ROPEWALK_DATA", &kept).output().expect("ropewalk starts");
        let text = text(&output);
        assert!(output.status.success() && text.contains(expected) && !text.contains("other-"), "{text}");
    };
    check(&["run", "--output", "plain"], "a | committed");
    assert!(kept.read_dir().expect("the folder").count() > 1);
    check(&["shell", "1", "a", "--", "sh", "-c", &look], "committed");
    check(&["shell", "1", "a@1", "--", "sh", "-c", &look], "committed");
}
