//! Tests of a pipeline's package: run by cargo, remembered as passed by the stamp of everything they could depend on, and
//! run again on each change for `ropewalk test --watch`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use graph::Diagnostic;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::cargo::{self, Package, Verb};
use super::stamp::{self, Made, NO_SOURCES, Recipe, Stamp};
use super::{Place, Program, Source, made};
use crate::args::Colour;
use crate::commands::Stop;
use crate::exit;
use crate::project::Project;

/// The most files of a package that are looked at.
const FILES_MAX: usize = 20_000;
/// The largest source that is searched for tests.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How long after a change further changes count as the same: editors write several times.
const SAME_CHANGE: Timespec = Timespec { tv_sec: 0, tv_nsec: 30_000_000 };

/// Runs the tests of a program, if it has any that did not pass with these very sources before; for at most so long, if a limit is given.
///
/// # Errors
/// If cargo cannot be called, or the tests do not end in time.
pub fn before_run(program: &Program, limit: Option<Duration>) -> Result<Tests, Stop> {
    if program.is_of_files() {
        return Ok(Tests::Passed);
    }
    let place = &program.place;
    if Stamp::unchanged(&place.stamp("tested")).is_some()
        || Recipe::unchanged(&place.recipe("tested"), &place.root).is_some()
    {
        return Ok(Tests::Passed);
    }
    let before = Before::look(place);
    if may_have_tests(place, &before.paths) {
        let package = laid(place)?;
        let finished = cargo::call_within(Verb::Test, &package, place.colour, limit)?;
        if !finished.status.success() {
            let mut stderr = io::stderr().lock();
            let _ = stderr.write_all(&finished.stdout).and_then(|()| stderr.write_all(&finished.stderr));
            let said = [finished.stdout, finished.stderr].concat();
            return Ok(Tests::Failed { said: end_of(&said) });
        }
    }
    remember(place, before);
    Ok(Tests::Passed)
}

/// How the tests of a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tests {
    /// They passed, now or before, or there are none.
    Passed,
    /// One failed, or they do not compile. It has been shown.
    Failed {
        /// The end of what cargo printed.
        said: String,
    },
}

/// The most bytes of the tests' output that a build keeps: the last ones.
const SAID_BYTES_MAX: usize = 32 << 10;

fn end_of(said: &[u8]) -> String {
    let end = &said[said.len().saturating_sub(SAID_BYTES_MAX)..];
    String::from_utf8_lossy(end).trim().to_owned()
}

/// The code of the diagnostic of a build whose pipeline's tests failed.
pub const FAILED: &str = "pipeline-tests";

/// What a build says whose pipeline's tests failed: nothing was run.
pub fn failure(program: &Program, said: &str) -> Diagnostic {
    let name = &program.place.name;
    let message = format!("the tests of {name} do not pass; nothing was run\n{said}");
    Diagnostic::error(FAILED, message).help("`ropewalk test` runs them again, and nothing else")
}

/// What the tests of a program found when they began.
struct Before {
    began: SystemTime,
    /// Everything that they could depend on.
    paths: BTreeSet<PathBuf>,
    /// What the repository's own paths among these held; one that cannot be read is left out.
    held: BTreeMap<PathBuf, Option<String>>,
}

impl Before {
    fn look(place: &Place) -> Self {
        let began = SystemTime::now();
        let mut paths = sources(place);
        paths.extend(made::compiled(place, &place.package()).0);
        let sdk = place.folder().join(".sdk");
        let own = paths.iter().filter(|path| path.starts_with(&place.root) && !path.starts_with(&sdk));
        let own = own.map(PathBuf::as_path).chain(place.own_folder());
        let held = own.filter_map(|path| Some((path.to_owned(), stamp::held(path).ok()?))).collect();
        Self { began, paths, held }
    }

    /// The paths that hold something else now.
    fn changed(&self) -> impl Iterator<Item = &Path> {
        let is_other = |(path, held): &(&PathBuf, &Option<String>)| !stamp::held(path).is_ok_and(|now| now == **held);
        self.held.iter().filter(is_other).map(|(path, _)| path.as_path())
    }
}

