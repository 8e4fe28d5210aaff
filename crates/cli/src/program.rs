//! Pipelines that are Rust programs: found, built by the user's cargo, kept by digest, tested, asked.
//!
//! [`find`] says where a program is; [`Program::build`] gives its binary, from the cache if nothing changed (a stamp of every
//! source says so, no cargo is asked); [`Program::ask`] evaluates it in a sandboxed process that lives as long as the
//! [`Program`]. What crosses is described in docs/design/2026-11-21-rust-pipelines.md.

mod cargo;
mod ending;
pub mod evaluation;
mod frontmatter;
mod made;
mod manifests;
pub mod plugins;
pub mod said;
pub mod sdk;
mod single;
mod stamp;
pub mod testing;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use dialects::program::Reply;
use graph::{Digest, Shell};
use store::{DATABASE_FILE, SqliteStore, Store, StoreError};
use worker::evaluator::{Evaluator, EvaluatorError, Limits};
use worker::sandbox::Sandbox;

use crate::args::Colour;
use crate::commands::Stop;
use crate::project::{PIPELINE_FOLDER, Project};
use cargo::{Finished, Package, Verb};
use said::Said;
use sdk::Form;
use stamp::{Made, Recipe, Stamp};

/// How long a binary is kept that no build has used.
const BINARIES_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where a program is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// One file.
    File(PathBuf),
    /// A package, by its manifest.
    Package(PathBuf),
    /// The plugins that config files name.
    Plugins(plugins::Plugins),
}

impl Source {
    /// The file, the manifest, or the config file that names plugins.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Package(path) => path,
            Self::Plugins(plugins) => plugins.path(),
        }
    }

    /// The program that a path names: a `.rs` file, or a manifest.
    pub fn of(path: &Path) -> Option<Self> {
        if path.extension().is_some_and(|end| end == "rs") {
            return Some(Self::File(path.to_owned()));
        }
        path.file_name().is_some_and(|name| name == "Cargo.toml").then(|| Self::Package(path.to_owned()))
    }
}

/// Whether there is a cargo to build programs with.
///
/// # Errors
/// If there is none, with what to do.
pub fn check_cargo() -> Result<(), Stop> {
    cargo::program().map(drop)
}

/// The program of a project, if it has one: a package, else a file.
pub fn find(project: &Project) -> Option<Source> {
    let folder = project.root.join(PIPELINE_FOLDER);
    let (manifest, file) = (folder.join("Cargo.toml"), folder.join("pipeline.rs"));
    if manifest.is_file() {
        return Some(Source::Package(manifest));
    }
    file.is_file().then_some(Source::File(file))
}

/// The file that would be the project's program if there were no package, as users know it. A manifest that names it makes it part of the
/// package.
pub fn unread_file(project: &Project) -> Option<String> {
    let folder = project.root.join(PIPELINE_FOLDER);
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).ok()?;
    let is_unread = folder.join("pipeline.rs").is_file() && !manifest.contains("pipeline.rs");
    is_unread.then(|| format!("{PIPELINE_FOLDER}/pipeline.rs"))
}

/// The program that a path on the command line names, or without one the project's.
pub fn source(project: &Project, path: Option<&Path>) -> Option<Source> {
    match path {
        Some(path) => Source::of(&std::env::current_dir().unwrap_or_default().join(path)),
        None => find(project),
    }
}

/// A program that is built.
pub struct Program {
    /// The file or manifest as users know it, relative to the project.
    pub name: String,
    /// The binary.
    pub binary: PathBuf,
    /// The digest of the binary.
    pub digest: Digest,
    place: Place,
    evaluator: RefCell<Option<Evaluator>>,
    /// What hooks it has, once it was asked.
    hooks: RefCell<Option<Rc<Reply>>>,
    /// Its sources, as far as they were shown, by name.
    texts: RefCell<BTreeMap<String, Option<String>>>,
    /// What lowering remembers from evaluation to evaluation.
    memory: RefCell<dialects::program::Memory>,
}

/// Where a program and what is made of it lie.
#[derive(Clone, Debug)]
struct Place {
    root: PathBuf,
    /// What is kept of the project; workers find binaries there.
    data: PathBuf,
    source: Source,
    /// As users know it.
    name: String,
    /// The folder in the cache for this program.
    kept: PathBuf,
    cache: PathBuf,
    colour: Colour,
}

