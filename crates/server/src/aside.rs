//! Where what blocks for a moment is run.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::runtime::{Handle, RuntimeFlavor};

/// What was to be run panicked, or the runtime ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what was being done panicked, or the server ends")]
pub(crate) struct BrokenOff;

/// Runs what blocks on a thread for such things.
///
/// # Errors
/// It panicked.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BrokenOff> {
    tokio::task::spawn_blocking(work).await.map_err(|_| BrokenOff)
}

/// Runs what blocks for a moment right here: what else waits on this thread goes on on another one, and who waits for this needs no
/// change of threads and back, which takes 0.1 ms on a machine at rest. On a runtime of one thread it is run beside it.
///
/// # Errors
/// It panicked.
pub(crate) async fn briefly<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BrokenOff> {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => {
            catch_unwind(AssertUnwindSafe(|| tokio::task::block_in_place(work))).map_err(|_| BrokenOff)
        }
        _ => run(work).await,
    }
}
