//! The container of one job, from its making to its removal.
//!
//! Its first process is a shell of ours ([`FIRST`]) that runs one step after another, asked through a named pipe in a folder that
//! worker and container share; another pipe tells how each ended. Each step prints into two pipes of its own there. So nothing of
//! a step goes over the engine's connection, which may drop without anything being lost, and a step costs no call of the
//! engine. The folder is read-only inside: a step cannot put a link where the worker will write.
//!
//! The files of the job's workspace are mounted by the engine itself, as a volume of the same layers as the worker's view of
//! them: the kernel binds no mount of another namespace. Only one of both is open at a time.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use tokio::io::unix::AsyncFd;

use super::control_group::ControlGroup;
use super::engine::{Engine, EngineError, Kind};
use crate::keeper::{Command, Ending, Signal, View};
use crate::output::{Channels, register};
use crate::variables::Variables;
use graph::Usage;
use graph::shell::push_quoted;

/// The program of the first process.
const FIRST: &str = include_str!("first.sh");

/// Sends `$signal` to all processes but `$process`, those above it, and itself.
const SIGNAL_ALL: &str = include_str!("signal.sh");

/// The longest options that the kernel takes for a mount: a page, its end included.
const MOUNT_OPTIONS_BYTES_MAX: usize = 4095;

/// How long the first process may take until it reads.
const READY_MAX: Duration = Duration::from_secs(120);

/// How often the engine is asked whether the first process runs, while it says nothing.
const READY_ASKED_EVERY: Duration = Duration::from_millis(500);

/// How long the first process may take to end by itself before it is killed.
const ENDS_MAX: Duration = Duration::from_secs(2);

/// The most bytes that the end of a step is told in.
const END_BYTES_MAX: usize = 4096;

/// What a container is made with.
pub struct Plan<'p> {
    /// The image's digest.
    pub image: &'p str,
    /// Names the container and its volume: no other attempt on this machine has it.
    pub name: &'p str,
    /// What we write on everything that belongs to the attempt.
    pub labels: &'p Value,
    /// As the job says.
    pub settings: &'p graph::Container,
    /// As the job says.
    pub resources: graph::Resources,
    /// The files.
    pub files: Files<'p>,
    /// Directories and files that are seen at their own place: path, and whether they can be written.
    pub shared: Vec<(PathBuf, Access)>,
    /// The directory that becomes `/tmp`.
    pub temporary: &'p Path,
    /// The folder for pipes and scripts, which is emptied.
    pub folder: &'p Path,
    /// The network, by name.
    pub network: &'p str,
    /// Names of other containers with their addresses.
    pub hosts: Vec<(String, String)>,
}

impl Plan<'_> {
    /// All that the engine is told of.
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let files: Vec<&Path> = match &self.files {
            Files::Directory { from, at } => vec![from, at],
            Files::Layers(view) => {
                let lower = view.lower.iter().map(PathBuf::as_path);
                lower.chain([view.upper.as_path(), &view.work, &view.target]).collect()
            }
        };
        files.into_iter().chain(self.shared.iter().map(|(path, _)| path.as_path())).chain([self.temporary, self.folder])
    }
}

/// Where the job's files come from.
pub enum Files<'p> {
    /// An overlay of these layers.
    Layers(&'p View),
    /// A directory, shown at another place.
    Directory {
        /// Where it is.
        from: PathBuf,
        /// Where steps see it.
        at: PathBuf,
    },
}

impl Files<'_> {
    /// Where steps see them.
    fn target(&self) -> &Path {
        match self {
            Self::Layers(view) => &view.target,
            Self::Directory { at, .. } => at,
        }
    }
}

/// What steps may do with something shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and write.
    Write,
    /// Read.
    Read,
}

