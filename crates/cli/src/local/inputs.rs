//! Digests of the files that jobs declare as inputs. A build has one state, that of its start: the tree is listed and looked at
//! once, before anything runs, and what was seen is kept for whoever goes on with the build. Only of jobs that work in the tree
//! itself is it looked at again.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use graph::{Digest, Timestamp, WorkspaceKind};
use tokio::sync::Mutex;
use worker::path_text::text_of;
use worker::patterns::{Patterns, by_bytes};
use worker::tree::{Content, Kind, Source, StatCache, Tree};
use worker::workspace::{Moment, Vigil};

use super::clock::now;
use crate::shortcut::{self, Stamp};

/// How many remarks there are on the inputs of a job.
const REMARKS_MAX: usize = 10;

/// The look from which on the tree is watched no more: jobs or people keep changing it.
const VIGILS_MAX: u64 = 5;

/// How often the tree is looked at anew because somebody changes it while the build begins.
const LOOKS_MAX: usize = 2;

/// The tree of a build.
pub struct Inputs {
    root: PathBuf,
    cache: PathBuf,
    extent: Cell<Extent>,
    begun: Begun,
    start: Mutex<Option<Rc<Seen>>>,
    /// The last look at the tree as it is.
    live: Mutex<Option<Live>>,
    live_looks: Cell<u64>,
    progress: Cell<Progress>,
    /// When the first look at the state of the start began.
    looked_since: Cell<Option<Moment>>,
    /// Whether it was looked at again since.
    is_renewed: Cell<bool>,
    agreement: RefCell<Agreement>,
}

/// A look at the tree as it is.
struct Live {
    number: u64,
    seen: Rc<Seen>,
    /// Began before the look: as long as nothing is touched, it holds.
    vigil: Option<Vigil>,
}

impl Live {
    fn holds(&mut self) -> bool {
        self.vigil.as_mut().is_some_and(Vigil::is_untouched)
    }
}

/// Whether what was seen at the start is what jobs with files of their own see.
enum Agreement {
    /// It is, as far as anybody knows.
    Full,
    /// But for these, and what lies below them.
    Apart(BTreeSet<PathBuf>),
    /// Nobody knows.
    None,
}

/// Which process began the build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// This one: what it sees before anything runs is the state of the start.
    Here,
    /// An earlier one, which has kept what it saw, or was killed before it could.
    Earlier,
}

/// What may have happened to the tree since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Nothing has run and nobody was waited for.
    None,
    /// Something has; only other people change the tree.
    Running,
    /// A job has worked in the tree itself.
    Worked,
}

/// What the tree held when it was looked at.
pub struct Seen {
    /// Which files there are: sorted by bytes, no duplicates.
    pub paths: Vec<PathBuf>,
    /// What each holds.
    pub contents: Vec<Option<Content>>,
    /// How each looked before it was read.
    pub stamps: Option<Vec<Option<Stamp>>>,
    /// When the look began.
    pub looked_at: Timestamp,
    /// How much of the checkout it is.
    pub extent: Extent,
    /// Who said which files there are.
    pub source: Source,
}

/// How much of a checkout is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// The project's folder, which globs are about.
    Folder,
    /// The whole checkout, which is what steps see.
    Checkout,
}

/// The inputs of a job.
#[derive(Debug, PartialEq, Eq)]
pub struct Digests {
    /// Path and digest of each file, sorted by path.
    pub files: Vec<(String, Digest)>,
    /// Of which state.
    pub state: State,
}

/// Which state of the tree was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// That of the build's start, and what its own jobs have made of it.
    OfBuild,
    /// Maybe another one: an earlier result that fits it does not stand for the build.
    Other,
}

impl Inputs {
    /// The tree at `root`; `cache` is the file in which stats are kept between builds, `kept` what an earlier process saw at the
    /// start.
    pub fn new(root: &Path, cache: PathBuf, begun: Begun, kept: Option<Seen>) -> Self {
        let progress = match begun {
            Begun::Here => Progress::None,
            Begun::Earlier => Progress::Running,
        };
        Self {
            root: root.to_path_buf(),
            cache,
            extent: Cell::new(Extent::Folder),
            begun,
            start: Mutex::new(kept.map(Rc::new)),
            live: Mutex::default(),
            live_looks: Cell::new(0),
            progress: Cell::new(progress),
            looked_since: Cell::default(),
            is_renewed: Cell::default(),
            agreement: RefCell::new(Agreement::Full),
        }
    }

