//! The user's cargo, called for a pipeline's package: what it says reaches the user as it says it, and nothing else does.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::PidfdFlags;

use super::ending::Ending;
use crate::args::Colour;
use crate::columns::colourless;
use crate::commands::Stop;
use crate::output;

/// How long cargo may work before people on a terminal are told what is being waited for.
const QUIET: Duration = Duration::from_millis(300);
/// The most bytes that are kept of what cargo prints to one stream; the rest is read and dropped.
const OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What cargo says, in one line, where the lock file does not fit the manifest.
const LOCK_IS_OLD: [&str; 2] = ["lock file", "--locked was passed to prevent this"];
/// How often something is still read once cargo has ended: what it left in its pipes, and no more of what others write there.
const LAST_READS_MAX: usize = 64;
/// What cargo says where it could not reach a registry.
const NO_NETWORK: [&str; 4] =
    ["failed to download", "Could not resolve host", "spurious network error", "download of config.json failed"];

/// Where cargo works, and on what.
#[derive(Clone, Debug)]
pub struct Package {
    /// The folder it is called in; settings (`.cargo/config.toml`, `rust-toolchain.toml`) are found from here upward.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: PathBuf,
    /// Its target folder.
    pub target: PathBuf,
}

/// What is asked of cargo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A binary.
    Build,
    /// Its faults only.
    Check,
    /// Its tests built and run.
    Test,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Check => "check",
            Self::Test => "test",
        }
    }

    fn waiting(self) -> &'static str {
        match self {
            Self::Build => "building the pipeline…",
            Self::Check => "checking the pipeline…",
            Self::Test => "testing the pipeline…",
        }
    }
}

/// How a call ended, and what it printed.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output: messages as JSON, or for tests what they printed.
    pub stdout: Vec<u8>,
    /// Standard error: for people.
    pub stderr: Vec<u8>,
}

/// The cargo of this user.
///
/// # Errors
/// If there is none, with what to do.
pub fn program() -> Result<PathBuf, Stop> {
    find("cargo").ok_or_else(|| {
        Stop::wrong(
            "the pipeline is a Rust program, and there is no `cargo` in PATH to build it: install Rust \
             (https://rustup.rs), or write the pipeline as .ropewalk/pipeline.yaml",
        )
    })
}

/// The first program of this name in `PATH`.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Calls cargo on a package: with the lock file as it is if that fits, and without the network if there is none.
///
/// # Errors
/// If there is no cargo, or it cannot be started.
pub fn call(verb: Verb, package: &Package, colour: Colour) -> Result<Finished, Stop> {
    call_within(verb, package, colour, None)
}

/// As [`call`]; cargo and all that it started is ended after so long, if a limit is given.
///
/// # Errors
/// As [`call`], and if it took too long.
pub fn call_within(verb: Verb, package: &Package, colour: Colour, limit: Option<Duration>) -> Result<Finished, Stop> {
    let has_lock = package.manifest.with_file_name("Cargo.lock").is_file();
    let mut flags: Vec<&str> = if has_lock { vec!["--locked"] } else { Vec::new() };
    let once = |flags: &[&str]| once(verb, package, colour, flags, limit);
    let mut finished = once(&flags)?;
    if has_lock && !finished.status.success() && is_lock_old(&finished.stderr) {
        // What is laid into the cache is nobody's to commit.
        if package.manifest.starts_with(&package.folder) {
            let name = package.manifest.with_file_name("Cargo.lock");
            let _ = writeln!(io::stderr(), "note: {} is brought up to date for Cargo.toml: commit it", name.display());
        }
        flags.clear();
        finished = once(&flags)?;
    }
    if !finished.status.success() && contains(&finished.stderr, &NO_NETWORK) {
        flags.push("--offline");
        let offline = once(&flags)?;
        if offline.status.success() {
            return Ok(offline);
        }
    }
    Ok(finished)
}

