//! How an attempt is told to stop.

use std::sync::Arc;

use tokio::sync::watch;

/// Tells one attempt to stop. Clones tell the same attempt. What was asked stays asked: asking for less later changes
/// nothing.
#[derive(Clone, Debug)]
pub struct Cancel {
    sender: Arc<watch::Sender<Asked>>,
}

/// What an attempt has been asked so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing.
    #[default]
    GoOn,
    /// To end: the running step gets TERM, a grace time, then KILL; steps that ask for it (`if: cancelled()`) still run.
    Gently {
        /// Who asked.
        by: Arc<str>,
    },
    /// To be dead at once.
    AtOnce {
        /// Who asked.
        by: Arc<str>,
    },
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl Cancel {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self { sender: Arc::new(watch::Sender::new(Asked::GoOn)) }
    }

    /// Asks the attempt to end: TERM to all processes of the running step, a grace time, then KILL.
    pub fn gently(&self, by: &str) {
        self.sender.send_if_modified(|asked| {
            let is_new = *asked == Asked::GoOn;
            if is_new {
                *asked = Asked::Gently { by: by.into() };
            }
            is_new
        });
    }

    /// Kills what runs, and lets nothing more begin.
    pub fn at_once(&self, by: &str) {
        self.sender.send_if_modified(|asked| {
            let is_new = !matches!(asked, Asked::AtOnce { .. });
            if is_new {
                *asked = Asked::AtOnce { by: by.into() };
            }
            is_new
        });
    }

    /// Waits until the attempt is asked to end, and tells by whom.
    pub async fn requested(&self) -> Arc<str> {
        let mut asked = self.listen();
        loop {
            match &*asked.borrow_and_update() {
                Asked::Gently { by } | Asked::AtOnce { by } => return Arc::clone(by),
                Asked::GoOn => {}
            }
            // The sender is ours, so it is not gone.
            let _ = asked.changed().await;
        }
    }

    pub(crate) fn asked(&self) -> Asked {
        self.sender.borrow().clone()
    }

    pub(crate) fn listen(&self) -> watch::Receiver<Asked> {
        self.sender.subscribe()
    }
}
