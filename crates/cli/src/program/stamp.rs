//! How files looked when something was made of them: by this an unchanged program is known without asking cargo. And what was
//! in them ([`Recipe`]): by this the same program is known in another folder, as a child build finds it in its workspace.
//!
//! A stamp never says "unchanged" of something that changed: a file that changed so shortly before the work began that a
//! later change could have the same time keeps a stamp from being written.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// The form of the file; another is passed over.
const FORM: u32 = 3;
/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A change later than this before the work could be followed by another with the same time.
pub const RACY: Duration = Duration::from_millis(20);
/// Variables that change what cargo and rustc make; those of whole families by their beginning.
const VARIABLES: [&str; 8] =
    ["RUSTFLAGS", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTUP_HOME", "CARGO_HOME", "CARGO_ENCODED_RUSTFLAGS", "PATH", "CC"];
const VARIABLE_FAMILIES: [&str; 5] = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "RUSTC_", "CARGO_UNSTABLE_"];

/// What was made of files that looked like this.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    form: u32,
    /// A digest of the variables of the environment that matter.
    environment: String,
    /// Variables that the sources read (`env!`), which are in the digest too.
    variables: BTreeSet<String>,
    /// Each folder in which a new file may become part of the program, and a digest of the names in it.
    listings: Vec<(PathBuf, String)>,
    /// Each path and how it looked; `None` if there was nothing. Sorted by path.
    files: Vec<(PathBuf, Option<Look>)>,
    /// What was made.
    pub result: String,
}

/// What of a file's stat tells that it did not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Look {
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
    inode: u64,
}

impl Look {
    /// How the file that a path leads to looks. Of a folder only that it is there, and when a file in it came or went.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.size(),
            inode: metadata.ino(),
        })
    }

    fn is_settled(self, began: SystemTime) -> bool {
        let bound = (began - RACY).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let bound = (bound.as_secs().cast_signed(), i64::from(bound.subsec_nanos()));
        self.modified < bound && self.changed < bound
    }
}

/// What something was made of.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Files, and folders in which files may come and go.
    pub paths: BTreeSet<PathBuf>,
    /// Folders whose names matter.
    pub folders: BTreeSet<PathBuf>,
    /// Variables of the environment, beside those that always matter.
    pub variables: BTreeSet<String>,
    /// Paths that were written while it was made, and a moment after that at which they held again what they held before.
    pub same_at: BTreeMap<PathBuf, SystemTime>,
}

impl Stamp {
    /// The stamp of these, looked at now. `None` if one of the files changed after `began`, or just before; one of `same_at`,
    /// after its moment, or just before.
    #[must_use]
    pub fn of(made: Made, began: SystemTime, result: String) -> Option<Self> {
        let Made { paths, folders, variables, same_at } = made;
        let files: Vec<_> =
            paths.into_iter().map(|path| (Look::of(&path), path)).map(|(look, path)| (path, look)).collect();
        let is_settled = files.iter().all(|(path, look)| {
            let moment = same_at.get(path).copied().unwrap_or(began);
            look.is_none_or(|look| look.is_settled(moment))
        });
        is_settled.then(|| {
            let listings =
                folders.into_iter().map(|folder| (listing(&folder), folder)).map(|(names, folder)| (folder, names));
            let environment = environment(&variables);
            Self { form: FORM, environment, variables, listings: listings.collect(), files, result }
        })
    }

    /// The stamp kept at `path`, if every file looks as it did and the environment is the same.
    #[must_use]
    pub fn unchanged(path: &Path) -> Option<Self> {
        if fs::metadata(path).ok()?.len() > FILE_BYTES_MAX {
            return None;
        }
        let stamp: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let is_same = stamp.form == FORM
            && stamp.environment == environment(&stamp.variables)
            && stamp.listings.iter().all(|(folder, names)| listing(folder) == *names)
            && stamp.files.iter().all(|(path, look)| Look::of(path) == *look);
        is_same.then_some(stamp)
    }

