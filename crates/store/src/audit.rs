//! Who did what, when, to what and from where. Entries are only ever added, and forgotten by age.

use graph::Timestamp;
use serde::Serialize;

use crate::store::StoreError;

/// The most bytes of all texts of an entry.
pub const ENTRY_BYTES_MAX: usize = 16 << 10;

/// One action of a person or a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who, as they were authenticated.
    pub who: String,
    /// What they did, as a word.
    pub verb: String,
    /// To what.
    pub target: String,
    /// The project it belongs to; empty if none.
    pub project: String,
    /// The address they came from; empty if there is none.
    pub from: String,
    /// What else is to be known.
    pub detail: String,
}

/// An entry as it was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditRow {
    /// Its number; later ones are larger, and some may be skipped.
    pub number: u64,
    /// The entry.
    #[serde(flatten)]
    pub entry: AuditEntry,
}

/// Which entries [`crate::Store::audit`] lists; empty fields let all pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Of this project.
    pub project: Option<String>,
    /// By this person or program.
    pub who: Option<String>,
}

/// Whether an entry may be stored.
pub(crate) fn check_size(entry: &AuditEntry) -> Result<(), StoreError> {
    let AuditEntry { at: _, who, verb, target, project, from, detail } = entry;
    let bytes = [who, verb, target, project, from, detail].into_iter().map(String::len).sum();
    if bytes > ENTRY_BYTES_MAX {
        return Err(StoreError::TooLarge { what: "an entry of the audit", bytes, most: ENTRY_BYTES_MAX });
    }
    Ok(())
}
