//! The files of builds as their manifests name them: pipeline files, digests of jobs' inputs, answers to questions.
//!
//! A source never changes, so what was read of one is kept as long as there is room. Nothing of a manifest is believed
//! before it was checked: paths stay inside. All of it blocks.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::source::{FILES_MAX, File, MANIFEST_BYTES_MAX, Manifest, VERSION};
use dialects::native::{self, PIPELINE_FILES, SourceFile};
use graph::patterns::Patterns;
use graph::{Answer, Digest, Question, Reuse, Timestamp};
use store::blob::{BlobError, Blobs};
use thiserror::Error;

use crate::lock::lock;
use crate::named;
use crate::present::{KNOWN_MS, Present};

/// The largest file of a pipeline in bytes.
pub const PIPELINE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most files of a pipeline.
pub const PIPELINE_FILES_MAX: usize = 100;
/// The longest path in bytes.
pub const PATH_BYTES_MAX: usize = 4096;
/// How many files all sources in memory may name together; the sources used longest ago go first.
pub const FILES_KEPT_MAX: usize = 2_000_000;
/// How many sources are in memory at most.
pub const SOURCES_KEPT_MAX: usize = 256;

/// Why the files of a build cannot be had.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The manifest, or a file of it, is not among the blobs: it was never sent, or has been collected.
    #[error("{what} is not on the server: send it again")]
    Absent {
        /// What.
        what: String,
    },
    /// The manifest is none, or says what cannot be.
    #[error("the source is no manifest of files: {0}")]
    Malformed(String),
    /// The project has no such pipeline.
    #[error("{0}")]
    NoPipeline(String),
    /// The blobs cannot be read.
    #[error("reading the source was refused")]
    Refused(#[source] BlobError),
}

impl SourceError {
    /// Whether the same may go well a moment later: the place of contents was refused, not the content.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Refused(error) if !matches!(error, BlobError::Absent(_)))
    }
}

/// How often files that could not be read are read again, for a build that would fail without them.
const READ_AGAIN_MAX: u32 = 7;
/// The wait before the first of these times; doubled each time: a second and a quarter together.
const READ_AGAIN_WAIT: Duration = Duration::from_millis(10);

/// Reads files of a build, again while they are refused and may be had later. Blocks.
///
/// # Errors
/// As `read`, at last.
pub fn read_patiently<T>(mut read: impl FnMut() -> Result<T, SourceError>) -> Result<T, SourceError> {
    let mut tries = 0;
    loop {
        match read() {
            Err(error) if error.may_pass() && tries < READ_AGAIN_MAX => {
                std::thread::sleep(READ_AGAIN_WAIT * (1 << tries));
                tries += 1;
            }
            other => return other,
        }
    }
}

/// The sources of all builds.
pub struct Sources {
    blobs: Arc<dyn Blobs>,
    /// The contents that are known to be among the blobs.
    pub present: Present,
    /// Used last at the back.
    kept: Mutex<VecDeque<Arc<Source>>>,
}

/// One source, checked.
pub struct Source {
    digest: Digest,
    manifest: Manifest,
    /// The project's folder with a `/` behind it; empty if it is the root.
    folder: String,
    /// Paths below the project's folder, relative to it, sorted by bytes, with the digest of content and kind.
    inside: Vec<(String, Digest)>,
    /// When all that it names was last found among the blobs; the beginning of time if it never was.
    whole_at: AtomicI64,
}

/// What makes a build's graph.
#[derive(Clone)]
pub struct Pipeline {
    /// The config files.
    pub files: Arc<[SourceFile]>,
    /// Who lowers them.
    pub by: Evaluator,
}

/// Who says what a pipeline's graph is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evaluator {
    /// The files alone: this process.
    Files,
    /// A program, its own or one made of plugins: a worker asks it.
    Program,
}

impl Sources {
    /// The sources among these blobs.
    #[must_use]
    pub fn new(blobs: Arc<dyn Blobs>) -> Self {
        Self { present: Present::new(Arc::clone(&blobs)), blobs, kept: Mutex::default() }
    }

