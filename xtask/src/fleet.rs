//! Real processes of the binary, for storms and measurements: a server, its workers, their tokens, and the files that
//! builds are made of. Nothing here is simulated; every process ends with its [`Process`].

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api::blob::parcel_head;
use api::build::{Submit, SubmitOptions};
use api::client::{Client, Server};
use api::event::EventWanted;
use api::source::{self, Manifest};
use graph::Digest;

/// How long anything may take that must happen.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How many of the last lines that a process wrote are told.
const LOG_LINES_TOLD: usize = 6;

/// The project of all builds.
pub const PROJECT: &str = "fleet";

/// A process that ends with its owner.
pub struct Process(Child);

impl Process {
    /// Its id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal, by name.
    pub fn signal(&self, name: &str) {
        let _ = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<String> {
        self.0.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// Asks it to end; its exit code, or `None` if it had to be killed.
    pub async fn end(&mut self) -> Option<i32> {
        self.signal("TERM");
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Ok(Some(status)) = self.0.try_wait() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.kill();
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One installation: a data folder, an address and tokens.
pub struct Fleet {
    binary: PathBuf,
    folder: PathBuf,
    address: String,
    listen: Listen,
    environment: Vec<(String, String)>,
}

/// Who can reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Programs of this machine.
    Loopback,
    /// Other network namespaces, too.
    Everywhere,
}

/// A port of this machine that was free a moment ago.
///
/// # Errors
/// If there is none.
pub fn free_address() -> Result<String, String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.to_string()).map_err(|error| error.to_string())
}

impl Fleet {
    /// An installation in a fresh folder, whose processes have these variables of the environment.
    ///
    /// # Errors
    /// If a folder or a token cannot be made.
    pub fn new(binary: &Path, folder: &Path, environment: &[(&str, &str)], listen: Listen) -> Result<Self, String> {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder.join("data")).map_err(|error| error.to_string())?;
        let fleet = Self::at(binary, folder, environment, listen)?;
        fleet.token("worker", &["--worker", "--name", "worker"])?;
        fleet.token("admin", &["--admin", "--name", "admin"])?;
        Ok(fleet)
    }

    /// The installation that [`Fleet::new`] made in this folder before, at another port.
    ///
    /// # Errors
    /// If the folder is not there, or no port is free.
    pub fn at(binary: &Path, folder: &Path, environment: &[(&str, &str)], listen: Listen) -> Result<Self, String> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let folder = folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self { binary: binary.to_owned(), folder, address: free_address()?, listen, environment })
    }

    fn token(&self, name: &str, flags: &[&str]) -> Result<(), String> {
        let mut command = self.command(&["token", "create", "--data"]);
        let output = command.arg(self.data()).args(flags).output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!("no token was made: {}", String::from_utf8_lossy(&output.stderr)));
        }
        fs::write(self.folder.join(name), output.stdout).map_err(|error| error.to_string())
    }

    /// The folder of everything.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The server's folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where the server is, as `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The server's port.
    pub fn port(&self) -> &str {
        self.address.rsplit_once(':').map_or("", |(_, port)| port)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_within(None, arguments)
    }

    /// A command of the binary, in this network namespace if one is named.
    fn command_within(&self, namespace: Option<&str>, arguments: &[&str]) -> Command {
        let mut command = match namespace {
            None => Command::new(&self.binary),
            Some(namespace) => {
                let mut command = Command::new("ip");
                // It becomes the binary, under the same id.
                command.args(["netns", "exec", namespace]).arg(&self.binary);
                command
            }
        };
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::null()).env("NO_COLOR", "1");
        command.env("ROPEWALK_DATA", self.folder.join("home"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn spawn(&self, mut command: Command, name: &str) -> Result<Process, String> {
        let log = File::options().create(true).append(true).open(self.folder.join(format!("{name}.log")));
        let log = log.map_err(|error| error.to_string())?;
        let other = log.try_clone().map_err(|error| error.to_string())?;
        let child = command.stdout(other).stderr(log).spawn().map_err(|error| format!("{command:?}: {error}"))?;
        Ok(Process(child))
    }

    /// Starts the server, without a worker beside it. It answers a little later: [`Fleet::answers`].
    ///
    /// # Errors
    /// If the binary does not start.
    pub fn serve(&self) -> Result<Process, String> {
        let port = self.port();
        let listen = match self.listen {
            Listen::Loopback => self.address.clone(),
            Listen::Everywhere => format!("0.0.0.0:{port}"),
        };
        let mut command = self.command(&["serve", "--listen", &listen, "--local-worker", "off", "--data"]);
        command.arg(self.data());
        self.spawn(command, "server")
    }

    /// Starts a worker that finds the server at `address`. Its folder is named after it.
    ///
    /// # Errors
    /// If the binary does not start.
    pub fn work(&self, name: &str, address: &str, capacity: usize) -> Result<Process, String> {
        self.work_within(None, name, address, capacity)
    }

    /// As [`Fleet::work`], in this network namespace if one is named.
    ///
    /// # Errors
    /// If it does not start.
    pub fn work_within(
        &self,
        namespace: Option<&str>,
        name: &str,
        address: &str,
        capacity: usize,
    ) -> Result<Process, String> {
        let (server, capacity) = (format!("http://{address}"), capacity.to_string());
        let arguments = ["work", "--server", &server, "--capacity", &capacity, "--grace", "1", "--name", name];
        let mut command = self.command_within(namespace, &arguments);
        command.arg("--token").arg(self.folder.join("worker")).arg("--data").arg(self.folder.join(name));
        self.spawn(command, name)
    }

    /// Starts a worker that runs nothing (`simulated.rs`).
    ///
    /// # Errors
    /// If it does not start.
    pub fn simulate(&self, name: &str, capacity: usize) -> Result<Process, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["simulated-worker", &self.address]).arg(self.folder.join("worker"));
        command.args([name, &capacity.to_string()]).stdin(Stdio::null());
        self.spawn(command, name)
    }

    /// An administrator's client.
    ///
    /// # Errors
    /// If the token cannot be read.
    pub fn client(&self) -> Result<Client, String> {
        let token = fs::read_to_string(self.folder.join("admin")).map_err(|error| error.to_string())?;
        Client::new(Server::Url(format!("http://{}", self.address)), &token).map_err(|error| error.to_string())
    }

    /// Waits until the server says that it does its work.
    ///
    /// # Errors
    /// If it does not within [`PATIENCE`], with the end of what it wrote.
    pub async fn answers(&self, client: &Client) -> Result<(), String> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if client.ready().await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(format!("the server does not answer; it wrote:\n{}", self.log_end("server")))
    }

    /// Waits until so many workers have joined.
    ///
    /// # Errors
    /// If they do not within [`PATIENCE`].
    pub async fn joined(&self, client: &Client, workers: usize) -> Result<(), String> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let list = client.worker_list().await.map_err(|error| error.to_string())?;
            if list.items.iter().filter(|worker| worker.state == api::worker_view::WorkerState::Ready).count()
                >= workers
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("the workers do not join; the server wrote:\n{}", self.log_end("server")))
    }

    /// All that a process wrote.
    pub fn log(&self, name: &str) -> String {
        fs::read(self.folder.join(format!("{name}.log")))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last lines that a process wrote.
    pub fn log_end(&self, name: &str) -> String {
        let text = self.log(name);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_TOLD)..].join("\n")
    }

    /// The processes that live in this installation's folder or name it: their ids and commands.
    pub fn left_over(&self) -> Vec<(u32, String)> {
        let folder = self.folder.to_string_lossy().into_owned();
        let of_here = |id: &u32| {
            let process = PathBuf::from(format!("/proc/{id}"));
            let command = fs::read(process.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let at = fs::read_link(process.join("cwd")).unwrap_or_default();
            (at.starts_with(&self.folder) || command.contains(&folder)).then_some((*id, command))
        };
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(|id| *id != std::process::id()).filter_map(|id| of_here(&id)).collect()
    }
}

