//! Who did what, when, and from where.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// One action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// Later actions have larger numbers.
    pub number: u64,
    /// When.
    pub at: Time,
    /// Who.
    pub who: String,
    /// What: the operation of the API, or a word of the server's own.
    pub verb: String,
    /// On what: `build 12`, `pool linux`.
    pub target: String,
    /// The project that it was about; empty if none.
    pub project: String,
    /// From which address.
    pub from: String,
    /// The reason, and what else was said.
    pub detail: String,
}
