//! The layers of a job's steps: what it had changed by the end of each, kept apart so that a person can open it later.
//!
//! A layer is a copy of the workspace's upper layer, and for a job in a sandbox of its `/tmp`. A file that is as it was at the
//! step before is a second name of that step's copy, never of the job's own file, which the job may still write in place. Where
//! nothing is different nothing is made: the step is told to look as the one before. Only the upper layer is walked: what it costs
//! depends on what the job has changed, not on how large its tree is.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::time::ClockId;
use serde::{Deserialize, Serialize};

use super::layer;

/// The most files, links and directories of one step's layer.
pub const STEP_FILES_MAX: u64 = 20_000;

/// The most bytes that one step's layer may add to those before it.
pub const STEP_BYTES_MAX: u64 = 512 << 20;

/// The most files, links and directories of all layers that one worker keeps of one build.
pub const BUILD_FILES_MAX: u64 = 400_000;

/// The most bytes of all layers that one worker keeps of one build.
pub const BUILD_BYTES_MAX: u64 = 4 << 30;

/// A file that was touched so shortly before it was looked at may be touched again and show the same times: the kernel's clock for
/// files ticks at most every 10 ms (`CONFIG_HZ=100`).
const SETTLED_NS: i128 = 20_000_000;

/// How many files and directories are told of an attempt that may not be read.
pub const UNREADABLE_MAX: usize = 10;

/// How deep a layer may be: one beyond what a path of the longest length can name.
const DEPTH_MAX: usize = 2_048;

/// How much may be kept of the steps of one build; see the constants of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepBounds {
    /// Files, links and directories of one layer.
    pub step_files: u64,
    /// Bytes that one layer adds.
    pub step_bytes: u64,
    /// Files, links and directories of all layers.
    pub build_files: u64,
    /// Bytes of all layers.
    pub build_bytes: u64,
}

impl Default for StepBounds {
    fn default() -> Self {
        Self {
            step_files: STEP_FILES_MAX,
            step_bytes: STEP_BYTES_MAX,
            build_files: BUILD_FILES_MAX,
            build_bytes: BUILD_BYTES_MAX,
        }
    }
}

/// What the layers of a build may still take. Shared by its attempts.
#[derive(Debug)]
pub struct Budget {
    bounds: StepBounds,
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Budget {
    /// All of it.
    #[must_use]
    pub fn new(bounds: StepBounds) -> Self {
        Self { bounds, files: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Takes so much of it, or nothing.
    fn take(&self, files: u64, bytes: u64) -> Result<(), Unkept> {
        let taken = |counter: &AtomicU64, more: u64, most: u64| {
            let add = |so_far: u64| so_far.checked_add(more).filter(|sum| *sum <= most);
            counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
        };
        if !taken(&self.files, files, self.bounds.build_files) {
            return Err(Unkept::BuildFiles(self.bounds.build_files));
        }
        if !taken(&self.bytes, bytes, self.bounds.build_bytes) {
            self.files.fetch_sub(files, Ordering::Relaxed);
            return Err(Unkept::BuildBytes(self.bounds.build_bytes));
        }
        Ok(())
    }
}

/// Why a step's layer is not kept. The words go on from "because ".
#[derive(Debug, thiserror::Error)]
pub enum Unkept {
    /// Too many files.
    #[error("the job had changed more than {0} files and directories by then")]
    StepFiles(u64),
    /// Too many bytes.
    #[error("the job had written more than {} MiB since the step before", .0 >> 20)]
    StepBytes(u64),
    /// Too many files in all.
    #[error("the steps kept of this build have more than {0} files and directories")]
    BuildFiles(u64),
    /// Too many bytes in all.
    #[error("the steps kept of this build take more than {} MiB", .0 >> 20)]
    BuildBytes(u64),
    /// The system refused.
    #[error("`{}` could not be kept: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Its words.
        source: io::Error,
    },
}

/// Where a step's files are, besides the layers that the job began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// In the workspace itself: nothing ran afterwards.
    End,
    /// Nothing was changed.
    Nothing,
    /// In a folder of this number.
    Kept(u16),
    /// Nowhere, for this reason.
    Unkept(String),
}

impl Layer {
    /// Where a part of it is, [`UPPER`] or [`TEMPORARY`], relative to the workspace's directory; `None` if it has no files.
    #[must_use]
    pub fn part(&self, part: &str) -> Option<PathBuf> {
        match self {
            Self::End => Some(PathBuf::from(part)),
            Self::Kept(folder) => Some(layer_directory(Path::new(""), *folder).join(part)),
            Self::Nothing | Self::Unkept(_) => None,
        }
    }
}

/// The file beside the workspaces of a build that says how many bytes each attempt keeps of its steps.
const ACCOUNT: &str = "steps";

/// Whether something is kept of the steps of a build, whose workspaces are here.
#[must_use]
pub fn has_layers(build: &Path) -> bool {
    build.join(ACCOUNT).is_file()
}

/// Takes layers of steps away while all take more than `bytes_max`: those of the oldest build first, all of a build at once. The folder
/// holds one folder for each build, named by its number. A build stays for which `may_go` says no.
///
/// # Errors
/// What could not be taken away, after everything else was.
pub fn collect_layers(workspaces: &Path, bytes_max: u64, may_go: &dyn Fn(u64) -> bool) -> io::Result<()> {
    let mut builds = Vec::new();
    for entry in fs::read_dir(workspaces)?.flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) else { continue };
        let Ok(text) = fs::read_to_string(entry.path().join(ACCOUNT)) else { continue };
        let bytes = text.lines().filter_map(|line| line.parse::<u64>().ok()).fold(0, u64::saturating_add);
        builds.push((number, entry.path(), bytes));
    }
    builds.sort_unstable_by_key(|(number, ..)| *number);
    let mut bytes = builds.iter().fold(0_u64, |sum, (.., bytes)| sum.saturating_add(*bytes));
    let mut fault = Ok(());
    for (number, build, of_build) in builds {
        if bytes <= bytes_max {
            break;
        }
        if may_go(number) {
            bytes = bytes.saturating_sub(of_build);
            fault = fault.and(remove_layers(&build));
        }
    }
    fault
}