/// Whether cargo refused the lock file. What a compiler says of a line is no sentence of cargo's.
fn is_lock_old(stderr: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stderr);
    let is_it = |line: String| line.starts_with("error: ") && LOCK_IS_OLD.iter().all(|part| line.contains(part));
    text.lines().map(colourless).any(is_it)
}

fn contains(text: &[u8], words: &[&str]) -> bool {
    let text = String::from_utf8_lossy(text);
    words.iter().any(|word| text.contains(word))
}

/// The command line, without where its output goes.
///
/// # Errors
/// If there is no cargo.
pub fn command(verb: Verb, package: &Package, colour: Colour, flags: &[&str]) -> Result<Command, Stop> {
    let color = match output::coloured(colour, &io::stderr()) {
        true => "always",
        false => "never",
    };
    let mut command = Command::new(program()?);
    command.args([verb.word(), "--quiet", "--color", color]).current_dir(&package.folder);
    command.arg("--manifest-path").arg(&package.manifest).arg("--target-dir").arg(&package.target).args(flags);
    if verb != Verb::Test {
        command.arg("--message-format=json-render-diagnostics");
    }
    if let Ok(binary) = std::env::current_exe() {
        // The SDK's tests ask this binary for graphs.
        command.env("ROPEWALK_BINARY", binary);
    }
    // If we were started by cargo ourselves: what it said of another package.
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_another_package(name)) {
        command.env_remove(name);
    }
    Ok(command)
}

fn is_of_another_package(name: &OsStr) -> bool {
    let families = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_PACKAGE"];
    name.to_str().is_some_and(|name| families.iter().any(|family| name.starts_with(family)))
}

fn once(
    verb: Verb,
    package: &Package,
    colour: Colour,
    flags: &[&str],
    limit: Option<Duration>,
) -> Result<Finished, Stop> {
    let mut command = command(verb, package, colour, flags)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // What it starts is ended with it.
    command.process_group(0);
    let ending = Ending::heeded();
    let child = command.spawn().map_err(|error| Stop::infra(format!("could not start cargo: {error}")))?;
    ending.with(rustix::process::Pid::from_child(&child));
    collect(child, verb, limit).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => Stop::wrong(format!(
            "`cargo {}` of the pipeline did not end within {} seconds",
            verb.word(),
            limit.unwrap_or_default().as_secs()
        )),
        _ => Stop::infra(format!("could not hear what cargo said: {error}")),
    })
}

