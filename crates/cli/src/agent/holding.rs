//! What is in use, so that nobody takes it away: whoever uses something holds it, and what is held stays.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Which things of a kind are held, and how often.
#[derive(Debug)]
pub struct Holds<K: Ord>(Arc<Mutex<BTreeMap<K, usize>>>);

/// One hold; the thing may go when all of its holds are dropped.
#[derive(Debug)]
pub struct Held<K: Ord> {
    key: K,
    holds: Arc<Mutex<BTreeMap<K, usize>>>,
}

impl<K: Ord> Default for Holds<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Ord> Clone for Holds<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Ord + Clone> Holds<K> {
    /// Holds a thing.
    pub fn hold(&self, key: K) -> Held<K> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default() += 1;
        Held { key, holds: Arc::clone(&self.0) }
    }

    /// Holds the thing that `find` finds: nothing is taken away in between.
    pub fn hold_found<T>(&self, find: impl FnOnce() -> Option<(K, T)>) -> Option<(Held<K>, T)> {
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (key, found) = find()?;
        *holds.entry(key.clone()).or_default() += 1;
        Some((Held { key, holds: Arc::clone(&self.0) }, found))
    }

    /// Takes a thing away by `away`, unless it is held; nobody can hold it meanwhile, so `away` is to be quick.
    pub fn unless_held<T>(&self, key: &K, away: impl FnOnce() -> T) -> Option<T> {
        let holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!holds.contains_key(key)).then(away)
    }
}

impl<K: Ord> Drop for Held<K> {
    fn drop(&mut self) {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = holds.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                holds.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_stays() {
        let holds = Holds::default();
        let (first, second) = (holds.hold(1), holds.hold(1));
        assert_eq!(holds.unless_held(&2, || "gone"), Some("gone"));
        drop(first);
        assert_eq!(holds.unless_held(&1, || "gone"), None);
        drop(second);
        assert_eq!(holds.unless_held(&1, || "gone"), Some("gone"));
        let (held, found) = holds.hold_found(|| Some((3, "found"))).expect("it is there");
        assert_eq!((found, holds.unless_held(&3, || "gone")), ("found", None));
        drop(held);
        assert!(holds.hold_found(|| None::<(i32, ())>).is_none());
    }
}
