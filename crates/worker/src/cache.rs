//! Caches: directories kept across builds under a key, restored before the first step and saved after a success.
//!
//! An entry is an index of the files of all paths of one `cache` item ([`crate::chunked`]). Names in it begin with the path's number, so that it fits
//! wherever the workspace and the home directory are. It keeps times, since build tools go by them; beside other sources than those it was saved
//! with all its files look older than these (`ages.rs`). In a directory
//! that is not the job's own (the user's tree, the user's home) nothing that is there is ever replaced.
//!
//! A job's secret never reaches an entry: what the job changed is looked through before any of it is put.
//!
//! Entries of earlier releases are one archive each; they are still restored, and what is saved next is an index.

use std::borrow::Cow;
use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use graph::{Digest, Timestamp, Trust};
use serde::{Deserialize, Serialize};

use crate::archive::{self, ArchiveFault, Bounds, Existing, Links, Times, Unpacking};
use crate::chunked::{self, Base, Content, Equal, Index, Kept, Laid, Laying, Loaded};
use crate::depot::{CacheEntry, CacheSaved, CacheScope, Depot, DepotError, Secrets};
use crate::files::{self, Directories, FilesFault, holds};
use crate::output::now_us;
use crate::patterns::{PatternFault, Patterns, by_bytes};

mod ages;
mod changes;
mod layers;

pub(crate) use self::ages::SAVED_HERE;
pub use self::ages::{Passed, Sources};
pub(crate) use self::layers::{LAYERS, Shown};
pub use self::layers::{Layers, remove_layers};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// The most files, links and directories of one entry.
pub const FILES_MAX: usize = 2_000_000;

/// The most bytes of one entry.
pub const BYTES_MAX: u64 = 64 << 30;

const BOUNDS: Bounds = Bounds { files_max: FILES_MAX as u64, bytes_max: BYTES_MAX };

/// One `cache` item of a job, its key evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// The key.
    pub key: String,
    /// Prefixes tried in order when there is no entry of the key.
    pub restore: Vec<String>,
    /// The paths as the job declares them.
    pub paths: Vec<String>,
}

/// Where a job's cached paths are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The workspace.
    pub workspace: PathBuf,
    /// Whether the workspace is the job's own.
    pub workspace_owner: Owner,
    /// The home directory of the steps.
    pub home: Home,
    /// Where is written down what is known of the user's directories from one job to the next; `None` if nowhere.
    pub records: Option<PathBuf>,
    /// How an entry may be shown below the workspace; `None` if the workspace has no layers.
    pub layers: Option<Layers>,
    /// The tree of the job's sources, beside which files look as old as they may; `None` if they have the times with which they were saved.
    pub sources: Option<Sources>,
}

/// Where a job's `~/` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// A directory, which need not be there.
    At {
        /// A directory that is there.
        root: PathBuf,
        /// The way from it to the home, on which no link is followed; empty if it is the home itself.
        below: String,
        /// Whether the home is the job's own.
        owner: Owner,
    },
    /// Nowhere that lasts, or that is the job's to write; the words say why, and what to do.
    Nowhere(&'static str),
}

impl Home {
    /// A home below a directory.
    #[must_use]
    pub fn at(root: &Path, below: &str, owner: Owner) -> Self {
        Self::At { root: root.to_owned(), below: below.to_owned(), owner }
    }
}

/// Whose a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This job's alone: its files may be replaced.
    Job,
    /// The user's: what is there stays.
    User,
}

