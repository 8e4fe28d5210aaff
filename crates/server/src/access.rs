//! Who may do what: tokens that are grants, and that their holders can narrow without asking anybody.
//!
//! A token is a Biscuit: its first block, signed by the server's root key, says who holds it, which verbs it grants and on
//! which projects and pools; every further block, added by whoever holds it, can only add checks. A request is let
//! through if the first block grants its verb on its target, every check of every block holds, and neither the token nor
//! the narrowing it came from was revoked. What is not granted is refused.

mod guard;
mod held;
mod keys;
mod ledger;
mod member;
mod narrowing;
mod pass;
mod seal;
mod token;
mod verb;

pub use guard::{Access, Bearer, CreateError, Denied};
pub use held::{Keys, KeysError, NewKeys, foreign_key, lost};
pub use keys::{KeyError, ROOT_KEY_FILE, RootKey, is_unfinished_key};
pub use ledger::{Ledger, LedgerError, StoreLedger, TokenRow};
pub use member::{Member, Role};
pub use narrowing::{Narrowing, narrow};
pub use pass::{Ground, Pass};
pub use seal::{SEALING_KEY_FILE, SealError, SealingKey};
pub use token::{GrantRequest, Inspected, Subject, SubjectKind, TOKEN_BYTES_MAX, TokenError, inspect, mint};
pub use verb::{Target, Verb, pool_name};

#[cfg(test)]
mod tests;
