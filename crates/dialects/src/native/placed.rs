//! Where jobs were written, and what became of them from one evaluation to the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use graph::{JobName, Location, Moved};

use super::Lowered;
use crate::hashing::QuickMap;
use crate::tree::{Sources, Span};

/// Where each job of a graph was written, by the id under which it was written: of a matrix all legs have one place.
#[derive(Clone, Debug, Default)]
pub struct JobPlaces(Vec<(JobName, Span)>);

impl JobPlaces {
    pub(crate) fn new(places: Vec<(JobName, Span)>) -> Self {
        Self(places)
    }

    fn by_id(&self) -> QuickMap<&str, Span> {
        self.0.iter().map(|(id, span)| (id.as_str(), *span)).collect()
    }
}

impl Lowered {
    /// Every job that `before` has and this one says otherwise, or has not, with its places. Takes time linear in the jobs of
    /// both; little if they are mostly the same.
    #[must_use]
    pub fn moved_since(&self, before: &Lowered) -> BTreeMap<JobName, Moved> {
        let (old, new) = (&before.evaluation.graph.jobs, &self.evaluation.graph.jobs);
        let mut new = new.iter().peekable();
        // Both are in order of name.
        let mut is_changed = |name: &JobName, job: &Arc<graph::Job>| {
            while new.next_if(|(other, _)| *other < name).is_some() {}
            new.peek().is_none_or(|(other, now)| *other != name || !(Arc::ptr_eq(job, now) || job == *now))
        };
        let changed: Vec<&JobName> =
            old.iter().filter(|(name, job)| is_changed(name, job)).map(|(name, _)| name).collect();
        if changed.is_empty() {
            return BTreeMap::new();
        }
        let (was, is) = (before.places.by_id(), self.places.by_id());
        let moved = |name: &JobName| Moved {
            before: location(&was, &before.sources, name),
            after: location(&is, &self.sources, name),
        };
        changed.into_iter().map(|name| (name.clone(), moved(name))).collect()
    }
}

/// The place of a job, or of the matrix of which it is a leg.
fn location(places: &QuickMap<&str, Span>, sources: &Sources, name: &JobName) -> Option<Location> {
    let mut name = name.as_str();
    loop {
        if let Some(&span) = places.get(name) {
            return Some(sources.location(span));
        }
        (name, _) = name.rsplit_once('/')?;
    }
}
