//! What a job changed of an entry that it was shown as a layer: its own layer says so, and nothing else need be looked at.
//!
//! The job's upper layer tells which names are not the entry's any more; what they are now is read through the workspace. Whatever is not plain (a
//! path that other layers hold files of too, a directory that was moved, a link on the way) is not judged here: then all files are looked at.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::layers::Layers;
use super::{FILES_MAX, Located};
use crate::chunked::{Changes, Covers};
use crate::files::{DEPTH_MAX, Found};
use crate::patterns::by_bytes;
use crate::workspace::{is_moved, is_opaque, is_whiteout};

/// What the job changed of the entry whose layers are `shown`; `None` if its own layer cannot tell.
pub(super) fn changes(located: &[Located<'_>], layers: &Layers, shown: &[PathBuf]) -> Option<Changes> {
    let mut looking = Looking { upper: &layers.upper, changes: Changes::default() };
    for (number, located) in located.iter().enumerate() {
        let path = layers.prefix.join(&*located.path);
        let others = layers.lower.iter().filter(|layer| !shown.contains(layer));
        if !is_alone(&path, others) {
            return None;
        }
        let name = PathBuf::from(number.to_string());
        let place = located.root.join(&*located.path);
        match fs::symlink_metadata(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                looking.cover(&name, Covers::AllBelow);
                continue;
            }
            _ if is_directory(&located.root, Path::new(&*located.path)) => {}
            _ => return None,
        }
        looking.look_from(&path, &name, &place, &located.path).ok()?;
    }
    looking.changes.found.sort_by(|(one, _), (two, _)| by_bytes(one, two));
    Some(looking.changes)
}

/// Whether none of these layers, the topmost first, shows anything at a path.
fn is_alone<'l>(path: &Path, layers: impl Iterator<Item = &'l PathBuf>) -> bool {
    for layer in layers {
        let mut place = layer.clone();
        let mut names = path.iter().peekable();
        while let Some(name) = names.next() {
            place.push(name);
            match fs::symlink_metadata(&place) {
                // It hides what the layers below have there.
                Ok(found) if is_whiteout(&found) => return true,
                Ok(found) if found.is_dir() && names.peek().is_some() => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                _ => return false,
            }
        }
    }
    true
}

/// Whether a path leads to a directory, over directories only.
fn is_directory(root: &Path, path: &Path) -> bool {
    let mut place = root.to_owned();
    path.iter().all(|name| {
        place.push(name);
        fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir())
    })
}

/// The layer cannot tell.
struct Unclear;

struct Looking<'l> {
    upper: &'l Path,
    changes: Changes,
}

impl Looking<'_> {
    /// Goes down to the directory of an entry, and looks at what is there.
    fn look_from(&mut self, path: &Path, name: &Path, place: &Path, written: &str) -> Result<(), Unclear> {
        let mut above = self.upper.to_owned();
        for (depth, component) in path.iter().enumerate() {
            above.push(component);
            match fs::symlink_metadata(&above) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Ok(found) if found.is_dir() => {}
                _ => return Err(Unclear),
            }
            // A new directory on the way says nothing of the entry's own.
            let is_last = depth + 1 == path.iter().count();
            if !is_last && (is_moved(&above) || is_opaque(&above)) {
                return Err(Unclear);
            }
        }
        self.directory(&above, name, place, Path::new(written), 0)
    }

    /// Looks at a directory of the upper layer, which is `place` in the workspace.
    fn directory(
        &mut self,
        directory: &Path,
        name: &Path,
        place: &Path,
        path: &Path,
        depth: usize,
    ) -> Result<(), Unclear> {
        if depth == DEPTH_MAX || is_moved(directory) {
            return Err(Unclear);
        }
        let covers = match is_opaque(directory) {
            true => Covers::AllBelow,
            false => Covers::Itself,
        };
        self.take(name, place, path, covers)?;
        for entry in fs::read_dir(directory).map_err(|_| Unclear)? {
            let entry = entry.map_err(|_| Unclear)?;
            let (found, file_name) = (entry.metadata().map_err(|_| Unclear)?, entry.file_name());
            let (name, place, path) = (name.join(&file_name), place.join(&file_name), path.join(&file_name));
            if is_whiteout(&found) {
                self.cover(&name, Covers::AllBelow);
            } else if found.is_dir() {
                self.directory(&entry.path(), &name, &place, &path, depth + 1)?;
            } else {
                self.take(&name, &place, &path, Covers::AllBelow)?;
            }
        }
        Ok(())
    }

    /// Notes what is in the workspace now in place of what the entry has.
    fn take(&mut self, name: &Path, place: &Path, path: &Path, covers: Covers) -> Result<(), Unclear> {
        let metadata = fs::symlink_metadata(place).map_err(|_| Unclear)?;
        if self.changes.found.len() == FILES_MAX {
            return Err(Unclear);
        }
        self.cover(name, covers);
        let found = Found { path: path.to_owned(), place: place.to_owned(), metadata };
        self.changes.found.push((name.to_owned(), found));
        Ok(())
    }

    fn cover(&mut self, name: &Path, covers: Covers) {
        self.changes.covered.insert(name.as_os_str().as_bytes().to_owned(), covers);
    }
}
