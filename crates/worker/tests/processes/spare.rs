//! A workspace that was made ahead is as one that is made for the job, or is not given to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use graph::Environment;
use ropewalk_worker::keeper::Processes;
use ropewalk_worker::workspace::{OpenWorkspace, Snapshot, Spare, Workspace, remove_spares};

use crate::Case;
use crate::ground::{run, script, with_keeper};

pub const CASES: &[Case] = &[
    ("spare::a_job_in_it_sees_the_tree_and_nothing_else", a_job_in_it_sees_the_tree_and_nothing_else),
    ("spare::one_that_is_not_as_a_fresh_one_is_not_given", one_that_is_not_as_a_fresh_one_is_not_given),
    ("spare::one_made_before_a_mount_is_not_given", one_made_before_a_mount_is_not_given),
    ("spare::a_tree_that_people_change_has_none", a_tree_that_people_change_has_none),
    ("spare::nothing_is_left_of_one_that_nobody_takes", nothing_is_left_of_one_that_nobody_takes),
];

/// A checkout with a project in a folder, the place where it is shown, and where workspaces are.
struct Ground {
    folder: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for made in ["one/app", "two/app", "shown", "workspaces"] {
            fs::create_dir_all(folder.path().join(made)).expect("a folder");
        }
        fs::write(folder.path().join("one/app/file"), "one").expect("a file");
        fs::write(folder.path().join("two/app/file"), "two").expect("a file");
        Self { folder }
    }

    fn workspaces(&self) -> PathBuf {
        self.folder.path().join("workspaces")
    }

    /// The state of a build of a tree.
    fn snapshot(&self, tree: &str, build: u32) -> Arc<Snapshot> {
        let directory = self.workspaces().join(format!("{build}/snapshot"));
        let path = |name: &str| self.folder.path().join(name);
        Arc::new(Snapshot::of_immutable(&path(tree), Path::new("app"), &path("shown"), &directory).expect("a snapshot"))
    }

    /// Where the only job of a build is.
    fn job(&self, build: u32) -> PathBuf {
        self.workspaces().join(format!("{build}/1"))
    }

    /// How many wait, or were left.
    fn count(&self) -> usize {
        let names = fs::read_dir(self.workspaces()).expect("a folder").flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with('.')).count()
    }

    async fn spare(&self, tree: &str, number: u64, processes: &Processes) -> Option<Spare> {
        let snapshot = self.snapshot(tree, 1);
        Spare::make(snapshot, &self.workspaces(), number, processes, || ()).await.expect("the system lets us")
    }
}

/// Runs a test where overlays can be had.
fn check<F: Future<Output = ()>>(test: impl FnOnce(Ground, Processes) -> F) {
    with_keeper(async |processes| {
        let ground = Ground::new();
        match ground.spare("one", 0, &processes).await {
            Some(spare) => spare.remove(&processes).await.expect("removed"),
            None => return,
        }
        test(ground, processes).await;
    });
}

async fn sh_in(processes: &Processes, open: &OpenWorkspace, text: &str) -> String {
    let mut command = script(text);
    command.view = open.view;
    command.directory.clone_from(&open.root);
    let ran = run(processes, command).await.expect("a shell");
    assert_eq!((ran.end.ending.code(), ran.err.as_str()), (0, ""), "{text}");
    ran.out
}

