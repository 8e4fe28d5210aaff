//! The server that speaks S3 in the store's tests: compiled once for a checkout, kept under `target/tools`, and compiled
//! beside what is compiled anyway.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::{cargo, root};

/// The program, its version, and what of it is wanted.
const PROGRAM: &str = "s3s-fs";
const VERSION: &str = "0.14.1";
const FEATURES: &str = "binary";
/// By which the tests find it.
const VARIABLE: &str = "ROPEWALK_S3_SERVER";

/// How far it is.
pub enum Install {
    /// Compiled before, or named by the user.
    Done,
    /// Being compiled.
    Running(Child),
    /// Not to be had; why.
    Refused(String),
}

fn folder() -> PathBuf {
    root().join("target/tools").join(format!("{PROGRAM}-{VERSION}"))
}

fn program() -> PathBuf {
    folder().join("bin").join(PROGRAM)
}

/// Begins to compile it, if it is not there.
pub fn begin() -> Install {
    if std::env::var_os(VARIABLE).is_some() || program().is_file() {
        return Install::Done;
    }
    eprintln!("compiling {PROGRAM} {VERSION}, for the tests of S3");
    let mut command = cargo(&["install", PROGRAM, "--version", VERSION, "--features", FEATURES]);
    // Without optimization and symbols it is fast enough.
    command.args(["--locked", "--quiet", "--debug", "--root"]).arg(folder());
    command.arg("--target-dir").arg(folder().join("build")).env("CARGO_PROFILE_DEV_DEBUG", "0");
    match command.stdin(Stdio::null()).spawn() {
        Ok(child) => Install::Running(child),
        Err(error) => Install::Refused(error.to_string()),
    }
}

impl Install {
    /// Waits for it. Gives the variable for the tests; none if it is not to be had, which is said aloud, and which tests in
    /// CI fail for.
    pub fn variable(self) -> Option<(&'static str, PathBuf)> {
        let refused = match self {
            Self::Done => return Some(known()),
            Self::Running(mut child) => match child.wait() {
                Ok(status) if status.success() => {
                    // The program is all that is wanted of it.
                    let _ = std::fs::remove_dir_all(folder().join("build"));
                    return Some(known());
                }
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            Self::Refused(why) => why,
        };
        eprintln!("note: tests of S3 are skipped; {PROGRAM} could not be installed: {refused}");
        None
    }
}

fn known() -> (&'static str, PathBuf) {
    (VARIABLE, std::env::var_os(VARIABLE).map_or_else(program, PathBuf::from))
}
