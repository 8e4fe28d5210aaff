//! What a build's evaluations said: how its graph grew, and what was wrong with its pipeline.

use std::path::{Component, Path};

use dialects::tree::Sources;
use engine::Fact;
use engine::fact::What;
use graph::{Diagnostic, Location, Timestamp};
use serde_json::{Value, json};
use store::rows::BuildRow;

use super::Stop;
use super::parts::title;
use crate::archive::Archive;
use crate::columns::{self, Paint};
use crate::faults;
use crate::view::growth::{Growing, Growth, some};

/// The largest source whose lines are shown.
const SOURCE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How many growths are shown.
const GROWTHS_SHOWN_MAX: usize = 30;
/// Ends of names of files, whose graphs grow before anything runs or never.
const FILE_ENDS: &[&str] = &[".yaml", ".yml", ".json", ".edn", ".toml"];

/// What the evaluations of a build said.
#[derive(Default)]
pub struct History {
    growths: Vec<(Timestamp, Growth)>,
    /// Of the last evaluation that had any.
    diagnostics: Vec<Diagnostic>,
    /// The texts in which they have their places, if those are not the project's files.
    sources: Option<Sources>,
    created: Timestamp,
}

impl History {
    /// The history of a build. Its facts are read only if they may tell something.
    pub fn of(archive: &dyn Archive, row: &BuildRow) -> Result<Self, Stop> {
        let is_program = row.pipeline.split(", ").any(|name| !FILE_ENDS.iter().any(|end| name.ends_with(end)));
        let created = row.created;
        if !is_program && row.errors == 0 && row.warnings == 0 {
            return Ok(Self { created, ..Self::default() });
        }
        let history = Self::of_facts(&archive.evaluations(row.build)?);
        let sources = if history.diagnostics.is_empty() { None } else { archive.sources(row.build)? };
        Ok(Self { created, sources, ..history })
    }

    fn of_facts(facts: &[Fact]) -> Self {
        let mut growing = Growing::default();
        let mut history = Self::default();
        for fact in facts {
            let growth = growing.take(fact).filter(|growth| !growth.is_first && !growth.because.is_empty());
            history.growths.extend(growth.map(|growth| (fact.at, growth)));
            if let What::Evaluated { diagnostics, .. } = &fact.what {
                history.diagnostics.clone_from(diagnostics);
            }
        }
        history
    }

    /// Which jobs were added by which endings.
    pub fn growth(&self, page: &mut String, paint: Paint) {
        if self.growths.is_empty() {
            return;
        }
        title(page, paint, "growth");
        for (_, growth) in self.growths.iter().take(GROWTHS_SHOWN_MAX) {
            let added: Vec<String> = growth.added.iter().map(|job| job.as_str().to_owned()).collect();
            let names = if added.is_empty() { String::new() } else { format!(": {}", some(&added)) };
            page.push_str(&format!("  {}: {}{names}\n", columns::bare(&growth.cause()), growth.change()));
        }
        let hidden = self.growths.len().saturating_sub(GROWTHS_SHOWN_MAX);
        if hidden > 0 {
            page.push_str(&format!("  … {hidden} more: --output json\n"));
        }
    }

    /// What was wrong with the pipeline, with the lines of those sources under `root` that nobody has changed since.
    pub fn faults(&self, page: &mut String, root: &Path, paint: Paint) {
        if self.diagnostics.is_empty() {
            return;
        }
        title(page, paint, "the pipeline");
        let read;
        let sources = match &self.sources {
            Some(sources) => sources,
            None => {
                read = self.sources(root);
                &read
            }
        };
        page.push_str(&faults::text(&self.diagnostics, sources, paint));
    }

    fn sources(&self, root: &Path) -> Sources {
        let mut sources = Sources::new();
        // Without its bytes a place cannot be shown: a server does not tell them.
        let is_placed = |location: &&Location| location.end > 0;
        let places = self.diagnostics.iter().flat_map(|diagnostic| {
            diagnostic.location.iter().filter(is_placed).chain(diagnostic.related.iter().map(|(location, _)| location))
        });
        let names: std::collections::BTreeSet<&str> = places.map(|location| &*location.file).collect();
        for name in names {
            if let Some(text) = source(root, name, self.created) {
                sources.add(name, text.into());
            }
        }
        sources
    }

    /// `[{"time", "because": [{"job", "outcome"}], "added": [JOB], "dropped"}]`, times in microseconds as in all rows.
    pub fn growth_json(&self) -> Value {
        let growth = |(at, growth): &(Timestamp, Growth)| {
            let because: Vec<_> =
                growth.because.iter().map(|(job, word)| json!({ "job": job, "outcome": word })).collect();
            json!({ "time": at, "because": because, "added": growth.added, "dropped": growth.dropped })
        };
        self.growths.iter().map(growth).collect()
    }

    /// The diagnostics as `ropewalk check --format json` has them.
    pub fn diagnostics_json(&self) -> Value {
        faults::json(&self.diagnostics)
    }
}

/// The text of a source that has not changed since a build was created.
pub(super) fn source(root: &Path, name: &str, created: Timestamp) -> Option<String> {
    let name = Path::new(name);
    if !name.components().all(|component| matches!(component, Component::Normal(_))) {
        return None;
    }
    let path = root.join(name);
    let metadata = std::fs::metadata(&path).ok().filter(|metadata| metadata.len() <= SOURCE_BYTES_MAX)?;
    let changed = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?.as_micros();
    if changed > u128::try_from(created.0).ok()? {
        return None;
    }
    std::fs::read_to_string(path).ok()
}
