//! The walls around a sandboxed step, built by bubblewrap (`bwrap`), which is called and not imitated.
//!
//! A step gets PID, IPC, UTS and, if asked, network namespaces of its own, no capability, no new privileges, fresh `/dev` and
//! `/proc`, and a `/tmp` that belongs to its job. The system is there, read-only; so is the home directory, because
//! toolchains live in it, without what commonly holds credentials. `/run` is empty but for name resolution, so no
//! daemon's socket (Docker's above all) is a way out. Writable are the workspace, `/tmp` and what the caller names.
//! When a step ends, everything it started ends with it. There is no weaker form: without bubblewrap nothing runs.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use graph::Network;

use crate::keeper::{Command, Role};

/// Directories of the home that commonly hold credentials; a step finds them empty.
const SECRET_DIRECTORIES: [&str; 12] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".config/gcloud",
    ".config/gh",
    ".config/hub",
    ".config/op",
    ".local/share/keyrings",
    ".password-store",
];

/// Files of the home that commonly hold credentials; a step finds them empty.
const SECRET_FILES: [&str; 9] = [
    ".netrc",
    ".git-credentials",
    ".config/git/credentials",
    ".npmrc",
    ".pypirc",
    ".cargo/credentials.toml",
    ".cargo/credentials",
    ".gem/credentials",
    ".vault-token",
];

/// What stays visible of `/run`: name resolution, and where NixOS has its programs.
const RUN_KEPT: [&str; 4] = ["/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/current-system"];

/// A bubblewrap that works on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    program: PathBuf,
}

/// Why this machine can have no sandbox. The words say what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// There is no `bwrap`.
    #[error("no program `bwrap` was found: install the package `bubblewrap`")]
    NotInstalled,
    /// It is there and the system lets it do nothing.
    #[error("bubblewrap cannot make a sandbox here: {words}{}", hint.map(|hint| format!("; {hint}")).unwrap_or_default())]
    Refused {
        /// Its own words.
        words: String,
        /// What forbids it, if that is known.
        hint: Option<&'static str>,
    },
    /// It could not be started.
    #[error("start bubblewrap")]
    Start(#[source] io::Error),
}

/// What one job's sandbox opens and closes.
#[derive(Clone, Debug)]
pub struct Walls<'a> {
    /// The workspace's root as the step sees it; writable.
    pub root: &'a Path,
    /// A directory of the job that becomes `/tmp`.
    pub temporary: &'a Path,
    /// Whether the machine's network is reached.
    pub network: Network,
    /// Directories that the step finds empty: where `ropewalk` keeps its data. Those that do not exist are left out.
    pub hidden: &'a [PathBuf],
    /// Directories that are writable at their own place, even within a hidden one: where the step hands on values.
    pub writable: &'a [PathBuf],
    /// Files that are there, read-only, even within a hidden directory. Those that do not exist are left out.
    pub readable: &'a [PathBuf],
}

impl Sandbox {
    /// Finds bubblewrap and tries it. To be asked once, when a worker starts.
    ///
    /// # Errors
    /// [`SandboxError`] says what to install or which setting forbids it.
    pub fn probe() -> Result<Self, SandboxError> {
        let Self { program } = Self::find()?;
        let arguments = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-pid", "--unshare-ipc"];
        let output = std::process::Command::new(&program)
            .args(arguments)
            .args(["--unshare-uts", "--unshare-net", "--cap-drop", "ALL", "--die-with-parent", "true"])
            .stdin(Stdio::null())
            .output()
            .map_err(SandboxError::Start)?;
        if output.status.success() {
            return Ok(Self { program });
        }
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(SandboxError::Refused { words, hint: hint() })
    }

