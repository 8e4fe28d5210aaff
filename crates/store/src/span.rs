//! Which facts an append brought, as the journal keeps it: runs of places in builds.

use std::collections::BTreeMap;

use engine::Fact;
use graph::BuildId;
use serde::{Deserialize, Serialize};

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
