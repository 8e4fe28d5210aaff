//! Secrets of projects: sealed before they are stored, opened for one lease. All of it blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::words::quoted;
use graph::{Timestamp, Trust, hex, with_causes};
use serde::{Deserialize, Serialize};

use crate::access::SealingKey;
use crate::records::{Document, RecordError, Records};
use crate::world::{NoValue, SecretSource};

/// The most secrets of a project.
pub const SECRETS_MAX: usize = api::project::SECRETS_MAX;

/// The secrets of one project.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Sealed {
    /// By name.
    secrets: BTreeMap<String, SealedValue>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct SealedValue {
    /// Hexadecimal.
    value: String,
    changed: Timestamp,
}

impl Document for Sealed {
    const KIND: &'static str = "secrets";
}

/// Why a secret was not set.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// There are too many.
    #[error("a project has at most {SECRETS_MAX} secrets")]
    Full,
    /// It could not be sealed.
    #[error(transparent)]
    Seal(#[from] crate::access::SealError),
    /// As the records refuse.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// The secrets of all projects.
pub struct Secrets {
    records: Records,
    key: Arc<SealingKey>,
}

impl Secrets {
    /// What signs addresses that are a right of their own.
    #[must_use]
    pub fn address_key(&self) -> &ring::hmac::Key {
        self.key.addresses()
    }

    /// Secrets among these records, under this key.
    #[must_use]
    pub fn new(records: Records, key: Arc<SealingKey>) -> Self {
        Self { records, key }
    }

    /// The names of a project's secrets and when each was set, by name.
    ///
    /// # Errors
    /// As the records refuse.
    pub fn names(&self, project: &str) -> Result<Vec<(String, Timestamp)>, RecordError> {
        let sealed = self.records.read::<Sealed>(project)?.map(|(sealed, _)| sealed).unwrap_or_default();
        Ok(sealed.secrets.into_iter().map(|(name, value)| (name, value.changed)).collect())
    }

    /// Sets a secret.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn put(&self, project: &str, name: &str, value: &str, at: Timestamp) -> Result<(), SecretError> {
        let sealed = self.key.seal(&place(project, name), value.as_bytes())?;
        let value = SealedValue { value: hex::digits(&sealed), changed: at };
        let mut is_full = false;
        self.records.change(project, at, |before: Option<Sealed>| {
            let mut after = before.unwrap_or_default();
            is_full = after.secrets.len() >= SECRETS_MAX && !after.secrets.contains_key(name);
            if !is_full {
                after.secrets.insert(name.to_owned(), value.clone());
            }
            after
        })?;
        if is_full { Err(SecretError::Full) } else { Ok(()) }
    }

    /// Removes a secret, if it is there.
    ///
    /// # Errors
    /// As the records refuse.
    pub fn remove(&self, project: &str, name: &str, at: Timestamp) -> Result<(), RecordError> {
        if self.records.read::<Sealed>(project)?.is_some() {
            self.records.change(project, at, |before: Option<Sealed>| {
                let mut after = before.unwrap_or_default();
                after.secrets.remove(name);
                after
            })?;
        }
        Ok(())
    }

    /// Removes all secrets of a project.
    ///
    /// # Errors
    /// As the records refuse.
    pub fn remove_all(&self, project: &str) -> Result<(), RecordError> {
        self.records.remove::<Sealed>(project).map(drop)
    }
}

impl SecretSource for Secrets {
    fn values(
        &self,
        project: &str,
        trust: Trust,
        names: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, String>, NoValue> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        if trust == Trust::Untrusted {
            return Err(NoValue::Unset("builds of untrusted events get no secrets".to_owned()));
        }
        let sealed = self.records.read::<Sealed>(project).map_err(|error| NoValue::Unread(with_causes(&error)))?;
        let sealed = sealed.map(|(sealed, _)| sealed.secrets).unwrap_or_default();
        let unset: Vec<&String> = names.iter().filter(|name| !sealed.contains_key(*name)).collect();
        if !unset.is_empty() {
            return Err(NoValue::Unset(what_sets(project, &unset)));
        }
        let damaged = |name: &str| NoValue::Unset(format!("the secret `{name}` is damaged: set it again"));
        let open = |name: &String| {
            let bytes = sealed.get(name).and_then(|value| hex::bytes(&value.value)).ok_or_else(|| damaged(name))?;
            let value = self.key.open(&place(project, name), &bytes);
            let value = value.map_err(|error| NoValue::Unset(with_causes(&error)))?;
            Ok((name.clone(), String::from_utf8(value).map_err(|_| damaged(name))?))
        };
        names.iter().map(open).collect()
    }
}

/// Says which secrets a project does not have, and how each is set.
fn what_sets(project: &str, names: &[&String]) -> String {
    let listed: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let put = |name: &&String| format!("`ropewalk secrets put {} {}`", quoted(project), quoted(name));
    let puts: Vec<String> = names.iter().map(put).collect();
    let (what, sets) = if names.len() == 1 { ("secret", "sets it") } else { ("secrets", "set them") };
    format!("project `{project}` has no {what} {}: {} {sets}; then retry", listed.join(", "), puts.join(", "))
}

/// What a value is sealed for.
fn place(project: &str, name: &str) -> String {
    format!("{project}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_that_set_secrets_can_be_copied() {
        let (plain, other) = ("A".to_owned(), "b c".to_owned());
        let told = what_sets("web", &[&plain, &other]);
        assert!(
            told.ends_with(": `ropewalk secrets put web A`, `ropewalk secrets put web 'b c'` set them; then retry"),
            "{told}"
        );
    }
}
