//! Checkouts of sources: for each project a line of them, each laid once, whole or not at all, and then never written to. Jobs see
//! theirs below their overlays, at one place for all checkouts of a project; who works in place gets a copy.
//!
//! A checkout is laid from the one before: files that are the same keep their times, others get a later one, as if one folder had
//! been brought from source to source. Only the last of a line is found again, since an earlier one has files that look older than
//! what was built meanwhile.
//!
//! Nothing of a manifest is believed: names stay inside, nothing is laid through a link, and links are laid last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::source::{FILES_MAX, File, History, MANIFEST_BYTES_MAX, Manifest, VERSION};
use graph::Digest;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};
use serde::{Deserialize, Serialize};

use worker::cache::Passed;

use super::content::{Contents, Use, time_of};
use super::history::laying::{self, Packs};
use super::holding::{Held, Holds};
use super::source::parts;

/// How many checkouts that nothing uses are kept: the last ones of so many projects.
pub const CHECKOUTS_MAX: usize = 32;

/// A checkout that nothing used for so long goes, however few there are.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The longest target of a link.
const LINK_BYTES_MAX: usize = 4095;

/// The longest name of a project that is the name of its folder.
const NAME_BYTES_MAX: usize = 100;

const INCOMING: &str = ".incoming";
const TREE: &str = "tree";
const ABOUT: &str = "about.json";
const MANIFEST: &str = "manifest.json";

/// A checkout that is there, for as long as this lives.
#[derive(Clone, Debug)]
pub struct Checkout {
    /// The root of its files.
    pub tree: PathBuf,
    /// The project's folder in it, relative; empty if it is the root.
    pub folder: PathBuf,
    /// Where jobs see the tree: an empty folder, one for all checkouts of the project.
    pub shown: PathBuf,
    /// What people should know of it.
    pub notes: Vec<String>,
    /// Its folder in the line of its project; of a copy, that of what it is a copy of.
    place: PathBuf,
    /// `None` for a copy, which its workspace keeps.
    _held: Option<Arc<Held<PathBuf>>>,
}

impl Checkout {
    /// The project's folder.
    pub fn root(&self) -> PathBuf {
        self.tree.join(&self.folder)
    }

    /// Tells whether another checkout of the project is there after this one, or any is being laid: its files may be older than what is made of
    /// this one's from now on.
    pub fn passed(&self) -> Passed {
        let place = self.place.clone();
        Passed(Some(Arc::new(move || is_passed(&place))))
    }
}

fn is_passed(place: &Path) -> bool {
    let own = place.file_name().and_then(|name| number_of(name.to_str()?));
    let (Some(folder), Some(own)) = (place.parent(), own) else { return true };
    // First: what is laid when this has been looked at gets later times.
    let incoming = folder.with_file_name(INCOMING);
    let is_laid = fs::read_dir(incoming).map_or(true, |mut entries| entries.next().is_some());
    is_laid || line(folder).iter().any(|one| one.number > own)
}

/// The checkouts of this machine.
#[derive(Debug)]
pub struct Checkouts {
    root: PathBuf,
    /// Below it the folders where jobs see their project.
    shown: PathBuf,
    packs: Packs,
    /// The folders of those in use.
    holds: Holds<PathBuf>,
}

/// What has to be fetched before a source can be laid.
#[derive(Debug)]
pub struct Wanted {
    /// The source.
    pub manifest: Manifest,
    /// Contents that are not here; sorted, no duplicates.
    pub missing: Vec<(Digest, u64)>,
}

/// What is laid.
#[derive(Debug)]
pub struct Source<'s> {
    /// Its name.
    pub digest: Digest,
    /// Its files.
    pub manifest: &'s Manifest,
    /// Its history, or why it cannot be had; `None` if the sender sent none.
    pub history: Option<Result<History, String>>,
}

/// What is kept of a checkout beside its files. Old fields stay; new ones have defaults.
#[derive(Debug, Default, Serialize, Deserialize)]
struct About {
    folder: PathBuf,
    #[serde(default)]
    notes: Vec<String>,
}

/// The last checkout of a line.
struct Last {
    number: u64,
    source: Digest,
    place: PathBuf,
}

/// The checkout that another one is laid from.
struct Before {
    tree: PathBuf,
    manifest: Manifest,
}

