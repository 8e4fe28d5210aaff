//! A job sees the state of the build's start, at the user's own path, and what it does stays apart.

use std::path::{Path, PathBuf};

use ropewalk_worker::keeper::Processes;
use ropewalk_worker::workspace::{Files, Look, Moment, OpenWorkspace, Snapshot, Workspace};

use crate::Case;
use crate::ground::{Repository, SharingGround, git_in, is_missing, run, script, with_keeper};

pub const CASES: &[Case] = &[
    (
        "workspace::a_job_sees_what_git_tracks_and_what_is_not_ignored",
        a_job_sees_what_git_tracks_and_what_is_not_ignored,
    ),
    ("workspace::what_a_job_writes_stays_apart", what_a_job_writes_stays_apart),
    ("workspace::edits_during_a_build_are_not_seen_by_later_jobs", edits_during_a_build_are_not_seen_by_later_jobs),
    (
        "workspace::what_differed_already_is_compared_where_nobody_watched",
        what_differed_already_is_compared_where_nobody_watched,
    ),
    (
        "workspace::what_changed_after_git_had_looked_is_of_the_start_too",
        what_changed_after_git_had_looked_is_of_the_start_too,
    ),
    ("workspace::a_tree_too_large_to_watch_is_asked_of_git", a_tree_too_large_to_watch_is_asked_of_git),
    ("workspace::a_tree_that_is_watched_no_longer_is_asked_of_git", a_tree_that_is_watched_no_longer_is_asked_of_git),
    ("workspace::a_copy_shows_the_same", a_copy_shows_the_same),
    ("workspace::a_copy_shares_bytes_where_the_file_system_can", a_copy_shares_bytes_where_the_file_system_can),
    ("workspace::a_refused_overlay_is_a_copy_and_says_so", a_refused_overlay_is_a_copy_and_says_so),
    ("workspace::inputs_are_all_that_is_seen", inputs_are_all_that_is_seen),
    ("workspace::an_ended_job_is_opened_again", an_ended_job_is_opened_again),
    ("workspace::submodules_and_linked_worktrees_are_whole", submodules_and_linked_worktrees_are_whole),
    ("workspace::git_stands_as_at_the_start", git_stands_as_at_the_start),
    ("workspace::of_many_references_all_are_of_the_start", of_many_references_all_are_of_the_start),
    ("workspace::git_in_a_folder_elsewhere_stands_as_at_the_start", git_in_a_folder_elsewhere_stands_as_at_the_start),
    ("workspace::references_in_tables_are_of_the_start", references_in_tables_are_of_the_start),
    (
        "workspace::a_file_in_a_directory_that_may_not_be_written_is_seen",
        a_file_in_a_directory_that_may_not_be_written_is_seen,
    ),
    ("workspace::a_plain_directory_hides_what_it_ignores", a_plain_directory_hides_what_it_ignores),
    ("workspace::a_repository_without_commits_is_seen", a_repository_without_commits_is_seen),
    ("workspace::layers_inside_the_repository_are_refused", layers_inside_the_repository_are_refused),
    ("workspace::odd_names_are_seen", odd_names_are_seen),
    ("workspace::a_project_in_a_folder_is_frozen_too", a_project_in_a_folder_is_frozen_too),
    ("workspace::a_copy_of_a_project_in_a_folder_is_whole", a_copy_of_a_project_in_a_folder_is_whole),
    ("workspace::inputs_of_a_project_in_a_folder", inputs_of_a_project_in_a_folder),
    ("workspace::no_link_stands_in_for_the_projects_folder", no_link_stands_in_for_the_projects_folder),
    ("workspace::an_ignored_folder_is_a_project_of_its_own", an_ignored_folder_is_a_project_of_its_own),
    ("workspace::a_home_kept_in_git_does_not_swallow_its_projects", a_home_kept_in_git_does_not_swallow_its_projects),
];

/// A repository with a project in `deep/app`, changed since its commit.
fn repository_with_a_folder() -> Repository {
    let repository = Repository::with(&[
        (".gitignore", "*.o\n"),
        ("shared/lib", "shared"),
        ("deep/app/.gitignore", "out/\n"),
        ("deep/app/clean", "clean"),
        ("deep/app/edited", "old"),
    ]);
    repository.write("deep/app/edited", "new");
    repository.write("deep/app/untracked", "untracked");
    repository.write("deep/app/x.o", "ignored above");
    repository.write("deep/app/out/x", "ignored here");
    repository.write("shared/new", "untracked");
    repository
}

const FOLDER: &str = "./.gitignore=out/ ./clean=clean ./edited=new ./untracked=untracked ";

/// The whole repository, as seen from the project's folder.
const WHOLE: &str = "cd ../..; find . -name .git -prune -o ! -type d -print | LC_ALL=C sort | tr '\\n' ' '";

const WHOLE_SEEN: &str = "./.gitignore ./deep/app/.gitignore ./deep/app/clean ./deep/app/edited ./deep/app/untracked \
     ./shared/lib ./shared/new ";

