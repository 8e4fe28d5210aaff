//! Decides what runs. `step(now, inputs) -> (facts, effects)`: no I/O, no clock, no randomness, no `async`.
//!
//! The walk of its data: an [`Input`] may be late, repeated or wrong and is judged into [`Fact`]s or into nothing;
//! `apply` folds facts into the state and is the only function that changes it; [`Effect`]s are what the state
//! says the world still has to do, so after a crash they are simply asked again.

pub mod effect;
pub mod fact;
pub mod input;
pub mod operation;

mod adoption;
pub mod affinity;
pub mod child;
mod decide;
mod engine;
mod judge;
pub mod report;
pub mod request;

mod build;
mod contexts;
pub mod lease;
mod line;
pub mod pools;
mod ranked;
pub mod ring;
pub mod schedule;
pub mod standing;
pub mod state;
pub mod wait;
pub mod warmth;

pub use build::is_accepted;
pub use effect::Effect;
pub use engine::{Engine, Step};
pub use fact::{Adopted, Ended, Fact, Reused, What};
pub use input::{BuildOptions, BuildRequest, FailurePolicy, Input, Intake, PoolReach, Presence, ReusePolicy};
pub use judge::{EVALUATIONS_MAX, NEWER_IN_GROUP, QUESTIONS_MAX};
pub use request::is_superseded_by;
pub use standing::{Standing, Took};
pub use state::JobState;
pub use wait::{ClientState, Estimate, Instead, PoolState, Wait};
pub use warmth::Warm;
