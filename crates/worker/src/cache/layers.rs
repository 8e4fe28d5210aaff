//! Entries as layers: a tree that is laid once and shown below the workspaces of many jobs, so that restoring it again costs a mount.
//!
//! A layer is `<folder>/<place>/<index>/tree` with the bytes of its index beside it. The place follows from the paths and from where they
//! are in the repository, the index is the entry's digest. Nobody writes into a tree once it has its name, and steps see it
//! through an overlay only.
//!
//! An entry that differs little from one whose layer is whole has a *thin* layer, `thin-<index>`: what is different, to be shown over the whole one, which
//! a file `over` beside its tree names. So a layer has at most one other below it, and restoring costs what has changed since the whole one was laid.
//! Files that the layer before has already are hard links.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use graph::Digest;
use serde::{Deserialize, Serialize};

use super::{BOUNDS, Cache, CacheFault, Entry, Home, Located, Owner, Places, indexed};
use crate::archive::{ArchiveFault, Existing, refused};
use crate::chunked::{self, Base, Content, Equal, Index, Laying, Loaded};
use crate::depot::Depot;
use crate::workspace;

/// The folder of layers in a worker's data folder.
pub(crate) const LAYERS: &str = "cache-layers";

/// How many layers of a place are kept that no workspace is made of.
const LAYERS_KEPT: usize = 3;

/// What was used so shortly ago stays: a job may be about to take it.
const SPARED: Duration = Duration::from_secs(3600);

/// What nobody used for so long goes, if no workspace is made of it.
const KEPT: Duration = Duration::from_secs(14 * 24 * 3600);

/// Where the layers of a workspace are kept, and how they fit into it.
#[derive(Clone, Debug)]
pub struct Layers {
    /// The worker's folder of layers.
    pub folder: PathBuf,
    /// Where the workspaces are whose manifests name layers.
    pub workspaces: PathBuf,
    /// Where the workspace is for the steps: what is laid for one checkout of a project serves the next one.
    pub shown: PathBuf,
    /// The tree that the layer is shown over; directories that lead to the paths get the modes that they have there.
    pub repository: PathBuf,
    /// The project's folder in it.
    pub prefix: PathBuf,
    /// What the job has changed so far, as an overlay's upper layer.
    pub upper: PathBuf,
    /// What the workspace is made of below that, the topmost first.
    pub lower: Vec<PathBuf>,
}

/// The file beside a layer's tree that says which paths it has, as JSON.
const PATHS: &str = "paths";

/// What names of thin layers begin with: whoever knows none takes none of them for a whole one.
const THIN: &str = "thin-";

/// A thin layer has at most one entry for so many of the tree's.
const THINNESS: usize = 4;

/// How the layers of a place are laid: those that were laid otherwise, as by a release whose directories had no modes, are not in it.
const LAID: &[u8] = b"directories with modes";

/// A layer that is there.
pub(super) struct Layer {
    /// What is to be shown, the topmost first.
    pub trees: Vec<PathBuf>,
    pub base: Base,
}

impl Cache {
    /// The layer of an entry, made if it is not there; `None` if the entry cannot be shown as one: a path lies outside the workspace, or the
    /// job has files there already.
    pub(super) fn layer(
        &self,
        entry: Entry<'_>,
        located: &[Located<'_>],
        layers: &Layers,
        depot: &dyn Depot,
    ) -> Result<Option<Layer>, CacheFault> {
        let Entry { digest, index, lag_ns } = entry;
        let is_in_workspace = |located: &Located<'_>| located.owner == Owner::Job && !located.is_home;
        let is_free = |located: &Located<'_>| {
            fs::symlink_metadata(layers.upper.join(&layers.prefix).join(&*located.path)).is_err()
        };
        if !located.iter().all(|located| is_in_workspace(located) && is_free(located)) {
            return Ok(None);
        }
        let place = layers.folder.join(layers.place(located, lag_ns));
        let whole = place.join(digest.to_hex());
        let thin = place.join(format!("{THIN}{}", digest.to_hex()));
        let base = |since_ns| Base { index: std::sync::Arc::clone(index), since_ns, unknown: Default::default() };
        if let Some(trees) = take(&whole).or_else(|| take(&thin)) {
            return Ok(Some(Layer { trees, base: base(chunked::moment_ns()) }));
        }
        fs::create_dir_all(&place).map_err(refused(&place))?;
        let fresh = place.join(fresh_name());
        let made = layers.make(&fresh, index, located, &place, depot);
        // Somebody else may have made it meanwhile.
        let placed = made.and_then(|()| {
            let name = if fresh.join(OVER).exists() { &thin } else { &whole };
            let renamed = fs::rename(&fresh, name);
            take(name).ok_or_else(|| refused(name)(renamed.err().unwrap_or_else(gone)).into())
        });
        let _ = workspace::remove_tree(&fresh);
        let trees = placed?;
        sweep(layers);
        Ok(Some(Layer { trees, base: base(chunked::next_moment_ns()) }))
    }
}