    /// Keeps the stamp at `path`, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&self, path: &Path) -> io::Result<()> {
        keep(self, path)
    }

    /// The variables of the environment that the sources read.
    pub fn variables(&self) -> &BTreeSet<String> {
        &self.variables
    }

    /// The files among the paths.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }
}

/// What something was made of, by content: holds in any folder that has the same files.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    form: u32,
    environment: String,
    variables: BTreeSet<String>,
    /// Folders below the root, and a digest of the names in each.
    listings: Vec<(PathBuf, String)>,
    /// Files below the root, each with the digest of its text; `None` if there was nothing. Folders are left out.
    inside: Vec<(PathBuf, Option<String>)>,
    /// What lies elsewhere, and how it looked.
    outside: Vec<(PathBuf, Option<Look>)>,
    /// What was made.
    pub result: String,
}

/// The largest file whose text a recipe holds; with a larger one there is none.
const RECIPE_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

impl Recipe {
    /// The recipe behind a stamp that holds at this moment. `None` if a file is too large, or no file.
    #[must_use]
    pub fn of(stamp: &Stamp, root: &Path) -> Option<Self> {
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for (path, look) in &stamp.files {
            match path.strip_prefix(root) {
                Ok(_) if path.is_dir() => {}
                Ok(below) => inside.push((below.to_owned(), contents(path).ok()?)),
                Err(_) => outside.push((path.clone(), *look)),
            }
        }
        let below =
            |(folder, names): &(PathBuf, String)| Some((folder.strip_prefix(root).ok()?.to_owned(), names.clone()));
        Some(Self {
            form: FORM,
            environment: stamp.environment.clone(),
            variables: stamp.variables.clone(),
            listings: stamp.listings.iter().map(below).collect::<Option<_>>()?,
            inside,
            outside,
            result: stamp.result.clone(),
        })
    }

    /// The recipe kept at `path`, or one kept there before it, if the files below `root` and all else are the same.
    #[must_use]
    pub fn unchanged(path: &Path, root: &Path) -> Option<Self> {
        (0..RECIPES_KEPT).find_map(|age| Self::unchanged_at(&aged(path, age), root))
    }

    fn unchanged_at(path: &Path, root: &Path) -> Option<Self> {
        if fs::metadata(path).ok()?.len() > FILE_BYTES_MAX {
            return None;
        }
        let recipe: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let is_same = recipe.form == FORM
            && recipe.environment == environment(&recipe.variables)
            && recipe.listings.iter().all(|(folder, names)| listing(&root.join(folder)) == *names)
            && recipe.outside.iter().all(|(path, look)| Look::of(path) == *look)
            && recipe.inside.iter().all(|(path, text)| contents(&root.join(path)).is_ok_and(|found| found == *text));
        is_same.then_some(recipe)
    }

    /// Keeps the recipe at `path`, whole or not at all; those kept there before it stay, so that nothing is done again for who goes to and fro between branches.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        let is_this = |age: &usize| fs::read(aged(path, *age)).is_ok_and(|there| there == text);
        let freed = (0..RECIPES_KEPT).find(is_this).unwrap_or(RECIPES_KEPT - 1);
        for age in (0..freed).rev() {
            match fs::rename(aged(path, age), aged(path, age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        keep(self, path)
    }
}

/// The most recipes that are kept of one program.
const RECIPES_KEPT: usize = 8;

/// Where a recipe is kept that was at `path` so many recipes ago.
fn aged(path: &Path, age: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    if age > 0 {
        name.push(format!("~{age}"));
    }
    name.into()
}

fn keep(what: &impl Serialize, path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder)?;
    fs::write(file.path(), serde_json::to_vec(what)?)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// What was at a path: a digest of a file's text or of the names in a folder, `None` if there was nothing.
///
/// # Errors
/// If it cannot be read, or is larger than 16 MiB.
pub fn held(path: &Path) -> io::Result<Option<String>> {
    if path.is_dir() { Ok(Some(listing(path))) } else { contents(path) }
}

/// Whether what is at a path may have changed since this moment, or just before.
pub fn may_have_changed(path: &Path, since: SystemTime) -> bool {
    Look::of(path).is_some_and(|look| !look.is_settled(since))
}

/// The digest of a file's text; `None` if there is nothing.
fn contents(path: &Path) -> io::Result<Option<String>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_file() || metadata.len() > RECIPE_FILE_BYTES_MAX => {
            return Err(io::Error::other("no file, or a large one"));
        }
        Ok(_) => {}
    }
    Ok(Some(blake3::hash(&fs::read(path)?).to_hex().to_string()))
}

