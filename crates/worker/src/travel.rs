//! What an attempt left, as blobs: another worker opens it although the one that ran it is gone.
//!
//! [`send`] makes one index of the layers that are kept of an attempt ([`crate::chunked`]: what was sent before is not put again) and a document
//! that says what they are; [`fetch`] makes a workspace of it again, with the layers of the moment that somebody asks for and no others. Names in
//! the index begin with the number of a layer, or with `above` and the number of a restored cache. A cache that was shown as a layer does not travel:
//! the document names its index, which storage has for as long as the cache's entry is kept.
//!
//! **Secrets.** Variables that held one are not in a [`LeftBehind`]. A file in which a secret's value stands does not travel: a whiteout stands for it.
//! What has one in its path does not either, nor a whiteout for it. Whoever enters is told.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use graph::{AttemptNumber, BuildId, Digest};
use serde::{Deserialize, Serialize};

use crate::archive::{ArchiveFault, Bounds, Existing};
use crate::attempt::{Arrived, LeftBehind};
use crate::cache::{self, CacheFault, Shown};
use crate::chunked::{self, Content, Equal, Index, Kind, Laying, Loaded};
use crate::depot::{Depot, DepotError, Mask};
use crate::entry::{EntryError, Moment, layer_of};
use crate::files::{Found, holds};
use crate::path_text;
use crate::patterns::by_bytes;
use crate::place::{environment_file, workspace_directory};
use crate::workspace::{
    self, Files, Layer, Snapshot, Workspace, WorkspaceError, is_opaque, is_whiteout, layer_directory, note_layers,
};

/// The most files, links and directories of one attempt that travel.
pub const FILES_MAX: u64 = 200_000;

/// The most bytes of one attempt's files that travel if nothing else is said; a file with several names counts once.
pub const BYTES_MAX: u64 = 256 << 20;

/// The most bytes of files that are laid for one visit, whoever sent them.
const LAID_BYTES_MAX: u64 = 16 << 30;

/// The most bytes of a document that is no blob.
pub const TEXT_BYTES_MAX: usize = 16 << 10;

/// The most bytes of a document.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

/// The latest version of documents; this program reads no later one.
const VERSION: u32 = 2;

/// The version of documents that name no cache: they are written for older workers, too.
const VERSION_WITHOUT_CACHES: u32 = 1;

/// How deep a layer may be.
const DEPTH_MAX: usize = 512;

/// The most files with secrets that are named to people.
const WITHHELD_NAMED_MAX: usize = 5;

/// The file beside an arrived workspace's that says from which document it was made.
const ARRIVED: &str = "arrived";

/// The file beside a workspace's that says that it was sent.
const SENT: &str = "sent";

/// The folder of restored caches in an arrived workspace and in an index.
const ABOVE: &str = "above";

/// The parts of a layer.
const PARTS: [&str; 2] = ["upper", "tmp"];

