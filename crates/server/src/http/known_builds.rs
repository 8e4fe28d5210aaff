//! What lists tell of builds, kept as the text that is sent: a build whose rows show no more facts than before is told in the same words.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use graph::BuildId;
use serde::Serialize;
use serde_json::value::RawValue;
use store::rows::BuildRow;
use store::{BuildFilter, Store, StoreError};

use super::convert;

use crate::lock::lock;

/// How many bytes of text are kept of each kind in one generation; there are two.
const BYTES_KEPT: usize = 2 << 20;
/// How many builds are read one by one; of more all are read at once.
const READ_ALONE_MAX: usize = 4;

/// Told as it is kept.
pub type Text = Arc<RawValue>;

/// The texts of builds that were listed lately.
#[derive(Default)]
pub struct KnownBuilds(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    briefs: Generations,
    wholes: Generations,
}

/// The newest builds of a project.
#[derive(Serialize)]
pub struct Newest {
    /// The newest one, whole: an `api::build::Build`.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Text>,
    /// All of them, the newest first: each an `api::build::BuildBrief`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    builds: Vec<Text>,
}

impl KnownBuilds {
    /// The newest builds of a project, as they are now. Blocks.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn newest(&self, store: &dyn Store, project: &str, most: u32) -> Result<Newest, StoreError> {
        let filter = BuildFilter { project: Some(project.to_owned()), ..BuildFilter::default() };
        let versions = store.build_versions(&filter, None, most)?;
        let (mut briefs, mut last) = {
            let mut kept = self.kept();
            let briefs: Vec<Option<Text>> = versions.iter().map(|version| kept.briefs.find(*version)).collect();
            (briefs, versions.first().and_then(|version| kept.wholes.find(*version)))
        };
        let is_missing = |index: usize| briefs[index].is_none() || (index == 0 && last.is_none());
        let missing: Vec<usize> = (0..versions.len()).filter(|index| is_missing(*index)).collect();
        let read = rows(store, &filter, most, missing.iter().map(|index| versions[*index].0).collect())?;
        for index in missing {
            // What is read after its version may be newer; then nobody asks for the older one again.
            let version = versions[index];
            let Some(row) = read.get(&version.0) else { continue };
            let brief = text(&convert::brief(row))?;
            let whole = if index == 0 { Some(text(&convert::build(row))?) } else { None };
            let mut kept = self.kept();
            kept.briefs.keep(version, &brief);
            briefs[index] = Some(brief);
            if let Some(whole) = whole {
                kept.wholes.keep(version, &whole);
                last = Some(whole);
            }
        }
        // A build that was deleted meanwhile is left out.
        Ok(Newest { last, builds: briefs.into_iter().flatten().collect() })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        lock(&self.0)
    }
}

/// At least the rows of these builds, which are among the newest that pass the filter.
fn rows(
    store: &dyn Store,
    filter: &BuildFilter,
    most: u32,
    builds: Vec<BuildId>,
) -> Result<BTreeMap<BuildId, BuildRow>, StoreError> {
    let rows = if builds.len() > READ_ALONE_MAX {
        store.builds(filter, None, most)?
    } else {
        let read = builds.into_iter().map(|build| store.build(build));
        read.filter_map(Result::transpose).collect::<Result<_, _>>()?
    };
    Ok(rows.into_iter().map(|row| (row.build, row)).collect())
}

fn text(value: &impl Serialize) -> Result<Text, StoreError> {
    // Our own types serialize to JSON whatever they hold.
    let text = serde_json::value::to_raw_value(value).expect("builds always serialize");
    Ok(text.into())
}

/// Texts by build and number of facts: those that were looked at lately, and those before.
#[derive(Default)]
struct Generations {
    young: HashMap<BuildId, (u64, Text)>,
    old: HashMap<BuildId, (u64, Text)>,
    /// Of the young ones.
    bytes: usize,
}

impl Generations {
    fn find(&mut self, (build, facts): (BuildId, u64)) -> Option<Text> {
        if let Some((known, text)) = self.young.get(&build) {
            return (*known == facts).then(|| Arc::clone(text));
        }
        let (known, text) = self.old.remove(&build)?;
        if known != facts {
            return None;
        }
        self.keep((build, facts), &text);
        Some(text)
    }

    fn keep(&mut self, (build, facts): (BuildId, u64), text: &Text) {
        if text.get().len() > BYTES_KEPT {
            return;
        }
        if self.bytes + text.get().len() > BYTES_KEPT {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += text.get().len();
        if let Some((_, before)) = self.young.insert(build, (facts, Arc::clone(text))) {
            self.bytes -= before.get().len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_by_version_within_their_bound() {
        let mut kept = Generations::default();
        let of = |length: usize| text(&"x".repeat(length - 2)).unwrap();
        kept.keep((BuildId(1), 5), &of(100));
        assert!(kept.find((BuildId(1), 5)).is_some());
        assert!(kept.find((BuildId(1), 6)).is_none() && kept.find((BuildId(2), 5)).is_none());
        // The newer one takes its place.
        kept.keep((BuildId(1), 6), &of(200));
        assert!(kept.find((BuildId(1), 5)).is_none() && kept.find((BuildId(1), 6)).is_some());
        assert_eq!(kept.bytes, 200);
        // What is looked at again outlives a generation, what is not has gone after two.
        kept.keep((BuildId(2), 1), &of(100));
        for build in 10..13 {
            kept.keep((BuildId(build), 1), &of(BYTES_KEPT / 2));
            assert!(kept.find((BuildId(1), 6)).is_some());
        }
        assert!(kept.find((BuildId(2), 1)).is_none());
        kept.keep((BuildId(3), 1), &of(BYTES_KEPT + 1));
        assert!(kept.find((BuildId(3), 1)).is_none());
        assert!(
            kept.bytes <= BYTES_KEPT
                && kept.young.values().map(|(_, text)| text.get().len()).sum::<usize>() == kept.bytes
        );
    }
}
