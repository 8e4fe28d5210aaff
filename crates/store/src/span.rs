//! Which facts an append brought, as the journal keeps it: runs of places in builds.

use std::collections::BTreeMap;

use engine::Fact;
use graph::BuildId;
use serde::{Deserialize, Serialize};

use crate::store::StoreError;

/// Facts of one build that follow one another: the build, the place of the first among the build's facts, how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span(u64, u64, u64);

impl Span {
    pub fn build(&self) -> BuildId {
        BuildId(self.0)
    }

    pub fn first(&self) -> u64 {
        self.1
    }

    /// The place after the last one.
    pub fn end(&self) -> u64 {
        self.1.saturating_add(self.2)
    }
}

/// The runs of an append whose facts begin, for each build, at these places.
pub(crate) fn spans_of(first: &BTreeMap<BuildId, u64>, facts: &[Fact]) -> Vec<Span> {
    let mut next = first.clone();
    let mut spans = Vec::<Span>::new();
    for fact in facts {
        let place = next.entry(fact.build).or_default();
        match spans.last_mut() {
            Some(last) if last.build() == fact.build => last.2 += 1,
            _ => spans.push(Span(fact.build.0, *place, 1)),
        }
        *place += 1;
    }
    spans
}

/// The facts that an append brought, those of deleted builds left out. `stored` says the facts of a build from a place to
/// before another; appends begin on both.
pub(crate) fn load(
    spans: &[Span],
    mut stored: impl FnMut(BuildId, u64, u64) -> Result<Vec<Fact>, StoreError>,
) -> Result<Vec<Fact>, StoreError> {
    let mut ranges = BTreeMap::<BuildId, (u64, u64)>::new();
    for span in spans {
        let range = ranges.entry(span.build()).or_insert((span.first(), span.end()));
        *range = (range.0.min(span.first()), range.1.max(span.end()));
    }
    let mut loaded = BTreeMap::new();
    for (&build, &(first, end)) in &ranges {
        loaded.insert(build, (first, stored(build, first, end)?));
    }
    let mut brought = Vec::new();
    for span in spans {
        let (first, facts) = &loaded[&span.build()];
        if facts.is_empty() {
            // The build was deleted.
            continue;
        }
        let place = |place: u64| usize::try_from(place - first).unwrap_or(usize::MAX);
        let missing = || StoreError::Corrupt("facts of the journal are missing".into());
        brought.extend_from_slice(facts.get(place(span.first())..place(span.end())).ok_or_else(missing)?);
    }
    Ok(brought)
}
