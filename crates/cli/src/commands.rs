//! One file per command. Each takes its arguments and returns an exit code, or a [`Stop`] that `main` prints.

pub mod approve;
pub mod backup;
pub mod builds;
pub mod cache;
pub mod cancel;
pub mod check;
pub mod completions;
pub mod config;
pub mod doctor;
pub mod evaluate;
pub mod explain;
pub mod export;
pub mod init;
pub mod logs;
pub mod lower;
pub mod members;
pub mod migrate_store;
pub mod plan;
pub mod pools;
pub mod quarantine;
pub mod restore;
pub mod retry;
pub mod run;
pub mod secrets;
pub mod serve;
pub mod shell;
pub mod show;
pub mod submit;
pub mod test;
pub mod token;
pub mod urge;
pub mod work;
pub mod workers;

use std::error::Error;
use std::path::Path;

use crate::program::said::Said;
use crate::project::data_home;
use crate::{exit, room};

/// Why a command could not do what it was asked.
#[derive(Debug)]
pub struct Stop {
    /// The exit code.
    pub code: u8,
    /// What happened, and what to do; printed after `error: `. Empty if everything has been said.
    pub message: String,
    /// What cargo said, if it does not build the pipeline's program; printed as it is, above the message.
    pub said: Option<Box<Said>>,
}

impl Stop {
    /// The user has to change something.
    pub fn wrong(message: impl Into<String>) -> Self {
        Self { code: exit::WRONG, message: message.into(), said: None }
    }

    /// The machine or the store failed.
    pub fn infra(message: impl Into<String>) -> Self {
        Self { code: exit::INFRA, message: message.into(), said: None }
    }

    /// The failure and all its causes, as one line.
    pub fn of(error: &dyn Error) -> Self {
        Self::infra(graph::with_causes(error))
    }

    /// The same of what keeps builds on this machine: if its disk is full, with what to do and what of ours takes most; if it may not be
    /// written, with where it is.
    pub fn kept(error: &(dyn Error + 'static)) -> Self {
        let mut stop = Self::of(error);
        if let (Some(store::StoreError::Denied(_)), Ok(data)) = (error.downcast_ref(), data_home()) {
            let next = "make it this user's to write, or name another folder in ROPEWALK_DATA";
            stop.message.push_str(&format!("; what is kept of builds is in `{}`: {next}", data.display()));
        }
        let is_full = wants_room(error) || error.source().is_some_and(wants_room);
        if let (true, Ok(data)) = (is_full, data_home()) {
            let hint = "make room on the disk of";
            let largest = room::largest(&data).map(|largest| format!("; {largest}")).unwrap_or_default();
            let next = "`ropewalk run --resume` then goes on with a build that was running";
            stop.message.push_str(&format!("; {hint} `{}`: {next}{largest}", data.display()));
        }
        stop
    }
}

/// Whether nothing is wrong but that the disk with what is kept is full.
fn wants_room(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(store::StoreError::Full(_)))
        || matches!(error.downcast_ref(), Some(store::log::LogError::Full(_)))
        || matches!(error.downcast_ref(), Some(store::blob::BlobError::Full(_)))
}

/// What may be done about the database of a project that makes no sense, if that is what happened.
pub fn next_of_damage(error: &store::StoreError, data: &Path) -> Option<String> {
    let is_damaged = matches!(error, store::StoreError::Corrupt(_));
    is_damaged.then(|| {
        format!(
            "; it is `{}`: move the folder `{}` away, and `ropewalk run` begins anew, without the builds, logs, artifacts, caches and \
             results for reuse that were kept of this project",
            data.join(store::DATABASE_FILE).display(),
            data.display()
        )
    })
}

impl From<server::parts::PartError> for Stop {
    fn from(error: server::parts::PartError) -> Self {
        if let server::parts::PartError::Setting(text) = error {
            return Self::wrong(text);
        }
        let mut stop = Self::of(&error);
        if let Some(next) = error.next() {
            stop.message.push_str(&format!("; {next}"));
        }
        stop
    }
}

impl From<store::log::LogError> for Stop {
    fn from(error: store::log::LogError) -> Self {
        Self::of(&error)
    }
}

impl From<store::StoreError> for Stop {
    fn from(error: store::StoreError) -> Self {
        Self::kept(&error)
    }
}
