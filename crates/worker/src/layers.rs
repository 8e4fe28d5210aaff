//! The files of a workspace as its steps saw them, read and written from outside.
//!
//! An overlay is mounted only in its job's namespaces. The worker itself looks at the directories it is made of and
//! puts them together as the kernel does: the topmost layer that has a name decides, a character device 0/0 hides it
//! (a whiteout), a directory with the attribute `overlay.opaque` hides what lies below it. Source: kernel.org,
//! filesystems/overlayfs, "whiteouts and opaque directories". To be used when no step of the job runs. Links are
//! never followed.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use crate::patterns::{Patterns, by_bytes};

/// How deep directories may be nested.
pub const DEPTH_MAX: usize = 512;

/// Directories that lie one over the other; the first is the topmost, and the one that is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    layers: Vec<PathBuf>,
}

/// A file, link or directory of a workspace.
#[derive(Clone, Debug)]
pub struct Found {
    /// Relative to the workspace's root.
    pub path: PathBuf,
    /// Where it really is.
    pub place: PathBuf,
    /// What it is; of a link, the link itself.
    pub metadata: Metadata,
}

/// Whether directories are wanted as entries of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directories {
    /// Files and links only.
    Left,
    /// Directories too, each before what is in it.
    Taken,
}

/// Why files cannot be looked for.
#[derive(Debug, thiserror::Error)]
pub enum LayersFault {
    /// The way to a path leads over a link, which is not followed.
    #[error("`{}` is a symbolic link, and is not followed out of the workspace", path.display())]
    Link {
        /// The link, relative to the root.
        path: PathBuf,
    },
    /// There are more files than the caller takes.
    #[error("more than {files_max} files")]
    TooMany {
        /// The caller's bound.
        files_max: usize,
    },
    /// Directories are nested deeper than [`DEPTH_MAX`].
    #[error("directories are nested deeper than {DEPTH_MAX}")]
    Deep,
    /// The system's words.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a name stands for, over all layers.
enum Node {
    Leaf(PathBuf, Metadata),
    /// The directories that together are this one; the metadata is the topmost's.
    Directory(Vec<PathBuf>, Metadata),
}

impl Layers {
    /// One directory, as it is.
    #[must_use]
    pub fn plain(root: &Path) -> Self {
        Self { layers: vec![root.to_owned()] }
    }

    /// `upper` over `lower`, the topmost of which comes first.
    #[must_use]
    pub fn overlay(upper: &Path, lower: &[PathBuf]) -> Self {
        Self { layers: std::iter::once(upper.to_owned()).chain(lower.iter().cloned()).collect() }
    }

    /// The directory that is written to.
    #[must_use]
    pub fn top(&self) -> &Path {
        &self.layers[0]
    }

    /// The files that `patterns` mean, sorted by bytes, no duplicates.
    ///
    /// # Errors
    /// [`LayersFault`].
    pub fn find(
        &self,
        patterns: &Patterns,
        directories: Directories,
        files_max: usize,
    ) -> Result<Vec<Found>, LayersFault> {
        let mut found = Vec::new();
        for root in patterns.roots() {
            let is_meant = |path: &Path| patterns.matches(path);
            let mut walk = Walk { is_meant: &is_meant, directories, files_max, found: &mut found };
            if let Some(node) = self.node(root)? {
                walk.enter(root, node, 0)?;
            }
        }
        found.sort_by(|left, right| by_bytes(&left.path, &right.path));
        Ok(found)
    }

    /// Whether anything is at this path.
    ///
    /// # Errors
    /// [`LayersFault`].
    pub fn has(&self, path: &Path) -> Result<bool, LayersFault> {
        Ok(self.node(path)?.is_some())
    }

    fn node(&self, path: &Path) -> Result<Option<Node>, LayersFault> {
        let mut node = None;
        let mut directories = self.layers.clone();
        let mut so_far = PathBuf::new();
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            match node {
                None => {}
                Some(Node::Directory(below, _)) => directories = below,
                Some(Node::Leaf(_, metadata)) if metadata.is_symlink() => {
                    return Err(LayersFault::Link { path: so_far });
                }
                Some(Node::Leaf(..)) => return Ok(None),
            }
            so_far.push(name);
            node = Some(match look_up(&directories, name)? {
                Some(node) => node,
                None => return Ok(None),
            });
        }
        match node {
            Some(node) => Ok(Some(node)),
            None => root_node(&self.layers).map(Some),
        }
    }
}

fn root_node(layers: &[PathBuf]) -> Result<Node, LayersFault> {
    let top = &layers[0];
    let metadata = fs::metadata(top).map_err(|source| LayersFault::Read { path: top.clone(), source })?;
    Ok(Node::Directory(layers.to_vec(), metadata))
}

struct Walk<'w> {
    is_meant: &'w dyn Fn(&Path) -> bool,
    directories: Directories,
    files_max: usize,
    found: &'w mut Vec<Found>,
}

