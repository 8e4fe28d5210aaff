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

#[test]
fn a_shell_in_a_sandbox_types_into_no_terminal() {
    if Command::new("bwrap").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "bubblewrap is needed");
        println!("skipped: no bubblewrap");
        return;
    }
    let repository = Repository::new("jobs: { a: { environment: sandbox, run: 'true' } }");
    repository.check(&["run"], 0);
    // TIOCSTI, TIOCLINUX, TCGETS: two are refused (EPERM), of the third it is told that this is no terminal (ENOTTY).
    let ask = "for my $n (0x5412, 0x541C, 0x5401) { my $b = ' ' x 64; ioctl(STDIN, $n, $b) or print $!+0, ' ' }";
    assert_eq!(repository.check(&["shell", "1", "a", "--", "perl", "-e", ask], 0), "1 1 25 ");
}
