//! The shell around the engine: the one loop that owns it, stores its facts and then performs its effects.
//!
//! A laptop's `ropewalk run` and a server run the same loop; they differ only in their [`shell::World`].

pub mod shell;

pub use shell::{Inbox, Shell, ShellError, World};