/// Writes down for [`collect_layers`] that the layers of a workspace take so many bytes more.
///
/// # Errors
/// The system's words.
pub fn note_layers(workspace: &Path, bytes: u64) -> io::Result<()> {
    let build = workspace.parent().unwrap_or(workspace);
    let mut file = fs::OpenOptions::new().append(true).create(true).open(build.join(ACCOUNT))?;
    // One write of few bytes at the end: attempts that end at once do not mix.
    file.write_all(format!("{bytes}\n").as_bytes())
}

fn remove_layers(build: &Path) -> io::Result<()> {
    let mut fault = Ok(());
    for entry in fs::read_dir(build)?.flatten() {
        fault = fault.and(layer::remove_tree(&entry.path().join("steps")));
    }
    // Last: what is left of layers that could not be taken away is looked for again.
    fault.and_then(|()| fs::remove_file(build.join(ACCOUNT)))
}

/// The folder of a kept layer in a workspace's directory: in it `upper` and maybe `tmp`.
#[must_use]
pub fn layer_directory(workspace: &Path, folder: u16) -> PathBuf {
    workspace.join("steps").join(folder.to_string())
}

/// By what a file is known to be as it was. What else may change of it changes its ctime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a change after `now` would show. Times that lie ahead do not count: the clock was set back.
    fn is_settled(&self, now: i128) -> bool {
        i128::from(self.changed.0) * 1_000_000_000 + i128::from(self.changed.1) + SETTLED_NS < now
    }
}

/// One file, link, whiteout or directory of a layer.
struct Found {
    /// With the part before it: `upper/src/main.rs`.
    path: PathBuf,
    metadata: Metadata,
}

/// A layer as it was looked at.
struct Look {
    /// Directories before what is in them.
    found: Vec<Found>,
    at: i128,
}

/// What was kept last, against which the next step is compared.
struct Last {
    layer: Layer,
    /// `None` for what may have changed without showing it.
    stamps: HashMap<PathBuf, Option<Stamp>>,
}

