//! What is kept of builds may not be read or written by this user: that is said, and never that there are no builds.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Repository, text};

impl Repository {
    /// What the command says as somebody whom permissions bind, which they do not root; asserts the exit code.
    #[track_caller]
    fn check_bound(&self, data: &Path, arguments: &[&str], code: i32) -> String {
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set=-all", "--inh-caps=-all", env!("CARGO_BIN_EXE_ropewalk")]);
            command
        } else {
            Command::new(env!("CARGO_BIN_EXE_ropewalk"))
        };
        command.args(arguments).current_dir(self.root()).env("ROPEWALK_DATA", data).env("NO_COLOR", "1");
        let output = command.output().expect("ropewalk starts");
        let said = text(&output);
        assert_eq!(output.status.code(), Some(code), "ropewalk {arguments:?} printed:\n{said}");
        said
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

/// Gives all folders and files below one a mode, and the folder itself.
fn set_modes(path: &Path, folder: u32, file: u32) {
    let is_folder = path.is_dir();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if !is_link {
            set_modes(&entry.path(), folder, file);
        }
    }
    fs::set_permissions(path, Permissions::from_mode(if is_folder { folder } else { file })).expect("it has a mode");
}

const READING: [&[&str]; 7] = [
    &["builds"],
    &["show"],
    &["logs"],
    &["explain"],
    &["shell", "last", "a", "--", "true"],
    &["cache", "list"],
    &["cache", "clear"],
];

#[test]
fn builds_that_cannot_be_read_are_not_told_as_none() {
    let repository = Repository::new("jobs: { a: { run: echo one } }");
    repository.check(&["run"], 0);
    let data = repository.data();
    let [kept] = &fs::read_dir(&data).expect("a folder").flatten().map(|entry| entry.path()).collect::<Vec<_>>()[..]
    else {
        panic!("one project is kept")
    };
    for closed in [&data, kept] {
        fs::set_permissions(closed, Permissions::from_mode(0o000)).expect("it has a mode");
        for arguments in READING {
            let said = repository.check_bound(&data, arguments, 3);
            let expected = format!("error: failed to read `{}/", kept.display());
            assert!(said.starts_with(&expected) && said.contains("Permission denied"), "{arguments:?}: {said}");
            assert!(said.ends_with("; ROPEWALK_DATA names another folder for what is kept\n"), "{arguments:?}: {said}");
        }
        fs::set_permissions(closed, Permissions::from_mode(0o700)).expect("it has a mode");
    }
    // A file where the folder is to be.
    let file = repository.root().join("file.txt");
    for arguments in READING {
        let said = repository.check_bound(&file, arguments, 3);
        assert!(said.contains(&format!("`{}/", file.display())) && said.contains("Not a directory"), "{said}");
    }
    assert!(repository.check_bound(&data, &["builds"], 0).contains("passed"));
}

#[test]
fn what_may_not_be_written_is_named_with_where_it_is() {
    let repository = Repository::new("jobs: { a: { run: echo one } }");
    repository.check(&["run"], 0);
    let data = repository.data();
    set_modes(&data, 0o500, 0o400);
    let expected = format!(
        "; what is kept of builds is in `{}`: make it this user's to write, or name another folder in ROPEWALK_DATA\n",
        data.display()
    );
    for arguments in [&["run"][..], &["retry", "last"], &["cache", "clear"]] {
        let said = repository.check_bound(&data, arguments, 3);
        assert!(said.contains("the database may not be opened or written") && said.ends_with(&expected), "{said}");
    }
    assert!(repository.check_bound(&data, &["builds"], 0).contains("passed"), "it is read all the same");
    set_modes(&data, 0o700, 0o600);
}
