//! What a program's binary was made of, as cargo tells it: its sources, what build scripts read, variables of the environment. Nothing
//! here calls cargo.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::cargo::{self, Origin, Package};
use super::stamp::{self, Made};
use super::{Place, Source, single, testing};

/// The most dep-info files that are read.
const DEP_INFOS_MAX: usize = 1000;
/// The most files that a binary may be made of to be known as unchanged without cargo.
const FILES_MAX: usize = 20_000;

/// What `binary` was made of, given the messages of the call of cargo that made it. `None` if cargo has to be asked each time: it
/// does so itself where a build script names a file that is not there.
pub(super) fn of(place: &Place, package: &Package, binary: &Path, messages: &[u8]) -> Option<Made> {
    let mut paths: BTreeSet<PathBuf> = cargo::settings(&package.folder).into_iter().collect();
    let mut folders = BTreeSet::new();
    let sources = fs::read_to_string(binary.with_extension("d")).map(|text| stamp::dep_info(&text)).unwrap_or_default();
    for source in sources {
        let source = as_written(place, package.folder.join(source));
        let package = source.ancestors().skip(1).find(|above| above.join("Cargo.toml").is_file());
        if let (Some(package), Source::Package(_) | Source::Plugins(_)) = (package, &place.source) {
            // A build script, a binary or a module may be added where none was.
            folders.extend(["", "src", "src/bin"].map(|name| package.join(name)));
        }
        paths.extend(package.map(|package| package.join("Cargo.toml")));
        paths.insert(source);
    }
    // What files say of plugins is in the stamp's name.
    if !matches!(place.source, Source::Plugins(_)) {
        paths.insert(place.source.path().to_owned());
    }
    paths.insert(package.manifest.clone());
    paths.insert(package.manifest.with_file_name("Cargo.lock"));
    let mut variables = variables_read(&binary.with_file_name("deps"));
    for script in cargo::scripts(messages) {
        let reruns = cargo::reruns(&fs::read(&script.output).unwrap_or_default());
        if script.origin == Origin::Path {
            let named: Vec<PathBuf> = match &reruns {
                // It may read anything of its package.
                None => vec![script.folder],
                Some(reruns) => reruns.paths.iter().map(|path| script.folder.join(path)).collect(),
            };
            for path in named.into_iter().map(|path| as_written(place, path)) {
                if !path.exists() {
                    return None;
                }
                if path.is_dir() {
                    let mut below = BTreeSet::new();
                    testing::collect(&path, &mut below);
                    folders.extend(below.iter().filter(|path| path.is_dir()).cloned());
                    folders.insert(path.clone());
                    paths.extend(below);
                }
                paths.insert(path);
            }
        }
        variables.extend(reruns.into_iter().flat_map(|reruns| reruns.variables));
    }
    if let Some(folder) = place.own_folder() {
        folders.insert(folder.to_owned());
    }
    if let Source::Package(_) = &place.source {
        folders.insert(place.folder().join(".cargo"));
    }
    // The generated package is written before every call of cargo, and only from what is stamped anyway; the SDK
    // never changes where it lies.
    let made_by_us = [place.kept.join("package"), place.cache.join("sdk"), place.folder().join(".sdk")];
    let is_theirs = |path: &PathBuf| !made_by_us.iter().any(|folder| path.starts_with(folder));
    paths.retain(is_theirs);
    // What lies elsewhere is told by how it looks alone: names in it are known by the folder's time.
    folders.retain(|folder| folder.starts_with(&place.root) && is_theirs(folder));
    (paths.len() < FILES_MAX).then(|| Made { paths, folders, variables, ..Made::default() })
}

/// The files below the project's root that cargo has compiled for the program and its tests, now or before, and the variables
/// of the environment that they read.
pub(super) fn compiled(place: &Place, package: &Package) -> (BTreeSet<PathBuf>, BTreeSet<String>) {
    let (mut paths, mut variables) = (BTreeSet::new(), BTreeSet::new());
    let sdk = place.folder().join(".sdk");
    let of_targets = fs::read_dir(&package.target).into_iter().flatten().flatten().map(|entry| entry.path());
    for profile in of_targets.map(|folder| folder.join("debug")).chain([package.target.join("debug")]) {
        let deps = profile.join("deps");
        variables.extend(variables_read(&deps));
        for source in dep_infos(&deps).flat_map(|text| stamp::dep_info(&text)) {
            // Relative to where the compiler worked: the package's folder, or that of a workspace around it.
            let works = package.manifest.ancestors().skip(1);
            let found = works.map(|folder| folder.join(&source)).find(|path| path.is_file());
            let is_own = |path: &PathBuf| path.starts_with(&place.root) && !path.starts_with(&sdk);
            paths.extend(found.map(|path| as_written(place, path)).filter(is_own));
        }
    }
    (paths, variables)
}

/// A path as users know it: what lies beside a single file is linked into the package that is laid around it.
fn as_written(place: &Place, path: PathBuf) -> PathBuf {
    let Source::File(_) = &place.source else { return path };
    let laid = place.kept.join("package").join(single::inside(&place.name));
    let below = laid.parent().and_then(|beside| path.strip_prefix(beside).ok());
    match below {
        // Where they lie side by side, the manifest and the lock are ours.
        Some(below) if !single::LAID.iter().any(|name| below == Path::new(name)) => place.folder().join(below),
        _ => path,
    }
}

/// The variables of the environment that crates read. rustc's dep-info lies in `deps`, one for each crate that was compiled
/// there: those of the binary itself and of the packages it was made of.
fn variables_read(deps: &Path) -> BTreeSet<String> {
    dep_infos(deps).flat_map(|text| stamp::variables_read(&text)).collect()
}

fn dep_infos(deps: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(deps).into_iter().flatten().flatten().map(|entry| entry.path());
    let infos = entries.filter(|path| path.extension().is_some_and(|end| end == "d")).take(DEP_INFOS_MAX);
    infos.filter_map(|path| fs::read_to_string(path).ok())
}
