//! Jobs in containers, by the engine of this machine.
//!
//! Reading order: [`engine`] the engine and its API; [`image`] from a name to a digest, with [`context`] for builds; [`job`] a job's
//! container and the steps in it, [`control_group`] what it used; [`service`] the containers beside it; [`leftover`] what a killed worker left, [`monitor`] what Podman leaves; [`visit`] a shell in a container
//! like that of a job that has ended.
//!
//! **Pitfalls.** Two mounts of one upper layer at once are undefined: the worker's view of a job is closed while its container
//! lives. What a step can write, the worker never opens by name. Whatever is made here carries our labels, before it runs.

pub mod engine;

pub(crate) mod image;

mod context;
mod control_group;
pub(crate) mod job;

pub(crate) mod service;

mod leftover;
mod monitor;

pub(crate) mod visit;

pub use engine::{Engine, EngineError};
pub use leftover::{ATTEMPT_LABEL, BUILD_LABEL, DATA_LABEL, data_label, remove_leftovers};
pub(crate) use leftover::{forget, labels, note};
pub use visit::{LeftContainer, VisitError};