/// Why something does not travel, or cannot be opened elsewhere. The words go on from "because ".
#[derive(Debug, thiserror::Error)]
pub enum TravelFault {
    /// It ended before its first step.
    #[error("it ended before its first step")]
    Nothing,
    /// It has no layers of its own.
    #[error("its workspace was a copy at another path")]
    Copy,
    /// Too many files.
    #[error("the job had changed more than {FILES_MAX} files and directories")]
    Files,
    /// Too many bytes.
    #[error("the job had written more than {} MiB", .0 >> 20)]
    Bytes(u64),
    /// What arrived is no such document.
    #[error("what was kept of it is damaged: {0}")]
    Damaged(String),
    /// A cache that it was given cannot be had.
    #[error("a cache that it was given cannot be had any more: {0}")]
    Cache(#[from] CacheFault),
    /// There is no such moment.
    #[error(transparent)]
    Moment(#[from] EntryError),
    /// A workspace refused.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// Files could not be kept or laid.
    #[error(transparent)]
    Archive(#[from] ArchiveFault),
    /// Storage refused.
    #[error(transparent)]
    Depot(#[from] DepotError),
    /// The system's words.
    #[error("`{}`: {source}", path.display())]
    File {
        /// About which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

fn refused(path: &Path) -> impl Fn(io::Error) -> TravelFault + use<> {
    let path = path.to_owned();
    move |source| TravelFault::File { path: path.clone(), source }
}

/// Which attempt.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The worker's folder.
    pub data: &'a Path,
    /// The build.
    pub build: BuildId,
    /// The attempt.
    pub attempt: AttemptNumber,
}

impl Attempt<'_> {
    fn directory(&self) -> PathBuf {
        workspace_directory(self.data, self.build, self.attempt)
    }

    fn left(&self) -> Option<LeftBehind> {
        serde_json::from_slice(&fs::read(environment_file(self.data, self.build, self.attempt)).ok()?).ok()
    }

    /// Whether the names of secrets are noted of it; `None` if nothing is known of it.
    #[must_use]
    pub fn had_secrets(&self) -> Option<bool> {
        Some(!self.left()?.withheld.is_empty())
    }

    /// The programs that its steps were functions of.
    #[must_use]
    pub fn programs(&self) -> BTreeSet<Digest> {
        self.left().map(|left| left.programs).unwrap_or_default()
    }

    /// Whether it was sent, as [`Attempt::note_sent`] has noted.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.directory().join(SENT).exists()
    }

    /// Notes that it was sent.
    ///
    /// # Errors
    /// The system's words.
    pub fn note_sent(&self) -> io::Result<()> {
        fs::write(self.directory().join(SENT), "")
    }

    /// Whether this worker ran it and has its files.
    #[must_use]
    pub fn is_own(&self) -> bool {
        let directory = self.directory();
        directory.join("workspace.json").is_file() && !directory.join(ARRIVED).exists()
    }
}

/// What was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// What [`fetch`] begins with.
    pub document: Told,
    /// All blobs that it needs, itself too if it is one; sorted, no duplicates.
    pub blobs: Vec<Digest>,
    /// What it and they hold.
    pub bytes: u64,
}

/// A document: what says what an attempt left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A blob.
    Blob(Digest),
    /// Itself; of at most [`TEXT_BYTES_MAX`] bytes if [`send`] made it. That of a job that changed nothing is: then no blob is written for it.
    Text(String),
}

impl Told {
    fn digest(&self) -> Digest {
        match self {
            Self::Blob(digest) => *digest,
            Self::Text(text) => Digest(*blake3::hash(text.as_bytes()).as_bytes()),
        }
    }

    fn read(&self, depot: &dyn Depot) -> Result<Document, TravelFault> {
        let damaged = |error: &dyn std::fmt::Display| TravelFault::Damaged(error.to_string());
        let read = match self {
            Self::Text(text) => serde_json::from_str(text),
            Self::Blob(digest) => {
                let mut text = Vec::new();
                let mut content = depot.open(*digest)?.take(DOCUMENT_BYTES_MAX);
                content.read_to_end(&mut text).map_err(|error| damaged(&error))?;
                serde_json::from_slice(&text)
            }
        };
        let document: Document = read.map_err(|error| damaged(&error))?;
        if document.version > VERSION {
            let version = document.version;
            return Err(TravelFault::Damaged(format!(
                "it has version {version}, this worker knows {VERSION}: update the worker"
            )));
        }
        Ok(document)
    }
}

/// What travels besides files. Stored: a new field has a default.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    version: u32,
    index: Digest,
    left: LeftBehind,
    files: Files,
    /// How many restored caches stood above the tree.
    above: u16,
    /// Those of them that are not in the index, by their number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    caches: BTreeMap<u16, Shown>,
    /// Where the tree was for the steps.
    #[serde(with = "path_text")]
    tree: PathBuf,
}