/// Why a cache was not restored or saved. Never a reason to fail a job, but for a wrong path.
#[derive(Debug, thiserror::Error)]
pub enum CacheFault {
    /// The key is empty or too long.
    #[error("a cache key has 1 to {KEY_BYTES_MAX} bytes")]
    Key,
    /// A path is not below the workspace or `~/`.
    #[error("`{path}` cannot be cached: paths are relative to the workspace, or begin with `~/`")]
    Path {
        /// As written.
        path: String,
    },
    /// The steps have no home directory that can be cached.
    #[error("`{path}` cannot be cached: {why}")]
    NoHome {
        /// As written.
        path: String,
        /// Why, and what to do.
        why: &'static str,
    },
    /// None of the paths is there.
    #[error("none of its paths is there")]
    Nothing,
    /// The files cannot be read.
    #[error(transparent)]
    Files(#[from] FilesFault),
    /// A path is no path.
    #[error(transparent)]
    Pattern(#[from] PatternFault),
    /// A file holds one of the job's secrets, or is named by one.
    #[error(
        "`{path}` holds one of the job's secrets, which other builds would find there: keep the file out of the cache's paths, \
         or, if the value is none (a user's name, say), give it by `env`"
    )]
    Secret {
        /// The file, without the secret.
        path: String,
    },
    /// The key's own entry is damaged, or a blob of it is gone.
    #[error("{fault}")]
    Damaged {
        /// The entry's digest.
        digest: Digest,
        /// What is wrong with it.
        fault: ArchiveFault,
    },
    /// The archive was refused.
    #[error(transparent)]
    Archive(#[from] ArchiveFault),
    /// Storage refused.
    #[error(transparent)]
    Depot(#[from] DepotError),
}

/// What was found under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The key's own entry: nothing is to be saved.
    Exact,
    /// The newest entry of a prefix, by its key.
    Prefix(String),
    /// Nothing.
    Missed,
    /// Something that could not be restored; the digest of the key's own entry if that is damaged, so that it gives way to what is saved.
    Refused(Option<Digest>),
}

/// A cache that was saved, or was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// What became of it.
    pub saved: CacheSaved,
    /// What its blobs hold.
    pub bytes: u64,
    /// What of that was put now.
    pub put_bytes: u64,
    /// The paths at which nothing was, as the job declares them.
    pub missing: Vec<String>,
}

/// What a restoration leaves for the saving of the same cache.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What was found.
    pub found: Found,
    /// What the entry's blobs hold.
    pub bytes: u64,
    /// The files are not in their places yet: they are these layers, to be shown below the workspace, the topmost first. Nothing if they are.
    pub layers: Vec<PathBuf>,
    /// When it was known which entry there is; `None` if there is none.
    pub looked_up: Option<Timestamp>,
    /// What is known of the files now.
    bases: Vec<Base>,
}

impl Restored {
    /// Nothing was found, and nothing is known.
    #[must_use]
    pub fn nothing() -> Self {
        Self { found: Found::Missed, bytes: 0, layers: Vec::new(), looked_up: None, bases: Vec::new() }
    }
}

impl Restored {
    /// Nothing was restored, for this fault.
    #[must_use]
    pub fn refused(fault: &CacheFault) -> Self {
        let damaged = match fault {
            CacheFault::Damaged { digest, .. } => Some(*digest),
            _ => None,
        };
        Self { found: Found::Refused(damaged), ..Self::nothing() }
    }
}

/// An entry that is restored.
#[derive(Clone, Copy)]
struct Entry<'e> {
    digest: Digest,
    /// Its files, with the times that they get.
    index: &'e Arc<Index>,
    /// By how much these are earlier than those with which it was saved.
    lag_ns: i64,
}

/// Where one path is: the directory it is relative to, and the rest.
struct Located<'p> {
    root: PathBuf,
    is_home: bool,
    owner: Owner,
    path: Cow<'p, str>,
}

impl Cache {
    fn scope(&self, trust: Trust) -> CacheScope {
        let mut hasher = blake3::Hasher::new();
        for path in &self.paths {
            hasher.update(&(path.len() as u64).to_le_bytes());
            hasher.update(path.as_bytes());
        }
        CacheScope { trust, paths: Digest(*hasher.finalize().as_bytes()) }
    }

    fn check_key(&self) -> Result<(), CacheFault> {
        match self.key.is_empty() || self.key.len() > KEY_BYTES_MAX {
            true => Err(CacheFault::Key),
            false => Ok(()),
        }
    }

