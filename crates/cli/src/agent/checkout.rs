//! Checkouts of sources: a folder for each source digest, laid once, whole or not at all, and then never written to. Jobs see it
//! below their overlays; who works in place gets a copy.
//!
//! Nothing of a manifest is believed: names stay inside, nothing is laid through a link, and links are laid last.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use api::source::{FILES_MAX, File, Manifest, VERSION};
use graph::Digest;

use super::content::{Contents, Use};
use super::source::parts;

/// How many checkouts that nothing uses are kept.
pub const CHECKOUTS_MAX: usize = 32;

/// A checkout that nothing used for so long goes, however few there are.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The longest target of a link.
const LINK_BYTES_MAX: usize = 4095;

const INCOMING: &str = ".incoming";
const TREE: &str = "tree";
const FOLDER: &str = "folder";

/// A checkout that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// The root of its files.
    pub tree: PathBuf,
    /// The project's folder in it, relative; empty if it is the root.
    pub folder: PathBuf,
}

impl Checkout {
    /// The project's folder.
    pub fn root(&self) -> PathBuf {
        self.tree.join(&self.folder)
    }
}

/// The checkouts of this machine.
#[derive(Debug)]
pub struct Checkouts {
    root: PathBuf,
}

/// What has to be fetched before a source can be laid.
#[derive(Debug)]
pub struct Wanted {
    /// The source.
    pub manifest: Manifest,
    /// Contents that are not here; sorted, no duplicates.
    pub missing: Vec<(Digest, u64)>,
}

impl Checkouts {
    /// Opens the folder, making it if need be, and removes what was being laid when a process died.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        let root = root.canonicalize()?;
        worker::workspace::remove_tree(&root.join(INCOMING))?;
        fs::create_dir_all(root.join(INCOMING))?;
        Ok(Self { root })
    }

    /// The checkout of a source, if it is there.
    pub fn find(&self, source: Digest) -> Option<Checkout> {
        let place = self.root.join(source.to_hex());
        let folder = fs::read_to_string(place.join(FOLDER)).ok()?;
        let _ = fs::File::open(place.join(FOLDER)).and_then(|file| file.set_modified(SystemTime::now()));
        Some(Checkout { tree: place.join(TREE), folder: folder.into() })
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

    /// Lays a source whose contents are all here.
    ///
    /// # Errors
    /// A sentence.
    pub fn lay(&self, source: Digest, manifest: &Manifest, contents: &Contents) -> Result<Checkout, String> {
        if let Some(there) = self.find(source) {
            return Ok(there);
        }
        let failed = |error: io::Error| format!("cannot lay the source {}: {error}", source.short());
        let fresh = tempfile::tempdir_in(self.root.join(INCOMING)).map_err(failed)?;
        let tree = fresh.path().join(TREE);
        fs::create_dir(&tree).map_err(failed)?;
        lay_files(&tree, manifest, contents)?;
        fs::create_dir_all(tree.join(&manifest.folder)).map_err(failed)?;
        // Last, since this is what says that all is there.
        fs::write(fresh.path().join(FOLDER), &manifest.folder).map_err(failed)?;
        let place = self.root.join(source.to_hex());
        let fresh = fresh.keep();
        if let Err(error) = fs::rename(&fresh, &place) {
            let _ = worker::workspace::remove_tree(&fresh);
            // Somebody else may have laid it meanwhile.
            return self.find(source).ok_or_else(|| failed(error));
        }
        self.find(source).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
    }

    /// Removes checkouts that are old or too many, but for those in use.
    pub fn sweep(&self, in_use: &BTreeSet<Digest>) {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let digest = entry.file_name().to_str().and_then(|name| name.parse::<Digest>().ok());
            if digest.is_some_and(|digest| !in_use.contains(&digest)) {
                let used = fs::metadata(entry.path().join(FOLDER)).and_then(|metadata| metadata.modified());
                found.push((used.unwrap_or(SystemTime::UNIX_EPOCH), entry.path()));
            }
        }
        found.sort();
        let too_many = found.len().saturating_sub(CHECKOUTS_MAX);
        for (index, (used, path)) in found.into_iter().enumerate() {
            let is_old = used.elapsed().is_ok_and(|age| age > KEPT);
            if index >= too_many && !is_old {
                break;
            }
            // Out of sight first: nobody finds half of it.
            let away = self.root.join(INCOMING).join(path.file_name().unwrap_or_default());
            if fs::rename(&path, &away).is_ok() {
                let _ = worker::workspace::remove_tree(&away);
            }
        }
    }
}

