//! A command in a container like that of a job that has ended: its image, files, variables, user and directory.
//!
//! It goes through the engine's own program (`docker`, `podman`), because a terminal goes over its connection; everything else here
//! speaks to the engine itself. No service is there, and nothing runs again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use graph::Network;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::engine::{Engine, EngineError};
use super::image::Resolved;
use super::job::{ContainerFault, layer_options, make_mount_points};
use super::leftover::{DATA_LABEL, data_label, notes_directory};
use crate::keeper::View;

/// What brings the volume and the container up, and takes both away.
const VISIT: &str = include_str!("visit.sh");

/// What the names of notes of visits begin with; the number of the process that opened it follows.
const NOTE: &str = "visit.";

/// How many visits this process has had.
static VISITS: AtomicU64 = AtomicU64::new(0);

/// Where a container ran, so that another one like it can be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftContainer {
    /// The image's digest, as the engine has it.
    pub image: String,
    /// How a registry knows it, `NAME@sha256:…`; empty if none does, and in what was kept before it was noted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pin: String,
    /// `docker` or `podman`.
    pub program: String,
    /// The engine's socket.
    pub socket: PathBuf,
}

impl LeftContainer {
    pub(crate) fn new(engine: &Engine, image: &Resolved) -> Self {
        let pin = if image.pin.contains('@') { image.pin.clone() } else { String::new() };
        let (image, socket) = (image.facts.id.clone(), engine.socket().to_owned());
        Self { image, pin, program: program_of(engine).to_owned(), socket }
    }

    /// The engine that it ran in; where that does not answer, as on another worker, the one that is here. And which image is to be taken,
    /// and whether it is to be fetched.
    fn found(&self) -> Result<(Engine, &str, Fetching), VisitError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(VisitError::Prepare)?;
        let found = async {
            let engine = match Engine::at(&self.socket).await {
                Ok(engine) => engine,
                Err(_) => Engine::find().await?,
            };
            for image in [&self.image, &self.pin].into_iter().filter(|image| !image.is_empty()) {
                match engine.image(image).await {
                    Ok(_) => return Ok((engine, image.as_str(), Fetching::Unneeded)),
                    Err(error) if !error.is_absent() => return Err(error.into()),
                    _ => {}
                }
            }
            match self.pin.is_empty() {
                true => Err(VisitError::NoImage(self.image.clone())),
                false => Ok((engine, self.pin.as_str(), Fetching::Needed)),
            }
        };
        // Whoever asks may be driven by a runtime, and nobody waits in two.
        let asked = std::thread::scope(|scope| scope.spawn(move || runtime.block_on(found)).join());
        asked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Whether an image is to be fetched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fetching {
    Needed,
    Unneeded,
}

fn program_of(engine: &Engine) -> &'static str {
    if engine.is_podman() { "podman" } else { "docker" }
}

/// Why a container cannot be visited.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// There is no program to open a terminal with.
    #[error("the program `{0}` is needed to open a shell in a container: install the package that has it")]
    NoProgram(String),
    /// The engine cannot be asked.
    #[error("{}", .0.with_hint())]
    Engine(#[from] EngineError),
    /// The image is not here, and nobody has it.
    #[error(
        "the job's image {0} is not with the container engine of this machine, and no registry is known to have it: it was built or loaded \
         where the job ran; while that worker is there, it opens the shell"
    )]
    NoImage(String),
    /// The layers cannot be mounted.
    #[error(transparent)]
    Layers(#[from] ContainerFault),
    /// The system refused.
    #[error("prepare the shell's container: {0}")]
    Prepare(io::Error),
}

/// What a visit has with an engine, as a note in the data directory says. It is taken away when this is dropped, if the visit did not do so
/// itself; of a process that was killed, by [`remove_left_visits`].
#[derive(Debug)]
pub struct Visiting {
    note: PathBuf,
}

impl Drop for Visiting {
    fn drop(&mut self) {
        remove(&self.note);
    }
}

/// A mount as the engines' programs take it: `--volume` splits at colons, which paths may have. Of a volume nothing of the image's is wanted.
fn mount(kind: &str, from: &str, at: &Path) -> String {
    // A list as CSV has it: a field with a comma or a quotation mark in it stands between such marks.
    let field = |name: &str, value: &str| format!("\"{name}={}\"", value.replace('"', "\"\""));
    format!("--mount=type={kind},{},{}", field("source", from), field("target", &at.display().to_string()))
}

/// The volume of a visit's `/tmp`.
fn temporary_volume(visit: &str) -> String {
    format!("{visit}-tmp")
}