    /// Says that some job's inputs may be the whole checkout.
    pub fn widen(&self) {
        self.extent.set(Extent::Checkout);
    }

    /// Looks at the tree, if nobody has, since jobs are about to run, or a person to be waited for.
    pub async fn hold_start(&self) {
        if self.progress.get() == Progress::None {
            // Whoever asks for digests is told what is wrong.
            let _ = self.start(self.extent.get()).await;
        }
    }

    /// When the first look at the state of the start began; this moment if there was none.
    pub fn looked_since(&self) -> Moment {
        self.looked_since.get().unwrap_or_else(Moment::now)
    }

    /// Looks at the tree again if it may have changed between the first look and the copy of it that jobs are given. `changed_since` tells what of it
    /// has changed since a moment and since the copy; `None` if it cannot.
    pub async fn agree(&self, changed_since: impl AsyncFn(Moment) -> Option<Vec<PathBuf>>) {
        let Some(mut since) = self.looked_since.get().filter(|_| self.progress.get() == Progress::None) else { return };
        for _ in 0..=LOOKS_MAX {
            let mut slot = self.start.lock().await;
            // Where there is no git, jobs see the tree as it is.
            let Some(extent) = slot.as_ref().filter(|seen| seen.source == Source::Git).map(|seen| seen.extent) else {
                return;
            };
            if let Some(changed) = changed_since(since).await {
                if !changed.is_empty() {
                    *self.agreement.borrow_mut() = Agreement::Apart(changed.into_iter().collect());
                }
                return;
            }
            since = Moment::now();
            self.is_renewed.set(true);
            let seen = self.look(extent.max(self.extent.get())).await.ok();
            // Without stamps there is no shortcut: some job may have been judged by the first look.
            *slot = seen.and_then(Rc::into_inner).map(|seen| Rc::new(Seen { stamps: None, ..seen }));
        }
        *self.agreement.borrow_mut() = Agreement::None;
    }

    /// Whether the state of the start was looked at again, so that what was worked out before may be of another one.
    pub fn is_renewed(&self) -> bool {
        self.is_renewed.get()
    }

    /// Says that jobs run from now on, or a person is waited for.
    pub fn note_progress(&self) {
        if self.progress.get() == Progress::None {
            self.progress.set(Progress::Running);
        }
    }

    /// Says that a job has worked in the tree itself.
    pub fn tree_may_have_changed(&self) {
        self.progress.set(Progress::Worked);
    }

    /// The files that `globs` name; all files that steps see if `None`: also those of the checkout that lie above the project,
    /// whose paths begin with `..`.
    ///
    /// # Errors
    /// A sentence: a glob is wrong, or the tree cannot be read.
    pub async fn digests(&self, globs: Option<&[String]>, workspace: WorkspaceKind) -> Result<Digests, String> {
        let extent = self.extent_of(globs);
        let (seen, state) = self.start(extent).await?;
        let of_start = self.select(&seen, globs, workspace)?;
        if !sees_tree(&seen, workspace) {
            let state = if self.is_apart(globs, &of_start) { State::Other } else { state };
            return Ok(Digests { files: of_start, state });
        }
        if self.progress.get() == Progress::None {
            return Ok(Digests { files: of_start, state });
        }
        let files = self.select(&*self.live(extent).await?, globs, workspace)?;
        // What a job has written is of the build; anything else that changed is somebody's other tree.
        let is_of_build = self.progress.get() == Progress::Worked || state == State::OfBuild && of_start == files;
        Ok(Digests { files, state: if is_of_build { State::OfBuild } else { State::Other } })
    }

    /// Whether a job that is given a copy of the files may find other inputs in it than these.
    fn is_apart(&self, globs: Option<&[String]>, files: &[(String, Digest)]) -> bool {
        let apart = match &*self.agreement.borrow() {
            Agreement::Full => return false,
            Agreement::None => return true,
            Agreement::Apart(paths) => paths.clone(),
        };
        let Some(globs) = globs else { return true };
        let patterns = Patterns::new(globs);
        let is_meant = |path: &PathBuf| patterns.as_ref().is_ok_and(|patterns| patterns.matches(path));
        let is_below = |(name, _): &(String, Digest)| Path::new(name).ancestors().any(|above| apart.contains(above));
        apart.iter().any(is_meant) || files.iter().any(is_below)
    }

