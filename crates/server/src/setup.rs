//! The first administrator: a link that the first start prints, good once.
//!
//! What the link holds is kept as a digest alone. Once an administrator is made, by the link or otherwise, it is worth
//! nothing. All of it blocks.

use std::collections::BTreeSet;

use graph::Timestamp;
use serde::{Deserialize, Serialize};

use crate::access::{Access, CreateError, GrantRequest, LedgerError, Subject, SubjectKind, Verb};
use crate::one_time::{OneTimeLink, fresh_secret};
use crate::records::{Document, RecordError, Records};

/// How long a link is good, in milliseconds.
pub const LINK_MS: u64 = 24 * 3600 * 1000;
/// The key of the one record.
const KEY: &str = "first";

/// The link that was printed last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct FirstLink(OneTimeLink);

impl Document for FirstLink {
    const KIND: &'static str = "setup";
}

/// Why no administrator was made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The link is not the one that was printed last, or is too old.
    #[error("this link is not good, or not any more")]
    Bad,
    /// There is an administrator.
    #[error("the first administrator was made already")]
    Done,
    /// As the tokens refuse.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// As the list of tokens refuses.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// As the records refuse.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What a link is to hold, if nobody administers this server yet; a link that was made before is worth nothing then.
///
/// # Errors
/// [`SetupError`].
pub fn link(access: &Access, records: &Records, at: Timestamp) -> Result<Option<String>, SetupError> {
    if is_done(access, records)? {
        return Ok(None);
    }
    let secret = fresh_secret();
    records.write(KEY, &FirstLink(OneTimeLink::new(&secret, at, LINK_MS)), at)?;
    Ok(Some(secret))
}

/// Whether a link would make the first administrator. Looking changes nothing.
///
/// # Errors
/// [`SetupError`].
pub fn look(access: &Access, records: &Records, secret: &str, at: Timestamp) -> Result<(), SetupError> {
    if is_done(access, records)? {
        return Err(SetupError::Done);
    }
    let (FirstLink(link), _) = records.read::<FirstLink>(KEY)?.ok_or(SetupError::Bad)?;
    if link.opens(secret, at) { Ok(()) } else { Err(SetupError::Bad) }
}

/// Makes the first administrator's token: its id and its text.
///
/// # Errors
/// [`SetupError`].
pub fn redeem(
    access: &Access,
    records: &Records,
    secret: &str,
    name: &str,
    at: Timestamp,
) -> Result<(String, String), SetupError> {
    look(access, records, secret, at)?;
    // Whoever removes it is the one.
    if !records.remove::<FirstLink>(KEY)? {
        return Err(SetupError::Bad);
    }
    let grant = GrantRequest {
        subject: Subject { kind: SubjectKind::Person, name: name.to_owned() },
        verbs: BTreeSet::from([Verb::Admin]),
        projects: None,
        pools: None,
        until: None,
    };
    let id = crate::parts::fresh_id();
    let token = access.create(&id, grant, "setup", at)?;
    Ok((id, token))
}

/// Whether somebody administers this server: a member, or whoever holds a token that was made as such.
fn is_done(access: &Access, records: &Records) -> Result<bool, SetupError> {
    if crate::members::has_administrator(records)? {
        return Ok(true);
    }
    let mut after: Option<String> = None;
    loop {
        let rows = access.ledger().list(after.as_deref())?;
        let is_admin = |row: &crate::access::TokenRow| row.revoked.is_none() && row.grant.verbs.contains(&Verb::Admin);
        if rows.iter().any(is_admin) {
            return Ok(true);
        }
        match rows.last() {
            Some(last) => after = Some(last.id.clone()),
            None => return Ok(false),
        }
    }
}