/// Why a container could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ContainerFault {
    /// The engine's words.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The layers' names are too long together.
    #[error("the paths of the workspace's layers are too long for one mount: {0} bytes; take a shorter data directory")]
    Layers(usize),
    /// A path that no engine takes: all of them are told in JSON.
    #[error("`{}` is not UTF-8, and a container engine takes no such path: move the project or the data folder, or run the job on the host", .0.display())]
    NotText(PathBuf),
    /// The system refused something about the shared folder.
    #[error("prepare `{}`: {source}", path.display())]
    Folder {
        /// What.
        path: PathBuf,
        /// Its words.
        source: io::Error,
    },
    /// The program of `entrypoint` is not in the image.
    #[error("the container cannot run its `entrypoint`: {0}")]
    NoProgram(EngineError),
    /// The image does not know the user.
    #[error("the image does not know the user of `user: {user}`: {cause}; a number is taken without being known")]
    NoUser {
        /// As the job says.
        user: String,
        /// The engine's words.
        cause: EngineError,
    },
    /// It ended before it was ready.
    #[error("the container ended at once, with code {code}: {}", needs(*.has_entrypoint))]
    Ended {
        /// Its code.
        code: i64,
        /// Whether the job says what starts the first process.
        has_entrypoint: bool,
    },
    /// It did nothing.
    #[error("the container was not ready within {} s", READY_MAX.as_secs())]
    Silent,
}

impl ContainerFault {
    /// Whether the machine is to blame and not the pipeline.
    #[must_use]
    pub fn is_infrastructure(&self) -> bool {
        !matches!(self, Self::NoProgram(_) | Self::NoUser { .. } | Self::Ended { .. } | Self::NotText(_))
    }

    /// What it means that a container was not made or not started.
    fn not_started(cause: EngineError, settings: &graph::Container) -> Self {
        if !settings.user.is_empty() && cause.is_no_user() {
            Self::NoUser { user: settings.user.clone().into(), cause }
        } else if cause.is_no_program() {
            Self::NoProgram(cause)
        } else {
            Self::Engine(cause)
        }
    }
}

/// What a container that ended at once lacks.
fn needs(has_entrypoint: bool) -> &'static str {
    match has_entrypoint {
        true => {
            "its `entrypoint` must run the words that follow it, `/bin/sh` and a script, and its image needs that shell"
        }
        false => "its image needs a POSIX shell at /bin/sh",
    }
}

/// A container that runs steps.
pub struct JobContainer {
    engine: Engine,
    id: String,
    name: String,
    /// As the engine was told.
    description: Value,
    overlay: Option<OverlayVolume>,
    folder: PathBuf,
    control: OwnedFd,
    end: AsyncFd<OwnedFd>,
    /// What was read of `end` and not yet understood.
    told: Vec<u8>,
    n_steps: u32,
    /// The process id, within the container, of the shell that runs the steps. The container's own first process is another one
    /// if an entrypoint started it.
    shell: u32,
    /// Whether a step was begun whose end was not told.
    is_busy: bool,
    /// Where the kernel counts what it uses, if that can be seen.
    group: Option<ControlGroup>,
    /// What all steps so far have used.
    used: Usage,
    /// How many of its processes were killed for want of memory, as far as was told.
    memory_kills: u64,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its code; of one that was killed, 128 and the signal's number.
    pub ending: Ending,
    /// By the container's control group: what went on in the background counts too. Where that cannot be seen, the time that the
    /// shell tells of its children, and no memory.
    pub usage: Usage,
}

/// The container is gone, and with it the step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone(pub String);

