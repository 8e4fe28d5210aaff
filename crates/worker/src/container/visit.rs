//! A command in a container like that of a job that has ended: its image, files, variables, user and directory.
//!
//! It goes through the engine's own program (`docker`, `podman`), because a terminal goes over its connection; everything else here
//! speaks to the engine itself. No service is there, and nothing runs again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use graph::Network;
use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::job::{ContainerFault, layer_options};
use crate::keeper::View;

/// What brings the volume and the container up, and takes the volume away.
const VISIT: &str = include_str!("visit.sh");

/// How many visits this process has had.
static VISITS: AtomicU64 = AtomicU64::new(0);

/// Where a container ran, so that another one like it can be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftContainer {
    /// The image's digest, as the engine has it.
    pub image: String,
    /// `docker` or `podman`.
    pub program: String,
    /// The engine's socket.
    pub socket: PathBuf,
}

impl LeftContainer {
    pub(crate) fn new(engine: &Engine, image: &str) -> Self {
        let program = if engine.version.starts_with("Podman") { "podman" } else { "docker" };
        Self { image: image.to_owned(), program: program.to_owned(), socket: engine.socket().to_owned() }
    }
}

/// Why a container cannot be visited.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// There is no program to open a terminal with.
    #[error("the program `{0}` is needed to open a shell in a container: install the package that has it")]
    NoProgram(String),
    /// The layers cannot be mounted.
    #[error(transparent)]
    Layers(#[from] ContainerFault),
}

/// What is entered.
pub struct Visit<'v> {
    /// Where it ran.
    pub left: &'v LeftContainer,
    /// As the job says.
    pub settings: &'v graph::Container,
    /// The layers of the files; without them the tree itself is seen.
    pub view: Option<&'v View>,
    /// The tree, as steps saw it.
    pub tree: &'v Path,
    /// What becomes `/tmp`.
    pub temporary: &'v Path,
    /// Where the command begins.
    pub directory: &'v Path,
    /// Its variables. Values do not stand in the command line.
    pub variables: &'v BTreeMap<String, String>,
}

impl Visit<'_> {
    /// The command that runs `program` inside. Its own variables are those inside.
    ///
    /// # Errors
    /// [`VisitError`].
    pub fn command(&self, program: &std::ffi::OsStr, arguments: &[OsString]) -> Result<Command, VisitError> {
        let engine =
            find_program(&self.left.program).ok_or_else(|| VisitError::NoProgram(self.left.program.clone()))?;
        let socket = self.left.socket.display();
        let reach = if self.left.program == "podman" {
            format!("--url=unix://{socket}")
        } else {
            format!("--host=unix://{socket}")
        };
        let visit = VISITS.fetch_add(1, Ordering::Relaxed);
        let volume = format!("ropewalk-visit-{}-{visit}", std::process::id());
        let options = self.view.map(layer_options).transpose()?.unwrap_or_default();
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(VISIT).arg("visit").arg(engine).arg(reach).arg(&volume).arg(&options);
        let mount = |from: &dyn std::fmt::Display, at: &Path| format!("--volume={from}:{}", at.display());
        match self.view {
            Some(view) => command.arg(mount(&volume, &view.target)),
            None => command.arg(mount(&self.tree.display(), self.tree)),
        };
        command.arg(mount(&self.temporary.display(), Path::new("/tmp")));
        command.arg("--workdir").arg(self.directory).args(["--security-opt", "no-new-privileges"]);
        let own = || format!("{}:{}", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let user = if self.settings.user.is_empty() { own() } else { self.settings.user.to_string() };
        command.arg("--user").arg(user);
        if self.settings.network == Network::Off {
            command.args(["--network", "none"]);
        }
        command.env_clear();
        for (name, value) in self.variables {
            // By name alone: the value is taken from the program's own variables.
            command.arg("--env").arg(name).env(name, value);
        }
        command.arg("--entrypoint").arg(program).arg(&self.left.image).args(arguments);
        Ok(command)
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file())
}