impl Place {
    fn new(project: &Project, source: Source, colour: Colour) -> Result<Self, Stop> {
        let cache = crate::project::cache_home().map_err(Stop::wrong)?;
        let name = source.path().strip_prefix(&project.root).unwrap_or(source.path()).display().to_string();
        let of_project = project.data.file_name().unwrap_or_default().to_string_lossy();
        let digest = blake3::hash(source.path().as_os_str().as_encoded_bytes()).to_hex();
        let kept = cache.join("programs").join(format!("{of_project}-{}", &digest[..8]));
        Ok(Self { root: project.root.clone(), data: project.data.clone(), source, name, kept, cache, colour })
    }

    /// The folder that holds the file or the manifest.
    fn folder(&self) -> &Path {
        self.source.path().parent().unwrap_or(&self.root)
    }

    /// The folder that is the program's alone, in which a file that appears may become part of it. A file may also lie at the
    /// project's root, among all that is not the pipeline's.
    fn own_folder(&self) -> Option<&Path> {
        match self.source {
            Source::Package(_) => Some(self.folder()),
            Source::File(_) => Some(self.folder()).filter(|folder| !self.root.starts_with(folder)),
            Source::Plugins(_) => None,
        }
    }

    /// The form of the SDK that the program is built with.
    fn form(&self) -> Form {
        match &self.source {
            // Their package lies outside of the repository's.
            Source::File(_) | Source::Plugins(_) => Form::Whole,
            Source::Package(manifest) => Form::of(&manifests::read(manifest, &self.root)),
        }
    }

    fn stamp(&self, what: &str) -> PathBuf {
        let sdk = sdk::name(self.form());
        let name = match &self.source {
            Source::File(_) | Source::Package(_) => format!("{what}-{sdk}"),
            Source::Plugins(plugins) => format!("{what}-{sdk}-{}", plugins.digest()),
        };
        self.kept.join(name)
    }

    fn binary(&self, digest: Digest) -> PathBuf {
        worker::program_file(&self.data, digest)
    }

    /// Lays what the package depends on, and the package itself if the program is a file.
    fn lay(&self) -> Result<Package, Stop> {
        let failed =
            |error: io::Error| Stop::infra(format!("could not lay the SDK into {}: {error}", self.cache.display()));
        let form = self.form();
        let sdk = sdk::lay(&self.cache, form).map_err(failed)?;
        let package = self.package();
        let laid = self.kept.join("package");
        match &self.source {
            Source::File(file) => single::lay(file, &self.name, &laid, &sdk)?,
            Source::Package(manifest) if self.expects_link(manifest) => link(self.folder(), &sdk)?,
            Source::Package(_) => {}
            Source::Plugins(plugins) => {
                if let Some(folder) = plugins.linked(&self.root) {
                    fs::create_dir_all(&folder).map_err(failed)?;
                    link(&folder, &sdk)?;
                }
                plugins::lay(plugins, &self.root, &laid, &sdk)?;
            }
        }
        Ok(package)
    }

    /// Where cargo works, and on what, once it is laid.
    fn package(&self) -> Package {
        let target = self.kept.join(format!("target-{}", sdk::name(self.form())));
        let manifest = match &self.source {
            Source::File(_) | Source::Plugins(_) => self.kept.join("package/Cargo.toml"),
            Source::Package(manifest) => manifest.clone(),
        };
        Package { folder: self.folder().to_owned(), manifest, target }
    }

    /// Whether a package looks for the SDK behind the link in its folder; not if it names a published version. The line may stand in
    /// another manifest of its workspace.
    fn expects_link(&self, manifest: &Path) -> bool {
        manifests::read(manifest, &self.root).iter().any(|text| text.contains(".sdk/"))
    }

    /// Holds every other command off this program's folder in the cache.
    fn lock(&self) -> Result<File, Stop> {
        let failed =
            |error: io::Error| Stop::infra(format!("could not use the cache {}: {error}", self.kept.display()));
        fs::create_dir_all(&self.kept).map_err(failed)?;
        let file = File::create(self.kept.join("lock")).map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(file)
    }

    /// Whether what the package finds its SDK by is as this binary would make it.
    fn is_linked(&self) -> bool {
        let is_ours = |target: &Path| target.ends_with(sdk::name(self.form())) && target.is_dir();
        match &self.source {
            Source::File(_) => true,
            Source::Package(manifest) => match fs::read_link(self.folder().join(".sdk")) {
                Ok(target) => is_ours(&target),
                Err(_) => !self.expects_link(manifest),
            },
            Source::Plugins(plugins) => plugins
                .linked(&self.root)
                .is_none_or(|folder| fs::read_link(folder.join(".sdk")).is_ok_and(|target| is_ours(&target))),
        }
    }

