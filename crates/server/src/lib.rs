//! The shell around the engine, the one loop that owns it, and the server that is built on it.
//!
//! A laptop's `ropewalk run` and a server run the same loop; they differ only in their [`shell::World`].

pub mod request;
pub mod shell;

pub mod absences;
pub mod children;
pub mod dispatch;
pub mod figures;
pub mod lead;
pub mod live;
pub mod lowering;
pub mod members;
pub mod moments;
pub mod one_time;
pub mod outbox;
pub mod present;
pub mod quarantine;
pub mod records;
pub mod recovery;
pub mod server;
pub mod source;
pub mod visits;
pub mod world;

pub mod access;
pub mod http;
pub mod parts;
pub mod pool_history;
pub mod worker_time;

mod aside;
mod lock;
mod random;

#[cfg(feature = "faults")]
mod faults;

pub mod backup;
mod damaged_logs;
pub mod doctor;
mod lost_logs;
pub mod named;
pub mod notices;
pub mod owner;
pub mod retention;
mod unshared;

pub mod secrets;
pub mod settings;
pub mod setup;
pub mod telemetry;

pub use request::{ShellHandle, Stopped};
pub use server::{Running, Server};
pub use shell::{Inbox, Shell, ShellError, World};