/// An entry that a layer shows: what another worker needs to show it, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// Its index.
    pub index: Digest,
    /// Its paths, relative to the project's folder.
    pub paths: Vec<String>,
}

impl Shown {
    /// What the layer of this tree shows, and how many trees it consists of; `None` if the tree is that of no layer, or does not say.
    pub(crate) fn of(tree: &Path) -> Option<(Self, usize)> {
        let layer = tree.parent()?;
        let name = layer.file_name()?.to_str()?;
        let (name, n_trees) = name.strip_prefix(THIN).map_or((name, 1), |name| (name, 2));
        let paths = serde_json::from_slice(&fs::read(layer.join(PATHS)).ok()?).ok()?;
        Some((Self { index: name.parse().ok()?, paths }, n_trees))
    }

    /// Its trees on this worker, the topmost first, made if they are not there.
    ///
    /// # Errors
    /// [`CacheFault`].
    pub(crate) fn trees(&self, layers: &Layers, depot: &dyn Depot) -> Result<Vec<PathBuf>, CacheFault> {
        let cache = Cache { key: String::new(), restore: Vec::new(), paths: self.paths.clone() };
        let places = Places {
            workspace: layers.repository.join(&layers.prefix),
            workspace_owner: Owner::Job,
            home: Home::Nowhere("layers are of the workspace alone"),
            records: None,
            layers: None,
            sources: None,
        };
        let located = cache.located(&places)?;
        let Loaded::Index(index) = chunked::load(self.index, depot)? else {
            return Err(ArchiveFault::Damaged(format!("the index {}", self.index)).into());
        };
        let entry = Entry { digest: self.index, index: &std::sync::Arc::new(index), lag_ns: 0 };
        let layer = cache.layer(entry, &located, layers, depot)?;
        // Nothing is in the way of a workspace that was just made.
        layer.map(|layer| layer.trees).ok_or(CacheFault::Nothing)
    }
}