fn disturb_the_folder(repository: &Repository) {
    repository.write("deep/app/clean", "disturbed");
    repository.write("deep/app/edited", "disturbed");
    repository.write("deep/app/fresh", "disturbed");
    repository.write("shared/lib", "disturbed");
    repository.remove("shared/new");
}

fn folder_snapshot(repository: &Repository) -> Snapshot {
    Snapshot::take(&repository.root.join("deep/app"), &repository.data).expect("a snapshot")
}

fn a_project_in_a_folder_is_frozen_too() {
    check(|processes| async move {
        let repository = repository_with_a_folder();
        let snapshot = folder_snapshot(&repository);
        assert_eq!((snapshot.repository(), snapshot.prefix()), (&*repository.root, Path::new("deep/app")));
        assert_eq!(snapshot.note(), None);
        disturb_the_folder(&repository);
        assert_eq!(job(&processes, &snapshot, "1", LISTING).await, FOLDER);
        assert_eq!(job(&processes, &snapshot, "2", WHOLE).await, WHOLE_SEEN);
        let seen = job(&processes, &snapshot, "3", "pwd; cat ../../shared/lib; git rev-parse --show-prefix").await;
        assert_eq!(seen, format!("{}/deep/app\nshareddeep/app/\n", repository.root.display()));
        let expected =
            ["deep/app/clean", "deep/app/edited", "deep/app/fresh", "shared/lib", "shared/new"].map(PathBuf::from);
        assert_eq!(snapshot.changed_since_start().expect("git"), expected);
        // Opened again, later, for a person.
        let workspace = Workspace::reopen(&repository.data.join("1")).expect("kept");
        let shell = workspace
            .command("sh", workspace.view().into_iter().collect())
            .args(["-c", "cat clean ../../shared/lib"])
            .output()
            .expect("a shell");
        assert_eq!(String::from_utf8_lossy(&shell.stdout), "cleanshared");
    });
}

fn a_copy_of_a_project_in_a_folder_is_whole() {
    check(|processes| async move {
        let repository = repository_with_a_folder();
        let snapshot = folder_snapshot(&repository);
        disturb_the_folder(&repository);
        let mut workspace =
            Workspace::create(&snapshot, &repository.data.join("1"), Files::All, &graph::Environment::Host)
                .expect("a workspace");
        let open = workspace.open_as_copy(&snapshot).expect("a copy");
        assert_eq!(open.root, workspace.directory().join("copy/deep/app"));
        assert_eq!(sh_in(&processes, &open, LISTING).await, FOLDER);
        assert_eq!(sh_in(&processes, &open, WHOLE).await, WHOLE_SEEN);
        assert_eq!(std::fs::read_to_string(open.files.join("edited")).expect("seen from here"), "new");
    });
}

fn inputs_of_a_project_in_a_folder() {
    check(|processes| async move {
        let repository = repository_with_a_folder();
        let snapshot = folder_snapshot(&repository);
        for (name, inputs, expected) in [("1", vec!["deep/app/clean"], "./deep/app/clean "), ("2", vec![], "")] {
            let only = Files::Only(inputs.into_iter().map(PathBuf::from).collect());
            let mut workspace =
                Workspace::create(&snapshot, &repository.data.join(name), only, &graph::Environment::Host)
                    .expect("a workspace");
            let open = open(&processes, &mut workspace, &snapshot).await;
            assert_eq!(open.root, repository.root.join("deep/app"));
            assert_eq!(sh_in(&processes, &open, WHOLE).await, expected);
        }
    });
}

/// What is collected after the steps must not be found through a link that a step has put there.
fn no_link_stands_in_for_the_projects_folder() {
    check(|processes| async move {
        let repository = repository_with_a_folder();
        let snapshot = folder_snapshot(&repository);
        let mut overlay =
            Workspace::create(&snapshot, &repository.data.join("1"), Files::All, &graph::Environment::Host)
                .expect("a workspace");
        let mut copy = Workspace::create(&snapshot, &repository.data.join("2"), Files::All, &graph::Environment::Host)
            .expect("a workspace");
        for open in [open(&processes, &mut overlay, &snapshot).await, copy.open_as_copy(&snapshot).expect("a copy")] {
            sh_in(&processes, &open, "echo own > own; cd ..; mv app moved; ln -s / app").await;
            assert!(open.files.join("own").exists(), "the folder that was opened");
            assert!(!open.files.join("etc").exists(), "not the machine");
        }
    });
}

fn an_ignored_folder_is_a_project_of_its_own() {
    check(|processes| async move {
        let repository = Repository::with(&[(".gitignore", "vendor/\n"), ("outer", "outer")]);
        repository.write("vendor/app/file", "file");
        let project = repository.root.join("vendor/app");
        let snapshot = Snapshot::take(&project, &repository.data).expect("a snapshot");
        assert!(snapshot.note().is_some());
        assert_eq!(snapshot.repository(), project);
        assert_eq!(job(&processes, &snapshot, "1", LISTING).await, "./file=file ");
    });
}

