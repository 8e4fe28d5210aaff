//! What a sandboxed step can reach, and what it cannot.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use graph::Network;
use ropewalk_worker::keeper::{Command, Ending, Processes, Signal};
use ropewalk_worker::sandbox::{Sandbox, Walls};
use ropewalk_worker::workspace::{Files, OpenWorkspace, Snapshot, Workspace};

use crate::Case;
use crate::ground::{Ran, Repository, first_line, is_missing, marker, read_to_end, run, script, with_keeper};

pub const CASES: &[Case] = &[
    ("sandbox::the_system_and_the_home_are_read_only", the_system_and_the_home_are_read_only),
    ("sandbox::other_processes_are_not_seen", other_processes_are_not_seen),
    ("sandbox::there_is_no_network_if_so_asked", there_is_no_network_if_so_asked),
    ("sandbox::the_temporary_directory_is_the_jobs", the_temporary_directory_is_the_jobs),
    ("sandbox::credentials_and_data_are_hidden", credentials_and_data_are_hidden),
    ("sandbox::credentials_are_hidden_whatever_home_a_step_takes", credentials_are_hidden_whatever_home_a_step_takes),
    ("sandbox::exit_usage_and_long_scripts_pass_through", exit_usage_and_long_scripts_pass_through),
    ("sandbox::term_reaches_the_step", term_reaches_the_step),
    ("sandbox::what_a_step_leaves_ends_with_it", what_a_step_leaves_ends_with_it),
];

/// One sandboxed job of a build.
struct Job {
    processes: Processes,
    sandbox: Sandbox,
    repository: Repository,
    workspace: Workspace,
    open: OpenWorkspace,
}

fn check<F: Future<Output = ()>>(test: impl FnOnce(Job) -> F) {
    if is_missing("bwrap") || is_missing("git") {
        return;
    }
    with_keeper(|processes| async move {
        let sandbox = Sandbox::probe().expect("a sandbox");
        let repository = Repository::with(&[("file", "file")]);
        let snapshot = Snapshot::take(&repository.root, &repository.data).expect("a snapshot");
        let mut workspace =
            Workspace::create(&snapshot, &repository.data.join("1"), Files::All, &graph::Environment::Host)
                .expect("a workspace");
        let open = workspace.open(&processes, &snapshot).await.expect("a workspace");
        assert_eq!(open.note, None);
        test(Job { processes, sandbox, repository, workspace, open }).await;
    });
}

impl Job {
    fn command(&self, text: &str, network: Network) -> Command {
        self.command_at(&self.home(), text, network)
    }

    /// A command of a step that has this home.
    fn command_at(&self, home: &Path, text: &str, network: Network) -> Command {
        let mut command = script(text);
        command.environment.insert("HOME", home);
        command.environment.insert("MACHINES_HOME", std::env::var_os("HOME").unwrap_or("/opt".into()));
        command.view = self.open.view;
        command.directory.clone_from(&self.open.root);
        let temporary = self.workspace.temporary().expect("a directory");
        // The test's home lies in /tmp, which is the job's own; so it is opened by name.
        let writable = [self.repository.data.join("values"), self.home()];
        std::fs::create_dir_all(&writable[0]).expect("a directory");
        // One within the other, and by a path with a link in it.
        let hidden = [self.repository.data.join("values"), self.link_to_data(), self.repository.data.clone()];
        let walls = Walls {
            root: &self.open.root,
            temporary: &temporary,
            network,
            hidden: &hidden,
            writable: &writable,
            readable: &[],
        };
        self.sandbox.enclose(&mut command, &walls);
        command
    }

    fn home(&self) -> PathBuf {
        let home = self.repository.data.with_file_name("home");
        std::fs::create_dir_all(home.join(".ssh")).expect("a directory");
        std::fs::write(home.join(".ssh/id"), "secret").expect("written");
        std::fs::write(home.join(".netrc"), "secret").expect("written");
        std::fs::write(home.join(".profile"), "plain").expect("written");
        home
    }

    fn link_to_data(&self) -> PathBuf {
        let link = self.repository.data.with_file_name("link");
        let _ = symlink(&self.repository.data, &link);
        link
    }

    async fn sh(&self, text: &str) -> Ran {
        run(&self.processes, self.command(text, Network::Off)).await.expect("a sandbox")
    }
}

fn the_system_and_the_home_are_read_only() {
    check(|job| async move {
        let text = "for place in /usr /etc /sys $MACHINES_HOME /proc/sys/kernel; do touch $place/.ropewalk-test 2>/dev/null && echo $place; done; \
                    touch file new && echo workspace; cat file; grep -E '^(CapEff|NoNewPrivs)' /proc/self/status";
        let ran = job.sh(text).await;
        assert_eq!(ran.end.ending, Ending::Exited(0), "{}", ran.err);
        assert_eq!(ran.out, "workspace\nfileCapEff:\t0000000000000000\nNoNewPrivs:\t1\n");
        assert!(job.repository.read("new").is_none());
    });
}

fn other_processes_are_not_seen() {
    check(|job| async move {
        let ran = job.sh("set -- /proc/[0-9]*; echo $#; kill -0 1; echo $?").await;
        // bubblewrap's first process and the shell.
        assert_eq!(ran.out, "2\n0\n", "{}", ran.err);
        assert!(std::fs::read_dir("/proc").expect("processes").count() > 10);
    });
}

