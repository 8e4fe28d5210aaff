//! Mutexes whose values no panic leaves half-changed.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The value, also if a thread that held it has panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
