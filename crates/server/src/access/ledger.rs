//! The tokens that were made here, and what was revoked. A token that stands in no ledger is worth nothing.

use std::sync::Arc;

use graph::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use store::record::Expect;
use store::{Store, StoreError};

use super::member::Member;
use super::token::{GrantRequest, Subject};
use super::verb::Verb;
use crate::records::Document;

/// The kind of the records that hold tokens.
const TOKENS: &str = "token";
/// The kind of the records that name revoked narrowings.
const REVOKED: &str = "revoked";
/// The most tokens that one call lists.
pub const TOKENS_LISTED_MAX: u32 = 1000;

/// What is kept of a token: never its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// Names it.
    pub id: String,
    /// What it grants.
    pub grant: GrantRequest,
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    pub by: String,
    /// The id of the member whose session it is; it then grants what the member's roles do, and `grant` names only the holder and the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// When it was revoked, and by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<(Timestamp, String)>,
}

impl TokenRow {
    /// Who holds it.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.grant.subject
    }

    /// Whether it grants `verb`.
    #[must_use]
    pub fn grants(&self, verb: Verb) -> bool {
        self.grant.verbs.contains(&verb) || self.grant.verbs.contains(&Verb::Admin)
    }
}

/// Why the ledger cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store refused.
    #[error("the list of tokens cannot be read or written")]
    Store(#[from] StoreError),
    /// A row makes no sense.
    #[error("the list of tokens is damaged at {0}")]
    Damaged(String),
}

/// Where tokens are listed. Blocks.
pub trait Ledger: Send + Sync {
    /// The token of this id.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn token(&self, id: &str) -> Result<Option<TokenRow>, LedgerError>;

    /// Lists a new token, or writes a listed one anew.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn put(&self, row: &TokenRow, at: Timestamp) -> Result<(), LedgerError>;

    /// Tokens in order of id, behind `after`, at most [`TOKENS_LISTED_MAX`].
    ///
    /// # Errors
    /// [`LedgerError`].
    fn list(&self, after: Option<&str>) -> Result<Vec<TokenRow>, LedgerError>;

    /// Whether one of these narrowings was revoked.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn is_revoked(&self, revocation: &[String]) -> Result<bool, LedgerError>;

    /// Revokes a narrowing and all that was made from it.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn revoke_narrowing(&self, revocation: &str, at: Timestamp) -> Result<(), LedgerError>;

    /// The member of this name.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn member(&self, name: &str) -> Result<Option<Member>, LedgerError>;
}

/// The ledger in a store's records.
pub struct StoreLedger(pub Arc<dyn Store>);

impl Ledger for StoreLedger {
    fn token(&self, id: &str) -> Result<Option<TokenRow>, LedgerError> {
        self.0.record(TOKENS, id)?.map(|record| parse(&record.key, &record.body)).transpose()
    }

    fn put(&self, row: &TokenRow, at: Timestamp) -> Result<(), LedgerError> {
        let body = serde_json::to_vec(row).map_err(|error| LedgerError::Damaged(error.to_string()))?;
        self.0.put_record(TOKENS, &row.id, &body, Expect::Any, at)?;
        Ok(())
    }

    fn list(&self, after: Option<&str>) -> Result<Vec<TokenRow>, LedgerError> {
        let records = self.0.records(TOKENS, after, TOKENS_LISTED_MAX)?;
        records.iter().map(|record| parse(&record.key, &record.body)).collect()
    }

    fn is_revoked(&self, revocation: &[String]) -> Result<bool, LedgerError> {
        // The first is the whole token's, whose row says it.
        for id in revocation.iter().skip(1) {
            if self.0.record(REVOKED, id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn revoke_narrowing(&self, revocation: &str, at: Timestamp) -> Result<(), LedgerError> {
        self.0.put_record(REVOKED, revocation, b"{}", Expect::Any, at)?;
        Ok(())
    }

    fn member(&self, name: &str) -> Result<Option<Member>, LedgerError> {
        self.0.record(Member::KIND, name)?.map(|record| parse(&record.key, &record.body)).transpose()
    }
}

fn parse<T: DeserializeOwned>(key: &str, body: &[u8]) -> Result<T, LedgerError> {
    serde_json::from_slice(body).map_err(|error| LedgerError::Damaged(format!("{key}: {error}")))
}
