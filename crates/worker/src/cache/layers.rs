//! Entries as layers: a tree that is laid once and shown below the workspaces of many jobs, so that restoring it again costs a mount.
//!
//! A layer is `<folder>/<place>/<index>/tree` with the bytes of its index beside it. The place follows from the paths and from where they
//! are in the repository, the index is the entry's digest. Nobody writes into a tree once it has its name, and steps see it
//! through an overlay only; so a new one is made of hard links to the one before, where files are the same.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use graph::Digest;

use super::{BOUNDS, Cache, CacheFault, Located, Owner, indexed};
use crate::archive::{Existing, refused};
use crate::chunked::{self, Base, Content, Index, Laying};
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
    /// The tree that the layer is shown over; directories that lead to the paths get the modes that they have there.
    pub repository: PathBuf,
    /// The project's folder in it.
    pub prefix: PathBuf,
    /// What the job has changed so far, as an overlay's upper layer.
    pub upper: PathBuf,
    /// What the workspace is made of below that, the topmost first.
    pub lower: Vec<PathBuf>,
}

/// A layer that is there.
pub(super) struct Layer {
    pub tree: PathBuf,
    pub base: Base,
}

impl Cache {
    /// The layer of an entry, made if it is not there; `None` if the entry cannot be shown as one: a path lies outside the workspace, or the
    /// job has files there already.
    pub(super) fn layer(
        &self,
        digest: Digest,
        index: &std::sync::Arc<Index>,
        located: &[Located<'_>],
        layers: &Layers,
        depot: &dyn Depot,
    ) -> Result<Option<Layer>, CacheFault> {
        let is_in_workspace = |located: &Located<'_>| located.owner == Owner::Job && !located.is_home;
        let is_free =
            |located: &Located<'_>| fs::symlink_metadata(layers.upper.join(&layers.prefix).join(located.path)).is_err();
        if !located.iter().all(|located| is_in_workspace(located) && is_free(located)) {
            return Ok(None);
        }
        let place = layers.folder.join(layers.place(located));
        let name = place.join(digest.to_hex());
        let base = |since_ns| Base { index: std::sync::Arc::clone(index), since_ns, unknown: Default::default() };
        if touch(&name.join("index")).is_ok() {
            return Ok(Some(Layer { tree: name.join("tree"), base: base(chunked::moment_ns()) }));
        }
        fs::create_dir_all(&place).map_err(refused(&place))?;
        let fresh = place.join(fresh_name());
        let made = layers.make(&fresh, index, located, &place, depot);
        // Somebody else may have made it meanwhile.
        let placed = made.and_then(|()| match fs::rename(&fresh, &name) {
            Err(error) if touch(&name.join("index")).is_err() => Err(refused(&name)(error).into()),
            _ => Ok(()),
        });
        let _ = workspace::remove_tree(&fresh);
        placed?;
        sweep(layers);
        Ok(Some(Layer { tree: name.join("tree"), base: base(chunked::next_moment_ns()) }))
    }
}

impl Layers {
    /// The name of the place of these paths.
    fn place(&self, located: &[Located<'_>]) -> String {
        let mut hasher = blake3::Hasher::new();
        let paths = located.iter().map(|located| Path::new(located.path));
        for path in [self.repository.as_path(), self.prefix.as_path()].into_iter().chain(paths) {
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
        for located in located {
            let path = self.prefix.join(located.path);
            workspace::make_parents(&tree, &self.repository, &path).map_err(refused(&tree))?;
        }
        let twin = newest(place);
        let twin = twin.as_ref().map(|(tree, index)| (tree.as_path(), index));
        let laying = Laying { bounds: BOUNDS, existing: Existing::Replaced, base: None, twin, content: Content::Files };
        let root = tree.as_path();
        let place_of = |name: &Path| {
            let (number, rest) = indexed(name)?;
            Some((root, self.prefix.join(located.get(number)?.path).join(rest)))
        };
        chunked::lay(index, laying, depot, &place_of)?;
        let path = fresh.join("index");
        Ok(fs::write(&path, index.encode()).map_err(refused(&path))?)
    }
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

/// The layer of a place that was used last, with its index.
fn newest(place: &Path) -> Option<(PathBuf, Index)> {
    layers_of(place).into_iter().find_map(|(_, layer)| {
        let is_fresh = layer.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"fresh-"));
        let index = Index::decode(&fs::read(layer.join("index")).ok()?).ok()?;
        (!is_fresh).then(|| (layer.join("tree"), index))
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
    let mut due = Vec::new();
    for place in fs::read_dir(folder).into_iter().flatten().flatten() {
        for (number, (used, layer)) in layers_of(&place.path()).into_iter().enumerate() {
            if is_due(number, now.duration_since(used).unwrap_or_default()) {
                due.push(layer);
            }
        }
    }
    if due.is_empty() {
        return;
    }
    let named = workspace::manifests(workspaces);
    for layer in due.iter().filter(|layer| !named.iter().any(|text| text.contains(&*layer.to_string_lossy()))) {
        let _ = workspace::remove_tree(layer);
    }
}