fn a_job_in_it_sees_the_tree_and_nothing_else() {
    check(|ground, processes| async move {
        for build in 2..4 {
            let spare = ground.spare("one", u64::from(build), &processes).await.expect("one");
            let snapshot = ground.snapshot("one", build);
            let began = std::time::SystemTime::now();
            let (workspace, open) = spare.take(&snapshot, &ground.job(build), &Environment::Host).expect("it fits");
            assert_eq!(workspace.directory(), fs::canonicalize(ground.job(build)).expect("it is there"));
            assert_eq!(ground.count(), 0, "it is the job's");
            let listed = sh_in(&processes, &open, "pwd; find .. | LC_ALL=C sort | tr '\\n' ' '").await;
            assert_eq!(listed, format!("{}/app\n.. ../app ../app/file ", ground.folder.path().join("shown").display()));
            assert_eq!(
                sh_in(&processes, &open, &format!("cat file; echo {build} | tee file new")).await,
                format!("one{build}\n")
            );
            // The root is as old as the tree, and changed when the job got it.
            let times = |path: &Path| fs::metadata(path).expect("it is there");
            let upper = times(&ground.job(build).join("upper"));
            assert_eq!(
                upper.modified().expect("a time"),
                times(&ground.folder.path().join("one")).modified().expect("a time")
            );
            use std::os::unix::fs::MetadataExt;
            let began = began.duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
            assert!(upper.ctime().unsigned_abs() >= began.saturating_sub(1));
            open.close(&processes).await.expect("the keeper");
            // It is found again, as that of its build.
            let again = Workspace::reopen(&ground.job(build)).expect("it is kept");
            assert_eq!(
                fs::read_to_string(ground.job(build).join("upper/app/new")).expect("a file"),
                format!("{build}\n")
            );
            assert_eq!(Workspace::tree_below(again.directory()).expect("kept").1, snapshot.directory());
        }
        assert_eq!(fs::read_to_string(ground.folder.path().join("one/app/file")).expect("a file"), "one");
    });
}

fn one_that_is_not_as_a_fresh_one_is_not_given() {
    check(|ground, processes| async move {
        let spare = ground.spare("one", 1, &processes).await.expect("one");
        let left = spare
            .take(&ground.snapshot("two", 2), &ground.job(2), &Environment::Host)
            .expect_err("it is of another tree");
        left.remove(&processes).await.expect("removed");
        let spare = ground.spare("one", 2, &processes).await.expect("one");
        fs::write(ground.workspaces().join(".spare-2/upper/planted"), "").expect("a file");
        let left = spare
            .take(&ground.snapshot("one", 3), &ground.job(3), &Environment::Host)
            .expect_err("somebody wrote into it");
        left.remove(&processes).await.expect("removed");
        assert!(!ground.job(2).exists() && !ground.job(3).exists() && ground.count() == 0);
    });
}

fn one_made_before_a_mount_is_not_given() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    check(|ground, processes| async move {
        let spare = ground.spare("one", 1, &processes).await.expect("one");
        let (from, to) = (ground.folder.path().join("two"), ground.folder.path().join("one/app"));
        if rustix::mount::mount_bind(&from, &to).is_err() {
            return spare.remove(&processes).await.expect("removed");
        }
        let taken = spare.take(&ground.snapshot("one", 2), &ground.job(2), &Environment::Host);
        rustix::mount::unmount(&to, rustix::mount::UnmountFlags::DETACH).expect("unmounted");
        taken.expect_err("a fresh one would have the mount").remove(&processes).await.expect("removed");
    });
}

fn a_tree_that_people_change_has_none() {
    check(|ground, processes| async move {
        let directory = ground.workspaces().join("2/snapshot");
        let snapshot = Snapshot::take(&ground.folder.path().join("one"), &directory).expect("a snapshot");
        let made = Spare::make(Arc::new(snapshot), &ground.workspaces(), 1, &processes, || ()).await.expect("no fault");
        assert!(made.is_none() && ground.count() == 0);
    });
}

fn nothing_is_left_of_one_that_nobody_takes() {
    check(|ground, processes| async move {
        let spare = ground.spare("one", 1, &processes).await.expect("one");
        assert_eq!(ground.count(), 1);
        spare.remove(&processes).await.expect("removed");
        assert_eq!(ground.count(), 0);
        // Of a process that was killed.
        drop(ground.spare("one", 2, &processes).await.expect("one"));
        fs::create_dir_all(ground.job(7)).expect("a folder");
        remove_spares(&ground.workspaces()).expect("removed");
        assert_eq!((ground.count(), ground.job(7).is_dir()), (0, true));
    });
}
