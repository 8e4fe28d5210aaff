//! Programs of pipelines, built and asked here: each in a folder in which its project's files are brought up to date, so that
//! what has not changed is not compiled again.
//!
//! A folder is chosen by how much of a source is in it already. It is written to file by file, with new times, and never
//! shared with jobs.
//!
//! A program that has questions left when it has answered is kept running for its build ([`Session`]), so that a graph that
//! grows a thousand times costs one start. What it was built of is not looked at again: files of a source never change.
//!
//! Questions are answered beside one another, but for those that want the same folder. One that nobody waits for any more is ended with all
//! that it started ([`Evaluations::forget`]).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::source::{File, Manifest};
use dialects::program::REPLY_BYTES_MAX;
use graph::{BuildId, Digest, Known};

use super::content::Contents;
use crate::commands::evaluate::{Answer, More, Question};

/// How many folders there are; the one used longest ago is taken for a source that is like none.
const FOLDERS_MAX: usize = 8;

/// In how many of them programs are built and tested at once.
const BUILDS_MAX: usize = 4;

/// A folder is taken for a source if so many percent of its files are the same.
const ALIKE_PERCENT_MIN: usize = 50;

/// The most that is told of what a compiler said: its end.
const SAID_BYTES_MAX: usize = 64 << 10;

/// How many programs are kept running for builds that grow, each within the limits of one evaluation
/// ([`worker::evaluator::Limits`]); the one that was asked longest ago goes first.
const SESSIONS_MAX: usize = 4;

/// How long one is kept that nobody asks. Then its build pays for a start again, once.
pub const SESSION_IDLE_MAX: Duration = Duration::from_secs(120);

/// The longest answer: a reply within a text of JSON, in which at worst each byte is written as six, and the names of files.
const ANSWER_BYTES_MAX: u64 = 6 * REPLY_BYTES_MAX as u64 + (64 << 20);

const MANIFEST: &str = "manifest.json";
const TREE: &str = "tree";

/// What is said of a question that nobody waits for; nobody hears it.
const UNWANTED: &str = "the build does not want it any more";

/// The folders in which programs are built, and the programs that are kept running.
pub struct Evaluations {
    root: PathBuf,
    /// The one used last stands last.
    folders: Mutex<Vec<Folder>>,
    /// Told when a folder is let go, and when a question is forgotten.
    changed: Condvar,
    /// The one asked last stands last. None is here while it is asked.
    sessions: Mutex<Vec<Session>>,
    /// The questions that are being answered, by number.
    underway: Mutex<BTreeMap<u64, Underway>>,
    /// How many programs were started.
    n_started: AtomicU64,
}

/// A question that is being answered.
#[derive(Default)]
struct Underway {
    /// Whether nobody waits for the answer any more.
    is_forgotten: bool,
    /// The marker of the processes that answer it.
    marker: Option<String>,
}

/// What a program is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The build.
    pub build: BuildId,
    /// Its files.
    pub source: Digest,
    /// The pipeline, as the request named it.
    pub pipeline: String,
}

/// One folder.
struct Folder {
    path: PathBuf,
    /// What it holds; while it is held, what it is to hold.
    files: BTreeMap<String, File>,
    is_held: bool,
}

/// A folder that is one question's, until this is dropped.
struct Held<'e> {
    evaluations: &'e Evaluations,
    path: PathBuf,
    /// What it held before.
    was: BTreeMap<String, File>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut folders = self.evaluations.folders();
        if let Some(folder) = folders.iter_mut().find(|folder| folder.path == self.path) {
            folder.is_held = false;
        }
        drop(folders);
        self.evaluations.changed.notify_all();
    }
}

