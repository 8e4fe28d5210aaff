//! Decides what runs: a pure state machine of facts and effects.
