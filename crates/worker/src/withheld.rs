//! Which files of an attempt hold a value of its secrets: found once, when it has ended, and not shown to whoever enters without the secrets.
//!
//! A note stands beside the layers of an attempt that had secrets, from before its first step. It says what was found; as long as it says
//! nothing of that, nobody enters without the secrets. It holds no value: files are named by directory and inode, since a name may be one, and
//! values by digests with a salt, by which the right ones are known when somebody gives them. Attempts without secrets cost nothing here.

use std::borrow::Cow;
use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, DirEntry, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use graph::Digest;
use rustix::fs::{CWD, FileType, Mode};
use serde::{Deserialize, Serialize};

use crate::attempt::LeftBehind;
use crate::depot::{Mask, Secrets};
use crate::files::holds;
use crate::workspace::assume;

/// The most files, links and directories of one attempt that are looked at.
const FILES_MAX: usize = 500_000;

/// The most bytes of files that are looked through, the small ones first. A file beyond is withheld as if it held a secret.
const BYTES_MAX: u64 = 512 << 20;

/// The most files that are withheld one by one; beyond that it is all of them.
const WITHHELD_MAX: usize = 10_000;

/// How deep a layer may be.
const DEPTH_MAX: usize = 512;

/// The most files that are named to people.
const NAMED_MAX: usize = 5;

/// How many threads look through files, at most.
const THREADS_MAX: usize = 4;

/// The clock by which files get their times ticks at most so rarely (`CONFIG_HZ=100`), in nanoseconds.
const TICK_NS: i128 = 10_000_000;

/// The note, in the attempt's directory.
const NOTE: &str = "secrets.json";

/// The tree of a workspace that is a copy, which holds the user's files too.
const COPY: &str = "copy";

/// What is known. Stored: a new field has a default.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// Makes digests of equal values differ from attempt to attempt.
    salt: Digest,
    /// Of the secrets, by their names. Empty once it is known that there is nothing to withhold.
    values: BTreeMap<String, Digest>,
    /// `None` if all files are to be withheld.
    files: Option<Vec<Withheld>>,
    /// Why they are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
}

/// A file, link or directory that is not shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Withheld {
    /// The directory that it is in, relative to the attempt's: `upper/src`. Holds no secret.
    directory: Vec<u8>,
    inode: u64,
    /// Its name for people, as the job knows it, masked.
    name: String,
    /// It could not be looked through.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_unread: bool,
}

/// Notes that the attempt of this directory, which is made, has secrets: from now on it is not entered without them.
///
/// # Errors
/// The system's words.
pub(crate) fn begin(directory: &Path, secrets: &Secrets) -> io::Result<()> {
    let mut salt = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut salt)?;
    let salt = Digest(salt);
    let values = secrets.values.iter().map(|(name, value)| (name.clone(), digest(salt, name, value))).collect();
    let reason = "it ended before they were looked through for its secrets".to_owned();
    write(directory, &Note { salt, values, files: None, reason })
}

/// Looks through what the attempt has left, and notes what holds a secret. No process of it runs any more.
///
/// # Errors
/// The system's words; then the note stays as it was.
pub(crate) fn find(directory: &Path, secrets: &Secrets) -> io::Result<()> {
    let Some(mask) = secrets.mask.as_deref() else { return Ok(()) };
    let mut note = read(directory)?.ok_or(io::ErrorKind::NotFound)?;
    let begun = File::open(directory.join(NOTE))?.metadata()?;
    let mut search = Search::new(directory, mask, secrets, changed_ns(&begun));
    match search.look() {
        Ok(()) => {
            let withheld = search.found();
            let is_few = withheld.len() <= WITHHELD_MAX;
            note.reason = if is_few {
                String::new()
            } else {
                format!("more than {WITHHELD_MAX} hold a secret, or are too large")
            };
            if withheld.is_empty() && !directory.join(COPY).is_dir() {
                // Nobody has to be known: nothing is left by which a value could be guessed.
                note.values.clear();
            }
            note.files = is_few.then_some(withheld);
        }
        Err(reason) => {
            note.files = None;
            note.reason = reason;
        }
    }
    write(directory, &note)
}