impl Evaluations {
    /// Opens the folders of an earlier life; the newest use is not known any more.
    pub fn open(root: PathBuf) -> Self {
        let mut folders = Vec::new();
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let path = entry.path();
            let manifest = fs::read(path.join(MANIFEST)).ok().and_then(|text| serde_json::from_slice(&text).ok());
            if let Some(Manifest { files, .. }) = manifest {
                folders.push(Folder { path, files, is_held: false });
            }
        }
        Self {
            root,
            folders: Mutex::new(folders),
            changed: Condvar::new(),
            sessions: Mutex::default(),
            underway: Mutex::default(),
            n_started: AtomicU64::new(0),
        }
    }

    /// Notes that a question is to be answered, so that it can be forgotten. To be ended by [`Evaluations::end`].
    pub fn begin(&self, id: u64) {
        self.underway().insert(id, Underway::default());
    }

    /// How many questions are being answered.
    pub fn count(&self) -> usize {
        self.underway().len()
    }

    /// A question has been answered. Gives whether somebody waits for the answer.
    pub fn end(&self, id: u64) -> bool {
        self.underway().remove(&id).is_some_and(|question| !question.is_forgotten)
    }

    /// Nobody waits for the answer to a question any more: what answers it is ended, with the compiler and the tests that it started. Blocks.
    pub fn forget(&self, id: u64) {
        let marker = {
            let mut underway = self.underway();
            let Some(question) = underway.get_mut(&id) else { return };
            question.is_forgotten = true;
            question.marker.clone()
        };
        // Whoever waits for a folder looks again.
        drop(self.folders());
        self.changed.notify_all();
        if let Some(marker) = marker {
            let _ = worker::keeper::kill_leftovers(&marker);
        }
    }

    /// As [`Evaluations::forget`], for all questions. Blocks.
    pub fn forget_all(&self) {
        let all: Vec<u64> = self.underway().keys().copied().collect();
        all.into_iter().for_each(|id| self.forget(id));
    }

    /// Asks the program that runs for this build already; `None` if none does, or it has died. Blocks.
    ///
    /// # Errors
    /// As [`Evaluations::ask`].
    pub fn ask_again(&self, id: u64, about: &About, data: &Path, known: &Known) -> Option<Result<Answer, String>> {
        self.retire(Instant::now());
        let session = {
            let mut sessions = self.sessions();
            let place = sessions.iter().position(|session| session.about == *about)?;
            sessions.remove(place)
        };
        let question = Question {
            root: session.root.clone(),
            data: data.to_owned(),
            pipeline: about.pipeline.clone(),
            known: known.clone(),
            program: None,
        };
        Some(self.asked(id, session, &question))
    }

    /// Asks the program of a source whose contents are all here: `program`, which lies among the programs, or if there is none what is built of the
    /// source. Waits for a folder. Blocks.
    ///
    /// # Errors
    /// What people should read: what the compiler said, or why the program could not be asked.
    pub fn ask(
        &self,
        (id, about): (u64, About),
        (manifest, contents): (&Manifest, &Contents),
        data: &Path,
        known: Known,
        program: Option<Digest>,
    ) -> Result<Answer, String> {
        let held = self.hold(id, manifest)?;
        held.sync(manifest, contents).map_err(|error| format!("cannot lay the pipeline's files: {error}"))?;
        let root = held.path.join(TREE).join(&manifest.folder);
        let question =
            Question { root: root.clone(), data: data.to_owned(), pipeline: about.pipeline.clone(), known, program };
        let number = self.n_started.fetch_add(1, Ordering::Relaxed);
        let marker = format!("{}evaluate/{number}/", worker::data_marker_prefix(data));
        let session = Session::start(about, root, marker)?;
        self.asked(id, session, &question)
    }

    /// Asks, and keeps the program if it will be asked again.
    fn asked(&self, id: u64, mut session: Session, question: &Question) -> Result<Answer, String> {
        // From here on whoever forgets the question ends the program.
        self.mark(id, Some(session.marker.clone()))?;
        let line = session.ask(question);
        let is_wanted = self.mark(id, None);
        let answer = session.read(&line?)?;
        is_wanted?;
        if answer.more == More::ToCome {
            let mut sessions = self.sessions();
            sessions.push(session);
            if sessions.len() > SESSIONS_MAX {
                sessions.remove(0);
            }
        }
        Ok(answer)
    }

    /// Notes which processes answer a question.
    fn mark(&self, id: u64, marker: Option<String>) -> Result<(), String> {
        match self.underway().get_mut(&id) {
            Some(question) if !question.is_forgotten => {
                question.marker = marker;
                Ok(())
            }
            Some(_) | None => Err(UNWANTED.to_owned()),
        }
    }

    /// Ends programs that nobody has asked for [`SESSION_IDLE_MAX`].
    pub fn retire(&self, now: Instant) {
        self.sessions().retain(|session| now.saturating_duration_since(session.asked) < SESSION_IDLE_MAX);
    }

    fn sessions(&self) -> MutexGuard<'_, Vec<Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folders(&self) -> MutexGuard<'_, Vec<Folder>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn underway(&self) -> MutexGuard<'_, BTreeMap<u64, Underway>> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A folder for a source. Waits while [`BUILDS_MAX`] are held, or the only ones that are like the source: what is built there is not built again. Blocks.
    ///
    /// # Errors
    /// If the question was forgotten meanwhile.
    fn hold(&self, id: u64, manifest: &Manifest) -> Result<Held<'_>, String> {
        let mut folders = self.folders();
        loop {
            // It was forgotten before, or whoever forgets it wakes this.
            self.mark(id, None)?;
            let is_room = folders.iter().filter(|folder| folder.is_held).count() < BUILDS_MAX;
            if let Some(place) = if is_room { self.place_for(&mut folders, manifest) } else { None } {
                let mut folder = folders.remove(place);
                let was = std::mem::replace(&mut folder.files, manifest.files.clone());
                let path = folder.path.clone();
                folders.push(Folder { is_held: true, ..folder });
                return Ok(Held { evaluations: self, path, was });
            }
            folders = self.changed.wait(folders).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Of the folders that nobody holds the one that is most like the source. If none at all is like it, a new one, or the one used longest ago.
    fn place_for(&self, folders: &mut Vec<Folder>, manifest: &Manifest) -> Option<usize> {
        let percent = |folder: &Folder| {
            let same = manifest.files.iter().filter(|(name, file)| folder.files.get(*name) == Some(*file)).count();
            same * 100 / manifest.files.len().max(1)
        };
        let alike: Vec<(usize, usize)> = folders.iter().map(percent).enumerate().collect();
        let mut alike: Vec<_> = alike.into_iter().filter(|(_, percent)| *percent >= ALIKE_PERCENT_MIN).collect();
        if !alike.is_empty() {
            alike.retain(|(place, _)| !folders[*place].is_held);
            return alike.into_iter().max_by_key(|(_, percent)| *percent).map(|(place, _)| place);
        }
        if folders.len() >= FOLDERS_MAX {
            return folders.iter().position(|folder| !folder.is_held);
        }
        let is_taken = |number: &usize| folders.iter().any(|folder| folder.path.ends_with(number.to_string()));
        let number = (0..FOLDERS_MAX).find(|number| !is_taken(number))?;
        folders.push(Folder { path: self.root.join(number.to_string()), files: BTreeMap::new(), is_held: false });
        Some(folders.len() - 1)
    }
}

