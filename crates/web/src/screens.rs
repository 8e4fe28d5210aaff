//! The pages, one file each.

pub mod artifact;
pub mod attempts;
pub mod build;
pub mod builds;
pub mod job;
pub mod log;
pub mod projects;
pub mod queue;
pub mod refusal;
pub mod sign_in;