    /// One source, from memory or from the blobs.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn open(&self, digest: Digest) -> Result<Arc<Source>, SourceError> {
        let sources = || lock(&self.kept);
        {
            let mut kept = sources();
            if let Some(place) = kept.iter().position(|source| source.digest == digest) {
                let source = kept.remove(place).expect("its place was found just now");
                kept.push_back(Arc::clone(&source));
                return Ok(source);
            }
        }
        let source = Arc::new(read(&*self.blobs, digest)?);
        let mut kept = sources();
        kept.push_back(Arc::clone(&source));
        let mut n_files: usize = kept.iter().map(|source| source.manifest.files.len()).sum();
        while kept.len() > 1 && (n_files > FILES_KEPT_MAX || kept.len() > SOURCES_KEPT_MAX) {
            n_files -= kept.pop_front().map_or(0, |source| source.manifest.files.len());
        }
        Ok(source)
    }

    /// Whether all that a source names is among the blobs, and stays for the collector's grace: its files, its history. Of a build of another
    /// one nothing could be kept or restored.
    ///
    /// # Errors
    /// [`SourceError::Absent`]; `Refused` if the blobs cannot be asked.
    pub fn check_whole(&self, source: &Source, now: Timestamp) -> Result<(), SourceError> {
        let whole_at = source.whole_at.load(Ordering::Relaxed);
        if whole_at != 0 && now.ms_since(Timestamp(whole_at)) < KNOWN_MS {
            return Ok(());
        }
        let contents: Vec<Digest> = named::contents(&source.manifest).chain([source.digest]).collect();
        let absent = self.present.first_absent(&contents, now).map_err(SourceError::Refused)?;
        if let Some(place) = absent {
            return Err(SourceError::Absent { what: source.name_of(contents[place]) });
        }
        if let Some(history) = source.manifest.history {
            let packs = named::packs(&*self.blobs, history).map_err(SourceError::Refused)?;
            if self.present.first_absent(&packs, now).map_err(SourceError::Refused)?.is_some() {
                return Err(SourceError::Absent { what: "a pack of the history of git".to_owned() });
            }
        }
        source.whole_at.store(now.0, Ordering::Relaxed);
        Ok(())
    }

    /// The pipeline of this name: paths in the project's folder, with `, ` between them.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn pipeline(&self, source: &Source, name: &str) -> Result<Pipeline, SourceError> {
        let mut files = Vec::new();
        let mut by = Evaluator::Files;
        for path in name.split(", ") {
            if is_program(path) {
                by = Evaluator::Program;
            } else if files.len() == PIPELINE_FILES_MAX {
                let what = format!("a pipeline of more than {PIPELINE_FILES_MAX} files");
                return Err(SourceError::NoPipeline(what));
            } else {
                files.push(SourceFile::new(path, self.content(source, path, PIPELINE_BYTES_MAX)?));
            }
        }
        if by == Evaluator::Files && !native::plugins(&files).is_empty() {
            by = Evaluator::Program;
        }
        Ok(Pipeline { files: files.into(), by })
    }

    /// The content of a file in the project's folder.
    ///
    /// # Errors
    /// [`SourceError`]; `NoPipeline` also if it is longer than `bytes_max`.
    pub fn content(&self, source: &Source, path: &str, bytes_max: u64) -> Result<Vec<u8>, SourceError> {
        let file = source.manifest.files.get(&format!("{}{path}", source.folder));
        let digest = match file {
            Some(File::Plain { digest, .. } | File::Program { digest, .. }) => *digest,
            Some(File::Link { .. }) => {
                return Err(SourceError::NoPipeline(format!("`{path}` is a symbolic link; name the file itself")));
            }
            None => return Err(SourceError::NoPipeline(format!("the source has no file `{path}`"))),
        };
        self.blobs.get(digest, bytes_max).map_err(|error| match error {
            BlobError::TooLong { bytes_max } => {
                SourceError::NoPipeline(format!("`{path}` is larger than {bytes_max} bytes"))
            }
            error => refused(error, &format!("`{path}`")),
        })
    }
}

/// Whether a path of a pipeline's name is a program: a Rust file or a package.
fn is_program(path: &str) -> bool {
    path.ends_with(".rs") || path == "Cargo.toml" || path.ends_with("/Cargo.toml")
}

impl Source {
    /// What the manifest says.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What of it has this content, for people.
    fn name_of(&self, content: Digest) -> String {
        let is_it = |file: &File| match file {
            File::Plain { digest, .. } | File::Program { digest, .. } => *digest == content,
            File::Link { .. } => false,
        };
        match self.manifest.files.iter().find(|(_, file)| is_it(file)) {
            Some((path, _)) => format!("the content of `{path}`"),
            None if self.manifest.history == Some(content) => "the history of git".to_owned(),
            None => "the list of files".to_owned(),
        }
    }

    /// The name of the project's own pipeline: the config files it has, and its program.
    ///
    /// # Errors
    /// `NoPipeline` if it has none.
    pub fn own_pipeline(&self) -> Result<String, SourceError> {
        let has = |path: &&str| self.manifest.files.contains_key(&format!("{}{path}", self.folder));
        let program = [".ropewalk/Cargo.toml", ".ropewalk/pipeline.rs"].into_iter().find(has);
        let names: Vec<&str> = PIPELINE_FILES.iter().copied().filter(has).chain(program).collect();
        if names.is_empty() {
            let what = "the source has no pipeline: `ropewalk init` writes one to .ropewalk/pipeline.yaml".to_owned();
            return Err(SourceError::NoPipeline(what));
        }
        Ok(names.join(", "))
    }