impl Held<'_> {
    /// Brings the files up to date: what is the same is left alone, so that it is as old as it was.
    fn sync(&self, manifest: &Manifest, contents: &Contents) -> io::Result<()> {
        let synced = self.lay(manifest, contents);
        if synced.is_err() {
            // Nobody knows what it holds.
            let mut folders = self.evaluations.folders();
            folders.iter_mut().filter(|folder| folder.path == self.path).for_each(|folder| folder.files.clear());
        }
        synced
    }

    fn lay(&self, manifest: &Manifest, contents: &Contents) -> io::Result<()> {
        let tree = self.path.join(TREE);
        fs::create_dir_all(&tree)?;
        // Until it is done the folder is known to hold nothing for sure.
        let _ = fs::remove_file(self.path.join(MANIFEST));
        for name in self.was.keys().filter(|name| !manifest.files.contains_key(*name)) {
            remove(&tree.join(name))?;
        }
        if self.was.is_empty() {
            worker::workspace::remove_tree(&tree)?;
            fs::create_dir_all(&tree)?;
        }
        for (name, file) in manifest.files.iter().filter(|(name, file)| self.was.get(*name) != Some(*file)) {
            let path = tree.join(name);
            if let Some(parent) = path.parent() {
                make_folder(&tree, parent)?;
            }
            remove(&path)?;
            match file {
                File::Plain { digest, .. } => write(contents, *digest, &path, 0o644)?,
                File::Program { digest, .. } => write(contents, *digest, &path, 0o755)?,
                File::Link { target } => symlink(target, &path)?,
            }
        }
        fs::write(self.path.join(MANIFEST), serde_json::to_vec(manifest)?)
    }
}
/// Makes a folder below the tree; what else stands in the way, such as a link, goes.
fn make_folder(tree: &Path, folder: &Path) -> io::Result<()> {
    if folder == tree {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_folder(tree, parent)?;
    }
    match fs::symlink_metadata(folder) {
        Ok(there) if there.is_dir() => return Ok(()),
        Ok(_) => fs::remove_file(folder)?,
        Err(_) => {}
    }
    fs::create_dir(folder)
}

