//! The token by which something long began, asked again while it lasts: a worker's session, a stream that somebody follows.
//!
//! A token may be revoked or come to its end, a member may be removed or lose a role. What has begun goes on no longer than until it asks the
//! next time. Nothing here decides when that is.

use std::sync::{Arc, Mutex, MutexGuard};

use graph::{BuildId, Timestamp};

use super::guard::{Access, Bearer, Denied};
use super::verb::{Target, Verb};
use crate::lock::lock;
use crate::records::KeptPass;

/// What a pass is used on; as [`Target`], kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    /// The project's name.
    pub project: Option<String>,
    /// The pool's name.
    pub pool: Option<String>,
    /// The build.
    pub build: Option<BuildId>,
}

impl From<&Target<'_>> for Ground {
    fn from(target: &Target<'_>) -> Self {
        Self { project: target.project.map(str::to_owned), pool: target.pool.map(str::to_owned), build: target.build }
    }
}

impl Ground {
    fn target(&self) -> Target<'_> {
        Target { project: self.project.as_deref(), pool: self.pool.as_deref(), build: self.build }
    }
}

impl Access {
    /// Asks whether a token of which this is kept is good still. A list of tokens that cannot be read ends nothing. Blocks.
    ///
    /// # Errors
    /// [`Denied`], for good.
    pub fn ask_kept(&self, kept: &KeptPass, now: Timestamp) -> Result<(), Denied> {
        if kept.until.is_some_and(|until| until < now) {
            return Err(Denied::Ended);
        }
        match self.row(&kept.token, &kept.revocation) {
            Ok(_) | Err(Denied::Ledger(_)) => Ok(()),
            Err(denied) => Err(denied),
        }
    }
}

/// The right to go on.
#[derive(Debug)]
pub struct Pass {
    verb: Verb,
    /// All that is used; none if whoever goes on looks at each thing by itself.
    grounds: Vec<Ground>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bearer: Arc<Bearer>,
    asked: Timestamp,
}

impl Pass {
    /// That of somebody who was let in `now` to do `verb` on all of this.
    #[must_use]
    pub fn new(bearer: Arc<Bearer>, verb: Verb, grounds: Vec<Ground>, now: Timestamp) -> Self {
        Self { verb, grounds, state: Mutex::new(State { bearer, asked: now }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whose it is, as it stood when it was asked last. The same value as long as nothing has changed.
    #[must_use]
    pub fn bearer(&self) -> Arc<Bearer> {
        Arc::clone(&self.state().bearer)
    }

    /// What is kept of its token.
    #[must_use]
    pub fn kept(&self) -> KeptPass {
        self.bearer().kept()
    }

    /// Whether it was asked longer ago than this.
    #[must_use]
    pub fn is_older(&self, ms: u64, now: Timestamp) -> bool {
        now.ms_since(self.state().asked) > ms
    }

    /// Asks whether the token is good still, and grants still what it is used for. A list of tokens that cannot be read ends nothing: it is
    /// asked the next time. Blocks.
    ///
    /// # Errors
    /// [`Denied`], for good.
    pub fn ask(&self, access: &Access, now: Timestamp) -> Result<(), Denied> {
        let before = self.bearer();
        match self.asked_of(access, &before, now) {
            Ok(bearer) => {
                let mut state = self.state();
                state.asked = now;
                if !bearer.stands_as(&state.bearer) {
                    state.bearer = Arc::new(bearer);
                }
                Ok(())
            }
            Err(Denied::Slow | Denied::Ledger(_)) => Ok(()),
            Err(denied) => Err(denied),
        }
    }

    fn asked_of(&self, access: &Access, before: &Bearer, now: Timestamp) -> Result<Bearer, Denied> {
        let bearer = access.admit_again(before)?;
        if bearer.has_ended(now) {
            return Err(Denied::Ended);
        }
        if !bearer.has_verb(self.verb) {
            return Err(Denied::Forbidden { verb: self.verb, target: "anything".to_owned() });
        }
        self.grounds.iter().try_for_each(|ground| bearer.may(self.verb, &ground.target(), now))?;
        Ok(bearer)
    }
}
