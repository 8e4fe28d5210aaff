//! The manifests that decide what a package needs of the SDK: its own, and in a workspace those beside it.
//!
//! They are read as text, since this is asked before every command: where one speaks of the SDK or of serde, it is taken to mean it.

use std::fs;
use std::path::Path;

/// How deep below a workspace's folder the manifests of its members are looked for.
const DEPTH_MAX: usize = 2;
/// The most folders that are looked into.
const FOLDERS_MAX: usize = 500;

/// The text of the manifest, of those of members below it if it names any, and of those above it as far as the workspace's that it is a
/// member of, none above the project's root.
pub(super) fn read(manifest: &Path, root: &Path) -> Vec<String> {
    let mut texts = vec![fs::read_to_string(manifest).unwrap_or_default()];
    let folder = manifest.parent().unwrap_or(root);
    let is_workspace = |text: &String| text.lines().any(|line| line.trim_start().starts_with("[workspace"));
    if is_workspace(&texts[0]) {
        if texts[0].contains("members") {
            below(folder, DEPTH_MAX, &mut 0, &mut texts);
        }
        return texts;
    }
    for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(root)) {
        let Ok(text) = fs::read_to_string(above.join("Cargo.toml")) else { continue };
        let is_last = is_workspace(&text);
        texts.push(text);
        if is_last {
            break;
        }
    }
    texts
}

fn below(folder: &Path, depth: usize, n_folders: &mut usize, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_source = !super::stamp::NO_SOURCES.iter().any(|name| entry.file_name() == *name);
        if *n_folders < FOLDERS_MAX && is_source && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            *n_folders += 1;
            texts.extend(fs::read_to_string(entry.path().join("Cargo.toml")));
            if depth > 1 {
                below(&entry.path(), depth - 1, n_folders, texts);
            }
        }
    }
}
