//! Links that are good once: what such a link holds, and what is kept to know it again.

use graph::Timestamp;
use serde::{Deserialize, Serialize};

use crate::random::random_digits;

/// What is kept of a link: enough to know it again, too little to make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OneTimeLink {
    /// The digest of its secret; that itself is kept nowhere.
    pub digest: String,
    /// Until when it is good.
    pub until: Timestamp,
}

impl OneTimeLink {
    /// What is kept of a link with this secret that is good for `ms` milliseconds.
    #[must_use]
    pub fn new(secret: &str, at: Timestamp, ms: u64) -> Self {
        Self { digest: digest(secret), until: at.plus_ms(ms) }
    }

    /// Whether a secret is this link's, and in time. Digests are compared: how long that takes says nothing of the secret.
    #[must_use]
    pub fn opens(&self, secret: &str, at: Timestamp) -> bool {
        self.digest == digest(secret) && at <= self.until
    }
}

/// A secret for a new link: 192 random bits as 48 hexadecimal digits.
///
/// # Panics
/// If the system gives no random numbers.
#[must_use]
pub fn fresh_secret() -> String {
    random_digits::<24>()
}

fn digest(secret: &str) -> String {
    store::blob::digest(secret.as_bytes()).to_hex()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_opens_by_its_own_secret_in_its_time() {
        let (secret, other) = (fresh_secret(), fresh_secret());
        assert!(secret.len() == 48 && secret != other);
        let made = Timestamp(1_000_000);
        let link = OneTimeLink::new(&secret, made, 500);
        assert!(link.opens(&secret, made.plus_ms(500)) && !link.opens(&secret, made.plus_ms(501)));
        assert!(!link.opens(&other, made) && !link.opens("", made));
        assert!(!serde_json::to_string(&link).unwrap().contains(&secret));
        assert!(!OneTimeLink::default().opens("", Timestamp(0)));
    }
}