    /// Path and digest of each file on which a job's result depends, sorted by path; by the rules of a local build.
    ///
    /// # Errors
    /// A sentence: the job is not reusable, or a glob is wrong.
    pub fn inputs(&self, reuse: &Reuse) -> Result<Vec<(String, Digest)>, String> {
        match reuse {
            Reuse::Never => Err("the job is not reusable".to_owned()),
            Reuse::Tree => Ok(self.tree()),
            Reuse::Inputs(globs) => {
                let patterns = Patterns::new(globs).map_err(|fault| fault.to_string())?;
                let paths: Vec<&str> = self.inside.iter().map(|(path, _)| path.as_str()).collect();
                Ok(patterns.select(&paths).into_iter().map(|place| self.inside[place].clone()).collect())
            }
        }
    }

    /// Every file of the checkout, relative to the project's folder: paths above it begin with `..`.
    fn tree(&self) -> Vec<(String, Digest)> {
        let mut files: Vec<(String, Digest)> =
            self.manifest.files.iter().map(|(path, file)| (self.relative(path), of_kind(file))).collect();
        files.sort();
        files
    }

    fn relative(&self, path: &str) -> String {
        if let Some(inside) = path.strip_prefix(&self.folder) {
            return inside.to_owned();
        }
        let mut folders: Vec<&str> = self.folder.trim_end_matches('/').split('/').collect();
        let mut rest = path;
        while let (Some(first), Some((name, below))) = (folders.first(), rest.split_once('/'))
            && *first == name
        {
            folders.remove(0);
            rest = below;
        }
        format!("{}{rest}", "../".repeat(folders.len()))
    }

    /// What the manifest says to a question of the pipeline; `content` reads a file of the project's folder.
    pub fn answer(&self, question: &Question, content: impl FnOnce(&str) -> Result<Vec<u8>, SourceError>) -> Answer {
        let unknown = |what: &str| Answer::Unknown(format!("whoever sent the source did not say {what}"));
        match question {
            Question::ChangedFiles => match &self.manifest.changed {
                Some(changed) => Answer::Files(changed.clone()),
                None => unknown("which files changed"),
            },
            Question::BranchesHolding => match &self.manifest.branches {
                Some(branches) => Answer::Branches(branches.clone()),
                None => unknown("which branches hold the commit"),
            },
            Question::File(path) => match content(path) {
                Ok(bytes) => String::from_utf8(bytes)
                    .map_or_else(|_| Answer::Unknown(format!("`{path}` is no text")), Answer::Text),
                Err(error) => Answer::Unknown(error.to_string()),
            },
            Question::Outcome(job) => Answer::Unknown(format!("the outcome of {job} is the engine's to tell")),
        }
    }
}

fn refused(error: BlobError, what: &str) -> SourceError {
    match error {
        BlobError::Absent(_) => SourceError::Absent { what: what.to_owned() },
        error => SourceError::Refused(error),
    }
}

fn read(blobs: &dyn Blobs, digest: Digest) -> Result<Source, SourceError> {
    let reader = blobs.open(digest).map_err(|error| refused(error, "the list of files"))?;
    let reader = std::io::BufReader::new(reader.take(MANIFEST_BYTES_MAX));
    let manifest: Manifest = serde_json::from_reader(reader).map_err(|error| match error.io_error_kind() {
        Some(kind) => SourceError::Refused(BlobError::Io(kind.into())),
        None => SourceError::Malformed(error.to_string()),
    })?;
    check(&manifest)?;
    let folder = if manifest.folder.is_empty() { String::new() } else { format!("{}/", manifest.folder) };
    // The map is sorted by bytes, and so are those below one folder.
    let inside =
        manifest.files.iter().filter_map(|(path, file)| Some((path.strip_prefix(&folder)?.to_owned(), of_kind(file))));
    let inside = inside.collect();
    Ok(Source { digest, folder, inside, manifest, whole_at: AtomicI64::default() })
}

fn check(manifest: &Manifest) -> Result<(), SourceError> {
    let wrong = |what: String| Err(SourceError::Malformed(what));
    if manifest.version != VERSION {
        return wrong(format!("it has version {}, and this server knows {VERSION}", manifest.version));
    }
    if manifest.files.len() > FILES_MAX {
        return wrong(format!("it names {} files, the most is {FILES_MAX}", manifest.files.len()));
    }
    if !manifest.folder.is_empty() && !is_inside(&manifest.folder) {
        return wrong("its folder leads out of the checkout".to_owned());
    }
    match manifest.files.keys().find(|path| !is_inside(path)) {
        Some(path) => wrong(format!("`{}` is no path in the checkout", path.escape_debug())),
        None => Ok(()),
    }
}