impl Checkouts {
    /// Opens the folders, making them if need be, and removes what was being laid when a process died.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(data: &Path) -> io::Result<Self> {
        let (root, shown) = (data.join("checkouts"), data.join("projects"));
        fs::create_dir_all(&root)?;
        fs::create_dir_all(&shown)?;
        let (root, shown) = (root.canonicalize()?, shown.canonicalize()?);
        worker::workspace::remove_tree(&root.join(INCOMING))?;
        fs::create_dir_all(root.join(INCOMING))?;
        // Earlier releases had one for each source, without a project.
        for entry in fs::read_dir(&root)?.flatten() {
            if entry.path().join("folder").is_file() {
                worker::workspace::remove_tree(&entry.path())?;
            }
        }
        let packs = Packs::open(data.join("packs"))?;
        Ok(Self { root, shown, packs, holds: Holds::default() })
    }

    /// The checkout of a source, if it is the last of its project.
    pub fn find(&self, project: &str, source: Digest) -> Option<Checkout> {
        let name = folder_name(project);
        let find = || {
            let last = self.last(&name).filter(|last| last.source == source)?;
            let text = fs::read(last.place.join(ABOUT)).ok()?;
            let about: About = serde_json::from_slice(&text).ok()?;
            let _ = fs::File::open(last.place.join(ABOUT)).and_then(|file| file.set_modified(SystemTime::now()));
            Some((last.place.clone(), (last.place, about)))
        };
        let (held, (place, about)) = self.holds.hold_found(find)?;
        let shown = self.shown.join(&name);
        fs::create_dir_all(&shown).ok()?;
        let About { folder, notes } = about;
        Some(Checkout { tree: place.join(TREE), folder, shown, notes, place, _held: Some(Arc::new(held)) })
    }

    /// Keeps a checkout by the root of its files; `None` if it is not there.
    pub fn hold(&self, tree: &Path) -> Option<Held<PathBuf>> {
        let place = tree.parent()?.to_owned();
        self.holds.hold_found(|| tree.is_dir().then_some((place, ()))).map(|(held, ())| held)
    }

    fn last(&self, name: &str) -> Option<Last> {
        line(&self.root.join(name)).into_iter().max_by_key(|last| last.number)
    }

    /// What has to be fetched to lay the source whose manifest this is.
    ///
    /// # Errors
    /// A sentence: the manifest cannot be laid.
    pub fn wanted(&self, manifest: &[u8], contents: &Contents) -> Result<Wanted, String> {
        let manifest: Manifest = serde_json::from_slice(manifest)
            .map_err(|error| format!("the source's list of files is damaged: {error}"))?;
        if manifest.version > VERSION {
            return Err(format!(
                "the source's list of files has version {}, this worker knows {VERSION}: update it",
                manifest.version
            ));
        }
        if manifest.files.len() > FILES_MAX {
            return Err(format!("the source has more than {FILES_MAX} files"));
        }
        if !manifest.folder.is_empty() {
            parts(&manifest.folder)?;
        }
        let mut missing = BTreeSet::new();
        for (name, file) in &manifest.files {
            parts(name)?;
            match file {
                File::Plain { digest, bytes } | File::Program { digest, bytes } if !contents.has(*digest) => {
                    missing.insert((*digest, *bytes));
                }
                File::Link { target }
                    if target.len() > LINK_BYTES_MAX || target.is_empty() || target.contains('\0') =>
                {
                    return Err(format!("the link `{name}` has no target that can be laid"));
                }
                _ => {}
            }
        }
        Ok(Wanted { manifest, missing: missing.into_iter().collect() })
    }

    /// Lays a source whose contents are all here, those of its history too. To be called by one at a time for each project.
    ///
    /// # Errors
    /// A sentence.
    pub fn lay(&self, project: &str, source: Source<'_>, contents: &Contents) -> Result<Checkout, String> {
        let failed = |error: io::Error| format!("cannot lay the source {}: {error}", source.digest.short());
        let name = folder_name(project);
        let line = self.root.join(&name);
        let last = self.last(&name);
        let before = last.as_ref().and_then(Before::read);
        let fresh = tempfile::tempdir_in(self.root.join(INCOMING)).map_err(failed)?;
        let tree = fresh.path().join(TREE);
        fs::create_dir(&tree).map_err(failed)?;
        let at = SystemTime::now();
        lay_files(&tree, source.manifest, before.as_ref(), at, contents)?;
        fs::create_dir_all(tree.join(&source.manifest.folder)).map_err(failed)?;
        let notes = self.lay_history(&source, &tree, before.as_ref(), contents);
        set_times(&tree, source.manifest, before.as_ref(), at).map_err(failed)?;
        let about = About { folder: PathBuf::from(&source.manifest.folder), notes };
        write_json(&fresh.path().join(MANIFEST), source.manifest).map_err(failed)?;
        write_json(&fresh.path().join(ABOUT), &about).map_err(failed)?;
        fs::create_dir_all(&line).map_err(failed)?;
        let number = last.map_or(1, |last| last.number + 1);
        fs::rename(fresh.path(), line.join(format!("{number}-{}", source.digest.to_hex()))).map_err(failed)?;
        // It has moved.
        drop(fresh.keep());
        self.find(project, source.digest).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
    }

    /// Makes the `.git`, if there is a history; what people should know of it.
    fn lay_history(
        &self,
        source: &Source<'_>,
        tree: &Path,
        before: Option<&Before>,
        contents: &Contents,
    ) -> Vec<String> {
        let laid = match &source.history {
            None => return Vec::new(),
            Some(Err(fault)) => Err(fault.clone()),
            Some(Ok(history)) => {
                let like = before.map(|before| laying::index_of(&before.tree));
                self.packs.lay(history, tree, like.as_deref(), contents).map(|()| history)
            }
        };
        match laid {
            Ok(history) if history.shallow.is_empty() => Vec::new(),
            Ok(history) => vec![format!("git's history is shallow here: {} commits", history.commits)],
            Err(fault) => vec![format!("git's history is not here: {fault}")],
        }
    }

    /// Removes checkouts that are not the last of their project, old or too many, but for those in use. Blocks.
    pub fn sweep(&self) {
        let mut lasts = Vec::new();
        let mut others = Vec::new();
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let mut line = line(&entry.path());
            line.sort_by_key(|one| one.number);
            if let Some(last) = line.pop() {
                let used = fs::metadata(last.place.join(ABOUT)).and_then(|metadata| metadata.modified());
                lasts.push((used.unwrap_or(SystemTime::UNIX_EPOCH), last.place));
            }
            others.extend(line.into_iter().map(|one| one.place));
        }
        lasts.sort();
        let too_many = lasts.len().saturating_sub(CHECKOUTS_MAX);
        let is_old = |used: &SystemTime| used.elapsed().is_ok_and(|age| age > KEPT);
        let gone = lasts.into_iter().enumerate().filter(|(index, (used, _))| *index < too_many || is_old(used));
        for place in gone.map(|(_, (_, place))| place).chain(others) {
            self.remove(&place);
        }
        self.packs.sweep();
    }

    /// Takes a checkout away, unless it is in use; out of sight first, so that nobody finds half of it.
    fn remove(&self, place: &Path) {
        let (Some(name), Some(line)) = (place.file_name(), place.parent()) else { return };
        let mut away = line.file_name().unwrap_or_default().to_owned();
        away.push("-");
        away.push(name);
        let away = self.root.join(INCOMING).join(away);
        let key = place.to_owned();
        if let Some(Ok(())) = self.holds.unless_held(&key, || fs::rename(place, &away)) {
            let _ = worker::workspace::remove_tree(&away);
        }
    }
}