fn a_home_kept_in_git_does_not_swallow_its_projects() {
    check(|processes| async move {
        let repository = Repository::with(&[("dotfile", "dotfile"), ("projects/app/file", "file")]);
        let project = repository.root.join("projects/app");
        let snapshot = Snapshot::take(&project, &repository.root.join("share/data")).expect("a snapshot");
        assert!(snapshot.note().is_some());
        assert_eq!(job(&processes, &snapshot, "1", LISTING).await, "./file=file ");
    });
}

/// Every file and link but `.git`, with its first line.
const LISTING: &str = "find . -name .git -prune -o ! -type d -print | LC_ALL=C sort | \
     while read -r file; do printf '%s=%s ' \"$file\" \"$(head -n 1 \"$file\")\"; done";

fn dirty_repository() -> Repository {
    let repository = Repository::with(&[
        (".gitignore", "*.o\nbuild/\n"),
        ("clean", "clean"),
        ("edited", "old"),
        ("deleted", "deleted"),
        ("lib/a", "a"),
        ("lib/deep/b", "b"),
    ]);
    repository.write("edited", "new");
    repository.remove("deleted");
    repository.write("untracked", "untracked");
    repository.write("lib/new/c", "c");
    repository.write("lib/a.o", "ignored");
    repository.write("build/out", "ignored");
    repository
}

const DIRTY: &str =
    "./.gitignore=*.o ./clean=clean ./edited=new ./lib/a=a ./lib/deep/b=b ./lib/new/c=c ./untracked=untracked ";

async fn open(processes: &Processes, workspace: &mut Workspace, snapshot: &Snapshot) -> OpenWorkspace {
    let open = workspace.open(processes, snapshot).await.expect("a workspace");
    assert_eq!(open.note, None, "this machine can mount overlays");
    open
}

/// Runs a script at an open workspace's root.
async fn sh_in(processes: &Processes, open: &OpenWorkspace, text: &str) -> String {
    let mut command = script(text);
    command.view = open.view;
    command.directory.clone_from(&open.root);
    let ran = run(processes, command).await.expect("a shell");
    assert_eq!((ran.end.ending.code(), ran.err.as_str()), (0, ""), "{text}");
    ran.out
}

/// Runs a script in a new job of a build.
async fn job(processes: &Processes, snapshot: &Snapshot, name: &str, text: &str) -> String {
    let directory = snapshot.directory().join(name);
    let mut workspace =
        Workspace::create(snapshot, &directory, Files::All, &graph::Environment::Host).expect("a workspace");
    let open = open(processes, &mut workspace, snapshot).await;
    let out = sh_in(processes, &open, text).await;
    open.close(processes).await.expect("the keeper");
    out
}

fn snapshot(repository: &Repository) -> Snapshot {
    Snapshot::take(&repository.root, &repository.data).expect("a snapshot")
}

/// Runs a test that needs git and a keeper.
fn check<F: Future<Output = ()>>(test: impl FnOnce(Processes) -> F) {
    if !is_missing("git") {
        with_keeper(test);
    }
}

fn a_job_sees_what_git_tracks_and_what_is_not_ignored() {
    check(|processes| async move {
        let repository = dirty_repository();
        let snapshot = snapshot(&repository);
        assert_eq!(job(&processes, &snapshot, "1", LISTING).await, DIRTY);
        let root = format!("{}\n", repository.root.display());
        assert_eq!(job(&processes, &snapshot, "2", "pwd").await, root);
        let status = job(&processes, &snapshot, "3", "git status --short --untracked-files=all | LC_ALL=C sort").await;
        assert_eq!(status, " D deleted\n M edited\n?? lib/new/c\n?? untracked\n");
    });
}

fn what_a_job_writes_stays_apart() {
    check(|processes| async move {
        let repository = dirty_repository();
        let snapshot = snapshot(&repository);
        let mut workspace =
            Workspace::create(&snapshot, &repository.data.join("1"), Files::All, &graph::Environment::Host)
                .expect("a workspace");
        let open = open(&processes, &mut workspace, &snapshot).await;
        sh_in(&processes, &open, "echo changed > clean; rm lib/a; mkdir build; echo made > build/out").await;
        sh_in(&processes, &open, "git -c user.name=t -c user.email=t@t commit -qam inside").await;
        // The next step of the job sees it, so does this process, and nobody else.
        assert_eq!(sh_in(&processes, &open, "cat clean build/out; ls lib").await, "changed\nmade\ndeep\nnew\n");
        assert_eq!(std::fs::read_to_string(open.files.join("build/out")).expect("seen from here"), "made\n");
        std::fs::write(open.files.join("handed"), "in").expect("written from here");
        assert_eq!(sh_in(&processes, &open, "cat handed").await, "in");
        assert_eq!(job(&processes, &snapshot, "2", LISTING).await, DIRTY);
        assert_eq!(repository.read("clean").as_deref(), Some("clean"));
        assert_eq!(repository.read("build/out").as_deref(), Some("ignored"));
        assert!(repository.read("lib/a").is_some() && repository.read("handed").is_none());
        let log = std::process::Command::new("git").args(["log", "--oneline"]).current_dir(&repository.root).output();
        assert_eq!(log.expect("git").stdout.split(|byte| *byte == b'\n').count(), 2, "one commit and the end");
        open.close(&processes).await.expect("the keeper");
        workspace.remove().expect("removed");
        assert!(!repository.data.join("1").exists());
    });
}