fn lay_files(tree: &Path, manifest: &Manifest, contents: &Contents) -> Result<(), String> {
    let failed = |name: &str, error: io::Error| format!("cannot lay `{name}`: {error}");
    let mut made = BTreeSet::new();
    let is_link = |file: &File| matches!(file, File::Link { .. });
    let plain = manifest.files.iter().filter(|(_, file)| !is_link(file));
    // Links last: then nothing can be laid through one.
    for (name, file) in plain.chain(manifest.files.iter().filter(|(_, file)| is_link(file))) {
        let path = tree.join(name);
        make_parents(tree, name, &mut made)?;
        match file {
            File::Plain { digest, .. } => contents.lay(*digest, Use::Plain, &path),
            File::Program { digest, .. } => contents.lay(*digest, Use::Program, &path),
            File::Link { target } => symlink(target, &path),
        }
        .map_err(|error| failed(name, error))?;
    }
    Ok(())
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
    Ok(Checkout { tree: to.to_owned(), folder: checkout.folder.clone() })
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
        let checkouts = Checkouts::open(folder.path().join("checkouts")).expect("it opens");
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
        let text = serde_json::to_vec(manifest).expect("JSON");
        let wanted = scratch.checkouts.wanted(&text, &scratch.contents)?;
        assert_eq!(wanted.missing, []);
        scratch.checkouts.lay(Digest(*blake3::hash(&text).as_bytes()), &wanted.manifest, &scratch.contents)
    }

    #[test]
    fn a_source_is_laid_once() {
        let scratch = scratch();
        let (a, b) = (plain(&scratch, "a"), plain(&scratch, "b"));
        let manifest = Manifest { folder: "sub".to_owned(), ..manifest([("a", a), ("l", link("a")), ("sub/b", b)]) };
        let checkout = laid(&scratch, &manifest).expect("it is laid");
        assert_eq!(fs::read_to_string(checkout.root().join("b")).expect("a file"), "b");
        assert_eq!(fs::read_link(checkout.tree.join("l")).expect("a link"), Path::new("a"));
        assert_eq!(laid(&scratch, &manifest), Ok(checkout.clone()));
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

    #[test]
    fn what_is_in_use_stays() {
        let scratch = scratch();
        let sources: Vec<Digest> = (0..CHECKOUTS_MAX + 3)
            .map(|number| {
                let manifest = manifest([("a", plain(&scratch, &number.to_string()))]);
                laid(&scratch, &manifest).expect("it is laid");
                Digest(*blake3::hash(&serde_json::to_vec(&manifest).expect("JSON")).as_bytes())
            })
            .collect();
        for (age, source) in sources.iter().enumerate() {
            let file = scratch.checkouts.root.join(source.to_hex()).join(FOLDER);
            let time = SystemTime::now() - Duration::from_secs(3600 - age as u64);
            fs::File::open(file).and_then(|file| file.set_modified(time)).expect("a time");
        }
        scratch.checkouts.sweep(&BTreeSet::from([sources[0]]));
        let left: Vec<bool> = sources.iter().map(|source| scratch.checkouts.find(*source).is_some()).collect();
        assert_eq!(left[..4], [true, false, false, true]);
    }
}