/// Puts what is kept of an attempt. The end goes first, then the step that failed, then the others; what passes the bounds stays, and a
/// shell says so. `mask` knows the attempt's secrets.
///
/// # Errors
/// [`TravelFault`]; blobs that were put before it stay until somebody collects them.
pub fn send(
    attempt: Attempt<'_>,
    mask: Option<&dyn Mask>,
    bytes_max: u64,
    depot: &dyn Depot,
) -> Result<Sent, TravelFault> {
    let directory = attempt.directory();
    let outline = Workspace::outline(&directory)?.ok_or(TravelFault::Copy)?;
    let mut left = attempt.left().ok_or(TravelFault::Nothing)?;
    let mut load = Load { mask, bytes_max, taken: Group::default(), withheld: BTreeSet::new() };
    let end = kept_layers(&left).max().map_or(0, |last| last.saturating_add(1));
    let mut first = parts_of(end, &directory);
    let (mut above, mut caches) = (0_u16, BTreeMap::new());
    let mut trees = &outline.above[..];
    while let [tree, rest @ ..] = trees {
        trees = match Shown::of(tree) {
            Some((shown, n_trees)) => {
                caches.insert(above, shown);
                rest.get(n_trees - 1..).unwrap_or_default()
            }
            None => {
                first.push((Path::new(ABOVE).join(above.to_string()), tree.clone()));
                rest
            }
        };
        above = above.checked_add(1).ok_or(TravelFault::Files)?;
    }
    load.add(&first)?;
    let failed = left.steps.iter().find(|step| Some(step.step) == left.failed).map(|step| step.layer.clone());
    let others: Vec<u16> = failed.iter().chain(all_layers(&left)).filter_map(kept).collect();
    let mut done = HashSet::new();
    for number in others.into_iter().filter(|number| done.insert(*number)) {
        if let Err(fault) = load.add(&parts_of(number, &layer_directory(&directory, number))) {
            let reason = format!("they did not leave the worker that ran it, since {fault}");
            replace(&mut left, &Layer::Kept(number), &Layer::Unkept(reason));
        }
    }
    replace(&mut left, &Layer::End, &Layer::Kept(end));
    left.arrived = Some(Arrived { end: Layer::Kept(end), notes: withheld_note(&load.withheld).into_iter().collect() });
    let Group { mut found, marks, .. } = load.taken;
    found.sort_by(|(one, _), (two, _)| by_bytes(one, two));
    // What has several names was counted once already.
    let bounds = Bounds { files_max: FILES_MAX, bytes_max: u64::MAX };
    let kept = chunked::keep_layers(&found, &marks, &[], bounds, depot)?;
    let version = if caches.is_empty() { VERSION_WITHOUT_CACHES } else { VERSION };
    let (files, tree) = (outline.files, outline.tree);
    let document = Document { version, index: kept.digest, left, files, above, caches, tree };
    // Our own types serialize to JSON, but for names of files that are no text.
    let text = serde_json::to_string(&document).map_err(|error| TravelFault::Damaged(error.to_string()))?;
    let bytes = kept.stored_bytes() + text.len() as u64;
    let mut blobs: BTreeSet<Digest> = kept.index.packs.iter().map(|pack| pack.digest).chain([kept.digest]).collect();
    let document = if text.len() <= TEXT_BYTES_MAX {
        Told::Text(text)
    } else {
        let digest = depot.put(text.as_bytes())?;
        blobs.insert(digest);
        Told::Blob(digest)
    };
    Ok(Sent { document, blobs: blobs.into_iter().collect(), bytes })
}

fn kept(layer: &Layer) -> Option<u16> {
    match layer {
        Layer::Kept(number) => Some(*number),
        _ => None,
    }
}

fn all_layers(left: &LeftBehind) -> impl Iterator<Item = &Layer> {
    // The latest first: they are asked for more often.
    left.steps.iter().rev().map(|step| &step.layer).chain([&left.start])
}

fn kept_layers(left: &LeftBehind) -> impl Iterator<Item = u16> {
    all_layers(left).filter_map(kept)
}

fn replace(left: &mut LeftBehind, from: &Layer, to: &Layer) {
    let layers = left.steps.iter_mut().map(|step| &mut step.layer).chain([&mut left.start]);
    for layer in layers.filter(|layer| *layer == from) {
        *layer = to.clone();
    }
}

/// The names of a layer's parts in an index, and where they are.
fn parts_of(number: u16, layer: &Path) -> Vec<(PathBuf, PathBuf)> {
    let number = number.to_string();
    PARTS.iter().map(|part| (Path::new(&number).join(part), layer.join(part))).collect()
}

fn withheld_note(withheld: &BTreeSet<PathBuf>) -> Option<String> {
    if withheld.is_empty() {
        return None;
    }
    let named: Vec<String> =
        withheld.iter().take(WITHHELD_NAMED_MAX).map(|path| format!("`{}`", path.display())).collect();
    let more = if withheld.len() > named.len() { ", …" } else { "" };
    Some(format!("without files that hold a secret: {}{more}", named.join(", ")))
}