/// What a user may do to the tree while jobs run.
fn disturb(repository: &Repository) {
    repository.write("clean", "disturbed");
    repository.write("edited", "disturbed");
    repository.write("untracked", "disturbed");
    repository.write("deleted", "disturbed");
    repository.write("fresh", "disturbed");
    repository.write("fresh-directory/file", "disturbed");
    repository.write("lib/new/fresh", "disturbed");
    repository.remove("lib/deep");
    repository.write("other.o", "disturbed");
    repository.git(&["mv", "lib/a", "lib/moved"]);
}

fn edits_during_a_build_are_not_seen_by_later_jobs() {
    check(|processes| async move {
        let repository = dirty_repository();
        let snapshot = snapshot(&repository);
        assert_eq!(job(&processes, &snapshot, "1", LISTING).await, DIRTY);
        assert!(snapshot.changed_since_start().expect("git").is_empty());
        disturb(&repository);
        assert_eq!(job(&processes, &snapshot, "2", LISTING).await, DIRTY);
        let changed = snapshot.changed_since_start().expect("git");
        // Also what differed from the commit already: a digest of the live tree is of no job's files.
        for path in ["clean", "edited", "untracked", "deleted"] {
            assert!(changed.contains(&PathBuf::from(path)), "{path} in {changed:?}");
        }
        // Directories that go and come again, and commits.
        repository.remove("lib");
        assert_eq!(job(&processes, &snapshot, "3", LISTING).await, DIRTY);
        repository.write("lib/other", "disturbed");
        repository.write("lib/deep/other", "disturbed");
        assert_eq!(job(&processes, &snapshot, "4", LISTING).await, DIRTY);
        repository.commit();
        assert_eq!(job(&processes, &snapshot, "5", LISTING).await, DIRTY);
    });
}

fn what_differed_already_is_compared_where_nobody_watched() {
    check(|_| async {
        let repository = dirty_repository();
        snapshot(&repository);
        let changed = || {
            let reopened = Snapshot::reopen(&repository.data).expect("a snapshot");
            reopened
                .changed_since_start()
                .expect("git")
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
        };
        repository.write("lib/a.o", "ignored then and now");
        assert_eq!(changed(), [""; 0]);
        repository.write("edited", "newer");
        assert_eq!(changed(), ["edited"]);
        repository.write("deleted", "deleted");
        repository.remove("untracked");
        repository.write("lib/new/c", "c");
        assert_eq!(changed(), ["deleted", "edited", "untracked"]);
    });
}

fn what_changed_after_git_had_looked_is_of_the_start_too() {
    check(|processes| async move {
        let repository = dirty_repository();
        let seen = Look::begin(&repository.root).end().expect("git looks");
        repository.write("clean", "later");
        repository.remove("lib/deep");
        let snapshot =
            Snapshot::take_seen(&repository.root, &repository.data, Some(&seen), Moment::now()).expect("a snapshot");
        let later = DIRTY.replace("clean=clean", "clean=later").replace("./lib/deep/b=b ", "");
        assert_eq!(job(&processes, &snapshot, "1", LISTING).await, later);
        disturb(&repository);
        assert_eq!(job(&processes, &snapshot, "2", LISTING).await, later);
    });
}

fn a_tree_too_large_to_watch_is_asked_of_git() {
    check(|processes| async move {
        let repository = dirty_repository();
        snapshot(&repository);
        // A snapshot that is opened again has no watch.
        let reopened = Snapshot::reopen(&repository.data).expect("a snapshot");
        disturb(&repository);
        assert_eq!(job(&processes, &reopened, "1", &format!("rmdir fresh-directory; {LISTING}")).await, DIRTY);
        repository.commit();
        assert_eq!(job(&processes, &reopened, "2", &format!("rmdir fresh-directory; {LISTING}")).await, DIRTY);
    });
}

fn a_tree_that_is_watched_no_longer_is_asked_of_git() {
    check(|processes| async move {
        let repository = dirty_repository();
        let snapshot = snapshot(&repository);
        repository.write("clean", "disturbed");
        // What the kernel had noted is not lost.
        snapshot.rest();
        assert_eq!(job(&processes, &snapshot, "1", LISTING).await, DIRTY);
        disturb(&repository);
        assert_eq!(job(&processes, &snapshot, "2", &format!("rmdir fresh-directory; {LISTING}")).await, DIRTY);
    });
}

