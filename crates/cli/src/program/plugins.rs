//! The program around plugins that config files name: made in the cache, where there is none beside the files.
//!
//! It takes every plugin under the name that the files have for it, and adds no job of its own; asked with the files'
//! document, it completes the jobs that use one.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use dialects::native::{self, Plugin, PluginOrigin, SourceFile};
use dialects::suggest;
use dialects::tree::Notation;
use graph::Diagnostic;

use super::{Source, sdk, single};
use crate::commands::Stop;
use crate::project::{PIPELINE_FOLDER, Project};

/// The largest manifest of a plugin that is read.
const MANIFEST_BYTES_MAX: u64 = 1024 * 1024;
/// What a file holds that names plugins; others are not read for it.
const NAMING: &[u8] = b"plugins";
/// The most plugins of a pipeline.
const PLUGINS_MAX: usize = 100;

/// The plugins of a pipeline, checked as far as it goes without building them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugins {
    /// The first file that names one.
    file: PathBuf,
    /// Name and dependency of each.
    list: Vec<(String, Dependency)>,
}

/// Where cargo finds a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Dependency {
    /// A crate that the binary carries.
    Carried(&'static str),
    /// A package in the repository.
    Folder { folder: PathBuf, package: String },
    /// Anywhere else: fields of cargo's own.
    Elsewhere(Vec<(&'static str, String)>),
}

impl Plugins {
    /// The file that is said to hold them.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// The folder in which packages of the repository find the SDK; `None` if there are none.
    pub fn linked(&self, root: &Path) -> Option<PathBuf> {
        let has_folder = self.list.iter().any(|(_, dependency)| matches!(dependency, Dependency::Folder { .. }));
        has_folder.then(|| root.join(PIPELINE_FOLDER))
    }

    /// What tells these plugins from others.
    pub fn digest(&self) -> String {
        blake3::hash(format!("{:?}", self.list).as_bytes()).to_hex()[..12].to_owned()
    }
}

/// The program that the files' plugins make; `None` if they name none.
///
/// # Errors
/// What is wrong with their naming.
pub fn of_files(project: &Project, files: &[SourceFile]) -> Result<Option<Source>, Vec<Diagnostic>> {
    let names_plugins = |file: &&SourceFile| file.text.windows(NAMING.len()).any(|window| window == NAMING);
    let Some(first) = files.iter().find(names_plugins) else { return Ok(None) };
    let plugins = native::plugins(files);
    if plugins.is_empty() {
        return Ok(None);
    }
    if let Some(beyond) = plugins.get(PLUGINS_MAX) {
        let fault =
            Diagnostic::error("too-many-plugins", format!("the pipeline names more than {PLUGINS_MAX} plugins"));
        return Err(vec![fault.at(beyond.location.clone(), "the first too many")]);
    }
    let (mut list, mut faults) = (Vec::new(), Vec::new());
    for plugin in plugins {
        match dependency(project, &plugin) {
            Ok(dependency) => list.push((plugin.name, dependency)),
            Err(fault) => faults.push(*fault),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Some(Source::Plugins(Plugins { file: project.root.join(&first.name), list })))
}

fn dependency(project: &Project, plugin: &Plugin) -> Result<Dependency, Box<Diagnostic>> {
    let fault = |code: &'static str, message: String, label: &str, help: String| {
        Box::new(Diagnostic::error(code, message).at(plugin.location.clone(), label).help(help))
    };
    let PluginOrigin { path, git, rev, tag, branch, version, package } = &plugin.origin;
    let name = &plugin.name;
    match (path, git, version) {
        (None, None, None) => sdk::crates().find(|carried| carried.strip_prefix("ropewalk-") == Some(name)).map_or_else(
            || {
                let known: Vec<&str> = sdk::crates().filter_map(|carried| carried.strip_prefix("ropewalk-")).collect();
                let help = match suggest::nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("say where it comes from: `{name}: {{ path: ci/{name} }}`, or `git` with `rev`, or `version`"),
                };
                Err(fault("unknown-plugin", format!("Ropewalk brings no plugin `{name}`"), "not known", help))
            },
            |carried| Ok(Dependency::Carried(carried)),
        ),
        (Some(path), None, None) => folder(project, path).map_err(|message| {
            let help = "a plugin is a Cargo package with `pub fn plugin() -> ropewalk::Plugin`: docs/manual/plugins.md";
            fault("unknown-plugin", message, "named here", help.to_owned())
        }),
        (None, ..) => {
            let all = [("git", git), ("rev", rev), ("tag", tag), ("branch", branch), ("version", version)];
            let mut fields: Vec<(&str, String)> =
                all.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect();
            fields.push(("package", package.clone().unwrap_or_else(|| format!("ropewalk-{name}"))));
            Ok(Dependency::Elsewhere(fields))
        }
        (Some(_), ..) => {
            let help = "keep one of `path`, `git` and `version`".to_owned();
            Err(fault("bad-plugin", format!("the plugin `{name}` comes from two places"), "named here", help))
        }
    }
}

/// The package in a folder of the repository.
fn folder(project: &Project, path: &str) -> Result<Dependency, String> {
    let is_inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !is_inside || path.is_empty() {
        return Err(format!("`{path}` lies outside the repository"));
    }
    let folder = project.root.join(path);
    let manifest = folder.join("Cargo.toml");
    let refused = |error: io::Error| format!("there is no plugin in `{path}`: {}: {error}", manifest.display());
    if fs::metadata(&manifest).map_err(refused)?.len() > MANIFEST_BYTES_MAX {
        return Err(format!("the manifest in `{path}` is larger than {MANIFEST_BYTES_MAX} bytes"));
    }
    let text = fs::read(&manifest).map_err(refused)?;
    let file = SourceFile { name: "Cargo.toml".to_owned(), notation: Notation::Toml, text };
    match PluginOrigin::package_in(&file) {
        Some(package) => Ok(Dependency::Folder { folder, package }),
        None => Err(format!("the manifest in `{path}` names no package")),
    }
}

impl Dependency {
    /// The fields of a dependency, as a manifest has them.
    fn fields(&self, sdk: &Path) -> String {
        let fields = match self {
            Self::Carried(name) => vec![("package", (*name).to_owned()), ("path", shown(&sdk.join(name)))],
            Self::Folder { folder, package } => vec![("package", package.clone()), ("path", shown(folder))],
            Self::Elsewhere(fields) => fields.clone(),
        };
        let fields: Vec<String> = fields.into_iter().map(|(key, value)| format!("{key} = {value:?}")).collect();
        format!("{{ {} }}", fields.join(", "))
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Lays the package into `folder`.
///
/// # Errors
/// If it cannot be written.
pub fn lay(plugins: &Plugins, root: &Path, folder: &Path, sdk: &Path) -> Result<(), Stop> {
    let failed = |error: io::Error| {
        Stop::infra(format!("could not write the package of the plugins {}: {error}", folder.display()))
    };
    // A package of the repository knows the SDK by the link beside the pipeline: then all must, to mean the same crate.
    let linked = plugins.linked(root).map(|folder| folder.join(".sdk"));
    let sdk = linked.as_deref().unwrap_or(sdk);
    let is_elsewhere = plugins.list.iter().any(|(_, dependency)| matches!(dependency, Dependency::Elsewhere(_)));
    let mut manifest = format!("[dependencies]\nropewalk = {{ path = {:?} }}\n", shown(&sdk.join("ropewalk")));
    let mut program = String::from(
        "//! Made by ropewalk from the plugins that a pipeline's files name.\n\nfn main() {\n    ropewalk::Ci::main(|ci: &ropewalk::Ci| {\n",
    );
    for (index, (name, dependency)) in plugins.list.iter().enumerate() {
        let _ = writeln!(manifest, "plugin_{index} = {}", dependency.fields(sdk));
        let _ = writeln!(program, "        ci.plugin(plugin_{index}::plugin().named({name:?}));");
    }
    program.push_str("    });\n}\n");
    if is_elsewhere {
        // What others publish names the published SDK; program and binary must have the same.
        let _ = write!(manifest, "\n[patch.crates-io]\nropewalk = {{ path = {:?} }}\n", shown(&sdk.join("ropewalk")));
    }
    let manifest = single::manifest(&manifest, "src/main.rs", sdk);
    fs::create_dir_all(folder.join("src")).map_err(failed)?;
    single::write_if_changed(&folder.join("Cargo.toml"), manifest.as_bytes()).map_err(failed)?;
    single::write_if_changed(&folder.join("src/main.rs"), program.as_bytes()).map_err(failed)
}