/// Keeps it that the tests passed. Tests may write what they also read: what holds the same as before is no change, and after any
/// other change it is not known whether they would pass again.
fn remember(place: &Place, before: Before) {
    let written = |path: &&PathBuf| stamp::may_have_changed(path, before.began);
    let written: Vec<PathBuf> = before.held.keys().filter(written).cloned().collect();
    if !written.is_empty() {
        // So that a later change cannot have the same time.
        std::thread::sleep(stamp::RACY * 2);
    }
    let now = SystemTime::now();
    if let Some(path) = before.changed().next() {
        let path = path.strip_prefix(&place.root).unwrap_or(path).display();
        let (name, mut stderr) = (&place.name, io::stderr());
        let _ = writeln!(stderr, "note: {path} changed while the tests of {name} ran, so they run again next time");
        let _ = fs::remove_file(place.stamp("tested"));
        return;
    }
    let same_at = written.into_iter().map(|path| (path, now)).collect();
    let folders = place.own_folder().map(Path::to_owned).into_iter().collect();
    let (mut paths, began) = (before.paths, before.began);
    // What only tests are made of is known once cargo has compiled it.
    let (compiled, mut variables) = made::compiled(place, &place.package());
    paths.extend(compiled);
    // What the program's sources read by `env!`, its tests do too.
    let built = Stamp::unchanged(&place.stamp("built"));
    variables.extend(built.iter().flat_map(|built| built.variables().clone()));
    place.remember("tested", Made { paths, folders, variables, same_at }, began, "passed".to_owned());
}

/// `ropewalk test`: the package's tests whose names hold one of `names`, all if there are none, as cargo shows them.
///
/// # Errors
/// If there is no cargo, or the cache cannot be used.
pub fn test(project: &Project, source: &Source, names: &[String], colour: Colour) -> Result<u8, Stop> {
    let place = Place::new(project, source.clone(), colour)?;
    run(&place, names)
}

fn run(place: &Place, names: &[String]) -> Result<u8, Stop> {
    let package = laid(place)?;
    let before = Before::look(place);
    if !may_have_tests(place, &before.paths) {
        let _ = writeln!(io::stderr(), "note: {} has no tests: `#[test]` before a function makes it one", place.name);
    }
    let mut command = cargo::command(Verb::Test, &package, place.colour, &[])?;
    // Tests shall be named, though cargo is to be quiet.
    command.args(["--", "--format=pretty"]).args(names).stdin(Stdio::null());
    let status = command.status().map_err(|error| Stop::infra(format!("could not start cargo: {error}")))?;
    if !status.success() {
        return Ok(exit::FAILED);
    }
    if names.is_empty() {
        remember(place, before);
    }
    Ok(exit::PASSED)
}

/// `ropewalk test --watch`: the tests now, and again after each change of a source, until it is interrupted.
///
/// # Errors
/// If there is no cargo, the cache cannot be used, or the system watches no files.
pub fn watch(project: &Project, source: &Source, names: &[String], colour: Colour) -> Result<u8, Stop> {
    let failed = |error: rustix::io::Errno| Stop::infra(format!("could not watch the pipeline's sources: {error}"));
    let place = Place::new(project, source.clone(), colour)?;
    let mut turn = Turn::Asked;
    loop {
        // Watched before the tests run, so that a change meanwhile is not missed.
        let watcher = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(failed)?;
        let mut before = Before::look(&place);
        let folders: BTreeSet<&Path> =
            before.paths.iter().filter_map(|path| path.parent()).filter(|path| path.is_dir()).collect();
        for folder in folders.into_iter().filter(|folder| folder.starts_with(&place.root)) {
            let changes = inotify::WatchFlags::CLOSE_WRITE
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::DELETE
                | inotify::WatchFlags::MOVED_TO;
            inotify::add_watch(&watcher, folder, changes).map_err(failed)?;
        }
        let code = run(&place, names)?;
        let word = if code == exit::PASSED { "passed" } else { "failed" };
        if turn == Turn::Meanwhile {
            before = Before::look(&place);
        } else if before.changed().next().is_some() {
            let _ = writeln!(io::stderr(), "{word}; sources changed meanwhile, so once more");
            turn = Turn::Meanwhile;
            continue;
        }
        turn = Turn::Asked;
        let _ = writeln!(io::stderr(), "{word}; waiting for a change (Ctrl-C ends)");
        while !(changed(&watcher, &before.paths).map_err(failed)? && before.changed().next().is_some()) {}
    }
}

/// Why `--watch` runs the tests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// They were asked for, by the command or by a change.
    Asked,
    /// Something changed while they ran. If it changes again it is the tests that write it, and they are not run for that.
    Meanwhile,
}