fn a_copy_shows_the_same() {
    check(|processes| async move {
        let repository = dirty_repository();
        let snapshot = snapshot(&repository);
        disturb(&repository);
        let mut workspace =
            Workspace::create(&snapshot, &repository.data.join("1"), Files::All, &graph::Environment::Host)
                .expect("a workspace");
        let open = workspace.open_as_copy(&snapshot).expect("a copy");
        assert_eq!(sh_in(&processes, &open, LISTING).await, DIRTY);
        sh_in(&processes, &open, "echo changed > untracked; git log --oneline > /dev/null").await;
        assert_eq!(repository.read("untracked").as_deref(), Some("disturbed"));
        let mut reopened = Workspace::reopen(&repository.data.join("1")).expect("kept");
        let open = reopened.open(&processes, &snapshot).await.expect("a copy");
        assert_eq!(sh_in(&processes, &open, "cat untracked").await, "changed\n");
    });
}

fn a_copy_shares_bytes_where_the_file_system_can() {
    if is_missing("git") {
        return;
    }
    let Some(ground) = SharingGround::mount() else { return };
    with_keeper(|processes| async move {
        // Longer than what btrfs keeps among its own records, which it does not share.
        let large = "0123456789abcdef".repeat(64 << 10);
        let repository = Repository::within(&ground.place, &[("tracked", large.as_str())]);
        repository.write("untracked", &large);
        let snapshot = snapshot(&repository);
        let mut workspace =
            Workspace::create(&snapshot, &repository.data.join("1"), Files::All, &graph::Environment::Host)
                .expect("a workspace");
        let open = workspace.open_as_copy(&snapshot).expect("a copy");
        for name in ["tracked", "untracked"] {
            assert!(SharingGround::is_shared(&open.root.join(name)), "{name}");
        }
        sh_in(&processes, &open, "test \"$(wc -c < tracked)\" = 1048576; echo x >> tracked; : > untracked").await;
        assert_eq!(repository.read("tracked").as_deref(), Some(large.as_str()));
        assert_eq!(repository.read("untracked").as_deref(), Some(large.as_str()));
        // What was rewritten is the copy's own.
        assert!(!SharingGround::is_shared(&open.root.join("tracked")));
    });
}

fn a_refused_overlay_is_a_copy_and_says_so() {
    check(|processes| async move {
        let repository = dirty_repository();
        let snapshot = snapshot(&repository);
        let mut workspace =
            Workspace::create(&snapshot, &repository.data.join("1"), Files::All, &graph::Environment::Host)
                .expect("a workspace");
        // A file where the kernel needs a directory.
        std::fs::remove_dir(repository.data.join("1/work")).expect("removed");
        std::fs::write(repository.data.join("1/work"), "").expect("written");
        let open = workspace.open(&processes, &snapshot).await.expect("a copy");
        let note = open.note.clone().expect("a note");
        assert!(note.contains("the workspace is a copy at another path") && note.contains("Not a directory"), "{note}");
        assert_eq!((open.view, open.root.clone()), (None, workspace.directory().join("copy")));
        assert_eq!(sh_in(&processes, &open, LISTING).await, DIRTY);
    });
}

fn inputs_are_all_that_is_seen() {
    check(|processes| async move {
        let repository = dirty_repository();
        let snapshot = snapshot(&repository);
        repository.write("edited", "disturbed");
        repository.write("clean", "disturbed");
        let inputs = ["edited", "clean", "lib/deep/b", "lib/a.o", "build/out", "deleted", "none"].map(PathBuf::from);
        let directory = repository.data.join("1");
        let mut workspace =
            Workspace::create(&snapshot, &directory, Files::Only(inputs.to_vec()), &graph::Environment::Host)
                .expect("a workspace");
        let open = open(&processes, &mut workspace, &snapshot).await;
        let expected = "./clean=clean ./edited=new ./lib/deep/b=b ";
        assert_eq!(sh_in(&processes, &open, LISTING).await, expected);
        assert_eq!(sh_in(&processes, &open, "ls -A; echo x >> edited").await, "clean\nedited\nlib\n");
        assert_eq!(repository.read("edited").as_deref(), Some("disturbed"));
    });
}

