//! Programs of pipelines, built and asked here: each in a folder in which its project's files are brought up to date, so that
//! what has not changed is not compiled again.
//!
//! A folder is chosen by how much of a source is in it already. It is written to file by file, with new times, and never
//! shared with jobs.
//!
//! A program that has questions left when it has answered is kept running for its build ([`Session`]), so that a graph that
//! grows a thousand times costs one start. What it was built of is not looked at again: files of a source never change.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::source::{File, Manifest};
use dialects::program::REPLY_BYTES_MAX;
use graph::{BuildId, Digest, Known};

use super::content::Contents;
use crate::commands::evaluate::{Answer, More, Question};

/// How many folders there are; the one used longest ago is taken for a source that is like none.
const FOLDERS_MAX: usize = 8;

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

/// The folders in which programs are built.
pub struct Evaluations {
    root: PathBuf,
    /// One program is built at a time.
    folders: Mutex<Vec<Folder>>,
    /// The one asked last stands last. None is here while it is asked.
    sessions: Mutex<Vec<Session>>,
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
    files: BTreeMap<String, File>,
}

impl Evaluations {
    /// Opens the folders of an earlier life; the newest use is not known any more.
    pub fn open(root: PathBuf) -> Self {
        let mut folders = Vec::new();
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let path = entry.path();
            let manifest = fs::read(path.join(MANIFEST)).ok().and_then(|text| serde_json::from_slice(&text).ok());
            if let Some(Manifest { files, .. }) = manifest {
                folders.push(Folder { path, files });
            }
        }
        Self { root, folders: Mutex::new(folders), sessions: Mutex::default() }
    }

    /// Asks the program that runs for this build already; `None` if none does, or it has died. Blocks.
    ///
    /// # Errors
    /// As [`Evaluations::ask`].
    pub fn ask_again(&self, about: &About, data: &Path, known: &Known) -> Option<Result<Answer, String>> {
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
        };
        Some(self.asked(session, &question))
    }

    /// Asks the program of a source whose contents are all here. Waits for other programs. Blocks.
    ///
    /// # Errors
    /// What people should read: what the compiler said, or why the program could not be asked.
    pub fn ask(
        &self,
        about: About,
        manifest: &Manifest,
        contents: &Contents,
        data: &Path,
        known: Known,
    ) -> Result<Answer, String> {
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: io::Error| format!("cannot lay the pipeline's files: {error}");
        let mut folder = self.take(&mut folders, manifest);
        let synced = folder.sync(manifest, contents).map_err(failed);
        let root = folder.path.join(TREE).join(&manifest.folder);
        folders.push(folder);
        synced?;
        let question = Question { root: root.clone(), data: data.to_owned(), pipeline: about.pipeline.clone(), known };
        let session = Session::start(about, root)?;
        self.asked(session, &question)
    }

    /// Asks, and keeps the program if it will be asked again.
    fn asked(&self, mut session: Session, question: &Question) -> Result<Answer, String> {
        let answer = session.ask(question)?;
        if answer.more == More::ToCome {
            let mut sessions = self.sessions();
            sessions.push(session);
            if sessions.len() > SESSIONS_MAX {
                sessions.remove(0);
            }
        }
        Ok(answer)
    }

    /// Ends programs that nobody has asked for [`SESSION_IDLE_MAX`].
    pub fn retire(&self, now: Instant) {
        self.sessions().retain(|session| now.saturating_duration_since(session.asked) < SESSION_IDLE_MAX);
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder that is most like the source; a new one, or the one used longest ago, if none is like it.
    fn take(&self, folders: &mut Vec<Folder>, manifest: &Manifest) -> Folder {
        let alike = |folder: &Folder| {
            let same = manifest.files.iter().filter(|(name, file)| folder.files.get(*name) == Some(*file)).count();
            same * 100 / manifest.files.len().max(1)
        };
        let best = (0..folders.len()).max_by_key(|place| alike(&folders[*place]));
        if let Some(place) = best.filter(|place| alike(&folders[*place]) >= ALIKE_PERCENT_MIN) {
            return folders.remove(place);
        }
        if folders.len() >= FOLDERS_MAX {
            return folders.remove(0);
        }
        let taken = |number: &usize| folders.iter().any(|folder| folder.path.ends_with(number.to_string()));
        let number = (0..FOLDERS_MAX).find(|number| !taken(number)).unwrap_or(0);
        Folder { path: self.root.join(number.to_string()), files: BTreeMap::new() }
    }
}

impl Folder {
    /// Brings the files up to date: what is the same is left alone, so that it is as old as it was.
    fn sync(&mut self, manifest: &Manifest, contents: &Contents) -> io::Result<()> {
        let tree = self.path.join(TREE);
        fs::create_dir_all(&tree)?;
        // Until it is done the folder is known to hold nothing for sure.
        let _ = fs::remove_file(self.path.join(MANIFEST));
        let was = std::mem::take(&mut self.files);
        for name in was.keys().filter(|name| !manifest.files.contains_key(*name)) {
            remove(&tree.join(name))?;
        }
        if was.is_empty() {
            worker::workspace::remove_tree(&tree)?;
            fs::create_dir_all(&tree)?;
        }
        for (name, file) in manifest.files.iter().filter(|(name, file)| was.get(*name) != Some(*file)) {
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
        fs::write(self.path.join(MANIFEST), serde_json::to_vec(manifest)?)?;
        self.files.clone_from(&manifest.files);
        Ok(())
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
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Reads what it says to people.
    said: Option<JoinHandle<String>>,
    asked: Instant,
}

impl Session {
    fn start(about: About, root: PathBuf) -> Result<Self, String> {
        let failed = |error: io::Error| format!("could not start the evaluation: {error}");
        let binary = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(binary);
        command.arg("evaluate").env("NO_COLOR", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let missing = || failed(io::Error::other("a pipe is missing"));
        let questions = child.stdin.take().ok_or_else(missing)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let said = Some(std::thread::spawn(move || said(stderr)));
        Ok(Self { about, root, child, questions, answers, said, asked: Instant::now() })
    }

    /// Asks once. After an error it is of no more use.
    fn ask(&mut self, question: &Question) -> Result<Answer, String> {
        let line = serde_json::to_string(question).map_err(|error| error.to_string())?;
        // If it is gone already, it has said why.
        let _ = writeln!(self.questions, "{line}");
        let mut answer = Vec::new();
        let failed = |error: io::Error| format!("could not read what the evaluation answers: {error}");
        Read::by_ref(&mut self.answers).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut answer).map_err(failed)?;
        if answer.last() != Some(&b'\n') {
            return Err(self.ended());
        }
        self.asked = Instant::now();
        serde_json::from_slice(&answer).map_err(|error| format!("the evaluation answered oddly: {error}"))
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
            let mut folders = evaluations.folders.lock().expect("nobody panicked");
            let mut folder = evaluations.take(&mut folders, &manifest);
            folder.sync(&manifest, &contents).expect("it is laid");
            let path = folder.path.clone();
            folders.push(folder);
            path
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