/// A layer's path as the kernel's options for overlays have it.
fn option_path(path: &Path, kind: Separator) -> String {
    let mut escaped = String::new();
    for character in path.to_string_lossy().chars() {
        if matches!(character, '\\' | ',') || (kind == Separator::Colon && character == ':') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Separator {
    Colon,
    None,
}

/// The options by which an engine mounts the layers of a view.
pub(super) fn layer_options(view: &View) -> Result<String, ContainerFault> {
    let lower: Vec<String> = view.lower.iter().map(|path| option_path(path, Separator::Colon)).collect();
    let attributes = View::attributes_option();
    let options = format!(
        "lowerdir={},upperdir={},workdir={},{attributes}",
        lower.join(":"),
        option_path(&view.upper, Separator::None),
        option_path(&view.work, Separator::None),
    );
    match options.len() {
        length if length > MOUNT_OPTIONS_BYTES_MAX => Err(ContainerFault::Layers(length)),
        _ => Ok(options),
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> ContainerFault + use<> {
    let path = path.to_owned();
    move |source| ContainerFault::Folder { path: path.clone(), source }
}

/// A named pipe that everybody may write to; its reading end, which does not block.
fn named_pipe(path: &Path) -> io::Result<OwnedFd> {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o666), 0)?;
    rustix::fs::chmod(path, Mode::from_raw_mode(0o666))?;
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}

fn empty_folder(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(folder)
}

impl JobContainer {
    /// Makes and starts it, and waits until its first process reads.
    ///
    /// # Errors
    /// [`ContainerFault`]; what was made is removed.
    pub async fn start(engine: &Engine, plan: Plan<'_>) -> Result<Self, ContainerFault> {
        let volume = matches!(plan.files, Files::Layers(_)).then(|| plan.name.to_owned());
        let made = Self::make(engine, &plan).await;
        if made.is_err() {
            let _ = engine.remove(Kind::Container, plan.name).await;
            if let Some(volume) = &volume {
                let _ = engine.remove(Kind::Volume, volume).await;
            }
        }
        made
    }

    async fn make(engine: &Engine, plan: &Plan<'_>) -> Result<Self, ContainerFault> {
        if let Some(path) = plan.paths().find(|path| path.to_str().is_none()) {
            return Err(ContainerFault::NotText(path.to_owned()));
        }
        let folder = plan.folder;
        empty_folder(folder).map_err(at(folder))?;
        std::fs::write(folder.join("first.sh"), FIRST).map_err(at(folder))?;
        let end = named_pipe(&folder.join("end")).map_err(at(folder))?;
        let control_path = folder.join("control");
        let reading = named_pipe(&control_path).map_err(at(folder))?;
        let control =
            rustix::fs::open(&control_path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| at(&control_path)(error.into()))?;
        let end = register(end).map_err(at(folder))?;
        let mut targets = vec![folder, plan.files.target()];
        targets.extend(plan.shared.iter().map(|(path, _)| path.as_path()).filter(|path| path.is_dir()));
        make_mount_points(plan.temporary, &targets).map_err(at(plan.temporary))?;
        let (mount, overlay) = files_mount(engine, plan).await?;
        let refused = |cause| ContainerFault::not_started(cause, plan.settings);
        let description = description(plan, mount, engine.own_user());
        let id = engine.create(plan.name, description.clone()).await.map_err(refused)?;
        engine.start(&id).await.map_err(refused)?;
        let mut container = Self {
            engine: engine.clone(),
            id,
            name: plan.name.to_owned(),
            description,
            overlay,
            folder: folder.to_owned(),
            control,
            end,
            told: Vec::new(),
            n_steps: 0,
            shell: 1,
            is_busy: false,
            group: None,
            used: Usage::default(),
            memory_kills: 0,
        };
        let has_entrypoint = !plan.settings.entrypoint.is_empty();
        // Asked while the first process starts.
        let id = container.id.clone();
        let (facts, ready) = tokio::join!(engine.container(&id), container.until_ready(has_entrypoint));
        ready?;
        container.group = ControlGroup::of(facts?.state.pid, &id);
        container.used = container.group.as_ref().and_then(ControlGroup::usage).unwrap_or_default();
        // Only the container reads now: when we are gone it finds its end.
        drop(reading);
        Ok(container)
    }

    async fn until_ready(&mut self, has_entrypoint: bool) -> Result<(), ContainerFault> {
        // One that cannot even start its first process opens nothing; so the engine is asked too.
        let latest = tokio::time::Instant::now() + READY_MAX;
        loop {
            let told = tokio::time::timeout(READY_ASKED_EVERY, self.told_until(b" ready\n")).await;
            if let Ok(Ok(told)) = told {
                self.shell = told.trim().parse().unwrap_or(1);
                return Ok(());
            }
            let state = self.engine.container(&self.id).await?.state;
            if !state.running {
                return Err(ContainerFault::Ended { code: state.exit_code, has_entrypoint });
            }
            if tokio::time::Instant::now() > latest {
                return Err(ContainerFault::Silent);
            }
        }
    }

    /// What the first process tells up to these bytes, without them; an error if it has ended. Cancel safe.
    async fn told_until(&mut self, last: &[u8]) -> io::Result<String> {
        loop {
            if let Some(length) = memchr::memmem::find(&self.told, last) {
                let told: Vec<u8> = self.told.drain(..length + last.len()).collect();
                return Ok(String::from_utf8_lossy(&told[..length]).into_owned());
            }
            if self.told.len() > END_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut buffer = [0; 512];
            let mut ready = self.end.readable().await?;
            match ready.try_io(|end| Ok(rustix::io::read(end.get_ref(), &mut buffer)?)) {
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(length)) => self.told.extend_from_slice(&buffer[..length]),
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Pipes for the next step.
    ///
    /// # Errors
    /// The system refuses them.
    pub fn channels(&self) -> io::Result<Channels> {
        let pipe = |name: &str| {
            let path = self.folder.join(format!("{name}-{}", self.n_steps));
            let read = named_pipe(&path)?;
            // Held, so that the pipe does not look as if it had ended before the step has opened it.
            let write = rustix::fs::open(&path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
            Ok::<_, io::Error>((read, write))
        };
        let ((out, out_write), (err, err_write)) = (pipe("stdout")?, pipe("stderr")?);
        Channels::of([out, err], [out_write, err_write])
    }

    /// Starts the next step, which prints into the pipes that [`JobContainer::channels`] gave just before.
    ///
    /// # Errors
    /// The system refuses the script's file, or the container is gone.
    pub fn begin(&mut self, command: &Command) -> io::Result<()> {
        let number = self.n_steps;
        self.n_steps += 1;
        std::fs::write(self.folder.join(format!("step-{number}")), script(command))?;
        if let Some(group) = &self.group {
            group.forget_peak();
        }
        rustix::io::write(&self.control, format!("{number}\n").as_bytes())?;
        self.is_busy = true;
        Ok(())
    }

    /// Waits for the end of the step that was begun. Cancel safe.
    pub async fn ended(&mut self) -> Result<Ended, Gone> {
        let told = match self.told_until(b"\n.\n").await {
            Ok(told) => told,
            Err(_) => return Err(Gone(self.how_it_ended().await)),
        };
        let Some(code) = code(&told) else {
            return Err(Gone(format!("the container's shell told the step's end as {told:?}, which is no exit code")));
        };
        self.is_busy = false;
        let lines: Vec<&str> = told.lines().collect();
        let all = match self.group.as_ref().map(ControlGroup::usage) {
            Some(used) => used,
            // The second line of `times` is that of the children.
            None => lines.get(2).and_then(|line| times(line)),
        };
        let all = all.unwrap_or(self.used);
        let usage = Usage {
            cpu_user_us: all.cpu_user_us.saturating_sub(self.used.cpu_user_us),
            cpu_system_us: all.cpu_system_us.saturating_sub(self.used.cpu_system_us),
            peak_memory_bytes: all.peak_memory_bytes,
        };
        self.used = all;
        Ok(Ended { ending: Ending::Exited(code), usage })
    }

    /// How many of its processes the kernel has killed for want of memory since this was asked last.
    pub fn new_memory_kills(&mut self) -> u64 {
        let all = self.group.as_ref().map_or(0, ControlGroup::memory_kills);
        all - std::mem::replace(&mut self.memory_kills, all).min(all)
    }

    /// Why the first process has ended, as far as the engine knows.
    async fn how_it_ended(&self) -> String {
        match self.engine.container(&self.id).await {
            Ok(facts) if facts.state.out_of_memory => "the container ran out of memory and ended".to_owned(),
            Ok(facts) if !facts.state.running => {
                format!("the container ended with code {} while the step ran", facts.state.exit_code)
            }
            Ok(_) => "the container's first process no longer answers".to_owned(),
            Err(error) if error.is_absent() => "somebody removed the container while the step ran".to_owned(),
            Err(error) => format!("the container is gone: {error}"),
        }
    }

    /// What ends the step: a signal to all processes of the container but its shell and what started that; where the engine
    /// cannot give it, the container's end.
    pub fn stopper(&self) -> Stopper {
        Stopper { engine: self.engine.clone(), id: self.id.clone(), shell: self.shell }
    }

    /// Gives what other users have made below these paths to the user of this process, who could neither read nor remove it. Nobody may
    /// run in it any more.
    ///
    /// # Errors
    /// Why that cannot be.
    pub async fn give_back(&self, paths: &[&Path]) -> Result<(), String> {
        let own = self.engine.own_user();
        let user = own.split(':').next().unwrap_or_default();
        let mut script = b"exec find".to_vec();
        for path in paths {
            script.push(b' ');
            push_quoted(&mut script, path.as_os_str().as_encoded_bytes());
        }
        // The layers' other files are this user's already, so that nothing of them is copied.
        script.extend_from_slice(format!(" ! -user {user} -exec chown -h {own} {{}} +").as_bytes());
        let script = String::from_utf8_lossy(&script);
        let code = match self.engine.is_podman() {
            true => self.engine.execute(&self.id, "0", &script).await,
            false => self.run_beside(&script).await,
        };
        match code {
            Ok(0) => Ok(()),
            Ok(126 | 127) => Err("the image has no `find` and `chown`".to_owned()),
            Ok(code) => Err(format!("the image's `find` and `chown` ended with code {code}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Runs a script as root in a container with the same files, and gives its exit code. In that of another user Docker gives root no rights.
    async fn run_beside(&self, script: &str) -> Result<i32, EngineError> {
        let mut container = self.description.clone();
        container["Entrypoint"] = json!(["/bin/sh", "-c", script]);
        container["Cmd"] = json!([]);
        container["User"] = json!("0");
        container["HostConfig"]["NetworkMode"] = json!("none");
        container["HostConfig"]["ExtraHosts"] = json!([]);
        let name = format!("{}-owner", self.name);
        let ran = async {
            let id = self.engine.create(&name, container).await?;
            self.engine.start(&id).await?;
            self.engine.ended(&id).await?;
            Ok(self.engine.container(&id).await?.state.exit_code)
        };
        let ran = ran.await;
        let removed = self.engine.remove(Kind::Container, &name).await;
        let code: i64 = ran?;
        removed?;
        Ok(i32::try_from(code).unwrap_or(1))
    }

    /// Removes it, with all that runs in it.
    ///
    /// # Errors
    /// The engine cannot be reached, or refuses.
    pub async fn remove(self) -> Result<(), EngineError> {
        let Self { engine, id, overlay, folder, control, is_busy, .. } = self;
        // Without its pipe the first process ends by itself, and all others with it: Docker would start a program to kill one. Podman asks
        // only four times a second whether one has ended, and refuses to kill one that is just ending.
        let held = if is_busy || engine.is_podman() {
            Some(control)
        } else {
            drop(control);
            let _ = tokio::time::timeout(ENDS_MAX, engine.ended(&id)).await;
            None
        };
        engine.remove(Kind::Container, &id).await?;
        drop(held);
        if let Some(overlay) = &overlay {
            engine.remove(Kind::Volume, &overlay.name).await?;
            overlay.empty_work(&engine).await?;
        }
        let _ = std::fs::remove_dir_all(&folder);
        Ok(())
    }
}

/// The volume of a job's layers.
struct OverlayVolume {
    name: String,
    /// The kernel's own directory for them.
    work: PathBuf,
    image: String,
    labels: Value,
}

impl OverlayVolume {
    /// Lets nothing stay in the kernel's directory that this process cannot take away. An engine of root's leaves a directory of root's there;
    /// after a deletion it holds a whiteout. The kernel itself empties it when it is mounted the next time, for whatever layers.
    async fn empty_work(&self, engine: &Engine) -> Result<(), EngineError> {
        if rustix::process::getuid().is_root() || engine.is_rootless {
            return Ok(());
        }
        match std::fs::remove_dir(self.work.join("work")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {}
            _ => return Ok(()),
        }
        let scratch = self.work.with_file_name("emptying");
        let (lower, upper) = (scratch.join("lower"), scratch.join("upper"));
        if [&lower, &upper].into_iter().try_for_each(std::fs::create_dir_all).is_err() {
            // Whoever needs the directory will say what is wrong.
            return Ok(());
        }
        let name = format!("{}-emptying", self.name);
        let emptied = self.mount_once(engine, &name, &lower, &upper).await;
        let _ = engine.remove(Kind::Container, &name).await;
        let _ = engine.remove(Kind::Volume, &name).await;
        let _ = std::fs::remove_dir_all(&scratch);
        emptied
    }

    async fn mount_once(&self, engine: &Engine, name: &str, lower: &Path, upper: &Path) -> Result<(), EngineError> {
        let options = format!(
            "lowerdir={},upperdir={},workdir={},{}",
            option_path(lower, Separator::Colon),
            option_path(upper, Separator::None),
            option_path(&self.work, Separator::None),
            View::attributes_option(),
        );
        engine.create_volume(overlay_volume(name, &options, &self.labels)).await?;
        let mount = json!({
            "Type": "volume",
            "Source": name,
            "Target": "/emptying",
            "VolumeOptions": { "NoCopy": true },
        });
        let container = json!({
            "Image": self.image,
            "Entrypoint": ["/bin/sh"],
            "Cmd": ["-c", ":"],
            "User": "0",
            "Labels": self.labels,
            "WorkingDir": "/",
            "HostConfig": { "Mounts": [mount], "SecurityOpt": ["no-new-privileges"], "NetworkMode": "none" },
        });
        let id = engine.create(name, container).await?;
        engine.start(&id).await?;
        engine.ended(&id).await
    }
}

fn overlay_volume(name: &str, options: &str, labels: &Value) -> Value {
    json!({
        "Name": name,
        "Driver": "local",
        "DriverOpts": { "type": "overlay", "device": "overlay", "o": options },
        "Labels": labels,
    })
}

/// Sends signals to what runs in a container.
pub struct Stopper {
    engine: Engine,
    id: String,
    shell: u32,
}

impl Stopper {
    /// Sends it to all processes but the shell that runs the steps and what started that.
    pub async fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Terminate => "TERM",
            Signal::Interrupt => "INT",
            Signal::Kill => "KILL",
        };
        let sent = self.engine.execute(&self.id, "", &signal_script(name, self.shell)).await;
        if sent.is_err() && signal == Signal::Kill {
            let _ = self.engine.remove(Kind::Container, &self.id).await;
        }
    }
}

/// What sends a signal to every process of a container but this shell, what started that, and itself.
fn signal_script(name: &str, shell: u32) -> String {
    if shell == 1 {
        // The kernel spares the first process, and lets none be born meanwhile.
        return format!("kill -s {name} -- -1");
    }
    format!("signal={name} process={shell}\n{SIGNAL_ALL}")
}

/// The end of a step as the container's shell told it.
fn code(told: &str) -> Option<i32> {
    told.lines().next()?.trim().parse().ok()
}

/// Makes the places in what becomes `/tmp` at which something else will be mounted: an engine would make them as root, and nobody else could
/// remove them.
pub(super) fn make_mount_points(temporary: &Path, targets: &[&Path]) -> io::Result<()> {
    for target in targets.iter().filter_map(|target| target.strip_prefix("/tmp").ok()) {
        std::fs::create_dir_all(temporary.join(target))?;
    }
    Ok(())
}

/// How the files are mounted, and the volume that was made for it.
async fn files_mount(engine: &Engine, plan: &Plan<'_>) -> Result<(Value, Option<OverlayVolume>), ContainerFault> {
    match &plan.files {
        Files::Directory { from, at } => Ok((json!({ "Type": "bind", "Source": from, "Target": at }), None)),
        Files::Layers(view) => {
            let options = layer_options(view)?;
            let name = plan.name.to_owned();
            engine.create_volume(overlay_volume(&name, &options, plan.labels)).await?;
            let mount = json!({
                "Type": "volume",
                "Source": name,
                "Target": view.target,
                // What the image has at that place is not wanted.
                "VolumeOptions": { "NoCopy": true },
            });
            let (work, image) = (view.work.clone(), plan.image.to_owned());
            Ok((mount, Some(OverlayVolume { name, work, image, labels: plan.labels.clone() })))
        }
    }
}

/// The container as the engine is told.
fn description(plan: &Plan<'_>, files: Value, own: String) -> Value {
    let bind = |source: &Path, target: &Path, access: Access| json!({ "Type": "bind", "Source": source, "Target": target, "ReadOnly": access == Access::Read });
    let mut mounts = vec![files, bind(plan.temporary, Path::new("/tmp"), Access::Write)];
    mounts.push(bind(plan.folder, plan.folder, Access::Read));
    mounts.extend(plan.shared.iter().map(|(path, access)| bind(path, path, *access)));
    let settings = plan.settings;
    let user = if settings.user.is_empty() { own } else { settings.user.to_string() };
    let hosts: Vec<String> = plan.hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect();
    let mut entrypoint = settings.entrypoint.clone();
    let mut command = vec![plan.folder.join("first.sh").display().to_string(), plan.folder.display().to_string()];
    match entrypoint.is_empty() {
        true => entrypoint.push("/bin/sh".to_owned()),
        false => command.insert(0, "/bin/sh".to_owned()),
    }
    // A period of 100 ms, so thousandths of a processor are hundreds of microseconds. Less than a hundredth is refused.
    let quota = (plan.resources.cpu_milli > 0).then(|| plan.resources.cpu_milli.saturating_mul(100).max(1000));
    json!({
        "Image": plan.image,
        "Entrypoint": entrypoint,
        "Cmd": command,
        "User": user,
        "Labels": plan.labels,
        "WorkingDir": "/",
        "HostConfig": {
            "Mounts": mounts,
            "SecurityOpt": ["no-new-privileges"],
            "NetworkMode": plan.network,
            "ExtraHosts": hosts,
            "CpuPeriod": if quota.is_some() { 100_000 } else { 0 },
            "CpuQuota": quota.unwrap_or(0),
            "Memory": plan.resources.memory_bytes,
        },
    })
}

/// The script that becomes the step: its directory, its variables, its program.
fn script(command: &Command) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let mut text = b"cd ".to_vec();
    push_quoted(&mut text, command.directory.as_os_str().as_bytes());
    text.extend_from_slice(b" || exit 126\n");
    let is_plain = |name: &[u8]| {
        let first = name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
        first && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    };
    let (plain, odd): (Vec<_>, Vec<_>) = command.environment.iter().partition(|(name, _)| is_plain(name.as_bytes()));
    for (name, value) in plain {
        text.extend_from_slice(b"export ");
        text.extend_from_slice(name.as_bytes());
        text.push(b'=');
        push_quoted(&mut text, value.as_bytes());
        text.push(b'\n');
    }
    text.extend_from_slice(b"exec");
    if !odd.is_empty() {
        // Names that a shell has no variables of.
        text.extend_from_slice(b" env");
        for (name, value) in odd {
            text.push(b' ');
            push_quoted(&mut text, &[name.as_bytes(), b"=", value.as_bytes()].concat());
        }
    }
    for word in std::iter::once(&command.program).chain(&command.arguments) {
        text.push(b' ');
        push_quoted(&mut text, word.as_bytes());
    }
    text.push(b'\n');
    text
}

/// A line of `times`: `0m1.250s 0m0.010s`.
fn times(line: &str) -> Option<Usage> {
    let microseconds = |text: &str| {
        let (minutes, seconds) = text.strip_suffix('s')?.split_once('m')?;
        let seconds: f64 = seconds.parse().ok()?;
        let minutes: u32 = minutes.parse().ok()?;
        let all = f64::from(minutes).mul_add(60.0, seconds);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between zero and 2^32 minutes")]
        (0.0..1e12).contains(&all).then_some((all * 1e6) as u64)
    };
    let (user, system) = line.split_once(' ')?;
    Some(Usage { cpu_user_us: microseconds(user)?, cpu_system_us: microseconds(system.trim())?, peak_memory_bytes: 0 })
}

/// The variables that an image sets, with a `PATH` if it has none.
pub fn image_variables(pairs: &[String]) -> Variables {
    let mut variables = Variables::default();
    variables.insert("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    for (name, value) in pairs.iter().filter_map(|pair| pair.split_once('=')) {
        variables.insert(name, value);
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_escaped_as_the_kernel_reads_them() {
        let view = View {
            target: "/t".into(),
            lower: vec!["/a:b,c".into(), "/d\\e".into()],
            upper: "/u:p,p".into(),
            work: "/w".into(),
            beside: None,
        };
        let options = layer_options(&view).expect("they are short");
        let layers = "lowerdir=/a\\:b\\,c:/d\\\\e,upperdir=/u:p\\,p,workdir=/w,";
        assert!(options.starts_with(layers), "{options}");
        let long = View { lower: vec![format!("/{}", "x".repeat(5000)).into()], ..view };
        assert!(matches!(layer_options(&long), Err(ContainerFault::Layers(_))));
    }

    #[test]
    fn a_step_is_a_script_that_quotes_everything() {
        let mut command = Command::shell("", &[], b"").expect("no memory is asked for");
        command.program = "/bin/sh".into();
        command.arguments = vec!["-e".into(), "it's".into()];
        command.directory = "/a b".into();
        command.environment.insert("A", "x'\ny");
        command.environment.insert("odd-name", "$(z)");
        let text = String::from_utf8(script(&command)).expect("all of it is text");
        let expected =
            "cd '/a b' || exit 126\nexport A='x'\\''\ny'\nexec env 'odd-name=$(z)' '/bin/sh' '-e' 'it'\\''s'\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_end_that_cannot_be_read_is_none() {
        assert_eq!(code("143\n0m0.010s 0m0.000s\n0m1.250s 0m0.010s"), Some(143));
        assert_eq!(code(""), None);
        assert_eq!(code("sh: out of memory\n0"), None);
    }

    #[test]
    fn times_are_read() {
        let usage = |user, system| Usage { cpu_user_us: user, cpu_system_us: system, peak_memory_bytes: 0 };
        assert_eq!(times("0m1.250s 0m0.010s"), Some(usage(1_250_000, 10_000)));
        assert_eq!(times("2m0.00s 0m0.00s"), Some(usage(120_000_000, 0)));
        assert_eq!(times("what"), None);
    }
}