fn an_ended_job_is_opened_again() {
    check(|processes| async move {
        let repository = dirty_repository();
        let snapshot = snapshot(&repository);
        let work = "echo made > lib/made; rm clean; mkdir -p locked/in; echo x > locked/in/x; chmod 500 locked";
        job(&processes, &snapshot, "1", work).await;
        drop(snapshot);
        disturb(&repository);
        let expected = "./.gitignore=*.o ./edited=new ./lib/a=a ./lib/deep/b=b ./lib/made=made ./lib/new/c=c \
                        ./locked/in/x=x ./untracked=untracked ";
        let snapshot = Snapshot::reopen(&repository.data).expect("kept");
        let mut workspace = Workspace::reopen(&repository.data.join("1")).expect("kept");
        let open = open(&processes, &mut workspace, &snapshot).await;
        assert_eq!(sh_in(&processes, &open, &format!("rmdir fresh-directory; {LISTING}")).await, expected);
        open.close(&processes).await.expect("the keeper");
        let workspace = Workspace::reopen(&repository.data.join("1")).expect("kept");
        let shell = workspace
            .command("sh", workspace.view().into_iter().collect())
            .args(["-c", "pwd; cat lib/made"])
            .output()
            .expect("a shell without the keeper");
        let expected = format!("{}\nmade\n", repository.root.display());
        assert_eq!((String::from_utf8_lossy(&shell.stdout), shell.stderr), (expected.into(), Vec::new()));
        workspace.remove().expect("removed, whatever the modes");
    });
}

fn submodules_and_linked_worktrees_are_whole() {
    check(|processes| async move {
        let inner = Repository::with(&[("inner", "inner"), ("edited", "old"), (".gitignore", "*.o\n")]);
        let repository = Repository::with(&[("outer", "outer")]);
        let address = inner.root.to_string_lossy().into_owned();
        repository.git(&["submodule", "--quiet", "add", &address, "modules/inner"]);
        repository.commit();
        repository.write("modules/inner/edited", "new");
        repository.write("modules/inner/untracked", "untracked");
        repository.write("modules/inner/x.o", "ignored");
        let with_module = snapshot(&repository);
        repository.write("modules/inner/inner", "disturbed");
        repository.write("modules/inner/fresh", "disturbed");
        let expected = "./.gitmodules=[submodule \"modules/inner\"] ./modules/inner/.gitignore=*.o \
             ./modules/inner/edited=new ./modules/inner/inner=inner ./modules/inner/untracked=untracked ./outer=outer ";
        assert_eq!(job(&processes, &with_module, "1", LISTING).await, expected);

        let linked = repository.data.with_file_name("linked");
        repository.git(&["worktree", "add", "--quiet", "--detach", &linked.to_string_lossy()]);
        std::fs::write(linked.join("untracked"), "untracked").expect("written");
        let data = repository.data.with_file_name("linked-data");
        let of_linked = Snapshot::take(&linked, &data).expect("a snapshot");
        let listed = job(&processes, &of_linked, "1", &format!("git status --short; {LISTING}")).await;
        assert_eq!(
            listed,
            "?? untracked\n./.gitmodules=[submodule \"modules/inner\"] ./outer=outer ./untracked=untracked "
        );
    });
}

/// How git stands, and that it takes no notice of somebody else's lock.
const GIT: &str = "git rev-parse HEAD; git symbolic-ref HEAD; git describe --tags; git for-each-ref; git status --branch --short; \
     echo made > made; git add -A; git -c user.name=t -c user.email=t@t commit -qm made; git status --branch --short; git describe --tags --abbrev=0";

/// Goes on working in a checkout: every way in which references and index change.
fn work_on(root: &Path) {
    let git = |arguments: &[&str]| git_in(root, &[&["-c", "user.name=t", "-c", "user.email=t@t"], arguments].concat());
    std::fs::write(root.join("clean"), "later").expect("written");
    git(&["commit", "-qam", "later"]);
    git(&["tag", "v2"]);
    git(&["tag", "-f", "v1"]);
    git(&["branch", "-D", "side"]);
    git(&["checkout", "-q", "-b", "fresh"]);
    git(&["pack-refs", "--all"]);
    git(&["tag", "v3"]);
    std::fs::write(root.join("staged"), "staged").expect("written");
    git(&["add", "staged"]);
    let lock =
        std::process::Command::new("git").args(["rev-parse", "--git-path", "index.lock"]).current_dir(root).output();
    let lock = String::from_utf8(lock.expect("git").stdout).expect("a path");
    std::fs::write(root.join(lock.trim()), "").expect("written");
}

/// With a tag, another branch, and something staged.
fn prepare_references(repository: &Repository) {
    repository.git(&["tag", "v1"]);
    repository.git(&["branch", "side"]);
    repository.write("begun", "begun");
    repository.git(&["add", "begun"]);
}

/// Jobs see git as before, whatever is done in the checkout; also those of another process, and a person.
async fn check_git_stands(processes: &Processes, root: &Path, data: &Path) -> (Snapshot, String) {
    let snapshot = Snapshot::take(root, data).expect("a snapshot");
    let before = job(processes, &snapshot, "1", GIT).await;
    assert!(before.contains("\nv1\n") && before.contains("A  begun\n"), "{before}");
    let made = |text: &str| text.lines().last().map(str::to_owned);
    assert_eq!(made(&before).as_deref(), Some("v1"));
    work_on(root);
    assert_eq!(job(processes, &snapshot, "2", GIT).await, before);
    let reopened = Snapshot::reopen(data).expect("a snapshot");
    assert_eq!(job(processes, &reopened, "3", GIT).await, before);
    let workspace = Workspace::reopen(&data.join("3")).expect("kept");
    let mut shell = workspace.command("git", workspace.view().into_iter().collect());
    let told = shell.args(["tag"]).output().expect("a shell");
    assert_eq!(
        String::from_utf8_lossy(&told.stdout).lines().filter(|tag| tag.starts_with('v')).collect::<Vec<_>>(),
        ["v1"]
    );
    (snapshot, before)
}