    /// The first input that a job has found otherwise than its operation's manifest has it: in the tree itself, if it sees that, or in the state
    /// of the start, if that was looked at again after the operation was worked out.
    ///
    /// # Errors
    /// As [`Inputs::digests`].
    pub async fn changed(
        &self,
        globs: Option<&[String]>,
        workspace: WorkspaceKind,
        manifest: &BTreeMap<String, String>,
    ) -> Result<Option<String>, String> {
        let extent = self.extent_of(globs);
        let (seen, _) = self.start(extent).await?;
        match (sees_tree(&seen, workspace), self.is_renewed.get()) {
            (true, _) => Ok(difference(manifest, &self.select(&*self.live(extent).await?, globs, workspace)?)),
            (false, true) => Ok(difference(manifest, &self.select(&seen, globs, workspace)?)),
            (false, false) => Ok(None),
        }
    }

    fn extent_of(&self, globs: Option<&[String]>) -> Extent {
        let needed = if globs.is_some() { Extent::Folder } else { Extent::Checkout };
        needed.max(self.extent.get())
    }

    fn select(
        &self,
        seen: &Seen,
        globs: Option<&[String]>,
        workspace: WorkspaceKind,
    ) -> Result<Vec<(String, Digest)>, String> {
        let Some(globs) = globs else {
            return Ok((0..seen.paths.len()).filter_map(|place| seen.digest(place)).collect());
        };
        refuse_only_negated(globs)?;
        let places = Patterns::new(globs).map_err(|fault| fault.to_string())?.select(&seen.paths);
        let mut files: Vec<_> = places.into_iter().filter_map(|place| seen.digest(place)).collect();
        if workspace == WorkspaceKind::InPlace {
            // A job in the tree itself sees what is ignored, too.
            let ignored = globs.iter().filter(|glob| shortcut::is_literal(glob));
            let ignored = ignored.filter(|glob| seen.place(Path::new(glob)).is_none());
            files.extend(ignored.filter_map(|glob| Some((glob.clone(), digest_of(&self.root.join(glob))?))));
            files.sort();
            files.dedup();
        }
        Ok(files)
    }

    /// What people should know of the inputs of a job that runs: globs that take nothing, links that lead to what is no input. As with
    /// [`Inputs::digests`] all files are inputs if `globs` is `None`.
    pub async fn remarks(&self, globs: Option<&[String]>, workspace: WorkspaceKind) -> Vec<String> {
        let Some(seen) = self.start.lock().await.clone() else { return Vec::new() };
        let Some(globs) = globs else { return self.links_out(&seen, None) };
        let mut remarks: Vec<String> = refuse_only_negated(globs).err().into_iter().collect();
        let takes = |glob: &&String| !glob.starts_with('!');
        let is_missing = |glob: &&String| {
            let selected = Patterns::new(&[glob]).map(|patterns| patterns.select(&seen.paths));
            selected.is_ok_and(|places| places.iter().all(|place| seen.contents[*place].is_none()))
        };
        let missing = globs.iter().filter(takes).filter(is_missing);
        let words = missing.filter_map(|glob| words_of_missing(&self.root, glob, workspace));
        remarks.extend(words.map(|words| format!("inputs: {words}")));
        remarks.extend(Patterns::new(globs).into_iter().flat_map(|patterns| self.links_out(&seen, Some(&patterns))));
        remarks.truncate(REMARKS_MAX);
        remarks
    }

    /// The links among the inputs that lead to files which are none; all files are inputs without patterns.
    fn links_out(&self, seen: &Seen, patterns: Option<&Patterns>) -> Vec<String> {
        let is_link = |place: &usize| seen.contents[*place].is_some_and(|content| content.kind == Kind::Link);
        let places = patterns.map_or_else(|| (0..seen.paths.len()).collect(), |patterns| patterns.select(&seen.paths));
        let links = places.into_iter().filter(is_link).map(|place| &seen.paths[place]);
        let leads_out = |link: &&PathBuf| {
            let target = fs::read_link(self.root.join(link)).unwrap_or_default();
            let target = normal(&link.parent().unwrap_or(Path::new("")).join(target));
            !target.is_some_and(|target| match patterns {
                Some(patterns) => !target.starts_with("..") && is_input(seen, |path| patterns.matches(path), &target),
                None => is_input(seen, |path| seen.place(path).is_some(), &target),
            })
        };
        let told = |link: &PathBuf| {
            format!("inputs: {} is a link to what is no input; a change there is not noticed", text_of(link))
        };
        links.filter(leads_out).take(REMARKS_MAX).map(told).collect()
    }

