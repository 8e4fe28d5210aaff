//! Pipelines as Rust programs.
//!
//! A pipeline is a function that adds jobs to a [`Ci`]; [`Ci::main`] makes a program of one or several. `ropewalk run`
//! builds the program, asks it for its jobs, and asks again when it waits for results. What crosses is described in
//! `docs/design/2026-11-21-rust-pipelines.md` of Ropewalk: the native format as JSON, with the place of every key.
//!
//! Reading order: [`ci`] the jobs, [`job`] one of them, [`inputs`] what flows between them, [`data`] values that may;
//! [`growth`] and [`gate`] what waits for results; [`term`] statuses; [`context`] what a function gets when it runs;
//! [`plugin`] jobs that crates bring; [`hook`] triggers and `main`; [`wire`] the verbs; [`testing`] tests of a pipeline.
//!
//! Nothing in an evaluation does I/O, reads a clock or draws a random number. Only [`context`] and [`testing`] touch the
//! world, and they run in jobs and in tests.

pub mod build;
pub mod ci;
mod clock;
pub mod condition;
pub mod context;
pub mod data;
mod document;
pub mod event;
pub mod extension;
pub mod fields;
mod function;
pub mod gate;
pub mod growth;
pub mod hook;
pub mod inputs;
pub mod job;
mod json;
mod mark;
pub mod plugin;
mod reads;
pub mod scope;
pub mod step;
pub mod term;
pub mod testing;
pub mod texts;
mod wire;
#[cfg(feature = "serde")]
mod with_serde;
pub mod words;

pub use build::Child;
pub use ci::Ci;
pub use condition::Condition;
pub use context::{Cx, Failure};
pub use data::{Data, Dir, File};
pub use event::{Event, EventKind};
pub use extension::{JobView, Origin};
pub use fields::{Field, FieldType, Fill, field};
pub use gate::{Answer, Gate};
pub use growth::{Cause, Ended, Grown};
pub use hook::{Hook, on};
pub use inputs::{Inputs, Output};
pub use job::{Defaults, Job, Needs};
pub use json::{Json, JsonError};
pub use plugin::{Plugin, With};
pub use ropewalk_derive::Data;
pub use step::Step;
pub use term::{Caught, StatusText, Term, TermState};
pub use texts::Texts;
#[cfg(feature = "serde")]
pub use with_serde::Serde;
pub use words::{Cache, Concurrency, Environment, Matrix, Network, Pull, Retry, RetryOn, Reuse, Service, Workspace};

// The derive names the crate by its own name.
extern crate self as ropewalk;