    /// The binary made before, if nothing has changed since; or made of the same files in another folder of the project, as
    /// a child build has them in its workspace.
    fn unchanged(&self) -> Option<Digest> {
        let of_stamp = || Some(Stamp::unchanged(&self.stamp("built"))?.result);
        let result = if self.is_linked() { of_stamp() } else { None };
        let result = result.or_else(|| Some(Recipe::unchanged(&self.recipe("built"), &self.root)?.result))?;
        let (digest, bytes) = result.split_once(' ')?;
        let digest: Digest = digest.parse().ok()?;
        let binary = File::open(self.binary(digest)).ok()?;
        // A disk that was full, or a machine that lost power, may have left less of it.
        if binary.metadata().ok()?.len().to_string() != bytes {
            return None;
        }
        // Binaries that nobody uses go by their age.
        let _ = binary.set_modified(SystemTime::now());
        Some(digest)
    }

    /// Where it is kept what something was made of, for all folders that hold this project's files.
    fn recipe(&self, what: &str) -> PathBuf {
        let name = blake3::hash(self.name.as_bytes()).to_hex();
        let stamp = self.stamp(what);
        let stamp = stamp.file_name().unwrap_or_default().to_string_lossy();
        self.data.join("programs").join(format!("recipe-{}-{stamp}", &name[..8]))
    }

    /// Keeps a stamp of what something was made of, and its recipe. Losing them costs time only.
    fn remember(&self, what: &str, made: Made, began: SystemTime, result: String) {
        let (path, recipe) = (self.stamp(what), self.recipe(what));
        let Some(stamp) = Stamp::of(made, began, result) else {
            let _ = fs::remove_file(&path);
            return;
        };
        let _ = stamp.keep(&path);
        let _ = match Recipe::of(&stamp, &self.root) {
            Some(made) => made.keep(&recipe),
            None => fs::remove_file(&recipe),
        };
    }

    /// Builds the binary and keeps it under its digest.
    fn build(&self) -> Result<Digest, Stop> {
        let _lock = self.lock()?;
        // Whoever held the lock may have built it.
        if let Some(digest) = self.unchanged() {
            return Ok(digest);
        }
        let package = self.lay()?;
        let began = SystemTime::now();
        let finished = cargo::call(Verb::Build, &package, self.colour)?;
        if !finished.status.success() {
            return Err(self.not_built(&package, &finished));
        }
        // Warnings.
        let _ = io::stderr().write_all(&self.said(&package, &finished));
        let made = self.pick(&finished)?;
        let failed = |error: io::Error| Stop::infra(format!("could not keep the pipeline's binary: {error}"));
        let bytes = fs::read(&made).map_err(failed)?;
        let digest = Digest(*blake3::hash(&bytes).as_bytes());
        let binary = self.binary(digest);
        let is_whole = |binary: &Path| fs::metadata(binary).is_ok_and(|there| there.len() == bytes.len() as u64);
        if !is_whole(&binary) {
            let folder = binary.parent().unwrap_or(&self.data);
            store::make_private_folder(&self.data).and_then(|()| fs::create_dir_all(folder)).map_err(failed)?;
            let fresh = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
            fs::copy(&made, fresh.path()).map_err(failed)?;
            // Its name must not outlive a loss of power that its bytes do not.
            fresh.as_file().sync_all().map_err(failed)?;
            fresh.persist(&binary).map_err(|error| failed(error.error))?;
        }
        match made::of(self, &package, &made, &finished.stdout) {
            Some(what) => self.remember("built", what, began, format!("{} {}", digest.to_hex(), bytes.len())),
            None => drop(fs::remove_file(self.stamp("built"))),
        }
        self.retire();
        Ok(digest)
    }

    /// What cargo said. The manifest that was laid for a single file is the file, in which it stands on the same lines.
    fn said(&self, package: &Package, finished: &Finished) -> Vec<u8> {
        let Source::File(_) = &self.source else { return finished.stderr.clone() };
        let text = String::from_utf8_lossy(&finished.stderr);
        // Cargo names it from where it works, or from the root.
        let from_here = path_from(&package.folder, &package.manifest).display().to_string();
        let from_root = package.manifest.display().to_string();
        let text = text.replace(&from_here, &self.name).replace(&from_root, &self.name);
        // Where the manifest lies is what a fault of a dependency names.
        let folders = [&from_here, &from_root].map(|manifest| manifest.trim_end_matches("/Cargo.toml"));
        let text =
            folders.iter().fold(text, |text, folder| text.replace(&format!("({folder})"), &format!("({})", self.name)));
        text.into_bytes()
    }

    /// Why there is no binary: what cargo said is all.
    fn not_built(&self, package: &Package, finished: &Finished) -> Stop {
        let text = String::from_utf8_lossy(&self.said(package, finished)).into_owned();
        let said = Said::new(&self.name, text, |file| self.shown(file));
        Stop { said: Some(Box::new(said)), ..Stop::wrong("") }
    }

