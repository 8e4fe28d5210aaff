//! A real PostgreSQL in a scratch folder, reached by a socket there, for storms and measurements. It goes with its value.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::run;

/// Where Debian has it, one folder a version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The user of the database, and its name.
const NAME: &str = "ropewalk";
/// Nobody's user and group, where there is no user `postgres`.
const NOBODY: (u32, u32) = (65534, 65534);

/// A server of its own.
pub struct Postgres {
    child: Child,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    folder: PathBuf,
}

impl Postgres {
    /// Starts one with an empty database.
    ///
    /// # Errors
    /// A sentence, also if PostgreSQL is not installed.
    pub fn start() -> Result<Self, String> {
        let programs = programs().ok_or("PostgreSQL is not installed (Debian package `postgresql`)")?;
        let folder = std::env::temp_dir().join(format!("ropewalk-postgres-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        // PostgreSQL does not run as root.
        let user = crate::is_root().then(other_user);
        if let Some((user, group)) = user {
            chown(&folder, Some(user), Some(group)).map_err(|error| error.to_string())?;
        }
        let mut made = run_as(user, &programs.join("initdb"));
        made.args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "--username", NAME, "--pgdata"]);
        run(made.arg(folder.join("data")).current_dir(&folder).stdout(Stdio::null()))?;
        let child = launch(&programs, user, &folder)?;
        let database = Self { child, programs, user, folder };
        run(Command::new(database.programs.join("createdb"))
            .args(["--username", NAME, "--host"])
            .arg(&database.folder)
            .arg(NAME))?;
        Ok(database)
    }

    /// How the database is reached, as the setting `store.url` says it.
    pub fn url(&self) -> String {
        let folder = self.folder.to_string_lossy().replace('/', "%2F");
        format!("postgres://{NAME}@{folder}/{NAME}")
    }

    /// Ends it as a crash would, but for the disk, and starts it again.
    ///
    /// # Errors
    /// If it does not start.
    pub fn crash(&mut self) -> Result<(), String> {
        self.kill();
        self.child = launch(&self.programs, self.user, &self.folder)?;
        Ok(())
    }

    fn kill(&mut self) {
        // An immediate shutdown: its children go with it.
        let _ = Command::new("kill").args(["-QUIT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn launch(programs: &Path, user: Option<(u32, u32)>, folder: &Path) -> Result<Child, String> {
    let mut command = run_as(user, &programs.join("postgres"));
    command.arg("-D").arg(folder.join("data")).arg("-k").arg(folder).current_dir(folder);
    // The machine is not lost here, only processes are.
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

/// A program that ends with us; as this user and group.
fn run_as(user: Option<(u32, u32)>, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=QUIT");
    if let Some((user, group)) = user {
        command.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()]);
    }
    command.arg("--").arg(program);
    command
}

/// The folder with the programs of the newest version that is installed.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(VERSIONS).ok()?.flatten().map(|entry| entry.path());
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.max_by_key(|path| number(path))?.join("bin");
    newest.join("initdb").is_file().then_some(newest)
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
