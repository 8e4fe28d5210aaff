//! What a program has looked at of its event. A function's result depends on it: what was read before the function was given to
//! its job may be in it, and stands in the job's operation; what it reads while it runs beyond that is told to the worker.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The whole event: somebody took it as JSON, compared or printed it.
pub(crate) const WHOLE: &str = "event";

/// The variables that a worker sets for each step, each with the part of the event that it holds. The number of the build is no
/// part of the event, and no other build has it.
const VARIABLES: [(&str, &str); 5] = [
    ("ROPEWALK_BRANCH", "branch"),
    ("ROPEWALK_TAG", "tag"),
    ("ROPEWALK_COMMIT", "commit"),
    ("ROPEWALK_EVENT", "kind"),
    ("ROPEWALK_BUILD", "build"),
];

/// The names of the parts that were read: `branch`, `params.NAME`, or [`WHOLE`]. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Reads(Arc<Mutex<BTreeSet<String>>>);

impl Reads {
    /// Notes that a part is read.
    pub fn note(&self, part: &str) {
        let mut parts = self.lock();
        if !parts.contains(part) {
            parts.insert(part.to_owned());
        }
    }

    /// Notes what a text reads that names variables of the worker.
    pub fn note_variables(&self, text: &str) {
        VARIABLES.iter().filter(|(name, _)| text.contains(name)).for_each(|(_, part)| self.note(part));
    }

    /// What was read so far.
    pub fn parts(&self) -> BTreeSet<String> {
        self.lock().clone()
    }

    /// Goes back to what had been read before.
    pub fn reset(&self, parts: BTreeSet<String>) {
        *self.lock() = parts;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