/// What cargo, git and we ourselves make in a package's folder: no sources of it.
pub const NO_SOURCES: [&str; 4] = ["target", ".sdk", ".git", ".gitignore"];

/// A digest of the names in a folder, but for what is made there; that of nothing if it is not there.
fn listing(folder: &Path) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<OsString> = entries.map(|entry| entry.file_name()).collect();
    names.retain(|name| {
        // Editors and cargo write beside a file before they replace it.
        let is_passing = name.as_encoded_bytes().starts_with(b".sdk-") || name == "Cargo.lock";
        !is_passing && !NO_SOURCES.iter().any(|other| name == other)
    });
    names.sort();
    let mut hasher = blake3::Hasher::new();
    for name in names {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_encoded_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

fn environment(read: &BTreeSet<String>) -> String {
    let matters = |name: &str| {
        VARIABLES.contains(&name)
            || VARIABLE_FAMILIES.iter().any(|family| name.starts_with(family))
            || read.contains(name)
    };
    let mut variables: Vec<_> = std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(matters)).collect();
    variables.sort();
    let mut hasher = blake3::Hasher::new();
    for (name, value) in variables {
        for part in [name, value] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_encoded_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// The variables of the environment that a crate reads while it is compiled (`env!`, `option_env!`), as rustc's dep-info
/// says: `# env-dep:NAME=VALUE`, or without a value if there was none. Those that cargo sets itself are left out.
#[must_use]
pub fn variables_read(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| line.strip_prefix("# env-dep:"));
    let names = names.map(|dependency| dependency.split_once('=').map_or(dependency, |(name, _)| name));
    names.filter(|name| !name.starts_with("CARGO") && *name != "OUT_DIR").map(str::to_owned).collect()
}

/// The files that cargo's dep-info (`NAME.d` beside the binary) says a binary was made of. Source: "Dep-info files" in
/// the build cache's page of The Cargo Book: `BINARY: FILE FILE …`, with spaces as `\ `.
#[must_use]
pub fn dep_info(text: &str) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for line in text.lines() {
        let Some((_, list)) = line.split_once(": ") else { continue };
        let mut path = String::new();
        let mut characters = list.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => path.push(characters.next().unwrap_or('\\')),
                ' ' if path.is_empty() => {}
                ' ' => paths.push(PathBuf::from(std::mem::take(&mut path))),
                character => path.push(character),
            }
        }
        if !path.is_empty() {
            paths.push(PathBuf::from(path));
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, SystemTime};

    use super::{Made, Recipe, Stamp, dep_info, variables_read};

    /// Whether a stamp of a file and of one that is missing still holds after `change`.
    fn holds(change: impl Fn(&Path)) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let (file, stamp) = (folder.path().join("file"), folder.path().join("stamp"));
        fs::write(&file, "text").unwrap();
        fs::create_dir(folder.path().join("listed")).unwrap();
        let paths = BTreeSet::from([file, folder.path().join("missing")]);
        // ctime cannot be set: the work is moved forward instead of the file backward.
        let later = SystemTime::now() + Duration::from_secs(1);
        let folders = BTreeSet::from([folder.path().join("listed")]);
        let made = Made {
            paths,
            folders,
            variables: BTreeSet::from(["ROPEWALK_TEST_OF_STAMPS".to_owned()]),
            same_at: BTreeMap::new(),
        };
        Stamp::of(made, later, "made".to_owned()).unwrap().keep(&stamp).unwrap();
        change(folder.path());
        Stamp::unchanged(&stamp).is_some_and(|stamp| stamp.result == "made")
    }

    #[test]
    fn a_stamp_holds_as_long_as_nothing_changes() {
        assert!(holds(|_| {}));
        assert!(holds(|folder| fs::write(folder.join("other"), "x").unwrap()));
        assert!(!holds(|folder| fs::write(folder.join("file"), "longer").unwrap()));
        assert!(!holds(|folder| fs::remove_file(folder.join("file")).unwrap()));
        assert!(!holds(|folder| fs::write(folder.join("missing"), "x").unwrap()));
        assert!(!holds(|folder| fs::write(folder.join("stamp"), "{").unwrap()));
        // A name that is new in a folder of the program; what cargo makes there is none.
        assert!(!holds(|folder| fs::write(folder.join("listed/build.rs"), "x").unwrap()));
        assert!(holds(|folder| fs::create_dir(folder.join("listed/target")).unwrap()));
    }

    /// Whether a recipe of these files holds in another folder with the same ones, after `change`.
    fn holds_elsewhere(change: impl Fn(&Path)) -> bool {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [here.path(), there.path()] {
            fs::create_dir(folder.join("src")).unwrap();
            fs::write(folder.join("src/main.rs"), "fn main() {}").unwrap();
        }
        let paths = ["src/main.rs", "Cargo.lock"].map(|name| here.path().join(name));
        let folders = BTreeSet::from([here.path().join("src")]);
        let made = Made { paths: paths.into(), folders, ..Made::default() };
        let stamp = Stamp::of(made, SystemTime::now() + Duration::from_secs(1), "made".to_owned()).unwrap();
        let kept = here.path().join("recipe");
        Recipe::of(&stamp, here.path()).unwrap().keep(&kept).unwrap();
        change(there.path());
        Recipe::unchanged(&kept, there.path()).is_some_and(|recipe| recipe.result == "made")
    }

    #[test]
    fn a_recipe_holds_wherever_the_same_files_are() {
        assert!(holds_elsewhere(|_| {}));
        assert!(!holds_elsewhere(|folder| fs::write(folder.join("src/main.rs"), "fn main() { }").unwrap()));
        assert!(!holds_elsewhere(|folder| fs::write(folder.join("Cargo.lock"), "").unwrap()));
        assert!(!holds_elsewhere(|folder| fs::write(folder.join("src/lib.rs"), "").unwrap()));
        assert!(!holds_elsewhere(|folder| fs::remove_file(folder.join("src/main.rs")).unwrap()));
    }

    #[test]
    fn variables_of_the_sources_are_found() {
        let text =
            "a: b.rs\n\n# env-dep:CARGO_PKG_VERSION=1\n# env-dep:CHANNEL=beta\n# env-dep:OUT_DIR=/x\n# env-dep:UNSET\n";
        assert_eq!(variables_read(text), BTreeSet::from(["CHANNEL".to_owned(), "UNSET".to_owned()]));
    }

    #[test]
    fn a_change_at_the_time_of_the_work_leaves_no_stamp() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "text").unwrap();
        let paths = BTreeSet::from([folder.path().join("file")]);
        let made = Made { paths, ..Made::default() };
        assert_eq!(Stamp::of(made, SystemTime::now() - Duration::from_secs(1), String::new()), None);
    }

    #[test]
    fn what_was_written_and_holds_the_same_leaves_a_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "text").unwrap();
        let now = SystemTime::now();
        let made = |moment| Made {
            paths: BTreeSet::from([file.clone()]),
            same_at: BTreeMap::from([(file.clone(), moment)]),
            ..Made::default()
        };
        let (before, second) = (now - Duration::from_secs(1), Duration::from_secs(1));
        assert!(Stamp::of(made(now + second), before, String::new()).is_some());
        // It was written again after it had been read.
        assert_eq!(Stamp::of(made(before), before, String::new()), None);
    }

    #[test]
    fn dep_info_is_read() {
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(dep_info("/t/a: /x/b.rs /x/c\\ d.rs\n"), paths(&["/x/b.rs", "/x/c d.rs"]));
        assert_eq!(dep_info("/t/a:\n"), paths(&[]));
    }
}
