//! Storms: seeded random faults against the whole.