fn digest(salt: Digest, name: &str, value: &str) -> Digest {
    let mut hasher = blake3::Hasher::new_keyed(&salt.0);
    // As a mask looks for it.
    hasher.update(name.as_bytes()).update(&[0]).update(value.trim_ascii().as_bytes());
    Digest(*hasher.finalize().as_bytes())
}

fn read(directory: &Path) -> io::Result<Option<Note>> {
    match fs::read(directory.join(NOTE)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(directory: &Path, note: &Note) -> io::Result<()> {
    let fresh = directory.join("secrets.new");
    fs::write(&fresh, serde_json::to_vec(note)?)?;
    fs::rename(fresh, directory.join(NOTE))
}

fn changed_ns(metadata: &Metadata) -> i128 {
    i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec())
}

/// A file that may hold a secret, with all of its names.
struct Candidate {
    place: PathBuf,
    bytes: u64,
    names: Vec<Withheld>,
}

/// A look through what an attempt has left.
struct Search<'s> {
    directory: &'s Path,
    mask: &'s dyn Mask,
    secrets: &'s Secrets,
    /// What of a copy was changed before is not the job's.
    begun: i128,
    seen: usize,
    attribute_bytes: u64,
    /// What an attribute is read into.
    buffer: Vec<u8>,
    candidates: Vec<Candidate>,
    by_inode: HashMap<(u64, u64), usize>,
    withheld: Vec<Withheld>,
}

impl<'s> Search<'s> {
    fn new(directory: &'s Path, mask: &'s dyn Mask, secrets: &'s Secrets, begun: i128) -> Self {
        let (candidates, by_inode, withheld) = (Vec::new(), HashMap::new(), Vec::new());
        let buffer = vec![0; ATTRIBUTE_BYTES_MAX];
        Self { directory, mask, secrets, begun, seen: 0, attribute_bytes: 0, buffer, candidates, by_inode, withheld }
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        matches!(self.mask.mask(bytes), Cow::Owned(_))
    }

    /// Goes through all parts; why it could not, in words.
    fn look(&mut self) -> Result<(), String> {
        for part in parts(self.directory) {
            let root = self.directory.join(&part);
            if self.look_at_attributes(&root) != Looked::Nothing {
                return Err("an attribute of the tree's own folder may hold one, which cannot be hidden".to_owned());
            }
            self.look_below(&part, 0)?;
        }
        Ok(())
    }

    fn look_below(&mut self, directory: &Path, depth: usize) -> Result<(), String> {
        let path = self.directory.join(directory);
        let name = self.secrets.hide(Path::new("./").join(as_the_job_knows(directory)).display().to_string());
        let refused = |error: io::Error| format!("they could not be looked through for its secrets: `{name}`: {error}");
        for entry in fs::read_dir(&path).map_err(&refused)? {
            let entry = entry.map_err(&refused)?;
            self.seen += 1;
            if self.seen > FILES_MAX || depth > DEPTH_MAX {
                return Err(format!("they are more than {FILES_MAX}, or nested deeper than {DEPTH_MAX}"));
            }
            match entry.metadata() {
                Ok(metadata) => self.look_at(directory, &entry, &metadata, depth)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Its directory can be listed and not entered here; whoever enters the attempt may do both.
                Err(_) => {
                    let path = as_the_job_knows(&directory.join(entry.file_name()));
                    self.withheld.push(self.noted(directory, &entry, &path, true));
                }
            }
        }
        Ok(())
    }

    fn noted(&self, directory: &Path, entry: &DirEntry, path: &Path, is_unread: bool) -> Withheld {
        Withheld {
            directory: directory.as_os_str().as_bytes().to_vec(),
            inode: entry.ino(),
            name: self.secrets.hide(path.display().to_string()),
            is_unread,
        }
    }