/// Waits for a change, and for the end of it; whether it concerned a source.
fn changed(watcher: &rustix::fd::OwnedFd, paths: &BTreeSet<PathBuf>) -> Result<bool, rustix::io::Errno> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut is_source = false;
    let mut timeout = None;
    loop {
        let ready = poll(&mut [PollFd::new(watcher, PollFlags::IN)], timeout)?;
        if ready == 0 {
            return Ok(is_source);
        }
        let mut reader = inotify::Reader::new(watcher, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                    let is_known = paths.iter().any(|path| path.file_name().is_some_and(|known| *known == *name));
                    is_source |= is_known || name.ends_with(".rs");
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error),
            }
        }
        timeout = Some(&SAME_CHANGE);
    }
}

fn laid(place: &Place) -> Result<Package, Stop> {
    let _lock = place.lock()?;
    place.lay()
}

/// Everything that a test of the package could depend on: what the program is made of, the package's own files, the config
/// files beside it, and this binary, which tests ask for graphs.
fn sources(place: &Place) -> BTreeSet<PathBuf> {
    let mut paths = BTreeSet::new();
    if let Some(built) = Stamp::unchanged(&place.stamp("built")) {
        paths.extend(built.paths().map(Path::to_owned));
    }
    match &place.source {
        Source::File(file) => {
            paths.insert(file.clone());
            match place.own_folder() {
                Some(folder) => collect(folder, &mut paths),
                None => paths.extend(programs_in(place.folder())),
            }
        }
        // Plugins are tested where they are written.
        Source::Plugins(_) => {}
        Source::Package(_) => {
            collect(place.folder(), &mut paths);
            // Also where they are not there yet.
            paths.extend(["src", "tests"].map(|folder| place.folder().join(folder)));
        }
    }
    paths.extend(cargo::settings(place.folder()));
    paths.extend(dialects::native::PIPELINE_FILES.iter().map(|name| place.root.join(name)));
    paths.extend(std::env::current_exe());
    paths
}

/// All files below a folder, and the folders below it, in which files may appear.
pub(super) fn collect(folder: &Path, paths: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if paths.len() >= FILES_MAX || NO_SOURCES.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, paths);
        }
        paths.insert(path);
    }
}

/// The sources in a folder, and in none below it.
fn programs_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| is_source(path))
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "rs")
}

/// Whether the program may have tests, so that cargo has to say: one of these sources looks like it, or cargo would take a file for
/// one. Only what certainly has none is spared the compilation of an empty test.
fn may_have_tests(place: &Place, paths: &BTreeSet<PathBuf>) -> bool {
    if let Source::Package(manifest) = &place.source
        && (place.folder().join("tests").is_dir()
            || fs::read_to_string(manifest).is_ok_and(|it| it.contains("[[test]]")))
    {
        return true;
    }
    let sdk = place.folder().join(".sdk");
    let is_own = |path: &Path| path.starts_with(&place.root) || path.starts_with(place.folder());
    paths.iter().filter(|path| is_own(path) && !path.starts_with(&sdk) && is_source(path)).any(
        |path| match fs::metadata(path) {
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => true,
            Ok(_) => fs::read(path).is_ok_and(|text| looks_tested(&String::from_utf8_lossy(&text))),
            Err(_) => false,
        },
    )
}

/// Whether a source has an attribute that speaks of tests (`#[test]`, `#[cfg(test)]`, one that a macro makes a test of), a macro
/// that does, or an example in its documentation, which cargo runs of a library.
fn looks_tested(text: &str) -> bool {
    let attributes = text.split("#[").skip(1).chain(text.split("#![").skip(1));
    let in_attribute = |text: &str| text.split(']').next().is_some_and(|attribute| attribute.contains("test"));
    let is_macro = |text: &str| {
        let name = text.rsplit(|letter: char| !letter.is_alphanumeric() && letter != '_').next();
        name.is_some_and(|name| name.contains("test"))
    };
    let n_parts = text.matches('!').count();
    attributes.into_iter().any(in_attribute) || text.split('!').take(n_parts).any(is_macro) || text.contains("```")
}

#[cfg(test)]
mod tests {
    use super::looks_tested;

    #[test]
    fn what_may_be_a_test_is_found_in_attributes_and_macros() {
        for text in [
            "#[test]\nfn a() {}",
            "#[rstest]\nfn a() {}",
            "#[tokio::test(flavor = \"current_thread\")]",
            "#[cfg(test)]\nmod tests;",
            "#![cfg_attr(test, x)]",
            "proptest! { }",
            "/// ```\n/// assert!(true);",
        ] {
            assert!(looks_tested(text), "{text}");
        }
        assert!(!looks_tested(
            "fn main() {\n    println!(\"#\");\n    ci.job(\"test\").run(\"cargo test\"); }\n// test\n#[derive(Data)]"
        ));
    }
}
