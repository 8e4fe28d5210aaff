//! What a step costs beyond a raw `posix_spawn` of the same shell: `cargo run --release --example spawn_speed [ROUNDS]`.
//!
//! Every row is measured in turns with the raw loop, in batches, and printed as medians, differences and ratios. A job's
//! rows hold all of it: its place is made, mounted, used for one step, let go and taken away. The tree is a small git
//! repository of this program's making. CPU is that of this process, its keeper and all they started.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use graph::Network;
use ropewalk_worker::keeper::{Command, Keeper, Processes};
use ropewalk_worker::sandbox::{Sandbox, Walls};
use ropewalk_worker::workspace::{Files, Snapshot, Workspace};

/// Steps between two looks at the clock.
const BATCH: u32 = 20;

/// Files in the repository that jobs see.
const FILES: usize = 300;

fn main() {
    let keeper = match Keeper::start() {
        Ok(keeper) => keeper,
        Err(error) => return eprintln!("{error}"),
    };
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(11);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(measure(keeper, rounds)),
        Err(error) => eprintln!("{error}"),
    }
}

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Row {
    Raw,
    Host,
    Overlay,
    Sandbox(Network),
}

async fn measure(keeper: Keeper, rounds: usize) {
    let processes = Processes::attach(keeper).expect("a tokio runtime");
    let scratch = tempfile::tempdir().expect("a directory");
    let repository = repository(scratch.path());
    let clock = Instant::now();
    let snapshot = Snapshot::take(&repository, &scratch.path().join("data")).expect("a snapshot");
    println!("snapshot of {FILES} files: {:.1} ms", clock.elapsed().as_secs_f64() * 1e3);
    let sandbox = Sandbox::probe().map_err(|error| eprintln!("no sandbox: {error}")).ok();
    let rows = [
        ("raw posix_spawn + waitpid", Row::Raw),
        ("host step by the keeper", Row::Host),
        ("job in an overlay", Row::Overlay),
        ("job in overlay and sandbox", Row::Sandbox(Network::On)),
        ("the same without network", Row::Sandbox(Network::Off)),
    ];
    let mut walls = vec![Vec::new(); rows.len()];
    let mut cpus = vec![Vec::new(); rows.len()];
    for _ in 0..rounds {
        for (index, (_, row)) in rows.iter().enumerate() {
            if matches!(row, Row::Sandbox(_)) && sandbox.is_none() {
                continue;
            }
            let (clock, cpu) = (Instant::now(), cpu_of_all(&processes));
            for _ in 0..BATCH {
                match row {
                    Row::Raw => raw_step(),
                    Row::Host => step(&processes, command()).await,
                    Row::Overlay => job(&processes, &snapshot, None).await,
                    Row::Sandbox(network) => {
                        job(&processes, &snapshot, sandbox.as_ref().map(|sandbox| (sandbox, *network))).await
                    }
                }
            }
            walls[index].push(clock.elapsed() / BATCH);
            cpus[index].push((cpu_of_all(&processes).saturating_sub(cpu)) / BATCH);
        }
    }
    println!(
        "{:<28} {:>10} {:>10} {:>7} {:>10} {:>10} {:>7}",
        "", "wall us", "over raw", "ratio", "least us", "cpu us", "ratio"
    );
    let raw = (median(&walls[0]), median(&cpus[0]));
    for (index, (name, _)) in rows.iter().enumerate().filter(|(index, _)| !walls[*index].is_empty()) {
        let (wall, cpu) = (median(&walls[index]), median(&cpus[index]));
        println!(
            "{name:<28} {:>10.1} {:>10.1} {:>6.2}x {:>10.1} {:>10.1} {:>6.2}x",
            micros(wall),
            micros(wall) - micros(raw.0),
            micros(wall) / micros(raw.0),
            micros(walls[index].iter().min().copied().unwrap_or_default()),
            micros(cpu),
            micros(cpu) / micros(raw.1)
        );
    }
    processes.close().await;
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// A repository of small files in some directories.
fn repository(scratch: &Path) -> PathBuf {
    let root = scratch.join("repository");
    for index in 0..FILES {
        let directory = root.join(format!("directory-{}", index % 20));
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::write(directory.join(format!("file-{index}")), "text").expect("written");
    }
    let commit = ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "state"];
    for arguments in [&["init", "-q"][..], &["add", "-A"], &commit] {
        let status = std::process::Command::new("git").args(arguments).current_dir(&root).status();
        assert!(status.is_ok_and(|status| status.success()), "git {arguments:?}");
    }
    root
}

/// The whole of a job with one step.
async fn job(processes: &Processes, snapshot: &Snapshot, sandbox: Option<(&Sandbox, Network)>) {
    let directory = snapshot.directory().join("job");
    let mut workspace =
        Workspace::create(snapshot, &directory, Files::All, &graph::Environment::Host).expect("a workspace");
    let open = workspace.open(processes, snapshot).await.expect("a workspace");
    assert_eq!(open.note, None, "no overlay here");
    let mut command = command();
    command.view = open.view;
    command.directory.clone_from(&open.root);
    if let Some((sandbox, network)) = sandbox {
        let temporary = workspace.temporary().expect("a directory");
        let walls =
            Walls { root: &open.root, temporary: &temporary, network, hidden: &[], writable: &[], readable: &[] };
        sandbox.enclose(&mut command, &walls);
    }
    step(processes, command).await;
    open.close(processes).await.expect("the keeper");
    workspace.remove().expect("removed");
}

/// The time on a CPU of this process, what it waited for, its keeper and what that waited for; in ticks of 10 ms, which is
/// why batches are long.
fn cpu_of_all(processes: &Processes) -> Duration {
    let of = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks: u64 =
            after_name.split_whitespace().skip(11).take(4).filter_map(|text| text.parse::<u64>().ok()).sum();
        ticks
    };
    Duration::from_millis(10 * (of("self") + of(&processes.keeper_pid().to_string())))
}

fn median(values: &[Duration]) -> Duration {
    let mut values = values.to_vec();
    values.sort();
    values[values.len() / 2]
}

fn command() -> Command {
    let mut command = Command::shell("/bin/sh", &["-e"], b"true").expect("a short script");
    command.marker = "speed/1/1".to_owned();
    command.environment = std::env::vars_os().collect();
    command.directory = PathBuf::from("/");
    command
}

async fn step(processes: &Processes, command: Command) {
    let mut running = processes.spawn(command).await.expect("a shell");
    let end = running.ended().await.expect("a shell");
    assert_eq!(end.ending.code(), 0, "`true` passes");
    drain(&running.stdout);
    drain(&running.stderr);
}

/// Reads what is there, as the recorder of output does at a step's end.
fn drain(pipe: &OwnedFd) {
    let mut buffer = [0; 4096];
    while rustix::io::read(pipe, &mut buffer).is_ok_and(|length| length > 0) {}
}

/// What the goal is compared with: the same shell started and waited for without anything around it.
fn raw_step() {
    let arguments: [&CStr; 3] = [c"sh", c"-c", c"true"];
    let mut pointers: Vec<*mut libc::c_char> = arguments.iter().map(|text| text.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    // SAFETY: the pointers end in null and name texts that live for the program; `environ` is not changed meanwhile.
    unsafe {
        let mut pid = 0;
        let (none, attributes) = (std::ptr::null(), std::ptr::null());
        assert_eq!(
            libc::posix_spawn(&raw mut pid, c"/bin/sh".as_ptr(), none, attributes, pointers.as_ptr(), environ),
            0
        );
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}