    fn look_at(&mut self, directory: &Path, entry: &DirEntry, metadata: &Metadata, depth: usize) -> Result<(), String> {
        let (place, name) = (entry.path(), directory.join(entry.file_name()));
        let path = as_the_job_knows(&name);
        let is_new = !directory.starts_with(COPY) || changed_ns(metadata) + TICK_NS >= self.begun;
        if is_new && self.is_in(path.as_os_str().as_bytes()) {
            self.withheld.push(self.noted(directory, entry, &path, false));
            return Ok(());
        }
        let has_attributes = is_new && (metadata.is_dir() || metadata.is_file());
        let looked = if has_attributes { self.look_at_attributes(&place) } else { Looked::Nothing };
        if looked != Looked::Nothing {
            self.withheld.push(self.noted(directory, entry, &path, looked == Looked::Unread));
            return Ok(());
        }
        if metadata.is_dir() {
            // What cannot be listed here may be listed by whoever enters.
            if fs::read_dir(&place).is_err() {
                self.withheld.push(self.noted(directory, entry, &path, true));
                return Ok(());
            }
            self.look_below(&name, depth + 1)?;
        } else if metadata.is_symlink() && is_new {
            match fs::read_link(&place) {
                Ok(target) if !self.is_in(target.as_os_str().as_bytes()) => {}
                read => self.withheld.push(self.noted(directory, entry, &path, read.is_err())),
            }
        } else if metadata.is_file() && is_new && metadata.len() > 0 {
            let noted = self.noted(directory, entry, &path, false);
            let number = match self.by_inode.entry((metadata.dev(), metadata.ino())) {
                Slot::Occupied(known) => *known.get(),
                Slot::Vacant(slot) => {
                    self.candidates.push(Candidate { place, bytes: metadata.len(), names: Vec::new() });
                    *slot.insert(self.candidates.len() - 1)
                }
            };
            self.candidates[number].names.push(noted);
        }
        Ok(())
    }

    /// Whether a secret stands in what users may note beside a file's content.
    fn look_at_attributes(&mut self, place: &Path) -> Looked {
        let Ok(attributes) = attributes(place, &mut self.buffer) else { return Looked::Unread };
        if attributes.is_empty() {
            return Looked::Nothing;
        }
        self.attribute_bytes += attributes.iter().map(|text| text.len() as u64).sum::<u64>();
        if self.attribute_bytes > BYTES_MAX {
            return Looked::Unread;
        }
        if attributes.iter().any(|text| self.is_in(text)) { Looked::Secret } else { Looked::Nothing }
    }

    /// Everything that is to be withheld, after the candidates were looked through, the small ones first.
    fn found(mut self) -> Vec<Withheld> {
        self.candidates.sort_unstable_by_key(|candidate| candidate.bytes);
        let mut bytes: u64 = 0;
        let is_within = |candidate: &&Candidate| {
            bytes = bytes.saturating_add(candidate.bytes);
            bytes <= BYTES_MAX
        };
        let within = self.candidates.iter().take_while(is_within).count();
        let read = self.read_all(&self.candidates[..within]);
        let read = read.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let mut withheld = self.withheld;
        for (candidate, holds) in self.candidates.into_iter().zip(read) {
            let holds = holds.and_then(Result::ok);
            if holds != Some(false) {
                let is_unread = holds.is_none();
                withheld.extend(candidate.names.into_iter().map(|name| Withheld { is_unread, ..name }));
            }
        }
        withheld
    }

    /// Whether a secret stands in each of these, in their order.
    fn read_all(&self, candidates: &[Candidate]) -> Vec<io::Result<bool>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let next = AtomicUsize::new(0);
        let read_some = || {
            let mut read = Vec::new();
            while let number = next.fetch_add(1, Ordering::Relaxed)
                && let Some(candidate) = candidates.get(number)
            {
                read.push((number, holds(&candidate.place, &|bytes| self.mask.is_in_content(bytes))));
            }
            read
        };
        let mut read: Vec<(usize, io::Result<bool>)> = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(read_some)).collect();
            let mut read = read_some();
            for other in others {
                read.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            read
        });
        read.sort_unstable_by_key(|(number, _)| *number);
        read.into_iter().map(|(_, holds)| holds).collect()
    }
}

