//! The walls around a sandboxed step, built by bubblewrap (`bwrap`), which is called and not imitated.
//!
//! A step gets PID, IPC, UTS and, if asked, network namespaces of its own, no capability, no new privileges, fresh `/dev` and
//! `/proc`, and a `/tmp` that belongs to its job. The system is there, read-only; so is the home directory, because
//! toolchains live in it, without what commonly holds credentials. `/run` is empty but for name resolution, so no
//! daemon's socket (Docker's above all) is a way out. Writable are the workspace, `/tmp` and what the caller names.
//! A person's shell cannot type into the terminal that it shares with the one outside ([`typing`]). When a step ends, everything it started ends with it. There is no weaker form: without bubblewrap nothing runs.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use graph::Network;

use crate::keeper::{Command, Role};

mod typing;

pub(crate) use typing::hand_on;

/// Directories of a home that commonly hold credentials; a step finds them empty.
const SECRET_DIRECTORIES: [&str; 13] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".config/gcloud",
    ".config/gh",
    ".config/glab-cli",
    ".config/hub",
    ".config/op",
    ".local/share/keyrings",
    ".password-store",
];

/// Files of a home that commonly hold credentials; a step finds them empty.
const SECRET_FILES: [&str; 18] = [
    ".netrc",
    ".git-credentials",
    ".config/git/credentials",
    ".config/containers/auth.json",
    ".npmrc",
    ".pypirc",
    ".pgpass",
    ".my.cnf",
    ".cargo/credentials.toml",
    ".cargo/credentials",
    ".gem/credentials",
    ".gradle/gradle.properties",
    ".m2/settings.xml",
    ".m2/settings-security.xml",
    ".terraformrc",
    ".terraform.d/credentials.tfrc.json",
    ".vault-token",
    ".config/composer/auth.json",
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
    /// Directories that the step finds empty: where `ropewalk` keeps its data. Those that do not exist are left out. What the other fields
    /// name is there even within them.
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
        let mut arguments = self.arguments(walls, &homes(command, walls.root));
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

    /// Keeps an enclosed command from typing into the terminal that it will be given. What is returned has to be at its number, open and at its
    /// beginning, in the process that becomes bubblewrap: see [`hand_on`].
    ///
    /// # Errors
    /// The system has no room for it.
    pub(crate) fn keep_from_typing(command: &mut Command) -> io::Result<OwnedFd> {
        let filter = typing::filter()?;
        let number = filter.as_raw_fd().to_string();
        command.arguments.splice(0..0, ["--seccomp".into(), number.into()]);
        Ok(filter)
    }

    /// bubblewrap's options. Later ones cover earlier ones: what is writable comes late, credentials are hidden last.
    fn arguments(&self, walls: &Walls, homes: &BTreeSet<PathBuf>) -> Vec<OsString> {
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
        let hidden: BTreeSet<PathBuf> = walls.hidden.iter().filter_map(|path| path.canonicalize().ok()).collect();
        let is_outermost = |path: &&PathBuf| !path.ancestors().skip(1).any(|above| hidden.contains(above));
        for hidden in hidden.iter().filter(is_outermost).filter(|path| path.is_dir()) {
            options.at("--tmpfs", hidden);
        }
        options.bind("--bind", walls.root, walls.root);
        for writable in walls.writable {
            options.bind("--bind", writable, writable);
        }
        for readable in walls.readable {
            options.bind("--ro-bind-try", readable, readable);
        }
        for directory in below(homes, &SECRET_DIRECTORIES).iter().filter(|path| path.is_dir()) {
            options.at("--tmpfs", directory);
        }
        for file in below(homes, &SECRET_FILES).iter().filter(|path| path.is_file()) {
            options.bind("--dev-bind", Path::new("/dev/null"), file);
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

/// What of these names is there below any of the homes. Where it is by its true name: bubblewrap covers nothing at a path with links in it.
fn below(homes: &BTreeSet<PathBuf>, names: &[&str]) -> BTreeSet<PathBuf> {
    homes.iter().flat_map(|home| names.iter().filter_map(|name| home.join(name).canonicalize().ok())).collect()
}

/// The homes in which credentials may lie: that of this process and that of its user, whatever the step takes for its home; and that, unless it
/// is the job's own by lying in the workspace.
fn homes(command: &Command, workspace: &Path) -> BTreeSet<PathBuf> {
    static OF_PROCESS: OnceLock<BTreeSet<PathBuf>> = OnceLock::new();
    let of_process = OF_PROCESS.get_or_init(|| {
        let homes = [std::env::var_os("HOME").map(PathBuf::from), home_of_user()];
        homes.into_iter().flatten().filter(|home| home.is_absolute()).collect()
    });
    let of_step = command.environment.get("HOME").map(PathBuf::from);
    let of_step = of_step.filter(|home| home.is_absolute() && !home.starts_with(workspace));
    of_process.iter().cloned().chain(of_step).collect()
}

/// The most bytes of a user's entry.
const ENTRY_BYTES_MAX: usize = 64 << 10;

/// The home that the system has for the user of this process; `None` if it knows none.
fn home_of_user() -> Option<PathBuf> {
    let mut text = vec![0; ENTRY_BYTES_MAX];
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut found = std::ptr::null_mut();
    let user = rustix::process::geteuid().as_raw();
    // SAFETY: the function writes `entry` and what it points to, which is in `text`, of the length that is given.
    let home = unsafe {
        let refused = libc::getpwuid_r(user, entry.as_mut_ptr(), text.as_mut_ptr().cast(), text.len(), &mut found);
        if refused != 0 || found.is_null() || (*found).pw_dir.is_null() {
            return None;
        }
        CStr::from_ptr((*found).pw_dir)
    };
    Some(PathBuf::from(OsStr::from_bytes(home.to_bytes())))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_of_the_user_is_that_of_the_system() {
        let user = rustix::process::geteuid().as_raw().to_string();
        let users = std::fs::read_to_string("/etc/passwd").expect("the users");
        let mut entries = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        // One that another directory knows stands not here.
        if let Some(entry) = entries.find(|entry| entry.get(2) == Some(&user.as_str())) {
            assert_eq!(home_of_user(), Some(PathBuf::from(entry[5])));
        }
    }
}