/// Something was taken away while it was looked at.
fn gone() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Layers {
    /// The name of the place of these paths, and of layers whose times lag behind those of their entries by so much.
    fn place(&self, located: &[Located<'_>], lag_ns: i64) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(LAID);
        if lag_ns != 0 {
            hasher.update(&lag_ns.to_le_bytes());
        }
        let paths = located.iter().map(|located| Path::new(&*located.path));
        for path in [self.shown.as_path(), self.prefix.as_path()].into_iter().chain(paths) {
            let path = path.as_os_str().as_encoded_bytes();
            hasher.update(&(path.len() as u64).to_le_bytes());
            hasher.update(path);
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }

    fn make(
        &self,
        fresh: &Path,
        index: &Index,
        located: &[Located<'_>],
        place: &Path,
        depot: &dyn Depot,
    ) -> Result<(), CacheFault> {
        let tree = fresh.join("tree");
        fs::create_dir_all(&tree).map_err(refused(&tree))?;
        let mut made = workspace::Made::default();
        for located in located {
            let path = self.prefix.join(&*located.path);
            workspace::make_parents(&tree, &self.repository, &path, &mut made).map_err(refused(&tree))?;
        }
        let root = tree.as_path();
        let place_of = |name: &Path| {
            let (number, rest) = indexed(name)?;
            Some((root, self.prefix.join(&*located.get(number)?.path).join(rest)))
        };
        let whole = newest(place, None);
        if let Some(whole) = &whole {
            // It stays while something is laid over it; if it has gone, that is seen at the end.
            let _ = touch(&place.join(&whole.name).join("index"));
        }
        let difference = whole.as_ref().and_then(|whole| chunked::difference(index, &whole.index));
        match (&whole, difference) {
            (Some(whole), Some(different)) if different.len() <= index.entries.len() / THINNESS => {
                let twin = newest(place, Some(&whole.name));
                let entries = different.iter().map(AsRef::as_ref);
                chunked::lay_entries(index, entries, laying(Content::Change, twin.as_ref()), depot, &place_of)?;
                let path = fresh.join(OVER);
                fs::write(&path, whole.name.as_encoded_bytes()).map_err(refused(&path))?;
            }
            _ => drop(chunked::lay(index, laying(Content::Files, whole.as_ref()), depot, &place_of)?),
        }
        made.end().map_err(refused(&tree))?;
        let paths: Vec<&str> = located.iter().map(|located| &*located.path).collect();
        let path = fresh.join(PATHS);
        fs::write(&path, serde_json::to_vec(&paths).unwrap_or_default()).map_err(refused(&path))?;
        let path = fresh.join("index");
        Ok(fs::write(&path, index.encode()).map_err(refused(&path))?)
    }
}

/// The file in a thin layer's folder that names the layer which it is laid over.
const OVER: &str = "over";

/// What a thin layer is laid over, in the same place; `None` of a whole one.
fn below(layer: &Path) -> Option<OsString> {
    let name = fs::read(layer.join(OVER)).ok()?;
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_hexdigit);
    is_name.then(|| OsString::from_vec(name))
}

/// The trees of a layer, the topmost first, and says that they are in use now; `None` if it is not there, or not what it is laid over.
fn take(layer: &Path) -> Option<Vec<PathBuf>> {
    touch(&layer.join("index")).ok()?;
    let mut trees = vec![layer.join("tree")];
    if layer.join(OVER).exists() {
        let below = layer.with_file_name(below(layer)?);
        touch(&below.join("index")).ok()?;
        trees.push(below.join("tree"));
    }
    Some(trees)
}

/// Says that a layer is in use now; an error if it is not there.
fn touch(index: &Path) -> io::Result<()> {
    fs::File::open(index)?.set_modified(SystemTime::now())
}

fn fresh_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("fresh-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The layers of a place with when they were used last, the newest first.
fn layers_of(place: &Path) -> Vec<(SystemTime, PathBuf)> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let mut layers: Vec<_> = entries
        .filter_map(|entry| {
            let used = fs::metadata(entry.path().join("index")).or_else(|_| entry.metadata()).ok()?.modified().ok()?;
            Some((used, entry.path()))
        })
        .collect();
    layers.sort_by(|one, two| two.cmp(one));
    layers
}

/// A layer of a place.
struct There {
    name: OsString,
    tree: PathBuf,
    index: Index,
}

fn laying(content: Content, twin: Option<&There>) -> Laying<'_> {
    let twin = twin.map(|twin| (twin.tree.as_path(), &twin.index));
    Laying { bounds: BOUNDS, existing: Existing::Replaced, base: None, twin, content, equal: Equal::Linked }
}

/// The layer of a place that was used last, of those that are laid over another, or of whole ones.
fn newest(place: &Path, over: Option<&OsStr>) -> Option<There> {
    layers_of(place).into_iter().find_map(|(_, layer)| {
        let name = layer.file_name()?.to_owned();
        if name.as_encoded_bytes().starts_with(b"fresh-") || below(&layer).as_deref() != over {
            return None;
        }
        let index = Index::decode(&fs::read(layer.join("index")).ok()?).ok()?;
        Some(There { name, tree: layer.join("tree"), index })
    })
}

/// Takes away layers that nobody uses: those beyond the newest of each place, and old ones. What a kept workspace is made of stays.
fn sweep(layers: &Layers) {
    collect(&layers.folder, &layers.workspaces, |number, age| age > SPARED && (number >= LAYERS_KEPT || age > KEPT));
}

/// Takes away all layers of a worker's data folder that no kept workspace is made of. Nothing else may run there. What cannot be taken
/// away stays until the next sweep.
pub fn remove_layers(data: &Path) {
    collect(&data.join(LAYERS), &data.join("workspaces"), |_, _| true);
}

fn collect(folder: &Path, workspaces: &Path, is_due: impl Fn(usize, Duration) -> bool) {
    let now = SystemTime::now();
    let (mut due, mut stay) = (Vec::new(), Vec::new());
    for place in fs::read_dir(folder).into_iter().flatten().flatten() {
        for (number, (used, layer)) in layers_of(&place.path()).into_iter().enumerate() {
            let is_due = is_due(number, now.duration_since(used).unwrap_or_default());
            if is_due { due.push(layer) } else { stay.push(layer) }
        }
    }
    if due.is_empty() {
        return;
    }
    let named = workspace::manifests(workspaces);
    let is_named = |layer: &PathBuf| {
        named.iter().any(|text| text.contains(&*layer.file_name().unwrap_or_default().to_string_lossy()))
    };
    let (used, due): (Vec<_>, Vec<_>) = due.into_iter().partition(is_named);
    stay.extend(used);
    let carrying: HashSet<PathBuf> =
        stay.iter().filter_map(|layer| Some(layer.with_file_name(below(layer)?))).collect();
    for layer in due.iter().filter(|layer| !carrying.contains(*layer)) {
        let _ = workspace::remove_tree(layer);
    }
}