fn git_stands_as_at_the_start() {
    check(|processes| async move {
        let repository = dirty_repository();
        prepare_references(&repository);
        let (snapshot, before) = check_git_stands(&processes, &repository.root, &repository.data).await;
        assert_eq!(snapshot.checkout(), graph::Checkout::Changed);
        let mut workspace =
            Workspace::create(&snapshot, &repository.data.join("copy"), Files::All, &graph::Environment::Host)
                .expect("a workspace");
        let open = workspace.open_as_copy(&snapshot).expect("a copy");
        assert_eq!(sh_in(&processes, &open, GIT).await, before);
        assert!(repository.root.join(".git/index.lock").exists(), "the person's own");
        let clean = Repository::with(&[("clean", "clean")]);
        assert_eq!(
            Snapshot::take(&clean.root, &clean.data).expect("a snapshot").checkout(),
            graph::Checkout::AsCommitted
        );
    });
}

fn of_many_references_all_are_of_the_start() {
    check(|processes| async move {
        let repository = dirty_repository();
        repository.git(&["branch", "packed"]);
        repository.git(&[
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "tag",
            "-a",
            "-m",
            "signed",
            "annotated",
            "HEAD^{tree}",
        ]);
        repository.git(&["pack-refs", "--all"]);
        for number in 0..60 {
            repository.git(&["update-ref", &format!("refs/many/{}/{number}", number % 7), "HEAD"]);
        }
        repository.git(&["symbolic-ref", "refs/remotes/origin/HEAD", "refs/many/0/0"]);
        prepare_references(&repository);
        let (snapshot, before) = check_git_stands(&processes, &repository.root, &repository.data).await;
        assert_eq!(before.lines().filter(|line| line.contains("refs/many/")).count(), 60);
        assert!(before.contains("refs/heads/packed") && before.contains("refs/remotes/origin/HEAD"), "{before}");
        assert!(snapshot.directory().join("git/.git/packed-refs").is_file());
        assert!(!snapshot.directory().join("git/.git/refs/many").exists(), "they are lines of one file");
    });
}

fn git_in_a_folder_elsewhere_stands_as_at_the_start() {
    check(|processes| async move {
        let repository = dirty_repository();
        prepare_references(&repository);
        let linked = repository.data.with_file_name("linked");
        repository.git(&["worktree", "add", "--quiet", "-b", "linked", &linked.to_string_lossy()]);
        for file in ["untracked", "begun"] {
            std::fs::write(linked.join(file), file).expect("written");
        }
        git_in(&linked, &["add", "begun"]);
        check_git_stands(&processes, &linked, &repository.data.with_file_name("linked-data")).await;

        let outer = Repository::with(&[("outer", "outer")]);
        let inner = Repository::with(&[("clean", "clean")]);
        outer.git(&["submodule", "--quiet", "add", &inner.root.to_string_lossy(), "inner"]);
        outer.commit();
        let root = outer.root.join("inner");
        git_in(&root, &["tag", "v1"]);
        git_in(&root, &["branch", "side"]);
        let snapshot = snapshot(&outer);
        let text = "git -C inner tag; git -C inner rev-parse HEAD; git -C inner status --short; cd inner; git add -A; git status --short";
        let before = job(&processes, &snapshot, "1", text).await;
        work_on(&root);
        assert_eq!(job(&processes, &snapshot, "2", text).await, before);
    });
}

fn references_in_tables_are_of_the_start() {
    check(|processes| async move {
        let repository = Repository::with(&[("clean", "clean")]);
        repository.remove(".git");
        let tables = std::process::Command::new("git")
            .args(["init", "-q", "-b", "main", "--ref-format=reftable"])
            .current_dir(&repository.root)
            .output()
            .expect("git");
        // A git before 2.45 has none.
        if tables.status.success() {
            repository.commit();
            prepare_references(&repository);
            check_git_stands(&processes, &repository.root, &repository.data).await;
        }
    });
}