/// The checkouts of a line; what is in the folder otherwise is none.
fn line(folder: &Path) -> Vec<Last> {
    let of = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let name = name.to_str()?;
        let (_, source) = name.split_once('-')?;
        Some(Last { number: number_of(name)?, source: source.parse().ok()?, place: entry.path() })
    };
    fs::read_dir(folder).into_iter().flatten().flatten().filter_map(of).collect()
}

/// The number of a checkout in its line, by the name of its folder.
fn number_of(name: &str) -> Option<u64> {
    name.split_once('-')?.0.parse().ok()
}

/// The name of a project's folders: its own, if that can be one.
fn folder_name(project: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let begins = project.starts_with(|letter: char| letter.is_ascii_alphanumeric());
    if begins && project.len() <= NAME_BYTES_MAX && project.chars().all(is_plain) {
        return project.to_owned();
    }
    format!("_{}", &blake3::hash(project.as_bytes()).to_hex()[..32])
}

impl Before {
    /// `None` if it cannot be read: then all files are laid anew.
    fn read(last: &Last) -> Option<Self> {
        let file = fs::File::open(last.place.join(MANIFEST)).ok()?;
        let reader = io::Read::take(io::BufReader::new(file), MANIFEST_BYTES_MAX);
        let manifest = serde_json::from_reader(reader).ok()?;
        Some(Self { tree: last.place.join(TREE), manifest })
    }
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let mut writer = io::BufWriter::new(fs::File::create(path)?);
    serde_json::to_writer(&mut writer, value)?;
    io::Write::flush(&mut writer)
}

