//! The server that speaks S3 in the store's tests: compiled once for a checkout, kept under `target/tools`, and compiled
//! beside what is compiled anyway.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::{cargo, root};

/// The program, its version, and what of it is wanted.
const PROGRAM: &str = "s3s-fs";
const VERSION: &str = "0.14.1";
const FEATURES: &str = "binary";

/// How far it is.
pub enum Install {
    /// Compiled before.
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
    if program().is_file() {
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
    /// Waits for it. Gives the variable by which the tests find it, which is `PATH`, since steps inherit none that begins with
    /// `ROPEWALK_`; none if it is not to be had, which is said aloud, and which tests in CI fail for.
    pub fn variable(self) -> Option<(&'static str, OsString)> {
        let refused = match self {
            Self::Done => return path(),
            Self::Running(mut child) => match child.wait() {
                Ok(status) if status.success() => {
                    // The program is all that is wanted of it.
                    let _ = std::fs::remove_dir_all(folder().join("build"));
                    return path();
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

/// Where programs are, with the folder of this one before them.
fn path() -> Option<(&'static str, OsString)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(folder().join("bin")).chain(std::env::split_paths(&path));
    Some(("PATH", std::env::join_paths(all).ok()?))
}
