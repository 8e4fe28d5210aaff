//! Where the builds are that a command is about: here, or on a server. A flag or a variable that names a server means the
//! server; `--local` means this machine whatever variables say. Hints name commands that reach the same builds.

use std::fmt::Display;

pub use api::words::quoted;
use engine::ReusePolicy;

use crate::args::{RunHow, Where};
use crate::commands::Stop;
use crate::remote::{SERVER_VARIABLE, variable};

/// Where builds are, as a command's hints have to say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Whereabouts {
    /// On this machine, and nothing says otherwise.
    #[default]
    Here,
    /// On this machine, though a variable names a server.
    HereByFlag,
    /// On a server, with the flags that reach it; none if variables do.
    There(String),
}

impl Whereabouts {
    /// Of builds on this machine.
    pub fn here() -> Self {
        if variable(SERVER_VARIABLE).is_some() { Self::HereByFlag } else { Self::Here }
    }

    /// Of builds on the server that flags and variables name.
    pub fn there(server: Option<&str>, token: Option<&std::path::Path>) -> Self {
        let server = server.map(|server| format!(" --server {}", quoted(server)));
        let token = token.map(|token| format!(" --token {}", quoted(&token.to_string_lossy())));
        Self::There(server.into_iter().chain(token).collect())
    }

    /// Whether they are on a server.
    pub fn is_there(&self) -> bool {
        matches!(self, Self::There(_))
    }

    /// `ropewalk` with these words, so that it reaches the same builds. Names among them go through [`quoted`]: a job's output may
    /// name legs, and whoever copies the command would run what it says.
    pub fn command(&self, words: impl Display) -> String {
        let flags = match self {
            Self::Here => "",
            Self::HereByFlag => " --local",
            Self::There(flags) => flags,
        };
        format!("ropewalk {words}{flags}")
    }
}

impl Where {
    /// The same of what the flags mean.
    pub fn whereabouts(&self) -> Whereabouts {
        match self.is_there() {
            true => Whereabouts::there(self.remote.server.as_deref(), self.remote.token.as_deref()),
            false => Whereabouts::here(),
        }
    }

    /// Refuses a server, for a command that works on this machine alone; `instead` says what to do.
    ///
    /// # Errors
    /// If a server is meant.
    pub fn only_here(&self, command: &str, instead: &str) -> Result<(), Stop> {
        if !self.is_there() {
            return Ok(());
        }
        Err(Stop::wrong(format!(
            "`ropewalk {command}` works on builds of this machine, not on those of a server: {instead}; `--local` means \
             the builds of this machine"
        )))
    }

    /// Whether a server is meant.
    pub fn is_there(&self) -> bool {
        !self.local && (self.remote.server.is_some() || variable(SERVER_VARIABLE).is_some())
    }
}

/// Refuses a flag that means something on a server alone.
///
/// # Errors
/// If it is given.
pub fn not_here(flag: &str, is_given: bool) -> Result<(), Stop> {
    match is_given {
        true => Err(Stop::wrong(format!("{flag} is for builds of a server: name it by --server URL"))),
        false => Ok(()),
    }
}

impl RunHow {
    /// Whether results of earlier builds are looked for.
    #[must_use]
    pub fn reuse(&self) -> ReusePolicy {
        if self.no_reuse { ReusePolicy::RunAll } else { ReusePolicy::AsDeclared }
    }

    /// Refuses what says how a build runs on this machine.
    ///
    /// # Errors
    /// Naming the flag.
    pub fn only_there(&self) -> Result<(), Stop> {
        let given = [
            ("--parallel", self.parallel.is_some()),
            ("--secrets", self.secrets.is_some()),
            ("--no-reuse", self.no_reuse),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((flag, _)) => {
                Err(Stop::wrong(format!("{flag} is for builds of this machine: the server decides that")))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_reach_the_same_builds() {
        let check = |whereabouts: &Whereabouts, expected: &str| {
            assert_eq!(whereabouts.command(format_args!("show {}", 3)), expected);
        };
        check(&Whereabouts::Here, "ropewalk show 3");
        check(&Whereabouts::HereByFlag, "ropewalk show 3 --local");
        check(&Whereabouts::there(None, None), "ropewalk show 3");
        let token = std::path::Path::new("my token");
        let there = Whereabouts::there(Some("http://a:1"), Some(token));
        check(&there, "ropewalk show 3 --server http://a:1 --token 'my token'");
    }
}
