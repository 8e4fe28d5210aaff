//! What travels over HTTP, and the client. The public shape is its own: neither engine nor store stand behind it.
//!
//! [`worker`] is what a worker and its server say to each other; [`source`] is the state of a project's files as it is
//! sent for a build.

pub mod blob;
pub mod source;
pub mod worker;