/// What came of a look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looked {
    Nothing,
    Secret,
    Unread,
}

/// The most bytes of the names of one file's attributes, or of one value, as Linux has it.
const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;

/// The names and values of the attributes of a file or directory that any job may set.
fn attributes(place: &Path, buffer: &mut [u8]) -> rustix::io::Result<Vec<Vec<u8>>> {
    let length = match rustix::fs::llistxattr(place, &mut *buffer) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOENT) => 0,
        Err(error) => return Err(error),
    };
    let mut attributes = Vec::new();
    let names = buffer[..length].to_vec();
    for name in names.split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        let length = rustix::fs::lgetxattr(place, name, &mut *buffer)?;
        attributes.extend([name.to_vec(), buffer[..length].to_vec()]);
    }
    Ok(attributes)
}

/// Where an attempt has files of its own, relative to its directory; those that are there.
fn parts(directory: &Path) -> Vec<PathBuf> {
    let steps = fs::read_dir(directory.join("steps")).into_iter().flatten().flatten();
    let layers = steps.map(|entry| Path::new("steps").join(entry.file_name()));
    let layers = layers.flat_map(|layer| ["upper", "tmp"].map(|part| layer.join(part)));
    let own = ["upper", "tmp", COPY].map(PathBuf::from);
    own.into_iter().chain(layers).filter(|part| directory.join(part).is_dir()).collect()
}

/// A path as a job knows it: `upper/src/a` and `steps/3/upper/src/a` are `src/a`, `tmp/a` is `/tmp/a`.
fn as_the_job_knows(path: &Path) -> PathBuf {
    let mut components = path.components();
    let mut part = components.next();
    if part == Some(Component::Normal("steps".as_ref())) {
        part = components.nth(1);
    }
    let rest = components.as_path();
    if part == Some(Component::Normal("tmp".as_ref())) { Path::new("/tmp").join(rest) } else { rest.to_owned() }
}

/// What whoever enters an attempt does not see.
#[derive(Debug, Default)]
pub(crate) struct Veil {
    files: Vec<Withheld>,
    /// The names of the secrets of which another value was given.
    others: Vec<String>,
}

/// What came of hiding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Drawn {
    /// All that was to be hidden is.
    All,
    /// Something is not where it was noted, so nobody knows where it is.
    NotThere,
}

/// Why an attempt is not entered without its secrets, and which these are.
#[derive(Debug)]
pub(crate) struct Shut {
    pub reason: String,
    pub names: Vec<String>,
}

/// The names of the secrets that an attempt was noted to have.
pub(crate) fn noted_names(directory: &Path) -> BTreeSet<String> {
    read(directory).ok().flatten().map(|note| note.values.into_keys().collect()).unwrap_or_default()
}

/// Notes that somebody who had the secrets may have written them anywhere in what the attempt left.
///
/// # Errors
/// The system's words.
pub(crate) fn forget(directory: &Path) -> io::Result<()> {
    let Some(note) = read(directory)? else { return Ok(()) };
    let reason = "a shell that had its secrets worked in them".to_owned();
    write(directory, &Note { files: None, reason, ..note })
}