    /// Finds bubblewrap without trying it, for callers that learn from their first use of it whether it works.
    ///
    /// # Errors
    /// [`SandboxError::NotInstalled`].
    pub fn find() -> Result<Self, SandboxError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places = std::env::split_paths(&path).map(|directory| directory.join("bwrap"));
        places.find(|program| program.is_file()).map(|program| Self { program }).ok_or(SandboxError::NotInstalled)
    }

    /// Where bubblewrap is.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Puts walls around a command: afterwards it starts bubblewrap, which starts it. `TMPDIR` and, where it is not set,
    /// `XDG_CACHE_HOME` are turned to the job's `/tmp`.
    pub fn enclose(&self, command: &mut Command, walls: &Walls) {
        let mut arguments = self.arguments(walls, home(command).as_deref());
        arguments.extend(["--chdir".into(), command.directory.clone().into_os_string(), "--".into()]);
        arguments.push(std::mem::replace(&mut command.program, self.program.clone().into_os_string()));
        arguments.append(&mut command.arguments);
        command.arguments = arguments;
        command.role = Role::Wrapper;
        command.environment.insert("TMPDIR", "/tmp");
        if command.environment.get("XDG_CACHE_HOME").is_none() {
            command.environment.insert("XDG_CACHE_HOME", "/tmp/.cache");
        }
    }

    /// bubblewrap's options. Later ones cover earlier ones: what is writable comes late, credentials are hidden last.
    fn arguments(&self, walls: &Walls, home: Option<&Path>) -> Vec<OsString> {
        let mut options = Options(Vec::with_capacity(64));
        options.flags(&["--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--cap-drop", "ALL"]);
        if walls.network == Network::Off {
            options.flags(&["--unshare-net"]);
        }
        options.flags(&["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]);
        options.flags(&["--tmpfs", "/run", "--tmpfs", "/var/tmp"]);
        for kept in RUN_KEPT {
            options.flags(&["--ro-bind-try", kept, kept]);
        }
        options.bind("--bind", walls.temporary, Path::new("/tmp"));
        for hidden in walls.hidden.iter().filter(|path| path.is_dir()) {
            options.at("--tmpfs", hidden);
        }
        options.bind("--bind", walls.root, walls.root);
        for writable in walls.writable {
            options.bind("--bind", writable, writable);
        }
        for readable in walls.readable {
            options.bind("--ro-bind-try", readable, readable);
        }
        for directory in
            SECRET_DIRECTORIES.iter().filter_map(|name| Some(home?.join(name))).filter(|path| path.is_dir())
        {
            options.at("--tmpfs", &directory);
        }
        for file in SECRET_FILES.iter().filter_map(|name| Some(home?.join(name))).filter(|path| path.is_file()) {
            options.bind("--dev-bind", Path::new("/dev/null"), &file);
        }
        options.0
    }
}

struct Options(Vec<OsString>);

impl Options {
    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(OsString::from));
    }

    fn at(&mut self, option: &str, path: &Path) {
        self.0.extend([option.into(), path.into()]);
    }

    fn bind(&mut self, option: &str, from: &Path, to: &Path) {
        self.0.extend([option.into(), from.into(), to.into()]);
    }
}

/// The home of the user who runs us, as a step would look for it.
fn home(command: &Command) -> Option<PathBuf> {
    let of_step = command.environment.get("HOME").map(OsString::from);
    of_step.or_else(|| std::env::var_os("HOME")).map(PathBuf::from).filter(|home| home.is_absolute())
}

/// Which setting of this kernel forbids ordinary users to make namespaces.
fn hint() -> Option<&'static str> {
    let is = |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return Some(
            "AppArmor keeps ordinary users from making namespaces: install a profile for bwrap that says `userns,`, or set \
             `sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
        );
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return Some("ordinary users may make no namespaces here: set `sysctl kernel.unprivileged_userns_clone=1`");
    }
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return Some("no user namespaces are allowed here: raise `sysctl user.max_user_namespaces`");
    }
    Path::new("/.dockerenv")
        .exists()
        .then_some("this is a container: its seccomp profile and capabilities must allow namespaces and mounts")
}