    /// The tree as it was at the start, if anybody looked at it then in this process, and it is what jobs saw.
    pub fn looked(&self) -> Option<Rc<Seen>> {
        match (self.begun, &*self.agreement.borrow()) {
            (Begun::Here, Agreement::Full) => self.start.try_lock().ok()?.clone(),
            _ => None,
        }
    }

    /// At least so much of the tree as it was at the start. Thousands of jobs may ask at once: one looks, the others wait.
    async fn start(&self, extent: Extent) -> Result<(Rc<Seen>, State), String> {
        let mut slot = self.start.lock().await;
        if let Some(seen) = slot.as_ref().filter(|seen| seen.extent >= extent) {
            return Ok((Rc::clone(seen), State::OfBuild));
        }
        if self.progress.get() != Progress::None {
            drop(slot);
            return Ok((self.live(extent).await?, State::Other));
        }
        if self.looked_since.get().is_none() {
            self.looked_since.set(Some(Moment::now()));
        }
        let seen = self.look(extent).await?;
        Ok((Rc::clone(slot.insert(seen)), State::OfBuild))
    }

    /// The tree as it is: looked at after this was called. Those who ask meanwhile share the next look.
    async fn live(&self, extent: Extent) -> Result<Rc<Seen>, String> {
        let begun = self.live_looks.get();
        let mut slot = self.live.lock().await;
        if let Some(live) = slot.as_mut().filter(|live| live.seen.extent >= extent)
            && (live.number > begun || live.holds())
        {
            return Ok(Rc::clone(&live.seen));
        }
        let number = self.live_looks.get() + 1;
        self.live_looks.set(number);
        // Where git lists files, its index decides too, which nobody watches. The first look may be the only one.
        let is_worth_it =
            (2..=VIGILS_MAX).contains(&number) && slot.as_ref().is_some_and(|live| live.seen.source == Source::Walk);
        let vigil = if is_worth_it { self.begin_vigil().await } else { None };
        let seen = self.look(extent).await?;
        *slot = Some(Live { number, seen: Rc::clone(&seen), vigil });
        Ok(seen)
    }

    async fn begin_vigil(&self) -> Option<Vigil> {
        let root = self.root.clone();
        tokio::task::spawn_blocking(move || Vigil::begin(&root)).await.ok()?
    }

    async fn look(&self, extent: Extent) -> Result<Rc<Seen>, String> {
        let (root, cache) = (self.root.clone(), self.cache.clone());
        let looked = tokio::task::spawn_blocking(move || look(&root, &cache, extent)).await;
        Ok(Rc::new(looked.map_err(|error| error.to_string())??))
    }
}

/// Lists the tree and looks at every file.
///
/// # Errors
/// A sentence: it cannot be read.
pub fn look(root: &Path, cache: &Path, extent: Extent) -> Result<Seen, String> {
    let looked_at = now();
    let tree = match extent {
        Extent::Folder => Tree::list(root),
        Extent::Checkout => Tree::list_checkout(root),
    };
    let tree = tree.map_err(|error| error.to_string())?;
    let stamps = shortcut::stamps(&tree);
    let mut stats = StatCache::open(cache);
    let contents = tree.contents(&mut stats).map_err(|error| error.to_string())?;
    // Losing it costs time only.
    let _ = stats.save(cache);
    Ok(Seen { paths: tree.paths().to_vec(), contents, stamps, looked_at, extent, source: tree.source() })
}

/// The first bytes of the file in which a look is kept.
const MAGIC: &[u8] = b"ropewalk inputs 1\n";

impl Seen {
    fn place(&self, path: &Path) -> Option<usize> {
        self.paths.binary_search_by(|there| by_bytes(there, path)).ok()
    }