impl Walk<'_> {
    fn enter(&mut self, path: &Path, node: Node, depth: usize) -> Result<(), LayersFault> {
        match node {
            Node::Leaf(place, metadata) => self.take(path, place, metadata),
            Node::Directory(..) if depth == DEPTH_MAX => Err(LayersFault::Deep),
            Node::Directory(below, metadata) => {
                if self.directories == Directories::Taken && !path.as_os_str().is_empty() {
                    self.take(path, below[0].clone(), metadata)?;
                }
                for (name, node) in read(&below)? {
                    self.enter(&path.join(name), node, depth + 1)?;
                }
                Ok(())
            }
        }
    }

    fn take(&mut self, path: &Path, place: PathBuf, metadata: Metadata) -> Result<(), LayersFault> {
        if !(self.is_meant)(path) {
            return Ok(());
        }
        if self.found.len() == self.files_max {
            return Err(LayersFault::TooMany { files_max: self.files_max });
        }
        self.found.push(Found { path: path.to_owned(), place, metadata });
        Ok(())
    }
}

/// What `name` stands for in a directory of several layers.
fn look_up(directories: &[PathBuf], name: &OsStr) -> Result<Option<Node>, LayersFault> {
    let mut node: Option<Node> = None;
    for directory in directories {
        let place = directory.join(name);
        let metadata = match fs::symlink_metadata(&place) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(source) => return Err(LayersFault::Read { path: place, source }),
        };
        let is_last = !metadata.is_dir() || is_opaque(&place);
        match &mut node {
            _ if is_whiteout(&metadata) => break,
            None if metadata.is_dir() => node = Some(Node::Directory(vec![place], metadata)),
            None => node = Some(Node::Leaf(place, metadata)),
            Some(Node::Directory(below, _)) if metadata.is_dir() => below.push(place),
            // A file below a directory is hidden by it.
            Some(_) => break,
        }
        if is_last {
            break;
        }
    }
    Ok(node)
}

fn read(directories: &[PathBuf]) -> Result<BTreeMap<OsString, Node>, LayersFault> {
    let mut names = BTreeMap::new();
    for directory in directories {
        let refused = |source| LayersFault::Read { path: directory.clone(), source };
        for entry in fs::read_dir(directory).map_err(refused)? {
            names.insert(entry.map_err(refused)?.file_name(), ());
        }
    }
    let mut nodes = BTreeMap::new();
    for (name, ()) in names {
        if let Some(node) = look_up(directories, &name)? {
            nodes.insert(name, node);
        }
    }
    Ok(nodes)
}

fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// Both names of the attribute: of an administrator's mount and of a user's.
fn is_opaque(directory: &Path) -> bool {
    ["user.overlay.opaque", "trusted.overlay.opaque"].into_iter().any(|name| {
        let mut value = [0; 1];
        matches!(rustix::fs::lgetxattr(directory, name, &mut value), Ok(1)) && value == *b"y"
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Directories, Layers};
    use crate::patterns::Patterns;

    fn write(root: &Path, files: &[&str]) {
        for path in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    fn check(layers: &Layers, globs: &[&str], directories: Directories, expected: &str) {
        let shown = match layers.find(&Patterns::new(globs).unwrap(), directories, 10) {
            Ok(found) => found.iter().map(|found| found.path.to_string_lossy()).collect::<Vec<_>>().join(" "),
            Err(fault) => fault.to_string(),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn one_directory() {
        let scratch = tempfile::tempdir().unwrap();
        write(scratch.path(), &["a", "d/b", "d/e/c"]);
        std::os::unix::fs::symlink("d", scratch.path().join("link")).unwrap();
        let layers = Layers::plain(scratch.path());
        check(&layers, &["**"], Directories::Left, "a d/b d/e/c link");
        check(&layers, &["d"], Directories::Taken, "d d/b d/e d/e/c");
        check(&layers, &["d/*/c", "nothing/x", "a/b"], Directories::Left, "d/e/c");
        check(&layers, &["link"], Directories::Left, "link");
        check(&layers, &["link/b"], Directories::Left, "`link` is a symbolic link, and is not followed out of the workspace");
        write(scratch.path(), &["1", "2", "3", "4", "5", "6", "7"]);
        check(&layers, &["**"], Directories::Left, "more than 10 files");
    }

    #[test]
    fn several_layers() {
        let scratch = tempfile::tempdir().unwrap();
        let [upper, lower] = ["upper", "lower"].map(|name| scratch.path().join(name));
        write(&lower, &["both", "hidden", "d/low", "d/gone", "opaque/low", "file-below/x", "was-file"]);
        write(&upper, &["both", "d/up", "opaque/up", "was-file/x"]);
        fs::write(upper.join("file-below"), "").unwrap();
        let whiteout = |path: &Path| {
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::CharacterDevice, 0o600.into(), 0)
        };
        if whiteout(&upper.join("hidden")).is_err() {
            assert!(std::env::var_os("CI").is_none(), "device nodes are needed to test whiteouts");
            eprintln!("skipped: device nodes cannot be made here");
            return;
        }
        whiteout(&upper.join("d/gone")).unwrap();
        let opaque = |name: &str| {
            rustix::fs::setxattr(upper.join("opaque"), name, b"y", rustix::fs::XattrFlags::empty())
        };
        opaque("trusted.overlay.opaque").or_else(|_| opaque("user.overlay.opaque")).unwrap();
        let layers = Layers::overlay(&upper, &[lower.clone()]);
        check(&layers, &["**"], Directories::Left, "both d/low d/up file-below opaque/up was-file/x");
        let found = layers.find(&Patterns::new(&["both"]).unwrap(), Directories::Left, 10).unwrap();
        assert_eq!(found[0].place, upper.join("both"));
        assert!(layers.has("d/low".as_ref()).unwrap() && !layers.has("d/gone".as_ref()).unwrap());
    }
}