fn lay_files(
    tree: &Path,
    manifest: &Manifest,
    before: Option<&Before>,
    at: SystemTime,
    contents: &Contents,
) -> Result<(), String> {
    let failed = |name: &str, error: io::Error| format!("cannot lay `{name}`: {error}");
    let mut made = BTreeSet::new();
    let is_link = |file: &File| matches!(file, File::Link { .. });
    let plain = manifest.files.iter().filter(|(_, file)| !is_link(file));
    // Links last: then nothing can be laid through one.
    for (name, file) in plain.chain(manifest.files.iter().filter(|(_, file)| is_link(file))) {
        let path = tree.join(name);
        make_parents(tree, name, &mut made)?;
        let same = before.filter(|before| before.manifest.files.get(name) == Some(file));
        match file {
            File::Link { target } => symlink(target, &path),
            _ if same.is_some_and(|before| fs::hard_link(before.tree.join(name), &path).is_ok()) => Ok(()),
            File::Plain { digest, .. } => contents.lay_fresh(*digest, Use::Plain, &path, at),
            File::Program { digest, .. } => contents.lay_fresh(*digest, Use::Program, &path, at),
        }
        .map_err(|error| failed(name, error))?;
    }
    Ok(())
}

/// Gives links and folders their times: those that they had before if they are as they were.
fn set_times(tree: &Path, manifest: &Manifest, before: Option<&Before>, at: SystemTime) -> io::Result<()> {
    let set = |name: &str, is_same: bool| {
        let earlier = before.filter(|_| is_same);
        let earlier = earlier.and_then(|before| fs::symlink_metadata(before.tree.join(name)).ok()?.modified().ok());
        let unchanged = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: unchanged, last_modification: time_of(earlier.unwrap_or(at)) };
        rustix::fs::utimensat(CWD, tree.join(name), &times, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)
    };
    for (name, file) in &manifest.files {
        if matches!(file, File::Link { .. }) {
            set(name, before.is_some_and(|before| before.manifest.files.get(name) == Some(file)))?;
        }
    }
    let earlier = before.map(|before| folders(&before.manifest)).unwrap_or_default();
    for (folder, names) in folders(manifest) {
        set(folder, earlier.get(folder) == Some(&names))?;
    }
    Ok(())
}

/// The folders of a manifest, with the names of what is in each.
fn folders(manifest: &Manifest) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut folders: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for path in manifest.files.keys() {
        let mut path = path.as_str();
        loop {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            if !folders.entry(folder).or_default().insert(name) || folder.is_empty() {
                break;
            }
            path = folder;
        }
    }
    folders
}

/// Makes the folders that lead to a file; each was made here, or is refused.
fn make_parents(tree: &Path, name: &str, made: &mut BTreeSet<String>) -> Result<(), String> {
    let Some((parent, _)) = name.rsplit_once('/') else { return Ok(()) };
    if made.contains(parent) {
        return Ok(());
    }
    make_parents(tree, parent, made)?;
    fs::create_dir(tree.join(parent)).map_err(|error| format!("cannot lay the folder `{parent}`: {error}"))?;
    made.insert(parent.to_owned());
    Ok(())
}

