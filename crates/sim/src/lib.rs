//! Storms: seeded random faults against the real engine and the real store in memory.
//!
//! A [`storm`] is a world of workers, people and pipelines that misbehave by the dice of its seed; the [`oracle`]
//! reads every fact and says when one must not be. [`sabotage`] breaks things on purpose, to show that it would.
//! Nothing here reads a clock, starts a thread or draws a number that the seed does not determine.

pub mod storm;

pub mod oracle;
pub mod pipeline;
pub mod random;
pub mod sabotage;

pub use oracle::Violation;
pub use sabotage::Sabotage;
pub use storm::{Failure, Tally, run};