impl Veil {
    /// What is not seen by whoever gives these secrets.
    ///
    /// # Errors
    /// Nothing is to be seen.
    pub(crate) fn of(
        directory: &Path,
        left: Option<&LeftBehind>,
        given: &BTreeMap<String, String>,
    ) -> Result<Self, Shut> {
        let noted = read(directory).map_err(|error| Shut {
            reason: format!("what was noted of its secrets cannot be read: {error}"),
            names: Vec::new(),
        })?;
        let Some(note) = noted else {
            // What came from another worker came without them.
            let withheld = left.filter(|left| left.arrived.is_none()).map(|left| &left.withheld);
            return match withheld {
                Some(names) if !names.iter().all(|name| given.contains_key(name)) => Err(Shut {
                    reason: "it is from a version of ropewalk that did not note which of them hold a secret".to_owned(),
                    names: names.iter().cloned().collect(),
                }),
                _ => Ok(Self::default()),
            };
        };
        let is_same = |name: &String| {
            given.get(name).is_some_and(|value| note.values.get(name) == Some(&digest(note.salt, name, value)))
        };
        if note.values.keys().all(is_same) {
            return Ok(Self::default());
        }
        let others: Vec<String> = given.keys().filter(|name| !is_same(name)).cloned().collect();
        match note.files {
            Some(files) => Ok(Self { files, others }),
            None => {
                let reason = note.reason + &other_values(&others);
                Err(Shut { reason, names: note.values.into_keys().collect() })
            }
        }
    }

    /// Whether nothing is hidden.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The names of the secrets of which another value was given than the job's.
    pub(crate) fn others(&self) -> &[String] {
        &self.others
    }

    /// Hides what is in one part of the attempt's directory, by whiteouts in a layer that is to stand above it.
    ///
    /// # Errors
    /// The system's words.
    pub(crate) fn draw(&self, directory: &Path, part: &Path, layer: &Path) -> io::Result<Drawn> {
        let mut hidden: BTreeMap<PathBuf, BTreeSet<u64>> = BTreeMap::new();
        for file in &self.files {
            if let Ok(below) = Path::new(OsStr::from_bytes(&file.directory)).strip_prefix(part) {
                hidden.entry(below.to_owned()).or_default().insert(file.inode);
            }
        }
        let parents = hidden.keys().flat_map(|below| below.ancestors()).filter(|path| !path.as_os_str().is_empty());
        let parents: BTreeSet<&Path> = parents.collect();
        for parent in &parents {
            fs::create_dir(layer.join(parent))?;
        }
        for (below, inodes) in &hidden {
            let mut missed = inodes.clone();
            let entries = match fs::read_dir(directory.join(part).join(below)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Drawn::NotThere),
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                if inodes.contains(&entry.ino()) {
                    missed.remove(&entry.ino());
                    let at = layer.join(below).join(entry.file_name());
                    rustix::fs::mknodat(CWD, &at, FileType::CharacterDevice, Mode::empty(), 0)?;
                }
            }
            if !missed.is_empty() {
                return Ok(Drawn::NotThere);
            }
        }
        // Last, and what is in a directory before it: one that may not be written could not be filled.
        for parent in parents.iter().rev() {
            assume(&layer.join(parent), &fs::symlink_metadata(directory.join(part).join(parent))?)?;
        }
        Ok(Drawn::All)
    }

    /// What people should know who see these parts; `None` if nothing of them is hidden.
    pub(crate) fn words(&self, parts: &[PathBuf]) -> Option<String> {
        let is_there = |file: &&Withheld| {
            let directory = Path::new(OsStr::from_bytes(&file.directory));
            parts.iter().any(|part| directory.starts_with(part))
        };
        let files: Vec<&Withheld> = self.files.iter().filter(is_there).collect();
        let names: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
        if names.is_empty() {
            return None;
        }
        let unread = if files.iter().any(|file| file.is_unread) { " or were not looked through for one" } else { "" };
        let named: Vec<String> = names.iter().take(NAMED_MAX).map(|name| format!("`{name}`")).collect();
        let more = if names.len() > named.len() { ", …" } else { "" };
        let others = other_values(&self.others);
        Some(format!("without files that hold a secret{unread}: {}{more}{others}", named.join(", ")))
    }
}

/// What to say of secrets that were given with another value than the job's.
fn other_values(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!(" (the job had another value of {} than the one that was given)", names.join(", "))
}

#[cfg(test)]
mod tests;
