//! The pages, one file each.

pub(crate) mod annotations;
pub mod artifact;
pub mod attempts;
pub mod build;
pub mod builds;
pub mod compare;
pub mod first;
pub(crate) mod gate;
pub(crate) mod groups;
pub mod job;
pub mod log;
pub(crate) mod members;
pub mod project;
pub mod project_settings;
pub mod projects;
pub mod quarantine;
pub mod queue;
pub mod refusal;
pub mod settings;
pub mod sign_in;
pub mod test;
pub mod tests;
pub mod wall;