/// Makes a copy of a checkout that a job may write to.
///
/// # Errors
/// A sentence.
pub fn copy(checkout: &Checkout, to: &Path) -> Result<Checkout, String> {
    let failed = |error: io::Error| format!("cannot copy the checkout to {}: {error}", to.display());
    worker::workspace::remove_tree(to).map_err(failed)?;
    worker::workspace::copy_tree(&checkout.tree, to).map_err(failed)?;
    Ok(Checkout { tree: to.to_owned(), _held: None, ..checkout.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    struct Scratch {
        folder: tempfile::TempDir,
        contents: Contents,
        checkouts: Checkouts,
    }

    fn scratch() -> Scratch {
        let folder = tempfile::tempdir().expect("a folder");
        let contents = Contents::open(folder.path().join("contents"), 1 << 30).expect("it opens");
        let checkouts = Checkouts::open(folder.path()).expect("it opens");
        Scratch { folder, contents, checkouts }
    }

    fn plain(scratch: &Scratch, text: &str) -> File {
        let digest = scratch.contents.put(text.as_bytes()).expect("it is kept");
        File::Plain { digest, bytes: text.len() as u64 }
    }

    fn link(target: &str) -> File {
        File::Link { target: target.to_owned() }
    }

    fn manifest<const N: usize>(files: [(&str, File); N]) -> Manifest {
        let files: BTreeMap<String, File> = files.map(|(name, file)| (name.to_owned(), file)).into();
        Manifest { version: VERSION, files, ..Manifest::default() }
    }

    fn laid(scratch: &Scratch, manifest: &Manifest) -> Result<Checkout, String> {
        laid_of(scratch, "web", manifest)
    }

    fn laid_of(scratch: &Scratch, project: &str, manifest: &Manifest) -> Result<Checkout, String> {
        let text = serde_json::to_vec(manifest).expect("JSON");
        let wanted = scratch.checkouts.wanted(&text, &scratch.contents)?;
        assert_eq!(wanted.missing, []);
        let digest = Digest(*blake3::hash(&text).as_bytes());
        let source = Source { digest, manifest: &wanted.manifest, history: None };
        match scratch.checkouts.find(project, digest) {
            Some(there) => Ok(there),
            None => scratch.checkouts.lay(project, source, &scratch.contents),
        }
    }

    #[test]
    fn a_source_is_laid_once() {
        let scratch = scratch();
        let (a, b) = (plain(&scratch, "a"), plain(&scratch, "b"));
        let manifest = Manifest { folder: "sub".to_owned(), ..manifest([("a", a), ("l", link("a")), ("sub/b", b)]) };
        let checkout = laid(&scratch, &manifest).expect("it is laid");
        assert_eq!(fs::read_to_string(checkout.root().join("b")).expect("a file"), "b");
        assert_eq!(fs::read_link(checkout.tree.join("l")).expect("a link"), Path::new("a"));
        assert_eq!(laid(&scratch, &manifest).expect("it is there").tree, checkout.tree);
        let copied = copy(&checkout, &scratch.folder.path().join("copy")).expect("it is copied");
        fs::write(copied.root().join("b"), "changed").expect("it may be written");
        assert_eq!(fs::read_to_string(checkout.root().join("b")).expect("a file"), "b");
    }

    #[track_caller]
    fn check_refused<const N: usize>(files: impl Fn(&Scratch) -> [(&'static str, File); N], part: &str) {
        let scratch = scratch();
        let outside = scratch.folder.path().join("outside");
        fs::create_dir(&outside).expect("a folder");
        let fault = laid(&scratch, &manifest(files(&scratch))).expect_err("it is refused");
        assert!(fault.contains(part), "{fault}");
        assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 0, "something was laid outside");
        assert_eq!(fs::read_dir(scratch.folder.path().join("checkouts")).expect("a folder").count(), 1, "half is left");
    }

    #[test]
    fn nothing_leads_out() {
        check_refused(|it| [("../outside/a", plain(it, "a"))], "../outside/a");
        check_refused(|it| [("/outside/a", plain(it, "a"))], "/outside/a");
        check_refused(|it| [("d", link("../../../../outside")), ("d/a", plain(it, "a"))], "`d`");
        check_refused(|it| [("d", plain(it, "d")), ("d/a", plain(it, "a"))], "`d`");
        check_refused(|it| [(".git/hooks/post-checkout", plain(it, "a"))], ".git/hooks");
    }

    fn modified(checkout: &Checkout, name: &str) -> SystemTime {
        fs::symlink_metadata(checkout.tree.join(name)).and_then(|metadata| metadata.modified()).expect("a time")
    }

    #[test]
    fn only_what_changed_is_newer() {
        let scratch = scratch();
        let files = |text: &str, more: &[&'static str]| {
            let mut files = manifest([
                ("kept", plain(&scratch, "kept")),
                ("twin", plain(&scratch, "kept")),
                ("changed", plain(&scratch, text)),
                ("folder/a", plain(&scratch, "a")),
                ("link", link("kept")),
            ]);
            files.files.extend(more.iter().map(|name| ((*name).to_owned(), plain(&scratch, "a"))));
            files
        };
        let first = laid(&scratch, &files("1", &[])).expect("it is laid");
        let second = laid(&scratch, &files("2", &[])).expect("it is laid");
        let third = laid(&scratch, &files("1", &["folder/b"])).expect("it is laid");
        assert_eq!([&first.shown, &first.shown], [&second.shown, &third.shown]);
        for name in ["kept", "twin", "link", "folder/a"] {
            assert_eq!(modified(&first, name), modified(&second, name), "{name}");
            assert_eq!(modified(&first, name), modified(&third, name), "{name}");
        }
        assert_eq!(modified(&first, "folder"), modified(&second, "folder"));
        for name in ["changed", "folder"] {
            assert!(modified(&second, name) < modified(&third, name), "{name}");
        }
        assert!(modified(&first, "changed") < modified(&second, "changed"));
        assert_eq!(modified(&third, "folder/b"), modified(&third, "changed"));
        // Another project's time is its own, whatever content it shares.
        let other = laid_of(&scratch, "other", &files("1", &[])).expect("it is laid");
        assert!(modified(&other, "kept") > modified(&third, "kept"));
        assert_eq!(modified(&first, "kept"), modified(&third, "kept"));
    }

    #[test]
    fn a_checkout_is_passed_once_another_is_there_or_is_laid() {
        let scratch = scratch();
        let is_passed = |checkout: &Checkout| checkout.passed().0.is_some_and(|is_passed| is_passed());
        let of = |text: &str| laid(&scratch, &manifest([("a", plain(&scratch, text))])).expect("it is laid");
        let first = of("1");
        let copied = copy(&first, &scratch.folder.path().join("copy")).expect("it is copied");
        assert_eq!([is_passed(&first), is_passed(&copied)], [false, false]);
        let incoming = scratch.folder.path().join("checkouts").join(INCOMING).join("another");
        fs::create_dir(&incoming).expect("a folder");
        assert!(is_passed(&first));
        fs::remove_dir(&incoming).expect("it is there");
        let second = of("2");
        assert_eq!([&first, &copied, &second].map(is_passed), [true, true, false]);
    }

    #[test]
    fn what_is_in_use_stays() {
        let scratch = scratch();
        let of = |number: usize| manifest([("a", plain(&scratch, &number.to_string()))]);
        let mut held = Vec::new();
        for number in 0..CHECKOUTS_MAX + 3 {
            let checkout = laid_of(&scratch, &format!("p{number}"), &of(number)).expect("it is laid");
            let about = checkout.tree.with_file_name(ABOUT);
            let time = SystemTime::now() - Duration::from_secs(3600 - number as u64);
            fs::File::open(about).and_then(|file| file.set_modified(time)).expect("a time");
            held.extend((number == 0).then(|| checkout.clone()));
        }
        // An earlier one of a line goes, unless it is held.
        let earlier = laid_of(&scratch, "p40", &of(1)).expect("it is laid").tree;
        let used = laid_of(&scratch, "p40", &of(2)).expect("it is laid");
        drop(laid_of(&scratch, "p40", &of(3)).expect("it is laid"));
        scratch.checkouts.sweep();
        let count = |project: &str| line(&scratch.checkouts.root.join(project)).len();
        let left: Vec<usize> = (0..6).map(|number| count(&format!("p{number}"))).collect();
        assert_eq!(left, [1, 0, 0, 0, 1, 1]);
        assert!(!earlier.exists() && used.tree.exists());
        drop((held, used));
        scratch.checkouts.sweep();
        assert_eq!(count("p40"), 1);
    }

    #[test]
    fn a_project_of_any_name_has_a_folder_inside() {
        for name in ["web", "a.b-c_1"] {
            assert_eq!(folder_name(name), name);
        }
        for name in ["", "..", ".incoming", "a/b", "-x", "_x", "ü"] {
            assert!(folder_name(name).starts_with('_') && !folder_name(name).contains('/'), "{name}");
        }
    }
}
