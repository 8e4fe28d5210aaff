//! Plugins as files name them, and jobs that no plugin has completed.
//!
//! A plugin is a crate: a program that has it completes the jobs that `use` it, before anything here sees them (see
//! `docs/design/2026-11-21-rust-pipelines.md`). Nothing here builds or asks one.

use graph::Location;

use super::errors::{self, Faults};
use super::files::Merged;
use super::{SourceFile, Written};
use crate::tree::{Node, Sources};

/// What codes of diagnostics begin with by which a program tells of plugins.
const CODES: [&str; 6] =
    ["unknown-plugin", "unknown-plugin-job", "unknown-option", "bad-option", "plugin-panicked", "plugin-twice"];

/// The plugins that Ropewalk brings.
pub const BROUGHT_PLUGINS: [&str; 2] = ["cargo", "git"];

/// A plugin that files name under `plugins`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// As jobs name it: `use: NAME.JOB`.
    pub name: String,
    /// Where the file names it.
    pub location: Location,
    /// Where it comes from.
    pub origin: PluginOrigin,
}

/// Where a plugin comes from, as it is written; nothing is checked. All `None`: Ropewalk brings it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginOrigin {
    /// A folder, relative to the repository's root.
    pub path: Option<String>,
    /// The URL of a Git repository.
    pub git: Option<String>,
    /// A commit of it.
    pub rev: Option<String>,
    /// A tag of it.
    pub tag: Option<String>,
    /// A branch of it.
    pub branch: Option<String>,
    /// A version in the registry.
    pub version: Option<String>,
    /// The package's name.
    pub package: Option<String>,
}

/// The plugins that the files name, in the order of their first naming; the last file that names one says where it
/// comes from. What cannot be read is left out: lowering tells of it.
#[must_use]
pub fn plugins(files: &[SourceFile]) -> Vec<Plugin> {
    let (sources, roots) = super::read(files, &mut Faults::default());
    let plugin = |(name, key, origin): (&str, &Node, Option<&Node>)| Plugin {
        name: name.to_owned(),
        location: sources.location(key.span),
        origin: origin.map(read_origin).unwrap_or_default(),
    };
    named(&roots).into_iter().map(plugin).collect()
}

impl PluginOrigin {
    /// The name of the package whose manifest this is; `None` if it says none.
    #[must_use]
    pub fn package_in(manifest: &SourceFile) -> Option<String> {
        let (_, roots) = super::read(std::slice::from_ref(manifest), &mut Faults::default());
        Some(roots.first()?.get("package")?.get("name")?.as_str()?.to_owned())
    }
}

fn read_origin(origin: &Node) -> PluginOrigin {
    let text = |key: &str| origin.get(key).and_then(Node::as_str).map(str::to_owned);
    PluginOrigin {
        path: text("path"),
        git: text("git"),
        rev: text("rev"),
        tag: text("tag"),
        branch: text("branch"),
        version: text("version"),
        package: text("package"),
    }
}

/// The name of each plugin, where it stands, and what is said of its origin.
pub(crate) fn named(roots: &[Node]) -> Vec<(&str, &Node, Option<&Node>)> {
    let mut found: Vec<(&str, &Node, Option<&Node>)> = Vec::new();
    for node in roots.iter().filter_map(|root| root.get("plugins")) {
        let items = node.items().unwrap_or_default().iter().filter_map(|item| Some((item.as_str()?, item, None)));
        let entries = node.entries().unwrap_or_default().iter();
        let entries = entries.filter_map(|entry| Some((entry.name()?, &entry.key, Some(&entry.value))));
        for plugin in items.chain(entries) {
            match found.iter_mut().find(|(name, ..)| *name == plugin.0) {
                Some(known) => *known = plugin,
                None => found.push(plugin),
            }
        }
    }
    found
}

/// Tells of jobs that use a plugin's and that no program has completed, unless the program itself said why.
pub(super) fn tell_uncompleted(
    merged: &Merged<'_>,
    roots: &[Node],
    program: Option<&Written>,
    sources: &Sources,
    faults: &mut Faults,
) {
    let named: Vec<&str> = named(roots).into_iter().map(|(name, ..)| name).collect();
    let is_told =
        program.is_some_and(|program| program.diagnostics.iter().any(|diagnostic| CODES.contains(&&*diagnostic.code)));
    for job in &merged.jobs {
        match (job.body.get_entry("use"), job.body.get_entry("with")) {
            (None, Some(with)) => faults.push(errors::with_without_use(sources.location(with.key.span), job.id)),
            (Some(used), _) if !is_told => {
                // What is no name of a plugin's job has been told.
                let Some((plugin, _)) = used.value.as_str().and_then(|name| name.split_once('.')) else { continue };
                let place = sources.location(used.value.span);
                faults.push(match program.is_none() && !named.contains(&plugin) {
                    true => errors::unnamed_plugin(place, job.id, plugin, &named),
                    false => errors::plugin_not_asked(place, job.id, plugin),
                });
            }
            _ => {}
        }
    }
}
