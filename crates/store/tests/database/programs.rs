//! The programs of PostgreSQL: where they are, as whom they run, and how a server of them is started in a folder.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where Debian has it, one folder a version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// Nobody's user and group, where there is no user `postgres`.
const NOBODY: (u32, u32) = (65534, 65534);
/// The user of all databases.
pub const USER: &str = "ropewalk";

/// The programs of the newest version that is installed.
pub struct Programs {
    folder: PathBuf,
    /// Who runs the server: PostgreSQL does not run as root.
    user: Option<(u32, u32)>,
}

impl Programs {
    /// Finds them; `is_root` says whether they are started by root.
    pub fn find(is_root: bool) -> Result<Self, String> {
        let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
        let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten().map(|entry| entry.path());
        let newest = versions.max_by_key(|path| number(path)).map(|path| path.join("bin"));
        let folder = newest.filter(|folder| folder.join("initdb").is_file());
        let folder = folder.ok_or("PostgreSQL is not installed (Debian package `postgresql`)")?;
        Ok(Self { folder, user: is_root.then(other_user) })
    }

    /// One of them, as a client runs it.
    pub fn client(&self, name: &str) -> Command {
        Command::new(self.folder.join(name))
    }

    /// Makes a server's data in a folder, which is handed over to who runs it.
    pub fn make_data(&self, folder: &Path) -> Result<(), String> {
        if let Some((user, group)) = self.user {
            chown(folder, Some(user), Some(group)).map_err(|error| error.to_string())?;
        }
        let mut command = self.server("initdb");
        command.args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "--username", USER, "--pgdata"]);
        let made = command.arg(folder.join("data")).current_dir(folder).stdout(Stdio::null()).status();
        match made {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{command:?} ended with {status}")),
            Err(error) => Err(format!("{command:?}: {error}")),
        }
    }

    /// Starts the server of a folder, and waits until it takes connections, by a socket there.
    pub fn launch(&self, folder: &Path) -> Result<Child, String> {
        let mut command = self.server("postgres");
        command.arg("-D").arg(folder.join("data")).arg("-k").arg(folder).current_dir(folder);
        // What the machine's loss would take does not matter here, and the disk is slow.
        command.args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200"]);
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut said = BufReader::new(child.stderr.take().ok_or("its messages are not ours")?);
        let mut line = String::new();
        while !line.contains("ready to accept connections") {
            line.clear();
            if said.read_line(&mut line).map_err(|error| error.to_string())? == 0 {
                return Err("PostgreSQL ended before it was ready".to_owned());
            }
        }
        // Read on, so that it never waits for us.
        std::thread::spawn(move || drop(said.read_to_end(&mut Vec::new())));
        Ok(child)
    }

    /// One that ends with us; as who runs the server.
    fn server(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=QUIT");
        if let Some((user, group)) = self.user {
            command.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()]);
        }
        command.arg("--").arg(self.folder.join(name));
        command
    }
}

/// The address of a database of the server whose socket is in this folder.
pub fn address(folder: &Path, database: &str) -> String {
    let folder = folder.display().to_string().replace('/', "%2F");
    format!("postgres://{USER}@{folder}/{database}")
}

/// The user and group `postgres`.
fn other_user() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    found.unwrap_or(NOBODY)
}
