//! A real PostgreSQL in a scratch folder, reached by a socket there, for storms and measurements. It goes with its value.

#[path = "../../crates/store/tests/database/programs.rs"]
mod programs;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use programs::{Programs, USER};

use crate::run;

/// The name of the database.
const NAME: &str = "ropewalk";

/// A server of its own.
pub struct Postgres {
    child: Child,
    programs: Programs,
    folder: PathBuf,
}

impl Postgres {
    /// Starts one with an empty database.
    ///
    /// # Errors
    /// A sentence, also if PostgreSQL is not installed.
    pub fn start() -> Result<Self, String> {
        let programs = Programs::find(crate::is_root())?;
        let folder = std::env::temp_dir().join(format!("ropewalk-postgres-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        programs.make_data(&folder)?;
        let child = programs.launch(&folder)?;
        let database = Self { child, programs, folder };
        run(database.programs.client("createdb").args(["--username", USER, "--host"]).arg(&database.folder).arg(NAME))?;
        Ok(database)
    }

    /// How the database is reached, as the setting `store.url` says it.
    pub fn url(&self) -> String {
        programs::address(&self.folder, NAME)
    }

    /// Ends it as a crash would, but for the disk, and starts it again.
    ///
    /// # Errors
    /// If it does not start.
    pub fn crash(&mut self) -> Result<(), String> {
        self.kill();
        self.child = self.programs.launch(&self.folder)?;
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