/// Takes away what a note tells of, and the note. It stays where the engine does not answer.
fn remove(note: &Path) {
    let Ok(text) = fs::read_to_string(note) else { return };
    if let [program, reach, name] = text.lines().collect::<Vec<_>>()[..] {
        let call = |arguments: &[&str]| {
            let mut command = Command::new(program);
            command.arg(reach).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        // Of a container that is not there an engine complains, and some do of a volume.
        call(&["rm", "-f", name]);
        call(&["volume", "rm", "-f", &temporary_volume(name)]);
        if !call(&["volume", "rm", "-f", name]) {
            return;
        }
    }
    let _ = fs::remove_file(note);
}

/// Takes away what shells in containers left whose `ropewalk` was killed. How many.
pub(crate) fn remove_left_visits(data: &Path) -> usize {
    let notes = fs::read_dir(notes_directory(data)).into_iter().flatten().flatten();
    let is_left = |note: &PathBuf| {
        let process =
            note.file_name().and_then(|name| name.to_str()?.strip_prefix(NOTE)?.split_once('.')?.0.parse().ok());
        let process = process.and_then(Pid::from_raw);
        process.is_some_and(|process| rustix::process::test_kill_process(process) == Err(rustix::io::Errno::SRCH))
    };
    let left: Vec<PathBuf> = notes.map(|entry| entry.path()).filter(is_left).collect();
    left.iter().for_each(|note| remove(note));
    left.len()
}

/// What is entered.
pub struct Visit<'v> {
    /// The data directory, where is noted that there is a visit.
    pub data: &'v Path,
    /// Where it ran.
    pub left: &'v LeftContainer,
    /// As the job says.
    pub settings: &'v graph::Container,
    /// The layers of the files; without them the tree itself is seen.
    pub view: Option<&'v View>,
    /// The tree, as steps saw it.
    pub tree: &'v Path,
    /// The layers of `/tmp`, if it is seen through any.
    pub temporary_view: Option<&'v View>,
    /// What becomes `/tmp` otherwise.
    pub temporary: &'v Path,
    /// Where the command begins.
    pub directory: &'v Path,
    /// Its variables. Values do not stand in the command line.
    pub variables: &'v BTreeMap<String, String>,
}

impl Visit<'_> {
    /// The command that runs `program` inside, and what is to be held while it runs. Its own variables are those inside.
    ///
    /// # Errors
    /// [`VisitError`].
    pub fn command(
        &self,
        program: &std::ffi::OsStr,
        arguments: &[OsString],
    ) -> Result<(Command, Visiting), VisitError> {
        remove_left_visits(self.data);
        let (engine, image, fetching) = self.left.found()?;
        let program_of = program_of(&engine);
        let client = find_program(program_of).ok_or_else(|| VisitError::NoProgram(program_of.to_owned()))?;
        let reach = match engine.is_podman() {
            true => format!("--url=unix://{}", engine.socket().display()),
            false => format!("--host=unix://{}", engine.socket().display()),
        };
        let process = format!("{}.{}", std::process::id(), VISITS.fetch_add(1, Ordering::Relaxed));
        let name = format!("ropewalk-{}-visit-{process}", data_label(self.data));
        let options = self.view.map(layer_options).transpose()?.unwrap_or_default();
        let temporary_options = self.temporary_view.map(layer_options).transpose()?.unwrap_or_default();
        let visiting = Visiting { note: notes_directory(self.data).join(format!("{NOTE}{process}")) };
        fs::create_dir_all(notes_directory(self.data)).map_err(VisitError::Prepare)?;
        let text = format!("{}\n{reach}\n{name}\n", client.display());
        fs::write(&visiting.note, text).map_err(VisitError::Prepare)?;
        let target = self.view.map_or(self.tree, |view| &view.target);
        let temporary = self.temporary_view.map_or(self.temporary, |view| &view.upper);
        make_mount_points(temporary, &[target]).map_err(VisitError::Prepare)?;
        let fetched = if fetching == Fetching::Needed { image } else { "" };
        let label = format!("{DATA_LABEL}={}", data_label(self.data));
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(VISIT).arg("visit").arg(client).args([&reach, &name, &options, fetched, &label]);
        command.arg(&visiting.note).arg(&temporary_options);
        match self.view {
            Some(view) => command.arg(mount("volume", &name, &view.target)),
            None => command.arg(mount("bind", &self.tree.display().to_string(), self.tree)),
        };
        match self.temporary_view {
            Some(_) => command.arg(mount("volume", &temporary_volume(&name), Path::new("/tmp"))),
            None => command.arg(mount("bind", &self.temporary.display().to_string(), Path::new("/tmp"))),
        };
        command.arg("--workdir").arg(self.directory).args(["--security-opt", "no-new-privileges"]);
        let user = if self.settings.user.is_empty() { engine.own_user() } else { self.settings.user.to_string() };
        command.arg("--user").arg(user);
        if self.settings.network == Network::Off {
            command.args(["--network", "none"]);
        }
        command.env_clear();
        for (name, value) in self.variables {
            match name.as_str() {
                // The engine's program has its own.
                "HOME" => command.arg("--env").arg(format!("HOME={value}")),
                // By name alone: the value is taken from the program's own variables.
                _ => command.arg("--env").arg(name).env(name, value),
            };
        }
        command.envs(std::env::var_os("HOME").map(|home| ("HOME", home)));
        command.arg("--entrypoint").arg(program).arg(image).args(arguments);
        Ok((command, visiting))
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_said_so_that_no_path_breaks_them() {
        let said = mount("bind", "/a:b,c", Path::new("/with \"marks\""));
        assert_eq!(said, "--mount=type=bind,\"source=/a:b,c\",\"target=/with \"\"marks\"\"\"");
    }
}