    /// The one binary that is the pipeline.
    fn pick(&self, finished: &Finished) -> Result<PathBuf, Stop> {
        let mut binaries = cargo::binaries(&finished.stdout);
        if let Some(place) = binaries.iter().position(|(name, _)| name == "pipeline") {
            return Ok(binaries.swap_remove(place).1);
        }
        match binaries.len() {
            1 => Ok(binaries.remove(0).1),
            0 => Err(Stop::wrong(format!(
                "{} makes no binary: a pipeline is a program with `ropewalk::Ci::main`",
                self.name
            ))),
            _ => {
                let names: Vec<String> = binaries.into_iter().map(|(name, _)| name).collect();
                Err(Stop::wrong(format!(
                    "{} makes several binaries ({}): name the one that is the pipeline `pipeline`",
                    self.name,
                    names.join(", ")
                )))
            }
        }
    }

    /// Removes target folders of other versions of the SDK, and binaries that nobody has used for long.
    fn retire(&self) {
        let current = format!("target-{}", sdk::name(self.form()));
        for entry in fs::read_dir(&self.kept).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("target-") && name != current {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let is_old = |path: &PathBuf| {
            let age = fs::metadata(path).and_then(|it| it.modified()).ok().and_then(|time| time.elapsed().ok());
            age.is_some_and(|age| age > BINARIES_KEPT)
        };
        let entries = fs::read_dir(self.data.join("programs")).into_iter().flatten().flatten();
        let old: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_old).collect();
        if old.is_empty() {
            return;
        }
        let Ok(in_use) = programs_in_use(&self.data) else { return };
        let in_use: BTreeSet<PathBuf> = in_use.into_iter().map(|digest| self.binary(digest)).collect();
        for path in old.into_iter().filter(|path| !in_use.contains(path)) {
            let _ = fs::remove_file(path);
        }
    }

    /// A file that the program's places name, relative to the project. The compiler names files as they lie below the
    /// folder it works in: the package's, or that of a workspace around it; for a single file the project's root.
    fn shown(&self, file: &str) -> String {
        let path = Path::new(file);
        let start = match self.source {
            Source::Package(_) => self.folder(),
            Source::File(_) => &self.root,
            // What is no package of the repository lies in the cache.
            Source::Plugins(_) => {
                let found = self.kept.join("package").join(path);
                return found.strip_prefix(&self.root).unwrap_or(&found).display().to_string();
            }
        };
        let above = start.ancestors().take_while(|folder| folder.starts_with(&self.root));
        let found = above.map(|folder| folder.join(path)).find(|path| path.is_file());
        let found = found.unwrap_or_else(|| path.to_owned());
        found.strip_prefix(&self.root).unwrap_or(&found).display().to_string()
    }
}

impl Program {
    /// The program's binary, built if anything changed. What cargo warns of goes to standard error as it is.
    ///
    /// # Errors
    /// If it does not compile (with all that was said), there is no cargo, or the cache cannot be used.
    pub fn build(project: &Project, source: Source, colour: Colour) -> Result<Self, Stop> {
        let place = Place::new(project, source, colour)?;
        let digest = match place.unchanged() {
            Some(digest) => digest,
            None => place.build()?,
        };
        Ok(Self::at(place, digest))
    }

