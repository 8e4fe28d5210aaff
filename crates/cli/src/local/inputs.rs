//! Digests of the files that jobs declare as inputs. The tree is listed and looked at once, at the state of the start;
//! again only for jobs that work in the tree itself after another such job has run.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use graph::{Digest, Timestamp, WorkspaceKind};
use tokio::sync::Mutex;
use worker::patterns::Patterns;
use worker::tree::{Content, Kind, StatCache, Tree};

use super::clock::now;
use crate::shortcut::{self, Stamp};

/// The tree of a build.
pub struct Inputs {
    root: PathBuf,
    cache: PathBuf,
    seen: Mutex<Option<Rc<Seen>>>,
    is_stale: Cell<bool>,
}

/// What the tree held when it was looked at.
pub struct Seen {
    /// Which files there are.
    pub tree: Tree,
    /// What each holds.
    pub contents: Vec<Option<Content>>,
    /// How each looked before it was read.
    pub stamps: Option<Vec<Option<Stamp>>>,
    /// When the look began.
    pub looked_at: Timestamp,
    /// How much of the checkout it is.
    pub extent: Extent,
}

/// How much of a checkout is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// The project's folder, which globs are about.
    Folder,
    /// The whole checkout, which is what steps see.
    Checkout,
}

impl Inputs {
    /// The tree at `root`; `cache` is the file in which stats are kept between builds.
    pub fn new(root: &Path, cache: PathBuf) -> Self {
        Self { root: root.to_path_buf(), cache, seen: Mutex::default(), is_stale: Cell::new(false) }
    }

    /// Says that a job has worked in the tree itself.
    pub fn tree_may_have_changed(&self) {
        self.is_stale.set(true);
    }

    /// Path and digest of each file that `globs` name, sorted by path; of all files that steps see if `None`: also those
    /// of the checkout that lie above the project, whose paths begin with `..`.
    ///
    /// # Errors
    /// A sentence: a glob is wrong, or the tree cannot be read.
    pub async fn digests(
        &self,
        globs: Option<&[String]>,
        workspace: WorkspaceKind,
    ) -> Result<Vec<(String, Digest)>, String> {
        if workspace == WorkspaceKind::InPlace && self.is_stale.get() {
            self.seen.lock().await.take();
            self.is_stale.set(false);
        }
        let extent = if globs.is_some() { Extent::Folder } else { Extent::Checkout };
        let seen = self.seen(extent).await?;
        let places: Vec<usize> = match globs {
            None => (0..seen.tree.paths().len()).collect(),
            Some(globs) => Patterns::new(globs).map_err(|fault| fault.to_string())?.select(seen.tree.paths()),
        };
        let digest = |place: usize| {
            let content = seen.contents[place]?;
            Some((seen.tree.paths()[place].to_string_lossy().into_owned(), of_kind(content)))
        };
        Ok(places.into_iter().filter_map(digest).collect())
    }

    /// The tree as it was last looked at, if anybody did.
    pub fn looked(&self) -> Option<Rc<Seen>> {
        self.seen.try_lock().ok()?.clone()
    }

    /// At least so much of the tree, looked at if it has not been. Thousands of jobs may ask at once: one looks, the others
    /// wait.
    async fn seen(&self, extent: Extent) -> Result<Rc<Seen>, String> {
        let mut slot = self.seen.lock().await;
        if let Some(seen) = slot.as_ref().filter(|seen| seen.extent >= extent) {
            return Ok(Rc::clone(seen));
        }
        let (root, cache) = (self.root.clone(), self.cache.clone());
        let looked = tokio::task::spawn_blocking(move || look(&root, &cache, extent)).await;
        let seen = Rc::new(looked.map_err(|error| error.to_string())??);
        Ok(Rc::clone(slot.insert(seen)))
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
    Ok(Seen { tree, contents, stamps, looked_at, extent })
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