/// The layers of one attempt's steps, as they come.
pub struct StepLayers {
    workspace: PathBuf,
    last: Last,
    next: u16,
    /// What the layers so far have added.
    bytes: u64,
    sharing: layer::Sharing,
    /// What layers lack because its modes forbid to read it, even to its owner. Bounded by [`UNREADABLE_MAX`].
    unreadable: Mutex<BTreeSet<PathBuf>>,
}

impl StepLayers {
    /// None yet; the workspace has no change.
    #[must_use]
    pub fn new(workspace: &Path) -> Self {
        let last = Last { layer: Layer::Nothing, stamps: HashMap::new() };
        Self {
            workspace: workspace.to_owned(),
            last,
            next: 0,
            bytes: 0,
            sharing: layer::Sharing::default(),
            unreadable: Mutex::default(),
        }
    }

    /// Whether the job has changed nothing yet: a look at two directories, for a caller who may not wait for a disk.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        let is_empty = |part: &str| match fs::read_dir(self.workspace.join(part)) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        self.last.stamps.is_empty() && PARTS.iter().all(|part| is_empty(part))
    }

    /// Keeps the files as they are now. What was made of a layer that could not be finished is taken away.
    ///
    /// # Errors
    /// [`Unkept`]; the next step may succeed.
    pub fn keep(&mut self, budget: &Budget) -> Result<Layer, Unkept> {
        let look = self.look(budget.bounds.step_files)?;
        if self.is_unchanged(&look) {
            return Ok(self.last.layer.clone());
        }
        let stamps = |look: Look| {
            let stamp = |metadata: &Metadata| Some(Stamp::of(metadata)).filter(|stamp| stamp.is_settled(look.at));
            look.found.into_iter().map(|found| (found.path, stamp(&found.metadata))).collect()
        };
        let layer = if look.found.is_empty() { Layer::Nothing } else { self.write(&look, budget)? };
        self.last = Last { layer: layer.clone(), stamps: stamps(look) };
        Ok(layer)
    }

    /// Writes down what was kept, for [`collect_layers`]; nothing if it is nothing. To be called once, at the end.
    ///
    /// # Errors
    /// The system's words.
    pub fn account(&self) -> io::Result<()> {
        if self.next == 0 { Ok(()) } else { note_layers(&self.workspace, self.bytes) }
    }

    /// What layers lack because its modes forbid to read it, relative to the workspace's directory; at most [`UNREADABLE_MAX`].
    #[must_use]
    pub fn unreadable(&self) -> Vec<PathBuf> {
        self.lock_unreadable().iter().cloned().collect()
    }

    fn note_unreadable(&self, path: &Path) {
        let mut unreadable = self.lock_unreadable();
        if unreadable.len() < UNREADABLE_MAX {
            unreadable.insert(path.to_owned());
        }
    }

    fn lock_unreadable(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, files_max: u64) -> Result<Look, Unkept> {
        let mut look = Look { found: Vec::new(), at: now_ns() };
        for part in PARTS {
            let root = self.workspace.join(part);
            if root.is_dir() {
                self.look_below(Path::new(part), 0, files_max, &mut look)?;
            }
        }
        Ok(look)
    }

    fn look_below(&self, directory: &Path, depth: usize, files_max: u64, look: &mut Look) -> Result<(), Unkept> {
        let path = self.workspace.join(directory);
        let entries = match fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.note_unreadable(directory);
                return Ok(());
            }
            other => other.map_err(refused(&path))?,
        };
        for entry in entries {
            // What goes while we look was left behind by a process that goes on.
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    self.note_unreadable(directory);
                    return Ok(());
                }
                other => other.map_err(refused(&entry.path()))?,
            };
            if look.found.len() as u64 >= files_max {
                return Err(Unkept::StepFiles(files_max));
            }
            let relative = directory.join(entry.file_name());
            let is_directory = metadata.is_dir();
            look.found.push(Found { path: relative.clone(), metadata });
            if is_directory && depth < DEPTH_MAX {
                self.look_below(&relative, depth + 1, files_max, look)?;
            }
        }
        Ok(())
    }

    fn is_unchanged(&self, look: &Look) -> bool {
        self.last.stamps.len() == look.found.len() && look.found.iter().all(|found| self.is_as_before(found))
    }

    fn is_as_before(&self, found: &Found) -> bool {
        self.last.stamps.get(&found.path) == Some(&Some(Stamp::of(&found.metadata)))
    }

    /// Makes the next layer.
    fn write(&mut self, look: &Look, budget: &Budget) -> Result<Layer, Unkept> {
        let before = match self.last.layer {
            Layer::Kept(folder) => Some(layer_directory(&self.workspace, folder)),
            _ => None,
        };
        let reuses = |found: &Found| before.is_some() && found.metadata.is_file() && self.is_as_before(found);
        let mut inodes = HashMap::new();
        let mut bytes: u64 = 0;
        for found in look.found.iter().filter(|found| found.metadata.is_file() && !reuses(found)) {
            if let Slot::Vacant(slot) = inodes.entry(found.metadata.ino()) {
                slot.insert(());
                // Holes take no room, and the copy has them too. Source: stat(2): blocks of 512 bytes.
                let taken = found.metadata.size().min(found.metadata.blocks().saturating_mul(512));
                bytes = bytes.saturating_add(taken);
            }
        }
        if bytes > budget.bounds.step_bytes {
            return Err(Unkept::StepBytes(budget.bounds.step_bytes));
        }
        budget.take(look.found.len() as u64, bytes)?;
        let to = layer_directory(&self.workspace, self.next);
        if let Err(unkept) = self.fill(look, &to, |found| before.as_deref().filter(|_| reuses(found))) {
            let _ = layer::remove_tree(&to);
            return Err(unkept);
        }
        let kept = Layer::Kept(self.next);
        self.next += 1;
        self.bytes += bytes;
        Ok(kept)
    }

    /// Puts entries that are no directories into a layer, by several threads if they are many.
    fn place_all<'a>(
        &self,
        entries: &[&Found],
        to: &Path,
        before: &(impl Fn(&Found) -> Option<&'a Path> + Sync),
    ) -> Result<(), Unkept> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let span = entries.len().div_ceil(threads).max(ENTRIES_OF_A_THREAD_MIN);
        let place_span = |span: &[&Found]| {
            span.iter().try_for_each(|found| {
                let model = before(found).map(|before| before.join(&found.path));
                self.place(found, to, model).map(drop)
            })
        };
        if entries.len() <= span {
            return place_span(entries);
        }
        std::thread::scope(|scope| {
            let spans: Vec<_> = entries.chunks(span).map(|span| scope.spawn(|| place_span(span))).collect();
            // All have ended before the first fault is told.
            let ended: Vec<_> = spans.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            ended.into_iter().try_for_each(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    /// Puts one entry into a layer: a second name of the model, or else a copy.
    fn place(&self, found: &Found, to: &Path, model: Option<PathBuf>) -> Result<Placed, Unkept> {
        let (from, to) = (self.workspace.join(&found.path), to.join(&found.path));
        if model.is_some_and(|model| fs::hard_link(model, &to).is_ok()) {
            return Ok(Placed::There);
        }
        match layer::copy_entry(&from, &to, &found.metadata, &self.sharing) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Placed::Gone),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && found.metadata.is_file() => {
                self.note_unreadable(&found.path);
                Ok(Placed::Gone)
            }
            other => other.map(|()| Placed::There).map_err(refused(&from)),
        }
    }

    /// Fills a layer. `before` is the layer in which a file stands as it is now, if there is one.
    fn fill<'a>(
        &self,
        look: &Look,
        to: &Path,
        before: impl Fn(&Found) -> Option<&'a Path> + Sync,
    ) -> Result<(), Unkept> {
        for part in PARTS {
            let (from, to) = (self.workspace.join(part), to.join(part));
            let Ok(metadata) = fs::symlink_metadata(&from) else { continue };
            fs::create_dir_all(&to).and_then(|()| layer::assume(&to, &metadata)).map_err(refused(&to))?;
        }
        let is_directory = |found: &&Found| found.metadata.is_dir();
        for found in look.found.iter().filter(is_directory) {
            self.place(found, to, None)?;
        }
        let others: Vec<&Found> = look.found.iter().filter(|found| !is_directory(found)).collect();
        let (named_twice, alone): (Vec<&Found>, Vec<&Found>) =
            others.into_iter().partition(|found| found.metadata.is_file() && found.metadata.nlink() > 1);
        self.place_all(&alone, to, &before)?;
        let mut links: HashMap<u64, PathBuf> = HashMap::new();
        for found in named_twice {
            let inode = found.metadata.ino();
            let model = before(found).map(|before| before.join(&found.path));
            if self.place(found, to, model.or_else(|| links.get(&inode).cloned()))? == Placed::There {
                links.entry(inode).or_insert_with(|| to.join(&found.path));
            }
        }
        // Last, and what is in a directory before it: one that may not be written could not be filled, and filling changes times.
        for found in look.found.iter().rev().filter(|found| found.metadata.is_dir()) {
            let to = to.join(&found.path);
            layer::assume(&to, &found.metadata).map_err(refused(&to))?;
        }
        Ok(())
    }
}