    fn located<'p>(&'p self, places: &Places) -> Result<Vec<Located<'p>>, CacheFault> {
        self.paths.iter().map(|path| locate(path, places)).collect()
    }

    /// Finds an entry and lays its files.
    ///
    /// # Errors
    /// [`CacheFault`]; what was laid before stays.
    pub fn restore(&self, trust: Trust, places: &Places, depot: &dyn Depot) -> Result<Restored, CacheFault> {
        self.check_key()?;
        let located = self.located(places)?;
        let Some(entry) = depot.find_cache(&self.scope(trust), &self.key, &self.restore)? else {
            return Ok(Restored { bases: self.record(places, &located).base(depot), ..Restored::nothing() });
        };
        let looked_up = Some(Timestamp(i64::try_from(now_us()).unwrap_or(i64::MAX)));
        let (bases, layers) =
            self.restore_entry(entry.digest, places, &located, depot).map_err(|fault| match fault {
                CacheFault::Archive(fault) if entry.key == self.key && fault.is_damage() => {
                    CacheFault::Damaged { digest: entry.digest, fault }
                }
                fault => fault,
            })?;
        let found = if entry.key == self.key { Found::Exact } else { Found::Prefix(entry.key) };
        Ok(Restored { found, bytes: entry.bytes, layers, looked_up, bases })
    }

    /// Lays the files of an entry. What is known of them now, and the layers that they are if they are not in their places yet.
    fn restore_entry(
        &self,
        digest: Digest,
        places: &Places,
        located: &[Located<'_>],
        depot: &dyn Depot,
    ) -> Result<(Vec<Base>, Vec<PathBuf>), CacheFault> {
        let mut layers = Vec::new();
        let bases = match chunked::load(digest, depot)? {
            Loaded::Index(index) => {
                let sources = places.sources.as_ref().filter(|_| located.iter().any(|located| !located.is_home));
                let lag_ns = sources.map_or(0, |sources| sources.lag_ns(digest, &index));
                let index = Arc::new(ages::aged(index, lag_ns));
                let entry = Entry { digest, index: &index, lag_ns };
                let shown = places.layers.as_ref();
                let shown = shown.map(|layers| self.layer(entry, located, layers, depot)).transpose()?;
                match shown.flatten() {
                    Some(shown) => {
                        layers = shown.trees;
                        vec![shown.base]
                    }
                    None => self.lay(entry, places, located, depot)?,
                }
            }
            // Written by a release that kept a cache as one archive.
            Loaded::Other(_) => {
                unpack(digest, located, depot)?;
                Vec::new()
            }
        };
        Ok((bases, layers))
    }

    /// Lays the files of an index, and says what is known of them now.
    fn lay(
        &self,
        entry: Entry<'_>,
        places: &Places,
        located: &[Located<'_>],
        depot: &dyn Depot,
    ) -> Result<Vec<Base>, CacheFault> {
        let Entry { digest, index, lag_ns } = entry;
        // What is written down is of files with the times of their entry.
        let record = if lag_ns == 0 { self.record(places, located) } else { Record::nothing() };
        let before = match record.known {
            Some(known) if known.index == digest => {
                vec![Base { index: Arc::clone(index), since_ns: known.since_ns, unknown: HashSet::new() }]
            }
            _ => record.base(depot),
        };
        let mut laid = Laid::default();
        for (owner, existing) in owners(located) {
            let place_of = |name: &Path| {
                let (index, rest) = indexed(name)?;
                let located = located.get(index).filter(|located| located.owner == owner)?;
                Some((located.root.as_path(), Path::new(&*located.path).join(rest)))
            };
            // A job writes into these files, and a file is not to change with another.
            let (base, content, equal) = (before.first(), Content::Files, Equal::Apart);
            let laying = Laying { bounds: BOUNDS, existing, base, twin: None, content, equal };
            let now = chunked::lay(index, laying, depot, &place_of)?;
            laid.files += now.files;
            laid.kept.extend(now.kept);
        }
        if laid.files == 0 && laid.kept.is_empty() {
            // All of it was there.
            return Ok(before);
        }
        let since_ns = chunked::next_moment_ns();
        if laid.kept.is_empty() {
            record.write(Known { index: digest, since_ns });
        }
        let mut bases = before;
        // What was laid now is known by this one; what was there may be known by the one before.
        bases.push(Base { index: Arc::clone(index), since_ns, unknown: laid.kept });
        Ok(bases)
    }

    /// Keeps what the paths hold under the key, unless it has an entry that could be restored: what has not changed since `restored` is not read. Nothing is kept if
    /// one of these secrets stands in what has.
    ///
    /// # Errors
    /// [`CacheFault`].
    pub fn save(
        &self,
        trust: Trust,
        places: &Places,
        restored: &Restored,
        secrets: &Secrets,
        depot: &dyn Depot,
    ) -> Result<Saved, CacheFault> {
        self.check_key()?;
        let since_ns = chunked::moment_ns();
        let located = self.located(places)?;
        let kept = match self.keep_changes(&located, places, restored, secrets, depot)? {
            Some(kept) => kept,
            None => {
                let found = self.found(&located)?;
                if secrets.mask.is_some() {
                    check_secrets(&chunked::changed(&found, &restored.bases), secrets)?;
                }
                chunked::keep(&found, &restored.bases, BOUNDS, depot)?
            }
        };
        let bytes = kept.stored_bytes();
        let entry = CacheEntry { key: self.key.clone(), digest: kept.digest, bytes, packs: kept.index.packs };
        let refused = match &restored.found {
            Found::Refused(refused) => *refused,
            Found::Exact | Found::Prefix(_) | Found::Missed => None,
        };
        let saved = depot.save_cache(&self.scope(trust), &entry, refused)?;
        self.record(places, &located).write(Known { index: kept.digest, since_ns });
        if let Some(sources) = &places.sources {
            sources.note_saved(kept.digest);
        }
        let is_missing = |located: &Located<'_>| located.root.join(&*located.path).symlink_metadata().is_err();
        let missing = self.paths.iter().zip(&located).filter(|(_, located)| is_missing(located));
        let missing = missing.map(|(path, _)| path.clone()).collect();
        Ok(Saved { saved, bytes, put_bytes: kept.put_bytes + kept.index_bytes, missing })
    }

    /// Keeps a tree that was shown as a layer, by what the job's own layer says of it; `None` if that does not tell enough.
    fn keep_changes(
        &self,
        located: &[Located<'_>],
        places: &Places,
        restored: &Restored,
        secrets: &Secrets,
        depot: &dyn Depot,
    ) -> Result<Option<Kept>, CacheFault> {
        let (Some(layers), [_, ..], [base]) = (&places.layers, &restored.layers[..], &restored.bases[..]) else {
            return Ok(None);
        };
        let Some(changes) = changes::changes(located, layers, &restored.layers) else { return Ok(None) };
        check_secrets(&changes.found.iter().map(|(_, found)| found).collect::<Vec<_>>(), secrets)?;
        match chunked::keep_changes(base, &changes, BOUNDS, depot)? {
            Some(kept) if kept.index.entries.is_empty() => Err(CacheFault::Nothing),
            kept => Ok(kept),
        }
    }

    /// All files of the paths, by their names in an index.
    fn found(&self, located: &[Located<'_>]) -> Result<Vec<(PathBuf, files::Found)>, CacheFault> {
        let mut found = Vec::new();
        for (index, located) in located.iter().enumerate() {
            let patterns = Patterns::literal(Path::new(&*located.path));
            for file in files::find(&located.root, &patterns, Directories::Taken, FILES_MAX)? {
                let rest = file.path.strip_prefix(&*located.path).unwrap_or(&file.path);
                let name = PathBuf::from(index.to_string());
                found.push((if rest.as_os_str().is_empty() { name } else { name.join(rest) }, file));
            }
        }
        if found.is_empty() {
            return Err(CacheFault::Nothing);
        }
        found.sort_by(|(one, _), (two, _)| by_bytes(one, two));
        Ok(found)
    }

    /// What is written down of directories that outlive the job.
    fn record(&self, places: &Places, located: &[Located<'_>]) -> Record {
        let (Some(records), true) = (&places.records, located.iter().all(|located| located.owner == Owner::User))
        else {
            return Record::nothing();
        };
        let mut hasher = blake3::Hasher::new();
        for located in located {
            let place = located.root.join(&*located.path);
            // A descriptor's number says nothing once it is closed.
            if place.starts_with("/proc") {
                return Record::nothing();
            }
            let place = place.into_os_string();
            hasher.update(&(place.len() as u64).to_le_bytes());
            hasher.update(place.as_encoded_bytes());
        }
        let path = records.join(hasher.finalize().to_hex().as_str());
        let known = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Record { path: Some(path), known }
    }
}

/// Looks for secrets in what other builds are to find.
fn check_secrets(files: &[&files::Found], secrets: &Secrets) -> Result<(), CacheFault> {
    let Some(mask) = secrets.mask.as_deref() else { return Ok(()) };
    let is_in = |bytes: &[u8]| mask.is_in_cached(bytes);
    let bytes = files.iter().map(|file| file.metadata.len()).fold(0, u64::saturating_add);
    if bytes > BYTES_MAX {
        return Err(ArchiveFault::TooLarge(BYTES_MAX).into());
    }
    for file in files {
        let in_content = match &file.metadata {
            metadata if metadata.is_symlink() => {
                std::fs::read_link(&file.place).map(|target| is_in(target.as_os_str().as_bytes()))
            }
            metadata if metadata.is_file() => holds(&file.place, &is_in),
            _ => Ok(false),
        };
        let in_content = in_content.map_err(|source| FilesFault::Read { path: file.path.clone(), source })?;
        if in_content || is_in(file.path.as_os_str().as_bytes()) {
            return Err(CacheFault::Secret { path: secrets.hide(file.path.display().to_string()) });
        }
    }
    Ok(())
}

/// Whose files these paths are, and what becomes of files that are there: a job's are replaced, a user's stay.
fn owners(located: &[Located<'_>]) -> impl Iterator<Item = (Owner, Existing)> {
    let all = [(Owner::Job, Existing::Replaced), (Owner::User, Existing::Kept)];
    all.into_iter().filter(|(owner, _)| located.iter().any(|located| located.owner == *owner))
}

/// Unpacks an entry that is one archive.
fn unpack(digest: Digest, located: &[Located<'_>], depot: &dyn Depot) -> Result<(), CacheFault> {
    for (owner, existing) in owners(located) {
        let unpacking = Unpacking { bounds: BOUNDS, times: Times::Kept, links: Links::Any, existing };
        let place_of = |name: &Path| {
            let (index, rest) = indexed(name)?;
            let located = located.get(index).filter(|located| located.owner == owner)?;
            Some((located.root.as_path(), Path::new(&*located.path).join(rest)))
        };
        archive::unpack(depot.open(digest)?, unpacking, &place_of).inspect_err(|_| depot.doubt(digest))?;
    }
    Ok(())
}

/// What is known of a user's directories since the last time that a cache was restored into them or saved from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// They were as this index says,
    index: Digest,
    /// at this moment.
    since_ns: i64,
}

/// Where that is written down.
struct Record {
    path: Option<PathBuf>,
    known: Option<Known>,
}

impl Record {
    /// Nothing is known, and nothing will be.
    fn nothing() -> Self {
        Self { path: None, known: None }
    }

    /// The files as they were known; nothing if their index is gone.
    fn base(&self, depot: &dyn Depot) -> Vec<Base> {
        let Some(known) = self.known else { return Vec::new() };
        match chunked::load(known.index, depot) {
            Ok(Loaded::Index(index)) => {
                vec![Base { index: Arc::new(index), since_ns: known.since_ns, unknown: HashSet::new() }]
            }
            _ => Vec::new(),
        }
    }

    /// Without it the next saving reads all files: no reason to fail.
    fn write(&self, known: Known) {
        let Some(path) = &self.path else { return };
        let write = || {
            let folder = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer(&mut file, &known)?;
            file.persist(path).map_err(|error| error.error).map(drop)
        };
        let _ = write();
    }
}

fn locate<'p>(written: &'p str, places: &Places) -> Result<Located<'p>, CacheFault> {
    let of_home = written.strip_prefix("~/");
    let path = of_home.unwrap_or(written);
    let mut components = Path::new(path).components().filter(|component| *component != Component::CurDir).peekable();
    let is_whole_root = components.peek().is_none();
    if is_whole_root || !components.all(|component| matches!(component, Component::Normal(_))) {
        return Err(CacheFault::Path { path: written.to_owned() });
    }
    let path = path.trim_start_matches("./").trim_end_matches('/');
    let is_home = of_home.is_some();
    match &places.home {
        _ if !is_home => {
            let (root, owner) = (places.workspace.clone(), places.workspace_owner);
            Ok(Located { root, is_home, owner, path: path.into() })
        }
        Home::At { root, below, owner } => {
            let path = if below.is_empty() { path.into() } else { format!("{below}/{path}").into() };
            Ok(Located { root: root.clone(), is_home, owner: *owner, path })
        }
        Home::Nowhere(why) => Err(CacheFault::NoHome { path: written.to_owned(), why }),
    }
}

/// Splits `3/some/path` into 3 and `some/path`.
fn indexed(name: &Path) -> Option<(usize, &Path)> {
    let mut components = name.components();
    let index = components.next()?.as_os_str().to_str()?.parse().ok()?;
    Some((index, components.as_path()))
}

#[cfg(test)]
mod tests;
