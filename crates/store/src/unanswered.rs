//! An append whose answer was lost: whether it was stored is found out when it is asked for again.

use std::collections::BTreeMap;

use engine::Fact;
use graph::BuildId;

use crate::store::StoreError;

/// The facts of such an append, and the place in its build of the first of each build.
#[derive(Debug)]
pub(crate) struct Unanswered {
    facts: Vec<Fact>,
    first: BTreeMap<BuildId, u64>,
}

impl Unanswered {
    pub fn new(facts: &[Fact], first: BTreeMap<BuildId, u64>) -> Self {
        Self { facts: facts.to_vec(), first }
    }

    /// Whether `facts`, which somebody appends now, are those of then and were stored then. `stored` says the facts of a
    /// build from a place on.
    pub fn is_stored(
        &self,
        facts: &[Fact],
        stored: impl Fn(BuildId, u64) -> Result<Vec<Fact>, StoreError>,
    ) -> Result<bool, StoreError> {
        if self.facts != facts {
            return Ok(false);
        }
        for (&build, &first) in &self.first {
            let mut stored = stored(build, first)?.into_iter();
            if !facts.iter().filter(|fact| fact.build == build).all(|fact| stored.next().as_ref() == Some(fact)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