/// Reads both streams until cargo has ended: a test may leave a process that holds them open for ever. On a terminal a line tells what is waited for if it takes long, and goes away again.
fn collect(mut child: Child, verb: Verb, limit: Option<Duration>) -> io::Result<Finished> {
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let (mut from_stdout, mut from_stderr) = (Vec::new(), Vec::new());
    let began = Instant::now();
    let mut waiting = Waiting::Quiet;
    // Where there is none, the streams' ends are waited for.
    let ended = rustix::process::pidfd_open(rustix::process::Pid::from_child(&child), PidfdFlags::empty()).ok();
    let mut n_last_reads = 0;
    while stdout.is_some() || stderr.is_some() {
        let left = (waiting == Waiting::Quiet).then(|| QUIET.saturating_sub(began.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            waiting = tell(verb);
            continue;
        }
        let in_all = limit.map(|limit| limit.saturating_sub(began.elapsed()));
        if in_all.is_some_and(|left| left.is_zero()) {
            let group = rustix::process::Pid::from_child(&child);
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left = [left, in_all].into_iter().flatten().min();
        let timeout =
            left.map(|left| Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) });
        let (can_out, can_err, has_ended) = {
            let mut pipes: Vec<PollFd<'_>> = Vec::with_capacity(3);
            pipes.extend(stdout.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            pipes.extend(stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            pipes.extend(ended.as_ref().map(|ended| PollFd::new(ended, PollFlags::IN)));
            // An interrupted wait is followed by another.
            let _ = poll(&mut pipes, timeout.as_ref());
            let mut ready = pipes.iter().map(|pipe| !pipe.revents().is_empty());
            let mut is_ready = |is_there: bool| is_there && ready.next() == Some(true);
            (is_ready(stdout.is_some()), is_ready(stderr.is_some()), is_ready(ended.is_some()))
        };
        if has_ended && (!(can_out || can_err) || n_last_reads == LAST_READS_MAX) {
            break;
        }
        n_last_reads += usize::from(has_ended);
        if can_out {
            take(&mut stdout, &mut from_stdout)?;
        }
        if can_err {
            take(&mut stderr, &mut from_stderr)?;
        }
    }
    let status = child.wait()?;
    if waiting == Waiting::Told {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    Ok(Finished { status, stdout: from_stdout, stderr: from_stderr })
}

/// Whether people have been told what is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Quiet,
    Told,
    Nobody,
}

fn tell(verb: Verb) -> Waiting {
    let mut stderr = io::stderr().lock();
    if !stderr.is_terminal() || !output::has_cursor() {
        return Waiting::Nobody;
    }
    let _ = write!(stderr, "{}", verb.waiting());
    let _ = stderr.flush();
    Waiting::Told
}

/// Reads what is there; the pipe is gone at its end.
fn take<P: Read>(pipe: &mut Option<P>, to: &mut Vec<u8>) -> io::Result<()> {
    let Some(from) = pipe else { return Ok(()) };
    let mut chunk = [0; 64 * 1024];
    match from.read(&mut chunk) {
        Ok(0) => *pipe = None,
        Ok(bytes) => {
            let kept = bytes.min(OUTPUT_BYTES_MAX.saturating_sub(to.len()));
            to.extend_from_slice(&chunk[..kept]);
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Cargo's messages. Source: "JSON messages" in the page of external tools of The Cargo Book.
fn messages(text: &[u8]) -> impl Iterator<Item = serde_json::Value> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{"));
    lines.filter_map(|line| serde_json::from_slice(line).ok())
}

/// The binaries that cargo's messages name, each with its target's name.
pub fn binaries(text: &[u8]) -> Vec<(String, PathBuf)> {
    let mut binaries = Vec::new();
    for message in messages(text) {
        let is_binary =
            message["target"]["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "bin"));
        if let (true, Some(path), Some(name)) =
            (is_binary, message["executable"].as_str(), message["target"]["name"].as_str())
        {
            binaries.push((name.to_owned(), PathBuf::from(path)));
        }
    }
    binaries
}

/// A build script that cargo ran, now or before.
#[derive(Debug, PartialEq, Eq)]
pub struct Script {
    /// The folder of its package, in which it ran.
    pub folder: PathBuf,
    /// Where the package comes from.
    pub origin: Origin,
    /// The file that holds what it printed.
    pub output: PathBuf,
}

/// Where a package comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A folder, in which anything may change.
    Path,
    /// A registry or a repository: what was fetched stays as it is.
    Fetched,
}

/// The build scripts that cargo's messages name.
pub fn scripts(text: &[u8]) -> Vec<Script> {
    let (mut folders, mut scripts) = (BTreeMap::new(), Vec::new());
    for message in messages(text) {
        let Some(id) = message["package_id"].as_str() else { continue };
        if let Some(folder) = message["manifest_path"].as_str().and_then(|manifest| Path::new(manifest).parent()) {
            folders.insert(id.to_owned(), folder.to_owned());
        }
        // What is compiled stands before what it does.
        if message["reason"] == "build-script-executed"
            && let (Some(out), Some(folder)) = (message["out_dir"].as_str(), folders.get(id))
        {
            let origin = if id.starts_with("path+") { Origin::Path } else { Origin::Fetched };
            scripts.push(Script { folder: folder.clone(), origin, output: Path::new(out).with_file_name("output") });
        }
    }
    scripts
}

/// When a build script runs again.
#[derive(Debug, PartialEq, Eq)]
pub struct Reruns {
    /// When one of these changes, or anything in one that is a folder; relative to the package's folder.
    pub paths: BTreeSet<PathBuf>,
    /// When one of these variables of the environment changes.
    pub variables: BTreeSet<String>,
}

/// What a build script printed of when it runs again; `None` if nothing: then it does when anything of its package changes. Source:
/// "Change Detection" in the page of build scripts of The Cargo Book.
pub fn reruns(output: &[u8]) -> Option<Reruns> {
    let (mut paths, mut variables) = (BTreeSet::new(), BTreeSet::new());
    for line in String::from_utf8_lossy(output).lines() {
        let Some(said) = line.strip_prefix("cargo::").or_else(|| line.strip_prefix("cargo:")) else { continue };
        match said.split_once('=') {
            Some(("rerun-if-changed", path)) => drop(paths.insert(PathBuf::from(path))),
            Some(("rerun-if-env-changed", name)) => drop(variables.insert(name.to_owned())),
            _ => {}
        }
    }
    (!paths.is_empty() || !variables.is_empty()).then_some(Reruns { paths, variables })
}

/// Everything beside the sources that decides what cargo makes of a package in `folder`: settings, locks and manifests from
/// there upward, the toolchain. Also where nothing is: what appears there counts.
pub fn settings(folder: &Path) -> Vec<PathBuf> {
    const NAMES: [&str; 6] =
        [".cargo/config.toml", ".cargo/config", "rust-toolchain.toml", "rust-toolchain", "Cargo.toml", "Cargo.lock"];
    let mut paths: Vec<PathBuf> =
        folder.ancestors().flat_map(|above| NAMES.iter().map(move |name| above.join(name))).collect();
    let home = |variable: &str, name: &str| {
        let set = std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        set.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(name)))
    };
    if let Some(cargo) = home("CARGO_HOME", ".cargo") {
        paths.extend(["config.toml", "config"].map(|name| cargo.join(name)));
    }
    paths.extend(home("RUSTUP_HOME", ".rustup").map(|rustup| rustup.join("settings.toml")));
    paths.extend(["cargo", "rustc"].into_iter().filter_map(find));
    paths.extend(compiler(folder));
    paths
}

/// The compiler itself, behind whatever picks it.
fn compiler(folder: &Path) -> Option<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let output =
        Command::new(rustc).args(["--print", "sysroot"]).current_dir(folder).stdin(Stdio::null()).output().ok()?;
    let sysroot = String::from_utf8(output.stdout).ok()?;
    Some(Path::new(sysroot.trim()).join("bin/rustc"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Reruns, is_lock_old, reruns};

    #[test]
    fn only_cargo_s_own_sentence_says_that_the_lock_is_old() {
        for said in [
            "error: cannot update the lock file /x/Cargo.lock because --locked was passed to prevent this\nhelp: to generate it",
            "error: the lock file /x/Cargo.lock needs to be updated but --locked was passed to prevent this\n",
            "\u{1b}[1m\u{1b}[91merror\u{1b}[0m: cannot update the lock file /x because --locked was passed to prevent this\n",
        ] {
            assert!(is_lock_old(said.as_bytes()), "{said}");
        }
        let of_a_line = "error: expected `;`\n --> src/main.rs:1:1\n  |\n1 | run(\"cargo test --locked\") // the lock file: --locked was passed to prevent this\n";
        assert!(!is_lock_old(of_a_line.as_bytes()));
    }

    #[test]
    fn what_a_script_says_of_when_it_runs_again_is_read_in_both_forms() {
        let output = b"cargo:rerun-if-changed=a b\ncargo::rerun-if-changed=/c\ncargo:rerun-if-env-changed=D\ncargo:warning=no\nelse\n";
        let paths = ["a b", "/c"].map(Into::into).into();
        assert_eq!(reruns(output), Some(Reruns { paths, variables: BTreeSet::from(["D".to_owned()]) }));
        assert_eq!(reruns(b"cargo:rustc-env=A=1\n"), None);
    }
}