    /// The program as it was built before, by its binary's digest: nothing is built, whatever its sources are by now.
    ///
    /// # Errors
    /// If the binary is not kept any more, or the cache cannot be used.
    pub fn kept(project: &Project, source: Source, digest: Digest) -> Result<Self, Stop> {
        let place = Place::new(project, source, Colour::Never)?;
        let program = Self::at(place, digest);
        // Those that nobody uses go by their age.
        let used = File::open(&program.binary).and_then(|file| file.set_modified(SystemTime::now()));
        match used {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Stop::wrong(format!(
                "the program of {} with which the build began is not kept any more: {} is gone",
                program.name,
                program.binary.display()
            ))),
            Ok(()) | Err(_) => Ok(program),
        }
    }

    fn at(place: Place, digest: Digest) -> Self {
        Self {
            name: place.name.clone(),
            binary: place.binary(digest),
            digest,
            place,
            evaluator: RefCell::default(),
            hooks: RefCell::default(),
            texts: RefCell::default(),
            memory: RefCell::default(),
        }
    }

    /// Finds the program's faults without building it.
    ///
    /// # Errors
    /// If it does not compile (with all that was said), there is no cargo, or the cache cannot be used.
    pub fn check(project: &Project, source: &Source, colour: Colour) -> Result<(), Stop> {
        let place = Place::new(project, source.clone(), colour)?;
        if place.unchanged().is_some() {
            return Ok(());
        }
        let _lock = place.lock()?;
        let package = place.lay()?;
        let finished = cargo::call(Verb::Check, &package, colour)?;
        if finished.status.success() {
            // Warnings are told by the build that follows.
            return Ok(());
        }
        Err(place.not_built(&package, &finished))
    }

    /// Asks the program: one line in, one line out.
    ///
    /// # Errors
    /// A sentence: it ended, or passed a limit.
    pub fn ask(&self, request: &str) -> Result<String, String> {
        let mut slot = self.evaluator.borrow_mut();
        let answer = match slot.take() {
            Some(mut evaluator) => evaluator.ask(request).map(|answer| (evaluator, answer)),
            None => self.ask_first(request),
        };
        match answer {
            Ok((evaluator, answer)) => {
                *slot = Some(evaluator);
                Ok(answer)
            }
            Err(EvaluatorError::Died { how, said }) => {
                // What it printed may have many lines: shown as they are, before the sentence.
                let _ = io::stderr().write_all(said.as_bytes());
                Err(sentence(&EvaluatorError::Died { how, said: String::new() }))
            }
            Err(error) => Err(sentence(&error)),
        }
    }

    /// Starts the program and asks it. Whether bubblewrap works is not tried beforehand, since that takes as long as the
    /// evaluation itself: where it says that it cannot, the program is asked without walls, and people are told.
    fn ask_first(&self, request: &str) -> Result<(Evaluator, String), EvaluatorError> {
        let ask = |walls: Option<&Sandbox>| {
            let mut evaluator = Evaluator::start(&self.binary, walls, Limits::default())?;
            evaluator.ask(request).map(|answer| (evaluator, answer))
        };
        let refused = match Sandbox::find() {
            Err(error) => error,
            Ok(sandbox) => match ask(Some(&sandbox)) {
                Err(EvaluatorError::Died { how, said }) if said.starts_with("bwrap: ") => match Sandbox::probe() {
                    Err(error) => error,
                    Ok(_) => return Err(EvaluatorError::Died { how, said }),
                },
                answer => return answer,
            },
        };
        let _ = writeln!(io::stderr(), "note: the pipeline's program is evaluated without a sandbox: {refused}");
        ask(None)
    }

    /// Whether it is only the plugins that config files name: then it has no file of its own, and no tests.
    pub fn is_of_files(&self) -> bool {
        matches!(self.place.source, Source::Plugins(_))
    }

    /// The next question goes to a new process.
    pub fn forget(&self) {
        self.evaluator.borrow_mut().take();
    }

    /// A file that the program's places name, as users know it: relative to the project.
    pub fn shown(&self, file: &str) -> String {
        self.place.shown(file)
    }
}

/// The path by which a file is found from a folder; both are absolute.
fn path_from(folder: &Path, file: &Path) -> PathBuf {
    let n_shared = folder.components().zip(file.components()).take_while(|(one, other)| one == other).count();
    let up = folder.components().skip(n_shared).map(|_| Path::new(".."));
    up.chain(file.components().skip(n_shared).map(|part| Path::new(part.as_os_str()))).collect()
}

/// The binaries whose functions are jobs of builds that have not ended; one may wait for a person as long as it likes.
fn programs_in_use(data: &Path) -> Result<BTreeSet<Digest>, StoreError> {
    let mut programs = BTreeSet::new();
    if !data.join(DATABASE_FILE).is_file() {
        return Ok(programs);
    }
    let store = SqliteStore::open_to_read(data)?;
    for build in store.unfinished()? {
        let Some(graph) = store.graph(build)? else { continue };
        let steps = graph.jobs.values().flat_map(|job| &job.steps);
        programs.extend(steps.filter_map(|step| match step.shell {
            Shell::Program(digest) => Some(digest),
            _ => None,
        }));
    }
    Ok(programs)
}

/// Makes the link `.sdk` in a folder of the repository, and has git ignore it.
fn link(folder: &Path, sdk: &Path) -> Result<(), Stop> {
    let failed =
        |error: io::Error| Stop::infra(format!("could not link {}/.sdk to the SDK: {error}", folder.display()));
    sdk::link(folder, sdk).map_err(failed)?;
    let ignore = folder.join(".gitignore");
    if ignore.exists() { Ok(()) } else { fs::write(ignore, "/.sdk\n/target\n").map_err(failed) }
}

fn sentence(error: &dyn std::error::Error) -> String {
    Stop::of(error).message
}
