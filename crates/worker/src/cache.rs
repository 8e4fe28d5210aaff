//! Caches: directories kept across builds under a key, restored before the first step and saved after a success.
//!
//! An entry is one archive of all paths of one `cache` item. Names in it begin with the path's index, so that it fits
//! wherever the workspace and the home directory are. It keeps times, since build tools go by them. In a directory
//! that is not the job's own (the user's tree, the user's home) nothing that is there is ever replaced.

use std::path::{Component, Path, PathBuf};

use graph::{Digest, Trust};

use crate::archive::{self, ArchiveFault, ArchiveWriter, Bounds, Existing, Links, Times, Unpacking};
use crate::depot::{CacheEntry, CacheSaved, CacheScope, Depot, DepotError};
use crate::files::{self, Directories, FilesFault};
use crate::patterns::{PatternFault, Patterns};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// The most files, links and directories of one entry.
pub const FILES_MAX: usize = 2_000_000;

/// The most bytes of one entry.
pub const BYTES_MAX: u64 = 64 << 30;

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
    /// The home directory of the steps; `None` if they have none.
    pub home: Option<PathBuf>,
    /// Whether the home directory is the job's own.
    pub home_owner: Owner,
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
    /// The steps have no home directory.
    #[error("`{path}` cannot be cached: there is no home directory")]
    NoHome {
        /// As written.
        path: String,
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
    /// The archive was refused.
    #[error(transparent)]
    Archive(#[from] ArchiveFault),
    /// Storage refused.
    #[error(transparent)]
    Depot(#[from] DepotError),
}

/// What was found under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The key's own entry: nothing is to be saved.
    Exact,
    /// The newest entry of a prefix, by its key.
    Prefix(String),
    /// Nothing.
    Missed,
}

/// Where one path is: the directory it is relative to, and the rest.
struct Located<'p> {
    root: PathBuf,
    owner: Owner,
    path: &'p str,
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

    /// Finds and unpacks an entry.
    ///
    /// # Errors
    /// [`CacheFault`]; what was unpacked before stays.
    pub fn restore(&self, trust: Trust, places: &Places, depot: &dyn Depot) -> Result<Restored, CacheFault> {
        self.check_key()?;
        let located = self.located(places)?;
        let Some(entry) = depot.find_cache(&self.scope(trust), &self.key, &self.restore)? else {
            return Ok(Restored::Missed);
        };
        let bounds = Bounds { files_max: FILES_MAX as u64, bytes_max: BYTES_MAX };
        for owner in [Owner::Job, Owner::User] {
            if !located.iter().any(|located| located.owner == owner) {
                continue;
            }
            let existing = match owner {
                Owner::Job => Existing::Replaced,
                Owner::User => Existing::Kept,
            };
            let unpacking = Unpacking { bounds, times: Times::Kept, links: Links::Any, existing };
            let place_of = |name: &Path| {
                let (index, rest) = indexed(name)?;
                let located = located.get(index).filter(|located| located.owner == owner)?;
                Some((located.root.as_path(), Path::new(located.path).join(rest)))
            };
            archive::unpack(depot.open(entry.digest)?, unpacking, &place_of)?;
        }
        match entry.key == self.key {
            true => Ok(Restored::Exact),
            false => Ok(Restored::Prefix(entry.key)),
        }
    }

    /// Packs the paths and saves them under the key, unless it has an entry.
    ///
    /// # Errors
    /// [`CacheFault`].
    pub fn save(
        &self,
        trust: Trust,
        places: &Places,
        scratch: &Path,
        depot: &dyn Depot,
    ) -> Result<CacheSaved, CacheFault> {
        self.check_key()?;
        let bounds = Bounds { files_max: FILES_MAX as u64, bytes_max: BYTES_MAX };
        let mut archive = ArchiveWriter::new(scratch, Times::Kept, Links::Any, bounds);
        let mut is_empty = true;
        for (index, located) in self.located(places)?.iter().enumerate() {
            let patterns = Patterns::literal(Path::new(located.path));
            for found in files::find(&located.root, &patterns, Directories::Taken, FILES_MAX)? {
                let rest = found.path.strip_prefix(located.path).unwrap_or(&found.path);
                archive.add(&Path::new(&index.to_string()).join(rest), &found)?;
                is_empty = false;
            }
        }
        if is_empty {
            return Err(CacheFault::Nothing);
        }
        let (digest, bytes, _) = archive.put(depot)?;
        Ok(depot.save_cache(&self.scope(trust), &CacheEntry { key: self.key.clone(), digest, bytes })?)
    }
}

fn locate<'p>(written: &'p str, places: &Places) -> Result<Located<'p>, CacheFault> {
    let (root, owner, path) = match written.strip_prefix("~/") {
        None => (places.workspace.clone(), places.workspace_owner, written),
        Some(path) => {
            let home = places.home.as_ref().ok_or_else(|| CacheFault::NoHome { path: written.to_owned() })?;
            (home.clone(), places.home_owner, path)
        }
    };
    let mut components = Path::new(path).components().filter(|component| *component != Component::CurDir).peekable();
    let is_whole_root = components.peek().is_none();
    if is_whole_root || !components.all(|component| matches!(component, Component::Normal(_))) {
        return Err(CacheFault::Path { path: written.to_owned() });
    }
    Ok(Located { root, owner, path: path.trim_start_matches("./").trim_end_matches('/') })
}

/// Splits `3/some/path` into 3 and `some/path`.
fn indexed(name: &Path) -> Option<(usize, &Path)> {
    let mut components = name.components();
    let index = components.next()?.as_os_str().to_str()?.parse().ok()?;
    Some((index, components.as_path()))
}