/// The file of the pipeline that a build is of, if it names no other.
const PIPELINE: &str = ".ropewalk/pipeline.yaml";

/// Sends a checkout that holds this pipeline alone; its digest.
///
/// # Errors
/// If the server refuses.
pub async fn upload(client: &Client, pipeline: &str) -> Result<Digest, String> {
    upload_beside(client, pipeline, &[]).await
}

/// Sends a checkout that holds this pipeline and beside it these files of this content; its digest.
///
/// # Errors
/// If the server refuses.
pub async fn upload_beside(client: &Client, pipeline: &str, beside: &[(&str, &str)]) -> Result<Digest, String> {
    let digest = |content: &[u8]| Digest(*blake3::hash(content).as_bytes());
    let (mut files, mut parcel) = (BTreeMap::new(), Vec::new());
    let mut put = |content: &[u8]| {
        parcel.extend_from_slice(&parcel_head(digest(content), content.len() as u64));
        parcel.extend_from_slice(content);
        digest(content)
    };
    for (path, text) in std::iter::once(&(PIPELINE, pipeline)).chain(beside) {
        let file = source::File::Plain { digest: put(text.as_bytes()), bytes: text.len() as u64 };
        files.insert((*path).to_owned(), file);
    }
    let manifest = Manifest { version: source::VERSION, files, ..Manifest::default() };
    let manifest = put(&serde_json::to_vec(&manifest).map_err(|error| error.to_string())?);
    client.blob_put_bytes(parcel.into()).await.map_err(|error| error.to_string())?;
    Ok(manifest)
}

/// Asks for a build of its own of a source, under a name that tells it from others.
pub fn request(source: Digest, name: String) -> Submit {
    Submit {
        project: PROJECT.to_owned(),
        source,
        event: EventWanted { message: name, ..EventWanted::default() },
        pipeline: None,
        pool: None,
        options: SubmitOptions { join: Some(false), ..SubmitOptions::default() },
    }
}

/// Whether calls of a server's stores can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    /// As what people run.
    Without,
    /// With the feature `faults`.
    With,
}

/// The binary to run: `$ROPEWALK_BINARY`, else that of a release build made now.
///
/// # Errors
/// If it cannot be built.
pub fn binary(faults: Faults) -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("ROPEWALK_BINARY") {
        return PathBuf::from(named).canonicalize().map_err(|error| format!("$ROPEWALK_BINARY: {error}"));
    }
    let mut command = crate::cargo(&["build", "--release", "--quiet", "-p", "ropewalk-cli"]);
    if faults == Faults::With {
        command.args(["--features", "faults"]);
    }
    crate::run(&mut command)?;
    target().join("release/ropewalk").canonicalize().map_err(|error| error.to_string())
}

/// The binary to run where nothing is measured: `$ROPEWALK_BINARY`, else that of a build for development made now.
///
/// # Errors
/// If it cannot be built.
pub fn debug_binary() -> Result<PathBuf, String> {
    if std::env::var_os("ROPEWALK_BINARY").is_some() {
        return binary(Faults::Without);
    }
    crate::run(&mut crate::cargo(&["build", "--quiet", "-p", "ropewalk-cli"]))?;
    target().join("debug/ropewalk").canonicalize().map_err(|error| error.to_string())
}

/// The folder of what is built.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from)
}