/// Files that are to travel.
#[derive(Default)]
struct Group {
    found: Vec<(PathBuf, Found)>,
    marks: HashMap<PathBuf, Kind>,
    /// By device and inode, with whether a secret stands in them.
    files: HashMap<(u64, u64), bool>,
    bytes: u64,
}

/// What was gathered so far.
struct Load<'m> {
    mask: Option<&'m dyn Mask>,
    bytes_max: u64,
    taken: Group,
    withheld: BTreeSet<PathBuf>,
}

impl Load<'_> {
    /// Takes all of these trees, each under its name, or none.
    fn add(&mut self, trees: &[(PathBuf, PathBuf)]) -> Result<(), TravelFault> {
        let mut group = Group { bytes: self.taken.bytes, ..Group::default() };
        for (name, place) in trees {
            match fs::symlink_metadata(place) {
                Ok(metadata) if metadata.is_dir() => self.walk(name, place, metadata, 0, &mut group)?,
                // A part that the job does not have.
                _ => {}
            }
        }
        self.taken.bytes = group.bytes;
        self.taken.found.extend(group.found);
        self.taken.marks.extend(group.marks);
        self.taken.files.extend(group.files);
        Ok(())
    }

    fn walk(
        &mut self,
        name: &Path,
        place: &Path,
        metadata: Metadata,
        depth: usize,
        group: &mut Group,
    ) -> Result<(), TravelFault> {
        let path = below_part(name);
        if let Some(masked) = self.masked(&path) {
            // A whiteout would tell the name.
            self.withheld.insert(masked);
            return Ok(());
        }
        if (self.taken.found.len() + group.found.len()) as u64 >= FILES_MAX || depth > DEPTH_MAX {
            return Err(TravelFault::Files);
        }
        let is_directory = metadata.is_dir();
        let is_new = metadata.is_file() && is_new(&metadata, &self.taken, group);
        let bytes = group.bytes.saturating_add(if is_new { metadata.len() } else { 0 });
        if bytes > self.bytes_max {
            // Before anybody looks for secrets in it.
            return Err(TravelFault::Bytes(self.bytes_max));
        }
        if self.is_secret(place, &metadata, group)? {
            self.withheld.insert(path);
            group.marks.insert(name.to_owned(), Kind::Whiteout);
        } else if is_whiteout(&metadata) {
            group.marks.insert(name.to_owned(), Kind::Whiteout);
        } else if is_directory && is_opaque(place) {
            group.marks.insert(name.to_owned(), Kind::Opaque);
        } else if is_new {
            group.bytes = bytes;
            group.files.insert((metadata.dev(), metadata.ino()), false);
        }
        let is_left_out = is_directory && group.marks.get(name) == Some(&Kind::Whiteout);
        group.found.push((name.to_owned(), Found { path: name.to_owned(), place: place.to_owned(), metadata }));
        if is_directory && !is_left_out {
            for entry in fs::read_dir(place).map_err(refused(place))? {
                let entry = entry.map_err(refused(place))?;
                let path = entry.path();
                // The entry's own name may be a secret.
                let metadata = entry.metadata().map_err(refused(place))?;
                self.walk(&name.join(entry.file_name()), &path, metadata, depth + 1, group)?;
            }
        }
        Ok(())
    }

    /// The path without the secret that stands in it; `None` if none does.
    fn masked(&self, path: &Path) -> Option<PathBuf> {
        match self.mask?.mask(path.as_os_str().as_bytes()) {
            Cow::Borrowed(_) => None,
            Cow::Owned(masked) => Some(PathBuf::from(OsString::from_vec(masked))),
        }
    }

    /// Whether a secret stands in a link, or in a file.
    fn is_secret(&self, place: &Path, metadata: &Metadata, group: &mut Group) -> Result<bool, TravelFault> {
        let Some(mask) = self.mask else { return Ok(false) };
        if metadata.is_symlink() {
            let target = fs::read_link(place).map_err(refused(place))?;
            return Ok(matches!(mask.mask(target.as_os_str().as_bytes()), Cow::Owned(_)));
        }
        if !metadata.is_file() {
            return Ok(false);
        }
        let identity = (metadata.dev(), metadata.ino());
        if let Some(known) = self.taken.files.get(&identity).or_else(|| group.files.get(&identity)) {
            return Ok(*known);
        }
        let is_secret = holds(place, &|bytes| mask.is_in_content(bytes)).map_err(refused(place))?;
        if is_secret {
            group.files.insert(identity, true);
        }
        Ok(is_secret)
    }
}