/// Whether a path is relative, plain and stays inside.
fn is_inside(path: &str) -> bool {
    path.len() <= PATH_BYTES_MAX
        && !path.contains('\0')
        && path.split('/').all(|name| !name.is_empty() && name != "." && name != "..")
}

/// The digest of a file's content and kind, so that a changed executable bit is a change. The same as for a tree on disk.
fn of_kind(file: &File) -> Digest {
    let (kind, content) = match file {
        File::Plain { digest, .. } => return *digest,
        File::Program { digest, .. } => (1, *digest),
        File::Link { target } => (2, store::blob::digest(target.as_bytes())),
    };
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&content.0);
    store::blob::digest(&bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use store::blob::MemoryBlobs;

    use super::*;

    fn source(folder: &str, paths: &[&str]) -> Result<Arc<Source>, String> {
        let blobs = Arc::new(MemoryBlobs::default());
        let file = |path: &&str| ((*path).to_owned(), File::Plain { digest: store::blob::digest(b"x"), bytes: 1 });
        let files: BTreeMap<String, File> = paths.iter().map(file).collect();
        let manifest = Manifest { version: VERSION, files, folder: folder.to_owned(), ..Manifest::default() };
        let digest = blobs.put(&serde_json::to_vec(&manifest).unwrap()).unwrap();
        Sources::new(blobs).open(digest).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check_inputs(folder: &str, paths: &[&str], reuse: &Reuse, expected: &str) {
        let inputs = source(folder, paths).unwrap().inputs(reuse).unwrap();
        assert_eq!(inputs.into_iter().map(|(path, _)| path).collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn inputs_are_relative_to_the_projects_folder() {
        let paths = ["a", "x/b", "x/y/c", "x/y/d/e", "x/yz"];
        check_inputs("", &paths, &Reuse::Tree, "a x/b x/y/c x/y/d/e x/yz");
        check_inputs("x/y", &paths, &Reuse::Tree, "../../a ../b ../yz c d/e");
        check_inputs("x/y", &paths, &Reuse::Inputs(vec!["**".to_owned()]), "c d/e");
        check_inputs("", &paths, &Reuse::Inputs(vec!["x".to_owned(), "!x/y".to_owned()]), "x/b x/yz");
    }

    #[test]
    fn paths_stay_inside() {
        for path in ["/etc/passwd", "a/../../b", "a//b", "", "./a", "a\0"] {
            assert!(source("", &[path]).is_err(), "{path:?}");
        }
        assert!(source("..", &["a"]).is_err());
    }

    #[test]
    fn a_project_has_config_files_and_a_program() {
        let named = |paths: &[&str]| source("x", paths).unwrap().own_pipeline().map_err(|error| error.to_string());
        assert_eq!(
            named(&["x/.ropewalk/pipeline.yaml", "x/.ropewalk/pipeline.rs"]).unwrap(),
            ".ropewalk/pipeline.yaml, .ropewalk/pipeline.rs"
        );
        assert!(named(&[".ropewalk/pipeline.yaml"]).is_err());
    }
    #[test]
    fn what_was_cut_off_is_read_again_and_what_is_no_manifest_is_not() {
        use std::sync::atomic::{AtomicU32, Ordering};

        use store::blob::{BlobFault, FaultyBlobs};

        let check = |content: &[u8], read_first: fn(&SourceError) -> bool, reads: u32| {
            let inner = MemoryBlobs::default();
            let digest = inner.put(content).unwrap();
            let opened = Arc::new(AtomicU32::new(0));
            let counted = Arc::clone(&opened);
            let cut_first = move |call: &str| {
                let is_first = call == "open" && counted.fetch_add(1, Ordering::Relaxed) == 0;
                is_first.then_some(BlobFault::Cut(9))
            };
            let sources = Sources::new(Arc::new(FaultyBlobs::new(inner, cut_first)));
            let mut first = None;
            let read = read_patiently(|| {
                sources.open(digest).inspect_err(|error| first = first.or(Some(read_first(error)))).map(drop)
            });
            assert_eq!((first, opened.load(Ordering::Relaxed)), (Some(true), reads), "{read:?}");
            read
        };
        let manifest = serde_json::to_vec(&Manifest { version: VERSION, ..Manifest::default() }).unwrap();
        check(&manifest, |error| matches!(error, SourceError::Refused(_)), 2).unwrap();
        check(b"[1]", |error| matches!(error, SourceError::Malformed(_)), 1).unwrap_err();
    }
}