    fn digest(&self, place: usize) -> Option<(String, Digest)> {
        Some((text_of(&self.paths[place]).into_owned(), of_kind(self.contents[place]?)))
    }

    /// Keeps what was seen, for whoever goes on with the build.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self, file: &Path) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([self.extent as u8, self.source as u8]);
        for (path, content) in self.paths.iter().zip(&self.contents) {
            let Some(content) = content else { continue };
            bytes.push(content.kind as u8);
            bytes.extend_from_slice(&content.digest.0);
            bytes.extend_from_slice(path.as_os_str().as_bytes());
            bytes.push(0);
        }
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
        fs::write(file, bytes)
    }

    /// What [`Seen::keep`] kept; `None` if nothing was, or not all of it.
    pub fn kept(file: &Path) -> Option<Self> {
        let bytes = fs::read(file).ok()?;
        let (body, sum) = bytes.split_last_chunk::<32>()?;
        if blake3::hash(body).as_bytes() != sum {
            return None;
        }
        let ([extent, source], mut rest) = body.strip_prefix(MAGIC)?.split_first_chunk::<2>()?;
        let source = if *source == Source::Git as u8 { Source::Git } else { Source::Walk };
        let extent = if *extent == Extent::Folder as u8 { Extent::Folder } else { Extent::Checkout };
        let (mut paths, mut contents) = (Vec::new(), Vec::new());
        while let Some((kind, after)) = rest.split_first() {
            let kind = [Kind::File, Kind::Executable, Kind::Link].into_iter().find(|known| *known as u8 == *kind)?;
            let (digest, after) = after.split_first_chunk::<32>()?;
            let end = after.iter().position(|byte| *byte == 0)?;
            paths.push(PathBuf::from(OsStr::from_bytes(&after[..end])));
            contents.push(Some(Content { kind, digest: Digest(*digest) }));
            rest = &after[end + 1..];
        }
        Some(Self { paths, contents, stamps: None, looked_at: Timestamp::default(), extent, source })
    }
}

/// The first path that only one of two lists of inputs has, or has otherwise. `before` are those of an operation's manifest.
fn difference(before: &BTreeMap<String, String>, now: &[(String, Digest)]) -> Option<String> {
    let of_file = |(part, digest): (&String, &String)| Some((part.strip_prefix("file:")?.to_owned(), digest.clone()));
    let before: BTreeSet<(String, String)> = before.iter().filter_map(of_file).collect();
    let now: BTreeSet<(String, String)> = now.iter().map(|(path, digest)| (path.clone(), digest.to_string())).collect();
    before.symmetric_difference(&now).next().map(|(path, _)| path.clone())
}

/// Globs that take nothing would make a job that is the same for ever.
///
/// # Errors
/// A sentence that says so.
pub fn refuse_only_negated(globs: &[String]) -> Result<(), String> {
    match !globs.is_empty() && globs.iter().all(|glob| glob.starts_with('!')) {
        true => Err("`inputs` only takes files away: begin it with what it takes, such as `**`".to_owned()),
        false => Ok(()),
    }
}

/// Whether a job sees the tree as it is: where there is no git, every job does.
fn sees_tree(seen: &Seen, workspace: WorkspaceKind) -> bool {
    workspace == WorkspaceKind::InPlace || seen.source == Source::Walk
}

/// Whether a file is an input, or a folder holds one.
fn is_input(seen: &Seen, matches: impl Fn(&Path) -> bool, target: &Path) -> bool {
    if matches(target) {
        return true;
    }
    let below = target.join("");
    let first = seen.paths.partition_point(|path| by_bytes(path, &below).is_lt());
    seen.paths[first..].iter().take_while(|path| path.starts_with(target)).any(|path| matches(path))
}

/// A relative path without `.`, and with `..` only at its beginning; `None` if it is not relative.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::CurDir => {}
            Component::ParentDir if normal.file_name().is_some() => {
                normal.pop();
            }
            Component::ParentDir => normal.push(".."),
            _ => return None,
        }
    }
    Some(normal)
}