fn is_new(metadata: &Metadata, taken: &Group, group: &Group) -> bool {
    let identity = (metadata.dev(), metadata.ino());
    !taken.files.contains_key(&identity) && !group.files.contains_key(&identity)
}

/// A name as a job knows it: `3/upper/src/a` is `src/a`, `3/tmp/a` is `/tmp/a`.
fn below_part(name: &Path) -> PathBuf {
    let mut components = name.components();
    let (_, part) = (components.next(), components.next());
    let rest = components.as_path();
    if part == Some(Component::Normal("tmp".as_ref())) { Path::new("/tmp").join(rest) } else { rest.to_owned() }
}

/// Makes what a document says of an attempt a workspace of this worker, with the layers of one moment; what is there already stays. The
/// snapshot is of the same source as that of the worker that ran it.
///
/// # Errors
/// [`TravelFault`]; nothing is left of what was begun.
pub fn fetch(
    attempt: Attempt<'_>,
    document: &Told,
    snapshot: &Snapshot,
    moment: &Moment,
    depot: &dyn Depot,
) -> Result<(), TravelFault> {
    let directory = attempt.directory();
    let arrived = fs::read_to_string(directory.join(ARRIVED)).unwrap_or_default();
    let mut index = None;
    let digest = document.digest();
    if arrived != digest.to_hex() {
        workspace::remove_tree(&directory).map_err(refused(&directory))?;
        let read = document.read(depot)?;
        index = Some(make(attempt, &read, digest, snapshot, depot)?);
    }
    let left = attempt.left().ok_or(TravelFault::Nothing)?;
    let Layer::Kept(number) = layer_of(&left, moment)? else { return Ok(()) };
    let to = layer_directory(&directory, number);
    if to.is_dir() {
        return Ok(());
    }
    let index = match index {
        Some(index) => index,
        None => load_index(document.read(depot)?.index, depot)?,
    };
    let steps = directory.join("steps");
    fs::create_dir_all(&steps).map_err(refused(&steps))?;
    let fresh = tempfile::tempdir_in(&steps).map_err(refused(&steps))?;
    let bytes = lay(&index, Path::new(&number.to_string()), fresh.path(), depot)?;
    let fresh = fresh.keep();
    match fs::rename(&fresh, &to) {
        // Somebody else has laid it meanwhile.
        Err(_) if to.is_dir() => workspace::remove_tree(&fresh).map_err(refused(&fresh))?,
        other => other.map_err(refused(&to))?,
    }
    // Without it the next sweep of layers would not see it.
    note_layers(&directory, bytes).map_err(refused(&directory))
}

fn load_index(digest: Digest, depot: &dyn Depot) -> Result<Index, TravelFault> {
    match chunked::load(digest, depot)? {
        Loaded::Index(index) => Ok(index),
        Loaded::Other(_) => Err(TravelFault::Damaged("its list of files is none".to_owned())),
    }
}

/// Makes the workspace without layers of moments, whole or not at all.
fn make(
    attempt: Attempt<'_>,
    document: &Document,
    digest: Digest,
    snapshot: &Snapshot,
    depot: &dyn Depot,
) -> Result<Index, TravelFault> {
    let directory = attempt.directory();
    let parent = directory.parent().unwrap_or(attempt.data);
    fs::create_dir_all(parent).map_err(refused(parent))?;
    let fresh = tempfile::tempdir_in(parent).map_err(refused(parent))?;
    let environment = &document.left.environment;
    let mut workspace = Workspace::create(snapshot, fresh.path(), document.files.clone(), environment)?;
    let index = load_index(document.index, depot)?;
    let mut above = Vec::new();
    for number in 0..document.above {
        if let Some(shown) = document.caches.get(&number) {
            let layers = cache_layers(attempt.data, &workspace).ok_or(TravelFault::Copy)?;
            above.extend(shown.trees(&layers, depot)?);
            continue;
        }
        let part = Path::new(ABOVE).join(number.to_string());
        let to = fresh.path().join(&part);
        fs::create_dir_all(&to).map_err(refused(&to))?;
        lay(&index, &part, &to, depot)?;
        above.push(directory.join(part));
    }
    workspace.set_above(above)?;
    let left = at_other_path(&document.left, &document.tree, &workspace.tree());
    let text = serde_json::to_vec(&left).map_err(|error| TravelFault::Damaged(error.to_string()))?;
    let name = environment_file(attempt.data, attempt.build, attempt.attempt);
    let name = fresh.path().join(name.file_name().unwrap_or_default());
    fs::write(&name, text).map_err(refused(&name))?;
    let name = fresh.path().join(ARRIVED);
    fs::write(&name, digest.to_hex()).map_err(refused(&name))?;
    let fresh = fresh.keep();
    let placed = fs::rename(&fresh, &directory);
    if placed.is_err() {
        let _ = workspace::remove_tree(&fresh);
    }
    match placed {
        // Somebody else has made it meanwhile.
        Err(_) if directory.join(ARRIVED).is_file() => {}
        other => other.map_err(refused(&directory))?,
    }
    Ok(index)
}

