//! The slots in which jobs run: one number for a build and all builds below it that its jobs wait for.
//!
//! The job that waits for a child has a slot and does nothing meanwhile, so that slot is the child's own: it can always run one
//! job, and nothing ever waits in a circle. Any further slot it borrows from the outermost build, over the socket of
//! `control.rs`, for as long as it holds the connection: who dies gives back what it had.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use graph::BuildId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::control;

/// Where the slots of one process come from.
#[derive(Clone, Debug)]
pub struct Slots {
    /// Those that this process may give: all of them in the outermost build, in a child the one of the job that waits for it.
    here: Arc<Semaphore>,
    /// From whom more can be borrowed.
    lender: Option<Lender>,
}

/// The process of the outermost build.
#[derive(Clone, Debug)]
pub struct Lender {
    /// What is kept of the project.
    pub data: PathBuf,
    /// The build.
    pub build: BuildId,
}

/// A slot that is taken until this is dropped.
#[derive(Debug)]
pub struct Slot {
    _held: Held,
}

#[derive(Debug)]
enum Held {
    Here { _permit: OwnedSemaphorePermit },
    Borrowed { _connection: tokio::net::UnixStream },
}

impl Slots {
    /// The slots of an outermost build.
    pub fn own(count: u32) -> Self {
        Self { here: Arc::new(Semaphore::new(count as usize)), lender: None }
    }

    /// The slots of a child: that of the job which waits for it, and what `lender` has left.
    pub fn borrowed(lender: Lender) -> Self {
        Self { here: Arc::new(Semaphore::new(1)), lender: Some(lender) }
    }

    /// The slots that may be lent to children: none by a child, whose own children ask the outermost build as it does.
    pub fn to_lend(&self) -> Option<Arc<Semaphore>> {
        self.lender.is_none().then(|| Arc::clone(&self.here))
    }

    /// Waits for a slot, in the order of asking.
    pub async fn take(&self) -> Slot {
        if let Ok(permit) = Arc::clone(&self.here).try_acquire_owned() {
            return Slot { _held: Held::Here { _permit: permit } };
        }
        let here = pin!(Arc::clone(&self.here).acquire_owned());
        let permit = match &self.lender {
            None => here.await,
            Some(lender) => match select(here, pin!(control::borrow_slot(&lender.data, lender.build))).await {
                Either::Left((permit, _)) => permit,
                Either::Right((Ok(connection), _)) => {
                    return Slot { _held: Held::Borrowed { _connection: connection } };
                }
                // Nobody lends: what is here has to do.
                Either::Right((Err(_), here)) => here.await,
            },
        };
        Slot { _held: Held::Here { _permit: permit.expect("the slots are never closed") } }
    }
}