fn remove(path: &Path) -> io::Result<()> {
    match worker::workspace::remove_tree(path) {
        // A folder on the way is gone, or is a file by now.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(()),
        other => other,
    }
}

fn write(contents: &Contents, digest: Digest, path: &Path, mode: u32) -> io::Result<()> {
    let mut source = contents.file(digest).ok_or(io::ErrorKind::NotFound)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    io::copy(&mut source, &mut file)?;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// A process that asks one program, again and again. It ends with this, and by itself when nobody holds its input any more.
struct Session {
    about: About,
    /// The folder in which the program was built; by now it may hold other files.
    root: PathBuf,
    /// What its processes are known by.
    marker: String,
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Reads what it says to people.
    said: Option<JoinHandle<String>>,
    asked: Instant,
}

impl Session {
    fn start(about: About, root: PathBuf, marker: String) -> Result<Self, String> {
        let failed = |error: io::Error| format!("could not start the evaluation: {error}");
        let binary = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(binary);
        command.arg("evaluate").env("NO_COLOR", "1").env(worker::keeper::MARKER_VARIABLE, &marker);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let missing = || failed(io::Error::other("a pipe is missing"));
        let questions = child.stdin.take().ok_or_else(missing)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let said = Some(std::thread::spawn(move || said(stderr)));
        Ok(Self { about, root, marker, child, questions, answers, said, asked: Instant::now() })
    }

    /// Asks once, and gives what comes: a line, or less if it has ended.
    fn ask(&mut self, question: &Question) -> Result<Vec<u8>, String> {
        let line = serde_json::to_string(question).map_err(|error| error.to_string())?;
        // If it is gone already, it has said why.
        let _ = writeln!(self.questions, "{line}");
        let mut answer = Vec::new();
        let failed = |error: io::Error| format!("could not read what the evaluation answers: {error}");
        Read::by_ref(&mut self.answers).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut answer).map_err(failed)?;
        Ok(answer)
    }

    /// The answer in what came. After an error it is of no more use.
    fn read(&mut self, answer: &[u8]) -> Result<Answer, String> {
        if answer.last() != Some(&b'\n') {
            return Err(self.ended());
        }
        self.asked = Instant::now();
        serde_json::from_slice(answer).map_err(|error| format!("the evaluation answered oddly: {error}"))
    }

    /// What it said before it ended.
    fn ended(&mut self) -> String {
        let _ = self.child.kill();
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        if said.trim().is_empty() { format!("the evaluation ended with {status}") } else { headed(said.trim()) }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was said, with the error that it ended with first: what a compiler or tests printed stands above that.
fn headed(said: &str) -> String {
    let (above, last) = said.rsplit_once('\n').unwrap_or(("", said));
    match (last.strip_prefix("error: "), above.trim_end()) {
        (Some(error), "") => error.to_owned(),
        (Some(error), above) => format!("{error}\n{above}"),
        (None, _) => said.strip_prefix("error: ").unwrap_or(said).to_owned(),
    }
}

/// The end of what comes.
fn said(mut stderr: impl Read) -> String {
    let mut said = Vec::new();
    let mut chunk = [0; 16 << 10];
    while let Ok(length @ 1..) = stderr.read(&mut chunk) {
        said.extend_from_slice(&chunk[..length]);
        if said.len() > 2 * SAID_BYTES_MAX {
            said.drain(..said.len() - SAID_BYTES_MAX);
        }
    }
    let from = said.len().saturating_sub(SAID_BYTES_MAX);
    String::from_utf8_lossy(&said[from..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrong_stands_above_what_was_said_of_it() {
        assert_eq!(headed("error: it may not"), "it may not");
        assert_eq!(
            headed("error[E1]: a\n --> b\n\nerror: it does not compile"),
            "it does not compile\nerror[E1]: a\n --> b"
        );
        assert_eq!(headed("error: one\n  of two lines"), "one\n  of two lines");
    }

    #[test]
    fn what_is_the_same_is_left_alone() {
        let scratch = tempfile::tempdir().expect("a folder");
        let contents = Contents::open(scratch.path().join("contents"), 1 << 30).expect("it opens");
        let evaluations = Evaluations::open(scratch.path().join("evaluate"));
        let plain = |text: &str| {
            let digest = contents.put(text.as_bytes()).expect("it is kept");
            File::Plain { digest, bytes: text.len() as u64 }
        };
        let link = |target: &str| File::Link { target: target.to_owned() };
        let sync = |files: Vec<(&str, File)>| {
            let files = files.into_iter().map(|(name, file)| (name.to_owned(), file)).collect();
            let manifest = Manifest { files, ..Manifest::default() };
            evaluations.begin(1);
            let held = evaluations.hold(1, &manifest).expect("nobody forgets it");
            held.sync(&manifest, &contents).expect("it is laid");
            held.path.clone()
        };
        let path = sync(vec![
            ("a", plain("1")),
            ("b", plain("1")),
            ("c", plain("1")),
            ("c2", plain("1")),
            ("c3", plain("1")),
            ("d/e", plain("1")),
        ]);
        let time = |name: &str| fs::metadata(path.join(TREE).join(name)).and_then(|it| it.modified()).expect("a file");
        let (kept, changed) = (time("a"), time("b"));
        let again = sync(vec![
            ("a", plain("1")),
            ("b", plain("2")),
            ("c", plain("1")),
            ("c2", plain("1")),
            ("c3", plain("1")),
            ("d", link("..")),
            ("e/f", plain("3")),
        ]);
        assert_eq!(again, path);
        assert_eq!(time("a"), kept);
        assert_ne!(time("b"), changed);
        assert_eq!(fs::read_link(path.join(TREE).join("d")).expect("a link"), Path::new(".."));
        let back = sync(vec![
            ("a", plain("1")),
            ("b", plain("2")),
            ("c", plain("1")),
            ("c2", plain("1")),
            ("c3", plain("1")),
            ("d/e", plain("1")),
        ]);
        assert!(back.join(TREE).join("d/e").is_file());
        let other = sync(vec![("x", plain("1"))]);
        assert_ne!(other, path);
    }
}
