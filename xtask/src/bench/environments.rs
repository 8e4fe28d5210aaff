//! What an environment costs: a container job against `docker run` itself, and what is kept of each step of a large workspace.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::measure::{interleaved, repository, time_ms};
use super::{Bench, Row};

/// The image of the jobs, made here: no registry takes part.
const IMAGE: &str = "ropewalk-bench:1";
/// How long an engine may take to answer.
const ENGINE_WAIT: Duration = Duration::from_secs(60);
/// Files of the large workspace, and how many lie in a directory.
const FILES: usize = 100_000;
const FILES_OF_A_DIRECTORY: usize = 100;
/// Steps of the job over it. After each but the last something may be kept.
const STEPS: usize = 21;

/// Docker's daemon with data of its own; it ends with this.
struct Engine {
    daemon: Child,
    socket: PathBuf,
}

impl Engine {
    fn start(folder: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let socket = folder.join("docker.sock");
        let mut daemon = Command::new("dockerd");
        daemon.arg("--data-root").arg(folder.join("data")).arg("--exec-root").arg(folder.join("exec"));
        daemon.arg("--pidfile").arg(folder.join("pid")).arg("-H").arg(format!("unix://{}", socket.display()));
        daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = daemon.spawn().map_err(|error| format!("could not start dockerd: {error}"))?;
        let engine = Self { daemon, socket };
        let began = Instant::now();
        while !engine.docker(&["version"]).status().is_ok_and(|status| status.success()) {
            if began.elapsed() > ENGINE_WAIT {
                return Err("dockerd does not answer".to_owned());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(engine)
    }

    fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(arguments).env("DOCKER_HOST", self.address());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// An image of busybox alone.
    fn make_image(&self, folder: &Path) -> Result<(), String> {
        let script = "mkdir -p image/bin image/tmp && cp \"$(command -v busybox)\" image/bin/busybox \
                      && for name in sh true tail sleep cat kill; do ln -sf busybox image/bin/$name; done \
                      && tar -C image -c . | docker import - \"$IMAGE\"";
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(folder).env("IMAGE", IMAGE).env("DOCKER_HOST", self.address());
        crate::run(command.stdout(Stdio::null()))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Gently: it unmounts what it has mounted but its own folder, with which the next measurement could not begin.
        let _ = Command::new("kill").arg(self.daemon.id().to_string()).status();
        let _ = self.daemon.wait();
        let data = self.socket.with_file_name("data");
        let _ = Command::new("umount").args(["--quiet", "--lazy"]).arg(data).stderr(Stdio::null()).status();
    }
}

fn ropewalk(bench: &Bench, folder: &Path) -> Command {
    let mut command = Command::new(&bench.ropewalk);
    command.args(["run", "--output", "quiet"]).current_dir(folder).env("ROPEWALK_DATA", bench.folder.join("data"));
    command
}

/// A job of one step in a container, the whole of `ropewalk run`, against `docker run` of the same.
pub fn container(bench: &Bench) -> Result<Vec<Row>, String> {
    let engine = match Engine::start(&bench.folder.join("engine")) {
        Ok(engine) => engine,
        Err(error) => {
            eprintln!("  container job: {error}; install docker.io and busybox-static, and run as root");
            return Ok(Vec::new());
        }
    };
    engine.make_image(&bench.folder)?;
    let folder = bench.folder.join("repository");
    let pipeline = format!("jobs:\n  a: {{ environment: {{ image: \"{IMAGE}\", pull: never }}, run: \"true\" }}\n");
    repository(&folder, &[(".ropewalk/pipeline.yaml", pipeline)])?;
    let mount = format!("{0}:{0}", folder.display());
    let theirs = ["run", "--rm", "-v", &mount, "-w", &folder.display().to_string(), IMAGE, "sh", "-ec", "true"]
        .map(str::to_owned);
    let [ours, theirs] = interleaved(
        bench.rounds.max(10),
        [&mut || time_ms(ropewalk(bench, &folder).env("DOCKER_HOST", engine.address())), &mut || {
            time_ms(&mut engine.docker(&theirs.each_ref().map(String::as_str)))
        }],
    )?;
    Ok(vec![Row::at_most("a job in a container, the image warm", "`docker run --rm`", ours, theirs, "ms", 1.1)])
}

/// What is kept at the end of a step that changed nothing, in a workspace of very many files.
pub fn snapshots(bench: &Bench) -> Result<Vec<Row>, String> {
    let folder = bench.folder.join("large");
    let steps = vec!["\"true\""; STEPS].join(", ");
    let pipeline = format!("defaults: {{ environment: host }}\njobs:\n  a: {{ run: [{steps}] }}\n");
    for number in 0..FILES {
        let directory = folder.join((number / FILES_OF_A_DIRECTORY).to_string());
        let made = std::fs::create_dir_all(&directory).and_then(|()| {
            std::fs::write(directory.join((number % FILES_OF_A_DIRECTORY).to_string()), number.to_string())
        });
        made.map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    repository(&folder, &[(".ropewalk/pipeline.yaml", pipeline)])?;
    let run = |bytes: Option<&str>| {
        let mut command = ropewalk(bench, &folder);
        if let Some(bytes) = bytes {
            command.env("ROPEWALK_KEEP_STEPS_BYTES", bytes);
        }
        time_ms(&mut command)
    };
    let [kept, not_kept] = interleaved(bench.rounds, [&mut || run(None), &mut || run(Some("0"))])?;
    let cost = (kept - not_kept) / (STEPS - 1) as f64;
    Ok(vec![Row::at_most("a step's end kept, 100,000 files, none changed", "5 ms", cost, 5.0, "ms", 1.0)])
}