/// Where this worker has the layers of caches.
fn cache_layers(data: &Path, workspace: &Workspace) -> Option<cache::Layers> {
    let (upper, repository, prefix) = workspace.layers()?;
    Some(cache::Layers {
        folder: data.join(cache::LAYERS),
        workspaces: data.join("workspaces"),
        shown: workspace.shown().to_owned(),
        repository: repository.to_owned(),
        prefix: prefix.to_owned(),
        upper,
        lower: workspace.lower().to_vec(),
    })
}

/// Lays what has names below `part` into a folder that is there. How many bytes.
fn lay(index: &Index, part: &Path, to: &Path, depot: &dyn Depot) -> Result<u64, TravelFault> {
    let wanted = index.entries.iter().filter(|entry| entry.path.starts_with(part));
    let bytes = wanted.map(|entry| if let Kind::File { bytes, .. } = entry.kind { bytes } else { 0 });
    let bytes = bytes.fold(0, u64::saturating_add);
    if bytes > LAID_BYTES_MAX {
        return Err(TravelFault::Bytes(LAID_BYTES_MAX));
    }
    // The bound above is of the part; that of the whole is what an index may hold.
    let bounds = Bounds { files_max: FILES_MAX, bytes_max: u64::MAX };
    let (existing, content) = (Existing::Replaced, Content::Layers);
    // Whoever enters works in a layer above.
    let laying = Laying { bounds, existing, base: None, twin: None, content, equal: Equal::Linked };
    let place_of = |name: &Path| {
        let rest = name.strip_prefix(part).ok()?;
        Some((to, rest.to_owned()))
    };
    chunked::lay(index, laying, depot, &place_of)?;
    Ok(bytes)
}

/// With the path of the tree here in place of that of the worker that ran it.
fn at_other_path(left: &LeftBehind, from: &Path, to: &Path) -> LeftBehind {
    let mut left = left.clone();
    let (Some(from_text), Some(to_text)) = (from.to_str(), to.to_str()) else { return left };
    if from == to {
        return left;
    }
    let path = |path: &PathBuf| path.strip_prefix(from).map_or_else(|_| path.clone(), |rest| to.join(rest));
    let text = |text: &String| moved(text, from_text, to_text);
    left.directory = path(&left.directory);
    left.variables.values_mut().for_each(|value| *value = text(value));
    for step in &mut left.steps {
        step.directory = path(&step.directory);
        step.differs.values_mut().flatten().for_each(|value| *value = text(value));
    }
    if let Some(arrived) = &mut left.arrived {
        arrived.notes.push(format!("its tree was at `{from_text}` on the worker that ran it"));
    }
    left
}

/// The text with one path in place of another, also where more of a path follows, but not where a name goes on.
fn moved(text: &str, from: &str, to: &str) -> String {
    let mut moved = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find(from) {
        let (before, found) = rest.split_at(place);
        let after = &found[from.len()..];
        let goes_on = after.starts_with(|letter: char| letter.is_alphanumeric() || "-_.".contains(letter));
        moved.push_str(before);
        moved.push_str(if goes_on { from } else { to });
        rest = after;
    }
    moved.push_str(rest);
    moved
}

#[cfg(test)]
mod tests;