/// What is wrong with a glob that takes none of the tree's files; `None` if the job is given what it names all the same.
pub fn words_of_missing(root: &Path, glob: &str, workspace: WorkspaceKind) -> Option<String> {
    match (fs::symlink_metadata(root.join(glob)), workspace) {
        (Err(_), _) => Some(format!("`{glob}` matches no file")),
        (Ok(_), _) if !shortcut::is_literal(glob) => Some(words_of_special(glob)),
        (Ok(there), WorkspaceKind::InPlace) if !there.is_dir() => None,
        (Ok(_), WorkspaceKind::InPlace) => Some(format!("`{glob}` is ignored by git: a change in it is not noticed")),
        (Ok(_), WorkspaceKind::Isolated) => Some(format!("`{glob}` is ignored by git: the job does not see it")),
    }
}

/// What is wrong with a glob that takes nothing, although a file has it for a name.
fn words_of_special(glob: &str) -> String {
    let special = |letter: &char| r"*?[]{}\!".contains(*letter);
    let means = match glob.chars().find(special) {
        Some('[') => "`[` begins a class of characters",
        Some('{') => "`{` begins alternatives",
        _ => "some of its characters mean more than themselves",
    };
    let escaped: String =
        glob.chars().flat_map(|letter| special(&letter).then_some('\\').into_iter().chain([letter])).collect();
    format!("`{glob}` matches no file: {means}; the file of this name is `{escaped}`")
}

/// The digest of a file or link that no tree lists.
fn digest_of(path: &Path) -> Option<Digest> {
    let there = fs::symlink_metadata(path).ok()?;
    let digest = |bytes: &[u8]| Digest(*blake3::hash(bytes).as_bytes());
    if there.is_symlink() {
        let target = fs::read_link(path).ok()?.into_os_string().into_vec();
        return Some(of_kind(Content { kind: Kind::Link, digest: digest(&target) }));
    }
    let file = fs::File::open(path).ok().filter(|_| there.is_file())?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).ok()?;
    let is_executable = std::os::unix::fs::MetadataExt::mode(&there) & 0o100 != 0;
    let kind = if is_executable { Kind::Executable } else { Kind::File };
    Some(of_kind(Content { kind, digest: Digest(*hasher.finalize().as_bytes()) }))
}