/// Whether an entry has come into a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placed {
    /// It has.
    There,
    /// It was taken away meanwhile, by a process that goes on, or may not be read.
    Gone,
}

/// How many threads fill a layer, at most; more only wait for each other at the disk.
const THREADS_MAX: usize = 4;

/// Fewer entries than this are placed by one thread.
const ENTRIES_OF_A_THREAD_MIN: usize = 500;

/// The part of a workspace that holds the changed files.
pub const UPPER: &str = "upper";

/// The part of a workspace that is the `/tmp` of a sandbox or container.
pub const TEMPORARY: &str = "tmp";

/// The parts of a workspace that a step's layer holds.
const PARTS: [&str; 2] = [UPPER, TEMPORARY];

fn refused(path: &Path) -> impl Fn(io::Error) -> Unkept + use<> {
    let path = path.to_owned();
    move |source| Unkept::File { path: path.clone(), source }
}

/// The clock by which files get their times.
fn now_ns() -> i128 {
    let now = rustix::time::clock_gettime(ClockId::RealtimeCoarse);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustix::thread::CapabilitySet;

    use super::*;

    /// Takes from this thread what lets root read everything.
    pub(in crate::workspace) fn become_ordinary() {
        let mut sets = rustix::thread::capabilities(None).expect("they are told");
        sets.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
        rustix::thread::set_capabilities(None, sets).expect("less is always allowed");
    }

    #[test]
    fn what_may_not_be_read_is_left_out_and_told() {
        become_ordinary();
        let workspace = tempfile::tempdir().expect("a folder");
        let at = |path: &str| workspace.path().join(path);
        let set_mode =
            |path: &str, mode| fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).expect("it is ours");
        fs::create_dir_all(at("upper/shut")).expect("made");
        for path in ["upper/open", "upper/secret", "upper/shut/inner"] {
            fs::write(at(path), "text").expect("written");
        }
        set_mode("upper/secret", 0);
        set_mode("upper/shut", 0);
        let mut layers = StepLayers::new(workspace.path());
        let kept = layers.keep(&Budget::new(StepBounds::default())).expect("the rest is kept");
        assert_eq!(kept, Layer::Kept(0));
        assert_eq!(fs::read_to_string(at("steps/0/upper/open")).expect("it is kept"), "text");
        assert!(!at("steps/0/upper/secret").exists());
        assert_eq!(layers.unreadable(), [Path::new("upper/secret"), Path::new("upper/shut")]);
        for path in ["upper/shut", "steps/0/upper/shut"] {
            set_mode(path, 0o700);
        }
    }

    #[test]
    fn holes_of_files_take_no_room() {
        let workspace = tempfile::tempdir().expect("a folder");
        let at = |path: &str| workspace.path().join(path);
        fs::create_dir_all(at("upper")).expect("made");
        let file = fs::File::create(at("upper/sparse")).expect("made");
        file.set_len(2 * STEP_BYTES_MAX).expect("longer");
        let mut layers = StepLayers::new(workspace.path());
        let kept = layers.keep(&Budget::new(StepBounds::default()));
        assert_eq!(kept.expect("no byte of it counts"), Layer::Kept(0));
        let kept = fs::metadata(at("steps/0/upper/sparse")).expect("it is kept");
        assert_eq!(kept.len(), 2 * STEP_BYTES_MAX);
        assert!(kept.blocks() * 512 < STEP_BYTES_MAX, "it has the hole too");
    }
}