fn there_is_no_network_if_so_asked() {
    check(|job| async move {
        let text = "tail -n +3 /proc/net/dev | cut -d: -f1; tail -n +2 /proc/net/route | wc -l";
        assert_eq!(job.sh(text).await.out.replace(' ', ""), "lo\n0\n");
        let here = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
        let on = run(&job.processes, job.command("readlink /proc/self/ns/net", Network::On)).await.expect("a sandbox");
        assert_eq!(on.out.trim(), here.to_string_lossy());
    });
}

fn the_temporary_directory_is_the_jobs() {
    check(|job| async move {
        let name = format!("ropewalk-test-{}", std::process::id());
        let machine = Path::new("/tmp").join(&name);
        std::fs::write(&machine, "").expect("written");
        let ran = job.sh(&format!("test ! -e /tmp/{name}; echo kept > /tmp/{name}; echo $TMPDIR")).await;
        assert_eq!((ran.end.ending, ran.out.as_str()), (Ending::Exited(0), "/tmp\n"), "{}", ran.err);
        assert_eq!(job.sh(&format!("cat /tmp/{name}")).await.out, "kept\n");
        assert_eq!(std::fs::read_to_string(&machine).expect("still there"), "");
        std::fs::remove_file(&machine).expect("removed");
    });
}

fn credentials_and_data_are_hidden() {
    check(|job| async move {
        let data = job.repository.data.display();
        let ran = job.sh(&format!("ls $HOME/.ssh | wc -l; cat $HOME/.netrc $HOME/.profile; ls {data}; echo 1 > {data}/values/one; ls /run/docker.sock 2>&1 | grep -c 'No such'")).await;
        assert_eq!(ran.out, "0\nplainvalues\n1\n", "{}", ran.err);
        assert_eq!(std::fs::read_to_string(job.repository.data.join("values/one")).expect("handed on"), "1\n");
    });
}

fn credentials_are_hidden_whatever_home_a_step_takes() {
    // Not in /tmp, which a sandbox has of its own; the checkout may lie there.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let is_own = ["/tmp", "/var/tmp"].iter().any(|own| target.starts_with(own));
    let user = std::env::var_os("HOME").expect("whoever tests has a home");
    let home = tempfile::tempdir_in(if is_own { Path::new(&user) } else { target }).expect("a home");
    let write = |path: &str| {
        let path = home.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, "secret\n").expect("written");
    };
    let secret =
        [".ssh/id", ".pgpass", ".config/containers/auth.json", ".config/glab-cli/config.yml", ".m2/settings.xml"];
    secret.into_iter().chain(["kept/npmrc", "kept/docker/config.json", ".profile"]).for_each(write);
    for (name, target) in [(".npmrc", "kept/npmrc"), (".docker", "kept/docker")] {
        symlink(home.path().join(target), home.path().join(name)).expect("a link");
    }
    // SAFETY: each test is a process of its own, which has no other thread yet.
    unsafe { std::env::set_var("HOME", home.path()) };
    check(|job| async move {
        for taken in [home.path(), Path::new("/tmp"), &job.open.root] {
            let text = format!(
                "cd {}; cat {} .npmrc .docker/* .profile 2>/dev/null || true",
                home.path().display(),
                secret.join(" ")
            );
            let ran = run(&job.processes, job.command_at(taken, &text, Network::Off)).await.expect("a sandbox");
            assert_eq!((ran.out.as_str(), ran.end.ending), ("secret\n", Ending::Exited(0)), "{taken:?}: {}", ran.err);
        }
    });
}

fn exit_usage_and_long_scripts_pass_through() {
    check(|job| async move {
        let padding = "#".repeat(200_000);
        let ran = job.sh(&format!("{padding}\nhead -c 40000000 /dev/zero | tail -c 30000000 | wc -c; exit 7")).await;
        assert_eq!((ran.end.ending, ran.out.as_str()), (Ending::Exited(7), "30000000\n"), "{}", ran.err);
        assert!(ran.end.usage.peak_memory_bytes > 30_000_000, "{:?}", ran.end.usage);
    });
}

fn term_reaches_the_step() {
    check(|job| async move {
        let text = "trap 'echo heard; exit 5' TERM; echo ready; while :; do sleep 1000 & wait; done";
        let mut running = job.processes.spawn(job.command(text, Network::Off)).await.expect("a sandbox");
        assert_eq!(first_line(&running).await, "ready");
        job.processes.signal_step(running.id, Signal::Terminate).await.expect("the keeper");
        assert_eq!(running.ended().await.expect("an end").ending, Ending::Exited(5));
        assert_eq!(read_to_end(running.stdout).await, "heard\n");
    });
}

fn what_a_step_leaves_ends_with_it() {
    check(|job| async move {
        let text = "setsid sh -c 'sleep 1000 & exit 0' & wait; echo done";
        let ran = job.sh(text).await;
        // Its stdout was closed, or this would not have been read to its end.
        assert_eq!((ran.out.as_str(), ran.end.ending), ("done\n", Ending::Exited(0)));
        assert!(job.processes.end_job(&marker()).await.expect("the keeper").is_empty());
    });
}