fn a_file_in_a_directory_that_may_not_be_written_is_seen() {
    use std::os::unix::fs::PermissionsExt;
    check(|processes| async move {
        let repository =
            Repository::with(&[(".gitignore", "*.o\n"), ("shut/deep/tracked", "old"), ("shut/later", "old")]);
        repository.write("shut/deep/tracked", "new");
        repository.write("shut/deep/untracked", "untracked");
        repository.write("shut/x.o", "ignored");
        let mode = |path: &str, mode: u32| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(repository.root.join(path), permissions).expect("it is ours");
        };
        let paths = ["shut/deep", "shut", "."];
        for path in paths {
            mode(path, 0o555);
        }
        let snapshot = as_an_ordinary_user(|| snapshot(&repository));
        for path in paths {
            mode(path, 0o755);
        }
        repository.write("shut/later", "new");
        for path in paths {
            mode(path, 0o555);
        }
        as_an_ordinary_user(|| snapshot.layers().map(drop)).expect("what has changed is put right");
        let text =
            "find . -name .git -prune -o ! -type d -print | LC_ALL=C sort | xargs cat; stat -c %a . shut shut/deep";
        let expected = "*.o\nnewuntrackedold555\n555\n555\n";
        assert_eq!(job(&processes, &snapshot, "1", text).await, expected);
        let mut copy = Workspace::create(&snapshot, &repository.data.join("2"), Files::All, &graph::Environment::Host)
            .expect("a workspace");
        let copied = as_an_ordinary_user(|| copy.open_as_copy(&snapshot)).expect("a copy");
        assert_eq!(sh_in(&processes, &copied, text).await, expected);
        let inputs = Files::Only(vec!["shut/deep/tracked".into(), "shut/later".into()]);
        let directory = repository.data.join("3");
        let only = || Workspace::create(&snapshot, &directory, inputs, &graph::Environment::Host);
        let mut workspace = as_an_ordinary_user(only).expect("a workspace");
        let open = open(&processes, &mut workspace, &snapshot).await;
        assert_eq!(sh_in(&processes, &open, text).await, "newold555\n555\n555\n");
    });
}

/// Does something without what lets root write everywhere.
fn as_an_ordinary_user<T>(work: impl FnOnce() -> T) -> T {
    use rustix::thread::CapabilitySet;
    let all = rustix::thread::capabilities(None).expect("they are told");
    let mut less = all;
    less.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
    rustix::thread::set_capabilities(None, less).expect("less is always allowed");
    let done = work();
    rustix::thread::set_capabilities(None, all).expect("they are permitted");
    done
}

fn a_plain_directory_hides_what_it_ignores() {
    check(|processes| async move {
        let repository =
            Repository::with(&[(".gitignore", "*.o\nbuild/\n"), ("a", "a"), (".hidden", "h"), ("d/b", "b")]);
        repository.remove(".git");
        repository.write("d/x.o", "ignored");
        repository.write("build/deep/out", "ignored");
        let snapshot = snapshot(&repository);
        assert!(snapshot.note().is_some_and(|note| note.contains("in no git repository")));
        let expected = "./.gitignore=*.o ./.hidden=h ./a=a ./d/b=b ";
        assert_eq!(job(&processes, &snapshot, "1", LISTING).await, expected);
        let mut workspace =
            Workspace::create(&snapshot, &repository.data.join("2"), Files::All, &graph::Environment::Host)
                .expect("a workspace");
        let open = workspace.open_as_copy(&snapshot).expect("a copy");
        assert_eq!(sh_in(&processes, &open, LISTING).await, expected);
    });
}

fn a_repository_without_commits_is_seen() {
    check(|processes| async move {
        let repository = Repository::with(&[]);
        repository.remove(".git");
        repository.git(&["init", "-q"]);
        repository.write("first", "first");
        repository.write("staged", "staged");
        repository.git(&["add", "staged"]);
        let snapshot = snapshot(&repository);
        repository.write("first", "disturbed");
        repository.write("later", "disturbed");
        assert_eq!(snapshot.commit(), None);
        assert_eq!(job(&processes, &snapshot, "1", LISTING).await, "./first=first ./staged=staged ");
    });
}

fn layers_inside_the_repository_are_refused() {
    if is_missing("git") {
        return;
    }
    let repository = dirty_repository();
    let error =
        Snapshot::take(&repository.root, &repository.root.join("build/data")).expect_err("the kernel would refuse");
    assert!(error.to_string().contains("lies inside the repository"), "{error}");
}

fn odd_names_are_seen() {
    check(|processes| async move {
        let odd = ["with space", "a:b,c\\d", "-dash", "new\nline", "ünï", "* [glob]?"];
        let repository = Repository::with(&odd.map(|name| (name, "x")));
        let data = repository.data.join("a:b,c\\d \n");
        let root = repository.root.with_file_name("odd: , \\ name");
        std::fs::rename(&repository.root, &root).expect("renamed");
        let snapshot = Snapshot::take(&root, &data).expect("a snapshot");
        for name in odd {
            std::fs::write(root.join(name), "disturbed").expect("written");
        }
        git_in(&root, &["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qam", "later"]);
        assert_eq!(job(&processes, &snapshot, "1", "cat -- *; ls | wc -l").await, "xxxxxx7\n");
        assert!(Path::new(&data).join("fix-0").exists());
    });
}
