//! The shell around the engine, the one loop that owns it, and the server that is built on it.
//!
//! A laptop's `ropewalk run` and a server run the same loop; they differ only in their [`shell::World`].

pub mod access;
pub mod parts;
pub mod request;
pub mod settings;
pub mod shell;

pub use request::{ShellHandle, Stopped};
pub use shell::{Inbox, Shell, ShellError, World};
