//! Maps whose keys are hashed quickly: a pipeline of ten thousand jobs is lowered in tens of milliseconds, of which the usual
//! hasher took a tenth. Each map begins with numbers of its own, and nothing here depends on the order of one.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

/// A map whose keys are hashed quickly.
pub(crate) type QuickMap<K, V> = HashMap<K, V, RandomState>;
/// A set whose keys are hashed quickly.
pub(crate) type QuickSet<K> = HashSet<K, RandomState>;