/// The digest of a file's content and kind, so that a changed executable bit is a change.
fn of_kind(content: Content) -> Digest {
    match content.kind {
        Kind::File => content.digest,
        kind => {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&[kind as u8]);
            hasher.update(&content.digest.0);
            Digest(*hasher.finalize().as_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_kept_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        fs::create_dir_all(&root).expect("a folder");
        fs::write(root.join("a"), "a").expect("a file");
        fs::write(root.join(OsStr::from_bytes(b"b\xff")), "b").expect("a file");
        std::os::unix::fs::symlink("a", root.join("c")).expect("a link");
        let seen = look(&root, &folder.path().join("stats"), Extent::Checkout).expect("a look");
        let file = folder.path().join("kept/inputs");
        seen.keep(&file).expect("kept");
        let kept = Seen::kept(&file).expect("whole");
        assert_eq!((kept.paths, kept.contents), (seen.paths, seen.contents));
        assert_eq!((kept.extent, kept.source), (Extent::Checkout, Source::Walk));
        let mut bytes = fs::read(&file).expect("there");
        bytes.pop();
        fs::write(&file, bytes).expect("a file");
        assert!(Seen::kept(&file).is_none());
    }

    /// A repository with two committed files, and the inputs of a build that begins in it.
    fn start() -> (tempfile::TempDir, Inputs) {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        fs::create_dir_all(&root).expect("a folder");
        for name in ["a", "b"] {
            fs::write(root.join(name), "1").expect("a file");
        }
        for arguments in [&["init", "-q"][..], &["add", "a", "b"]] {
            let status = std::process::Command::new("git").args(arguments).current_dir(&root).status().expect("git");
            assert!(status.success());
        }
        let inputs = Inputs::new(&root, folder.path().join("stats"), Begun::Here, None);
        (folder, inputs)
    }

    async fn isolated(inputs: &Inputs, glob: &str) -> Digests {
        inputs.digests(Some(&[glob.to_owned()]), WorkspaceKind::Isolated).await.expect("digests")
    }

    fn manifest(digests: &Digests) -> BTreeMap<String, String> {
        digests.files.iter().map(|(path, digest)| (format!("file:{path}"), digest.to_string())).collect()
    }

    #[tokio::test]
    async fn what_changed_before_jobs_were_given_their_copy_is_looked_at_again() {
        let (folder, inputs) = start();
        let before = (isolated(&inputs, "a").await, isolated(&inputs, "b").await);
        fs::write(folder.path().join("root/a"), "other").expect("a file");
        let looked_since = inputs.looked_since();
        // Of the first look nobody can tell, the second was under the watch.
        inputs.agree(async |since| (since > looked_since || inputs.is_renewed()).then(Vec::new)).await;
        inputs.note_progress();
        let after = (isolated(&inputs, "a").await, isolated(&inputs, "b").await);
        assert_eq!((before.0 == after.0, before.1 == after.1), (false, true));
        assert_eq!((before.0.state, after.0.state), (State::OfBuild, State::OfBuild));
        let changed = async |glob: &str, judged: &Digests| {
            inputs.changed(Some(&[glob.to_owned()]), WorkspaceKind::Isolated, &manifest(judged)).await.expect("told")
        };
        assert_eq!(changed("a", &before.0).await, Some("a".to_owned()), "it was judged by what no job saw");
        assert_eq!((changed("a", &after.0).await, changed("b", &before.1).await), (None, None));
        assert!(inputs.looked().is_some_and(|seen| seen.stamps.is_none()), "no shortcut");
    }

    #[tokio::test]
    async fn a_name_that_a_glob_does_not_mean_is_told_with_the_glob_that_does() {
        let (folder, inputs) = start();
        for name in ["a[1]", "b{1}", "ignored"] {
            fs::write(folder.path().join("root").join(name), "1").expect("a file");
        }
        fs::write(folder.path().join("root/.gitignore"), "/ignored\n").expect("a file");
        inputs.digests(None, WorkspaceKind::Isolated).await.expect("digests");
        let remarks =
            async |glob: &str, workspace| inputs.remarks(Some(&[glob.to_owned()]), workspace).await.join("; ");
        for (glob, means, escaped) in
            [("a[1]", "`[` begins a class of characters", r"a\[1\]"), ("b{1}", "`{` begins alternatives", r"b\{1\}")]
        {
            let told = format!("inputs: `{glob}` matches no file: {means}; the file of this name is `{escaped}`");
            assert_eq!(remarks(glob, WorkspaceKind::Isolated).await, told);
            assert_eq!(remarks(glob, WorkspaceKind::InPlace).await, told);
            assert_eq!(isolated(&inputs, escaped).await.files.len(), 1, "{escaped} takes it");
            assert_eq!(remarks(escaped, WorkspaceKind::Isolated).await, "");
        }
        let told = "inputs: `ignored` is ignored by git: the job does not see it";
        assert_eq!(remarks("ignored", WorkspaceKind::Isolated).await, told);
    }

    #[tokio::test]
    async fn no_earlier_result_is_taken_for_what_changed_while_it_was_looked_at() {
        let (_folder, inputs) = start();
        isolated(&inputs, "**").await;
        inputs.agree(async |_| Some(vec!["a".into()])).await;
        inputs.note_progress();
        let state = async |glob: &str| isolated(&inputs, glob).await.state;
        assert_eq!((state("a").await, state("b").await), (State::Other, State::OfBuild));
        assert!(!inputs.is_renewed() && inputs.looked().is_none());
        let (_folder, inputs) = start();
        isolated(&inputs, "**").await;
        inputs.agree(async |_| None).await;
        assert_eq!(isolated(&inputs, "b").await.state, State::Other, "nobody can tell");
    }

    #[tokio::test]
    async fn without_git_a_tree_that_nobody_touches_is_looked_at_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        fs::create_dir_all(&root).expect("a folder");
        fs::write(root.join("a"), "1").expect("a file");
        let inputs = Inputs::new(&root, folder.path().join("stats"), Begun::Here, None);
        let first = isolated(&inputs, "a").await;
        inputs.note_progress();
        for _ in 0..5 {
            assert_eq!(isolated(&inputs, "a").await, first);
        }
        assert_eq!(inputs.live_looks.get(), 2);
        fs::write(root.join("a"), "2").expect("a file");
        assert_ne!(isolated(&inputs, "a").await.files, first.files);
        assert_eq!(inputs.live_looks.get(), 3);
    }
}
